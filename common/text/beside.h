/* Files beside a tokenizer.json that say how texts are made with it, or what it was trimmed from. They are
 * kept as they are, so that what is trained with the tokenizer is given them, too.
 */
#ifndef LB_TEXT_BESIDE_H
#define LB_TEXT_BESIDE_H

#include "common/base/buf.h"
#include "common/base/json.h"
#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>

struct lb_tokenizer;

enum lb_beside {
    LB_BESIDE_CONFIG,     /* tokenizer_config.json */
    LB_BESIDE_TOKENS,     /* special_tokens_map.json */
    LB_BESIDE_TEMPLATE,   /* chat_template.jinja */
    LB_BESIDE_GENERATION, /* generation_config.json */
    LB_BESIDE_MAP,        /* vocab_map.json */
    LB_BESIDE_COUNT
};

struct lb_beside_file {
    char *bytes; /* NULL: there is none */
    size_t len;
};

/* The file's name. */
const char *lb_beside_name(enum lb_beside which);
/* Its bytes, the tokenizer's; NULL when it was not beside the tokenizer.json, or the tokenizer comes from
 * elsewhere. */
const char *lb_tokenizer_beside(const struct lb_tokenizer *tokenizer, enum lb_beside which, size_t *out_len);
/* The text of a key like "eos_token" of a tokenizer_config.json or special_tokens_map.json: a string, or an
 * object whose "content" is one; NULL: neither. */
const char *lb_beside_token(const json_t *object, const char *key);

/* The tokenizer_config.json of a tokenizer as one text, appended to out: the file's own, with the text of a
 * chat_template.jinja beside it; where none was given, one that says what is known otherwise (a GGUF file's
 * keys, the usual names). */
LB_NODISCARD enum lb_status lb_tokenizer_config(const struct lb_tokenizer *tokenizer, struct lb_buf *out,
                                                struct lb_detail *detail);
/* Sets the tokenizer's eos_token, bos_token and its like, and chat_template, as far as it has them; false:
 * out of memory. */
bool lb_beside_put_own(const struct lb_tokenizer *tokenizer, json_t *object);

/* All that are in dir into files, which are NULL; the caller finishes them, also after a failure.
 * LB_E_FORMAT, LB_E_LIMIT: one is no JSON object. */
LB_NODISCARD enum lb_status lb_beside_read(const char *dir, struct lb_beside_file files[LB_BESIDE_COUNT],
                                           struct lb_detail *detail);
void lb_beside_finish(struct lb_beside_file files[LB_BESIDE_COUNT]);

#endif
