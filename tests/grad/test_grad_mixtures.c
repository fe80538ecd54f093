/* What mixtures are worth in whole steps and in training: one teacher twice is that teacher once, random
 * teachers are drawn by number and asked alone, a bad teacher hurts means and not mixtures that see it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/grad/step_world.h"
#include "tests/support/whole_step.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- one teacher twice ------------------------------------------------------------------------------------
 */

/* The gradient of a step against the first teacher, once or twice with half its weight. */
static float *gradient(const struct lb_mixture *m, enum lb_mixture_by by, enum lb_target_lane lane,
                       bool twice, double *loss, size_t *n) {
    lb_rng_seed(&lb_worlds.rng, 5, 0);
    struct lb_world *w = lb_world_create(m, lane, true, lb_loss_find("kl"));
    lb_world_add(w, lb_loss_find("reverse_kl"), lane);
    w->recipe.mixture_by = by;
    w->teachers[0].weight = twice ? 0.5 : 1;
    w->teachers[1].weight = twice ? 0.5 : 0;
    w->plan.head[1] = &w->head[0];
    for (int s = 0; s < SAMPLES; s++) {
        w->pointers[2 * s + 1] = twice ? w->pointers[2 * s] : NULL;
    }
    lb_step_destroy(w->step);
    w->step = lb_step_create(&w->plan, w->student, (size_t)1 << 28);
    assert_non_null(w->step);
    *loss = lb_world_run(w);
    float *out = lb_world_gradients(w, n);
    lb_world_destroy(w);
    return out;
}

static void twice_is_once(void **state) {
    (void)state;
    for (size_t i = 0; lb_mixture_at(i) != NULL; i++) {
        const struct lb_mixture *m = lb_mixture_at(i);
        for (int at = 0; at < 6; at++) {
            enum lb_target_lane lane = lb_world_lanes[at % 2];
            enum lb_mixture_by by = (enum lb_mixture_by)(m->by_choice ? 1 + at / 2 : 0);
            double loss[2];
            size_t n;
            if ((at > 1 && !m->by_choice) || (m->combine == LB_COMBINE_LOGITS && at % 2 == 1)) {
                continue;
            }
            float *once = gradient(m, by, lane, false, &loss[0], &n),
                  *twice = gradient(m, by, lane, true, &loss[1], &n);
            double apart = lb_world_apart(once, twice, n);
            printf("%-12s %d %-12s one teacher twice: loss off by %.1e, gradient by %.1e of its norm\n",
                   m->name, (int)by, at % 2 == 0 ? "final states" : "top-k",
                   fabs(loss[1] - loss[0]) / loss[0], apart);
            assert_true(loss[0] > 0 && fabs(loss[1] - loss[0]) < 1e-6 * loss[0]);
            assert_true(apart < 2e-6);
            free(once), free(twice);
        }
    }
}

/* ---- mean of probabilities, mean of losses ----------------------------------------------------------------
 */

static double between_means(const char *loss, enum lb_target_lane lane) {
    return lb_world_means_apart(loss, lane, 17);
}

/* The forward KL's gradient, q - p, is linear in p: the mean of probabilities teaches what the mean of losses
 * does. Of other divergences it does not. Lists: of the union of ids the forward one's is near only. */
static void means(void **state) {
    (void)state;
    double forward = between_means("kl", LB_LANE_FINAL), reverse = between_means("reverse_kl", LB_LANE_FINAL),
           jsd = between_means("jsd", LB_LANE_FINAL), lists = between_means("reverse_kl", LB_LANE_TOPK);
    printf(
        "gradients by the mean of probabilities and of losses, apart by: kl %.1e, reverse_kl %.1e, jsd %.1e, "
        "reverse_kl of lists %.1e\n",
        forward, reverse, jsd, lists);
    assert_true(forward < 2e-6 && reverse > 0.02 && jsd > 0.02 && lists > 0.02);
}

/* ---- weights of the student's states ----------------------------------------------------------------------
 */

/* a [n] = W [n, c] x [c] */
static void multiply(const float *w, const float *x, int64_t n, int64_t c, double *a) {
    for (int64_t i = 0; i < n; i++) {
        a[i] = 0;
        for (int64_t j = 0; j < c; j++) {
            a[i] += (double)w[i * c + j] * (double)x[j];
        }
    }
}

