/* How much each teacher counts, per sequence or per token. */
#include "common/base/rng.h"
#include "trainer/learn/parts.h"
#include "trainer/learn/schedule.h"

#include <omp.h>

#define DRAWS (UINT64_C(1) << 63) /* streams of random numbers that dropout has none of */

unsigned lb_plan_needs(const struct lb_plan *plan) {
    return plan->n_teachers > 0 ? lb_mixture_needs(plan->mixture, plan->recipe->mixture_by) : 0;
}

void lb_plan_given(const struct lb_plan *plan, const struct lb_sample *sample, double *out) {
    const struct lb_recipe *r = plan->recipe;
    int64_t samples = r->per_device_train_batch_size * r->gradient_accumulation_steps;
    for (unsigned k = 0; k < plan->n_teachers; k++) {
        const struct lb_recipe_teacher *t = &r->teachers[k];
        out[k] = t->weight;
        if (t->anneal != LB_ANNEAL_NONE) {
            int64_t step = sample->number / samples;
            out[k] += lb_anneal_share(t->anneal, t->anneal_steps, plan->total_steps, step) *
                      (t->weight_end - t->weight);
        }
    }
}

double lb_plan_draw(const struct lb_plan *plan, const struct lb_sample *sample) {
    const struct lb_recipe *r = plan->recipe;
    bool batches = r->mixture_per == LB_PER_BATCH;
    uint64_t number = (uint64_t)sample->number / (batches ? (uint64_t)r->per_device_train_batch_size : 1);
    struct lb_rng rng;
    lb_rng_seed(&rng, (uint64_t)r->seed, DRAWS | number);
    return lb_rng_double(&rng);
}

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

static bool counts_at(const struct lb_step *step, int64_t row) {
    return step->labels[row] >= 0 || step->batch.by_sample;
}

/* How sure teacher k is of sample i, of its token t, or with t < 0 the mean over those that count. */
static struct lb_confidence confidence(const struct lb_step *step, unsigned k, int64_t i, int64_t t) {
    const struct lb_confidence *of = step->confidence + k * (size_t)step->n_rows;
    const int32_t *offsets = step->batch.offsets;
    struct lb_confidence mean = {0, 0};
    double n = 0;
    if (t >= 0) {
        return of[offsets[i] + t];
    }
    for (int64_t row = offsets[i]; row < offsets[i + 1]; row++) {
        mean.entropy += of[row].entropy;
        mean.max_prob += of[row].max_prob;
        n += counts_at(step, row) ? 1 : 0;
    }
    mean.entropy /= n > 0 ? n : 1;
    mean.max_prob /= n > 0 ? n : 1;
    return mean;
}

bool lb_plan_in_set(const struct lb_plan *plan, unsigned set, unsigned k) {
    return plan->sets[set] == 0 || (plan->sets[set] >> k & 1) != 0;
}

/* needs: those of the mixture's that can be told. */
static void weigh(const struct lb_step *step, const struct lb_answered *batch, unsigned needs, unsigned set,
                  int64_t i, int64_t t, double *out) {
    const struct lb_plan *plan = step->plan;
    unsigned n = plan->n_teachers;
    bool present[LB_MAX_TEACHERS];
    double given[LB_MAX_TEACHERS], ce[LB_MAX_TEACHERS] = {0}, entropy[LB_MAX_TEACHERS] = {0},
                                   max_prob[LB_MAX_TEACHERS] = {0}, gram[LB_MAX_TEACHERS * LB_MAX_TEACHERS];
    struct lb_mixture mixture = *plan->mixture;
    bool draws = (needs & LB_NEEDS_DRAW) != 0;
    lb_plan_given(plan, &batch->samples[i], given);
    for (unsigned k = 0; k < n; k++) {
        bool there = lb_plan_in_set(plan, set, k) && batch->answers[i * n + k] != NULL;
        present[k] = there || (draws && lb_plan_in_set(plan, set, k)); /* the others are not even asked */
        if (there && (needs & LB_NEEDS_CROSS_ENTROPY) != 0) {
            ce[k] = cross_entropy(plan, batch, k, i, t);
        }
        if (there && (needs & LB_NEEDS_DISTRIBUTIONS) != 0) {
            struct lb_confidence sure = confidence(step, k, i, t);
            entropy[k] = sure.entropy;
            max_prob[k] = sure.max_prob;
        }
    }
    if ((needs & LB_NEEDS_GRADIENTS) != 0) {
        lb_step_gram(step, i, t, gram);
    }
    const struct lb_weighing in = {
        .gram = gram,
        .n = n,
        .present = present,
        .given = given,
        .cross_entropy = ce,
        .entropy = entropy,
        .max_prob = max_prob,
        .by = plan->recipe->mixture_by != LB_BY_DEFAULT ? plan->recipe->mixture_by : LB_BY_CE,
        .temperature = plan->recipe->mixture_temperature > 0 ? plan->recipe->mixture_temperature : 1,
        .draw = draws ? lb_plan_draw(plan, &batch->samples[i]) : 0};
    mixture.weigh = needs == lb_plan_needs(plan) ? mixture.weigh : NULL;
    lb_mixture_weights(&mixture, &in, out);
    for (unsigned k = 0; k < n; k++) {
        out[k] = batch->answers[i * n + k] != NULL ? out[k] : 0;
    }
}

