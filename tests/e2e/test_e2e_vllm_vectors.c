/* limbeckd asked for vectors in vLLM's and OpenAI's dialect: the bytes are those of /v2. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "proto/outputs.h"
#include "tests/e2e/ask.h"
#include "tests/support/tiny_model.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define B 2
#define T 5
#define C 32
#define IDS "[[11,48,85,25,62],[2,39,76]]"

static char folder[] = "/tmp/limbeck-e2e-vectors-XXXXXX";
static struct lb_daemon daemon_;
static const int32_t ids[B * T] = {11, 48, 85, 25, 62, 2, 39, 76, 0, 0}, lengths[B] = {T, 3};

static void post(const char *path, const char *body, int status, struct lb_answer *answer) {
    assert_true(lb_daemon_ask(&daemon_, "POST", path, "", body, strlen(body), answer));
    if (answer->status != status) {
        fail_msg("%s: status %d, not %d: %s", body, answer->status, status, answer->body.data);
    }
}

static json_t *post_json(const char *path, const char *body, int status) {
    return lb_ask_json(&daemon_, path, "", body, status);
}

static void reference(struct lb_ask *ask, const char *model, const char *output, enum lb_datatype dtype) {
    lb_ask_ids(ask, B, T, ids);
    lb_ask_input(ask, LB_IN_LENGTHS, LB_DT_INT32, B, 0, lengths);
    lb_ask_output(ask, output, dtype, true);
    lb_ask_send_ok(&daemon_, model, ask, "");
}

/* Bytes of base64 without spaces. */
static size_t from_base64(const char *text, uint8_t *out) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = 0;
    uint32_t bits = 0;
    int held = 0;
    for (; *text && *text != '='; text++) {
        bits = bits << 6 | (uint32_t)(strchr(letters, *text) - letters);
        held += 6;
        if (held >= 8) {
            held -= 8;
            out[n++] = (uint8_t)(bits >> held);
        }
    }
    return n;
}

/* Final states of every token, one sequence behind the other, without padding. */
static void test_pooling_bytes(void **state) {
    (void)state;
    static const struct {
        const char *name;
        enum lb_datatype dtype;
        size_t size;
    } types[] = {{"float32", LB_DT_FP32, 4}, {"float16", LB_DT_FP16, 2}, {"bfloat16", LB_DT_BF16, 2}};
    for (int i = 0; i < 6; i++) {
        bool only = i >= 3;
        size_t row = C * types[i % 3].size;
        char body[400], metadata[600];
        struct lb_answer answer;
        struct lb_ask ask;
        snprintf(body, sizeof body,
                 "{\"model\":\"teacher\",\"input\":" IDS ",\"task\":\"token_embed\",\"use_activation\":false,"
                 "\"add_special_tokens\":false,\"encoding_format\":\"%s\",\"embed_dtype\":\"%s\","
                 "\"endianness\":\"little\"}",
                 only ? "bytes_only" : "bytes", types[i % 3].name);
        post("/pooling", body, 200, &answer);
        reference(&ask, "teacher", "hidden_states.final", types[i % 3].dtype);
        const char *want = ask.response.outputs[0].data;
        assert_int_equal(answer.body.len, (T + 3) * row);
        assert_memory_equal(answer.body.data, want, T * row);
        assert_memory_equal(answer.body.data + T * row, want + T * row, 3 * row);
        assert_int_equal(lb_answer_header(&answer, "metadata", metadata, sizeof metadata), !only);
        if (!only) {
            char expected[600];
            snprintf(
                expected, sizeof expected,
                "{\"data\":[{\"index\":0,\"embed_dtype\":\"%s\",\"endianness\":\"little\",\"start\":0,"
                "\"end\":%zu,\"shape\":[5,32]},{\"index\":1,\"embed_dtype\":\"%s\",\"endianness\":\"little\","
                "\"start\":%zu,\"end\":%zu,\"shape\":[3,32]}],\"usage\":{\"prompt_tokens\":8,"
                "\"total_tokens\":8}}",
                types[i % 3].name, T * row, types[i % 3].name, T * row, (T + 3) * row);
            assert_string_equal(metadata, expected);
        }
        lb_answer_finish(&answer);
        lb_ask_finish(&ask);
    }
}

