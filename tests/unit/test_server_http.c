/* HTTP by itself, over real sockets: what is refused and how, slow and lost clients, limits, streams, the
 * end.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/server_http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define STREAM_BYTES (24 * MIB)
#define MAX_CONNECTIONS 64

static _Atomic(struct lb_exchange *) kept; /* deferred by /defer, or at the gate */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

/* ---- the app ---- */

static void begin(void *context, struct lb_exchange *x) {
    (void)context;
    x->quick = strcmp(x->path, "/quick") == 0;
    if (strcmp(x->path, "/no") == 0) {
        reply(x, 403, "no", 2);
    }
}

static void handle(void *context, struct lb_exchange *x) {
    (void)context;
    static char big[16 << 20];
    if (strcmp(x->path, "/defer") == 0) {
        lb_exchange_defer(x);
        atomic_store(&kept, x);
    } else if (strcmp(x->path, "/gate") == 0) {
        atomic_store(&kept, x);
        pthread_mutex_lock(&gate);
        pthread_mutex_unlock(&gate);
        reply(x, 200, "late", 4);
    } else if (strcmp(x->path, "/stream") == 0) {
        reply(x, 200, "", 0);
        x->reply.next = next_piece;
        x->reply.total_bytes = STREAM_BYTES;
    } else if (strcmp(x->path, "/big") == 0) {
        reply(x, 200, big, sizeof big);
    } else if (strcmp(x->path, "/quick") == 0) {
        reply(x, 200, "quick", 5);
    } else {
        reply(x, 200, x->body.data ? x->body.data : "", x->body.len);
    }
}

static void resumed(void *context, struct lb_exchange *x) {
    (void)context;
    reply(x, 200, "resumed", 7);
}

static void refuse(void *context, struct lb_exchange *x, int status, const char *text) {
    (void)context;
    char *json = lb_arena_printf(&x->arena, "{\"error\":\"%s\"}", text);
    reply(x, status, json, strlen(json));
    if (status == 503) {
        lb_reply_header(x, "Retry-After", "1"); /* as the daemon's own does */
    }
}

static void sending(void *context, struct lb_exchange *x) {
    (void)context;
    lb_reply_header(x, "X-App", "test");
}

static void start(unsigned per_client, unsigned grace_ms, unsigned rate) {
    kept = NULL;
    start_http((struct lb_http_args){.max_connections = MAX_CONNECTIONS,
                                     .max_connections_per_client = per_client,
                                     .idle_seconds = 1,
                                     .grace_ms = grace_ms,
                                     .least_rate = rate,
                                     .app = {NULL, begin, handle, resumed, lost, refuse, sending, ended}});
}

/* ---- the client ---- */

static int dial(void) {
    return lb_peer_dial(port);
}

static struct lb_exchange *await_kept(void) {
    uint64_t until = lb_now_ns() + 10 * LB_SECOND_NS;
    while (!atomic_load(&kept)) {
        assert_true(lb_now_ns() < until);
        lb_sleep_ns(LB_MS_NS);
    }
    return atomic_load(&kept);
}

#define POST "POST /echo HTTP/1.1\r\nHost: h\r\n"

/* ---- what is refused ---- */

/* One answer, in the app's form, and a closed connection. */
static void refused(const char *request, int status, bool half_close) {
    char heard[4096], want[32];
    int fd = dial();
    lb_peer_say(fd, request);
    if (half_close) {
        shutdown(fd, SHUT_WR);
    }
    assert_true(lb_peer_hear(fd, heard, sizeof heard));
    snprintf(want, sizeof want, "HTTP/1.1 %d ", status);
    if (strncmp(heard, want, strlen(want)) != 0 || lb_peer_count(heard, "Date: ") != 1 ||
        lb_peer_count(heard, "{\"error\":") != 1 || lb_peer_count(heard, "Connection: close") != 1 ||
        strstr(heard, "<html")) {
        fail_msg("%d expected: %s\n%s", status, request, heard);
    }
    close(fd);
}

