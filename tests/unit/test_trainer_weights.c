/* Weights that records, texts and tables bring, and messages that do not count. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/support/tiny_tokenizer.h"
#include "trainer/data/dataset.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[] = "/tmp/lb-weights-XXXXXX";
static struct lb_tokenizer *tokenizer;

static void put(const char *name, const char *text) {
    char *path = lb_path_join(folder, name);
    assert_int_equal(lb_file_replace(path, text, strlen(text), NULL), LB_OK);
    lb_free(path);
}

static int set_up(void **state) {
    (void)state;
    struct lb_buf json;
    lb_buf_init(&json, 1 << 16);
    tiny_tokenizer_adding(&json, NULL, 0, TINY_GPT2, "", TINY_BOS);
    if (mkdtemp(folder) == NULL ||
        lb_tokenizer_parse(json.data, json.len, "tiny", &tokenizer, NULL) != LB_OK) {
        return -1;
    }
    lb_buf_finish(&json);
    put("plain.jinja", "{% for m in messages %}{{ m.role[0] + ':' + m.content + ';\\n' }}{% endfor %}"
                       "{% if add_generation_prompt %}a:{% endif %}");
    put("blocks.jinja",
        "{% for m in messages %}{{ m.role[0] }}:{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content }};{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}a:{% endif %}");
    put("first.jinja", "{{ messages[0]['role'][0] }}{% for m in messages %}"
                       "{{ m.role[0] + ':' + m.content + ';\\n' }}{% endfor %}"
                       "{% if add_generation_prompt %}a:{% endif %}");
    put("last.jinja", "{% for m in messages %}{% if loop.last %}!{% endif %}{{ m.content }}{% endfor %}");
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    lb_tokenizer_destroy(tokenizer);
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : -1;
}

static struct lb_recipe recipe_of(bool whole) {
    struct lb_recipe recipe = {
        .directory = folder, .max_length = 40, .whole_texts = whole, .chat_template = "plain.jinja"};
    recipe.student.config.num_labels = 3;
    return recipe;
}

static enum lb_status open_file(const char *name, const char *text, const char *weight_field, bool whole,
                                struct lb_dataset **out, struct lb_detail *detail) {
    const struct lb_recipe recipe = recipe_of(whole);
    struct lb_recipe_dataset entry = {.path = name,
                                      .type = lb_ends_with(name, ".csv") ? LB_DATA_CSV : LB_DATA_JSONL,
                                      .weight_field = weight_field};
    put(name, text);
    return lb_dataset_open(&recipe, &entry, 1, false, tokenizer, 0, NULL, out, detail);
}

static void expect_weights(const struct lb_dataset *data, const double *want, int n) {
    assert_int_equal(lb_dataset_count(data), n);
    for (int i = 0; i < n; i++) {
        struct lb_sample s;
        assert_int_equal(lb_dataset_get(data, i, &s, NULL), LB_OK);
        assert_true(lb_sample_weight(&s) == want[i]);
    }
}

#define RECORD(weight) "{\"prompt\": \"p\", \"completion\": \"c\", \"often\": " weight "}\n"
#define TEXT(text, weight) "{\"text\": \"" text "\", \"often\": " weight "}\n"

static void each_kind(void **state) {
    (void)state;
    static const double want[] = {1, 0, 2.5, 1e-9};
    static const char records[] = RECORD("1") RECORD("0") RECORD("2.5") RECORD("1e-9");
    static const char texts[] = TEXT("a", "1") TEXT("b", "0") TEXT("c", "2.5") TEXT("d", "1e-9");
    static const char table[] = "a,often,label\n3,1,0\n4,0,1\n5,2.5,2\n6,1e-9,0\n";
    struct lb_dataset *data = NULL, *plain = NULL;
    assert_int_equal(open_file("a.jsonl", records, "often", false, &data, NULL), LB_OK);
    assert_int_equal(open_file("a.jsonl", records, NULL, false, &plain, NULL), LB_OK);
    expect_weights(data, want, 4);
    expect_weights(plain, (const double[]){1, 1, 1, 1}, 4);
    assert_string_not_equal(lb_dataset_fingerprint(data), lb_dataset_fingerprint(plain));
    lb_dataset_destroy(data);
    lb_dataset_destroy(plain);
    assert_int_equal(open_file("a.jsonl", texts, "often", true, &data, NULL), LB_OK);
    expect_weights(data, want, 4);
    lb_dataset_destroy(data);
    assert_int_equal(open_file("a.csv", table, "often", false, &data, NULL), LB_OK);
    expect_weights(data, want, 4);
    assert_int_equal(lb_dataset_features(data), 1);
    lb_dataset_destroy(data);
}

/* A record that is left out takes its weight with it; so does each that skip_samples passes over. */
static void left_out(void **state) {
    (void)state;
    struct lb_dataset *data = NULL;
    const struct lb_recipe recipe = recipe_of(false);
    static const char text[] = RECORD("2") "{\"prompt\": \"a prompt that is all of forty letters and more\", "
                                           "\"completion\": \"c\", \"often\": 3}\n" RECORD("4");
    assert_int_equal(open_file("a.jsonl", text, "often", false, &data, NULL), LB_OK);
    expect_weights(data, (const double[]){2, 4}, 2);
    assert_false(lb_dataset_weightless(data));
    lb_dataset_destroy(data);
    put("a.csv", "often,a,label\n2,1,0\n3,1,0\n4,1,1\n5,1,0\n");
    put("b.csv", "a,label\n1,2\n");
    int64_t one = 1;
    const struct lb_recipe_dataset entries[] = {{.path = "b.csv", .type = LB_DATA_CSV},
                                                {.path = "a.csv",
                                                 .type = LB_DATA_CSV,
                                                 .weight_field = "often",
                                                 .skip_samples = 1,
                                                 .exclude_labels = &one,
                                                 .exclude_labels_count = 1},
                                                {.path = "b.csv", .type = LB_DATA_CSV}};
    assert_int_equal(lb_dataset_open(&recipe, entries, 3, false, NULL, 0, NULL, &data, NULL), LB_OK);
    expect_weights(data, (const double[]){1, 3, 5, 1}, 4);
    lb_dataset_destroy(data);
}

