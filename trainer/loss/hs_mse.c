/* Mean square error between hidden states (FitNets, Romero et al. 2014): L = |a - b|^2 / d per row of width
 * d; dL/da = 2 (a - b) / d. normalize: divided by the mean square of all of b, over the rows of the optimizer
 * step that count, so that the loss is 1 for a = 0 whatever the teacher's scale, and however a step is cut
 * into micro-batches. */
#include "trainer/loss/loss.h"

struct mse {
    const struct lb_states *states;
    double scale, inverse;
    float *da;
};

static double row_mse(const void *context, int64_t i) {
    const struct mse *m = context;
    const struct lb_states *s = m->states;
    int64_t width = s->width;
    double sum = 0;
    float factor = (float)(2 * m->scale * m->inverse * s->row_weight[i] / (double)width);
    const float *x = s->a + i * width, *y = s->b + i * width;
    for (int64_t j = 0; j < width; j++) {
        float d = x[j] - y[j];
        m->da[i * width + j] += factor * d;
        sum += (double)d * d;
    }
    return s->row_weight[i] * m->inverse * sum / (double)width;
}

double lb_states_mse(const struct lb_states *s, const struct lb_loss_args *args, double scale, float *da) {
    const struct mse m = {s, scale, args->normalize ? s->inverse_square : 1.0, da};
    return lb_states_sum(s, row_mse, &m);
}

const struct lb_loss lb_loss_hs_mse = {
    .name = "hs_mse", .on = LB_ON_HIDDEN, .parameters = "layer_mapping, normalize", .state = lb_states_mse};
