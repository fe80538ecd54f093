#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/folder.h"
#include "common/base/mem.h"
#include "common/nn/head.h"
#include "common/nn/tape.h"
#include "tests/support/scratch.h"
#include "tests/support/tiny_model.h"
#include "trainer/learn/lora.h"
#include "trainer/run/adapter.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N 20

/* sum of c h of the final states, c a fixed pattern; back: its gradient reaches the weights. */
static double loss(const struct lb_model *model, bool back) {
    static int32_t ids[N];
    static const int32_t offsets[3] = {0, 12, N};
    for (int i = 0; i < N; i++) {
        ids[i] = (i * 37 + 5) % 97;
    }
    struct lb_input in = {.ragged = {2, offsets}, .ids = ids};
    struct lb_tape *tape = lb_tape_create((size_t)64 << 20);
    double sum = 0;
    lb_tape_begin(tape, LB_TAPE_TRAIN, &in.ragged, NULL);
    struct lb_value *h = lb_model_forward(model, tape, &in, NULL, 0, NULL);
    assert_true(lb_grad_fresh(tape, h));
    for (int64_t i = 0; i < h->rows * h->cols; i++) {
        h->grad[i] = (float)(sin((double)i) / 8);
        sum += (double)h->grad[i] * (double)h->data[i];
    }
    if (back) {
        assert_int_equal(lb_tape_backward(tape), LB_OK);
    }
    lb_tape_destroy(tape);
    return sum;
}

static struct lb_model *make_student(void) {
    struct lb_config config;
    struct lb_model *model = NULL;
    lb_tiny_llama(&config);
    config.initializer_range = 0.2;
    assert_int_equal(lb_model_create(&config, 3, &model, NULL), LB_OK);
    return model;
}

static const char *some[] = {"q_proj", "mlp.down_proj", "layers.1.self_attn.v_proj"};

static struct lb_recipe recipe_of(const char **targets, unsigned n) {
    return (struct lb_recipe){.use_peft = true,
                              .lora_r = 3,
                              .lora_alpha = 12,
                              .seed = 7,
                              .lora_target_modules = targets,
                              .lora_target_modules_count = n};
}

static struct lb_lora *adapt(const struct lb_recipe *recipe, struct lb_model *student) {
    struct lb_lora *lora = NULL;
    assert_int_equal(lb_lora_create(recipe, student, &lora, NULL), LB_OK);
    return lora;
}

