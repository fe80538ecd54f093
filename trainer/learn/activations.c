/* Losses between activations: hidden states of the whole micro-batch, attention sequence by sequence. */
#include "trainer/learn/parts.h"

#include <string.h>

static bool zero_if_fresh(struct lb_tape *tape, struct lb_value *v) {
    if (lb_grad_fresh(tape, v)) {
        lb_copy_floats(v->grad, NULL, v->rows * v->cols);
    }
    return v->grad != NULL;
}

/* The loss with what it works with, added to *loss. */
static enum lb_status state_loss(struct lb_step *step, const struct lb_pair *p, struct lb_states *states,
                                 float *da, double *loss) {
    const struct lb_loss_args *args = &step->args[p->loss];
    const struct lb_loss *f = step->plan->losses[p->loss].loss;
    struct lb_arena_mark mark = lb_arena_mark(&step->memory);
    if (f->work != NULL) {
        states->work = lb_arena_array(&step->memory, f->work(states, args), 1);
        if (states->work == NULL) {
            return LB_E_NOMEM;
        }
    }
    *loss += f->state(states, args, args->weight * lb_step_inverse(step, p->loss), da);
    lb_arena_release(&step->memory, mark);
    return LB_OK;
}

/* Rows that losses among rows compare: of each text, or where a sample has one row all of them. */
static void set_groups(const struct lb_step *step, const struct lb_pair *p, const struct lb_answered *rows,
                       const int32_t all[2], struct lb_states *states) {
    bool once = lb_pair_once(step->student, p);
    states->n_groups = once ? 1 : rows->n_samples;
    states->groups = once ? all : rows->offsets;
}

/* How often row r of sample s counts. */
static double row_weight(const struct lb_step *step, const struct lb_pair *p, const struct lb_answered *rows,
                         int64_t r) {
    int64_t s = rows->sequence[r];
    const struct lb_answer *answer = rows->answers[s * step->plan->n_teachers + p->teacher];
    bool counts = p->once || step->rows.labels[r] >= 0;
    if (step->args[p->loss].first_token) {
        counts = r == rows->offsets[s] && answer != NULL && answer->first == 0;
    }
    return counts ? lb_step_weight(step, s) * lb_step_pair_mix(step, p, s, r) : 0;
}

/* Hidden states: project where widths differ, then the loss over all rows. */
static enum lb_status hidden_pair(struct lb_step *step, const struct lb_pair *p, struct lb_value *state,
                                  double *loss) {
    struct lb_value *a = state;
    if (p->projection[0] != 0) {
        a = lb_linear(step->tape, state, lb_model_find(step->student, p->projection), NULL);
    }
    const struct lb_answered *rows = p->final ? &step->batch : &step->tokens;
    int64_t n = rows->offsets[rows->n_samples];
    double *weight = lb_arena_array(&step->memory, (size_t)n, sizeof *weight);
    float *b = lb_arena_array(&step->memory, (size_t)(n * p->teacher_width), sizeof *b);
    if (a == NULL || b == NULL || weight == NULL || !zero_if_fresh(step->tape, a)) {
        return LB_E_NOMEM;
    }
    for (int64_t r = 0; r < n; r++) {
        weight[r] = row_weight(step, p, rows, r);
    }
    lb_target_states(rows, p->teacher, p->kind, p->layer, p->teacher_width, b);
    const int32_t all[2] = {0, (int32_t)n};
    struct lb_states states = {.a = a->data,
                               .b = b,
                               .n = n,
                               .width = a->cols,
                               .b_width = p->teacher_width,
                               .row_weight = weight,
                               .inverse_square = lb_step_inverse_square(step, p),
                               .both_ways = !lb_model_is_causal(step->student),
                               .student_layer = p->final ? -1 : p->tap.layer,
                               .teacher_layer = p->kind == LB_OUT_HIDDEN_FINAL ? -1 : p->layer};
    set_groups(step, p, rows, all, &states);
    return state_loss(step, p, &states, a->grad, loss);
}

/* Sentences: pool, project where widths differ, then the loss over the sequences. */
static enum lb_status sentence_pair(struct lb_step *step, const struct lb_pair *p, struct lb_value *states,
                                    double *loss) {
    int64_t n = step->batch.n_samples;
    struct lb_value *a = lb_model_pool(step->student, step->tape, states);
    if (p->projection[0] != 0) {
        a = lb_linear(step->tape, a, lb_model_find(step->student, p->projection), NULL);
    }
    double *weight = lb_arena_zarray(&step->memory, (size_t)n, sizeof *weight);
    float *b = lb_arena_zarray(&step->memory, (size_t)(n * p->teacher_width), sizeof *b);
    if (a == NULL || b == NULL || weight == NULL || !zero_if_fresh(step->tape, a)) {
        return LB_E_NOMEM;
    }
    for (int64_t s = 0; s < n; s++) {
        const struct lb_answer *answer = step->batch.answers[s * step->plan->n_teachers + p->teacher];
        if (answer != NULL) {
            weight[s] =
                lb_step_weight(step, s) * lb_step_mix(step, p->loss, s, step->batch.offsets[s])[p->teacher];
            lb_wire_floats(lb_answer_find(answer, p->kind, 0), 0, p->teacher_width, b + s * p->teacher_width);
        }
    }
    const int32_t all[2] = {0, (int32_t)n};
    struct lb_states rows = {.a = a->data,
                             .b = b,
                             .n = n,
                             .width = a->cols,
                             .b_width = p->teacher_width,
                             .row_weight = weight,
                             .inverse_square = 1,
                             .student_layer = -1,
                             .teacher_layer = -1};
    set_groups(step, p, &step->batch, all, &rows);
    return state_loss(step, p, &rows, a->grad, loss);
}

