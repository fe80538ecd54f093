/* Texts that limbeckd goes on with: each token, stops, and what becomes of them when it is told to stop. */
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
#define B 3
#define T 14
#define K 5
#define LONGEST 65536

static char folder[] = "/tmp/limbeck-written-XXXXXX";
static char teacher[160], endless[160]; /* endless: its texts may be long */
static struct lb_daemon daemon_;        /* of the teacher */
static int32_t ids[B * T];
static const int32_t lengths[B] = {T, 1, 6};

/* ---- texts ---- */

#define WRITTEN 7

/* Asks for more than one token, of the prompts together or of one alone. */
static json_t *write_on(int alone, const char *keys) {
    char body[4096], list[2048];
    if (alone < 0) {
        lb_ask_put_lists(list, sizeof list, ids, B, T, lengths);
    } else {
        lb_ask_put_ids(list, sizeof list, ids + (ptrdiff_t)alone * T, lengths[alone]);
    }
    snprintf(body, sizeof body,
             "{\"model\":\"teacher\",\"prompt\":%s,\"max_tokens\":%d,\"return_token_ids\":true,"
             "\"ignore_eos\":true%s}",
             list, WRITTEN, keys);
    return lb_ask_json(&daemon_, "/v1/completions", "", body, 200);
}

/* Each token is what /v2 says comes next, with its log-probability; so are the likeliest beside it. A text
 * that is read token by token rounds otherwise than one that is read at once. */
static void test_written(void **state) {
    (void)state;
    json_t *answer = write_on(-1, ",\"temperature\":0,\"logprobs\":2,\"return_tokens_as_token_ids\":true");
    assert_int_equal(json_integer_value(lb_ask_in(answer, "usage", "completion_tokens")), B * WRITTEN);
    for (int b = 0; b < B; b++) {
        const json_t *choice = lb_ask_choice(answer, (size_t)b), *list = json_object_get(choice, "token_ids");
        const json_t *own = lb_ask_in(choice, "logprobs", "token_logprobs"),
                     *top = lb_ask_in(choice, "logprobs", "top_logprobs");
        int32_t all[T + WRITTEN];
        int n = lengths[b];
        assert_int_equal(json_array_size(list), WRITTEN);
        assert_int_equal(json_array_size(own), WRITTEN);
        memcpy(all, ids + (ptrdiff_t)b * T, (size_t)n * sizeof *all);
        for (int t = 0; t < WRITTEN; t++) {
            all[n + t] = (int32_t)json_integer_value(json_array_get(list, (size_t)t));
        }
        struct lb_ask of;
        lb_ask_ids(&of, 1, n + WRITTEN, all);
        of.request.top_k = K;
        lb_ask_output(&of, "logits.topk_ids", LB_DT_NONE, true);
        lb_ask_output(&of, "logprobs.topk_values", LB_DT_NONE, true);
        lb_ask_send_ok(&daemon_, "teacher", &of, "");
        for (int t = 0; t < WRITTEN; t++) {
            int64_t row = n + t - 1;
            char name[32];
            assert_int_equal(all[n + t], lb_ask_integer(&of, 0, row * K));
            assert_true(fabsf(lb_ask_number(json_array_get(own, (size_t)t)) - lb_ask_real(&of, 1, row * K)) <
                        1e-4f);
            assert_int_equal(json_object_size(json_array_get(top, (size_t)t)), 2);
            snprintf(name, sizeof name, "token_id:%d", lb_ask_integer(&of, 0, row * K + 1));
            assert_true(fabsf(lb_ask_number(json_object_get(json_array_get(top, (size_t)t), name)) -
                              lb_ask_real(&of, 1, row * K + 1)) < 1e-4f);
        }
        lb_ask_finish(&of);
    }
    json_decref(answer);
}

