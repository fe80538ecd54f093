#include "common/base/bytes.h"
#include "common/formats/gguf_file.h"

#include <stdlib.h>
#include <string.h>

static int by_tensor_name(const void *a, const void *b) {
    const struct lb_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int by_key(const void *a, const void *b) {
    const struct lb_gguf_pair *const *x = a, *const *y = b;
    return strcmp((*x)->key, (*y)->key);
}

size_t lb_gguf_count(const struct lb_gguf *file) {
    return file->n_tensors;
}

const struct lb_tensor *lb_gguf_get(const struct lb_gguf *file, size_t i) {
    return i < file->n_tensors ? &file->tensors[i] : NULL;
}

const struct lb_tensor *lb_gguf_find(const struct lb_gguf *file, const char *name) {
    const struct lb_tensor wanted = {.name = name}, *key = &wanted;
    const struct lb_tensor **found =
        bsearch(&key, file->by_name, file->n_tensors, sizeof *file->by_name, by_tensor_name);
    return found != NULL ? *found : NULL;
}

size_t lb_gguf_key_count(const struct lb_gguf *file) {
    return file->n_pairs;
}

const char *lb_gguf_key(const struct lb_gguf *file, size_t i, enum lb_gguf_type *out_type,
                        enum lb_gguf_type *out_element) {
    if (i >= file->n_pairs) {
        return NULL;
    }
    *out_type = file->pairs[i].type;
    *out_element = file->pairs[i].element;
    return file->pairs[i].key;
}

static const struct lb_gguf_pair *find_pair(const struct lb_gguf *file, const char *name) {
    const struct lb_gguf_pair wanted = {.key = (char *)(uintptr_t)name}, *key = &wanted;
    const struct lb_gguf_pair **found =
        bsearch(&key, file->by_key, file->n_pairs, sizeof *file->by_key, by_key);
    return found != NULL ? *found : NULL;
}

bool lb_gguf_has(const struct lb_gguf *file, const char *key) {
    return find_pair(file, key) != NULL;
}

/* Element i of a pair's numbers; the caller has checked i. */
static bool get_number(const struct lb_gguf_pair *pair, uint64_t i, double *out) {
    enum lb_gguf_type type = pair->element;
    if (type == LB_GGUF_STRING) {
        return false;
    }
    struct lb_reader r;
    lb_reader_init(&r, pair->value + i * lb_gguf_value_bytes[type], lb_gguf_value_bytes[type]);
    switch (type) {
    case LB_GGUF_U8:
    case LB_GGUF_BOOL:
        *out = lb_read_u8(&r);
        return true;
    case LB_GGUF_I8:
        *out = (int8_t)lb_read_u8(&r);
        return true;
    case LB_GGUF_U16:
        *out = lb_read_u16(&r);
        return true;
    case LB_GGUF_I16:
        *out = (int16_t)lb_read_u16(&r);
        return true;
    case LB_GGUF_U32:
        *out = lb_read_u32(&r);
        return true;
    case LB_GGUF_I32:
        *out = (int32_t)lb_read_u32(&r);
        return true;
    case LB_GGUF_F32:
        *out = lb_read_f32(&r);
        return true;
    case LB_GGUF_U64:
        *out = (double)lb_read_u64(&r);
        return true;
    case LB_GGUF_I64:
        *out = (double)(int64_t)lb_read_u64(&r);
        return true;
    case LB_GGUF_F64:
        *out = lb_read_f64(&r);
        return true;
    case LB_GGUF_STRING:
    case LB_GGUF_ARRAY:
        break;
    }
    return false;
}

bool lb_gguf_number(const struct lb_gguf *file, const char *key, double *out) {
    const struct lb_gguf_pair *pair = find_pair(file, key);
    return pair != NULL && pair->type != LB_GGUF_ARRAY && get_number(pair, 0, out);
}

const char *lb_gguf_string(const struct lb_gguf *file, const char *key) {
    const struct lb_gguf_pair *pair = find_pair(file, key);
    return pair != NULL && pair->type == LB_GGUF_STRING ? pair->texts[0] : NULL;
}

int64_t lb_gguf_array_count(const struct lb_gguf *file, const char *key) {
    const struct lb_gguf_pair *pair = find_pair(file, key);
    return pair != NULL && pair->type == LB_GGUF_ARRAY ? (int64_t)pair->count : -1;
}

static const struct lb_gguf_pair *find_array(const struct lb_gguf *file, const char *key, int64_t i) {
    const struct lb_gguf_pair *pair = find_pair(file, key);
    return pair != NULL && pair->type == LB_GGUF_ARRAY && i >= 0 && (uint64_t)i < pair->count ? pair : NULL;
}

const char *lb_gguf_array_string(const struct lb_gguf *file, const char *key, int64_t i) {
    const struct lb_gguf_pair *pair = find_array(file, key, i);
    return pair != NULL && pair->element == LB_GGUF_STRING ? pair->texts[i] : NULL;
}

bool lb_gguf_array_number(const struct lb_gguf *file, const char *key, int64_t i, double *out) {
    const struct lb_gguf_pair *pair = find_array(file, key, i);
    return pair != NULL && get_number(pair, (uint64_t)i, out);
}
