/* Statements: what the tags do. For common/chat only. */
#ifndef LB_CHAT_STATEMENTS_H
#define LB_CHAT_STATEMENTS_H

#include "common/chat/run.h"

void lb_jrun(struct lb_jinja *j, const struct lb_jnode *body);
/* The text that body prints, in a scope of its own. */
struct lb_jv lb_jrun_text(struct lb_jinja *j, const struct lb_jnode *body, struct lb_jscope *scope);
/* The text of a recursive loop that is called with items, within the loop around. */
struct lb_jv lb_jrun_loop(struct lb_jinja *j, const struct lb_jloop *around, struct lb_jv items);

#endif
