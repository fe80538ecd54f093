/* Whole models with dropout: the gradient is that of what the masks leave, and the masks follow from the
 * random state alone; without a tape that records there are none. */
#include "common/model/families.h"
#include "common/model/model.h"
#include "common/nn/tape.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#define N 40
#define STEP 2e-3

static const int32_t offsets[3] = {0, 25, N};

static struct lb_input input(void) {
    static int32_t ids[N];
    for (int i = 0; i < N; i++) {
        ids[i] = (i * 37 + 5) % 97;
    }
    return (struct lb_input){.ragged = {2, offsets}, .ids = ids};
}

/* sum of c h, c a fixed pattern; in training its gradient reaches the weights. out (may be NULL): h. */
static double loss(const struct lb_model *model, enum lb_tape_mode mode, uint64_t seed, bool back,
                   float *out) {
    struct lb_tape *tape = lb_tape_create((size_t)256 << 20);
    struct lb_input in = input();
    struct lb_rng rng;
    double sum = 0;
    lb_rng_seed(&rng, seed, 7);
    lb_tape_begin(tape, mode, &in.ragged, mode == LB_TAPE_TRAIN ? &rng : NULL);
    struct lb_value *h = lb_model_forward(model, tape, &in, NULL, 0, NULL);
    assert_non_null(h);
    if (back) {
        assert_true(lb_grad_fresh(tape, h));
    }
    for (int64_t i = 0; i < h->rows * h->cols; i++) {
        double c = sin((double)i) / 8;
        sum += c * (double)h->data[i];
        if (back) {
            h->grad[i] = (float)c;
        }
    }
    if (back) {
        assert_int_equal(lb_tape_backward(tape), LB_OK);
    }
    if (out != NULL) {
        memcpy(out, h->data, (size_t)(h->rows * h->cols) * sizeof *out);
    }
    lb_tape_destroy(tape);
    return sum;
}

/* The derivative along some direction of all weights, by differences and by the gradient. */
static void check_direction(struct lb_model *model, const char *name, int direction) {
    size_t n;
    float *values = lb_model_values(model, &n), *grads = lb_model_grads(model, &n);
    static float start[1 << 18], along[1 << 18];
    assert_true(n <= sizeof start / sizeof *start);
    memcpy(start, values, n * sizeof *start);
    memset(grads, 0, n * sizeof *grads);
    (void)loss(model, LB_TAPE_TRAIN, 11, true, NULL);
    double by_gradient = 0, by_difference = 0;
    for (size_t i = 0; i < n; i++) { /* with the gradient's sign in part, so that much of it counts */
        along[i] = (float)cos((double)i * (double)(direction + 1)) + (grads[i] > 0 ? 0.5f : -0.5f);
        by_gradient += (double)grads[i] * (double)along[i];
    }
    for (int side = -1; side <= 1; side += 2) {
        for (size_t i = 0; i < n; i++) {
            values[i] = start[i] + (float)(side * STEP / 10) * along[i];
        }
        by_difference += side * loss(model, LB_TAPE_TRAIN, 11, false, NULL);
    }
    by_difference /= 2 * STEP / 10;
    memcpy(values, start, n * sizeof *start);
    printf("%-12s direction %d: by gradient %.6f, by difference %.6f\n", name, direction, by_gradient,
           by_difference);
    assert_true(fabs(by_gradient - by_difference) < 1e-2 * fabs(by_gradient));
}

static void check_model(const struct lb_config *config, const char *name) {
    struct lb_config without = *config;
    struct lb_model *model = NULL, *plain = NULL;
    static float a[N * 64], b[N * 64];
    size_t bytes = (size_t)(N * config->hidden_size) * sizeof *a;
    assert_true(config->hidden_size <= 64);
    without.attention_dropout = without.residual_dropout = without.embedding_dropout = 0;
    assert_int_equal(lb_model_create(config, 3, &model, NULL), LB_OK);
    assert_int_equal(lb_model_create(&without, 3, &plain, NULL), LB_OK);
    loss(model, LB_TAPE_PLAIN, 1, false, a); /* evaluation and generation */
    loss(plain, LB_TAPE_PLAIN, 1, false, b);
    assert_memory_equal(a, b, bytes);
    loss(model, LB_TAPE_TRAIN, 1, false, b);
    assert_memory_not_equal(a, b, bytes);
    loss(plain, LB_TAPE_TRAIN, 1, false, a);
    assert_memory_not_equal(a, b, bytes);
    loss(model, LB_TAPE_TRAIN, 2, false, a);
    assert_memory_not_equal(a, b, bytes);
    omp_set_num_threads(5);
    loss(model, LB_TAPE_TRAIN, 1, false, a);
    omp_set_num_threads(2);
    assert_memory_equal(a, b, bytes);
    for (int direction = 0; direction < 3; direction++) {
        check_direction(model, name, direction);
    }
    lb_model_disable_dropout(model);
    loss(model, LB_TAPE_TRAIN, 1, false, a);
    loss(plain, LB_TAPE_TRAIN, 1, false, b);
    assert_memory_equal(a, b, bytes);
    lb_model_destroy(model);
    lb_model_destroy(plain);
}

static struct lb_config parsed(const char *text) {
    struct lb_config config;
    struct lb_detail detail = {0};
    json_t *object = json_loads(text, 0, NULL);
    assert_non_null(object);
    if (lb_config_parse_new(object, "config", &config, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    json_decref(object);
    config.initializer_range = 0.2;
    return config;
}

static void by_the_keys_of_each_family(void **state) {
    (void)state;
    struct lb_config c = parsed(
        "{\"model_type\": \"llama\", \"vocab_size\": 97, \"hidden_size\": 32, \"intermediate_size\": 48, "
        "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
        "\"max_position_embeddings\": 64, \"attention_dropout\": 0.3}");
    assert_true(c.attention_dropout == 0.3 && c.residual_dropout == 0);
    check_model(&c, "llama");
    c = parsed("{\"model_type\": \"gpt2\", \"vocab_size\": 97, \"n_embd\": 32, \"n_layer\": 2, \"n_head\": "
               "4, \"n_positions\": "
               "64, \"attn_pdrop\": 0.1, \"resid_pdrop\": 0.2, \"embd_pdrop\": 0.3}");
    assert_true(c.attention_dropout == 0.1 && c.residual_dropout == 0.2 && c.embedding_dropout == 0.3);
    check_model(&c, "gpt2");
    c = parsed(
        "{\"model_type\": \"bert\", \"vocab_size\": 97, \"hidden_size\": 32, \"intermediate_size\": 48, "
        "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"max_position_embeddings\": 64, "
        "\"attention_probs_dropout_prob\": 0.2, \"hidden_dropout_prob\": 0.1}");
    assert_true(c.attention_dropout == 0.2 && c.residual_dropout == 0.1);
    check_model(&c, "bert");
    c = parsed(
        "{\"model_type\": \"distilbert\", \"vocab_size\": 97, \"dim\": 32, \"hidden_dim\": 48, \"n_layers\": "
        "2, "
        "\"n_heads\": 4, \"max_position_embeddings\": 64, \"attention_dropout\": 0.2, \"dropout\": 0.1}");
    check_model(&c, "distilbert");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(by_the_keys_of_each_family)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
