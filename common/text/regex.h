/* The regular expressions of tokenizer.json: Oniguruma's language, run by PCRE2 over text that PCRE2's
 * Unicode tables may be too old for. Who splits and who replaces by a regex comes here; the only file that
 * knows PCRE2 is regex.c.
 *
 * A regex is constant once made and may be used by several threads, each with its own lb_regex_run.
 */
#ifndef LB_TEXT_REGEX_H
#define LB_TEXT_REGEX_H

#include "common/base/sha256.h"
#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lb_regex;

/* Memory of searches, kept from one to the next. Zero-initialise. */
struct lb_regex_run {
    void *match; /* PCRE2's */
    char *copy;
    size_t copy_cap;
};

/* Accepts NULL and a zeroed object. */
void lb_regex_run_finish(struct lb_regex_run *run);

/* pattern: 1 to 65536 bytes, valid UTF-8; literal: a text to be found as it stands. where: file and key, for
 * errors. LB_E_UNSUPPORTED names what Oniguruma and PCRE2 do not share, LB_E_LIMIT, LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_regex_create(const char *pattern, size_t len, bool literal, const char *where,
                                            struct lb_regex **out, struct lb_detail *detail);
/* Accepts NULL. */
void lb_regex_destroy(struct lb_regex *regex);
/* LB_SHA256_BYTES over the pattern as the file has it, and whether it is literal. */
const uint8_t *lb_regex_digest(const struct lb_regex *regex);

/* What to search in place of text: text itself, or a copy of the same length in which characters that PCRE2
 * does not know are replaced by older ones of their kind. It stays until the next call with run. LB_E_NOMEM.
 */
LB_NODISCARD enum lb_status lb_regex_subject(const struct lb_regex *regex, const char *text, size_t len,
                                             struct lb_regex_run *run, const char **out);
/* The next match in subject[0, len) at or after from; *found false when there is none. LB_E_LIMIT when it
 * takes too many steps, LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_regex_next(const struct lb_regex *regex, const char *subject, size_t len,
                                          size_t from, struct lb_regex_run *run, bool *found, size_t *start,
                                          size_t *end, struct lb_detail *detail);

/* Appends to *out, growing it, text with every match of regex replaced by content. LB_E_LIMIT, LB_E_NOMEM. */
struct lb_buf;
LB_NODISCARD enum lb_status lb_regex_replace(const struct lb_regex *regex, const char *text, size_t len,
                                             const char *content, size_t content_len,
                                             struct lb_regex_run *run, struct lb_buf *out,
                                             struct lb_detail *detail);

#endif
