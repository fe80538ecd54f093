#include "trainer/learn/step.h"

#include "common/base/mem.h"
#include "common/nn/reduce.h"
#include "trainer/learn/parts.h"
#include "trainer/learn/schedule.h"

#include <math.h>
#include <string.h>

struct lb_step *lb_step_create(const struct lb_plan *plan, struct lb_model *student, size_t max_bytes) {
    struct lb_step *step = lb_calloc(1, sizeof *step);
    if (step == NULL) {
        return NULL;
    }
    step->plan = plan;
    step->student = student;
    step->tape = lb_tape_create(max_bytes);
    lb_arena_init(&step->memory, max_bytes);
    const struct lb_weight *head = lb_model_head(student)->weight;
    step->v = head != NULL ? head->rows : 1; /* no loss reads logits then */
    for (unsigned k = 0; k < plan->n_teachers; k++) {
        step->top_k = lb_step_top_k(step, k) > step->top_k ? lb_step_top_k(step, k) : step->top_k;
    }
    if (step->tape == NULL) {
        lb_step_destroy(step);
        return NULL;
    }
    return step;
}

void lb_step_destroy(struct lb_step *step) {
    if (step == NULL) {
        return;
    }
    lb_tape_destroy(step->tape);
    lb_arena_finish(&step->memory);
    lb_free(step);
}

/* The rows that the head multiplies: the tokens', or of a classifier of texts one a sample. */
static bool lay_out_head(struct lb_step *step, bool by_sample) {
    const struct lb_sample *samples = step->tokens.samples;
    int64_t n = step->tokens.n_samples;
    step->batch = step->tokens;
    step->n_rows = step->rows.n_rows;
    step->labels = step->rows.labels;
    if (!by_sample || samples[0].ids == NULL) {
        return true;
    }
    int32_t *offsets = lb_arena_array(&step->memory, (size_t)n + 1, sizeof *offsets),
            *labels = lb_arena_array(&step->memory, (size_t)n, sizeof *labels);
    for (int64_t i = 0; offsets != NULL && i <= n; i++) {
        offsets[i] = (int32_t)i;
    }
    for (int64_t i = 0; labels != NULL && i < n; i++) {
        labels[i] = samples[i].label;
    }
    step->batch.offsets = step->batch.sequence = offsets;
    step->n_rows = n;
    step->labels = labels;
    return offsets != NULL && labels != NULL;
}

/* Lays the samples' rows one after the other, with the sample of each row. */
static bool lay_out(struct lb_step *step, const struct lb_sample *samples, int64_t n) {
    struct lb_arena *a = &step->memory;
    struct lb_model_batch *b = &step->rows;
    int64_t rows = 0;
    for (int64_t i = 0; i < n; i++) {
        rows += samples[i].n;
    }
    int32_t *sequence = lb_arena_array(a, (size_t)rows, sizeof *sequence);
    if (sequence == NULL ||
        !lb_model_batch_init(b, a, n, rows, lb_model_config(step->student)->input_size, true)) {
        return false;
    }
    for (int64_t i = 0; i < n; i++) {
        for (int64_t t = 0; t < samples[i].n; t++) {
            sequence[b->n_rows + t] = (int32_t)i;
        }
        if (samples[i].ids != NULL) {
            int32_t *labels = b->labels + b->n_rows;
            lb_model_batch_add_ids(b, samples[i].ids, samples[i].ids + 1, samples[i].n);
            for (int64_t t = 0; t < samples[i].n; t++) {
                labels[t] = lb_sample_counts(&samples[i], t) ? labels[t] : -1;
            }
        } else {
            lb_model_batch_add_features(b, samples[i].features, samples[i].label);
        }
    }
    step->in = lb_model_batch_input(b);
    bool by_sample = lb_model_is_classifier(step->student);
    step->tokens =
        (struct lb_answered){samples, n, b->offsets, sequence, step->plan->n_teachers, NULL, by_sample};
    return lay_out_head(step, by_sample);
}

#define STUDENT_REMEDY "lower learning_rate, warm up longer (warmup_steps) or lower max_grad_norm"

/* A loss on logits at row r. */
static enum lb_status row_not_finite(const struct lb_step *step, size_t l, int64_t r,
                                     struct lb_detail *detail) {
    const char *name = step->plan->losses[l].name;
    int64_t s = step->batch.sequence[r], t = r - step->batch.offsets[s];
    int8_t culprit = step->culprit[r];
    if (culprit == LB_CULPRIT_STUDENT) {
        return lb_fail(
            detail, LB_E_ARG,
            "%s is not finite at position %lld of sample %lld of the batch: the student's logits are "
            "NaN or infinite there; " STUDENT_REMEDY,
            name, (long long)t, (long long)s);
    }
    if (culprit >= LB_CULPRIT_TEACHER) {
        return lb_fail(
            detail, LB_E_ARG,
            "%s is not finite at position %lld of sample %lld of the batch: the logits of teacher %s "
            "are NaN or infinite there; set fp16_targets: false, or look at that teacher",
            name, (long long)t, (long long)s,
            step->plan->recipe->teachers[culprit - LB_CULPRIT_TEACHER].name);
    }
    return lb_fail(
        detail, LB_E_ARG,
        "%s is not finite at position %lld of sample %lld of the batch, though all logits are; lower "
        "learning_rate, or raise temperature",
        name, (long long)t, (long long)s);
}

