/* Texts that limbeckd goes on with, and what becomes of them when it is told to stop. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "tests/e2e/ask.h"
#include "tests/support/tiny_model.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LONGEST 65536

static char folder[] = "/tmp/limbeck-written-XXXXXX";
static char endless[160]; /* its texts may be long */

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
    char tokens[160];
    snprintf(tokens, sizeof tokens, "%s/tokens", folder);
    assert_int_equal(lb_file_replace(tokens, lines, sizeof lines - 1, NULL), LB_OK);
    assert_int_equal(chmod(tokens, 0600), 0);
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

static bool logged(const struct lb_daemon *daemon, const char *text) {
    return lb_daemon_logged(daemon, text);
}

static bool measured(const struct lb_daemon *daemon, const char *text) {
    struct lb_answer answer;
    bool holds =
        lb_daemon_ask(daemon, "GET", "/metrics", "", NULL, 0, &answer) && strstr(answer.body.data, text);
    lb_answer_finish(&answer);
    return holds;
}

/* Fails the test after 20 seconds. */
static void await(bool (*holds)(const struct lb_daemon *daemon, const char *text),
                  const struct lb_daemon *daemon, const char *text) {
    uint64_t until = lb_now_ns() + 20 * LB_SECOND_NS;
    while (!holds(daemon, text)) {
        assert_true(lb_now_ns() < until);
        lb_sleep_ns(LB_MS_NS);
    }
}

/* Asks for a text behind two tokens, and waits until it is being written. */
static int begin_text(const struct lb_daemon *daemon, int tokens) {
    char body[200];
    int n =
        snprintf(body, sizeof body,
                 "{\"model\":\"endless\",\"prompt\":[[1,2]],\"max_tokens\":%d,\"ignore_eos\":true}", tokens);
    int fd = lb_daemon_connect(daemon);
    assert_true(lb_http_send(fd, "POST", "/v1/completions", "", body, (size_t)n));
    await(measured, daemon, "\nlimbeckd_writing_seconds_total{model=\"endless\"} ");
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
    assert_true(lb_daemon_start(&daemon, folder, "drain", (const char *[]){endless, NULL}, true));
    static const char late[] =
        "{\"inputs\":[{\"name\":\"input_ids\",\"shape\":[1,2],\"datatype\":\"INT64\",\"data\":[3,4]}]}";
    char head[200];
    int n = snprintf(head, sizeof head,
                     "POST /v2/models/endless/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
                     sizeof late - 1);
    int slow = lb_daemon_connect(&daemon); /* its body comes when the daemon drains */
    assert_int_equal(write(slow, head, (size_t)n), n);
    await(measured, &daemon, "\nlimbeckd_open_requests 2\n"); /* and the one that asks */
    int fd = begin_text(&daemon, 6000);
    kill(daemon.pid, SIGTERM);
    await(logged, &daemon, "draining requests=1 tokens=6002 ");
    assert_int_equal(write(slow, late, sizeof late - 1), sizeof late - 1);
    check_answer(slow, 503, "shutting down");
    check_answer(fd, 200, "\"completion_tokens\":6000");
    assert_int_equal(lb_daemon_stop(&daemon, 0), 0);
    assert_false(lb_daemon_logged(&daemon, "drain_cut_short"));
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
    return 0;
}

static int stop_all(void **state) {
    (void)state;
    assert_int_equal(lb_remove_tree(folder, NULL), LB_OK);
    return 0;
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scored_and_written),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_short_drain),
    };
    return cmocka_run_group_tests(tests, start_all, stop_all);
}
