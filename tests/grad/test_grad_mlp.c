/* A whole training step of a classifier against finite differences: dropout, labels, two teachers' logits or
 * final states, a hidden layer through a projection.
 *
 * For each tensor the step's gradient g is compared with the change of the loss along g, as in
 * test_grad_step. Dropout draws the same masks each time. A ReLU that turns within the step would spoil the
 * comparison, so steps are small and inputs many.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/rng.h"
#include "tests/support/whole_step.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IMAGES 48
#define PIXELS 12
#define CLASSES 5
#define TEACHER_WIDTH 7
#define STEP 1e-3
#define TOLERANCE 1e-3

static struct lb_rng rng;

struct world {
    struct lb_recipe recipe;
    struct lb_recipe_teacher teachers[2];
    struct lb_model *student;
    struct lb_plan plan;
    struct lb_teacher_info info[2];
    struct lb_teacher_head head[2];
    struct lb_sample samples[IMAGES];
    struct lb_answer answers[IMAGES * 2];
    const struct lb_answer *pointers[IMAGES * 2];
    struct lb_step *step;
};

static float *normals(int64_t n) {
    float *out = malloc((size_t)n * sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < n; i++) {
        out[i] = (float)lb_rng_normal(&rng);
    }
    return out;
}

static void add(struct lb_answer *a, const char *name, int64_t width) {
    assert_int_equal(lb_output_parse(name, &a->what[a->n_tensors], NULL), LB_OK);
    a->tensors[a->n_tensors++] = (struct lb_wire_tensor){.name = name,
                                                         .datatype = LB_DT_FP32,
                                                         .n_dims = 2,
                                                         .dim = {1, width},
                                                         .data = normals(width),
                                                         .bytes = (size_t)width * sizeof(float)};
}

static void add_loss(struct world *w, const char *name, double weight, double temperature) {
    unsigned l = (unsigned)w->plan.n_losses++;
    w->plan.losses[l].loss = lb_loss_find(name);
    assert_non_null(w->plan.losses[l].loss);
    w->plan.losses[l].args = (struct lb_loss_args){.weight = weight, .temperature = temperature};
}

static void make_student(struct world *w) {
    const struct lb_config c = {.model_type = "limbeck_mlp",
                                .num_labels = CLASSES,
                                .input_size = PIXELS,
                                .n_hidden = 2,
                                .hidden_sizes = {16, 9},
                                .input_dropout = 0.2,
                                .hidden_dropout = 0.3,
                                .bos_token_id = -1,
                                .eos_token_id = -1,
                                .pad_token_id = -1};
    struct lb_detail detail = {0};
    if (lb_model_create(&c, 5, &w->student, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    /* No image's logits are all the same, which correlations have no gradient at. */
    float *bias = lb_model_find(w->student, "classifier.bias")->value;
    for (int i = 0; i < CLASSES; i++) {
        bias[i] = 0.2f * (float)(i - 1);
    }
}

/* Hidden layer 1 (16 wide) is compared with each teacher's, through a projection. */
static void add_pairs(struct world *w) {
    for (unsigned k = 0; k < 2; k++) {
        struct lb_pair *p = &w->plan.pairs[w->plan.n_pairs++];
        *p = (struct lb_pair){.loss = 2,
                              .teacher = k,
                              .tap = {LB_TAP_HIDDEN, 1, NULL},
                              .kind = LB_OUT_HIDDEN,
                              .layer = 1,
                              .student_width = 16,
                              .teacher_width = TEACHER_WIDTH};
        snprintf(p->projection, sizeof p->projection, "projection.%u.weight", k);
        assert_int_equal(lb_model_extend(w->student, p->projection, TEACHER_WIDTH, 16, 9, NULL), LB_OK);
    }
}

static struct world *make_world(const char *mixture, enum lb_target_lane lane) {
    static char names[2][2] = {"a", "b"};
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->recipe = (struct lb_recipe){.teachers = w->teachers,
                                   .teachers_count = 2,
                                   .mixture = mixture,
                                   .targets = lane,
                                   .loss_top_k = CLASSES,
                                   .temperature = 2};
    w->plan.recipe = &w->recipe;
    w->plan.mixture = lb_mixture_find(mixture);
    assert_non_null(w->plan.mixture);
    w->plan.n_teachers = 2;
    w->plan.on_label = w->plan.on_target = true;
    make_student(w);
    for (int k = 0; k < 2; k++) {
        w->teachers[k] = (struct lb_recipe_teacher){.name = names[k], .weight = 1 + k};
        w->info[k] = (struct lb_teacher_info){
            .vocab_size = CLASSES, .hidden_size = TEACHER_WIDTH, .n_layers = 1, .input_size = PIXELS};
        w->head[k] = (struct lb_teacher_head){normals(CLASSES * TEACHER_WIDTH), normals(CLASSES), CLASSES,
                                              TEACHER_WIDTH, LB_HEAD_PLAIN};
        w->plan.info[k] = &w->info[k];
        w->plan.head[k] = &w->head[k];
        w->plan.spec[k] = (struct lb_ask_spec){
            .n_outputs = 2,
            .outputs = {{lane == LB_LANE_LOGITS ? LB_OUT_LOGITS : LB_OUT_HIDDEN_FINAL, 0, LB_DT_FP32},
                        {LB_OUT_HIDDEN, 1, LB_DT_FP32}},
            .top_k = CLASSES};
    }
    add_loss(w, "cross_entropy", 0.4, 1);
    add_loss(w, "kl", 0.7, 2);
    add_loss(w, "hs_mse", 0.5, 1);
    add_loss(w, "dist", 0.6, 2);
    w->plan.losses[3].args.beta = 1;
    w->plan.losses[3].args.gamma = 2; /* between the images */
    add_pairs(w);
    for (int i = 0; i < IMAGES; i++) {
        w->samples[i] =
            (struct lb_sample){.n = 1, .features = normals(PIXELS), .label = i % CLASSES, .tag = -1};
        for (int k = 0; k < 2; k++) {
            struct lb_answer *a = &w->answers[i * 2 + k];
            if (lane == LB_LANE_LOGITS) {
                add(a, "logits", CLASSES);
            } else {
                add(a, "hidden_states.final", TEACHER_WIDTH);
            }
            add(a, "hidden_states.1", TEACHER_WIDTH);
            w->pointers[i * 2 + k] = a;
        }
    }
    w->pointers[1] = NULL; /* the second teacher did not answer about the first image */
    w->step = lb_step_create(&w->plan, w->student, (size_t)1 << 28);
    assert_non_null(w->step);
    return w;
}

