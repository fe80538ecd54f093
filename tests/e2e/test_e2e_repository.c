/* Models that come, go and are replaced while clients ask. Each test has a daemon of its own. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/sha256.h"
#include "tests/e2e/ask.h"
#include "tests/support/tiny_model.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ADMIN "Authorization: Bearer admin-token-1\r\n"
#define LOAD "/v2/repository/models/m/load"
#define UNLOAD "/v2/repository/models/m/unload"

static char folder[] = "/tmp/limbeck-repository-XXXXXX";
static char admin_file[96], at[2][96], broken[96], current[96];
static int32_t ids[64];

/* What both versions answer, by their fingerprints. */
static struct version {
    char fingerprint[LB_SHA256_HEX];
    size_t bytes;
    void *logits;
} versions[2];

/* Points the served path at another folder, as one should: by a rename. */
static void point_at(const char *target) {
    char beside[128];
    snprintf(beside, sizeof beside, "%s.new", current);
    assert_int_equal(symlink(target, beside), 0);
    assert_int_equal(rename(beside, current), 0);
}

static int order(const struct lb_daemon *daemon, const char *path, const char *body,
                 struct lb_answer *answer) {
    assert_true(lb_daemon_ask(daemon, "POST", path, ADMIN, body, strlen(body), answer));
    return answer->status;
}

/* The member of the model m in the index, the caller's. */
static char *index_says(const struct lb_daemon *daemon, const char *member) {
    struct lb_answer answer;
    json_t *list = NULL, *item;
    size_t i;
    char *text = NULL;
    assert_int_equal(order(daemon, "/v2/repository/index", "{}", &answer), 200);
    assert_int_equal(lb_json_parse(answer.body.data, answer.body.len, 0, "index", &list, NULL), LB_OK);
    json_array_foreach(list, i, item) {
        if (strcmp(json_string_value(json_object_get(item, "name")), "m") == 0) {
            const char *value = json_string_value(json_object_get(item, member));
            text = strdup(value ? value : "");
        }
    }
    json_decref(list);
    lb_answer_finish(&answer);
    assert_non_null(text);
    return text;
}

/* ---- a replace under load ---- */

#define N_CLIENTS 6

struct client {
    const struct lb_daemon *daemon;
    int index;
    atomic_int answered, of[2]; /* of[v]: by that version, whole and right */
    char wrong[256];            /* the first answer that wasn't */
};

static atomic_bool enough;

/* Which version an answer is wholly of; -1: of none, and why. */
static int version_of(const struct lb_ask *ask, char why[256]) {
    char header[128], length[32];
    if (ask->answer.status != 200) {
        snprintf(why, 256, "status %d: %.200s", ask->answer.status,
                 ask->answer.body.data ? ask->answer.body.data : "");
        return -1;
    }
    if (!lb_answer_header(&ask->answer, LB_HEADER_DIGEST, header, sizeof header) ||
        !lb_answer_header(&ask->answer, LB_HEADER_JSON_LENGTH, length, sizeof length) ||
        lb_answer_digest_check(ask->answer.body.data, ask->answer.body.len, atoll(length),
                               header + strlen("sha-256="), NULL) != LB_OK) {
        snprintf(why, 256, "the answer's digest does not fit");
        return -1;
    }
    for (int v = 0; v < 2; v++) {
        char digest[LB_SHA256_HEX];
        if (strcmp(ask->response.model_version, versions[v].fingerprint) == 0 &&
            lb_request_digest(versions[v].fingerprint, &ask->request, digest) == LB_OK &&
            strcmp(header + strlen("sha-256="), digest) == 0 &&
            ask->response.outputs[0].bytes == versions[v].bytes &&
            memcmp(ask->response.outputs[0].data, versions[v].logits, versions[v].bytes) == 0) {
            return v;
        }
    }
    snprintf(why, 256, "an answer of version %.70s that is not that version's", ask->response.model_version);
    return -1;
}

