/* One row of the student's logits with what losses share: its softmax at each temperature is made once.
 */
#ifndef LB_LOSS_ROW_H
#define LB_LOSS_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LB_ROW_TEMPERATURES 16

/* q = exp(z / T - lse), lse = log sum exp(z / T) */
struct lb_softmax {
    double temperature, lse;
    float *q; /* [V] */
};

struct lb_row {
    const float *z; /* [V] logits */
    int64_t v;
    int32_t label;    /* the right class, -1: none */
    float *work;      /* [V]: whoever computes may use it */
    float *apart;     /* [V] where a loss is clamped: its gradient until it is known to count; else NULL */
    int32_t *top_ids; /* where a loss is on what is aligned: whoever computes may use them, as many */
    float *top;       /* as a teacher lists; else NULL */
    unsigned n_room, n_made, next;
    struct lb_softmax made[LB_ROW_TEMPERATURES];
};

/* Floats of memory that a row of v classes with room for softmaxes at n temperatures needs (n is cut to
 * LB_ROW_TEMPERATURES, and at least 1). */
size_t lb_row_floats(int64_t v, unsigned n_temperatures);
/* memory [lb_row_floats] stays the caller's. */
void lb_row_init(struct lb_row *row, int64_t v, unsigned n_temperatures, float *memory);
/* Another row: what was made of the last one is forgotten. */
void lb_row_begin(struct lb_row *row, const float *z, int32_t label);
/* Made at the first call for a temperature; good until begin. (With more temperatures than there is room for,
 * until the next call.) */
const struct lb_softmax *lb_row_softmax(struct lb_row *row, double temperature);
/* The sum of x [n], as long as a row: of blocks in float, of these in double. */
double lb_row_sum(const float *x, int64_t n);
/* The sum of a b [n], made in the same way. */
double lb_row_inner(const float *a, const float *b, int64_t n);

#endif
