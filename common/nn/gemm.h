/* Matrix products: the only file that talks to BLAS.
 *
 * Products are cut into tiles whose shapes depend on the operands' shapes (and on the batch's sequences)
 * only; each tile is one single-threaded sgemm, tiles are shared out among OpenMP threads. So the bits of a
 * result depend neither on the number of threads nor, where ragged is given, on what other sequences stand in
 * the batch: kernels that treat rows differently by their place still see each sequence at the same place.
 * Row-major throughout. A call inside a parallel region runs on that thread alone, with the same bits, and
 * several of its threads may be in such calls at once, each with a result of its own.
 */
#ifndef LB_NN_GEMM_H
#define LB_NN_GEMM_H

#include "common/nn/cpu.h"
#include "common/nn/tensor.h"

#include <stdbool.h>

/* To be called first thing in main(), before BLAS is used: when the CPU has AVX-512 or AVX2 and the library
 * would choose kernels without it, sets OPENBLAS_CORETYPE and starts the program again. threads 0: what
 * OMP_NUM_THREADS says, else as many as lb_cpus finds usable. */
void lb_gemm_setup(int threads, char **argv);
/* Whose kernels such a CPU should use instead of core's, by OpenBLAS's names; NULL: those are well. OpenBLAS
 * takes the plainest on a CPU that it does not know: 0.3.21 has SSE3's for Emerald Rapids. */
const char *lb_gemm_better_core(const char *core, enum lb_cpu_class cpu);
/* "OpenBLAS 0.3.21 Zen, 2 threads" */
const char *lb_gemm_description(void);

/* ---- products with weights as they are stored ----
 *
 * All of a model's products with its own weights go through these, so that another library of kernels can
 * stand behind them: one that reads narrow formats, or keeps a packed form in the weight. A weight of any
 * format gives the bits of the same weight widened to FP32.
 */

/* out[n, C] = rows first .. first + n - 1 of w as FP32. */
void lb_gemm_widen(const struct lb_weight *w, int64_t first, int64_t n, float *out);

/* Some rows of a weight [O, C] ready to be multiplied with, as columns of results: FP32 where it is stored,
 * other formats widened in a workspace. */
struct lb_gemm_panel {
    const struct lb_weight *w;
    int64_t first, n;  /* rows of w */
    bool strips;       /* widened a few rows at a time, in each product */
    const float *data; /* [n, C]; with strips nothing yet */
    float *workspace;
};
/* Panels begin at multiples of so many rows: how a product is cut into tiles does not depend on panels. */
int64_t lb_gemm_panel_step(const struct lb_weight *w);
/* Floats of workspace for a panel of n rows: 0 where none is needed (workspace may be NULL then). */
int64_t lb_gemm_panel_floats(const struct lb_weight *w, int64_t n);
/* Rows first .. first + n - 1 of w. longest: rows of the longest sequence that is multiplied with it (without
 * ragged, of the product); INT64_MAX where it also goes the way back. workspace is the panel's for as long as
 * it is used. */
struct lb_gemm_panel lb_gemm_panel(const struct lb_weight *w, int64_t first, int64_t n, int64_t longest,
                                   float *workspace);
/* y[m, n] = x[m, C] panel^T + beta y; rows of y lie ldy floats apart. ragged (may be NULL) covers the m
 * rows. */
void lb_gemm_by_panel(const float *x, int64_t m, const struct lb_gemm_panel *panel, float beta, float *y,
                      int64_t ldy, const struct lb_ragged *ragged);
/* dx[m, C] = dy[m, n] panel + beta dx; rows of dy lie ldy floats apart. */
void lb_gemm_by_panel_back(const float *dy, int64_t ldy, int64_t m, const struct lb_gemm_panel *panel,
                           float beta, float *dx);

/* Floats of workspace that a product with all of w takes; 0 for FP32. */
int64_t lb_gemm_weight_floats(const struct lb_weight *w);
/* y[m, O] = x[m, C] W^T + beta y, panel by panel: each row is widened once for all m. */
void lb_gemm_weight(const float *x, int64_t m, const struct lb_weight *w, float beta, float *y,
                    const struct lb_ragged *ragged, float *workspace);
/* dx[m, C] = dy[m, O] W + beta dx: the way back. */
void lb_gemm_weight_back(const float *dy, int64_t m, const struct lb_weight *w, float beta, float *dx,
                         float *workspace);

/* ---- products of plain matrices ---- */

/* y[m,n] = x' w' + beta y over a depth of k. x' is x[m,k], or the transpose of x[k,m]; w' is w[k,n], or the
 * transpose of w[n,k]. ld: floats between rows. */
struct lb_gemm_product {
    int64_t m, n, k;
    const float *x;
    int64_t ldx;
    const float *w;
    int64_t ldw;
    float *y;
    int64_t ldy;
    float beta;
    bool trans_x, trans_w;
    const float *bias;              /* [n] what y's rows are before, with beta 1; NULL: what they are */
    const struct lb_ragged *ragged; /* covers the m rows; NULL: they are one sequence's */
    bool waits;                     /* nobody reads y soon: see lb_gemm_run */
    int64_t tile_cols;              /* columns of a tile; 0: as n has it */
    /* lb_gemm_add's own: */
    bool follows;
    const struct lb_gemm_product *then;
};

#define LB_GEMM_LIST 64
/* Products that are made together: threads take their tiles as they come and meet once, at the end. None
 * reads what another writes; those with the same y (its shape, and whether it waits) are added up in the
 * order in which they came. The bits are those of one product after the other. Begins with n 0; what is
 * behind n is nobody's. */
struct lb_gemm_list {
    int n;
    struct lb_gemm_product products[LB_GEMM_LIST];
};
/* Adds a copy of it; what its pointers point at stays until it is made. A full list is run first. */
void lb_gemm_add(struct lb_gemm_list *list, const struct lb_gemm_product *product);
/* Makes all of them; without all, those that wait stay in the list until they are many enough to keep every
 * thread busy. */
void lb_gemm_run(struct lb_gemm_list *list, bool all);

/* One at once: y[m,n] = x[m,k] w[n,k]^T + beta y. */
void lb_gemm_nt(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw,
                float beta, float *y, int64_t ldy, const struct lb_ragged *ragged);
/* y[m,n] = x[m,k] w[k,n] + beta y. */
void lb_gemm_nn(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw,
                float beta, float *y, int64_t ldy);
/* y[m,n] = x[k,m]^T w[k,n] + beta y (a weight's gradient: dW = dy^T x). */
void lb_gemm_tn(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw,
                float beta, float *y, int64_t ldy);

/* The plain triple loop in double, kept as the reference that tests compare with: same contract as
 * lb_gemm_nt. */
void lb_gemm_nt_reference(int64_t m, int64_t n, int64_t k, const float *x, const float *w, float *y);

#endif
