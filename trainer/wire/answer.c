#include "trainer/wire/answer.h"

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/nn/dtype.h"
#include "proto/logprob8.h"

#include <stdio.h>
#include <string.h>

/* ---- what is asked ---- */

bool lb_extra_alike(const struct lb_extra *a, const struct lb_extra *b) {
    return a == b || (a && b && a->width == b->width && strcmp(a->name, b->name) == 0);
}

bool lb_spec_same(const struct lb_ask_spec *a, const struct lb_ask_spec *b) {
    bool same = a->n_outputs == b->n_outputs && a->top_k == b->top_k && a->temperature == b->temperature &&
                a->n_scored == b->n_scored && a->sample_count == b->sample_count && a->seed == b->seed &&
                a->sample_temperature == b->sample_temperature && strcmp(a->vocab_map, b->vocab_map) == 0;
    for (size_t j = 0; same && j < a->n_outputs; j++) {
        same = a->outputs[j].kind == b->outputs[j].kind && a->outputs[j].layer == b->outputs[j].layer &&
               a->outputs[j].datatype == b->outputs[j].datatype;
    }
    return same;
}

enum lb_datatype lb_spec_datatype(const struct lb_ask_spec *spec, size_t j) {
    return spec->outputs[j].datatype != LB_DT_NONE ? spec->outputs[j].datatype
                                                   : lb_output_get(spec->outputs[j].kind)->own;
}

bool lb_spec_uses(const struct lb_ask_spec *spec, unsigned uses) {
    for (size_t j = 0; j < spec->n_outputs; j++) {
        if (lb_output_get(spec->outputs[j].kind)->uses & uses) {
            return true;
        }
    }
    return false;
}

void lb_ask_normalise(const struct lb_ask_spec *spec, struct lb_ask_spec *out) {
    *out = *spec;
    if (!lb_spec_uses(spec, LB_USES_TOP_K)) {
        out->top_k = LB_DEFAULT_TOP_K;
    }
    if (!lb_spec_uses(spec, LB_USES_TEMPERATURE)) {
        out->temperature = 1;
    }
    if (!lb_spec_uses(spec, LB_USES_SAMPLES)) {
        out->sample_count = 0;
        out->seed = 0;
        out->sample_temperature = 0;
    }
    if (!lb_spec_uses(spec, LB_USES_KEPT)) {
        out->vocab_map[0] = '\0';
        out->n_kept = 0;
    }
}

int64_t lb_spec_vocab(const struct lb_ask_spec *spec, const struct lb_teacher_info *info) {
    return spec->vocab_map[0] ? spec->n_kept : info->vocab_size;
}

/* ---- what a teacher is and gives ---- */

void lb_info_identity(const struct lb_teacher_info *info, char out[LB_IDENTITY_TEXT]) {
    bool both = info->compute[0] && !info->any_compute;
    snprintf(out, LB_IDENTITY_TEXT, "%s%s%s", info->fingerprint, both ? ":" : "", both ? info->compute : "");
}

const struct lb_given *lb_info_given(const struct lb_teacher_info *info, enum lb_output_kind kind,
                                     int layer) {
    for (size_t i = 0; i < info->n_given; i++) {
        if (info->given[i].kind == (unsigned)kind && info->given[i].layer == layer) {
            return &info->given[i];
        }
    }
    return NULL;
}

int64_t lb_info_state_width(const struct lb_teacher_info *info, enum lb_output_kind kind, int layer) {
    const struct lb_given *given = lb_info_given(info, kind, layer);
    if (given && given->width > 0) {
        return given->width;
    }
    /* Layers of a classifier may be of any width, and heads of any number and width. */
    enum lb_output_source source = lb_output_get(kind)->source;
    bool heads = source == LB_FROM_QUERIES || source == LB_FROM_KEYS || source == LB_FROM_VALUES;
    bool alike = (info->input_size == 0 && !heads) || source == LB_FROM_FINAL;
    return alike ? info->hidden_size : 0;
}

int64_t lb_info_ids(const struct lb_teacher_info *info) {
    return info->num_labels > 0 ? info->n_ids : info->vocab_size;
}

bool lb_info_once(const struct lb_teacher_info *info, enum lb_output_kind kind) {
    enum lb_output_source source = lb_output_get(kind)->source;
    return info->input_size > 0 ||
           (info->num_labels > 0 && (source == LB_FROM_LOGITS || source == LB_FROM_FINAL));
}

