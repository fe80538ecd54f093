/* What the files of HTTP share: loops, connections, exchanges as they hold them. Types only; private to
 * server/http, where http.c stands on loop.c, that on connection.c, that on exchange.c, that on mailbox.c. */
#ifndef LB_HTTP_PARTS_H
#define LB_HTTP_PARTS_H

#include "server/http/codec.h"
#include "server/http/head.h"
#include "server/http/http.h"
#include "server/http/mailbox.h"
#include "server/http/tls.h"

#include <pthread.h>

/* Read at once; each HTTP thread has one buffer of it. */
#define LB_READ_BYTES ((size_t)256 << 10)

/* What one hears who is turned away. */
#define LB_BUSY                                                                                              \
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"               \
    "Connection: close\r\nContent-Length: 68\r\n\r\n"                                                        \
    "{\"error\":\"too many connections; close some, or try again a bit later\"}"

enum lb_conn_state {
    LB_CONN_HANDSHAKE,
    LB_CONN_HEAD,  /* between requests, or reading headers */
    LB_CONN_BODY,  /* reading a body */
    LB_CONN_DROP,  /* reading a body that was refused */
    LB_CONN_AWAY,  /* its exchange is with the codec or the engine */
    LB_CONN_SEND,  /* sending */
    LB_CONN_LINGER /* all is said: waits a little for the client to close first */
};

struct lb_held;

/* Belongs to its loop's thread. */
struct lb_conn {
    struct lb_loop *loop;
    struct lb_conn *previous, *next; /* of the loop */
    int fd;                          /* -1: lost, and only waits for its exchange to come back */
    struct lb_tls_session *tls;
    struct lb_client *client; /* by address; NULL: turned away, and counts among the loop's n_leaving */
    char peer[64], certificate[LB_TLS_NAME];
    enum lb_conn_state state;
    unsigned events;   /* what epoll was told */
    bool close;        /* after this answer */
    bool dead;         /* to be destroyed at the end of this turn */
    uint64_t phase_ns; /* since when it is in this state */
    size_t moved;      /* bytes received or sent in this state */
    struct lb_buf in;  /* read, and not understood yet: a head that isn't complete, a next request */
    struct lb_held *held;
};

/* Of a held's sharing. */
#define LB_SHARED 1u /* somebody works for it beside its holder */
#define LB_ASLEEP 2u /* and has to wake it: nobody holds it */
#define LB_WOKEN 4u  /* while it was awake */
#define LB_ENDING 8u /* its connection is lost; it ends when it is shared no more */

/* An exchange and what HTTP keeps beside it. */
struct lb_held {
    struct lb_exchange x;
    struct lb_http *http;
    struct lb_conn *conn;
    struct lb_codec_task task;
    struct lb_request_head head;
    bool refused, resumed, streaming, failed;
    bool chunked, ended;   /* an answer of open length: in chunks, else until the close; all is there */
    atomic_uint sharing;   /* LB_SHARED and the like */
    bool close;            /* the connection, after the answer */
    bool *deferred;        /* of the codec thread that runs handle */
    size_t body_left;      /* with Content-Length */
    struct lb_chunks body; /* with chunks */
    size_t dropped;
    struct lb_buf packed; /* the answer, when compressed */
    /* Sending. */
    struct lb_buf answer_head;
    size_t head_sent;
    size_t part, part_sent;
    const char *tail; /* behind the parts; NULL: nothing */
    size_t tail_sent;
    size_t body_sent;
    struct lb_held *next_back; /* in the loop's mailbox */
};

/* One HTTP thread. */
struct lb_loop {
    struct lb_http *http;
    pthread_t thread;
    bool started;
    int epoll_fd;
    bool deaf; /* accept failed for want of files: not listening until the next turn */
    uint64_t scanned_ns;
    struct lb_conn *first;
    unsigned n_leaving;
    uint64_t turned_away_ns; /* when the last one was who speaks TLS */
    char *buffer;
    struct lb_mailbox mailbox;
};

struct lb_http {
    struct lb_http_args args;
    struct lb_codec *codec;
    struct lb_loop *loops;
    bool secure; /* speaks TLS */
    atomic_bool draining, stopping;
    atomic_uint connections, exchanges;
    pthread_mutex_t lock; /* for idle, and args.tls */
    pthread_cond_t idle;
};

#endif
