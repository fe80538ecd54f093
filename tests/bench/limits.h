/* What this machine can do, measured in the same run as what is compared with it. */
#ifndef LB_TESTS_BENCH_LIMITS_H
#define LB_TESTS_BENCH_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#define LB_LIMIT_SHAPES 16

/* One product of a model: y [m, n] over k, so often in a pass. trans: as the weights lie ([n, k], forward),
 * or not ([k, n], gradients). */
struct lb_limit_shape {
    int64_t m, n, k;
    double times;
    bool trans;
};

struct lb_limits {
    struct lb_limit_shape shape[LB_LIMIT_SHAPES];
    int n_shapes;
    double fma_gflops;               /* best round: multiply-adds in registers, on all threads */
    double seconds[LB_LIMIT_SHAPES]; /* best round: plain cblas_sgemm, on one thread or on all */
};

/* One round of all; the best is kept. Interleave with what is measured, so that both meet the same weather.
 */
void lb_limits_round(struct lb_limits *limits);
/* GFLOP/s of plain sgemm over the shapes, each as often as it says. */
double lb_limits_blas_gflops(const struct lb_limits *limits);

#endif
