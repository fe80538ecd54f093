/* Decoders: what a token adds to text (tokenizer.json, "decoder"). They decide text, never ids.
 *
 * A decoder is a list of steps that look at one token at a time, and what is cut from both ends of the whole.
 * What a token adds where other text stands before it is kept in the vocabulary, so that text can be printed
 * as ids come; the first token of a text may add less. Constant after parsing.
 */
#ifndef LB_TEXT_DECODE_H
#define LB_TEXT_DECODE_H

#include "common/base/buf.h"
#include "common/base/json.h"
#include "common/base/status.h"
#include "common/text/regex.h"
#include "common/text/vocab.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lb_decoder;

/* value: the "decoder" of a tokenizer.json, null included. bytes: the pre-tokenizer writes bytes as letters,
 * which null then undoes. LB_E_UNSUPPORTED names a type that is not known. */
LB_NODISCARD enum lb_status lb_decoder_create(const json_t *value, bool bytes, const char *what,
                                              struct lb_decoder **out, struct lb_detail *detail);
/* Accepts NULL. */
void lb_decoder_destroy(struct lb_decoder *decoder);

/* Says for every token of the vocabulary what it adds behind others. LB_E_NOMEM, LB_E_LIMIT. */
LB_NODISCARD enum lb_status lb_decoder_fill(const struct lb_decoder *decoder, struct lb_vocab *vocab,
                                            const char *what, struct lb_detail *detail);

/* Appends the text of ids, which are in vocab; skip_special leaves special tokens out. Any failure is out's.
 */
LB_NODISCARD enum lb_status lb_decoder_run(const struct lb_decoder *decoder, const struct lb_vocab *vocab,
                                           const int32_t *ids, size_t n, bool skip_special,
                                           struct lb_buf *out);

#endif
