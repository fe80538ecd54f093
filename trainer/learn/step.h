/* One micro-batch: forward, losses, backward. Gradients accumulate in the student; no file or network is
 * touched.
 */
#ifndef LB_LEARN_STEP_H
#define LB_LEARN_STEP_H

#include "trainer/learn/plan.h"

struct lb_step;

/* Sums over the micro-batches of one optimizer step, already divided by its counts. */
struct lb_step_result {
    double loss;                    /* weighted sum of the terms */
    double term[LB_MAX_LOSSES];     /* each loss function's mean, unweighted */
    double weight[LB_MAX_TEACHERS]; /* mean mixture weight of each teacher */
};

/* student and plan are borrowed. max_bytes bounds the activations. NULL when out of memory. */
struct lb_step *lb_step_create(const struct lb_plan *plan, struct lb_model *student, size_t max_bytes);
void lb_step_destroy(struct lb_step *step);

/* samples [n] with answers [n * teachers] (NULL without teachers), checked when they came in
 * (lb_answer_check). rows: positions of all micro-batches of this optimizer step (the means' denominator).
 * rng: dropout. Adds to result. A non-finite loss is an error naming its first row. */
LB_NODISCARD enum lb_status lb_step_run(struct lb_step *step, const struct lb_sample *samples, int64_t n,
                                        const struct lb_answer *const *answers, int64_t rows,
                                        struct lb_rng *rng, struct lb_step_result *result,
                                        struct lb_detail *detail);

#endif
