#include "common/text/onig.h"

#include "common/base/utf8.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Oniguruma's \s in Unicode: White_Space. PCRE2's has U+180E too, and this is quicker as it names no
 * property. */
#define SPACE_SET                                                                                            \
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{"     \
    "3000}"
/* Oniguruma's \w: Alphabetic, marks, decimal digits, connectors, and six numbers of Latin-1; PCRE2's lacks
 * some and has others. */
#define WORD_SET                                                                                             \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{"     \
    "1f170}-\\x{1f189}"                                                                                      \
    "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

struct translation {
    const char *pattern;
    size_t len, pos;
    const char *what;
    struct lb_buf *out;
    struct lb_detail *detail;
};

static enum lb_status refuse(const struct translation *t, size_t at, size_t len, const char *why) {
    len = len > t->len - at ? t->len - at : len;
    return lb_fail(t->detail, LB_E_UNSUPPORTED, "%s: the regex has \"%.*s\" at byte %zu: %s", t->what,
                   (int)len, t->pattern + at, at, why);
}

/* The byte i places further on, 0 behind the end. */
static char peek(const struct translation *t, size_t i) {
    return i < t->len - t->pos ? t->pattern[t->pos + i] : '\0';
}

static bool starts(const struct translation *t, const char *text) {
    size_t n = strlen(text);
    return n <= t->len - t->pos && !memcmp(t->pattern + t->pos, text, n);
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_hex(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* \p{Name}, \P{Name}, \p{^Name}: general categories mean the same in both; scripts are the Script property in
 * Oniguruma, which PCRE2 writes sc: (without it, it takes Script_Extensions). */
static enum lb_status put_property(struct translation *t) {
    static const char *const categories[] = {"C",  "Cc", "Cf", "Cn", "Co", "L",  "Ll", "Lm", "Lo",
                                             "Lt", "Lu", "M",  "Mc", "Me", "Mn", "N",  "Nd", "Nl",
                                             "No", "P",  "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps",
                                             "S",  "Sc", "Sk", "Sm", "So", "Z",  "Zl", "Zp", "Zs"};
    static const char *const scripts[] = {"Arabic",   "Armenian", "Bengali", "Cyrillic", "Devanagari",
                                          "Georgian", "Greek",    "Han",     "Hangul",   "Hebrew",
                                          "Hiragana", "Katakana", "Khmer",   "Lao",      "Latin",
                                          "Tamil",    "Telugu",   "Thai",    "Tibetan"};
    size_t start = t->pos;
    bool negated = t->pattern[start + 1] == 'P';
    t->pos += 2;
    if (peek(t, 0) != '{') {
        return refuse(t, start, 3, "a property is written \\p{Name}");
    }
    t->pos++;
    if (peek(t, 0) == '^') {
        negated = !negated;
        t->pos++;
    }
    const char *name = t->pattern + t->pos;
    const char *close = memchr(name, '}', t->len - t->pos);
    if (!close) {
        return refuse(t, start, 12, "the property has no closing brace");
    }
    size_t n = (size_t)(close - name);
    t->pos += n + 1;
    for (size_t i = 0; i < sizeof categories / sizeof categories[0]; i++) {
        if (strlen(categories[i]) == n && !memcmp(categories[i], name, n)) {
            return lb_buf_printf(t->out, "\\%c{%s}", negated ? 'P' : 'p', categories[i]);
        }
    }
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        if (strlen(scripts[i]) == n && !memcmp(scripts[i], name, n)) {
            return lb_buf_printf(t->out, "\\%c{sc:%s}", negated ? 'P' : 'p', scripts[i]);
        }
    }
    return refuse(t, start, t->pos - start, "this property is not known here");
}

/* \xHH, \x{H...}, \uHHHH */
static enum lb_status put_code_point(struct translation *t) {
    size_t start = t->pos;
    bool braces = peek(t, 1) == 'x' && peek(t, 2) == '{';
    size_t wanted = peek(t, 1) == 'u' ? 4 : braces ? 6 : 2;
    t->pos += braces ? 3 : 2;
    uint32_t value = 0;
    size_t n = 0;
    while (n < wanted && is_hex(peek(t, 0))) {
        char c = peek(t, 0);
        value = value * 16 + (uint32_t)(is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
        t->pos++;
        n++;
    }
    if (n == 0 || (!braces && n != wanted) || (braces && peek(t, 0) != '}') || value > 0x10ffff) {
        return refuse(t, start, 10, "not a code point in hexadecimal");
    }
    if (!braces && wanted == 2 && value > 0x7f) {
        return refuse(t, start, 4, "a byte above 7f is no character in UTF-8; write \\x{..}");
    }
    t->pos += braces;
    return lb_buf_printf(t->out, "\\x{%x}", value);
}

/* A backslash and what follows. *out_set: the escape stands for a set, not for one character. */
static enum lb_status put_escape(struct translation *t, bool in_class, bool *out_set) {
    char c = peek(t, 1);
    *out_set = true;
    switch (c) {
    case 'p':
    case 'P':
        return put_property(t);
    case 's':
        t->pos += 2;
        return lb_buf_append_str(t->out, in_class ? SPACE_SET : "[" SPACE_SET "]");
    case 'w':
        t->pos += 2;
        return lb_buf_append_str(t->out, in_class ? WORD_SET : "[" WORD_SET "]");
    case 'S':
        t->pos += 2; /* within brackets: PCRE2's own \S, and what it lacks */
        return lb_buf_append_str(t->out, in_class ? "\\S\\x{180e}" : "[^" SPACE_SET "]");
    case 'W':
        if (in_class) {
            return refuse(t, t->pos, 2, "not supported within brackets");
        }
        t->pos += 2;
        return lb_buf_append_str(t->out, "[^" WORD_SET "]");
    case 'd':
    case 'D':
        t->pos += 2;
        return lb_buf_append_str(t->out, c == 'd' ? "\\p{Nd}" : "\\P{Nd}");
    default:
        break;
    }
    *out_set = false;
    if (c == 'x' || c == 'u') {
        return put_code_point(t);
    }
    if (c == 'v') { /* one character there, a set in PCRE2 */
        t->pos += 2;
        return lb_buf_append_str(t->out, "\\x0b");
    }
    if (c == '\0' || (uint8_t)c >= 0x80 || ((is_letter(c) || is_digit(c)) && !strchr("nrtfae", c))) {
        return refuse(t, t->pos, 2, "this escape is not supported");
    }
    t->pos += 2;
    char text[2] = {'\\', c};
    return lb_buf_append(t->out, text, 2);
}

/* A bracket expression. A plain set within it is Oniguruma's union, and joins the outer one. */
static enum lb_status put_class(struct translation *t) {
    size_t start = t->pos;
    int depth = 1;
    bool negated = peek(t, 1) == '^';
    t->pos += negated ? 2 : 1;
    lb_buf_append_str(t->out, negated ? "[^" : "[");
    if (peek(t, 0) == ']') {
        return refuse(t, start, 3, "a set that begins with ] (write \\])");
    }
    /* What stands before: a hyphen makes a range only between two single characters. */
    enum { NOTHING, CHARACTER, RANGE } last = NOTHING;
    while (t->pos < t->len) {
        char c = peek(t, 0);
        bool set = false;
        if (c == ']') {
            t->pos++;
            last = NOTHING;
            if (--depth == 0) {
                return lb_buf_append(t->out, "]", 1);
            }
        } else if (c == '[') {
            if (peek(t, 1) == ':' || peek(t, 1) == '^' || peek(t, 1) == ']') {
                return refuse(t, t->pos, 10, "only plain sets are supported within a set");
            }
            t->pos++;
            depth++;
            last = NOTHING;
        } else if (c == '&' && peek(t, 1) == '&') {
            return refuse(t, t->pos, 2, "intersections of sets are not supported");
        } else if (c == '-') {
            char after = peek(t, 1);
            bool to_set = after == '\\' && peek(t, 2) && strchr("pPsSwWdD", peek(t, 2));
            bool range = last == CHARACTER && after != ']' && after != '[' && !to_set;
            lb_buf_append_str(t->out, range ? "-" : "\\-");
            t->pos++;
            last = range ? RANGE : NOTHING;
        } else if (c == '\\') {
            enum lb_status status = put_escape(t, true, &set);
            if (status != LB_OK) {
                return status;
            }
            last = set || last == RANGE ? NOTHING : CHARACTER;
        } else {
            size_t n = lb_utf8_char((const uint8_t *)t->pattern + t->pos, t->len - t->pos);
            if (!n || !c) {
                return refuse(t, t->pos, 1, "not text");
            }
            lb_buf_append(t->out, t->pattern + t->pos, n);
            t->pos += n;
            last = last == RANGE ? NOTHING : CHARACTER;
        }
    }
    return refuse(t, start, 20, "the set has no closing bracket");
}

/* An opening parenthesis: groups whose meaning is the same in both. */
static enum lb_status put_group(struct translation *t) {
    static const char *const known[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?-i:"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (starts(t, known[i])) {
            t->pos += strlen(known[i]);
            return lb_buf_append_str(t->out, known[i]);
        }
    }
    if (starts(t, "(?i)") && t->pos == 0) { /* further on, the two disagree about how far it reaches */
        t->pos += 4;
        return lb_buf_append_str(t->out, "(?i)");
    }
    if (peek(t, 1) == '?' || peek(t, 1) == '*') {
        return refuse(t, t->pos, 4, "this kind of group is not supported");
    }
    t->pos++;
    return lb_buf_append(t->out, "(", 1);
}

/* {n}, {n,}, {n,m} with an optional ? behind the last two. */
static enum lb_status put_interval(struct translation *t) {
    size_t start = t->pos;
    size_t i = 1;
    while (is_digit(peek(t, i))) {
        i++;
    }
    bool comma = i > 1 && peek(t, i) == ',';
    i += comma;
    while (comma && is_digit(peek(t, i))) {
        i++;
    }
    if (i == 1 || peek(t, i) != '}') {
        return refuse(t, start, i + 1, "a brace that begins no {n,m} (write \\{)");
    }
    i++;
    if (peek(t, i) == '+' || (!comma && peek(t, i) == '?')) {
        return refuse(t, start, i + 1, "this means different things to Oniguruma and PCRE2");
    }
    t->pos += i;
    return lb_buf_append(t->out, t->pattern + start, i);
}

enum lb_status lb_onig_translate(const char *pattern, size_t len, const char *what, struct lb_buf *out,
                                 struct lb_detail *detail) {
    struct translation t = {.pattern = pattern, .len = len, .what = what, .out = out, .detail = detail};
    while (t.pos < len) {
        enum lb_status status = LB_OK;
        bool set;
        char c = peek(&t, 0);
        switch (c) {
        case '\\':
            status = put_escape(&t, false, &set);
            break;
        case '[':
            status = put_class(&t);
            break;
        case '(':
            status = put_group(&t);
            break;
        case '{':
            status = put_interval(&t);
            break;
        case '^':
        case '$':
            status = refuse(&t, t.pos, 1, "line anchors are not supported");
            break;
        case '\0':
            status = refuse(&t, t.pos, 1, "a NUL byte");
            break;
        default:
            status = lb_buf_append(out, &c, 1);
            t.pos++;
            break;
        }
        if (status != LB_OK) {
            return lb_fail(detail, status, "%s: the regex is too long", what);
        }
    }
    return lb_buf_status(out);
}
