#include "server/http/loop.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "proto/limits.h"
#include "server/http/connection.h"
#include "server/http/mailbox.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define TICK_MS 100
#define MAX_EVENTS 64
#define ACCEPT_AT_ONCE 64
/* Clients of all loops, about, that are turned away and have not heard it yet. */
#define MAX_LEAVING 32

/* And of one loop no more often than this where they speak TLS, whose handshake costs something. */
#define TURNED_AWAY_NS (10 * LB_MS_NS)

/* Exchanges that came back. */
static void take_back(struct lb_loop *loop) {
    for (struct lb_held *held = lb_mailbox_take(&loop->mailbox), *next; held; held = next) {
        next = held->next_back;
        lb_conn_back(held);
    }
}

/* ---- accepting ---- */

/* The address as text, and as what counts as one client: an IPv6 network of 64 bits is one. */
static void name_peer(const struct sockaddr_storage *address, socklen_t len, char peer[64], char client[80]) {
    peer[0] = '\0';
    snprintf(client, 80, "local");
    if (address->ss_family != AF_INET && address->ss_family != AF_INET6) {
        return;
    }
    getnameinfo((const struct sockaddr *)address, len, peer, 64, NULL, 0, NI_NUMERICHOST);
    snprintf(client, 80, "address %s", peer);
    if (address->ss_family == AF_INET6) {
        const struct in6_addr *in6 = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
        if (!IN6_IS_ADDR_V4MAPPED(in6)) {
            const uint8_t *b = in6->s6_addr;
            snprintf(client, 80, "network %02x%02x:%02x%02x:%02x%02x:%02x%02x", b[0], b[1], b[2], b[3], b[4],
                     b[5], b[6], b[7]);
        }
    }
}

/* With what new connections speak TLS now; NULL when out of memory. */
static struct lb_tls_session *session_create(struct lb_http *http, int fd) {
    pthread_mutex_lock(&http->lock);
    struct lb_tls_session *session = lb_tls_session_create(http->args.tls, fd);
    pthread_mutex_unlock(&http->lock);
    return session;
}

/* A connection of the loop in this state; NULL when there is no memory for it. */
static struct lb_conn *conn_create(struct lb_loop *loop, int fd, enum lb_conn_state state) {
    struct lb_conn *conn = lb_calloc(1, sizeof *conn);
    if (!conn) {
        return NULL;
    }
    conn->loop = loop;
    conn->fd = fd;
    conn->phase_ns = lb_now_ns();
    lb_buf_init(&conn->in, LB_MAX_HEADER_BYTES + LB_READ_BYTES);
    conn->state = state;
    conn->tls = state == LB_CONN_HANDSHAKE ? session_create(loop->http, fd) : NULL;
    conn->events = EPOLLIN;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
    if ((state == LB_CONN_HANDSHAKE && !conn->tls) ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        lb_tls_session_destroy(conn->tls);
        lb_free(conn);
        return NULL;
    }
    conn->next = loop->first;
    if (loop->first) {
        loop->first->previous = conn;
    }
    loop->first = conn;
    return conn;
}

/* Says so and closes. What the client has sent already is read and dropped for a little while, for a few at
 * once: closed with bytes unread, the kernel would cut off the answer too. Who speaks TLS hears it after a
 * handshake, where he is one of these few; else nothing. */
