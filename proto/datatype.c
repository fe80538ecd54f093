#include "proto/datatype.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are sent as they lie in memory");

static const struct {
    const char *name;
    size_t bytes;
} datatypes[] = {
    [LB_DT_NONE] = {"", 0},         [LB_DT_BOOL] = {"BOOL", 1},     [LB_DT_UINT8] = {"UINT8", 1},
    [LB_DT_UINT16] = {"UINT16", 2}, [LB_DT_UINT32] = {"UINT32", 4}, [LB_DT_UINT64] = {"UINT64", 8},
    [LB_DT_INT8] = {"INT8", 1},     [LB_DT_INT16] = {"INT16", 2},   [LB_DT_INT32] = {"INT32", 4},
    [LB_DT_INT64] = {"INT64", 8},   [LB_DT_FP16] = {"FP16", 2},     [LB_DT_BF16] = {"BF16", 2},
    [LB_DT_FP32] = {"FP32", 4},     [LB_DT_FP64] = {"FP64", 8},     [LB_DT_BYTES] = {"BYTES", 0},
};
#define N_DATATYPES (sizeof datatypes / sizeof datatypes[0])

const char *lb_datatype_name(enum lb_datatype datatype) {
    return (size_t)datatype < N_DATATYPES ? datatypes[datatype].name : "";
}

enum lb_datatype lb_datatype_parse(const char *name) {
    for (size_t i = LB_DT_NONE + 1; i < N_DATATYPES; i++) {
        if (strcmp(name, datatypes[i].name) == 0) {
            return (enum lb_datatype)i;
        }
    }
    return LB_DT_NONE;
}

size_t lb_datatype_bytes(enum lb_datatype datatype) {
    return (size_t)datatype < N_DATATYPES ? datatypes[datatype].bytes : 0;
}

int64_t lb_wire_elements(const struct lb_wire_tensor *tensor) {
    int64_t n = 1;
    for (int i = 0; i < tensor->n_dims; i++) {
        n *= tensor->dim[i];
    }
    return n;
}

bool lb_wire_size(const struct lb_wire_tensor *tensor, int64_t *out_elements, size_t *out_bytes) {
    int64_t n = 1;
    if (tensor->n_dims < 0 || tensor->n_dims > LB_MAX_WIRE_DIMS) {
        return false;
    }
    for (int i = 0; i < tensor->n_dims; i++) {
        if (tensor->dim[i] < 0 || __builtin_mul_overflow(n, tensor->dim[i], &n)) {
            return false;
        }
    }
    size_t bytes;
    if (!lb_mul_size((size_t)n, lb_datatype_bytes(tensor->datatype), &bytes)) {
        return false;
    }
    *out_elements = n;
    *out_bytes = bytes;
    return true;
}

const char *lb_wire_shape(const struct lb_wire_tensor *tensor, char out[LB_WIRE_SHAPE_TEXT]) {
    int at = snprintf(out, LB_WIRE_SHAPE_TEXT, "[");
    for (int i = 0; i < tensor->n_dims && i < LB_MAX_WIRE_DIMS; i++) {
        at += snprintf(out + at, LB_WIRE_SHAPE_TEXT - (size_t)at, "%s%lld", i ? "," : "",
                       (long long)tensor->dim[i]);
    }
    snprintf(out + at, LB_WIRE_SHAPE_TEXT - (size_t)at, "]");
    return out;
}
