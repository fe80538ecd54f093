/* What tokenizers asks of Unicode: kinds of characters, lower case, normal forms, graphemes.
 *
 * Hugging Face's tokenizers asks four sources of different age: regexes see Unicode 16, Rust's char 17,
 * BERT's steps and punctuation about 8, the normal forms 9. Where utf8proc says something else,
 * unicode_data.h (made by make_unicode.py) has the last word, so that ids are the reference's. The only file
 * that knows utf8proc beside letters.c is unicode.c. Pure functions over constant tables.
 */
#ifndef LB_TEXT_UNICODE_H
#define LB_TEXT_UNICODE_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A word character as Rust's regex crate has it: alphabetic, mark, decimal digit, connector, joiner. */
bool lb_is_word(uint32_t code_point);
/* Unicode's White_Space. */
bool lb_is_space(uint32_t code_point);
/* Rust's char::is_numeric: a number of any kind. */
bool lb_is_number(uint32_t code_point);
/* Punctuation, ASCII's symbols included. */
bool lb_is_punctuation(uint32_t code_point);
/* What BERT's clean_text drops, NUL and U+FFFD included; tab and line ends are not among it. */
bool lb_is_dropped(uint32_t code_point);
/* A non-spacing mark, as BERT's strip_accents has it. */
bool lb_is_accent(uint32_t code_point);
/* A mark of any kind, as StripAccents has it. */
bool lb_is_mark(uint32_t code_point);

/* Writes the small letters of a character (no look at what stands around it) to out; how many: 1 or 2. */
int lb_lower(uint32_t code_point, uint32_t out[2]);

enum lb_form { LB_NFC, LB_NFD, LB_NFKC, LB_NFKD };

/* Code points and their memory, kept from one call to the next. Zero-initialise; free data and spare with
 * lb_free. */
struct lb_points {
    int32_t *data;
    size_t n;
    size_t cap;
    int32_t *spare;
    size_t spare_cap;
};

/* Puts the normal form of text (valid UTF-8) into points, which it empties first. Linear in len. LB_E_NOMEM,
 * LB_E_LIMIT. */
LB_NODISCARD enum lb_status lb_form_points(enum lb_form form, const char *text, size_t len,
                                           struct lb_points *points);

/* Whether right belongs to the grapheme that left ends (Unicode annex 29), as far as graphemes of less than
 * six bytes go. */
bool lb_same_grapheme(uint32_t left, uint32_t right);

#define LB_STAND_INS 3

/* A code point that PCRE2's tables are too old for has stand-ins: older ones of the same length in UTF-8 and,
 * to any property, of the same kind. The place of its range in the table, -1 when it needs none. */
int lb_newer_range(uint32_t code_point);
int lb_newer_ranges(void);
/* The i-th range, and one of its LB_STAND_INS. */
void lb_newer_bounds(int range, uint32_t *first, uint32_t *last);
uint32_t lb_stand_in(int range, int which);
/* Whether both are of one general category, unassigned ones of none. */
bool lb_same_category(uint32_t a, uint32_t b);

#endif
