/* Where tokens stand in the text that they were made of, and where two tokenizations of one text meet.
 *
 * A token says by its bytes what it stands for (lb_tokenizer_bytes). Tokenizers take liberties with the text:
 * a space before a word where the text has none, white space that no token stands for, characters that a
 * normalizer changed, unknown ones. The first two are followed; a piece that the tokens write otherwise is
 * passed over to where they agree with the text again.
 */
#ifndef LB_TEXT_PLACE_H
#define LB_TEXT_PLACE_H

#include "common/text/tokenizer.h"

#define LB_NO_PLACE SIZE_MAX

/* Where a token ends; it begins where the one before it ends. */
struct lb_placed {
    size_t end; /* bytes of text up to its end; LB_NO_PLACE: not told of it alone, only of some behind it */
    bool same;  /* its bytes are the text's, but for white space */
};

/* Tokens a .. a + n_a - 1 of one tokenization stand for the same bytes of the text as tokens b .. b + n_b - 1
 * of the other, and no fewer of them do. */
struct lb_meeting {
    size_t a, n_a, b, n_b;
    size_t end; /* of the bytes */
};

/* Places tokens ids [n] of that tokenizer in text [len], into out [n]. Ends rise. */
void lb_tokens_place(const struct lb_tokenizer *tokenizer, const int32_t *ids, size_t n, const char *text,
                     size_t len, struct lb_placed *out);

/* Where two tokenizations a [n_a] and b [n_b] of one text meet, in its order, into out [the smaller of both].
 * Pieces that either side writes otherwise than the text are left out. Returns how many there are. */
size_t lb_tokens_meet(const struct lb_placed *a, size_t n_a, const struct lb_placed *b, size_t n_b,
                      struct lb_meeting *out);

#endif
