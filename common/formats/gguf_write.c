#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/formats/check.h"
#include "common/formats/gguf.h"

#define ALIGNMENT 32              /* the format's default: no key needed */
#define MAX_KEYS_BYTES (1u << 30) /* of all keys and values: vocabularies take megabytes */
#define MAX_NAME_BYTES 63         /* ggml counts the NUL in its 64 */
#define QUANTIZATION_VERSION 2    /* ggml's GGML_QNT_VERSION */

struct lb_gguf_out {
    struct lb_buf pairs; /* encoded */
    char **keys;         /* [n_keys] */
    size_t n_keys, cap_keys;
    struct lb_tensor *tensors;
    size_t n_tensors, cap_tensors;
    bool quantized;
    struct lb_detail failed; /* the first failure of a setter */
};

struct lb_gguf_out *lb_gguf_out_create(void) {
    struct lb_gguf_out *out = lb_calloc(1, sizeof *out);
    if (out != NULL) {
        lb_buf_init(&out->pairs, MAX_KEYS_BYTES);
    }
    return out;
}

void lb_gguf_out_destroy(struct lb_gguf_out *out) {
    if (out == NULL) {
        return;
    }
    for (size_t i = 0; i < out->n_keys; i++) {
        lb_free(out->keys[i]);
    }
    lb_free(out->keys);
    lb_free(out->tensors);
    lb_buf_finish(&out->pairs);
    lb_free(out);
}

static void no_memory(struct lb_gguf_out *out) {
    (void)lb_fail(&out->failed, LB_E_NOMEM, "no memory for the keys and tensors of a GGUF");
}

/* Room for one more of size bytes in *items; false when out of memory. */
static bool grow(void **items, size_t n, size_t *cap, size_t size) {
    if (n < *cap) {
        return true;
    }
    size_t more = *cap > 0 ? 2 * *cap : 64;
    void *bigger = lb_realloc_array(*items, more, size);
    if (bigger == NULL) {
        return false;
    }
    *items = bigger;
    *cap = more;
    return true;
}

static void put_text(struct lb_buf *buf, const char *text) {
    size_t len = strlen(text);
    lb_put_u64(buf, len);
    lb_buf_append(buf, text, len);
}

/* ---- keys ---- */

static bool has_key(const struct lb_gguf_out *out, const char *key) {
    for (size_t i = 0; i < out->n_keys; i++) {
        if (strcmp(out->keys[i], key) == 0) {
            return true;
        }
    }
    return false;
}

/* Starts a pair: the key and the type of its value. False: the value must not be put. */
static bool begin_pair(struct lb_gguf_out *out, const char *key, enum lb_gguf_type type) {
    if (out->failed.code != LB_OK) {
        return false;
    }
    bool good = key[0] != '\0';
    for (const char *c = key; *c != '\0'; c++) {
        good = good && *c > 0x20 && *c < 0x7F;
    }
    if (!good || has_key(out, key) || strcmp(key, "general.alignment") == 0) {
        (void)lb_fail(&out->failed, LB_E_ARG,
                      "key %.200s is put twice, is the writer's own or is not printable ASCII", key);
        return false;
    }
    void *keys = out->keys;
    bool grown = grow(&keys, out->n_keys, &out->cap_keys, sizeof *out->keys);
    out->keys = keys;
    char *copy = grown ? lb_strdup(key) : NULL;
    if (copy == NULL) {
        no_memory(out);
        return false;
    }
    out->keys[out->n_keys++] = copy;
    put_text(&out->pairs, key);
    lb_put_u32(&out->pairs, (uint32_t)type);
    return true;
}

static bool begin_array(struct lb_gguf_out *out, const char *key, enum lb_gguf_type element, size_t n) {
    if (!begin_pair(out, key, LB_GGUF_ARRAY)) {
        return false;
    }
    lb_put_u32(&out->pairs, (uint32_t)element);
    lb_put_u64(&out->pairs, n);
    return true;
}

/* Checks and puts one string value. */
static void put_string(struct lb_gguf_out *out, const char *key, const char *v) {
    if (!lb_check_text(v, strlen(v))) {
        (void)lb_fail(&out->failed, LB_E_ARG, "the text of key %.200s is not valid UTF-8", key);
        return;
    }
    put_text(&out->pairs, v);
}

void lb_gguf_put_u32(struct lb_gguf_out *out, const char *key, uint32_t v) {
    if (begin_pair(out, key, LB_GGUF_U32)) {
        lb_put_u32(&out->pairs, v);
    }
}

