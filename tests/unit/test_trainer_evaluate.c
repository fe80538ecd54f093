#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/nn/head.h"
#include "common/nn/tape.h"
#include "tests/support/scratch.h"
#include "tests/support/tiny_model.h"
#include "trainer/data/parts.h"
#include "trainer/run/evaluate.h"
#include "trainer/run/export.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 9

static struct lb_model *make_model(void (*config_of)(struct lb_config *)) {
    struct lb_config config;
    struct lb_model *model = NULL;
    config_of(&config);
    config.initializer_range = 0.5; /* far from uniform */
    assert_int_equal(lb_model_create(&config, 3, &model, NULL), LB_OK);
    return model;
}

/* Nine rows of text of lengths 1 to 17 under two tags and none. */
struct texts {
    struct lb_dataset data;
    int32_t ids[ROWS * 18];
    char *tags[2];
    int64_t tag_bytes[2];
};

static void make_texts(struct texts *t, int64_t vocab) {
    static char even[] = "even", odd[] = "odd";
    struct lb_rng rng;
    lb_rng_seed(&rng, 5, 0);
    *t = (struct texts){.tags = {even, odd}, .tag_bytes = {100, 200}};
    t->data = (struct lb_dataset){.tags = t->tags, .tag_bytes = t->tag_bytes, .n_tags = 2, .bytes = 350};
    int64_t at = 0;
    for (int i = 0; i < ROWS; i++) {
        int64_t n = 1 + 2 * i;
        const struct lb_text_row row = {at, n, i == ROWS - 1 ? -1 : i % 2};
        for (int64_t k = 0; k <= n; k++) {
            t->ids[at + k] = (int32_t)lb_rng_below(&rng, (uint64_t)vocab);
        }
        assert_int_equal(lb_text_add_ids(&t->data, t->ids + at, n + 1, NULL), LB_OK);
        assert_int_equal(lb_text_add_row(&t->data, &row, NULL), LB_OK);
        at += n + 1;
    }
}

struct rows {
    float *z;
    int64_t v;
};

static enum lb_status copy_rows(void *context, int64_t row, int64_t n, float *z) {
    struct rows *r = context;
    memcpy(r->z + row * r->v, z, (size_t)(n * r->v) * sizeof(float));
    return LB_OK;
}

/* Sums of 15 bins of confidence, each counted by itself. */
static double bin_confidence[15], bin_correct[15];

/* The calibration error of what row_nats has seen since the last call. */
static double calibration(int64_t n) {
    double apart = 0;
    for (int b = 0; b < 15; b++) {
        apart += fabs(bin_confidence[b] - bin_correct[b]);
        bin_confidence[b] = bin_correct[b] = 0;
    }
    return apart / (double)n;
}

/* One row's cross entropy by itself, the long way. */
static double row_nats(const struct lb_model *model, const struct lb_sample *s, int *correct) {
    static float z[64 * 128];
    int32_t offsets[2] = {0, (int32_t)s->n};
    struct lb_input in = {.ragged = {1, offsets}, .ids = s->ids, .features = s->features};
    struct lb_tape *tape = lb_tape_create((size_t)64 << 20);
    struct rows r = {z, lb_model_head(model)->weight->rows};
    lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    struct lb_value *h = lb_model_forward(model, tape, &in, NULL, 0, NULL);
    assert_int_equal(lb_head_run(tape, h, lb_model_head(model), NULL, copy_rows, &r), LB_OK);
    lb_tape_destroy(tape);
    long double nats = 0;
    for (int64_t t = 0; t < s->n; t++) {
        int32_t label = s->ids != NULL ? s->ids[t + 1] : s->label;
        long double sum = 0;
        bool best = true;
        for (int64_t j = 0; j < r.v; j++) {
            sum += expl((long double)z[t * r.v + j]);
            best = best && z[t * r.v + j] <= z[t * r.v + label];
        }
        nats += logl(sum) - (long double)z[t * r.v + label];
        *correct += best;
        long double most = 0;
        for (int64_t j = 0; j < r.v; j++) {
            most = fmaxl(most, expl((long double)z[t * r.v + j]) / sum);
        }
        for (int b = 0; b < 15; b++) {
            if (most > (long double)b / 15 && most <= (long double)(b + 1) / 15) {
                bin_confidence[b] += (double)most;
                bin_correct[b] += best;
            }
        }
    }
    return (double)nats;
}

