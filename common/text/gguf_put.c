/* A tokenizer as the keys of a GGUF that llama.cpp reads. What they cannot say is refused, not left out. */
#include "common/base/base64.h"
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/gguf_pre.h"
#include "common/text/gguf_vocab.h"
#include "common/text/internal.h"
#include "common/text/unicode.h"

#include <string.h>

#define SPACE "\xe2\x96\x81" /* U+2581: SentencePiece's space */
#define ADVICE "; write the file without a vocabulary (--no-vocabulary) and give the tokenizer beside it"

struct writing {
    const struct lb_tokenizer *tokenizer;
    const json_t *root, *model;
    struct lb_gguf_out *out;
    int32_t n;         /* rows */
    const char **text; /* [n] */
    int32_t *type;     /* [n] */
    float *score;      /* [n] for kinds that have scores */
    int32_t unknown;   /* the model's own unknown token; -1: none */
    struct lb_arena spelled;
    struct lb_detail *detail;
};

static enum lb_status refuse(const struct writing *w, const char *why) {
    return lb_fail(w->detail, LB_E_UNSUPPORTED, "a GGUF cannot hold this tokenizer: %s" ADVICE, why);
}

static enum lb_status no_memory(const struct writing *w) {
    return lb_fail(w->detail, LB_E_NOMEM, "out of memory for the vocabulary");
}

static bool is_text(const json_t *object, const char *key, const char *text) {
    const char *have = json_string_value(json_object_get(object, key));
    return have && !strcmp(have, text);
}

/* ---- tokens ---- */

/* Whether a token is looked for in normalized text, and that is another text to it: one that the normalizer
 * changes, or that it makes of capitals. */
static enum lb_status is_normalized(const struct writing *w, const json_t *added, const char *text,
                                    bool *out) {
    const json_t *normalized = json_object_get(added, "normalized");
    bool asked = normalized ? json_is_true(normalized) : !json_is_true(json_object_get(added, "special"));
    bool ascii = true;
    size_t len = strlen(text);
    struct lb_normalized done = {0};
    char *capitals = asked ? lb_malloc_array(len + 1, 1) : NULL;
    enum lb_status status = capitals || !asked ? LB_OK : no_memory(w);
    for (size_t i = 0; capitals && i < len; i++) {
        capitals[i] = (char)(text[i] >= 'a' && text[i] <= 'z' ? text[i] - 'a' + 'A' : text[i]);
        ascii = ascii && !(text[i] & 0x80);
    }
    if (capitals) {
        status = lb_normalize(&w->tokenizer->normalizer, capitals, len, &done, w->detail);
    }
    if (status == LB_OK) {
        *out = asked && w->tokenizer->normalizer.n > 0 &&
               (!ascii || done.len != len || memcmp(done.text, capitals, len) != 0);
    }
    lb_normalized_finish(&done);
    lb_free(capitals);
    return status == LB_OK ? LB_OK : lb_fail(w->detail, status, "out of memory for the vocabulary");
}

static enum lb_status type_added(struct writing *w) {
    size_t i;
    const json_t *added;
    json_array_foreach(json_object_get(w->root, "added_tokens"), i, added) {
        int32_t id = (int32_t)json_integer_value(json_object_get(added, "id"));
        bool special = json_is_true(json_object_get(added, "special"));
        bool minds = json_is_true(json_object_get(added, "lstrip")) ||
                     json_is_true(json_object_get(added, "rstrip")) ||
                     json_is_true(json_object_get(added, "single_word"));
        bool normalized = false;
        enum lb_status status = is_normalized(w, added, w->text[id], &normalized);
        if (status != LB_OK) {
            return status;
        }
        if (minds || normalized) {
            return lb_fail(w->detail, LB_E_UNSUPPORTED,
                           "a GGUF cannot hold this tokenizer: its token \"%.60s\" %s" ADVICE, w->text[id],
                           minds ? "minds what stands beside it (lstrip, rstrip or single_word)"
                                 : "is looked for in normalized text");
        }
        w->type[id] = special ? LB_TOKEN_CONTROL : LB_TOKEN_USER;
    }
    return LB_OK;
}

