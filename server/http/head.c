#include "server/http/head.h"

#include "proto/oip.h"

#include <string.h>
#include <strings.h>

#define MAX_METHOD 16
#define MAX_EMPTY_LINES 4

/* Empty lines in front of a request are ignored (RFC 9112, 2.2), a few of them; returns their bytes. */
static size_t skip_empty_lines(const char *text, size_t len) {
    size_t n = 0;
    while (n < (size_t)2 * MAX_EMPTY_LINES && n + 1 < len && text[n] == '\r' && text[n + 1] == '\n') {
        n += 2;
    }
    return n;
}

static bool is_token_char(char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

size_t lb_head_end(const char *text, size_t len, size_t from) {
    /* The empty line may have begun before. */
    size_t at = from > 3 ? from - 3 : 0;
    size_t begin = skip_empty_lines(text, len);
    if (begin + 1 < len && text[begin] == '\r' && text[begin + 1] == '\n') {
        return begin + 2; /* nothing but empty lines: to be refused */
    }
    if (begin < len && text[begin] != '\r' && !is_token_char(text[begin])) {
        return len; /* no request begins so (TLS, say): to be refused, whatever else may come */
    }
    at = at < begin ? begin : at;
    while (at < len) {
        const char *line = memchr(text + at, '\n', len - at);
        if (!line) {
            return 0;
        }
        at = (size_t)(line - text) + 1;
        if (at < len && text[at] == '\n') {
            return at + 1;
        }
        if (at + 1 < len && text[at] == '\r' && text[at + 1] == '\n') {
            return at + 2;
        }
    }
    return 0;
}

/* Control characters but the tab; what lies above ASCII is let through. */
static bool is_control(char c) {
    return ((unsigned char)c < 0x20 && c != '\t') || c == 0x7f;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place, but for escaped slashes and percent signs, which stay as they are: only who splits the path into
 * segments may decode them (lb_segment_decode), or a name with a slash would be another path. False for a
 * broken escape or one of NUL. */
static bool decode_path(char *path) {
    char *to = path;
    for (const char *from = path; *from; from++) {
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        int high = hex_digit(from[1]), low = high >= 0 ? hex_digit(from[2]) : -1;
        if (low < 0 || high * 16 + low == 0) {
            return false;
        }
        int c = high * 16 + low;
        if (c == '/' || c == '%') {
            memcpy(to, c == '/' ? "%2F" : "%25", 3);
            to += 3;
        } else {
            *to++ = (char)c;
        }
        from += 2;
    }
    *to = '\0';
    return true;
}

void lb_segment_decode(char *segment) {
    char *to = segment;
    for (const char *from = segment; *from; from++) {
        bool escaped = *from == '%' && hex_digit(from[1]) >= 0 && hex_digit(from[2]) >= 0;
        *to++ = escaped ? (char)(hex_digit(from[1]) * 16 + hex_digit(from[2])) : *from;
        from += escaped ? 2 : 0;
    }
    *to = '\0';
}

static int refuse(const char **out_why, int status, const char *why) {
    *out_why = why;
    return status;
}

/* "METHOD target HTTP/1.1" */
static int parse_request_line(char *line, struct lb_request_head *out, const char **out_why) {
    char *space = strchr(line, ' '), *last = strrchr(line, ' ');
    if (!space || space == last || space == line || space - line > MAX_METHOD) {
        return refuse(out_why, 400, "the request's first line must be METHOD PATH HTTP/1.1");
    }
    for (const char *p = line; p < space; p++) {
        if (!is_token_char(*p)) {
            return refuse(out_why, 400, "the request's first line must be METHOD PATH HTTP/1.1");
        }
    }
    *space = *last = '\0';
    const char *version = last + 1;
    if (strncmp(version, "HTTP/", 5) != 0) {
        return refuse(out_why, 400, "the request's first line must be METHOD PATH HTTP/1.1");
    }
    if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0) {
        return refuse(out_why, 505, "this daemon speaks HTTP/1.1");
    }
    char *target = space + 1;
    if (strncasecmp(target, "http://", 7) == 0 || strncasecmp(target, "https://", 8) == 0) {
        target = strchr(target, '/') + 2; /* the absolute form, as to a proxy */
        target += strcspn(target, "/?#");
    }
    if (*target != '/') {
        return refuse(out_why, 400, "the request's path must begin with /");
    }
    for (const char *p = target; *p; p++) {
        if (is_control(*p) || *p == ' ' || *p == '\t' || *p == '#') {
            return refuse(out_why, 400, "the request's path holds a character that must be escaped");
        }
    }
    target[strcspn(target, "?")] = '\0';
    if (!decode_path(target)) {
        return refuse(out_why, 400, "the request's path holds %00 or a % without two hex digits behind it");
    }
    out->method = line;
    out->path = target;
    out->minor = version[7] - '0';
    out->keep_alive = out->minor == 1;
    return 0;
}

static int parse_header_line(char *line, struct lb_request_head *out, const char **out_why) {
    char *p = line;
    while (is_token_char(*p)) {
        p++;
    }
    if (*p != ':' || p == line) {
        return refuse(out_why, 400,
                      *line == ' ' || *line == '\t'
                          ? "a header goes on in a second line, which HTTP/1.1 has given up"
                      : *p == ' ' || *p == '\t' ? "a space stands between a header's name and its colon"
                                                : "a header must be NAME: VALUE");
    }
    *p++ = '\0';
    p += strspn(p, " \t");
    size_t len = strlen(p);
    while (len > 0 && (p[len - 1] == ' ' || p[len - 1] == '\t')) {
        p[--len] = '\0';
    }
    for (size_t i = 0; i < len; i++) {
        if (is_control(p[i])) {
            return refuse(out_why, 400, "a header's value holds a control character");
        }
    }
    if (out->n_headers == LB_MAX_HEADERS) {
        return refuse(out_why, 431, "more than 100 headers");
    }
    out->headers[out->n_headers].name = line;
    out->headers[out->n_headers++].value = p;
    return 0;
}

const char *lb_head_find(const struct lb_request_head *head, const char *name) {
    for (size_t i = 0; i < head->n_headers; i++) {
        if (strcasecmp(head->headers[i].name, name) == 0) {
            return head->headers[i].value;
        }
    }
    return NULL;
}

static int parse_length(const char *value, struct lb_request_head *out, const char **out_why) {
    uint64_t length = 0;
    size_t digits = strspn(value, "0123456789");
    if (digits == 0 || value[digits] != '\0') {
        return refuse(out_why, 400, "Content-Length is not a number of bytes");
    }
    for (size_t i = 0; i < digits; i++) {
        if (length > (UINT64_MAX - 9) / 10) {
            return refuse(out_why, 413, "Content-Length is larger than any body this daemon takes");
        }
        length = length * 10 + (uint64_t)(value[i] - '0');
    }
    if (out->has_length && length != out->length) {
        return refuse(out_why, 400, "Content-Length is given twice, with different values");
    }
    out->has_length = true;
    out->length = length;
    return 0;
}

/* *out_close: set when the connection is to be closed, whatever else is said. */
static void parse_connection(const char *value, struct lb_request_head *out, bool *out_close) {
    while (*value) {
        value += strspn(value, ", \t");
        size_t len = strcspn(value, ", \t");
        if (len == 5 && strncasecmp(value, "close", 5) == 0) {
            *out_close = true;
        }
        if (len == 10 && strncasecmp(value, "keep-alive", 10) == 0) {
            out->keep_alive = true;
        }
        value += len;
    }
}

/* Headers that say one thing: given twice, two readers could take different ones. */
static int check_singles(const struct lb_request_head *out, const char **out_why) {
    static const struct {
        const char *name, *why;
    } single[] = {
#define SINGLE(name) {name, "the header " name " is given twice, with different values"}
        SINGLE("Authorization"), SINGLE("Content-Type"), SINGLE("Content-Encoding"),
        SINGLE(LB_HEADER_JSON_LENGTH), SINGLE("If-None-Match")};
#undef SINGLE
    for (size_t k = 0; k < sizeof single / sizeof *single; k++) {
        const char *first = NULL;
        for (size_t i = 0; i < out->n_headers; i++) {
            if (strcasecmp(out->headers[i].name, single[k].name) != 0) {
                continue;
            }
            if (first && strcmp(first, out->headers[i].value) != 0) {
                return refuse(out_why, 400, single[k].why);
            }
            first = out->headers[i].value;
        }
    }
    return 0;
}

static int check_framing(struct lb_request_head *out, const char **out_why) {
    int n_hosts = 0, status = 0;
    bool close = false;
    for (size_t i = 0; i < out->n_headers && status == 0; i++) {
        const char *name = out->headers[i].name, *value = out->headers[i].value;
        if (strcasecmp(name, "Host") == 0) {
            n_hosts++;
        } else if (strcasecmp(name, "Content-Length") == 0) {
            status = parse_length(value, out, out_why);
        } else if (strcasecmp(name, "Transfer-Encoding") == 0) {
            if (out->chunked) {
                status = refuse(out_why, 400, "Transfer-Encoding is given twice");
            } else if (strcasecmp(value, "chunked") != 0) {
                status = refuse(out_why, 501, "Transfer-Encoding: only chunked is understood");
            }
            out->chunked = true;
        } else if (strcasecmp(name, "Connection") == 0) {
            parse_connection(value, out, &close);
        } else if (strcasecmp(name, "Expect") == 0) {
            bool known = strcasecmp(value, "100-continue") == 0;
            status = known ? 0 : refuse(out_why, 417, "Expect: only 100-continue is known");
            out->expects_continue = known && out->minor == 1; /* RFC 9110, 10.1.1 */
        }
    }
    out->keep_alive &= !close;
    if (status != 0) {
        return status;
    }
    if (n_hosts > 1 || (n_hosts == 0 && out->minor == 1)) {
        return refuse(out_why, 400,
                      n_hosts ? "the header Host is given more than once" : "the header Host is missing");
    }
    if (out->chunked && (out->has_length || out->minor == 0)) {
        return refuse(out_why, 400,
                      out->has_length ? "both Content-Length and Transfer-Encoding tell where the body ends"
                                      : "HTTP/1.0 has no Transfer-Encoding");
    }
    return check_singles(out, out_why);
}

int lb_head_parse(char *text, size_t len, struct lb_request_head *out, const char **out_why) {
    memset(out, 0, sizeof *out);
    out->method = out->path = "";
    char *at = text + skip_empty_lines(text, len), *end = text + len;
    if (memchr(at, '\0', (size_t)(end - at))) {
        return refuse(out_why, 400, "the request's head holds a NUL byte");
    }
    bool first = true;
    while (at < end) {
        char *line_end = memchr(at, '\n', (size_t)(end - at));
        if (!line_end || line_end == at || line_end[-1] != '\r') {
            return refuse(out_why, 400, "a line of the request's head doesn't end in CR LF");
        }
        line_end[-1] = '\0';
        if (*at == '\0') {
            break;
        }
        int status = first ? parse_request_line(at, out, out_why) : parse_header_line(at, out, out_why);
        if (status != 0) {
            return status;
        }
        first = false;
        at = line_end + 1;
    }
    return first ? refuse(out_why, 400, "the request is empty") : check_framing(out, out_why);
}

/* ---- chunks ---- */

enum {
    SIZE,
    SIZE_SPACE,
    EXTENSION,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER,
    TRAILER_LINE,
    TRAILER_LF,
    LAST_LF
};
#define MAX_DIGITS 15
#define MAX_EXTRA 8192

static bool size_char(struct lb_chunks *c, char ch) {
    bool space = ch == ' ' || ch == '\t';
    int digit = c->state == SIZE ? hex_digit(ch) : -1;
    if (digit >= 0) {
        c->left = c->left * 16 + (uint64_t)digit;
        return ++c->digits <= MAX_DIGITS;
    }
    if (c->digits == 0) {
        return false;
    }
    c->state = ch == '\r' ? SIZE_LF : space ? SIZE_SPACE : EXTENSION;
    return ch == '\r' || ch == ';' || (space && ++c->extra <= MAX_EXTRA);
}

/* One byte that is no data. */
static bool step(struct lb_chunks *c, char ch) {
    switch (c->state) {
    case SIZE:
    case SIZE_SPACE:
        return size_char(c, ch);
    case EXTENSION:
        c->state = ch == '\r' ? SIZE_LF : EXTENSION;
        return !is_control(ch) || ch == '\r' ? ++c->extra <= MAX_EXTRA : false;
    case SIZE_LF:
        c->state = c->left > 0 ? DATA : TRAILER;
        c->digits = 0;
        return ch == '\n';
    case DATA_CR:
        c->state = DATA_LF;
        return ch == '\r';
    case DATA_LF:
        c->state = SIZE;
        return ch == '\n';
    case TRAILER:
        c->state = ch == '\r' ? LAST_LF : TRAILER_LINE;
        return ch != '\n' && ++c->extra <= MAX_EXTRA;
    case TRAILER_LINE:
        c->state = ch == '\r' ? TRAILER_LF : TRAILER_LINE;
        return ch != '\n' && ++c->extra <= MAX_EXTRA;
    case TRAILER_LF:
        c->state = TRAILER;
        return ch == '\n';
    default:
        c->done = true;
        return ch == '\n';
    }
}

bool lb_chunks_next(struct lb_chunks *c, const char **at, const char *end, const char **out_data,
                    size_t *out_len) {
    *out_len = 0;
    while (*at < end && !c->done) {
        if (c->state == DATA) {
            size_t n = (size_t)(end - *at);
            n = n > c->left ? (size_t)c->left : n;
            *out_data = *at;
            *out_len = n;
            *at += n;
            c->left -= n;
            c->state = c->left == 0 ? DATA_CR : DATA;
            return true;
        }
        if (!step(c, *(*at)++)) {
            return false;
        }
    }
    return true;
}
