/* Filters that go through lists; all filters by their names. */
#include "common/chat/tables.h"

#include "common/chat/access.h"
#include "common/chat/operators.h"
#include "common/chat/scopes.h"
#include "common/chat/texts.h"

#include <string.h>

#define FILTER(name)                                                                                         \
    static struct lb_jv name(struct lb_jinja *j, struct lb_jv value, const struct lb_jargs *args,            \
                             const struct lb_jv *const *arg)
#define UNUSED (void)j, (void)value, (void)args, (void)arg

static bool flag(struct lb_jinja *j, const struct lb_jv *arg) {
    return arg && lb_jv_truth(j, arg);
}

/* A list of the items; the builder of results of sort. */
static struct lb_jv as_list(struct lb_jinja *j, const struct lb_jlist *items, uint8_t sort) {
    struct lb_jv list = lb_jv_list(j, sort, items->n);
    for (size_t i = 0; i < items->n && j->status == LB_OK; i++) {
        lb_jlist_put(j, list, items->item[i]);
    }
    return list;
}

FILTER(f_list) {
    UNUSED;
    struct lb_jlist items;
    return lb_jv_items(j, value, "list", &items) ? as_list(j, &items, LB_SORT_LIST) : value;
}

FILTER(f_join) {
    UNUSED;
    struct lb_jlist items;
    struct lb_jv between = arg[0] ? lb_jv_str(j, *arg[0]) : lb_jv_cstr("");
    bool path = arg[1] && arg[1]->kind != LB_JV_NONE;
    if (j->status != LB_OK || !lb_jv_items(j, value, "join", &items)) {
        return value;
    }
    struct lb_jv list = as_list(j, &items, LB_SORT_LIST);
    for (size_t i = 0; j->status == LB_OK && path && i < items.n; i++) {
        list.list->item[i] = lb_jeval_path(j, items.item[i], arg[1]);
    }
    return j->status == LB_OK ? lb_jtext_join(j, &between, list.list) : value;
}

FILTER(f_first) {
    UNUSED;
    struct lb_jlist items;
    if (value.kind == LB_JV_LIST && value.list->sort == LB_SORT_GENERATOR) {
        return value.list->at < value.list->n ? value.list->item[value.list->at++] : lb_jv_undefined("first");
    }
    return lb_jv_items(j, value, "first", &items) && items.n ? items.item[0] : lb_jv_undefined("first");
}

FILTER(f_last) {
    UNUSED;
    struct lb_jlist items;
    if (value.kind == LB_JV_LIST && value.list->sort == LB_SORT_GENERATOR) {
        return lb_jinja_fail(j, LB_E_ARG, "last of a generator");
    }
    return lb_jv_items(j, value, "last", &items) && items.n ? items.item[items.n - 1]
                                                            : lb_jv_undefined("last");
}

FILTER(f_reverse) {
    UNUSED;
    struct lb_jlist items;
    struct lb_jv nothing = lb_jv_cstr("");
    if (!lb_jv_items(j, value, "reverse", &items)) {
        return value;
    }
    struct lb_jv list = lb_jv_list(j, LB_SORT_GENERATOR, items.n);
    for (size_t i = items.n; i-- > 0 && j->status == LB_OK;) {
        lb_jlist_put(j, list, items.item[i]);
    }
    return value.kind == LB_JV_TEXT && j->status == LB_OK ? lb_jtext_join(j, &nothing, list.list) : list;
}

FILTER(f_items) {
    UNUSED;
    if (value.kind == LB_JV_UNDEFINED) {
        return lb_jv_list(j, LB_SORT_GENERATOR, 0);
    }
    if (value.kind != LB_JV_DICT) {
        return lb_jinja_fail(j, LB_E_ARG, "items of a %s", lb_jv_type(&value));
    }
    struct lb_jv list = lb_jv_list(j, LB_SORT_GENERATOR, value.dict->n);
    for (size_t i = 0; i < value.dict->n && j->status == LB_OK; i++) {
        lb_jlist_put(j, list, lb_jv_pair(j, value.dict->key[i], value.dict->value[i]));
    }
    return list;
}

/* ---- order ---- */

