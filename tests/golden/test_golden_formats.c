/* Files that the reference writers made (make_formats.py), read here: names, shapes, values.
 *
 * `test_golden_formats write DIR` goes the other way for check_formats_peers.py: it writes the same contents
 * into DIR with our writers, and one config.json per family; each family's number of parameters is printed.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/model/families.h"
#include "common/formats/gguf.h"
#include "common/formats/safetensors.h"
#include "tests/support/parameters.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The folder's file, in one of a few static places. */
static const char *golden(const char *name) {
    static char paths[4][512];
    static int next;
    const char *root = getenv("LB_SOURCE_ROOT");
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/tests/golden/formats/%s", root != NULL ? root : ".", name);
    return path;
}

/* Element i of a tensor of make_formats.py. */
static float value(int64_t seed, int64_t i) {
    return ((float)((i * 7 + seed * 13) % 64) - 31.5f) / 8;
}

/* Checks name, type, shape (dims ends at -1) and that each element lies within tolerance of its value. */
static void check_values(const struct lb_tensor *t, enum lb_dtype dtype, int seed, double tolerance,
                         const int64_t *dims) {
    int64_t n = 1;
    assert_non_null(t);
    assert_int_equal(t->dtype, dtype);
    int n_dims = 0;
    for (; dims[n_dims] >= 0; n_dims++) {
        assert_int_equal(t->dim[n_dims], dims[n_dims]);
        n *= dims[n_dims];
    }
    assert_int_equal(t->n_dims, n_dims);
    float *x = calloc((size_t)n, sizeof *x);
    assert_non_null(x);
    lb_dequantize(dtype, t->data, x, n);
    for (int64_t i = 0; i < n; i++) {
        if (!(fabs((double)x[i] - value(seed, i)) <= tolerance)) {
            fail_msg("%s[%" PRId64 "] is %g, expected %g", t->name, i, x[i], value(seed, i));
        }
    }
    free(x);
}
#define DIMS(...) ((const int64_t[]){__VA_ARGS__, -1})