/* Of one row and teacher: the label's cross entropy by the teacher's head of the projected state, and the
 * mean square of what that is off the teacher's. */
static void row_of(struct lb_world *w, const float *state, int s, int64_t t, unsigned k, double *ce,
                   double *loss) {
    char name[64];
    double a[TEACHER_WIDTH], z[VOCAB], sum = 0;
    float projected[TEACHER_WIDTH];
    const float *its =
        (const float *)lb_answer_find(&w->answers[2 * s + (int)k], LB_OUT_HIDDEN_FINAL, 0)->data;
    snprintf(name, sizeof name, "projection.%u.weight", k);
    multiply(lb_model_find(w->student, name)->value, state, TEACHER_WIDTH, 16, a);
    *loss = 0;
    for (int j = 0; j < TEACHER_WIDTH; j++) {
        double apart = a[j] - (double)its[t * TEACHER_WIDTH + j];
        *loss += apart * apart / TEACHER_WIDTH;
        projected[j] = (float)a[j];
    }
    multiply(w->head[k].weight, projected, VOCAB, TEACHER_WIDTH, z);
    for (int j = 0; j < VOCAB; j++) {
        sum += exp(z[j]);
    }
    *ce = log(sum) - z[w->samples[s].ids[t + 1]];
}

/* CA-MKD's weights of features, made again in double. */
static void check_states(enum lb_mixture_per per) {
    lb_worlds.by_head = true;
    struct lb_world *w =
        lb_world_create(lb_mixture_find("ca_mkd"), LB_LANE_FINAL, true, lb_loss_find("hs_mse"));
    const struct lb_value *states;
    struct lb_step_result result = {0};
    double want = 0;
    w->recipe.mixture_per = per;
    w->plan.losses[0].args.normalize = false;
    lb_rng_seed(&lb_worlds.rng, 2, 2);
    assert_int_equal(lb_step_forward(w->step, w->samples, SAMPLES, &lb_worlds.rng, &states, NULL), LB_OK);
    const float *at = states->data;
    for (int s = 0; s < SAMPLES; s++) {
        double ce[MAX_T][2], loss[MAX_T][2], mean[2] = {0};
        int64_t n = w->samples[s].n;
        for (int64_t t = 0; t < n; t++, at += 16) {
            for (unsigned k = 0; k < 2; k++) {
                row_of(w, at, s, t, k, &ce[t][k], &loss[t][k]);
                mean[k] += ce[t][k] / (double)n;
            }
        }
        for (int64_t t = 0; t < n; t++) {
            const double *by = per == LB_PER_TOKEN ? ce[t] : mean;
            /* The softmax of one teacher's is the other's weight, times 1 and 2 of the recipe. */
            double first = exp(by[1] - by[0]), second = 2;
            double share = w->pointers[2 * s + 1] == NULL ? 1 : first / (first + second);
            want += (share * loss[t][0] + (1 - share) * loss[t][1]) / (double)w->rows;
        }
    }
    assert_int_equal(lb_step_losses(w->step, w->pointers, w->rows, NULL, &result, NULL), LB_OK);
    printf("weights of states: loss off by %.1e\n", fabs(result.term[0] - want) / want);
    assert_true(fabs(result.term[0] - want) < 1e-5 * want);
    lb_world_destroy(w);
    w = lb_world_create(lb_mixture_find("ca_mkd"), LB_LANE_FINAL, true, lb_loss_find("hs_mse"));
    w->recipe.mixture_per = per;
    lb_world_check("hs_mse by the student's states", w, false);
    lb_worlds.by_head = false;
    lb_world_check_new("hs_mse by the teachers' answers", lb_mixture_find("ca_mkd"), LB_LANE_FINAL, true,
                       lb_loss_find("hs_mse"));
}

static void weights_of_states(void **state) {
    (void)state;
    check_states(LB_PER_SEQUENCE);
    check_states(LB_PER_TOKEN);
}

/* ---- however a step is cut --------------------------------------------------------------------------------
 */

static struct lb_world *cut_world(const struct lb_mixture *m, enum lb_target_lane lane) {
    lb_rng_seed(&lb_worlds.rng, 23, 0);
    struct lb_world *w = lb_world_create(m, lane, true, lb_loss_find("kl"));
    lb_world_add(w, lb_loss_find("hs_mse"), lane); /* with its denominator of all rows */
    w->plan.mixture = m;
    return w;
}

