/* Models: made, saved, opened again in every format, extended, generating. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/memo.h"
#include "common/model/batch.h"
#include "common/model/families.h"
#include "common/model/generate.h"
#include "common/model/model.h"
#include "common/text/tokenizer.h"
#include "common/nn/head.h"
#include "common/nn/reduce.h"
#include "tests/support/scratch.h"
#include "tests/support/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N 23

struct kept {
    float *z;
    int64_t v;
};

static enum lb_status keep(void *context, int64_t row, int64_t n, float *z) {
    struct kept *k = context;
    memcpy(k->z + row * k->v, z, (size_t)(n * k->v) * sizeof *z);
    return LB_OK;
}

/* Logits of a fixed sequence of N ids, [N, V] on the heap. */
static float *logits(const struct lb_model *model) {
    int32_t ids[N], offsets[2] = {0, N};
    struct kept k = {.v = lb_model_head(model)->weight->rows};
    for (int i = 0; i < N; i++) {
        ids[i] = (int32_t)((7 * i + 3) % k.v);
    }
    k.z = malloc((size_t)(N * k.v) * sizeof *k.z);
    struct lb_input in = {.ragged = {1, offsets}, .ids = ids};
    struct lb_tape *tape = lb_tape_create((size_t)1 << 28);
    lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    struct lb_value *h = lb_model_forward(model, tape, &in, NULL, 0, NULL);
    assert_int_equal(lb_head_run(tape, h, lb_model_head(model), NULL, keep, &k), LB_OK);
    lb_tape_destroy(tape);
    return k.z;
}

static double difference(const float *a, const float *b, int64_t n) {
    double most = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)a[i] - b[i]));
        scale = fmax(scale, fabs((double)b[i]));
    }
    return most / scale;
}

static struct lb_model *make(struct lb_config *config) {
    struct lb_model *model = NULL;
    lb_tiny_llama(config);
    config->initializer_range = 0.2;
    assert_int_equal(lb_model_create(config, 3, &model, NULL), LB_OK);
    return model;
}

