#include "common/chat/lexer.h"

#include "common/base/utf8.h"
#include "common/text/letters.h"
#include "common/text/normalize.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NESTING 200

struct lexer {
    struct lb_arena *arena;
    const char *s; /* with line feeds as the only newlines, without the last one */
    size_t len, at;
    int line;
    bool line_starting; /* the token before ended with a line feed */
    const char *what;
    struct lb_jtokens *out;
    struct lb_detail *detail;
};

static enum lb_status no_memory(const struct lexer *x) {
    return lb_fail(x->detail, LB_E_NOMEM, "%s: out of memory for the template", x->what);
}

static enum lb_status bad(const struct lexer *x, const char *text) {
    return lb_fail(x->detail, LB_E_FORMAT, "%s: line %d: %s", x->what, x->line, text);
}

static enum lb_status put(struct lexer *x, struct lb_jtoken token) {
    struct lb_jtokens *t = x->out;
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 256;
        struct lb_jtoken *more = lb_arena_array(x->arena, cap, sizeof *more);
        if (!more) {
            return no_memory(x);
        }
        if (t->n) {
            memcpy(more, t->token, t->n * sizeof *more);
        }
        t->token = more;
        t->cap = cap;
    }
    t->token[t->n] = token;
    t->token[t->n++].line = x->line;
    return LB_OK;
}

static bool here(const struct lexer *x, size_t at, const char *text) {
    size_t n = strlen(text);
    return x->len - at >= n && !memcmp(x->s + at, text, n);
}

/* Moves to `to`, counting lines. */
static void go(struct lexer *x, size_t to) {
    for (; x->at < to; x->at++) {
        x->line += x->s[x->at] == '\n';
    }
}

/* Behind the white space at `at`. */
static size_t skip_space(const struct lexer *x, size_t at) {
    while (at < x->len) {
        size_t next = at;
        if (!lb_is_blank(lb_utf8_next(x->s, &next))) {
            break;
        }
        at = next;
    }
    return at;
}

/* Line feeds only, and one at the end dropped. */
static enum lb_status normalize(struct lexer *x, const char *text, size_t len) {
    char *s = lb_arena_array(x->arena, len + 1, 1);
    if (!s) {
        return no_memory(x);
    }
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\r') {
            i += i + 1 < len && text[i + 1] == '\n' ? 1 : 0;
            s[n++] = '\n';
        } else {
            s[n++] = text[i];
        }
    }
    x->s = s;
    x->len = n > 0 && s[n - 1] == '\n' ? n - 1 : n;
    return LB_OK;
}

/* ---- outside of tags ---- */

/* Where text[start..end) before a tag ends once the tag's sign has taken its white space. */
static size_t strip(const struct lexer *x, size_t start, size_t end, char sign, bool block) {
    size_t line = end;
    if (sign == '-') {
        while (end > start) {
            size_t at = end;
            if (!lb_is_blank(lb_utf8_previous(x->s, &at))) {
                break;
            }
            end = at;
        }
        return end;
    }
    while (line > start && x->s[line - 1] != '\n') {
        line--;
    }
    bool strips = sign != '+' && block && (line > start || x->line_starting);
    return strips && skip_space(x, line) >= end ? line : end;
}

static enum lb_status put_data(struct lexer *x, size_t start, size_t end) {
    return end > start ? put(x, (struct lb_jtoken){.kind = LB_JT_DATA, .s = x->s + start, .len = end - start})
                       : LB_OK;
}

/* Behind the end of a tag at `at` (its sign included), 0 when there is none. plus: +%} is one; trims: eats
 * one line feed. */
static size_t tag_end(const struct lexer *x, size_t at, const char *mark, bool block) {
    size_t n = strlen(mark);
    if (at < x->len && x->s[at] == '-' && here(x, at + 1, mark)) {
        return skip_space(x, at + 1 + n);
    }
    if (block && at < x->len && x->s[at] == '+' && here(x, at + 1, mark)) {
        return at + 1 + n;
    }
    if (!here(x, at, mark)) {
        return 0;
    }
    at += n;
    return at + (block && at < x->len && x->s[at] == '\n' ? 1 : 0);
}

