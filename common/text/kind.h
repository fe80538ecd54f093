/* Models: what turns one piece of text into ids (tokenizer.json, "model"). One file for each kind, and a line
 * in the table of tokenizer_json.c. Constant after parsing; safe to use from several threads, each with its
 * own scratch.
 */
#ifndef LB_TEXT_KIND_H
#define LB_TEXT_KIND_H

#include "common/base/json.h"
#include "common/base/sha256.h"
#include "common/base/status.h"
#include "common/text/ids.h"
#include "common/text/vocab.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Memory that a model uses as it likes while it encodes, kept from one piece to the next. Zero-initialise. */
struct lb_text_scratch {
    void *data;
    size_t bytes;
};

struct lb_text_model_kind {
    const char *type; /* of tokenizer.json */
    /* Reads the "model" object into vocab (entries with LB_ENTRY_MODEL) and *out. bytes: the pre-tokenizer
     * has ByteLevel. vocab stays valid as long as the model. */
    enum lb_status (*parse)(const json_t *object, bool bytes, const char *what, struct lb_vocab *vocab,
                            void **out, struct lb_detail *detail);
    /* Appends the ids of one piece of n > 0 bytes. LB_E_NOMEM; LB_E_UNSUPPORTED when it has characters that
     * are unknown to a model without an unknown token. */
    enum lb_status (*encode)(const void *model, const char *piece, size_t n, struct lb_text_scratch *scratch,
                             struct lb_ids *out);
    /* Adds all that decides ids beside the vocabulary. LB_E_NOMEM. */
    enum lb_status (*hash)(const void *model, struct lb_sha256 *hash);
    /* Accepts NULL. */
    void (*destroy)(void *model);
};

/* Byte-pair encoding: GPT-2, Llama 2 and 3, Mistral, Gemma, Qwen, SmolLM and most since. */
extern const struct lb_text_model_kind lb_bpe_kind;
/* One of its merges, ["a", "b"] or "a b": both sides, in the JSON's memory. False when it is neither. */
bool lb_bpe_merge_sides(const json_t *merge, const char **a, size_t *a_len, const char **b, size_t *b_len);
/* The longest token first: BERT and its like. */
extern const struct lb_text_model_kind lb_wordpiece_kind;
/* The likeliest way to cut: T5, XLM-R, ALBERT. */
extern const struct lb_text_model_kind lb_unigram_kind;

#endif
