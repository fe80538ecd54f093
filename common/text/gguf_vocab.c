/* What the tokenizer.json of all kinds of vocabularies have in common. */
#include "common/text/gguf_vocab.h"

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
