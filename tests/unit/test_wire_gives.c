/* What a server gives, by the ladder, and what a run is told that asks for more. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "trainer/wire/dialect.h"

#include <math.h>
#include <string.h>

/* A server that lists ids, and nothing else. */
static struct lb_teacher_info lister(int64_t most) {
    struct lb_teacher_info info = {.vocab_size = 500, .most_top_k = most, .plain_only = true, .n_given = 4};
    const enum lb_output_kind kinds[] = {LB_OUT_TOPK_IDS, LB_OUT_TOPK_VALUES, LB_OUT_REST, LB_OUT_ACTUAL};
    for (size_t i = 0; i < 4; i++) {
        info.given[i].kind = (uint16_t)kinds[i];
    }
    return info;
}

static const struct lb_ask_spec of_lists = {.n_outputs = 3,
                                            .outputs = {{LB_OUT_TOPK_IDS, 0, LB_DT_INT32},
                                                        {LB_OUT_TOPK_VALUES, 0, LB_DT_FP32},
                                                        {LB_OUT_REST, 0, LB_DT_FP32}},
                                            .top_k = 20,
                                            .temperature = 1};

static void refused(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                    const char *const *words) {
    struct lb_detail detail = {0};
    assert_int_equal(lb_info_gives(info, spec, "x", &detail), LB_E_ARG);
    for (; *words; words++) {
        if (!strstr(detail.text, *words)) {
            fail_msg("\"%s\" lacks: %s", detail.text, *words);
        }
    }
}

static void test_rungs(void **state) {
    (void)state;
    struct lb_teacher_info info = lister(20);
    assert_int_equal(lb_info_rungs(&info), 1u << LB_RUNG_OWN | 1u << LB_RUNG_TOP_20);
    info.most_top_k = 21;
    assert_int_equal(lb_info_rungs(&info), 1u << LB_RUNG_OWN | 1u << LB_RUNG_TOP_20 | 1u << LB_RUNG_TOP_K);
    info.most_top_k = 0;
    info.given[info.n_given++].kind = LB_OUT_HIDDEN_FINAL;
    assert_int_equal(lb_info_rungs(&info),
                     1u << LB_RUNG_OWN | 1u << LB_RUNG_TOP_20 | 1u << LB_RUNG_TOP_K | 1u << LB_RUNG_FINAL);
    assert_int_equal(lb_output_rung(LB_OUT_LOGITS), LB_RUNG_LOGITS);
    assert_int_equal(lb_output_rung(LB_OUT_LOGSUMEXP), LB_RUNG_LOGITS);
    assert_int_equal(lb_output_rung(LB_OUT_AT_LOGPROBS), LB_RUNG_CHOSEN);
    assert_int_equal(lb_output_rung(LB_OUT_NEXT), LB_RUNG_OWN);
    assert_int_equal(lb_output_rung(LB_OUT_KEYS), LB_RUNG_INNER);
    for (int r = LB_RUNG_OWN; r < LB_N_RUNGS; r++) {
        assert_non_null(strstr(lb_rungs_text(), lb_rung_name((enum lb_rung)r)));
    }
}

static void test_refused(void **state) {
    (void)state;
    struct lb_teacher_info info = lister(20);
    struct lb_ask_spec spec = of_lists;
    assert_int_equal(lb_info_gives(&info, &spec, "x", NULL), LB_OK);
    spec.top_k = 21;
    refused(&info, &spec,
            (const char *const[]){"teacher x lists at most 20", "loss_top_k: 20", "max_logprobs", NULL});
    info.vocab_size = 20; /* all there are */
    assert_int_equal(lb_info_gives(&info, &spec, "x", NULL), LB_OK);
    spec = of_lists;
    spec.temperature = 2;
    refused(&info, &spec, (const char *const[]){"temperature 1 only", "asks for 2", "temperature: 1", NULL});
    spec = (struct lb_ask_spec){.n_outputs = 1, .outputs = {{LB_OUT_NEXT, 0, LB_DT_FP32}}, .temperature = 2};
    info.given[3].kind = LB_OUT_NEXT; /* at 1, whatever the question is at */
    assert_int_equal(lb_info_gives(&info, &spec, "x", NULL), LB_OK);
    spec.outputs[0].kind = LB_OUT_HIDDEN_FINAL;
    refused(&info, &spec,
            (const char *const[]){"does not give hidden_states.final", "logits.topk_ids", lb_rungs_text(),
                                  "it has own token, top-20; this needs final state", NULL});
}

static void test_probes(void **state) {
    (void)state;
    struct lb_teacher_info info = {.probe = {{.n = 2, .at = {-3, -5}}, {.n = 2, .at = {30, -40}}}};
    struct lb_told_probe now = info.probe[LB_PROBE_LOGPROBS];
    assert_true(lb_probe_same(&info, LB_PROBE_LOGPROBS, &now));
    now.at[1] = -5.09f; /* 0.045 on the mean */
    assert_true(lb_probe_same(&info, LB_PROBE_LOGPROBS, &now));
    now.at[0] = -3.02f;
    assert_false(lb_probe_same(&info, LB_PROBE_LOGPROBS, &now));
    now = info.probe[LB_PROBE_STATES];
    now.at[0] = 33; /* 1.5 of sqrt(1250) */
    assert_true(lb_probe_same(&info, LB_PROBE_STATES, &now));
    now.at[0] = 34;
    assert_false(lb_probe_same(&info, LB_PROBE_STATES, &now));
    now = info.probe[LB_PROBE_LOGPROBS];
    now.n = 1;
    assert_false(lb_probe_same(&info, LB_PROBE_LOGPROBS, &now));
    now.n = 2;
    now.at[0] = NAN;
    assert_false(lb_probe_same(&info, LB_PROBE_LOGPROBS, &now));
    now.n = info.probe[LB_PROBE_LOGPROBS].n = 0; /* nothing was said: nothing is known */
    assert_false(lb_probe_same(&info, LB_PROBE_LOGPROBS, &now));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rungs),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_probes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
