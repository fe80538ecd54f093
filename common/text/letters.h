/* Questions about single characters as Python's str asks them, of Unicode's tables (utf8proc's). Pure
 * functions.
 */
#ifndef LB_TEXT_LETTERS_H
#define LB_TEXT_LETTERS_H

#include <stdbool.h>
#include <stdint.h>

/* The character in upper, lower, title case; -1 where that is more than one character or hangs on its
 * neighbours (Unicode's SpecialCasing.txt). */
int32_t lb_to_upper(uint32_t code_point);
int32_t lb_to_lower(uint32_t code_point);
int32_t lb_to_title(uint32_t code_point);
bool lb_is_upper(uint32_t code_point); /* title case counts as neither */
bool lb_is_lower(uint32_t code_point);
bool lb_is_title(uint32_t code_point);
bool lb_is_alpha(uint32_t code_point);
/* A decimal digit of any script. */
bool lb_is_decimal(uint32_t code_point);
/* Whether repr() shows it as it is. */
bool lb_is_printable(uint32_t code_point);
/* Whether str.strip() takes it away. */
bool lb_is_blank(uint32_t code_point);

#endif
