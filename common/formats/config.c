/* The keys of a form, what their values must be, and values that several readers read. */
#include "common/formats/config_keys.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool in_table(const struct lb_config_key *table, const char *name) {
    for (const struct lb_config_key *key = table; key != NULL && key->name != NULL; key++) {
        if (strcmp(key->name, name) == 0) {
            return true;
        }
    }
    return false;
}

const struct lb_config_key *lb_key_at(const struct lb_config_key *const tables[3], size_t i) {
    for (int t = 0; t < 3; t++) {
        for (const struct lb_config_key *key = tables[t]; key != NULL && key->name != NULL; key++) {
            bool hidden =
                (t > 0 && in_table(tables[0], key->name)) || (t > 1 && in_table(tables[1], key->name));
            if (!hidden && i-- == 0) {
                return key;
            }
        }
    }
    return NULL;
}

const struct lb_config_key *lb_config_find_key(const struct lb_config_form *form, const char *name) {
    const struct lb_config_key *key;
    for (size_t i = 0; (key = lb_key_at(form->keys, i)) != NULL; i++) {
        if (strcmp(key->name, name) == 0) {
            return key;
        }
    }
    return NULL;
}

const char *lb_config_own_key(const struct lb_config_form *form, size_t i) {
    const struct lb_config_key *key;
    for (size_t k = 0; (key = lb_key_at(form->keys, k)) != NULL; k++) {
        bool own = key->kind <= LB_KEY_WIDTHS || key->kind == LB_KEY_MODEL_TYPE;
        if (own && (key->flags & (LB_KEY_FILE_ONLY | LB_KEY_PASSING)) == 0 && i-- == 0) {
            return key->name;
        }
    }
    return NULL;
}

/* ---- checking ---- */

static enum lb_status check_int(const char *what, const char *key, int64_t value, int64_t min, int64_t max,
                                struct lb_detail *detail) {
    if (value < min || value > max) {
        return lb_fail(detail, LB_E_ARG, "%s: %s is %" PRId64 "; it must be from %" PRId64 " to %" PRId64,
                       what, key, value, min, max);
    }
    return LB_OK;
}

/* Also false for NaN. */
static enum lb_status check_real(const char *what, const struct lb_config_key *key, double value,
                                 struct lb_detail *detail) {
    if (!(value >= key->min && value <= key->max)) {
        return lb_fail(detail, LB_E_ARG, "%s: %s is %g; it must be from %g to %g", what, key->name, value,
                       key->min, key->max);
    }
    return LB_OK;
}

static enum lb_status check_token(const char *what, const char *key, int64_t id, int64_t vocab_size,
                                  struct lb_detail *detail) {
    if (id < -1 || id >= vocab_size) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: %s is %" PRId64 ", which is no id of a vocabulary of %" PRId64
                       "; use null for none",
                       what, key, id, vocab_size);
    }
    return LB_OK;
}

static enum lb_status check_widths(const char *what, const struct lb_config_key *key,
                                   const struct lb_config *c, struct lb_detail *detail) {
    if (c->n_hidden < 0 || c->n_hidden > LB_MLP_MAX_HIDDEN) {
        return lb_fail(detail, LB_E_ARG, "%s: %" PRId64 " %s; at most %d are supported", what, c->n_hidden,
                       key->name, LB_MLP_MAX_HIDDEN);
    }
    enum lb_status status = LB_OK;
    for (int64_t i = 0; i < c->n_hidden && status == LB_OK; i++) {
        status = check_int(what, "a hidden size", c->hidden_sizes[i], 1, (int64_t)key->max, detail);
    }
    return status;
}

static enum lb_status check_key(const struct lb_config_key *key, const struct lb_config *c, const char *what,
                                struct lb_detail *detail) {
    const void *field = lb_key_field(c, key);
    switch (key->kind) {
    case LB_KEY_INT:
        if ((key->flags & LB_KEY_PASSING) != 0) {
            return LB_OK;
        }
        return check_int(what, key->name, *(const int64_t *)field, (int64_t)key->min, (int64_t)key->max,
                         detail);
    case LB_KEY_LABELS:
        return check_int(what, key->name, *(const int64_t *)field, (int64_t)key->min, (int64_t)key->max,
                         detail);
    case LB_KEY_REAL:
        if ((key->flags & LB_KEY_NULL_IS_0) != 0 && *(const double *)field == 0) {
            return LB_OK;
        }
        return check_real(what, key, *(const double *)field, detail);
    case LB_KEY_TOKEN:
        return check_token(what, key->name, *(const int64_t *)field, c->vocab_size, detail);
    case LB_KEY_WIDTHS:
        return check_widths(what, key, c, detail);
    case LB_KEY_BOOL:
    case LB_KEY_ONLY_TEXT:
    case LB_KEY_ONLY_NUMBER:
    case LB_KEY_ANY:
    case LB_KEY_MODEL_TYPE:
    case LB_KEY_CLASS:
    case LB_KEY_DTYPE:
    case LB_KEY_ROPE:
    case LB_KEY_LAYER_TYPES:
    case LB_KEY_ROPE_LAYERS:
    case LB_KEY_PACKED:
    case LB_KEY_EMPTY:
    case LB_KEY_SAME:
    case LB_KEY_HAS:
    case LB_KEY_LACKS:
    case LB_KEY_ROWS:
        break;
    }
    return LB_OK;
}

