#include "common/formats/config_keys.h"

#include <stdio.h>
#include <string.h>

static json_t *class_list(const char *name) {
    json_t *list = json_array();
    if (list == NULL || json_array_append_new(list, json_string(name)) != 0) {
        json_decref(list);
        return NULL;
    }
    return list;
}

static json_t *widths(const struct lb_config *c) {
    json_t *list = json_array();
    for (int64_t i = 0; list != NULL && i < c->n_hidden; i++) {
        if (json_array_append_new(list, json_integer(c->hidden_sizes[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *ends(const struct lb_config *c) {
    const struct lb_ends all = lb_config_ends(c);
    json_t *list = json_array();
    for (int64_t i = 0; list != NULL && i < all.n; i++) {
        if (json_array_append_new(list, json_integer(all.ids[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* The value of a key that is written whatever it may be when it is read. */
static json_t *constant(const struct lb_config_form *form, const struct lb_config_key *key,
                        const struct lb_config *c) {
    if (key->kind == LB_KEY_ROPE) {
        return lb_rope_json(form, c);
    }
    return key->kind == LB_KEY_ONLY_TEXT ? json_string(key->only)
                                         : json_loads(key->only, JSON_DECODE_ANY, NULL);
}

/* A new reference, or NULL when out of memory; *out_written false: the key is not written. */
static json_t *value_of(const struct lb_config_form *form, const struct lb_config_key *key,
                        const struct lb_config *c, const char *dtype, bool *out_written) {
    const void *field = lb_key_field(c, key);
    *out_written = (key->flags & LB_KEY_PASSING) == 0;
    if (!*out_written) {
        return NULL;
    }
    switch (key->kind) {
    case LB_KEY_INT:
        if (key->field == offsetof(struct lb_config, max_position_embeddings) &&
            c->rope.type == LB_ROPE_DYNAMIC) {
            return json_integer(c->rope.original);
        }
        return (key->flags & LB_KEY_NULL_IS_0) != 0 && *(const int64_t *)field == 0
                   ? json_null()
                   : json_integer(*(const int64_t *)field);
    case LB_KEY_REAL:
        return (key->flags & LB_KEY_NULL_IS_0) != 0 && *(const double *)field == 0
                   ? json_null()
                   : json_real(*(const double *)field);
    case LB_KEY_BOOL:
        return json_boolean(*(const bool *)field);
    case LB_KEY_TOKEN:
        if (key->field == offsetof(struct lb_config, eos_token_id) && c->n_more_eos > 0) {
            return ends(c);
        }
        return *(const int64_t *)field >= 0 ? json_integer(*(const int64_t *)field) : json_null();
    case LB_KEY_WIDTHS:
        return widths(c);
    case LB_KEY_MODEL_TYPE:
        return json_string(form->model_type);
    case LB_KEY_CLASS:
        return class_list(c->num_labels > 0 && form->sequence_class != NULL ? form->sequence_class
                                                                            : form->class_name);
    case LB_KEY_DTYPE:
        return json_string(dtype);
    case LB_KEY_LAYER_TYPES:
        *out_written = (key->flags & LB_KEY_WRITTEN) != 0 || c->sliding_window > 0;
        return *out_written ? lb_layer_types_json(c) : NULL;
    case LB_KEY_ROPE_LAYERS:
        return lb_rope_layers_json(c);
    case LB_KEY_ONLY_TEXT:
    case LB_KEY_ONLY_NUMBER:
    case LB_KEY_ANY:
    case LB_KEY_ROPE:
    case LB_KEY_PACKED:
    case LB_KEY_EMPTY:
        *out_written = (key->flags & LB_KEY_WRITTEN) != 0;
        return *out_written ? constant(form, key, c) : NULL;
    case LB_KEY_LABELS: /* the classes' names tell it */
    case LB_KEY_SAME:
    case LB_KEY_HAS:
    case LB_KEY_LACKS:
    case LB_KEY_ROWS:
        break;
    }
    *out_written = false;
    return NULL;
}

/* The keys in the order of the alphabet, as transformers writes them. */
enum lb_status lb_config_write_form(const struct lb_config_form *form, const struct lb_config *config,
                                    const struct lb_labels *labels, const char *dtype_name,
                                    struct lb_buf *buf) {
    if (strcmp(dtype_name, "float32") != 0 && strcmp(dtype_name, "float16") != 0 &&
        strcmp(dtype_name, "bfloat16") != 0) {
        return LB_E_ARG;
    }
    enum lb_status status = lb_config_check_form(form, config, "config", NULL);
    if (status != LB_OK) {
        return status;
    }
    json_t *object = json_object();
    status = object != NULL ? LB_OK : LB_E_NOMEM;
    const struct lb_config_key *key;
    for (size_t i = 0; status == LB_OK && (key = lb_key_at(form->keys, i)) != NULL; i++) {
        bool written;
        json_t *value = value_of(form, key, config, dtype_name, &written);
        if (written && json_object_set_new(object, key->name, value) != 0) { /* also where value is NULL */
            status = LB_E_NOMEM;
        }
    }
    status = status == LB_OK && labels != NULL ? lb_labels_put(labels, object) : status;
    status = status == LB_OK ? lb_json_dump(object, JSON_INDENT(2) | JSON_SORT_KEYS, buf) : status;
    status = status == LB_OK ? lb_buf_append_str(buf, "\n") : status;
    json_decref(object);
    return status;
}

void lb_config_put_gguf(const struct lb_config_form *form, const struct lb_config *config,
                        struct lb_gguf_out *out) {
    const struct lb_config_key *key;
    char name[96]; /* architecture and the longest of our own keys */
    for (size_t i = 0; (key = lb_key_at(form->gguf_keys, i)) != NULL; i++) {
        const void *field = lb_key_field(config, key);
        if (key->name[0] != '.' || (key->flags & LB_KEY_FILE_ONLY) != 0) {
            continue; /* what is not the architecture's own is written by others */
        }
        snprintf(name, sizeof name, "%s%s", form->gguf, key->name);
        bool optional = (key->flags & LB_KEY_NULL_IS_0) != 0;
        if (key->kind == LB_KEY_ROPE) {
            lb_rope_put_gguf(form, config, out);
        } else if (key->kind == LB_KEY_BOOL) {
            lb_gguf_put_bool(out, name, *(const bool *)field);
        } else if (key->kind == LB_KEY_ONLY_NUMBER && (key->flags & LB_KEY_WRITTEN) != 0) {
            lb_gguf_put_bool(out, name, key->min != 0);
        } else if (key->kind == LB_KEY_INT || key->kind == LB_KEY_SAME) {
            int64_t v = *(const int64_t *)field;
            if (v != 0 || !optional) {
                lb_gguf_put_u32(out, name, (uint32_t)v);
            }
        } else if (key->kind == LB_KEY_REAL && (*(const double *)field != 0 || !optional)) {
            lb_gguf_put_f32(out, name, (float)*(const double *)field);
        }
    }
}

/* Fields that only training reads, or that have settled others. */
static bool changes_nothing(const struct lb_config_key *key) {
    return (key->flags & LB_KEY_PASSING) != 0 ||
           key->field == offsetof(struct lb_config, initializer_range) ||
           key->field == offsetof(struct lb_config, input_dropout) ||
           key->field == offsetof(struct lb_config, hidden_dropout) ||
           key->field == offsetof(struct lb_config, attention_dropout) ||
           key->field == offsetof(struct lb_config, residual_dropout) ||
           key->field == offsetof(struct lb_config, embedding_dropout);
}

/* Bytes of the field that a key stands for; 0: for none. */
static size_t field_bytes(const struct lb_config_key *key) {
    switch (key->kind) {
    case LB_KEY_INT:
    case LB_KEY_LABELS:
    case LB_KEY_TOKEN:
        return sizeof(int64_t);
    case LB_KEY_REAL:
    case LB_KEY_ROPE:
        return sizeof(double);
    case LB_KEY_BOOL:
        return sizeof(bool);
    case LB_KEY_WIDTHS:
        return sizeof(int64_t[LB_MLP_MAX_HIDDEN]);
    case LB_KEY_LAYER_TYPES:
    case LB_KEY_ROPE_LAYERS:
        return sizeof(struct lb_layer_set);
    case LB_KEY_ONLY_TEXT:
    case LB_KEY_ONLY_NUMBER:
    case LB_KEY_ANY:
    case LB_KEY_MODEL_TYPE:
    case LB_KEY_CLASS:
    case LB_KEY_DTYPE:
    case LB_KEY_PACKED:
    case LB_KEY_EMPTY:
    case LB_KEY_SAME:
    case LB_KEY_HAS:
    case LB_KEY_LACKS:
    case LB_KEY_ROWS:
        return 0;
    }
    return 0;
}

void lb_config_hash(const struct lb_config_form *form, const struct lb_config *config,
                    struct lb_sha256 *hash) {
    const struct lb_config_key *key;
    lb_sha256_update(hash, form->model_type, strlen(form->model_type) + 1);
    for (size_t i = 0; (key = lb_key_at(form->keys, i)) != NULL; i++) {
        size_t bytes = changes_nothing(key) ? 0 : field_bytes(key);
        const void *field = lb_key_field(config, key);
        if (bytes > 0 && memcmp(field, lb_key_field(&form->missing, key), bytes) != 0) {
            lb_sha256_update(hash, key->name, strlen(key->name) + 1);
            lb_sha256_update(hash, field, bytes);
        }
        if (key->kind == LB_KEY_ROPE && (key->flags & LB_KEY_WRITTEN) != 0 &&
            config->rope.type != LB_ROPE_DEFAULT) {
            lb_rope_hash(&config->rope, hash);
        }
    }
    if (config->n_more_eos > 0) {
        lb_sha256_update(hash, "more_eos", sizeof "more_eos");
        lb_sha256_update(hash, config->more_eos, (size_t)config->n_more_eos * sizeof *config->more_eos);
    }
}
