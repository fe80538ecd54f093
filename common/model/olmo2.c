/* OLMo 2 (OLMo Team 2025): norms behind attention and feed-forward, and of whole rows of q and k. */
#include "common/model/decoder.h"

#define FIELD(member) offsetof(struct lb_config, member)

static const struct lb_config_key keys[] = {
    {"attention_bias", LB_KEY_BOOL, 0, FIELD(attention_bias)},
    {NULL},
};

static const struct lb_config_key gguf_keys[] = {
    {"blk.0.attn_q.bias", LB_KEY_HAS, 0, FIELD(attention_bias)},
    {NULL},
};

static const struct lb_decoder_traits traits = {.norms = LB_NORM_AFTER, .qk_norm = LB_QK_NORM_ROW};

const struct lb_family lb_family_olmo2 = {
    .form = {.model_type = "olmo2",
             .class_name = "Olmo2ForCausalLM",
             .missing = {.norm_eps = 1e-5,
                         .rope_theta = 10000,
                         .initializer_range = 0.02,
                         .max_position_embeddings = 2048,
                         .bos_token_id = -1,
                         .eos_token_id = 50279,
                         .pad_token_id = 1},
             .keys = {lb_decoder_keys, keys},
             .gguf = "olmo2",
             .gguf_keys = {lb_decoder_gguf_keys, gguf_keys},
             LB_DECODER_FORM},
    .traits = &traits,
    LB_DECODER,
};
