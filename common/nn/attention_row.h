/* One row of a sequence, the newest, against what a cache holds of it: what writing texts does at each step.
 * Internal to common/nn.
 *
 * attention.c has a vector's lanes be rows, of which there is one here, so that nearly all of its work would
 * be for nobody; here they are keys, and then columns of values. Each number is made of the same operations
 * in the same order: a row's bits are those that it has there.
 */
#ifndef LB_NN_ATTENTION_ROW_H
#define LB_NN_ATTENTION_ROW_H

#include "common/nn/ops.h"

#include <stdbool.h>

/* Keys are looked at by so many: between blocks the maximum changes, and what there is so far is scaled. */
#define LB_ATTENTION_KEYS 64
/* Heads that one call takes, at most. */
#define LB_ATTENTION_HEADS 8

struct lb_attention_row {
    int64_t heads, share,
        dim;           /* heads whose q and out begin here; so many have a key/value head together; D */
    int64_t first;     /* which of the row's heads the first one is */
    int64_t kv_stride; /* G * D */
    int64_t low, high; /* the keys it sees */
    float scale, softcap;
    const float *q;     /* [heads, D] */
    const float *k, *v; /* of the sequence, as lb_kv_layer has them */
    float *out;         /* [heads, D] */
};

/* Puts n rows of keys and values [n, kv_stride] behind those that a place holds, where there is room. */
void lb_attention_hold(const struct lb_kv_layer *kv, const struct lb_kv_place *place, const float *k,
                       const float *v, int64_t n, int64_t kv_stride);
/* Whether heads of that width are taken. */
bool lb_attention_row_fits(int64_t dim);
void lb_attention_row(const struct lb_attention_row *row);

#endif
