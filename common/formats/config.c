#include "common/formats/config_keys.h"

#include <inttypes.h>
#include <math.h>
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
    case LB_KEY_SAME:
    case LB_KEY_HAS:
    case LB_KEY_LACKS:
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

/* ---- parsing ---- */

static enum lb_status only_text(const struct lb_config_reading *r, const json_t *object, const char *key,
                                const char *wanted) {
    const char *text = wanted;
    enum lb_status status = lb_json_str(object, key, false, r->what, &text, r->detail);
    if (status == LB_OK && strcmp(text, wanted) != 0) {
        status = lb_fail(r->detail, LB_E_UNSUPPORTED, "%s: %s \"%.64s\" is not supported, only \"%s\"",
                         r->what, key, text, wanted);
    }
    return status;
}

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

/* An id, null, or a list, of which all count for eos and the first one for others; -1 is how some write null.
 * What a missing key means holds for vocabularies that have that id. */
static enum lb_status read_token(const struct lb_config_reading *r, const struct lb_config_key *key) {
    const json_t *value = json_object_get(r->object, key->name);
    int64_t *out = lb_key_int(r->c, key);
    if (value == NULL) {
        *out = *out < r->c->vocab_size ? *out : -1;
        return LB_OK;
    }
    if (json_is_array(value) && key->field == offsetof(struct lb_config, eos_token_id)) {
        struct lb_ends ends;
        enum lb_status status =
            lb_config_read_ends(value, r->c->vocab_size, r->what, key->name, &ends, r->detail);
        if (status == LB_OK) {
            lb_config_set_ends(r->c, &ends);
        }
        return status;
    }
    if (json_is_array(value)) {
        value = json_array_get(value, 0);
    }
    if (value == NULL || json_is_null(value)) {
        *out = -1;
        return LB_OK;
    }
    if (!json_is_integer(value)) {
        return lb_fail(r->detail, LB_E_FORMAT, "%s: %s must be a token id, a list of them or null", r->what,
                       key->name);
    }
    *out = json_integer_value(value);
    return LB_OK;
}

static enum lb_status read_widths(const struct lb_config_reading *r, const struct lb_config_key *key) {
    const json_t *sizes = json_object_get(r->object, key->name);
    if (!json_is_array(sizes) || json_array_size(sizes) > LB_MLP_MAX_HIDDEN) {
        return lb_fail(r->detail, LB_E_FORMAT, "%s: %s must be an array of at most %d widths", r->what,
                       key->name, LB_MLP_MAX_HIDDEN);
    }
    r->c->n_hidden = (int64_t)json_array_size(sizes);
    for (int64_t i = 0; i < r->c->n_hidden; i++) {
        const json_t *size = json_array_get(sizes, (size_t)i);
        if (!json_is_integer(size)) {
            return lb_fail(r->detail, LB_E_FORMAT, "%s: %s[%" PRId64 "] is no whole number", r->what,
                           key->name, i);
        }
        r->c->hidden_sizes[i] = json_integer_value(size);
    }
    return LB_OK;
}

/* Weights that are packed in ways of their own cannot be read as tensors. */
static enum lb_status refuse_packed(const struct lb_config_reading *r, const struct lb_config_key *key) {
    if (!lb_key_given(r->object, key->name)) {
        return LB_OK;
    }
    const char *method =
        json_string_value(json_object_get(json_object_get(r->object, key->name), "quant_method"));
    return lb_fail(r->detail, LB_E_UNSUPPORTED,
                   "%s: %s (%.32s) is not supported; get the model in F32, F16 or BF16", r->what, key->name,
                   method != NULL ? method : "unnamed");
}

/* Where null stands for 0 a written 0 is no such thing: transformers takes a window of 0 for one. */
static enum lb_status read_int(const struct lb_config_reading *r, const struct lb_config_key *key) {
    bool null_is_0 = (key->flags & LB_KEY_NULL_IS_0) != 0;
    if (null_is_0 && json_is_null(json_object_get(r->object, key->name))) {
        *lb_key_int(r->c, key) = 0;
    }
    return lb_json_int(r->object, key->name, (key->flags & LB_KEY_NEEDED) != 0,
                       null_is_0 && key->min < 1 ? 1 : (int64_t)key->min, (int64_t)key->max, r->what,
                       lb_key_int(r->c, key), r->detail);
}