/* The same step sample by sample. */
static double run_cut(struct lb_world *w) {
    struct lb_step_result result = {0};
    struct lb_step_totals totals = {.square = {0}};
    struct lb_detail detail = {0};
    size_t n;
    float *grads = lb_model_grads(w->student, &n);
    memset(grads, 0, n * sizeof *grads);
    enum lb_status status = LB_OK;
    for (int s = 0; s < SAMPLES && status == LB_OK; s++) {
        status = lb_step_count(w->step, &w->samples[s], 1, w->pointers + 2 * s, &totals, &detail);
    }
    for (int s = 0; s < SAMPLES && status == LB_OK; s++) {
        status = lb_step_forward(w->step, &w->samples[s], 1, &lb_worlds.rng, NULL, &detail);
        status = status == LB_OK
                     ? lb_step_losses(w->step, w->pointers + 2 * s, w->rows, &totals, &result, &detail)
                     : status;
    }
    if (status != LB_OK) {
        fail_msg("%s", detail.text);
    }
    return result.loss;
}

static void cut(void **state) {
    (void)state;
    for (size_t i = 0; lb_mixture_at(i) != NULL; i++) {
        const struct lb_mixture *m = lb_mixture_at(i);
        for (int l = 0; l < (m->combine == LB_COMBINE_LOGITS ? 1 : 2); l++) {
            struct lb_world *w = cut_world(m, lb_world_lanes[l]);
            double whole = lb_world_run(w);
            size_t n;
            float *grads = lb_world_gradients(w, &n);
            double parts = run_cut(w), apart = lb_world_apart(grads, lb_model_grads(w->student, &n), n);
            printf("%-12s cut: loss off by %.1e, gradient by %.1e of its norm\n", m->name,
                   fabs(parts - whole) / whole, apart);
            assert_true(fabs(parts - whole) < 1e-6 * whole && apart < 2e-6);
            free(grads);
            lb_world_destroy(w);
        }
    }
}

/* ---- the least norm ---------------------------------------------------------------------------------------
 */

/* Two teachers: the closed form. More: no direction leads down, by vectors of which some depend on others,
 * are the same, or nothing; and all of them at once. */
