#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/golden.h"
#include "trainer/learn/schedule.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* As make_schedules.py has them. */
static const struct {
    const char *name, *lines;
    int warmup, steps;
} cases[] = {
    {"linear", "lr_scheduler_type: linear", 0, 30},
    {"linear_warmup", "lr_scheduler_type: linear", 7, 30},
    {"cosine", "lr_scheduler_type: cosine", 5, 40},
    {"cosine_cycles", "lr_scheduler_type: cosine\nlr_scheduler_kwargs: {num_cycles: 1.25}", 5, 40},
    {"constant", "lr_scheduler_type: constant", 0, 10},
    {"constant_with_warmup", "lr_scheduler_type: constant_with_warmup", 4, 10},
    {"min_lr", "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 5e-4}", 3, 25},
    {"min_lr_rate",
     "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr_rate: 0.1, num_cycles: 0.8}", 3,
     25},
    {"wsd", "lr_scheduler_type: warmup_stable_decay\nlr_scheduler_kwargs: {num_decay_steps: 10}", 6, 40},
    {"wsd_least",
     "lr_scheduler_type: warmup_stable_decay\nlr_scheduler_kwargs: {num_decay_steps: 12, min_lr_ratio: 0.2, "
     "warmup_type: cosine, decay_type: linear}",
     6, 40},
    {"wsd_sqrt",
     "lr_scheduler_type: warmup_stable_decay\nlr_scheduler_kwargs: {num_decay_steps: 12, num_stable_steps: "
     "15, warmup_type: 1-sqrt, decay_type: 1-sqrt}",
     5, 40},
};

static int open_golden(void **state) {
    (void)state;
    return lb_golden_open("schedules.safetensors");
}

static struct lb_recipe *recipe_of(const char *lines, int warmup, int steps, bool from_zero) {
    struct lb_recipe *r = NULL;
    struct lb_detail detail = {0};
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "student: {model_type: limbeck_mlp, input_size: 4, hidden_sizes: [2], num_labels: 2}\n"
                     "datasets: [{path: train-images-idx3-ubyte, labels: train-labels-idx1-ubyte}]\n"
                     "loss_functions: [{function: cross_entropy}]\noutput_dir: o\nlearning_rate: 2e-3\n"
                     "warmup_steps: %d\nmax_steps: %d\nwarmup_from_zero: %s\n%s\n",
                     warmup, steps, from_zero ? "true" : "false", lines);
    if (lb_recipe_parse(text, (size_t)n, "r.yaml", NULL, 0, &r, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    return r;
}

static void expect(const char *name, int step, double have, double want) {
    if (fabs(have - want) > 1e-14) {
        fail_msg("%s, step %d: %.15g, transformers has %.15g", name, step, have, want);
    }
}

static void rates_are_those_of_transformers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const double *want = lb_golden_find(cases[i].name)->data;
        struct lb_recipe *r = recipe_of(cases[i].lines, cases[i].warmup, cases[i].steps, true);
        for (int step = 0; step < cases[i].steps; step++) {
            expect(cases[i].name, step, lb_learning_rate(r, cases[i].steps, step), want[step]);
        }
        lb_recipe_destroy(r);
    }
}

/* Without warmup_from_zero the warm-up is one step ahead, and nothing else differs. */
static void warm_up_is_one_step_ahead(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const double *want = lb_golden_find(cases[i].name)->data;
        struct lb_recipe *r = recipe_of(cases[i].lines, cases[i].warmup, cases[i].steps, false);
        for (int step = 0; step < cases[i].steps; step++) {
            int there = step < cases[i].warmup ? step + 1 : step;
            expect(cases[i].name, step, lb_learning_rate(r, cases[i].steps, step), want[there]);
        }
        lb_recipe_destroy(r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rates_are_those_of_transformers),
                                       cmocka_unit_test(warm_up_is_one_step_ahead)};
    return cmocka_run_group_tests(tests, open_golden, lb_golden_close);
}
