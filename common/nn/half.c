#include "common/nn/half.h"

#include <string.h>
#ifdef __F16C__
#include <immintrin.h>
#endif

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}

float lb_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 0x1Fu;
    uint32_t mantissa = h & 0x3FFu;
    if (exponent == 0x1F) { /* infinity, or a NaN, which becomes quiet as the hardware's does */
        return float_of(sign | 0x7F800000u | (mantissa << 13) | (mantissa != 0 ? 0x400000u : 0));
    }
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24, exact */
        float magnitude = (float)mantissa * 0x1p-24f;
        return float_of(sign | bits_of(magnitude));
    }
    return float_of(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t lb_f32_to_f16(float f) {
    uint32_t u = bits_of(f);
    uint16_t sign = (uint16_t)((u >> 16) & 0x8000u);
    uint32_t magnitude = u & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) {
        return (uint16_t)(sign | 0x7E00u | ((magnitude >> 13) & 0x3FFu));
    }
    if (magnitude >= 0x477FF000u) { /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7C00u);
    }
    if (magnitude <
        0x38800000u) { /* below 2^-14: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits */
        uint32_t shifted = bits_of(float_of(magnitude) + 0.5f);
        return (uint16_t)(sign | (shifted - 0x3F000000u));
    }
    uint32_t odd = (magnitude >> 13) & 1u;
    return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xFFFu + odd) >> 13));
}

float lb_bf16_to_f32(uint16_t h) {
    return float_of((uint32_t)h << 16);
}

uint16_t lb_f32_to_bf16(float f) {
    uint32_t u = bits_of(f);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) {
        return (uint16_t)((u >> 16) | 0x40u); /* stays a NaN */
    }
    return (uint16_t)((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

/* Rows come from mapped files: a format's element may start at any byte. */
static uint16_t load_u16(const unsigned char *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return h;
}

void lb_f16_row(const uint16_t *src, float *dst, int64_t n) {
    const unsigned char *p = (const unsigned char *)src;
    int64_t i = 0;
#ifdef __AVX512F__
    for (; i + 16 <= n; i += 16) {
        _mm512_storeu_ps(dst + i,
                         _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p + 2 * i))));
    }
#endif
#ifdef __F16C__
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(dst + i,
                         _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p + 2 * i))));
    }
#endif
    for (; i < n; i++) {
        dst[i] = lb_f16_to_f32(load_u16(p + 2 * i));
    }
}

void lb_f16_row_from(const float *src, uint16_t *dst, int64_t n) {
    unsigned char *p = (unsigned char *)dst;
    int64_t i = 0;
#ifdef __F16C__
    for (; i + 8 <= n; i += 8) {
        __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm_storeu_si128((__m128i *)(void *)(p + 2 * i), h);
    }
#endif
    for (; i < n; i++) {
        uint16_t h = lb_f32_to_f16(src[i]);
        memcpy(p + 2 * i, &h, 2);
    }
}

/* Seen as whole numbers, so that the loop becomes one of vectors. */
void lb_bf16_row(const uint16_t *src, float *dst, int64_t n) {
    typedef uint16_t u16_any __attribute__((aligned(1), may_alias));
    typedef uint32_t u32_any __attribute__((may_alias));
    const u16_any *restrict from = src;
    u32_any *restrict to = (void *)dst;
    for (int64_t i = 0; i < n; i++) {
        to[i] = (uint32_t)from[i] << 16;
    }
}

void lb_bf16_row_from(const float *src, uint16_t *dst, int64_t n) {
    unsigned char *p = (unsigned char *)dst;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = lb_f32_to_bf16(src[i]);
        memcpy(p + 2 * i, &h, 2);
    }
}
