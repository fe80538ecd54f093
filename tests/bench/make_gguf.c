/* Writes a GGUF llama of any size, with random weights, in little memory: for measuring how large models are
 * opened and served.
 *
 * usage: make_gguf FILE [DTYPE C F LAYERS HEADS KV_HEADS V]
 *     default Q4_0 4096 11008 32 32 32 32000: 6.7 thousand million weights, 3.8 GB
 * All matrices are the beginning of one block of random numbers. No vocabulary: it is asked with ids.
 */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/formats/gguf.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TENSORS 2048
#define DEVIATION 0.02

static int64_t c = 4096, f = 11008, layers = 32, heads = 32, kv_heads = 32, v = 32000;
static char names[MAX_TENSORS][64];
static size_t n_names;
static enum lb_dtype dtype = LB_Q4_0;
static const void *numbers, *ones;

static void put(struct lb_gguf_out *out, const char *name, int64_t layer, int64_t rows, int64_t cols) {
    struct lb_tensor t = {
        .name = names[n_names], .dtype = dtype, .n_dims = 2, .dim = {rows, cols}, .data = numbers};
    if (n_names == MAX_TENSORS) {
        return;
    }
    if (rows == 0) { /* a vector */
        t = (struct lb_tensor){.name = t.name, .dtype = LB_F32, .n_dims = 1, .dim = {cols}, .data = ones};
        rows = 1;
    }
    if (layer >= 0) {
        snprintf(names[n_names++], sizeof names[0], "blk.%lld.%s", (long long)layer, name);
    } else {
        snprintf(names[n_names++], sizeof names[0], "%s", name);
    }
    if (lb_dtype_bytes(t.dtype, rows * cols, &t.bytes)) {
        lb_gguf_put_tensor(out, &t);
    }
}

static void put_config(struct lb_gguf_out *out) {
    lb_gguf_put_string(out, "general.architecture", "llama");
    lb_gguf_put_string(out, LB_GGUF_MARK, LB_VERSION);
    lb_gguf_put_u32(out, "general.file_type", lb_dtype_file_type(dtype));
    lb_gguf_put_u32(out, "llama.context_length", 4096);
    lb_gguf_put_u32(out, "llama.embedding_length", (uint32_t)c);
    lb_gguf_put_u32(out, "llama.feed_forward_length", (uint32_t)f);
    lb_gguf_put_u32(out, "llama.block_count", (uint32_t)layers);
    lb_gguf_put_u32(out, "llama.attention.head_count", (uint32_t)heads);
    lb_gguf_put_u32(out, "llama.attention.head_count_kv", (uint32_t)kv_heads);
    lb_gguf_put_u32(out, "llama.rope.dimension_count", (uint32_t)(c / heads));
    lb_gguf_put_f32(out, "llama.rope.freq_base", 10000);
    lb_gguf_put_f32(out, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    lb_gguf_put_u32(out, "llama.vocab_size", (uint32_t)v);
}

static void put_tensors(struct lb_gguf_out *out) {
    int64_t kv = c / heads * kv_heads;
    put(out, "token_embd.weight", -1, v, c);
    for (int64_t l = 0; l < layers; l++) {
        put(out, "attn_norm.weight", l, 0, c);
        put(out, "attn_q.weight", l, c, c);
        put(out, "attn_k.weight", l, kv, c);
        put(out, "attn_v.weight", l, kv, c);
        put(out, "attn_output.weight", l, c, c);
        put(out, "ffn_norm.weight", l, 0, c);
        put(out, "ffn_gate.weight", l, f, c);
        put(out, "ffn_up.weight", l, f, c);
        put(out, "ffn_down.weight", l, c, f);
    }
    put(out, "output_norm.weight", -1, 0, c);
    put(out, "output.weight", -1, v, c);
}

/* Takes the arguments over; false: they are no such. */
static bool read_arguments(int argc, char **argv) {
    int64_t *const sizes[] = {&c, &f, &layers, &heads, &kv_heads, &v};
    bool known = argc < 3;
    for (int d = 0; argc > 2 && d < LB_DTYPES; d++) {
        if (lb_dtype_narrows((enum lb_dtype)d) && strcmp(argv[2], lb_dtype_name((enum lb_dtype)d)) == 0) {
            dtype = (enum lb_dtype)d;
            known = true;
        }
    }
    for (int i = 0; i + 3 < argc && i < 6; i++) {
        *sizes[i] = strtoll(argv[i + 3], NULL, 10);
    }
    return known && argc > 1 && argv[1][0] != '-' && c > 0 && f > 0 && heads > 0 && kv_heads > 0 && v > 0 &&
           layers > 0 && 9 * layers + 3 <= MAX_TENSORS;
}

/* Random numbers enough for the largest matrix, stored. */
static void *make_numbers(int64_t n) {
    size_t bytes = 0;
    int64_t step = 4096, done = 0;
    float x[4096];
    struct lb_rng rng;
    lb_rng_seed(&rng, 7, 0);
    n = (n + step - 1) / step * step;
    char *data = lb_dtype_bytes(dtype, n, &bytes) ? lb_malloc_array(bytes, 1) : NULL;
    for (; data != NULL && done < n; done += step) {
        size_t at = 0;
        for (int64_t i = 0; i < step; i++) {
            x[i] = (float)(DEVIATION * lb_rng_normal(&rng));
        }
        (void)lb_dtype_bytes(dtype, done, &at);
        lb_quantize(dtype, x, data + at, step);
    }
    return data;
}

int main(int argc, char **argv) {
    float *one = NULL;
    if (!read_arguments(argc, argv) || (one = lb_malloc_array((size_t)c, sizeof *one)) == NULL) {
        fprintf(stderr, "usage: make_gguf FILE [DTYPE C F LAYERS HEADS KV_HEADS V]\n");
        return 2;
    }
    for (int64_t i = 0; i < c; i++) {
        one[i] = 1;
    }
    ones = one;
    numbers = make_numbers((f > v ? f : v) * c);
    struct lb_gguf_out *out = lb_gguf_out_create();
    struct lb_detail detail = {0};
    if (numbers == NULL || out == NULL) {
        return 1;
    }
    put_config(out);
    put_tensors(out);
    enum lb_status status = lb_gguf_write(out, argv[1], &detail);
    if (status != LB_OK) {
        fprintf(stderr, "make_gguf: %s\n", detail.text);
    }
    lb_gguf_out_destroy(out);
    lb_free(one);
    lb_free((void *)numbers);
    return status == LB_OK ? 0 : 1;
}
