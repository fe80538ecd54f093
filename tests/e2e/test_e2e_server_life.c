/* limbeckd from start to end: options, sockets, models that come and go, signals. Each test has a
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
#include "tests/support/sanitized.h"
#include "tests/support/tiny_model.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char folder[] = "/tmp/limbeck-life-XXXXXX";
static char repository[128], teacher[224];
static int32_t ids[64];

static void test_usage(void **state) {
    (void)state;
    assert_int_equal(lb_daemon_run(folder, "none", (const char *[]){NULL}), 2);
    assert_int_equal(lb_daemon_run(folder, "option", (const char *[]){"--no-such-option", NULL}), 2);
    assert_int_equal(
        lb_daemon_run(folder, "number", (const char *[]){"--max-batch-tokens", "many", teacher, NULL}), 2);
    assert_int_equal(lb_daemon_run(folder, "tls", (const char *[]){"--tls-key", "k.pem", teacher, NULL}), 2);
    assert_int_equal(lb_daemon_run(folder, "help", (const char *[]){"--help", NULL}), 0);
    assert_int_equal(lb_daemon_run(folder, "check", (const char *[]){"--check", teacher, NULL}), 0);
    assert_int_equal(lb_daemon_run(folder, "nofile", (const char *[]){"--check", "t=/nonexistent", NULL}), 1);
    assert_int_equal(lb_daemon_run(folder, "noname", (const char *[]){"--check", "/nonexistent", NULL}), 1);
    assert_int_equal(
        lb_daemon_run(folder, "failed", (const char *[]){"--listen", "127.0.0.1:0", "t=/nonexistent", NULL}),
        1);
    assert_int_equal(
        lb_daemon_run(folder, "address", (const char *[]){"--listen", "nonsense", teacher, NULL}), 1);
    const char *open_file = lb_daemon_file(folder, "open-tokens", "a-good-token\n", 0644);
    assert_int_equal(
        lb_daemon_run(folder, "tokens",
                      (const char *[]){"--listen", "127.0.0.1:0", "--token-file", open_file, teacher, NULL}),
        1);
    struct lb_daemon log = {0};
    snprintf(log.log_file, sizeof log.log_file, "%s/tokens.log", folder);
    assert_true(lb_daemon_logged(&log, "chmod 600"));
}

#define ADMIN "Authorization: Bearer admin-token-1\r\n"

static void test_repository(void **state) {
    (void)state;
    const char *admin = lb_daemon_file(folder, "admin-tokens", "admin-token-1\n", 0600);
    struct lb_daemon daemon;
    struct lb_config config;
    struct lb_answer answer;
    char late[160], beside[160], parts[2][160];
    for (int i = 0; i < 2; i++) { /* a model in parts is one model */
        snprintf(parts[i], sizeof parts[i], "%s/halves-0000%d-of-00002.gguf", repository, i + 1);
        assert_int_equal(lb_file_replace(parts[i], "GGUF", 4, NULL), LB_OK);
    }
    assert_true(lb_daemon_start(
        &daemon, folder, "repository",
        (const char *[]){"--repository", repository, "--admin-token-file", admin, NULL}, true));
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/models/teacher/ready", ""), 200);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/models/broken/ready", ""),
                     404); /* listed with its reason, and the rest is served */
    assert_int_equal(lb_daemon_status(&daemon, "POST", "/v2/repository/models/teacher/unload", ADMIN), 200);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/models/teacher/ready", ""), 404);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/health/ready", ""), 503); /* it was the only one */
    assert_int_equal(lb_daemon_status(&daemon, "POST", "/v2/repository/models/teacher/load", ADMIN), 200);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/models/teacher/ready", ""), 200);
    assert_int_equal(lb_daemon_status(&daemon, "POST", "/v2/repository/models/broken/load", ADMIN), 500);
    assert_int_equal(lb_daemon_status(&daemon, "POST", "/v2/repository/models/bert/load", ADMIN), 500);
    assert_int_equal(lb_daemon_status(&daemon, "POST", "/v2/repository/models/late/load", ADMIN), 404);
    snprintf(late, sizeof late, "%s/late", repository);
    lb_tiny_llama(&config);
    lb_tiny_save(&config, 9, late, LB_F32, false); /* it appears while the daemon runs */
    snprintf(beside, sizeof beside, "%s/beside", repository);
    lb_tiny_save(&config, 9, beside, LB_F32, false); /* nobody asks for this one */
    assert_int_equal(lb_daemon_status(&daemon, "POST", "/v2/repository/models/late/load", ADMIN), 200);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/models/late/ready", ""), 200);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/models/beside/ready", ""), 404);
    assert_true(lb_daemon_ask(&daemon, "POST", "/v2/repository/index", "", NULL, 0, &answer));
    assert_null(strstr(answer.body.data, "LOADING"));
    assert_non_null(strstr(answer.body.data, "\"halves\""));
    assert_null(strstr(answer.body.data, "\"halves-0000")); /* no name; the reason has the path */
    lb_answer_finish(&answer);
    assert_true(unlink(parts[0]) == 0 && unlink(parts[1]) == 0);
    assert_int_equal(lb_remove_tree(beside, NULL), LB_OK);
    assert_int_equal(lb_remove_tree(late, NULL), LB_OK); /* mapped files live on */
    struct lb_ask ask;
    lb_ask_ids(&ask, 1, 16, ids);
    lb_ask_send_ok(&daemon, "late", &ask, "");
    lb_ask_finish(&ask);
    assert_int_equal(lb_daemon_status(&daemon, "POST", "/v2/repository/models/late/load", ADMIN), 500);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/models/late/ready", ""),
                     200); /* a failed load takes nothing away */
    const char *const bodies[] = {"{\"parameters\":{\"file:1/model.bin\":\"AAAA\"}}", "[]", "7", "{"};
    for (size_t i = 0; i < 4; i++) {
        assert_true(lb_daemon_ask(&daemon, "POST", "/v2/repository/models/teacher/load", ADMIN, bodies[i],
                                  strlen(bodies[i]), &answer));
        assert_int_equal(answer.status, 400);
        lb_answer_finish(&answer);
    }
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