/* A loss between activations. */
static enum lb_status pair_not_finite(const struct lb_step *step, struct lb_detail *detail) {
    const struct lb_pair *p = step->bad_pair;
    const struct lb_value *own = p->final ? step->states : step->taps[p - step->plan->pairs].value;
    char output[LB_MAX_NAME];
    lb_output_format(p->kind, p->layer, output);
    if (lb_first_nonfinite(own->data, own->rows * own->cols) >= 0) {
        return lb_fail(detail, LB_E_ARG,
                       "%s is not finite: the student's side of %s is NaN or infinite; " STUDENT_REMEDY,
                       step->plan->losses[p->loss].name, output);
    }
    return lb_fail(
        detail, LB_E_ARG,
        "%s is not finite against %s of teacher %s, though the student's side of it is; look at that "
        "teacher, or compare other layers (layer_mapping)",
        step->plan->losses[p->loss].name, output, step->plan->recipe->teachers[p->teacher].name);
}

static enum lb_status check_finite(const struct lb_step *step, struct lb_detail *detail) {
    for (size_t l = 0; l < step->plan->n_losses; l++) {
        for (int64_t r = 0; r < step->n_rows; r++) {
            if (!isfinite(step->row_loss[l * (size_t)step->n_rows + (size_t)r])) {
                return row_not_finite(step, l, r, detail);
            }
        }
    }
    return step->bad_pair == NULL ? LB_OK : pair_not_finite(step, detail);
}

static void add_up(const struct lb_step *step, const double *pair_loss, struct lb_step_result *result) {
    for (size_t l = 0; l < step->plan->n_losses; l++) {
        double sum = pair_loss[l];
        for (int64_t r = 0; r < step->n_rows; r++) {
            sum += step->row_loss[l * (size_t)step->n_rows + (size_t)r];
        }
        sum *= lb_step_inverse(step, l);
        result->term[l] += sum;
        result->loss += step->args[l].weight * sum;
    }
}

/* What the teachers that are asked through a map had on tokens that the student lacks. */
static void add_left_out(const struct lb_step *step, struct lb_step_result *result) {
    for (unsigned k = 0; step->mass != NULL && k < step->plan->n_teachers; k++) {
        for (int64_t r = 0; step->plan->map[k] != NULL && r < step->n_rows; r++) {
            double mass = step->mass[k * (size_t)step->n_rows + (size_t)r];
            double share = mass >= 0 ? lb_step_weight(step, step->batch.sequence[r]) * step->inverse : 0;
            result->cut[k] += share;
            result->left_out[k] += (1 - mass) * share;
        }
    }
}

static enum lb_status out_of_memory(int64_t n, struct lb_detail *detail) {
    return lb_fail(detail, LB_E_NOMEM,
                   "no memory for a batch of %lld samples: lower per_device_train_batch_size", (long long)n);
}

static enum lb_status too_small(enum lb_status status, struct lb_detail *detail) {
    return lb_fail(detail, status,
                   "the step ran out of its memory: lower per_device_train_batch_size and raise "
                   "gradient_accumulation_steps");
}

enum lb_status lb_step_forward(struct lb_step *step, const struct lb_sample *samples, int64_t n,
                               struct lb_rng *rng, const struct lb_value **out_states,
                               struct lb_detail *detail) {
    const struct lb_plan *plan = step->plan;
    step->states = NULL;
    lb_arena_reset(&step->memory);
    if (!lay_out(step, samples, n)) {
        return out_of_memory(n, detail);
    }
    for (size_t i = 0; i < plan->n_pairs; i++) {
        step->taps[i] = plan->pairs[i].tap;
        step->taps[i].value = NULL;
        if (plan->pairs[i].final) {
            step->taps[i].layer = -1; /* no such tap: the final state is at hand */
        }
    }
    lb_tape_begin(step->tape, LB_TAPE_TRAIN, &step->in.ragged, rng);
    step->states = lb_model_forward(step->student, step->tape, &step->in, step->taps, plan->n_pairs, NULL);
    if (step->states == NULL) {
        return too_small(LB_E_NOMEM, detail);
    }
    if (out_states != NULL) {
        *out_states = step->states;
    }
    return LB_OK;
}

void lb_step_set_now(struct lb_step *step, int64_t now, int64_t total) {
    step->now = now;
    step->total = total;
}

