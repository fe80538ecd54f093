#include "trainer/recipe/recipe.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/recipe/fields.h"
#include "trainer/recipe/foreign.h"
#include "trainer/recipe/mistakes.h"
#include "trainer/recipe/tree.h"
#include "trainer/wire/url.h"

#include <stdio.h>
#include <string.h>

#define ARENA_BYTES ((size_t)64 << 20)

/* ---- what follows from other values ---- */

/* Endings whose files are no lines of text, and what to do about them. */
static const struct {
    const char *ending, *advice;
} foreign[] = {
    {".json", "holds one JSON value; write JSON lines, one object a line, and call it .jsonl"},
    {".csv",
     "is a table; write its column of texts as JSON lines (.jsonl) or as text, one document a line (a table "
     "of features: type: csv)"},
    {".tsv", "is a table; write its column of texts as JSON lines (.jsonl) or as text, one document a line"},
    {".parquet", "is a table; write its column of texts as JSON lines (.jsonl)"},
    {".arrow", "is a table; write its column of texts as JSON lines (.jsonl)"},
    {".gz", "is packed; unpack it"},
    {".zst", "is packed; unpack it"},
    {".bz2", "is packed; unpack it"},
    {".xz", "is packed; unpack it"},
    {".zip", "is packed; unpack it"},
};

enum lb_status lb_recipe_data_type(const char *path, enum lb_data_type *out, struct lb_detail *detail) {
    if (strstr(path, "idx3-ubyte") != NULL || strstr(path, "idx2-ubyte") != NULL) {
        *out = LB_DATA_IDX;
        return LB_OK;
    }
    for (size_t k = 0; k < sizeof foreign / sizeof foreign[0]; k++) {
        if (lb_ends_with(path, foreign[k].ending)) {
            return lb_fail(detail, LB_E_ARG, "\"%s\" %s", path, foreign[k].advice);
        }
    }
    if (lb_ends_with(path, ".bin")) {
        *out = LB_DATA_TOKENS;
        return LB_OK;
    }
    *out = lb_ends_with(path, ".jsonl") || lb_ends_with(path, ".ndjson") ? LB_DATA_JSONL : LB_DATA_TEXT;
    return LB_OK;
}

/* A dataset's type by its path, where the recipe does not say. */
static enum lb_status derive_type(const struct lb_recipe *recipe, struct lb_mistakes *mistakes,
                                  struct lb_recipe_dataset *d, const struct lb_yaml *entry,
                                  const char *path) {
    struct lb_detail found = {0};
    bool table = d->path != NULL && lb_ends_with(d->path, ".csv") && recipe->student.config.input_size > 0;
    if (table && lb_yaml_find(entry, "type") == NULL) {
        d->type = LB_DATA_CSV;
        return LB_OK;
    }
    if (lb_yaml_find(entry, "type") != NULL || d->path == NULL ||
        lb_recipe_data_type(d->path, &d->type, &found) == LB_OK) {
        return LB_OK;
    }
    lb_mistakes_meant(mistakes, path);
    return lb_mistakes_add(mistakes, found.code, path, "%s; type: text reads any file's lines as documents",
                           found.text);
}

static enum lb_status derive_datasets(const struct lb_recipe *recipe, struct lb_mistakes *mistakes,
                                      const char *key, struct lb_recipe_dataset *list, unsigned count) {
    const struct lb_yaml *entries = lb_yaml_find(recipe->tree, key);
    const struct lb_yaml *entry = entries != NULL ? entries->first : NULL;
    enum lb_status status = LB_OK;
    for (unsigned i = 0; entry != NULL && i < count && status != LB_E_NOMEM; i++, entry = entry->next) {
        char path[64];
        snprintf(path, sizeof path, "%s.%u.path", key, i);
        status = derive_type(recipe, mistakes, &list[i], entry, path);
        if (list[i].type == LB_DATA_JSONL && list[i].field == NULL) {
            list[i].field = "text";
        }
    }
    return status;
}

#define DEFAULT_SAMPLES 50 /* some twelve ids at a language model's row (Anshumann et al. 2025) */

