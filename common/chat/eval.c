/* Expressions: what a node of the tree is worth. */
#include "common/chat/eval.h"

#include "common/chat/access.h"
#include "common/chat/operators.h"
#include "common/chat/scopes.h"
#include "common/chat/tables.h"

static struct lb_jv eval_name(struct lb_jinja *j, const struct lb_jnode *node) {
    const struct lb_jname *name = &j->template->name[node->name];
    const struct lb_jv *bound = lb_jlookup(j, node->name);
    if (bound) {
        return *bound;
    }
    bool there = name->function >= 0 && (name->function != LB_JF_STRFTIME_NOW || j->input->now);
    return there ? (struct lb_jv){.kind = LB_JV_FUNCTION, .id = (uint8_t)name->function}
                 : lb_jv_undefined(name->s);
}

static struct lb_jv eval_list(struct lb_jinja *j, const struct lb_jnode *node) {
    struct lb_jv list = lb_jv_list(j, node->kind == LB_JN_TUPLE ? LB_SORT_TUPLE : LB_SORT_LIST, 4);
    for (const struct lb_jnode *part = node->args; part && j->status == LB_OK; part = part->next) {
        lb_jlist_put(j, list, lb_jeval(j, part->a));
    }
    return list;
}

static struct lb_jv eval_dict(struct lb_jinja *j, const struct lb_jnode *node) {
    struct lb_jv dict = lb_jv_dict(j, 4);
    for (const struct lb_jnode *part = node->args; part && j->status == LB_OK; part = part->next) {
        struct lb_jv key = lb_jeval(j, part->a), value = lb_jeval(j, part->b);
        if (j->status == LB_OK) {
            lb_jdict_put(j, dict.dict, key, value);
        }
    }
    return dict;
}

static bool compare(struct lb_jinja *j, char op, const struct lb_jv *a, const struct lb_jv *b) {
    switch (op) {
    case 'E':
        return lb_jv_equal(j, a, b);
    case 'N':
        return !lb_jv_equal(j, a, b);
    case 'I':
        return lb_jv_contains(j, b, a);
    case 'O':
        return !lb_jv_contains(j, b, a);
    case '<':
        return lb_jv_order(j, a, b) < 0;
    case '>':
        return lb_jv_order(j, a, b) > 0;
    case 'L':
        return lb_jv_order(j, a, b) <= 0;
    default:
        return lb_jv_order(j, a, b) >= 0;
    }
}

static struct lb_jv eval_compare(struct lb_jinja *j, const struct lb_jnode *node) {
    struct lb_jv left = lb_jeval(j, node->a);
    bool truth = true;
    for (const struct lb_jnode *part = node->args; part && truth && j->status == LB_OK; part = part->next) {
        struct lb_jv right = lb_jeval(j, part->a);
        truth = j->status == LB_OK && compare(j, part->op, &left, &right);
        left = right;
    }
    return lb_jv_bool(truth);
}

/* and, or: the first operand that decides. */
static struct lb_jv eval_logic(struct lb_jinja *j, const struct lb_jnode *node) {
    struct lb_jv value = lb_jeval(j, node->a);
    for (const struct lb_jnode *part = node->args; part && j->status == LB_OK; part = part->next) {
        if (lb_jv_truth(j, &value) == (node->kind == LB_JN_OR)) {
            break;
        }
        value = lb_jeval(j, part->a);
    }
    return value;
}

static struct lb_jv eval_concat(struct lb_jinja *j, const struct lb_jnode *node) {
    struct lb_jbuilder b;
    lb_jb_init(&b, j);
    struct lb_jv value = lb_jeval(j, node->a);
    lb_jb_value(&b, &value);
    for (const struct lb_jnode *part = node->args; part && j->status == LB_OK; part = part->next) {
        value = lb_jeval(j, part->a);
        lb_jb_value(&b, &value);
    }
    return lb_jb_done(&b);
}

static struct lb_jv eval_binary(struct lb_jinja *j, const struct lb_jnode *node) {
    if (node->args->op == '~') {
        return eval_concat(j, node);
    }
    struct lb_jv value = lb_jeval(j, node->a);
    for (const struct lb_jnode *part = node->args; part && j->status == LB_OK; part = part->next) {
        struct lb_jv right = lb_jeval(j, part->a);
        if (j->status == LB_OK) {
            value = lb_jinja_binary(j, part->op, &value, &right);
        }
    }
    return value;
}

static struct lb_jv eval_sign(struct lb_jinja *j, const struct lb_jnode *node) {
    struct lb_jv value = lb_jeval(j, node->a);
    bool negative = node->kind == LB_JN_NEG;
    if (j->status != LB_OK) {
        return value;
    }
    if (value.kind == LB_JV_FLOAT) {
        return lb_jv_float(negative ? -value.f : value.f);
    }
    if (!lb_jv_is_int(&value) || lb_jv_whole(&value) == INT64_MIN) {
        return lb_jinja_fail(j, LB_E_ARG, "a %s takes no sign", lb_jv_type(&value));
    }
    return lb_jv_int(negative ? -lb_jv_whole(&value) : lb_jv_whole(&value));
}

