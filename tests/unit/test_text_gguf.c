/* Vocabularies of GGUF files that are wrong, each refused in one line, and what is taken from the good ones.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/formats/gguf.h"
#include "common/text/beside.h"
#include "common/text/gguf_pre.h"
#include "common/text/gguf_vocab.h"
#include "common/text/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define T "tokenizer.ggml."
#define MAX_FILE ((size_t)256 << 20)

static const char *const letters[] = {"<s>", "</s>", "a", "b", "ab", "\u0120", "\u0120ab"};
static const int32_t letter_types[] = {3, 3, 1, 1, 1, 1, 1};
static const char *const letter_merges[] = {"a b", "\u0120 ab"};
#define N_LETTERS ((int)(sizeof letters / sizeof letters[0]))

/* A small byte-level vocabulary; pre NULL: none is named. */
static struct lb_gguf_out *small(const char *pre) {
    struct lb_gguf_out *out = lb_gguf_out_create();
    assert_non_null(out);
    lb_gguf_put_string(out, T "model", "gpt2");
    if (pre) {
        lb_gguf_put_string(out, T "pre", pre);
    }
    return out;
}

static void put_tokens(struct lb_gguf_out *out) {
    lb_gguf_put_strings(out, T "tokens", letters, N_LETTERS);
}

static void put_types(struct lb_gguf_out *out) {
    lb_gguf_put_i32s(out, T "token_type", letter_types, N_LETTERS);
}

static void put_merges(struct lb_gguf_out *out) {
    lb_gguf_put_strings(out, T "merges", letter_merges, 2);
}

static struct lb_gguf_out *whole(const char *pre) {
    struct lb_gguf_out *out = small(pre);
    put_tokens(out);
    put_types(out);
    put_merges(out);
    return out;
}

/* Reads what was put; destroys out. */
static enum lb_status read_back(struct lb_gguf_out *out, struct lb_tokenizer **tokenizer,
                                struct lb_detail *detail) {
    struct lb_buf bytes;
    struct lb_gguf *file = NULL;
    lb_buf_init(&bytes, MAX_FILE);
    assert_int_equal(lb_gguf_encode(out, &bytes, detail), LB_OK);
    assert_int_equal(lb_gguf_parse(bytes.data, bytes.len, "x.gguf", &file, detail), LB_OK);
    enum lb_status status = lb_tokenizer_from_gguf(file, "x.gguf", tokenizer, detail);
    lb_gguf_destroy(file);
    lb_buf_finish(&bytes);
    lb_gguf_out_destroy(out);
    return status;
}

static void refused(struct lb_gguf_out *out, enum lb_status status, const char *says) {
    struct lb_detail detail = {0};
    struct lb_tokenizer *tokenizer = NULL;
    enum lb_status have = read_back(out, &tokenizer, &detail);
    if (have != status || !strstr(detail.text, says) || strncmp(detail.text, "x.gguf: ", 8) != 0 ||
        strchr(detail.text, '\n') || tokenizer) {
        fail_msg("%d (%s) where \"%s\" is right", have, detail.text, says);
    }
}

static void test_wrong_lists(void **state) {
    (void)state;
    static const float scores[] = {0, 1, 2};
    static const int32_t wild[] = {3, 3, 1, 1, 1, 1, 7};
    static const char *const twice[] = {"<s>", "</s>", "a", "b", "ab", "c", "a"};
    static const char *const gap[] = {"<s>", "</s>", "a", "", "ab", "c", "d"};
    refused(lb_gguf_out_create(), LB_E_NOTFOUND, "no vocabulary");
    refused(small("gpt-2"), LB_E_NOTFOUND, "no vocabulary");
    struct lb_gguf_out *out = whole("gpt-2");
    lb_gguf_put_f32s(out, T "scores", scores, 3);
    refused(out, LB_E_FORMAT, "scores has 3 values for 7 tokens");
    out = small("gpt-2"), put_tokens(out), put_merges(out);
    lb_gguf_put_i32s(out, T "token_type", letter_types, N_LETTERS - 1);
    refused(out, LB_E_FORMAT, "token_type has 6 values for 7 tokens");
    out = small("gpt-2"), put_tokens(out), put_merges(out);
    lb_gguf_put_i32s(out, T "token_type", wild, N_LETTERS);
    refused(out, LB_E_FORMAT, "token_type of token 6 is 7");
    out = small("gpt-2"), put_types(out), put_merges(out);
    lb_gguf_put_strings(out, T "tokens", twice, N_LETTERS);
    refused(out, LB_E_FORMAT, "\"a\" has two ids, 2 and 6");
    out = small("gpt-2"), put_types(out), put_merges(out);
    lb_gguf_put_strings(out, T "tokens", gap, N_LETTERS);
    refused(out, LB_E_FORMAT, "token 3 is empty");
    out = small("gpt-2"), put_types(out), put_merges(out);
    lb_gguf_put_strings(out, T "tokens", NULL, 0);
    refused(out, LB_E_LIMIT, "a vocabulary of 0 tokens");
}