/* What an item is ordered by: its attribute, in lower case unless cases differ. */
static struct lb_jv sort_key(struct lb_jinja *j, struct lb_jv item, const struct lb_jv *path,
                             bool case_sensitive) {
    if (path && path->kind != LB_JV_NONE) {
        item = lb_jeval_path(j, item, path);
    }
    return item.kind == LB_JV_TEXT && !case_sensitive && j->status == LB_OK
               ? lb_jtext_case(j, &item, LB_CASE_LOWER)
               : item;
}

/* Sorts items [n] by their keys, equal ones in their order; reverse as list.sort has it. */
static void merge(struct lb_jinja *j, struct lb_jv *items, struct lb_jv *keys, size_t n, bool reverse) {
    struct lb_jv *item2 = lb_jinja_alloc(j, n, sizeof *items), *key2 = lb_jinja_alloc(j, n, sizeof *keys);
    for (size_t width = 1; items && keys && item2 && key2 && width < n && j->status == LB_OK; width *= 2) {
        for (size_t low = 0; low < n && j->status == LB_OK; low += 2 * width) {
            size_t middle = low + width < n ? low + width : n,
                   high = low + 2 * width < n ? low + 2 * width : n;
            size_t a = low, b = middle;
            for (size_t out = low; out < high && lb_jinja_step(j, 1); out++) {
                bool differ = a < middle && b < high && !lb_jv_equal(j, &keys[b], &keys[a]);
                int order = differ ? lb_jv_order(j, &keys[b], &keys[a]) : 0;
                bool right = a >= middle || (b < high && (reverse ? order > 0 : order < 0));
                size_t from = right ? b++ : a++;
                item2[out] = items[from];
                key2[out] = keys[from];
            }
        }
        if (j->status == LB_OK) {
            memcpy(items, item2, n * sizeof *items);
            memcpy(keys, key2, n * sizeof *keys);
        }
    }
}

static struct lb_jv sorted(struct lb_jinja *j, const struct lb_jlist *items, const struct lb_jv *path,
                           bool case_sensitive, bool reverse) {
    struct lb_jv list = as_list(j, items, LB_SORT_LIST);
    struct lb_jv *keys = lb_jinja_alloc(j, items->n, sizeof *keys);
    for (size_t i = 0; keys && i < items->n && j->status == LB_OK; i++) {
        keys[i] = sort_key(j, items->item[i], path, case_sensitive);
    }
    if (j->status == LB_OK) {
        merge(j, list.list->item, keys, items->n, reverse);
    }
    return list;
}

FILTER(f_sort) {
    UNUSED;
    struct lb_jlist items;
    if (arg[2] && arg[2]->kind == LB_JV_TEXT && memchr(arg[2]->s, ',', arg[2]->len)) {
        return lb_jinja_fail(j, LB_E_UNSUPPORTED, "sort by several attributes is not supported");
    }
    return lb_jv_items(j, value, "sort", &items) ? sorted(j, &items, arg[2], flag(j, arg[1]), flag(j, arg[0]))
                                                 : value;
}

FILTER(f_dictsort) {
    UNUSED;
    bool by_value = arg[1] && lb_jv_is(arg[1], "value");
    struct lb_jv pairs = f_items(j, value, args, arg), place = lb_jv_int(by_value);
    if (value.kind == LB_JV_UNDEFINED) {
        return lb_jinja_fail(j, LB_E_ARG, "dictsort of an undefined value");
    }
    if (arg[1] && !by_value && !lb_jv_is(arg[1], "key")) {
        return lb_jinja_fail(j, LB_E_ARG, "dictsort is by key or value");
    }
    return j->status == LB_OK ? sorted(j, pairs.list, &place, flag(j, arg[0]), flag(j, arg[2])) : value;
}

/* The least or the greatest. */
static struct lb_jv extreme(struct lb_jinja *j, struct lb_jv value, const struct lb_jv *const *arg,
                            int sign) {
    struct lb_jlist items;
    struct lb_jv best = lb_jv_undefined("the first of nothing"), best_key = best;
    if (!lb_jv_items(j, value, "min or max", &items)) {
        return best;
    }
    for (size_t i = 0; i < items.n && j->status == LB_OK; i++) {
        struct lb_jv key = sort_key(j, items.item[i], arg[1], flag(j, arg[0]));
        if (i == 0 || (j->status == LB_OK && lb_jv_order(j, &key, &best_key) * sign > 0)) {
            best = items.item[i];
            best_key = key;
        }
    }
    return best;
}

