#include "common/base/status.h"

#include <stdio.h>
#include <string.h>

#undef lb_fail
#undef lb_fail_errno

/* Shows that a text was cut, instead of ending in the middle of a word. */
static void mark_truncated(char *text, int wanted) {
    if (wanted >= LB_DETAIL_TEXT) {
        memcpy(text + LB_DETAIL_TEXT - 4, "...", 4);
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
    mark_truncated(detail->text, n);
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
    mark_truncated(detail->text, n);
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
    mark_truncated(detail->text, n);
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