static void test_wrong_merges(void **state) {
    (void)state;
    static const char *const stranger[] = {"a b", "a zz"}, *const single[] = {"a b", "ab"},
                             *const nothing[] = {"a b", "b a"};
    struct lb_gguf_out *out = small("gpt-2");
    put_tokens(out), put_types(out);
    refused(out, LB_E_FORMAT, "no tokenizer.ggml.merges");
    out = small("gpt-2"), put_tokens(out), put_types(out);
    lb_gguf_put_strings(out, T "merges", stranger, 2);
    refused(out, LB_E_FORMAT, "\"zz\"");
    out = small("gpt-2"), put_tokens(out), put_types(out);
    lb_gguf_put_strings(out, T "merges", single, 2);
    refused(out, LB_E_FORMAT, "merges[1] is not two tokens");
    out = small("gpt-2"), put_tokens(out), put_types(out);
    lb_gguf_put_strings(out, T "merges", nothing, 2);
    refused(out, LB_E_FORMAT, "merges[1]");
}

static void test_wrong_keys(void **state) {
    (void)state;
    struct lb_gguf_out *out = whole("best-ever");
    refused(out, LB_E_UNSUPPORTED, "tokenizer.ggml.pre \"best-ever\" is not known");
    out = lb_gguf_out_create();
    lb_gguf_put_string(out, T "model", "rwkv"), put_tokens(out);
    refused(out, LB_E_UNSUPPORTED, "tokenizer.ggml.model \"rwkv\"");
    out = whole("gpt-2");
    lb_gguf_put_u32(out, T "eos_token_id", N_LETTERS);
    refused(out, LB_E_FORMAT, "eos_token_id is 7, which is none of the 7 tokens");
    out = whole("gpt-2");
    lb_gguf_put_bool(out, T "add_bos_token", true);
    refused(out, LB_E_FORMAT, "no bos_token_id");
}

/* A million of nothing, a piece too long to be cut everywhere, and scores that are none. */
static void test_large(void **state) {
    (void)state;
    enum { N = 1000000, LONG = 100000 };
    const char **nothing = lb_calloc(N, sizeof *nothing);
    int32_t *unused = lb_calloc(N, sizeof *unused);
    char *piece = lb_malloc_array(LONG + 1, 1);
    assert_true(nothing && unused && piece);
    for (int i = 0; i < N; i++) {
        nothing[i] = "";
        unused[i] = 5;
    }
    struct lb_gguf_out *out = small("gpt-2");
    lb_gguf_put_strings(out, T "tokens", nothing, N), put_merges(out);
    refused(out, LB_E_FORMAT, "token 0 is empty");
    out = small("gpt-2");
    lb_gguf_put_strings(out, T "tokens", nothing, N), lb_gguf_put_i32s(out, T "token_type", unused, N);
    refused(out, LB_E_FORMAT, "none of the 1000000 tokens has a text");
    memset(piece, 'a', LONG);
    piece[LONG] = '\0';
    const char *const tokens[] = {"<unk>", "<s>", "</s>", "a", piece};
    static const float scores[] = {0, 0, 0, -1, -2}, none[] = {0, 0, 0, NAN, 1};
    out = lb_gguf_out_create();
    lb_gguf_put_string(out, T "model", "llama");
    lb_gguf_put_strings(out, T "tokens", tokens, 5), lb_gguf_put_f32s(out, T "scores", scores, 5);
    refused(out, LB_E_LIMIT, "token 4 has 100000 bytes");
    out = lb_gguf_out_create();
    lb_gguf_put_string(out, T "model", "llama");
    lb_gguf_put_strings(out, T "tokens", tokens, 4), lb_gguf_put_f32s(out, T "scores", none, 4);
    refused(out, LB_E_FORMAT, "scores of token 3");
    lb_free(nothing);
    lb_free(unused);
    lb_free(piece);
}

