/* The self-test's result is kept from one start to the next, as long as nothing changes that decides it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/memo.h"
#include "common/nn/compute.h"
#include "common/nn/gemm.h"
#include "server/engine/selftest.h"
#include "tests/support/tiny_hosted.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[] = "/tmp/limbeck-selftest-XXXXXX";
static int forwards;

static bool count_and_run(void *context, void (*call)(void *argument), void *argument) {
    (void)context;
    forwards++;
    call(argument);
    return true;
}

/* Tests the model; returns how many forwards that took. */
static int test_again(const struct lb_model *model, struct lb_self_test_result *out) {
    forwards = 0;
    memset(out, 0, sizeof *out);
    assert_int_equal(lb_self_test(model, true, count_and_run, NULL, out, NULL), LB_OK);
    assert_true(out->kept == (forwards == 0));
    return forwards;
}

/* Nothing is kept by a program that was linked in the last two seconds. */
static void wait_until_named(void) {
    uint8_t digest[LB_SHA256_BYTES];
    uint64_t begun = lb_now_ns();
    bool named = false;
    while (!named) {
        struct lb_sha256 *hash = lb_sha256_create();
        named = lb_compute_named(hash);
        lb_sha256_final(hash, digest);
        assert_true(named || lb_now_ns() - begun < 20 * LB_SECOND_NS);
        if (!named) {
            lb_sleep_ns(100 * LB_MS_NS);
        }
    }
}

/* Puts a letter behind all that was kept. */
static void spoil_kept(void) {
    char dir[64], path[512];
    int n = 0;
    snprintf(dir, sizeof dir, "%s/limbeck", folder);
    DIR *open = opendir(dir);
    assert_non_null(open);
    for (const struct dirent *entry; (entry = readdir(open)) != NULL;) {
        if (strncmp(entry->d_name, "selftest-", strlen("selftest-")) == 0) {
            snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
            FILE *file = fopen(path, "a");
            assert_true(file != NULL && fputs("x", file) >= 0 && fclose(file) == 0);
            n++;
        }
    }
    closedir(open);
    assert_true(n > 0);
}

/* What was found of a large model is found again without a forward; by other kernels, or on --rehash, it is
 * not. */
static void test_kept_self_test(void **state) {
    (void)state;
    struct lb_config config;
    struct lb_self_test_result first, second;
    lb_tiny_llama(&config);
    config.vocab_size = 70000;
    config.hidden_size = 128;
    config.num_hidden_layers = 1;
    struct lb_hosted *large = lb_tiny_hosted(folder, "large", &config), *other, *small;
    config.initializer_range *= 2;
    other = lb_tiny_hosted(folder, "other", &config);
    lb_tiny_mlp(&config);
    small = lb_tiny_hosted(folder, "small", &config);
    assert_int_equal(setenv("XDG_CACHE_HOME", folder, 1), 0);
    wait_until_named();
    assert_true(test_again(large->model, &first) > 0);
    assert_int_equal(test_again(large->model, &second), 0);
    second.kept = first.kept;
    assert_string_equal(first.compute, second.compute);
    assert_true(first.invariant == second.invariant && first.base_bytes == second.base_bytes &&
                first.row_bytes == second.row_bytes);
    assert_true(test_again(other->model, &second) > 0); /* of the same sizes, with other weights */
    static const char *const decides[] = {"OPENBLAS_CORETYPE_OF_ANOTHER", "GLIBC_TUNABLES"};
    for (size_t i = 0; i < sizeof decides / sizeof decides[0]; i++) {
        assert_int_equal(setenv(decides[i], "Prescott", 1), 0);
        assert_true(test_again(large->model, &second) > 0);
        assert_int_equal(test_again(large->model, &second), 0);
        assert_int_equal(unsetenv(decides[i]), 0);
    }
    assert_int_equal(test_again(large->model, &second), 0);
    spoil_kept();
    assert_true(test_again(large->model, &second) > 0);
    assert_int_equal(test_again(large->model, &second), 0);
    assert_int_equal(lb_self_test(small->model, false, count_and_run, NULL, &second, NULL), LB_OK);
    forwards = 0; /* a small one costs less than to look */
    assert_int_equal(lb_self_test(small->model, false, count_and_run, NULL, &second, NULL), LB_OK);
    assert_true(forwards > 0 && !second.kept);
    lb_memo_distrust();
    assert_true(test_again(large->model, &second) > 0);
    lb_hosted_release(large);
    lb_hosted_release(other);
    lb_hosted_release(small);
}

int main(int argc, char **argv) {
    (void)argc;
    lb_gemm_setup(0, argv);
    if (!mkdtemp(folder)) {
        return 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kept_self_test)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return lb_remove_tree(folder, NULL) == LB_OK ? failed : 1;
}
