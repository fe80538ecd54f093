/* Tokenizers from tokenizer.json: opening, refusing, asking, encoding and decoding; merges against a plain
 * reference. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/base/sha256.h"
#include "common/text/tokenizer.h"
#include "tests/support/tiny_tokenizer.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_JSON ((size_t)1 << 20)

/* "th" 257, "the" 258, " the" 259, "in" 260 */
static const struct tiny_merge small_merges[] = {
    {"t", "h", 1, 1}, {"th", "e", 2, 1}, {" ", "the", 1, 3}, {"i", "n", 1, 1}};
#define N_SMALL 4

static struct lb_tokenizer *make(const char *root, const char *model) {
    struct lb_buf json;
    struct lb_tokenizer *tokenizer = NULL;
    struct lb_detail detail = {0};
    lb_buf_init(&json, MAX_JSON);
    tiny_tokenizer(&json, small_merges, N_SMALL, root, model);
    assert_int_equal(lb_buf_status(&json), LB_OK);
    if (lb_tokenizer_parse(json.data, json.len, "tiny.json", &tokenizer, &detail)) {
        fail_msg("%s", detail.text);
    }
    lb_buf_finish(&json);
    return tokenizer;
}

static void check_ids(const struct lb_tokenizer *tokenizer, const char *text, size_t len, bool special,
                      const int32_t *want, size_t n) {
    struct lb_ids ids = {0};
    struct lb_detail detail = {0};
    if (lb_tokenizer_encode(tokenizer, text, len, special, &ids, &detail)) {
        fail_msg("%s", detail.text);
    }
    assert_int_equal(ids.len, n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(ids.data[i], want[i]);
    }
    lb_free(ids.data);
}

