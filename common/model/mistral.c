/* Jiang et al. 2023 (Mistral 7B): llama with a sliding window; llama.cpp takes it for a llama. */
#include "common/model/classifier.h"
#include "common/model/decoder.h"

static const struct lb_config_key keys[] = {
    /* written as null: a missing one would mean 4096 */
    {"sliding_window", LB_KEY_INT, LB_KEY_NULL_IS_0 | LB_KEY_FILE_ONLY,
     offsetof(struct lb_config, sliding_window), 0, INT32_MAX},
    {NULL},
};

const struct lb_family lb_family_mistral = {
    .form = {.model_type = "mistral",
             .class_name = "MistralForCausalLM",
             .sequence_class = "MistralForSequenceClassification",
             .missing = {LB_DECODER_MISSING, .max_position_embeddings = 131072, .num_key_value_heads = 8,
                         .bos_token_id = 1, .eos_token_id = 2, .sliding_window = 4096,
                         .use_sliding_window = true},
             .keys = {lb_decoder_keys, keys},
             .gguf = "llama",
             .gguf_keys = {lb_decoder_gguf_keys},
             LB_DECODER_FORM},
    .gguf_permutes = true,
    .classifier = &lb_decoder_classifier,
    LB_DECODER,
};
