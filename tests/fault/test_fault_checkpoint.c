/* Checkpoints when the machine fails: a disk that is full at any byte, files cut at any byte, flipped bits,
 * memory that runs out. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/run/checkpoint.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64];

#define N 40

static float value[N], grad[N];
static const struct lb_weight weight = {
    .name = "w", .rows = 5, .cols = N / 5, .n_dims = 2, .data = value, .value = value, .grad = grad};
static struct lb_optimizer *optimizer;
static const struct lb_checkpoint nothing; /* no fingerprint is compared */

static int set_up(void **state) {
    (void)state;
    const struct lb_recipe settings = {.adam_beta1 = 0.9, .adam_beta2 = 0.999, .adam_epsilon = 1e-8};
    const struct lb_weight_group group = {&weight, 1};
    /* Hundreds of saves, each synced many times: in memory where there is such a place. */
    snprintf(folder, sizeof folder, "%s/lb-fault-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    return mkdtemp(folder) != NULL && lb_optimizer_create(&settings, &group, 1, &optimizer, NULL) == LB_OK
               ? 0
               : -1;
}

static int tear_down(void **state) {
    (void)state;
    lb_optimizer_destroy(optimizer);
    optimizer = NULL;
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : -1;
}

/* The weights of step s. */
static void fill(int64_t s) {
    for (int i = 0; i < N; i++) {
        value[i] = (float)s + (float)i / 64.0f;
    }
    lb_optimizer_set_steps(optimizer, s);
}

static enum lb_status save(int64_t step, struct lb_detail *detail) {
    struct lb_checkpoint s = {.step = step, .micro_batch = step};
    fill(step);
    return lb_checkpoint_save(folder, &s, optimizer, 2, detail);
}

/* The newest checkpoint loads whole; returns its step. */
static int64_t load_latest(void) {
    char *path = NULL;
    struct lb_checkpoint loaded;
    struct lb_detail detail = {0};
    fill(-1);
    assert_int_equal(lb_checkpoint_latest(folder, &path, NULL), LB_OK);
    if (lb_checkpoint_load(path, &nothing, optimizer, &loaded, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    for (int i = 0; i < N; i++) {
        assert_true(value[i] == (float)loaded.step + (float)i / 64.0f);
    }
    assert_int_equal(lb_optimizer_steps(optimizer), loaded.step);
    lb_free(path);
    return loaded.step;
}

/* No file may grow beyond a limit: the disk is full at that byte. The last good checkpoint stays, and once
 * there is room again saving works. */
static void disk_full_at_any_byte(void **state) {
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(save(1, NULL), LB_OK);
    struct rlimit before, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    rlim_t bytes = 0;
    int64_t good = 1;
    bool failed = false, done = false;
    for (; !done; bytes += 71) {
        limit = before;
        limit.rlim_cur = bytes;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        struct lb_detail detail = {0};
        enum lb_status status = save(good + 1, &detail);
        limit.rlim_cur = before.rlim_cur;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        if (status == LB_OK) {
            good++;
            done = true;
        } else {
            failed = true;
            assert_int_equal(status, LB_E_IO);
            assert_true(detail.text[0] != '\0');
        }
        assert_int_equal(load_latest(), good);
    }
    assert_true(failed && bytes > 71);
    assert_int_equal(save(good + 1, NULL), LB_OK);
    assert_int_equal(load_latest(), good + 1);
}

/* A process that saves over and over is killed at many moments; what it leaves always loads, and steps never
 * go back. */
static void killed_at_any_moment(void **state) {
    (void)state;
    assert_int_equal(save(1, NULL), LB_OK);
    int64_t last = 1;
    for (int round = 0; round < 12; round++) {
        int fds[2];
        assert_int_equal(pipe(fds), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            for (int64_t step = last + 1;; step++) {
                if (save(step, NULL) != LB_OK || write(fds[1], "s", 1) != 1) {
                    _exit(1);
                }
            }
        }
        /* After some whole saves and a little more: the moment differs from round to round. */
        char c;
        for (int i = 0; i < 1 + round % 3; i++) {
            assert_int_equal(read(fds[0], &c, 1), 1);
        }
        for (volatile int spin = 0; spin < round * 100000; spin++) {
        }
        kill(child, SIGKILL);
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        close(fds[0]);
        close(fds[1]);
        int64_t now = load_latest();
        assert_true(now >= last + 1 + round % 3);
        last = now;
    }
}

static struct lb_buf read_file(const char *path) {
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 20);
    assert_int_equal(lb_file_read(path, &buf, NULL), LB_OK);
    return buf;
}

/* Without syncing, unlike lb_file_replace: thousands of times. */
static void overwrite(const char *path, const char *bytes, size_t len) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

/* Files of a checkpoint cut at every byte, and with a bit flipped in each byte: an error that names the file,
 * or (a flip in the padding between safetensors' header and data) the same weights; never other ones. */
static void damaged_files(void **state) {
    (void)state;
    assert_int_equal(save(3, NULL), LB_OK);
    static const char *const names[] = {"model.safetensors", "optimizer.safetensors", "state.json"};
    for (int f = 0; f < 3; f++) {
        char relative[64];
        snprintf(relative, sizeof relative, "checkpoint-3/%s", names[f]);
        char *path = lb_path_join(folder, relative), *dir = lb_path_join(folder, "checkpoint-3");
        struct lb_buf whole = read_file(path);
        for (size_t i = 0; i < 2 * whole.len; i++) {
            bool cut = i < whole.len;
            size_t at = cut ? i : i - whole.len;
            char byte = whole.data[at];
            whole.data[at] = (char)(byte ^ (cut ? 0 : 4));
            overwrite(path, whole.data, cut ? at : whole.len);
            whole.data[at] = byte;
            struct lb_checkpoint loaded;
            struct lb_detail detail = {0};
            fill(-7);
            enum lb_status status = lb_checkpoint_load(dir, &nothing, optimizer, &loaded, &detail);
            if (status == LB_OK) {
                assert_true(f < 2 && !cut);
                assert_true(value[1] == 3.0f + 1.0f / 64.0f);
            } else {
                assert_non_null(strstr(detail.text, names[f]));
                assert_true(value[1] == -7.0f + 1.0f / 64.0f);
            }
        }
        overwrite(path, whole.data, whole.len);
        lb_buf_finish(&whole);
        lb_free(path);
        lb_free(dir);
    }
    assert_int_equal(load_latest(), 3);
}

static void memory_runs_out(void **state) {
    (void)state;
    assert_int_equal(save(1, NULL), LB_OK);
    /* Each save syncs many times: not every allocation, but all kinds. */
    for (long i = 1;; i += 1 + i / 8) {
        lb_mem_fail_from(i);
        enum lb_status status = save(2, NULL);
        lb_mem_fail_from(0);
        int64_t now = load_latest();
        assert_true(now == 1 || now == 2); /* once renamed it counts, even if tidying up fails */
        if (status == LB_OK) {
            assert_true(i > 9 && now == 2);
            break;
        }
    }
    char *path = NULL;
    assert_int_equal(lb_checkpoint_latest(folder, &path, NULL), LB_OK);
    for (long i = 1;; i++) {
        struct lb_checkpoint loaded;
        fill(-1);
        lb_mem_fail_from(i);
        enum lb_status status = lb_checkpoint_load(path, &nothing, optimizer, &loaded, NULL);
        lb_mem_fail_from(0);
        if (status == LB_OK) {
            assert_true(i > 5);
            break;
        }
        assert_true(value[0] == -1.0f);
    }
    lb_free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(disk_full_at_any_byte, set_up, tear_down),
        cmocka_unit_test_setup_teardown(killed_at_any_moment, set_up, tear_down),
        cmocka_unit_test_setup_teardown(damaged_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(memory_runs_out, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
