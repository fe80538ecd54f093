/* Who may ask limbeckd what: tokens and their scopes, names and limits, in each dialect. Each test has a
 * daemon of its own. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "tests/e2e/ask.h"
#include "tests/support/daemon.h"
#include "tests/support/tiny_model.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/limbeck-access-XXXXXX";
static char teacher[224];
static int32_t ids[64];

/* Status, text and Retry-After of an answer; the text lives until the next call. */
static const char *told(const struct lb_daemon *daemon, const char *method, const char *path,
                        const char *headers, const char *body, int *status, int *retry_after) {
    static char text[1024];
    struct lb_answer answer;
    char value[32];
    assert_true(lb_daemon_ask(daemon, method, path, headers, body, body ? strlen(body) : 0, &answer));
    *status = answer.status;
    *retry_after =
        lb_answer_header(&answer, "Retry-After", value, sizeof value) ? (int)strtol(value, NULL, 10) : -1;
    snprintf(text, sizeof text, "%s", answer.body.data ? answer.body.data : "");
    lb_answer_finish(&answer);
    return text;
}

static void test_tokens(void **state) {
    (void)state;
    const char *tokens = lb_daemon_file(folder, "tokens", "reader-token-1\nreader-token-2\n", 0600);
    const char *admin = lb_daemon_file(folder, "admin-tokens", "admin-token-1\n", 0600);
    struct lb_daemon daemon;
    struct lb_answer answer;
    char value[64];
    assert_true(lb_daemon_start(
        &daemon, folder, "auth",
        (const char *[]){"--token-file", tokens, "--admin-token-file", admin, teacher, NULL}, true));
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/health/live", ""), 200);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/health/ready", ""), 200);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/health_generate", ""), 200);
    assert_true(lb_daemon_ask(&daemon, "GET", "/v2/models/teacher", "", NULL, 0, &answer));
    assert_int_equal(answer.status, 401);
    assert_true(lb_answer_header(&answer, "WWW-Authenticate", value, sizeof value));
    assert_memory_equal(value, "Bearer", 6);
    lb_answer_finish(&answer);
    assert_int_equal(
        lb_daemon_status(&daemon, "GET", "/v2/models/teacher", "Authorization: Bearer reader-token-2\r\n"),
        200);
    assert_int_equal(
        lb_daemon_status(&daemon, "GET", "/v2/models/teacher", "Authorization: Bearer admin-token-1\r\n"),
        200);
    assert_int_equal(
        lb_daemon_status(&daemon, "GET", "/v2/models/teacher", "Authorization: Bearer reader-token-3\r\n"),
        401);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/no/such/path", ""),
                     401); /* nor does a stranger learn what there is */
    assert_int_equal(
        lb_daemon_status(&daemon, "GET", "/no/such/path", "Authorization: Bearer reader-token-1\r\n"), 404);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/metrics", ""), 401);
    assert_int_equal(lb_daemon_status(&daemon, "POST", "/v2/repository/models/teacher/unload", ""), 401);
    assert_int_equal(lb_daemon_status(&daemon, "POST", "/v2/repository/models/teacher/unload",
                                      "Authorization: Bearer reader-token-1\r\n"),
                     403);
    struct lb_ask ask;
    lb_ask_ids(&ask, 1, 16, ids);
    int fd = lb_daemon_connect(&daemon);
    assert_true(
        lb_ask_on(fd, "teacher", &ask, "")); /* the refused body is read, and the connection lives on */
    assert_int_equal(ask.answer.status, 401);
    lb_ask_finish(&ask);
    lb_ask_ids(&ask, 1, 16, ids);
    assert_true(lb_ask_on(fd, "teacher", &ask, "Authorization: Bearer reader-token-1\r\n"));
    assert_int_equal(ask.answer.status, 200);
    /* What is behind a token may be kept by its client, not by a cache in between. */
    char path[160];
    snprintf(path, sizeof path, "/v2/models/teacher/versions/%.64s/config", ask.response.model_version);
    assert_true(
        lb_daemon_ask(&daemon, "GET", path, "Authorization: Bearer reader-token-1\r\n", NULL, 0, &answer));
    assert_true(lb_answer_header(&answer, "Cache-Control", value, sizeof value));
    assert_memory_equal(value, "private", 7);
    lb_answer_finish(&answer);
    lb_ask_finish(&ask);
    close(fd);
    assert_false(lb_daemon_logged(&daemon, "reader-token"));
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

