/* Divergences D = sum_i d(p_i, q_i) of the teacher's distribution p and the student's q = softmax(z / T), for
 * every kind of target. A loss gives d and its slope point by point; here it is taken over
 *   - all classes (dense),
 *   - the listed ids and one bucket for all others (truncated, add_tail): the divergence of the
 *     coarse-grained distributions. Of an f-divergence, d = q f(p / q) with f convex, that is at most the
 *     whole's (data processing: Csiszar 1967), and 0 only if the listed ids and the sum of the others agree;
 *   - the listed ids, both made to sum to 1 over them (truncated, no tail).
 * With s_i = q_i d'(q_i), the slope by log q_i, softmax's chain rule is
 *   dD/dz_j = (s_i q_j / Q_i - q_j sum_i s_i) / T,
 * where j is of point i, whose q is Q_i (q_j itself, but for the tail). A multiple of q in s cancels there;
 * losses leave out what they can of it, since floats would not cancel it. Work and memory are one row's.
 */
#ifndef LB_LOSS_DIVERGENCE_H
#define LB_LOSS_DIVERGENCE_H

#include "common/nn/vecmath.h"
#include "trainer/loss/loss.h"

/* Least probability in a quotient or logarithm: less is none in a float. */
#define LB_LEAST_P 1.17549435e-38f
/* Least mass of the student's tail in a quotient or logarithm: far above what floats lose (their softmax is 0
 * below 1.2e-38) and far below any mass that matters. */
#define LB_LEAST_TAIL 1e-30

/* Points that follow each other. */
struct lb_points {
    int64_t n;
    int64_t first;      /* the place of the first in target->p or p_at; k: the tail */
    const float *p, *q; /* [n] */
};

/* Returns the sum of d, and s in slope [n]. */
typedef double (*lb_divergence)(const struct lb_points *points, const void *context, float *slope);

/* L = factor D; adds scale dL/dz to dz. Uses row->work. */
double lb_divergence_row(struct lb_row *row, const struct lb_target *target, lb_divergence divergence,
                         const void *context, double factor, float scale, float *dz);
/* The sum of d alone. */
double lb_divergence_sum(struct lb_row *row, const struct lb_target *target, lb_divergence divergence,
                         const void *context);

/* rest = q without the target's ids; returns their sum, at least LB_LEAST_TAIL. Nothing is subtracted, so
 * that the least tail keeps its digits. */
double lb_student_tail(const struct lb_row *row, const struct lb_softmax *s, const struct lb_target *t,
                       float *rest);

/* What other losses come to at the ends of their parameters. */
double lb_forward_kl(struct lb_row *row, const struct lb_target *target, const struct lb_loss_args *args,
                     float scale, float *dz);
double lb_reverse_kl_points(const struct lb_points *x, const void *context, float *slope);

static inline float lb_least_p(float x) {
    return x > LB_LEAST_P ? x : LB_LEAST_P;
}

/* log(1 + u) of u >= -1 (there of LB_LEAST_P), with the digits that 1 + u loses of a small u. */
static inline float lb_log_above(float u) {
    float x = lb_least_p(1 + u), above = x - 1, log_x = lb_logf(x);
    return above == 0 ? u : log_x * (u / above);
}

#endif
