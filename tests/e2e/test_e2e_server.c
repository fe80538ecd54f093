/* A real limbeckd over real sockets: what it answers, what it refuses and how. One daemon for all but what
 * needs its own options. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "proto/oip.h"
#include "server/http/compress.h"
#include "tests/e2e/ask.h"
#include "tests/support/daemon.h"
#include "tests/support/tiny_model.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define V 97

static char folder[] = "/tmp/limbeck-e2e-XXXXXX";
static char teacher[128], other[128], mlp[128];
static struct lb_daemon daemon_;

static int32_t ids[4 * 16];

static void fill_ids(void) {
    for (int i = 0; i < 4 * 16; i++) {
        ids[i] = (i * 37 + 11) % V;
    }
}

/* ---- what it is ---- */

static void get(const char *path, const char *headers, int status, struct lb_answer *answer) {
    assert_true(lb_daemon_ask(&daemon_, "GET", path, headers, NULL, 0, answer));
    assert_int_equal(answer->status, status);
}

static json_t *get_json(const char *path) {
    struct lb_answer answer;
    json_t *json = NULL;
    get(path, "", 200, &answer);
    assert_int_equal(lb_json_parse(answer.body.data, answer.body.len, 0, path, &json, NULL), LB_OK);
    lb_answer_finish(&answer);
    return json;
}

static void fingerprint(const char *model, char out[LB_SHA256_HEX]) {
    char path[128];
    snprintf(path, sizeof path, "/v2/models/%s", model);
    json_t *json = get_json(path);
    const char *version = json_string_value(json_array_get(json_object_get(json, "versions"), 0));
    assert_int_equal(strlen(version), 64);
    strcpy(out, version);
    json_decref(json);
}

static void test_metadata(void **state) {
    (void)state;
    json_t *json = get_json("/v2/models/teacher");
    const json_t *p = json_object_get(json, "parameters");
    assert_string_equal(json_string_value(json_object_get(json, "name")), "teacher");
    assert_string_equal(json_string_value(json_object_get(p, "fingerprint")),
                        json_string_value(json_array_get(json_object_get(json, "versions"), 0)));
    assert_int_equal(json_integer_value(json_object_get(p, "vocab_size")), V);
    assert_int_equal(json_integer_value(json_object_get(p, "hidden_size")), 32);
    assert_int_equal(json_integer_value(json_object_get(p, "num_layers")), 2);
    assert_int_equal(json_integer_value(json_object_get(p, "max_length")), 128);
    assert_true(json_is_true(json_object_get(p, "batch_invariant")));
    assert_true(json_string_length(json_object_get(p, "tokenizer_fingerprint")) == 64);
    assert_true(json_string_length(json_object_get(p, "kernels")) > 0);
    json_decref(json);
    json = get_json("/v2");
    assert_string_equal(json_string_value(json_object_get(json, "name")), "limbeckd");
    json_decref(json);
    json = get_json("/v2/models/mlp/config");
    assert_string_equal(
        json_string_value(json_object_get(json_array_get(json_object_get(json, "input"), 0), "data_type")),
        "TYPE_FP32");
    json_decref(json);
    json_decref(get_json("/v2/health/live"));
    json_decref(get_json("/health/"));
    json_decref(get_json("/v2/models/teacher/ready"));
}

static void test_versions(void **state) {
    (void)state;
    char version[LB_SHA256_HEX], path[256];
    struct lb_answer answer;
    fingerprint("teacher", version);
    snprintf(path, sizeof path, "/v2/models/teacher/versions/%s/ready", version);
    get(path, "", 200, &answer);
    lb_answer_finish(&answer);
    fingerprint("other", version); /* another model's */
    snprintf(path, sizeof path, "/v2/models/teacher/versions/%s/ready", version);
    get(path, "", 404, &answer);
    assert_non_null(strstr(answer.body.data, version));
    lb_answer_finish(&answer);
}