static void min_norm(void **state) {
    (void)state;
    static const bool all[LB_MAX_TEACHERS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    enum { WIDE = 6 };
    double worst = 0, apart = 0;
    for (int round = 0; round < 20000; round++) {
        unsigned n = 2 + (unsigned)round % (LB_MAX_TEACHERS - 1);
        double g[LB_MAX_TEACHERS][WIDE], gram[LB_MAX_TEACHERS * LB_MAX_TEACHERS], w[LB_MAX_TEACHERS], sum = 0;
        double at[WIDE] = {0}, norm = 0, largest = 0, offset = round % 5;
        for (unsigned k = 0; k < n; k++) {
            for (int j = 0; j < WIDE; j++) {
                g[k][j] = k % 5 == 4 ? g[k - 2][j] : lb_rng_normal(&lb_worlds.rng) + (j == 0 ? offset : 0);
            }
        }
        for (unsigned k = 0; k < n * n; k++) {
            gram[k] = 0;
            for (int j = 0; j < WIDE; j++) {
                gram[k] += g[k / n][j] * g[k % n][j];
            }
        }
        lb_min_norm(n, gram, all, w);
        for (unsigned k = 0; k < n; k++) {
            assert_true(w[k] >= 0);
            sum += w[k];
            largest = fmax(largest, gram[k * n + k]);
            for (int j = 0; j < WIDE; j++) {
                at[j] += w[k] * g[k][j];
            }
        }
        assert_true(fabs(sum - 1) < 1e-9);
        for (int j = 0; j < WIDE; j++) {
            norm += at[j] * at[j];
        }
        for (unsigned k = 0; k < n; k++) { /* each vector reaches at least as far along the least one */
            double along = 0;
            for (int j = 0; j < WIDE; j++) {
                along += at[j] * g[k][j];
            }
            worst = fmax(worst, (norm - along) / largest);
        }
        if (n == 2) {
            double first = (gram[3] - gram[1]) / (gram[0] + gram[3] - 2 * gram[1]);
            apart = fmax(apart, fabs(w[0] - fmin(fmax(first, 0), 1)));
        }
    }
    printf("least norms: off by %.1e of the largest square, of two weights by %.1e\n", worst, apart);
    assert_true(worst < 1e-10 && apart < 1e-12);
    static const double same[4] = {2, 2, 2, 2}, none[4] = {0};
    double w[2];
    lb_min_norm(2, same, all, w);
    assert_true(w[0] + w[1] == 1);
    lb_min_norm(2, none, all, w);
    assert_true(w[0] == 0.5 && w[1] == 0.5);
}

/* ---- random teachers --------------------------------------------------------------------------------------
 */

static void random_by_number(void **state) {
    (void)state;
    enum { N = 6000 };
    struct lb_world *w = lb_world_create(lb_mixture_find("random"), LB_LANE_FINAL, true, lb_loss_find("kl"));
    struct lb_sample *samples = calloc(N, sizeof *samples);
    bool *wanted = malloc(2 * N), *again = malloc(2 * N);
    int64_t second = 0, same = 0;
    assert_true(samples && wanted && again);
    for (int64_t i = 0; i < N; i++) {
        samples[i] = (struct lb_sample){.number = i, .tag = -1};
    }
    lb_plan_wanted(&w->plan, NULL, samples, N, wanted);
    for (int64_t i = 0; i < N; i++) {
        assert_int_equal(wanted[2 * i] + wanted[2 * i + 1], 1);
        second += wanted[2 * i + 1];
        lb_plan_wanted(&w->plan, NULL, &samples[i], 1, again); /* alone: by its number, not by its place */
        assert_memory_equal(again, wanted + 2 * i, 2);
    }
    assert_true(fabs((double)second / N - 2.0 / 3) < 0.02); /* weights 1 and 2 */
    /* A loss of one teacher's has no choice. */
    lb_world_add(w, lb_loss_find("reverse_kl"), LB_LANE_FINAL);
    w->plan.sets[1] = 1;
    w->plan.n_sets = 1;
    w->plan.losses[1].set = 1;
    lb_plan_wanted(&w->plan, NULL, samples, N, again);
    for (int64_t i = 0; i < N; i++) {
        assert_true(again[2 * i] && again[2 * i + 1] == wanted[2 * i + 1]);
    }
    w->plan.n_losses = 1;
    w->recipe.seed = 1;
    lb_plan_wanted(&w->plan, NULL, samples, N, again);
    for (int64_t i = 0; i < N; i++) {
        same += again[2 * i] == wanted[2 * i];
    }
    assert_true(same > 0.5 * N && same < 0.62 * N); /* 1/9 + 4/9 */
    w->recipe.mixture_per = LB_PER_BATCH;
    lb_plan_wanted(&w->plan, NULL, samples, N, again);
    for (int64_t i = 0; i < N; i++) {
        assert_true(again[2 * i] == again[2 * (i - i % SAMPLES)]);
    }
    free(samples), free(wanted), free(again);
    lb_world_destroy(w);
}

/* A step whose teachers answered as they were asked has the weights of what was drawn; one that was drawn and
 * is lost leaves nobody. */
static void random_step(void **state) {
    (void)state;
    struct lb_world *w = lb_world_create(lb_mixture_find("random"), LB_LANE_FINAL, true, lb_loss_find("kl"));
    struct lb_step_result result = {0};
    double want[2] = {0};
    bool wanted[2 * SAMPLES];
    lb_plan_wanted(&w->plan, NULL, w->samples, SAMPLES, wanted);
    for (int i = 0; i < 2 * SAMPLES; i++) {
        bool there = wanted[i] && w->pointers[i] != NULL;
        want[i % 2] += there ? (double)w->samples[i / 2].n / (double)w->rows : 0;
        w->pointers[i] = there ? w->pointers[i] : NULL;
    }
    assert_int_equal(
        lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &lb_worlds.rng, &result, NULL),
        LB_OK);
    assert_true(fabs(result.weight[0] - want[0]) < 1e-12 && fabs(result.weight[1] - want[1]) < 1e-12);
    lb_world_destroy(w);
}

/* ---- weights that anneal ----------------------------------------------------------------------------------
 */

