/* Tokens to tree. For common/chat only. */
#ifndef LB_CHAT_PARSER_H
#define LB_CHAT_PARSER_H

#include "common/chat/lexer.h"
#include "common/chat/node.h"

struct lb_jparams;
struct lb_jfilter;

struct lb_jparser {
    struct lb_chat_template *to;
    const struct lb_jtoken *at;
    int depth, loops;
    enum lb_status status; /* sticky */
    struct lb_detail *detail;
};

/* parser.c. Records an error with the line of the token; returns NULL. */
struct lb_jnode *lb_jparse_fail(struct lb_jparser *p, enum lb_status code, int line, const char *format, ...)
    LB_PRINTF(4, 5);
struct lb_jnode *lb_jparse_node(struct lb_jparser *p, uint8_t kind);
int lb_jparse_intern(struct lb_jparser *p, const char *s, size_t len);
/* Whether a token, or the one that is next, is that. */
bool lb_jparse_token_is(const struct lb_jtoken *token, const char *name);
bool lb_jparse_is_name(const struct lb_jparser *p, const char *name);
bool lb_jparse_is_op(const struct lb_jparser *p, char op);
/* Moves on when the token is that. */
bool lb_jparse_skip_name(struct lb_jparser *p, const char *name);
bool lb_jparse_skip_op(struct lb_jparser *p, char op);
bool lb_jparse_expect_op(struct lb_jparser *p, char op);
void lb_jparse_next(struct lb_jparser *p);
/* Records that something else is wanted here; returns NULL. */
struct lb_jnode *lb_jparse_unexpected(struct lb_jparser *p, const char *wanted);
/* Arguments that params do not allow are an error; sort and who name what takes them ("filter", "join"). */
void lb_jparse_check_args(struct lb_jparser *p, const struct lb_jparams *params, const struct lb_jnode *args,
                          int line, const char *sort, const char *who);
/* map('upper'), select('string'): the name has to stand there, so that it can be looked up now. */
void lb_jparse_check_named(struct lb_jparser *p, const struct lb_jfilter *filter, const struct lb_jnode *args,
                           int line);
/* What is called has to be known: a method of a text, dict, list or loop, a function, a macro. */
void lb_jparse_check_callee(struct lb_jparser *p, const struct lb_jnode *a, const struct lb_jnode *args,
                            int line);

/* expressions.c. Everything returns NULL after a failure. */
struct lb_jnode *lb_jparse_expression(struct lb_jparser *p);
/* stop: a name that ends it, or NULL; conditions: a if b else c is taken. */
struct lb_jnode *lb_jparse_tuple(struct lb_jparser *p, bool conditions, const char *stop);
/* Filters behind a (may be NULL); first: the bar of the first one is not there. */
struct lb_jnode *lb_jparse_filters(struct lb_jparser *p, struct lb_jnode *a, bool first);
/* members: name.attribute is one target. */
struct lb_jnode *lb_jparse_primary(struct lb_jparser *p, bool members);

/* statements_parse.c */
struct lb_jnode *lb_jparse_template(struct lb_jparser *p);

#endif
