#include "common/formats/gguf.h"

#include "common/base/bytes.h"
#include "common/base/mem.h"
#include "common/formats/check.h"
#include "common/formats/gguf_file.h"

#include <stdlib.h>

#define MAX_KEY_BYTES 65535      /* the format's own limit */
#define MAX_NAME_BYTES 64        /* the format's own limit for tensors */
#define MAX_ALIGNMENT (1u << 20) /* as in ggml: more would only waste memory */
#define MAX_KEYS 65536           /* counts are believed up to these: files have 100, and 10,000 */
#define MAX_TENSORS 131072
#define MIN_KEY_BYTES (8 + 1 + 4 + 1)            /* length, one letter, type, smallest value */
#define MIN_TENSOR_BYTES (8 + 1 + 4 + 0 + 4 + 8) /* length, one letter, dimensions, type, offset */

/* ggml's types that hold no weights here, by number: common/nn/quant.h has those that do. */
static const char *const ggml_types[] = {
    [9] = "Q8_1",   [15] = "Q8_K",  [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S",
    [21] = "IQ3_S", [22] = "IQ2_S", [24] = "I8",      [25] = "I16",    [26] = "I32",     [27] = "I64",
    [28] = "F64",   [29] = "IQ1_M", [34] = "TQ1_0",   [35] = "TQ2_0",  [40] = "NVFP4",   [41] = "Q1_0",
};
#define N_GGML_TYPES (sizeof ggml_types / sizeof *ggml_types)

void lb_gguf_destroy(struct lb_gguf *file) {
    if (file == NULL) {
        return;
    }
    for (size_t i = 0; file->pairs != NULL && i < file->n_pairs; i++) {
        lb_free(file->pairs[i].key);
        lb_free(file->pairs[i].texts);
        lb_free(file->pairs[i].text_bytes);
    }
    lb_free(file->pairs);
    lb_free(file->by_key);
    lb_free(file->tensors);
    lb_free(file->offsets);
    lb_free(file->names);
    lb_free(file->by_name);
    for (int i = 0; file->parts != NULL && i < file->n_parts - 1; i++) {
        lb_gguf_destroy(file->parts[i]); /* has no parts itself */
    }
    lb_free(file->parts);
    lb_free(file->path);
    lb_map_close(&file->map);
    lb_free(file);
}

static enum lb_status no_memory(const struct lb_gguf *file, struct lb_detail *detail) {
    return lb_fail(detail, LB_E_NOMEM, "%s: no memory for its keys and tensors", file->what);
}

/* place: what was being read, "key general.name". */
static enum lb_status cut_short(const struct lb_gguf *file, const struct lb_reader *r, const char *place,
                                const char *name, struct lb_detail *detail) {
    return lb_fail(
        detail, LB_E_FORMAT,
        "%s: %s%.200s at byte %zu goes past the end of the file (%zu bytes); it is cut short or damaged",
        file->what, place, name, r->pos, r->len);
}

/* ---- keys and values ---- */

/* The bytes of a length-prefixed string in place; NULL (and failed) past the end. */
static const char *read_string(struct lb_reader *r, uint64_t *out_len) {
    uint64_t len = lb_read_u64(r);
    if (r->failed || len > lb_reader_left(r)) {
        r->failed = true;
        return NULL;
    }
    *out_len = len;
    return lb_read_span(r, (size_t)len);
}

/* Copies text to *at with a NUL and moves *at behind it; NULL for text that no C string can hold. */
static const char *keep(char **at, const char *text, size_t len) {
    char *copy = *at;
    if (!lb_check_text(text, len)) {
        return NULL;
    }
    memcpy(copy, text, len);
    copy[len] = '\0';
    *at += len + 1;
    return copy;
}

/* Reads count strings into pair->texts. Two passes: the first one measures, so that one block holds them all.
 */
static enum lb_status read_texts(const struct lb_gguf *file, struct lb_reader *r, uint64_t count,
                                 struct lb_gguf_pair *pair, struct lb_detail *detail) {
    struct lb_reader measure = *r;
    size_t bytes = 1;
    if (count > lb_reader_left(r) / 8) {
        return cut_short(file, r, "the text of key ", pair->key, detail);
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t len = 0;
        if (read_string(&measure, &len) == NULL) {
            return cut_short(file, &measure, "the text of key ", pair->key, detail);
        }
        bytes += (size_t)len + 1; /* no overflow: the lengths lie in the file */
    }
    char *at = pair->text_bytes = lb_malloc_array(bytes, 1);
    pair->texts = lb_calloc((size_t)count + 1, sizeof *pair->texts);
    if (pair->text_bytes == NULL || pair->texts == NULL) {
        return no_memory(file, detail);
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t len = 0;
        const char *text = read_string(r, &len);
        pair->texts[i] = keep(&at, text, (size_t)len);
    }
    return LB_OK;
}

static enum lb_status read_numbers(const struct lb_gguf *file, struct lb_reader *r, enum lb_gguf_type type,
                                   uint64_t count, struct lb_gguf_pair *pair, struct lb_detail *detail) {
    if (count > lb_reader_left(r) / lb_gguf_value_bytes[type]) {
        return cut_short(file, r, "the value of key ", pair->key, detail);
    }
    pair->value = lb_read_span(r, (size_t)count * lb_gguf_value_bytes[type]);
    for (uint64_t i = 0; type == LB_GGUF_BOOL && i < count; i++) {
        if (pair->value[i] > 1) {
            return lb_fail(detail, LB_E_FORMAT, "%s: key %.200s: a bool is %d, not 0 or 1", file->what,
                           pair->key, pair->value[i]);
        }
    }
    return LB_OK;
}

static enum lb_status read_value(const struct lb_gguf *file, struct lb_reader *r, struct lb_gguf_pair *pair,
                                 struct lb_detail *detail) {
    uint32_t type = lb_read_u32(r), element = type;
    uint64_t count = 1;
    if (type == LB_GGUF_ARRAY) {
        element = lb_read_u32(r);
        count = lb_read_u64(r);
    }
    if (r->failed) {
        return cut_short(file, r, "the value of key ", pair->key, detail);
    }
    if (type >= LB_GGUF_TYPES || element >= LB_GGUF_TYPES) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: key %.200s has value type %" PRIu32 ", which the format does not have",
                       file->what, pair->key, type >= LB_GGUF_TYPES ? type : element);
    }
    if (element == LB_GGUF_ARRAY) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s: key %.200s is an array of arrays", file->what,
                       pair->key);
    }
    pair->type = (enum lb_gguf_type)type;
    pair->element = (enum lb_gguf_type)element;
    pair->count = count;
    return element == LB_GGUF_STRING ? read_texts(file, r, count, pair, detail)
                                     : read_numbers(file, r, pair->element, count, pair, detail);
}

