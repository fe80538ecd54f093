/* Row-wise ops: values against the references, bits that depend neither on batch nor on threads, errors of
 * memory. */
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
#include <stdlib.h>
#include <string.h>

enum { N = 700, C = 72, V = 50 }; /* more than the sizes from which ops go parallel */

static int32_t ids[N], positions[N];
static struct lb_weight table, weight, bias;
static struct lb_rng rng;
static const int32_t offsets[] = {0, 200, N};
static const struct lb_ragged ragged = {2, offsets};

static int set_up(void **state) {
    (void)state;
    lb_rng_seed(&rng, 11, 0);
    table = random_weight(&rng, V, C, 0);
    weight = random_weight(&rng, 1, C, 1);
    bias = random_weight(&rng, 1, C, 0);
    for (int i = 0; i < N; i++) {
        ids[i] = (int32_t)lb_rng_below(&rng, V);
        positions[i] = i < 200 ? i : i - 200;
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    free_weight(&table);
    free_weight(&weight);
    free_weight(&bias);
    return 0;
}

static struct lb_tape *begin(enum lb_tape_mode mode, size_t max_bytes) {
    struct lb_tape *tape = lb_tape_create(max_bytes);
    assert_non_null(tape);
    lb_rng_seed(&rng, 12, 0);
    lb_tape_begin(tape, mode, &ragged, &rng);
    return tape;
}

/* The table of plain rotary positions, theta 10000. */
static const struct lb_rope_table *rope_table(struct lb_tape *tape, const int32_t *at, int64_t n,
                                              int64_t dims) {
    double frequency[C];
    lb_rope_frequencies(10000, dims, frequency);
    return lb_rope_table(
        tape,
        &(struct lb_rope_args){.positions = at, .n = n, .dims = dims, .frequency = frequency, .factor = 1});
}

/* Every op once. n rows from row `from`: positions and ids are the rows' own. */
static struct lb_value *every_op(struct lb_tape *tape, struct lb_value *x, int64_t from, int64_t n) {
    struct lb_value *e = lb_embedding(tape, &table, ids + from, n);
    struct lb_value *a = lb_rmsnorm(tape, lb_add(tape, e, x), &weight, 1e-6f);
    struct lb_value *b = lb_layernorm(tape, x, &weight, &bias, 1e-6f);
    const struct lb_rope_table *angles = rope_table(tape, positions + from, n, C / 3);
    struct lb_value *r = lb_rope(tape, lb_gelu(tape, a, false), 3, angles);
    struct lb_value *g = lb_swiglu(tape, lb_gelu(tape, b, true), r);
    g = lb_geglu(tape, lb_scale(tape, lb_rmsnorm_one(tape, g, &weight, 1e-6f), 0.5f), g);
    g = lb_add(tape, lb_columns(tape, g, 1, 0, C), g);
    return lb_add(tape, lb_relu(tape, b), g);
}

static void test_values(void **state) {
    (void)state;
    struct lb_tape *tape = begin(LB_TAPE_PLAIN, (size_t)64 << 20);
    struct lb_value *x = random_value(tape, &rng, N, C, 6);
    double *in = malloc(N * C * sizeof *in), *out = malloc(N * C * sizeof *out), w[C], b[C];
    assert_true(in != NULL && out != NULL);
    for (int i = 0; i < N * C; i++) {
        in[i] = (double)x->data[i];
    }
    for (int j = 0; j < C; j++) {
        w[j] = (double)weight.value[j];
        b[j] = (double)bias.value[j];
    }
    struct lb_value *y = lb_rmsnorm(tape, x, &weight, 1e-5f);
    reference_norm(in, w, NULL, N, C, 1e-5, false, out);
    for (int i = 0; i < N * C; i++) {
        assert_true(fabs((double)y->data[i] - out[i]) < 2e-6);
    }
    y = lb_layernorm(tape, x, &weight, &bias, 1e-5f);
    reference_norm(in, w, b, N, C, 1e-5, true, out);
    for (int i = 0; i < N * C; i++) {
        assert_true(fabs((double)y->data[i] - out[i]) < 2e-6);
    }
    struct lb_value *silu = lb_swiglu(tape, x, x), *erf_form = lb_gelu(tape, x, false),
                    *tanh_form = lb_gelu(tape, x, true), *relu = lb_relu(tape, x);
    for (int i = 0; i < N * C; i++) {
        assert_true(fabs((double)silu->data[i] - reference_silu(in[i]) * in[i]) < 1e-5);
        assert_true(fabs((double)erf_form->data[i] - reference_gelu(in[i], false)) < 1e-6);
        assert_true(fabs((double)tanh_form->data[i] - reference_gelu(in[i], true)) < 1e-6);
        assert_true((double)relu->data[i] == fmax(in[i], 0));
    }
    double frequency[C];
    lb_rope_frequencies(10000, C / 3, frequency);
    reference_rope(in, N, 3, C / 3, C / 6, positions, frequency, 1, out);
    struct lb_value *rotated = lb_rope(tape, x, 3, rope_table(tape, positions, N, C / 3));
    assert_ptr_equal(rotated, x);
    for (int i = 0; i < N * C; i++) {
        assert_true(fabs((double)x->data[i] - out[i]) < 2e-6);
    }
    assert_int_equal(lb_tape_status(tape), LB_OK);
    free(in);
    free(out);
    lb_tape_destroy(tape);
}

/* The left tail of gelu keeps its digits; far out it is exactly x or zero, never NaN. */
static void test_gelu_tail(void **state) {
    (void)state;
    struct lb_tape *tape = begin(LB_TAPE_PLAIN, (size_t)64 << 20);
    struct lb_value *x = lb_tape_value(tape, 1, 1400);
    for (int i = 0; i < 1400; i++) {
        x->data[i] = (float)(i - 1200) * 0.01f;
    }
    struct lb_value *y = lb_gelu(tape, x, false);
    for (int i = 0; i < 1400; i++) {
        double exact = reference_gelu((double)x->data[i], false);
        assert_true(fabs((double)y->data[i] - exact) <= 1e-5 * fabs(exact));
    }
    static const float far_out[] = {-1e30f, -100, 100, 1e30f};
    x = lb_tape_value(tape, 1, 4);
    memcpy(x->data, far_out, sizeof far_out);
    for (int form = 0; form < 2; form++) {
        y = lb_gelu(tape, x, form != 0);
        assert_true(fabsf(y->data[1]) < 1e-30f && y->data[2] == 100 && y->data[3] == 1e30f);
    }
    lb_tape_destroy(tape);
}

static void test_weight_formats(void **state) {
    (void)state;
    enum { COLS = 64 };
    static const enum lb_dtype dtypes[] = {LB_F32, LB_F16, LB_BF16, LB_Q8_0};
    struct lb_weight source = random_weight(&rng, V, COLS, 0);
    for (size_t k = 0; k < 4; k++) {
        struct lb_tape *tape = begin(LB_TAPE_PLAIN, (size_t)64 << 20);
        struct lb_weight stored = source, vector = source;
        size_t row_bytes;
        assert_true(lb_dtype_bytes(dtypes[k], COLS, &row_bytes));
        unsigned char *data = malloc(row_bytes * V + 1);
        float wide[V * COLS];
        assert_non_null(data);
        for (int r = 0; r < V; r++) { /* at an odd address, as in a file */
            lb_quantize(dtypes[k], source.value + r * COLS, data + 1 + (size_t)r * row_bytes, COLS);
            lb_dequantize(dtypes[k], data + 1 + (size_t)r * row_bytes, wide + r * COLS, COLS);
        }
        stored.data = data + 1;
        stored.dtype = dtypes[k];
        stored.value = stored.grad = NULL;
        struct lb_value *y = lb_embedding(tape, &stored, ids, N);
        for (int i = 0; i < N; i++) {
            assert_memory_equal(y->data + i * COLS, wide + ids[i] * COLS, COLS * sizeof(float));
        }
        stored.rows = vector.rows = 1;
        vector.data = vector.value = wide;
        struct lb_value *x = random_value(tape, &rng, N, COLS, 1);
        struct lb_value *narrow = lb_layernorm(tape, x, &stored, &stored, 1e-5f),
                        *full = lb_layernorm(tape, x, &vector, &vector, 1e-5f);
        assert_memory_equal(narrow->data, full->data, N * COLS * sizeof(float));
        free(data);
        lb_tape_destroy(tape);
    }
    free_weight(&source);
}

/* Each row by itself gives the bits that it has in the batch. */
static void test_rows_alone(void **state) {
    (void)state;
    struct lb_tape *tape = begin(LB_TAPE_PLAIN, (size_t)64 << 20),
                   *other = begin(LB_TAPE_PLAIN, (size_t)64 << 20);
    struct lb_value *x = random_value(tape, &rng, N, C, 3);
    float copy[N * C];
    memcpy(copy, x->data, sizeof copy);
    struct lb_value *all = every_op(tape, x, 0, N);
    static const struct {
        int64_t from, n;
    } parts[] = {{0, 1}, {17, 1}, {199, 2}, {200, 5}, {333, 17}, {699, 1}, {1, 698}};
    for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
        lb_tape_begin(other, LB_TAPE_PLAIN, &ragged, NULL);
        struct lb_value *part = lb_tape_value(other, parts[k].n, C);
        memcpy(part->data, copy + parts[k].from * C, (size_t)parts[k].n * C * sizeof(float));
        struct lb_value *y = every_op(other, part, parts[k].from, parts[k].n);
        assert_memory_equal(y->data, all->data + parts[k].from * C, (size_t)parts[k].n * C * sizeof(float));
    }
    lb_tape_destroy(tape);
    lb_tape_destroy(other);
}

