/* Each op's forward in double, written straight from its formula: what the tests compare the float ops with.
 */
#ifndef LB_TESTS_REFERENCE_H
#define LB_TESTS_REFERENCE_H

#include "common/nn/tensor.h"

#include <stdbool.h>

/* bias NULL and centred false: RMSNorm. x, out [n, c] */
void reference_norm(const double *x, const double *w, const double *bias, int64_t n, int64_t c, double eps,
                    bool centred, double *out);
/* x [n, heads * d]; the first 2 half of each head are turned, row i by positions[i] frequency[j]. */
void reference_rope(const double *x, int64_t n, int heads, int64_t d, int64_t half, const int32_t *positions,
                    const double *frequency, double factor, double *out);
double reference_silu(double x);
double reference_gelu(double x, bool tanh_form);

struct reference_attention {
    int heads, kv_heads, dim, window;
    double scale, softcap; /* softcap 0: none */
    const struct lb_ragged *ragged;
    bool both_ways;
    const double *factor; /* NULL: none; of what weighs v, as probs: dropout */
};
/* probs (may be NULL): per sequence [H, T, T]. */
void reference_attention(const struct reference_attention *a, const double *q, const double *k,
                         const double *v, double *out, double *probs);

#endif
