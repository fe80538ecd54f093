/* How much of what student and teacher find likely is the same: what on-policy distillation goes by. */
#include "common/nn/reduce.h"
#include "trainer/learn/parts.h"

/* What the target gives id. */
static double mass_of(const struct lb_target *target, int32_t id) {
    if (target->kind == LB_TARGET_DENSE) {
        return (double)target->p[id];
    }
    for (int64_t i = 0; i < target->k; i++) {
        if (target->ids[i] == id) {
            return (double)target->p_at[i];
        }
    }
    return 0; /* of what is not listed no id is known to have any */
}

bool lb_overlap(const float *q, int64_t v, const struct lb_target *target, struct lb_overlap *out) {
    int32_t own[LB_OVERLAP_K], its[LB_OVERLAP_K];
    float unused[LB_OVERLAP_K];
    bool dense = target->kind == LB_TARGET_DENSE;
    int64_t known = dense ? v : target->k, k = known < LB_OVERLAP_K ? known : LB_OVERLAP_K;
    if (target->kind == LB_TARGET_SAMPLED || k < 1) { /* draws are not the likeliest */
        return false;
    }
    lb_topk(q, v, k, own, unused);
    lb_topk(dense ? target->p : target->p_at, known, k, its, unused);
    *out = (struct lb_overlap){0};
    for (int64_t i = 0; i < k; i++) {
        int32_t id = dense ? its[i] : target->ids[its[i]];
        out->student_mass += (double)q[id];
        out->teacher_mass += mass_of(target, own[i]);
        for (int64_t j = 0; j < k; j++) {
            out->ratio += own[j] == id ? 1.0 / (double)k : 0;
        }
    }
    return true;
}