static void test_index_stats(void **state) {
    (void)state;
    struct lb_answer answer;
    json_t *json = NULL;
    assert_true(lb_daemon_ask(&daemon_, "POST", "/v2/repository/index", "", "{\"ready\":true}", 14, &answer));
    assert_int_equal(lb_json_parse(answer.body.data, answer.body.len, 0, "index", &json, NULL), LB_OK);
    assert_int_equal(json_array_size(json), 3);
    assert_string_equal(json_string_value(json_object_get(json_array_get(json, 0), "state")), "READY");
    json_decref(json);
    lb_answer_finish(&answer);
    struct lb_ask ask;
    lb_ask_ids(&ask, 2, 16, ids);
    lb_ask_output(&ask, "logsumexp", LB_DT_NONE, true);
    lb_ask_send_ok(&daemon_, "teacher", &ask, "");
    lb_ask_finish(&ask);
    json = get_json("/v2/models/teacher/stats");
    const json_t *one = json_array_get(json_object_get(json, "model_stats"), 0);
    const char *version = json_string_value(json_object_get(one, "version")),
               *fingerprint = json_string_value(json_object_get(one, "fingerprint"));
    assert_true(version && version[0] &&
                version[strspn(version, "0123456789")] == 0); /* clients make it a number */
    assert_int_equal(strlen(fingerprint), 64);
    const json_t *sums = json_object_get(one, "inference_stats"),
                 *infer = json_object_get(json_object_get(sums, "compute_infer"), "count");
    assert_true(json_integer_value(infer) >= 1);
    assert_true(json_equal(json_object_get(json_object_get(sums, "compute_input"), "count"), infer));
    assert_true(json_equal(json_object_get(json_object_get(sums, "compute_output"), "count"), infer));
    assert_true(json_integer_value(json_object_get(one, "inference_count")) >= 2);
    assert_true(json_integer_value(json_object_get(one, "execution_count")) >= 1);
    json_decref(json);
}

/* ---- what it computes ---- */

static void test_json_equals_binary(void **state) {
    (void)state;
    const char *names[] = {"logits",          "logits.topk_ids", "logits.topk_values",  "logsumexp",
                           "logprobs.actual", "hidden_states.1", "hidden_states.final", "attentions.1"};
    struct lb_ask binary, text;
    lb_ask_ids(&binary, 2, 16, ids);
    lb_ask_ids(&text, 2, 16, ids);
    text.request.inputs[0].binary = false;
    for (int i = 0; i < 8; i++) {
        lb_ask_output(&binary, names[i], LB_DT_NONE, true);
        lb_ask_output(&text, names[i], LB_DT_NONE, false);
    }
    binary.request.temperature = text.request.temperature = 0.7;
    lb_ask_send_ok(&daemon_, "teacher", &binary, "");
    lb_ask_send_ok(&daemon_, "teacher", &text, "");
    assert_int_equal(binary.response.n_outputs, 8);
    assert_int_equal(text.response.n_outputs, 8);
    for (int i = 0; i < 8; i++) {
        const struct lb_wire_tensor *b = &binary.response.outputs[i], *t = &text.response.outputs[i];
        assert_string_equal(b->name, names[i]);
        assert_string_equal(t->name, names[i]);
        assert_int_equal(b->bytes, t->bytes);
        assert_memory_equal(b->data, t->data, b->bytes);
    }
    /* A client that sends an earlier request's headers with a body that is all JSON. */
    struct lb_ask stale;
    lb_ask_ids(&stale, 2, 16, ids);
    stale.request.inputs[0].binary = false;
    lb_ask_output(&stale, "logits", LB_DT_NONE, true);
    stale.request.temperature = 0.7;
    lb_ask_send_ok(&daemon_, "teacher", &stale,
                   LB_HEADER_JSON_LENGTH ": 40\r\nContent-Encoding: deflate\r\n");
    assert_memory_equal(stale.response.outputs[0].data, binary.response.outputs[0].data,
                        binary.response.outputs[0].bytes);
    lb_ask_finish(&stale);
    char header[32];
    assert_true(lb_answer_header(&binary.answer, LB_HEADER_JSON_LENGTH, header, sizeof header));
    assert_false(lb_answer_header(&text.answer, LB_HEADER_JSON_LENGTH, header, sizeof header));
    assert_true(lb_answer_header(&text.answer, "Content-Type", header, sizeof header));
    assert_string_equal(header, "application/json");
    lb_ask_finish(&binary);
    lb_ask_finish(&text);
}