/* The same as JSON: lists of numbers, and base64. */
static void test_pooling_json(void **state) {
    (void)state;
    struct lb_ask ask;
    uint8_t bytes[T * C * 4 + 3];
    reference(&ask, "teacher", "hidden_states.final", LB_DT_FP32);
    const float *want = ask.response.outputs[0].data;
    json_t *answer =
        post_json("/pooling", "{\"model\":\"teacher\",\"input\":" IDS ",\"use_activation\":false}", 200);
    const json_t *data = json_object_get(answer, "data");
    for (size_t b = 0; b < B; b++) {
        const json_t *rows = json_object_get(json_array_get(data, b), "data");
        assert_int_equal(json_array_size(rows), lengths[b]);
        for (size_t i = 0; i < (size_t)lengths[b] * C; i++) {
            double x = json_real_value(json_array_get(json_array_get(rows, i / C), i % C));
            assert_true((float)x == want[b * T * C + i]);
        }
    }
    json_decref(answer);
    answer = post_json("/pooling",
                       "{\"model\":\"teacher\",\"input\":" IDS
                       ",\"use_activation\":false,\"encoding_format\":\"base64\"}",
                       200);
    data = json_object_get(answer, "data");
    assert_string_equal(json_string_value(json_object_get(json_array_get(data, 1), "object")), "pooling");
    assert_int_equal(from_base64(json_string_value(json_object_get(json_array_get(data, 1), "data")), bytes),
                     3 * C * 4);
    assert_memory_equal(bytes, want + T * C, 3 * C * 4);
    json_decref(answer);
    lb_ask_finish(&ask);
}

static void test_embeddings(void **state) {
    (void)state;
    struct lb_ask ask;
    uint8_t bytes[C * 4 + 3];
    reference(&ask, "encoder", "sentence_embedding", LB_DT_FP32);
    const float *want = ask.response.outputs[0].data;
    json_t *answer =
        post_json("/v1/embeddings", "{\"model\":\"encoder\",\"input\":" IDS ",\"dimensions\":32}", 200);
    const json_t *data = json_object_get(answer, "data");
    assert_int_equal(json_array_size(data), B);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(answer, "usage"), "total_tokens")),
                     8);
    for (size_t i = 0; i < B * C; i++) {
        const json_t *vector = json_object_get(json_array_get(data, i / C), "embedding");
        assert_int_equal(json_array_size(vector), C);
        assert_true((float)json_real_value(json_array_get(vector, i % C)) == want[i]);
    }
    json_decref(answer);
    answer = post_json("/v1/embeddings",
                       "{\"model\":\"encoder\",\"input\":" IDS ",\"encoding_format\":\"base64\"}", 200);
    data = json_object_get(answer, "data");
    for (size_t b = 0; b < B; b++) {
        const char *text = json_string_value(json_object_get(json_array_get(data, b), "embedding"));
        assert_int_equal(from_base64(text, bytes), C * 4);
        assert_memory_equal(bytes, want + b * C, C * 4);
    }
    json_decref(answer);
    lb_ask_finish(&ask);
    /* texts as the tokenizer cuts them */
    json_t *texts = post_json("/v1/embeddings", "{\"model\":\"encoder\",\"input\":\"ab\"}", 200);
    json_t *same = post_json("/v1/embeddings", "{\"model\":\"encoder\",\"input\":[64,65]}", 200);
    assert_true(json_equal(json_object_get(texts, "data"), json_object_get(same, "data")));
    json_decref(texts);
    json_decref(same);
}

