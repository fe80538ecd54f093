/* What every family in the table must do, and files that hold more or other than a family has. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/formats/safetensors.h"
#include "common/model/families.h"
#include "common/model/model.h"
#include "tests/support/parameters.h"
#include "tests/support/scratch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N = 11, WIDTH = 32, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 8 };

/* A small decoder of the family, every number its own: biases and norms too. */
static struct lb_model *make(const char *model_type, bool tied, const char *more) {
    char text[600];
    struct lb_detail detail = {0};
    struct lb_config config;
    struct lb_model *model = NULL;
    json_t *object = NULL;
    char kv[64] = "";
    if (strcmp(model_type, "gpt_neox") != 0 && strcmp(model_type, "olmoe") != 0) {
        snprintf(kv, sizeof kv, "\"num_key_value_heads\": %d, ", KV_HEADS);
    }
    int len = snprintf(text, sizeof text,
                       "{\"model_type\": \"%s\", \"vocab_size\": 40, \"hidden_size\": %d, "
                       "\"intermediate_size\": 48, \"num_hidden_layers\": 2, \"num_attention_heads\": %d, "
                       "%s\"max_position_embeddings\": 64, \"initializer_range\": "
                       "0.3, \"tie_word_embeddings\": %s%s}",
                       model_type, WIDTH, HEADS, kv, tied ? "true" : "false", more);
    if (strcmp(model_type, "gpt2") == 0) {
        len = snprintf(text, sizeof text,
                       "{\"model_type\": \"gpt2\", \"vocab_size\": 40, \"n_embd\": %d, \"n_layer\": 2, "
                       "\"n_head\": %d, \"n_positions\": 64, \"tie_word_embeddings\": %s%s}",
                       WIDTH, HEADS, tied ? "true" : "false", more);
    }
    assert_int_equal(lb_json_parse(text, (size_t)len, 0, "text", &object, NULL), LB_OK);
    if (lb_config_parse_new(object, "student", &config, &detail) != LB_OK ||
        lb_model_create(&config, 5, &model, &detail) != LB_OK) {
        fail_msg("%s: %s", model_type, detail.text);
    }
    json_decref(object);
    size_t n;
    float *values = lb_model_values(model, &n);
    for (size_t i = 0; i < n; i++) {
        values[i] += 1e-3f * (float)(i % 977);
    }
    return model;
}