/* Of a repository only what is named; the rest is there when somebody asks for it. */
static void test_load_model(void **state) {
    (void)state;
    const char *admin = lb_daemon_file(folder, "admin-tokens", "admin-token-1\n", 0600);
    struct lb_daemon daemon;
    struct lb_answer answer;
    assert_int_equal(lb_daemon_run(folder, "unnamed",
                                   (const char *[]){"--repository", repository, "--load-model", "nobody",
                                                    "--listen", "127.0.0.1:0", NULL}),
                     1);
    assert_int_equal(lb_daemon_run(folder, "nofolder", (const char *[]){"--load-model", "x", teacher, NULL}),
                     2);
    char other[160];
    struct lb_config config;
    snprintf(other, sizeof other, "%s/other", repository);
    lb_tiny_mlp(&config);
    lb_tiny_save(&config, 4, other, LB_F32, false);
    assert_true(lb_daemon_start(&daemon, folder, "named",
                                (const char *[]){"--repository", repository, "--load-model", "other",
                                                 "--admin-token-file", admin, NULL},
                                true));
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/models/other/ready", ""), 200);
    assert_true(lb_daemon_ask(&daemon, "GET", "/v2/models/teacher/ready", "", NULL, 0, &answer));
    assert_int_equal(answer.status, 404);
    assert_non_null(strstr(answer.body.data, "--load-model"));
    lb_answer_finish(&answer);
    assert_int_equal(lb_daemon_status(&daemon, "POST", "/v2/repository/models/teacher/load", ADMIN), 200);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/models/teacher/ready", ""), 200);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    assert_int_equal(lb_remove_tree(other, NULL), LB_OK);
}

static bool run_says(const char *name, const char *text) {
    struct lb_daemon log = {0};
    snprintf(log.log_file, sizeof log.log_file, "%s/%s.log", folder, name);
    return lb_daemon_logged(&log, text);
}