static void modules_are_found_as_peft_does(void **state) {
    (void)state;
    struct lb_model *student = make_student();
    struct lb_recipe recipe = recipe_of(some, 3);
    struct lb_lora *lora = adapt(&recipe, student);
    size_t n;
    const struct lb_lora_module *m = lb_lora_modules(lora, &n);
    assert_int_equal(n, 5);
    assert_string_equal(m[0].module, "model.layers.0.self_attn.q_proj");
    assert_string_equal(m[0].a.name, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
    assert_string_equal(m[3].b.name, "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight");
    assert_true(m[1].a.rows == 3 && m[1].a.cols == 48 && m[1].b.rows == 32 && m[1].b.cols == 3);
    lb_lora_destroy(lora);
    lb_model_destroy(student);
    student = make_student(); /* all linear ones: seven of each of two layers */
    recipe.lora_target_modules_count = 0;
    lora = adapt(&recipe, student);
    (void)lb_lora_modules(lora, &n);
    assert_int_equal(n, 14);
    lb_lora_destroy(lora);
    lb_model_destroy(student);
    student = make_student();
    static const char *wrong[] = {"q_proj", "proj"};
    struct lb_detail detail = {0};
    recipe = recipe_of(wrong, 2);
    assert_int_equal(lb_lora_create(&recipe, student, &lora, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "lora_target_modules.1: the student has no linear module \"proj\""));
    lb_model_destroy(student);
}

static const char *const adapter[] = {LB_MARK, "adapter_config.json", "adapter_model.safetensors"};

/* An encoder's modules are called as AutoModel's are, and no pooler is one of them. */
static void encoders_in_peft(void **state) {
    (void)state;
    struct lb_config config;
    struct lb_model *student = NULL;
    char base[80];
    snprintf(base, sizeof base, "\"base_model_name_or_path\": \"%s\"", lb_scratch);
    lb_tiny_bert(&config);
    assert_int_equal(lb_model_create(&config, 3, &student, NULL), LB_OK);
    struct lb_recipe recipe = recipe_of(NULL, 0);
    recipe.directory = lb_scratch;
    recipe.student.model = ".";
    struct lb_lora *lora = adapt(&recipe, student);
    size_t n;
    const struct lb_lora_module *m = lb_lora_modules(lora, &n);
    assert_string_equal(m[0].module, "bert.encoder.layer.0.attention.self.query");
    assert_string_equal(m[0].a.name, "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight");
    assert_int_equal(lb_adapter_write(lb_scratch, lora, student, &recipe, NULL), LB_OK);
    struct lb_buf text;
    lb_buf_init(&text, 1 << 16);
    assert_int_equal(lb_file_read(lb_in_scratch("adapter/adapter_config.json"), &text, NULL), LB_OK);
    lb_buf_append(&text, "", 1);
    assert_non_null(strstr(text.data, base));
    static const char *const ends[] = {"\"self.query\"", "\"self.key\"", "\"self.value\"", "\"output.dense\"",
                                       "\"intermediate.dense\""};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        assert_non_null(strstr(text.data, ends[i]));
    }
    assert_null(strstr(text.data, "\"dense\""));
    lb_buf_finish(&text);
    assert_true(lb_folder_holds_only(lb_in_scratch("adapter"), adapter, 3));
    assert_int_equal(lb_remove_tree(lb_in_scratch("adapter"), NULL), LB_OK);
    assert_true(lb_folder_holds_only(lb_scratch, NULL, 0)); /* nothing is left beside it */
    lb_lora_destroy(lora);
    lb_model_destroy(student);
}

/* Wherever its writing ends the folder is not there, or whole; what is somebody's own stays. */
static void adapters_are_whole(void **state) {
    (void)state;
    struct lb_model *student = make_student();
    struct lb_recipe recipe = recipe_of(some, 1);
    recipe.directory = lb_scratch;
    recipe.student.model = ".";
    struct lb_lora *lora = adapt(&recipe, student);
    enum lb_status status = LB_E_NOMEM;
    int failed = 0;
    for (long n = 1; status != LB_OK; n++) {
        lb_mem_fail_from(n);
        status = lb_adapter_write(lb_scratch, lora, student, &recipe, NULL);
        lb_mem_fail_from(0);
        failed += status != LB_OK;
        assert_int_equal(lb_file_exists(lb_in_scratch("adapter")), status == LB_OK);
    }
    assert_true(failed > 5);
    for (size_t i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "adapter/%s", adapter[i]);
        assert_true(lb_file_exists(lb_in_scratch(name)));
    }
    assert_int_equal(lb_adapter_write(lb_scratch, lora, student, &recipe, NULL), LB_OK); /* once more */
    assert_int_equal(lb_file_replace(lb_in_scratch("adapter/notes"), "x", 1, NULL), LB_OK);
    assert_int_equal(lb_adapter_check(lb_scratch, NULL), LB_E_ARG);
    assert_int_equal(lb_adapter_write(lb_scratch, lora, student, &recipe, NULL), LB_E_ARG);
    assert_true(lb_file_exists(lb_in_scratch("adapter/notes")));
    lb_lora_destroy(lora);
    lb_model_destroy(student);
}

/* The derivative along some direction of all A and B, by differences and by the gradient; twice, since the
 * first one is at B = 0. */
