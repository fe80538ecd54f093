/* The trainer's side against real daemons: local: teachers, replicas, a daemon that is killed, limbeck probe
 * and cache. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/model/model.h"
#include "common/nn/dtype.h"
#include "tests/e2e/hosts.h"
#include "tests/support/asking.h"
#include "tests/support/tiny_model.h"
#include "trainer/teachers/local.h"
#include "trainer/wire/metadata.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define N 9

static char folder[] = "/tmp/limbeck-test-XXXXXX";
static char model_path[64], other_path[64];

static void must(enum lb_status status, const struct lb_detail *detail) {
    if (status != LB_OK) {
        fail_msg("%s: %s", lb_status_name(status), detail->text);
    }
}

static int setup(void **state) {
    (void)state;
    struct lb_config config;
    if (!mkdtemp(folder)) {
        return -1;
    }
    lb_tiny_llama(&config);
    snprintf(model_path, sizeof model_path, "%s/tiny", folder);
    snprintf(other_path, sizeof other_path, "%s/other", folder);
    lb_tiny_save(&config, 1, model_path, LB_F32, true);
    lb_tiny_save(&config, 2, other_path, LB_F16, true);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    return lb_remove_tree(folder, NULL);
}

/* ---- numbers ---- */

static float half_at(const struct lb_wire_tensor *tensor, int64_t i) {
    uint16_t half;
    memcpy(&half, (const uint8_t *)tensor->data + 2 * i, sizeof half);
    return lb_f16_to_f32(half);
}

/* The lane that trains exactly and the lane of the k best say the same: head times final state gives the
 * log-sum-exp and the values at the ids. */
static void check_answer(const struct lb_answer *answer, const struct lb_sample *sample,
                         const struct lb_teacher_head *head) {
    assert_non_null(answer);
    const struct lb_wire_tensor *states = &answer->tensors[0], *ids = &answer->tensors[1],
                                *values = &answer->tensors[2], *lse = &answer->tensors[3];
    float *logits = lb_malloc_array((size_t)head->vocab_size, sizeof *logits);
    assert_int_equal(states->dim[0], sample->n);
    assert_int_equal(ids->dim[1], asking_spec.top_k);
    for (int64_t t = 0; t < sample->n; t++) {
        double sum = 0;
        for (int64_t v = 0; v < head->vocab_size; v++) {
            double z = 0;
            for (int64_t c = 0; c < head->hidden_size; c++) {
                z += (double)half_at(states, t * head->hidden_size + c) *
                     (double)head->weight[v * head->hidden_size + c];
            }
            logits[v] = (float)z;
            sum += exp(z / asking_spec.temperature);
        }
        assert_true(fabs(log(sum) - (double)((const float *)lse->data)[t]) < 0.02);
        for (int64_t k = 0; k < asking_spec.top_k; k++) {
            int32_t id = ((const int32_t *)ids->data)[t * asking_spec.top_k + k];
            assert_true(id >= 0 && id < head->vocab_size);
            assert_true(fabsf(half_at(values, t * asking_spec.top_k + k) - logits[id]) < 0.05f);
        }
    }
    lb_free(logits);
}

static bool same_answer(const struct lb_answer *a, const struct lb_answer *b) {
    bool same = a->n_tensors == b->n_tensors;
    for (size_t j = 0; same && j < a->n_tensors; j++) {
        same = a->tensors[j].bytes == b->tensors[j].bytes &&
               !memcmp(a->tensors[j].data, b->tensors[j].data, a->tensors[j].bytes);
    }
    return same;
}

/* ---- tests ---- */

static void local_url(const char *path, char out[100]) {
    snprintf(out, 100, "local:%s", path);
}

