/* The output head over chunks of rows: [N, V] never exists.
 *
 * For each chunk, logits are made in a workspace and handed to a function that reduces them (top-k,
 * log-sum-exp, a loss). In training the function replaces the logits by dL/dlogits, and the gradients of h
 * and of the head's weight are added before the chunk is dropped.
 */
#ifndef LB_NN_HEAD_H
#define LB_NN_HEAD_H

#include "common/nn/tape.h"

/* Rows row .. row + n - 1 of h (never across two sequences in plain mode) have the logits z [n, V]. In
 * training: replace z by the gradient. May use OpenMP. A status other than LB_OK ends the run and is
 * returned. */
typedef enum lb_status (*lb_head_fn)(void *context, int64_t row, int64_t n, float *z);

/* h [N, C]; w [V, C]; bias [V] or NULL. first (may be NULL): per sequence of the tape's batch the first row,
 * counted within the sequence, that is wanted; rows before it are skipped. In training the weight's gradient
 * and h->grad accumulate at once (no node is recorded). */
enum lb_status lb_head_run(struct lb_tape *tape, struct lb_value *h, const struct lb_weight *w,
                           const struct lb_weight *bias, const int32_t *first, lb_head_fn fn, void *context);

/* Most rows of one chunk for a vocabulary of v. */
int64_t lb_head_chunk(int64_t v);

/* Logits of any rows under any head: z [n, V] = h [n, C] w^T + bias (a downloaded teacher head). */
void lb_head_logits(const float *h, int64_t n, int64_t c, const float *w /* [V, C] */, const float *bias,
                    int64_t v, float *z);

#endif
