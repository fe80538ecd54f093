#include "common/nn/dots.h"

#include "common/nn/panel.h"

/* Columns of a block, and rows whose sums with so many columns fit the registers: they share the reading of
 * both. */
#define COLUMNS 4
#if LB_LANES == 16
#define ROWS 4
#else
#define ROWS 2
#endif

/* ---- lanes added up ---------------------------------------------------------------------------------------
 */

/* Halves to halves. */
static float lane_sum(lb_vf v) {
    float a[LB_LANES];
    lb_vstore(a, v);
    for (int n = LB_LANES / 2; n > 0; n /= 2) {
        for (int i = 0; i < n; i++) {
            a[i] += a[i + n];
        }
    }
    return a[0];
}

/* Lanes p and q of each four of a, then those of b, four by four. */
#define OF_FOUR(four, p, q)                                                                                  \
    4 * (four) + (p), 4 * (four) + (q), LB_LANES + 4 * (four) + (p), LB_LANES + 4 * (four) + (q)
#if LB_LANES == 16
#define OF_ALL(p, q) OF_FOUR(0, p, q), OF_FOUR(1, p, q), OF_FOUR(2, p, q), OF_FOUR(3, p, q)
#elif LB_LANES == 8
#define OF_ALL(p, q) OF_FOUR(0, p, q), OF_FOUR(1, p, q)
#else
#define OF_ALL(p, q) OF_FOUR(0, p, q)
#endif
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)

/* Four numbers of each sum become one: out[c] of the sums whose fours s[c] holds, in each four of lanes. */
static inline lb_vf sum_fours(lb_vf s0, lb_vf s1, lb_vf s2, lb_vf s3) {
    lb_vf a = PICK(s0, s1, OF_ALL(0, 1)) + PICK(s0, s1, OF_ALL(2, 3));
    lb_vf b = PICK(s2, s3, OF_ALL(0, 1)) + PICK(s2, s3, OF_ALL(2, 3));
    return PICK(a, b, OF_ALL(0, 2)) + PICK(a, b, OF_ALL(1, 3));
}

/* Column c's sums of all rows, each with four numbers left; a vector of four lanes is left as it is. */
#if LB_LANES == 16
#define LOW 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define HIGH 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define EVEN 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27
#define ODD 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31
static inline lb_vf to_fours(lb_vf s[ROWS][COLUMNS], int c) {
    lb_vf a = PICK(s[0][c], s[1][c], LOW) + PICK(s[0][c], s[1][c], HIGH);
    lb_vf b = PICK(s[2][c], s[3][c], LOW) + PICK(s[2][c], s[3][c], HIGH);
    return PICK(a, b, EVEN) + PICK(a, b, ODD);
}
#elif LB_LANES == 8
static inline lb_vf to_fours(lb_vf s[ROWS][COLUMNS], int c) {
    return PICK(s[0][c], s[1][c], 0, 1, 2, 3, 8, 9, 10, 11) +
           PICK(s[0][c], s[1][c], 4, 5, 6, 7, 12, 13, 14, 15);
}
#endif

/* lane_sum of each, with a few shuffles for all. */
static inline void block_sums(lb_vf s[ROWS][COLUMNS], float out[ROWS][COLUMNS]) {
#if LB_LANES == 4
    for (int r = 0; r < ROWS; r++) {
        lb_vstore(out[r], sum_fours(s[r][0], s[r][1], s[r][2], s[r][3]));
    }
#else
    lb_vstore(out[0], sum_fours(to_fours(s, 0), to_fours(s, 1), to_fours(s, 2), to_fours(s, 3)));
#endif
}

/* ---- products ---------------------------------------------------------------------------------------------
 */

/* The same, in a register: else gcc reads it from memory again wherever it is multiplied, and where rows of w
 * don't begin with lines of the cache every reading is two. */
static inline lb_vf in_register(lb_vf v) {
#if LB_LANES == 16
    __asm__("" : "+v"(v));
#elif defined(__x86_64__)
    __asm__("" : "+x"(v));
#endif
    return v;
}

