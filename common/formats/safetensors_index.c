#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/formats/safetensors_file.h"

#include <stdlib.h>
#include <string.h>

#define MAX_SHARDS 4096

static int by_text(const void *a, const void *b) {
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

/* The distinct file names of weight_map, sorted; each must be a plain name within the folder. */
static enum lb_status list_shards(json_t *weight_map, const char *path, const char **names, size_t *out_n,
                                  struct lb_detail *detail) {
    size_t n = 0, distinct = 0;
    const char *tensor;
    json_t *value;
    json_object_foreach(weight_map, tensor, value) {
        const char *name = json_string_value(value);
        if (name == NULL || name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL) {
            return lb_fail(detail, LB_E_FORMAT, "%s: weight_map of tensor %.200s is no plain file name", path,
                           tensor);
        }
        names[n++] = name;
    }
    qsort(names, n, sizeof *names, by_text);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(names[i], names[distinct - 1]) != 0) {
            names[distinct++] = names[i];
        }
    }
    if (distinct == 0 || distinct > MAX_SHARDS) {
        return lb_fail(detail, distinct == 0 ? LB_E_FORMAT : LB_E_LIMIT,
                       "%s: weight_map names %zu files; 1 to %d are supported", path, distinct, MAX_SHARDS);
    }
    *out_n = distinct;
    return LB_OK;
}

/* The index decides: what it does not list, or lists for another shard, is stale or unneeded and left out.
 * With that, no name can come twice. */
static void keep_listed(struct lb_safetensors_part *part, const char *shard, json_t *weight_map) {
    size_t kept = 0;
    for (size_t i = 0; i < part->n; i++) {
        const char *listed = json_string_value(json_object_get(weight_map, part->tensors[i].name));
        if (listed != NULL && strcmp(listed, shard) == 0) {
            part->tensors[kept++] = part->tensors[i];
        }
    }
    part->n = kept;
}

/* Every listed tensor must be there. */
static enum lb_status check_complete(const struct lb_safetensors *file, json_t *weight_map, const char *path,
                                     struct lb_detail *detail) {
    const char *name;
    json_t *shard;
    json_object_foreach(weight_map, name, shard) {
        if (lb_safetensors_find(file, name) == NULL) {
            return lb_fail(detail, LB_E_MISMATCH,
                           "%s: weight_map says that tensor %.200s is in %s, but it is not", path, name,
                           json_string_value(shard));
        }
    }
    return LB_OK;
}

static enum lb_status open_shards(struct lb_safetensors *file, const char *const *names, json_t *weight_map,
                                  const char *path, struct lb_detail *detail) {
    const char *slash = strrchr(path, '/');
    size_t dir_len = slash != NULL ? (size_t)(slash - path) + 1 : 0;
    for (size_t i = 0; i < file->n_parts; i++) {
        size_t name_size = strlen(names[i]) + 1;
        char *shard = lb_malloc_array(dir_len + name_size, 1);
        if (shard == NULL) {
            return lb_fail(detail, LB_E_NOMEM, "%s: no memory to open its shards", path);
        }
        memcpy(shard, path, dir_len);
        memcpy(shard + dir_len, names[i], name_size);
        enum lb_status status = lb_safetensors_part_open(&file->parts[i], shard, detail);
        if (status == LB_OK) {
            keep_listed(&file->parts[i], names[i], weight_map);
        }
        lb_free(shard);
        if (status != LB_OK) {
            return status;
        }
    }
    return LB_OK;
}

enum lb_status lb_safetensors_open_index(const char *path, struct lb_safetensors **out,
                                         struct lb_detail *detail) {
    json_t *index = NULL;
    const char **names = NULL;
    struct lb_safetensors *file = NULL;
    size_t n = 0;
    enum lb_status status = lb_json_file(path, LB_SAFETENSORS_MAX_HEADER, &index, detail);
    if (status != LB_OK) {
        return status;
    }
    json_t *weight_map = json_object_get(index, "weight_map");
    if (!json_is_object(weight_map)) {
        status = lb_fail(detail, LB_E_FORMAT, "%s: weight_map is missing or no object", path);
        goto out;
    }
    names = lb_malloc_array(json_object_size(weight_map) + 1, sizeof *names);
    if (names == NULL) {
        status = lb_fail(detail, LB_E_NOMEM, "%s: no memory for its list of tensors", path);
        goto out;
    }
    if ((status = list_shards(weight_map, path, names, &n, detail)) != LB_OK) {
        goto out;
    }
    if ((file = lb_safetensors_create(n)) == NULL) {
        status = lb_fail(detail, LB_E_NOMEM, "%s: no memory for %zu shards", path, n);
        goto out;
    }
    if ((status = open_shards(file, names, weight_map, path, detail)) != LB_OK ||
        (status = lb_safetensors_join(file, path, detail)) != LB_OK ||
        (status = check_complete(file, weight_map, path, detail)) != LB_OK) {
        goto out;
    }
    *out = file;
    file = NULL;
out:
    lb_safetensors_destroy(file);
    lb_free(names);
    json_decref(index);
    return status;
}

enum lb_status lb_safetensors_open(const char *path, struct lb_safetensors **out, struct lb_detail *detail) {
    if (lb_ends_with(path, ".index.json")) {
        return lb_safetensors_open_index(path, out, detail);
    }
    struct lb_safetensors *file = lb_safetensors_create(1);
    if (file == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "%s: no memory to open it", path);
    }
    enum lb_status status = lb_safetensors_part_open(&file->parts[0], path, detail);
    if (status == LB_OK) {
        status = lb_safetensors_join(file, path, detail);
    }
    if (status != LB_OK) {
        lb_safetensors_destroy(file);
        return status;
    }
    *out = file;
    return LB_OK;
}
