#include "trainer/teachers/pool.h"

#include <assert.h>
#include <string.h>

void lb_pool_init(struct lb_pool *pool, int n, unsigned max_outstanding, uint64_t base_ns, uint64_t cap_ns,
                  uint64_t seed) {
    assert(n >= 1 && n <= LB_POOL_MAX_REPLICAS && max_outstanding >= 1);
    memset(pool, 0, sizeof *pool);
    pool->n = n;
    pool->max_outstanding = max_outstanding;
    pool->base_ns = base_ns;
    pool->cap_ns = cap_ns;
    lb_rng_seed(&pool->rng, seed, 0);
}

static unsigned room(const struct lb_pool *pool, const struct lb_replica *replica) {
    unsigned most = replica->state == LB_REPLICA_UP      ? pool->max_outstanding
                    : replica->state == LB_REPLICA_TRIAL ? 1
                                                         : 0;
    return replica->outstanding < most ? most - replica->outstanding : 0;
}

int lb_pool_pick(const struct lb_pool *pool, int avoid, uint64_t never) {
    int best = -1;
    for (int i = 0; i < pool->n; i++) {
        const struct lb_replica *a = &pool->replicas[i];
        if (!room(pool, a) || (never >> i & 1)) {
            continue;
        }
        if (best < 0 || best == avoid) {
            best = i;
            continue;
        }
        const struct lb_replica *b = &pool->replicas[best];
        bool fewer =
            a->outstanding < b->outstanding || (a->outstanding == b->outstanding && a->sent < b->sent);
        if (i != avoid && fewer) {
            best = i;
        }
    }
    return best;
}

unsigned lb_pool_free_slots(const struct lb_pool *pool) {
    unsigned n = 0;
    for (int i = 0; i < pool->n; i++) {
        n += room(pool, &pool->replicas[i]);
    }
    return n;
}

bool lb_pool_trying(const struct lb_pool *pool) {
    for (int i = 0; i < pool->n; i++) {
        if (pool->replicas[i].state == LB_REPLICA_TRIAL) {
            return true;
        }
    }
    return false;
}

int lb_pool_probe_due(const struct lb_pool *pool, uint64_t now_ns) {
    for (int i = 0; i < pool->n; i++) {
        const struct lb_replica *replica = &pool->replicas[i];
        if (replica->state == LB_REPLICA_DOWN && replica->outstanding == 0 && now_ns >= replica->retry_ns) {
            return i;
        }
    }
    return -1;
}

uint64_t lb_pool_next_ns(const struct lb_pool *pool) {
    uint64_t next = UINT64_MAX;
    for (int i = 0; i < pool->n; i++) {
        const struct lb_replica *replica = &pool->replicas[i];
        if (replica->state == LB_REPLICA_DOWN && replica->outstanding == 0 && replica->retry_ns < next) {
            next = replica->retry_ns;
        }
    }
    return next;
}

/* No replica waits longer for its server's sake than half of what is left of the patience. */
static void shorten_waits(struct lb_pool *pool, uint64_t now_ns) {
    uint64_t end = pool->lost_ns + pool->patience_ns, left = end > now_ns ? end - now_ns : 0;
    for (int i = 0; i < pool->n; i++) {
        struct lb_replica *replica = &pool->replicas[i];
        if (replica->state == LB_REPLICA_DOWN && replica->retry_ns > now_ns + left / 2) {
            uint64_t half = now_ns + left / 2;
            replica->retry_ns = half > replica->soonest_ns ? half : replica->soonest_ns;
        }
    }
}

/* Base times two to the failures, within the cap, times 0.5 to 1; at least what the server asked for. */
static void back_off(struct lb_pool *pool, struct lb_replica *replica, uint64_t now_ns,
                     uint64_t retry_after_ns) {
    replica->failures++;
    unsigned doublings = replica->failures - 1 < 30 ? replica->failures - 1 : 30;
    double wait = (double)pool->base_ns * (double)(1u << doublings);
    if (wait > (double)pool->cap_ns) {
        wait = (double)pool->cap_ns;
    }
    wait *= 0.5 + 0.5 * lb_rng_double(&pool->rng);
    replica->soonest_ns = now_ns + (uint64_t)wait;
    if (retry_after_ns > LB_POOL_MAX_RETRY_AFTER_NS) {
        retry_after_ns = LB_POOL_MAX_RETRY_AFTER_NS;
    }
    if (wait < (double)retry_after_ns) {
        wait = (double)retry_after_ns;
    }
    replica->state = LB_REPLICA_DOWN;
    replica->retry_ns = now_ns + (uint64_t)wait;

    for (int i = 0; i < pool->n; i++) {
        if (pool->replicas[i].state == LB_REPLICA_UP) {
            return;
        }
    }
    if (!pool->lost_ns) {
        pool->lost_ns = now_ns;
    }
    if (pool->patience_ns && now_ns < pool->lost_ns + pool->patience_ns) {
        shorten_waits(pool, now_ns);
    }
}

void lb_pool_sent(struct lb_pool *pool, int i) {
    pool->replicas[i].outstanding++;
    pool->replicas[i].sent++;
}

void lb_pool_answered(struct lb_pool *pool, int i) {
    struct lb_replica *replica = &pool->replicas[i];
    replica->outstanding--;
    replica->failures = 0;
    if (replica->state != LB_REPLICA_PROBING) {
        replica->state = LB_REPLICA_UP;
        pool->lost_ns = 0;
    }
}

void lb_pool_failed(struct lb_pool *pool, int i, uint64_t now_ns, uint64_t retry_after_ns) {
    struct lb_replica *replica = &pool->replicas[i];
    replica->outstanding--;
    /* Requests that were under way together fail together: one failure, not several. */
    if (replica->state == LB_REPLICA_UP || replica->state == LB_REPLICA_TRIAL) {
        back_off(pool, replica, now_ns, retry_after_ns);
    }
}

void lb_pool_dropped(struct lb_pool *pool, int i) {
    pool->replicas[i].outstanding--;
}

void lb_pool_mark_down(struct lb_pool *pool, int i, uint64_t now_ns) {
    back_off(pool, &pool->replicas[i], now_ns, 0);
}

void lb_pool_probing(struct lb_pool *pool, int i) {
    pool->replicas[i].state = LB_REPLICA_PROBING;
}

void lb_pool_probed(struct lb_pool *pool, int i, bool good, uint64_t now_ns, uint64_t retry_after_ns) {
    if (good) {
        pool->replicas[i].state = LB_REPLICA_TRIAL;
    } else {
        back_off(pool, &pool->replicas[i], now_ns, retry_after_ns);
    }
}