static float dot(const float *a, const float *b, int64_t k) {
    lb_vf sum = {0};
    int64_t i = 0;
    for (; i + LB_LANES <= k; i += LB_LANES) {
        sum = lb_vfma(lb_vload(a + i), lb_vload(b + i), sum);
    }
    if (i < k) {
        sum = lb_vfma(lb_vload_part(a + i, k - i), lb_vload_part(b + i, k - i), sum);
    }
    return lane_sum(sum);
}

static inline void put(float *y, const float *v, float beta, int64_t n) {
    if (beta == 0) {
        memcpy(y, v, (size_t)n * sizeof *y);
        return;
    }
    for (int64_t c = 0; c < n; c++) {
        y[c] = v[c] + beta * y[c];
    }
}

/* n rows, at most ROWS, against COLUMNS of w; next [k] will soon be wanted. */
LB_ALWAYS_INLINE void block(const struct lb_dots *d, const int n, const float *x, const float *w,
                            const float *next, float *y) {
    lb_vf s[ROWS][COLUMNS] = {{{0}}};
    int64_t i = 0, ldx = d->ldx, ldw = d->ldw, k = d->k;
    for (; i + LB_LANES <= k; i += LB_LANES) {
        lb_vf right[COLUMNS];
        __builtin_prefetch(next + i);
#pragma GCC unroll 4
        for (int c = 0; c < COLUMNS; c++) {
            right[c] = in_register(lb_vload(w + c * ldw + i));
        }
#pragma GCC unroll 4
        for (int r = 0; r < n; r++) {
            lb_vf left = in_register(lb_vload(x + r * ldx + i));
#pragma GCC unroll 4
            for (int c = 0; c < COLUMNS; c++) {
                s[r][c] = lb_vfma(left, right[c], s[r][c]);
            }
        }
    }
    if (i < k) {
        lb_vf right[COLUMNS];
        for (int c = 0; c < COLUMNS; c++) {
            right[c] = lb_vload_part(w + c * ldw + i, k - i);
        }
#pragma GCC unroll 4
        for (int r = 0; r < n; r++) {
            lb_vf left = lb_vload_part(x + r * ldx + i, k - i);
#pragma GCC unroll 4
            for (int c = 0; c < COLUMNS; c++) {
                s[r][c] = lb_vfma(left, right[c], s[r][c]);
            }
        }
    }
    float sums[ROWS][COLUMNS];
    block_sums(s, sums);
    for (int r = 0; r < n; r++) {
        put(y + r * d->ldy, sums[r], d->beta, COLUMNS);
    }
}

/* As many rows as a block holds, but never so that one is left alone: it would not share. */
static int64_t rows_of_block(int64_t left) {
    return left < ROWS ? left : left == ROWS + 1 && ROWS > 2 ? ROWS - 1 : ROWS;
}

void lb_dots(const struct lb_dots *d, int64_t m, int64_t n) {
    int64_t j = 0;
    for (; j + COLUMNS <= n; j += COLUMNS) {
        const float *w = d->w + j * d->ldw;
        const float *next = j + 2 * COLUMNS <= n ? w + COLUMNS * d->ldw : w;
        int64_t coming = 0; /* each block of rows asks for one of the next columns */
        for (int64_t i = 0, rows; i < m; i += rows) {
            const float *x = d->x + i * d->ldx;
            float *y = d->y + i * d->ldy + j;
            rows = rows_of_block(m - i);
            const float *fetched = next + coming++ % COLUMNS * d->ldw;
            switch (rows) {
#if ROWS == 4
            case 4:
                block(d, 4, x, w, fetched, y);
                break;
            case 3:
                block(d, 3, x, w, fetched, y);
                break;
#endif
            case 2:
                block(d, 2, x, w, fetched, y);
                break;
            default:
                block(d, 1, x, w, fetched, y);
                break;
            }
        }
    }
    for (; j < n; j++) {
        for (int64_t i = 0; i < m; i++) {
            float v = dot(d->x + i * d->ldx, d->w + j * d->ldw, d->k);
            put(d->y + i * d->ldy + j, &v, d->beta, 1);
        }
    }
}
