/* Which neurons and heads of a decoder's blocks do most on some texts: what a narrower student keeps.
 *
 * Minitron's importance by activations (Muralidharan et al., arXiv 2407.14679, section 2.2): of a text the
 * mean over its positions, of all texts the square root of the sum of squares. Of a neuron the activation is
 * |what the feed-forward's last product reads|; of a head of keys and values the length of what attention's
 * last product reads of the heads of queries that share it. Sums are in double and in the order of rows,
 * whatever the number of threads.
 */
#ifndef LB_RUN_WIDTH_H
#define LB_RUN_WIDTH_H

#include "common/model/model.h"
#include "trainer/data/dataset.h"

#include <signal.h>

/* out_neurons [layers, intermediate_size], out_heads [layers, num_key_value_heads], of text that fits the
 * model; *out_rows: positions. LB_E_UNSUPPORTED: a model that lb_model_narrow does not take; LB_E_CANCELLED
 * soon after *stop (may be NULL). */
LB_NODISCARD enum lb_status lb_width_importance(const struct lb_model *model, const struct lb_dataset *data,
                                                const volatile sig_atomic_t *stop, double *out_neurons,
                                                double *out_heads, int64_t *out_rows,
                                                struct lb_detail *detail);
/* The n most important of each of the rows [rows, width], ascending, into kept [rows, n]; of equal ones the
 * lower. n <= width. false: out of memory. */
bool lb_most_important(const double *importance, int64_t rows, int64_t width, int64_t n, int64_t *kept);

#endif