#define BEARER(token) "Authorization: Bearer " token "\r\n"

/* Each token is good for its scopes; the answer says which one is missing. */
static void test_scopes(void **state) {
    (void)state;
    static const struct {
        const char *header;
        int ask, metrics, unload; /* statuses */
    } cases[] = {
        {BEARER("bare-token-1"), 200, 200, 403},    {BEARER("asker-token-1"), 200, 403, 403},
        {BEARER("watcher-token-1"), 403, 200, 403}, {BEARER("boss-token-1"), 200, 200, 404},
        {BEARER("nobody-token-1"), 401, 401, 401},  {"", 401, 401, 401},
    };
    const char *tokens = lb_daemon_file(folder, "scopes",
                                        "bare-token-1\n"
                                        "asker asker-token-1 scopes=ask\n"
                                        "watcher watcher-token-1 scopes=metrics\n"
                                        "boss boss-token-1 scopes=admin\n",
                                        0600);
    struct lb_daemon daemon;
    int status, retry;
    assert_true(lb_daemon_start(&daemon, folder, "scopes",
                                (const char *[]){"--token-file", tokens, teacher, NULL}, true));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/models/teacher", cases[i].header),
                         cases[i].ask);
        assert_int_equal(lb_daemon_status(&daemon, "GET", "/v1/models", cases[i].header), cases[i].ask);
        assert_int_equal(lb_daemon_status(&daemon, "GET", "/metrics", cases[i].header), cases[i].metrics);
        assert_int_equal(
            lb_daemon_status(&daemon, "POST", "/v2/repository/models/none/unload", cases[i].header),
            cases[i].unload);
    }
    assert_string_equal(told(&daemon, "GET", "/metrics", BEARER("asker-token-1"), NULL, &status, &retry),
                        "{\"error\":\"this needs a token of scope metrics; asker has ask\"}\n");
    const char *text = told(&daemon, "GET", "/v1/models", BEARER("watcher-token-1"), NULL, &status, &retry);
    assert_non_null(strstr(text, "\"message\":\"this needs a token of scope ask; watcher has metrics\""));
    assert_non_null(strstr(text, "\"type\":\"PermissionDeniedError\""));
    assert_true(lb_daemon_await_log(&daemon, " client=\"watcher\" method=GET path=\"/v1/models\""));
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    assert_false(lb_daemon_logged(&daemon, "-token-1"));
}

#define FOUR                                                                                                 \
    "{\"inputs\":[{\"name\":\"input_ids\",\"shape\":[1,4],\"datatype\":\"INT32\",\"data\":[1,2,3,4]}]}"
#define OTHER_FOUR                                                                                           \
    "{\"inputs\":[{\"name\":\"input_ids\",\"shape\":[1,4],\"datatype\":\"INT32\",\"data\":[5,6,7,8]}]}"
#define GENERATE                                                                                             \
    "{\"input_ids\":[1,2,3,4],\"sampling_params\":{\"max_new_tokens\":0},\"return_logprob\":true,"           \
    "\"logprob_start_len\":0}"
#define COMPLETION "{\"prompt\":[1,2,3,4],\"max_tokens\":0,\"echo\":true,\"logprobs\":1}"

/* Beyond its tokens of a minute: 429 in the form of the dialect, and when to come again. What asks for no
 * tokens, and who comes with another token, is not held up. */
