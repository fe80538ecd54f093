/* How much each teacher counts, per sequence or per token. */
#include "trainer/learn/parts.h"

/* Of the labels of sample i, of its token t, or with t < 0 all of it. Where a teacher reads other tokens,
 * they are not its labels one by one: then of all there is to compare. */
static double cross_entropy(const struct lb_plan *plan, const struct lb_answered *batch, unsigned k,
                            int64_t i, int64_t t) {
    if (plan->unlike[k]) {
        return lb_step_chunks_cross_entropy(batch, k, i);
    }
    return t < 0 ? lb_target_cross_entropy(batch, k, i, plan->head[k])
                 : lb_target_cross_entropy_at(batch, k, i, t, plan->head[k]);
}

void lb_step_weigh_one(const struct lb_step *step, const struct lb_answered *batch, unsigned set, int64_t i,
                       int64_t t, double *out) {
    const struct lb_plan *plan = step->plan;
    unsigned n = plan->n_teachers;
    bool present[LB_MAX_TEACHERS];
    double given[LB_MAX_TEACHERS], ce[LB_MAX_TEACHERS] = {0};
    bool needs_ce = (plan->mixture->needs & LB_NEEDS_CROSS_ENTROPY) != 0;
    for (unsigned k = 0; k < n; k++) {
        bool member = plan->sets[set] == 0 || (plan->sets[set] >> k & 1) != 0;
        present[k] = member && batch->answers[i * n + k] != NULL;
        given[k] = plan->recipe->teachers[k].weight;
        if (needs_ce) {
            ce[k] = member ? cross_entropy(plan, batch, k, i, t) : 0;
        }
    }
    const struct lb_weighing in = {n, present, given, needs_ce ? ce : NULL};
    lb_mixture_weights(plan->mixture, &in, out);
}

/* The set of the first loss that learns from teacher k. */
static unsigned set_of(const struct lb_plan *plan, unsigned k) {
    for (size_t l = 0; l < plan->n_losses; l++) {
        if (plan->losses[l].loss->on != LB_ON_LABEL && lb_plan_learns(plan, l, k)) {
            return plan->losses[l].set;
        }
    }
    return 0;
}

static void weigh_set(const struct lb_step *step, unsigned set, double *w, double *total) {
    const struct lb_plan *plan = step->plan;
    bool per_token = lb_step_mix_per_token(step);
    for (int64_t i = 0; i < step->batch.n_samples; i++) {
        const struct lb_sample *sample = &step->batch.samples[i];
        int64_t times = per_token ? sample->n : 1;
        for (int64_t t = 0; t < times; t++, w += plan->n_teachers) {
            int64_t counted = per_token ? lb_sample_counts(sample, t) : lb_sample_counted(sample);
            bool apart = lb_step_head_apart(step);
            lb_step_weigh_one(step, &step->batch, set, i, per_token ? t : -1, w);
            for (unsigned k = 0; k < plan->n_teachers; k++) {
                double share =
                    apart ? w[k] * step->inverse_sequences : w[k] * (double)counted * step->inverse;
                total[k] += set == set_of(plan, k) ? share : 0;
            }
        }
    }
}

bool lb_step_weigh(struct lb_step *step, double *total) {
    const struct lb_plan *plan = step->plan;
    size_t n = plan->n_teachers, each = lb_step_mixes(step) * n;
    if (n == 0) {
        return true;
    }
    step->mix = lb_arena_zarray(&step->memory, (plan->n_sets + 1) * each, sizeof *step->mix);
    for (unsigned set = 0; step->mix != NULL && set <= plan->n_sets; set++) {
        weigh_set(step, set, step->mix + set * each, total);
    }
    return step->mix != NULL;
}
