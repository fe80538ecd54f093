/* Route: the mean of probabilities of the teachers whose tags hold the sequence's tag; no others are asked.
 */
#include "trainer/loss/mixture.h"

const struct lb_mixture lb_mixture_route = {.name = "route", .by_tag = true, .combine = LB_COMBINE_PROBS};