static void expect_part(const struct lb_eval_part *p, double nats, int64_t tokens, int correct,
                        int64_t bytes) {
    assert_int_equal(p->tokens, tokens);
    assert_int_equal(p->correct, correct);
    assert_int_equal(p->bytes, bytes);
    assert_true(fabs(p->nats - nats) < 1e-6 * nats);
    assert_true(fabs(p->loss - p->nats / (double)tokens) < 1e-12);
    assert_true(fabs(p->perplexity - exp(p->loss)) < 1e-9);
    assert_true(bytes == 0 ? isnan(p->bits_per_byte)
                           : fabs(p->bits_per_byte - p->nats / log(2) / (double)bytes) < 1e-12);
    assert_true(fabs(p->error_percent - 100.0 * (double)(tokens - correct) / (double)tokens) < 1e-9);
}

static void text_by_parts(void **state) {
    (void)state;
    struct lb_model *model = make_model(lb_tiny_llama);
    static struct texts t;
    make_texts(&t, lb_model_config(model)->vocab_size);
    double nats[3] = {0}; /* even, odd, none */
    int64_t tokens[3] = {0};
    int correct[3] = {0};
    for (int i = 0; i < ROWS; i++) {
        struct lb_sample s;
        assert_int_equal(lb_dataset_get(&t.data, i, &s, NULL), LB_OK);
        int part = s.tag < 0 ? 2 : s.tag;
        nats[part] += row_nats(model, &s, &correct[part]);
        tokens[part] += s.n;
    }
    static struct lb_evaluation e, again;
    assert_int_equal(lb_evaluate(model, &t.data, NULL, &e, NULL), LB_OK);
    assert_true(fabs(e.ece - calibration(81)) < 1e-6);
    assert_true(e.text);
    assert_int_equal(e.n_parts, 2);
    assert_int_equal(e.n_classes, 0);
    assert_string_equal(e.part[1].name, "odd");
    expect_part(&e.all, nats[0] + nats[1] + nats[2], 81, correct[0] + correct[1] + correct[2], 350);
    expect_part(&e.part[0], nats[0], tokens[0], correct[0], 100);
    expect_part(&e.part[1], nats[1], tokens[1], correct[1], 200);
    assert_true(fabs(e.balanced_perplexity - sqrt(e.part[0].perplexity * e.part[1].perplexity)) <
                1e-9 * e.balanced_perplexity);
    /* The same bits with other batches. */
    for (int64_t rows = 1; rows <= 4; rows++) {
        const struct lb_evaluate_options options = {.rows = rows};
        assert_int_equal(lb_evaluate(model, &t.data, &options, &again, NULL), LB_OK);
        assert_memory_equal(&again.all.nats, &e.all.nats, sizeof(double));
    }
    volatile sig_atomic_t stop = 1;
    const struct lb_evaluate_options stopped = {.stop = &stop};
    assert_int_equal(lb_evaluate(model, &t.data, &stopped, &again, NULL), LB_E_CANCELLED);
    lb_text_rows_finish(&t.data);
    lb_model_destroy(model);
}

