#include "common/chat/value.h"

#include <string.h>

/* A text of the data: marked where the run has marks for as long a text. */
static struct lb_jv from_text(struct lb_jinja *j, const char *s, size_t len, bool mark) {
    struct lb_jv text = lb_jv_text(s, len);
    if (mark && len > j->n_data_marks) {
        return lb_jinja_fail(j, LB_E_LIMIT, "a text of more than %zu bytes", j->n_data_marks);
    }
    text.mark = mark ? j->data_marks : NULL;
    return text;
}

static struct lb_jv from_array(struct lb_jinja *j, const json_t *json, bool mark) {
    struct lb_jv list = lb_jv_list(j, LB_SORT_LIST, json_array_size(json));
    for (size_t i = 0; i < json_array_size(json) && j->status == LB_OK; i++) {
        lb_jlist_put(j, list, lb_jv_from_json(j, json_array_get(json, i), mark));
    }
    return list;
}

/* A role is a word that templates may build special tokens of; anything else is somebody's text. */
static bool is_role(const char *key, const json_t *value) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    const char *text = json_string_value(value);
    return !strcmp(key, "role") && text && strspn(text, letters) == json_string_length(value);
}

static struct lb_jv from_object(struct lb_jinja *j, const json_t *json, bool mark) {
    struct lb_jv dict = lb_jv_dict(j, json_object_size(json));
    json_t *object = (json_t *)json; /* iterators of jansson take no const */
    for (void *it = json_object_iter(object); it && j->status == LB_OK;
         it = json_object_iter_next(object, it)) {
        const char *name = json_object_iter_key(it);
        struct lb_jv key = from_text(j, name, strlen(name), mark);
        const json_t *member = json_object_iter_value(it);
        struct lb_jv value = lb_jv_from_json(j, member, mark && !is_role(name, member));
        if (j->status == LB_OK) { /* keys of an object differ: no search */
            dict.dict->key[dict.dict->n] = key;
            dict.dict->value[dict.dict->n++] = value;
        }
    }
    return dict;
}

struct lb_jv lb_jv_from_json(struct lb_jinja *j, const json_t *json, bool mark) {
    struct lb_jv value = lb_jv_none();
    if (!lb_jinja_down(j)) {
        return lb_jv_undefined(NULL);
    }
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        value = from_object(j, json, mark);
        break;
    case JSON_ARRAY:
        value = from_array(j, json, mark);
        break;
    case JSON_STRING:
        value = from_text(j, json_string_value(json), json_string_length(json), mark);
        break;
    case JSON_INTEGER:
        value = lb_jv_int(json_integer_value(json));
        break;
    case JSON_REAL:
        value = lb_jv_float(json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        value = lb_jv_bool(json_is_true(json));
        break;
    default:
        break;
    }
    lb_jinja_up(j);
    return value;
}