/* However many threads share the lines. */
static void threads(void **state) {
    (void)state;
    enum { LINES = 9000 };
    int before = omp_get_max_threads();
    struct lb_buf text;
    lb_buf_init(&text, 1 << 20);
    for (int i = 0; i < LINES; i++) {
        char line[80];
        snprintf(line, sizeof line, "{\"prompt\": \"p\", \"completion\": \"c\", \"often\": %d}\n", i);
        lb_buf_append_str(&text, line);
    }
    assert_int_equal(lb_buf_append(&text, "", 1), LB_OK);
    for (int n = 1; n < 6; n += 2) {
        struct lb_dataset *data = NULL;
        omp_set_num_threads(n);
        assert_int_equal(open_file("a.jsonl", text.data, "often", false, &data, NULL), LB_OK);
        for (int i = 0; i < LINES; i++) {
            struct lb_sample s;
            assert_int_equal(lb_dataset_get(data, i, &s, NULL), LB_OK);
            assert_true(lb_sample_weight(&s) == i);
        }
        lb_dataset_destroy(data);
    }
    omp_set_num_threads(before);
    lb_buf_finish(&text);
}

static void refusals(void **state) {
    (void)state;
    static const struct {
        const char *name, *text, *says;
        bool whole;
    } cases[] = {
        {"a.jsonl", RECORD("1") RECORD("-1"), "a.jsonl:2: the line: often: -1 is no weight: it is 0, or from",
         false},
        {"a.jsonl", RECORD("1e10"), "a.jsonl:1: the line: often: 1e+10 is no weight", false},
        {"a.jsonl", RECORD("1e-10"), "a.jsonl:1: the line: often: 1e-10 is no weight", false},
        {"a.jsonl", RECORD("1e999"), "a.jsonl:1", false},
        {"a.jsonl", RECORD("NaN"), "a.jsonl:1", false},
        {"a.jsonl", RECORD("\"1\""), "a.jsonl:1: the line: often is no number", false},
        {"a.jsonl", RECORD("true"), "a.jsonl:1: the line: often is no number", false},
        {"a.jsonl", RECORD("1") "{\"prompt\": \"p\", \"completion\": \"c\"}\n",
         "a.jsonl:2: the line: often is missing (weight_field)", false},
        {"a.jsonl", TEXT("a", "1") "{\"text\": \"b\"}\n", "a.jsonl:2: the line: often is missing", true},
        {"a.jsonl", TEXT("a", "1"), "a.jsonl: weight_field: texts are strung together", false},
        {"a.csv", "a,label\n1,0\n", "a.csv: has no column \"often\" beside the label's and others", false},
        {"a.csv", "often,label\n1,0\n", "a.csv: has no column \"often\" beside the label's and others",
         false},
        {"a.csv", "a,often,often,label\n1,1,1,0\n", "a.csv:1: two columns are called \"often\"", false},
        {"a.csv", "a,often,label\n1,1,0\n1,-2,0\n", "a.csv:3: column often: -2 is no weight", false},
        {"a.csv", "a,often,label\n1,inf,0\n", "a.csv:2: column often: \"inf\" is no number", false},
        {"a.csv", "a,often,label\n1,,0\n", "a.csv:2: column often: \"\" is no number", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lb_dataset *data = NULL;
        struct lb_detail detail = {0};
        enum lb_status status =
            open_file(cases[i].name, cases[i].text, "often", cases[i].whole, &data, &detail);
        if (status == LB_OK || strstr(detail.text, cases[i].says) == NULL) {
            fail_msg("\"%s\" does not say \"%s\"", detail.text, cases[i].says);
        }
    }
}

#define ONE                                                                                                  \
    "{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"no\", \"weight\": "
#define TWO                                                                                                  \
    "}, {\"role\": \"user\", \"content\": \"r\"}, {\"role\": \"assistant\", \"content\": \"yes\", "          \
    "\"weight\": 1}"
#define TALK(weight) "{\"messages\": [" ONE weight TWO "]}\n"
#define SHARED                                                                                               \
    "{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": \"no\", "  \
    "\"weight\": 0}, {\"from\": \"human\", \"value\": \"r\"}, {\"from\": \"gpt\", \"value\": \"yes\"}]}\n"

#define FIRST                                                                                                \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"q\", \"weight\": 0}, {\"role\": \"assistant\", "    \
    "\"content\": \"no\"}]}\n"

static void messages(void **state) {
    (void)state;
    static const struct {
        const char *rows, *template;
        bool assistant_only;
        const char *counts; /* or what is wrong */
    } cases[] = {
        {TALK("1"), "plain.jinja", true, "----- --xxx- ----- --xxxx-"},
        {TALK("0"), "plain.jinja", true, "----- ------ ----- --xxxx-"},
        {TALK("0"), "plain.jinja", false, "-xxxx xx---x xxxxx xxxxxxx"},
        {TALK("1"), "blocks.jinja", true, "--- --xxx --- --xxxx"},
        {TALK("0"), "blocks.jinja", true, "--- ----- --- --xxxx"},
        {SHARED, "plain.jinja", true, "----- ------ ----- --xxxx-"},
        {FIRST, "plain.jinja", false, "----x xxxxxx"},
        {FIRST, "first.jinja", false, "-----x xxxxxx"},
        {FIRST, "first.jinja", true, "------ --xxx-"},
        {TALK("0.5"), "plain.jinja", true, "a.jsonl:1: the line: weight of message 1 is neither 0 nor 1"},
        {TALK("\"0\""), "plain.jinja", true, "a.jsonl:1: the line: weight of message 1 is neither 0 nor 1"},
        {TALK("0"), "last.jinja", false, "a.jsonl:1: which tokens are the assistant's cannot be told"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lb_recipe recipe = recipe_of(false);
        const struct lb_recipe_dataset entry = {.path = "a.jsonl", .type = LB_DATA_JSONL};
        struct lb_dataset *data = NULL;
        struct lb_detail detail = {0};
        struct lb_sample s;
        char is[80] = "", want[80] = "";
        put("a.jsonl", cases[i].rows);
        recipe.chat_template = cases[i].template;
        recipe.assistant_only_loss = cases[i].assistant_only;
        if (lb_dataset_open(&recipe, &entry, 1, false, tokenizer, 0, NULL, &data, &detail) != LB_OK) {
            if (strstr(detail.text, cases[i].counts) == NULL) {
                fail_msg("\"%s\" does not say \"%s\"", detail.text, cases[i].counts);
            }
            continue;
        }
        assert_int_equal(lb_dataset_get(data, 0, &s, NULL), LB_OK);
        for (int64_t t = 0; t <= s.n; t++) {
            is[t] = t > 0 && lb_sample_counts(&s, t - 1) ? 'x' : '-';
        }
        for (size_t from = 0, to = 0; from < strlen(cases[i].counts); from++) {
            want[to] = cases[i].counts[from];
            to += cases[i].counts[from] != ' ';
            want[to] = '\0';
        }
        assert_string_equal(is, want);
        lb_dataset_destroy(data);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind), cmocka_unit_test(left_out), cmocka_unit_test(threads),
        cmocka_unit_test(refusals),  cmocka_unit_test(messages),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
