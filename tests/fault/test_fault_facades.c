/* Everybody's clients beside hostile ones: 1,000 idle connections (where files allow it), 200 slow ones and
 * some that hang up in the middle of requests and answers, while honest clients ask /v2, /v1/completions and
 * /generate, with and without streams. Every answer must be whole and right. Then the daemon is told to stop,
 * and another one is killed, under the same load. `test_fault_facades SECONDS` runs longer; the figures are
 * printed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "tests/support/daemon.h"
#include "tests/support/sanitized.h"
#include "tests/support/tiny_model.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define LIMIT_MIB 256
#define ROOM_MIB 64
#define N_IDLE 1000
#define N_SLOW 200
#define N_SLOW_READERS 40 /* of them */
#define N_RUDE 6
#define MAX_TIMES 200000

static char folder[] = "/tmp/limbeck-facades-XXXXXX";
static char served_as[160];
static struct lb_daemon daemon_;
static atomic_bool over, hostile_over;
static int seconds = 3;
static int n_idle = N_IDLE; /* fewer where there may be few files */
static bool timed;          /* seconds are given: a measured run, on a quiet machine */

/* ---- honest clients ---- */

#define IDS "[5,11,60,2,41,7]"
#define WRITE "\"temperature\":0,\"ignore_eos\":true"

static struct kind {
    const char *name, *path, *body;
    const char *plain; /* of a stream: the same at once */
    json_t *right;     /* the answer; of a stream its text */
} kinds[] = {
    {"/v2 infer", "/v2/models/teacher/infer",
     "{\"inputs\":[{\"name\":\"input_ids\",\"shape\":[1,6],\"datatype\":\"INT32\",\"data\":" IDS "}]}", NULL,
     NULL},
    {"/v1 prompt_logprobs", "/v1/completions",
     "{\"prompt\":[" IDS "],\"max_tokens\":1,\"prompt_logprobs\":5," WRITE "}", NULL, NULL},
    {"/v1 stream", "/v1/completions", "{\"prompt\":" IDS ",\"max_tokens\":20,\"stream\":true," WRITE "}",
     "{\"prompt\":" IDS ",\"max_tokens\":20," WRITE "}", NULL},
    {"/generate", "/generate",
     "{\"input_ids\":" IDS ",\"sampling_params\":{\"max_new_tokens\":4," WRITE "},\"return_logprob\":true,"
     "\"logprob_start_len\":0}",
     NULL, NULL},
    {"/generate stream", "/generate",
     "{\"input_ids\":" IDS ",\"sampling_params\":{\"max_new_tokens\":20," WRITE "},\"stream\":true}",
     "{\"input_ids\":" IDS ",\"sampling_params\":{\"max_new_tokens\":20," WRITE "}}", NULL},
};
#define N_KINDS (sizeof kinds / sizeof *kinds)

struct client {
    const struct kind *kind;
    atomic_long n_right; /* whole answers */
    long n_refused;      /* 503, or a stream that says so, or nobody there */
    long n_cut, n_wrong; /* begun and not whole; anything else */
    char wrong[300];
    uint64_t *times; /* [n_times] of right ones */
    long n_times;
};

/* What differs between two answers to one question goes. */
static json_t *without_names(json_t *answer) {
    json_t *meta = json_object_get(answer, "meta_info");
    json_object_del(answer, "id");
    json_object_del(answer, "created");
    json_object_del(meta, "id");
    json_object_del(meta, "e2e_latency");
    return answer;
}

/* The text that an answer or an event has; NULL: none. */
static const char *text_of(const json_t *answer) {
    const json_t *choice = json_array_get(json_object_get(answer, "choices"), 0);
    return json_string_value(json_object_get(choice ? choice : answer, "text"));
}

/* The text of a stream, the caller's; NULL where it is none, or not whole. *out_refused: it says that it
 * ends. */
static json_t *stream_text(const char *body, bool whole_texts, bool *out_refused) {
    char text[8192] = "";
    const char *end;
    for (const char *at = body; at && (end = strstr(at, "\n\n")) != NULL; at = end + 2) {
        if (strncmp(at, "data: [DONE]", 12) == 0) {
            return json_string(text);
        }
        json_t *event =
            strncmp(at, "data: ", 6) == 0 ? json_loadb(at + 6, (size_t)(end - at - 6), 0, NULL) : NULL;
        const char *piece = event ? text_of(event) : NULL;
        *out_refused |= event && json_object_get(event, "error");
        if (piece) {
            size_t have = whole_texts ? 0 : strlen(text);
            snprintf(text + have, sizeof text - have, "%s", piece);
        }
        json_decref(event);
        if (!piece && !*out_refused) {
            return NULL;
        }
    }
    return NULL;
}

