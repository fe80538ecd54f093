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
#include <omp.h>
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

enum unary { RELU, GELU, GELU_TANH, TANH };

static void unary_forward(const void *context, double *const *in, double *out) {
    const enum unary *op = context;
    for (int i = 0; i < N * C; i++) {
        double x = in[0][i];
        out[i] = *op == RELU ? fmax(x, 0) : *op == TANH ? tanh(x) : reference_gelu(x, *op == GELU_TANH);
    }
}

static void test_unary(void **state) {
    (void)state;
    static const char *const names[] = {"relu", "gelu", "gelu_tanh", "tanh"};
    for (enum unary op = RELU; op <= TANH; op++) {
        struct fixture f;
        begin(&f, N);
        struct lb_value *x = random_value(f.tape, &f.rng, N, C, 4), *y[2];
        for (int i = 0; i < 2; i++) {
            y[i] = op == RELU   ? lb_relu(f.tape, x)
                   : op == TANH ? lb_tanh(f.tape, x)
                                : lb_gelu(f.tape, x, op == GELU_TANH);
        }
        finish_forward(&f, y[0], y[1]);
        struct gradcheck_input in[] = {of_value("x", x)};
        assert_true(gradcheck(names[op], unary_forward, &op, in, 1, f.coefficient, N * C) < TOLERANCE);
        lb_tape_destroy(f.tape);
    }
}

struct gate_case {
    bool tanh_form; /* of gelu; else silu */
    bool same;      /* gate and up are one value */
};

static void gate_forward(const void *context, double *const *in, double *out) {
    const struct gate_case *g = context;
    for (int i = 0; i < N * C; i++) {
        double x = in[0][i];
        out[i] = (g->tanh_form ? reference_gelu(x, true) : reference_silu(x)) * in[g->same ? 0 : 1][i];
    }
}

