#include "trainer/recipe/recipe.h"

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/recipe/fields.h"
#include "trainer/recipe/tree.h"

#include <cyaml/cyaml.h>
#include <stdio.h>
#include <string.h>

#define ARENA_BYTES ((size_t)64 << 20)

/* What libcyaml says is kept for the detail: a tree that has passed lb_recipe_shape should give it no reason
 * to. */
static void keep_message(cyaml_log_t level, void *context, const char *format, va_list args) {
    (void)level;
    char *text = context;
    if (text[0] == '\0') {
        vsnprintf(text, 256, format, args);
        text[strcspn(text, "\n")] = '\0';
    }
}

/* cyaml_mem_fn_t over our allocator, so that lb_recipe_* may mix in strings of its own. */
static void *heap(void *context, void *p, size_t size) {
    (void)context;
    if (size == 0) {
        lb_free(p);
        return NULL;
    }
    return lb_realloc_array(p, 1, size);
}

static cyaml_config_t configuration(char *message) {
    return (cyaml_config_t){.log_fn = message != NULL ? keep_message : NULL,
                            .log_ctx = message,
                            .mem_fn = heap,
                            .log_level = CYAML_LOG_ERROR,
                            .flags = CYAML_CFG_NO_ALIAS};
}

static const cyaml_schema_value_t string_entry = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, CYAML_UNLIMITED)};
static const cyaml_schema_value_t int_entry = {CYAML_VALUE_INT(CYAML_FLAG_DEFAULT, int64_t)};

static cyaml_schema_field_t *schema_of(struct lb_arena *arena, const struct lb_field *fields);

static bool fill_enum(struct lb_arena *arena, const struct lb_field *f, cyaml_schema_value_t *value) {
    uint32_t n = 0;
    while (f->names[n].name != NULL) {
        n++;
    }
    cyaml_strval_t *names = lb_arena_zarray(arena, n, sizeof *names);
    if (names == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        names[i] = (cyaml_strval_t){f->names[i].name, f->names[i].value};
    }
    value->type = CYAML_ENUM;
    value->flags = CYAML_FLAG_OPTIONAL | CYAML_FLAG_STRICT;
    value->data_size = sizeof(int);
    value->enumeration.strings = names;
    value->enumeration.count = n;
    return true;
}

static bool fill_maps(struct lb_arena *arena, const struct lb_field *f, cyaml_schema_value_t *value) {
    cyaml_schema_value_t *entry = lb_arena_zarray(arena, 1, sizeof *entry);
    cyaml_schema_field_t *inner = schema_of(arena, f->fields);
    if (entry == NULL || inner == NULL) {
        return false;
    }
    entry->type = CYAML_MAPPING;
    entry->data_size = (uint32_t)f->entry_bytes;
    entry->mapping.fields = inner;
    value->sequence.entry = entry;
    return true;
}

/* One key of ours as libcyaml's schema has it. */
static bool fill_value(struct lb_arena *arena, const struct lb_field *f, cyaml_schema_value_t *value) {
    value->flags = CYAML_FLAG_OPTIONAL;
    switch (f->kind) {
    case LB_FIELD_INT:
        value->type = CYAML_INT;
        value->data_size = sizeof(int64_t);
        return true;
    case LB_FIELD_FLOAT:
        value->type = CYAML_FLOAT;
        value->data_size = sizeof(double);
        return true;
    case LB_FIELD_BOOL:
        value->type = CYAML_BOOL;
        value->data_size = sizeof(bool);
        return true;
    case LB_FIELD_ENUM:
        return fill_enum(arena, f, value);
    case LB_FIELD_STRING:
    case LB_FIELD_PATH:
        value->type = CYAML_STRING;
        value->flags |= CYAML_FLAG_POINTER;
        value->data_size = sizeof(char);
        value->string.max = CYAML_UNLIMITED;
        return true;
    case LB_FIELD_MAP:
        value->type = CYAML_MAPPING;
        value->data_size = (uint32_t)f->entry_bytes;
        value->mapping.fields = schema_of(arena, f->fields);
        return value->mapping.fields != NULL;
    case LB_FIELD_INTS:
    case LB_FIELD_STRINGS:
    case LB_FIELD_MAPS:
        break;
    }
    value->type = CYAML_SEQUENCE;
    value->flags |= CYAML_FLAG_POINTER;
    value->data_size = (uint32_t)f->entry_bytes;
    value->sequence.entry = f->kind == LB_FIELD_INTS ? &int_entry : &string_entry;
    value->sequence.max = CYAML_UNLIMITED;
    return f->kind != LB_FIELD_MAPS || fill_maps(arena, f, value);
}