static enum lb_status read_pair(const struct lb_gguf *file, struct lb_reader *r, struct lb_gguf_pair *pair,
                                struct lb_detail *detail) {
    uint64_t len = 0;
    size_t where = r->pos;
    const char *key = read_string(r, &len);
    if (key == NULL) {
        return cut_short(file, r, "a key", "", detail);
    }
    bool good = len > 0 && len <= MAX_KEY_BYTES;
    for (uint64_t i = 0; good && i < len; i++) {
        good = key[i] > 0x20 && key[i] < 0x7F; /* ASCII, says the format; char may be signed or not */
    }
    if (!good) {
        return lb_fail(detail, LB_E_FORMAT, "%s: the key at byte %zu is not 1 to %d printable ASCII letters",
                       file->what, where, MAX_KEY_BYTES);
    }
    pair->key = lb_malloc_array((size_t)len + 1, 1);
    if (pair->key == NULL) {
        return no_memory(file, detail);
    }
    memcpy(pair->key, key, (size_t)len);
    pair->key[len] = '\0';
    return read_value(file, r, pair, detail);
}

static int by_key(const void *a, const void *b) {
    const struct lb_gguf_pair *const *x = a, *const *y = b;
    return strcmp((*x)->key, (*y)->key);
}

static enum lb_status read_pairs(struct lb_gguf *file, struct lb_reader *r, uint64_t n,
                                 struct lb_detail *detail) {
    if (n > lb_reader_left(r) / MIN_KEY_BYTES) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: %" PRIu64 " keys cannot fit a file of %zu bytes; it is cut short or damaged",
                       file->what, n, r->len);
    }
    if (n > MAX_KEYS) {
        return lb_fail(detail, LB_E_LIMIT, "%s: %" PRIu64 " keys; at most %d are supported", file->what, n,
                       MAX_KEYS);
    }
    file->pairs = lb_calloc((size_t)n + 1, sizeof *file->pairs);
    file->by_key = lb_calloc((size_t)n + 1, sizeof *file->by_key);
    if (file->pairs == NULL || file->by_key == NULL) {
        return no_memory(file, detail);
    }
    file->n_pairs = (size_t)n;
    for (size_t i = 0; i < file->n_pairs; i++) {
        enum lb_status status = read_pair(file, r, &file->pairs[i], detail);
        if (status != LB_OK) {
            return status;
        }
        file->by_key[i] = &file->pairs[i];
    }
    qsort(file->by_key, file->n_pairs, sizeof *file->by_key, by_key);
    for (size_t i = 1; i < file->n_pairs; i++) {
        if (strcmp(file->by_key[i - 1]->key, file->by_key[i]->key) == 0) {
            return lb_fail(detail, LB_E_FORMAT, "%s: key %.200s comes twice", file->what,
                           file->by_key[i]->key);
        }
    }
    return LB_OK;
}

