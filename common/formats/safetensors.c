#include "common/base/bytes.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/formats/check.h"
#include "common/formats/safetensors_file.h"

#include <stdlib.h>

#define MAX_HEADER_DEPTH 8 /* a header nests three deep */

/* A tensor while the header is checked. */
struct entry {
    struct lb_tensor tensor;
    uint64_t begin, end; /* data_offsets */
};

static void part_finish(struct lb_safetensors_part *part) {
    lb_free(part->tensors);
    lb_free(part->strings);
    lb_free(part->metadata);
    lb_free(part->aligned);
    lb_map_close(&part->map);
}

void lb_safetensors_destroy(struct lb_safetensors *file) {
    if (file == NULL) {
        return;
    }
    for (size_t i = 0; i < file->n_parts; i++) {
        part_finish(&file->parts[i]);
    }
    lb_free(file->parts);
    lb_free(file->tensors);
    lb_free(file->by_name);
    lb_free(file);
}

const char *lb_safetensors_written(const struct lb_safetensors *file) {
    const char *path = NULL;
    for (size_t i = 0; path == NULL && i < file->n_parts; i++) {
        path = lb_map_written(&file->parts[i].map);
    }
    return path;
}

/* ---- header ---- */

/* The JSON header and where the data after it starts. */
static enum lb_status read_header(const void *bytes, size_t len, const char *what, json_t **out,
                                  size_t *out_start, struct lb_detail *detail) {
    struct lb_reader reader;
    lb_reader_init(&reader, bytes, len);
    uint64_t n = lb_read_u64(&reader);
    if (reader.failed) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: %zu bytes are too few for a safetensors file; it is cut short or another format",
                       what, len);
    }
    if (n > LB_SAFETENSORS_MAX_HEADER) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: header length %" PRIu64
                       " exceeds the format's limit of %d bytes; is this a safetensors file?",
                       what, n, LB_SAFETENSORS_MAX_HEADER);
    }
    const char *text = lb_read_span(&reader, (size_t)n);
    if (text == NULL) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: the header needs %" PRIu64
                       " bytes after byte 8 but the file ends at byte %zu; it is cut short",
                       what, n, len);
    }
    if (n == 0 || text[0] != '{') {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: the header at byte 8 does not begin with '{'; is this a safetensors file?", what);
    }
    enum lb_status status = lb_json_parse(text, (size_t)n, MAX_HEADER_DEPTH, what, out, detail);
    if (status != LB_OK) {
        return status;
    }
    if (!json_is_object(*out)) {
        json_decref(*out);
        return lb_fail(detail, LB_E_FORMAT, "%s: the header is no JSON object", what);
    }
    *out_start = 8 + (size_t)n;
    return LB_OK;
}

static bool dtype_by_name(const char *name, enum lb_dtype *out) {
    for (int i = 0; i < LB_DTYPES; i++) {
        if (lb_dtype_block((enum lb_dtype)i) == 1 && strcmp(lb_dtype_name((enum lb_dtype)i), name) == 0) {
            *out = (enum lb_dtype)i;
            return true;
        }
    }
    return false;
}

static enum lb_status read_shape(const json_t *shape, const char *what, struct lb_tensor *tensor,
                                 struct lb_detail *detail) {
    if (!json_is_array(shape)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: tensor %.200s: shape is missing or no array", what,
                       tensor->name);
    }
    size_t n = json_array_size(shape);
    if (n > LB_MAX_DIMS) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "%s: tensor %.200s has %zu dimensions; at most %d are supported", what, tensor->name,
                       n, LB_MAX_DIMS);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0) {
            return lb_fail(detail, LB_E_FORMAT, "%s: tensor %.200s: shape[%zu] is not a number of 0 or more",
                           what, tensor->name, i);
        }
        tensor->dim[i] = json_integer_value(dim);
    }
    tensor->n_dims = (int)n;
    return LB_OK;
}

