/* What optimizers do with one stretch of one weight: elementwise, so that the bits depend on no thread.
 *
 *   adamw_torch  Loshchilov, Hutter, "Decoupled weight decay regularization" (ICLR 2019), in PyTorch's form:
 *                p -= lr wd p;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
 *                p -= lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps)
 *   sgd          as torch.optim.SGD: g += wd p;  without momentum p -= lr g, else m = mu m + g (from 0), p -=
 * lr m, with nesterov p -= lr (g + mu m)
 *   lion_32bit   Chen et al., "Symbolic discovery of optimization algorithms" (arXiv 2302.06675, algorithm
 * 2): p -= lr wd p;  p -= lr sign(b1 m + (1 - b1) g);  m = b2 m + (1 - b2) g;  sign(0) is 0 muon hidden
 * matrices by muon.h, as wholes; all else by adamw_torch
 *
 * A new one is a function and a line in the table of updates.c, and its name in recipe/fields.c.
 */
#ifndef LB_LEARN_UPDATES_H
#define LB_LEARN_UPDATES_H

#include "trainer/recipe/recipe.h"

#include <stdbool.h>
#include <stdint.h>

#define LB_UPDATE_STATES 2

/* n elements of one weight; grad is set to 0. state: what the optimizer keeps of each (m, v), NULL where it
 * has none. */
struct lb_update_part {
    float *value, *grad, *state[LB_UPDATE_STATES];
    int64_t n;
    bool decays;
};

/* Step number t, from 1. */
struct lb_update_now {
    double lr, grad_scale;
    double weight_decay, beta1, beta2, epsilon, momentum;
    bool nesterov;
    int64_t t;
};

struct lb_update_rule {
    enum lb_optim optim;
    unsigned n_states;
    const char *states[LB_UPDATE_STATES]; /* what they are called in checkpoints */
    bool muon;                            /* moves the matrices that lb_muon_takes; step the rest */
    void (*step)(const struct lb_update_part *part, const struct lb_update_now *now);
};

/* The rule that the recipe names. */
const struct lb_update_rule *lb_update_rule(const struct lb_recipe *recipe);
/* How many numbers it keeps of each element, at most LB_UPDATE_STATES. */
unsigned lb_update_states(const struct lb_update_rule *rule, const struct lb_recipe *recipe);

#endif
