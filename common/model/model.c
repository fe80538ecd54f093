#include "common/model/model.h"

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/formats/safetensors.h"
#include "common/model/classifier.h"
#include "common/model/families.h"
#include "common/nn/gemm.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

void lb_model_destroy(struct lb_model *model) {
    if (model == NULL) {
        return;
    }
    lb_free(model->bound);
    lb_free(model->weights);
    lb_free(model->specs);
    lb_free(model->values);
    lb_free(model->grads);
    lb_safetensors_destroy(model->safetensors);
    lb_gguf_destroy(model->gguf);
    for (size_t i = 0; i < model->n_owned; i++) {
        lb_free(model->owned[i]);
    }
    lb_free(model->owned);
    lb_labels_finish(&model->labels);
    lb_free(model);
}

enum lb_status lb_model_declare(const struct lb_config *config, const char *what, struct lb_model **out,
                                struct lb_detail *detail) {
    const struct lb_family *family = lb_family_find(config->model_type);
    if (family == NULL) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s: model_type \"%s\" is not known to this build", what,
                       config->model_type);
    }
    struct lb_model *model = lb_calloc(1, sizeof *model);
    if (model == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory", what);
    }
    model->config = *config;
    model->ends = lb_config_ends(config);
    model->family = family;
    struct lb_spec_list list = {0};
    family->declare(config, &list);
    lb_classifier_declare(config, &list);
    model->specs = list.items;
    model->n_weights = list.n;
    model->n_own = list.n;
    model->weights = lb_calloc(list.n, sizeof *model->weights);
    if (list.status != LB_OK || model->weights == NULL) {
        lb_model_destroy(model);
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory", what);
    }
    for (size_t i = 0; i < list.n; i++) {
        const struct lb_weight_spec *s = &list.items[i];
        model->weights[i] =
            (struct lb_weight){.name = s->name, .rows = s->rows, .cols = s->cols, .n_dims = s->n_dims};
    }
    *out = model;
    return LB_OK;
}

enum lb_status lb_model_bind(struct lb_model *model, struct lb_detail *detail) {
    const struct lb_config *c = &model->config;
    const char *bias = model->family->head_bias, *head = model->family->head(c);
    lb_classifier_bind(model, &head, &bias);
    model->head = (struct lb_head){.weight = head != NULL ? lb_model_weight(model, head) : NULL,
                                   .bias = bias != NULL ? lb_model_weight(model, bias) : NULL,
                                   .shape = {.scale = c->logit_scale > 0 ? (float)(1 / c->logit_scale) : 1,
                                             .softcap = (float)c->logit_softcap}};
    lb_free(model->bound);
    model->bound = model->family->bind(model);
    return model->bound != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory");
}

enum lb_status lb_model_make_trainable(struct lb_model *model, struct lb_detail *detail) {
    size_t n = 0;
    for (size_t i = 0; i < model->n_weights; i++) {
        size_t size = 0;
        if (!lb_mul_size((size_t)model->weights[i].rows, (size_t)model->weights[i].cols, &size) ||
            !lb_add_size(n, (size + 15) / 16 * 16, &n)) {
            return lb_fail(detail, LB_E_LIMIT, "the model is too large for this machine");
        }
    }
    float *values = lb_calloc(n, sizeof *values), *grads = lb_calloc(n, sizeof *grads);
    if (values == NULL || grads == NULL) {
        lb_free(values);
        lb_free(grads);
        return lb_fail(detail, LB_E_NOMEM, "no memory for %zu parameters and their gradients", n);
    }
    size_t at = 0;
    for (size_t i = 0; i < model->n_weights; i++) {
        struct lb_weight *w = &model->weights[i];
        if (w->data != NULL) {
            lb_gemm_widen(w, 0, w->rows, values + at);
        }
        w->dtype = LB_F32;
        w->interleaved = 0;
        w->value = values + at;
        w->data = w->value;
        w->grad = grads + at;
        at += ((size_t)(w->rows * w->cols) + 15) / 16 * 16;
    }
    lb_free(model->values);
    lb_free(model->grads);
    model->values = values;
    model->grads = grads;
    model->n_values = n;
    return LB_OK;
}