enum lb_status lb_info_labels(const struct lb_teacher_info *info, struct lb_labels *out) {
    struct lb_labels labels = {0};
    enum lb_status status = lb_labels_init(&labels, info->num_labels);
    const char *name = info->labels;
    labels.problem = info->problem;
    for (int64_t i = 0; status == LB_OK && i < labels.n && name[0] != 0; i++, name += strlen(name) + 1) {
        status = lb_labels_name(&labels, i, name);
    }
    if (status != LB_OK) {
        lb_labels_finish(&labels);
        return status;
    }
    *out = labels;
    return LB_OK;
}

int lb_answer_shape(const struct lb_teacher_info *info, const struct lb_ask_spec *spec, size_t j,
                    int64_t rows, int64_t n, int64_t dim[LB_MAX_WIRE_DIMS]) {
    enum lb_output_kind kind = spec->outputs[j].kind;
    int64_t v = lb_spec_vocab(spec, info);
    const struct lb_output_sizes sizes = {.sequences = 1,
                                          .rows = lb_info_once(info, kind) ? 1 : rows,
                                          .positions = n,
                                          .vocab = v,
                                          .top_k = spec->top_k < v ? spec->top_k : v,
                                          .scored = spec->n_scored,
                                          .samples = spec->sample_count < v ? spec->sample_count : v,
                                          .heads = info->n_heads,
                                          .state = lb_info_state_width(info, kind, spec->outputs[j].layer)};
    int64_t whole[LB_MAX_WIRE_DIMS];
    int n_dims = lb_output_shape(kind, &sizes, whole) - 1; /* an answer is one sequence's */
    memcpy(dim, whole + 1, (size_t)n_dims * sizeof *dim);
    return n_dims;
}

enum lb_status lb_ask_check(const struct lb_teacher_info *info, const struct lb_sample *sample,
                            const char *teacher, struct lb_detail *detail) {
    if (sample->features) {
        if (info->input_size <= 0) {
            return lb_fail(detail, LB_E_ARG, "teacher %s reads token ids, but the data are images", teacher);
        }
        return LB_OK;
    }
    if (info->input_size > 0) {
        return lb_fail(detail, LB_E_ARG, "teacher %s reads %lld features, but the data are texts", teacher,
                       (long long)info->input_size);
    }
    if (sample->n < 1 || (info->max_length > 0 && sample->n > info->max_length)) {
        return lb_fail(detail, LB_E_LIMIT,
                       "a row of %lld tokens, but teacher %s takes 1 to %lld; lower max_length",
                       (long long)sample->n, teacher, (long long)info->max_length);
    }
    int64_t ids = lb_info_ids(info);
    for (int64_t t = 0; t < sample->n; t++) {
        if (sample->ids[t] < 0 || (ids > 0 && sample->ids[t] >= ids)) {
            return lb_fail(
                detail, LB_E_ARG,
                "token id %ld at position %lld, but teacher %s knows ids below %lld; use its tokenizer",
                (long)sample->ids[t], (long long)t, teacher, (long long)ids);
        }
    }
    return LB_OK;
}

uint64_t lb_ask_answer_bytes(const struct lb_teacher_info *info, const struct lb_ask_spec *spec, int64_t rows,
                             int64_t n) {
    uint64_t total = 0;
    for (size_t j = 0; j < spec->n_outputs; j++) {
        int64_t dim[LB_MAX_WIRE_DIMS];
        int n_dims = lb_answer_shape(info, spec, j, rows, n, dim);
        uint64_t bytes = lb_datatype_bytes(lb_spec_datatype(spec, j));
        for (int d = 0; d < n_dims; d++) {
            bytes *= (uint64_t)dim[d];
        }
        total += bytes;
    }
    return total;
}

/* ---- answers ---- */

const struct lb_wire_tensor *lb_answer_find(const struct lb_answer *answer, enum lb_output_kind kind,
                                            int layer) {
    for (size_t i = 0; i < answer->n_tensors; i++) {
        if (answer->what[i].kind == kind && answer->what[i].layer == layer) {
            return &answer->tensors[i];
        }
    }
    return NULL;
}

enum lb_status lb_answer_name(struct lb_answer *answer) {
    enum lb_status status = LB_OK;
    for (size_t i = 0; i < answer->n_tensors && status == LB_OK; i++) {
        status = lb_output_parse(answer->tensors[i].name, &answer->what[i], NULL);
    }
    return status;
}

