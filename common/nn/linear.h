/* Products with weights as they are stored, shared by the linear op and the head. */
#ifndef LB_NN_LINEAR_H
#define LB_NN_LINEAR_H

#include "common/nn/tape.h"

/* y [n, O] = x [n, C] W^T (+ bias). Weights in other formats than FP32 are dequantised by panels of output
 * columns into tape memory, once for all n rows. ragged covers the n rows (NULL: rows need not be independent
 * of each other's place). False when tape memory runs out. */
bool lb_linear_product(struct lb_tape *tape, const float *x, int64_t n, const struct lb_weight *w,
                       const struct lb_weight *bias, float *y, const struct lb_ragged *ragged);

/* dbias[j] += sum_i dy[i, j], in an order that does not depend on threads. dy [n, o] */
void lb_bias_backward(const float *dy, int64_t n, int64_t o, float *dbias);

#endif
