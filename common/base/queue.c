#include "common/base/queue.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <time.h>

struct lb_queue {
    pthread_mutex_t lock;
    pthread_cond_t not_empty, not_full;
    void **items; /* ring of capacity */
    size_t capacity, first, count;
    bool closed;
};

/* A condition whose deadlines are on the monotonic clock. */
static bool init_cond(pthread_cond_t *cond) {
    pthread_condattr_t attr;
    if (pthread_condattr_init(&attr) != 0) {
        return false;
    }
    bool ok = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0 && pthread_cond_init(cond, &attr) == 0;
    pthread_condattr_destroy(&attr);
    return ok;
}

struct lb_queue *lb_queue_create(size_t capacity) {
    struct lb_queue *queue = lb_calloc(1, sizeof *queue);
    if (queue == NULL) {
        return NULL;
    }
    queue->capacity = capacity > 0 ? capacity : 1;
    queue->items = lb_calloc(queue->capacity, sizeof *queue->items);
    if (queue->items == NULL) {
        goto fail;
    }
    if (pthread_mutex_init(&queue->lock, NULL) != 0) {
        goto fail;
    }
    if (!init_cond(&queue->not_empty)) {
        goto fail_lock;
    }
    if (!init_cond(&queue->not_full)) {
        goto fail_cond;
    }
    return queue;
fail_cond:
    pthread_cond_destroy(&queue->not_empty);
fail_lock:
    pthread_mutex_destroy(&queue->lock);
fail:
    lb_free(queue->items);
    lb_free(queue);
    return NULL;
}

void lb_queue_destroy(struct lb_queue *queue) {
    if (queue == NULL) {
        return;
    }
    pthread_cond_destroy(&queue->not_full);
    pthread_cond_destroy(&queue->not_empty);
    pthread_mutex_destroy(&queue->lock);
    lb_free(queue->items);
    lb_free(queue);
}

/* Waits with the lock held; false once the deadline has passed. */
static bool wait_until(struct lb_queue *queue, pthread_cond_t *cond, uint64_t deadline_ns) {
    if (deadline_ns == 0) {
        return false;
    }
    struct timespec t = {.tv_sec = (time_t)(deadline_ns / LB_SECOND_NS),
                         .tv_nsec = (long)(deadline_ns % LB_SECOND_NS)};
    return pthread_cond_timedwait(cond, &queue->lock, &t) != ETIMEDOUT;
}

enum lb_status lb_queue_push(struct lb_queue *queue, void *item, uint64_t deadline_ns) {
    pthread_mutex_lock(&queue->lock);
    bool in_time = true;
    while (!queue->closed && queue->count == queue->capacity && in_time) {
        in_time = wait_until(queue, &queue->not_full, deadline_ns);
    }
    enum lb_status status = LB_OK;
    if (queue->closed) {
        status = LB_E_CANCELLED;
    } else if (queue->count == queue->capacity) {
        status = LB_E_TIMEOUT;
    } else {
        size_t place = queue->first + queue->count;
        queue->items[place >= queue->capacity ? place - queue->capacity : place] = item;
        queue->count++;
        pthread_cond_signal(&queue->not_empty);
    }
    pthread_mutex_unlock(&queue->lock);
    return status;
}

enum lb_status lb_queue_pop(struct lb_queue *queue, void **out_item, uint64_t deadline_ns) {
    pthread_mutex_lock(&queue->lock);
    bool in_time = true;
    while (!queue->closed && queue->count == 0 && in_time) {
        in_time = wait_until(queue, &queue->not_empty, deadline_ns);
    }
    enum lb_status status = LB_OK;
    if (queue->count > 0) {
        *out_item = queue->items[queue->first];
        queue->first = queue->first + 1 == queue->capacity ? 0 : queue->first + 1;
        queue->count--;
        pthread_cond_signal(&queue->not_full);
    } else {
        status = queue->closed ? LB_E_CANCELLED : LB_E_TIMEOUT;
    }
    pthread_mutex_unlock(&queue->lock);
    return status;
}

void lb_queue_close(struct lb_queue *queue) {
    pthread_mutex_lock(&queue->lock);
    queue->closed = true;
    pthread_cond_broadcast(&queue->not_empty);
    pthread_cond_broadcast(&queue->not_full);
    pthread_mutex_unlock(&queue->lock);
}

size_t lb_queue_length(struct lb_queue *queue) {
    pthread_mutex_lock(&queue->lock);
    size_t count = queue->count;
    pthread_mutex_unlock(&queue->lock);
    return count;
}