void lb_step_set_weight(struct lb_step *step, double positions, double samples) {
    step->weighed = true;
    step->weight_positions = positions;
    step->weight_samples = samples;
}

static double inverse_of(double sum) {
    return sum > 0 ? 1.0 / sum : 0;
}

static void set_args(struct lb_step *step) {
    for (size_t l = 0; l < step->plan->n_losses; l++) {
        const struct lb_annealing *a = &step->plan->losses[l].annealing;
        struct lb_loss_args *args = &step->args[l];
        *args = step->plan->losses[l].args;
        if (a->kind != LB_ANNEAL_NONE) {
            double share = lb_anneal_share(a->kind, a->steps, step->total, step->now);
            args->weight += share * (a->weight - args->weight);
            args->temperature += share * (a->temperature - args->temperature);
        }
    }
}

static bool losses_on_rows(const struct lb_plan *plan) {
    return plan->on_label || plan->on_target || plan->on_chunk || plan->on_aligned;
}

/* What is there before the first loss: memory, the teachers' weights, losses on chunks. */
static bool prepare(struct lb_step *step, double *weight) {
    const struct lb_plan *plan = step->plan;
    bool rows =
        losses_on_rows(plan) || (lb_plan_needs(plan) & (LB_NEEDS_DISTRIBUTIONS | LB_NEEDS_GRADIENTS)) != 0;
    step->row_loss =
        lb_arena_zarray(&step->memory, plan->n_losses * (size_t)step->n_rows, sizeof *step->row_loss);
    step->culprit = lb_arena_zarray(&step->memory, (size_t)step->n_rows, sizeof *step->culprit);
    step->bad_pair = NULL;
    return step->row_loss != NULL && step->culprit != NULL && lb_step_masses_init(step) &&
           lb_step_watch_init(step) && (!rows || lb_step_rows_init(step)) && lb_step_weigh(step, weight) &&
           lb_step_between(step) && lb_step_weigh_states(step) && lb_step_chunks(step) &&
           lb_step_aligned_init(step);
}

static enum lb_status losses_and_backward(struct lb_step *step, double *pair_loss) {
    const struct lb_plan *plan = step->plan;
    enum lb_status status = losses_on_rows(plan) ? lb_step_rows(step) : LB_OK;
    for (size_t i = 0; i < plan->n_pairs && status == LB_OK; i++) {
        const struct lb_pair *p = &plan->pairs[i];
        if (!lb_step_on(step, p->loss)) {
            continue;
        }
        double before = pair_loss[p->loss];
        status = lb_step_pair(step, p, p->final ? step->states : step->taps[i].value, &pair_loss[p->loss]);
        step->apart_loss[p->teacher] +=
            p->loss == lb_plan_first_loss(plan, p->teacher) ? pair_loss[p->loss] - before : 0;
        step->bad_pair = step->bad_pair == NULL && !isfinite(pair_loss[p->loss]) ? p : step->bad_pair;
    }
    return status == LB_OK ? lb_tape_backward(step->tape) : status;
}

enum lb_status lb_step_losses(struct lb_step *step, const struct lb_answer *const *answers, int64_t rows,
                              const struct lb_step_totals *totals, struct lb_step_result *result,
                              struct lb_detail *detail) {
    double pair_loss[LB_MAX_LOSSES] = {0}, weight[LB_MAX_TEACHERS] = {0};
    struct lb_step_totals own = {.square = {0}};
    if (step->states == NULL) {
        return lb_fail(detail, LB_E_ARG, "losses of a step without its forward");
    }
    const struct lb_recipe *r = step->plan->recipe;
    int64_t samples = r->per_device_train_batch_size * r->gradient_accumulation_steps;
    step->inverse = inverse_of(step->weighed ? step->weight_positions : (double)rows);
    step->inverse_sequences = inverse_of(step->weighed ? step->weight_samples : (double)samples);
    step->batch.answers = step->tokens.answers = answers;
    set_args(step);
    if (!prepare(step, weight)) {
        return out_of_memory(step->batch.n_samples, detail);
    }
    enum lb_status status = totals == NULL ? lb_step_count(step, step->batch.samples, step->batch.n_samples,
                                                           answers, &own, detail)
                                           : LB_OK;
    step->totals = totals != NULL ? totals : &own;
    status = status == LB_OK ? losses_and_backward(step, pair_loss) : status;
    step->totals = NULL;
    status = status == LB_OK ? check_finite(step, detail) : too_small(status, detail);
    step->states = NULL;
    if (status == LB_OK) {
        add_up(step, pair_loss, result);
        add_left_out(step, result);
        lb_step_chunks_count(step, result);
        lb_step_aligned_add(step);
        lb_step_watch_add(step, weight, result);
        for (unsigned k = 0; k < step->plan->n_teachers; k++) {
            result->weight[k] += weight[k];
        }
    }
    return status;
}
