/* DIST (Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher", arXiv 2205.10536, eqs. 7 to 10):
 * the student need only agree with the teacher up to shift and scale. By Pearson's correlation, with tau the
 * temperature T,
 *   L = T^2 [beta (1 - r) + gamma (1 - mean_j s_j)].
 *
 * Between classes: r is the correlation of p and q over the V classes of a row. With a = p - 1 / V, b = q - 1
 * / V, A = sum a^2, B = sum b^2: r = sum a b / sqrt(A B), slope of r by log q: q (a / sqrt(A B) - r b / B).
 * Where either is even, r is nothing: 1 without a gradient.
 *
 * Between samples: s_j is the correlation of class j's p and q over the rows of the micro-batch that count,
 * each as often as the teacher counts there (columns.h); all these rows have the same value, which depends on
 * which others stand beside them. So gamma makes a step depend on how it is cut into micro-batches, and is 0
 * unless a recipe gives it (the paper has 2 and 2, or 1 and 1). Slope of W (1 - mean s) by a row's log q_j, W
 * the rows: - W / V q_j (by_p (p_j - mean_p) - by_q (q_j - mean_q)). A class that is even over the rows has
 * s_j 0, as all have where there is one row.
 *
 * Whole distributions only: squares of what a list leaves out are not known. */
#include "trainer/loss/columns.h"
#include "trainer/loss/divergence.h"

#include <math.h>

#define BLOCK 1024
#define EVEN 1e-12 /* squares about the mean, as a share of those of the mean, that rounding makes */

/* Adds - factor dq/dz of the slopes by log q [V], whose sum this is. */
static void put(const struct lb_row *row, const float *q, const float *slope, double sum, double factor,
                float *dz) {
    float by = (float)factor, all = (float)sum;
    for (int64_t j = 0; j < row->v; j++) {
        dz[j] -= by * (slope[j] - q[j] * all);
    }
}

static double between_classes(struct lb_row *row, const struct lb_target *t, const float *q, double factor,
                              float *dz) {
    const float *p = t->p;
    float even = 1 / (float)row->v, *slope = row->work;
    double aa = 0, bb = 0, ab = 0, sum = 0;
    for (int64_t begin = 0; begin < row->v; begin += BLOCK) {
        int64_t end = row->v - begin < BLOCK ? row->v : begin + BLOCK;
        float of_aa = 0, of_bb = 0, of_ab = 0;
#pragma omp simd reduction(+ : of_aa, of_bb, of_ab)
        for (int64_t j = begin; j < end; j++) {
            float a = p[j] - even, b = q[j] - even;
            of_aa += a * a;
            of_bb += b * b;
            of_ab += a * b;
        }
        aa += (double)of_aa;
        bb += (double)of_bb;
        ab += (double)of_ab;
    }
    if (!(aa > EVEN * (double)even) || !(bb > EVEN * (double)even)) {
        return 1;
    }
    double norm = sqrt(aa * bb), r = ab / norm;
    float by_a = (float)(1 / norm), by_b = (float)(r / bb);
    for (int64_t begin = 0; begin < row->v; begin += BLOCK) {
        int64_t end = row->v - begin < BLOCK ? row->v : begin + BLOCK;
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t j = begin; j < end; j++) {
            slope[j] = q[j] * (by_a * (p[j] - even) - by_b * (q[j] - even));
            part += slope[j];
        }
        sum += (double)part;
    }
    put(row, q, slope, sum, factor, dz);
    return 1 - r;
}

static double between_samples(struct lb_row *row, const struct lb_target *t, const float *q, double factor,
                              float *dz) {
    const struct lb_columns *c = t->columns;
    const float *p = t->p;
    float *slope = row->work;
    double sum = 0;
    for (int64_t begin = 0; begin < row->v; begin += BLOCK) {
        int64_t end = row->v - begin < BLOCK ? row->v : begin + BLOCK;
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t j = begin; j < end; j++) {
            slope[j] = q[j] * (c->by_p[j] * (p[j] - c->mean_p[j]) - c->by_q[j] * (q[j] - c->mean_q[j]));
            part += slope[j];
        }
        sum += (double)part;
    }
    put(row, q, slope, sum, factor * c->rows / (double)row->v, dz);
    return c->apart;
}

static double dist(struct lb_row *row, const struct lb_target *t, const struct lb_loss_args *args,
                   float scale, float *dz) {
    const float *q = lb_row_softmax(row, t->temperature)->q;
    double t2 = t->temperature * t->temperature, by_z = (double)scale * t->temperature;
    double loss = args->beta * (t2 * between_classes(row, t, q, by_z * args->beta, dz));
    if (args->gamma > 0 && t->columns != NULL) {
        loss += args->gamma * (t2 * between_samples(row, t, q, by_z * args->gamma, dz));
    }
    return loss;
}

const struct lb_loss lb_loss_dist = {.name = "dist",
                                     .on = LB_ON_TARGET,
                                     .between_samples = true,
                                     .kinds = LB_TARGET_DENSE,
                                     .parameters = "temperature, beta, gamma, clamp",
                                     .defaults = {.beta = 1},
                                     .row = dist};