/* Rows that no token has are called as llama.cpp's converter calls them. */
static enum lb_status take_tokens(struct writing *w, int64_t n_rows) {
    int32_t size = w->tokenizer->vocab.size;
    if (n_rows < size || n_rows > INT32_MAX) {
        return lb_fail(w->detail, LB_E_MISMATCH,
                       "the tokenizer has %d tokens, the model %lld rows: it is not this model's", size,
                       (long long)n_rows);
    }
    w->n = (int32_t)n_rows;
    w->text = lb_calloc((size_t)w->n, sizeof *w->text);
    w->type = lb_calloc((size_t)w->n, sizeof *w->type);
    if (!w->text || !w->type) {
        return no_memory(w);
    }
    for (int32_t i = 0; i < w->n; i++) {
        w->text[i] = lb_tokenizer_token(w->tokenizer, i);
        w->type[i] = w->text[i] ? LB_TOKEN_NORMAL : LB_TOKEN_UNUSED;
        if (!w->text[i] && !(w->text[i] = lb_arena_printf(&w->spelled, "[PAD%d]", i))) {
            return no_memory(w);
        }
    }
    return type_added(w);
}

/* ---- gpt2 ---- */

/* merges of the file: "a b", or ["a", "b"]. */
static enum lb_status put_merges(struct writing *w) {
    const json_t *merges = json_object_get(w->model, "merges"), *merge;
    const char **texts = lb_calloc(json_array_size(merges) + 1, sizeof *texts);
    size_t i, n = 0;
    if (!texts) {
        return no_memory(w);
    }
    json_array_foreach(merges, i, merge) {
        const char *text = json_string_value(merge);
        const char *a = json_string_value(json_array_get(merge, 0)),
                   *b = json_string_value(json_array_get(merge, 1));
        if (text && !strncmp(text, "#version", 8)) {
            continue;
        }
        if (!text && (strchr(a, ' ') || strchr(b, ' '))) {
            lb_free(texts);
            return refuse(w, "a merge has a space in it");
        }
        texts[n] = text ? text : lb_arena_printf(&w->spelled, "%s %s", a, b);
        if (!texts[n++]) {
            lb_free(texts);
            return no_memory(w);
        }
    }
    lb_gguf_put_strings(w->out, LB_TOKENIZER_KEY "merges", texts, n);
    lb_free(texts);
    return LB_OK;
}

static enum lb_status put_byte_level(struct writing *w) {
    const struct lb_gguf_pre *pre = lb_gguf_pre_of(w->root);
    if (!pre) {
        return refuse(
            w, "none of the names that readers know (tokenizer.ggml.pre) cuts text as its pre_tokenizer and "
               "normalizer do");
    }
    char *name = lb_arena_strdup(&w->spelled, pre->names);
    if (!name) {
        return no_memory(w);
    }
    name[strcspn(name, " ")] = '\0';
    lb_gguf_put_string(w->out, LB_TOKENIZER_KEY "model", "gpt2");
    lb_gguf_put_string(w->out, LB_TOKENIZER_KEY "pre", name);
    return put_merges(w);
}

/* ---- llama ---- */

/* Whether value is a replacement of the space by U+2581. */
static bool replaces_space(const json_t *value) {
    return is_text(value, "type", "Replace") && is_text(json_object_get(value, "pattern"), "String", " ") &&
           is_text(value, "content", SPACE);
}

/* The forms that stand for "a space before each stretch of text" and "none"; false for all others. */
static bool space_prefix(const struct writing *w, bool *out) {
    const json_t *normalizer = json_object_get(w->root, "normalizer");
    const json_t *cut = json_object_get(w->root, "pre_tokenizer");
    const json_t *list = json_object_get(normalizer, "normalizers");
    bool uncut = !cut || json_is_null(cut) ||
                 (is_text(cut, "type", "Split") && is_text(json_object_get(cut, "pattern"), "String", " "));
    *out = false;
    if (is_text(cut, "type", "Metaspace")) {
        *out = !is_text(cut, "prepend_scheme", "never");
        return (!normalizer || json_is_null(normalizer)) && json_is_false(json_object_get(cut, "split"));
    }
    if (is_text(normalizer, "type", "Sequence") && json_array_size(list) == 2) {
        *out = true;
        return uncut && is_text(json_array_get(list, 0), "type", "Prepend") &&
               is_text(json_array_get(list, 0), "prepend", SPACE) && replaces_space(json_array_get(list, 1));
    }
    return uncut && replaces_space(normalizer);
}

/* A token's score is the place of the first merge that makes it: what is merged first is best. Others are
 * never made by merging, and follow in their order. */