/* What a file says beside its tokens. */
static void test_taken(void **state) {
    (void)state;
    struct lb_detail detail = {0};
    struct lb_tokenizer *tokenizer = NULL;
    struct lb_gguf_out *out = whole(NULL);
    lb_gguf_put_u32(out, T "bos_token_id", 0);
    lb_gguf_put_u32(out, T "eos_token_id", 1);
    lb_gguf_put_bool(out, T "add_bos_token", true);
    lb_gguf_put_bool(out, T "add_eos_token", true);
    lb_gguf_put_string(out, "tokenizer.chat_template", "{{ messages }}");
    if (read_back(out, &tokenizer, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    static const int32_t want[] = {0, 4, 6, 1, 1};
    struct lb_ids ids = {0};
    assert_int_equal(lb_tokenizer_encode(tokenizer, "ab ab</s>", 9, true, &ids, &detail), LB_OK);
    assert_int_equal(ids.len, 5);
    assert_memory_equal(ids.data, want, sizeof want);
    assert_int_equal(lb_tokenizer_bos(tokenizer), 0);
    assert_int_equal(lb_tokenizer_eos(tokenizer), 1);
    assert_string_equal(lb_tokenizer_chat_template(tokenizer), "{{ messages }}");
    lb_free(ids.data);
    lb_tokenizer_destroy(tokenizer);
}

/* text becomes n ids, the first two of them these; destroys out. */
static void reads(struct lb_gguf_out *out, const char *text, size_t n, int32_t first, int32_t second) {
    struct lb_detail detail = {0};
    struct lb_tokenizer *tokenizer = NULL;
    struct lb_ids ids = {0};
    if (read_back(out, &tokenizer, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    assert_int_equal(lb_tokenizer_encode(tokenizer, text, strlen(text), true, &ids, &detail), LB_OK);
    assert_int_equal(ids.len, n);
    assert_int_equal(ids.data[0], first);
    assert_int_equal(ids.data[1], second);
    lb_free(ids.data);
    lb_tokenizer_destroy(tokenizer);
}

/* What keys that are missing mean: of each kind and row what the files of its models mean by it. */
static void test_missing_keys(void **state) {
    (void)state;
    static const char *const pieces[] = {"<pad>", "</s>", "<unk>", "\u2581a", "b"};
    static const char *const parts[] = {"<unk>", "<s>", "</s>", "\u2581a", "\u2581", "a"};
    static const int32_t types[] = {3, 3, 2, 0, 1};
    static const float scores[] = {0, 0, 0, -1, -2, -2};
    static const char *const words[] = {"[UNK]", "[CLS]", "[SEP]", "\u2581a", "\u2581B", "b"};
    static const int32_t word_types[] = {3, 3, 3, 1, 1, 1};
    struct lb_gguf_out *out = whole("llama-bpe"); /* bos */
    lb_gguf_put_u32(out, T "bos_token_id", 0);
    reads(out, "a", 2, 0, 2);
    out = lb_gguf_out_create(); /* bos is 1 */
    lb_gguf_put_string(out, T "model", "llama");
    lb_gguf_put_strings(out, T "tokens", parts, 6), lb_gguf_put_f32s(out, T "scores", scores, 6);
    reads(out, "a", 2, 1, 3);
    out = lb_gguf_out_create(); /* eos is 1, unk 2; a type of 0 is a normal token's */
    lb_gguf_put_string(out, T "model", "t5");
    lb_gguf_put_strings(out, T "tokens", pieces, 5), lb_gguf_put_f32s(out, T "scores", scores, 5);
    lb_gguf_put_i32s(out, T "token_type", types, 5);
    reads(out, "a", 2, 3, 1);
    out = lb_gguf_out_create(); /* [CLS] is bos where nothing else is named, and words keep their case */
    lb_gguf_put_string(out, T "model", "bert");
    lb_gguf_put_strings(out, T "tokens", words, 6), lb_gguf_put_i32s(out, T "token_type", word_types, 6);
    lb_gguf_put_u32(out, T "unknown_token_id", 0), lb_gguf_put_u32(out, T "bos_token_id", 1);
    lb_gguf_put_u32(out, T "seperator_token_id", 2);
    reads(out, "B", 3, 1, 4);
}

/* A tokenizer.json beside a file stands above its vocabulary, and the template beside that is taken. */
static void test_beside(void **state) {
    (void)state;
    char folder[] = "/tmp/limbeck-test-XXXXXX", path[128], other[128], template[128], config[128];
    static const char json[] =
        "{\"added_tokens\":[{\"id\":1,\"content\":\"<end>\",\"special\":true}],\"pre_tokenizer\":{\"type\":"
        "\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\",\"vocab\":{\"z\":0},"
        "\"merges\":[]}}";
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/x.gguf", folder);
    snprintf(other, sizeof other, "%s/tokenizer.json", folder);
    snprintf(template, sizeof template, "%s/chat_template.jinja", folder);
    snprintf(config, sizeof config, "%s/tokenizer_config.json", folder);
    struct lb_gguf_out *out = whole("gpt-2");
    assert_int_equal(lb_gguf_write(out, path, NULL), LB_OK);
    lb_gguf_out_destroy(out);
    struct lb_tokenizer *tokenizer = NULL;
    assert_int_equal(lb_tokenizer_open(path, &tokenizer, NULL), LB_OK);
    assert_int_equal(lb_tokenizer_vocab_size(tokenizer), N_LETTERS);
    assert_null(lb_tokenizer_chat_template(tokenizer));
    lb_tokenizer_destroy(tokenizer);
    static const char named[] =
        "{\"eos_token\":\"<end>\",\"pad_token\":\"<none>\",\"chat_template\":[{\"name\":"
        "\"tools\",\"template\":\"T\"},{\"name\":\"default\",\"template\":\"D\"}]}";
    assert_int_equal(lb_file_replace(other, json, sizeof json - 1, NULL), LB_OK);
    assert_int_equal(lb_file_replace(config, named, sizeof named - 1, NULL), LB_OK);
    assert_int_equal(lb_tokenizer_open(path, &tokenizer, NULL), LB_OK);
    assert_int_equal(lb_tokenizer_vocab_size(tokenizer), 2);
    assert_int_equal(lb_tokenizer_eos(tokenizer), 1);
    assert_string_equal(lb_tokenizer_chat_template(tokenizer), "D");
    lb_tokenizer_destroy(tokenizer);
    assert_int_equal(lb_file_replace(template, "J", 1, NULL), LB_OK);
    assert_int_equal(lb_tokenizer_open(folder, &tokenizer, NULL), LB_OK);
    assert_string_equal(lb_tokenizer_chat_template(tokenizer), "J");
    lb_tokenizer_destroy(tokenizer);
    assert_int_equal(lb_remove_tree(folder, NULL), LB_OK);
}

/* Names of each row, and that each row is found again by what it makes. */
static void test_names(void **state) {
    (void)state;
    static const char *const same[][2] = {
        {"llama3", "llama-bpe"}, {"dbrx", "smaug-bpe"}, {"refact", "smollm"}, {"mpt", "olmo"},
        {"phi-2", "gpt-2"},      {"megrez", "qwen2"},   {"llama4", "gpt-4o"}, {"glm4", "chatglm-bpe"}};
    static const char *const alone[] = {"gpt-2",          "olmo",        "smollm", "command-r",
                                        "llama-bpe",      "smaug-bpe",   "qwen2",  "deepseek-r1-qwen",
                                        "qwen35",         "gpt-4o",      "tekken", "deepseek-llm",
                                        "deepseek-coder", "deepseek-v3", "falcon", "bloom",
                                        "viking",         "superbpe",    "default"};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        assert_non_null(lb_gguf_pre_find(same[i][0]));
        assert_ptr_equal(lb_gguf_pre_find(same[i][0]), lb_gguf_pre_find(same[i][1]));
    }
    for (size_t i = 0; i < sizeof alone / sizeof alone[0]; i++) {
        const struct lb_gguf_pre *pre = lb_gguf_pre_find(alone[i]);
        assert_non_null(pre);
        assert_true(strncmp(pre->names, alone[i], strlen(alone[i])) == 0);
        json_t *root = json_pack("{s:o, s:{s:b}}", "pre_tokenizer", lb_gguf_pre_json(pre), "model",
                                 "ignore_merges", pre->ignore_merges);
        if (pre->normalizer) {
            json_object_set_new(root, "normalizer", json_pack("{s:s}", "type", pre->normalizer));
        }
        assert_ptr_equal(lb_gguf_pre_of(root), pre);
        json_decref(root);
        struct lb_detail detail = {0};
        struct lb_tokenizer *tokenizer = NULL;
        struct lb_gguf_out *out = whole(alone[i]);
        lb_gguf_put_bool(out, T "add_bos_token", false);
        if (read_back(out, &tokenizer, &detail) != LB_OK) {
            fail_msg("%s: %s", alone[i], detail.text);
        }
        lb_tokenizer_destroy(tokenizer);
    }
    assert_null(lb_gguf_pre_find(""));
    assert_null(lb_gguf_pre_find("llama"));
    assert_null(lb_gguf_pre_find("gpt-2 phi-2"));
}

/* SentencePiece's kind, with scores and a run of spaces. */
static struct lb_gguf_out *pieces(void) {
    static const char *const tokens[] = {"<unk>", "<s>", "</s>", "<0x0A>", "  ",
                                         "a",     "b",   "ab",   "\u2581", "\u2581ab"};
    static const int32_t types[] = {2, 3, 3, 6, 4, 1, 1, 1, 1, 1};
    static const float scores[] = {0, 0, 0, 0, -1000, -3, -4, -1, -5, -2};
    struct lb_gguf_out *out = lb_gguf_out_create();
    assert_non_null(out);
    lb_gguf_put_string(out, T "model", "llama");
    lb_gguf_put_strings(out, T "tokens", tokens, 10);
    lb_gguf_put_i32s(out, T "token_type", types, 10);
    lb_gguf_put_f32s(out, T "scores", scores, 10);
    return out;
}

/* The tokens that keys name, as Hugging Face calls them; a config made of them names the same. */
static void test_special(void **state) {
    (void)state;
    static const char *const keys[][2] = {
        {T "bos_token_id", "bos_token"},     {T "eos_token_id", "eos_token"},
        {T "unknown_token_id", "unk_token"}, {T "seperator_token_id", "sep_token"},
        {T "cls_token_id", "cls_token"},     {T "padding_token_id", "pad_token"},
        {T "mask_token_id", "mask_token"}};
    static const char json[] =
        "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\","
        "\"vocab\":{\"t\":0,\"u\":1,\"v\":2,\"w\":3,\"x\":4,\"y\":5,\"z\":6},\"merges\":[]}}";
    enum { N_KEYS = sizeof keys / sizeof keys[0] };
    for (int all = 0; all < 2; all++) { /* with a whole tokenizer.json in the file, too */
        struct lb_tokenizer *tokenizer = NULL;
        struct lb_gguf_out *out = whole(NULL);
        struct lb_buf text;
        json_t *config = NULL;
        lb_buf_init(&text, MAX_FILE);
        for (int i = 0; i < N_KEYS; i++) {
            lb_gguf_put_u32(out, keys[i][0], (uint32_t)i);
        }
        if (all) {
            lb_gguf_put_string(out, "tokenizer.huggingface.json", json);
        }
        assert_int_equal(read_back(out, &tokenizer, NULL), LB_OK);
        assert_int_equal(lb_tokenizer_config(tokenizer, &text, NULL), LB_OK);
        assert_int_equal(lb_json_parse(text.data, text.len, 0, "config", &config, NULL), LB_OK);
        for (int i = 0; i < N_KEYS; i++) {
            assert_int_equal(lb_tokenizer_named(tokenizer, keys[i][1]), i);
            assert_string_equal(lb_beside_token(config, keys[i][1]), lb_tokenizer_token(tokenizer, i));
        }
        json_decref(config);
        lb_buf_finish(&text);
        lb_tokenizer_destroy(tokenizer);
    }
    struct lb_tokenizer *tokenizer = NULL;
    assert_int_equal(read_back(pieces(), &tokenizer, NULL), LB_OK);
    assert_int_equal(lb_tokenizer_named(tokenizer, "bos_token"), 1);
    assert_int_equal(lb_tokenizer_named(tokenizer, "cls_token"), -1); /* BERT's only is its bos */
    assert_int_equal(lb_tokenizer_named(tokenizer, "pad_token"), -1);
    lb_tokenizer_destroy(tokenizer);
}

/* ---- memory ---- */

/* Every allocation fails once: an error, nothing lost, nothing half done; then the text is as it was. */
static void check_reading(struct lb_gguf_out *out) {
    struct lb_buf bytes, text, want;
    struct lb_gguf *file = NULL;
    struct lb_gguf_ids ids;
    lb_buf_init(&bytes, MAX_FILE), lb_buf_init(&text, MAX_FILE), lb_buf_init(&want, MAX_FILE);
    assert_int_equal(lb_gguf_encode(out, &bytes, NULL), LB_OK);
    assert_int_equal(lb_gguf_parse(bytes.data, bytes.len, "x.gguf", &file, NULL), LB_OK);
    assert_int_equal(lb_gguf_vocab_json(file, "x.gguf", &want, &ids, NULL), LB_OK);
    enum lb_status status = LB_E_NOMEM;
    long n = 1;
    for (; status; n++) {
        lb_buf_finish(&text);
        lb_buf_init(&text, MAX_FILE);
        lb_mem_fail_from(n);
        status = lb_gguf_vocab_json(file, "x.gguf", &text, &ids, NULL);
        lb_mem_fail_from(0);
        assert_true(status == LB_OK || status == LB_E_NOMEM);
    }
    assert_true(n > 5 && text.len == want.len && memcmp(text.data, want.data, want.len) == 0);
    lb_gguf_destroy(file);
    lb_gguf_out_destroy(out);
    lb_buf_finish(&bytes), lb_buf_finish(&text), lb_buf_finish(&want);
}

static void test_out_of_memory(void **state) {
    (void)state;
    struct lb_tokenizer *tokenizer = NULL;
    check_reading(whole("smollm"));
    check_reading(pieces());
    assert_int_equal(read_back(whole("smollm"), &tokenizer, NULL), LB_OK);
    enum lb_status status = LB_E_NOMEM;
    long n = 1;
    for (; status; n++) {
        struct lb_gguf_out *out = lb_gguf_out_create();
        struct lb_buf bytes;
        lb_buf_init(&bytes, MAX_FILE);
        lb_mem_fail_from(n);
        status = lb_tokenizer_put_gguf(tokenizer, N_LETTERS + 2, out, NULL);
        status = status == LB_OK ? lb_gguf_encode(out, &bytes, NULL) : status;
        lb_mem_fail_from(0);
        assert_true(status == LB_OK || status == LB_E_NOMEM);
        lb_buf_finish(&bytes);
        lb_gguf_out_destroy(out);
    }
    assert_true(n > 10);
    lb_tokenizer_destroy(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_lists),  cmocka_unit_test(test_wrong_merges),
        cmocka_unit_test(test_wrong_keys),   cmocka_unit_test(test_large),
        cmocka_unit_test(test_taken),        cmocka_unit_test(test_special),
        cmocka_unit_test(test_missing_keys), cmocka_unit_test(test_beside),
        cmocka_unit_test(test_names),        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
