/* GGUF: what is written is read back; everything that is not exactly right is refused by name. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/formats/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static float weights[64];
static uint8_t blocks[2 * 34];
static const uint16_t halves[3] = {0x3C00, 0xC000, 0x0001};

static const struct lb_tensor sample[] = {
    {.name = "token_embd.weight",
     .dtype = LB_F32,
     .n_dims = 2,
     .dim = {4, 16},
     .data = weights,
     .bytes = 256},
    {.name = "half", .dtype = LB_F16, .n_dims = 1, .dim = {3}, .data = halves, .bytes = 6},
    {.name = "brain", .dtype = LB_BF16, .n_dims = 3, .dim = {3, 1, 1}, .data = halves, .bytes = 6},
    {.name = "quantised", .dtype = LB_Q8_0, .n_dims = 2, .dim = {2, 32}, .data = blocks, .bytes = 68},
    {.name = "scalar", .dtype = LB_F32, .n_dims = 0, .data = weights, .bytes = 4},
    {.name = "last", .dtype = LB_F32, .n_dims = 1, .dim = {8}, .data = weights, .bytes = 32},
};
#define N_SAMPLE (sizeof sample / sizeof *sample)

static struct lb_gguf_out *make_sample(void) {
    static const char *const tokens[] = {"<s>", "", "▁ok"};
    static const int32_t types[] = {3, -1, INT32_MAX};
    static const float scores[] = {0, -1.5f, 1e-30f};
    for (size_t i = 0; i < 64; i++) {
        weights[i] = (float)i - 31.5f;
    }
    for (size_t i = 0; i < sizeof blocks; i++) {
        blocks[i] = (uint8_t)(i * 7);
    }
    struct lb_gguf_out *out = lb_gguf_out_create();
    if (out == NULL) {
        return NULL;
    }
    lb_gguf_put_string(out, "general.architecture", "llama");
    lb_gguf_put_string(out, "general.name", "Zwei\nZeilen, UTF-8: ✓");
    lb_gguf_put_u32(out, "llama.block_count", UINT32_MAX);
    lb_gguf_put_f32(out, "llama.rope.freq_base", 1e4f);
    lb_gguf_put_bool(out, "tokenizer.ggml.add_bos_token", true);
    lb_gguf_put_strings(out, "tokenizer.ggml.tokens", tokens, 3);
    lb_gguf_put_i32s(out, "tokenizer.ggml.token_type", types, 3);
    lb_gguf_put_f32s(out, "tokenizer.ggml.scores", scores, 3);
    lb_gguf_put_strings(out, "tokenizer.ggml.merges", NULL, 0);
    for (size_t i = 0; i < N_SAMPLE; i++) {
        lb_gguf_put_tensor(out, &sample[i]);
    }
    return out;
}

static void encode_sample(struct lb_buf *buf) {
    struct lb_detail detail = {0};
    struct lb_gguf_out *out = make_sample();
    lb_buf_init(buf, 1 << 20);
    assert_int_equal(lb_gguf_encode(out, buf, &detail), LB_OK);
    lb_gguf_out_destroy(out);
}

static double number(const struct lb_gguf *file, const char *key) {
    double v = -12345;
    assert_true(lb_gguf_number(file, key, &v));
    return v;
}

static double element(const struct lb_gguf *file, const char *key, int64_t i) {
    double v = -12345;
    assert_true(lb_gguf_array_number(file, key, i, &v));
    return v;
}

static void check_keys(const struct lb_gguf *file) {
    double v;
    assert_int_equal(lb_gguf_key_count(file), 10); /* and general.quantization_version */
    assert_string_equal(lb_gguf_string(file, "general.architecture"), "llama");
    assert_string_equal(lb_gguf_string(file, "general.name"), "Zwei\nZeilen, UTF-8: ✓");
    assert_true(number(file, "llama.block_count") == UINT32_MAX);
    assert_true(number(file, "llama.rope.freq_base") == 1e4);
    assert_true(number(file, "tokenizer.ggml.add_bos_token") == 1);
    assert_true(number(file, "general.quantization_version") == 2);
    assert_int_equal(lb_gguf_array_count(file, "tokenizer.ggml.tokens"), 3);
    assert_string_equal(lb_gguf_array_string(file, "tokenizer.ggml.tokens", 0), "<s>");
    assert_string_equal(lb_gguf_array_string(file, "tokenizer.ggml.tokens", 1), "");
    assert_string_equal(lb_gguf_array_string(file, "tokenizer.ggml.tokens", 2), "▁ok");
    assert_true(element(file, "tokenizer.ggml.token_type", 1) == -1);
    assert_true(element(file, "tokenizer.ggml.token_type", 2) == INT32_MAX);
    assert_true(element(file, "tokenizer.ggml.scores", 1) == -1.5);
    assert_int_equal(lb_gguf_array_count(file, "tokenizer.ggml.merges"), 0);
    /* what is not there, of another kind, or out of range */
    assert_null(lb_gguf_string(file, "general"));
    assert_null(lb_gguf_string(file, "llama.block_count"));
    assert_null(lb_gguf_string(file, "tokenizer.ggml.tokens"));
    assert_false(lb_gguf_number(file, "general.name", &v));
    assert_false(lb_gguf_number(file, "tokenizer.ggml.scores", &v));
    assert_false(lb_gguf_has(file, "llama.block_coun"));
    assert_int_equal(lb_gguf_array_count(file, "general.name"), -1);
    assert_int_equal(lb_gguf_array_count(file, "none"), -1);
    assert_null(lb_gguf_array_string(file, "tokenizer.ggml.tokens", 3));
    assert_null(lb_gguf_array_string(file, "tokenizer.ggml.tokens", -1));
    assert_null(lb_gguf_array_string(file, "tokenizer.ggml.scores", 0));
    assert_null(lb_gguf_array_string(file, "tokenizer.ggml.merges", 0));
    assert_false(lb_gguf_array_number(file, "tokenizer.ggml.tokens", 0, &v));
    assert_false(lb_gguf_array_number(file, "tokenizer.ggml.scores", 3, &v));
}

