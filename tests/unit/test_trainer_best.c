#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "trainer/run/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST 8

/* Evaluations in order, and what transformers' Trainer and EarlyStoppingCallback (5.24) make of them: the
 * step of the best, how many were waited for, whether training stops. */
static const struct {
    double values[MOST], threshold;
    int n, patience;
    bool accuracy;
    int best[MOST], waited[MOST];
    bool stops;
} cases[] = {
    {{5, 4, 4.5, 4.4, 3.9, 3.95, 3.95, 3.95},
     0,
     8,
     3,
     false,
     {1, 2, 2, 2, 5, 5, 5, 5},
     {0, 0, 1, 2, 0, 1, 2, 3},
     true},
    {{5, 4.95, 4.9, 4.85}, 0.1, 4, 3, false, {1, 2, 3, 4}, {0, 1, 2, 3}, true},
    {{.1, .3, .3, .2}, 0, 4, 2, true, {1, 2, 2, 2}, {0, 0, 1, 2}, true},
    {{5, 4.5, 4.45, 4.3, 4.2}, 0.1, 5, 4, false, {1, 2, 3, 4, 5}, {0, 0, 1, 0, 1}, false},
};

static void as_in_transformers(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        struct lb_recipe recipe = {.early_stopping_patience = cases[k].patience,
                                   .early_stopping_threshold = cases[k].threshold,
                                   .metric_for_best_model =
                                       cases[k].accuracy ? LB_METRIC_ACCURACY : LB_METRIC_BY_DEFAULT};
        static struct lb_run run;
        static struct lb_evaluation e;
        memset(&run, 0, sizeof run);
        run.recipe = &recipe;
        assert_true(lb_run_compares(&run));
        for (int i = 0; i < cases[k].n; i++) {
            run.at.step = i + 1;
            e.all.loss = cases[k].values[i];
            e.all.error_percent = 100 - 100 * cases[k].values[i];
            assert_int_equal(lb_run_compare(&run, &e, NULL), LB_OK);
            assert_int_equal(run.at.best_step, cases[k].best[i]);
            assert_int_equal(run.at.waited, cases[k].waited[i]);
            assert_int_equal(run.improved, run.at.best_step == i + 1);
            assert_int_equal(lb_run_stops_early(&run), i == cases[k].n - 1 && cases[k].stops);
            /* Evaluated again, as a resumed run may: counted once. */
            assert_int_equal(lb_run_compare(&run, &e, NULL), LB_OK);
            assert_int_equal(run.at.waited, cases[k].waited[i]);
        }
    }
}

/* Each metric is compared by itself, in its own direction. */
static void every_metric(void **state) {
    (void)state;
    for (int metric = LB_METRIC_LOSS; metric <= LB_METRIC_ECE; metric++) {
        struct lb_recipe recipe = {.load_best_model_at_end = true,
                                   .metric_for_best_model = (enum lb_best_metric)metric};
        static struct lb_run run;
        static struct lb_evaluation e;
        memset(&run, 0, sizeof run);
        memset(&e, 0, sizeof e);
        run.recipe = &recipe;
        double *const values[] = {&e.all.loss,
                                  &e.all.perplexity,
                                  &e.balanced_perplexity,
                                  &e.all.bits_per_byte,
                                  &e.all.error_percent,
                                  &e.all.error_percent,
                                  &e.ece};
        e.all.bytes = 100;
        for (int step = 1; step <= 3; step++) { /* less is better of all of them: accuracy is 1 - error */
            static const double series[] = {2, 1, 3};
            for (int i = 0; i < 7; i++) {
                *values[i] = 0;
            }
            *values[metric - LB_METRIC_LOSS] = series[step - 1];
            run.at.step = step;
            assert_int_equal(lb_run_compare(&run, &e, NULL), LB_OK);
        }
        assert_int_equal(run.at.best_step, 2);
        assert_int_equal(run.at.kept_step, 2);
        assert_false(lb_run_stops_early(&run));
    }
}

