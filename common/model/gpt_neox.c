/* GPT-NeoX and Pythia (Black et al. 2022, Biderman et al. 2023): LayerNorm, each head's q, k and v in one
 * matrix, rotary positions of a part of each head, attention and feed-forward side by side, no gate. */
#include "common/model/decoder.h"
#include "common/nn/ops.h"

#include <inttypes.h>

#define FIELD(member) offsetof(struct lb_config, member)

/* In front of the shared ones, some of which it hides. */
static const struct lb_config_key keys[] = {
    {"hidden_act", LB_KEY_ONLY_TEXT, LB_KEY_WRITTEN, .only = "gelu"},
    {"layer_norm_eps", LB_KEY_REAL, 0, FIELD(norm_eps), 0, 1},
    {"rms_norm_eps", LB_KEY_ANY},
    {"num_key_value_heads", LB_KEY_ANY}, /* no key of this class */
    {"head_dim", LB_KEY_INT, LB_KEY_PASSING, FIELD(head_dim), 1, LB_MAX_HEAD_DIM},
    {"rotary_emb_base", LB_KEY_REAL, LB_KEY_PASSING, FIELD(rope_theta), 1, 1e15},
    {"rotary_pct", LB_KEY_REAL, LB_KEY_PASSING, FIELD(partial_rotary_factor), 1e-6, 1},
    {"attention_bias", LB_KEY_BOOL, 0, FIELD(attention_bias)},
    {"use_parallel_residual", LB_KEY_BOOL, 0, FIELD(use_parallel_residual)},
    {NULL},
};

static const struct lb_config_key gguf_keys[] = {
    {".rope.dimension_count", LB_KEY_INT, 0, FIELD(rotary_dims)},
    {".attention.layer_norm_rms_epsilon", LB_KEY_ANY},
    {".attention.layer_norm_epsilon", LB_KEY_REAL, LB_KEY_NEEDED, FIELD(norm_eps)},
    {".use_parallel_residual", LB_KEY_BOOL, 0, FIELD(use_parallel_residual)},
    {"blk.0.attn_qkv.bias", LB_KEY_HAS, 0, FIELD(attention_bias)},
    {NULL},
};

/* transformers turns what a head_dim says and cuts heads by the width. */
static enum lb_status check(const struct lb_config *c, const char *what, struct lb_detail *detail) {
    enum lb_status status = lb_decoder_check(c, what, detail);
    if (status == LB_OK && c->head_dim * c->num_attention_heads != c->hidden_size) {
        status =
            lb_fail(detail, LB_E_UNSUPPORTED,
                    "%s: head_dim %" PRId64 " is not hidden_size %" PRId64 " / num_attention_heads %" PRId64,
                    what, c->head_dim, c->hidden_size, c->num_attention_heads);
    }
    return status;
}

#define LAYER(name) ("gpt_neox.layers.%d." name)

static const struct lb_role_names names = {
    .hf = {[LB_ROLE_EMBED] = "gpt_neox.embed_in",
           [LB_ROLE_NORM] = "gpt_neox.final_layer_norm",
           [LB_ROLE_HEAD] = "embed_out",
           [LB_ROLE_ATTN_NORM] = LAYER("input_layernorm"),
           [LB_ROLE_QKV] = LAYER("attention.query_key_value"),
           [LB_ROLE_O] = LAYER("attention.dense"),
           [LB_ROLE_MLP_NORM] = LAYER("post_attention_layernorm"),
           [LB_ROLE_UP] = LAYER("mlp.dense_h_to_4h"),
           [LB_ROLE_DOWN] = LAYER("mlp.dense_4h_to_h")},
    .embed = "gpt_neox.embed_in.weight",
    .head = "embed_out.weight",
};

static const struct lb_decoder_traits traits = {
    .qkv = LB_QKV_BY_HEAD, .mlp = LB_MLP_GELU, .layer_norm = true, .names = &names};

const struct lb_family lb_family_gpt_neox = {
    .form = {.model_type = "gpt_neox",
             .class_name = "GPTNeoXForCausalLM",
             .missing = {.norm_eps = 1e-5,
                         .rope_theta = 10000,
                         .initializer_range = 0.02,
                         .max_position_embeddings = 2048,
                         .partial_rotary_factor = 0.25,
                         .bos_token_id = 0,
                         .eos_token_id = 2,
                         .pad_token_id = -1,
                         .attention_bias = true,
                         .mlp_bias = true,
                         .use_parallel_residual = true},
             .keys = {keys, lb_decoder_keys},
             .gguf = "gptneox",
             .gguf_keys = {gguf_keys, lb_decoder_gguf_keys},
             .settle = lb_decoder_settle,
             .check = check},
    .traits = &traits,
    LB_DECODER_IN("gpt_neox."),
};
