/* Gemma 3 (Gemma Team 2025), its text: Gemma 2 without soft-caps, with norms of each head's q and k; five of
 * six layers have a window and rotary positions of another base. */
#include "common/model/gemma.h"

static const struct lb_config_key keys[] = {
    LB_GEMMA_KEYS,
    {"rope_local_base_freq", LB_KEY_REAL, 0, FIELD(rope_local_theta), 1, 1e15},
    {"sliding_window_pattern", LB_KEY_INT, LB_KEY_PASSING, FIELD(window_pattern), 1, INT32_MAX},
    {"_sliding_window_pattern", LB_KEY_ANY}, /* transformers' copy of it, which it does not read */
    {"attn_logit_softcapping", LB_KEY_ANY},  /* nobody applies it to this family */
    {NULL},
};

static const struct lb_config_key later_keys[] = {
    {"layer_types", LB_KEY_LAYER_TYPES, LB_KEY_WRITTEN, FIELD(sliding)},
    {NULL},
};

static const struct lb_config_key gguf_keys[] = {
    LB_GEMMA_GGUF_KEYS,
    {".rope.freq_base_swa", LB_KEY_REAL, 0, FIELD(rope_local_theta)},
    {NULL},
};

/* llama.cpp: 1 / sqrt(D), but of the 27B, which it knows by its layers, 1 / sqrt(C / H). */
static void settle_gguf(struct lb_config *c) {
    lb_gemma_settle_gguf(c, 62);
}

static const struct lb_decoder_traits traits = {.norms = LB_NORM_AROUND,
                                                .qk_norm = LB_QK_NORM_HEAD,
                                                .mlp = LB_MLP_GEGLU,
                                                .one_plus = true,
                                                .scaled_embed = true,
                                                .gguf_windows = true,
                                                .names = &lb_gemma_names};

const struct lb_family lb_family_gemma3 = {
    .form = {.model_type = "gemma3_text",
             .class_name = "Gemma3ForCausalLM",
             .missing = {LB_GEMMA_MISSING, .rope_theta = 1000000, .rope_local_theta = 10000,
                         .max_position_embeddings = 131072, .window_pattern = 6},
             .keys = {keys, lb_decoder_keys, later_keys},
             .gguf = "gemma3",
             .gguf_keys = {lb_decoder_gguf_keys, gguf_keys},
             .settle_gguf = settle_gguf,
             LB_DECODER_FORM},
    .traits = &traits,
    LB_DECODER,
};
