/* Ministral 8B: mistral whose layers differ in whether they have the window. */
#include "common/model/decoder.h"

#define FIELD(member) offsetof(struct lb_config, member)

static const struct lb_config_key keys[] = {
    {"sliding_window", LB_KEY_INT, LB_KEY_NULL_IS_0 | LB_KEY_FILE_ONLY, FIELD(sliding_window), 0, INT32_MAX},
    {"layer_types", LB_KEY_LAYER_TYPES, LB_KEY_WRITTEN, FIELD(sliding)},
    {NULL},
};

const struct lb_family lb_family_ministral = {
    .form = {.model_type = "ministral",
             .class_name = "MinistralForCausalLM",
             .missing = {LB_DECODER_MISSING, .max_position_embeddings = 131072, .num_key_value_heads = 8,
                         .bos_token_id = 1, .eos_token_id = 2, .sliding_window = 4096,
                         .use_sliding_window = true},
             .keys = {lb_decoder_keys, keys},
             .gguf = "llama",
             .gguf_keys = {lb_decoder_gguf_keys},
             LB_DECODER_FORM},
    .gguf_permutes = true,
    LB_DECODER,
};
