/* Weights of samples in a whole step: gradients against finite differences, a sample of weight 2 against one
 * that stands there twice, one of weight 0 against none, and the step in micro-batches. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/grad/step_world.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void weigh(struct lb_world *w, const double *often) {
    double positions = 0, samples = 0;
    for (int s = 0; s < SAMPLES; s++) {
        w->samples[s].weight = &often[s];
        positions += often[s] * (double)w->samples[s].n;
        samples += often[s];
    }
    lb_step_set_weight(w->step, positions, samples);
}

static void differences(void **state) {
    (void)state;
    static const double often[SAMPLES] = {2, 0.5, 1.25};
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        const struct lb_loss *loss = lb_loss_at(i);
        for (int l = 0; l < (loss->on == LB_ON_TARGET ? 2 : 1); l++) {
            if (lb_world_serves(lb_world_lanes[l], loss) && lb_world_smooth(loss)) {
                struct lb_world *w = lb_world_create(lb_world_mean(loss), lb_world_lanes[l], true, loss);
                weigh(w, often);
                lb_world_check(loss->name, w, false);
            }
        }
    }
}

/* A step of the world's samples which [n], in micro-batches of `each`; gradients into grads. */
static struct lb_step_result run(struct lb_world *w, const int *which, int n, int each, float *grads) {
    struct lb_sample samples[SAMPLES];
    const struct lb_answer *answers[SAMPLES * 2];
    struct lb_step_result result = {0};
    struct lb_step_totals totals = {.square = {0}};
    struct lb_detail detail = {0};
    enum lb_status status = LB_OK;
    size_t n_grads;
    int64_t positions = 0;
    float *own = lb_model_grads(w->student, &n_grads);
    memset(own, 0, n_grads * sizeof *own);
    for (int i = 0; i < n; i++) {
        samples[i] = w->samples[which[i]];
        answers[2 * i] = w->pointers[2 * which[i]];
        answers[2 * i + 1] = w->pointers[2 * which[i] + 1];
        positions += samples[i].n;
    }
    for (int i = 0; i < n && status == LB_OK; i += each) {
        lb_rng_seed(&lb_worlds.rng, 2, 2);
        status = lb_step_forward(w->step, samples + i, each, &lb_worlds.rng, NULL, &detail);
        if (i == 0 && status == LB_OK) {
            status = lb_step_count(w->step, samples, n, answers, &totals, &detail);
        }
        status = status == LB_OK
                     ? lb_step_losses(w->step, answers + 2 * i, positions, &totals, &result, &detail)
                     : status;
    }
    if (status != LB_OK) {
        fail_msg("%s", detail.text);
    }
    memcpy(grads, own, n_grads * sizeof *own);
    return result;
}

static void same(const char *what, const struct lb_world *w, const struct lb_step_result *a,
                 const struct lb_step_result *b, const float *one, const float *other, size_t n) {
    double apart = lb_world_apart(one, other, n);
    printf("%-22s %s: loss off by %.1e, gradient by %.1e of its norm\n", w->plan.losses[0].name, what,
           fabs(a->loss - b->loss), apart);
    assert_true(apart < 1e-5);
    for (size_t i = 0; i < w->plan.n_losses; i++) {
        assert_true(fabs(a->term[i] - b->term[i]) < 1e-6 * fabs(a->term[i]));
    }
    for (unsigned k = 0; k < 2; k++) {
        assert_true(fabs(a->weight[k] - b->weight[k]) < 1e-9);
    }
}

/* Those that compare the samples of a batch with each other see a sample once, however often it counts. */
static bool among_samples(const struct lb_loss *loss) {
    return loss->on == LB_ON_SENTENCE && loss->among != LB_AMONG_NONE;
}

static void twice(void **state) {
    (void)state;
    static const double often[SAMPLES] = {1, 2, 0};
    static const int all[SAMPLES] = {0, 1, 2}, listed[SAMPLES] = {0, 1, 1};
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        const struct lb_loss *loss = lb_loss_at(i);
        for (int lane = 0; lane < 2; lane++) {
            if (!lb_world_serves(lb_world_lanes[lane], loss) || among_samples(loss)) {
                continue;
            }
            for (int m = 0; m < (loss->on_logits ? 1 : 2); m++) {
                const struct lb_mixture *mixture = m == 0 ? lb_world_mean(loss) : lb_mixture_find("ca_mkd");
                struct lb_world *w = lb_world_create(mixture, lb_world_lanes[lane], true, loss);
                size_t n;
                (void)lb_model_grads(w->student, &n);
                float *one = malloc(n * sizeof *one), *other = malloc(n * sizeof *other);
                assert_true(one != NULL && other != NULL);
                struct lb_step_result a = run(w, listed, SAMPLES, SAMPLES, one);
                weigh(w, often);
                struct lb_step_result b = run(w, all, SAMPLES, SAMPLES, other);
                same("listed twice", w, &a, &b, one, other, n);
                b = run(w, all, SAMPLES, 1, other);
                same("cut", w, &a, &b, one, other, n);
                free(one);
                free(other);
                lb_world_destroy(w);
            }
        }
    }
}

/* Texts of classes: means are over these. */
static void twice_of_classes(void **state) {
    lb_worlds.classes = true;
    (void)state;
    static const double often[SAMPLES] = {1, 2, 0};
    static const int all[SAMPLES] = {0, 1, 2}, listed[SAMPLES] = {0, 1, 1};
    for (int lane = 0; lane < 2; lane++) {
        static const char *const losses[] = {"cross_entropy", "kl", "hs_mse"};
        struct lb_world *w = lb_world_create(lb_mixture_find("mean_probs"), lb_world_lanes[lane], false,
                                             lb_loss_find(losses[0]));
        lb_world_add(w, lb_loss_find(losses[1]), lb_world_lanes[lane]);
        lb_world_add(w, lb_loss_find(losses[2]), lb_world_lanes[lane]);
        size_t n;
        (void)lb_model_grads(w->student, &n);
        float *one = malloc(n * sizeof *one), *other = malloc(n * sizeof *other);
        assert_true(one != NULL && other != NULL);
        struct lb_step_result a = run(w, listed, SAMPLES, SAMPLES, one);
        weigh(w, often);
        struct lb_step_result b = run(w, all, SAMPLES, SAMPLES, other);
        same("classes", w, &a, &b, one, other, n);
        free(one);
        free(other);
        lb_world_destroy(w);
    }
    lb_worlds.classes = false;
}

/* Where nothing weighs anything, nothing is learnt, and no loss is anything but 0. */
static void nothing(void **state) {
    (void)state;
    static const double often[SAMPLES] = {0, 0, 0};
    struct lb_world *w = lb_world_create(lb_mixture_find("mean_probs"), LB_LANE_FINAL, true, NULL);
    weigh(w, often);
    assert_true(lb_world_run(w) == 0);
    size_t n;
    const float *grads = lb_model_grads(w->student, &n);
    for (size_t i = 0; i < n; i++) {
        assert_true(grads[i] == 0);
    }
    lb_world_destroy(w);
}

int main(void) {
    lb_rng_seed(&lb_worlds.rng, 1, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(differences),
        cmocka_unit_test(twice),
        cmocka_unit_test(twice_of_classes),
        cmocka_unit_test(nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
