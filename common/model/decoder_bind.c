#include "common/model/decoder_bind.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

#define LAYER(name) ("model.layers.%d." name)
#define BLOCK(name) ("blk.%d." name)

static const struct lb_role_names llama_names = {
    .hf = {[LB_ROLE_EMBED] = "model.embed_tokens",
           [LB_ROLE_NORM] = "model.norm",
           [LB_ROLE_HEAD] = "lm_head",
           [LB_ROLE_ATTN_NORM] = LAYER("input_layernorm"),
           [LB_ROLE_QKV] = LAYER("self_attn.qkv_proj"),
           [LB_ROLE_Q] = LAYER("self_attn.q_proj"),
           [LB_ROLE_K] = LAYER("self_attn.k_proj"),
           [LB_ROLE_V] = LAYER("self_attn.v_proj"),
           [LB_ROLE_O] = LAYER("self_attn.o_proj"),
           [LB_ROLE_Q_NORM] = LAYER("self_attn.q_norm"),
           [LB_ROLE_K_NORM] = LAYER("self_attn.k_norm"),
           [LB_ROLE_ATTN_POST_NORM] = LAYER("post_attention_layernorm"),
           [LB_ROLE_MLP_NORM] = LAYER("post_attention_layernorm"),
           [LB_ROLE_GATE] = LAYER("mlp.gate_proj"),
           [LB_ROLE_UP] = LAYER("mlp.up_proj"),
           [LB_ROLE_DOWN] = LAYER("mlp.down_proj"),
           [LB_ROLE_ROUTER] = LAYER("mlp.gate"),
           [LB_ROLE_EXPERT_GATE] = LAYER("mlp.experts.%d.gate_proj"),
           [LB_ROLE_EXPERT_UP] = LAYER("mlp.experts.%d.up_proj"),
           [LB_ROLE_EXPERT_DOWN] = LAYER("mlp.experts.%d.down_proj"),
           [LB_ROLE_MLP_POST_NORM] = LAYER("post_feedforward_layernorm")},
    .gguf = {[LB_ROLE_EMBED] = "token_embd",
             [LB_ROLE_POSITIONS] = "position_embd",
             [LB_ROLE_NORM] = "output_norm",
             [LB_ROLE_HEAD] = "output",
             [LB_ROLE_ATTN_NORM] = BLOCK("attn_norm"),
             [LB_ROLE_QKV] = BLOCK("attn_qkv"),
             [LB_ROLE_Q] = BLOCK("attn_q"),
             [LB_ROLE_K] = BLOCK("attn_k"),
             [LB_ROLE_V] = BLOCK("attn_v"),
             [LB_ROLE_O] = BLOCK("attn_output"),
             [LB_ROLE_Q_NORM] = BLOCK("attn_q_norm"),
             [LB_ROLE_K_NORM] = BLOCK("attn_k_norm"),
             [LB_ROLE_ATTN_POST_NORM] = BLOCK("post_attention_norm"),
             [LB_ROLE_MLP_NORM] = BLOCK("ffn_norm"),
             [LB_ROLE_GATE] = BLOCK("ffn_gate"),
             [LB_ROLE_UP] = BLOCK("ffn_up"),
             [LB_ROLE_DOWN] = BLOCK("ffn_down"),
             [LB_ROLE_ROUTER] = BLOCK("ffn_gate_inp"),
             [LB_ROLE_EXPERT_GATE] = BLOCK("ffn_gate_exps"),
             [LB_ROLE_EXPERT_UP] = BLOCK("ffn_up_exps"),
             [LB_ROLE_EXPERT_DOWN] = BLOCK("ffn_down_exps"),
             [LB_ROLE_MLP_POST_NORM] = BLOCK("post_ffw_norm")},
};

const struct lb_decoder_traits *lb_decoder_traits(const struct lb_config *config) {
    static const struct lb_decoder_traits plain = {0};
    const struct lb_family *family = lb_family_find(config->model_type);
    return family != NULL && family->traits != NULL ? family->traits : &plain;
}

