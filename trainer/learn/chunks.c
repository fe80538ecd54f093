/* Losses on chunks of text: how likely student and teacher find the same bytes, in whatever tokens.
 *
 * A chunk's loss needs the student's log-probabilities of all its tokens, whose logits don't exist at one
 * time; so they are read once before (step->own), the losses and their slopes follow, and the gradient of
 * logits is made with the other losses', in rows.c: d log q(y) / dz = onehot(y) - q. */
#include "common/nn/head.h"
#include "common/nn/reduce.h"
#include "trainer/learn/parts.h"

#include <math.h>

/* log q of the label of each row that has one, into step->own [N]. */
static bool read_own(struct lb_step *step) {
    const struct lb_head *head = lb_model_head(step->student);
    int64_t most = lb_head_chunk(step->v), n_rows = step->rows.n_rows, c = step->states->cols;
    step->own = lb_arena_zarray(&step->memory, (size_t)n_rows, sizeof *step->own);
    step->slope = lb_arena_zarray(&step->memory, (size_t)n_rows, sizeof *step->slope);
    most = most < n_rows ? most : n_rows;
    struct lb_arena_mark mark = lb_arena_mark(&step->memory);
    float *z = lb_arena_array(&step->memory, (size_t)(most * step->v), sizeof *z);
    if (step->own == NULL || step->slope == NULL || z == NULL) {
        return false;
    }
    for (int64_t row = 0; row < n_rows; row += most) {
        int64_t n = n_rows - row < most ? n_rows - row : most;
        lb_head_logits(step->states->data + row * c, n, c, head->weight->value,
                       head->bias != NULL ? head->bias->value : NULL, step->v, head->shape, z);
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < n; i++) {
            int32_t label = step->rows.labels[row + i];
            const float *own = z + i * step->v;
            step->own[row + i] = label >= 0 ? own[label] - lb_logsumexp(own, step->v, 1) : 0;
        }
    }
    lb_arena_release(&step->memory, mark);
    return true;
}

/* Chunk i of sample s for teacher k: positions of the sample, and the teacher's log-likelihood. Where it
 * reads the sample's own ids, each token that counts is one; the last one's label it has not seen. false:
 * there are no more. */
static bool next_chunk(const struct lb_sample *sample, const struct lb_answer *answer, unsigned k, int64_t *i,
                       struct lb_chunk *out) {
    const struct lb_reading *its = lb_sample_reading(sample, k);
    if (answer == NULL) {
        return false;
    }
    if (its != NULL) {
        if (*i >= its->n_chunks) {
            return false;
        }
        *out = its->chunks[(*i)++];
        return true;
    }
    while (*i + 1 < sample->n && !lb_sample_counts(sample, *i)) {
        (*i)++;
    }
    if (*i + 1 >= sample->n) {
        return false;
    }
    *out = (struct lb_chunk){(int32_t)*i, 1, (int32_t)*i, 1};
    (*i)++;
    return true;
}

/* How likely the teacher finds the chunk: the log of it. */
static double its_log(const struct lb_answer *answer, const struct lb_chunk *chunk) {
    return lb_wire_sum(lb_answer_labels(answer), lb_answer_row(answer, chunk->its_at), chunk->its_n);
}

double lb_step_chunks_cross_entropy(const struct lb_answered *batch, unsigned k, int64_t s) {
    const struct lb_answer *answer = batch->answers[s * batch->n_teachers + k];
    struct lb_chunk chunk;
    double sum = 0;
    int64_t n = 0;
    for (int64_t i = 0; next_chunk(&batch->samples[s], answer, k, &i, &chunk); n += chunk.n) {
        sum -= its_log(answer, &chunk);
    }
    return n > 0 ? sum / (double)n : 0;
}

/* Loss l on the chunks of sample s that teacher k answered about. */
static void sample_chunks(struct lb_step *step, size_t l, unsigned k, int64_t s) {
    const struct lb_loss_args *args = &step->args[l];
    const struct lb_sample *sample = &step->batch.samples[s];
    const struct lb_answer *answer = step->batch.answers[s * step->plan->n_teachers + k];
    int64_t first = step->batch.offsets[s];
    struct lb_chunk chunk;
    for (int64_t i = 0; next_chunk(sample, answer, k, &i, &chunk);) {
        double own = 0, slope;
        double weight = lb_step_weight(step, s) * lb_step_mix(step, l, s, first + chunk.at)[k];
        for (int64_t t = 0; t < chunk.n; t++) {
            own += step->own[first + chunk.at + t];
        }
        double loss = step->plan->losses[l].loss->chunk(its_log(answer, &chunk), own, args, &slope);
        step->row_loss[l * (size_t)step->rows.n_rows + (size_t)(first + chunk.at)] += weight * loss;
        step->apart_loss[k] += l == lb_plan_first_loss(step->plan, k) ? weight * loss : 0;
        for (int64_t t = 0; t < chunk.n; t++) {
            step->slope[first + chunk.at + t] += args->weight * weight * slope * step->inverse;
        }
    }
}

bool lb_step_chunks(struct lb_step *step) {
    const struct lb_plan *plan = step->plan;
    step->own = step->slope = NULL;
    if (!plan->on_chunk) {
        return true;
    }
    if (!read_own(step)) {
        return false;
    }
    for (size_t l = 0; l < plan->n_losses; l++) {
        bool on = plan->losses[l].loss->on == LB_ON_CHUNK && lb_step_on(step, l);
        for (unsigned k = 0; on && k < plan->n_teachers; k++) {
            for (int64_t s = 0; lb_plan_learns(plan, l, k) && s < step->batch.n_samples; s++) {
                sample_chunks(step, l, k, s);
            }
        }
    }
    return true;
}

void lb_step_chunks_count(const struct lb_step *step, struct lb_step_result *result) {
    const struct lb_plan *plan = step->plan;
    for (unsigned k = 0; k < plan->n_teachers; k++) {
        for (int64_t s = 0; plan->unlike[k] && s < step->batch.n_samples; s++) {
            const struct lb_sample *sample = &step->batch.samples[s];
            const struct lb_reading *its = lb_sample_reading(sample, k);
            double share = lb_step_weight(step, s) * step->inverse;
            for (int64_t i = 0; its != NULL && i < its->n_chunks; i++) {
                result->in_chunks[k] += (double)its->chunks[i].n * share;
                result->chunks[k] += share;
            }
            result->chunked[k] += (double)lb_sample_counted(sample) * share;
        }
    }
}
