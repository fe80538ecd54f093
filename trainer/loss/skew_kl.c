/* Skew KL and skew reverse KL (Ko et al. 2024, "DistiLLM", section 3.1), alpha 0.1 as there:
 *   skew_kl: T^2 KL(p || m), m = alpha p + (1 - alpha) q,
 *   slope by log q: -(1 - alpha) p q / m, or q less, (1 - alpha)^2 q (q - p) / m;
 *
 *   skew_reverse_kl: T^2 KL(q || m), m = (1 - alpha) p + alpha q,
 *   slope: q (log(q / m) + 1 - alpha q / m), or q less, q (log(q / m) - alpha (1 - alpha) (q - p) / m).
 *
 * m has some of both, so that neither logarithm runs away where one of the two is near 0. alpha 0 is KL(p ||
 * q) and KL(q || p). f-divergences. */
#include "trainer/loss/divergence.h"

static double forward(const struct lb_points *x, const void *context, float *slope) {
    const float *p = x->p, *q = x->q;
    float of_p = (float)*(const double *)context, of_q = 1 - of_p, sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < x->n; i++) {
        float m = lb_least_p(of_p * p[i] + of_q * q[i]);
        float apart = (q[i] - p[i]) / m;
        slope[i] = of_q * of_q * q[i] * apart;
        sum += p[i] * lb_log_above(-of_q * apart); /* log(p / m) */
    }
    return (double)sum;
}

static double reverse(const struct lb_points *x, const void *context, float *slope) {
    const float *p = x->p, *q = x->q;
    float of_q = (float)*(const double *)context, of_p = 1 - of_q, sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < x->n; i++) {
        float m = lb_least_p(of_p * p[i] + of_q * q[i]);
        float apart = (q[i] - p[i]) / m, d = lb_log_above(of_p * apart); /* log(q / m) */
        slope[i] = q[i] * (d - of_q * of_p * apart);
        sum += q[i] * d;
    }
    return (double)sum;
}

static double skew_kl(struct lb_row *row, const struct lb_target *t, const struct lb_loss_args *args,
                      float scale, float *dz) {
    return args->alpha == 0
               ? lb_forward_kl(row, t, args, scale, dz)
               : lb_divergence_row(row, t, forward, &args->alpha, t->temperature * t->temperature, scale, dz);
}

static double skew_reverse_kl(struct lb_row *row, const struct lb_target *t, const struct lb_loss_args *args,
                              float scale, float *dz) {
    lb_divergence divergence = args->alpha == 0 ? lb_reverse_kl_points : reverse;
    return lb_divergence_row(row, t, divergence, &args->alpha, t->temperature * t->temperature, scale, dz);
}

static const char *wrong(const struct lb_loss_args *args, bool with_tail) {
    (void)with_tail;
    return args->alpha < 1 ? NULL : "alpha is of 0 to less than 1, where nothing is left to compare";
}

const struct lb_loss lb_loss_skew_kl = {.name = "skew_kl",
                                        .on = LB_ON_TARGET,
                                        .kinds = LB_TARGET_DENSE | LB_TARGET_TRUNCATED,
                                        .parameters = "temperature, alpha, clamp",
                                        .defaults = {.alpha = 0.1},
                                        .wrong = wrong,
                                        .row = skew_kl};
const struct lb_loss lb_loss_skew_reverse_kl = {.name = "skew_reverse_kl",
                                                .on = LB_ON_TARGET,
                                                .kinds = LB_TARGET_DENSE | LB_TARGET_TRUNCATED,
                                                .parameters = "temperature, alpha, clamp",
                                                .defaults = {.alpha = 0.1},
                                                .wrong = wrong,
                                                .row = skew_reverse_kl};