static enum lb_status derive(struct lb_recipe *r, struct lb_mistakes *mistakes) {
    enum lb_status status = derive_datasets(r, mistakes, "datasets", r->datasets, r->datasets_count);
    if (status != LB_E_NOMEM) {
        status = derive_datasets(r, mistakes, "eval_datasets", r->eval_datasets, r->eval_datasets_count);
    }
    bool idx = r->datasets_count > 0 && lb_data_features(r->datasets[0].type);
    if (lb_yaml_find(r->tree, "targets") == NULL) {
        r->targets = idx ? LB_LANE_LOGITS : LB_LANE_FINAL;
    }
    if (r->targets == LB_LANE_SAMPLES && r->sample_count == 0) {
        r->sample_count = DEFAULT_SAMPLES;
    }
    if (r->tokenizer == NULL && !idx) {
        r->tokenizer = r->student.model;
    }
    if (r->disable_dropout == (r->student.model != NULL ? LB_YES : LB_NO)) {
        r->disable_dropout = LB_NOT_SAID; /* it is the same run */
    }
    return status != LB_E_NOMEM ? lb_read_both(status, lb_recipe_optim(r, mistakes)) : status;
}

/* ---- opening and closing ---- */

static enum lb_status set_place(struct lb_recipe *recipe, const char *path, struct lb_detail *detail) {
    const char *slash = strrchr(path, '/');
    char *directory = lb_arena_strdup(&recipe->arena, slash == NULL ? "." : (slash == path ? "/" : path));
    recipe->path = lb_arena_strdup(&recipe->arena, path);
    recipe->directory = directory;
    if (recipe->path == NULL || directory == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory while reading the recipe", path);
    }
    if (slash != NULL && slash != path) {
        directory[slash - path] = '\0';
    }
    return LB_OK;
}

/* The tree of the file and what is set beside it. LB_OK as well where mistakes were added. */
static enum lb_status read_tree(struct lb_recipe *recipe, const char *text, size_t len,
                                const char *const *overrides, size_t n_overrides,
                                struct lb_mistakes *mistakes, struct lb_yaml **out,
                                struct lb_detail *detail) {
    struct lb_yaml *tree = NULL;
    enum lb_status status = lb_yaml_parse(&recipe->arena, text, len, recipe->path, &tree, detail);
    if (status == LB_OK && tree->kind != LB_YAML_MAP) {
        return lb_fail(detail, LB_E_ARG, "%s:%d: the file: must be a mapping of keys (key: value), not a %s",
                       recipe->path, tree->line, tree->kind == LB_YAML_LIST ? "list" : "text");
    }
    const struct lb_foreign_dialect *dialect = status == LB_OK ? lb_foreign_find(tree) : NULL;
    if (dialect != NULL) {
        struct lb_foreign f = {.arena = &recipe->arena,
                               .file = recipe->path,
                               .theirs = tree,
                               .mistakes = mistakes,
                               .overrides = overrides,
                               .n_overrides = n_overrides};
        status = lb_mistakes_add_twice(mistakes, tree);
        status = status != LB_E_NOMEM ? lb_foreign_translate(dialect, &f, &tree, &recipe->notes) : status;
    }
    for (size_t i = 0; status == LB_OK && i < n_overrides; i++) {
        struct lb_detail wrong = {0};
        enum lb_status one = lb_yaml_set(&recipe->arena, tree, overrides[i], &wrong);
        one = one != LB_OK ? lb_mistakes_add_line(mistakes, one, 0, wrong.text) : one;
        status = one == LB_E_NOMEM ? one : LB_OK;
    }
    if (status == LB_OK) {
        *out = tree;
    }
    return status;
}

static enum lb_status fill(struct lb_recipe *recipe, const char *text, size_t len,
                           const char *const *overrides, size_t n_overrides, struct lb_mistakes *mistakes,
                           struct lb_detail *detail) {
    struct lb_yaml *tree = NULL;
    enum lb_status status = read_tree(recipe, text, len, overrides, n_overrides, mistakes, &tree, detail);
    if (status != LB_OK) {
        return lb_fail(detail, status, "%s: out of memory while reading the recipe", recipe->path);
    }
    const struct lb_recipe_reader reader = {&recipe->arena, mistakes};
    recipe->tree = tree;
    mistakes->root = tree;
    status = lb_mistakes_add_twice(mistakes, tree);
    status = status != LB_E_NOMEM ? lb_recipe_read(&reader, tree, recipe) : status;
    status = status != LB_E_NOMEM ? derive(recipe, mistakes) : status;
    status = status != LB_E_NOMEM ? lb_recipe_check(recipe, mistakes) : status;
    if (status == LB_E_NOMEM) {
        return lb_fail(detail, status, "%s: out of memory while reading the recipe", recipe->path);
    }
    return LB_OK;
}