static void what_is_no_number_is_never_best(void **state) {
    (void)state;
    struct lb_recipe recipe = {.load_best_model_at_end = true};
    static struct lb_run run;
    static struct lb_evaluation e;
    memset(&run, 0, sizeof run);
    run.recipe = &recipe;
    run.at.step = 1;
    e.all.loss = NAN;
    assert_int_equal(lb_run_compare(&run, &e, NULL), LB_OK);
    assert_int_equal(run.at.best_step, 0);
    run.at.step = 2;
    e.all.loss = 7;
    assert_int_equal(lb_run_compare(&run, &e, NULL), LB_OK);
    assert_int_equal(run.at.best_step, 2);
    struct lb_detail detail = {0};
    recipe.metric_for_best_model = LB_METRIC_BITS_PER_BYTE;
    run.at.step = 3;
    assert_int_equal(lb_run_compare(&run, &e, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "metric_for_best_model: these data have no bytes of text"));
}

/* What is the best by one metric is not measured by another. */
static void best_of_another_metric(void **state) {
    (void)state;
    struct lb_recipe recipe = {.early_stopping_patience = 3, .metric_for_best_model = LB_METRIC_PERPLEXITY};
    static struct lb_run run;
    static struct lb_evaluation e;
    struct lb_detail detail = {0};
    memset(&run, 0, sizeof run);
    run.recipe = &recipe;
    run.at.step = 1;
    assert_int_equal(lb_run_compare(&run, &e, NULL), LB_OK);
    assert_int_equal(lb_run_recall_best(&run, NULL), LB_OK);
    recipe.metric_for_best_model = LB_METRIC_ACCURACY;
    assert_int_equal(lb_run_recall_best(&run, &detail), LB_E_MISMATCH);
    assert_non_null(strstr(detail.text, "were compared by eval_perplexity so far"));
    recipe.early_stopping_patience = 0; /* nothing is compared any more */
    assert_int_equal(lb_run_recall_best(&run, NULL), LB_OK);
    recipe.early_stopping_patience = 3;
    run.at.best_of[0] = '\0'; /* not known */
    assert_int_equal(lb_run_recall_best(&run, NULL), LB_OK);
}

/* A run that is gone on with wants the best one's checkpoint before it trains on, not at its end. */
static void best_is_looked_for(void **state) {
    (void)state;
    char dir[] = "/tmp/lb-best-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/checkpoint-12", dir);
    struct lb_recipe recipe = {.early_stopping_patience = 3};
    static struct lb_run run;
    struct lb_detail detail = {0};
    memset(&run, 0, sizeof run);
    run.recipe = &recipe;
    run.dir = dir;
    run.at = (struct lb_checkpoint){.step = 28, .best_step = 12, .evaluated = 28};
    assert_int_equal(lb_run_recall_best(&run, NULL), LB_OK);
    assert_int_equal(run.at.kept_step, 0);
    recipe.load_best_model_at_end = true;
    assert_int_equal(lb_run_recall_best(&run, &detail), LB_E_NOTFOUND);
    assert_non_null(
        strstr(detail.text, "load_best_model_at_end: the best evaluation so far is that of step 12"));
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(lb_run_recall_best(&run, NULL), LB_OK);
    assert_int_equal(run.at.kept_step, 12);
    run.at.best_step = 28; /* it is the one that was loaded */
    assert_int_equal(lb_run_recall_best(&run, NULL), LB_OK);
    run.at.best_step = 0; /* nothing was evaluated yet */
    assert_int_equal(lb_run_recall_best(&run, NULL), LB_OK);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_in_transformers), cmocka_unit_test(every_metric),
                                       cmocka_unit_test(what_is_no_number_is_never_best),
                                       cmocka_unit_test(best_of_another_metric),
                                       cmocka_unit_test(best_is_looked_for)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
