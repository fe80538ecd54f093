/* Products with weights as they are stored, shared by the linear op and the head. */
#ifndef LB_NN_LINEAR_H
#define LB_NN_LINEAR_H

#include "common/nn/tape.h"

/* What lb_gemm_weight and lb_gemm_weight_back need for w, in tape memory: *out is NULL where that is nothing.
 * False when tape memory runs out. */
bool lb_linear_workspace(struct lb_tape *tape, const struct lb_weight *w, float **out);

/* The vector in FP32: as stored, or widened into tape memory. *out is NULL for NULL. False when memory runs
 * out. */
bool lb_linear_bias(struct lb_tape *tape, const struct lb_weight *bias, const float **out);
/* Each of n rows of y [n, o] becomes bias [o]. */
void lb_linear_fill(float *y, int64_t n, int64_t o, const float *bias);

/* y [n, O] = x [n, C] W^T (+ bias). Weights in other formats than FP32 are widened by panels in tape memory,
 * each once for all n rows. ragged covers the n rows (NULL: rows need not be independent
 * of each other's place). False when tape memory runs out. */
bool lb_linear_product(struct lb_tape *tape, const float *x, int64_t n, const struct lb_weight *w,
                       const struct lb_weight *bias, float *y, const struct lb_ragged *ragged);

/* dbias[j] += sum_i dy[i, j], in an order that does not depend on threads. dy [n, o] */
void lb_bias_backward(const float *dy, int64_t n, int64_t o, float *dbias);

#endif