/* {"dtype", "shape", "data_offsets": [begin, end]}; the shape must give exactly end - begin bytes. */
static enum lb_status read_entry(const json_t *object, const char *what, struct entry *entry,
                                 struct lb_detail *detail) {
    struct lb_tensor *tensor = &entry->tensor;
    const char *dtype = json_string_value(json_object_get(object, "dtype"));
    if (dtype == NULL) {
        return lb_fail(detail, LB_E_FORMAT, "%s: tensor %.200s: dtype is missing or no string", what,
                       tensor->name);
    }
    if (!dtype_by_name(dtype, &tensor->dtype)) {
        return lb_fail(
            detail, LB_E_UNSUPPORTED,
            "%s: tensor %.200s has dtype %.32s, which this build does not read; convert it to F32 or BF16",
            what, tensor->name, dtype);
    }
    enum lb_status status = read_shape(json_object_get(object, "shape"), what, tensor, detail);
    if (status != LB_OK) {
        return status;
    }
    const json_t *offsets = json_object_get(object, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
        json_integer_value(begin) < 0 || json_integer_value(end) < json_integer_value(begin)) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: tensor %.200s: data_offsets must be two numbers 0 <= begin <= end", what,
                       tensor->name);
    }
    entry->begin = (uint64_t)json_integer_value(begin);
    entry->end = (uint64_t)json_integer_value(end);

    char shape[LB_SHAPE_TEXT];
    if (!lb_check_shape_bytes(tensor, &tensor->bytes)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: tensor %.200s: shape %s overflows", what, tensor->name,
                       lb_check_shape_text(tensor, shape));
    }
    if (tensor->bytes != entry->end - entry->begin) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: tensor %.200s: %s of shape %s is %zu bytes, but data_offsets span %" PRIu64, what,
                       tensor->name, dtype, lb_check_shape_text(tensor, shape), tensor->bytes,
                       entry->end - entry->begin);
    }
    return LB_OK;
}

/* ---- strings: names and metadata outlive the JSON ---- */

/* Copies s to *at and moves *at behind it. */
static const char *keep(char **at, const char *s) {
    char *copy = *at;
    size_t size = strlen(s) + 1;
    memcpy(copy, s, size);
    *at += size;
    return copy;
}

/* Checks names and metadata and gives the bytes that keeping them takes. */
static enum lb_status measure_strings(json_t *root, const char *what, size_t *out_bytes,
                                      struct lb_detail *detail) {
    size_t bytes = 0;
    const char *name, *key;
    json_t *entry, *value;
    json_object_foreach(root, name, entry) {
        if (!json_is_object(entry)) {
            return lb_fail(detail, LB_E_FORMAT, "%s: header entry %.200s is no object", what, name);
        }
        if (strcmp(name, "__metadata__") != 0) {
            if (!lb_check_name(name, strlen(name))) {
                return lb_fail(detail, LB_E_FORMAT, "%s: a tensor's name is empty or has control characters",
                               what);
            }
            bytes += strlen(name) + 1;
            continue;
        }
        json_object_foreach(entry, key, value) {
            if (!json_is_string(value)) {
                return lb_fail(detail, LB_E_FORMAT, "%s: __metadata__ value of %.200s is no string", what,
                               key);
            }
            bytes += strlen(key) + 1 + json_string_length(value) + 1;
        }
    }
    *out_bytes = bytes;
    return LB_OK;
}

static enum lb_status keep_metadata(struct lb_safetensors_part *part, json_t *object, char **at) {
    size_t n = json_object_size(object);
    if (n == 0) {
        return LB_OK;
    }
    part->metadata = lb_malloc_array(n, 2 * sizeof *part->metadata);
    if (part->metadata == NULL) {
        return LB_E_NOMEM;
    }
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        part->metadata[2 * part->n_metadata] = keep(at, key);
        part->metadata[2 * part->n_metadata + 1] = keep(at, json_string_value(value));
        part->n_metadata++;
    }
    return LB_OK;
}

/* ---- data ---- */

static int by_data(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    if (x->end != y->end) {
        return x->end < y->end ? -1 : 1;
    }
    return strcmp(x->tensor.name, y->tensor.name); /* empty tensors share a place */
}

