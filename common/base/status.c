#include "common/base/status.h"

#include "common/base/utf8.h"

#include <stdio.h>
#include <string.h>

#undef lb_fail
#undef lb_fail_errno

/* Whether the character of n bytes ends a line or steers a terminal (C0, DEL, C1, U+2028 and U+2029). */
static bool is_control(const unsigned char *c, size_t n) {
    return (n == 1 && (c[0] < 0x20 || c[0] == 0x7f)) || (n == 2 && c[0] == 0xc2 && c[1] < 0xa0) ||
           (n == 3 && c[0] == 0xe2 && c[1] == 0x80 && (c[2] == 0xa8 || c[2] == 0xa9));
}

/* The text quotes files and peers: it is made one line of UTF-8, whatever they hold. Shows that it was cut,
 * instead of ending in the middle of a word. */
static void make_line(char *text, int wanted) {
    if (wanted >= LB_DETAIL_TEXT) {
        memcpy(text + LB_DETAIL_TEXT - 4, "...", 4);
    }
    unsigned char *c = (unsigned char *)text;
    for (size_t n, left = strlen(text); left > 0; c += n, left -= n) {
        n = lb_utf8_char(c, left);
        if (n == 0 || is_control(c, n)) {
            n = n > 0 ? n : 1;
            memset(c, *c == '\n' || *c == '\r' || *c == '\t' ? ' ' : '?', n);
        }
    }
}

enum lb_status lb_fail(struct lb_detail *detail, enum lb_status code, const char *format, ...) {
    if (detail == NULL || detail->code != LB_OK) {
        return code;
    }
    va_list args;
    va_start(args, format);
    int n = vsnprintf(detail->text, LB_DETAIL_TEXT, format, args);
    va_end(args);
    make_line(detail->text, n);
    detail->code = code;
    return code;
}

enum lb_status lb_fail_errno(struct lb_detail *detail, enum lb_status code, int errnum, const char *format,
                             ...) {
    if (detail == NULL || detail->code != LB_OK) {
        return code;
    }
    va_list args;
    va_start(args, format);
    int n = vsnprintf(detail->text, LB_DETAIL_TEXT, format, args);
    va_end(args);
    if (n >= 0 && n < LB_DETAIL_TEXT) {
        char reason[128];
        n += snprintf(detail->text + n, (size_t)(LB_DETAIL_TEXT - n), ": %s",
                      strerror_r(errnum, reason, sizeof reason));
    }
    make_line(detail->text, n);
    detail->code = code;
    return code;
}

void lb_detail_prefix(struct lb_detail *detail, const char *format, ...) {
    if (detail == NULL || detail->code == LB_OK) {
        return;
    }
    char rest[LB_DETAIL_TEXT];
    memcpy(rest, detail->text, sizeof rest);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(detail->text, LB_DETAIL_TEXT, format, args);
    va_end(args);
    if (n >= 0 && n < LB_DETAIL_TEXT) {
        n += snprintf(detail->text + n, (size_t)(LB_DETAIL_TEXT - n), ": %s", rest);
    }
    make_line(detail->text, n);
}

const char *lb_status_name(enum lb_status status) {
    switch (status) {
    case LB_OK:
        return "ok";
    case LB_E_NOMEM:
        return "out of memory";
    case LB_E_IO:
        return "input/output error";
    case LB_E_FORMAT:
        return "malformed";
    case LB_E_ARG:
        return "invalid argument";
    case LB_E_LIMIT:
        return "limit exceeded";
    case LB_E_NOTFOUND:
        return "not found";
    case LB_E_UNSUPPORTED:
        return "unsupported";
    case LB_E_UNAVAILABLE:
        return "unavailable";
    case LB_E_TIMEOUT:
        return "timed out";
    case LB_E_CANCELLED:
        return "cancelled";
    case LB_E_MISMATCH:
        return "mismatch";
    case LB_E_DENIED:
        return "denied";
    case LB_E_BUSY:
        return "busy";
    case LB_E_INTERNAL:
        return "internal error";
    }
    return "unknown status";
}
