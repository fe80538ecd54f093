/* Who may put how much into the queue: by tokens and by requests, of all and of each client, and that nobody
 * who comes late finds it taken by those who ask for all. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "server/engine/batcher.h"
#include "server/models/repository.h"

#include <string.h>

#define MOST 64

struct fake {
    struct lb_job job;
    int32_t offsets[2];
};

static struct lb_hosted model;
static struct lb_batcher *b;
static struct fake fakes[MOST];
static int n_fakes, n_done;
static struct lb_detail detail;

static void count_done(struct lb_job *job) {
    (void)job;
    n_done++;
}

static void begin(int64_t tokens, size_t jobs) {
    b = lb_batcher_create(
        &(struct lb_batcher_args){.max_batch_tokens = 1, .max_queue_tokens = tokens, .max_queue_jobs = jobs});
    assert_non_null(b);
    n_fakes = n_done = 0;
}

/* One sequence of a client; whether it is taken. */
static bool put(const char *client, int length) {
    struct fake *f = &fakes[n_fakes];
    assert_true(n_fakes < MOST);
    memset(f, 0, sizeof *f);
    memset(&detail, 0, sizeof detail);
    f->offsets[1] = length;
    f->job = (struct lb_job){.model = &model,
                             .n_seqs = 1,
                             .n_tokens = length,
                             .offsets = f->offsets,
                             .client = client,
                             .done = count_done};
    enum lb_status status = lb_batcher_submit(b, &f->job, &detail);
    assert_true(status == LB_OK || status == LB_E_UNAVAILABLE);
    n_fakes += status == LB_OK;
    return status == LB_OK;
}

/* Serves one job; whose it was. */
static const char *serve(void) {
    struct lb_batch batch;
    assert_int_equal(lb_batcher_next(b, &batch), LB_OK);
    assert_int_equal(batch.n_seqs, 1);
    const char *client = batch.slices[0].job->client;
    lb_batcher_finish(b, &batch, LB_OK, NULL, 1);
    return client;
}

static void end(void) {
    lb_batcher_abort(b);
    assert_int_equal(n_done, n_fakes);
    assert_int_equal(lb_batcher_state(b).waiting_tokens, 0);
    lb_batcher_destroy(b);
}

static const char *const greedy = "greedy", *const other = "other", *const third = "third";

/* One alone may have all; then each a part, and what is above it goes before more comes in. */
static void test_tokens_are_shared(void **state) {
    (void)state;
    begin(100, 0);
    for (int i = 0; i < 10; i++) {
        assert_true(put(greedy, 10));
    }
    assert_false(put(greedy, 1));
    assert_non_null(strstr(detail.text, "the queue is full (100 tokens waiting)"));
    assert_true(put(other, 30));  /* though it is full: his first */
    assert_false(put(other, 10)); /* within his part, but all is taken */
    assert_false(put(greedy, 10));
    end();
    begin(100, 0);
    for (int i = 0; i < 4; i++) {
        assert_true(put(greedy, 10));
    }
    assert_true(put(other, 10)); /* now each has a part of 50 */
    assert_true(put(greedy, 10));
    assert_false(put(greedy, 10));
    assert_non_null(strstr(detail.text, "this client's part of the queue is full"));
    assert_true(put(other, 40));
    assert_false(put(other, 1));
    assert_true(put(third, 40));
    end();
}

static void test_first_jobs(void **state) {
    (void)state;
    begin(100, 0);
    assert_true(put(greedy, 500)); /* there are no others: whatever its size */
    assert_false(put(greedy, 1));
    assert_false(put(other, 1)); /* more than twice the maximum waits */
    serve();
    assert_true(put(greedy, 60));
    assert_true(put(other, 130));
    assert_false(put(third, 11));
    assert_true(put(third, 10));
    end();
}

static void test_requests_are_shared(void **state) {
    (void)state;
    begin(1000, 8);
    for (int i = 0; i < 6; i++) {
        assert_true(put(greedy, 1));
    }
    assert_true(put(other, 1));
    assert_false(put(greedy, 1)); /* each has four */
    assert_non_null(strstr(detail.text, "this client's part of the queue is full"));
    assert_true(put(other, 1));
    assert_false(put(third, 1));
    assert_non_null(strstr(detail.text, "the queue is full (8 requests)"));
    serve();
    assert_true(put(third, 1));
    end();
}

/* What is computed, cancelled or late waits no more. */
static void test_room_comes_back(void **state) {
    (void)state;
    begin(40, 0);
    assert_true(put(greedy, 20) && put(greedy, 20));
    assert_false(put(greedy, 1));
    lb_batcher_cancel(b, &fakes[1].job);
    assert_true(put(greedy, 20));
    struct lb_batch batch;
    assert_int_equal(lb_batcher_next(b, &batch), LB_OK);
    assert_true(put(greedy, 20)); /* the first is being computed */
    assert_false(put(greedy, 1));
    lb_batcher_finish(b, &batch, LB_OK, NULL, 1);
    end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens_are_shared), cmocka_unit_test(test_first_jobs),
        cmocka_unit_test(test_requests_are_shared), cmocka_unit_test(test_room_comes_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
