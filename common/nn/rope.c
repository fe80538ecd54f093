#include "common/nn/ops.h"

#include <assert.h>
#include <math.h>

#define PARALLEL_FROM 8192 /* elements */

/* Cosines and sines of angles: one row per position where positions repeat, else one per row of x. */
struct rope {
    int heads;
    int half;              /* D / 2 */
    const int32_t *row_of; /* [N] row of the tables; NULL: i */
    const float *cosines;  /* [rows, D / 2] */
    const float *sines;
};

/* x := x rotated by its angles, or by their opposite: the inverse, which is the gradient's way. */
static void rotate(const struct rope *rope, float *x, int64_t n, bool inverse) {
    int64_t half = rope->half, cols = 2 * half * rope->heads;
    float sign = inverse ? -1.0f : 1.0f;
#pragma omp parallel for schedule(static) if (n * cols > PARALLEL_FROM)
    for (int64_t i = 0; i < n; i++) {
        int64_t row = rope->row_of != NULL ? rope->row_of[i] : i;
        const float *cosine = rope->cosines + row * half, *sine = rope->sines + row * half;
        for (int h = 0; h < rope->heads; h++) {
            float *a = x + i * cols + h * 2 * half, *b = a + half;
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
    rotate(node->extra, node->out->grad, node->out->rows, true);
}

/* Angles in double: at position 100,000 a float has lost three digits of the turn. */
static void fill_row(float *cosine, float *sine, const double *frequency, int64_t half, int32_t position) {
    for (int64_t j = 0; j < half; j++) {
        double angle = position * frequency[j];
        cosine[j] = (float)cos(angle);
        sine[j] = (float)sin(angle);
    }
}

static struct rope *make_tables(struct lb_tape *tape, int64_t n, int heads, int64_t half,
                                const int32_t *positions, float theta) {
    int32_t low = 0, high = 0;
    for (int64_t i = 0; i < n; i++) {
        low = positions[i] < low ? positions[i] : low;
        high = positions[i] > high ? positions[i] : high;
    }
    bool shared = low >= 0 && high < n;
    int64_t rows = shared ? high + 1 : n;
    struct rope *rope = lb_tape_bytes(tape, sizeof *rope);
    double *frequency = lb_tape_bytes(tape, (size_t)half * sizeof *frequency);
    float *cosines = lb_tape_bytes(tape, (size_t)(rows * half) * sizeof *cosines);
    float *sines = lb_tape_bytes(tape, (size_t)(rows * half) * sizeof *sines);
    int32_t *row_of = shared ? lb_tape_bytes(tape, (size_t)n * sizeof *row_of) : NULL;
    if (rope == NULL || frequency == NULL || cosines == NULL || sines == NULL || (shared && row_of == NULL)) {
        return NULL;
    }
    for (int64_t j = 0; j < half; j++) {
        frequency[j] = pow((double)theta, -(double)j / (double)half);
    }
#pragma omp parallel for schedule(static) if (rows * half > PARALLEL_FROM / 8)
    for (int64_t r = 0; r < rows; r++) {
        fill_row(cosines + r * half, sines + r * half, frequency, half, shared ? (int32_t)r : positions[r]);
    }
    for (int64_t i = 0; shared && i < n; i++) {
        row_of[i] = positions[i];
    }
    *rope = (struct rope){heads, (int)half, row_of, cosines, sines};
    return rope;
}

struct lb_value *lb_rope(struct lb_tape *tape, struct lb_value *x, int heads, const int32_t *positions,
                         float theta) {
    if (x == NULL) {
        return NULL;
    }
    assert(heads > 0 && x->cols % (2 * (int64_t)heads) == 0);
    struct lb_arena_mark mark = lb_tape_mark(tape);
    struct rope *rope = make_tables(tape, x->rows, heads, x->cols / heads / 2, positions, theta);
    if (rope == NULL) {
        return NULL;
    }
    rotate(rope, x->data, x->rows, false);
    lb_tape_release(tape, mark);
    if (!lb_tape_records(tape)) {
        return x;
    }
    struct lb_node *node = lb_tape_push(tape, rope_backward, x);
    if (node == NULL) {
        return NULL;
    }
    node->in[0] = x;
    node->extra = rope;
    return x;
}
