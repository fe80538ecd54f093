/* What all of the parser builds on: errors, nodes, names, tokens; whether what is called is known. */
#include "common/chat/parser.h"

#include "common/chat/calls.h"
#include "common/chat/tables.h"

#include <stdio.h>
#include <string.h>

struct lb_jnode *lb_jparse_fail(struct lb_jparser *p, enum lb_status code, int line, const char *format,
                                ...) {
    if (p->status == LB_OK) {
        char text[LB_DETAIL_TEXT / 2];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        p->status = code;
        lb_fail(p->detail, code, "%s: line %d: %s", p->to->what, line, text);
    }
    return NULL;
}

struct lb_jnode *lb_jparse_node(struct lb_jparser *p, uint8_t kind) {
    struct lb_jnode *node = p->status == LB_OK ? lb_arena_zarray(&p->to->arena, 1, sizeof *node) : NULL;
    if (!node) {
        return lb_jparse_fail(p, LB_E_LIMIT, p->at->line, "the template is too large");
    }
    node->kind = kind;
    node->line = p->at->line;
    node->name = -1;
    return node;
}

int lb_jparse_intern(struct lb_jparser *p, const char *s, size_t len) {
    struct lb_chat_template *to = p->to;
    for (int i = 0; i < to->n_names; i++) {
        if (to->name[i].len == len && !memcmp(to->name[i].s, s, len)) {
            return i;
        }
    }
    if (to->n_names == to->cap_names) {
        int cap = to->cap_names ? to->cap_names * 2 : 64;
        struct lb_jname *more = lb_arena_array(&to->arena, (size_t)cap, sizeof *more);
        if (!more) {
            lb_jparse_fail(p, LB_E_LIMIT, p->at->line, "the template is too large");
            return 0;
        }
        if (to->n_names) {
            memcpy(more, to->name, (size_t)to->n_names * sizeof *more);
        }
        to->name = more;
        to->cap_names = cap;
    }
    char *copy = lb_arena_array(&to->arena, len + 1, 1);
    if (!copy) {
        lb_jparse_fail(p, LB_E_LIMIT, p->at->line, "the template is too large");
        return 0;
    }
    memcpy(copy, s, len);
    copy[len] = '\0';
    to->name[to->n_names] = (struct lb_jname){.s = copy, .len = len, .function = lb_jfunction_find(s, len)};
    return to->n_names++;
}

bool lb_jparse_token_is(const struct lb_jtoken *token, const char *name) {
    return token->kind == LB_JT_NAME && token->len == strlen(name) && !memcmp(token->s, name, token->len);
}

bool lb_jparse_is_name(const struct lb_jparser *p, const char *name) {
    return lb_jparse_token_is(p->at, name);
}

bool lb_jparse_is_op(const struct lb_jparser *p, char op) {
    return p->at->kind == LB_JT_OPERATOR && p->at->op == op;
}

void lb_jparse_next(struct lb_jparser *p) {
    p->at += p->at->kind != LB_JT_END;
}

bool lb_jparse_skip_name(struct lb_jparser *p, const char *name) {
    bool is = lb_jparse_is_name(p, name);
    if (is) {
        lb_jparse_next(p);
    }
    return is;
}

bool lb_jparse_skip_op(struct lb_jparser *p, char op) {
    bool is = lb_jparse_is_op(p, op);
    if (is) {
        lb_jparse_next(p);
    }
    return is;
}

struct lb_jnode *lb_jparse_unexpected(struct lb_jparser *p, const char *wanted) {
    static const char *const kinds[] = {
        "text",     "{{",       "the end of {{ }}", "{%",          "the end of the tag",     "a name",
        "a string", "a number", "a number",         "an operator", "the end of the template"};
    const struct lb_jtoken *t = p->at;
    if (t->kind == LB_JT_NAME) {
        return lb_jparse_fail(p, LB_E_FORMAT, t->line, "%s is expected, not \"%.*s\"", wanted,
                              (int)(t->len < 60 ? t->len : 60), t->s);
    }
    return lb_jparse_fail(p, LB_E_FORMAT, t->line, "%s is expected, not %s", wanted, kinds[t->kind]);
}

