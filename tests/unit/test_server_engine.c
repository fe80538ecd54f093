/* From request to outputs without a network: what the engine fills in is what a plain forward gives, whatever
 * it is batched with and however it is sliced. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/formats/safetensors.h"
#include "common/model/model.h"
#include "common/nn/gemm.h"
#include "common/nn/head.h"
#include "common/nn/reduce.h"
#include "server/api/artifacts.h"
#include "server/engine/admit.h"
#include "server/engine/engine.h"
#include "server/models/repository.h"
#include "tests/support/slices.h"
#include "tests/support/tiny_hosted.h"
#include "tests/unit/server_question.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define V 97
#define C 32
#define MAX_T 128
#define TAPE_BYTES ((size_t)1 << 30)

static char folder[] = "/tmp/limbeck-engine-XXXXXX";
static struct lb_hosted *llama, *mlp;
static struct lb_engine *engine;

/* Runs slices {job, first, n} as one batch. */
static void run(const struct lb_slice *slices, size_t n) {
    memset(&lb_question_detail, 0, sizeof lb_question_detail);
    if (lb_run_slices(engine, slices, n, &lb_question_detail) != LB_OK) {
        fail_msg("%s", lb_question_detail.text);
    }
}

static void run_whole(struct lb_job *job) {
    run(&(struct lb_slice){job, 0, job->n_seqs}, 1);
}

static const struct lb_job_output *output(const struct lb_job *job, const char *name) {
    for (size_t i = 0; i < job->n_outputs; i++) {
        if (strcmp(job->outputs[i].name, name) == 0) {
            return &job->outputs[i];
        }
    }
    fail_msg("no output %s", name);
    return NULL;
}

/* ---- the reference: one sequence alone, straight through the model ---- */

struct reference {
    float z[MAX_T * V], h[MAX_T * C], hidden1[MAX_T * C], attention0[4 * MAX_T * MAX_T];
};

static enum lb_status keep_logits(void *context, int64_t row, int64_t n, float *z) {
    memcpy((float *)context + row * V, z, (size_t)(n * V) * sizeof *z);
    return LB_OK;
}

static struct reference *reference(const int32_t *ids, int length) {
    struct reference *r = calloc(1, sizeof *r);
    struct lb_tape *tape = lb_tape_create(TAPE_BYTES);
    assert_non_null(r);
    assert_non_null(tape);
    int32_t offsets[2] = {0, length};
    struct lb_input in = {{1, offsets}, ids, NULL};
    struct lb_tap taps[2] = {{.kind = LB_TAP_HIDDEN, .layer = 1}, {.kind = LB_TAP_ATTENTION, .layer = 0}};
    lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    struct lb_value *h = lb_model_forward(llama->model, tape, &in, taps, 2, NULL);
    assert_non_null(h);
    memcpy(r->h, h->data, (size_t)(length * C) * sizeof(float));
    memcpy(r->hidden1, taps[0].value->data, (size_t)(length * C) * sizeof(float));
    memcpy(r->attention0, taps[1].value->data, (size_t)(4 * length * length) * sizeof(float));
    assert_int_equal(lb_head_run(tape, h, lb_model_head(llama->model), NULL, keep_logits, r->z), LB_OK);
    lb_tape_destroy(tape);
    return r;
}

static int32_t ids[6 * 20];
static int32_t lengths[6] = {20, 1, 7, 13, 20, 4}, starts[6] = {0, 0, 6, 3, 12, 1};

static void fill_ids(void) {
    for (int i = 0; i < 6 * 20; i++) {
        ids[i] = (i * 31 + i * i * 7) % V;
    }
}

static void ask_everything(struct lb_question *ask) {
    lb_question_output(ask, "logits", LB_DT_NONE);
    lb_question_output(ask, "logits.topk_ids", LB_DT_NONE);
    lb_question_output(ask, "logits.topk_values", LB_DT_NONE);
    lb_question_output(ask, "logsumexp", LB_DT_NONE);
    lb_question_output(ask, "logprobs.actual", LB_DT_NONE);
    lb_question_output(ask, "hidden_states.1", LB_DT_NONE);
    lb_question_output(ask, "hidden_states.final", LB_DT_NONE);
    lb_question_output(ask, "attentions.0", LB_DT_NONE);
}

