/* Truth, equality, order, membership: Python's; dicts, whose keys are found by equality. */
#include "common/chat/value.h"

#include "common/base/utf8.h"

#include <string.h>

bool lb_jv_truth(struct lb_jinja *j, const struct lb_jv *value) {
    (void)j;
    switch (value->kind) {
    case LB_JV_UNDEFINED:
    case LB_JV_NONE:
        return false;
    case LB_JV_BOOL:
        return value->b;
    case LB_JV_INT:
        return value->i != 0;
    case LB_JV_FLOAT:
        return value->f != 0;
    case LB_JV_TEXT:
        return value->len > 0;
    case LB_JV_LIST:
        return value->list->sort == LB_SORT_GENERATOR || value->list->n > 0;
    case LB_JV_DICT:
        return value->dict->n > 0;
    default:
        return true;
    }
}

static bool equal_lists(struct lb_jinja *j, const struct lb_jlist *a, const struct lb_jlist *b) {
    bool same = a->sort == b->sort && a->n == b->n;
    for (size_t i = 0; same && i < a->n; i++) {
        same = lb_jv_equal(j, &a->item[i], &b->item[i]);
    }
    return same;
}

static bool equal_dicts(struct lb_jinja *j, const struct lb_jdict *a, const struct lb_jdict *b) {
    bool same = a->n == b->n;
    for (size_t i = 0; same && i < a->n; i++) {
        const struct lb_jv *there = lb_jdict_get(j, b, &a->key[i]);
        same = there && lb_jv_equal(j, &a->value[i], there);
    }
    return same;
}

bool lb_jv_equal(struct lb_jinja *j, const struct lb_jv *a, const struct lb_jv *b) {
    if (lb_jv_is_number(a) && lb_jv_is_number(b)) {
        return lb_jv_is_int(a) && lb_jv_is_int(b) ? lb_jv_whole(a) == lb_jv_whole(b)
                                                  : lb_jv_number(a) == lb_jv_number(b);
    }
    if (a->kind != b->kind || !lb_jinja_down(j)) {
        return false;
    }
    bool same;
    switch (a->kind) {
    case LB_JV_UNDEFINED:
    case LB_JV_NONE:
        same = true;
        break;
    case LB_JV_TEXT:
        same = a->len == b->len && !memcmp(a->s, b->s, a->len) && lb_jinja_step(j, a->len / 64);
        break;
    case LB_JV_LIST:
        same = a->list == b->list || (a->list->sort != LB_SORT_GENERATOR && equal_lists(j, a->list, b->list));
        break;
    case LB_JV_DICT:
        same = a->dict == b->dict || equal_dicts(j, a->dict, b->dict);
        break;
    case LB_JV_FUNCTION:
        same = a->id == b->id;
        break;
    default:
        same = a->self == b->self; /* the same object */
    }
    lb_jinja_up(j);
    return same && j->status == LB_OK;
}

static int order_lists(struct lb_jinja *j, const struct lb_jlist *a, const struct lb_jlist *b) {
    for (size_t i = 0; i < a->n && i < b->n && j->status == LB_OK; i++) {
        if (!lb_jv_equal(j, &a->item[i], &b->item[i])) {
            return lb_jv_order(j, &a->item[i], &b->item[i]);
        }
    }
    return (a->n > b->n) - (a->n < b->n);
}

int lb_jv_order(struct lb_jinja *j, const struct lb_jv *a, const struct lb_jv *b) {
    int order = 0;
    if (!lb_jinja_down(j)) {
        return 0;
    }
    if (lb_jv_is_int(a) && lb_jv_is_int(b)) {
        int64_t x = lb_jv_whole(a), y = lb_jv_whole(b);
        order = (x > y) - (x < y);
    } else if (lb_jv_is_number(a) && lb_jv_is_number(b)) {
        double x = lb_jv_number(a), y = lb_jv_number(b);
        order = (x > y) - (x < y);
    } else if (a->kind == LB_JV_TEXT && b->kind == LB_JV_TEXT) {
        size_t n = a->len < b->len ? a->len : b->len;
        order = n ? memcmp(a->s, b->s, n) : 0; /* the order of UTF-8 is that of code points */
        order = order ? order : (a->len > b->len) - (a->len < b->len);
    } else if (a->kind == LB_JV_LIST && b->kind == LB_JV_LIST && a->list->sort == b->list->sort &&
               a->list->sort <= LB_SORT_TUPLE) {
        order = order_lists(j, a->list, b->list);
    } else {
        lb_jinja_fail(j, LB_E_ARG, "a %s and a %s have no order", lb_jv_type(a), lb_jv_type(b));
    }
    lb_jinja_up(j);
    return order;
}

