/* Checks that the weight formats share. Private to common/formats: inline, nothing allocated, nothing kept.
 */
#ifndef LB_FORMATS_CHECK_H
#define LB_FORMATS_CHECK_H

#include "common/base/utf8.h"
#include "common/nn/tensor.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* What a data type's elements must be aligned to for C to read them in place. */
static inline size_t lb_check_align(enum lb_dtype dtype) {
    return lb_dtype_block(dtype) == 1 ? lb_dtype_block_bytes(dtype) : 1; /* blocks are read byte by byte */
}

/* Text that a C string can hold: valid UTF-8 without NUL. */
static inline bool lb_check_text(const void *text, size_t len) {
    return memchr(text, 0, len) == NULL && lb_utf8_check(text, len) == len;
}

/* A tensor's name: text of at least one byte and without control characters, so that it can stand in an error
 * line. */
static inline bool lb_check_name(const void *name, size_t len) {
    const uint8_t *s = name;
    for (size_t i = 0; i < len; i++) {
        if (s[i] < 0x20 || s[i] == 0x7F) {
            return false;
        }
    }
    return len > 0 && lb_check_text(name, len);
}

/* Bytes that the shape and the type give; false when a dimension is negative, a row is no multiple of the
 * block, or the product overflows. */
static inline bool lb_check_shape_bytes(const struct lb_tensor *tensor, size_t *out_bytes) {
    int64_t n = 1;
    for (int i = 0; i < tensor->n_dims; i++) {
        if (tensor->dim[i] < 0 || __builtin_mul_overflow(n, tensor->dim[i], &n)) {
            return false;
        }
    }
    int64_t row = tensor->n_dims > 0 ? tensor->dim[tensor->n_dims - 1] : 1;
    return row % lb_dtype_block(tensor->dtype) == 0 && lb_dtype_bytes(tensor->dtype, n, out_bytes);
}

#define LB_SHAPE_TEXT 96 /* four 64-bit numbers fit */

/* "[2, 3]" for error lines; returns text. */
static inline const char *lb_check_shape_text(const struct lb_tensor *tensor, char text[LB_SHAPE_TEXT]) {
    size_t len = 0;
    text[len++] = '[';
    for (int i = 0; i < tensor->n_dims; i++) {
        len += (size_t)snprintf(text + len, LB_SHAPE_TEXT - len, "%s%" PRId64, i > 0 ? ", " : "",
                                tensor->dim[i]);
    }
    memcpy(text + len, "]", 2);
    return text;
}

#endif