/* What --check refuses: all that would stop the daemon, and weights that answer with NaN. */
static void test_check(void **state) {
    (void)state;
    const char *bad = lb_daemon_file(folder, "bad.pem", "no certificate\n", 0600),
               *empty = lb_daemon_file(folder, "empty.pem", "", 0600);
    assert_int_equal(
        lb_daemon_run(folder, "pem",
                      (const char *[]){"--check", "--tls-certificate", bad, "--tls-key", bad, teacher, NULL}),
        1);
    assert_true(run_says("pem", "--tls-certificate"));
    assert_int_equal(lb_daemon_run(folder, "pem2",
                                   (const char *[]){"--check", "--tls-certificate", empty, "--tls-key", bad,
                                                    teacher, NULL}),
                     1);
    assert_int_equal(lb_daemon_run(folder, "pem3",
                                   (const char *[]){"--check", "--tls-certificate", bad, "--tls-key", empty,
                                                    teacher, NULL}),
                     1);
    assert_true(run_says("pem3", "the file is empty"));
    assert_int_equal(
        lb_daemon_run(folder, "tok",
                      (const char *[]){"--check", "--token-file", "/nonexistent", teacher, NULL}),
        1);
    char long_path[160];
    snprintf(long_path, sizeof long_path, "unix:/%0120d", 0);
    const char *ports[] = {"127.0.0.1:99999",  ":99999", "127.0.0.1:65536",
                           "127.0.0.1:000080", "unix:",  long_path};
    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++) {
        assert_int_equal(
            lb_daemon_run(folder, "port", (const char *[]){"--check", "--listen", ports[i], teacher, NULL}),
            1);
        assert_int_equal(lb_daemon_run(folder, "port", (const char *[]){"--listen", ports[i], teacher, NULL}),
                         1);
        assert_true(run_says("port", "--listen"));
    }
    struct lb_config config;
    char path[160], served[180], file[180];
    snprintf(path, sizeof path, "%s/nan", folder);
    lb_tiny_llama(&config);
    lb_tiny_save(&config, 5, path, LB_F32, false);
    snprintf(file, sizeof file, "%s/model.safetensors", path);
    struct lb_buf bytes;
    lb_buf_init(&bytes, 1 << 24);
    assert_int_equal(lb_file_read(file, &bytes, NULL), LB_OK);
    const float nan = __builtin_nanf("");
    memcpy(bytes.data + bytes.len - 4, &nan, 4); /* the last number of the last tensor */
    assert_int_equal(lb_file_replace(file, bytes.data, bytes.len, NULL), LB_OK);
    lb_buf_finish(&bytes);
    snprintf(served, sizeof served, "nan=%s", path);
    assert_int_equal(lb_daemon_run(folder, "nan", (const char *[]){"--check", served, NULL}), 1);
    assert_true(run_says("nan", "NaN"));
}

/* Where there is no room for OpenBLAS's buffers it would try for ever: one line instead. */
static void test_little_room(void **state) {
    (void)state;
    if (LB_SANITIZED) {
        skip(); /* sanitizers need more themselves */
    }
    struct rlimit before, little = {(rlim_t)300 << 20, (rlim_t)300 << 20};
    getrlimit(RLIMIT_AS, &before);
    little.rlim_max = before.rlim_max;
    if (setrlimit(RLIMIT_AS, &little) != 0) {
        skip(); /* the sanitizer needs more itself */
    }
    int status = lb_daemon_run(folder, "room", (const char *[]){"--check", teacher, NULL});
    setrlimit(RLIMIT_AS, &before);
    assert_int_equal(status, 1);
    assert_true(run_says("room", "ulimit -v is too small"));
}