static struct lb_jv eval_slice(struct lb_jinja *j, const struct lb_jnode *node) {
    struct lb_jv none = lb_jv_none(), of = lb_jeval(j, node->a);
    struct lb_jv start = node->b ? lb_jeval(j, node->b) : none, stop = node->c ? lb_jeval(j, node->c) : none,
                 step = node->d ? lb_jeval(j, node->d) : none;
    return j->status == LB_OK ? lb_jinja_slice(j, &of, &start, &stop, &step) : none;
}

bool lb_jeval_args(struct lb_jinja *j, const struct lb_jnode *args, struct lb_jargs *out) {
    out->n = out->n_positional = 0;
    for (const struct lb_jnode *arg = args; arg && j->status == LB_OK; arg = arg->next) {
        out->name[out->n] = arg->name;
        out->value[out->n++] = lb_jeval(j, arg->a);
        out->n_positional += arg->name < 0;
    }
    return j->status == LB_OK;
}

static struct lb_jv eval_call(struct lb_jinja *j, const struct lb_jnode *node) {
    struct lb_jargs args;
    struct lb_jv callee = lb_jeval(j, node->a), value;
    if (!lb_jeval_args(j, node->args, &args)) {
        return lb_jv_undefined(NULL);
    }
    j->line = node->line;
    j->call(j, &callee, &args, NULL, &value);
    return value;
}

static struct lb_jv eval_filter(struct lb_jinja *j, const struct lb_jnode *node) {
    struct lb_jargs args;
    struct lb_jv value = lb_jeval(j, node->a);
    if (!lb_jeval_args(j, node->args, &args)) {
        return lb_jv_undefined(NULL);
    }
    j->line = node->line;
    return lb_jfilter_run(j, node->entry, value, &args);
}

static struct lb_jv eval_test(struct lb_jinja *j, const struct lb_jnode *node) {
    struct lb_jv value = lb_jeval(j, node->a);
    struct lb_jv arg = node->args ? lb_jeval(j, node->args->a) : lb_jv_none();
    return lb_jv_bool(j->status == LB_OK && lb_jtest_run(j, node->entry, &value, &arg));
}

static struct lb_jv eval_if_else(struct lb_jinja *j, const struct lb_jnode *node) {
    struct lb_jv condition = lb_jeval(j, node->b);
    if (j->status != LB_OK) {
        return condition;
    }
    if (lb_jv_truth(j, &condition)) {
        return lb_jeval(j, node->a);
    }
    return node->c ? lb_jeval(j, node->c) : lb_jv_undefined("the value of an if without else");
}

static struct lb_jv eval_kind(struct lb_jinja *j, const struct lb_jnode *node) {
    struct lb_jv a, b;
    switch (node->kind) {
    case LB_JN_CONST:
        return node->value;
    case LB_JN_NAME:
        return eval_name(j, node);
    case LB_JN_LIST:
    case LB_JN_TUPLE:
        return eval_list(j, node);
    case LB_JN_DICT:
        return eval_dict(j, node);
    case LB_JN_ATTR:
        a = lb_jeval(j, node->a);
        a = j->status == LB_OK ? lb_jeval_attr(j, &a, &node->value) : a;
        if (a.kind == LB_JV_UNDEFINED && !a.name) {
            a.name = j->template->name[node->name].s;
        }
        return a;
    case LB_JN_ITEM:
        a = lb_jeval(j, node->a);
        b = lb_jeval(j, node->b);
        return j->status == LB_OK ? lb_jeval_item(j, &a, &b) : a;
    case LB_JN_SLICE:
        return eval_slice(j, node);
    case LB_JN_CALL:
        return eval_call(j, node);
    case LB_JN_FILTER:
        return eval_filter(j, node);
    case LB_JN_TEST:
        return eval_test(j, node);
    case LB_JN_NOT:
        a = lb_jeval(j, node->a);
        return lb_jv_bool(!lb_jv_truth(j, &a));
    case LB_JN_NEG:
    case LB_JN_POS:
        return eval_sign(j, node);
    case LB_JN_AND:
    case LB_JN_OR:
        return eval_logic(j, node);
    case LB_JN_COMPARE:
        return eval_compare(j, node);
    case LB_JN_BINARY:
        return eval_binary(j, node);
    case LB_JN_IF_ELSE:
        return eval_if_else(j, node);
    default:
        return lb_jinja_fail(j, LB_E_INTERNAL, "a node of kind %d is no expression", node->kind);
    }
}

struct lb_jv lb_jeval(struct lb_jinja *j, const struct lb_jnode *node) {
    if (j->status != LB_OK || !lb_jinja_down(j)) {
        return lb_jv_undefined(NULL);
    }
    j->line = node->line;
    struct lb_jv value = eval_kind(j, node);
    lb_jinja_up(j);
    return value;
}