static cyaml_schema_field_t *schema_of(struct lb_arena *arena, const struct lb_field *fields) {
    size_t n = 0;
    while (fields[n].key != NULL) {
        n++;
    }
    cyaml_schema_field_t *schema = lb_arena_zarray(arena, n + 1, sizeof *schema);
    for (size_t i = 0; schema != NULL && i < n; i++) {
        schema[i].key = fields[i].key;
        schema[i].data_offset = (uint32_t)fields[i].offset;
        schema[i].count_offset = (uint32_t)fields[i].count_offset;
        schema[i].count_size = sizeof(unsigned);
        if (!fill_value(arena, &fields[i], &schema[i].value)) {
            return NULL;
        }
    }
    return schema;
}

static bool make_schema(struct lb_arena *arena, cyaml_schema_value_t *out) {
    *out = (cyaml_schema_value_t){.type = CYAML_MAPPING,
                                  .flags = CYAML_FLAG_POINTER,
                                  .data_size = sizeof(struct lb_recipe),
                                  .mapping.fields = schema_of(arena, lb_recipe_fields)};
    return out->mapping.fields != NULL;
}

/* The checked tree into the struct. */
static enum lb_status load_tree(struct lb_arena *arena, const struct lb_yaml *tree, const char *what,
                                struct lb_recipe **out, struct lb_detail *detail) {
    char message[256] = "";
    cyaml_config_t config = configuration(message);
    cyaml_schema_value_t schema;
    struct lb_buf text;
    lb_buf_init(&text, 8 * LB_YAML_MAX_BYTES);
    lb_yaml_emit(tree, &text);
    cyaml_data_t *data = NULL;
    enum lb_status status = lb_buf_status(&text);
    if (status != LB_OK || !make_schema(arena, &schema)) {
        lb_fail(detail, LB_E_NOMEM, "%s: out of memory while reading the recipe", what);
        status = LB_E_NOMEM;
    } else {
        cyaml_err_t error =
            cyaml_load_data((const uint8_t *)text.data, text.len, &config, &schema, &data, NULL);
        if (error == CYAML_ERR_OOM) {
            status = lb_fail(detail, LB_E_NOMEM, "%s: out of memory while reading the recipe", what);
        } else if (error != CYAML_OK) {
            status = lb_fail(detail, LB_E_FORMAT, "%s: %s", what,
                             message[0] != '\0' ? message : cyaml_strerror(error));
        }
    }
    lb_buf_finish(&text);
    if (status == LB_OK) {
        *out = data;
    }
    return status;
}

/* What follows from other values. false when out of memory. */
static bool derive(struct lb_recipe *recipe) {
    struct lb_recipe_student *s = &recipe->student;
    if (s->model == NULL && strcmp(s->model_type, "limbeck_mlp") != 0) {
        s->num_key_value_heads =
            s->num_key_value_heads != 0 ? s->num_key_value_heads : s->num_attention_heads;
        if (s->head_dim == 0 && s->num_attention_heads > 0 && s->hidden_size % s->num_attention_heads == 0) {
            s->head_dim = s->hidden_size / s->num_attention_heads;
        }
        s->max_position_embeddings = s->max_position_embeddings != 0 ? s->max_position_embeddings : 2048;
        s->rope_theta = s->rope_theta > 0 ? s->rope_theta : 10000.0;
        s->norm_eps = s->norm_eps > 0 ? s->norm_eps : 1e-6;
    }
    if (s->model == NULL) {
        s->initializer_range = s->initializer_range > 0 ? s->initializer_range : 0.02;
    }
    if (recipe->tokenizer == NULL && s->model != NULL && recipe->datasets[0].type != LB_DATA_IDX) {
        recipe->tokenizer = lb_strdup(s->model);
        if (recipe->tokenizer == NULL) {
            return false;
        }
    }
    struct lb_recipe_dataset *lists[2] = {recipe->datasets, recipe->eval_datasets};
    unsigned counts[2] = {recipe->datasets_count, recipe->eval_datasets_count};
    for (int l = 0; l < 2; l++) {
        for (unsigned i = 0; i < counts[l]; i++) {
            if (lists[l][i].type == LB_DATA_JSONL && lists[l][i].field == NULL) {
                lists[l][i].field = lb_strdup("text");
                if (lists[l][i].field == NULL) {
                    return false;
                }
            }
        }
    }
    return true;
}