static bool ask_once(int fd, const char *model, struct lb_ask *ask) {
    lb_ask_ids(ask, 4, 16, ids);
    lb_ask_output(ask, "logits", LB_DT_NONE, true);
    ask->request.answer_digest = true;
    return lb_ask_on(fd, model, ask, "");
}

/* Half of them on one connection, half on one for each request. */
static void *be_client(void *argument) {
    struct client *client = argument;
    int fd = -1;
    while (!atomic_load(&enough) && !client->wrong[0]) {
        struct lb_ask ask;
        char why[256];
        fd = fd < 0 ? lb_daemon_connect(client->daemon) : fd;
        int v = -1;
        if (ask_once(fd, "m", &ask)) {
            v = version_of(&ask, why);
        } else {
            snprintf(why, sizeof why, "no answer");
        }
        if (v >= 0) {
            atomic_fetch_add(&client->of[v], 1);
        } else {
            memcpy(client->wrong, why, sizeof why);
        }
        atomic_fetch_add(&client->answered, 1);
        lb_ask_finish(&ask);
        if (client->index % 2) {
            close(fd);
            fd = -1;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return NULL;
}

/* Until each client has been answered once more. */
static void await_answers(struct client clients[N_CLIENTS]) {
    uint64_t until = lb_now_ns() + 30 * LB_SECOND_NS;
    for (int i = 0; i < N_CLIENTS; i++) {
        int before = atomic_load(&clients[i].answered);
        while (atomic_load(&clients[i].answered) < before + 2 && !clients[i].wrong[0]) {
            assert_true(lb_now_ns() < until);
            lb_sleep_ns(LB_MS_NS);
        }
    }
}

/* How often the program has model.safetensors mapped. */
static int maps(pid_t pid) {
    char path[64], line[512];
    int n = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        n += strstr(line, "/model.safetensors") != NULL;
    }
    fclose(file);
    return n;
}

static void learn_versions(const struct lb_daemon *daemon) {
    const char *names[] = {"a", "b"};
    for (int v = 0; v < 2; v++) {
        struct lb_ask ask;
        int fd = lb_daemon_connect(daemon);
        assert_true(ask_once(fd, names[v], &ask));
        assert_int_equal(ask.answer.status, 200);
        snprintf(versions[v].fingerprint, LB_SHA256_HEX, "%s", ask.response.model_version);
        versions[v].bytes = ask.response.outputs[0].bytes;
        versions[v].logits = malloc(versions[v].bytes);
        memcpy(versions[v].logits, ask.response.outputs[0].data, versions[v].bytes);
        lb_ask_finish(&ask);
        close(fd);
    }
    assert_string_not_equal(versions[0].fingerprint, versions[1].fingerprint);
}

/* The next version, served from the moment its load is answered; one that can't be loaded changes nothing. */
static void replace(const struct lb_daemon *daemon, int v) {
    struct lb_answer answer;
    struct lb_ask ask;
    char why[256];
    point_at(at[v]);
    assert_int_equal(order(daemon, LOAD, "{}", &answer), 200);
    assert_non_null(strstr(answer.body.data, versions[v].fingerprint));
    lb_answer_finish(&answer);
    int fd = lb_daemon_connect(daemon);
    assert_true(ask_once(fd, "m", &ask));
    assert_int_equal(version_of(&ask, why), v);
    lb_ask_finish(&ask);
    close(fd);
    char path[160];
    snprintf(path, sizeof path, "/v2/models/m/versions/%s/ready", versions[!v].fingerprint);
    assert_true(lb_daemon_ask(daemon, "GET", path, "", NULL, 0, &answer));
    assert_int_equal(answer.status, 404); /* and whoever names the old one is told of the new */
    assert_non_null(strstr(answer.body.data, versions[v].fingerprint));
    lb_answer_finish(&answer);
    point_at(broken);
    assert_int_equal(order(daemon, LOAD, "{}", &answer), 500);
    assert_non_null(strstr(answer.body.data, broken)); /* where the link led */
    lb_answer_finish(&answer);
    char *state = index_says(daemon, "state"), *reason = index_says(daemon, "reason"),
         *version = index_says(daemon, "version");
    assert_string_equal(state, "READY");
    assert_non_null(strstr(reason, "served on"));
    assert_non_null(strstr(reason, broken));
    assert_string_equal(version, versions[v].fingerprint);
    free(state);
    free(reason);
    free(version);
}

static void test_replace(void **state) {
    (void)state;
    static struct lb_daemon daemon; /* the clients of a test that fails live on */
    static struct client clients[N_CLIENTS];
    pthread_t threads[N_CLIENTS];
    char a[112], b[112], m[112], closed[160];
    snprintf(a, sizeof a, "a=%s", at[0]);
    snprintf(b, sizeof b, "b=%s", at[1]);
    snprintf(m, sizeof m, "m=%s", current);
    point_at(at[0]);
    assert_true(lb_daemon_start(&daemon, folder, "replace",
                                (const char *[]){"--admin-token-file", admin_file, a, b, m, NULL}, true));
    assert_int_equal(maps(daemon.pid), 2); /* two names of one file */
    learn_versions(&daemon);
    for (int i = 0; i < N_CLIENTS; i++) {
        clients[i] = (struct client){.daemon = &daemon, .index = i};
        assert_int_equal(pthread_create(&threads[i], NULL, be_client, &clients[i]), 0);
    }
    await_answers(clients);
    for (int turn = 0; turn < 6; turn++) {
        replace(&daemon, !(turn % 2));
        await_answers(clients);
    }
    atomic_store(&enough, true);
    int of[2] = {0, 0};
    for (int i = 0; i < N_CLIENTS; i++) {
        pthread_join(threads[i], NULL);
        assert_string_equal(clients[i].wrong, "");
        of[0] += atomic_load(&clients[i].of[0]);
        of[1] += atomic_load(&clients[i].of[1]);
    }
    print_message("%d answers of one version, %d of the other, none failed\n", of[0], of[1]);
    assert_true(of[0] > 0 && of[1] > 0);
    /* What is served no more is let go. */
    snprintf(closed, sizeof closed, "model_closed model=m fingerprint=%s", versions[1].fingerprint);
    assert_true(lb_daemon_await_log(&daemon, closed));
    assert_int_equal(maps(daemon.pid), 2);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

/* ---- unloading ---- */

struct one {
    const struct lb_daemon *daemon;
    struct lb_ask ask;
    bool answered;
};

static void *be_one(void *argument) {
    struct one *one = argument;
    int fd = lb_daemon_connect(one->daemon);
    one->answered = ask_once(fd, "m", &one->ask);
    close(fd);
    return NULL;
}

static void await_queued(const struct lb_daemon *daemon) {
    uint64_t until = lb_now_ns() + 20 * LB_SECOND_NS;
    for (bool there = false; !there;) {
        struct lb_answer answer;
        assert_true(lb_now_ns() < until);
        there = lb_daemon_ask(daemon, "GET", "/metrics", "", NULL, 0, &answer) &&
                strstr(answer.body.data, "\nlimbeckd_queue_tokens 64\n");
        lb_answer_finish(&answer);
    }
}

/* A request that waits keeps its model, whatever becomes of the name. */
static void test_unload(void **state) {
    (void)state;
    static struct lb_daemon daemon;
    static struct one one;
    struct lb_answer answer;
    pthread_t thread;
    char m[112], closed[160], why[256];
    snprintf(m, sizeof m, "m=%s", current);
    point_at(at[0]);
    assert_true(lb_daemon_start(
        &daemon, folder, "unload",
        (const char *[]){"--max-wait-us", "10000000", "--admin-token-file", admin_file, m, NULL}, true));
    one.daemon = &daemon;
    assert_int_equal(pthread_create(&thread, NULL, be_one, &one), 0);
    await_queued(&daemon);
    assert_int_equal(order(&daemon, UNLOAD, "{\"parameters\":{\"unload_dependents\":true}}", &answer), 200);
    lb_answer_finish(&answer);
    struct lb_ask late;
    int fd = lb_daemon_connect(&daemon);
    assert_true(ask_once(fd, "m", &late));
    assert_int_equal(late.answer.status, 404);
    assert_non_null(strstr(late.answer.body.data, "unloaded"));
    lb_ask_finish(&late);
    close(fd);
    snprintf(closed, sizeof closed, "model_closed model=m fingerprint=%s", versions[0].fingerprint);
    assert_false(lb_daemon_logged(&daemon, closed));
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0); /* what waits is answered */
    pthread_join(thread, NULL);
    assert_true(one.answered);
    assert_int_equal(version_of(&one.ask, why), 0);
    assert_true(lb_daemon_logged(&daemon, closed));
    lb_ask_finish(&one.ask);
}

/* Orders that ask for what there isn't are refused by name, and nothing is done. */
static void test_parameters(void **state) {
    (void)state;
    struct lb_daemon daemon;
    struct lb_answer answer;
    char m[112];
    static const struct {
        const char *path, *body, *name;
    } bad[] = {
        {LOAD, "{\"parameters\":{\"config\":\"{}\"}}", "config"},
        {LOAD, "{\"parameters\":{\"file:1/model.onnx\":\"AAAA\"}}", "file:1/model.onnx"},
        {LOAD, "{\"parameters\":{\"unload_dependents\":true}}", "unload_dependents"},
        {UNLOAD, "{\"parameters\":{\"unload_dependents\":1}}", "unload_dependents"},
        {UNLOAD, "{\"parameters\":{\"force\":true}}", "force"},
        {UNLOAD, "{\"parameters\":[]}", "parameters"},
        {UNLOAD, "[]", "object"},
        {LOAD, "{", "request"},
    };
    snprintf(m, sizeof m, "m=%s", current);
    point_at(at[0]);
    assert_true(lb_daemon_start(&daemon, folder, "parameters",
                                (const char *[]){"--admin-token-file", admin_file, m, NULL}, true));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(order(&daemon, bad[i].path, bad[i].body, &answer), 400);
        assert_non_null(strstr(answer.body.data, bad[i].name));
        lb_answer_finish(&answer);
    }
    char *ready = index_says(&daemon, "state");
    assert_string_equal(ready, "READY");
    free(ready);
    assert_int_equal(order(&daemon, UNLOAD, "", &answer), 200);
    lb_answer_finish(&answer);
    assert_true(lb_daemon_ask(&daemon, "GET", "/metrics", "", NULL, 0, &answer)); /* none is left */
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.body.data, "\nlimbeckd_model_ready{model=\"m\"} 0\n"));
    assert_null(strstr(answer.body.data, "limbeckd_model_info{"));
    lb_answer_finish(&answer);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

