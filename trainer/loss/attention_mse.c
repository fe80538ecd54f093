/* Mean square error between attention probabilities (TinyBERT, Jiao et al. 2020, eq. 7, on probabilities):
 * the mean over the heads and the T (T + 1) / 2 entries that a causal row can have, times T, so that a
 * sequence counts as its rows: L = T sum (a - b)^2 / (H T (T + 1) / 2); dL/da = 2 T (a - b) / (H T (T + 1) /
 * 2). Of an encoder's T^2 entries all can be: it is over those. */
#include "trainer/loss/loss.h"

struct maps {
    const struct lb_states *states;
    double scale, entries; /* that can be */
    float *da;
};

static double row_squares(const void *context, int64_t i) {
    const struct maps *m = context;
    const struct lb_states *s = m->states;
    double weight = s->row_weight[i] * (double)s->width / m->entries, loss = 0;
    float factor = (float)(2 * m->scale * weight);
    for (int64_t j = i * s->width; j < (i + 1) * s->width; j++) {
        float d = s->a[j] - s->b[j];
        m->da[j] += factor * d;
        loss += weight * ((double)d * d);
    }
    return loss;
}

static double attention_mse(const struct lb_states *s, const struct lb_loss_args *args, double scale,
                            float *da) {
    (void)args;
    double t = (double)s->width, entries = (double)s->heads * t * (s->both_ways ? t : (t + 1) / 2);
    const struct maps m = {s, scale, entries, da};
    return lb_states_sum(s, row_squares, &m);
}

const struct lb_loss lb_loss_attention_mse = {
    .name = "attention_mse", .on = LB_ON_ATTENTION, .parameters = "layer_mapping", .state = attention_mse};