static void test_gates(void **state) {
    (void)state;
    for (int k = 0; k < 4; k++) {
        struct fixture f;
        begin(&f, N);
        struct gate_case g = {k & 1, k & 2};
        struct lb_value *gate = random_value(f.tape, &f.rng, N, C, 4), *y[2];
        struct lb_value *up = g.same ? gate : random_value(f.tape, &f.rng, N, C, 2);
        for (int i = 0; i < 2; i++) {
            y[i] = g.tanh_form ? lb_geglu(f.tape, gate, up) : lb_swiglu(f.tape, gate, up);
        }
        finish_forward(&f, y[0], y[1]);
        struct gradcheck_input in[] = {of_value("gate", gate), of_value("up", up)};
        assert_true(gradcheck(g.tanh_form ? "geglu" : "swiglu", gate_forward, &g, in, g.same ? 1 : 2,
                              f.coefficient, N * C) < TOLERANCE);
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
    int64_t d, half;
    double factor;
    int32_t positions[N];
    double frequency[16];
};

static void rope_forward(const void *context, double *const *in, double *out) {
    const struct rope_case *r = context;
    double twice[MOST];
    for (int64_t i = 0; i < N * r->heads * r->d; i++) {
        twice[i] = 2 * in[0][i];
    }
    reference_rope(twice, N, r->heads, r->d, r->half, r->positions, r->frequency, r->factor, out);
}

/* Rotation is in place, so a sum stands before it; the second case has positions beyond N, the last two turn
 * parts of a head, by frequencies of their own and with a factor. */
static void test_rope(void **state) {
    (void)state;
    static const struct rope_case cases[] = {
        {3, 12, 6, 1, {0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8}, {0}},
        {1, 32, 16, 1, {1000, 1001, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, {0}},
        {2, 2, 1, 1, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12}, {0}},
        {2, 10, 2, 1, {0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8}, {0.5, 0.25}},
        {3, 6, 3, 1.25, {0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8}, {1, 0.3, 0.0625}},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct fixture f;
        begin(&f, N);
        struct rope_case r = cases[k];
        if (r.frequency[0] == 0) {
            lb_rope_frequencies(10000, 2 * r.half, r.frequency);
        }
        const struct lb_rope_table *table =
            lb_rope_table(f.tape, &(struct lb_rope_args){.positions = r.positions,
                                                         .n = N,
                                                         .dims = 2 * r.half,
                                                         .frequency = r.frequency,
                                                         .factor = (float)r.factor});
        struct lb_value *x = random_value(f.tape, &f.rng, N, r.heads * r.d, 1), *y[2];
        for (int i = 0; i < 2; i++) {
            struct lb_value *sum = lb_add(f.tape, x, x);
            y[i] = lb_rope(f.tape, sum, r.heads, table);
            assert_ptr_equal(y[i], sum);
        }
        finish_forward(&f, y[0], y[1]);
        struct gradcheck_input in[] = {of_value("x", x)};
        assert_true(gradcheck("rope", rope_forward, &r, in, 1, f.coefficient, x->rows * x->cols) < TOLERANCE);
        lb_tape_destroy(f.tape);
    }
}

/* Each row takes the set of frequencies that is named for it. */
static void test_rope_sets(void **state) {
    (void)state;
    static const double frequency[] = {1, 0.25, 0.5, 0.0625};
    static const int32_t positions[N] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12},
                         set[N] = {0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 1};
    struct fixture f;
    begin(&f, N);
    struct lb_rope_args args = {
        .positions = positions, .n = N, .dims = 4, .frequency = frequency, .factor = 1};
    struct lb_value *x = random_value(f.tape, &f.rng, N, 8, 1);
    struct lb_value *zero = lb_scale(f.tape, x, 0), *mixed = lb_add(f.tape, x, zero), *plain[2];
    for (int s = 0; s < 2; s++) {
        args.frequency = frequency + 2 * s;
        plain[s] = lb_rope(f.tape, lb_add(f.tape, x, zero), 2, lb_rope_table(f.tape, &args));
    }
    args.frequency = frequency;
    args.set = set;
    mixed = lb_rope(f.tape, mixed, 2, lb_rope_table(f.tape, &args));
    for (int i = 0; i < N; i++) {
        assert_memory_equal(mixed->data + i * 8, plain[set[i]]->data + i * 8, 8 * sizeof(float));
    }
    lb_tape_destroy(f.tape);
}

struct parts {
    int64_t n, c;
    bool one;
};

static void parts_forward(const void *context, double *const *in, double *out) {
    const struct parts *p = context;
    double w[MOST];
    for (int64_t j = 0; j < p->c; j++) {
        w[j] = in[1][j] + p->one;
    }
    reference_norm(in[0], w, NULL, p->n, p->c, 1e-5, false, out);
}

/* A weight narrower than the rows: each part of a row by itself; and weights that are stored less one. */
static void test_norm_parts(void **state) {
    (void)state;
    for (int k = 0; k < 4; k++) {
        struct fixture f;
        begin(&f, N);
        bool one = k & 1;
        int64_t heads = k & 2 ? 3 : 1, c = 20;
        struct lb_value *x = random_value(f.tape, &f.rng, N, heads * c, 2), *y[2];
        struct lb_weight w = random_weight(&f.rng, 1, c, one ? 0 : 1);
        for (int i = 0; i < 2; i++) {
            y[i] = one ? lb_rmsnorm_one(f.tape, x, &w, 1e-5f) : lb_rmsnorm(f.tape, x, &w, 1e-5f);
        }
        finish_forward(&f, y[0], y[1]);
        struct parts parts = {N * heads, c, one};
        struct gradcheck_input in[] = {of_value("x", x), of_weight("w", &w)};
        assert_true(gradcheck("rmsnorm of parts", parts_forward, &parts, in, 2, f.coefficient,
                              N * heads * c) < TOLERANCE);
        free_weight(&w);
        lb_tape_destroy(f.tape);
    }
}

