#include "proto/oip.h"

#include "common/base/mem.h"
#include "proto/oip_wire.h"

#include <stdio.h>
#include <string.h>

/* An upper bound on the number of JSON values, so that memory for parsing is bounded before anything is
 * parsed. */
static size_t count_values(const uint8_t *bytes, size_t len) {
    size_t n = 1;
    for (size_t i = 0; i < len; i++) {
        n += bytes[i] == ',' || bytes[i] == '[' || bytes[i] == '{';
    }
    return n;
}

enum lb_status lb_wire_open(struct lb_wire_source *source, const void *body, size_t len, int64_t json_len,
                            size_t max_json, struct lb_arena *arena, const char *what,
                            struct lb_detail *detail) {
    size_t json_bytes = json_len < 0 ? len : (size_t)json_len;
    if (json_len < -1) {
        return lb_fail(detail, LB_E_FORMAT, "%s: %s is %lld; it must be the number of bytes of the JSON part",
                       what, LB_HEADER_JSON_LENGTH, (long long)json_len);
    }
    if (json_bytes > len) {
        return lb_fail(detail, LB_E_FORMAT, "%s: %s is %zu, but the body has only %zu bytes", what,
                       LB_HEADER_JSON_LENGTH, json_bytes, len);
    }
    if (json_len == 0) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "%s: %s 0 (a bare tensor without JSON) is not supported; describe the tensor in JSON",
                       what, LB_HEADER_JSON_LENGTH);
    }
    if (json_bytes == 0) {
        return lb_fail(detail, LB_E_FORMAT, "%s: the body is empty; it must hold a JSON object", what);
    }
    if (json_bytes > max_json) {
        return lb_fail(detail, LB_E_LIMIT,
                       "%s: the JSON part has %zu bytes, the maximum is %zu; use binary tensor data", what,
                       json_bytes, max_json);
    }
    if (count_values(body, json_bytes) > LB_MAX_JSON_VALUES) {
        return lb_fail(detail, LB_E_LIMIT,
                       "%s: the JSON part has more than %d values; use binary tensor data", what,
                       LB_MAX_JSON_VALUES);
    }
    json_t *root = NULL;
    enum lb_status status = lb_json_parse(body, json_bytes, LB_MAX_JSON_DEPTH, what, &root, detail);
    if (status != LB_OK) {
        return status;
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return lb_fail(detail, LB_E_FORMAT, "%s: the JSON part is not an object", what);
    }
    *source = (struct lb_wire_source){.bytes = body,
                                      .len = len,
                                      .next = json_bytes,
                                      .has_header = json_len >= 0,
                                      .arena = arena,
                                      .root = root};
    return LB_OK;
}

enum lb_status lb_wire_end(const struct lb_wire_source *source, const char *what, struct lb_detail *detail) {
    if (source->next != source->len) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: %zu bytes are left behind the last binary tensor (byte %zu of %zu); the sum of "
                       "binary_data_size must equal what follows the JSON",
                       what, source->len - source->next, source->next, source->len);
    }
    return LB_OK;
}

enum lb_status lb_wire_list(const json_t *root, const char *key, bool required, const char *what,
                            const json_t **out, struct lb_detail *detail) {
    const json_t *list = json_object_get(root, key);
    if (!list || json_is_null(list)) {
        if (required) {
            return lb_fail(detail, LB_E_FORMAT, "%s: %s is missing; it must be an array of objects", what,
                           key);
        }
        *out = NULL;
        return LB_OK;
    }
    if (!json_is_array(list)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: %s is not an array", what, key);
    }
    if (json_array_size(list) > LB_MAX_TENSORS) {
        return lb_fail(detail, LB_E_LIMIT, "%s: %zu %s; the maximum is %d", what, json_array_size(list), key,
                       LB_MAX_TENSORS);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!json_is_object(json_array_get(list, i))) {
            return lb_fail(detail, LB_E_FORMAT, "%s: %s[%zu] is not an object", what, key, i);
        }
    }
    *out = list;
    return LB_OK;
}

