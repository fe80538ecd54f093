/* Cosine between hidden states (DistilBERT, Sanh et al. 2019): L = 1 - a.b / (|a| |b|) per row; dL/da = (cos
 * a/|a| - b/|b|) / |a|. */
#include "trainer/loss/loss.h"

#include <math.h>

struct cosines {
    const struct lb_states *states;
    double scale;
    float *da;
};

static double row_cosine(const void *context, int64_t i) {
    const struct cosines *c = context;
    const struct lb_states *s = c->states;
    const float *x = s->a + i * s->width, *y = s->b + i * s->width;
    double xx = 0, yy = 0, xy = 0;
    for (int64_t j = 0; j < s->width; j++) {
        xx += (double)x[j] * x[j];
        yy += (double)y[j] * y[j];
        xy += (double)x[j] * y[j];
    }
    double nx = fmax(sqrt(xx), 1e-12), ny = fmax(sqrt(yy), 1e-12), cosine = xy / (nx * ny);
    double factor = c->scale * s->row_weight[i];
    float along = (float)(factor * cosine / (nx * nx)), towards = (float)(factor / (nx * ny));
    for (int64_t j = 0; j < s->width; j++) {
        c->da[i * s->width + j] += along * x[j] - towards * y[j];
    }
    return s->row_weight[i] * (1 - cosine);
}

double lb_states_cosine(const struct lb_states *s, const struct lb_loss_args *args, double scale, float *da) {
    (void)args;
    const struct cosines c = {s, scale, da};
    return lb_states_sum(s, row_cosine, &c);
}

const struct lb_loss lb_loss_hs_cosine = {
    .name = "hs_cosine", .on = LB_ON_HIDDEN, .parameters = "layer_mapping", .state = lb_states_cosine};
