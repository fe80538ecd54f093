/* A whole training step against finite differences: every loss and every mixture of the tables; and the same
 * step in halves and micro-batches. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/nn/head.h"
#include "tests/grad/step_world.h"
#include "tests/support/proofs.h"
#include "tests/support/whole_step.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DRAWS 4
#define MAX_GRADS 8192 /* of a world's student */

static void each_loss(void **state) {
    (void)state;
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        const struct lb_loss *loss = lb_loss_at(i);
        bool served = false;
        for (int l = 0; l < (loss->on == LB_ON_TARGET ? 2 : 1); l++) {
            if (lb_world_serves(lb_world_lanes[l], loss) && lb_world_smooth(loss)) {
                lb_world_check_new(loss->name, lb_world_mean(loss), lb_world_lanes[l], true, loss);
                served = true;
            }
        }
        assert_true(served || !lb_world_smooth(loss));
    }
}

static void each_mixture(void **state) {
    (void)state;
    for (size_t i = 0; lb_mixture_at(i) != NULL; i++) {
        const struct lb_mixture *mixture = lb_mixture_at(i);
        lb_world_check_new(mixture->name, mixture, LB_LANE_FINAL, i % 2 == 0, NULL);
        if (mixture->combine != LB_COMBINE_LOGITS) {
            lb_world_check_new(mixture->name, mixture, LB_LANE_TOPK, i % 2 != 0, NULL);
        }
    }
}

/* Of classifiers: all losses at once under each mixture, and the labels' alone. */
static void each_of_classes(void **state) {
    (void)state;
    lb_worlds.classes = true;
    lb_world_check_new("classes: cross_entropy", lb_mixture_find("mean_probs"), LB_LANE_FINAL, false,
                       lb_loss_find("cross_entropy"));
    for (size_t i = 0; lb_mixture_at(i) != NULL; i++) {
        const struct lb_mixture *mixture = lb_mixture_at(i);
        char name[64];
        snprintf(name, sizeof name, "classes: %s", mixture->name);
        lb_world_check_new(name, mixture, LB_LANE_FINAL, false, NULL);
        if (mixture->combine != LB_COMBINE_LOGITS) {
            lb_world_check_new(name, mixture, LB_LANE_TOPK, false, NULL);
        }
    }
    lb_worlds.classes = false;
}

/* Losses between samples: each row's gradient tells what it does to the others' loss, whatever mixes the
 * teachers, of texts and of classifiers. At any number of threads the same bits. */
static void between_samples(void **state) {
    (void)state;
    static const char *const mixtures[] = {"mean_probs", "mean_logits", "mean_losses", "ca_mkd"};
    for (int i = 0; i < 8; i++) {
        const struct lb_loss *loss = lb_loss_find("dist");
        const struct lb_mixture *m = lb_mixture_find(mixtures[i / 2]);
        double loss_of[2];
        int threads = omp_get_max_threads();
        lb_worlds.classes = i % 2 > 0;
        struct lb_world *w = lb_world_create(m, LB_LANE_FINAL, i % 2 == 0, loss);
        double without = lb_world_run(w);
        w->plan.losses[0].args.gamma = 0.5;
        for (int t = 0; t < 2; t++) {
            omp_set_num_threads(1 + 4 * t);
            lb_step_destroy(w->step);
            w->step = lb_step_create(&w->plan, w->student, (size_t)1 << 28);
            assert_non_null(w->step);
            loss_of[t] = lb_world_run(w);
        }
        omp_set_num_threads(threads);
        assert_true(loss_of[0] == loss_of[1] && loss_of[0] > without);
        char name[64];
        snprintf(name, sizeof name, "between samples, %s%s", m->name, i % 2 > 0 ? ", classes" : "");
        lb_proof("loss", loss->name, "whole step between samples", "differences",
                 lb_world_check(name, w, false), 1);
    }
    lb_worlds.classes = false;
}

/* Weights of each token: a teacher counts by the label's probability under it. */
static void by_label(const struct lb_weighing *in, double *w) {
    for (unsigned k = 0; k < in->n; k++) {
        w[k] *= exp(-in->cross_entropy[k]);
    }
}

