/* Opening GGUF files: one, or a model in parts as llama.cpp splits it. All keys stand in the first part, the
 * others have but their number; tensors are those of all parts. */
#include "common/base/mem.h"
#include "common/formats/gguf_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PARTS 99999 /* as many as the names have digits for */
#define PART_END_LEN 20 /* "-00001-of-00005.gguf" */
#define PART_END "-%05d-of-%05d.gguf"

/* Five digits at text; -1: none. */
static int five_digits(const char *text) {
    int n = 0;
    for (int i = 0; i < 5; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return -1;
        }
        n = 10 * n + (text[i] - '0');
    }
    return n;
}

bool lb_gguf_part_name(const char *path, size_t *out_stem, int *out_part, int *out_parts) {
    size_t len = strlen(path);
    if (len <= PART_END_LEN) {
        return false;
    }
    const char *end = path + len - PART_END_LEN;
    int part = five_digits(end + 1), parts = five_digits(end + 10);
    if (end[0] != '-' || part < 1 || part > parts || memcmp(end + 6, "-of-", 4) != 0 ||
        strcmp(end + 15, ".gguf") != 0) {
        return false;
    }
    *out_stem = len - PART_END_LEN;
    *out_part = part;
    *out_parts = parts;
    return true;
}

/* The path of another part, the caller's; NULL when out of memory. */
static char *part_path(const char *path, size_t stem, int part, int parts) {
    size_t size = stem + PART_END_LEN + 16;
    char *out = lb_malloc_array(size, 1);
    if (out != NULL) {
        snprintf(out, size, "%.*s" PART_END, (int)stem, path, part, parts);
    }
    return out;
}

static enum lb_status open_one(const char *path, bool keys_only, struct lb_gguf **out,
                               struct lb_detail *detail) {
    struct lb_map map = {0};
    struct lb_gguf *file = NULL;
    enum lb_status status = lb_map_open(&map, path, detail);
    if (status != LB_OK) {
        return status;
    }
    status = keys_only ? lb_gguf_parse_keys(map.data, map.len, path, &file, detail)
                       : lb_gguf_parse(map.data, map.len, path, &file, detail);
    if (status != LB_OK) {
        lb_map_close(&map);
        return status;
    }
    file->map = map;
    file->path = lb_strdup(path);
    if (file->path == NULL) {
        lb_gguf_destroy(file);
        return lb_fail(detail, LB_E_NOMEM, "%s: no memory to open it", path);
    }
    *out = file;
    return LB_OK;
}

/* A whole number under a key of split.*, missing when there is no such key; -1: no whole number. */
static int64_t split_number(const struct lb_gguf *file, const char *key, int64_t missing) {
    double v = (double)missing;
    if (lb_gguf_has(file, key) && (!lb_gguf_number(file, key, &v) || !(v >= 0 && v <= INT32_MAX))) {
        return -1;
    }
    return v == (double)(int64_t)v ? (int64_t)v : -1;
}

/* How many parts the first one says there are; 1: it is no split file. */
static enum lb_status count_parts(const struct lb_gguf *first, int *out, struct lb_detail *detail) {
    int64_t parts = split_number(first, "split.count", 0), no = split_number(first, "split.no", 0);
    size_t stem;
    int named_part, named_parts;
    if (parts < 0 || parts > MAX_PARTS || no < 0 || (parts > 0 && no >= parts)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: split.no and split.count are no part of 1 to %d",
                       first->path, MAX_PARTS);
    }
    *out = parts > 1 ? (int)parts : 1;
    if (parts <= 1) {
        return LB_OK;
    }
    bool named = lb_gguf_part_name(first->path, &stem, &named_part, &named_parts) && named_parts == parts;
    if (no > 0) {
        char *path = named ? part_path(first->path, stem, 1, (int)parts) : NULL;
        enum lb_status status = lb_fail(
            detail, LB_E_ARG, "%s: is part %lld of %lld of a model; open the first part%s%s", first->path,
            (long long)no + 1, (long long)parts, path != NULL ? ", " : "", path != NULL ? path : "");
        lb_free(path);
        return status;
    }
    return named && named_part == 1
               ? LB_OK
               : lb_fail(detail, LB_E_FORMAT,
                         "%s: is the first of %lld parts, but its name does not end in " PART_END
                         ", so that the others cannot be found: give all parts such names",
                         first->path, (long long)parts, 1, (int)parts);
}

