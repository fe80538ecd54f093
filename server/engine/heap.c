#include "server/engine/heap.h"

#include "common/base/mem.h"

static bool before(enum lb_heap_kind kind, const struct lb_job *a, const struct lb_job *b) {
    if (kind == LB_BY_DEADLINE) {
        return a->deadline_ns < b->deadline_ns;
    }
    if (a->rank != b->rank) {
        return a->rank < b->rank;
    }
    return a->turn_ns != b->turn_ns ? a->turn_ns < b->turn_ns : a->number < b->number;
}

/* place[kind] is the index + 1, so that a zeroed job is nowhere. */
static void set(struct lb_heap *heap, size_t i, struct lb_job *job) {
    heap->jobs[i] = job;
    job->place[heap->kind] = i + 1;
}

static void rise(struct lb_heap *heap, size_t i) {
    struct lb_job *job = heap->jobs[i];
    while (i > 0 && before(heap->kind, job, heap->jobs[(i - 1) / 2])) {
        set(heap, i, heap->jobs[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    set(heap, i, job);
}

static void sink(struct lb_heap *heap, size_t i) {
    struct lb_job *job = heap->jobs[i];
    for (size_t child = 2 * i + 1; child < heap->n; child = 2 * i + 1) {
        if (child + 1 < heap->n && before(heap->kind, heap->jobs[child + 1], heap->jobs[child])) {
            child++;
        }
        if (!before(heap->kind, heap->jobs[child], job)) {
            break;
        }
        set(heap, i, heap->jobs[child]);
        i = child;
    }
    set(heap, i, job);
}

enum lb_status lb_heap_reserve(struct lb_heap *heap) {
    if (heap->n < heap->cap) {
        return LB_OK;
    }
    size_t cap = heap->cap ? heap->cap * 2 : 16;
    struct lb_job **grown = lb_realloc_array(heap->jobs, cap, sizeof(struct lb_job *));
    if (!grown) {
        return LB_E_NOMEM;
    }
    heap->jobs = grown;
    heap->cap = cap;
    return LB_OK;
}

void lb_heap_put(struct lb_heap *heap, struct lb_job *job) {
    set(heap, heap->n++, job);
    rise(heap, heap->n - 1);
}

void lb_heap_remove(struct lb_heap *heap, struct lb_job *job) {
    size_t i = job->place[heap->kind];
    if (i == 0) {
        return;
    }
    i--;
    job->place[heap->kind] = 0;
    struct lb_job *last = heap->jobs[--heap->n];
    if (last != job) {
        set(heap, i, last);
        rise(heap, i);
        sink(heap, last->place[heap->kind] - 1);
    }
}

struct lb_job *lb_heap_top(const struct lb_heap *heap) {
    return heap->n > 0 ? heap->jobs[0] : NULL;
}

void lb_heap_finish(struct lb_heap *heap) {
    lb_free(heap->jobs);
    heap->jobs = NULL;
    heap->n = heap->cap = 0;
}
