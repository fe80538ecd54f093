#include "common/model/model.h"

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "common/formats/safetensors.h"
#include "common/model/arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_CONFIG_BYTES ((size_t)4 << 20)
#define MAX_TOKENIZER_BYTES ((size_t)256 << 20)

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
    lb_free(model);
}

/* A model with all parameters declared, none of them pointing anywhere yet. */
static enum lb_status declare(const struct lb_config *config, const char *what, struct lb_model **out,
                              struct lb_detail *detail) {
    const struct lb_arch *arch = lb_arch_find(config->model_type);
    if (arch == NULL) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "%s: model_type \"%s\" is not one of those that this build runs: %s", what,
                       config->model_type, lb_arch_names());
    }
    struct lb_model *model = lb_calloc(1, sizeof *model);
    if (model == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory", what);
    }
    model->config = *config;
    model->arch = arch;
    struct lb_spec_list list = {0};
    arch->declare(config, &list);
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

static enum lb_status bind(struct lb_model *model, struct lb_detail *detail) {
    model->head = lb_model_weight(model, model->arch->head(&model->config));
    model->head_bias = model->arch->head_bias != NULL ? lb_model_weight(model, model->arch->head_bias) : NULL;
    lb_free(model->bound);
    model->bound = model->arch->bind(model);
    return model->bound != NULL ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory");
}

/* One block of FP32 masters and one of gradients, each weight at a multiple of 16 floats; stored weights are
 * widened in. */
static enum lb_status make_trainable(struct lb_model *model, struct lb_detail *detail) {
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
            lb_dequantize(w->dtype, w->data, values + at, w->rows * w->cols);
        }
        w->dtype = LB_F32;
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

static void initialise(struct lb_model *model, uint64_t seed) {
    const struct lb_config *c = &model->config;
    double range = c->initializer_range > 0 ? c->initializer_range : 0.02;
    for (size_t i = 0; i < model->n_weights; i++) {
        const struct lb_weight *w = &model->weights[i];
        double std = range;
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
}

enum lb_status lb_model_create(const struct lb_config *config, uint64_t seed, struct lb_model **out,
                               struct lb_detail *detail) {
    struct lb_model *model = NULL;
    enum lb_status status = lb_config_check(config, "model", detail);
    status = status == LB_OK ? declare(config, "model", &model, detail) : status;
    status = status == LB_OK ? make_trainable(model, detail) : status;
    status = status == LB_OK ? bind(model, detail) : status;
    if (status != LB_OK) {
        lb_model_destroy(model);
        return status;
    }
    initialise(model, seed);
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
    enum lb_status status = make_trainable(model, detail); /* copies what the old masters hold */
    if (status != LB_OK) {
        return status;
    }
    const struct lb_weight *w = &weights[list.n - 1];
    struct lb_rng rng;
    lb_rng_seed(&rng, seed, list.n);
    for (int64_t j = 0; j < rows * cols; j++) {
        w->value[j] = (float)(lb_rng_normal(&rng) / sqrt((double)cols));
    }
    return bind(model, detail);
}

/* ---- opening ----------------------------------------------------------------------------------------------
 */

static void shape_text(const int64_t *dim, int n, char *out, size_t cap) {
    size_t at = (size_t)snprintf(out, cap, "[");
    for (int i = 0; i < n && at < cap; i++) {
        at += (size_t)snprintf(out + at, cap - at, i > 0 ? ", %lld" : "%lld", (long long)dim[i]);
    }
    if (at < cap) {
        snprintf(out + at, cap - at, "]");
    }
}

static enum lb_status take_tensor(struct lb_model *model, size_t i, const struct lb_tensor *t,
                                  const char *path, struct lb_detail *detail) {
    struct lb_weight *w = &model->weights[i];
    int64_t want[LB_MAX_DIMS] = {w->n_dims == 1 ? w->cols : w->rows, w->cols};
    if (t == NULL) {
        return lb_fail(detail, LB_E_FORMAT, "%s: tensor %s is missing", path, w->name);
    }
    if (t->n_dims != w->n_dims || t->dim[0] != want[0] || (w->n_dims == 2 && t->dim[1] != want[1])) {
        char have[64], need[64];
        shape_text(t->dim, t->n_dims, have, sizeof have);
        shape_text(want, w->n_dims, need, sizeof need);
        return lb_fail(detail, LB_E_MISMATCH, "%s: tensor %s has shape %s, the config asks for %s", path,
                       t->name, have, need);
    }
    if (!lb_dtype_is_weight(t->dtype)) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       "%s: tensor %s has dtype %s; weights are F32, F16, BF16 or Q8_0", path, t->name,
                       lb_dtype_name(t->dtype));
    }
    w->dtype = t->dtype;
    w->data = t->data;
    return LB_OK;
}

/* llama.cpp stores the rows of each head's rotary halves interleaved: row 2 j + i there is row i D/2 + j
 * here. */
