/* GPT-2's byte letters: each of the 256 bytes has a printable character, so that any text is a string over
 * them.
 *
 * Bytes that print in Latin-1 stand for themselves; the other 68 take U+0100, U+0101, ... in order of the
 * byte (Radford et al. 2019; bytes_to_unicode in OpenAI's encoder.py). A space is U+0120. Pure functions over
 * constant tables.
 */
#ifndef LB_TEXT_BYTE_LEVEL_H
#define LB_TEXT_BYTE_LEVEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The letter (a code point below U+0144) of a byte. */
uint32_t lb_byte_letter(uint8_t byte);
/* The byte of a letter, -1 when code_point is none. */
int lb_letter_byte(uint32_t code_point);
/* Writes the letters of n bytes as UTF-8; out has room for 2 n. Returns the bytes written. */
size_t lb_bytes_to_letters(const char *bytes, size_t n, char *out);
/* Turns letters (valid UTF-8) back into bytes; out has room for n and may be letters itself. *out_n: the
 * bytes written. False (out is then undefined) when a character is no letter. */
bool lb_letters_to_bytes(const char *letters, size_t n, char *out, size_t *out_n);

#endif