void lb_model_initialise(struct lb_model *model, size_t i, uint64_t seed) {
    const struct lb_config *c = &model->config;
    const struct lb_weight *w = &model->weights[i];
    double range = c->initializer_range > 0 ? c->initializer_range : 0.02, std = range;
    switch (model->specs[i].init) {
    case LB_INIT_RESIDUAL:
        std = range / sqrt(2.0 * (double)c->num_hidden_layers);
        break;
    case LB_INIT_FAN_IN:
        std = sqrt(2.0 / (double)w->cols);
        break;
    case LB_INIT_NORMAL:
    case LB_INIT_ONES:
    case LB_INIT_ZEROS:
        break;
    }
    struct lb_rng rng;
    lb_rng_seed(&rng, seed, i);
    for (int64_t j = 0; j < w->rows * w->cols; j++) {
        w->value[j] = model->specs[i].init == LB_INIT_ONES    ? 1.0f
                      : model->specs[i].init == LB_INIT_ZEROS ? 0.0f
                                                              : (float)(std * lb_rng_normal(&rng));
    }
}

enum lb_status lb_model_create(const struct lb_config *config, uint64_t seed, struct lb_model **out,
                               struct lb_detail *detail) {
    struct lb_model *model = NULL;
    enum lb_status status = lb_config_check(config, "model", detail);
    status = status == LB_OK ? lb_model_declare(config, "model", &model, detail) : status;
    status = status == LB_OK ? lb_model_make_trainable(model, detail) : status;
    status = status == LB_OK ? lb_model_bind(model, detail) : status;
    if (status != LB_OK) {
        lb_model_destroy(model);
        return status;
    }
    for (size_t i = 0; i < model->n_weights; i++) {
        lb_model_initialise(model, i, seed);
    }
    if (model->family->classifier != NULL && config->num_labels > 0) {
        status = lb_labels_init(&model->labels, config->num_labels);
    } else if (model->family->encoder != NULL) {
        model->sentence = (struct lb_sentence){LB_POOL_MEAN, true};
    }
    if (status != LB_OK) {
        lb_model_destroy(model);
        return lb_fail(detail, status, "out of memory");
    }
    *out = model;
    return LB_OK;
}

enum lb_status lb_model_extend(struct lb_model *model, const char *name, int64_t rows, int64_t cols,
                               uint64_t seed, struct lb_detail *detail) {
    struct lb_spec_list list = {model->specs, model->n_weights, model->n_weights, LB_OK};
    lb_spec_add(&list, name, "", 0, rows, cols, 2, LB_INIT_NORMAL);
    model->specs = list.items;
    struct lb_weight *weights = lb_realloc_array(model->weights, list.n, sizeof *weights);
    model->weights = weights != NULL ? weights : model->weights;
    for (size_t i = 0; i < model->n_weights; i++) {
        model->weights[i].name = list.items[i].name; /* the specs may have moved */
    }
    if (list.status != LB_OK || weights == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    model->n_weights = list.n;
    weights[list.n - 1] =
        (struct lb_weight){.name = list.items[list.n - 1].name, .rows = rows, .cols = cols, .n_dims = 2};
    enum lb_status status = lb_model_make_trainable(model, detail); /* copies what the old masters hold */
    if (status != LB_OK) {
        return status;
    }
    const struct lb_weight *w = &weights[list.n - 1];
    struct lb_rng rng;
    lb_rng_seed(&rng, seed, list.n);
    for (int64_t j = 0; j < rows * cols; j++) {
        w->value[j] = (float)(lb_rng_normal(&rng) / sqrt((double)cols));
    }
    return lb_model_bind(model, detail);
}

/* ---- asking -----------------------------------------------------------------------------------------------
 */

const struct lb_ends *lb_model_ends(const struct lb_model *model) {
    return &model->ends;
}

enum lb_status lb_model_train_end(struct lb_model *model, int64_t id, struct lb_detail *detail) {
    struct lb_ends *lists[2] = {&model->ends, NULL}, config = lb_config_ends(&model->config);
    lists[1] = &config;
    for (int i = 0; i < 2; i++) {
        if (lb_ends_has(lists[i], id)) {
            continue;
        }
        if (lists[i]->n == LB_MAX_ENDS) {
            return lb_fail(detail, LB_E_LIMIT, "the model has %d tokens that end a text already",
                           LB_MAX_ENDS);
        }
        memmove(lists[i]->ids + 1, lists[i]->ids, (size_t)lists[i]->n * sizeof *lists[i]->ids);
        lists[i]->ids[0] = id;
        lists[i]->n++;
    }
    lb_config_set_ends(&model->config, &config);
    return LB_OK;
}

const struct lb_config *lb_model_config(const struct lb_model *model) {
    return &model->config;
}

const struct lb_notes *lb_model_notes(const struct lb_model *model) {
    return &model->notes;
}

const char *lb_model_fingerprint(const struct lb_model *model) {
    return model->fingerprint;
}

int64_t lb_model_parameters(const struct lb_model *model) {
    int64_t n = 0;
    for (size_t i = 0; i < model->n_own; i++) {
        n += model->weights[i].rows * model->weights[i].cols;
    }
    return n;
}

const char *lb_model_written(const struct lb_model *model) {
    const char *path = model->gguf != NULL ? lb_gguf_written(model->gguf) : NULL;
    return path == NULL && model->safetensors != NULL ? lb_safetensors_written(model->safetensors) : path;
}

size_t lb_model_bytes(const struct lb_model *model) {
    size_t n = 0;
    for (size_t i = 0; i < model->n_own; i++) {
        size_t bytes = 0;
        (void)lb_dtype_bytes(model->weights[i].dtype, model->weights[i].rows * model->weights[i].cols,
                             &bytes);
        n += bytes;
    }
    return n;
}

const struct lb_weight *lb_model_weights(const struct lb_model *model, size_t *out_n) {
    *out_n = model->n_weights;
    return model->weights;
}

size_t lb_model_own_weights(const struct lb_model *model) {
    return model->n_own;
}

bool lb_model_disable_dropout(struct lb_model *model) {
    struct lb_config *c = &model->config;
    double *all[] = {&c->attention_dropout, &c->residual_dropout, &c->embedding_dropout, &c->input_dropout,
                     &c->hidden_dropout};
    bool any = false;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        any |= *all[i] > 0;
        *all[i] = 0;
    }
    return any;
}

