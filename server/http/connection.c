#include "server/http/connection.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "proto/limits.h"
#include "server/http/exchange.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* Bodies of refused requests are read and dropped up to here, so that the client gets to read its answer. */
#define DROP_BYTES ((size_t)16 << 20)
/* Read or sent in one turn; then others have theirs. */
#define TURN_BYTES ((size_t)1 << 20)
#define LINGER_NS (2 * LB_SECOND_NS)
#define MAX_IOV 16

#define TOO_LARGE "the request's body is larger than this daemon's maximum; ask in smaller pieces"

/* What epoll is to tell of this connection. */
static void watch(struct lb_conn *conn, unsigned events) {
    struct epoll_event event = {.events = events, .data.ptr = conn};
    if (conn->fd >= 0 && conn->events != events) {
        conn->events = events;
        epoll_ctl(conn->loop->epoll_fd, EPOLL_CTL_MOD, conn->fd, &event);
    }
}

static void enter(struct lb_conn *conn, enum lb_conn_state state, unsigned events) {
    conn->state = state;
    conn->phase_ns = lb_now_ns();
    conn->moved = 0;
    watch(conn, events);
}

/* ---- the end ---- */

static void close_socket(struct lb_conn *conn) {
    if (conn->fd >= 0) {
        lb_tls_session_destroy(conn->tls);
        conn->tls = NULL;
        close(conn->fd);
        conn->fd = -1;
        if (conn->client) {
            lb_client_disconnect(conn->client);
            atomic_fetch_sub(&conn->loop->http->connections, 1);
        } else {
            conn->loop->n_leaving--;
        }
    }
}

static void tell_gone(struct lb_conn *conn) {
    struct lb_http_app *app = &conn->loop->http->args.app;
    atomic_store(&conn->held->x.gone, true);
    app->lost(app->context, &conn->held->x);
}

/* The socket is closed; conn lives until its exchange is back, or the end of this turn. */
static void lose(struct lb_conn *conn) {
    close_socket(conn);
    if (conn->state == LB_CONN_AWAY) {
        tell_gone(conn);
    } else {
        conn->dead = true;
    }
}

void lb_conn_destroy(struct lb_conn *conn) {
    if (conn->held && !lb_held_let_go(conn->held)) {
        close_socket(conn);
        conn->state = LB_CONN_AWAY;
        conn->dead = false;
        tell_gone(conn);
        return;
    }
    if (conn->held) {
        lb_held_end(conn->held, false);
    }
    close_socket(conn);
    lb_buf_finish(&conn->in);
    lb_client_release(conn->client);
    *(conn->previous ? &conn->previous->next : &conn->loop->first) = conn->next;
    if (conn->next) {
        conn->next->previous = conn->previous;
    }
    lb_free(conn);
}

/* ---- sending ---- */

/* What stands next in the answer, as spans; returns how many. */
static int next_spans(const struct lb_held *held, struct iovec iov[MAX_IOV]) {
    const struct lb_reply *reply = &held->x.reply;
    int n = 0;
    if (held->head_sent < held->answer_head.len) {
        iov[n++] =
            (struct iovec){held->answer_head.data + held->head_sent, held->answer_head.len - held->head_sent};
    }
    size_t skip = held->part_sent;
    for (size_t i = held->part; i < reply->n_parts && n < MAX_IOV; i++, skip = 0) {
        if (reply->parts[i].len > skip) {
            iov[n++] =
                (struct iovec){(char *)(uintptr_t)reply->parts[i].data + skip, reply->parts[i].len - skip};
        }
    }
    size_t tail = held->tail ? strlen(held->tail) : 0;
    if (n < MAX_IOV && held->tail_sent < tail) {
        iov[n++] = (struct iovec){(char *)(uintptr_t)held->tail + held->tail_sent, tail - held->tail_sent};
    }
    return n;
}

