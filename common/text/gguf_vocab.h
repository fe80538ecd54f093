/* Vocabularies of GGUF files. One that is read becomes the text of the tokenizer.json that says the same, so
 * that there is one reader of tokenizers; one that is written becomes the keys that llama.cpp reads. The
 * keys: ggml-org/ggml docs/gguf.md, and llama.cpp's src/llama-vocab.cpp where that is silent.
 */
#ifndef LB_TEXT_GGUF_VOCAB_H
#define LB_TEXT_GGUF_VOCAB_H

#include "common/base/arena.h"
#include "common/formats/gguf.h"
#include "common/text/vocab.h"

/* The special tokens that a file names; -1: none. */
struct lb_gguf_ids {
    int32_t bos, eos, unk, sep, cls;
};

/* Appends the tokenizer.json. LB_E_NOTFOUND: the file has no vocabulary; LB_E_UNSUPPORTED names its kind or
 * the name of its pre-tokenizer; LB_E_FORMAT names the key and the token. what names the file. */
LB_NODISCARD enum lb_status lb_gguf_vocab_json(const struct lb_gguf *file, const char *what,
                                               struct lb_buf *out, struct lb_gguf_ids *out_ids,
                                               struct lb_detail *detail);

/* ---- for gguf_read.c, gguf_kinds.c, gguf_merges.c and gguf_vocab.c, on which these stand, only ---- */

/* The token types of gguf.md. */
enum {
    LB_TOKEN_NORMAL = 1,
    LB_TOKEN_UNKNOWN,
    LB_TOKEN_CONTROL,
    LB_TOKEN_USER,
    LB_TOKEN_UNUSED,
    LB_TOKEN_BYTE
};

#define LB_TOKENIZER_KEY "tokenizer.ggml."

/* A vocabulary on its way into tokenizer.json. */
struct lb_gguf_vocab {
    const struct lb_gguf *file;
    const char *what;
    const char *model; /* tokenizer.ggml.model */
    int32_t n;         /* rows */
    const char **text; /* [n] as tokenizer.json spells them; NULL: a row that no token has */
    uint8_t *type;     /* [n] */
    float *score;      /* [n], or NULL */
    struct lb_vocab by_text;
    struct lb_gguf_ids ids;
    struct lb_arena spelled; /* texts that the file spells otherwise */
    struct lb_buf *out;
    struct lb_detail *detail;
};

/* How one kind of vocabulary is spelled and what its tokenizer.json says; one row a value of
 * tokenizer.ggml.model. */
struct lb_gguf_kind {
    const char *model;
    struct lb_gguf_ids ids; /* where the file names none */
    bool add_bos, add_eos;  /* unless the file says otherwise */
    /* The text of a token in tokenizer.json; NULL: out of memory. May be NULL: as it is. */
    const char *(*spell)(struct lb_gguf_vocab *v, int32_t id);
    /* Appends everything behind added_tokens. */
    enum lb_status (*write)(struct lb_gguf_vocab *v, const struct lb_gguf_kind *kind);
};
const struct lb_gguf_kind *lb_gguf_kind_find(const char *model);

/* A text as a JSON string. */
void lb_gguf_put_text(struct lb_buf *out, const char *text);
/* "TemplateProcessing" or null. before, after: -1: nothing is put there. */
void lb_gguf_put_template(struct lb_gguf_vocab *v, int32_t before, int32_t after);
/* A bool of the file; absent: otherwise. */
bool lb_gguf_flag(const struct lb_gguf_vocab *v, const char *key, bool otherwise);
/* add_bos_token and add_eos_token as the file has them; LB_E_FORMAT when it does not say which tokens. */
LB_NODISCARD enum lb_status lb_gguf_put_ends(struct lb_gguf_vocab *v, bool bos, bool eos);
/* "vocab":{...} of the first n rows. */
void lb_gguf_put_vocab(struct lb_gguf_vocab *v, int32_t n);
/* "merges":[...]: those of the file. */
LB_NODISCARD enum lb_status lb_gguf_put_given_merges(struct lb_gguf_vocab *v);
/* "merges":[...]: each way to join two tokens into a third, the best result first, for vocabularies that have
 * scores instead. */
LB_NODISCARD enum lb_status lb_gguf_put_merges(struct lb_gguf_vocab *v);

#endif
