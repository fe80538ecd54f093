#include "trainer/target.h"

#include "common/nn/dtype.h"
#include "common/nn/head.h"
#include "common/nn/reduce.h"

#include <string.h>

const struct lb_wire_tensor *lb_answer_find(const struct lb_answer *answer, enum lb_output_kind kind,
                                            int layer) {
    for (size_t i = 0; i < answer->n_tensors; i++) {
        struct lb_output_name name;
        if (lb_output_parse(answer->tensors[i].name, &name, NULL) == LB_OK && name.kind == kind &&
            (name.layer == layer || (kind != LB_OUT_HIDDEN && kind != LB_OUT_ATTENTION))) {
            return &answer->tensors[i];
        }
    }
    return NULL;
}

void lb_wire_floats(const struct lb_wire_tensor *tensor, int64_t first, int64_t n, float *out) {
    if (tensor->datatype == LB_DT_FP16) {
        lb_f16_row((const uint16_t *)tensor->data + first, out, n);
    } else {
        memcpy(out, (const float *)tensor->data + first, (size_t)n * sizeof *out);
    }
}

int32_t lb_answer_id(const struct lb_wire_tensor *tensor, int64_t i) {
    return tensor->datatype == LB_DT_UINT16 ? ((const uint16_t *)tensor->data)[i]
                                            : ((const int32_t *)tensor->data)[i];
}

/* The shape that an output must have for n positions; an image is one position. */
static int expected(enum lb_output_kind kind, const struct lb_ask_spec *spec,
                    const struct lb_teacher_info *info, int64_t n, int64_t dim[3]) {
    dim[0] = n;
    switch (kind) {
    case LB_OUT_LOGITS:
        dim[1] = info->vocab_size;
        return 2;
    case LB_OUT_TOPK_IDS:
    case LB_OUT_TOPK_VALUES:
        dim[1] = spec->top_k < info->vocab_size ? spec->top_k : info->vocab_size;
        return 2;
    case LB_OUT_LOGSUMEXP:
    case LB_OUT_ACTUAL:
        return 1;
    case LB_OUT_HIDDEN:
    case LB_OUT_HIDDEN_FINAL:
        dim[1] = info->hidden_size;
        return 2;
    case LB_OUT_ATTENTION:
        dim[0] = info->n_heads;
        dim[1] = dim[2] = n;
        return 3;
    }
    return 0;
}

enum lb_status lb_answer_check(const struct lb_answer *answer, const struct lb_ask_spec *spec,
                               const struct lb_teacher_info *info, int64_t n, const char *name,
                               struct lb_detail *detail) {
    for (size_t i = 0; i < spec->n_outputs; i++) {
        char output[LB_MAX_NAME];
        lb_output_format(spec->outputs[i].kind, spec->outputs[i].layer, output);
        const struct lb_wire_tensor *t =
            lb_answer_find(answer, spec->outputs[i].kind, spec->outputs[i].layer);
        if (t == NULL) {
            return lb_fail(detail, LB_E_FORMAT, "teacher %s: its answer lacks %s", name, output);
        }
        int64_t dim[3], elements = 1;
        int n_dims = expected(spec->outputs[i].kind, spec, info, n, dim);
        bool same = t->n_dims == n_dims && t->datatype == spec->outputs[i].datatype;
        for (int d = 0; same && d < n_dims; d++) {
            same = t->dim[d] == dim[d];
            elements *= dim[d];
        }
        if (!same || t->bytes != (size_t)elements * lb_datatype_bytes(t->datatype)) {
            return lb_fail(detail, LB_E_MISMATCH,
                           "teacher %s: %s has another shape or datatype than its metadata (vocabulary %lld, "
                           "width %lld) promises "
                           "for %lld positions",
                           name, output, (long long)info->vocab_size, (long long)info->hidden_size,
                           (long long)n);
        }
        for (int64_t j = 0; spec->outputs[i].kind == LB_OUT_TOPK_IDS && j < elements; j++) {
            if (lb_answer_id(t, j) < 0 || lb_answer_id(t, j) >= info->vocab_size) {
                return lb_fail(detail, LB_E_FORMAT, "teacher %s: %s names id %d, its vocabulary has %lld",
                               name, output, lb_answer_id(t, j), (long long)info->vocab_size);
            }
        }
    }
    return LB_OK;
}

