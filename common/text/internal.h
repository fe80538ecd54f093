/* What a tokenizer is made of; for common/text only. */
#ifndef LB_TEXT_INTERNAL_H
#define LB_TEXT_INTERNAL_H

#include "common/base/json.h"
#include "common/base/sha256.h"
#include "common/text/added.h"
#include "common/text/beside.h"
#include "common/text/decode.h"
#include "common/text/kind.h"
#include "common/text/normalize.h"
#include "common/text/pretokenize.h"
#include "common/text/tokenizer.h"
#include "common/text/vocab.h"

struct lb_tokenizer {
    struct lb_vocab vocab;
    struct lb_normalizer normalizer;
    struct lb_pretokenizer *pretokenizer;
    const struct lb_text_model_kind *kind;
    void *model;
    struct lb_decoder *decoder;
    struct lb_added_set raw, normalized;        /* looked for before and after the normalizer */
    struct lb_ids before, after;                /* what the post-processor puts around */
    bool own_ends;                              /* not those of the tokenizer.json */
    int32_t bos, eos, unk, sep, cls, pad, mask; /* -1: not known */
    char fingerprint[LB_SHA256_HEX];
    char *chat_template;      /* NULL: none */
    char *chat_template_from; /* what names it in errors */
    char *source;
    size_t source_len;
    struct lb_beside_file beside[LB_BESIDE_COUNT];
};

/* Fills a zeroed tokenizer from the root object of a tokenizer.json; the caller destroys it after a failure.
 */
LB_NODISCARD enum lb_status lb_tokenizer_read(struct lb_tokenizer *to, const json_t *root, const char *what,
                                              struct lb_detail *detail);

#endif
