/* Normalizers: what is done to text before it is cut (tokenizer.json, "normalizer"), and the few questions
 * about characters that need Unicode's tables. utf8proc is known by normalize.c and letters.c. Everything
 * here is constant after parsing.
 */
#ifndef LB_TEXT_NORMALIZE_H
#define LB_TEXT_NORMALIZE_H

#include "common/base/json.h"
#include "common/base/sha256.h"
#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LB_MAX_NORMALIZERS 8

/* The steps in order; n = 0 leaves text as it is. */
struct lb_normalizer {
    uint8_t step[LB_MAX_NORMALIZERS];
    int n;
};

/* The result of a run and its memory, kept from one run to the next. Zero-initialise. */
struct lb_normalized {
    const char *text; /* the caller's bytes when nothing changed */
    size_t len;
    /* private */
    char *copy;
    size_t copy_cap;
    int32_t *points;
    size_t points_cap;
};

/* Accepts NULL and a zeroed object. */
void lb_normalized_finish(struct lb_normalized *normalized);

/* value: the "normalizer" of a tokenizer.json, null included: NFC, NFD, NFKC, NFKD, Lowercase and a Sequence
 * of them; LB_E_UNSUPPORTED names any other. */
LB_NODISCARD enum lb_status lb_normalizer_parse(const json_t *value, const char *what,
                                                struct lb_normalizer *out, struct lb_detail *detail);
/* text: valid UTF-8, less than 2^31 bytes. LB_E_NOMEM, LB_E_LIMIT. */
LB_NODISCARD enum lb_status lb_normalize(const struct lb_normalizer *normalizer, const char *text, size_t len,
                                         struct lb_normalized *out, struct lb_detail *detail);

/* Adds all that decides what it does. */
void lb_normalizer_hash(const struct lb_normalizer *normalizer, struct lb_sha256 *hash);

/* A word character as Rust's regex crate has it: alphabetic, mark, decimal digit, connector, joiner. */
bool lb_is_word(uint32_t code_point);
/* Unicode's White_Space. */
bool lb_is_space(uint32_t code_point);

#endif
