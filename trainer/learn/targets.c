/* What losses on distributions compare a row with: a teacher's distribution or the mixture's, by the lane
 * that the answers came in. Made once per row, teacher and temperature. */
#include "common/nn/reduce.h"
#include "trainer/learn/parts.h"

#include <math.h>
#include <string.h>

static bool truncated(const struct lb_step *step) {
    return !lb_lane_whole(step->plan->recipe->targets);
}

static bool sampled(const struct lb_step *step) {
    return step->plan->recipe->targets == LB_LANE_SAMPLES;
}

/* Temperatures of the losses on distributions, each with the teachers that it learns from, that differ. */
static unsigned temperatures(const struct lb_plan *plan) {
    unsigned n = 0;
    for (size_t l = 0; l < plan->n_losses; l++) {
        bool seen = plan->losses[l].loss->on != LB_ON_TARGET;
        for (size_t m = 0; m < l && !seen; m++) {
            seen = plan->losses[m].loss->on == LB_ON_TARGET && plan->losses[m].set == plan->losses[l].set &&
                   plan->losses[m].args.temperature == plan->losses[l].args.temperature &&
                   plan->losses[m].annealing.kind == LB_ANNEAL_NONE &&
                   plan->losses[l].annealing.kind == LB_ANNEAL_NONE;
        }
        n += seen ? 0 : 1;
    }
    return n;
}

/* Whether teacher k's lists are of all of its vocabulary, of which the student has a part. */
static bool lists_whole(const struct lb_plan *plan, unsigned k) {
    return plan->map[k] != NULL && !plan->kept[k];
}

int64_t lb_step_top_k(const struct lb_step *step, unsigned k) {
    int64_t most = lists_whole(step->plan, k) ? step->plan->info[k]->vocab_size : step->v;
    int64_t listed = sampled(step) ? step->plan->recipe->sample_count : step->plan->recipe->loss_top_k;
    return listed < most ? listed : most;
}

bool lb_step_masses_init(struct lb_step *step) {
    size_t n = step->plan->n_teachers * (size_t)step->n_rows;
    step->mass = NULL;
    if (!lb_plan_trimmed(step->plan)) {
        return true;
    }
    step->mass = lb_arena_array(&step->memory, n, sizeof *step->mass);
    for (size_t i = 0; step->mass != NULL && i < n; i++) {
        step->mass[i] = -1;
    }
    return step->mass != NULL;
}

/* Whether a loss reads means of several teachers' logits. */
static bool reads_means(const struct lb_plan *plan) {
    bool any = false;
    for (size_t l = 0; l < plan->n_losses; l++) {
        any = any || plan->losses[l].loss->on_logits;
    }
    return any && plan->mixture->combine == LB_COMBINE_LOGITS && plan->n_teachers > 1;
}

/* most: ids of a list */
static bool target_memory(struct lb_step *step, struct lb_made_target *t, int64_t most, bool means) {
    struct lb_arena *a = &step->memory;
    t->p = lb_arena_array(a, (size_t)(truncated(step) ? most : step->v), sizeof *t->p);
    t->ids = truncated(step) ? lb_arena_array(a, (size_t)most, sizeof *t->ids) : NULL;
    t->z = means ? lb_arena_array(a, (size_t)step->v, sizeof *t->z) : NULL;
    return t->p != NULL && (t->z != NULL || !means) && (t->ids != NULL || !truncated(step));
}

