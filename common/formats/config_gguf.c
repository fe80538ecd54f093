#include "common/formats/config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_KEY 96 /* architecture (at most 31) and the longest suffix */

/* What the getters below need. */
struct source {
    const struct lb_gguf *file;
    const char *what, *arch;
    struct lb_detail *detail;
};

/* "<arch>.<suffix>" into key. */
static const char *arch_key(const struct source *s, const char *suffix, char key[MAX_KEY]) {
    snprintf(key, MAX_KEY, "%s.%s", s->arch, suffix);
    return key;
}

/* The double that a person wrote where the file has a float: of the doubles that round to it the shortest, so
 * that 1e-5 read from a GGUF is the 1e-5 of config.json. */
static double as_written(double v) {
    float f = (float)v;
    char text[40];
    if ((double)f != v) {
        return v; /* stored as F64, or not finite */
    }
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtof(text, NULL) == f) {
            break;
        }
    }
    return strtod(text, NULL);
}

/* A number; *out stays its default when the key is missing and not required. */
static enum lb_status get_real(const struct source *s, const char *key, bool required, double *out) {
    double v = 0;
    if (!lb_gguf_has(s->file, key) && !required) {
        return LB_OK;
    }
    if (!lb_gguf_has(s->file, key)) {
        return lb_fail(s->detail, LB_E_FORMAT, "%s: key %s is missing", s->what, key);
    }
    if (lb_gguf_array_count(s->file, key) >= 0) {
        return lb_fail(s->detail, LB_E_UNSUPPORTED,
                       "%s: key %s is an array: sizes that differ by layer are not supported", s->what, key);
    }
    if (!lb_gguf_number(s->file, key, &v) || !(v >= -1e300 && v <= 1e300)) {
        return lb_fail(s->detail, LB_E_FORMAT, "%s: key %s is no number", s->what, key);
    }
    *out = as_written(v);
    return LB_OK;
}

/* As get_real, for whole numbers from 0 to 2^31 - 1; more is refused here, sense is checked later. */
static enum lb_status get_whole(const struct source *s, const char *key, bool required, int64_t *out) {
    double v = (double)*out;
    if (!lb_gguf_has(s->file, key) && !required) {
        return LB_OK;
    }
    enum lb_status status = get_real(s, key, required, &v);
    if (status != LB_OK) {
        return status;
    }
    (void)lb_gguf_number(s->file, key, &v); /* exactly as stored */
    if (!(v >= 0 && v <= INT32_MAX) || v != (double)(int64_t)v) {
        return lb_fail(s->detail, LB_E_FORMAT, "%s: key %s is %g, not a whole number from 0 to %d", s->what,
                       key, v, INT32_MAX);
    }
    *out = (int64_t)v;
    return LB_OK;
}

static enum lb_status read_sizes(const struct source *s, struct lb_config *c) {
    const struct {
        const char *suffix;
        bool required;
        int64_t *out;
    } sizes[] = {
        {"context_length", true, &c->max_position_embeddings},
        {"embedding_length", true, &c->hidden_size},
        {"block_count", true, &c->num_hidden_layers},
        {"feed_forward_length", true, &c->intermediate_size},
        {"attention.head_count", true, &c->num_attention_heads},
        {"attention.head_count_kv", false, &c->num_key_value_heads},
        {"attention.key_length", false, &c->head_dim},
        {"vocab_size", false, &c->vocab_size},
    };
    char key[MAX_KEY];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        enum lb_status status =
            get_whole(s, arch_key(s, sizes[i].suffix, key), sizes[i].required, sizes[i].out);
        if (status != LB_OK) {
            return status;
        }
    }
    if (c->num_key_value_heads == 0) {
        c->num_key_value_heads = c->num_attention_heads;
    }
    if (c->head_dim == 0 && c->num_attention_heads > 0) {
        c->head_dim = c->hidden_size / c->num_attention_heads;
    }
    return LB_OK;
}

/* Where the key is missing: as many as there are tokens, or rows of the embedding. */
static void find_vocab_size(const struct source *s, struct lb_config *c) {
    int64_t n_tokens = lb_gguf_array_count(s->file, "tokenizer.ggml.tokens");
    const struct lb_tensor *embedding = lb_gguf_find(s->file, "token_embd.weight");
    if (c->vocab_size == 0 && n_tokens > 0) {
        c->vocab_size = n_tokens;
    } else if (c->vocab_size == 0 && embedding != NULL && embedding->n_dims == 2) {
        c->vocab_size = embedding->dim[0];
    }
}

static enum lb_status refuse(const struct source *s, const char *key, const char *why) {
    return lb_fail(s->detail, LB_E_UNSUPPORTED, "%s: %s: %s", s->what, key, why);
}

