/* Added tokens: the ones looked for in the text itself, before the model sees what lies between them.
 *
 * Leftmost match, longest first, as tokenizers' AddedVocabulary does it with Aho-Corasick; here the patterns
 * are sorted and narrowed byte by byte, which is as quick for the few starting bytes that they have. Constant
 * after lb_added_sort.
 */
#ifndef LB_TEXT_ADDED_H
#define LB_TEXT_ADDED_H

#include "common/base/sha256.h"
#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lb_added_token {
    char *pattern; /* what is looked for: the content, normalized where the token says so */
    size_t len;
    int32_t id;
    bool single_word;    /* not next to a word character */
    bool lstrip, rstrip; /* takes the white space before, behind */
    bool special;        /* not found in text that is to stay plain */
};

struct lb_added_set {
    struct lb_added_token *token; /* sorted by pattern */
    size_t n, cap;
    bool first[256]; /* bytes that begin a pattern */
};

/* A match: text[start..end) including the white space it takes. */
struct lb_added_match {
    size_t start, end;
    int32_t id;
};

/* Copies pattern; lb_added_sort must follow before the first search. */
LB_NODISCARD enum lb_status lb_added_put(struct lb_added_set *set, const char *pattern, size_t len,
                                         const struct lb_added_token *flags);
void lb_added_sort(struct lb_added_set *set);
/* Adds all that decides what is found; after lb_added_sort. */
void lb_added_hash(const struct lb_added_set *set, struct lb_sha256 *hash);
/* Accepts NULL and a zeroed set. */
void lb_added_finish(struct lb_added_set *set);

/* The next match in text (valid UTF-8) at or after *cursor; false when there is none. *cursor moves behind
 * the pattern (not behind the space it takes); done: the end of the match before, 0 at first. plain [len]: a
 * special token is not found where a byte of it is not 0; NULL: all are. */
bool lb_added_next(const struct lb_added_set *set, const char *text, size_t len, const uint8_t *plain,
                   size_t *cursor, size_t done, struct lb_added_match *out);

#endif
