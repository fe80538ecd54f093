/* Patient knowledge distillation (Sun et al. 2019, eq. 7): the squared distance of hidden states of length 1,
 * L = |a/|a| - b/|b||^2 per row, which is 2 (1 - cos); dL/da = 2 (cos a/|a| - b/|b|) / |a|. The paper
 * compares each text's [CLS] alone: first_token. */
#include "trainer/loss/loss.h"

static double pkd(const struct lb_states *s, const struct lb_loss_args *args, double scale, float *da) {
    return 2 * lb_states_cosine(s, args, 2 * scale, da);
}

const struct lb_loss lb_loss_pkd = {
    .name = "pkd", .on = LB_ON_HIDDEN, .parameters = "layer_mapping, first_token", .state = pkd};
