/* One request through the server's engine, without the server. */
#ifndef LB_TESTS_BENCH_ONCE_H
#define LB_TESTS_BENCH_ONCE_H

#include "common/base/status.h"
#include "proto/oip.h"

struct lb_engine;
struct lb_hosted;

struct lb_once {
    double seconds, processor_seconds; /* of the batch; the latter of all threads together */
};

/* Plans the request and computes it as one batch; its answer is thrown away. */
LB_NODISCARD enum lb_status lb_once_run(struct lb_engine *engine, struct lb_hosted *hosted,
                                        const struct lb_infer_request *request, struct lb_once *out,
                                        struct lb_detail *detail);

#endif
