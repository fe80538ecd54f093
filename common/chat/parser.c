/* Expressions, in the order of precedence that Jinja gives them. */
#include "common/chat/parser.h"

#include "common/chat/run.h"

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

static bool token_is(const struct lb_jtoken *token, const char *name) {
    return token->kind == LB_JT_NAME && token->len == strlen(name) && !memcmp(token->s, name, token->len);
}

bool lb_jparse_is_name(const struct lb_jparser *p, const char *name) {
    return token_is(p->at, name);
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
        return lb_jparse_unary(p, true);
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
        } else if (lb_jparse_is_name(p, "not") && token_is(p->at + 1, "in")) {
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
    while (lb_jparse_is_name(p, "not") && !token_is(p->at + 1, "in")) {
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
