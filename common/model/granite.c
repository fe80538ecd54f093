/* Granite 3: llama with multipliers of embeddings, scores, what blocks add, and logits. */
#include "common/model/decoder.h"

#include <math.h>

#define FIELD(member) offsetof(struct lb_config, member)
#define MOST 1e6

static const struct lb_config_key keys[] = {
    {"attention_bias", LB_KEY_BOOL, 0, FIELD(attention_bias)},
    {"mlp_bias", LB_KEY_BOOL, 0, FIELD(mlp_bias)},
    {"embedding_multiplier", LB_KEY_REAL, 0, FIELD(embedding_multiplier), 1e-6, MOST},
    {"residual_multiplier", LB_KEY_REAL, 0, FIELD(residual_multiplier), 1e-6, MOST},
    {"attention_multiplier", LB_KEY_REAL, 0, FIELD(attention_multiplier), 1e-6, MOST},
    {"logits_scaling", LB_KEY_REAL, 0, FIELD(logit_scale), 1e-6, MOST},
    {NULL},
};

static const struct lb_config_key gguf_keys[] = {
    {".embedding_scale", LB_KEY_REAL, 0, FIELD(embedding_multiplier)},
    {".residual_scale", LB_KEY_REAL, 0, FIELD(residual_multiplier)},
    {".attention.scale", LB_KEY_REAL, 0, FIELD(attention_multiplier)},
    {".logit_scale", LB_KEY_REAL, 0, FIELD(logit_scale)},
    {"blk.0.attn_q.bias", LB_KEY_HAS, 0, FIELD(attention_bias)},
    {"blk.0.ffn_down.bias", LB_KEY_HAS, 0, FIELD(mlp_bias)},
    {NULL},
};

/* llama.cpp: a scale of 0 is the usual one. */
static void settle_gguf(struct lb_config *c) {
    int64_t heads = c->num_attention_heads > 0 ? c->num_attention_heads : 1;
    int64_t dim = c->head_dim > 0 ? c->head_dim : c->hidden_size / heads;
    if (c->attention_multiplier == 0 && dim > 0) {
        c->attention_multiplier = 1 / sqrt((double)dim);
    }
}

const struct lb_family lb_family_granite = {
    .form = {.model_type = "granite",
             .class_name = "GraniteForCausalLM",
             .missing = {LB_DECODER_MISSING, .max_position_embeddings = 2048, .bos_token_id = 1,
                         .eos_token_id = 2, .embedding_multiplier = 1, .residual_multiplier = 1,
                         .attention_multiplier = 1, .logit_scale = 1},
             .keys = {lb_decoder_keys, keys},
             .gguf = "granite",
             .gguf_keys = {lb_decoder_gguf_keys, gguf_keys},
             .settle_gguf = settle_gguf,
             LB_DECODER_FORM},
    .gguf_permutes = true,
    LB_DECODER,
};
