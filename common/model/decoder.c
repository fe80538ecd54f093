/* The forward of the config-driven decoder: pre-norm blocks of attention with rotary positions and a gated
 * feed-forward, as in llama.
 *
 * Touvron et al. 2023 (LLaMA), Su et al. 2021 (RoPE), Shazeer 2020 (SwiGLU), Ainslie et al. 2023 (grouped
 * queries).
 */
#include "common/base/mem.h"
#include "common/model/decoder.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>

struct layer {
    const struct lb_weight *attn_norm, *q, *k, *v, *o, *mlp_norm, *gate, *up, *down;
    const struct lb_weight *q_bias, *k_bias, *v_bias, *o_bias, *gate_bias, *up_bias,
        *down_bias; /* NULL: none */
};

struct decoder {
    const struct lb_weight *embed, *norm;
    struct layer layers[];
};

/* The weight declared last has rows that rotary positions turn; llama.cpp keeps some families' in another
 * order. */
static void with_rope(struct lb_spec_list *list, int64_t heads) {
    if (list->status == LB_OK) {
        list->items[list->n - 1].rope_heads = heads;
    }
}

void lb_decoder_declare(const struct lb_config *c, struct lb_spec_list *list) {
    int64_t w = c->hidden_size, f = c->intermediate_size;
    int64_t qw = c->num_attention_heads * c->head_dim, kw = c->num_key_value_heads * c->head_dim;
    lb_spec_add(list, "model.embed_tokens.weight", "token_embd.weight", 0, c->vocab_size, w, 2,
                LB_INIT_NORMAL);
    for (int l = 0; l < c->num_hidden_layers; l++) {
#define ADD(name, gguf, rows, cols, dims, init)                                                              \
    lb_spec_add(list, "model.layers.%d." name, "blk.%d." gguf, l, rows, cols, dims, init)
        ADD("input_layernorm.weight", "attn_norm.weight", 1, w, 1, LB_INIT_ONES);
        ADD("self_attn.q_proj.weight", "attn_q.weight", qw, w, 2, LB_INIT_NORMAL);
        with_rope(list, c->num_attention_heads);
        ADD("self_attn.k_proj.weight", "attn_k.weight", kw, w, 2, LB_INIT_NORMAL);
        with_rope(list, c->num_key_value_heads);
        ADD("self_attn.v_proj.weight", "attn_v.weight", kw, w, 2, LB_INIT_NORMAL);
        ADD("self_attn.o_proj.weight", "attn_output.weight", w, qw, 2, LB_INIT_RESIDUAL);
        if (c->attention_bias || c->qkv_bias) {
            ADD("self_attn.q_proj.bias", "attn_q.bias", 1, qw, 1, LB_INIT_ZEROS);
            with_rope(list, c->num_attention_heads);
            ADD("self_attn.k_proj.bias", "attn_k.bias", 1, kw, 1, LB_INIT_ZEROS);
            with_rope(list, c->num_key_value_heads);
            ADD("self_attn.v_proj.bias", "attn_v.bias", 1, kw, 1, LB_INIT_ZEROS);
        }
        if (c->attention_bias) {
            ADD("self_attn.o_proj.bias", "attn_output.bias", 1, w, 1, LB_INIT_ZEROS);
        }
        ADD("post_attention_layernorm.weight", "ffn_norm.weight", 1, w, 1, LB_INIT_ONES);
        ADD("mlp.gate_proj.weight", "ffn_gate.weight", f, w, 2, LB_INIT_NORMAL);
        ADD("mlp.up_proj.weight", "ffn_up.weight", f, w, 2, LB_INIT_NORMAL);
        ADD("mlp.down_proj.weight", "ffn_down.weight", w, f, 2, LB_INIT_RESIDUAL);
        if (c->mlp_bias) {
            ADD("mlp.gate_proj.bias", "ffn_gate.bias", 1, f, 1, LB_INIT_ZEROS);
            ADD("mlp.up_proj.bias", "ffn_up.bias", 1, f, 1, LB_INIT_ZEROS);
            ADD("mlp.down_proj.bias", "ffn_down.bias", 1, w, 1, LB_INIT_ZEROS);
        }
#undef ADD
    }
    lb_spec_add(list, "model.norm.weight", "output_norm.weight", 0, 1, w, 1, LB_INIT_ONES);
    if (!c->tie_word_embeddings) {
        lb_spec_add(list, "lm_head.weight", "output.weight", 0, c->vocab_size, w, 2, LB_INIT_NORMAL);
    }
}

static const struct lb_weight *of_layer(const struct lb_model *model, int64_t layer, const char *name) {
    char full[LB_WEIGHT_NAME];
    snprintf(full, sizeof full, "model.layers.%lld.%s", (long long)layer, name);
    return lb_model_weight(model, full);
}