static void test_unix_socket(void **state) {
    (void)state;
    struct lb_daemon daemon, second;
    char listen_at[200], path[160];
    snprintf(path, sizeof path, "%s/limbeck.sock", folder);
    snprintf(listen_at, sizeof listen_at, "unix:%s", path);
    assert_true(lb_daemon_start(&daemon, folder, "unix",
                                (const char *[]){"--listen", listen_at, teacher, NULL}, true));
    struct lb_ask ask;
    lb_ask_ids(&ask, 2, 16, ids);
    lb_ask_send_ok(&daemon, "teacher", &ask, "");
    lb_ask_finish(&ask);
    /* A second one isn't let in; one that was killed leaves a socket that is replaced. */
    assert_int_equal(lb_daemon_run(folder, "unix2", (const char *[]){"--listen", listen_at, teacher, NULL}),
                     1);
    lb_daemon_stop(&daemon, SIGKILL);
    assert_int_equal(access(path, F_OK), 0);
    /* Another program's socket of another kind isn't one that was left. */
    struct sockaddr_un other = {.sun_family = AF_UNIX};
    snprintf(other.sun_path, sizeof other.sun_path, "%.90s/log.sock", folder);
    snprintf(listen_at, sizeof listen_at, "unix:%s", other.sun_path);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&other, sizeof other), 0);
    assert_int_equal(lb_daemon_run(folder, "unix4", (const char *[]){"--listen", listen_at, teacher, NULL}),
                     1);
    assert_int_equal(access(other.sun_path, F_OK), 0);
    close(fd);
    snprintf(listen_at, sizeof listen_at, "unix:%s", path);
    assert_true(lb_daemon_start(&second, folder, "unix3",
                                (const char *[]){"--listen", listen_at, teacher, NULL}, true));
    assert_int_equal(lb_daemon_stop(&second, SIGTERM), 0);
    assert_int_equal(access(path, F_OK), -1);
}

/* ---- signals ---- */

#define N_CLIENTS 5

struct client {
    const struct lb_daemon *daemon;
    int status;
    uint32_t digest;
};

static uint32_t digest(const void *bytes, size_t len) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < len; i++) {
        h = (h ^ ((const uint8_t *)bytes)[i]) * 16777619u;
    }
    return h;
}

static void *be_client(void *argument) {
    struct client *client = argument;
    struct lb_ask ask;
    lb_ask_ids(&ask, 4, 16, ids);
    lb_ask_output(&ask, "logits", LB_DT_NONE, true);
    int fd = lb_daemon_connect(client->daemon);
    if (lb_ask_on(fd, "teacher", &ask, "")) {
        client->status = ask.answer.status;
        client->digest = ask.answer.status == 200
                             ? digest(ask.response.outputs[0].data, ask.response.outputs[0].bytes)
                             : 0;
    }
    lb_ask_finish(&ask);
    close(fd);
    return NULL;
}

static void start_clients(const struct lb_daemon *daemon, struct client clients[N_CLIENTS],
                          pthread_t threads[N_CLIENTS]) {
    for (int i = 0; i < N_CLIENTS; i++) {
        clients[i] = (struct client){.daemon = daemon};
        assert_int_equal(pthread_create(&threads[i], NULL, be_client, &clients[i]), 0);
    }
}

/* What is queued at SIGTERM is answered, and right; a request that comes later gets 503 and the connection is
 * closed. */
