/* HTTP/1.1 (RFC 9112): whole requests in, answers out, over TCP, TLS and UNIX sockets.
 *
 * A few HTTP threads move bytes, each for its own connections, and nothing else; what takes time (unpacking,
 * decoding, encoding, packing) runs on the codec's threads (codec.h). For each request an exchange lives from
 * its headers until its answer is out or its connection is lost. One thread holds it at any moment: an HTTP
 * thread, a codec thread, or, between lb_exchange_defer and lb_exchange_resume, whoever it was handed to.
 * What it holds of memory is counted (budget.h). All deferred exchanges must be resumed before lb_http_stop,
 * and none may be shared any more.
 *
 * Written here because no library in reach answers every bad request in one way of ours, notices a client
 * that leaves while its answer is made, or bounds how slowly a client may send and read.
 */
#ifndef LB_HTTP_HTTP_H
#define LB_HTTP_HTTP_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/status.h"
#include "server/http/budget.h"
#include "server/http/compress.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define LB_REPLY_MAX_HEADERS 12
#define LB_REPLY_OPEN SIZE_MAX /* total_bytes of a body of which nobody knows yet how long it will be */

struct lb_exchange;
struct lb_tls;

/* Whatever it points to must live until the exchange ends (use its arena). */
struct lb_reply {
    int status; /* 0: not answered yet */
    struct {
        const char *name, *value;
    } headers[LB_REPLY_MAX_HEADERS];
    int n_headers;
    const struct lb_span *parts; /* the body, sent one part after the other without being copied */
    size_t n_parts;
    bool text; /* worth packing: JSON and the like, not tensors */
    /* NULL, or: makes the next parts once those above are out, on a codec thread, until total_bytes are out;
     * false when it can't (the connection is cut). For bodies that are made while the client reads. Of
     * LB_REPLY_OPEN it is called until it leaves no bytes in parts. While the exchange is shared that means
     * that there are none yet: it is called again after lb_exchange_wake or lb_exchange_leave. */
    bool (*next)(struct lb_exchange *exchange);
    size_t total_bytes;
};

struct lb_exchange {
    const char *method, *path; /* path: decoded, without the query; may hold any byte but NUL */
    char peer[64];             /* the client's address, "" on a UNIX socket */
    const char *certificate;   /* what the client's certificate calls it; NULL: it has none */
    struct lb_buf body;        /* complete and unpacked when handle is called */
    size_t received_bytes;     /* of the body as it came */
    struct lb_arena arena;
    struct lb_holding memory; /* counted: the body, and what handlers add */
    struct lb_reply reply;
    void *user;
    void (*user_free)(void *user); /* called when the exchange ends */
    uint64_t started_ns;
    bool quick;       /* set by begin: handle runs on the HTTP thread; for what takes no time */
    bool heavy;       /* set by anybody: what comes next takes long, and waits in the codec's other line */
    atomic_bool gone; /* the client has left: work for it may stop */
    /* For the log: what was sent. */
    size_t sent_bytes;
    enum lb_coding sent_coding;
};

/* What the program does with exchanges. */
struct lb_http_app {
    void *context;
    /* The headers are there, the body isn't: may answer already (a wrong token), the body is dropped then.
     * HTTP thread. */
    void (*begin)(void *context, struct lb_exchange *exchange);
    /* The body is there: answers, or defers. Codec thread, or HTTP thread for quick ones. */
    void (*handle)(void *context, struct lb_exchange *exchange);
    /* After lb_exchange_resume: answers. Codec thread. */
    void (*resumed)(void *context, struct lb_exchange *exchange);
    /* The client has left (gone is set) while somebody else holds the exchange: may tell them to stop. HTTP
     * thread; the exchange does not end meanwhile. */
    void (*lost)(void *context, struct lb_exchange *exchange);
    /* For refusals that this layer decides: fills the reply with the app's form of an error, and the headers
     * that go with the status. Either thread. */
    void (*refuse)(void *context, struct lb_exchange *exchange, int status, const char *text);
    /* The answer is about to go out, whoever made it: the place for headers that every answer has. */
    void (*sending)(void *context, struct lb_exchange *exchange);
    /* The answer is out (complete), or the connection was lost. HTTP thread. */
    void (*end)(void *context, struct lb_exchange *exchange, bool complete);
};

struct lb_http_args {
    int listen_fd;      /* taken over on success */
    struct lb_tls *tls; /* the same; NULL: no TLS */
    int threads, codec_threads;
    unsigned max_connections, max_connections_per_client; /* by address; a UNIX socket is one client */
    unsigned idle_seconds;                                /* between requests; then a connection is closed */
    unsigned grace_ms;        /* for all of a request's headers, and before least_rate holds */
    unsigned least_rate;      /* bytes a second that a client must send or read; 0: any */
    size_t max_body_bytes;    /* also what lb_budget_largest allows */
    struct lb_budget *budget; /* borrowed */
    struct lb_http_app app;
};

struct lb_http;

LB_NODISCARD enum lb_status lb_http_start(const struct lb_http_args *args, struct lb_http **out,
                                          struct lb_detail *detail);
/* From now on new connections speak TLS with these (taken over); only where they did so before. */
void lb_http_change_tls(struct lb_http *http, struct lb_tls *tls);
/* From now on each answer closes its connection. */
void lb_http_drain(struct lb_http *http);
/* Waits until no exchange is open, at most until deadline_ns; false when some are left. */
bool lb_http_wait_idle(struct lb_http *http, uint64_t deadline_ns);
/* Closes all connections and joins the threads. Every exchange must have been resumed. Accepts NULL. */
void lb_http_stop(struct lb_http *http);
unsigned lb_http_exchanges(struct lb_http *http);
unsigned lb_http_connections(struct lb_http *http);

/* A request header's value or NULL; valid until the exchange ends. */
const char *lb_exchange_header(struct lb_exchange *exchange, const char *name);
/* Adds a header to the answer; both strings are borrowed. */
void lb_reply_header(struct lb_exchange *exchange, const char *name, const char *value);
/* In begin: who is asking, as a token tells (its number or name). Until then it is the address. */
void lb_exchange_client(struct lb_exchange *exchange, const char *name);

/* In handle (not for quick ones): the answer comes later. To be called before the exchange is handed to
 * another thread; the caller must not touch it afterwards. */
void lb_exchange_defer(struct lb_exchange *exchange);
/* Any thread: gives a deferred exchange back; resumed is called soon. The caller must not touch it any more.
 */
void lb_exchange_resume(struct lb_exchange *exchange);

/* As lb_exchange_defer, where somebody goes on working for the exchange beside those who answer it: it comes
 * back with lb_exchange_wake, and doesn't end before lb_exchange_leave, whatever becomes of its client. */
void lb_exchange_share(struct lb_exchange *exchange);
/* Whoever works for it: there is something new to answer with. */
void lb_exchange_wake(struct lb_exchange *exchange);
/* The same, for the last time: the caller must not touch it any more. */
void lb_exchange_leave(struct lb_exchange *exchange);
/* Whether more may come. Asked before one looks at what there is: false, and that is all. */
bool lb_exchange_is_shared(struct lb_exchange *exchange);

#endif
