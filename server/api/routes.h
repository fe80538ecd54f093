/* Method and path to handler. Patterns are paths with {model} and {version} in place of one segment each; a
 * part in square brackets may be absent: "/v2/models/{model}[/versions/{version}]/infer". Pure functions; any
 * thread. */
#ifndef LB_API_ROUTES_H
#define LB_API_ROUTES_H

#include "common/base/status.h"
#include "proto/limits.h"

#include <stddef.h>

struct lb_server;
struct lb_exchange;
struct lb_route_match;

/* Runs on an HTTP thread with the whole body there; fills exchange->reply, or defers. */
typedef void (*lb_handler_fn)(struct lb_server *server, struct lb_exchange *exchange,
                              const struct lb_route_match *match);

enum lb_route_access {
    LB_ACCESS_TOKEN, /* a bearer token, when the daemon has a token file */
    LB_ACCESS_OPEN,  /* health checks: no token */
    LB_ACCESS_ADMIN  /* the admin token; without an admin token file nobody */
};

struct lb_route {
    const char *method; /* "GET" also answers HEAD */
    const char *pattern;
    const char *endpoint; /* short name for metrics and the log */
    enum lb_route_access access;
    lb_handler_fn handle;
};

struct lb_route_match {
    const struct lb_route *route;
    char model[LB_MAX_NAME];   /* "" when the pattern has none */
    char version[LB_MAX_NAME]; /* "" when absent */
};

#define LB_ALLOW_SIZE 64

/* One trailing slash is ignored. LB_E_NOTFOUND: no pattern fits the path. LB_E_UNSUPPORTED: one does, but not
 * with this method; allow then holds the methods that it has ("GET, HEAD, POST"). */
enum lb_status lb_route_find(const struct lb_route *routes, size_t n, const char *method, const char *path,
                             struct lb_route_match *out, char allow[LB_ALLOW_SIZE]);

#endif
