/* Expressions: what a node of the tree is worth. For common/chat only. */
#ifndef LB_CHAT_EVAL_H
#define LB_CHAT_EVAL_H

#include "common/chat/run.h"

/* Undefined after a failure. */
struct lb_jv lb_jeval(struct lb_jinja *j, const struct lb_jnode *node);
/* The arguments of a call, filter or test; false with an error. */
bool lb_jeval_args(struct lb_jinja *j, const struct lb_jnode *args, struct lb_jargs *out);

#endif