static struct lb_model *open_again(const char *path) {
    struct lb_model *again = NULL;
    struct lb_detail detail = {0};
    if (lb_model_open(path, false, &again, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    return again;
}

static void folders(void **state) {
    (void)state;
    static const enum lb_dtype formats[] = {LB_F32, LB_F16, LB_BF16};
    static const double tolerance[] = {0, 5e-3,
                                       4e-2}; /* what 24, 11 and 8 bits of mantissa leave after two layers */
    struct lb_config config;
    struct lb_model *model = make(&config);
    float *want = logits(model);
    char path[256], last[65] = "";
    for (int f = 0; f < 3; f++) {
        snprintf(path, sizeof path, "%s/hf", lb_scratch); /* the same folder: replaced each time */
        assert_int_equal(lb_model_save_hf(model, path, formats[f], NULL, NULL, NULL), LB_OK);
        struct lb_model *again = open_again(path);
        float *have = logits(again);
        double d = difference(have, want, N * config.vocab_size);
        assert_true(d <= tolerance[f] && (f == 0 || d > 0));
        assert_int_equal(strlen(lb_model_fingerprint(again)), 64);
        assert_string_not_equal(lb_model_fingerprint(again), last);
        snprintf(last, sizeof last, "%s", lb_model_fingerprint(again));
        lb_model_destroy(again);
        free(have);
    }
    assert_int_equal(lb_model_save_hf(model, path, LB_Q8_0, NULL, NULL, NULL), LB_E_UNSUPPORTED);
    free(want);
    lb_model_destroy(model);
}

static void assert_same_files(const char *a, const char *b) {
    struct lb_map x = {0}, y = {0};
    assert_int_equal(lb_map_open(&x, a, NULL), LB_OK);
    assert_int_equal(lb_map_open(&y, b, NULL), LB_OK);
    assert_int_equal(x.len, y.len);
    assert_memory_equal(x.data, y.data, x.len);
    lb_map_close(&x);
    lb_map_close(&y);
}

/* The rotary rows are stored in another order there; what is read must be what was written. */
static void gguf(void **state) {
    (void)state;
    static const enum lb_dtype formats[] = {LB_F32, LB_F16, LB_Q8_0, LB_Q5_1, LB_Q5_0, LB_Q4_1, LB_Q4_0};
    static const double tolerance[] = {0, 5e-3, 6e-2, 0.3, 0.3, 0.6, 0.6};
    struct lb_config config;
    struct lb_model *model = make(&config);
    float *want = logits(model);
    char path[256], path2[256];
    snprintf(path, sizeof path, "%s/m.gguf", lb_scratch);
    snprintf(path2, sizeof path2, "%s/m2.gguf", lb_scratch);
    assert_int_equal(lb_model_save_gguf(model, path, LB_Q5_K, NULL, NULL, NULL), LB_E_UNSUPPORTED);
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        assert_int_equal(lb_model_save_gguf(model, path, formats[f], NULL, NULL, NULL), LB_OK);
        struct lb_model *again = open_again(path);
        float *have = logits(again);
        double d = difference(have, want, N * config.vocab_size);
        assert_true(d <= tolerance[f] && (f == 0 || d > 0));
        /* as stored, without being widened and rounded once more */
        assert_int_equal(lb_model_save_gguf(again, path2, formats[f], NULL, NULL, NULL), LB_OK);
        assert_same_files(path, path2);
        /* FP32 masters of it are the same numbers, in the same order */
        struct lb_model *masters = NULL;
        assert_int_equal(lb_model_open(path, true, &masters, NULL), LB_OK);
        float *from_masters = logits(masters);
        assert_memory_equal(from_masters, have, (size_t)(N * config.vocab_size) * sizeof *have);
        free(from_masters);
        lb_model_destroy(masters);
        lb_model_destroy(again);
        free(have);
    }
    free(want);
    lb_model_destroy(model);
}

/* Rows that are no whole blocks are written as F16, which is said. */
static void gguf_falls_back(void **state) {
    (void)state;
    struct lb_config config;
    struct lb_model *model = make(&config);
    struct lb_notes notes = {0};
    struct lb_gguf *file = NULL;
    char path[256];
    lb_model_destroy(model);
    config.intermediate_size = 40;
    assert_int_equal(lb_model_create(&config, 5, &model, NULL), LB_OK);
    snprintf(path, sizeof path, "%s/odd.gguf", lb_scratch);
    assert_int_equal(lb_model_save_gguf(model, path, LB_Q5_0, NULL, &notes, NULL), LB_OK);
    assert_int_equal(notes.n, config.num_hidden_layers);
    assert_non_null(
        strstr(lb_note_get(&notes, 0),
               "mlp.down_proj.weight is written as F16: its rows of 40 are no multiple of the 32 of Q5_0"));
    assert_int_equal(lb_gguf_open(path, &file, NULL), LB_OK);
    double file_type = 0;
    assert_true(lb_gguf_number(file, "general.file_type", &file_type) && file_type == 8);
    assert_int_equal(lb_gguf_find(file, "blk.0.ffn_down.weight")->dtype, LB_F16);
    assert_int_equal(lb_gguf_find(file, "blk.0.ffn_up.weight")->dtype, LB_Q5_0);
    assert_int_equal(lb_gguf_find(file, "blk.0.ffn_norm.weight")->dtype, LB_F32);
    lb_gguf_destroy(file);
    lb_model_destroy(model);
}

/* A projection is trained and checkpointed with the model but is no part of it. */
static void extended(void **state) {
    (void)state;
    struct lb_config config;
    struct lb_model *model = make(&config);
    size_t before, after, values_before, values_after;
    float *want = logits(model);
    int64_t parameters = lb_model_parameters(model);
    (void)lb_model_weights(model, &before);
    (void)lb_model_values(model, &values_before);
    for (int i = 0; i < 40; i++) { /* past every reallocation */
        char name[32];
        snprintf(name, sizeof name, "projection.%d.weight", i);
        assert_int_equal(lb_model_extend(model, name, 11, 32, 1, NULL), LB_OK);
    }
    const struct lb_weight *w = lb_model_weights(model, &after);
    (void)lb_model_values(model, &values_after);
    assert_int_equal(after, before + 40);
    assert_true(values_after >= values_before + 40 * 11 * 32);
    assert_int_equal(lb_model_parameters(model), parameters);
    assert_non_null(lb_model_find(model, "projection.39.weight"));
    assert_non_null(w[after - 1].grad);
    float *have = logits(model);
    assert_memory_equal(have, want, (size_t)(N * config.vocab_size) * sizeof *want);
    char path[256];
    snprintf(path, sizeof path, "%s/extended", lb_scratch);
    assert_int_equal(lb_model_save_hf(model, path, LB_F32, NULL, NULL, NULL), LB_OK);
    struct lb_model *again = open_again(path);
    assert_null(lb_model_find(again, "projection.0.weight"));
    lb_model_destroy(again);
    free(have);
    free(want);
    lb_model_destroy(model);
}

struct written {
    int32_t ids[64];
    int n;
};

static enum lb_status take(void *context, int32_t id) {
    struct written *w = context;
    w->ids[w->n++] = id;
    return LB_OK;
}

/* Where generation stops: as generation_config.json says, else config.json; training's own end is added. */
static void ends_of_texts(void **state) {
    (void)state;
    static const char *const names[] = {"{\"eos_token_id\": [5, 7, 5]}", "{\"eos_token_id\": 8}",
                                        "{\"eos_token_id\": null, \"top_p\": 0.9}",
                                        "{\"eos_token_id\": [3, 97]}"};
    struct lb_config config;
    struct lb_model *model = NULL, *again = NULL;
    struct lb_detail detail = {0};
    lb_tiny_llama(&config);
    lb_config_set_ends(&config, &(struct lb_ends){3, {2, 9, 4}});
    assert_int_equal(lb_model_create(&config, 3, &model, NULL), LB_OK);
    char *path = lb_path_join(lb_scratch, "ends"), *file = lb_path_join(path, "generation_config.json");
    assert_int_equal(lb_model_save_hf(model, path, LB_F32, NULL, NULL, NULL), LB_OK);
    assert_int_equal(lb_model_open(path, false, &again, NULL), LB_OK);
    assert_int_equal(lb_model_ends(again)->n, 3); /* written and read as a list */
    assert_memory_equal(lb_model_ends(again)->ids, ((int64_t[]){2, 9, 4}), 3 * sizeof(int64_t));
    lb_model_destroy(again);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(lb_file_replace(file, names[i], strlen(names[i]), NULL), LB_OK);
        if (i == 3) {
            assert_int_equal(lb_model_open(path, false, &again, &detail), LB_E_ARG);
            assert_non_null(strstr(detail.text, "generation_config.json: eos_token_id is 97"));
            break;
        }
        assert_int_equal(lb_model_open(path, false, &again, NULL), LB_OK);
        const struct lb_ends *ends = lb_model_ends(again);
        assert_int_equal(ends->n, i == 0 ? 2 : i == 1 ? 1 : 3);
        assert_int_equal(ends->ids[0], i == 0 ? 5 : i == 1 ? 8 : 2);
        assert_int_equal(lb_model_train_end(again, 9, NULL), LB_OK);
        assert_true(lb_ends_has(ends, 9));
        assert_int_equal(ends->n, i == 2 ? 3 : i == 0 ? 3 : 2);
        assert_int_equal(lb_model_config(again)->eos_token_id, 2); /* config.json had it */
        assert_int_equal(lb_model_train_end(again, 11, NULL), LB_OK);
        assert_int_equal(lb_model_config(again)->eos_token_id, 11);
        assert_int_equal(lb_model_config(again)->n_more_eos, 3);
        lb_model_destroy(again);
    }
    lb_model_destroy(model);
    lb_free(file);
    lb_free(path);
}