/* From 3 : 2 to 0 : 2 in six of ten steps; each step has SAMPLES samples twice. */
static void weights_anneal(void **state) {
    (void)state;
    struct lb_world *w =
        lb_world_create(lb_mixture_find("mean_losses"), LB_LANE_FINAL, true, lb_loss_find("kl"));
    w->recipe.gradient_accumulation_steps = 2;
    w->plan.total_steps = 10;
    w->teachers[0] = (struct lb_recipe_teacher){
        .name = "t", .weight = 3, .anneal = LB_ANNEAL_LINEAR, .anneal_steps = 6, .weight_end = 0};
    w->pointers[1] = w->pointers[0];
    for (int64_t step = 0; step < 10; step++) {
        for (int part = 0; part < 2; part++) {
            struct lb_step_result result = {0};
            double first = step < 5 ? 3 - 0.6 * (double)step : 0;
            for (int64_t s = 0; s < SAMPLES; s++) {
                w->samples[s].number = (2 * step + part) * SAMPLES + s;
            }
            assert_int_equal(lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &lb_worlds.rng,
                                           &result, NULL),
                             LB_OK);
            assert_true(fabs(result.weight[0] - first / (first + 2)) < 1e-9);
            assert_true(fabs(result.weight[1] - 2 / (first + 2)) < 1e-9);
        }
    }
    lb_world_destroy(w);
}

/* ---- what teachers say by themselves ----------------------------------------------------------------------
 */

static int32_t likeliest(const float *z, int64_t n) {
    int32_t top = 0;
    for (int32_t j = 1; j < n; j++) {
        top = z[j] > z[top] ? j : top;
    }
    return top;
}

/* The likeliest class of teacher k at position t of sample s, -1 where it did not answer. */
static int32_t top_of(const struct lb_world *w, enum lb_target_lane lane, int s, int k, int64_t t) {
    const struct lb_answer *a = w->pointers[2 * s + k];
    float z[VOCAB];
    if (a == NULL) {
        return -1;
    }
    if (lane == LB_LANE_TOPK) {
        int64_t n = w->recipe.loss_top_k;
        const float *values = (const float *)lb_answer_find(a, LB_OUT_TOPK_VALUES, 0)->data + t * n;
        return ((const int32_t *)(const void *)lb_answer_find(a, LB_OUT_TOPK_IDS, 0)
                    ->data)[t * n + likeliest(values, n)];
    }
    lb_head_logits((const float *)lb_answer_find(a, LB_OUT_HIDDEN_FINAL, 0)->data + t * TEACHER_WIDTH, 1,
                   TEACHER_WIDTH, w->head[k].weight, NULL, VOCAB, LB_HEAD_PLAIN, z);
    return likeliest(z, VOCAB);
}

static void run_step(struct lb_world *w, struct lb_step_result *result) {
    size_t n;
    float *grads = lb_model_grads(w->student, &n);
    memset(grads, 0, n * sizeof *grads);
    *result = (struct lb_step_result){0};
    lb_rng_seed(&lb_worlds.rng, 2, 2);
    assert_int_equal(
        lb_whole_step(w->step, w->samples, SAMPLES, w->pointers, w->rows, &lb_worlds.rng, result, NULL),
        LB_OK);
}

/* The loss and what it is divided by as they are of the one teacher alone, in a step of its own. */
static void expect_own(struct lb_world *w, const struct lb_step_result *seen, unsigned k, bool of_rows) {
    struct lb_step_result alone;
    w->plan.sets[1] = 1u << k;
    w->plan.n_sets = 1;
    w->plan.losses[0].set = 1;
    run_step(w, &alone);
    w->plan.n_sets = w->plan.losses[0].set = 0;
    double want = alone.term[0] / alone.weight[k];
    assert_true(alone.term[0] > 0 && fabs(seen->own_loss[k] / seen->watched[k] - want) < 1e-6 * want);
    assert_true(!of_rows || fabs(seen->watched[k] - alone.weight[k] * (double)w->rows) < 1e-6);
}

