/* What is taken out of a value: attributes, items, slices. */
#include "common/chat/access.h"

#include "common/base/utf8.h"
#include "common/chat/tables.h"
#include "common/chat/texts.h"

#include <string.h>

/* ---- attributes and items ---- */

static struct lb_jv method(struct lb_jinja *j, const struct lb_jv *of, int id) {
    struct lb_jv *self = lb_jinja_alloc(j, 1, sizeof *self);
    if (!self) {
        return lb_jv_undefined(NULL);
    }
    *self = *of;
    return (struct lb_jv){.kind = LB_JV_METHOD, .id = (uint8_t)id, .self = self};
}

static struct lb_jv loop_neighbour(const struct lb_jloop *loop, bool next) {
    bool there = next ? loop->at + 1 < loop->items.n : loop->at > 0;
    return there ? loop->items.item[next ? loop->at + 1 : loop->at - 1] : lb_jv_undefined("loop's neighbour");
}

static struct lb_jv loop_attr(struct lb_jinja *j, const struct lb_jv *of, const struct lb_jv *name) {
    const struct lb_jloop *loop = of->loop;
    int64_t at = (int64_t)loop->at, n = (int64_t)loop->items.n;
    const struct {
        const char *name;
        struct lb_jv value;
    } attrs[] = {
        {"index", lb_jv_int(at + 1)},
        {"index0", lb_jv_int(at)},
        {"revindex", lb_jv_int(n - at)},
        {"revindex0", lb_jv_int(n - at - 1)},
        {"first", lb_jv_bool(at == 0)},
        {"last", lb_jv_bool(at == n - 1)},
        {"length", lb_jv_int(n)},
        {"depth", lb_jv_int(loop->depth)},
        {"depth0", lb_jv_int(loop->depth - 1)},
        {"previtem", loop_neighbour(loop, false)},
        {"nextitem", loop_neighbour(loop, true)},
    };
    for (size_t i = 0; i < sizeof attrs / sizeof attrs[0]; i++) {
        if (lb_jv_is(name, attrs[i].name)) {
            return attrs[i].value;
        }
    }
    int id = lb_jmethod_find(name->s, name->len, LB_OF_LOOP);
    return id >= 0 ? method(j, of, id) : lb_jv_undefined(NULL);
}

/* What a dict has in Python and templates have no use for; a key of that name would be hidden behind it. */
static bool hidden(const struct lb_jv *name) {
    return lb_jv_is(name, "copy") || lb_jv_is(name, "fromkeys");
}

static struct lb_jv undefined_use(struct lb_jinja *j, const struct lb_jv *of) {
    return of->name ? lb_jinja_fail(j, LB_E_ARG, "%.80s is undefined", of->name)
                    : lb_jinja_fail(j, LB_E_ARG, "a value that is asked for more is undefined");
}

struct lb_jv lb_jeval_attr(struct lb_jinja *j, const struct lb_jv *of, const struct lb_jv *name) {
    static const uint8_t kinds[] = {
        [LB_JV_TEXT] = LB_OF_TEXT, [LB_JV_DICT] = LB_OF_DICT, [LB_JV_LIST] = LB_OF_LIST, [LB_JV_METHOD] = 0};
    if (of->kind == LB_JV_UNDEFINED) {
        return undefined_use(j, of);
    }
    if (of->kind == LB_JV_LOOP) {
        return loop_attr(j, of, name);
    }
    int id = kinds[of->kind] ? lb_jmethod_find(name->s, name->len, kinds[of->kind]) : -1;
    if (id >= 0) {
        return method(j, of, id);
    }
    if (of->kind == LB_JV_DICT && hidden(name)) {
        return lb_jinja_fail(j, LB_E_UNSUPPORTED,
                             "the attribute %.*s of a dict is not supported; use [\"%.*s\"]", (int)name->len,
                             name->s, (int)name->len, name->s);
    }
    const struct lb_jv *there = of->kind == LB_JV_DICT || of->kind == LB_JV_NAMESPACE
                                    ? lb_jdict_find(of->dict, name->s, name->len)
                                    : NULL;
    return there ? *there : lb_jv_undefined(NULL);
}

/* The character number `at` (negative: from the end). */
static struct lb_jv character(struct lb_jinja *j, const struct lb_jv *text, int64_t at) {
    int64_t n = lb_jv_length(j, text);
    at += at < 0 ? n : 0;
    if (at < 0 || at >= n) {
        return lb_jv_undefined(NULL);
    }
    size_t start = 0, end;
    for (; at > 0; at--) {
        lb_utf8_next(text->s, &start);
    }
    end = start;
    lb_utf8_next(text->s, &end);
    return lb_jv_part(text, start, end);
}

