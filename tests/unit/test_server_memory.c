/* What a job needs of memory: told before it waits, and when there is too little for a batch. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/nn/gemm.h"
#include "server/engine/admit.h"
#include "server/engine/engine.h"
#include "server/models/repository.h"
#include "tests/support/tiny_model.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define T 100

static char folder[] = "/tmp/limbeck-memory-XXXXXX";
static struct lb_hosted *llama;
static struct lb_engine *engine;
static struct lb_detail detail;
static int32_t ids[6 * T];

static atomic_int n_done;

static void one_done(struct lb_job *job) {
    (void)job;
    atomic_fetch_add(&n_done, 1);
}

/* A job of rows sequences that asks for some outputs. */
static struct lb_job *plan(int64_t rows, const char *const *names, size_t n) {
    const struct lb_plan_limits limits = {LB_MAX_RESPONSE_BYTES, LB_MAX_REQUEST_TOKENS, LB_MAX_JSON_VALUES};
    struct lb_wire_tensor input = {.name = "input_ids",
                                   .datatype = LB_DT_INT32,
                                   .n_dims = 2,
                                   .dim = {rows, T},
                                   .data = ids,
                                   .bytes = (size_t)rows * T * 4};
    struct lb_wire_output outputs[4];
    for (size_t i = 0; i < n; i++) {
        outputs[i] = (struct lb_wire_output){.name = names[i], .binary = true};
    }
    const struct lb_infer_request request = {
        .top_k = 5, .temperature = 1, .n_inputs = 1, .inputs = &input, .n_outputs = n, .outputs = outputs};
    struct lb_job *job = lb_job_create((size_t)64 << 20);
    assert_non_null(job);
    job->model = lb_hosted_retain(llama);
    assert_int_equal(lb_plan(&request, &limits, job, &detail), LB_OK);
    return job;
}

static struct lb_job *queued(int64_t rows, const char *client) {
    struct lb_job *job = plan(rows, (const char *const[]){"logits"}, 1);
    assert_int_equal(lb_engine_admit(engine, job, &detail), LB_OK);
    job->done = one_done;
    job->client = client;
    return job;
}

/* An engine with a worker whose tape holds one of the sequences but not all of a batch: what runs out of
 * memory is tried job by job and sequence by sequence; only what is too large by itself fails. And all
 * numbers are those of an engine with room. */
static void test_little_memory(void **state) {
    (void)state;
    struct lb_batcher *b = lb_batcher_create(&(struct lb_batcher_args){4096, 200 * LB_MS_NS, 1 << 20, 0});
    struct lb_engine *small =
        lb_engine_create(b, NULL, NULL, llama->base_bytes + (T + 10) * llama->row_bytes);
    assert_non_null(small);
    struct lb_job *one = queued(1, "one"), *many = queued(6, "many"), *alone = queued(6, "alone");
    struct lb_batch *batch = calloc(1, sizeof *batch);
    assert_non_null(batch);
    *batch = (struct lb_batch){
        .model = llama, .slices = {{alone, 0, 6}}, .n_slices = 1, .n_seqs = 6, .n_tokens = 6 * T};
    assert_int_equal(lb_engine_run(engine, batch, NULL), LB_OK);
    assert_int_equal(lb_engine_run(small, batch, NULL), LB_E_NOMEM); /* as one it doesn't fit */
    assert_int_equal(lb_engine_run(engine, batch, NULL), LB_OK);
    free(batch);
    n_done = 0;
    assert_int_equal(lb_engine_start(small, NULL), LB_OK);
    assert_int_equal(lb_batcher_submit(b, one, NULL), LB_OK);
    assert_int_equal(lb_batcher_submit(b, many, NULL), LB_OK);
    assert_true(lb_batcher_wait_empty(b, lb_now_ns() + 20 * LB_SECOND_NS));
    lb_batcher_abort(b);
    lb_engine_join(small);
    assert_int_equal(n_done, 2);
    assert_int_equal(one->status, LB_OK);
    assert_int_equal(many->status, LB_OK);
    assert_memory_equal(many->outputs[0].data, alone->outputs[0].data, alone->outputs[0].bytes);
    assert_memory_equal(one->outputs[0].data, alone->outputs[0].data, one->outputs[0].bytes);
    lb_engine_destroy(small);
    lb_batcher_destroy(b);
    lb_job_destroy(one);
    lb_job_destroy(many);
    lb_job_destroy(alone);
}

/* What can't be computed within the limit is refused before it waits, with what it would need. */
static void test_admission(void **state) {
    (void)state;
    struct lb_job *job = plan(1, (const char *const[]){"attentions.0", "attentions.1"}, 2);
    assert_int_equal(lb_engine_admit(engine, job, NULL), LB_OK);
    assert_int_equal(job->square_bytes, 3 * 4 * sizeof(float)); /* one as computed, two as kept, of 4 heads */
    assert_true(job->taps != 0);
    struct lb_engine *small = lb_engine_create(NULL, NULL, NULL, job->base_bytes + T * job->row_bytes);
    memset(&detail, 0, sizeof detail);
    assert_int_equal(lb_engine_admit(small, job, &detail), LB_E_LIMIT);
    assert_non_null(strstr(detail.text, "--memory-limit-mib"));
    lb_engine_destroy(small);
    lb_job_destroy(job);
}

/* A try that found no memory leaves no text behind, which would stand in a later error of another kind. */
static void test_failed_try(void **state) {
    (void)state;
    struct lb_job *job = queued(1, "one");
    lb_mem_fail_from(1);
    enum lb_status status = lb_job_allocate(job);
    lb_mem_fail_from(0);
    assert_int_equal(status, LB_E_NOMEM);
    assert_int_equal(job->detail.code, LB_OK);
    assert_int_equal(lb_job_allocate(job), LB_OK);
    lb_job_destroy(job);
}

static int setup(void **state) {
    (void)state;
    struct lb_config config;
    if (!mkdtemp(folder)) {
        return 1;
    }
    lb_tiny_llama(&config);
    lb_tiny_save(&config, 7, folder, LB_F32, false);
    engine = lb_engine_create(NULL, NULL, NULL, (size_t)1 << 30);
    for (int i = 0; i < 6 * T; i++) {
        ids[i] = (i * 31 + i * i * 7) % 97;
    }
    return engine && lb_hosted_open("llama", folder, &llama, NULL) == LB_OK &&
                   lb_engine_self_test(engine, llama, NULL) == LB_OK
               ? 0
               : 1;
}

static int teardown(void **state) {
    (void)state;
    lb_engine_destroy(engine);
    lb_hosted_release(llama);
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : 1;
}

int main(int argc, char **argv) {
    (void)argc;
    lb_gemm_setup(0, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_little_memory), cmocka_unit_test(test_admission),
                                       cmocka_unit_test(test_failed_try)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
