/* Which parameters the config-driven decoder has, what they are called, and where they are. Private to
 * common/model.
 */
#ifndef LB_MODEL_DECODER_BIND_H
#define LB_MODEL_DECODER_BIND_H

#include "common/model/family.h"

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

const struct lb_decoder_traits *lb_decoder_traits(const struct lb_config *config);
void lb_decoder_declare(const struct lb_config *config, struct lb_spec_list *list);
const char *lb_decoder_head(const struct lb_config *config);

/* The weights, found once. */
struct lb_decoder_layer {
    const struct lb_weight *weight[LB_N_ROLES], *bias[LB_N_ROLES]; /* NULL: none */
};
struct lb_decoder {
    struct lb_decoder_layer top; /* what no layer has */
    struct lb_decoder_layer layers[];
};

/* A struct lb_decoder. */
void *lb_decoder_bind(const struct lb_model *model);

#endif