enum lb_status lb_wire_parameters(const json_t *object, const char *what, const json_t **out,
                                  struct lb_detail *detail) {
    const json_t *parameters = json_object_get(object, "parameters");
    if (!parameters || json_is_null(parameters)) {
        *out = NULL;
        return LB_OK;
    }
    if (!json_is_object(parameters)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: parameters is not an object", what);
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)parameters, key, value) {
        if (json_is_array(value) || json_is_object(value)) {
            return lb_fail(
                detail, LB_E_FORMAT,
                "%s: parameter \"%.64s\" is an array or object; a parameter is a string, number or boolean",
                what, key);
        }
    }
    *out = parameters;
    return LB_OK;
}

static bool has_control(const char *text) {
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            return true;
        }
    }
    return false;
}

static enum lb_status copy_string(const char *text, struct lb_arena *arena, const char *what,
                                  const char **out, struct lb_detail *detail) {
    const char *copy = lb_arena_strdup(arena, text);
    if (!copy) {
        return lb_fail(detail, LB_E_NOMEM, "%s: no memory left", what);
    }
    *out = copy;
    return LB_OK;
}

enum lb_status lb_wire_name(const json_t *object, const char *role, size_t index, struct lb_arena *arena,
                            const char **out, struct lb_detail *detail) {
    const char *name = json_string_value(json_object_get(object, "name"));
    if (!name) {
        return lb_fail(detail, LB_E_FORMAT, "%s %zu: name is missing or not a string", role, index);
    }
    if (name[0] == '\0' || strlen(name) >= LB_MAX_NAME) {
        return lb_fail(detail, LB_E_FORMAT, "%s %zu: the name has %zu bytes; 1 to %d are allowed", role,
                       index, strlen(name), LB_MAX_NAME - 1);
    }
    if (has_control(name)) {
        return lb_fail(detail, LB_E_FORMAT, "%s %zu: the name has a control character", role, index);
    }
    return copy_string(name, arena, role, out, detail);
}

enum lb_status lb_wire_id(const json_t *root, const char *what, struct lb_arena *arena, const char **out,
                          struct lb_detail *detail) {
    const char *id = NULL;
    enum lb_status status = lb_json_str(root, "id", false, what, &id, detail);
    if (status != LB_OK) {
        return status;
    }
    if (!id) {
        *out = NULL;
        return LB_OK;
    }
    if (strlen(id) > LB_MAX_ID) {
        return lb_fail(detail, LB_E_LIMIT, "%s: the id has %zu bytes; the maximum is %d", what, strlen(id),
                       LB_MAX_ID);
    }
    return copy_string(id, arena, what, out, detail);
}

static enum lb_status read_shape(const json_t *object, const char *role, struct lb_wire_tensor *tensor,
                                 struct lb_detail *detail) {
    const json_t *shape = json_object_get(object, "shape");
    if (!json_is_array(shape)) {
        return lb_fail(detail, LB_E_FORMAT, "%s \"%s\": shape is missing or not an array", role,
                       tensor->name);
    }
    if (json_array_size(shape) > LB_MAX_WIRE_DIMS) {
        return lb_fail(detail, LB_E_LIMIT, "%s \"%s\": %zu dimensions; the maximum is %d", role, tensor->name,
                       json_array_size(shape), LB_MAX_WIRE_DIMS);
    }
    tensor->n_dims = (int)json_array_size(shape);
    for (int i = 0; i < tensor->n_dims; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0) {
            return lb_fail(detail, LB_E_FORMAT,
                           "%s \"%s\": dimension %d of its shape is not a whole number >= 0", role,
                           tensor->name, i);
        }
        tensor->dim[i] = json_integer_value(dim);
    }
    return LB_OK;
}

static enum lb_status read_datatype(const json_t *object, const char *role, struct lb_wire_tensor *tensor,
                                    struct lb_detail *detail) {
    const char *name = json_string_value(json_object_get(object, "datatype"));
    if (!name) {
        return lb_fail(detail, LB_E_FORMAT, "%s \"%s\": datatype is missing or not a string", role,
                       tensor->name);
    }
    tensor->datatype = lb_datatype_parse(name);
    if (tensor->datatype == LB_DT_NONE) {
        return lb_fail(
            detail, LB_E_FORMAT,
            "%s \"%s\": unknown datatype \"%.32s\"; known are BOOL, INT8 to INT64, UINT8 to UINT64, FP16, "
            "BF16, FP32, FP64",
            role, tensor->name, name);
    }
    if (tensor->datatype == LB_DT_BYTES) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "%s \"%s\": BYTES tensors are not supported; send token ids as INT32", role,
                       tensor->name);
    }
    return LB_OK;
}

