/* What ops share of activation.c. Internal to common/nn. */
#ifndef LB_NN_ACTIVATION_H
#define LB_NN_ACTIVATION_H

#include <stdint.h>

/* y[n] = silu(g) u, on this thread; y may be g. */
void lb_swiglu_row(const float *g, const float *u, float *y, int64_t n);

#endif