static struct lb_model *must_open(const char *path) {
    struct lb_model *model = NULL;
    struct lb_detail detail = {0};
    if (lb_model_open(path, false, &model, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    return model;
}

static void must_refuse(const char *path, const char *says) {
    struct lb_model *model = NULL;
    struct lb_detail detail = {0};
    assert_int_equal(lb_model_open(path, false, &model, &detail), LB_E_UNSUPPORTED);
    if (strstr(detail.text, says) == NULL) {
        fail_msg("\"%s\" lacks \"%s\"", detail.text, says);
    }
}

/* The same weights under the same names, bit for bit; the forward is the same function of them. close: norms
 * of Gemma's GGUFs have one added, which costs bits. */
static void assert_same_weights(const struct lb_model *a, const struct lb_model *b, bool close) {
    size_t n, n_b;
    const struct lb_weight *w = lb_model_weights(a, &n), *v = lb_model_weights(b, &n_b);
    assert_int_equal(n, n_b);
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(w[i].name, v[i].name);
        int64_t count = w[i].rows * w[i].cols;
        const float *x = w[i].data, *y = v[i].data;
        bool norm = close && w[i].n_dims == 1;
        for (int64_t j = 0; j < count && norm; j++) {
            assert_true(fabsf(x[j] - y[j]) <= 6e-8f);
        }
        if (!norm && memcmp(x, y, (size_t)count * sizeof *x) != 0) {
            fail_msg("%s differs", w[i].name);
        }
    }
}

/* Whether the family is a decoder, by its keys. */
static bool is_decoder(const char *model_type) {
    const char *key;
    bool blocks = false, segments = false; /* the latter of encoders */
    for (size_t i = 0; (key = lb_family_key(model_type, i)) != NULL; i++) {
        blocks |= strcmp(key, "num_hidden_layers") == 0 || strcmp(key, "n_layer") == 0;
        segments |= strcmp(key, "type_vocab_size") == 0;
    }
    return blocks && !segments;
}

static void run(const struct lb_model *model) {
    int32_t ids[N], offsets[2] = {0, N};
    for (int i = 0; i < N; i++) {
        ids[i] = (7 * i + 3) % 40;
    }
    struct lb_input in = {.ragged = {1, offsets}, .ids = ids};
    struct lb_tape *tape = lb_tape_create((size_t)1 << 26);
    lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    assert_non_null(lb_model_forward(model, tape, &in, NULL, 0, NULL));
    assert_int_equal(lb_tape_status(tape), LB_OK);
    lb_tape_destroy(tape);
}

/* The last state of each row of a gemma3 whose layers all have a window; rope: of those that see all. */
static void run_windows(const char *rope, float out[N * WIDTH]) {
    char text[700];
    struct lb_config config;
    struct lb_model *model = NULL;
    json_t *object = NULL;
    int32_t ids[N], offsets[2] = {0, N};
    int len = snprintf(text, sizeof text,
                       "{\"model_type\": \"gemma3_text\", \"vocab_size\": 40, \"hidden_size\": %d, "
                       "\"intermediate_size\": 48, \"num_hidden_layers\": 2, \"num_attention_heads\": %d, "
                       "\"num_key_value_heads\": 2, \"head_dim\": 8, \"max_position_embeddings\": 6, "
                       "\"initializer_range\": 0.3, \"sliding_window\": 4, \"layer_types\": "
                       "[\"sliding_attention\", \"sliding_attention\"], \"rope_parameters\": "
                       "{\"full_attention\": {%s}, \"sliding_attention\": {\"rope_theta\": 50}}}",
                       WIDTH, HEADS, rope);
    assert_int_equal(lb_json_parse(text, (size_t)len, 0, "text", &object, NULL), LB_OK);
    assert_int_equal(lb_config_parse(object, "config.json", &config, NULL, NULL), LB_OK);
    json_decref(object);
    assert_int_equal(lb_model_create(&config, 5, &model, NULL), LB_OK);
    for (int i = 0; i < N; i++) {
        ids[i] = (7 * i + 3) % 40;
    }
    struct lb_input in = {.ragged = {1, offsets}, .ids = ids};
    struct lb_tape *tape = lb_tape_create((size_t)1 << 26);
    lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
    struct lb_value *last = lb_model_forward(model, tape, &in, NULL, 0, NULL);
    assert_non_null(last);
    memcpy(out, last->data, N * WIDTH * sizeof *out);
    lb_tape_destroy(tape);
    lb_model_destroy(model);
}

/* What scales the positions of layers that see all is no matter to those with a window, whether it goes by
 * the length or not. */
static void windows_have_positions_of_their_own(void **state) {
    (void)state;
    static const char *const ropes[] = {
        "\"rope_type\": \"linear\", \"factor\": 3", "\"rope_type\": \"dynamic\", \"factor\": 3",
        "\"rope_type\": \"longrope\", \"short_factor\": [1, 2, 3, 4], \"long_factor\": [2, 3, 4, 5]"};
    float plain[N * WIDTH], have[N * WIDTH];
    run_windows("\"rope_type\": \"default\"", plain);
    for (size_t i = 0; i < sizeof ropes / sizeof *ropes; i++) {
        run_windows(ropes[i], have);
        assert_memory_equal(have, plain, sizeof plain);
    }
}

/* A family whose files have a window when they say nothing: a new model has none. */
static void new_models_have_no_window(void **state) {
    (void)state;
    json_t *object =
        json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "model_type", "mistral", "vocab_size", 9,
                  "hidden_size", 8, "intermediate_size", 8, "num_hidden_layers", 1, "num_attention_heads", 2,
                  "num_key_value_heads", 2, "max_position_embeddings", 8192);
    struct lb_config c;
    assert_int_equal(lb_config_parse_new(object, "student", &c, NULL), LB_OK);
    assert_int_equal(c.max_position_embeddings, 8192);
    assert_int_equal(lb_config_parse(object, "config.json", &c, NULL, NULL), LB_OK);
    assert_int_equal(c.sliding_window, 4096);
    json_decref(object);
}

