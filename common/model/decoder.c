/* The forward of the config-driven decoder: blocks of attention and a feed-forward, as in llama and what came
 * before and after it.
 *
 * Radford et al. 2019 (GPT-2), Touvron et al. 2023 (LLaMA), Su et al. 2021 (RoPE), Shazeer 2020 (SwiGLU),
 * Ainslie et al. 2023 (grouped queries), Gemma Team 2024 (soft-caps), Henry et al. 2020 (norms of q and k),
 * Shazeer et al. 2017 (mixtures of experts).
 */
#include "common/formats/rope_scaling.h"
#include "common/model/decoder.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* One forward. */
struct pass {
    const struct lb_config *c;
    const struct lb_decoder_traits *t;
    struct lb_tape *tape;
    const int32_t *positions;                      /* [N] */
    const struct lb_rope_table *rope, *rope_local; /* of layers that see all, of those with a window */
    struct lb_attention_args args;
    struct lb_tap *taps;
    size_t n_taps;
};

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

/* Where frequencies depend on a sequence's length: a set for each sequence. */
static const struct lb_rope_table *table_by_length(const struct pass *p, const struct lb_ragged *ragged,
                                                   struct lb_rope_args args) {
    int64_t half = args.dims / 2;
    double *frequency = lb_tape_bytes(p->tape, (size_t)(ragged->n_seqs * half) * sizeof *frequency);
    int32_t *set = lb_tape_bytes(p->tape, (size_t)args.n * sizeof *set);
    if (frequency == NULL || set == NULL) {
        return NULL;
    }
    for (int64_t s = 0; s < ragged->n_seqs; s++) {
        int32_t end = ragged->offsets[s + 1];
        int64_t length = end > ragged->offsets[s] ? p->positions[end - 1] + 1 : 0;
        lb_rope_scaled(p->c, length, frequency + s * half);
        for (int32_t i = ragged->offsets[s]; i < end; i++) {
            set[i] = (int32_t)s;
        }
    }
    args.frequency = frequency;
    args.set = set;
    return lb_rope_table(p->tape, &args);
}

/* The tables of angles; false when tape memory runs out. */
static bool make_tables(struct pass *p, const struct lb_ragged *ragged) {
    double frequency[LB_MAX_HEAD_DIM / 2];
    struct lb_rope_args args = {.positions = p->positions,
                                .n = ragged->offsets[ragged->n_seqs],
                                .dims = lb_rope_dims(p->c),
                                .frequency = frequency,
                                .factor = (float)lb_rope_attention_factor(p->c)};
    if (p->t->positions) {
        return true;
    }
    if (lb_rope_by_length(p->c)) {
        p->rope = table_by_length(p, ragged, args);
    } else {
        lb_rope_scaled(p->c, 0, frequency);
        p->rope = lb_rope_table(p->tape, &args);
    }
    p->rope_local = p->rope;
    if (p->c->rope_local_theta > 0) { /* never scaled */
        lb_rope_frequencies((double)(float)p->c->rope_local_theta, args.dims, frequency);
        args.factor = 1;
        p->rope_local = lb_rope_table(p->tape, &args);
    }
    return p->rope != NULL && p->rope_local != NULL;
}

static float score_scale(const struct lb_config *c) {
    if (c->attention_multiplier > 0) {
        return (float)c->attention_multiplier;
    }
    int64_t scalar = c->query_pre_attn_scalar > 0 ? c->query_pre_attn_scalar : c->head_dim;
    return 1.0f / sqrtf((float)scalar);
}

static struct lb_value *norm(const struct pass *p, const struct lb_decoder_layer *w, enum lb_role role,
                             struct lb_value *x) {
    float eps = (float)p->c->norm_eps;
    if (p->t->layer_norm) {
        return lb_layernorm(p->tape, x, w->weight[role], w->bias[role], eps);
    }
    return p->t->one_plus ? lb_rmsnorm_one(p->tape, x, w->weight[role], eps)
                          : lb_rmsnorm(p->tape, x, w->weight[role], eps);
}

static struct lb_value *linear(const struct pass *p, const struct lb_decoder_layer *w, enum lb_role role,
                               struct lb_value *x) {
    return lb_linear(p->tape, x, w->weight[role], w->bias[role]);
}

/* The products of several roles, one after the other, with the same x. */
static void linears(const struct pass *p, const struct lb_decoder_layer *w, const enum lb_role *roles, int n,
                    struct lb_value *x, struct lb_value *out[]) {
    const struct lb_weight *weights[3], *biases[3];
    assert(n <= 3);
    for (int i = 0; i < n; i++) {
        weights[i] = w->weight[roles[i]];
        biases[i] = w->bias[roles[i]];
    }
    (void)lb_linears(p->tape, x, n, weights, biases, out);
}