static const char *pattern(const struct lb_decoder_traits *t, enum lb_role role, bool gguf) {
    const char *own = t->names == NULL ? NULL : gguf ? t->names->gguf[role] : t->names->hf[role];
    return own != NULL ? own : gguf ? llama_names.gguf[role] : llama_names.hf[role];
}

/* ---- declaring ---- */

/* A list that is being made: of a layer, or -1 for what no layer has. */
struct declaring {
    const struct lb_config *c;
    const struct lb_decoder_traits *t;
    struct lb_spec_list *list;
    int layer;
};

static struct lb_weight_spec *add(const struct declaring *d, enum lb_role role, const char *suffix,
                                  int64_t rows, int64_t cols, int n_dims, enum lb_init init) {
    char name[LB_WEIGHT_NAME], gguf[LB_WEIGHT_NAME];
    snprintf(name, sizeof name, "%s%s", pattern(d->t, role, false), suffix);
    snprintf(gguf, sizeof gguf, "%s%s", pattern(d->t, role, true), suffix);
    lb_spec_add(d->list, name, gguf, d->layer, rows, cols, n_dims, init);
    return d->list->status == LB_OK ? &d->list->items[d->list->n - 1] : NULL;
}

/* A matrix of a layer, or its bias. */
static void add_matrix(const struct declaring *d, enum lb_role role, int64_t rows, int64_t cols,
                       enum lb_init init) {
    struct lb_weight_spec *spec = add(d, role, ".weight", rows, cols, 2, init);
    if (spec != NULL) {
        spec->transposed = d->t->transposed;
    }
}

static void add_bias(const struct declaring *d, enum lb_role role, int64_t rows) {
    (void)add(d, role, ".bias", 1, rows, 1, LB_INIT_ZEROS);
}

static void add_norm(const struct declaring *d, enum lb_role role, int64_t width) {
    struct lb_weight_spec *spec =
        add(d, role, ".weight", 1, width, 1, d->t->one_plus ? LB_INIT_ZEROS : LB_INIT_ONES);
    if (spec != NULL) {
        spec->less_one = d->t->one_plus;
    }
    if (d->t->layer_norm) {
        add_bias(d, role, width);
    }
}

/* The one declared last has rows of heads that a GGUF has in another order: rotary positions turn them, or
 * they are each head's q, k and v. */
static void with_heads(const struct declaring *d, int64_t rope_heads, int64_t qkv_heads) {
    if (d->list->status == LB_OK) {
        d->list->items[d->list->n - 1].rope_heads = rope_heads;
        d->list->items[d->list->n - 1].qkv_heads = qkv_heads;
    }
}

static void declare_apart(const struct declaring *d, int64_t w, int64_t qw, int64_t kw) {
    const struct lb_config *c = d->c;
    add_matrix(d, LB_ROLE_Q, qw, w, LB_INIT_NORMAL);
    with_heads(d, c->num_attention_heads, 0);
    add_matrix(d, LB_ROLE_K, kw, w, LB_INIT_NORMAL);
    with_heads(d, c->num_key_value_heads, 0);
    add_matrix(d, LB_ROLE_V, kw, w, LB_INIT_NORMAL);
    add_matrix(d, LB_ROLE_O, w, qw, LB_INIT_RESIDUAL);
    if (c->attention_bias || c->qkv_bias) {
        add_bias(d, LB_ROLE_Q, qw);
        with_heads(d, c->num_attention_heads, 0);
        add_bias(d, LB_ROLE_K, kw);
        with_heads(d, c->num_key_value_heads, 0);
        add_bias(d, LB_ROLE_V, kw);
    }
}