static enum lb_status unpermute(struct lb_model *model, size_t i, struct lb_detail *detail) {
    struct lb_weight *w = &model->weights[i];
    int64_t heads = model->specs[i].rope_heads, rows = w->n_dims == 1 ? w->cols : w->rows;
    int64_t d = rows / heads, row_elements = w->n_dims == 1 ? 1 : w->cols;
    size_t row_bytes = 0;
    char *copy = NULL;
    void **owned = lb_realloc_array(model->owned, model->n_owned + 1, sizeof *owned);
    if (owned != NULL) {
        model->owned = owned;
    }
    if (owned == NULL || !lb_dtype_bytes(w->dtype, row_elements, &row_bytes) ||
        (copy = lb_malloc_array((size_t)rows, row_bytes)) == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "no memory to reorder tensor %s", w->name);
    }
    model->owned[model->n_owned++] = copy;
    for (int64_t r = 0; r < rows; r++) {
        int64_t head = r / d, in = r % d, i2 = in / (d / 2), j = in % (d / 2);
        memcpy(copy + (size_t)r * row_bytes,
               (const char *)w->data + (size_t)(head * d + 2 * j + i2) * row_bytes, row_bytes);
    }
    w->data = copy;
    return LB_OK;
}

static enum lb_status open_folder(const char *path, struct lb_model **out, struct lb_detail *detail) {
    char *config_path = lb_path_join(path, "config.json"), *weights = lb_path_join(path, "model.safetensors");
    struct lb_config config;
    struct lb_model *model = NULL;
    json_t *json = NULL;
    enum lb_status status = LB_OK;
    if (config_path == NULL || weights == NULL) {
        status = lb_fail(detail, LB_E_NOMEM, "%s: out of memory", path);
        goto out;
    }
    if (!lb_file_exists(weights)) {
        lb_free(weights);
        weights = lb_path_join(path, "model.safetensors.index.json");
        if (weights == NULL || !lb_file_exists(weights)) {
            status = lb_fail(detail, LB_E_NOTFOUND, "%s: no model.safetensors (nor its index) in this folder",
                             path);
            goto out;
        }
    }
    status = lb_json_file(config_path, MAX_CONFIG_BYTES, &json, detail);
    status = status == LB_OK ? lb_config_parse(json, config_path, &config, detail) : status;
    status = status == LB_OK ? declare(&config, config_path, &model, detail) : status;
    status = status == LB_OK ? lb_safetensors_open(weights, &model->safetensors, detail) : status;
    for (size_t i = 0; status == LB_OK && i < model->n_weights; i++) {
        const struct lb_tensor *t = lb_safetensors_find(model->safetensors, model->weights[i].name);
        status = take_tensor(model, i, t, weights, detail);
    }
out:
    json_decref(json);
    lb_free(config_path);
    lb_free(weights);
    if (status != LB_OK) {
        lb_model_destroy(model);
        return status;
    }
    *out = model;
    return LB_OK;
}

static enum lb_status open_gguf(const char *path, struct lb_model **out, struct lb_detail *detail) {
    struct lb_gguf *file = NULL;
    struct lb_config config;
    struct lb_model *model = NULL;
    enum lb_status status = lb_gguf_open(path, &file, detail);
    status = status == LB_OK ? lb_config_from_gguf(file, path, &config, detail) : status;
    status = status == LB_OK ? declare(&config, path, &model, detail) : status;
    if (status != LB_OK) {
        lb_gguf_destroy(file);
        return status;
    }
    model->gguf = file;
    for (size_t i = 0; status == LB_OK && i < model->n_weights; i++) {
        const char *name = model->specs[i].gguf;
        status = take_tensor(model, i, name[0] != 0 ? lb_gguf_find(file, name) : NULL, path, detail);
        if (status == LB_OK && model->specs[i].rope_heads > 0) {
            status = unpermute(model, i, detail);
        }
    }
    if (status != LB_OK) {
        lb_model_destroy(model);
        return status;
    }
    *out = model;
    return LB_OK;
}

