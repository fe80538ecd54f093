/* Forward KL, KL(p || q), of the teacher's p and the student's q = softmax(z / T).
 *
 * Multiplied by T^2, so that gradients keep their size as T changes (Hinton, Vinyals, Dean 2015, section 2).
 */
#include "trainer/loss/divergence.h"

#include <math.h>

/* Dense: L = T^2 sum p (log p - log q), dL/dz = T (q - p). */
static double dense(struct lb_row *row, const struct lb_target *t, float scale, float *dz) {
    const struct lb_softmax *s = lb_row_softmax(row, t->temperature);
    double temperature = t->temperature, cross = 0;
    float inverse = (float)(1.0 / temperature), factor = scale * (float)temperature;
    const float *p = t->p, *q = s->q, *z = row->z;
    for (int64_t begin = 0; begin < row->v; begin += 1024) {
        int64_t end = row->v - begin < 1024 ? row->v : begin + 1024;
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t j = begin; j < end; j++) {
            dz[j] += factor * (q[j] - p[j]);
            part += p[j] * (z[j] * inverse);
        }
        cross += part;
    }
    return temperature * temperature * (t->neg_entropy - cross + s->lse);
}

/* Truncated to S with a tail bucket: the KL of the coarse-grained distributions, at least 0 and at most the
 * full KL:
 *   L = T^2 [ sum_S p (log p - log q) + p_tail (log p_tail - log q_tail) ]
 *   dL/dz_i = T (q_i - p_i) for i in S, T q_i (1 - p_tail / q_tail) otherwise. */
static double with_tail(struct lb_row *row, const struct lb_target *t, float scale, float *dz) {
    const struct lb_softmax *s = lb_row_softmax(row, t->temperature);
    double temperature = t->temperature, loss = 0, q_tail = lb_student_tail(row, s, t, row->work);
    float factor = scale * (float)temperature, outside = (float)(1 - t->tail / q_tail);
    for (int64_t j = 0; j < row->v; j++) {
        dz[j] += factor * (outside * row->work[j]);
    }
    for (int64_t i = 0; i < t->k; i++) {
        double log_q = row->z[t->ids[i]] / temperature - s->lse, p = t->p_at[i];
        loss += p > 0 ? p * (log(p) - log_q) : 0;
        dz[t->ids[i]] += factor * (float)(exp(log_q) - p);
    }
    loss += t->tail > 0 ? t->tail * log(t->tail / q_tail) : 0;
    return temperature * temperature * loss;
}

/* Sampled (random-sampling KD: Anshumann et al. 2025, "Sparse Logit Sampling"), p the shares of what was
 * drawn: the same without a tail, dL/dz_i = T (q_i - p_i) for all i. Linear in p, so on average over the
 * draws the gradient is the whole distribution's; L itself is larger on average. */

/* Truncated, both renormalised over S: p' = p / sum_S p, q' = q / sum_S q; L = T^2 KL(p' || q'), dL/dz_i = T
 * (q'_i - p'_i) on S. */
static double renormalised(const struct lb_row *row, const struct lb_target *t, float scale, float *dz) {
    const float *z = row->z;
    double temperature = t->temperature, top = -INFINITY, sum_p = 0, sum_q = 0, loss = 0;
    for (int64_t i = 0; i < t->k; i++) {
        top = fmax(top, z[t->ids[i]]);
        sum_p += t->p_at[i];
    }
    for (int64_t i = 0; i < t->k; i++) {
        sum_q += exp((z[t->ids[i]] - top) / temperature);
    }
    for (int64_t i = 0; i < t->k; i++) {
        double log_q = (z[t->ids[i]] - top) / temperature - log(sum_q), p = t->p_at[i] / sum_p;
        loss += p > 0 ? p * (log(p) - log_q) : 0;
        dz[t->ids[i]] += scale * (float)(temperature * (exp(log_q) - p));
    }
    return temperature * temperature * loss;
}

double lb_forward_kl(struct lb_row *row, const struct lb_target *target, const struct lb_loss_args *args,
                     float scale, float *dz) {
    (void)args;
    if (target->kind == LB_TARGET_DENSE) {
        return dense(row, target, scale, dz);
    }
    return target->add_tail || target->kind == LB_TARGET_SAMPLED ? with_tail(row, target, scale, dz)
                                                                 : renormalised(row, target, scale, dz);
}

const struct lb_loss lb_loss_kl = {.name = "kl",
                                   .on = LB_ON_TARGET,
                                   .kinds = LB_TARGET_DENSE | LB_TARGET_TRUNCATED | LB_TARGET_SAMPLED,
                                   .parameters = "temperature, clamp",
                                   .row = lb_forward_kl};
