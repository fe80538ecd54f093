#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "trainer/learn/optimizer.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* Two weights whose chunks do not come out even. */
#define ROWS 211
#define COLS 167
#define N ((size_t)ROWS * COLS)
#define VECTOR 37

struct world {
    float matrix[N], matrix_grad[N], vector[VECTOR], vector_grad[VECTOR];
    struct lb_weight weights[2];
    struct lb_optimizer *optimizer;
};

static struct world *make_world(const struct lb_recipe *recipe) {
    struct world *w = lb_calloc(1, sizeof *w);
    assert_non_null(w);
    struct lb_rng rng;
    lb_rng_seed(&rng, 1, 0);
    for (size_t i = 0; i < N; i++) {
        w->matrix[i] = (float)lb_rng_normal(&rng);
        w->matrix_grad[i] = (float)lb_rng_normal(&rng);
    }
    for (size_t i = 0; i < VECTOR; i++) {
        w->vector[i] = (float)lb_rng_normal(&rng);
        w->vector_grad[i] = (float)lb_rng_normal(&rng);
    }
    w->weights[0] = (struct lb_weight){.name = "matrix", .rows = ROWS, .cols = COLS, .n_dims = 2};
    w->weights[0].data = w->weights[0].value = w->matrix;
    w->weights[0].grad = w->matrix_grad;
    w->weights[1] = (struct lb_weight){.name = "vector", .rows = 1, .cols = VECTOR, .n_dims = 1};
    w->weights[1].data = w->weights[1].value = w->vector;
    w->weights[1].grad = w->vector_grad;
    const struct lb_weight_group group = {w->weights, 2};
    assert_int_equal(lb_optimizer_create(recipe, &group, 1, &w->optimizer, NULL), LB_OK);
    return w;
}

static void free_world(struct world *w) {
    lb_optimizer_destroy(w->optimizer);
    lb_free(w);
}

static const struct lb_recipe settings = {
    .adam_beta1 = 0.9, .adam_beta2 = 0.95, .adam_epsilon = 1e-8, .weight_decay = 0.1, .max_grad_norm = 1.0};

static void same_bits_by(const struct lb_recipe *recipe) {
    const int threads[] = {1, 2, 5};
    struct world *worlds[3];
    double norms[3];
    for (int i = 0; i < 3; i++) {
        omp_set_num_threads(threads[i]);
        worlds[i] = make_world(recipe);
        assert_int_equal(lb_optimizer_step(worlds[i]->optimizer, 1e-3, 1.0, &norms[i], NULL), LB_OK);
        worlds[i]->matrix_grad[1] = 2.5f;
        assert_int_equal(lb_optimizer_step(worlds[i]->optimizer, 1e-3, 1.0, &norms[i], NULL), LB_OK);
    }
    for (int i = 1; i < 3; i++) {
        assert_memory_equal(&norms[0], &norms[i], sizeof norms[0]);
        assert_memory_equal(worlds[0]->matrix, worlds[i]->matrix, sizeof worlds[0]->matrix);
        assert_memory_equal(worlds[0]->vector, worlds[i]->vector, sizeof worlds[0]->vector);
    }
    for (int i = 0; i < 3; i++) {
        free_world(worlds[i]);
    }
    omp_set_num_threads(2);
}

static void bits_do_not_depend_on_threads(void **state) {
    (void)state;
    struct lb_recipe recipe = settings;
    same_bits_by(&recipe);
    recipe.optim = LB_OPTIM_LION;
    same_bits_by(&recipe);
    recipe.optim = LB_OPTIM_SGD;
    same_bits_by(&recipe);
    recipe.momentum = 0.9;
    recipe.nesterov = true;
    same_bits_by(&recipe);
    recipe.optim = LB_OPTIM_MUON;
    same_bits_by(&recipe);
}

static void norm_is_exact(void **state) {
    (void)state;
    struct world *w = make_world(&settings);
    long double sum = 0;
    for (size_t i = 0; i < N; i++) {
        sum += (long double)w->matrix_grad[i] * w->matrix_grad[i];
    }
    for (size_t i = 0; i < VECTOR; i++) {
        sum += (long double)w->vector_grad[i] * w->vector_grad[i];
    }
    double norm = 0, want = (double)sqrtl(sum) * 0.5;
    assert_int_equal(lb_optimizer_step(w->optimizer, 1e-3, 0.5, &norm, NULL), LB_OK);
    assert_true(fabs(norm - want) < 1e-12 * want);
    free_world(w);
}

static void decay_leaves_vectors_alone(void **state) {
    (void)state;
    struct world *w = make_world(&settings);
    float before[VECTOR], first = w->matrix[0];
    memcpy(before, w->vector, sizeof before);
    lb_optimizer_zero(w->optimizer);
    double norm = 1;
    assert_int_equal(lb_optimizer_step(w->optimizer, 0.5, 1.0, &norm, NULL), LB_OK);
    assert_true(norm == 0.0);
    assert_memory_equal(before, w->vector, sizeof before); /* no gradient, no decay: nothing */
    assert_true(w->matrix[0] == first * 0.95f);            /* 1 - 0.5 * 0.1 */
    free_world(w);
}