size_t lb_model_freeze(struct lb_model *model, const char *pattern) {
    size_t n = 0;
    for (size_t i = 0; i < model->n_own; i++) {
        if (fnmatch(pattern, model->weights[i].name, 0) == 0) {
            model->weights[i].grad = NULL;
            n++;
        }
    }
    return n;
}

const struct lb_weight *lb_model_find(const struct lb_model *model, const char *name) {
    return lb_model_weight(model, name);
}

const struct lb_head *lb_model_head(const struct lb_model *model) {
    return &model->head;
}

int64_t lb_model_width(const struct lb_model *model) {
    return model->head.weight != NULL ? model->head.weight->cols : model->config.hidden_size;
}

bool lb_model_is_classifier(const struct lb_model *model) {
    return model->config.num_labels > 0;
}

const struct lb_labels *lb_model_labels(const struct lb_model *model) {
    return model->labels.n > 0 ? &model->labels : NULL;
}

enum lb_status lb_model_set_labels(struct lb_model *model, const struct lb_labels *labels) {
    struct lb_labels copy = {0};
    enum lb_status status = lb_labels_copy(labels, &copy);
    if (status == LB_OK) {
        lb_labels_finish(&model->labels);
        model->labels = copy;
    }
    return status;
}

bool lb_model_is_causal(const struct lb_model *model) {
    return model->family->has_attention && model->family->encoder == NULL;
}

const struct lb_sentence *lb_model_sentence(const struct lb_model *model) {
    return &model->sentence;
}

struct lb_value *lb_model_pool(const struct lb_model *model, struct lb_tape *tape, struct lb_value *states) {
    return lb_pool(tape, states, model->sentence.kind, model->sentence.normalize);
}

float *lb_model_values(struct lb_model *model, size_t *out_n) {
    *out_n = model->n_values;
    return model->values;
}

float *lb_model_grads(struct lb_model *model, size_t *out_n) {
    *out_n = model->n_values;
    return model->grads;
}

enum lb_status lb_model_check_tap(const struct lb_model *model, enum lb_tap_kind kind, int layer,
                                  struct lb_detail *detail) {
    static const char *const names[] = {[LB_TAP_HIDDEN] = "hidden_states", [LB_TAP_ATTENTION] = "attentions",
                                        [LB_TAP_QUERIES] = "queries",      [LB_TAP_KEYS] = "keys",
                                        [LB_TAP_VALUES] = "values",        [LB_TAP_STREAM] = "residuals",
                                        [LB_TAP_HEADS] = "heads",          [LB_TAP_NEURONS] = "neurons"};
    bool decoder = model->family->has_attention;
    int64_t last = decoder ? model->config.num_hidden_layers : model->config.n_hidden;
    const char *name = names[kind];
    if (kind != LB_TAP_HIDDEN) {
        last--;
        if (!decoder) {
            return lb_fail(detail, LB_E_ARG, "%s.%d: this model has no attention", name, layer);
        }
    }
    return layer >= 0 && layer <= last ? LB_OK
                                       : lb_fail(detail, LB_E_ARG, "%s.%d: this model has %s.0 to %s.%lld",
                                                 name, layer, name, name, (long long)last);
}

