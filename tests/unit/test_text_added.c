/* Added tokens in text: leftmost, longest, and the flags. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "common/text/added.h"

#include <string.h>

/* Ids are places in this list. */
static const struct {
    const char *pattern;
    bool single_word, lstrip, rstrip;
} tokens[] = {
    {"<a>", false, false, false},    {"<a>b", false, false, false}, {"<a>bcd", false, false, false},
    {"[L]", false, true, false},     {"[R]", false, false, true},   {"[B]", false, true, true},
    {"word", true, false, false},    {"<", false, false, false},    {"\u00e9t\u00e9", true, false, false},
    {"wordy!", false, false, false},
};

/* What is found in text, written as "start-end=id ...". */
static void check(const char *text, const char *want) {
    struct lb_added_set set = {.token = NULL};
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        struct lb_added_token flags = {.id = (int32_t)i,
                                       .single_word = tokens[i].single_word,
                                       .lstrip = tokens[i].lstrip,
                                       .rstrip = tokens[i].rstrip};
        assert_int_equal(lb_added_put(&set, tokens[i].pattern, strlen(tokens[i].pattern), &flags), LB_OK);
    }
    lb_added_sort(&set);
    struct lb_buf got;
    struct lb_added_match match;
    size_t cursor = 0, done = 0;
    lb_buf_init(&got, 1000);
    while (lb_added_next(&set, text, strlen(text), NULL, &cursor, done, &match)) {
        lb_buf_printf(&got, "%s%zu-%zu=%d", got.len ? " " : "", match.start, match.end, match.id);
        done = match.end;
    }
    assert_string_equal(got.data ? got.data : "", want);
    lb_buf_finish(&got);
    lb_added_finish(&set);
}

static void test_longest(void **state) {
    (void)state;
    check("", "");
    check("nothing", "");
    check("x<a>x", "1-4=0");
    check("<a>b", "0-4=1");
    check("<a>bcd", "0-6=2");
    check("<a>bc", "0-4=1"); /* the longest of all fails, the next is taken */
    check("<a", "0-1=7");
    check("<<a><a>b<", "0-1=7 1-4=0 4-8=1 8-9=7");
}

static void test_space(void **state) {
    (void)state;
    check("a  [L]  b", "1-6=3");
    check("a  [R] \u3000b", "3-10=4");
    check(" \t[B]\n [B] ", "0-7=5 7-11=5"); /* the second finds its left side taken */
    check("[R]  [L]", "0-5=4 5-8=3");
    check("  [L]", "0-5=3");
    check("x\u180e[L]", "4-7=3"); /* no white space */
}

static void test_words(void **state) {
    (void)state;
    check("word", "0-4=6");
    check("a word.", "2-6=6");
    check("words sword word_ word1 \u00e9word word\u0301 -word-", "39-43=6");
    check("\u00e9t\u00e9", "0-5=8");
    check("x\u00e9t\u00e9 \u00e9t\u00e9\u200d \u00e9t\u00e9'", "16-21=8");
    check("wordy! word", "0-6=9 7-11=6");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_longest),
        cmocka_unit_test(test_space),
        cmocka_unit_test(test_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