/* Log-probabilities of chosen ids: those of /v2 at the rows from start on, minus infinity where none is. */
static void test_gathered(void **state) {
    (void)state;
    static const struct {
        const char *more;
        double temperature;
    } asked[] = {{"\"temperature\":1.5", 1.5}, {"\"temperature\":0,\"prompt_logprobs\":1", 1}};
    int32_t scores[T * 2] = {-1, -1, -1, -1, 7, 25, 62, -1, -1, -1}; /* rows 2 and 3 */
    uint8_t npy[1000];
    for (int i = 0; i < 2; i++) {
        struct lb_ask ask;
        char body[400];
        lb_ask_ids(&ask, 1, T, ids);
        lb_ask_input(&ask, LB_IN_SCORE_IDS, LB_DT_INT32, 1, T, scores);
        ask.inputs[1].n_dims = 3;
        ask.inputs[1].dim[2] = 2;
        ask.inputs[1].bytes = sizeof scores;
        ask.request.temperature = asked[i].temperature;
        lb_ask_output(&ask, "logprobs.at_ids", LB_DT_NONE, true);
        lb_ask_send_ok(&daemon_, "teacher", &ask, "");
        const float *want = ask.response.outputs[0].data;
        snprintf(
            body, sizeof body,
            "{\"model\":\"teacher\",\"token_ids\":[11,48,85,25,62],\"request_id\":\"r\",\"sampling_params\":{"
            "\"max_tokens\":1,\"prompt_logprob_start\":2,\"prompt_logprob_token_ids\":[[7,25],[62]],%s}}",
            asked[i].more);
        json_t *answer = post_json("/inference/v1/generate", body, 200);
        assert_string_equal(json_string_value(json_object_get(answer, "request_id")), "r");
        assert_int_equal(json_is_null(json_object_get(answer, "prompt_logprobs")), i == 0);
        size_t n = from_base64(json_string_value(json_object_get(answer, "prompt_token_id_logprobs")), npy);
        assert_int_equal(n, 128 + 4 * 4);
        float got[4];
        memcpy(got, npy + 128, sizeof got);
        assert_true(got[0] == want[4] && got[1] == want[5] && got[2] == want[6] && got[3] == -INFINITY);
        assert_true(got[0] < 0 && got[1] < 0 && got[2] < 0);
        const json_t *choice = json_array_get(json_object_get(answer, "choices"), 0);
        assert_int_equal(json_array_size(json_object_get(choice, "token_ids")), 1);
        json_decref(answer);
        lb_ask_finish(&ask);
    }
}