static void advance(struct lb_held *held, size_t bytes) {
    size_t of_head = held->answer_head.len - held->head_sent;
    of_head = bytes < of_head ? bytes : of_head;
    held->head_sent += of_head;
    bytes -= of_head;
    const struct lb_reply *reply = &held->x.reply;
    while (held->part < reply->n_parts) {
        size_t left = reply->parts[held->part].len - held->part_sent;
        if (bytes < left) {
            held->part_sent += bytes;
            held->body_sent += bytes;
            return;
        }
        bytes -= left;
        held->body_sent += left;
        held->part++;
        held->part_sent = 0;
    }
    held->tail_sent += bytes;
}

/* Whether its next parts are to be made, those that were there being out. */
static bool goes_on(const struct lb_held *held) {
    const struct lb_reply *reply = &held->x.reply;
    return reply->next &&
           (reply->total_bytes == LB_REPLY_OPEN ? !held->ended : held->body_sent < reply->total_bytes);
}

static ssize_t put(struct lb_conn *conn, struct iovec *iov, int n) {
    if (conn->tls) {
        return lb_tls_write(conn->tls, iov[0].iov_base, iov[0].iov_len);
    }
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)n};
    return sendmsg(conn->fd, &message, MSG_NOSIGNAL);
}

/* All is said: waits a little for the client to close first. Closed with bytes unread, the kernel would cut
 * off what was said last. */
static void say_good_bye(struct lb_conn *conn) {
    lb_tls_session_destroy(conn->tls);
    conn->tls = NULL;
    shutdown(conn->fd, SHUT_WR);
    enter(conn, LB_CONN_LINGER, EPOLLIN);
}

/* The answer is out: the next request, or good-bye. */
static void answered(struct lb_conn *conn) {
    struct lb_held *held = conn->held;
    bool closing = held->close || atomic_load(&conn->loop->http->draining);
    if (lb_exchange_is_shared(&held->x)) {
        conn->dead = true; /* answered before its time: what is worked on is wanted by nobody */
        return;
    }
    conn->held = NULL;
    lb_held_end(held, true);
    if (closing) {
        say_good_bye(conn);
        return;
    }
    enter(conn, LB_CONN_HEAD, EPOLLIN);
}

/* Sends what can be sent now. */
static void send_some(struct lb_conn *conn) {
    struct lb_held *held = conn->held;
    struct iovec iov[MAX_IOV];
    size_t turn = 0;
    int n;
    while ((n = next_spans(held, iov)) > 0) {
        ssize_t sent = turn < TURN_BYTES ? put(conn, iov, n) : (errno = EAGAIN, -1);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            watch(conn, EPOLLOUT);
            return;
        }
        if (sent < 0) {
            lose(conn);
            return;
        }
        turn += (size_t)sent;
        conn->moved += (size_t)sent;
        advance(held, (size_t)sent);
    }
    if (goes_on(held)) {
        held->streaming = true;
        conn->state = LB_CONN_AWAY;
        conn->phase_ns = lb_now_ns() - conn->phase_ns; /* the clock of sending stands still */
        watch(conn, EPOLLRDHUP);
        lb_held_send_away(held);
        return;
    }
    answered(conn);
}

/* The answer, or its next parts, are ready. */
static void send_answer(struct lb_conn *conn) {
    struct lb_held *held = conn->held;
    uint64_t now = lb_now_ns();
    conn->phase_ns = held->streaming ? now - conn->phase_ns : now;
    conn->moved = held->streaming ? conn->moved : 0;
    conn->state = LB_CONN_SEND;
    held->part = held->part_sent = 0;
    if (held->failed) {
        lose(conn);
        return;
    }
    send_some(conn);
}

/* An answer that was made here. */
static void answer(struct lb_conn *conn) {
    conn->held->close |= conn->close;
    lb_held_prepare(conn->held, false);
    send_answer(conn);
}

/* Refuses and closes: nobody knows where a next request would begin. */
static void refuse_and_close(struct lb_conn *conn, int status, const char *text) {
    conn->close = true;
    lb_held_refuse(conn->held, status, text);
    answer(conn);
}