/* Of mixtures fewer experts than they have when nothing is said. */
static const char *few_experts(const char *name) {
    return strcmp(name, "mixtral") == 0 ? ", \"num_local_experts\": 3"
           : strcmp(name, "olmoe") == 0 ? ", \"num_experts\": 3, \"num_experts_per_tok\": 2"
           : strcmp(name, "qwen3_moe") == 0
               ? ", \"num_experts\": 5, \"num_experts_per_tok\": 3, \"moe_intermediate_size\": 12, "
                 "\"norm_topk_prob\": true"
               : "";
}

static void each_decoder_comes_back_from_both_formats(void **state) {
    (void)state;
    char names[LB_FAMILY_NAMES], *rest = NULL;
    int n = 0;
    lb_family_names(names);
    for (char *name = strtok_r(names, ", ", &rest); name != NULL; name = strtok_r(NULL, ", ", &rest)) {
        if (!is_decoder(name)) {
            continue;
        }
        for (int tied = 0; tied < 2; tied++) {
            bool gemma = strncmp(name, "gemma", 5) == 0;
            struct lb_model *model = make(name, tied, few_experts(name));
            run(model);
            assert_int_equal(lb_model_parameters(model), config_parameters(lb_model_config(model)));
            assert_int_equal(lb_model_save_hf(model, lb_in_scratch("hf"), LB_F32, NULL, NULL, NULL), LB_OK);
            struct lb_model *again = must_open(lb_in_scratch("hf"));
            assert_string_equal(lb_model_config(again)->model_type, name);
            assert_null(lb_note_get(lb_model_notes(again), 0)); /* what is written is known */
            assert_same_weights(again, model, false);
            lb_model_destroy(again);
            assert_int_equal(lb_model_save_gguf(model, lb_in_scratch("m.gguf"), LB_F32, NULL, NULL, NULL),
                             LB_OK);
            again = must_open(lb_in_scratch("m.gguf"));
            assert_null(lb_note_get(lb_model_notes(again), 0));
            assert_same_weights(again, model, gemma);
            lb_model_destroy(again);
            lb_model_destroy(model);
            n++;
        }
    }
    assert_true(n >= 32);
}

/* llama.cpp's convert_hf_to_gguf.py, LlamaModel.permute: w.reshape(n_head, 2, d / 2, cols).swapaxes(1, 2)
 * .reshape(w.shape). Written as it stands there: out[h][j][i] = in[h][i][j], i of 2, j of d / 2. */
static void as_llamacpp_permutes(const float *in, float *out, int64_t n_head, int64_t d, int64_t cols) {
    for (int64_t h = 0; h < n_head; h++) {
        for (int64_t i = 0; i < 2; i++) {
            for (int64_t j = 0; j < d / 2; j++) {
                memcpy(out + ((h * (d / 2) + j) * 2 + i) * cols, in + ((h * 2 + i) * (d / 2) + j) * cols,
                       (size_t)cols * sizeof *in);
            }
        }
    }
}

static void check_rows(const struct lb_model *model, const struct lb_gguf *file, const char *name,
                       const char *gguf, int64_t heads, int64_t cols, bool permuted) {
    const struct lb_tensor *stored = lb_gguf_find(file, gguf);
    const float *own = lb_model_find(model, name)->data;
    float want[HEADS * HEAD_DIM * WIDTH];
    assert_non_null(stored);
    if (permuted) {
        as_llamacpp_permutes(own, want, heads, HEAD_DIM, cols);
    } else {
        memcpy(want, own, (size_t)(heads * HEAD_DIM * cols) * sizeof *want);
    }
    if (memcmp(stored->data, want, (size_t)(heads * HEAD_DIM * cols) * sizeof *want) != 0) {
        fail_msg("%s: rows are not in llama.cpp's order", gguf);
    }
}

