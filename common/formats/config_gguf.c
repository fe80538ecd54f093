#include "common/formats/config_keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAX_KEY 96 /* architecture (at most 31) and the longest suffix */

/* The key's name in the file, into name. */
static const char *full_name(const struct lb_gguf_reading *s, const struct lb_config_key *key,
                             char name[MAX_KEY]) {
    snprintf(name, MAX_KEY, "%s%s", key->name[0] == '.' ? s->arch : "", key->name);
    return name;
}

/* Where the key is missing: as many as there are tokens, or rows of the embedding. */
static void find_vocab_size(const struct lb_gguf_reading *s, struct lb_config *c) {
    int64_t n_tokens = lb_gguf_array_count(s->file, "tokenizer.ggml.tokens");
    const struct lb_tensor *embedding = lb_gguf_find(s->file, "token_embd.weight");
    if (c->vocab_size == 0 && n_tokens > 0) {
        c->vocab_size = n_tokens;
    } else if (c->vocab_size == 0 && embedding != NULL && embedding->n_dims == 2) {
        c->vocab_size = embedding->dim[0];
    }
}

static enum lb_status only_text(const struct lb_gguf_reading *s, const char *name, const char *wanted) {
    const char *text = lb_gguf_string(s->file, name);
    if (!lb_gguf_has(s->file, name) || (text != NULL && strcmp(text, wanted) == 0)) {
        return LB_OK;
    }
    return lb_fail(s->detail, LB_E_UNSUPPORTED, "%s: key %s is \"%.64s\"; only \"%s\" is supported", s->what,
                   name, text != NULL ? text : "", wanted);
}

static enum lb_status only_number(const struct lb_gguf_reading *s, const char *name, double a, double b) {
    double v = a;
    enum lb_status status = lb_gguf_real(s, name, false, &v);
    if (status == LB_OK && v != a && v != b) {
        status = lb_fail(s->detail, LB_E_UNSUPPORTED, "%s: key %s is %g; only %g is supported", s->what, name,
                         v, b);
    }
    return status;
}

static enum lb_status must_be(const struct lb_gguf_reading *s, const char *name, int64_t wanted) {
    int64_t v = wanted;
    enum lb_status status = lb_gguf_whole(s, name, false, &v);
    if (status == LB_OK && v != wanted) {
        status = lb_fail(s->detail, LB_E_UNSUPPORTED,
                         "%s: key %s is %" PRId64 "; only %" PRId64 ", the length of a key, is supported",
                         s->what, name, v, wanted);
    }
    return status;
}

/* A bool, or a number that stands for one; *out stays when the key is missing. */
static enum lb_status get_bool(const struct lb_gguf_reading *s, const char *key, bool *out) {
    double v = *out;
    enum lb_status status = lb_gguf_real(s, key, false, &v);
    if (status == LB_OK && v != 0 && v != 1) {
        status = lb_fail(s->detail, LB_E_FORMAT, "%s: key %s is %g, neither true nor false", s->what, key, v);
    }
    if (status == LB_OK) {
        *out = v != 0;
    }
    return status;
}

static enum lb_status read_field(const struct lb_gguf_reading *s, const struct lb_config_key *key,
                                 struct lb_config *c) {
    char name[MAX_KEY];
    const bool needed = (key->flags & LB_KEY_NEEDED) != 0;
    const struct lb_tensor *tensor;
    full_name(s, key, name);
    switch (key->kind) {
    case LB_KEY_INT:
    case LB_KEY_TOKEN:
        return lb_gguf_whole(s, name, needed, lb_key_int(c, key));
    case LB_KEY_REAL:
        return lb_gguf_real(s, name, needed, lb_key_real(c, key));
    case LB_KEY_HAS:
    case LB_KEY_LACKS:
        *lb_key_bool(c, key) = (lb_gguf_find(s->file, key->name) != NULL) == (key->kind == LB_KEY_HAS);
        return LB_OK;
    case LB_KEY_ROWS:
        tensor = lb_gguf_find(s->file, key->name);
        *lb_key_int(c, key) = tensor != NULL ? tensor->dim[0] : 0;
        return LB_OK;
    case LB_KEY_BOOL:
        return get_bool(s, name, lb_key_bool(c, key));
    case LB_KEY_ONLY_TEXT:
    case LB_KEY_ONLY_NUMBER:
    case LB_KEY_SAME:
    case LB_KEY_ANY: /* all four: judge_key */
    case LB_KEY_LABELS:
    case LB_KEY_WIDTHS:
    case LB_KEY_MODEL_TYPE:
    case LB_KEY_CLASS:
    case LB_KEY_DTYPE:
    case LB_KEY_ROPE: /* lb_rope_read_gguf */
    case LB_KEY_LAYER_TYPES:
    case LB_KEY_ROPE_LAYERS:
    case LB_KEY_PACKED:
    case LB_KEY_EMPTY:
        break;
    }
    return LB_OK;
}

