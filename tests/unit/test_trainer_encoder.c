/* What encoders as students need: texts as rows of their own, and recipes that start from a model's layers.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/data/dataset.h"
#include "trainer/recipe/recipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLS 2
#define SEP 3
#define A 28 /* the id of "a"; letters follow */

static char folder[] = "/tmp/limbeck-whole-XXXXXX";
static struct lb_tokenizer *tokenizer;
static struct lb_detail detail;

static enum lb_status open_entry(const char *text, struct lb_recipe_dataset entry, int64_t max_length,
                                 int64_t num_labels, struct lb_dataset **out) {
    const struct lb_recipe recipe = {.directory = folder, .max_length = max_length, .whole_texts = true};
    char path[256];
    snprintf(path, sizeof path, "%s/a.txt", folder);
    assert_int_equal(lb_file_replace(path, text, strlen(text), NULL), LB_OK);
    entry.path = "a.txt";
    detail = (struct lb_detail){0};
    return lb_dataset_open(&recipe, &entry, 1, false, tokenizer, num_labels, NULL, out, &detail);
}

static enum lb_status open_rows(const char *text, int64_t max_length, int64_t max_tokens,
                                struct lb_dataset **out) {
    return open_entry(text, (struct lb_recipe_dataset){.type = LB_DATA_TEXT, .max_tokens = max_tokens},
                      max_length, 0, out);
}

/* Row i holds the letters between the template's tokens. */
static void expect(const struct lb_dataset *data, int64_t i, const char *letters) {
    struct lb_sample s;
    assert_int_equal(lb_dataset_get(data, i, &s, NULL), LB_OK);
    int64_t n = (int64_t)strlen(letters);
    assert_int_equal(s.n, n + 2);
    assert_int_equal(s.ids[0], CLS);
    assert_int_equal(s.ids[n + 1], SEP);
    for (int64_t t = 0; t < n; t++) {
        assert_int_equal(s.ids[t + 1], A + letters[t] - 'a');
    }
    assert_int_equal(lb_sample_counted(&s), s.n); /* every position has a state */
}

/* So many tokens as max_tokens says, also where most of each text is cut off. */
static void test_max_tokens(void **state) {
    (void)state;
    enum { LINES = 20000, ROWS = 12000 };
    static const char line[] = "a b c d e f g\n";
    struct lb_dataset *data = NULL;
    struct lb_buf text;
    lb_buf_init(&text, (size_t)1 << 24);
    for (int i = 0; i < LINES; i++) {
        lb_buf_append_str(&text, line);
    }
    assert_int_equal(lb_buf_append(&text, "", 1), LB_OK);
    assert_int_equal(open_rows(text.data, 4, 4 * ROWS, &data), LB_OK);
    assert_int_equal(lb_dataset_count(data), ROWS);
    lb_dataset_destroy(data);
    lb_buf_finish(&text);
}

static void test_rows(void **state) {
    (void)state;
    struct lb_dataset *data = NULL;
    assert_int_equal(open_rows("a b c\nd\n\ne f g a b c\n", 6, 0, &data), LB_OK);
    assert_int_equal(lb_dataset_count(data), 3);
    expect(data, 0, "abc");
    expect(data, 1, "d");
    expect(data, 2, "efga"); /* cut, and ended all the same */
    assert_int_equal(lb_dataset_shortened(data), 1);
    lb_dataset_destroy(data);
    assert_int_equal(open_rows("a b c\nd\ne f\n", 6, 7, &data), LB_OK); /* 5 tokens, then 3: enough */
    assert_int_equal(lb_dataset_count(data), 2);
    lb_dataset_destroy(data);
    assert_int_equal(open_rows("a\n", 2, 0, &data), LB_E_ARG);
    assert_non_null(strstr(detail.text, "2 tokens around each text"));
}

/* Lines of JSON as datasets of classes have them. */
static enum lb_status open_labelled(const char *text, const char *label_field, struct lb_dataset **out) {
    return open_entry(text, (struct lb_recipe_dataset){.type = LB_DATA_JSONL, .label_field = label_field}, 6,
                      3, out);
}

static int32_t label_of(const struct lb_dataset *data, int64_t i) {
    struct lb_sample s;
    assert_int_equal(lb_dataset_get(data, i, &s, NULL), LB_OK);
    return s.label;
}

static void not_labelled(const char *text, const char *why) {
    struct lb_dataset *data = NULL;
    assert_int_not_equal(open_labelled(text, NULL, &data), LB_OK);
    if (strstr(detail.text, why) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", detail.text, why);
    }
}

