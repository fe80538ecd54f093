/* A model made of some of another one's neurons and heads: as deep, and narrower within its blocks. */
#include "common/base/mem.h"
#include "common/model/decoder_bind.h"
#include "common/model/families.h"
#include "common/nn/gemm.h"

#include <inttypes.h>
#include <string.h>

/* Which of so many units, each so many rows or columns wide, of a weight stay. units NULL: all. */
struct kept {
    const int64_t *units;
    int64_t n, width;
};

static enum lb_status make_config(const struct lb_model *from, const struct lb_narrowing *how,
                                  struct lb_config *out, struct lb_detail *detail) {
    struct lb_config c = from->config;
    const char *type = c.model_type;
    const struct lb_decoder_traits *t = lb_decoder_traits(&c);
    if (!lb_model_is_causal(from) || lb_model_is_classifier(from) || !from->family->has_attention ||
        t->mlp == LB_MLP_EXPERTS || t->mlp == LB_MLP_SWIGLU_JOINED) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "a %s is not made narrower: that is for decoders that write text, whose blocks "
                       "have one feed-forward with a gate, if any, of its own",
                       type);
    }
    if (how->heads != NULL && (t->qkv != LB_QKV_APART || t->qk_norm == LB_QK_NORM_ROW)) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "the heads of a %s are not left out: its queries, keys and values are one matrix, or "
                       "normed together",
                       type);
    }
    if (how->neurons != NULL) {
        c.intermediate_size = how->intermediate_size;
    }
    if (how->heads != NULL) {
        c.num_attention_heads = c.num_attention_heads / c.num_key_value_heads * how->num_key_value_heads;
        c.num_key_value_heads = how->num_key_value_heads;
    }
    *out = c;
    return lb_config_check(&c, "the narrower model", detail);
}

enum lb_status lb_model_narrows(const struct lb_model *from, const struct lb_narrowing *how,
                                struct lb_detail *detail) {
    struct lb_config config;
    return make_config(from, how, &config, detail);
}

/* The place in the larger weight of row or column i. */
static int64_t place(const struct kept *kept, int64_t i) {
    return kept->units != NULL ? kept->units[i / kept->width] * kept->width + i % kept->width : i;
}

/* to's numbers become those of from that stay. */
static enum lb_status gather(const struct lb_weight *to, const struct lb_weight *from,
                             const struct kept *rows, const struct kept *cols, struct lb_detail *detail) {
    float *row = lb_malloc_array((size_t)from->cols, sizeof *row);
    if (row == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for %s", to->name);
    }
    for (int64_t r = 0; r < to->rows; r++) {
        lb_gemm_widen(from, place(rows, r), 1, row);
        for (int64_t c = 0; c < to->cols; c++) {
            to->value[r * to->cols + c] = row[place(cols, c)];
        }
    }
    lb_free(row);
    return LB_OK;
}

/* What stays of a layer's weight by its role; biases have their numbers as columns. */
static void kept_of(const struct lb_model *from, const struct lb_narrowing *how, int64_t layer,
                    enum lb_role role, bool bias, struct kept *rows, struct kept *cols) {
    const struct lb_config *c = &from->config;
    int64_t d = c->head_dim, group = c->num_attention_heads / c->num_key_value_heads;
    struct kept neurons = {NULL, how->intermediate_size, 1}, heads = {NULL, how->num_key_value_heads, d};
    *rows = *cols = (struct kept){NULL, 0, 1};
    if (how->neurons != NULL) {
        neurons.units = how->neurons + layer * how->intermediate_size;
    }
    if (how->heads != NULL) {
        heads.units = how->heads + layer * how->num_key_value_heads;
    }
    struct kept queries = heads;
    queries.width = d * group;
    switch (role) {
    case LB_ROLE_GATE:
    case LB_ROLE_UP:
        *(bias ? cols : rows) = neurons;
        break;
    case LB_ROLE_DOWN:
        *cols = bias ? *cols : neurons;
        break;
    case LB_ROLE_Q:
        *(bias ? cols : rows) = queries;
        break;
    case LB_ROLE_K:
    case LB_ROLE_V:
        *(bias ? cols : rows) = heads;
        break;
    case LB_ROLE_O:
        *cols = bias ? *cols : queries;
        break;
    default:
        break;
    }
}

static enum lb_status take_layer(const struct lb_model *from, const struct lb_narrowing *how, int64_t layer,
                                 const struct lb_decoder_layer *to, const struct lb_decoder_layer *its,
                                 struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    for (int role = 0; role < LB_N_ROLES && status == LB_OK; role++) {
        struct kept rows, cols;
        kept_of(from, how, layer, (enum lb_role)role, false, &rows, &cols);
        if (to->weight[role] != NULL) {
            status = gather(to->weight[role], its->weight[role], &rows, &cols, detail);
        }
        kept_of(from, how, layer, (enum lb_role)role, true, &rows, &cols);
        if (status == LB_OK && to->bias[role] != NULL) {
            status = gather(to->bias[role], its->bias[role], &rows, &cols, detail);
        }
    }
    return status;
}

enum lb_status lb_model_narrow(const struct lb_model *from, const struct lb_narrowing *how,
                               struct lb_model **out, struct lb_detail *detail) {
    static const struct lb_narrowing all = {0};
    struct lb_config config;
    struct lb_model *model = NULL;
    enum lb_status status = make_config(from, how, &config, detail);
    status = status == LB_OK ? lb_model_declare(&config, "the narrower model", &model, detail) : status;
    status = status == LB_OK ? lb_model_make_trainable(model, detail) : status;
    status = status == LB_OK ? lb_model_bind(model, detail) : status;
    if (status == LB_OK) {
        const struct lb_decoder *to = model->bound, *its = from->bound;
        status = take_layer(from, &all, 0, &to->top, &its->top, detail);
        for (int64_t l = 0; status == LB_OK && l < config.num_hidden_layers; l++) {
            status = take_layer(from, how, l, &to->layers[l], &its->layers[l], detail);
        }
    }
    if (status != LB_OK) {
        lb_model_destroy(model);
        return status;
    }
    model->ends = from->ends;
    model->notes = from->notes;
    *out = model;
    return LB_OK;
}
