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
#include "tests/support/drawn_texts.h"
#include "tests/support/scratch.h"
#include "tests/support/tiny_model.h"
#include "trainer/run/evaluate.h"
#include "trainer/run/export.h"
#include "trainer/run/width.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 20
#define V 97

static struct lb_text_row rows[ROWS];
static int32_t ids[ROWS * 24];
static struct lb_dataset data;

static void make_texts(void) {
    lb_draw_texts(&data, ROWS, V, rows, ids);
}

static struct lb_model *make(void (*config_of)(struct lb_config *)) {
    struct lb_config config;
    struct lb_model *model = NULL;
    config_of(&config);
    config.initializer_range = 0.5;
    assert_int_equal(lb_model_create(&config, 3, &model, NULL), LB_OK);
    return model;
}

static struct lb_value *read_text(const struct lb_model *model, struct lb_tape *tape, int i,
                                  struct lb_tap *taps, size_t n_taps) {
    static int32_t offsets[2];
    static struct lb_input in; /* what the tape reads of it the head reads later */
    offsets[1] = (int32_t)rows[i].n;
    in = (struct lb_input){.ragged = {1, offsets}, .ids = ids + rows[i].start};
    lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    struct lb_value *h = lb_model_forward(model, tape, &in, taps, n_taps, NULL);
    assert_non_null(h);
    return h;
}

/* Text by text, in long double; the same bits with other threads. */
static void is_the_size_of_activations(void **state) {
    (void)state;
    struct lb_model *model = make(lb_tiny_llama);
    const struct lb_config *c = lb_model_config(model);
    int64_t layers = c->num_hidden_layers, f = c->intermediate_size, g = c->num_key_value_heads,
            each = c->num_attention_heads / g * c->head_dim, n = 0;
    double neurons[512], heads[16], again[512], again_heads[16];
    assert_true(layers * f <= 512 && layers * g <= 16 && g > 1 && c->num_attention_heads > g);
    make_texts();
    assert_int_equal(lb_width_importance(model, &data, NULL, neurons, heads, &n, NULL), LB_OK);
    assert_int_equal(n, ROWS * (ROWS + 1) / 2);
    omp_set_num_threads(5);
    assert_int_equal(lb_width_importance(model, &data, NULL, again, again_heads, &n, NULL), LB_OK);
    omp_set_num_threads(2);
    assert_memory_equal(neurons, again, (size_t)(layers * f) * sizeof(double));
    assert_memory_equal(heads, again_heads, (size_t)(layers * g) * sizeof(double));
    struct lb_tape *tape = lb_tape_create((size_t)64 << 20);
    for (int l = 0; l < layers; l++) {
        for (int64_t u = 0; u < f + g; u++) {
            bool head = u >= f;
            long double sum = 0;
            for (int i = 0; i < ROWS; i++) {
                struct lb_tap tap = {head ? LB_TAP_HEADS : LB_TAP_NEURONS, l, NULL};
                read_text(model, tape, i, &tap, 1);
                assert_int_equal(tap.value->cols, head ? c->num_attention_heads * c->head_dim : f);
                long double mean = 0;
                for (int64_t t = 0; t < rows[i].n; t++) {
                    const float *x = tap.value->data + t * tap.value->cols;
                    long double square = 0;
                    for (int64_t k = 0; k < each; k++) {
                        long double one = head ? x[(u - f) * each + k] : k == 0 ? x[u] : 0;
                        square += one * one;
                    }
                    mean += sqrtl(square) / (long double)rows[i].n;
                }
                sum += mean * mean;
            }
            double want = (double)sqrtl(sum), have = head ? heads[l * g + u - f] : neurons[l * f + u];
            assert_true(fabs(have - want) <= 1e-9 * want && want > 0);
        }
    }
    lb_tape_destroy(tape);
    lb_model_destroy(model);
}

