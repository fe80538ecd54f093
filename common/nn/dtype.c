#include "common/nn/dtype.h"

#include "common/base/mem.h"

#include <assert.h>
#include <stdio.h>
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

static void f32_row(const unsigned char *src, float *dst, int64_t n) {
    memcpy(dst, src, (size_t)n * 4);
}

static void f32_row_from(const float *src, unsigned char *dst, int64_t n) {
    memcpy(dst, src, (size_t)n * 4);
}

static void f16_row(const unsigned char *src, float *dst, int64_t n) {
    lb_f16_row((const void *)src, dst, n);
}

static void f16_row_from(const float *src, unsigned char *dst, int64_t n) {
    lb_f16_row_from(src, (void *)dst, n);
}

/* Seen as whole numbers, so that the loop becomes one of vectors. */
static void bf16_row(const unsigned char *src, float *dst, int64_t n) {
    typedef uint16_t u16_any __attribute__((aligned(1), may_alias));
    typedef uint32_t u32_any __attribute__((may_alias));
    const u16_any *restrict from = (const void *)src;
    u32_any *restrict to = (void *)dst;
    for (int64_t i = 0; i < n; i++) {
        to[i] = (uint32_t)from[i] << 16;
    }
}

static void bf16_row_from(const float *src, unsigned char *dst, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = lb_f32_to_bf16(src[i]);
        memcpy(dst + 2 * i, &h, 2);
    }
}

static void f64_row(const unsigned char *src, float *dst, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double x;
        memcpy(&x, src + 8 * i, 8);
        dst[i] = (float)x;
    }
}

/* ---- the table ---- */

#define BLOCK_FORMAT(NAME, name, ggml, elements, bytes, file_type, narrow)                                   \
    [LB_##NAME] = {#NAME, bytes, elements, ggml, file_type, lb_##name##_widen, narrow},

static const struct {
    const char *name;
    size_t block_bytes;
    int block;
    int ggml, file_type;                                             /* -1: no weights of GGUF files */
    void (*widen)(const unsigned char *src, float *dst, int64_t n);  /* NULL: no weights */
    void (*narrow)(const float *src, unsigned char *dst, int64_t n); /* NULL: never written */
} formats[LB_DTYPES] = {[LB_F32] = {"F32", 4, 1, 0, 0, f32_row, f32_row_from},
                        [LB_F16] = {"F16", 2, 1, 1, 1, f16_row, f16_row_from},
                        [LB_BF16] = {"BF16", 2, 1, 30, 32, bf16_row, bf16_row_from},
                        [LB_F64] = {"F64", 8, 1, -1, -1, f64_row, NULL},
                        [LB_I8] = {"I8", 1, 1, -1, -1, NULL, NULL},
                        [LB_I16] = {"I16", 2, 1, -1, -1, NULL, NULL},
                        [LB_I32] = {"I32", 4, 1, -1, -1, NULL, NULL},
                        [LB_I64] = {"I64", 8, 1, -1, -1, NULL, NULL},
                        [LB_U8] = {"U8", 1, 1, -1, -1, NULL, NULL},
                        [LB_U16] = {"U16", 2, 1, -1, -1, NULL, NULL},
                        [LB_U32] = {"U32", 4, 1, -1, -1, NULL, NULL},
                        [LB_U64] = {"U64", 8, 1, -1, -1, NULL, NULL},
                        [LB_BOOL] = {"BOOL", 1, 1, -1, -1, NULL, NULL},
                        LB_BLOCK_FORMATS(BLOCK_FORMAT)};

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
    return (unsigned)dtype < LB_DTYPES && formats[dtype].widen != NULL;
}

bool lb_dtype_narrows(enum lb_dtype dtype) {
    return (unsigned)dtype < LB_DTYPES && formats[dtype].narrow != NULL;
}

int lb_dtype_ggml(enum lb_dtype dtype) {
    return (unsigned)dtype < LB_DTYPES ? formats[dtype].ggml : -1;
}

bool lb_dtype_from_ggml(uint32_t number, enum lb_dtype *out) {
    for (int d = 0; d < LB_DTYPES; d++) {
        if (formats[d].ggml >= 0 && (uint32_t)formats[d].ggml == number) {
            *out = (enum lb_dtype)d;
            return true;
        }
    }
    return false;
}

uint32_t lb_dtype_file_type(enum lb_dtype dtype) {
    assert(lb_dtype_ggml(dtype) >= 0);
    return (uint32_t)formats[dtype].file_type;
}

const char *lb_dtype_gguf_names(bool written, char names[LB_DTYPE_NAMES]) {
    size_t at = 0;
    names[0] = '\0';
    for (int d = 0; d < LB_DTYPES && at < LB_DTYPE_NAMES; d++) {
        if (formats[d].ggml >= 0 && (!written || formats[d].narrow != NULL)) {
            at += (size_t)snprintf(names + at, LB_DTYPE_NAMES - at, "%s%s", at > 0 ? ", " : "",
                                   formats[d].name);
        }
    }
    return names;
}

void lb_dequantize(enum lb_dtype dtype, const void *src, float *dst, int64_t n) {
    assert(lb_dtype_is_weight(dtype) && n % formats[dtype].block == 0);
    formats[dtype].widen(src, dst, n);
}

void lb_quantize(enum lb_dtype dtype, const float *src, void *dst, int64_t n) {
    assert(lb_dtype_narrows(dtype) && n % formats[dtype].block == 0);
    formats[dtype].narrow(src, dst, n);
}