static void leave_tag(struct lexer *x, size_t end) {
    x->line_starting = x->s[end - 1] == '\n';
    go(x, end);
}

static char sign_at(const struct lexer *x, size_t at) {
    return at < x->len && (x->s[at] == '-' || x->s[at] == '+') ? x->s[at] : '\0';
}

static enum lb_status lex_comment(struct lexer *x) {
    for (size_t at = x->at; at < x->len; at++) {
        size_t end = tag_end(x, at, "#}", true);
        if (end) {
            leave_tag(x, end);
            return LB_OK;
        }
    }
    return bad(x, "a comment without its end #}");
}

/* Behind {%- raw -%} at `at`, 0 when something else is there. */
static size_t raw_begin(const struct lexer *x, size_t at) {
    at = skip_space(x, at + 2 + (sign_at(x, at + 2) ? 1 : 0));
    if (!here(x, at, "raw")) {
        return 0;
    }
    at = skip_space(x, at + 3);
    if (here(x, at, "-%}")) {
        return skip_space(x, at + 3);
    }
    return here(x, at, "%}") ? at + 2 : 0;
}

static enum lb_status lex_raw(struct lexer *x, size_t start) {
    leave_tag(x, start);
    for (size_t at = start; at < x->len; at++) {
        if (!here(x, at, "{%")) {
            continue;
        }
        char sign = sign_at(x, at + 2);
        size_t name = skip_space(x, at + 2 + (sign ? 1 : 0));
        size_t end = here(x, name, "endraw") ? tag_end(x, skip_space(x, name + 6), "%}", true) : 0;
        if (end) {
            enum lb_status status = put_data(x, start, strip(x, start, at, sign, true));
            leave_tag(x, end);
            return status;
        }
    }
    return bad(x, "{% raw %} without its {% endraw %}");
}

/* ---- inside of tags ---- */

static bool digit(char c, int base) {
    return base == 16 ? strchr("0123456789abcdefABCDEF", c) && c
                      : c >= '0' && c < '0' + (base > 10 ? 10 : base);
}

static size_t digits(const struct lexer *x, size_t at, int base) {
    while (at < x->len &&
           (digit(x->s[at], base) || (x->s[at] == '_' && at + 1 < x->len && digit(x->s[at + 1], base)))) {
        at++;
    }
    return at;
}

static enum lb_status lex_number(struct lexer *x) {
    size_t start = x->at, at = digits(x, start, 10), n = 0;
    bool real = false;
    int base = 10;
    char text[64];
    if (x->s[start] == '0' && at == start + 1 && at < x->len && strchr("xXbBoO", x->s[at])) {
        base = x->s[at] == 'x' || x->s[at] == 'X' ? 16 : x->s[at] == 'b' || x->s[at] == 'B' ? 2 : 8;
        start = at + 1;
        at = digits(x, start, base);
    } else {
        if (at + 1 < x->len && x->s[at] == '.' && digit(x->s[at + 1], 10)) {
            real = true;
            at = digits(x, at + 1, 10);
        }
        size_t sign = at + 1 + (at + 1 < x->len && (x->s[at + 1] == '-' || x->s[at + 1] == '+') ? 1 : 0);
        if (at < x->len && (x->s[at] == 'e' || x->s[at] == 'E') && sign < x->len && digit(x->s[sign], 10)) {
            real = true;
            at = digits(x, sign, 10);
        }
    }
    for (size_t i = start; i < at && n < sizeof text - 1; i++) {
        if (x->s[i] != '_') {
            text[n++] = x->s[i];
        }
    }
    text[n] = '\0';
    struct lb_jtoken token = {.kind = real ? LB_JT_FLOAT : LB_JT_INT};
    errno = 0;
    token.f = real ? strtod(text, NULL) : 0;
    token.i = real ? 0 : strtoll(text, NULL, base);
    if (at - start > sizeof text - 1 || n == 0 || (!real && errno)) {
        return bad(x, "a number that is too large");
    }
    enum lb_status status = put(x, token);
    go(x, at);
    return status;
}

