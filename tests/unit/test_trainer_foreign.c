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

#define TRL                                                                                                  \
    "model_name_or_path: m\nteacher_model_name_or_path: t\ndataset_name: x.jsonl\nmax_length: "              \
    "8\noutput_dir: "                                                                                        \
    "o\n"
#define KIT "model: m\ndataset: {train_dataset: {disk_path: x.txt}}\nsequence_length: 8\noutput_path: o\n"
#define HF_ "teacher: {kind: hf, path: t}\n"
#define KL_ "loss_functions: [{function: kl, weight: 1}]\n"
#define AXOLOTL                                                                                              \
    "base_model: m\nkd_trainer: true\nkd_online_server_base_url: http://h:1\nkd_online_topk: 4\n"            \
    "output_dir: o\nlearning_rate: 1.0e-5\n"
#define CHAT_ "datasets: [{path: x.jsonl, type: chat_template}]\n"

/* A value that is none of its kind is refused by name, and not taken for another. */
static void values_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *line;
    } cases[] = {
        {TRL "lmbda: half\n", "r.yaml:6: lmbda: \"half\" is not a number"},
        {TRL "lmbda: [0]\n", "r.yaml:6: lmbda: must be one value"},
        {TRL "lmbda: 0\nbeta: [1]\n", "r.yaml:7: beta: must be one value"},
        {TRL "lmbda: 1\ntop_k: many\n", "r.yaml:7: top_k: texts are drawn by"},
        {TRL "lmbda: 0\nloss_top_k: many\n", "r.yaml:7: loss_top_k: \"many\" is not a whole number"},
        {TRL "max_completion_length: 8\ntemperature: [1]\n", "r.yaml:7: temperature: must be one value"},
        {TRL "dataset_text_field: [a]\n", "r.yaml:6: field: must be one value"},
        {TRL "warmup_ratio: 0.5\nwarmup_steps: 0.1\n", "r.yaml:7: warmup_steps: is warmup_ratio here, which"},
        {TRL "save_steps: [1]\n", "r.yaml:6: save_steps: must be one value"},
        {TRL "max_completion_length: 8\nmax_new_tokens: 9\n", "r.yaml:7: max_new_tokens: says nothing here"},
        {TRL "lmbda: 0.5\ntop_k: 0\ndatasets: y.jsonl\n", "r.yaml:8: datasets: says nothing here"},
        {TRL "data_seed: 0\n", "r.yaml:6: data_seed: order and first weights have one seed"}, /* 0 is one */
        {KIT HF_ KL_ "training_args: [a]\n", "r.yaml:7: training_args: says nothing here"},
        {KIT HF_ KL_ "frozen_modules: lm_head\n", "r.yaml:7: frozen_modules: says nothing here"},
        {AXOLOTL "datasets: [{path: x.jsonl, type: chat_template}, {path: y.jsonl, type: alpaca}]\n"
                 "train_on_inputs: true\n",
         "r.yaml:8: train_on_inputs: of chat_template it says nothing, and of the other"},
        {AXOLOTL CHAT_ "test_datasets: y.jsonl\n", "r.yaml:8: test_datasets: says nothing here"},
        {AXOLOTL CHAT_ "kd_online_server: [sglang]\n", "r.yaml:8: kd_online_server: says nothing here"},
        {KIT HF_ "loss_functions: [{function: kl, weight: much}]\n",
         "r.yaml:6: loss_functions.0.weight: \"much\" is not a number"},
        {KIT HF_ "loss_functions: [{function: kl, temperature: [1]}]\n",
         "r.yaml:6: temperature: must be one value"},
        {KIT KL_ "teacher: {kind: vllm, base_url: 'http://h:1', top_k: [4]}\n",
         "r.yaml:6: loss_top_k: must be one value"},
        {AXOLOTL CHAT_ "kd_ce_alpha: much\n", "r.yaml:8: loss_functions.1.weight: \"much\" is not a number"},
        {AXOLOTL CHAT_ "kd_ce_alpha: -1\n", "r.yaml:8: loss_functions.1.weight: -1 is out of range"},
        {AXOLOTL CHAT_ "kd_beta: much\n", "r.yaml:8: loss_functions.0.beta: \"much\" is not a number"},
        {AXOLOTL CHAT_ "kd_alpha: [1]\n", "r.yaml:8: weight: must be one value"},
        {AXOLOTL CHAT_ "kd_temperature: [1]\n", "r.yaml:8: temperature: must be one value"},
        {AXOLOTL "datasets: [{path: x.jsonl, type: chat_template, roles_to_train: [user]}]\n",
         "r.yaml:7: datasets.0: roles_to_train: the assistant's messages count"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lb_recipe *r = NULL;
        struct lb_buf lines;
        lb_buf_init(&lines, 1 << 20);
        enum lb_status status =
            lb_recipe_parse_all(cases[i].text, strlen(cases[i].text), "r.yaml", NULL, 0, &lines, &r, NULL);
        if (status == LB_OK || strstr(lines.data, cases[i].line) == NULL) {
            fail_msg("expected: %s\n but was: %s", cases[i].line, status == LB_OK ? "taken" : lines.data);
        }
        lb_buf_finish(&lines);
    }
}

