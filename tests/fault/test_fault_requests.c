/* One allocation of a whole daemon fails while it answers, each in turn, or all from it on: the answer is
 * right, an error, or cut off so that its client can tell; and the next one is right. The daemon is this
 * process, so that its memory is known to the test. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/nn/gemm.h"
#include "server/server.h"
#include "tests/support/peer.h"
#include "tests/support/tiny_model.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MOST 3000 /* allocations of one answer */

static char folder[] = "/tmp/limbeck-requests-XXXXXX";
static char served[160];
static struct lb_options options;
static struct lb_server server;
static char heard[1 << 20], text[1 << 20];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int n_loaded;

static void loaded(void *context, enum lb_status status, const struct lb_detail *detail) {
    (void)context;
    (void)detail;
    pthread_mutex_lock(&lock);
    n_loaded = status == LB_OK ? 1 : -1;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
}

#define WRITE "\"temperature\":0,\"ignore_eos\":true"
#define V1 "/v1/completions", "{\"prompt\":[[5,6,7]],\"max_tokens\":5,\"logprobs\":2,\"echo\":true," WRITE
#define SGL                                                                                                  \
    "/generate", "{\"input_ids\":[[5,6,7]],\"sampling_params\":{\"max_new_tokens\":5," WRITE "},"            \
                 "\"return_logprob\":true,\"top_logprobs_num\":2"

static const struct question {
    const char *path, *body;
    const char *from;   /* all is compared from here on; NULL: texts are */
    bool stream, whole; /* each event tells the whole text */
} questions[] = {
    {"/v2/models/teacher/infer",
     "{\"inputs\":[{\"name\":\"input_ids\",\"shape\":[2,3],\"datatype\":\"INT32\",\"data\":[5,6,7,8,9,10]}]}",
     "\r\n\r\n", false, false},
    {"/pooling",
     "{\"input\":[[5,6,7],[8]],\"task\":\"token_embed\",\"use_activation\":false,\"encoding_format\":"
     "\"base64\"}",
     "\"data\":", false, false},
    {"/inference/v1/generate",
     "{\"token_ids\":[5,6,7],\"sampling_params\":{\"max_tokens\":1,\"temperature\":0,\"prompt_logprobs\":2,"
     "\"prompt_logprob_token_ids\":[1,2]}}",
     "\"choices\":", false, false},
    {"/tokenize", "{\"prompt\":\"(f)9gg&n|9sn\",\"return_token_strs\":true}", "\r\n\r\n", false, false},
    {"/detokenize", "{\"tokens\":[5,6,7,8]}", "\r\n\r\n", false, false},
    {V1 "}", NULL, false, false},
    {V1 ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}", NULL, true, false},
    {SGL "}", NULL, false, false},
    {SGL ",\"stream\":true}", NULL, true, true},
};

/* Asks, and hears all until the close, with nothing of ours that allocates. The status; 0: none. */
static int ask(const struct question *q) {
    char request[1024];
    int status = 0;
    snprintf(request, sizeof request,
             "POST %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", q->path,
             strlen(q->body), q->body);
    int fd = lb_peer_dial(server.listener.port);
    lb_peer_say(fd, request);
    assert_true(lb_peer_hear(fd, heard, sizeof heard));
    close(fd);
    return sscanf(heard, "HTTP/1.1 %d", &status) == 1 ? status : 0;
}

/* The answer's texts one behind the other, of each event that tells the whole the last ones. */
static const char *texts(const struct question *q) {
    static const char key[] = "\"text\":\"";
    size_t len = 0;
    if (q->from) {
        const char *at = strstr(heard, q->from);
        return at ? at : heard;
    }
    text[0] = '\0';
    for (const char *at = heard; (at = strstr(at, key)) != NULL;) {
        at += sizeof key - 1;
        const char *end = at;
        while (*end && *end != '"') {
            end += *end == '\\' && end[1] ? 2 : 1;
        }
        bool last = !q->whole || strstr(end, "\"finish_reason\"") == NULL ||
                    strncmp(strstr(end, "\"finish_reason\"") + 16, "null", 4) != 0;
        if (last) {
            len += (size_t)snprintf(text + len, sizeof text - len, "%.*s", (int)(end - at), at);
        }
        at = end;
    }
    return text;
}