static void check_sample(const struct lb_gguf *file) {
    check_keys(file);
    assert_int_equal(lb_gguf_count(file), N_SAMPLE);
    for (size_t i = 0; i < N_SAMPLE; i++) {
        const struct lb_tensor *got = lb_gguf_get(file, i), *want = &sample[i];
        assert_ptr_equal(lb_gguf_find(file, want->name), got);
        assert_string_equal(got->name, want->name);
        assert_int_equal(got->dtype, want->dtype);
        assert_int_equal(got->n_dims, want->n_dims);
        assert_memory_equal(got->dim, want->dim, sizeof *got->dim * (size_t)want->n_dims);
        assert_int_equal(got->bytes, want->bytes);
        assert_memory_equal(got->data, want->data, want->bytes);
    }
    assert_null(lb_gguf_get(file, N_SAMPLE));
    assert_null(lb_gguf_find(file, "hal"));
}

static void round_trip_in_memory(void **state) {
    (void)state;
    struct lb_buf buf;
    struct lb_gguf *file = NULL;
    encode_sample(&buf);
    assert_int_equal(lb_gguf_parse(buf.data, buf.len, "memory", &file, NULL), LB_OK);
    check_sample(file);
    enum lb_gguf_type type, of;
    assert_string_equal(lb_gguf_key(file, 6, &type, &of), "tokenizer.ggml.token_type");
    assert_int_equal(type, LB_GGUF_ARRAY);
    assert_int_equal(of, LB_GGUF_I32);
    assert_null(lb_gguf_key(file, 10, &type, &of));
    lb_gguf_destroy(file);
    /* version 2 differs in the number only */
    buf.data[4] = 2;
    file = NULL;
    assert_int_equal(lb_gguf_parse(buf.data, buf.len, "memory", &file, NULL), LB_OK);
    check_sample(file);
    lb_gguf_destroy(file);
    lb_buf_finish(&buf);
}

