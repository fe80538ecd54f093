/* OLMoE (Muennighoff et al. 2024): llama with norms of whole rows of q and k, whose feed-forwards are
 * experts. */
#include "common/model/decoder.h"

#define FIELD(member) offsetof(struct lb_config, member)

static const struct lb_config_key keys[] = {
    {"num_local_experts", LB_KEY_INT, LB_KEY_PASSING, FIELD(num_experts), 1, LB_MAX_EXPERTS}, /* or */
    {"num_experts", LB_KEY_INT, 0, FIELD(num_experts), 1, LB_MAX_EXPERTS},
    LB_KEYS_OF_EXPERTS,
    {"norm_topk_prob", LB_KEY_BOOL, 0, FIELD(norm_topk_prob)},
    {"clip_qkv", LB_KEY_EMPTY},
    {"attention_bias", LB_KEY_BOOL, 0, FIELD(attention_bias)},
    {NULL},
};

static const struct lb_config_key gguf_keys[] = {
    LB_GGUF_KEYS_OF_EXPERTS,
    {"blk.0.attn_q.bias", LB_KEY_HAS, 0, FIELD(attention_bias)},
    {NULL},
};

static const struct lb_decoder_traits traits = {
    .qk_norm = LB_QK_NORM_ROW, .mlp = LB_MLP_EXPERTS, .gguf_all_heads = true};

const struct lb_family lb_family_olmoe = {
    .form = {.model_type = "olmoe",
             .class_name = "OlmoeForCausalLM",
             .missing = {.norm_eps = 1e-5,
                         .rope_theta = 10000,
                         .initializer_range = 0.02,
                         .max_position_embeddings = 4096,
                         .bos_token_id = -1,
                         .eos_token_id = 50279,
                         .pad_token_id = 1,
                         .num_experts = 64,
                         .num_experts_per_tok = 8},
             .keys = {keys, lb_decoder_keys},
             .gguf = "olmoe",
             .gguf_keys = {lb_decoder_gguf_keys, gguf_keys},
             LB_DECODER_FORM},
    .traits = &traits,
    LB_DECODER,
};