/* Opens part i (from 1) and checks that it says it is that. */
static enum lb_status open_part(struct lb_gguf *first, int i, struct lb_detail *detail) {
    int n = first->n_parts;
    int64_t tensors = split_number(first, "split.tensors.count", 0);
    char *path = part_path(first->path, strlen(first->path) - PART_END_LEN, i + 1, n);
    struct lb_gguf *part = NULL;
    if (path == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "%s: no memory to open its parts", first->path);
    }
    enum lb_status status = LB_OK;
    if (!lb_file_exists(path)) {
        status = lb_fail(detail, LB_E_NOTFOUND, "%s: part %d of %d of this model is missing", path, i + 1, n);
    }
    status = status == LB_OK ? open_one(path, false, &part, detail) : status;
    if (status == LB_OK &&
        (split_number(part, "split.no", -1) != i || split_number(part, "split.count", -1) != n ||
         split_number(part, "split.tensors.count", 0) != tensors)) {
        status =
            lb_fail(detail, LB_E_MISMATCH,
                    "%s: its keys split.* do not say part %d of %d with %lld tensors in all: it belongs to "
                    "another model",
                    path, i + 1, n, (long long)tensors);
    }
    lb_free(path);
    if (status != LB_OK) {
        lb_gguf_destroy(part);
        return status;
    }
    first->parts[i - 1] = part;
    return LB_OK;
}

/* Makes the first part's list of tensors that of all parts. */
static enum lb_status join_tensors(struct lb_gguf *first, struct lb_detail *detail) {
    int64_t said = split_number(first, "split.tensors.count", -1);
    size_t n = first->n_tensors; /* no overflow: each tensor has its bytes in a file */
    for (int i = 0; i < first->n_parts - 1; i++) {
        n += first->parts[i]->n_tensors;
    }
    if (said >= 0 && (size_t)said != n) {
        return lb_fail(detail, LB_E_MISMATCH,
                       "%s: its %d parts hold %zu tensors, but split.tensors.count is %lld", first->path,
                       first->n_parts, n, (long long)said);
    }
    struct lb_tensor *tensors = lb_calloc(n + 1, sizeof *tensors);
    if (tensors == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "%s: no memory for its tensors", first->path);
    }
    size_t at = first->n_tensors;
    memcpy(tensors, first->tensors, at * sizeof *tensors);
    for (int i = 0; i < first->n_parts - 1; i++) {
        const struct lb_gguf *part = first->parts[i];
        memcpy(tensors + at, part->tensors, part->n_tensors * sizeof *tensors);
        at += part->n_tensors;
    }
    lb_free(first->tensors);
    first->tensors = tensors;
    first->n_tensors = n;
    return lb_gguf_index(first, first->path, detail);
}

enum lb_status lb_gguf_open(const char *path, struct lb_gguf **out, struct lb_detail *detail) {
    struct lb_gguf *file = NULL;
    enum lb_status status = open_one(path, false, &file, detail);
    if (status != LB_OK) {
        return status;
    }
    status = count_parts(file, &file->n_parts, detail);
    if (status == LB_OK && file->n_parts > 1) {
        file->parts = lb_calloc((size_t)file->n_parts, sizeof *file->parts);
        status =
            file->parts != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "%s: no memory for its parts", path);
        for (int i = 1; status == LB_OK && i < file->n_parts; i++) {
            status = open_part(file, i, detail);
        }
        status = status == LB_OK ? join_tensors(file, detail) : status;
    }
    if (status != LB_OK) {
        lb_gguf_destroy(file);
        return status;
    }
    *out = file;
    return LB_OK;
}

enum lb_status lb_gguf_open_keys(const char *path, struct lb_gguf **out, struct lb_detail *detail) {
    return open_one(path, true, out, detail);
}

const char *lb_gguf_written(const struct lb_gguf *file) {
    const char *path = lb_map_written(&file->map);
    for (int i = 0; path == NULL && i < file->n_parts - 1; i++) {
        path = lb_map_written(&file->parts[i]->map);
    }
    return path;
}

const char *lb_gguf_path(const struct lb_gguf *file, int i) {
    if (i == 0) {
        return file->path;
    }
    return i > 0 && i < file->n_parts ? file->parts[i - 1]->path : NULL;
}