static void turn_away(struct lb_loop *loop, int fd) {
    bool secure = loop->http->secure,
         room = loop->n_leaving * (unsigned)loop->http->args.threads < MAX_LEAVING;
    if (secure) {
        uint64_t now = lb_now_ns();
        room = room && now - loop->turned_away_ns >= TURNED_AWAY_NS;
        loop->turned_away_ns = room ? now : loop->turned_away_ns;
    } else {
        (void)!send(fd, LB_BUSY, sizeof LB_BUSY - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        shutdown(fd, SHUT_WR);
    }
    if (room && conn_create(loop, fd, secure ? LB_CONN_HANDSHAKE : LB_CONN_LINGER)) {
        loop->n_leaving++;
        return;
    }
    close(fd);
}

static void welcome(struct lb_loop *loop, int fd, const struct sockaddr_storage *address, socklen_t len) {
    struct lb_http *http = loop->http;
    char peer[64], name[80];
    int on = 1;
    name_peer(address, len, peer, name);
    struct lb_client *client = lb_client_get(http->args.budget, name);
    unsigned most = peer[0] ? http->args.max_connections_per_client : http->args.max_connections;
    bool counted = client && lb_client_connect(client, most);
    if (atomic_fetch_add(&http->connections, 1) >= http->args.max_connections || !counted) {
        atomic_fetch_sub(&http->connections, 1);
        turn_away(loop, fd);
    } else {
        if (peer[0]) {
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        }
        struct lb_conn *conn = conn_create(loop, fd, http->secure ? LB_CONN_HANDSHAKE : LB_CONN_HEAD);
        if (conn) {
            conn->client = client;
            memcpy(conn->peer, peer, sizeof conn->peer);
            return;
        }
        atomic_fetch_sub(&http->connections, 1);
        turn_away(loop, fd);
    }
    if (counted) {
        lb_client_disconnect(client);
    }
    lb_client_release(client);
}

static void listen_again(struct lb_loop *loop, bool hear) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.ptr = &loop->deaf};
    loop->deaf = !hear;
    epoll_ctl(loop->epoll_fd, hear ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, loop->http->args.listen_fd, &event);
}

static void accept_some(struct lb_loop *loop) {
    for (int i = 0; i < ACCEPT_AT_ONCE; i++) {
        struct sockaddr_storage address = {0};
        socklen_t len = sizeof address;
        int fd = accept4(loop->http->args.listen_fd, (struct sockaddr *)&address, &len,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            welcome(loop, fd, &address, len);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            listen_again(loop, false); /* until the next turn: who waits would wake this thread for ever */
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

/* ---- the thread ---- */

static void scan(struct lb_loop *loop, uint64_t now) {
    loop->scanned_ns = now;
    if (loop->deaf) {
        listen_again(loop, true);
    }
    for (struct lb_conn *conn = loop->first, *next; conn; conn = next) {
        next = conn->next;
        lb_conn_tick(conn, now);
    }
}

static void *run(void *argument) {
    struct lb_loop *loop = argument;
    struct epoll_event events[MAX_EVENTS];
    while (!atomic_load(&loop->http->stopping)) {
        int n = epoll_wait(loop->epoll_fd, events, MAX_EVENTS, loop->first || loop->deaf ? TICK_MS : -1);
        /* A connection is destroyed by its own event only, and has one at most among these; exchanges that
         * come back destroy others', so they are taken last. */
        bool back = false;
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &loop->deaf) {
                accept_some(loop);
            } else if (events[i].data.ptr == loop) {
                back = true;
            } else {
                lb_conn_event(events[i].data.ptr, events[i].events);
            }
        }
        if (back) {
            take_back(loop);
        }
        uint64_t now = lb_now_ns();
        if (now - loop->scanned_ns >= TICK_MS * LB_MS_NS) {
            scan(loop, now);
        }
    }
    return NULL;
}

enum lb_status lb_loop_start(struct lb_loop *loop, struct lb_http *http, struct lb_detail *detail) {
    loop->http = http;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    bool opened = lb_mailbox_open(&loop->mailbox);
    loop->buffer = lb_malloc_array(LB_READ_BYTES, 1);
    struct epoll_event wake = {.events = EPOLLIN, .data.ptr = loop},
                       hear = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.ptr = &loop->deaf};
    if (!loop->buffer) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory while starting HTTP");
    }
    if (loop->epoll_fd < 0 || !opened ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->mailbox.wake_fd, &wake) != 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, http->args.listen_fd, &hear) != 0) {
        return lb_fail_errno(detail, LB_E_IO, errno, "starting HTTP");
    }
    int error = pthread_create(&loop->thread, NULL, run, loop);
    if (error != 0) {
        return lb_fail_errno(detail, LB_E_NOMEM, error, "starting an HTTP thread");
    }
    loop->started = true;
    return LB_OK;
}

void lb_loop_join(struct lb_loop *loop) {
    if (loop->started) {
        lb_mailbox_wake(&loop->mailbox);
        pthread_join(loop->thread, NULL);
        loop->started = false;
    }
}

void lb_loop_finish(struct lb_loop *loop) {
    if (!loop->http) {
        return; /* never begun */
    }
    while (loop->first) {
        lb_conn_destroy(loop->first);
    }
    if (loop->epoll_fd >= 0) {
        close(loop->epoll_fd);
    }
    lb_mailbox_close(&loop->mailbox);
    lb_free(loop->buffer);
}
