/* Denominators that one optimizer step gathers over its micro-batches. */
#ifndef LB_LEARN_TOTALS_H
#define LB_LEARN_TOTALS_H

#include "trainer/learn/plan.h"

struct lb_step;

/* What the answers of all micro-batches of one optimizer step make of the denominators that losses have (of
 * each pair of activations): gathered before the first loss, so that a step is the same however it is cut.
 * Starts as zeros. */
struct lb_step_totals {
    double square[LB_MAX_PAIRS], numbers[LB_MAX_PAIRS];
};

/* Whether any loss of the plan has such a denominator; else totals need not be gathered. */
bool lb_step_needs_totals(const struct lb_plan *plan);

/* Adds to totals what answers [n * teachers] say about samples [n], of this micro-batch or of another one of
 * the step; at any time after the first forward. LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_step_count(struct lb_step *step, const struct lb_sample *samples, int64_t n,
                                          const struct lb_answer *const *answers,
                                          struct lb_step_totals *totals, struct lb_detail *detail);

#endif
