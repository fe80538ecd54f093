/* Who has been asking, and how much: the clients that asked last, by the name of their token or their
 * address. Thread-safe: one lock, held for a few steps. */
#ifndef LB_API_CLIENTS_H
#define LB_API_CLIENTS_H

#include "common/base/json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LB_CLIENTS 64 /* then whoever has not asked for longest is forgotten */
#define LB_CLIENT_NAME 80

/* One request that was answered. */
struct lb_client_request {
    const char *name; /* cut where it is longer */
    bool token;       /* the name is a token's */
    bool failed;
    int64_t tokens;
    size_t in_bytes, out_bytes;
    double at_unix;
};

struct lb_clients;

/* NULL when out of memory. */
struct lb_clients *lb_clients_create(void);
/* Accepts NULL. */
void lb_clients_destroy(struct lb_clients *clients);
void lb_clients_add(struct lb_clients *clients, const struct lb_client_request *request);
/* An array of objects, who asked last first. NULL when out of memory. */
json_t *lb_clients_json(struct lb_clients *clients);

#endif
