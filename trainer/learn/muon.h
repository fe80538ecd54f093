/* Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks") for one matrix G
 * [rows, cols], in the form of torch.optim.Muon with adjust_lr_fn "match_rms_adamw" (Liu et al., arXiv
 * 2502.16982), but in FP32:
 *
 *   m += (1 - mu) (g - m);  u = g + mu (m - g) with nesterov, else m
 *   X = u / max(|u|, 1e-7); five times A = X X^T, X = a X + (b A + c A A) X, (a, b, c) = (3.4445,
 * -4.7750, 2.0315): X nears the orthogonal matrix next to u. A is that of the shorter side: a taller u is
 * transposed first p -= lr wd p;  p -= lr 0.2 sqrt(max(rows, cols)) X
 *
 * so that a step's size is like AdamW's, and one learning rate and decay serve both. Products are lb_gemm's,
 * sums have one order: the bits do not depend on threads. One thread calls; OpenMP inside.
 */
#ifndef LB_LEARN_MUON_H
#define LB_LEARN_MUON_H

#include "common/nn/tensor.h"
#include "trainer/learn/updates.h"

/* Whether it is for this weight: a matrix, not of embeddings and not that of a head or classifier, which are
 * AdamW's. */
bool lb_muon_takes(const struct lb_weight *w);
/* Floats of workspace for such a matrix. */
int64_t lb_muon_floats(int64_t rows, int64_t cols);
/* One step of a whole matrix; state 0 is m. */
void lb_muon_step(const struct lb_update_part *part, int64_t rows, int64_t cols,
                  const struct lb_update_now *now, float *workspace);

#endif
