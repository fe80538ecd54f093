/* Tensors as JSON numbers, both ways. Reading goes through jansson; writing, which is bulk, is done here. */
#include "proto/oip_wire.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ---- */

/* The range of the integer datatypes that JSON can carry (jansson's integers end at 2^63 - 1). */
static bool integer_range(enum lb_datatype datatype, int64_t *min, int64_t *max) {
    switch (datatype) {
    case LB_DT_UINT8:
        *min = 0, *max = UINT8_MAX;
        return true;
    case LB_DT_UINT16:
        *min = 0, *max = UINT16_MAX;
        return true;
    case LB_DT_UINT32:
        *min = 0, *max = UINT32_MAX;
        return true;
    case LB_DT_UINT64:
        *min = 0, *max = INT64_MAX;
        return true;
    case LB_DT_INT8:
        *min = INT8_MIN, *max = INT8_MAX;
        return true;
    case LB_DT_INT16:
        *min = INT16_MIN, *max = INT16_MAX;
        return true;
    case LB_DT_INT32:
        *min = INT32_MIN, *max = INT32_MAX;
        return true;
    case LB_DT_INT64:
        *min = INT64_MIN, *max = INT64_MAX;
        return true;
    case LB_DT_NONE:
    case LB_DT_BOOL:
    case LB_DT_FP16:
    case LB_DT_BF16:
    case LB_DT_FP32:
    case LB_DT_FP64:
    case LB_DT_BYTES:
        break;
    }
    return false;
}

/* Stores one value; NULL, or what is wrong with it. */
static const char *store_value(const json_t *value, enum lb_datatype datatype, uint8_t *at) {
    int64_t min, max;
    if (datatype == LB_DT_BOOL) {
        if (json_is_boolean(value)) {
            *at = json_is_true(value);
            return NULL;
        }
        if (json_is_integer(value) && json_integer_value(value) >= 0 && json_integer_value(value) <= 1) {
            *at = (uint8_t)json_integer_value(value);
            return NULL;
        }
        return "is neither true nor false";
    }
    if (integer_range(datatype, &min, &max)) {
        if (!json_is_integer(value)) {
            return "is not a whole number";
        }
        int64_t v = json_integer_value(value);
        if (v < min || v > max) {
            return "is out of the datatype's range";
        }
        memcpy(at, &v, lb_datatype_bytes(datatype)); /* little-endian: the low bytes come first */
        return NULL;
    }
    if (!json_is_number(value)) {
        return "is not a number";
    }
    double v = json_number_value(value);
    if (datatype == LB_DT_FP64) {
        memcpy(at, &v, sizeof v);
        return NULL;
    }
    float f = (float)v;
    if (!isfinite(f)) {
        return "is out of the datatype's range";
    }
    memcpy(at, &f, sizeof f);
    return NULL;
}

/* Walks nested arrays of the given sizes without recursion. */
static enum lb_status store_values(const json_t *data, int n_levels, const int64_t *size, const char *role,
                                   const struct lb_wire_tensor *tensor, uint8_t *out,
                                   struct lb_detail *detail) {
    const json_t *array[LB_MAX_WIRE_DIMS] = {data};
    int64_t at[LB_MAX_WIRE_DIMS] = {0};
    size_t width = lb_datatype_bytes(tensor->datatype);
    int64_t n_stored = 0;
    char shape[LB_WIRE_SHAPE_TEXT];
    for (int level = 0; level >= 0;) {
        if (at[level] == 0 && (int64_t)json_array_size(array[level]) != size[level]) {
            return lb_fail(detail, LB_E_FORMAT, "%s \"%s\": data has %zu values where shape %s wants %lld",
                           role, tensor->name, json_array_size(array[level]), lb_wire_shape(tensor, shape),
                           (long long)size[level]);
        }
        if (at[level] == size[level]) {
            level--;
            continue;
        }
        const json_t *item = json_array_get(array[level], (size_t)at[level]++);
        if (level + 1 < n_levels) {
            if (!json_is_array(item)) {
                return lb_fail(detail, LB_E_FORMAT, "%s \"%s\": data is nested, but not as shape %s says",
                               role, tensor->name, lb_wire_shape(tensor, shape));
            }
            level++;
            array[level] = item;
            at[level] = 0;
            continue;
        }
        const char *wrong = store_value(item, tensor->datatype, out + (size_t)n_stored * width);
        if (wrong) {
            return lb_fail(detail, LB_E_FORMAT, "%s \"%s\": value %lld of data %s (%s)", role, tensor->name,
                           (long long)n_stored, wrong, lb_datatype_name(tensor->datatype));
        }
        n_stored++;
    }
    return LB_OK;
}