void *lb_decoder_bind(const struct lb_model *model) {
    int64_t n = model->config.num_hidden_layers;
    struct decoder *d = lb_calloc(1, sizeof *d + (size_t)n * sizeof d->layers[0]);
    if (d == NULL) {
        return NULL;
    }
    d->embed = lb_model_weight(model, "model.embed_tokens.weight");
    d->norm = lb_model_weight(model, "model.norm.weight");
    for (int64_t l = 0; l < n; l++) {
        d->layers[l] = (struct layer){
            .attn_norm = of_layer(model, l, "input_layernorm.weight"),
            .q = of_layer(model, l, "self_attn.q_proj.weight"),
            .k = of_layer(model, l, "self_attn.k_proj.weight"),
            .v = of_layer(model, l, "self_attn.v_proj.weight"),
            .o = of_layer(model, l, "self_attn.o_proj.weight"),
            .mlp_norm = of_layer(model, l, "post_attention_layernorm.weight"),
            .gate = of_layer(model, l, "mlp.gate_proj.weight"),
            .up = of_layer(model, l, "mlp.up_proj.weight"),
            .down = of_layer(model, l, "mlp.down_proj.weight"),
            .q_bias = of_layer(model, l, "self_attn.q_proj.bias"),
            .k_bias = of_layer(model, l, "self_attn.k_proj.bias"),
            .v_bias = of_layer(model, l, "self_attn.v_proj.bias"),
            .o_bias = of_layer(model, l, "self_attn.o_proj.bias"),
            .gate_bias = of_layer(model, l, "mlp.gate_proj.bias"),
            .up_bias = of_layer(model, l, "mlp.up_proj.bias"),
            .down_bias = of_layer(model, l, "mlp.down_proj.bias"),
        };
    }
    return d;
}

/* Positions of all rows: each sequence counts from 0, or goes on where its part of the KV cache ends. */
static const int32_t *positions(struct lb_tape *tape, const struct lb_ragged *ragged,
                                const struct lb_kv *kv) {
    int64_t n = ragged->offsets[ragged->n_seqs];
    int32_t *out = lb_tape_bytes(tape, (size_t)n * sizeof *out);
    for (int64_t s = 0; out != NULL && s < ragged->n_seqs; s++) {
        int64_t before = kv != NULL ? kv->places[s].length : 0;
        for (int32_t i = ragged->offsets[s]; i < ragged->offsets[s + 1]; i++) {
            out[i] = (int32_t)(before + i - ragged->offsets[s]);
        }
    }
    return out;
}

static struct lb_value *attend(const struct lb_config *c, const struct layer *w, struct lb_tape *tape,
                               struct lb_value *x, const int32_t *pos, struct lb_attention_args *args,
                               struct lb_value **out_probs) {
    struct lb_value *h = lb_rmsnorm(tape, x, w->attn_norm, (float)c->norm_eps);
    struct lb_value *q = lb_linear(tape, h, w->q, w->q_bias);
    struct lb_value *k = lb_linear(tape, h, w->k, w->k_bias);
    struct lb_value *v = lb_linear(tape, h, w->v, w->v_bias);
    q = lb_rope(tape, q, args->heads, pos, (float)c->rope_theta);
    k = lb_rope(tape, k, args->kv_heads, pos, (float)c->rope_theta);
    return lb_linear(tape, lb_attention(tape, q, k, v, args, out_probs), w->o, w->o_bias);
}

static struct lb_value *feed_forward(const struct lb_config *c, const struct layer *w, struct lb_tape *tape,
                                     struct lb_value *x) {
    struct lb_value *h = lb_rmsnorm(tape, x, w->mlp_norm, (float)c->norm_eps);
    struct lb_value *gate = lb_linear(tape, h, w->gate, w->gate_bias);
    struct lb_value *up = lb_linear(tape, h, w->up, w->up_bias);
    return lb_linear(tape, lb_swiglu(tape, gate, up), w->down, w->down_bias);
}

struct lb_value *lb_decoder_forward(const struct lb_model *model, struct lb_tape *tape,
                                    const struct lb_input *in, struct lb_tap *taps, size_t n_taps,
                                    struct lb_kv *kv) {
    const struct lb_config *c = &model->config;
    const struct decoder *d = model->bound;
    int64_t n = in->ragged.offsets[in->ragged.n_seqs];
    assert(kv == NULL || kv->n_seqs == in->ragged.n_seqs);
    const int32_t *pos = positions(tape, &in->ragged, kv);
    struct lb_value *x = pos != NULL ? lb_embedding(tape, d->embed, in->ids, n) : NULL;
    lb_tap_offer(tape, taps, n_taps, LB_TAP_HIDDEN, 0, x);
    struct lb_attention_args args = {.heads = (int)c->num_attention_heads,
                                     .kv_heads = (int)c->num_key_value_heads,
                                     .head_dim = (int)c->head_dim,
                                     .scale = 1.0f / sqrtf((float)c->head_dim),
                                     .kv_places = kv != NULL ? kv->places : NULL};
    for (int l = 0; l < c->num_hidden_layers && x != NULL; l++) {
        struct lb_arena_mark mark = lb_tape_mark(tape);
        struct lb_value *probs = NULL;
        args.want_probs = lb_tap_wanted(taps, n_taps, LB_TAP_ATTENTION, l);
        args.kv = kv != NULL ? &kv->layers[l] : NULL;
        x = lb_add(tape, x, attend(c, &d->layers[l], tape, x, pos, &args, &probs));
        lb_tap_offer(tape, taps, n_taps, LB_TAP_ATTENTION, l, probs);
        x = lb_add(tape, x, feed_forward(c, &d->layers[l], tape, x));
        lb_tape_release(tape, mark);
        if (l + 1 < c->num_hidden_layers) {
            lb_tap_offer(tape, taps, n_taps, LB_TAP_HIDDEN, l + 1, x);
        }
    }
    x = lb_rmsnorm(tape, x, d->norm, (float)c->norm_eps);
    lb_tap_offer(tape, taps, n_taps, LB_TAP_HIDDEN, (int)c->num_hidden_layers, x);
    for (int64_t s = 0; kv != NULL && x != NULL && s < kv->n_seqs; s++) {
        kv->places[s].length += in->ragged.offsets[s + 1] - in->ragged.offsets[s];
    }
    return x;
}

const char *lb_decoder_head(const struct lb_config *c) {
    return c->tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
}
