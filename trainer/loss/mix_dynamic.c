/* A softmax over teachers (NeMo's dynamic weighting): L = sum_k w_k L(p_k, q), w_k = softmax_k(s_k / t) times
 * the given weight, s_k the recipe's mixture_by of teacher k at temperature 1: -CE of the labels, -entropy,
 * or the largest probability; t its mixture_temperature, 1 / alpha there. Towards 0 it selects, towards
 * infinity it is the given weights. */
#include "trainer/loss/mixture.h"

#include <math.h>

static void dynamic(const struct lb_weighing *in, double *w) {
    double best = -INFINITY;
    for (unsigned k = 0; k < in->n; k++) {
        best = in->present[k] && w[k] > 0 ? fmax(best, lb_weighing_score(in, k)) : best;
    }
    for (unsigned k = 0; k < in->n; k++) {
        w[k] *= w[k] > 0 ? exp((lb_weighing_score(in, k) - best) / in->temperature) : 0;
    }
}

const struct lb_mixture lb_mixture_dynamic = {.name = "dynamic",
                                              .by_choice = true,
                                              .softened = true,
                                              .per = LB_PER(LB_PER_SEQUENCE) | LB_PER(LB_PER_TOKEN),
                                              .combine = LB_COMBINE_LOSSES,
                                              .weigh = dynamic};