static void test_drain(void **state) {
    (void)state;
    static struct lb_daemon daemon; /* the clients of a test that fails live on */
    static struct client clients[N_CLIENTS];
    struct client reference;
    pthread_t threads[N_CLIENTS];
    assert_true(lb_daemon_start(&daemon, folder, "reference", (const char *[]){teacher, NULL}, true));
    reference = (struct client){.daemon = &daemon};
    be_client(&reference);
    assert_int_equal(reference.status, 200);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);

    /* Nobody's batch is full: without the drain they would wait for ten seconds. */
    assert_true(lb_daemon_start(&daemon, folder, "drain",
                                (const char *[]){"--max-wait-us", "10000000", teacher, NULL}, true));
    start_clients(&daemon, clients, threads);
    lb_ask_await(lb_ask_metrics_hold, &daemon, "\nlimbeckd_queue_requests 5\n");
    /* A request that has begun, and whose body comes only when the daemon drains. */
    int slow = lb_daemon_connect(&daemon);
    const char *head = "POST /v2/models/teacher/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n";
    assert_true(write(slow, head, strlen(head)) > 0);
    lb_ask_await(lb_ask_metrics_hold, &daemon,
                 "\nlimbeckd_open_requests 7\n"); /* five, the slow one, the one that asks */
    kill(daemon.pid, SIGTERM);
    assert_true(lb_daemon_await_log(&daemon, "draining"));
    char body[91];
    snprintf(body, sizeof body, "%-90s",
             "{\"inputs\":[{\"name\":\"input_ids\",\"shape\":[1,2],\"datatype\":\"INT64\",\"data\":[3,4]}]}");
    assert_int_equal(write(slow, body, 90), 90);
    struct lb_answer answer;
    char value[32];
    assert_true(lb_http_receive(slow, &answer));
    assert_int_equal(answer.status, 503);
    assert_true(lb_answer_header(&answer, "Retry-After", value, sizeof value));
    assert_true(lb_answer_header(&answer, "Connection", value, sizeof value));
    assert_string_equal(value, "close");
    lb_answer_finish(&answer);
    close(slow);
    for (int i = 0; i < N_CLIENTS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(clients[i].status, 200);
        assert_int_equal(clients[i].digest, reference.digest);
    }
    assert_int_equal(lb_daemon_stop(&daemon, 0), 0);
    assert_int_equal(access(daemon.port_file, F_OK), -1);
    assert_int_equal(lb_daemon_connect(&daemon), -1);
}

/* With no time to drain, everybody still gets an answer. */
static void test_short_drain(void **state) {
    (void)state;
    static struct lb_daemon daemon;
    static struct client clients[N_CLIENTS];
    pthread_t threads[N_CLIENTS];
    assert_true(lb_daemon_start(&daemon, folder, "short",
                                (const char *[]){"--max-wait-us", "10000000", "--drain-seconds", "0",
                                                 "--max-batch-tokens", "4096", teacher, NULL},
                                true));
    start_clients(&daemon, clients, threads);
    lb_ask_await(lb_ask_metrics_hold, &daemon, "\nlimbeckd_queue_requests 5\n");
    assert_int_equal(lb_daemon_stop(&daemon, SIGINT), 0);
    for (int i = 0; i < N_CLIENTS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(clients[i].status == 200 || clients[i].status == 503);
    }
}

static bool exits_when_told_again(const struct lb_daemon *daemon, const void *argument) {
    (void)argument;
    kill(daemon->pid, SIGTERM);
    return lb_daemon_logged(daemon, "action=exit");
}

static void test_second_signal(void **state) {
    (void)state;
    struct lb_daemon daemon;
    assert_true(lb_daemon_start(&daemon, folder, "second", (const char *[]){teacher, NULL}, true));
    int slow = lb_daemon_connect(&daemon); /* what the drain waits for */
    const char *head = "POST /v2/models/teacher/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n";
    assert_true(write(slow, head, strlen(head)) > 0);
    lb_ask_await(lb_ask_metrics_hold, &daemon, "\nlimbeckd_open_requests 2\n");
    kill(daemon.pid, SIGTERM);
    assert_true(lb_daemon_await_log(&daemon, "draining"));
    lb_ask_await(exits_when_told_again, &daemon, NULL);
    assert_int_equal(lb_daemon_stop(&daemon, 0), 1);
    close(slow);
}

/* The deadline passes while the request waits for company; the answer comes then, not when the batch would.
 */
