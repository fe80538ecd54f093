/* What a recipe may say of losses on distributions, and what is refused, in which words. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/mem.h"
#include "trainer/loss/loss.h"
#include "trainer/recipe/recipe.h"

#include <math.h>
#include <string.h>

static const char good[] =
    "student: {hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 1}\n"
    "tokenizer: t.json\n"
    "datasets: [{path: a.txt}]\n"
    "teachers: [{name: N, url: 'http://h:1'}, {name: V, url: 'http://h:2'}]\n"
    "loss_functions: [{function: kl}, {function: hs_mse}]\n"
    "max_steps: 100\n"
    "output_dir: o\n";

/* The recipe with one thing changed or added; NULL, and the text of detail, when it is refused. */
static struct lb_recipe *with(const char *lane, const char *set, struct lb_detail *detail) {
    const char *const sets[] = {lane, set};
    struct lb_recipe *recipe = NULL;
    *detail = (struct lb_detail){0};
    bool ok = lb_recipe_parse(good, strlen(good), "r.yaml", sets, 2, &recipe, detail) == LB_OK;
    return ok ? recipe : NULL;
}

struct expected {
    const char *set, *message; /* "": it is right */
};

static void expect(const char *lane, const struct expected *cases, size_t n) {
    for (size_t i = 0; i < n; i++) {
        struct lb_detail detail;
        struct lb_recipe *recipe = with(lane, cases[i].set, &detail);
        bool right = recipe != NULL
                         ? cases[i].message[0] == '\0'
                         : cases[i].message[0] != '\0' && strstr(detail.text, cases[i].message) != NULL;
        if (!right) {
            fail_msg("%s, %s: \"%s\", not \"%s\"", lane, cases[i].set, detail.text, cases[i].message);
        }
        lb_recipe_destroy(recipe);
    }
}

static void parameters(void **state) {
    (void)state;
    static const struct expected cases[] = {
        {"loss_functions.1={function: cross_entropy, label_smoothing: 0.1, z_loss: 1e-4, clamp: 10}", ""},
        {"loss_functions.1={function: cross_entropy, label_smoothing: 1.5}",
         "loss_functions.1.label_smoothing: 1.5 is out of range; allowed is 0 to 1"},
        {"loss_functions.1={function: jsd, beta: 0}", ""},
        {"loss_functions.1={function: jsd, beta: 1.5}",
         "loss_functions.1: jsd: beta is of 0 (forward KL) to 1 (reverse KL)"},
        {"loss_functions.1={function: skew_kl, alpha: 1}",
         "loss_functions.1: skew_kl: alpha is of 0 to less"},
        {"loss_functions.1={function: skew_reverse_kl, beta: 0.1}",
         "loss_functions.1.beta: skew_reverse_kl does not read it; its keys are weight, teachers, "
         "temperature, alpha, clamp"},
        {"loss_functions.1={function: abkd, alpha: 0.01}",
         "loss_functions.1: abkd: alpha and beta are each 0, or of 0.05 to 2"},
        {"loss_functions.1={function: logit_mse}", "loss_functions.1: logit_mse compares logits, which a "
                                                   "mean of several teachers' probabilities (mixture: "},
        {"loss_functions.1={function: logit_mse, teachers: [N]}", ""},
        {"loss_functions.1={function: hs_mse, clamp: 1}", "loss_functions.1.clamp: hs_mse does not read it"},
        {"loss_functions.0.clamp=0", "loss_functions.0.clamp: 0 is out of range"},
        {"loss_functions.0.loss_max_clamp=5", "unknown key; did you mean clamp?"},
        {"loss_functions.0.label_smoothing_factor=1", "unknown key; did you mean label_smoothing?"},
        {"loss_functions.0={function: kl, weight: 0, weight_end: 1, anneal: cosine, anneal_steps: 50}", ""},
        {"loss_functions.0={function: kl, temperature: 4, temperature_end: 1, anneal: linear}", ""},
        {"loss_functions.0={function: kl, weight_end: 1}",
         "loss_functions.0: weight_end, temperature_end and "},
        {"loss_functions.0={function: kl, anneal: linear}", "loss_functions.0: anneal needs weight_end or "},
        {"loss_functions.1={function: hs_mse, anneal: linear, temperature_end: 1}",
         "loss_functions.1.temperature_end: hs_mse does not read it"},
        {"sample_count=10", "sample_count: nothing is drawn; set targets: samples"},
    };
    expect("targets=logits", cases, sizeof cases / sizeof cases[0]);
}