/* What would give other numbers than the forward that this build has. */
static enum lb_status refuse_variants(const struct source *s, const struct lb_config *c) {
    char key[MAX_KEY];
    int64_t experts = 0, value_length = c->head_dim, rotated = c->head_dim;
    double factor = 1, linear = 1;
    enum lb_status status;
    if ((status = get_whole(s, arch_key(s, "expert_count", key), false, &experts)) != LB_OK ||
        (status = get_whole(s, arch_key(s, "attention.value_length", key), false, &value_length)) != LB_OK ||
        (status = get_whole(s, arch_key(s, "rope.dimension_count", key), false, &rotated)) != LB_OK ||
        (status = get_real(s, arch_key(s, "rope.scaling.factor", key), false, &factor)) != LB_OK ||
        (status = get_real(s, arch_key(s, "rope.scale_linear", key), false, &linear)) != LB_OK) {
        return status;
    }
    const char *scaling = lb_gguf_string(s->file, arch_key(s, "rope.scaling.type", key));
    bool linear_type = scaling == NULL || strcmp(scaling, "linear") == 0; /* a missing type means linear */
    if (linear_type ? factor != 0 && factor != 1 : strcmp(scaling, "none") != 0) {
        return refuse(s, key, "scaled rotary embeddings are not supported");
    }
    if (linear != 0 && linear != 1) {
        return refuse(s, arch_key(s, "rope.scale_linear", key), "scaled rotary embeddings are not supported");
    }
    if (lb_gguf_find(s->file, "rope_freqs.weight") != NULL) {
        return refuse(s, "tensor rope_freqs.weight", "scaled rotary embeddings are not supported");
    }
    if (experts > 0) {
        return refuse(s, arch_key(s, "expert_count", key), "mixtures of experts are not supported");
    }
    if (value_length != c->head_dim) {
        return refuse(s, arch_key(s, "attention.value_length", key), "must be the length of a key");
    }
    if (rotated != c->head_dim) {
        return refuse(s, arch_key(s, "rope.dimension_count", key),
                      "rotary embeddings of a part of a head are not supported");
    }
    return LB_OK;
}

/* Within the window a sliding window changes nothing: the model is used up to that length only. */
static enum lb_status cap_at_window(const struct source *s, struct lb_config *c) {
    char key[MAX_KEY];
    int64_t window = 0;
    enum lb_status status = get_whole(s, arch_key(s, "attention.sliding_window", key), false, &window);
    if (status == LB_OK && window > 0 && window < c->max_position_embeddings) {
        c->max_position_embeddings = window;
    }
    return status;
}

static enum lb_status read_tokens(const struct source *s, struct lb_config *c) {
    enum lb_status status = get_whole(s, "tokenizer.ggml.bos_token_id", false, &c->bos_token_id);
    if (status == LB_OK) {
        status = get_whole(s, "tokenizer.ggml.eos_token_id", false, &c->eos_token_id);
    }
    return status == LB_OK ? get_whole(s, "tokenizer.ggml.padding_token_id", false, &c->pad_token_id)
                           : status;
}

enum lb_status lb_config_from_gguf(const struct lb_gguf *file, const char *what, struct lb_config *out,
                                   struct lb_detail *detail) {
    struct lb_config c = {.rope_theta = 10000,
                          .initializer_range = 0.02,
                          .bos_token_id = -1,
                          .eos_token_id = -1,
                          .pad_token_id = -1};
    struct source s = {
        .file = file, .what = what, .arch = lb_gguf_string(file, "general.architecture"), .detail = detail};
    char key[MAX_KEY];
    if (s.arch == NULL) {
        return lb_fail(detail, LB_E_FORMAT, "%s: key general.architecture is missing or no text", what);
    }
    if (strcmp(s.arch, "llama") != 0 && strcmp(s.arch, "qwen2") != 0) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "%s: general.architecture \"%.64s\" is not one of llama, qwen2", what, s.arch);
    }
    snprintf(c.model_type, sizeof c.model_type, "%s", s.arch);
    enum lb_status status = read_sizes(&s, &c);
    if (status != LB_OK || (status = cap_at_window(&s, &c)) != LB_OK ||
        (status = read_tokens(&s, &c)) != LB_OK ||
        (status = get_real(&s, arch_key(&s, "attention.layer_norm_rms_epsilon", key), true, &c.norm_eps)) !=
            LB_OK ||
        (status = get_real(&s, arch_key(&s, "rope.freq_base", key), false, &c.rope_theta)) != LB_OK) {
        return status;
    }
    find_vocab_size(&s, &c);
    c.tie_word_embeddings = lb_gguf_find(file, "output.weight") == NULL;
    c.attention_bias = lb_gguf_find(file, "blk.0.attn_q.bias") != NULL;
    c.mlp_bias = lb_gguf_find(file, "blk.0.ffn_down.bias") != NULL;
    if ((status = lb_config_check(&c, what, detail)) != LB_OK ||
        (status = refuse_variants(&s, &c)) != LB_OK) {
        return status;
    }
    *out = c;
    return LB_OK;
}