#define CHECK_IDS(tokenizer, text, special, ...)                                                             \
    check_ids(tokenizer, text, sizeof text - 1, special, (const int32_t[]){__VA_ARGS__},                     \
              sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void check_text(const struct lb_tokenizer *tokenizer, const int32_t *ids, size_t n, bool skip,
                       const char *want) {
    struct lb_buf text;
    lb_buf_init(&text, MAX_JSON);
    lb_buf_append_str(&text, ">");
    assert_int_equal(lb_tokenizer_decode(tokenizer, ids, n, skip, &text, NULL), LB_OK);
    assert_string_equal(text.data + 1, want);
    lb_buf_finish(&text);
}

static void test_small(void **state) {
    (void)state;
    struct lb_tokenizer *t = make(TINY_GPT2, "");
    assert_int_equal(lb_tokenizer_vocab_size(t), 261);
    CHECK_IDS(t, "the thin then", false, 258, 1 + ' ', 257, 260, 259, 1 + 'n');
    CHECK_IDS(t, "a<eos>the", true, 1 + 'a', 0, 258); /* no post-processor: nothing to add */
    CHECK_IDS(t, "a\0b", false, 1 + 'a', 1, 1 + 'b');
    CHECK_IDS(t, "\u00e9", false, 1 + 0xc3, 1 + 0xa9);
    check_ids(t, "", 0, true, NULL, 0);
    check_text(t, (const int32_t[]){258, 0, 259, 1 + 0xc3, 1 + 0xa9}, 5, false, "the<eos> the\u00e9");
    check_text(t, (const int32_t[]){258, 0, 259, 1 + 0xc3}, 4, true, "the the\ufffd");
    assert_string_equal(lb_tokenizer_token(t, 259), "\u0120the");
    assert_null(lb_tokenizer_token(t, -1));
    assert_null(lb_tokenizer_token(t, 261));
    assert_int_equal(lb_tokenizer_id(t, "\u0120the"), 259);
    assert_int_equal(lb_tokenizer_id(t, " the"), -1);
    assert_int_equal(lb_tokenizer_eos(t), 0);
    assert_int_equal(lb_tokenizer_bos(t), -1);
    assert_true(lb_tokenizer_is_special(t, 0));
    assert_false(lb_tokenizer_is_special(t, 258));
    assert_false(lb_tokenizer_is_special(t, 261));
    size_t n = 0;
    assert_memory_equal(lb_tokenizer_bytes(t, 259, &n), " the", 4);
    assert_int_equal(n, 4);
    assert_memory_equal(lb_tokenizer_bytes(t, 1 + 0xc3, &n), "\xc3", 1);
    assert_int_equal(n, 1);
    assert_null(lb_tokenizer_bytes(t, 261, &n));
    lb_tokenizer_destroy(t);
    lb_tokenizer_destroy(NULL);
}

/* What is in the lists already stays, after a success and after a failure. */
static void test_appends(void **state) {
    (void)state;
    struct lb_tokenizer *t = make(TINY_GPT2, "");
    struct lb_ids ids = {0};
    struct lb_detail detail = {0};
    assert_int_equal(lb_tokenizer_encode(t, "the", 3, false, &ids, NULL), LB_OK);
    assert_int_equal(lb_tokenizer_encode(t, "in the\xff", 7, false, &ids, &detail), LB_E_FORMAT);
    assert_non_null(strstr(detail.text, "byte 6 (0xff)"));
    assert_int_equal(ids.len, 1);
    assert_int_equal(lb_tokenizer_encode(t, "in", 2, false, &ids, NULL), LB_OK);
    assert_int_equal(ids.len, 2);
    assert_int_equal(ids.data[0], 258);
    assert_int_equal(ids.data[1], 260);
    lb_free(ids.data);

    struct lb_buf text;
    lb_buf_init(&text, 8);
    memset(&detail, 0, sizeof detail);
    const int32_t bad[] = {258, 261, -1};
    assert_int_equal(lb_tokenizer_decode(t, bad, 3, false, &text, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "ids[1] is 261"));
    assert_int_equal(text.len, 0);
    const int32_t many[] = {258, 258, 258};
    assert_int_equal(lb_tokenizer_decode(t, many, 3, false, &text, NULL), LB_E_LIMIT);
    lb_buf_finish(&text);
    lb_tokenizer_destroy(t);
}

static void test_special(void **state) {
    (void)state;
    struct lb_tokenizer *t =
        make(TINY_GPT2
             "\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},"
             "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},"
             "{\"SpecialToken\":{\"id\":\"end\",\"type_id\":0}}],"
             "\"special_tokens\":{\"end\":{\"id\":\"end\",\"ids\":[0,258],\"tokens\":[\"<eos>\",\"the\"]}}},"
             "{\"type\":\"BertProcessing\",\"cls\":[\"in\",260],\"sep\":[\"<eos>\",0]},"
             "{\"type\":\"BertProcessing\",\"cls\":[\"a\",98],\"sep\":[\"b\",99]}]},",
             "");
    CHECK_IDS(t, "the", true, 98, 260, 258, 0, 258, 0, 99);
    CHECK_IDS(t, "the", false, 258);
    CHECK_IDS(t, "", true, 98, 260, 0, 258, 0, 99);
    lb_tokenizer_destroy(t);
}

/* An unknown token for bytes without a letter; without one they are left out. */
static void test_missing_bytes(void **state) {
    static const char *const format =
        "{" TINY_WHOLE "\"model\":{\"type\":\"BPE\",%s\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"?\":3},"
        "\"merges\":[\"#version: 0.2\",\"a b\"]}}";
    static const struct {
        const char *keys;
        int32_t want[6];
        size_t n;
    } cases[] = {{"", {2, 0}, 2},
                 {"\"unk_token\":\"?\",", {2, 3, 3, 0, 3}, 5},
                 {"\"unk_token\":\"?\",\"fuse_unk\":true,", {2, 3, 0, 3}, 4}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lb_buf json;
        struct lb_tokenizer *t = NULL;
        lb_buf_init(&json, 1000);
        lb_buf_append(&json, format, strstr(format, "%s") - format);
        lb_buf_append_str(&json, cases[i].keys);
        lb_buf_append_str(&json, strstr(format, "%s") + 2);
        assert_int_equal(lb_tokenizer_parse(json.data, json.len, "missing.json", &t, NULL), LB_OK);
        check_ids(t, "abxyaz", 6, false, cases[i].want, cases[i].n);
        lb_tokenizer_destroy(t);
        lb_buf_finish(&json);
    }
}

/* ---- merges ---- */

/* The id of a byte string: its letter's, or that of the merge among the first n that makes it. */
static int32_t id_of(const struct tiny_merge *merge, size_t n, const unsigned char *bytes, size_t len) {
    for (size_t k = 0; k < n; k++) {
        if (merge[k].left_len + merge[k].right_len == len &&
            !memcmp(bytes, merge[k].left, merge[k].left_len) &&
            !memcmp(bytes + merge[k].left_len, merge[k].right, merge[k].right_len)) {
            return (int32_t)(257 + k);
        }
    }
    return 1 + bytes[0];
}

/* The definition, in the plainest form: of all neighbours, those whose merge stands first in the list,
 * leftmost first. */
static size_t reference(const struct tiny_merge *merge, size_t n_merges, const unsigned char *text, size_t n,
                        int32_t *out) {
    for (size_t i = 0; i < n; i++) {
        out[i] = 1 + text[i];
    }
    for (size_t m = 0; m < n_merges;) {
        int32_t left = id_of(merge, m, merge[m].left, merge[m].left_len);
        int32_t right = id_of(merge, m, merge[m].right, merge[m].right_len);
        size_t at = 0;
        while (at + 1 < n && !(out[at] == left && out[at + 1] == right)) {
            at++;
        }
        if (at + 1 >= n) {
            m++; /* what comes later in the list cannot make left or right again, as they are older than what
                    it makes */
            continue;
        }
        out[at] = (int32_t)(257 + m);
        memmove(out + at + 1, out + at + 2, (n - at - 2) * sizeof *out);
        n--;
    }
    return n;
}

#define N_RANDOM 40
#define MAX_TEXT 120

/* Random merges over three letters, none of which makes what is there already. */
static size_t random_merges(struct lb_rng *rng, struct tiny_merge *merge) {
    unsigned char token[3 + N_RANDOM][TINY_PIECE] = {"a", "b", "c"};
    size_t len[3 + N_RANDOM] = {1, 1, 1}, n_tokens = 3, n = 0;
    for (int tries = 0; tries < 400 && n < N_RANDOM; tries++) {
        size_t l = lb_rng_below(rng, n_tokens), r = lb_rng_below(rng, n_tokens);
        unsigned char made[2 * TINY_PIECE];
        size_t total = len[l] + len[r];
        bool known = total > 12;
        memcpy(made, token[l], len[l]);
        memcpy(made + len[l], token[r], len[r]);
        for (size_t i = 0; i < n_tokens; i++) {
            known = known || (len[i] == total && !memcmp(token[i], made, total));
        }
        if (known) {
            continue;
        }
        memcpy(merge[n].left, token[l], len[l]);
        memcpy(merge[n].right, token[r], len[r]);
        merge[n].left_len = len[l];
        merge[n].right_len = len[r];
        memcpy(token[n_tokens], made, total);
        len[n_tokens++] = total;
        n++;
    }
    return n;
}

/* Both ways to merge, for short and for long pieces, against the reference. */
static void test_merges(void **state) {
    (void)state;
    struct lb_rng rng;
    lb_rng_seed(&rng, 5, 0);
    for (int round = 0; round < 12; round++) {
        struct tiny_merge merge[N_RANDOM];
        struct lb_buf json;
        struct lb_tokenizer *t = NULL;
        size_t n_merges = random_merges(&rng, merge);
        lb_buf_init(&json, MAX_JSON);
        tiny_tokenizer(&json, merge, n_merges, TINY_WHOLE, "");
        assert_int_equal(lb_tokenizer_parse(json.data, json.len, "random.json", &t, NULL), LB_OK);
        for (size_t n = 1; n <= MAX_TEXT; n += 1 + n / 8) {
            unsigned char text[MAX_TEXT];
            int32_t want[MAX_TEXT];
            for (size_t i = 0; i < n; i++) {
                text[i] = (unsigned char)('a' + lb_rng_below(&rng, round % 3 + 1));
            }
            size_t n_want = reference(merge, n_merges, text, n, want);
            check_ids(t, (const char *)text, n, false, want, n_want);
        }
        lb_tokenizer_destroy(t);
        lb_buf_finish(&json);
    }
}

/* A megabyte without a place to cut: n log n, not n squared (which would take minutes). */
static void test_long_piece(void **state) {
    (void)state;
    struct tiny_merge merge[N_RANDOM];
    struct lb_rng rng;
    struct lb_buf json;
    struct lb_tokenizer *t = NULL;
    size_t n = (size_t)1 << 20;
    lb_rng_seed(&rng, 6, 0);
    size_t n_merges = random_merges(&rng, merge);
    lb_buf_init(&json, MAX_JSON);
    tiny_tokenizer(&json, merge, n_merges, TINY_WHOLE, "");
    assert_int_equal(lb_tokenizer_parse(json.data, json.len, "long.json", &t, NULL), LB_OK);
    char *text = lb_malloc_array(n, 1);
    for (size_t i = 0; i < n; i++) {
        text[i] = (char)('a' + lb_rng_below(&rng, 3));
    }
    struct lb_ids ids = {0};
    assert_int_equal(lb_tokenizer_encode(t, text, n, false, &ids, NULL), LB_OK);
    struct lb_buf back;
    lb_buf_init(&back, n);
    assert_int_equal(lb_tokenizer_decode(t, ids.data, ids.len, false, &back, NULL), LB_OK);
    assert_int_equal(back.len, n);
    assert_memory_equal(back.data, text, n);
    assert_true(ids.len < n - n / 4);
    lb_buf_finish(&back);
    lb_free(ids.data);
    lb_free(text);
    lb_buf_finish(&json);
    lb_tokenizer_destroy(t);
}

/* ---- files ---- */

static void test_refusals(void **state) {
#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[[\"a\",\"b\"]]}"
#define MODEL_WITH(keys) "{" TINY_GPT2 "\"model\":{\"type\":\"BPE\"," keys "}}"
#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2}"
    static const struct {
        const char *json, *named;
        enum lb_status status;
    } cases[] = {
        {"", "file.json", LB_E_FORMAT},
        {"[1]", "JSON object", LB_E_FORMAT},
        {"{}", "\"model\"", LB_E_FORMAT},
        {"{" TINY_GPT2 MODEL ",\"surprise\":1}", "surprise", LB_E_UNSUPPORTED},
        {"{" TINY_GPT2 MODEL ",\"version\":\"2.0\"}", "version", LB_E_UNSUPPORTED},
        {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":{}}}", "WordLevel", LB_E_UNSUPPORTED},
        {"{" TINY_GPT2 "\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "Unigram", LB_E_UNSUPPORTED},
        {"{" TINY_GPT2 "\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "WordPiece", LB_E_UNSUPPORTED},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", "[UNK]", LB_E_FORMAT},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":{}}}", "vocab", LB_E_FORMAT},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",\"b\"]]}}", "vocab[0]", LB_E_FORMAT},
        {"{\"model\":{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"a\",0]]}}", "unk_id", LB_E_FORMAT},
        {"{" TINY_GPT2 "\"normalizer\":{\"type\":\"Magic\"}," MODEL "}", "Magic", LB_E_UNSUPPORTED},
        {"{" TINY_GPT2 "\"normalizer\":{\"type\":\"Prepend\"}," MODEL "}", "prepend", LB_E_FORMAT},
        {"{" TINY_GPT2 "\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAA\"}," MODEL
         "}",
         "charsmap", LB_E_FORMAT},
        {"{" TINY_GPT2 "\"normalizer\":{\"type\":\"Precompiled\"}," MODEL "}", "Precompiled",
         LB_E_UNSUPPORTED},
        {"{" TINY_GPT2 "\"decoder\":{\"type\":\"CTC\"}," MODEL "}", "CTC", LB_E_UNSUPPORTED},
        {"{" TINY_GPT2 "\"decoder\":{\"type\":\"Strip\",\"content\":\" \"}," MODEL "}", "start", LB_E_FORMAT},
        {"{" TINY_GPT2 "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":"
         "\"Metaspace\"}]}," MODEL "}",
         "behind Fuse", LB_E_UNSUPPORTED},
        {"{" TINY_GPT2 "\"post_processor\":{\"type\":\"Magic\"}," MODEL "}", "Magic", LB_E_UNSUPPORTED},
        {"{" TINY_GPT2
         "\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",0],\"sep\":[\"x\",9]}," MODEL "}",
         "id 9", LB_E_FORMAT},
        {"{" TINY_GPT2 "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{"
         "\"id\":\"B\"}}]}," MODEL "}",
         "single[0]", LB_E_UNSUPPORTED},
        {"{" TINY_GPT2 "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}," MODEL "}",
         "Sequence A", LB_E_FORMAT},
        {"{" TINY_GPT2 "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{"
         "\"id\":\"<x>\"}}]}," MODEL "}",
         "<x>", LB_E_FORMAT},
        {"{" TINY_GPT2 "\"added_tokens\":[{\"id\":3,\"content\":\"\"}]," MODEL "}", "empty", LB_E_FORMAT},
        {"{" TINY_GPT2 "\"added_tokens\":[{\"id\":1,\"content\":\"<x>\"}]," MODEL "}", "<x>", LB_E_FORMAT},
        {"{" TINY_GPT2 "\"added_tokens\":[{\"id\":5,\"content\":\"a\"}]," MODEL "}", "two ids", LB_E_FORMAT},
        {"{" TINY_GPT2 "\"added_tokens\":[{\"id\":99999999,\"content\":\"<x>\"}]," MODEL "}", "99999999",
         LB_E_LIMIT},
        {"{" TINY_GPT2 "\"added_tokens\":{}," MODEL "}", "added_tokens", LB_E_FORMAT},
        {MODEL_WITH(VOCAB ",\"merges\":[],\"dropout\":0.1"), "dropout", LB_E_UNSUPPORTED},
        {MODEL_WITH(VOCAB ",\"merges\":[],\"byte_fallback\":true"), "byte_fallback", LB_E_UNSUPPORTED},
        {MODEL_WITH(VOCAB ",\"merges\":[],\"unk_token\":\"<unk>\""), "unk_token", LB_E_FORMAT},
        {MODEL_WITH(VOCAB ",\"merges\":[],\"fuse_unk\":\"yes\""), "fuse_unk", LB_E_FORMAT},
        {MODEL_WITH(VOCAB), "merges", LB_E_FORMAT},
        {MODEL_WITH("\"merges\":[]"), "vocab", LB_E_FORMAT},
        {MODEL_WITH("\"vocab\":{\"a\":\"0\"},\"merges\":[]"), "\"a\"", LB_E_FORMAT},
        {MODEL_WITH("\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), "id 0", LB_E_FORMAT},
        {MODEL_WITH("\"vocab\":{\"a\":-1},\"merges\":[]"), "-1", LB_E_LIMIT},
        {MODEL_WITH(VOCAB ",\"merges\":[\"ab\"]"), "merges[0]", LB_E_FORMAT},
        {MODEL_WITH(VOCAB ",\"merges\":[\"a b\",\"a b c\"]"), "merges[1]", LB_E_FORMAT},
        {MODEL_WITH(VOCAB ",\"merges\":[[\"a\",\"b\",\"c\"]]"), "merges[0]", LB_E_FORMAT},
        {MODEL_WITH(VOCAB ",\"merges\":[\"a x\"]"), "\"x\"", LB_E_FORMAT},
        {MODEL_WITH(VOCAB ",\"merges\":[\"b a\"]"), "what it makes", LB_E_FORMAT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lb_tokenizer *t = NULL;
        struct lb_detail detail = {0};
        enum lb_status status =
            lb_tokenizer_parse(cases[i].json, strlen(cases[i].json), "file.json", &t, &detail);
        if (status != cases[i].status || t || !strstr(detail.text, cases[i].named) ||
            !strstr(detail.text, "file.json")) {
            fail_msg("%s: status %d, \"%s\" is not named in: %s", cases[i].json, status, cases[i].named,
                     detail.text);
        }
    }
}

static void write_file(const char *dir, const char *name, const char *text, size_t len) {
    struct lb_detail detail = {0};
    char *path = lb_path_join(dir, name);
    if (lb_file_replace(path, text, len, &detail)) {
        fail_msg("%s", detail.text);
    }
    lb_free(path);
}

static void test_folder(void **state) {
    (void)state;
    char dir[] = "/tmp/limbeck-text-XXXXXX";
    struct lb_detail detail = {0};
    struct lb_tokenizer *t = NULL;
    struct lb_buf json;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(lb_tokenizer_open(dir, &t, &detail), LB_E_NOTFOUND);
    assert_non_null(strstr(detail.text, "tokenizer.json"));
    lb_buf_init(&json, MAX_JSON);
    tiny_tokenizer(&json, small_merges, N_SMALL, TINY_GPT2, "");
    write_file(dir, "tokenizer.json", json.data, json.len);

    /* by folder and by file, without a tokenizer_config.json */
    char *path = lb_path_join(dir, "tokenizer.json");
    assert_int_equal(lb_tokenizer_open(path, &t, NULL), LB_OK);
    assert_int_equal(lb_tokenizer_eos(t), 0);
    size_t len;
    const char *source = lb_tokenizer_source(t, &len);
    assert_int_equal(len, json.len);
    assert_memory_equal(source, json.data, len);
    lb_tokenizer_destroy(t);
    static const struct {
        const char *config;
        int32_t eos, bos;
    } cases[] = {
        {"{\"eos_token\": \"the\", \"bos_token\": {\"content\": \"<eos>\", \"special\": true}}", 258, 0},
        {"{\"eos_token\": null, \"bos_token\": \"in\"}", 0, 260},
        {"{}", 0, -1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_file(dir, "tokenizer_config.json", cases[i].config, strlen(cases[i].config));
        const char *const paths[] = {dir, path};
        for (int k = 0; k < 2; k++) {
            assert_int_equal(lb_tokenizer_open(paths[k], &t, NULL), LB_OK);
            assert_int_equal(lb_tokenizer_eos(t), cases[i].eos);
            assert_int_equal(lb_tokenizer_bos(t), cases[i].bos);
            lb_tokenizer_destroy(t);
        }
    }
    static const char ends[] = "{\"eos_token\": \"the\", \"bos_token\": \"<eos>\", \"add_bos_token\": true, "
                               "\"add_eos_token\": true}";
    write_file(dir, "tokenizer_config.json", ends, sizeof ends - 1);
    assert_int_equal(lb_tokenizer_open(dir, &t, NULL), LB_OK);
    struct lb_ids ids = {0};
    assert_int_equal(lb_tokenizer_encode(t, "h", 1, true, &ids, NULL), LB_OK);
    assert_int_equal(ids.len, 3);
    assert_true(ids.data[0] == 0 && ids.data[1] == 'h' + 1 && ids.data[2] == 258);
    ids.len = 0;
    assert_int_equal(lb_tokenizer_encode(t, "h", 1, false, &ids, NULL), LB_OK);
    assert_int_equal(ids.len, 1);
    lb_free(ids.data);
    lb_tokenizer_destroy(t);
    static const char wrong[] = "{\"eos_token\": \"<end>\"}";
    write_file(dir, "tokenizer_config.json", wrong, sizeof wrong - 1);
    memset(&detail, 0, sizeof detail);
    assert_int_equal(lb_tokenizer_open(dir, &t, &detail), LB_E_MISMATCH);
    assert_non_null(strstr(detail.text, "eos_token \"<end>\""));
    lb_free(path);
    lb_buf_finish(&json);
    assert_int_equal(lb_remove_tree(dir, NULL), LB_OK);
}

/* Tokenizers of one fingerprint read every text alike: it does not see how the file is written, but all that
 * changes ids. */
static void test_fingerprint(void **state) {
    static const char rest[] = "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\u0120b\":"
                               "4},\"merges\":[\"a b\"]}}";
    static const char *const same[] = {
        "{" TINY_GPT2 "\"model\":{\"type\":\"BPE\",\"vocab\":{\"\u0120b\":4,\"ab\":2,\"b\":1,\"a\":0},"
        "\"merges\":[[\"a\",\"b\"]]}}",
        "{ " TINY_GPT2 "\"normalizer\":null,\"model\":{\"type\":\"BPE\",\"dropout\":null,\"vocab\":{\"a\":0,"
        "\"b\":1,\"ab\":2,\"\u0120b\":4},\"merges\":[\"a b\"]}}",
    };
    static const char *const others[] = {
        /* an id, a merge, an option, the normalizer, an added token and each of its flags, the regex, a
           text instead of one, the template before and behind */
        "{" TINY_GPT2 "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\u0120b\":3},"
        "\"merges\":[\"a b\"]}}",
        "{" TINY_GPT2
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\u0120b\":4},\"merges\":[]}}",
        "{" TINY_GPT2 "\"model\":{\"type\":\"BPE\",\"ignore_merges\":true,\"vocab\":{\"a\":0,\"b\":1,\"ab\":"
        "2,\"\u0120b\":4},\"merges\":[\"a b\"]}}",
        "{" TINY_GPT2 "\"normalizer\":{\"type\":\"NFC\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,"
        "\"b\":1,\"ab\":2,\"\u0120b\":4},\"merges\":[\"a b\"]}}",
        "{" TINY_GPT2 "\"added_tokens\":[{\"id\":7,\"content\":\"<x>\"}],\"model\":{\"type\":\"BPE\","
        "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\u0120b\":4},\"merges\":[\"a b\"]}}",
        "{" TINY_GPT2 "\"added_tokens\":[{\"id\":7,\"content\":\"<x>\",\"lstrip\":true}],\"model\":{\"type\":"
        "\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\u0120b\":4},\"merges\":[\"a b\"]}}",
        "{" TINY_GPT2 "\"added_tokens\":[{\"id\":7,\"content\":\"<x>\",\"rstrip\":true}],\"model\":{\"type\":"
        "\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\u0120b\":4},\"merges\":[\"a b\"]}}",
        "{" TINY_GPT2
        "\"added_tokens\":[{\"id\":7,\"content\":\"<x>\",\"single_word\":true}],\"model\":{\"type\":\"BPE\","
        "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\u0120b\":4},\"merges\":[\"a b\"]}}",
        "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{"
        "\"Regex\":\"a+\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_"
        "space\":false,\"use_regex\":false}]},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":"
        "\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\u0120b\":4},\"merges\":[\"a b\"]}}",
        "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{"
        "\"Regex\":\"b+\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_"
        "space\":false,\"use_regex\":false}]},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":"
        "\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\u0120b\":4},\"merges\":[\"a b\"]}}",
        "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{"
        "\"String\":\"a+\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_"
        "space\":false,\"use_regex\":false}]},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":"
        "\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\u0120b\":4},\"merges\":[\"a b\"]}}",
        "{" TINY_GPT2 "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{"
        "\"id\":\"a\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"a\":{\"ids\":[0]}}},\"model\":{"
        "\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\u0120b\":4},\"merges\":[\"a b\"]}}",
        "{" TINY_GPT2 "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":"
        "\"A\"}},{\"SpecialToken\":{\"id\":\"a\"}}],\"special_tokens\":{\"a\":{\"ids\":[0]}}},\"model\":{"
        "\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\u0120b\":4},\"merges\":[\"a b\"]}}",
    };
    enum { N_SAME = sizeof same / sizeof same[0], N_OTHERS = sizeof others / sizeof others[0] };
    struct lb_tokenizer *t[1];
    char whole[600], seen[N_OTHERS + 1][LB_SHA256_HEX];
    (void)state;
    snprintf(whole, sizeof whole, "{%s%s", TINY_GPT2, rest);
    assert_int_equal(lb_tokenizer_parse(whole, strlen(whole), "one", &t[0], NULL), LB_OK);
    memcpy(seen[0], lb_tokenizer_fingerprint(t[0]), LB_SHA256_HEX);
    lb_tokenizer_destroy(t[0]);
    for (int i = 0; i < N_SAME; i++) {
        assert_int_equal(lb_tokenizer_parse(same[i], strlen(same[i]), "same", &t[0], NULL), LB_OK);
        assert_string_equal(lb_tokenizer_fingerprint(t[0]), seen[0]);
        lb_tokenizer_destroy(t[0]);
    }
    for (int i = 0; i < N_OTHERS; i++) {
        struct lb_detail detail = {0};
        if (lb_tokenizer_parse(others[i], strlen(others[i]), "other", &t[0], &detail) != LB_OK) {
            fail_msg("%d: %s", i, detail.text);
        }
        memcpy(seen[i + 1], lb_tokenizer_fingerprint(t[0]), LB_SHA256_HEX);
        for (int j = 0; j <= i; j++) {
            assert_string_not_equal(seen[i + 1], seen[j]);
        }
        lb_tokenizer_destroy(t[0]);
    }

    static const char gaps[] =
        "{" TINY_GPT2 "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"\u0120b\":2},\"merges\":[]}}";
    assert_int_equal(lb_tokenizer_parse(gaps, sizeof gaps - 1, "gaps", &t[0], NULL), LB_OK);
    assert_int_equal(lb_tokenizer_vocab_size(t[0]), 3);
    assert_null(lb_tokenizer_token(t[0], 1)); /* a gap */
    const int32_t gap = 1;
    struct lb_buf text;
    lb_buf_init(&text, 10);
    assert_int_equal(lb_tokenizer_decode(t[0], &gap, 1, false, &text, NULL), LB_E_ARG);
    lb_tokenizer_destroy(t[0]);
}

/* ---- memory and threads ---- */

static const char many_parts[] =
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"},{\"type\":\"Lowercase\"}]},"
    "\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"in\",260],\"sep\":[\"<eos>\",0]},"
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":"
    "\"Digits\"}]},";
static const char many_texts[] =
    "\uff34HE \ufb01n <eos> then \u0130n 12 abcdefghijklmnopqrstuvwxyzabcdefghijklmn";

/* Every allocation fails once, in opening, encoding and decoding: an error, nothing lost, nothing half done.
 */
static void test_out_of_memory(void **state) {
    (void)state;
    struct lb_buf json;
    lb_buf_init(&json, MAX_JSON);
    tiny_tokenizer(&json, small_merges, N_SMALL, many_parts, "\"ignore_merges\":true,");
    struct lb_tokenizer *t = NULL;
    long n = 1;
    enum lb_status status = LB_E_NOMEM;
    for (; status; n++) {
        lb_mem_fail_from(n);
        status = lb_tokenizer_parse(json.data, json.len, "tiny.json", &t, NULL);
        lb_mem_fail_from(0);
        assert_true(status == LB_OK || status == LB_E_NOMEM);
        assert_true((status == LB_OK) == (t != NULL));
    }
    assert_true(n > 10);
    struct lb_ids ids = {0}, want = {0};
    assert_int_equal(lb_tokenizer_encode(t, many_texts, sizeof many_texts - 1, true, &want, NULL), LB_OK);
    status = LB_E_NOMEM;
    for (n = 1; status; n++) {
        lb_mem_fail_from(n);
        status = lb_tokenizer_encode(t, many_texts, sizeof many_texts - 1, true, &ids, NULL);
        lb_mem_fail_from(0);
        assert_true(status == LB_OK || status == LB_E_NOMEM);
        assert_int_equal(ids.len, status != LB_OK ? 0 : want.len);
    }
    assert_true(n > 8);
    assert_memory_equal(ids.data, want.data, want.len * sizeof *want.data);
    status = LB_E_NOMEM;
    for (n = 1; status; n++) {
        struct lb_buf text;
        lb_buf_init(&text, MAX_JSON);
        lb_mem_fail_from(n);
        status = lb_tokenizer_decode(t, ids.data, ids.len, false, &text, NULL);
        lb_mem_fail_from(0);
        assert_true(status == LB_OK || status == LB_E_NOMEM);
        lb_buf_finish(&text);
    }
    assert_true(n > 2);
    lb_free(ids.data);
    lb_free(want.data);
    lb_tokenizer_destroy(t);
    lb_buf_finish(&json);
}

struct worker {
    const struct lb_tokenizer *tokenizer;
    const struct lb_ids *want;
    int wrong;
};

static void *work(void *argument) {
    struct worker *w = argument;
    for (int i = 0; i < 200; i++) {
        struct lb_ids ids = {0};
        w->wrong +=
            lb_tokenizer_encode(w->tokenizer, many_texts, sizeof many_texts - 1, true, &ids, NULL) != LB_OK ||
            ids.len != w->want->len || memcmp(ids.data, w->want->data, ids.len * sizeof *ids.data) != 0;
        lb_free(ids.data);
    }
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    struct lb_tokenizer *t = make(many_parts, "\"ignore_merges\":true,");
    struct lb_ids want = {0};
    struct worker worker[4];
    pthread_t thread[4];
    assert_int_equal(lb_tokenizer_encode(t, many_texts, sizeof many_texts - 1, true, &want, NULL), LB_OK);
    for (int i = 0; i < 4; i++) {
        worker[i] = (struct worker){t, &want, 0};
        assert_int_equal(pthread_create(&thread[i], NULL, work, &worker[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        assert_int_equal(worker[i].wrong, 0);
    }
    lb_free(want.data);
    lb_tokenizer_destroy(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),         cmocka_unit_test(test_appends),
        cmocka_unit_test(test_special),       cmocka_unit_test(test_merges),
        cmocka_unit_test(test_missing_bytes), cmocka_unit_test(test_long_piece),
        cmocka_unit_test(test_refusals),      cmocka_unit_test(test_folder),
        cmocka_unit_test(test_fingerprint),   cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
