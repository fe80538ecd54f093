/* DIST's relation between classes (Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher", eq.
 * 8): the student need only agree with the teacher up to shift and scale, L = T^2 (1 - r), r the correlation
 * (Pearson's) of p and q over the V classes. With a = p - 1 / V, b = q - 1 / V, A = sum a^2, B = sum b^2: r =
 * sum a b / sqrt(A B), slope of r by log q: q (a / sqrt(A B) - r b / B). Where either is even, r is nothing:
 * 1 without a gradient. Whole distributions only: squares of what a list leaves out are not known.
 *
 * Its other half, between samples (eq. 9: the correlation of each class's column over the batch), is not
 * here: a row's gradient needs each class's sums of p, q, p^2, q^2 and p q over all rows of the step before,
 * that is a second pass of the head over the batch, and five vectors [V]. */
#include "trainer/loss/divergence.h"

#include <math.h>

#define BLOCK 1024

static double dist(struct lb_row *row, const struct lb_target *t, const struct lb_loss_args *args,
                   float scale, float *dz) {
    (void)args;
    const struct lb_softmax *s = lb_row_softmax(row, t->temperature);
    const float *p = t->p, *q = s->q;
    float even = 1 / (float)row->v, *slope = row->work;
    double aa = 0, bb = 0, ab = 0, sum = 0, t2 = t->temperature * t->temperature;
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
    double norm = sqrt(aa * bb);
    if (!(norm > 1e-12 * (double)even)) {
        return t2;
    }
    double r = ab / norm;
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
    float factor = (float)((double)scale * t->temperature), all = (float)sum;
    for (int64_t j = 0; j < row->v; j++) {
        dz[j] -= factor * (slope[j] - q[j] * all);
    }
    return t2 * (1 - r);
}

const struct lb_loss lb_loss_dist = {.name = "dist",
                                     .on = LB_ON_TARGET,
                                     .kinds = LB_TARGET_DENSE,
                                     .parameters = "temperature, clamp",
                                     .row = dist};