static json_t *parse(const struct kind *kind, const struct lb_answer *answer, bool *out_refused) {
    *out_refused = false;
    if (kind->plain) {
        return stream_text(answer->body.data, strcmp(kind->path, "/generate") == 0, out_refused);
    }
    json_t *json = json_loadb(answer->body.data ? answer->body.data : "", answer->body.len, 0, NULL);
    return json ? without_names(json) : NULL;
}

static void judge(struct client *c, const struct lb_answer *answer, bool whole, uint64_t ns) {
    bool refused = false;
    json_t *got = whole && answer->status == 200 ? parse(c->kind, answer, &refused) : NULL;
    if (!whole) {
        *(answer->head.len > 0 ? &c->n_cut : &c->n_refused) += 1;
    } else if (answer->status == 503 || (got && refused)) {
        c->n_refused++;
    } else if (got && json_equal(got, c->kind->right)) {
        atomic_fetch_add(&c->n_right, 1);
        if (c->n_times < MAX_TIMES) {
            c->times[c->n_times++] = ns;
        }
    } else if (c->n_wrong++ == 0) {
        snprintf(c->wrong, sizeof c->wrong, "%s: %d: %.200s", c->kind->name, answer->status,
                 answer->body.data ? answer->body.data : "");
    }
    json_decref(got);
}

/* Asks again and again on one connection, as long as it lasts. */
static void *be_honest(void *argument) {
    struct client *c = argument;
    int fd = -1;
    while (!atomic_load(&over)) {
        struct lb_answer answer = {0};
        uint64_t begun = lb_now_ns();
        fd = fd < 0 ? lb_daemon_connect(&daemon_) : fd;
        bool whole = fd >= 0 &&
                     lb_http_send(fd, "POST", c->kind->path, "", c->kind->body, strlen(c->kind->body)) &&
                     lb_http_receive(fd, &answer);
        char value[16] = "";
        judge(c, &answer, whole, lb_now_ns() - begun);
        if (!whole || lb_answer_header(&answer, "Connection", value, sizeof value)) {
            close(fd);
            fd = -1;
            lb_sleep_ns(whole ? 0 : 5 * LB_MS_NS);
        }
        lb_answer_finish(&answer);
    }
    if (fd >= 0) {
        close(fd);
    }
    return NULL;
}

/* What is right: asked once, with nobody else there. */
static void learn(void) {
    for (size_t i = 0; i < N_KINDS; i++) {
        struct kind *kind = &kinds[i];
        const char *body = kind->plain ? kind->plain : kind->body;
        struct lb_answer answer;
        assert_true(lb_daemon_ask(&daemon_, "POST", kind->path, "", body, strlen(body), &answer));
        json_t *json = json_loadb(answer.body.data, answer.body.len, 0, NULL);
        assert_int_equal(answer.status, 200);
        assert_non_null(json);
        json_decref(kind->right);
        kind->right = kind->plain ? json_string(text_of(json)) : json_incref(without_names(json));
        assert_non_null(kind->right);
        json_decref(json);
        lb_answer_finish(&answer);
    }
}

/* ---- hostile ones ---- */

/* From an address of their own. */
static int dial(void) {
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK + 1)}},
                       to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)daemon_.port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (const struct sockaddr *)&from, sizeof from) != 0 ||
        connect(fd, (const struct sockaddr *)&to, sizeof to) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static const char long_stream[] =
    "{\"prompt\":" IDS ",\"max_tokens\":900,\"logprobs\":3,\"stream\":true," WRITE "}";

/* One slow client's first words: of a head, of a body that comes slowly, or a whole question whose answer it
 * reads slowly. */
