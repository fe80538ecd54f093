/* Tables of features: rows, labels, and what is wrong with file, line and column. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/mem.h"
#include "trainer/data/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[] = "/tmp/lb-csv-XXXXXX";
static struct lb_recipe recipe = {.directory = folder, .max_length = 4};

static int set_up(void **state) {
    (void)state;
    recipe.student.config.num_labels = 3;
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    return lb_remove_tree(folder, NULL) == LB_OK ? 0 : -1;
}

static enum lb_status open_text(const char *text, size_t len, struct lb_recipe_dataset entry,
                                struct lb_dataset **out, struct lb_detail *detail) {
    char *path = lb_path_join(folder, "t.csv");
    entry.path = "t.csv";
    entry.type = LB_DATA_CSV;
    assert_int_equal(lb_file_replace(path, text, len, NULL), LB_OK);
    lb_free(path);
    return lb_dataset_open(&recipe, &entry, 1, false, NULL, 0, NULL, out, detail);
}

static const char table[] = "\xef\xbb\xbfheight, \"the \"\"kind\"\"\",\"wide, or not\"\r\n"
                            "1.5,0,-2\r\n"
                            "\r\n"
                            "\"2e1\", 2 , 3\r\n"
                            "7,1,.25"; /* no end of line */

static void rows(void **state) {
    (void)state;
    static const float want[3][2] = {{1.5f, -2}, {20, 3}, {7, .25f}};
    static const int labels[] = {0, 2, 1};
    struct lb_dataset *data = NULL;
    struct lb_detail detail = {0};
    struct lb_recipe_dataset entry = {.label_field = "the \"kind\"", .tag = "t"};
    if (open_text(table, sizeof table - 1, entry, &data, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    assert_int_equal(lb_dataset_count(data), 3);
    assert_int_equal(lb_dataset_features(data), 2);
    for (int64_t i = 0; i < 3; i++) {
        struct lb_sample s;
        assert_int_equal(lb_dataset_get(data, i, &s, NULL), LB_OK);
        assert_memory_equal(s.features, want[i], sizeof want[i]);
        assert_int_equal(s.label, labels[i]);
    }
    lb_dataset_destroy(data);
    int64_t one = 2;
    entry.skip_samples = 1;
    entry.max_samples = 2;
    entry.exclude_labels = &one;
    entry.exclude_labels_count = 1;
    assert_int_equal(open_text(table, sizeof table - 1, entry, &data, NULL), LB_OK);
    assert_int_equal(lb_dataset_count(data), 1);
    lb_dataset_destroy(data);
}

static void what_is_wrong_is_said(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "t.csv: is empty"},
        {"1,2\n3,4\n", "t.csv:1: the first line has numbers only; it is to name the columns"},
        {"a,b\n3,4\n", "t.csv: has no column \"label\" beside others; name the label's: label_field"},
        {"label\n3\n", "t.csv: has no column \"label\" beside others"},
        {"a,label\n3,0\n\nx,1\n", "t.csv:4: column a: \"x\" is no number"},
        {"a,label\n,0\n", "t.csv:2: column a: \"\" is no number"},
        {"a,label\nnan,0\n", "t.csv:2: column a: \"nan\" is no number"},
        {"a,label\n0x10,0\n", "t.csv:2: column a: \"0x10\" is no number"},
        {"a,label\n1e39,0\n", "t.csv:2: column a: 1e39 is too large"},
        {"a,label\n1,setosa\n",
         "t.csv:2: column label: \"setosa\" is no class's number; number the classes from 0"},
        {"a,label\n1,1.5\n", "t.csv:2: column label: 1.5 is no class's number"},
        {"a,label\n1,-1\n", "t.csv:2: column label: -1 is no class's number"},
        {"a,label\n1,3\n", "t.csv:2: label 3; the student has num_labels 3"},
        {"a,label\n1\n", "t.csv:2: 1 columns, the first line has 2"},
        {"a,label\n1,2,3\n", "t.csv:2: more than the 2 columns of the first line"},
        {"a,label\n\"1,2\n", "t.csv:2: a quote is not closed in its line"},
        {"a,label\n\"1\"2,2\n", "t.csv:2: something stands behind a closing quote"},
        {"a,label\n", "go beyond its 0 rows"},
        {"label,a,label\n0,1,0\n", "t.csv:1: two columns are called \"label\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lb_dataset *data = NULL;
        struct lb_detail detail = {0};
        struct lb_recipe_dataset entry = {0};
        assert_int_not_equal(open_text(cases[i].text, strlen(cases[i].text), entry, &data, &detail), LB_OK);
        if (strstr(detail.text, cases[i].message) == NULL) {
            fail_msg("expected: %s\n     but was: %s", cases[i].message, detail.text);
        }
    }
    static const char hidden[] = "a,label\n1\0002,0\n"; /* no number ends within a field */
    struct lb_dataset *data = NULL;
    struct lb_detail detail = {0};
    const struct lb_recipe_dataset entry = {0};
    assert_int_equal(open_text(hidden, sizeof hidden - 1, entry, &data, &detail), LB_E_FORMAT);
    assert_non_null(strstr(detail.text, "t.csv:2: a NUL byte"));
}

/* Cut off anywhere, and with each byte another: rows or a line about it. */
static void damaged(void **state) {
    (void)state;
    char text[sizeof table];
    const struct lb_recipe_dataset entry = {.label_field = "the \"kind\""};
    for (size_t n = 0; n < 2 * sizeof table - 2; n++) {
        struct lb_dataset *data = NULL;
        struct lb_detail detail = {0};
        size_t len = n < sizeof table - 1 ? n : sizeof table - 1;
        memcpy(text, table, sizeof table);
        if (n >= sizeof table - 1) {
            text[n - (sizeof table - 1)] = n % 2 != 0 ? '"' : ',';
        }
        if (open_text(text, len, entry, &data, &detail) == LB_OK) {
            lb_dataset_destroy(data);
        } else {
            assert_non_null(strstr(detail.text, "t.csv"));
        }
    }
}

/* Tables go together where they are of one width, whatever is left of them. */
static void widths(void **state) {
    (void)state;
    char wide[4096], *narrow = lb_path_join(folder, "narrow.csv"), *path = lb_path_join(folder, "wide.csv");
    size_t len = 0;
    for (int row = 0; row < 2; row++) {
        for (int i = 0; i < 400; i++) {
            len += (size_t)snprintf(wide + len, sizeof wide - len, row == 0 ? "a%d," : "%d,", i);
        }
        len += (size_t)snprintf(wide + len, sizeof wide - len, row == 0 ? "label\n" : "1\n");
    }
    assert_int_equal(lb_file_replace(narrow, "a,label\n1,0\n", 12, NULL), LB_OK);
    assert_int_equal(lb_file_replace(path, wide, len, NULL), LB_OK);
    int64_t zero = 0;
    struct lb_recipe_dataset entries[2] = {{.path = narrow, .type = LB_DATA_CSV},
                                           {.path = path, .type = LB_DATA_CSV}};
    for (int excluded = 0; excluded < 2; excluded++) {
        struct lb_dataset *data = NULL;
        struct lb_detail detail = {0};
        entries[0].exclude_labels = &zero;
        entries[0].exclude_labels_count = (unsigned)excluded;
        assert_int_equal(lb_dataset_open(&recipe, entries, 2, false, NULL, 0, NULL, &data, &detail),
                         LB_E_MISMATCH);
        assert_non_null(strstr(detail.text, "wide.csv: 400 features, the data before have 1"));
    }
    lb_free(narrow);
    lb_free(path);
}

/* Features stand in places: a table whose columns have another order is not taken for one of the same. */
static void orders(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"a,label,b\n3,1,4\n", NULL}, /* the label may stand anywhere */
        {"label,b,a\n1,4,3\n", "feature 1 is column \"b\", "},
        {"a,c,label\n3,4,1\n", "feature 2 is column \"c\", "},
    };
    char *first = lb_path_join(folder, "first.csv"), *path = lb_path_join(folder, "second.csv");
    assert_int_equal(lb_file_replace(first, "a,b,label\n1,2,0\n", 16, NULL), LB_OK);
    struct lb_recipe_dataset entries[2] = {{.path = first, .type = LB_DATA_CSV},
                                           {.path = path, .type = LB_DATA_CSV}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lb_dataset *both = NULL, *one = NULL, *other = NULL;
        struct lb_detail detail = {0}, apart = {0};
        assert_int_equal(lb_file_replace(path, cases[i].text, strlen(cases[i].text), NULL), LB_OK);
        enum lb_status status = lb_dataset_open(&recipe, entries, 2, false, NULL, 0, NULL, &both, &detail);
        assert_int_equal(lb_dataset_open(&recipe, &entries[0], 1, false, NULL, 0, NULL, &one, NULL), LB_OK);
        assert_int_equal(lb_dataset_open(&recipe, &entries[1], 1, true, NULL, 0, NULL, &other, NULL), LB_OK);
        assert_int_equal(lb_dataset_same_columns(one, other, "eval_datasets", &apart), status);
        assert_int_equal(status, cases[i].message == NULL ? LB_OK : LB_E_MISMATCH);
        if (cases[i].message != NULL) {
            assert_non_null(strstr(detail.text, cases[i].message));
            assert_non_null(strstr(apart.text, cases[i].message));
        }
        lb_dataset_destroy(both);
        lb_dataset_destroy(one);
        lb_dataset_destroy(other);
    }
    lb_free(first);
    lb_free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows),    cmocka_unit_test(what_is_wrong_is_said),
        cmocka_unit_test(damaged), cmocka_unit_test(widths),
        cmocka_unit_test(orders),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
