#include "trainer/recipe/foreign.h"

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "trainer/recipe/names.h"
#include "trainer/recipe/values.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define MAX_NAMES 256

static const struct lb_foreign_dialect *const dialects[] = {&lb_foreign_trl, &lb_foreign_distillkit,
                                                            &lb_foreign_axolotl};

/* Ours all have a student. */
const struct lb_foreign_dialect *lb_foreign_find(const struct lb_yaml *tree) {
    if (tree->kind != LB_YAML_MAP || lb_yaml_find(tree, "student") != NULL) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++) {
        for (const char *const *mark = dialects[i]->marks; *mark != NULL; mark++) {
            if (lb_yaml_find(tree, *mark) != NULL) {
                return dialects[i];
            }
        }
    }
    return NULL;
}

/* ---- reading theirs ---- */

const struct lb_yaml *lb_foreign_get(const struct lb_yaml *map, const char *key) {
    const struct lb_yaml *node = map != NULL && map->kind == LB_YAML_MAP ? lb_yaml_find(map, key) : NULL;
    return node != NULL && !lb_yaml_is_null(node) ? node : NULL;
}

const char *lb_foreign_text(const struct lb_yaml *node) {
    return node != NULL && node->kind == LB_YAML_SCALAR ? node->text : NULL;
}

double lb_foreign_number(const struct lb_yaml *node, double fallback) {
    const char *text = lb_foreign_text(node);
    double number = NAN;
    if (node == NULL) {
        return fallback;
    }
    return text != NULL && lb_read_number(text, &number) ? number : NAN;
}

bool lb_foreign_true(const struct lb_yaml *node) {
    const char *text = lb_foreign_text(node);
    return text != NULL &&
           (strcasecmp(text, "true") == 0 || strcasecmp(text, "yes") == 0 || strcasecmp(text, "on") == 0);
}

