/* Folders whose text model stands within a larger one. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/formats/safetensors.h"
#include "common/model/families.h"
#include "common/model/model.h"
#include "tests/support/scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float some[64];

static const char text_keys[] =
    "\"vocab_size\": 40, \"hidden_size\": 16, \"intermediate_size\": 24, \"num_hidden_layers\": 2, "
    "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"head_dim\": 8, \"max_position_embeddings\": "
    "64";

static struct lb_model *make_text(void) {
    char text[600];
    struct lb_config config;
    struct lb_model *model = NULL;
    json_t *object = NULL;
    int len = snprintf(text, sizeof text, "{\"model_type\": \"gemma3_text\", \"eos_token_id\": [3, 5], %s}",
                       text_keys);
    assert_int_equal(lb_json_parse(text, (size_t)len, 0, "text", &object, NULL), LB_OK);
    assert_int_equal(lb_config_parse(object, "text", &config, NULL, NULL), LB_OK);
    assert_int_equal(lb_model_create(&config, 5, &model, NULL), LB_OK);
    json_decref(object);
    return model;
}

/* How a file names the text model's tensors: `model.` and `lm_head.` become these. */
struct naming {
    const char *model, *head;
};
static const struct naming namings[] = {{"model.language_model.", "lm_head."},
                                        {"language_model.model.", "language_model.lm_head."}};

/* The folder `larger` with the model's tensors under those names, and these beside them. */
static void write_tensors(const struct lb_model *model, const struct naming *naming, const char *const *more,
                          size_t n_more) {
    size_t n;
    const struct lb_weight *w = lb_model_weights(model, &n);
    struct lb_tensor tensors[64];
    char names[64][160];
    assert_true(n + n_more <= 64);
    for (size_t i = 0; i < n; i++) {
        bool vector = w[i].n_dims == 1;
        assert_int_equal(strncmp(w[i].name, "model.", 6), 0);
        snprintf(names[i], sizeof names[i], "%s%s", naming->model, w[i].name + 6);
        tensors[i] = (struct lb_tensor){.name = names[i],
                                        .n_dims = w[i].n_dims,
                                        .dim = {vector ? w[i].cols : w[i].rows, vector ? 0 : w[i].cols},
                                        .data = w[i].data,
                                        .bytes = (size_t)(w[i].rows * w[i].cols) * sizeof(float)};
    }
    for (size_t i = 0; i < n_more; i++) {
        bool head = strstr(more[i], "lm_head") != NULL;
        tensors[n + i] =
            (struct lb_tensor){.name = more[i], .n_dims = 1, .dim = {4}, .data = some, .bytes = 16};
        if (head) {
            tensors[n + i] = tensors[0];
            tensors[n + i].name = more[i];
        }
    }
    assert_int_equal(lb_mkdirs(lb_in_scratch("larger"), NULL), LB_OK);
    assert_int_equal(
        lb_safetensors_write(lb_in_scratch("larger/model.safetensors"), tensors, n + n_more, NULL, 0, NULL),
        LB_OK);
}

static void write_config(const char *text) {
    assert_int_equal(lb_file_replace(lb_in_scratch("larger/config.json"), text, strlen(text), NULL), LB_OK);
}

static void write_plain_config(void) {
    char text[800];
    snprintf(
        text, sizeof text,
        "{\"model_type\": \"gemma3\", \"architectures\": [\"Gemma3ForConditionalGeneration\"], "
        "\"eos_token_id\": [3, 5], \"mm_tokens_per_image\": 4, \"text_config\": {\"eos_token_id\": 7, %s}, "
        "\"vision_config\": {\"hidden_size\": 4}, \"bos_token_id\": null}",
        text_keys);
    write_config(text);
}

static enum lb_status open_larger(struct lb_model **out, struct lb_detail *detail) {
    *detail = (struct lb_detail){0};
    return lb_model_open(lb_in_scratch("larger"), false, out, detail);
}

