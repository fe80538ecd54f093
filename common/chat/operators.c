/* Arithmetic. */
#include "common/chat/operators.h"

#include "common/chat/texts.h"

#include <math.h>
#include <string.h>

#define MAX_REPEAT ((size_t)64 << 20)

static struct lb_jv wrong(struct lb_jinja *j, char op, const struct lb_jv *a, const struct lb_jv *b) {
    const char *name = op == 'P' ? "**" : op == 'F' ? "//" : (char[2]){op, '\0'};
    const struct lb_jv *missing = a->kind == LB_JV_UNDEFINED ? a : b->kind == LB_JV_UNDEFINED ? b : NULL;
    if (missing && missing->name) {
        return lb_jinja_fail(j, LB_E_ARG, "%.80s is undefined", missing->name);
    }
    return lb_jinja_fail(j, LB_E_ARG, "%s does not work with a %s and a %s", name, lb_jv_type(a),
                         lb_jv_type(b));
}

static struct lb_jv too_large(struct lb_jinja *j) {
    return lb_jinja_fail(j, LB_E_LIMIT, "a whole number beyond 64 bits");
}

/* a ** b by squaring. */
static struct lb_jv power(struct lb_jinja *j, int64_t a, int64_t b) {
    int64_t result = 1;
    if (b < 0) {
        return a ? lb_jv_float(pow((double)a, (double)b))
                 : lb_jinja_fail(j, LB_E_ARG, "0 ** a negative number");
    }
    for (; b > 0; b >>= 1) {
        if ((b & 1) && __builtin_mul_overflow(result, a, &result)) {
            return too_large(j);
        }
        if (b > 1 && __builtin_mul_overflow(a, a, &a)) {
            return too_large(j);
        }
    }
    return lb_jv_int(result);
}

static struct lb_jv whole(struct lb_jinja *j, char op, int64_t a, int64_t b) {
    int64_t result;
    bool over = false;
    if (strchr("/F%", op) && b == 0) {
        return lb_jinja_fail(j, LB_E_ARG, "division by zero");
    }
    switch (op) {
    case '+':
        over = __builtin_add_overflow(a, b, &result);
        break;
    case '-':
        over = __builtin_sub_overflow(a, b, &result);
        break;
    case '*':
        over = __builtin_mul_overflow(a, b, &result);
        break;
    case '/':
        return lb_jv_float((double)a / (double)b);
    case 'P':
        return power(j, a, b);
    default:
        if (b == -1) { /* the smallest number has no opposite */
            return op == '%' ? lb_jv_int(0) : whole(j, '-', 0, a);
        }
        result = a / b - (a % b != 0 && (a < 0) != (b < 0));
        result = op == 'F' ? result : a - result * b;
    }
    return over ? too_large(j) : lb_jv_int(result);
}

static struct lb_jv real(struct lb_jinja *j, char op, double a, double b) {
    if (strchr("/F%", op) && b == 0) {
        return lb_jinja_fail(j, LB_E_ARG, "division by zero");
    }
    double rest = b != 0 ? fmod(a, b) : 0;
    rest = rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest == 0 ? copysign(0, b) : rest;
    switch (op) {
    case '+':
        return lb_jv_float(a + b);
    case '-':
        return lb_jv_float(a - b);
    case '*':
        return lb_jv_float(a * b);
    case '/':
        return lb_jv_float(a / b);
    case '%':
        return lb_jv_float(rest);
    case 'F':
        return lb_jv_float(round((a - rest) / b));
    default:
        return a < 0 && b != floor(b)
                   ? lb_jinja_fail(j, LB_E_UNSUPPORTED, "complex numbers are not supported")
                   : lb_jv_float(pow(a, b));
    }
}

static struct lb_jv repeat(struct lb_jinja *j, const struct lb_jv *what, int64_t times) {
    size_t n = times > 0 ? (size_t)times : 0;
    if (what->kind == LB_JV_TEXT) {
        struct lb_jbuilder b;
        lb_jb_init(&b, j);
        if (what->len && n > MAX_REPEAT / what->len) {
            return lb_jinja_fail(j, LB_E_LIMIT, "a text repeated to more than %zu bytes", MAX_REPEAT);
        }
        for (size_t i = 0; i < n && what->len && lb_jinja_step(j, 1); i++) {
            lb_jb_text(&b, what);
        }
        return lb_jb_done(&b);
    }
    struct lb_jv list = lb_jv_list(j, what->list->sort, 8);
    for (size_t i = 0; i < n && what->list->n && j->status == LB_OK; i++) {
        for (size_t k = 0; k < what->list->n && j->status == LB_OK; k++) {
            lb_jlist_put(j, list, what->list->item[k]);
        }
    }
    return list;
}

static struct lb_jv add_lists(struct lb_jinja *j, const struct lb_jlist *a, const struct lb_jlist *b) {
    struct lb_jv list = lb_jv_list(j, a->sort, a->n + b->n);
    for (size_t i = 0; i < a->n && j->status == LB_OK; i++) {
        lb_jlist_put(j, list, a->item[i]);
    }
    for (size_t i = 0; i < b->n && j->status == LB_OK; i++) {
        lb_jlist_put(j, list, b->item[i]);
    }
    return list;
}

static bool plain_list(const struct lb_jv *value) {
    return value->kind == LB_JV_LIST && value->list->sort <= LB_SORT_TUPLE;
}

struct lb_jv lb_jinja_binary(struct lb_jinja *j, char op, const struct lb_jv *a, const struct lb_jv *b) {
    if (lb_jv_is_int(a) && lb_jv_is_int(b)) {
        return whole(j, op, lb_jv_whole(a), lb_jv_whole(b));
    }
    if (lb_jv_is_number(a) && lb_jv_is_number(b)) {
        return real(j, op, lb_jv_number(a), lb_jv_number(b));
    }
    bool safe = (a->kind == LB_JV_TEXT && a->id) || (b->kind == LB_JV_TEXT && b->id);
    if (safe && (a->kind != b->kind || a->id != b->id)) {
        return lb_jinja_fail(j, LB_E_UNSUPPORTED,
                             "a text behind safe or escape with + or %% is not supported");
    }
    if (op == '+' && a->kind == LB_JV_TEXT && b->kind == LB_JV_TEXT) {
        struct lb_jbuilder both;
        lb_jb_init(&both, j);
        lb_jb_text(&both, a);
        lb_jb_text(&both, b);
        struct lb_jv sum = lb_jb_done(&both);
        sum.id = a->id;
        return sum;
    }
    if (op == '+' && plain_list(a) && plain_list(b) && a->list->sort == b->list->sort) {
        return add_lists(j, a->list, b->list);
    }
    if (op == '%' && a->kind == LB_JV_TEXT) {
        return lb_jtext_percent(j, a, b);
    }
    if (op == '*' && (a->kind == LB_JV_TEXT || plain_list(a)) && lb_jv_is_int(b)) {
        return repeat(j, a, lb_jv_whole(b));
    }
    if (op == '*' && lb_jv_is_int(a) && (b->kind == LB_JV_TEXT || plain_list(b))) {
        return repeat(j, b, lb_jv_whole(a));
    }
    return wrong(j, op, a, b);
}
