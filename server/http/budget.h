/* A count of bytes with a maximum, shared by all threads: what request bodies and answers may hold in memory
 * together, whatever the number of clients. */
#ifndef LB_HTTP_BUDGET_H
#define LB_HTTP_BUDGET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct lb_budget {
    atomic_size_t used;
    size_t max;
};

static inline void lb_budget_init(struct lb_budget *budget, size_t max) {
    atomic_init(&budget->used, 0);
    budget->max = max;
}

/* False (and nothing taken) when bytes more would exceed the maximum. */
static inline bool lb_budget_take(struct lb_budget *budget, size_t bytes) {
    size_t used = atomic_load_explicit(&budget->used, memory_order_relaxed);
    do {
        if (bytes > budget->max || used > budget->max - bytes) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&budget->used, &used, used + bytes, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

static inline void lb_budget_give(struct lb_budget *budget, size_t bytes) {
    atomic_fetch_sub_explicit(&budget->used, bytes, memory_order_relaxed);
}

#endif
