/* Text to token ids and back, as the model's own tokenizer.json or the vocabulary of its GGUF file says.
 *
 * The ids are those of Hugging Face's tokenizers (0.23) for the same file: BPE over bytes or characters,
 * WordPiece and Unigram, with the normalizers, pre-tokenizers, post-processors and decoders that such files
 * have. A byte or character that the vocabulary has neither a token nor an unknown token for is left out, as
 * there.
 *
 * Immutable after open; encode and decode may be called from several threads at once.
 */
#ifndef LB_TEXT_TOKENIZER_H
#define LB_TEXT_TOKENIZER_H

#include "common/base/buf.h"
#include "common/base/status.h"
#include "common/text/ids.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lb_tokenizer;
struct lb_gguf;
struct lb_gguf_out;

/* path: a tokenizer.json, a folder holding one, or a .gguf file: the tokenizer.json that lies beside it, else
 * its own vocabulary (LB_E_NOTFOUND: it has neither). tokenizer_config.json and chat_template.jinja beside a
 * tokenizer.json are read for special tokens and the template. Anything in it that would change ids and is
 * not supported is LB_E_UNSUPPORTED, naming the key. */
LB_NODISCARD enum lb_status lb_tokenizer_open(const char *path, struct lb_tokenizer **out,
                                              struct lb_detail *detail);
LB_NODISCARD enum lb_status lb_tokenizer_parse(const void *json, size_t len, const char *what,
                                               struct lb_tokenizer **out, struct lb_detail *detail);
/* The vocabulary that the file itself carries; LB_E_NOTFOUND: it has none. */
LB_NODISCARD enum lb_status lb_tokenizer_from_gguf(const struct lb_gguf *file, const char *what,
                                                   struct lb_tokenizer **out, struct lb_detail *detail);
/* Follows a tokenizer_config.json that came otherwise than beside the file (over the wire). */
LB_NODISCARD enum lb_status lb_tokenizer_configure(struct lb_tokenizer *tokenizer, const void *json,
                                                   size_t len, const char *what, struct lb_detail *detail);
void lb_tokenizer_destroy(struct lb_tokenizer *tokenizer);

/* Appends the ids of text (UTF-8; invalid bytes are LB_E_FORMAT with their offset). add_special: as the
 * post-processor says. */
LB_NODISCARD enum lb_status lb_tokenizer_encode(const struct lb_tokenizer *tokenizer, const char *text,
                                                size_t len, bool add_special, struct lb_ids *out,
                                                struct lb_detail *detail);
/* As lb_tokenizer_encode without what is put around, for text of which some bytes came from people: plain
 * [len]: where it is not 0, no special token is found, whatever stands there. NULL: as lb_tokenizer_encode.
 * LB_E_UNSUPPORTED: a special token that is looked for in normalized text might be people's. */
LB_NODISCARD enum lb_status lb_tokenizer_encode_marked(const struct lb_tokenizer *tokenizer, const char *text,
                                                       size_t len, const uint8_t *plain, struct lb_ids *out,
                                                       struct lb_detail *detail);
/* Appends the text of ids, as the decoder says; ids outside the vocabulary are LB_E_ARG. skip_special drops
 * special tokens. Bytes that make no character (ids cut within one) come out as U+FFFD. */
LB_NODISCARD enum lb_status lb_tokenizer_decode(const struct lb_tokenizer *tokenizer, const int32_t *ids,
                                                size_t n, bool skip_special, struct lb_buf *out,
                                                struct lb_detail *detail);

/* Whether a vocabulary of rows has a row for each token; LB_E_MISMATCH otherwise. what names the model. */
LB_NODISCARD enum lb_status lb_tokenizer_fits(const struct lb_tokenizer *tokenizer, int64_t rows,
                                              const char *what, struct lb_detail *detail);
int32_t lb_tokenizer_vocab_size(const struct lb_tokenizer *tokenizer);
/* The token's written form in the vocabulary (byte-level letters included), NULL out of range. */
const char *lb_tokenizer_token(const struct lb_tokenizer *tokenizer, int32_t id);
/* The bytes that the token adds to decoded text behind other tokens, possibly part of a character; NULL out
 * of range. The first token of a text may add less: a space that only says where a word begins. */
const char *lb_tokenizer_bytes(const struct lb_tokenizer *tokenizer, int32_t id, size_t *out_len);
/* Whether decoding may leave it out: <eos> and its like. */
bool lb_tokenizer_is_special(const struct lb_tokenizer *tokenizer, int32_t id);
/* -1 when there is none. */
int32_t lb_tokenizer_id(const struct lb_tokenizer *tokenizer, const char *token);
/* -1 when unknown. What tokenizer_config.json names, else the first of the usual names among the added
 * tokens. */
int32_t lb_tokenizer_eos(const struct lb_tokenizer *tokenizer);
int32_t lb_tokenizer_bos(const struct lb_tokenizer *tokenizer);
/* The token that goes by a name of Hugging Face's (bos_token, eos_token, unk_token, sep_token, cls_token,
 * pad_token, mask_token); -1 when the tokenizer knows none. */
int32_t lb_tokenizer_named(const struct lb_tokenizer *tokenizer, const char *name);
/* What add_special puts before and behind a text. */
const struct lb_ids *lb_tokenizer_before(const struct lb_tokenizer *tokenizer);
const struct lb_ids *lb_tokenizer_after(const struct lb_tokenizer *tokenizer);
/* From now on bos stands first of what is put before a text, or does not. Before others use the tokenizer.
 * The fingerprint stays that of the tokenizer.json. LB_E_ARG: it has no bos. */
LB_NODISCARD enum lb_status lb_tokenizer_add_bos(struct lb_tokenizer *tokenizer, bool add,
                                                 struct lb_detail *detail);
/* Whether what is put around a text is not what the tokenizer.json says: tokenizer_config.json, or
 * lb_tokenizer_add_bos, said otherwise. */
bool lb_tokenizer_own_ends(const struct lb_tokenizer *tokenizer);
/* SHA-256 over all that decides ids, in hex: two tokenizers that agree on it read every text alike and may
 * share soft targets. */
const char *lb_tokenizer_fingerprint(const struct lb_tokenizer *tokenizer);
/* The template of chats that came with it, NULL: none. */
const char *lb_tokenizer_chat_template(const struct lb_tokenizer *tokenizer);
/* What names that template in errors, its file first; NULL: there is none. */
const char *lb_tokenizer_chat_template_from(const struct lb_tokenizer *tokenizer);
/* Puts the vocabulary of a model of n_rows tokens as llama.cpp reads it. LB_E_UNSUPPORTED names what a GGUF
 * cannot say; LB_E_MISMATCH: there are more tokens than rows. */
LB_NODISCARD enum lb_status lb_tokenizer_put_gguf(const struct lb_tokenizer *tokenizer, int64_t n_rows,
                                                  struct lb_gguf_out *out, struct lb_detail *detail);
/* The bytes of the tokenizer.json, so that an export can carry them along; of a GGUF's vocabulary, those of
 * one that says the same. */
const char *lb_tokenizer_source(const struct lb_tokenizer *tokenizer, size_t *out_len);

#endif
