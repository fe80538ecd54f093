/* The first of two checks: each key known, each value of its kind and in its range, nothing required missing.
 */
#include "trainer/recipe/fields.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define WORD_MAX 64 /* longer words are no slips of a key */

struct shape {
    struct lb_arena *arena;
    const char *what;
    struct lb_detail *detail;
};

/* Keys of other tools, and short forms that hands type, that no distance would lead to the right one. */
static const char *const other_names[][2] = {
    {"lr", "learning_rate"},
    {"epochs", "num_train_epochs"},
    {"num_epochs", "num_train_epochs"},
    {"steps", "max_steps"},
    {"batch_size", "per_device_train_batch_size"},
    {"train_batch_size", "per_device_train_batch_size"},
    {"micro_batch_size", "per_device_train_batch_size"},
    {"sequence_len", "max_length"},
    {"sequence_length", "max_length"},
    {"max_seq_length", "max_length"},
    {"block_size", "max_length"},
    {"lr_scheduler", "lr_scheduler_type"},
    {"optimizer", "adam_beta1, adam_beta2, adam_epsilon and weight_decay (it is AdamW)"},
    {"n_layer", "num_hidden_layers"},
    {"n_head", "num_attention_heads"},
    {"n_embd", "hidden_size"},
    {"rms_norm_eps", "norm_eps"},
    {"layer_norm_eps", "norm_eps"},
    {"num_threads", "threads"},
    {"cache", "cache_dir and cache_max_bytes"},
    {"losses", "loss_functions"},
    {"teacher", "teachers"},
    {"dataset", "datasets"},
};

/* Optimal string alignment distance (a swap of neighbours counts once). */
static size_t edit_distance(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    if (n >= WORD_MAX || m >= WORD_MAX) {
        return WORD_MAX;
    }
    size_t rows[3][WORD_MAX + 1];
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= m; j++) {
        last[j] = j;
    }
    for (size_t i = 1; i <= n; i++) {
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
            best = last[j] + 1 < best ? last[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best) {
                best = before[j - 2] + 1;
            }
            row[j] = best;
        }
        size_t *free_row = before;
        before = last;
        last = row;
        row = free_row;
    }
    return last[m];
}

const char *lb_nearest_name(const char *word, const char *const *names, size_t n) {
    const char *nearest = NULL;
    size_t least = strlen(word) / 3 + 2; /* exclusive: "abc" may be off by two */
    for (size_t i = 0; i < n; i++) {
        size_t distance = edit_distance(word, names[i]);
        if (distance < least && distance < strlen(names[i])) {
            least = distance;
            nearest = names[i];
        }
    }
    return nearest;
}

static enum lb_status complain(const struct shape *s, int line, const char *path, enum lb_status code,
                               const char *message) {
    if (line > 0) {
        return lb_fail(s->detail, code, "%s:%d: %s: %s", s->what, line, path, message);
    }
    return lb_fail(s->detail, code, "%s: %s: %s", s->what, path, message);
}

static enum lb_status no_memory(const struct shape *s) {
    return lb_fail(s->detail, LB_E_NOMEM, "%s: out of memory while reading the recipe", s->what);
}

/* "prefix.key" in the arena; "" prefix: the key. */
static const char *join_path(const struct shape *s, const char *prefix, const char *key) {
    return prefix[0] == '\0' ? key : lb_arena_printf(s->arena, "%s.%s", prefix, key);
}

static enum lb_status unknown_key(const struct shape *s, const struct lb_yaml *node,
                                  const struct lb_field *fields, const char *prefix) {
    const char *names[96];
    size_t n = 0;
    for (const struct lb_field *f = fields; f->key != NULL && n < 96; f++) {
        names[n++] = f->key;
    }
    const char *nearest = lb_nearest_name(node->key, names, n);
    for (size_t i = 0; i < sizeof other_names / sizeof other_names[0]; i++) {
        if (nearest == NULL && strcmp(node->key, other_names[i][0]) == 0) {
            nearest = other_names[i][1];
        }
    }
    const char *path = join_path(s, prefix, node->key);
    const char *message =
        nearest != NULL ? lb_arena_printf(s->arena, "unknown key; did you mean %s?", nearest)
                        : "unknown key; the recipe's keys are listed in README.md and shown in examples/";
    if (path == NULL || message == NULL) {
        return no_memory(s);
    }
    return complain(s, node->line, path, LB_E_ARG, message);
}

static enum lb_status out_of_range(const struct shape *s, const struct lb_yaml *node,
                                   const struct lb_field *f, const char *path) {
    const char *message =
        f->max >= 1e15 ? lb_arena_printf(s->arena, "%s is out of range; at least %.10g", node->text, f->min)
                       : lb_arena_printf(s->arena, "%s is out of range; allowed is %.10g to %.10g",
                                         node->text, f->min, f->max);
    return message == NULL ? no_memory(s) : complain(s, node->line, path, LB_E_ARG, message);
}