/* ---- tensors ---- */

static enum lb_status read_dims(const struct lb_gguf *file, struct lb_reader *r, struct lb_tensor *tensor,
                                struct lb_detail *detail) {
    uint32_t n = lb_read_u32(r);
    if (r->failed) {
        return cut_short(file, r, "tensor ", tensor->name, detail);
    }
    if (n > LB_MAX_DIMS) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: tensor %s has %" PRIu32 " dimensions; at most %d are possible", file->what,
                       tensor->name, n, LB_MAX_DIMS);
    }
    tensor->n_dims = (int)n;
    for (int i = tensor->n_dims - 1; i >= 0; i--) { /* the file has the fastest one first */
        uint64_t dim = lb_read_u64(r);
        if (dim > INT64_MAX) {
            return lb_fail(detail, LB_E_FORMAT, "%s: tensor %s: dimension %" PRIu64 " is too large",
                           file->what, tensor->name, dim);
        }
        tensor->dim[i] = (int64_t)dim;
    }
    return LB_OK;
}

static enum lb_status read_type(const struct lb_gguf *file, struct lb_reader *r, struct lb_tensor *tensor,
                                struct lb_detail *detail) {
    uint32_t type = lb_read_u32(r);
    if (r->failed) {
        return cut_short(file, r, "tensor ", tensor->name, detail);
    }
    char names[LB_DTYPE_NAMES];
    if (!lb_dtype_from_ggml(type, &tensor->dtype)) {
        const char *known = type < N_GGML_TYPES ? ggml_types[type] : NULL;
        return known != NULL
                   ? lb_fail(
                         detail, LB_E_UNSUPPORTED,
                         "%s: tensor %s has type %s; this build reads %s: get or make the model in one of "
                         "these",
                         file->what, tensor->name, known, lb_dtype_gguf_names(false, names))
                   : lb_fail(detail, LB_E_UNSUPPORTED,
                             "%s: tensor %s has ggml type %" PRIu32 ", which is unknown here", file->what,
                             tensor->name, type);
    }
    char shape[LB_SHAPE_TEXT];
    if (!lb_check_shape_bytes(tensor, &tensor->bytes)) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: tensor %s: shape %s overflows or its rows are no multiple of the %d of %s",
                       file->what, tensor->name, lb_check_shape_text(tensor, shape),
                       lb_dtype_block(tensor->dtype), lb_dtype_name(tensor->dtype));
    }
    return LB_OK;
}