/* Workspaces for attention: [heads, T, T] of the longest sequence. */
struct planes {
    float *teacher, *da, *mean_a, *mean_b;
    double *weight; /* [heads * T] */
};

/* mean [square] over the heads of x [heads, square] */
static void mean_of_heads(const float *x, int64_t heads, int64_t square, float *mean) {
    memset(mean, 0, (size_t)square * sizeof *mean);
    for (int64_t h = 0; h < heads; h++, x += square) {
        for (int64_t i = 0; i < square; i++) {
            mean[i] += x[i] / (float)heads;
        }
    }
}

/* Sample s: a [H, T, T] the student's, p->teacher the teacher's. Where the numbers of heads differ, the means
 * over heads are compared. */
static enum lb_status attention_sample(struct lb_step *step, const struct lb_pair *p, int64_t s,
                                       const float *a, const struct planes *m, float *da, double *loss) {
    int64_t first = step->tokens.offsets[s], t = step->batch.samples[s].n, h = p->student_width,
            square = t * t;
    bool same = h == p->teacher_width;
    const int32_t all[2] = {0, (int32_t)((same ? h : 1) * t)};
    struct lb_states states = {.a = a,
                               .b = m->teacher,
                               .n = (same ? h : 1) * t,
                               .width = t,
                               .b_width = t,
                               .row_weight = m->weight,
                               .inverse_square = 1,
                               .n_groups = 1,
                               .groups = all,
                               .heads = same ? h : 1,
                               .both_ways = !lb_model_is_causal(step->student),
                               .student_layer = p->tap.layer,
                               .teacher_layer = p->layer};
    if (!same) {
        mean_of_heads(a, h, square, m->mean_a);
        mean_of_heads(m->teacher, p->teacher_width, square, m->mean_b);
        states.a = m->mean_a;
        states.b = m->mean_b;
    }
    for (int64_t i = 0; i < states.n; i++) {
        int64_t row = first + i % t;
        m->weight[i] = step->rows.labels[row] >= 0
                           ? lb_step_weight(step, s) * lb_step_mix(step, p->loss, s, row)[p->teacher]
                           : 0;
    }
    memset(m->da, 0, (size_t)(states.n * t) * sizeof *m->da);
    enum lb_status status = state_loss(step, p, &states, m->da, loss);
    for (int64_t k = 0; k < h; k++, da += square) {
        for (int64_t i = 0; i < square; i++) {
            da[i] += same ? m->da[k * square + i] : m->da[i] / (float)h;
        }
    }
    return status;
}

static bool planes_memory(struct lb_step *step, const struct lb_pair *p, struct planes *out) {
    int64_t most = 0, heads = p->student_width > p->teacher_width ? p->student_width : p->teacher_width;
    for (int64_t s = 0; s < step->batch.n_samples; s++) {
        most = step->batch.samples[s].n > most ? step->batch.samples[s].n : most;
    }
    size_t square = (size_t)(most * most);
    out->teacher = lb_arena_array(&step->memory, (size_t)heads * square, sizeof *out->teacher);
    out->da = lb_arena_array(&step->memory, (size_t)heads * square, sizeof *out->da);
    out->mean_a = lb_arena_array(&step->memory, square, sizeof *out->mean_a);
    out->mean_b = lb_arena_array(&step->memory, square, sizeof *out->mean_b);
    out->weight = lb_arena_array(&step->memory, (size_t)(heads * most), sizeof *out->weight);
    return out->teacher != NULL && out->da != NULL && out->mean_a != NULL && out->mean_b != NULL &&
           out->weight != NULL;
}

/* The teacher's [heads, t, t]; zeros in rows that it was not asked about. */
static void read_planes(const struct lb_answer *answer, const struct lb_pair *p, int64_t t, float *out) {
    const struct lb_wire_tensor *from = lb_answer_find(answer, p->kind, p->layer);
    int64_t rows = t - answer->first;
    for (int64_t h = 0; h < p->teacher_width; h++) {
        float *plane = out + h * t * t;
        memset(plane, 0, (size_t)(answer->first * t) * sizeof *plane);
        lb_wire_floats(from, h * rows * t, rows * t, plane + answer->first * t);
    }
}

static enum lb_status attention_pair(struct lb_step *step, const struct lb_pair *p, struct lb_value *probs,
                                     double *loss) {
    struct planes planes;
    if (!planes_memory(step, p, &planes) || !zero_if_fresh(step->tape, probs)) {
        return LB_E_NOMEM;
    }
    int64_t at = 0, n = (int64_t)step->plan->n_teachers;
    enum lb_status status = LB_OK;
    for (int64_t s = 0; s < step->batch.n_samples && status == LB_OK; s++) {
        int64_t t = step->batch.samples[s].n;
        const struct lb_answer *answer = step->batch.answers[s * n + p->teacher];
        if (answer != NULL) {
            read_planes(answer, p, t, planes.teacher);
            status = attention_sample(step, p, s, probs->data + at, &planes, probs->grad + at, loss);
        }
        at += p->student_width * t * t;
    }
    return status;
}

enum lb_status lb_step_pair(struct lb_step *step, const struct lb_pair *pair, struct lb_value *value,
                            double *loss) {
    struct lb_arena_mark mark = lb_arena_mark(&step->memory); /* what one works with the next one may have */
    enum lb_status status = pair->kind == LB_OUT_ATTENTION  ? attention_pair(step, pair, value, loss)
                            : pair->kind == LB_OUT_SENTENCE ? sentence_pair(step, pair, value, loss)
                                                            : hidden_pair(step, pair, value, loss);
    lb_arena_release(&step->memory, mark);
    return status;
}