/* Takes the tensor's bytes from the source: in place when they are aligned for their type, else as a copy. */
static enum lb_status take_binary(struct lb_wire_source *source, const char *role, int64_t declared,
                                  struct lb_wire_tensor *tensor, struct lb_detail *detail) {
    char shape[LB_WIRE_SHAPE_TEXT];
    if ((uint64_t)declared != tensor->bytes) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s \"%s\": binary_data_size is %lld, but shape %s of %s takes %zu bytes", role,
                       tensor->name, (long long)declared, lb_wire_shape(tensor, shape),
                       lb_datatype_name(tensor->datatype), tensor->bytes);
    }
    size_t left = source->len - source->next;
    if (tensor->bytes > left) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s \"%s\": needs %zu bytes behind the JSON at byte %zu, %zu are left%s", role,
                       tensor->name, tensor->bytes, source->next, left,
                       source->has_header ? "" : " (the header " LB_HEADER_JSON_LENGTH " is missing)");
    }
    const uint8_t *at = source->bytes + source->next;
    source->next += tensor->bytes;
    tensor->binary = true;
    tensor->data = at;
    size_t size = lb_datatype_bytes(tensor->datatype);
    if (size > 1 && (uintptr_t)at % size != 0 && tensor->bytes > 0) {
        void *copy = lb_arena_alloc(source->arena, tensor->bytes);
        if (!copy) {
            return lb_fail(detail, LB_E_NOMEM, "%s \"%s\": no memory left for its %zu bytes", role,
                           tensor->name, tensor->bytes);
        }
        memcpy(copy, at, tensor->bytes);
        tensor->data = copy;
    }
    return LB_OK;
}

enum lb_status lb_wire_read_tensor(struct lb_wire_source *source, const json_t *object, const char *role,
                                   size_t index, struct lb_wire_tensor *out, struct lb_detail *detail) {
    struct lb_wire_tensor tensor = {0};
    enum lb_status status = lb_wire_name(object, role, index, source->arena, &tensor.name, detail);
    if (status == LB_OK) {
        status = read_datatype(object, role, &tensor, detail);
    }
    if (status == LB_OK) {
        status = read_shape(object, role, &tensor, detail);
    }
    if (status != LB_OK) {
        return status;
    }
    char what[LB_MAX_NAME + 32], shape[LB_WIRE_SHAPE_TEXT];
    snprintf(what, sizeof what, "%s \"%s\"", role, tensor.name);
    int64_t n_elements;
    if (!lb_wire_size(&tensor, &n_elements, &tensor.bytes)) {
        return lb_fail(detail, LB_E_LIMIT, "%s: shape %s has more elements than memory can have", what,
                       lb_wire_shape(&tensor, shape));
    }
    const json_t *parameters;
    int64_t declared = -1;
    status = lb_wire_parameters(object, what, &parameters, detail);
    if (status == LB_OK && parameters) {
        if (json_object_get(parameters, "shared_memory_region")) {
            return lb_fail(detail, LB_E_UNSUPPORTED, "%s: shared memory is not supported; send the data",
                           what);
        }
        status = lb_json_int(parameters, "binary_data_size", false, 0, INT64_MAX, what, &declared, detail);
    }
    if (status != LB_OK) {
        return status;
    }
    const json_t *data = json_object_get(object, "data");
    if (declared >= 0 && data) {
        return lb_fail(detail, LB_E_FORMAT, "%s: has both data and binary_data_size; leave one out", what);
    }
    if (declared >= 0) {
        status = take_binary(source, role, declared, &tensor, detail);
    } else if (!data) {
        return lb_fail(detail, LB_E_FORMAT, "%s: has neither data nor the parameter binary_data_size", what);
    } else {
        status = lb_wire_read_values(data, role, source->arena, &tensor, detail);
    }
    if (status != LB_OK) {
        return status;
    }
    *out = tensor;
    return LB_OK;
}