/* ---- receiving ---- */

/* The whole request is there. */
static void complete(struct lb_conn *conn) {
    struct lb_held *held = conn->held;
    if (held->refused) {
        answer(conn);
    } else if (held->x.quick) {
        struct lb_http_app *app = &held->http->args.app;
        app->handle(app->context, &held->x);
        answer(conn);
    } else {
        enter(conn, LB_CONN_AWAY, EPOLLRDHUP);
        lb_held_send_away(held);
    }
}

static void drop(struct lb_held *held) {
    lb_buf_finish(&held->x.body);
    lb_buf_init(&held->x.body, held->http->args.max_body_bytes);
    held->conn->state = LB_CONN_DROP;
}

/* A piece of the body; false when it can't be taken, and the rest needn't be read either. */
static bool take(struct lb_held *held, const char *data, size_t len) {
    held->x.received_bytes += len;
    held->conn->moved += len;
    if (held->refused) {
        held->dropped += len;
        return held->dropped <= DROP_BYTES;
    }
    size_t largest = lb_budget_largest(held->http->args.budget);
    if (held->x.memory.bytes + len > largest || held->x.body.len + len > held->x.body.max) {
        lb_held_refuse(held, 413, TOO_LARGE);
    } else if (!lb_hold(&held->x.memory, len)) {
        lb_held_refuse(held, 503, "too many bytes in flight; try again");
    } else if (lb_buf_append(&held->x.body, data, len) != LB_OK) {
        lb_held_refuse(held, 503, "out of memory; try again");
    }
    if (held->refused) {
        drop(held);
        return held->body_left <= DROP_BYTES;
    }
    return true;
}

/* Reads the body from data; what is left belongs to the next request. Returns how much was used. */
static size_t feed_body(struct lb_conn *conn, const char *data, size_t len) {
    struct lb_held *held = conn->held;
    if (!held->head.chunked) {
        size_t n = len < held->body_left ? len : held->body_left;
        held->body_left -= n;
        if (!take(held, data, n)) {
            conn->close = true;
            answer(conn);
        } else if (held->body_left == 0) {
            complete(conn);
        }
        return n;
    }
    const char *at = data, *end = data + len, *piece = NULL;
    size_t n = 0;
    do {
        if (!lb_chunks_next(&held->body, &at, end, &piece, &n)) {
            refuse_and_close(conn, 400, "the body is not in the chunked coding that its header tells of");
            return len;
        }
        if (n > 0 && !take(held, piece, n)) {
            conn->close = true;
            answer(conn);
            return len;
        }
    } while (n > 0);
    if (held->body.done) {
        complete(conn);
    }
    return (size_t)(at - data);
}

static void consume(struct lb_conn *conn, size_t n) {
    conn->in.len -= n;
    memmove(conn->in.data, conn->in.data + n, conn->in.len);
    if (conn->in.len == 0) {
        lb_buf_finish(&conn->in); /* an idle connection holds nothing */
        lb_buf_init(&conn->in, LB_MAX_HEADER_BYTES + LB_READ_BYTES);
    }
}

/* Tells the client to send the body that it announced. Only where earlier answers fill the socket does it not
 * take these few bytes, and what it took of them can't be taken back. */
static void say_continue(struct lb_conn *conn) {
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct iovec iov = {(void *)(uintptr_t)text, sizeof text - 1};
    if (put(conn, &iov, 1) != (ssize_t)(sizeof text - 1)) {
        lose(conn);
    }
}