/* Layers by a list or a rule, and what else losses on activations take. */
static void layers(void **state) {
    (void)state;
    static const struct expected cases[] = {
        {"loss_functions.1.layer_mapping=uniform", ""},
        {"loss_functions.1={function: attention_mse, layer_mapping: skip}", ""},
        {"loss_functions.1={function: attention_kl}",
         "attention_kl needs layer_mapping: [{student: N, teacher: M}, ...], or uniform, last or skip"},
        {"loss_functions.1.layer_mapping=every",
         "loss_functions.1.layer_mapping: \"every\" is not one of uniform, last, skip"},
        {"loss_functions.1.layer_mapping=unifrom", "; did you mean uniform?"},
        {"loss_functions.0.layer_mapping=last", "loss_functions.0.layer_mapping: kl does not read it"},
        {"loss_functions.1={function: minilm_vv, relation_heads: 2}", ""},
        {"loss_functions.1={function: minilm_qq, layer_mapping: [{student: 0, teacher: -1}]}",
         "attention layers are numbered from 0"},
        {"loss_functions.1={function: minilm_kk, layer_mapping: [{student: 1, teacher: 0}]}",
         "the student has no layer 1 there; its last is 0"},
        {"loss_functions.1={function: hs_mse, relation_heads: 2}",
         "loss_functions.1.relation_heads: hs_mse does not read it"},
        {"loss_functions.1={function: pkd, first_token: true}", ""},
        {"loss_functions.1={function: hs_cosine, first_token: true}",
         "loss_functions.1.first_token: hs_cosine does not read it"},
    };
    expect("targets=logits", cases, sizeof cases / sizeof cases[0]);
}

/* A rule in place of a list of layers is written back and decides. */
static void rule_of_layers(void **state) {
    (void)state;
    struct lb_detail detail;
    struct lb_recipe *a = with("targets=logits", "loss_functions.1.layer_mapping=skip", &detail);
    struct lb_recipe *other = with("targets=logits", "loss_functions.1.layer_mapping=last", &detail), *b;
    char *text = NULL, f1[65], f2[65], f3[65], told[256];
    size_t n = 0;
    assert_true(a != NULL && other != NULL);
    assert_int_equal(a->loss_functions[1].layer_rule, LB_LAYERS_SKIP);
    assert_int_equal(a->loss_functions[1].layer_mapping_count, 0);
    assert_int_equal(lb_recipe_dump(a, &text, &n, NULL), LB_OK);
    assert_non_null(strstr(text, "layer_mapping: skip\n"));
    assert_int_equal(lb_recipe_parse(text, n, "r.yaml", NULL, 0, &b, &detail), LB_OK);
    assert_int_equal(b->loss_functions[1].layer_rule, LB_LAYERS_SKIP);
    assert_int_equal(lb_recipe_fingerprint(a, f1), LB_OK);
    assert_int_equal(lb_recipe_fingerprint(b, f2), LB_OK);
    assert_int_equal(lb_recipe_fingerprint(other, f3), LB_OK);
    assert_string_equal(f1, f2);
    assert_string_not_equal(f1, f3);
    assert_true(lb_recipe_difference(a, other, told, sizeof told));
    assert_string_equal(told, "there loss_functions.1.layer_mapping: skip, "
                              "here loss_functions.1.layer_mapping: last");
    lb_free(text);
    lb_recipe_destroy(a);
    lb_recipe_destroy(b);
    lb_recipe_destroy(other);
}

static void lanes(void **state) {
    (void)state;
    static const struct expected lists[] = {
        {"loss_functions.0.function=dkd", "loss_functions.0: dkd cannot learn from targets: topk; use "
                                          "final_hidden or logits, or take one that can: "
                                          "kl, reverse_kl, jsd, skew_kl, "},
        {"loss_functions.0.function=abkd", "loss_functions.0: abkd: alpha + beta is not 1, so lists"},
        {"loss_functions.0={function: abkd, alpha: 0.5, beta: 0.5}", ""},
        {"loss_functions.0={function: kl, anneal: linear, temperature_end: 2}",
         "loss_functions.0: temperature_end needs whole distributions; targets: topk"},
    };
    static const struct expected draws[] = {
        {"loss_functions.0.function=reverse_kl", "loss_functions.0: reverse_kl cannot learn from targets: "
                                                 "samples; use final_hidden or logits or topk, or take "
                                                 "one that can: kl"},
        {"mixture=mean_logits", "mean_logits needs whole logits, and targets: samples has draws only"},
        {"loss_functions.0.temperature=2", "samples count at the recipe's temperature 1"},
        {"sample_temperature=2", ""},
    };
    expect("targets=topk", lists, sizeof lists / sizeof lists[0]);
    expect("targets=samples", draws, sizeof draws / sizeof draws[0]);
}