static void weights_of_tokens(void **state) {
    (void)state;
    static const struct lb_mixture tokens = {.name = "tokens",
                                             .needs = LB_NEEDS_CROSS_ENTROPY,
                                             .per = LB_PER(LB_PER_TOKEN),
                                             .combine = LB_COMBINE_PROBS,
                                             .weigh = by_label};
    struct lb_mixture losses = tokens;
    losses.combine = LB_COMBINE_LOSSES;
    lb_worlds.per = LB_PER_TOKEN;
    lb_world_check_new("weights of tokens", &tokens, LB_LANE_FINAL, true, NULL);
    lb_world_check_new("weights of tokens", &tokens, LB_LANE_TOPK, true, NULL);
    lb_world_check_new("weights of tokens, losses", &losses, LB_LANE_FINAL, true, NULL);
    struct lb_world *a = lb_world_create(&tokens, LB_LANE_FINAL, true, NULL);
    double of_tokens = lb_world_run(a);
    a->recipe.mixture_per = LB_PER_SEQUENCE;
    assert_true(fabs(of_tokens - lb_world_run(a)) > 1e-4);
    lb_world_destroy(a);
    for (size_t i = 0; lb_mixture_at(i) != NULL; i++) {
        const struct lb_mixture *m = lb_mixture_at(i);
        if ((m->per & LB_PER(LB_PER_TOKEN)) != 0) {
            lb_world_check_new(m->name, m, lb_world_lanes[i % 2], true, NULL);
        }
    }
    lb_worlds.per = LB_PER_DEFAULT;
}

/* Between its halves a step lets its states be read, and comes to the same bits. */
static void two_halves(void **state) {
    (void)state;
    struct lb_world *w = lb_world_create(lb_mixture_find("ca_mkd"), LB_LANE_FINAL, true, NULL);
    struct lb_step_result whole = {0}, halves = {0};
    struct lb_detail detail = {0};
    const struct lb_value *states;
    const struct lb_weight *head = lb_model_head(w->student)->weight;
    float z[VOCAB];
    size_t n;
    float *grads = lb_model_grads(w->student, &n), *keep = malloc(n * sizeof *keep);
    assert_non_null(keep);
    memset(grads, 0, n * sizeof *grads);
    lb_rng_seed(&lb_worlds.rng, 2, 2);
    assert_int_equal(lb_step_losses(w->step, w->pointers, w->rows, NULL, &whole, &detail), LB_E_ARG);
    assert_int_equal(
        lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &lb_worlds.rng, &whole, &detail),
        LB_OK);
    memcpy(keep, grads, n * sizeof *keep);
    memset(grads, 0, n * sizeof *grads);
    lb_rng_seed(&lb_worlds.rng, 2, 2);
    assert_int_equal(lb_step_forward(w->step, w->samples, SAMPLES, &lb_worlds.rng, &states, &detail), LB_OK);
    assert_int_equal(states->rows, w->rows);
    assert_int_equal(states->cols, head->cols);
    lb_head_logits(states->data + (w->rows - 1) * states->cols, 1, states->cols, head->value, NULL, VOCAB,
                   LB_HEAD_PLAIN, z);
    for (int j = 0; j < VOCAB; j++) {
        double sum = 0;
        for (int64_t c = 0; c < head->cols; c++) {
            sum += (double)head->value[j * head->cols + c] * states->data[(w->rows - 1) * states->cols + c];
        }
        assert_true(fabs(z[j] - sum) < 1e-5);
    }
    assert_int_equal(lb_step_losses(w->step, w->pointers, w->rows, NULL, &halves, &detail), LB_OK);
    assert_memory_equal(keep, grads, n * sizeof *keep);
    assert_memory_equal(&whole, &halves, sizeof whole);
    assert_int_equal(lb_step_losses(w->step, w->pointers, w->rows, NULL, &halves, &detail),
                     LB_E_ARG); /* once */
    free(keep);
    lb_world_destroy(w);
}

/* More rows than the head's products are cut into, which many threads take several cuts of at once: loss and
 * gradients have the bits of one thread. */