/* The file's own bytes against llama.cpp's rule, so that reader and writer cannot be wrong together. */
static void rows_of_q_and_k_lie_as_llamacpp_has_them(void **state) {
    (void)state;
    static const struct {
        const char *model_type, *more, *architecture;
        bool permuted, bias;
    } cases[] = {{"llama", "", "llama", true, false},
                 {"llama", ", \"attention_bias\": true", "llama", true, true},
                 {"mistral", "", "llama", true, false},
                 {"qwen2", "", "qwen2", false, true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lb_model *model = make(cases[i].model_type, true, cases[i].more);
        struct lb_gguf *file = NULL;
        bool p = cases[i].permuted;
        assert_int_equal(lb_model_save_gguf(model, lb_in_scratch("rows.gguf"), LB_F32, NULL, NULL, NULL),
                         LB_OK);
        assert_int_equal(lb_gguf_open(lb_in_scratch("rows.gguf"), &file, NULL), LB_OK);
        assert_string_equal(lb_gguf_string(file, "general.architecture"), cases[i].architecture);
        check_rows(model, file, "model.layers.1.self_attn.q_proj.weight", "blk.1.attn_q.weight", HEADS, WIDTH,
                   p);
        check_rows(model, file, "model.layers.1.self_attn.k_proj.weight", "blk.1.attn_k.weight", KV_HEADS,
                   WIDTH, p);
        check_rows(model, file, "model.layers.1.self_attn.v_proj.weight", "blk.1.attn_v.weight", KV_HEADS,
                   WIDTH, false);
        if (cases[i].bias) {
            check_rows(model, file, "model.layers.0.self_attn.q_proj.bias", "blk.0.attn_q.bias", HEADS, 1, p);
            check_rows(model, file, "model.layers.0.self_attn.k_proj.bias", "blk.0.attn_k.bias", KV_HEADS, 1,
                       p);
        }
        lb_gguf_destroy(file);
        struct lb_model *again = must_open(lb_in_scratch("rows.gguf"));
        assert_same_weights(again, model, false);
        lb_model_destroy(again);
        lb_model_destroy(model);
    }
}

/* llama.cpp's converter adds one to Gemma's norms, and puts GPT-NeoX's rows, each head's q, k and v, as all
 * q, then all k, then all v. */
static void other_tensors_lie_as_llamacpp_has_them(void **state) {
    (void)state;
    struct lb_gguf *file = NULL;
    struct lb_model *model = make("gemma3_text", true, "");
    assert_int_equal(lb_model_save_gguf(model, lb_in_scratch("g.gguf"), LB_F32, NULL, NULL, NULL), LB_OK);
    assert_int_equal(lb_gguf_open(lb_in_scratch("g.gguf"), &file, NULL), LB_OK);
    static const char *const norms[][2] = {
        {"model.norm.weight", "output_norm.weight"},
        {"model.layers.1.pre_feedforward_layernorm.weight", "blk.1.ffn_norm.weight"},
        {"model.layers.0.post_attention_layernorm.weight", "blk.0.post_attention_norm.weight"}};
    for (size_t i = 0; i < 3; i++) {
        const float *own = lb_model_find(model, norms[i][0])->data,
                    *stored = lb_gguf_find(file, norms[i][1])->data;
        for (int j = 0; j < WIDTH; j++) {
            assert_true(stored[j] == own[j] + 1);
        }
    }
    lb_gguf_destroy(file);
    lb_model_destroy(model);

    model = make("gpt_neox", false, "");
    assert_int_equal(lb_model_save_gguf(model, lb_in_scratch("x.gguf"), LB_F32, NULL, NULL, NULL), LB_OK);
    assert_int_equal(lb_gguf_open(lb_in_scratch("x.gguf"), &file, NULL), LB_OK);
    const float *own = lb_model_find(model, "gpt_neox.layers.1.attention.query_key_value.weight")->data;
    const float *stored = lb_gguf_find(file, "blk.1.attn_qkv.weight")->data;
    for (int part = 0; part < 3; part++) {
        for (int head = 0; head < HEADS; head++) {
            assert_memory_equal(stored + (part * HEADS + head) * HEAD_DIM * WIDTH,
                                own + (head * 3 + part) * HEAD_DIM * WIDTH, HEAD_DIM * WIDTH * sizeof *own);
        }
    }
    lb_gguf_destroy(file);
    lb_model_destroy(model);
}

/* ---- mixtures of experts ---- */

/* A GGUF has an expert's matrix behind those of the experts before it, and the router as F32. */
static void experts_lie_as_llamacpp_has_them(void **state) {
    (void)state;
    struct lb_gguf *file = NULL;
    struct lb_model *model = make("mixtral", false, few_experts("mixtral"));
    assert_int_equal(lb_model_save_gguf(model, lb_in_scratch("e.gguf"), LB_F16, NULL, NULL, NULL), LB_OK);
    assert_int_equal(lb_gguf_open(lb_in_scratch("e.gguf"), &file, NULL), LB_OK);
    const struct lb_tensor *down = lb_gguf_find(file, "blk.1.ffn_down_exps.weight");
    assert_int_equal(down->n_dims, 3);
    assert_int_equal(down->dim[0], 3);
    assert_int_equal(down->dim[1], WIDTH);
    assert_int_equal(down->dim[2], 48);
    for (int e = 0; e < 3; e++) {
        char name[80];
        uint16_t want[WIDTH * 48];
        snprintf(name, sizeof name, "model.layers.1.block_sparse_moe.experts.%d.w2.weight", e);
        lb_quantize(LB_F16, lb_model_find(model, name)->data, want, WIDTH * 48);
        assert_memory_equal((const char *)down->data + (size_t)e * sizeof want, want, sizeof want);
    }
    assert_int_equal(lb_gguf_find(file, "blk.1.ffn_gate_inp.weight")->dtype, LB_F32);
    lb_gguf_destroy(file);
    struct lb_model *again = must_open(lb_in_scratch("e.gguf"));
    assert_string_equal(lb_model_config(again)->model_type, "mixtral"); /* of the architecture of llama */
    lb_model_destroy(again);
    lb_model_destroy(model);
}

/* A student of some layers has each expert of theirs. */
static void layers_keep_their_experts(void **state) {
    (void)state;
    static const int64_t turned[] = {1, 0};
    struct lb_model *model = make("mixtral", false, few_experts("mixtral")), *student = NULL;
    assert_int_equal(lb_model_save_hf(model, lb_in_scratch("layers"), LB_F32, NULL, NULL, NULL), LB_OK);
    assert_int_equal(lb_model_from_layers(lb_in_scratch("layers"), turned, 2, &student, NULL), LB_OK);
    for (int layer = 0; layer < 2; layer++) {
        for (int e = 0; e < 3; e++) {
            char here[80], there[80];
            snprintf(here, sizeof here, "model.layers.%d.block_sparse_moe.experts.%d.w2.weight", layer, e);
            snprintf(there, sizeof there, "model.layers.%d.block_sparse_moe.experts.%d.w2.weight", 1 - layer,
                     e);
            assert_memory_equal(lb_model_find(student, here)->data, lb_model_find(model, there)->data,
                                WIDTH * 48 * sizeof(float));
        }
    }
    lb_model_destroy(student);
    lb_model_destroy(model);
}

/* Rows that are no whole blocks: what llama.cpp's quantize takes then, and a note. */
static void rows_of_other_widths(void **state) {
    (void)state;
    static const struct {
        enum lb_dtype dtype, of_32, of_48, of_256;
    } cases[] = {{LB_Q4_K, LB_Q5_0, LB_F16, LB_Q4_K}, {LB_Q6_K, LB_Q8_0, LB_F16, LB_Q6_K}};
    struct lb_model *model = make("mixtral", false, few_experts("mixtral"));
    struct lb_model *wide = make("llama", false, ", \"head_dim\": 64"); /* o has rows of 256 */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lb_notes notes = {0};
        struct lb_gguf *file = NULL;
        assert_int_equal(
            lb_model_save_gguf(model, lb_in_scratch("k.gguf"), cases[i].dtype, NULL, &notes, NULL), LB_OK);
        assert_non_null(strstr(lb_note_get(&notes, 0), "no multiple of the 256 of"));
        assert_int_equal(lb_gguf_open(lb_in_scratch("k.gguf"), &file, NULL), LB_OK);
        assert_int_equal(lb_gguf_find(file, "blk.0.attn_q.weight")->dtype, cases[i].of_32);
        assert_int_equal(lb_gguf_find(file, "blk.0.ffn_up_exps.weight")->dtype, cases[i].of_32);
        assert_int_equal(lb_gguf_find(file, "blk.0.ffn_down_exps.weight")->dtype, cases[i].of_48);
        assert_int_equal(lb_gguf_find(file, "blk.0.attn_norm.weight")->dtype, LB_F32);
        lb_gguf_destroy(file);
        lb_model_destroy(must_open(lb_in_scratch("k.gguf")));
        assert_int_equal(lb_model_save_gguf(wide, lb_in_scratch("k.gguf"), cases[i].dtype, NULL, NULL, NULL),
                         LB_OK);
        assert_int_equal(lb_gguf_open(lb_in_scratch("k.gguf"), &file, NULL), LB_OK);
        assert_int_equal(lb_gguf_find(file, "blk.0.attn_output.weight")->dtype, cases[i].of_256);
        lb_gguf_destroy(file);
    }
    lb_model_destroy(wide);
    lb_model_destroy(model);
}

