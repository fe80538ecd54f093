#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/golden.h"
#include "tests/support/proofs.h"
#include "trainer/learn/optimizer.h"
#include "trainer/recipe/fields.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MATRIX 35
#define VECTOR 11
#define STEPS 6

static int open_golden(void **state) {
    (void)state;
    return lb_golden_open("optimizer.safetensors");
}

static const void *numbers(const char *name, const char *what, int step) {
    char key[64];
    if (step >= 0) {
        snprintf(key, sizeof key, "%s.%s.%d", name, what, step);
    } else {
        snprintf(key, sizeof key, "%s.%s", name, what);
    }
    return lb_golden_find(key)->data;
}

/* PyTorch computes the same formulas in another order: a few units in the last place, and values are about 1.
 */
static double expect_close(const float *have, const float *want, size_t n, const char *what, int step) {
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        if (fabsf(have[i] - want[i]) > 1e-6f * (1.0f + fabsf(want[i]))) {
            fail_msg("%s after step %d, element %zu: %.9g, PyTorch has %.9g", what, step, i, (double)have[i],
                     (double)want[i]);
        }
        worst = fmax(worst, (double)(fabsf(have[i] - want[i]) / (1.0f + fabsf(want[i]))));
    }
    return worst;
}

static const struct lb_field_name *names_of_optimizers(void) {
    for (const struct lb_field *f = lb_recipe_fields; f->key != NULL; f++) {
        if (strcmp(f->key, "optim") == 0) {
            return f->names;
        }
    }
    fail_msg("recipes have no key optim");
    return NULL;
}

static void follow(const char *name, enum lb_optim optim) {
    const double *s = numbers(name, "settings", -1);
    const double *norms = numbers(name, "norms", -1), *rates = numbers(name, "rates", -1);
    struct lb_recipe recipe = {.optim = optim,
                               .learning_rate = s[0],
                               .adam_beta1 = s[1],
                               .adam_beta2 = s[2],
                               .adam_epsilon = s[3],
                               .weight_decay = s[4],
                               .max_grad_norm = s[5],
                               .momentum = s[6],
                               .nesterov = s[7] != 0};
    float matrix[MATRIX], vector[VECTOR], matrix_grad[MATRIX], vector_grad[VECTOR];
    memcpy(matrix, numbers(name, "matrix", 0), sizeof matrix);
    memcpy(vector, numbers(name, "vector", 0), sizeof vector);
    const struct lb_weight weights[] = {{.name = "matrix",
                                         .rows = 7,
                                         .cols = 5,
                                         .n_dims = 2,
                                         .value = matrix,
                                         .data = matrix,
                                         .grad = matrix_grad},
                                        {.name = "vector",
                                         .rows = 1,
                                         .cols = VECTOR,
                                         .n_dims = 1,
                                         .value = vector,
                                         .data = vector,
                                         .grad = vector_grad}};
    const struct lb_weight_group groups[] = {{&weights[0], 1}, {&weights[1], 1}};
    struct lb_optimizer *optimizer = NULL;
    double worst = 0;
    assert_int_equal(lb_optimizer_create(&recipe, groups, 2, &optimizer, NULL), LB_OK);
    for (int step = 1; step <= STEPS; step++) {
        memcpy(matrix_grad, numbers(name, "matrix_grad", step), sizeof matrix_grad);
        memcpy(vector_grad, numbers(name, "vector_grad", step), sizeof vector_grad);
        for (int i = 0; i < MATRIX; i++) {
            matrix_grad[i] *= 4.0f; /* four micro-batches: grad_scale takes it back */
        }
        for (int i = 0; i < VECTOR; i++) {
            vector_grad[i] *= 4.0f;
        }
        double norm = 0;
        assert_int_equal(lb_optimizer_step(optimizer, rates[step - 1], 0.25, &norm, NULL), LB_OK);
        assert_true(fabs(norm - norms[step - 1]) < 1e-9 * norms[step - 1]);
        worst = fmax(worst, expect_close(matrix, numbers(name, "matrix", step), MATRIX, "matrix", step));
        worst = fmax(worst, expect_close(vector, numbers(name, "vector", step), VECTOR, "vector", step));
        for (int i = 0; i < MATRIX; i++) {
            assert_true(matrix_grad[i] == 0.0f);
        }
    }
    assert_int_equal(lb_optimizer_steps(optimizer), STEPS);
    lb_optimizer_destroy(optimizer);
    for (const struct lb_field_name *n = names_of_optimizers(); n->name != NULL; n++) {
        if (n->value == (int)(optim == LB_OPTIM_BY_DEFAULT ? LB_OPTIM_ADAMW : optim)) {
            lb_proof("optimizer", n->name, name, "value", worst, STEPS * (MATRIX + VECTOR));
        }
    }
}