static void every_truncation_fails(void **state) {
    (void)state;
    struct lb_buf buf;
    encode_sample(&buf);
    for (size_t len = 0; len < buf.len; len++) { /* the last tensor needs no padding: every byte counts */
        char *cut = malloc(len > 0 ? len : 1);
        memcpy(cut, buf.data, len);
        struct lb_detail detail = {0};
        struct lb_gguf *file = NULL;
        assert_int_equal(lb_gguf_parse(cut, len, "cut.gguf", &file, &detail), LB_E_FORMAT);
        assert_null(file);
        assert_non_null(strstr(detail.text, "cut.gguf: "));
        free(cut);
    }
    lb_buf_finish(&buf);
}

static void each_failing_allocation_is_reported(void **state) {
    (void)state;
    struct lb_buf buf;
    encode_sample(&buf);
    enum lb_status status = LB_E_NOMEM;
    long n = 0;
    while (status == LB_E_NOMEM && n < 1000) {
        struct lb_gguf *file = NULL;
        struct lb_detail detail = {0};
        lb_mem_fail_from(++n);
        status = lb_gguf_parse(buf.data, buf.len, "memory", &file, &detail);
        lb_mem_fail_from(0);
        assert_true(status == LB_OK || (status == LB_E_NOMEM && file == NULL && detail.code == LB_E_NOMEM));
        lb_gguf_destroy(file);
    }
    assert_int_equal(status, LB_OK);
    assert_in_range(n, 10, 999);

    status = LB_E_NOMEM;
    for (n = 0; status == LB_E_NOMEM && n < 1000;) {
        struct lb_buf again;
        lb_buf_init(&again, 1 << 20);
        lb_mem_fail_from(++n);
        struct lb_gguf_out *out = make_sample();
        status = out != NULL ? lb_gguf_encode(out, &again, NULL) : LB_E_NOMEM;
        lb_mem_fail_from(0);
        assert_true(status == LB_E_NOMEM ||
                    (again.len == buf.len && memcmp(again.data, buf.data, buf.len) == 0));
        lb_gguf_out_destroy(out);
        lb_buf_finish(&again);
    }
    assert_int_equal(status, LB_OK);
    lb_buf_finish(&buf);
}

/* ---- files made by hand ---- */

static void begin(struct lb_buf *b, uint32_t version, uint64_t n_tensors, uint64_t n_keys) {
    lb_buf_init(b, 1 << 16);
    lb_buf_append_str(b, "GGUF");
    lb_put_u32(b, version);
    lb_put_u64(b, n_tensors);
    lb_put_u64(b, n_keys);
}

static void text(struct lb_buf *b, const char *s, size_t len) {
    lb_put_u64(b, len);
    lb_buf_append(b, s, len);
}

static void key(struct lb_buf *b, const char *name, uint32_t type) {
    text(b, name, strlen(name));
    lb_put_u32(b, type);
}

static void tensor(struct lb_buf *b, const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t type,
                   uint64_t offset) {
    text(b, name, strlen(name));
    lb_put_u32(b, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) {
        lb_put_u64(b, dims[i]);
    }
    lb_put_u32(b, type);
    lb_put_u64(b, offset);
}

static void data(struct lb_buf *b, size_t bytes) {
    while (b->len % 32 != 0) {
        lb_put_u8(b, 0);
    }
    for (size_t i = 0; i < bytes; i++) {
        lb_put_u8(b, (uint8_t)i);
    }
}

static struct lb_gguf *accept(struct lb_buf *b) {
    struct lb_gguf *file = NULL;
    struct lb_detail detail = {0};
    if (lb_gguf_parse(b->data, b->len, "good.gguf", &file, &detail) != LB_OK) {
        fail_msg("refused: %s", detail.text);
    }
    return file;
}

