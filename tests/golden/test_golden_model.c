/* Models against PyTorch and transformers on the same weights: logits, states, attention, losses, every
 * gradient. The vectors are made by make_model.py. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/formats/safetensors.h"
#include "common/model/generate.h"
#include "common/nn/head.h"
#include "trainer/loss/loss.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define V_MAX 64
/* FP32 on both sides over sums of a few dozen terms: differences stay near 1e-6 of the largest number. */
#define LOGIT_TOLERANCE 2e-5
#define GRAD_TOLERANCE 5e-5

struct fixture {
    struct lb_model *model;
    struct lb_safetensors *expected;
    struct lb_tape *tape;
    struct lb_input in;
    int64_t n, v, rows; /* ids, columns and rows of logits */
    const int32_t *labels;
    const float *target; /* NULL: cross entropy alone */
    const float *logits;
    int64_t first; /* row of logits that a piece begins at */
    double loss, worst;
};

static const struct lb_tensor *want(const struct fixture *f, const char *name) {
    const struct lb_tensor *t = lb_safetensors_find(f->expected, name);
    if (t == NULL) {
        fail_msg("expected.safetensors lacks %s", name);
    }
    return t;
}

static void open_case(struct fixture *f, const char *name, bool trainable) {
    char path[512];
    struct lb_detail detail = {0};
    memset(f, 0, sizeof *f);
    snprintf(path, sizeof path, "%s/tests/golden/model/%s", getenv("LB_SOURCE_ROOT"), name);
    if (lb_model_open(path, trainable, &f->model, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    (void)lb_model_disable_dropout(f->model); /* as PyTorch's in eval() */
    snprintf(path, sizeof path, "%s/tests/golden/model/%s/expected.safetensors", getenv("LB_SOURCE_ROOT"),
             name);
    if (lb_safetensors_open(path, &f->expected, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    const struct lb_tensor *offsets = want(f, "offsets");
    f->in.ragged = (struct lb_ragged){offsets->dim[0] - 1, offsets->data};
    f->in.ids = want(f, "ids")->data;
    f->n = want(f, "ids")->dim[0];
    if (lb_safetensors_find(f->expected, "logits") != NULL) {
        f->labels = want(f, "labels")->data;
        f->v = want(f, "logits")->dim[1];
        f->rows = want(f, "logits")->dim[0];
        f->logits = want(f, "logits")->data;
    }
    f->tape = lb_tape_create((size_t)1 << 30);
    assert_non_null(f->tape);
}

static void close_case(struct fixture *f) {
    lb_tape_destroy(f->tape);
    lb_model_destroy(f->model);
    lb_safetensors_destroy(f->expected);
}

/* Largest difference, relative to the largest number expected. */
static double difference(const float *have, const float *expected, int64_t n) {
    double most = 0, scale = 1e-6;
    for (int64_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)have[i] - expected[i]));
        scale = fmax(scale, fabs((double)expected[i]));
    }
    return most / scale;
}

static enum lb_status compare_logits(void *context, int64_t row, int64_t n, float *z) {
    struct fixture *f = context;
    f->worst = fmax(f->worst, difference(z, f->logits + row * f->v, n * f->v));
    return LB_OK;
}

static void check_forward(const char *name) {
    struct fixture f;
    open_case(&f, name, false);
    int layers = (int)lb_model_config(f.model)->num_hidden_layers;
    struct lb_tap taps[16];
    size_t n_taps = 0;
    for (int l = 0; l <= layers; l++) {
        taps[n_taps++] = (struct lb_tap){LB_TAP_HIDDEN, l, NULL};
    }
    for (int l = 0; l < layers; l++) {
        taps[n_taps++] = (struct lb_tap){LB_TAP_ATTENTION, l, NULL};
    }
    lb_tape_begin(f.tape, LB_TAPE_PLAIN, &f.in.ragged, NULL);
    struct lb_value *h = lb_model_forward(f.model, f.tape, &f.in, taps, n_taps, NULL);
    assert_non_null(h);
    if (f.logits != NULL) {
        assert_int_equal(lb_head_run(f.tape, h, lb_model_head(f.model), NULL, compare_logits, &f), LB_OK);
    }
    printf("%s: logits %.2e", name, f.worst);
    assert_true(f.worst < LOGIT_TOLERANCE);
    double worst = 0;
    for (size_t i = 0; i < n_taps; i++) {
        char tensor[64];
        const float *have = taps[i].value->data;
        if (taps[i].kind == LB_TAP_HIDDEN) {
            snprintf(tensor, sizeof tensor, "hidden_states.%d", taps[i].layer);
            worst = fmax(worst, difference(have, want(&f, tensor)->data, f.n * taps[i].value->cols));
            continue;
        }
        for (int64_t s = 0; s < f.in.ragged.n_seqs; s++) {
            snprintf(tensor, sizeof tensor, "attentions.%d.%d", taps[i].layer, (int)s);
            const struct lb_tensor *t = want(&f, tensor);
            int64_t count = t->dim[0] * t->dim[1] * t->dim[2];
            worst = fmax(worst, difference(have, t->data, count));
            have += count;
        }
    }
    printf(", states and attention %.2e\n", worst);
    assert_true(worst < LOGIT_TOLERANCE);
    close_case(&f);
}

/* Queries, keys and values as transformers' projections give them (make_qkv.py). */
static void check_qkv(const char *name) {
    static const char *const names[] = {"queries", "keys", "values"};
    struct fixture f;
    struct lb_detail detail = {0};
    struct lb_safetensors *expected = NULL;
    struct lb_tap taps[3 * 8];
    char path[512];
    size_t n_taps = 0;
    open_case(&f, name, false);
    snprintf(path, sizeof path, "%s/tests/golden/model/%s/qkv.safetensors", getenv("LB_SOURCE_ROOT"), name);
    if (lb_safetensors_open(path, &expected, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    for (int l = 0; l < lb_model_config(f.model)->num_hidden_layers; l++) {
        for (int i = 0; i < 3; i++) {
            taps[n_taps++] = (struct lb_tap){(enum lb_tap_kind)(LB_TAP_QUERIES + i), l, NULL};
        }
    }
    struct lb_rng rng;
    lb_rng_seed(&rng, 1, 0);
    double worst = 0;
    for (size_t n = 0; n < 2 * n_taps; n++) { /* served, and as training reads them */
        size_t i = n % n_taps;
        if (i == 0) {
            lb_tape_begin(f.tape, n == 0 ? LB_TAPE_PLAIN : LB_TAPE_TRAIN, &f.in.ragged, &rng);
            assert_non_null(lb_model_forward(f.model, f.tape, &f.in, taps, n_taps, NULL));
        }
        char tensor[64];
        snprintf(tensor, sizeof tensor, "%s.%d", names[i % 3], taps[i].layer);
        const struct lb_tensor *t = lb_safetensors_find(expected, tensor);
        assert_non_null(t);
        assert_int_equal(t->dim[0], f.n);
        assert_int_equal(t->dim[1], taps[i].value->cols);
        assert_int_equal(t->dim[1], lb_model_tap_width(f.model, taps[i].kind, taps[i].layer));
        worst = fmax(worst, difference(taps[i].value->data, t->data, f.n * t->dim[1]));
    }
    printf("%s: queries, keys, values %.2e\n", name, worst);
    assert_true(worst < LOGIT_TOLERANCE);
    lb_safetensors_destroy(expected);
    close_case(&f);
}

static void queries_keys_values(void **state) {
    (void)state;
    static const char *const cases[] = {"qwen2", "qwen3", "gpt2", "phi3", "gpt_neox", "bert", "distilbert"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_qkv(cases[i]);
    }
}

/* Logits of the rows of one piece of the last sequence, as generation reads it. */
static enum lb_status compare_piece(void *context, int64_t row, int64_t n, float *z) {
    struct fixture *f = context;
    f->worst = fmax(f->worst, difference(z, f->logits + (f->first + row) * f->v, n * f->v));
    return LB_OK;
}

/* The last sequence behind its own keys and values, in pieces, gives what it gives as a whole. Where
 * frequencies go by the length the pieces are of one kind: keys that are held are not turned again. */
static void check_generation(const char *name, int64_t from) {
    struct fixture f;
    open_case(&f, name, false);
    const int32_t *offsets = f.in.ragged.offsets + f.in.ragged.n_seqs - 1;
    int64_t total = offsets[1] - offsets[0], at = 0;
    struct lb_kv kv;
    assert_int_equal(lb_kv_init(&kv, f.model, 1, &total), LB_OK);
    for (int64_t n = from; at < total; at += n, n = at % 3 + 1 < total - at ? at % 3 + 1 : total - at) {
        int32_t piece[2] = {0, (int32_t)n};
        struct lb_input in = {.ragged = {1, piece}, .ids = f.in.ids + offsets[0] + at};
        f.first = offsets[0] + at;
        lb_tape_begin(f.tape, LB_TAPE_PLAIN, &in.ragged, NULL);
        struct lb_value *h = lb_model_forward(f.model, f.tape, &in, NULL, 0, &kv);
        assert_int_equal(lb_head_run(f.tape, h, lb_model_head(f.model), NULL, compare_piece, &f), LB_OK);
    }
    printf("%s: generation %.2e\n", name, f.worst);
    assert_true(f.worst < LOGIT_TOLERANCE);
    lb_kv_finish(&kv);
    close_case(&f);
}

static enum lb_status losses(void *context, int64_t row, int64_t n, float *z) {
    struct fixture *f = context;
    bool kd = f->target != NULL;
    for (int64_t i = 0; i < n; i++) {
        float dz[V_MAX] = {0}, *zi = z + i * f->v, scale = (float)((kd ? 0.5 : 1.0) / (double)f->rows);
        static float memory[4 * V_MAX];
        struct lb_row one;
        const struct lb_loss_args args = {.weight = 1, .temperature = 2};
        struct lb_target t = {.kind = LB_TARGET_DENSE, .temperature = 2};
        assert_true(lb_row_floats(f->v, 2) <= sizeof memory / sizeof *memory);
        lb_row_init(&one, f->v, 2, memory);
        lb_row_begin(&one, zi, f->labels[row + i]);
        f->loss += scale * lb_loss_find("cross_entropy")->row(&one, NULL, &args, scale, dz);
        if (kd) {
            t.p = f->target + (row + i) * f->v;
            for (int64_t j = 0; j < f->v; j++) {
                t.neg_entropy += t.p[j] * log(t.p[j]);
            }
            f->loss += scale * lb_loss_find("kl")->row(&one, &t, &args, scale, dz);
        }
        memcpy(zi, dz, (size_t)f->v * sizeof *zi);
    }
    return LB_OK;
}

/* The gradient of a matrix that Hugging Face's files hold transposed, as it lies there. */
static float *turn(const struct lb_weight *w) {
    float *to = malloc((size_t)(w->rows * w->cols) * sizeof *to);
    assert_non_null(to);
    for (int64_t r = 0; r < w->rows; r++) {
        for (int64_t c = 0; c < w->cols; c++) {
            to[c * w->rows + r] = w->grad[r * w->cols + c];
        }
    }
    return to;
}

/* A bias of keys moves all scores of a row alike, which softmax does not see: what stands there is rounding.
 */
static bool is_nothing(const struct lb_weight *w) {
    bool of_keys = strstr(w->name, ".key.bias") != NULL || strstr(w->name, ".k_lin.bias") != NULL;
    for (int64_t i = 0; of_keys && i < w->cols; i++) {
        assert_true(fabsf(w->grad[i]) < 1e-4f);
    }
    return of_keys;
}

static void check_backward(const char *name, bool kd) {
    struct fixture f;
    open_case(&f, name, true);
    f.target = kd ? want(&f, "target")->data : NULL;
    lb_tape_begin(f.tape, LB_TAPE_TRAIN, &f.in.ragged, NULL);
    struct lb_value *h = lb_model_forward(f.model, f.tape, &f.in, NULL, 0, NULL);
    assert_int_equal(lb_head_run(f.tape, h, lb_model_head(f.model), NULL, losses, &f), LB_OK);
    assert_int_equal(lb_tape_backward(f.tape), LB_OK);
    double expected = ((const float *)want(&f, kd ? "kd_loss" : "loss")->data)[0], worst = 0;
    assert_true(fabs(f.loss - expected) < 1e-5 * expected);
    size_t n;
    const struct lb_weight *w = lb_model_weights(f.model, &n);
    for (size_t i = 0; i < n; i++) {
        char tensor[160];
        snprintf(tensor, sizeof tensor, "%s%s", kd ? "kd_grad." : "grad.", w[i].name);
        float *turned = strstr(w[i].name, ".c_") != NULL && w[i].n_dims == 2 ? turn(&w[i]) : NULL;
        double d = is_nothing(&w[i]) ? 0
                                     : difference(turned != NULL ? turned : w[i].grad, want(&f, tensor)->data,
                                                  w[i].rows * w[i].cols);
        free(turned);
        worst = fmax(worst, d);
        if (d > GRAD_TOLERANCE) {
            fail_msg("%s: gradient differs from PyTorch's by %.2e", tensor, d);
        }
    }
    printf("%s: %s %.6f, gradients of %zu tensors differ by at most %.2e\n", name, kd ? "kd" : "ce", f.loss,
           n, worst);
    close_case(&f);
}

static void forward_tied(void **state) {
    (void)state;
    check_forward("tied");
}

static void forward_untied(void **state) {
    (void)state;
    check_forward("untied");
}

/* Families that are rows of the decoder's table, and kinds of rotary positions; sequences leave every window
 * and every length before stretching. */
static const char *const families[] = {
    "rope_linear",     "rope_dynamic", "rope_yarn", "rope_yarn_more", "rope_llama3",
    "rope_longrope",   "mistral",      "qwen2",     "mistral_window", "ministral",
    "qwen2_window",    "qwen3",        "gemma2",    "gemma3",         "smollm3",
    "olmo2",           "granite",      "phi3",      "gpt2",           "gpt_neox",
    "gpt_neox_serial", "gemma3_sees",  "qwen3_moe", "olmoe",          "mixtral",
};
#define N_FAMILIES (sizeof families / sizeof *families)

static void forward_families(void **state) {
    (void)state;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        check_forward(families[i]);
    }
}

static void generation(void **state) {
    (void)state;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        bool by_length = strcmp(families[i], "rope_dynamic") == 0 ||
                         strcmp(families[i], "rope_longrope") == 0 || strcmp(families[i], "phi3") == 0;
        check_generation(families[i], by_length ? 23 : 3);
    }
}

/* What is written, id by id. */
struct written {
    int32_t ids[64];
    int64_t n;
};

static enum lb_status write_id(void *context, int32_t id) {
    struct written *w = context;
    w->ids[w->n++] = id;
    return LB_OK;
}

/* The likeliest ids, each from the whole text before it, across the length where keys are turned anew. */
static void generation_across_lengths(void **state) {
    (void)state;
    static const char *const names[] = {"rope_longrope", "phi3"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct fixture f;
        struct written w = {{7, 3, 5, 1}, 4}, whole = w;
        open_case(&f, names[i], false);
        const struct lb_generate_args args = {.max_new_tokens = 20, .top_p = 1};
        assert_int_equal(lb_generate(f.model, whole.ids, 4, &args, write_id, &w, NULL), LB_OK);
        assert_int_equal(w.n, 24);
        const struct lb_generate_args one = {.max_new_tokens = 1, .top_p = 1};
        while (whole.n < 24) {
            int64_t n = whole.n;
            assert_int_equal(lb_generate(f.model, whole.ids, n, &one, write_id, &whole, NULL), LB_OK);
        }
        assert_memory_equal(whole.ids, w.ids, sizeof w.ids);
        close_case(&f);
    }
}

static void backward_families(void **state) {
    (void)state;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        check_backward(families[i], false);
    }
    check_backward("qwen2", true);
}

