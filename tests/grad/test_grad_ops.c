/* Gradients of the row-wise ops. Every op is called twice on the same values, so that gradients are
 * overwritten once and accumulated once. */
#include "common/nn/ops.h"
#include "tests/support/gradcheck.h"
#include "tests/support/reference.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

enum { N = 13, C = 37, MOST = 4096 }; /* neither a whole number of vectors nor of blocks */
#define TOLERANCE 5e-6

struct fixture {
    struct lb_tape *tape;
    struct lb_rng rng;
    struct lb_ragged ragged;
    int32_t offsets[3];
    double coefficient[MOST];
};

static void begin(struct fixture *f, int64_t n) {
    memset(f, 0, sizeof *f);
    lb_rng_seed(&f->rng, 42, (uint64_t)n);
    f->offsets[1] = (int32_t)(n / 3);
    f->offsets[2] = (int32_t)n;
    f->ragged = (struct lb_ragged){2, f->offsets};
    f->tape = lb_tape_create((size_t)64 << 20);
    assert_non_null(f->tape);
    lb_tape_begin(f->tape, LB_TAPE_TRAIN, &f->ragged, &f->rng);
}

/* Gradients for both results, backward. */
static void finish_forward(struct fixture *f, struct lb_value *first, struct lb_value *second) {
    assert_non_null(first);
    assert_non_null(second);
    assert_true(first->rows * first->cols <= MOST);
    random_gradient(f->tape, &f->rng, first, f->coefficient);
    random_gradient(f->tape, &f->rng, second, f->coefficient);
    assert_int_equal(lb_tape_backward(f->tape), LB_OK);
}

static struct gradcheck_input of_value(const char *name, const struct lb_value *v) {
    assert_non_null(v->grad);
    return (struct gradcheck_input){name, v->data, v->grad, v->rows * v->cols};
}

static struct gradcheck_input of_weight(const char *name, const struct lb_weight *w) {
    return (struct gradcheck_input){name, w->value, w->grad, w->rows * w->cols};
}

static void rmsnorm_forward(const void *context, double *const *in, double *out) {
    const int64_t *shape = context;
    reference_norm(in[0], in[1], NULL, shape[0], shape[1], 1e-5, false, out);
}

static void layernorm_forward(const void *context, double *const *in, double *out) {
    const int64_t *shape = context;
    reference_norm(in[0], in[1], in[2], shape[0], shape[1], 1e-5, true, out);
}

static void test_norms(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{N, C}, {100, 40}, {1, 1}, {3, 8}, {130, 16}};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        int64_t n = shapes[k][0], c = shapes[k][1];
        for (int centred = 0; centred < 2; centred++) {
            if (centred && c == 1) {
                continue; /* always zero */
            }
            struct fixture f;
            begin(&f, n);
            struct lb_value *x = random_value(f.tape, &f.rng, n, c, 2);
            struct lb_weight w = random_weight(&f.rng, 1, c, 1), b = random_weight(&f.rng, 1, c, 0);
            struct lb_value *y[2];
            for (int i = 0; i < 2; i++) {
                y[i] = centred ? lb_layernorm(f.tape, x, &w, &b, 1e-5f) : lb_rmsnorm(f.tape, x, &w, 1e-5f);
            }
            finish_forward(&f, y[0], y[1]);
            struct gradcheck_input in[] = {of_value("x", x), of_weight("w", &w), of_weight("b", &b)};
            double error =
                gradcheck(centred ? "layernorm" : "rmsnorm", centred ? layernorm_forward : rmsnorm_forward,
                          shapes[k], in, centred ? 3 : 2, f.coefficient, n * c);
            /* a single feature leaves almost nothing of rmsnorm's gradient */
            assert_true(c == 1 ? error < 0.05 : error < TOLERANCE);
            free_weight(&w);
            free_weight(&b);
            lb_tape_destroy(f.tape);
        }
    }
}

/* A frozen weight or bias keeps no gradient, the others are as before. */
static void test_frozen_norm(void **state) {
    (void)state;
    float expected_w[C], expected_b[C], expected_x[N * C];
    for (int frozen = 0; frozen < 4; frozen++) {
        struct fixture f;
        begin(&f, N);
        struct lb_value *x = random_value(f.tape, &f.rng, N, C, 2);
        struct lb_weight w = random_weight(&f.rng, 1, C, 1), b = random_weight(&f.rng, 1, C, 0);
        struct lb_weight seen_w = w, seen_b = b;
        seen_w.grad = frozen & 1 ? NULL : w.grad;
        seen_b.grad = frozen & 2 ? NULL : b.grad;
        struct lb_value *y = lb_layernorm(f.tape, x, &seen_w, &seen_b, 1e-5f);
        random_gradient(f.tape, &f.rng, y, f.coefficient);
        assert_int_equal(lb_tape_backward(f.tape), LB_OK);
        if (frozen == 0) {
            memcpy(expected_w, w.grad, sizeof expected_w);
            memcpy(expected_b, b.grad, sizeof expected_b);
            memcpy(expected_x, x->grad, sizeof expected_x);
        }
        static const float zeros[C];
        assert_memory_equal(w.grad, frozen & 1 ? zeros : expected_w, sizeof expected_w);
        assert_memory_equal(b.grad, frozen & 2 ? zeros : expected_b, sizeof expected_b);
        assert_memory_equal(x->grad, expected_x, sizeof expected_x);
        free_weight(&w);
        free_weight(&b);
        lb_tape_destroy(f.tape);
    }
}

