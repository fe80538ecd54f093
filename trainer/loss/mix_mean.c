/* Means by the recipe's weights: of probabilities (the mixture of experts' answers), of logits (their product
 * of powers, renormalised), of losses. */
#include "trainer/loss/mixture.h"

const struct lb_mixture lb_mixture_mean_probs = {.name = "mean_probs", .combine = LB_COMBINE_PROBS};
const struct lb_mixture lb_mixture_mean_logits = {.name = "mean_logits", .combine = LB_COMBINE_LOGITS};
const struct lb_mixture lb_mixture_mean_losses = {.name = "mean_losses", .combine = LB_COMBINE_LOSSES};