enum lb_status lb_wire_read_values(const json_t *data, const char *role, struct lb_arena *arena,
                                   struct lb_wire_tensor *tensor, struct lb_detail *detail) {
    int64_t n;
    size_t bytes;
    char shape[LB_WIRE_SHAPE_TEXT];
    if (tensor->datatype == LB_DT_FP16 || tensor->datatype == LB_DT_BF16) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s \"%s\": %s has no JSON form; send it as binary data, or as FP32", role,
                       tensor->name, lb_datatype_name(tensor->datatype));
    }
    if (!json_is_array(data)) {
        return lb_fail(detail, LB_E_FORMAT, "%s \"%s\": data is not an array", role, tensor->name);
    }
    if (!lb_wire_size(tensor, &n, &bytes) || n > LB_MAX_JSON_VALUES) {
        return lb_fail(detail, LB_E_LIMIT, "%s \"%s\": shape %s is more than %d JSON values; use binary data",
                       role, tensor->name, lb_wire_shape(tensor, shape), LB_MAX_JSON_VALUES);
    }
    uint8_t *values = lb_arena_alloc(arena, bytes ? bytes : 1);
    if (!values) {
        return lb_fail(detail, LB_E_NOMEM, "%s \"%s\": no memory left for its %zu bytes", role, tensor->name,
                       bytes);
    }
    bool nested = tensor->n_dims > 1 && json_is_array(json_array_get(data, 0));
    enum lb_status status = store_values(data, nested ? tensor->n_dims : 1, nested ? tensor->dim : &n, role,
                                         tensor, values, detail);
    if (status != LB_OK) {
        return status;
    }
    tensor->data = values;
    tensor->bytes = bytes;
    return LB_OK;
}

/* ---- writing ---- */

/* One value as text; 0 when JSON has no way to say it. */
static size_t value_text(enum lb_datatype datatype, const uint8_t *at, char out[LB_NUMBER_TEXT]) {
    union {
        int8_t i8;
        int16_t i16;
        uint16_t u16;
        int32_t i32;
        uint32_t u32;
        int64_t i64;
        float f32;
        double f64;
    } v;
    memcpy(&v, at, lb_datatype_bytes(datatype));
    switch (datatype) {
    case LB_DT_FP32:
        return isfinite(v.f32) ? lb_wire_float_text(v.f32, out) : 0;
    case LB_DT_FP64:
        return isfinite(v.f64) ? lb_wire_double_text(v.f64, out) : 0;
    case LB_DT_BOOL:
        memcpy(out, *at ? "true" : "false", *at ? 4 : 5);
        return *at ? 4 : 5;
    case LB_DT_UINT8:
        return lb_wire_integer_text(*at, out);
    case LB_DT_UINT16:
        return lb_wire_integer_text(v.u16, out);
    case LB_DT_UINT32:
        return lb_wire_integer_text(v.u32, out);
    case LB_DT_INT8:
        return lb_wire_integer_text(v.i8, out);
    case LB_DT_INT16:
        return lb_wire_integer_text(v.i16, out);
    case LB_DT_INT32:
        return lb_wire_integer_text(v.i32, out);
    case LB_DT_INT64:
        return lb_wire_integer_text(v.i64, out);
    case LB_DT_UINT64: /* most parsers, ours too, end at 2^63 - 1 */
        return v.i64 >= 0 ? lb_wire_integer_text(v.i64, out) : 0;
    case LB_DT_NONE:
    case LB_DT_FP16:
    case LB_DT_BF16:
    case LB_DT_BYTES:
        break;
    }
    return 0;
}