/* Whether all of a 200 is there. */
static bool is_whole(const struct question *q) {
    const char *end = q->stream ? "\n0\r\n\r\n" : "}";
    size_t len = strlen(heard), n = strlen(end);
    while (!q->stream && len > 0 && (heard[len - 1] == '\n' || heard[len - 1] == ']')) {
        len--;
    }
    return len > n && memcmp(heard + len - n, end, n) == 0;
}

static void check_question(const struct question *q, void (*let_fail)(long nth), const char *what) {
    long n_right = 0, n_refused = 0, n_cut = 0, n = 1;
    char *right;
    assert_int_equal(ask(q), 200);
    assert_true(is_whole(q));
    right = strdup(texts(q));
    assert_true(right && right[0]);
    for (; n < MOST; n++) {
        let_fail(n);
        int status = ask(q);
        long asked = lb_mem_count();
        lb_mem_fail_from(0);
        bool told = strstr(heard, "{\"error\":") != NULL;
        if (status == 200 && !told && is_whole(q)) {
            if (strcmp(texts(q), right) != 0) {
                fail_msg("allocation %ld: %s\nnot %s", n, texts(q), right);
            }
            n_right++;
        } else if (status >= 400 || told) {
            n_refused++;
        } else {
            n_cut++;
        }
        if (asked < n) {
            break; /* all was there */
        }
        if (n % 16 == 0) {
            assert_int_equal(ask(q), 200);
            assert_string_equal(texts(q), right);
        }
    }
    printf("%s%s: %s of %ld allocations: %ld right, %ld refused, %ld cut\n", q->path,
           q->stream ? ", stream" : "", what, n - 1, n_right, n_refused, n_cut);
    assert_true(n < MOST && n_refused > 0);
    assert_int_equal(ask(q), 200);
    assert_string_equal(texts(q), right);
    free(right);
}

static void test_each(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
        check_question(&questions[i], lb_mem_fail_only, "one");
        check_question(&questions[i], lb_mem_fail_from, "all from one");
    }
    /* nothing is held of what failed */
    for (int i = 0; i < 1000 && lb_budget_used(server.budget) > 0; i++) {
        usleep(10000);
    }
    assert_int_equal(lb_budget_used(server.budget), 0);
}

static int setup(void **state) {
    (void)state;
    struct lb_config config;
    struct lb_detail detail = {0};
    char path[128];
    static char name[] = "limbeckd", listen[] = "--listen=127.0.0.1:0", codec[] = "--codec-threads=2";
    char *arguments[] = {name, served, listen, codec, NULL};
    if (!mkdtemp(folder)) {
        return 1;
    }
    lb_tiny_llama(&config);
    config.initializer_range = 0.5;
    snprintf(path, sizeof path, "%s/teacher", folder);
    lb_tiny_save(&config, 3, path, LB_F32, true);
    snprintf(served, sizeof served, "teacher=%s", path);
    lb_log_setup(LB_LOG_ERROR, false);
    lb_options_parse(4, arguments, &options);
    if (lb_server_start(&server, &options, loaded, NULL, &detail) != LB_OK) {
        fprintf(stderr, "%s\n", detail.text);
        return 1;
    }
    pthread_mutex_lock(&lock);
    while (n_loaded == 0) {
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
    return n_loaded == 1 ? 0 : 1;
}

static int teardown(void **state) {
    (void)state;
    lb_server_stop(&server);
    lb_options_finish(&options);
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : 1;
}

int main(int argc, char **argv) {
    (void)argc;
    signal(SIGPIPE, SIG_IGN);
    lb_gemm_setup(0, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
