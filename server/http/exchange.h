/* What happens to an exchange away from its connection: unpacking, the handlers, packing. */
#ifndef LB_HTTP_EXCHANGE_H
#define LB_HTTP_EXCHANGE_H

#include "server/http/parts.h"

/* An exchange for a head of head_len bytes, which is copied; NULL when out of memory. */
struct lb_held *lb_held_create(struct lb_conn *conn, const char *head, size_t head_len);
void lb_held_end(struct lb_held *held, bool complete);
/* Its connection is lost: true when it may end, else it comes back through the mailbox when it may. */
bool lb_held_let_go(struct lb_held *held);
/* Fills the reply with a refusal. */
void lb_held_refuse(struct lb_held *held, int status, const char *text);
/* The last headers, packing (where may_pack), the answer's head. */
void lb_held_prepare(struct lb_held *held, bool may_pack);
/* To the codec, which gives it back to the connection's loop. */
void lb_held_send_away(struct lb_held *held);

#endif