FILTER(f_min) {
    UNUSED;
    return extreme(j, value, arg, -1);
}

FILTER(f_max) {
    UNUSED;
    return extreme(j, value, arg, 1);
}

FILTER(f_unique) {
    UNUSED;
    struct lb_jlist items;
    if (!lb_jv_items(j, value, "unique", &items)) {
        return value;
    }
    struct lb_jv list = lb_jv_list(j, LB_SORT_GENERATOR, 8), seen = lb_jv_list(j, LB_SORT_LIST, 8);
    for (size_t i = 0; i < items.n && j->status == LB_OK; i++) {
        struct lb_jv key = sort_key(j, items.item[i], arg[1], flag(j, arg[0]));
        if (j->status == LB_OK && !lb_jv_contains(j, &seen, &key)) {
            lb_jlist_put(j, seen, key);
            lb_jlist_put(j, list, items.item[i]);
        }
    }
    return list;
}

FILTER(f_sum) {
    UNUSED;
    struct lb_jlist items;
    struct lb_jv total = arg[1] ? *arg[1] : lb_jv_int(0);
    if (!lb_jv_items(j, value, "sum", &items)) {
        return value;
    }
    for (size_t i = 0; i < items.n && j->status == LB_OK; i++) {
        bool path = arg[0] && arg[0]->kind != LB_JV_NONE;
        struct lb_jv item = path ? lb_jeval_path(j, items.item[i], arg[0]) : items.item[i];
        total = j->status == LB_OK ? lb_jinja_binary(j, '+', &total, &item) : total;
    }
    return total;
}

/* Lists of linecount items, the last filled up with fill_with. */
FILTER(f_batch) {
    UNUSED;
    struct lb_jlist items;
    if (!lb_jv_is_int(arg[0]) || lb_jv_whole(arg[0]) < 1) {
        return lb_jinja_fail(j, LB_E_ARG, "batch takes a count");
    }
    size_t n = (size_t)lb_jv_whole(arg[0]);
    struct lb_jv list = lb_jv_list(j, LB_SORT_GENERATOR, 8);
    if (!lb_jv_items(j, value, "batch", &items)) {
        return value;
    }
    for (size_t i = 0; i < items.n && j->status == LB_OK; i++) {
        if (i % n == 0) {
            lb_jlist_put(j, list, lb_jv_list(j, LB_SORT_LIST, 8));
        }
        if (j->status == LB_OK) {
            lb_jlist_put(j, list.list->item[list.list->n - 1], items.item[i]);
        }
    }
    while (j->status == LB_OK && items.n % n && arg[1] && arg[1]->kind != LB_JV_NONE &&
           list.list->item[list.list->n - 1].list->n < n) {
        lb_jlist_put(j, list.list->item[list.list->n - 1], *arg[1]);
    }
    return list;
}

/* ---- by filters and tests ---- */

/* The keyword argument called name, NULL when it is not there. */
static const struct lb_jv *keyword(const struct lb_jinja *j, const struct lb_jargs *args, const char *name) {
    for (size_t i = args->n_positional; i < args->n; i++) {
        if (!strcmp(j->template->name[args->name[i]].s, name)) {
            return &args->value[i];
        }
    }
    return NULL;
}

/* The arguments from number n on. */
static struct lb_jargs rest(const struct lb_jargs *args, size_t n) {
    struct lb_jargs out = {.n = 0};
    for (size_t i = n; i < args->n_positional; i++) {
        out.name[out.n] = -1;
        out.value[out.n++] = args->value[i];
    }
    out.n_positional = out.n;
    return out;
}

FILTER(f_map) {
    UNUSED;
    struct lb_jlist items;
    const struct lb_jv *path = keyword(j, args, "attribute"), *fallback = keyword(j, args, "default");
    const struct lb_jv *name = args->n_positional ? &args->value[0] : NULL;
    const struct lb_jfilter *filter = !path && name ? lb_jfilter_find(name->s, name->len) : NULL;
    struct lb_jargs further = rest(args, 1);
    if (!path == !filter || (path && name)) {
        return lb_jinja_fail(j, LB_E_ARG, "map takes the name of a filter or an attribute");
    }
    if (!lb_jv_items(j, value, "map", &items)) {
        return value;
    }
    struct lb_jv list = lb_jv_list(j, LB_SORT_GENERATOR, items.n);
    for (size_t i = 0; i < items.n && j->status == LB_OK; i++) {
        struct lb_jv item = filter ? lb_jfilter_run(j, filter, items.item[i], &further)
                                   : lb_jeval_path(j, items.item[i], path);
        lb_jlist_put(j, list, item.kind == LB_JV_UNDEFINED && path && fallback ? *fallback : item);
    }
    return list;
}