/* Frees b. */
static void refuse(struct lb_buf *b, enum lb_status status, const char *says) {
    struct lb_gguf *file = NULL;
    struct lb_detail detail = {0};
    enum lb_status got = lb_gguf_parse(b->data, b->len, "bad.gguf", &file, &detail);
    assert_null(file);
    if (got != status || strstr(detail.text, says) == NULL || strncmp(detail.text, "bad.gguf: ", 10) != 0) {
        fail_msg("status %d, text \"%s\"; expected %d and \"%s\"", (int)got, detail.text, (int)status, says);
    }
    lb_buf_finish(b);
}

static void every_value_type_is_read(void **state) {
    (void)state;
    struct lb_buf b;
    begin(&b, 3, 0, 14);
    key(&b, "u8", LB_GGUF_U8), lb_put_u8(&b, 255);
    key(&b, "i8", LB_GGUF_I8), lb_put_u8(&b, 0x80);
    key(&b, "u16", LB_GGUF_U16), lb_put_u16(&b, 65535);
    key(&b, "i16", LB_GGUF_I16), lb_put_u16(&b, 0x8000);
    key(&b, "u32", LB_GGUF_U32), lb_put_u32(&b, UINT32_MAX);
    key(&b, "i32", LB_GGUF_I32), lb_put_u32(&b, 0x80000000u);
    key(&b, "f32", LB_GGUF_F32), lb_put_f32(&b, 0.5f);
    key(&b, "bool", LB_GGUF_BOOL), lb_put_u8(&b, 0);
    key(&b, "u64", LB_GGUF_U64), lb_put_u64(&b, 1ull << 53);
    key(&b, "i64", LB_GGUF_I64), lb_put_u64(&b, UINT64_MAX);
    key(&b, "f64", LB_GGUF_F64), lb_put_f64(&b, 1e300);
    key(&b, "shorts", LB_GGUF_ARRAY), lb_put_u32(&b, LB_GGUF_I16), lb_put_u64(&b, 2), lb_put_u16(&b, 7),
        lb_put_u16(&b, 0xFFFF);
    key(&b, "nul", LB_GGUF_STRING), text(&b, "a\0b", 3);
    key(&b, "odd", LB_GGUF_ARRAY), lb_put_u32(&b, LB_GGUF_STRING), lb_put_u64(&b, 2), text(&b, "\xFF", 1),
        text(&b, "fine", 4);
    struct lb_gguf *file = accept(&b);
    assert_true(number(file, "u8") == 255 && number(file, "i8") == -128);
    assert_true(number(file, "u16") == 65535 && number(file, "i16") == -32768);
    assert_true(number(file, "u32") == UINT32_MAX && number(file, "i32") == INT32_MIN);
    assert_true(number(file, "f32") == 0.5 && number(file, "bool") == 0);
    assert_true(number(file, "u64") == 9007199254740992.0 && number(file, "i64") == -1);
    assert_true(number(file, "f64") == 1e300);
    assert_true(element(file, "shorts", 0) == 7 && element(file, "shorts", 1) == -1);
    /* text that a C string cannot hold is there, but never cut off silently */
    assert_true(lb_gguf_has(file, "nul"));
    assert_null(lb_gguf_string(file, "nul"));
    assert_int_equal(lb_gguf_array_count(file, "odd"), 2);
    assert_null(lb_gguf_array_string(file, "odd", 0));
    assert_string_equal(lb_gguf_array_string(file, "odd", 1), "fine");
    lb_gguf_destroy(file);
    lb_buf_finish(&b);
}

