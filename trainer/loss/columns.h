/* Classes as columns of a micro-batch's rows: how a teacher's and the student's probability of one class go
 * together from row to row. What losses between samples (dist.c) are made of, since one row does not tell it.
 */
#ifndef LB_LOSS_COLUMNS_H
#define LB_LOSS_COLUMNS_H

#include <stddef.h>
#include <stdint.h>

/* Per class j the correlation (Pearson's) r_j of p and q over rows i that count u_i times each, as what a
 * row's gradient is made of:
 *   dr_j / dq_ij = u_i (by_p (p_ij - mean_p) - by_q (q_ij - mean_q)). */
struct lb_columns {
    double rows;  /* sum of u */
    double apart; /* 1 - the mean of r over classes; r is 0 where p or q is even, or less than 1e-18 */
    const float *mean_p, *mean_q; /* [V] */
    const float *by_p, *by_q;     /* [V] 1 / sqrt(A B) and r / B of the squares A of p and B of q; else 0 */
};

/* Sums over rows, of which lb_column_sums_add is told chunk by chunk. */
struct lb_column_sums {
    int64_t v;
    double rows;
    double *p, *q, *pp, *qq, *pq; /* [V] weighted */
};

/* Doubles that the sums want, and floats that the columns want, for v classes. */
size_t lb_column_sums_doubles(int64_t v);
size_t lb_columns_floats(int64_t v);
/* memory [lb_column_sums_doubles] stays the caller's. Nothing is summed yet. */
void lb_column_sums_init(struct lb_column_sums *sums, int64_t v, double *memory);
/* Adds n rows p, q [n, V] of weights u [n]; rows of weight 0 are not read. Their order decides the bits, how
 * many threads there are does not. */
void lb_column_sums_add(struct lb_column_sums *sums, int64_t n, const float *p, const float *q,
                        const double *u);
/* memory [lb_columns_floats] stays the caller's, and out's. */
void lb_columns_make(const struct lb_column_sums *sums, float *memory, struct lb_columns *out);

#endif
