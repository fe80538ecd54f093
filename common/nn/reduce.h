/* Reductions of rows of logits, in log space from the true maximum. V classes, K wanted. */
#ifndef LB_NN_REDUCE_H
#define LB_NN_REDUCE_H

#include <stdint.h>

/* log sum_j exp(z[j] / temperature); sums in double. */
double lb_logsumexp(const float *z, int64_t v, double temperature);
/* q[j] = exp(z[j] / temperature - lse) */
void lb_softmax(const float *z, int64_t v, double temperature, double lse, float *q);
/* The same with z / temperature and the difference in floats: what gradients take. */
void lb_softmax_single(const float *z, int64_t v, double temperature, double lse, float *q);
/* The k largest, value descending, ties by lower id; k <= v. NaN sorts last. */
void lb_topk(const float *z, int64_t v, int64_t k, int32_t *ids, float *values);
int64_t lb_argmax(const float *z, int64_t v);
/* Index of the first NaN or infinity, or -1. */
int64_t lb_first_nonfinite(const float *x, int64_t n);

#endif
