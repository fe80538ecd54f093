/* The recipe written back as YAML, and its fingerprint: the same walk with fewer keys. */
#include "common/base/mem.h"
#include "common/base/sha256.h"
#include "trainer/recipe/fields.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT_BYTES ((size_t)16 << 20)

struct dump {
    const struct lb_recipe *recipe;
    struct lb_buf *buf;
    unsigned only; /* flags a key must have; 0: all keys */
};

/* The shortest decimal form that reads back as the same double. */
static void put_number(struct lb_buf *buf, double v) {
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) {
            break;
        }
    }
    /* YAML 1.1 readers take 1e-06 for a text and 1.0e-06 for a number. */
    size_t mantissa = strcspn(text, "e");
    bool bare = text[mantissa] == 'e' && memchr(text, '.', mantissa) == NULL;
    lb_buf_printf(buf, "%.*s%s%s", (int)mantissa, text, bare ? ".0" : "", text + mantissa);
}

/* Absolute, so that the copy in the run folder means the same places. */
static void put_path(const struct dump *d, const char *path) {
    size_t scheme = lb_recipe_scheme(path);
    const char *place = path + scheme;
    if (place[0] == '/' || strstr(path, "://") != NULL) {
        lb_yaml_quote(path, d->buf);
        return;
    }
    const char *directory = d->recipe->directory;
    char *here = directory[0] == '/' ? NULL : getcwd(NULL, 0);
    struct lb_buf full;
    lb_buf_init(&full, TEXT_BYTES);
    lb_buf_append(&full, path, scheme);
    if (here != NULL) {
        lb_buf_printf(&full, "%s/", here);
    }
    if (strcmp(directory, ".") != 0) {
        lb_buf_printf(&full, "%s/", directory);
    }
    lb_buf_append_str(&full, place);
    if (lb_buf_status(&full) == LB_OK) {
        lb_yaml_quote(full.data, d->buf);
    } else {
        d->buf->status = LB_E_NOMEM;
    }
    lb_buf_finish(&full);
    free(here);
}

static void put_text(const struct dump *d, const char *text) {
    lb_yaml_quote(text, d->buf);
}

static const char *enum_name(const struct lb_field *f, int value) {
    for (const struct lb_field_name *n = f->names; n->name != NULL; n++) {
        if (n->value == value) {
            return n->name;
        }
    }
    return "";
}

/* Keys without a default stay away while they hold nothing, as they did in the file. */
static bool holds_nothing(const char *base, const struct lb_field *f) {
    if (f->kind == LB_FIELD_ENUM) { /* one without a name: the key was not there */
        return enum_name(f, *(const int *)(const void *)(base + f->offset))[0] == '\0';
    }
    bool written = f->kind == LB_FIELD_STUDENT || f->fallback != NULL || (f->flags & LB_FIELD_REQUIRED) != 0;
    return !written && lb_field_at_default(f, base);
}

/* Whether the key's value is what is meant without it. */
static bool is_meant(const char *base, const struct lb_field *f) {
    const void *at = base + f->offset;
    if ((f->flags & LB_FIELD_MEANT) == 0) {
        return false;
    }
    return f->kind == LB_FIELD_ENUM  ? strcmp(enum_name(f, *(const int *)at), f->derived) == 0
           : f->kind == LB_FIELD_INT ? *(const int64_t *)at == strtoll(f->derived, NULL, 10)
                                     : *(const double *)at == strtod(f->derived, NULL);
}

static void put_fields(const struct dump *d, const char *base, const struct lb_field *fields, int indent,
                       bool item);

static void put_pairs(const struct dump *d, const struct lb_recipe_pair *pairs, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        lb_buf_append_str(d->buf, i == 0 ? " {" : ", ");
        lb_yaml_quote(pairs[i].key, d->buf);
        lb_buf_append_str(d->buf, ": ");
        lb_yaml_quote(pairs[i].value, d->buf);
    }
    lb_buf_append_str(d->buf, "}\n");
}

