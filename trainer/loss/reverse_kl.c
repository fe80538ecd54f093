/* Reverse KL, T^2 KL(q || p) = T^2 sum q (log q - log p): token by token what MiniLLM (Gu et al. 2024) and
 * on-policy distillation (Agarwal et al. 2024) minimise. (MiniLLM itself is a policy gradient of sequences.)
 * Slope by log q: q (log q - log p) and q, which cancels, so dL/dz = T q (log q - log p - KL(q || p)). An
 * f-divergence: with a tail bucket at most the whole's. A p that a float can't hold counts as 1.2e-38. */
#include "trainer/loss/divergence.h"

double lb_reverse_kl_points(const struct lb_points *x, const void *context, float *slope) {
    (void)context;
    const float *p = x->p, *q = x->q;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < x->n; i++) {
        float d = lb_logf(lb_least_p(q[i]) / lb_least_p(p[i]));
        slope[i] = q[i] * d;
        sum += slope[i];
    }
    return (double)sum;
}

static double reverse_kl(struct lb_row *row, const struct lb_target *t, const struct lb_loss_args *args,
                         float scale, float *dz) {
    (void)args;
    return lb_divergence_row(row, t, lb_reverse_kl_points, NULL, t->temperature * t->temperature, scale, dz);
}

const struct lb_loss lb_loss_reverse_kl = {.name = "reverse_kl",
                                           .on = LB_ON_TARGET,
                                           .kinds = LB_TARGET_DENSE | LB_TARGET_TRUNCATED,
                                           .parameters = "temperature, clamp",
                                           .row = reverse_kl};
