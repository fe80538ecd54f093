/* One connection: reads requests, hands them on, sends answers; keeps to the clock. All on its loop's thread.
 */
#ifndef LB_HTTP_CONNECTION_H
#define LB_HTTP_CONNECTION_H

#include "server/http/parts.h"

/* The socket may be read or written, or is broken (EPOLL flags). */
void lb_conn_event(struct lb_conn *conn, unsigned events);
/* The exchange came back. */
void lb_conn_back(struct lb_held *held);
/* Looks at the clock. */
void lb_conn_tick(struct lb_conn *conn, uint64_t now);
/* Ends the exchange if there is one (it must not be away) and the connection. */
void lb_conn_destroy(struct lb_conn *conn);

#endif
