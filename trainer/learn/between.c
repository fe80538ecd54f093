/* Classes over the rows of a micro-batch, for losses between samples: a pass of its own through the student's
 * and the teachers' heads, before the one that makes the losses. */
#include "common/nn/head.h"
#include "trainer/learn/parts.h"

#include <omp.h>
#include <string.h>

/* What a pass works with. */
struct pass {
    size_t l;         /* the loss */
    unsigned who;     /* a teacher, or n_teachers: their mixture */
    int64_t most;     /* rows of a chunk */
    float *z, *p, *q; /* [most, V] */
    double *u;        /* [most] how often a row counts */
    struct lb_column_sums sums;
};

static bool reads(const struct lb_step *step, size_t l) {
    return step->plan->losses[l].loss->between_samples && step->args[l].gamma > 0 && lb_step_on(step, l);
}

/* Whether each teacher's distribution is compared with, not the mixture's. */
static bool each(const struct lb_plan *plan) {
    return plan->n_teachers > 0 && plan->mixture->combine == LB_COMBINE_LOSSES;
}

static unsigned n_who(const struct lb_step *step) {
    return each(step->plan) ? step->plan->n_teachers : 1;
}

/* Both sides of a row, and how often it counts. */
static void read_row(const struct lb_step *step, const struct pass *pass, struct lb_worker *worker,
                     int64_t row, int64_t i) {
    const struct lb_plan *plan = step->plan;
    pass->u[i] = 0;
    if (step->labels[row] < 0 && !step->batch.by_sample) {
        return;
    }
    lb_row_begin(&worker->row, pass->z + i * step->v, step->labels[row]);
    for (unsigned n = 0; n < worker->n_targets; n++) {
        worker->targets[n].made = false;
    }
    const struct lb_target *t = lb_step_target(step, worker, pass->l, pass->who, row, i);
    if (t != NULL) {
        const float *q = lb_row_softmax(&worker->row, t->temperature)->q;
        double w = pass->who < plan->n_teachers
                       ? lb_step_mix(step, pass->l, step->batch.sequence[row], row)[pass->who]
                       : 1;
        memcpy(pass->p + i * step->v, t->p, (size_t)step->v * sizeof *q);
        memcpy(pass->q + i * step->v, q, (size_t)step->v * sizeof *q);
        pass->u[i] = w * t->mass;
    }
}

static void read_rows(struct lb_step *step, struct pass *pass) {
    const struct lb_head *head = lb_model_head(step->student);
    int64_t c = step->states->cols;
    for (int64_t row = 0; row < step->n_rows; row += pass->most) {
        int64_t rows = step->n_rows - row < pass->most ? step->n_rows - row : pass->most;
        lb_head_logits(step->states->data + row * c, rows, c, head->weight->value,
                       head->bias != NULL ? head->bias->value : NULL, step->v, head->shape, pass->z);
        lb_step_read_logits(step, row, rows);
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < rows; i++) {
            read_row(step, pass, &step->workers[omp_get_thread_num()], row + i, i);
        }
        lb_column_sums_add(&pass->sums, rows, pass->p, pass->q, pass->u);
    }
}

static bool pass_memory(struct lb_step *step, struct pass *pass) {
    struct lb_arena *a = &step->memory;
    int64_t chunk = lb_head_chunk(step->v), at_once = lb_step_rows_at_once(step);
    pass->most = chunk < at_once ? chunk : at_once;
    size_t n = (size_t)(pass->most * step->v);
    pass->z = lb_arena_array(a, n, sizeof *pass->z);
    pass->p = lb_arena_array(a, n, sizeof *pass->p);
    pass->q = lb_arena_array(a, n, sizeof *pass->q);
    pass->u = lb_arena_array(a, (size_t)pass->most, sizeof *pass->u);
    return pass->z != NULL && pass->p != NULL && pass->q != NULL && pass->u != NULL;
}

bool lb_step_between(struct lb_step *step) {
    const struct lb_plan *plan = step->plan;
    unsigned whos = n_who(step);
    struct pass pass = {0};
    double *doubles = NULL;
    step->columns = NULL;
    for (size_t l = 0; l < plan->n_losses; l++) {
        if (!reads(step, l)) {
            continue;
        }
        if (step->columns == NULL) {
            doubles = lb_arena_array(&step->memory, lb_column_sums_doubles(step->v), sizeof *doubles);
            step->columns = lb_arena_zarray(&step->memory, plan->n_losses * whos, sizeof *step->columns);
            if (step->columns == NULL || doubles == NULL || !pass_memory(step, &pass)) {
                return false;
            }
        }
        for (unsigned k = 0; k < whos; k++) {
            float *memory = lb_arena_array(&step->memory, lb_columns_floats(step->v), sizeof *memory);
            if (memory == NULL) {
                return false;
            }
            pass.l = l;
            pass.who = each(plan) ? k : plan->n_teachers;
            lb_column_sums_init(&pass.sums, step->v, doubles);
            read_rows(step, &pass);
            lb_columns_make(&pass.sums, memory, &step->columns[l * whos + k]);
        }
    }
    return true;
}

const struct lb_columns *lb_step_columns(const struct lb_step *step, size_t l, unsigned who) {
    unsigned whos = n_who(step);
    return step->columns != NULL && reads(step, l) ? &step->columns[l * whos + (each(step->plan) ? who : 0)]
                                                   : NULL;
}