static bool is_off(const struct lb_yaml *node) {
    static const char *const words[] = {"false", "no", "off", "none", "null", "~", "0", "0.0", ""};
    if (node->kind != LB_YAML_SCALAR) {
        return node->count == 0;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(node->text, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- telling ---- */

void lb_foreign_note(struct lb_foreign *f, int line, const char *key, const char *format, ...) {
    struct lb_detail clean = {0};
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (line > 0) {
        (void)lb_fail(&clean, LB_E_ARG, "%s:%d: %s: %s", f->file, line, key, text);
    } else {
        (void)lb_fail(&clean, LB_E_ARG, "%s: %s: %s", f->file, key, text);
    }
    struct lb_foreign_note *note = lb_arena_zarray(f->arena, 1, sizeof *note), **at = &f->notes;
    const char *copy = lb_arena_strdup(f->arena, clean.text);
    if (note == NULL || copy == NULL) {
        f->status = LB_E_NOMEM;
        return;
    }
    while (*at != NULL && (line == 0 || ((*at)->line != 0 && (*at)->line <= line))) {
        at = &(*at)->next;
    }
    *note = (struct lb_foreign_note){line, copy, *at};
    *at = note;
}

bool lb_foreign_is_set(const struct lb_foreign *f, const char *ours) {
    for (size_t i = 0; i < f->n_overrides; i++) {
        size_t n = strcspn(f->overrides[i], "="), m = strlen(ours), least = n < m ? n : m;
        char beyond = n < m ? ours[least] : f->overrides[i][least];
        if (strncmp(f->overrides[i], ours, least) == 0 && (n == m || beyond == '.')) {
            return true;
        }
    }
    return false;
}

void lb_foreign_refuse(struct lb_foreign *f, int line, const char *key, const char *ours, const char *format,
                       ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (ours != NULL && lb_foreign_is_set(f, ours)) {
        lb_foreign_note(f, line, key, "--set %s stands for it", ours);
        return;
    }
    if (ours != NULL) {
        lb_mistakes_meant(f->mistakes, ours);
    }
    if (lb_mistakes_add_at(f->mistakes, LB_E_UNSUPPORTED, line, key, text) == LB_E_NOMEM) {
        f->status = LB_E_NOMEM;
    }
}

/* ---- writing ours ---- */

static struct lb_yaml *add(struct lb_foreign *f, struct lb_yaml *parent, enum lb_yaml_kind kind,
                           const char *key, int line) {
    struct lb_yaml *node = lb_yaml_add(f->arena, parent, kind, key, line);
    if (node == NULL) {
        f->status = LB_E_NOMEM;
    }
    return node;
}

void lb_foreign_set(struct lb_foreign *f, struct lb_yaml *map, const char *key, int line, const char *value) {
    map = map != NULL ? map : f->ours;
    if (f->status != LB_OK || lb_yaml_find(map, key) != NULL) {
        return;
    }
    if (value == NULL) {
        lb_foreign_refuse(f, line, key, NULL, "must be one value");
        return;
    }
    struct lb_yaml *node = add(f, map, LB_YAML_SCALAR, key, line);
    const char *copy = lb_arena_strdup(f->arena, value);
    if (node != NULL && copy != NULL) {
        node->text = copy;
        node->plain = true;
    } else {
        f->status = LB_E_NOMEM;
    }
}

void lb_foreign_take(struct lb_foreign *f, const struct lb_yaml *node, const char *path, const char *ours) {
    const char *text = lb_foreign_text(node);
    bool same = strcmp(node->key, ours) == 0;
    if (text == NULL) {
        lb_foreign_refuse(f, node->line, path, ours, "must be one value");
        return;
    }
    if (lb_yaml_find(f->ours, ours) != NULL) {
        lb_foreign_refuse(f, node->line, path, ours,
                          "is %s here, which another key gives already; drop one of the two", ours);
        return;
    }
    lb_foreign_set(f, NULL, ours, node->line, text);
    lb_foreign_note(f, node->line, path, "taken%s%s", same ? "" : " as ", same ? "" : ours);
}

struct lb_yaml *lb_foreign_child(struct lb_foreign *f, struct lb_yaml *map, const char *key,
                                 enum lb_yaml_kind kind, int line) {
    map = map != NULL ? map : f->ours;
    struct lb_yaml *there = lb_yaml_find(map, key);
    return there != NULL ? there : add(f, map, kind, key, line);
}

struct lb_yaml *lb_foreign_entry(struct lb_foreign *f, struct lb_yaml *list, int line) {
    return list != NULL ? add(f, list, LB_YAML_MAP, NULL, line) : NULL;
}

void lb_foreign_defaults(struct lb_foreign *f, const char *tool, const struct lb_foreign_default *defaults) {
    for (; defaults->key != NULL; defaults++) {
        if (lb_yaml_find(f->ours, defaults->key) == NULL && !lb_foreign_is_set(f, defaults->key)) {
            lb_foreign_note(f, 0, defaults->key, "%s, which %s takes where the file is silent",
                            defaults->value, tool);
            lb_foreign_set(f, NULL, defaults->key, 1, defaults->value);
        }
    }
}

/* ---- by tables ---- */

static bool named(const struct lb_foreign_key *row, const char *key) {
    size_t n = strlen(row->key);
    return n > 0 && row->key[n - 1] == '*' ? strncmp(row->key, key, n - 1) == 0 : strcmp(row->key, key) == 0;
}

static const struct lb_foreign_key *find_row(const struct lb_foreign_key *keys, const char *key) {
    for (; keys != NULL && keys->key != NULL; keys++) {
        if (named(keys, key)) {
            return keys;
        }
    }
    return NULL;
}

static void unknown(struct lb_foreign *f, const struct lb_yaml *node, const char *path,
                    const struct lb_foreign_key *keys, const struct lb_foreign_key *more) {
    const char *names[MAX_NAMES];
    size_t n = 0;
    for (int t = 0; t < 2; t++, keys = more) {
        for (; keys != NULL && keys->key != NULL && n < MAX_NAMES; keys++) {
            if (strchr(keys->key, '*') == NULL) {
                names[n++] = keys->key;
            }
        }
    }
    const char *nearest = lb_nearest_name(node->key, names, n);
    lb_foreign_refuse(f, node->line, path, NULL, "is no key of %s's that is known here; %s%s%s", f->tool,
                      nearest != NULL ? "did you mean "
                                      : "drop it, or write the recipe in limbeck's own keys",
                      nearest != NULL ? nearest : "", nearest != NULL ? "?" : "");
}

static void apply_row(struct lb_foreign *f, const struct lb_yaml *node, const char *path,
                      const struct lb_foreign_key *row) {
    switch (row->what) {
    case LB_FOREIGN_TAKE:
        lb_foreign_take(f, node, path, row->text);
        break;
    case LB_FOREIGN_LEAVE:
        lb_foreign_note(f, node->line, path, "left out: %s", row->text);
        break;
    case LB_FOREIGN_OFF:
        if (is_off(node)) {
            lb_foreign_note(f, node->line, path, "left out: off here as well");
        } else {
            lb_foreign_refuse(f, node->line, path, NULL, "%s", row->text);
        }
        break;
    case LB_FOREIGN_NEVER:
        lb_foreign_refuse(f, node->line, path, NULL, "%s", row->text);
        break;
    case LB_FOREIGN_READ:
        break;
    }
}

void lb_foreign_apply(struct lb_foreign *f, const struct lb_yaml *map, const char *prefix,
                      const struct lb_foreign_key *keys, const struct lb_foreign_key *more_keys) {
    for (const struct lb_yaml *node = map->first; node != NULL && f->status == LB_OK; node = node->next) {
        const char *path = lb_arena_printf(f->arena, "%s%s", prefix, node->key);
        const struct lb_foreign_key *row = find_row(keys, node->key);
        row = row != NULL ? row : find_row(more_keys, node->key);
        if (path == NULL) {
            f->status = LB_E_NOMEM;
        } else if (row == NULL) {
            unknown(f, node, path, keys, more_keys);
        } else if (lb_yaml_is_null(node)) {
            lb_foreign_note(f, node->line, path, "left out: it is null");
        } else {
            apply_row(f, node, path, row);
        }
    }
}

/* Whether a line is about the key, or about what stands below it. */
static bool is_about(const char *text, const char *key) {
    size_t n = strlen(key);
    for (const char *at = text; (at = strstr(at, ": ")) != NULL;) {
        at += 2;
        if (strncmp(at, key, n) == 0 && (at[n] == ':' || at[n] == '.')) {
            return true;
        }
    }
    return false;
}

/* A key that the dialect reads and said nothing about has a form that it does not know. */
static void refuse_untold(struct lb_foreign *f, const struct lb_foreign_key *keys) {
    for (; keys != NULL && keys->key != NULL; keys++) {
        const struct lb_yaml *node =
            keys->what == LB_FOREIGN_READ ? lb_foreign_get(f->theirs, keys->key) : NULL;
        bool told = node == NULL;
        for (const struct lb_foreign_note *note = f->notes; !told && note != NULL; note = note->next) {
            told = is_about(note->text, keys->key);
        }
        if (!told && is_off(node)) {
            lb_foreign_note(f, node->line, keys->key, "left out: off here as well");
        } else if (!told) {
            lb_foreign_refuse(f, node->line, keys->key, keys->key,
                              "says nothing here as it is written; write it as %s has it, or drop it",
                              f->tool);
        }
    }
}

enum lb_status lb_foreign_translate(const struct lb_foreign_dialect *dialect, struct lb_foreign *f,
                                    struct lb_yaml **out, const char **out_notes) {
    struct lb_buf lines;
    f->tool = dialect->name;
    f->ours = lb_yaml_add(f->arena, NULL, LB_YAML_MAP, NULL, 1);
    if (f->ours == NULL) {
        return LB_E_NOMEM;
    }
    lb_foreign_apply(f, f->theirs, "", dialect->keys, dialect->more_keys);
    unsigned before = f->mistakes->count;
    if (f->status == LB_OK) {
        dialect->translate(f);
    }
    if (f->status == LB_OK && f->mistakes->count == before) { /* or else it may be a consequence */
        refuse_untold(f, dialect->keys);
        refuse_untold(f, dialect->more_keys);
    }
    lb_buf_init(&lines, LB_YAML_MAX_BYTES);
    lb_buf_printf(&lines, "%s: in %s's words; what became of its keys:\n", f->file, dialect->name);
    for (const struct lb_foreign_note *note = f->notes; note != NULL; note = note->next) {
        lb_buf_printf(&lines, "%s\n", note->text);
    }
    *out = f->ours;
    *out_notes = lb_buf_status(&lines) == LB_OK ? lb_arena_strdup(f->arena, lines.data) : NULL;
    lb_buf_finish(&lines);
    return f->status == LB_OK && *out_notes == NULL ? LB_E_NOMEM : f->status;
}

/* ---- what several have in common ---- */

struct lb_yaml *lb_foreign_dataset(struct lb_foreign *f, const char *ours, int line, const char *key,
                                   const char *path) {
    static const char *const endings[] = {".jsonl", ".ndjson", ".txt"};
    bool is_file = false;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        is_file = is_file || (path != NULL && lb_ends_with(path, endings[i]));
    }
    if (!is_file) {
        lb_foreign_refuse(
            f, line, key, ours,
            "\"%.80s\" is no file of texts or JSON lines (.txt, .jsonl), and nothing is fetched "
            "from the hub; write it as JSON lines and give --set '%s=[{path: FILE}]'",
            path != NULL ? path : "", ours);
        return NULL;
    }
    struct lb_yaml *list = lb_foreign_child(f, NULL, ours, LB_YAML_LIST, line);
    struct lb_yaml *entry = lb_foreign_entry(f, list, line);
    if (entry != NULL) {
        lb_foreign_set(f, entry, "path", line, path);
        lb_foreign_note(f, line, key, "taken as %s.%u.path", ours, list->count - 1);
    }
    return entry;
}
