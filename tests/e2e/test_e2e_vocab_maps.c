/* Vocabulary maps of a real limbeckd: sent, named, lost and sent again; what is answered under one is what is
 * answered without it, picked, as JSON and binary, and costs the head only. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "tests/e2e/ask.h"
#include "tests/support/tiny_model.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define V 97
#define B 2
#define T 16
#define SCORED 2
#define KEPT 40
#define ADMIN "Authorization: Bearer hunter2hunter2\r\n"
#define ASKS "Authorization: Bearer askaskaskaskask\r\n"
#define COUNTS "Authorization: Bearer countcountcount\r\n"

static char folder[] = "/tmp/limbeck-e2e-maps-XXXXXX";
static struct lb_daemon daemon_;
static int32_t ids[B * T], kept[KEPT], places[B * T * SCORED], chosen[B * T * SCORED];
static char digest[LB_SHA256_HEX];

static void name_of(const void *bytes, size_t len, char out[LB_SHA256_HEX]) {
    uint8_t hash[LB_SHA256_BYTES];
    lb_sha256(bytes, len, hash);
    lb_hex(hash, sizeof hash, out);
}

/* The status of PUT (bytes) or GET (NULL) of a map's path; the answer holds the text. */
static void map_path(const char *model, const char *name, const char *headers, const void *bytes, size_t len,
                     int status, const char *holds) {
    struct lb_answer answer;
    char path[256];
    snprintf(path, sizeof path, "/v2/models/%s/vocab_maps/%s", model, name);
    assert_true(lb_daemon_ask(&daemon_, bytes ? "PUT" : "GET", path, headers, bytes, len, &answer));
    if (answer.status != status || !strstr(answer.body.data ? answer.body.data : "", holds)) {
        fail_msg("%s: status %d: %s", path, answer.status, answer.body.data);
    }
    lb_answer_finish(&answer);
}

static void send_map(void) {
    map_path("teacher", digest, ASKS, kept, sizeof kept, 200, "\"kept\":40");
}

static void reload(void) {
    struct lb_answer answer;
    assert_true(
        lb_daemon_ask(&daemon_, "POST", "/v2/repository/models/teacher/load", ADMIN, "{}", 2, &answer));
    assert_int_equal(answer.status, 200);
    lb_answer_finish(&answer);
}

/* ---- sending ---- */

static void test_sent(void **state) {
    (void)state;
    char other[LB_SHA256_HEX], version[LB_SHA256_HEX], path[128];
    map_path("teacher", digest, ASKS, NULL, 0, 404, "not here");
    send_map();
    send_map(); /* once more changes nothing */
    map_path("teacher", digest, ASKS, NULL, 0, 200, digest);
    map_path("other", digest, ASKS, NULL, 0, 404, "not here"); /* each model has its own */
    snprintf(path, sizeof path, "/v2/models/teacher/vocab_maps/%s", digest);
    assert_int_equal(lb_daemon_status(&daemon_, "DELETE", path, ASKS), 405);
    assert_int_equal(lb_daemon_status(&daemon_, "GET", path, ""), 401);
    assert_int_equal(lb_daemon_status(&daemon_, "GET", path, COUNTS), 403);
    json_t *metadata = lb_ask_json(&daemon_, "/v2/models/teacher", ASKS, NULL, 200);
    strcpy(version, json_string_value(json_array_get(json_object_get(metadata, "versions"), 0)));
    assert_int_equal(json_integer_value(lb_ask_in(metadata, "parameters", "max_vocab_maps")), 64);
    json_decref(metadata);
    snprintf(path, sizeof path, "teacher/versions/%s", version);
    map_path(path, digest, ASKS, NULL, 0, 200, digest);
    version[0] = version[0] == '0' ? '1' : '0';
    snprintf(path, sizeof path, "teacher/versions/%s", version);
    map_path(path, digest, ASKS, kept, sizeof kept, 404, "");
    map_path("mlp", digest, ASKS, kept, sizeof kept, 400, "no vocabulary maps");

    const int32_t twice[] = {4, 4}, beyond[] = {4, V};
    name_of(twice, sizeof twice, other);
    map_path("teacher", other, ASKS, twice, sizeof twice, 400, "not above the one before it");
    name_of(beyond, sizeof beyond, other);
    map_path("teacher", other, ASKS, beyond, sizeof beyond, 400, "outside 0..96");
    map_path("teacher", digest, ASKS, kept, sizeof kept - 4, 400, "did they arrive as they were sent");
    map_path("teacher", digest, ASKS, kept, 7, 400, "7 bytes");
    map_path("teacher", digest, ASKS, kept, 0, 400, "0 bytes");
    map_path("teacher", "f00d", ASKS, kept, sizeof kept, 400, "no digest of a vocabulary map");
    map_path("teacher", other, ASKS, NULL, 0, 404, "not here");
}

