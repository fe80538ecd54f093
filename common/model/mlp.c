/* A classifier of fixed-width features: linear layers with ReLU and dropout, then the head. */
#include "common/base/mem.h"
#include "common/model/family.h"

#include <stdio.h>

struct mlp {
    const struct lb_weight *weight[LB_MLP_MAX_HIDDEN], *bias[LB_MLP_MAX_HIDDEN];
};

static void declare(const struct lb_config *c, struct lb_spec_list *list) {
    int64_t in = c->input_size;
    for (int l = 0; l < c->n_hidden; l++) {
        lb_spec_add(list, "layers.%d.weight", "", l, c->hidden_sizes[l], in, 2, LB_INIT_FAN_IN);
        lb_spec_add(list, "layers.%d.bias", "", l, 1, c->hidden_sizes[l], 1, LB_INIT_ZEROS);
        in = c->hidden_sizes[l];
    }
    lb_spec_add(list, "classifier.weight", "", 0, c->num_labels, in, 2, LB_INIT_FAN_IN);
    lb_spec_add(list, "classifier.bias", "", 0, 1, c->num_labels, 1, LB_INIT_ZEROS);
}

static void *bind(const struct lb_model *model) {
    struct mlp *m = lb_calloc(1, sizeof *m);
    for (int l = 0; m != NULL && l < model->config.n_hidden; l++) {
        char name[LB_WEIGHT_NAME];
        snprintf(name, sizeof name, "layers.%d.weight", l);
        m->weight[l] = lb_model_weight(model, name);
        snprintf(name, sizeof name, "layers.%d.bias", l);
        m->bias[l] = lb_model_weight(model, name);
    }
    return m;
}

/* The features as a value of the tape. */
static struct lb_value *input(struct lb_tape *tape, const float *features, int64_t n, int64_t width) {
    struct lb_value *x = lb_tape_value(tape, n, width);
    if (x != NULL) {
        x->constant = true;
        for (int64_t i = 0; i < n * width; i++) {
            x->data[i] = features[i];
        }
    }
    return x;
}

/* hidden_states.0 are the features, hidden_states.N the activations of hidden layer N. */
static struct lb_value *forward(const struct lb_model *model, struct lb_tape *tape, const struct lb_input *in,
                                struct lb_tap *taps, size_t n_taps, struct lb_kv *kv) {
    (void)kv; /* nothing to continue */
    const struct lb_config *c = &model->config;
    const struct mlp *m = model->bound;
    struct lb_value *x = input(tape, in->features, in->ragged.offsets[in->ragged.n_seqs], c->input_size);
    lb_tap_offer(tape, taps, n_taps, LB_TAP_HIDDEN, 0, x);
    x = lb_dropout(tape, x, (float)c->input_dropout);
    for (int l = 0; l < c->n_hidden; l++) {
        x = lb_relu(tape, lb_linear(tape, x, m->weight[l], m->bias[l]));
        lb_tap_offer(tape, taps, n_taps, LB_TAP_HIDDEN, l + 1, x);
        x = lb_dropout(tape, x, (float)c->hidden_dropout);
    }
    return x;
}

static const char *head(const struct lb_config *c) {
    (void)c;
    return "classifier.weight";
}

#define FIELD(member) offsetof(struct lb_config, member)
#define MAX_WIDTH (1 << 22) /* keeps every product of sizes within 63 bits */

static const struct lb_config_key keys[] = {
    LB_KEYS_OF_CLASS,
    {"input_size", LB_KEY_INT, LB_KEY_NEEDED, FIELD(input_size), 1, MAX_WIDTH},
    {"num_labels", LB_KEY_INT, LB_KEY_NEEDED, FIELD(num_labels), 1, MAX_WIDTH},
    {"hidden_sizes", LB_KEY_WIDTHS, LB_KEY_NEEDED, FIELD(hidden_sizes), 1, MAX_WIDTH},
    {"input_dropout", LB_KEY_REAL, 0, FIELD(input_dropout), 0, 0.99},
    {"hidden_dropout", LB_KEY_REAL, 0, FIELD(hidden_dropout), 0, 0.99},
    {"initializer_range", LB_KEY_REAL, 0, FIELD(initializer_range), 0, 1},
    {"hidden_act", LB_KEY_ONLY_TEXT, LB_KEY_WRITTEN, .only = "relu"},
    {NULL},
};

static void settle(struct lb_config *c) {
    (void)c; /* nothing follows from anything */
}

static enum lb_status check(const struct lb_config *c, const char *what, struct lb_detail *detail) {
    (void)c, (void)what, (void)detail; /* any widths fit each other */
    return LB_OK;
}

const struct lb_family lb_family_mlp = {
    .form =
        {.model_type = "limbeck_mlp",
         .class_name = "LimbeckMLPForClassification",
         .missing = {.initializer_range = 0.02, .bos_token_id = -1, .eos_token_id = -1, .pad_token_id = -1},
         .keys = {keys},
         .settle = settle,
         .check = check},
    .declare = declare,
    .bind = bind,
    .forward = forward,
    .head = head,
    .head_bias = "classifier.bias",
};
