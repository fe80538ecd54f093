/* A safetensors file in memory, for tests that read it from there. */
#ifndef LB_TESTS_SAFETENSORS_H
#define LB_TESTS_SAFETENSORS_H

#include "common/formats/safetensors.h"

/* What lb_safetensors_write would write, into an empty buffer; arguments as there. */
static inline enum lb_status encode_safetensors(struct lb_buf *buf, const struct lb_tensor *tensors, size_t n,
                                                const char *const *metadata, size_t n_metadata,
                                                struct lb_detail *detail) {
    enum lb_status status = lb_safetensors_header(buf, tensors, n, metadata, n_metadata, detail);
    for (size_t i = 0; status == LB_OK && i < n; i++) {
        status = tensors[i].bytes > 0 ? lb_buf_append(buf, tensors[i].data, tensors[i].bytes) : LB_OK;
    }
    return status;
}

#endif