/* Greedy text with the cache is what one forward over the whole text would choose at each place. */
static void generating(void **state) {
    (void)state;
    struct lb_config config;
    struct lb_model *model = make(&config);
    struct written w = {.n = 0};
    int32_t prompt[N];
    for (int i = 0; i < N; i++) {
        prompt[i] = (int32_t)((7 * i + 3) % config.vocab_size);
    }
    struct lb_generate_args args = {.max_new_tokens = 12, .top_p = 1};
    assert_int_equal(lb_generate(model, prompt, 5, &args, take, &w, NULL), LB_OK);
    assert_int_equal(w.n, 12);
    int32_t all[64], offsets[2] = {0, 17};
    memcpy(all, prompt, 5 * sizeof *all);
    memcpy(all + 5, w.ids, 12 * sizeof *all);
    struct lb_input in = {.ragged = {1, offsets}, .ids = all};
    struct kept k = {malloc((size_t)(17 * config.vocab_size) * sizeof(float)), config.vocab_size};
    struct lb_tape *tape = lb_tape_create((size_t)1 << 28);
    lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    struct lb_value *h = lb_model_forward(model, tape, &in, NULL, 0, NULL);
    assert_int_equal(lb_head_run(tape, h, lb_model_head(model), NULL, keep, &k), LB_OK);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(lb_argmax(k.z + (4 + i) * k.v, k.v), w.ids[i]);
    }
    /* Sampling: the seed decides; ids that top_k leaves out never come. */
    struct written a = {.n = 0}, b = {.n = 0};
    args.temperature = 1.5;
    args.top_k = 3;
    args.seed = 8;
    assert_int_equal(lb_generate(model, prompt, 5, &args, take, &a, NULL), LB_OK);
    assert_int_equal(lb_generate(model, prompt, 5, &args, take, &b, NULL), LB_OK);
    assert_memory_equal(a.ids, b.ids, sizeof(int32_t) * 12);
    int32_t top[3];
    float values[3];
    lb_topk(k.z + 4 * k.v, k.v, 3, top, values);
    assert_true(a.ids[0] == top[0] || a.ids[0] == top[1] || a.ids[0] == top[2]);
    /* Of a padded vocabulary only what the tokenizer knows is drawn, whatever the others' logits. */
    args = (struct lb_generate_args){.max_new_tokens = 12, .top_p = 1, .n_ids = top[0]};
    for (int i = 0; i < 20; i++) {
        struct written few = {.n = 0};
        args.temperature = i % 2 ? 3 : 0;
        args.seed = (uint64_t)i;
        assert_int_equal(lb_generate(model, prompt, 5, &args, take, &few, NULL), LB_OK);
        assert_int_equal(few.n, 12);
        for (int t = 0; t < 12; t++) {
            assert_true(few.ids[t] < top[0]);
        }
    }
    struct lb_detail detail = {0};
    prompt[0] = (int32_t)config.vocab_size;
    assert_int_equal(lb_generate(model, prompt, 5, &args, take, &a, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "outside the vocabulary"));
    lb_tape_destroy(tape);
    free(k.z);
    lb_model_destroy(model);
}