static void test_tokens_per_minute(void **state) {
    (void)state;
    const char *infer = "/v2/models/teacher/infer";
    const char *tokens = lb_daemon_file(folder, "minute",
                                        "slow slow-token-1 tokens_per_minute=4\n"
                                        "free free-token-1\n",
                                        0600);
    struct lb_daemon daemon;
    int status, retry;
    assert_true(lb_daemon_start(&daemon, folder, "minute",
                                (const char *[]){"--token-file", tokens, teacher, NULL}, true));
    told(&daemon, "POST", infer, BEARER("slow-token-1"), "{}", &status, &retry);
    assert_int_equal(status, 400); /* what is no request takes nothing */
    told(&daemon, "POST", infer, BEARER("slow-token-1"), FOUR, &status, &retry);
    assert_int_equal(status, 200);
    const char *text = told(&daemon, "POST", infer, BEARER("slow-token-1"), FOUR, &status, &retry);
    if (status == 200) { /* so slow that something came back: then it is four less than nothing */
        text = told(&daemon, "POST", infer, BEARER("slow-token-1"), FOUR, &status, &retry);
    }
    assert_int_equal(status, 429);
    assert_in_range(retry, 1, 61);
    assert_memory_equal(text, "{\"error\":\"slow has used up its tokens of this minute", 52);
    text = told(&daemon, "POST", "/v1/completions", BEARER("slow-token-1"), COMPLETION, &status, &retry);
    assert_int_equal(status, 429);
    assert_in_range(retry, 1, 61);
    assert_non_null(strstr(text, "\"type\":\"RateLimitError\""));
    assert_non_null(strstr(text, "\"code\":429"));
    text = told(&daemon, "POST", "/generate", BEARER("slow-token-1"), GENERATE, &status, &retry);
    assert_int_equal(status, 429);
    assert_in_range(retry, 1, 61);
    assert_memory_equal(text, "{\"error\":{\"message\":\"slow has used up", 37);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/models/teacher", BEARER("slow-token-1")), 200);
    told(&daemon, "POST", infer, BEARER("free-token-1"), FOUR, &status, &retry);
    assert_int_equal(status, 200);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

static bool queue_holds_one(const struct lb_daemon *daemon) {
    struct lb_answer answer;
    bool holds = lb_daemon_ask(daemon, "GET", "/metrics", BEARER("free-token-1"), NULL, 0, &answer) &&
                 strstr(answer.body.data, "\nlimbeckd_queue_requests 1\n");
    lb_answer_finish(&answer);
    return holds;
}

/* What was refused before it was computed takes nothing of the minute. */
static void test_given_back(void **state) {
    (void)state;
    const char *infer = "/v2/models/teacher/infer";
    const char *tokens =
        lb_daemon_file(folder, "given", "slow slow-token-1 tokens_per_minute=8\nfree free-token-1\n", 0600);
    struct lb_daemon daemon;
    struct lb_answer answer;
    int status, retry;
    assert_true(lb_daemon_start(&daemon, folder, "given",
                                (const char *[]){"--token-file", tokens, "--max-queue-tokens", "4",
                                                 "--max-wait-us", "10000000", teacher, NULL},
                                true));
    int fd = lb_daemon_connect(&daemon);
    assert_true(lb_http_send(fd, "POST", infer, BEARER("slow-token-1"), OTHER_FOUR, strlen(OTHER_FOUR)));
    uint64_t until = lb_now_ns() + 20 * LB_SECOND_NS;
    while (!queue_holds_one(&daemon)) {
        assert_true(lb_now_ns() < until);
        lb_sleep_ns(5 * LB_MS_NS);
    }
    for (int i = 0; i < 5; i++) {
        told(&daemon, "POST", infer, BEARER("slow-token-1"), FOUR, &status, &retry);
        assert_int_equal(status, 503); /* the queue is full */
    }
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    assert_true(lb_http_receive(fd, &answer));
    assert_int_equal(answer.status, 200);
    lb_answer_finish(&answer);
    close(fd);
}

/* One request more than it may have at once is told so before its body is read; who has left makes room. */
static void test_concurrent(void **state) {
    (void)state;
    const char *tokens = lb_daemon_file(folder, "concurrent",
                                        "two two-token-1 concurrent=2\n"
                                        "free free-token-1\n",
                                        0600);
    struct lb_daemon daemon;
    struct lb_answer answer;
    int status, retry, fd[2];
    assert_true(lb_daemon_start(&daemon, folder, "concurrent",
                                (const char *[]){"--token-file", tokens, teacher, NULL}, true));
    for (int i = 0; i < 2; i++) { /* their bodies are still to come, as the 100 tells */
        char heard[64] = "";
        const char *head = "POST /v2/models/teacher/infer HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
                           "Content-Length: 106\r\n" BEARER("two-token-1") "\r\n";
        fd[i] = lb_daemon_connect(&daemon);
        assert_int_equal(write(fd[i], head, strlen(head)), (int)strlen(head));
        assert_true(read(fd[i], heard, sizeof heard - 1) > 0);
        assert_memory_equal(heard, "HTTP/1.1 100 ", 13);
    }
    const char *text = told(&daemon, "GET", "/v1/models", BEARER("two-token-1"), NULL, &status, &retry);
    assert_int_equal(status, 429);
    assert_int_equal(retry, 1);
    assert_non_null(strstr(text, "two has as many requests here as its token allows"));
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v1/models", BEARER("free-token-1")), 200);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/health/live", BEARER("two-token-1")), 200);
    char body[107];
    snprintf(body, sizeof body, "%-106s", FOUR);
    assert_int_equal(write(fd[0], body, 106), 106);
    assert_true(lb_http_receive(fd[0], &answer));
    assert_int_equal(answer.status, 200);
    lb_answer_finish(&answer);
    /* From its answer on it counts no more, also for who asks at once. */
    for (int i = 0; i < 50; i++) {
        assert_int_equal(lb_daemon_status(&daemon, "GET", "/v1/models", BEARER("two-token-1")), 200);
    }
    close(fd[0]);
    close(fd[1]);
    assert_true(lb_daemon_await_log(&daemon, "status=400 "));
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

