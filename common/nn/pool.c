/* Sequences as one row each: their mean or their first row (Reimers and Gurevych 2019). */
#include "common/nn/ops.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define LEAST_LENGTH 1e-12

struct saved {
    enum lb_pool_kind kind;
    int64_t n_seqs;
    const int32_t *offsets; /* [n_seqs + 1] */
    double *length;         /* [n_seqs] that the row was divided by; NULL: none */
};

/* Rows of x that sequence s is made of. */
static int64_t rows_of(const struct saved *saved, int64_t s) {
    int64_t n = saved->offsets[s + 1] - saved->offsets[s];
    return saved->kind == LB_POOL_FIRST && n > 1 ? 1 : n;
}

static void pool_one(const struct saved *saved, int64_t s, const float *x, int64_t c, float *out) {
    int64_t n = rows_of(saved, s);
    double square = 0;
    for (int64_t j = 0; j < c; j++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) {
            sum += x[i * c + j];
        }
        out[j] = (float)(n > 0 ? sum / (double)n : 0);
        square += (double)out[j] * out[j];
    }
    if (saved->length != NULL) {
        saved->length[s] = fmax(sqrt(square), LEAST_LENGTH);
        for (int64_t j = 0; j < c; j++) {
            out[j] = (float)(out[j] / saved->length[s]);
        }
    }
}

/* Of y = u / |u|: du = (dy - y (y dy)) / |u|; each row of the mean takes du / n. */
static void pool_backward(struct lb_tape *tape, struct lb_node *node) {
    const struct saved *saved = node->extra;
    struct lb_value *x = node->in[0];
    int64_t c = x->cols;
    if (lb_grad_fresh(tape, x)) { /* rows that were not pooled have none */
        lb_copy_floats(x->grad, NULL, x->rows * c);
    }
    if (x->grad == NULL) {
        return;
    }
    for (int64_t s = 0; s < saved->n_seqs; s++) {
        const float *y = node->out->data + s * c, *dy = node->out->grad + s * c;
        int64_t n = rows_of(saved, s);
        double along = 0, factor = n > 0 ? 1.0 / (double)n : 0;
        if (saved->length != NULL) {
            factor /= saved->length[s];
            for (int64_t j = 0; j < c && saved->length[s] > LEAST_LENGTH; j++) {
                along += (double)y[j] * dy[j];
            }
        }
        for (int64_t i = saved->offsets[s]; i < saved->offsets[s] + n; i++) {
            for (int64_t j = 0; j < c; j++) {
                x->grad[i * c + j] += (float)(factor * (dy[j] - along * y[j]));
            }
        }
    }
}

struct lb_value *lb_pool(struct lb_tape *tape, struct lb_value *x, enum lb_pool_kind kind, bool normalize) {
    if (x == NULL) {
        return NULL;
    }
    const struct lb_ragged *ragged = lb_tape_ragged(tape);
    size_t n = (size_t)ragged->n_seqs;
    assert(kind != LB_POOL_NONE && x->rows == ragged->offsets[ragged->n_seqs]);
    struct lb_value *out = lb_tape_value(tape, ragged->n_seqs, x->cols);
    struct saved *saved = lb_tape_bytes(tape, sizeof *saved);
    double *length = lb_tape_bytes(tape, n * sizeof *length);
    int32_t *offsets = lb_tape_bytes(tape, (n + 1) * sizeof *offsets);
    if (out == NULL || saved == NULL || length == NULL || offsets == NULL) {
        return NULL;
    }
    memcpy(offsets, ragged->offsets, (n + 1) * sizeof *offsets);
    *saved = (struct saved){kind, ragged->n_seqs, offsets, normalize ? length : NULL};
#pragma omp parallel for schedule(static) if (x->rows * x->cols > 65536)
    for (int64_t s = 0; s < ragged->n_seqs; s++) {
        pool_one(saved, s, x->data + offsets[s] * x->cols, x->cols, out->data + s * x->cols);
    }
    struct lb_node *node = lb_tape_push(tape, pool_backward, out);
    if (node != NULL) {
        node->in[0] = x;
        node->extra = saved;
    }
    return lb_tape_status(tape) == LB_OK ? out : NULL;
}
