/* The losses on activations by their formulas, in double, for the tests of values and gradients. */
#ifndef LB_TESTS_GRAD_STATE_FORMULAS_H
#define LB_TESTS_GRAD_STATE_FORMULAS_H

#include "trainer/loss/loss.h"

/* Most rows, and numbers, of activations that they take. */
#define LB_FORMULA_ROWS 8
#define LB_FORMULA_NUMBERS 128

/* L of the student's activations a in place of states->a. */
typedef double lb_formula_state(const double *a, const struct lb_states *states, bool normalize);
lb_formula_state lb_formula_mse, lb_formula_cosine, lb_formula_pkd, lb_formula_similarity,
    lb_formula_transfer, lb_formula_attention_mse, lb_formula_attention_kl, lb_formula_relation,
    lb_formula_contrast;

/* That lb_formula_relation has. */
#define LB_FORMULA_RELATION_HEADS 2

#define LB_FORMULA_CONTRAST_TEMP 0.5

#endif
