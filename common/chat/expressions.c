/* Expressions, in the order of precedence that Jinja gives them, from what binds tightest: literals, names
 * and what may stand behind them; then operators. */
#include "common/chat/parser.h"

#include "common/chat/tables.h"

#include <string.h>

/* ---- arguments ---- */

/* "(" args ")": names of keywords, no stars. */
static struct lb_jnode *parse_args(struct lb_jparser *p) {
    struct lb_jnode *first = NULL, **end = &first;
    size_t n = 0;
    bool keywords = false;
    lb_jparse_expect_op(p, '(');
    while (p->status == LB_OK && !lb_jparse_is_op(p, ')')) {
        if (n && (!lb_jparse_expect_op(p, ',') || lb_jparse_is_op(p, ')'))) {
            break;
        }
        if (lb_jparse_is_op(p, '*') || lb_jparse_is_op(p, 'P')) {
            return lb_jparse_fail(p, LB_E_UNSUPPORTED, p->at->line,
                                  "* and ** before an argument are not supported");
        }
        struct lb_jnode *arg = lb_jparse_node(p, LB_JN_PART);
        if (p->at->kind == LB_JT_NAME && p->at[1].kind == LB_JT_OPERATOR && p->at[1].op == '=') {
            int name = lb_jparse_intern(p, p->at->s, p->at->len);
            p->at += 2;
            keywords = true;
            if (arg) {
                arg->name = name;
            }
        } else if (keywords) {
            return lb_jparse_fail(p, LB_E_FORMAT, p->at->line, "an argument behind one with a name");
        }
        struct lb_jnode *value = lb_jparse_expression(p);
        if (!arg || !value) {
            return NULL;
        }
        arg->a = value;
        *end = arg;
        end = &arg->next;
        if (++n > LB_JINJA_MAX_ARGS) {
            return lb_jparse_fail(p, LB_E_LIMIT, p->at->line, "more than %d arguments", LB_JINJA_MAX_ARGS);
        }
    }
    lb_jparse_expect_op(p, ')');
    return first;
}

/* ---- filters and tests ---- */

struct lb_jnode *lb_jparse_filters(struct lb_jparser *p, struct lb_jnode *a, bool first) {
    while (p->status == LB_OK && (first || lb_jparse_skip_op(p, '|'))) {
        const struct lb_jtoken *name = p->at;
        struct lb_jnode *node = lb_jparse_node(p, LB_JN_FILTER);
        if (name->kind != LB_JT_NAME) {
            return lb_jparse_unexpected(p, "the name of a filter");
        }
        lb_jparse_next(p);
        const struct lb_jfilter *filter = lb_jfilter_find(name->s, name->len);
        if (!filter || lb_jparse_is_op(p, '.')) {
            return lb_jparse_fail(p, LB_E_UNSUPPORTED, name->line, "the filter %.*s is not supported",
                                  (int)(name->len < 60 ? name->len : 60), name->s);
        }
        struct lb_jnode *args = lb_jparse_is_op(p, '(') ? parse_args(p) : NULL;
        lb_jparse_check_args(p, &filter->params, args, name->line, "filter", filter->name);
        if (p->status == LB_OK) {
            lb_jparse_check_named(p, filter, args, name->line);
        }
        if (p->status != LB_OK) {
            return NULL;
        }
        node->a = a;
        node->entry = filter;
        node->args = args;
        a = node;
        first = false;
    }
    return p->status == LB_OK ? a : NULL;
}

static struct lb_jnode *parse_postfix(struct lb_jparser *p, struct lb_jnode *a);

