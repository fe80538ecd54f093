#include "common/nn/linear.h"

#include "common/nn/gemm.h"
#include "common/nn/ops.h"

#include <string.h>

/* Columns of a bias gradient summed by one thread. */
#define BIAS_BLOCK 64

void lb_linear_fill(float *y, int64_t n, int64_t o, const float *bias) {
#pragma omp parallel for schedule(static) if (n * o > 65536)
    for (int64_t i = 0; i < n; i++) {
        memcpy(y + i * o, bias, (size_t)o * sizeof(float));
    }
}

bool lb_linear_workspace(struct lb_tape *tape, const struct lb_weight *w, float **out) {
    size_t floats = (size_t)lb_gemm_weight_floats(w);
    *out = floats > 0 ? lb_tape_bytes(tape, floats * sizeof(float)) : NULL;
    return floats == 0 || *out != NULL;
}

bool lb_linear_bias(struct lb_tape *tape, const struct lb_weight *bias, const float **out) {
    *out = bias != NULL ? bias->data : NULL;
    if (bias == NULL || bias->dtype == LB_F32) {
        return true;
    }
    float *wide = lb_tape_bytes(tape, (size_t)bias->cols * sizeof *wide);
    if (wide != NULL) {
        lb_dequantize(bias->dtype, bias->data, wide, bias->cols);
    }
    *out = wide;
    return wide != NULL;
}

bool lb_linear_product(struct lb_tape *tape, const float *x, int64_t n, const struct lb_weight *w,
                       const struct lb_weight *bias, float *y, const struct lb_ragged *ragged) {
    const float *b;
    if (!lb_linear_bias(tape, bias, &b)) {
        return false;
    }
    if (b != NULL) {
        lb_linear_fill(y, n, w->rows, b);
    }
    struct lb_arena_mark mark = lb_tape_mark(tape);
    float *workspace;
    bool ok = lb_linear_workspace(tape, w, &workspace);
    if (ok) {
        lb_gemm_weight(x, n, w, b != NULL ? 1 : 0, y, ragged, workspace);
    }
    lb_tape_release(tape, mark);
    return ok;
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

/* Whether the node recorded before is a product with the same x: its part of dx is added in the same go. */
static bool goes_on(const struct lb_node *node, void (*backward)(struct lb_tape *, struct lb_node *)) {
    const struct lb_node *before = node->previous;
    return before != NULL && before->backward == backward && before->in[0] == node->in[0] &&
           before->out->grad != NULL;
}

/* dx = dy W (unless x is constant), dW += dy^T x, db += column sums of dy. */
static void linear_backward(struct lb_tape *tape, struct lb_node *node) {
    struct lb_gemm_list *list = lb_tape_products(tape);
    struct lb_value *x = node->in[0];
    const struct lb_weight *w = node->weight[0], *bias = node->weight[1];
    const float *dy = node->out->grad;
    int64_t n = x->rows, o = w->rows, c = w->cols;
    if (w->grad != NULL) {
        lb_gemm_add(list, &(struct lb_gemm_product){o, c, n, dy, o, x->data, c, w->grad, c, 1,
                                                    .trans_x = true, .waits = true});
    }
    if (bias != NULL && bias->grad != NULL) {
        lb_bias_backward(dy, n, o, bias->grad);
    }
    if (x->constant) {
        return;
    }
    float beta = lb_grad_fresh(tape, x) ? 0 : 1, *workspace;
    if (x->grad == NULL || !lb_linear_workspace(tape, w, &workspace)) {
        return;
    }
    if (w->dtype == LB_F32) {
        lb_gemm_add(list, &(struct lb_gemm_product){n, c, o, dy, o, w->data, c, x->grad, c, beta});
    } else {
        lb_gemm_run(list, false);
        lb_gemm_weight_back(dy, n, w, beta, x->grad, workspace);
    }
    if (!goes_on(node, linear_backward)) {
        lb_gemm_run(list, false);
    }
}

static bool record(struct lb_tape *tape, struct lb_value *x, const struct lb_weight *w,
                   const struct lb_weight *bias, struct lb_value *out) {
    struct lb_node *node = lb_tape_push(tape, linear_backward, out);
    if (node != NULL) {
        node->in[0] = x;
        node->weight[0] = w;
        node->weight[1] = bias;
    }
    return lb_tape_status(tape) == LB_OK;
}

bool lb_linears(struct lb_tape *tape, struct lb_value *x, int n, const struct lb_weight *const w[],
                const struct lb_weight *const bias[], struct lb_value *out[]) {
    const struct lb_ragged *ragged = lb_tape_records(tape) ? NULL : lb_tape_ragged(tape);
    struct lb_gemm_list list; /* large: only its n is set */
    list.n = 0;
    bool ok = x != NULL;
    for (int i = 0; i < n; i++) {
        const float *b;
        out[i] = ok ? lb_tape_value(tape, x->rows, w[i]->rows) : NULL;
        ok = out[i] != NULL && (w[i]->dtype != LB_F32 || lb_linear_bias(tape, bias[i], &b));
        if (ok && w[i]->dtype == LB_F32) {
            lb_gemm_add(&list, &(struct lb_gemm_product){x->rows, w[i]->rows, w[i]->cols, x->data, x->cols,
                                                         w[i]->data, w[i]->cols, out[i]->data, w[i]->rows,
                                                         b != NULL ? 1 : 0, .trans_w = true, .bias = b,
                                                         .ragged = ragged});
        }
    }
    lb_gemm_run(&list, true);
    for (int i = 0; ok && i < n; i++) {
        ok = (w[i]->dtype == LB_F32 ||
              lb_linear_product(tape, x->data, x->rows, w[i], bias[i], out[i]->data, ragged)) &&
             record(tape, x, w[i], bias[i], out[i]);
    }
    for (int i = 0; !ok && i < n; i++) {
        out[i] = NULL;
    }
    return ok;
}

struct lb_value *lb_linear(struct lb_tape *tape, struct lb_value *x, const struct lb_weight *w,
                           const struct lb_weight *bias) {
    struct lb_value *out;
    (void)lb_linears(tape, x, 1, &w, &bias, &out);
    return out;
}
