/* The alpha-beta divergence (Wang et al. 2025, "ABKD", eq. 4; Cichocki, Cruces, Amari 2011), with s = alpha +
 * beta:
 *   L = T^2 / (alpha beta) sum [ alpha / s p^s + beta / s q^s - p^alpha q^beta ],
 *   slope by log q: (q^s - p^alpha q^beta) / alpha;
 *
 * its limits where one is 0:
 *   alpha: sum [ q^beta log(q^beta / p^beta) - q^beta + p^beta ] / beta^2, slope q^beta log(q / p);
 *   beta: sum [ p^alpha log(p^alpha / q^alpha) - p^alpha + q^alpha ] / alpha^2,
 *   slope (q^alpha - p^alpha) / alpha;
 *   both: sum log(p / q)^2 / 2, slope log(q / p).
 *
 * (1, 0) is KL(p || q), (0, 1) KL(q || p), (1/2, 1/2) four times the squared Hellinger distance, (1, 1) half
 * the squared error; (0.2, 0.7) are the authors' for language models. An f-divergence, which a list with its
 * tail bounds from below, only where alpha + beta = 1. A p or q that a float can't hold counts as 1.2e-38. */
#include "trainer/loss/divergence.h"

#include <math.h>

#define LEAST 0.05 /* nearer to 0 floats lose the digits of differences divided by it */
#define MOST 2.0

static double general(const struct lb_points *x, const void *context, float *slope) {
    const struct lb_loss_args *args = context;
    const float *p = x->p, *q = x->q;
    float alpha = (float)args->alpha, beta = (float)args->beta, s = alpha + beta, sum = 0;
    float of_p = alpha / s, of_q = beta / s, inverse = 1 / alpha;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < x->n; i++) {
        float log_p = lb_logf(lb_least_p(p[i])), log_q = lb_logf(lb_least_p(q[i]));
        float both = lb_expf(alpha * log_p + beta * log_q), q_s = lb_expf(s * log_q);
        sum += of_p * lb_expf(s * log_p) + of_q * q_s - both;
        slope[i] = (q_s - both) * inverse;
    }
    return (double)sum / (args->alpha * args->beta);
}

static double no_alpha(const struct lb_points *x, const void *context, float *slope) {
    const struct lb_loss_args *args = context;
    const float *p = x->p, *q = x->q;
    float beta = (float)args->beta, sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < x->n; i++) {
        float log_p = lb_logf(lb_least_p(p[i])), log_q = lb_logf(lb_least_p(q[i]));
        float p_beta = lb_expf(beta * log_p), q_beta = lb_expf(beta * log_q);
        slope[i] = q_beta * (log_q - log_p);
        sum += beta * slope[i] - (q_beta - p_beta);
    }
    return (double)sum / (args->beta * args->beta);
}

static double no_beta(const struct lb_points *x, const void *context, float *slope) {
    const struct lb_loss_args *args = context;
    const float *p = x->p, *q = x->q;
    float alpha = (float)args->alpha, inverse = 1 / alpha, sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < x->n; i++) {
        float log_p = lb_logf(lb_least_p(p[i])), log_q = lb_logf(lb_least_p(q[i]));
        float p_alpha = lb_expf(alpha * log_p), q_alpha = lb_expf(alpha * log_q), d = q_alpha - p_alpha;
        slope[i] = d * inverse;
        sum += alpha * p_alpha * (log_p - log_q) + d;
    }
    return (double)sum / (args->alpha * args->alpha);
}

static double neither(const struct lb_points *x, const void *context, float *slope) {
    (void)context;
    const float *p = x->p, *q = x->q;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < x->n; i++) {
        float d = lb_logf(lb_least_p(q[i]) / lb_least_p(p[i]));
        slope[i] = d;
        sum += 0.5f * d * d;
    }
    return (double)sum;
}

static double abkd(struct lb_row *row, const struct lb_target *t, const struct lb_loss_args *args,
                   float scale, float *dz) {
    lb_divergence of[2][2] = {{neither, no_alpha}, {no_beta, general}};
    return lb_divergence_row(row, t, of[args->alpha > 0][args->beta > 0], args,
                             t->temperature * t->temperature, scale, dz);
}

static bool in_range(double x) {
    return x == 0 || (x >= LEAST && x <= MOST);
}

static const char *wrong(const struct lb_loss_args *args, bool with_tail) {
    if (!in_range(args->alpha) || !in_range(args->beta)) {
        return "alpha and beta are each 0, or of 0.05 to 2";
    }
    return with_tail && fabs(args->alpha + args->beta - 1) > 1e-9
               ? "alpha + beta is not 1, so lists with one bucket for the rest say nothing of the whole; "
                 "make it 1, or set loss_add_tail: false, or targets: final_hidden or logits"
               : NULL;
}

const struct lb_loss lb_loss_abkd = {.name = "abkd",
                                     .on = LB_ON_TARGET,
                                     .kinds = LB_TARGET_DENSE | LB_TARGET_TRUNCATED,
                                     .parameters = "temperature, alpha, beta, clamp",
                                     .defaults = {.alpha = 0.2, .beta = 0.7},
                                     .wrong = wrong,
                                     .row = abkd};
