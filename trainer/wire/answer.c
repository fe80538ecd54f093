#include "trainer/wire/answer.h"

#include "common/nn/dtype.h"

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
