/* The heads of classifiers of texts (Devlin et al. 2019, Liu et al. 2019, Sanh et al. 2019, and what
 * transformers puts on decoders). Dropout in front of the head is left out. */
#include "common/model/classifier.h"

#include <stdio.h>

const struct lb_classifier_traits lb_decoder_classifier = {.out = "score", .last = true};

/* NULL: such a config has no such head. */
static const struct lb_classifier_traits *traits_of(const struct lb_config *c) {
    return c->num_labels > 0 ? lb_family_find(c->model_type)->classifier : NULL;
}

static void name(const char *base, const char *suffix, char out[LB_WEIGHT_NAME]) {
    snprintf(out, LB_WEIGHT_NAME, "%s%s", base, suffix);
}

static void add(struct lb_spec_list *list, const char *base, int64_t rows, int64_t cols, bool bias) {
    char whole[LB_WEIGHT_NAME];
    name(base, ".weight", whole);
    lb_spec_add(list, whole, "", 0, rows, cols, 2, LB_INIT_NORMAL);
    if (bias) {
        name(base, ".bias", whole);
        lb_spec_add(list, whole, "", 0, 1, rows, 1, LB_INIT_ZEROS);
    }
}

void lb_classifier_declare(const struct lb_config *c, struct lb_spec_list *list) {
    const struct lb_classifier_traits *t = traits_of(c);
    if (t == NULL) {
        return;
    }
    if (t->dense != NULL) {
        add(list, t->dense, c->hidden_size, c->hidden_size, true);
    }
    add(list, t->out, c->num_labels, c->hidden_size, t->out_bias);
}

static const struct lb_weight *find(const struct lb_model *model, const char *base, const char *suffix) {
    char whole[LB_WEIGHT_NAME];
    name(base, suffix, whole);
    return lb_model_weight(model, whole);
}

void lb_classifier_bind(struct lb_model *model, const char **head, const char **bias) {
    const struct lb_classifier_traits *t = traits_of(&model->config);
    if (t == NULL) {
        return;
    }
    const struct lb_weight *out = find(model, t->out, ".weight"), *out_bias = find(model, t->out, ".bias");
    *head = out != NULL ? out->name : NULL;
    *bias = out_bias != NULL ? out_bias->name : NULL;
    model->dense = t->dense != NULL ? find(model, t->dense, ".weight") : NULL;
    model->dense_bias = t->dense != NULL ? find(model, t->dense, ".bias") : NULL;
}

/* The row of sequence s that stands for it. */
static int32_t row_of(const struct lb_classifier_traits *t, const struct lb_config *c,
                      const struct lb_input *in, int64_t s) {
    int32_t first = in->ragged.offsets[s], row = in->ragged.offsets[s + 1] - 1;
    while (t->last && row > first && in->ids[row] == c->pad_token_id) {
        row--;
    }
    return t->last ? row : first;
}

struct lb_value *lb_classifier_forward(const struct lb_model *model, struct lb_tape *tape,
                                       const struct lb_input *in, struct lb_value *states) {
    const struct lb_classifier_traits *t = model->family->classifier;
    int64_t n = in->ragged.n_seqs;
    struct lb_ragged *ragged = lb_tape_bytes(tape, sizeof *ragged);
    int32_t *offsets = lb_tape_bytes(tape, (size_t)(n + 1) * sizeof *offsets);
    int32_t *rows = lb_tape_bytes(tape, (size_t)n * sizeof *rows);
    if (states == NULL || ragged == NULL || offsets == NULL || rows == NULL) {
        return NULL;
    }
    offsets[0] = 0;
    for (int64_t s = 0; s < n; s++) {
        rows[s] = row_of(t, &model->config, in, s);
        offsets[s + 1] = (int32_t)s + 1;
    }
    *ragged = (struct lb_ragged){n, offsets};
    struct lb_value *x = lb_rows(tape, states, rows, n);
    lb_tape_rows(tape, ragged);
    if (model->dense != NULL) {
        x = t->activation(tape, lb_linear(tape, x, model->dense, model->dense_bias));
    }
    return x;
}
