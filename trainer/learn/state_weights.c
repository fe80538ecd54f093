/* Weights of teachers for losses between final states, by what each teacher's head makes of the student's
 * state (CA-MKD's part on features): surer of the label, nearer to that teacher's ways. Constants in the
 * gradient. */
#include "common/nn/head.h"
#include "common/nn/reduce.h"
#include "trainer/learn/parts.h"

#include <string.h>

/* The labels' cross entropy where teacher p->teacher's head reads the student's projected final states, into
 * ce [N]; 0 where there is no label. */
static bool read_ce(struct lb_step *step, const struct lb_pair *p, double *ce) {
    const struct lb_teacher_head *head = step->plan->head[p->teacher];
    const struct lb_weight *projection =
        p->projection[0] != 0 ? lb_model_find(step->student, p->projection) : NULL;
    int64_t v = head->vocab_size, most = lb_head_chunk(v), c = step->states->cols;
    most = most < step->n_rows ? most : step->n_rows;
    struct lb_arena_mark mark = lb_arena_mark(&step->memory);
    float *z = lb_arena_array(&step->memory, (size_t)(most * v), sizeof *z);
    float *projected = lb_arena_array(&step->memory, (size_t)(most * head->hidden_size), sizeof *projected);
    for (int64_t row = 0; z != NULL && projected != NULL && row < step->n_rows; row += most) {
        int64_t n = step->n_rows - row < most ? step->n_rows - row : most;
        const float *states = step->states->data + row * c;
        if (projection != NULL) {
            lb_head_logits(states, n, c, projection->value, NULL, head->hidden_size, LB_HEAD_PLAIN,
                           projected);
            states = projected;
        }
        lb_head_logits(states, n, head->hidden_size, head->weight, head->bias, v, head->shape, z);
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < n; i++) {
            int32_t label = step->labels[row + i];
            ce[row + i] = label >= 0 ? lb_logsumexp(z + i * v, v, 1) - (double)z[i * v + label] : 0;
        }
    }
    bool ok = z != NULL && projected != NULL;
    lb_arena_release(&step->memory, mark);
    return ok;
}

/* Of sample i, its token t, or with t < 0 the mean over those that have a label. */
static double mean_of(const struct lb_step *step, const double *ce, int64_t i, int64_t t) {
    const int32_t *offsets = step->batch.offsets;
    double sum = 0, n = 0;
    for (int64_t row = offsets[i]; t < 0 && row < offsets[i + 1]; row++) {
        sum += ce[row];
        n += step->labels[row] >= 0 ? 1 : 0;
    }
    return t < 0 ? sum / (n > 0 ? n : 1) : ce[offsets[i] + t];
}

/* All weights [mixes, teachers] of loss l from ce [teachers, N]. */
static void weigh_loss(const struct lb_step *step, size_t l, const double *ce, double *w) {
    const struct lb_plan *plan = step->plan;
    unsigned n = plan->n_teachers;
    bool per_token = lb_step_mix_per_token(step);
    for (int64_t i = 0; i < step->batch.n_samples; i++) {
        double given[LB_MAX_TEACHERS], of[LB_MAX_TEACHERS];
        bool present[LB_MAX_TEACHERS];
        lb_plan_given(plan, &step->batch.samples[i], given);
        for (int64_t t = 0; t < (per_token ? step->batch.samples[i].n : 1); t++, w += n) {
            for (unsigned k = 0; k < n; k++) {
                present[k] = lb_plan_learns(plan, l, k) && step->batch.answers[i * n + k] != NULL;
                of[k] = mean_of(step, ce + k * (size_t)step->n_rows, i, per_token ? t : -1);
            }
            const struct lb_weighing in = {.n = n, .present = present, .given = given, .cross_entropy = of};
            lb_mixture_weights(plan->mixture, &in, w);
        }
    }
}

bool lb_step_weigh_states(struct lb_step *step) {
    const struct lb_plan *plan = step->plan;
    size_t rows = plan->n_teachers * (size_t)step->n_rows, each = lb_step_mixes(step) * plan->n_teachers;
    memset(step->state_mix, 0, sizeof step->state_mix);
    for (size_t i = 0; i < plan->n_pairs; i++) {
        size_t l = plan->pairs[i].loss;
        if (!plan->pairs[i].by_head || !lb_step_on(step, l) || step->state_mix[l] != NULL) {
            continue;
        }
        double *mix = lb_arena_zarray(&step->memory, each, sizeof *mix);
        double *ce = lb_arena_zarray(&step->memory, rows, sizeof *ce);
        bool ok = mix != NULL && ce != NULL;
        for (size_t j = i; j < plan->n_pairs && ok; j++) { /* a loss's pairs by teacher: the last's counts */
            const struct lb_pair *p = &plan->pairs[j];
            ok = p->loss != l || !p->by_head || read_ce(step, p, ce + p->teacher * (size_t)step->n_rows);
        }
        if (!ok) {
            return false;
        }
        weigh_loss(step, l, ce, mix);
        step->state_mix[l] = mix;
    }
    return true;
}