static void test_strict(void **state) {
    (void)state;
    start(64, 5000, 0);
    refused(POST "Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc", 400, false);
    refused(POST "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, false);
    refused(POST "Host: h\r\nContent-Length: 2\r\n\r\nab", 400, false);
    refused(POST "Content-Length : 2\r\n\r\nab", 400, false);
    refused(POST "Content-Length: abc\r\n\r\nab", 400, false);
    refused(POST "Transfer-Encoding: foo\r\n\r\nab", 501, false);
    refused(POST "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400, false);
    refused(POST "Content-Length: 99999999\r\n\r\n", 413, false);
    refused("nonsense\r\n\r\n", 400, false);
    refused("GET / HTTP/1.1\n\n", 400, false);
    refused("GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n", 400, false);
    refused(POST "Content-Len", 400, true);
    refused(POST "Content-Length: 10\r\n\r\nabc", 400, true);
    char *large = calloc(1, 80000);
    assert_non_null(large);
    snprintf(large, 80000, "GET / HTTP/1.1\r\nHost: h\r\nX: %070000d\r\n\r\n", 1);
    refused(large, 431, false);
    free(large);
    stop();
}

static void test_keeps_alive(void **state) {
    (void)state;
    char heard[8192];
    start(64, 5000, 0);
    int fd = dial();
    /* Three at once, one in chunks, answered in order; the last one closes. */
    lb_peer_say(fd, POST "Content-Length: 5\r\n\r\nfirst" POST
                         "Transfer-Encoding: chunked\r\n\r\n3\r\nsec\r\n3\r\nond\r\n"
                         "0\r\n\r\n" QUICK POST "Connection: close\r\nContent-Length: 4\r\n\r\nlast");
    assert_true(lb_peer_hear(fd, heard, sizeof heard));
    assert_int_equal(lb_peer_count(heard, "HTTP/1.1 200 OK"), 4);
    assert_int_equal(lb_peer_count(heard, "X-App: test"), 4);
    const char *first = strstr(heard, "first"), *second = strstr(heard, "second"),
               *quick = strstr(heard, "quick"), *last = strstr(heard, "last");
    assert_true(first && second && quick && last && first < second && second < quick && quick < last);
    close(fd);
    fd = dial();
    lb_peer_say(fd, POST "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    lb_peer_hear_one(fd, heard, sizeof heard, "100 Continue\r\n\r\n");
    lb_peer_say(fd, "ok");
    lb_peer_hear_one(fd, heard, sizeof heard, "\r\n\r\nok");
    lb_peer_say(fd, "HEAD /echo HTTP/1.1\r\nHost: h\r\n\r\n" QUICK);
    lb_peer_hear_one(fd, heard, sizeof heard, "quick");
    assert_int_equal(lb_peer_count(heard, "HTTP/1.1 200"), 2);
    close(fd);
    stop();
}

/* Refused by its headers: the body is dropped and the connection lives, unless it is long, or waited for. */
static void test_refused_bodies(void **state) {
    (void)state;
    static char heard[8192], piece[MIB + 1];
    start(64, 5000, 0);
    memset(piece, 'a', MIB);
    int fd = dial();
    lb_peer_say(fd, "POST /no HTTP/1.1\r\nHost: h\r\nContent-Length: 1048576\r\n\r\n");
    lb_peer_say(fd, piece);
    lb_peer_say(fd, QUICK);
    lb_peer_hear_one(fd, heard, sizeof heard, "quick");
    assert_int_equal(lb_peer_count(heard, "HTTP/1.1 403 "), 1);
    lb_peer_say(fd, "POST /no HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_true(lb_peer_hear(fd, heard, sizeof heard));
    assert_int_equal(lb_peer_count(heard, "HTTP/1.1 "), 1);
    assert_int_equal(lb_peer_count(heard, "HTTP/1.1 403 "), 1);
    close(fd);
    for (int chunked = 0; chunked < 2; chunked++) {
        fd = dial();
        lb_peer_say(fd, chunked
                            ? "POST /no HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2000000\r\n"
                            : POST "Content-Length: 33554432\r\n\r\n");
        for (int i = 0; i < 20; i++) {
            lb_peer_say(fd, piece); /* goes on after the answer, which isn't cut off by it */
        }
        lb_peer_hear_one(fd, heard, sizeof heard, "Connection: close\r\n");
        assert_memory_equal(heard, chunked ? "HTTP/1.1 403 " : "HTTP/1.1 413 ", 13);
        /* Who doesn't close is closed. */
        uint64_t until = lb_now_ns() + 10 * LB_SECOND_NS;
        while (!chunked && lb_http_connections(http) > 0) {
            assert_true(lb_now_ns() < until);
            lb_sleep_ns(LB_MS_NS);
        }
        close(fd);
    }
    stop();
}

/* HTTP/1.0: closed unless asked otherwise, which is confirmed; no 100 before the answer. */
static void test_old_version(void **state) {
    (void)state;
    char heard[4096];
    start(64, 5000, 0);
    int fd = dial();
    lb_peer_say(
        fd,
        "POST /echo HTTP/1.0\r\nConnection: Keep-Alive\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab"
        "GET /quick HTTP/1.0\r\n\r\n");
    assert_true(lb_peer_hear(fd, heard, sizeof heard));
    assert_int_equal(lb_peer_count(heard, "HTTP/1.1 200 OK"), 2);
    assert_int_equal(lb_peer_count(heard, "HTTP/1.1 "), 2);
    assert_int_equal(lb_peer_count(heard, "Connection: keep-alive"), 1);
    assert_int_equal(lb_peer_count(heard, "Connection: close"), 1);
    close(fd);
    stop();
}

/* What one client's bodies may hold together is bounded; told once when to come back, on a connection that
 * lives. */
static void test_full(void **state) {
    (void)state;
    char heard[8192];
    static char body[15 << 20];
    start(64, 5000, 0);
    int first = dial(), second = dial();
    memset(body, 'a', sizeof body - 1);
    lb_peer_say(first, POST "Content-Length: 15728640\r\n\r\n");
    lb_peer_say(first, body); /* but for the last byte */
    uint64_t until = lb_now_ns() + 10 * LB_SECOND_NS;
    while (lb_budget_used(budget) < sizeof body - 1) {
        assert_true(lb_now_ns() < until);
        lb_sleep_ns(LB_MS_NS);
    }
    lb_peer_say(second, POST "Content-Length: 15728639\r\n\r\n");
    lb_peer_say(second, body);
    lb_peer_hear_one(second, heard, sizeof heard, "in flight; try again\"}");
    assert_memory_equal(heard, "HTTP/1.1 503 ", 13);
    assert_int_equal(lb_peer_count(heard, "Retry-After: 1\r\n"), 1);
    lb_peer_say(second, QUICK);
    lb_peer_hear_one(second, heard, sizeof heard, "quick");
    close(first);
    close(second);
    stop();
}

/* ---- slow ones, lost ones, many ---- */

static void test_slow(void **state) {
    (void)state;
    char heard[4096];
    uint64_t begun = lb_now_ns();
    start(64, 200, 1000000);
    int head = dial(), body = dial(), idle = dial(), reader = dial(), small = 4096;
    setsockopt(reader, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    lb_peer_say(head, "GET /quick HTT");
    lb_peer_say(body, POST "Content-Length: 1000000\r\n\r\nslow");
    lb_peer_say(reader, "GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_true(lb_peer_hear(head, heard, sizeof heard));
    assert_memory_equal(heard, "HTTP/1.1 408 ", 13);
    assert_true(lb_peer_hear(body, heard, sizeof heard));
    assert_memory_equal(heard, "HTTP/1.1 408 ", 13);
    await(&n_ended, 3); /* the one who doesn't read is cut off */
    assert_int_equal(n_complete, 2);
    assert_true(lb_peer_hear(idle, heard, sizeof heard));
    assert_string_equal(heard, "");
    assert_true(lb_now_ns() - begun < 9 * LB_SECOND_NS);
    close(head);
    close(body);
    close(idle);
    close(reader);
    stop();
}

static void test_lost_client(void **state) {
    (void)state;
    char heard[4096];
    start(64, 5000, 0);
    int fd = dial();
    lb_peer_say(fd, "GET /defer HTTP/1.1\r\nHost: h\r\n\r\n");
    struct lb_exchange *x = await_kept();
    assert_false(atomic_load(&x->gone));
    close(fd);
    await(&n_lost, 1);
    assert_true(atomic_load(&x->gone));
    assert_int_equal(n_ended, 0);
    lb_exchange_resume(x);
    await(&n_ended, 1);
    /* Half-closed: told as well, and all that came is still answered. */
    kept = NULL;
    fd = dial();
    int other = dial();
    lb_peer_say(fd, "GET /defer HTTP/1.1\r\nHost: h\r\n\r\n" QUICK);
    x = await_kept();
    shutdown(fd, SHUT_WR);
    await(&n_lost, 2);
    lb_peer_say(other, QUICK);
    lb_peer_hear_one(other, heard, sizeof heard, "quick");
    lb_exchange_resume(x);
    assert_true(lb_peer_hear(fd, heard, sizeof heard));
    const char *first = strstr(heard, "resumed");
    assert_true(first && strstr(first, "quick"));
    assert_int_equal(n_lost, 2);
    close(fd);
    close(other);
    stop();
}

/* With both codec threads held up, who asks for something quick is answered. */
static void test_quick_is_quick(void **state) {
    (void)state;
    char heard[4096];
    start(64, 5000, 0);
    pthread_mutex_lock(&gate);
    int busy[3];
    for (int i = 0; i < 3; i++) {
        busy[i] = dial();
        lb_peer_say(busy[i], "GET /gate HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    await_kept();
    int fd = dial();
    for (int i = 0; i < 100; i++) {
        lb_peer_say(fd, QUICK);
        lb_peer_hear_one(fd, heard, sizeof heard, "quick");
    }
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < 3; i++) {
        lb_peer_hear_one(busy[i], heard, sizeof heard, "late");
        close(busy[i]);
    }
    close(fd);
    stop();
}

static void await_connections(unsigned least, unsigned most) {
    uint64_t until = lb_now_ns() + 10 * LB_SECOND_NS;
    for (unsigned n; (n = lb_http_connections(http)) < least || n > most;) {
        assert_true(lb_now_ns() < until);
        lb_sleep_ns(LB_MS_NS);
    }
}

static void test_many_connections(void **state) {
    (void)state;
    char heard[4096];
    start(3, 5000, 0);
    int fds[3];
    for (int i = 0; i < 3; i++) {
        fds[i] = dial();
        lb_peer_say(fds[i], QUICK);
        lb_peer_hear_one(fds[i], heard, sizeof heard, "quick");
    }
    int fd = dial();
    assert_true(lb_peer_hear(fd, heard, sizeof heard));
    assert_memory_equal(heard, "HTTP/1.1 503 ", 13);
    assert_non_null(strstr(heard, "}"));
    close(fd);
    close(fds[0]);
    await_connections(0, 2);
    fd = dial();
    lb_peer_say(fd, QUICK);
    lb_peer_hear_one(fd, heard, sizeof heard, "quick");
    close(fd);
    close(fds[1]);
    close(fds[2]);
    stop();
    /* And of all together. */
    int all[MAX_CONNECTIONS];
    start(2 * MAX_CONNECTIONS, 5000, 0);
    for (int i = 0; i < MAX_CONNECTIONS; i++) {
        all[i] = dial();
    }
    lb_peer_say(all[MAX_CONNECTIONS - 1], QUICK);
    lb_peer_hear_one(all[MAX_CONNECTIONS - 1], heard, sizeof heard, "quick");
    await_connections(MAX_CONNECTIONS, MAX_CONNECTIONS); /* the other thread may be slow to count its own */
    fd = dial();
    assert_true(lb_peer_hear(fd, heard, sizeof heard));
    assert_memory_equal(heard, "HTTP/1.1 503 ", 13);
    close(fd);
    for (int i = 0; i < MAX_CONNECTIONS; i++) {
        close(all[i]);
    }
    stop();
}

/* Whoever is turned away hears why, also when he has sent more than anybody wants to read; and whoever stays
 * then holds nothing up, and is closed. */
static void test_turned_away(void **state) {
    (void)state;
    static char piece[MIB + 1], heard[4096];
    int staying[MAX_CONNECTIONS];
    start(1, 5000, 0);
    memset(piece, 'a', MIB);
    int first = dial();
    lb_peer_say(first, QUICK);
    lb_peer_hear_one(first, heard, sizeof heard, "quick");
    for (int i = 0; i < 20; i++) {
        int fd = dial();
        lb_peer_say(fd, POST "Content-Length: 1048576\r\n\r\n");
        lb_peer_say(fd, piece);
        size_t len = 0;
        ssize_t n;
        while ((n = recv(fd, heard + len, sizeof heard - 1 - len, 0)) > 0) {
            len += (size_t)n;
        }
        assert_int_equal(n, 0); /* an end, and no reset */
        assert_memory_equal(heard, "HTTP/1.1 503 ", 13);
        close(fd);
    }
    for (int i = 0; i < MAX_CONNECTIONS; i++) {
        staying[i] = dial();
        assert_true(lb_peer_hear(staying[i], heard, sizeof heard));
    }
    assert_int_equal(lb_http_connections(http), 1);
    lb_peer_say(first, QUICK);
    lb_peer_hear_one(first, heard, sizeof heard, "quick");
    uint64_t until = lb_now_ns() + 10 * LB_SECOND_NS;
    for (int i = 0; i < MAX_CONNECTIONS; i++) {
        while (send(staying[i], "a", 1, MSG_NOSIGNAL) == 1) {
            assert_true(lb_now_ns() < until);
            lb_sleep_ns(LB_MS_NS);
        }
        close(staying[i]);
    }
    close(first);
    stop();
}

/* A body that is made while it is read: not ahead of the reader, and whole. */
static void test_stream(void **state) {
    (void)state;
    static char heard[STREAM_BYTES + 4096];
    start(64, 5000, 0);
    int fd = dial(), small = 65536;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    lb_peer_say(fd, "GET /stream HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    await(&n_pieces, 1);
    lb_sleep_ns(50 * LB_MS_NS);
    assert_true(n_pieces < 24); /* what the sockets don't hold isn't made */
    shutdown(fd, SHUT_WR);      /* who has said all may still read all */
    size_t len = 0;
    ssize_t n;
    while ((n = recv(fd, heard + len, sizeof heard - len, 0)) > 0) {
        len += (size_t)n;
    }
    const char *body = strstr(heard, "\r\n\r\n");
    assert_non_null(body);
    assert_int_equal(len - (size_t)(body + 4 - heard), STREAM_BYTES);
    assert_int_equal(n_pieces, 24);
    close(fd);
    stop();
}

/* While it drains, answers go on being sent, and each closes its connection. */
static void test_drain(void **state) {
    (void)state;
    static char heard[17 << 20];
    start(64, 5000, 0);
    int fd = dial(), other = dial();
    lb_peer_say(fd, "GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_true(recv(fd, heard, 100, MSG_WAITALL) == 100);
    lb_http_drain(http);
    assert_false(lb_http_wait_idle(http, lb_now_ns() + 20 * LB_MS_NS));
    lb_peer_say(other, QUICK);
    assert_true(lb_peer_hear(other, heard, 4096));
    assert_non_null(strstr(heard, "Connection: close"));
    assert_true(lb_peer_hear(fd, heard, sizeof heard));
    assert_true(lb_http_wait_idle(http, lb_now_ns() + 10 * LB_SECOND_NS));
    assert_int_equal(n_complete, 2);
    close(fd);
    close(other);
    stop();
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strict),         cmocka_unit_test(test_keeps_alive),
        cmocka_unit_test(test_refused_bodies), cmocka_unit_test(test_old_version),
        cmocka_unit_test(test_full),           cmocka_unit_test(test_slow),
        cmocka_unit_test(test_lost_client),    cmocka_unit_test(test_quick_is_quick),
        cmocka_unit_test(test_stream),         cmocka_unit_test(test_many_connections),
        cmocka_unit_test(test_turned_away),    cmocka_unit_test(test_drain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