/* Values and all gradients of every op and of dropout: the same bits with any number of threads. */
static void test_threads(void **state) {
    (void)state;
    static float y_data[N * C], x_grad[N * C], table_grad[V * C], w_grad[C], b_grad[C];
    static double coefficient[N * C];
    int threads_before = omp_get_max_threads();
    for (int threads = 1; threads <= 5; threads++) {
        omp_set_num_threads(threads);
        memset(table.grad, 0, V * C * sizeof(float));
        memset(weight.grad, 0, C * sizeof(float));
        memset(bias.grad, 0, C * sizeof(float));
        struct lb_tape *tape = begin(LB_TAPE_TRAIN, (size_t)64 << 20);
        struct lb_value *x = random_value(tape, &rng, N, C, 3);
        struct lb_value *y = lb_dropout(tape, every_op(tape, lb_dropout(tape, x, 0.1f), 0, N), 0.3f);
        random_gradient(tape, &rng, y, coefficient);
        assert_int_equal(lb_tape_backward(tape), LB_OK);
        if (threads == 1) {
            memcpy(y_data, y->data, sizeof y_data);
            memcpy(x_grad, x->grad, sizeof x_grad);
            memcpy(table_grad, table.grad, sizeof table_grad);
            memcpy(w_grad, weight.grad, sizeof w_grad);
            memcpy(b_grad, bias.grad, sizeof b_grad);
        }
        assert_memory_equal(y_data, y->data, sizeof y_data);
        assert_memory_equal(x_grad, x->grad, sizeof x_grad);
        assert_memory_equal(table_grad, table.grad, sizeof table_grad);
        assert_memory_equal(w_grad, weight.grad, sizeof w_grad);
        assert_memory_equal(b_grad, bias.grad, sizeof b_grad);
        lb_tape_destroy(tape);
    }
    omp_set_num_threads(threads_before);
}