static void reads_safetensors(void **state) {
    (void)state;
    struct lb_safetensors *file = NULL;
    struct lb_detail detail = {0};
    if (lb_safetensors_open(golden("types.safetensors"), &file, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    assert_int_equal(lb_safetensors_count(file), 9);
    check_values(lb_safetensors_find(file, "w.f32"), LB_F32, 1, 0, DIMS(3, 5));
    check_values(lb_safetensors_find(file, "w.f16"), LB_F16, 2, 0, DIMS(2, 2, 3));
    check_values(lb_safetensors_find(file, "w.f64"), LB_F64, 3, 0, DIMS(4));
    check_values(lb_safetensors_find(file, "scalar"), LB_F32, 4, 0, (const int64_t[]){-1});
    check_values(lb_safetensors_find(file, "empty"), LB_F32, 0, 0, DIMS(0, 4));
    const struct lb_tensor *ids = lb_safetensors_find(file, "ids.i64");
    assert_non_null(ids);
    assert_int_equal(ids->dtype, LB_I64);
    assert_memory_equal(ids->data, ((const int64_t[]){-3, -2, -1, 0, 1, 2}), 48);
    ids = lb_safetensors_find(file, "ids.i32");
    assert_non_null(ids);
    assert_int_equal(ids->dtype, LB_I32);
    assert_memory_equal(ids->data, ((const int32_t[]){INT32_MAX, INT32_MIN}), 8);
    assert_memory_equal(lb_safetensors_find(file, "bytes.u8")->data, "\0\xFF\x07", 3);
    assert_int_equal(lb_safetensors_find(file, "flags.bool")->dtype, LB_BOOL);
    assert_memory_equal(lb_safetensors_find(file, "flags.bool")->data, "\1\0\1", 3);
    assert_string_equal(lb_safetensors_metadata(file, "format"), "np");
    assert_string_equal(lb_safetensors_metadata(file, "who"), "ünder");
    lb_safetensors_destroy(file);
}

static void reads_shards(void **state) {
    (void)state;
    struct lb_safetensors *file = NULL;
    struct lb_detail detail = {0};
    if (lb_safetensors_open(golden("model.safetensors.index.json"), &file, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    assert_int_equal(lb_safetensors_count(file), 2);
    check_values(lb_safetensors_find(file, "model.embed_tokens.weight"), LB_BF16, 5, 0, DIMS(8, 4));
    check_values(lb_safetensors_find(file, "model.norm.weight"), LB_F32, 6, 0, DIMS(4));
    assert_string_equal(lb_safetensors_metadata(file, "format"), "pt");
    lb_safetensors_destroy(file);
}

static struct lb_gguf *open_gguf(void) {
    struct lb_gguf *file = NULL;
    struct lb_detail detail = {0};
    if (lb_gguf_open(golden("types.gguf"), &file, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    return file;
}

static void reads_gguf_tensors(void **state) {
    (void)state;
    struct lb_gguf *file = open_gguf();
    assert_int_equal(lb_gguf_count(file), 5);
    check_values(lb_gguf_find(file, "token_embd.weight"), LB_F32, 1, 0, DIMS(5, 32));
    check_values(lb_gguf_find(file, "w.f16"), LB_F16, 2, 0, DIMS(3, 5));
    check_values(lb_gguf_find(file, "w.bf16"), LB_BF16, 3, 0, DIMS(2, 8));
    /* scale max/127 with max < 4: half a step is below 0.016, and the scale itself is rounded to f16 (2^-11
     * of 4) */
    check_values(lb_gguf_find(file, "w.q8_0"), LB_Q8_0, 4, 0.016 + 0.002, DIMS(3, 64));
    check_values(lb_gguf_find(file, "output_norm.weight"), LB_F32, 5, 0, DIMS(32));
    lb_gguf_destroy(file);
}

static void check_number(const struct lb_gguf *file, const char *key, double expected) {
    double v = NAN;
    if (!lb_gguf_number(file, key, &v) || v != expected) {
        fail_msg("%s is %.17g, expected %.17g", key, v, expected);
    }
}

static void reads_gguf_keys(void **state) {
    (void)state;
    struct lb_gguf *file = open_gguf();
    double v = 0;
    check_number(file, "golden.u8", 200);
    check_number(file, "golden.i8", -100);
    check_number(file, "golden.u16", 60000);
    check_number(file, "golden.i16", -30000);
    check_number(file, "golden.i32", -2000000000);
    check_number(file, "golden.u64", 1099511627776.0);
    check_number(file, "golden.i64", -1099511627776.0);
    check_number(file, "golden.f64", 0.1);
    check_number(file, "tokenizer.ggml.add_bos_token", 1);
    assert_string_equal(lb_gguf_string(file, "general.name"), "golden");
    assert_string_equal(lb_gguf_string(file, "tokenizer.ggml.model"), "gpt2");
    static const char *const tokens[] = {"<s>", "</s>", "a", "ß", "日本"};
    static const double types[] = {3, 3, 1, 1, 1}, scores[] = {0, -1, -2.5, 0.125, 1e10};
    assert_int_equal(lb_gguf_array_count(file, "tokenizer.ggml.tokens"), 5);
    for (int64_t i = 0; i < 5; i++) {
        assert_string_equal(lb_gguf_array_string(file, "tokenizer.ggml.tokens", i), tokens[i]);
        assert_true(lb_gguf_array_number(file, "tokenizer.ggml.token_type", i, &v) && v == types[i]);
        assert_true(lb_gguf_array_number(file, "tokenizer.ggml.scores", i, &v) &&
                    v == (double)(float)scores[i]);
    }
    assert_int_equal(lb_gguf_array_count(file, "golden.bools"), 2);
    assert_true(lb_gguf_array_number(file, "golden.bools", 0, &v) && v == 1);
    assert_true(lb_gguf_array_number(file, "golden.floats", 1, &v) && v == -0.25);
    lb_gguf_destroy(file);
}

static void reads_gguf_config(void **state) {
    (void)state;
    struct lb_gguf *file = open_gguf();
    struct lb_config c;
    assert_int_equal(lb_config_from_gguf(file, "types.gguf", &c, NULL, NULL), LB_OK);
    assert_string_equal(c.model_type, "llama");
    assert_int_equal(c.vocab_size, 5);
    assert_int_equal(c.hidden_size, 32);
    assert_int_equal(c.intermediate_size, 48);
    assert_int_equal(c.num_hidden_layers, 1);
    assert_int_equal(c.num_attention_heads, 4);
    assert_int_equal(c.num_key_value_heads, 2);
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.max_position_embeddings, 64);
    assert_true(c.norm_eps == 1e-5 && c.rope_theta == 100000);
    assert_true(c.tie_word_embeddings);
    assert_int_equal(c.bos_token_id, 0);
    assert_int_equal(c.eos_token_id, 1);
    lb_gguf_destroy(file);
}

static void names_a_type_that_is_not_read(void **state) {
    (void)state;
    struct lb_gguf *file = NULL;
    struct lb_detail detail = {0};
    assert_int_equal(lb_gguf_open(golden("iq2_s.gguf"), &file, &detail), LB_E_UNSUPPORTED);
    assert_non_null(strstr(detail.text, "iq2_s.gguf: tensor blk.0.ffn_up.weight has type IQ2_S"));
}

/* ---- the other way ---- */

static void must(enum lb_status status, const struct lb_detail *detail) {
    if (status != LB_OK) {
        fprintf(stderr, "test_golden_formats: %s: %s\n", lb_status_name(status), detail->text);
        exit(1);
    }
}

static void write_safetensors(const char *dir) {
    struct lb_safetensors *file = NULL;
    struct lb_detail detail = {0};
    must(lb_safetensors_open(golden("types.safetensors"), &file, &detail), &detail);
    struct lb_tensor tensors[16];
    size_t n = lb_safetensors_count(file);
    for (size_t i = 0; i < n; i++) {
        tensors[i] = *lb_safetensors_get(file, n - 1 - i); /* the worst order: narrow types first */
    }
    const char *const metadata[] = {"format", "pt", "who", lb_safetensors_metadata(file, "who")};
    char *path = lb_path_join(dir, "types.safetensors");
    must(lb_safetensors_write(path, tensors, n, metadata, 2, &detail), &detail);
    lb_free(path);
    lb_safetensors_destroy(file);
}

static void write_gguf(const char *dir) {
    static const char *const tokens[] = {"<s>", "</s>", "a", "ß", "日本"};
    struct lb_gguf *file = NULL;
    struct lb_detail detail = {0};
    must(lb_gguf_open(golden("types.gguf"), &file, &detail), &detail);
    struct lb_gguf_out *out = lb_gguf_out_create();
    lb_gguf_put_string(out, "general.architecture", "llama");
    lb_gguf_put_u32(out, "llama.block_count", 1);
    lb_gguf_put_f32(out, "llama.rope.freq_base", 1e5f);
    lb_gguf_put_bool(out, "tokenizer.ggml.add_bos_token", true);
    lb_gguf_put_strings(out, "tokenizer.ggml.tokens", tokens, 5);
    lb_gguf_put_i32s(out, "tokenizer.ggml.token_type", (const int32_t[]){3, 3, 1, 1, 1}, 5);
    lb_gguf_put_f32s(out, "tokenizer.ggml.scores", (const float[]){0, -1, -2.5f, 0.125f, 1e10f}, 5);
    for (size_t i = 0; i < lb_gguf_count(file); i++) {
        lb_gguf_put_tensor(out, lb_gguf_get(file, i));
    }
    char *path = lb_path_join(dir, "types.gguf");
    must(lb_gguf_write(out, path, &detail), &detail);
    lb_free(path);
    lb_gguf_out_destroy(out);
    lb_gguf_destroy(file);
}

static void write_config(const char *dir, const char *name, const struct lb_config *config) {
    struct lb_detail detail = {0};
    struct lb_buf text;
    char folder[1024], path[1100];
    snprintf(folder, sizeof folder, "%s/%s", dir, name);
    snprintf(path, sizeof path, "%s/config.json", folder);
    lb_buf_init(&text, 1 << 16);
    must(lb_mkdirs(folder, &detail), &detail);
    must(lb_config_write(config, NULL, "float32", &text), &detail);
    must(lb_file_replace(path, text.data, text.len, &detail), &detail);
    lb_buf_finish(&text);
    printf("%s %" PRId64 "\n", name, config_parameters(config));
}

static int write_all(const char *dir) {
    struct lb_config c = {.model_type = "llama",
                          .vocab_size = 99,
                          .hidden_size = 64,
                          .intermediate_size = 96,
                          .num_hidden_layers = 2,
                          .num_attention_heads = 4,
                          .num_key_value_heads = 2,
                          .head_dim = 16,
                          .max_position_embeddings = 128,
                          .norm_eps = 1e-5,
                          .rope_theta = 123456.5,
                          .tie_word_embeddings = true,
                          .bos_token_id = -1,
                          .eos_token_id = 3,
                          .pad_token_id = -1,
                          .initializer_range = 0.02};
    write_safetensors(dir);
    write_gguf(dir);
    write_config(dir, "llama", &c);
    c.tie_word_embeddings = false;
    c.attention_bias = c.mlp_bias = true;
    write_config(dir, "llama_bias", &c);
    c.attention_bias = c.mlp_bias = false;
    c.qkv_bias = true;
    memcpy(c.model_type, "qwen2", 6);
    write_config(dir, "qwen2", &c);
    c.qkv_bias = false;
    memcpy(c.model_type, "mistral", 8);
    write_config(dir, "mistral", &c);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "write") == 0) {
        return write_all(argv[2]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_safetensors),  cmocka_unit_test(reads_shards),
        cmocka_unit_test(reads_gguf_tensors), cmocka_unit_test(reads_gguf_keys),
        cmocka_unit_test(reads_gguf_config),  cmocka_unit_test(names_a_type_that_is_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
