/* Who is asking, and may they: scopes, and the limits of the token that they came with. */
#ifndef LB_API_ACCESS_H
#define LB_API_ACCESS_H

#include "server/api/visit.h"

/* In begin: true, or false after the answer that refuses: 401 when no good token came, 403 when it is good
 * for other things or a certificate is missing, 429 when as many of its requests as may are there. From here
 * on whoever has a token is known by its name, else by the name of a certificate. */
bool lb_access_begin(struct lb_server *server, struct lb_exchange *exchange, enum lb_route_access need);
/* Before so many tokens are computed for it: true, or false after a 429 that says when to come again. */
bool lb_access_take(struct lb_exchange *exchange, int64_t tokens);
/* So many more are, for what was let in: it is not held up half-way. */
void lb_access_charge(struct lb_exchange *exchange, int64_t tokens);
/* They were not computed after all. */
void lb_access_give_back(struct lb_exchange *exchange, int64_t tokens);

#endif
