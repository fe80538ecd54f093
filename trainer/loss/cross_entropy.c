/* Cross entropy of the label: L = lse(z) - z[y]; dL/dz = softmax(z) - onehot(y). A row without a label: 0.
 *
 * label_smoothing e, as in torch.nn.CrossEntropyLoss (Szegedy et al. 2016, section 7): against the
 * distribution (1 - e) onehot(y) + e / V,
 *   L = lse(z) - (1 - e) z[y] - e mean(z),  dL/dz = softmax(z) - (1 - e) onehot(y) - e / V.
 * z_loss w (Chowdhery et al. 2022, PaLM, section 5): adds w lse(z)^2, with the gradient 2 w lse(z)
 * softmax(z), which keeps logits near log-probabilities. */
#include "trainer/loss/loss.h"

static double cross_entropy(struct lb_row *row, const struct lb_target *target,
                            const struct lb_loss_args *args, float scale, float *dz) {
    (void)target;
    if (row->label < 0) {
        return 0;
    }
    const struct lb_softmax *s = lb_row_softmax(row, 1);
    double even = args->label_smoothing, w = args->z_loss, z = (1 - even) * (double)row->z[row->label];
    float each = scale * (float)(1 + 2 * w * s->lse), less = scale * (float)(even / (double)row->v);
    for (int64_t j = 0; j < row->v; j++) {
        dz[j] += each * s->q[j];
    }
    for (int64_t j = 0; even > 0 && j < row->v; j++) {
        dz[j] -= less;
    }
    dz[row->label] -= scale * (float)(1 - even);
    z += even > 0 ? even * (lb_row_sum(row->z, row->v) / (double)row->v) : 0;
    return s->lse - z + w * s->lse * s->lse;
}

const struct lb_loss lb_loss_cross_entropy = {.name = "cross_entropy",
                                              .on = LB_ON_LABEL,
                                              .parameters = "label_smoothing, z_loss, clamp",
                                              .row = cross_entropy};