static void test_label_numbers(void **state) {
    (void)state;
    struct lb_dataset *data = NULL;
    char prints[2][65];
    static const char text[] = "{\"text\": \"a b c d e f g\", \"label\": 2}\n{\"label\": 0, \"text\": \"\"}\n"
                               "{\"text\": \"b\", \"label\": 1}\n{\"text\": \"c\", \"label\": null}\n"
                               "{\"text\": \"d\", \"label\": -1}\n{\"text\": \"e\"}\n";
    assert_int_equal(open_labelled(text, NULL, &data), LB_OK);
    assert_int_equal(lb_dataset_count(data), 5); /* the empty text went, its label with it */
    static const int32_t want[] = {2, 1, -1, -1, -1};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(label_of(data, i), want[i]);
    }
    assert_int_equal(lb_dataset_unlabelled(data), 3);
    snprintf(prints[0], 65, "%s", lb_dataset_fingerprint(data));
    lb_dataset_destroy(data);
    assert_int_equal(open_labelled("{\"text\": \"a b c d e f g\", \"kind\": 2}\n", "kind", &data), LB_OK);
    assert_int_equal(label_of(data, 0), 2);
    snprintf(prints[0], 65, "%s", lb_dataset_fingerprint(data));
    lb_dataset_destroy(data);
    assert_int_equal(open_labelled("{\"text\": \"a b c d e f g\", \"kind\": 1}\n", "kind", &data), LB_OK);
    snprintf(prints[1], 65, "%s", lb_dataset_fingerprint(data));
    assert_string_not_equal(prints[0], prints[1]); /* labels are part of the data */
    lb_dataset_destroy(data);
    assert_int_equal(open_entry("a b\n", (struct lb_recipe_dataset){.type = LB_DATA_TEXT}, 6, 3, &data),
                     LB_OK);
    assert_int_equal(label_of(data, 0), -1);
    lb_dataset_destroy(data);
    not_labelled("{\"text\": \"a\", \"label\": 3}\n",
                 "a.txt:1: the line: label is 3, the model has num_labels 3");
    not_labelled("{\"text\": \"a\", \"label\": -2}\n", "label is -2");
    not_labelled("{\"text\": \"a\", \"label\": 0.5}\n", "neither a class's number nor its name");
    not_labelled("{\"text\": \"a\", \"label\": [1]}\n", "neither a class's number nor its name");
}

static void test_label_names(void **state) {
    (void)state;
    struct lb_dataset *data = NULL;
    struct lb_labels labels;
    static const char text[] =
        "{\"text\": \"a\", \"label\": \"hot\"}\n{\"text\": \"b\"}\n"
        "{\"text\": \"c\", \"label\": \"cold\"}\n{\"text\": \"d\", \"label\": \"hot\"}\n";
    assert_int_equal(lb_labels_init(&labels, 3), LB_OK);
    assert_int_equal(lb_labels_name(&labels, 0, "cold") | lb_labels_name(&labels, 2, "hot"), LB_OK);
    assert_int_equal(open_labelled(text, NULL, &data), LB_OK);
    assert_int_equal(lb_dataset_name_labels(data, &labels, "data", &detail), LB_OK);
    static const int32_t want[] = {2, -1, 0, 2};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(label_of(data, i), want[i]);
    }
    lb_dataset_destroy(data);
    assert_int_equal(lb_labels_name(&labels, 2, "warm"), LB_OK);
    assert_int_equal(open_labelled(text, NULL, &data), LB_OK);
    assert_int_equal(lb_dataset_name_labels(data, &labels, "data", &detail), LB_E_MISMATCH);
    assert_non_null(strstr(detail.text, "data: the label \"hot\" is the name of no class"));
    lb_dataset_destroy(data);
    lb_labels_finish(&labels);
    not_labelled("{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"a\", \"label\": 1}\n",
                 "numbers in some lines");
    not_labelled("{\"text\": \"a\", \"label\": 1}\n{\"text\": \"a\", \"label\": \"x\"}\n",
                 "numbers in some lines");
    not_labelled("{\"text\": \"a\", \"label\": \"hot\\u0000cold\"}\n",
                 "neither a class's number nor its name"); /* not the class "hot" */
    not_labelled("{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"a\", \"label\": \"y\"}\n"
                 "{\"text\": \"a\", \"label\": \"z\"}\n{\"text\": \"a\", \"label\": \"w\"}\n",
                 "\"w\" is one name of a label more than the model's num_labels 3");
}

