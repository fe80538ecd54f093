/* Answers whose length nobody knows: in chunks or until the close, made while somebody else works for them.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/server_http.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static atomic_int n_shared;
static _Atomic(struct lb_exchange *) shared;
static atomic_bool refuses; /* the next one is answered with an error while it is shared */

/* What was fed and not taken. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char fed[4 * MIB];
static size_t n_fed;

/* ---- the app ---- */

static void begin(void *context, struct lb_exchange *x) {
    (void)context;
    x->quick = strcmp(x->path, "/quick") == 0;
}

/* All that was fed since. */
static bool next_fed(struct lb_exchange *x) {
    if (atomic_load(&x->gone)) {
        return false;
    }
    lb_buf_reset(&x->body);
    pthread_mutex_lock(&lock);
    lb_buf_append(&x->body, fed, n_fed);
    n_fed = 0;
    pthread_mutex_unlock(&lock);
    reply(x, 200, x->body.data, x->body.len);
    return lb_buf_status(&x->body) == LB_OK;
}

static void handle(void *context, struct lb_exchange *x) {
    (void)context;
    if (strcmp(x->path, "/fed") == 0) {
        atomic_store(&shared, x);
        lb_exchange_share(x);
        atomic_fetch_add(&n_shared, 1);
        return;
    }
    reply(x, 200, "quick", 5);
    if (strcmp(x->path, "/endless") == 0) {
        x->reply.n_parts = 0;
        x->reply.next = next_piece;
        x->reply.total_bytes = LB_REPLY_OPEN;
    }
}

static void resumed(void *context, struct lb_exchange *x) {
    (void)context;
    reply(x, 200, "", 0);
    if (atomic_load(&refuses)) {
        reply(x, 500, "no", 2);
        return;
    }
    x->reply.n_parts = 0;
    x->reply.next = next_fed;
    x->reply.total_bytes = LB_REPLY_OPEN;
}

static void refuse(void *context, struct lb_exchange *x, int status, const char *text) {
    (void)context;
    reply(x, status, text, strlen(text));
}

static void sending(void *context, struct lb_exchange *x) {
    (void)context;
    (void)x;
}

static void start(unsigned grace_ms, unsigned rate) {
    n_shared = 0;
    n_fed = 0;
    refuses = false;
    start_http((struct lb_http_args){.max_connections = 64,
                                     .max_connections_per_client = 64,
                                     .idle_seconds = 10,
                                     .grace_ms = grace_ms,
                                     .least_rate = rate,
                                     .app = {NULL, begin, handle, resumed, lost, refuse, sending, ended}});
}

/* More of it, told to the exchange. */
static void feed(const char *bytes, size_t len) {
    pthread_mutex_lock(&lock);
    assert_true(n_fed + len <= sizeof fed);
    memcpy(fed + n_fed, bytes, len);
    n_fed += len;
    pthread_mutex_unlock(&lock);
    lb_exchange_wake(atomic_load(&shared));
}

/* Asks for what is fed, and waits until it can be. */
static int ask(const char *request) {
    int fd = lb_peer_dial(port), before = atomic_load(&n_shared);
    lb_peer_say(fd, request);
    await(&n_shared, before + 1);
    return fd;
}

#define FED "GET /fed HTTP/1.1\r\nHost: h\r\n\r\n"

/* ---- in order ---- */

/* Each piece comes at once, as a chunk of its own; what is fed meanwhile comes together; the connection
 * lives.
 */