static enum lb_status score_tokens(struct writing *w) {
    const json_t *merges = json_object_get(w->model, "merges"), *merge;
    const struct lb_vocab *vocab = &w->tokenizer->vocab;
    size_t i, n = json_array_size(merges);
    char *joined = lb_malloc_array(2 * (size_t)vocab->longest + 2, 1);
    w->score = lb_calloc((size_t)w->n, sizeof *w->score);
    if (!w->score || !joined) {
        lb_free(joined);
        return no_memory(w);
    }
    for (int32_t k = 0; k < w->n; k++) {
        w->score[k] = -(float)n - (float)k;
    }
    json_array_foreach(merges, i, merge) {
        const char *text = json_string_value(merge), *space = text ? strchr(text, ' ') : NULL;
        const char *a = text ? text : json_string_value(json_array_get(merge, 0));
        const char *b = space ? space + 1 : json_string_value(json_array_get(merge, 1));
        size_t left = space ? (size_t)(space - text) : strlen(a), right = strlen(b);
        memcpy(joined, a, left);
        memcpy(joined + left, b, right);
        int32_t id = lb_vocab_find(vocab, joined, left + right, LB_ENTRY_MODEL);
        if (id >= 0 && w->score[id] < -(float)i) {
            w->score[id] = -(float)i;
        }
    }
    lb_free(joined);
    return LB_OK;
}

/* Bytes, the unknown token, and what users define, whose spaces are spaces in the file. */
static enum lb_status type_pieces(struct writing *w) {
    const char *unknown = json_string_value(json_object_get(w->model, "unk_token"));
    bool fallback = json_is_true(json_object_get(w->model, "byte_fallback"));
    for (int32_t i = 0; i < w->n; i++) {
        const char *text = w->text[i];
        if (unknown && !strcmp(text, unknown)) {
            w->type[i] = LB_TOKEN_UNKNOWN;
        } else if (fallback && strlen(text) == 6 && !strncmp(text, "<0x", 3) && text[5] == '>' &&
                   strspn(text + 3, "0123456789ABCDEF") == 2) {
            w->type[i] = LB_TOKEN_BYTE;
        }
    }
    return LB_OK;
}

static enum lb_status put_sentencepiece(struct writing *w) {
    bool prefix = false;
    if (!space_prefix(w, &prefix)) {
        return refuse(
            w,
            "its normalizer and pre_tokenizer are none of the forms that stand for SentencePiece's spaces");
    }
    enum lb_status status = type_pieces(w);
    status = status == LB_OK ? score_tokens(w) : status;
    if (status == LB_OK) {
        lb_gguf_put_string(w->out, LB_TOKENIZER_KEY "model", "llama");
        lb_gguf_put_string(w->out, LB_TOKENIZER_KEY "pre", "default");
        lb_gguf_put_f32s(w->out, LB_TOKENIZER_KEY "scores", w->score, (size_t)w->n);
        lb_gguf_put_bool(w->out, LB_TOKENIZER_KEY "add_space_prefix", prefix);
    }
    return status;
}

/* ---- bert ---- */

static enum lb_status put_wordpiece(struct writing *w) {
    const json_t *normalizer = json_object_get(w->root, "normalizer");
    const json_t *strip = json_object_get(normalizer, "strip_accents");
    bool lower = json_is_true(json_object_get(normalizer, "lowercase"));
    if (!is_text(normalizer, "type", "BertNormalizer") ||
        !is_text(json_object_get(w->root, "pre_tokenizer"), "type", "BertPreTokenizer") ||
        !is_text(w->model, "continuing_subword_prefix", "##") ||
        !json_is_true(json_object_get(normalizer, "handle_chinese_chars"))) {
        return refuse(w, "its WordPiece model does not have BERT's normalizer, pre_tokenizer and \"##\"");
    }
    for (int32_t i = 0; i < w->n; i++) {
        const char *text = w->text[i];
        size_t len = strlen(text);
        bool bracketed = text[0] == '[' && text[len - 1] == ']' && len > 2;
        if (w->type[i] == LB_TOKEN_NORMAL && !bracketed) {
            bool goes_on = !strncmp(text, "##", 2) && len > 2;
            w->text[i] = goes_on ? text + 2 : lb_arena_printf(&w->spelled, SPACE "%s", text);
            if (!w->text[i]) {
                return no_memory(w);
            }
        }
    }
    lb_gguf_put_string(w->out, LB_TOKENIZER_KEY "model", "bert");
    lb_gguf_put_bool(w->out, LB_TOKENIZER_KEY "normalizer.lowercase", lower);
    lb_gguf_put_bool(w->out, LB_TOKENIZER_KEY "normalizer.strip_accents",
                     strip && !json_is_null(strip) ? json_is_true(strip) : lower);
    return LB_OK;
}

/* ---- t5 ---- */

