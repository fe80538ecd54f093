/* SentencePiece's rules of normalization, as the "Precompiled" normalizer of T5's and XLM-R's files carries
 * them: a double-array trie (darts-clone) over byte strings and the texts that replace them. Constant after
 * creation.
 */
#ifndef LB_TEXT_CHARSMAP_H
#define LB_TEXT_CHARSMAP_H

#include "common/base/buf.h"
#include "common/base/sha256.h"
#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>

struct lb_charsmap;

/* base64: "precompiled_charsmap" of the file. LB_E_FORMAT, LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_charsmap_create(const char *base64, size_t len, const char *what,
                                               struct lb_charsmap **out, struct lb_detail *detail);
/* Accepts NULL. */
void lb_charsmap_destroy(struct lb_charsmap *map);
void lb_charsmap_hash(const struct lb_charsmap *map, struct lb_sha256 *hash);
/* Appends text (valid UTF-8) with each grapheme of less than six bytes, else each character, replaced where a
 * rule begins it (tokenizers: normalizers/precompiled.rs). *cut: the first character has gone without one in
 * its place. */
void lb_charsmap_apply(const struct lb_charsmap *map, const char *text, size_t len, struct lb_buf *out,
                       bool *cut);

#endif
