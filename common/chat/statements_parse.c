/* Statements: the tags between the text. */
#include "common/chat/parser.h"

#include <string.h>

/* What may end a body. */
struct ends {
    const char *name[3];
};

static struct lb_jnode *parse_body(struct lb_jparser *p, const struct ends *ends);

static void block_end(struct lb_jparser *p) {
    if (p->status == LB_OK && p->at->kind != LB_JT_BLOCK_END) {
        lb_jparse_unexpected(p, "the end of the tag");
    }
    lb_jparse_next(p);
}

/* %} body {% end: leaves at the name that ended it. */
static struct lb_jnode *parse_until(struct lb_jparser *p, const struct ends *ends) {
    lb_jparse_skip_op(p, ':');
    block_end(p);
    return p->status == LB_OK ? parse_body(p, ends) : NULL;
}

/* As parse_until, with one end, which is passed. */
static struct lb_jnode *parse_whole(struct lb_jparser *p, const char *end) {
    const struct ends ends = {{end}};
    struct lb_jnode *body = parse_until(p, &ends);
    lb_jparse_next(p);
    return body;
}

static void assigned(struct lb_jparser *p, const struct lb_jnode *target) {
    for (const struct lb_jnode *part = target->kind == LB_JN_TUPLE ? target->args : NULL; part;
         part = part->next) {
        assigned(p, part->a);
    }
    if (target->kind == LB_JN_NAME) {
        p->to->name[target->name].assigned = true;
    } else if (target->kind != LB_JN_TUPLE && target->kind != LB_JN_MEMBER) {
        lb_jparse_fail(p, LB_E_FORMAT, target->line, "this cannot be assigned to");
    }
}

/* A name, names with commas between or in brackets; members: ns.name as well. */
static struct lb_jnode *parse_target(struct lb_jparser *p, bool members) {
    struct lb_jnode *first = lb_jparse_primary(p, members), *node = NULL, **end = NULL;
    while (first && lb_jparse_skip_op(p, ',')) {
        if (!node) {
            node = lb_jparse_node(p, LB_JN_TUPLE);
            struct lb_jnode *part = lb_jparse_node(p, LB_JN_PART);
            if (!node || !part) {
                return NULL;
            }
            part->a = first;
            node->args = part;
            end = &part->next;
        }
        if (lb_jparse_is_name(p, "in") || lb_jparse_is_op(p, '=')) {
            break;
        }
        struct lb_jnode *part = lb_jparse_node(p, LB_JN_PART);
        first = lb_jparse_primary(p, members);
        if (!part || !first) {
            return NULL;
        }
        part->a = first;
        *end = part;
        end = &part->next;
    }
    node = node ? node : first;
    if (p->status == LB_OK && node) {
        assigned(p, node);
    }
    return p->status == LB_OK ? node : NULL;
}

static struct lb_jnode *parse_name_target(struct lb_jparser *p) {
    if (p->at->kind != LB_JT_NAME) {
        return lb_jparse_unexpected(p, "a name");
    }
    struct lb_jnode *node = lb_jparse_primary(p, false);
    if (node) {
        assigned(p, node);
    }
    return p->status == LB_OK ? node : NULL;
}

/* "(" name, name = default ")" */
static struct lb_jnode *parse_signature(struct lb_jparser *p) {
    struct lb_jnode *first = NULL, **end = &first;
    bool defaults = false;
    int n = 0;
    lb_jparse_expect_op(p, '(');
    while (p->status == LB_OK && !lb_jparse_is_op(p, ')')) {
        if (first && !lb_jparse_expect_op(p, ',')) {
            break;
        }
        struct lb_jnode *part = lb_jparse_node(p, LB_JN_PART), *name = parse_name_target(p);
        if (!part || !name) {
            return NULL;
        }
        part->name = name->name;
        if (lb_jparse_skip_op(p, '=')) {
            part->a = lb_jparse_expression(p);
            defaults = true;
        } else if (defaults) {
            return lb_jparse_fail(p, LB_E_FORMAT, p->at->line,
                                  "a parameter without a default behind one with");
        }
        *end = part;
        end = &part->next;
        if (++n > LB_JINJA_MAX_ARGS) {
            return lb_jparse_fail(p, LB_E_LIMIT, p->at->line, "more than %d parameters", LB_JINJA_MAX_ARGS);
        }
    }
    lb_jparse_expect_op(p, ')');
    return first;
}

/* ---- one function a tag; its name has been passed ---- */

