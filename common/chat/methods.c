/* Methods of texts, dicts, lists and loops. */
#include "common/chat/tables.h"
#include "common/chat/texts.h"

#include "common/base/utf8.h"
#include "common/text/letters.h"

#include <string.h>

/* An optional whole number; fallback when it is not given. */
static int64_t number(struct lb_jinja *j, const struct lb_jv *arg, int64_t fallback) {
    if (arg && !lb_jv_is_int(arg)) {
        lb_jinja_fail(j, LB_E_ARG, "a whole number is expected, not a %s", lb_jv_type(arg));
    }
    return arg && lb_jv_is_int(arg) ? lb_jv_whole(arg) : fallback;
}

/* An argument that has to be a text. */
static bool text_arg(struct lb_jinja *j, const struct lb_jv *arg) {
    if (arg->kind != LB_JV_TEXT) {
        lb_jinja_fail(j, LB_E_ARG, "a str is expected, not a %s", lb_jv_type(arg));
    }
    return j->status == LB_OK;
}

static struct lb_jv strip(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *chars, int side) {
    struct lb_jv none = lb_jv_none();
    if (chars && chars->kind != LB_JV_NONE && !text_arg(j, chars)) {
        return none;
    }
    return lb_jtext_strip(j, self, chars ? chars : &none, side);
}

static struct lb_jv m_strip(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    return strip(j, self, arg[0], LB_SIDE_BOTH);
}

static struct lb_jv m_lstrip(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    return strip(j, self, arg[0], LB_SIDE_LEFT);
}

static struct lb_jv m_rstrip(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    return strip(j, self, arg[0], LB_SIDE_RIGHT);
}

static struct lb_jv split(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg,
                          bool right) {
    struct lb_jv none = lb_jv_none();
    int64_t max = number(j, arg[1], -1);
    if (arg[0] && arg[0]->kind != LB_JV_NONE && !text_arg(j, arg[0])) {
        return none;
    }
    return lb_jtext_split(j, self, arg[0] ? arg[0] : &none, max, right);
}

static struct lb_jv m_split(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    return split(j, self, arg, false);
}

static struct lb_jv m_rsplit(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    return split(j, self, arg, true);
}

static struct lb_jv m_splitlines(struct lb_jinja *j, const struct lb_jv *self,
                                 const struct lb_jv *const *arg) {
    return lb_jtext_lines(j, self, arg[0] && lb_jv_truth(j, arg[0]));
}

/* With a text, or a tuple of texts of which one will do. */
static struct lb_jv affix(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *part,
                          bool (*has)(const struct lb_jv *text, const struct lb_jv *part)) {
    bool tuple = part->kind == LB_JV_LIST && part->list->sort == LB_SORT_TUPLE, found = false;
    for (size_t i = 0; i < (tuple ? part->list->n : 1) && j->status == LB_OK; i++) {
        const struct lb_jv *one = tuple ? &part->list->item[i] : part;
        found = (text_arg(j, one) && has(self, one)) || found;
    }
    return lb_jv_bool(found);
}

static struct lb_jv m_startswith(struct lb_jinja *j, const struct lb_jv *self,
                                 const struct lb_jv *const *arg) {
    return affix(j, self, arg[0], lb_jtext_begins);
}

static struct lb_jv m_endswith(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    return affix(j, self, arg[0], lb_jtext_ends);
}

static struct lb_jv m_removeprefix(struct lb_jinja *j, const struct lb_jv *self,
                                   const struct lb_jv *const *arg) {
    bool has = text_arg(j, arg[0]) && lb_jtext_begins(self, arg[0]);
    return has ? lb_jv_part(self, arg[0]->len, self->len) : *self;
}

static struct lb_jv m_removesuffix(struct lb_jinja *j, const struct lb_jv *self,
                                   const struct lb_jv *const *arg) {
    bool has = text_arg(j, arg[0]) && lb_jtext_ends(self, arg[0]);
    return has ? lb_jv_part(self, 0, self->len - arg[0]->len) : *self;
}

static struct lb_jv m_replace(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    int64_t max = number(j, arg[2], -1);
    return text_arg(j, arg[0]) && text_arg(j, arg[1]) ? lb_jtext_replace(j, self, arg[0], arg[1], max)
                                                      : *self;
}

static struct lb_jv m_upper(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    (void)arg;
    return lb_jtext_case(j, self, LB_CASE_UPPER);
}

static struct lb_jv m_lower(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    (void)arg;
    return lb_jtext_case(j, self, LB_CASE_LOWER);
}

static struct lb_jv m_title(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    (void)arg;
    return lb_jtext_case(j, self, LB_CASE_TITLE);
}

static struct lb_jv m_capitalize(struct lb_jinja *j, const struct lb_jv *self,
                                 const struct lb_jv *const *arg) {
    (void)arg;
    return lb_jtext_case(j, self, LB_CASE_CAPITALIZE);
}

