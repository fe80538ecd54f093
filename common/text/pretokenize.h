/* Pre-tokenizers: how text is cut into the pieces that the model sees one by one (tokenizer.json,
 * "pre_tokenizer").
 *
 * A pre-tokenizer is a short list of steps, made once and constant: put a space before, cut by a regex or at
 * a kind of character, write spaces as a sign or bytes as letters. Safe to use from several threads, each
 * with its own lb_pieces.
 */
#ifndef LB_TEXT_PRETOKENIZE_H
#define LB_TEXT_PRETOKENIZE_H

#include "common/base/json.h"
#include "common/base/sha256.h"
#include "common/base/status.h"
#include "common/text/regex.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lb_pretokenizer;

/* A piece: bytes of lb_pieces.text. */
struct lb_piece_span {
    uint32_t start, len;
};

/* The result of a run and its memory, kept from one run to the next. Zero-initialise. */
struct lb_pieces {
    bool continues;   /* set by the caller: the text is not the beginning of the whole one */
    const char *text; /* the text that the spans are of: the caller's, or a copy that a step has changed */
    struct lb_piece_span *span;
    size_t n;
    /* private */
    size_t cap;
    struct lb_piece_span *spare;
    size_t spare_cap;
    char *copy[2];
    size_t copy_cap[2];
    bool moved; /* the first piece is not what the whole text began with */
    struct lb_regex_run run;
};

/* Accepts NULL and a zeroed object. */
void lb_pieces_finish(struct lb_pieces *pieces);

/* value: the "pre_tokenizer" of a tokenizer.json, null included. LB_E_UNSUPPORTED names the type or key. */
LB_NODISCARD enum lb_status lb_pretokenizer_create(const json_t *value, const char *what,
                                                   struct lb_pretokenizer **out, struct lb_detail *detail);
void lb_pretokenizer_destroy(struct lb_pretokenizer *pretokenizer);
/* True when ByteLevel is among the steps: the pieces are then to be read as bytes. */
bool lb_pretokenizer_bytes(const struct lb_pretokenizer *pretokenizer);
/* Adds all that decides how text is cut. */
void lb_pretokenizer_hash(const struct lb_pretokenizer *pretokenizer, struct lb_sha256 *hash);
/* Cuts text (valid UTF-8, less than 2^31 bytes) into pieces, none of them empty. Spans stay valid until the
 * next run or as long as text does. LB_E_LIMIT when a regex of the file takes too many steps. */
LB_NODISCARD enum lb_status lb_pretokenize(const struct lb_pretokenizer *pretokenizer, const char *text,
                                           size_t len, struct lb_pieces *pieces, struct lb_detail *detail);

#endif
