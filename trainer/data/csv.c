/* Tables of features (RFC 4180: fields between commas, in quotes where they hold one; a line a row): the
 * first line names the columns, one of them is the label, all others are numbers. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/data/parts.h"
#include "trainer/recipe/values.h"

#include <math.h>
#include <string.h>

#define MAX_COLUMNS 100000

struct table {
    const char *path;
    const char *at, *end;
    int64_t line;
    int64_t n_columns;
    int64_t label, weight;        /* their columns; weight -1: there is none */
    char (*names)[LB_MAX_COLUMN]; /* [n_columns] */
};

/* The next field of the line into out; *out_last: it ends the line. */
static enum lb_status next_field(struct table *t, char out[LB_MAX_COLUMN], bool *out_last,
                                 struct lb_detail *detail) {
    size_t n = 0;
    while (t->at < t->end && *t->at == ' ') {
        t->at++;
    }
    bool quoted = t->at < t->end && *t->at == '"';
    t->at += quoted;
    for (; t->at < t->end && *t->at != '\n'; t->at++) {
        if (quoted && *t->at == '"' && (t->at + 1 == t->end || t->at[1] != '"')) {
            t->at++;
            quoted = false;
            break;
        }
        if (!quoted && *t->at == ',') {
            break;
        }
        t->at += quoted && *t->at == '"';
        if (*t->at == '\0') {
            return lb_fail(detail, LB_E_FORMAT, "%s:%lld: a NUL byte; is this a table as text?", t->path,
                           (long long)t->line);
        }
        if (n + 1 == LB_MAX_COLUMN) {
            return lb_fail(detail, LB_E_LIMIT, "%s:%lld: a field of more than %d bytes", t->path,
                           (long long)t->line, LB_MAX_COLUMN - 1);
        }
        out[n++] = *t->at;
    }
    if (quoted) {
        return lb_fail(detail, LB_E_FORMAT, "%s:%lld: a quote is not closed in its line", t->path,
                       (long long)t->line);
    }
    bool ends =
        t->at == t->end || *t->at == '\n' || (*t->at == '\r' && (t->at + 1 == t->end || t->at[1] == '\n'));
    if (!ends && *t->at != ',') {
        return lb_fail(detail, LB_E_FORMAT, "%s:%lld: something stands behind a closing quote", t->path,
                       (long long)t->line);
    }
    if (ends && n > 0 && out[n - 1] == '\r') {
        n--;
    }
    while (n > 0 && (out[n - 1] == ' ' || out[n - 1] == '\t')) {
        n--;
    }
    out[n] = '\0';
    size_t spaces = strspn(out, " \t");
    memmove(out, out + spaces, n - spaces + 1);
    t->at += ends && t->at < t->end && *t->at == '\r';
    t->at += t->at < t->end; /* the comma, or the line's end */
    *out_last = ends;
    return LB_OK;
}

/* Past lines without anything in them; false at the end. */
static bool next_line(struct table *t) {
    while (t->at < t->end && (*t->at == '\n' || *t->at == '\r')) {
        t->line += *t->at == '\n';
        t->at++;
    }
    return t->at < t->end;
}

static bool read_number(const char *text, double *out) {
    return lb_read_number(text, out) && isfinite(*out);
}

static bool is_feature(const struct table *t, int64_t column) {
    return column != t->label && column != t->weight;
}

/* The column of that name; -1: there is none. */
static enum lb_status find_column(const struct table *t, const char *name, int64_t *out,
                                  struct lb_detail *detail) {
    *out = -1;
    for (int64_t i = 0; name != NULL && i < t->n_columns; i++) {
        bool is = strcmp(t->names[i], name) == 0;
        if (is && *out >= 0) {
            return lb_fail(detail, LB_E_FORMAT, "%s:%lld: two columns are called \"%s\"", t->path,
                           (long long)t->line, name);
        }
        *out = is ? i : *out;
    }
    return LB_OK;
}

/* Which columns are no features. weight: NULL: the label's alone. */
static enum lb_status find_columns(struct table *t, const char *label, const char *weight,
                                   struct lb_detail *detail) {
    enum lb_status status = find_column(t, label, &t->label, detail);
    status = status == LB_OK ? find_column(t, weight, &t->weight, detail) : status;
    if (status != LB_OK) {
        return status;
    }
    if (t->label < 0 || t->n_columns < 2) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: has no column \"%s\" beside others; name the label's: label_field", t->path,
                       label);
    }
    if (weight != NULL && (t->weight < 0 || t->weight == t->label || t->n_columns < 3)) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: has no column \"%s\" beside the label's and others; name the weights': "
                       "weight_field",
                       t->path, weight);
    }
    return LB_OK;
}