/* One sequence's logits alone, in company, padded, and from a later start. */
static void test_batch_invariance(void **state) {
    (void)state;
    struct lb_ask together, padded;
    lb_ask_ids(&together, 4, 16, ids);
    lb_ask_output(&together, "logits", LB_DT_NONE, true);
    lb_ask_send_ok(&daemon_, "teacher", &together, "");
    const float *all = together.response.outputs[0].data;
    for (int b = 0; b < 4; b++) {
        struct lb_ask alone;
        lb_ask_ids(&alone, 1, 16, ids + b * 16);
        lb_ask_output(&alone, "logits", LB_DT_NONE, true);
        lb_ask_send_ok(&daemon_, "teacher", &alone, "");
        assert_memory_equal(alone.response.outputs[0].data, all + b * 16 * V, 16 * V * sizeof(float));
        lb_ask_finish(&alone);
    }
    int32_t lengths[4] = {16, 9, 1, 13}, starts[4] = {12, 5, 0, 12};
    lb_ask_ids(&padded, 4, 16, ids);
    lb_ask_input(&padded, "lengths", LB_DT_INT32, 4, 0, lengths);
    lb_ask_input(&padded, "start", LB_DT_INT32, 4, 0, starts);
    lb_ask_output(&padded, "logits", LB_DT_NONE, true);
    lb_ask_send_ok(&daemon_, "teacher", &padded, "");
    assert_int_equal(padded.response.outputs[0].dim[1], 4);
    const float *some = padded.response.outputs[0].data;
    for (int b = 0; b < 4; b++) {
        struct lb_ask
            alone; /* the same sequence: a longer one with the same beginning may differ in the last bit */
        lb_ask_ids(&alone, 1, lengths[b], ids + b * 16);
        lb_ask_output(&alone, "logits", LB_DT_NONE, true);
        lb_ask_send_ok(&daemon_, "teacher", &alone, "");
        const float *want = alone.response.outputs[0].data;
        for (int r = 0; r < 4; r++) {
            const float *row = some + (b * 4 + r) * V;
            for (int j = 0; j < V; j++) {
                assert_true(row[j] == (starts[b] + r < lengths[b] ? want[(starts[b] + r) * V + j] : 0.0f));
            }
        }
        lb_ask_finish(&alone);
    }
    lb_ask_finish(&padded);
    lb_ask_finish(&together);
}

/* An answer that is asked for its digest ends with it; the others have none. */
static void test_answer_digest(void **state) {
    (void)state;
    for (int form = 0; form < 3; form++) { /* all binary, one output as JSON, all JSON */
        struct lb_ask ask;
        char header[128], length[32];
        lb_ask_ids(&ask, 2, 16, ids);
        lb_ask_output(&ask, "logsumexp", LB_DT_NONE, form == 0);
        lb_ask_output(&ask, "logits.topk_values", LB_DT_NONE, form < 2);
        ask.request.answer_digest = true;
        lb_ask_send_ok(&daemon_, "teacher", &ask, "");
        assert_true(lb_answer_header(&ask.answer, LB_HEADER_DIGEST, header, sizeof header));
        bool binary = lb_answer_header(&ask.answer, LB_HEADER_JSON_LENGTH, length, sizeof length);
        assert_int_equal(binary, form < 2);
        assert_int_equal(ask.response.n_outputs, form < 2 ? 3 : 2);
        struct lb_buf *body = &ask.answer.body;
        int64_t json_len = binary ? atoll(length) : -1;
        const char *of = header + strlen("sha-256=");
        assert_int_equal(lb_answer_digest_check(body->data, body->len, json_len, of, NULL), LB_OK);
        body->data[body->len / 2] ^= 1;
        assert_int_equal(lb_answer_digest_check(body->data, body->len, json_len, of, NULL), LB_E_FORMAT);
        lb_ask_finish(&ask);
    }
}

/* Logits of more than 8 MiB are made while they are read: those of the engine, with their digest, beside an
 * output that stands before and one that stands behind them. Clients that leave in the midst harm nobody. */