/* q, k and v of a block's input. */
static void project(const struct pass *p, const struct lb_decoder_layer *w, struct lb_value *h,
                    struct lb_value *qkv[3]) {
    int64_t d = p->c->head_dim, qw = p->args.heads * d, kw = p->args.kv_heads * d;
    if (p->t->qkv == LB_QKV_APART) {
        linears(p, w, (const enum lb_role[]){LB_ROLE_Q, LB_ROLE_K, LB_ROLE_V}, 3, h, qkv);
        return;
    }
    struct lb_value *all = linear(p, w, LB_ROLE_QKV, h);
    for (int i = 0; i < 3; i++) {
        int64_t first = i == 0 ? 0 : qw + (i - 1) * kw;
        qkv[i] = p->t->qkv == LB_QKV_BY_HEAD ? lb_columns(p->tape, all, p->args.heads, i * d, d)
                                             : lb_columns(p->tape, all, 1, first, i == 0 ? qw : kw);
    }
}

static struct lb_value *attend(struct pass *p, const struct lb_decoder_layer *w, int layer,
                               struct lb_value *x, struct lb_value **out_probs) {
    struct lb_value *h = p->t->norms != LB_NORM_AFTER ? norm(p, w, LB_ROLE_ATTN_NORM, x) : x, *qkv[3];
    bool sliding = p->c->sliding_window > 0 && lb_layer_has(&p->c->sliding, layer);
    project(p, w, h, qkv);
    for (int i = 0; i < 3; i++) {
        lb_tap_offer(p->tape, p->taps, p->n_taps, (enum lb_tap_kind)(LB_TAP_QUERIES + i), layer, qkv[i]);
    }
    for (int i = 0; i < 2; i++) { /* positions turn what a loss reads in place: it gets one of its own */
        bool read = lb_tap_wanted(p->taps, p->n_taps, (enum lb_tap_kind)(LB_TAP_QUERIES + i), layer);
        if (read && qkv[i] != NULL && lb_tape_records(p->tape)) {
            qkv[i] = lb_columns(p->tape, qkv[i], 1, 0, qkv[i]->cols);
        }
    }
    if (p->t->qk_norm != LB_QK_NORM_NONE) {
        qkv[0] = norm(p, w, LB_ROLE_Q_NORM, qkv[0]);
        qkv[1] = norm(p, w, LB_ROLE_K_NORM, qkv[1]);
    }
    if (!p->t->positions && !lb_layer_has(&p->c->no_rope, layer)) {
        const struct lb_rope_table *table = sliding ? p->rope_local : p->rope;
        qkv[0] = lb_rope(p->tape, qkv[0], p->args.heads, table);
        qkv[1] = lb_rope(p->tape, qkv[1], p->args.kv_heads, table);
    }
    p->args.window = sliding ? (int)p->c->sliding_window : 0;
    h = lb_attention(p->tape, qkv[0], qkv[1], qkv[2], &p->args, out_probs);
    lb_tap_offer(p->tape, p->taps, p->n_taps, LB_TAP_HEADS, layer, h);
    h = linear(p, w, LB_ROLE_O, h);
    return p->t->norms != LB_NORM_BEFORE ? norm(p, w, LB_ROLE_ATTN_POST_NORM, h) : h;
}

static struct lb_value *ask_experts(const struct pass *p, const struct lb_decoder_layer *w,
                                    struct lb_value *h) {
    const struct lb_experts_args args = {.gate = w->weight[LB_ROLE_EXPERT_GATE],
                                         .up = w->weight[LB_ROLE_EXPERT_UP],
                                         .down = w->weight[LB_ROLE_EXPERT_DOWN],
                                         .asked = p->c->num_experts_per_tok,
                                         .normalise = p->c->norm_topk_prob};
    return lb_experts(p->tape, h, linear(p, w, LB_ROLE_ROUTER, h), &args);
}

static struct lb_value *transform(const struct pass *p, const struct lb_decoder_layer *w, int layer,
                                  struct lb_value *h) {
    struct lb_value *gate, *up, *both[2];
    int64_t f = p->c->intermediate_size;
    switch (p->t->mlp) {
    case LB_MLP_SWIGLU:
    case LB_MLP_GEGLU:
        linears(p, w, (const enum lb_role[]){LB_ROLE_GATE, LB_ROLE_UP}, 2, h, both);
        h = p->t->mlp == LB_MLP_GEGLU ? lb_geglu(p->tape, both[0], both[1])
                                      : lb_swiglu(p->tape, both[0], both[1]);
        break;
    case LB_MLP_SWIGLU_JOINED:
        up = linear(p, w, LB_ROLE_UP, h);
        gate = lb_columns(p->tape, up, 1, 0, f);
        h = lb_swiglu(p->tape, gate, lb_columns(p->tape, up, 1, f, f));
        break;
    case LB_MLP_GELU:
    case LB_MLP_GELU_TANH:
        h = lb_gelu(p->tape, linear(p, w, LB_ROLE_UP, h), p->t->mlp == LB_MLP_GELU_TANH);
        break;
    case LB_MLP_EXPERTS:
        return ask_experts(p, w, h);
    }
    lb_tap_offer(p->tape, p->taps, p->n_taps, LB_TAP_NEURONS, layer, h);
    return linear(p, w, LB_ROLE_DOWN, h);
}

