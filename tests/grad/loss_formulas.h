/* The losses on rows of logits by their formulas, in double, for the tests of values and gradients. */
#ifndef LB_TESTS_GRAD_LOSS_FORMULAS_H
#define LB_TESTS_GRAD_LOSS_FORMULAS_H

#include "trainer/loss/loss.h"

#define LB_FORMULA_V 50 /* classes of each row */

/* The parameters that the formulas take; a test sets it. */
extern struct lb_loss_args lb_formula_args;

/* q = softmax(z / t) */
void lb_formula_softmax(const double *z, double t, double *q);

/* L of the logits z [V]. */
typedef double lb_formula_row(const double *z, int32_t label, const struct lb_target *t);
lb_formula_row lb_formula_cross_entropy, lb_formula_kl;

#endif
