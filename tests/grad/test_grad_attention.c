/* Gradients of attention over ragged batches: grouped heads, windows, gradients through the probabilities. */
#include "common/nn/ops.h"
#include "tests/support/gradcheck.h"
#include "tests/support/reference.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TOLERANCE 3e-5

struct shape {
    const char *name;
    int heads, kv_heads, dim, window;
    bool out, probs; /* which results have a gradient */
    bool twice;      /* called twice: gradients accumulate */
    float scale;     /* of q and k */
    int n_seqs;
    int32_t offsets[8];
    float softcap;
    bool both_ways;
    float dropout;
};

#define ALL_LENGTHS                                                                                          \
    6, {                                                                                                     \
        0, 1, 3, 8, 25, 95, 225                                                                              \
    }
#define MOST_LENGTHS                                                                                         \
    5, {                                                                                                     \
        0, 1, 3, 8, 25, 95                                                                                   \
    }
#define SHORT_LENGTHS                                                                                        \
    4, {                                                                                                     \
        0, 1, 3, 40, 57                                                                                      \
    }

static const struct shape shapes[] = {
    {"D 8", 2, 2, 8, 0, true, false, false, 1, MOST_LENGTHS},
    {"D 32, grouped", 4, 2, 32, 0, true, false, false, 1, ALL_LENGTHS},
    {"D 64", 1, 1, 64, 0, true, false, false, 1, MOST_LENGTHS},
    {"D 5, three heads on one", 3, 1, 5, 0, true, false, false, 1, MOST_LENGTHS},
    {"window 2", 2, 1, 8, 2, true, false, false, 1, SHORT_LENGTHS},
    {"window 20", 2, 2, 8, 20, true, false, false, 1, MOST_LENGTHS},
    {"window 64, twice", 4, 1, 12, 64, true, false, true, 1, ALL_LENGTHS},
    {"twice", 2, 1, 16, 0, true, false, true, 1, SHORT_LENGTHS},
    {"sharp", 2, 2, 8, 0, true, false, false, 4, SHORT_LENGTHS},
    {"out and probabilities", 4, 2, 8, 0, true, true, false, 1, SHORT_LENGTHS},
    {"probabilities only", 2, 1, 8, 0, false, true, false, 1, SHORT_LENGTHS},
    {"probabilities, window 7", 2, 2, 20, 7, false, true, true, 1, SHORT_LENGTHS},
    {"softcap", 4, 2, 8, 0, true, false, false, 3, MOST_LENGTHS, 2},
    {"softcap, probabilities, window 20", 2, 1, 12, 20, true, true, true, 2, SHORT_LENGTHS, 0.7f},
    {"both ways", 4, 2, 12, 0, true, false, true, 1, ALL_LENGTHS, 0, true},
    {"both ways, probabilities", 2, 2, 8, 0, true, true, false, 2, SHORT_LENGTHS, 0, true},
    {"both ways, probabilities only", 2, 1, 8, 0, false, true, true, 1, SHORT_LENGTHS, 1.5f, true},
    {"dropout", 4, 2, 12, 0, true, false, false, 1, ALL_LENGTHS, 0, false, 0.3f},
    {"dropout, probabilities, window 20", 2, 1, 12, 20, true, true, false, 1, SHORT_LENGTHS, 0.7f, false,
     0.5f},
    {"dropout, both ways", 2, 2, 8, 0, true, true, false, 1, SHORT_LENGTHS, 0, true, 0.2f},
};

struct context {
    struct reference_attention args;
    int64_t n_out; /* floats of out; those of probs follow */
};

static void forward(const void *context, double *const *in, double *out) {
    const struct context *c = context;
    reference_attention(&c->args, in[0], in[1], in[2], out, out + c->n_out);
}

/* What dropout makes of all probabilities: about as many as it should are dropped. */
static double *factors(const struct shape *shape, struct lb_rng rng, int64_t n_probs) {
    double *out = calloc((size_t)n_probs, sizeof *out), dropped = 0;
    uint64_t key = lb_rng_u64(&rng);
    assert_non_null(out);
    for (int64_t i = 0; i < n_probs; i++) {
        uint64_t draw = lb_mix64(key + (uint64_t)(i / 2) * 0x9E3779B97F4A7C15u);
        bool drop =
            (double)(i % 2 == 0 ? (uint32_t)draw : draw >> 32) < (double)shape->dropout * 4294967296.0;
        out[i] = drop ? 0 : 1 / (1 - (double)shape->dropout);
        dropped += drop;
    }
    assert_true(fabs(dropped / (double)n_probs - (double)shape->dropout) < 3 / sqrt((double)n_probs));
    return out;
}