/* ---- dicts ---- */

const struct lb_jv *lb_jdict_get(struct lb_jinja *j, const struct lb_jdict *dict, const struct lb_jv *key) {
    if (key->kind == LB_JV_DICT || key->kind == LB_JV_LIST || key->kind == LB_JV_NAMESPACE) {
        bool tuple = key->kind == LB_JV_LIST && key->list->sort == LB_SORT_TUPLE;
        if (!tuple) {
            lb_jinja_fail(j, LB_E_ARG, "a %s cannot be the key of a dict", lb_jv_type(key));
            return NULL;
        }
    }
    for (size_t i = 0; i < dict->n && lb_jinja_step(j, 1); i++) {
        if (lb_jv_equal(j, &dict->key[i], key)) {
            return &dict->value[i];
        }
    }
    return NULL;
}

const struct lb_jv *lb_jdict_find(const struct lb_jdict *dict, const char *key, size_t len) {
    for (size_t i = 0; i < dict->n; i++) {
        const struct lb_jv *k = &dict->key[i];
        if (k->kind == LB_JV_TEXT && k->len == len && !memcmp(k->s, key, len)) {
            return &dict->value[i];
        }
    }
    return NULL;
}

void lb_jdict_put(struct lb_jinja *j, struct lb_jdict *dict, struct lb_jv key, struct lb_jv value) {
    const struct lb_jv *there = lb_jdict_get(j, dict, &key);
    if (j->status != LB_OK) {
        return;
    }
    if (there) {
        dict->value[there - dict->value] = value;
        return;
    }
    if (dict->n == dict->cap || !dict->key || !dict->value) {
        size_t cap = dict->cap ? dict->cap * 2 : 8;
        struct lb_jv *keys = lb_jinja_alloc(j, cap, sizeof *keys);
        struct lb_jv *values = lb_jinja_alloc(j, cap, sizeof *values);
        if (!keys || !values) {
            return;
        }
        if (dict->key && dict->value) {
            memcpy(keys, dict->key, dict->n * sizeof *keys);
            memcpy(values, dict->value, dict->n * sizeof *values);
        }
        dict->key = keys;
        dict->value = values;
        dict->cap = cap;
    }
    dict->key[dict->n] = key;
    dict->value[dict->n++] = value;
}

/* ---- membership, length ---- */

bool lb_jv_contains(struct lb_jinja *j, const struct lb_jv *container, const struct lb_jv *item) {
    struct lb_jlist list;
    switch (container->kind) {
    case LB_JV_TEXT:
        if (item->kind != LB_JV_TEXT) {
            lb_jinja_fail(j, LB_E_ARG, "a %s cannot be in a str", lb_jv_type(item));
            return false;
        }
        return lb_jinja_step(j, container->len / 64) &&
               (!item->len || memmem(container->s, container->len, item->s, item->len));
    case LB_JV_DICT:
        return lb_jdict_get(j, container->dict, item) != NULL;
    default:
        if (!lb_jv_items(j, *container, "in", &list)) {
            return false;
        }
        for (size_t i = 0; i < list.n && lb_jinja_step(j, 1); i++) {
            if (lb_jv_equal(j, &list.item[i], item)) {
                return true;
            }
        }
        return false;
    }
}

int64_t lb_jv_length(struct lb_jinja *j, const struct lb_jv *value) {
    int64_t n = 0;
    switch (value->kind) {
    case LB_JV_UNDEFINED:
        return 0;
    case LB_JV_TEXT:
        for (size_t at = 0; at < value->len; n++) {
            lb_utf8_next(value->s, &at);
        }
        lb_jinja_step(j, value->len / 64);
        return n;
    case LB_JV_DICT:
        return (int64_t)value->dict->n;
    case LB_JV_LIST:
        if (value->list->sort != LB_SORT_GENERATOR) {
            return (int64_t)value->list->n;
        }
        break;
    default:
        break;
    }
    lb_jinja_fail(j, LB_E_ARG, "a %s has no length", lb_jv_type(value));
    return -1;
}