static void damaged_headers_are_refused(void **state) {
    (void)state;
    struct lb_buf b;
    begin(&b, 3, 0, 0);
    b.data[0] = 'g';
    refuse(&b, LB_E_FORMAT, "is this a GGUF file?");
    begin(&b, 1, 0, 0);
    refuse(&b, LB_E_UNSUPPORTED, "version 1");
    begin(&b, 4, 0, 0);
    refuse(&b, LB_E_UNSUPPORTED, "version 4");
    begin(&b, 0x03000000, 0, 0);
    refuse(&b, LB_E_UNSUPPORTED, "big-endian");
    begin(&b, 3, 0, UINT64_MAX);
    refuse(&b, LB_E_FORMAT, "18446744073709551615 keys cannot fit");
    begin(&b, 3, UINT64_MAX, 0);
    refuse(&b, LB_E_FORMAT, "18446744073709551615 tensors cannot fit");
    char shifted[32] __attribute__((aligned(8))) = "";
    struct lb_gguf *file = NULL;
    assert_int_equal(lb_gguf_parse(shifted + 1, 24, "odd", &file, NULL), LB_E_ARG);
}

/* A large file could hold them: what is kept of each would take many times its bytes. */
static void too_many_of_anything_are_refused(void **state) {
    (void)state;
    const struct {
        uint64_t n_tensors, n_keys;
        const char *says;
    } cases[] = {{0, 65537, "65537 keys; at most 65536"}, {131073, 0, "131073 tensors; at most 131072"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lb_buf b;
        lb_buf_init(&b, (size_t)4 << 20);
        lb_buf_append_str(&b, "GGUF");
        lb_put_u32(&b, 3);
        lb_put_u64(&b, cases[i].n_tensors);
        lb_put_u64(&b, cases[i].n_keys);
        void *rest = lb_buf_extend(&b, (size_t)3840 << 10);
        assert_non_null(rest);
        memset(rest, 0, (size_t)3840 << 10);
        refuse(&b, LB_E_LIMIT, cases[i].says);
    }
}

static void damaged_keys_are_refused(void **state) {
    (void)state;
    struct lb_buf b;
    begin(&b, 3, 0, 1), key(&b, "", LB_GGUF_U32), lb_put_u64(&b, 1);
    refuse(&b, LB_E_FORMAT, "the key at byte 24");
    begin(&b, 3, 0, 1), key(&b, "Maß", LB_GGUF_U32), lb_put_u64(&b, 1);
    refuse(&b, LB_E_FORMAT, "printable ASCII");
    begin(&b, 3, 0, 1), key(&b, "a", 13), lb_put_u64(&b, 1);
    refuse(&b, LB_E_FORMAT, "key a has value type 13");
    begin(&b, 3, 0, 1), key(&b, "a", LB_GGUF_ARRAY), lb_put_u32(&b, 77), lb_put_u64(&b, 0);
    refuse(&b, LB_E_FORMAT, "value type 77");
    begin(&b, 3, 0, 1), key(&b, "a", LB_GGUF_ARRAY), lb_put_u32(&b, LB_GGUF_ARRAY), lb_put_u64(&b, 0);
    refuse(&b, LB_E_UNSUPPORTED, "key a is an array of arrays");
    begin(&b, 3, 0, 1), key(&b, "a", LB_GGUF_BOOL), lb_put_u8(&b, 2);
    refuse(&b, LB_E_FORMAT, "key a: a bool is 2");
    begin(&b, 3, 0, 1), key(&b, "a", LB_GGUF_ARRAY), lb_put_u32(&b, LB_GGUF_U64), lb_put_u64(&b, 1ull << 61),
        data(&b, 64);
    refuse(&b, LB_E_FORMAT, "the value of key a");
    begin(&b, 3, 0, 1), key(&b, "a", LB_GGUF_ARRAY), lb_put_u32(&b, LB_GGUF_STRING),
        lb_put_u64(&b, 1ull << 61), data(&b, 64);
    refuse(&b, LB_E_FORMAT, "the text of key a");
    begin(&b, 3, 0, 1), key(&b, "a", LB_GGUF_STRING), lb_put_u64(&b, UINT64_MAX), data(&b, 64);
    refuse(&b, LB_E_FORMAT, "the text of key a");
    begin(&b, 3, 0, 1), lb_put_u64(&b, UINT64_MAX - 8), data(&b, 64);
    refuse(&b, LB_E_FORMAT, "a key at byte");
    begin(&b, 3, 0, 2), key(&b, "a", LB_GGUF_U32), lb_put_u32(&b, 1), key(&b, "a", LB_GGUF_U32),
        lb_put_u32(&b, 1);
    refuse(&b, LB_E_FORMAT, "key a comes twice");
    static const uint32_t alignments[] = {0, 4, 12, 1u << 21};
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        begin(&b, 3, 0, 1), key(&b, "general.alignment", LB_GGUF_U32), lb_put_u32(&b, alignments[i]);
        refuse(&b, LB_E_FORMAT, "general.alignment is");
    }
    begin(&b, 3, 0, 1), key(&b, "general.alignment", LB_GGUF_STRING), text(&b, "32", 2);
    refuse(&b, LB_E_FORMAT, "general.alignment is no number");
}