static void must_refuse(enum lb_status status, const char *says) {
    struct lb_model *model = NULL;
    struct lb_detail detail;
    assert_int_equal(open_larger(&model, &detail), status);
    if (strstr(detail.text, says) == NULL) {
        fail_msg("\"%s\" lacks \"%s\"", detail.text, says);
    }
}

/* It is the text model, under either kind of names, with one note of what is left out; saved again it is the
 * text model's folder. */
static void the_text_model_is_opened(void **state) {
    (void)state;
    static const char *const more[] = {"vision_tower.embeddings.weight", "multi_modal_projector.norm.weight",
                                       "model.vision_tower.head.bias"};
    struct lb_model *text = make_text();
    struct lb_detail detail;
    assert_int_equal(lb_model_save_hf(text, lb_in_scratch("text"), LB_F32, NULL, NULL, NULL), LB_OK);
    struct lb_model *alone = NULL;
    assert_int_equal(lb_model_open(lb_in_scratch("text"), false, &alone, NULL), LB_OK);
    for (size_t i = 0; i < sizeof namings / sizeof *namings; i++) {
        struct lb_model *model = NULL;
        const char *with_head[4] = {more[0], more[1], more[2]};
        char head[64];
        snprintf(head, sizeof head, "%sweight", namings[i].head); /* stored though it is tied */
        with_head[3] = head;
        write_tensors(text, &namings[i], with_head, 4);
        write_plain_config();
        if (open_larger(&model, &detail) != LB_OK) {
            fail_msg("%s", detail.text);
        }
        assert_string_equal(lb_model_fingerprint(model), lb_model_fingerprint(alone));
        assert_string_equal(lb_model_config(model)->model_type, "gemma3_text");
        assert_true(lb_model_config(model)->tie_word_embeddings);
        assert_int_equal(lb_model_ends(model)->n, 2);
        assert_int_equal(lb_model_ends(model)->ids[0], 3);
        assert_non_null(strstr(lb_note_get(lb_model_notes(model), 0),
                               "of this gemma3 the text model alone is opened; 3 tensors as "));
        assert_null(lb_note_get(lb_model_notes(model), 1));
        lb_model_destroy(model);
    }
    lb_model_destroy(alone);
    lb_model_destroy(text);
}

/* Of a key that stands beside the text model's config and within it the outer one counts: ends by themselves,
 * and that the output is the embedding, which only the outer one says. */
static void the_outer_keys_count(void **state) {
    (void)state;
    static const struct {
        const char *outer, *inner;
        size_t ends;
        bool tied;
    } cases[] = {{"\"eos_token_id\": 3", "\"eos_token_id\": [7, 8]", 1, true},
                 {"\"pad_token_id\": 0", "\"eos_token_id\": [7, 8]", 2, true},
                 {"\"pad_token_id\": 0", "\"tie_word_embeddings\": false", 1, true},
                 {"\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true", 1, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[600];
        json_t *object = NULL;
        struct lb_config c;
        int len = snprintf(text, sizeof text, "{\"model_type\": \"gemma3\", %s, \"text_config\": {%s, %s}}",
                           cases[i].outer, cases[i].inner, text_keys);
        assert_int_equal(lb_json_parse(text, (size_t)len, 0, "text", &object, NULL), LB_OK);
        assert_int_equal(lb_config_parse(object, "text", &c, NULL, NULL), LB_OK);
        json_decref(object);
        assert_int_equal(lb_config_ends(&c).n, cases[i].ends);
        assert_int_equal(c.tie_word_embeddings, cases[i].tied);
    }
}

static void what_is_neither_is_refused(void **state) {
    (void)state;
    struct lb_model *text = make_text();
    static const char *const names[] = {"audio_tower.weight", "model.audio_tower.weight",
                                        "language_model.model.norm.bias", "embed_tokens.weight",
                                        "language_model.model.norm.weight"}; /* the last one a second time */
    write_plain_config();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        write_tensors(text, &namings[0], &names[i], 1);
        must_refuse(LB_E_UNSUPPORTED, names[i]);
    }
    write_tensors(text, &namings[0], NULL, 0);
    write_config("{\"model_type\": \"gemma3\"}");
    must_refuse(LB_E_FORMAT, "text_config must be an object");
    write_config("{\"model_type\": \"gemma3\", \"text_config\": {\"model_type\": \"llama\"}}");
    must_refuse(LB_E_UNSUPPORTED, "model_type \"llama\" of text_config is not supported, only gemma3_text");
    write_config("{\"model_type\": \"gemma3\", \"text_config\": {\"attention_sinks\": 4}}");
    must_refuse(LB_E_UNSUPPORTED, "config.json: text_config: key attention_sinks is not known");
    write_config("{\"model_type\": \"gemma3\", \"text_config\": {\"final_logit_softcapping\": 30}}");
    must_refuse(LB_E_UNSUPPORTED, "config.json: text_config: final_logit_softcapping 30 is not supported");
    write_config("{\"model_type\": \"gemma3\", \"text_config\": {}, \"rope_scaling\": {\"factor\": 2}}");
    must_refuse(LB_E_UNSUPPORTED, "key rope_scaling is not known");
    write_config(
        "{\"model_type\": \"gemma3\", \"text_config\": {}, \"quantization_config\": {\"quant_method\": "
        "\"x\"}}");
    must_refuse(LB_E_UNSUPPORTED, "quantization_config (x) is not supported");
    lb_model_destroy(text);
}

