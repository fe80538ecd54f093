/* Statements: what the tags do. */
#include "common/chat/statements.h"

#include "common/chat/eval.h"
#include "common/chat/scopes.h"

/* ---- printing into a text ---- */

struct lb_jv lb_jrun_text(struct lb_jinja *j, const struct lb_jnode *body, struct lb_jscope *scope) {
    struct lb_jbuilder text, *out = j->out;
    struct lb_jscope *before = j->scope;
    lb_jb_init(&text, j);
    if (!lb_jscope_open(j, scope)) {
        return lb_jv_undefined(NULL);
    }
    j->out = &text;
    lb_jrun(j, body);
    j->out = out;
    j->scope = before;
    return lb_jb_done(&text);
}

/* Through the filters of node, whose innermost value stands for itself. */
static struct lb_jv through(struct lb_jinja *j, const struct lb_jnode *filters, struct lb_jv value) {
    struct lb_jargs args;
    if (!filters || j->status != LB_OK || !lb_jinja_down(j)) {
        return value;
    }
    value = through(j, filters->a, value);
    if (lb_jeval_args(j, filters->args, &args)) {
        value = lb_jfilter_run(j, filters->entry, value, &args);
    }
    lb_jinja_up(j);
    return value;
}

static void generation(struct lb_jinja *j, const struct lb_jnode *node) {
    struct lb_jv text = lb_jrun_text(j, node->body, j->scope);
    if (j->status != LB_OK || !text.len) {
        return;
    }
    uint8_t *mark = lb_jinja_alloc(j, text.len, 1);
    for (size_t i = 0; mark && i < text.len; i++) {
        mark[i] = (text.mark ? text.mark[i] : 0) | LB_CHAT_GENERATION;
    }
    if (mark) {
        lb_jb_put(j->out, text.s, text.len, mark);
    }
}

/* ---- loops ---- */

/* The items that the loop's condition lets through. */
static bool sieve(struct lb_jinja *j, const struct lb_jnode *node, struct lb_jlist *items) {
    struct lb_jscope *around = j->scope;
    struct lb_jv kept = lb_jv_list(j, LB_SORT_LIST, items->n);
    for (size_t i = 0; i < items->n && j->status == LB_OK; i++) {
        if (lb_jscope_open(j, around)) {
            lb_jassign(j, node->a, items->item[i]);
            struct lb_jv keep = lb_jeval(j, node->c);
            if (lb_jv_truth(j, &keep)) {
                lb_jlist_put(j, kept, items->item[i]);
            }
        }
        j->scope = around;
    }
    if (j->status == LB_OK) {
        *items = *kept.list;
    }
    return j->status == LB_OK;
}

static void run_for(struct lb_jinja *j, const struct lb_jnode *node, struct lb_jv over, int depth) {
    struct lb_jscope *around = j->scope;
    struct lb_jloop *loop = lb_jinja_alloc(j, 1, sizeof *loop);
    struct lb_jlist items;
    if (!loop || !lb_jv_items(j, over, "a for loop", &items) || (node->c && !sieve(j, node, &items))) {
        return;
    }
    *loop =
        (struct lb_jloop){.items = items, .depth = depth, .node = node->flag ? node : NULL, .scope = around};
    for (; loop->at < items.n && lb_jinja_step(j, 1); loop->at++) {
        if (!lb_jscope_open(j, around)) {
            break;
        }
        lb_jbind(j, j->template->loop_name, (struct lb_jv){.kind = LB_JV_LOOP, .loop = loop});
        lb_jassign(j, node->a, items.item[loop->at]);
        lb_jrun(j, node->body);
        bool leave = j->leave == LB_LEAVE_BREAK;
        j->leave = LB_LEAVE_NOT;
        if (leave) {
            break;
        }
    }
    j->scope = around;
    if (!items.n && node->other && lb_jscope_open(j, around)) {
        lb_jrun(j, node->other);
        j->scope = around;
    }
}

struct lb_jv lb_jrun_loop(struct lb_jinja *j, const struct lb_jloop *around, struct lb_jv items) {
    struct lb_jbuilder text, *out = j->out;
    struct lb_jscope *scope = j->scope;
    uint8_t leave = j->leave;
    if (!lb_jinja_down(j)) {
        return lb_jv_undefined(NULL);
    }
    lb_jb_init(&text, j);
    j->out = &text;
    j->scope = around->scope;
    run_for(j, around->node, items, around->depth + 1);
    j->out = out;
    j->scope = scope;
    j->leave = leave;
    lb_jinja_up(j);
    return lb_jb_done(&text);
}