static void many_rows_at_any_threads(void **state) {
    (void)state;
    enum { TIMES = 40 };
    static float grads[2][MAX_GRADS];
    struct lb_sample samples[SAMPLES * TIMES];
    const struct lb_answer *answers[SAMPLES * TIMES * 2];
    struct lb_step_result result[2] = {{0}};
    int threads = omp_get_max_threads();
    for (int t = 0; t < 2; t++) {
        size_t n;
        omp_set_num_threads(t == 0 ? 1 : 16);
        lb_rng_seed(&lb_worlds.rng, 1, 0);
        struct lb_world *w =
            lb_world_create(lb_mixture_find("mean_probs"), LB_LANE_FINAL, true, lb_loss_find("kl"));
        for (int i = 0; i < SAMPLES * TIMES; i++) {
            samples[i] = w->samples[i % SAMPLES];
            answers[2 * i] = w->pointers[i % SAMPLES * 2];
            answers[2 * i + 1] = w->pointers[i % SAMPLES * 2 + 1];
        }
        assert_true(w->rows * TIMES > 2 * lb_head_chunk(VOCAB));
        assert_int_equal(lb_whole_step(w->step, samples, SAMPLES * TIMES, answers, w->rows * TIMES,
                                       &lb_worlds.rng, &result[t], NULL),
                         LB_OK);
        const float *own = lb_model_grads(w->student, &n);
        assert_true(n <= MAX_GRADS);
        memcpy(grads[t], own, n * sizeof *own);
        lb_world_destroy(w);
    }
    omp_set_num_threads(threads);
    assert_true(result[0].loss > 0 && result[0].loss == result[1].loss);
    assert_memory_equal(grads[0], grads[1], sizeof grads[0]);
}

/* Rows above a loss's clamp count as much as that, and have no gradient. */
static void clamped(void **state) {
    (void)state;
    for (int l = 0; l < 2; l++) {
        struct lb_world *w = lb_world_create(lb_mixture_find(l == 0 ? "mean_probs" : "mean_losses"),
                                             lb_world_lanes[l], true, lb_loss_find("kl"));
        size_t n;
        const float *grads = lb_model_grads(w->student, &n);
        double largest = 0, clamp = 1e-5;
        assert_true(lb_world_run(w) > 100 * clamp);
        w->plan.losses[0].args.clamp = clamp;
        assert_true(fabs(lb_world_run(w) - w->plan.losses[0].args.weight * clamp) < 1e-12);
        for (size_t i = 0; i < n; i++) {
            largest = fmax(largest, fabs((double)grads[i]));
        }
        assert_true(largest == 0);
        lb_world_destroy(w);
    }
}

/* A step's gradients of a loss with these at that step, of eleven. */
static double annealed(const struct lb_annealing *annealing, int64_t now, double weight, double temperature,
                       float *grads) {
    lb_rng_seed(&lb_worlds.rng, 1, 0); /* the same numbers for all */
    struct lb_world *w =
        lb_world_create(lb_mixture_find("mean_probs"), LB_LANE_FINAL, true, lb_loss_find("kl"));
    size_t n;
    w->plan.losses[0].args.weight = weight;
    w->plan.losses[0].args.temperature = temperature;
    if (annealing != NULL) {
        w->plan.losses[0].annealing = *annealing;
        lb_step_set_now(w->step, now, 11);
    }
    double loss = lb_world_run(w);
    const float *own = lb_model_grads(w->student, &n);
    assert_true(n <= MAX_GRADS);
    memcpy(grads, own, n * sizeof *grads);
    memset(grads + n, 0, (MAX_GRADS - n) * sizeof *grads);
    lb_world_destroy(w);
    return loss;
}

