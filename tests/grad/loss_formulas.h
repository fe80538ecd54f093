/* The losses on rows of logits by their formulas, in double, for the tests of values and gradients. */
#ifndef LB_TESTS_GRAD_LOSS_FORMULAS_H
#define LB_TESTS_GRAD_LOSS_FORMULAS_H

#include "trainer/loss/loss.h"

#define LB_FORMULA_V 50 /* classes of each row */
#define LB_FORMULA_K 6  /* listed ids */
#define LB_FORMULA_LABEL 17

/* The parameters that the formulas take; a test sets it. */
extern struct lb_loss_args lb_formula_args;

/* A teacher's distribution, whole and cut to K ids. */
struct lb_formula_teacher {
    float z[LB_FORMULA_V], p[LB_FORMULA_V], p_at[LB_FORMULA_K];
    int32_t ids[LB_FORMULA_K];
    struct lb_target dense, top, renormalised, drawn;
    int32_t own_ids[LB_FORMULA_K]; /* of one that reads other tokens */
    uint8_t common[LB_FORMULA_V];
    struct lb_target aligned;
};

/* From its logits z; top is the list with its tail, renormalised that without. */
void lb_formula_teach(struct lb_formula_teacher *t, double temperature);
/* The loss of a row with the label LB_FORMULA_LABEL at lb_formula_args. */
double lb_formula_run(const struct lb_loss *loss, const float *z, const struct lb_target *t, float scale,
                      float *dz);

/* q = softmax(z / t) */
void lb_formula_softmax(const double *z, double t, double *q);

/* L of the logits z [V]. */
typedef double lb_formula_row(const double *z, int32_t label, const struct lb_target *t);
lb_formula_row lb_formula_cross_entropy, lb_formula_kl, lb_formula_reverse_kl, lb_formula_jsd,
    lb_formula_skew_kl, lb_formula_skew_reverse_kl, lb_formula_tvd, lb_formula_akl, lb_formula_abkd,
    lb_formula_dkd, lb_formula_logit_mse, lb_formula_logit_standardization, lb_formula_dist, lb_formula_uld,
    lb_formula_uld_hybrid;

/* Constants in the gradient of akl are taken from these logits [V]. */
extern const double *lb_formula_at;

#endif
