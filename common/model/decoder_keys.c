#include "common/model/decoder_keys.h"

#include "common/formats/rope_scaling.h"
#include "common/model/decoder_bind.h"
#include "common/nn/ops.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define FIELD(member) offsetof(struct lb_config, member)

/* Maxima that keep every product of two or three sizes, times the layers, within 63 bits. */
#define MAX_VOCAB INT32_MAX
#define MAX_WIDTH (1 << 20)
#define MAX_LAYERS LB_MAX_LAYERS
#define MAX_ALL_EXPERTS 32768 /* each is three weights to keep account of */
#define MAX_HEADS 4096
#define MAX_HEAD_DIM LB_MAX_HEAD_DIM

const struct lb_config_key lb_decoder_keys[] = {
    LB_KEYS_OF_CLASS,
    LB_KEY_OF_LABELS(LB_KEY_FILE_ONLY),
    {"vocab_size", LB_KEY_INT, LB_KEY_NEEDED, FIELD(vocab_size), 1, MAX_VOCAB},
    {"hidden_size", LB_KEY_INT, LB_KEY_NEEDED, FIELD(hidden_size), 1, MAX_WIDTH},
    {"intermediate_size", LB_KEY_INT, LB_KEY_NEEDED, FIELD(intermediate_size), 1, LB_MAX_FEED_FORWARD},
    {"num_hidden_layers", LB_KEY_INT, LB_KEY_NEEDED, FIELD(num_hidden_layers), 1, MAX_LAYERS},
    {"num_attention_heads", LB_KEY_INT, LB_KEY_NEEDED, FIELD(num_attention_heads), 1, MAX_HEADS},
    {"num_key_value_heads", LB_KEY_INT, LB_KEY_NULL_IS_0, FIELD(num_key_value_heads), 1, MAX_HEADS},
    {"head_dim", LB_KEY_INT, 0, FIELD(head_dim), 1, MAX_HEAD_DIM},
    {"max_position_embeddings", LB_KEY_INT, 0, FIELD(max_position_embeddings), 1, INT32_MAX},
    {"rms_norm_eps", LB_KEY_REAL, 0, FIELD(norm_eps), 0, 1},
    {"rope_theta", LB_KEY_REAL, 0, FIELD(rope_theta), 1, 1e15}, /* transformers 4, and 5: */
    {"rope_parameters", LB_KEY_ROPE, LB_KEY_WRITTEN, FIELD(rope_theta), 1, 1e15},
    {"rope_scaling", LB_KEY_ROPE, 0, FIELD(rope_theta), 1, 1e15},
    {"original_max_position_embeddings", LB_KEY_ANY}, /* read with them */
    {"hidden_act", LB_KEY_ONLY_TEXT, LB_KEY_WRITTEN, .only = "silu"},
    {"tie_word_embeddings", LB_KEY_BOOL, 0, FIELD(tie_word_embeddings)},
    LB_KEYS_OF_TOKENS,
    {"attention_dropout", LB_KEY_REAL, 0, FIELD(attention_dropout), 0, 0.99},
    {"use_cache", LB_KEY_ANY, LB_KEY_WRITTEN, .only = "true"},
    {NULL},
};

/* llama.cpp's names, in the order that they are written in. */
const struct lb_config_key lb_decoder_gguf_keys[] = {
    LB_GGUF_KEYS_OF_SIZES,
    {".attention.head_count_kv", LB_KEY_INT, 0, FIELD(num_key_value_heads)},
    {".attention.key_length", LB_KEY_INT, 0, FIELD(head_dim)},
    {".attention.value_length", LB_KEY_SAME, 0, FIELD(head_dim)},
    {".rope.dimension_count", LB_KEY_SAME, 0, FIELD(head_dim)},
    {".rope.freq_base", LB_KEY_REAL, 0, FIELD(rope_theta)},
    {".rope.scaling.", LB_KEY_ROPE},
    {".attention.layer_norm_rms_epsilon", LB_KEY_REAL, LB_KEY_NEEDED, FIELD(norm_eps)},
    {".attention.sliding_window", LB_KEY_INT, LB_KEY_NULL_IS_0, FIELD(sliding_window)},
    {"tokenizer.ggml.bos_token_id", LB_KEY_TOKEN, 0, FIELD(bos_token_id)},
    {"tokenizer.ggml.eos_token_id", LB_KEY_TOKEN, 0, FIELD(eos_token_id)},
    {"tokenizer.ggml.padding_token_id", LB_KEY_TOKEN, 0, FIELD(pad_token_id)},
    {"output.weight", LB_KEY_LACKS, 0, FIELD(tie_word_embeddings)},
    {NULL},
};

