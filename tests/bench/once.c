#include "tests/bench/once.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "server/engine/admit.h"
#include "server/engine/engine.h"
#include "server/models/repository.h"
#include "tests/support/figures.h"

enum lb_status lb_once_run(struct lb_engine *engine, struct lb_hosted *hosted,
                           const struct lb_infer_request *request, struct lb_once *out,
                           struct lb_detail *detail) {
    const struct lb_plan_limits limits = {LB_MAX_RESPONSE_BYTES, LB_MAX_REQUEST_TOKENS, LB_MAX_JSON_VALUES,
                                          0};
    struct lb_job *job = lb_job_create((size_t)1 << 30);
    struct lb_batch *batch = lb_calloc(1, sizeof *batch);
    enum lb_status status = job && batch ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory");
    if (status == LB_OK) {
        job->model = lb_hosted_retain(hosted);
        status = lb_plan(request, &limits, job, detail);
    }
    if (status == LB_OK) {
        *batch = (struct lb_batch){
            .model = hosted, .n_slices = 1, .n_seqs = job->n_seqs, .n_tokens = job->n_tokens};
        batch->slices[0] = (struct lb_slice){job, 0, job->n_seqs};
        double processor = lb_processor_seconds();
        uint64_t begun = lb_now_ns();
        status = lb_engine_run(engine, batch, detail);
        if (status == LB_OK) {
            *out = (struct lb_once){(double)(lb_now_ns() - begun) / LB_SECOND_NS,
                                    lb_processor_seconds() - processor};
        }
    }
    lb_free(batch);
    lb_job_destroy(job);
    return status;
}
