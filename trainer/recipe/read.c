/* A tree into struct lb_recipe as the tables say: each key known, each value of its kind and in its range,
 * nothing required missing, defaults where the recipe is silent. */
#include "trainer/recipe/fields.h"
#include "trainer/recipe/names.h"

#include <math.h>
#include <string.h>

#define MAX_NAMES 96

/* A word that is none of the n names there are. */
static enum lb_status no_such_name(const struct lb_recipe_reader *r, const struct lb_yaml *node,
                                   const char *path, const char *const *names, size_t n) {
    struct lb_buf list;
    lb_buf_init(&list, 4096);
    for (size_t i = 0; i < n; i++) {
        lb_buf_printf(&list, "%s%s", i == 0 ? "one of " : ", ", names[i]);
    }
    const char *nearest = node->kind == LB_YAML_SCALAR ? lb_nearest_name(node->text, names, n) : NULL;
    if (nearest != NULL) {
        lb_buf_printf(&list, "; did you mean %s?", nearest);
    }
    enum lb_status status =
        lb_buf_status(&list) == LB_OK ? lb_read_not_a(r, node, path, list.data) : LB_E_NOMEM;
    lb_buf_finish(&list);
    return status;
}

static enum lb_status read_enum(const struct lb_recipe_reader *r, const struct lb_yaml *node,
                                const struct lb_field *f, const char *path, int *out) {
    const char *names[MAX_NAMES];
    size_t n = 0;
    for (; n < MAX_NAMES && f->names[n].name != NULL; n++) {
        names[n] = f->names[n].name;
        if (node->kind == LB_YAML_SCALAR && strcmp(node->text, names[n]) == 0) {
            *out = f->names[n].value;
            return LB_OK;
        }
    }
    return no_such_name(r, node, path, names, n);
}

static enum lb_status read_name(const struct lb_recipe_reader *r, const struct lb_yaml *node,
                                const struct lb_field *f, const char *path, const char **out) {
    const char *names[MAX_NAMES];
    size_t n = 0;
    enum lb_status status = lb_read_string(r, node, path, out);
    if (status != LB_OK || f->name_at == NULL) {
        return status;
    }
    for (; n < MAX_NAMES && (names[n] = f->name_at(n)) != NULL; n++) {
        if (strcmp(node->text, names[n]) == 0) {
            return LB_OK;
        }
    }
    return no_such_name(r, node, path, names, n);
}

static enum lb_status read_map(const struct lb_recipe_reader *r, struct lb_yaml *node,
                               const struct lb_field *fields, const char *prefix, char *base);

static size_t entry_bytes(const struct lb_field *f) {
    return f->kind == LB_FIELD_INTS      ? sizeof(int64_t)
           : f->kind == LB_FIELD_STRINGS ? sizeof(const char *)
                                         : f->entry_bytes;
}

static enum lb_status read_list(const struct lb_recipe_reader *r, struct lb_yaml *node,
                                const struct lb_field *f, const char *path, char *base) {
    if (node->kind != LB_YAML_LIST) {
        return lb_read_not_a(r, node, path, "a list ([...] or lines that begin with \"- \")");
    }
    char *entry = lb_arena_zarray(r->arena, node->count, entry_bytes(f));
    if (entry == NULL) {
        return LB_E_NOMEM;
    }
    *(char **)(base + f->offset) = entry;
    *(unsigned *)(base + f->count_offset) = node->count;
    unsigned i = 0;
    enum lb_status status = LB_OK;
    for (struct lb_yaml *item = node->first; item != NULL && lb_read_goes_on(status);
         item = item->next, i++) {
        const char *at = lb_arena_printf(r->arena, "%s.%u", path, i);
        enum lb_status one;
        if (at == NULL) {
            return LB_E_NOMEM;
        }
        if (f->kind == LB_FIELD_INTS) {
            one = lb_read_int(r, item, at, f->min, f->max, (int64_t *)(void *)entry);
        } else if (f->kind == LB_FIELD_STRINGS) {
            one = lb_read_string(r, item, at, (const char **)(void *)entry);
        } else {
            one = read_map(r, item, f->fields, at, entry);
        }
        status = lb_read_both(status, one);
        entry += entry_bytes(f);
    }
    return status;
}

/* Keys are anybody's; values are scalars as they stand. */
static enum lb_status read_pairs(const struct lb_recipe_reader *r, struct lb_yaml *node,
                                 const struct lb_field *f, const char *path, char *base) {
    if (node->kind != LB_YAML_MAP) {
        return lb_read_not_a(r, node, path, "a mapping of names ({name: value, ...})");
    }
    struct lb_recipe_pair *pairs = lb_arena_zarray(r->arena, node->count, sizeof *pairs);
    if (pairs == NULL) {
        return LB_E_NOMEM;
    }
    unsigned n = 0;
    enum lb_status status = LB_OK;
    for (struct lb_yaml *child = node->first; child != NULL; child = child->next) {
        const char *at = lb_read_path(r, path, child->key);
        if (at == NULL) {
            return LB_E_NOMEM;
        }
        if (child->kind != LB_YAML_SCALAR || child->text[0] == '\0') {
            status = lb_read_both(status, lb_read_not_a(r, child, at, "one value"));
            continue;
        }
        pairs[n++] = (struct lb_recipe_pair){child->key, child->text};
    }
    *(struct lb_recipe_pair **)(void *)(base + f->offset) = pairs;
    *(unsigned *)(void *)(base + f->count_offset) = n;
    return status;
}

