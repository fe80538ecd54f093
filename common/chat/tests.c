/* Tests: what may stand behind `is`. */
#include "common/chat/tables.h"

#include "common/base/utf8.h"
#include "common/chat/operators.h"
#include "common/text/letters.h"

#include <string.h>

static bool is_defined(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    (void)j, (void)arg;
    return value->kind != LB_JV_UNDEFINED;
}

static bool is_undefined(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    return !is_defined(j, value, arg);
}

static bool is_none(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    (void)j, (void)arg;
    return value->kind == LB_JV_NONE;
}

static bool is_string(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    (void)j, (void)arg;
    return value->kind == LB_JV_TEXT;
}

static bool is_number(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    (void)j, (void)arg;
    return lb_jv_is_number(value);
}

static bool is_integer(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    (void)j, (void)arg;
    return value->kind == LB_JV_INT;
}

static bool is_float(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    (void)j, (void)arg;
    return value->kind == LB_JV_FLOAT;
}

static bool is_boolean(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    (void)j, (void)arg;
    return value->kind == LB_JV_BOOL;
}

static bool is_true(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    return is_boolean(j, value, arg) && value->b;
}

static bool is_false(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    return is_boolean(j, value, arg) && !value->b;
}

static bool is_mapping(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    (void)j, (void)arg;
    return value->kind == LB_JV_DICT;
}

/* What has a length and items by number, undefined values among them. */
static bool is_sequence(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    (void)j, (void)arg;
    return value->kind == LB_JV_TEXT || value->kind == LB_JV_DICT || value->kind == LB_JV_UNDEFINED ||
           (value->kind == LB_JV_LIST && value->list->sort <= LB_SORT_RANGE);
}

static bool is_iterable(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    return value->kind == LB_JV_LIST || value->kind == LB_JV_LOOP || is_sequence(j, value, arg);
}

static bool is_callable(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    (void)j, (void)arg;
    return value->kind >= LB_JV_LOOP ||
           value->kind == LB_JV_UNDEFINED; /* Undefined has a __call__ that fails */
}

static bool is_in(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    return lb_jv_contains(j, arg, value);
}

static bool is_eq(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    return lb_jv_equal(j, value, arg);
}

static bool is_ne(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    return !lb_jv_equal(j, value, arg);
}

static bool is_gt(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    return lb_jv_order(j, value, arg) > 0;
}

static bool is_ge(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    return lb_jv_order(j, value, arg) >= 0;
}

static bool is_lt(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    return lb_jv_order(j, value, arg) < 0;
}

static bool is_le(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    return lb_jv_order(j, value, arg) <= 0;
}

/* value % by == rest */
static bool leaves(struct lb_jinja *j, const struct lb_jv *value, int64_t by, int64_t rest) {
    struct lb_jv divisor = lb_jv_int(by), wanted = lb_jv_int(rest);
    if (!lb_jv_is_number(value)) {
        lb_jinja_fail(j, LB_E_ARG, "a %s is neither odd nor even", lb_jv_type(value));
        return false;
    }
    struct lb_jv left = lb_jinja_binary(j, '%', value, &divisor);
    return lb_jv_equal(j, &left, &wanted);
}

static bool is_odd(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    (void)arg;
    return leaves(j, value, 2, 1);
}

static bool is_even(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    (void)arg;
    return leaves(j, value, 2, 0);
}

static bool is_divisible(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    if (!lb_jv_is_int(arg)) {
        lb_jinja_fail(j, LB_E_ARG, "divisibleby takes a whole number");
        return false;
    }
    return leaves(j, value, lb_jv_whole(arg), 0);
}

/* Whether all cased characters are of one case and there is one. */
static bool one_case(struct lb_jinja *j, const struct lb_jv *value, bool upper) {
    struct lb_jv text = lb_jv_str(j, *value);
    bool any = false;
    for (size_t at = 0; text.kind == LB_JV_TEXT && at < text.len;) {
        uint32_t c = lb_utf8_next(text.s, &at);
        if (lb_is_title(c) || (upper ? lb_is_lower(c) : lb_is_upper(c))) {
            return false;
        }
        any = any || (upper ? lb_is_upper(c) : lb_is_lower(c));
    }
    return any;
}

static bool is_upper(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    (void)arg;
    return one_case(j, value, true);
}

static bool is_lower(struct lb_jinja *j, const struct lb_jv *value, const struct lb_jv *arg) {
    (void)arg;
    return one_case(j, value, false);
}

static const struct lb_jtest tests[] = {
    {"defined", 0, is_defined},
    {"undefined", 0, is_undefined},
    {"none", 0, is_none},
    {"string", 0, is_string},
    {"number", 0, is_number},
    {"integer", 0, is_integer},
    {"float", 0, is_float},
    {"boolean", 0, is_boolean},
    {"true", 0, is_true},
    {"false", 0, is_false},
    {"mapping", 0, is_mapping},
    {"sequence", 0, is_sequence},
    {"iterable", 0, is_iterable},
    {"callable", 0, is_callable},
    {"in", 1, is_in},
    {"eq", 1, is_eq},
    {"equalto", 1, is_eq},
    {"ne", 1, is_ne},
    {"gt", 1, is_gt},
    {"greaterthan", 1, is_gt},
    {"ge", 1, is_ge},
    {"lt", 1, is_lt},
    {"lessthan", 1, is_lt},
    {"le", 1, is_le},
    {"odd", 0, is_odd},
    {"even", 0, is_even},
    {"divisibleby", 1, is_divisible},
    {"upper", 0, is_upper},
    {"lower", 0, is_lower},
    {"==", 1, is_eq},
    {"!=", 1, is_ne},
    {">", 1, is_gt},
    {">=", 1, is_ge},
    {"<", 1, is_lt},
    {"<=", 1, is_le},
};

const struct lb_jtest *lb_jtest_find(const char *name, size_t len) {
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        if (strlen(tests[i].name) == len && !memcmp(tests[i].name, name, len)) {
            return &tests[i];
        }
    }
    return NULL;
}

bool lb_jtest_run(struct lb_jinja *j, const struct lb_jtest *test, const struct lb_jv *value,
                  const struct lb_jv *arg) {
    return test->run(j, value, arg) && j->status == LB_OK;
}