static void test_local_teachers(void **state) {
    (void)state;
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    struct lb_model *model = NULL;
    const struct lb_teacher_head *heads[2];
    const struct lb_answer *const *answers = NULL;
    char url[100];
    asking_setup(&asking);
    local_url(model_path, url);
    asking_add(&asking, url);
    local_url(other_path, url);
    asking_add(&asking, url);
    must(asking_open(&asking, NULL, &teachers, &detail), &detail);

    must(lb_model_open(model_path, false, &model, &detail), &detail);
    const struct lb_teacher_info *info = lb_teachers_info(teachers, 0);
    assert_string_equal(info->fingerprint, lb_model_fingerprint(model));
    assert_string_not_equal(info->fingerprint, lb_teachers_info(teachers, 1)->fingerprint);
    assert_string_equal(info->tokenizer_fingerprint, lb_teachers_info(teachers, 1)->tokenizer_fingerprint);
    assert_int_equal(info->vocab_size, 97);
    assert_int_equal(info->hidden_size, 32);
    assert_int_equal(info->n_layers, 2);
    assert_int_equal(info->n_heads, 4);
    assert_int_equal(info->max_length, 128);
    for (unsigned k = 0; k < 2; k++) {
        must(lb_teachers_head(teachers, k, &heads[k], &detail), &detail);
    }
    assert_memory_equal(heads[0]->weight, lb_model_head(model)->weight->data, 97 * 32 * sizeof(float));
    lb_model_destroy(model);

    struct lb_buf tokenizer, file;
    char path[100];
    lb_buf_init(&tokenizer, 1 << 20);
    lb_buf_init(&file, 1 << 20);
    snprintf(path, sizeof path, "%s/tokenizer.json", model_path);
    must(lb_teachers_tokenizer(teachers, 0, &tokenizer, &detail), &detail);
    must(lb_file_read(path, &file, &detail), &detail);
    assert_int_equal(tokenizer.len, file.len);
    assert_memory_equal(tokenizer.data, file.data, file.len);
    lb_buf_finish(&tokenizer);
    lb_buf_finish(&file);

    for (int64_t q = 0; q < 3; q++) {
        struct lb_sample *samples = asking_samples(N, (uint64_t)q, false);
        must(lb_teachers_submit(teachers, q, samples, N, NULL, &detail), &detail);
        must(lb_teachers_take(teachers, q, &answers, &detail), &detail);
        for (int i = 0; i < N; i++) {
            check_answer(answers[2 * i], &samples[i], heads[0]);
            check_answer(answers[2 * i + 1], &samples[i], heads[1]);
        }
        lb_teachers_release(teachers, q);
        asking_free_samples(samples, N);
    }
    lb_teachers_close(teachers);
    asking_teardown(&asking);
}

/* Answers of one daemon, then of three replicas of which one is killed on the way and started again: the same
 * bytes. */
static void test_replicas_and_a_killed_one(void **state) {
    (void)state;
    enum { QUESTIONS = 40 };
    struct host *hosts[3], *single = host_start(folder, "single", model_path, NULL);
    struct lb_detail detail = {0};
    struct asking alone, pool;
    struct lb_teachers *one = NULL, *three = NULL;
    const struct lb_answer *const *a = NULL, *const *b = NULL;
    struct lb_sample *samples[QUESTIONS];
    char name[20], socket_path[80], listen[40];
    snprintf(socket_path, sizeof socket_path, "unix:%s/socket", folder);
    asking_setup(&alone);
    asking_add(&alone, host_url(single));
    must(asking_open(&alone, NULL, &one, &detail), &detail);
    asking_setup(&pool);
    for (int r = 0; r < 3; r++) {
        snprintf(name, sizeof name, "replica%d", r);
        hosts[r] = host_start(folder, name, model_path, r == 2 ? socket_path : NULL);
        if (r == 0) {
            asking_add(&pool, host_url(hosts[r]));
        } else {
            asking_add_replica(&pool, host_url(hosts[r]));
        }
    }
    assert_string_equal(host_url(hosts[2]), socket_path);
    must(asking_open(&pool, NULL, &three, &detail), &detail);
    for (int64_t q = 0; q < QUESTIONS; q++) {
        samples[q] = asking_samples(N, 100 + (uint64_t)q, false);
        must(lb_teachers_submit(one, q, samples[q], N, NULL, &detail), &detail);
        must(lb_teachers_submit(three, q, samples[q], N, NULL, &detail), &detail);
    }
    for (int64_t q = 0; q < QUESTIONS; q++) {
        if (q == 3) {
            snprintf(listen, sizeof listen, "127.0.0.1:%d", host_port(hosts[1]));
            host_kill(hosts[1]);
        }
        if (q == 20) {
            hosts[1] = host_start(folder, "again", model_path, listen);
        }
        must(lb_teachers_take(one, q, &a, &detail), &detail);
        must(lb_teachers_take(three, q, &b, &detail), &detail);
        for (int i = 0; i < N; i++) {
            assert_true(same_answer(a[i], b[i]));
        }
        lb_teachers_release(one, q);
        lb_teachers_release(three, q);
        asking_free_samples(samples[q], N);
    }
    lb_teachers_close(one);
    lb_teachers_close(three);
    for (int r = 0; r < 3; r++) {
        host_kill(hosts[r]);
    }
    host_kill(single);
    asking_teardown(&alone);
    asking_teardown(&pool);
}