static void test_chunks(void **state) {
    (void)state;
    char heard[4096];
    start(5000, 0);
    int fd = ask(FED);
    feed("one", 3);
    lb_peer_hear_one(fd, heard, sizeof heard, "one\r\n");
    assert_memory_equal(heard, "HTTP/1.1 200 OK\r\n", 17);
    assert_non_null(strstr(heard, "\r\nTransfer-Encoding: chunked\r\n"));
    assert_null(strstr(heard, "Content-Length"));
    assert_null(strstr(heard, "Connection: close"));
    assert_non_null(strstr(heard, "\r\n\r\n3\r\none\r\n"));
    lb_exchange_wake(atomic_load(&shared)); /* nothing new: nothing is sent */
    feed("seventeen letters", 17);
    lb_peer_hear_one(fd, heard, sizeof heard, "letters\r\n");
    assert_string_equal(heard, "11\r\nseventeen letters\r\n");
    pthread_mutex_lock(&lock);
    memcpy(fed, "end", n_fed = 3);
    pthread_mutex_unlock(&lock);
    lb_exchange_leave(atomic_load(&shared));
    lb_peer_hear_one(fd, heard, sizeof heard, "0\r\n\r\n");
    assert_string_equal(heard, "3\r\nend\r\n0\r\n\r\n");
    lb_peer_say(fd, QUICK);
    lb_peer_hear_one(fd, heard, sizeof heard, "quick");
    await(&n_ended, 2);
    assert_int_equal(n_complete, 2);
    close(fd);
    stop();
}

