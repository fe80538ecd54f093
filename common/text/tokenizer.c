#include "common/text/tokenizer.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/internal.h"

#include <string.h>

void lb_tokenizer_destroy(struct lb_tokenizer *tokenizer) {
    if (tokenizer) {
        if (tokenizer->kind) {
            tokenizer->kind->destroy(tokenizer->model);
        }
        lb_normalizer_finish(&tokenizer->normalizer);
        lb_pretokenizer_destroy(tokenizer->pretokenizer);
        lb_decoder_destroy(tokenizer->decoder);
        lb_added_finish(&tokenizer->raw);
        lb_added_finish(&tokenizer->normalized);
        lb_free(tokenizer->before.data);
        lb_free(tokenizer->after.data);
        lb_vocab_finish(&tokenizer->vocab);
        lb_free(tokenizer->chat_template);
        lb_free(tokenizer->chat_template_from);
        lb_free(tokenizer->source);
        lb_beside_finish(tokenizer->beside);
        lb_free(tokenizer);
    }
}

/* ---- encoding ---- */

/* One call of encode: what it reads, what it writes, its memory. */
struct encoder {
    const struct lb_tokenizer *tokenizer;
    struct lb_ids *out;
    const char *text; /* all of it */
    bool begins;      /* what is in normalized begins the text */
    struct lb_normalized normalized;
    struct lb_pieces pieces;
    struct lb_text_scratch scratch;
    const uint8_t *plain; /* [length of text] bytes that no special token may take; NULL: none */
    struct lb_detail *detail;
};

/* Text without added tokens, normalized: pieces, then ids. */
static enum lb_status encode_plain(struct encoder *e, const char *text, size_t len) {
    if (!len) {
        return LB_OK;
    }
    const struct lb_tokenizer *tokenizer = e->tokenizer;
    e->pieces.continues = !e->begins || text != e->normalized.text;
    enum lb_status status = lb_pretokenize(tokenizer->pretokenizer, text, len, &e->pieces, e->detail);
    for (size_t i = 0; i < e->pieces.n && status == LB_OK; i++) {
        const struct lb_piece_span *span = &e->pieces.span[i];
        status = tokenizer->kind->encode(tokenizer->model, e->pieces.text + span->start, span->len,
                                         &e->scratch, e->out);
    }
    return status;
}

/* Cuts text at the tokens of set; what lies between goes to between. plain as in lb_added_next. */
static enum lb_status encode_around(struct encoder *e, const struct lb_added_set *set, const char *text,
                                    size_t len, const uint8_t *plain,
                                    enum lb_status (*between)(struct encoder *e, const char *text,
                                                              size_t len)) {
    struct lb_added_match match;
    size_t cursor = 0, done = 0;
    enum lb_status status = LB_OK;
    while (status == LB_OK && lb_added_next(set, text, len, plain, &cursor, done, &match)) {
        if (done < match.start) {
            status = between(e, text + done, match.start - done);
        }
        if (status == LB_OK) {
            status = lb_ids_push(e->out, match.id);
        }
        done = match.end;
    }
    return status != LB_OK || done >= len ? status : between(e, text + done, len - done);
}

/* Text that the normalizer has changed has lost its marks: where some of it is to stay plain, a special token
 * found in it could be anybody's. */
static enum lb_status check_changed(const struct encoder *e, const uint8_t *plain, size_t len) {
    const struct lb_normalized *changed = &e->normalized;
    struct lb_added_match match;
    size_t cursor = 0, n = 0;
    while (plain && n < len && !plain[n]) {
        n++;
    }
    if (!plain || n == len) {
        return LB_OK;
    }
    while (lb_added_next(&e->tokenizer->normalized, changed->text, changed->len, NULL, &cursor, 0, &match)) {
        if (lb_tokenizer_is_special(e->tokenizer, match.id)) {
            return lb_fail(
                e->detail, LB_E_UNSUPPORTED,
                "the special token %.60s is looked for in normalized text, where it cannot be told "
                "from a message that says so; give it \"normalized\": false in tokenizer.json",
                lb_vocab_text(&e->tokenizer->vocab, match.id));
        }
    }
    return LB_OK;
}

