/* A bounded queue of pointers between threads; every wait has a deadline. Thread-safe. */
#ifndef LB_BASE_QUEUE_H
#define LB_BASE_QUEUE_H

#include "common/base/status.h"

#include <stddef.h>
#include <stdint.h>

struct lb_queue;

/* NULL when out of memory. */
struct lb_queue *lb_queue_create(size_t capacity);
/* Items still inside are the caller's to free beforehand. Accepts NULL. */
void lb_queue_destroy(struct lb_queue *queue);
/* deadline_ns on the monotonic clock (lb_now_ns); 0 = do not wait. LB_E_TIMEOUT when full till then,
 * LB_E_CANCELLED when closed. */
LB_NODISCARD enum lb_status lb_queue_push(struct lb_queue *queue, void *item, uint64_t deadline_ns);
/* LB_E_TIMEOUT when empty till then; LB_E_CANCELLED when closed and empty. */
LB_NODISCARD enum lb_status lb_queue_pop(struct lb_queue *queue, void **out_item, uint64_t deadline_ns);
/* No more pushes; pops drain what is there. Wakes everybody. */
void lb_queue_close(struct lb_queue *queue);
size_t lb_queue_length(struct lb_queue *queue);

#endif