/* A loss that anneals is at each step what it is with the weight and temperature of that step. */
static void anneals(void **state) {
    (void)state;
    static float moving[MAX_GRADS], still[MAX_GRADS];
    static const struct {
        struct lb_annealing annealing;
        int64_t now;
        double share;
    } cases[] = {{{LB_ANNEAL_LINEAR, 0, 0.25, 4}, 0, 0},   {{LB_ANNEAL_LINEAR, 0, 0.25, 4}, 5, 0.5},
                 {{LB_ANNEAL_LINEAR, 0, 0.25, 4}, 10, 1},  {{LB_ANNEAL_LINEAR, 5, 0.25, 4}, 3, 0.75},
                 {{LB_ANNEAL_LINEAR, 5, 0.25, 4}, 9, 1},   {{LB_ANNEAL_COSINE, 0, 0.25, 4}, 5, 0.5},
                 {{LB_ANNEAL_COSINE, 4, 0.25, 4}, 1, 0.25}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double share = cases[i].share, loss, want;
        loss = annealed(&cases[i].annealing, cases[i].now, 1, 1, moving);
        want = annealed(NULL, 0, 1 - 0.75 * share, 1 + 3 * share, still);
        assert_true(fabs(loss - want) < 1e-6 * want);
        for (size_t j = 0; j < MAX_GRADS; j++) {
            assert_true(fabs((double)moving[j] - (double)still[j]) < 1e-6);
        }
    }
}

/* Two losses that begin at one temperature, of which one anneals, have each its own from then on. */
static void anneals_beside(void **state) {
    (void)state;
    struct lb_step_result apart = {0}, still = {0};
    struct lb_world *w =
        lb_world_create(lb_mixture_find("mean_probs"), LB_LANE_FINAL, true, lb_loss_find("kl"));
    lb_world_add(w, lb_loss_find("kl"), LB_LANE_FINAL);
    for (int l = 0; l < 2; l++) {
        w->plan.losses[l].args.weight = w->plan.losses[l].args.temperature = 1;
    }
    w->plan.losses[0].annealing = (struct lb_annealing){LB_ANNEAL_LINEAR, 0, 1, 4};
    lb_step_set_now(w->step, 10, 11);
    assert_int_equal(
        lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &lb_worlds.rng, &apart, NULL),
        LB_OK);
    w->plan.losses[0].annealing.kind = LB_ANNEAL_NONE;
    w->plan.losses[0].args.temperature = 4;
    assert_int_equal(
        lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &lb_worlds.rng, &still, NULL),
        LB_OK);
    assert_true(apart.term[0] == still.term[0] && apart.term[1] == still.term[1]);
    assert_true(apart.term[0] != apart.term[1]);
    lb_world_destroy(w);
}

/* |a - factor b| / |a| of gradients. */
static double off(const float *a, const float *b, double factor) {
    double norm = 0, sum = 0;
    for (size_t i = 0; i < MAX_GRADS; i++) {
        norm += (double)a[i] * (double)a[i];
        sum += pow((double)a[i] - factor * (double)b[i], 2);
    }
    return sqrt(sum / norm);
}

/* The squared error's gradient is linear in the teachers' logits: against their mean it is the mean of those
 * against each. */
static void mean_of_logits(void **state) {
    (void)state;
    static float grads[2][MAX_GRADS];
    static const char *const mixtures[] = {"mean_logits", "mean_losses"};
    for (int m = 0; m < 2; m++) {
        lb_rng_seed(&lb_worlds.rng, 1, 0); /* the same numbers for both */
        struct lb_world *w =
            lb_world_create(lb_mixture_find(mixtures[m]), LB_LANE_FINAL, true, lb_loss_find("logit_mse"));
        size_t n;
        (void)lb_world_run(w);
        const float *own = lb_model_grads(w->student, &n);
        assert_true(n <= MAX_GRADS);
        memcpy(grads[m], own, n * sizeof *own);
        lb_world_destroy(w);
    }
    assert_true(off(grads[0], grads[1], 1) < 1e-5);
}

static void add_draws(struct lb_answer *a, const char *name, enum lb_datatype datatype, int64_t t,
                      const void *row) {
    char *data = malloc((size_t)t * DRAWS * 4);
    struct lb_wire_tensor *tensor = &a->tensors[a->n_tensors];
    assert_non_null(data);
    for (int64_t i = 0; i < t; i++) {
        memcpy(data + i * DRAWS * 4, row, DRAWS * 4);
    }
    assert_int_equal(lb_output_parse(name, &a->what[a->n_tensors++], NULL), LB_OK);
    *tensor = (struct lb_wire_tensor){.name = name,
                                      .datatype = datatype,
                                      .n_dims = 2,
                                      .dim = {t, DRAWS},
                                      .data = data,
                                      .bytes = (size_t)t * DRAWS * 4};
}

