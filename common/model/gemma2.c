/* Gemma 2 (Gemma Team 2024): norms of 1 + w around attention and feed-forward, embeddings times sqrt(C), a
 * gelu gate, soft-caps of scores and logits, a window in every other layer. */
#include "common/model/gemma.h"

static const struct lb_config_key keys[] = {
    LB_GEMMA_KEYS,
    {"attn_logit_softcapping", LB_KEY_REAL, LB_KEY_NULL_IS_0, FIELD(attention_softcap), 1e-3, 1e6},
    {NULL},
};

static const struct lb_config_key later_keys[] = {
    {"layer_types", LB_KEY_LAYER_TYPES, LB_KEY_WRITTEN, FIELD(sliding)},
    {NULL},
};

static const struct lb_config_key gguf_keys[] = {
    LB_GEMMA_GGUF_KEYS,
    {".attn_logit_softcapping", LB_KEY_REAL, LB_KEY_NULL_IS_0, FIELD(attention_softcap)},
    {NULL},
};

/* llama.cpp: 1 / sqrt(D), but of the 27B, which it knows by its layers, 1 / sqrt(C / H). */
static void settle_gguf(struct lb_config *c) {
    lb_gemma_settle_gguf(c, 46);
}

const struct lb_role_names lb_gemma_names = {
    .hf = {[LB_ROLE_MLP_NORM] = "model.layers.%d.pre_feedforward_layernorm"},
};

static const struct lb_decoder_traits traits = {.norms = LB_NORM_AROUND,
                                                .mlp = LB_MLP_GEGLU,
                                                .one_plus = true,
                                                .scaled_embed = true,
                                                .gguf_windows = true,
                                                .names = &lb_gemma_names};

const struct lb_family lb_family_gemma2 = {
    .form = {.model_type = "gemma2",
             .class_name = "Gemma2ForCausalLM",
             .missing = {LB_GEMMA_MISSING, .rope_theta = 10000, .max_position_embeddings = 8192,
                         .window_pattern = 2, .attention_softcap = 50, .logit_softcap = 30},
             .keys = {keys, lb_decoder_keys, later_keys},
             .gguf = "gemma2",
             .gguf_keys = {lb_decoder_gguf_keys, gguf_keys},
             .settle_gguf = settle_gguf,
             LB_DECODER_FORM},
    .traits = &traits,
    LB_DECODER,
};
