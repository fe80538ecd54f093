/* Qwen3 (Yang et al. 2025): norms of each head's q and k, heads as wide as they like. */
#include "common/model/classifier.h"
#include "common/model/decoder.h"

#define FIELD(member) offsetof(struct lb_config, member)

static const struct lb_config_key keys[] = {
    {"attention_bias", LB_KEY_BOOL, 0, FIELD(attention_bias)},
    {"use_sliding_window", LB_KEY_BOOL, LB_KEY_FILE_ONLY, FIELD(use_sliding_window)},
    {"sliding_window", LB_KEY_INT, LB_KEY_NULL_IS_0 | LB_KEY_FILE_ONLY, FIELD(sliding_window), 0, INT32_MAX},
    {"max_window_layers", LB_KEY_INT, LB_KEY_PASSING, FIELD(max_window_layers), 0, INT32_MAX},
    {"layer_types", LB_KEY_LAYER_TYPES, 0, FIELD(sliding)},
    {NULL},
};

static const struct lb_config_key gguf_keys[] = {
    {"blk.0.attn_q.bias", LB_KEY_HAS, 0, FIELD(attention_bias)},
    {NULL},
};

static const struct lb_decoder_traits traits = {.qk_norm = LB_QK_NORM_HEAD};

const struct lb_family lb_family_qwen3 = {
    .form = {.model_type = "qwen3",
             .class_name = "Qwen3ForCausalLM",
             .sequence_class = "Qwen3ForSequenceClassification",
             .missing = {LB_DECODER_MISSING, .max_position_embeddings = 32768, .num_key_value_heads = 32,
                         .head_dim = 128, .bos_token_id = -1, .eos_token_id = -1, .sliding_window = 4096,
                         .max_window_layers = 28},
             .keys = {lb_decoder_keys, keys},
             .gguf = "qwen3",
             .gguf_keys = {lb_decoder_gguf_keys, gguf_keys},
             LB_DECODER_FORM},
    .traits = &traits,
    .classifier = &lb_decoder_classifier,
    LB_DECODER,
};
