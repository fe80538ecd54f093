/* Method and path to handler. Patterns are paths with {model}, {version} and {digest} in place of one segment
 * each; a part in square brackets may be absent: "/v2/models/{model}[/versions/{version}]/infer". Pure
 * functions; any thread. */
#ifndef LB_API_ROUTES_H
#define LB_API_ROUTES_H

#include "common/base/json.h"
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
    LB_ACCESS_TOKEN,   /* a bearer token of scope ask, when the daemon has a token file */
    LB_ACCESS_OPEN,    /* health checks: no token */
    LB_ACCESS_METRICS, /* a token of scope metrics, likewise */
    LB_ACCESS_ADMIN    /* a token of scope admin; where there is none nobody */
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
    char digest[LB_MAX_NAME];  /* likewise */
};

/* A dialect as the daemon speaks it: its routes, and the form of its errors. server/api/<name>.c defines
 * `const struct lb_api_dialect lb_api_<name>`; table.c lists them. */
struct lb_api_dialect {
    const char *name;
    const char *prefix; /* "/v2": paths under it are its own, also those that don't exist; "": all that are
                           nobody's */
    const struct lb_route *routes;
    size_t n_routes;
    /* The body of an error of this status; NULL when out of memory. */
    json_t *(*error)(int status, const char *text);
};

#define LB_ALLOW_SIZE 64

/* One trailing slash is ignored. LB_E_NOTFOUND: no pattern fits the path. LB_E_UNSUPPORTED: one does, but not
 * with this method; allow then holds the methods that it has ("GET, HEAD, POST"). */
enum lb_status lb_route_find(const struct lb_route *routes, size_t n, const char *method, const char *path,
                             struct lb_route_match *out, char allow[LB_ALLOW_SIZE]);

/* The same over several dialects: the first that has the path and the method. Where there is none,
 * *out_dialect is the one that owns the path, else the last. */
enum lb_status lb_dialect_find(const struct lb_api_dialect *const *dialects, size_t n, const char *method,
                               const char *path, const struct lb_api_dialect **out_dialect,
                               struct lb_route_match *out, char allow[LB_ALLOW_SIZE]);

#endif
