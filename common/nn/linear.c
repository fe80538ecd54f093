#include "common/nn/linear.h"

#include "common/nn/gemm.h"
#include "common/nn/ops.h"

#include <string.h>

/* Most floats of one dequantised panel: 16 MiB. */
#define PANEL_FLOATS ((int64_t)4 << 20)
/* Columns of a bias gradient summed by one thread. */
#define BIAS_BLOCK 64

static void fill_rows(float *y, int64_t n, int64_t o, const float *bias) {
#pragma omp parallel for schedule(static) if (n * o > 65536)
    for (int64_t i = 0; i < n; i++) {
        memcpy(y + i * o, bias, (size_t)o * sizeof(float));
    }
}

static void dequantize_rows(const struct lb_weight *w, int64_t first, int64_t rows, float *out) {
    size_t row_bytes = 0;
    (void)lb_dtype_bytes(w->dtype, w->cols, &row_bytes); /* checked when the model was opened */
#pragma omp parallel for schedule(static) if (rows * w->cols > 65536)
    for (int64_t r = 0; r < rows; r++) {
        const char *src = (const char *)w->data + (size_t)(first + r) * row_bytes;
        lb_dequantize(w->dtype, src, out + r * w->cols, w->cols);
    }
}

bool lb_linear_product(struct lb_tape *tape, const float *x, int64_t n, const struct lb_weight *w,
                       const struct lb_weight *bias, float *y, const struct lb_ragged *ragged) {
    int64_t o = w->rows, c = w->cols;
    float beta = 0;
    if (bias != NULL) {
        const float *b = bias->data;
        if (bias->dtype != LB_F32) {
            float *wide = lb_tape_bytes(tape, (size_t)o * sizeof(float));
            if (wide == NULL) {
                return false;
            }
            lb_dequantize(bias->dtype, bias->data, wide, o);
            b = wide;
        }
        fill_rows(y, n, o, b);
        beta = 1;
    }
    if (w->dtype == LB_F32) {
        lb_gemm_nt(n, o, c, x, c, w->data, c, beta, y, o, ragged);
        return true;
    }
    int64_t rows = PANEL_FLOATS / c > 0 ? PANEL_FLOATS / c : 1;
    rows = rows < o ? rows : o;
    struct lb_arena_mark mark = lb_tape_mark(tape);
    float *panel = lb_tape_bytes(tape, (size_t)(rows * c) * sizeof(float));
    for (int64_t first = 0; panel != NULL && first < o; first += rows) {
        int64_t here = o - first < rows ? o - first : rows;
        dequantize_rows(w, first, here, panel);
        lb_gemm_nt(n, here, c, x, c, panel, c, beta, y + first, o, ragged);
    }
    lb_tape_release(tape, mark);
    return panel != NULL;
}

void lb_bias_backward(const float *dy, int64_t n, int64_t o, float *dbias) {
#pragma omp parallel for schedule(static) if (n * o > 65536)
    for (int64_t block = 0; block < (o + BIAS_BLOCK - 1) / BIAS_BLOCK; block++) {
        int64_t begin = block * BIAS_BLOCK, width = o - begin < BIAS_BLOCK ? o - begin : BIAS_BLOCK;
        double sum[BIAS_BLOCK] = {0};
        for (int64_t i = 0; i < n; i++) {
            const float *row = dy + i * o + begin;
            for (int64_t j = 0; j < width; j++) {
                sum[j] += row[j];
            }
        }
        for (int64_t j = 0; j < width; j++) {
            dbias[begin + j] += (float)sum[j];
        }
    }
}

/* dx = dy W (unless x is constant), dW += dy^T x, db += column sums of dy. */
static void linear_backward(struct lb_tape *tape, struct lb_node *node) {
    struct lb_value *x = node->in[0];
    const struct lb_weight *w = node->weight[0], *bias = node->weight[1];
    const float *dy = node->out->grad;
    int64_t n = x->rows, o = w->rows, c = w->cols;
    if (!x->constant) {
        bool fresh = lb_grad_fresh(tape, x);
        if (x->grad == NULL) {
            return;
        }
        lb_gemm_nn(n, c, o, dy, o, w->data, c, fresh ? 0 : 1, x->grad, c);
    }
    if (w->grad != NULL) {
        lb_gemm_tn(o, c, n, dy, o, x->data, c, 1, w->grad, c);
    }
    if (bias != NULL && bias->grad != NULL) {
        lb_bias_backward(dy, n, o, bias->grad);
    }
}

struct lb_value *lb_linear(struct lb_tape *tape, struct lb_value *x, const struct lb_weight *w,
                           const struct lb_weight *bias) {
    if (x == NULL) {
        return NULL;
    }
    struct lb_value *out = lb_tape_value(tape, x->rows, w->rows);
    const struct lb_ragged *ragged = lb_tape_records(tape) ? NULL : lb_tape_ragged(tape);
    if (out == NULL || !lb_linear_product(tape, x->data, x->rows, w, bias, out->data, ragged)) {
        return NULL;
    }
    struct lb_node *node = lb_tape_push(tape, linear_backward, out);
    if (node != NULL) {
        node->in[0] = x;
        node->weight[0] = w;
        node->weight[1] = bias;
    }
    return lb_tape_status(tape) == LB_OK ? out : NULL;
}