static void gradients_are_those_of_the_adapters(void **state) {
    (void)state;
    struct lb_model *student = make_student();
    struct lb_recipe recipe = recipe_of(some, 3);
    struct lb_weight_group groups[2];
    double before = loss(student, false);
    struct lb_lora *lora = adapt(&recipe, student);
    lb_lora_merge(lora);
    assert_true(loss(student, false) == before); /* B is 0: nothing has changed */
    lb_lora_groups(lora, groups);
    for (int round = 0; round < 2; round++) {
        (void)loss(student, true);
        lb_lora_gradients(lora);
        double by_gradient = 0, by_difference = 0;
        const double step = 1e-3;
        for (int side = -1; side <= 2; side++) { /* -1, 1: a step there; 0, 2: and back */
            double move = side == -1 ? -step : side == 0 ? step : side == 1 ? step : -step;
            for (size_t i = 0; i < groups[1].n; i++) {
                const struct lb_weight *w = &groups[1].weights[i];
                for (int64_t j = 0; j < w->rows * w->cols; j++) {
                    double along = cos((double)(j + (int64_t)i)) + (w->grad[j] > 0 ? 0.5 : -0.5);
                    w->value[j] += (float)(move * along);
                    by_gradient += side == -1 ? along * (double)w->grad[j] : 0;
                }
            }
            lb_lora_merge(lora);
            by_difference += side == -1 || side == 1 ? side * loss(student, false) / (2 * step) : 0;
        }
        if (!(fabs(by_gradient - by_difference) < 1e-2 * fabs(by_gradient))) {
            fail_msg("by gradient %g, by difference %g", by_gradient, by_difference);
        }
        for (size_t i = 0; i < groups[1].n; i++) { /* a step downhill, from B = 0 */
            const struct lb_weight *w = &groups[1].weights[i];
            for (int64_t j = 0; j < w->rows * w->cols; j++) {
                w->value[j] -= 1e-2f * w->grad[j];
                w->grad[j] = 0;
            }
        }
        lb_lora_merge(lora);
    }
    assert_true(loss(student, false) < before);
    lb_lora_destroy(lora);
    lb_model_destroy(student);
}

/* What a checkpoint brings is of the model that the run began with. */
static void another_base_is_seen(void **state) {
    (void)state;
    struct lb_model *student = make_student();
    struct lb_recipe recipe = recipe_of(some, 3);
    struct lb_lora *lora = adapt(&recipe, student);
    size_t n;
    const struct lb_lora_module *m = lb_lora_modules(lora, &n);
    for (int64_t i = 0; i < m[1].b.rows * m[1].b.cols; i++) {
        m[1].b.value[i] = (float)sin((double)i);
    }
    assert_false(lb_lora_fits(lora)); /* not merged */
    lb_lora_merge(lora);
    assert_true(lb_lora_fits(lora));
    const struct lb_weight *w = lb_model_weights(student, &n);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(w[i].name, "model.layers.0.self_attn.q_proj.weight") == 0) {
            w[i].value[w[i].cols - 1] += 1e-3F;
        }
    }
    assert_false(lb_lora_fits(lora));
    lb_lora_destroy(lora);
    lb_model_destroy(student);
}

/* Of the student nothing else learns, and the adapted weights only by their adapters. */
static void the_rest_is_frozen(void **state) {
    (void)state;
    struct lb_model *student = make_student();
    struct lb_recipe recipe = recipe_of(some, 1);
    struct lb_weight_group groups[2];
    assert_int_equal(lb_model_extend(student, "losses.0.projection", 4, 32, 1, NULL), LB_OK);
    struct lb_lora *lora = adapt(&recipe, student);
    lb_lora_groups(lora, groups);
    size_t own = lb_model_own_weights(student), learn = 0;
    assert_int_equal(groups[0].n, own + 1);
    for (size_t i = 0; i < own; i++) {
        assert_null(groups[0].weights[i].grad);
        learn += lb_model_weights(student, &groups[0].n)[i].grad != NULL; /* a gradient to be taken on */
    }
    assert_int_equal(learn, 2);
    assert_non_null(groups[0].weights[own].grad); /* what a loss brings along does */
    lb_lora_destroy(lora);
    lb_model_destroy(student);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(modules_are_found_as_peft_does),
                                       cmocka_unit_test(encoders_in_peft),
                                       cmocka_unit_test(adapters_are_whole),
                                       cmocka_unit_test(another_base_is_seen),
                                       cmocka_unit_test(gradients_are_those_of_the_adapters),
                                       cmocka_unit_test(the_rest_is_frozen)};
    return cmocka_run_group_tests(tests, lb_scratch_make, lb_scratch_remove);
}