/* All outputs of row t of sequence b, found at row r, against the reference's row t; bits. */
static void check_row(const struct lb_job *job, const struct reference *want, int b, int t, int r) {
    const float *z = want->z + t * V;
    int64_t at = b * job->rows + r;
    int32_t top[5];
    float values[5];
    lb_topk(z, V, 5, top, values);
    assert_memory_equal((float *)output(job, "logits")->data + at * V, z, V * sizeof(float));
    assert_memory_equal((int32_t *)output(job, "logits.topk_ids")->data + at * 5, top, sizeof top);
    assert_memory_equal((float *)output(job, "logits.topk_values")->data + at * 5, values, sizeof values);
    float lse = (float)lb_logsumexp(z, V, job->temperature);
    assert_true(((float *)output(job, "logsumexp")->data)[at] == lse);
    float actual = 0;
    if (t + 1 < lb_job_length(job, b)) {
        actual = (float)(z[ids[b * 20 + t + 1]] / job->temperature - lb_logsumexp(z, V, job->temperature));
    }
    assert_true(((float *)output(job, "logprobs.actual")->data)[at] == actual);
    assert_memory_equal((float *)output(job, "hidden_states.1")->data + at * C, want->hidden1 + t * C,
                        C * sizeof(float));
    assert_memory_equal((float *)output(job, "hidden_states.final")->data + at * C, want->h + t * C,
                        C * sizeof(float));
    int64_t length = lb_job_length(job, b);
    for (int h = 0; h < 4; h++) {
        const float *probs =
            (float *)output(job, "attentions.0")->data + ((b * 4 + h) * job->rows + r) * job->padded_t;
        assert_memory_equal(probs, want->attention0 + (h * length + t) * length,
                            (size_t)length * sizeof(float));
        for (int64_t k = length; k < job->padded_t; k++) {
            assert_true(probs[k] == 0);
        }
    }
}

/* Rows behind a sequence's end are zero in every output of [B, T, width]. */
static void check_padding(const struct lb_job *job, int b, int r) {
    for (size_t i = 0; i < job->n_outputs; i++) {
        const struct lb_job_output *o = &job->outputs[i];
        if (o->what.kind != LB_OUT_ATTENTION) {
            const uint8_t *row = (uint8_t *)o->data +
                                 (size_t)((b * job->rows + r) * o->width) * lb_datatype_bytes(o->datatype);
            for (size_t k = 0; k < (size_t)o->width * lb_datatype_bytes(o->datatype); k++) {
                assert_int_equal(row[k], 0);
            }
        }
    }
}

static void check_everything(const struct lb_job *job, bool with_start) {
    for (int b = 0; b < 6; b++) {
        struct reference *want = reference(ids + b * 20, lengths[b]);
        int first = with_start ? starts[b] : 0;
        for (int r = 0; r < job->rows; r++) {
            if (first + r < lengths[b]) {
                check_row(job, want, b, first + r, r);
            } else {
                check_padding(job, b, r);
            }
        }
        free(want);
    }
}

static void test_ragged_batch(void **state) {
    (void)state;
    struct lb_question ask = lb_question_new();
    ask.request.temperature = 2.5;
    lb_question_input(&ask, "input_ids", LB_DT_INT32, 6, 20, ids);
    lb_question_input(&ask, "lengths", LB_DT_INT32, 6, 0, lengths);
    ask_everything(&ask);
    struct lb_job *job = lb_question_plan(llama, &ask);
    assert_int_equal(job->n_tokens, 65);
    lb_question_shape(output(job, "logits"), 3, (int64_t[]){6, 20, V});
    lb_question_shape(output(job, "logits.topk_ids"), 3, (int64_t[]){6, 20, 5});
    lb_question_shape(output(job, "logsumexp"), 2, (int64_t[]){6, 20});
    lb_question_shape(output(job, "attentions.0"), 4, (int64_t[]){6, 4, 20, 20});
    run_whole(job);
    check_everything(job, false);
    lb_job_destroy(job);
}