enum lb_status lb_wire_put_values(struct lb_buf *buf, const struct lb_wire_tensor *tensor, const char *role,
                                  struct lb_detail *detail) {
    int64_t n = lb_wire_elements(tensor);
    size_t width = lb_datatype_bytes(tensor->datatype);
    if (tensor->datatype == LB_DT_FP16 || tensor->datatype == LB_DT_BF16) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "%s \"%s\": %s has no JSON form; ask for binary_data, or for FP32", role, tensor->name,
                       lb_datatype_name(tensor->datatype));
    }
    if (n > LB_MAX_JSON_VALUES) {
        return lb_fail(detail, LB_E_LIMIT,
                       "%s \"%s\": %lld values are more than the %d that go into JSON; ask for "
                       "binary_data",
                       role, tensor->name, (long long)n, LB_MAX_JSON_VALUES);
    }
    char chunk[4096];
    size_t used = 0;
    lb_buf_append_str(buf, ",\"data\":[");
    for (int64_t i = 0; i < n; i++) {
        if (i > 0) {
            chunk[used++] = ',';
        }
        size_t len =
            value_text(tensor->datatype, (const uint8_t *)tensor->data + (size_t)i * width, chunk + used);
        if (len == 0) {
            return lb_fail(detail, LB_E_UNSUPPORTED,
                           "%s \"%s\": value %lld (not finite, or above 2^63) cannot be written as JSON; "
                           "ask for binary_data",
                           role, tensor->name, (long long)i);
        }
        used += len;
        if (used > sizeof chunk - LB_NUMBER_TEXT - 1) {
            lb_buf_append(buf, chunk, used);
            used = 0;
        }
    }
    lb_buf_append(buf, chunk, used);
    lb_buf_append_str(buf, "]");
    return LB_OK;
}

enum lb_status lb_wire_put_string(struct lb_buf *buf, const char *text, const char *what,
                                  struct lb_detail *detail) {
    json_t *string = json_string(text);
    if (!string) { /* not UTF-8, or no memory: the unchecked way tells which */
        string = json_string_nocheck(text);
        enum lb_status status = string ? lb_fail(detail, LB_E_ARG, "%s is not valid UTF-8", what)
                                       : lb_fail(detail, LB_E_NOMEM, "%s: no memory left", what);
        json_decref(string);
        return status;
    }
    enum lb_status status = lb_json_dump(string, JSON_ENCODE_ANY, buf);
    json_decref(string);
    if (lb_buf_status(buf) != LB_OK) {
        return lb_wire_written(buf, "the JSON part", detail);
    }
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "%s: no memory left", what);
}

enum lb_status lb_wire_put_tensor(struct lb_buf *buf, const struct lb_wire_tensor *tensor, const char *role,
                                  struct lb_detail *detail) {
    int64_t n;
    size_t bytes;
    char shape[LB_WIRE_SHAPE_TEXT];
    if (!tensor->name || tensor->name[0] == '\0' || strlen(tensor->name) >= LB_MAX_NAME) {
        return lb_fail(detail, LB_E_ARG, "%s: a tensor's name has 1 to %d bytes", role, LB_MAX_NAME - 1);
    }
    if (lb_datatype_bytes(tensor->datatype) == 0) {
        return lb_fail(detail, LB_E_ARG, "%s \"%s\": a datatype of fixed size is needed", role, tensor->name);
    }
    if (!lb_wire_size(tensor, &n, &bytes) || bytes != tensor->bytes) {
        return lb_fail(detail, LB_E_ARG, "%s \"%s\": holds %zu bytes, which is not what shape %s of %s takes",
                       role, tensor->name, tensor->bytes, lb_wire_shape(tensor, shape),
                       lb_datatype_name(tensor->datatype));
    }
    lb_buf_append_str(buf, "{\"name\":");
    enum lb_status status = lb_wire_put_string(buf, tensor->name, "a tensor's name", detail);
    if (status != LB_OK) {
        return status;
    }
    lb_buf_printf(buf, ",\"datatype\":\"%s\",\"shape\":%s", lb_datatype_name(tensor->datatype),
                  lb_wire_shape(tensor, shape));
    if (tensor->binary) {
        lb_buf_printf(buf, ",\"parameters\":{\"binary_data_size\":%zu}", bytes);
    } else {
        status = lb_wire_put_values(buf, tensor, role, detail);
    }
    lb_buf_append_str(buf, "}");
    return status;
}

void lb_wire_pad(struct lb_buf *buf, size_t start) {
    static const char spaces[] = "        ";
    lb_buf_append(buf, spaces, (8 - (buf->len - start) % 8) % 8);
}

enum lb_status lb_wire_written(const struct lb_buf *buf, const char *what, struct lb_detail *detail) {
    enum lb_status status = lb_buf_status(buf);
    if (status == LB_E_LIMIT) {
        return lb_fail(detail, status, "%s is larger than the maximum of %zu bytes", what, buf->max);
    }
    if (status != LB_OK) {
        return lb_fail(detail, status, "%s: no memory left at byte %zu", what, buf->len);
    }
    return LB_OK;
}
