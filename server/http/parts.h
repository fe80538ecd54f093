/* What the files of HTTP share: loops, connections, exchanges as they hold them. Private to server/http. */
#ifndef LB_HTTP_PARTS_H
#define LB_HTTP_PARTS_H

#include "server/http/codec.h"
#include "server/http/head.h"
#include "server/http/http.h"
#include "server/http/tls.h"

#include <pthread.h>

/* Read at once; each HTTP thread has one buffer of it. */
#define LB_READ_BYTES ((size_t)256 << 10)
/* The head of an answer. */
#define LB_ANSWER_HEAD_BYTES 4096

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
    struct lb_client *client; /* by address */
    char peer[64];
    enum lb_conn_state state;
    unsigned events; /* what epoll was told */
    bool close;      /* after this answer */
    bool half_closed;
    bool dead;         /* to be destroyed at the end of this turn */
    uint64_t phase_ns; /* since when it is in this state */
    size_t moved;      /* bytes received or sent in this state */
    struct lb_buf in;  /* read, and not understood yet: a head that isn't complete, a next request */
    struct lb_held *held;
};

/* An exchange and what HTTP keeps beside it. */
struct lb_held {
    struct lb_exchange x;
    struct lb_http *http;
    struct lb_conn *conn;
    struct lb_codec_task task;
    struct lb_request_head head;
    bool refused, resumed, streaming, failed;
    bool close;            /* the connection, after the answer */
    bool *deferred;        /* of the codec thread that runs handle */
    size_t body_left;      /* with Content-Length */
    struct lb_chunks body; /* with chunks */
    size_t dropped;
    struct lb_buf packed; /* the answer, when compressed */
    /* Sending. */
    char answer_head[LB_ANSWER_HEAD_BYTES];
    size_t head_len, head_sent;
    size_t part, part_sent;
    size_t body_sent;
    struct lb_held *next_back; /* in the loop's mailbox */
};

/* One HTTP thread. */
struct lb_loop {
    struct lb_http *http;
    pthread_t thread;
    bool started;
    int epoll_fd, wake_fd;
    bool deaf; /* accept failed for want of files: not listening until the next turn */
    uint64_t scanned_ns;
    struct lb_conn *first;
    char *buffer;
    pthread_mutex_t lock; /* guards back */
    struct lb_held *back; /* exchanges that come back */
};

struct lb_http {
    struct lb_http_args args;
    struct lb_tls *tls;
    struct lb_codec *codec;
    struct lb_loop *loops;
    atomic_bool draining, stopping;
    atomic_uint connections, exchanges;
    pthread_mutex_t lock; /* for idle */
    pthread_cond_t idle;
};

/* ---- connection.c: all on the loop's thread ---- */

/* The socket may be read or written, or is broken (EPOLL flags). */
void lb_conn_event(struct lb_conn *conn, unsigned events);
/* The exchange came back. */
void lb_conn_back(struct lb_held *held);
/* Looks at the clock. */
void lb_conn_tick(struct lb_conn *conn, uint64_t now);
/* Ends the exchange if there is one (it must not be away) and the connection. */
void lb_conn_destroy(struct lb_conn *conn);

/* ---- exchange.c ---- */

/* An exchange for a head of head_len bytes, which is copied; NULL when out of memory. */
struct lb_held *lb_held_create(struct lb_conn *conn, const char *head, size_t head_len);
void lb_held_end(struct lb_held *held, bool complete);
/* Fills the reply with a refusal. */
void lb_held_refuse(struct lb_held *held, int status, const char *text);
/* The last headers, packing (where may_pack), the answer's head. */
void lb_held_prepare(struct lb_held *held, bool may_pack);
/* To the codec, which gives it back to the connection's loop. */
void lb_held_send_away(struct lb_held *held);

/* ---- loop.c ---- */

LB_NODISCARD enum lb_status lb_loop_start(struct lb_loop *loop, struct lb_http *http,
                                          struct lb_detail *detail);
/* Waits for the thread (stopping is set). */
void lb_loop_join(struct lb_loop *loop);
/* Closes what is left. */
void lb_loop_finish(struct lb_loop *loop);
void lb_loop_wake(struct lb_loop *loop);
/* Any thread: into the mailbox. */
void lb_loop_give_back(struct lb_loop *loop, struct lb_held *held);
/* What epoll is to tell of this connection. */
void lb_loop_watch(struct lb_conn *conn, unsigned events);

#endif