static void damaged_tensors_are_refused_by_name(void **state) {
    (void)state;
    static const uint64_t two_four[] = {2, 4, 1, 1, 1}, huge[] = {1ull << 40, 1ull << 40},
                          above[] = {1ull << 63}, rows33[] = {33, 32}, rows128[] = {128, 2},
                          rows256[] = {256, 2}, many256[] = {256, 1ull << 55};
    struct lb_buf b;
    begin(&b, 3, 1, 0), tensor(&b, "", 2, two_four, 0, 0), data(&b, 32);
    refuse(&b, LB_E_FORMAT, "the tensor name at byte 24");
    begin(&b, 3, 1, 0), tensor(&b, "a\xC3", 2, two_four, 0, 0), data(&b, 32);
    refuse(&b, LB_E_FORMAT, "printable text");
    begin(&b, 3, 1, 0),
        tensor(&b, "12345678901234567890123456789012345678901234567890123456789012345", 2, two_four, 0, 0),
        data(&b, 32);
    refuse(&b, LB_E_FORMAT, "1 to 64 bytes");
    begin(&b, 3, 1, 0), tensor(&b, "w", 5, two_four, 0, 0), data(&b, 32);
    refuse(&b, LB_E_FORMAT, "tensor w has 5 dimensions");
    begin(&b, 3, 1, 0), tensor(&b, "w", 2, huge, 0, 0), data(&b, 32);
    refuse(&b, LB_E_FORMAT, "tensor w: shape [1099511627776, 1099511627776] overflows");
    begin(&b, 3, 1, 0), tensor(&b, "w", 1, above, 0, 0), data(&b, 32);
    refuse(&b, LB_E_FORMAT, "tensor w: dimension 9223372036854775808");
    begin(&b, 3, 1, 0), tensor(&b, "w", 2, rows33, 8, 0), data(&b, (size_t)33 * 34);
    refuse(&b, LB_E_FORMAT, "rows are no multiple of the 32 of Q8_0");
    begin(&b, 3, 1, 0), tensor(&b, "blk.0.attn_q.weight", 2, two_four, 16, 0), data(&b, 32);
    refuse(&b, LB_E_UNSUPPORTED,
           "tensor blk.0.attn_q.weight has type IQ2_XXS; this build reads F32, F16, BF16, Q8_0");
    static const uint32_t lacking[] = {9, 15, 17, 18, 19, 21, 22, 24, 25, 26, 27, 28, 29, 34, 35, 40, 41};
    for (size_t i = 0; i < sizeof lacking / sizeof *lacking; i++) {
        begin(&b, 3, 1, 0), tensor(&b, "w", 2, two_four, lacking[i], 0), data(&b, 32);
        refuse(&b, LB_E_UNSUPPORTED, "tensor w has type ");
    }
    begin(&b, 3, 1, 0), tensor(&b, "w", 2, rows128, 12, 0), data(&b, (size_t)2 * 144);
    refuse(&b, LB_E_FORMAT,
           "tensor w: shape [2, 128] overflows or its rows are no multiple of the 256 of Q4_K");
    begin(&b, 3, 1, 0), tensor(&b, "w", 2, rows256, 12, 0), data(&b, (size_t)2 * 144 - 1);
    refuse(&b, LB_E_FORMAT, "the 288 bytes of tensor w go past the end");
    begin(&b, 3, 1, 0), tensor(&b, "w", 2, many256, 14, 0), data(&b, 32);
    refuse(&b, LB_E_FORMAT, "overflows");
    begin(&b, 3, 1, 0), tensor(&b, "w", 2, two_four, 4, 0), data(&b, 32);
    refuse(&b, LB_E_UNSUPPORTED, "tensor w has ggml type 4");
    begin(&b, 3, 1, 0), tensor(&b, "w", 2, two_four, UINT32_MAX, 0), data(&b, 32);
    refuse(&b, LB_E_UNSUPPORTED, "ggml type 4294967295");
    begin(&b, 3, 1, 0), tensor(&b, "w", 2, two_four, 0, 32), data(&b, 64);
    refuse(&b, LB_E_FORMAT, "tensor w is at data offset 32 where 0 follows");
    begin(&b, 3, 2, 0), tensor(&b, "w", 2, two_four, 0, 0), tensor(&b, "v", 2, two_four, 0, 0), data(&b, 64);
    refuse(&b, LB_E_FORMAT, "tensor v is at data offset 0 where 32 follows");
    begin(&b, 3, 2, 0), tensor(&b, "w", 2, two_four, 0, 0), tensor(&b, "v", 2, two_four, 0, 64), data(&b, 96);
    refuse(&b, LB_E_FORMAT, "tensor v is at data offset 64 where 32 follows");
    begin(&b, 3, 2, 0), tensor(&b, "w", 2, two_four, 0, 0), tensor(&b, "w", 2, two_four, 0, 32), data(&b, 64);
    refuse(&b, LB_E_FORMAT, "tensor w comes twice");
    begin(&b, 3, 2, 0), tensor(&b, "w", 2, two_four, 0, 0), tensor(&b, "v", 2, two_four, 0, 32), data(&b, 63);
    refuse(&b, LB_E_FORMAT, "the 32 bytes of tensor v go past the end");
}

