/* SmolLM3: llama in which every fourth layer has no positions at all (Yang et al. 2025, NoPE). */
#include "common/model/decoder.h"

#define FIELD(member) offsetof(struct lb_config, member)

static const struct lb_config_key keys[] = {
    {"attention_bias", LB_KEY_BOOL, 0, FIELD(attention_bias)},
    {"mlp_bias", LB_KEY_BOOL, 0, FIELD(mlp_bias)},
    {"no_rope_layer_interval", LB_KEY_INT, LB_KEY_PASSING, FIELD(rope_pattern), 1, INT32_MAX},
    {"no_rope_layers", LB_KEY_ROPE_LAYERS, 0, FIELD(no_rope)},
    {"use_sliding_window", LB_KEY_BOOL, LB_KEY_FILE_ONLY, FIELD(use_sliding_window)},
    {"sliding_window", LB_KEY_INT, LB_KEY_NULL_IS_0 | LB_KEY_FILE_ONLY, FIELD(sliding_window), 0, INT32_MAX},
    {"layer_types", LB_KEY_LAYER_TYPES, LB_KEY_WRITTEN, FIELD(sliding)},
    {NULL},
};

/* Where no list says it, layers without positions have the window. */
static void settle(struct lb_config *c) {
    bool types = c->n_layer_types > 0;
    c->n_layer_types = c->num_hidden_layers;
    lb_decoder_settle_rotary(c);
    for (int64_t l = 0; l < c->num_hidden_layers && l < LB_MAX_LAYERS && !types; l++) {
        if (lb_layer_has(&c->no_rope, l)) {
            lb_layer_put(&c->sliding, l);
        }
    }
    lb_decoder_settle(c);
}

static const struct lb_config_key gguf_keys[] = {
    {"blk.0.attn_q.bias", LB_KEY_HAS, 0, FIELD(attention_bias)},
    {"blk.0.ffn_down.bias", LB_KEY_HAS, 0, FIELD(mlp_bias)},
    {NULL},
};

const struct lb_family lb_family_smollm3 = {
    .form = {.model_type = "smollm3",
             .class_name = "SmolLM3ForCausalLM",
             .missing = {.norm_eps = 1e-6,
                         .rope_theta = 2000000,
                         .initializer_range = 0.02,
                         .max_position_embeddings = 32768,
                         .num_key_value_heads = 4,
                         .bos_token_id = 128000,
                         .eos_token_id = 128001,
                         .pad_token_id = 128004,
                         .rope_pattern = 4,
                         .tie_word_embeddings = true},
             .keys = {lb_decoder_keys, keys},
             .gguf = "smollm3",
             .gguf_keys = {lb_decoder_gguf_keys, gguf_keys},
             .settle = settle,
             .check = lb_decoder_check},
    .gguf_permutes = true,
    LB_DECODER,
};