/* Nothing is said about what would follow from a key that was refused. */
static void nothing_follows(void **state) {
    (void)state;
    static const char text[] = AXOLOTL CHAT_ "adapter: qlora\nlora_r: 8\n";
    struct lb_recipe *r = NULL;
    struct lb_buf lines;
    lb_buf_init(&lines, 1 << 20);
    assert_int_equal(lb_recipe_parse_all(text, strlen(text), "r.yaml", NULL, 0, &lines, &r, NULL),
                     LB_E_UNSUPPORTED);
    assert_string_equal(lines.data, "r.yaml:8: adapter: \"qlora\" is not there; lora is\n");
    lb_buf_finish(&lines);
    static const char nobody[] = "base_model: m\nkd_trainer: true\nkd_online_server_model: t\n"
                                 "output_dir: o\n" CHAT_;
    lb_buf_init(&lines, 1 << 20);
    assert_int_equal(lb_recipe_parse_all(nobody, strlen(nobody), "r.yaml", NULL, 0, &lines, &r, NULL),
                     LB_E_UNSUPPORTED);
    assert_null(strstr(lines.data, "kd_online_server_model"));
    lb_buf_finish(&lines);
}

/* What a file does not say is what its tool takes then. */
static void silence_means_theirs(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum lb_completion_only counts;
        enum lb_yes_no undropped;
        int64_t max_length;
        double warmup_ratio;
        bool from_zero;
        const char *note;
    } cases[] = {
        {TRL "lmbda: 0.5\nwarmup_steps: 0.25\ndisable_dropout: false\n", LB_COMPLETION_ONLY_YES, LB_NO, 8,
         0.25, true, "r.yaml:8: disable_dropout: taken"},
        {TRL "completion_only_loss: false\nuse_peft: true\n", LB_COMPLETION_ONLY_NO, LB_NOT_SAID, 8, 0, false,
         "lora_target_modules: with a difference"},
        {KIT HF_ KL_, LB_COMPLETION_ONLY_BY_ROW, LB_NO, 8, 0, false,
         "disable_dropout: false, which DistillKit"},
        {TRL "warmup_ratio: 0.5\nwarmup_steps: 0\n", LB_COMPLETION_ONLY_YES, LB_NOT_SAID, 8, 0.5, true,
         "r.yaml:7: warmup_steps: taken"},
        {TRL "lmbda: 0.5\nrepetition_penalty: 1.0\ntop_k: 0\n", LB_COMPLETION_ONLY_YES, LB_NOT_SAID, 8, 0,
         false, "r.yaml:8: top_k: left out: off here"},
        {KIT HF_ KL_ "layer_mapping: [[1, 2]]\nfrozen_modules: []\n", LB_COMPLETION_ONLY_BY_ROW, LB_NO, 8, 0,
         false, "r.yaml:7: layer_mapping: left out: no loss"},
        {AXOLOTL CHAT_ "adapter: lora\nlora_dropout: 0\n", LB_COMPLETION_ONLY_YES, LB_NO, 512, 0.03, true,
         "r.yaml:9: lora_dropout: left out"},
        {AXOLOTL CHAT_, LB_COMPLETION_ONLY_YES, LB_NO, 512, 0.03, true, "warmup_ratio: 0.03, which Axolotl"},
        {AXOLOTL CHAT_ "train_on_inputs: true\nwarmup_ratio: 0.5\nsequence_len: 9\n", LB_COMPLETION_ONLY_YES,
         LB_NO, 9, 0.5, true, "train_on_inputs: left out"},
        {AXOLOTL "datasets: [{path: x.jsonl, type: alpaca}]\ntrain_on_inputs: true\nwarmup_steps: 3\n",
         LB_COMPLETION_ONLY_NO, LB_NO, 512, 0, true, "train_on_inputs: taken as completion_only_loss"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lb_recipe *r = NULL;
        struct lb_detail detail = {0};
        if (lb_recipe_parse(cases[i].text, strlen(cases[i].text), "r.yaml", NULL, 0, &r, &detail) != LB_OK) {
            fail_msg("%zu: %s", i, detail.text);
        }
        assert_int_equal(r->completion_only_loss, cases[i].counts);
        assert_int_equal(r->disable_dropout, cases[i].undropped);
        assert_int_equal(r->max_length, cases[i].max_length);
        assert_true(r->warmup_ratio == cases[i].warmup_ratio);
        assert_int_equal(r->warmup_from_zero, cases[i].from_zero);
        if (strstr(r->notes, cases[i].note) == NULL) {
            fail_msg("expected: %s\n but was: %s", cases[i].note, r->notes);
        }
        lb_recipe_destroy(r);
    }
}