static struct lb_jnode *parse_test(struct lb_jparser *p, struct lb_jnode *a) {
    lb_jparse_next(p);
    bool negated = lb_jparse_skip_name(p, "not");
    const struct lb_jtoken *name = p->at;
    struct lb_jnode *node = lb_jparse_node(p, LB_JN_TEST);
    if (name->kind != LB_JT_NAME) {
        return lb_jparse_unexpected(p, "the name of a test");
    }
    lb_jparse_next(p);
    const struct lb_jtest *test = lb_jtest_find(name->s, name->len);
    if (!test || lb_jparse_is_op(p, '.')) {
        return lb_jparse_fail(p, LB_E_UNSUPPORTED, name->line, "the test %.*s is not supported",
                              (int)(name->len < 60 ? name->len : 60), name->s);
    }
    struct lb_jnode *args = NULL;
    bool begins = (p->at->kind >= LB_JT_NAME && p->at->kind <= LB_JT_FLOAT) || lb_jparse_is_op(p, '[') ||
                  lb_jparse_is_op(p, '{');
    bool ends = lb_jparse_is_name(p, "else") || lb_jparse_is_name(p, "or") || lb_jparse_is_name(p, "and");
    if (lb_jparse_is_op(p, '(')) {
        args = parse_args(p);
    } else if (begins && !ends) {
        if (lb_jparse_is_name(p, "is")) {
            return lb_jparse_fail(p, LB_E_FORMAT, name->line, "tests cannot be chained");
        }
        args = lb_jparse_node(p, LB_JN_PART);
        struct lb_jnode *value = lb_jparse_primary(p, false);
        value = value ? parse_postfix(p, value) : NULL;
        if (args) {
            args->a = value;
        }
    }
    size_t n = 0;
    for (const struct lb_jnode *arg = args; arg; arg = arg->next) {
        n += arg->name < 0 ? 1 : 100;
    }
    if (p->status == LB_OK && n != test->n_args) {
        return lb_jparse_fail(p, LB_E_UNSUPPORTED, name->line, "the test %s takes %d arguments", test->name,
                              test->n_args);
    }
    if (p->status != LB_OK || !node) {
        return NULL;
    }
    node->a = a;
    node->entry = test;
    node->args = args;
    struct lb_jnode *not_node = negated ? lb_jparse_node(p, LB_JN_NOT) : NULL;
    if (not_node) {
        not_node->a = node;
    }
    return negated ? not_node : node;
}

/* ---- calls, attributes, items ---- */

static struct lb_jnode *parse_call(struct lb_jparser *p, struct lb_jnode *a) {
    int line = p->at->line;
    struct lb_jnode *node = lb_jparse_node(p, LB_JN_CALL);
    struct lb_jnode *args = parse_args(p);
    if (p->status == LB_OK) {
        lb_jparse_check_callee(p, a, args, line);
    }
    if (p->status != LB_OK || !node) {
        return NULL;
    }
    node->a = a;
    node->args = args;
    return node;
}

static struct lb_jnode *parse_brackets(struct lb_jparser *p, struct lb_jnode *a) {
    struct lb_jnode *node = lb_jparse_node(p, LB_JN_ITEM);
    struct lb_jnode *part[3] = {NULL, NULL, NULL};
    int n = 0;
    lb_jparse_next(p);
    for (; n < 3 && p->status == LB_OK; n++) {
        if (!lb_jparse_is_op(p, ':') && !lb_jparse_is_op(p, ']')) {
            part[n] = lb_jparse_expression(p);
        }
        if (!lb_jparse_skip_op(p, ':')) {
            break;
        }
    }
    if (p->status == LB_OK && lb_jparse_is_op(p, ',')) {
        return lb_jparse_fail(p, LB_E_UNSUPPORTED, p->at->line, "an item by several keys is not supported");
    }
    if (!lb_jparse_expect_op(p, ']') || !node) {
        return NULL;
    }
    if (n == 0 && !part[0]) {
        return lb_jparse_fail(p, LB_E_FORMAT, p->at->line, "[] without a key");
    }
    node->kind = n == 0 ? LB_JN_ITEM : LB_JN_SLICE;
    node->a = a;
    node->b = part[0];
    node->c = part[1];
    node->d = part[2];
    return node;
}

static struct lb_jnode *parse_dot(struct lb_jparser *p, struct lb_jnode *a) {
    lb_jparse_next(p);
    const struct lb_jtoken *t = p->at;
    struct lb_jnode *node = lb_jparse_node(p, LB_JN_ATTR), *key = lb_jparse_node(p, LB_JN_CONST);
    if (!node || !key) {
        return NULL;
    }
    node->a = a;
    if (t->kind == LB_JT_NAME) {
        if (t->len >= 2 && !memcmp(t->s, "__", 2)) {
            return lb_jparse_fail(p, LB_E_UNSUPPORTED, t->line, "the attribute %.*s is not supported",
                                  (int)(t->len < 60 ? t->len : 60), t->s);
        }
        node->name = lb_jparse_intern(p, t->s, t->len);
        node->value = lb_jv_text(p->to->name ? p->to->name[node->name].s : "", t->len);
    } else if (t->kind == LB_JT_INT) {
        node->kind = LB_JN_ITEM;
        key->value = lb_jv_int(t->i);
        node->b = key;
    } else {
        return lb_jparse_unexpected(p, "a name behind the dot");
    }
    lb_jparse_next(p);
    return node;
}

