#include "common/chat/value.h"

#include "common/base/utf8.h"
#include "common/chat/node.h"

#include <stdio.h>
#include <string.h>

#define MAX_STEPS 50000000u

struct lb_jv lb_jinja_fail(struct lb_jinja *j, enum lb_status code, const char *format, ...) {
    if (j->status == LB_OK) {
        char text[LB_DETAIL_TEXT / 2];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        j->status = code;
        lb_fail(j->detail, code, "%s: line %d: %s", j->template->what, j->line, text);
    }
    return lb_jv_undefined(NULL);
}

bool lb_jinja_step(struct lb_jinja *j, size_t n) {
    j->steps += n;
    if (j->steps > MAX_STEPS) {
        lb_jinja_fail(j, LB_E_LIMIT, "the template takes more than %u steps; it may never end", MAX_STEPS);
    }
    return j->status == LB_OK;
}

void *lb_jinja_alloc(struct lb_jinja *j, size_t count, size_t size) {
    void *p = j->status == LB_OK ? lb_arena_array(&j->arena, count ? count : 1, size) : NULL;
    if (!p) {
        lb_jinja_fail(j, LB_E_LIMIT, "rendering takes more than %zu bytes of memory", j->arena.max_bytes);
    }
    return p;
}

bool lb_jinja_down(struct lb_jinja *j) {
    if (j->depth >= LB_JINJA_MAX_DEPTH) {
        lb_jinja_fail(j, LB_E_LIMIT, "more than %d levels within one another", LB_JINJA_MAX_DEPTH);
        return false;
    }
    j->depth++;
    return lb_jinja_step(j, 1);
}

void lb_jinja_up(struct lb_jinja *j) {
    j->depth--;
}

/* ---- making ---- */

struct lb_jv lb_jv_undefined(const char *name) {
    return (struct lb_jv){.kind = LB_JV_UNDEFINED, .name = name};
}

struct lb_jv lb_jv_none(void) {
    return (struct lb_jv){.kind = LB_JV_NONE};
}

struct lb_jv lb_jv_bool(bool b) {
    return (struct lb_jv){.kind = LB_JV_BOOL, .b = b};
}

struct lb_jv lb_jv_int(int64_t i) {
    return (struct lb_jv){.kind = LB_JV_INT, .i = i};
}

struct lb_jv lb_jv_float(double f) {
    return (struct lb_jv){.kind = LB_JV_FLOAT, .f = f};
}

struct lb_jv lb_jv_text(const char *s, size_t len) {
    return (struct lb_jv){.kind = LB_JV_TEXT, .s = s, .len = len};
}

struct lb_jv lb_jv_cstr(const char *s) {
    return lb_jv_text(s, strlen(s));
}

struct lb_jv lb_jv_part(const struct lb_jv *text, size_t start, size_t end) {
    return (struct lb_jv){.kind = LB_JV_TEXT,
                          .s = text->s + start,
                          .len = end - start,
                          .mark = text->mark ? text->mark + start : NULL};
}

bool lb_jv_is(const struct lb_jv *text, const char *s) {
    return text->kind == LB_JV_TEXT && text->len == strlen(s) && !memcmp(text->s, s, text->len);
}

struct lb_jv lb_jv_list(struct lb_jinja *j, uint8_t sort, size_t cap) {
    struct lb_jlist *list = lb_jinja_alloc(j, 1, sizeof *list);
    struct lb_jv *item = lb_jinja_alloc(j, cap, sizeof *item);
    if (!list || !item) {
        return lb_jv_undefined(NULL);
    }
    *list = (struct lb_jlist){.item = item, .cap = cap, .sort = sort};
    return (struct lb_jv){.kind = LB_JV_LIST, .list = list};
}

void lb_jlist_put(struct lb_jinja *j, struct lb_jv value, struct lb_jv item) {
    if (!lb_jinja_step(j, 1)) {
        return;
    }
    struct lb_jlist *list = value.list;
    if (list->n == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 8;
        struct lb_jv *more = lb_jinja_alloc(j, cap, sizeof *more);
        if (!more) {
            return;
        }
        if (list->n) {
            memcpy(more, list->item, list->n * sizeof *more);
        }
        list->item = more;
        list->cap = cap;
    }
    list->item[list->n++] = item;
}

struct lb_jv lb_jv_pair(struct lb_jinja *j, struct lb_jv first, struct lb_jv second) {
    struct lb_jv pair = lb_jv_list(j, LB_SORT_TUPLE, 2);
    lb_jlist_put(j, pair, first);
    lb_jlist_put(j, pair, second);
    return pair;
}

struct lb_jv lb_jv_dict(struct lb_jinja *j, size_t cap) {
    struct lb_jdict *dict = lb_jinja_alloc(j, 1, sizeof *dict);
    struct lb_jv *key = lb_jinja_alloc(j, cap, sizeof *key), *value = lb_jinja_alloc(j, cap, sizeof *value);
    if (!dict || !key || !value) {
        return lb_jv_undefined(NULL);
    }
    *dict = (struct lb_jdict){.key = key, .value = value, .cap = cap};
    return (struct lb_jv){.kind = LB_JV_DICT, .dict = dict};
}

/* ---- going through ---- */

static bool characters(struct lb_jinja *j, const struct lb_jv *text, struct lb_jlist *out) {
    struct lb_jv list = lb_jv_list(j, LB_SORT_LIST, 16);
    for (size_t at = 0; at < text->len && j->status == LB_OK;) {
        size_t start = at;
        lb_utf8_next(text->s, &at);
        lb_jlist_put(j, list, lb_jv_part(text, start, at));
    }
    if (j->status == LB_OK) {
        *out = *list.list;
    }
    return j->status == LB_OK;
}

bool lb_jv_items(struct lb_jinja *j, struct lb_jv value, const char *what, struct lb_jlist *out) {
    *out = (struct lb_jlist){.item = NULL};
    switch (value.kind) {
    case LB_JV_UNDEFINED:
        break;
    case LB_JV_TEXT:
        return characters(j, &value, out);
    case LB_JV_DICT:
        *out = (struct lb_jlist){.item = value.dict->key, .n = value.dict->n};
        break;
    case LB_JV_LIST:
        *out = *value.list;
        if (value.list->sort == LB_SORT_GENERATOR) {
            out->item += value.list->at;
            out->n -= value.list->at;
            out->at = 0;
            value.list->at = value.list->n;
        }
        break;
    default:
        lb_jinja_fail(j, LB_E_ARG, "%s: a %s cannot be gone through", what, lb_jv_type(&value));
    }
    return j->status == LB_OK;
}

const char *lb_jv_type(const struct lb_jv *value) {
    static const char *const sorts[] = {"list", "tuple", "range", "view of a dict", "generator"};
    static const char *const kinds[] = {
        "undefined value", "None", "bool",  "int",      "float", "str", "list", "dict",
        "Namespace",       "loop", "macro", "function", "method"};
    return value->kind == LB_JV_LIST ? sorts[value->list->sort] : kinds[value->kind];
}

bool lb_jv_is_number(const struct lb_jv *value) {
    return value->kind == LB_JV_BOOL || value->kind == LB_JV_INT || value->kind == LB_JV_FLOAT;
}

double lb_jv_number(const struct lb_jv *value) {
    return value->kind == LB_JV_FLOAT ? value->f : (double)lb_jv_whole(value);
}

bool lb_jv_is_int(const struct lb_jv *value) {
    return value->kind == LB_JV_INT || value->kind == LB_JV_BOOL;
}

int64_t lb_jv_whole(const struct lb_jv *value) {
    return value->kind == LB_JV_BOOL ? value->b : value->i;
}