/* Words cut at spaces, each with a U+2581 before it: what llama.cpp does with these vocabularies. */
static bool cuts_words(const json_t *cut) {
    const json_t *list = json_object_get(cut, "pretokenizers"), *last = json_array_get(list, 1);
    const char *scheme = json_string_value(json_object_get(last, "prepend_scheme"));
    return is_text(cut, "type", "Sequence") && json_array_size(list) == 2 &&
           is_text(json_array_get(list, 0), "type", "WhitespaceSplit") &&
           is_text(last, "type", "Metaspace") && is_text(last, "replacement", SPACE) &&
           (scheme ? !strcmp(scheme, "always") : !json_is_false(json_object_get(last, "add_prefix_space"))) &&
           !json_is_false(json_object_get(last, "split"));
}

/* llama.cpp cuts at U+0020 only; WhitespaceSplit at all spaces, of which the normalizer must leave no other.
 */
static enum lb_status check_spaces(const struct writing *w) {
    for (uint32_t c = 0; c <= 0x3000; c++) {
        char text[8] = "a";
        struct lb_normalized done = {0};
        bool left = false;
        if (c == ' ' || !lb_is_space(c)) {
            continue;
        }
        size_t len = 1 + lb_utf8_put(c, text + 1), at = 0;
        enum lb_status status = lb_normalize(&w->tokenizer->normalizer, text, len, &done, w->detail);
        while (status == LB_OK && at < done.len) {
            uint32_t there = lb_utf8_next(done.text, &at);
            left = left || (there != ' ' && lb_is_space(there));
        }
        lb_normalized_finish(&done);
        if (status != LB_OK) {
            return no_memory(w);
        }
        if (left) {
            return lb_fail(
                w->detail, LB_E_UNSUPPORTED,
                "a GGUF cannot hold this tokenizer: llama.cpp cuts its words at U+0020 only, and its "
                "normalizer leaves U+%04X" ADVICE,
                (unsigned)c);
        }
    }
    return LB_OK;
}

static enum lb_status put_charsmap(struct writing *w, const json_t *normalizer) {
    const char *base64 = json_string_value(json_object_get(normalizer, "precompiled_charsmap"));
    size_t len = base64 ? strlen(base64) : 0, n = 0;
    unsigned char *bytes = lb_malloc_array(len / 4 + 1, 3);
    enum lb_status status = bytes ? LB_OK : no_memory(w);
    if (status == LB_OK && !lb_base64_bytes(base64 ? base64 : "", len, bytes, &n)) {
        status = refuse(w, "its precompiled_charsmap is no base64"); /* not of a tokenizer that was opened */
    }
    if (status == LB_OK) {
        lb_gguf_put_u8s(w->out, LB_TOKENIZER_KEY "precompiled_charsmap", bytes, n);
    }
    lb_free(bytes);
    return status;
}

static enum lb_status put_unigram(struct writing *w) {
    const json_t *normalizer = json_object_get(w->root, "normalizer"), *piece;
    int64_t unknown = json_is_integer(json_object_get(w->model, "unk_id"))
                          ? json_integer_value(json_object_get(w->model, "unk_id"))
                          : -1;
    bool maps = is_text(normalizer, "type", "Precompiled");
    size_t i;
    if (!cuts_words(json_object_get(w->root, "pre_tokenizer")) ||
        (!maps && normalizer && !json_is_null(normalizer))) {
        return refuse(w, "its Unigram model has not T5's normalizer (Precompiled or none) and pre_tokenizer "
                         "(WhitespaceSplit, Metaspace)");
    }
    if (unknown < 0 || json_is_true(json_object_get(w->model, "byte_fallback"))) {
        return refuse(w, "its Unigram model has a byte_fallback or no unk_id");
    }
    enum lb_status status = check_spaces(w);
    w->score = lb_calloc((size_t)w->n, sizeof *w->score);
    if (status != LB_OK || !w->score) {
        return status != LB_OK ? status : no_memory(w);
    }
    json_array_foreach(json_object_get(w->model, "vocab"), i, piece) {
        w->score[i] = (float)json_number_value(json_array_get(piece, 1));
    }
    w->type[unknown] = LB_TOKEN_UNKNOWN;
    w->unknown = (int32_t)unknown;
    lb_gguf_put_string(w->out, LB_TOKENIZER_KEY "model", "t5");
    lb_gguf_put_string(w->out, LB_TOKENIZER_KEY "pre", "default");
    lb_gguf_put_f32s(w->out, LB_TOKENIZER_KEY "scores", w->score, (size_t)w->n);
    lb_gguf_put_bool(w->out, LB_TOKENIZER_KEY "add_space_prefix", true);
    lb_gguf_put_bool(w->out, LB_TOKENIZER_KEY "remove_extra_whitespaces", true);
    return maps ? put_charsmap(w, normalizer) : LB_OK;
}