/* One who can't read chunks reads until the close; the log's bytes are the body's. */
static void test_old_version(void **state) {
    (void)state;
    char heard[4096];
    start(5000, 0);
    int fd = ask("GET /fed HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    feed("one", 3);
    lb_peer_hear_one(fd, heard, sizeof heard, "\r\n\r\none");
    assert_null(strstr(heard, "Transfer-Encoding"));
    assert_null(strstr(heard, "Content-Length"));
    assert_non_null(strstr(heard, "\r\nConnection: close\r\n"));
    feed("two", 3);
    lb_exchange_leave(atomic_load(&shared));
    assert_true(lb_peer_hear(fd, heard, sizeof heard));
    assert_string_equal(heard, "two");
    await(&n_ended, 1);
    assert_int_equal(n_complete, 1);
    assert_int_equal(sent_bytes, 6);
    close(fd);
    stop();
}

/* The head alone ends the answer; what it was made of is told that nobody wants it, and ends the exchange. */
static void test_answered_early(void **state) {
    (void)state;
    char heard[4096];
    start(5000, 0);
    for (int round = 0; round < 2; round++) {
        atomic_store(&refuses, round == 1);
        int fd = ask(round == 0 ? "HEAD /fed HTTP/1.1\r\nHost: h\r\n\r\n" : FED);
        feed("one", 3);
        assert_true(lb_peer_hear(fd, heard, sizeof heard));
        assert_int_equal(strstr(heard, "\r\n\r\n")[4], round == 0 ? '\0' : 'n');
        await(&n_lost, round + 1);
        assert_true(atomic_load(&atomic_load(&shared)->gone));
        assert_int_equal(n_ended, round);
        lb_exchange_leave(atomic_load(&shared));
        await(&n_ended, round + 1);
        close(fd);
        n_fed = 0;
    }
    stop();
}

/* ---- lost, slow, at the end ---- */

/* Who leaves is noticed while it sleeps and while it sends; the exchange ends when nobody works for it. */
static void test_lost(void **state) {
    (void)state;
    static char zeros[2 * MIB], heard[4096];
    start(5000, 0);
    int fd = ask(FED);
    feed("one", 3);
    lb_peer_hear_one(fd, heard, sizeof heard, "one\r\n");
    close(fd);
    await(&n_lost, 1);
    lb_exchange_wake(atomic_load(&shared));
    lb_exchange_wake(atomic_load(&shared));
    lb_sleep_ns(20 * LB_MS_NS); /* it may only have ended by mistake */
    assert_int_equal(n_ended, 0);
    lb_exchange_leave(atomic_load(&shared));
    await(&n_ended, 1);
    for (int asleep = 0; asleep < 2; asleep++) {
        int small = 4096, lost_before = atomic_load(&n_lost);
        fd = ask(FED);
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
        for (int i = 0; i < 8; i++) {
            pthread_mutex_lock(&lock); /* more than the sockets hold */
            n_fed = 0;
            pthread_mutex_unlock(&lock);
            feed(zeros, asleep ? 1 : sizeof zeros);
            lb_sleep_ns(5 * LB_MS_NS);
        }
        close(fd);
        await(&n_lost, lost_before + 1);
        lb_exchange_leave(atomic_load(&shared));
        await(&n_ended, 2 + asleep);
    }
    assert_int_equal(n_complete, 0);
    stop();
}

/* What the sockets don't hold is not made; who reads too slowly is cut off. */
static void test_slow(void **state) {
    (void)state;
    char heard[4096];
    start(200, 1000000);
    int fd = lb_peer_dial(port), small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    lb_peer_say(fd, "GET /endless HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_true(recv(fd, heard, 100, MSG_WAITALL) == 100);
    await(&n_ended, 1);
    assert_int_equal(n_complete, 0);
    assert_in_range(n_pieces, 1, 16);
    /* Who waits for what is made slowly is none of them. */
    int patient = ask(FED);
    for (int i = 0; i < 5; i++) {
        feed("a", 1);
        lb_peer_hear_one(patient, heard, sizeof heard, "a\r\n");
        lb_sleep_ns(150 * LB_MS_NS);
    }
    lb_exchange_leave(atomic_load(&shared));
    lb_peer_hear_one(patient, heard, sizeof heard, "0\r\n\r\n");
    close(fd);
    close(patient);
    stop();
}

/* A stream is waited for when the daemon drains, and closes its connection. */
static void test_drain(void **state) {
    (void)state;
    char heard[4096];
    start(5000, 0);
    int fd = ask(FED);
    feed("one", 3);
    lb_peer_hear_one(fd, heard, sizeof heard, "one\r\n");
    lb_http_drain(http);
    assert_false(lb_http_wait_idle(http, lb_now_ns() + 20 * LB_MS_NS));
    feed("two", 3);
    lb_exchange_leave(atomic_load(&shared));
    assert_true(lb_peer_hear(fd, heard, sizeof heard));
    assert_non_null(strstr(heard, "two\r\n0\r\n\r\n"));
    assert_true(lb_http_wait_idle(http, lb_now_ns() + 10 * LB_SECOND_NS));
    assert_int_equal(n_complete, 1);
    close(fd);
    stop();
}

/* ---- all at once ---- */

static void *feed_much(void *argument) {
    char text[8];
    for (int i = 0; i < 20000; i++) {
        int n = snprintf(text, sizeof text, "%05d", i);
        bool full = true;
        while (full) {
            pthread_mutex_lock(&lock);
            full = n_fed + (size_t)n > sizeof fed;
            if (!full) {
                memcpy(fed + n_fed, text, (size_t)n);
                n_fed += (size_t)n;
            }
            pthread_mutex_unlock(&lock);
        }
        lb_exchange_wake(argument);
    }
    lb_exchange_leave(argument);
    return NULL;
}

/* Nothing is lost between the one who feeds and those who send, and nothing is there twice. */
static void test_race(void **state) {
    (void)state;
    static char heard[4 * MIB];
    pthread_t feeder;
    start(5000, 0);
    int fd = ask("GET /fed HTTP/1.0\r\n\r\n");
    assert_int_equal(pthread_create(&feeder, NULL, feed_much, atomic_load(&shared)), 0);
    assert_true(lb_peer_hear(fd, heard, sizeof heard));
    pthread_join(feeder, NULL);
    const char *body = strstr(heard, "\r\n\r\n");
    assert_non_null(body);
    assert_int_equal(strlen(body + 4), 5 * 20000);
    for (int i = 0; i < 20000; i++) {
        char text[8];
        snprintf(text, sizeof text, "%05d", i);
        assert_memory_equal(body + 4 + (ptrdiff_t)5 * i, text, 5);
    }
    close(fd);
    stop();
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks),         cmocka_unit_test(test_old_version),
        cmocka_unit_test(test_answered_early), cmocka_unit_test(test_lost),
        cmocka_unit_test(test_slow),           cmocka_unit_test(test_drain),
        cmocka_unit_test(test_race),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
