/* Teachers' answers as numbers: rows of logits, truncated distributions, states.
 *
 * Answers come per sequence and teacher (wire/answer.h); losses work on chunks of rows of the whole
 * batch. This file knows the lanes: final states times the downloaded head, full logits, top-k.
 */
#ifndef LB_LOSS_TARGET_H
#define LB_LOSS_TARGET_H

#include "common/text/trim.h"
#include "trainer/wire/answer.h"

/* Largest classifier whose logits are read for the cross entropy of labels. */
#define LB_MAX_CE_CLASSES 1024
#define LB_MAX_CE_WIDTH 4096

/* The rows of one micro-batch and who answered about them. */
struct lb_answered {
    const struct lb_sample *samples;
    int64_t n_samples;
    const int32_t *offsets;  /* [n_samples + 1] rows */
    const int32_t *sequence; /* [N] the sample of each row */
    unsigned n_teachers;
    const struct lb_answer *const *answers; /* [n_samples * n_teachers], NULL: absent */
    bool by_sample; /* a sample has one row, and its label is the sample's: of classifiers */
};

/* Teacher k's logits of rows row .. row + n - 1 into z [n, V]; rows that it did not answer are left alone.
 * states: workspace [n, C of the teacher]. head may be NULL when logits were sent. map (NULL: none): of
 * logits that were sent, those of the ids that it keeps; head has their rows only. */
void lb_target_logits(const struct lb_answered *batch, unsigned k, const struct lb_teacher_head *head,
                      const struct lb_vocab_map *map, int64_t v, int64_t row, int64_t n, float *states,
                      float *z);
/* The list at row `at` of an answer (lb_answer_row): top_k ids, and p [top_k], which sums to 1 with the tail
 * that is returned; all: the list has all ids, and no tail. The values say how the listed ids share what the
 * rest leaves, and the rest is told by itself: rounding of the values (as FP16) does not reach the tail. */
double lb_target_list(const struct lb_answer *answer, int64_t at, int64_t top_k, bool all, double temperature,
                      int32_t *ids, float *p);
/* Teacher k's states (hidden or attention) of all rows of the batch, [N, width]; absent rows are zero. */
void lb_target_states(const struct lb_answered *batch, unsigned k, enum lb_output_kind kind, int layer,
                      int64_t width, float *out);
/* The labels' log-probabilities at temperature 1 in an answer that was asked for them. */
const struct lb_wire_tensor *lb_answer_labels(const struct lb_answer *answer);
/* Cross entropy of position t's label of sample i under teacher k; 0 when it did not answer. Text: from
 * logprobs.actual or .next; 0 at the last position, whose label the teacher has not seen, and where the
 * sample does not count. Samples with a label of their own: from the logits, or from the final state and
 * head. */
double lb_target_cross_entropy_at(const struct lb_answered *batch, unsigned k, int64_t i, int64_t t,
                                  const struct lb_teacher_head *head);
/* The mean over the sample's positions that count (but text's last). */
double lb_target_cross_entropy(const struct lb_answered *batch, unsigned k, int64_t i,
                               const struct lb_teacher_head *head);

#endif
