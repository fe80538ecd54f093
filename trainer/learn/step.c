#include "trainer/learn/step.h"

#include "common/base/mem.h"
#include "common/nn/head.h"
#include "common/nn/reduce.h"

#include <math.h>
#include <omp.h>
#include <string.h>

struct lb_step {
    const struct lb_plan *plan;
    struct lb_model *student;
    struct lb_tape *tape;
    struct lb_arena memory; /* what one micro-batch needs beside the tape */
    /* one micro-batch */
    struct lb_answered batch;
    struct lb_input in;
    const int32_t *labels; /* [N] */
    int64_t n_rows;
    double *mix;               /* [samples * teachers] mixture weights */
    double *row_loss;          /* [losses * N] */
    double inverse;            /* 1 / rows of the optimizer step */
    float *z[LB_MAX_TEACHERS]; /* teachers' logits of one chunk */
    float *states;             /* workspace of lb_target_logits */
    float *scratch;            /* per thread: p [V], dz [V], p_at [K] */
    int32_t *scratch_ids;      /* per thread: [K] */
    int64_t v, top_k;
};

struct lb_step *lb_step_create(const struct lb_plan *plan, struct lb_model *student, size_t max_bytes) {
    struct lb_step *step = lb_calloc(1, sizeof *step);
    if (step == NULL) {
        return NULL;
    }
    step->plan = plan;
    step->student = student;
    step->tape = lb_tape_create(max_bytes);
    lb_arena_init(&step->memory, max_bytes);
    step->v = lb_model_head(student)->rows;
    step->top_k = plan->recipe->loss_top_k < step->v ? plan->recipe->loss_top_k : step->v;
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

/* ---- the batch --------------------------------------------------------------------------------------------
 */

/* Lays the samples' rows one after the other: ids, labels, features, and the sample of each row. */
static bool lay_out(struct lb_step *step, const struct lb_sample *samples, int64_t n) {
    struct lb_arena *a = &step->memory;
    const struct lb_config *c = lb_model_config(step->student);
    int64_t rows = 0;
    for (int64_t i = 0; i < n; i++) {
        rows += samples[i].n;
    }
    int32_t *offsets = lb_arena_array(a, (size_t)n + 1, sizeof *offsets);
    int32_t *sequence = lb_arena_array(a, (size_t)rows, sizeof *sequence);
    int32_t *labels = lb_arena_array(a, (size_t)rows, sizeof *labels);
    int32_t *ids = lb_arena_array(a, (size_t)rows, sizeof *ids);
    float *features = lb_arena_array(a, (size_t)(rows * c->input_size), sizeof *features);
    if (offsets == NULL || sequence == NULL || labels == NULL || ids == NULL || features == NULL) {
        return false;
    }
    int32_t row = 0;
    for (int64_t i = 0; i < n; i++) {
        offsets[i] = row;
        for (int64_t t = 0; t < samples[i].n; t++, row++) {
            sequence[row] = (int32_t)i;
            labels[row] = samples[i].ids != NULL ? samples[i].ids[t + 1] : samples[i].label;
            ids[row] = samples[i].ids != NULL ? samples[i].ids[t] : 0;
        }
        if (samples[i].features != NULL) {
            memcpy(features + i * c->input_size, samples[i].features,
                   (size_t)c->input_size * sizeof *features);
        }
    }
    offsets[n] = row;
    step->labels = labels;
    step->n_rows = rows;
    step->in = (struct lb_input){.ragged = {n, offsets}, .ids = ids, .features = features};
    step->batch = (struct lb_answered){samples, n, offsets, sequence, step->plan->n_teachers, NULL};
    return true;
}

/* Mixture weights of each sample. */
static bool weigh(struct lb_step *step, struct lb_step_result *result) {
    const struct lb_plan *plan = step->plan;
    unsigned n = plan->n_teachers;
    step->mix =
        lb_arena_zarray(&step->memory, (size_t)step->batch.n_samples * (n > 0 ? n : 1), sizeof *step->mix);
    if (step->mix == NULL) {
        return false;
    }
    for (int64_t i = 0; n > 0 && i < step->batch.n_samples; i++) {
        bool present[LB_MAX_TEACHERS];
        double given[LB_MAX_TEACHERS], ce[LB_MAX_TEACHERS] = {0};
        for (unsigned k = 0; k < n; k++) {
            present[k] = step->batch.answers[i * n + k] != NULL;
            given[k] = plan->recipe->teachers[k].weight;
            if (plan->recipe->mixture == LB_MIX_CA_MKD && plan->on_target) {
                ce[k] = lb_target_cross_entropy(&step->batch, k, i, plan->head[k]);
            }
        }
        lb_mixture_weights(plan->recipe->mixture, n, present, given, ce, step->mix + i * n);
        for (unsigned k = 0; k < n; k++) {
            result->weight[k] += step->mix[i * n + k] * (double)step->batch.samples[i].n * step->inverse;
        }
    }
    return true;
}

/* ---- losses on logits -------------------------------------------------------------------------------------
 */

/* The truncated distribution that teacher k's answer gives for one row. */
static void top_k_target(const struct lb_step *step, const struct lb_answer *answer, int64_t t, int32_t *ids,
                         float *p, struct lb_target *target) {
    const struct lb_wire_tensor *at = lb_answer_find(answer, LB_OUT_TOPK_IDS, 0);
    const struct lb_wire_tensor *values = lb_answer_find(answer, LB_OUT_TOPK_VALUES, 0);
    const struct lb_wire_tensor *lse = lb_answer_find(answer, LB_OUT_LOGSUMEXP, 0);
    float norm;
    double sum = 0;
    lb_wire_floats(lse, t, 1, &norm);
    lb_wire_floats(values, t * step->top_k, step->top_k, p);
    for (int64_t i = 0; i < step->top_k; i++) {
        ids[i] = lb_answer_id(at, t * step->top_k + i);
        p[i] = (float)exp(p[i] / target->temperature - norm);
        sum += p[i];
    }
    target->k = step->top_k;
    target->ids = ids;
    target->p_at = p;
    target->tail = sum < 1 ? 1 - sum : 0;
    target->add_tail = step->plan->recipe->loss_add_tail;
}

/* One teacher's loss of one row times its weight (mean of losses). */
static double teacher_loss(const struct lb_step *step, unsigned l, unsigned k, int64_t row, int64_t in_chunk,
                           const float *z, double factor, float *scratch, int32_t *ids, float *dz) {
    const struct lb_plan *plan = step->plan;
    int64_t s = step->batch.sequence[row], v = step->v;
    double w = step->mix[s * plan->n_teachers + k];
    const struct lb_answer *answer = step->batch.answers[s * plan->n_teachers + k];
    if (w <= 0 || answer == NULL) {
        return 0;
    }
    struct lb_target target = {.label = step->labels[row], .temperature = plan->losses[l].temperature};
    if (plan->recipe->targets == LB_LANE_TOPK) {
        top_k_target(step, answer, row - step->batch.offsets[s], ids, scratch, &target);
    } else {
        const float *one = step->z[k] + in_chunk * v;
        double whole = 1;
        target.neg_entropy = lb_mixture_dense(LB_MIX_PROBS, 1, &one, &whole, target.temperature, v, scratch);
        target.p = scratch;
    }
    return w * plan->losses[l].loss->row(z, v, &target, (float)(factor * w), dz);
}

/* One row of one loss on distributions. Truncated targets of several teachers have no common ids to be mixed
 * over, so their losses are mixed; for the forward KL that is the same gradient as mixing full distributions.
 */
static double target_loss(const struct lb_step *step, unsigned l, int64_t row, int64_t in_chunk,
                          const float *z, double factor, float *scratch, int32_t *ids, float *dz) {
    const struct lb_plan *plan = step->plan;
    unsigned n = plan->n_teachers;
    double loss = 0;
    if (plan->recipe->targets == LB_LANE_TOPK || plan->recipe->mixture == LB_MIX_LOSSES) {
        for (unsigned k = 0; k < n; k++) {
            loss += teacher_loss(step, l, k, row, in_chunk, z, factor, scratch, ids, dz);
        }
        return loss;
    }
    const float *rows[LB_MAX_TEACHERS];
    int64_t s = step->batch.sequence[row];
    bool any = false;
    for (unsigned k = 0; k < n; k++) {
        rows[k] = step->batch.answers[s * n + k] != NULL ? step->z[k] + in_chunk * step->v : NULL;
        any |= rows[k] != NULL && step->mix[s * n + k] > 0;
    }
    if (!any) {
        return 0;
    }
    struct lb_target target = {
        .label = step->labels[row], .temperature = plan->losses[l].temperature, .p = scratch};
    target.neg_entropy = lb_mixture_dense(plan->recipe->mixture, n, rows, step->mix + s * n,
                                          target.temperature, step->v, scratch);
    return plan->losses[l].loss->row(z, step->v, &target, (float)factor, dz);
}

/* All losses on logits of one row; z becomes the gradient. */
static void row_losses(const struct lb_step *step, int64_t row, int64_t in_chunk, float *z, float *scratch,
                       int32_t *ids) {
    const struct lb_plan *plan = step->plan;
    int64_t v = step->v;
    float *dz = scratch + v;
    memset(dz, 0, (size_t)v * sizeof *dz);
    for (unsigned l = 0; l < plan->n_losses; l++) {
        double factor = plan->losses[l].weight * step->inverse, loss = 0;
        if (plan->losses[l].loss->on == LB_ON_LABEL) {
            struct lb_target target = {.label = step->labels[row], .temperature = 1};
            loss = plan->losses[l].loss->row(z, v, &target, (float)factor, dz);
        } else if (plan->losses[l].loss->on == LB_ON_TARGET) {
            loss = target_loss(step, l, row, in_chunk, z, factor, scratch, ids, dz);
        }
        step->row_loss[l * (size_t)step->n_rows + (size_t)row] = loss;
    }
    memcpy(z, dz, (size_t)v * sizeof *dz);
}

static int64_t scratch_floats(const struct lb_step *step) {
    return (2 * step->v + step->top_k + 15) / 16 * 16;
}

static enum lb_status on_logits(void *context, int64_t row, int64_t n, float *z) {
    struct lb_step *step = context;
    const struct lb_plan *plan = step->plan;
    for (unsigned k = 0; plan->on_target && plan->recipe->targets != LB_LANE_TOPK && k < plan->n_teachers;
         k++) {
        lb_target_logits(&step->batch, k, plan->head[k], step->v, row, n, step->states, step->z[k]);
    }
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        int thread = omp_get_thread_num();
        row_losses(step, row + i, i, z + i * step->v, step->scratch + thread * scratch_floats(step),
                   step->scratch_ids + thread * step->top_k);
    }
    return LB_OK;
}

