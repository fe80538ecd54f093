/* What the Gemmas share. Private to common/model. */
#ifndef LB_MODEL_GEMMA_H
#define LB_MODEL_GEMMA_H

#include "common/model/decoder.h"

#define FIELD(member) offsetof(struct lb_config, member)

extern const struct lb_role_names lb_gemma_names;

/* hidden_act is another's key: transformers reads hidden_activation. */
#define LB_GEMMA_KEYS                                                                                        \
    {"hidden_activation", LB_KEY_ONLY_TEXT, LB_KEY_WRITTEN, .only = "gelu_pytorch_tanh"},                    \
        {"hidden_act", LB_KEY_ANY}, {"attention_bias", LB_KEY_BOOL, 0, FIELD(attention_bias)},               \
        {"query_pre_attn_scalar", LB_KEY_INT, 0, FIELD(query_pre_attn_scalar), 1, INT32_MAX},                \
        {"final_logit_softcapping", LB_KEY_REAL, LB_KEY_NULL_IS_0, FIELD(logit_softcap), 1e-3, 1e6},         \
        {"use_bidirectional_attention", LB_KEY_ONLY_NUMBER},                                                 \
        {"sliding_window", LB_KEY_INT, LB_KEY_NULL_IS_0, FIELD(sliding_window), 0, INT32_MAX}, {             \
        "cache_implementation", LB_KEY_ANY                                                                   \
    }
#define LB_GEMMA_GGUF_KEYS                                                                                   \
    {".final_logit_softcapping", LB_KEY_REAL, LB_KEY_NULL_IS_0, FIELD(logit_softcap)}, {                     \
        "blk.0.attn_q.bias", LB_KEY_HAS, 0, FIELD(attention_bias)                                            \
    }
#define LB_GEMMA_MISSING                                                                                     \
    .norm_eps = 1e-6, .initializer_range = 0.02, .num_key_value_heads = 4, .head_dim = 256,                  \
    .bos_token_id = 2, .eos_token_id = 1, .pad_token_id = 0, .query_pre_attn_scalar = 256,                   \
    .sliding_window = 4096, .use_sliding_window = true, .tie_word_embeddings = true

/* The divisor of scores that llama.cpp takes; layers_27b: how many the 27B has. */
static inline void lb_gemma_settle_gguf(struct lb_config *c, int64_t layers_27b) {
    bool wide = c->num_hidden_layers == layers_27b && c->num_attention_heads > 0;
    c->query_pre_attn_scalar = wide ? c->hidden_size / c->num_attention_heads : c->head_dim;
}

#endif