static void test_deadline(void **state) {
    (void)state;
    struct lb_daemon daemon;
    struct lb_ask ask;
    assert_true(lb_daemon_start(&daemon, folder, "deadline",
                                (const char *[]){"--max-wait-us", "10000000", teacher, NULL}, true));
    int fd = lb_daemon_connect(&daemon);
    lb_ask_ids(&ask, 1, 16, ids);
    ask.request.timeout_us = 50000;
    uint64_t begun = lb_now_ns();
    assert_true(lb_ask_on(fd, "teacher", &ask, ""));
    assert_int_equal(ask.answer.status, 504);
    assert_true(lb_now_ns() - begun >= 50 * LB_MS_NS && lb_now_ns() - begun < 8 * LB_SECOND_NS);
    assert_true(lb_ask_metrics_hold(&daemon, "limbeckd_deadline_expired_total{model=\"teacher\"} 1\n"));
    lb_ask_finish(&ask);
    close(fd);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

/* A queue that is full says so at once. */
static void test_full_queue(void **state) {
    (void)state;
    static struct lb_daemon daemon;
    static struct client clients[N_CLIENTS];
    pthread_t threads[N_CLIENTS];
    struct lb_ask ask;
    char value[16];
    assert_true(lb_daemon_start(
        &daemon, folder, "full",
        (const char *[]){"--max-wait-us", "10000000", "--max-queue-tokens", "320", teacher, NULL}, true));
    start_clients(&daemon, clients, threads); /* 5 times 64 tokens */
    lb_ask_await(lb_ask_metrics_hold, &daemon, "\nlimbeckd_queue_requests 5\n");
    int fd = lb_daemon_connect(&daemon);
    lb_ask_ids(&ask, 1, 1, ids);
    assert_true(lb_ask_on(fd, "teacher", &ask, ""));
    assert_int_equal(ask.answer.status, 503);
    assert_true(lb_answer_header(&ask.answer, "Retry-After", value, sizeof value));
    assert_non_null(strstr(ask.answer.body.data, "queue is full"));
    lb_ask_finish(&ask);
    close(fd);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    for (int i = 0; i < N_CLIENTS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(clients[i].status, 200);
    }
}

/* Of one request: n times something in a member that nobody reads, or as bytes of a tensor. */
static int ask_large(const struct lb_daemon *daemon, const char *headers, const char *open, const char *piece,
                     size_t n, const char *close) {
    struct lb_answer answer;
    struct lb_buf body;
    lb_buf_init(&body, (size_t)32 << 20);
    lb_buf_append_str(&body, open);
    for (size_t i = 0; i < n; i++) {
        lb_buf_append_str(&body, piece);
    }
    lb_buf_append_str(&body, close);
    assert_int_equal(lb_buf_status(&body), LB_OK);
    lb_daemon_ask(daemon, "POST", "/v2/models/teacher/infer", headers, body.data, body.len, &answer);
    int status = answer.status;
    assert_true(status != 413 || strstr(answer.body.data, "--memory-limit-mib"));
    lb_answer_finish(&answer);
    lb_buf_finish(&body);
    return status;
}

/* What a request needs to be decoded is counted however it is written: many values, objects, keys, JSON under
 * the length of an earlier request, tensors that are copied. One may have 21 MiB here. */
static void test_decoding_memory(void **state) {
    (void)state;
    static const char open[] = "{\"inputs\":[{\"name\":\"input_ids\",\"shape\":[1,2],\"datatype\":\"INT64\","
                               "\"data\":[3,4]}],\"x\":[";
    static const char tensor[] = "{\"inputs\":[{\"name\":\"input_ids\",\"shape\":[1,1572864],\"datatype\":"
                                 "\"INT64\",\"parameters\":{\"binary_data_size\":12582912}}]}";
    char length[64];
    struct lb_daemon daemon;
    assert_true(lb_daemon_start(&daemon, folder, "decoding",
                                (const char *[]){"--memory-limit-mib", "64", teacher, NULL}, true));
    assert_int_equal(ask_large(&daemon, "", open, "1,", 100000, "1]}"), 200);
    assert_int_equal(ask_large(&daemon, "", open, "1,", 400000, "1]}"), 413);
    assert_int_equal(ask_large(&daemon, LB_HEADER_JSON_LENGTH ": 2\r\n", open, "1,", 100000, "1]}"), 200);
    assert_int_equal(ask_large(&daemon, LB_HEADER_JSON_LENGTH ": 2\r\n", open, "1,", 400000, "1]}"), 413);
    assert_int_equal(ask_large(&daemon, "", open, "{},", 150000, "1]}"), 413);
    assert_int_equal(ask_large(&daemon, "", open, "{\"a\":1},", 80000, "1]}"), 413);
    snprintf(length, sizeof length, LB_HEADER_JSON_LENGTH ": %zu\r\n", sizeof tensor - 1);
    assert_int_equal(ask_large(&daemon, length, tensor, "12345678", 1572864, ""), 413);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

static bool holds_little(const struct lb_daemon *daemon) {
    struct lb_answer answer;
    bool asked = lb_daemon_ask(daemon, "GET", "/metrics", "", NULL, 0, &answer);
    const char *name = "\nlimbeckd_pending_bytes ", *at = asked ? strstr(answer.body.data, name) : NULL;
    bool little = at && strtod(at + strlen(name), NULL) < (double)(1 << 20);
    lb_answer_finish(&answer);
    return little;
}

/* While a request waits its body is gone, and so is what was held for it. */
static void test_waiting_memory(void **state) {
    (void)state;
    static const char open[] = "{\"inputs\":[{\"name\":\"input_ids\",\"shape\":[1,2],\"datatype\":\"INT64\","
                               "\"data\":[3,4]}],\"x\":\"";
    struct lb_daemon daemon;
    struct lb_answer answer;
    struct lb_buf body;
    assert_true(lb_daemon_start(&daemon, folder, "waiting",
                                (const char *[]){"--max-wait-us", "10000000", teacher, NULL}, true));
    lb_buf_init(&body, (size_t)8 << 20);
    lb_buf_append_str(&body, open);
    memset(lb_buf_extend(&body, (size_t)4 << 20), 'x', (size_t)4 << 20);
    lb_buf_append_str(&body, "\"}");
    assert_int_equal(lb_buf_status(&body), LB_OK);
    int fd = lb_daemon_connect(&daemon);
    assert_true(lb_http_send(fd, "POST", "/v2/models/teacher/infer", "", body.data, body.len));
    lb_ask_await(lb_ask_metrics_hold, &daemon, "\nlimbeckd_queue_requests 1\n");
    assert_true(holds_little(&daemon));
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    assert_true(lb_http_receive(fd, &answer));
    assert_int_equal(answer.status, 200);
    lb_answer_finish(&answer);
    lb_buf_finish(&body);
    close(fd);
}

static int setup(void **state) {
    (void)state;
    struct lb_config config;
    char path[192];
    if (!mkdtemp(folder)) {
        return 1;
    }
    snprintf(repository, sizeof repository, "%s/models", folder);
    snprintf(path, sizeof path, "%s/teacher", repository);
    lb_tiny_llama(&config);
    if (lb_mkdirs(repository, NULL) != LB_OK) {
        return 1;
    }
    lb_tiny_save(&config, 1, path, LB_F32, true);
    snprintf(teacher, sizeof teacher, "teacher=%s", path);
    snprintf(path, sizeof path, "%s/broken", repository);
    if (lb_mkdirs(path, NULL) != LB_OK) {
        return 1;
    }
    snprintf(path, sizeof path, "%s/broken/config.json", repository);
    for (int i = 0; i < 64; i++) {
        ids[i] = (i * 37 + 11) % 97;
    }
    if (lb_file_replace(path, "{}", 2, NULL) != LB_OK) {
        return 1;
    }
    static const char bert[] = "{\"model_type\":\"bert\"}"; /* of a family that there isn't */
    snprintf(path, sizeof path, "%s/bert", repository);
    lb_tiny_save(&config, 1, path, LB_F32, false);
    snprintf(path, sizeof path, "%s/bert/config.json", repository);
    return lb_file_replace(path, bert, sizeof bert - 1, NULL) == LB_OK ? 0 : 1;
}

static int teardown(void **state) {
    (void)state;
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : 1;
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usage),          cmocka_unit_test(test_repository),
        cmocka_unit_test(test_unix_socket),    cmocka_unit_test(test_drain),
        cmocka_unit_test(test_short_drain),    cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_second_signal),  cmocka_unit_test(test_full_queue),
        cmocka_unit_test(test_load_model),     cmocka_unit_test(test_check),
        cmocka_unit_test(test_little_room),    cmocka_unit_test(test_decoding_memory),
        cmocka_unit_test(test_waiting_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
