#include "server/engine/batcher.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <pthread.h>
#include <time.h>

struct call {
    void (*run)(void *argument);
    void *argument;
    bool done;
    struct call *next;
};

struct lb_batcher {
    struct lb_batcher_args args;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;  /* the worker waits here */
    pthread_cond_t clock; /* the reaper waits here */
    pthread_cond_t called;
    pthread_cond_t empty;
    struct lb_job *first, *last; /* by rank, then arrival */
    size_t n_jobs;
    int64_t waiting_tokens, running_tokens;
    struct call *calls;
    bool closed, aborted, worker_left;
};

struct lb_batcher *lb_batcher_create(const struct lb_batcher_args *args) {
    struct lb_batcher *b = lb_calloc(1, sizeof *b);
    if (!b) {
        return NULL;
    }
    b->args = *args;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->work, &monotonic);
    pthread_cond_init(&b->clock, &monotonic);
    pthread_cond_init(&b->called, &monotonic);
    pthread_cond_init(&b->empty, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return b;
}

void lb_batcher_destroy(struct lb_batcher *b) {
    if (!b) {
        return;
    }
    pthread_cond_destroy(&b->empty);
    pthread_cond_destroy(&b->called);
    pthread_cond_destroy(&b->clock);
    pthread_cond_destroy(&b->work);
    pthread_mutex_destroy(&b->lock);
    lb_free(b);
}

/* until_ns 0: without end. */
static void wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until_ns) {
    if (until_ns == 0) {
        pthread_cond_wait(cond, lock);
        return;
    }
    struct timespec until = {.tv_sec = (time_t)(until_ns / LB_SECOND_NS),
                             .tv_nsec = (long)(until_ns % LB_SECOND_NS)};
    pthread_cond_timedwait(cond, lock, &until);
}

/* ---- the list, under the lock ---- */

static void insert(struct lb_batcher *b, struct lb_job *job) {
    struct lb_job *after = b->last;
    while (after && after->rank > job->rank) {
        after = after->previous;
    }
    job->previous = after;
    job->next = after ? after->next : b->first;
    *(after ? &after->next : &b->first) = job;
    *(job->next ? &job->next->previous : &b->last) = job;
    b->n_jobs++;
}

static int64_t tokens_left(const struct lb_job *job) {
    return job->n_tokens - job->offsets[job->next_seq];
}

/* Takes the job out and puts it on the list of ended ones, whose done is called without the lock. */
static void end_job(struct lb_batcher *b, struct lb_job *job, struct lb_job **ended) {
    *(job->previous ? &job->previous->next : &b->first) = job->next;
    *(job->next ? &job->next->previous : &b->last) = job->previous;
    b->n_jobs--;
    b->waiting_tokens -= tokens_left(job);
    job->finished_ns = lb_now_ns();
    job->previous = NULL;
    job->next = *ended;
    *ended = job;
    if (b->n_jobs == 0) {
        pthread_cond_broadcast(&b->clock); /* a reaper that waits for the end */
        pthread_cond_broadcast(&b->empty);
    }
}

static void call_done(struct lb_job *ended) {
    while (ended) {
        struct lb_job *job = ended;
        ended = job->next;
        job->next = NULL;
        job->done(job); /* it may be gone after this */
    }
}

static void fail_job(struct lb_job *job, enum lb_status status, const char *text) {
    if (job->status == LB_OK) {
        job->status = lb_fail(&job->detail, status, "%s", text);
    }
}

static bool is_late(const struct lb_job *job, uint64_t now) {
    return job->deadline_ns != 0 && job->deadline_ns <= now;
}

static void expire(struct lb_batcher *b, uint64_t now, struct lb_job **ended) {
    struct lb_job *next;
    for (struct lb_job *job = b->first; job; job = next) {
        next = job->next;
        if (!job->running && is_late(job, now)) {
            fail_job(job, LB_E_TIMEOUT, "the request's deadline passed before its answer was computed");
            end_job(b, job, ended);
        }
    }
}

/* ---- HTTP threads ---- */

