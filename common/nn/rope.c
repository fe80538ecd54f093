#include "common/nn/ops.h"

#include <assert.h>
#include <math.h>

#define PARALLEL_FROM 8192 /* elements */

/* Cosines and sines of angles: one row per position where positions repeat, else one per row of x. */
struct lb_rope_table {
    int64_t half;          /* R / 2 */
    const int32_t *row_of; /* [N] row of the tables; NULL: i */
    const float *cosines;  /* [rows, R / 2] */
    const float *sines;
};

struct rope {
    const struct lb_rope_table *table;
    int heads;
};

/* x := x rotated by its angles, or by their opposite: transposed, which is the gradient's way. */
static void rotate(const struct rope *rope, float *x, int64_t n, int64_t cols, bool inverse) {
    const struct lb_rope_table *t = rope->table;
    int64_t half = t->half, dim = cols / rope->heads;
    float sign = inverse ? -1.0f : 1.0f;
#pragma omp parallel for schedule(static) if (n * cols > PARALLEL_FROM)
    for (int64_t i = 0; i < n; i++) {
        int64_t row = t->row_of != NULL ? t->row_of[i] : i;
        const float *cosine = t->cosines + row * half, *sine = t->sines + row * half;
        for (int h = 0; h < rope->heads; h++) {
            float *a = x + i * cols + h * dim, *b = a + half;
#pragma omp simd
            for (int64_t j = 0; j < half; j++) {
                float s = sign * sine[j], old_a = a[j], old_b = b[j];
                a[j] = old_a * cosine[j] - old_b * s;
                b[j] = old_b * cosine[j] + old_a * s;
            }
        }
    }
}

static void rope_backward(struct lb_tape *tape, struct lb_node *node) {
    (void)tape;
    rotate(node->extra, node->out->grad, node->out->rows, node->out->cols, true);
}

/* Angles in double: at position 100,000 a float has lost three digits of the turn. */
static void fill_row(const struct lb_rope_args *args, float *cosine, float *sine, const double *frequency,
                     int32_t position) {
    for (int64_t j = 0; j < args->dims / 2; j++) {
        double angle = position * frequency[j];
        cosine[j] = (float)cos(angle) * args->factor;
        sine[j] = (float)sin(angle) * args->factor;
    }
}

void lb_rope_frequencies(double theta, int64_t dims, double *out) {
    int64_t half = dims / 2;
    for (int64_t j = 0; j < half; j++) {
        out[j] = pow(theta, -(double)j / (double)half);
    }
}

const struct lb_rope_table *lb_rope_table(struct lb_tape *tape, const struct lb_rope_args *args) {
    int64_t n = args->n, half = args->dims / 2;
    int32_t low = 0, high = 0;
    assert(args->dims % 2 == 0);
    for (int64_t i = 0; i < n; i++) {
        low = args->positions[i] < low ? args->positions[i] : low;
        high = args->positions[i] > high ? args->positions[i] : high;
    }
    bool shared = args->set == NULL && low >= 0 && high < n;
    int64_t rows = shared ? high + 1 : n;
    struct lb_rope_table *table = lb_tape_bytes(tape, sizeof *table);
    float *cosines = lb_tape_bytes(tape, (size_t)(rows * half) * sizeof *cosines);
    float *sines = lb_tape_bytes(tape, (size_t)(rows * half) * sizeof *sines);
    int32_t *row_of = shared ? lb_tape_bytes(tape, (size_t)n * sizeof *row_of) : NULL;
    if (table == NULL || cosines == NULL || sines == NULL || (shared && row_of == NULL)) {
        return NULL;
    }
#pragma omp parallel for schedule(static) if (rows * half > PARALLEL_FROM / 8)
    for (int64_t r = 0; r < rows; r++) {
        const double *frequency = args->frequency + (args->set != NULL ? args->set[r] * half : 0);
        fill_row(args, cosines + r * half, sines + r * half, frequency,
                 shared ? (int32_t)r : args->positions[r]);
    }
    for (int64_t i = 0; shared && i < n; i++) {
        row_of[i] = args->positions[i];
    }
    *table = (struct lb_rope_table){half, row_of, cosines, sines};
    return table;
}

struct lb_value *lb_rope(struct lb_tape *tape, struct lb_value *x, int heads,
                         const struct lb_rope_table *table) {
    if (x == NULL || table == NULL) {
        return NULL;
    }
    assert(heads > 0 && x->cols % heads == 0 && 2 * table->half <= x->cols / heads);
    rotate(&(struct rope){table, heads}, x->data, x->rows, x->cols, false);
    if (!lb_tape_records(tape)) {
        return x;
    }
    struct rope *rope = lb_tape_bytes(tape, sizeof *rope);
    struct lb_node *node = lb_tape_push(tape, rope_backward, x);
    if (rope == NULL || node == NULL) {
        return NULL;
    }
    *rope = (struct rope){table, heads};
    node->in[0] = x;
    node->extra = rope;
    return x;
}
