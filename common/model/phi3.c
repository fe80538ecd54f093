/* Phi-3 and Phi-4-mini (Abdin et al. 2024): llama whose q, k and v are one matrix, and gate and up another;
 * LongRoPE, and rotary positions of a part of each head. */
#include "common/model/decoder.h"

#define FIELD(member) offsetof(struct lb_config, member)

static const struct lb_config_key keys[] = {
    {"original_max_position_embeddings", LB_KEY_INT, 0, FIELD(rope.original), 1, INT32_MAX},
    {"partial_rotary_factor", LB_KEY_REAL, 0, FIELD(partial_rotary_factor), 1e-6, 1},
    {"sliding_window", LB_KEY_INT, LB_KEY_NULL_IS_0 | LB_KEY_FILE_ONLY, FIELD(sliding_window), 0, INT32_MAX},
    {"resid_pdrop", LB_KEY_ANY},
    {"embd_pdrop", LB_KEY_ANY},
    {"attention_bias", LB_KEY_ONLY_NUMBER}, /* the class has none whatever it says */
    {NULL},
};

static const struct lb_config_key gguf_keys[] = {
    {".rope.dimension_count", LB_KEY_INT, 0, FIELD(rotary_dims)},
    {NULL},
};

static const struct lb_role_names names = {
    .hf = {[LB_ROLE_UP] = "model.layers.%d.mlp.gate_up_proj"},
};

static const struct lb_decoder_traits traits = {
    .qkv = LB_QKV_JOINED, .mlp = LB_MLP_SWIGLU_JOINED, .gguf_longrope = true, .names = &names};

const struct lb_family lb_family_phi3 = {
    .form = {.model_type = "phi3",
             .class_name = "Phi3ForCausalLM",
             .missing = {.norm_eps = 1e-5,
                         .rope_theta = 10000,
                         .initializer_range = 0.02,
                         .max_position_embeddings = 4096,
                         .rope = {.original = 4096},
                         .partial_rotary_factor = 1,
                         .bos_token_id = 1,
                         .eos_token_id = 32000,
                         .pad_token_id = 32000,
                         .use_sliding_window = true},
             .keys = {keys, lb_decoder_keys},
             .gguf = "phi3",
             .gguf_keys = {gguf_keys, lb_decoder_gguf_keys},
             LB_DECODER_FORM},
    .traits = &traits,
    LB_DECODER,
};