static struct lb_jnode *parse_postfix(struct lb_jparser *p, struct lb_jnode *a) {
    while (a && p->status == LB_OK) {
        if (lb_jparse_is_op(p, '.')) {
            a = parse_dot(p, a);
        } else if (lb_jparse_is_op(p, '[')) {
            a = parse_brackets(p, a);
        } else if (lb_jparse_is_op(p, '(')) {
            a = parse_call(p, a);
        } else {
            break;
        }
    }
    return p->status == LB_OK ? a : NULL;
}

static struct lb_jnode *parse_behind(struct lb_jparser *p, struct lb_jnode *a) {
    while (a && p->status == LB_OK) {
        if (lb_jparse_is_op(p, '|')) {
            a = lb_jparse_filters(p, a, false);
        } else if (lb_jparse_is_name(p, "is")) {
            a = parse_test(p, a);
        } else if (lb_jparse_is_op(p, '(')) {
            a = parse_call(p, a);
        } else {
            break;
        }
    }
    return p->status == LB_OK ? a : NULL;
}

/* ---- primaries ---- */

/* Items up to the closing bracket; dict: pairs. */
static struct lb_jnode *parse_items(struct lb_jparser *p, uint8_t kind, char closing) {
    struct lb_jnode *node = lb_jparse_node(p, kind);
    struct lb_jnode **end = node ? &node->args : NULL;
    lb_jparse_next(p);
    for (bool any = false; node && p->status == LB_OK && !lb_jparse_is_op(p, closing); any = true) {
        if (any && (!lb_jparse_expect_op(p, ',') || lb_jparse_is_op(p, closing))) {
            break;
        }
        struct lb_jnode *part = lb_jparse_node(p, LB_JN_PART);
        struct lb_jnode *a = lb_jparse_expression(p);
        struct lb_jnode *b = closing == '}' && lb_jparse_expect_op(p, ':') ? lb_jparse_expression(p) : NULL;
        if (part) {
            part->a = a;
            part->b = b;
            *end = part;
            end = &part->next;
        }
    }
    return lb_jparse_expect_op(p, closing) ? node : NULL;
}

static struct lb_jnode *parse_strings(struct lb_jparser *p) {
    struct lb_jnode *node = lb_jparse_node(p, LB_JN_CONST);
    size_t len = 0, n = 0;
    while (p->at[n].kind == LB_JT_STRING) {
        len += p->at[n++].len;
    }
    char *s = node ? lb_arena_array(&p->to->arena, len + 1, 1) : NULL;
    if (!s) {
        return lb_jparse_fail(p, LB_E_LIMIT, p->at->line, "the template is too large");
    }
    node->value = lb_jv_text(s, len);
    for (size_t done = 0; n-- > 0; p->at++) {
        memcpy(s + done, p->at->s, p->at->len);
        done += p->at->len;
    }
    return node;
}

static struct lb_jnode *parse_name(struct lb_jparser *p, bool members) {
    static const struct {
        const char *name;
        uint8_t kind;
        bool b;
    } words[] = {{"true", LB_JV_BOOL, true},   {"True", LB_JV_BOOL, true},  {"false", LB_JV_BOOL, false},
                 {"False", LB_JV_BOOL, false}, {"none", LB_JV_NONE, false}, {"None", LB_JV_NONE, false}};
    struct lb_jnode *node = lb_jparse_node(p, LB_JN_NAME);
    if (!node) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (lb_jparse_skip_name(p, words[i].name)) {
            node->kind = LB_JN_CONST;
            node->value = (struct lb_jv){.kind = words[i].kind, .b = words[i].b};
            return node;
        }
    }
    if (lb_jparse_is_name(p, "varargs") || lb_jparse_is_name(p, "kwargs")) {
        return lb_jparse_fail(p, LB_E_UNSUPPORTED, p->at->line, "%.*s is not supported", (int)p->at->len,
                              p->at->s);
    }
    node->name = lb_jparse_intern(p, p->at->s, p->at->len);
    lb_jparse_next(p);
    if (members && lb_jparse_skip_op(p, '.')) {
        if (p->at->kind != LB_JT_NAME) {
            return lb_jparse_unexpected(p, "a name behind the dot");
        }
        node->kind = LB_JN_MEMBER;
        node->value = lb_jv_text(p->at->s, p->at->len);
        lb_jparse_next(p);
    }
    return node;
}

