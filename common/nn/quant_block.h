/* Blocks of GGUF's formats as they lie in files, and what their readers share. Internal to common/nn.
 *
 * All members are bytes: a block may begin at any address. Halves are little-endian f16.
 */
#ifndef LB_NN_QUANT_BLOCK_H
#define LB_NN_QUANT_BLOCK_H

#include "common/nn/half.h"
#include "common/nn/quant.h"

#include <string.h>
#if defined(__F16C__) || defined(__AVX2__)
#include <immintrin.h>
#endif

/* ---- 32 weights: codes 0-15 in the low halves of bytes, 16-31 in the high ones ---- */

struct lb_q4_0_block {
    uint8_t scale[2], q[16];
};
struct lb_q4_1_block {
    uint8_t scale[2], least[2], q[16];
};
struct lb_q5_0_block {
    uint8_t scale[2], fifth[4], q[16]; /* bit i of fifth: the highest bit of code i */
};
struct lb_q5_1_block {
    uint8_t scale[2], least[2], fifth[4], q[16];
};
struct lb_q8_0_block {
    uint8_t scale[2];
    int8_t q[32];
};
struct lb_iq4_nl_block {
    uint8_t scale[2], q[16];
};
struct lb_mxfp4_block {
    uint8_t exponent, q[16]; /* E8M0: a power of two */
};

/* ---- 256 weights: scales of 16 or 32 of them are small integers, multiplied with the block's scale ---- */

struct lb_q2_k_block {
    uint8_t scales[16]; /* low half: scale, high half: least, each of 16 weights */
    uint8_t q[64], scale[2], least[2];
};
struct lb_q3_k_block {
    uint8_t third[32], q[64], scales[12], scale[2];
};
struct lb_q4_k_block {
    uint8_t scale[2], least[2], scales[12], q[128];
};
struct lb_q5_k_block {
    uint8_t scale[2], least[2], scales[12], fifth[32], q[128];
};
struct lb_q6_k_block {
    uint8_t low[128], high[64];
    int8_t scales[16];
    uint8_t scale[2];
};
struct lb_iq4_xs_block {
    uint8_t scale[2], scales_high[2], scales_low[4], q[128];
};

#define LB_CHECK_BLOCK(NAME, name, ggml, elements, bytes, ...)                                               \
    _Static_assert(sizeof(struct lb_##name##_block) == (bytes), #NAME " blocks have no padding");
LB_BLOCK_FORMATS(LB_CHECK_BLOCK)

static inline float lb_quant_half(const uint8_t half[2]) {
    uint16_t h = (uint16_t)(half[0] | half[1] << 8);
#ifdef __F16C__
    return _cvtsh_ss(h);
#else
    return lb_f16_to_f32(h);
#endif
}

/* 32 weights whose codes are places in a table: those of the low halves of q, then those of the high ones. */
static inline void lb_quant_look_up(const int8_t values[16], float scale, const uint8_t *restrict q,
                                    float *restrict dst) {
#ifdef __AVX2__
    const __m128i mask = _mm_set1_epi8(15), table = _mm_loadu_si128((const __m128i *)(const void *)values);
    const __m256 by = _mm256_set1_ps(scale);
    __m128i codes = _mm_loadu_si128((const __m128i *)(const void *)q);
    for (int half = 0; half < 2; half++, dst += 16) {
        __m128i found = _mm_shuffle_epi8(table, _mm_and_si128(codes, mask));
        __m256 first = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(found));
        __m256 second = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(found, 8)));
        _mm256_storeu_ps(dst, _mm256_mul_ps(by, first));
        _mm256_storeu_ps(dst + 8, _mm256_mul_ps(by, second));
        codes = _mm_srli_epi16(codes, 4);
    }
#else
    for (int j = 0; j < 16; j++) {
        dst[j] = scale * (float)values[q[j] & 15];
        dst[16 + j] = scale * (float)values[q[j] >> 4];
    }
#endif
}

/* The values of IQ4_NL's and IQ4_XS's codes (ggml's kvalues_iq4nl). */
static const int8_t lb_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};

#endif
