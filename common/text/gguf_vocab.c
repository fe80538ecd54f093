/* The vocabulary of a GGUF file, read and checked, and what all kinds of it have in common. */
#include "common/text/gguf_vocab.h"

#include "common/base/mem.h"

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
    return status == LB_OK ? read_id(v, "cls_token_id", ids->bos, &ids->cls) : status;
}

/* ---- writing ---- */

void lb_gguf_put_text(struct lb_buf *out, const char *text) {
    lb_buf_append(out, "\"", 1);
    for (const char *at = text; *at;) {
        size_t plain = 0;
        while ((uint8_t)at[plain] >= 0x20 && at[plain] != '"' && at[plain] != '\\') {
            plain++;
        }
        lb_buf_append(out, at, plain);
        at += plain;
        if (*at == '"' || *at == '\\') {
            lb_buf_append(out, *at == '"' ? "\\\"" : "\\\\", 2);
            at++;
        } else if (*at) {
            lb_buf_printf(out, "\\u%04x", (unsigned)(uint8_t)*at++);
        }
    }
    lb_buf_append(out, "\"", 1);
}

bool lb_gguf_flag(const struct lb_gguf_vocab *v, const char *key, bool otherwise) {
    double value = otherwise;
    return lb_gguf_number(v->file, key, &value) ? value != 0 : otherwise;
}

/* An item of a template: a token, or the text itself. */
static void put_item(struct lb_gguf_vocab *v, const char *kind, const char *id, int type, bool *some) {
    lb_buf_printf(v->out, "%s{\"%s\":{\"id\":", *some ? "," : "", kind);
    lb_gguf_put_text(v->out, id);
    lb_buf_printf(v->out, ",\"type_id\":%d}}", type);
    *some = true;
}

static void put_part(struct lb_gguf_vocab *v, int32_t before, const char *sequence, int type, int32_t after,
                     bool *some) {
    if (before >= 0) {
        put_item(v, "SpecialToken", v->text[before], type, some);
    }
    put_item(v, "Sequence", sequence, type, some);
    if (after >= 0) {
        put_item(v, "SpecialToken", v->text[after], type, some);
    }
}

void lb_gguf_put_template(struct lb_gguf_vocab *v, int32_t before, int32_t after) {
    if (before < 0 && after < 0) {
        lb_buf_append_str(v->out, ",\"post_processor\":null");
        return;
    }
    bool some = false, both = false, named = false;
    lb_buf_append_str(v->out, ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[");
    put_part(v, before, "A", 0, after, &some);
    lb_buf_append_str(v->out, "],\"pair\":[");
    put_part(v, before, "A", 0, after, &both);
    put_part(v, v->ids.sep >= 0 && after == v->ids.sep ? -1 : before, "B", 1, after, &both);
    lb_buf_append_str(v->out, "],\"special_tokens\":{");
    const int32_t ids[] = {before, after == before ? -1 : after};
    for (int i = 0; i < 2; i++) {
        if (ids[i] >= 0) {
            const char *text = v->text[ids[i]];
            lb_buf_append_str(v->out, named ? "," : "");
            lb_gguf_put_text(v->out, text);
            lb_buf_append_str(v->out, ":{\"id\":");
            lb_gguf_put_text(v->out, text);
            lb_buf_printf(v->out, ",\"ids\":[%d],\"tokens\":[", ids[i]);
            lb_gguf_put_text(v->out, text);
            lb_buf_append_str(v->out, "]}");
            named = true;
        }
    }
    lb_buf_append_str(v->out, "}}");
}

enum lb_status lb_gguf_put_ends(struct lb_gguf_vocab *v, bool bos, bool eos) {
    bos = lb_gguf_flag(v, LB_TOKENIZER_KEY "add_bos_token", bos);
    eos = lb_gguf_flag(v, LB_TOKENIZER_KEY "add_eos_token", eos);
    if ((bos && v->ids.bos < 0) || (eos && v->ids.eos < 0)) {
        return lb_fail(v->detail, LB_E_FORMAT, "%s: add_%s_token is set, but no %s_token_id", v->what,
                       bos && v->ids.bos < 0 ? "bos" : "eos", bos && v->ids.bos < 0 ? "bos" : "eos");
    }
    lb_gguf_put_template(v, bos ? v->ids.bos : -1, eos ? v->ids.eos : -1);
    return LB_OK;
}

void lb_gguf_put_vocab(struct lb_gguf_vocab *v, int32_t n) {
    bool some = false;
    lb_buf_append_str(v->out, "\"vocab\":{");
    for (int32_t i = 0; i < n; i++) {
        if (v->text[i]) {
            lb_buf_append(v->out, ",", some);
            lb_gguf_put_text(v->out, v->text[i]);
            lb_buf_printf(v->out, ":%d", i);
            some = true;
        }
    }
    lb_buf_append_str(v->out, "}");
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