struct lb_jnode *lb_jparse_primary(struct lb_jparser *p, bool members) {
    const struct lb_jtoken *t = p->at;
    struct lb_jnode *node;
    if (t->kind == LB_JT_NAME) {
        return parse_name(p, members);
    }
    if (t->kind == LB_JT_STRING) {
        return parse_strings(p);
    }
    if (t->kind == LB_JT_INT || t->kind == LB_JT_FLOAT) {
        node = lb_jparse_node(p, LB_JN_CONST);
        if (node) {
            node->value = t->kind == LB_JT_INT ? lb_jv_int(t->i) : lb_jv_float(t->f);
        }
        lb_jparse_next(p);
        return node;
    }
    if (lb_jparse_is_op(p, '[')) {
        return parse_items(p, LB_JN_LIST, ']');
    }
    if (lb_jparse_is_op(p, '{')) {
        return parse_items(p, LB_JN_DICT, '}');
    }
    if (lb_jparse_skip_op(p, '(')) {
        node = lb_jparse_is_op(p, ')') ? lb_jparse_node(p, LB_JN_TUPLE) : lb_jparse_tuple(p, true, NULL);
        return lb_jparse_expect_op(p, ')') ? node : NULL;
    }
    return lb_jparse_unexpected(p, "an expression");
}

/* What a binary operator stands beside. filters: with | and is behind it. */
static struct lb_jnode *parse_unary(struct lb_jparser *p, bool filters) {
    struct lb_jnode *node;
    if (p->depth >= LB_JINJA_MAX_DEPTH) {
        return lb_jparse_fail(p, LB_E_LIMIT, p->at->line, "more than %d levels within one another",
                              LB_JINJA_MAX_DEPTH);
    }
    p->depth++;
    if (lb_jparse_is_op(p, '-') || lb_jparse_is_op(p, '+')) {
        node = lb_jparse_node(p, lb_jparse_is_op(p, '-') ? LB_JN_NEG : LB_JN_POS);
        lb_jparse_next(p);
        struct lb_jnode *a = parse_unary(p, false);
        if (node) {
            node->a = a;
        }
    } else {
        node = lb_jparse_primary(p, false);
    }
    node = parse_postfix(p, p->status == LB_OK ? node : NULL);
    node = filters ? parse_behind(p, node) : node;
    p->depth--;
    return node;
}

/* ---- operators ---- */

/* Appends "op b" to the chain that begins with a: a node of kind, made when it is NULL. */
static struct lb_jnode *chain(struct lb_jparser *p, struct lb_jnode *node, uint8_t kind, char op,
                              struct lb_jnode *a, struct lb_jnode *b) {
    struct lb_jnode *part = lb_jparse_node(p, LB_JN_PART);
    node = node ? node : lb_jparse_node(p, kind);
    if (!node || !part || !a || !b) {
        return NULL;
    }
    struct lb_jnode **end = node->args ? &node->b->next : &node->args;
    part->op = op;
    part->a = b;
    *end = part;
    node->a = a;
    node->b = part; /* the last one, while the chain grows */
    return node;
}

/* Binary operators: + -, then what binds closer: ~, * / // %, **. */
static const char *const binary[] = {"+-", "~", "*/F%", "P", NULL};

/* Those that bind alike, of ops, one of binary; NULL: what stands between operators. */
static struct lb_jnode *parse_binary(struct lb_jparser *p, const char *const *ops) {
    if (!*ops) {
        return parse_unary(p, true);
    }
    struct lb_jnode *a = parse_binary(p, ops + 1), *node = NULL;
    while (a && p->at->kind == LB_JT_OPERATOR && strchr(*ops, p->at->op)) {
        char op = p->at->op;
        lb_jparse_next(p);
        struct lb_jnode *b = parse_binary(p, ops + 1);
        node = chain(p, node, LB_JN_BINARY, op, a, b);
        if (!node) {
            return NULL;
        }
    }
    return node ? node : a;
}