static void must_refuse_config(const char *model_type, const char *more, enum lb_status status,
                               const char *says) {
    char text[500];
    struct lb_detail detail = {0};
    struct lb_config config;
    json_t *object = NULL;
    int len = snprintf(text, sizeof text,
                       "{\"model_type\": \"%s\", \"vocab_size\": 40, \"hidden_size\": 32, "
                       "\"intermediate_size\": 48, \"num_hidden_layers\": 12, \"num_attention_heads\": 4, "
                       "\"num_key_value_heads\": 4, %s}",
                       model_type, more);
    assert_int_equal(lb_json_parse(text, (size_t)len, 0, "text", &object, NULL), LB_OK);
    assert_int_equal(lb_config_parse(object, "config.json", &config, NULL, &detail), status);
    if (status != LB_OK && strstr(detail.text, says) == NULL) {
        fail_msg("\"%s\" lacks \"%s\"", detail.text, says);
    }
    json_decref(object);
}

static void mixtures_that_are_not_computed(void **state) {
    (void)state;
    must_refuse_config("qwen3_moe", "\"mlp_only_layers\": [], \"num_local_experts\": 9", LB_OK, "");
    must_refuse_config("qwen3_moe", "\"mlp_only_layers\": [1]", LB_E_UNSUPPORTED, "mlp_only_layers");
    must_refuse_config("qwen3_moe", "\"decoder_sparse_step\": 2", LB_E_UNSUPPORTED, "decoder_sparse_step");
    must_refuse_config("qwen3_moe", "\"num_experts\": 7", LB_E_ARG,
                       "num_experts_per_tok 8 is more than the 7 experts");
    must_refuse_config("mixtral", "\"num_local_experts\": 2048", LB_OK, "");
    must_refuse_config("mixtral", "\"num_local_experts\": 4096", LB_E_LIMIT, "49152 experts in all layers");
    must_refuse_config("olmoe", "\"clip_qkv\": null", LB_OK, "");
    must_refuse_config("olmoe", "\"clip_qkv\": 8.0", LB_E_UNSUPPORTED, "clip_qkv");
    must_refuse_config("llama", "\"num_experts\": 8", LB_E_UNSUPPORTED, "num_experts 8");
    must_refuse_config("qwen2_moe", "\"num_experts\": 8", LB_E_UNSUPPORTED,
                       "model_type \"qwen2_moe\" is not one of");

    /* what llama.cpp makes of a GGUF is not what the config says */
    struct lb_detail detail = {0};
    struct lb_model *model = make("qwen3_moe", true,
                                  ", \"num_experts\": 4, \"num_experts_per_tok\": 2, "
                                  "\"norm_topk_prob\": false");
    assert_int_equal(lb_model_save_gguf(model, lb_in_scratch("n.gguf"), LB_F32, NULL, NULL, &detail),
                     LB_E_UNSUPPORTED);
    assert_non_null(strstr(detail.text, "GGUF has no word for norm_topk_prob false"));
    lb_model_destroy(model);
    model =
        make("olmoe", true, ", \"num_key_value_heads\": 2, \"num_experts\": 4, \"num_experts_per_tok\": 2");
    detail = (struct lb_detail){0};
    assert_int_equal(lb_model_save_gguf(model, lb_in_scratch("n.gguf"), LB_F32, NULL, NULL, &detail),
                     LB_E_UNSUPPORTED);
    assert_non_null(strstr(detail.text, "fewer num_key_value_heads"));
    lb_model_destroy(model);
}