/* SHA-256 over config, weights as stored, and the tokenizer beside them. */
static enum lb_status fingerprint(struct lb_model *model, const char *folder, struct lb_detail *detail) {
    struct lb_buf buf;
    lb_buf_init(&buf, MAX_TOKENIZER_BYTES);
    struct lb_sha256 *hash = lb_sha256_create();
    enum lb_status status = hash != NULL ? lb_config_write(&model->config, "float32", &buf) : LB_E_NOMEM;
    lb_sha256_update(hash, buf.data, buf.len);
    for (size_t i = 0; status == LB_OK && i < model->n_weights; i++) {
        const struct lb_weight *w = &model->weights[i];
        size_t bytes = 0;
        (void)lb_dtype_bytes(w->dtype, w->rows * w->cols, &bytes);
        lb_sha256_update(hash, w->name, strlen(w->name) + 1);
        lb_sha256_u32(hash, (uint32_t)w->dtype);
        lb_sha256_u64(hash, (uint64_t)w->rows);
        lb_sha256_u64(hash, (uint64_t)w->cols);
        lb_sha256_update(hash, w->data, bytes);
    }
    char *tokenizer = folder != NULL ? lb_path_join(folder, "tokenizer.json") : NULL;
    if (folder != NULL && tokenizer == NULL) {
        status = LB_E_NOMEM;
    }
    if (status == LB_OK && tokenizer != NULL && lb_file_exists(tokenizer)) {
        lb_buf_reset(&buf);
        status = lb_file_read(tokenizer, &buf, detail);
        lb_sha256_update(hash, buf.data, buf.len);
    }
    uint8_t digest[LB_SHA256_BYTES];
    lb_sha256_final(hash, digest);
    lb_hex(digest, sizeof digest, model->fingerprint);
    lb_free(tokenizer);
    lb_buf_finish(&buf);
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "cannot compute the fingerprint");
}

enum lb_status lb_model_open(const char *path, bool trainable, struct lb_model **out,
                             struct lb_detail *detail) {
    bool folder = lb_is_dir(path);
    if (!folder && !lb_file_exists(path)) {
        return lb_fail(detail, LB_E_NOTFOUND,
                       "%s: no such file or folder; a model is a Hugging Face folder or a .gguf file", path);
    }
    struct lb_model *model = NULL;
    enum lb_status status = folder ? open_folder(path, &model, detail) : open_gguf(path, &model, detail);
    status = status == LB_OK ? fingerprint(model, folder ? path : NULL, detail) : status;
    if (status == LB_OK && trainable) {
        status = make_trainable(model, detail);
    }
    status = status == LB_OK ? bind(model, detail) : status;
    if (status != LB_OK) {
        lb_model_destroy(model);
        return status;
    }
    *out = model;
    return LB_OK;
}

/* ---- asking -----------------------------------------------------------------------------------------------
 */

const struct lb_config *lb_model_config(const struct lb_model *model) {
    return &model->config;
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

const struct lb_weight *lb_model_find(const struct lb_model *model, const char *name) {
    return lb_model_weight(model, name);
}

const struct lb_weight *lb_model_head(const struct lb_model *model) {
    return model->head;
}

const struct lb_weight *lb_model_head_bias(const struct lb_model *model) {
    return model->head_bias;
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
    bool decoder = model->arch->has_attention;
    int64_t layers = decoder ? model->config.num_hidden_layers : model->config.n_hidden;
    if (kind == LB_TAP_HIDDEN) {
        return layer >= 0 && layer <= layers
                   ? LB_OK
                   : lb_fail(detail, LB_E_ARG,
                             "hidden_states.%d: this model has hidden_states.0 to hidden_states.%lld", layer,
                             (long long)layers);
    }
    if (!decoder) {
        return lb_fail(detail, LB_E_ARG, "attentions.%d: this model has no attention", layer);
    }
    return layer >= 0 && layer < layers
               ? LB_OK
               : lb_fail(detail, LB_E_ARG, "attentions.%d: this model has attentions.0 to attentions.%lld",
                         layer, (long long)layers - 1);
}

struct lb_value *lb_model_forward(const struct lb_model *model, struct lb_tape *tape,
                                  const struct lb_input *in, struct lb_tap *taps, size_t n_taps,
                                  struct lb_kv *kv) {
    return model->arch->forward(model, tape, in, taps, n_taps, kv);
}

enum lb_status lb_kv_init(struct lb_kv *kv, const struct lb_model *model, int64_t capacity) {
    const struct lb_config *c = &model->config;
    size_t layers = (size_t)c->num_hidden_layers, row = (size_t)(c->num_key_value_heads * c->head_dim), n;
    *kv = (struct lb_kv){.capacity = capacity};
    if (capacity <= 0 || !lb_mul_size((size_t)capacity, row, &n) || !lb_mul_size(n, 2 * layers, &n)) {
        return LB_E_LIMIT;
    }
    kv->layers = lb_calloc(layers, sizeof *kv->layers);
    float *block = kv->layers != NULL ? lb_malloc_array(n, sizeof *block) : NULL;
    if (block == NULL) {
        lb_free(kv->layers);
        kv->layers = NULL;
        return LB_E_NOMEM;
    }
    for (size_t l = 0; l < layers; l++) {
        kv->layers[l].k = block + 2 * l * (size_t)capacity * row;
        kv->layers[l].v = kv->layers[l].k + (size_t)capacity * row;
    }
    return LB_OK;
}

void lb_kv_finish(struct lb_kv *kv) {
    if (kv != NULL && kv->layers != NULL) {
        lb_free(kv->layers[0].k); /* the block */
        lb_free(kv->layers);
        kv->layers = NULL;
    }
}