static struct lb_jnode *parse_compare(struct lb_jparser *p) {
    struct lb_jnode *a = parse_binary(p, binary), *node = NULL;
    while (a && p->status == LB_OK) {
        char op = p->at->kind == LB_JT_OPERATOR && strchr("EN<>GL", p->at->op) ? p->at->op : '\0';
        if (lb_jparse_is_name(p, "in")) {
            op = 'I';
        } else if (lb_jparse_is_name(p, "not") && lb_jparse_token_is(p->at + 1, "in")) {
            op = 'O';
            lb_jparse_next(p);
        }
        if (!op) {
            break;
        }
        lb_jparse_next(p);
        node = chain(p, node, LB_JN_COMPARE, op, a, parse_binary(p, binary));
        if (!node) {
            return NULL;
        }
    }
    return node ? node : a;
}

static struct lb_jnode *parse_not(struct lb_jparser *p) {
    int nots = 0;
    while (lb_jparse_is_name(p, "not") && !lb_jparse_token_is(p->at + 1, "in")) {
        lb_jparse_next(p);
        nots++;
    }
    struct lb_jnode *a = parse_compare(p);
    for (; a && nots > 0; nots--) {
        struct lb_jnode *node = nots > LB_JINJA_MAX_DEPTH ? NULL : lb_jparse_node(p, LB_JN_NOT);
        if (!node) {
            return lb_jparse_fail(p, LB_E_LIMIT, p->at->line, "too many nots");
        }
        node->a = a;
        a = node;
    }
    return a;
}

static struct lb_jnode *parse_and(struct lb_jparser *p) {
    struct lb_jnode *a = parse_not(p), *node = NULL;
    while (a && lb_jparse_skip_name(p, "and")) {
        node = chain(p, node, LB_JN_AND, '&', a, parse_not(p));
        if (!node) {
            return NULL;
        }
    }
    return node ? node : a;
}

static struct lb_jnode *parse_or(struct lb_jparser *p) {
    struct lb_jnode *a = parse_and(p), *node = NULL;
    while (a && lb_jparse_skip_name(p, "or")) {
        node = chain(p, node, LB_JN_OR, '|', a, parse_and(p));
        if (!node) {
            return NULL;
        }
    }
    return node ? node : a;
}

struct lb_jnode *lb_jparse_expression(struct lb_jparser *p) {
    struct lb_jnode *a = NULL;
    if (p->depth >= LB_JINJA_MAX_DEPTH) {
        return lb_jparse_fail(p, LB_E_LIMIT, p->at->line, "more than %d levels within one another",
                              LB_JINJA_MAX_DEPTH);
    }
    p->depth++;
    a = parse_or(p);
    while (a && lb_jparse_skip_name(p, "if")) {
        struct lb_jnode *node = lb_jparse_node(p, LB_JN_IF_ELSE), *b = parse_or(p);
        struct lb_jnode *c = lb_jparse_skip_name(p, "else") ? lb_jparse_expression(p) : NULL;
        if (!node || !b || p->status != LB_OK) {
            a = NULL;
            break;
        }
        node->a = a;
        node->b = b;
        node->c = c;
        a = node;
    }
    p->depth--;
    return p->status == LB_OK ? a : NULL;
}

struct lb_jnode *lb_jparse_tuple(struct lb_jparser *p, bool conditions, const char *stop) {
    struct lb_jnode *node = NULL, **end = NULL, *a = conditions ? lb_jparse_expression(p) : parse_or(p);
    while (a && lb_jparse_skip_op(p, ',')) {
        if (!node) {
            node = lb_jparse_node(p, LB_JN_TUPLE);
            struct lb_jnode *first = lb_jparse_node(p, LB_JN_PART);
            if (!node || !first) {
                return NULL;
            }
            first->a = a;
            node->args = first;
            end = &first->next;
        }
        bool ends = p->at->kind == LB_JT_VARIABLE_END || p->at->kind == LB_JT_BLOCK_END ||
                    lb_jparse_is_op(p, ')') || (stop && lb_jparse_is_name(p, stop));
        if (ends) {
            break;
        }
        struct lb_jnode *part = lb_jparse_node(p, LB_JN_PART);
        a = conditions ? lb_jparse_expression(p) : parse_or(p);
        if (!part || !a) {
            return NULL;
        }
        part->a = a;
        *end = part;
        end = &part->next;
    }
    return p->status == LB_OK && a ? (node ? node : a) : NULL;
}
