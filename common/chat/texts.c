#include "common/chat/texts.h"

#include "common/base/utf8.h"
#include "common/text/letters.h"

#include <stdio.h>
#include <string.h>

static bool in_set(const struct lb_jv *chars, uint32_t c) {
    if (chars->kind != LB_JV_TEXT) {
        return lb_is_blank(c);
    }
    for (size_t at = 0; at < chars->len;) {
        if (lb_utf8_next(chars->s, &at) == c) {
            return true;
        }
    }
    return false;
}

struct lb_jv lb_jtext_strip(struct lb_jinja *j, const struct lb_jv *text, const struct lb_jv *chars,
                            int side) {
    size_t start = 0, end = text->len;
    while ((side & LB_SIDE_LEFT) && start < end && lb_jinja_step(j, 1)) {
        size_t at = start;
        if (!in_set(chars, lb_utf8_next(text->s, &at))) {
            break;
        }
        start = at;
    }
    while ((side & LB_SIDE_RIGHT) && end > start && lb_jinja_step(j, 1)) {
        size_t at = end;
        if (!in_set(chars, lb_utf8_previous(text->s, &at))) {
            break;
        }
        end = at;
    }
    return lb_jv_part(text, start, end);
}

/* The place of part in text[from..), SIZE_MAX for nowhere; part is not empty. */
static size_t find_from(const struct lb_jv *text, const struct lb_jv *part, size_t from) {
    const char *at =
        text->len - from >= part->len ? memmem(text->s + from, text->len - from, part->s, part->len) : NULL;
    return at ? (size_t)(at - text->s) : SIZE_MAX;
}

/* The last place of part that ends at or before end. */
static size_t find_before(const struct lb_jv *text, const struct lb_jv *part, size_t end) {
    for (size_t at = end < part->len ? 0 : end - part->len + 1; at-- > 0;) {
        if (!memcmp(text->s + at, part->s, part->len)) {
            return at;
        }
    }
    return SIZE_MAX;
}

int64_t lb_jtext_find(const struct lb_jv *text, const struct lb_jv *part, bool last) {
    if (!part->len) {
        return last ? (int64_t)text->len : 0;
    }
    size_t at = last ? find_before(text, part, text->len) : find_from(text, part, 0);
    return at == SIZE_MAX ? -1 : (int64_t)at;
}

bool lb_jtext_begins(const struct lb_jv *text, const struct lb_jv *part) {
    return text->len >= part->len && !memcmp(text->s, part->s, part->len);
}

bool lb_jtext_ends(const struct lb_jv *text, const struct lb_jv *part) {
    return text->len >= part->len && !memcmp(text->s + text->len - part->len, part->s, part->len);
}

static void turn(struct lb_jlist *list) {
    for (size_t i = 0; i < list->n / 2; i++) {
        struct lb_jv item = list->item[i];
        list->item[i] = list->item[list->n - 1 - i];
        list->item[list->n - 1 - i] = item;
    }
}

static void split_at(struct lb_jinja *j, const struct lb_jv *text, const struct lb_jv *separator, int64_t max,
                     struct lb_jv out) {
    size_t done = 0, at;
    while (max-- != 0 && j->status == LB_OK && (at = find_from(text, separator, done)) != SIZE_MAX) {
        lb_jlist_put(j, out, lb_jv_part(text, done, at));
        done = at + separator->len;
    }
    lb_jlist_put(j, out, lb_jv_part(text, done, text->len));
}

static void split_at_right(struct lb_jinja *j, const struct lb_jv *text, const struct lb_jv *separator,
                           int64_t max, struct lb_jv out) {
    size_t end = text->len, at;
    while (max-- != 0 && j->status == LB_OK && (at = find_before(text, separator, end)) != SIZE_MAX) {
        lb_jlist_put(j, out, lb_jv_part(text, at + separator->len, end));
        end = at;
    }
    lb_jlist_put(j, out, lb_jv_part(text, 0, end));
    turn(out.list);
}

/* The end of the run of blank (not blank) characters at from. */
static size_t run(const struct lb_jv *text, size_t from, bool blank) {
    while (from < text->len) {
        size_t at = from;
        if (lb_is_blank(lb_utf8_next(text->s, &at)) != blank) {
            break;
        }
        from = at;
    }
    return from;
}