static void begin_slowly(int fd, int i) {
    static const char head[] = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n{";
    if (i < N_SLOW_READERS) {
        int small = 4096;
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
        (void)lb_http_send(fd, "POST", "/v1/completions", "", long_stream, sizeof long_stream - 1);
    } else if (i % 2) {
        (void)!send(fd, "POST /generate HT", 17, MSG_NOSIGNAL);
    } else {
        (void)!send(fd, head, sizeof head - 1, MSG_NOSIGNAL);
    }
}

/* All of them: a byte a second each. Who is closed comes again. */
static void *be_slow(void *argument) {
    static int fds[N_SLOW];
    char byte = 'a';
    (void)argument;
    for (int i = 0; i < N_SLOW; i++) {
        fds[i] = dial();
        begin_slowly(fds[i], i);
    }
    while (!atomic_load(&hostile_over)) {
        for (int i = 0; i < N_SLOW && !atomic_load(&hostile_over); i++) {
            ssize_t n = i < N_SLOW_READERS ? recv(fds[i], &byte, 1, MSG_DONTWAIT)
                                           : send(fds[i], "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (n == 0 || (n < 0 && i >= N_SLOW_READERS)) {
                close(fds[i]);
                fds[i] = dial();
                begin_slowly(fds[i], i);
            }
            lb_sleep_ns(LB_SECOND_NS / N_SLOW);
        }
    }
    for (int i = 0; i < N_SLOW; i++) {
        close(fds[i]);
    }
    return NULL;
}

/* Hangs up in the middle of a request, and of an answer. */
static void *be_rude(void *argument) {
    int who = (int)(intptr_t)argument;
    char piece[300];
    for (int i = who; !atomic_load(&hostile_over); i++) {
        const struct kind *kind = &kinds[(size_t)i % N_KINDS];
        const char *body = i % 3 ? kind->body : long_stream, *path = i % 3 ? kind->path : "/v1/completions";
        int fd = dial();
        if (fd < 0) {
            lb_sleep_ns(10 * LB_MS_NS);
            continue;
        }
        if (i % 2) {
            snprintf(piece, sizeof piece, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%.*s",
                     path, strlen(body), (int)strlen(body) / 2, body);
            (void)!send(fd, piece, strlen(piece), MSG_NOSIGNAL);
        } else if (lb_http_send(fd, "POST", path, "", body, strlen(body))) {
            (void)!recv(fd, piece, i % 4 ? 1 : sizeof piece, 0);
        }
        close(fd);
    }
    return NULL;
}

struct hostile {
    int idle[N_IDLE];
    pthread_t slow, rude[N_RUDE];
};

static void begin_hostile(struct hostile *h) {
    atomic_store(&hostile_over, false);
    for (int i = 0; i < n_idle; i++) {
        h->idle[i] = dial();
        assert_true(h->idle[i] >= 0);
    }
    assert_int_equal(pthread_create(&h->slow, NULL, be_slow, NULL), 0);
    for (int i = 0; i < N_RUDE; i++) {
        assert_int_equal(pthread_create(&h->rude[i], NULL, be_rude, (void *)(intptr_t)i), 0);
    }
}

static void end_hostile(struct hostile *h) {
    atomic_store(&hostile_over, true);
    pthread_join(h->slow, NULL);
    for (int i = 0; i < N_RUDE; i++) {
        pthread_join(h->rude[i], NULL);
    }
    for (int i = 0; i < n_idle; i++) {
        close(h->idle[i]);
    }
}

/* ---- the measure ---- */

static long resident_kib(void) {
    char path[64], line[256];
    long kib = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)daemon_.pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) {
        kib = strncmp(line, "VmRSS:", 6) == 0 ? strtol(line + 6, NULL, 10) : kib;
    }
    if (file) {
        fclose(file);
    }
    return kib;
}