/* ---- encoders: no logits, but sentences ---- */

static const char *const encoders[] = {"bert", "roberta", "distilbert"};
#define N_ENCODERS (sizeof encoders / sizeof *encoders)

static double compare_pooled(struct fixture *f, struct lb_value *h, enum lb_pool_kind kind,
                             const char *name) {
    struct lb_value *pooled = lb_pool(f->tape, h, kind, true);
    assert_non_null(pooled);
    assert_int_equal(pooled->rows, f->in.ragged.n_seqs);
    return difference(pooled->data, want(f, name)->data, pooled->rows * pooled->cols);
}

static void check_sentences(const char *name) {
    struct fixture f;
    open_case(&f, name, false);
    const struct lb_config *c = lb_model_config(f.model);
    assert_true(strcmp(name, "roberta") != 0 || /* the rows up to pad's are no text's */
                c->max_position_embeddings == c->position_rows - c->pad_token_id - 1);
    lb_tape_begin(f.tape, LB_TAPE_PLAIN, &f.in.ragged, NULL);
    struct lb_value *h = lb_model_forward(f.model, f.tape, &f.in, NULL, 0, NULL);
    assert_true(compare_pooled(&f, h, LB_POOL_MEAN, "sentence_mean") < LOGIT_TOLERANCE);
    assert_true(compare_pooled(&f, h, LB_POOL_FIRST, "sentence_first") < LOGIT_TOLERANCE);
    const struct lb_tensor *pads = want(&f, "pad_ids");
    int32_t offsets[2] = {0, (int32_t)pads->dim[0]};
    const struct lb_input in = {.ragged = {1, offsets}, .ids = pads->data};
    lb_tape_begin(f.tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    h = lb_model_forward(f.model, f.tape, &in, NULL, 0, NULL);
    assert_true(difference(h->data, want(&f, "pad_states")->data, h->rows * h->cols) < LOGIT_TOLERANCE);
    close_case(&f);
}

/* What a loss does: its gradient, over that of others. */
static void give_gradient(struct fixture *f, struct lb_value *v, const char *name) {
    const float *target = want(f, name)->data;
    assert_non_null(v);
    bool fresh = lb_grad_fresh(f->tape, v);
    for (int64_t i = 0; i < v->rows * v->cols; i++) {
        v->grad[i] = target[i] + (fresh ? 0 : v->grad[i]);
    }
}

static void check_encoder_backward(const char *name) {
    struct fixture f;
    open_case(&f, name, true);
    lb_tape_begin(f.tape, LB_TAPE_TRAIN, &f.in.ragged, NULL);
    struct lb_value *h = lb_model_forward(f.model, f.tape, &f.in, NULL, 0, NULL);
    give_gradient(&f, lb_pool(f.tape, h, LB_POOL_MEAN, true), "sentence_target");
    give_gradient(&f, h, "states_target");
    assert_int_equal(lb_tape_backward(f.tape), LB_OK);
    size_t n;
    double worst = 0;
    const struct lb_weight *w = lb_model_weights(f.model, &n);
    for (size_t i = 0; i < n; i++) {
        char tensor[160];
        snprintf(tensor, sizeof tensor, "grad.%s", w[i].name);
        double d =
            is_nothing(&w[i]) ? 0 : difference(w[i].grad, want(&f, tensor)->data, w[i].rows * w[i].cols);
        worst = fmax(worst, d);
        if (d > GRAD_TOLERANCE) {
            fail_msg("%s: gradient differs from PyTorch's by %.2e", tensor, d);
        }
    }
    printf("%s: gradients of %zu tensors differ by at most %.2e\n", name, n, worst);
    close_case(&f);
}

/* ---- classifiers of texts: one row of logits a sequence ---- */

static const char *const classifiers[] = {"bert_classes", "roberta_classes", "distilbert_classes",
                                          "qwen3_classes"};
#define N_CLASSIFIERS (sizeof classifiers / sizeof *classifiers)

static void forward_classifiers(void **state) {
    (void)state;
    for (size_t i = 0; i < N_CLASSIFIERS; i++) {
        check_forward(classifiers[i]);
    }
    struct fixture f;
    open_case(&f, "bert_classes", false);
    assert_string_equal(lb_model_labels(f.model)->names[2], "hot");
    assert_int_equal(lb_model_labels(f.model)->problem, LB_PROBLEM_SINGLE);
    close_case(&f);
    open_case(&f, "distilbert_classes", false);
    assert_int_equal(lb_model_labels(f.model)->n, 2);
    assert_true(lb_labels_plain(lb_model_labels(f.model)));
    close_case(&f);
}

static void backward_classifiers(void **state) {
    (void)state;
    for (size_t i = 0; i < N_CLASSIFIERS; i++) {
        check_backward(classifiers[i], false);
    }
}

static void forward_encoders(void **state) {
    (void)state;
    for (size_t i = 0; i < N_ENCODERS; i++) {
        check_forward(encoders[i]);
        check_sentences(encoders[i]);
    }
}

static void backward_encoders(void **state) {
    (void)state;
    for (size_t i = 0; i < N_ENCODERS; i++) {
        check_encoder_backward(encoders[i]);
    }
}

static void backward_tied(void **state) {
    (void)state;
    check_backward("tied", false);
    check_backward("tied", true);
}

static void backward_untied(void **state) {
    (void)state;
    check_backward("untied", false);
    check_backward("untied", true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_tied),        cmocka_unit_test(forward_untied),
        cmocka_unit_test(backward_tied),       cmocka_unit_test(backward_untied),
        cmocka_unit_test(forward_families),    cmocka_unit_test(backward_families),
        cmocka_unit_test(generation),          cmocka_unit_test(generation_across_lengths),
        cmocka_unit_test(forward_encoders),    cmocka_unit_test(backward_encoders),
        cmocka_unit_test(forward_classifiers), cmocka_unit_test(backward_classifiers),
        cmocka_unit_test(queries_keys_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