static void table(void **state) {
    (void)state;
    for (const struct lb_field_name *n = names_of_optimizers(); n->name != NULL; n++) {
        lb_proof("optimizer", n->name, "", "table", 0, 0);
    }
}

static void plain(void **state) {
    (void)state;
    follow("plain", LB_OPTIM_BY_DEFAULT);
}

static void decay(void **state) {
    (void)state;
    follow("decay", LB_OPTIM_ADAMW);
}

static void clip(void **state) {
    (void)state;
    follow("clip", LB_OPTIM_ADAMW);
}

static void sgd(void **state) {
    (void)state;
    follow("sgd", LB_OPTIM_SGD);
}

static void momentum(void **state) {
    (void)state;
    follow("momentum", LB_OPTIM_SGD);
}

static void nesterov(void **state) {
    (void)state;
    follow("nesterov", LB_OPTIM_SGD);
}

static void lion(void **state) {
    (void)state;
    follow("lion", LB_OPTIM_LION);
}

static void lion_decay(void **state) {
    (void)state;
    follow("lion_decay", LB_OPTIM_LION);
}

static void muon(void **state) {
    (void)state;
    follow("muon", LB_OPTIM_MUON);
}

static void muon_heavy(void **state) {
    (void)state;
    follow("muon_heavy", LB_OPTIM_MUON);
}

/* What swap_average shows is PyTorch's average, and swapped back the weights go on. */
static void average(void **state) {
    (void)state;
    float value[VECTOR], grad[VECTOR];
    const struct lb_recipe recipe = {.optim = LB_OPTIM_SGD, .ema_decay = 0.75};
    memcpy(value, numbers("ema", "vector", 0), sizeof value);
    const struct lb_weight w = {
        .name = "w", .rows = 1, .cols = VECTOR, .n_dims = 2, .value = value, .data = value, .grad = grad};
    const struct lb_weight_group group = {&w, 1};
    struct lb_optimizer *optimizer = NULL;
    assert_int_equal(lb_optimizer_create(&recipe, &group, 1, &optimizer, NULL), LB_OK);
    lb_optimizer_swap_average(optimizer); /* nothing yet */
    assert_memory_equal(value, numbers("ema", "vector", 0), sizeof value);
    for (int step = 1; step <= STEPS; step++) {
        double norm;
        memcpy(grad, numbers("ema", "vector_grad", step), sizeof grad);
        assert_int_equal(lb_optimizer_step(optimizer, 0.5, 1, &norm, NULL), LB_OK);
        lb_optimizer_swap_average(optimizer);
        (void)expect_close(value, numbers("ema", "vector", step), VECTOR, "the average", step);
        lb_optimizer_swap_average(optimizer);
    }
    assert_int_equal(lb_optimizer_states(optimizer), 1);
    assert_string_equal(lb_optimizer_state_name(optimizer, 0), "ema");
    lb_optimizer_destroy(optimizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),    cmocka_unit_test(plain),      cmocka_unit_test(decay),
        cmocka_unit_test(clip),     cmocka_unit_test(sgd),        cmocka_unit_test(momentum),
        cmocka_unit_test(nesterov), cmocka_unit_test(lion),       cmocka_unit_test(lion_decay),
        cmocka_unit_test(muon),     cmocka_unit_test(muon_heavy), cmocka_unit_test(average)};
    return cmocka_run_group_tests(tests, open_golden, lb_golden_close);
}