static enum lb_status read_value(const struct lb_recipe_reader *r, struct lb_yaml *node,
                                 const struct lb_field *f, const char *path, char *base) {
    void *to = base + f->offset;
    switch (f->kind) {
    case LB_FIELD_INT:
        return lb_read_int(r, node, path, f->min, f->max, to);
    case LB_FIELD_FLOAT:
        return lb_read_float(r, node, path, f->min, f->max, to);
    case LB_FIELD_BOOL:
        return lb_read_bool(r, node, path, to);
    case LB_FIELD_ENUM:
        return read_enum(r, node, f, path, to);
    case LB_FIELD_STRING:
    case LB_FIELD_PATH:
        return read_name(r, node, f, path, to);
    case LB_FIELD_INTS:
    case LB_FIELD_STRINGS:
    case LB_FIELD_MAPS:
        return f->names != NULL && node->kind == LB_YAML_SCALAR
                   ? read_enum(r, node, f, path, (int *)(void *)(base + f->word_offset))
                   : read_list(r, node, f, path, base);
    case LB_FIELD_PAIRS:
        return read_pairs(r, node, f, path, base);
    case LB_FIELD_STUDENT:
        return lb_student_read(r, node, to);
    }
    return LB_E_INTERNAL;
}

/* What is missing gets its default, or is an error when it is required. */
static enum lb_status fill_missing(const struct lb_recipe_reader *r, const struct lb_yaml *map,
                                   const struct lb_field *fields, const char *prefix, char *base) {
    enum lb_status status = LB_OK;
    for (const struct lb_field *f = fields; f->key != NULL && lb_read_goes_on(status); f++) {
        if (lb_yaml_find(map, f->key) != NULL) {
            continue;
        }
        const char *path = lb_read_path(r, prefix, f->key);
        if (path == NULL) {
            return LB_E_NOMEM;
        }
        if ((f->flags & LB_FIELD_REQUIRED) != 0 && !lb_mistakes_touch(r->mistakes, path)) {
            status = lb_read_both(
                status, lb_read_fail(r, map->line, path, "is missing; a recipe cannot do without it"));
        }
        if ((f->flags & LB_FIELD_OPEN) != 0) {
            *(double *)(void *)(base + f->offset) = NAN;
        }
        struct lb_yaml fallback = {.kind = LB_YAML_SCALAR, .plain = true, .text = f->fallback};
        status = lb_read_both(status, f->fallback != NULL ? read_value(r, &fallback, f, path, base) : LB_OK);
    }
    return status;
}

static enum lb_status unknown_key(const struct lb_recipe_reader *r, const struct lb_yaml *node,
                                  const struct lb_field *fields, const char *prefix) {
    const char *names[MAX_NAMES];
    size_t n = 0;
    for (const struct lb_field *f = fields; f->key != NULL && n < MAX_NAMES; f++) {
        names[n++] = f->key;
    }
    return lb_read_unknown(r, node, prefix, names, n);
}

/* Recursion follows the tables, whose depth is fixed, not the input. */
static enum lb_status read_map(const struct lb_recipe_reader *r, struct lb_yaml *node,
                               const struct lb_field *fields, const char *prefix, char *base) {
    if (node->kind != LB_YAML_MAP) {
        return lb_read_not_a(r, node, prefix[0] != '\0' ? prefix : "the file",
                             "a mapping of keys (key: value)");
    }
    enum lb_status status = LB_OK;
    for (struct lb_yaml *child = node->first, *next = NULL; child != NULL && lb_read_goes_on(status);
         child = next) {
        next = child->next;
        const struct lb_field *f = fields;
        while (f->key != NULL && strcmp(f->key, child->key) != 0) {
            f++;
        }
        if (f->key == NULL) {
            status = lb_read_both(status, unknown_key(r, child, fields, prefix));
            continue;
        }
        if (lb_yaml_is_null(child) || (child->kind == LB_YAML_LIST && child->count == 0)) {
            lb_yaml_remove(node, child); /* as if it were not there */
            continue;
        }
        const char *path = lb_read_path(r, prefix, f->key);
        if (path == NULL) {
            return LB_E_NOMEM;
        }
        enum lb_status one = lb_read_empty(r, child, path);
        status = lb_read_both(status, one == LB_OK ? read_value(r, child, f, path, base) : one);
    }
    return lb_read_goes_on(status) ? lb_read_both(status, fill_missing(r, node, fields, prefix, base))
                                   : status;
}

enum lb_status lb_recipe_read(const struct lb_recipe_reader *r, struct lb_yaml *root, struct lb_recipe *out) {
    return read_map(r, root, lb_recipe_fields, "", (char *)out);
}
