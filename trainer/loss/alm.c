/* Approximate likelihood matching (Minixhofer, Vulic, Ponti 2025, arXiv 2503.20083), for teachers of another
 * tokenizer: per chunk of text that both tokenizations hold whole, with the log-likelihoods t of the teacher
 * and s of the student (sums over its tokens), the cross entropy of two coins,
 *   L = -(e^t' s' + (1 - e^t') log(1 - e^s')),   t' = t / bce_temp - 1e-6,   s' = s / bce_temp - 1e-6,
 * which is least at s = t; dL/ds = ((1 - e^t') e^s' / (1 - e^s') - e^t') / bce_temp, for a large bce_temp
 * near (t / s - 1) / bce_temp. The 1e-6 keep the logarithm finite for sure tokens, as in the authors' code;
 * so do the values of 100 and of "binary_ce" there. */
#include "trainer/loss/loss.h"

#include <math.h>

#define EPSILON 1e-6

/* log(1 - e^x), x < 0 */
static double log_not(double x) {
    return x < -M_LN2 ? log1p(-exp(x)) : log(-expm1(x));
}

static double alm(double its, double own, const struct lb_loss_args *args, double *out_slope) {
    double t = fmin(its, 0) / args->bce_temp - EPSILON, s = fmin(own, 0) / args->bce_temp - EPSILON;
    double p = exp(t), not_p = -expm1(t);
    *out_slope = (not_p * exp(s) / -expm1(s) - p) / args->bce_temp;
    return -(p * s + not_p * log_not(s));
}

const struct lb_loss lb_loss_alm = {
    .name = "alm", .on = LB_ON_CHUNK, .parameters = "bce_temp", .defaults = {.bce_temp = 100}, .chunk = alm};
