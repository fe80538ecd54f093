/* Calls: functions, methods, macros. For common/chat only. */
#ifndef LB_CHAT_CALLS_H
#define LB_CHAT_CALLS_H

#include "common/chat/tables.h"

/* -1 for none. */
int lb_jfunction_find(const char *name, size_t len);
const struct lb_jparams *lb_jfunction_params(int function);
/* caller: of {% call %}, else NULL. out: what the call gives, undefined after a failure. */
void lb_jcall(struct lb_jinja *j, const struct lb_jv *callee, const struct lb_jargs *args,
              const struct lb_jmacro *caller, struct lb_jv *out);

#endif