static enum lb_status encode_raw(struct encoder *e, const char *text, size_t len) {
    enum lb_status status = lb_normalize(&e->tokenizer->normalizer, text, len, &e->normalized, e->detail);
    const uint8_t *plain = e->plain ? e->plain + (text - e->text) : NULL;
    if (status == LB_OK && e->normalized.text != text) {
        status = check_changed(e, plain, len);
        plain = NULL;
    }
    if (status != LB_OK) {
        return status;
    }
    e->begins = text == e->text && !e->normalized.cut;
    return encode_around(e, &e->tokenizer->normalized, e->normalized.text, e->normalized.len, plain,
                         encode_plain);
}

static enum lb_status encode(const struct lb_tokenizer *tokenizer, const char *text, size_t len,
                             bool add_special, const uint8_t *plain, struct lb_ids *out,
                             struct lb_detail *detail) {
    size_t good = lb_utf8_check(text, len);
    if (good < len) {
        return lb_fail(detail, LB_E_FORMAT, "the text is not UTF-8 at byte %zu (0x%02x)", good,
                       (unsigned)(uint8_t)text[good]);
    }
    struct encoder e = {.tokenizer = tokenizer, .out = out, .text = text, .plain = plain, .detail = detail};
    size_t before = out->len;
    enum lb_status status = LB_OK;
    if (add_special) {
        status = lb_ids_append(out, tokenizer->before.data, tokenizer->before.len);
    }
    if (status == LB_OK) {
        status = encode_around(&e, &tokenizer->raw, text, len, plain, encode_raw);
    }
    if (status == LB_OK && add_special) {
        status = lb_ids_append(out, tokenizer->after.data, tokenizer->after.len);
    }
    lb_normalized_finish(&e.normalized);
    lb_pieces_finish(&e.pieces);
    lb_free(e.scratch.data);
    if (status != LB_OK) {
        out->len = before;
        return lb_fail(detail, status,
                       status == LB_E_UNSUPPORTED
                           ? "the text of %zu bytes has characters that the tokenizer, which has no "
                             "unknown token, does not know"
                           : "out of memory while encoding %zu bytes of text",
                       len);
    }
    return LB_OK;
}

enum lb_status lb_tokenizer_encode(const struct lb_tokenizer *tokenizer, const char *text, size_t len,
                                   bool add_special, struct lb_ids *out, struct lb_detail *detail) {
    return encode(tokenizer, text, len, add_special, NULL, out, detail);
}

enum lb_status lb_tokenizer_encode_marked(const struct lb_tokenizer *tokenizer, const char *text, size_t len,
                                          const uint8_t *plain, struct lb_ids *out,
                                          struct lb_detail *detail) {
    return encode(tokenizer, text, len, false, plain, out, detail);
}

/* ---- decoding and questions ---- */

enum lb_status lb_tokenizer_decode(const struct lb_tokenizer *tokenizer, const int32_t *ids, size_t n,
                                   bool skip_special, struct lb_buf *out, struct lb_detail *detail) {
    const struct lb_vocab *vocab = &tokenizer->vocab;
    for (size_t i = 0; i < n; i++) {
        if (!lb_vocab_text(vocab, ids[i])) {
            return lb_fail(detail, LB_E_ARG, "ids[%zu] is %d: not in this vocabulary of %d", i, ids[i],
                           vocab->size);
        }
    }
    enum lb_status status = lb_decoder_run(tokenizer->decoder, vocab, ids, n, skip_special, out);
    return status != LB_OK ? lb_fail(detail, status, "the text of %zu tokens does not fit", n) : LB_OK;
}

enum lb_status lb_tokenizer_fits(const struct lb_tokenizer *tokenizer, int64_t rows, const char *what,
                                 struct lb_detail *detail) {
    return tokenizer->vocab.size <= rows
               ? LB_OK
               : lb_fail(detail, LB_E_MISMATCH,
                         "%s has a vocabulary of %lld, the tokenizer of %d; give it its own tokenizer", what,
                         (long long)rows, tokenizer->vocab.size);
}

