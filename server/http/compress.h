/* gzip and deflate of HTTP bodies, by zlib. Stateless; any thread. */
#ifndef LB_HTTP_COMPRESS_H
#define LB_HTTP_COMPRESS_H

#include "common/base/buf.h"
#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>

enum lb_coding { LB_CODING_IDENTITY, LB_CODING_GZIP, LB_CODING_DEFLATE, LB_CODING_UNKNOWN };

/* "identity", "gzip", "deflate". */
const char *lb_coding_name(enum lb_coding coding);
/* A Content-Encoding header's value (NULL: identity); a list of codings is LB_CODING_UNKNOWN. */
enum lb_coding lb_coding_parse(const char *value);
/* The best of gzip, deflate and identity under an Accept-Encoding header's weights (RFC 9110, 12.5.3); NULL:
 * identity. A bare "*" is taken as identity: nobody who wants compression of tensors asks like that. */
enum lb_coding lb_coding_accepted(const char *value);

/* Asked before out grows by this many bytes; false: no more, LB_E_UNAVAILABLE. May be NULL. */
typedef bool (*lb_grow_fn)(void *context, size_t bytes);

/* Appends the unpacked bytes; LB_E_LIMIT once out's maximum is reached (a bomb costs no more than that),
 * LB_E_FORMAT for damaged, cut short or trailing data. "deflate" may come with or without zlib's header, as
 * both are sent in practice. */
LB_NODISCARD enum lb_status lb_unpack(enum lb_coding coding, const void *bytes, size_t len, lb_grow_fn grow,
                                      void *context, struct lb_buf *out, struct lb_detail *detail);

struct lb_span {
    const void *data;
    size_t len;
};
/* Appends the spans, one after the other, packed at the fastest level. */
LB_NODISCARD enum lb_status lb_pack(enum lb_coding coding, const struct lb_span *spans, size_t n,
                                    lb_grow_fn grow, void *context, struct lb_buf *out,
                                    struct lb_detail *detail);

#endif
