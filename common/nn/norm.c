#include "common/nn/ops.h"
#include "common/nn/simd.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* Rows whose contributions to a weight's gradient are added up together before the groups are, in order: the
 * grouping depends on N only, so the bits do not depend on threads. */
#define ROW_GROUP 64
#define PARALLEL_FROM 16384 /* elements */

struct saved {
    const float *w;
    const float *mean; /* [N], NULL for RMSNorm */
    const float *rstd; /* [N] 1 / sqrt(variance or mean square + eps) */
};

/* sum x in double. */
static double sum_of(const float *x, int64_t n) {
    lb_vd sum = {0};
    int64_t i = 0;
    for (; i + LB_LANES / 2 <= n; i += LB_LANES / 2) {
        sum += lb_vload_double(x + i);
    }
    double total = lb_vsum_double(sum);
    for (; i < n; i++) {
        total += x[i];
    }
    return total;
}

/* sum (x - shift)^2 in double. */
static double sum_of_squares(const float *x, int64_t n, double shift) {
    lb_vd sum_even = {0}, sum_odd = {0};
    int64_t i = 0;
    for (; i + LB_LANES <= n; i += LB_LANES) {
        lb_vd even = lb_vload_double(x + i) - shift, odd = lb_vload_double(x + i + LB_LANES / 2) - shift;
        sum_even += even * even;
        sum_odd += odd * odd;
    }
    double total = lb_vsum_double(sum_even + sum_odd);
    for (; i < n; i++) {
        total += (x[i] - shift) * (x[i] - shift);
    }
    return total;
}

/* What backward needs of a row: sums in double of dy w and of dy w xhat. */
static void gradient_sums(const float *x, const float *dy, const float *w, int64_t n, float mean, float rstd,
                          double *out_g, double *out_gx) {
    lb_vd g_low = {0}, g_high = {0}, gx_low = {0}, gx_high = {0};
    int64_t i = 0;
    for (; i + LB_LANES <= n; i += LB_LANES) {
        float g[LB_LANES], gx[LB_LANES];
        lb_vf v = lb_vload(dy + i) * lb_vload(w + i);
        lb_vstore(g, v);
        lb_vstore(gx, v * ((lb_vload(x + i) - mean) * rstd));
        g_low += lb_vload_double(g);
        g_high += lb_vload_double(g + LB_LANES / 2);
        gx_low += lb_vload_double(gx);
        gx_high += lb_vload_double(gx + LB_LANES / 2);
    }
    *out_g = lb_vsum_double(g_low + g_high);
    *out_gx = lb_vsum_double(gx_low + gx_high);
    for (; i < n; i++) {
        float v = dy[i] * w[i];
        *out_g += (double)v;
        *out_gx += (double)(v * ((x[i] - mean) * rstd));
    }
}

/* The weight, and what is added to it, as FP32: itself, or a copy in tape memory. */
static const float *as_floats(struct lb_tape *tape, const struct lb_weight *w, float more) {
    if (more == 0 && w->dtype == LB_F32 && (uintptr_t)w->data % sizeof(float) == 0) {
        return w->data;
    }
    float *copy = lb_tape_bytes(tape, (size_t)w->cols * sizeof *copy);
    if (copy != NULL) {
        lb_dequantize(w->dtype, w->data, copy, w->cols);
    }
    for (int64_t j = 0; copy != NULL && more != 0 && j < w->cols; j++) {
        copy[j] += more;
    }
    return copy;
}

/* dx of one row: rstd (g - mean(g) - xhat mean(g xhat)), g = dy w; RMSNorm has no mean(g) term. */
static void row_backward(const float *x, const float *dy, const float *w, int64_t c, float mean, float rstd,
                         bool centred, bool fresh, float *dx) {
    double g_sum, gx_sum;
    gradient_sums(x, dy, w, c, mean, rstd, &g_sum, &gx_sum);
    float g_mean = centred ? (float)(g_sum / (double)c) : 0;
    float gx_mean = (float)(gx_sum / (double)c);
#pragma omp simd
    for (int64_t j = 0; j < c; j++) {
        float xhat = (x[j] - mean) * rstd;
        float d = rstd * (dy[j] * w[j] - g_mean - xhat * gx_mean);
        dx[j] = fresh ? d : dx[j] + d;
    }
}

/* One row's part of the weight's and of the bias's gradient; NULL: not wanted. */
static void row_weights(const float *x, const float *dy, int64_t c, float mean, float rstd, float *dw,
                        float *db) {
    if (dw != NULL) {
#pragma omp simd
        for (int64_t j = 0; j < c; j++) {
            dw[j] += dy[j] * ((x[j] - mean) * rstd);
        }
    }
    if (db != NULL) {
#pragma omp simd
        for (int64_t j = 0; j < c; j++) {
            db[j] += dy[j];
        }
    }
}

/* grad[c] += the sum of the groups' [groups, stride] columns, in order. */
static void add_groups(const float *partial, int64_t groups, int64_t stride, int64_t c, float *grad) {
#pragma omp parallel for schedule(static) if (groups * c > PARALLEL_FROM)
    for (int64_t j = 0; j < c; j++) {
        double sum = 0;
        for (int64_t group = 0; group < groups; group++) {
            sum += (double)partial[group * stride + j];
        }
        grad[j] += (float)sum;
    }
}