void lb_gguf_put_f32(struct lb_gguf_out *out, const char *key, float v) {
    if (begin_pair(out, key, LB_GGUF_F32)) {
        lb_put_f32(&out->pairs, v);
    }
}

void lb_gguf_put_bool(struct lb_gguf_out *out, const char *key, bool v) {
    if (begin_pair(out, key, LB_GGUF_BOOL)) {
        lb_put_u8(&out->pairs, v ? 1 : 0);
    }
}

void lb_gguf_put_string(struct lb_gguf_out *out, const char *key, const char *v) {
    if (begin_pair(out, key, LB_GGUF_STRING)) {
        put_string(out, key, v);
    }
}

void lb_gguf_put_strings(struct lb_gguf_out *out, const char *key, const char *const *v, size_t n) {
    if (begin_array(out, key, LB_GGUF_STRING, n)) {
        for (size_t i = 0; i < n; i++) {
            put_string(out, key, v[i]);
        }
    }
}

void lb_gguf_put_u8s(struct lb_gguf_out *out, const char *key, const unsigned char *v, size_t n) {
    if (begin_array(out, key, LB_GGUF_U8, n)) {
        lb_buf_append(&out->pairs, v, n);
    }
}

void lb_gguf_put_i32s(struct lb_gguf_out *out, const char *key, const int32_t *v, size_t n) {
    if (begin_array(out, key, LB_GGUF_I32, n)) {
        for (size_t i = 0; i < n; i++) {
            lb_put_u32(&out->pairs, (uint32_t)v[i]);
        }
    }
}

void lb_gguf_put_f32s(struct lb_gguf_out *out, const char *key, const float *v, size_t n) {
    if (begin_array(out, key, LB_GGUF_F32, n)) {
        for (size_t i = 0; i < n; i++) {
            lb_put_f32(&out->pairs, v[i]);
        }
    }
}

/* ---- tensors ---- */

static enum lb_status check_tensor(const struct lb_tensor *tensor, struct lb_detail *detail) {
    size_t bytes = 0, len = tensor->name != NULL ? strlen(tensor->name) : 0;
    char shape[LB_SHAPE_TEXT];
    if (len > MAX_NAME_BYTES || !lb_check_name(tensor->name, len)) {
        return lb_fail(detail, LB_E_ARG,
                       "\"%.200s\" is no name for a tensor: 1 to %d bytes of printable text",
                       len > 0 ? tensor->name : "", MAX_NAME_BYTES);
    }
    if (lb_dtype_ggml(tensor->dtype) < 0) {
        char names[LB_DTYPE_NAMES];
        return lb_fail(detail, LB_E_UNSUPPORTED, "tensor %s: GGUF files are written with %s, not %s",
                       tensor->name, lb_dtype_gguf_names(false, names), lb_dtype_name(tensor->dtype));
    }
    if (tensor->n_dims < 0 || tensor->n_dims > LB_MAX_DIMS) {
        return lb_fail(detail, LB_E_ARG, "tensor %s has %d dimensions", tensor->name, tensor->n_dims);
    }
    if (!lb_check_shape_bytes(tensor, &bytes) || bytes != tensor->bytes ||
        (bytes > 0 && tensor->data == NULL)) {
        return lb_fail(detail, LB_E_ARG, "tensor %s: %zu bytes of data do not make %s of shape %s",
                       tensor->name, tensor->bytes, lb_dtype_name(tensor->dtype),
                       lb_check_shape_text(tensor, shape));
    }
    return LB_OK;
}

void lb_gguf_put_tensor(struct lb_gguf_out *out, const struct lb_tensor *tensor) {
    if (out->failed.code != LB_OK || check_tensor(tensor, &out->failed) != LB_OK) {
        return;
    }
    for (size_t i = 0; i < out->n_tensors; i++) {
        if (strcmp(out->tensors[i].name, tensor->name) == 0) {
            (void)lb_fail(&out->failed, LB_E_ARG, "tensor %s is put twice", tensor->name);
            return;
        }
    }
    void *tensors = out->tensors;
    bool grown = grow(&tensors, out->n_tensors, &out->cap_tensors, sizeof *out->tensors);
    out->tensors = tensors;
    if (!grown) {
        no_memory(out);
        return;
    }
    out->tensors[out->n_tensors++] = *tensor;
    out->quantized = out->quantized || lb_dtype_block(tensor->dtype) > 1;
}

/* ---- writing ---- */

static size_t padding(size_t len) {
    return (ALIGNMENT - len % ALIGNMENT) % ALIGNMENT;
}

