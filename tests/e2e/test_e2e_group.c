/* A group of trainers before one daemon: what they ask alike is computed once, whatever each wants of it, and
 * everybody gets what he would get alone; by what /metrics tells. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "tests/e2e/ask.h"
#include "tests/support/tiny_model.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define N_TRAINERS 10
#define TEXTS 6
#define LENGTH 16
#define TOKENS (TEXTS * LENGTH)
#define ADMIN "Authorization: Bearer admin-token-1\r\n"

static char folder[] = "/tmp/limbeck-group-XXXXXX";
static char teacher[160], other[160], admin_file[160];
static int32_t ids[TEXTS * LENGTH], scores[TEXTS * LENGTH * 2];
static struct lb_daemon alone; /* keeps nothing: asked by one at a time */

/* ---- what /metrics says ---- */

/* The sum over all models; 0 when there is no such series. */
static double metric(const struct lb_daemon *daemon, const char *name) {
    struct lb_answer answer;
    double sum = 0;
    size_t len = strlen(name);
    assert_true(lb_daemon_ask(daemon, "GET", "/metrics", "", NULL, 0, &answer));
    for (const char *line = answer.body.data; line && *line;) {
        if (strncmp(line, name, len) == 0 && (line[len] == '{' || line[len] == ' ')) {
            const char *end = strchr(line, '\n'), *at = end;
            while (at > line && at[-1] != ' ') {
                at--;
            }
            sum += strtod(at, NULL);
        }
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    lb_answer_finish(&answer);
    return sum;
}

static void await(const struct lb_daemon *daemon, const char *name, double value) {
    uint64_t until = lb_now_ns() + 20 * LB_SECOND_NS;
    while (metric(daemon, name) != value) {
        assert_true(lb_now_ns() < until);
        lb_sleep_ns(2 * LB_MS_NS);
    }
}

static void check_counts(const struct lb_daemon *daemon, int asked, int computed, int joined, int known) {
    assert_int_equal((int)metric(daemon, "limbeckd_asked_tokens_total"), asked * TOKENS);
    assert_int_equal((int)metric(daemon, "limbeckd_tokens_total"), computed * TOKENS);
    assert_int_equal((int)metric(daemon, "limbeckd_joined_tokens_total"), joined * TOKENS);
    assert_int_equal((int)metric(daemon, "limbeckd_known_tokens_total"), known * TOKENS);
    assert_int_equal((int)metric(daemon, "limbeckd_awaited_sequences"), 0);
}

/* ---- trainers ---- */

/* What one asks of the texts. */
struct wish {
    const char *outputs[4];
    double temperature;
    int64_t samples;
    bool scored;
};

static const struct wish wishes[N_TRAINERS] = {
    {{"hidden_states.1"}, 1, 0, false},
    {{"queries.0", "hidden_states.0"}, 1, 0, false},
    {{"logits.topk_ids", "logits.topk_values", "logsumexp"}, 1, 0, false},
    {{"logits.topk_ids", "logprobs.topk_values"}, 2, 0, false},
    {{"logits.at_ids"}, 1, 0, true},
    {{"samples.ids", "samples.counts"}, 1, 7, false},
    {{"logits"}, 1, 0, false},
    {{"hidden_states.final"}, 1, 0, false},
    {{"ranks.actual", "logprobs.next"}, 1, 0, false},
    {{"logprobs.actual", "logprobs.rest"}, 0.5, 0, false}};

static void make_ask(const struct wish *wish, struct lb_ask *ask) {
    lb_ask_ids(ask, TEXTS, LENGTH, ids);
    if (wish->scored) {
        lb_ask_input(ask, "score_ids", LB_DT_INT32, TEXTS, LENGTH, scores);
        struct lb_wire_tensor *t = &ask->inputs[ask->request.n_inputs - 1];
        t->n_dims = 3;
        t->dim[2] = 2;
        t->bytes *= 2;
    }
    for (int i = 0; i < 4 && wish->outputs[i]; i++) {
        lb_ask_output(ask, wish->outputs[i], LB_DT_NONE, true);
    }
    ask->request.temperature = wish->temperature;
    ask->request.sample_count = wish->samples;
}

struct trainer {
    const char *model;
    const struct wish *wish;
    struct lb_ask ask;
    int fd;
    bool answered;
};

static void *train(void *argument) {
    struct trainer *t = argument;
    make_ask(t->wish, &t->ask);
    t->answered = lb_ask_on(t->fd, t->model, &t->ask, "") && t->ask.answer.status == 200;
    close(t->fd);
    return NULL;
}

static void begin(struct trainer *t, pthread_t *thread, const struct lb_daemon *daemon, const char *model,
                  const struct wish *wish) {
    *t = (struct trainer){.model = model, .wish = wish, .fd = lb_daemon_connect(daemon)};
    assert_true(t->fd >= 0);
    assert_int_equal(pthread_create(thread, NULL, train, t), 0);
}

/* The answer is what one alone gets; frees it. */
static void check_alone(struct trainer *t) {
    struct lb_ask ask;
    assert_true(t->answered);
    make_ask(t->wish, &ask);
    lb_ask_send_ok(&alone, t->model, &ask, "");
    assert_int_equal(ask.response.n_outputs, t->ask.response.n_outputs);
    for (size_t i = 0; i < ask.response.n_outputs; i++) {
        const struct lb_wire_tensor *a = &ask.response.outputs[i], *b = &t->ask.response.outputs[i];
        assert_string_equal(a->name, b->name);
        assert_int_equal(a->bytes, b->bytes);
        assert_memory_equal(a->data, b->data, a->bytes);
    }
    lb_ask_finish(&ask);
    lb_ask_finish(&t->ask);
}

static void start(struct lb_daemon *daemon, const char *name, const char *const *options) {
    const char *all[16];
    int n = 0;
    for (; options[n]; n++) {
        all[n] = options[n];
    }
    all[n++] = teacher;
    all[n++] = other;
    all[n] = NULL;
    assert_true(lb_daemon_start(daemon, folder, name, all, true));
}

/* ---- the tests ---- */

/* Ten ask the same, started together: nothing is computed twice, as it comes; nor when it all waits together
 * and nothing may be kept. */
static void test_same_questions(void **state) {
    (void)state;
    static struct lb_daemon daemon;
    static struct trainer trainers[N_TRAINERS];
    pthread_t threads[N_TRAINERS];
    const char *const as_it_comes[] = {NULL}, *const together[] = {"--max-wait-us",
                                                                   "10000000",
                                                                   "--max-batch-tokens",
                                                                   "960",
                                                                   "--state-cache-mib",
                                                                   "0",
                                                                   NULL};
    for (int way = 0; way < 2; way++) {
        start(&daemon, way ? "together" : "same", way ? together : as_it_comes);
        for (int i = 0; i < N_TRAINERS; i++) {
            begin(&trainers[i], &threads[i], &daemon, "teacher", &wishes[2]);
        }
        for (int i = 0; i < N_TRAINERS; i++) {
            pthread_join(threads[i], NULL);
            check_alone(&trainers[i]);
        }
        assert_int_equal((int)metric(&daemon, "limbeckd_asked_tokens_total"), N_TRAINERS * TOKENS);
        assert_int_equal((int)metric(&daemon, "limbeckd_tokens_total"), TOKENS);
        assert_true((metric(&daemon, "limbeckd_known_bytes") > 0) == (way == 0));
        assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
    }
}

/* Ten ask ten unlike things of the same texts; inner states are kept as well when somebody waits for them.
 * And what is known is known in other dialects. */
static void test_unlike_questions(void **state) {
    (void)state;
    static struct lb_daemon daemon;
    static struct trainer trainers[N_TRAINERS];
    pthread_t threads[N_TRAINERS];
    start(&daemon, "unlike", (const char *[]){"--max-wait-us", "3000000", "--max-batch-tokens", "960", NULL});
    for (int i = 0; i < N_TRAINERS; i++) {
        begin(&trainers[i], &threads[i], &daemon, "teacher", &wishes[i]);
    }
    for (int i = 0; i < N_TRAINERS; i++) {
        pthread_join(threads[i], NULL);
        check_alone(&trainers[i]);
    }
    check_counts(&daemon, 10, 1, 9, 0);
    struct lb_buf body;
    struct lb_answer answer;
    lb_buf_init(&body, 65536);
    lb_buf_append_str(&body, "{\"model\":\"teacher\",\"max_tokens\":0,\"prompt_logprobs\":3,\"prompt\":[");
    for (int i = 0; i < TOKENS; i++) {
        lb_buf_printf(&body, "%s%d", i % LENGTH ? "," : i > 0 ? "],[" : "[", ids[i]);
    }
    lb_buf_append_str(&body, "]]}");
    assert_true(lb_daemon_ask(&daemon, "POST", "/v1/completions", "", body.data, body.len, &answer));
    assert_int_equal(answer.status, 200);
    lb_answer_finish(&answer);
    lb_buf_finish(&body);
    check_counts(&daemon, 11, 1, 9, 1);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

/* One asks first and hangs up, or has no time: who waits for the same texts is served. */
static void test_lost_company(void **state) {
    (void)state;
    static struct lb_daemon daemon;
    static struct trainer trainers[4];
    pthread_t threads[4];
    struct lb_ask ask;
    start(&daemon, "lost", (const char *[]){"--max-wait-us", "10000000", "--max-batch-tokens", "288", NULL});
    int hanging = lb_daemon_connect(&daemon), late = lb_daemon_connect(&daemon);
    const char *head =
        "POST /v2/models/teacher/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n{\"in";
    assert_true(write(hanging, head, strlen(head)) == (ssize_t)strlen(head));
    begin(&trainers[0], &threads[0], &daemon, "teacher", &wishes[2]);
    await(&daemon, "limbeckd_queue_requests", 1);
    begin(&trainers[1], &threads[1], &daemon, "teacher", &wishes[3]);
    await(&daemon, "limbeckd_queue_requests", 2);
    close(hanging);                      /* in the middle of its body */
    shutdown(trainers[0].fd, SHUT_RDWR); /* while it waits */
    await(&daemon, "limbeckd_queue_requests", 1);
    make_ask(&wishes[2], &ask);
    ask.request.timeout_us = 20000;
    assert_true(lb_ask_on(late, "teacher", &ask, ""));
    assert_int_equal(ask.answer.status, 504);
    lb_ask_finish(&ask);
    close(late);
    for (int i = 2; i < 4; i++) { /* three make a batch */
        begin(&trainers[i], &threads[i], &daemon, "teacher", &wishes[i + 2]);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_false(trainers[0].answered);
    lb_ask_finish(&trainers[0].ask);
    for (int i = 1; i < 4; i++) {
        check_alone(&trainers[i]);
    }
    check_counts(&daemon, 3, 1, 2, 0);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

/* Two models are asked the same ids; one is opened anew, and goes. */
static void test_models_apart(void **state) {
    (void)state;
    static struct lb_daemon daemon;
    struct trainer one;
    pthread_t thread;
    const char *const orders[] = {"load", "unload"};
    start(&daemon, "models", (const char *[]){"--admin-token-file", admin_file, NULL});
    for (int i = 0; i < 4; i++) {
        begin(&one, &thread, &daemon, i % 2 ? "other" : "teacher", &wishes[2]);
        pthread_join(thread, NULL);
        check_alone(&one);
    }
    check_counts(&daemon, 4, 2, 0, 2);
    assert_int_equal((int)metric(&daemon, "limbeckd_known_sequences"), 2 * TEXTS);
    for (int i = 0; i < 2; i++) {
        struct lb_answer answer;
        char path[96];
        snprintf(path, sizeof path, "/v2/repository/models/other/%s", orders[i]);
        assert_true(lb_daemon_ask(&daemon, "POST", path, ADMIN, "{}", 2, &answer));
        assert_int_equal(answer.status, 200);
        lb_answer_finish(&answer);
        await(&daemon, "limbeckd_known_sequences", TEXTS);
        if (i == 0) {
            begin(&one, &thread, &daemon, "other", &wishes[2]);
            pthread_join(thread, NULL);
            check_alone(&one);
            check_counts(&daemon, 5, 3, 0, 2);
        }
    }
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

/* What is kept is a part of all memory, not most of it. */
static void test_too_much_to_keep(void **state) {
    (void)state;
    char log[200];
    struct lb_buf text;
    const char *const options[] = {"--memory-limit-mib", "64", "--state-cache-mib", "33", teacher, NULL};
    assert_int_equal(lb_daemon_run(folder, "large", options), 1);
    snprintf(log, sizeof log, "%s/large.log", folder);
    lb_buf_init(&text, 65536);
    assert_int_equal(lb_file_read(log, &text, NULL), LB_OK);
    assert_non_null(strstr(text.data, "--state-cache-mib 33: more than half of the 64 MiB"));
    lb_buf_finish(&text);
}

static int start_all(void **state) {
    (void)state;
    struct lb_config config;
    if (!mkdtemp(folder)) {
        return 1;
    }
    snprintf(teacher, sizeof teacher, "teacher=%s/teacher", folder);
    snprintf(other, sizeof other, "other=%s/other", folder);
    snprintf(admin_file, sizeof admin_file, "%s/admin", folder);
    lb_tiny_llama(&config);
    lb_tiny_save(&config, 1, strchr(teacher, '/'), LB_F32, true);
    lb_tiny_save(&config, 2, strchr(other, '/'), LB_F32, true);
    for (int i = 0; i < TOKENS; i++) {
        ids[i] = (i * 37 + i * i * 5 + 11) % 97;
        scores[2 * i] = (i * 3) % 97;
        scores[2 * i + 1] = i % 4 == 0 ? -1 : (i * 7) % 97;
    }
    if (lb_file_replace(admin_file, "admin-token-1\n", 14, NULL) != LB_OK || chmod(admin_file, 0600) != 0) {
        return 1;
    }
    start(&alone, "alone", (const char *[]){"--state-cache-mib", "0", NULL});
    return 0;
}

static int stop_all(void **state) {
    (void)state;
    int status = lb_daemon_stop(&alone, SIGTERM);
    bool removed = lb_remove_tree(folder, NULL) == LB_OK;
    return status == 0 && removed ? 0 : 1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_questions), cmocka_unit_test(test_unlike_questions),
        cmocka_unit_test(test_lost_company), cmocka_unit_test(test_models_apart),
        cmocka_unit_test(test_too_much_to_keep)};
    return cmocka_run_group_tests(tests, start_all, stop_all);
}
