/* What is kept of sequences, and for how long: the least recent goes first, what is waited for stays, nobody
 * gets what is another model's or of other ids. The test plays the worker. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/nn/gemm.h"
#include "server/engine/known.h"
#include "tests/support/tiny_hosted.h"
#include "tests/unit/server_question.h"

#include <stdlib.h>
#include <string.h>

#define V 97
#define T 20
#define COLS 4
#define ALL_BITS UINT64_MAX
#define ROOM ((size_t)8 << 20)

static char folder[] = "/tmp/limbeck-known-XXXXXX";
static struct lb_hosted *llama, *other_llama;
static int32_t texts[8][T]; /* unlike ones */
static const struct lb_part final = {LB_FROM_FINAL, 0, COLS};

/* A job that waits for one text. */
static struct lb_job *wait_for(struct lb_known *k, struct lb_hosted *hosted, int text, const char *output) {
    struct lb_question ask = lb_question_new();
    lb_question_input(&ask, "input_ids", LB_DT_INT32, 1, T, texts[text]);
    lb_question_output(&ask, output, LB_DT_NONE);
    struct lb_job *job = lb_question_plan(hosted, &ask);
    job->queued_ns = lb_now_ns();
    lb_known_join(k, job);
    assert_non_null(job->seen);
    return job;
}

static void leave(struct lb_known *k, struct lb_job *job) {
    lb_known_leave(k, job, 0, job->n_seqs);
    lb_job_destroy(job);
}

static size_t keep(struct lb_known *k, const struct lb_job *job, float value) {
    float data[T * COLS];
    for (int i = 0; i < T * COLS; i++) {
        data[i] = value;
    }
    return lb_known_keep(k, job->seen[0], &final, T, data);
}

/* A text comes, is computed and answered. */
static size_t pass(struct lb_known *k, int text) {
    struct lb_job *job = wait_for(k, llama, text, "logsumexp");
    size_t dropped = keep(k, job, (float)text);
    leave(k, job);
    return dropped;
}

static bool is_known(struct lb_known *k, struct lb_hosted *hosted, int text) {
    struct lb_job *job = wait_for(k, hosted, text, "logsumexp");
    int64_t rows = 0, cols = 0;
    bool before, known = lb_known_has(k, job, 0, &before);
    const float *data = lb_known_find(k, job->seen[0], LB_FROM_FINAL, 0, &rows, &cols);
    assert_true(known == (data != NULL));
    if (known) {
        assert_true(before && rows == T && cols == COLS && data[0] == (float)text &&
                    data[T * COLS - 1] == (float)text);
    }
    leave(k, job);
    return known;
}

static size_t bytes_of_one(void) {
    struct lb_known *k = lb_known_create(ROOM, ALL_BITS);
    pass(k, 0);
    size_t bytes = lb_known_state(k).bytes;
    lb_known_destroy(k);
    assert_true(bytes > T * COLS * sizeof(float) && bytes < T * COLS * sizeof(float) + 1024);
    return bytes;
}

static void test_least_recent_go_first(void **state) {
    (void)state;
    size_t one = bytes_of_one();
    struct lb_known *k = lb_known_create(3 * one + one / 2, ALL_BITS);
    assert_false(is_known(k, llama, 0));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pass(k, i), 0);
    }
    assert_int_equal(lb_known_state(k).bytes, 3 * one);
    assert_int_equal(lb_known_state(k).sequences, 3);
    assert_true(is_known(k, llama, 0)); /* used again: 1 is the oldest now */
    assert_int_equal(pass(k, 3), 1);
    assert_int_equal(lb_known_state(k).bytes, 3 * one);
    assert_false(is_known(k, llama, 1));
    assert_true(is_known(k, llama, 2) && is_known(k, llama, 0) && is_known(k, llama, 3));
    lb_known_empty(k);
    assert_int_equal(lb_known_state(k).bytes, 0);
    assert_int_equal(lb_known_state(k).sequences, 0);
    lb_known_destroy(k);
}

/* What is waited for stays; what comes when all the room is taken by that is not kept. */
static void test_waited_for(void **state) {
    (void)state;
    size_t one = bytes_of_one();
    struct lb_known *k = lb_known_create(2 * one, ALL_BITS);
    struct lb_job *first = wait_for(k, llama, 0, "logsumexp"), *second = wait_for(k, llama, 1, "logsumexp"),
                  *same = wait_for(k, llama, 0, "logits.topk_ids");
    assert_int_equal(lb_known_state(k).waited, 2);
    assert_ptr_equal(first->seen[0], same->seen[0]);
    keep(k, first, 0);
    keep(k, second, 1);
    leave(k, first); /* the third still waits */
    assert_int_equal(pass(k, 2), 0);
    assert_false(is_known(k, llama, 2));
    bool before = true;
    assert_true(lb_known_has(k, same, 0, &before) && !before); /* it came while it waited */
    leave(k, same);
    assert_int_equal(pass(k, 2), 1);
    assert_true(is_known(k, llama, 2) && !is_known(k, llama, 0) && is_known(k, llama, 1));
    leave(k, second);
    assert_int_equal(lb_known_state(k).waited, 0);
    lb_known_destroy(k);
    k = lb_known_create(one - 1, ALL_BITS); /* larger than all the room */
    assert_int_equal(pass(k, 0), 0);
    assert_false(is_known(k, llama, 0));
    lb_known_destroy(k);
    k = lb_known_create(0, ALL_BITS);
    assert_int_equal(pass(k, 0), 0);
    assert_int_equal(lb_known_state(k).bytes, 0);
    lb_known_destroy(k);
}

