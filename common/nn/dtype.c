#include "common/nn/dtype.h"

#include "common/base/mem.h"

#include <assert.h>
#include <math.h>
#include <string.h>
#ifdef __F16C__
#include <immintrin.h>
#endif

/* GGUF's block_q8_0. */
struct q8_block {
    uint16_t scale; /* f16 */
    int8_t q[32];
};
_Static_assert(sizeof(struct q8_block) == 34, "a Q8_0 block is 34 bytes without padding");
_Static_assert(offsetof(struct q8_block, q) == 2, "a Q8_0 block starts with its scale");

static const struct {
    const char *name;
    size_t block_bytes;
    int block;
    bool weight;
} formats[LB_DTYPES] = {
    [LB_F32] = {"F32", 4, 1, true},    [LB_F16] = {"F16", 2, 1, true},
    [LB_BF16] = {"BF16", 2, 1, true},  [LB_F64] = {"F64", 8, 1, true},
    [LB_I8] = {"I8", 1, 1, false},     [LB_I16] = {"I16", 2, 1, false},
    [LB_I32] = {"I32", 4, 1, false},   [LB_I64] = {"I64", 8, 1, false},
    [LB_U8] = {"U8", 1, 1, false},     [LB_U16] = {"U16", 2, 1, false},
    [LB_U32] = {"U32", 4, 1, false},   [LB_U64] = {"U64", 8, 1, false},
    [LB_BOOL] = {"BOOL", 1, 1, false}, [LB_Q8_0] = {"Q8_0", sizeof(struct q8_block), 32, true},
};

const char *lb_dtype_name(enum lb_dtype dtype) {
    return (unsigned)dtype < LB_DTYPES ? formats[dtype].name : "?";
}

int lb_dtype_block(enum lb_dtype dtype) {
    assert((unsigned)dtype < LB_DTYPES);
    return formats[dtype].block;
}

size_t lb_dtype_block_bytes(enum lb_dtype dtype) {
    assert((unsigned)dtype < LB_DTYPES);
    return formats[dtype].block_bytes;
}

bool lb_dtype_bytes(enum lb_dtype dtype, int64_t n, size_t *out) {
    if ((unsigned)dtype >= LB_DTYPES || n < 0 || n % formats[dtype].block != 0) {
        return false;
    }
    uint64_t blocks = (uint64_t)(n / formats[dtype].block);
    if (blocks > SIZE_MAX) {
        return false;
    }
    return lb_mul_size((size_t)blocks, formats[dtype].block_bytes, out);
}

bool lb_dtype_is_weight(enum lb_dtype dtype) {
    return (unsigned)dtype < LB_DTYPES && formats[dtype].weight;
}

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

static void q8_row(const unsigned char *src, float *dst, int64_t n) {
    for (int64_t b = 0; b < n / 32; b++) {
        struct q8_block block;
        memcpy(&block, src + (size_t)b * sizeof block, sizeof block);
        float scale = lb_f16_to_f32(block.scale);
        for (int j = 0; j < 32; j++) {
            dst[b * 32 + j] = (float)block.q[j] * scale;
        }
    }
}

static int8_t q8_round(float x) {
    if (!(fabsf(x) <= 127.0f)) { /* rounding error above 127; NaN, which no integer holds, becomes 0 */
        return x > 0 ? 127 : x < 0 ? -127 : 0;
    }
    return (int8_t)roundf(x);
}

static void q8_row_from(const float *src, unsigned char *dst, int64_t n) {
    for (int64_t b = 0; b < n / 32; b++) {
        const float *x = src + b * 32;
        float largest = 0;
        for (int j = 0; j < 32; j++) {
            largest = fabsf(x[j]) > largest ? fabsf(x[j]) : largest;
        }
        float scale = largest / 127.0f;
        float inverse = scale != 0 ? 1.0f / scale : 0;
        if (!isfinite(inverse)) {
            inverse = 0; /* all so near to zero that an f16 scale is zero */
        }
        struct q8_block block;
        block.scale = lb_f32_to_f16(scale);
        for (int j = 0; j < 32; j++) {
            block.q[j] = q8_round(x[j] * inverse);
        }
        memcpy(dst + (size_t)b * sizeof block, &block, sizeof block);
    }
}

void lb_dequantize(enum lb_dtype dtype, const void *src, float *dst, int64_t n) {
    const unsigned char *p = src;
    assert(lb_dtype_is_weight(dtype) && n % formats[dtype].block == 0);
    switch (dtype) {
    case LB_F32:
        memcpy(dst, src, (size_t)n * 4);
        break;
    case LB_F16:
        lb_f16_row(src, dst, n);
        break;
    case LB_BF16:
        for (int64_t i = 0; i < n; i++) {
            dst[i] = lb_bf16_to_f32(load_u16(p + 2 * i));
        }
        break;
    case LB_F64:
        for (int64_t i = 0; i < n; i++) {
            double x;
            memcpy(&x, p + 8 * i, 8);
            dst[i] = (float)x;
        }
        break;
    case LB_Q8_0:
        q8_row(p, dst, n);
        break;
    default:
        break;
    }
}

void lb_quantize(enum lb_dtype dtype, const float *src, void *dst, int64_t n) {
    unsigned char *p = dst;
    assert(lb_dtype_is_weight(dtype) && dtype != LB_F64 && n % formats[dtype].block == 0);
    switch (dtype) {
    case LB_F32:
        memcpy(dst, src, (size_t)n * 4);
        break;
    case LB_F16:
        lb_f16_row_from(src, dst, n);
        break;
    case LB_BF16:
        for (int64_t i = 0; i < n; i++) {
            uint16_t h = lb_f32_to_bf16(src[i]);
            memcpy(p + 2 * i, &h, 2);
        }
        break;
    case LB_Q8_0:
        q8_row_from(src, p, n);
        break;
    default:
        break;
    }
}
