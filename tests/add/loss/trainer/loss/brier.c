/* Squared error between distributions (Brier 1950): L = sum_j (q_j - p_j)^2, q = softmax(z / T);
 * dL/dz_i = 2 q_i (d_i - sum_j d_j q_j) / T with d = q - p. */
#include "trainer/loss/loss.h"

static double brier(struct lb_row *row, const struct lb_target *target, const struct lb_loss_args *args,
                    float scale, float *dz) {
    (void)args;
    const float *q = lb_row_softmax(row, target->temperature)->q, *p = target->p;
    double loss = 0, along = 0, factor = 2 * (double)scale / target->temperature;
    for (int64_t j = 0; j < row->v; j++) {
        double d = (double)q[j] - (double)p[j];
        loss += d * d;
        along += d * (double)q[j];
    }
    for (int64_t j = 0; j < row->v; j++) {
        dz[j] += (float)(factor * (double)q[j] * ((double)q[j] - (double)p[j] - along));
    }
    return loss;
}

const struct lb_loss lb_loss_brier = {
    .name = "brier", .on = LB_ON_TARGET, .kinds = LB_TARGET_DENSE, .parameters = "temperature", .row = brier};
