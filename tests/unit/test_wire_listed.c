/* Lists of likeliest ids as tensors: order, ties, the token beyond the list, what is left, and what is
 * refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/nn/reduce.h"
#include "trainer/wire/listed.h"
#include "trainer/wire/possible.h"

#include <math.h>
#include <string.h>

#define K 3

static const struct lb_teacher_info info = {.vocab_size = 10};
static const struct lb_ask_spec spec = {.n_outputs = 5,
                                        .outputs = {{LB_OUT_TOPK_IDS, 0, LB_DT_UINT16},
                                                    {LB_OUT_TOPK_VALUES, 0, LB_DT_FP32},
                                                    {LB_OUT_REST, 0, LB_DT_FP32},
                                                    {LB_OUT_ACTUAL, 0, LB_DT_FP32},
                                                    {LB_OUT_TOPK_LOGPROBS, 0, LB_DT_FP16}},
                                        .top_k = K,
                                        .temperature = 1};

struct scene {
    struct lb_arena arena;
    struct lb_listed listed;
};

static int setup(void **state) {
    static struct scene scene;
    lb_arena_init(&scene.arena, 1 << 20);
    assert_int_equal(lb_listed_begin(&info, &spec, 2, &scene.arena, &scene.listed, NULL), LB_OK);
    *state = &scene;
    return 0;
}

static int teardown(void **state) {
    lb_arena_finish(&((struct scene *)*state)->arena);
    return 0;
}

static enum lb_status put(struct scene *scene, int64_t t, const int32_t *ids, const double *p, int64_t m,
                          int32_t own, struct lb_detail *detail) {
    int32_t some[16];
    float logprobs[16];
    for (int64_t i = 0; i < m; i++) {
        some[i] = ids[i];
        logprobs[i] = (float)log(p[i]);
    }
    return lb_listed_put(&scene->listed, t, some, logprobs, m, own, detail);
}

static float f32(const struct lb_answer *answer, size_t j, int64_t at) {
    float x;
    lb_wire_floats(&answer->tensors[j], at, 1, &x);
    return x;
}

/* In any order; an id that ties with the next is before it when it is lower; own beyond the k. */
static void test_order(void **state) {
    struct scene *scene = *state;
    struct lb_answer answer = {0};
    struct lb_detail detail = {0};
    assert_int_equal(
        put(scene, 0, (const int32_t[]){9, 7, 5, 2}, (const double[]){0.1, 0.125, 0.5, 0.125}, 4, 9, &detail),
        LB_OK);
    assert_int_equal(
        put(scene, 1, (const int32_t[]){3, 4, 1}, (const double[]){0.2, 0.3, 0.4}, 3, -1, &detail), LB_OK);
    if (lb_listed_answer(&scene->listed, &scene->arena, &answer, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    static const int32_t ids[] = {5, 2, 7, 1, 4, 3};
    static const double p[] = {0.5, 0.125, 0.125, 0.4, 0.3, 0.2};
    for (int64_t i = 0; i < 2 * K; i++) {
        assert_int_equal(lb_answer_id(&answer.tensors[0], i), ids[i]);
        assert_float_equal(f32(&answer, 1, i), (float)log(p[i]), 0);
        assert_float_equal(f32(&answer, 4, i), (float)log(p[i]), 2e-3f);
    }
    assert_float_equal(f32(&answer, 2, 0), log(0.25), 1e-6);
    assert_float_equal(f32(&answer, 2, 1), log(0.1), 1e-6);
    assert_float_equal(f32(&answer, 3, 0), (float)log(0.1), 0);
    assert_float_equal(f32(&answer, 3, 1), 0, 0); /* nobody knows */
    assert_int_equal(lb_answer_possible(&answer, 1, "x", NULL), LB_OK);
}

/* The last one listed may be the own token's equal: that one stays whose id is listed, by place. */
static void test_tie_beyond(void **state) {
    struct scene *scene = *state;
    assert_int_equal(
        put(scene, 0, (const int32_t[]){1, 8, 6, 4}, (const double[]){0.1, 0.5, 0.2, 0.1}, 4, 1, NULL),
        LB_OK);
    assert_int_equal(scene->listed.ids[K - 1], 4);
}

/* What rounding leaves of 1 is not more than ids that are less likely than the last one listed can have. */
static void test_rest(void **state) {
    struct scene *scene = *state;
    struct lb_answer answer = {0};
    /* 1 - sum is 1e-6 by rounding, the last one listed has 1e-9 */
    assert_int_equal(
        put(scene, 0, (const int32_t[]){1, 2, 3}, (const double[]){0.999999, 1e-8, 1e-9}, 3, -1, NULL),
        LB_OK);
    assert_int_equal(
        put(scene, 1, (const int32_t[]){1, 2, 3}, (const double[]){1.0001, 1e-8, 1e-9}, 3, -1, NULL), LB_OK);
    assert_int_equal(lb_listed_answer(&scene->listed, &scene->arena, &answer, NULL), LB_OK);
    assert_float_equal(f32(&answer, 2, 0), log(7e-9), 1e-3);
    assert_float_equal(f32(&answer, 2, 1), LB_LOG_LEAST_REST, 1e-3);
    assert_int_equal(lb_answer_possible(&answer, 1, "x", NULL), LB_OK);
}

static void test_refused(void **state) {
    struct scene *scene = *state;
    static const struct {
        int32_t ids[5];
        double p[5];
        int64_t m;
        int32_t own;
        const char *word;
    } cases[] = {
        {{1, 2}, {0.5, 0.1}, 2, -1, "2 ids are listed, asked was 3"},
        {{1, 2, 3, 4, 5}, {0.5, 0.1, 0.1, 0.1, 0.1}, 5, 1, "5 ids are listed"},
        {{1, 2, 10}, {0.5, 0.1, 0.1}, 3, 1, "id 10, the vocabulary ends at 9"},
        {{1, 2, -3}, {0.5, 0.1, 0.1}, 3, 1, "id -3"},
        {{1, 2, 2}, {0.5, 0.1, 0.1}, 3, 1, "id 2 is listed twice"},
        {{1, 2, 3}, {0.5, 0.1, NAN}, 3, 1, "no log-probability of id 3"},
        {{1, 2, 3}, {0.5, 0.1, 0}, 3, 1, "no log-probability of id 3"},
        {{1, 2, 3}, {0.5, 0.1, 3}, 3, 1, "logits"},
        {{1, 2, 3}, {0.9, 0.8, 0.1}, 3, 1, "sum up to 1.8"},
        {{1, 2, 3}, {0.5, 0.1, 0.1}, 3, 4, "id 4, which does, is not among those listed"},
        {{1, 2, 3, 4}, {0.5, 0.1, 0.1, 0.2}, 4, 4, "id 4 is likelier than one of the 3 likeliest"},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct lb_detail detail = {0};
        enum lb_status status = put(scene, 1, cases[c].ids, cases[c].p, cases[c].m, cases[c].own, &detail);
        if (status != LB_E_FORMAT || !strstr(detail.text, cases[c].word) ||
            !strstr(detail.text, "position 1")) {
            fail_msg("case %zu: %s: %s", c, lb_status_name(status), detail.text);
        }
    }
}

/* Only the text's own tokens: a list of none. */
static void test_own_only(void **state) {
    struct scene *scene = *state;
    static const struct lb_ask_spec own = {
        .n_outputs = 1, .outputs = {{LB_OUT_NEXT, 0, LB_DT_FP32}}, .top_k = 64, .temperature = 1};
    struct lb_listed listed;
    struct lb_answer answer = {0};
    int32_t id = 4;
    float logprob = -2;
    assert_int_equal(lb_listed_begin(&info, &own, 2, &scene->arena, &listed, NULL), LB_OK);
    assert_int_equal(lb_listed_put(&listed, 0, &id, &logprob, 1, 4, NULL), LB_OK);
    assert_int_equal(lb_listed_put(&listed, 1, &id, &logprob, 1, 4, NULL), LB_OK); /* asked with it */
    assert_int_equal(lb_listed_answer(&listed, &scene->arena, &answer, NULL), LB_OK);
    assert_float_equal(f32(&answer, 0, 0), -2, 0);
    assert_float_equal(f32(&answer, 0, 1), 0, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tie_beyond, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_own_only, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
