/* How much each teacher counts, per sequence or per token. */
#include "trainer/learn/parts.h"

void lb_step_weigh_one(const struct lb_step *step, const struct lb_answered *batch, int64_t i, int64_t t,
                       double *out) {
    const struct lb_plan *plan = step->plan;
    unsigned n = plan->n_teachers;
    bool present[LB_MAX_TEACHERS];
    double given[LB_MAX_TEACHERS], ce[LB_MAX_TEACHERS] = {0};
    bool needs_ce = (plan->mixture->needs & LB_NEEDS_CROSS_ENTROPY) != 0;
    for (unsigned k = 0; k < n; k++) {
        present[k] = batch->answers[i * n + k] != NULL;
        given[k] = plan->recipe->teachers[k].weight;
        if (needs_ce) {
            ce[k] = t < 0 ? lb_target_cross_entropy(batch, k, i, plan->head[k])
                          : lb_target_cross_entropy_at(batch, k, i, t, plan->head[k]);
        }
    }
    const struct lb_weighing in = {n, present, given, needs_ce ? ce : NULL};
    lb_mixture_weights(plan->mixture, &in, out);
}

bool lb_step_weigh(struct lb_step *step, double *total) {
    const struct lb_plan *plan = step->plan;
    size_t n = plan->n_teachers;
    if (n == 0) {
        return true;
    }
    bool per_token = plan->mixture->per_token;
    size_t sets = (size_t)(per_token ? step->rows.n_rows : step->batch.n_samples);
    step->mix = lb_arena_zarray(&step->memory, sets * n, sizeof *step->mix);
    if (step->mix == NULL) {
        return false;
    }
    double *w = step->mix;
    for (int64_t i = 0; i < step->batch.n_samples; i++) {
        const struct lb_sample *sample = &step->batch.samples[i];
        int64_t times = per_token ? sample->n : 1;
        for (int64_t t = 0; t < times; t++, w += n) {
            int64_t counted = per_token ? lb_sample_counts(sample, t) : lb_sample_counted(sample);
            lb_step_weigh_one(step, &step->batch, i, per_token ? t : -1, w);
            for (size_t k = 0; k < n; k++) {
                total[k] += w[k] * (double)counted * step->inverse;
            }
        }
    }
    return true;
}

const double *lb_step_mix(const struct lb_step *step, int64_t row) {
    const struct lb_plan *plan = step->plan;
    return step->mix + (plan->mixture->per_token ? row : step->batch.sequence[row]) * plan->n_teachers;
}
