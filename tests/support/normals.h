#ifndef LB_TESTS_SUPPORT_NORMALS_H
#define LB_TESTS_SUPPORT_NORMALS_H

#include "common/base/rng.h"

/* out [n]: normally distributed about 0. */
static inline void lb_normals(struct lb_rng *rng, float *out, int64_t n, double scale) {
    for (int64_t i = 0; i < n; i++) {
        out[i] = (float)(scale * lb_rng_normal(rng));
    }
}

#endif
