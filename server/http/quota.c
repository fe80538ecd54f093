#include "server/http/quota.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <math.h>
#include <pthread.h>

#define MINUTE_NS (60.0 * (double)LB_SECOND_NS)

struct lb_quota {
    pthread_mutex_t lock; /* guards all below */
    unsigned references;
    int64_t per_minute, concurrent; /* 0: any number */
    int64_t running;
    double level; /* tokens in the bucket; below 0: had in advance */
    uint64_t filled_ns;
};

struct lb_quota *lb_quota_create(void) {
    struct lb_quota *q = lb_calloc(1, sizeof *q);
    if (q) {
        q->references = 1;
        pthread_mutex_init(&q->lock, NULL);
    }
    return q;
}

struct lb_quota *lb_quota_retain(struct lb_quota *q) {
    pthread_mutex_lock(&q->lock);
    q->references++;
    pthread_mutex_unlock(&q->lock);
    return q;
}

void lb_quota_release(struct lb_quota *q) {
    if (!q) {
        return;
    }
    pthread_mutex_lock(&q->lock);
    unsigned left = --q->references;
    pthread_mutex_unlock(&q->lock);
    if (left == 0) {
        pthread_mutex_destroy(&q->lock);
        lb_free(q);
    }
}

/* What has come in since it was looked at last. */
static void fill(struct lb_quota *q, uint64_t now) {
    double per_minute = (double)q->per_minute;
    double came = now > q->filled_ns ? (double)(now - q->filled_ns) * per_minute / MINUTE_NS : 0;
    q->level = fmin(q->level + came, per_minute);
    q->filled_ns = now > q->filled_ns ? now : q->filled_ns;
}

void lb_quota_limit(struct lb_quota *q, int64_t tokens_per_minute, int64_t concurrent, uint64_t now) {
    pthread_mutex_lock(&q->lock);
    if (q->per_minute > 0) {
        fill(q, now);
    } else {
        q->level = (double)tokens_per_minute;
        q->filled_ns = now;
    }
    q->per_minute = tokens_per_minute;
    q->concurrent = concurrent;
    q->level = fmin(q->level, (double)tokens_per_minute);
    pthread_mutex_unlock(&q->lock);
}

bool lb_quota_enter(struct lb_quota *q) {
    pthread_mutex_lock(&q->lock);
    bool fits = q->concurrent == 0 || q->running < q->concurrent;
    q->running += fits;
    pthread_mutex_unlock(&q->lock);
    return fits;
}

void lb_quota_leave(struct lb_quota *q) {
    pthread_mutex_lock(&q->lock);
    q->running--;
    pthread_mutex_unlock(&q->lock);
}

int64_t lb_quota_take(struct lb_quota *q, int64_t tokens, uint64_t now) {
    int64_t wait = 0;
    pthread_mutex_lock(&q->lock);
    if (q->per_minute > 0) {
        fill(q, now);
        if (q->level > 0) {
            q->level -= (double)tokens;
        } else {
            wait = 1 + (int64_t)(-q->level * 60.0 / (double)q->per_minute);
        }
    }
    pthread_mutex_unlock(&q->lock);
    return wait;
}

void lb_quota_charge(struct lb_quota *q, int64_t tokens, uint64_t now) {
    pthread_mutex_lock(&q->lock);
    if (q->per_minute > 0) {
        fill(q, now);
        q->level -= (double)tokens;
    }
    pthread_mutex_unlock(&q->lock);
}

void lb_quota_give_back(struct lb_quota *q, int64_t tokens) {
    pthread_mutex_lock(&q->lock);
    if (q->per_minute > 0) {
        q->level = fmin(q->level + (double)tokens, (double)q->per_minute);
    }
    pthread_mutex_unlock(&q->lock);
}