static int by_time(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

struct clients {
    struct client all[N_KINDS];
    pthread_t threads[N_KINDS];
};

static void begin_clients(struct clients *c) {
    atomic_store(&over, false);
    for (size_t i = 0; i < N_KINDS; i++) {
        c->all[i] = (struct client){.kind = &kinds[i], .times = malloc(MAX_TIMES * sizeof(uint64_t))};
        assert_non_null(c->all[i].times);
        assert_int_equal(pthread_create(&c->threads[i], NULL, be_honest, &c->all[i]), 0);
    }
}

/* Prints what they saw; none may have seen anything wrong. Gives the longest wait. */
static double end_clients(struct clients *c, const char *when) {
    double longest = 0;
    atomic_store(&over, true);
    for (size_t i = 0; i < N_KINDS; i++) {
        struct client *one = &c->all[i];
        pthread_join(c->threads[i], NULL);
        qsort(one->times, (size_t)one->n_times, sizeof *one->times, by_time);
        double last = one->n_times ? (double)one->times[one->n_times - 1] / LB_MS_NS : 0;
        printf("%s, %s: %ld right, %ld refused, %ld cut, %ld wrong; p50 %.1f ms, p99 %.1f, most %.1f\n", when,
               one->kind->name, atomic_load(&one->n_right), one->n_refused, one->n_cut, one->n_wrong,
               one->n_times ? (double)one->times[one->n_times / 2] / LB_MS_NS : 0,
               one->n_times ? (double)one->times[one->n_times * 99 / 100] / LB_MS_NS : 0, last);
        longest = last > longest ? last : longest;
        free(one->times);
        if (one->n_wrong > 0) {
            fail_msg("%s", one->wrong);
        }
    }
    return longest;
}

static long run_for(int s) {
    long most = 0;
    for (uint64_t until = lb_now_ns() + (uint64_t)s * LB_SECOND_NS; lb_now_ns() < until;) {
        long kib = resident_kib();
        most = kib > most ? kib : most;
        lb_sleep_ns(10 * LB_MS_NS);
    }
    return most;
}

/* Until each of them has had some answers. */
static void await_answers(struct clients *c) {
    uint64_t until = lb_now_ns() + 30 * LB_SECOND_NS;
    for (size_t i = 0; i < N_KINDS; i++) {
        while (atomic_load(&c->all[i].n_right) < 3) {
            assert_true(lb_now_ns() < until);
            lb_sleep_ns(LB_MS_NS);
        }
    }
}

static void start(const char *name, const char *drain_seconds) {
    char limit[16];
    snprintf(limit, sizeof limit, "%d", LIMIT_MIB);
    assert_true(lb_daemon_start(&daemon_, folder, name,
                                (const char *[]){"--memory-limit-mib", limit, "--max-connections", "4000",
                                                 "--drain-seconds", drain_seconds, served_as, NULL},
                                true));
    learn();
}

static bool settled(void) {
    struct lb_answer answer;
    bool ok = lb_daemon_ask(&daemon_, "GET", "/metrics", "", NULL, 0, &answer) &&
              strstr(answer.body.data, "\nlimbeckd_open_requests 1\n") &&
              strstr(answer.body.data, "\nlimbeckd_queue_requests 0\n") &&
              strstr(answer.body.data, "\nlimbeckd_pending_bytes 0\n");
    lb_answer_finish(&answer);
    return ok;
}

/* ---- the tests ---- */

static void test_company(void **state) {
    (void)state;
    static struct hostile hostile;
    static struct clients clients;
    start("company", "30");
    long before = resident_kib();
    begin_clients(&clients);
    run_for(1);
    (void)end_clients(&clients, "alone");
    begin_hostile(&hostile);
    begin_clients(&clients);
    long most = run_for(seconds);
    await_answers(&clients);
    double longest = end_clients(&clients, "in company");
    end_hostile(&hostile);
    printf("resident: %ld MiB at start, %ld at most\n", before >> 10, most >> 10);
    for (size_t i = 0; i < N_KINDS; i++) {
        assert_true(clients.all[i].n_right > 0);
        assert_int_equal(clients.all[i].n_refused + clients.all[i].n_cut, 0);
    }
    assert_true(LB_SANITIZED || most < before + (LIMIT_MIB + ROOM_MIB) * 1024);
    /* In a suite, other work on the machine is no fault of the daemon's. */
    assert_true(longest < (timed ? 2000 : 20000));
    for (uint64_t until = lb_now_ns() + 20 * LB_SECOND_NS; !settled();) {
        assert_true(lb_now_ns() < until); /* nothing stays behind of those who left */
        lb_sleep_ns(20 * LB_MS_NS);
    }
    assert_int_equal(lb_daemon_stop(&daemon_, SIGTERM), 0);
}

/* Told to stop: what had begun is answered wholly, or says why not; nobody gets half of anything. */
static void test_told_to_stop(void **state) {
    (void)state;
    static struct hostile hostile;
    static struct clients clients;
    start("stop", "3");
    begin_hostile(&hostile);
    begin_clients(&clients);
    await_answers(&clients);
    assert_int_equal(lb_daemon_stop(&daemon_, SIGTERM), 0);
    (void)end_clients(&clients, "told to stop");
    end_hostile(&hostile);
    for (size_t i = 0; i < N_KINDS; i++) {
        assert_int_equal(clients.all[i].n_cut, 0);
    }
}

/* Killed: who had half of an answer can tell. */
static void test_killed(void **state) {
    (void)state;
    static struct hostile hostile;
    static struct clients clients;
    start("kill", "30");
    begin_hostile(&hostile);
    begin_clients(&clients);
    await_answers(&clients);
    (void)lb_daemon_stop(&daemon_, SIGKILL);
    (void)end_clients(&clients, "killed");
    end_hostile(&hostile);
}

static int setup(void **state) {
    (void)state;
    struct lb_config config;
    struct rlimit files;
    char path[128];
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) {
        return 1;
    }
    if (files.rlim_max < 2 * (N_IDLE + N_SLOW)) { /* one address may have three quarters of them */
        n_idle = (int)files.rlim_max / 3;
        printf("%d idle connections only: %ld files are allowed\n", n_idle, (long)files.rlim_max);
    }
    files.rlim_cur = files.rlim_max; /* the daemon's, too */
    setrlimit(RLIMIT_NOFILE, &files);
    lb_tiny_llama(&config);
    config.initializer_range = 0.5;
    config.max_position_embeddings = 1024;
    if (!mkdtemp(folder)) {
        return 1;
    }
    snprintf(path, sizeof path, "%s/teacher", folder);
    lb_tiny_save(&config, 3, path, LB_F32, true);
    snprintf(served_as, sizeof served_as, "teacher=%s", path);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    for (size_t i = 0; i < N_KINDS; i++) {
        json_decref(kinds[i].right);
    }
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : 1;
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    seconds = argc > 1 ? atoi(argv[1]) : seconds;
    timed = argc > 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_company),
        cmocka_unit_test(test_told_to_stop),
        cmocka_unit_test(test_killed),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
