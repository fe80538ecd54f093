#include "common/text/unicode.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/unicode_data.h"

#include <string.h>
#include <utf8proc.h>

#define MAX_POINTS ((size_t)1 << 31)
#define N_CLASSES 256
#define FEW_MARKS 24

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define IN(table, c) in_ranges(table, COUNT(table), c)

static bool in_ranges(const struct lb_range *table, size_t n, uint32_t c) {
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (table[middle].last < c) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < n && table[low].first <= c;
}

bool lb_is_word(uint32_t c) {
    if (c < 0x80) {
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
    }
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default: /* the symbols that are Alphabetic, the joiners, and what utf8proc does not know */
        return (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
               (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189) || c == 0x200c ||
               c == 0x200d || IN(more_words, c);
    }
}

bool lb_is_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

bool lb_is_number(uint32_t c) {
    if (c < 0x80) {
        return c >= '0' && c <= '9';
    }
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
           category == UTF8PROC_CATEGORY_NO || IN(more_numbers, c);
}

bool lb_is_punctuation(uint32_t c) {
    if (c < 0x80) {
        return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
               (c >= '{' && c <= '~');
    }
    return IN(punctuation, c);
}

bool lb_is_dropped(uint32_t c) {
    return c < 0x80 ? (c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f : IN(control, c);
}

bool lb_is_accent(uint32_t c) {
    return c >= 0x80 && IN(accents, c);
}

bool lb_is_mark(uint32_t c) {
    return c >= 0x80 && IN(marks, c);
}

int lb_lower(uint32_t c, uint32_t out[2]) {
    if (c < 0x80) {
        out[0] = c >= 'A' && c <= 'Z' ? c + 32 : c;
        return 1;
    }
    if (c == 0x130) { /* the one capital with two (SpecialCasing.txt) */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    for (size_t i = 0; i < COUNT(lowered); i++) {
        if (c >= lowered[i].first && c <= lowered[i].last) {
            out[0] = (uint32_t)((int32_t)c + lowered[i].distance);
            return 1;
        }
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    return 1;
}

/* ---- normal forms ---- */

static enum lb_status reserve(int32_t **data, size_t *cap, size_t n) {
    if (n > *cap) {
        if (n > MAX_POINTS) {
            return LB_E_LIMIT;
        }
        size_t grown = n < MAX_POINTS / 2 ? n + n / 2 + 64 : n;
        int32_t *more = lb_realloc_array(*data, grown, sizeof **data);
        if (!more) {
            return LB_E_NOMEM;
        }
        *data = more;
        *cap = grown;
    }
    return LB_OK;
}

static int combining_class(int32_t c) {
    return c < 0x300 || IN(inert, (uint32_t)c) ? 0 : utf8proc_get_property(c)->combining_class;
}

/* Orders n marks by their combining class, equal ones as they stand; quick also where a text has a million of
 * them in a row. */
static enum lb_status order_marks(struct lb_points *points, size_t start, size_t n) {
    int32_t *mark = points->data + start;
    if (n <= FEW_MARKS) {
        for (size_t i = 1; i < n; i++) {
            int32_t c = mark[i];
            int class = combining_class(c);
            size_t at = i;
            for (; at > 0 && combining_class(mark[at - 1]) > class; at--) {
                mark[at] = mark[at - 1];
            }
            mark[at] = c;
        }
        return LB_OK;
    }
    enum lb_status status = reserve(&points->spare, &points->spare_cap, n);
    if (status != LB_OK) {
        return status;
    }
    size_t place[N_CLASSES + 1] = {0};
    for (size_t i = 0; i < n; i++) {
        place[combining_class(mark[i]) + 1]++;
    }
    for (int class = 0; class < N_CLASSES; class ++) {
        place[class + 1] += place[class];
    }
    memcpy(points->spare, mark, n * sizeof *mark);
    for (size_t i = 0; i < n; i++) {
        mark[place[combining_class(points->spare[i])]++] = points->spare[i];
    }
    return LB_OK;
}

/* Appends the form of text, which holds nothing inert. */
static enum lb_status put_form(int options, const char *text, size_t len, struct lb_points *points) {
    size_t start = points->n, pos = 0, n_marks = 0;
    enum lb_status status = LB_OK;
    while (pos < len && status == LB_OK) {
        int32_t c = (int32_t)lb_utf8_next(text, &pos);
        int bound = 0;
        status = reserve(&points->data, &points->cap, points->n + 1);
        while (status == LB_OK) {
            utf8proc_ssize_t n = utf8proc_decompose_char(c, points->data + points->n,
                                                         (utf8proc_ssize_t)(points->cap - points->n),
                                                         (utf8proc_option_t)options, &bound);
            if (n < 0) {
                return LB_E_LIMIT;
            }
            if (points->n + (size_t)n <= points->cap) {
                points->n += (size_t)n;
                break;
            }
            status = reserve(&points->data, &points->cap, points->n + (size_t)n);
        }
    }
    for (size_t i = start; i <= points->n && status == LB_OK; i++) {
        if (i < points->n && combining_class(points->data[i]) > 0) {
            n_marks++;
            continue;
        }
        status = n_marks > 1 ? order_marks(points, i - n_marks, n_marks) : LB_OK;
        n_marks = 0;
    }
    if (status == LB_OK && (options & UTF8PROC_COMPOSE)) {
        utf8proc_ssize_t n = utf8proc_normalize_utf32(
            points->data + start, (utf8proc_ssize_t)(points->n - start), (utf8proc_option_t)options);
        if (n < 0) {
            return LB_E_INTERNAL;
        }
        points->n = start + (size_t)n;
    }
    return status;
}

/* Up to where the text holds plain ASCII only, without the last letter where a mark may follow it. */
static size_t plain_end(const char *text, size_t start, size_t len) {
    size_t end = start;
    while (end < len && (uint8_t)text[end] < 0x80) {
        end++;
    }
    return end < len && end > start ? end - 1 : end;
}

enum lb_status lb_form_points(enum lb_form form, const char *text, size_t len, struct lb_points *points) {
    int options = UTF8PROC_STABLE;
    options |= form == LB_NFC || form == LB_NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    options |= form == LB_NFKC || form == LB_NFKD ? UTF8PROC_COMPAT : 0;
    points->n = 0;
    enum lb_status status = reserve(&points->data, &points->cap, len);
    size_t at = 0;
    while (at < len && status == LB_OK) {
        size_t end = plain_end(text, at, len);
        status = reserve(&points->data, &points->cap, points->n + (end - at));
        while (at < end && status == LB_OK) {
            points->data[points->n++] = (uint8_t)text[at++];
        }
        /* From here to the next ASCII character or to what stays as it is: nothing beyond has a say. */
        size_t stop = at;
        bool stays = false;
        while (stop < len && !stays && (stop == at || (uint8_t)text[stop] >= 0x80)) {
            size_t next = stop;
            stays = IN(inert, lb_utf8_next(text, &next));
            stop = stays ? stop : next;
        }
        status = status == LB_OK ? put_form(options, text + at, stop - at, points) : status;
        at = stop;
        if (status == LB_OK && stays) {
            status = reserve(&points->data, &points->cap, points->n + 1);
            if (status == LB_OK) {
                points->data[points->n++] = (int32_t)lb_utf8_next(text, &at);
            }
        }
    }
    return status;
}

bool lb_same_grapheme(uint32_t left, uint32_t right) {
    if (left < 0x80 && right < 0x80) {
        return left == '\r' && right == '\n';
    }
    int before = utf8proc_get_property((utf8proc_int32_t)left)->boundclass;
    if (before == UTF8PROC_BOUNDCLASS_CONTROL || before == UTF8PROC_BOUNDCLASS_CR ||
        before == UTF8PROC_BOUNDCLASS_LF) {
        return false;
    }
    return IN(more_extending, right) ||
           !utf8proc_grapheme_break((utf8proc_int32_t)left, (utf8proc_int32_t)right);
}

/* ---- characters newer than PCRE2 ---- */

int lb_newer_range(uint32_t c) {
    size_t low = 0, high = COUNT(newer);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (newer[middle].last < c) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < COUNT(newer) && newer[low].first <= c ? (int)low : -1;
}

int lb_newer_ranges(void) {
    return (int)COUNT(newer);
}

void lb_newer_bounds(int range, uint32_t *first, uint32_t *last) {
    *first = newer[range].first;
    *last = newer[range].last;
}

uint32_t lb_stand_in(int range, int which) {
    return newer[range].stands[which];
}

bool lb_same_category(uint32_t a, uint32_t b) {
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)a);
    return category != UTF8PROC_CATEGORY_CN && category == utf8proc_category((utf8proc_int32_t)b);
}