static float *weight(const struct lb_model *model, const char *pattern, int layer, int64_t *cols) {
    char name[96];
    snprintf(name, sizeof name, pattern, layer);
    const struct lb_weight *w = lb_model_find(model, name);
    assert_non_null(w);
    *cols = w->cols;
    return w->value;
}

static void zero_rows(const struct lb_model *model, const char *pattern, int layer, int64_t first,
                      int64_t n) {
    int64_t cols;
    float *w = weight(model, pattern, layer, &cols);
    memset(w + first * cols, 0, (size_t)(n * cols) * sizeof *w);
}

struct logits {
    float z[32 * V];
};

static enum lb_status keep(void *context, int64_t row, int64_t n, float *z) {
    memcpy(((struct logits *)context)->z + row * V, z, (size_t)(n * V) * sizeof *z);
    return LB_OK;
}

/* Neurons and heads that are always 0 have no importance, and without them the model says the same; so does
 * what is exported and opened again. */
static void nothing_is_lost_with_what_does_nothing(void **state) {
    (void)state;
    struct lb_model *model = make(lb_tiny_llama), *narrow = NULL, *wide = NULL;
    const struct lb_config *c = lb_model_config(model);
    int64_t layers = c->num_hidden_layers, f = c->intermediate_size, g = c->num_key_value_heads, n = 0;
    double neurons[512], heads[16];
    int64_t kept[512], kept_heads[16];
    make_texts();
    for (int l = 0; l < layers; l++) { /* others in each block */
        for (int64_t u = l; u < f; u += 3) {
            zero_rows(model, "model.layers.%d.mlp.up_proj.weight", l, u, 1);
        }
        zero_rows(model, "model.layers.%d.self_attn.v_proj.weight", l, l % g * c->head_dim, c->head_dim);
    }
    assert_int_equal(lb_width_importance(model, &data, NULL, neurons, heads, &n, NULL), LB_OK);
    int64_t stay = f - (f + 2) / 3;
    assert_true(lb_most_important(neurons, layers, f, stay, kept));
    assert_true(lb_most_important(heads, layers, g, g - 1, kept_heads));
    for (int64_t i = 0; i < layers * stay; i++) {
        assert_true(neurons[i / stay * f + kept[i]] > 0 && (i % stay == 0 || kept[i] > kept[i - 1]));
    }
    for (int l = 0; l < layers; l++) {
        assert_true(heads[l * g + l % g] == 0);
    }
    const struct lb_narrowing how = {stay, kept, g - 1, kept_heads};
    assert_int_equal(lb_model_narrow(model, &how, &narrow, NULL), LB_OK);
    assert_int_equal(lb_model_config(narrow)->intermediate_size, stay);
    assert_int_equal(lb_model_config(narrow)->num_attention_heads, c->num_attention_heads / g * (g - 1));
    const struct lb_narrowing all = {0};
    assert_int_equal(lb_model_narrow(model, &all, &wide, NULL), LB_OK);
    static struct logits a, b, same;
    struct lb_tape *tape = lb_tape_create((size_t)64 << 20);
    for (int i = 0; i < ROWS; i++) {
        double most = 0;
        assert_int_equal(
            lb_head_run(tape, read_text(model, tape, i, NULL, 0), lb_model_head(model), NULL, keep, &a),
            LB_OK);
        assert_int_equal(
            lb_head_run(tape, read_text(narrow, tape, i, NULL, 0), lb_model_head(narrow), NULL, keep, &b),
            LB_OK);
        assert_int_equal(
            lb_head_run(tape, read_text(wide, tape, i, NULL, 0), lb_model_head(wide), NULL, keep, &same),
            LB_OK);
        for (int64_t k = 0; k < rows[i].n * V; k++) {
            most = fmax(most, fabs((double)a.z[k] - (double)b.z[k]));
        }
        if (!(most < 1e-4)) {
            fail_msg("text %d: logits differ by %g", i, most);
        }
        assert_memory_equal(a.z, same.z, (size_t)(rows[i].n * V) * sizeof(float));
    }
    lb_tape_destroy(tape);
    char *path = lb_path_join(lb_scratch, "narrow");
    double difference = -1;
    assert_int_equal(lb_export(narrow, NULL, LB_EXPORT_HF, LB_F32, path, NULL, NULL, &difference, NULL, NULL),
                     LB_OK);
    assert_true(difference == 0);
    lb_free(path);
    lb_model_destroy(model);
    lb_model_destroy(narrow);
    lb_model_destroy(wide);
}

