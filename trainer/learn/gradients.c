/* The teachers' gradients at the student's logits, for weights that are made of them: not themselves, but
 * their inner products row by row, which is all that the least |sum w g| is made of. A pass of its own
 * through the student's and the teachers' heads, before the one that makes the losses. */
#include "common/nn/head.h"
#include "trainer/learn/parts.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* Teacher k's part of all losses on distributions: adds its gradient to g [V]. */
static void add_gradient(const struct lb_step *step, struct lb_worker *worker, unsigned k, int64_t row,
                         int64_t in_chunk, float *g) {
    const struct lb_plan *plan = step->plan;
    for (size_t l = 0; l < plan->n_losses; l++) {
        const struct lb_loss *loss = plan->losses[l].loss;
        if (loss->on != LB_ON_TARGET || !lb_step_on(step, l) || !lb_plan_learns(plan, l, k)) {
            continue;
        }
        const struct lb_target *t = lb_step_target_alone(step, worker, l, k, row, in_chunk);
        if (t != NULL) {
            float factor = (float)(step->args[l].weight * t->mass);
            (void)lb_loss_row(loss, &worker->row, t, &step->args[l], factor, g);
        }
    }
}

/* One row's products; 0 of teachers that did not answer. */
static void row_products(struct lb_step *step, struct lb_worker *worker, int64_t row, int64_t in_chunk,
                         const float *z) {
    unsigned n = step->plan->n_teachers;
    const struct lb_answer *const *answers = step->batch.answers + (int64_t)step->batch.sequence[row] * n;
    double *gram = step->gram + (size_t)row * n * n;
    lb_row_begin(&worker->row, z, step->labels[row]);
    memset(worker->gradients, 0, n * (size_t)step->v * sizeof *worker->gradients);
    for (unsigned k = 0; k < n; k++) {
        float *g = worker->gradients + k * step->v;
        if (answers[k] != NULL) {
            add_gradient(step, worker, k, row, in_chunk, g);
        }
        for (unsigned j = 0; j <= k; j++) {
            gram[k * n + j] = gram[j * n + k] = lb_row_inner(g, worker->gradients + j * step->v, step->v);
        }
    }
}

bool lb_step_gradients(struct lb_step *step) {
    const struct lb_head *head = lb_model_head(step->student);
    unsigned n = step->plan->n_teachers;
    int64_t most = lb_head_chunk(step->v), at_once = lb_step_rows_at_once(step), c = step->states->cols;
    most = most < at_once ? most : at_once;
    step->gram = lb_arena_zarray(&step->memory, (size_t)step->n_rows * n * n, sizeof *step->gram);
    float *z = lb_arena_array(&step->memory, (size_t)(most * step->v), sizeof *z);
    for (int64_t row = 0; step->gram != NULL && z != NULL && row < step->n_rows; row += most) {
        int64_t rows = step->n_rows - row < most ? step->n_rows - row : most;
        lb_head_logits(step->states->data + row * c, rows, c, head->weight->value,
                       head->bias != NULL ? head->bias->value : NULL, step->v, head->shape, z);
        lb_step_read_logits(step, row, rows);
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < rows; i++) {
            if (step->labels[row + i] >= 0 || step->batch.by_sample) {
                row_products(step, &step->workers[omp_get_thread_num()], row + i, i, z + i * step->v);
            }
        }
    }
    return step->gram != NULL && z != NULL;
}

void lb_step_gram(const struct lb_step *step, int64_t i, int64_t t, double *out) {
    size_t square = (size_t)step->plan->n_teachers * step->plan->n_teachers;
    int64_t first = step->batch.offsets[i] + (t < 0 ? 0 : t),
            end = t < 0 ? step->batch.offsets[i + 1] : first + 1;
    memset(out, 0, square * sizeof *out);
    for (int64_t row = first; row < end; row++) {
        for (size_t j = 0; j < square; j++) {
            out[j] += step->gram[(size_t)row * square + j];
        }
    }
}