/* Workspaces for chunks of logits; a chunk has at most as many rows as the batch, or as the head's chunk
 * size. */
static bool chunk_memory(struct lb_step *step) {
    const struct lb_plan *plan = step->plan;
    struct lb_arena *a = &step->memory;
    int64_t rows = lb_head_chunk(step->v), width = 1;
    rows = rows < step->n_rows ? rows : step->n_rows;
    int threads = omp_get_max_threads();
    step->row_loss = lb_arena_zarray(a, plan->n_losses * (size_t)step->n_rows, sizeof *step->row_loss);
    step->scratch = lb_arena_array(a, (size_t)threads * (size_t)scratch_floats(step), sizeof(float));
    step->scratch_ids = lb_arena_array(a, (size_t)threads * (size_t)step->top_k, sizeof(int32_t));
    bool ok = step->row_loss != NULL && step->scratch != NULL && step->scratch_ids != NULL;
    for (unsigned k = 0; ok && plan->on_target && k < plan->n_teachers; k++) {
        width = plan->info[k]->hidden_size > width ? plan->info[k]->hidden_size : width;
        step->z[k] = plan->recipe->targets != LB_LANE_TOPK
                         ? lb_arena_array(a, (size_t)(rows * step->v), sizeof(float))
                         : NULL;
        ok = step->z[k] != NULL || plan->recipe->targets == LB_LANE_TOPK;
    }
    step->states = lb_arena_array(a, (size_t)(rows * width), sizeof(float));
    return ok && step->states != NULL;
}

