/* Encoders as folders: what is written is read again, pooling with it; what sentence-transformers says and is
 * not computed is refused by name. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/model/family.h"
#include "common/nn/tape.h"
#include "tests/support/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[] = "/tmp/limbeck-encoder-XXXXXX";
static struct lb_detail detail;

static void put(const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/bert/%s", folder, name);
    assert_int_equal(lb_file_replace(path, text, strlen(text), &detail), LB_OK);
}

/* A folder with pooling config and modules as given; NULL: as written. */
static enum lb_status open_with(const char *modules, const char *pooling, struct lb_model **out) {
    char path[256];
    struct lb_config config;
    snprintf(path, sizeof path, "%s/bert", folder);
    assert_int_equal(lb_remove_tree(path, &detail), LB_OK);
    lb_tiny_bert(&config);
    lb_tiny_save(&config, 7, path, LB_F32, false);
    if (modules != NULL) {
        put("modules.json", modules);
    }
    if (pooling != NULL) {
        put("1_Pooling/config.json", pooling);
    }
    detail = (struct lb_detail){0};
    *out = NULL;
    return lb_model_open(path, false, out, &detail);
}

static void refused(const char *modules, const char *pooling, const char *why) {
    struct lb_model *model = NULL;
    assert_int_equal(open_with(modules, pooling, &model), LB_E_UNSUPPORTED);
    if (strstr(detail.text, why) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", detail.text, why);
    }
}

#define MODULE(type, path) "{\"idx\": 0, \"name\": \"0\", \"path\": \"" path "\", \"type\": \"a.b." type "\"}"
#define PLAIN "[" MODULE("Transformer", "") "," MODULE("Pooling", "1_Pooling") "]"

static void test_read(void **state) {
    (void)state;
    struct lb_model *model = NULL;
    char first[65];
    assert_int_equal(open_with(NULL, NULL, &model), LB_OK); /* a new one: the mean, normalised */
    assert_int_equal(lb_model_sentence(model)->kind, LB_POOL_MEAN);
    assert_true(lb_model_sentence(model)->normalize);
    assert_null(lb_model_head(model)->weight);
    assert_int_equal(lb_model_width(model), 32);
    assert_false(lb_model_is_causal(model));
    snprintf(first, sizeof first, "%s", lb_model_fingerprint(model));
    lb_model_destroy(model);
    assert_int_equal(open_with(PLAIN, NULL, &model), LB_OK);
    assert_false(lb_model_sentence(model)->normalize);
    assert_string_not_equal(first, lb_model_fingerprint(model));
    lb_model_destroy(model);
    assert_int_equal(
        open_with(PLAIN, "{\"pooling_mode_cls_token\": true, \"pooling_mode_mean_tokens\": false}", &model),
        LB_OK);
    assert_int_equal(lb_model_sentence(model)->kind, LB_POOL_FIRST);
    lb_model_destroy(model);
    assert_int_equal(open_with(PLAIN, "{\"pooling_mode\": \"mean\", \"include_prompt\": true}", &model),
                     LB_OK);
    assert_int_equal(lb_model_sentence(model)->kind, LB_POOL_MEAN);
    lb_model_destroy(model);
}

static void test_refused(void **state) {
    (void)state;
    refused(PLAIN, "{\"pooling_mode_max_tokens\": true}", "pooling max_tokens is not supported");
    refused(PLAIN, "{\"pooling_mode_cls_token\": true, \"pooling_mode_mean_tokens\": true}",
            "more than one pooling");
    refused(PLAIN, "{}", "pooling none");
    refused("[" MODULE("Transformer", "") "," MODULE("Dense", "2_Dense") "]", NULL,
            "(a.b.Dense in \"2_Dense\")");
    refused("[" MODULE("Transformer", "") "," MODULE("Normalize", "2") "]", NULL, "(a.b.Normalize");
    refused("[" MODULE("Transformer", "") "," MODULE("Pooling", "../1_Pooling") "]", NULL,
            "in \"../1_Pooling\"");
    refused("[" MODULE("WordEmbeddings", "") "]", NULL, "WordEmbeddings");
}