static void check_watched(const char *mixture, const char *loss, enum lb_target_lane lane) {
    lb_rng_seed(&lb_worlds.rng, 31, 0);
    struct lb_world *w = lb_world_create(lb_mixture_find(mixture), lane, true, lb_loss_find(loss));
    struct lb_step_result plain, seen;
    bool of_rows = lb_loss_find(loss)->on == LB_ON_TARGET;
    double right[2] = {0}, answered[2] = {0}, same = 0;
    size_t n;
    /* At some positions the teachers agree, and are right. */
    for (int64_t t = 0; t < w->samples[2].n; t += 3) {
        ((int32_t *)(uintptr_t)w->samples[2].ids)[t + 1] = top_of(w, lane, 2, t % 2, t);
    }
    run_step(w, &plain);
    const float *grads = lb_model_grads(w->student, &n);
    float *before = lb_world_gradients(w, &n);
    lb_step_watch(w->step, true);
    run_step(w, &seen);
    assert_memory_equal(before, grads, n * sizeof *before); /* the student's bits are the same */
    assert_true(plain.loss == seen.loss && plain.watched[0] == 0 && plain.labelled[0] == 0);
    lb_step_watch(w->step, false);
    for (int s = 0; s < SAMPLES; s++) {
        for (int64_t t = 0; t < w->samples[s].n; t++) {
            int32_t top[2] = {top_of(w, lane, s, 0, t), top_of(w, lane, s, 1, t)};
            for (int k = 0; k < 2; k++) {
                answered[k] += top[k] >= 0;
                right[k] += top[k] == w->samples[s].ids[t + 1];
            }
            same += top[1] >= 0 && top[0] == top[1];
        }
    }
    for (unsigned k = 0; k < 2 && of_rows; k++) {
        assert_true(seen.labelled[k] == answered[k] && seen.right[k] == right[k]);
        assert_true(seen.compared[k] == answered[1] && seen.agreed[k] == same);
    }
    assert_true(of_rows || (seen.labelled[0] == 0 && seen.compared[0] == 0));
    expect_own(w, &seen, 1, of_rows);
    if (of_rows) {
        expect_own(w, &seen, 0, of_rows);
    }
    free(before);
    lb_world_destroy(w);
}

static void watched(void **state) {
    (void)state;
    for (int l = 0; l < 2; l++) {
        check_watched("mean_probs", "kl", lb_world_lanes[l]);
        check_watched("mean_losses", "reverse_kl", lb_world_lanes[l]);
        check_watched("select", "kl", lb_world_lanes[l]); /* of those that are not selected too */
    }
    check_watched("mean_logits", "logit_mse", LB_LANE_FINAL);
    check_watched("mean_probs", "alm", LB_LANE_FINAL);
    check_watched("mean_probs", "hs_cosine", LB_LANE_FINAL);
    check_watched("mean_probs", "attention_mse", LB_LANE_FINAL);
}

/* ---- a bad teacher ----------------------------------------------------------------------------------------
 */

#define ROWS 60
#define CLASSES 10
#define TEACHERS 3

/* Teachers' logits: the good ones say the label, in their own words; the bad one says another, or nothing. */
static void teach(float z[TEACHERS][ROWS][CLASSES], bool with_bad, bool wrong) {
    for (int k = 0; k < TEACHERS; k++) {
        for (int r = 0; r < ROWS; r++) {
            for (int j = 0; j < CLASSES; j++) {
                z[k][r][j] = (float)lb_rng_normal(&lb_worlds.rng) * (k < 2 || wrong || !with_bad ? 1 : 0.1f);
            }
            int says = k < 2 || !with_bad ? r % CLASSES : (r + 3) % CLASSES;
            z[k][r][says] += k < 2 || wrong || !with_bad ? 6 : 0;
        }
    }
}

/* Weights of the teachers at one row. */
static void weigh(const struct lb_mixture *m, enum lb_mixture_by by, float z[TEACHERS][ROWS][CLASSES], int r,
                  double *w) {
    static const double given[TEACHERS] = {1, 1, 1}, one = 1;
    static const bool all[TEACHERS] = {true, true, true};
    double ce[TEACHERS], entropy[TEACHERS], max_prob[TEACHERS] = {0};
    for (int k = 0; k < TEACHERS; k++) {
        float p[CLASSES];
        const float *row = z[k][r];
        entropy[k] = -lb_mixture_dense(LB_COMBINE_PROBS, 1, &row, &one, 1, CLASSES, p);
        ce[k] = -log((double)p[r % CLASSES]);
        for (int j = 0; j < CLASSES; j++) {
            max_prob[k] = fmax(max_prob[k], (double)p[j]);
        }
    }
    const struct lb_weighing in = {.n = TEACHERS,
                                   .present = all,
                                   .given = given,
                                   .cross_entropy = ce,
                                   .entropy = entropy,
                                   .max_prob = max_prob,
                                   .by = by,
                                   .temperature = 0.5};
    lb_mixture_weights(m, &in, w);
}

