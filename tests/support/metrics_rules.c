#include "tests/support/metrics_rules.h"

#include "common/base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LINES 20000
#define MAX_NAME 128
#define MAX_LABELS 16
#define MAX_LINE 2048

struct sample {
    char name[MAX_NAME];
    int n_labels;
    char label[MAX_LABELS][MAX_NAME];
    const char *series; /* of the line: name and labels */
    size_t series_len;
    char le[64]; /* of a bucket */
    double value;
};

struct family {
    char name[MAX_NAME], type[16];
    bool typed;
    int n_samples;
    /* Of a histogram: the group of samples that is being read. */
    double bound, below;
    bool infinite, summed;
};

struct check {
    char *why;
    int line;
    struct family family;
    const char *lines[MAX_LINES]; /* of samples, to find what is there twice */
    size_t lens[MAX_LINES], n_lines;
    char families[512][MAX_NAME];
    int n_families;
};

static bool bad(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool bad(struct check *c, const char *format, ...) {
    char text[200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(c->why, 256, "line %d: %s", c->line, text);
    return false;
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Whether the name has the word, between its underscores. */
static bool has_word(const char *name, const char *word) {
    size_t n = strlen(word);
    for (const char *p = name; (p = strstr(p, word)) != NULL; p += n) {
        if ((p == name || p[-1] == '_') && (p[n] == '_' || p[n] == '\0')) {
            return true;
        }
    }
    return false;
}

/* Lower case with underscores, as all names should be; copies it. */
static bool take_name(const char **at, char out[MAX_NAME]) {
    size_t n = strspn(*at, "abcdefghijklmnopqrstuvwxyz0123456789_");
    if (n == 0 || n >= MAX_NAME || (**at >= '0' && **at <= '9')) {
        return false;
    }
    memcpy(out, *at, n);
    out[n] = '\0';
    *at += n;
    return true;
}

/* ---- names ---- */

static bool check_family(struct check *c) {
    static const char *const units[] = {"ms",      "us",    "ns",        "milliseconds", "microseconds",
                                        "minutes", "hours", "kib",       "mib",          "gib",
                                        "kb",      "mb",    "megabytes", "bits",         "percent",
                                        "counter", "gauge", "histogram", "summary",      "sec"};
    const struct family *f = &c->family;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (has_word(f->name, units[i])) {
            return bad(c, "%s: no unit of Prometheus, or a type: %s", f->name, units[i]);
        }
    }
    bool counter = strcmp(f->type, "counter") == 0;
    if (counter != ends_with(f->name, "_total")) {
        return bad(c, "%s: counters, and only they, end in _total", f->name);
    }
    if (ends_with(f->name, "_count") || ends_with(f->name, "_sum") || ends_with(f->name, "_bucket")) {
        return bad(c, "%s: an ending that is a histogram's", f->name);
    }
    if (ends_with(f->name, "_info") && strcmp(f->type, "gauge") != 0) {
        return bad(c, "%s: what only informs is a gauge", f->name);
    }
    if (!counter && strcmp(f->type, "gauge") != 0 && strcmp(f->type, "histogram") != 0) {
        return bad(c, "%s: type %s", f->name, f->type);
    }
    return true;
}

static bool end_group(struct check *c) {
    struct family *f = &c->family;
    if (f->bound != 0 || f->infinite || f->summed) {
        return bad(c, "%s: a histogram that doesn't end with its count", f->name);
    }
    return true;
}

static bool comment(struct check *c, const char *line) {
    struct family *f = &c->family;
    char name[MAX_NAME];
    bool help = strncmp(line, "# HELP ", 7) == 0, type = strncmp(line, "# TYPE ", 7) == 0;
    const char *at = line + 7;
    if (!(help || type) || !take_name(&at, name) || *at++ != ' ' || *at == '\0') {
        return bad(c, "neither HELP nor TYPE of a name: %.60s", line);
    }
    if (type) {
        if (f->typed || strcmp(f->name, name) != 0) {
            return bad(c, "%s: TYPE without HELP before it", name);
        }
        snprintf(f->type, sizeof f->type, "%s", at);
        f->typed = true;
        return check_family(c);
    }
    if (!end_group(c)) {
        return false;
    }
    for (int i = 0; i < c->n_families; i++) {
        if (strcmp(c->families[i], name) == 0) {
            return bad(c, "%s: a family in two places", name);
        }
    }
    snprintf(c->families[c->n_families++], MAX_NAME, "%s", name);
    *f = (struct family){0};
    snprintf(f->name, sizeof f->name, "%s", name);
    return c->n_families < 512 || bad(c, "too many families");
}

/* ---- samples ---- */

/* A quoted value; le is kept. */
static bool take_value(struct check *c, const char **at, struct sample *s, const char *label) {
    char value[MAX_LINE];
    size_t n = 0;
    if (*(*at)++ != '"') {
        return bad(c, "label %s: no quote", label);
    }
    for (; **at != '"'; (*at)++) {
        if (**at == '\0') {
            return bad(c, "label %s: no end", label);
        }
        if (**at == '\\') {
            (*at)++;
            if (!strchr("\\\"n", **at) || **at == '\0') {
                return bad(c, "label %s: an escape that there isn't", label);
            }
        }
        value[n++] = **at;
    }
    (*at)++;
    value[n] = '\0';
    if (strcmp(label, "le") == 0) {
        snprintf(s->le, sizeof s->le, "%.60s", value);
    }
    return true;
}

static bool take_labels(struct check *c, const char **at, struct sample *s) {
    while (**at != '}') {
        char *label = s->label[s->n_labels];
        if (s->n_labels == MAX_LABELS - 1 || !take_name(at, label) || *(*at)++ != '=') {
            return bad(c, "%s: a label's name", s->name);
        }
        if (strncmp(label, "__", 2) == 0) {
            return bad(c, "%s: label %s is Prometheus' own", s->name, label);
        }
        for (int i = 0; i < s->n_labels; i++) {
            if (strcmp(s->label[i], label) == 0) {
                return bad(c, "%s: label %s twice", s->name, label);
            }
        }
        s->n_labels++;
        if (!take_value(c, at, s, label)) {
            return false;
        }
        if (**at == ',') {
            (*at)++;
        } else if (**at != '}') {
            return bad(c, "%s: behind label %s", s->name, label);
        }
    }
    (*at)++;
    return true;
}

static bool take_sample(struct check *c, const char *line, struct sample *s) {
    const char *at = line;
    char *end = NULL;
    *s = (struct sample){.series = line};
    if (!take_name(&at, s->name)) {
        return bad(c, "no name: %.60s", line);
    }
    if (*at == '{') {
        at++;
        if (!take_labels(c, &at, s)) {
            return false;
        }
    }
    s->series_len = (size_t)(at - line);
    if (*at++ != ' ') {
        return bad(c, "%s: no space before the value", s->name);
    }
    s->value = strtod(at, &end);
    return (end != at && *end == '\0') || bad(c, "%s: value %.40s", s->name, at);
}

/* Buckets upwards, the infinite one, the sum, the count: of one group of labels, then the next. */
static bool histogram(struct check *c, const struct sample *s) {
    struct family *f = &c->family;
    const char *part = s->name + strlen(f->name);
    if (strcmp(part, "_bucket") == 0) {
        bool infinite = strcmp(s->le, "+Inf") == 0;
        double bound = infinite ? 0 : atof(s->le);
        if (!s->le[0] || f->infinite || (!infinite && bound <= f->bound) || s->value < f->below) {
            return bad(c, "%s: bucket le=\"%s\"", f->name, s->le);
        }
        f->bound = infinite ? f->bound : bound;
        f->infinite = infinite;
        f->below = s->value;
        return true;
    }
    if (s->le[0]) {
        return bad(c, "%s: le outside of a bucket", s->name);
    }
    if (strcmp(part, "_sum") == 0 && f->infinite && !f->summed) {
        f->summed = true;
        return true;
    }
    if (strcmp(part, "_count") != 0 || !f->summed || s->value != f->below) {
        return bad(c, "%s: not where or what it should be", s->name);
    }
    f->bound = f->below = 0;
    f->infinite = f->summed = false;
    return true;
}

static bool sample(struct check *c, const char *line) {
    struct sample s;
    struct family *f = &c->family;
    if (!take_sample(c, line, &s)) {
        return false;
    }
    bool of_histogram = strcmp(f->type, "histogram") == 0;
    if (!f->typed || strncmp(s.name, f->name, strlen(f->name)) != 0 ||
        (!of_histogram && strcmp(s.name, f->name) != 0)) {
        return bad(c, "%s: not behind its TYPE", s.name);
    }
    for (size_t i = 0; i < c->n_lines; i++) {
        if (c->lens[i] == s.series_len && memcmp(c->lines[i], s.series, s.series_len) == 0) {
            return bad(c, "%s: a series twice", s.name);
        }
    }
    if (c->n_lines == MAX_LINES) {
        return bad(c, "too many samples");
    }
    c->lines[c->n_lines] = s.series;
    c->lens[c->n_lines++] = s.series_len;
    if (of_histogram) {
        return histogram(c, &s);
    }
    if (s.le[0] || (strcmp(f->type, "counter") == 0 && !(s.value >= 0))) {
        return bad(c, "%s: a bound, or a counter below 0", s.name);
    }
    return !ends_with(f->name, "_info") || s.value == 1 || bad(c, "%s: not 1", s.name);
}

bool lb_metrics_follow_rules(const char *text, char why[256]) {
    struct check *c = calloc(1, sizeof *c);
    char *copy = strdup(text);
    bool good = c && copy;
    if (good) {
        c->why = why;
        size_t len = strlen(copy);
        good = len > 0 && copy[len - 1] == '\n' ? true : bad(c, "no end of line at the end");
        good = good && (lb_utf8_check(copy, len) == len || bad(c, "no UTF-8"));
    }
    for (char *line = copy, *end; good && *line && (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        c->line++;
        good = end - line < MAX_LINE ? (line[0] == '#' ? comment(c, line) : sample(c, line))
                                     : bad(c, "a line of %td bytes", end - line);
    }
    good = good && end_group(c);
    free(copy);
    free(c);
    return good;
}