static double run(struct world *w) {
    struct lb_step_result result = {0};
    struct lb_detail detail = {0};
    struct lb_rng masks;
    size_t n;
    float *grads = lb_model_grads(w->student, &n);
    memset(grads, 0, n * sizeof *grads);
    lb_rng_seed(&masks, 2, 2);
    if (lb_whole_step(w->step, w->samples, IMAGES, w->pointers, IMAGES, &masks, &result, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    return result.loss;
}

/* dL along the direction, at w + e and w - e. */
static double along(struct world *w, const struct lb_weight *weight, const float *keep,
                    const double *direction, double e) {
    int64_t n = weight->rows * weight->cols;
    double side[2];
    for (int s = 0; s < 2; s++) {
        for (int64_t i = 0; i < n; i++) {
            weight->value[i] = (float)(keep[i] + (s == 0 ? e : -e) * direction[i]);
        }
        side[s] = run(w);
    }
    memcpy(weight->value, keep, (size_t)n * sizeof *keep);
    return (side[0] - side[1]) / (2 * e);
}

static double check_tensor(struct world *w, const struct lb_weight *weight, const float *g) {
    int64_t n = weight->rows * weight->cols;
    float *keep = malloc((size_t)n * sizeof *keep);
    double *direction = malloc((size_t)n * sizeof *direction), norm = 0;
    assert_true(keep != NULL && direction != NULL);
    memcpy(keep, weight->value, (size_t)n * sizeof *keep);
    for (int64_t i = 0; i < n; i++) {
        norm += (double)g[i] * (double)g[i];
    }
    norm = sqrt(norm);
    assert_true(norm > 0);
    for (int64_t i = 0; i < n; i++) {
        direction[i] = (double)g[i] / norm;
    }
    double measured = along(w, weight, keep, direction, STEP), error = fabs(measured - norm) / norm;
    if (error > TOLERANCE) {
        fail_msg("%s: along its gradient the loss changes by %.6g, the gradient says %.6g", weight->name,
                 measured, norm);
    }
    free(keep);
    free(direction);
    return error;
}

static void check(const char *name, const char *mixture, enum lb_target_lane lane) {
    struct world *w = make_world(mixture, lane);
    size_t n, n_grads;
    const struct lb_weight *weights = lb_model_weights(w->student, &n);
    double worst = 0;
    (void)run(w);
    float *grads = lb_model_grads(w->student, &n_grads), *analytic = malloc(n_grads * sizeof *analytic);
    assert_non_null(analytic);
    memcpy(analytic, grads, n_grads * sizeof *analytic);
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, check_tensor(w, &weights[i], analytic + (weights[i].grad - grads)));
    }
    printf("%-44s %zu tensors, largest relative error %.2e\n", name, n, worst);
    free(analytic);
    for (int i = 0; i < IMAGES; i++) {
        free((void *)(uintptr_t)w->samples[i].features);
        for (int k = 0; k < 2; k++) {
            for (size_t j = 0; j < w->answers[i * 2 + k].n_tensors; j++) {
                free((void *)(uintptr_t)w->answers[i * 2 + k].tensors[j].data);
            }
        }
    }
    for (int k = 0; k < 2; k++) {
        free(w->head[k].weight);
        free(w->head[k].bias);
    }
    lb_step_destroy(w->step);
    lb_model_destroy(w->student);
    free(w);
}

static void logits(void **state) {
    (void)state;
    check("mean of probabilities, logits", "mean_probs", LB_LANE_LOGITS);
    check("ca_mkd, logits", "ca_mkd", LB_LANE_LOGITS);
}

static void final_states(void **state) {
    (void)state;
    check("mean of logits, final states", "mean_logits", LB_LANE_FINAL);
    check("mean of losses, final states", "mean_losses", LB_LANE_FINAL);
    check("ca_mkd, final states", "ca_mkd", LB_LANE_FINAL);
}

int main(void) {
    lb_rng_seed(&rng, 1, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits),
        cmocka_unit_test(final_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