void lb_step_weigh_one(const struct lb_step *step, const struct lb_answered *batch, unsigned set, int64_t i,
                       int64_t t, double *out) {
    weigh(step, batch, lb_plan_needs(step->plan), set, i, t, out);
}

void lb_step_weigh_ahead(const struct lb_step *step, const struct lb_answered *batch, unsigned set, int64_t i,
                         int64_t t, double *out) {
    unsigned told = LB_NEEDS_CROSS_ENTROPY | LB_NEEDS_DRAW;
    weigh(step, batch, lb_plan_needs(step->plan) & told, set, i, t, out);
}

/* The set of the first loss that learns from teacher k. */
static unsigned set_of(const struct lb_plan *plan, unsigned k) {
    size_t l = lb_plan_first_loss(plan, k);
    return l < plan->n_losses ? plan->losses[l].set : 0;
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
            double often = lb_sample_weight(sample) *
                           (apart ? step->inverse_sequences : (double)counted * step->inverse);
            lb_step_weigh_one(step, &step->batch, set, i, per_token ? t : -1, w);
            for (unsigned k = 0; k < plan->n_teachers; k++) {
                total[k] += set == set_of(plan, k) ? w[k] * often : 0;
            }
        }
    }
}

/* How sure each teacher is of each row that counts: from all its logits, a pass of its own through its head
 * before the one that makes the losses, since their weights may be a whole sequence's. */
static bool read_confidence(struct lb_step *step) {
    const struct lb_plan *plan = step->plan;
    size_t n = plan->n_teachers * (size_t)step->n_rows;
    int64_t most = lb_step_rows_at_once(step);
    step->confidence = lb_arena_zarray(&step->memory, n, sizeof *step->confidence);
    for (int64_t row = 0; step->confidence != NULL && row < step->n_rows; row += most) {
        int64_t rows = step->n_rows - row < most ? step->n_rows - row : most;
        lb_step_read_logits(step, row, rows);
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < rows; i++) {
            const struct lb_answer *const *answers =
                step->batch.answers + (int64_t)step->batch.sequence[row + i] * plan->n_teachers;
            for (unsigned k = 0; k < plan->n_teachers && counts_at(step, row + i); k++) {
                if (answers[k] != NULL) {
                    step->confidence[k * (size_t)step->n_rows + (size_t)(row + i)] =
                        lb_step_confidence_at(step, &step->workers[omp_get_thread_num()], k, row + i, i);
                }
            }
        }
    }
    return step->confidence != NULL;
}

bool lb_step_weigh(struct lb_step *step, double *total) {
    const struct lb_plan *plan = step->plan;
    size_t n = plan->n_teachers, each = lb_step_mixes(step) * n;
    if (n == 0) {
        return true;
    }
    if ((lb_plan_needs(plan) & LB_NEEDS_DISTRIBUTIONS) != 0 && !read_confidence(step)) {
        return false;
    }
    if ((lb_plan_needs(plan) & LB_NEEDS_GRADIENTS) != 0 && !lb_step_gradients(step)) {
        return false;
    }
    step->mix = lb_arena_zarray(&step->memory, (plan->n_sets + 1) * each, sizeof *step->mix);
    for (unsigned set = 0; step->mix != NULL && set <= plan->n_sets; set++) {
        weigh_set(step, set, step->mix + set * each, total);
    }
    return step->mix != NULL;
}
