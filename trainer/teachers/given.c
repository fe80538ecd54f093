/* What the recipe gives of teachers whose servers do not: their heads and tokenizers, from files. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/model/model.h"
#include "common/nn/gemm.h"
#include "trainer/teachers/opened.h"
#include "trainer/wire/metadata.h"
#include "trainer/wire/possible.h"

#include <stdio.h>
#include <string.h>

static float *widen(const struct lb_weight *w) {
    size_t n;
    float *out = lb_mul_size((size_t)w->rows, (size_t)w->cols, &n) ? lb_malloc_array(n, sizeof *out) : NULL;
    if (out) {
        lb_gemm_widen(w, 0, w->rows, out);
    }
    return out;
}

/* The head of a model's folder or .gguf file. */
static enum lb_status head_of_model(const struct teacher *teacher, const char *path,
                                    struct lb_teacher_head *out, struct lb_detail *detail) {
    struct lb_model *model = NULL;
    enum lb_status status = lb_model_open(path, false, &model, detail);
    if (status != LB_OK) {
        return status;
    }
    const struct lb_head *of = lb_model_head(model);
    struct lb_teacher_head head = {.shape = of->shape};
    if (!of->weight) {
        status = lb_fail(detail, LB_E_NOTFOUND, "%s: model %s has no head that makes logits", teacher->label,
                         path);
    } else {
        head.vocab_size = of->weight->rows;
        head.hidden_size = of->weight->cols;
        head.weight = widen(of->weight);
        head.bias = of->bias ? widen(of->bias) : NULL;
        if (!head.weight || (of->bias && !head.bias)) {
            status = lb_fail(detail, LB_E_NOMEM, "%s: no memory for the head of %s", teacher->label, path);
        }
    }
    lb_model_destroy(model);
    if (status != LB_OK) {
        lb_teacher_head_finish(&head);
        return status;
    }
    *out = head;
    return LB_OK;
}

/* A head by itself: safetensors, as GET /v2/models/M/head gives. */
static enum lb_status head_of_file(const char *path, struct lb_teacher_head *out, struct lb_detail *detail) {
    const struct lb_teacher_info any = {.vocab_size = 0};
    struct lb_buf bytes;
    lb_buf_init(&bytes, LB_MAX_RESPONSE_BYTES);
    enum lb_status status = lb_file_read(path, &bytes, detail);
    status = status != LB_OK ? status : lb_teacher_head_parse(bytes.data, bytes.len, &any, path, out, detail);
    lb_buf_finish(&bytes);
    return status;
}

enum lb_status lb_teacher_open_files(struct teacher *teacher, struct lb_detail *detail) {
    const char *head = teacher->is->head;
    enum lb_status status = LB_OK;
    if (head) {
        status = lb_ends_with(head, ".safetensors")
                     ? head_of_file(head, &teacher->from_file, detail)
                     : head_of_model(teacher, head, &teacher->from_file, detail);
        status = status != LB_OK ? status : lb_head_possible(&teacher->from_file, head, detail);
        if (status != LB_OK) {
            lb_detail_prefix(detail, "%s: head", teacher->label);
        }
    }
    if (status == LB_OK && teacher->is->tokenizer) {
        status = lb_tokenizer_open(teacher->is->tokenizer, &teacher->tokenizer, detail);
        if (status != LB_OK) {
            lb_detail_prefix(detail, "%s: tokenizer", teacher->label);
        }
    }
    return status;
}

enum lb_status lb_teacher_complete(const struct lb_teachers *teachers, const struct teacher *teacher,
                                   struct lb_teacher_info *info, struct lb_detail *detail) {
    const struct lb_teacher_head *head = &teacher->from_file;
    info->any_compute = teachers->options.allow_other_kernels;
    if (teacher->is->most_top_k > 0) {
        info->most_top_k = teacher->is->most_top_k;
    }
    if (teacher->tokenizer) {
        snprintf(info->tokenizer_fingerprint, sizeof info->tokenizer_fingerprint, "%s",
                 lb_tokenizer_fingerprint(teacher->tokenizer));
    }
    if (!head->weight) {
        return LB_OK;
    }
    if (info->hidden_size > 0 && info->hidden_size != head->hidden_size) {
        return lb_fail(detail, LB_E_MISMATCH,
                       "%s: its states have %lld numbers, the head %s reads %lld: it is another model's",
                       teacher->label, (long long)info->hidden_size, teacher->is->head,
                       (long long)head->hidden_size);
    }
    info->vocab_size = head->vocab_size;
    return LB_OK;
}