struct lb_jv lb_jeval_item(struct lb_jinja *j, const struct lb_jv *of, const struct lb_jv *key) {
    if (of->kind == LB_JV_UNDEFINED) {
        return undefined_use(j, of);
    }
    if (of->kind == LB_JV_DICT) {
        const struct lb_jv *there = lb_jdict_get(j, of->dict, key);
        if (there || j->status != LB_OK) {
            return there ? *there : lb_jv_undefined(NULL);
        }
    } else if (of->kind == LB_JV_TEXT && lb_jv_is_int(key)) {
        return character(j, of, lb_jv_whole(key));
    } else if (of->kind == LB_JV_LIST && lb_jv_is_int(key)) {
        int64_t at = lb_jv_whole(key), n = (int64_t)of->list->n;
        bool indexed = of->list->sort <= LB_SORT_RANGE;
        at += at < 0 ? n : 0;
        return indexed && at >= 0 && at < n ? of->list->item[at] : lb_jv_undefined(NULL);
    }
    return key->kind == LB_JV_TEXT ? lb_jeval_attr(j, of, key) : lb_jv_undefined(NULL);
}

struct lb_jv lb_jeval_path(struct lb_jinja *j, struct lb_jv of, const struct lb_jv *path) {
    if (lb_jv_is_int(path)) {
        return lb_jeval_item(j, &of, path);
    }
    if (path->kind != LB_JV_TEXT) {
        return lb_jinja_fail(j, LB_E_ARG, "an attribute's name cannot be a %s", lb_jv_type(path));
    }
    for (size_t start = 0; start <= path->len && j->status == LB_OK;) {
        size_t end = start;
        bool whole = true;
        int64_t number = 0;
        for (; end < path->len && path->s[end] != '.'; end++) {
            whole = whole && path->s[end] >= '0' && path->s[end] <= '9' && end - start < 9;
            number = whole ? number * 10 + path->s[end] - '0' : 0;
        }
        struct lb_jv key = whole && end > start ? lb_jv_int(number) : lb_jv_part(path, start, end);
        of = lb_jeval_item(j, &of, &key);
        start = end + 1;
    }
    return of;
}

/* ---- slices ---- */

/* A bound of a slice of n items, as Python's slice.indices has it. */
static int64_t bound(const struct lb_jv *value, int64_t fallback, int64_t n, bool backward) {
    if (value->kind == LB_JV_NONE) {
        return fallback;
    }
    int64_t at = lb_jv_whole(value), low = backward ? -1 : 0, high = backward ? n - 1 : n;
    at = at < 0 ? (at < -n ? -n - 1 : at) + n : at;
    return at < low ? low : at > high ? high : at;
}

struct lb_jv lb_jinja_slice(struct lb_jinja *j, const struct lb_jv *of, const struct lb_jv *start,
                            const struct lb_jv *stop, const struct lb_jv *step) {
    const struct lb_jv *parts[] = {start, stop, step};
    bool list = of->kind == LB_JV_LIST && of->list->sort <= LB_SORT_RANGE;
    struct lb_jlist items;
    for (int i = 0; i < 3; i++) {
        if (parts[i]->kind != LB_JV_NONE && !lb_jv_is_int(parts[i])) {
            return lb_jinja_fail(j, LB_E_ARG, "a %s is no place in a slice", lb_jv_type(parts[i]));
        }
    }
    int64_t by = step->kind == LB_JV_NONE ? 1 : lb_jv_whole(step);
    if (by == 0) {
        return lb_jinja_fail(j, LB_E_ARG, "a slice with step 0");
    }
    if (of->kind != LB_JV_TEXT && !list) {
        if (of->kind == LB_JV_UNDEFINED) {
            return undefined_use(j, of);
        }
        return lb_jv_undefined(NULL);
    }
    if (!lb_jv_items(j, *of, "a slice", &items)) {
        return lb_jv_undefined(NULL);
    }
    int64_t n = (int64_t)items.n;
    int64_t at = bound(start, by < 0 ? n - 1 : 0, n, by < 0), end = bound(stop, by < 0 ? -1 : n, n, by < 0);
    struct lb_jv part = lb_jv_list(j, list ? of->list->sort : LB_SORT_LIST, 8);
    by = by > n ? n + 1 : by < -n ? -n - 1 : by;
    for (; (by > 0 ? at < end : at > end) && j->status == LB_OK; at += by) {
        lb_jlist_put(j, part, items.item[at]);
    }
    if (list || j->status != LB_OK) {
        return part;
    }
    struct lb_jv nothing = lb_jv_cstr("");
    return lb_jtext_join(j, &nothing, part.list);
}
