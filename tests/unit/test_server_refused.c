/* Requests that can't be answered: each is refused with a reason. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "tests/support/tiny_hosted.h"
#include "tests/unit/server_question.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define V 97 /* the tiny llama's */

static char folder[] = "/tmp/limbeck-refused-XXXXXX";
static struct lb_hosted *llama, *mlp;
static int32_t ids[6 * 20];

static void refused(const struct lb_question *ask, struct lb_hosted *hosted, enum lb_status status,
                    const char *text) {
    assert_int_equal(lb_question_try(hosted, ask, NULL), status);
    if (!strstr(lb_question_detail.text, text)) {
        fail_msg("expected \"%s\" in: %s", text, lb_question_detail.text);
    }
}

static struct lb_question ask_ids(int64_t rows, int64_t cols, const void *data, enum lb_datatype datatype) {
    struct lb_question ask = lb_question_new();
    lb_question_input(&ask, "input_ids", datatype, rows, cols, data);
    return ask;
}

static void test_refused_inputs(void **state) {
    (void)state;
    int32_t bad[4] = {1, 2, V, 3}, zero = 0, five = 5, minus[2] = {0, -1};
    struct lb_question ask = ask_ids(2, 2, bad, LB_DT_INT32);
    refused(&ask, llama, LB_E_ARG, "input_ids[1,0] = 97: outside the vocabulary, 0..96");
    bad[2] = -5;
    refused(&ask, llama, LB_E_ARG, "input_ids[1,0] = -5");
    int64_t huge[2] = {0, INT64_C(4294967296)}; /* would be 0 as 32 bits */
    ask = ask_ids(1, 2, huge, LB_DT_INT64);
    refused(&ask, llama, LB_E_ARG, "input_ids[0,1] = 4294967296");
    ask = ask_ids(1, 2, ids, LB_DT_FP32);
    refused(&ask, llama, LB_E_ARG, "datatype FP32; expected INT32");
    ask = ask_ids(4, 0, ids, LB_DT_INT32);
    refused(&ask, llama, LB_E_ARG, "expected shape [B, T]");
    ask = ask_ids(0, 3, ids, LB_DT_INT32);
    refused(&ask, llama, LB_E_ARG, "expected shape [B, T]");
    int32_t *many = calloc(LB_MAX_SEQUENCES + 1, sizeof *many);
    ask = ask_ids(LB_MAX_SEQUENCES + 1, 1, many, LB_DT_INT32);
    refused(&ask, llama, LB_E_LIMIT, "4097 sequences");
    ask = ask_ids(1, 129, many, LB_DT_INT32);
    refused(&ask, llama, LB_E_ARG, "129 columns; this model takes at most 128 tokens");
    lb_question_input(&ask, "lengths", LB_DT_INT32, 1, 0,
                      &five); /* padding counts: the answer has its rows */
    refused(&ask, llama, LB_E_ARG, "padding included");
    free(many);
    ask = ask_ids(1, 4, ids, LB_DT_INT32);
    lb_question_input(&ask, "lengths", LB_DT_INT32, 1, 0, &five);
    refused(&ask, llama, LB_E_ARG, "lengths[0] = 5: must be within 1..4");
    ask.inputs[1].data = &zero;
    refused(&ask, llama, LB_E_ARG, "lengths[0] = 0");
    ask = ask_ids(2, 2, ids, LB_DT_INT32);
    lb_question_input(&ask, "start", LB_DT_INT32, 2, 0, minus);
    refused(&ask, llama, LB_E_ARG, "start[1] = -1");
    lb_question_input(&ask, "lengths", LB_DT_INT32, 1, 0, &five);
    refused(&ask, llama, LB_E_ARG, "lengths: expected shape [2]");
    ask = ask_ids(1, 2, ids, LB_DT_INT32);
    lb_question_input(&ask, "attention_mask", LB_DT_INT32, 1, 2, ids);
    refused(&ask, llama, LB_E_ARG,
            "input attention_mask: this model has no such input; it takes input_ids, lengths, start");
    refused(&ask, mlp, LB_E_ARG, "it takes features");
    ask = lb_question_new();
    refused(&ask, llama, LB_E_ARG, "input input_ids is missing");
    float x[11] = {0};
    lb_question_input(&ask, "features", LB_DT_FP32, 1, 11, x);
    refused(&ask, mlp, LB_E_ARG, "11 columns; this model takes 12");
    /* The padding's ids aren't looked at. */
    int32_t padded[2] = {1, 123456}, one = 1;
    ask = ask_ids(1, 2, padded, LB_DT_INT32);
    lb_question_input(&ask, "lengths", LB_DT_INT32, 1, 0, &one);
    assert_int_equal(lb_question_try(llama, &ask, NULL), LB_OK);
}