/* A text depends on its prompt and the seed alone: not on others, nor on what else is told. */
static void test_written_alike(void **state) {
    (void)state;
    json_t *all = write_on(-1, ",\"temperature\":1.5,\"seed\":9"),
           *other = write_on(-1, ",\"temperature\":1.5,\"seed\":10");
    int unlike = 0;
    for (int b = 0; b < B; b++) {
        json_t *alone =
            write_on(b, ",\"temperature\":1.5,\"seed\":9,\"echo\":true,\"logprobs\":1,\"prompt_logprobs\":1");
        const json_t *choice = lb_ask_choice(alone, 0),
                     *list = json_object_get(lb_ask_choice(all, (size_t)b), "token_ids");
        assert_true(json_equal(list, json_object_get(choice, "token_ids")));
        unlike += !json_equal(list, json_object_get(lb_ask_choice(other, (size_t)b), "token_ids"));
        assert_int_equal(json_array_size(lb_ask_in(choice, "logprobs", "tokens")), lengths[b] + WRITTEN);
        assert_int_equal(json_array_size(json_object_get(choice, "prompt_logprobs")), lengths[b]);
        const char *text = json_string_value(json_object_get(choice, "text")),
                   *written = json_string_value(json_object_get(lb_ask_choice(all, (size_t)b), "text"));
        size_t len = strlen(text), n = strlen(written);
        assert_true(len >= n && strcmp(text + len - n, written) == 0);
        json_decref(alone);
    }
    assert_true(unlike > 0);
    json_decref(all);
    json_decref(other);
}

/* A stop that lies across tokens cuts the text where it begins, and ends it. */
static void test_written_stops(void **state) {
    (void)state;
    json_t *whole =
        lb_ask_json(&daemon_, "/v1/completions", "",
                    "{\"model\":\"teacher\",\"prompt\":[64,65],\"max_tokens\":7,\"temperature\":0,"
                    "\"ignore_eos\":true,\"skip_special_tokens\":false,\"return_token_ids\":true,"
                    "\"return_tokens_as_token_ids\":true}",
                    200);
    const char *text = json_string_value(json_object_get(lb_ask_choice(whole, 0), "text"));
    assert_true(strlen(text) >= 4);
    char stop[8] = "", body[500];
    size_t at = strlen(text) / 2 - 1;
    snprintf(stop, sizeof stop, "%.2s", text + at);
    if (stop[0] == '"' || stop[0] == '\\' || stop[1] == '"' || stop[1] == '\\') {
        fail_msg("the text can't be a stop as it is: %s", text);
    }
    at = (size_t)(strstr(text, stop) - text);
    for (int include = 0; include < 2; include++) {
        snprintf(body, sizeof body,
                 "{\"model\":\"teacher\",\"prompt\":[64,65],\"max_tokens\":7,\"temperature\":0,"
                 "\"ignore_eos\":true,\"skip_special_tokens\":false,\"stop\":[\"nowhere\",\"%s\"],"
                 "\"include_stop_str_in_output\":%s}",
                 stop, include ? "true" : "false");
        json_t *cut = lb_ask_json(&daemon_, "/v1/completions", "", body, 200);
        const char *kept = json_string_value(json_object_get(lb_ask_choice(cut, 0), "text"));
        assert_int_equal(strlen(kept), at + (include ? strlen(stop) : 0));
        assert_memory_equal(kept, text, strlen(kept));
        assert_string_equal(json_string_value(json_object_get(lb_ask_choice(cut, 0), "finish_reason")),
                            "stop");
        assert_string_equal(json_string_value(json_object_get(lb_ask_choice(cut, 0), "stop_reason")), stop);
        json_decref(cut);
    }
    json_decref(whole);
}

/* ---- one request ---- */

/* What is scored first and then written is one request, of the model's and of the minute's: what it had in
 * advance of its minute doesn't hold it up half-way. */
