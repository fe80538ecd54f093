#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "trainer/recipe/recipe.h"

#include <stdio.h>
#include <string.h>

/* All mistakes at once, a line each in the order of the file, those of --set last; what follows from another
 * mistake is not told. */
static void all_at_once(void **state) {
    (void)state;
    static const char text[] = "student:\n"                                               /* 1 */
                               "  hiden_size: 128\n"                                      /* 2 */
                               "  intermediate_size: wide\n"                              /* 3 */
                               "  num_hidden_layers: 4\n"                                 /* 4 */
                               "tokenizer: [a]\n"                                         /* 5 */
                               "datasets:\n"                                              /* 6 */
                               "  - {path: data/noun.csv}\n"                              /* 7 */
                               "  - {paht: data/rest.txt, max_tokens: -1}\n"              /* 8 */
                               "teachers:\n"                                              /* 9 */
                               "  - {name: N, url: nowhere}\n"                            /* 10 */
                               "  - {name: N, url: 'http://h:1', wieght: 1, weight: x}\n" /* 11 */
                               "loss_functions:\n"                                        /* 12 */
                               "  - {function: kll}\n"                                    /* 13 */
                               "  - {function: cross_entropy, temperature: 2}\n"          /* 14 */
                               "max_steps: 10\n"                                          /* 15 */
                               "warmup_steps: 11\n"                                       /* 16 */
                               "seed: 1\n"                                                /* 17 */
                               "zzzzzz: 1\n"                                              /* 18 */
                               "seed: 2\n";                                               /* 19 */
    static const char *const expected[] = {
        "r.yaml:1: student: num_attention_heads is missing",
        "r.yaml:1: output_dir: is missing",
        "r.yaml:2: student.hiden_size: unknown key; did you mean hidden_size?",
        "r.yaml:3: student.intermediate_size: \"wide\" is not a whole number",
        "r.yaml:5: tokenizer: must be a text, not a list",
        "r.yaml:7: datasets.0.path: \"data/noun.csv\" is a table",
        "r.yaml:8: datasets.1.paht: unknown key; did you mean path?",
        "r.yaml:8: datasets.1.max_tokens: -1 is out of range",
        "r.yaml:10: teachers.0.url: \"nowhere\" is no URL",
        "r.yaml:11: teachers.1.wieght: unknown key; did you mean weight?",
        "r.yaml:11: teachers.1.weight: \"x\" is not a number",
        "r.yaml:13: loss_functions.0.function: \"kll\" is not one of",
        "r.yaml:14: loss_functions.1.temperature: cross_entropy does not read it",
        "r.yaml:16: warmup_steps: 11 steps of warm-up in a run of 10",
        "r.yaml:18: zzzzzz: unknown key",
        "r.yaml:19: seed: is given twice (first in line 17)",
        "--set nokey: write it as key=value",
        "--set teachers.7.url: there is no \"7\" there",
        "--set learning_rate: \"fast\" is not a number",
    };
    static const char *const sets[] = {"nokey", "learning_rate=fast", "teachers.7.url=x"};
    struct lb_recipe *r = NULL;
    struct lb_detail detail = {0};
    struct lb_buf lines;
    lb_buf_init(&lines, 1 << 20);
    assert_int_equal(lb_recipe_parse_all(text, strlen(text), "r.yaml", sets, 3, &lines, &r, &detail),
                     LB_E_FORMAT); /* the first one's */
    const char *line = lines.data;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        if (strncmp(line, expected[i], strlen(expected[i])) != 0) {
            fail_msg("expected: %s\n     but was: %s", expected[i], line);
        }
        line = strchr(line, '\n') + 1;
    }
    assert_string_equal(line, "");
    lb_buf_finish(&lines);
}

/* However many there are, a page of them is told, and how many more. */
static void mistakes_are_bounded(void **state) {
    (void)state;
    static const char right[] = "student: {hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, "
                                "num_attention_heads: 1}\ntokenizer: t\ndatasets: [{path: x.txt}]\n"
                                "loss_functions: [{function: cross_entropy}]\noutput_dir: o\n";
    struct lb_buf text, lines;
    struct lb_recipe *r = NULL;
    size_t n = 0;
    lb_buf_init(&text, 1 << 20);
    lb_buf_init(&lines, 1 << 20);
    lb_buf_append_str(&text, right);
    for (int i = 0; i < 100; i++) {
        lb_buf_printf(&text, "zzzzzz%d: 1\n", i);
    }
    assert_int_equal(lb_recipe_parse_all(text.data, text.len, "r.yaml", NULL, 0, &lines, &r, NULL), LB_E_ARG);
    for (const char *c = lines.data; (c = strchr(c, '\n')) != NULL; c++) {
        n++;
    }
    assert_int_equal(n, 41);
    assert_non_null(strstr(lines.data, "\nr.yaml: and 60 more\n"));
    lb_buf_finish(&text);
    lb_buf_finish(&lines);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_at_once),
        cmocka_unit_test(mistakes_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