/* ---- losses on activations --------------------------------------------------------------------------------
 */

static bool zero_if_fresh(struct lb_tape *tape, struct lb_value *v) {
    if (lb_grad_fresh(tape, v)) {
        memset(v->grad, 0, (size_t)(v->rows * v->cols) * sizeof *v->grad);
    }
    return v->grad != NULL;
}

/* Weights of the rows of pair p: its teacher's mixture weight of the row's sample. */
static bool row_weights(struct lb_step *step, const struct lb_pair *p, double **out) {
    *out = lb_arena_array(&step->memory, (size_t)step->n_rows, sizeof **out);
    for (int64_t r = 0; *out != NULL && r < step->n_rows; r++) {
        (*out)[r] = step->mix[step->batch.sequence[r] * (int64_t)step->plan->n_teachers + p->teacher];
    }
    return *out != NULL;
}

/* Hidden states: project where widths differ, then the loss over all rows. */
static enum lb_status hidden_pair(struct lb_step *step, const struct lb_pair *p, struct lb_value *state,
                                  double *loss) {
    const struct lb_plan *plan = step->plan;
    struct lb_value *a = state;
    if (p->projection[0] != 0) {
        a = lb_linear(step->tape, state, lb_model_find(step->student, p->projection), NULL);
    }
    double *weight;
    float *b = lb_arena_array(&step->memory, (size_t)(step->n_rows * p->teacher_width), sizeof *b);
    if (a == NULL || b == NULL || !row_weights(step, p, &weight) || !zero_if_fresh(step->tape, a)) {
        return LB_E_NOMEM;
    }
    lb_target_states(&step->batch, p->teacher, p->kind, p->layer, p->teacher_width, b);
    double scale = plan->losses[p->loss].weight * step->inverse;
    *loss += plan->losses[p->loss].loss->state(a->data, b, step->n_rows, p->teacher_width, weight,
                                               plan->losses[p->loss].normalize, scale, a->grad);
    return LB_OK;
}