/* ---- files that hold more ---- */

static const float some[64 * 64];

/* The folder's model.safetensors again with one more tensor. */
static void add_to_folder(const struct lb_model *model, const char *name, const void *data, int64_t rows,
                          int64_t cols) {
    size_t n;
    const struct lb_weight *w = lb_model_weights(model, &n);
    struct lb_tensor tensors[64];
    assert_true(n < 64);
    for (size_t i = 0; i < n; i++) {
        bool vector = w[i].n_dims == 1;
        tensors[i] = (struct lb_tensor){.name = w[i].name,
                                        .dtype = LB_F32,
                                        .n_dims = w[i].n_dims,
                                        .dim = {vector ? w[i].cols : w[i].rows, vector ? 0 : w[i].cols},
                                        .data = w[i].data,
                                        .bytes = (size_t)(w[i].rows * w[i].cols) * sizeof(float)};
    }
    tensors[n] = (struct lb_tensor){.name = name,
                                    .dtype = LB_F32,
                                    .n_dims = 2,
                                    .dim = {rows, cols},
                                    .data = data,
                                    .bytes = (size_t)(rows * cols) * sizeof(float)};
    assert_int_equal(
        lb_safetensors_write(lb_in_scratch("more/model.safetensors"), tensors, n + 1, NULL, 0, NULL), LB_OK);
}

