/* The vocabulary of a GGUF file, read, checked and written as the tokenizer.json of its kind. */
#include "common/base/mem.h"
#include "common/text/gguf_vocab.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_TOKENS (1 << 24)

static const char tokens_key[] = LB_TOKENIZER_KEY "tokens";

static enum lb_status no_memory(const struct lb_gguf_vocab *v) {
    return lb_fail(v->detail, LB_E_NOMEM, "%s: out of memory for the vocabulary", v->what);
}

/* ---- reading ---- */

/* Whether the file has a list of one number for each token under this key. */
static enum lb_status has_numbers(const struct lb_gguf_vocab *v, const char *key, bool *out) {
    int64_t n = lb_gguf_array_count(v->file, key);
    *out = n >= 0;
    if (n >= 0 && n != v->n) {
        return lb_fail(v->detail, LB_E_FORMAT, "%s: %s has %lld values for %d tokens", v->what, key,
                       (long long)n, v->n);
    }
    return LB_OK;
}

static enum lb_status read_types(struct lb_gguf_vocab *v) {
    static const char key[] = LB_TOKENIZER_KEY "token_type";
    bool there = false;
    enum lb_status status = has_numbers(v, key, &there);
    for (int32_t i = 0; i < v->n && status == LB_OK; i++) {
        double type = LB_TOKEN_NORMAL;
        bool number = !there || lb_gguf_array_number(v->file, key, i, &type);
        if (!number || !(type >= 0 && type <= LB_TOKEN_BYTE) || type != floor(type)) {
            return lb_fail(v->detail, LB_E_FORMAT, "%s: %s of token %d is %g, which is no type of token",
                           v->what, key, i, type);
        }
        v->type[i] = type == 0 ? LB_TOKEN_NORMAL : (uint8_t)type;
    }
    return status;
}

static enum lb_status read_scores(struct lb_gguf_vocab *v) {
    static const char key[] = LB_TOKENIZER_KEY "scores";
    bool there = false;
    enum lb_status status = has_numbers(v, key, &there);
    if (status != LB_OK || !there) {
        return status;
    }
    v->score = lb_malloc_array((size_t)v->n, sizeof *v->score);
    if (!v->score) {
        return no_memory(v);
    }
    for (int32_t i = 0; i < v->n; i++) {
        double score = NAN;
        (void)lb_gguf_array_number(v->file, key, i, &score);
        if (!isfinite(score) || fabs(score) > 1e30) {
            return lb_fail(v->detail, LB_E_FORMAT, "%s: %s of token %d is no number that can be one", v->what,
                           key, i);
        }
        v->score[i] = (float)score;
    }
    return LB_OK;
}

/* Rows that only fill the matrix up: nothing, or what llama.cpp's converter calls them. */
static bool is_padding(const struct lb_gguf_vocab *v, int32_t id) {
    char name[24];
    snprintf(name, sizeof name, "[PAD%d]", id);
    return (v->type[id] == LB_TOKEN_UNUSED && !v->text[id][0]) ||
           ((v->type[id] == LB_TOKEN_UNUSED || v->type[id] == LB_TOKEN_USER) && !strcmp(v->text[id], name));
}

static enum lb_status read_texts(struct lb_gguf_vocab *v, const struct lb_gguf_kind *kind) {
    enum lb_status status = LB_OK;
    int32_t left = 0;
    for (int32_t i = 0; i < v->n && status == LB_OK; i++) {
        v->text[i] = lb_gguf_array_string(v->file, tokens_key, i);
        if (!v->text[i]) {
            return lb_fail(v->detail, LB_E_FORMAT, "%s: token %d is no UTF-8 text, or has a NUL in it",
                           v->what, i);
        }
        if (is_padding(v, i)) {
            v->text[i] = NULL;
            continue;
        }
        if (!v->text[i][0]) {
            return lb_fail(v->detail, LB_E_FORMAT, "%s: token %d is empty", v->what, i);
        }
        if (kind->spell && !(v->text[i] = kind->spell(v, i))) {
            return no_memory(v);
        }
        status =
            lb_vocab_put(&v->by_text, v->text[i], strlen(v->text[i]), i, LB_ENTRY_MODEL, v->what, v->detail);
        left++;
    }
    if (status == LB_OK && left == 0) {
        status = lb_fail(v->detail, LB_E_FORMAT, "%s: none of the %d tokens has a text", v->what, v->n);
    }
    return status;
}

/* One of the special tokens that a key names; otherwise: what it is without the key. */
static enum lb_status read_id(const struct lb_gguf_vocab *v, const char *name, int32_t otherwise,
                              int32_t *out) {
    char key[64];
    double id;
    snprintf(key, sizeof key, LB_TOKENIZER_KEY "%s", name);
    if (!lb_gguf_number(v->file, key, &id)) {
        *out = otherwise < v->n && otherwise >= 0 && v->text[otherwise] ? otherwise : -1;
        return LB_OK;
    }
    if (!(id >= 0 && id < v->n) || id != floor(id) || !v->text[(int32_t)id]) {
        return lb_fail(v->detail, LB_E_FORMAT, "%s: %s is %.0f, which is none of the %d tokens", v->what, key,
                       id, v->n);
    }
    *out = (int32_t)id;
    return LB_OK;
}