static void test_start(void **state) {
    (void)state;
    struct lb_question ask = lb_question_new();
    lb_question_input(&ask, "start", LB_DT_INT32, 6, 0, starts);
    lb_question_input(&ask, "input_ids", LB_DT_INT32, 6, 20, ids);
    lb_question_input(&ask, "lengths", LB_DT_INT32, 6, 0, lengths);
    ask_everything(&ask);
    struct lb_job *job = lb_question_plan(llama, &ask);
    assert_int_equal(job->rows, 20);
    run_whole(job);
    check_everything(job, true);
    lb_job_destroy(job);
    int32_t late[6] = {15, 0, 6, 3, 19, 3}; /* the longest rest is 10 rows */
    ask.inputs[0].data = late;
    job = lb_question_plan(llama, &ask);
    assert_int_equal(job->rows, 10);
    lb_question_shape(output(job, "logits"), 3, (int64_t[]){6, 10, V});
    lb_job_destroy(job);
}

/* The same job in three batches, in company that asks for other things. */
static void test_slices_and_company(void **state) {
    (void)state;
    struct lb_question ask = lb_question_new(), company = lb_question_new();
    int64_t wide[20];
    for (int i = 0; i < 20; i++) {
        wide[i] = (i * 13) % V;
    }
    lb_question_input(&ask, "input_ids", LB_DT_INT32, 6, 20, ids);
    lb_question_input(&ask, "lengths", LB_DT_INT32, 6, 0, lengths);
    ask_everything(&ask);
    lb_question_input(&company, "input_ids", LB_DT_INT64, 2, 10, wide);
    lb_question_output(&company, "hidden_states.2", LB_DT_NONE);
    struct lb_job *job = lb_question_plan(llama, &ask), *other = lb_question_plan(llama, &company);
    run((struct lb_slice[]){{other, 0, 1}, {job, 0, 2}}, 2);
    run((struct lb_slice[]){{job, 2, 3}, {other, 1, 1}}, 2);
    run((struct lb_slice[]){{job, 5, 1}}, 1);
    check_everything(job, false);
    struct lb_job *alone = lb_question_plan(llama, &company);
    run_whole(alone);
    assert_int_equal(alone->outputs[0].bytes, 2 * 10 * C * 4);
    assert_memory_equal(alone->outputs[0].data, other->outputs[0].data, alone->outputs[0].bytes);
    lb_job_destroy(alone);
    lb_job_destroy(other);
    lb_job_destroy(job);
}

static void test_narrow_types(void **state) {
    (void)state;
    struct lb_question ask = lb_question_new(), full = lb_question_new();
    lb_question_input(&ask, "input_ids", LB_DT_INT32, 2, 20, ids);
    lb_question_input(&full, "input_ids", LB_DT_INT32, 2, 20, ids);
    const char *names[] = {"logits", "logits.topk_values", "hidden_states.0", "hidden_states.final",
                           "attentions.1"};
    for (int i = 0; i < 5; i++) {
        lb_question_output(&ask, names[i], LB_DT_FP16);
        lb_question_output(&full, names[i], LB_DT_FP32);
    }
    lb_question_output(&ask, "logits.topk_ids", LB_DT_UINT16);
    lb_question_output(&full, "logits.topk_ids", LB_DT_INT32);
    struct lb_job *narrow = lb_question_plan(llama, &ask), *wide = lb_question_plan(llama, &full);
    run((struct lb_slice[]){{narrow, 0, 2}, {wide, 0, 2}}, 2);
    assert_int_equal(narrow->output_bytes * 2, wide->output_bytes);
    for (int i = 0; i < 5; i++) {
        const uint16_t *h = narrow->outputs[i].data;
        const float *f = wide->outputs[i].data;
        for (size_t k = 0; k < wide->outputs[i].bytes / 4; k++) {
            assert_int_equal(h[k], lb_f32_to_f16(f[k]));
        }
    }
    for (int k = 0; k < 2 * 20 * 5; k++) {
        assert_int_equal(((uint16_t *)narrow->outputs[5].data)[k], ((int32_t *)wide->outputs[5].data)[k]);
    }
    lb_job_destroy(narrow);
    lb_job_destroy(wide);
}