/* Sorted entries must cover the data exactly: this also rules out overlaps. */
static enum lb_status check_cover(const struct entry *entries, size_t n, size_t start, size_t len,
                                  const char *what, struct lb_detail *detail) {
    uint64_t covered = 0, data_len = len - start;
    for (size_t i = 0; i < n; i++) {
        const struct entry *entry = &entries[i];
        if (entry->begin != covered) {
            return lb_fail(detail, LB_E_FORMAT,
                           "%s: tensor %.200s begins at data byte %" PRIu64 " but %.200s ends at %" PRIu64
                           ": %s between tensors",
                           what, entry->tensor.name, entry->begin,
                           i > 0 ? entries[i - 1].tensor.name : "the header", covered,
                           entry->begin > covered ? "a hole" : "an overlap");
        }
        if (entry->end > data_len) {
            return lb_fail(detail, LB_E_FORMAT,
                           "%s: tensor %.200s ends at file byte %" PRIu64
                           " but the file has %zu bytes; it is cut short: fetch or write it again",
                           what, entry->tensor.name, start + entry->end, len);
        }
        covered = entry->end;
    }
    if (covered != data_len) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: %" PRIu64 " bytes follow the last tensor at file byte %" PRIu64, what,
                       data_len - covered, start + covered);
    }
    return LB_OK;
}

/* The format lets a tensor start at any byte; C does not. Tensors at bad addresses are copied to good ones.
 */
static enum lb_status align_data(struct lb_safetensors_part *part) {
    size_t bytes = 0;
    for (size_t i = 0; i < part->n; i++) {
        const struct lb_tensor *t = &part->tensors[i];
        if ((uintptr_t)t->data % lb_check_align(t->dtype) != 0) {
            bytes += t->bytes + 63; /* no overflow: t->bytes lie in the file */
        }
    }
    if (bytes == 0) {
        return LB_OK;
    }
    part->aligned = lb_malloc_aligned(bytes);
    if (part->aligned == NULL) {
        return LB_E_NOMEM;
    }
    uint8_t *at = part->aligned;
    for (size_t i = 0; i < part->n; i++) {
        struct lb_tensor *t = &part->tensors[i];
        if ((uintptr_t)t->data % lb_check_align(t->dtype) != 0) {
            memcpy(at, t->data, t->bytes);
            t->data = at;
            at += (t->bytes + 63) / 64 * 64;
        }
    }
    return LB_OK;
}

/* Entries of the header, sorted by their data, names kept at *at. */
static enum lb_status read_entries(json_t *root, const char *what, char **at, struct entry *entries, size_t n,
                                   struct lb_detail *detail) {
    size_t i = 0;
    const char *name;
    json_t *object;
    json_object_foreach(root, name, object) {
        if (strcmp(name, "__metadata__") == 0) {
            continue;
        }
        entries[i] = (struct entry){.tensor = {.name = keep(at, name)}};
        enum lb_status status = read_entry(object, what, &entries[i], detail);
        if (status != LB_OK) {
            return status;
        }
        i++;
    }
    qsort(entries, n, sizeof *entries, by_data);
    return LB_OK;
}

static enum lb_status part_parse(struct lb_safetensors_part *part, const void *bytes, size_t len,
                                 const char *what, struct lb_detail *detail) {
    struct entry *entries = NULL;
    json_t *root = NULL;
    size_t start = 0, strings = 0;
    enum lb_status status = read_header(bytes, len, what, &root, &start, detail);
    if (status != LB_OK) {
        return status;
    }
    json_t *metadata = json_object_get(root, "__metadata__");
    size_t n = json_object_size(root) - (metadata != NULL);
    if ((status = measure_strings(root, what, &strings, detail)) != LB_OK) {
        goto out;
    }
    part->strings = lb_malloc_array(strings + 1, 1);
    part->tensors = lb_calloc(n + 1, sizeof *part->tensors);
    entries = lb_calloc(n + 1, sizeof *entries);
    char *at = part->strings;
    if (part->strings == NULL || part->tensors == NULL || entries == NULL ||
        keep_metadata(part, metadata, &at) != LB_OK) {
        status = lb_fail(detail, LB_E_NOMEM, "%s: no memory for %zu tensors", what, n);
        goto out;
    }
    if ((status = read_entries(root, what, &at, entries, n, detail)) != LB_OK ||
        (status = check_cover(entries, n, start, len, what, detail)) != LB_OK) {
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        part->tensors[i] = entries[i].tensor;
        part->tensors[i].data = (const uint8_t *)bytes + start + entries[i].begin;
    }
    part->n = n;
    if (align_data(part) != LB_OK) {
        status = lb_fail(detail, LB_E_NOMEM, "%s: no memory to align its tensors", what);
    }
out:
    json_decref(root);
    lb_free(entries);
    return status;
}

