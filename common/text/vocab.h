/* The vocabulary: ids to written forms and back, the same for every kind of tokenizer.
 *
 * Filled once while a file is read, constant afterwards and then safe to read from any thread.
 */
#ifndef LB_TEXT_VOCAB_H
#define LB_TEXT_VOCAB_H

#include "common/base/json.h"
#include "common/base/status.h"

#include <stddef.h>
#include <stdint.h>

/* Where an entry comes from, and what it is. */
#define LB_ENTRY_MODEL 1u   /* the model's own vocabulary: the model may produce it */
#define LB_ENTRY_ADDED 2u   /* listed in added_tokens: found in the text before the model sees it */
#define LB_ENTRY_SPECIAL 4u /* left out of decoded text on request */
#define LB_ENTRY_BYTE 8u    /* stands for one byte of a character (decode.h) */

/* Ids may have gaps, but no more than this beyond twice the number of entries: memory stays in proportion to
 * the file. */
#define LB_VOCAB_SLACK 65536

struct lb_entry {
    size_t text;      /* offset of the written form in the pool, NUL-terminated */
    uint32_t len;     /* bytes of the written form */
    uint32_t flags;   /* LB_ENTRY_...; 0: no token has this id */
    size_t bytes;     /* offset in the pool of what the token stands for in decoded text */
    uint32_t n_bytes; /* its length */
};

struct lb_vocab {
    struct lb_entry *entry; /* [size] */
    int32_t size;           /* highest id + 1 */
    int32_t cap;
    int32_t count; /* ids that are taken */
    int32_t max_size;
    uint32_t longest; /* bytes of the longest written form */
    char *pool;
    size_t pool_len, pool_cap;
    int32_t *slot;  /* open addressing over written forms; -1: free */
    uint32_t slots; /* a power of two, at least twice count */
};

/* Expects about n_entries entries, which bounds the ids that put accepts. */
LB_NODISCARD enum lb_status lb_vocab_init(struct lb_vocab *vocab, size_t n_entries);
/* Accepts NULL and a zeroed vocabulary. */
void lb_vocab_finish(struct lb_vocab *vocab);
/* Adds (text, id). LB_E_FORMAT when the id or the text is taken by another, LB_E_LIMIT when the id is too far
 * out; adding the same pair again adds the flags. what names the file. */
LB_NODISCARD enum lb_status lb_vocab_put(struct lb_vocab *vocab, const char *text, size_t len, int64_t id,
                                         uint32_t flags, const char *what, struct lb_detail *detail);
/* Adds all of a "vocab" that is an object of tokens and ids, as the model's. */
LB_NODISCARD enum lb_status lb_vocab_read(struct lb_vocab *vocab, json_t *entries, const char *what,
                                          struct lb_detail *detail);
/* -1 when no entry with one of these flags is written so. */
int32_t lb_vocab_find(const struct lb_vocab *vocab, const char *text, size_t len, uint32_t flags);
/* The written form, NULL for an id that nobody has. */
const char *lb_vocab_text(const struct lb_vocab *vocab, int32_t id);
/* Says what the token with this id, which exists, adds to decoded text: a copy of n bytes, not of the pool's.
 * LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_vocab_stands_for(struct lb_vocab *vocab, int32_t id, const char *bytes,
                                                size_t n);

#endif
