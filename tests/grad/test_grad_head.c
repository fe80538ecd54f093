/* Gradients through the output head: its product, bias, scale and soft-cap. */
#include "common/nn/head.h"
#include "tests/support/gradcheck.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

enum { N = 70, C = 19, V = 37 };
#define TOLERANCE 1e-5

struct fixture {
    struct lb_head head;
    struct lb_rng rng;
    double coefficient[N * V]; /* the loss is the sum of coefficient times logit */
};

/* logits [N, V] of states in[0] [N, C], weight in[1] [V, C], bias in[2] [V], in double */
static void forward(const void *context, double *const *in, double *out) {
    const struct fixture *f = context;
    double scale = (double)f->head.shape.scale, cap = (double)f->head.shape.softcap;
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < V; j++) {
            double z = in[2][j];
            for (int c = 0; c < C; c++) {
                z += in[0][i * C + c] * in[1][j * C + c];
            }
            z *= scale;
            out[i * V + j] = cap > 0 ? cap * tanh(z / cap) : z;
        }
    }
}

static enum lb_status gradient(void *context, int64_t row, int64_t n, float *z) {
    struct fixture *f = context;
    for (int64_t i = 0; i < n * V; i++) {
        float d = 2 * lb_rng_float(&f->rng) - 1;
        f->coefficient[row * V + i] = (double)d;
        z[i] = d;
    }
    return LB_OK;
}

static void through_the_shape(void **state) {
    (void)state;
    static const struct lb_head_shape shapes[] = {{1, 0}, {0.125f, 0}, {1, 2}, {0.5f, 3}};
    for (int t = 0; t < 4; t++) {
        struct fixture f = {.head.shape = shapes[t]};
        int32_t offsets[] = {0, 30, N};
        struct lb_ragged ragged = {2, offsets};
        struct lb_tape *tape = lb_tape_create((size_t)8 << 20);
        assert_non_null(tape);
        lb_rng_seed(&f.rng, 5, (uint64_t)t);
        lb_tape_begin(tape, LB_TAPE_TRAIN, &ragged, &f.rng);
        struct lb_value *h = random_value(tape, &f.rng, N, C, 2);
        struct lb_weight w = random_weight(&f.rng, V, C, 0), b = random_weight(&f.rng, 1, V, 0);
        f.head.weight = &w;
        f.head.bias = &b;
        assert_int_equal(lb_head_run(tape, h, &f.head, NULL, gradient, &f), LB_OK);
        assert_int_equal(lb_tape_backward(tape), LB_OK);
        struct gradcheck_input in[] = {
            {"h", h->data, h->grad, N * C}, {"w", w.value, w.grad, V * C}, {"bias", b.value, b.grad, V}};
        assert_true(gradcheck("head", forward, &f, in, 3, f.coefficient, N * V) < TOLERANCE);
        free_weight(&w);
        free_weight(&b);
        lb_tape_destroy(tape);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(through_the_shape)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
