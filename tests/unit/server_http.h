/* HTTP by itself: what the apps of its tests have in common, and how it is started and stopped. Included by
 * test programs, behind cmocka.h. */
#ifndef LB_TESTS_UNIT_SERVER_HTTP_H
#define LB_TESTS_UNIT_SERVER_HTTP_H

#include "common/base/clock.h"
#include "server/http/http.h"
#include "server/http/listen.h"
#include "tests/support/peer.h"

#include <stdatomic.h>
#include <string.h>

#define MIB ((size_t)1 << 20)
#define QUICK "GET /quick HTTP/1.1\r\nHost: h\r\n\r\n"

static struct lb_http *http;
static struct lb_budget *budget;
static int port;
static atomic_int n_lost, n_ended, n_complete, n_pieces;
static size_t sent_bytes; /* of the last that ended */

/* ---- the app ---- */

static inline void reply(struct lb_exchange *x, int status, const void *bytes, size_t len) {
    struct lb_span *part = lb_arena_array(&x->arena, 1, sizeof *part);
    assert_non_null(part);
    *part = (struct lb_span){bytes, len};
    x->reply.n_headers = 0;
    x->reply.status = status;
    x->reply.parts = part;
    x->reply.n_parts = 1;
}

static inline bool next_piece(struct lb_exchange *x) {
    static char zeros[MIB];
    atomic_fetch_add(&n_pieces, 1);
    reply(x, 200, zeros, sizeof zeros);
    return true;
}

static inline void lost(void *context, struct lb_exchange *x) {
    (void)context;
    (void)x;
    atomic_fetch_add(&n_lost, 1);
}

static inline void ended(void *context, struct lb_exchange *x, bool complete) {
    (void)context;
    sent_bytes = x->sent_bytes;
    atomic_fetch_add(&n_complete, complete);
    atomic_fetch_add(&n_ended, 1);
}

/* ---- its life ---- */

/* What args don't say: where it listens, its threads and its memory. */
static inline void start_http(struct lb_http_args args) {
    struct lb_listener listener;
    assert_int_equal(lb_listen("127.0.0.1:0", &listener, NULL), LB_OK);
    port = listener.port;
    n_lost = n_ended = n_complete = n_pieces = 0;
    budget = lb_budget_create(64 * MIB);
    args.listen_fd = listener.fd;
    args.threads = args.codec_threads = 2;
    args.max_body_bytes = 16 * MIB;
    args.budget = budget;
    assert_int_equal(lb_http_start(&args, &http, NULL), LB_OK);
}

static inline void stop(void) {
    lb_http_stop(http);
    assert_int_equal(lb_budget_used(budget), 0);
    lb_budget_destroy(budget);
}

static inline void await(atomic_int *counter, int least) {
    uint64_t until = lb_now_ns() + 10 * LB_SECOND_NS;
    while (atomic_load(counter) < least) {
        assert_true(lb_now_ns() < until);
        lb_sleep_ns(LB_MS_NS);
    }
}

#endif