static void split_blank(struct lb_jinja *j, const struct lb_jv *text, int64_t max, struct lb_jv out) {
    size_t at = run(text, 0, true);
    while (at < text->len && j->status == LB_OK) {
        size_t end = max-- == 0 ? text->len : run(text, at, false);
        lb_jlist_put(j, out, lb_jv_part(text, at, end));
        at = run(text, end, true);
    }
}

struct lb_jv lb_jtext_split(struct lb_jinja *j, const struct lb_jv *text, const struct lb_jv *separator,
                            int64_t max, bool from_right) {
    struct lb_jv out = lb_jv_list(j, LB_SORT_LIST, 4);
    if (j->status != LB_OK || !lb_jinja_step(j, text->len / 16)) {
        return out;
    }
    if (separator->kind != LB_JV_TEXT) {
        if (from_right && max >= 0) {
            return lb_jinja_fail(j, LB_E_UNSUPPORTED,
                                 "rsplit() at white space with a maximum is not supported");
        }
        split_blank(j, text, max, out);
    } else if (!separator->len) {
        return lb_jinja_fail(j, LB_E_ARG, "split() at an empty text");
    } else if (from_right) {
        split_at_right(j, text, separator, max, out);
    } else {
        split_at(j, text, separator, max, out);
    }
    return out;
}

