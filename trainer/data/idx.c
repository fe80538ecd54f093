/* IDX files (yann.lecun.com/exdb/mnist, "the IDX file format"), plain or gzipped: 0 0 type n_dims, then
 * n_dims big-endian sizes, then the items. Unsigned bytes only: images become floats in [0, 1]. */
#include "common/base/mem.h"
#include "trainer/data/parts.h"

#include <errno.h>
#include <string.h>
#include <zlib.h>

#define MAX_BYTES ((uint64_t)1 << 32)
#define IDX_UBYTE 8

/* One file's content. */
struct idx {
    int64_t items, item_bytes;
    uint8_t *data; /* [items, item_bytes] */
};

/* Reads exactly len bytes; gzip's checksum is verified at the end of the stream by zlib. */
static enum lb_status read_exactly(gzFile file, const char *path, void *to, size_t len,
                                   struct lb_detail *detail) {
    uint8_t *at = to;
    while (len > 0) {
        unsigned ask = len > (1u << 30) ? 1u << 30 : (unsigned)len;
        int got = gzread(file, at, ask);
        if (got <= 0) {
            int code = Z_OK;
            const char *message = gzerror(file, &code);
            return lb_fail(detail, LB_E_FORMAT, "%s: %s", path,
                           code != Z_OK && code != Z_BUF_ERROR ? message
                                                               : "ends too early; is the file whole?");
        }
        at += got;
        len -= (size_t)got;
    }
    return LB_OK;
}

static uint32_t big_endian(const uint8_t b[4]) {
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* Sizes from the header into idx. */
static enum lb_status read_header(gzFile file, const char *path, struct idx *out, struct lb_detail *detail) {
    uint8_t word[4];
    enum lb_status status = read_exactly(file, path, word, 4, detail);
    if (status != LB_OK) {
        return status;
    }
    if (word[0] != 0 || word[1] != 0 || word[3] < 1 || word[3] > 4) {
        return lb_fail(detail, LB_E_FORMAT, "%s: not an IDX file (it begins with %02x %02x %02x %02x)", path,
                       word[0], word[1], word[2], word[3]);
    }
    if (word[2] != IDX_UBYTE) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "%s: IDX items of type 0x%02x; only unsigned bytes (0x08) are read", path, word[2]);
    }
    uint64_t product = 1;
    for (int d = 0, n_dims = word[3]; d < n_dims; d++) {
        status = read_exactly(file, path, word, 4, detail);
        if (status != LB_OK) {
            return status;
        }
        uint64_t size = big_endian(word);
        if (d == 0) {
            out->items = (int64_t)size;
        } else {
            product *= size;
        }
        if (size == 0 || product > MAX_BYTES || (uint64_t)out->items * product > MAX_BYTES) {
            return lb_fail(detail, LB_E_LIMIT, "%s: dimension %d is %llu; empty, or more than 4 GiB in all",
                           path, d, (unsigned long long)size);
        }
    }
    out->item_bytes = (int64_t)product;
    return LB_OK;
}

static enum lb_status read_idx(const char *path, struct idx *out, struct lb_detail *detail) {
    errno = 0;
    gzFile file = gzopen(path, "rb");
    if (file == NULL) {
        return lb_fail_errno(detail, errno == ENOENT ? LB_E_NOTFOUND : LB_E_IO, errno != 0 ? errno : ENOMEM,
                             "cannot open %s", path);
    }
    struct idx idx = {0};
    enum lb_status status = read_header(file, path, &idx, detail);
    if (status == LB_OK) {
        idx.data = lb_malloc_array((size_t)idx.items, (size_t)idx.item_bytes);
        status = idx.data == NULL
                     ? lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path)
                     : read_exactly(file, path, idx.data, (size_t)(idx.items * idx.item_bytes), detail);
    }
    uint8_t extra;
    if (status == LB_OK && gzread(file, &extra, 1) != 0) {
        int code = Z_OK;
        const char *message = gzerror(file, &code);
        status = lb_fail(detail, LB_E_FORMAT, "%s: %s", path,
                         code != Z_OK ? message : "has bytes behind the last item");
    }
    gzclose_r(file);
    if (status != LB_OK) {
        lb_free(idx.data);
        return status;
    }
    *out = idx;
    return LB_OK;
}

bool lb_dataset_excludes(const struct lb_recipe_dataset *entry, int64_t label) {
    for (unsigned i = 0; i < entry->exclude_labels_count; i++) {
        if (entry->exclude_labels[i] == label) {
            return true;
        }
    }
    return false;
}

