/* Decoupled KD (Zhao et al. 2022, "Decoupled Knowledge Distillation", eq. 7), of a row with the label y: with
 * P = 1 - p_y, Q = 1 - q_y, and the other classes by themselves, p' = p / P and q' = q / Q,
 *   L = T^2 [ alpha (p_y log(p_y / q_y) + P log(P / Q)) + beta KL(p' || q') ],
 *   dL/dz_y = T alpha (q_y - p_y), dL/dz_j = T [ alpha q_j (1 - P / Q) + beta (q'_j - p'_j) ].
 * (alpha 1, beta 8 as in the authors' code; beta = P for each row would be KL(p || q).) A row without a
 * label: 0. A list need not tell p_y, so whole distributions only. */
#include "trainer/loss/divergence.h"

#include <math.h>

struct sums {
    double p, q, kl; /* of the classes but y: sums of p, q, p log(p / q) */
};

static void add(struct sums *sums, const float *p, const float *q, int64_t n) {
    for (int64_t begin = 0; begin < n; begin += 1024) {
        int64_t end = n - begin < 1024 ? n : begin + 1024;
        float of_p = 0, of_q = 0, kl = 0;
#pragma omp simd reduction(+ : of_p, of_q, kl)
        for (int64_t j = begin; j < end; j++) {
            of_p += p[j];
            of_q += q[j];
            kl += p[j] * lb_logf(lb_least_p(p[j]) / lb_least_p(q[j]));
        }
        sums->p += (double)of_p;
        sums->q += (double)of_q;
        sums->kl += (double)kl;
    }
}

static double dkd(struct lb_row *row, const struct lb_target *t, const struct lb_loss_args *args, float scale,
                  float *dz) {
    int32_t y = row->label;
    if (y < 0) {
        return 0;
    }
    const struct lb_softmax *s = lb_row_softmax(row, t->temperature);
    const float *p = t->p, *q = s->q;
    double temperature = t->temperature, p_y = (double)p[y], log_q = (double)row->z[y] / temperature - s->lse;
    struct sums rest = {0, 0, 0};
    add(&rest, p, q, y);
    add(&rest, p + y + 1, q + y + 1, row->v - y - 1);
    rest.q = rest.q > LB_LEAST_TAIL ? rest.q : LB_LEAST_TAIL;
    bool others = rest.p > LB_LEAST_TAIL; /* the teacher means any but y */
    double log_ratio = others ? log(rest.p / rest.q) : 0;
    double target = (p_y > 0 ? p_y * (log(p_y) - log_q) : 0) + rest.p * log_ratio;
    double among = others ? rest.kl / rest.p - log_ratio : 0;
    double of_q = args->alpha * (1 - rest.p / rest.q) + (others ? args->beta / rest.q : 0);
    float factor = scale * (float)temperature, by_q = (float)of_q,
          by_p = (float)(others ? args->beta / rest.p : 0);
    float keep = dz[y];
    for (int64_t j = 0; j < row->v; j++) {
        dz[j] += factor * (by_q * q[j] - by_p * p[j]);
    }
    dz[y] = keep + factor * (float)(args->alpha * (exp(log_q) - p_y));
    return temperature * temperature * (args->alpha * target + args->beta * among);
}

const struct lb_loss lb_loss_dkd = {.name = "dkd",
                                    .on = LB_ON_TARGET,
                                    .kinds = LB_TARGET_DENSE,
                                    .parameters = "temperature, alpha, beta, clamp",
                                    .defaults = {.alpha = 1, .beta = 8},
                                    .row = dkd};