static void test_defaults(void **state) {
    (void)state;
    struct lb_question ask = lb_question_new();
    ask.request.top_k = 1000; /* more than there are */
    ask.request.binary_default = false;
    lb_question_input(&ask, "input_ids", LB_DT_INT32, 1, 3, ids);
    struct lb_job *job = lb_question_plan(llama, &ask);
    assert_int_equal(job->n_outputs, 3);
    assert_string_equal(job->outputs[0].name, "logits.topk_ids");
    assert_string_equal(job->outputs[1].name, "logits.topk_values");
    assert_string_equal(job->outputs[2].name, "logsumexp");
    assert_false(job->outputs[0].binary);
    lb_question_shape(&job->outputs[0], 3, (int64_t[]){1, 3, V});
    run_whole(job);
    int seen[V] = {0};
    for (int k = 0; k < V; k++) {
        seen[((int32_t *)job->outputs[0].data)[k]]++;
    }
    for (int k = 0; k < V; k++) {
        assert_int_equal(seen[k], 1);
    }
    lb_job_destroy(job);
}

static void test_classifier(void **state) {
    (void)state;
    float x[7 * 12];
    for (int i = 0; i < 7 * 12; i++) {
        x[i] = sinf((float)i);
    }
    struct lb_question ask = lb_question_new(), single = lb_question_new();
    ask.request.top_k = single.request.top_k = 2;
    lb_question_input(&ask, "features", LB_DT_FP32, 7, 12, x);
    lb_question_input(&single, "features", LB_DT_FP32, 1, 12, x + 3 * 12);
    const char *names[] = {"logits",          "logits.topk_ids", "logits.topk_values", "logsumexp",
                           "hidden_states.0", "hidden_states.1", "hidden_states.final"};
    const int64_t widths[] = {5, 2, 2, 0, 12, 16, 8};
    for (int i = 0; i < 7; i++) {
        lb_question_output(&ask, names[i], LB_DT_NONE);
        lb_question_output(&single, names[i], LB_DT_NONE);
    }
    struct lb_job *job = lb_question_plan(mlp, &ask), *alone = lb_question_plan(mlp, &single);
    run((struct lb_slice[]){{job, 0, 7}}, 1);
    run_whole(alone);
    for (int i = 0; i < 7; i++) {
        const struct lb_job_output *o = &job->outputs[i];
        lb_question_shape(o, widths[i] ? 2 : 1, (int64_t[]){7, widths[i]});
        assert_memory_equal((char *)o->data + 3 * alone->outputs[i].bytes, alone->outputs[i].data,
                            alone->outputs[i].bytes);
    }
    assert_memory_equal(job->outputs[4].data, x, sizeof x); /* hidden_states.0 are the features */
    const float *z = job->outputs[0].data;
    assert_true(fabs(((float *)job->outputs[3].data)[6] - lb_logsumexp(z + 30, 5, 1)) < 1e-6);
    lb_job_destroy(job);
    lb_job_destroy(alone);
}