static void tensors_of_a_folder(void **state) {
    (void)state;
    struct lb_model *model = make("llama", false, "");
    assert_int_equal(lb_model_save_hf(model, lb_in_scratch("more"), LB_F32, NULL, NULL, NULL), LB_OK);
    add_to_folder(model, "model.layers.0.self_attn.rotary_emb.inv_freq", some, 1, 4);
    lb_model_destroy(must_open(lb_in_scratch("more")));
    static const char *const names[] = {"model.layers.1.self_attn.q_proj.bias",
                                        "model.layers.2.mlp.up_proj.weight",
                                        "model.layers.0.self_attn.q_norm.weight", "score.weight"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        add_to_folder(model, names[i], some, 1, 8);
        must_refuse(lb_in_scratch("more"), names[i]);
    }
    lb_model_destroy(model);
}

static void tensors_of_a_gguf(void **state) {
    (void)state;
    static const char *const names[] = {"blk.1.attn_q.bias", "blk.0.ffn_gate.bias",
                                        "blk.0.attn_norm_2.weight", "blk.0.attn_q_norm.weight",
                                        "blk.7.attn_q.weight"};
    struct lb_model *model = make("llama", true, "");
    assert_int_equal(lb_model_save_gguf(model, lb_in_scratch("plain.gguf"), LB_F32, NULL, NULL, NULL), LB_OK);
    struct lb_gguf *file = NULL;
    assert_int_equal(lb_gguf_open(lb_in_scratch("plain.gguf"), &file, NULL), LB_OK);
    for (size_t i = 0; i <= sizeof names / sizeof *names; i++) {
        bool harmless = i == sizeof names / sizeof *names;
        const char *name = harmless ? "blk.0.attn_rot_embd.weight" : names[i];
        struct lb_gguf_out *out = lb_gguf_out_create();
        enum lb_gguf_type type, element;
        const char *key;
        for (size_t k = 0; (key = lb_gguf_key(file, k, &type, &element)) != NULL; k++) {
            double v = 0;
            if (type == LB_GGUF_STRING) {
                lb_gguf_put_string(out, key, lb_gguf_string(file, key));
            } else if (lb_gguf_number(file, key, &v) && type == LB_GGUF_U32) {
                lb_gguf_put_u32(out, key, (uint32_t)v);
            } else {
                lb_gguf_put_f32(out, key, (float)v);
            }
        }
        for (size_t t = 0; t < lb_gguf_count(file); t++) {
            lb_gguf_put_tensor(out, lb_gguf_get(file, t));
        }
        lb_gguf_put_tensor(out, &(struct lb_tensor){.name = name,
                                                    .dtype = LB_F32,
                                                    .n_dims = 1,
                                                    .dim = {WIDTH},
                                                    .data = some,
                                                    .bytes = WIDTH * sizeof(float)});
        assert_int_equal(lb_gguf_write(out, lb_in_scratch("more.gguf"), NULL), LB_OK);
        lb_gguf_out_destroy(out);
        if (harmless) {
            lb_model_destroy(must_open(lb_in_scratch("more.gguf")));
        } else {
            must_refuse(lb_in_scratch("more.gguf"), name);
        }
    }
    lb_gguf_destroy(file);
    lb_model_destroy(model);
}