static void test_plain_mode(void **state) {
    (void)state;
    struct lb_tape *tape = begin(LB_TAPE_PLAIN, (size_t)64 << 20);
    struct lb_value *a = random_value(tape, &rng, N, C, 1), *b = random_value(tape, &rng, N, C, 1);
    float first = a->data[5] + b->data[5];
    assert_ptr_equal(lb_add(tape, a, b), a);
    assert_true(a->data[5] == first);
    assert_ptr_equal(lb_dropout(tape, a, 0.5f), a);
    lb_tape_destroy(tape);
    tape = begin(LB_TAPE_TRAIN, (size_t)64 << 20);
    struct lb_rng before = rng;
    a = lb_tape_value(tape, N, C);
    assert_ptr_equal(lb_dropout(tape, a, 0), a);
    assert_memory_equal(&before, &rng, sizeof rng);
    for (int i = 0; i < N * C; i++) {
        a->data[i] = 1;
    }
    struct lb_value *gone = lb_dropout(tape, a, 1), *kept = lb_dropout(tape, a, 0.25f),
                    *again = lb_dropout(tape, a, 0.25f);
    int64_t n_kept = 0, n_same = 0;
    for (int i = 0; i < N * C; i++) {
        assert_true(gone->data[i] == 0);
        n_kept += kept->data[i] != 0;
        n_same += kept->data[i] == again->data[i];
    }
    assert_in_range(n_kept, N * C * 74 / 100, N * C * 76 / 100);
    assert_in_range(n_same, N * C * 61 / 100, N * C * 64 / 100); /* 0.75^2 + 0.25^2: two masks, not one */
    lb_tape_destroy(tape);
}

