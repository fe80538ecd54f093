/* What losses on distributions compare a row with: a teacher's distribution or the mixture's, by the lane
 * that the answers came in. Made once per row, teacher and temperature. */
#include "common/nn/reduce.h"
#include "trainer/learn/parts.h"

#include <math.h>
#include <string.h>

static bool truncated(const struct lb_step *step) {
    return step->plan->recipe->targets == LB_LANE_TOPK;
}

/* Temperatures of the losses on distributions that differ. */
static unsigned temperatures(const struct lb_plan *plan) {
    unsigned n = 0;
    for (size_t l = 0; l < plan->n_losses; l++) {
        bool seen = plan->losses[l].loss->on != LB_ON_TARGET;
        for (size_t m = 0; m < l && !seen; m++) {
            seen = plan->losses[m].loss->on == LB_ON_TARGET &&
                   plan->losses[m].args.temperature == plan->losses[l].args.temperature;
        }
        n += seen ? 0 : 1;
    }
    return n;
}

bool lb_step_targets_init(struct lb_step *step, struct lb_worker *worker) {
    const struct lb_plan *plan = step->plan;
    struct lb_arena *a = &step->memory;
    unsigned n = plan->n_teachers;
    bool each = n > 0 && plan->mixture->combine == LB_COMBINE_LOSSES;
    int64_t lists = (int64_t)n * step->top_k, most = lists < step->v ? lists : step->v;
    bool ok = true;
    worker->n_targets = plan->on_target ? temperatures(plan) * (each ? n : 1) : 0;
    worker->targets = lb_arena_zarray(a, worker->n_targets, sizeof *worker->targets);
    for (unsigned i = 0; i < worker->n_targets && ok; i++) {
        struct lb_made_target *t = &worker->targets[i];
        t->p = lb_arena_array(a, (size_t)(truncated(step) ? most : step->v), sizeof *t->p);
        t->ids = truncated(step) ? lb_arena_array(a, (size_t)most, sizeof *t->ids) : NULL;
        ok = t->p != NULL && (t->ids != NULL || !truncated(step));
    }
    if (ok && plan->on_target && truncated(step) && n > 1 && !each) {
        worker->slot = lb_arena_array(a, (size_t)step->v, sizeof *worker->slot);
        worker->list_ids = lb_arena_array(a, (size_t)lists, sizeof *worker->list_ids);
        worker->list_p = lb_arena_array(a, (size_t)lists, sizeof *worker->list_p);
        ok = worker->slot != NULL && worker->list_ids != NULL && worker->list_p != NULL;
        for (int64_t j = 0; j < step->v && ok; j++) {
            worker->slot[j] = -1;
        }
    }
    return ok && worker->targets != NULL;
}

/* The truncated distribution of an answer at its position t, into ids and p [K]. The values say how the
 * listed ids share what the rest leaves, and the rest is told by itself: rounding of the values (as FP16)
 * does not reach the tail, and the whole sums to 1. */
static struct lb_truncated read_top_k(const struct lb_step *step, const struct lb_answer *answer, int64_t t,
                                      double temperature, int32_t *ids, float *p) {
    const struct lb_wire_tensor *at = lb_answer_find(answer, LB_OUT_TOPK_IDS, 0);
    const struct lb_wire_tensor *values = lb_answer_find(answer, LB_OUT_TOPK_VALUES, 0);
    const struct lb_wire_tensor *rest = lb_answer_find(answer, LB_OUT_REST, 0);
    bool all = step->top_k == step->v;
    float log_rest;
    lb_wire_floats(rest, t, 1, &log_rest);
    lb_wire_floats(values, t * step->top_k, step->top_k, p);
    double norm = lb_logsumexp(p, step->top_k, temperature);
    norm -= all ? 0 : log(-expm1(log_rest));
    for (int64_t i = 0; i < step->top_k; i++) {
        ids[i] = lb_answer_id(at, t * step->top_k + i);
        p[i] = (float)exp(p[i] / temperature - norm);
    }
    return (struct lb_truncated){step->top_k, ids, p, all ? 0 : exp(log_rest)};
}