enum lb_status lb_recipe_parse_all(const char *text, size_t len, const char *path,
                                   const char *const *overrides, size_t n_overrides, struct lb_buf *lines,
                                   struct lb_recipe **out, struct lb_detail *detail) {
    struct lb_recipe *recipe = lb_calloc(1, sizeof *recipe);
    if (recipe == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory while reading the recipe", path);
    }
    lb_arena_init(&recipe->arena, ARENA_BYTES);
    struct lb_mistakes mistakes = {.arena = &recipe->arena, .file = path};
    struct lb_detail fatal = {0};
    enum lb_status status = set_place(recipe, path, &fatal);
    status = status == LB_OK ? fill(recipe, text, len, overrides, n_overrides, &mistakes, &fatal) : status;
    if (status != LB_OK) {
        if (lines != NULL) {
            lb_buf_printf(lines, "%s\n", fatal.text);
        }
        (void)lb_fail(detail, status, "%s", fatal.text);
    } else {
        status = lb_mistakes_tell(&mistakes, lines, detail);
    }
    if (status != LB_OK) {
        lb_recipe_destroy(recipe);
        return status;
    }
    *out = recipe;
    return LB_OK;
}

enum lb_status lb_recipe_parse(const char *text, size_t len, const char *path, const char *const *overrides,
                               size_t n_overrides, struct lb_recipe **out, struct lb_detail *detail) {
    return lb_recipe_parse_all(text, len, path, overrides, n_overrides, NULL, out, detail);
}

enum lb_status lb_recipe_load_all(const char *path, const char *const *overrides, size_t n_overrides,
                                  struct lb_buf *lines, struct lb_recipe **out, struct lb_detail *detail) {
    struct lb_buf text;
    lb_buf_init(&text, LB_YAML_MAX_BYTES);
    enum lb_status status = lb_file_read(path, &text, detail);
    if (status == LB_OK) {
        status = lb_recipe_parse_all(text.data != NULL ? text.data : "", text.len, path, overrides,
                                     n_overrides, lines, out, detail);
    }
    lb_buf_finish(&text);
    return status;
}

enum lb_status lb_recipe_load(const char *path, const char *const *overrides, size_t n_overrides,
                              struct lb_recipe **out, struct lb_detail *detail) {
    return lb_recipe_load_all(path, overrides, n_overrides, NULL, out, detail);
}

void lb_recipe_destroy(struct lb_recipe *recipe) {
    if (recipe != NULL) {
        lb_arena_finish(&recipe->arena);
        lb_free(recipe);
    }
}

size_t lb_recipe_scheme(const char *place) {
    size_t len;
    enum lb_scheme scheme = lb_url_scheme(place, &len);
    return scheme == LB_SCHEME_LOCAL || scheme == LB_SCHEME_UNIX ? len : 0;
}

char *lb_recipe_resolve(const struct lb_recipe *recipe, const char *path) {
    size_t scheme = lb_recipe_scheme(path);
    if (path[scheme] == '/' || strstr(path, "://") != NULL) {
        return lb_strdup(path);
    }
    char *full = lb_path_join(recipe->directory, path + scheme);
    if (full == NULL || scheme == 0) {
        return full;
    }
    size_t size = scheme + strlen(full) + 1;
    char *out = lb_malloc_array(size, 1);
    if (out != NULL) {
        snprintf(out, size, "%.*s%s", (int)scheme, path, full);
    }
    lb_free(full);
    return out;
}

bool lb_recipe_has_tag(const struct lb_recipe_teacher *teacher, const char *tag) {
    for (unsigned i = 0; i < teacher->tags_count; i++) {
        if (tag != NULL && strcmp(teacher->tags[i], tag) == 0) {
            return true;
        }
    }
    return false;
}