/* The names of the columns. */
static enum lb_status read_header(struct table *t, struct lb_detail *detail) {
    char field[LB_MAX_COLUMN];
    bool last = false, any_name = false;
    double number;
    int64_t cap = 0;
    if (!next_line(t)) {
        return lb_fail(detail, LB_E_ARG, "%s: is empty", t->path);
    }
    while (!last) {
        enum lb_status status = next_field(t, field, &last, detail);
        if (status != LB_OK) {
            return status;
        }
        if (t->n_columns == cap) {
            cap = cap > 0 ? 2 * cap : 64;
            char(*names)[LB_MAX_COLUMN] = cap <= 2 * (int64_t)MAX_COLUMNS
                                              ? lb_realloc_array(t->names, (size_t)cap, sizeof *names)
                                              : NULL;
            if (names == NULL) {
                return lb_fail(detail, LB_E_LIMIT, "%s: more than %d columns, or no memory for them", t->path,
                               MAX_COLUMNS);
            }
            t->names = names;
        }
        any_name = any_name || !read_number(field, &number);
        memcpy(t->names[t->n_columns++], field, sizeof field);
    }
    if (!any_name) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s:%lld: the first line has numbers only; it is to name the columns", t->path,
                       (long long)t->line);
    }
    return LB_OK;
}

/* One row into features, *out_label and *out_weight. */
static enum lb_status read_row(struct table *t, float *features, int32_t *out_label, double *out_weight,
                               struct lb_detail *detail) {
    char field[LB_MAX_COLUMN];
    bool last = false;
    int64_t column = 0;
    for (; !last; column++) {
        double value;
        enum lb_status status = next_field(t, field, &last, detail);
        if (status != LB_OK) {
            return status;
        }
        if (column == t->n_columns) {
            return lb_fail(detail, LB_E_FORMAT, "%s:%lld: more than the %lld columns of the first line",
                           t->path, (long long)t->line, (long long)t->n_columns);
        }
        if (!read_number(field, &value)) {
            return lb_fail(detail, LB_E_FORMAT, "%s:%lld: column %.60s: \"%.60s\" is no %s", t->path,
                           (long long)t->line, t->names[column], field,
                           column == t->label ? "class's number; number the classes from 0" : "number");
        }
        if (column == t->label) {
            if (value != floor(value) || value < 0 || value > INT32_MAX) {
                return lb_fail(detail, LB_E_FORMAT, "%s:%lld: column %.60s: %.60s is no class's number",
                               t->path, (long long)t->line, t->names[column], field);
            }
            *out_label = (int32_t)value;
        } else if (column == t->weight) {
            status = lb_weight_check(value, detail);
            if (status != LB_OK) {
                lb_detail_prefix(detail, "%s:%lld: column %.60s", t->path, (long long)t->line,
                                 t->names[column]);
                return status;
            }
            *out_weight = value;
        } else if (fabs(value) > 3e38) {
            return lb_fail(detail, LB_E_FORMAT, "%s:%lld: column %.60s: %.60s is too large", t->path,
                           (long long)t->line, t->names[column], field);
        } else {
            *features++ = (float)value;
        }
    }
    if (column != t->n_columns) {
        return lb_fail(detail, LB_E_FORMAT, "%s:%lld: %lld columns, the first line has %lld", t->path,
                       (long long)t->line, (long long)column, (long long)t->n_columns);
    }
    return LB_OK;
}

