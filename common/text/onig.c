#include "common/text/onig.h"

#include "common/base/utf8.h"
#include "common/text/onig_names.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define MAX_NAME 32
#define MAX_GROUPS 250
#define MAX_SETS 8

/* A bracket expression that is being read. What it matches is one character of plain, or one of the
 * expressions of others; parts are what && has put aside. */
struct set {
    struct lb_buf plain, others, parts;
    bool negated;
};

struct translation {
    const char *pattern;
    size_t len, pos;
    const char *what;
    struct lb_buf *out, *named;
    size_t atom; /* where in out the last atom begins, which a quantifier is about; SIZE_MAX: none */
    struct {
        size_t start; /* in out */
        int more;     /* parentheses to close with it: options that reach to the end of a group */
    } group[MAX_GROUPS + 1];
    int depth;
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

/* Notes a character or range that the pattern names. */
static void name_range(const struct translation *t, uint32_t first, uint32_t last) {
    struct lb_onig_range range = {first, last};
    if (t->named && last >= 0x800) {
        lb_buf_append(t->named, &range, sizeof range);
    }
}

/* ---- properties ---- */

/* Reads a name up to end, a brace or colon, into name. False when it is too long or does not end. */
static bool read_name(struct translation *t, char end, char name[MAX_NAME]) {
    size_t n = 0;
    while (t->pos < t->len && peek(t, 0) != end) {
        char c = peek(t, 0);
        t->pos++;
        if (c == ' ' || c == '-' || c == '_') {
            continue;
        }
        if (n + 1 >= MAX_NAME || (!is_letter(c) && !is_digit(c))) {
            return false;
        }
        name[n++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
    }
    name[n] = '\0';
    return t->pos++ < t->len;
}

/* A set with or without brackets around it: negated ones need them, within others they are one more
 * expression. */
static void put_set(struct translation *t, struct set *in, const char *text, bool negated) {
    const char *brace = strchr(text, '}');
    bool one = text[0] == '\\' && text[1] == 'p' && brace && !brace[1];
    if (in && !negated) {
        lb_buf_append_str(&in->plain, text);
    } else if (one && negated) {
        lb_buf_printf(in ? &in->plain : t->out, "\\P%s", text + 2);
    } else if (one) {
        lb_buf_append_str(t->out, text);
    } else {
        lb_buf_printf(in ? &in->others : t->out, negated ? "%s[^%s]" : "%s[%s]", in ? "|" : "", text);
    }
}

/* \p{Name}, \P{Name}, \p{^Name} */
static enum lb_status put_property(struct translation *t, struct set *in) {
    size_t start = t->pos;
    bool negated = t->pattern[start + 1] == 'P';
    char name[MAX_NAME];
    t->pos += 2;
    if (peek(t, 0) != '{') {
        return refuse(t, start, 3, "a property is written \\p{Name}");
    }
    t->pos++;
    if (peek(t, 0) == '^') {
        negated = !negated;
        t->pos++;
    }
    if (!memchr(t->pattern + t->pos, '}', t->len - t->pos)) {
        return refuse(t, start, 12, "the property has no closing brace");
    }
    struct lb_buf text;
    lb_buf_init(&text, 1024);
    bool known = read_name(t, '}', name) && lb_onig_put_name(name, &text);
    enum lb_status status = lb_buf_status(&text);
    if (known && status == LB_OK) {
        put_set(t, in, text.data, negated);
    }
    lb_buf_finish(&text);
    return known ? status : refuse(t, start, MAX_NAME, "this property is not known here");
}

/* [:name:], [:^name:] within brackets */
static enum lb_status put_posix(struct translation *t, struct set *in) {
    size_t start = t->pos;
    char name[MAX_NAME];
    bool negated = peek(t, 2) == '^';
    t->pos += negated ? 3 : 2;
    bool read = read_name(t, ':', name) && peek(t, 0) == ']';
    t->pos++;
    const char *set = read ? lb_onig_set(name) : NULL;
    if (set) {
        put_set(t, in, set, negated);
    }
    return set ? LB_OK : refuse(t, start, 12, "this POSIX class is not known here");
}

/* ---- escapes ---- */

/* \xHH, \x{H...}, \uHHHH: the code point. */
static enum lb_status read_code_point(struct translation *t, uint32_t *out) {
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
    *out = value;
    return LB_OK;
}

/* A backslash and what stands for a set of characters: true when it is one. */
static bool put_set_escape(struct translation *t, struct set *in, enum lb_status *status) {
    char c = peek(t, 1);
    *status = LB_OK;
    switch (c) {
    case 'p':
    case 'P':
        *status = put_property(t, in);
        return true;
    case 's':
    case 'w':
    case 'h':
        put_set(t, in, c == 's' ? LB_ONIG_SPACE : c == 'w' ? LB_ONIG_WORD : LB_ONIG_HEX, false);
        break;
    case 'S':
        if (in) { /* PCRE2's own \S, and what it lacks */
            lb_buf_append_str(&in->plain, "\\S\\x{180e}");
        } else {
            put_set(t, in, LB_ONIG_SPACE, true);
        }
        break;
    case 'W':
    case 'H':
        put_set(t, in, c == 'W' ? LB_ONIG_WORD : LB_ONIG_HEX, true);
        break;
    case 'd':
    case 'D':
        lb_buf_append_str(in ? &in->plain : t->out, c == 'd' ? "\\p{Nd}" : "\\P{Nd}");
        break;
    default:
        return false;
    }
    t->pos += 2;
    return true;
}

/* A backslash and what stands for one character, which goes to out. */
static enum lb_status put_character_escape(struct translation *t, struct lb_buf *out, uint32_t *code_point) {
    char c = peek(t, 1);
    *code_point = (uint8_t)c;
    if (c == 'x' || c == 'u') {
        enum lb_status status = read_code_point(t, code_point);
        return status != LB_OK ? status : lb_buf_printf(out, "\\x{%x}", *code_point);
    }
    if (c == 'v') { /* one character there, a set in PCRE2 */
        t->pos += 2;
        return lb_buf_append_str(out, "\\x0b");
    }
    if (c == '\0' || (uint8_t)c >= 0x80 || ((is_letter(c) || is_digit(c)) && !strchr("nrtfae", c))) {
        return refuse(t, t->pos, 2, "this escape is not supported");
    }
    t->pos += 2;
    char text[2] = {'\\', c};
    return lb_buf_append(out, text, 2);
}

/* A backslash outside brackets: also places in the text. */
static enum lb_status put_escape(struct translation *t) {
    static const struct {
        char escape;
        const char *text;
    } places[] = {{'b', "(?:(?<=[" LB_ONIG_WORD "])(?![" LB_ONIG_WORD "])|(?<![" LB_ONIG_WORD
                        "])(?=[" LB_ONIG_WORD "]))"},
                  {'B', "(?:(?<=[" LB_ONIG_WORD "])(?=[" LB_ONIG_WORD "])|(?<![" LB_ONIG_WORD
                        "])(?![" LB_ONIG_WORD "]))"},
                  {'A', "\\A"},
                  {'z', "\\z"},
                  {'Z', "\\Z"},
                  {'R', "\\R"},
                  {'N', "[^\\n]"},
                  {'O', "(?s:.)"}};
    enum lb_status status;
    uint32_t code_point;
    t->atom = t->out->len;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (peek(t, 1) == places[i].escape) {
            t->pos += 2;
            return lb_buf_append_str(t->out, places[i].text);
        }
    }
    if (put_set_escape(t, NULL, &status)) {
        return status;
    }
    status = put_character_escape(t, t->out, &code_point);
    name_range(t, code_point, code_point);
    return status;
}

/* ---- bracket expressions ---- */

static void set_init(struct set *set, bool negated) {
    size_t most = (size_t)1 << 22;
    *set = (struct set){.negated = negated};
    lb_buf_init(&set->plain, most);
    lb_buf_init(&set->others, most);
    lb_buf_init(&set->parts, most);
}

static void set_finish(struct set *set) {
    lb_buf_finish(&set->plain);
    lb_buf_finish(&set->others);
    lb_buf_finish(&set->parts);
}

/* The first failure of what the set is kept in. */
static enum lb_status set_status(const struct set *set) {
    enum lb_status status = lb_buf_status(&set->plain);
    status = status == LB_OK ? lb_buf_status(&set->others) : status;
    return status == LB_OK ? lb_buf_status(&set->parts) : status;
}

/* The set as one expression; others begins with a bar. False when there is nothing in it. */
static bool put_union(const struct set *set, struct lb_buf *out) {
    if (!set->others.len) {
        return set->plain.len && lb_buf_printf(out, "[%s]", set->plain.data) == LB_OK;
    }
    if (set->plain.len) {
        return lb_buf_printf(out, "(?:[%s]%s)", set->plain.data, set->others.data) == LB_OK;
    }
    return lb_buf_printf(out, "(?:%s)", set->others.data + 1) == LB_OK;
}

/* What has been read so far has to match as well as what follows. */
static bool put_aside(struct set *set) {
    if (set_status(set) != LB_OK) {
        return false;
    }
    lb_buf_append_str(&set->parts, "(?=");
    bool some = put_union(set, &set->parts);
    lb_buf_append_str(&set->parts, ")");
    lb_buf_reset(&set->plain);
    lb_buf_reset(&set->others);
    return some;
}

/* The closed set into out, or into the one around it. */
static bool close_set(const struct set *set, struct set *around, struct lb_buf *out) {
    bool simple = !set->others.len && !set->parts.len;
    if ((simple && !set->plain.len) || set_status(set) != LB_OK) {
        return false;
    }
    if (simple && around && !set->negated) {
        return lb_buf_append(&around->plain, set->plain.data, set->plain.len) == LB_OK;
    }
    struct lb_buf *to = around ? &around->others : out;
    lb_buf_append_str(to, around ? "|" : "");
    if (simple) {
        return lb_buf_printf(to, set->negated ? "[^%s]" : "[%s]", set->plain.data) == LB_OK;
    }
    lb_buf_append_str(to, set->negated ? "(?:(?!" : "(?:");
    lb_buf_append_str(to, set->parts.len ? set->parts.data : "");
    bool some = put_union(set, to);
    return lb_buf_append_str(to, set->negated ? ")(?s:.))" : ")") == LB_OK && some;
}

/* What stands before a hyphen in a set: it makes a range only between two single characters. */
enum before { NOTHING, CHARACTER, RANGE };

/* One character of a set, or the second of a range that begins at *first. */
static enum lb_status put_member(struct translation *t, struct set *set, enum before *last, uint32_t *first) {
    enum lb_status status = LB_OK;
    uint32_t code_point = 0;
    if (peek(t, 0) == '\\') {
        if (put_set_escape(t, set, &status)) {
            *last = NOTHING;
            return status;
        }
        status = put_character_escape(t, &set->plain, &code_point);
    } else {
        size_t n = lb_utf8_char((const uint8_t *)t->pattern + t->pos, t->len - t->pos), at = t->pos;
        if (!n || !peek(t, 0)) {
            return refuse(t, t->pos, 1, "not text");
        }
        code_point = lb_utf8_next(t->pattern, &at);
        /* PCRE2 would take "[:" and its like for a POSIX class. */
        lb_buf_append_str(&set->plain, n == 1 && strchr("[^", peek(t, 0)) ? "\\" : "");
        lb_buf_append(&set->plain, t->pattern + t->pos, n);
        t->pos += n;
    }
    name_range(t, *last == RANGE ? *first : code_point, code_point);
    *first = code_point;
    *last = *last == RANGE ? NOTHING : CHARACTER;
    return status;
}

static enum lb_status put_hyphen(struct translation *t, struct set *set, enum before *last) {
    char after = peek(t, 1);
    bool to_set = after == '\\' && peek(t, 2) && strchr("pPsSwWdDhH", peek(t, 2));
    bool range = *last == CHARACTER && after != ']' && after != '[' && !to_set;
    t->pos++;
    *last = range ? RANGE : NOTHING;
    return lb_buf_append_str(&set->plain, range ? "-" : "\\-");
}

/* Reads one piece of the innermost of the open sets; *depth falls to 0 when all are closed. */
static enum lb_status put_in_set(struct translation *t, struct set *open, int *depth, enum before *last,
                                 uint32_t *first) {
    struct set *set = &open[*depth - 1];
    char c = peek(t, 0);
    if (c == ']') {
        enum lb_status status = set_status(set);
        bool good = close_set(set, *depth > 1 ? set - 1 : NULL, t->out);
        set_finish(set);
        --*depth;
        *last = NOTHING;
        t->pos++;
        status = status == LB_OK ? lb_buf_status(t->out) : status;
        return good || status != LB_OK ? status : refuse(t, t->pos - 1, 1, "a set without anything in it");
    }
    if (c == '[' && peek(t, 1) == ':') {
        *last = NOTHING;
        return put_posix(t, set);
    }
    if (c == '[') {
        bool negated = peek(t, 1) == '^';
        if (*depth == MAX_SETS || peek(t, negated ? 2 : 1) == ']') {
            return refuse(t, t->pos, 3, "sets too deep in each other, or one that begins with ] (write \\])");
        }
        set_init(&open[(*depth)++], negated);
        t->pos += negated ? 2 : 1;
        *last = NOTHING;
        return LB_OK;
    }
    if (c == '&' && peek(t, 1) == '&') {
        t->pos += 2;
        *last = NOTHING;
        return put_aside(set)             ? LB_OK
               : set_status(set) != LB_OK ? set_status(set)
                                          : refuse(t, t->pos - 2, 2, "an intersection with nothing");
    }
    return c == '-' ? put_hyphen(t, set, last) : put_member(t, set, last, first);
}

static enum lb_status put_class(struct translation *t) {
    size_t start = t->pos;
    struct set open[MAX_SETS];
    int depth = 1;
    bool negated = peek(t, 1) == '^';
    enum before last = NOTHING;
    uint32_t first = 0;
    t->atom = t->out->len;
    t->pos += negated ? 2 : 1;
    if (peek(t, 0) == ']') {
        return refuse(t, start, 3, "a set that begins with ] (write \\])");
    }
    set_init(&open[0], negated);
    enum lb_status status = LB_OK;
    while (depth > 0 && t->pos < t->len && status == LB_OK) {
        status = put_in_set(t, open, &depth, &last, &first);
    }
    if (status == LB_OK && depth > 0) {
        status = refuse(t, start, 20, "the set has no closing bracket");
    }
    while (depth > 0) {
        set_finish(&open[--depth]);
    }
    return status;
}

/* ---- groups and quantifiers ---- */

static enum lb_status open_group(struct translation *t, const char *text, size_t skip) {
    if (t->depth == MAX_GROUPS) {
        return refuse(t, t->pos, 4, "groups too deep in each other");
    }
    t->depth++;
    t->group[t->depth].start = t->out->len;
    t->group[t->depth].more = 0;
    t->atom = SIZE_MAX;
    t->pos += skip;
    return lb_buf_append_str(t->out, text);
}

/* (?i), (?m-i:...): i as in PCRE2; m lets the dot match a line feed, which is s there. Options without a
 * colon reach to the end of the group around them, its alternatives included. */
static enum lb_status put_options(struct translation *t) {
    size_t i = 2, n = 0;
    char text[16] = "(?";
    bool off = false;
    for (; peek(t, i) == 'i' || peek(t, i) == 'm' || peek(t, i) == '-'; i++) {
        off = off || peek(t, i) == '-';
        if (n++ == 8) {
            break;
        }
        text[n + 1] = peek(t, i) == 'm' ? 's' : peek(t, i);
    }
    text[n + 2] = ':';
    if (n == 0 || n > 8 || (peek(t, i) != ':' && peek(t, i) != ')')) {
        return refuse(t, t->pos, 4, "this kind of group is not supported");
    }
    if (peek(t, i) == ':') {
        return open_group(t, text, i + 1);
    }
    t->pos += i + 1;
    t->atom = SIZE_MAX;
    if (t->out->len == 0) {
        text[n + 2] = ')';
        return lb_buf_append_str(t->out, text);
    }
    t->group[t->depth].more++;
    return lb_buf_append_str(t->out, text);
}

/* An opening parenthesis: groups whose meaning is the same in both. */
static enum lb_status put_group(struct translation *t) {
    static const char *const known[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (starts(t, known[i])) {
            return open_group(t, known[i], strlen(known[i]));
        }
    }
    if (starts(t, "(?#")) {
        const char *end = memchr(t->pattern + t->pos, ')', t->len - t->pos);
        if (!end) {
            return refuse(t, t->pos, 4, "the comment has no end");
        }
        t->pos = (size_t)(end - t->pattern) + 1;
        return LB_OK;
    }
    if (starts(t, "(?<") || starts(t, "(?'")) { /* nothing here asks what a group has caught */
        char close = peek(t, 2) == '<' ? '>' : '\'';
        const char *end = memchr(t->pattern + t->pos + 3, close, t->len - t->pos - 3);
        if (!end || end == t->pattern + t->pos + 3) {
            return refuse(t, t->pos, 4, "the group's name has no end");
        }
        return open_group(t, "(?:", (size_t)(end - t->pattern) + 1 - t->pos);
    }
    if (peek(t, 1) == '?') {
        return put_options(t);
    }
    return open_group(t, "(", 1);
}

static enum lb_status close_group(struct translation *t) {
    if (t->depth == 0) {
        return refuse(t, t->pos, 1, "a parenthesis that nothing opens");
    }
    for (; t->group[t->depth].more > 0; t->group[t->depth].more--) {
        lb_buf_append_str(t->out, ")");
    }
    t->atom = t->group[t->depth--].start;
    t->pos++;
    return lb_buf_append_str(t->out, ")");
}

/* Puts "(?:" before the last atom and its quantifier and closes it. */
static enum lb_status wrap_atom(struct translation *t) {
    size_t n = t->out->len - t->atom;
    lb_buf_append_str(t->out, "(?:)");
    if (lb_buf_status(t->out) == LB_OK) {
        char *at = t->out->data + t->atom;
        memmove(at + 3, at, n);
        memcpy(at, "(?:", 3);
        at[n + 3] = ')';
    }
    return lb_buf_status(t->out);
}

/* {n}, {n,}, {,m}, {n,m}, with ? behind all but the first for as few as possible. A plus behind it, and the
 * question mark behind the first, is a quantifier of its own in Oniguruma. */
static enum lb_status put_interval(struct translation *t) {
    size_t start = t->pos;
    size_t i = 1;
    while (is_digit(peek(t, i))) {
        i++;
    }
    bool low = i > 1, comma = peek(t, i) == ',';
    size_t high = i + comma;
    i = high;
    while (comma && is_digit(peek(t, i))) {
        i++;
    }
    if (peek(t, i) != '}' || (!low && i == high)) {
        return refuse(t, start, i + 1, "a brace that begins no {n,m} (write \\{)");
    }
    if (t->atom == SIZE_MAX) {
        return refuse(t, start, i + 1, "there is nothing before it that could be repeated");
    }
    i++;
    t->pos += i;
    lb_buf_append_str(t->out, low ? "{" : "{0");
    lb_buf_append(t->out, t->pattern + start + 1, i - 1);
    if (peek(t, 0) == '+' || (!comma && peek(t, 0) == '?')) {
        return wrap_atom(t);
    }
    return lb_buf_status(t->out);
}

/* A character that stands for itself, a quantifier, or a bar. */
static enum lb_status put_other(struct translation *t) {
    char c = peek(t, 0);
    size_t n = 1;
    if (c == '|') {
        t->atom = SIZE_MAX;
    } else if (!strchr("*+?", c)) {
        size_t at = t->pos;
        uint32_t code_point = lb_utf8_next(t->pattern, &at);
        n = at - t->pos;
        t->atom = t->out->len;
        name_range(t, code_point, code_point);
    }
    t->pos += n;
    return lb_buf_append(t->out, t->pattern + t->pos - n, n);
}

enum lb_status lb_onig_translate(const char *pattern, size_t len, const char *what, struct lb_buf *out,
                                 struct lb_buf *named, struct lb_detail *detail) {
    struct translation t = {.pattern = pattern,
                            .len = len,
                            .what = what,
                            .out = out,
                            .named = named,
                            .atom = SIZE_MAX,
                            .detail = detail};
    while (t.pos < len) {
        enum lb_status status = LB_OK;
        switch (peek(&t, 0)) {
        case '\\':
            status = put_escape(&t);
            break;
        case '[':
            status = put_class(&t);
            break;
        case '(':
            status = put_group(&t);
            break;
        case ')':
            status = close_group(&t);
            break;
        case '{':
            status = put_interval(&t);
            break;
        case '^': /* both know lines by themselves, and no end behind the last line feed */
        case '$':
            t.atom = out->len;
            status = lb_buf_append_str(out, peek(&t, 0) == '^' ? "(?m:^)" : "(?m:$)");
            t.pos++;
            break;
        case '\0':
            status = refuse(&t, t.pos, 1, "a NUL byte");
            break;
        default:
            status = put_other(&t);
            break;
        }
        if (status != LB_OK) {
            return lb_fail(detail, status, "%s: the regex is too long", what);
        }
    }
    for (; t.depth == 0 && t.group[0].more > 0; t.group[0].more--) {
        lb_buf_append_str(out, ")");
    }
    return lb_buf_status(out);
}