/* The last row of the run of rows from row on that belong to one sample, at most to end. */
static int64_t run_end(const struct lb_answered *batch, int64_t row, int64_t end) {
    int64_t stop = batch->offsets[batch->sequence[row] + 1];
    return stop < end ? stop : end;
}

void lb_target_logits(const struct lb_answered *batch, unsigned k, const struct lb_teacher_head *head,
                      int64_t v, int64_t row, int64_t n, float *states, float *z) {
    int64_t end = row + n, pending = 0, pending_at = row; /* rows of states that wait for one product */
    for (int64_t r = row; r < end;) {
        int64_t s = batch->sequence[r], stop = run_end(batch, r, end), first = r - batch->offsets[s];
        const struct lb_answer *a = batch->answers[s * batch->n_teachers + k];
        const struct lb_wire_tensor *logits = a != NULL ? lb_answer_find(a, LB_OUT_LOGITS, 0) : NULL;
        if (logits != NULL) {
            lb_wire_floats(logits, first * v, (stop - r) * v, z + (r - row) * v);
        } else if (a != NULL && head != NULL) {
            const struct lb_wire_tensor *h = lb_answer_find(a, LB_OUT_HIDDEN_FINAL, 0);
            pending_at = pending == 0 ? r : pending_at;
            lb_wire_floats(h, first * head->hidden_size, (stop - r) * head->hidden_size,
                           states + (r - row) * head->hidden_size);
            pending += stop - r;
        }
        bool gap = a == NULL || logits != NULL;
        if (pending > 0 && (gap || stop == end)) {
            lb_head_logits(states + (pending_at - row) * head->hidden_size, pending, head->hidden_size,
                           head->weight, head->bias, v, z + (pending_at - row) * v);
            pending = 0;
        }
        r = stop;
    }
}

void lb_target_states(const struct lb_answered *batch, unsigned k, enum lb_output_kind kind, int layer,
                      int64_t width, float *out) {
    for (int64_t s = 0; s < batch->n_samples; s++) {
        int64_t n = batch->offsets[s + 1] - batch->offsets[s];
        const struct lb_answer *a = batch->answers[s * batch->n_teachers + k];
        const struct lb_wire_tensor *t = a != NULL ? lb_answer_find(a, kind, layer) : NULL;
        float *to = out + batch->offsets[s] * width;
        if (t != NULL) {
            lb_wire_floats(t, 0, n * width, to);
        } else {
            memset(to, 0, (size_t)(n * width) * sizeof *to);
        }
    }
}

double lb_target_cross_entropy(const struct lb_answered *batch, unsigned k, int64_t i,
                               const struct lb_teacher_head *head) {
    const struct lb_answer *a = batch->answers[i * batch->n_teachers + k];
    if (a == NULL) {
        return 0;
    }
    const struct lb_sample *sample = &batch->samples[i];
    const struct lb_wire_tensor *actual = lb_answer_find(a, LB_OUT_ACTUAL, 0);
    double sum = 0;
    if (actual != NULL) {
        for (int64_t t = 0; t + 1 < sample->n; t++) {
            float v;
            lb_wire_floats(actual, t, 1, &v);
            sum -= v;
        }
        return sample->n > 1 ? sum / (double)(sample->n - 1) : 0;
    }
    const struct lb_wire_tensor *logits = lb_answer_find(a, LB_OUT_LOGITS, 0);
    const struct lb_wire_tensor *h = lb_answer_find(a, LB_OUT_HIDDEN_FINAL, 0);
    float z[1024], states[4096]; /* classes and widths of classifiers; lb_plan refuses more */
    int64_t v = logits != NULL ? lb_wire_elements(logits) : head->vocab_size;
    if (logits != NULL) {
        lb_wire_floats(logits, 0, v, z);
    } else {
        lb_wire_floats(h, 0, head->hidden_size, states);
        lb_head_logits(states, 1, head->hidden_size, head->weight, head->bias, v, z);
    }
    return lb_logsumexp(z, v, 1) - z[sample->label];
}