static void columns_forward(const void *context, double *const *in, double *out) {
    const int64_t *c = context; /* groups, period, first, width */
    for (int64_t g = 0; g < N * c[0]; g++) {
        memcpy(out + g * c[3], in[0] + g * c[1] + c[2], (size_t)c[3] * sizeof *out);
    }
}

static void test_columns(void **state) {
    (void)state;
    static const int64_t cases[][4] = {{1, 30, 7, 11}, {3, 12, 4, 4}, {5, 6, 0, 6}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const int64_t *c = cases[k];
        struct fixture f;
        begin(&f, N);
        struct lb_value *x = random_value(f.tape, &f.rng, N, c[0] * c[1], 1);
        struct lb_value *first = lb_columns(f.tape, x, c[0], c[2], c[3]);
        finish_forward(&f, first, lb_columns(f.tape, x, c[0], c[2], c[3]));
        struct gradcheck_input in[] = {of_value("x", x)};
        assert_true(gradcheck("columns", columns_forward, c, in, 1, f.coefficient, N * c[0] * c[3]) <
                    TOLERANCE);
        lb_tape_destroy(f.tape);
    }
}

static const int32_t taken[] = {7, 0, 12, 7, 3};
#define N_TAKEN ((int)(sizeof taken / sizeof *taken))

static void rows_forward(const void *context, double *const *in, double *out) {
    (void)context;
    for (int i = 0; i < N_TAKEN; i++) {
        memcpy(out + (ptrdiff_t)i * C, in[0] + (ptrdiff_t)taken[i] * C, C * sizeof *out);
    }
}

/* One row is taken twice, most of them never. */
static void test_rows(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, N);
    struct lb_value *x = random_value(f.tape, &f.rng, N, C, 1);
    struct lb_value *first = lb_rows(f.tape, x, taken, N_TAKEN);
    finish_forward(&f, first, lb_rows(f.tape, x, taken, N_TAKEN));
    struct gradcheck_input in[] = {of_value("x", x)};
    assert_true(gradcheck("rows", rows_forward, NULL, in, 1, f.coefficient, N_TAKEN * C) < TOLERANCE);
    lb_tape_destroy(f.tape);
}

static void scale_forward(const void *context, double *const *in, double *out) {
    for (int i = 0; i < N * C; i++) {
        out[i] = *(const double *)context * in[0][i];
    }
}

static void test_scale(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, N);
    struct lb_value *x = random_value(f.tape, &f.rng, N, C, 1), *first = lb_scale(f.tape, x, -2.5f);
    finish_forward(&f, first, lb_scale(f.tape, x, -2.5f));
    const double factor = -2.5;
    struct gradcheck_input in[] = {of_value("x", x)};
    assert_true(gradcheck("scale", scale_forward, &factor, in, 1, f.coefficient, N * C) < TOLERANCE);
    assert_ptr_equal(lb_scale(f.tape, x, 1), x);
    lb_tape_destroy(f.tape);
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

/* ---- products that wait for each other ---- */

enum { BETWEEN = 29 };

static void chain_forward(const void *context, double *const *in, double *out) {
    (void)context;
    double between[N * BETWEEN];
    for (int i = 0; i < N * BETWEEN; i++) {
        between[i] = 0;
        for (int c = 0; c < C; c++) {
            between[i] += in[0][i / BETWEEN * C + c] * in[1][i % BETWEEN * C + c];
        }
    }
    for (int i = 0; i < N * C; i++) {
        out[i] = 0;
        for (int c = 0; c < BETWEEN; c++) {
            out[i] += between[i / C * BETWEEN + c] * in[2][i % C * BETWEEN + c];
        }
    }
}

/* A product of a product: the gradient between them is made before it is read, and nothing that waits is
 * forgotten. */