static enum lb_status read_rows(struct lb_dataset *data, struct table *t,
                                const struct lb_recipe_dataset *entry, int64_t num_labels, int tag,
                                struct lb_detail *detail) {
    int64_t row = 0, end = entry->max_samples > 0 ? entry->skip_samples + entry->max_samples : INT64_MAX;
    for (; row < end && next_line(t); row++, t->line++) {
        int32_t label = 0;
        double weight = 1;
        if (data->count == data->cap) {
            enum lb_status status = lb_dataset_reserve_items(data, data->count / 2 + 256, detail);
            if (status != LB_OK) {
                return status;
            }
        }
        float *to = data->features + data->count * data->n_features;
        enum lb_status status = read_row(t, to, &label, &weight, detail);
        if (status == LB_OK && num_labels > 0 && label >= num_labels) {
            status = lb_fail(detail, LB_E_MISMATCH, "%s:%lld: label %d; the student has num_labels %lld",
                             t->path, (long long)t->line, label, (long long)num_labels);
        }
        if (status != LB_OK) {
            return status;
        }
        if (row >= entry->skip_samples && !lb_dataset_excludes(entry, label)) {
            lb_sha256_update(data->hash, to, (size_t)data->n_features * sizeof *to);
            data->labels[data->count++] = (struct lb_image_row){label, tag};
            if (lb_dataset_weigh(data, data->count - 1, weight) != LB_OK) {
                return lb_fail(detail, LB_E_NOMEM, "%s: out of memory for the weights", t->path);
            }
        }
    }
    if (row < end && (end != INT64_MAX || row <= entry->skip_samples)) {
        return lb_fail(detail, LB_E_ARG, "%s: skip_samples %lld and max_samples %lld go beyond its %lld rows",
                       t->path, (long long)entry->skip_samples, (long long)entry->max_samples,
                       (long long)row);
    }
    return LB_OK;
}

/* Features are told apart by their place: it must be the same column's in each table. */
static enum lb_status same_columns(const struct lb_dataset *data, const char *path,
                                   char (*columns)[LB_MAX_COLUMN], const char *others,
                                   struct lb_detail *detail) {
    for (int64_t i = 0; data->columns != NULL && i < data->n_features; i++) {
        if (strcmp(data->columns[i], columns[i]) != 0) {
            return lb_fail(detail, LB_E_MISMATCH,
                           "%s: feature %lld is column \"%.60s\", %s \"%.60s\"; name the columns alike, in "
                           "one order",
                           path, (long long)i + 1, columns[i], others, data->columns[i]);
        }
    }
    return LB_OK;
}

enum lb_status lb_dataset_same_columns(const struct lb_dataset *data, const struct lb_dataset *other,
                                       const char *name, struct lb_detail *detail) {
    return other->columns == NULL || data->n_features != other->n_features
               ? LB_OK
               : same_columns(data, name, other->columns, "in datasets it is", detail);
}

/* What the features are called, to be freed; NULL: out of memory. */
static char (*names_of_features(const struct table *t))[LB_MAX_COLUMN] {
    char(*names)[LB_MAX_COLUMN] = lb_malloc_array((size_t)t->n_columns, sizeof *names);
    for (int64_t i = 0, n = 0; names != NULL && i < t->n_columns; i++) {
        if (is_feature(t, i)) {
            memcpy(names[n++], t->names[i], sizeof *names);
        }
    }
    return names;
}

/* The table's columns are the data's. */
static enum lb_status take_columns(struct lb_dataset *data, const struct table *t, struct lb_detail *detail) {
    int64_t n = t->n_columns - 1 - (t->weight >= 0);
    if (data->n_features != 0 && data->n_features != n) {
        return lb_fail(detail, LB_E_MISMATCH, "%s: %lld features, the data before have %lld", t->path,
                       (long long)n, (long long)data->n_features);
    }
    char(*names)[LB_MAX_COLUMN] = names_of_features(t);
    if (names == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory", t->path);
    }
    data->n_features = n;
    enum lb_status status = same_columns(data, t->path, names, "in the data before it is", detail);
    if (status == LB_OK && data->columns == NULL) {
        data->columns = names;
        names = NULL;
    }
    lb_free(names);
    return status;
}

enum lb_status lb_dataset_add_csv(struct lb_dataset *data, const struct lb_recipe_dataset *entry,
                                  const char *path, int64_t num_labels, struct lb_detail *detail) {
    struct lb_map map = {0};
    int tag = lb_dataset_take_tag(data, entry->tag);
    enum lb_status status =
        tag == -2 ? lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path) : lb_map_open(&map, path, detail);
    if (status != LB_OK) {
        return status;
    }
    const char *text = map.len > 0 ? (const char *)map.data : "";
    struct table t = {.path = path, .at = text, .end = text + map.len, .line = 1};
    if (map.len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        t.at += 3;
    }
    status = read_header(&t, detail);
    status = status == LB_OK ? find_columns(&t, entry->label_field != NULL ? entry->label_field : "label",
                                            entry->weight_field, detail)
                             : status;
    status = status == LB_OK ? take_columns(data, &t, detail) : status;
    t.line++;
    status = status == LB_OK ? read_rows(data, &t, entry, num_labels, tag, detail) : status;
    lb_free(t.names);
    lb_map_close(&map);
    return status;
}