static void parse_if(struct lb_jparser *p, struct lb_jnode *node) {
    static const struct ends all = {{"elif", "else", "endif"}};
    for (;;) {
        node->kind = LB_JN_IF;
        node->a = lb_jparse_tuple(p, false, NULL);
        node->body = p->status == LB_OK ? parse_until(p, &all) : NULL;
        if (p->status != LB_OK || !lb_jparse_is_name(p, "elif")) {
            break;
        }
        node->other = lb_jparse_node(p, LB_JN_IF);
        lb_jparse_next(p);
        if (!node->other) {
            return;
        }
        node = node->other;
    }
    if (p->status == LB_OK && lb_jparse_skip_name(p, "else")) {
        node->other = parse_whole(p, "endif");
    } else {
        lb_jparse_next(p);
    }
}

static void parse_for(struct lb_jparser *p, struct lb_jnode *node) {
    static const struct ends all = {{"else", "endfor"}};
    node->kind = LB_JN_FOR;
    node->a = parse_target(p, false);
    if (p->status == LB_OK && !lb_jparse_skip_name(p, "in")) {
        lb_jparse_unexpected(p, "in");
        return;
    }
    node->b = p->status == LB_OK ? lb_jparse_tuple(p, false, "recursive") : NULL;
    if (p->status == LB_OK && lb_jparse_skip_name(p, "if")) {
        node->c = lb_jparse_expression(p);
    }
    node->flag = p->status == LB_OK && lb_jparse_skip_name(p, "recursive");
    p->loops++;
    node->body = p->status == LB_OK ? parse_until(p, &all) : NULL;
    p->loops--;
    if (p->status == LB_OK && lb_jparse_skip_name(p, "else")) {
        node->other = parse_whole(p, "endfor");
    } else {
        lb_jparse_next(p);
    }
}

static void parse_set(struct lb_jparser *p, struct lb_jnode *node) {
    node->kind = LB_JN_SET;
    node->a = parse_target(p, true);
    if (p->status != LB_OK) {
        return;
    }
    if (lb_jparse_skip_op(p, '=')) {
        node->b = lb_jparse_tuple(p, true, NULL);
        return;
    }
    node->kind = LB_JN_SET_BLOCK;
    node->b = lb_jparse_filters(p, NULL, false);
    node->body = p->status == LB_OK ? parse_whole(p, "endset") : NULL;
}

static void parse_with(struct lb_jparser *p, struct lb_jnode *node) {
    struct lb_jnode **end = &node->args;
    node->kind = LB_JN_WITH;
    while (p->status == LB_OK && p->at->kind != LB_JT_BLOCK_END) {
        if (node->args) {
            lb_jparse_expect_op(p, ',');
        }
        struct lb_jnode *part = lb_jparse_node(p, LB_JN_PART);
        struct lb_jnode *target = p->status == LB_OK ? parse_name_target(p) : NULL;
        if (!part || !target || !lb_jparse_expect_op(p, '=')) {
            return;
        }
        part->a = target;
        part->b = lb_jparse_expression(p);
        *end = part;
        end = &part->next;
    }
    node->body = p->status == LB_OK ? parse_whole(p, "endwith") : NULL;
}

static void parse_macro(struct lb_jparser *p, struct lb_jnode *node) {
    int loops = p->loops;
    node->kind = LB_JN_MACRO;
    struct lb_jnode *name = parse_name_target(p);
    if (!name) {
        return;
    }
    node->name = name->name;
    node->args = parse_signature(p);
    p->loops = 0; /* break does not leave a macro */
    node->body = p->status == LB_OK ? parse_whole(p, "endmacro") : NULL;
    p->loops = loops;
}

static void parse_call_block(struct lb_jparser *p, struct lb_jnode *node) {
    int loops = p->loops;
    node->kind = LB_JN_CALL_BLOCK;
    node->name = p->to->caller_name;
    node->args = lb_jparse_is_op(p, '(') ? parse_signature(p) : NULL;
    node->a = p->status == LB_OK ? lb_jparse_expression(p) : NULL;
    if (p->status == LB_OK && node->a->kind != LB_JN_CALL) {
        lb_jparse_fail(p, LB_E_FORMAT, node->line, "{%% call %%} without a call");
    }
    p->loops = 0;
    node->body = p->status == LB_OK ? parse_whole(p, "endcall") : NULL;
    p->loops = loops;
}

static void parse_filter_block(struct lb_jparser *p, struct lb_jnode *node) {
    node->kind = LB_JN_FILTER_BLOCK;
    node->b = lb_jparse_filters(p, NULL, true);
    node->body = p->status == LB_OK ? parse_whole(p, "endfilter") : NULL;
}

static void parse_generation(struct lb_jparser *p, struct lb_jnode *node) {
    int loops = p->loops;
    node->kind = LB_JN_GENERATION;
    p->to->generates = true;
    p->loops = 0;
    node->body = parse_whole(p, "endgeneration");
    p->loops = loops;
}