/* Names without a slash are those of the folder that systemd makes; a key must be closed like a token. */
static void test_credentials(void **state) {
    (void)state;
    struct lb_daemon daemon, log = {0};
    lb_daemon_file(folder, "credential", "jo jo-token-1\n", 0400);
    setenv("CREDENTIALS_DIRECTORY", folder, 1);
    assert_true(lb_daemon_start(&daemon, folder, "credentials",
                                (const char *[]){"--token-file", "credential", teacher, NULL}, true));
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/models/teacher", BEARER("jo-token-1")), 200);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    snprintf(log.log_file, sizeof log.log_file, "%s/key.log", folder);
    lb_daemon_file(folder, "open.pem", "no key\n", 0644);
    assert_int_equal(lb_daemon_run(folder, "key",
                                   (const char *[]){"--check", "--tls-certificate", "open.pem", "--tls-key",
                                                    "open.pem", teacher, NULL}),
                     1);
    unsetenv("CREDENTIALS_DIRECTORY");
    assert_true(lb_daemon_logged(&log, "open.pem: mode 644 lets others in; run: chmod 600"));
}

static int lines_with(const struct lb_daemon *daemon, const char *word) {
    struct lb_buf log;
    int n = 0;
    lb_buf_init(&log, 16 << 20);
    assert_int_equal(lb_file_read(daemon->log_file, &log, NULL), LB_OK);
    for (const char *p = log.data; (p = strstr(p, word)) != NULL; p++) {
        n++;
    }
    lb_buf_finish(&log);
    return n;
}

/* Sends SIGHUP and waits until that is done. */
static void reload(const struct lb_daemon *daemon) {
    uint64_t until = lb_now_ns() + 20 * LB_SECOND_NS;
    int before = lines_with(daemon, " reloaded ");
    kill(daemon->pid, SIGHUP);
    while (lines_with(daemon, " reloaded ") == before) {
        assert_true(lb_now_ns() < until);
        lb_sleep_ns(5 * LB_MS_NS);
    }
}