static void alignment_is_followed(void **state) {
    (void)state;
    static const uint64_t three[] = {3};
    struct lb_buf b;
    begin(&b, 3, 2, 1), key(&b, "general.alignment", LB_GGUF_U32), lb_put_u32(&b, 8);
    tensor(&b, "w", 1, three, 0, 0), tensor(&b, "v", 1, three, 0, 16);
    while (b.len % 8 != 0) {
        lb_put_u8(&b, 0);
    }
    size_t start = b.len;
    for (uint8_t i = 0; i < 28; i++) {
        lb_put_u8(&b, i);
    }
    struct lb_gguf *file = accept(&b);
    assert_ptr_equal(lb_gguf_find(file, "w")->data, b.data + start);
    assert_ptr_equal(lb_gguf_find(file, "v")->data, b.data + start + 16);
    lb_gguf_destroy(file);
    lb_buf_finish(&b);
}

/* ---- writing ---- */

/* Destroys out. */
static void check_unwritable(struct lb_gguf_out *out, enum lb_status status, const char *says) {
    struct lb_detail detail = {0};
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 16);
    lb_gguf_put_u32(out, "later", 1); /* changes nothing */
    assert_int_equal(lb_gguf_encode(out, &buf, &detail), status);
    if (strstr(detail.text, says) == NULL) {
        fail_msg("\"%s\" lacks \"%s\"", detail.text, says);
    }
    assert_int_equal(buf.len, 0);
    lb_buf_finish(&buf);
    lb_gguf_out_destroy(out);
}

