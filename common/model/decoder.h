/* The config-driven decoder, as the families that are variants of it use it: a row names its keys and what
 * missing ones mean, its traits and its tensors' names, LB_DECODER gives the rest. Private to common/model.
 */
#ifndef LB_MODEL_DECODER_H
#define LB_MODEL_DECODER_H

#include "common/model/family.h"

/* The keys that all of them have; a family's own come in a second table, those that mean another thing there
 * in a first one. */
extern const struct lb_config_key lb_decoder_keys[], lb_decoder_gguf_keys[];

/* What a decoder's parameters are for. Each may have a bias of the same name. */
enum lb_role {
    LB_ROLE_EMBED,
    LB_ROLE_POSITIONS,
    LB_ROLE_NORM,
    LB_ROLE_HEAD,
    /* of a layer */
    LB_ROLE_ATTN_NORM,
    LB_ROLE_QKV, /* q, k and v in one */
    LB_ROLE_Q,
    LB_ROLE_K,
    LB_ROLE_V,
    LB_ROLE_O,
    LB_ROLE_Q_NORM,
    LB_ROLE_K_NORM,
    LB_ROLE_ATTN_POST_NORM,
    LB_ROLE_MLP_NORM,
    LB_ROLE_GATE,
    LB_ROLE_UP, /* gate and up in one where the gate has no weight of its own */
    LB_ROLE_DOWN,
    LB_ROLE_ROUTER,
    LB_ROLE_EXPERT_GATE, /* of the first expert; those of the others follow it */
    LB_ROLE_EXPERT_UP,
    LB_ROLE_EXPERT_DOWN,
    LB_ROLE_MLP_POST_NORM,
    LB_N_ROLES
};

/* Patterns that take the layer, and of experts their number, without ".weight" and ".bias"; NULL: llama's. */
struct lb_role_names {
    const char *hf[LB_N_ROLES], *gguf[LB_N_ROLES];
    const char *embed, *head; /* the whole names of the two; NULL: llama's */
};

enum lb_norm_place {
    LB_NORM_BEFORE, /* of attention's and the feed-forward's inputs */
    LB_NORM_AFTER,  /* of their outputs, before the residual stream takes them */
    LB_NORM_AROUND
};
enum lb_qk_norm {
    LB_QK_NORM_NONE,
    LB_QK_NORM_HEAD, /* each head by itself */
    LB_QK_NORM_ROW   /* the whole row of heads */
};
enum lb_qkv {
    LB_QKV_APART,
    LB_QKV_JOINED, /* rows of q, then of k, then of v */
    LB_QKV_BY_HEAD /* each head's q, k and v; GGUF files have them joined */
};
enum lb_mlp {
    LB_MLP_SWIGLU,
    LB_MLP_SWIGLU_JOINED, /* gate and up are one product */
    LB_MLP_GEGLU,
    LB_MLP_GELU,      /* no gate */
    LB_MLP_GELU_TANH, /* no gate */
    LB_MLP_EXPERTS    /* a mixture of experts, each a swiglu */
};

/* What makes a variant, as far as no key of a config says it. */
struct lb_decoder_traits {
    enum lb_norm_place norms;
    enum lb_qk_norm qk_norm;
    enum lb_qkv qkv;
    enum lb_mlp mlp;
    bool layer_norm;                   /* with biases; else RMSNorm */
    bool one_plus;                     /* norms multiply with 1 + w; GGUF files hold the sum */
    bool scaled_embed;                 /* embeddings times sqrt(C) */
    bool positions;                    /* learned and added to the embeddings; no rotary ones */
    bool transposed;                   /* Hugging Face's files hold the matrices of layers as [in, out] */
    bool gguf_windows;                 /* llama.cpp knows the windows of this architecture */
    bool gguf_all_heads;               /* llama.cpp knows it with as many heads of keys as of queries */
    bool gguf_longrope;                /* ... and its LongRoPE */
    const struct lb_role_names *names; /* NULL: llama's */
};

#define LB_MAX_FEED_FORWARD (1 << 22)
/* Keys of mixtures of experts beside how many there are, which files call so or so. */
#define LB_KEYS_OF_EXPERTS                                                                                   \
    {"num_experts_per_tok", LB_KEY_INT, 0, offsetof(struct lb_config, num_experts_per_tok), 1,               \
     LB_MAX_EXPERTS_ASKED},                                                                                  \
    {                                                                                                        \
        "router_jitter_noise", LB_KEY_ANY                                                                    \
    } /* training only */
#define LB_GGUF_KEYS_OF_EXPERTS                                                                              \
    {".expert_count", LB_KEY_INT, LB_KEY_NEEDED, offsetof(struct lb_config, num_experts)}, {                 \
        ".expert_used_count", LB_KEY_INT, LB_KEY_NEEDED, offsetof(struct lb_config, num_experts_per_tok)     \
    }
#define LB_MAX_EXPERTS_ASKED 256

/* Heads of keys and values and the width of a head where they are not given; the windows. */
void lb_decoder_settle(struct lb_config *config);
/* The part of it that is about rotary positions. */
void lb_decoder_settle_rotary(struct lb_config *config);
enum lb_status lb_decoder_check(const struct lb_config *config, const char *what, struct lb_detail *detail);

const struct lb_decoder_traits *lb_decoder_traits(const struct lb_config *config);
/* F of an expert. */
static inline int64_t lb_decoder_expert_width(const struct lb_config *c) {
    return c->moe_intermediate_size > 0 ? c->moe_intermediate_size : c->intermediate_size;
}
void lb_decoder_declare(const struct lb_config *config, struct lb_spec_list *list);
void *lb_decoder_bind(const struct lb_model *model);
struct lb_value *lb_decoder_forward(const struct lb_model *model, struct lb_tape *tape,
                                    const struct lb_input *in, struct lb_tap *taps, size_t n_taps,
                                    struct lb_kv *kv);
const char *lb_decoder_head(const struct lb_config *config);
/* The config as a GGUF of the architecture says it to llama.cpp too, which may be that of a shorter model;
 * LB_E_UNSUPPORTED names what it has no word for. */
enum lb_status lb_decoder_for_gguf(struct lb_config *config, const char *what, struct lb_detail *detail);

/* decoder_bind.c's weights, found once. */
struct lb_decoder_layer {
    const struct lb_weight *weight[LB_N_ROLES], *bias[LB_N_ROLES]; /* NULL: none */
};
struct lb_decoder {
    struct lb_decoder_layer top; /* what no layer has */
    struct lb_decoder_layer layers[];
};

/* What all rows share, of the form and of the row itself. */
#define LB_DECODER_FORM .settle = lb_decoder_settle, .check = lb_decoder_check
#define LB_DECODER LB_DECODER_IN("model.")
/* prefix: of the names of all but the head, which some files lack */
#define LB_DECODER_IN(prefix)                                                                                \
    .base = (prefix), .declare = lb_decoder_declare, .bind = lb_decoder_bind, .forward = lb_decoder_forward, \
    .head = lb_decoder_head, .for_gguf = lb_decoder_for_gguf, .has_attention = true
/* Values of missing keys that most families share. */
#define LB_DECODER_MISSING                                                                                   \
    .norm_eps = 1e-6, .rope_theta = 10000, .initializer_range = 0.02, .pad_token_id = -1

#endif