/* A text that is classified is drawn from by all of it: equal texts alike, others not, however they begin. */
static void test_classified_text(void **state) {
    (void)state;
    static const int32_t texts[3 * 4] = {5, 6, 7, 8, 5, 6, 7, 9, 5, 6, 7, 8};
    struct lb_config config;
    lb_tiny_bert(&config);
    config.num_labels = 40;
    struct lb_hosted *hosted = lb_tiny_hosted(folder, "classes", &config);
    struct lb_question ask = lb_question_new();
    ask.request.sample_count = 20;
    lb_question_input(&ask, "input_ids", LB_DT_INT32, 3, 4, texts);
    lb_question_output(&ask, "samples.ids", LB_DT_NONE);
    struct lb_job *job = lb_question_plan(hosted, &ask);
    run_whole(job);
    lb_question_shape(&job->outputs[0], 2, (int64_t[]){3, 20});
    const int32_t *drawn = job->outputs[0].data;
    assert_memory_equal(drawn, drawn + 40, 20 * sizeof *drawn);
    assert_memory_not_equal(drawn, drawn + 20, 20 * sizeof *drawn);
    assert_true(lb_job_row_draw(job, 0, 0).stream == lb_job_row_draw(job, 2, 0).stream);
    assert_true(lb_job_row_draw(job, 0, 0).stream != lb_job_row_draw(job, 1, 0).stream);
    lb_job_destroy(job);
    lb_hosted_release(hosted);
}

/* ---- what is downloaded once ---- */

/* The whole file, as one download after another gets it. */
static size_t download_head(struct lb_arena *arena, struct lb_buf *bytes) {
    struct lb_artifact_head head;
    struct lb_span parts[LB_ARTIFACT_PARTS];
    size_t begin = bytes->len;
    assert_int_equal(lb_artifact_head_begin(mlp, arena, &head, NULL), LB_OK);
    while (bytes->len - begin < head.total_bytes) {
        size_t n = lb_artifact_head_next(&head, parts);
        assert_true(n > 0);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(lb_buf_append(bytes, parts[i].data, parts[i].len), LB_OK);
        }
    }
    assert_int_equal(bytes->len - begin, head.total_bytes);
    return head.total_bytes;
}

static void test_head(void **state) {
    (void)state;
    struct lb_safetensors *file = NULL;
    struct lb_arena arena;
    struct lb_buf bytes;
    struct lb_artifact_head head;
    uint8_t digest[LB_SHA256_BYTES];
    lb_arena_init(&arena, 1 << 24);
    lb_buf_init(&bytes, 1 << 24);
    /* One that is broken off leaves nothing behind; the first whole one makes the digest, later ones know it.
     */
    assert_int_equal(lb_artifact_head_begin(mlp, &arena, &head, NULL), LB_OK);
    assert_non_null(head.hash);
    lb_artifact_head_end(&head);
    size_t whole = download_head(&arena, &bytes);
    assert_int_equal(lb_artifact_head_begin(mlp, &arena, &head, NULL), LB_OK);
    assert_null(head.hash);
    lb_artifact_head_end(&head);
    assert_int_equal(download_head(&arena, &bytes), whole);
    assert_memory_equal(bytes.data, bytes.data + whole, whole);
    bytes.len = whole;
    assert_int_equal(lb_safetensors_parse(bytes.data, bytes.len, "head", &file, NULL), LB_OK);
    assert_int_equal(lb_safetensors_count(file), 3);
    lb_sha256(bytes.data, bytes.len - sizeof digest, digest);
    assert_memory_equal(bytes.data + bytes.len - sizeof digest, digest, sizeof digest);
    assert_memory_equal(lb_safetensors_find(file, "digest")->data, digest, sizeof digest);
    assert_string_equal(lb_safetensors_metadata(file, "fingerprint"), mlp->version);
    assert_string_equal(lb_safetensors_metadata(file, "logit_scale"), "1");
    assert_string_equal(lb_safetensors_metadata(file, "final_logit_softcapping"), "0");
    const struct lb_tensor *w = lb_safetensors_find(file, "lm_head.weight"),
                           *b = lb_safetensors_find(file, "lm_head.bias");
    assert_int_equal(w->dim[0], 5);
    assert_int_equal(w->dim[1], 8);
    assert_int_equal(b->n_dims, 1);
    assert_int_equal(b->dim[0], 5);
    /* The hidden state times the head is the logits. */
    float x[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3}, z[5];
    struct lb_question ask = lb_question_new();
    lb_question_input(&ask, "features", LB_DT_FP32, 1, 12, x);
    lb_question_output(&ask, "hidden_states.final", LB_DT_NONE);
    lb_question_output(&ask, "logits", LB_DT_NONE);
    struct lb_job *job = lb_question_plan(mlp, &ask);
    run_whole(job);
    lb_head_logits(job->outputs[0].data, 1, 8, w->data, b->data, 5, LB_HEAD_PLAIN, z);
    for (int i = 0; i < 5; i++) {
        assert_true(fabsf(z[i] - ((float *)job->outputs[1].data)[i]) < 1e-5f);
    }
    lb_job_destroy(job);
    lb_safetensors_destroy(file);
    lb_buf_finish(&bytes);
    lb_arena_finish(&arena);
}