/* A head of n bytes is there; n 0: it is too large, or cut short, as status and why say. */
static void begin(struct lb_conn *conn, size_t n, int status, const char *why) {
    struct lb_http_app *app = &conn->loop->http->args.app;
    struct lb_held *held = lb_held_create(conn, conn->in.data, n);
    consume(conn, n > 0 ? n : conn->in.len);
    if (!held) {
        lose(conn);
        return;
    }
    conn->held = held;
    conn->close = false;
    if (status != 0) {
        lb_held_refuse(held, status, why);
    }
    if (held->refused) {
        conn->close = true;
        answer(conn);
        return;
    }
    app->begin(app->context, &held->x);
    held->refused = held->x.reply.status != 0;
    size_t most = conn->loop->http->args.max_body_bytes,
           largest = lb_budget_largest(conn->loop->http->args.budget);
    if (!held->refused && held->head.length > (most < largest ? most : largest)) {
        lb_held_refuse(held, 413, TOO_LARGE);
    }
    held->body_left = (size_t)held->head.length;
    if (!held->head.chunked && held->head.length == 0) {
        complete(conn);
    } else if (held->refused && (held->head.expects_continue || held->head.length > DROP_BYTES)) {
        conn->close = true;
        answer(conn);
    } else {
        enter(conn, held->refused ? LB_CONN_DROP : LB_CONN_BODY, EPOLLIN);
        if (held->head.expects_continue) {
            say_continue(conn);
        }
    }
}

/* Understands what was read as far as it goes; from: bytes of a head that were looked at before. */
static void understand(struct lb_conn *conn, size_t from) {
    while (!conn->dead && conn->in.len > 0) {
        if (conn->state == LB_CONN_HEAD) {
            size_t n = lb_head_end(conn->in.data, conn->in.len, from);
            if (n == 0 && conn->in.len <= LB_MAX_HEADER_BYTES) {
                return;
            }
            bool fits = n > 0 && n <= LB_MAX_HEADER_BYTES;
            from = 0;
            begin(conn, fits ? n : 0, fits ? 0 : 431, "the request's headers are larger than 65536 bytes");
        } else if (conn->state == LB_CONN_BODY || conn->state == LB_CONN_DROP) {
            consume(conn, feed_body(conn, conn->in.data, conn->in.len));
        } else {
            return;
        }
    }
}

static void at_end(struct lb_conn *conn) {
    static const char why[] = "the connection was closed for sending before the request was complete";
    if (conn->state == LB_CONN_HEAD && conn->in.len > 0) {
        begin(conn, 0, 400, why);
    } else if (conn->state == LB_CONN_BODY) {
        refuse_and_close(conn, 400, why);
    } else if (conn->state == LB_CONN_DROP) {
        conn->close = true;
        answer(conn);
    } else {
        lose(conn);
    }
}

static void got(struct lb_conn *conn, const char *data, size_t n) {
    if ((conn->state == LB_CONN_BODY || conn->state == LB_CONN_DROP) && conn->in.len == 0) {
        size_t used = feed_body(conn, data, n);
        data += used;
        n -= used;
    }
    if (n == 0 || conn->state == LB_CONN_LINGER) {
        return; /* what comes after the last answer is nobody's */
    }
    size_t had = conn->in.len;
    if (had == 0 && conn->state == LB_CONN_HEAD) {
        conn->phase_ns = lb_now_ns();
    }
    if (lb_buf_append(&conn->in, data, n) != LB_OK) {
        lose(conn);
        return;
    }
    understand(conn, had);
}

static bool reads(const struct lb_conn *conn) {
    return !conn->dead && conn->state != LB_CONN_AWAY && conn->state != LB_CONN_SEND;
}

static void receive(struct lb_conn *conn) {
    char *buffer = conn->loop->buffer;
    size_t turn = 0;
    while (reads(conn) && turn < TURN_BYTES) {
        ssize_t n = conn->tls ? lb_tls_read(conn->tls, buffer, LB_READ_BYTES)
                              : recv(conn->fd, buffer, LB_READ_BYTES, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return;
        }
        if (n < 0) {
            lose(conn);
            return;
        }
        if (n == 0) {
            at_end(conn);
            return;
        }
        turn += (size_t)n;
        got(conn, buffer, (size_t)n);
        if (!conn->tls && (size_t)n < LB_READ_BYTES / 2) {
            return; /* most likely all there was; epoll tells otherwise */
        }
    }
}

