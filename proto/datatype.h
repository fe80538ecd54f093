/* Datatypes and shapes of tensors as they travel (Open Inference Protocol v2, "Tensor Data Types"). */
#ifndef LB_PROTO_DATATYPE_H
#define LB_PROTO_DATATYPE_H

#include "common/base/status.h"
#include "proto/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum lb_datatype {
    LB_DT_NONE,
    LB_DT_BOOL,
    LB_DT_UINT8,
    LB_DT_UINT16,
    LB_DT_UINT32,
    LB_DT_UINT64,
    LB_DT_INT8,
    LB_DT_INT16,
    LB_DT_INT32,
    LB_DT_INT64,
    LB_DT_FP16,
    LB_DT_BF16,
    LB_DT_FP32,
    LB_DT_FP64,
    LB_DT_BYTES
};

const char *lb_datatype_name(enum lb_datatype datatype); /* "FP32" */
/* LB_DT_NONE when unknown. */
enum lb_datatype lb_datatype_parse(const char *name);
/* Bytes of one element; 0 for BYTES. */
size_t lb_datatype_bytes(enum lb_datatype datatype);

struct lb_wire_tensor {
    const char *name;
    enum lb_datatype datatype;
    int n_dims;
    int64_t dim[LB_MAX_WIRE_DIMS];
    const void *data; /* row-major, little-endian */
    size_t bytes;
    bool binary; /* travels (or travelled) as raw bytes rather than as JSON numbers */
};
/* Product of the dimensions (1 for a scalar). */
int64_t lb_wire_elements(const struct lb_wire_tensor *tensor);
/* *out = product of the dimensions, each at least 0; false on a negative one or overflow of a size in bytes.
 */
bool lb_wire_size(const struct lb_wire_tensor *tensor, int64_t *out_elements, size_t *out_bytes);
#define LB_WIRE_SHAPE_TEXT 144
/* "[2,5]" for errors; returns out. */
const char *lb_wire_shape(const struct lb_wire_tensor *tensor, char out[LB_WIRE_SHAPE_TEXT]);

#endif
