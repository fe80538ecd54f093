#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/sha256.h"
#include "trainer/run/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/lb-checkpoint-XXXXXX";

#define MATRIX 12
#define VECTOR 3

/* A student of one matrix and one vector. */
struct run {
    float matrix[MATRIX], matrix_grad[MATRIX], vector[VECTOR], vector_grad[VECTOR];
    struct lb_weight weights[2];
    struct lb_optimizer *optimizer;
};

static const struct lb_recipe settings = {.adam_beta1 = 0.9, .adam_beta2 = 0.999, .adam_epsilon = 1e-8};

/* One of each optimizer, of different states. */
static const struct lb_recipe each_optim[] = {
    {.adam_beta1 = 0.9, .adam_beta2 = 0.999, .adam_epsilon = 1e-8},
    {.optim = LB_OPTIM_SGD, .weight_decay = 0.1},
    {.optim = LB_OPTIM_SGD, .momentum = 0.9, .nesterov = true},
    {.adam_beta1 = 0.9, .adam_beta2 = 0.999, .adam_epsilon = 1e-8, .ema_decay = 0.9},
    {.optim = LB_OPTIM_MUON, .momentum = 0.95, .adam_beta1 = 0.9, .adam_beta2 = 0.99, .weight_decay = 0.1},
    {.optim = LB_OPTIM_LION, .adam_beta1 = 0.9, .adam_beta2 = 0.99, .weight_decay = 0.1},
};

static void start_by(struct run *r, int cols, float from, const struct lb_recipe *recipe) {
    *r = (struct run){0};
    for (int i = 0; i < MATRIX; i++) {
        r->matrix[i] = from + (float)i;
    }
    for (int i = 0; i < VECTOR; i++) {
        r->vector[i] = -from;
    }
    r->weights[0] = (struct lb_weight){.name = "m.weight", .rows = MATRIX / cols, .cols = cols, .n_dims = 2};
    r->weights[0].data = r->weights[0].value = r->matrix;
    r->weights[0].grad = r->matrix_grad;
    r->weights[1] = (struct lb_weight){.name = "v.weight", .rows = 1, .cols = VECTOR, .n_dims = 1};
    r->weights[1].data = r->weights[1].value = r->vector;
    r->weights[1].grad = r->vector_grad;
    const struct lb_weight_group group = {r->weights, 2};
    assert_int_equal(lb_optimizer_create(recipe, &group, 1, &r->optimizer, NULL), LB_OK);
}

static void start(struct run *r, int cols, float from) {
    start_by(r, cols, from, &settings);
}

static void train(struct run *r, int steps) {
    for (int s = 0; s < steps; s++) {
        for (int i = 0; i < MATRIX; i++) {
            r->matrix_grad[i] = r->matrix[i] * 0.1f + (float)s;
        }
        for (int i = 0; i < VECTOR; i++) {
            r->vector_grad[i] = r->vector[i] - 1.0f;
        }
        double norm = 0;
        assert_int_equal(lb_optimizer_step(r->optimizer, 1e-2, 1.0, &norm, NULL), LB_OK);
    }
}

static void end(struct run *r) {
    lb_optimizer_destroy(r->optimizer);
}

static struct lb_checkpoint state_at(int64_t step) {
    struct lb_checkpoint s = {.step = step, .micro_batch = step * 4, .tokens = step * 1000, .n_rngs = 2};
    lb_rng_seed(&s.rngs[0], 1, (uint64_t)step);
    lb_rng_seed(&s.rngs[1], 2, (uint64_t)step);
    memset(s.recipe, 'a', sizeof s.recipe - 1);
    memset(s.data, 'b', sizeof s.data - 1);
    memset(s.teachers, 'c', sizeof s.teachers - 1);
    s.computes.n = 2;
    for (unsigned i = 0; i < s.computes.n; i++) {
        memset(s.computes.by[i].digest, 'd' + (int)i, sizeof s.computes.by[i].digest - 1);
        snprintf(s.computes.by[i].kernels, sizeof s.computes.by[i].kernels, "kernels %u", i);
    }
    return s;
}

static int set_up(void **state) {
    (void)state;
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : -1;
}

