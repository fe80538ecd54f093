/* What a real vLLM said (tests/golden/vllm/recorded.json; tests/interop/vllm_beside.py --record writes it):
 * the trainer learns from it the numbers that limbeckd gives by its own protocol. With LB_VLLM_STOCK,
 * ..._CHOSEN or
 * ..._POOLING that server itself is asked, of tests of it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/json.h"
#include "tests/e2e/both.h"
#include "tests/e2e/hosts.h"
#include "tests/support/asking.h"
#include "tests/support/replay.h"
#include "trainer/wire/dialect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N 5
#define V 272
#define SCORED 3
#define NEAR 2e-5

static char folder[] = "/tmp/limbeck-e2e-recorded-XXXXXX", own[160];
static struct host *host;
static struct lb_sample *samples;
static json_t *recorded;

/* Whether servers are asked, not the recording. */
static bool live(void) {
    return getenv("LB_VLLM_STOCK") || getenv("LB_VLLM_CHOSEN") || getenv("LB_VLLM_POOLING");
}

static int setup(void **state) {
    (void)state;
    const char *root = getenv("LB_SOURCE_ROOT");
    char path[512], model[512];
    struct lb_buf text;
    struct lb_detail detail = {0};
    snprintf(model, sizeof model, "%s/tests/golden/vllm/model", root ? root : ".");
    snprintf(path, sizeof path, "%s/tests/golden/vllm/recorded.json", root ? root : ".");
    if (!mkdtemp(folder)) {
        return -1;
    }
    host = host_start(folder, "limbeckd", model, NULL);
    snprintf(own, sizeof own, "%s", host_url(host));
    samples = asking_samples(N, 11, false);
    lb_buf_init(&text, 8 << 20);
    bool read = lb_file_read(path, &text, &detail) == LB_OK &&
                lb_json_parse_loose(text.data, text.len, 0, path, &recorded, &detail) == LB_OK;
    lb_buf_finish(&text);
    if (!read && !live()) {
        fprintf(stderr, "%s\n", detail.text);
        return -1;
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    host_kill(host);
    asking_free_samples(samples, N);
    json_decref(recorded);
    return lb_remove_tree(folder, NULL);
}

/* ---- the trainer's side ---- */

/* What a server says of itself. */
static struct lb_teacher_info info_at(const char *url) {
    struct lb_detail detail = {0};
    struct lb_client *http = NULL;
    struct lb_teacher_info info;
    struct lb_buf text;
    lb_buf_init(&text, LB_MAX_INFO_BYTES);
    assert_int_equal(lb_client_create(&http, &detail), LB_OK);
    const struct lb_contact contact = {
        .http = http, .name = "teacher", .base = url, .timeout_ns = 20000000000};
    if (lb_dialect_get(LB_PROTOCOL_VLLM)->info(&contact, NULL, &text, &info, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    lb_buf_finish(&text);
    lb_client_destroy(http);
    return info;
}

/* Whether a test of this server is to run: the recording, or the server itself; *out its address. */
static bool begin(const char *name, const char *variable, struct replay **replay, const char **out) {
    const char *server = getenv(variable);
    *replay = NULL;
    if (!server && live()) {
        return false;
    }
    if (!server) {
        *replay = replay_start(json_object_get(recorded, name));
    }
    *out = server ? server : replay_url(*replay);
    return true;
}

static void end(struct replay *replay) {
    if (replay) {
        assert_string_equal(replay_unknown(replay), "");
    }
    replay_stop(replay);
}

static void test_stock(void **state) {
    (void)state;
    static const struct lb_ask_spec lists = {.n_outputs = 4,
                                             .outputs = {{LB_OUT_TOPK_IDS, 0, LB_DT_INT32},
                                                         {LB_OUT_TOPK_LOGPROBS, 0, LB_DT_FP32},
                                                         {LB_OUT_REST, 0, LB_DT_FP32},
                                                         {LB_OUT_ACTUAL, 0, LB_DT_FP32}},
                                             .top_k = 4,
                                             .temperature = 1};
    struct replay *replay;
    const char *url;
    if (!begin("stock", "LB_VLLM_STOCK", &replay, &url)) {
        return;
    }
    struct lb_teacher_info info = info_at(url);
    assert_string_equal(info.model, "tiny");
    assert_string_equal(info.model_id, "/models/tiny");
    assert_int_equal(lb_info_rungs(&info), 1u << LB_RUNG_OWN | 1u << LB_RUNG_TOP_20); /* 403: no chosen ids */
    assert_true(info.tells_most && info.most_top_k == 20);
    assert_int_equal(info.max_length, 128 - 2);
    assert_int_equal(strncmp(info.kernels, "vllm-", 5), 0);
    assert_int_equal(strlen(info.compute), 64);
    both_compare(own, url, LB_PROTOCOL_VLLM, V, &lists, samples, N, NEAR);
    end(replay);
}

static void test_chosen(void **state) {
    (void)state;
    static const struct lb_ask_spec chosen = {.n_outputs = 1,
                                              .outputs = {{LB_OUT_AT_LOGPROBS, 0, LB_DT_FP32}},
                                              .temperature = 1,
                                              .n_scored = SCORED};
    static int32_t values[N][16 * SCORED];
    struct lb_extra extras[N];
    struct replay *replay;
    const char *url;
    if (!begin("chosen", "LB_VLLM_CHOSEN", &replay, &url)) {
        return;
    }
    struct lb_teacher_info info = info_at(url);
    assert_true(lb_info_rungs(&info) & 1u << LB_RUNG_CHOSEN);
    for (int i = 0; i < N; i++) {
        for (int64_t c = 0; c < samples[i].n * SCORED; c++) {
            values[i][c] = c % 5 == 4 ? -1 : (int32_t)((i * 31 + c * 7) % V);
        }
        extras[i] = (struct lb_extra){LB_IN_SCORE_IDS, values[i], SCORED};
        samples[i].extra = &extras[i];
    }
    both_compare(own, url, LB_PROTOCOL_VLLM, V, &chosen, samples, N, NEAR);
    for (int i = 0; i < N; i++) {
        samples[i].extra = NULL;
    }
    end(replay);
}

static void test_pooling(void **state) {
    (void)state;
    static const struct lb_ask_spec states = {
        .n_outputs = 1, .outputs = {{LB_OUT_HIDDEN_FINAL, 0, LB_DT_FP32}}, .temperature = 1};
    struct replay *replay;
    const char *url;
    if (!begin("pooling", "LB_VLLM_POOLING", &replay, &url)) {
        return;
    }
    struct lb_teacher_info info = info_at(url);
    assert_int_equal(lb_info_rungs(&info), 1u << LB_RUNG_FINAL);
    assert_int_equal(info.hidden_size, 32);
    assert_int_equal(info.most_top_k, 0); /* it lists nothing */
    both_compare(own, url, LB_PROTOCOL_VLLM, V, &states, samples, N, NEAR);
    end(replay);
}

/* A server that is started otherwise in mid-run calls itself otherwise: its answers are not learnt from. */
static void test_restarted(void **state) {
    (void)state;
    static const struct lb_ask_spec lists = {
        .n_outputs = 1, .outputs = {{LB_OUT_ACTUAL, 0, LB_DT_FP32}}, .temperature = 1};
    json_t *list = json_object_get(recorded, "stock");
    struct lb_detail detail = {0};
    struct lb_teacher_info info;
    struct lb_arena scratch, arena;
    struct lb_answer answer;
    bool other = false;
    if (!list) {
        return;
    }
    struct replay *replay = replay_start(list);
    info = info_at(replay_url(replay));
    end(replay);
    lb_arena_init(&scratch, 1 << 20);
    lb_arena_init(&arena, 1 << 20);
    /* The fixed question alone, as if there had been a sample before it. */
    const struct lb_sample sample = {
        .ids = info.probe_ids, .n = info.n_probe_ids - 1, .label = -1, .tag = -1};
    const struct lb_sample *asked[] = {&sample};
    struct lb_arena *arenas[] = {&arena};
    struct lb_asked question;
    const struct lb_dialect *dialect = lb_dialect_get(LB_PROTOCOL_VLLM);
    assert_int_equal(dialect->build(&info, &lists, asked, 1, 0, &scratch, &question, &detail), LB_OK);
    struct lb_call call;
    struct lb_client *http = NULL;
    assert_int_equal(lb_client_create(&http, &detail), LB_OK);
    const struct lb_contact contact = {
        .http = http, .name = "teacher", .base = own, .timeout_ns = 20000000000};
    char *body = strdup(question.body.data), *at = strstr(body, "/models/tiny");
    memmove(at, at + 8, strlen(at + 8) + 1); /* limbeckd's name of it */
    assert_int_equal(lb_contact_call(&contact, &call, "/v1/completions", body, 1 << 22, &detail), LB_OK);
    const struct lb_ask_reply reply = {.body = call.answer.data, .len = call.answer.len};
    /* limbeckd gives the same numbers and calls itself otherwise. */
    assert_int_equal(
        dialect->split(&info, &lists, &question, asked, &reply, &scratch, arenas, &answer, &other, &detail),
        LB_E_MISMATCH);
    assert_true(other);
    assert_non_null(strstr(detail.text, "the server computes otherwise now"));
    info.any_compute = true; /* allow_other_kernels */
    detail = (struct lb_detail){0};
    assert_int_equal(
        dialect->split(&info, &lists, &question, asked, &reply, &scratch, arenas, &answer, &other, &detail),
        LB_OK);
    free(body);
    lb_call_finish(&call);
    lb_client_destroy(http);
    lb_asked_finish(&question);
    lb_arena_finish(&scratch);
    lb_arena_finish(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stock),
        cmocka_unit_test(test_chosen),
        cmocka_unit_test(test_pooling),
        cmocka_unit_test(test_restarted),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
