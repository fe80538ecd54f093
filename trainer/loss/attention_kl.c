/* Attention distributions (MiniLM, Wang et al. 2020, eq. 5): KL(b || a) = sum_j b_j log(b_j / a_j) of each
 * head and row, the mean over heads; dL/da_j = -b_j / (H a_j). The teacher's rows are made to sum to 1, which
 * rounding on the way (FP16) takes from them. */
#include "trainer/loss/loss.h"

#include "trainer/loss/divergence.h"

#include <math.h>

struct maps {
    const struct lb_states *states;
    double scale;
    float *da;
};

static double row_kl(const void *context, int64_t i) {
    const struct maps *m = context;
    const struct lb_states *s = m->states;
    const float *a = s->a + i * s->width, *b = s->b + i * s->width;
    double weight = s->row_weight[i] / (double)s->heads, all = 0, sum = 0;
    for (int64_t j = 0; j < s->width; j++) {
        all += (double)b[j];
    }
    for (int64_t j = 0; j < s->width && all > 0 && weight > 0; j++) {
        if (b[j] > 0) {
            double p = b[j] / all, q = lb_least_p(a[j]);
            sum += p * log(p / q);
            m->da[i * s->width + j] -= (float)(m->scale * weight * p / q);
        }
    }
    return weight * sum;
}

static double attention_kl(const struct lb_states *s, const struct lb_loss_args *args, double scale,
                           float *da) {
    (void)args;
    const struct maps m = {s, scale, da};
    return lb_states_sum(s, row_kl, &m);
}

const struct lb_loss lb_loss_attention_kl = {
    .name = "attention_kl", .on = LB_ON_ATTENTION, .parameters = "layer_mapping", .state = attention_kl};