/* The same port, another model: the run ends and names both. */
static void test_another_model_on_the_port(void **state) {
    (void)state;
    struct host *host = host_start(folder, "first", model_path, NULL);
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0}, told = {0};
    const struct lb_answer *const *answers = NULL;
    char listen[40], fingerprint[LB_SHA256_HEX];
    asking_setup(&asking);
    asking_add(&asking, host_url(host));
    must(asking_open(&asking, NULL, &teachers, &detail), &detail);
    memcpy(fingerprint, lb_teachers_info(teachers, 0)->fingerprint, sizeof fingerprint);
    snprintf(listen, sizeof listen, "127.0.0.1:%d", host_port(host));
    host_kill(host);
    host = host_start(folder, "second", other_path, listen);
    struct lb_sample *samples = asking_samples(N, 1, false);
    must(lb_teachers_submit(teachers, 0, samples, N, NULL, &detail), &detail);
    assert_int_equal(lb_teachers_take(teachers, 0, &answers, &told), LB_E_MISMATCH);
    assert_non_null(strstr(told.text, fingerprint));
    lb_teachers_close(teachers);
    asking_free_samples(samples, N);
    asking_teardown(&asking);
    host_kill(host);
}

static void wait_until_gone(const char *url) {
    struct lb_client *http = NULL;
    struct lb_detail detail = {0};
    must(lb_client_create(&http, &detail), &detail);
    uint64_t until = lb_now_ns() + 10 * LB_SECOND_NS;
    enum lb_status status = LB_OK;
    while (status != LB_E_UNAVAILABLE && lb_now_ns() < until) {
        struct lb_call call;
        lb_call_init(&call, url, "/v2/health/live", NULL);
        status = lb_client_perform(http, &call, NULL);
        lb_call_finish(&call);
    }
    assert_int_equal(status, LB_E_UNAVAILABLE);
    lb_client_destroy(http);
}

/* A child starts a daemon and is killed; the daemon's end is waited for. start gives the daemon's URL. */
static void kill_who_started(const char *(*start)(void)) {
    int pipe_fds[2];
    char url[64] = "";
    assert_int_equal(pipe(pipe_fds), 0);
    pid_t child = fork();
    if (child == 0) {
        const char *own = start();
        if (own == NULL || write(pipe_fds[1], own, strlen(own)) < 0) {
            _exit(1);
        }
        pause();
        _exit(1);
    }
    close(pipe_fds[1]);
    assert_true(read(pipe_fds[0], url, sizeof url - 1) > 0);
    close(pipe_fds[0]);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    wait_until_gone(url);
}

static const char *start_local(void) {
    struct lb_local *local = NULL;
    bool ready = lb_local_start("t", model_path, NULL, &local, NULL) == LB_OK &&
                 lb_local_wait(local, NULL, NULL) == LB_OK;
    return ready ? lb_local_url(local) : NULL;
}

static const char *start_host(void) {
    return host_url(host_start(folder, "orphan", model_path, NULL));
}

/* A local daemon ends with its trainer, even one that is killed; and a trainer whose daemon is killed says so
 * at once. */
static void test_local_daemons_live_and_die(void **state) {
    (void)state;
    kill_who_started(start_local);
    struct lb_local *local = NULL;
    struct lb_detail detail = {0}, told = {0};
    must(lb_local_start("mine", model_path, NULL, &local, &detail), &detail);
    must(lb_local_wait(local, NULL, &detail), &detail);
    must(lb_local_check(local, &detail), &detail);
    assert_int_equal(kill(lb_local_pid(local), SIGKILL), 0);
    while (lb_local_check(local, &told) == LB_OK) {
        lb_sleep_ns(LB_MS_NS);
    }
    assert_non_null(strstr(told.text, "teacher mine"));
    assert_non_null(strstr(told.text, "signal 9"));
    lb_local_stop(local);
}

/* A test that falls over leaves no daemon behind. */
static void test_daemons_of_a_dead_test(void **state) {
    (void)state;
    kill_who_started(start_host);
}

