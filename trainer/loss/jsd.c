/* Generalised Jensen-Shannon divergence (Agarwal et al. 2024, "On-policy Distillation of Language Models",
 * eq. 1, as TRL's GKDTrainer has it): with m = beta p + (1 - beta) q, L = T^2 [ beta KL(p || m) + (1 - beta)
 * KL(q || m) ],   0 < beta < 1, and at the ends, as there, KL(p || q) for beta = 0 and KL(q || p) for beta =
 * 1: these very losses. The expression itself goes to 0 there (as beta KL(p || q)), so the scale jumps: beta
 * 0.01 is a hundred times weaker than 0. Slope by log q: (1 - beta) q (log q - log m). An f-divergence. */
#include "trainer/loss/divergence.h"

static double points(const struct lb_points *x, const void *context, float *slope) {
    const float *p = x->p, *q = x->q;
    float of_p = (float)*(const double *)context, of_q = 1 - of_p, sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < x->n; i++) {
        float m = lb_least_p(of_p * p[i] + of_q * q[i]);
        float apart = (q[i] - p[i]) / m;
        slope[i] = of_q * q[i] * lb_log_above(of_p * apart); /* log(q / m) */
        sum += of_p * p[i] * lb_log_above(-of_q * apart) + slope[i];
    }
    return (double)sum;
}

static double jsd(struct lb_row *row, const struct lb_target *t, const struct lb_loss_args *args, float scale,
                  float *dz) {
    if (args->beta == 0) {
        return lb_forward_kl(row, t, args, scale, dz);
    }
    lb_divergence divergence = args->beta == 1 ? lb_reverse_kl_points : points;
    return lb_divergence_row(row, t, divergence, &args->beta, t->temperature * t->temperature, scale, dz);
}

static const char *wrong(const struct lb_loss_args *args, bool with_tail) {
    (void)with_tail;
    return args->beta > 1 ? "beta is of 0 (forward KL) to 1 (reverse KL)" : NULL;
}

const struct lb_loss lb_loss_jsd = {.name = "jsd",
                                    .on = LB_ON_TARGET,
                                    .kinds = LB_TARGET_DENSE | LB_TARGET_TRUNCATED,
                                    .parameters = "temperature, beta, clamp",
                                    .defaults = {.beta = 0.5},
                                    .wrong = wrong,
                                    .row = jsd};