static void norm_backward(struct lb_tape *tape, struct lb_node *node) {
    struct lb_value *x = node->in[0];
    const struct saved *saved = node->extra;
    int64_t c = node->weight[0]->cols, n = x->rows * x->cols / c, groups = (n + ROW_GROUP - 1) / ROW_GROUP;
    float *w_grad = node->weight[0]->grad,
          *bias_grad = node->weight[1] != NULL ? node->weight[1]->grad : NULL;
    int64_t stride = (w_grad != NULL ? c : 0) + (bias_grad != NULL ? c : 0);
    float *partial = lb_tape_bytes(tape, (size_t)(groups * stride) * sizeof *partial);
    bool fresh = lb_grad_fresh(tape, x);
    if (partial == NULL || x->grad == NULL) {
        return;
    }
#pragma omp parallel for schedule(static) if (n * c > PARALLEL_FROM)
    for (int64_t group = 0; group < groups; group++) {
        int64_t end = (group + 1) * ROW_GROUP < n ? (group + 1) * ROW_GROUP : n;
        float *sums = partial + group * stride;
        float *dw = w_grad != NULL ? sums : NULL, *db = bias_grad != NULL ? sums + stride - c : NULL;
        memset(sums, 0, (size_t)stride * sizeof *sums);
        for (int64_t i = group * ROW_GROUP; i < end; i++) {
            const float *row = x->data + i * c, *dy = node->out->grad + i * c;
            float mean = saved->mean != NULL ? saved->mean[i] : 0, rstd = saved->rstd[i];
            row_backward(row, dy, saved->w, c, mean, rstd, saved->mean != NULL, fresh, x->grad + i * c);
            row_weights(row, dy, c, mean, rstd, dw, db);
        }
    }
    if (w_grad != NULL) {
        add_groups(partial, groups, stride, c, w_grad);
    }
    if (bias_grad != NULL) {
        add_groups(partial + stride - c, groups, stride, c, bias_grad);
    }
}

/* All norms; bias NULL and centred false is RMSNorm; more: added to the weight. */
static struct lb_value *norm(struct lb_tape *tape, struct lb_value *x, const struct lb_weight *weight,
                             const struct lb_weight *bias, float eps, bool centred, float more) {
    if (x == NULL) {
        return NULL;
    }
    int64_t c = weight->cols, n = x->rows * x->cols / c;
    assert(weight->rows == 1 && x->cols % c == 0 && (bias == NULL || bias->rows * bias->cols == c));
    struct lb_value *out = lb_tape_value(tape, x->rows, x->cols);
    const float *w = as_floats(tape, weight, more), *b = bias != NULL ? as_floats(tape, bias, 0) : NULL;
    float *rstds = lb_tape_bytes(tape, (size_t)n * sizeof *rstds);
    float *means = centred ? lb_tape_bytes(tape, (size_t)n * sizeof *means) : NULL;
    if (out == NULL || w == NULL || (bias != NULL && b == NULL) || rstds == NULL ||
        (centred && means == NULL)) {
        return NULL;
    }
#pragma omp parallel for schedule(static) if (n * c > PARALLEL_FROM)
    for (int64_t i = 0; i < n; i++) {
        const float *row = x->data + i * c;
        float *y = out->data + i * c;
        double exact_mean = centred ? sum_of(row, c) / (double)c : 0;
        double variance = sum_of_squares(row, c, exact_mean) / (double)c;
        float mean = (float)exact_mean, rstd = (float)(1 / sqrt(variance + (double)eps));
#pragma omp simd
        for (int64_t j = 0; j < c; j++) {
            float scaled = (row[j] - mean) * rstd * w[j];
            y[j] = b != NULL ? scaled + b[j] : scaled;
        }
        rstds[i] = rstd;
        if (centred) {
            means[i] = mean;
        }
    }
    if (!lb_tape_records(tape)) {
        return out;
    }
    struct saved *saved = lb_tape_bytes(tape, sizeof *saved);
    struct lb_node *node = lb_tape_push(tape, norm_backward, out);
    if (saved == NULL || node == NULL) {
        return NULL;
    }
    *saved = (struct saved){w, means, rstds};
    node->in[0] = x;
    node->extra = saved;
    node->weight[0] = weight;
    node->weight[1] = bias;
    return out;
}

struct lb_value *lb_rmsnorm(struct lb_tape *tape, struct lb_value *x, const struct lb_weight *w, float eps) {
    return norm(tape, x, w, NULL, eps, false, 0);
}

struct lb_value *lb_rmsnorm_one(struct lb_tape *tape, struct lb_value *x, const struct lb_weight *w,
                                float eps) {
    return norm(tape, x, w, NULL, eps, false, 1);
}

struct lb_value *lb_layernorm(struct lb_tape *tape, struct lb_value *x, const struct lb_weight *w,
                              const struct lb_weight *bias, float eps) {
    return norm(tape, x, w, bias, eps, true, 0);
}
