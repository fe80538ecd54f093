/* Vocabularies of GGUF files. Read: each kind becomes the tokenizer.json that tokenizers made of the same
 * parts (gguf_vocab/, by make_gguf_vocab.py). Written: what comes back from a GGUF cuts hard texts into the
 * ids of Hugging Face's tokenizers (text/, by make_tokenizers.py). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/formats/gguf.h"
#include "common/text/gguf_vocab.h"
#include "common/text/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FIXTURE ((size_t)8 << 20)

static const char *in_tree(const char *folder, const char *name, const char *end) {
    static char path[1024];
    assert_non_null(getenv("LB_SOURCE_ROOT"));
    snprintf(path, sizeof path, "%s/%s/%s%s", getenv("LB_SOURCE_ROOT"), folder, name, end);
    return path;
}

static void must(enum lb_status status, const struct lb_detail *detail, const char *name) {
    if (status != LB_OK) {
        fail_msg("%s: %s", name, detail->text);
    }
}

static json_t *fixture(const char *folder, const char *name, const char *end) {
    struct lb_detail detail = {0};
    json_t *json = NULL;
    must(lb_json_file(in_tree(folder, name, end), MAX_FIXTURE, &json, &detail), &detail, name);
    return json;
}

/* Whether tokenizer cuts the texts of the cases into their ids; "special" of a case: with what is put around.
 */
static void check_cases(const struct lb_tokenizer *tokenizer, const json_t *cases, const char *name) {
    size_t i;
    const json_t *item;
    assert_true(json_array_size(cases) >= 30);
    json_array_foreach(cases, i, item) {
        const char *text = json_string_value(json_object_get(item, "text"));
        const json_t *want = json_object_get(item, "ids");
        struct lb_ids ids = {0};
        struct lb_detail detail = {0};
        must(lb_tokenizer_encode(tokenizer, text, strlen(text),
                                 json_is_true(json_object_get(item, "special")), &ids, &detail),
             &detail, name);
        for (size_t k = 0; k < ids.len && k < json_array_size(want); k++) {
            if (ids.data[k] != json_integer_value(json_array_get(want, k))) {
                fail_msg("%s, case %zu (\"%s\"): ids[%zu] is %d, not %lld", name, i, text, k, ids.data[k],
                         (long long)json_integer_value(json_array_get(want, k)));
            }
        }
        assert_int_equal(ids.len, json_array_size(want));
        lb_free(ids.data);
    }
}

/* ---- reading ---- */

/* A merge as one text, whichever way the file has it. */
static void merge_text(const json_t *merge, char *out, size_t cap) {
    const char *text = json_string_value(merge);
    snprintf(out, cap, text ? "%s" : "%s %s", text ? text : json_string_value(json_array_get(merge, 0)),
             json_string_value(json_array_get(merge, 1)));
}

static bool same_merges(const json_t *a, const json_t *b) {
    char x[512], y[512];
    for (size_t i = 0; i < json_array_size(a); i++) {
        merge_text(json_array_get(a, i), x, sizeof x);
        merge_text(json_array_get(b, i), y, sizeof y);
        if (strcmp(x, y) != 0) {
            return false;
        }
    }
    return json_array_size(a) == json_array_size(b);
}

/* Unigram's: pairs of piece and score. */
static bool same_unigrams(const json_t *a, const json_t *b) {
    for (size_t i = 0; i < json_array_size(a); i++) {
        const json_t *x = json_array_get(a, i), *y = json_array_get(b, i);
        if (!json_equal(json_array_get(x, 0), json_array_get(y, 0)) ||
            fabs(json_number_value(json_array_get(x, 1)) - json_number_value(json_array_get(y, 1))) > 1e-12) {
            return false;
        }
    }
    return json_array_size(a) == json_array_size(b);
}

static bool same_part(const char *key, const json_t *a, const json_t *b) {
    if (!strcmp(key, "merges")) {
        return same_merges(a, b);
    }
    return !strcmp(key, "vocab") && json_is_array(a) ? same_unigrams(a, b)
                                                     : json_equal((json_t *)a, (json_t *)b);
}

static void compare_objects(const char *name, const json_t *have, json_t *want) {
    const char *key;
    json_t *value;
    json_object_foreach(want, key, value) {
        const json_t *other = json_object_get(have, key);
        if (!strcmp(key, "model")) {
            compare_objects(name, other, value);
        } else if (!other || !same_part(key, other, value)) {
            fail_msg("%s: \"%s\" is another one", name, key);
        }
    }
    assert_int_equal(json_object_size(have), json_object_size(want));
}

