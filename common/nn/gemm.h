/* Matrix products: the only file that talks to BLAS.
 *
 * Products are cut into tiles whose shapes depend on the operands' shapes (and on the batch's sequences)
 * only; each tile is one single-threaded sgemm, tiles are shared out among OpenMP threads. So the bits of a
 * result depend neither on the number of threads nor, where ragged is given, on what other sequences stand in
 * the batch: kernels that treat rows differently by their place still see each sequence at the same place.
 * Row-major throughout. Not for concurrent use from several threads that are themselves in parallel regions
 * (a call inside a parallel region runs on that thread alone).
 */
#ifndef LB_NN_GEMM_H
#define LB_NN_GEMM_H

#include "common/nn/tensor.h"

/* To be called first thing in main(), before BLAS is used: when the CPU has AVX-512 and the library would
 * choose kernels without it, sets OPENBLAS_CORETYPE and starts the program again. threads 0: as many as
 * cores. */
void lb_gemm_setup(int threads, char **argv);
/* "OpenBLAS 0.3.21 Zen, 2 threads" */
const char *lb_gemm_description(void);

/* y[m,n] = x[m,k] w[n,k]^T + beta y. ragged (may be NULL) covers the m rows. ld: floats between rows. */
void lb_gemm_nt(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw,
                float beta, float *y, int64_t ldy, const struct lb_ragged *ragged);
/* y[m,n] = x[m,k] w[k,n] + beta y (a linear's input gradient: dx = dy W). */
void lb_gemm_nn(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw,
                float beta, float *y, int64_t ldy);
/* y[m,n] = x[k,m]^T w[k,n] + beta y (a weight's gradient: dW = dy^T x). */
void lb_gemm_tn(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw,
                float beta, float *y, int64_t ldy);

/* The plain triple loop in double, kept as the reference that tests compare with: same contract as
 * lb_gemm_nt. */
void lb_gemm_nt_reference(int64_t m, int64_t n, int64_t k, const float *x, const float *w, float *y);

#endif
