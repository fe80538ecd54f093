#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/model/model.h"
#include "common/nn/head.h"
#include "common/nn/tape.h"
#include "tests/support/tiny_model.h"

#include <stdlib.h>
#include <string.h>

#define N 9
#define V 97
#define LAYERS 2

/* dL/dz of some loss: anything that depends on row, column and logit. */
static enum lb_status some_gradient(void *context, int64_t row, int64_t n, float *z) {
    (void)context;
    for (int64_t i = 0; i < n * V; i++) {
        z[i] = 0.01f * z[i] + 0.001f * (float)((row * V + i) % 7);
    }
    return LB_OK;
}

struct backward {
    struct lb_model *model;
    struct lb_tape *tape;
    struct lb_tap taps[LAYERS + 1]; /* hidden_states */
};

/* Forward and backward of a model with those patterns frozen. */
static void run(struct backward *b, const char *const *patterns) {
    static const int32_t ids[N] = {5, 3, 90, 41, 7, 7, 1, 0, 96}, offsets[3] = {0, 5, N};
    static struct lb_input in;
    struct lb_config config;
    *b = (struct backward){.tape = lb_tape_create((size_t)64 << 20)};
    lb_tiny_llama(&config);
    config.tie_word_embeddings = false;
    assert_int_equal(lb_model_create(&config, 3, &b->model, NULL), LB_OK);
    for (; *patterns != NULL; patterns++) {
        assert_true(lb_model_freeze(b->model, *patterns) > 0);
    }
    in = (struct lb_input){.ragged = {2, offsets}, .ids = ids};
    for (int l = 0; l <= LAYERS; l++) {
        b->taps[l] = (struct lb_tap){LB_TAP_HIDDEN, l, NULL};
    }
    lb_tape_begin(b->tape, LB_TAPE_TRAIN, &in.ragged, NULL);
    struct lb_value *h = lb_model_forward(b->model, b->tape, &in, b->taps, LAYERS + 1, NULL);
    assert_int_equal(lb_head_run(b->tape, h, lb_model_head(b->model), NULL, some_gradient, NULL), LB_OK);
    assert_int_equal(lb_tape_backward(b->tape), LB_OK);
}

static void finish(struct backward *b) {
    lb_tape_destroy(b->tape);
    lb_model_destroy(b->model);
}

/* What still learns has the gradients it has when all does, to the last bit; what does not has none. */
static void expect_rest(const struct backward *all, const struct backward *some) {
    size_t n, frozen = 0;
    const struct lb_weight *want = lb_model_weights(all->model, &n),
                           *have = lb_model_weights(some->model, &n);
    for (size_t i = 0; i < n; i++) {
        size_t bytes = (size_t)(want[i].rows * want[i].cols) * sizeof(float);
        if (have[i].grad != NULL && memcmp(have[i].grad, want[i].grad, bytes) != 0) {
            fail_msg("%s has another gradient", have[i].name);
        }
        frozen += have[i].grad == NULL;
    }
    assert_true(frozen > 0);
    size_t floats;
    const float *grads = lb_model_grads(some->model, &floats);
    double sum = 0;
    for (size_t i = 0; i < n; i++) { /* nobody wrote where the frozen ones' would be */
        size_t at = (size_t)(want[i].grad - lb_model_grads(all->model, &floats));
        for (int64_t j = 0; have[i].grad == NULL && j < have[i].rows * have[i].cols; j++) {
            sum += grads[at + (size_t)j] != 0;
        }
    }
    assert_true(sum == 0);
}

static void below_the_first_that_learns_nothing_is_done(void **state) {
    (void)state;
    static const char *const none[] = {NULL},
                             *const lower[] = {"model.embed_tokens.*", "model.layers.0.*", NULL},
                             *const between[] = {"model.layers.1.*", NULL}, *const body[] = {"model.*", NULL},
                             *const norms[] = {"*norm*", "model.layers.?.self_attn.[qk]_proj.weight", NULL};
    struct backward all, b;
    run(&all, none);
    for (int l = 0; l <= LAYERS; l++) {
        assert_non_null(all.taps[l].value->grad);
    }
    run(&b, lower);
    expect_rest(&all, &b);
    assert_null(b.taps[0].value->grad); /* the embeddings' states */
    assert_true(lb_tape_is_constant(b.tape, b.taps[1].value));
    assert_non_null(b.taps[2].value->grad);
    finish(&b);
    run(&b, between); /* a gradient goes through what is frozen to what is not */
    expect_rest(&all, &b);
    for (int l = 0; l <= LAYERS; l++) {
        assert_non_null(b.taps[l].value->grad);
    }
    finish(&b);
    run(&b, body); /* the head alone */
    expect_rest(&all, &b);
    for (int l = 0; l <= LAYERS; l++) {
        assert_null(b.taps[l].value->grad);
    }
    finish(&b);
    run(&b, norms);
    expect_rest(&all, &b);
    assert_int_equal(lb_model_freeze(b.model, "model.layers.9.*"), 0);
    finish(&b);
    finish(&all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(below_the_first_that_learns_nothing_is_done)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
