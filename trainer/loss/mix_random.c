/* One teacher at random for each sequence (or micro-batch), k with its share of the given weights; on average
 * the mean of losses by these weights, for the price of one teacher: no others are asked. */
#include "trainer/loss/mixture.h"

static void drawn(const struct lb_weighing *in, double *w) {
    double sum = 0, below = 0;
    unsigned last = in->n;
    for (unsigned k = 0; k < in->n; k++) {
        sum += w[k];
    }
    for (unsigned k = 0; k < in->n && below <= in->draw * sum; k++) {
        below += w[k];
        last = w[k] > 0 ? k : last;
    }
    for (unsigned k = 0; k < in->n; k++) {
        w[k] = k == last ? 1 : 0;
    }
}

const struct lb_mixture lb_mixture_random = {.name = "random",
                                             .needs = LB_NEEDS_DRAW,
                                             .per = LB_PER(LB_PER_SEQUENCE) | LB_PER(LB_PER_BATCH),
                                             .combine = LB_COMBINE_LOSSES,
                                             .weigh = drawn};
