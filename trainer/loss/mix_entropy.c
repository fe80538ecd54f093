/* By entropy (EBKD: Kwon et al. 2020, "Adaptive Knowledge Distillation Based on Entropy"; as CA-MKD's authors
 * compare with it): L = sum_k w_k L(p_k, q), w_k = (1 - H_k / sum_j H_j) / (K - 1), H_k the entropy of
 * softmax(z_k) at temperature 1, times the given weight. The division by K - 1 makes the weights sum to 1;
 * the paper's sum to that, and its loss grows with the number of teachers. One teacher, and such as are all
 * sure of everything: evenly. */
#include "trainer/loss/mixture.h"

static void entropy(const struct lb_weighing *in, double *w) {
    lb_weighing_by_share(in, in->entropy, w);
}

const struct lb_mixture lb_mixture_entropy = {.name = "entropy",
                                              .needs = LB_NEEDS_ENTROPY,
                                              .per = LB_PER(LB_PER_SEQUENCE) | LB_PER(LB_PER_TOKEN),
                                              .combine = LB_COMBINE_LOSSES,
                                              .weigh = entropy};
