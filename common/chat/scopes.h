/* Names and what they stand for: scopes, assignments, arguments in the places of parameters. For common/chat
 * only. */
#ifndef LB_CHAT_SCOPES_H
#define LB_CHAT_SCOPES_H

#include "common/chat/tables.h"

/* A scope within parent (NULL: the outermost), which becomes the innermost one; false with an error. */
bool lb_jscope_open(struct lb_jinja *j, struct lb_jscope *parent);
/* A name in the innermost scope. */
void lb_jbind(struct lb_jinja *j, int name, struct lb_jv value);
/* NULL for a name that no scope holds. */
const struct lb_jv *lb_jlookup(const struct lb_jinja *j, int name);
/* target: a name, a namespace's member, or several with the items of value. */
void lb_jassign(struct lb_jinja *j, const struct lb_jnode *target, struct lb_jv value);
/* Puts arguments in the places of their parameters (NULL: not given); false with an error. */
bool lb_jargs_bind(struct lb_jinja *j, const struct lb_jargs *args, const struct lb_jparams *params,
                   const char *who, const struct lb_jv *out[LB_JINJA_MAX_ARGS]);
struct lb_jv lb_jfilter_run(struct lb_jinja *j, const struct lb_jfilter *filter, struct lb_jv value,
                            const struct lb_jargs *args);

#endif