static enum lb_status not_a(const struct shape *s, const struct lb_yaml *node, const char *path,
                            const char *kind) {
    const char *message = node->kind == LB_YAML_SCALAR
                              ? lb_arena_printf(s->arena, "\"%.80s\" is not %s", node->text, kind)
                              : lb_arena_printf(s->arena, "must be %s, not a %s", kind,
                                                node->kind == LB_YAML_LIST ? "list" : "mapping of keys");
    return message == NULL ? no_memory(s) : complain(s, node->line, path, LB_E_ARG, message);
}

/* libcyaml reads with base 0, so "010" would be eight: decimal digits only, written back without leading
 * zeros. */
static enum lb_status check_int(const struct shape *s, struct lb_yaml *node, const struct lb_field *f,
                                const char *path) {
    const char *digits = node->kind == LB_YAML_SCALAR ? node->text + strspn(node->text, "+-") : "";
    if (digits[0] == '\0' || digits > node->text + 1 || strspn(digits, "0123456789") != strlen(digits)) {
        return not_a(s, node, path, "a whole number");
    }
    errno = 0;
    long long v = strtoll(node->text, NULL, 10);
    if (errno != 0 || (double)v < f->min || (double)v > f->max) {
        return out_of_range(s, node, f, path);
    }
    node->text = lb_arena_printf(s->arena, "%lld", v);
    return node->text == NULL ? no_memory(s) : LB_OK;
}

static enum lb_status check_float(const struct shape *s, const struct lb_yaml *node, const struct lb_field *f,
                                  const char *path) {
    if (node->kind != LB_YAML_SCALAR || node->text[0] == '\0' ||
        strspn(node->text, "0123456789+-.eE") != strlen(node->text)) {
        return not_a(s, node, path, "a number");
    }
    char *end = NULL;
    double v = strtod(node->text, &end);
    if (*end != '\0') {
        return not_a(s, node, path, "a number");
    }
    if (!isfinite(v) || v < f->min || v > f->max) {
        return out_of_range(s, node, f, path);
    }
    return LB_OK;
}

static enum lb_status check_bool(const struct shape *s, struct lb_yaml *node, const char *path) {
    static const char *const words[2][3] = {{"false", "no", "off"}, {"true", "yes", "on"}};
    for (int value = 0; node->kind == LB_YAML_SCALAR && value < 2; value++) {
        for (int i = 0; i < 3; i++) {
            if (strcasecmp(node->text, words[value][i]) == 0) {
                node->text = words[value][0];
                return LB_OK;
            }
        }
    }
    return not_a(s, node, path, "true or false");
}

static enum lb_status check_enum(const struct shape *s, const struct lb_yaml *node, const struct lb_field *f,
                                 const char *path) {
    struct lb_buf list;
    lb_buf_init(&list, 512);
    for (const struct lb_field_name *n = f->names; n->name != NULL; n++) {
        if (node->kind == LB_YAML_SCALAR && strcmp(node->text, n->name) == 0) {
            lb_buf_finish(&list);
            return LB_OK;
        }
        lb_buf_printf(&list, "%s%s", n == f->names ? "one of " : ", ", n->name);
    }
    const char *kind = list.data != NULL ? lb_arena_strdup(s->arena, list.data) : NULL;
    lb_buf_finish(&list);
    return kind == NULL ? no_memory(s) : not_a(s, node, path, kind);
}

static enum lb_status check_string(const struct shape *s, const struct lb_yaml *node, const char *path) {
    if (node->kind != LB_YAML_SCALAR) {
        return not_a(s, node, path, "a text");
    }
    return node->text[0] == '\0'
               ? complain(s, node->line, path, LB_E_ARG, "is empty; give a value or drop the key")
               : LB_OK;
}

static enum lb_status check_map(const struct shape *s, struct lb_yaml *node, const struct lb_field *fields,
                                const char *prefix);

static enum lb_status check_list(const struct shape *s, struct lb_yaml *node, const struct lb_field *f,
                                 const char *path) {
    if (node->kind != LB_YAML_LIST) {
        return not_a(s, node, path, "a list ([...] or lines that begin with \"- \")");
    }
    unsigned i = 0;
    enum lb_status status = LB_OK;
    for (struct lb_yaml *item = node->first; item != NULL && status == LB_OK; item = item->next, i++) {
        const char *at = lb_arena_printf(s->arena, "%s.%u", path, i);
        if (at == NULL) {
            return no_memory(s);
        }
        if (f->kind == LB_FIELD_INTS) {
            status = check_int(s, item, f, at);
        } else if (f->kind == LB_FIELD_STRINGS) {
            status = check_string(s, item, at);
        } else {
            status = check_map(s, item, f->fields, at);
        }
    }
    return status;
}

static enum lb_status check_value(const struct shape *s, struct lb_yaml *node, const struct lb_field *f,
                                  const char *path) {
    switch (f->kind) {
    case LB_FIELD_INT:
        return check_int(s, node, f, path);
    case LB_FIELD_FLOAT:
        return check_float(s, node, f, path);
    case LB_FIELD_BOOL:
        return check_bool(s, node, path);
    case LB_FIELD_ENUM:
        return check_enum(s, node, f, path);
    case LB_FIELD_STRING:
    case LB_FIELD_PATH:
        return check_string(s, node, path);
    case LB_FIELD_INTS:
    case LB_FIELD_STRINGS:
    case LB_FIELD_MAPS:
        return check_list(s, node, f, path);
    case LB_FIELD_MAP:
        return check_map(s, node, f->fields, path);
    }
    return LB_E_INTERNAL;
}