/* Axolotl's warm-up where its file has none: of steps that it gives as there, of epochs by what they come to.
 */
static void silent_warmup(void **state) {
    (void)state;
    static const struct {
        const char *more, *set;
        int64_t steps, most;
        double ratio;
    } cases[] = {{"max_steps: 5000\n", NULL, 100, 0, 0},
                 {"max_steps: 1000\n", NULL, 30, 0, 0},
                 {"max_steps: 99\n", NULL, 2, 0, 0},
                 {"max_steps: 50\n", NULL, 2, 0, 0},
                 {"max_steps: 33\n", NULL, 0, 0, 0},
                 {"num_epochs: 3\n", NULL, 0, 100, 0.03},
                 {"max_steps: 1000\n", "max_steps=20", 0, 100, 0.03},
                 {"max_steps: 1000\nwarmup_steps: 0\n", NULL, 0, 100, 0.03},
                 {"max_steps: 1000\nwarmup_steps: 7\n", NULL, 7, 0, 0},
                 {"max_steps: 1000\nwarmup_ratio: 0.5\n", NULL, 0, 0, 0.5},
                 {"max_steps: 1000\n", "warmup_steps=5", 5, 0, 0},
                 {"num_epochs: 3\n", "warmup_steps=5", 5, 0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[1024];
        struct lb_recipe *r = NULL;
        struct lb_detail detail = {0};
        snprintf(text, sizeof text, "%s%s", AXOLOTL CHAT_, cases[i].more);
        if (lb_recipe_parse(text, strlen(text), "r.yaml", &cases[i].set, cases[i].set != NULL, &r, &detail) !=
            LB_OK) {
            fail_msg("%zu: %s", i, detail.text);
        }
        assert_int_equal(r->warmup_steps, cases[i].steps);
        assert_int_equal(r->warmup_max_steps, cases[i].most);
        assert_true(r->warmup_ratio == cases[i].ratio);
        lb_recipe_destroy(r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silent_warmup),
        cmocka_unit_test(values_are_refused),
        cmocka_unit_test(silence_means_theirs),
        cmocka_unit_test(nothing_follows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
