/* Qwen3's mixtures of experts (Yang et al. 2025): qwen3 whose feed-forwards are experts, all of them. */
#include "common/model/decoder.h"

#define FIELD(member) offsetof(struct lb_config, member)

static const struct lb_config_key keys[] = {
    {"num_local_experts", LB_KEY_INT, LB_KEY_PASSING, FIELD(num_experts), 1, LB_MAX_EXPERTS}, /* or */
    {"num_experts", LB_KEY_INT, 0, FIELD(num_experts), 1, LB_MAX_EXPERTS},
    LB_KEYS_OF_EXPERTS,
    {"intermediate_size", LB_KEY_INT, 0, FIELD(intermediate_size), 1,
     LB_MAX_FEED_FORWARD}, /* of layers without experts: none */
    {"moe_intermediate_size", LB_KEY_INT, 0, FIELD(moe_intermediate_size), 1, LB_MAX_FEED_FORWARD},
    {"norm_topk_prob", LB_KEY_BOOL, 0, FIELD(norm_topk_prob)},
    {"decoder_sparse_step", LB_KEY_ONLY_NUMBER, 0, 0, 1, 1},
    {"mlp_only_layers", LB_KEY_EMPTY},
    {"attention_bias", LB_KEY_BOOL, 0, FIELD(attention_bias)},
    {"use_sliding_window", LB_KEY_BOOL, LB_KEY_FILE_ONLY, FIELD(use_sliding_window)},
    {"sliding_window", LB_KEY_INT, LB_KEY_NULL_IS_0 | LB_KEY_FILE_ONLY, FIELD(sliding_window), 0, INT32_MAX},
    {"max_window_layers", LB_KEY_ANY}, /* of qwen3: here all layers have the window, or none */
    {NULL},
};

static const struct lb_config_key gguf_keys[] = {
    LB_GGUF_KEYS_OF_EXPERTS,
    {".expert_feed_forward_length", LB_KEY_INT, LB_KEY_NEEDED, FIELD(moe_intermediate_size)},
    {"blk.0.attn_q.bias", LB_KEY_HAS, 0, FIELD(attention_bias)},
    {NULL},
};

/* llama.cpp makes the weights of the chosen experts one together. */
static void settle_gguf(struct lb_config *c) {
    c->norm_topk_prob = true;
}

static const struct lb_decoder_traits traits = {.qk_norm = LB_QK_NORM_HEAD, .mlp = LB_MLP_EXPERTS};

const struct lb_family lb_family_qwen3_moe = {
    .form = {.model_type = "qwen3_moe",
             .class_name = "Qwen3MoeForCausalLM",
             .missing = {LB_DECODER_MISSING, .max_position_embeddings = 32768, .num_key_value_heads = 4,
                         .bos_token_id = -1, .eos_token_id = -1, .sliding_window = 4096, .num_experts = 128,
                         .num_experts_per_tok = 8, .intermediate_size = 6144, .moe_intermediate_size = 768},
             .keys = {keys, lb_decoder_keys},
             .gguf = "qwen3moe",
             .gguf_keys = {lb_decoder_gguf_keys, gguf_keys},
             .settle_gguf = settle_gguf,
             LB_DECODER_FORM},
    .traits = &traits,
    LB_DECODER,
};
