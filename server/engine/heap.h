/* Binary heaps of jobs, in which a job knows its place, so that it can be taken out from anywhere. */
#ifndef LB_ENGINE_HEAP_H
#define LB_ENGINE_HEAP_H

#include "common/base/status.h"
#include "server/engine/job.h"

#include <stddef.h>

struct lb_heap {
    enum lb_heap_kind kind; /* LB_BY_TURN or LB_BY_DEADLINE: the order, and the job's place that is used */
    struct lb_job **jobs;
    size_t n, cap;
};

/* Makes room for one more job, so that the next lb_heap_put can't fail. LB_E_NOMEM. */
enum lb_status lb_heap_reserve(struct lb_heap *heap);
void lb_heap_put(struct lb_heap *heap, struct lb_job *job);
/* Nothing happens when it isn't there. */
void lb_heap_remove(struct lb_heap *heap, struct lb_job *job);
/* The first, NULL when empty. */
struct lb_job *lb_heap_top(const struct lb_heap *heap);
/* Frees the array; the jobs are others'. */
void lb_heap_finish(struct lb_heap *heap);

#endif