static void put_changed(enum lb_dtype dtype, const char *name, size_t bytes, enum lb_status status,
                        const char *says) {
    struct lb_gguf_out *out = lb_gguf_out_create();
    struct lb_tensor changed = sample[0];
    changed.name = name;
    changed.dtype = dtype;
    changed.bytes = bytes;
    lb_gguf_put_tensor(out, &changed);
    check_unwritable(out, status, says);
}

static void unwritable_contents_are_refused(void **state) {
    (void)state;
    struct lb_gguf_out *out = lb_gguf_out_create();
    lb_gguf_put_u32(out, "a", 1), lb_gguf_put_bool(out, "a", true);
    check_unwritable(out, LB_E_ARG, "key a is put twice");
    out = lb_gguf_out_create(), lb_gguf_put_u32(out, "", 1);
    check_unwritable(out, LB_E_ARG, "printable");
    out = lb_gguf_out_create(), lb_gguf_put_u32(out, "general.alignment", 64);
    check_unwritable(out, LB_E_ARG, "general.alignment");
    out = lb_gguf_out_create(), lb_gguf_put_string(out, "s", "\xC3(");
    check_unwritable(out, LB_E_ARG, "key s is not valid UTF-8");
    out = lb_gguf_out_create(), lb_gguf_put_tensor(out, &sample[0]), lb_gguf_put_tensor(out, &sample[0]);
    check_unwritable(out, LB_E_ARG, "tensor token_embd.weight is put twice");
    put_changed(LB_F32, "w", 255, LB_E_ARG, "255 bytes of data do not make F32 of shape [4, 16]");
    put_changed(LB_Q8_0, "w", 68, LB_E_ARG, "Q8_0 of shape [4, 16]");
    put_changed(LB_I32, "w", 256, LB_E_UNSUPPORTED, "not I32");
    put_changed(LB_F32, NULL, 256, LB_E_ARG, "no name");
    put_changed(LB_F32, "1234567890123456789012345678901234567890123456789012345678901234", 256, LB_E_ARG,
                "no name");
}

static void round_trip_by_file(void **state) {
    (void)state;
    char path[] = "/tmp/lb-gguf-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    struct lb_gguf_out *out = make_sample();
    struct lb_gguf *file = NULL;
    assert_int_equal(lb_gguf_write(out, path, NULL), LB_OK);
    lb_gguf_out_destroy(out);
    assert_int_equal(lb_gguf_open(path, &file, NULL), LB_OK);
    check_sample(file);
    lb_gguf_destroy(file);

    struct lb_detail detail = {0};
    out = lb_gguf_out_create();
    lb_gguf_put_string(out, "s", "\xFF");
    assert_int_equal(lb_gguf_write(out, path, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, path));
    lb_gguf_out_destroy(out);
    file = NULL;
    assert_int_equal(lb_gguf_open(path, &file, NULL), LB_OK); /* as it was */
    lb_gguf_destroy(file);
    remove(path);
    memset(&detail, 0, sizeof detail);
    assert_int_equal(lb_gguf_open(path, &file, &detail), LB_E_NOTFOUND);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip_in_memory),
        cmocka_unit_test(every_truncation_fails),
        cmocka_unit_test(each_failing_allocation_is_reported),
        cmocka_unit_test(every_value_type_is_read),
        cmocka_unit_test(damaged_headers_are_refused),
        cmocka_unit_test(too_many_of_anything_are_refused),
        cmocka_unit_test(damaged_keys_are_refused),
        cmocka_unit_test(damaged_tensors_are_refused_by_name),
        cmocka_unit_test(alignment_is_followed),
        cmocka_unit_test(unwritable_contents_are_refused),
        cmocka_unit_test(round_trip_by_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