static void expect_refusal(const char *path, enum lb_status status, const char *words) {
    struct lb_model *model = NULL;
    struct lb_detail detail = {0};
    assert_int_equal(lb_model_open(path, false, &model, &detail), status);
    if (strstr(detail.text, words) == NULL) {
        fail_msg("\"%s\" lacks \"%s\"", detail.text, words);
    }
}

static void refusals(void **state) {
    (void)state;
    struct lb_config config;
    struct lb_model *model = make(&config);
    char path[256], file[300];
    snprintf(path, sizeof path, "%s/nothing", lb_scratch);
    expect_refusal(path, LB_E_NOTFOUND, "no such file or folder");
    assert_int_equal(lb_mkdirs(path, NULL), LB_OK);
    expect_refusal(path, LB_E_NOTFOUND, "model.safetensors");
    /* Weights of another width than the config's. */
    snprintf(path, sizeof path, "%s/bent", lb_scratch);
    assert_int_equal(lb_model_save_hf(model, path, LB_F32, NULL, NULL, NULL), LB_OK);
    config.intermediate_size = 64;
    struct lb_buf text;
    lb_buf_init(&text, 65536);
    assert_int_equal(lb_config_write(&config, NULL, "float32", &text), LB_OK);
    snprintf(file, sizeof file, "%s/config.json", path);
    assert_int_equal(lb_file_replace(file, text.data, text.len, NULL), LB_OK);
    expect_refusal(path, LB_E_MISMATCH, "has shape");
    config.num_hidden_layers = 3;
    config.intermediate_size = 48;
    lb_buf_reset(&text);
    assert_int_equal(lb_config_write(&config, NULL, "float32", &text), LB_OK);
    assert_int_equal(lb_file_replace(file, text.data, text.len, NULL), LB_OK);
    expect_refusal(path, LB_E_FORMAT, "model.layers.2.");
    lb_buf_finish(&text);
    struct lb_detail detail = {0};
    assert_int_equal(lb_model_check_tap(model, LB_TAP_HIDDEN, 3, &detail), LB_E_ARG);
    assert_int_equal(lb_model_check_tap(model, LB_TAP_ATTENTION, 1, NULL), LB_OK);
    lb_model_destroy(model);
}

