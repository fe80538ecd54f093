/* GPT-2 (Radford et al. 2019): LayerNorm, learned positions, q, k and v in one matrix, no gate. */
#include "common/model/decoder.h"

#define FIELD(member) offsetof(struct lb_config, member)
#define MAX_WIDTH (1 << 20)

static const struct lb_config_key keys[] = {
    LB_KEYS_OF_CLASS,
    {"vocab_size", LB_KEY_INT, LB_KEY_NEEDED, FIELD(vocab_size), 1, INT32_MAX},
    {"n_embd", LB_KEY_INT, LB_KEY_NEEDED, FIELD(hidden_size), 1, MAX_WIDTH},
    {"n_inner", LB_KEY_INT, LB_KEY_NULL_IS_0, FIELD(intermediate_size), 1, 4 * MAX_WIDTH},
    {"n_layer", LB_KEY_INT, LB_KEY_NEEDED, FIELD(num_hidden_layers), 1, LB_MAX_LAYERS},
    {"n_head", LB_KEY_INT, LB_KEY_NEEDED, FIELD(num_attention_heads), 1, 4096},
    {"n_positions", LB_KEY_INT, 0, FIELD(max_position_embeddings), 1, MAX_WIDTH},
    {"n_ctx", LB_KEY_ANY}, /* the same, of old files */
    {"layer_norm_epsilon", LB_KEY_REAL, 0, FIELD(norm_eps), 0, 1},
    {"activation_function", LB_KEY_ONLY_TEXT, LB_KEY_WRITTEN, .only = "gelu_new"},
    {"scale_attn_weights", LB_KEY_ONLY_NUMBER, 0, 0, 1, 1},
    {"scale_attn_by_inverse_layer_idx", LB_KEY_ONLY_NUMBER},
    {"reorder_and_upcast_attn", LB_KEY_ANY}, /* the same numbers in another order */
    {"summary_type", LB_KEY_ANY},
    {"summary_use_proj", LB_KEY_ANY},
    {"summary_activation", LB_KEY_ANY},
    {"summary_proj_to_labels", LB_KEY_ANY},
    {"summary_first_dropout", LB_KEY_ANY},
    {"tie_word_embeddings", LB_KEY_BOOL, 0, FIELD(tie_word_embeddings)},
    LB_KEYS_OF_TOKENS,
    {"resid_pdrop", LB_KEY_REAL, 0, FIELD(residual_dropout), 0, 0.99},
    {"embd_pdrop", LB_KEY_REAL, 0, FIELD(embedding_dropout), 0, 0.99},
    {"attn_pdrop", LB_KEY_REAL, 0, FIELD(attention_dropout), 0, 0.99},
    {NULL},
};

static const struct lb_config_key gguf_keys[] = {
    LB_GGUF_KEYS_OF_SIZES,
    {".attention.layer_norm_epsilon", LB_KEY_REAL, LB_KEY_NEEDED, FIELD(norm_eps)},
    {"tokenizer.ggml.bos_token_id", LB_KEY_TOKEN, 0, FIELD(bos_token_id)},
    {"tokenizer.ggml.eos_token_id", LB_KEY_TOKEN, 0, FIELD(eos_token_id)},
    {"tokenizer.ggml.padding_token_id", LB_KEY_TOKEN, 0, FIELD(pad_token_id)},
    {"output.weight", LB_KEY_LACKS, 0, FIELD(tie_word_embeddings)},
    {NULL},
};

static void settle(struct lb_config *c) {
    c->intermediate_size = c->intermediate_size > 0 ? c->intermediate_size : 4 * c->hidden_size;
    lb_decoder_settle(c);
}

#define LAYER(name) ("transformer.h.%d." name)

static const struct lb_role_names names = {
    .hf = {[LB_ROLE_EMBED] = "transformer.wte",
           [LB_ROLE_POSITIONS] = "transformer.wpe",
           [LB_ROLE_NORM] = "transformer.ln_f",
           [LB_ROLE_ATTN_NORM] = LAYER("ln_1"),
           [LB_ROLE_QKV] = LAYER("attn.c_attn"),
           [LB_ROLE_O] = LAYER("attn.c_proj"),
           [LB_ROLE_MLP_NORM] = LAYER("ln_2"),
           [LB_ROLE_UP] = LAYER("mlp.c_fc"),
           [LB_ROLE_DOWN] = LAYER("mlp.c_proj")},
    .embed = "transformer.wte.weight",
};

static const struct lb_decoder_traits traits = {.qkv = LB_QKV_JOINED,
                                                .mlp = LB_MLP_GELU_TANH,
                                                .layer_norm = true,
                                                .positions = true,
                                                .transposed = true,
                                                .names = &names};

const struct lb_family lb_family_gpt2 = {
    .form = {.model_type = "gpt2",
             .class_name = "GPT2LMHeadModel",
             .missing = {.norm_eps = 1e-5,
                         .initializer_range = 0.02,
                         .max_position_embeddings = 1024,
                         .bos_token_id = 50256,
                         .eos_token_id = 50256,
                         .pad_token_id = -1,
                         .attention_bias = true,
                         .mlp_bias = true,
                         .tie_word_embeddings = true},
             .keys = {keys},
             .gguf = "gpt2",
             .gguf_keys = {gguf_keys},
             .settle = settle,
             .check = lb_decoder_check},
    .traits = &traits,
    LB_DECODER_IN("transformer."),
};
