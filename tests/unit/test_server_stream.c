/* Logits that are made while they are read: the engine's own, bit for bit, whatever the datatype, start and
 * lengths, of small and large vocabularies; and what is held for them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/nn/gemm.h"
#include "common/nn/head.h"
#include "server/engine/admit.h"
#include "server/engine/engine.h"
#include "server/engine/stream.h"
#include "tests/support/slices.h"
#include "tests/support/tiny_hosted.h"

#include <stdlib.h>
#include <string.h>

#define B 3
#define T 150
#define SMALL_V 17000
#define LARGE_V (LB_HEAD_WIDE_V + 100)
#define TAPE_BYTES ((size_t)1 << 29)

static char folder[] = "/tmp/limbeck-stream-XXXXXX";
static struct lb_engine *engine;
static struct lb_detail detail;
static int32_t ids[B * T];
/* Chunks of 64 and 128 rows are begun, ended and left out. */
static const int32_t lengths[B] = {T, 1, 129}, starts[B] = {70, 0, 100};

static struct lb_wire_tensor input(const char *name, int64_t cols, const int32_t *data) {
    struct lb_wire_tensor t = {
        .name = name, .datatype = LB_DT_INT32, .n_dims = cols ? 2 : 1, .dim = {B, cols}, .data = data};
    t.bytes = (size_t)lb_wire_elements(&t) * sizeof *data;
    return t;
}