/* A key that is there and gives no field: what is known about it decides. */
static enum lb_status judge_key(const struct lb_gguf_reading *s, const struct lb_config_key *key,
                                const char *name, const struct lb_config *c) {
    if (key->kind == LB_KEY_ONLY_TEXT) {
        return only_text(s, name, key->only);
    }
    if (key->kind == LB_KEY_ONLY_NUMBER) {
        return only_number(s, name, key->min, key->max);
    }
    return key->kind == LB_KEY_SAME ? must_be(s, name, *(const int64_t *)lb_key_field(c, key)) : LB_OK;
}

static bool has_rope(const struct lb_config_form *form) {
    const struct lb_config_key *key;
    for (size_t i = 0; (key = lb_key_at(form->gguf_keys, i)) != NULL; i++) {
        if (key->kind == LB_KEY_ROPE) {
            return true;
        }
    }
    return false;
}

/* The form's key, or a known one, of that name; NULL: unknown. */
static const struct lb_config_key *find_key(const struct lb_gguf_reading *s,
                                            const struct lb_config_form *form, const char *name) {
    const struct lb_config_key *key;
    size_t arch_len = strlen(s->arch);
    bool own = strncmp(name, s->arch, arch_len) == 0 && name[arch_len] == '.';
    const char *short_name = own ? name + arch_len : name;
    for (size_t i = 0; (key = lb_key_at(form->gguf_keys, i)) != NULL; i++) {
        bool rope = key->kind == LB_KEY_ROPE && own && lb_rope_owns_gguf(short_name);
        if (rope || strcmp(key->name, short_name) == 0) {
            return key;
        }
    }
    return lb_config_known_gguf(short_name);
}

/* Whether an unknown key is switched off: ggml reads 0 and false as "not used". */
static bool switched_off(const struct lb_gguf *file, const char *name) {
    double v = 1;
    return lb_gguf_number(file, name, &v) && v == 0;
}

static enum lb_status judge_keys(const struct lb_gguf_reading *s, const struct lb_config_form *form,
                                 const struct lb_config *c, struct lb_notes *notes) {
    enum lb_gguf_type type, element;
    const char *name;
    enum lb_status status = LB_OK;
    for (size_t i = 0; status == LB_OK && (name = lb_gguf_key(s->file, i, &type, &element)) != NULL; i++) {
        const struct lb_config_key *key = find_key(s, form, name);
        if (key != NULL) {
            status = judge_key(s, key, name, c);
        } else if (!lb_config_speaks_of_numbers(name)) {
            lb_note(notes, "%s: key %.64s is not known and is ignored", s->what, name);
        } else if (!switched_off(s->file, name)) {
            status = lb_fail(s->detail, LB_E_UNSUPPORTED,
                             "%s: key %.64s is not known to architecture %s and speaks of what would change "
                             "the numbers",
                             s->what, name, s->arch);
        }
    }
    return status;
}

enum lb_status lb_config_read_gguf(const struct lb_config_form *form, const struct lb_gguf *file,
                                   const char *what, struct lb_config *out, struct lb_notes *notes,
                                   struct lb_detail *detail) {
    struct lb_config c = form->missing;
    struct lb_gguf_reading s = {file, what, form->gguf, detail};
    const struct lb_config_key *key;
    enum lb_status status = LB_OK;
    snprintf(c.model_type, sizeof c.model_type, "%s", form->model_type);
    /* what transformers' class takes for missing keys is no matter here */
    c.num_key_value_heads = c.sliding_window = 0;
    c.bos_token_id = c.eos_token_id = c.pad_token_id = -1;
    c.use_sliding_window = true;
    c.max_window_layers = c.query_pre_attn_scalar = c.rotary_dims = 0;
    c.attention_multiplier = 0;
    c.partial_rotary_factor = form->missing.partial_rotary_factor > 0 ? 1 : 0;
    for (size_t i = 0; status == LB_OK && (key = lb_key_at(form->gguf_keys, i)) != NULL; i++) {
        status = read_field(&s, key, &c);
    }
    if (status == LB_OK && has_rope(form)) {
        status = lb_rope_read_gguf(&s, form, &c);
    }
    if (status != LB_OK) {
        return status;
    }
    find_vocab_size(&s, &c);
    if (form->settle_gguf != NULL) {
        form->settle_gguf(&c);
    }
    form->settle(&c);
    status = lb_config_check_form(form, &c, what, detail);
    status = status == LB_OK ? judge_keys(&s, form, &c, notes) : status;
    if (status == LB_OK) {
        *out = c;
    }
    return status;
}
