/* Tokenizers of many kinds against Hugging Face's: the same ids, the same text back, with and without special
 * tokens. The fixtures are made by make_tokenizers.py. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FIXTURE ((size_t)8 << 20)
#define LONG_LINE ((size_t)1 << 20)

struct fixture {
    struct lb_tokenizer *tokenizer;
    json_t *cases;
};

static void open_fixture(struct fixture *f, const char *name, const char *tokenizer) {
    const char *root = getenv("LB_SOURCE_ROOT");
    char path[1024];
    struct lb_detail detail = {0};
    assert_non_null(root);
    snprintf(path, sizeof path, "%s/%s", root, tokenizer);
    if (lb_tokenizer_open(path, &f->tokenizer, &detail)) {
        fail_msg("%s", detail.text);
    }
    snprintf(path, sizeof path, "%s/tests/golden/text/%s.cases.json", root, name);
    if (lb_json_file(path, MAX_FIXTURE, &f->cases, &detail)) {
        fail_msg("%s", detail.text);
    }
    assert_true(json_array_size(f->cases) >= 30);
}

static void close_fixture(struct fixture *f) {
    lb_tokenizer_destroy(f->tokenizer);
    json_decref(f->cases);
}

static void check_text(const struct fixture *f, const char *name, size_t number, const json_t *item,
                       const struct lb_ids *ids, bool skip, const char *key) {
    struct lb_buf text;
    struct lb_detail detail = {0};
    const char *want = json_string_value(json_object_get(item, key));
    assert_non_null(want);
    lb_buf_init(&text, MAX_FIXTURE);
    if (lb_tokenizer_decode(f->tokenizer, ids->data, ids->len, skip, &text, &detail)) {
        fail_msg("%s, case %zu: %s", name, number, detail.text);
    }
    size_t len = json_string_length(json_object_get(item, key));
    if (text.len != len || (text.len && memcmp(text.data, want, len) != 0)) {
        fail_msg("%s, case %zu, %s: \"%.*s\" where \"%s\" is right", name, number, key, (int)text.len,
                 text.len ? text.data : "", want);
    }
    lb_buf_finish(&text);
}

static void check_case(const struct fixture *f, const char *name, size_t number, const json_t *item) {
    const char *text = json_string_value(json_object_get(item, "text"));
    size_t text_len = json_string_length(json_object_get(item, "text"));
    const json_t *want = json_object_get(item, "ids");
    bool special = json_is_true(json_object_get(item, "special"));
    struct lb_ids ids = {0};
    struct lb_detail detail = {0};
    assert_non_null(text);
    if (lb_tokenizer_encode(f->tokenizer, text, text_len, special, &ids, &detail)) {
        fail_msg("%s, case %zu: %s", name, number, detail.text);
    }
    for (size_t i = 0; i < ids.len && i < json_array_size(want); i++) {
        int32_t right = (int32_t)json_integer_value(json_array_get(want, i));
        if (ids.data[i] != right) {
            fail_msg("%s, case %zu (\"%s\"): ids[%zu] is %d (%s), not %d (%s)", name, number, text, i,
                     ids.data[i], lb_tokenizer_token(f->tokenizer, ids.data[i]), right,
                     lb_tokenizer_token(f->tokenizer, right));
        }
    }
    if (ids.len != json_array_size(want)) {
        fail_msg("%s, case %zu (\"%s\"): %zu ids, not %zu", name, number, text, ids.len,
                 json_array_size(want));
    }
    check_text(f, name, number, item, &ids, false, "decoded");
    check_text(f, name, number, item, &ids, true, "skipped");
    lb_free(ids.data);
}

static void check(const char *name, const char *tokenizer) {
    struct fixture f;
    open_fixture(&f, name, tokenizer);
    for (size_t i = 0; i < json_array_size(f.cases); i++) {
        check_case(&f, name, i, json_array_get(f.cases, i));
    }
    close_fixture(&f);
}

static void test_wordnet(void **state) {
    (void)state;
    check("wordnet", "examples/wordnet/tokenizer.json");
}

static void test_families(void **state) {
    static const char *const names[] = {"gpt2",     "llama3", "ignore_merges", "qwen",  "o200k",
                                        "deepseek", "falcon", "starcoder",     "bloom", "roberta"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[64];
        snprintf(path, sizeof path, "tests/golden/text/%s.json", names[i]);
        check(names[i], path);
    }
}

/* SentencePiece's, WordPiece, Unigram, and what stands before and behind them. */
static void test_more(void **state) {
    static const char *const names[] = {"llama2", "mistral",    "gemma", "clip", "words", "kimi",
                                        "bert",   "bert_cased", "t5",    "xlmr", "albert"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[64];
        snprintf(path, sizeof path, "tests/golden/text/%s.json", names[i]);
        check(names[i], path);
    }
}

