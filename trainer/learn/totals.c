/* What sums of losses are divided by. */
#include "trainer/learn/totals.h"

#include "trainer/learn/parts.h"

static bool has_denominator(const struct lb_plan *plan, const struct lb_pair *p) {
    return plan->losses[p->loss].loss->on == LB_ON_HIDDEN && plan->losses[p->loss].args.normalize;
}

bool lb_step_needs_totals(const struct lb_plan *plan) {
    bool any = false;
    for (size_t i = 0; i < plan->n_pairs; i++) {
        any |= has_denominator(plan, &plan->pairs[i]);
    }
    return any;
}

/* The squares of one sample's rows that count, row by row. */
static void count_sample(const struct lb_step *step, const struct lb_answered *batch, size_t pair, int64_t i,
                         float *row, struct lb_step_totals *totals) {
    const struct lb_plan *plan = step->plan;
    const struct lb_pair *p = &plan->pairs[pair];
    const struct lb_answer *answer = batch->answers[i * plan->n_teachers + p->teacher];
    double weight[LB_MAX_TEACHERS];
    bool per_token = lb_step_mix_per_token(step);
    int64_t rows = p->once ? 1 : batch->samples[i].n;
    for (int64_t t = 0; answer != NULL && t < rows; t++) {
        double square = 0;
        if (t == 0 || per_token) {
            lb_step_weigh_ahead(step, batch, plan->losses[p->loss].set, i, per_token ? t : -1, weight);
        }
        if (!(weight[p->teacher] > 0) || !lb_sample_counts(&batch->samples[i], t)) {
            continue;
        }
        lb_wire_floats(lb_answer_find(answer, p->kind, p->layer), lb_answer_row(answer, t) * p->teacher_width,
                       p->teacher_width, row);
        for (int64_t j = 0; j < p->teacher_width; j++) {
            square += (double)row[j] * row[j];
        }
        totals->square[pair] += lb_sample_weight(&batch->samples[i]) * square;
        totals->numbers[pair] += lb_sample_weight(&batch->samples[i]) * (double)p->teacher_width;
    }
}

enum lb_status lb_step_count(struct lb_step *step, const struct lb_sample *samples, int64_t n,
                             const struct lb_answer *const *answers, struct lb_step_totals *totals,
                             struct lb_detail *detail) {
    const struct lb_plan *plan = step->plan;
    const struct lb_answered batch = {.samples = samples,
                                      .n_samples = n,
                                      .n_teachers = plan->n_teachers,
                                      .answers = answers,
                                      .by_sample = lb_model_is_classifier(step->student)};
    for (size_t i = 0; i < plan->n_pairs; i++) {
        if (!has_denominator(plan, &plan->pairs[i]) ||
            !lb_plan_on(plan, plan->pairs[i].loss, samples[0].source)) {
            continue;
        }
        float *row = lb_arena_array(&step->memory, (size_t)plan->pairs[i].teacher_width, sizeof *row);
        if (row == NULL) {
            return lb_fail(detail, LB_E_NOMEM, "no memory for the answers about %lld samples", (long long)n);
        }
        for (int64_t s = 0; s < n; s++) {
            count_sample(step, &batch, i, s, row, totals);
        }
    }
    return LB_OK;
}

double lb_step_inverse_square(const struct lb_step *step, const struct lb_pair *p) {
    size_t i = (size_t)(p - step->plan->pairs);
    bool any = has_denominator(step->plan, p) && step->totals->square[i] > 0;
    return any ? step->totals->numbers[i] / step->totals->square[i] : 1;
}

double lb_step_inverse(const struct lb_step *step, size_t l) {
    enum lb_loss_on on = step->plan->losses[l].loss->on;
    bool of_samples = lb_step_head_apart(step) && (on == LB_ON_LABEL || on == LB_ON_TARGET);
    return on == LB_ON_SENTENCE || of_samples || step->plan->losses[l].once ||
                   step->plan->losses[l].args.first_token
               ? step->inverse_sequences
               : step->inverse;
}