static void images_by_class(void **state) {
    (void)state;
    struct lb_model *model = make_model(lb_tiny_mlp);
    enum { WIDTH = 12, CLASSES = 5 };
    float features[ROWS * WIDTH];
    struct lb_image_row labels[ROWS];
    struct lb_rng rng;
    lb_rng_seed(&rng, 6, 0);
    for (int i = 0; i < ROWS * WIDTH; i++) {
        features[i] = lb_rng_float(&rng);
    }
    for (int i = 0; i < ROWS; i++) {
        labels[i] = (struct lb_image_row){i % 4, -1};
    }
    struct lb_dataset data = {
        .images = true, .count = ROWS, .features = features, .labels = labels, .n_features = WIDTH};
    double nats[CLASSES] = {0}, all = 0;
    int correct[CLASSES] = {0}, all_correct = 0;
    for (int i = 0; i < ROWS; i++) {
        struct lb_sample s;
        assert_int_equal(lb_dataset_get(&data, i, &s, NULL), LB_OK);
        double n = row_nats(model, &s, &correct[s.label]);
        nats[s.label] += n;
        all += n;
    }
    for (int c = 0; c < CLASSES; c++) {
        all_correct += correct[c];
    }
    static struct lb_evaluation e;
    assert_int_equal(lb_evaluate(model, &data, NULL, &e, NULL), LB_OK);
    assert_false(e.text);
    assert_true(fabs(e.ece - calibration(ROWS)) < 1e-6);
    assert_int_equal(e.n_classes, CLASSES);
    expect_part(&e.all, all, ROWS, all_correct, 0);
    expect_part(&e.classes[0], nats[0], 3, correct[0], 0);
    expect_part(&e.classes[3], nats[3], 2, correct[3], 0);
    assert_true(isnan(e.classes[4].error_percent));
    /* With a bias that outweighs all logits every image is of that class; one for all classes changes
     * nothing. */
    float bias[CLASSES + 1] = {0, 0, 0, 1000};
    static struct lb_evaluation raised;
    struct lb_evaluate_options options = {.bias = bias, .n_bias = 4};
    assert_int_equal(lb_evaluate(model, &data, &options, &raised, NULL), LB_OK);
    assert_int_equal(raised.all.correct, 2);
    assert_int_equal(raised.classes[3].correct, 2);
    assert_int_equal(raised.classes[0].correct, 0);
    for (int c = 0; c < CLASSES; c++) {
        bias[c] = 0.5f;
    }
    options.n_bias = CLASSES;
    assert_int_equal(lb_evaluate(model, &data, &options, &raised, NULL), LB_OK);
    assert_int_equal(raised.all.correct, all_correct);
    assert_true(fabs(raised.all.nats - all) < 1e-5 * all);
    struct lb_detail detail = {0};
    options.n_bias = CLASSES + 1;
    assert_int_equal(lb_evaluate(model, &data, &options, &raised, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "class 5"));
    detail = (struct lb_detail){0};
    data.n_features = WIDTH - 1;
    assert_int_equal(lb_evaluate(model, &data, NULL, &e, &detail), LB_E_MISMATCH);
    data.n_features = WIDTH;
    labels[3].label = CLASSES;
    detail = (struct lb_detail){0};
    assert_int_equal(lb_evaluate(model, &data, NULL, &e, &detail), LB_E_MISMATCH);
    assert_non_null(strstr(detail.text, "label 5"));
    lb_model_destroy(model);
}

static void wrong_texts(void **state) {
    (void)state;
    struct lb_model *model = make_model(lb_tiny_llama), *mlp = make_model(lb_tiny_mlp);
    static struct texts t;
    static struct lb_evaluation e;
    make_texts(&t, 97);
    struct lb_detail detail = {0};
    const int32_t beyond[] = {1, 97};
    const struct lb_text_row wrong = {lb_text_ids(&t.data), 1, -1};
    assert_int_equal(lb_text_add_ids(&t.data, beyond, 2, NULL), LB_OK);
    assert_int_equal(lb_text_add_row(&t.data, &wrong, NULL), LB_OK);
    assert_int_equal(lb_evaluate(model, &t.data, NULL, &e, &detail), LB_E_MISMATCH);
    assert_non_null(strstr(detail.text, "token 97"));
    lb_text_rows_finish(&t.data);
    make_texts(&t, 97);
    detail = (struct lb_detail){0};
    assert_int_equal(lb_evaluate(mlp, &t.data, NULL, &e, &detail), LB_E_MISMATCH);
    const float bias[] = {1};
    const struct lb_evaluate_options biased = {.bias = bias, .n_bias = 1};
    detail = (struct lb_detail){0};
    assert_int_equal(lb_evaluate(model, &t.data, &biased, &e, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "classifiers"));
    static int32_t long_ids[200];
    const struct lb_text_row too_long = {lb_text_ids(&t.data), 129, -1};
    assert_int_equal(lb_text_add_ids(&t.data, long_ids, 130, NULL), LB_OK);
    assert_int_equal(lb_text_add_row(&t.data, &too_long, NULL), LB_OK);
    detail = (struct lb_detail){0};
    assert_int_equal(lb_evaluate(model, &t.data, NULL, &e, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "lower max_length"));
    lb_text_rows_finish(&t.data);
    lb_model_destroy(model);
    lb_model_destroy(mlp);
}

