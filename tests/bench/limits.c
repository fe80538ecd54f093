#include "tests/bench/limits.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/nn/simd.h"

#include <cblas.h>
#include <omp.h>
#include <stdlib.h>

#define FMA_STEPS 4000000
/* Chains that do not wait for each other: enough for two units of four cycles on every CPU here, few enough
 * for 16 registers. */
#define CHAINS 12

static double fma_once(void) {
    int threads = omp_get_max_threads();
    uint64_t start = lb_now_ns();
    float kept = 0;
#pragma omp parallel num_threads(threads) reduction(+ : kept)
    {
        lb_vf sum[CHAINS], a = lb_vset(0.999999f), b = lb_vset(1e-6f);
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) {
            sum[c] = lb_vset((float)c);
        }
        for (int i = 0; i < FMA_STEPS; i++) {
#pragma GCC unroll 12
            for (int c = 0; c < CHAINS; c++) {
                sum[c] = lb_vfma(sum[c], a, b);
            }
        }
        float out[LB_LANES];
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) {
            lb_vstore(out, sum[c]);
            kept += out[0];
        }
    }
    double seconds = (double)(lb_now_ns() - start) / 1e9;
    volatile float used = kept;
    (void)used;
    return 2.0 * LB_LANES * CHAINS * FMA_STEPS * threads / seconds / 1e9;
}

/* Seconds of one plain product on so many threads. */
static double sgemm_once(const struct lb_limit_shape *s, const float *x, const float *w, float *y,
                         int threads) {
    openblas_set_num_threads(threads);
    uint64_t start = lb_now_ns();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, s->trans ? CblasTrans : CblasNoTrans, (int)s->m, (int)s->n,
                (int)s->k, 1, x, (int)s->k, w, (int)(s->trans ? s->k : s->n), 0, y, (int)s->n);
    double seconds = (double)(lb_now_ns() - start) / 1e9;
    return seconds;
}

static void shape_once(struct lb_limits *limits, int i) {
    const struct lb_limit_shape *s = &limits->shape[i];
    int all = omp_get_max_threads();
    float *x = lb_malloc_aligned((size_t)(s->m * s->k) * 4),
          *w = lb_malloc_aligned((size_t)(s->n * s->k) * 4);
    float *y = lb_malloc_aligned((size_t)(s->m * s->n) * 4);
    if (x == NULL || w == NULL || y == NULL) {
        exit(1);
    }
    for (int64_t j = 0; j < s->m * s->k; j++) {
        x[j] = (float)(j % 7) - 3;
    }
    for (int64_t j = 0; j < s->n * s->k; j++) {
        w[j] = (float)(j % 5) - 2;
    }
    for (int r = 0; r < 4; r++) { /* the first of each touches its pages */
        double seconds = sgemm_once(s, x, w, y, r < 2 ? 1 : all);
        if (limits->seconds[i] == 0 || seconds < limits->seconds[i]) {
            limits->seconds[i] = seconds;
        }
    }
    openblas_set_num_threads(1); /* as lb_gemm wants it */
    omp_set_num_threads(all);    /* the OpenMP build of OpenBLAS lowers it for the whole thread */
    lb_free(x);
    lb_free(w);
    lb_free(y);
}

void lb_limits_round(struct lb_limits *limits) {
    double fma = fma_once();
    limits->fma_gflops = fma > limits->fma_gflops ? fma : limits->fma_gflops;
    for (int i = 0; i < limits->n_shapes; i++) {
        shape_once(limits, i);
    }
}

double lb_limits_blas_gflops(const struct lb_limits *limits) {
    double flops = 0, seconds = 0;
    for (int i = 0; i < limits->n_shapes; i++) {
        const struct lb_limit_shape *s = &limits->shape[i];
        flops += s->times * 2.0 * (double)s->m * (double)s->n * (double)s->k;
        seconds += s->times * limits->seconds[i];
    }
    return flops / seconds / 1e9;
}