/* What becomes of products with the head's weight goes along with it: scale and cap. */
static void test_shape_of_head(void **state) {
    (void)state;
    static const char *const says[2][2] = {{"\"logit_scale\":\"0.25\"", "\"final_logit_softcapping\":\"0\""},
                                           {"\"logit_scale\":\"1\"", "\"final_logit_softcapping\":\"7.5\""}};
    for (int i = 0; i < 2; i++) {
        struct lb_config config;
        struct lb_artifact_head head;
        struct lb_arena arena;
        lb_tiny_llama(&config);
        snprintf(config.model_type, sizeof config.model_type, "%s", i == 0 ? "granite" : "gemma2");
        config.logit_scale = i == 0 ? 4 : 0;
        config.embedding_multiplier = config.residual_multiplier = i == 0 ? 1 : 0;
        config.attention_multiplier = i == 0 ? 0.25 : 0;
        config.logit_softcap = i == 0 ? 0 : 7.5;
        config.attention_softcap = i == 0 ? 0 : 50;
        config.query_pre_attn_scalar = i == 0 ? 0 : 16;
        struct lb_hosted *hosted = lb_tiny_hosted(folder, config.model_type, &config);
        lb_arena_init(&arena, (size_t)1 << 24);
        assert_int_equal(lb_artifact_head_begin(hosted, &arena, &head, NULL), LB_OK);
        for (int k = 0; k < 2; k++) {
            assert_non_null(memmem(head.header.data, head.header.len, says[i][k], strlen(says[i][k])));
        }
        lb_artifact_head_end(&head);
        lb_arena_finish(&arena);
        lb_hosted_release(hosted);
    }
}

static void test_self_test(void **state) {
    (void)state;
    assert_int_equal(lb_engine_self_test(engine, llama, NULL), LB_OK);
    assert_true(llama->batch_invariant);
    assert_true(llama->row_bytes > C * 4 && llama->row_bytes < (1 << 20));
    assert_int_equal(lb_engine_self_test(engine, mlp, NULL), LB_OK);
    assert_true(mlp->batch_invariant);
    char first[LB_SHA256_HEX]; /* what computes is the same at each try, and of another model another */
    memcpy(first, llama->compute, sizeof first);
    assert_int_equal(strlen(first), LB_SHA256_HEX - 1);
    assert_int_equal(lb_engine_self_test(engine, llama, NULL), LB_OK);
    assert_string_equal(llama->compute, first);
    assert_string_not_equal(mlp->compute, first);
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
    lb_tiny_mlp(&config);
    mlp = lb_tiny_hosted(folder, "mlp", &config);
    engine = lb_engine_create(NULL, NULL, NULL, TAPE_BYTES);
    fill_ids();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ragged_batch),       cmocka_unit_test(test_start),
        cmocka_unit_test(test_slices_and_company), cmocka_unit_test(test_narrow_types),
        cmocka_unit_test(test_defaults),           cmocka_unit_test(test_classifier),
        cmocka_unit_test(test_classified_text),    cmocka_unit_test(test_head),
        cmocka_unit_test(test_shape_of_head),      cmocka_unit_test(test_self_test),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lb_engine_destroy(engine);
    lb_hosted_release(llama);
    lb_hosted_release(mlp);
    return lb_remove_tree(folder, NULL) == LB_OK ? failed : 1;
}