static void parse_leave(struct lb_jparser *p, struct lb_jnode *node) {
    node->kind = lb_jparse_is_name(p, "break") ? LB_JN_BREAK : LB_JN_CONTINUE;
    lb_jparse_next(p);
    if (!p->loops) {
        lb_jparse_fail(p, LB_E_FORMAT, node->line, "break or continue outside of a loop");
    }
}

/* {% ... %}; NULL after a failure. */
static struct lb_jnode *parse_tag(struct lb_jparser *p) {
    static const struct {
        const char *name;
        void (*parse)(struct lb_jparser *p, struct lb_jnode *node);
    } tags[] = {{"if", parse_if},
                {"for", parse_for},
                {"set", parse_set},
                {"with", parse_with},
                {"macro", parse_macro},
                {"call", parse_call_block},
                {"filter", parse_filter_block},
                {"generation", parse_generation}};
    struct lb_jnode *node = lb_jparse_node(p, LB_JN_PART);
    if (!node || p->at->kind != LB_JT_NAME) {
        return node ? lb_jparse_unexpected(p, "the name of a tag") : NULL;
    }
    if (lb_jparse_is_name(p, "break") || lb_jparse_is_name(p, "continue")) {
        parse_leave(p, node);
        block_end(p);
        return p->status == LB_OK ? node : NULL;
    }
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
        if (lb_jparse_skip_name(p, tags[i].name)) {
            tags[i].parse(p, node);
            block_end(p);
            return p->status == LB_OK ? node : NULL;
        }
    }
    return lb_jparse_fail(p, LB_E_UNSUPPORTED, p->at->line, "the tag %.*s is not supported here",
                          (int)(p->at->len < 60 ? p->at->len : 60), p->at->s);
}

static bool at_end(const struct lb_jparser *p, const struct ends *ends) {
    bool is = false;
    for (int i = 0; ends && i < 3 && !is; i++) {
        is = ends->name[i] && lb_jparse_is_name(p, ends->name[i]);
    }
    return is;
}

/* Text and tags up to a tag of ends (or, without ends, the end of the template). */
static struct lb_jnode *parse_body(struct lb_jparser *p, const struct ends *ends) {
    struct lb_jnode *first = NULL, **end = &first;
    if (p->depth >= LB_JINJA_MAX_DEPTH) {
        return lb_jparse_fail(p, LB_E_LIMIT, p->at->line, "more than %d levels within one another",
                              LB_JINJA_MAX_DEPTH);
    }
    p->depth++;
    while (p->status == LB_OK && p->at->kind != LB_JT_END) {
        struct lb_jnode *node = NULL;
        if (p->at->kind == LB_JT_DATA) {
            node = lb_jparse_node(p, LB_JN_TEXT);
            if (node) {
                node->value = lb_jv_text(p->at->s, p->at->len);
            }
            lb_jparse_next(p);
        } else if (p->at->kind == LB_JT_VARIABLE_BEGIN) {
            node = lb_jparse_node(p, LB_JN_PRINT);
            lb_jparse_next(p);
            struct lb_jnode *a = lb_jparse_tuple(p, true, NULL);
            if (node && p->status == LB_OK && p->at->kind != LB_JT_VARIABLE_END) {
                lb_jparse_unexpected(p, "the end of {{ }}");
            }
            lb_jparse_next(p);
            if (node) {
                node->a = a;
            }
        } else {
            lb_jparse_next(p); /* {% */
            if (at_end(p, ends)) {
                p->depth--;
                return first;
            }
            node = parse_tag(p);
        }
        if (node) {
            *end = node;
            end = &node->next;
        }
    }
    p->depth--;
    if (ends && p->status == LB_OK) {
        lb_jparse_fail(p, LB_E_FORMAT, p->at->line, "the template ends before its %s",
                       ends->name[2]   ? ends->name[2]
                       : ends->name[1] ? ends->name[1]
                                       : ends->name[0]);
    }
    return p->status == LB_OK ? first : NULL;
}

struct lb_jnode *lb_jparse_template(struct lb_jparser *p) {
    struct lb_jnode *body = parse_body(p, NULL);
    for (int i = 0; p->status == LB_OK && i < p->to->n_names; i++) {
        const struct lb_jname *name = &p->to->name[i];
        bool known =
            name->assigned || name->function >= 0 || i == p->to->loop_name || i == p->to->caller_name;
        if (name->called && !known) {
            lb_jparse_fail(p, LB_E_UNSUPPORTED, name->called, "the function %.60s() is not supported",
                           name->s);
        }
    }
    return p->status == LB_OK ? body : NULL;
}