/* ---- what the loop calls ---- */

static void handshake(struct lb_conn *conn) {
    int writes = 0, r = lb_tls_handshake(conn->tls, &writes);
    if (r < 0) {
        lose(conn);
    } else if (r == 0) {
        watch(conn, writes ? EPOLLOUT : EPOLLIN);
    } else if (!conn->client) { /* turned away */
        (void)lb_tls_write(conn->tls, LB_BUSY, sizeof LB_BUSY - 1);
        say_good_bye(conn);
    } else {
        lb_tls_client_name(conn->tls, conn->certificate);
        enter(conn, LB_CONN_HEAD, EPOLLIN);
        receive(conn);
    }
}

/* After an answer: what the client has sent meanwhile. */
static void go_on(struct lb_conn *conn) {
    if (conn->state == LB_CONN_HEAD && !conn->dead) {
        understand(conn, 0);
    }
    if (conn->tls && conn->state != LB_CONN_HANDSHAKE && reads(conn)) {
        receive(conn); /* what the session has read ahead, epoll doesn't tell of */
    }
    if (conn->dead) {
        lb_conn_destroy(conn);
    }
}

void lb_conn_event(struct lb_conn *conn, unsigned events) {
    bool broken = (events & (EPOLLHUP | EPOLLERR)) != 0;
    switch (conn->state) {
    case LB_CONN_AWAY:
        if (broken) {
            lose(conn);
        } else if (events & EPOLLRDHUP) {
            watch(conn, 0); /* told once */
            tell_gone(conn);
        }
        return;
    case LB_CONN_HANDSHAKE:
        handshake(conn);
        break;
    case LB_CONN_SEND:
        send_some(conn);
        break;
    default:
        receive(conn);
        break;
    }
    go_on(conn);
}

void lb_conn_back(struct lb_held *held) {
    struct lb_conn *conn = held->conn;
    if (conn->fd < 0) {
        lb_conn_destroy(conn);
        return;
    }
    send_answer(conn);
    go_on(conn);
}

static uint64_t grace_ns(const struct lb_conn *conn) {
    return conn->loop->http->args.grace_ms * LB_MS_NS;
}

/* Whether a client sends or reads slower than the least rate. */
static bool too_slow(const struct lb_conn *conn, uint64_t now) {
    uint64_t rate = conn->loop->http->args.least_rate;
    return rate > 0 && now > conn->phase_ns + grace_ns(conn) + (uint64_t)conn->moved * LB_SECOND_NS / rate;
}

void lb_conn_tick(struct lb_conn *conn, uint64_t now) {
    const struct lb_http_args *args = &conn->loop->http->args;
    switch (conn->state) {
    case LB_CONN_HANDSHAKE:
        conn->dead = now > conn->phase_ns + (conn->client ? grace_ns(conn) : LINGER_NS);
        break;
    case LB_CONN_HEAD:
        if (conn->in.len > 0 && now > conn->phase_ns + grace_ns(conn)) {
            begin(conn, 0, 408, "the request's headers came too slowly");
        } else if (conn->in.len == 0) {
            conn->dead = now > conn->phase_ns + args->idle_seconds * LB_SECOND_NS;
        }
        break;
    case LB_CONN_BODY:
        if (too_slow(conn, now)) {
            refuse_and_close(conn, 408, "the request's body comes too slowly (--least-rate)");
        }
        break;
    case LB_CONN_DROP:
    case LB_CONN_SEND:
        conn->dead = too_slow(conn, now);
        break;
    case LB_CONN_LINGER:
        conn->dead = now > conn->phase_ns + LINGER_NS;
        break;
    case LB_CONN_AWAY:
        break;
    }
    if (conn->dead) {
        lb_conn_destroy(conn);
    }
}
