/* GGUF's block formats: a scale (and sometimes more) stands before the small integers of 32 or 256 weights.
 *
 * One line of the table is a format: enum lb_dtype, its name, what GGUF calls it and `limbeck export --dtype`
 * come from there. Its struct lb_<name>_block (quant_block.h) and lb_<name>_widen stand in quant.c or
 * quant_k.c. Layouts and values are those of ggml (ggml-common.h, ggml-quants.c), to the last bit.
 */
#ifndef LB_NN_QUANT_H
#define LB_NN_QUANT_H

#include <stdint.h>

/* NAME, name, ggml's type number, weights in a block, bytes of a block, llama.cpp's general.file_type of
 * files whose matrices are stored so, what narrows to it (NULL: only read here). New ones go to the end: the
 * place in the list is part of fingerprints. */
#define LB_BLOCK_FORMATS(X)                                                                                  \
    X(Q8_0, q8_0, 8, 32, 34, 7, lb_q8_0_narrow)                                                              \
    X(Q4_0, q4_0, 2, 32, 18, 2, lb_q4_0_narrow)                                                              \
    X(Q4_1, q4_1, 3, 32, 20, 3, lb_q4_1_narrow)                                                              \
    X(Q5_0, q5_0, 6, 32, 22, 8, lb_q5_0_narrow)                                                              \
    X(Q5_1, q5_1, 7, 32, 24, 9, lb_q5_1_narrow)                                                              \
    X(Q2_K, q2_k, 10, 256, 84, 10, NULL)                                                                     \
    X(Q3_K, q3_k, 11, 256, 110, 12, NULL)                                                                    \
    X(Q4_K, q4_k, 12, 256, 144, 14, lb_q4_k_narrow)                                                          \
    X(Q5_K, q5_k, 13, 256, 176, 17, NULL)                                                                    \
    X(Q6_K, q6_k, 14, 256, 210, 18, lb_q6_k_narrow)                                                          \
    X(IQ4_NL, iq4_nl, 20, 32, 18, 25, NULL)                                                                  \
    X(IQ4_XS, iq4_xs, 23, 256, 136, 30, NULL)                                                                \
    X(MXFP4, mxfp4, 39, 32, 17, 38, NULL)

/* lb_<name>_widen: dst[n] = the n weights at src, which may lie at any byte; n is a multiple of the block. */
#define LB_DECLARE_WIDEN(NAME, name, ...)                                                                    \
    void lb_##name##_widen(const unsigned char *src, float *dst, int64_t n);
LB_BLOCK_FORMATS(LB_DECLARE_WIDEN)

/* The inverse, each weight to the nearest that the block's scale allows, as ggml's plain quantisers do
 * (quantize_row_<name>_ref). Where a block's scale is too small for an f16, its weights become zeros. Of Q4_K
 * and Q6_K quant_k_narrow.c looks for the least squared error, which is below that of ggml's search. */
void lb_q8_0_narrow(const float *src, unsigned char *dst, int64_t n);
void lb_q4_0_narrow(const float *src, unsigned char *dst, int64_t n);
void lb_q4_1_narrow(const float *src, unsigned char *dst, int64_t n);
void lb_q5_0_narrow(const float *src, unsigned char *dst, int64_t n);
void lb_q5_1_narrow(const float *src, unsigned char *dst, int64_t n);
void lb_q4_k_narrow(const float *src, unsigned char *dst, int64_t n);
void lb_q6_k_narrow(const float *src, unsigned char *dst, int64_t n);

#endif
