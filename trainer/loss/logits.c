/* Losses on the logits themselves, z the student's and v the teacher's (or the mean of several), of V
 * classes.
 *
 * logit_mse (Ba and Caruana 2014; Kim et al. 2021, "Comparing Kullback-Leibler Divergence and Mean Squared
 * Error Loss"):
 *   L = sum (z - v)^2 / V, dL/dz = 2 (z - v) / V.
 *
 * logit_standardization (Sun et al. 2024, "Logit Standardization in Knowledge Distillation", algorithm 1):
 * both are made to have mean 0 and deviation 1, u = (z - mean) / sigma with sigma^2 = sum (z - mean)^2 / (V -
 * 1) (and 1e-7 added to sigma, as in the authors' code), and then
 *   L = T^2 KL(p || q), p = softmax(u_teacher / T), q = softmax(u / T),
 *   dL/dz_i = T / sigma [ q_i - p_i - u_i / (V - 1) sum_j (q_j - p_j) u_j ]. */
#include "common/nn/reduce.h"
#include "trainer/loss/divergence.h"

#include <math.h>

#define BLOCK 1024
#define LEAST_SIGMA 1e-7

static double logit_mse(struct lb_row *row, const struct lb_target *t, const struct lb_loss_args *args,
                        float scale, float *dz) {
    (void)args;
    const float *z = row->z, *v = t->z;
    float factor = 2 * scale / (float)row->v;
    double sum = 0;
    for (int64_t begin = 0; begin < row->v; begin += BLOCK) {
        int64_t end = row->v - begin < BLOCK ? row->v : begin + BLOCK;
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t j = begin; j < end; j++) {
            float d = z[j] - v[j];
            dz[j] += factor * d;
            part += d * d;
        }
        sum += (double)part;
    }
    return sum / (double)row->v;
}

/* A row's mean and deviation, and the log-sum-exp of z / (T sigma). */
struct scale {
    double mean, sigma, lse;
};

static struct scale scale_of(const float *z, int64_t v, double temperature) {
    struct scale s = {lb_row_sum(z, v) / (double)v, 0, 0};
    double squares = 0;
    float mean = (float)s.mean;
    for (int64_t begin = 0; begin < v; begin += BLOCK) {
        int64_t end = v - begin < BLOCK ? v : begin + BLOCK;
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t j = begin; j < end; j++) {
            part += (z[j] - mean) * (z[j] - mean);
        }
        squares += (double)part;
    }
    s.sigma = sqrt(squares / (double)(v > 1 ? v - 1 : 1)) + LEAST_SIGMA;
    s.lse = lb_logsumexp(z, v, temperature * s.sigma);
    return s;
}

static double logit_standardization(struct lb_row *row, const struct lb_target *t,
                                    const struct lb_loss_args *args, float scale, float *dz) {
    (void)args;
    double temperature = t->temperature, kl = 0, along = 0;
    const struct scale own = scale_of(row->z, row->v, temperature), its = scale_of(t->z, row->v, temperature);
    float by_own = (float)(1 / (temperature * own.sigma)), by_its = (float)(1 / (temperature * its.sigma));
    float own_lse = (float)own.lse, its_lse = (float)its.lse, mean = (float)own.mean;
    const float *z = row->z, *v = t->z;
    float *apart = row->work; /* q - p */
    for (int64_t begin = 0; begin < row->v; begin += BLOCK) {
        int64_t end = row->v - begin < BLOCK ? row->v : begin + BLOCK;
        float part = 0, part_along = 0;
#pragma omp simd reduction(+ : part, part_along)
        for (int64_t j = begin; j < end; j++) {
            float log_q = z[j] * by_own - own_lse, log_p = v[j] * by_its - its_lse, p = lb_expf(log_p);
            apart[j] = lb_expf(log_q) - p;
            part += p * (log_p - log_q);
            part_along += apart[j] * (z[j] - mean);
        }
        kl += (double)part;
        along += (double)part_along;
    }
    float factor = (float)((double)scale * temperature / own.sigma);
    float by_u = (float)(along / (own.sigma * own.sigma * (double)(row->v > 1 ? row->v - 1 : 1)));
    for (int64_t j = 0; j < row->v; j++) {
        dz[j] += factor * (apart[j] - by_u * (z[j] - mean));
    }
    return temperature * temperature * kl;
}

const struct lb_loss lb_loss_logit_mse = {.name = "logit_mse",
                                          .on = LB_ON_TARGET,
                                          .kinds = LB_TARGET_DENSE,
                                          .on_logits = true,
                                          .parameters = "clamp",
                                          .row = logit_mse};
const struct lb_loss lb_loss_logit_standardization = {.name = "logit_standardization",
                                                      .on = LB_ON_TARGET,
                                                      .kinds = LB_TARGET_DENSE,
                                                      .on_logits = true,
                                                      .parameters = "temperature, clamp",
                                                      .row = logit_standardization};
