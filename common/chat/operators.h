/* Arithmetic. For common/chat only. */
#ifndef LB_CHAT_OPERATORS_H
#define LB_CHAT_OPERATORS_H

#include "common/chat/value.h"

/* a op b; op: a token's + - * / % F (for two slashes) P (for two stars). */
struct lb_jv lb_jinja_binary(struct lb_jinja *j, char op, const struct lb_jv *a, const struct lb_jv *b);

#endif