/* config.json of google/gemma-3-4b-it, as published: it lacks what transformers' class knows. */
static void a_published_config(void **state) {
    (void)state;
    static const char text[] =
        "{\"architectures\": [\"Gemma3ForConditionalGeneration\"], \"boi_token_index\": 255999, "
        "\"eoi_token_index\": 256000, \"eos_token_id\": [1, 106], \"image_token_index\": 262144, "
        "\"initializer_range\": 0.02, \"mm_tokens_per_image\": 256, \"model_type\": \"gemma3\", "
        "\"text_config\": {\"hidden_size\": 2560, \"intermediate_size\": 10240, \"model_type\": "
        "\"gemma3_text\", "
        "\"num_hidden_layers\": 34, \"rope_scaling\": {\"factor\": 8.0, \"rope_type\": \"linear\"}, "
        "\"sliding_window\": 1024}, \"torch_dtype\": \"bfloat16\", \"transformers_version\": "
        "\"4.50.0.dev0\", "
        "\"vision_config\": {\"hidden_size\": 1152, \"image_size\": 896, \"intermediate_size\": 4304, "
        "\"model_type\": \"siglip_vision_model\", \"num_attention_heads\": 16, \"num_hidden_layers\": 27, "
        "\"patch_size\": 14, \"vision_use_head\": false}}";
    json_t *object = NULL;
    struct lb_config c;
    struct lb_notes notes = {0};
    assert_int_equal(lb_json_parse(text, sizeof text - 1, 0, "text", &object, NULL), LB_OK);
    assert_int_equal(lb_config_parse(object, "config.json", &c, &notes, NULL), LB_OK);
    json_decref(object);
    assert_int_equal(notes.n, 0);
    assert_int_equal(c.vocab_size, 262208);
    assert_int_equal(c.num_attention_heads, 8);
    assert_int_equal(c.num_key_value_heads, 4);
    assert_int_equal(c.head_dim, 256);
    assert_int_equal(c.rope.type, LB_ROPE_LINEAR);
    assert_true(c.rope.factor == 8 && c.rope_theta == 1e6 && c.rope_local_theta == 1e4);
    assert_int_equal(c.sliding_window, 1024);
    assert_true(lb_layer_has(&c.sliding, 4) && !lb_layer_has(&c.sliding, 5));
    assert_int_equal(lb_config_ends(&c).n, 2);
    assert_int_equal(lb_config_ends(&c).ids[1], 106);
    assert_int_equal(c.bos_token_id, 2);
    assert_true(c.tie_word_embeddings);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_text_model_is_opened),
        cmocka_unit_test(the_outer_keys_count),
        cmocka_unit_test(what_is_neither_is_refused),
        cmocka_unit_test(a_published_config),
    };
    return cmocka_run_group_tests(tests, lb_scratch_make, lb_scratch_remove);
}