static void put_list(const struct dump *d, const char *base, const struct lb_field *f, int indent) {
    unsigned n = *(const unsigned *)(base + f->count_offset);
    const char *entries = *(char *const *)(base + f->offset);
    if (f->kind == LB_FIELD_PAIRS) {
        put_pairs(d, (const void *)entries, n);
        return;
    }
    if (lb_field_word(f, base) != NULL) {
        lb_buf_printf(d->buf, " %s\n", lb_field_word(f, base));
        return;
    }
    if (f->kind == LB_FIELD_MAPS) {
        lb_buf_append_str(d->buf, "\n");
        for (unsigned i = 0; i < n; i++) {
            put_fields(d, entries + (size_t)i * f->entry_bytes, f->fields, indent + 2, true);
        }
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        lb_buf_append_str(d->buf, i == 0 ? " [" : ", ");
        if (f->kind == LB_FIELD_INTS) {
            lb_buf_printf(d->buf, "%lld", (long long)((const int64_t *)(const void *)entries)[i]);
        } else {
            ((f->flags & LB_FIELD_PLACES) != 0 ? put_path
                                               : put_text)(d, ((char *const *)(const void *)entries)[i]);
        }
    }
    lb_buf_append_str(d->buf, "]\n");
}

static void put_scalar(const struct dump *d, const void *at, const struct lb_field *f) {
    lb_buf_append_str(d->buf, " ");
    if (f->kind == LB_FIELD_INT) {
        lb_buf_printf(d->buf, "%lld", (long long)*(const int64_t *)at);
    } else if (f->kind == LB_FIELD_FLOAT) {
        put_number(d->buf, *(const double *)at);
    } else if (f->kind == LB_FIELD_BOOL) {
        lb_buf_append_str(d->buf, *(const bool *)at ? "true" : "false");
    } else if (f->kind == LB_FIELD_ENUM) {
        lb_buf_append_str(d->buf, enum_name(f, *(const int *)at));
    } else if (f->kind == LB_FIELD_PATH) {
        put_path(d, *(char *const *)at);
    } else if ((f->flags & LB_FIELD_BARE) != 0) {
        lb_buf_append_str(d->buf, *(char *const *)at);
    } else {
        lb_yaml_quote(*(char *const *)at, d->buf);
    }
    lb_buf_append_str(d->buf, "\n");
}

static void put_sizes(struct lb_buf *buf, const int64_t *sizes, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        lb_buf_printf(buf, "%s%lld", i == 0 ? " [" : ", ", (long long)sizes[i]);
    }
    lb_buf_append_str(buf, "]\n");
}

/* The config of a new student; what is not given and has no default is zero there. */
static void put_student(const struct dump *d, const struct lb_recipe_student *student) {
    const char *config = (const char *)&student->config;
    lb_buf_append_str(d->buf, "\n");
    if (student->layers_count > 0) { /* which layers decides; where the model lies does not */
        lb_buf_append_str(d->buf, "  layers_from:\n");
        if (d->only == 0) {
            lb_buf_append_str(d->buf, "    model: ");
            put_path(d, student->model);
            lb_buf_append_str(d->buf, "\n");
        }
        lb_buf_append_str(d->buf, "    layers:");
        put_sizes(d->buf, student->layers, student->layers_count);
    } else if (student->model != NULL && d->only == 0) {
        lb_buf_append_str(d->buf, "  model: ");
        put_path(d, student->model);
        lb_buf_append_str(d->buf, "\n");
    }
    if (student->num_labels > 0) {
        lb_buf_printf(d->buf, "  num_labels: %lld\n", (long long)student->num_labels);
    }
    for (const struct lb_student_field *f = lb_student_fields; student->model == NULL && f->key != NULL;
         f++) {
        const void *at = config + f->offset;
        if (!lb_student_takes(student->config.model_type, f->key)) {
            continue;
        }
        if (f->kind == LB_FIELD_INT && f->offset == offsetof(struct lb_config, num_labels) &&
            *(const int64_t *)at == 0) {
            continue; /* none */
        }
        if (f->kind == LB_FIELD_INT) {
            lb_buf_printf(d->buf, "  %s: %lld\n", f->key, (long long)*(const int64_t *)at);
        } else if (f->kind == LB_FIELD_INTS) {
            lb_buf_printf(d->buf, "  %s:", f->key);
            put_sizes(d->buf, at, student->config.n_hidden);
        } else if (f->kind == LB_FIELD_STRING) {
            lb_buf_printf(d->buf, "  %s: ", f->key);
            lb_yaml_quote(at, d->buf);
            lb_buf_append_str(d->buf, "\n");
        } else if (f->kind == LB_FIELD_BOOL && *(const bool *)at) {
            lb_buf_printf(d->buf, "  %s: true\n", f->key);
        } else if (f->kind == LB_FIELD_FLOAT && (*(const double *)at != 0 || strcmp(f->derived, "0") != 0)) {
            lb_buf_printf(d->buf, "  %s: ", f->key);
            put_number(d->buf, *(const double *)at);
            lb_buf_append_str(d->buf, "\n");
        }
    }
    lb_buf_append_str(d->buf, student->others != NULL ? student->others : "");
}