static void test_errors(void **state) {
    (void)state;
    static char long_id[400];
    snprintf(long_id, sizeof long_id,
             "{\"model\":\"teacher\",\"input\":[1],\"use_activation\":false,\"request_id\":\"%0257d\"}", 0);
    static const struct {
        const char *path, *param, *part, *body;
    } bad[] = {
        {"/pooling", "use_activation", "must be false", "{\"model\":\"teacher\",\"input\":[1]}"},
        {"/v1/embeddings", "normalize", "leave it out",
         "{\"model\":\"encoder\",\"input\":[1],\"normalize\":true}"},
        {"/v1/embeddings", "use_activation", "leave it out",
         "{\"model\":\"encoder\",\"input\":[1],\"use_activation\":false}"},
        {"/pooling", "task", "token_embed",
         "{\"model\":\"teacher\",\"input\":[1],\"use_activation\":false,\"task\":\"embed\"}"},
        {"/pooling", "endianness", "little",
         "{\"model\":\"teacher\",\"input\":[1],\"use_activation\":false,\"endianness\":\"big\"}"},
        {"/pooling", "embed_dtype", "float16",
         "{\"model\":\"teacher\",\"input\":[1],\"use_activation\":false,\"embed_dtype\":\"fp8_e4m3\"}"},
        {"/pooling", "embed_dtype", "floats are float32",
         "{\"model\":\"teacher\",\"input\":[1],\"use_activation\":false,\"embed_dtype\":\"float16\"}"},
        {"/pooling", "input", "missing", "{\"model\":\"teacher\",\"use_activation\":false}"},
        {"/pooling", "input", "outside the vocabulary",
         "{\"model\":\"teacher\",\"input\":[97],\"use_activation\":false}"},
        {"/pooling", NULL, "not valid JSON", "{"},
        {"/pooling", "request_id", "at most 256", long_id},
        {"/inference/v1/generate", "max_tokens", "at most 1", "{\"model\":\"teacher\",\"token_ids\":[1]}"},
        {"/inference/v1/generate", "prompt_logprob_token_ids", "prompt_logprob_token_ids[1][0] = 97",
         "{\"model\":\"teacher\",\"token_ids\":[1,2,3],\"sampling_params\":{\"max_tokens\":0,"
         "\"prompt_logprob_token_ids\":[[96],[97]]}}"},
        {"/inference/v1/generate", "token_ids", "token_ids 0: token 2 is 97: outside the vocabulary",
         "{\"model\":\"teacher\",\"token_ids\":[1,2,97],\"sampling_params\":{\"max_tokens\":0}}"},
        {"/inference/v1/generate", NULL, "does not write text",
         "{\"model\":\"encoder\",\"token_ids\":[1],\"sampling_params\":{\"max_tokens\":0}}"},
        {"/v1/embeddings", "input", "input 0 is empty", "{\"model\":\"encoder\",\"input\":\"\"}"},
        {"/v1/embeddings", "encoding_format", "float, base64",
         "{\"model\":\"encoder\",\"input\":[1],\"encoding_format\":\"bytes\"}"},
        {"/v1/embeddings", "dimensions", "have 32", "{\"model\":\"encoder\",\"input\":[1],\"dimensions\":8}"},
        {"/v1/embeddings", "truncate_prompt_tokens", "leave it out",
         "{\"model\":\"encoder\",\"input\":[1],\"truncate_prompt_tokens\":4}"},
        {"/v1/embeddings", NULL, "modules.json", "{\"model\":\"teacher\",\"input\":[1]}"},
        {"/v1/embeddings", "model", "3 are served", "{\"input\":[1]}"},
        {"/pooling", NULL, "one row a text",
         "{\"model\":\"classifier\",\"input\":[1,2],\"use_activation\":false}"},
        {"/v1/completions", NULL, "does not write text",
         "{\"model\":\"classifier\",\"prompt\":[1,2],\"max_tokens\":1}"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct lb_answer answer;
        json_t *json = NULL;
        assert_true(
            lb_daemon_ask(&daemon_, "POST", bad[i].path, "", bad[i].body, strlen(bad[i].body), &answer));
        assert_int_equal(lb_json_parse(answer.body.data, answer.body.len, 0, "answer", &json, NULL), LB_OK);
        const json_t *error = json_object_get(json, "error");
        const char *param = json_string_value(json_object_get(error, "param"));
        const char *message = json_string_value(json_object_get(error, "message"));
        if (answer.status / 100 == 2 || !message || !strstr(message, bad[i].part) ||
            !param != !bad[i].param || (param && strcmp(param, bad[i].param) != 0) ||
            json_integer_value(json_object_get(error, "code")) != answer.status) {
            fail_msg("%s: %d %s", bad[i].body, answer.status, answer.body.data);
        }
        json_decref(json);
        lb_answer_finish(&answer);
    }
}

/* begin, then a list of n times item, then end. */
static void repeat(struct lb_buf *body, const char *begin, const char *item, int n, const char *end) {
    lb_buf_init(body, 1 << 23);
    lb_buf_append_str(body, begin);
    for (int i = 0; i < n; i++) {
        lb_buf_printf(body, "%s%s", i > 0 ? "," : "", item);
    }
    lb_buf_append_str(body, end);
    assert_int_equal(lb_buf_status(body), LB_OK);
}

/* As many entries as the header may tell of, and more. */
static void test_many(void **state) {
    (void)state;
    static const char begin[] =
        "{\"model\":\"teacher\",\"use_activation\":false,\"encoding_format\":\"bytes\",\"input\":[";
    static char metadata[65536];
    struct lb_buf body;
    struct lb_answer answer;
    json_t *json = NULL;
    repeat(&body, begin, "[1]", 500, "]}");
    post("/pooling", body.data, 200, &answer);
    lb_buf_finish(&body);
    assert_int_equal(answer.body.len, 500 * C * 4);
    assert_true(lb_answer_header(&answer, "metadata", metadata, sizeof metadata));
    assert_int_equal(lb_json_parse(metadata, strlen(metadata), 0, "metadata", &json, NULL), LB_OK);
    assert_int_equal(json_array_size(json_object_get(json, "data")), 500);
    json_decref(json);
    lb_answer_finish(&answer);
    repeat(&body, begin, "[1]", 1000, "]}");
    post("/pooling", body.data, 400, &answer);
    assert_non_null(strstr(answer.body.data, "bytes_only"));
    lb_answer_finish(&answer);
    lb_buf_finish(&body);
}

/* Many ids for a row far behind: what is before it is not paid for, or refused before it is. */
static void test_gathers_far(void **state) {
    (void)state;
    struct lb_buf body, ids_of_row;
    struct lb_answer answer;
    repeat(&ids_of_row, "", "1", 16384, "");
    repeat(&body, "{\"model\":\"teacher\",\"token_ids\":[", "1", 5000,
           "],\"sampling_params\":{\"max_tokens\":0,\"prompt_logprob_start\":4998,"
           "\"prompt_logprob_token_ids\":[");
    lb_buf_append(&body, ids_of_row.data, ids_of_row.len);
    lb_buf_append_str(&body, "]}}");
    post("/inference/v1/generate", body.data, 413, &answer);
    assert_non_null(strstr(answer.body.data, "prompt_logprob_token_ids"));
    lb_answer_finish(&answer);
    lb_buf_finish(&ids_of_row);
    lb_buf_finish(&body);
}

/* Memory is counted before it is taken: for prompts of unlike lengths side by side, for texts that are cut
 * into tokens. */
static void test_memory(void **state) {
    (void)state;
    struct lb_buf body, line;
    repeat(&line, "[", "1", 64, "]");
    struct lb_answer answer;
    repeat(&body, "{\"model\":\"teacher\",\"max_tokens\":0,\"prompt\":[[", "1", 10000, "]");
    for (int i = 1; i < 4096; i++) {
        lb_buf_append_str(&body, ",[1]");
    }
    lb_buf_append_str(&body, "]}");
    post("/v1/completions", body.data, 413, &answer);
    assert_non_null(strstr(answer.body.data, "--memory-limit-mib"));
    lb_answer_finish(&answer);
    lb_buf_finish(&body);
    /* as text it would be too much for any answer, however much memory there is */
    repeat(&body, "{\"model\":\"teacher\",\"max_tokens\":0,\"prompt_logprobs\":-1,\"prompt\":[", line.data,
           4096, "]}");
    post("/v1/completions", body.data, 413, &answer);
    assert_non_null(strstr(answer.body.data, "prompt_logprobs of 97 ids"));
    lb_answer_finish(&answer);
    lb_buf_finish(&body);
    /* more ids than there are are not paid for */
    repeat(&body, "{\"model\":\"teacher\",\"max_tokens\":0,\"prompt_logprobs\":16384,\"prompt\":[", line.data,
           30, "]}");
    post("/v1/completions", body.data, 200, &answer);
    lb_answer_finish(&answer);
    lb_buf_finish(&body);
    lb_buf_finish(&line);
    repeat(&body, "{\"model\":\"encoder\",\"input\":\"", "aaaaaaaaaaaaaaa", 262144, "\"}");
    post("/v1/embeddings", body.data, 413, &answer);
    assert_non_null(strstr(answer.body.data, "--memory-limit-mib"));
    lb_answer_finish(&answer);
    lb_buf_finish(&body);
}

static int start_all(void **state) {
    (void)state;
    struct lb_config config;
    char teacher[160], encoder[160], classifier[160];
    assert_non_null(mkdtemp(folder));
    snprintf(teacher, sizeof teacher, "teacher=%s/teacher", folder);
    snprintf(encoder, sizeof encoder, "encoder=%s/encoder", folder);
    snprintf(classifier, sizeof classifier, "classifier=%s/classifier", folder);
    lb_tiny_llama(&config);
    lb_tiny_save(&config, 1, strchr(teacher, '/'), LB_F32, true);
    config.num_labels = 3;
    lb_tiny_save(&config, 3, strchr(classifier, '/'), LB_F32, true);
    lb_tiny_bert(&config);
    lb_tiny_save(&config, 2, strchr(encoder, '/'), LB_F32, true);
    assert_true(lb_daemon_start(
        &daemon_, folder, "daemon",
        (const char *[]){"--memory-limit-mib", "128", teacher, encoder, classifier, NULL}, true));
    return 0;
}

static int stop_all(void **state) {
    (void)state;
    assert_int_equal(lb_daemon_stop(&daemon_, SIGTERM), 0);
    assert_int_equal(lb_remove_tree(folder, NULL), LB_OK);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pooling_bytes), cmocka_unit_test(test_pooling_json),
        cmocka_unit_test(test_embeddings),    cmocka_unit_test(test_gathered),
        cmocka_unit_test(test_errors),        cmocka_unit_test(test_many),
        cmocka_unit_test(test_gathers_far),   cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, start_all, stop_all);
}
