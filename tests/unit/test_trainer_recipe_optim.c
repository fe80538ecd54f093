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

static const char base[] =
    "student: {model_type: limbeck_mlp, input_size: 784, hidden_sizes: [50], num_labels: 10}\n"
    "datasets: [{path: train-images-idx3-ubyte, labels: train-labels-idx1-ubyte}]\n"
    "loss_functions: [{function: cross_entropy}]\n"
    "learning_rate: 0.1\n"
    "max_steps: 100\n"
    "output_dir: o\n";

/* The recipe with lines of YAML below it. */
static enum lb_status parse(const char *lines, struct lb_recipe **out, struct lb_detail *detail) {
    char text[2048];
    int n = snprintf(text, sizeof text, "%s%s", base, lines);
    return lb_recipe_parse(text, (size_t)n, "r.yaml", NULL, 0, out, detail);
}

static struct lb_recipe *good(const char *lines) {
    struct lb_recipe *r = NULL;
    struct lb_detail detail = {0};
    if (parse(lines, &r, &detail) != LB_OK) {
        fail_msg("%s: %s", lines, detail.text);
    }
    return r;
}

static void bad(const char *lines, const char *message) {
    struct lb_recipe *r = NULL;
    struct lb_detail detail = {0};
    if (parse(lines, &r, &detail) == LB_OK) {
        lb_recipe_destroy(r);
        fail_msg("%s was taken", lines);
    }
    if (strstr(detail.text, message) == NULL) {
        fail_msg("%s: %s; expected %s", lines, detail.text, message);
    }
}

/* Written back and read again it is the same, in what decides as well. */
static void round_trip(const char *lines) {
    struct lb_recipe *r = good(lines), *again = NULL;
    char *text = NULL, first[65], second[65];
    size_t len;
    struct lb_detail detail = {0};
    assert_int_equal(lb_recipe_dump(r, &text, &len, NULL), LB_OK);
    if (lb_recipe_parse(text, len, "r.yaml", NULL, 0, &again, &detail) != LB_OK) {
        fail_msg("%s: written back: %s", lines, detail.text);
    }
    assert_int_equal(lb_recipe_fingerprint(r, first), LB_OK);
    assert_int_equal(lb_recipe_fingerprint(again, second), LB_OK);
    assert_string_equal(first, second);
    lb_recipe_destroy(r);
    lb_recipe_destroy(again);
    lb_free(text);
}

static void optimizers(void **state) {
    (void)state;
    struct lb_recipe *r = good("optim: sgd\noptim_args: \"momentum=0.9, nesterov=True\"\n");
    assert_int_equal(r->optim, LB_OPTIM_SGD);
    assert_true(r->momentum == 0.9 && r->nesterov);
    lb_recipe_destroy(r);
    r = good("optim: adamw_torch_fused\n");
    assert_int_equal(r->optim, LB_OPTIM_ADAMW);
    assert_true(r->momentum == 0 && !r->nesterov);
    lb_recipe_destroy(r);
    round_trip("optim: sgd\noptim_args: momentum=0.9\n");
    round_trip("optim: lion_32bit\n");
    r = good("optim: muon\n");
    assert_true(r->momentum == 0.95 && r->nesterov);
    lb_recipe_destroy(r);
    r = good("optim: muon\noptim_args: \"momentum=0.9,nesterov=false\"\n");
    assert_true(r->momentum == 0.9 && !r->nesterov);
    lb_recipe_destroy(r);
    round_trip("optim: muon\noptim_args: momentum=0.9\n");
    bad("optim: adafactor\n",
        "optim: \"adafactor\" is not one of adamw_torch, adamw_torch_fused, sgd, lion_32bit, muon");
    bad("optim_args: momentum=0.9\n", "r.yaml:7: optim_args: is read for optim: sgd and muon");
    bad("optim: sgd\noptim_args: momentum\n", "optim_args: \"momentum\" has a part without =");
    bad("optim: sgd\noptim_args: momentum=1\n", "has a momentum that is not from 0 to below 1");
    bad("optim: sgd\noptim_args: momentum=0.9x\n", "has a momentum that is not from 0 to below 1");
    bad("optim: sgd\noptim_args: momentum=0x.8\n", "has a momentum that is not from 0 to below 1");
    bad("optim: sgd\noptim_args: momentum=0.90000000000000000000000000000000000000000000000000000000000x\n",
        "has a part that is too long");
    bad("optim: sgd\noptim_args: \"momentum=0.9,nesterov=maybe\"\n", "has a nesterov that is neither");
    bad("optim: sgd\noptim_args: nesterov=true\n", "has nesterov without a momentum");
    bad("optim: sgd\noptim_args: dampening=0.1\n", "holds another name than momentum and nesterov");
}

