/* Micro-batches in order, with the teachers asked ahead: samples of micro-batch m, and what the teachers say
 * of them.
 *
 * Questions of the next steps are on their way while this one is computed. Numbers count over the whole run;
 * a resumed run begins at the number where it stopped. What the student writes itself can't be asked ahead:
 * it is written when its step begins, micro-batch after micro-batch, each asked about while the next is
 * written.
 */
#ifndef LB_LEARN_PREFETCH_H
#define LB_LEARN_PREFETCH_H

#include "trainer/learn/plan.h"
#include "trainer/learn/scribe.h"
#include "trainer/wire/texts.h"

struct lb_prefetch;

/* first: the number to begin with; end: one past the last. teachers NULL: samples only. scribe NULL: the
 * student writes nothing. texts [samples of data] (NULL: none): what a teacher wrote behind the samples'
 * prompts, where any micro-batch has it. All borrowed. */
LB_NODISCARD enum lb_status lb_prefetch_create(const struct lb_plan *plan, const struct lb_dataset *data,
                                               struct lb_teachers *teachers, struct lb_scribe *scribe,
                                               const struct lb_text *texts, int64_t first, int64_t end,
                                               struct lb_prefetch **out, struct lb_detail *detail);
void lb_prefetch_destroy(struct lb_prefetch *prefetch);

/* What the micro-batches of a step have together. */
struct lb_prefetched {
    int64_t positions;                       /* that count */
    double weight_positions, weight_samples; /* these, and all samples, as often as samples weigh */
};
/* Before the next n micro-batches, no more than gradient_accumulation_steps: they are made, and written where
 * the student as it is now writes them, which their questions wait for. */
LB_NODISCARD enum lb_status lb_prefetch_begin(struct lb_prefetch *prefetch, int64_t n,
                                              struct lb_prefetched *out, struct lb_detail *detail);
/* The next micro-batch, behind a begin: *out_samples [per_device_train_batch_size], valid until the next
 * call. Its question is on the way, and so are those of the steps ahead. */
LB_NODISCARD enum lb_status lb_prefetch_next(struct lb_prefetch *prefetch,
                                             const struct lb_sample **out_samples, struct lb_detail *detail);
/* Waits for what the teachers say of it, once after each next: *out_answers as lb_teachers_take gives them
 * (NULL without teachers), valid as long as the samples. */
LB_NODISCARD enum lb_status lb_prefetch_answers(struct lb_prefetch *prefetch,
                                                const struct lb_answer *const **out_answers,
                                                struct lb_detail *detail);
/* Waits for what the teachers say of the i-th micro-batch behind the one that next gave (0: that one), i less
 * than gradient_accumulation_steps; NULL without teachers. Valid until next has come to the one behind it. */
LB_NODISCARD enum lb_status lb_prefetch_ahead(struct lb_prefetch *prefetch, int64_t i,
                                              const struct lb_sample **out_samples,
                                              const struct lb_answer *const **out_answers,
                                              struct lb_detail *detail);

#endif
