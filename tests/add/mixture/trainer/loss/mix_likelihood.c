/* Each teacher by the likelihood that it gives the labels: per sequence, w_k exp(-CE_k), CE in nats per
 * position. */
#include "trainer/loss/mixture.h"

#include <math.h>

static void likelihood(const struct lb_weighing *in, double *w) {
    double least = INFINITY;
    for (unsigned k = 0; k < in->n; k++) {
        least = in->present[k] ? fmin(least, in->cross_entropy[k]) : least;
    }
    for (unsigned k = 0; k < in->n; k++) {
        w[k] *= in->present[k] ? exp(least - in->cross_entropy[k]) : 0;
    }
}

const struct lb_mixture lb_mixture_likelihood = {
    .name = "likelihood", .needs = LB_NEEDS_CROSS_ENTROPY, .combine = LB_COMBINE_PROBS, .weigh = likelihood};
