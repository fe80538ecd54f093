/* How much each block of a model changes what goes through it: which ones a smaller student can do without.
 *
 * Block influence (Men et al., "ShortGPT", arXiv 2403.03853, equation 1; what Minitron, arXiv 2407.14679,
 * ranks depth by): 1 - the mean, over all positions, of the cosine between a block's input and its output.
 * The last block's output is taken before the final norm. Sums are in double and in the order of rows,
 * whatever the number of threads.
 */
#ifndef LB_RUN_INFLUENCE_H
#define LB_RUN_INFLUENCE_H

#include "common/model/model.h"
#include "trainer/data/dataset.h"
#include "trainer/teachers/teachers.h"

#include <signal.h>

/* out [num_hidden_layers], of text that fits the model; *out_rows: positions. LB_E_ARG: a model without
 * blocks of attention; LB_E_CANCELLED soon after *stop. */
LB_NODISCARD enum lb_status lb_block_influence(const struct lb_model *model, const struct lb_dataset *data,
                                               const volatile sig_atomic_t *stop, double *out,
                                               int64_t *out_rows, struct lb_detail *detail);
/* The same of a hosted model (hidden_states.0 and residuals.N, as FP32), several blocks at a time: where it
 * computes with this machine's kernels, the same bits. It is the only one of teachers; out [n_layers of its
 * info]. LB_E_ARG: a server that does not give what blocks leave. */
LB_NODISCARD enum lb_status lb_block_influence_hosted(struct lb_teachers *teachers,
                                                      const struct lb_dataset *data, double *out,
                                                      int64_t *out_rows, struct lb_detail *detail);
/* The n blocks of the most influence of all, ascending, into kept [n]; of equal ones the lower. n <= layers.
 */
void lb_influential(const double *influence, int64_t layers, int64_t n, int64_t *kept);

#endif