/* Whatever the limit: a result, or NULL and a status; never a crash. */
static void test_memory(void **state) {
    (void)state;
    enum { ROWS = 8 };
    bool succeeded = false, failed_late = false;
    for (size_t limit = 3000; limit < 120000; limit += 500) {
        struct lb_tape *tape = begin(LB_TAPE_TRAIN, limit);
        struct lb_value *x = lb_tape_value(tape, ROWS, C);
        if (x != NULL) {
            memset(x->data, 0, ROWS * C * sizeof(float));
        }
        struct lb_value *y = lb_dropout(tape, every_op(tape, x, 0, ROWS), 0.1f);
        assert_int_equal(lb_tape_status(tape), y == NULL ? LB_E_NOMEM : LB_OK);
        if (y != NULL && lb_grad_fresh(tape, y)) {
            memset(y->grad, 0, ROWS * C * sizeof(float));
            enum lb_status status = lb_tape_backward(tape);
            assert_true(status == LB_OK || status == LB_E_NOMEM);
            succeeded |= status == LB_OK;
            failed_late |= status == LB_E_NOMEM;
        }
        lb_tape_destroy(tape);
    }
    assert_true(succeeded && failed_late);
}

/* Work that is to stop ends with the op under way; the next begin starts anew. */
static void test_stop(void **state) {
    (void)state;
    volatile sig_atomic_t stop = 0;
    struct lb_tape *tape = begin(LB_TAPE_PLAIN, (size_t)1 << 26);
    lb_tape_stop_on(tape, &stop);
    struct lb_value *x = lb_embedding(tape, &table, ids, N);
    assert_non_null(x);
    assert_false(lb_tape_stopped(tape));
    stop = 1;
    assert_null(lb_rmsnorm(tape, x, &weight, 1e-6f));
    assert_null(lb_tape_bytes(tape, 1));
    assert_int_equal(lb_tape_status(tape), LB_E_CANCELLED);
    stop = 0;
    assert_int_equal(lb_tape_status(tape), LB_E_CANCELLED); /* sticky */
    lb_tape_begin(tape, LB_TAPE_PLAIN, &ragged, &rng);
    assert_non_null(lb_embedding(tape, &table, ids, N));
    lb_tape_destroy(tape);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),         cmocka_unit_test(test_gelu_tail),
        cmocka_unit_test(test_weight_formats), cmocka_unit_test(test_rows_alone),
        cmocka_unit_test(test_threads),        cmocka_unit_test(test_plain_mode),
        cmocka_unit_test(test_memory),         cmocka_unit_test(test_stop),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