static const char glosses[] =
    "oak, oak tree: a large tree that bears acorns\n"
    "river: a large natural stream of water that flows to the sea\n"
    "teacher, instructor: a person whose occupation is teaching\n"
    "hammer: a hand tool with a heavy head used to strike nails\n"
    "sparrow: a small brown bird that eats seeds\n"
    "fever: a rise in the temperature of the body that is a symptom of disease\n"
    "king: a male ruler of a country\n"
    "violin, fiddle: a musical instrument with four strings that is played with a bow\n"
    "bread: food made from flour or meal and baked\n"
    "harbor, port: a place where ships can take on or unload their cargo\n"
    "lawyer, attorney: a person who is trained in law and acts for others\n"
    "granite: a hard rock of the crust of the earth\n"
    "winter: the coldest season of the year\n"
    "letter: a written message that is sent to a person\n"
    "kidney: an organ of the body that makes urine\n"
    "general: an officer of the highest rank in an army\n"
    "rose: a plant of the genus Rosa with red, white or yellow flowers\n"
    "debt: money that is owed to another person\n"
    "salmon: a large fish that is caught for food\n"
    "church: a building for public worship\n"
    "anger: a strong feeling of displeasure\n"
    "copper: a red metal that is used for wire\n"
    "bridge: a structure that lets people or vehicles cross a river\n"
    "poet: a writer of poems\n";

static double perplexity(const struct lb_model *model, const struct lb_narrowing *how,
                         const struct lb_dataset *texts) {
    static struct lb_evaluation e;
    struct lb_model *narrow = NULL;
    assert_int_equal(lb_model_narrow(model, how, &narrow, NULL), LB_OK);
    assert_int_equal(lb_evaluate(narrow, texts, NULL, &e, NULL), LB_OK);
    lb_model_destroy(narrow);
    return e.all.perplexity;
}

/* Any n of width units in each block: the first, or drawn. */
static void take(int64_t layers, int64_t width, int64_t n, uint64_t seed, int64_t *kept) {
    double *by = malloc((size_t)(layers * width) * sizeof *by);
    struct lb_rng rng;
    assert_non_null(by);
    lb_rng_seed(&rng, seed, 0);
    for (int64_t i = 0; i < layers * width; i++) {
        by[i] = seed > 0 ? lb_rng_double(&rng) : 0;
    }
    assert_true(lb_most_important(by, layers, width, n, kept));
    free(by);
}

/* The WordNet example's teacher, before any training: what importance keeps predicts other text better than
 * the first ones, and than ones that are drawn. */