/* Weights of draws that sum to more than 1 count by what they sum to. */
static void sums_of_draws(void **state) {
    (void)state;
    static const int32_t ids[DRAWS] = {3, 9, 20, 0}, counts[DRAWS] = {3, 4, 1, 0};
    static const float weights[DRAWS] = {3.75f / 8, 5.0f / 8, 1.25f / 8, 0};
    static float grads[2][MAX_GRADS];
    double loss[2];
    for (int m = 0; m < 4; m++) {
        lb_rng_seed(&lb_worlds.rng, 1, 0);
        struct lb_world *w = lb_world_create(lb_mixture_find(m < 2 ? "mean_probs" : "mean_losses"),
                                             LB_LANE_TOPK, true, lb_loss_find("kl"));
        size_t n;
        w->recipe.targets = LB_LANE_SAMPLES;
        w->recipe.sample_count = DRAWS;
        w->recipe.loss_add_tail = false; /* of lists: nothing to draws */
        for (int i = 0; i < 2 * SAMPLES; i++) {
            int64_t t = w->samples[i / 2].n;
            add_draws(&w->answers[i], "samples.ids", LB_DT_INT32, t, ids);
            if (m % 2 == 0) {
                add_draws(&w->answers[i], "samples.counts", LB_DT_INT32, t, counts);
            } else {
                add_draws(&w->answers[i], "samples.weights", LB_DT_FP32, t, weights);
            }
        }
        loss[m % 2] = lb_world_run(w);
        const float *own = lb_model_grads(w->student, &n);
        assert_true(n <= MAX_GRADS);
        memcpy(grads[m % 2], own, n * sizeof *own);
        lb_world_destroy(w);
        if (m % 2 > 0) {
            assert_true(loss[0] > 0 && fabs(loss[1] - 1.25 * loss[0]) < 1e-6 * loss[1]);
            assert_true(off(grads[1], grads[0], 1.25) < 1e-6);
        }
    }
}

/* |a/|a| - b/|b||^2 of a = W h */
static double distance(const struct lb_weight *projection, const float *h, const float *b) {
    double aa = 0, bb = 0, ab = 0;
    for (int64_t j = 0; j < projection->rows; j++) {
        double a = 0;
        for (int64_t c = 0; c < projection->cols; c++) {
            a += (double)projection->value[j * projection->cols + c] * (double)h[c];
        }
        aa += a * a;
        bb += (double)b[j] * (double)b[j];
        ab += a * (double)b[j];
    }
    return 2 - 2 * ab / sqrt(aa * bb);
}

/* A loss of the texts' first positions is their mean over the step's texts. */
static void first_tokens(void **state) {
    (void)state;
    struct lb_world *w =
        lb_world_create(lb_mixture_find("mean_probs"), LB_LANE_FINAL, true, lb_loss_find("pkd"));
    struct lb_step_result result = {0};
    const struct lb_value *states;
    double want = 0;
    w->plan.losses[0].args.first_token = true;
    assert_int_equal(lb_step_forward(w->step, w->samples, SAMPLES, &lb_worlds.rng, &states, NULL), LB_OK);
    for (int s = 0, row = 0; s < SAMPLES; row += (int)w->samples[s++].n) {
        for (int k = 0; k < 2; k++) {
            double weight = s > 0 ? (1 + k) / 3.0 : 1 - k; /* the second said nothing of the first sample */
            want += weight * distance(lb_model_find(w->student, w->plan.pairs[k].projection),
                                      states->data + row * states->cols,
                                      lb_answer_find(&w->answers[s * 2 + k], LB_OUT_HIDDEN_FINAL, 0)->data);
        }
    }
    assert_int_equal(lb_step_losses(w->step, w->pointers, w->rows, NULL, &result, NULL), LB_OK);
    assert_true(fabs(result.term[0] - want / SAMPLES) < 1e-5 * want);
    lb_world_destroy(w);
}