static void test_options(void **state) {
    static const char *const names[] = {"flags", "with_previous", "with_next", "contiguous", "removed"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[64];
        snprintf(path, sizeof path, "tests/golden/text/%s.json", names[i]);
        check(names[i], path);
    }
}

/* Fingerprints are in caches, checkpoints and on the wire: those of files that were read before stay. */
static void test_fingerprints(void **state) {
    static const struct {
        const char *file, *fingerprint;
    } cases[] = {
        {"tests/golden/text/gpt2.json", "bc933eb19d3a88745a5daf2922a02241fabddc43fbc615977570bb780bda28df"},
        {"tests/golden/text/falcon.json", "bca88d2e87b7a5a27e91987d3b2b8a1c42dae76dc5eacfeeee6a92115e9aeaa3"},
        {"tests/golden/text/flags.json", "c094e7c747505758053df7992ef25456fb9ffa243c5475363d4d01e87934ae64"},
        {"tests/golden/text/with_next.json",
         "aaec12274742c4eb0a9480c94272a7f493a969a794cd939a7cf220d5dbc72696"},
        {"examples/wordnet/tokenizer.json",
         "6ef04cba69fc4ee9cce3436b5bdf2f3246196d8d82e527f32180f94473435771"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[1024];
        struct lb_tokenizer *t = NULL;
        snprintf(path, sizeof path, "%s/%s", getenv("LB_SOURCE_ROOT"), cases[i].file);
        assert_int_equal(lb_tokenizer_open(path, &t, NULL), LB_OK);
        assert_string_equal(lb_tokenizer_fingerprint(t), cases[i].fingerprint);
        lb_tokenizer_destroy(t);
    }
}

/* Lines without a space cost what their length is: with the square of it, this would take hours. */
static void test_long(void **state) {
    static const char *const names[] = {"gpt2",  "llama3", "o200k", "with_next", "llama2", "mistral", "clip",
                                        "words", "kimi",   "bert",  "t5",        "xlmr",   "albert"};
    static const char *const units[] = {"a", "A", "7", "\u0301\u0323", "\u2581", "\U0001fae8", "  ", "'"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct fixture f;
        char path[64];
        snprintf(path, sizeof path, "tests/golden/text/%s.json", names[i]);
        open_fixture(&f, names[i], path);
        for (size_t k = 0; k < sizeof units / sizeof units[0]; k++) {
            struct lb_buf line;
            struct lb_ids ids = {0};
            struct lb_detail detail = {0};
            lb_buf_init(&line, MAX_FIXTURE);
            lb_buf_append_str(&line, "x");
            while (line.len < LONG_LINE) {
                lb_buf_append_str(&line, units[k]);
            }
            if (lb_tokenizer_encode(f.tokenizer, line.data, line.len, false, &ids, &detail)) {
                fail_msg("%s, \"%s\": %s", names[i], units[k], detail.text);
            }
            assert_true(ids.len > 0);
            lb_free(ids.data);
            lb_buf_finish(&line);
        }
        close_fixture(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wordnet), cmocka_unit_test(test_families),     cmocka_unit_test(test_options),
        cmocka_unit_test(test_more),    cmocka_unit_test(test_fingerprints), cmocka_unit_test(test_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