static void declare_joined(const struct declaring *d, int64_t w, int64_t qw, int64_t kw) {
    const struct lb_config *c = d->c;
    int64_t by_head = d->t->qkv == LB_QKV_BY_HEAD ? c->num_attention_heads : 0;
    add_matrix(d, LB_ROLE_QKV, qw + 2 * kw, w, LB_INIT_NORMAL);
    with_heads(d, 0, by_head);
    add_matrix(d, LB_ROLE_O, w, qw, LB_INIT_RESIDUAL);
    if (c->attention_bias || c->qkv_bias) {
        add_bias(d, LB_ROLE_QKV, qw + 2 * kw);
        with_heads(d, 0, by_head);
    }
}

static void declare_attention(const struct declaring *d) {
    const struct lb_config *c = d->c;
    int64_t w = c->hidden_size, dim = c->head_dim;
    int64_t qw = c->num_attention_heads * dim, kw = c->num_key_value_heads * dim;
    if (d->t->norms != LB_NORM_AFTER) {
        add_norm(d, LB_ROLE_ATTN_NORM, w);
    }
    (d->t->qkv == LB_QKV_APART ? declare_apart : declare_joined)(d, w, qw, kw);
    if (c->attention_bias) {
        add_bias(d, LB_ROLE_O, w);
    }
    if (d->t->qk_norm != LB_QK_NORM_NONE) {
        bool head = d->t->qk_norm == LB_QK_NORM_HEAD;
        add_norm(d, LB_ROLE_Q_NORM, head ? dim : qw);
        add_norm(d, LB_ROLE_K_NORM, head ? dim : kw);
    }
    if (d->t->norms != LB_NORM_BEFORE) {
        add_norm(d, LB_ROLE_ATTN_POST_NORM, w);
    }
}

/* One matrix of each expert. */
static void add_experts(const struct declaring *d, enum lb_role role, int64_t rows, int64_t cols,
                        enum lb_init init) {
    for (int64_t e = 0; e < d->c->num_experts; e++) {
        d->list->expert = (int)e;
        struct lb_weight_spec *spec = add(d, role, ".weight", rows, cols, 2, init);
        if (spec != NULL) {
            spec->experts = d->c->num_experts;
            spec->expert = e;
        }
    }
}

static void declare_experts(const struct declaring *d) {
    int64_t w = d->c->hidden_size, own = d->c->moe_intermediate_size;
    int64_t f = own > 0 ? own : d->c->intermediate_size;
    struct lb_weight_spec *router =
        add(d, LB_ROLE_ROUTER, ".weight", d->c->num_experts, w, 2, LB_INIT_NORMAL);
    if (router != NULL) {
        router->exact = true;
    }
    add_experts(d, LB_ROLE_EXPERT_GATE, f, w, LB_INIT_NORMAL);
    add_experts(d, LB_ROLE_EXPERT_UP, f, w, LB_INIT_NORMAL);
    add_experts(d, LB_ROLE_EXPERT_DOWN, w, f, LB_INIT_RESIDUAL);
}

static void declare_dense(const struct declaring *d) {
    const struct lb_config *c = d->c;
    int64_t w = c->hidden_size, f = c->intermediate_size;
    bool gated = d->t->mlp == LB_MLP_SWIGLU || d->t->mlp == LB_MLP_GEGLU;
    if (gated) {
        add_matrix(d, LB_ROLE_GATE, f, w, LB_INIT_NORMAL);
    }
    int64_t up = d->t->mlp == LB_MLP_SWIGLU_JOINED ? 2 * f : f;
    add_matrix(d, LB_ROLE_UP, up, w, LB_INIT_NORMAL);
    add_matrix(d, LB_ROLE_DOWN, w, f, LB_INIT_RESIDUAL);
    if (c->mlp_bias && gated) {
        add_bias(d, LB_ROLE_GATE, f);
    }
    if (c->mlp_bias) {
        add_bias(d, LB_ROLE_UP, up);
        add_bias(d, LB_ROLE_DOWN, w);
    }
}