static void save(struct run *r, int64_t step, int64_t keep) {
    struct lb_checkpoint s = state_at(step);
    struct lb_detail detail = {0};
    if (lb_checkpoint_save(folder, &s, r->optimizer, keep, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
}

static bool exists(const char *name) {
    char *path = lb_path_join(folder, name);
    bool there = lb_file_exists(path);
    lb_free(path);
    return there;
}

static char *latest(void) {
    char *path = NULL;
    struct lb_detail detail = {0};
    if (lb_checkpoint_latest(folder, &path, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    return path;
}

/* A run that was saved and loaded goes on to the same bits as one that was not. */
static void resumed_is_the_same(void **state) {
    (void)state;
    struct run a, b;
    start(&a, 4, 1.0f);
    train(&a, 5);
    save(&a, 5, 2);
    train(&a, 3);

    start(&b, 4, 99.0f);
    struct lb_checkpoint expected = state_at(5), loaded;
    char *path = latest();
    struct lb_detail detail = {0};
    assert_int_equal(lb_checkpoint_load(path, &expected, b.optimizer, &loaded, &detail), LB_OK);
    assert_memory_equal(loaded.rngs, expected.rngs, sizeof loaded.rngs);
    assert_int_equal(loaded.n_rngs, 2);
    assert_int_equal(loaded.step, 5);
    assert_int_equal(loaded.micro_batch, 20);
    assert_int_equal(loaded.tokens, 5000);
    char text[400];
    const struct lb_recipe_teacher math = {.name = "math"};
    assert_int_equal(loaded.computes.n, 2);
    assert_false(lb_computes_differ(&loaded.computes, &expected.computes, &math, text, sizeof text));
    expected.computes.by[0].kernels[0] = 'K'; /* names only explain */
    assert_false(lb_computes_differ(&loaded.computes, &expected.computes, &math, text, sizeof text));
    expected.computes.by[1].digest[0] = 'x';
    assert_true(lb_computes_differ(&loaded.computes, &expected.computes, &math, text, sizeof text));
    assert_string_equal(text, "teacher math: xeeeeeeeeeee (kernels 1), then eeeeeeeeeeee (kernels 1)");
    assert_int_equal(lb_optimizer_steps(b.optimizer), 5);
    train(&b, 3);
    assert_memory_equal(a.matrix, b.matrix, sizeof a.matrix);
    assert_memory_equal(a.vector, b.vector, sizeof a.vector);
    lb_free(path);
    end(&a);
    end(&b);
}

/* Whatever the optimizer keeps of each weight comes back; another's state is refused. */
static void each_optimizer_resumes(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof each_optim / sizeof each_optim[0]; k++) {
        struct run a, b;
        struct lb_checkpoint expected = {0}, loaded;
        start_by(&a, 4, 1.0f, &each_optim[k]);
        train(&a, 4);
        save(&a, 4, 1);
        train(&a, 3);
        char *path = latest();
        start_by(&b, 4, 50.0f, &each_optim[k]);
        train(&b, 1);
        assert_int_equal(lb_checkpoint_load(path, &expected, b.optimizer, &loaded, NULL), LB_OK);
        train(&b, 3);
        for (int averages = 0; averages < 2; averages++) {
            assert_memory_equal(a.matrix, b.matrix, sizeof a.matrix);
            assert_memory_equal(a.vector, b.vector, sizeof a.vector);
            lb_optimizer_swap_average(a.optimizer);
            lb_optimizer_swap_average(b.optimizer);
        }
        end(&b);
        start_by(&b, 4, 50.0f, &each_optim[k == 0 ? 1 : 0]);
        assert_int_equal(lb_checkpoint_load(path, &expected, b.optimizer, &loaded, NULL), LB_E_MISMATCH);
        lb_free(path);
        end(&b);
        end(&a);
    }
}

static void keeps_the_newest(void **state) {
    (void)state;
    struct run r;
    start(&r, 4, 1.0f);
    char *none = NULL;
    struct lb_detail detail = {0};
    assert_int_equal(lb_checkpoint_latest(folder, &none, &detail), LB_E_NOTFOUND);
    for (int64_t step = 90; step <= 120; step += 10) {
        save(&r, step, 2);
    }
    assert_false(exists("checkpoint-90"));
    assert_false(exists("checkpoint-100"));
    assert_true(exists("checkpoint-110"));
    assert_true(exists("checkpoint-120"));
    char *path = latest();
    assert_non_null(strstr(path, "/checkpoint-120"));
    lb_free(path);
    /* Half-written ones of killed runs are neither found nor kept. */
    char *dead = lb_path_join(folder, ".unfinished-130");
    assert_int_equal(lb_mkdirs(dead, NULL), LB_OK);
    path = latest();
    assert_non_null(strstr(path, "/checkpoint-120"));
    lb_free(path);
    save(&r, 125, 1);
    assert_false(exists(".unfinished-130"));
    assert_false(exists("checkpoint-120"));
    assert_true(exists("checkpoint-125"));
    lb_free(dead);
    end(&r);
}

static void the_same_step_again_replaces(void **state) {
    (void)state;
    struct run r;
    start(&r, 4, 1.0f);
    save(&r, 7, 2);
    train(&r, 1);
    save(&r, 7, 2);
    float value = r.matrix[0];
    train(&r, 1);
    struct lb_checkpoint expected = {0}, loaded;
    char *path = latest();
    assert_int_equal(lb_checkpoint_load(path, &expected, r.optimizer, &loaded, NULL), LB_OK);
    assert_true(r.matrix[0] == value);
    assert_false(exists(".unfinished-7"));
    lb_free(path);
    end(&r);
}

static void expect_refusal(struct run *r, const struct lb_checkpoint *expected, enum lb_status code,
                           const char *text) {
    struct lb_checkpoint loaded = {.step = -1};
    struct lb_detail detail = {0};
    float before[MATRIX];
    memcpy(before, r->matrix, sizeof before);
    char *path = latest();
    enum lb_status status = lb_checkpoint_load(path, expected, r->optimizer, &loaded, &detail);
    if (status != code || strstr(detail.text, text) == NULL) {
        fail_msg("%s: %s; expected %s", lb_status_name(status), detail.text, text);
    }
    assert_memory_equal(before, r->matrix, sizeof before);
    assert_int_equal(loaded.step, -1);
    lb_free(path);
}

static void mismatches_are_refused(void **state) {
    (void)state;
    struct run r, other;
    start(&r, 4, 1.0f);
    save(&r, 5, 2);
    struct lb_checkpoint expected = state_at(5);
    expected.recipe[0] = 'x';
    expect_refusal(&r, &expected, LB_E_MISMATCH, "was made by another recipe");
    expected = state_at(5);
    expected.data[3] = 'x';
    expect_refusal(&r, &expected, LB_E_MISMATCH, "was trained on other data");
    expected = state_at(5);
    expected.teachers[63] = 'x';
    expect_refusal(&r, &expected, LB_E_MISMATCH, "was taught by other teachers");
    expected = state_at(5);
    start(&other, 3, 1.0f);
    expect_refusal(&other, &expected, LB_E_MISMATCH, "m.weight is of another shape");
    end(&other);
    start(&other, 4, 1.0f);
    other.weights[1].name = "renamed";
    lb_optimizer_destroy(other.optimizer);
    const struct lb_weight_group groups[] = {{other.weights, 2}};
    assert_int_equal(lb_optimizer_create(&settings, groups, 1, &other.optimizer, NULL), LB_OK);
    expect_refusal(&other, &expected, LB_E_MISMATCH, "renamed is missing");
    end(&other);
    end(&r);
}

/* state.json as another version of Limbeck would have sealed it. */
static void another_version_is_refused(void **state) {
    (void)state;
    static const char one[] = "\"version\": 1,", two[] = "\"version\": 2,", seal[] = ",\n  \"sha256\": \"";
    struct run r;
    struct lb_buf text;
    char hex[LB_SHA256_HEX];
    uint8_t digest[LB_SHA256_BYTES];
    start(&r, 4, 1.0f);
    save(&r, 5, 2);
    char *newest = latest(), *path = lb_path_join(newest, "state.json");
    lb_buf_init(&text, 65536);
    assert_int_equal(lb_file_read(path, &text, NULL), LB_OK);
    char *number = memmem(text.data, text.len, one, strlen(one)),
         *end_of_text = memmem(text.data, text.len, seal, strlen(seal));
    assert_non_null(number);
    assert_non_null(end_of_text);
    memcpy(number, two, strlen(two));
    lb_sha256(text.data, (size_t)(end_of_text - text.data), digest);
    lb_hex(digest, sizeof digest, hex);
    memcpy(end_of_text + strlen(seal), hex, strlen(hex));
    assert_int_equal(lb_file_replace(path, text.data, text.len, NULL), LB_OK);
    struct lb_checkpoint expected = state_at(5);
    expect_refusal(&r, &expected, LB_E_UNSUPPORTED, "has version 2, this Limbeck reads 1");
    lb_buf_finish(&text);
    lb_free(path);
    lb_free(newest);
    end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(resumed_is_the_same, set_up, tear_down),
        cmocka_unit_test_setup_teardown(each_optimizer_resumes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(keeps_the_newest, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_same_step_again_replaces, set_up, tear_down),
        cmocka_unit_test_setup_teardown(mismatches_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_version_is_refused, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