static void test_streamed_logits(void **state) {
    (void)state;
    enum { MANY = 1500, LEAVE = 3 };
    int32_t *many = lb_malloc_array((size_t)MANY * 16, sizeof *many);
    struct lb_ask few, ask;
    char header[128], length[32];
    assert_non_null(many);
    for (int i = 0; i < MANY * 16; i++) {
        many[i] = ids[i % 64];
    }
    lb_ask_ids(&few, 4, 16, ids);
    lb_ask_output(&few, "logits", LB_DT_NONE, true);
    lb_ask_output(&few, "logsumexp", LB_DT_NONE, true);
    lb_ask_send_ok(&daemon_, "teacher", &few, "");
    for (int i = 0; i <= LEAVE; i++) {
        lb_ask_ids(&ask, MANY, 16, many);
        lb_ask_output(&ask, "logsumexp", LB_DT_NONE, true);
        lb_ask_output(&ask, "logits", LB_DT_NONE, true);
        lb_ask_output(&ask, "logits.topk_ids", LB_DT_UINT16, true);
        ask.request.answer_digest = true;
        if (i < LEAVE) {
            assert_true(lb_ask_send_only(&daemon_, "teacher", &ask));
            lb_ask_finish(&ask);
        }
    }
    lb_ask_send_ok(&daemon_, "teacher", &ask, "");
    assert_int_equal(ask.response.n_outputs, 4);
    const struct lb_wire_tensor *z = &ask.response.outputs[1], *of_few = &few.response.outputs[0];
    size_t sequence = (size_t)16 * V * sizeof(float);
    assert_int_equal(z->bytes, MANY * sequence);
    assert_true(z->bytes > (size_t)8 << 20);
    for (int i = 0; i < MANY; i++) {
        assert_memory_equal((const char *)z->data + (size_t)i * sequence,
                            (const char *)of_few->data + (size_t)(i % 4) * sequence, sequence);
        assert_memory_equal((const float *)ask.response.outputs[0].data + i * 16,
                            (const float *)few.response.outputs[1].data + i % 4 * 16, 16 * sizeof(float));
    }
    assert_true(lb_answer_header(&ask.answer, LB_HEADER_DIGEST, header, sizeof header));
    assert_true(lb_answer_header(&ask.answer, LB_HEADER_JSON_LENGTH, length, sizeof length));
    assert_int_equal(lb_answer_digest_check(ask.answer.body.data, ask.answer.body.len, atoll(length),
                                            header + strlen("sha-256="), NULL),
                     LB_OK);
    lb_ask_finish(&ask);
    lb_ask_finish(&few);
    lb_free(many);
}

static void test_classifier(void **state) {
    (void)state;
    float x[3 * 12];
    for (int i = 0; i < 36; i++) {
        x[i] = (float)(i % 5) - 2;
    }
    struct lb_ask ask;
    lb_ask_init(&ask);
    lb_ask_input(&ask, "features", LB_DT_FP32, 3, 12, x);
    lb_ask_output(&ask, "logits", LB_DT_NONE, true);
    lb_ask_output(&ask, "hidden_states.final", LB_DT_FP16, true);
    lb_ask_send_ok(&daemon_, "mlp", &ask, "");
    assert_int_equal(ask.response.outputs[0].n_dims, 2);
    assert_int_equal(ask.response.outputs[0].dim[1], 5);
    assert_int_equal(ask.response.outputs[1].dim[1], 8);
    assert_int_equal(ask.response.outputs[1].bytes, 3 * 8 * 2);
    lb_ask_finish(&ask);
}

static void test_headers(void **state) {
    (void)state;
    char version[LB_SHA256_HEX], digest[LB_SHA256_HEX], expected[80], value[128], model[160];
    struct lb_ask ask, plain;
    fingerprint("teacher", version);
    snprintf(model, sizeof model, "teacher/versions/%s", version);
    lb_ask_ids(&ask, 1, 16, ids);
    ask.request.id = "request 7";
    lb_ask_send_ok(&daemon_, model, &ask, "X-Request-Id: trace-42\r\n");
    assert_string_equal(ask.response.id, "request 7");
    assert_string_equal(ask.response.model_version, version);
    assert_string_equal(ask.response.model_name, "teacher");
    assert_int_equal(ask.response.n_outputs, 3); /* nothing was asked for by name */
    assert_int_equal(ask.response.outputs[0].dim[2], 64);
    assert_true(lb_answer_header(&ask.answer, "X-Request-Id", value, sizeof value));
    assert_string_equal(value, "trace-42");
    assert_int_equal(lb_request_digest(version, &ask.request, digest), LB_OK);
    snprintf(expected, sizeof expected, "sha-256=%s", digest);
    assert_true(lb_answer_header(&ask.answer, LB_HEADER_DIGEST, value, sizeof value));
    assert_string_equal(value, expected);
    assert_true(lb_answer_header(&ask.answer, "Cache-Control", value, sizeof value));
    assert_non_null(strstr(value, "immutable"));
    assert_true(lb_answer_header(&ask.answer, "Vary", value, sizeof value));
    assert_string_equal(value, "Accept-Encoding");
    lb_ask_ids(&plain, 1, 16, ids);
    lb_ask_send_ok(&daemon_, "teacher", &plain, "");
    assert_true(lb_answer_header(&plain.answer, "Cache-Control", value, sizeof value));
    assert_string_equal(value, "no-cache"); /* without a version the answer may change */
    lb_ask_finish(&plain);
    lb_ask_finish(&ask);
}

