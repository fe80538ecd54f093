/* Number formats of stored weights and of file tensors, and conversion of rows to and from FP32. */
#ifndef LB_NN_DTYPE_H
#define LB_NN_DTYPE_H

#include "common/nn/half.h"
#include "common/nn/quant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LB_DTYPE_OF(NAME, ...) LB_##NAME,
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
    LB_BLOCK_FORMATS(LB_DTYPE_OF) /* LB_Q8_0, LB_Q4_0 and so on */
    LB_DTYPES
};

/* Name as in safetensors ("F32", "BF16", "I64"); as in GGUF for block formats ("Q8_0", "Q4_K"). */
const char *lb_dtype_name(enum lb_dtype dtype);
/* Elements per block: 1, or 32 or 256 for block formats. */
int lb_dtype_block(enum lb_dtype dtype);
/* Bytes per block. */
size_t lb_dtype_block_bytes(enum lb_dtype dtype);
/* Bytes of n elements; false when n is negative, no multiple of the block, or the product overflows. */
bool lb_dtype_bytes(enum lb_dtype dtype, int64_t n, size_t *out);
/* Whether weights may be stored so: F32 F16 BF16 F64 and the block formats. */
bool lb_dtype_is_weight(enum lb_dtype dtype);
/* Whether lb_quantize makes it. */
bool lb_dtype_narrows(enum lb_dtype dtype);
/* The names of formats that weights may have in GGUF files, or of those that are also written there, with
 * commas; returns names. */
#define LB_DTYPE_NAMES 128
const char *lb_dtype_gguf_names(bool written, char names[LB_DTYPE_NAMES]);

/* ggml's number of a type; -1: GGUF files hold no weights of it. */
int lb_dtype_ggml(enum lb_dtype dtype);
/* The type of ggml's number; false: none of those above. */
bool lb_dtype_from_ggml(uint32_t number, enum lb_dtype *out);
/* llama.cpp's general.file_type of a file whose matrices are of this type, which is one of lb_dtype_ggml's.
 */
uint32_t lb_dtype_file_type(enum lb_dtype dtype);

/* dst[n] = the n elements at src (a row start) as FP32; dtype is one of the weight formats, n a multiple of
 * the block. */
void lb_dequantize(enum lb_dtype dtype, const void *src, float *dst, int64_t n);
/* The inverse, for what lb_dtype_narrows says yes to. Blocks of 32 as
 * ggml's own plain quantisers make them. */
void lb_quantize(enum lb_dtype dtype, const float *src, void *dst, int64_t n);

#endif