/* ---- answers ---- */

enum { LOGITS, IDS, VALUES, SUM, ACTUAL, REST, TOP, AT, AT_LOG, OUTSIDE, N_OUTPUTS };
static const char *const outputs[N_OUTPUTS] = {
    "logits",        "logits.topk_ids",      "logits.topk_values", "logsumexp",       "logprobs.actual",
    "logprobs.rest", "logprobs.topk_values", "logits.at_ids",      "logprobs.at_ids", "logprobs.outside"};

/* The answer's outputs in their order; without a map all but the last. */
static void ask_teacher(struct lb_ask *ask, bool mapped, bool binary, double temperature) {
    lb_ask_ids(ask, B, T, ids);
    ask->request.vocab_map = mapped ? digest : NULL;
    ask->request.temperature = temperature;
    ask->request.top_k = 5;
    lb_ask_input(ask, "score_ids", LB_DT_INT32, B, T, mapped ? places : chosen);
    struct lb_wire_tensor *scores = &ask->inputs[ask->request.n_inputs - 1];
    scores->n_dims = 3;
    scores->dim[2] = SCORED;
    scores->bytes *= SCORED;
    for (size_t i = 0; i < ask->request.n_inputs; i++) {
        ask->inputs[i].binary = binary;
    }
    for (int i = 0; i < N_OUTPUTS - !mapped; i++) {
        lb_ask_output(ask, outputs[i], LB_DT_NONE, binary);
    }
    lb_ask_send_ok(&daemon_, "teacher", ask, ASKS);
}

static void same_numbers(const struct lb_ask *a, const struct lb_ask *b, int which) {
    const struct lb_wire_tensor *x = &a->response.outputs[which], *y = &b->response.outputs[which];
    assert_int_equal(x->bytes, y->bytes);
    assert_memory_equal(x->data, y->data, x->bytes);
}

static void check_row(const struct lb_ask *under, const struct lb_ask *plain, int64_t row, double t) {
    double sum = (double)lb_ask_real(plain, SUM, row), inside = 0, listed = 0;
    float z[KEPT];
    for (int i = 0; i < KEPT; i++) {
        z[i] = lb_ask_real(under, LOGITS, row * KEPT + i);
        assert_true(z[i] == lb_ask_real(plain, LOGITS, row * V + kept[i]));
        inside += exp(z[i] / t - sum);
    }
    for (int k = 0; k < 5; k++) {
        int32_t id = lb_ask_integer(under, IDS, row * 5 + k);
        int above = 0;
        for (int i = 0; i < KEPT; i++) {
            above += z[i] > z[id] || (z[i] == z[id] && i < id);
        }
        assert_int_equal(above, k);
        assert_true(lb_ask_real(under, VALUES, row * 5 + k) == z[id]);
        assert_true(fabs(lb_ask_real(under, TOP, row * 5 + k) - (z[id] / t - sum)) < 1e-5);
        listed += exp(z[id] / t - sum);
    }
    assert_true(fabs(exp((double)lb_ask_real(under, REST, row)) - (inside - listed)) < 2e-6);
    assert_true(fabs(exp((double)lb_ask_real(under, OUTSIDE, row)) - (1 - inside)) < 2e-6);
}

static void test_answers(void **state) {
    (void)state;
    send_map();
    for (int form = 0; form < 4; form++) {
        double t = form < 2 ? 1 : 2.5;
        struct lb_ask plain, under, again;
        ask_teacher(&plain, false, form % 2 == 0, t);
        ask_teacher(&under, true, form % 2 == 0, t);
        ask_teacher(&again, true, form % 2 == 1, t); /* JSON and binary hold the same */
        for (int i = 0; i < N_OUTPUTS; i++) {
            same_numbers(&under, &again, i);
        }
        assert_string_equal(under.response.vocab_map, digest);
        assert_string_equal(plain.response.vocab_map, "");
        same_numbers(&under, &plain, SUM);
        same_numbers(&under, &plain, ACTUAL);
        same_numbers(&under, &plain, AT);
        same_numbers(&under, &plain, AT_LOG);
        for (int64_t row = 0; row < B * T; row++) {
            check_row(&under, &plain, row, t);
        }
        lb_ask_finish(&plain), lb_ask_finish(&under), lb_ask_finish(&again);
    }
}

