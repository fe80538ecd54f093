/* The one teacher that is surest by the recipe's mixture_by (at temperature 1: least CE of the labels, least
 * entropy, or largest probability), the first of equal ones; of those whose given weight is not 0. */
#include "trainer/loss/mixture.h"

static void selected(const struct lb_weighing *in, double *w) {
    unsigned best = in->n;
    for (unsigned k = 0; k < in->n; k++) {
        bool better = best == in->n || lb_weighing_score(in, k) > lb_weighing_score(in, best);
        best = w[k] > 0 && better ? k : best;
    }
    for (unsigned k = 0; k < in->n; k++) {
        w[k] = k == best ? 1 : 0;
    }
}

const struct lb_mixture lb_mixture_select = {.name = "select",
                                             .by_choice = true,
                                             .per = LB_PER(LB_PER_SEQUENCE) | LB_PER(LB_PER_TOKEN),
                                             .combine = LB_COMBINE_LOSSES,
                                             .weigh = selected};