/* weight [teachers]: 0 for those that don't count. */
static void make_truncated(const struct lb_step *step, struct lb_worker *worker, const double *weight,
                           int64_t row, struct lb_made_target *made) {
    struct lb_truncated from[LB_MAX_TEACHERS];
    unsigned n = step->plan->n_teachers, there = 0, only = 0;
    int64_t s = step->batch.sequence[row], t = row - step->batch.offsets[s];
    for (unsigned k = 0; k < n; k++) {
        there += weight[k] > 0 ? 1 : 0;
        only = weight[k] > 0 ? k : only;
    }
    struct lb_target *target = &made->target;
    *target = (struct lb_target){.kind = LB_TARGET_TRUNCATED,
                                 .temperature = made->temperature,
                                 .ids = made->ids,
                                 .p_at = made->p,
                                 .add_tail = step->plan->recipe->loss_add_tail};
    if (there == 1) {
        from[only] =
            read_top_k(step, step->batch.answers[s * n + only], t, made->temperature, made->ids, made->p);
        target->k = from[only].k;
        target->tail = from[only].tail;
        return;
    }
    for (unsigned k = 0; k < n; k++) {
        from[k] = (struct lb_truncated){0};
        if (weight[k] > 0) {
            from[k] = read_top_k(step, step->batch.answers[s * n + k], t, made->temperature,
                                 worker->list_ids + k * step->top_k, worker->list_p + k * step->top_k);
        }
    }
    target->k =
        lb_mixture_truncated(n, from, weight, step->v, worker->slot, made->ids, made->p, &target->tail);
}

static void make_dense(const struct lb_step *step, const double *weight, int64_t in_chunk,
                       struct lb_made_target *made) {
    const float *z[LB_MAX_TEACHERS], *only = NULL;
    unsigned n = step->plan->n_teachers, there = 0;
    for (unsigned k = 0; k < n; k++) {
        z[k] = weight[k] > 0 ? step->z[k] + in_chunk * step->v : NULL;
        there += z[k] != NULL ? 1 : 0;
        only = z[k] != NULL ? z[k] : only;
    }
    made->target = (struct lb_target){.kind = LB_TARGET_DENSE,
                                      .temperature = made->temperature,
                                      .z = there == 1 ? only : NULL,
                                      .p = made->p};
    made->target.neg_entropy =
        lb_mixture_dense(step->plan->mixture->combine, n, z, weight, made->temperature, step->v, made->p);
}

/* The weights that make the distribution of `who`; false when it has none here. */
static bool weights_of(const struct lb_step *step, unsigned who, int64_t row, double *weight) {
    unsigned n = step->plan->n_teachers;
    const double *mix = lb_step_mix(step, row);
    const struct lb_answer *const *answers = step->batch.answers + (int64_t)step->batch.sequence[row] * n;
    bool any = false;
    for (unsigned k = 0; k < n; k++) {
        weight[k] = answers[k] != NULL && mix[k] > 0 && (who == n || who == k) ? mix[k] : 0;
        any |= weight[k] > 0;
    }
    return any;
}

const struct lb_target *lb_step_target(const struct lb_step *step, struct lb_worker *worker, unsigned who,
                                       double temperature, int64_t row, int64_t in_chunk) {
    double weight[LB_MAX_TEACHERS];
    struct lb_made_target *made = worker->targets;
    while (made->made && (made->who != who || made->temperature != temperature)) {
        made++; /* there is one for each pair that the losses ask for */
    }
    if (!made->made) {
        made->made = true;
        made->who = who;
        made->temperature = temperature;
        made->there = weights_of(step, who, row, weight);
        if (made->there && truncated(step)) {
            make_truncated(step, worker, weight, row, made);
        } else if (made->there) {
            make_dense(step, weight, in_chunk, made);
        }
    }
    return made->there ? &made->target : NULL;
}
