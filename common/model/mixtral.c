/* Mixtral (Jiang et al. 2024): mistral whose feed-forwards are experts; llama.cpp takes it for a llama that
 * has some. */
#include "common/model/decoder.h"

#define FIELD(member) offsetof(struct lb_config, member)

static const struct lb_config_key keys[] = {
    {"num_experts", LB_KEY_INT, LB_KEY_PASSING, FIELD(num_experts), 1, LB_MAX_EXPERTS}, /* or */
    {"num_local_experts", LB_KEY_INT, 0, FIELD(num_experts), 1, LB_MAX_EXPERTS},
    LB_KEYS_OF_EXPERTS,
    {"sliding_window", LB_KEY_INT, LB_KEY_NULL_IS_0 | LB_KEY_FILE_ONLY, FIELD(sliding_window), 0, INT32_MAX},
    {NULL},
};

static const struct lb_config_key gguf_keys[] = {
    LB_GGUF_KEYS_OF_EXPERTS,
    {".rope.freq_base", LB_KEY_REAL, LB_KEY_NEEDED,
     FIELD(rope_theta)}, /* a missing one is not what it is here */
    {NULL},
};

#define MOE(name) ("model.layers.%d.block_sparse_moe." name)

static const struct lb_role_names names = {
    .hf = {[LB_ROLE_ROUTER] = MOE("gate"),
           [LB_ROLE_EXPERT_GATE] = MOE("experts.%d.w1"),
           [LB_ROLE_EXPERT_UP] = MOE("experts.%d.w3"),
           [LB_ROLE_EXPERT_DOWN] = MOE("experts.%d.w2")},
};

static const struct lb_decoder_traits traits = {.mlp = LB_MLP_EXPERTS, .names = &names};

const struct lb_family lb_family_mixtral = {
    .form = {.model_type = "mixtral",
             .class_name = "MixtralForCausalLM",
             .missing = {.norm_eps = 1e-5,
                         .rope_theta = 1000000,
                         .initializer_range = 0.02,
                         .max_position_embeddings = 131072,
                         .num_key_value_heads = 8,
                         .bos_token_id = 1,
                         .eos_token_id = 2,
                         .pad_token_id = -1,
                         .use_sliding_window = true,
                         .num_experts = 8,
                         .num_experts_per_tok = 2,
                         .norm_topk_prob = true},
             .keys = {keys, lb_decoder_keys},
             .gguf = "llama",
             .gguf_keys = {gguf_keys, lb_decoder_gguf_keys},
             LB_DECODER_FORM},
    .gguf_permutes = true,
    .traits = &traits,
    LB_DECODER,
};
