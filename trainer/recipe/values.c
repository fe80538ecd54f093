/* One value of a tree each, and what is said about one that is wrong. */
#include "trainer/recipe/values.h"

#include "trainer/recipe/names.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum lb_status lb_read_fail(const struct lb_recipe_reader *r, int line, const char *path, const char *format,
                            ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    lb_mistakes_meant(r->mistakes, path);
    return lb_mistakes_add_at(r->mistakes, LB_E_ARG, line, path, text);
}

enum lb_status lb_read_not_a(const struct lb_recipe_reader *r, const struct lb_yaml *node, const char *path,
                             const char *kind) {
    if (node->kind == LB_YAML_SCALAR) {
        return lb_read_fail(r, node->line, path, "\"%.80s\" is not %s", node->text, kind);
    }
    return lb_read_fail(r, node->line, path, "must be %s, not a %s", kind,
                        node->kind == LB_YAML_LIST ? "list" : "mapping of keys");
}

const char *lb_read_path(const struct lb_recipe_reader *r, const char *prefix, const char *key) {
    return prefix[0] == '\0' ? key : lb_arena_printf(r->arena, "%s.%s", prefix, key);
}

enum lb_status lb_read_unknown(const struct lb_recipe_reader *r, const struct lb_yaml *node,
                               const char *prefix, const char *const *names, size_t n) {
    const char *path = lb_read_path(r, prefix, node->key), *nearest = lb_nearest_name(node->key, names, n);
    nearest = nearest != NULL ? nearest : lb_other_name(node->key);
    const char *meant = nearest != NULL ? lb_read_path(r, prefix, nearest) : path;
    char text[256];
    if (path == NULL || meant == NULL) {
        return LB_E_NOMEM;
    }
    if (nearest == NULL) {
        return lb_mistakes_add_at(r->mistakes, LB_E_ARG, node->line, path,
                                  "unknown key; limbeck train --help-recipe lists the recipe's keys");
    }
    lb_mistakes_meant(r->mistakes, meant);
    snprintf(text, sizeof text, "unknown key; did you mean %s?", nearest);
    return lb_mistakes_add_at(r->mistakes, LB_E_ARG, node->line, path, text);
}

static enum lb_status out_of_range(const struct lb_recipe_reader *r, const struct lb_yaml *node,
                                   const char *path, double min, double max) {
    if (max >= 1e15) {
        return lb_read_fail(r, node->line, path, "%.80s is out of range; at least %.10g", node->text, min);
    }
    return lb_read_fail(r, node->line, path, "%.80s is out of range; allowed is %.10g to %.10g", node->text,
                        min, max);
}

enum lb_status lb_read_empty(const struct lb_recipe_reader *r, const struct lb_yaml *node, const char *path) {
    if (node->kind == LB_YAML_SCALAR && node->text[0] == '\0') {
        return lb_read_fail(r, node->line, path, "is empty; give a value or drop the key");
    }
    return LB_OK;
}

enum lb_status lb_read_int(const struct lb_recipe_reader *r, const struct lb_yaml *node, const char *path,
                           double min, double max, int64_t *out) {
    const char *digits = node->kind == LB_YAML_SCALAR ? node->text + strspn(node->text, "+-") : "";
    if (digits[0] == '\0' || digits > node->text + 1 || strspn(digits, "0123456789") != strlen(digits)) {
        return lb_read_not_a(r, node, path, "a whole number");
    }
    errno = 0;
    long long v = strtoll(node->text, NULL, 10); /* "010" is ten */
    if (errno != 0 || (double)v < min || (double)v > max) {
        return out_of_range(r, node, path, min, max);
    }
    *out = v;
    return LB_OK;
}

bool lb_read_number(const char *text, double *out) {
    char *end = NULL;
    double v = strtod(text, &end);
    if (end == text || strspn(text, "0123456789+-.eE") != strlen(text) || *end != '\0') {
        return false;
    }
    *out = v;
    return true;
}

enum lb_status lb_read_float(const struct lb_recipe_reader *r, const struct lb_yaml *node, const char *path,
                             double min, double max, double *out) {
    double v;
    if (node->kind != LB_YAML_SCALAR || !lb_read_number(node->text, &v)) {
        return lb_read_not_a(r, node, path, "a number");
    }
    if (!isfinite(v) || v < min || v > max) {
        return out_of_range(r, node, path, min, max);
    }
    *out = v;
    return LB_OK;
}

enum lb_status lb_read_bool(const struct lb_recipe_reader *r, const struct lb_yaml *node, const char *path,
                            bool *out) {
    static const char *const words[2][3] = {{"false", "no", "off"}, {"true", "yes", "on"}};
    for (int value = 0; node->kind == LB_YAML_SCALAR && value < 2; value++) {
        for (int i = 0; i < 3; i++) {
            if (strcasecmp(node->text, words[value][i]) == 0) {
                *out = value != 0;
                return LB_OK;
            }
        }
    }
    return lb_read_not_a(r, node, path, "true or false");
}

enum lb_status lb_read_string(const struct lb_recipe_reader *r, const struct lb_yaml *node, const char *path,
                              const char **out) {
    if (node->kind != LB_YAML_SCALAR) {
        return lb_read_not_a(r, node, path, "a text");
    }
    enum lb_status status = lb_read_empty(r, node, path);
    if (status == LB_OK) {
        *out = node->text;
    }
    return status;
}