int32_t lb_tokenizer_vocab_size(const struct lb_tokenizer *tokenizer) {
    return tokenizer->vocab.size;
}

const char *lb_tokenizer_token(const struct lb_tokenizer *tokenizer, int32_t id) {
    return lb_vocab_text(&tokenizer->vocab, id);
}

const char *lb_tokenizer_bytes(const struct lb_tokenizer *tokenizer, int32_t id, size_t *out_len) {
    if (!lb_vocab_text(&tokenizer->vocab, id)) {
        return NULL;
    }
    *out_len = tokenizer->vocab.entry[id].n_bytes;
    return tokenizer->vocab.pool + tokenizer->vocab.entry[id].bytes;
}

bool lb_tokenizer_is_special(const struct lb_tokenizer *tokenizer, int32_t id) {
    return lb_vocab_text(&tokenizer->vocab, id) && (tokenizer->vocab.entry[id].flags & LB_ENTRY_SPECIAL);
}

int32_t lb_tokenizer_id(const struct lb_tokenizer *tokenizer, const char *token) {
    return lb_vocab_find(&tokenizer->vocab, token, strlen(token), LB_ENTRY_MODEL | LB_ENTRY_ADDED);
}

int32_t lb_tokenizer_eos(const struct lb_tokenizer *tokenizer) {
    return tokenizer->eos;
}

int32_t lb_tokenizer_bos(const struct lb_tokenizer *tokenizer) {
    return tokenizer->bos;
}

int32_t lb_tokenizer_named(const struct lb_tokenizer *tokenizer, const char *name) {
    const struct {
        const char *name;
        int32_t id;
    } tokens[] = {{"bos_token", tokenizer->bos},  {"eos_token", tokenizer->eos},
                  {"unk_token", tokenizer->unk},  {"sep_token", tokenizer->sep},
                  {"cls_token", tokenizer->cls},  {"pad_token", tokenizer->pad},
                  {"mask_token", tokenizer->mask}};
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        if (!strcmp(tokens[i].name, name)) {
            return tokens[i].id;
        }
    }
    return -1;
}

const struct lb_ids *lb_tokenizer_before(const struct lb_tokenizer *tokenizer) {
    return &tokenizer->before;
}

const struct lb_ids *lb_tokenizer_after(const struct lb_tokenizer *tokenizer) {
    return &tokenizer->after;
}

enum lb_status lb_tokenizer_add_bos(struct lb_tokenizer *tokenizer, bool add, struct lb_detail *detail) {
    struct lb_ids *before = &tokenizer->before;
    bool has = before->len > 0 && before->data[0] == tokenizer->bos;
    if (add && tokenizer->bos < 0) {
        return lb_fail(detail, LB_E_ARG,
                       "add_bos_token: true, but the tokenizer does not say which token begins a text; put a "
                       "tokenizer_config.json with bos_token beside it");
    }
    if (add == has) {
        return LB_OK;
    }
    if (add && lb_ids_push(before, tokenizer->bos) != LB_OK) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the tokenizer");
    }
    size_t rest = before->len - 1;
    memmove(before->data + (add ? 1 : 0), before->data + (add ? 0 : 1), rest * sizeof *before->data);
    if (add) {
        before->data[0] = tokenizer->bos;
    } else {
        before->len = rest;
    }
    tokenizer->own_ends = true;
    return LB_OK;
}

bool lb_tokenizer_own_ends(const struct lb_tokenizer *tokenizer) {
    return tokenizer->own_ends;
}

const char *lb_tokenizer_fingerprint(const struct lb_tokenizer *tokenizer) {
    return tokenizer->fingerprint;
}

const char *lb_tokenizer_chat_template(const struct lb_tokenizer *tokenizer) {
    return tokenizer->chat_template;
}

const char *lb_tokenizer_chat_template_from(const struct lb_tokenizer *tokenizer) {
    return tokenizer->chat_template_from;
}

const char *lb_tokenizer_source(const struct lb_tokenizer *tokenizer, size_t *out_len) {
    *out_len = tokenizer->source_len;
    return tokenizer->source;
}
