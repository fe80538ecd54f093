/* Which layers of student and teacher are compared: rules of layer_mapping at several depths. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "trainer/learn/parts.h"

#include <stdio.h>
#include <string.h>

struct world {
    struct lb_recipe recipe;
    struct lb_recipe_loss loss;
    struct lb_recipe_teacher teacher;
    struct lb_teacher_info info;
    struct lb_plan plan;
    struct lb_model *student;
};

static void begin(struct world *w, const char *function, enum lb_layer_rule rule, int own, int64_t its) {
    const struct lb_config c = {.model_type = "llama",
                                .vocab_size = 9,
                                .hidden_size = 4,
                                .intermediate_size = 4,
                                .num_hidden_layers = own,
                                .num_attention_heads = 2,
                                .num_key_value_heads = 2,
                                .head_dim = 2,
                                .max_position_embeddings = 8,
                                .norm_eps = 1e-5,
                                .rope_theta = 100,
                                .bos_token_id = -1,
                                .pad_token_id = -1};
    memset(w, 0, sizeof *w);
    assert_int_equal(lb_model_create(&c, 1, &w->student, NULL), LB_OK);
    w->loss = (struct lb_recipe_loss){.function = function, .layer_rule = rule};
    w->teacher = (struct lb_recipe_teacher){.name = "T", .weight = 1};
    w->info = (struct lb_teacher_info){.vocab_size = 9, .hidden_size = 6, .n_heads = 3, .n_layers = its};
    w->recipe.loss_functions = &w->loss;
    w->recipe.loss_functions_count = 1;
    w->recipe.teachers = &w->teacher;
    w->recipe.gradient_accumulation_steps = 1;
    w->plan.recipe = &w->recipe;
    w->plan.n_teachers = w->plan.n_losses = 1;
    w->plan.info[0] = &w->info;
    w->plan.losses[0].loss = lb_loss_find(function);
}

static void end(struct world *w) {
    lb_model_destroy(w->student);
}

/* "student:teacher ..." of the pairs that come of it. */
static void expect(const char *function, enum lb_layer_rule rule, int own, int64_t its, const char *want) {
    struct world w;
    struct lb_detail detail = {0};
    char have[256] = "";
    size_t n = 0;
    begin(&w, function, rule, own, its);
    if (lb_plan_pairs(&w.plan, w.student, 0, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    bool attention = w.plan.losses[0].loss->on == LB_ON_ATTENTION;
    for (size_t i = 0; i < w.plan.n_pairs; i++) {
        const struct lb_pair *p = &w.plan.pairs[i];
        n += (size_t)snprintf(have + n, sizeof have - n, "%s%d:%d", i > 0 ? " " : "", p->tap.layer, p->layer);
        assert_false(p->final);
        assert_int_equal(p->kind, attention ? LB_OUT_ATTENTION : LB_OUT_HIDDEN);
        assert_int_equal(p->tap.kind, attention ? LB_TAP_ATTENTION : LB_TAP_HIDDEN);
        assert_int_equal(w.plan.spec[0].outputs[i].layer, p->layer);
    }
    assert_string_equal(have, want);
    end(&w);
}

static void rules(void **state) {
    (void)state;
    /* PKD's own: 6 of 12; TinyBERT's: 4 of 12. */
    expect("hs_mse", LB_LAYERS_SKIP, 6, 12, "1:2 2:4 3:6 4:8 5:10");
    expect("hs_mse", LB_LAYERS_LAST, 6, 12, "1:7 2:8 3:9 4:10 5:11");
    expect("hs_cosine", LB_LAYERS_UNIFORM, 4, 12, "0:0 1:3 2:6 3:9 4:12");
    expect("attention_mse", LB_LAYERS_UNIFORM, 4, 12, "0:2 1:5 2:8 3:11");
    expect("attention_mse", LB_LAYERS_SKIP, 4, 12, "0:2 1:5 2:8");
    expect("attention_mse", LB_LAYERS_LAST, 4, 12, "0:8 1:9 2:10");
    /* Depths that are no multiples: rounded, halves up. */
    expect("hs_mse", LB_LAYERS_UNIFORM, 4, 6, "0:0 1:2 2:3 3:5 4:6");
    expect("hs_mse", LB_LAYERS_SKIP, 4, 30, "1:8 2:15 3:23");
    expect("hs_mse", LB_LAYERS_UNIFORM, 1, 1, "0:0 1:1");
    expect("hs_mse", LB_LAYERS_LAST, 2, 2, "1:1");
}

static void refuse(const char *function, enum lb_layer_rule rule, int own, int64_t its, const char *why) {
    struct world w;
    struct lb_detail detail = {0};
    begin(&w, function, rule, own, its);
    assert_int_equal(lb_plan_pairs(&w.plan, w.student, 0, &detail), LB_E_ARG);
    if (strstr(detail.text, why) == NULL || strstr(detail.text, "loss_functions.0.layer_mapping") == NULL) {
        fail_msg("%s", detail.text);
    }
    end(&w);
}

static void no_rule(void **state) {
    (void)state;
    refuse("hs_mse", LB_LAYERS_UNIFORM, 3, 2, "the student has 3 layers, teacher T has 2");
    refuse("hs_mse", LB_LAYERS_SKIP, 1, 4, "the student has no other");
    refuse("attention_mse", LB_LAYERS_LAST, 1, 4, "the student has no other");
    refuse("hs_mse", LB_LAYERS_UNIFORM, 2, 0, "teacher T does not tell how many layers");
}

/* What losses among rows need is refused by name where it is not there. */
static void among_rows(void **state) {
    (void)state;
    struct lb_detail detail = {0};
    struct world w;
    begin(&w, "pkd", LB_LAYERS_UNIFORM, 2, 2);
    w.plan.losses[0].args.first_token = true;
    assert_int_equal(lb_plan_pairs(&w.plan, w.student, 0, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "loss_functions.0.first_token: a llama's first position"));
    end(&w);

    /* Of a text's positions: no need of anything, and no projection. */
    begin(&w, "similarity_preserving", LB_LAYERS_UNIFORM, 2, 2);
    w.recipe.gradient_accumulation_steps = 2;
    assert_int_equal(lb_plan_pairs(&w.plan, w.student, 0, NULL), LB_OK);
    assert_int_equal(w.plan.n_pairs, 3);
    assert_string_equal(w.plan.pairs[1].projection, "");
    end(&w);

    /* Where a sample has one row: batches that nothing cuts, or nothing at all. */
    const struct lb_config mlp = {
        .model_type = "limbeck_mlp", .input_size = 3, .num_labels = 2, .n_hidden = 1, .hidden_sizes = {4}};
    const struct {
        const char *function, *why;
        int64_t accumulate, batch;
    } cases[] = {{"similarity_preserving", "set gradient_accumulation_steps: 1", 2, 8},
                 {"similarity_preserving", "per_device_train_batch_size", 1, 1},
                 {"similarity_preserving", "", 1, 8},
                 {"attention_transfer", "compares positions of a text", 1, 8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin(&w, cases[i].function, LB_LAYERS_UNIFORM, 2, 1);
        lb_model_destroy(w.student);
        assert_int_equal(lb_model_create(&mlp, 1, &w.student, NULL), LB_OK);
        w.info.input_size = 3;
        w.recipe.gradient_accumulation_steps = cases[i].accumulate;
        w.recipe.per_device_train_batch_size = cases[i].batch;
        detail = (struct lb_detail){0};
        assert_int_equal(lb_plan_pairs(&w.plan, w.student, 0, &detail),
                         cases[i].why[0] != '\0' ? LB_E_ARG : LB_OK);
        if (strstr(detail.text, cases[i].why) == NULL) {
            fail_msg("%s", detail.text);
        }
        end(&w);
    }
}

/* Queries, keys and values: which of both sides, by heads that divide both. */
static void relations(void **state) {
    (void)state;
    const struct {
        const char *function, *why;
        int64_t heads, width;
        enum lb_output_kind kind;
        enum lb_tap_kind tap;
    } cases[] = {
        {"minilm_qq", NULL, 0, 6, LB_OUT_QUERIES, LB_TAP_QUERIES},
        {"minilm_kk", NULL, 4, 12, LB_OUT_KEYS, LB_TAP_KEYS},
        {"minilm_vv", NULL, 1, 5, LB_OUT_VALUES, LB_TAP_VALUES},
        {"minilm_qq", "relation_heads: 3 heads do not divide the student's 4 columns and the 6", 3, 6,
         LB_OUT_QUERIES, LB_TAP_QUERIES},
        {"minilm_vv", "teacher T does not give values.4, of which minilm_vv is made", 0, 0, LB_OUT_VALUES,
         LB_TAP_VALUES},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lb_detail detail = {0};
        struct world w;
        begin(&w, cases[i].function, LB_LAYERS_LISTED, 2, 5);
        w.plan.losses[0].args.relation_heads = cases[i].heads;
        w.info.n_given = 1;
        w.info.given[0] = (struct lb_given){(uint16_t)cases[i].kind, 4, (int32_t)cases[i].width};
        enum lb_status status = lb_plan_pairs(&w.plan, w.student, 0, &detail);
        const struct lb_pair *p = &w.plan.pairs[0];
        if (cases[i].why != NULL) {
            assert_int_equal(status, LB_E_ARG);
            assert_non_null(strstr(detail.text, cases[i].why));
        } else { /* without a mapping of the last blocks; nothing is projected */
            assert_int_equal(status, LB_OK);
            assert_true(p->tap.kind == cases[i].tap && p->tap.layer == 1);
            assert_true(p->kind == cases[i].kind && p->layer == 4 && p->projection[0] == '\0');
            assert_int_equal(w.plan.losses[0].args.relation_heads, cases[i].heads > 0 ? cases[i].heads : 2);
            assert_int_equal(w.plan.spec[0].outputs[0].kind, cases[i].kind);
        }
        end(&w);
    }
}

/* Without a mapping the final states are compared. */
static void final(void **state) {
    (void)state;
    struct world w;
    begin(&w, "hs_mse", LB_LAYERS_LISTED, 2, 2);
    assert_int_equal(lb_plan_pairs(&w.plan, w.student, 0, NULL), LB_OK);
    assert_int_equal(w.plan.n_pairs, 1);
    assert_true(w.plan.pairs[0].final && w.plan.pairs[0].kind == LB_OUT_HIDDEN_FINAL);
    assert_string_equal(w.plan.pairs[0].projection, "projection.0.0.weight");
    end(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules),     cmocka_unit_test(no_rule), cmocka_unit_test(among_rows),
        cmocka_unit_test(relations), cmocka_unit_test(final),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