static struct lb_question ask_output(const char *name, enum lb_datatype datatype) {
    struct lb_question ask = ask_ids(2, 4, ids, LB_DT_INT32);
    lb_question_output(&ask, name, datatype);
    return ask;
}

/* Ids to score: [2, 10, 2], of which only rows from start on are read. */
static void test_refused_scores(void **state) {
    (void)state;
    static int32_t scores[2 * 10 * 2];
    static int64_t long_scores[2 * 10 * 2];
    static const int32_t start[2] = {3, 0};
    struct lb_question ask = ask_ids(2, 10, ids, LB_DT_INT32);
    lb_question_output(&ask, "logits.at_ids", LB_DT_NONE);
    refused(&ask, llama, LB_E_ARG, "the input score_ids is missing");
    lb_question_input(&ask, "score_ids", LB_DT_INT32, 2, 10, scores);
    struct lb_wire_tensor *t = &ask.inputs[1];
    refused(&ask, llama, LB_E_ARG, "input score_ids: expected shape [2, 10, K']");
    *t = (struct lb_wire_tensor){"score_ids", LB_DT_INT32, 3, {2, 10, 2}, scores, sizeof scores, true};
    lb_job_destroy(lb_question_plan(llama, &ask));
    t->dim[1] = 5, t->dim[2] = 4;
    refused(&ask, llama, LB_E_ARG, "input score_ids: expected shape [2, 10, K']");
    t->dim[1] = 10, t->dim[2] = 0;
    refused(&ask, llama, LB_E_ARG, "input score_ids: expected shape [2, 10, K']");
    t->dim[2] = LB_MAX_SCORE_IDS + 1;
    refused(&ask, llama, LB_E_LIMIT, "at most 16384 are taken");
    t->dim[2] = 2;
    t->datatype = LB_DT_FP32;
    refused(&ask, llama, LB_E_ARG, "expected INT32");
    t->datatype = LB_DT_INT32;
    scores[2 * 3 + 1] = V;
    refused(&ask, llama, LB_E_ARG, "score_ids[0,3,1] = 97: must be an id, 0..96, or -1 for none");
    scores[2 * 3 + 1] = -2;
    refused(&ask, llama, LB_E_ARG, "score_ids[0,3,1] = -2");
    scores[2 * 2 + 1] = -2, scores[2 * 3 + 1] = -1;
    refused(&ask, llama, LB_E_ARG, "score_ids[0,2,1] = -2");
    lb_question_input(&ask, "start", LB_DT_INT32, 2, 0, start);
    lb_job_destroy(lb_question_plan(llama, &ask)); /* not read before start */
    long_scores[20 + 5] = 1ll << 32;
    *t = (struct lb_wire_tensor){"score_ids", LB_DT_INT64,        3,   {2, 10, 2},
                                 long_scores, sizeof long_scores, true};
    refused(&ask, llama, LB_E_ARG, "score_ids[1,2,1] = 4294967296");
}

static void test_refused_samples(void **state) {
    (void)state;
    struct lb_question ask = ask_ids(2, 10, ids, LB_DT_INT32);
    lb_question_output(&ask, "samples.counts", LB_DT_NONE);
    refused(&ask, llama, LB_E_ARG, "the parameter sample_count is missing");
    ask.request.sample_count = LB_MAX_SAMPLES + 1;
    refused(&ask, llama, LB_E_ARG, "sample_count 65536: must be within 0..65535");
    ask.request.sample_count = -1;
    refused(&ask, llama, LB_E_ARG, "sample_count -1");
    ask.request.sample_count = 50;
    ask.request.sample_temperature = NAN;
    refused(&ask, llama, LB_E_ARG, "sample_temperature");
    ask.request.sample_temperature = 1000;
    refused(&ask, llama, LB_E_ARG, "sample_temperature 1000: must be within 0.01..100");
    ask.request.sample_temperature = 0;
    struct lb_job *job = lb_question_plan(llama, &ask);
    assert_true(job->sample_temperature == job->temperature && job->samples == 50);
    lb_question_shape(&job->outputs[0], 3, (const int64_t[]){2, 10, 50});
    lb_job_destroy(job);
    ask.request.sample_count = 65535;
    job = lb_question_plan(llama, &ask);
    lb_question_shape(&job->outputs[0], 3, (const int64_t[]){2, 10, V});
    lb_job_destroy(job);
}