/* A tied config beside a stored head: a copy of the embedding is no matter, other numbers are used, as
 * transformers (5) does, and told. */
static void a_tied_config_and_a_stored_head(void **state) {
    (void)state;
    struct lb_model *model = make("llama", true, "");
    const struct lb_weight *embedding = lb_model_find(model, "model.embed_tokens.weight");
    assert_int_equal(lb_model_save_hf(model, lb_in_scratch("more"), LB_F32, NULL, NULL, NULL), LB_OK);
    struct lb_model *plain = must_open(lb_in_scratch("more"));
    add_to_folder(model, "lm_head.weight", embedding->data, embedding->rows, embedding->cols);
    struct lb_model *again = must_open(lb_in_scratch("more"));
    assert_true(lb_model_config(again)->tie_word_embeddings);
    assert_null(lb_note_get(lb_model_notes(again), 0));
    assert_string_equal(lb_model_fingerprint(again), lb_model_fingerprint(plain));
    lb_model_destroy(again);
    lb_model_destroy(plain);
    add_to_folder(model, "lm_head.weight", some, embedding->rows, embedding->cols);
    again = must_open(lb_in_scratch("more"));
    assert_false(lb_model_config(again)->tie_word_embeddings);
    assert_memory_equal(lb_model_head(again)->weight->data, some, (size_t)(40 * WIDTH) * sizeof *some);
    assert_non_null(
        strstr(lb_note_get(lb_model_notes(again), 0), "tie_word_embeddings is true, but lm_head.weight"));
    lb_model_destroy(again);
    lb_model_destroy(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_decoder_comes_back_from_both_formats),
        cmocka_unit_test(new_models_have_no_window),
        cmocka_unit_test(windows_have_positions_of_their_own),
        cmocka_unit_test(rows_of_q_and_k_lie_as_llamacpp_has_them),
        cmocka_unit_test(other_tensors_lie_as_llamacpp_has_them),
        cmocka_unit_test(experts_lie_as_llamacpp_has_them),
        cmocka_unit_test(layers_keep_their_experts),
        cmocka_unit_test(rows_of_other_widths),
        cmocka_unit_test(mixtures_that_are_not_computed),
        cmocka_unit_test(tensors_of_a_folder),
        cmocka_unit_test(tensors_of_a_gguf),
        cmocka_unit_test(a_tied_config_and_a_stored_head),
    };
    return cmocka_run_group_tests(tests, lb_scratch_make, lb_scratch_remove);
}
