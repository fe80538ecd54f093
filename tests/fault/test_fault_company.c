/* A daemon under nine greedy and slow clients, with a memory limit of 256 MiB: its resident memory, how fast
 * its health is told, and a tenth, honest client, whose requests must all be answered, from the same address
 * and without tokens. `test_fault_company SECONDS` runs longer; the figures are printed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "server/http/compress.h"
#include "tests/support/daemon.h"
#include "tests/support/sanitized.h"
#include "tests/support/tiny_model.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define LIMIT_MIB 256
#define ROOM_MIB 64
#define N_GREEDY 9
#define BOMB_BYTES ((size_t)200 << 20)

static char folder[] = "/tmp/limbeck-company-XXXXXX";
static struct lb_daemon daemon_;
static atomic_bool over;
static int seconds = 5;
static bool timed; /* seconds are given: a measured run, on a quiet machine */
static struct lb_buf bomb;
static atomic_long served[N_GREEDY], refused[N_GREEDY];

/* ---- greedy ones ---- */

static bool own_addresses;

/* A connection of this client: all are 127.0.0.1, or each has an address of its own. */
static int dial(int client) {
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr = {htonl(INADDR_LOOPBACK +
                                                  (own_addresses ? (uint32_t)client + 1 : 0))}},
                       to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)daemon_.port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct timeval patience = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (bind(fd, (const struct sockaddr *)&from, sizeof from) != 0 ||
        connect(fd, (const struct sockaddr *)&to, sizeof to) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* A request for one output of one sequence of n tokens. */
static void ask_for(struct lb_buf *body, int n, const char *outputs) {
    lb_buf_init(body, 1 << 20);
    lb_buf_printf(
        body, "{\"inputs\":[{\"name\":\"input_ids\",\"shape\":[1,%d],\"datatype\":\"INT32\",\"data\":[", n);
    for (int i = 0; i < n; i++) {
        lb_buf_printf(body, "%s%d", i ? "," : "", i * 7 % 1000);
    }
    lb_buf_printf(body, "]}],\"outputs\":[%s]}", outputs);
}

static bool send_text(int fd, const char *headers, const void *body, size_t len) {
    return lb_http_send(fd, "POST", "/v2/models/teacher/infer", headers, body, len);
}

/* Reads to the end of the answer, at most rate bytes a second (0: as fast as it comes); counts what it was.
 */
static void read_answer(int client, int fd, size_t rate) {
    static _Thread_local char piece[1 << 16];
    size_t got = 0, want = SIZE_MAX;
    uint64_t begun = lb_now_ns();
    char head[2048] = "";
    while (!atomic_load(&over) && got < want) {
        ssize_t n = recv(fd, piece, rate ? 4096 : sizeof piece, 0);
        if (n <= 0) {
            return;
        }
        if (want == SIZE_MAX) {
            snprintf(head, sizeof head, "%.*s", (int)(n < 2000 ? n : 2000), piece);
            const char *length = strstr(head, "Content-Length: "), *end = strstr(head, "\r\n\r\n");
            if (!length || !end) {
                return;
            }
            want = strtoull(length + 16, NULL, 10) + (size_t)(end + 4 - head);
            atomic_fetch_add(strncmp(head, "HTTP/1.1 200", 12) == 0 ? &served[client] : &refused[client], 1);
        }
        got += (size_t)n;
        while (rate && !atomic_load(&over) && got > rate * (lb_now_ns() - begun) / LB_SECOND_NS) {
            lb_sleep_ns(10 * LB_MS_NS);
        }
    }
}

static void sleep_a_little(uint64_t ms) {
    for (uint64_t i = 0; i < ms && !atomic_load(&over); i += 10) {
        lb_sleep_ns(10 * LB_MS_NS);
    }
}

#define LOGITS_JSON "{\"name\":\"logits\",\"parameters\":{\"binary_data\":false}}"
#define LOGITS_BINARY "{\"name\":\"logits\",\"parameters\":{\"binary_data\":true}}"
#define ATTENTIONS                                                                                           \
    "{\"name\":\"attentions.0\",\"parameters\":{\"binary_data\":true}},"                                     \
    "{\"name\":\"attentions.1\",\"parameters\":{\"binary_data\":true}}"

/* Asks again and again, and reads at a rate. */
static void ask_and_read(int client, const char *headers, int n, const char *outputs, size_t rate) {
    struct lb_buf body;
    ask_for(&body, n, outputs);
    while (!atomic_load(&over)) {
        int fd = dial(client);
        if (fd >= 0 && send_text(fd, headers, body.data, body.len)) {
            read_answer(client, fd, rate);
        }
        close(fd);
        sleep_a_little(20);
    }
    lb_buf_finish(&body);
}

/* Announces much and sends it slowly. */
static void stall(int client) {
    static const char head[] =
        "POST /v2/models/teacher/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n";
    static const char zeros[65536];
    while (!atomic_load(&over)) {
        int fd = dial(client);
        bool ok = fd >= 0 && send(fd, head, sizeof head - 1, MSG_NOSIGNAL) > 0;
        for (int i = 0; ok && i < 300 && !atomic_load(&over); i++) {
            ok = send(fd, zeros, sizeof zeros, MSG_NOSIGNAL | (i < 250 ? 0 : MSG_DONTWAIT)) > 0;
        }
        sleep_a_little(ok ? 5000 : 20);
        close(fd);
    }
}

/* Downloads heads by the dozen, and reads none of them. */
static void ask_for_heads(int client) {
    while (!atomic_load(&over)) {
        int fds[24];
        for (int i = 0; i < 24; i++) {
            fds[i] = dial(client);
            (void)lb_http_send(fds[i], "GET", "/v2/models/teacher/head", "Accept-Encoding: gzip\r\n", NULL,
                               0);
        }
        sleep_a_little(1000);
        for (int i = 0; i < 24; i++) {
            close(fds[i]);
        }
    }
}

static void throw_bombs(int client) {
    while (!atomic_load(&over)) {
        int fd = dial(client);
        if (fd >= 0 && send_text(fd, "Content-Encoding: gzip\r\n", bomb.data, bomb.len)) {
            read_answer(client, fd, 0);
        }
        close(fd);
    }
}

static void *be_greedy(void *argument) {
    int client = (int)(intptr_t)argument;
    switch (client) {
    case 0:
    case 1:
        ask_and_read(client, "Accept-Encoding: gzip\r\n", 90, LOGITS_JSON, 0);
        break;
    case 2:
    case 3:
        ask_and_read(client, "", 500, LOGITS_BINARY, 100000);
        break;
    case 4:
    case 5:
        stall(client);
        break;
    case 6:
        ask_for_heads(client);
        break;
    case 7:
        ask_and_read(client, "", 1000, ATTENTIONS, 0);
        break;
    default:
        throw_bombs(client);
        break;
    }
    return NULL;
}

/* ---- the others ---- */

struct watch {
    int n, n_bad;
    double slowest_ms, sum_ms;
    char what[256]; /* was wrong first */
};

static void note(struct watch *w, uint64_t begun, const struct lb_answer *answer) {
    double ms = (double)(lb_now_ns() - begun) / LB_MS_NS;
    w->n++;
    w->sum_ms += ms;
    w->slowest_ms = ms > w->slowest_ms ? ms : w->slowest_ms;
    if (answer->status != 200 && w->n_bad++ == 0) {
        snprintf(w->what, sizeof w->what, "%d: %.200s", answer->status,
                 answer->body.data ? answer->body.data : "");
    }
}

static void *be_honest(void *argument) {
    struct lb_buf body;
    ask_for(&body, 60, "");
    while (!atomic_load(&over)) {
        struct lb_answer answer;
        uint64_t begun = lb_now_ns();
        lb_daemon_ask(&daemon_, "POST", "/v2/models/teacher/infer", "", body.data, body.len, &answer);
        note(argument, begun, &answer);
        lb_answer_finish(&answer);
        lb_sleep_ns(20 * LB_MS_NS);
    }
    lb_buf_finish(&body);
    return NULL;
}

static void *ask_health(void *argument) {
    while (!atomic_load(&over)) {
        struct lb_answer answer;
        uint64_t begun = lb_now_ns();
        lb_daemon_ask(&daemon_, "GET", "/v2/health/live", "", NULL, 0, &answer);
        note(argument, begun, &answer);
        lb_answer_finish(&answer);
        lb_sleep_ns(20 * LB_MS_NS);
    }
    return NULL;
}

/* KiB of a line of /proc/PID/status. */
static long status_kib(const char *key) {
    char path[64], line[256];
    long kib = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)daemon_.pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, strlen(key)) == 0) {
            kib = strtol(line + strlen(key), NULL, 10);
        }
    }
    if (file) {
        fclose(file);
    }
    return kib;
}

