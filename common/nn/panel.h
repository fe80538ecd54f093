/* A small matrix product for blocks that are in cache, inlined into attention's loops. Internal to common/nn.
 *
 * Each element of C is one chain of fused multiply-adds in the order of k: its bits depend neither on its
 * place in C nor on the sizes of the block. So a row of attention has the same bits alone, in a batch and
 * with a KV cache.
 */
#ifndef LB_NN_PANEL_H
#define LB_NN_PANEL_H

#include "common/nn/simd.h"

#include <stdbool.h>

/* Element (i, k) of A is a[i * by_row + k * by_k]: a matrix or its transpose. */
struct lb_panel_a {
    const float *a;
    int64_t by_row, by_k;
};

#define LB_ALWAYS_INLINE static inline __attribute__((always_inline))

/* n rows (at most 4) by m vectors (at most 2) of C, or by the first `part` lanes of one vector. */
LB_ALWAYS_INLINE void lb_panel_tile(const int n, const int m, int64_t part, int64_t n_k, struct lb_panel_a a,
                                    const float *b, int64_t ldb, float *c, int64_t ldc, bool add) {
    lb_vf sum[4][2];
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
#pragma GCC unroll 2
        for (int l = 0; l < m; l++) {
            sum[i][l] = !add               ? lb_vset(0)
                        : part == LB_LANES ? lb_vload(c + i * ldc + l * LB_LANES)
                                           : lb_vload_part(c + i * ldc, part);
        }
    }
    for (int64_t k = 0; k < n_k; k++) {
        lb_vf right[2];
#pragma GCC unroll 2
        for (int l = 0; l < m; l++) {
            right[l] =
                part == LB_LANES ? lb_vload(b + k * ldb + l * LB_LANES) : lb_vload_part(b + k * ldb, part);
        }
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) {
            lb_vf left = lb_vset(a.a[i * a.by_row + k * a.by_k]);
#pragma GCC unroll 2
            for (int l = 0; l < m; l++) {
                sum[i][l] = lb_vfma(left, right[l], sum[i][l]);
            }
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
#pragma GCC unroll 2
        for (int l = 0; l < m; l++) {
            if (part == LB_LANES) {
                lb_vstore(c + i * ldc + l * LB_LANES, sum[i][l]);
            } else {
                lb_vstore_part(c + i * ldc, sum[i][l], part);
            }
        }
    }
}

LB_ALWAYS_INLINE void lb_panel_columns(const int m, int64_t part, int64_t n, int64_t n_k, struct lb_panel_a a,
                                       const float *b, int64_t ldb, float *c, int64_t ldc, bool add) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        lb_panel_tile(4, m, part, n_k, a, b, ldb, c + i * ldc, ldc, add);
        a.a += 4 * a.by_row;
    }
    for (; i < n; i++) {
        lb_panel_tile(1, m, part, n_k, a, b, ldb, c + i * ldc, ldc, add);
        a.a += a.by_row;
    }
}

/* c[i, l] = (add ? c[i, l] : 0) + sum_k A(i, k) b[k, l]; i < n, l < n_cols, k < n_k. Rows of b are ldb floats
 * apart, of c ldc. */
LB_ALWAYS_INLINE void lb_panel(int64_t n, int64_t n_cols, int64_t n_k, struct lb_panel_a a, const float *b,
                               int64_t ldb, float *c, int64_t ldc, bool add) {
    int64_t l = 0;
    for (; l + 2 * LB_LANES <= n_cols; l += 2 * LB_LANES) {
        lb_panel_columns(2, LB_LANES, n, n_k, a, b + l, ldb, c + l, ldc, add);
    }
    for (; l + LB_LANES <= n_cols; l += LB_LANES) {
        lb_panel_columns(1, LB_LANES, n, n_k, a, b + l, ldb, c + l, ldc, add);
    }
    if (l < n_cols) {
        lb_panel_columns(1, n_cols - l, n, n_k, a, b + l, ldb, c + l, ldc, add);
    }
}

#endif
