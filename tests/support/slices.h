/* Parts of jobs computed as one batch, without a batcher. */
#ifndef LB_TESTS_SUPPORT_SLICES_H
#define LB_TESTS_SUPPORT_SLICES_H

#include "common/base/mem.h"
#include "server/engine/engine.h"

/* slices: {job, first, n}, all of one model. LB_E_NOMEM, or what lb_engine_run says. */
static inline enum lb_status lb_run_slices(struct lb_engine *engine, const struct lb_slice *slices, size_t n,
                                           struct lb_detail *detail) {
    struct lb_batch *batch = lb_calloc(1, sizeof *batch);
    if (batch == NULL) {
        return LB_E_NOMEM;
    }
    batch->model = slices[0].job->model;
    for (size_t i = 0; i < n; i++) {
        const struct lb_slice *s = &slices[i];
        batch->slices[batch->n_slices++] = *s;
        batch->n_seqs += s->n;
        batch->n_tokens += s->job->offsets[s->first + s->n] - s->job->offsets[s->first];
    }
    enum lb_status status = lb_engine_run(engine, batch, detail);
    lb_free(batch);
    return status;
}

/* All of a job. */
static inline enum lb_status lb_run_whole(struct lb_engine *engine, struct lb_job *job,
                                          struct lb_detail *detail) {
    return lb_run_slices(engine, &(struct lb_slice){job, 0, job->n_seqs}, 1, detail);
}

#endif