/* Reopened, it gives the bits it had; so does each sequence alone. */
static void test_round_trip(void **state) {
    (void)state;
    char path[256];
    struct lb_config config;
    struct lb_model *models[2] = {NULL, NULL};
    static const int32_t offsets[] = {0, 5, 6, 40}, alone[] = {0, 34};
    int32_t ids[40];
    for (int i = 0; i < 40; i++) {
        ids[i] = (i * 37 + 5) % 97;
    }
    snprintf(path, sizeof path, "%s/again", folder);
    lb_tiny_bert(&config);
    assert_int_equal(lb_model_create(&config, 3, &models[0], &detail), LB_OK);
    assert_int_equal(lb_model_save_hf(models[0], path, LB_F32, NULL, NULL, &detail), LB_OK);
    assert_int_equal(lb_model_save_hf(models[0], path, LB_F32, NULL, NULL, &detail),
                     LB_OK); /* its own is replaced */
    assert_int_equal(lb_model_open(path, false, &models[1], &detail), LB_OK);
    float kept[3 * 32];
    for (int i = 0; i < 3; i++) {
        const struct lb_input in = {.ragged =
                                        i < 2 ? (struct lb_ragged){3, offsets} : (struct lb_ragged){1, alone},
                                    .ids = i < 2 ? ids : ids + 6};
        struct lb_tape *tape = lb_tape_create((size_t)1 << 26);
        lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
        struct lb_value *h = lb_model_forward(models[i % 2], tape, &in, NULL, 0, NULL);
        struct lb_value *pooled = lb_model_pool(models[i % 2], tape, h);
        assert_non_null(pooled);
        if (i == 0) {
            memcpy(kept, pooled->data, sizeof kept);
        }
        assert_memory_equal(kept + (i < 2 ? 0 : 2 * 32), pooled->data, (i < 2 ? 3 : 1) * 32 * sizeof(float));
        lb_tape_destroy(tape);
    }
    lb_model_destroy(models[0]);
    lb_model_destroy(models[1]);
}

/* ---- GGUF ---- */

static enum lb_status read_pooling(double type, int normalize, struct lb_sentence *out,
                                   struct lb_notes *notes) {
    struct lb_gguf_out *keys = lb_gguf_out_create();
    struct lb_gguf *file = NULL;
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 16);
    if (type >= 0) {
        lb_gguf_put_u32(keys, "bert.pooling_type", (uint32_t)type);
    }
    if (normalize >= 0) {
        lb_gguf_put_bool(keys, "limbeck.sentence.normalize", normalize > 0);
    }
    detail = (struct lb_detail){0};
    *out = (struct lb_sentence){0};
    notes->n = 0;
    assert_int_equal(lb_gguf_encode(keys, &buf, &detail), LB_OK);
    assert_int_equal(lb_gguf_parse(buf.data, buf.len, "m.gguf", &file, &detail), LB_OK);
    enum lb_status status = lb_sentence_read_gguf(file, "bert", "m.gguf", out, notes, &detail);
    lb_gguf_destroy(file);
    lb_gguf_out_destroy(keys);
    lb_buf_finish(&buf);
    return status;
}