static void test_json(void **state) {
    static const char *const names[] = {"llama", "scores", "gemma", "default", "bert", "t5", "mapped"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct lb_detail detail = {0};
        struct lb_gguf *file = NULL;
        struct lb_gguf_ids ids;
        struct lb_buf text;
        json_t *have = NULL, *want = fixture("tests/golden/gguf_vocab", names[i], ".json");
        lb_buf_init(&text, MAX_FIXTURE);
        must(lb_gguf_open_keys(in_tree("tests/golden/gguf_vocab", names[i], ".gguf"), &file, &detail),
             &detail, names[i]);
        must(lb_gguf_vocab_json(file, names[i], &text, &ids, &detail), &detail, names[i]);
        must(lb_json_parse(text.data, text.len, 0, names[i], &have, &detail), &detail, names[i]);
        compare_objects(names[i], have, want);
        json_decref(have);
        json_decref(want);
        lb_buf_finish(&text);
        lb_gguf_destroy(file);
    }
}

static void test_read(void **state) {
    static const struct {
        const char *name;
        int32_t bos, eos;
    } files[] = {{"llama", 1, 2}, {"scores", 1, 2}, {"gemma", 2, 1},  {"default", 420, 420},
                 {"bert", 2, -1}, {"t5", -1, 1},    {"mapped", -1, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct lb_detail detail = {0};
        struct lb_tokenizer *tokenizer = NULL, *other = NULL;
        const char *name = files[i].name;
        json_t *cases = fixture("tests/golden/gguf_vocab", name, ".cases.json");
        must(lb_tokenizer_open(in_tree("tests/golden/gguf_vocab", name, ".json"), &other, &detail), &detail,
             name);
        must(lb_tokenizer_open(in_tree("tests/golden/gguf_vocab", name, ".gguf"), &tokenizer, &detail),
             &detail, name);
        check_cases(tokenizer, cases, name);
        assert_string_equal(lb_tokenizer_fingerprint(tokenizer), lb_tokenizer_fingerprint(other));
        assert_int_equal(lb_tokenizer_bos(tokenizer), files[i].bos);
        assert_int_equal(lb_tokenizer_eos(tokenizer), files[i].eos);
        lb_tokenizer_destroy(tokenizer);
        lb_tokenizer_destroy(other);
        json_decref(cases);
    }
}

/* ---- writing ---- */

/* The GGUF vocabulary of tokenizer, read back; n_rows of the model. Status of writing. */
static enum lb_status through_gguf(const struct lb_tokenizer *tokenizer, int64_t n_rows, char *pre,
                                   struct lb_tokenizer **out, struct lb_detail *detail) {
    struct lb_gguf_out *writer = lb_gguf_out_create();
    struct lb_gguf *file = NULL;
    struct lb_buf bytes;
    lb_buf_init(&bytes, MAX_FIXTURE);
    enum lb_status status = lb_tokenizer_put_gguf(tokenizer, n_rows, writer, detail);
    if (status == LB_OK) {
        must(lb_gguf_encode(writer, &bytes, detail), detail, "encode");
        must(lb_gguf_parse(bytes.data, bytes.len, "written", &file, detail), detail, "parse");
        assert_int_equal(lb_gguf_array_count(file, "tokenizer.ggml.tokens"), n_rows);
        const char *name = lb_gguf_string(file, "tokenizer.ggml.pre");
        snprintf(pre, 32, "%s", name ? name : "");
        must(lb_tokenizer_from_gguf(file, "written", out, detail), detail, "read");
    }
    lb_gguf_destroy(file);
    lb_gguf_out_destroy(writer);
    lb_buf_finish(&bytes);
    return status;
}

static void test_write(void **state) {
    static const struct {
        const char *folder, *name, *cases, *pre;
    } files[] = {{"tests/golden/text", "gpt2", "gpt2", "gpt-2"},
                 {"tests/golden/text", "llama3", "llama3", "llama-bpe"},
                 {"tests/golden/text", "starcoder", "starcoder", "smollm"},
                 {"tests/golden/text", "deepseek", "deepseek", "deepseek-v3"},
                 {"tests/golden/text", "falcon", "falcon", "falcon"},
                 {"tests/golden/text", "bloom", "bloom", "bloom"},
                 {"tests/golden/text", "o200k", "o200k", "gpt-4o"},
                 {"tests/golden/gguf_vocab", "default", NULL, "default"},
                 {"tests/golden/gguf_vocab", "llama", NULL, "default"},
                 {"tests/golden/gguf_vocab", "scores", NULL, "default"},
                 {"tests/golden/gguf_vocab", "gemma", NULL, "default"},
                 {"tests/golden/gguf_vocab", "bert", NULL, ""},
                 {"tests/golden/gguf_vocab", "mapped", NULL, "default"},
                 {"examples/wordnet", "tokenizer", "wordnet", "gpt-2"}};
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct lb_detail detail = {0};
        struct lb_tokenizer *tokenizer = NULL, *again = NULL;
        const char *name = files[i].name;
        char pre[32] = "";
        json_t *cases = files[i].cases ? fixture("tests/golden/text", files[i].cases, ".cases.json")
                                       : fixture(files[i].folder, name, ".cases.json");
        must(lb_tokenizer_open(in_tree(files[i].folder, name, ".json"), &tokenizer, &detail), &detail, name);
        int32_t size = lb_tokenizer_vocab_size(tokenizer);
        must(through_gguf(tokenizer, size + i % 3, pre, &again, &detail), &detail, name);
        assert_string_equal(pre, files[i].pre);
        assert_int_equal(lb_tokenizer_vocab_size(again), size); /* rows that no token has are none */
        check_cases(again, cases, name);
        lb_tokenizer_destroy(tokenizer);
        lb_tokenizer_destroy(again);
        json_decref(cases);
    }
}