/* ---- one statement ---- */

static void run_if(struct lb_jinja *j, const struct lb_jnode *node) {
    while (node && j->status == LB_OK) {
        struct lb_jv condition = lb_jeval(j, node->a);
        if (j->status == LB_OK && lb_jv_truth(j, &condition)) {
            lb_jrun(j, node->body);
            return;
        }
        const struct lb_jnode *other = node->other;
        node = other && other->kind == LB_JN_IF && !other->next ? other : NULL;
        if (!node) {
            lb_jrun(j, other);
        }
    }
}

static void run_with(struct lb_jinja *j, const struct lb_jnode *node) {
    struct lb_jscope *around = j->scope;
    struct lb_jv value[LB_JINJA_MAX_ARGS];
    size_t n = 0;
    for (const struct lb_jnode *part = node->args; part; part = part->next) {
        if (n == LB_JINJA_MAX_ARGS) {
            lb_jinja_fail(j, LB_E_LIMIT, "more than %d names of one with", LB_JINJA_MAX_ARGS);
            return;
        }
        value[n++] = lb_jeval(j, part->b); /* before any of them is known */
    }
    if (!lb_jscope_open(j, around)) {
        return;
    }
    n = 0;
    for (const struct lb_jnode *part = node->args; part; part = part->next) {
        lb_jassign(j, part->a, value[n++]);
    }
    lb_jrun(j, node->body);
    j->scope = around;
}

static void run_macro(struct lb_jinja *j, const struct lb_jnode *node) {
    struct lb_jmacro *macro = lb_jinja_alloc(j, 1, sizeof *macro);
    if (macro) {
        *macro = (struct lb_jmacro){.node = node, .scope = j->scope};
        lb_jbind(j, node->name, (struct lb_jv){.kind = LB_JV_MACRO, .macro = macro});
    }
}

static void run_call_block(struct lb_jinja *j, const struct lb_jnode *node) {
    struct lb_jargs args;
    struct lb_jmacro *caller = lb_jinja_alloc(j, 1, sizeof *caller);
    struct lb_jv callee = lb_jeval(j, node->a->a), text;
    if (!caller || !lb_jeval_args(j, node->a->args, &args)) {
        return;
    }
    *caller = (struct lb_jmacro){.node = node, .scope = j->scope};
    j->call(j, &callee, &args, caller, &text);
    lb_jb_value(j->out, &text);
}

static void run_one(struct lb_jinja *j, const struct lb_jnode *node) {
    struct lb_jv value;
    switch (node->kind) {
    case LB_JN_TEXT:
        lb_jb_text(j->out, &node->value);
        break;
    case LB_JN_PRINT:
        value = lb_jeval(j, node->a);
        if (j->status == LB_OK) {
            lb_jb_value(j->out, &value);
        }
        break;
    case LB_JN_IF:
        run_if(j, node);
        break;
    case LB_JN_FOR:
        value = lb_jeval(j, node->b);
        if (j->status == LB_OK) {
            run_for(j, node, value, 1);
        }
        break;
    case LB_JN_SET:
        lb_jassign(j, node->a, lb_jeval(j, node->b));
        break;
    case LB_JN_SET_BLOCK:
        value = lb_jrun_text(j, node->body, j->scope);
        lb_jassign(j, node->a, through(j, node->b, value));
        break;
    case LB_JN_WITH:
        run_with(j, node);
        break;
    case LB_JN_MACRO:
        run_macro(j, node);
        break;
    case LB_JN_CALL_BLOCK:
        run_call_block(j, node);
        break;
    case LB_JN_FILTER_BLOCK:
        value = through(j, node->b, lb_jrun_text(j, node->body, j->scope));
        if (j->status == LB_OK) {
            lb_jb_value(j->out, &value);
        }
        break;
    case LB_JN_GENERATION:
        generation(j, node);
        break;
    default:
        j->leave = node->kind == LB_JN_BREAK ? LB_LEAVE_BREAK : LB_LEAVE_CONTINUE;
    }
}

void lb_jrun(struct lb_jinja *j, const struct lb_jnode *body) {
    if (j->status != LB_OK || !lb_jinja_down(j)) {
        return;
    }
    for (const struct lb_jnode *node = body; node && j->status == LB_OK && j->leave == LB_LEAVE_NOT;
         node = node->next) {
        j->line = node->line;
        lb_jinja_step(j, 1);
        run_one(j, node);
    }
    lb_jinja_up(j);
}