static void test_products(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, N);
    struct lb_value *x = random_value(f.tape, &f.rng, N, C, 1), *y[2];
    struct lb_weight a = random_weight(&f.rng, BETWEEN, C, 0), b = random_weight(&f.rng, C, BETWEEN, 0);
    for (int i = 0; i < 2; i++) {
        y[i] = lb_linear(f.tape, lb_linear(f.tape, x, &a, NULL), &b, NULL);
    }
    finish_forward(&f, y[0], y[1]);
    struct gradcheck_input in[] = {of_value("x", x), of_weight("a", &a), of_weight("b", &b)};
    assert_true(gradcheck("products", chain_forward, NULL, in, 3, f.coefficient, N * C) < TOLERANCE);
    free_weight(&a);
    free_weight(&b);
    lb_tape_destroy(f.tape);
}

/* A table that is a product's weight too: how long that product waits, which is as many threads have it,
 * shows in no bit. */
static void test_shared_table(void **state) {
    (void)state;
    enum { V = 600 };
    static float bits[2][V * C];
    int threads = omp_get_max_threads();
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        begin(&f, N);
        omp_set_num_threads(i == 0 ? 1 : 16);
        struct lb_weight table = random_weight(&f.rng, V, C, 0);
        struct lb_value *y = lb_linear(f.tape, lb_embedding(f.tape, &table, some_ids, N), &table, NULL);
        static double coefficient[N * V];
        random_gradient(f.tape, &f.rng, y, coefficient);
        assert_int_equal(lb_tape_backward(f.tape), LB_OK);
        memcpy(bits[i], table.grad, sizeof bits[i]);
        free_weight(&table);
        lb_tape_destroy(f.tape);
    }
    omp_set_num_threads(threads);
    assert_memory_equal(bits[0], bits[1], sizeof bits[0]);
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

/* The sequences of the fixture: the first third of the rows, and the others. */
struct pooling {
    enum lb_pool_kind kind;
    bool normalize;
};

static void pool_forward(const void *context, double *const *in, double *out) {
    const struct pooling *p = context;
    static const int64_t offsets[] = {0, N / 3, N};
    for (int s = 0; s < 2; s++, out += C) {
        int64_t rows = p->kind == LB_POOL_FIRST ? 1 : offsets[s + 1] - offsets[s];
        double square = 0;
        for (int64_t j = 0; j < C; j++) {
            out[j] = 0;
            for (int64_t i = offsets[s]; i < offsets[s] + rows; i++) {
                out[j] += in[0][i * C + j] / (double)rows;
            }
            square += out[j] * out[j];
        }
        for (int64_t j = 0; j < C && p->normalize; j++) {
            out[j] /= sqrt(square);
        }
    }
}

static void test_pool(void **state) {
    (void)state;
    for (int k = 0; k < 4; k++) {
        const struct pooling p = {k < 2 ? LB_POOL_MEAN : LB_POOL_FIRST, k % 2 == 1};
        struct fixture f;
        begin(&f, N);
        struct lb_value *x = random_value(f.tape, &f.rng, N, C, 2), *y[2];
        for (int i = 0; i < 2; i++) {
            y[i] = lb_pool(f.tape, x, p.kind, p.normalize);
        }
        finish_forward(&f, y[0], y[1]);
        struct gradcheck_input in = of_value("x", x);
        assert_true(gradcheck("pool", pool_forward, &p, &in, 1, f.coefficient, 2 * C) < TOLERANCE);
        lb_tape_destroy(f.tape);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool),         cmocka_unit_test(test_norms),
        cmocka_unit_test(test_frozen_norm),  cmocka_unit_test(test_norm_parts),
        cmocka_unit_test(test_unary),        cmocka_unit_test(test_gates),
        cmocka_unit_test(test_add),          cmocka_unit_test(test_scale),
        cmocka_unit_test(test_columns),      cmocka_unit_test(test_rows),
        cmocka_unit_test(test_rope),         cmocka_unit_test(test_rope_sets),
        cmocka_unit_test(test_embedding),    cmocka_unit_test(test_products),
        cmocka_unit_test(test_shared_table), cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_harness),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
