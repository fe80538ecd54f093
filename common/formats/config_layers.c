/* Lists of one entry a layer: which have a window, which have rotary positions. */
#include "common/formats/config_keys.h"

#include <inttypes.h>
#include <string.h>

/* *out NULL: missing, or null. */
static enum lb_status list_of_layers(const struct lb_config_reading *r, const struct lb_config_key *key,
                                     const json_t **out) {
    const json_t *list = json_object_get(r->object, key->name);
    *out = NULL;
    if (!lb_key_given(r->object, key->name)) {
        return LB_OK;
    }
    if (!json_is_array(list)) {
        return lb_fail(r->detail, LB_E_FORMAT, "%s: %s must be an array or null", r->what, key->name);
    }
    if (json_array_size(list) != (size_t)r->c->num_hidden_layers) {
        return lb_fail(r->detail, LB_E_ARG, "%s: %s has %zu entries for num_hidden_layers %" PRId64, r->what,
                       key->name, json_array_size(list), r->c->num_hidden_layers);
    }
    *out = list;
    return LB_OK;
}

enum lb_status lb_layer_types_read(const struct lb_config_reading *r, const struct lb_config_key *key) {
    const json_t *types, *type;
    enum lb_status status = list_of_layers(r, key, &types);
    size_t i;
    if (status != LB_OK || types == NULL) {
        return status;
    }
    r->c->n_layer_types = (int64_t)json_array_size(types);
    json_array_foreach(types, i, type) {
        const char *name = json_is_string(type) ? json_string_value(type) : "";
        bool sliding = strcmp(name, "sliding_attention") == 0;
        if (!sliding && strcmp(name, "full_attention") != 0) {
            return lb_fail(r->detail, LB_E_UNSUPPORTED,
                           "%s: %s[%zu] \"%.64s\" is not supported, only full_attention and "
                           "sliding_attention",
                           r->what, key->name, i, name);
        }
        if (sliding && (r->c->sliding_window == 0 || !r->c->use_sliding_window)) {
            return lb_fail(r->detail, LB_E_ARG,
                           "%s: %s[%zu] is sliding_attention, but there is no sliding_window", r->what,
                           key->name, i);
        }
        if (sliding) {
            lb_layer_put(&r->c->sliding, (int64_t)i);
        }
    }
    return LB_OK;
}

enum lb_status lb_rope_layers_read(const struct lb_config_reading *r, const struct lb_config_key *key) {
    const json_t *list, *has;
    enum lb_status status = list_of_layers(r, key, &list);
    size_t i;
    if (status != LB_OK || list == NULL) {
        return status;
    }
    r->c->n_rope_layers = (int64_t)json_array_size(list);
    json_array_foreach(list, i, has) {
        json_int_t v = json_is_boolean(has) ? json_is_true(has) : json_integer_value(has);
        if ((!json_is_integer(has) && !json_is_boolean(has)) || v < 0 || v > 1) {
            return lb_fail(r->detail, LB_E_FORMAT, "%s: %s[%zu] is neither 0 nor 1", r->what, key->name, i);
        }
        if (v == 0) {
            lb_layer_put(&r->c->no_rope, (int64_t)i);
        }
    }
    return LB_OK;
}

/* A list of one value a layer; NULL when out of memory. */
static json_t *write_list(const struct lb_config *c, const struct lb_layer_set *set, json_t *(*entry)(bool)) {
    json_t *list = json_array();
    for (int64_t l = 0; list != NULL && l < c->num_hidden_layers; l++) {
        if (json_array_append_new(list, entry(lb_layer_has(set, l))) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *type_name(bool sliding) {
    return json_string(sliding ? "sliding_attention" : "full_attention");
}

static json_t *has_rope(bool none) {
    return json_integer(none ? 0 : 1);
}

json_t *lb_layer_types_json(const struct lb_config *c) {
    return write_list(c, &c->sliding, type_name);
}

json_t *lb_rope_layers_json(const struct lb_config *c) {
    return write_list(c, &c->no_rope, has_rope);
}