/* As transformers 5.24 sorts these names (Trainer.get_decay_parameter_names); vectors never decay here. */
static void decay_goes_by_names(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int n_dims;
        bool decays;
    } cases[] = {
        {"model.embed_tokens.weight", 2, true},
        {"model.layers.0.self_attn.q_proj.weight", 2, true},
        {"model.layers.0.self_attn.q_proj.bias", 1, false},
        {"model.layers.0.input_layernorm.weight", 1, false},
        {"model.norm.weight", 1, false},
        {"model.layers.0.self_attn.q_norm.weight", 1, false},
        {"transformer.h.0.ln_1.weight", 1, false},
        {"encoder.relative_attention_bias.weight", 2, false},
        {"bert.embeddings.LayerNorm.weight", 1, false},
        {"x.LayerNorm.weight", 2, false},
        {"x.norm", 2, false},
        {"norm.weight", 2, false},
        {"x.renorm.weight", 2, true},
        {"x.normal.weight", 2, true},
        {"x.norm_proj.weight", 2, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float value[4] = {1, 1, 1, 1}, grad[4] = {0};
        const struct lb_weight w = {.name = cases[i].name,
                                    .rows = cases[i].n_dims == 2 ? 2 : 1,
                                    .cols = cases[i].n_dims == 2 ? 2 : 4,
                                    .n_dims = cases[i].n_dims,
                                    .data = value,
                                    .value = value,
                                    .grad = grad};
        const struct lb_weight_group group = {&w, 1};
        struct lb_optimizer *optimizer = NULL;
        double norm;
        assert_int_equal(lb_optimizer_create(&settings, &group, 1, &optimizer, NULL), LB_OK);
        assert_int_equal(lb_optimizer_step(optimizer, 0.5, 1.0, &norm, NULL), LB_OK);
        if ((value[0] < 1) != cases[i].decays) {
            fail_msg("%s: %g", cases[i].name, (double)value[0]);
        }
        lb_optimizer_destroy(optimizer);
    }
}

static void bad_gradients_are_named(void **state) {
    (void)state;
    struct world *w = make_world(&settings);
    float before[VECTOR], first = w->matrix[0];
    memcpy(before, w->vector, sizeof before);
    struct lb_detail detail = {0};
    double norm = -1;
    w->vector_grad[5] = NAN;
    assert_int_equal(lb_optimizer_step(w->optimizer, 1e-3, 1.0, &norm, &detail), LB_E_ARG);
    assert_non_null(
        strstr(detail.text, "step 1: the gradient of vector is not a finite number at element 5"));
    assert_true(norm == -1);
    assert_true(w->matrix[0] == first);
    assert_memory_equal(before, w->vector, sizeof before);
    assert_int_equal(lb_optimizer_steps(w->optimizer), 0);
    w->matrix_grad[N - 1] = INFINITY; /* the first weight is named, not the last */
    detail = (struct lb_detail){0};
    assert_int_equal(lb_optimizer_step(w->optimizer, 1e-3, 1.0, &norm, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "the gradient of matrix"));
    lb_optimizer_zero(w->optimizer);
    assert_int_equal(lb_optimizer_step(w->optimizer, 1e-3, 1.0, &norm, NULL), LB_OK);
    free_world(w);
}

static void frozen_weights_are_refused(void **state) {
    (void)state;
    const struct lb_weight frozen = {.name = "frozen", .rows = 1, .cols = 1, .n_dims = 1};
    const struct lb_weight_group group = {&frozen, 1};
    struct lb_optimizer *optimizer = NULL;
    struct lb_detail detail = {0};
    assert_int_equal(lb_optimizer_create(&settings, &group, 1, &optimizer, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "frozen"));
    assert_null(optimizer);
}

static void memory_runs_out(void **state) {
    (void)state;
    float value = 1, grad = 1;
    const struct lb_weight w = {
        .name = "w", .rows = 1, .cols = 1, .n_dims = 1, .data = &value, .value = &value, .grad = &grad};
    const struct lb_weight_group group = {&w, 1};
    struct lb_optimizer *optimizer = NULL;
    for (long i = 1;; i++) {
        lb_mem_fail_from(i);
        enum lb_status status = lb_optimizer_create(&settings, &group, 1, &optimizer, NULL);
        lb_mem_fail_from(0);
        if (status == LB_OK) {
            assert_true(i > 4);
            break;
        }
        assert_int_equal(status, LB_E_NOMEM);
        assert_null(optimizer);
    }
    lb_optimizer_destroy(optimizer);
    lb_optimizer_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_do_not_depend_on_threads), cmocka_unit_test(norm_is_exact),
        cmocka_unit_test(decay_leaves_vectors_alone),    cmocka_unit_test(bad_gradients_are_named),
        cmocka_unit_test(frozen_weights_are_refused),    cmocka_unit_test(memory_runs_out),
        cmocka_unit_test(decay_goes_by_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
