/* What the self-test finds, and that it is kept from one start to the next, as long as nothing changes that
 * decides it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/memo.h"
#include "common/model/batch.h"
#include "common/nn/compute.h"
#include "common/nn/gemm.h"
#include "common/nn/tape.h"
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

/* The tape of a forward of one sequence. */
static size_t forward_bytes(const struct lb_model *model, int64_t length) {
    static int32_t ids[512];
    struct lb_arena arena;
    struct lb_model_batch batch;
    lb_arena_init(&arena, (size_t)1 << 20);
    assert_true(lb_model_batch_init(&batch, &arena, 1, length, 0, false));
    lb_model_batch_add_ids(&batch, ids, NULL, length);
    struct lb_input input = lb_model_batch_input(&batch);
    struct lb_tape *tape = lb_tape_create((size_t)1 << 30);
    assert_non_null(tape);
    lb_tape_begin(tape, LB_TAPE_PLAIN, &input.ragged, NULL);
    assert_non_null(lb_model_forward(model, tape, &input, NULL, 0, NULL));
    size_t bytes = lb_tape_high(tape);
    lb_tape_destroy(tape);
    lb_arena_finish(&arena);
    return bytes;
}

/* A row's tape is what each more row of a long sequence takes, of mixtures of experts too. */
static void test_tape_of_a_row(void **state) {
    (void)state;
    for (int experts = 0; experts <= 8; experts += 8) {
        struct lb_config config;
        struct lb_self_test_result found = {0};
        lb_tiny_llama(&config);
        config.max_position_embeddings = 512;
        if (experts > 0) {
            snprintf(config.model_type, sizeof config.model_type, "qwen3_moe");
            config.num_experts = experts;
            config.num_experts_per_tok = 2;
            config.moe_intermediate_size = 128;
        }
        struct lb_hosted *hosted = lb_tiny_hosted(folder, experts > 0 ? "mixture" : "dense", &config);
        assert_int_equal(lb_self_test(hosted->model, true, count_and_run, NULL, &found, NULL), LB_OK);
        double row =
            (double)(forward_bytes(hosted->model, 512) - forward_bytes(hosted->model, 256)) / (512 - 256);
        assert_true((double)found.row_bytes > 0.97 * row && (double)found.row_bytes < 1.05 * row);
        lb_hosted_release(hosted);
    }
}

int main(int argc, char **argv) {
    (void)argc;
    lb_gemm_setup(0, argv);
    if (!mkdtemp(folder)) {
        return 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kept_self_test),
                                       cmocka_unit_test(test_tape_of_a_row)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return lb_remove_tree(folder, NULL) == LB_OK ? failed : 1;
}
