/* Losses on rows of logits, inside the fused head. */
#include "common/nn/head.h"
#include "common/nn/reduce.h"
#include "trainer/learn/parts.h"

#include <math.h>
#include <omp.h>
#include <string.h>

bool lb_step_reads_logits(const struct lb_step *step, unsigned k) {
    const struct lb_plan *plan = step->plan;
    bool any = plan->on_target || (lb_plan_needs(plan) & LB_NEEDS_DISTRIBUTIONS) != 0;
    return any && !plan->apart[k] && lb_lane_whole(plan->recipe->targets);
}

/* Losses on chunks, whose slopes by the label's log-probability are there: adds their gradient. */
static void chunk_gradient(const struct lb_step *step, struct lb_worker *worker, int64_t row) {
    float slope = (float)step->slope[row];
    if (slope == 0) {
        return;
    }
    const struct lb_softmax *s = lb_row_softmax(&worker->row, 1);
    for (int64_t j = 0; j < step->v; j++) {
        worker->dz[j] -= slope * s->q[j];
    }
    worker->dz[worker->row.label] += slope;
}

/* Loss l against one distribution, which counts w times; 0: there is none. */
static double loss_against(const struct lb_step *step, struct lb_worker *worker, unsigned l, unsigned who,
                           int64_t row, int64_t in_chunk, double w, double factor) {
    const struct lb_target *t = lb_step_target(step, worker, l, who, row, in_chunk);
    if (t == NULL) {
        return 0;
    }
    struct lb_target with = *t;
    double part = w * t->mass;
    with.columns = lb_step_columns(step, l, who);
    return part * lb_loss_row(step->plan->losses[l].loss, &worker->row, &with, &step->args[l],
                              (float)(factor * part), worker->dz);
}

/* One loss on distributions: against the mixture of the teachers, or the weighted sum against each. */
static double target_loss(const struct lb_step *step, struct lb_worker *worker, unsigned l, int64_t row,
                          int64_t in_chunk, double factor) {
    const struct lb_plan *plan = step->plan;
    unsigned n = plan->n_teachers;
    if (plan->mixture->combine != LB_COMBINE_LOSSES) {
        return loss_against(step, worker, l, n, row, in_chunk, 1, factor);
    }
    const double *w = lb_step_mix(step, l, step->batch.sequence[row], row);
    double sum = 0;
    for (unsigned k = 0; k < n; k++) {
        sum += loss_against(step, worker, l, k, row, in_chunk, w[k], factor);
    }
    return sum;
}

/* Whose logits of a row are not finite. */
static int8_t find_culprit(const struct lb_step *step, const float *z, int64_t row, int64_t in_chunk) {
    const struct lb_answer *const *answers =
        step->batch.answers + (int64_t)step->batch.sequence[row] * step->plan->n_teachers;
    if (lb_first_nonfinite(z, step->v) >= 0) {
        return LB_CULPRIT_STUDENT;
    }
    for (unsigned k = 0; k < step->plan->n_teachers; k++) {
        if (lb_step_reads_logits(step, k) && answers[k] != NULL &&
            lb_first_nonfinite(step->z[k] + in_chunk * step->v, step->v) >= 0) {
            return (int8_t)(LB_CULPRIT_TEACHER + k);
        }
    }
    return LB_CULPRIT_NONE;
}

/* All losses on logits of one row; z becomes the gradient. */
static void row_losses(const struct lb_step *step, struct lb_worker *worker, int64_t row, int64_t in_chunk,
                       float *z) {
    const struct lb_plan *plan = step->plan;
    size_t bytes = (size_t)step->v * sizeof *z;
    double weight = lb_step_weight(step, step->batch.sequence[row]);
    if (step->labels[row] < 0 && !step->batch.by_sample) { /* does not count */
        memset(z, 0, bytes);
        return;
    }
    lb_row_begin(&worker->row, z, step->labels[row]);
    for (unsigned i = 0; i < worker->n_targets; i++) {
        worker->targets[i].made = false;
    }
    memset(worker->dz, 0, bytes);
    for (unsigned l = 0; l < plan->n_losses; l++) {
        const struct lb_loss *loss = plan->losses[l].loss;
        double factor = step->args[l].weight * lb_step_inverse(step, l) * weight, value = 0;
        if (!lb_step_on(step, l)) {
            continue; /* its row_loss is 0 */
        }
        if (loss->on == LB_ON_LABEL) {
            value = weight * lb_loss_row(loss, &worker->row, NULL, &step->args[l], (float)factor, worker->dz);
        } else if (loss->on == LB_ON_TARGET) {
            value = weight * target_loss(step, worker, l, row, in_chunk, factor);
        } else if (loss->on == LB_ON_ALIGNED) {
            value = weight * lb_step_aligned_row(step, worker, l, row, factor);
        } else if (loss->on == LB_ON_CHUNK) {
            value = step->row_loss[l * (size_t)step->n_rows + (size_t)row]; /* made before, weighted */
        }
        step->row_loss[l * (size_t)step->n_rows + (size_t)row] = value;
        if (!isfinite(value) && step->culprit[row] == LB_CULPRIT_NONE) {
            step->culprit[row] = find_culprit(step, z, row, in_chunk);
        }
    }
    if (step->slope != NULL) {
        chunk_gradient(step, worker, row);
    }
    if (step->seen != NULL) {
        lb_step_watch_row(step, worker, row, in_chunk);
    }
    memcpy(z, worker->dz, bytes);
}

