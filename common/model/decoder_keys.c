/* The keys that the families of the decoder share, in config.json and in GGUF, and how their values fit. */
#include "common/model/decoder.h"
#include "common/nn/ops.h"

#include <inttypes.h>

#define FIELD(member) offsetof(struct lb_config, member)

/* Maxima that keep every product of two or three sizes, times the layers, within 63 bits. */
#define MAX_VOCAB INT32_MAX
#define MAX_WIDTH (1 << 20)
#define MAX_FEED_FORWARD (1 << 22)
#define MAX_LAYERS 4096
#define MAX_HEADS 4096
#define MAX_HEAD_DIM LB_MAX_HEAD_DIM

const struct lb_config_key lb_decoder_keys[] = {
    {"model_type", LB_KEY_MODEL_TYPE},
    {"architectures", LB_KEY_CLASS},
    {"dtype", LB_KEY_DTYPE}, /* transformers 5, and 4: */
    {"torch_dtype", LB_KEY_DTYPE},
    {"vocab_size", LB_KEY_INT, LB_KEY_NEEDED, FIELD(vocab_size), 1, MAX_VOCAB},
    {"hidden_size", LB_KEY_INT, LB_KEY_NEEDED, FIELD(hidden_size), 1, MAX_WIDTH},
    {"intermediate_size", LB_KEY_INT, LB_KEY_NEEDED, FIELD(intermediate_size), 1, MAX_FEED_FORWARD},
    {"num_hidden_layers", LB_KEY_INT, LB_KEY_NEEDED, FIELD(num_hidden_layers), 1, MAX_LAYERS},
    {"num_attention_heads", LB_KEY_INT, LB_KEY_NEEDED, FIELD(num_attention_heads), 1, MAX_HEADS},
    {"num_key_value_heads", LB_KEY_INT, LB_KEY_NULL_IS_0, FIELD(num_key_value_heads), 1, MAX_HEADS},
    {"head_dim", LB_KEY_INT, 0, FIELD(head_dim), 1, MAX_HEAD_DIM},
    {"max_position_embeddings", LB_KEY_INT, 0, FIELD(max_position_embeddings), 1, INT32_MAX},
    {"rms_norm_eps", LB_KEY_REAL, 0, FIELD(norm_eps), 0, 1},
    {"rope_theta", LB_KEY_REAL, 0, FIELD(rope_theta), 1, 1e15}, /* transformers 4, and 5: */
    {"rope_parameters", LB_KEY_ROPE, LB_KEY_WRITTEN, FIELD(rope_theta), 1, 1e15},
    {"rope_scaling", LB_KEY_ROPE, 0, FIELD(rope_theta), 1, 1e15},
    {"hidden_act", LB_KEY_ONLY_TEXT, LB_KEY_WRITTEN, .only = "silu"},
    {"tie_word_embeddings", LB_KEY_BOOL, 0, FIELD(tie_word_embeddings)},
    {"bos_token_id", LB_KEY_TOKEN, 0, FIELD(bos_token_id)},
    {"eos_token_id", LB_KEY_TOKEN, 0, FIELD(eos_token_id)},
    {"pad_token_id", LB_KEY_TOKEN, 0, FIELD(pad_token_id)},
    {"initializer_range", LB_KEY_REAL, 0, FIELD(initializer_range), 0, 1},
    {"attention_dropout", LB_KEY_ANY, LB_KEY_WRITTEN, .only = "0.0"},
    {"use_cache", LB_KEY_ANY, LB_KEY_WRITTEN, .only = "true"},
    {NULL},
};

/* llama.cpp's names, in the order that they are written in. */
const struct lb_config_key lb_decoder_gguf_keys[] = {
    {".context_length", LB_KEY_INT, LB_KEY_NEEDED, FIELD(max_position_embeddings)},
    {".embedding_length", LB_KEY_INT, LB_KEY_NEEDED, FIELD(hidden_size)},
    {".block_count", LB_KEY_INT, LB_KEY_NEEDED, FIELD(num_hidden_layers)},
    {".feed_forward_length", LB_KEY_INT, LB_KEY_NEEDED, FIELD(intermediate_size)},
    {".vocab_size", LB_KEY_INT, 0, FIELD(vocab_size)},
    {".attention.head_count", LB_KEY_INT, LB_KEY_NEEDED, FIELD(num_attention_heads)},
    {".attention.head_count_kv", LB_KEY_INT, 0, FIELD(num_key_value_heads)},
    {".attention.key_length", LB_KEY_INT, 0, FIELD(head_dim)},
    {".attention.value_length", LB_KEY_SAME, 0, FIELD(head_dim)},
    {".rope.dimension_count", LB_KEY_SAME, 0, FIELD(head_dim)},
    {".rope.freq_base", LB_KEY_REAL, 0, FIELD(rope_theta)},
    {".attention.layer_norm_rms_epsilon", LB_KEY_REAL, LB_KEY_NEEDED, FIELD(norm_eps)},
    {".attention.sliding_window", LB_KEY_INT, LB_KEY_FILE_ONLY, FIELD(sliding_window)},
    {"tokenizer.ggml.bos_token_id", LB_KEY_TOKEN, 0, FIELD(bos_token_id)},
    {"tokenizer.ggml.eos_token_id", LB_KEY_TOKEN, 0, FIELD(eos_token_id)},
    {"tokenizer.ggml.padding_token_id", LB_KEY_TOKEN, 0, FIELD(pad_token_id)},
    {"output.weight", LB_KEY_LACKS, 0, FIELD(tie_word_embeddings)},
    {NULL},
};

/* Within the window a sliding window changes nothing: the model is used up to that length only. */
void lb_decoder_settle(struct lb_config *c) {
    if (c->num_key_value_heads == 0) {
        c->num_key_value_heads = c->num_attention_heads;
    }
    if (c->head_dim == 0 && c->num_attention_heads > 0) {
        c->head_dim = c->hidden_size / c->num_attention_heads;
    }
    if (c->use_sliding_window && c->sliding_window > 0 && c->sliding_window < c->max_position_embeddings) {
        c->max_position_embeddings = c->sliding_window;
    }
    c->sliding_window = 0;
    c->use_sliding_window = false;
}

enum lb_status lb_decoder_check(const struct lb_config *c, const char *what, struct lb_detail *detail) {
    if (c->hidden_size % c->num_attention_heads != 0) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: hidden_size %" PRId64 " is no multiple of num_attention_heads %" PRId64, what,
                       c->hidden_size, c->num_attention_heads);
    }
    if (c->num_attention_heads % c->num_key_value_heads != 0) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: num_attention_heads %" PRId64 " is no multiple of num_key_value_heads %" PRId64,
                       what, c->num_attention_heads, c->num_key_value_heads);
    }
    if (c->head_dim % 2 != 0) {
        return lb_fail(detail, LB_E_ARG, "%s: head_dim %" PRId64 " is odd; rotary embeddings turn pairs",
                       what, c->head_dim);
    }
    return LB_OK;
}
