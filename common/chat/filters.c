/* Filters of single values; those that go through lists are in filters_list.c. */
#include "common/chat/tables.h"
#include "common/chat/operators.h"
#include "common/chat/texts.h"

#include "common/base/utf8.h"
#include "common/text/letters.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_INDENT 1000

/* Filters take value, args and arg as struct lb_jfilter says. */
#define FILTER(name)                                                                                         \
    static struct lb_jv name(struct lb_jinja *j, struct lb_jv value, const struct lb_jargs *args,            \
                             const struct lb_jv *const *arg)
#define UNUSED (void)j, (void)value, (void)args, (void)arg

static int64_t number(struct lb_jinja *j, const struct lb_jv *arg, int64_t fallback) {
    if (arg && !lb_jv_is_int(arg)) {
        lb_jinja_fail(j, LB_E_ARG, "a filter's argument is to be a whole number, not a %s", lb_jv_type(arg));
    }
    return arg && lb_jv_is_int(arg) ? lb_jv_whole(arg) : fallback;
}

static bool flag(struct lb_jinja *j, const struct lb_jv *arg) {
    return arg && lb_jv_truth(j, arg);
}

/* ---- texts ---- */

FILTER(f_trim) {
    UNUSED;
    struct lb_jv none = lb_jv_none(), text = lb_jv_str(j, value);
    return j->status == LB_OK ? lb_jtext_strip(j, &text, arg[0] ? arg[0] : &none, LB_SIDE_BOTH) : text;
}

static struct lb_jv in_case(struct lb_jinja *j, struct lb_jv value, enum lb_jcase to) {
    struct lb_jv text = lb_jv_str(j, value);
    return j->status == LB_OK ? lb_jtext_case(j, &text, to) : text;
}

FILTER(f_upper) {
    UNUSED;
    return in_case(j, value, LB_CASE_UPPER);
}

FILTER(f_lower) {
    UNUSED;
    return in_case(j, value, LB_CASE_LOWER);
}

FILTER(f_capitalize) {
    UNUSED;
    return in_case(j, value, LB_CASE_CAPITALIZE);
}

/* Jinja's own title: words begin behind white space and - ( { [ <, the rest is in lower case. */
FILTER(f_title) {
    UNUSED;
    struct lb_jv text = lb_jv_str(j, value);
    struct lb_jbuilder b;
    bool inside = false;
    lb_jb_init(&b, j);
    for (size_t at = 0; j->status == LB_OK && at < text.len;) {
        size_t start = at;
        uint32_t c = lb_utf8_next(text.s, &at);
        bool between = lb_is_blank(c) || (c < 0x80 && c && strchr("-({[<", (int)c));
        int32_t changed = inside ? lb_to_lower(c) : lb_to_upper(c);
        if (changed < 0) {
            return lb_jinja_fail(j, LB_E_UNSUPPORTED, "the other case of U+%04X is not supported", c);
        }
        lb_jb_char(&b, (uint32_t)changed, text.mark ? text.mark[start] : 0);
        inside = !between;
    }
    return lb_jb_done(&b);
}

FILTER(f_string) {
    UNUSED;
    return lb_jv_str(j, value);
}

FILTER(f_safe) {
    UNUSED;
    struct lb_jv text = lb_jv_str(j, value);
    text.id = text.kind == LB_JV_TEXT;
    return text;
}

FILTER(f_escape) {
    UNUSED;
    static const char from[] = "&<>'\"";
    static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    struct lb_jv text = lb_jv_str(j, value);
    struct lb_jbuilder b;
    if (j->status != LB_OK || text.id) {
        return text;
    }
    lb_jb_init(&b, j);
    for (size_t i = 0; i < text.len && j->status == LB_OK; i++) {
        const char *known = text.s[i] ? strchr(from, text.s[i]) : NULL;
        if (known) {
            for (const char *c = to[known - from]; *c; c++) {
                lb_jb_put(&b, c, 1, text.mark ? text.mark + i : NULL);
            }
        } else {
            lb_jb_put(&b, text.s + i, 1, text.mark ? text.mark + i : NULL);
        }
    }
    text = lb_jb_done(&b);
    text.id = text.kind == LB_JV_TEXT;
    return text;
}

FILTER(f_replace) {
    UNUSED;
    struct lb_jv text = lb_jv_str(j, value), from = lb_jv_str(j, *arg[0]), to = lb_jv_str(j, *arg[1]);
    int64_t max = number(j, arg[2] && arg[2]->kind != LB_JV_NONE ? arg[2] : NULL, -1);
    return j->status == LB_OK ? lb_jtext_replace(j, &text, &from, &to, max) : text;
}

FILTER(f_format) {
    UNUSED;
    struct lb_jv text = lb_jv_str(j, value), list = lb_jv_list(j, LB_SORT_TUPLE, args->n);
    for (size_t i = 0; i < args->n && j->status == LB_OK; i++) {
        lb_jlist_put(j, list, args->value[i]);
    }
    return j->status == LB_OK ? lb_jtext_percent(j, &text, &list) : text;
}