static struct lb_jv find(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *part, bool last) {
    if (!text_arg(j, part) || !lb_jinja_step(j, self->len / 16)) {
        return *self;
    }
    int64_t at = lb_jtext_find(self, part, last);
    return lb_jv_int(at < 0 ? -1 : lb_jtext_characters(self, (size_t)at));
}

static struct lb_jv m_find(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    return find(j, self, arg[0], false);
}

static struct lb_jv m_rfind(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    return find(j, self, arg[0], true);
}

static struct lb_jv m_join(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    struct lb_jlist items;
    if (!lb_jv_items(j, *arg[0], "join()", &items)) {
        return *self;
    }
    for (size_t i = 0; i < items.n; i++) {
        if (!text_arg(j, &items.item[i])) {
            return *self;
        }
    }
    return lb_jtext_join(j, self, &items);
}

/* count() of texts and of lists. */
static struct lb_jv m_count(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    int64_t n = 0;
    if (self->kind == LB_JV_LIST) {
        for (size_t i = 0; i < self->list->n && lb_jinja_step(j, 1); i++) {
            n += lb_jv_equal(j, &self->list->item[i], arg[0]);
        }
        return lb_jv_int(n);
    }
    if (!text_arg(j, arg[0]) || !arg[0]->len) {
        return lb_jv_int(lb_jtext_characters(self, self->len) + 1);
    }
    struct lb_jv pieces = lb_jtext_split(j, self, arg[0], -1, false);
    return j->status == LB_OK ? lb_jv_int((int64_t)pieces.list->n - 1) : pieces;
}

/* Whether there are characters and each is one of a kind. */
static struct lb_jv all_of(const struct lb_jv *self, bool (*is)(uint32_t c)) {
    bool all = self->len > 0;
    for (size_t at = 0; all && at < self->len;) {
        all = is(lb_utf8_next(self->s, &at));
    }
    return lb_jv_bool(all);
}

static struct lb_jv m_isdigit(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    (void)j, (void)arg;
    return all_of(self, lb_is_decimal);
}

static struct lb_jv m_isalpha(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    (void)j, (void)arg;
    return all_of(self, lb_is_alpha);
}

static struct lb_jv m_isspace(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    (void)j, (void)arg;
    return all_of(self, lb_is_blank);
}

static struct lb_jv m_isupper(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    (void)arg;
    return lb_jv_bool(lb_jtest_run(j, lb_jtest_find("upper", 5), self, NULL));
}

static struct lb_jv m_islower(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    (void)arg;
    return lb_jv_bool(lb_jtest_run(j, lb_jtest_find("lower", 5), self, NULL));
}

/* ---- dicts ---- */

static struct lb_jv m_get(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    const struct lb_jv *there = lb_jdict_get(j, self->dict, arg[0]);
    return there ? *there : arg[1] ? *arg[1] : lb_jv_none();
}

static struct lb_jv m_items(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    (void)arg;
    struct lb_jv list = lb_jv_list(j, LB_SORT_VIEW, self->dict->n);
    for (size_t i = 0; i < self->dict->n && j->status == LB_OK; i++) {
        lb_jlist_put(j, list, lb_jv_pair(j, self->dict->key[i], self->dict->value[i]));
    }
    return list;
}

static struct lb_jv one_side(struct lb_jinja *j, const struct lb_jv *items, size_t n) {
    struct lb_jv list = lb_jv_list(j, LB_SORT_VIEW, n);
    for (size_t i = 0; i < n && j->status == LB_OK; i++) {
        lb_jlist_put(j, list, items[i]);
    }
    return list;
}

static struct lb_jv m_keys(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    (void)arg;
    return one_side(j, self->dict->key, self->dict->n);
}

static struct lb_jv m_values(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    (void)arg;
    return one_side(j, self->dict->value, self->dict->n);
}

/* ---- lists and loops ---- */

static struct lb_jv m_index(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    for (size_t i = 0; i < self->list->n && lb_jinja_step(j, 1); i++) {
        if (lb_jv_equal(j, &self->list->item[i], arg[0])) {
            return lb_jv_int((int64_t)i);
        }
    }
    return lb_jinja_fail(j, LB_E_ARG, "index() of something that is not in the list");
}

static struct lb_jv m_changed(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    struct lb_jloop *loop = self->loop;
    bool same = loop->has_changed && lb_jv_equal(j, &loop->changed, arg[0]);
    loop->changed = *arg[0];
    loop->has_changed = true;
    return lb_jv_bool(!same);
}

static struct lb_jv m_cycle(struct lb_jinja *j, const struct lb_jv *self, const struct lb_jv *const *arg) {
    size_t n = 0;
    while (n < LB_JINJA_MAX_ARGS && arg[n]) {
        n++;
    }
    if (n == 0) {
        return lb_jinja_fail(j, LB_E_ARG, "cycle() needs something to cycle through");
    }
    return *arg[self->loop->at % n];
}