static void schedules(void **state) {
    (void)state;
    static const char wsd[] = "lr_scheduler_type: warmup_stable_decay\n",
                      least[] = "lr_scheduler_type: cosine_with_min_lr\n";
    char text[400];
    struct lb_recipe *r =
        good("lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 0.02}\n");
    assert_true(r->schedule.min_lr_rate == 0.02 / 0.1);
    lb_recipe_destroy(r);
    r = good("lr_scheduler_type: cosine_with_min_lr\nmin_lr_ratio: 0.3\n"); /* the older key does as well */
    assert_true(r->schedule.min_lr_rate == 0.3);
    lb_recipe_destroy(r);
    round_trip("lr_scheduler_type: warmup_stable_decay\nlr_scheduler_kwargs: {num_decay_steps: 10, "
               "decay_type: 1-sqrt}\nwarmup_from_zero: true\n");
    const struct {
        const char *base, *kwargs, *message;
    } cases[] = {
        {least, "",
         "r.yaml:7: lr_scheduler_type: cosine_with_min_lr needs lr_scheduler_kwargs: {min_lr: RATE}"},
        {least, "{min_lr: 0.01, min_lr_rate: 0.1}", "the least rate is said twice"},
        {least, "{min_lr: 0.2}", "lr_scheduler_kwargs.min_lr: \"0.2\" is not a number from 0 to 0.1"},
        {least, "{min_lr: 0x.01p0}", "lr_scheduler_kwargs.min_lr: \"0x.01p0\" is not a number from 0 to 0.1"},
        {wsd, "{num_decay_steps: 0x10}", "num_decay_steps: \"0x10\" is not a number from 1 to 1e+15"},
        {least, "{min_lr_ratio: 0.1}", "it takes num_cycles, min_lr, min_lr_rate"},
        {wsd, "", "warmup_stable_decay needs lr_scheduler_kwargs: {num_decay_steps: N}"},
        {wsd, "{num_decay_steps: 101}", "num_decay_steps are more than max_steps"},
        {wsd, "{num_decay_steps: 1.5}", "num_decay_steps: \"1.5\" is not a whole number"},
        {wsd, "{num_decay_steps: 10, decay_type: sqrt}",
         "decay_type: \"sqrt\" is not one of linear, cosine, 1-sqrt"},
        {"min_lr_ratio: 0.1\nlr_scheduler_type: warmup_stable_decay\n",
         "{num_decay_steps: 10, min_lr_ratio: 0}", "the least rate is said twice"},
        {"", "{num_cycles: 2}", "num_cycles: is not read by this lr_scheduler_type; it takes none, drop it"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool given = cases[i].kwargs[0] != '\0';
        snprintf(text, sizeof text, "%s%s%s\n", cases[i].base, given ? "lr_scheduler_kwargs: " : "",
                 cases[i].kwargs);
        bad(text, cases[i].message);
    }
}

/* One look tells every part that is wrong. */
static void all_parts(void **state) {
    (void)state;
    static const char text[] = "optim: sgd\noptim_args: \"momentum=2,nesterov=maybe,dampening=1\"\n"
                               "lr_scheduler_type: warmup_stable_decay\n"
                               "lr_scheduler_kwargs: {num_decay_steps: x, decay_type: y, min_lr: 0}\n";
    const char *const parts[] = {"r.yaml:8: optim_args: ",   "momentum that is not",
                                 "nesterov that is neither", "another name than momentum and nesterov",
                                 "num_decay_steps: \"x\"",   "decay_type: \"y\"",
                                 "min_lr: is not read"};
    char whole[1024];
    struct lb_recipe *r = NULL;
    struct lb_buf lines;
    lb_buf_init(&lines, 1 << 16);
    int n = snprintf(whole, sizeof whole, "%s%s", base, text);
    assert_int_equal(lb_recipe_parse_all(whole, (size_t)n, "r.yaml", NULL, 0, &lines, &r, NULL), LB_E_ARG);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (strstr(lines.data, parts[i]) == NULL) {
            fail_msg("no \"%s\" in\n%s", parts[i], lines.data);
        }
    }
    size_t told = 0;
    for (size_t i = 0; i < lines.len; i++) {
        told += lines.data[i] == '\n';
    }
    assert_int_equal(told, 6);
    lb_buf_finish(&lines);
}