/* Never those of another model that has the same ids, not even of the same file, opened again; and a model
 * that goes takes its own along. Nor, though all fall together, of other ids. */
static void test_nobody_elses(void **state) {
    (void)state;
    struct lb_known *k = lb_known_create(ROOM, 0);
    struct lb_job *job = wait_for(k, other_llama, 0, "logsumexp");
    keep(k, job, 0);
    leave(k, job);
    assert_true(is_known(k, other_llama, 0));
    assert_false(is_known(k, llama, 0));
    for (int i = 0; i < 8; i++) {
        assert_false(is_known(k, llama, i));
        pass(k, i);
    }
    for (int i = 0; i < 8; i++) {
        assert_true(is_known(k, llama, i));
    }
    int32_t longer[T + 1] = {0};
    memcpy(longer, texts[0], sizeof texts[0]);
    struct lb_question ask = lb_question_new();
    lb_question_input(&ask, "input_ids", LB_DT_INT32, 1, T + 1, longer);
    job = lb_question_plan(llama, &ask);
    lb_known_join(k, job);
    assert_false(lb_known_has(k, job, 0, NULL));
    leave(k, job);
    lb_known_forget(k, llama->instance);
    assert_false(is_known(k, llama, 0));
    assert_true(is_known(k, other_llama, 0));
    assert_int_equal(lb_known_state(k).sequences, 1);
    lb_known_destroy(k);
}

/* Many sequences, so that the table grows. */
static void test_many(void **state) {
    (void)state;
    enum { MANY = 4000 };
    struct lb_known *k = lb_known_create((size_t)64 << 20, ALL_BITS);
    int32_t *ids = malloc(MANY * 2 * sizeof *ids);
    float state_of[2 * COLS] = {0};
    for (int i = 0; i < MANY; i++) {
        ids[2 * i] = i / V;
        ids[2 * i + 1] = i % V;
    }
    for (int turn = 0; turn < 2; turn++) {
        struct lb_question ask = lb_question_new();
        lb_question_input(&ask, "input_ids", LB_DT_INT32, MANY, 2, ids);
        lb_question_output(&ask, "logsumexp", LB_DT_NONE);
        struct lb_job *job = lb_question_plan(llama, &ask);
        lb_known_join(k, job);
        for (int i = 0; i < MANY; i++) {
            int64_t rows, cols;
            const float *data = lb_known_find(k, job->seen[i], LB_FROM_FINAL, 0, &rows, &cols);
            assert_true(turn == 0 ? data == NULL : data[0] == (float)i);
            state_of[0] = (float)i;
            lb_known_keep(k, job->seen[i], &final, 2, state_of);
        }
        leave(k, job);
    }
    assert_int_equal(lb_known_state(k).sequences, MANY);
    free(ids);
    lb_known_destroy(k);
}

/* Without memory nothing is shared, and nothing else happens. */
static void test_no_memory(void **state) {
    (void)state;
    struct lb_known *k = lb_known_create(ROOM, ALL_BITS);
    struct lb_question ask = lb_question_new();
    lb_question_input(&ask, "input_ids", LB_DT_INT32, 1, T, texts[0]);
    lb_question_output(&ask, "hidden_states.1", LB_DT_NONE);
    struct lb_job *job = lb_question_plan(llama, &ask);
    lb_mem_fail_from(1);
    lb_known_join(k, job);
    lb_mem_fail_from(0);
    assert_true(!job->seen || !job->seen[0]);
    assert_false(lb_known_has(k, job, 0, NULL));
    leave(k, job);
    job = wait_for(k, llama, 0, "logsumexp");
    lb_mem_fail_from(1);
    keep(k, job, 1);
    lb_mem_fail_from(0);
    assert_false(lb_known_has(k, job, 0, NULL));
    assert_int_equal(lb_known_state(k).bytes, 0);
    leave(k, job);
    lb_known_destroy(k);
}

int main(int argc, char **argv) {
    (void)argc;
    struct lb_config config;
    lb_gemm_setup(0, argv);
    if (!mkdtemp(folder)) {
        return 1;
    }
    lb_tiny_llama(&config);
    llama = lb_tiny_hosted(folder, "llama", &config);
    other_llama = lb_tiny_hosted(folder, "llama2", &config);
    for (int i = 0; i < 8 * T; i++) {
        texts[i / T][i % T] = (i * 31 + i * i * 7 + i / T) % V;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_least_recent_go_first),
                                       cmocka_unit_test(test_waited_for), cmocka_unit_test(test_nobody_elses),
                                       cmocka_unit_test(test_many), cmocka_unit_test(test_no_memory)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lb_hosted_release(llama);
    lb_hosted_release(other_llama);
    return lb_remove_tree(folder, NULL) == LB_OK ? failed : 1;
}
