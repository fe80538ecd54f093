/* Texts that begin with a token of their own (bos): each does, each row does, and predicting it never counts.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/support/scratch.h"
#include "tests/support/tiny_model.h"
#include "tests/support/tiny_tokenizer.h"
#include "trainer/data/dataset.h"
#include "trainer/run/evaluate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EOS 0
#define BOS 257

/* <eos> 0, bytes behind it, <bos> 257. begins: the template says so; knows: it has the token at all. */
static struct lb_tokenizer *make_tokenizer(bool begins, bool knows) {
    struct lb_buf json;
    struct lb_detail detail = {0};
    struct lb_tokenizer *out = NULL;
    lb_buf_init(&json, 1 << 16);
    tiny_tokenizer_adding(&json, NULL, 0, begins ? TINY_GPT2 TINY_BEGINS : TINY_GPT2, "",
                          knows ? TINY_BOS : "");
    if (lb_tokenizer_parse(json.data, json.len, "tiny", &out, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    lb_buf_finish(&json);
    return out;
}

static enum lb_status open_text(const char *text, struct lb_tokenizer *tokenizer, enum lb_add_bos add_bos,
                                int64_t max_length, int64_t max_tokens, bool keep_short,
                                struct lb_dataset **out, struct lb_detail *detail) {
    char *path = lb_path_join(lb_scratch, "a.txt");
    const struct lb_recipe recipe = {.directory = lb_scratch, .max_length = max_length};
    const struct lb_recipe_dataset entry = {
        .path = "a.txt", .type = LB_DATA_TEXT, .tag = "x", .max_tokens = max_tokens};
    assert_int_equal(lb_file_replace(path, text, strlen(text), NULL), LB_OK);
    lb_free(path);
    enum lb_status status = add_bos != LB_BOS_AS_TOKENIZER
                                ? lb_tokenizer_add_bos(tokenizer, add_bos == LB_BOS_YES, detail)
                                : LB_OK;
    return status != LB_OK ? status
                           : lb_dataset_open(&recipe, &entry, 1, keep_short, tokenizer, 0, NULL, out, detail);
}

/* '.' ends a text, '^' begins one; a space behind a label: it does not count. */
static void expect_row(const struct lb_dataset *data, int64_t i, const char *text) {
    struct lb_sample s;
    char is[64] = "";
    size_t at = 0;
    assert_int_equal(lb_dataset_get(data, i, &s, NULL), LB_OK);
    for (int64_t t = 0; t <= s.n; t++) {
        is[at++] = (char)(s.ids[t] == EOS ? '.' : s.ids[t] == BOS ? '^' : s.ids[t] - 1);
        if (t > 0 && !lb_sample_counts(&s, t - 1)) {
            is[at++] = ' ';
        }
    }
    assert_string_equal(is, text);
}

static void rows_begin(void **state) {
    (void)state;
    static const char text[] = "ab\ncde\nthf\n"; /* ^ab.^cde.^thf. */
    struct lb_tokenizer *tokenizer = make_tokenizer(true, true);
    struct lb_dataset *data = NULL;
    assert_int_equal(open_text(text, tokenizer, LB_BOS_AS_TOKENIZER, 4, 0, false, &data, NULL), LB_OK);
    assert_int_equal(lb_dataset_count(data), 3);
    expect_row(data, 0, "^ab.^ ");
    expect_row(data, 1, "^cde.");
    expect_row(data, 2, "^thf.");
    assert_int_equal(lb_dataset_bytes(data, -1), 11); /* each letter, and the lines' ends */
    assert_int_equal(lb_dataset_bytes(data, 0), 11);
    struct lb_sample s;
    assert_int_equal(lb_dataset_get(data, 0, &s, NULL), LB_OK);
    assert_int_equal(lb_sample_counted(&s), 3);
    lb_dataset_destroy(data);
    /* cut within texts: what goes on begins, too; a short last row is for evaluation only */
    assert_int_equal(open_text(text, tokenizer, LB_BOS_YES, 3, 0, true, &data, NULL), LB_OK);
    assert_int_equal(lb_dataset_count(data), 4);
    expect_row(data, 0, "^ab.");
    expect_row(data, 1, "^cde");
    expect_row(data, 2, "^.^ t");
    expect_row(data, 3, "^hf.");
    assert_int_equal(lb_dataset_bytes(data, -1), 11);
    lb_dataset_destroy(data);
    lb_tokenizer_destroy(tokenizer);
}

static void the_recipe_overrides(void **state) {
    (void)state;
    static const char text[] = "ab\ncd\n";
    struct lb_tokenizer *begins = make_tokenizer(true, true), *knows = make_tokenizer(false, true),
                        *lacks = make_tokenizer(false, false);
    struct lb_dataset *data = NULL;
    struct lb_detail detail = {0};
    struct lb_sample s;
    assert_int_equal(open_text(text, knows, LB_BOS_AS_TOKENIZER, 4, 0, true, &data, NULL), LB_OK);
    expect_row(data, 0, "ab.cd");
    assert_int_equal(lb_dataset_get(data, 0, &s, NULL), LB_OK);
    assert_null(s.counts);
    lb_dataset_destroy(data);
    assert_int_equal(open_text(text, begins, LB_BOS_NO, 4, 0, true, &data, NULL), LB_OK);
    expect_row(data, 0, "ab.cd");
    expect_row(data, 1, "d.");
    lb_dataset_destroy(data);
    assert_int_equal(open_text(text, knows, LB_BOS_YES, 4, 0, true, &data, NULL), LB_OK);
    expect_row(data, 0, "^ab.^ ");
    expect_row(data, 1, "^cd.");
    lb_dataset_destroy(data);
    assert_int_equal(open_text(text, lacks, LB_BOS_YES, 4, 0, true, &data, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "add_bos_token: true"));
    lb_tokenizer_destroy(begins);
    lb_tokenizer_destroy(knows);
    lb_tokenizer_destroy(lacks);
}

static void max_tokens_counts_what_counts(void **state) {
    (void)state;
    struct lb_tokenizer *tokenizer = make_tokenizer(true, true);
    struct lb_dataset *data = NULL;
    assert_int_equal(open_text("ab\ncd\nef\n", tokenizer, LB_BOS_AS_TOKENIZER, 12, 7, true, &data, NULL),
                     LB_OK);
    assert_int_equal(lb_dataset_count(data), 1);
    expect_row(data, 0, "^ab.^ cd.^ e");
    assert_int_equal(lb_dataset_bytes(data, -1), 7);
    lb_dataset_destroy(data);
    enum { LINES = 10000 }; /* more than are read before it is looked whether that is enough */
    static char many[3 * LINES + 1];
    for (int i = 0; i < LINES; i++) {
        memcpy(many + 3 * i, "ab\n", 4);
    }
    assert_int_equal(open_text(many, tokenizer, LB_BOS_AS_TOKENIZER, 12, 3 * LINES - 1, true, &data, NULL),
                     LB_OK);
    assert_int_equal(lb_dataset_bytes(data, -1), 3 * LINES - 1);
    lb_dataset_destroy(data);
    lb_tokenizer_destroy(tokenizer);
}

/* The same ids with other labels counting are other data. */
static void fingerprint_sees_what_counts(void **state) {
    (void)state;
    struct lb_tokenizer *tokenizer = make_tokenizer(true, true);
    struct lb_dataset *begun = NULL, *written = NULL;
    assert_int_equal(open_text("ab\ncd\n", tokenizer, LB_BOS_AS_TOKENIZER, 7, 0, true, &begun, NULL), LB_OK);
    assert_int_equal(open_text("<bos>ab\n<bos>cd\n", tokenizer, LB_BOS_NO, 7, 0, true, &written, NULL),
                     LB_OK);
    expect_row(begun, 0, "^ab.^ cd.");
    expect_row(written, 0, "^ab.^cd.");
    assert_string_not_equal(lb_dataset_fingerprint(begun), lb_dataset_fingerprint(written));
    lb_dataset_destroy(begun);
    lb_dataset_destroy(written);
    lb_tokenizer_destroy(tokenizer);
}

/* Nothing is added for what does not count: the sums are those of the counted positions of the same rows. */
static void evaluation_counts_the_text(void **state) {
    (void)state;
    struct lb_tokenizer *tokenizer = make_tokenizer(true, true);
    struct lb_dataset *begun = NULL, *written = NULL;
    struct lb_config config;
    struct lb_model *model = NULL;
    struct lb_evaluation counted, all;
    double nats = 0;
    lb_tiny_llama(&config);
    config.vocab_size = 258;
    assert_int_equal(lb_model_create(&config, 3, &model, NULL), LB_OK);
    assert_int_equal(open_text("ab\ncd\nefgh\n", tokenizer, LB_BOS_YES, 15, 0, true, &begun, NULL), LB_OK);
    assert_int_equal(
        open_text("<bos>ab\n<bos>cd\n<bos>efgh\n", tokenizer, LB_BOS_NO, 15, 0, true, &written, NULL), LB_OK);
    assert_int_equal(lb_evaluate(model, begun, NULL, &counted, NULL), LB_OK);
    assert_int_equal(lb_evaluate(model, written, NULL, &all, NULL), LB_OK);
    assert_int_equal(counted.all.tokens, 11);
    assert_int_equal(counted.part[0].tokens, 11);
    assert_int_equal(counted.all.bytes, 11);
    assert_int_equal(all.all.tokens, 13);
    /* What is between the two: the two labels <bos>, each predicted at the end of a text. */
    static const int64_t lengths[] = {4, 8};
    for (int i = 0; i < 2; i++) {
        struct lb_evaluation longer, shorter;
        struct lb_dataset *cut = NULL;
        for (int k = 0; k < 2; k++) {
            assert_int_equal(open_text("<bos>ab\n<bos>cd\n<bos>efgh\n", tokenizer, LB_BOS_NO, 15,
                                       lengths[i] - k, true, &cut, NULL),
                             LB_OK);
            assert_int_equal(lb_evaluate(model, cut, NULL, k == 0 ? &longer : &shorter, NULL), LB_OK);
            lb_dataset_destroy(cut);
        }
        nats += longer.all.nats - shorter.all.nats;
    }
    assert_true(nats > 1);
    assert_true(fabs(all.all.nats - nats - counted.all.nats) < 1e-5 * all.all.nats);
    lb_dataset_destroy(begun);
    lb_dataset_destroy(written);
    lb_model_destroy(model);
    lb_tokenizer_destroy(tokenizer);
}

static void memory_runs_out(void **state) {
    (void)state;
    struct lb_tokenizer *tokenizer = make_tokenizer(true, true);
    for (int64_t i = 1;; i++) {
        struct lb_dataset *data = NULL;
        char *path = lb_path_join(lb_scratch, "a.txt");
        const struct lb_recipe recipe = {.directory = lb_scratch, .max_length = 4};
        const struct lb_recipe_dataset entry = {.path = "a.txt", .type = LB_DATA_TEXT, .tag = "x"};
        assert_int_equal(lb_file_replace(path, "ab\ncd\n", 6, NULL), LB_OK);
        lb_free(path);
        lb_mem_fail_from(i);
        enum lb_status status = lb_dataset_open(&recipe, &entry, 1, true, tokenizer, 0, NULL, &data, NULL);
        lb_mem_fail_from(0);
        lb_dataset_destroy(data);
        if (status == LB_OK) {
            assert_true(i > 8);
            break;
        }
        assert_int_equal(status, LB_E_NOMEM);
    }
    lb_tokenizer_destroy(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_begin),
        cmocka_unit_test(the_recipe_overrides),
        cmocka_unit_test(max_tokens_counts_what_counts),
        cmocka_unit_test(fingerprint_sees_what_counts),
        cmocka_unit_test(evaluation_counts_the_text),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, lb_scratch_make, lb_scratch_remove);
}