enum unary { RELU, GELU, GELU_TANH };

static void unary_forward(const void *context, double *const *in, double *out) {
    const enum unary *op = context;
    for (int i = 0; i < N * C; i++) {
        double x = in[0][i];
        out[i] = *op == RELU ? fmax(x, 0) : reference_gelu(x, *op == GELU_TANH);
    }
}

static void test_unary(void **state) {
    (void)state;
    static const char *const names[] = {"relu", "gelu", "gelu_tanh"};
    for (enum unary op = RELU; op <= GELU_TANH; op++) {
        struct fixture f;
        begin(&f, N);
        struct lb_value *x = random_value(f.tape, &f.rng, N, C, 4), *y[2];
        for (int i = 0; i < 2; i++) {
            y[i] = op == RELU ? lb_relu(f.tape, x) : lb_gelu(f.tape, x, op == GELU_TANH);
        }
        finish_forward(&f, y[0], y[1]);
        struct gradcheck_input in[] = {of_value("x", x)};
        assert_true(gradcheck(names[op], unary_forward, &op, in, 1, f.coefficient, N * C) < TOLERANCE);
        lb_tape_destroy(f.tape);
    }
}

static void swiglu_forward(const void *context, double *const *in, double *out) {
    const bool *same = context;
    for (int i = 0; i < N * C; i++) {
        out[i] = reference_silu(in[0][i]) * in[*same ? 0 : 1][i];
    }
}

static void test_swiglu(void **state) {
    (void)state;
    for (int same = 0; same < 2; same++) {
        struct fixture f;
        begin(&f, N);
        struct lb_value *gate = random_value(f.tape, &f.rng, N, C, 4);
        struct lb_value *up = same ? gate : random_value(f.tape, &f.rng, N, C, 2);
        struct lb_value *first = lb_swiglu(f.tape, gate, up);
        finish_forward(&f, first, lb_swiglu(f.tape, gate, up));
        struct gradcheck_input in[] = {of_value("gate", gate), of_value("up", up)};
        bool context = same != 0;
        double error = gradcheck(same ? "swiglu(x, x)" : "swiglu", swiglu_forward, &context, in, same ? 1 : 2,
                                 f.coefficient, N * C);
        assert_true(error < TOLERANCE);
        lb_tape_destroy(f.tape);
    }
}

static void add_forward(const void *context, double *const *in, double *out) {
    (void)context;
    for (int i = 0; i < N * C; i++) {
        out[i] = in[0][i] + 2 * in[1][i]; /* (a + b) + b */
    }
}

static void test_add(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, N);
    struct lb_value *a = random_value(f.tape, &f.rng, N, C, 1), *b = random_value(f.tape, &f.rng, N, C, 1);
    struct lb_value *y[2];
    for (int i = 0; i < 2; i++) {
        y[i] = lb_add(f.tape, lb_add(f.tape, a, b), b);
    }
    assert_ptr_not_equal(y[0], a);
    finish_forward(&f, y[0], y[1]);
    struct gradcheck_input in[] = {of_value("a", a), of_value("b", b)};
    assert_true(gradcheck("add", add_forward, NULL, in, 2, f.coefficient, N * C) < TOLERANCE);
    lb_tape_destroy(f.tape);
}

struct rope_case {
    int heads;
    int64_t d;
    int32_t positions[N];
};

static void rope_forward(const void *context, double *const *in, double *out) {
    const struct rope_case *r = context;
    double twice[MOST];
    for (int64_t i = 0; i < N * r->heads * r->d; i++) {
        twice[i] = 2 * in[0][i];
    }
    reference_rope(twice, N, r->heads, r->d, r->positions, 10000, out);
}

