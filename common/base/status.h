/* Status codes and the detail that goes with them.
 *
 * Every function that can fail returns enum lb_status. Functions that read the outside world also fill a
 * caller-owned struct lb_detail: the first error recorded wins, so that the cause is kept and not the
 * consequences. Libraries neither print nor exit; programs decide what to do with a detail.
 */
#ifndef LB_BASE_STATUS_H
#define LB_BASE_STATUS_H

#include <stdarg.h>

enum lb_status {
    LB_OK = 0,
    LB_E_NOMEM = -1,       /* memory, or a limit on memory, is used up */
    LB_E_IO = -2,          /* the operating system refused a file or socket operation */
    LB_E_FORMAT = -3,      /* bytes that do not follow their format */
    LB_E_ARG = -4,         /* a value from outside that makes no sense here */
    LB_E_LIMIT = -5,       /* a stated maximum was exceeded */
    LB_E_NOTFOUND = -6,    /* no such file, tensor, model, key */
    LB_E_UNSUPPORTED = -7, /* understood, but not something this build does */
    LB_E_UNAVAILABLE = -8, /* try again later: loading, draining, overloaded, connection refused */
    LB_E_TIMEOUT = -9,     /* a deadline passed */
    LB_E_CANCELLED = -10,  /* somebody asked to stop */
    LB_E_MISMATCH = -11,   /* two things that must agree do not: fingerprints, vocabularies, digests */
    LB_E_DENIED = -12,     /* no or wrong token */
    LB_E_BUSY = -13,       /* held by somebody else: a locked run folder */
    LB_E_INTERNAL = -14    /* a bug, or a library that broke its promise */
};

#define LB_DETAIL_TEXT 768

/* One error for a person: what, where (file, tensor, key, byte), what to do. One line of UTF-8 without
 * control characters: of what it quotes, those and bytes that are no UTF-8 are shown as '?', ends of lines as
 * spaces. Zero-initialise before use. */
struct lb_detail {
    enum lb_status code;
    char text[LB_DETAIL_TEXT];
};

#define LB_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define LB_NODISCARD __attribute__((warn_unused_result))

/* Records the error unless an earlier one is there already, and returns code. detail may be NULL. */
enum lb_status lb_fail(struct lb_detail *detail, enum lb_status code, const char *format, ...)
    LB_PRINTF(3, 4);

/* As lb_fail, with ": strerror(errnum)" added to the text. */
enum lb_status lb_fail_errno(struct lb_detail *detail, enum lb_status code, int errnum, const char *format,
                             ...) LB_PRINTF(4, 5);

/* Puts "prefix: " before a text recorded by a callee, so that it names the file or key of the caller. */
void lb_detail_prefix(struct lb_detail *detail, const char *format, ...) LB_PRINTF(2, 3);

#ifdef __clang_analyzer__
/* The static analyser does not look into functions with variable arguments, and would follow each path as if
 * they returned LB_OK. */
static inline enum lb_status lb_same_status(enum lb_status code) {
    return code;
}
#define lb_fail(detail, code, ...) (lb_fail(detail, code, __VA_ARGS__), lb_same_status(code))
#define lb_fail_errno(detail, code, ...) (lb_fail_errno(detail, code, __VA_ARGS__), lb_same_status(code))
#endif

/* A short constant name of the code ("not found"); never NULL. */
const char *lb_status_name(enum lb_status status);

#endif
