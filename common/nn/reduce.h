/* Reductions of rows of logits, in log space from the true maximum. V classes, K wanted.
 *
 * Rows that come in pieces are reduced as they come (lb_lse, lb_top): a row in one piece gives the bits of
 * the plain functions; in several, top-k still does and log-sum-exp may end in other last bits. */
#ifndef LB_NN_REDUCE_H
#define LB_NN_REDUCE_H

#include <math.h>
#include <stdint.h>

/* log sum_j exp(z[j] / temperature); sums in double. */
double lb_logsumexp(const float *z, int64_t v, double temperature);
/* q[j] = exp(z[j] / temperature - lse) */
void lb_softmax(const float *z, int64_t v, double temperature, double lse, float *q);
/* The same with z / temperature and the difference in floats: what gradients take. */
void lb_softmax_single(const float *z, int64_t v, double temperature, double lse, float *q);
/* The k largest, value descending, ties by lower id; k <= v. NaN sorts last. */
void lb_topk(const float *z, int64_t v, int64_t k, int32_t *ids, float *values);
/* Puts n ids with their values, which came in any order, in that order. */
void lb_sort_down(int32_t *ids, float *values, int64_t n);

/* log-sum-exp of a row that comes in pieces; starts as LB_LSE_EMPTY. */
struct lb_lse {
    double max; /* of what has come, NaN aside */
    double sum; /* of exp((z - max) / temperature) */
};
#define LB_LSE_EMPTY ((struct lb_lse){-INFINITY, 0})
void lb_lse_add(struct lb_lse *lse, const float *z, int64_t n, double temperature);
/* The same bits, and what the sum of this piece (n > 0) alone stands at after each LB_MARK_STEP of its
 * elements and after its last, relative to lse->max as it is then: marks [(n - 1) / LB_MARK_STEP + 1]; NULL:
 * nowhere. */
#define LB_MARK_STEP 256
#define LB_MARK_ROOM 256 /* marks of the largest piece that a head comes in */
void lb_lse_add_marks(struct lb_lse *lse, const float *z, int64_t n, double temperature, double *marks);
double lb_lse_value(const struct lb_lse *lse, double temperature);

/* The k largest of a row that comes in pieces, in the order of its ids; n starts as 0. */
struct lb_top {
    int32_t *ids;  /* [k] */
    float *values; /* [k] */
    int64_t k, n;  /* wanted, held */
};
/* The next n elements; the first of them has id first. */
void lb_top_add(struct lb_top *top, const float *z, int64_t n, int64_t first);
/* Puts them in lb_topk's order, at the row's end; nothing is added after it. */
void lb_top_finish(struct lb_top *top);

/* What the k largest leave of a row's probability. Feeds lse and top with the next n elements and keeps *rest
 * (which starts as 0): the sum of exp((z - max) / temperature) over all that top does not hold. The terms
 * that are taken off again are the very floats that were added, so that nothing but the additions in double
 * is rounded: about 1e-15 of the whole sum, where 1 minus the listed probabilities keeps 1e-7. marks: as for
 * lb_lse_add_marks. */
void lb_rest_add(double *rest, struct lb_lse *lse, struct lb_top *top, const float *z, int64_t n,
                 int64_t first, double temperature, double *marks);
/* log of its share in the whole, below 0, and never below LB_LOG_LEAST_REST (1e-12, well above the rounding):
 * so much is said of no rest as well. NaN where a logit is NaN or +inf. */
double lb_rest_value(double rest, const struct lb_lse *lse, const struct lb_top *top, double temperature);
#define LB_LEAST_REST 1e-12
#define LB_LOG_LEAST_REST (-27.631021115928547)

/* Some of a row's ids: only these are listed. */
struct lb_kept {
    const int32_t *ids; /* [n] rising */
    int64_t n;
};
/* The numbers of those of z's ids, first to first + n - 1, that are kept, into out; returns the place of the
 * first of them among all that are kept, and in *out_n how many they are. */
int64_t lb_kept_gather(const struct lb_kept *kept, const float *z, int64_t n, int64_t first, float *out,
                       int64_t *out_n);

/* What each part of the ids has of a row, as sums of exp((z - max) / temperature); starts as {0}. */
struct lb_parts {
    double rest;    /* of those kept that top does not hold */
    double inside;  /* of all that are kept */
    double outside; /* of all others */
};
/* As lb_rest_add, but top lists kept ids only, by their places. lse and parts as there; parts may be NULL:
 * then lse is fed where temperature is above 0. */
void lb_parts_add(struct lb_parts *parts, const struct lb_kept *kept, struct lb_lse *lse, struct lb_top *top,
                  const float *z, int64_t n, int64_t first, double temperature);
/* log of the shares in the whole of what is kept and not listed, and of what is not kept; bounded as
 * lb_rest_value. */
double lb_parts_rest(const struct lb_parts *parts, const struct lb_lse *lse, const struct lb_top *top,
                     double temperature);
double lb_parts_outside(const struct lb_parts *parts, const struct lb_lse *lse);

/* How many elements are at least as large as least. */
int64_t lb_count_above(const float *z, int64_t v, float least);
int64_t lb_argmax(const float *z, int64_t v);
/* Index of the first NaN or infinity, or -1. */
int64_t lb_first_nonfinite(const float *x, int64_t n);

#endif
