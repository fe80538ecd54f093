/* The forward of the encoder (Devlin et al. 2019, BERT; Liu et al. 2019, RoBERTa; Sanh et al. 2019,
 * DistilBERT): learned positions, attention both ways, norms behind the residual sums. */
#include "common/model/encoder.h"

#include "common/base/mem.h"
#include "common/nn/ops.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- parameters ---- */

struct encoder_layer {
    const struct lb_weight *weight[LB_N_ENCODER_ROLES], *bias[LB_N_ENCODER_ROLES]; /* NULL: none */
};
struct encoder {
    struct encoder_layer top; /* what no layer has */
    struct encoder_layer layers[];
};

static const struct lb_encoder_traits *traits_of(const struct lb_config *c) {
    return lb_family_find(c->model_type)->encoder;
}

static void pattern_of(const struct lb_encoder_traits *t, enum lb_encoder_role role, const char *suffix,
                       char name[LB_WEIGHT_NAME], char gguf[LB_WEIGHT_NAME]) {
    snprintf(name, LB_WEIGHT_NAME, "%s%s", t->names[role], suffix);
    snprintf(gguf, LB_WEIGHT_NAME, "%s%s", t->gguf != NULL ? t->gguf[role] : "",
             t->gguf != NULL ? suffix : "");
}

static void add(const struct lb_config *c, struct lb_spec_list *list, enum lb_encoder_role role, int layer,
                int64_t rows, int64_t cols, enum lb_init init) {
    char name[LB_WEIGHT_NAME], gguf[LB_WEIGHT_NAME];
    bool norm = init == LB_INIT_ONES;
    pattern_of(traits_of(c), role, ".weight", name, gguf);
    lb_spec_add(list, name, gguf, layer, norm ? 1 : rows, cols, norm ? 1 : 2, init);
    if (role < LB_ENCODER_NORM) {
        if (list->status == LB_OK) { /* llama.cpp adds them as they are, but for words */
            list->items[list->n - 1].exact = role != LB_ENCODER_WORDS;
        }
        return;
    }
    pattern_of(traits_of(c), role, ".bias", name, gguf);
    lb_spec_add(list, name, gguf, layer, 1, norm ? cols : rows, 1, LB_INIT_ZEROS);
}

void lb_encoder_declare(const struct lb_config *c, struct lb_spec_list *list) {
    int64_t w = c->hidden_size, f = c->intermediate_size;
    int64_t positions = c->position_rows > 0 ? c->position_rows : c->max_position_embeddings;
    add(c, list, LB_ENCODER_WORDS, 0, c->vocab_size, w, LB_INIT_NORMAL);
    add(c, list, LB_ENCODER_POSITIONS, 0, positions, w, LB_INIT_NORMAL);
    if (c->type_vocab_size > 0) {
        add(c, list, LB_ENCODER_TYPES, 0, c->type_vocab_size, w, LB_INIT_NORMAL);
    }
    add(c, list, LB_ENCODER_NORM, 0, 1, w, LB_INIT_ONES);
    for (int l = 0; l < c->num_hidden_layers; l++) {
        add(c, list, LB_ENCODER_Q, l, w, w, LB_INIT_NORMAL);
        add(c, list, LB_ENCODER_K, l, w, w, LB_INIT_NORMAL);
        add(c, list, LB_ENCODER_V, l, w, w, LB_INIT_NORMAL);
        add(c, list, LB_ENCODER_O, l, w, w, LB_INIT_NORMAL);
        add(c, list, LB_ENCODER_ATTN_NORM, l, 1, w, LB_INIT_ONES);
        add(c, list, LB_ENCODER_UP, l, f, w, LB_INIT_NORMAL);
        add(c, list, LB_ENCODER_DOWN, l, w, f, LB_INIT_NORMAL);
        add(c, list, LB_ENCODER_MLP_NORM, l, 1, w, LB_INIT_ONES);
    }
}

const char *lb_encoder_head(const struct lb_config *c) {
    (void)c;
    return NULL;
}

static const struct lb_weight *find(const struct lb_model *model, const char *pattern, int layer,
                                    const char *suffix) {
    char with_suffix[LB_WEIGHT_NAME], name[LB_WEIGHT_NAME];
    if (pattern == NULL) {
        return NULL;
    }
    snprintf(with_suffix, sizeof with_suffix, "%s%s", pattern, suffix);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(name, sizeof name, with_suffix, layer); /* patterns of our own tables */
#pragma GCC diagnostic pop
    return lb_model_weight(model, name);
}

