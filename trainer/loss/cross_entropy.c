/* Cross entropy of the label: L = lse(z) - z[y]; dL/dz = softmax(z) - onehot(y). A row without a label: 0. */
#include "trainer/loss/loss.h"

static double cross_entropy(struct lb_row *row, const struct lb_target *target,
                            const struct lb_loss_args *args, float scale, float *dz) {
    (void)target;
    (void)args;
    if (row->label < 0) {
        return 0;
    }
    const struct lb_softmax *s = lb_row_softmax(row, 1);
    for (int64_t j = 0; j < row->v; j++) {
        dz[j] += scale * s->q[j];
    }
    dz[row->label] -= scale;
    return s->lse - row->z[row->label];
}

const struct lb_loss lb_loss_cross_entropy = {
    .name = "cross_entropy", .on = LB_ON_LABEL, .parameters = "", .row = cross_entropy};
