/* What `tokenizer.ggml.pre` names: how byte-level vocabularies in GGUF files cut text. A GGUF has no regexes;
 * readers know them by these names, which are llama.cpp's.
 */
#ifndef LB_TEXT_GGUF_PRE_H
#define LB_TEXT_GGUF_PRE_H

#include "common/base/json.h"

#include <stdbool.h>

/* Steps that are no regex, and tokenizer.json's words for them. */
#define LB_CUT_GPT2 "@gpt2"               /* ByteLevel with its own pattern */
#define LB_CUT_BYTES "@bytes"             /* ByteLevel without */
#define LB_CUT_DIGIT "@digit"             /* Digits, each alone */
#define LB_CUT_DIGITS "@digits"           /* Digits, runs of them */
#define LB_CUT_PUNCTUATION "@punctuation" /* Punctuation, runs of it */

struct lb_gguf_pre {
    const char *names;        /* with a space between; the first one is written */
    const char *const *steps; /* regexes that isolate what they match, or words from above; NULL ends them */
    const char *normalizer;   /* "NFC"; NULL: none */
    bool ignore_merges;       /* a piece that is in the vocabulary is one token */
    bool add_bos;             /* unless the file says otherwise */
};

/* NULL when nobody has that name. */
const struct lb_gguf_pre *lb_gguf_pre_find(const char *name);
/* Its "pre_tokenizer" of a tokenizer.json; a new reference, NULL: out of memory. */
json_t *lb_gguf_pre_json(const struct lb_gguf_pre *pre);
/* The first row that cuts and normalizes text as this tokenizer.json with a byte-level BPE does, NULL: none.
 */
const struct lb_gguf_pre *lb_gguf_pre_of(const json_t *tokenizer);

#endif