/* A code point written in n digits of base at s; the digits there are. */
static size_t read_code(const char *s, size_t len, size_t n, int base, uint32_t *out) {
    size_t i = 0;
    for (*out = 0; i < n && i < len && digit(s[i], base); i++) {
        char c = s[i];
        *out = *out * (uint32_t)base + (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return i;
}

/* The escape behind a backslash: what it stands for is appended to out; returns the bytes read, 0 for one
 * that is wrong. */
static size_t unescape(const char *s, size_t len, char *out, size_t *n) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    uint32_t c;
    const char *known = s[0] ? strchr(from, s[0]) : NULL;
    if (known) {
        out[(*n)++] = to[known - from];
        return 1;
    }
    if (s[0] == '\n') {
        return 1;
    }
    if (s[0] >= '0' && s[0] <= '7') {
        size_t read = read_code(s, len, 3, 8, &c);
        *n += lb_utf8_put(c, out + *n);
        return read;
    }
    if (s[0] == 'x' || s[0] == 'u' || s[0] == 'U') {
        size_t want = s[0] == 'x' ? 2 : s[0] == 'u' ? 4 : 8;
        if (read_code(s + 1, len - 1, want, 16, &c) != want || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
            return 0;
        }
        *n += lb_utf8_put(c, out + *n);
        return want + 1;
    }
    if (s[0] == 'N') {
        return 0;
    }
    out[(*n)++] = '\\'; /* Python keeps what it doesn't know */
    return SIZE_MAX;
}

static enum lb_status lex_string(struct lexer *x) {
    char quote = x->s[x->at];
    size_t end = x->at + 1, n = 0;
    while (end < x->len && x->s[end] != quote) {
        end += x->s[end] == '\\' && end + 1 < x->len ? 2 : 1;
    }
    if (end >= x->len) {
        return bad(x, "a string without its end");
    }
    char *s = lb_arena_array(x->arena, (end - x->at) * 2, 1);
    if (!s) {
        return no_memory(x);
    }
    for (size_t at = x->at + 1; at < end;) {
        if (x->s[at] != '\\') {
            s[n++] = x->s[at++];
            continue;
        }
        size_t read = unescape(x->s + at + 1, end - at - 1, s, &n);
        if (!read) {
            return bad(x, "an escape in a string that is not supported");
        }
        at += 1 + (read == SIZE_MAX ? 0 : read);
    }
    enum lb_status status = put(x, (struct lb_jtoken){.kind = LB_JT_STRING, .s = s, .len = n});
    go(x, end + 1);
    return status;
}

static enum lb_status lex_operator(struct lexer *x, char *closing, int *depth) {
    static const struct {
        const char *text;
        char op;
    } twos[] = {{"**", 'P'}, {"//", 'F'}, {"==", 'E'}, {"!=", 'N'}, {">=", 'G'}, {"<=", 'L'}};
    char c = x->s[x->at];
    for (size_t i = 0; i < sizeof twos / sizeof twos[0]; i++) {
        if (here(x, x->at, twos[i].text)) {
            enum lb_status status = put(x, (struct lb_jtoken){.kind = LB_JT_OPERATOR, .op = twos[i].op});
            go(x, x->at + 2);
            return status;
        }
    }
    if (!c || !strchr("+-*/%~[](){}<>=.:|,", c)) {
        return lb_fail(x->detail, LB_E_FORMAT,
                       "%s: line %d: the character 0x%02x is no part of an expression", x->what, x->line,
                       (unsigned)(uint8_t)c);
    }
    if (strchr("([{", c)) {
        if (*depth == MAX_NESTING) {
            return bad(x, "brackets within brackets too deep");
        }
        closing[(*depth)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (strchr(")]}", c) && (*depth == 0 || closing[--*depth] != c)) {
        return bad(x, "brackets that do not match");
    }
    enum lb_status status = put(x, (struct lb_jtoken){.kind = LB_JT_OPERATOR, .op = c});
    go(x, x->at + 1);
    return status;
}

static enum lb_status lex_name(struct lexer *x) {
    size_t end = x->at;
    while (end < x->len) {
        size_t next = end;
        if (!lb_is_word(lb_utf8_next(x->s, &next))) {
            break;
        }
        end = next;
    }
    if (end == x->at) {
        return bad(x, "a character that is no part of an expression");
    }
    enum lb_status status =
        put(x, (struct lb_jtoken){.kind = LB_JT_NAME, .s = x->s + x->at, .len = end - x->at});
    go(x, end);
    return status;
}

/* From behind the tag's begin to behind its end. */
static enum lb_status lex_tag(struct lexer *x, bool block) {
    char closing[MAX_NESTING];
    int depth = 0;
    enum lb_status status = LB_OK;
    while (status == LB_OK) {
        size_t end = depth ? 0 : tag_end(x, x->at, block ? "%}" : "}}", block);
        if (end) {
            status = put(x, (struct lb_jtoken){.kind = block ? LB_JT_BLOCK_END : LB_JT_VARIABLE_END});
            leave_tag(x, end);
            return status;
        }
        size_t at = skip_space(x, x->at);
        if (at > x->at) {
            go(x, at);
        } else if (x->at >= x->len) {
            status = bad(x, "a tag without its end");
        } else if (digit(x->s[x->at], 10)) {
            status = lex_number(x);
        } else if (x->s[x->at] == '\'' || x->s[x->at] == '"') {
            status = lex_string(x);
        } else if (x->s[x->at] == '_' || (uint8_t)x->s[x->at] >= 0x80 ||
                   ((x->s[x->at] | 0x20) >= 'a' && (x->s[x->at] | 0x20) <= 'z')) {
            status = lex_name(x);
        } else {
            status = lex_operator(x, closing, &depth);
        }
    }
    return status;
}

/* The next place of {{, {% or {#; len when there is none. */
static size_t next_tag(const struct lexer *x) {
    for (size_t at = x->at; at + 1 < x->len; at++) {
        if (x->s[at] == '{' && strchr("{%#", x->s[at + 1]) && x->s[at + 1]) {
            return at;
        }
    }
    return x->len;
}

enum lb_status lb_jinja_lex(struct lb_arena *arena, const char *text, size_t len, const char *what,
                            struct lb_jtokens *out, struct lb_detail *detail) {
    struct lexer x = {
        .arena = arena, .line = 1, .line_starting = true, .what = what, .out = out, .detail = detail};
    enum lb_status status = normalize(&x, text, len);
    while (status == LB_OK && x.at < x.len) {
        size_t tag = next_tag(&x);
        if (tag == x.len) {
            status = put_data(&x, x.at, tag);
            go(&x, tag);
            break;
        }
        char kind = x.s[tag + 1], sign = sign_at(&x, tag + 2);
        size_t raw = kind == '%' ? raw_begin(&x, tag) : 0;
        status = put_data(&x, x.at, strip(&x, x.at, tag, sign, kind != '{'));
        go(&x, tag);
        if (status != LB_OK) {
            break;
        }
        x.line_starting = false;
        if (raw) {
            status = lex_raw(&x, raw);
            continue;
        }
        go(&x, tag + 2 + (sign ? 1 : 0));
        if (kind == '#') {
            status = lex_comment(&x);
            continue;
        }
        status = put(&x, (struct lb_jtoken){.kind = kind == '%' ? LB_JT_BLOCK_BEGIN : LB_JT_VARIABLE_BEGIN});
        status = status != LB_OK ? status : lex_tag(&x, kind == '%');
    }
    return status != LB_OK ? status : put(&x, (struct lb_jtoken){.kind = LB_JT_END});
}