static void test_compression(void **state) {
    (void)state;
    const enum lb_coding codings[] = {LB_CODING_GZIP, LB_CODING_DEFLATE};
    struct lb_ask plain;
    lb_ask_ids(&plain, 4, 16, ids);
    lb_ask_output(&plain, "logits", LB_DT_NONE, true);
    lb_ask_send_ok(&daemon_, "teacher", &plain, "");
    for (int i = 0; i < 2; i++) {
        struct lb_buf body, packed, unpacked;
        struct lb_answer answer, text;
        size_t json_len = 0;
        char headers[256], value[64];
        lb_buf_init(&body, 1 << 20);
        lb_buf_init(&packed, 1 << 20);
        lb_buf_init(&unpacked, 1 << 20);
        assert_int_equal(lb_infer_request_encode(&plain.request, &body, &json_len, NULL), LB_OK);
        assert_int_equal(
            lb_pack(codings[i], &(struct lb_span){body.data, body.len}, 1, NULL, NULL, &packed, NULL), LB_OK);
        snprintf(headers, sizeof headers,
                 LB_HEADER_JSON_LENGTH ": %zu\r\nContent-Encoding: %s\r\nAccept-Encoding: %s\r\n", json_len,
                 lb_coding_name(codings[i]), lb_coding_name(codings[i]));
        assert_true(lb_daemon_ask(&daemon_, "POST", "/v2/models/teacher/infer", headers, packed.data,
                                  packed.len, &answer));
        assert_int_equal(answer.status, 200);
        /* Tensors of floats don't get smaller, only slower. */
        assert_false(lb_answer_header(&answer, "Content-Encoding", value, sizeof value));
        assert_int_equal(answer.body.len, plain.answer.body.len);
        assert_memory_equal(answer.body.data, plain.answer.body.data, answer.body.len);
        lb_answer_finish(&answer);
        snprintf(headers, sizeof headers, "Accept-Encoding: %s\r\n", lb_coding_name(codings[i]));
        get("/v2/models/teacher/tokenizer", headers, 200, &answer);
        get("/v2/models/teacher/tokenizer", "", 200, &text);
        assert_true(lb_answer_header(&answer, "Content-Encoding", value, sizeof value));
        assert_string_equal(value, lb_coding_name(codings[i]));
        assert_true(answer.body.len < text.body.len);
        assert_int_equal(
            lb_unpack(codings[i], answer.body.data, answer.body.len, NULL, NULL, &unpacked, NULL), LB_OK);
        assert_int_equal(unpacked.len, text.body.len);
        assert_memory_equal(unpacked.data, text.body.data, unpacked.len);
        lb_answer_finish(&answer);
        lb_answer_finish(&text);
        /* Whatever may come packed says so: a cache keeps one of each. */
        get("/v2/models/teacher", headers, 200, &answer);
        assert_true(lb_answer_header(&answer, "Content-Encoding", value, sizeof value));
        assert_true(lb_answer_header(&answer, "Vary", value, sizeof value));
        assert_string_equal(value, "Accept-Encoding");
        lb_answer_finish(&answer);
        lb_buf_finish(&unpacked);
        lb_buf_finish(&packed);
        lb_buf_finish(&body);
    }
    lb_ask_finish(&plain);
}