/* What is missing gets its default, or is an error when it is required. */
static enum lb_status fill_missing(const struct shape *s, struct lb_yaml *map, const struct lb_field *fields,
                                   const char *prefix) {
    for (const struct lb_field *f = fields; f->key != NULL; f++) {
        if (lb_yaml_find(map, f->key) != NULL) {
            continue;
        }
        if ((f->flags & LB_FIELD_REQUIRED) != 0) {
            const char *path = join_path(s, prefix, f->key);
            return path == NULL
                       ? no_memory(s)
                       : complain(s, map->line, path, LB_E_ARG, "is missing; a recipe cannot do without it");
        }
        if (f->fallback != NULL && lb_yaml_add(s->arena, map, f->key, f->fallback) == NULL) {
            return no_memory(s);
        }
    }
    return LB_OK;
}

/* Recursion follows the tables, whose depth is fixed, not the input. */
static enum lb_status check_map(const struct shape *s, struct lb_yaml *node, const struct lb_field *fields,
                                const char *prefix) {
    if (node->kind != LB_YAML_MAP) {
        return not_a(s, node, prefix[0] != '\0' ? prefix : "the file", "a mapping of keys (key: value)");
    }
    for (struct lb_yaml *child = node->first, *next = NULL; child != NULL; child = next) {
        next = child->next;
        const struct lb_field *f = fields;
        while (f->key != NULL && strcmp(f->key, child->key) != 0) {
            f++;
        }
        if (f->key == NULL) {
            return unknown_key(s, child, fields, prefix);
        }
        if (lb_yaml_is_null(child) || (child->kind == LB_YAML_LIST && child->count == 0)) {
            lb_yaml_remove(node, child);
            continue;
        }
        const char *path = join_path(s, prefix, f->key);
        if (path == NULL) {
            return no_memory(s);
        }
        enum lb_status status = check_value(s, child, f, path);
        if (status != LB_OK) {
            return status;
        }
    }
    return fill_missing(s, node, fields, prefix);
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* A dataset's type by its path, where the recipe does not say. */
static enum lb_status add_types(const struct shape *s, struct lb_yaml *list) {
    for (struct lb_yaml *item = list != NULL ? list->first : NULL; item != NULL; item = item->next) {
        const char *path = lb_yaml_find(item, "path")->text;
        if (lb_yaml_find(item, "type") != NULL) {
            continue;
        }
        const char *type = "text";
        if (ends_with(path, ".jsonl") || ends_with(path, ".ndjson")) {
            type = "jsonl";
        } else if (strstr(path, "idx3-ubyte") != NULL || strstr(path, "idx2-ubyte") != NULL) {
            type = "idx";
        }
        if (lb_yaml_add(s->arena, item, "type", type) == NULL) {
            return no_memory(s);
        }
    }
    return LB_OK;
}

/* Defaults that depend on other keys. */
static enum lb_status add_derived(const struct shape *s, struct lb_yaml *root) {
    struct lb_yaml *student = lb_yaml_find(root, "student");
    struct lb_yaml *model = lb_yaml_find(student, "model");
    for (struct lb_yaml *child = student->first; model != NULL && child != NULL; child = child->next) {
        if (child != model) {
            return lb_fail(
                s->detail, LB_E_ARG,
                "%s:%d: student.%s: student.model brings its own configuration; drop one of the two", s->what,
                child->line, child->key);
        }
    }
    struct lb_yaml *type = lb_yaml_find(student, "model_type");
    if (model == NULL && type == NULL) {
        bool classifier = lb_yaml_find(student, "input_size") != NULL;
        type = lb_yaml_add(s->arena, student, "model_type", classifier ? "limbeck_mlp" : "llama");
        if (type == NULL) {
            return no_memory(s);
        }
    }
    enum lb_status status = add_types(s, lb_yaml_find(root, "datasets"));
    if (status == LB_OK) {
        status = add_types(s, lb_yaml_find(root, "eval_datasets"));
    }
    if (status != LB_OK || lb_yaml_find(root, "targets") != NULL) {
        return status;
    }
    const struct lb_yaml *kind = lb_yaml_find(lb_yaml_find(root, "datasets")->first, "type");
    const char *lane = strcmp(kind->text, "idx") == 0 ? "logits" : "final_hidden";
    return lb_yaml_add(s->arena, root, "targets", lane) == NULL ? no_memory(s) : LB_OK;
}

enum lb_status lb_recipe_shape(struct lb_arena *arena, struct lb_yaml *root, const char *what,
                               struct lb_detail *detail) {
    struct shape s = {arena, what, detail};
    enum lb_status status = check_map(&s, root, lb_recipe_fields, "");
    return status == LB_OK ? add_derived(&s, root) : status;
}
