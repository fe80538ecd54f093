#include "trainer/run/computes.h"

#include "common/nn/compute.h"
#include "common/nn/gemm.h"
#include "trainer/teachers/teachers.h"

#include <stdio.h>
#include <string.h>

enum lb_status lb_computes_find(const struct lb_teachers *teachers, struct lb_computes *out,
                                struct lb_detail *detail) {
    struct lb_computes now = {.n = 1};
    enum lb_status status = lb_compute_digest(now.by[0].digest, detail);
    if (status != LB_OK) {
        return status;
    }
    snprintf(now.by[0].kernels, sizeof now.by[0].kernels, "%s", lb_gemm_description());
    for (unsigned k = 0; teachers != NULL && k < lb_teachers_count(teachers) && k < LB_MAX_TEACHERS; k++) {
        const struct lb_teacher_info *info = lb_teachers_info(teachers, k);
        struct lb_compute *by = &now.by[now.n++];
        memcpy(by->digest, info->compute, sizeof by->digest);
        memcpy(by->kernels, info->kernels, sizeof by->kernels);
    }
    *out = now;
    return LB_OK;
}

void lb_computes_write(const struct lb_computes *computes, struct lb_buf *out) {
    lb_buf_append_str(out, "[");
    for (unsigned i = 0; i < computes->n; i++) { /* kernels are plain words: metadata.c, gemm.c */
        lb_buf_printf(out, "%s{\"compute\": \"%s\", \"kernels\": \"%s\"}", i > 0 ? ", " : "",
                      computes->by[i].digest, computes->by[i].kernels);
    }
    lb_buf_append_str(out, "]");
}

enum lb_status lb_computes_read(const json_t *object, const char *what, struct lb_computes *out,
                                struct lb_detail *detail) {
    const json_t *list = json_object_get(object, "computes");
    struct lb_computes read = {0};
    size_t n = json_array_size(list);
    if (list != NULL && (!json_is_array(list) || n > 1 + LB_MAX_TEACHERS)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: computes must be a list of at most %d", what,
                       1 + LB_MAX_TEACHERS);
    }
    for (size_t i = 0; i < n; i++) {
        const char *digest = "", *kernels = "";
        const json_t *entry = json_array_get(list, i);
        enum lb_status status = lb_json_str(entry, "compute", true, what, &digest, detail);
        status = status == LB_OK ? lb_json_str(entry, "kernels", true, what, &kernels, detail) : status;
        if (status != LB_OK) {
            return status;
        }
        struct lb_compute *by = &read.by[read.n++];
        if (strlen(digest) >= sizeof by->digest || strlen(kernels) >= sizeof by->kernels) {
            return lb_fail(detail, LB_E_FORMAT, "%s: computes[%zu] is too long", what, i);
        }
        memcpy(by->digest, digest, strlen(digest) + 1);
        memcpy(by->kernels, kernels, strlen(kernels) + 1);
    }
    *out = read;
    return LB_OK;
}

static const char *or_unknown(const char *text) {
    return *text != '\0' ? text : "unknown";
}

bool lb_computes_differ(const struct lb_computes *then, const struct lb_computes *now,
                        const struct lb_recipe_teacher *teachers, char *text, size_t size) {
    size_t used = 0;
    for (unsigned i = 0; i < then->n && i < now->n; i++) {
        const struct lb_compute *a = &then->by[i], *b = &now->by[i];
        if (strcmp(a->digest, b->digest) == 0 || used >= size) {
            continue;
        }
        int n = snprintf(text + used, size - used, "%s%s%s: %.12s (%s), then %.12s (%s)",
                         used > 0 ? "; " : "", i > 0 ? "teacher " : "the trainer itself",
                         i > 0 ? teachers[i - 1].name : "", or_unknown(b->digest), or_unknown(b->kernels),
                         or_unknown(a->digest), or_unknown(a->kernels));
        used += n > 0 ? (size_t)n : 0;
    }
    return used > 0;
}
