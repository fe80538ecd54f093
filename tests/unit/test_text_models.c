/* What WordPiece, Unigram and byte-pair encoding do at their edges: how long words may be, which of equal
 * ways counts, what is unknown and what falls back to bytes. All ids are those of Hugging Face's tokenizers
 * 0.23.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/mem.h"
#include "common/text/tokenizer.h"

#include <stdio.h>
#include <string.h>

#define MOST_IDS 8

struct sentence {
    const char *text;
    int32_t ids[MOST_IDS];
    size_t n;
};
#define IDS(...) {__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)

/* model: its members but for the type; words: spaces cut. */
static void check(const char *model, bool words, const struct sentence *sentences, size_t n) {
    char json[1024];
    struct lb_tokenizer *tokenizer = NULL;
    struct lb_detail detail = {0};
    int len = snprintf(json, sizeof json, "{\"added_tokens\":[],\"pre_tokenizer\":%s,\"model\":{%s}}",
                       words ? "{\"type\":\"WhitespaceSplit\"}" : "null", model);
    assert_true(len > 0 && (size_t)len < sizeof json);
    if (lb_tokenizer_parse(json, (size_t)len, "edge.json", &tokenizer, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    for (size_t i = 0; i < n; i++) {
        struct lb_ids ids = {0};
        const struct sentence *s = &sentences[i];
        assert_int_equal(lb_tokenizer_encode(tokenizer, s->text, strlen(s->text), false, &ids, &detail),
                         LB_OK);
        if (ids.len != s->n || memcmp(ids.data, s->ids, s->n * sizeof *s->ids) != 0) {
            fail_msg("\"%s\" became %zu other ids, the first %d, by %s", s->text, ids.len,
                     ids.len > 0 ? ids.data[0] : -1, model);
        }
        lb_free(ids.data);
    }
    lb_tokenizer_destroy(tokenizer);
}
#define CHECK(model, words, sentences) check(model, words, sentences, sizeof(sentences) / sizeof *(sentences))

/* Characters count, not bytes. */
static void test_longest_word(void **state) {
    (void)state;
    static const struct sentence sentences[] = {
        {"aaaa", IDS(1, 2, 2, 2)},
        {"aaaaa", IDS(0)},
        {"aaaa aaaaa a", IDS(1, 2, 2, 2, 0, 1)},
        {"\u00e9\u00e9\u00e9\u00e9", IDS(3, 4, 4, 4)},
        {"\u00e9\u00e9\u00e9\u00e9\u00e9", IDS(0)},
    };
    CHECK("\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"continuing_subword_prefix\":\"##\","
          "\"max_input_chars_per_word\":4,\"vocab\":{\"[UNK]\":0,\"a\":1,\"##a\":2,\"\u00e9\":3,\"##\u00e9\":"
          "4}",
          true, sentences);
}

#define UNIGRAM "\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0]"

/* Of ways with the same sum the first that is found: the shorter first token's, but a whole before its parts.
 */
static void test_equal_ways(void **state) {
    (void)state;
    static const struct sentence apart[] = {{"abc", IDS(1, 2)}}, whole[] = {{"ab", IDS(3)}};
    CHECK(UNIGRAM ",[\"a\",-1],[\"bc\",-2],[\"ab\",-2],[\"c\",-1],[\"b\",-9]]", false, apart);
    CHECK(UNIGRAM ",[\"a\",-1],[\"b\",-1],[\"ab\",-2]]", false, whole);
}

/* An unknown character costs ten more than the least likely token: -15 here, beside three or four tokens. */
static void test_unknown_costs_ten(void **state) {
    (void)state;
    static const struct sentence dearer[] = {{"xyzwuv", IDS(1, 2, 3)}}, cheaper[] = {{"xyzwuvst", IDS(0, 5)}};
    CHECK(UNIGRAM ",[\"xy\",-5],[\"zw\",-5],[\"uv\",-5],[\"yzwuv\",-0.1]]", false, dearer);
    CHECK(UNIGRAM ",[\"xy\",-5],[\"zw\",-5],[\"uv\",-5],[\"st\",-0.5],[\"yzwuvst\",-0.1]]", false, cheaper);
}

/* Unknown neighbours become one, and that may be a token after all. */
static void test_unknown_together(void **state) {
    (void)state;
    static const struct sentence sentences[] = {{"axya", IDS(1, 2, 1)}, {"axza", IDS(1, 0, 1)}};
    CHECK("\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",100],[\"a\",150],[\"xy\",100]]", false,
          sentences);
}

/* All bytes of what is unknown have a token, or none is used. */
static void test_unigram_bytes(void **state) {
    (void)state;
    static const struct sentence falls[] = {{"a\u00e9a", IDS(1, 2, 3, 1)},
                                            {"a\u00e8a", IDS(1, 0, 1)},
                                            {"a\u00e9\u00e8a", IDS(1, 0, 1)}},
                                 stays[] = {{"a\u00e9a", IDS(1, 0, 1)}};
    CHECK(UNIGRAM ",[\"a\",-1],[\"<0xC3>\",-3],[\"<0xA9>\",-3]],\"byte_fallback\":true", false, falls);
    CHECK(UNIGRAM ",[\"a\",-1],[\"<0xC3>\",-3],[\"<0xA9>\",-3]],\"byte_fallback\":false", false, stays);
    CHECK(UNIGRAM ",[\"a\",-1],[\"<0xA9>\",-3]],\"byte_fallback\":true", false, stays);
}

#define PAIRS(fuse)                                                                                          \
    "\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"byte_fallback\":true,\"fuse_unk\":" fuse                     \
    ",\"vocab\":{\"<unk>\":0,\"a\":1,\"<0xC3>\":2,\"<0xA9>\":3},\"merges\":[]"

/* There an unknown character waits for the next known one, and bytes pass it. */
static void test_pair_bytes(void **state) {
    (void)state;
    static const struct sentence each[] = {{"xxa", IDS(0, 0, 1)},
                                           {"a\u00e8a", IDS(1, 0, 1)},
                                           {"x\u00e9a", IDS(2, 3, 0, 1)},
                                           {"\u00e9x", IDS(2, 3, 0)},
                                           {"x\u00e9xa", IDS(2, 3, 0, 0, 1)}},
                                 fused[] = {{"xxa", IDS(0, 1)},
                                            {"\u00e8\u00e8a", IDS(0, 1)},
                                            {"x\u00e9xa", IDS(2, 3, 0, 1)}};
    CHECK(PAIRS("false"), false, each);
    CHECK(PAIRS("true"), false, fused);
}

/* ignore_merges: a piece that is a token is one, though no merges make it. */
static void test_without_merges(void **state) {
    (void)state;
#define TWO                                                                                                  \
    "\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"vocab\":{\"<unk>\":0,\"a\":1,\"b\":2,\"ab\":3},\"merges\":[" \
    "]"
    static const struct sentence ignored[] = {{"ab", IDS(3)}}, merged[] = {{"ab", IDS(1, 2)}};
    CHECK(TWO ",\"ignore_merges\":true", false, ignored);
    CHECK(TWO ",\"ignore_merges\":false", false, merged);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_longest_word),      cmocka_unit_test(test_equal_ways),
        cmocka_unit_test(test_unknown_costs_ten), cmocka_unit_test(test_unknown_together),
        cmocka_unit_test(test_unigram_bytes),     cmocka_unit_test(test_pair_bytes),
        cmocka_unit_test(test_without_merges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
