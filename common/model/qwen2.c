/* Qwen2 and Qwen2.5 (Yang et al. 2024): biases of q, k and v, always; a sliding window where asked for. */
#include "common/model/classifier.h"
#include "common/model/decoder.h"

static const struct lb_config_key keys[] = {
    {"use_sliding_window", LB_KEY_BOOL, LB_KEY_FILE_ONLY, offsetof(struct lb_config, use_sliding_window)},
    {"sliding_window", LB_KEY_INT, LB_KEY_NULL_IS_0 | LB_KEY_FILE_ONLY,
     offsetof(struct lb_config, sliding_window), 0, INT32_MAX},
    {"max_window_layers", LB_KEY_INT, LB_KEY_PASSING, offsetof(struct lb_config, max_window_layers), 0,
     INT32_MAX},
    {"layer_types", LB_KEY_LAYER_TYPES, 0, offsetof(struct lb_config, sliding)},
    {NULL},
};

const struct lb_family lb_family_qwen2 = {
    .form = {.model_type = "qwen2",
             .class_name = "Qwen2ForCausalLM",
             .sequence_class = "Qwen2ForSequenceClassification",
             .missing = {LB_DECODER_MISSING, .max_position_embeddings = 32768, .num_key_value_heads = 32,
                         .bos_token_id = -1, .eos_token_id = -1, .sliding_window = 4096,
                         .max_window_layers = 28, .qkv_bias = true},
             .keys = {lb_decoder_keys, keys},
             .gguf = "qwen2",
             .gguf_keys = {lb_decoder_gguf_keys},
             LB_DECODER_FORM},
    .classifier = &lb_decoder_classifier,
    LB_DECODER,
};
