/* Losses on activations within a step: what they come to is known where the teacher's answer is the student's
 * own activation plus a constant. The gradients of a step are held against finite differences in tests/grad;
 * a weight or a denominator that both lack is seen here only. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/model/model.h"
#include "tests/support/tiny_model.h"
#include "tests/support/whole_step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLES 3
#define TEACHERS 2
#define LAYER 1
#define MAX_T 11

static const int64_t lengths[SAMPLES] = {1, 6, MAX_T};
/* Both teachers answer about all samples but the second, which only the first answers. */
static const double mixture[SAMPLES][TEACHERS] = {{0.25, 0.75}, {1, 0}, {0.25, 0.75}};
static const double apart[TEACHERS] = {0.5, 0.125};

struct scene {
    struct lb_config config;
    struct lb_model *student;
    struct lb_tape *tape; /* owns the student's own activations */
    struct lb_value *hidden, *attention;
    struct lb_recipe recipe;
    struct lb_recipe_teacher teachers[TEACHERS];
    struct lb_teacher_info info[TEACHERS];
    struct lb_plan plan;
    int32_t ids[SAMPLES][MAX_T + 1], all_ids[SAMPLES * MAX_T], offsets[SAMPLES + 1];
    struct lb_sample samples[SAMPLES];
    struct lb_answer answers[SAMPLES][TEACHERS];
    const struct lb_answer *pointers[SAMPLES * TEACHERS];
    int64_t rows;
};