static struct lb_value *feed_forward(const struct pass *p, const struct lb_decoder_layer *w, int layer,
                                     struct lb_value *x) {
    struct lb_value *h = p->t->norms != LB_NORM_AFTER ? norm(p, w, LB_ROLE_MLP_NORM, x) : x;
    h = transform(p, w, layer, h);
    return p->t->norms != LB_NORM_BEFORE ? norm(p, w, LB_ROLE_MLP_POST_NORM, h) : h;
}

/* What the residual stream gets of a block's output. */
static struct lb_value *add_to_stream(const struct pass *p, struct lb_value *x, struct lb_value *h) {
    double factor = p->c->residual_multiplier;
    h = lb_dropout(p->tape, h, (float)p->c->residual_dropout);
    return lb_add(p->tape, x, factor > 0 ? lb_scale(p->tape, h, (float)factor) : h);
}

static struct lb_value *embed(const struct pass *p, const struct lb_decoder *d, const struct lb_input *in) {
    int64_t n = in->ragged.offsets[in->ragged.n_seqs];
    struct lb_value *x = lb_embedding(p->tape, d->top.weight[LB_ROLE_EMBED], in->ids, n);
    if (p->t->scaled_embed) {
        x = lb_scale(p->tape, x, (float)sqrt((double)p->c->hidden_size));
    }
    if (p->c->embedding_multiplier > 0) {
        x = lb_scale(p->tape, x, (float)p->c->embedding_multiplier);
    }
    if (p->t->positions) {
        x = lb_add(p->tape, x, lb_embedding(p->tape, d->top.weight[LB_ROLE_POSITIONS], p->positions, n));
    }
    return lb_dropout(p->tape, x, (float)p->c->embedding_dropout);
}

/* One layer; *out_probs where they are wanted. */
static struct lb_value *block(struct pass *p, const struct lb_decoder_layer *w, int layer, struct lb_value *x,
                              struct lb_value **out_probs) {
    struct lb_value *a = attend(p, w, layer, x, out_probs);
    if (p->c->use_parallel_residual) {
        struct lb_value *m = feed_forward(p, w, layer, x);
        return add_to_stream(p, add_to_stream(p, x, a), m);
    }
    x = add_to_stream(p, x, a);
    return add_to_stream(p, x, feed_forward(p, w, layer, x));
}

struct lb_value *lb_decoder_forward(const struct lb_model *model, struct lb_tape *tape,
                                    const struct lb_input *in, struct lb_tap *taps, size_t n_taps,
                                    struct lb_kv *kv) {
    const struct lb_config *c = &model->config;
    const struct lb_decoder *d = model->bound;
    assert(kv == NULL || kv->n_seqs == in->ragged.n_seqs);
    struct pass p = {.c = c,
                     .t = lb_decoder_traits(c),
                     .tape = tape,
                     .taps = taps,
                     .n_taps = n_taps,
                     .positions = positions(tape, &in->ragged, kv),
                     .args = {.heads = (int)c->num_attention_heads,
                              .kv_heads = (int)c->num_key_value_heads,
                              .head_dim = (int)c->head_dim,
                              .scale = score_scale(c),
                              .softcap = (float)c->attention_softcap,
                              .dropout = (float)c->attention_dropout,
                              .kv_places = kv != NULL ? kv->places : NULL}};
    bool ready = p.positions != NULL && make_tables(&p, &in->ragged);
    struct lb_value *x = ready ? embed(&p, d, in) : NULL;
    lb_tap_offer(tape, taps, n_taps, LB_TAP_HIDDEN, 0, x);
    for (int l = 0; l < c->num_hidden_layers && x != NULL; l++) {
        struct lb_arena_mark mark = lb_tape_mark(tape);
        struct lb_value *probs = NULL;
        p.args.want_probs = lb_tap_wanted(taps, n_taps, LB_TAP_ATTENTION, l);
        p.args.kv = kv != NULL ? &kv->layers[l] : NULL;
        x = block(&p, &d->layers[l], l, x, &probs);
        lb_tap_offer(tape, taps, n_taps, LB_TAP_ATTENTION, l, probs);
        lb_tape_release(tape, mark);
        lb_tap_offer(tape, taps, n_taps, LB_TAP_STREAM, l, x);
        if (l + 1 < c->num_hidden_layers) {
            lb_tap_offer(tape, taps, n_taps, LB_TAP_HIDDEN, l + 1, x);
        }
    }
    x = norm(&p, &d->top, LB_ROLE_NORM, x);
    lb_tap_offer(tape, taps, n_taps, LB_TAP_HIDDEN, (int)c->num_hidden_layers, x);
    for (int64_t s = 0; kv != NULL && x != NULL && s < kv->n_seqs; s++) {
        kv->places[s].length += in->ragged.offsets[s + 1] - in->ragged.offsets[s];
    }
    return x;
}
