/* How well hosted models predict texts, asked over the network: each by itself, and the mean of their
 * probabilities.
 *
 * Servers answer logprobs.actual (and the likeliest token), so nothing but numbers of the labels travels;
 * classifiers of texts their logits.
 */
#ifndef LB_RUN_SCORE_H
#define LB_RUN_SCORE_H

#include "trainer/run/evaluate.h"
#include "trainer/teachers/teachers.h"

/* out [n + 1] for the n teachers, and last their mixture: p = mean of the teachers' probabilities (whose
 * likeliest tokens are not known). data must be text, for classifiers labelled; its rows, for others plus
 * one, must fit every teacher. */
LB_NODISCARD enum lb_status lb_score(struct lb_teachers *teachers, const struct lb_dataset *data,
                                     struct lb_evaluation *out, struct lb_detail *detail);

#endif
