/* Total variation distance (Wen et al. 2023, "f-Divergence Minimization for Sequence-Level Knowledge
 * Distillation"): L = T (1/2) sum |p - q|; slope by log q: q sign(q - p) / 2, where p = q none. An
 * f-divergence. It is of first order in p - q, which shrinks as 1 / T and not as its square: so one T keeps
 * the gradient's size where the others have T^2. */
#include "trainer/loss/divergence.h"

#include <math.h>

static double points(const struct lb_points *x, const void *context, float *slope) {
    (void)context;
    const float *p = x->p, *q = x->q;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < x->n; i++) {
        float d = q[i] - p[i], half = d > 0 ? 0.5f : d < 0 ? -0.5f : 0;
        sum += half * d;
        slope[i] = half * q[i];
    }
    return (double)sum;
}

static double tvd(struct lb_row *row, const struct lb_target *t, const struct lb_loss_args *args, float scale,
                  float *dz) {
    (void)args;
    return lb_divergence_row(row, t, points, NULL, t->temperature, scale, dz);
}

const struct lb_loss lb_loss_tvd = {.name = "tvd",
                                    .on = LB_ON_TARGET,
                                    .kinds = LB_TARGET_DENSE | LB_TARGET_TRUNCATED,
                                    .parameters = "temperature, clamp",
                                    .row = tvd};