/* width, first, blank: the first line and blank lines are left alone unless asked for. */
FILTER(f_indent) {
    UNUSED;
    bool first = flag(j, arg[1]), blank = flag(j, arg[2]);
    struct lb_jv text = lb_jv_str(j, value), space = lb_jv_cstr(" ");
    if (!arg[0] || arg[0]->kind != LB_JV_TEXT) {
        struct lb_jv width = lb_jv_int(number(j, arg[0], 4));
        if (width.i > MAX_INDENT) {
            return lb_jinja_fail(j, LB_E_LIMIT, "indent by more than %d", MAX_INDENT);
        }
        space = j->status == LB_OK ? lb_jinja_binary(j, '*', &space, &width) : space;
    } else {
        space = *arg[0];
    }
    struct lb_jbuilder b;
    lb_jb_init(&b, j);
    lb_jb_value(&b, &text);
    lb_jb_str(&b, "\n"); /* so that a text that ends with a line feed has one line more */
    text = lb_jb_done(&b);
    struct lb_jv lines = j->status == LB_OK ? lb_jtext_lines(j, &text, false) : text;
    lb_jb_init(&b, j);
    for (size_t i = 0; j->status == LB_OK && i < lines.list->n; i++) {
        const struct lb_jv *line = &lines.list->item[i];
        lb_jb_str(&b, i ? "\n" : "");
        if (i == 0 ? first : blank || line->len) {
            lb_jb_text(&b, &space);
        }
        lb_jb_text(&b, line);
    }
    return lb_jb_done(&b);
}

/* ---- numbers ---- */

FILTER(f_abs) {
    UNUSED;
    if (value.kind == LB_JV_FLOAT) {
        return lb_jv_float(fabs(value.f));
    }
    if (!lb_jv_is_int(&value) || lb_jv_whole(&value) == INT64_MIN) {
        return lb_jinja_fail(j, LB_E_ARG, "abs of a %s", lb_jv_type(&value));
    }
    return lb_jv_int(llabs(lb_jv_whole(&value)));
}

/* precision, method: common (to the nearest, halves to even), ceil, floor. */
FILTER(f_round) {
    UNUSED;
    int64_t places = number(j, arg[0], 0);
    bool common = !arg[1] || lb_jv_is(arg[1], "common");
    if (!lb_jv_is_number(&value) || places < 0 || places > 15) {
        return lb_jinja_fail(j, LB_E_ARG, "round of a %s to %lld places is not supported", lb_jv_type(&value),
                             (long long)places);
    }
    if (common && lb_jv_is_int(&value)) {
        return lb_jv_int(lb_jv_whole(&value));
    }
    if (common) { /* as printf rounds the exact value */
        char text[400];
        snprintf(text, sizeof text, "%.*f", (int)places, value.f);
        return lb_jv_float(strtod(text, NULL));
    }
    double scale = pow(10, (double)places), scaled = lb_jv_number(&value) * scale;
    if (!lb_jv_is(arg[1], "ceil") && !lb_jv_is(arg[1], "floor")) {
        return lb_jinja_fail(j, LB_E_ARG, "round takes common, ceil or floor");
    }
    return lb_jv_float((lb_jv_is(arg[1], "ceil") ? ceil(scaled) : floor(scaled)) / scale);
}

/* A text as float() reads it; false when it is none. */
static bool read_float(struct lb_jinja *j, const struct lb_jv *text, double *out) {
    struct lb_jv none = lb_jv_none(), bare = lb_jtext_strip(j, text, &none, LB_SIDE_BOTH);
    char copy[64], *end;
    if (!bare.len || bare.len >= sizeof copy || memchr(bare.s, 'x', bare.len) ||
        memchr(bare.s, 'X', bare.len)) {
        return false;
    }
    memcpy(copy, bare.s, bare.len);
    copy[bare.len] = '\0';
    *out = strtod(copy, &end);
    return !*end;
}

/* A text as int() reads it. */
static bool read_int(struct lb_jinja *j, const struct lb_jv *text, int64_t *out) {
    struct lb_jv none = lb_jv_none(), bare = lb_jtext_strip(j, text, &none, LB_SIDE_BOTH);
    size_t at = bare.len && (bare.s[0] == '-' || bare.s[0] == '+') ? 1 : 0;
    bool negative = at && bare.s[0] == '-';
    int64_t n = 0;
    if (at == bare.len || bare.len > 18) {
        return false;
    }
    for (; at < bare.len; at++) {
        if (bare.s[at] < '0' || bare.s[at] > '9') {
            return false;
        }
        n = n * 10 + bare.s[at] - '0';
    }
    *out = negative ? -n : n;
    return true;
}