void lb_wire_floats(const struct lb_wire_tensor *tensor, int64_t first, int64_t n, float *out) {
    switch (tensor->datatype) {
    case LB_DT_FP16:
        lb_f16_row((const uint16_t *)tensor->data + first, out, n);
        break;
    case LB_DT_BF16:
        lb_bf16_row((const uint16_t *)tensor->data + first, out, n);
        break;
    case LB_DT_UINT8:
        for (int64_t i = 0; i < n; i++) {
            out[i] = lb_logprob8_to(((const uint8_t *)tensor->data)[first + i]);
        }
        break;
    default:
        memcpy(out, (const float *)tensor->data + first, (size_t)n * sizeof *out);
    }
}

double lb_wire_sum(const struct lb_wire_tensor *tensor, int64_t first, int64_t n) {
    double sum = 0;
    for (int64_t i = first; i < first + n; i++) {
        float one;
        lb_wire_floats(tensor, i, 1, &one);
        sum += (double)one;
    }
    return sum;
}

int32_t lb_answer_id(const struct lb_wire_tensor *tensor, int64_t i) {
    return tensor->datatype == LB_DT_UINT16 ? ((const uint16_t *)tensor->data)[i]
                                            : ((const int32_t *)tensor->data)[i];
}

/* Ids index rows of logits further on. */
static enum lb_status check_ids(const struct lb_wire_tensor *ids, int64_t v, struct lb_detail *detail) {
    for (int64_t i = 0, n = lb_wire_elements(ids); i < n; i++) {
        int32_t id = lb_answer_id(ids, i);
        if (id < 0 || id >= v) {
            return lb_fail(detail, LB_E_FORMAT, "%s names id %ld, the vocabulary ends at %lld", ids->name,
                           (long)id, (long long)v - 1);
        }
    }
    return LB_OK;
}

enum lb_status lb_answer_check(const struct lb_answer *answer, const struct lb_ask_spec *spec,
                               const struct lb_teacher_info *info, int64_t n, struct lb_detail *detail) {
    char output[LB_MAX_NAME];
    if (answer->n_tensors != spec->n_outputs) {
        return lb_fail(detail, LB_E_FORMAT, "an answer of %zu outputs, %zu were asked for", answer->n_tensors,
                       spec->n_outputs);
    }
    for (size_t j = 0; j < spec->n_outputs; j++) {
        const struct lb_wire_tensor *t = &answer->tensors[j];
        if (answer->what[j].kind != spec->outputs[j].kind ||
            answer->what[j].layer != spec->outputs[j].layer) {
            lb_output_format(spec->outputs[j].kind, spec->outputs[j].layer, output);
            return lb_fail(detail, LB_E_FORMAT, "the answer lacks the output %s that was asked for", output);
        }
        int64_t dim[LB_MAX_WIRE_DIMS], elements = 1;
        int n_dims = lb_answer_shape(info, spec, j, n - answer->first, n, dim);
        bool same = t->n_dims == n_dims && t->datatype == lb_spec_datatype(spec, j);
        for (int d = 0; same && d < n_dims; d++) {
            same = t->dim[d] == dim[d];
            elements *= dim[d];
        }
        if (!same || t->bytes != (size_t)elements * lb_datatype_bytes(t->datatype)) {
            lb_output_format(spec->outputs[j].kind, spec->outputs[j].layer, output);
            return lb_fail(
                detail, LB_E_MISMATCH,
                "%s has another shape or datatype than was asked for %lld positions (vocabulary %lld, "
                "width %lld)",
                output, (long long)n, (long long)lb_spec_vocab(spec, info), (long long)info->hidden_size);
        }
        enum lb_output_numbers numbers = lb_output_get(spec->outputs[j].kind)->numbers;
        bool ids = numbers == LB_ARE_IDS || numbers == LB_ARE_DRAWN;
        bool kept = lb_output_get(spec->outputs[j].kind)->uses & LB_USES_KEPT;
        enum lb_status status =
            ids ? check_ids(t, kept ? lb_spec_vocab(spec, info) : info->vocab_size, detail) : LB_OK;
        if (status != LB_OK) {
            return status;
        }
    }
    return LB_OK;
}

void lb_teacher_head_finish(struct lb_teacher_head *head) {
    if (head) {
        lb_free(head->weight);
        lb_free(head->bias);
        memset(head, 0, sizeof *head);
    }
}