static void check(const struct shape *shape) {
    struct lb_ragged ragged = {shape->n_seqs, shape->offsets};
    struct lb_tape *tape = lb_tape_create((size_t)256 << 20);
    struct lb_rng rng;
    lb_rng_seed(&rng, 3, 1);
    lb_tape_begin(tape, LB_TAPE_TRAIN, &ragged, &rng);
    int64_t n = shape->offsets[shape->n_seqs];
    struct lb_value *q = random_value(tape, &rng, n, shape->heads * shape->dim, 2 * shape->scale);
    struct lb_value *k = random_value(tape, &rng, n, shape->kv_heads * shape->dim, 2 * shape->scale);
    struct lb_value *v = random_value(tape, &rng, n, shape->kv_heads * shape->dim, 1);
    struct lb_attention_args args = {.heads = shape->heads,
                                     .kv_heads = shape->kv_heads,
                                     .head_dim = shape->dim,
                                     .window = shape->window,
                                     .both_ways = shape->both_ways,
                                     .scale = 1 / sqrtf((float)shape->dim),
                                     .softcap = shape->softcap,
                                     .dropout = shape->dropout,
                                     .want_probs = shape->probs};
    struct lb_value *outs[2] = {NULL}, *probs[2] = {NULL};
    const struct lb_rng before = rng;
    int calls = shape->twice ? 2 : 1;
    for (int i = 0; i < calls; i++) {
        outs[i] = lb_attention(tape, q, k, v, &args, &probs[i]);
        assert_non_null(outs[i]);
        assert_true(shape->probs == (probs[i] != NULL));
    }
    int64_t n_out = n * q->cols, n_probs = 0;
    for (int s = 0; s < shape->n_seqs; s++) {
        int64_t t = shape->offsets[s + 1] - shape->offsets[s];
        n_probs += shape->heads * t * t;
    }
    double *coefficient = calloc((size_t)(n_out + n_probs), sizeof *coefficient);
    assert_non_null(coefficient);
    for (int i = 0; i < calls; i++) {
        if (shape->out) {
            random_gradient(tape, &rng, outs[i], coefficient);
        }
        if (shape->probs) {
            assert_int_equal(probs[i]->rows * probs[i]->cols, n_probs);
            random_gradient(tape, &rng, probs[i], coefficient + n_out);
        }
    }
    assert_int_equal(lb_tape_backward(tape), LB_OK);
    assert_true(q->grad != NULL && k->grad != NULL && v->grad != NULL);
    double *factor = shape->dropout > 0 ? factors(shape, before, n_probs) : NULL;
    struct context context = {{shape->heads, shape->kv_heads, shape->dim, shape->window, (double)args.scale,
                               (double)args.softcap, &ragged, shape->both_ways, factor},
                              n_out};
    struct gradcheck_input in[] = {{"q", q->data, q->grad, n * q->cols},
                                   {"k", k->data, k->grad, n * k->cols},
                                   {"v", v->data, v->grad, n * v->cols}};
    double error = gradcheck(shape->name, forward, &context, in, 3, coefficient, n_out + n_probs);
    assert_true(error < TOLERANCE);
    free(coefficient);
    free(factor);
    lb_tape_destroy(tape);
}

static void test_shapes(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check(&shapes[i]);
    }
}

/* Nobody reads the results: nothing is written. */
static void test_no_gradient(void **state) {
    (void)state;
    static const int32_t offsets[] = {0, 9};
    struct lb_ragged ragged = {1, offsets};
    struct lb_rng rng;
    lb_rng_seed(&rng, 1, 1);
    struct lb_tape *tape = lb_tape_create((size_t)16 << 20);
    lb_tape_begin(tape, LB_TAPE_TRAIN, &ragged, &rng);
    struct lb_value *x = random_value(tape, &rng, 9, 16, 1), *probs = NULL;
    struct lb_attention_args args = {
        .heads = 2, .kv_heads = 2, .head_dim = 8, .scale = 1, .want_probs = true};
    assert_non_null(lb_attention(tape, x, x, x, &args, &probs));
    assert_int_equal(lb_tape_backward(tape), LB_OK);
    assert_null(x->grad);
    lb_tape_destroy(tape);
}

static void self_forward(const void *context, double *const *in, double *out) {
    reference_attention(context, in[0], in[0], in[0], out, NULL);
}

/* q, k and v one and the same value: three gradients add up in one place. */
static void test_self(void **state) {
    (void)state;
    static const int32_t offsets[] = {0, 4, 81};
    struct lb_ragged ragged = {2, offsets};
    struct lb_rng rng;
    lb_rng_seed(&rng, 1, 1);
    struct lb_tape *tape = lb_tape_create((size_t)16 << 20);
    lb_tape_begin(tape, LB_TAPE_TRAIN, &ragged, &rng);
    struct lb_value *x = random_value(tape, &rng, 81, 16, 1);
    struct lb_attention_args args = {.heads = 2, .kv_heads = 2, .head_dim = 8, .scale = 0.5f};
    struct lb_value *y = lb_attention(tape, x, x, x, &args, NULL);
    double coefficient[81 * 16] = {0};
    random_gradient(tape, &rng, y, coefficient);
    assert_int_equal(lb_tape_backward(tape), LB_OK);
    struct reference_attention reference = {2, 2, 8, 0, 0.5, 0, &ragged, false};
    struct gradcheck_input in = {"x", x->data, x->grad, 81 * 16};
    assert_true(gradcheck("q = k = v", self_forward, &reference, &in, 1, coefficient, 81 * 16) < TOLERANCE);
    lb_tape_destroy(tape);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shapes), cmocka_unit_test(test_no_gradient),
                                       cmocka_unit_test(test_self)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