static void averages(void **state) {
    (void)state;
    struct lb_recipe *r = good("ema_decay: 0.999\n");
    assert_true(r->ema_decay == 0.999 && r->ema_for == LB_EMA_FOR_ALL);
    lb_recipe_destroy(r);
    round_trip("ema_decay: 0.99\nema_for: student\n");
    bad("ema_for: student\n", "ema_for: there is no average; set ema_decay, or drop it");
    bad("ema_decay: 1\n", "ema_decay: 1 is out of range");
}

static void dropout(void **state) {
    (void)state;
    round_trip("disable_dropout: false\n");
    round_trip("disable_dropout: true\n");
    bad("disable_dropout: maybe\n", "disable_dropout: \"maybe\" is not one of true, false");
}

static void adapters(void **state) {
    (void)state;
    bad("use_peft: true\n", "use_peft: is of a student that exists (student.model)");
    bad("lora_r: 4\n", "lora_r: there are no adapters; set use_peft: true, or drop it");
    bad("lora_target_modules: [q_proj]\n", "lora_target_modules: there are no adapters");
    static const char text[] =
        "student: {model: m}\ndatasets: [{path: x.txt}]\nuse_peft: true\noutput_dir: o\n"
        "loss_functions: [{function: cross_entropy}]\n";
    const char *const sets[] = {"seed=42", "lora_r=16", "lora_alpha=32", "lora_target_modules=[all-linear]",
                                "lora_target_modules=[q_proj]"}; /* the last alone is another run */
    char fingerprints[5][65];
    for (size_t i = 0; i < 5; i++) {
        struct lb_recipe *r = NULL;
        assert_int_equal(lb_recipe_parse(text, sizeof text - 1, "r.yaml", &sets[i], 1, &r, NULL), LB_OK);
        assert_int_equal(lb_recipe_fingerprint(r, fingerprints[i]), LB_OK);
        assert_int_equal(strcmp(fingerprints[i], fingerprints[0]) == 0, i < 4);
        lb_recipe_destroy(r);
    }
}

static void evaluations_compared(void **state) {
    (void)state;
#define EVAL                                                                                                 \
    "eval_datasets: [{path: t10k-images-idx3-ubyte, labels: t10k-labels-idx1-ubyte}]\neval_steps: 5\n"
    struct lb_recipe *r = good(EVAL "early_stopping_patience: 3\nmetric_for_best_model: accuracy\n"
                                    "greater_is_better: true\nearly_stopping_threshold: 0.01\n");
    assert_int_equal(r->metric_for_best_model, LB_METRIC_ACCURACY);
    lb_recipe_destroy(r);
    round_trip(EVAL
               "load_best_model_at_end: true\nmetric_for_best_model: eval_ece\ngreater_is_better: false\n");
    bad("load_best_model_at_end: true\n", "load_best_model_at_end: needs eval_datasets and eval_steps");
    bad("early_stopping_patience: 2\n", "early_stopping_patience: needs eval_datasets and eval_steps");
    bad(EVAL "metric_for_best_model: loss\n", "metric_for_best_model: nothing is compared");
    bad(EVAL "early_stopping_threshold: 1\n", "early_stopping_threshold: nothing is compared");
    bad(EVAL "greater_is_better: false\n", "r.yaml:9: greater_is_better: nothing is compared");
    bad(EVAL "load_best_model_at_end: true\nearly_stopping_threshold: 1\n",
        "goes with early_stopping_patience");
    bad(EVAL "load_best_model_at_end: true\ngreater_is_better: true\n", "less is the better; drop the key");
    bad(EVAL "load_best_model_at_end: true\nmetric_for_best_model: bits_per_byte\n", "images have no bytes");
    bad(EVAL "load_best_model_at_end: true\nmetric_for_best_model: f1\n",
        "metric_for_best_model: \"f1\" is not one of");
#undef EVAL
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(optimizers),
                                       cmocka_unit_test(schedules),
                                       cmocka_unit_test(all_parts),
                                       cmocka_unit_test(adapters),
                                       cmocka_unit_test(dropout),
                                       cmocka_unit_test(averages),
                                       cmocka_unit_test(evaluations_compared)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