static enum lb_status read_key(const struct lb_config_reading *r, const struct lb_config_key *key) {
    const bool needed = (key->flags & LB_KEY_NEEDED) != 0;
    const char *text = NULL;
    switch (key->kind) {
    case LB_KEY_INT:
        return read_int(r, key);
    case LB_KEY_REAL:
        if ((key->flags & LB_KEY_NULL_IS_0) != 0 && json_is_null(json_object_get(r->object, key->name))) {
            *lb_key_real(r->c, key) = 0;
        }
        return lb_json_number(r->object, key->name, needed, key->min, key->max, r->what,
                              lb_key_real(r->c, key), r->detail);
    case LB_KEY_BOOL:
        return lb_json_bool(r->object, key->name, needed, r->what, lb_key_bool(r->c, key), r->detail);
    case LB_KEY_TOKEN:
        return read_token(r, key);
    case LB_KEY_WIDTHS:
        return read_widths(r, key);
    case LB_KEY_ONLY_TEXT:
        return only_text(r, r->object, key->name, key->only);
    case LB_KEY_ONLY_NUMBER:
        return lb_key_only_number(r, r->object, key->name, key->min, key->max);
    case LB_KEY_DTYPE:
        return lb_json_str(r->object, key->name, false, r->what, &text, r->detail);
    case LB_KEY_ROPE:
        return lb_rope_read(r, key);
    case LB_KEY_LAYER_TYPES:
        return lb_layer_types_read(r, key);
    case LB_KEY_ROPE_LAYERS:
        return lb_rope_layers_read(r, key);
    case LB_KEY_PACKED:
        return refuse_packed(r, key);
    case LB_KEY_ANY:
    case LB_KEY_CLASS:
    case LB_KEY_MODEL_TYPE: /* the form was chosen by it */
    case LB_KEY_SAME:
    case LB_KEY_HAS:
    case LB_KEY_LACKS:
        break;
    }
    return LB_OK;
}

/* The keys that the form does not have. */
static enum lb_status judge_others(const struct lb_config_reading *r, const struct lb_config_form *form,
                                   struct lb_notes *notes) {
    json_t *object = (json_t *)(uintptr_t)r->object; /* jansson's iterators take no const */
    enum lb_status status = LB_OK;
    for (void *at = json_object_iter(object); at != NULL && status == LB_OK;
         at = json_object_iter_next(object, at)) {
        const char *name = json_object_iter_key(at);
        const json_t *value = json_object_iter_value(at);
        const struct lb_config_key *known = lb_config_known(name);
        if (lb_config_find_key(form, name) != NULL) {
            continue;
        }
        if (known != NULL) {
            status = read_key(r, known);
        } else if (!lb_config_speaks_of_numbers(name)) {
            lb_note(notes, "%s: key %.64s is not known and is ignored", r->what, name);
        } else if (!json_is_null(value) && !json_is_false(value)) {
            status =
                lb_fail(r->detail, LB_E_UNSUPPORTED,
                        "%s: key %.64s is not known to model_type %s and speaks of what would change the "
                        "numbers",
                        r->what, name, form->model_type);
        }
    }
    return status;
}

enum lb_status lb_config_read(const struct lb_config_form *form, const json_t *object, const char *what,
                              struct lb_config *out, struct lb_notes *notes, struct lb_detail *detail) {
    struct lb_config c = form->missing;
    struct lb_config_reading r = {object, what, form, &c, detail};
    const struct lb_config_key *key;
    enum lb_status status = LB_OK;
    snprintf(c.model_type, sizeof c.model_type, "%s", form->model_type);
    for (size_t i = 0; status == LB_OK && (key = lb_key_at(form->keys, i)) != NULL; i++) {
        status = read_key(&r, key);
    }
    status = status == LB_OK ? judge_others(&r, form, notes) : status;
    if (status != LB_OK) {
        return status;
    }
    form->settle(&c);
    status = lb_config_check_form(form, &c, what, detail);
    if (status == LB_OK) {
        *out = c;
    }
    return status;
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
