/* Losses of one row of logits against a label or a teacher's distribution.
 *
 * q = softmax(z / T), p the teacher's at the same T. Losses at a temperature are multiplied by T^2, so that
 * their gradients keep their size as T changes (Hinton, Vinyals, Dean 2015, section 2).
 */
#include "trainer/loss/loss.h"

#include "common/nn/reduce.h"
#include "common/nn/vecmath.h"

#include <math.h>

/* Least mass of the student's tail inside the logarithm. */
#define MIN_TAIL 1e-9

/* dz += factor * softmax(z / T) */
static void add_softmax(const float *z, int64_t v, double temperature, double lse, float factor, float *dz) {
    float scale = (float)(1.0 / temperature), shift = (float)lse;
    for (int64_t j = 0; j < v; j++) {
        dz[j] += factor * lb_expf(z[j] * scale - shift);
    }
}

/* Cross entropy: L = lse(z) - z[y]; dL/dz = softmax(z) - onehot(y). */
double lb_loss_cross_entropy(const float *z, int64_t v, const struct lb_target *target, float scale,
                             float *dz) {
    double lse = lb_logsumexp(z, v, 1.0);
    add_softmax(z, v, 1.0, lse, scale, dz);
    dz[target->label] -= scale;
    return lse - z[target->label];
}

/* Dense: L = T^2 sum p (log p - log q), dL/dz = T (q - p). */
static double kl_dense(const float *z, int64_t v, const struct lb_target *t, float scale, float *dz) {
    double temperature = t->temperature, lse = lb_logsumexp(z, v, temperature), cross = 0;
    float inverse = (float)(1.0 / temperature), shift = (float)lse, factor = scale * (float)temperature;
    const float *p = t->p;
    for (int64_t begin = 0; begin < v; begin += 1024) {
        int64_t end = v - begin < 1024 ? v : begin + 1024;
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t j = begin; j < end; j++) {
            float logit = z[j] * inverse;
            dz[j] += factor * (lb_expf(logit - shift) - p[j]);
            part += p[j] * logit;
        }
        cross += part;
    }
    return temperature * temperature * (t->neg_entropy - cross + lse);
}

/* Truncated with tail bucket: the KL of the coarse-grained distributions, at least 0 and at most the full KL:
 *   L = T^2 [ sum_S p (log p - log q) + p_tail (log p_tail - log q_tail) ]
 *   dL/dz_i = T (q_i - p_i) for i in S, T q_i (1 - p_tail / q_tail) otherwise. */
static double kl_tail(const float *z, int64_t v, const struct lb_target *t, float scale, float *dz) {
    double temperature = t->temperature, lse = lb_logsumexp(z, v, temperature), loss = 0, q_in = 0;
    for (int64_t i = 0; i < t->k; i++) {
        double log_q = z[t->ids[i]] / temperature - lse, p = t->p_at[i];
        q_in += exp(log_q);
        loss += p > 0 ? p * (log(p) - log_q) : 0;
    }
    double q_tail = 1 - q_in > MIN_TAIL ? 1 - q_in : MIN_TAIL;
    double ratio = t->tail / q_tail;
    loss += t->tail > 0 ? t->tail * log(ratio) : 0;
    float factor = scale * (float)temperature;
    add_softmax(z, v, temperature, lse, factor * (float)(1 - ratio), dz);
    for (int64_t i = 0; i < t->k; i++) {
        double q = exp(z[t->ids[i]] / temperature - lse);
        dz[t->ids[i]] += factor * (float)(q * ratio - t->p_at[i]);
    }
    return temperature * temperature * loss;
}

/* Truncated, both renormalised over S: p' = p / sum_S p, q' = q / sum_S q; L = T^2 KL(p' || q'), dL/dz_i = T
 * (q'_i - p'_i) on S. */
static double kl_renormalised(const float *z, const struct lb_target *t, float scale, float *dz) {
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

/* Forward KL: KL(p || q). */
double lb_loss_kl(const float *z, int64_t v, const struct lb_target *target, float scale, float *dz) {
    if (target->p != NULL) {
        return kl_dense(z, v, target, scale, dz);
    }
    return target->add_tail ? kl_tail(z, v, target, scale, dz) : kl_renormalised(z, target, scale, dz);
}
