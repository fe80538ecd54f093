/* Touvron et al. 2023 (LLaMA). */
#include "common/model/classifier.h"
#include "common/model/decoder.h"

static const struct lb_config_key keys[] = {
    {"attention_bias", LB_KEY_BOOL, 0, offsetof(struct lb_config, attention_bias)},
    {"mlp_bias", LB_KEY_BOOL, 0, offsetof(struct lb_config, mlp_bias)},
    {NULL},
};

static const struct lb_config_key gguf_keys[] = {
    {"blk.0.attn_q.bias", LB_KEY_HAS, 0, offsetof(struct lb_config, attention_bias)},
    {"blk.0.ffn_down.bias", LB_KEY_HAS, 0, offsetof(struct lb_config, mlp_bias)},
    {NULL},
};

const struct lb_family lb_family_llama = {
    .form = {.model_type = "llama",
             .class_name = "LlamaForCausalLM",
             .sequence_class = "LlamaForSequenceClassification",
             .missing = {LB_DECODER_MISSING, .max_position_embeddings = 2048, .bos_token_id = 1,
                         .eos_token_id = 2},
             .keys = {lb_decoder_keys, keys},
             .gguf = "llama",
             .gguf_keys = {lb_decoder_gguf_keys, gguf_keys},
             LB_DECODER_FORM},
    .gguf_permutes = true,
    .classifier = &lb_decoder_classifier,
    LB_DECODER,
};
