#include "common/nn/dtype.h"

#include "common/base/mem.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

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

static void bf16_row(const unsigned char *src, float *dst, int64_t n) {
    lb_bf16_row((const void *)src, dst, n);
}

static void bf16_row_from(const float *src, unsigned char *dst, int64_t n) {
    lb_bf16_row_from(src, (void *)dst, n);
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
