/* What is drawn behind sequences, and that other jobs of the batch don't notice. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/model/generate.h"
#include "common/nn/gemm.h"
#include "common/nn/head.h"
#include "server/engine/admit.h"
#include "server/engine/engine.h"
#include "server/engine/extract.h"
#include "tests/support/slices.h"
#include "tests/support/tiny_hosted.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define B 2
#define T 9
#define TAPE_BYTES ((size_t)1 << 28)

static char folder[] = "/tmp/limbeck-draw-XXXXXX";
static struct lb_hosted *llama, *large; /* large: logits come in panels, but for this */
static struct lb_engine *engine;
static int32_t ids[B * T];
static const int32_t lengths[B] = {T, 6};

/* A job that asks for this and is computed; with the draw (NULL: none). */
static struct lb_job *answer(struct lb_hosted *hosted, const char *name, struct lb_job_draw *draw) {
    const struct lb_plan_limits limits = {LB_MAX_RESPONSE_BYTES, LB_MAX_REQUEST_TOKENS, LB_MAX_JSON_VALUES};
    struct lb_wire_output output = {.name = name, .binary = true};
    struct lb_wire_tensor inputs[2] = {{LB_IN_IDS, LB_DT_INT32, 2, {B, T}, ids, sizeof ids, true},
                                       {LB_IN_LENGTHS, LB_DT_INT32, 1, {B}, lengths, sizeof lengths, true}};
    const struct lb_infer_request request = {
        .top_k = 3, .temperature = 0.5, .n_inputs = 2, .n_outputs = 1, .inputs = inputs, .outputs = &output};
    struct lb_job *job = lb_job_create((size_t)16 << 20);
    assert_non_null(job);
    job->model = lb_hosted_retain(hosted);
    assert_int_equal(lb_plan(&request, &limits, job, NULL), LB_OK);
    job->draw = draw;
    assert_int_equal(lb_engine_admit(engine, job, NULL), LB_OK);
    assert_int_equal(lb_run_whole(engine, job, NULL), LB_OK);
    return job;
}

struct first {
    int32_t id;
    int n;
};

static enum lb_status take_first(void *context, int32_t id) {
    struct first *first = context;
    first->id = first->n++ == 0 ? id : first->id;
    return LB_OK;
}

/* What is drawn is what lb_generate goes on with, with its log-probability; the logits are as ever. */
static void test_draw(void **state) {
    (void)state;
    struct lb_hosted *const hosted[] = {llama, large};
    for (uint64_t i = 0; i < 16; i++) {
        double at = i % 2 == 0 ? 0.5 : 2;
        struct lb_job_draw draw = {.temperature = at,
                                   .top_k = i % 3 == 0 ? 5 : 0,
                                   .top_p = i % 4 == 0 ? 0.3 : 1,
                                   .seed = i,
                                   .ids = (int32_t[B]){-1, -1},
                                   .logprobs = (float[B]){1, 1},
                                   .lifts = (double[B]){1, 1}};
        struct lb_job *plain = answer(hosted[i % 2], "logits", NULL),
                      *job = answer(hosted[i % 2], "logits", &draw);
        const struct lb_job_output *o = &job->outputs[0];
        assert_memory_equal(plain->outputs[0].data, o->data, o->bytes);
        for (int b = 0; b < B; b++) {
            const struct lb_generate_args args = {.max_new_tokens = 1,
                                                  .temperature = draw.temperature,
                                                  .top_k = draw.top_k,
                                                  .top_p = draw.top_p,
                                                  .seed = draw.seed};
            struct first first = {0};
            assert_int_equal(lb_generate(hosted[i % 2]->model, ids + (ptrdiff_t)b * T, lengths[b], &args,
                                         take_first, &first, NULL),
                             LB_OK);
            assert_int_equal(draw.ids[b], first.id);
            const float *z = (const float *)o->data + (b * T + lengths[b] - 1) * o->width;
            double logprob = z[first.id] / at - lb_head_logsumexp(z, o->width, at);
            assert_true(draw.logprobs[b] == (float)logprob);
            /* that of the job, which is at 0.5, as it is at this one's temperature */
            double job_logprob = z[first.id] / 0.5 - lb_head_logsumexp(z, o->width, 0.5);
            assert_true(fabs(job_logprob * 0.5 / at + draw.lifts[b] - logprob) < 1e-9);
        }
        lb_job_destroy(plain);
        lb_job_destroy(job);
    }
}

/* Whole rows of logits are there once, however much is made of them. */
static void test_whole_rows_once(void **state) {
    (void)state;
    struct lb_job_draw draw = {.temperature = 1,
                               .top_p = 1,
                               .ids = (int32_t[B]){0},
                               .logprobs = (float[B]){0},
                               .lifts = (double[B]){0}};
    struct lb_job *ranks = answer(large, "ranks.actual", NULL), *both = answer(large, "ranks.actual", &draw);
    assert_int_equal(ranks->base_bytes, both->base_bytes);
    lb_job_destroy(ranks);
    lb_job_destroy(both);
}

/* What is drawn behind a sequence takes room once, not for each thread. */
static void test_room_of_draws(void **state) {
    (void)state;
    struct lb_job *job = answer(llama, "logits.topk_ids", NULL);
    struct lb_job_draw draw = {.temperature = 1, .top_p = 1};
    struct lb_place places[1] = {{job, 0}};
    const int32_t offsets[2] = {0, lengths[0]};
    const struct lb_ragged ragged = {1, offsets};
    struct lb_extract extract;
    struct lb_arena arena;
    enum { IDS = 100000 };
    int threads = omp_get_max_threads();
    job->draw = &draw;
    lb_arena_init(&arena, 1 << 20);
    omp_set_num_threads(16);
    assert_int_equal(lb_extract_init(&extract, places, &ragged, IDS, &arena), LB_OK);
    omp_set_num_threads(threads);
    lb_arena_finish(&arena);
    lb_job_destroy(job);
}

static int setup(void **state) {
    (void)state;
    struct lb_config config;
    assert_non_null(mkdtemp(folder));
    lb_tiny_llama(&config);
    llama = lb_tiny_hosted(folder, "llama", &config);
    config.vocab_size = LB_HEAD_WIDE_V + 100;
    large = lb_tiny_hosted(folder, "large", &config);
    engine = lb_engine_create(NULL, NULL, NULL, TAPE_BYTES);
    assert_non_null(engine);
    for (int i = 0; i < B * T; i++) {
        ids[i] = (i * 37 + 11) % 97;
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    lb_engine_destroy(engine);
    lb_hosted_release(llama);
    lb_hosted_release(large);
    assert_int_equal(lb_remove_tree(folder, NULL), LB_OK);
    return 0;
}

int main(int argc, char **argv) {
    (void)argc;
    lb_gemm_setup(0, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_draw), cmocka_unit_test(test_whole_rows_once),
                                       cmocka_unit_test(test_room_of_draws)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