/* Which layers have a window where no list of types says it. */
static void settle_windows(struct lb_config *c) {
    bool windows = c->use_sliding_window && c->sliding_window > 0, any = false;
    /* a window that no position leaves is none, unless rotary positions go by it */
    windows = windows && (c->sliding_window < c->max_position_embeddings || c->rope_local_theta > 0);
    for (int64_t l = 0; l < c->num_hidden_layers && l < MAX_LAYERS && windows && c->n_layer_types == 0; l++) {
        if (c->window_pattern > 0 ? (l + 1) % c->window_pattern != 0 : l >= c->max_window_layers) {
            lb_layer_put(&c->sliding, l);
        }
    }
    for (int64_t l = 0; l < c->num_hidden_layers && l < MAX_LAYERS; l++) {
        any = any || lb_layer_has(&c->sliding, l);
    }
    if (!windows || !any) {
        c->sliding_window = 0;
        memset(&c->sliding, 0, sizeof c->sliding);
    }
    c->use_sliding_window = c->sliding_window > 0;
}

void lb_decoder_settle_rotary(struct lb_config *c) {
    if (c->rotary_dims > 0 && c->partial_rotary_factor > 0 && c->head_dim > 0) {
        c->partial_rotary_factor = (double)c->rotary_dims / (double)c->head_dim;
        while (lb_rope_dims(c) < c->rotary_dims) { /* the quotient was rounded down */
            c->partial_rotary_factor = nextafter(c->partial_rotary_factor, 2);
        }
    }
    c->rotary_dims = lb_rope_dims(c);
    for (int64_t l = 0; l < c->num_hidden_layers && l < MAX_LAYERS && c->n_rope_layers == 0; l++) {
        if (c->rope_pattern > 0 && (l + 1) % c->rope_pattern == 0) {
            lb_layer_put(&c->no_rope, l);
        }
    }
}

void lb_decoder_settle(struct lb_config *c) {
    if (c->num_key_value_heads == 0) {
        c->num_key_value_heads = c->num_attention_heads;
    }
    if (c->head_dim == 0 && c->num_attention_heads > 0) {
        c->head_dim = c->hidden_size / c->num_attention_heads;
        c->head_dim_rounded = c->hidden_size % c->num_attention_heads != 0;
    }
    settle_windows(c);
    lb_decoder_settle_rotary(c);
}

static enum lb_status check_rope(const struct lb_config *c, const char *what, struct lb_detail *detail) {
    int64_t dims = lb_rope_dims(c);
    if (dims < 2 || dims % 2 != 0 || dims > c->head_dim) {
        return c->partial_rotary_factor > 0
                   ? lb_fail(detail, LB_E_ARG,
                             "%s: %" PRId64 " of head_dim %" PRId64
                             " are turned by rotary embeddings; they turn pairs",
                             what, dims, c->head_dim)
                   : lb_fail(detail, LB_E_ARG,
                             "%s: head_dim %" PRId64 " is odd; rotary embeddings turn pairs", what,
                             c->head_dim);
    }
    if (c->rope.type == LB_ROPE_LONGROPE && c->rope.n_factors != dims / 2) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: rotary embeddings have %" PRId64 " factors; %" PRId64 " pairs are turned", what,
                       c->rope.n_factors, dims / 2);
    }
    if (c->rope.type == LB_ROPE_LLAMA3 && !(c->rope.high_freq_factor > c->rope.low_freq_factor)) {
        return lb_fail(detail, LB_E_ARG, "%s: rope's high_freq_factor %g must be above low_freq_factor %g",
                       what, c->rope.high_freq_factor, c->rope.low_freq_factor);
    }
    if (c->rope.type == LB_ROPE_DYNAMIC && dims == 2) {
        return lb_fail(detail, LB_E_ARG, "%s: rope_type \"dynamic\" needs more than one pair to turn", what);
    }
    return LB_OK;
}

enum lb_status lb_decoder_check(const struct lb_config *c, const char *what, struct lb_detail *detail) {
    if (c->head_dim_rounded) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: hidden_size %" PRId64 " is no multiple of num_attention_heads %" PRId64, what,
                       c->hidden_size, c->num_attention_heads);
    }
    if (c->head_dim > MAX_HEAD_DIM) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s: heads of %" PRId64 " are not supported, at most %d",
                       what, c->head_dim, MAX_HEAD_DIM);
    }
    if (c->num_attention_heads % c->num_key_value_heads != 0) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: num_attention_heads %" PRId64 " is no multiple of num_key_value_heads %" PRId64,
                       what, c->num_attention_heads, c->num_key_value_heads);
    }
    if (c->num_experts * c->num_hidden_layers > MAX_ALL_EXPERTS) {
        return lb_fail(detail, LB_E_LIMIT, "%s: %" PRId64 " experts in all layers; at most %d are supported",
                       what, c->num_experts * c->num_hidden_layers, MAX_ALL_EXPERTS);
    }
    if (c->num_experts_per_tok > c->num_experts) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: num_experts_per_tok %" PRId64 " is more than the %" PRId64 " experts", what,
                       c->num_experts_per_tok, c->num_experts);
    }
    return lb_decoder_traits(c)->positions ? LB_OK : check_rope(c, what, detail);
}