enum lb_status lb_dataset_reserve_items(struct lb_dataset *data, int64_t more, struct lb_detail *detail) {
    size_t cap = (size_t)(data->count + more);
    struct lb_image_row *labels = lb_realloc_array(data->labels, cap, sizeof *labels);
    if (labels != NULL) {
        data->labels = labels;
    }
    size_t floats;
    float *features = labels != NULL && lb_mul_size(cap, (size_t)data->n_features, &floats)
                          ? lb_realloc_array(data->features, floats, sizeof *features)
                          : NULL;
    if (features == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the images");
    }
    data->features = features;
    data->cap = (int64_t)cap;
    return LB_OK;
}

/* Images first .. last - 1 that are not excluded. */
static void take_items(struct lb_dataset *data, const struct lb_recipe_dataset *entry,
                       const struct idx *images, const struct idx *labels, int64_t first, int64_t last,
                       int tag) {
    for (int64_t i = first; i < last; i++) {
        if (lb_dataset_excludes(entry, labels->data[i])) {
            continue;
        }
        const uint8_t *pixels = images->data + i * images->item_bytes;
        float *to = data->features + data->count * data->n_features;
        for (int64_t j = 0; j < data->n_features; j++) {
            to[j] = (float)pixels[j] / 255.0f;
        }
        lb_sha256_update(data->hash, pixels, (size_t)images->item_bytes);
        data->labels[data->count++] = (struct lb_image_row){labels->data[i], tag};
    }
}

static enum lb_status check_pair(const struct lb_dataset *data, const struct lb_recipe_dataset *entry,
                                 const struct idx *images, const struct idx *labels, const char *path,
                                 const char *labels_path, int64_t num_labels, struct lb_detail *detail) {
    if (labels->item_bytes != 1) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: holds items of %lld bytes where labels of one byte are expected", labels_path,
                       (long long)labels->item_bytes);
    }
    if (images->items != labels->items) {
        return lb_fail(detail, LB_E_MISMATCH,
                       "%s holds %lld images and %s %lld labels; they do not belong together", path,
                       (long long)images->items, labels_path, (long long)labels->items);
    }
    if (data->n_features != 0 && data->n_features != images->item_bytes) {
        return lb_fail(detail, LB_E_MISMATCH, "%s: images of %lld pixels; the data before it have %lld", path,
                       (long long)images->item_bytes, (long long)data->n_features);
    }
    if (entry->skip_samples >= images->items || entry->max_samples > images->items - entry->skip_samples) {
        return lb_fail(
            detail, LB_E_ARG, "%s: skip_samples %lld and max_samples %lld go beyond its %lld images", path,
            (long long)entry->skip_samples, (long long)entry->max_samples, (long long)images->items);
    }
    for (int64_t i = 0; num_labels > 0 && i < labels->items; i++) {
        if (labels->data[i] >= num_labels) {
            return lb_fail(detail, LB_E_MISMATCH,
                           "%s: item %lld has label %d; the student has num_labels %lld", labels_path,
                           (long long)i, labels->data[i], (long long)num_labels);
        }
    }
    return LB_OK;
}

enum lb_status lb_dataset_add_idx(struct lb_dataset *data, const struct lb_recipe_dataset *entry,
                                  const char *path, const char *labels_path, int64_t num_labels,
                                  struct lb_detail *detail) {
    struct idx images = {0}, labels = {0};
    int tag = lb_dataset_take_tag(data, entry->tag);
    enum lb_status status = tag == -2 ? lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path) : LB_OK;
    if (status == LB_OK && labels_path == NULL) {
        status = lb_fail(detail, LB_E_ARG, "%s: images need labels: the file of their labels", path);
    }
    if (status == LB_OK) {
        status = read_idx(path, &images, detail);
    }
    if (status == LB_OK) {
        status = read_idx(labels_path, &labels, detail);
    }
    if (status == LB_OK) {
        status = check_pair(data, entry, &images, &labels, path, labels_path, num_labels, detail);
    }
    if (status == LB_OK) {
        int64_t first = entry->skip_samples;
        int64_t last = entry->max_samples > 0 ? first + entry->max_samples : images.items;
        data->n_features = images.item_bytes;
        status = lb_dataset_reserve_items(data, last - first, detail);
        if (status == LB_OK) {
            take_items(data, entry, &images, &labels, first, last, tag);
        }
    }
    lb_free(images.data);
    lb_free(labels.data);
    return status;
}