#define REST                                                                                                 \
    "\ntokenizer: t\nwhole_texts: true\ndatasets: [{path: a.txt}]\nteachers: [{name: t, url: "               \
    "'http://h:1'}]\n"                                                                                       \
    "loss_functions: [{function: embedding_cosine}]\noutput_dir: o\n"

static enum lb_status parse(const char *student, struct lb_recipe **out) {
    char text[1024];
    int len = snprintf(text, sizeof text, "student: %s" REST, student);
    detail = (struct lb_detail){0};
    return lb_recipe_parse(text, (size_t)len, "r.yaml", NULL, 0, out, &detail);
}

static void refused(const char *student, const char *why) {
    struct lb_recipe *recipe = NULL;
    assert_int_equal(parse(student, &recipe), LB_E_ARG);
    if (strstr(detail.text, why) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", detail.text, why);
    }
}

static void test_layers_from(void **state) {
    (void)state;
    struct lb_recipe *recipe = NULL, *again = NULL, *other = NULL;
    char *text = NULL, prints[3][65];
    size_t len = 0;
    if (parse("{layers_from: {model: big, layers: [0, 3]}}", &recipe) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    assert_string_equal(recipe->student.model, "big");
    assert_int_equal(recipe->student.layers_count, 2);
    assert_int_equal(recipe->student.layers[1], 3);
    assert_true(recipe->whole_texts);
    assert_int_equal(lb_recipe_dump(recipe, &text, &len, &detail), LB_OK);
    assert_int_equal(lb_recipe_parse(text, len, "r.yaml", NULL, 0, &again, &detail), LB_OK);
    assert_int_equal(parse("{layers_from: {model: big, layers: [0, 2]}}", &other), LB_OK);
    assert_int_equal(lb_recipe_fingerprint(recipe, prints[0]), LB_OK);
    assert_int_equal(lb_recipe_fingerprint(again, prints[1]), LB_OK);
    assert_int_equal(lb_recipe_fingerprint(other, prints[2]), LB_OK);
    assert_string_equal(prints[0], prints[1]);
    assert_string_not_equal(prints[0], prints[2]); /* which layers decides */
    lb_free(text);
    lb_recipe_destroy(recipe);
    lb_recipe_destroy(again);
    lb_recipe_destroy(other);
    assert_int_equal(parse("{layers_from: {model: big, layers: [0, 3]}, num_labels: 5}", &recipe), LB_OK);
    assert_int_equal(recipe->student.num_labels, 5);
    assert_int_equal(recipe->student.layers_count, 2);
    assert_int_equal(lb_recipe_dump(recipe, &text, &len, &detail), LB_OK);
    assert_int_equal(lb_recipe_parse(text, len, "r.yaml", NULL, 0, &again, &detail), LB_OK);
    assert_int_equal(again->student.num_labels, 5);
    assert_int_equal(lb_recipe_fingerprint(recipe, prints[1]), LB_OK);
    assert_string_not_equal(prints[0], prints[1]);
    lb_free(text);
    lb_recipe_destroy(recipe);
    lb_recipe_destroy(again);
    refused("{layers_from: {model: big, layers: [0]}, num_labels: 0}", "num_labels");
    refused("{layers_from: {model: big}}", "layers_from: needs model: PATH and layers");
    refused("{layers_from: {model: big, layers: []}}", "layers_from");
    refused("{layers_from: {model: big, layers: [0], lairs: 1}}", "lairs");
    refused("{layers_from: {model: big, layers: [-1]}}", "layers");
    refused("{layers_from: {model: big, layers: [0]}, hidden_size: 8}",
            "layers_from brings its own configuration");
    refused("{layers_from: big}", "a mapping {model: PATH");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows), cmocka_unit_test(test_max_tokens), cmocka_unit_test(test_layers_from),
        cmocka_unit_test(test_label_numbers), cmocka_unit_test(test_label_names)};
    char path[512];
    snprintf(path, sizeof path, "%s/tests/golden/text/bert.json", getenv("LB_SOURCE_ROOT"));
    if (!mkdtemp(folder) || lb_tokenizer_open(path, &tokenizer, &detail) != LB_OK) {
        fprintf(stderr, "%s\n", detail.text);
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lb_tokenizer_destroy(tokenizer);
    return lb_remove_tree(folder, NULL) == LB_OK ? failed : 1;
}
