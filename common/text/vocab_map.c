/* The map of a trimmed vocabulary, read and written. */
#include "common/text/trim.h"

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"

#include <string.h>

#define MAX_MAP_BYTES ((size_t)64 << 20)

void lb_vocab_map_destroy(struct lb_vocab_map *map) {
    if (map) {
        lb_free(map->kept);
        lb_free(map);
    }
}

int32_t lb_vocab_map_find(const struct lb_vocab_map *map, int32_t full_id) {
    int32_t low = 0, high = map->n;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (map->kept[middle] < full_id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < map->n && map->kept[low] == full_id ? low : -1;
}

enum lb_status lb_vocab_map_write(const struct lb_vocab_map *map, struct lb_buf *out,
                                  struct lb_detail *detail) {
    lb_buf_printf(out,
                  "{\"tokenizer_fingerprint\": \"%s\",\n\"trimmed_fingerprint\": \"%s\",\n\"kept_ids\": [",
                  map->full, map->trimmed);
    for (int32_t i = 0; i < map->n; i++) {
        lb_buf_printf(out, "%s%d", i ? "," : "", map->kept[i]);
    }
    lb_buf_append_str(out, "]}\n");
    enum lb_status status = lb_buf_status(out);
    return status != LB_OK ? lb_fail(detail, status, LB_VOCAB_MAP_FILE ": out of memory") : LB_OK;
}

/* "kept_ids": ascending, one for each token. */
static enum lb_status read_ids(const json_t *list, const char *what, struct lb_vocab_map *map,
                               struct lb_detail *detail) {
    size_t n = json_array_size(list);
    if (n < 1 || n >= INT32_MAX) {
        return lb_fail(detail, LB_E_FORMAT, "%s: kept_ids must be a list of ids", what);
    }
    map->kept = lb_malloc_array(n, sizeof *map->kept);
    if (!map->kept) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory", what);
    }
    json_int_t last = -1;
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id) || json_integer_value(id) <= last || json_integer_value(id) >= INT32_MAX) {
            return lb_fail(detail, LB_E_FORMAT, "%s: kept_ids[%zu] is not an id above the one before it",
                           what, i);
        }
        last = json_integer_value(id);
        map->kept[i] = (int32_t)last;
    }
    map->n = (int32_t)n;
    return LB_OK;
}

static enum lb_status read_print(const json_t *root, const char *key, const char *what,
                                 char out[LB_SHA256_HEX], struct lb_detail *detail) {
    const char *text = NULL;
    enum lb_status status = lb_json_str(root, key, true, what, &text, detail);
    if (status == LB_OK && strlen(text) != LB_SHA256_HEX - 1) {
        status = lb_fail(detail, LB_E_FORMAT, "%s: %s is no fingerprint", what, key);
    }
    if (status == LB_OK) {
        memcpy(out, text, LB_SHA256_HEX);
    }
    return status;
}

static enum lb_status read_map(const char *path, const struct lb_tokenizer *tokenizer,
                               struct lb_vocab_map *map, struct lb_detail *detail) {
    json_t *root = NULL;
    enum lb_status status = lb_json_file(path, MAX_MAP_BYTES, &root, detail);
    status = status == LB_OK ? read_print(root, "tokenizer_fingerprint", path, map->full, detail) : status;
    status = status == LB_OK ? read_print(root, "trimmed_fingerprint", path, map->trimmed, detail) : status;
    status = status == LB_OK ? read_ids(json_object_get(root, "kept_ids"), path, map, detail) : status;
    json_decref(root);
    if (status == LB_OK && (strcmp(map->trimmed, lb_tokenizer_fingerprint(tokenizer)) != 0 ||
                            map->n != lb_tokenizer_vocab_size(tokenizer))) {
        status =
            lb_fail(detail, LB_E_MISMATCH,
                    "%s: made for another tokenizer (%.12s, %d tokens) than lies beside it (%.12s, %d); let "
                    "limbeck tokenizer trim write both again",
                    path, map->trimmed, map->n, lb_tokenizer_fingerprint(tokenizer),
                    lb_tokenizer_vocab_size(tokenizer));
    }
    return status;
}

/* The map's path beside a tokenizer's; on the heap, NULL: out of memory. */
static char *beside(const char *path) {
    const char *slash = strrchr(path, '/');
    if (lb_is_dir(path)) {
        return lb_path_join(path, LB_VOCAB_MAP_FILE);
    }
    char *dir = lb_strdup(slash ? path : "."), *joined = NULL;
    if (dir && slash) {
        dir[slash == path ? 1 : slash - path] = '\0';
    }
    joined = dir ? lb_path_join(dir, LB_VOCAB_MAP_FILE) : NULL;
    lb_free(dir);
    return joined;
}

enum lb_status lb_vocab_map_open(const char *path, const struct lb_tokenizer *tokenizer,
                                 struct lb_vocab_map **out, struct lb_detail *detail) {
    char *name = beside(path);
    struct lb_vocab_map *map = NULL;
    enum lb_status status = name ? LB_OK : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path);
    if (status == LB_OK && lb_file_exists(name)) {
        map = lb_calloc(1, sizeof *map);
        status = map ? read_map(name, tokenizer, map, detail)
                     : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", name);
    }
    lb_free(name);
    if (status != LB_OK) {
        lb_vocab_map_destroy(map);
        return status;
    }
    *out = map;
    return LB_OK;
}
