/* Base64 as RFC 4648 section 4 has it: with padding, without line ends. Pure functions. */
#ifndef LB_BASE_BASE64_H
#define LB_BASE_BASE64_H

#include "common/base/buf.h"

#include <stdbool.h>
#include <stddef.h>

/* Appends n bytes as base64; errors are the buffer's. */
void lb_base64_put(struct lb_buf *buf, const void *bytes, size_t n);
/* The bytes of a text, of which there are at most 3 for each 4 of len; false: it is no base64. */
bool lb_base64_bytes(const char *from, size_t len, unsigned char *to, size_t *out_len);

#endif
