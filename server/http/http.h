/* HTTP/1.1: whole requests in, answers out. The only file that knows libmicrohttpd.
 *
 * A few threads serve all connections by epoll. For each request an exchange lives from its headers until its
 * answer is out (or its connection is lost); one thread holds it at any moment: an HTTP thread, or, between
 * lb_exchange_defer and lb_exchange_resume, whoever it was handed to. A deferred exchange is a suspended
 * connection: it never times out and a client that leaves goes unnoticed, so deadlines are the job's, and all
 * exchanges must be resumed before lb_http_stop.
 */
#ifndef LB_HTTP_HTTP_H
#define LB_HTTP_HTTP_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/status.h"
#include "server/http/budget.h"
#include "server/http/compress.h"

#include <stdbool.h>
#include <stdint.h>

#define LB_REPLY_MAX_HEADERS 12

/* Whatever it points to must live until the exchange ends (use its arena). */
struct lb_reply {
    int status; /* 0: not answered yet */
    struct {
        const char *name, *value;
    } headers[LB_REPLY_MAX_HEADERS];
    int n_headers;
    const struct lb_span *parts; /* the body, sent one part after the other without being copied */
    size_t n_parts;
};

struct lb_exchange {
    const char *method, *path; /* path: decoded, without the query; may hold any byte but NUL */
    char peer[64];             /* the client's address, "" on a UNIX socket */
    struct lb_buf body;        /* complete and unpacked when handle is called */
    size_t received_bytes;     /* of the body as it came */
    struct lb_arena arena;
    struct lb_reply reply;
    void *user;
    void (*user_free)(void *user); /* called when the exchange ends */
    uint64_t started_ns;
    /* For the log: what was sent. */
    size_t sent_bytes;
    enum lb_coding sent_coding;
};

/* What the program does with exchanges; all are called on HTTP threads. */
struct lb_http_app {
    void *context;
    /* The headers are there, the body isn't: may answer already (a wrong token), the body is dropped then. */
    void (*begin)(void *context, struct lb_exchange *exchange);
    /* The body is there: answers, or defers. */
    void (*handle)(void *context, struct lb_exchange *exchange);
    /* After lb_exchange_resume: answers. */
    void (*resumed)(void *context, struct lb_exchange *exchange);
    /* For refusals that this layer decides: fills the reply with the app's form of an error. */
    void (*refuse)(void *context, struct lb_exchange *exchange, int status, const char *text);
    /* The answer is about to go out, whoever made it: the place for headers that every answer has. */
    void (*sending)(void *context, struct lb_exchange *exchange);
    /* The answer is out (complete), or the connection was lost. */
    void (*end)(void *context, struct lb_exchange *exchange, bool complete);
};

struct lb_http_args {
    int listen_fd;                 /* taken over on success */
    const char *certificate, *key; /* PEM text; NULL: no TLS */
    int threads;
    unsigned max_connections;
    unsigned idle_seconds; /* without traffic a connection is closed */
    size_t max_body_bytes;
    struct lb_budget *budget; /* for bodies; borrowed */
    struct lb_http_app app;
};

struct lb_http;

LB_NODISCARD enum lb_status lb_http_start(const struct lb_http_args *args, struct lb_http **out,
                                          struct lb_detail *detail);
/* From now on each answer closes its connection. */
void lb_http_drain(struct lb_http *http);
/* Waits until no exchange is open, at most until deadline_ns; false when some are left. */
bool lb_http_wait_idle(struct lb_http *http, uint64_t deadline_ns);
/* Closes all connections and joins the threads. Every exchange must have been resumed. Accepts NULL. */
void lb_http_stop(struct lb_http *http);
unsigned lb_http_exchanges(struct lb_http *http);

/* A request header's value or NULL. HTTP threads only, valid until the exchange ends. */
const char *lb_exchange_header(struct lb_exchange *exchange, const char *name);
/* Adds a header to the answer; both strings are borrowed. */
void lb_reply_header(struct lb_exchange *exchange, const char *name, const char *value);

/* In handle: the answer comes later. To be called before the exchange is handed to another thread. */
void lb_exchange_defer(struct lb_exchange *exchange);
/* Any thread: gives a deferred exchange back; resumed is called soon. The caller must not touch it any more.
 */
void lb_exchange_resume(struct lb_exchange *exchange);

#endif
