/* What requests and answers hold in memory: one maximum for all of them together, shared fairly among those
 * who ask.
 *
 * A client is a token or, without one, an address. While n clients hold something, each may hold one part in
 * n + 1, so that whoever comes next finds room; a lone client thus has one half. An eighth of the maximum is
 * kept for small requests (those that hold at most one part in 256 of it), so that they are served whatever
 * the large ones do; each client may have one half of that. Thread-safe: one lock, held for a few steps.
 */
#ifndef LB_HTTP_BUDGET_H
#define LB_HTTP_BUDGET_H

#include <stdbool.h>
#include <stddef.h>

struct lb_budget;
struct lb_client;

/* NULL when out of memory. */
struct lb_budget *lb_budget_create(size_t max_bytes);
/* Nothing is held any more. Accepts NULL. */
void lb_budget_destroy(struct lb_budget *budget);
/* Another maximum, from now on; what is held already stays held. */
void lb_budget_resize(struct lb_budget *budget, size_t max_bytes);
size_t lb_budget_used(struct lb_budget *budget);
/* Most that one request may ever hold, with nobody else there. */
size_t lb_budget_largest(struct lb_budget *budget);

/* The client of this name, made when new; a reference. NULL when out of memory. */
struct lb_client *lb_client_get(struct lb_budget *budget, const char *name);
/* Another reference to a client. */
struct lb_client *lb_client_retain(struct lb_client *client);
/* Gives a reference back. Accepts NULL. */
void lb_client_release(struct lb_client *client);
/* One more connection of this client; false when it has max already. */
bool lb_client_connect(struct lb_client *client, unsigned max);
void lb_client_disconnect(struct lb_client *client);

/* What one request holds; owned by one thread at a time. The client is a reference. */
struct lb_holding {
    struct lb_client *client;
    size_t bytes;
    bool small; /* taken from what is kept for small ones */
};
/* bytes more; false (and nothing changes) when they can't be had now. */
bool lb_hold(struct lb_holding *holding, size_t bytes);
/* Gives bytes of it back. */
void lb_unhold(struct lb_holding *holding, size_t bytes);
/* Moves what is held to another client (a reference, taken over), as when a token tells who it is. */
void lb_hold_as(struct lb_holding *holding, struct lb_client *client);
/* Gives everything and the reference back. Accepts a zeroed holding. */
void lb_holding_finish(struct lb_holding *holding);

#endif