static enum lb_status set_place(struct lb_recipe *recipe, const char *path, struct lb_detail *detail) {
    const char *slash = strrchr(path, '/');
    recipe->path = lb_strdup(path);
    recipe->directory = lb_strdup(slash == NULL ? "." : (slash == path ? "/" : path));
    if (recipe->path == NULL || recipe->directory == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory while reading the recipe", path);
    }
    if (slash != NULL && slash != path) {
        recipe->directory[slash - path] = '\0';
    }
    return LB_OK;
}

static enum lb_status read_tree(struct lb_arena *arena, const char *text, size_t len, const char *path,
                                const char *const *overrides, size_t n_overrides, struct lb_yaml **out,
                                struct lb_detail *detail) {
    enum lb_status status = lb_yaml_parse(arena, text, len, path, out, detail);
    for (size_t i = 0; status == LB_OK && i < n_overrides; i++) {
        status = lb_yaml_set(arena, *out, overrides[i], detail);
    }
    return status;
}

enum lb_status lb_recipe_parse(const char *text, size_t len, const char *path, const char *const *overrides,
                               size_t n_overrides, struct lb_recipe **out, struct lb_detail *detail) {
    struct lb_arena arena;
    lb_arena_init(&arena, ARENA_BYTES);
    struct lb_yaml *tree = NULL;
    struct lb_recipe *recipe = NULL;
    enum lb_status status = read_tree(&arena, text, len, path, overrides, n_overrides, &tree, detail);
    if (status == LB_OK) {
        status = lb_recipe_shape(&arena, tree, path, detail);
    }
    if (status == LB_OK) {
        status = load_tree(&arena, tree, path, &recipe, detail);
    }
    if (status == LB_OK) {
        status = set_place(recipe, path, detail);
    }
    if (status == LB_OK && !derive(recipe)) {
        status = lb_fail(detail, LB_E_NOMEM, "%s: out of memory while reading the recipe", path);
    }
    if (status == LB_OK) {
        status = lb_recipe_check(recipe, tree, detail);
    }
    lb_arena_finish(&arena);
    if (status != LB_OK) {
        lb_recipe_destroy(recipe);
        return status;
    }
    *out = recipe;
    return LB_OK;
}

enum lb_status lb_recipe_load(const char *path, const char *const *overrides, size_t n_overrides,
                              struct lb_recipe **out, struct lb_detail *detail) {
    struct lb_buf text;
    lb_buf_init(&text, LB_YAML_MAX_BYTES);
    enum lb_status status = lb_file_read(path, &text, detail);
    if (status == LB_OK) {
        status = lb_recipe_parse(text.data != NULL ? text.data : "", text.len, path, overrides, n_overrides,
                                 out, detail);
    }
    lb_buf_finish(&text);
    return status;
}

/* Frees what the keys of one struct hold; recursion follows the tables. */
static void free_fields(char *base, const struct lb_field *fields) {
    for (const struct lb_field *f = fields; f->key != NULL; f++) {
        if (f->kind == LB_FIELD_MAP) {
            free_fields(base + f->offset, f->fields);
        } else if (f->kind >= LB_FIELD_STRING) {
            char *p = *(char **)(base + f->offset);
            unsigned n = f->kind >= LB_FIELD_STRINGS && p != NULL ? *(unsigned *)(base + f->count_offset) : 0;
            for (unsigned i = 0; i < n; i++) {
                char *entry = p + (size_t)i * f->entry_bytes;
                if (f->kind == LB_FIELD_STRINGS) {
                    lb_free(*(char **)entry);
                } else {
                    free_fields(entry, f->fields);
                }
            }
            lb_free(p);
        }
    }
}

void lb_recipe_destroy(struct lb_recipe *recipe) {
    if (recipe != NULL) {
        lb_free(recipe->path);
        lb_free(recipe->directory);
        free_fields((char *)recipe, lb_recipe_fields);
        lb_free(recipe);
    }
}

char *lb_recipe_resolve(const struct lb_recipe *recipe, const char *path) {
    if (path[0] == '/') {
        return lb_strdup(path);
    }
    return lb_path_join(recipe->directory, path);
}
