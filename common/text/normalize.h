/* Normalizers: what is done to text before it is cut (tokenizer.json, "normalizer"). Everything here is
 * constant after parsing.
 */
#ifndef LB_TEXT_NORMALIZE_H
#define LB_TEXT_NORMALIZE_H

#include "common/base/buf.h"
#include "common/base/json.h"
#include "common/base/sha256.h"
#include "common/base/status.h"
#include "common/text/regex.h"
#include "common/text/unicode.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LB_MAX_NORMALIZERS 32

struct lb_normalizer_step;

/* The steps in order; n = 0 leaves text as it is. */
struct lb_normalizer {
    struct lb_normalizer_step *step; /* [n] */
    int n;
};

/* The result of a run and its memory, kept from one run to the next. Zero-initialise. */
struct lb_normalized {
    const char *text; /* the caller's bytes when nothing changed */
    size_t len;
    bool cut; /* what stood first in the caller's text is gone */
    /* private */
    bool led; /* the first character has become a space and more */
    struct lb_buf copy[2];
    struct lb_points points;
    struct lb_regex_run run;
};

/* Accepts NULL and a zeroed object. */
void lb_normalized_finish(struct lb_normalized *normalized);

/* value: the "normalizer" of a tokenizer.json, null included. LB_E_UNSUPPORTED names a type that is not
 * known. Finish it with lb_normalizer_finish. */
LB_NODISCARD enum lb_status lb_normalizer_parse(const json_t *value, const char *what,
                                                struct lb_normalizer *out, struct lb_detail *detail);
/* Accepts NULL and a zeroed object. */
void lb_normalizer_finish(struct lb_normalizer *normalizer);
/* text: valid UTF-8, less than 2^31 bytes. LB_E_NOMEM, LB_E_LIMIT. */
LB_NODISCARD enum lb_status lb_normalize(const struct lb_normalizer *normalizer, const char *text, size_t len,
                                         struct lb_normalized *out, struct lb_detail *detail);

/* Adds all that decides what it does. */
void lb_normalizer_hash(const struct lb_normalizer *normalizer, struct lb_sha256 *hash);

#endif