/* What no key of the form gives is not a model's to choose. */
static enum lb_status check_fixed(const struct lb_config_form *form, const struct lb_config *c,
                                  const char *what, struct lb_detail *detail) {
    static const struct lb_config_key fixed[] = {
        {"attention_bias", LB_KEY_BOOL, 0, offsetof(struct lb_config, attention_bias)},
        {"qkv_bias", LB_KEY_BOOL, 0, offsetof(struct lb_config, qkv_bias)},
        {"mlp_bias", LB_KEY_BOOL, 0, offsetof(struct lb_config, mlp_bias)},
    };
    for (size_t f = 0; f < sizeof fixed / sizeof *fixed; f++) {
        const struct lb_config_key *key;
        bool has = *(const bool *)lb_key_field(c, &fixed[f]);
        bool free_to_choose = has == *(const bool *)lb_key_field(&form->missing, &fixed[f]);
        for (size_t i = 0; !free_to_choose && (key = lb_key_at(form->keys, i)) != NULL; i++) {
            free_to_choose = key->kind == LB_KEY_BOOL && key->field == fixed[f].field;
        }
        if (!free_to_choose) {
            return lb_fail(detail, LB_E_ARG, "%s: %s must be %s for model_type %s", what, fixed[f].name,
                           has ? "false" : "true", form->model_type);
        }
    }
    return LB_OK;
}

enum lb_status lb_config_check_form(const struct lb_config_form *form, const struct lb_config *config,
                                    const char *what, struct lb_detail *detail) {
    const struct lb_config_key *key;
    for (size_t i = 0; (key = lb_key_at(form->keys, i)) != NULL; i++) {
        enum lb_status status = check_key(key, config, what, detail);
        if (status != LB_OK) {
            return status;
        }
    }
    enum lb_status status = check_fixed(form, config, what, detail);
    return status == LB_OK ? form->check(config, what, detail) : status;
}

/* ---- reading a number ---- */

enum lb_status lb_key_only_number(const struct lb_config_reading *r, const json_t *object, const char *key,
                                  double a, double b) {
    const json_t *value = json_object_get(object, key);
    if (!lb_key_given(object, key)) {
        return LB_OK;
    }
    if (json_is_boolean(value)) {
        double v = json_is_true(value) ? 1 : 0;
        return v == a || v == b ? LB_OK
                                : lb_fail(r->detail, LB_E_UNSUPPORTED, "%s: %s %s is not supported", r->what,
                                          key, v == 1 ? "true" : "false");
    }
    double v = a;
    enum lb_status status = lb_json_number(object, key, false, -INFINITY, INFINITY, r->what, &v, r->detail);
    if (status == LB_OK && v != a && v != b) {
        status =
            lb_fail(r->detail, LB_E_UNSUPPORTED, "%s: %s %g is not supported, only %g", r->what, key, v, b);
    }
    return status;
}

/* The double that a person wrote where the file has a float: of the doubles that round to it the shortest, so
 * that 1e-5 read from a GGUF is the 1e-5 of config.json. */
static double as_written(double v) {
    float f = (float)v;
    char text[40];
    if ((double)f != v) {
        return v; /* stored as F64, or not finite */
    }
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtof(text, NULL) == f) {
            break;
        }
    }
    return strtod(text, NULL);
}

enum lb_status lb_gguf_real(const struct lb_gguf_reading *s, const char *key, bool required, double *out) {
    double v = 0;
    if (!lb_gguf_has(s->file, key) && !required) {
        return LB_OK;
    }
    if (!lb_gguf_has(s->file, key)) {
        return lb_fail(s->detail, LB_E_FORMAT, "%s: key %s is missing", s->what, key);
    }
    if (lb_gguf_array_count(s->file, key) >= 0) {
        return lb_fail(s->detail, LB_E_UNSUPPORTED,
                       "%s: key %s is an array: sizes that differ by layer are not supported", s->what, key);
    }
    if (!lb_gguf_number(s->file, key, &v) || !(v >= -1e300 && v <= 1e300)) {
        return lb_fail(s->detail, LB_E_FORMAT, "%s: key %s is no number", s->what, key);
    }
    *out = as_written(v);
    return LB_OK;
}

/* More than fits is refused here, sense is checked later. */
enum lb_status lb_gguf_whole(const struct lb_gguf_reading *s, const char *key, bool required, int64_t *out) {
    double v = (double)*out;
    if (!lb_gguf_has(s->file, key) && !required) {
        return LB_OK;
    }
    enum lb_status status = lb_gguf_real(s, key, required, &v);
    if (status != LB_OK) {
        return status;
    }
    (void)lb_gguf_number(s->file, key, &v); /* exactly as stored */
    if (!(v >= 0 && v <= INT32_MAX) || v != (double)(int64_t)v) {
        return lb_fail(s->detail, LB_E_FORMAT, "%s: key %s is %g, not a whole number from 0 to %d", s->what,
                       key, v, INT32_MAX);
    }
    *out = (int64_t)v;
    return LB_OK;
}