bool lb_step_targets_init(struct lb_step *step, struct lb_worker *worker) {
    const struct lb_plan *plan = step->plan;
    struct lb_arena *a = &step->memory;
    unsigned n = plan->n_teachers;
    bool each = n > 0 && plan->mixture->combine == LB_COMBINE_LOSSES;
    int64_t lists = (int64_t)n * step->top_k, most = lists < step->v ? lists : step->v;
    bool ok = true, means = reads_means(plan);
    worker->n_targets = plan->on_target ? temperatures(plan) * (each ? n : 1) : 0;
    worker->targets = lb_arena_zarray(a, worker->n_targets, sizeof *worker->targets);
    for (unsigned i = 0; i < worker->n_targets && ok; i++) {
        ok = target_memory(step, &worker->targets[i], most, means);
    }
    bool alone = step->seen != NULL || (lb_plan_needs(plan) & LB_NEEDS_GRADIENTS) != 0;
    ok = ok && (!alone || target_memory(step, &worker->alone, most, false));
    bool weighs = (lb_plan_needs(plan) & LB_NEEDS_DISTRIBUTIONS) != 0;
    bool mixes = plan->on_target && ((n > 1 && !each) || lb_plan_trimmed(plan));
    if (ok && truncated(step) && (mixes || weighs)) {
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

/* Teacher k's answer about the row, and which of its rows that is. */
static const struct lb_answer *answer_at(const struct lb_step *step, unsigned k, int64_t row,
                                         int64_t *out_at) {
    int64_t s = step->batch.sequence[row];
    const struct lb_answer *answer = step->batch.answers[s * step->plan->n_teachers + k];
    *out_at = lb_answer_row(answer, row - step->batch.offsets[s]);
    return answer;
}

/* ---- the part of a teacher's distribution that the student has ----
 *
 * A student with a trimmed vocabulary S gives no mass to other tokens, so the KL of the whole distributions
 * is infinite whatever it does. What is left to learn is what the teacher says about S: with m = sum_S p and
 * p' = p / m on S,
 *   sum_S p (log p - log q) = m KL(p' || q) + m log m,
 * whose second term is constant. So losses see p', and count m times: positions where the teacher means a
 * token that the student lacks count less. m is told exactly: exp(lse_S - lse) from the kept logits and the
 * whole's log-sum-exp; of lists, what they give to others is known and taken out, and what they did not list
 * stays the tail of p'. Mixtures: p = sum w_k p_k is sum (w_k m_k) p'_k on S, with mass sum w_k m_k. (A mean
 * of logits says nothing of its own mass; it counts by the same one.) */

static void note_mass(const struct lb_step *step, unsigned k, int64_t row, double mass) {
    step->mass[k * (size_t)step->n_rows + (size_t)row] = mass;
}

/* Takes the ids that the student lacks out of a list, the others renumbered and made to sum to 1 with the
 * tail again. Returns the mass. */
static double cut_list(const struct lb_vocab_map *map, struct lb_truncated *list, int32_t *ids, float *p) {
    int64_t n = 0;
    for (int64_t i = 0; i < list->k; i++) {
        int32_t id = lb_vocab_map_find(map, ids[i]);
        if (id >= 0) {
            ids[n] = id;
            p[n++] = p[i];
        }
    }
    double tail = n < map->n ? list->tail : 0, mass = tail; /* all that is kept is listed: no tail of it */
    for (int64_t i = 0; i < n; i++) {
        mass += p[i];
    }
    for (int64_t i = 0; i < n && mass > 0; i++) {
        p[i] = (float)(p[i] / mass);
    }
    list->k = n;
    list->tail = mass > 0 ? tail / mass : 0;
    return mass < 1 ? mass : 1;
}

/* The kept part of a teacher's whole distribution, from its kept logits z. */
static double kept_mass(const struct lb_step *step, unsigned k, int64_t row, const float *z,
                        double temperature) {
    int64_t t;
    const struct lb_answer *answer = answer_at(step, k, row, &t);
    float lse;
    lb_wire_floats(lb_answer_find(answer, LB_OUT_LOGSUMEXP, 0), t, 1, &lse);
    double log_mass = lb_logsumexp(z, step->v, temperature) - lse;
    return log_mass < 0 ? exp(log_mass) : 1;
}

/* weight becomes that of the kept parts; returns the mixture's mass. */
static double weigh_kept(const double *mass, unsigned n, double *weight) {
    double sum = 0, given = 0;
    for (unsigned k = 0; k < n; k++) {
        given += weight[k];
        weight[k] = weight[k] > 0 ? weight[k] * mass[k] : 0;
        sum += weight[k];
    }
    for (unsigned k = 0; k < n && sum > 0; k++) {
        weight[k] /= sum;
    }
    return given > 0 ? sum / given : 0;
}

/* ---- the target of a row ---- */

/* The truncated distribution of teacher k's answer about the row, into ids and p [K]. */
static struct lb_truncated read_top_k(const struct lb_step *step, unsigned k, int64_t row, double temperature,
                                      int32_t *ids, float *p) {
    int64_t t, top_k = lb_step_top_k(step, k);
    const struct lb_answer *answer = answer_at(step, k, row, &t);
    bool all = top_k == (lists_whole(step->plan, k) ? step->plan->info[k]->vocab_size : step->v);
    double tail = lb_target_list(answer, t, top_k, all, temperature, ids, p);
    return (struct lb_truncated){top_k, ids, p, tail};
}

/* The same of a teacher that was asked through the map: the list has the student's ids, and the answer tells
 * what lies outside, so that what is made is the kept part alone. *mass: what that is of the whole. */
static struct lb_truncated read_kept(const struct lb_step *step, unsigned k, int64_t row, double temperature,
                                     int32_t *ids, float *p, double *mass) {
    struct lb_truncated list = read_top_k(step, k, row, temperature, ids, p);
    int64_t t;
    const struct lb_answer *answer = answer_at(step, k, row, &t);
    float log_outside;
    lb_wire_floats(lb_answer_find(answer, LB_OUT_OUTSIDE, 0), t, 1, &log_outside);
    double inside = -expm1((double)log_outside), listed = fmax(inside - list.tail, 0), sum = 0;
    for (int64_t i = 0; i < list.k; i++) {
        sum += p[i];
    }
    for (int64_t i = 0; i < list.k && inside > 0; i++) {
        p[i] = (float)(p[i] * (listed / (sum * inside)));
    }
    list.tail = inside > 0 ? list.tail / inside : 0;
    *mass = inside;
    return list;
}

/* The ids that teacher k drew at the row, with their shares of all draws, or what the weights come to, made
 * to sum to 1: that is what they sum to on average, and *out_sum what they do. */
static struct lb_truncated read_samples(const struct lb_step *step, unsigned k, int64_t row, int32_t *ids,
                                        float *p, double *out_sum) {
    int64_t t, room = lb_step_top_k(step, k), n = 0;
    const struct lb_answer *answer = answer_at(step, k, row, &t);
    const struct lb_wire_tensor *at = lb_answer_find(answer, LB_OUT_SAMPLE_IDS, 0);
    const struct lb_wire_tensor *weights = lb_answer_find(answer, LB_OUT_SAMPLE_WEIGHTS, 0);
    const struct lb_wire_tensor *counts = lb_answer_find(answer, LB_OUT_SAMPLE_COUNTS, 0);
    double sum = 0;
    if (weights != NULL) {
        lb_wire_floats(weights, t * room, room, p);
    }
    for (int64_t i = 0; i < room; i++) {
        float share = weights != NULL ? p[i]
                                      : (float)lb_answer_id(counts, t * room + i) /
                                            (float)step->plan->recipe->sample_count;
        if (share > 0) {
            ids[n] = lb_answer_id(at, t * room + i);
            p[n++] = share;
            sum += (double)share;
        }
    }
    for (int64_t i = 0; i < n; i++) {
        p[i] = (float)((double)p[i] / sum);
    }
    *out_sum = weights != NULL ? sum : 1;
    return (struct lb_truncated){n, ids, p, 0};
}

/* Teacher k's list in the student's ids, through its map if it has one. *mass: what losses on it count by, of
 * which the part that the student has is noted. */
static struct lb_truncated read_list(const struct lb_step *step, unsigned k, int64_t row, double temperature,
                                     int32_t *ids, float *p, double *mass) {
    struct lb_truncated list;
    double sum = 1, part = 1;
    if (step->plan->kept[k]) {
        list = read_kept(step, k, row, temperature, ids, p, &part);
    } else {
        list = sampled(step) ? read_samples(step, k, row, ids, p, &sum)
                             : read_top_k(step, k, row, temperature, ids, p);
        part = step->plan->map[k] != NULL ? cut_list(step->plan->map[k], &list, ids, p) : 1;
    }
    if (step->plan->map[k] != NULL) {
        note_mass(step, k, row, part);
    }
    *mass = sum * part;
    return list;
}

struct lb_confidence lb_step_confidence_at(const struct lb_step *step, struct lb_worker *worker, unsigned k,
                                           int64_t row, int64_t in_chunk) {
    struct lb_confidence sure = {0, 0};
    float *p = worker->row.work;
    int64_t n = step->v;
    if (truncated(step)) {
        double mass;
        p = worker->list_p + k * step->top_k;
        struct lb_truncated list = read_list(step, k, row, 1, worker->list_ids + k * step->top_k, p, &mass);
        n = list.k;
        for (int64_t i = 0; i < n; i++) {
            sure.entropy -= p[i] > 0 ? (double)p[i] * log((double)p[i]) : 0;
        }
        sure.entropy -= list.tail > 0 ? list.tail * log(list.tail / (double)(step->v - n)) : 0;
    } else {
        const float *z = step->z[k] + in_chunk * step->v;
        const double whole = 1;
        sure.entropy = -lb_mixture_dense(LB_COMBINE_PROBS, 1, &z, &whole, 1, n, p);
    }
    if (!isfinite(sure.entropy)) {
        return (struct lb_confidence){0, 1}; /* not passed over: the losses will say whose numbers are bad */
    }
    for (int64_t i = 0; i < n; i++) {
        sure.max_prob = fmax(sure.max_prob, (double)p[i]);
    }
    sure.entropy = fmax(sure.entropy, 0); /* of one that is sure: rounding */
    return sure;
}

/* One teacher's list. */
static void make_single(const struct lb_step *step, const struct lb_worker *worker, unsigned k, int64_t row,
                        struct lb_made_target *made) {
    struct lb_target *target = &made->target;
    bool whole = lists_whole(step->plan, k); /* more may be listed than the student has */
    int32_t *ids = whole ? worker->list_ids : made->ids;
    float *p = whole ? worker->list_p : made->p;
    struct lb_truncated list = read_list(step, k, row, made->temperature, ids, p, &target->mass);
    if (whole) {
        memcpy(made->ids, ids, (size_t)list.k * sizeof *ids);
        memcpy(made->p, p, (size_t)list.k * sizeof *p);
    }
    target->k = list.k;
    target->tail = list.tail;
}

/* Several teachers' lists. weight [teachers]: 0 for those that don't count. */
static void make_union(const struct lb_step *step, struct lb_worker *worker, double *weight, int64_t row,
                       struct lb_made_target *made) {
    struct lb_truncated from[LB_MAX_TEACHERS];
    double mass[LB_MAX_TEACHERS];
    unsigned n = step->plan->n_teachers;
    for (unsigned k = 0; k < n; k++) {
        from[k] = (struct lb_truncated){0};
        mass[k] = 1;
        if (weight[k] > 0) {
            int32_t *ids = worker->list_ids + k * step->top_k;
            float *p = worker->list_p + k * step->top_k;
            from[k] = read_list(step, k, row, made->temperature, ids, p, &mass[k]);
        }
    }
    struct lb_target *target = &made->target;
    target->mass = step->mass != NULL || sampled(step) ? weigh_kept(mass, n, weight) : 1;
    target->k =
        lb_mixture_truncated(n, from, weight, step->v, worker->slot, made->ids, made->p, &target->tail);
}

static void make_truncated(const struct lb_step *step, struct lb_worker *worker, double *weight, int64_t row,
                           struct lb_made_target *made) {
    unsigned n = step->plan->n_teachers, there = 0, only = 0;
    for (unsigned k = 0; k < n; k++) {
        there += weight[k] > 0 ? 1 : 0;
        only = weight[k] > 0 ? k : only;
    }
    made->target = (struct lb_target){.kind = sampled(step) ? LB_TARGET_SAMPLED : LB_TARGET_TRUNCATED,
                                      .temperature = made->temperature,
                                      .ids = made->ids,
                                      .p_at = made->p,
                                      .mass = 1,
                                      .add_tail = step->plan->recipe->loss_add_tail};
    if (there == 1) {
        make_single(step, worker, only, row, made);
    } else {
        make_union(step, worker, weight, row, made);
    }
}

static void make_dense(const struct lb_step *step, double *weight, int64_t row, int64_t in_chunk,
                       struct lb_made_target *made) {
    const float *z[LB_MAX_TEACHERS], *only = NULL;
    double mass[LB_MAX_TEACHERS], kept[LB_MAX_TEACHERS];
    unsigned n = step->plan->n_teachers, there = 0;
    enum lb_combine combine = step->plan->mixture->combine;
    for (unsigned k = 0; k < n; k++) {
        z[k] = weight[k] > 0 ? step->z[k] + in_chunk * step->v : NULL;
        there += z[k] != NULL ? 1 : 0;
        only = z[k] != NULL ? z[k] : only;
        kept[k] = weight[k];
        mass[k] = 1;
        if (z[k] != NULL && step->plan->map[k] != NULL) {
            mass[k] = kept_mass(step, k, row, z[k], made->temperature);
            note_mass(step, k, row, mass[k]);
        }
    }
    made->target = (struct lb_target){.kind = LB_TARGET_DENSE,
                                      .temperature = made->temperature,
                                      .z = there == 1 ? only : NULL,
                                      .p = made->p};
    if (there > 1 && made->z != NULL) {
        lb_mixture_logits(n, z, weight, step->v, made->z);
        made->target.z = made->z;
    }
    made->target.mass = step->mass != NULL ? weigh_kept(mass, n, kept) : 1;
    made->target.neg_entropy = lb_mixture_dense(combine, n, z, combine == LB_COMBINE_LOGITS ? weight : kept,
                                                made->temperature, step->v, made->p);
}

/* The weights that make the distribution of `who` for loss l; false when it has none here. */
static bool weights_of(const struct lb_step *step, size_t l, unsigned who, int64_t row, double *weight) {
    unsigned n = step->plan->n_teachers;
    const double *mix = lb_step_mix(step, l, step->batch.sequence[row], row);
    const struct lb_answer *const *answers = step->batch.answers + (int64_t)step->batch.sequence[row] * n;
    bool any = false;
    for (unsigned k = 0; k < n; k++) {
        weight[k] = answers[k] != NULL && mix[k] > 0 && (who == n || who == k) ? mix[k] : 0;
        any |= weight[k] > 0;
    }
    return any;
}

const struct lb_target *lb_step_target_alone(const struct lb_step *step, struct lb_worker *worker, size_t l,
                                             unsigned k, int64_t row, int64_t in_chunk) {
    double weight[LB_MAX_TEACHERS] = {0};
    struct lb_made_target *made = &worker->alone;
    weight[k] = 1;
    made->temperature = step->args[l].temperature;
    if (truncated(step)) {
        make_truncated(step, worker, weight, row, made);
    } else {
        make_dense(step, weight, row, in_chunk, made);
    }
    return made->target.mass > 0 ? &made->target : NULL;
}

int32_t lb_step_top(const struct lb_step *step, const struct lb_target *target) {
    int32_t top = 0;
    if (target->kind != LB_TARGET_DENSE) { /* draws do not tell */
        for (int32_t i = 1; i < target->k; i++) {
            top = target->p_at[i] > target->p_at[top] ? i : top;
        }
        return sampled(step) || target->k == 0 ? -1 : target->ids[top];
    }
    for (int32_t j = 1; j < step->v; j++) {
        top = target->z[j] > target->z[top] ? j : top;
    }
    return top;
}

const struct lb_target *lb_step_target(const struct lb_step *step, struct lb_worker *worker, size_t l,
                                       unsigned who, int64_t row, int64_t in_chunk) {
    double weight[LB_MAX_TEACHERS], temperature = step->args[l].temperature;
    unsigned set = step->plan->losses[l].set;
    struct lb_made_target *made = worker->targets;
    while (made->made && (made->who != who || made->set != set || made->temperature != temperature)) {
        made++; /* there is one for each pair that the losses ask for */
    }
    if (!made->made) {
        made->made = true;
        made->who = who;
        made->set = set;
        made->temperature = temperature;
        made->there = weights_of(step, l, who, row, weight);
        if (made->there && truncated(step)) {
            make_truncated(step, worker, weight, row, made);
        } else if (made->there) {
            make_dense(step, weight, row, in_chunk, made);
        }
        /* else the teacher means nothing that there is */
        made->there = made->there && made->target.mass > 0;
    }
    return made->there ? &made->target : NULL;
}