/* One struct's keys; item: the first stands after "- ". Recursion follows the tables. */
static void put_fields(const struct dump *d, const char *base, const struct lb_field *fields, int indent,
                       bool item) {
    bool first = true;
    for (const struct lb_field *f = fields; f->key != NULL; f++) {
        if (holds_nothing(base, f) || (f->flags & d->only) != d->only ||
            (d->only == LB_FIELD_DECIDES && is_meant(base, f))) {
            continue;
        }
        lb_buf_printf(d->buf, "%*s%s%s:", indent, "", item ? (first ? "- " : "  ") : "", f->key);
        first = false;
        if (f->kind == LB_FIELD_STUDENT) {
            put_student(d, (const void *)(base + f->offset));
        } else if (f->kind >= LB_FIELD_INTS) {
            put_list(d, base, f, indent + (item ? 2 : 0));
        } else {
            put_scalar(d, base + f->offset, f);
        }
    }
    if (item && first) { /* every key left out: the item still counts */
        lb_buf_printf(d->buf, "%*s- {}\n", indent, "");
    }
}

enum lb_status lb_recipe_dump(const struct lb_recipe *recipe, char **out_text, size_t *out_len,
                              struct lb_detail *detail) {
    struct lb_buf buf;
    lb_buf_init(&buf, TEXT_BYTES);
    struct dump d = {recipe, &buf, 0};
    put_fields(&d, (const char *)recipe, lb_recipe_fields, 0, false);
    char *text = lb_buf_status(&buf) == LB_OK ? lb_buf_take(&buf, out_len) : NULL;
    lb_buf_finish(&buf);
    if (text == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory while writing the recipe");
    }
    *out_text = text;
    return LB_OK;
}

enum lb_status lb_recipe_fingerprint(const struct lb_recipe *recipe, char out[65]) {
    struct lb_buf buf;
    lb_buf_init(&buf, TEXT_BYTES);
    struct dump d = {recipe, &buf, LB_FIELD_DECIDES};
    put_fields(&d, (const char *)recipe, lb_recipe_fields, 0, false);
    uint8_t digest[LB_SHA256_BYTES] = {0};
    enum lb_status status = lb_buf_status(&buf);
    if (status == LB_OK) {
        lb_sha256(buf.data, buf.len, digest);
    }
    lb_hex(digest, sizeof digest, out);
    lb_buf_finish(&buf);
    return status;
}

static size_t line_at(const struct lb_buf *text, size_t at, const char **out) {
    const char *end = at < text->len ? memchr(text->data + at, '\n', text->len - at) : NULL;
    *out = at < text->len ? text->data + at : "nothing";
    return end != NULL ? (size_t)(end - text->data) - at : at < text->len ? text->len - at : strlen(*out);
}

/* Where a line of such a text stands: keys, and numbers of list items, from the outside in. */
#define MAX_DEPTH 8
struct place {
    struct {
        const char *key; /* NULL: an item */
        int len, item;
    } at[MAX_DEPTH];
    int depth;
    const char *value; /* behind the key */
};

