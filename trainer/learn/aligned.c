/* Losses on distributions of teachers that read other tokens: compared where a chunk begins, before which
 * both have read the same text. */
#include "common/nn/reduce.h"
#include "trainer/learn/parts.h"

#include <math.h>

static int32_t *place(const struct lb_step *step, unsigned k, int64_t row) {
    return &step->aligned[k * (size_t)step->n_rows + (size_t)row];
}

static int64_t most_listed(const struct lb_plan *plan) {
    int64_t most = 1;
    for (unsigned k = 0; k < plan->n_teachers; k++) {
        int64_t v = plan->info[k]->vocab_size, top_k = plan->spec[k].top_k;
        top_k = v > 0 && v < top_k ? v : top_k;
        most = top_k > most ? top_k : most;
    }
    return most;
}

bool lb_step_aligned_init(struct lb_step *step) {
    const struct lb_plan *plan = step->plan;
    size_t n = plan->n_teachers * (size_t)step->n_rows;
    step->aligned = NULL;
    if (!plan->on_aligned) {
        return true;
    }
    step->aligned = lb_arena_array(&step->memory, n, sizeof *step->aligned);
    step->aligned_loss = lb_arena_zarray(&step->memory, n, sizeof *step->aligned_loss);
    if (step->aligned == NULL || step->aligned_loss == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        step->aligned[i] = -1;
    }
    for (unsigned k = 0; k < plan->n_teachers; k++) {
        for (int64_t s = 0; plan->unlike[k] && s < step->batch.n_samples; s++) {
            const struct lb_reading *its = lb_sample_reading(&step->batch.samples[s], k);
            bool answered = step->batch.answers[s * plan->n_teachers + k] != NULL;
            for (int64_t c = 0; its != NULL && answered && c < its->n_chunks; c++) {
                *place(step, k, step->batch.offsets[s] + its->chunks[c].at) = its->chunks[c].its_at;
            }
        }
    }
    return true;
}

bool lb_step_aligned_memory(struct lb_step *step, struct lb_worker *worker) {
    size_t n = (size_t)most_listed(step->plan);
    if (!step->plan->on_aligned) {
        return true;
    }
    worker->list_ids_aligned = lb_arena_array(&step->memory, n, sizeof(int32_t));
    worker->list_p_aligned = lb_arena_array(&step->memory, n, sizeof(float));
    worker->row.top_ids = lb_arena_array(&step->memory, n, sizeof(int32_t));
    worker->row.top = lb_arena_array(&step->memory, n, sizeof(float));
    return worker->list_ids_aligned != NULL && worker->list_p_aligned != NULL &&
           worker->row.top_ids != NULL && worker->row.top != NULL;
}

/* Teacher k's list at its position t of sample s, with the student's ids of the same text. */
static struct lb_target read_list(const struct lb_step *step, const struct lb_worker *worker, unsigned k,
                                  int64_t s, int32_t t) {
    const struct lb_answer *answer = step->batch.answers[s * step->plan->n_teachers + k];
    const struct lb_common *common = &step->plan->common[k];
    const struct lb_wire_tensor *ids = lb_answer_find(answer, LB_OUT_TOPK_IDS, 0);
    int64_t n = ids->dim[ids->n_dims - 1], at = lb_answer_row(answer, t);
    float *p = worker->list_p_aligned, log_rest;
    lb_wire_floats(lb_answer_find(answer, LB_OUT_REST, 0), at, 1, &log_rest);
    lb_wire_floats(lb_answer_find(answer, LB_OUT_TOPK_VALUES, 0), at * n, n, p);
    bool all = n == step->plan->info[k]->vocab_size;
    double norm = lb_logsumexp(p, n, 1) - (all ? 0 : log(-expm1((double)log_rest)));
    for (int64_t i = 0; i < n; i++) {
        int32_t id = lb_answer_id(ids, at * n + i);
        worker->list_ids_aligned[i] = id < common->n ? common->own_of[id] : -1;
        p[i] = (float)exp(p[i] - norm);
    }
    return (struct lb_target){.kind = LB_TARGET_TRUNCATED,
                              .temperature = 1,
                              .k = n,
                              .own_ids = worker->list_ids_aligned,
                              .common = common->has,
                              .p_at = p,
                              .tail = all ? 0 : exp((double)log_rest),
                              .add_tail = true,
                              .mass = 1};
}

double lb_step_aligned_row(const struct lb_step *step, struct lb_worker *worker, size_t l, int64_t row,
                           double factor) {
    const struct lb_plan *plan = step->plan;
    int64_t s = step->batch.sequence[row];
    const double *w = lb_step_mix(step, l, s, row);
    double sum = 0;
    for (unsigned k = 0; k < plan->n_teachers; k++) {
        int32_t t = *place(step, k, row);
        if (t < 0 || !(w[k] > 0) || !lb_plan_learns(plan, l, k)) {
            continue;
        }
        const struct lb_target target = read_list(step, worker, k, s, t);
        double loss = w[k] * lb_loss_row(plan->losses[l].loss, &worker->row, &target, &step->args[l],
                                         (float)(factor * w[k]), worker->dz);
        sum += loss;
        if (l == lb_plan_first_loss(plan, k)) {
            step->aligned_loss[k * (size_t)step->n_rows + (size_t)row] = lb_step_weight(step, s) * loss;
        }
    }
    return sum;
}

void lb_step_aligned_add(struct lb_step *step) {
    for (unsigned k = 0; step->aligned != NULL && k < step->plan->n_teachers; k++) {
        for (int64_t row = 0; row < step->n_rows; row++) {
            step->apart_loss[k] += step->aligned_loss[k * (size_t)step->n_rows + (size_t)row];
        }
    }
}
