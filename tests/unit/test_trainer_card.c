/* What a student's card says of its losses, and of how it was trained and held out. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/scratch.h"
#include "tests/support/tiny_model.h"
#include "trainer/run/card.h"

#include <string.h>

static const char text[] =
    "student: {hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 1}\n"
    "tokenizer: t.json\n"
    "datasets: [{path: a.txt}]\n"
    "teachers: [{name: N, url: 'http://h:1'}]\n"
    "loss_functions:\n"
    "- {function: cross_entropy, weight: 0.5}\n"
    "- {function: kl}\n"
    "- {function: logit_mse, weight: 2, weight_end: 0, anneal: cosine}\n"
    "- {function: jsd, temperature: 4, temperature_end: 1, anneal: linear}\n"
    "temperature: 3\n"
    "targets: logits\n"
    "max_steps: 100\n"
    "output_dir: o\n";

/* Where a weight or temperature moves, from where to where; no temperature where a loss has none. */
static void losses(void **state) {
    (void)state;
    static const char *const lines[] = {"\n| `cross_entropy` | 0.5 |  |\n", "\n| `kl` | 1 | 3 |\n",
                                        "\n| `logit_mse` | 2 to 0 (cosine) |  |\n",
                                        "\n| `jsd` | 1 | 4 to 1 (linear) |\n"};
    struct lb_detail detail = {0};
    struct lb_config config;
    struct lb_buf out;
    struct lb_card card = {.name = "student", .run_dir = "no/such/folder", .steps = 100, .tokens = 1};
    struct lb_recipe *recipe = NULL;
    struct lb_model *model = NULL;
    lb_tiny_llama(&config);
    assert_int_equal(lb_recipe_parse(text, strlen(text), "r.yaml", NULL, 0, &recipe, &detail), LB_OK);
    assert_int_equal(lb_model_create(&config, 3, &model, &detail), LB_OK);
    card.recipe = recipe;
    card.model = model;
    lb_buf_init(&out, 1 << 16);
    assert_int_equal(lb_card_write(&card, &out, &detail), LB_OK);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        if (strstr(out.data, lines[i]) == NULL) {
            fail_msg("no %s in\n%s", lines[i], out.data);
        }
    }
    /* A run that had its best evaluation at the exported step, and others after it. */
    static const char metrics[] = "{\"step\": 40, \"loss\": 3}\n{\"step\": 40, \"eval_loss\": 2.5}\n"
                                  "{\"step\": 50, \"eval_loss\": 2.75}\n";
    assert_int_equal(lb_file_replace(lb_in_scratch("metrics.jsonl"), metrics, sizeof metrics - 1, NULL),
                     LB_OK);
    card.run_dir = lb_scratch;
    card.steps = 40;
    recipe->lr_scheduler_type = LB_SCHEDULE_WSD;
    lb_buf_reset(&out);
    assert_int_equal(lb_card_write(&card, &out, &detail), LB_OK);
    assert_non_null(strstr(out.data, "\n40 steps, 1 tokens, learning rate "));
    assert_non_null(strstr(out.data, " (warmup_stable_decay), seed "));
    assert_non_null(strstr(out.data, "\n## Held-out data, after step 40\n"));
    assert_non_null(strstr(out.data, "\n| loss | 2.5 |\n"));
    assert_null(strstr(out.data, "2.75"));
    lb_buf_finish(&out);
    lb_model_destroy(model);
    lb_recipe_destroy(recipe);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(losses)};
    return cmocka_run_group_tests(tests, lb_scratch_make, lb_scratch_remove);
}
