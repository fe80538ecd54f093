/* The regular expressions of tokenizer.json are Oniguruma's (Ruby syntax, UTF-8); PCRE2 runs them here. What
 * both write alike passes through, what they write alike and mean differently is rewritten, and the rest is
 * refused by name: a tokenizer that splits a little differently gives other ids, and nobody notices. Pure
 * function.
 */
#ifndef LB_TEXT_ONIG_H
#define LB_TEXT_ONIG_H

#include "common/base/buf.h"
#include "common/base/status.h"

#include <stdint.h>

/* Characters that a pattern names by themselves. */
struct lb_onig_range {
    uint32_t first, last;
};

/* Appends pattern (valid UTF-8) in PCRE2's words to out, for PCRE2_UTF | PCRE2_UCP with line feed as the only
 * newline. LB_E_UNSUPPORTED names the construct and its byte. what: the file and key, for errors. named
 * (may be NULL) takes a struct lb_onig_range for each character and range above U+07FF in pattern. */
LB_NODISCARD enum lb_status lb_onig_translate(const char *pattern, size_t len, const char *what,
                                              struct lb_buf *out, struct lb_buf *named,
                                              struct lb_detail *detail);

#endif