/* After a model is loaded anew its maps are gone: the answer says so, by a status of its own, and once the
 * map is sent again the same request is answered; states that are known are used under any map. */
static void test_lost(void **state) {
    (void)state;
    struct lb_ask ask;
    struct lb_answer metrics;
    char line[64];
    reload();
    lb_ask_ids(&ask, B, T, ids);
    ask.request.vocab_map = digest;
    int fd = lb_daemon_connect(&daemon_);
    assert_true(lb_ask_on(fd, "teacher", &ask, ASKS));
    close(fd);
    assert_int_equal(ask.answer.status, 409);
    assert_non_null(strstr(ask.answer.body.data, "PUT its ids to /v2/models/teacher/vocab_maps/"));
    lb_ask_finish(&ask);
    send_map();
    struct lb_ask plain;
    ask_teacher(&plain, false, true, 1);
    lb_ask_finish(&plain);
    assert_true(lb_daemon_ask(&daemon_, "GET", "/metrics", COUNTS, NULL, 0, &metrics));
    assert_non_null(strstr(metrics.body.data, "limbeckd_vocab_map_bytes{model=\"other\"} 0\n"));
    const char *bytes = strstr(metrics.body.data, "limbeckd_vocab_map_bytes{model=\"teacher\"} ");
    assert_true(bytes && atoi(strchr(bytes, ' ')) > (int)sizeof kept);
    const char *tokens = strstr(metrics.body.data, "limbeckd_tokens_total{model=\"teacher\"} ");
    snprintf(line, sizeof line, "%.*s", (int)strcspn(tokens, "\n"), tokens);
    lb_answer_finish(&metrics);
    ask_teacher(&ask, true, true, 1);
    lb_ask_finish(&ask);
    assert_true(lb_daemon_ask(&daemon_, "GET", "/metrics", COUNTS, NULL, 0, &metrics));
    assert_non_null(strstr(metrics.body.data, line)); /* nothing more went through the model */
    lb_answer_finish(&metrics);
}

static int start(void **state) {
    (void)state;
    struct lb_config config;
    char teacher[128], other[128], mlp[128];
    if (!mkdtemp(folder)) {
        return 1;
    }
    const char *tokens =
        lb_daemon_file(folder, "tokens",
                       "admin hunter2hunter2 scopes=admin\nasker askaskaskaskask scopes=ask\n"
                       "counter countcountcount scopes=metrics\n",
                       0600);
    snprintf(teacher, sizeof teacher, "teacher=%s/teacher", folder);
    snprintf(other, sizeof other, "other=%s/other", folder);
    snprintf(mlp, sizeof mlp, "mlp=%s/mlp", folder);
    lb_tiny_llama(&config);
    lb_tiny_save(&config, 1, strchr(teacher, '=') + 1, LB_F32, true);
    lb_tiny_save(&config, 2, strchr(other, '=') + 1, LB_F32, true);
    lb_tiny_mlp(&config);
    lb_tiny_save(&config, 3, strchr(mlp, '=') + 1, LB_F32, false);
    for (int i = 0; i < B * T; i++) {
        ids[i] = (i * 37 + 11) % V;
    }
    for (int i = 0; i < KEPT; i++) {
        kept[i] = i * 96 / (KEPT - 1);
    }
    for (int i = 0; i < B * T * SCORED; i++) {
        places[i] = i % 7 == 6 ? -1 : i * 13 % KEPT;
        chosen[i] = places[i] < 0 ? -1 : kept[places[i]];
    }
    name_of(kept, sizeof kept, digest);
    return lb_daemon_start(&daemon_, folder, "d",
                           (const char *[]){"--token-file", tokens, teacher, other, mlp, NULL}, true)
               ? 0
               : 1;
}

static int stop(void **state) {
    (void)state;
    int status = lb_daemon_stop(&daemon_, SIGTERM);
    return lb_remove_tree(folder, NULL) == LB_OK && status == 0 ? 0 : 1;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sent), cmocka_unit_test(test_answers),
                                       cmocka_unit_test(test_lost)};
    return cmocka_run_group_tests(tests, start, stop);
}