/* A student of one logit a row and class learns by gradient descent; the labels' cross entropy under it. */
static double learn(const char *name, enum lb_mixture_by by, bool with_bad, bool wrong) {
    static float z[TEACHERS][ROWS][CLASSES];
    const struct lb_mixture *m = lb_mixture_find(name);
    const struct lb_loss *kl = lb_loss_find("kl");
    const struct lb_loss_args args = {.weight = 1, .temperature = 1};
    double sum = 0;
    lb_rng_seed(&lb_worlds.rng, 21, 0);
    teach(z, with_bad, wrong);
    for (int r = 0; r < ROWS; r++) {
        float student[CLASSES] = {0}, memory[4 * (CLASSES + 16)], p[TEACHERS][CLASSES];
        struct lb_target t[TEACHERS];
        struct lb_row row;
        double w[TEACHERS];
        const double one = 1;
        weigh(m, by, z, r, w);
        lb_row_init(&row, CLASSES, 1, memory);
        for (int k = 0; k < TEACHERS; k++) {
            const float *of = z[k][r];
            t[k] = (struct lb_target){.kind = LB_TARGET_DENSE, .temperature = 1, .p = p[k], .z = of};
            t[k].neg_entropy = lb_mixture_dense(LB_COMBINE_LOSSES, 1, &of, &one, 1, CLASSES, p[k]);
        }
        for (int step = 0; step < 300; step++) {
            float dz[CLASSES] = {0};
            lb_row_begin(&row, student, -1);
            for (int k = 0; k < TEACHERS; k++) {
                (void)lb_loss_row(kl, &row, &t[k], &args, (float)w[k], dz);
            }
            for (int j = 0; j < CLASSES; j++) {
                student[j] -= 2 * dz[j];
            }
        }
        lb_row_begin(&row, student, -1);
        sum -= log((double)lb_row_softmax(&row, 1)->q[r % CLASSES]);
    }
    return sum / ROWS;
}

static void bad_teacher(void **state) {
    (void)state;
    static const struct {
        const char *mixture;
        enum lb_mixture_by by;
        bool sees_wrong, sees_ignorant;
    } cases[] = {{"mean_losses", LB_BY_CE, false, false}, {"ca_mkd", LB_BY_CE, true, false},
                 {"dynamic", LB_BY_CE, true, true},       {"select", LB_BY_CE, true, true},
                 {"entropy", LB_BY_CE, false, false},     {"dynamic", LB_BY_ENTROPY, false, true},
                 {"select", LB_BY_ENTROPY, false, true},  {"dynamic", LB_BY_MAX_PROB, false, false}};
    double of_mean[3];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double good = learn(cases[i].mixture, cases[i].by, false, true),
               wrong = learn(cases[i].mixture, cases[i].by, true, true),
               ignorant = learn(cases[i].mixture, cases[i].by, true, false);
        printf("%-12s by %d: labels' cross entropy %.3f of three good teachers, %.3f with a wrong one, %.3f "
               "with "
               "an ignorant one\n",
               cases[i].mixture, (int)cases[i].by, good, wrong, ignorant);
        if (i == 0) {
            of_mean[0] = good, of_mean[1] = wrong, of_mean[2] = ignorant;
            assert_true(wrong > good + 0.25 && ignorant > good + 0.25);
        }
        assert_true(!cases[i].sees_wrong || wrong - good < 0.1 * (of_mean[1] - of_mean[0]));
        assert_true(!cases[i].sees_ignorant || ignorant - good < 0.2 * (of_mean[2] - of_mean[0]));
        assert_true(i == 0 || ignorant < of_mean[2]);
    }
}

int main(void) {
    lb_rng_seed(&lb_worlds.rng, 1, 0);
    const struct CMUnitTest tests[] = {cmocka_unit_test(twice_is_once), cmocka_unit_test(means),
                                       cmocka_unit_test(cut),           cmocka_unit_test(weights_of_states),
                                       cmocka_unit_test(min_norm),      cmocka_unit_test(random_by_number),
                                       cmocka_unit_test(random_step),   cmocka_unit_test(weights_anneal),
                                       cmocka_unit_test(watched),       cmocka_unit_test(bad_teacher)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