/* Logits, and what else a job has: computed by the engine. */
static struct lb_job *answer(struct lb_hosted *hosted, enum lb_datatype datatype, bool start,
                             size_t stream_bytes) {
    const struct lb_plan_limits limits = {LB_MAX_RESPONSE_BYTES, LB_MAX_REQUEST_TOKENS, LB_MAX_JSON_VALUES,
                                          stream_bytes};
    struct lb_wire_tensor inputs[3] = {input("input_ids", T, ids), input("lengths", 0, lengths),
                                       input("start", 0, starts)};
    struct lb_wire_output outputs[2] = {{"logsumexp", true, LB_DT_NONE}, {"logits", true, datatype}};
    const struct lb_infer_request request = {.top_k = 5,
                                             .temperature = 1,
                                             .n_inputs = start ? 3 : 2,
                                             .n_outputs = 2,
                                             .inputs = inputs,
                                             .outputs = outputs};
    struct lb_job *job = lb_job_create((size_t)16 << 20);
    assert_non_null(job);
    job->model = lb_hosted_retain(hosted);
    if (lb_plan(&request, &limits, job, &detail) != LB_OK || lb_engine_admit(engine, job, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    for (int64_t b = B - 1; b >= 0; b--) { /* in pieces, last to first */
        assert_int_equal(lb_run_slices(engine, &(struct lb_slice){job, b, 1}, 1, &detail), LB_OK);
    }
    return job;
}

static void check(struct lb_hosted *hosted, enum lb_datatype datatype, bool start) {
    struct lb_job *whole = answer(hosted, datatype, start, 0), *kept = answer(hosted, datatype, start, 1000);
    const struct lb_job_output *want = &whole->outputs[1], *o = &kept->outputs[1];
    assert_true(!want->streamed && whole->streamed_bytes == 0 && whole->states == NULL);
    assert_true(o->streamed && o->data == NULL && o->bytes == want->bytes &&
                kept->streamed_bytes == o->bytes);
    assert_memory_equal(kept->outputs[0].data, whole->outputs[0].data, whole->outputs[0].bytes);
    /* Of rows that no chunk with a wanted row has, nothing is kept. */
    int64_t step = lb_head_plain_chunk(lb_hosted_vocab(hosted)), rows = 0;
    for (int b = 0; b < B; b++) {
        rows += lengths[b] - (start ? starts[b] / step * step : 0);
    }
    assert_int_equal(kept->state_bytes, (size_t)(rows * lb_model_width(hosted->model)) * sizeof(float));
    struct lb_logits_stream *stream = lb_logits_stream_create(kept, o);
    assert_non_null(stream);
    size_t at = 0, len = 0, pieces = 0;
    for (;; at += len, pieces++) {
        const char *bytes = lb_logits_stream_next(stream, &len);
        assert_non_null(bytes);
        if (len == 0) {
            break;
        }
        assert_true(at + len <= want->bytes && len <= lb_logits_stream_bytes(kept));
        if (memcmp(bytes, (const char *)want->data + at, len) != 0) {
            fail_msg("V %lld, %s: other bits in piece %zu, bytes from %zu on",
                     (long long)lb_hosted_vocab(hosted), lb_datatype_name(datatype), pieces, at);
        }
    }
    assert_int_equal(at, want->bytes);
    assert_true(pieces > 3);
    assert_non_null(lb_logits_stream_next(stream, &len));
    assert_int_equal(len, 0);
    lb_logits_stream_destroy(stream);
    lb_job_destroy(whole);
    lb_job_destroy(kept);
}

static void check_model(int64_t v, enum lb_dtype dtype) {
    struct lb_config config;
    char name[32];
    lb_tiny_llama(&config);
    config.vocab_size = v;
    config.max_position_embeddings = T;
    config.tie_word_embeddings = dtype == LB_F32;
    snprintf(name, sizeof name, "v%lld-%d", (long long)v, (int)dtype);
    char *path = lb_path_join(folder, name);
    struct lb_hosted *hosted = NULL;
    lb_tiny_save(&config, 7, path, dtype, false);
    if (lb_hosted_open(name, path, &hosted, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    check(hosted, LB_DT_FP32, false);
    check(hosted, LB_DT_FP32, true);
    check(hosted, LB_DT_FP16, v == SMALL_V);
    check(hosted, LB_DT_BF16, v == SMALL_V);
    lb_hosted_release(hosted);
    lb_free(path);
}

static void small_vocabulary(void **state) {
    (void)state;
    check_model(SMALL_V, LB_F32);
    check_model(SMALL_V, LB_F16);
}

static void large_vocabulary(void **state) {
    (void)state;
    check_model(LARGE_V, LB_BF16);
}

/* Classifiers' logits are not streamed; nor those that are few, by themselves or beside what a chunk takes.
 */
static void what_is_not_streamed(void **state) {
    (void)state;
    struct lb_config config;
    lb_tiny_mlp(&config);
    struct lb_hosted *mlp = lb_tiny_hosted(folder, "mlp", &config);
    static float features[2 * 12];
    struct lb_wire_tensor in = {"features", LB_DT_FP32, 2, {2, 12}, features, sizeof features, true};
    struct lb_wire_output out = {"logits", true, LB_DT_NONE};
    const struct lb_plan_limits limits = {LB_MAX_RESPONSE_BYTES, LB_MAX_REQUEST_TOKENS, LB_MAX_JSON_VALUES,
                                          1};
    const struct lb_infer_request request = {
        .top_k = 1, .temperature = 1, .n_inputs = 1, .n_outputs = 1, .inputs = &in, .outputs = &out};
    struct lb_job *job = lb_job_create((size_t)1 << 20);
    job->model = mlp;
    assert_int_equal(lb_plan(&request, &limits, job, &detail), LB_OK);
    assert_true(!job->outputs[0].streamed && job->kept == NULL);
    lb_job_destroy(job);
    lb_tiny_llama(&config);
    config.max_position_embeddings = T;
    struct lb_hosted *llama = lb_tiny_hosted(folder, "llama", &config);
    int64_t bytes = B * T * config.vocab_size * 4;
    job = answer(llama, LB_DT_FP32, false, (size_t)bytes);
    assert_false(job->outputs[1].streamed);
    lb_job_destroy(job);
    job = answer(llama, LB_DT_FP32, false, 1);
    assert_true((int64_t)lb_logits_stream_bytes(job) > bytes);
    assert_true(!job->outputs[1].streamed && job->outputs[1].data && job->streamed_bytes == 0 &&
                !job->states);
    lb_job_destroy(job);
    lb_hosted_release(llama);
}

/* Whether logits of 40 sequences of one row are streamed, which would save memory. */
static bool streamed(struct lb_hosted *hosted, bool binary, size_t stream_bytes) {
    static const int32_t one_each[40];
    static const float features[40 * 12];
    const struct lb_plan_limits limits = {LB_MAX_RESPONSE_BYTES, LB_MAX_REQUEST_TOKENS, LB_MAX_JSON_VALUES,
                                          stream_bytes};
    struct lb_wire_tensor in = {"input_ids", LB_DT_INT32, 2, {40, 1}, one_each, sizeof one_each, true};
    struct lb_wire_output out = {"logits", binary, LB_DT_NONE};
    const struct lb_infer_request request = {
        .top_k = 1, .temperature = 1, .n_inputs = 1, .n_outputs = 1, .inputs = &in, .outputs = &out};
    if (!hosted->decoder) {
        in = (struct lb_wire_tensor){"features", LB_DT_FP32, 2, {40, 12}, features, sizeof features, true};
    }
    struct lb_job *job = lb_job_create((size_t)1 << 20);
    assert_non_null(job);
    job->model = lb_hosted_retain(hosted);
    if (lb_plan(&request, &limits, job, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    assert_true(job->outputs[0].streamed == (job->kept != NULL));
    bool is = job->outputs[0].streamed;
    lb_job_destroy(job);
    return is;
}

/* Only raw, only more than the limit, and only of what has a row of logits at each position. */
static void what_may_be_streamed(void **state) {
    (void)state;
    struct lb_config config;
    const size_t bytes = (size_t)40 * SMALL_V * 4;
    lb_tiny_llama(&config);
    config.vocab_size = SMALL_V;
    struct lb_hosted *llama = lb_tiny_hosted(folder, "may", &config);
    assert_true(streamed(llama, true, bytes - 1));
    assert_false(streamed(llama, true, bytes));
    assert_false(streamed(llama, true, 0));
    assert_false(streamed(llama, false, bytes - 1));
    lb_hosted_release(llama);
    lb_tiny_mlp(&config);
    config.num_labels = SMALL_V;
    struct lb_hosted *mlp = lb_tiny_hosted(folder, "may-not", &config);
    assert_false(streamed(mlp, true, 1));
    lb_hosted_release(mlp);
}

int main(int argc, char **argv) {
    (void)argc;
    lb_gemm_setup(0, argv);
    if (!mkdtemp(folder)) {
        return 1;
    }
    engine = lb_engine_create(NULL, NULL, NULL, TAPE_BYTES);
    for (int i = 0; i < B * T; i++) {
        ids[i] = (i * 31 + i * i * 7) % 97;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(small_vocabulary), cmocka_unit_test(large_vocabulary),
                                       cmocka_unit_test(what_is_not_streamed),
                                       cmocka_unit_test(what_may_be_streamed)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lb_engine_destroy(engine);
    return lb_remove_tree(folder, NULL) == LB_OK ? failed : 1;
}