/* attribute: the first argument names what is tested. want: what passes. */
static struct lb_jv pick(struct lb_jinja *j, struct lb_jv value, const struct lb_jargs *args, bool attribute,
                         bool want) {
    struct lb_jlist items;
    size_t at = attribute;
    const struct lb_jv *name = args->n_positional > at ? &args->value[at] : NULL;
    const struct lb_jtest *test = name ? lb_jtest_find(name->s, name->len) : NULL;
    struct lb_jv none = lb_jv_none();
    const struct lb_jv *with = args->n_positional > at + 1 ? &args->value[at + 1] : &none;
    if (args->n_positional < at || (test && args->n_positional - at - 1 != test->n_args)) {
        return lb_jinja_fail(j, LB_E_ARG, "a test with another number of arguments");
    }
    if (!lb_jv_items(j, value, "a filter by a test", &items)) {
        return value;
    }
    struct lb_jv list = lb_jv_list(j, LB_SORT_GENERATOR, items.n);
    for (size_t i = 0; i < items.n && j->status == LB_OK; i++) {
        struct lb_jv item = attribute ? lb_jeval_path(j, items.item[i], &args->value[0]) : items.item[i];
        bool passes = test ? lb_jtest_run(j, test, &item, with) : lb_jv_truth(j, &item);
        if (j->status == LB_OK && passes == want) {
            lb_jlist_put(j, list, items.item[i]);
        }
    }
    return list;
}

FILTER(f_select) {
    UNUSED;
    return pick(j, value, args, false, true);
}

FILTER(f_reject) {
    UNUSED;
    return pick(j, value, args, false, false);
}

FILTER(f_selectattr) {
    UNUSED;
    return pick(j, value, args, true, true);
}

FILTER(f_rejectattr) {
    UNUSED;
    return pick(j, value, args, true, false);
}

static const struct lb_jfilter filters[] = {
    {"list", {"", 0, false}, 0, 0, f_list},
    {"join", {"d,attribute", 0, false}, 0, 0, f_join},
    {"first", {"", 0, false}, 0, 0, f_first},
    {"last", {"", 0, false}, 0, 0, f_last},
    {"reverse", {"", 0, false}, 0, 0, f_reverse},
    {"items", {"", 0, false}, 0, 0, f_items},
    {"sort", {"reverse,case_sensitive,attribute", 0, false}, 0, 0, f_sort},
    {"dictsort", {"case_sensitive,by,reverse", 0, false}, 0, 0, f_dictsort},
    {"min", {"case_sensitive,attribute", 0, false}, 0, 0, f_min},
    {"max", {"case_sensitive,attribute", 0, false}, 0, 0, f_max},
    {"unique", {"case_sensitive,attribute", 0, false}, 0, 0, f_unique},
    {"sum", {"attribute,start", 0, false}, 0, 0, f_sum},
    {"batch", {"linecount,fill_with", 1, false}, 0, 0, f_batch},
    {"map", {"attribute,default", 0, true}, 2, 0, f_map},
    {"select", {"", 0, true}, 1, 0, f_select},
    {"reject", {"", 0, true}, 1, 0, f_reject},
    {"selectattr", {"", 1, true}, 1, 1, f_selectattr},
    {"rejectattr", {"", 1, true}, 1, 1, f_rejectattr},
    {NULL, {"", 0, false}, 0, 0, NULL},
};

static const struct lb_jfilter *find_in(const struct lb_jfilter *list, const char *name, size_t len) {
    for (size_t i = 0; list[i].name; i++) {
        if (strlen(list[i].name) == len && !memcmp(list[i].name, name, len)) {
            return &list[i];
        }
    }
    return NULL;
}

const struct lb_jfilter *lb_jfilter_find(const char *name, size_t len) {
    const struct lb_jfilter *found = find_in(lb_jfilters_of_values, name, len);
    return found ? found : find_in(filters, name, len);
}