static size_t model_bytes(const char *path) {
    char file[256];
    struct lb_buf text;
    snprintf(file, sizeof file, "%s/model.safetensors", path);
    lb_buf_init(&text, (size_t)1 << 30);
    assert_int_equal(lb_file_read(file, &text, NULL), LB_OK);
    size_t bytes = text.len;
    lb_buf_finish(&text);
    return bytes;
}

static void keep_company(const char *name) {
    struct lb_config config;
    char path[128], served_as[160], limit[16];
    pthread_t greedy[N_GREEDY], honest, health;
    struct watch asked = {0}, told = {0};
    lb_tiny_llama(&config);
    config.vocab_size = 16384;
    config.hidden_size = 64;
    config.head_dim = 16;
    config.max_position_embeddings = 1024;
    snprintf(path, sizeof path, "%s/teacher", folder);
    lb_tiny_save(&config, 3, path, LB_BF16, false);
    snprintf(served_as, sizeof served_as, "teacher=%s", path);
    snprintf(limit, sizeof limit, "%d", LIMIT_MIB);
    assert_true(lb_daemon_start(&daemon_, folder, name,
                                (const char *[]){"--memory-limit-mib", limit, served_as, NULL}, true));
    long allowed_kib = (long)(model_bytes(path) >> 10) + (LIMIT_MIB + ROOM_MIB) * 1024,
         before_kib = status_kib("VmRSS:"), largest_kib = 0;
    atomic_store(&over, false);
    for (int i = 0; i < N_GREEDY; i++) {
        atomic_store(&served[i], 0);
        atomic_store(&refused[i], 0);
        assert_int_equal(pthread_create(&greedy[i], NULL, be_greedy, (void *)(intptr_t)i), 0);
    }
    assert_int_equal(pthread_create(&honest, NULL, be_honest, &asked), 0);
    assert_int_equal(pthread_create(&health, NULL, ask_health, &told), 0);
    uint64_t until = lb_now_ns() + (uint64_t)seconds * LB_SECOND_NS;
    while (lb_now_ns() < until) {
        long kib = status_kib("VmRSS:");
        largest_kib = kib > largest_kib ? kib : largest_kib;
        lb_sleep_ns(5 * LB_MS_NS);
    }
    atomic_store(&over, true);
    pthread_join(honest, NULL);
    pthread_join(health, NULL);
    for (int i = 0; i < N_GREEDY; i++) {
        pthread_join(greedy[i], NULL);
    }
    printf("resident: %ld MiB at start, %ld at most, %ld allowed (weights + %d + %d)\n", before_kib >> 10,
           largest_kib >> 10, allowed_kib >> 10, LIMIT_MIB, ROOM_MIB);
    printf("health: %d answers, slowest %.0f ms, mean %.1f\n", told.n, told.slowest_ms, told.sum_ms / told.n);
    printf("the tenth: %d requests, %d not answered, slowest %.0f ms, mean %.1f\n", asked.n, asked.n_bad,
           asked.slowest_ms, asked.sum_ms / asked.n);
    long n_greedy = 0;
    for (int i = 0; i < N_GREEDY; i++) {
        printf("greedy %d: %ld served, %ld refused\n", i, atomic_load(&served[i]), atomic_load(&refused[i]));
        n_greedy += atomic_load(&served[i]) + atomic_load(&refused[i]);
    }
    assert_true(n_greedy > 0); /* there was company */
    assert_int_equal(told.n_bad, 0);
    if (asked.n_bad > 0) {
        fail_msg("%s", asked.what);
    }
    assert_true(LB_SANITIZED || largest_kib <= allowed_kib);
    /* In a suite, other work on the machine is no fault of the daemon's. */
    double patience = timed ? 1 : 5;
    assert_true(told.slowest_ms < 500 * patience);
    assert_true(asked.slowest_ms < 2000 * patience);
    /* And nothing stays behind. */
    until = lb_now_ns() + 8 * LB_SECOND_NS;
    while (!LB_SANITIZED && status_kib("VmRSS:") > before_kib + 48 * 1024 && lb_now_ns() < until) {
        lb_sleep_ns(50 * LB_MS_NS);
    }
    printf("afterwards: %ld MiB\n", status_kib("VmRSS:") >> 10);
    assert_true(LB_SANITIZED || status_kib("VmRSS:") <= before_kib + 48 * 1024);
    assert_int_equal(lb_daemon_stop(&daemon_, SIGTERM), 0);
}

static void test_one_address(void **state) {
    (void)state;
    own_addresses = false;
    keep_company("one");
}

static void test_own_addresses(void **state) {
    (void)state;
    own_addresses = true;
    keep_company("own");
}

static int setup(void **state) {
    (void)state;
    char *zeros = calloc(1, BOMB_BYTES);
    lb_buf_init(&bomb, 1 << 20);
    enum lb_status status = LB_E_NOMEM;
    if (zeros && mkdtemp(folder)) {
        status = lb_pack(LB_CODING_GZIP, &(struct lb_span){zeros, BOMB_BYTES}, 1, NULL, NULL, &bomb, NULL);
    }
    free(zeros);
    return status == LB_OK ? 0 : 1;
}

static int teardown(void **state) {
    (void)state;
    lb_buf_finish(&bomb);
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : 1;
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    seconds = argc > 1 ? atoi(argv[1]) : seconds;
    timed = argc > 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_address),
                                       cmocka_unit_test(test_own_addresses)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