/* Attention probabilities of one sample: a [H, T, T] the student's. Where the numbers of heads differ, the
 * means over heads are compared. The loss is the mean over the T (T + 1) / 2 causal entries (and heads),
 * times T rows. */
static void attention_sample(const struct lb_step *step, const struct lb_pair *p, const float *a,
                             const float *b, int64_t t, double weight, float *mean_a, float *mean_b, float *d,
                             double *loss, float *da) {
    const struct lb_plan *plan = step->plan;
    int64_t h = p->student_width, g = p->teacher_width, square = t * t;
    bool same = h == g;
    int64_t planes = same ? h : 1;
    double entries = (double)planes * (double)t * (double)(t + 1) / 2, factor = weight * (double)t / entries;
    double scale = plan->losses[p->loss].weight * step->inverse;
    if (!same) {
        memset(mean_a, 0, (size_t)square * sizeof *mean_a);
        memset(mean_b, 0, (size_t)square * sizeof *mean_b);
        for (int64_t i = 0; i < h * square; i++) {
            mean_a[i % square] += a[i] / (float)h;
        }
        for (int64_t i = 0; i < g * square; i++) {
            mean_b[i % square] += b[i] / (float)g;
        }
    }
    const float *x = same ? a : mean_a, *y = same ? b : mean_b;
    memset(d, 0, (size_t)(planes * square) * sizeof *d);
    /* width 1: one "row" an entry, all of the same weight */
    for (int64_t i = 0; i < planes * square; i++) {
        *loss += plan->losses[p->loss].loss->state(x + i, y + i, 1, 1, &factor, false, scale, d + i);
    }
    for (int64_t i = 0; i < h * square; i++) {
        da[i] += same ? d[i] : d[i % square] / (float)h;
    }
}

