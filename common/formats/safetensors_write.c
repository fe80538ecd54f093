#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/formats/check.h"
#include "common/formats/safetensors_file.h"

#define ALIGN 64 /* of the first tensor within the file */

static enum lb_status check_tensor(const struct lb_tensor *tensor, struct lb_detail *detail) {
    if (tensor->name == NULL || !lb_check_name(tensor->name, strlen(tensor->name)) ||
        strcmp(tensor->name, "__metadata__") == 0) {
        return lb_fail(detail, LB_E_ARG, "safetensors: \"%.200s\" is no name for a tensor",
                       tensor->name != NULL ? tensor->name : "");
    }
    if (tensor->n_dims < 0 || tensor->n_dims > LB_MAX_DIMS) {
        return lb_fail(detail, LB_E_ARG, "safetensors: tensor %.200s has %d dimensions", tensor->name,
                       tensor->n_dims);
    }
    if (lb_dtype_block(tensor->dtype) != 1) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "safetensors: tensor %.200s has type %s, which the format does not have", tensor->name,
                       lb_dtype_name(tensor->dtype));
    }
    size_t bytes = 0;
    char shape[LB_SHAPE_TEXT];
    if (!lb_check_shape_bytes(tensor, &bytes) || bytes != tensor->bytes ||
        (bytes > 0 && tensor->data == NULL)) {
        return lb_fail(
            detail, LB_E_ARG, "safetensors: tensor %.200s: %zu bytes of data do not make %s of shape %s",
            tensor->name, tensor->bytes, lb_dtype_name(tensor->dtype), lb_check_shape_text(tensor, shape));
    }
    return LB_OK;
}

/* {"dtype", "shape", "data_offsets"}; NULL when out of memory. */
static json_t *entry(const struct lb_tensor *tensor, size_t begin) {
    json_t *shape = json_array();
    for (int i = 0; i < tensor->n_dims; i++) {
        if (json_array_append_new(shape, json_integer(tensor->dim[i])) != 0) {
            json_decref(shape);
            return NULL;
        }
    }
    /* o: the shape is taken over, on failure too; a NULL shape makes the whole NULL */
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", lb_dtype_name(tensor->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)(begin + tensor->bytes));
}

static enum lb_status add_metadata(json_t *root, const char *const *metadata, size_t n,
                                   struct lb_detail *detail) {
    json_t *object = json_object();
    if (json_object_set_new(root, "__metadata__", object) != 0) {
        return lb_fail(detail, LB_E_NOMEM, "safetensors: no memory for the header");
    }
    for (size_t i = 0; i < n; i++) {
        const char *key = metadata[2 * i], *value = metadata[2 * i + 1];
        if (!lb_check_text(key, strlen(key)) || !lb_check_text(value, strlen(value)) ||
            json_object_get(object, key) != NULL) {
            return lb_fail(detail, LB_E_ARG,
                           "safetensors: metadata %.200s is given twice or is no UTF-8 text", key);
        }
        if (json_object_set_new(object, key, json_string(value)) != 0) {
            return lb_fail(detail, LB_E_NOMEM, "safetensors: no memory for the header");
        }
    }
    return LB_OK;
}

static enum lb_status add_tensors(json_t *root, const struct lb_tensor *tensors, size_t n,
                                  struct lb_detail *detail) {
    size_t begin = 0, end = 0;
    for (size_t i = 0; i < n; i++, begin = end) {
        const struct lb_tensor *tensor = &tensors[i];
        enum lb_status status = check_tensor(tensor, detail);
        if (status != LB_OK) {
            return status;
        }
        if (json_object_get(root, tensor->name) != NULL) {
            return lb_fail(detail, LB_E_ARG, "safetensors: tensor %.200s is given twice", tensor->name);
        }
        if (!lb_add_size(begin, tensor->bytes, &end) || end > INT64_MAX) {
            return lb_fail(detail, LB_E_LIMIT, "safetensors: the tensors up to %s are too large for one file",
                           tensor->name);
        }
        if (json_object_set_new(root, tensor->name, entry(tensor, begin)) != 0) {
            return lb_fail(detail, LB_E_NOMEM, "safetensors: no memory for the header of %zu tensors", n);
        }
    }
    return LB_OK;
}

enum lb_status lb_safetensors_header(struct lb_buf *header, const struct lb_tensor *tensors, size_t n,
                                     const char *const *metadata, size_t n_metadata,
                                     struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    json_t *root = json_object();
    if (root == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "safetensors: no memory for the header");
    }
    if ((n_metadata > 0 && (status = add_metadata(root, metadata, n_metadata, detail)) != LB_OK) ||
        (status = add_tensors(root, tensors, n, detail)) != LB_OK) {
        goto out;
    }
    lb_put_u64(header, 0); /* the length goes here */
    if (lb_json_dump(root, JSON_COMPACT, header) == LB_OK) {
        size_t pad = (ALIGN - header->len % ALIGN) % ALIGN;
        char *spaces = lb_buf_extend(header, pad);
        if (spaces != NULL) {
            memset(spaces, ' ', pad);
        }
    }
    if ((status = lb_buf_status(header)) != LB_OK) {
        lb_fail(detail, status,
                "safetensors: the header of %zu tensors exceeds memory or the format's %d bytes", n,
                LB_SAFETENSORS_MAX_HEADER);
        goto out;
    }
    uint64_t json_len = header->len - 8;
    for (int i = 0; i < 8; i++) {
        header->data[i] = (char)(json_len >> (8 * i));
    }
out:
    json_decref(root);
    return status;
}

enum lb_status lb_safetensors_write(const char *path, const struct lb_tensor *tensors, size_t n,
                                    const char *const *metadata, size_t n_metadata,
                                    struct lb_detail *detail) {
    struct lb_writer writer;
    struct lb_buf header;
    lb_buf_init(&header, LB_SAFETENSORS_MAX_HEADER + 8);
    enum lb_status status = lb_safetensors_header(&header, tensors, n, metadata, n_metadata, detail);
    if (status != LB_OK) {
        lb_detail_prefix(detail, "%s", path);
    } else if ((status = lb_writer_open(&writer, path, detail)) == LB_OK) {
        lb_writer_put(&writer, header.data, header.len);
        for (size_t i = 0; i < n; i++) {
            if (tensors[i].bytes > 0) {
                lb_writer_put(&writer, tensors[i].data, tensors[i].bytes);
            }
        }
        status = lb_writer_commit(&writer, detail);
        lb_writer_abort(&writer);
    }
    lb_buf_finish(&header);
    return status;
}
