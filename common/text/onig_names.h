/* The names that Oniguruma's regexes give to sets of characters, and what PCRE2 calls the same sets; for
 * onig.c. Pure functions over constant tables.
 */
#ifndef LB_TEXT_ONIG_NAMES_H
#define LB_TEXT_ONIG_NAMES_H

#include "common/base/buf.h"

#include <stdbool.h>

/* What stands within PCRE2's brackets for some sets. */

/* Oniguruma's \s in Unicode: White_Space. PCRE2's has U+180E too, and this is quicker as it names no
 * property. */
#define LB_ONIG_SPACE                                                                                        \
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{"     \
    "3000}"
/* Oniguruma's [[:word:]]: Alphabetic, marks, decimal digits, connectors; its \w has six numbers of Latin-1,
 * too. PCRE2's lacks some and has others. */
#define LB_ONIG_POSIX_WORD                                                                                   \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{"     \
    "1f170}-\\x{1f189}"
#define LB_ONIG_WORD LB_ONIG_POSIX_WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#define LB_ONIG_HEX "0-9a-fA-F"

/* Names in small letters without spaces, hyphens and underscores. */

/* The set of [:name:]: text to stand within brackets, NULL when it is not known. */
const char *lb_onig_set(const char *name);
/* Appends the set of a property: category, script or POSIX class. False when it is not known. */
bool lb_onig_put_name(const char *name, struct lb_buf *out);

#endif