static enum lb_status read_tensor(struct lb_gguf *file, struct lb_reader *r, size_t i,
                                  struct lb_detail *detail) {
    struct lb_tensor *tensor = &file->tensors[i];
    size_t where = r->pos;
    uint64_t len = 0;
    const char *name = read_string(r, &len);
    if (name == NULL) {
        return cut_short(file, r, "the name of a tensor", "", detail);
    }
    if (len > MAX_NAME_BYTES || !lb_check_name(name, (size_t)len)) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: the tensor name at byte %zu is not 1 to %d bytes of printable text", file->what,
                       where, MAX_NAME_BYTES);
    }
    char *at = file->names + i * (MAX_NAME_BYTES + 1);
    tensor->name = keep(&at, name, (size_t)len);
    enum lb_status status = read_dims(file, r, tensor, detail);
    if (status == LB_OK) {
        status = read_type(file, r, tensor, detail);
    }
    if (status != LB_OK) {
        return status;
    }
    file->offsets[i] = lb_read_u64(r);
    return r->failed ? cut_short(file, r, "tensor ", tensor->name, detail) : LB_OK;
}

static int by_tensor_name(const void *a, const void *b) {
    const struct lb_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

enum lb_status lb_gguf_index(struct lb_gguf *file, const char *what, struct lb_detail *detail) {
    lb_free(file->by_name);
    file->by_name = lb_calloc(file->n_tensors + 1, sizeof *file->by_name);
    if (file->by_name == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "%s: no memory for its keys and tensors", what);
    }
    for (size_t i = 0; i < file->n_tensors; i++) {
        file->by_name[i] = &file->tensors[i];
    }
    qsort(file->by_name, file->n_tensors, sizeof *file->by_name, by_tensor_name);
    for (size_t i = 1; i < file->n_tensors; i++) {
        if (strcmp(file->by_name[i - 1]->name, file->by_name[i]->name) == 0) {
            return lb_fail(detail, LB_E_FORMAT, "%s: tensor %s comes twice", what, file->by_name[i]->name);
        }
    }
    return LB_OK;
}

static enum lb_status read_tensors(struct lb_gguf *file, struct lb_reader *r, uint64_t n,
                                   struct lb_detail *detail) {
    if (n > lb_reader_left(r) / MIN_TENSOR_BYTES) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: %" PRIu64 " tensors cannot fit a file of %zu bytes; it is cut short or damaged",
                       file->what, n, r->len);
    }
    if (n > MAX_TENSORS) {
        return lb_fail(detail, LB_E_LIMIT, "%s: %" PRIu64 " tensors; at most %d are supported", file->what, n,
                       MAX_TENSORS);
    }
    file->tensors = lb_calloc((size_t)n + 1, sizeof *file->tensors);
    file->offsets = lb_calloc((size_t)n + 1, sizeof *file->offsets);
    file->names = lb_calloc((size_t)n + 1, MAX_NAME_BYTES + 1);
    if (file->tensors == NULL || file->offsets == NULL || file->names == NULL) {
        return no_memory(file, detail);
    }
    file->n_tensors = (size_t)n;
    for (size_t i = 0; i < file->n_tensors; i++) {
        enum lb_status status = read_tensor(file, r, i, detail);
        if (status != LB_OK) {
            return status;
        }
    }
    return lb_gguf_index(file, file->what, detail);
}

/* *out = the next multiple of alignment (a power of two); false on overflow. */
static bool align_up(size_t value, size_t alignment, size_t *out) {
    size_t padded;
    if (!lb_add_size(value, alignment - 1, &padded)) {
        return false;
    }
    *out = padded & ~(alignment - 1);
    return true;
}

static enum lb_status read_alignment(const struct lb_gguf *file, size_t *out, struct lb_detail *detail) {
    double alignment = 32; /* the format's default */
    if (lb_gguf_has(file, "general.alignment") && !lb_gguf_number(file, "general.alignment", &alignment)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: general.alignment is no number", file->what);
    }
    /* a multiple of 8 (the format) and a power of two (ggml): any tensor can then be read in place */
    if (!(alignment >= 8 && alignment <= MAX_ALIGNMENT) || alignment != (size_t)alignment ||
        ((size_t)alignment & ((size_t)alignment - 1)) != 0) {
        return lb_fail(detail, LB_E_FORMAT, "%s: general.alignment is %g, not a power of two from 8 to %u",
                       file->what, alignment, MAX_ALIGNMENT);
    }
    *out = (size_t)alignment;
    return LB_OK;
}