/* A file that is cut under the daemon ends it; its last words say why. */
static void test_cut_file(void **state) {
    (void)state;
    struct lb_daemon daemon;
    struct lb_config config;
    struct lb_ask ask;
    char path[112], file[160], m[128];
    snprintf(path, sizeof path, "%s/cut", folder);
    snprintf(file, sizeof file, "%s/model.safetensors", path);
    snprintf(m, sizeof m, "m=%s", path);
    lb_tiny_llama(&config);
    lb_tiny_save(&config, 3, path, LB_F32, false);
    assert_true(lb_daemon_start(&daemon, folder, "cut", (const char *[]){m, NULL}, true));
    assert_int_equal(truncate(file, 0), 0);
    int fd = lb_daemon_connect(&daemon);
    assert_false(ask_once(fd, "m", &ask));
    lb_ask_finish(&ask);
    close(fd);
    assert_int_equal(lb_daemon_stop(&daemon, 0), -1);
    assert_true(lb_daemon_logged(&daemon, "a model's file was cut short"));
}

static int setup(void **state) {
    (void)state;
    struct lb_config config;
    if (!mkdtemp(folder)) {
        return 1;
    }
    lb_tiny_llama(&config);
    for (int v = 0; v < 2; v++) {
        snprintf(at[v], sizeof at[v], "%s/version-%d", folder, v);
        lb_tiny_save(&config, 1 + (uint64_t)v, at[v], LB_F32, true);
    }
    snprintf(broken, sizeof broken, "%s/broken", folder);
    snprintf(current, sizeof current, "%s/current", folder);
    snprintf(admin_file, sizeof admin_file, "%s/admin", folder);
    for (int i = 0; i < 64; i++) {
        ids[i] = (i * 37 + 11) % 97;
    }
    bool made = lb_mkdirs(broken, NULL) == LB_OK &&
                lb_file_replace(admin_file, "admin-token-1\n", 14, NULL) == LB_OK &&
                chmod(admin_file, 0600) == 0;
    return made ? 0 : 1;
}

