/* One daemon asked in each dialect that its facades speak: what all of them can say is the same number in
 * each. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "tests/e2e/both.h"
#include "tests/e2e/hosts.h"
#include "tests/support/asking.h"
#include "tests/support/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N 7
#define SCORED 3

static char folder[] = "/tmp/limbeck-test-XXXXXX";
static struct host *host;
static struct lb_sample *samples;

static void must(enum lb_status status, const struct lb_detail *detail) {
    if (status != LB_OK) {
        fail_msg("%s: %s", lb_status_name(status), detail->text);
    }
}

static int setup(void **state) {
    (void)state;
    struct lb_config config;
    char path[64];
    if (!mkdtemp(folder)) {
        return -1;
    }
    lb_tiny_llama(&config);
    snprintf(path, sizeof path, "%s/tiny", folder);
    lb_tiny_save(&config, 1, path, LB_F32, false);
    host = host_start(folder, "tiny", path, NULL);
    samples = asking_samples(N, 5, false);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    host_kill(host);
    asking_free_samples(samples, N);
    return lb_remove_tree(folder, NULL);
}

/* Asks by oip and by the other dialect, and holds the answers against each other. */
static void compare(enum lb_protocol protocol, const struct lb_ask_spec *spec, double near) {
    both_compare(host_url(host), host_url(host), protocol, 97, spec, samples, N, near);
}

static void test_lists(void **state) {
    (void)state;
    static const struct lb_ask_spec spec = {.n_outputs = 5,
                                            .outputs = {{LB_OUT_TOPK_IDS, 0, LB_DT_UINT16},
                                                        {LB_OUT_TOPK_VALUES, 0, LB_DT_FP32},
                                                        {LB_OUT_REST, 0, LB_DT_FP32},
                                                        {LB_OUT_ACTUAL, 0, LB_DT_FP32},
                                                        {LB_OUT_TOPK_LOGPROBS, 0, LB_DT_FP32}},
                                            .top_k = 20,
                                            .temperature = 1};
    compare(LB_PROTOCOL_VLLM, &spec, 2e-6);
    struct lb_ask_spec few = spec;
    few.top_k = 5;
    compare(LB_PROTOCOL_OPENAI, &few, 2e-6);
    struct lb_ask_spec own = {.n_outputs = 1, .outputs = {{LB_OUT_NEXT, 0, LB_DT_FP32}}, .temperature = 1};
    compare(LB_PROTOCOL_OPENAI, &own, 1e-6);
    compare(LB_PROTOCOL_VLLM, &own, 1e-6); /* a bit of the last */
}

static void test_states(void **state) {
    (void)state;
    static const struct lb_ask_spec spec = {
        .n_outputs = 1, .outputs = {{LB_OUT_HIDDEN_FINAL, 0, LB_DT_FP16}}, .temperature = 1};
    compare(LB_PROTOCOL_VLLM, &spec, 0);
}

static void test_chosen_ids(void **state) {
    (void)state;
    static const struct lb_ask_spec spec = {.n_outputs = 1,
                                            .outputs = {{LB_OUT_AT_LOGPROBS, 0, LB_DT_FP32}},
                                            .temperature = 1,
                                            .n_scored = SCORED};
    static int32_t values[N][16 * SCORED];
    struct lb_extra extras[N];
    for (int i = 0; i < N; i++) {
        for (int64_t c = 0; c < samples[i].n * SCORED; c++) {
            values[i][c] = c % 5 == 4 ? -1 : (int32_t)((i * 31 + c * 7) % 97);
        }
        extras[i] = (struct lb_extra){LB_IN_SCORE_IDS, values[i], SCORED};
        samples[i].extra = &extras[i];
    }
    compare(LB_PROTOCOL_VLLM, &spec, 1e-6);
    for (int i = 0; i < N; i++) {
        samples[i].extra = NULL;
    }
}

/* Lists and states come from two endpoints, and no one question asks both. */
static void test_unlike_lanes(void **state) {
    (void)state;
    static const struct lb_ask_spec both = {
        .n_outputs = 2,
        .outputs = {{LB_OUT_HIDDEN_FINAL, 0, LB_DT_FP16}, {LB_OUT_ACTUAL, 0, LB_DT_FP32}},
        .temperature = 1};
    struct asking asking;
    struct lb_teachers *teachers = NULL;
    struct lb_detail detail = {0};
    asking_setup(&asking);
    asking_add(&asking, host_url(host));
    asking.teachers[0].protocol = LB_PROTOCOL_VLLM;
    must(lb_teachers_open_recipe(&asking.recipe, NULL, &teachers, &detail), &detail);
    lb_teachers_assume_vocab(teachers, 0, 97);
    assert_int_equal(lb_teachers_set_spec(teachers, 0, &both, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "hidden_states.final and logprobs.actual by different endpoints"));
    lb_teachers_close(teachers);
    asking_teardown(&asking);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_chosen_ids),
        cmocka_unit_test(test_unlike_lanes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
