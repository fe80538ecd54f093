/* One HTTP thread: accepts, waits for its sockets, looks at the clock. */
#ifndef LB_HTTP_LOOP_H
#define LB_HTTP_LOOP_H

#include "server/http/parts.h"

LB_NODISCARD enum lb_status lb_loop_start(struct lb_loop *loop, struct lb_http *http,
                                          struct lb_detail *detail);
/* Waits for the thread (stopping is set). */
void lb_loop_join(struct lb_loop *loop);
/* Closes what is left. */
void lb_loop_finish(struct lb_loop *loop);

#endif