/* Which keys a mixture reads, and by which lanes its weights can be told. */
static void mixtures(void **state) {
    (void)state;
    static const struct expected mean[] = {
        {"mixture_by=ce", "mixture_by: mean_probs does not read it; dynamic and select do"},
        {"mixture_temperature=2", "mixture_temperature: mean_probs does not read it; dynamic does"},
        {"mixture_per=token", "mixture_per: mean_probs has the same weights everywhere; leave it out"},
        {"mixture=select", ""},
        {"mixture=entropy", ""},
        {"mixture=randomly", "did you mean random?"},
        {"mixture=aekd", ""},
        {"mixture_states=student", "mixture_states: mean_probs does not read it; ca_mkd does"},
    };
    static const struct expected dynamic[] = {
        {"mixture_by=max_prob", ""},
        {"mixture_temperature=0.1", ""},
        {"mixture_by=confidence", "\"confidence\" is not one of ce, entropy, max_prob"},
        {"mixture_per=token", ""},
        {"mixture_per=batch", "mixture_per: dynamic has weights per sequence or token"},
        {"targets=samples", ""}, /* by ce */
    };
    static const struct expected drawn[] = {
        {"mixture_per=batch", ""},
        {"mixture_per=token", "mixture_per: random has weights per sequence or batch"},
        {"mixture_by=ce", "mixture_by: random does not read it"},
    };
    static const struct expected entropy[] = {
        {"targets=topk", ""},
        {"targets=samples",
         "mixture: entropy weighs by the entropy of each teacher, which draws (targets: samples) "
         "do not tell; use targets: final_hidden, logits or topk, or weigh by"},
        {"temperature=2", ""}, /* whole distributions */
    };
    static const struct expected lists[] = {
        {"mixture=entropy",
         "mixture: entropy weighs by the entropy of each teacher at temperature 1, and targets: "
         "topk is asked at temperature 2 only; use targets: final_hidden or logits, or "},
        {"mixture=dynamic", ""},
    };
    static const struct expected annealed[] = {
        {"teachers.0.weight_end=0", "teachers.0: weight_end and anneal_steps need anneal: linear or cosine"},
        {"teachers.0.anneal=linear", "teachers.0: anneal needs weight_end: where to"},
        {"teachers.0={name: N, url: 'http://h:1', weight: 1, weight_end: 0, anneal: cosine, anneal_steps: "
         "50}",
         ""},
        {"teachers=[{name: N, url: 'http://h:1', weight_end: 0, anneal: linear}]",
         "teachers: every weight is 0 at the end"},
        {"teachers.0={name: N, url: 'http://h:1', weight: 0, weight_end: 2, anneal: linear}", ""},
    };
    expect("mixture=mean_probs", annealed, sizeof annealed / sizeof annealed[0]);
    expect("targets=logits", mean, sizeof mean / sizeof mean[0]);
    expect("mixture=dynamic", dynamic, sizeof dynamic / sizeof dynamic[0]);
    expect("mixture=random", drawn, sizeof drawn / sizeof drawn[0]);
    expect("mixture=entropy", entropy, sizeof entropy / sizeof entropy[0]);
    struct lb_detail detail;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        const char *const sets[] = {"targets=topk", "temperature=2", lists[i].set};
        struct lb_recipe *recipe = NULL;
        detail = (struct lb_detail){0};
        bool ok = lb_recipe_parse(good, strlen(good), "r.yaml", sets, 3, &recipe, &detail) == LB_OK;
        assert_true(ok == (lists[i].message[0] == '\0'));
        assert_non_null(strstr(detail.text, lists[i].message));
        lb_recipe_destroy(recipe);
    }
}

/* What a recipe is silent about stays open until the loss fills it in, and is not written back. */
static void open_parameters(void **state) {
    (void)state;
    struct lb_detail detail;
    struct lb_recipe *recipe =
        with("targets=samples", "loss_functions.1={function: jsd, weight: 0}", &detail);
    assert_null(recipe); /* jsd is not for draws */
    recipe = with("targets=logits", "loss_functions.1={function: abkd, beta: 0}", &detail);
    assert_non_null(recipe);
    assert_int_equal(recipe->sample_count, 0);
    struct lb_loss_args args = recipe->loss_functions[1].args;
    assert_true(isnan(args.alpha) && args.beta == 0 && isnan(args.clamp));
    lb_loss_fill(lb_loss_find("abkd"), &args);
    assert_true(args.alpha == 0.2 && args.beta == 0 && args.clamp == 0);
    char *text = NULL;
    size_t len;
    assert_int_equal(lb_recipe_dump(recipe, &text, &len, &detail), LB_OK);
    assert_non_null(strstr(text, "beta: 0\n"));
    assert_true(strstr(text, "alpha") == NULL && strstr(text, "clamp") == NULL &&
                strstr(text, "nan") == NULL && strstr(text, "anneal") == NULL &&
                strstr(text, "sample_") == NULL && strstr(text, "mixture_") == NULL &&
                strstr(text, "_end") == NULL);
    lb_free(text);
    lb_recipe_destroy(recipe);
    recipe = with("targets=samples", "max_steps=5", &detail);
    assert_non_null(recipe);
    assert_int_equal(recipe->sample_count, 50);
    lb_recipe_destroy(recipe);
}

