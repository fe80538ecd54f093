#include "trainer/loss/target.h"

#include "common/nn/dtype.h"
#include "common/nn/head.h"
#include "common/nn/reduce.h"

#include <math.h>
#include <string.h>

#define PARALLEL_FROM 65536 /* numbers */

/* The last row of the run of rows from row on that belong to one sample, at most to end. */
static int64_t run_end(const struct lb_answered *batch, int64_t row, int64_t end) {
    int64_t stop = batch->offsets[batch->sequence[row] + 1];
    return stop < end ? stop : end;
}

/* Of positions t .. t + n - 1 rows of this width, into out [n, width]; zeros where none were asked for. */
static void read_rows(const struct lb_answer *a, const struct lb_wire_tensor *rows, int64_t width, int64_t t,
                      int64_t n, float *out) {
#pragma omp parallel for schedule(static) if (n * width > PARALLEL_FROM)
    for (int64_t i = 0; i < n; i++) {
        if (t + i < a->first) {
            memset(out + i * width, 0, (size_t)width * sizeof *out);
        } else {
            lb_wire_floats(rows, lb_answer_row(a, t + i) * width, width, out + i * width);
        }
    }
}

/* Of one row of sent logits, from number first on, those that the student has: runs of neighbours, of which
 * there are few. */
static void read_kept(const struct lb_wire_tensor *logits, const struct lb_vocab_map *map, int64_t v,
                      int64_t first, float *z) {
    for (int64_t j = 0, next; j < v; j = next) {
        for (next = j + 1; next < v && map->kept[next] == map->kept[next - 1] + 1;) {
            next++;
        }
        lb_wire_floats(logits, first + map->kept[j], next - j, z + j);
    }
}

/* Of positions t .. t + n - 1 of sent logits, those that the student has, into z [n, v]. */
static void read_logits(const struct lb_answer *a, const struct lb_wire_tensor *logits,
                        const struct lb_vocab_map *map, int64_t v, int64_t t, int64_t n, float *z) {
    if (map == NULL) {
        read_rows(a, logits, v, t, n, z);
        return;
    }
    int64_t whole = logits->dim[logits->n_dims - 1];
#pragma omp parallel for schedule(static) if (n * v > PARALLEL_FROM)
    for (int64_t i = 0; i < n; i++) {
        if (t + i < a->first) {
            memset(z + i * v, 0, (size_t)v * sizeof *z);
        } else {
            read_kept(logits, map, v, lb_answer_row(a, t + i) * whole, z + i * v);
        }
    }
}

void lb_target_logits(const struct lb_answered *batch, unsigned k, const struct lb_teacher_head *head,
                      const struct lb_vocab_map *map, int64_t v, int64_t row, int64_t n, float *states,
                      float *z) {
    int64_t end = row + n, pending = 0, pending_at = row; /* rows of states that wait for one product */
    for (int64_t r = row; r < end;) {
        int64_t s = batch->sequence[r], stop = run_end(batch, r, end), first = r - batch->offsets[s];
        const struct lb_answer *a = batch->answers[s * batch->n_teachers + k];
        const struct lb_wire_tensor *logits = a != NULL ? lb_answer_find(a, LB_OUT_LOGITS, 0) : NULL;
        if (logits != NULL) {
            read_logits(a, logits, map, v, first, stop - r, z + (r - row) * v);
        } else if (a != NULL && head != NULL) {
            const struct lb_wire_tensor *h = lb_answer_find(a, LB_OUT_HIDDEN_FINAL, 0);
            pending_at = pending == 0 ? r : pending_at;
            read_rows(a, h, head->hidden_size, first, stop - r, states + (r - row) * head->hidden_size);
            pending += stop - r;
        }
        bool gap = a == NULL || logits != NULL;
        if (pending > 0 && (gap || stop == end)) {
            lb_head_logits(states + (pending_at - row) * head->hidden_size, pending, head->hidden_size,
                           head->weight, head->bias, v, head->shape, z + (pending_at - row) * v);
            pending = 0;
        }
        r = stop;
    }
}

