/* Number formats of stored weights and of file tensors, and conversion of rows to and from FP32. */
#ifndef LB_NN_DTYPE_H
#define LB_NN_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum lb_dtype {
    LB_F32,
    LB_F16,
    LB_BF16,
    LB_F64,
    LB_I8,
    LB_I16,
    LB_I32,
    LB_I64,
    LB_U8,
    LB_U16,
    LB_U32,
    LB_U64,
    LB_BOOL,
    LB_Q8_0, /* GGUF block: 32 signed bytes and one f16 scale */
    LB_DTYPES
};

/* Name as in safetensors ("F32", "BF16", "I64"); "Q8_0" for the block format. */
const char *lb_dtype_name(enum lb_dtype dtype);
/* Elements per block: 1, or 32 for Q8_0. */
int lb_dtype_block(enum lb_dtype dtype);
/* Bytes per block. */
size_t lb_dtype_block_bytes(enum lb_dtype dtype);
/* Bytes of n elements; false when n is negative, no multiple of the block, or the product overflows. */
bool lb_dtype_bytes(enum lb_dtype dtype, int64_t n, size_t *out);
/* Whether weights may be stored so: F32 F16 BF16 Q8_0 (and F64, read only). */
bool lb_dtype_is_weight(enum lb_dtype dtype);

float lb_f16_to_f32(uint16_t h);
/* Round to nearest even; overflow becomes infinity. */
uint16_t lb_f32_to_f16(float f);
float lb_bf16_to_f32(uint16_t h);
uint16_t lb_f32_to_bf16(float f);

void lb_f16_row(const uint16_t *src, float *dst, int64_t n);
void lb_f16_row_from(const float *src, uint16_t *dst, int64_t n);

/* dst[n] = the n elements at src (a row start) as FP32; dtype is one of the weight formats, n a multiple of
 * the block. */
void lb_dequantize(enum lb_dtype dtype, const void *src, float *dst, int64_t n);
/* The inverse, for F32 F16 BF16 Q8_0. Q8_0 as in GGUF: scale = max|x| / 127, round half away from zero. */
void lb_quantize(enum lb_dtype dtype, const float *src, void *dst, int64_t n);

#endif