/* ---- the whole ---- */

static int by_tensor_name(const void *a, const void *b) {
    const struct lb_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

struct lb_safetensors *lb_safetensors_create(size_t n_parts) {
    struct lb_safetensors *file = lb_calloc(1, sizeof *file);
    if (file != NULL && (file->parts = lb_calloc(n_parts, sizeof *file->parts)) == NULL) {
        lb_free(file);
        return NULL;
    }
    if (file != NULL) {
        file->n_parts = n_parts;
    }
    return file;
}

enum lb_status lb_safetensors_join(struct lb_safetensors *file, const char *what, struct lb_detail *detail) {
    size_t n = 0;
    for (size_t i = 0; i < file->n_parts; i++) {
        n += file->parts[i].n;
    }
    file->tensors = lb_calloc(n + 1, sizeof *file->tensors);
    file->by_name = lb_calloc(n + 1, sizeof *file->by_name);
    if (file->tensors == NULL || file->by_name == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "%s: no memory for %zu tensors", what, n);
    }
    for (size_t i = 0; i < file->n_parts; i++) {
        const struct lb_safetensors_part *part = &file->parts[i];
        memcpy(file->tensors + file->n, part->tensors, part->n * sizeof *part->tensors);
        file->n += part->n;
    }
    for (size_t i = 0; i < n; i++) {
        file->by_name[i] = &file->tensors[i];
    }
    qsort(file->by_name, n, sizeof *file->by_name, by_tensor_name);
    return LB_OK;
}

enum lb_status lb_safetensors_parse(const void *bytes, size_t len, const char *what,
                                    struct lb_safetensors **out, struct lb_detail *detail) {
    struct lb_safetensors *file = lb_safetensors_create(1);
    if (file == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "%s: no memory to open it", what);
    }
    enum lb_status status = part_parse(&file->parts[0], bytes, len, what, detail);
    if (status == LB_OK) {
        status = lb_safetensors_join(file, what, detail);
    }
    if (status != LB_OK) {
        lb_safetensors_destroy(file);
        return status;
    }
    *out = file;
    return LB_OK;
}

enum lb_status lb_safetensors_part_open(struct lb_safetensors_part *part, const char *path,
                                        struct lb_detail *detail) {
    enum lb_status status = lb_map_open(&part->map, path, detail);
    return status == LB_OK ? part_parse(part, part->map.data, part->map.len, path, detail) : status;
}

/* ---- reading ---- */

size_t lb_safetensors_count(const struct lb_safetensors *file) {
    return file->n;
}

const struct lb_tensor *lb_safetensors_get(const struct lb_safetensors *file, size_t i) {
    return i < file->n ? &file->tensors[i] : NULL;
}

const struct lb_tensor *lb_safetensors_find(const struct lb_safetensors *file, const char *name) {
    const struct lb_tensor wanted = {.name = name}, *key = &wanted;
    const struct lb_tensor **found =
        bsearch(&key, file->by_name, file->n, sizeof *file->by_name, by_tensor_name);
    return found != NULL ? *found : NULL;
}

const char *lb_safetensors_metadata(const struct lb_safetensors *file, const char *key) {
    for (size_t p = 0; p < file->n_parts; p++) {
        const struct lb_safetensors_part *part = &file->parts[p];
        for (size_t i = 0; i < part->n_metadata; i++) {
            if (strcmp(part->metadata[2 * i], key) == 0) {
                return part->metadata[2 * i + 1];
            }
        }
    }
    return NULL;
}