static void refused(struct lb_world *w, const char *first, const char *second) {
    struct lb_step_result result = {0};
    struct lb_detail detail = {0};
    lb_rng_seed(&lb_worlds.rng, 2, 2);
    assert_int_equal(
        lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &lb_worlds.rng, &result, &detail),
        LB_E_ARG);
    if (strstr(detail.text, first) == NULL || strstr(detail.text, second) == NULL) {
        fail_msg("%s", detail.text);
    }
    assert_true(result.loss == 0); /* nothing of it is counted */
}

/* A loss that is no number says whose numbers are none, and what helps. */
static void not_finite(void **state) {
    (void)state;
    static char names[2][4] = {"ann", "ben"};
    const struct lb_mixture *mean = lb_mixture_find("mean_probs");
    for (int who = 0; who < 3; who++) {
        struct lb_world *w =
            lb_world_create(mean, LB_LANE_FINAL, false, lb_loss_find(who < 2 ? "kl" : "hs_mse"));
        size_t n;
        w->teachers[0].name = names[0];
        w->teachers[1].name = names[1];
        if (who == 0) {
            const struct lb_weight *embedding = lb_model_weights(w->student, &n);
            embedding->value[w->samples[1].ids[0] * embedding->cols] = NAN;
            refused(w, "kl is not finite at position",
                    "the student's logits are NaN or infinite there; lower");
        } else if (who == 1) {
            w->head[1].weight[3] = INFINITY;
            refused(w, "kl is not finite at position",
                    "the logits of teacher ben are NaN or infinite there; set fp16");
        } else {
            float *states = (float *)(uintptr_t)lb_answer_find(w->pointers[3], LB_OUT_HIDDEN_FINAL, 0)->data;
            states[5] = INFINITY;
            refused(w, "hs_mse is not finite against hidden_states.final of teacher ben", "layer_mapping");
        }
        lb_world_destroy(w);
    }
}

/* Nor do weights that are made of such numbers hide them. */
static void not_finite_weighed(void **state) {
    (void)state;
    static char names[2][4] = {"ann", "ben"};
    for (size_t i = 0; lb_mixture_at(i) != NULL; i++) {
        const struct lb_mixture *m = lb_mixture_at(i);
        bool both = (m->needs & LB_NEEDS_DRAW) == 0;
        for (int who = 0; who < (both ? 2 : 1); who++) {
            struct lb_world *w = lb_world_create(m, LB_LANE_FINAL, false, lb_loss_find("kl"));
            size_t n;
            w->recipe.mixture_by = m->by_choice ? LB_BY_MAX_PROB : LB_BY_DEFAULT;
            w->teachers[0].name = names[0];
            w->teachers[1].name = names[1];
            if (who == 0) {
                const struct lb_weight *embedding = lb_model_weights(w->student, &n);
                for (int s = 0; s < SAMPLES; s++) {
                    embedding->value[w->samples[s].ids[0] * embedding->cols] = NAN;
                }
            } else {
                w->head[1].weight[3] = NAN;
            }
            refused(w, "kl is not finite at position",
                    who == 0 ? "the student's logits" : "teacher ben are NaN");
            lb_world_destroy(w);
        }
    }
}

/* The same samples as one batch, and one by one as micro-batches of one step; gradients into grads. */
static struct lb_step_result in_parts(struct lb_world *w, bool whole, float *grads) {
    struct lb_step_result result = {0};
    struct lb_step_totals totals = {.square = {0}};
    struct lb_detail detail = {0};
    size_t n;
    float *own = lb_model_grads(w->student, &n);
    memset(own, 0, n * sizeof *own);
    enum lb_status status = LB_OK;
    for (int i = 0; i < (whole ? 1 : SAMPLES) && status == LB_OK; i++) {
        lb_rng_seed(&lb_worlds.rng, 2, 2);
        status = lb_step_forward(w->step, w->samples + i, whole ? SAMPLES : 1, &lb_worlds.rng, NULL, &detail);
        for (int j = 0; j < SAMPLES && i == 0 && !whole && status == LB_OK; j++) {
            status = lb_step_count(w->step, w->samples + j, 1, w->pointers + 2 * j, &totals, &detail);
        }
        status = status == LB_OK ? lb_step_losses(w->step, w->pointers + 2 * i, w->rows,
                                                  whole ? NULL : &totals, &result, &detail)
                                 : status;
    }
    if (status != LB_OK) {
        fail_msg("%s", detail.text);
    }
    memcpy(grads, own, n * sizeof *own);
    return result;
}