/* Rotation is in place, so a sum stands before it; the second case has positions beyond N. */
static void test_rope(void **state) {
    (void)state;
    static const struct rope_case cases[] = {
        {3, 12, {0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8}},
        {1, 32, {1000, 1001, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
        {2, 2, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12}},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct fixture f;
        begin(&f, N);
        const struct rope_case *r = &cases[k];
        struct lb_value *x = random_value(f.tape, &f.rng, N, r->heads * r->d, 1), *y[2];
        for (int i = 0; i < 2; i++) {
            struct lb_value *sum = lb_add(f.tape, x, x);
            y[i] = lb_rope(f.tape, sum, r->heads, r->positions, 10000);
            assert_ptr_equal(y[i], sum);
        }
        finish_forward(&f, y[0], y[1]);
        struct gradcheck_input in[] = {of_value("x", x)};
        assert_true(gradcheck("rope", rope_forward, r, in, 1, f.coefficient, x->rows * x->cols) < TOLERANCE);
        lb_tape_destroy(f.tape);
    }
}

static const int32_t some_ids[N] = {3, 0, 3, 3, 6, 1, 0, 5, 3, 6, 6, 2, 0}; /* 4 never, 3 often */

static void embedding_forward(const void *context, double *const *in, double *out) {
    (void)context;
    for (int i = 0; i < N; i++) {
        memcpy(out + i * C, in[0] + some_ids[i] * C, C * sizeof *out);
    }
}

static void test_embedding(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, N);
    struct lb_weight table = random_weight(&f.rng, 7, C, 0);
    struct lb_value *first = lb_embedding(f.tape, &table, some_ids, N);
    finish_forward(&f, first, lb_embedding(f.tape, &table, some_ids, N));
    struct gradcheck_input in[] = {of_weight("table", &table)};
    assert_true(gradcheck("embedding", embedding_forward, NULL, in, 1, f.coefficient, N * C) < TOLERANCE);
    free_weight(&table);
    lb_tape_destroy(f.tape);
}

/* The mask is what the output shows: an element times 0 or 1 / (1 - p). */
static void dropout_forward(const void *context, double *const *in, double *out) {
    const double *factor = context;
    for (int i = 0; i < N * C; i++) {
        out[i] = in[0][i] * factor[i];
    }
}

static void test_dropout(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, N);
    struct lb_value *x = random_value(f.tape, &f.rng, N, C, 1), *y = lb_dropout(f.tape, x, 0.4f);
    double factor[N * C];
    int dropped = 0;
    for (int i = 0; i < N * C; i++) {
        factor[i] = y->data[i] == 0 ? 0 : 1 / (1 - (double)0.4f);
        dropped += y->data[i] == 0;
        assert_float_equal(y->data[i], x->data[i] * (float)factor[i], 1e-6);
    }
    assert_in_range(dropped, N * C * 3 / 10, N * C * 5 / 10);
    struct lb_value *sum = lb_add(f.tape, x, y); /* so that dropout's gradient is added to another's */
    random_gradient(f.tape, &f.rng, sum, f.coefficient);
    assert_int_equal(lb_tape_backward(f.tape), LB_OK);
    for (int i = 0; i < N * C; i++) {
        factor[i] += 1;
    }
    struct gradcheck_input in[] = {of_value("x", x)};
    assert_true(gradcheck("x + dropout(x)", dropout_forward, factor, in, 1, f.coefficient, N * C) <
                TOLERANCE);
    lb_tape_destroy(f.tape);
}

/* The harness must notice one wrong element in a hundred, a wrong sign, and a wrong scale. */
static void test_harness(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, N);
    enum unary op = GELU;
    struct lb_value *x = random_value(f.tape, &f.rng, N, C, 4), *y = lb_gelu(f.tape, x, false);
    random_gradient(f.tape, &f.rng, y, f.coefficient);
    assert_int_equal(lb_tape_backward(f.tape), LB_OK);
    float right[N * C], wrong[N * C];
    memcpy(right, x->grad, sizeof right);
    struct gradcheck_input in = {"x", x->data, wrong, N * C};
    for (int fault = 0; fault < 3; fault++) {
        for (int i = 0; i < N * C; i++) {
            wrong[i] = fault == 0 && i % 100 == 50 ? right[i] + 1
                       : fault == 1                ? -right[i]
                                                   : right[i] * 1.001f;
        }
        if (fault == 2) {
            assert_true(gradcheck("gelu * 1.001", unary_forward, &op, &in, 1, f.coefficient, N * C) > 5e-4);
        } else {
            assert_true(gradcheck("wrong on purpose", unary_forward, &op, &in, 1, f.coefficient, N * C) >
                        1e-2);
        }
    }
    lb_tape_destroy(f.tape);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms),     cmocka_unit_test(test_frozen_norm), cmocka_unit_test(test_unary),
        cmocka_unit_test(test_swiglu),    cmocka_unit_test(test_add),         cmocka_unit_test(test_rope),
        cmocka_unit_test(test_embedding), cmocka_unit_test(test_dropout),     cmocka_unit_test(test_harness),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