enum lb_status lb_batcher_submit(struct lb_batcher *b, struct lb_job *job, struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    pthread_mutex_lock(&b->lock);
    int64_t queued = b->waiting_tokens;
    if (b->closed) {
        status = lb_fail(detail, LB_E_UNAVAILABLE, "this daemon is shutting down; ask another one");
    } else if (b->n_jobs > 0 && queued + job->n_tokens > b->args.max_queue_tokens) {
        status = lb_fail(detail, LB_E_UNAVAILABLE, "the queue is full (%lld tokens waiting); try again later",
                         (long long)queued);
    } else {
        job->queued_ns = lb_now_ns();
        job->next_seq = job->done_seqs = 0;
        insert(b, job);
        b->waiting_tokens += job->n_tokens;
        pthread_cond_signal(&b->work);
        if (job->deadline_ns != 0) {
            pthread_cond_signal(&b->clock);
        }
    }
    pthread_mutex_unlock(&b->lock);
    return status;
}

bool lb_batcher_call(struct lb_batcher *b, void (*run)(void *argument), void *argument) {
    struct call call = {.run = run, .argument = argument};
    pthread_mutex_lock(&b->lock);
    if (!b->worker_left) {
        struct call **tail = &b->calls;
        while (*tail) {
            tail = &(*tail)->next;
        }
        *tail = &call;
        pthread_cond_signal(&b->work);
        while (!call.done && !b->worker_left) {
            pthread_cond_wait(&b->called, &b->lock);
        }
    }
    pthread_mutex_unlock(&b->lock);
    return call.done;
}

/* ---- the worker ---- */

static void run_calls(struct lb_batcher *b) {
    while (b->calls) {
        struct call *call = b->calls;
        b->calls = call->next;
        pthread_mutex_unlock(&b->lock);
        call->run(call->argument);
        pthread_mutex_lock(&b->lock);
        call->done = true;
        pthread_cond_broadcast(&b->called);
    }
}

static struct lb_job *first_waiting(const struct lb_batcher *b) {
    struct lb_job *job = b->first;
    while (job && job->next_seq == job->n_seqs) {
        job = job->next;
    }
    return job;
}

/* Whether the batch that head leads should wait for company: it isn't full, and head is young. */
static bool should_wait(const struct lb_batcher *b, const struct lb_job *head, uint64_t now,
                        uint64_t *out_until) {
    *out_until = head->queued_ns + b->args.max_wait_ns;
    if (b->closed || head->next_seq > 0 || now >= *out_until) {
        return false;
    }
    int64_t tokens = 0;
    for (const struct lb_job *job = b->first; job && tokens < b->args.max_batch_tokens; job = job->next) {
        tokens += job->model == head->model ? tokens_left(job) : 0;
    }
    return tokens < b->args.max_batch_tokens;
}

/* Adds as many of the job's sequences as the budget allows; always one when the batch is empty. */
static void add_slice(struct lb_batcher *b, struct lb_batch *batch, struct lb_job *job, uint64_t now) {
    struct lb_slice slice = {job, job->next_seq, 0};
    while (job->next_seq < job->n_seqs) {
        int64_t length = lb_job_length(job, job->next_seq);
        if (batch->n_tokens > 0 && batch->n_tokens + length > b->args.max_batch_tokens) {
            break;
        }
        batch->n_tokens += length;
        job->next_seq++;
        slice.n++;
    }
    if (slice.n > 0) {
        batch->slices[batch->n_slices++] = slice;
        batch->n_seqs += slice.n;
        job->running = true;
        job->n_batches++;
        job->started_ns = job->started_ns ? job->started_ns : now;
    }
}

static void form(struct lb_batcher *b, const struct lb_job *head, struct lb_batch *batch, uint64_t now) {
    batch->model = head->model;
    batch->n_slices = 0;
    batch->n_seqs = batch->n_tokens = 0;
    for (struct lb_job *job = b->first; job && batch->n_slices < LB_BATCH_MAX_SLICES; job = job->next) {
        if (job->model != batch->model || job->next_seq == job->n_seqs) {
            continue;
        }
        add_slice(b, batch, job, now);
        if (batch->n_tokens >= b->args.max_batch_tokens) {
            break;
        }
    }
    b->waiting_tokens -= batch->n_tokens;
    b->running_tokens = batch->n_tokens;
}