static void test_gguf_pooling(void **state) {
    (void)state;
    struct lb_sentence s;
    struct lb_notes notes;
    assert_int_equal(read_pooling(-1, -1, &s, &notes), LB_OK);
    assert_true(s.kind == LB_POOL_NONE && !s.normalize && notes.n == 0);
    assert_int_equal(read_pooling(0, -1, &s, &notes), LB_OK);
    assert_true(s.kind == LB_POOL_NONE && !s.normalize && notes.n == 0);
    assert_int_equal(read_pooling(1, -1, &s, &notes), LB_OK);
    assert_true(s.kind == LB_POOL_MEAN && s.normalize && notes.n == 1);
    assert_int_equal(read_pooling(2, 0, &s, &notes), LB_OK);
    assert_true(s.kind == LB_POOL_FIRST && !s.normalize && notes.n == 0);
    for (int type = 3; type < 5; type++) { /* the last row, and a head that ranks */
        assert_int_equal(read_pooling(type, -1, &s, &notes), LB_E_UNSUPPORTED);
        assert_non_null(strstr(detail.text, "m.gguf: key bert.pooling_type is"));
    }
}

/* ---- a model of another one's layers ---- */

static struct lb_value *states_of(const struct lb_model *model, struct lb_tape *tape, struct lb_tap *taps,
                                  size_t n_taps) {
    static const int32_t offsets[] = {0, 9}, ids[] = {1, 5, 9, 2, 6, 3, 8, 7, 4};
    static const struct lb_input in = {.ragged = {1, offsets}, .ids = ids};
    lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    return lb_model_forward(model, tape, &in, taps, n_taps, NULL);
}

/* Of `layers` of the folder: saved, opened again, with the same states; of all layers in order those of the
 * whole.
 */
