/* Confidence-aware (Zhang et al. 2022, "Confidence-Aware Multi-teacher Knowledge Distillation", eq. 2): per
 * sequence (or token, which is the paper's sample), w_k = (1 - softmax_k(CE)) / (K - 1) with CE the labels'
 * cross entropy under teacher k, times the given weight, of the K teachers whose given weight is
 * not 0. One teacher: 1. */
#include "trainer/loss/mixture.h"

#include <math.h>

static void ca_mkd(const struct lb_weighing *in, double *w) {
    double least = INFINITY, unsure[LB_MAX_TEACHERS];
    for (unsigned k = 0; k < in->n; k++) {
        least = w[k] > 0 ? fmin(least, in->cross_entropy[k]) : least;
    }
    for (unsigned k = 0; k < in->n; k++) {
        unsure[k] = w[k] > 0 ? exp(in->cross_entropy[k] - least) : 0;
    }
    lb_weighing_by_share(in, unsure, w);
}

const struct lb_mixture lb_mixture_ca_mkd = {.name = "ca_mkd",
                                             .needs = LB_NEEDS_CROSS_ENTROPY,
                                             .per = LB_PER(LB_PER_SEQUENCE) | LB_PER(LB_PER_TOKEN),
                                             .of_states = true,
                                             .combine = LB_COMBINE_PROBS,
                                             .weigh = ca_mkd};