enum lb_status lb_batcher_next(struct lb_batcher *b, struct lb_batch *out) {
    enum lb_status status = LB_OK;
    pthread_mutex_lock(&b->lock);
    for (;;) {
        run_calls(b);
        uint64_t now = lb_now_ns(), until = 0;
        struct lb_job *ended = NULL;
        expire(b, now, &ended);
        if (ended) {
            pthread_mutex_unlock(&b->lock);
            call_done(ended);
            pthread_mutex_lock(&b->lock);
            continue;
        }
        struct lb_job *head = first_waiting(b);
        if (head && !should_wait(b, head, now, &until)) {
            form(b, head, out, now);
            break;
        }
        if (!head && b->closed) {
            b->worker_left = true;
            pthread_cond_broadcast(&b->called);
            status = LB_E_CANCELLED;
            break;
        }
        wait_until(&b->work, &b->lock, until);
    }
    pthread_mutex_unlock(&b->lock);
    return status;
}

void lb_batcher_finish(struct lb_batcher *b, const struct lb_batch *batch, enum lb_status status,
                       const struct lb_detail *detail, uint64_t compute_ns) {
    struct lb_job *ended = NULL;
    pthread_mutex_lock(&b->lock);
    uint64_t now = lb_now_ns();
    b->running_tokens = 0;
    for (size_t i = 0; i < batch->n_slices; i++) {
        struct lb_job *job = batch->slices[i].job;
        job->running = false;
        job->done_seqs += batch->slices[i].n;
        job->compute_ns += compute_ns;
        if (status != LB_OK) {
            fail_job(job, status, detail && detail->text[0] ? detail->text : lb_status_name(status));
        }
        bool complete = job->done_seqs == job->n_seqs;
        if (!complete && is_late(job, now)) {
            fail_job(job, LB_E_TIMEOUT, "the request's deadline passed before its answer was complete");
        }
        if (!complete && b->aborted) {
            fail_job(job, LB_E_UNAVAILABLE, "this daemon is shutting down; ask another one");
        }
        if (complete || job->status != LB_OK) {
            end_job(b, job, &ended);
        }
    }
    pthread_cond_signal(&b->clock);
    pthread_mutex_unlock(&b->lock);
    call_done(ended);
}

/* ---- the reaper and the end ---- */

static uint64_t earliest_deadline(const struct lb_batcher *b) {
    uint64_t earliest = 0;
    for (const struct lb_job *job = b->first; job; job = job->next) {
        if (!job->running && job->deadline_ns != 0 && (earliest == 0 || job->deadline_ns < earliest)) {
            earliest = job->deadline_ns;
        }
    }
    return earliest;
}

void lb_batcher_reap(struct lb_batcher *b) {
    pthread_mutex_lock(&b->lock);
    while (!b->closed || b->n_jobs > 0) {
        struct lb_job *ended = NULL;
        expire(b, lb_now_ns(), &ended);
        if (ended) {
            pthread_mutex_unlock(&b->lock);
            call_done(ended);
            pthread_mutex_lock(&b->lock);
            continue;
        }
        wait_until(&b->clock, &b->lock, earliest_deadline(b));
    }
    pthread_mutex_unlock(&b->lock);
}

static void close_locked(struct lb_batcher *b) {
    b->closed = true;
    pthread_cond_broadcast(&b->work);
    pthread_cond_broadcast(&b->clock);
}

void lb_batcher_close(struct lb_batcher *b) {
    pthread_mutex_lock(&b->lock);
    close_locked(b);
    pthread_mutex_unlock(&b->lock);
}

void lb_batcher_abort(struct lb_batcher *b) {
    struct lb_job *ended = NULL, *next;
    pthread_mutex_lock(&b->lock);
    b->aborted = true;
    close_locked(b);
    for (struct lb_job *job = b->first; job; job = next) {
        next = job->next;
        if (!job->running) {
            fail_job(job, LB_E_UNAVAILABLE, "this daemon is shutting down; ask another one");
            end_job(b, job, &ended);
        }
    }
    pthread_mutex_unlock(&b->lock);
    call_done(ended);
}

bool lb_batcher_wait_empty(struct lb_batcher *b, uint64_t deadline_ns) {
    pthread_mutex_lock(&b->lock);
    while (b->n_jobs > 0 && lb_now_ns() < deadline_ns) {
        wait_until(&b->empty, &b->lock, deadline_ns);
    }
    bool empty = b->n_jobs == 0;
    pthread_mutex_unlock(&b->lock);
    return empty;
}

struct lb_batcher_state lb_batcher_state(struct lb_batcher *b) {
    pthread_mutex_lock(&b->lock);
    struct lb_batcher_state state = {b->waiting_tokens, b->running_tokens, b->n_jobs};
    pthread_mutex_unlock(&b->lock);
    return state;
}