/* White space around a header's value is not part of it; a sign in front is no number of bytes. */
static void test_json_length(void **state) {
    (void)state;
    const char *const forms[] = {"%zu", "%zu ", "%zu\t ", "+%zu", "-%zu", "0x%zx", "%zu.0"};
    for (int i = 0; i < 7; i++) {
        struct lb_ask ask;
        struct lb_buf body;
        struct lb_answer answer;
        size_t json_len = 0;
        char number[64], headers[160];
        lb_ask_ids(&ask, 1, 16, ids);
        lb_buf_init(&body, 1 << 20);
        assert_int_equal(lb_infer_request_encode(&ask.request, &body, &json_len, NULL), LB_OK);
        const char *digits = strstr(forms[i], "%z");
        snprintf(number, sizeof number, "%.*s%zu%s", (int)(digits - forms[i]), forms[i], json_len,
                 digits + 3);
        snprintf(headers, sizeof headers, LB_HEADER_JSON_LENGTH ": %s\r\n", number);
        assert_true(lb_daemon_ask(&daemon_, "POST", "/v2/models/teacher/infer", headers, body.data, body.len,
                                  &answer));
        assert_int_equal(answer.status, i < 3 ? 200 : 400);
        lb_answer_finish(&answer);
        lb_buf_finish(&body);
        lb_ask_finish(&ask);
    }
}

static void test_downloads(void **state) {
    (void)state;
    struct lb_answer answer;
    char etag[128], headers[200], path[256], version[LB_SHA256_HEX], value[64];
    get("/v2/models/teacher/head", "", 200, &answer);
    assert_true(answer.body.len > V * 32 * 4);
    assert_true(lb_answer_header(&answer, "ETag", etag, sizeof etag));
    lb_answer_finish(&answer);
    snprintf(headers, sizeof headers, "If-None-Match: %s\r\n", etag);
    fingerprint("teacher", version);
    snprintf(path, sizeof path, "/v2/models/teacher/versions/%s/head", version);
    get(path, headers, 304, &answer);
    assert_int_equal(answer.body.len, 0);
    lb_answer_finish(&answer);
    get(path, "If-None-Match: \"another-head\"\r\n", 200, &answer);
    assert_true(lb_answer_header(&answer, "Cache-Control", value, sizeof value));
    assert_non_null(strstr(value, "immutable"));
    lb_answer_finish(&answer);
    struct lb_buf file;
    char tokenizer[256];
    lb_buf_init(&file, 1 << 20);
    snprintf(tokenizer, sizeof tokenizer, "%s/tokenizer.json", teacher);
    assert_int_equal(lb_file_read(tokenizer, &file, NULL), LB_OK);
    get("/v2/models/teacher/tokenizer", "", 200, &answer);
    assert_int_equal(answer.body.len, file.len);
    assert_memory_equal(answer.body.data, file.data, file.len);
    lb_answer_finish(&answer);
    lb_buf_finish(&file);
    get("/v2/models/mlp/tokenizer", "", 404, &answer);
    lb_answer_finish(&answer);
}

/* ---- what it refuses ---- */