/* A step is the same, to rounding, however it is cut into micro-batches: each loss of the table (but those
 * that compare a batch's samples, which must not be cut), all together. */
static void micro_batches(void **state) {
    (void)state;
    for (size_t l = 0; l == 0 || lb_loss_at(l - 1) != NULL; l++) { /* the last: all */
        const struct lb_loss *only = lb_loss_at(l);
        for (int lane = 0; lane < 2; lane++) {
            bool cuttable = only == NULL || only->among == LB_AMONG_NONE || only->on != LB_ON_SENTENCE;
            if ((only != NULL && !lb_world_serves(lb_world_lanes[lane], only)) || !cuttable) {
                continue;
            }
            const struct lb_mixture *mixture =
                only == NULL && lane == 0 ? lb_mixture_find("ca_mkd") : lb_world_mean(only);
            struct lb_world *w = lb_world_create(mixture, lb_world_lanes[lane], true, only);
            size_t n;
            (void)lb_model_grads(w->student, &n);
            float *one = malloc(n * sizeof *one), *cut = malloc(n * sizeof *cut);
            assert_true(one != NULL && cut != NULL);
            struct lb_step_result a = in_parts(w, true, one), b = in_parts(w, false, cut);
            double apart = lb_world_apart(one, cut, n);
            printf("%-14s %-12s loss off by %.1e, gradient by %.1e of its norm\n",
                   only != NULL ? only->name : "all", lane == 0 ? "final states" : "top-k",
                   fabs(a.loss - b.loss), apart);
            assert_true(apart < 1e-5);
            assert_true(fabs(a.loss - b.loss) < 1e-6 * fabs(a.loss));
            for (size_t i = 0; i < w->plan.n_losses; i++) {
                assert_true(fabs(a.term[i] - b.term[i]) < 1e-6 * fabs(a.term[i]));
            }
            free(one);
            free(cut);
            lb_world_destroy(w);
        }
    }
}

/* Whether a step whose first pair of activations stands in the plan n times fits into so many bytes. */
static bool fits(struct lb_world *w, size_t n, size_t bytes) {
    struct lb_step_result result = {0};
    for (size_t i = 1; i < n; i++) {
        w->plan.pairs[i] = w->plan.pairs[0];
    }
    w->plan.n_pairs = n;
    lb_step_destroy(w->step);
    w->step = lb_step_create(&w->plan, w->student, bytes);
    assert_non_null(w->step);
    return lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &lb_worlds.rng, &result, NULL) ==
           LB_OK;
}

/* What a pair works with is the next one's too: maps of attention are large. */
static void memory_of_one_pair(void **state) {
    (void)state;
    struct lb_world *w =
        lb_world_create(lb_mixture_find("mean_losses"), LB_LANE_FINAL, true, lb_loss_find("attention_mse"));
    size_t least = 1, most = (size_t)1 << 28;
    while (most - least > 4096) {
        size_t middle = least + (most - least) / 2;
        *(fits(w, 1, middle) ? &most : &least) = middle;
    }
    assert_true(fits(w, 1, most) && !fits(w, 1, least) && fits(w, LB_MAX_PAIRS, most));
    lb_world_destroy(w);
}

int main(void) {
    lb_rng_seed(&lb_worlds.rng, 1, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_loss),
        cmocka_unit_test(each_mixture),
        cmocka_unit_test(each_of_classes),
        cmocka_unit_test(between_samples),
        cmocka_unit_test(weights_of_tokens),
        cmocka_unit_test(two_halves),
        cmocka_unit_test(micro_batches),
        cmocka_unit_test(not_finite),
        cmocka_unit_test(not_finite_weighed),
        cmocka_unit_test(clamped),
        cmocka_unit_test(many_rows_at_any_threads),
        cmocka_unit_test(anneals),
        cmocka_unit_test(anneals_beside),
        cmocka_unit_test(mean_of_logits),
        cmocka_unit_test(sums_of_draws),
        cmocka_unit_test(first_tokens),
        cmocka_unit_test(memory_of_one_pair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