/* Gives tensors their data. They follow each other, each padded to the alignment, as ggml demands: this rules
 * out overlaps. */
static enum lb_status place_tensors(struct lb_gguf *file, const struct lb_reader *r,
                                    struct lb_detail *detail) {
    size_t alignment = 0, start = 0, expected = 0;
    enum lb_status status = read_alignment(file, &alignment, detail);
    if (status != LB_OK) {
        return status;
    }
    bool fits = align_up(r->pos, alignment, &start);
    for (size_t i = 0; i < file->n_tensors; i++) {
        struct lb_tensor *tensor = &file->tensors[i];
        if (file->offsets[i] != expected) {
            return lb_fail(detail, LB_E_FORMAT,
                           "%s: tensor %s is at data offset %" PRIu64
                           " where %zu follows from the tensors before it",
                           file->what, tensor->name, file->offsets[i], expected);
        }
        size_t begin = 0, end = 0;
        fits = fits && lb_add_size(start, expected, &begin) && lb_add_size(begin, tensor->bytes, &end) &&
               end <= r->len;
        if (!fits) {
            return lb_fail(detail, LB_E_FORMAT,
                           "%s: the %zu bytes of tensor %s go past the end of the file (%zu bytes); it is "
                           "cut short: fetch it again",
                           file->what, tensor->bytes, tensor->name, r->len);
        }
        tensor->data = r->data + begin;
        fits = align_up(expected + tensor->bytes, alignment, &expected);
    }
    return LB_OK;
}

/* ---- the whole ---- */

static enum lb_status read_file(struct lb_gguf *file, struct lb_reader *r, bool keys_only,
                                struct lb_detail *detail) {
    const void *magic = lb_read_span(r, 4);
    if (magic == NULL || memcmp(magic, "GGUF", 4) != 0) {
        return lb_fail(detail, LB_E_FORMAT, "%s: does not begin with GGUF; is this a GGUF file?", file->what);
    }
    uint32_t version = lb_read_u32(r);
    uint64_t n_tensors = lb_read_u64(r), n_pairs = lb_read_u64(r);
    if (r->failed) {
        return cut_short(file, r, "the header", "", detail);
    }
    if ((version & 0xFFFF) == 0) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s: big-endian GGUF; convert it to little-endian",
                       file->what);
    }
    if (version != 2 && version != 3) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "%s: GGUF version %" PRIu32 "; versions 2 and 3 are read: convert it again",
                       file->what, version);
    }
    enum lb_status status = read_pairs(file, r, n_pairs, detail);
    if (status == LB_OK && !keys_only) {
        status = read_tensors(file, r, n_tensors, detail);
        status = status == LB_OK ? place_tensors(file, r, detail) : status;
    }
    return status;
}

static enum lb_status parse(const void *bytes, size_t len, const char *what, bool keys_only,
                            struct lb_gguf **out, struct lb_detail *detail) {
    if ((uintptr_t)bytes % 8 != 0) {
        return lb_fail(detail, LB_E_ARG, "%s: the bytes of a GGUF must lie at a multiple of 8", what);
    }
    struct lb_gguf *file = lb_calloc(1, sizeof *file);
    if (file == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "%s: no memory to open it", what);
    }
    file->what = what;
    file->n_parts = 1;
    struct lb_reader reader;
    lb_reader_init(&reader, bytes, len);
    enum lb_status status = read_file(file, &reader, keys_only, detail);
    file->what = NULL;
    if (status != LB_OK) {
        lb_gguf_destroy(file);
        return status;
    }
    *out = file;
    return LB_OK;
}

enum lb_status lb_gguf_parse(const void *bytes, size_t len, const char *what, struct lb_gguf **out,
                             struct lb_detail *detail) {
    return parse(bytes, len, what, false, out, detail);
}

enum lb_status lb_gguf_parse_keys(const void *bytes, size_t len, const char *what, struct lb_gguf **out,
                                  struct lb_detail *detail) {
    return parse(bytes, len, what, true, out, detail);
}