/* What a GGUF cannot say is refused in one line. */
static void test_refused(void **state) {
    static const struct {
        const char *name, *says;
    } files[] = {
        {"qwen", "looked for in normalized text"}, {"roberta", "minds what stands beside it"},
        {"with_previous", "tokenizer.ggml.pre"},   {"with_next", "tokenizer.ggml.pre"},
        {"contiguous", "tokenizer.ggml.pre"},      {"removed", "tokenizer.ggml.pre"},
        {"flags", "minds what stands beside it"},  {"albert", "Unigram model has not T5's normalizer"}};
    (void)state;
    struct lb_tokenizer *tokenizer = NULL, *again = NULL;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct lb_detail detail = {0};
        char pre[32];
        must(lb_tokenizer_open(in_tree("tests/golden/text", files[i].name, ".json"), &tokenizer, &detail),
             &detail, files[i].name);
        assert_int_equal(through_gguf(tokenizer, 1000, pre, &again, &detail), LB_E_UNSUPPORTED);
        if (!strstr(detail.text, files[i].says) || !strstr(detail.text, "--no-vocabulary")) {
            fail_msg("%s: %s", files[i].name, detail.text);
        }
        detail = (struct lb_detail){0};
        assert_int_equal(
            through_gguf(tokenizer, lb_tokenizer_vocab_size(tokenizer) - 1, pre, &again, &detail),
            LB_E_MISMATCH);
        lb_tokenizer_destroy(tokenizer);
    }
}

/* With NFC, as Qwen's own files have it. */
static void test_nfc(void **state) {
    (void)state;
    struct lb_detail detail = {0};
    struct lb_tokenizer *tokenizer = NULL, *again = NULL;
    struct lb_buf text;
    char pre[32];
    size_t i;
    json_t *root = fixture("tests/golden/text", "qwen", ".json"), *added;
    lb_buf_init(&text, MAX_FIXTURE);
    json_array_foreach(json_object_get(root, "added_tokens"), i, added) {
        json_object_set_new(added, "normalized", json_false());
    }
    assert_int_equal(lb_json_dump(root, 0, &text), LB_OK);
    must(lb_tokenizer_parse(text.data, text.len, "qwen", &tokenizer, &detail), &detail, "qwen");
    must(through_gguf(tokenizer, lb_tokenizer_vocab_size(tokenizer), pre, &again, &detail), &detail, "qwen");
    assert_string_equal(pre, "qwen2");
    assert_string_equal(lb_tokenizer_fingerprint(tokenizer), lb_tokenizer_fingerprint(again));
    lb_tokenizer_destroy(tokenizer);
    lb_tokenizer_destroy(again);
    lb_buf_finish(&text);
    json_decref(root);
}

/* Tokens looked for in text that is all small letters, or has a space put before it: their own bytes never
 * come there. */
static void test_normalized(void **state) {
    static const char *const names[] = {"bert", "llama"};
    (void)state;
    for (size_t f = 0; f < sizeof names / sizeof names[0]; f++) {
        struct lb_detail detail = {0};
        struct lb_tokenizer *tokenizer = NULL, *again = NULL;
        struct lb_buf text;
        char pre[32];
        json_t *root = fixture("tests/golden/gguf_vocab", names[f], ".json");
        json_t *added = json_array_get(json_object_get(root, "added_tokens"), 0);
        lb_buf_init(&text, MAX_FIXTURE);
        json_object_set_new(added, "normalized", json_true());
        assert_int_equal(lb_json_dump(root, 0, &text), LB_OK);
        must(lb_tokenizer_parse(text.data, text.len, names[f], &tokenizer, &detail), &detail, names[f]);
        assert_int_equal(through_gguf(tokenizer, lb_tokenizer_vocab_size(tokenizer), pre, &again, &detail),
                         LB_E_UNSUPPORTED);
        assert_non_null(strstr(detail.text, "is looked for in normalized text"));
        lb_tokenizer_destroy(tokenizer);
        lb_buf_finish(&text);
        json_decref(root);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),    cmocka_unit_test(test_read), cmocka_unit_test(test_write),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_nfc),  cmocka_unit_test(test_normalized),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