static void test_scored_and_written(void **state) {
    (void)state;
    static const char body[] = "{\"model\":\"endless\",\"prompt\":[[1,2,3,4],[5,6,7]],\"max_tokens\":3,"
                               "\"ignore_eos\":true,\"prompt_logprobs\":1}",
                      lines[] = "slow slow-token-1 tokens_per_minute=4\nfree free-token-1\n";
    struct lb_daemon daemon;
    struct lb_answer answer;
    const char *tokens = lb_daemon_file(folder, "tokens", lines, 0600);
    assert_true(lb_daemon_start(&daemon, folder, "once",
                                (const char *[]){"--token-file", tokens, endless, NULL}, true));
    assert_true(lb_daemon_ask(&daemon, "POST", "/v1/completions", "Authorization: Bearer slow-token-1\r\n",
                              body, sizeof body - 1, &answer));
    assert_int_equal(answer.status, 200);
    lb_answer_finish(&answer);
    assert_true(lb_daemon_ask(&daemon, "GET", "/v2/models/endless/stats",
                              "Authorization: Bearer free-token-1\r\n", NULL, 0, &answer));
    assert_non_null(strstr(answer.body.data, "\"inference_count\":2,"));
    assert_non_null(strstr(answer.body.data, "\"success\":{\"count\":1,"));
    lb_answer_finish(&answer);
    assert_true(lb_daemon_ask(&daemon, "GET", "/status.json", "Authorization: Bearer free-token-1\r\n", NULL,
                              0, &answer));
    assert_non_null(strstr(answer.body.data, "\"tokens\":20,"));
    lb_answer_finish(&answer);
    assert_true(lb_daemon_logged(&daemon, " status=200 "));
    assert_true(lb_daemon_logged(&daemon, " sequences=2 tokens=20 queue_ms="));
    /* seven were scored, and read again with six more: 16 less than nothing, which is more than 3 minutes */
    assert_true(lb_daemon_ask(&daemon, "POST", "/v1/completions", "Authorization: Bearer slow-token-1\r\n",
                              body, sizeof body - 1, &answer));
    assert_int_equal(answer.status, 429);
    char value[32];
    assert_true(lb_answer_header(&answer, "Retry-After", value, sizeof value));
    assert_in_range(strtol(value, NULL, 10), 181, 241);
    lb_answer_finish(&answer);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

/* ---- the end ---- */

/* Asks for a text behind two tokens, and waits until it is being written. */
static int begin_text(const struct lb_daemon *daemon, int tokens) {
    char body[200];
    int n =
        snprintf(body, sizeof body,
                 "{\"model\":\"endless\",\"prompt\":[[1,2]],\"max_tokens\":%d,\"ignore_eos\":true}", tokens);
    int fd = lb_daemon_connect(daemon);
    assert_true(lb_http_send(fd, "POST", "/v1/completions", "", body, (size_t)n));
    lb_ask_await(lb_ask_metrics_hold, daemon, "\nlimbeckd_writing_seconds_total{model=\"endless\"} ");
    return fd;
}

static void check_answer(int fd, int status, const char *part) {
    struct lb_answer answer;
    assert_true(lb_http_receive(fd, &answer));
    assert_int_equal(answer.status, status);
    assert_non_null(strstr(answer.body.data, part));
    lb_answer_finish(&answer);
    close(fd);
}

/* A text that is being written is among what the drain waits for; who comes meanwhile is told so. */
static void test_drain(void **state) {
    (void)state;
    struct lb_daemon daemon;
    assert_true(lb_daemon_start(&daemon, folder, "drain",
                                (const char *[]){"--drain-seconds", "200", endless, NULL}, true));
    static const char late[] =
        "{\"inputs\":[{\"name\":\"input_ids\",\"shape\":[1,2],\"datatype\":\"INT64\",\"data\":[3,4]}]}";
    char head[200];
    int n = snprintf(head, sizeof head,
                     "POST /v2/models/endless/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
                     sizeof late - 1);
    int slow = lb_daemon_connect(&daemon); /* its body comes when the daemon drains */
    assert_int_equal(write(slow, head, (size_t)n), n);
    lb_ask_await(lb_ask_metrics_hold, &daemon, "\nlimbeckd_open_requests 2\n"); /* and the one that asks */
    int fd = begin_text(&daemon, 6000);
    kill(daemon.pid, SIGTERM);
    assert_true(lb_daemon_await_log(&daemon, "draining requests=1 tokens=6002 "));
    assert_int_equal(write(slow, late, sizeof late - 1), sizeof late - 1);
    check_answer(slow, 503, "shutting down");
    check_answer(fd, 200, "\"completion_tokens\":6000");
    assert_int_equal(lb_daemon_stop(&daemon, 0), 0);
    assert_false(lb_daemon_logged(&daemon, "drain_cut_short"));
}

/* What is scored before it is written was asked, too: it is answered when the end comes in between, and holds
 * nothing up when there is no time. */
static void test_drain_between(void **state) {
    (void)state;
    static const char body[] =
        "{\"model\":\"endless\",\"prompt\":[[1,2]],\"max_tokens\":3,\"ignore_eos\":true,"
        "\"prompt_logprobs\":1}";
    for (int hurried = 0; hurried < 2; hurried++) {
        struct lb_daemon daemon;
        struct lb_answer answer;
        assert_true(lb_daemon_start(&daemon, folder, "between",
                                    (const char *[]){"--max-wait-us", "10000000", "--drain-seconds",
                                                     hurried ? "0" : "30", endless, NULL},
                                    true));
        int fd = lb_daemon_connect(&daemon);
        assert_true(lb_http_send(fd, "POST", "/v1/completions", "", body, sizeof body - 1));
        lb_ask_await(lb_ask_metrics_hold, &daemon, "\nlimbeckd_queue_requests 1\n");
        assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
        assert_true(lb_http_receive(fd, &answer));
        assert_true(answer.status == 200 || (hurried && answer.status == 503));
        assert_true(answer.status == 503 || strstr(answer.body.data, "\"completion_tokens\":3"));
        lb_answer_finish(&answer);
        close(fd);
    }
}

/* With no time to drain it is cut short, which is said. */
static void test_short_drain(void **state) {
    (void)state;
    struct lb_daemon daemon;
    assert_true(lb_daemon_start(&daemon, folder, "short",
                                (const char *[]){"--drain-seconds", "0", endless, NULL}, true));
    int fd = begin_text(&daemon, LONGEST - 2);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    check_answer(fd, 503, "shutting down");
    assert_true(lb_daemon_logged(&daemon, "draining requests=1 tokens=65536 "));
    assert_true(lb_daemon_logged(&daemon, "drain_cut_short requests=1"));
}

/* ---- start and stop ---- */

static int start_all(void **state) {
    (void)state;
    struct lb_config config;
    char path[128];
    assert_non_null(mkdtemp(folder));
    lb_tiny_llama(&config);
    config.max_position_embeddings = LONGEST;
    snprintf(path, sizeof path, "%s/endless", folder);
    lb_tiny_save(&config, 1, path, LB_F32, false);
    snprintf(endless, sizeof endless, "endless=%s", path);
    lb_tiny_llama(&config);
    config.initializer_range = 0.5; /* so that answers differ */
    snprintf(path, sizeof path, "%s/teacher", folder);
    lb_tiny_save(&config, 1, path, LB_F32, true);
    snprintf(teacher, sizeof teacher, "teacher=%s", path);
    for (int i = 0; i < B * T; i++) {
        ids[i] = (i * 37 + 11) % V;
    }
    assert_true(lb_daemon_start(&daemon_, folder, "daemon", (const char *[]){teacher, NULL}, true));
    return 0;
}

static int stop_all(void **state) {
    (void)state;
    assert_int_equal(lb_daemon_stop(&daemon_, SIGTERM), 0);
    assert_int_equal(lb_remove_tree(folder, NULL), LB_OK);
    return 0;
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written),       cmocka_unit_test(test_written_alike),
        cmocka_unit_test(test_written_stops), cmocka_unit_test(test_scored_and_written),
        cmocka_unit_test(test_drain),         cmocka_unit_test(test_drain_between),
        cmocka_unit_test(test_short_drain),
    };
    return cmocka_run_group_tests(tests, start_all, stop_all);
}
