/* From a decoded request to a job: everything is checked against the model, and the answer's size is known,
 * before anything large is allocated. Pure but for memory; any thread. */
#ifndef LB_ENGINE_ADMIT_H
#define LB_ENGINE_ADMIT_H

#include "server/engine/job.h"

struct lb_plan_limits {
    size_t max_response_bytes;
    int64_t max_tokens;      /* of one request */
    int64_t max_json_values; /* numbers in one answer's JSON */
    size_t stream_bytes; /* logits of more bytes than this are streamed where that takes less; 0: none are */
};

/* Fills job (fresh, with its model set). Errors: LB_E_ARG for what a client can mend (names the input, the
 * position, the range, or the outputs there are), LB_E_LIMIT for too large, LB_E_UNSUPPORTED for what this
 * model lacks. */
LB_NODISCARD enum lb_status lb_plan(const struct lb_infer_request *request,
                                    const struct lb_plan_limits *limits, struct lb_job *job,
                                    struct lb_detail *detail);

#endif
