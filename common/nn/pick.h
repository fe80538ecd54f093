/* Where in the order of a row a uniform number lies, without putting the row in order. Any thread. */
#ifndef LB_NN_PICK_H
#define LB_NN_PICK_H

#include <stdint.h>

/* The element of z [v], put in lb_topk's order, at which the sum of shares [v] exceeds u in [0, 1): of
 * their sum, and of 1 as well, since shares that were rounded do not add up to it. -1 where the two are not
 * the same element, or rounding may decide between two, or a number is none: then the order has to tell. A
 * larger logit has no smaller share but by rounding. */
int64_t lb_pick(const float *z, const float *share, int64_t v, double u);

#endif