static void fingerprint_with(const char *first, const char *second, char out[65]) {
    struct lb_detail detail;
    struct lb_recipe *recipe = with(first, second, &detail);
    if (recipe == NULL) {
        fail_msg("%s, %s: %s", first, second, detail.text);
    }
    assert_int_equal(lb_recipe_fingerprint(recipe, out), LB_OK);
    lb_recipe_destroy(recipe);
}

/* A run goes on with a recipe that says what was meant before, and not with one that says something else. */
static void what_is_meant_decides_nothing(void **state) {
    (void)state;
    static const struct {
        const char *silent, *meant, *other;
    } cases[] = {
        {"targets=logits", "optim=adamw_torch", "optim=lion_32bit"},
        {"targets=logits", "optim=adamw_torch_fused", "optim=sgd"},
        {"targets=logits", "disable_dropout=false", "disable_dropout=true"},
        {"student={model: m}", "disable_dropout=true", "disable_dropout=false"},
        {"mixture=dynamic", "mixture_by=ce", "mixture_by=entropy"},
        {"mixture=dynamic", "mixture_per=sequence", "mixture_per=token"},
        {"mixture=random", "mixture_per=sequence", "mixture_per=batch"},
        {"mixture=dynamic", "mixture_temperature=1.0", "mixture_temperature=0.5"},
        {"mixture=ca_mkd", "mixture_states=teacher", "mixture_states=student"},
        {"lmbda=0.5", "max_new_tokens=128", "max_new_tokens=127"},
        {"lmbda=0.5", "generation_temperature=1", "generation_temperature=0"},
        {"lmbda=0.5", "top_p=1", "top_p=0.9"},
        {"seq_kd=true", "seq_kd_ratio=1", "seq_kd_ratio=0"},
        {"loss_functions.1={function: hs_contrastive}", "loss_functions.1.contrast_temp=0.07",
         "loss_functions.1.contrast_temp=0.7"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char silent[65], meant[65], other[65];
        fingerprint_with(cases[i].silent, "save_steps=7", silent);
        fingerprint_with(cases[i].silent, cases[i].meant, meant);
        fingerprint_with(cases[i].silent, cases[i].other, other);
        if (strcmp(silent, meant) != 0 || strcmp(silent, other) == 0) {
            fail_msg("%s: %s decides, or %s does not", cases[i].silent, cases[i].meant, cases[i].other);
        }
    }
}

/* A key that one of two recipes has is not told as if the next one were another. */
static void keys_that_are_not_there(void **state) {
    (void)state;
    static const struct {
        const char *set, *told;
    } cases[] = {
        {"optim=sgd", "there no optim, here optim: sgd"},
        {"mixture_per=token", "there no mixture_per, here mixture_per: token"},
        {"loss_functions.0.clamp=5", "there no loss_functions.0.clamp, here loss_functions.0.clamp: 5"},
        {"max_steps=7", "there max_steps: 100, here max_steps: 7"},
    };
    struct lb_detail detail;
    struct lb_recipe *there = with("mixture=entropy", "warmup_from_zero=true", &detail);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const sets[] = {"mixture=entropy", "warmup_from_zero=true", cases[i].set};
        struct lb_recipe *here = NULL;
        char text[256];
        assert_int_equal(lb_recipe_parse(good, strlen(good), "r.yaml", sets, 3, &here, &detail), LB_OK);
        assert_true(lb_recipe_difference(there, here, text, sizeof text));
        assert_string_equal(text, cases[i].told);
        assert_true(lb_recipe_difference(here, there, text, sizeof text));
        assert_int_equal(strncmp(text, "there ", 6), 0);
        assert_int_equal(strstr(text, ", here no ") != NULL, i < 3);
        lb_recipe_destroy(here);
    }
    lb_recipe_destroy(there);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(parameters),
                                       cmocka_unit_test(layers),
                                       cmocka_unit_test(rule_of_layers),
                                       cmocka_unit_test(lanes),
                                       cmocka_unit_test(mixtures),
                                       cmocka_unit_test(open_parameters),
                                       cmocka_unit_test(what_is_meant_decides_nothing),
                                       cmocka_unit_test(keys_that_are_not_there)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
