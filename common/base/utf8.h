/* UTF-8 by hand, for the inner loops: strict validation, stepping over text known to be valid, lossy repair.
 * Pure functions. */
#ifndef LB_BASE_UTF8_H
#define LB_BASE_UTF8_H

#include "common/base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character that begins at p (n > 0 bytes are there), 0 when no well-formed one does (Unicode
 * table 3-7: no surrogates, nothing overlong, nothing above U+10FFFF). */
size_t lb_utf8_char(const uint8_t *p, size_t n);
/* The offset of the first byte that is not part of well-formed UTF-8; len when all is. */
size_t lb_utf8_check(const char *text, size_t len);
/* Decodes the character at text[*pos], text being valid, and moves *pos behind it. */
uint32_t lb_utf8_next(const char *text, size_t *pos);
/* Decodes the character that ends before text[*pos] > 0, text being valid, and moves *pos to its start. */
uint32_t lb_utf8_previous(const char *text, size_t *pos);
/* Writes code_point to out (4 bytes are enough); returns how many. */
size_t lb_utf8_put(uint32_t code_point, char *out);
/* How many bytes of a text that goes on may be repaired and shown: all but the beginning of a character at
 * its end. What lb_utf8_append_lossy makes of parts that end there is what it makes of all. */
size_t lb_utf8_settled(const char *bytes, size_t len);
/* Appends bytes with each ill-formed run replaced by U+FFFD: one per maximal subpart, as the Unicode standard
 * recommends (section 3.9) and Rust, Python and the browsers do. */
void lb_utf8_append_lossy(struct lb_buf *buf, const char *bytes, size_t len);

#endif