/* On to the next line. */
static void place_add(struct place *place, const char *line, size_t len) {
    const char *end = line + len;
    size_t indent = strspn(line, " ");
    int level = indent < 2 * (MAX_DEPTH - 2) ? (int)indent / 2 : MAX_DEPTH - 2;
    const char *text = line + (indent < len ? indent : len);
    if (len >= indent + 2 && text[0] == '-') {
        bool next = place->depth > level && place->at[level].key == NULL;
        place->at[level].item = next ? place->at[level].item + 1 : 0;
        place->at[level++].key = NULL;
        text += 2;
    }
    const char *colon = memchr(text, ':', (size_t)(end - text));
    place->value = colon != NULL ? colon + 1 + (colon + 1 < end) : text;
    place->depth = level;
    if (colon != NULL) {
        place->at[level].key = text;
        place->at[level].len = (int)(colon - text);
        place->depth++;
    }
}

/* "losses.0.weight" */
static void put_place(const struct place *place, struct lb_buf *out) {
    for (int i = 0; i < place->depth; i++) {
        const char *dot = i > 0 ? "." : "";
        if (place->at[i].key != NULL) {
            lb_buf_printf(out, "%s%.*s", dot, place->at[i].len, place->at[i].key);
        } else {
            lb_buf_printf(out, "%s%d", dot, place->at[i].item);
        }
    }
}

/* Whether that line stands in text from at on, within what it is part of. */
static bool has_line(const struct lb_buf *text, size_t at, const char *line, size_t len) {
    const char *other;
    size_t indent = strspn(line, " ");
    for (size_t n; at < text->len; at += n + 1) {
        n = line_at(text, at, &other);
        if (n < indent || strspn(other, " ") < indent) {
            return false;
        }
        if (n == len && memcmp(line, other, len) == 0) {
            return true;
        }
    }
    return false;
}

bool lb_recipe_difference(const struct lb_recipe *there, const struct lb_recipe *here, char *out,
                          size_t out_size) {
    const struct lb_recipe *recipes[] = {there, here};
    struct lb_buf text[2], told;
    struct place place[2] = {{.depth = 0}, {.depth = 0}};
    const char *line[2];
    size_t len[2];
    bool differ = false, made = true, lacks[2] = {false, false};
    for (int i = 0; i < 2; i++) {
        lb_buf_init(&text[i], TEXT_BYTES);
        struct dump d = {recipes[i], &text[i], LB_FIELD_DECIDES};
        put_fields(&d, (const char *)recipes[i], lb_recipe_fields, 0, false);
        made = made && lb_buf_status(&text[i]) == LB_OK;
    }
    for (size_t at = 0; made && !differ && (at < text[0].len || at < text[1].len); at += len[0] + 1) {
        for (int i = 0; i < 2; i++) {
            len[i] = line_at(&text[i], at, &line[i]);
            place_add(&place[i], line[i], len[i]);
        }
        differ = len[0] != len[1] || memcmp(line[0], line[1], len[0]) != 0;
        for (int i = 0; differ && i < 2;
             i++) { /* what it has there comes later in the other, or nothing does */
            lacks[i] = at >= text[i].len || has_line(&text[1 - i], at, line[i], len[i]);
        }
    }
    lb_buf_init(&told, TEXT_BYTES);
    for (int i = 0; differ && i < 2; i++) {
        bool absent = lacks[i] && !lacks[1 - i];
        const struct place *at = &place[absent ? 1 - i : i];
        const char *end = line[i] + len[i];
        lb_buf_printf(&told, "%s%s", i == 0 ? "there " : ", here ", absent ? "no " : "");
        put_place(at, &told);
        if (!absent) {
            lb_buf_printf(&told, "%s%.*s", at->depth > 0 ? ": " : "",
                          end > at->value ? (int)(end - at->value) : 0, at->value);
        }
    }
    snprintf(out, out_size, "%s", told.data != NULL ? told.data : "");
    lb_buf_finish(&told);
    lb_buf_finish(&text[0]);
    lb_buf_finish(&text[1]);
    return differ;
}