static enum lb_status read_ids(struct lb_gguf_vocab *v, const struct lb_gguf_kind *kind) {
    struct lb_gguf_ids *ids = &v->ids;
    enum lb_status status = read_id(v, "bos_token_id", kind->ids.bos, &ids->bos);
    status = status == LB_OK ? read_id(v, "eos_token_id", kind->ids.eos, &ids->eos) : status;
    status = status == LB_OK ? read_id(v, "unknown_token_id", kind->ids.unk, &ids->unk) : status;
    /* so spelled there */
    status = status == LB_OK ? read_id(v, "seperator_token_id", kind->ids.sep, &ids->sep) : status;
    /* what begins a text is called bos in BERT's files; other kinds have no such token unless they say so */
    int32_t cls = kind->ids.cls >= 0 ? ids->bos : -1;
    return status == LB_OK ? read_id(v, "cls_token_id", cls, &ids->cls) : status;
}

/* Control and unknown tokens are special; what users define is looked for in text just so. */
static void put_added(struct lb_gguf_vocab *v) {
    bool some = false;
    lb_buf_append_str(v->out, "\"added_tokens\":[");
    for (int32_t i = 0; i < v->n; i++) {
        bool special = v->type[i] == LB_TOKEN_CONTROL || v->type[i] == LB_TOKEN_UNKNOWN;
        /* one that tokenizer.json spells otherwise stands for spaces: the model makes it, text never has it
         */
        bool user = v->type[i] == LB_TOKEN_USER && v->text[i] == lb_gguf_array_string(v->file, tokens_key, i);
        if (v->text[i] && (special || user)) {
            lb_buf_printf(v->out, "%s{\"id\":%d,\"content\":", some ? "," : "", i);
            lb_gguf_put_text(v->out, v->text[i]);
            lb_buf_printf(v->out,
                          ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"
                          "\"special\":%s}",
                          special ? "true" : "false");
            some = true;
        }
    }
    lb_buf_append_str(v->out, "]");
}

/* ---- the whole ---- */

static enum lb_status read_all(struct lb_gguf_vocab *v, const struct lb_gguf_kind *kind) {
    v->text = lb_calloc((size_t)v->n, sizeof *v->text);
    v->type = lb_calloc((size_t)v->n, 1);
    enum lb_status status = lb_vocab_init(&v->by_text, (size_t)v->n);
    if (!v->text || !v->type || status != LB_OK) {
        return no_memory(v);
    }
    status = read_types(v);
    status = status == LB_OK ? read_scores(v) : status;
    status = status == LB_OK ? read_texts(v, kind) : status;
    return status == LB_OK ? read_ids(v, kind) : status;
}

static enum lb_status convert(struct lb_gguf_vocab *v, const struct lb_gguf_kind *kind) {
    enum lb_status status = read_all(v, kind);
    if (status != LB_OK) {
        return status;
    }
    lb_buf_append_str(v->out, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,");
    put_added(v);
    status = kind->write(v, kind);
    lb_buf_append_str(v->out, "}");
    return status == LB_OK && lb_buf_status(v->out) != LB_OK ? no_memory(v) : status;
}

enum lb_status lb_gguf_vocab_json(const struct lb_gguf *file, const char *what, struct lb_buf *out,
                                  struct lb_gguf_ids *out_ids, struct lb_detail *detail) {
    struct lb_gguf_vocab v = {.file = file, .what = what, .out = out, .detail = detail};
    int64_t n = lb_gguf_array_count(file, tokens_key);
    v.model = lb_gguf_string(file, LB_TOKENIZER_KEY "model");
    if (n < 0 || !v.model || !strcmp(v.model, "no_vocab") || !strcmp(v.model, "none")) {
        return lb_fail(detail, LB_E_NOTFOUND, "%s: no vocabulary in this file", what);
    }
    const struct lb_gguf_kind *kind = lb_gguf_kind_find(v.model);
    if (!kind) {
        return lb_fail(
            detail, LB_E_UNSUPPORTED,
            "%s: tokenizer.ggml.model \"%.40s\" is not supported (gpt2, llama, gemma4, bert and t5 are); "
            "put the model's tokenizer.json beside the file",
            what, v.model);
    }
    if (n < 1 || n > MAX_TOKENS) {
        return lb_fail(detail, LB_E_LIMIT, "%s: a vocabulary of %lld tokens (1 to %d are accepted)", what,
                       (long long)n, MAX_TOKENS);
    }
    v.n = (int32_t)n;
    lb_arena_init(&v.spelled, (size_t)1 << 30);
    enum lb_status status = convert(&v, kind);
    if (status == LB_OK) {
        *out_ids = v.ids;
    }
    lb_vocab_finish(&v.by_text);
    lb_arena_finish(&v.spelled);
    lb_free(v.text);
    lb_free(v.type);
    lb_free(v.score);
    return status;
}