static void bind_roles(const struct lb_model *model, int layer, int from, int to, struct encoder_layer *out) {
    for (int role = from; role < to; role++) {
        const char *pattern = traits_of(&model->config)->names[role];
        out->weight[role] = find(model, pattern, layer, ".weight");
        out->bias[role] = find(model, pattern, layer, ".bias");
    }
}

void *lb_encoder_bind(const struct lb_model *model) {
    int64_t n = model->config.num_hidden_layers;
    struct encoder *e = lb_calloc(1, sizeof *e + (size_t)n * sizeof e->layers[0]);
    if (e == NULL) {
        return NULL;
    }
    bind_roles(model, 0, 0, LB_ENCODER_Q, &e->top);
    for (int l = 0; l < n; l++) {
        bind_roles(model, l, LB_ENCODER_Q, LB_N_ENCODER_ROLES, &e->layers[l]);
    }
    return e;
}

/* ---- forward ---- */

/* One forward. */
struct pass {
    const struct lb_config *c;
    struct lb_tape *tape;
    struct lb_attention_args args;
    struct lb_tap *taps;
    size_t n_taps;
};

static struct lb_value *linear(const struct pass *p, const struct encoder_layer *w, enum lb_encoder_role role,
                               struct lb_value *x) {
    return lb_linear(p->tape, x, w->weight[role], w->bias[role]);
}

static struct lb_value *norm(const struct pass *p, const struct encoder_layer *w, enum lb_encoder_role role,
                             struct lb_value *x) {
    return lb_layernorm(p->tape, x, w->weight[role], w->bias[role], (float)p->c->norm_eps);
}

/* Of embeddings and of what blocks add to the stream. */
static struct lb_value *drop(const struct pass *p, struct lb_value *x) {
    return lb_dropout(p->tape, x, (float)p->c->residual_dropout);
}

/* The rows of learned positions of all ids. */
static const int32_t *positions(const struct pass *p, const struct lb_input *in) {
    bool behind_pad = traits_of(p->c)->behind_pad;
    int32_t pad = (int32_t)p->c->pad_token_id, *out;
    out = lb_tape_bytes(p->tape, (size_t)in->ragged.offsets[in->ragged.n_seqs] * sizeof *out);
    for (int64_t s = 0; out != NULL && s < in->ragged.n_seqs; s++) {
        int32_t next = behind_pad ? pad + 1 : 0;
        for (int32_t i = in->ragged.offsets[s]; i < in->ragged.offsets[s + 1]; i++) {
            out[i] = behind_pad && in->ids[i] == pad ? pad : next++;
        }
    }
    return out;
}

static struct lb_value *embed(const struct pass *p, const struct encoder *e, const struct lb_input *in) {
    int64_t n = in->ragged.offsets[in->ragged.n_seqs];
    const int32_t *at = positions(p, in);
    struct lb_value *x =
        at != NULL ? lb_embedding(p->tape, e->top.weight[LB_ENCODER_WORDS], in->ids, n) : NULL;
    if (x != NULL && e->top.weight[LB_ENCODER_TYPES] != NULL) { /* all text is of the first segment */
        int32_t *first = lb_tape_bytes(p->tape, (size_t)n * sizeof *first);
        if (first == NULL) {
            return NULL;
        }
        memset(first, 0, (size_t)n * sizeof *first);
        x = lb_add(p->tape, x, lb_embedding(p->tape, e->top.weight[LB_ENCODER_TYPES], first, n));
    }
    if (x != NULL) {
        x = lb_add(p->tape, x, lb_embedding(p->tape, e->top.weight[LB_ENCODER_POSITIONS], at, n));
    }
    return drop(p, norm(p, &e->top, LB_ENCODER_NORM, x));
}