static enum lb_status attention_pair(struct lb_step *step, const struct lb_pair *p, struct lb_value *probs,
                                     double *loss) {
    int64_t most = 0, at = 0, n = (int64_t)step->plan->n_teachers;
    for (int64_t s = 0; s < step->batch.n_samples; s++) {
        most = step->batch.samples[s].n > most ? step->batch.samples[s].n : most;
    }
    int64_t heads = p->student_width > p->teacher_width ? p->student_width : p->teacher_width;
    size_t square = (size_t)(most * most);
    float *b = lb_arena_array(&step->memory, (size_t)heads * square, sizeof *b);
    float *d = lb_arena_array(&step->memory, (size_t)heads * square, sizeof *d);
    float *means = lb_arena_array(&step->memory, 2 * square, sizeof *means);
    if (b == NULL || d == NULL || means == NULL || !zero_if_fresh(step->tape, probs)) {
        return LB_E_NOMEM;
    }
    for (int64_t s = 0; s < step->batch.n_samples; s++) {
        int64_t t = step->batch.samples[s].n;
        const struct lb_answer *answer = step->batch.answers[s * n + p->teacher];
        double weight = step->mix[s * n + p->teacher];
        if (answer != NULL && weight > 0) {
            lb_wire_floats(lb_answer_find(answer, p->kind, p->layer), 0, p->teacher_width * t * t, b);
            attention_sample(step, p, probs->data + at, b, t, weight, means, means + square, d, loss,
                             probs->grad + at);
        }
        at += p->student_width * t * t;
    }
    return LB_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------
 */

static enum lb_status check_finite(const struct lb_step *step, struct lb_detail *detail) {
    for (size_t l = 0; l < step->plan->n_losses; l++) {
        for (int64_t r = 0; r < step->n_rows; r++) {
            if (!isfinite(step->row_loss[l * (size_t)step->n_rows + (size_t)r])) {
                int64_t s = step->batch.sequence[r];
                return lb_fail(detail, LB_E_ARG,
                               "%s is not finite at position %lld of sample %lld of the batch: lower "
                               "learning_rate, or look at the "
                               "teacher's answer",
                               step->plan->losses[l].loss->name, (long long)(r - step->batch.offsets[s]),
                               (long long)s);
            }
        }
    }
    return LB_OK;
}

static void add_up(const struct lb_step *step, const double *pair_loss, struct lb_step_result *result) {
    for (size_t l = 0; l < step->plan->n_losses; l++) {
        double sum = pair_loss[l];
        for (int64_t r = 0; r < step->n_rows; r++) {
            sum += step->row_loss[l * (size_t)step->n_rows + (size_t)r];
        }
        result->term[l] += sum * step->inverse;
        result->loss += step->plan->losses[l].weight * sum * step->inverse;
    }
}

static enum lb_status losses(struct lb_step *step, struct lb_tap *taps, struct lb_value *h,
                             double *pair_loss) {
    const struct lb_plan *plan = step->plan;
    enum lb_status status = LB_OK;
    if (plan->on_label || plan->on_target) {
        status = lb_head_run(step->tape, h, lb_model_head(step->student), lb_model_head_bias(step->student),
                             NULL, on_logits, step);
    }
    for (size_t i = 0; i < plan->n_pairs && status == LB_OK; i++) {
        const struct lb_pair *p = &plan->pairs[i];
        struct lb_value *v = p->final ? h : taps[i].value;
        status = p->kind == LB_OUT_ATTENTION ? attention_pair(step, p, v, &pair_loss[p->loss])
                                             : hidden_pair(step, p, v, &pair_loss[p->loss]);
    }
    return status;
}

enum lb_status lb_step_run(struct lb_step *step, const struct lb_sample *samples, int64_t n,
                           const struct lb_answer *const *answers, int64_t rows, struct lb_rng *rng,
                           struct lb_step_result *result, struct lb_detail *detail) {
    const struct lb_plan *plan = step->plan;
    struct lb_tap taps[LB_MAX_PAIRS];
    double pair_loss[LB_MAX_LOSSES] = {0};
    lb_arena_reset(&step->memory);
    step->inverse = 1.0 / (double)rows;
    bool ok = lay_out(step, samples, n);
    step->batch.answers = answers;
    ok = ok && weigh(step, result) && chunk_memory(step);
    if (!ok) {
        return lb_fail(detail, LB_E_NOMEM,
                       "no memory for a batch of %lld samples: lower per_device_train_batch_size",
                       (long long)n);
    }
    for (size_t i = 0; i < plan->n_pairs; i++) {
        taps[i] = plan->pairs[i].tap;
        taps[i].layer =
            plan->pairs[i].final ? -1 : taps[i].layer; /* no such tap: the final state is at hand */
        taps[i].value = NULL;
    }
    lb_tape_begin(step->tape, LB_TAPE_TRAIN, &step->in.ragged, rng);
    struct lb_value *h = lb_model_forward(step->student, step->tape, &step->in, taps, plan->n_pairs, NULL);
    enum lb_status status = h != NULL ? losses(step, taps, h, pair_loss) : LB_E_NOMEM;
    status = status == LB_OK ? lb_tape_backward(step->tape) : status;
    if (status != LB_OK) {
        return lb_fail(detail, status,
                       "the step ran out of its memory: lower per_device_train_batch_size and raise "
                       "gradient_accumulation_steps");
    }
    add_up(step, pair_loss, result);
    return check_finite(step, detail);
}