static void exports_agree(void **state) {
    (void)state;
    struct lb_model *model = make_model(lb_tiny_llama), *mlp = make_model(lb_tiny_mlp);
    char *hf = lb_path_join(lb_scratch, "hf"), *gguf = lb_path_join(lb_scratch, "m.gguf"),
         *images = lb_path_join(lb_scratch, "mlp");
    double d = -1;
    struct lb_detail detail = {0};
    assert_int_equal(lb_export(model, NULL, LB_EXPORT_HF, LB_F32, hf, NULL, NULL, &d, NULL, &detail), LB_OK);
    assert_true(d == 0);
    assert_int_equal(lb_export(model, NULL, LB_EXPORT_HF, LB_BF16, hf, NULL, NULL, &d, NULL, &detail), LB_OK);
    assert_true(d > 0);
    assert_int_equal(lb_export(model, NULL, LB_EXPORT_GGUF, LB_F16, gguf, NULL, NULL, &d, NULL, &detail),
                     LB_OK);
    assert_true(d > 0);
    assert_int_equal(lb_export(mlp, NULL, LB_EXPORT_HF, LB_F32, images, NULL, NULL, &d, NULL, &detail),
                     LB_OK);
    assert_true(d == 0);
    assert_int_equal(lb_export(model, NULL, LB_EXPORT_HF, LB_Q8_0, hf, NULL, NULL, &d, NULL, &detail),
                     LB_E_ARG);
    /* Stopped: what an earlier one wrote stays, and nothing half-written. */
    volatile sig_atomic_t stop = 1;
    struct lb_buf before, after;
    lb_buf_init(&before, 1 << 24);
    lb_buf_init(&after, 1 << 24);
    assert_int_equal(lb_file_read(gguf, &before, NULL), LB_OK);
    for (int format = LB_EXPORT_HF; format <= LB_EXPORT_GGUF; format++) {
        detail = (struct lb_detail){0};
        assert_int_equal(lb_export(model, NULL, (enum lb_export_format)format, LB_F16,
                                   format == LB_EXPORT_HF ? hf : gguf, NULL, &stop, &d, NULL, &detail),
                         LB_E_CANCELLED);
        assert_non_null(strstr(detail.text, "stopped"));
    }
    assert_int_equal(lb_file_read(gguf, &after, NULL), LB_OK);
    assert_int_equal(after.len, before.len);
    assert_memory_equal(after.data, before.data, before.len);
    lb_buf_finish(&before);
    lb_buf_finish(&after);
    assert_int_equal(lb_export(model, NULL, LB_EXPORT_HF, LB_F32, hf, NULL, NULL, &d, NULL, NULL), LB_OK);
    lb_free(hf);
    lb_free(gguf);
    lb_free(images);
    lb_model_destroy(model);
    lb_model_destroy(mlp);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(text_by_parts), cmocka_unit_test(images_by_class),
                                       cmocka_unit_test(wrong_texts), cmocka_unit_test(exports_agree)};
    return cmocka_run_group_tests(tests, lb_scratch_make, lb_scratch_remove);
}
