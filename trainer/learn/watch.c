/* What each teacher says by itself, for the metrics: its loss, its likeliest class against the label and
 * against the other teachers'. Only in steps that are reported; nothing of it reaches the student. */
#include "trainer/learn/parts.h"

#include <string.h>

void lb_step_watch(struct lb_step *step, bool watch) {
    step->watch = watch;
}

static bool on_target(const struct lb_plan *plan, size_t l) {
    return l < plan->n_losses && plan->losses[l].loss->on == LB_ON_TARGET;
}

bool lb_step_watch_init(struct lb_step *step) {
    size_t n = step->plan->n_teachers;
    step->seen = NULL;
    memset(step->apart_loss, 0, sizeof step->apart_loss);
    if (!step->watch || n == 0) {
        return true;
    }
    step->seen = lb_arena_zarray(&step->memory, n * (size_t)step->n_rows, sizeof *step->seen);
    for (size_t i = 0; step->seen != NULL && i < n * (size_t)step->n_rows; i++) {
        step->seen[i].top = -1;
    }
    return step->seen != NULL;
}

void lb_step_watch_row(const struct lb_step *step, struct lb_worker *worker, int64_t row, int64_t in_chunk) {
    const struct lb_plan *plan = step->plan;
    const struct lb_answer *const *answers =
        step->batch.answers + (int64_t)step->batch.sequence[row] * plan->n_teachers;
    for (unsigned k = 0; k < plan->n_teachers; k++) {
        size_t l = lb_plan_first_loss(plan, k);
        struct lb_seen *seen = &step->seen[k * (size_t)step->n_rows + (size_t)row];
        if (answers[k] == NULL || !on_target(plan, l)) {
            continue;
        }
        const struct lb_target *t = lb_step_target_alone(step, worker, l, k, row, in_chunk);
        if (t != NULL) {
            seen->there = true;
            seen->top = lb_step_top(step, t);
            seen->overlaps =
                lb_overlap(lb_row_softmax(&worker->row, t->temperature)->q, step->v, t, &seen->overlap);
            seen->loss = t->mass * lb_loss_row(plan->losses[l].loss, &worker->row, t, &step->args[l], 0,
                                               worker->unused);
        }
    }
}

/* Of one row: how many other teachers are known to mean a class, and how many mean teacher k's. */
static void compare(const struct lb_step *step, unsigned k, int64_t row, double *others, double *same) {
    int32_t top = step->seen[k * (size_t)step->n_rows + (size_t)row].top;
    *others = *same = 0;
    for (unsigned j = 0; j < step->plan->n_teachers; j++) {
        int32_t its = step->seen[j * (size_t)step->n_rows + (size_t)row].top;
        *others += j != k && its >= 0 ? 1 : 0;
        *same += j != k && its >= 0 && its == top ? 1 : 0;
    }
}

static void add_rows(const struct lb_step *step, unsigned k, struct lb_step_result *result) {
    for (int64_t row = 0; row < step->n_rows; row++) {
        const struct lb_seen *seen = &step->seen[k * (size_t)step->n_rows + (size_t)row];
        double others, same, often = lb_step_weight(step, step->batch.sequence[row]);
        if (seen->there) {
            result->watched[k] += often;
            result->own_loss[k] += often * seen->loss;
        }
        if (seen->overlaps) {
            result->overlapped[k] += often;
            result->overlap[k] += often * seen->overlap.ratio;
            result->student_mass[k] += often * seen->overlap.student_mass;
            result->teacher_mass[k] += often * seen->overlap.teacher_mass;
        }
        if (seen->top < 0) {
            continue;
        }
        if (step->labels[row] >= 0) {
            result->labelled[k] += often;
            result->right[k] += seen->top == step->labels[row] ? often : 0;
        }
        compare(step, k, row, &others, &same);
        result->compared[k] += others > 0 ? often : 0;
        result->agreed[k] += others > 0 ? often * same / others : 0;
    }
}

void lb_step_watch_add(const struct lb_step *step, const double *weight, struct lb_step_result *result) {
    for (unsigned k = 0; step->seen != NULL && k < step->plan->n_teachers; k++) {
        size_t l = lb_plan_first_loss(step->plan, k);
        if (on_target(step->plan, l)) {
            add_rows(step, k, result);
        } else if (l < step->plan->n_losses &&
                   step->state_mix[l] == NULL) { /* what it counted, by its weight */
            result->own_loss[k] += step->apart_loss[k] * lb_step_inverse(step, l);
            result->watched[k] += weight[k];
        }
    }
}