static void importance_beats_chance(void **state) {
    (void)state;
    const char *root = getenv("LB_SOURCE_ROOT");
    char teacher[512], file[2][512];
    struct lb_model *model = NULL;
    struct lb_tokenizer *tokenizer = NULL;
    struct lb_dataset *texts[2];
    struct lb_recipe frame = {.directory = ".", .max_length = 64};
    lb_arena_init(&frame.arena, 1 << 20);
    assert_non_null(root);
    snprintf(teacher, sizeof teacher, "%s/examples/wordnet/teachers/nouns", root);
    assert_int_equal(lb_model_open(teacher, false, &model, NULL), LB_OK);
    assert_int_equal(lb_tokenizer_open(teacher, &tokenizer, NULL), LB_OK);
    size_t len = strlen(glosses), half = (size_t)(strstr(glosses, "winter:") - glosses);
    for (int i = 0; i < 2; i++) { /* measured by the first half, judged by the other */
        snprintf(file[i], sizeof file[i], "%s/half%d.txt", lb_scratch, i);
        assert_int_equal(
            lb_file_replace(file[i], glosses + (i == 0 ? 0 : half), i == 0 ? half : len - half, NULL), LB_OK);
        struct lb_recipe_dataset entry = {.path = file[i], .type = LB_DATA_TEXT};
        assert_int_equal(lb_dataset_open(&frame, &entry, 1, true, tokenizer, 0, NULL, &texts[i], NULL),
                         LB_OK);
    }
    const struct lb_config *c = lb_model_config(model);
    int64_t layers = c->num_hidden_layers, wide[2] = {c->intermediate_size, c->num_key_value_heads}, n = 0;
    double *importance[2];
    int64_t *kept = malloc((size_t)(layers * wide[0]) * sizeof *kept);
    for (int i = 0; i < 2; i++) {
        importance[i] = malloc((size_t)(layers * wide[i]) * sizeof(double));
    }
    assert_int_equal(lb_width_importance(model, texts[0], NULL, importance[0], importance[1], &n, NULL),
                     LB_OK);
    for (int i = 0; i < 2; i++) {
        int64_t stay = i == 0 ? wide[i] / 2 : wide[i] - 2;
        const struct lb_narrowing how = {stay, i == 0 ? kept : NULL, stay, i == 1 ? kept : NULL};
        double drawn = 0;
        assert_true(lb_most_important(importance[i], layers, wide[i], stay, kept));
        double best = perplexity(model, &how, texts[1]);
        take(layers, wide[i], stay, 0, kept);
        double first = perplexity(model, &how, texts[1]);
        for (uint64_t seed = 1; seed <= 3; seed++) {
            take(layers, wide[i], stay, seed, kept);
            drawn += perplexity(model, &how, texts[1]) / 3;
        }
        printf("%s: %.1f by importance, %.1f the first, %.1f drawn\n", i == 0 ? "neurons" : "heads", best,
               first, drawn);
        assert_true(best < first && best < drawn);
        free(importance[i]);
    }
    free(kept);
    lb_dataset_destroy(texts[0]);
    lb_dataset_destroy(texts[1]);
    lb_arena_finish(&frame.arena);
    lb_tokenizer_destroy(tokenizer);
    lb_model_destroy(model);
}

static void what_cannot_be(void **state) {
    (void)state;
    double out[512], heads[16];
    int64_t n = -1;
    const struct lb_narrowing nothing = {0};
    void (*const configs[])(struct lb_config *) = {lb_tiny_bert, lb_tiny_mlp};
    make_texts();
    for (int i = 0; i < 2; i++) {
        struct lb_model *model = make(configs[i]), *narrow = NULL;
        struct lb_detail detail = {0};
        assert_int_equal(lb_width_importance(model, &data, NULL, out, heads, &n, &detail), LB_E_UNSUPPORTED);
        assert_non_null(strstr(detail.text, "is not made narrower"));
        assert_int_equal(lb_model_narrow(model, &nothing, &narrow, NULL), LB_E_UNSUPPORTED);
        assert_null(narrow);
        lb_model_destroy(model);
    }
    struct lb_model *model = make(lb_tiny_llama);
    volatile sig_atomic_t stop = 1;
    assert_int_equal(lb_width_importance(model, &data, &stop, out, heads, &n, NULL), LB_E_CANCELLED);
    assert_int_equal(n, -1);
    lb_model_destroy(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(is_the_size_of_activations),
                                       cmocka_unit_test(nothing_is_lost_with_what_does_nothing),
                                       cmocka_unit_test(importance_beats_chance),
                                       cmocka_unit_test(what_cannot_be)};
    return cmocka_run_group_tests(tests, lb_scratch_make, lb_scratch_remove);
}