/* Name, dimensions fastest first, type, offset; *offset moves to the next tensor. */
static enum lb_status put_info(struct lb_buf *head, const struct lb_tensor *tensor, size_t *offset,
                               struct lb_detail *detail) {
    put_text(head, tensor->name);
    lb_put_u32(head, (uint32_t)tensor->n_dims);
    for (int i = tensor->n_dims - 1; i >= 0; i--) {
        lb_put_u64(head, (uint64_t)tensor->dim[i]);
    }
    lb_put_u32(head, (uint32_t)lb_dtype_ggml(tensor->dtype));
    lb_put_u64(head, *offset);
    if (!lb_add_size(*offset, tensor->bytes, offset) || !lb_add_size(*offset, padding(*offset), offset)) {
        return lb_fail(detail, LB_E_LIMIT, "the tensors up to %s are too large for one file", tensor->name);
    }
    return LB_OK;
}

/* Everything before the data; head is initialised by the caller. */
static enum lb_status make_head(struct lb_gguf_out *out, struct lb_buf *head, struct lb_detail *detail) {
    static const uint8_t zeros[ALIGNMENT];
    size_t offset = 0;
    if (out->quantized && !has_key(out, "general.quantization_version")) {
        lb_gguf_put_u32(out, "general.quantization_version", QUANTIZATION_VERSION);
    }
    if (out->failed.code == LB_OK && lb_buf_status(&out->pairs) != LB_OK) {
        (void)lb_fail(&out->failed, lb_buf_status(&out->pairs),
                      "the keys exceed memory or the maximum of %u bytes", MAX_KEYS_BYTES);
    }
    if (out->failed.code != LB_OK) {
        return lb_fail(detail, out->failed.code, "%s", out->failed.text);
    }
    lb_buf_append(head, "GGUF", 4);
    lb_put_u32(head, 3);
    lb_put_u64(head, out->n_tensors);
    lb_put_u64(head, out->n_keys);
    if (out->pairs.len > 0) {
        lb_buf_append(head, out->pairs.data, out->pairs.len);
    }
    for (size_t i = 0; i < out->n_tensors; i++) {
        enum lb_status status = put_info(head, &out->tensors[i], &offset, detail);
        if (status != LB_OK) {
            return status;
        }
    }
    lb_buf_append(head, zeros, padding(head->len));
    enum lb_status status = lb_buf_status(head);
    return status == LB_OK
               ? LB_OK
               : lb_fail(detail, status, "the keys and tensor names exceed memory or the maximum");
}

enum lb_status lb_gguf_encode(struct lb_gguf_out *out, struct lb_buf *buf, struct lb_detail *detail) {
    static const uint8_t zeros[ALIGNMENT];
    struct lb_buf head;
    lb_buf_init(&head, 2 * (size_t)MAX_KEYS_BYTES);
    enum lb_status status = make_head(out, &head, detail);
    if (status == LB_OK) {
        lb_buf_append(buf, head.data, head.len);
        for (size_t i = 0; i < out->n_tensors; i++) {
            const struct lb_tensor *tensor = &out->tensors[i];
            if (tensor->bytes > 0) {
                lb_buf_append(buf, tensor->data, tensor->bytes);
                lb_buf_append(buf, zeros, padding(tensor->bytes));
            }
        }
        status = lb_buf_status(buf);
        if (status != LB_OK) {
            lb_fail(detail, status, "a GGUF of %zu tensors does not fit the buffer of at most %zu bytes",
                    out->n_tensors, buf->max);
        }
    }
    lb_buf_finish(&head);
    return status;
}

enum lb_status lb_gguf_write(struct lb_gguf_out *out, const char *path, struct lb_detail *detail) {
    static const uint8_t zeros[ALIGNMENT];
    struct lb_writer writer;
    struct lb_buf head;
    lb_buf_init(&head, 2 * (size_t)MAX_KEYS_BYTES);
    enum lb_status status = make_head(out, &head, detail);
    if (status != LB_OK) {
        lb_detail_prefix(detail, "%s", path);
    } else if ((status = lb_writer_open(&writer, path, detail)) == LB_OK) {
        lb_writer_put(&writer, head.data, head.len);
        for (size_t i = 0; i < out->n_tensors; i++) {
            const struct lb_tensor *tensor = &out->tensors[i];
            if (tensor->bytes > 0) {
                lb_writer_put(&writer, tensor->data, tensor->bytes);
                lb_writer_put(&writer, zeros, padding(tensor->bytes));
            }
        }
        status = lb_writer_commit(&writer, detail);
        lb_writer_abort(&writer);
    }
    lb_buf_finish(&head);
    return status;
}