FILTER(f_int) {
    UNUSED;
    double f = 0;
    int64_t i = 0;
    if (lb_jv_is_int(&value)) {
        return lb_jv_int(lb_jv_whole(&value));
    }
    if (value.kind == LB_JV_TEXT && read_int(j, &value, &i)) {
        return lb_jv_int(i);
    }
    bool is = value.kind == LB_JV_FLOAT || (value.kind == LB_JV_TEXT && read_float(j, &value, &f));
    f = value.kind == LB_JV_FLOAT ? value.f : f;
    if (is && fabs(f) < 9e18) {
        return lb_jv_int((int64_t)f);
    }
    if (is && !isnan(f) && !isinf(f)) {
        return lb_jinja_fail(j, LB_E_LIMIT, "a whole number beyond 64 bits");
    }
    return arg[0] ? *arg[0] : lb_jv_int(0);
}

FILTER(f_float) {
    UNUSED;
    double f;
    if (lb_jv_is_number(&value)) {
        return lb_jv_float(lb_jv_number(&value));
    }
    if (value.kind == LB_JV_TEXT && read_float(j, &value, &f)) {
        return lb_jv_float(f);
    }
    return arg[0] ? *arg[0] : lb_jv_float(0);
}

/* ---- any value ---- */

FILTER(f_default) {
    UNUSED;
    bool missing = value.kind == LB_JV_UNDEFINED || (flag(j, arg[1]) && !lb_jv_truth(j, &value));
    return !missing ? value : arg[0] ? *arg[0] : lb_jv_cstr("");
}

FILTER(f_length) {
    UNUSED;
    return lb_jv_int(lb_jv_length(j, &value));
}

/* The separators of json.dumps: a pair, or those that go with the indent. */
static bool separators(struct lb_jinja *j, const struct lb_jv *pair, struct lb_jdump *dump) {
    dump->item_separator = lb_jv_cstr(dump->indent ? "," : ", ");
    dump->key_separator = lb_jv_cstr(": ");
    if (!pair || pair->kind == LB_JV_NONE) {
        return true;
    }
    if (pair->kind != LB_JV_LIST || pair->list->n != 2 || pair->list->item[0].kind != LB_JV_TEXT ||
        pair->list->item[1].kind != LB_JV_TEXT) {
        lb_jinja_fail(j, LB_E_ARG, "tojson: separators are two texts");
        return false;
    }
    dump->item_separator = pair->list->item[0];
    dump->key_separator = pair->list->item[1];
    return true;
}

/* transformers' own: nothing is escaped for HTML. */
FILTER(f_tojson) {
    UNUSED;
    static const char spaces[] = "                                ";
    struct lb_jdump dump = {.ascii = flag(j, arg[0]), .sort_keys = flag(j, arg[3])};
    if (arg[1] && arg[1]->kind == LB_JV_TEXT) {
        dump.indent = arg[1]->s;
        dump.indent_len = arg[1]->len;
    } else if (arg[1] && arg[1]->kind != LB_JV_NONE) {
        int64_t width = number(j, arg[1], 0);
        if (width > (int64_t)sizeof spaces - 1) {
            return lb_jinja_fail(j, LB_E_LIMIT, "tojson: an indent of more than %zu", sizeof spaces - 1);
        }
        dump.indent = spaces;
        dump.indent_len = width < 0 ? 0 : (size_t)width;
    }
    struct lb_jbuilder b;
    lb_jb_init(&b, j);
    if (separators(j, arg[2], &dump)) {
        lb_jb_json(&b, &value, &dump);
    }
    return lb_jb_done(&b);
}

const struct lb_jfilter lb_jfilters_of_values[] = {
    {"trim", {"chars", 0, false}, 0, 0, f_trim},
    {"upper", {"", 0, false}, 0, 0, f_upper},
    {"lower", {"", 0, false}, 0, 0, f_lower},
    {"capitalize", {"", 0, false}, 0, 0, f_capitalize},
    {"title", {"", 0, false}, 0, 0, f_title},
    {"string", {"", 0, false}, 0, 0, f_string},
    {"safe", {"", 0, false}, 0, 0, f_safe},
    {"escape", {"", 0, false}, 0, 0, f_escape},
    {"e", {"", 0, false}, 0, 0, f_escape},
    {"replace", {"old,new,count", 2, false}, 0, 0, f_replace},
    {"format", {"", 0, true}, 0, 0, f_format},
    {"indent", {"width,first,blank", 0, false}, 0, 0, f_indent},
    {"abs", {"", 0, false}, 0, 0, f_abs},
    {"round", {"precision,method", 0, false}, 0, 0, f_round},
    {"int", {"default", 0, false}, 0, 0, f_int},
    {"float", {"default", 0, false}, 0, 0, f_float},
    {"default", {"default_value,boolean", 0, false}, 0, 0, f_default},
    {"d", {"default_value,boolean", 0, false}, 0, 0, f_default},
    {"length", {"", 0, false}, 0, 0, f_length},
    {"count", {"", 0, false}, 0, 0, f_length},
    {"tojson", {"ensure_ascii,indent,separators,sort_keys", 0, false}, 0, 0, f_tojson},
    {NULL, {"", 0, false}, 0, 0, NULL},
};
