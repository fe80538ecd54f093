/* A variant of the decoder: biases of q, k and v, always, and positions up to 96 where the file says nothing.
 */
#include "common/model/decoder.h"

const struct lb_family lb_family_twin = {
    .form = {.model_type = "twin",
             .class_name = "Qwen2ForCausalLM",
             .missing = {LB_DECODER_MISSING, .max_position_embeddings = 96, .num_key_value_heads = 2,
                         .bos_token_id = -1, .eos_token_id = -1, .qkv_bias = true},
             .keys = {lb_decoder_keys},
             .gguf = "qwen2",
             .gguf_keys = {lb_decoder_gguf_keys},
             LB_DECODER_FORM},
    LB_DECODER,
};