static int teardown(void **state) {
    (void)state;
    free(versions[0].logits);
    free(versions[1].logits);
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : 1;
}

/* ---- files that are written to ---- */

static void write_into(const char *file) {
    const char bytes[] = "other";
    FILE *f = fopen(file, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, -64, SEEK_END), 0); /* the size stays */
    assert_int_equal(fwrite(bytes, 1, sizeof bytes, f), sizeof bytes);
    assert_int_equal(fclose(f), 0);
}

/* A model whose file is written to in its place is no longer served, with the reason, and has another
 * fingerprint when it is loaded again; one whose files were replaced, moved or linked meanwhile goes on. */
static void test_written(void **state) {
    (void)state;
    struct lb_daemon daemon;
    struct lb_answer answer;
    struct lb_config config;
    char path[2][128], file[160], beside[200], served[2][300], *text;
    lb_tiny_llama(&config);
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/written%d", folder, i);
        snprintf(served[i], sizeof served[i], "%s=%s", i ? "m" : "other", path[i]);
        lb_tiny_save(&config, (uint64_t)i, path[i], LB_F32, false);
    }
    assert_true(lb_daemon_start(
        &daemon, folder, "written",
        (const char *[]){"--admin-token-file", admin_file, served[0], served[1], NULL}, true));
    char *before = index_says(&daemon, "version");
    /* of the other one the file is linked, and another then stands in its place */
    snprintf(file, sizeof file, "%s/model.safetensors", path[0]);
    snprintf(beside, sizeof beside, "%s.old", file);
    assert_int_equal(link(file, beside), 0);
    assert_int_equal(chmod(beside, 0600), 0);
    char other[128], another[160];
    snprintf(other, sizeof other, "%s/written2", folder);
    snprintf(another, sizeof another, "%s/model.safetensors", other);
    lb_tiny_save(&config, 7, other, LB_F32, false);
    assert_int_equal(rename(another, file), 0);
    snprintf(file, sizeof file, "%s/model.safetensors", path[1]);
    write_into(file);
    assert_true(lb_daemon_await_log(&daemon, " model_written model=m file="));
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/models/m/ready", ""), 404);
    lb_daemon_ask(&daemon, "GET", "/v2/models/m", "", NULL, 0, &answer);
    assert_int_equal(answer.status, 404);
    assert_non_null(strstr(answer.body.data, "was written to while it was served"));
    lb_answer_finish(&answer);
    text = index_says(&daemon, "state");
    assert_string_equal(text, "UNAVAILABLE");
    free(text);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v2/models/other/ready", ""), 200);
    assert_false(lb_daemon_logged(&daemon, "model_written model=other"));
    assert_int_equal(order(&daemon, LOAD, "{}", &answer), 200);
    lb_answer_finish(&answer);
    text = index_says(&daemon, "version");
    assert_string_not_equal(text, before);
    free(text);
    free(before);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replace),  cmocka_unit_test(test_unload),  cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_cut_file), cmocka_unit_test(test_written),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
