/* Both halves of a step at once, for tests whose answers are there already. */
#ifndef LB_TESTS_SUPPORT_WHOLE_STEP_H
#define LB_TESTS_SUPPORT_WHOLE_STEP_H

#include "trainer/learn/step.h"

static inline enum lb_status lb_whole_step(struct lb_step *step, const struct lb_sample *samples, int64_t n,
                                           const struct lb_answer *const *answers, int64_t rows,
                                           struct lb_rng *rng, struct lb_step_result *result,
                                           struct lb_detail *detail) {
    enum lb_status status = lb_step_forward(step, samples, n, rng, NULL, detail);
    return status == LB_OK ? lb_step_losses(step, answers, rows, NULL, result, detail) : status;
}

#endif