static bool ends_line(uint32_t c) {
    return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

struct lb_jv lb_jtext_lines(struct lb_jinja *j, const struct lb_jv *text, bool keep_ends) {
    struct lb_jv out = lb_jv_list(j, LB_SORT_LIST, 8);
    size_t start = 0, at = 0;
    while (at < text->len && lb_jinja_step(j, 1)) {
        size_t stop = at;
        uint32_t c = lb_utf8_next(text->s, &at);
        if (ends_line(c)) {
            at += c == '\r' && at < text->len && text->s[at] == '\n' ? 1 : 0;
            lb_jlist_put(j, out, lb_jv_part(text, start, keep_ends ? at : stop));
            start = at;
        }
    }
    if (start < text->len && j->status == LB_OK) {
        lb_jlist_put(j, out, lb_jv_part(text, start, text->len));
    }
    return out;
}

struct lb_jv lb_jtext_replace(struct lb_jinja *j, const struct lb_jv *text, const struct lb_jv *from,
                              const struct lb_jv *to, int64_t max) {
    struct lb_jbuilder b;
    size_t done = 0;
    lb_jb_init(&b, j);
    while (max-- != 0 && j->status == LB_OK) {
        size_t at = done;
        if (from->len) {
            at = find_from(text, from, done);
            if (at == SIZE_MAX) {
                break;
            }
            lb_jb_put(&b, text->s + done, at - done, text->mark ? text->mark + done : NULL);
            lb_jb_text(&b, to);
            done = at + from->len;
        } else { /* before each character and at the end */
            lb_jb_text(&b, to);
            if (done == text->len) {
                break;
            }
            lb_utf8_next(text->s, &at);
            lb_jb_put(&b, text->s + done, at - done, text->mark ? text->mark + done : NULL);
            done = at;
        }
        lb_jinja_step(j, 1);
    }
    lb_jb_put(&b, text->s + done, text->len - done, text->mark ? text->mark + done : NULL);
    return lb_jb_done(&b);
}

static bool cased(uint32_t c) {
    return lb_is_upper(c) || lb_is_lower(c) || lb_is_title(c);
}

struct lb_jv lb_jtext_case(struct lb_jinja *j, const struct lb_jv *text, enum lb_jcase to) {
    struct lb_jbuilder b;
    bool inside = false; /* title: behind a cased character; capitalize: behind the first one */
    lb_jb_init(&b, j);
    for (size_t at = 0; at < text->len && j->status == LB_OK;) {
        size_t start = at;
        uint32_t c = lb_utf8_next(text->s, &at);
        bool first = (to == LB_CASE_TITLE || to == LB_CASE_CAPITALIZE) && !inside;
        int32_t changed = first ? lb_to_title(c) : to == LB_CASE_UPPER ? lb_to_upper(c) : lb_to_lower(c);
        if (changed < 0) {
            return lb_jinja_fail(j, LB_E_UNSUPPORTED, "the other case of U+%04X is not supported", c);
        }
        lb_jb_char(&b, (uint32_t)changed, text->mark ? text->mark[start] : 0);
        inside = to == LB_CASE_TITLE ? cased(c) : true;
    }
    return lb_jb_done(&b);
}

struct lb_jv lb_jtext_join(struct lb_jinja *j, const struct lb_jv *between, const struct lb_jlist *list) {
    struct lb_jbuilder b;
    lb_jb_init(&b, j);
    for (size_t i = 0; i < list->n && lb_jinja_step(j, 1); i++) {
        if (i) {
            lb_jb_text(&b, between);
        }
        lb_jb_value(&b, &list->item[i]);
    }
    return lb_jb_done(&b);
}

int64_t lb_jtext_characters(const struct lb_jv *text, size_t n) {
    int64_t count = 0;
    for (size_t at = 0; at < n; count++) {
        lb_utf8_next(text->s, &at);
    }
    return count;
}

/* ---- % ---- */

/* One %s, %r, %d, %i, %f (with a precision). Returns the bytes read behind %, 0 when it is not understood. */
static size_t percent_one(struct lb_jbuilder *b, const char *spec, size_t len, const struct lb_jv *value) {
    size_t at = 0;
    int precision = -1;
    if (at < len && spec[at] == '.') {
        precision = 0;
        for (at = 1; at < len && spec[at] >= '0' && spec[at] <= '9' && precision < 20; at++) {
            precision = precision * 10 + spec[at] - '0';
        }
    }
    char type = at < len ? spec[at] : '\0', text[400];
    if (type == 's' && precision < 0) {
        lb_jb_value(b, value);
    } else if (type == 'r' && precision < 0) {
        lb_jb_repr(b, value);
    } else if ((type == 'd' || type == 'i') && precision < 0 && lb_jv_is_int(value)) {
        struct lb_jv whole = lb_jv_int(lb_jv_whole(value));
        lb_jb_value(b, &whole);
    } else if (type == 'f' && lb_jv_is_number(value)) {
        snprintf(text, sizeof text, "%.*f", precision < 0 ? 6 : precision, lb_jv_number(value));
        lb_jb_str(b, text);
    } else {
        return 0;
    }
    return at + 1;
}

struct lb_jv lb_jtext_percent(struct lb_jinja *j, const struct lb_jv *format, const struct lb_jv *values) {
    bool tuple = values->kind == LB_JV_LIST && values->list->sort == LB_SORT_TUPLE;
    const struct lb_jv *list = tuple ? values->list->item : values;
    size_t n = tuple ? values->list->n : 1, used = 0, done = 0;
    struct lb_jbuilder b;
    lb_jb_init(&b, j);
    for (size_t at = 0; at < format->len && j->status == LB_OK; at++) {
        if (format->s[at] != '%') {
            continue;
        }
        lb_jb_put(&b, format->s + done, at - done, format->mark ? format->mark + done : NULL);
        size_t read = at + 1 < format->len && format->s[at + 1] == '%' ? 1 : 0;
        if (read) {
            lb_jb_str(&b, "%");
        } else if (used == n) {
            return lb_jinja_fail(j, LB_E_ARG, "%% has more places than values");
        } else {
            read = percent_one(&b, format->s + at + 1, format->len - at - 1, &list[used++]);
        }
        if (!read && j->status == LB_OK) {
            return lb_jinja_fail(j, LB_E_UNSUPPORTED,
                                 "%% takes %%s, %%r, %%d, %%i, %%f and %%%% with a value of that kind");
        }
        at += read;
        done = at + 1;
    }
    if (used < n && values->kind != LB_JV_DICT) {
        return lb_jinja_fail(j, LB_E_ARG, "%% has fewer places than values");
    }
    lb_jb_put(&b, format->s + done, format->len - done, format->mark ? format->mark + done : NULL);
    return lb_jb_done(&b);
}
