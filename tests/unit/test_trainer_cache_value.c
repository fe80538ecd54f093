/* Cached values by themselves: their keys, their versions, and that no other bytes pass for them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/mem.h"
#include "tests/support/cached.h"

#include <string.h>

/* A value of another version is told apart from a damaged one. */
static void test_value_version(void **state) {
    (void)state;
    struct lb_buf value;
    struct lb_cache_header header;
    const void *payload = NULL;
    lb_buf_init(&value, 4096);
    assert_int_equal(lb_cache_value_make("key", 3, "answer", 6, 1, &value), LB_OK);
    assert_null(lb_cache_value_check("key", 3, value.data, value.len, &header, &payload));
    value.data[4]++; /* the version follows the magic */
    assert_string_equal(lb_cache_value_check("key", 3, value.data, value.len, &header, &payload),
                        "was written by another version of Limbeck");
    lb_buf_finish(&value);
}

static void key_of(const struct lb_sample *sample, const struct lb_ask_spec *spec, const char *fingerprint,
                   char out[LB_SHA256_HEX]) {
    uint8_t key[LB_SHA256_BYTES];
    lb_cache_key(fingerprint, sample, 3, spec, key);
    lb_hex(key, sizeof key, out);
}

/* Different questions have different keys, and equal ones the same whatever stands behind the sequence. */
static void test_keys(void **state) {
    (void)state;
    int32_t ids[] = {1, 2, 3, 4}, others[] = {1, 2, 3, 9};
    float features[] = {1, 2, 3};
    const struct lb_ask_spec topk = {
        .n_outputs = 1, .outputs = {{LB_OUT_TOPK_IDS, 0, LB_DT_INT32}}, .top_k = 8, .temperature = 1};
    const struct lb_ask_spec lse = {
        .n_outputs = 1, .outputs = {{LB_OUT_LOGSUMEXP, 0, LB_DT_FP32}}, .top_k = 8, .temperature = 1};
    const struct lb_sample a = {.ids = ids, .n = 3, .label = 1}, b = {.ids = others, .n = 3},
                           longer = {.ids = ids, .n = 4};
    const struct lb_sample image = {.features = features, .n = 1};
    struct lb_ask_spec changed;
    char base[LB_SHA256_HEX], key[LB_SHA256_HEX];
    key_of(&a, &topk, "f", base);
    /* Caches that were filled earlier stay valid: made outside from the fields that value.c writes. */
    assert_string_equal(base, "8e710bfc7d221eac823e6425fccccc8bb732c88af5e6d3b8e58cf798c0790e90");
    key_of(&b, &topk, "f", key); /* the label behind the input is no part of the question */
    assert_string_equal(base, key);
    key_of(&longer, &topk, "f", key);
    assert_string_not_equal(base, key);
    key_of(&a, &topk, "g", key);
    assert_string_not_equal(base, key);
    key_of(&image, &topk, "f", key);
    assert_string_not_equal(base, key);
    const int32_t one[] = {5, 6, 7}, two[] = {5, 6, 8};
    struct lb_extra extra = {"score_ids", one, 1};
    struct lb_sample scored = a;
    char first[LB_SHA256_HEX];
    scored.extra = &extra;
    key_of(&scored, &topk, "f", first);
    assert_string_not_equal(base, first);
    extra.values = two;
    key_of(&scored, &topk, "f", key);
    assert_string_not_equal(first, key);
    extra = (struct lb_extra){"other_ids", one, 1};
    key_of(&scored, &topk, "f", key);
    assert_string_not_equal(first, key);
    changed = topk;
    changed.top_k = 9;
    key_of(&a, &changed, "f", key);
    assert_string_not_equal(base, key);
    changed = topk;
    changed.outputs[0].datatype = LB_DT_UINT16;
    key_of(&a, &changed, "f", key);
    assert_string_not_equal(base, key);
    changed = topk;
    changed.temperature = 2; /* raw logits do not depend on it */
    key_of(&a, &changed, "f", key);
    assert_string_equal(base, key);
    key_of(&a, &lse, "f", base);
    changed = lse;
    changed.temperature = 2;
    key_of(&a, &changed, "f", key);
    assert_string_not_equal(base, key);
    changed = lse;
    changed.top_k = 9;
    key_of(&a, &changed, "f", key);
    assert_string_equal(base, key);
    /* Draws: count, seed and temperature are part of a question about them, and of no other. */
    struct lb_ask_spec drawn = {.n_outputs = 1,
                                .outputs = {{LB_OUT_SAMPLE_IDS, 0, LB_DT_INT32}},
                                .top_k = 8,
                                .temperature = 1,
                                .sample_count = 5,
                                .seed = 1};
    key_of(&a, &drawn, "f", base);
    for (int i = 0; i < 3; i++) {
        changed = drawn;
        changed.sample_count += i == 0;
        changed.seed += i == 1;
        changed.sample_temperature = i == 2 ? 2 : 0;
        key_of(&a, &changed, "f", key);
        assert_string_not_equal(base, key);
        assert_false(lb_spec_same(&drawn, &changed));
    }
    changed = lse;
    key_of(&a, &lse, "f", base);
    changed.sample_count = 5;
    changed.seed = 1;
    changed.sample_temperature = 2;
    key_of(&a, &changed, "f", key);
    assert_string_equal(base, key);
}

/* Every prefix and every single flipped bit of a stored value is refused or unpacks to nothing wrong. */
static void test_values_cut_and_flipped(void **state) {
    (void)state;
    struct cached *made = lb_calloc(1, sizeof *made);
    struct lb_buf value;
    uint64_t raw;
    cached_make(made, 5, 2, false);
    lb_buf_init(&value, 1 << 16);
    assert_int_equal(lb_cache_answer_value(made->key, &made->answer, &value, &raw), LB_OK);
    assert_true(lb_cache_value_good(made->key, LB_SHA256_BYTES, value.data, value.len));
    for (size_t len = 0; len < value.len; len++) {
        assert_false(lb_cache_value_good(made->key, LB_SHA256_BYTES, value.data, len));
    }
    for (size_t bit = 0; bit < value.len * 8; bit++) {
        value.data[bit / 8] ^= (char)(1 << bit % 8);
        assert_false(lb_cache_value_good(made->key, LB_SHA256_BYTES, value.data, value.len));
        value.data[bit / 8] ^= (char)(1 << bit % 8);
    }
    made->key[0] ^= 1; /* a value under another key */
    assert_false(lb_cache_value_good(made->key, LB_SHA256_BYTES, value.data, value.len));
    lb_buf_finish(&value);
    lb_free(made);
}

/* What an answer counts for: its rows, which are not an embedding's columns. */
static void test_tokens(void **state) {
    (void)state;
    struct lb_answer answer = {.n_tensors = 1,
                               .tensors = {{.name = "sentence_embedding", .n_dims = 1, .dim = {384}},
                                           {.name = "attentions.0", .n_dims = 3, .dim = {12, 7, 7}}}};
    assert_int_equal(lb_answer_name(&answer), LB_OK);
    assert_int_equal(lb_cache_answer_tokens(&answer), 1);
    answer.n_tensors = 2;
    assert_int_equal(lb_answer_name(&answer), LB_OK);
    assert_int_equal(lb_cache_answer_tokens(&answer), 7);
    answer.n_tensors = 0;
    assert_int_equal(lb_cache_answer_tokens(&answer), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_value_version),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_values_cut_and_flipped),
        cmocka_unit_test(test_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
