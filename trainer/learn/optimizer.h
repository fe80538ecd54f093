/* The optimizer over everything that learns: the student's weights and what losses bring along (projections).
 *
 * Which rule moves them the recipe's `optim` says (updates.h). Decay touches neither biases nor norms, as in
 * Hugging Face's Trainer. Updates are elementwise and norms are sums of fixed chunks, so the bits do not
 * depend on the number of threads. One thread calls; OpenMP inside.
 *
 * With ema_decay d it keeps the weights' exponential moving average as torch.optim.swa_utils has it
 * (AveragedModel with get_ema_multi_avg_fn): the weights themselves after the first step, then a = d a + (1 -
 * d) w after each.
 */
#ifndef LB_LEARN_OPTIMIZER_H
#define LB_LEARN_OPTIMIZER_H

#include "common/base/status.h"
#include "common/nn/tensor.h"
#include "trainer/learn/updates.h"
#include "trainer/recipe/recipe.h"

#include <stddef.h>
#include <stdint.h>

#define LB_OPTIMIZER_STATES (LB_UPDATE_STATES + 1) /* the update's, and the average of the weights */

/* Weights that learn together: an array as lb_model_weights gives it. value must be there; one without grad
 * is frozen: it stands in checkpoints, nothing else. */
struct lb_weight_group {
    const struct lb_weight *weights;
    size_t n;
};

/* One weight as the optimiser sees it; its states are the optimiser's own memory. */
struct lb_optimized {
    const char *name;
    int64_t rows, cols;
    int n_dims;
    bool decays;
    bool whole;                        /* Muon's: a step moves all of it at once; its second state stays 0 */
    float *value, *grad;               /* [rows, cols] */
    float *state[LB_OPTIMIZER_STATES]; /* [rows, cols] each; NULL beyond lb_optimizer_states, and where grad
                                          is NULL */
};

struct lb_optimizer;

/* Reads optim, weight_decay, adam_beta1, adam_beta2, adam_epsilon, momentum, nesterov, ema_decay and
 * max_grad_norm. The weights' memory must outlive the optimiser. */
LB_NODISCARD enum lb_status lb_optimizer_create(const struct lb_recipe *recipe,
                                                const struct lb_weight_group *groups, size_t n_groups,
                                                struct lb_optimizer **out, struct lb_detail *detail);
/* Accepts NULL. */
void lb_optimizer_destroy(struct lb_optimizer *optimizer);

/* One step: gradients are multiplied by grad_scale (1 / accumulated micro-batches), their norm over all
 * weights is taken, they are clipped to max_grad_norm (0: not), applied, and set to 0. *out_norm: the norm
 * before clipping. A gradient that is not finite is LB_E_ARG naming the first such weight; then nothing has
 * changed but the gradients, which keep their values. */
LB_NODISCARD enum lb_status lb_optimizer_step(struct lb_optimizer *optimizer, double lr, double grad_scale,
                                              double *out_norm, struct lb_detail *detail);
/* All gradients to 0: before the first micro-batch, and after a step that failed. */
void lb_optimizer_zero(struct lb_optimizer *optimizer);

/* For checkpoints: the weights in order, and the number of steps taken (t). */
const struct lb_optimized *lb_optimizer_weights(const struct lb_optimizer *optimizer, size_t *out_n);
/* How many states each weight has (0 for plain sgd), and what each is called: the rule's names, "ema". */
unsigned lb_optimizer_states(const struct lb_optimizer *optimizer);
const char *lb_optimizer_state_name(const struct lb_optimizer *optimizer, unsigned state);
/* Exchanges weights and their averages: once for reading the averages (evaluation, export), once more to go
 * on. Nothing without ema_decay. */
void lb_optimizer_swap_average(struct lb_optimizer *optimizer);
int64_t lb_optimizer_steps(const struct lb_optimizer *optimizer);
void lb_optimizer_set_steps(struct lb_optimizer *optimizer, int64_t steps);

#endif
