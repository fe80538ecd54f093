/* Encoders as folders: what is written is read again, pooling with it; what sentence-transformers says and is
 * not computed is refused by name. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/model/model.h"
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
    assert_int_equal(lb_model_save_hf(models[0], path, LB_F32, NULL, 0, &detail), LB_OK);
    assert_int_equal(lb_model_save_hf(models[0], path, LB_F32, NULL, 0, &detail),
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
    assert_int_equal(lb_model_save_gguf(models[0], "/nowhere", LB_F32, NULL, NULL, &detail),
                     LB_E_UNSUPPORTED);
    lb_model_destroy(models[0]);
    lb_model_destroy(models[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_read), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_round_trip)};
    if (!mkdtemp(folder)) {
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return lb_remove_tree(folder, NULL) == LB_OK ? failed : 1;
}
