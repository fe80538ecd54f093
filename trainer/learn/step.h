/* One micro-batch: forward, losses, backward. Gradients accumulate in the student; no file or network is
 * touched.
 *
 * A step has two halves, so that answers can arrive, or be asked for with what the student says, between
 * them.
 */
#ifndef LB_LEARN_STEP_H
#define LB_LEARN_STEP_H

#include "trainer/learn/plan.h"
#include "trainer/learn/scribe.h"
#include "trainer/learn/totals.h"

struct lb_step;

/* Sums over the micro-batches of one optimizer step, already divided by its counts. */
struct lb_step_result {
    double loss;                    /* weighted sum of the terms */
    double term[LB_MAX_LOSSES];     /* each loss function's mean, unweighted */
    double weight[LB_MAX_TEACHERS]; /* mean mixture weight of each teacher */
    /* What teachers say by themselves, in steps that are watched, as sums: the first loss that learns from
     * each (unweighted) and what that is to be divided by; positions with a label of which its likeliest
     * class is known, and those where that is the label; positions where other teachers' are known too, and
     * the share of these that is the same. */
    double own_loss[LB_MAX_TEACHERS], watched[LB_MAX_TEACHERS];
    double labelled[LB_MAX_TEACHERS], right[LB_MAX_TEACHERS];
    double compared[LB_MAX_TEACHERS], agreed[LB_MAX_TEACHERS];
    /* There too: positions whose likeliest ids are known of both, and sums over them of struct lb_overlap. */
    double overlapped[LB_MAX_TEACHERS], overlap[LB_MAX_TEACHERS];
    double student_mass[LB_MAX_TEACHERS], teacher_mass[LB_MAX_TEACHERS];
    /* Of teachers asked through a map: positions that they were read at, and what of their distributions
     * there lies on tokens that the student lacks; of the step's positions. */
    double cut[LB_MAX_TEACHERS], left_out[LB_MAX_TEACHERS];
    /* Of those that read other tokens: positions that count, those of them in chunks, and chunks; of the
     * step's positions. */
    double chunked[LB_MAX_TEACHERS], in_chunks[LB_MAX_TEACHERS], chunks[LB_MAX_TEACHERS];
    struct lb_scribed written; /* by the student: a count, not divided */
};

/* student and plan are borrowed. max_bytes bounds the activations. NULL when out of memory. */
struct lb_step *lb_step_create(const struct lb_plan *plan, struct lb_model *student, size_t max_bytes);
void lb_step_destroy(struct lb_step *step);

/* The first half: the student reads samples [n] (borrowed until the second half is done; so is rng, which
 * feeds dropout). *out_states (may be NULL): its final states [N, C], rows of the samples one after the
 * other, good until the second half: lb_head_logits with the student's head makes logits of any of them. */
LB_NODISCARD enum lb_status lb_step_forward(struct lb_step *step, const struct lb_sample *samples, int64_t n,
                                            struct lb_rng *rng, const struct lb_value **out_states,
                                            struct lb_detail *detail);
/* The number of the optimizer step, from 0, that comes, and how many there are: what weights and temperatures
 * that anneal follow. Until then it is the first. */
void lb_step_set_now(struct lb_step *step, int64_t now, int64_t total);
/* What means of the optimizer step that comes are divided by: its positions that count, and its samples, each
 * as often as its sample's weight says. Until then samples weigh 1: lb_step_losses' rows, and as many samples
 * as the recipe's steps have. Where all weigh 0 nothing is learnt. */
void lb_step_set_weight(struct lb_step *step, double positions, double samples);
/* Whether the steps that come tell in their result what each teacher says by itself; false until then. The
 * student's bits do not depend on it. */
void lb_step_watch(struct lb_step *step, bool watch);
/* The second half, once after each forward: losses against answers [n * teachers] (NULL without teachers),
 * checked when they came in (lb_answer_check), and backward. rows: positions that count of all micro-batches
 * of this optimizer step (the means' denominator, unless lb_step_set_weight said another). totals: of all its
 * micro-batches; NULL: this is the only one. Adds to result. A non-finite loss is LB_E_ARG and says where it
 * is, whose numbers are bad, and which option helps. LB_E_ARG also: no forward waits for it. */
LB_NODISCARD enum lb_status lb_step_losses(struct lb_step *step, const struct lb_answer *const *answers,
                                           int64_t rows, const struct lb_step_totals *totals,
                                           struct lb_step_result *result, struct lb_detail *detail);

#endif