/* A teacher's logits of n rows, by the chunks that its products are cut into. */
static void teacher_logits(struct lb_step *step, unsigned k, int64_t row, int64_t n) {
    const struct lb_vocab_map *map = step->plan->kept[k] ? NULL : step->plan->map[k];
    int64_t chunk = lb_head_chunk(step->v);
    for (int64_t i = 0; i < n; i += chunk) {
        lb_target_logits(&step->batch, k, step->plan->head[k], map, step->v, row + i,
                         n - i < chunk ? n - i : chunk, step->teacher_states, step->z[k] + i * step->v);
    }
}

void lb_step_read_logits(struct lb_step *step, int64_t row, int64_t n) {
    for (unsigned k = 0; k < step->plan->n_teachers; k++) {
        if (lb_step_reads_logits(step, k)) {
            teacher_logits(step, k, row, n);
        }
    }
}

static enum lb_status on_logits(void *context, int64_t row, int64_t n, float *z) {
    struct lb_step *step = context;
    lb_step_read_logits(step, row, n);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        row_losses(step, &step->workers[omp_get_thread_num()], row + i, i, z + i * step->v);
    }
    return LB_OK;
}

int64_t lb_step_rows_at_once(const struct lb_step *step) {
    int64_t rows = lb_head_run_rows(step->v);
    return rows < step->n_rows ? rows : step->n_rows;
}

/* Workspaces for the rows of logits that exist at once: at most those of the batch. */
static bool chunk_memory(struct lb_step *step) {
    const struct lb_plan *plan = step->plan;
    struct lb_arena *a = &step->memory;
    int64_t rows = lb_step_rows_at_once(step), width = 1;
    for (unsigned k = 0; k < plan->n_teachers; k++) {
        if (!lb_step_reads_logits(step, k)) {
            continue;
        }
        const struct lb_teacher_head *head = plan->head[k]; /* NULL: whole logits come */
        width = head != NULL && head->hidden_size > width ? head->hidden_size : width;
        step->z[k] = lb_arena_array(a, (size_t)(rows * step->v), sizeof(float));
        if (step->z[k] == NULL) {
            return false;
        }
    }
    step->teacher_states = lb_arena_array(a, (size_t)(rows * width), sizeof(float));
    return step->teacher_states != NULL;
}

static bool any_clamped(const struct lb_plan *plan) {
    bool any = false;
    for (size_t l = 0; l < plan->n_losses; l++) {
        any = any || plan->losses[l].args.clamp > 0;
    }
    return any;
}

static bool worker_memory(struct lb_step *step, struct lb_worker *worker) {
    size_t floats = lb_row_floats(step->v, (unsigned)step->plan->n_losses);
    float *memory = lb_arena_array(&step->memory, floats, sizeof *memory);
    worker->dz = lb_arena_array(&step->memory, (size_t)step->v, sizeof *worker->dz);
    if (step->seen != NULL) {
        worker->unused = lb_arena_array(&step->memory, (size_t)step->v, sizeof *worker->unused);
    }
    bool weighs = (lb_plan_needs(step->plan) & LB_NEEDS_GRADIENTS) != 0;
    if (weighs) {
        worker->gradients = lb_arena_array(&step->memory, step->plan->n_teachers * (size_t)step->v,
                                           sizeof *worker->gradients);
    }
    if (memory == NULL || worker->dz == NULL || (step->seen != NULL && worker->unused == NULL) ||
        (weighs && worker->gradients == NULL)) {
        return false;
    }
    lb_row_init(&worker->row, step->v, (unsigned)step->plan->n_losses, memory);
    if (any_clamped(step->plan)) {
        worker->row.apart = lb_arena_array(&step->memory, (size_t)step->v, sizeof *worker->row.apart);
        if (worker->row.apart == NULL) {
            return false;
        }
    }
    return lb_step_aligned_memory(step, worker) && lb_step_targets_init(step, worker);
}

bool lb_step_rows_init(struct lb_step *step) {
    int threads = omp_get_max_threads();
    bool ok = chunk_memory(step);
    step->workers = lb_arena_zarray(&step->memory, (size_t)threads, sizeof *step->workers);
    for (int i = 0; ok && step->workers != NULL && i < threads; i++) {
        ok = worker_memory(step, &step->workers[i]);
    }
    return ok && step->workers != NULL;
}

enum lb_status lb_step_rows(struct lb_step *step) {
    return lb_head_run(step->tape, step->states, lb_model_head(step->student), NULL, on_logits, step);
}