static void check_layers(const char *path, const int64_t *layers, size_t n, bool all) {
    char again_path[256];
    struct lb_model *model = NULL, *again = NULL, *whole = NULL;
    struct lb_tape *tape = lb_tape_create((size_t)1 << 26), *other = lb_tape_create((size_t)1 << 26);
    snprintf(again_path, sizeof again_path, "%s/again", folder);
    assert_int_equal(lb_remove_tree(again_path, &detail), LB_OK);
    detail = (struct lb_detail){0};
    if (lb_model_from_layers(path, layers, n, &model, &detail) != LB_OK ||
        lb_model_save_hf(model, again_path, LB_F32, NULL, NULL, &detail) != LB_OK ||
        lb_model_open(again_path, false, &again, &detail) != LB_OK ||
        lb_model_open(path, false, &whole, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    assert_int_equal(lb_model_config(again)->num_hidden_layers, n);
    struct lb_value *h = states_of(model, tape, NULL, 0), *g = states_of(again, other, NULL, 0);
    assert_true(h != NULL && g != NULL);
    assert_memory_equal(h->data, g->data, (size_t)(h->rows * h->cols) * sizeof(float));
    for (size_t i = 0; i < n; i++) { /* a bias of each layer tells them apart */
        for (int64_t l = 0; l < lb_model_config(whole)->num_hidden_layers; l++) {
            char names[2][96];
            const char *pattern = strstr(path, "bert") != NULL ? "bert.encoder.layer.%d.output.dense.weight"
                                                               : "model.layers.%d.mlp.up_proj.weight";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(names[0], sizeof names[0], pattern, (int)i);
            snprintf(names[1], sizeof names[1], pattern, (int)l);
#pragma GCC diagnostic pop
            const struct lb_weight *a = lb_model_find(model, names[0]), *b = lb_model_find(whole, names[1]);
            size_t bytes = (size_t)(a->rows * a->cols) * sizeof(float);
            assert_int_equal(memcmp(a->data, b->data, bytes) == 0, layers[i] == l);
        }
    }
    g = states_of(whole, other, NULL, 0);
    assert_int_equal(memcmp(h->data, g->data, (size_t)(h->rows * h->cols) * sizeof(float)) == 0, all);
    lb_tape_destroy(tape);
    lb_tape_destroy(other);
    lb_model_destroy(model);
    lb_model_destroy(again);
    lb_model_destroy(whole);
}

static void test_layers(void **state) {
    (void)state;
    char path[512];
    struct lb_model *model = NULL;
    static const int64_t both[] = {0, 1}, last[] = {1}, turned[] = {1, 0}, outer[] = {2, 0}, full[] = {2},
                         twice[] = {0, 0};
    assert_int_equal(open_with(PLAIN, NULL, &model), LB_OK);
    lb_model_destroy(model);
    snprintf(path, sizeof path, "%s/bert", folder);
    check_layers(path, both, 2, true);
    check_layers(path, last, 1, false);
    check_layers(path, turned, 2, false);
    assert_int_equal(lb_model_from_layers(path, last, 1, &model, &detail), LB_OK);
    assert_int_equal(lb_model_sentence(model)->kind, LB_POOL_MEAN); /* as the folder says */
    assert_false(lb_model_sentence(model)->normalize);
    lb_model_destroy(model);
    assert_int_equal(lb_model_from_layers(path, outer, 2, &model, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "no layer 2; it has 0 to 1"));
    detail = (struct lb_detail){0};
    assert_int_equal(lb_model_from_layers(path, twice, 2, &model, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "layer 0 is named twice"));
    /* A decoder whose layers see a window, a window, and all: each keeps what it sees. */
    snprintf(path, sizeof path, "%s/tests/golden/model/gemma3", getenv("LB_SOURCE_ROOT"));
    check_layers(path, outer, 2, false);
    check_layers(path, full, 1, false);
    detail = (struct lb_detail){0};
    assert_int_equal(lb_model_from_layers(path, outer, 2, &model, &detail), LB_OK);
    assert_false(lb_layer_has(&lb_model_config(model)->sliding, 0));
    assert_true(lb_layer_has(&lb_model_config(model)->sliding, 1));
    lb_model_destroy(model);
}

/* ---- classifiers of texts ---- */

/* The folder of a classifier of three classes with that line in its config.json instead of the one of the
 * same key; NULL: as written. */
static enum lb_status open_classes(const char *key, const char *line, struct lb_model **out) {
    char path[256], config_path[300];
    struct lb_config config;
    struct lb_buf buf;
    snprintf(path, sizeof path, "%s/bert", folder);
    snprintf(config_path, sizeof config_path, "%s/config.json", path);
    assert_int_equal(lb_remove_tree(path, &detail), LB_OK);
    lb_tiny_bert(&config);
    config.num_labels = 3;
    lb_tiny_save(&config, 7, path, LB_F32, false);
    if (key != NULL) {
        json_t *json = NULL, *value = json_loads(line, JSON_DECODE_ANY, NULL);
        assert_non_null(value);
        assert_int_equal(lb_json_file(config_path, 1 << 20, &json, &detail), LB_OK);
        assert_int_equal(json_object_set_new(json, key, value), 0);
        lb_buf_init(&buf, 1 << 20);
        assert_int_equal(lb_json_dump(json, 0, &buf), LB_OK);
        assert_int_equal(lb_file_replace(config_path, buf.data, buf.len, &detail), LB_OK);
        lb_buf_finish(&buf);
        json_decref(json);
    }
    detail = (struct lb_detail){0};
    *out = NULL;
    return lb_model_open(path, false, out, &detail);
}

static void test_classes(void **state) {
    (void)state;
    struct lb_model *model = NULL;
    char first[65];
    assert_int_equal(open_classes(NULL, NULL, &model), LB_OK);
    assert_true(lb_model_is_classifier(model));
    assert_int_equal(lb_model_labels(model)->n, 3);
    assert_string_equal(lb_model_labels(model)->names[2], "LABEL_2");
    assert_int_equal(lb_model_sentence(model)->kind, LB_POOL_NONE);
    assert_int_equal(lb_model_head(model)->weight->rows, 3);
    assert_non_null(lb_model_head(model)->bias);
    snprintf(first, sizeof first, "%s", lb_model_fingerprint(model));
    assert_int_equal(lb_model_save_gguf(model, "/nowhere", LB_F32, NULL, NULL, &detail), LB_E_UNSUPPORTED);
    lb_model_destroy(model);
    assert_int_equal(open_classes("id2label", "{\"0\": \"a\", \"2\": 7, \"1\": \"b\"}", &model), LB_OK);
    assert_string_equal(lb_model_labels(model)->names[1], "b");
    assert_string_equal(lb_model_labels(model)->names[2], "7");
    assert_string_not_equal(first, lb_model_fingerprint(model)); /* what they mean is what it is */
    lb_model_destroy(model);
    assert_int_equal(open_classes("problem_type", "\"regression\"", &model), LB_OK);
    assert_int_equal(lb_model_labels(model)->problem, LB_PROBLEM_REGRESSION);
    lb_model_destroy(model);
    assert_int_equal(open_classes("problem_type", "\"ranking\"", &model), LB_E_UNSUPPORTED);
    assert_non_null(strstr(detail.text, "problem_type \"ranking\" is not supported"));
    assert_int_equal(open_classes("id2label", "{\"0\": \"a\", \"1\": \"b\", \"3\": \"c\"}", &model),
                     LB_E_FORMAT);
    assert_non_null(strstr(detail.text, "id2label does not name class 2"));
    assert_int_equal(open_classes("id2label", "{\"0\": \"a\", \"1\": \"b\"}", &model), LB_E_MISMATCH);
    assert_non_null(
        strstr(detail.text, "tensor classifier.weight has shape [3, 32], the config asks for [2, 32]"));
    assert_int_equal(open_classes("architectures", "[\"BertForTokenClassification\"]", &model),
                     LB_E_UNSUPPORTED);
    assert_non_null(strstr(detail.text, "tensor classifier")); /* of a task that is not computed */
    assert_int_equal(open_classes("architectures", "[\"RobertaForSequenceClassification\"]", &model),
                     LB_E_UNSUPPORTED);
    assert_non_null(strstr(detail.text, "only BertModel and BertForSequenceClassification"));
}

static void keep_state(const struct lb_model *model, const struct lb_input *in, float *out) {
    struct lb_tape *tape = lb_tape_create((size_t)1 << 26);
    lb_tape_begin(tape, LB_TAPE_PLAIN, &in->ragged, NULL);
    const struct lb_value *h = lb_model_forward(model, tape, in, NULL, 0, NULL);
    assert_non_null(h);
    assert_int_equal(h->rows, in->ragged.n_seqs);
    assert_int_equal(lb_tape_ragged(tape)->n_seqs, in->ragged.n_seqs);
    assert_int_equal(lb_tape_ragged(tape)->offsets[h->rows], h->rows);
    memcpy(out, h->data, (size_t)(h->rows * h->cols) * sizeof *out);
    lb_tape_destroy(tape);
}

/* Each text's row alone is the one that it is among others, in as many bits. */
static void test_classes_alone(void **state) {
    (void)state;
    struct lb_model *model = NULL;
    static const int32_t offsets[] = {0, 5, 6, 40};
    int32_t ids[40];
    float all[3 * 32], alone[32];
    for (int i = 0; i < 40; i++) {
        ids[i] = (i * 37 + 5) % 97;
    }
    assert_int_equal(open_classes(NULL, NULL, &model), LB_OK);
    keep_state(model, &(struct lb_input){.ragged = {3, offsets}, .ids = ids}, all);
    for (int s = 0; s < 3; s++) {
        const int32_t own[] = {0, offsets[s + 1] - offsets[s]};
        keep_state(model, &(struct lb_input){.ragged = {1, own}, .ids = ids + offsets[s]}, alone);
        assert_memory_equal(all + (ptrdiff_t)s * 32, alone, sizeof alone);
    }
    lb_model_destroy(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),         cmocka_unit_test(test_refused),
        cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_gguf_pooling),
        cmocka_unit_test(test_layers),       cmocka_unit_test(test_classes),
        cmocka_unit_test(test_classes_alone)};
    if (!mkdtemp(folder)) {
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return lb_remove_tree(folder, NULL) == LB_OK ? failed : 1;
}