/* ---- the whole ---- */

static void put_id(struct writing *w, const char *key, int32_t id) {
    if (id >= 0) {
        lb_gguf_put_u32(w->out, key, (uint32_t)id);
    }
}

/* What is put around a text: at most one token on each side. */
static enum lb_status put_ends(struct writing *w) {
    const struct lb_tokenizer *t = w->tokenizer;
    bool bert = is_text(w->model, "type", "WordPiece"), bos = t->before.len > 0, eos = t->after.len > 0;
    int32_t last = bert ? t->sep : t->eos;
    if (t->before.len > 1 || t->after.len > 1) {
        return refuse(w, "its post_processor puts more than one token before or behind a text");
    }
    last = eos && (bert || last < 0) ? t->after.data[0] : last;
    if (eos && t->after.data[0] != last) {
        return refuse(w, "its post_processor ends a text with a token that is not its eos_token");
    }
    int32_t unk = lb_tokenizer_id(t, json_is_string(json_object_get(w->model, "unk_token"))
                                         ? json_string_value(json_object_get(w->model, "unk_token"))
                                         : "");
    unk = w->unknown >= 0 ? w->unknown : t->unk >= 0 ? t->unk : unk;
    put_id(w, LB_TOKENIZER_KEY "bos_token_id", bos ? t->before.data[0] : t->bos);
    put_id(w, LB_TOKENIZER_KEY "eos_token_id", bert ? t->eos : last);
    put_id(w, LB_TOKENIZER_KEY "unknown_token_id", unk);
    put_id(w, LB_TOKENIZER_KEY "seperator_token_id", bert ? last : t->sep); /* so spelled there */
    put_id(w, LB_TOKENIZER_KEY "padding_token_id", t->pad);
    put_id(w, LB_TOKENIZER_KEY "cls_token_id", bert && bos ? t->before.data[0] : t->cls);
    put_id(w, LB_TOKENIZER_KEY "mask_token_id", t->mask);
    lb_gguf_put_bool(w->out, LB_TOKENIZER_KEY "add_bos_token", bos);
    lb_gguf_put_bool(w->out, LB_TOKENIZER_KEY "add_eos_token", eos && !bert);
    if (bert) {
        lb_gguf_put_bool(w->out, LB_TOKENIZER_KEY "add_sep_token", eos);
    }
    return LB_OK;
}

static enum lb_status put_all(struct writing *w, int64_t n_rows) {
    const char *type = w->tokenizer->kind->type;
    enum lb_status status = take_tokens(w, n_rows);
    if (status != LB_OK) {
        return status;
    }
    if (lb_pretokenizer_bytes(w->tokenizer->pretokenizer)) {
        status = put_byte_level(w);
    } else if (!strcmp(type, "BPE")) {
        status = put_sentencepiece(w);
    } else if (!strcmp(type, "WordPiece")) {
        status = put_wordpiece(w);
    } else if (!strcmp(type, "Unigram")) {
        status = put_unigram(w);
    } else {
        status = lb_fail(w->detail, LB_E_UNSUPPORTED,
                         "GGUF vocabularies are written for models BPE, WordPiece and Unigram, not %s" ADVICE,
                         type);
    }
    if (status != LB_OK) {
        return status;
    }
    lb_gguf_put_strings(w->out, LB_TOKENIZER_KEY "tokens", w->text, (size_t)w->n);
    lb_gguf_put_i32s(w->out, LB_TOKENIZER_KEY "token_type", w->type, (size_t)w->n);
    if (w->tokenizer->chat_template) {
        lb_gguf_put_string(w->out, "tokenizer.chat_template", w->tokenizer->chat_template);
    }
    return put_ends(w);
}

enum lb_status lb_tokenizer_put_gguf(const struct lb_tokenizer *tokenizer, int64_t n_rows,
                                     struct lb_gguf_out *out, struct lb_detail *detail) {
    struct writing w = {.tokenizer = tokenizer, .out = out, .unknown = -1, .detail = detail};
    json_t *root = NULL;
    lb_arena_init(&w.spelled, (size_t)1 << 30);
    enum lb_status status =
        lb_json_parse_loose(tokenizer->source, tokenizer->source_len, 0, "tokenizer.json", &root, detail);
    if (status == LB_OK) {
        w.root = root;
        w.model = json_object_get(root, "model");
        status = put_all(&w, n_rows);
    }
    json_decref(root);
    lb_arena_finish(&w.spelled);
    lb_free(w.text);
    lb_free(w.type);
    lb_free(w.score);
    return status;
}