static void test_errors(void **state) {
    (void)state;
    static const struct {
        const char *method, *path, *headers, *body;
        int status;
        const char *text;
    } cases[] = {
        {"GET", "/v2/models/nobody", "", "", 404, "not served here"},
        {"POST", "/v2/models/nobody/infer", "", "{}", 404, "nobody"},
        {"GET", "/v3", "", "", 404, "no such path"},
        {"DELETE", "/v2/models/teacher", "", "", 405, "GET, HEAD"},
        {"GET", "/v2/models/teacher/infer", "", "", 405, "POST"},
        {"POST", "/v2/models/teacher/infer", "", "", 400, "empty"},
        {"POST", "/v2/models/teacher/infer", "", "{", 400, "request"},
        {"POST", "/v2/models/teacher/infer", "", "[]", 400, "not an object"},
        {"POST", "/v2/models/teacher/infer", "", "{\"inputs\":[]}", 400, "inputs"},
        {"POST", "/v2/models/teacher/infer", LB_HEADER_JSON_LENGTH ": x\r\n", "{}", 400, "not a number"},
        {"POST", "/v2/models/teacher/infer", LB_HEADER_JSON_LENGTH ": 99\r\n", "{}", 400, "99"},
        {"POST", "/v2/models/teacher/infer", "Content-Encoding: br\r\n", "{}", 415, "gzip"},
        {"POST", "/v2/models/teacher/infer", "Content-Encoding: gzip\r\n", "not gzip at all", 400, "damaged"},
        {"POST", "/v2/models/teacher/infer", "",
         "{\"inputs\":[{\"name\":\"input_ids\",\"shape\":[1,2],\"datatype\":\"INT64\",\"data\":[3,97]}]}",
         400, "input_ids[0,1] = 97"},
        {"POST", "/v2/models/teacher/infer", "",
         "{\"inputs\":[{\"name\":\"input_ids\",\"shape\":[1,2],\"datatype\":\"INT64\",\"data\":[3,4]}],"
         "\"outputs\":[{\"name\":\"probabilities\"}]}",
         400, "logits.topk_ids"},
        {"POST", "/v2/models/teacher/infer", "",
         "{\"inputs\":[{\"name\":\"input_ids\",\"shape\":[1,2],\"datatype\":\"INT64\",\"data\":[3,4]}],"
         "\"parameters\":{\"temperature\":0}}",
         400, "temperature"},
        {"POST", "/v2/models/teacher/infer", "",
         "{\"inputs\":[{\"name\":\"input_ids\",\"shape\":[1,2],\"datatype\":\"INT64\",\"data\":[3,4]}],"
         "\"parameters\":{\"timeout\":1}}",
         504, "deadline"},
        {"POST", "/v2/repository/index", "", "7", 400, "object"},
        {"POST", "/v2/repository/models/teacher/unload", "", "", 403, "admin"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lb_answer answer;
        assert_true(lb_daemon_ask(&daemon_, cases[i].method, cases[i].path, cases[i].headers, cases[i].body,
                                  strlen(cases[i].body), &answer));
        if (answer.status != cases[i].status || !strstr(answer.body.data, cases[i].text)) {
            fail_msg("%s %s %s: %d %s", cases[i].method, cases[i].path, cases[i].body, answer.status,
                     answer.body.data);
        }
        json_t *json = NULL;
        assert_int_equal(lb_json_parse(answer.body.data, answer.body.len, 0, "error", &json, NULL), LB_OK);
        assert_true(json_is_string(json_object_get(json, "error")));
        json_decref(json);
        char allow[64];
        assert_int_equal(answer.status == 405, lb_answer_header(&answer, "Allow", allow, sizeof allow));
        lb_answer_finish(&answer);
    }
}

/* Refused before it is computed, not by its reader afterwards. */
static void check_too_large(int64_t b, int64_t t, const char *const outputs[2], bool binary, int status,
                            const char *text) {
    int32_t *many = calloc((size_t)(b * t), sizeof *many);
    struct lb_ask ask;
    assert_non_null(many);
    int fd = lb_daemon_connect(&daemon_);
    lb_ask_ids(&ask, b, t, many);
    for (int i = 0; i < 2 && outputs[i]; i++) {
        lb_ask_output(&ask, outputs[i], LB_DT_NONE, binary);
    }
    assert_true(lb_ask_on(fd, "teacher", &ask, ""));
    assert_int_equal(ask.answer.status, status);
    assert_non_null(strstr(ask.answer.body.data, text));
    lb_ask_finish(&ask);
    close(fd);
    free(many);
}

/* Tensors or numbers as many as an answer may have leave no room for the JSON that tells their shapes. */
static void test_largest_answers(void **state) {
    (void)state;
    assert_int_equal(2 * 4 * 2048 * 4 * 128 * 128, LB_MAX_RESPONSE_BYTES);
    check_too_large(2048, 128, (const char *const[2]){"attentions.0", "attentions.1"}, true, 413,
                    "the answer would be larger than");
    assert_int_equal(LB_MAX_JSON_VALUES - 959 * 43 * V, 11);
    check_too_large(959, 43, (const char *const[2]){"logits"}, false, 400, "numbers as JSON");
}

#define INFER "POST /v2/models/teacher/infer HTTP/1.1\r\nHost: x\r\n"

/* Bytes that are no request, requests that stop, clients that leave: the daemon goes on. */
static void test_hostile(void **state) {
    (void)state;
    static const char *const pieces[] = {
        "\r\n\r\n\r\n",
        "GET\r\n\r\n",
        "\x16\x03\x01\x02",
        INFER "Content-Length: 100\r\n\r\n{",
        INFER "Content-Length: -5\r\n\r\n",
        INFER "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
        "GET /%00%ff%0a\"x HTTP/1.1\r\nHost: x\r\n\r\n",
    };
    int open_ones[7];
    for (int i = 0; i < 7; i++) {
        open_ones[i] = lb_daemon_connect(&daemon_);
        assert_true(open_ones[i] >= 0);
        assert_true(write(open_ones[i], pieces[i], strlen(pieces[i])) > 0);
    }
    for (int i = 0; i < 50; i++) { /* asks, and doesn't wait for the answer */
        struct lb_ask ask;
        lb_ask_ids(&ask, 4, 16, ids);
        assert_true(lb_ask_send_only(&daemon_, "teacher", &ask));
        lb_ask_finish(&ask);
    }
    struct lb_answer answer;
    int fd = lb_daemon_connect(&daemon_);
    const char *too_large = INFER "Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n";
    assert_true(write(fd, too_large, strlen(too_large)) > 0);
    assert_true(lb_http_receive(fd, &answer));
    assert_int_equal(answer.status, 413);
    lb_answer_finish(&answer);
    close(fd);
    test_batch_invariance(state);
    for (int i = 0; i < 7; i++) {
        close(open_ones[i]);
    }
}

/* ---- several at once ---- */

#define N_CLIENTS 6

struct client {
    const struct lb_ask *expected;
    int index, good;
};

static void *be_client(void *argument) {
    struct client *client = argument;
    int fd = lb_daemon_connect(&daemon_); /* one connection for all */
    for (int i = 0; i < 15; i++) {
        int b = (client->index + i) % 4, n = 1 + i % 2;
        struct lb_ask ask;
        lb_ask_ids(&ask, n, 16, ids + (b + n > 4 ? 0 : b) * 16);
        lb_ask_output(&ask, "logits", LB_DT_NONE, true);
        size_t at = (size_t)(b + n > 4 ? 0 : b) * 16 * V * sizeof(float);
        if (lb_ask_on(fd, "teacher", &ask, "") && ask.answer.status == 200 &&
            memcmp(ask.response.outputs[0].data,
                   (const char *)client->expected->response.outputs[0].data + at,
                   ask.response.outputs[0].bytes) == 0) {
            client->good++;
        }
        lb_ask_finish(&ask);
    }
    close(fd);
    return NULL;
}

static void test_many_clients(void **state) {
    (void)state;
    struct lb_ask expected;
    pthread_t threads[N_CLIENTS];
    struct client clients[N_CLIENTS];
    lb_ask_ids(&expected, 4, 16, ids);
    lb_ask_output(&expected, "logits", LB_DT_NONE, true);
    lb_ask_send_ok(&daemon_, "teacher", &expected, "");
    for (int i = 0; i < N_CLIENTS; i++) {
        clients[i] = (struct client){&expected, i, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, be_client, &clients[i]), 0);
    }
    for (int i = 0; i < N_CLIENTS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(clients[i].good, 15);
    }
    lb_ask_finish(&expected);
}

