/* A smaller vocabulary made of a larger one: the tokens that a corpus needs, closed under merging, so that
 * any text that the whole tokenizer reads can still be read, and the map from its ids to the whole one's.
 *
 * A student with such a vocabulary learns from a teacher with the whole one: its ids, mapped, are a way to
 * write the same text in the teacher's vocabulary (though not always the teacher's own way).
 */
#ifndef LB_TEXT_TRIM_H
#define LB_TEXT_TRIM_H

#include "common/base/sha256.h"
#include "common/text/tokenizer.h"

#define LB_VOCAB_MAP_FILE "vocab_map.json"

/* The file vocab_map.json beside a trimmed tokenizer.json. */
struct lb_vocab_map {
    char full[LB_SHA256_HEX];    /* fingerprint of the whole tokenizer */
    char trimmed[LB_SHA256_HEX]; /* of the trimmed one */
    int32_t *kept;               /* [n] the whole one's id of each id, ascending */
    int32_t n;
};

/* Makes a tokenizer of at most size tokens. Kept are, in this order: the tokens that begin, end, pad or mark
 * the unknown, those of the post-processor, the added ones that the chat template names, special ones that
 * occur; all that stand for bytes; then the others by how often they occur, counts [vocab_size], each with
 * all that it is merged from (for Unigram: with its characters). Tokens that never occur are not kept. The
 * ids keep their order. BPE and Unigram; others are LB_E_UNSUPPORTED. LB_E_LIMIT: what must be kept is more
 * than size. Both are the caller's to destroy. */
LB_NODISCARD enum lb_status lb_tokenizer_trim(const struct lb_tokenizer *full, const uint64_t *counts,
                                              int32_t size, struct lb_tokenizer **out,
                                              struct lb_vocab_map **out_map, struct lb_detail *detail);

/* Reads the map beside a tokenizer.json (a path as lb_tokenizer_open takes it); *out is NULL when there is
 * none. LB_E_MISMATCH: it is not that tokenizer's. */
LB_NODISCARD enum lb_status lb_vocab_map_open(const char *path, const struct lb_tokenizer *tokenizer,
                                              struct lb_vocab_map **out, struct lb_detail *detail);
/* Appends the file. */
LB_NODISCARD enum lb_status lb_vocab_map_write(const struct lb_vocab_map *map, struct lb_buf *out,
                                               struct lb_detail *detail);
/* The id of the whole vocabulary's token in the trimmed one; -1: it is not kept. */
int32_t lb_vocab_map_find(const struct lb_vocab_map *map, int32_t full_id);
/* Accepts NULL. */
void lb_vocab_map_destroy(struct lb_vocab_map *map);

#endif