/* A signal reads tokens anew; a file that is none changes nothing. A request that has begun is answered. */
static void test_reload(void **state) {
    (void)state;
    const char *tokens = lb_daemon_file(folder, "reloaded", "jo jo-token-1\nal al-token-1\n", 0600);
    struct lb_daemon daemon;
    struct lb_answer answer;
    assert_true(lb_daemon_start(&daemon, folder, "reload",
                                (const char *[]){"--token-file", tokens, teacher, NULL}, true));
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v1/models", BEARER("jo-token-1")), 200);
    int begun = lb_daemon_connect(&daemon);
    const char *head = "POST /v2/models/teacher/infer HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
                       "Content-Length: 106\r\n" BEARER("jo-token-1") "\r\n";
    char heard[64], body[107];
    assert_int_equal(write(begun, head, strlen(head)), (int)strlen(head));
    assert_true(read(begun, heard, sizeof heard) > 13 && memcmp(heard, "HTTP/1.1 100 ", 13) == 0);
    lb_daemon_file(folder, "reloaded", "jo jo-token-2\nal al-token-1\n", 0600);
    reload(&daemon);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v1/models", BEARER("jo-token-1")), 401);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v1/models", BEARER("jo-token-2")), 200);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v1/models", BEARER("al-token-1")), 200);
    snprintf(body, sizeof body, "%-106s", FOUR);
    assert_int_equal(write(begun, body, 106), 106);
    assert_true(lb_http_receive(begun, &answer));
    assert_int_equal(answer.status, 200);
    lb_answer_finish(&answer);
    close(begun);
    assert_false(lb_daemon_logged(&daemon, "reload_failed"));
    lb_daemon_file(folder, "reloaded", "jo jo-token-3\nal al-token-1 forever\n", 0600);
    reload(&daemon);
    assert_true(lb_daemon_logged(&daemon, "reloaded, line 2: behind NAME TOKEN stand"));
    assert_int_equal(lines_with(&daemon, " reload_failed "), 1);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v1/models", BEARER("jo-token-2")), 200);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v1/models", BEARER("jo-token-3")), 401);
    lb_daemon_file(folder, "reloaded", "jo jo-token-3\n", 0644);
    reload(&daemon);
    assert_int_equal(lines_with(&daemon, " reload_failed "), 2);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v1/models", BEARER("jo-token-2")), 200);
    lb_daemon_file(folder, "reloaded", "jo jo-token-3\n", 0600);
    reload(&daemon);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v1/models", BEARER("jo-token-3")), 200);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v1/models", BEARER("al-token-1")), 401);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

static bool run_says(const char *name, const char *text) {
    struct lb_daemon log = {0};
    snprintf(log.log_file, sizeof log.log_file, "%s/%s.log", folder, name);
    return lb_daemon_logged(&log, text);
}

/* Whoever can reach the address could ask: that must be meant, and is told. */
static void test_network(void **state) {
    (void)state;
    static const char *const others[] = {"0.0.0.0:0", "[::]:0"}, *const own[] = {"127.0.0.1:0",
                                                                                 "127.0.0.2:0"};
    struct lb_daemon daemon;
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(lb_daemon_run(folder, "others",
                                       (const char *[]){"--check", "--listen", others[i], teacher, NULL}),
                         1);
        assert_true(run_says("others", "give --token-file"));
        assert_int_equal(
            lb_daemon_run(folder, "own", (const char *[]){"--check", "--listen", own[i], teacher, NULL}), 0);
    }
    assert_int_equal(
        lb_daemon_run(folder, "others", (const char *[]){"--listen", "0.0.0.0:0", teacher, NULL}), 1);
    assert_true(run_says("others", "--listen 0.0.0.0:0: anybody who reaches this address could ask; give "
                                   "--token-file"));
    assert_true(lb_daemon_start(&daemon, folder, "insecure",
                                (const char *[]){"--listen", "0.0.0.0:0", "--insecure", teacher, NULL},
                                true));
    assert_true(lb_daemon_logged(&daemon, " open_to_network "));
    assert_true(lb_daemon_logged(&daemon, " plain_to_network "));
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    const char *tokens = lb_daemon_file(folder, "network", "a-good-token\n", 0600);
    assert_true(lb_daemon_start(
        &daemon, folder, "guarded",
        (const char *[]){"--listen", "0.0.0.0:0", "--token-file", tokens, teacher, NULL}, true));
    assert_false(lb_daemon_logged(&daemon, " open_to_network "));
    assert_true(lb_daemon_logged(&daemon, " plain_to_network "));
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    assert_true(lb_daemon_start(&daemon, folder, "own", (const char *[]){teacher, NULL}, true));
    assert_false(lb_daemon_logged(&daemon, "_to_network "));
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

static int setup(void **state) {
    (void)state;
    struct lb_config config;
    char path[192];
    if (!mkdtemp(folder)) {
        return 1;
    }
    snprintf(path, sizeof path, "%s/teacher", folder);
    lb_tiny_llama(&config);
    lb_tiny_save(&config, 1, path, LB_F32, true);
    snprintf(teacher, sizeof teacher, "teacher=%s", path);
    for (int i = 0; i < 64; i++) {
        ids[i] = (i * 37 + 11) % 97;
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : 1;
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_scopes),
        cmocka_unit_test(test_tokens_per_minute),
        cmocka_unit_test(test_given_back),
        cmocka_unit_test(test_concurrent),
        cmocka_unit_test(test_credentials),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_network),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