/* The student's hidden state after layer LAYER and attention of layer 0. */
static void run_student(struct scene *s) {
    struct lb_detail detail = {0};
    lb_tiny_llama(&s->config);
    if (lb_model_create(&s->config, 3, &s->student, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    for (int i = 0; i < SAMPLES; i++) {
        for (int64_t t = 0; t <= lengths[i]; t++) {
            s->ids[i][t] = (int32_t)((7 * t + 13 * i + 5) % s->config.vocab_size);
        }
        memcpy(s->all_ids + s->rows, s->ids[i], (size_t)lengths[i] * sizeof(int32_t));
        s->samples[i] = (struct lb_sample){.ids = s->ids[i], .n = lengths[i], .tag = -1};
        s->rows += lengths[i];
        s->offsets[i + 1] = (int32_t)s->rows;
    }
    struct lb_input in = {.ragged = {SAMPLES, s->offsets}, .ids = s->all_ids};
    struct lb_tap taps[2] = {{LB_TAP_HIDDEN, LAYER, NULL}, {LB_TAP_ATTENTION, 0, NULL}};
    s->tape = lb_tape_create((size_t)1 << 26);
    assert_non_null(s->tape);
    lb_tape_begin(s->tape, LB_TAPE_TRAIN, &in.ragged, NULL);
    assert_non_null(lb_model_forward(s->student, s->tape, &in, taps, 2, NULL));
    s->hidden = taps[0].value;
    s->attention = taps[1].value;
}

static void add_tensor(struct lb_answer *answer, const char *name, int n_dims, int64_t d0, int64_t d1,
                       int64_t d2, float *data) {
    assert_int_equal(lb_output_parse(name, &answer->what[answer->n_tensors], NULL), LB_OK);
    answer->tensors[answer->n_tensors++] =
        (struct lb_wire_tensor){.name = name,
                                .datatype = LB_DT_FP32,
                                .n_dims = n_dims,
                                .dim = {d0, d1, d2},
                                .data = data,
                                .bytes = (size_t)(d0 * d1 * (n_dims == 3 ? d2 : 1)) * sizeof(float)};
}

/* Attention of `heads` heads whose entries (or whose means over heads, where the numbers differ) are off the
 * student's by `off`. own [student_heads, T, T] */
static float *attention_near(const float *own, int64_t student_heads, int64_t heads, int64_t t, double off) {
    float *out = malloc((size_t)(heads * t * t) * sizeof *out);
    assert_non_null(out);
    for (int64_t h = 0; h < heads; h++) {
        for (int64_t i = 0; i < t * t; i++) {
            double mean = 0;
            for (int64_t g = 0; g < student_heads; g++) {
                mean += own[g * t * t + i] / (double)student_heads;
            }
            double value = heads == student_heads ? own[h * t * t + i] : mean;
            out[h * t * t + i] = (float)(i % t <= i / t ? value + off : 0);
        }
    }
    return out;
}

static void answer_all(struct scene *s, int64_t teacher_heads) {
    int64_t width = s->config.hidden_size, heads = s->config.num_attention_heads, at = 0;
    for (int i = 0; i < SAMPLES; i++) {
        int64_t t = lengths[i];
        for (int k = 0; k < TEACHERS; k++) {
            float *states = malloc((size_t)(t * width) * sizeof *states);
            assert_non_null(states);
            for (int64_t j = 0; j < t * width; j++) {
                states[j] = (float)(s->hidden->data[s->offsets[i] * width + j] + apart[k]);
            }
            add_tensor(&s->answers[i][k], "hidden_states.1", 2, t, width, 1, states);
            add_tensor(&s->answers[i][k], "attentions.0", 3, teacher_heads, t, t,
                       attention_near(s->attention->data + at, heads, teacher_heads, t, apart[k]));
            s->pointers[i * TEACHERS + k] = mixture[i][k] > 0 ? &s->answers[i][k] : NULL;
        }
        at += heads * t * t;
    }
}

static void plan_pairs(struct scene *s, int64_t teacher_heads) {
    static char name[] = "t";
    s->recipe = (struct lb_recipe){.teachers = s->teachers,
                                   .teachers_count = TEACHERS,
                                   .mixture = "mean_probs",
                                   .targets = LB_LANE_FINAL,
                                   .loss_top_k = 4,
                                   .temperature = 1};
    s->plan.recipe = &s->recipe;
    s->plan.mixture = lb_mixture_find("mean_probs");
    s->plan.n_teachers = TEACHERS;
    s->plan.n_losses = 2;
    s->plan.losses[0].loss = lb_loss_find("hs_mse");
    s->plan.losses[1].loss = lb_loss_find("attention_mse");
    for (unsigned l = 0; l < 2; l++) {
        assert_non_null(s->plan.losses[l].loss);
        s->plan.losses[l].args = (struct lb_loss_args){.weight = 1, .temperature = 1};
    }
    for (unsigned k = 0; k < TEACHERS; k++) {
        s->teachers[k] = (struct lb_recipe_teacher){.name = name, .weight = k == 0 ? 1 : 3};
        s->info[k] = (struct lb_teacher_info){.vocab_size = s->config.vocab_size,
                                              .hidden_size = s->config.hidden_size,
                                              .n_layers = s->config.num_hidden_layers,
                                              .n_heads = (int)teacher_heads};
        s->plan.info[k] = &s->info[k];
        s->plan.pairs[s->plan.n_pairs++] = (struct lb_pair){.loss = 0,
                                                            .teacher = k,
                                                            .tap = {LB_TAP_HIDDEN, LAYER, NULL},
                                                            .kind = LB_OUT_HIDDEN,
                                                            .layer = LAYER,
                                                            .student_width = s->config.hidden_size,
                                                            .teacher_width = s->config.hidden_size};
        s->plan.pairs[s->plan.n_pairs++] = (struct lb_pair){.loss = 1,
                                                            .teacher = k,
                                                            .tap = {LB_TAP_ATTENTION, 0, NULL},
                                                            .kind = LB_OUT_ATTENTION,
                                                            .layer = 0,
                                                            .student_width = s->config.num_attention_heads,
                                                            .teacher_width = teacher_heads};
    }
}

static void check(int64_t teacher_heads) {
    struct scene *s = calloc(1, sizeof *s);
    struct lb_step_result result = {0};
    struct lb_detail detail = {0};
    struct lb_rng rng;
    assert_non_null(s);
    lb_rng_seed(&rng, 1, 1);
    run_student(s);
    answer_all(s, teacher_heads);
    plan_pairs(s, teacher_heads);
    struct lb_step *step = lb_step_create(&s->plan, s->student, (size_t)1 << 26);
    assert_non_null(step);
    if (lb_whole_step(step, s->samples, SAMPLES, s->pointers, s->rows, &rng, &result, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    /* Each entry is off by the teacher's constant: its square is every row's mean, whatever widths, heads and
     * lengths. Rows count by the mixture's weight of their sample's teacher. */
    double expected = 0;
    for (int i = 0; i < SAMPLES; i++) {
        for (int k = 0; k < TEACHERS; k++) {
            expected += mixture[i][k] * apart[k] * apart[k] * (double)lengths[i] / (double)s->rows;
        }
    }
    for (int l = 0; l < 2; l++) {
        if (fabs(result.term[l] - expected) > 1e-5) {
            fail_msg("%s, %d heads: %.7f instead of %.7f", s->plan.losses[l].loss->name, (int)teacher_heads,
                     result.term[l], expected);
        }
    }
    for (int i = 0; i < SAMPLES; i++) {
        for (int k = 0; k < TEACHERS; k++) {
            free((void *)(uintptr_t)s->answers[i][k].tensors[0].data);
            free((void *)(uintptr_t)s->answers[i][k].tensors[1].data);
        }
    }
    lb_step_destroy(step);
    lb_tape_destroy(s->tape);
    lb_model_destroy(s->student);
    free(s);
}

static void test_equal_heads(void **state) {
    (void)state;
    check(4);
}

static void test_other_heads(void **state) {
    (void)state;
    check(3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_heads),
        cmocka_unit_test(test_other_heads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