int64_t lb_model_tap_width(const struct lb_model *model, enum lb_tap_kind kind, int layer) {
    const struct lb_config *c = &model->config;
    switch (kind) {
    case LB_TAP_HIDDEN:
    case LB_TAP_STREAM:
        break;
    case LB_TAP_ATTENTION:
        return 0;
    case LB_TAP_QUERIES:
    case LB_TAP_HEADS:
        return c->num_attention_heads * c->head_dim;
    case LB_TAP_NEURONS:
        return c->intermediate_size;
    case LB_TAP_KEYS:
    case LB_TAP_VALUES:
        return c->num_key_value_heads * c->head_dim;
    }
    if (model->family->has_attention) {
        return c->hidden_size;
    }
    return layer == 0 ? c->input_size : c->hidden_sizes[layer - 1];
}

struct lb_value *lb_model_forward(const struct lb_model *model, struct lb_tape *tape,
                                  const struct lb_input *in, struct lb_tap *taps, size_t n_taps,
                                  struct lb_kv *kv) {
    struct lb_value *h = model->family->forward(model, tape, in, taps, n_taps, kv);
    return model->labels.n > 0 ? lb_classifier_forward(model, tape, in, h) : h;
}

bool lb_model_turns_anew(const struct lb_model *model, int64_t length) {
    const struct lb_rope_scaling *rope = &model->config.rope;
    return rope->type == LB_ROPE_LONGROPE && length == rope->original + 1 &&
           memcmp(rope->short_factor, rope->long_factor,
                  (size_t)rope->n_factors * sizeof *rope->short_factor) != 0;
}

static int64_t whole_blocks(int64_t positions) {
    return (positions + LB_KV_BLOCK - 1) / LB_KV_BLOCK * LB_KV_BLOCK;
}

enum lb_status lb_kv_init(struct lb_kv *kv, const struct lb_model *model, int64_t n_seqs,
                          const int64_t *capacity) {
    const struct lb_config *c = &model->config;
    size_t layers = (size_t)c->num_hidden_layers, row = (size_t)(c->num_key_value_heads * c->head_dim);
    size_t rows = 0, n;
    *kv = (struct lb_kv){.n_seqs = n_seqs};
    for (int64_t s = 0; s < n_seqs; s++) {
        if (capacity[s] <= 0 || capacity[s] > INT64_MAX - LB_KV_BLOCK ||
            !lb_add_size(rows, (size_t)whole_blocks(capacity[s]), &rows)) {
            return LB_E_LIMIT;
        }
    }
    if (n_seqs <= 0 || !lb_mul_size(rows, row, &n) || !lb_mul_size(n, 2 * layers, &n)) {
        return LB_E_LIMIT;
    }
    kv->places = lb_malloc_array((size_t)n_seqs, sizeof *kv->places);
    kv->layers = lb_calloc(layers, sizeof *kv->layers);
    float *block = kv->layers != NULL ? lb_malloc_array(n, sizeof *block) : NULL;
    if (block == NULL || kv->places == NULL) {
        lb_free(block);
        lb_free(kv->layers);
        lb_free(kv->places);
        *kv = (struct lb_kv){0};
        return LB_E_NOMEM;
    }
    for (size_t l = 0; l < layers; l++) {
        kv->layers[l].k = block + 2 * l * rows * row;
        kv->layers[l].v = kv->layers[l].k + rows * row;
    }
    for (int64_t s = 0, begin = 0; s < n_seqs; begin += whole_blocks(capacity[s++])) {
        kv->places[s] = (struct lb_kv_place){begin, 0, whole_blocks(capacity[s])};
    }
    return LB_OK;
}

void lb_kv_drop(struct lb_kv *kv, int64_t s) {
    kv->n_seqs--;
    memmove(kv->places + s, kv->places + s + 1, (size_t)(kv->n_seqs - s) * sizeof *kv->places);
}

void lb_kv_finish(struct lb_kv *kv) {
    if (kv != NULL && kv->layers != NULL) {
        lb_free(kv->layers[0].k); /* the block */
        lb_free(kv->layers);
        lb_free(kv->places);
        *kv = (struct lb_kv){0};
    }
}