static void test_refused_outputs(void **state) {
    (void)state;
    struct lb_question ask = ask_output("logprobs", LB_DT_NONE);
    refused(&ask, llama, LB_E_ARG, "logits.topk_ids");
    ask = ask_output("hidden_states.3", LB_DT_NONE);
    refused(&ask, llama, LB_E_ARG, "hidden_states.0 to hidden_states.2");
    ask = ask_output("attentions.2", LB_DT_NONE);
    refused(&ask, llama, LB_E_ARG, "attentions");
    ask = ask_output("logsumexp", LB_DT_UINT8);
    refused(&ask, llama, LB_E_ARG, "this output comes as FP32, FP16, BF16");
    ask = ask_output("logits", LB_DT_INT32);
    refused(&ask, llama, LB_E_ARG, "FP32, FP16, BF16");
    ask = ask_output("logits", LB_DT_BF16);
    ask.outputs[0].binary = false;
    refused(&ask, llama, LB_E_ARG, "BF16 has no JSON form");
    ask = ask_output("logits", LB_DT_FP16);
    ask.outputs[0].binary = false;
    refused(&ask, llama, LB_E_ARG, "ask for binary_data");
    ask = ask_output("logits", LB_DT_NONE);
    lb_question_output(&ask, "logits", LB_DT_FP16);
    refused(&ask, llama, LB_E_ARG, "twice");
    ask = ask_output("logits", LB_DT_NONE);
    ask.request.temperature = 0;
    refused(&ask, llama, LB_E_ARG, "temperature 0");
    ask.request.temperature = NAN;
    refused(&ask, llama, LB_E_ARG, "temperature");
    ask.request.temperature = 1;
    ask.request.top_k = 0;
    refused(&ask, llama, LB_E_ARG, "top_k 0");
    float x[12] = {0};
    ask = lb_question_new();
    lb_question_input(&ask, "features", LB_DT_FP32, 1, 12, x);
    lb_question_output(&ask, "logprobs.actual", LB_DT_NONE);
    refused(&ask, mlp, LB_E_ARG, "no next token");
}

static void test_refused_sizes(void **state) {
    (void)state;
    struct lb_plan_limits all = lb_question_limits;
    struct lb_question ask = ask_output("logits", LB_DT_NONE);
    lb_question_limits.max_response_bytes = 2 * 4 * V * 4;
    assert_int_equal(lb_question_try(llama, &ask, NULL), LB_OK);
    lb_question_limits.max_response_bytes--;
    refused(&ask, llama, LB_E_LIMIT, "larger than");
    lb_question_limits = all;
    ask.outputs[0].binary = false;
    lb_question_limits.max_json_values = 2 * 4 * V;
    assert_int_equal(lb_question_try(llama, &ask, NULL), LB_OK);
    lb_question_limits.max_json_values--;
    refused(&ask, llama, LB_E_ARG, "ask for binary_data");
    lb_question_limits = all;
    lb_question_limits.max_tokens = 7;
    refused(&ask, llama, LB_E_LIMIT, "more than 7 tokens");
    lb_question_limits = all;
}

int main(void) {
    struct lb_config config;
    if (!mkdtemp(folder)) {
        return 1;
    }
    lb_tiny_llama(&config);
    llama = lb_tiny_hosted(folder, "llama", &config);
    lb_tiny_mlp(&config);
    mlp = lb_tiny_hosted(folder, "mlp", &config);
    for (int i = 0; i < 6 * 20; i++) {
        ids[i] = (i * 31 + i * i * 7) % V;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_scores), cmocka_unit_test(test_refused_samples),
        cmocka_unit_test(test_refused_inputs), cmocka_unit_test(test_refused_outputs),
        cmocka_unit_test(test_refused_sizes)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lb_hosted_release(llama);
    lb_hosted_release(mlp);
    return lb_remove_tree(folder, NULL) == LB_OK ? failed : 1;
}