/* What would change a list or dict: the sandbox lets no template do that. */
static struct lb_jv m_forbidden(struct lb_jinja *j, const struct lb_jv *self,
                                const struct lb_jv *const *arg) {
    (void)arg;
    return lb_jinja_fail(j, LB_E_ARG, "a method that changes a %s is forbidden in chat templates",
                         lb_jv_type(self));
}

static const struct lb_jmethod methods[] = {
    {"strip", {"chars", 0, false}, LB_OF_TEXT, m_strip},
    {"lstrip", {"chars", 0, false}, LB_OF_TEXT, m_lstrip},
    {"rstrip", {"chars", 0, false}, LB_OF_TEXT, m_rstrip},
    {"split", {"sep,maxsplit", 0, false}, LB_OF_TEXT, m_split},
    {"rsplit", {"sep,maxsplit", 0, false}, LB_OF_TEXT, m_rsplit},
    {"splitlines", {"keepends", 0, false}, LB_OF_TEXT, m_splitlines},
    {"startswith", {"prefix", 1, false}, LB_OF_TEXT, m_startswith},
    {"endswith", {"suffix", 1, false}, LB_OF_TEXT, m_endswith},
    {"removeprefix", {"prefix", 1, false}, LB_OF_TEXT, m_removeprefix},
    {"removesuffix", {"suffix", 1, false}, LB_OF_TEXT, m_removesuffix},
    {"replace", {"old,new,count", 2, false}, LB_OF_TEXT, m_replace},
    {"upper", {"", 0, false}, LB_OF_TEXT, m_upper},
    {"lower", {"", 0, false}, LB_OF_TEXT, m_lower},
    {"title", {"", 0, false}, LB_OF_TEXT, m_title},
    {"capitalize", {"", 0, false}, LB_OF_TEXT, m_capitalize},
    {"find", {"sub", 1, false}, LB_OF_TEXT, m_find},
    {"rfind", {"sub", 1, false}, LB_OF_TEXT, m_rfind},
    {"join", {"iterable", 1, false}, LB_OF_TEXT, m_join},
    {"count", {"value", 1, false}, LB_OF_TEXT | LB_OF_LIST, m_count},
    {"isdigit", {"", 0, false}, LB_OF_TEXT, m_isdigit},
    {"isdecimal", {"", 0, false}, LB_OF_TEXT, m_isdigit},
    {"isalpha", {"", 0, false}, LB_OF_TEXT, m_isalpha},
    {"isspace", {"", 0, false}, LB_OF_TEXT, m_isspace},
    {"isupper", {"", 0, false}, LB_OF_TEXT, m_isupper},
    {"islower", {"", 0, false}, LB_OF_TEXT, m_islower},
    {"get", {"key,default", 1, false}, LB_OF_DICT, m_get},
    {"items", {"", 0, false}, LB_OF_DICT, m_items},
    {"keys", {"", 0, false}, LB_OF_DICT, m_keys},
    {"values", {"", 0, false}, LB_OF_DICT, m_values},
    {"index", {"value", 1, false}, LB_OF_LIST, m_index},
    {"append", {"a,b", 0, false}, LB_OF_LIST, m_forbidden},
    {"extend", {"a,b", 0, false}, LB_OF_LIST, m_forbidden},
    {"insert", {"a,b", 0, false}, LB_OF_LIST, m_forbidden},
    {"remove", {"a,b", 0, false}, LB_OF_LIST, m_forbidden},
    {"reverse", {"a,b", 0, false}, LB_OF_LIST, m_forbidden},
    {"sort", {"a,b", 0, false}, LB_OF_LIST, m_forbidden},
    {"clear", {"a,b", 0, false}, LB_OF_LIST | LB_OF_DICT, m_forbidden},
    {"pop", {"a,b", 0, false}, LB_OF_LIST | LB_OF_DICT, m_forbidden},
    {"popitem", {"a,b", 0, false}, LB_OF_DICT, m_forbidden},
    {"setdefault", {"a,b", 0, false}, LB_OF_DICT, m_forbidden},
    {"update", {"a,b", 0, false}, LB_OF_DICT, m_forbidden},
    {"changed", {"value", 1, false}, LB_OF_LOOP, m_changed},
    {"cycle", {"a", 1, true}, LB_OF_LOOP, m_cycle},
};
_Static_assert(sizeof methods / sizeof methods[0] < 128, "a method is known by one byte");

int lb_jmethod_find(const char *name, size_t len, uint8_t of) {
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if ((methods[i].of & of) && strlen(methods[i].name) == len && !memcmp(methods[i].name, name, len)) {
            return (int)i;
        }
    }
    return -1;
}

const struct lb_jmethod *lb_jmethod_at(int id) {
    return &methods[id];
}