/* ---- what GGUF files say ---- */

/* Whether every n-th layer, and no other, is out of the set (pattern 0: none is in it). */
static bool follows(const struct lb_config *c, const struct lb_layer_set *set, int64_t pattern, bool inside) {
    for (int64_t l = 0; l < c->num_hidden_layers; l++) {
        bool nth = pattern > 0 && (l + 1) % pattern == 0;
        if (lb_layer_has(set, l) != (inside ? nth : pattern > 0 && !nth)) {
            return false;
        }
    }
    return true;
}

static enum lb_status no_word(const char *what, struct lb_detail *detail, const char *for_what) {
    return lb_fail(detail, LB_E_UNSUPPORTED, "%s: GGUF has no word for %s of this architecture", what,
                   for_what);
}

/* llama.cpp knows the windows of some architectures, with a pattern of its own; others lose what lies beyond
 * the window. */
static enum lb_status windows_for_gguf(struct lb_config *c, const struct lb_family *family, const char *what,
                                       struct lb_detail *detail) {
    if (!lb_decoder_traits(c)->gguf_windows) {
        c->max_position_embeddings = c->sliding_window > 0 ? c->sliding_window : c->max_position_embeddings;
        c->sliding_window = 0;
        return LB_OK;
    }
    if (c->sliding_window == 0 && c->rope_local_theta == 0) {
        c->sliding_window = c->max_position_embeddings;
        return LB_OK;
    }
    return c->sliding_window > 0 && follows(c, &c->sliding, family->form.missing.window_pattern, false)
               ? LB_OK
               : no_word(what, detail, "these layer_types");
}

static enum lb_status rope_for_gguf(const struct lb_config *c, const struct lb_family *family,
                                    const char *what, struct lb_detail *detail) {
    const struct lb_rope_scaling *r = &c->rope;
    bool two = r->type == LB_ROPE_LONGROPE &&
               memcmp(r->long_factor, r->short_factor, (size_t)r->n_factors * sizeof *r->long_factor) != 0;
    if (r->type == LB_ROPE_DYNAMIC) {
        return no_word(what, detail, "rope_type dynamic");
    }
    if (r->type == LB_ROPE_YARN && r->untruncated) {
        return no_word(what, detail, "yarn without truncate");
    }
    if ((two && !lb_decoder_traits(c)->gguf_longrope) ||
        (r->type > LB_ROPE_LINEAR && c->rope_local_theta > 0)) {
        return no_word(what, detail, "this kind of scaled rotary positions");
    }
    if (!follows(c, &c->no_rope, family->form.missing.rope_pattern, true)) {
        return no_word(what, detail, "these no_rope_layers");
    }
    return LB_OK;
}

enum lb_status lb_decoder_for_gguf(struct lb_config *c, const char *what, struct lb_detail *detail) {
    const struct lb_family *family = lb_family_find(c->model_type);
    enum lb_status status = windows_for_gguf(c, family, what, detail);
    status = status == LB_OK ? rope_for_gguf(c, family, what, detail) : status;
    if (status == LB_OK && c->attention_softcap == 0 && family->form.missing.attention_softcap > 0) {
        status = no_word(what, detail, "scores without a soft-cap");
    }
    if (status == LB_OK && c->logit_softcap == 0 && family->form.missing.logit_softcap > 0) {
        status = no_word(what, detail, "logits without a soft-cap");
    }
    if (status == LB_OK && lb_decoder_traits(c)->gguf_all_heads &&
        c->num_key_value_heads != c->num_attention_heads) {
        status = no_word(what, detail, "fewer num_key_value_heads than num_attention_heads");
    }
    struct lb_config told = *c;
    told.norm_topk_prob = family->form.missing.norm_topk_prob;
    if (family->form.settle_gguf != NULL) {
        family->form.settle_gguf(&told);
    }
    if (status == LB_OK && told.norm_topk_prob != c->norm_topk_prob) {
        status = no_word(what, detail, c->norm_topk_prob ? "norm_topk_prob" : "norm_topk_prob false");
    }
    if (status == LB_OK && c->query_pre_attn_scalar > 0) {
        if (told.query_pre_attn_scalar != c->query_pre_attn_scalar) {
            status = lb_fail(detail, LB_E_UNSUPPORTED,
                             "%s: query_pre_attn_scalar is %" PRId64 "; a GGUF of these sizes means %" PRId64,
                             what, c->query_pre_attn_scalar, told.query_pre_attn_scalar);
        }
    }
    return status;
}