/* A model that does not load: the daemon's own words. */
static void test_local_that_does_not_start(void **state) {
    (void)state;
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0}, told = {0};
    char path[100];
    asking_setup(&asking);
    snprintf(path, sizeof path, "%s/broken", asking.directory);
    must(lb_mkdirs(path, &detail), &detail);
    snprintf(path, sizeof path, "%s/broken/config.json", asking.directory);
    must(lb_file_replace(path, "{}", 2, &detail), &detail);
    asking_add(&asking, "local:broken"); /* beside the recipe */
    assert_int_equal(asking_open(&asking, NULL, &teachers, &told), LB_E_UNAVAILABLE);
    assert_non_null(strstr(told.text, "teacher t0: its limbeckd ended"));
    assert_non_null(strstr(told.text, "no model.safetensors"));
    asking_teardown(&asking);
}

/* ---- commands ---- */

/* Runs limbeck with these arguments (words between blanks); what it says in text, its exit status returned.
 */
static int run(const char *arguments, char *text, size_t size) {
    char program[400], words[600], *argv[16] = {program}, *rest = words;
    const char *build = getenv("LB_BUILD_ROOT");
    int fds[2], status = -1, n = 1;
    snprintf(program, sizeof program, "%s/trainer/limbeck", build ? build : ".");
    snprintf(words, sizeof words, "%s", arguments);
    for (char *word; n < 15 && (word = strsep(&rest, " "));) {
        argv[n++] = word;
    }
    assert_int_equal(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(fds[1], STDOUT_FILENO);
        dup2(fds[1], STDERR_FILENO);
        execv(program, argv);
        _exit(127);
    }
    close(fds[1]);
    size_t len = 0;
    for (ssize_t got; len + 1 < size && (got = read(fds[0], text + len, size - 1 - len)) > 0;) {
        len += (size_t)got;
    }
    text[len] = 0;
    close(fds[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_probe(void **state) {
    (void)state;
    struct host *a = host_start(folder, "a", model_path, NULL),
                *b = host_start(folder, "b", model_path, NULL),
                *c = host_start(folder, "c", other_path, NULL);
    char arguments[400], text[16384];
    snprintf(arguments, sizeof arguments, "probe %s %s %s", host_url(a), host_url(b), host_url(c));
    assert_int_equal(run(arguments, text, sizeof text), 0);
    assert_non_null(strstr(text, "identical answers"));
    assert_non_null(strstr(text, "logits.topk_ids"));
    assert_non_null(strstr(text, "vocab_size             97"));

    snprintf(arguments, sizeof arguments, "probe --json --model tiny %s %s", host_url(a), host_url(b));
    assert_int_equal(run(arguments, text, sizeof text), 0);
    json_t *root = NULL;
    struct lb_detail detail = {0};
    must(lb_json_parse(text, strlen(text), 16, "probe", &root, &detail), &detail);
    assert_int_equal(json_array_size(json_object_get(root, "teachers")), 2);
    const json_t *agreement = json_array_get(json_object_get(root, "agreement"), 0);
    assert_true(json_is_true(json_object_get(agreement, "identical")));
    json_decref(root);

    snprintf(arguments, sizeof arguments, "probe --model absent %s", host_url(a));
    assert_int_equal(run(arguments, text, sizeof text), 1);
    assert_non_null(strstr(text, "no model named absent"));
    char url[100];
    snprintf(url, sizeof url, "%s", host_url(a));
    host_kill(a);
    snprintf(arguments, sizeof arguments, "probe %s", url);
    assert_int_equal(run(arguments, text, sizeof text), 1);
    assert_non_null(strstr(text, url));
    assert_int_equal(run("probe", text, sizeof text), 2);
    host_kill(b);
    host_kill(c);
}

/* What a run would refuse a probe does not call an answer. */
static void test_probe_of_a_liar(void **state) {
    (void)state;
    static const struct fake_options options = {.port = 0};
    struct fake_teacher *fake = fake_start(&options);
    char arguments[400], text[16384];
    assert_non_null(fake);
    snprintf(arguments, sizeof arguments, "probe --protocol oip %s", fake_url(fake));
    int rc = run(arguments, text, sizeof text);
    if (rc != 0) {
        fail_msg("%d: %s", rc, text);
    }
    fake_fault(fake, FAKE_LOW_SUM, -1);
    rc = run(arguments, text, sizeof text);
    if (rc != 1 || !strstr(text, "less than its logits sum") || !strstr(text, fake_url(fake))) {
        fail_msg("%d: %s", rc, text);
    }
    fake_stop(fake);
}

/* A local: teacher whose folder is gone: what the cache knows is used, and what it lacks ends the run at
 * once, also where one that is lost would be waited for. */
static void test_local_that_is_gone(void **state) {
    (void)state;
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    const struct lb_answer *const *answers = NULL;
    struct lb_sample *samples = asking_samples(N, 1, false), *others = asking_samples(N, 2, false);
    char path[80], url[100];
    snprintf(path, sizeof path, "%s/brief", folder);
    local_url(path, url);
    struct lb_config config;
    lb_tiny_llama(&config);
    lb_tiny_save(&config, 3, path, LB_F32, true);
    asking_setup(&asking);
    asking_use_cache(&asking);
    asking_add(&asking, url);
    asking.recipe.on_lost_teacher = LB_LOST_WAIT;
    must(asking_open(&asking, NULL, &teachers, &detail), &detail);
    must(lb_teachers_submit(teachers, 0, samples, N, NULL, &detail), &detail);
    must(lb_teachers_take(teachers, 0, &answers, &detail), &detail);
    lb_teachers_close(teachers);
    must(lb_remove_tree(path, &detail), &detail);
    must(asking_open(&asking, NULL, &teachers, &detail), &detail);
    must(lb_teachers_submit(teachers, 0, samples, N, NULL, &detail), &detail);
    must(lb_teachers_take(teachers, 0, &answers, &detail), &detail);
    must(lb_teachers_submit(teachers, 1, others, N, NULL, &detail), &detail);
    assert_int_equal(lb_teachers_take(teachers, 1, &answers, &detail), LB_E_UNAVAILABLE);
    assert_non_null(strstr(detail.text, path));
    assert_non_null(strstr(detail.text, "--resume"));
    lb_teachers_close(teachers);
    asking_free_samples(samples, N);
    asking_free_samples(others, N);
    asking_teardown(&asking);
}

static void test_cache_command(void **state) {
    (void)state;
    struct host *host = host_start(folder, "cached", model_path, NULL);
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    const struct lb_answer *const *answers = NULL;
    struct lb_sample *samples = asking_samples(N, 1, false);
    char arguments[200], text[4096];
    asking_setup(&asking);
    asking_use_cache(&asking);
    asking_add(&asking, host_url(host));
    must(asking_open(&asking, NULL, &teachers, &detail), &detail);
    must(lb_teachers_submit(teachers, 0, samples, N, NULL, &detail), &detail);
    must(lb_teachers_take(teachers, 0, &answers, &detail), &detail);
    lb_teachers_close(teachers); /* after the answers are stored */
    snprintf(arguments, sizeof arguments, "cache stats %s/cache --json", asking.directory);
    assert_int_equal(run(arguments, text, sizeof text), 0);
    assert_non_null(strstr(text, "\"entries\": 9"));
    snprintf(arguments, sizeof arguments, "cache stats %s/cache", asking.directory);
    assert_int_equal(run(arguments, text, sizeof text), 0);
    assert_non_null(strstr(text, "9 answers"));
    snprintf(arguments, sizeof arguments, "cache verify %s/cache", asking.directory);
    assert_int_equal(run(arguments, text, sizeof text), 0);
    assert_non_null(strstr(text, "9 answers read, 0 bad"));
    snprintf(arguments, sizeof arguments, "cache stats %s", asking.directory);
    assert_int_equal(run(arguments, text, sizeof text), 1);
    assert_non_null(strstr(text, "no cache"));
    assert_int_equal(run("cache stir x", text, sizeof text), 2);
    asking_free_samples(samples, N);
    asking_teardown(&asking);
    host_kill(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_local_teachers),
        cmocka_unit_test(test_replicas_and_a_killed_one),
        cmocka_unit_test(test_another_model_on_the_port),
        cmocka_unit_test(test_local_daemons_live_and_die),
        cmocka_unit_test(test_daemons_of_a_dead_test),
        cmocka_unit_test(test_local_that_does_not_start),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_probe_of_a_liar),
        cmocka_unit_test(test_local_that_is_gone),
        cmocka_unit_test(test_cache_command),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