static void declare_mlp(const struct declaring *d) {
    if (d->t->norms != LB_NORM_AFTER) {
        add_norm(d, LB_ROLE_MLP_NORM, d->c->hidden_size);
    }
    (d->t->mlp == LB_MLP_EXPERTS ? declare_experts : declare_dense)(d);
    if (d->t->norms != LB_NORM_BEFORE) {
        add_norm(d, LB_ROLE_MLP_POST_NORM, d->c->hidden_size);
    }
}

void lb_decoder_declare(const struct lb_config *c, struct lb_spec_list *list) {
    struct declaring d = {c, lb_decoder_traits(c), list, 0};
    (void)add(&d, LB_ROLE_EMBED, ".weight", c->vocab_size, c->hidden_size, 2, LB_INIT_NORMAL);
    if (d.t->positions) {
        (void)add(&d, LB_ROLE_POSITIONS, ".weight", c->max_position_embeddings, c->hidden_size, 2,
                  LB_INIT_NORMAL);
    }
    for (int l = 0; l < c->num_hidden_layers; l++) {
        d.layer = l;
        declare_attention(&d);
        declare_mlp(&d);
    }
    d.layer = 0;
    add_norm(&d, LB_ROLE_NORM, c->hidden_size);
    if (!c->tie_word_embeddings && c->num_labels == 0) {
        (void)add(&d, LB_ROLE_HEAD, ".weight", c->vocab_size, c->hidden_size, 2, LB_INIT_NORMAL);
    }
}

const char *lb_decoder_head(const struct lb_config *c) {
    const struct lb_role_names *names = lb_decoder_traits(c)->names;
    if (c->tie_word_embeddings) {
        return names != NULL && names->embed != NULL ? names->embed : "model.embed_tokens.weight";
    }
    return names != NULL && names->head != NULL ? names->head : "lm_head.weight";
}

/* ---- binding ---- */

/* Weights among which one is looked for: with experts there are many. */
struct range {
    size_t first, end;
};

static const struct lb_weight *find(const struct lb_model *model, enum lb_role role, int layer,
                                    const char *suffix, struct range range) {
    char with_suffix[LB_WEIGHT_NAME], name[LB_WEIGHT_NAME];
    const char *own = pattern(lb_decoder_traits(&model->config), role, false);
    if (own == NULL) {
        return NULL;
    }
    snprintf(with_suffix, sizeof with_suffix, "%s%s", own, suffix);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(name, sizeof name, with_suffix, layer, 0); /* patterns of our own tables */
#pragma GCC diagnostic pop
    for (size_t i = range.first; i < range.end; i++) {
        if (strcmp(model->weights[i].name, name) == 0) {
            return &model->weights[i];
        }
    }
    return NULL;
}

static void bind_roles(const struct lb_model *model, int layer, int from, int to, struct range range,
                       struct lb_decoder_layer *out) {
    for (int role = from; role < to; role++) {
        out->weight[role] = find(model, (enum lb_role)role, layer, ".weight", range);
        out->bias[role] = find(model, (enum lb_role)role, layer, ".bias", range);
    }
}

/* Those of a layer, which stand together, behind the others. */
static struct range range_of(const struct lb_model *model, int layer, struct range others) {
    struct range range = {others.end, others.end};
    while (range.first < model->n_own && model->specs[range.first].layer != layer) {
        range.first++;
    }
    range.end = range.first;
    while (range.end < model->n_own && model->specs[range.end].layer == layer) {
        range.end++;
    }
    return range;
}

void *lb_decoder_bind(const struct lb_model *model) {
    int64_t n = model->config.num_hidden_layers;
    struct lb_decoder *d = lb_calloc(1, sizeof *d + (size_t)n * sizeof d->layers[0]);
    if (d == NULL) {
        return NULL;
    }
    struct range range = {0, 0};
    bind_roles(model, 0, 0, LB_ROLE_ATTN_NORM, (struct range){0, model->n_own}, &d->top);
    for (int l = 0; l < n; l++) {
        range = range_of(model, l, range);
        bind_roles(model, l, LB_ROLE_ATTN_NORM, LB_N_ROLES, range, &d->layers[l]);
    }
    return d;
}
