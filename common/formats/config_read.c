/* Reads config.json by the tables of a form. */
#include "common/formats/config_keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

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

/* The class that a file says its weights are of; NULL: none. */
static const char *class_of(const struct lb_config_reading *r) {
    return json_string_value(json_array_get(json_object_get(r->object, "architectures"), 0));
}

/* How many classes a file's head tells apart, as transformers counts them; a new model says it. */
static enum lb_status read_labels(const struct lb_config_reading *r, const struct lb_config_key *key) {
    static const char kind[] = "ForSequenceClassification";
    const char *class = class_of(r), *wanted = r->form->sequence_class;
    size_t len = class != NULL ? strlen(class) : 0;
    if (class == NULL ? wanted == NULL
                      : len < sizeof kind || strcmp(class + len - (sizeof kind - 1), kind) != 0) {
        return LB_OK; /* labels of no head that there is */
    }
    if (class != NULL && (wanted == NULL || strcmp(class, wanted) != 0)) {
        return lb_fail(r->detail, LB_E_UNSUPPORTED,
                       "%s: architectures \"%.64s\" is not supported, only %s%s%s", r->what, class,
                       r->form->class_name, wanted != NULL ? " and " : "", wanted != NULL ? wanted : "");
    }
    int64_t *out = lb_key_int(r->c, key);
    const json_t *names = json_object_get(r->object, "id2label");
    if (class != NULL) {
        *out = 2; /* what transformers takes where nothing is said */
    }
    if (class != NULL && lb_key_given(r->object, "id2label") && json_object_size(names) == 0) {
        return lb_fail(r->detail, LB_E_FORMAT,
                       "%s: id2label must name each class, as {\"0\": \"no\", \"1\": \"yes\"} does", r->what);
    }
    if (json_is_object(names)) {
        *out = (int64_t)json_object_size(names);
        return LB_OK;
    }
    return lb_json_int(r->object, key->name, false, class != NULL ? 1 : (int64_t)key->min, (int64_t)key->max,
                       r->what, out, r->detail);
}

/* Weights that are packed in ways of their own cannot be read as tensors. */
static enum lb_status refuse_packed(const struct lb_config_reading *r, const struct lb_config_key *key) {
    if (!lb_key_given(r->object, key->name)) {
        return LB_OK;
    }
    const char *method =
        json_string_value(json_object_get(json_object_get(r->object, key->name), "quant_method"));
    bool fp8 = method != NULL && strcmp(method, "fp8") == 0;
    return lb_fail(r->detail, LB_E_UNSUPPORTED,
                   "%s: %s (%.32s) is not supported; get the model in F32, F16 or BF16%s", r->what, key->name,
                   method != NULL ? method : "unnamed",
                   fp8 ? ", or widen it with transformers: AutoModelForCausalLM.from_pretrained(FOLDER, "
                         "quantization_config=FineGrainedFP8Config(dequantize=True)).save_pretrained(OTHER)"
                       : "");
}

static enum lb_status only_empty(const struct lb_config_reading *r, const struct lb_config_key *key) {
    const json_t *value = json_object_get(r->object, key->name);
    if (!lb_key_given(r->object, key->name) || (json_is_array(value) && json_array_size(value) == 0)) {
        return LB_OK;
    }
    return lb_fail(r->detail, LB_E_UNSUPPORTED, "%s: %s is not supported; only null or [] is", r->what,
                   key->name);
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
    case LB_KEY_LABELS:
        return read_labels(r, key);
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
    case LB_KEY_EMPTY:
        return only_empty(r, key);
    case LB_KEY_ANY:
    case LB_KEY_CLASS:
    case LB_KEY_MODEL_TYPE: /* the form was chosen by it */
    case LB_KEY_SAME:
    case LB_KEY_HAS:
    case LB_KEY_LACKS:
    case LB_KEY_ROWS:
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

enum lb_status lb_config_read_key(const struct lb_config_form *form, const json_t *object, const char *what,
                                  size_t i, struct lb_detail *detail) {
    struct lb_config c = form->missing;
    struct lb_config_reading r = {object, what, form, &c, NULL};
    const struct lb_config_key *key = NULL;
    for (size_t before = 0; before < i && (key = lb_key_at(form->keys, before)) != NULL; before++) {
        (void)read_key(&r, key); /* what the i-th is measured by */
    }
    r.detail = detail;
    key = lb_key_at(form->keys, i);
    return key != NULL ? read_key(&r, key) : LB_E_NOTFOUND;
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
