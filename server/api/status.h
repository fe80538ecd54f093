/* The status page, for people. */
#ifndef LB_API_STATUS_H
#define LB_API_STATUS_H

#include "server/api/visit.h"

/* Handlers of GET / and GET /status.json. */
void lb_handle_status(struct lb_server *server, struct lb_exchange *exchange,
                      const struct lb_route_match *match);
void lb_handle_status_json(struct lb_server *server, struct lb_exchange *exchange,
                           const struct lb_route_match *match);
/* In begin, after a request was refused for want of a good token: a browser that wanted the page gets it with
 * that status, since it asks for the token; the page alone tells nothing. */
void lb_status_refused(struct lb_exchange *exchange);

#endif