static int start_all(void **state) {
    (void)state;
    struct lb_config config;
    char a[160], b[160], c[160];
    if (!mkdtemp(folder)) {
        return 1;
    }
    snprintf(teacher, sizeof teacher, "%s/teacher", folder);
    snprintf(other, sizeof other, "%s/other", folder);
    snprintf(mlp, sizeof mlp, "%s/mlp", folder);
    lb_tiny_llama(&config);
    lb_tiny_save(&config, 1, teacher, LB_F32, true);
    lb_tiny_save(&config, 2, other, LB_F16, false);
    lb_tiny_mlp(&config);
    lb_tiny_save(&config, 3, mlp, LB_F32, false);
    fill_ids();
    snprintf(a, sizeof a, "teacher=%s", teacher);
    snprintf(b, sizeof b, "other=%s", other);
    snprintf(c, sizeof c, "mlp=%s", mlp);
    return lb_daemon_start(&daemon_, folder, "main", (const char *[]){a, b, c, NULL}, true) ? 0 : 1;
}

static int stop_all(void **state) {
    (void)state;
    int status = lb_daemon_stop(&daemon_, SIGTERM);
    bool removed = lb_remove_tree(folder, NULL) == LB_OK;
    return status == 0 && removed ? 0 : 1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metadata),         cmocka_unit_test(test_versions),
        cmocka_unit_test(test_index_stats),      cmocka_unit_test(test_json_equals_binary),
        cmocka_unit_test(test_batch_invariance), cmocka_unit_test(test_answer_digest),
        cmocka_unit_test(test_streamed_logits),  cmocka_unit_test(test_classifier),
        cmocka_unit_test(test_headers),          cmocka_unit_test(test_compression),
        cmocka_unit_test(test_json_length),      cmocka_unit_test(test_downloads),
        cmocka_unit_test(test_errors),           cmocka_unit_test(test_largest_answers),
        cmocka_unit_test(test_many_clients),     cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, start_all, stop_all);
}
