/* The dialect sglang: what its files share. Codec threads. */
#ifndef LB_API_SGLANG_H
#define LB_API_SGLANG_H

#include "server/api/visit.h"

void lb_handle_sglang_generate(struct lb_server *server, struct lb_exchange *exchange,
                               const struct lb_route_match *match);

#endif