/* One layer; *out_probs where they are wanted. */
static struct lb_value *block(const struct pass *p, const struct encoder_layer *w, int layer,
                              struct lb_value *x, struct lb_value **out_probs) {
    struct lb_value *qkv[3];
    (void)lb_linears(p->tape, x, 3, w->weight + LB_ENCODER_Q, w->bias + LB_ENCODER_Q, qkv);
    for (int i = 0; i < 3; i++) {
        lb_tap_offer(p->tape, p->taps, p->n_taps, (enum lb_tap_kind)(LB_TAP_QUERIES + i), layer, qkv[i]);
    }
    struct lb_value *h =
        linear(p, w, LB_ENCODER_O, lb_attention(p->tape, qkv[0], qkv[1], qkv[2], &p->args, out_probs));
    h = traits_of(p->c)->keeps_attended ? h : drop(p, h);
    x = norm(p, w, LB_ENCODER_ATTN_NORM, lb_add(p->tape, h, x));
    h = linear(p, w, LB_ENCODER_DOWN, lb_gelu(p->tape, linear(p, w, LB_ENCODER_UP, x), false));
    return norm(p, w, LB_ENCODER_MLP_NORM, lb_add(p->tape, drop(p, h), x));
}

/* Of a block's output y what outlives the block: in plain mode its numbers go where its input x stood. */
static struct lb_value *carry(struct lb_tape *tape, struct lb_value *x, struct lb_value *y) {
    if (y == NULL || lb_tape_records(tape)) {
        return y;
    }
    lb_copy_floats(x->data, y->data, y->rows * y->cols);
    return x;
}

struct lb_value *lb_encoder_forward(const struct lb_model *model, struct lb_tape *tape,
                                    const struct lb_input *in, struct lb_tap *taps, size_t n_taps,
                                    struct lb_kv *kv) {
    const struct lb_config *c = &model->config;
    const struct encoder *e = model->bound;
    struct pass p = {.c = c,
                     .tape = tape,
                     .taps = taps,
                     .n_taps = n_taps,
                     .args = {.heads = (int)c->num_attention_heads,
                              .kv_heads = (int)c->num_attention_heads,
                              .head_dim = (int)c->head_dim,
                              .scale = 1.0f / sqrtf((float)c->head_dim),
                              .dropout = (float)c->attention_dropout,
                              .both_ways = true}};
    assert(kv == NULL); /* what comes later changes what came before */
    (void)kv;
    struct lb_value *x = embed(&p, e, in);
    lb_tap_offer(tape, taps, n_taps, LB_TAP_HIDDEN, 0, x);
    for (int l = 0; l < c->num_hidden_layers && x != NULL; l++) {
        struct lb_arena_mark mark = lb_tape_mark(tape);
        struct lb_value *probs = NULL;
        p.args.want_probs = lb_tap_wanted(taps, n_taps, LB_TAP_ATTENTION, l);
        x = carry(tape, x, block(&p, &e->layers[l], l, x, &probs));
        lb_tap_offer(tape, taps, n_taps, LB_TAP_ATTENTION, l, probs);
        lb_tap_offer(tape, taps, n_taps, LB_TAP_STREAM, l, x);
        lb_tap_offer(tape, taps, n_taps, LB_TAP_HIDDEN, l + 1, x);
        lb_tape_release(tape, mark);
    }
    return x;
}

/* ---- configs ---- */

void lb_encoder_settle(struct lb_config *c) {
    c->num_key_value_heads = c->num_attention_heads;
    if (c->num_attention_heads > 0) {
        c->head_dim = c->hidden_size / c->num_attention_heads;
        c->head_dim_rounded = c->hidden_size % c->num_attention_heads != 0;
    }
    if (traits_of(c)->behind_pad) {
        c->max_position_embeddings = c->position_rows - c->pad_token_id - 1;
    }
}

enum lb_status lb_encoder_check(const struct lb_config *c, const char *what, struct lb_detail *detail) {
    if (c->head_dim_rounded) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: width %" PRId64 " is no multiple of its %" PRId64 " attention heads", what,
                       c->hidden_size, c->num_attention_heads);
    }
    if (c->head_dim > LB_MAX_HEAD_DIM) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s: heads of %" PRId64 " are not supported, at most %d",
                       what, c->head_dim, LB_MAX_HEAD_DIM);
    }
    if (traits_of(c)->behind_pad && (c->pad_token_id < 0 || c->max_position_embeddings < 1)) {
        return lb_fail(detail, LB_E_ARG,
                       "%s: pad_token_id %" PRId64 " does not fit %" PRId64
                       " positions: %s counts positions from the one behind it",
                       what, c->pad_token_id, c->position_rows, c->model_type);
    }
    return LB_OK;
}
