#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/mem.h"
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

/* Each dataset has a weight, or none has. */
static void weights_of_data(void **state) {
    (void)state;
    static const char right[] =
        "student: {hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, "
        "num_attention_heads: 1}\ntokenizer: t\ndatasets: [{path: x.txt}, {path: y.bin}]\n"
        "loss_functions: [{function: cross_entropy}]\noutput_dir: o\n";
    static const struct {
        const char *sets[2], *message;
    } cases[] = {
        {{"datasets.0.weight=2", "seed=1"}, "r.yaml:3: datasets.1: has no weight, and others have"},
        {{"eval_datasets=[{path: x.txt, weight: 1}]", "seed=1"},
         "--set eval_datasets.0.weight: all of it is evaluated once"},
        {{"datasets.0.weight=0", "datasets.1.weight=1"}, "--set datasets.0.weight: 0 is out of range"},
        {{"whole_texts=true", "seed=1"}, "r.yaml:3: datasets.1: type: tokens is a stream"}};
    struct lb_recipe *r = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lb_detail detail = {0};
        assert_int_equal(lb_recipe_parse(right, strlen(right), "r.yaml", cases[i].sets, 2, &r, &detail),
                         LB_E_ARG);
        assert_int_equal(strncmp(detail.text, cases[i].message, strlen(cases[i].message)), 0);
    }
    static const char *const both[] = {"datasets.0.weight=2", "datasets.1.weight=0.5"};
    assert_int_equal(lb_recipe_parse(right, strlen(right), "r.yaml", both, 2, &r, NULL), LB_OK);
    assert_int_equal(r->datasets[1].type, LB_DATA_TOKENS);
    lb_recipe_destroy(r);
    struct lb_buf text;
    struct lb_detail detail = {0};
    lb_buf_init(&text, 1 << 20);
    lb_buf_append_str(&text, "student: {hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, "
                             "num_attention_heads: 1}\ntokenizer: t\noutput_dir: o\n"
                             "loss_functions: [{function: cross_entropy}]\ndatasets:\n");
    for (int i = 0; i <= LB_MAX_WEIGHTED_SETS; i++) {
        lb_buf_printf(&text, "  - {path: x%d.txt, weight: 1}\n", i);
    }
    assert_int_equal(lb_recipe_parse(text.data, text.len, "r.yaml", NULL, 0, &r, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "datasets: 1025 sets with weights; at most 1024"));
    lb_buf_finish(&text);
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

/* Each allocation fails once, with a recipe of mistakes and with other tools' words: an error, no crash. */
static void memory_runs_out(void **state) {
    (void)state;
    static const char *const texts[] = {
        "student: {hiden_size: 8}\ndatasets: [{path: a.csv}]\nseed: 1\nseed: 2\nzzz: 1\n",
        "model_name_or_path: m\nteacher_model_name_or_path: t\ndataset_name: x.txt\nlmbda: 0\nseq_kd: false\n"
        "max_length: 8\noutput_dir: o\nzzz: 1\n",
        "model: m\nteacher: {kind: vllm, base_url: 'http://h:1', model: x, top_k: 4}\ndataset: "
        "{train_dataset: "
        "{disk_path: x.txt}}\nsequence_length: 8\noutput_path: o\nlayer_mapping: [[1, 1]]\nloss_functions: "
        "[{function: kl, weight: 1}, {function: hs_mse, weight: 1}]\ntraining_args: {max_steps: 1, optim: "
        "lion}\n",
        "base_model: m\nkd_trainer: true\nkd_online_server_base_url: http://h:1\nkd_online_topk: "
        "4\ndatasets: "
        "[{path: x.jsonl}]\noutput_dir: o\nkd_ce_alpha: 0.1\nadapter: qlora\n"};
    for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
        long n = 1;
        for (long i = 0; i <= n; i++) { /* 0: none fails, and they are counted */
            struct lb_recipe *r = NULL;
            struct lb_buf lines;
            struct lb_detail detail = {0};
            lb_buf_init(&lines, 1 << 20);
            lb_mem_fail_from(i);
            enum lb_status status =
                lb_recipe_parse_all(texts[t], strlen(texts[t]), "r.yaml", NULL, 0, &lines, &r, &detail);
            n = i == 0 ? lb_mem_count() : n;
            lb_mem_fail_from(0);
            assert_int_not_equal(status, LB_OK);
            assert_null(r);
            assert_true(detail.text[0] != '\0');
            lb_buf_finish(&lines);
        }
        assert_true(n > 3);
    }
}

/* What could not be read is not judged a second time, and what is wrong of an entry is told at its line. */
static void texts_that_are_written(void **state) {
    (void)state;
    static const char right[] = "student: {hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, "
                                "num_attention_heads: 1}\ntokenizer: t\ndatasets: [{path: x.txt}]\n"
                                "teachers: [{name: t, url: 'http://h:1'}]\noutput_dir: o\n";
    static const struct {
        const char *text, *lines;
    } cases[] = {
        {"loss_functions: [{function: cross_entropy, on: teacher}]\nseq_kd: maybe\n",
         "r.yaml:7: seq_kd: \"maybe\" is not true or false\n"},
        {"loss_functions: [{function: kl}]\nmax_new_tokens: many\n",
         "r.yaml:7: max_new_tokens: \"many\" is not a whole number\n"},
        {"loss_functions: [{function: kl}]\neval_datasets:\n  - {path: x.txt}\n  - {path: y.txt,\n"
         "     prompt_length: 4}\n",
         "r.yaml:10: eval_datasets.1.prompt_length: is of data that is trained on; nobody writes here\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lb_recipe *r = NULL;
        struct lb_buf text, lines;
        lb_buf_init(&text, 1 << 20);
        lb_buf_init(&lines, 1 << 20);
        lb_buf_printf(&text, "%s%s", right, cases[i].text);
        assert_int_equal(lb_recipe_parse_all(text.data, text.len, "r.yaml", NULL, 0, &lines, &r, NULL),
                         LB_E_ARG);
        assert_string_equal(lines.data, cases[i].lines);
        lb_buf_finish(&text);
        lb_buf_finish(&lines);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_at_once),          cmocka_unit_test(weights_of_data),
        cmocka_unit_test(mistakes_are_bounded), cmocka_unit_test(texts_that_are_written),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
