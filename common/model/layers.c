/* A model made of some of another one's layers: what a smaller student begins as. */
#include "common/base/mem.h"
#include "common/model/families.h"
#include "common/model/family.h"

#include <inttypes.h>
#include <string.h>

/* Those of a set that stay, under their new numbers. */
static struct lb_layer_set renumber(const struct lb_layer_set *from, const int64_t *layers, size_t n) {
    struct lb_layer_set to = {{0}};
    for (size_t i = 0; i < n; i++) {
        if (lb_layer_has(from, layers[i])) {
            lb_layer_put(&to, (int64_t)i);
        }
    }
    return to;
}

static enum lb_status make_config(const struct lb_model *from, const int64_t *layers, size_t n,
                                  const char *path, struct lb_config *out, struct lb_detail *detail) {
    static const struct lb_layer_set none;
    struct lb_config c = from->config;
    if (!from->family->has_attention) {
        return lb_fail(detail, LB_E_ARG, "%s: a %s has no layers to choose from", path, c.model_type);
    }
    for (size_t i = 0; i < n; i++) {
        if (layers[i] < 0 || layers[i] >= c.num_hidden_layers) {
            return lb_fail(detail, LB_E_ARG, "%s: no layer %" PRId64 "; it has 0 to %" PRId64, path,
                           layers[i], c.num_hidden_layers - 1);
        }
        for (size_t j = 0; j < i; j++) {
            if (layers[j] == layers[i]) {
                return lb_fail(detail, LB_E_ARG, "%s: layer %" PRId64 " is named twice", path, layers[i]);
            }
        }
    }
    c.num_hidden_layers = (int64_t)n;
    c.sliding = renumber(&from->config.sliding, layers, n);
    c.no_rope = renumber(&from->config.no_rope, layers, n);
    if (memcmp(&c.sliding, &none, sizeof none) == 0) { /* as where no layer has a window */
        c.sliding_window = 0;
        c.use_sliding_window = false;
    }
    *out = c;
    return lb_config_check(&c, path, detail);
}

/* The new head's number of classes, where from has none. */
static enum lb_status add_classes(const struct lb_model *from, int64_t num_labels, const char *path,
                                  struct lb_config *config, struct lb_detail *detail) {
    if (from->family->classifier == NULL || lb_model_is_classifier(from)) {
        return lb_fail(detail, LB_E_ARG, "%s: %s; drop num_labels", path,
                       lb_model_is_classifier(from) ? "it has a head that tells classes apart already"
                                                    : "no head that classifies texts goes on its family");
    }
    config->num_labels = num_labels;
    config->tie_word_embeddings = false;
    return LB_OK;
}

/* The first weight of a layer, whose weights stand together; n_own: there is none. */
static size_t first_of(const struct lb_model *model, int64_t layer) {
    size_t i = 0;
    while (i < model->n_own && model->specs[i].layer != layer) {
        i++;
    }
    return i;
}

/* The weights of `model` become those of `from` that stand there: of the layer that theirs comes from, in the
 * same place among that one's. A new head's, which has none, stay without data. */
static enum lb_status take_weights(struct lb_model *model, const struct lb_model *from, const int64_t *layers,
                                   bool new_head, const char *path, struct lb_detail *detail) {
    size_t next = 0; /* of from, where weights of a layer go on */
    for (size_t i = 0; i < model->n_weights; i++) {
        int layer = model->specs[i].layer;
        const struct lb_weight *w = NULL;
        if (layer < 0) {
            w = lb_model_weight(from, model->weights[i].name);
        } else {
            bool begins = i == 0 || model->specs[i - 1].layer != layer;
            next = begins ? first_of(from, layers[layer]) : next + 1;
            w = next < from->n_own && from->specs[next].layer == layers[layer] ? &from->weights[next] : NULL;
        }
        if (w == NULL && new_head && layer < 0) {
            continue;
        }
        if (w == NULL || w->rows != model->weights[i].rows || w->cols != model->weights[i].cols) {
            return lb_fail(detail, LB_E_INTERNAL, "%s: nothing stands for %s", path, model->weights[i].name);
        }
        model->weights[i].dtype = w->dtype;
        model->weights[i].data = w->data;
        model->weights[i].interleaved = w->interleaved;
    }
    return LB_OK;
}

/* Masters of its own, in place of what it points to; those without data as the seed makes them. */
static enum lb_status make_own(struct lb_model *model, uint64_t seed, struct lb_detail *detail) {
    bool *fresh = lb_calloc(model->n_weights, sizeof *fresh);
    if (fresh == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory");
    }
    for (size_t i = 0; i < model->n_weights; i++) {
        fresh[i] = model->weights[i].data == NULL;
    }
    enum lb_status status = lb_model_make_trainable(model, detail);
    for (size_t i = 0; status == LB_OK && i < model->n_weights; i++) {
        if (fresh[i]) {
            lb_model_initialise(model, i, seed);
        }
    }
    lb_free(fresh);
    return status == LB_OK ? lb_model_bind(model, detail) : status;
}

/* num_labels > 0: with a new head of so many classes, from the seed. layers NULL: all. */
static enum lb_status build(const char *path, const int64_t *layers, size_t n, int64_t num_labels,
                            uint64_t seed, struct lb_model **out, struct lb_detail *detail) {
    struct lb_model *from = NULL, *model = NULL;
    struct lb_config config;
    int64_t all[LB_MAX_LAYERS];
    enum lb_status status = lb_model_open(path, false, &from, detail);
    if (status == LB_OK && layers == NULL) {
        for (n = 0; n < (size_t)from->config.num_hidden_layers; n++) {
            all[n] = (int64_t)n;
        }
        layers = all;
    }
    status = status == LB_OK ? make_config(from, layers, n, path, &config, detail) : status;
    if (status == LB_OK && num_labels > 0) {
        status = add_classes(from, num_labels, path, &config, detail);
    }
    status = status == LB_OK ? lb_model_declare(&config, path, &model, detail) : status;
    status = status == LB_OK ? take_weights(model, from, layers, num_labels > 0, path, detail) : status;
    status = status == LB_OK ? make_own(model, seed, detail) : status;
    if (status == LB_OK && num_labels > 0) {
        status = lb_labels_init(&model->labels, num_labels);
    } else if (status == LB_OK && from->labels.n > 0) {
        status = lb_model_set_labels(model, &from->labels);
    }
    if (status == LB_OK) {
        model->ends = from->ends;
        if (num_labels == 0) {
            model->sentence = from->sentence;
        }
        model->notes = from->notes;
        *out = model;
        model = NULL;
    }
    lb_model_destroy(model);
    lb_model_destroy(from);
    return status;
}

enum lb_status lb_model_from_layers(const char *path, const int64_t *layers, size_t n, struct lb_model **out,
                                    struct lb_detail *detail) {
    return build(path, layers, n, 0, 0, out, detail);
}

enum lb_status lb_model_with_classes(const char *path, const int64_t *layers, size_t n, int64_t num_labels,
                                     uint64_t seed, struct lb_model **out, struct lb_detail *detail) {
    return build(path, layers, n, num_labels, seed, out, detail);
}
