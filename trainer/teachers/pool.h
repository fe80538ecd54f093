/* Which replica of a teacher is asked next: the healthy one with the fewest requests under way.
 *
 * A replica that failed is left alone for a while that doubles with every failure in a row (with jitter, so
 * that many trainers do not come back at once; a Retry-After is honoured). After that it is probed, and after
 * a good probe it gets one request; only an answer to that makes it healthy again. Pure bookkeeping: no I/O,
 * the time is an argument. One thread at a time.
 */
#ifndef LB_TEACHERS_POOL_H
#define LB_TEACHERS_POOL_H

#include "common/base/rng.h"
#include "common/base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define LB_POOL_MAX_REPLICAS 64
/* Longest that a Retry-After is honoured: a server that says "tomorrow" is asked again all the same. While
 * all replicas are lost, and the run ends when that lasts, also no longer than half of the time that is left:
 * one word of a server's is not the end of a run that would have had time to ask again. */
#define LB_POOL_MAX_RETRY_AFTER_NS (300 * UINT64_C(1000000000))

enum lb_replica_state {
    LB_REPLICA_UP,
    LB_REPLICA_DOWN,    /* until retry_ns, then to be probed */
    LB_REPLICA_PROBING, /* a probe is under way */
    LB_REPLICA_TRIAL    /* the probe was good: one request at a time until one is answered */
};

struct lb_replica {
    enum lb_replica_state state;
    unsigned outstanding; /* requests under way */
    unsigned failures;    /* in a row */
    uint64_t retry_ns;
    uint64_t soonest_ns; /* the same without what the server asked for */
    uint64_t sent;       /* requests ever */
};

struct lb_pool {
    struct lb_replica replicas[LB_POOL_MAX_REPLICAS];
    int n;
    unsigned max_outstanding; /* requests under way per replica */
    uint64_t base_ns, cap_ns; /* back-off after the first failure, and its most */
    uint64_t patience_ns; /* how long all may be lost before the run does without; 0, as begun: for ever */
    uint64_t lost_ns;     /* since when no replica has been healthy; 0: some is */
    struct lb_rng rng;
};

/* All n replicas healthy. */
void lb_pool_init(struct lb_pool *pool, int n, unsigned max_outstanding, uint64_t base_ns, uint64_t cap_ns,
                  uint64_t seed);
/* The replica to ask, or -1 when none may be asked now. avoid (-1: none) is taken only if there is no other;
 * never: bits of replicas that are not taken at all. */
int lb_pool_pick(const struct lb_pool *pool, int avoid, uint64_t never);
/* Requests that may be started now. */
unsigned lb_pool_free_slots(const struct lb_pool *pool);
/* Whether a replica that was probed well has its one request to prove itself, or is about to get it. */
bool lb_pool_trying(const struct lb_pool *pool);
/* The replica to probe now, or -1. */
int lb_pool_probe_due(const struct lb_pool *pool, uint64_t now_ns);
/* When the next probe is due; UINT64_MAX: never as things are. */
uint64_t lb_pool_next_ns(const struct lb_pool *pool);

void lb_pool_sent(struct lb_pool *pool, int i);
/* A request ended: answered well, or not (retry_after_ns 0: the server named no time). */
void lb_pool_answered(struct lb_pool *pool, int i);
void lb_pool_failed(struct lb_pool *pool, int i, uint64_t now_ns, uint64_t retry_after_ns);
/* A request ended and says nothing about the replica (called off). */
void lb_pool_dropped(struct lb_pool *pool, int i);
/* Not reached when the run began: as after a first failure. */
void lb_pool_mark_down(struct lb_pool *pool, int i, uint64_t now_ns);
void lb_pool_probing(struct lb_pool *pool, int i);
void lb_pool_probed(struct lb_pool *pool, int i, bool good, uint64_t now_ns, uint64_t retry_after_ns);

#endif