double lb_target_list(const struct lb_answer *answer, int64_t at, int64_t top_k, bool all, double temperature,
                      int32_t *ids, float *p) {
    const struct lb_wire_tensor *listed = lb_answer_find(answer, LB_OUT_TOPK_IDS, 0);
    float log_rest;
    lb_wire_floats(lb_answer_find(answer, LB_OUT_REST, 0), at, 1, &log_rest);
    lb_wire_floats(lb_answer_find(answer, LB_OUT_TOPK_VALUES, 0), at * top_k, top_k, p);
    double norm = lb_logsumexp(p, top_k, temperature);
    norm -= all ? 0 : log(-expm1(log_rest));
    for (int64_t i = 0; i < top_k; i++) {
        ids[i] = lb_answer_id(listed, at * top_k + i);
        p[i] = (float)exp(p[i] / temperature - norm);
    }
    return all ? 0 : exp(log_rest);
}

void lb_target_states(const struct lb_answered *batch, unsigned k, enum lb_output_kind kind, int layer,
                      int64_t width, float *out) {
    for (int64_t s = 0; s < batch->n_samples; s++) {
        int64_t n = batch->offsets[s + 1] - batch->offsets[s];
        const struct lb_answer *a = batch->answers[s * batch->n_teachers + k];
        const struct lb_wire_tensor *t = a != NULL ? lb_answer_find(a, kind, layer) : NULL;
        float *to = out + batch->offsets[s] * width;
        if (t != NULL) {
            read_rows(a, t, width, 0, n, to);
        } else {
            memset(to, 0, (size_t)(n * width) * sizeof *to);
        }
    }
}

/* Of a sample's class, from the logits or from the final state. */
static double class_cross_entropy(const struct lb_answer *a, int32_t label,
                                  const struct lb_teacher_head *head) {
    const struct lb_wire_tensor *logits = lb_answer_find(a, LB_OUT_LOGITS, 0);
    float z[LB_MAX_CE_CLASSES], states[LB_MAX_CE_WIDTH];
    int64_t v = logits != NULL ? lb_wire_elements(logits) : head->vocab_size;
    if (logits != NULL) {
        lb_wire_floats(logits, 0, v, z);
    } else {
        lb_wire_floats(lb_answer_find(a, LB_OUT_HIDDEN_FINAL, 0), 0, head->hidden_size, states);
        lb_head_logits(states, 1, head->hidden_size, head->weight, head->bias, v, head->shape, z);
    }
    return lb_logsumexp(z, v, 1) - z[label];
}

/* Asked as these, or where the question has another temperature, as those. */
const struct lb_wire_tensor *lb_answer_labels(const struct lb_answer *a) {
    const struct lb_wire_tensor *plain = lb_answer_find(a, LB_OUT_NEXT, 0);
    return plain != NULL ? plain : lb_answer_find(a, LB_OUT_ACTUAL, 0);
}

/* Of a text's label at position t. */
static double text_cross_entropy(const struct lb_answer *a, int64_t t) {
    float logprob;
    lb_wire_floats(lb_answer_labels(a), lb_answer_row(a, t), 1, &logprob);
    return -(double)logprob;
}

double lb_target_cross_entropy_at(const struct lb_answered *batch, unsigned k, int64_t i, int64_t t,
                                  const struct lb_teacher_head *head) {
    const struct lb_answer *a = batch->answers[i * batch->n_teachers + k];
    const struct lb_sample *sample = &batch->samples[i];
    if (a != NULL && batch->by_sample) {
        return class_cross_entropy(a, sample->label, head);
    }
    bool seen = a != NULL && t + 1 < sample->n && lb_sample_counts(sample, t);
    return seen ? text_cross_entropy(a, t) : 0;
}

double lb_target_cross_entropy(const struct lb_answered *batch, unsigned k, int64_t i,
                               const struct lb_teacher_head *head) {
    const struct lb_answer *a = batch->answers[i * batch->n_teachers + k];
    const struct lb_sample *sample = &batch->samples[i];
    if (a == NULL || batch->by_sample || sample->n < 2) {
        return lb_target_cross_entropy_at(batch, k, i, 0, head);
    }
    double sum = 0;
    int64_t n = 0;
    for (int64_t t = 0; t + 1 < sample->n; t++) {
        if (lb_sample_counts(sample, t)) {
            sum += text_cross_entropy(a, t);
            n++;
        }
    }
    return n > 0 ? sum / (double)n : 0;
}