bool lb_jparse_expect_op(struct lb_jparser *p, char op) {
    char wanted[] = {'"', op, '"', '\0'};
    if (!lb_jparse_skip_op(p, op)) {
        lb_jparse_unexpected(p, wanted);
        return false;
    }
    return true;
}

/* ---- whether what is called is known ---- */

/* Whether name is among names ("a,b,c"). */
static bool among(const char *names, const char *name, size_t len) {
    for (const char *at = names; *at;) {
        size_t n = strcspn(at, ",");
        if (n == len && !memcmp(at, name, n)) {
            return true;
        }
        at += n + (at[n] == ',');
    }
    return false;
}

void lb_jparse_check_args(struct lb_jparser *p, const struct lb_jparams *params, const struct lb_jnode *args,
                          int line, const char *sort, const char *who) {
    size_t n = 0, max = *params->names ? 1 : 0, given = 0;
    for (const char *c = params->names; *c; c++) {
        max += *c == ',';
    }
    for (const struct lb_jnode *arg = args; arg; arg = arg->next) {
        const struct lb_jname *name = arg->name >= 0 ? &p->to->name[arg->name] : NULL;
        if (name && !among(params->names, name->s, name->len)) {
            lb_jparse_fail(p, LB_E_UNSUPPORTED, line, "the argument %.60s of the %s %s is not supported",
                           name->s, sort, who);
        }
        n += !name;
        given++;
    }
    if (n > max && !params->open) {
        lb_jparse_fail(p, LB_E_UNSUPPORTED, line, "%zu arguments of the %s %s are not supported", n, sort,
                       who);
    }
    if (given < params->required) {
        lb_jparse_fail(p, LB_E_FORMAT, line, "the %s %s needs %d arguments", sort, who, params->required);
    }
}

void lb_jparse_check_named(struct lb_jparser *p, const struct lb_jfilter *filter, const struct lb_jnode *args,
                           int line) {
    const struct lb_jnode *arg = args;
    for (int i = 0; i < filter->names_at && arg; i++) {
        arg = arg->next;
    }
    if (!filter->names_test || !arg || arg->name >= 0) {
        return;
    }
    const struct lb_jv *name = &arg->a->value;
    if (arg->a->kind != LB_JN_CONST || name->kind != LB_JV_TEXT) {
        lb_jparse_fail(p, LB_E_UNSUPPORTED, line,
                       "the filter %s with a name that is computed is not supported", filter->name);
    } else if (filter->names_test == 1 ? !lb_jtest_find(name->s, name->len)
                                       : !lb_jfilter_find(name->s, name->len)) {
        lb_jparse_fail(p, LB_E_UNSUPPORTED, line, "the %s %.*s is not supported",
                       filter->names_test == 1 ? "test" : "filter", (int)(name->len < 60 ? name->len : 60),
                       name->s);
    }
}

void lb_jparse_check_callee(struct lb_jparser *p, const struct lb_jnode *a, const struct lb_jnode *args,
                            int line) {
    if (a->kind == LB_JN_NAME) {
        struct lb_jname *name = &p->to->name[a->name];
        name->called = name->called ? name->called : line;
        if (name->function >= 0 && !lb_jfunction_params(name->function)->open) {
            lb_jparse_check_args(p, lb_jfunction_params(name->function), args, line, "function", name->s);
        }
    } else if (a->kind == LB_JN_ATTR) {
        const struct lb_jv *name = &a->value;
        int id = lb_jmethod_find(name->s, name->len, 0xff);
        if (id < 0) {
            lb_jparse_fail(p, LB_E_UNSUPPORTED, line, "the method %.*s() is not supported",
                           (int)(name->len < 60 ? name->len : 60), name->s);
        }
    }
}