/* The config of a model to be made: the keys of config.json, and no other. */
static void new_configs(void **state) {
    (void)state;
    static const char text[] = "{\"model_type\": \"llama\", \"vocab_size\": 9, \"hidden_size\": 8, "
                               "\"intermediate_size\": 8, \"num_hidden_layers\": 1, "
                               "\"num_attention_heads\": 2%s}";
    const struct {
        const char *more, *says;
    } cases[] = {{"", NULL},
                 {", \"rope_theta\": 500", NULL},
                 {", \"hiden\": 1", "r.yaml: student: hiden is no key of model_type llama"},
                 {", \"use_cache\": true", "use_cache is no key"},
                 {", \"input_size\": 3", "input_size is no key of model_type llama"},
                 {", \"num_key_value_heads\": 0", "r.yaml: student: num_key_value_heads is 0"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char whole[512];
        json_t *object = NULL;
        struct lb_config c;
        struct lb_detail detail = {0};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        int len = snprintf(whole, sizeof whole, text, cases[i].more);
#pragma GCC diagnostic pop
        assert_int_equal(lb_json_parse(whole, (size_t)len, 0, "text", &object, NULL), LB_OK);
        enum lb_status status = lb_config_parse_new(object, "r.yaml: student", &c, &detail);
        json_decref(object);
        if (cases[i].says == NULL ? status != LB_OK : strstr(detail.text, cases[i].says) == NULL) {
            fail_msg("%s: \"%s\"", cases[i].more, detail.text);
        }
    }
}

/* ---- fingerprints ---- */

static void fingerprint_of(const char *path, char out[65]) {
    struct lb_model *model = NULL;
    struct lb_detail detail = {0};
    if (lb_model_open(path, false, &model, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    snprintf(out, 65, "%s", lb_model_fingerprint(model));
    lb_model_destroy(model);
}

/* Writes a file of the folder again with its first `from` replaced. */
static void rewrite(const char *dir, const char *name, const char *from, const char *to) {
    char *path = lb_path_join(dir, name);
    struct lb_buf in, out;
    lb_buf_init(&in, 1 << 24);
    lb_buf_init(&out, 1 << 24);
    assert_int_equal(lb_file_read(path, &in, NULL), LB_OK);
    const char *at = memmem(in.data, in.len, from, strlen(from));
    assert_non_null(at);
    lb_buf_append(&out, in.data, (size_t)(at - in.data));
    lb_buf_append_str(&out, to);
    lb_buf_append(&out, at + strlen(from), in.len - (size_t)(at - in.data) - strlen(from));
    assert_int_equal(lb_file_replace(path, out.data, out.len, NULL), LB_OK);
    lb_buf_finish(&in);
    lb_buf_finish(&out);
    lb_free(path);
}

/* They cover what decides answers and ids, however it is written. */
static void batches(void **state) {
    (void)state;
    struct lb_arena arena;
    struct lb_model_batch b;
    static const int32_t text[] = {5, 6, 7, 8, 9};
    static const float features[2][2] = {{1, 2}, {3, 4}};
    lb_arena_init(&arena, (size_t)1 << 20);
    assert_true(lb_model_batch_init(&b, &arena, 2, 4, 0, true));
    for (int round = 0; round < 2; round++) { /* once more after it was cleared */
        lb_model_batch_clear(&b);
        lb_model_batch_add_ids(&b, text, text + 1, 3);
        lb_model_batch_add_ids(&b, text + 3, text + 4, 1);
        struct lb_input in = lb_model_batch_input(&b);
        assert_int_equal(in.ragged.n_seqs, 2);
        assert_memory_equal(in.ragged.offsets, ((int32_t[]){0, 3, 4}), 3 * sizeof(int32_t));
        assert_memory_equal(in.ids, text, 4 * sizeof *text);
        assert_memory_equal(b.labels, text + 1, 4 * sizeof *text);
        assert_true(in.features == NULL && b.n_rows == 4);
    }
    assert_true(lb_model_batch_init(&b, &arena, 2, 2, 2, false));
    lb_model_batch_add_features(&b, features[0], -1);
    lb_model_batch_add_features(&b, features[1], -1);
    struct lb_input in = lb_model_batch_input(&b);
    assert_memory_equal(in.features, features, sizeof features);
    assert_memory_equal(in.ragged.offsets, ((int32_t[]){0, 1, 2}), 3 * sizeof(int32_t));
    assert_true(in.ids == NULL && b.labels == NULL);
    assert_false(lb_model_batch_init(&b, &arena, 1, (int64_t)INT32_MAX + 1, 0, false));
    assert_false(
        lb_model_batch_init(&b, &arena, 1, (int64_t)1 << 24, 0, false)); /* more than the arena has */
    lb_arena_finish(&arena);
}

static void fingerprints(void **state) {
    (void)state;
    struct lb_config config;
    char *dir = lb_path_join(lb_scratch, "printed"), first[65], other[65];
    lb_tiny_llama(&config);
    config.vocab_size = 258;
    lb_tiny_save(&config, 5, dir, LB_F32, true);
    fingerprint_of(dir, first);
    rewrite(dir, "config.json", "{", "{\n\n  \"attention_bias\": false, \"use_cache\": true,");
    rewrite(dir, "tokenizer.json", "{", "{ \n \"normalizer\": null,");
    fingerprint_of(dir, other);
    assert_string_equal(first, other);
    rewrite(dir, "config.json", "\"initializer_range\"", "\"x_initializer\""); /* of training only */
    fingerprint_of(dir, other);
    assert_string_equal(first, other);
    rewrite(dir, "config.json", "\"rms_norm_eps\": 1", "\"rms_norm_eps\": 3");
    fingerprint_of(dir, other);
    assert_string_not_equal(first, other);
    rewrite(dir, "config.json", "\"rms_norm_eps\": 3", "\"rms_norm_eps\": 1");
    fingerprint_of(dir, other);
    assert_string_equal(first, other);
    rewrite(dir, "tokenizer.json", "\"normalizer\":null,", "\"normalizer\": {\"type\": \"NFC\"},");
    fingerprint_of(dir, other);
    assert_string_not_equal(first, other);
    lb_free(dir);
}

/* A GGUF's vocabulary is in it. */
static void fingerprints_of_vocabularies(void **state) {
    (void)state;
    struct lb_config config;
    char *dir = lb_path_join(lb_scratch, "vocabulary"), *with = lb_path_join(lb_scratch, "with.gguf"),
         *without = lb_path_join(lb_scratch, "without.gguf"), a[65], b[65];
    struct lb_model *model = NULL;
    struct lb_buf json;
    lb_tiny_llama(&config);
    config.vocab_size = 258;
    lb_tiny_save(&config, 5, dir, LB_F32, true);
    assert_int_equal(lb_model_open(dir, false, &model, NULL), LB_OK);
    char *path = lb_path_join(dir, "tokenizer.json");
    lb_buf_init(&json, 1 << 24);
    assert_int_equal(lb_file_read(path, &json, NULL), LB_OK);
    struct lb_tokenizer *tokenizer = NULL;
    assert_int_equal(lb_tokenizer_parse(json.data, json.len, path, &tokenizer, NULL), LB_OK);
    assert_int_equal(lb_model_save_gguf(model, with, LB_F32, tokenizer, NULL, NULL), LB_OK);
    lb_tokenizer_destroy(tokenizer);
    assert_int_equal(lb_model_save_gguf(model, without, LB_F32, NULL, NULL, NULL), LB_OK);
    fingerprint_of(with, a);
    fingerprint_of(without, b);
    assert_string_not_equal(a, b);
    lb_model_destroy(model);
    lb_buf_finish(&json);
    lb_free(path);
    lb_free(with);
    lb_free(without);
    lb_free(dir);
}

/* What is kept of large files is found again, until the file changes. */
static void memos(void **state) {
    (void)state;
    char key[LB_SHA256_HEX], other[LB_SHA256_HEX], text[80];
    char *path = lb_path_join(lb_scratch, "large");
    uint8_t digest[LB_SHA256_BYTES];
    assert_int_equal(setenv("XDG_CACHE_HOME", lb_scratch, 1), 0);
    struct lb_sha256 *hash = lb_sha256_create();
    assert_false(lb_memo_file(hash, path)); /* not there */
    assert_int_equal(lb_file_replace(path, "x", 1, NULL), LB_OK);
    assert_false(lb_memo_file(hash, path)); /* just written: a change in the same instant would not be seen */
    assert_true(lb_memo_file(hash, "/etc/passwd"));
    lb_sha256_final(hash, digest);
    lb_hex(digest, sizeof digest, key);
    digest[0] ^= 1;
    lb_hex(digest, sizeof digest, other);
    assert_false(lb_memo_get("fingerprint", key, text, sizeof text));
    lb_memo_put("fingerprint", key, "12345");
    assert_true(lb_memo_get("fingerprint", key, text, sizeof text));
    assert_string_equal(text, "12345");
    assert_false(lb_memo_get("fingerprint", other, text, sizeof text));
    assert_false(lb_memo_get("selftest", key, text, sizeof text));
    assert_false(lb_memo_get("fingerprint", key, text, 5)); /* does not fit */
    uint64_t begun = lb_now_ns();
    for (bool named = false; !named;) { /* once this program was not linked just now */
        assert_true(lb_now_ns() - begun < 20 * LB_SECOND_NS);
        hash = lb_sha256_create();
        named = lb_memo_program(hash);
        lb_sha256_final(hash, digest);
        lb_sleep_ns(named ? 0 : 100 * LB_MS_NS);
    }
    lb_hex(digest, sizeof digest, other);
    hash = lb_sha256_create();
    lb_sha256_final(hash, digest);
    lb_hex(digest, sizeof digest, key);
    assert_string_not_equal(key, other);
    lb_memo_distrust();
    assert_false(lb_memo_get("fingerprint", key, text, sizeof text));
    lb_free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches),
        cmocka_unit_test(fingerprints),
        cmocka_unit_test(fingerprints_of_vocabularies),
        cmocka_unit_test(memos),
        cmocka_unit_test(folders),
        cmocka_unit_test(gguf),
        cmocka_unit_test(gguf_falls_back),
        cmocka_unit_test(extended),
        cmocka_unit_test(ends_of_texts),
        cmocka_unit_test(generating),
        cmocka_unit_test(refusals),
        cmocka_unit_test(new_configs),
    };
    return cmocka_run_group_tests(tests, lb_scratch_make, lb_scratch_remove);
}
