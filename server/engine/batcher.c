#include "server/engine/batcher.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "server/engine/heap.h"
#include "server/engine/known.h"
#include "server/engine/turns.h"

#include <pthread.h>
#include <time.h>

/* For every 256 tokens a job counts as if it had come this much later. */
#define AGE_TOKENS 256
#define AGE_NS (25 * LB_MS_NS)
#define IDLE_NS LB_SECOND_NS

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
    struct lb_job *jobs; /* all of them */
    struct lb_turns turns;
    struct lb_heap deadlines;   /* of jobs that the engine doesn't hold */
    size_t n_jobs, n_deadlines; /* n_deadlines: jobs that have one */
    uint64_t n_submitted, n_formed;
    int64_t running_tokens;
    size_t running_jobs;
    struct call *calls;
    void (*idle)(void *context);
    void *idle_context;
    bool closed, aborted, worker_left;
};

struct lb_batcher *lb_batcher_create(const struct lb_batcher_args *args) {
    struct lb_batcher *b = lb_calloc(1, sizeof *b);
    if (!b) {
        return NULL;
    }
    b->args = *args;
    b->deadlines.kind = LB_BY_DEADLINE;
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
    lb_heap_finish(&b->deadlines);
    pthread_cond_destroy(&b->empty);
    pthread_cond_destroy(&b->called);
    pthread_cond_destroy(&b->clock);
    pthread_cond_destroy(&b->work);
    pthread_mutex_destroy(&b->lock);
    lb_free(b);
}

void lb_batcher_on_idle(struct lb_batcher *b, void (*idle)(void *context), void *context) {
    pthread_mutex_lock(&b->lock);
    b->idle = idle;
    b->idle_context = context;
    pthread_mutex_unlock(&b->lock);
}

void lb_batcher_limit(struct lb_batcher *b, size_t max_batch_bytes) {
    pthread_mutex_lock(&b->lock);
    b->args.max_batch_bytes = max_batch_bytes;
    pthread_mutex_unlock(&b->lock);
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

/* ---- jobs, under the lock ---- */

static int64_t tokens_left(const struct lb_job *job) {
    return job->n_tokens - job->offsets[job->next_seq];
}

/* Takes the job out and puts it on the list of ended ones, whose done is called without the lock. */
static void end_job(struct lb_batcher *b, struct lb_job *job, struct lb_job **ended) {
    if (job->queue) {
        lb_turns_wait(&b->turns, job->queue, -tokens_left(job));
    }
    lb_turns_leave(&b->turns, job);
    lb_heap_remove(&b->deadlines, job);
    b->n_deadlines -= job->deadline_ns != 0;
    *(job->previous ? &job->previous->next : &b->jobs) = job->next;
    if (job->next) {
        job->next->previous = job->previous;
    }
    b->n_jobs--;
    job->finished_ns = lb_now_ns();
    job->queued = false;
    job->previous = NULL;
    job->next = *ended;
    *ended = job;
    if (b->n_jobs == 0) {
        pthread_cond_broadcast(&b->clock); /* a reaper that waits for the end */
        pthread_cond_broadcast(&b->empty);
    }
}

static void call_done(struct lb_batcher *b, struct lb_job *ended) {
    while (ended) {
        struct lb_job *job = ended;
        ended = job->next;
        job->next = NULL;
        lb_known_leave(b->args.known, job, 0, job->n_seqs);
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

/* Jobs in the engine's hands are not among the deadlines: they end after their batch. */
static void expire(struct lb_batcher *b, uint64_t now, struct lb_job **ended) {
    struct lb_job *job;
    while ((job = lb_heap_top(&b->deadlines)) != NULL && is_late(job, now)) {
        fail_job(job, LB_E_TIMEOUT, "the request's deadline passed before its answer was computed");
        end_job(b, job, ended);
    }
}

/* The reaper sleeps until the first deadline: it must hear of an earlier one. There is room (n_deadlines). */
static void watch_deadline(struct lb_batcher *b, struct lb_job *job) {
    if (job->deadline_ns != 0) {
        lb_heap_put(&b->deadlines, job);
        if (lb_heap_top(&b->deadlines) == job) {
            pthread_cond_signal(&b->clock);
        }
    }
}

/* Room for the deadlines of all jobs there are, so that those that come back from the engine find theirs. */
static bool reserve_deadline(struct lb_batcher *b, const struct lb_job *job) {
    struct lb_heap all = b->deadlines;
    all.n = b->n_deadlines;
    bool ok = job->deadline_ns == 0 || lb_heap_reserve(&all) == LB_OK;
    b->deadlines.jobs = all.jobs;
    b->deadlines.cap = all.cap;
    return ok;
}

/* ---- those who ask ---- */

static enum lb_status submit_locked(struct lb_batcher *b, struct lb_job *job, struct lb_detail *detail) {
    if (b->closed) {
        return lb_fail(detail, LB_E_UNAVAILABLE, "this daemon is shutting down; ask another one");
    }
    if (job->cancelled) {
        return lb_fail(detail, LB_E_CANCELLED, "the client has left");
    }
    const struct lb_room room = {b->args.max_queue_tokens, b->args.max_queue_jobs};
    enum lb_status status = lb_turns_room(&b->turns, job, b->n_jobs, &room, detail);
    if (status != LB_OK) {
        return status;
    }
    struct lb_queue *q = reserve_deadline(b, job) ? lb_turns_queue(&b->turns, job) : NULL;
    if (!q) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory; try again");
    }
    job->queued_ns = lb_now_ns();
    job->turn_ns = job->queued_ns + (uint64_t)(job->n_tokens / AGE_TOKENS) * AGE_NS;
    job->number = b->n_submitted++;
    job->next_seq = job->done_seqs = job->out_seqs = 0;
    job->queued = true;
    job->queue = q;
    lb_heap_put(&q->jobs, job);
    job->previous = NULL;
    job->next = b->jobs;
    if (b->jobs) {
        b->jobs->previous = job;
    }
    b->jobs = job;
    b->n_jobs++;
    b->n_deadlines += job->deadline_ns != 0;
    lb_turns_wait(&b->turns, q, job->n_tokens);
    watch_deadline(b, job);
    pthread_cond_signal(&b->work);
    return LB_OK;
}

enum lb_status lb_batcher_submit(struct lb_batcher *b, struct lb_job *job, struct lb_detail *detail) {
    lb_known_join(b->args.known, job);
    pthread_mutex_lock(&b->lock);
    enum lb_status status = submit_locked(b, job, detail);
    pthread_mutex_unlock(&b->lock);
    if (status != LB_OK) {
        lb_known_leave(b->args.known, job, 0, job->n_seqs);
    }
    return status;
}

void lb_batcher_cancel(struct lb_batcher *b, struct lb_job *job) {
    struct lb_job *ended = NULL;
    pthread_mutex_lock(&b->lock);
    job->cancelled = true;
    if (job->queued && job->out_seqs == 0) {
        fail_job(job, LB_E_CANCELLED, "the client has left");
        end_job(b, job, &ended);
    }
    pthread_mutex_unlock(&b->lock);
    call_done(b, ended);
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

/* Those that are there now: a chain of calls lets jobs in between. */
static void run_calls(struct lb_batcher *b) {
    struct call *calls = b->calls;
    b->calls = NULL;
    while (calls) {
        struct call *call = calls;
        calls = call->next;
        pthread_mutex_unlock(&b->lock);
        call->run(call->argument);
        pthread_mutex_lock(&b->lock);
        call->done = true;
        pthread_cond_broadcast(&b->called);
    }
}

/* Whether the batch that head leads should wait for company: it isn't full, and head is young. */
static bool should_wait(const struct lb_batcher *b, const struct lb_job *head, uint64_t now,
                        uint64_t *out_until) {
    *out_until = head->queued_ns + b->args.max_wait_ns;
    return !b->closed && head->next_seq == 0 && now < *out_until &&
           head->queue->line->waiting_tokens < b->args.max_batch_tokens;
}

static bool has_part(const struct lb_batch *batch, const struct lb_part *part) {
    for (size_t i = 0; i < batch->n_parts; i++) {
        if (batch->parts[i].source == part->source && batch->parts[i].layer == part->layer) {
            return true;
        }
    }
    return false;
}

/* What a job's next sequence adds to a batch. */
struct addition {
    int64_t length, cost;
    size_t tape_bytes;    /* with new parts, which all rows of the forward then have */
    size_t n_parts;       /* new ones */
    bool known, computed; /* neither: an equal one of the batch is computed */
};

static struct addition addition_of(const struct lb_batcher *b, const struct lb_batch *batch,
                                   const struct lb_job *job) {
    int64_t seq = job->next_seq, length = lb_job_length(job, seq);
    struct addition a = {.length = length, .known = lb_known_has(b->args.known, job, seq, NULL)};
    bool twin = job->seen && job->seen[seq] && job->seen[seq]->formed == b->n_formed;
    size_t new_bytes = 0;
    a.computed = !a.known && !twin;
    for (size_t i = 0; i < job->n_parts && !a.known; i++) {
        bool new_one = !has_part(batch, &job->parts[i]);
        a.n_parts += new_one;
        new_bytes += new_one ? (size_t)job->parts[i].width * sizeof(float) : 0;
    }
    a.tape_bytes = (size_t)batch->computed_tokens * new_bytes;
    if (a.computed) {
        a.cost = length;
        a.tape_bytes += lb_job_tape(job, seq) + (size_t)length * (batch->parts_row_bytes + new_bytes);
    } else {
        a.cost = 1 + (int64_t)((double)(length - job->start[seq]) * job->known_cost);
        a.tape_bytes += (size_t)length * job->known_row_bytes;
    }
    return a;
}

/* Whether the sequence goes into the batch; the first one always does. */
static bool fits(const struct lb_batcher *b, const struct lb_batch *batch, const struct lb_job *job,
                 const struct addition *a) {
    if (batch->n_seqs == 0) {
        return true;
    }
    return batch->cost + a->cost <= b->args.max_batch_tokens &&
           (b->args.max_batch_bytes == 0 || batch->tape_bytes + a->tape_bytes <= b->args.max_batch_bytes) &&
           batch->n_parts + a->n_parts <= LB_BATCH_MAX_PARTS &&
           (job->slice > 0 || batch->n_slices < LB_BATCH_MAX_SLICES);
}

static void add_part(struct lb_batch *batch, const struct lb_part *part) {
    if (!has_part(batch, part)) {
        batch->parts[batch->n_parts++] = *part;
        batch->parts_row_bytes += (size_t)part->width * sizeof(float);
    }
}

/* The sequence goes through the model: others who wait for it may want more of it than this job, which is
 * kept where there is memory. */
static void add_wanted(struct lb_batcher *b, struct lb_batch *batch, const struct lb_job *job) {
    struct lb_part parts[LB_BATCH_MAX_PARTS];
    size_t n = lb_known_wanted(b->args.known, job, job->next_seq, parts, LB_BATCH_MAX_PARTS);
    for (size_t i = 0; i < n && batch->n_parts < LB_BATCH_MAX_PARTS; i++) {
        size_t bytes = (size_t)batch->computed_tokens * (size_t)parts[i].width * sizeof(float);
        if (!has_part(batch, &parts[i]) &&
            (b->args.max_batch_bytes == 0 || batch->tape_bytes + bytes <= b->args.max_batch_bytes)) {
            add_part(batch, &parts[i]);
            batch->tape_bytes += bytes;
        }
    }
}

/* Adds the job's next sequence. */
static void add_sequence(struct lb_batcher *b, struct lb_batch *batch, struct lb_job *job,
                         const struct addition *a, uint64_t now) {
    if (job->slice == 0) {
        batch->slices[batch->n_slices++] = (struct lb_slice){job, job->next_seq, 0};
        job->slice = batch->n_slices;
        job->n_batches++;
        job->started_ns = job->started_ns ? job->started_ns : now;
        lb_heap_remove(&b->deadlines, job);
    }
    struct lb_queue *q = job->queue;
    batch->slices[job->slice - 1].n++;
    batch->tape_bytes += a->tape_bytes;
    batch->n_tokens += a->length;
    batch->cost += a->cost;
    batch->n_seqs++;
    for (size_t i = 0; i < job->n_parts && !a->known; i++) {
        add_part(batch, &job->parts[i]);
    }
    if (a->computed) {
        batch->computed_tokens += a->length;
        add_wanted(b, batch, job);
        if (job->seen && job->seen[job->next_seq]) {
            job->seen[job->next_seq]->formed = b->n_formed;
        }
    }
    job->out_seqs++;
    job->next_seq++;
    lb_turns_serve(q, a->cost);
    lb_turns_wait(&b->turns, q, -a->length);
    if (job->next_seq == job->n_seqs) {
        lb_turns_leave(&b->turns, job);
    }
}

static void form(struct lb_batcher *b, struct lb_queue *lead, struct lb_batch *batch, uint64_t now) {
    batch->model = lead->line->model;
    batch->n_slices = batch->n_parts = batch->parts_row_bytes = 0;
    batch->n_seqs = batch->n_tokens = batch->cost = batch->computed_tokens = 0;
    batch->tape_bytes = lb_heap_top(&lead->jobs)->base_bytes;
    b->n_formed++;
    struct lb_hosted *model = lead->line->model;
    uint64_t taps = lead->line->taps;
    struct lb_queue *q = lead;
    while (q) {
        struct lb_job *job = lb_heap_top(&q->jobs);
        struct addition a = addition_of(b, batch, job);
        if (!fits(b, batch, job, &a)) {
            break;
        }
        add_sequence(b, batch, job, &a, now);
        /* The line may be gone with its last job. */
        const struct lb_line *line = lb_turns_line(&b->turns, model, taps);
        q = line ? lb_turns_first(&b->turns, line) : NULL;
    }
    for (size_t i = 0; i < batch->n_slices; i++) {
        batch->slices[i].job->slice = 0;
    }
    b->running_tokens = batch->n_tokens;
    b->running_jobs = batch->n_slices;
}

/* Waits for work; gives idle its turn first when nothing has come for a while. */
static void rest(struct lb_batcher *b, uint64_t until, bool *rested) {
    if (until != 0 || *rested || !b->idle) {
        wait_until(&b->work, &b->lock, until);
        return;
    }
    uint64_t end = lb_now_ns() + IDLE_NS;
    wait_until(&b->work, &b->lock, end);
    if (lb_now_ns() >= end && b->n_jobs == 0 && !b->calls) {
        *rested = true;
        pthread_mutex_unlock(&b->lock);
        b->idle(b->idle_context);
        pthread_mutex_lock(&b->lock);
    }
}

enum lb_status lb_batcher_next(struct lb_batcher *b, struct lb_batch *out) {
    enum lb_status status = LB_OK;
    bool rested = false;
    pthread_mutex_lock(&b->lock);
    for (;;) {
        run_calls(b);
        uint64_t now = lb_now_ns(), until = 0;
        struct lb_job *ended = NULL;
        expire(b, now, &ended);
        if (ended) {
            pthread_mutex_unlock(&b->lock);
            call_done(b, ended);
            pthread_mutex_lock(&b->lock);
            continue;
        }
        struct lb_queue *lead = lb_turns_first(&b->turns, NULL);
        if (lead && !should_wait(b, lb_heap_top(&lead->jobs), now, &until)) {
            form(b, lead, out, now);
            break;
        }
        if (!lead && b->aborted && !b->calls) {
            b->worker_left = true;
            pthread_cond_broadcast(&b->called);
            status = LB_E_CANCELLED;
            break;
        }
        if (!b->calls) {
            rest(b, until, &rested);
        }
    }
    pthread_mutex_unlock(&b->lock);
    return status;
}

/* A job of which sequences came back from the engine. */
static void settle(struct lb_batcher *b, struct lb_job *job, uint64_t now, struct lb_job **ended) {
    bool complete = job->done_seqs == job->n_seqs;
    if (!complete && job->cancelled) {
        fail_job(job, LB_E_CANCELLED, "the client has left");
    }
    if (!complete && is_late(job, now)) {
        fail_job(job, LB_E_TIMEOUT, "the request's deadline passed before its answer was complete");
    }
    if (!complete && b->aborted) {
        fail_job(job, LB_E_UNAVAILABLE, "this daemon is shutting down; ask another one");
    }
    if (complete || job->status != LB_OK) {
        end_job(b, job, ended);
    } else {
        watch_deadline(b, job);
    }
}

void lb_batcher_finish(struct lb_batcher *b, const struct lb_batch *batch, enum lb_status status,
                       const struct lb_detail *detail, uint64_t compute_ns) {
    struct lb_job *ended = NULL;
    for (size_t i = 0; i < batch->n_slices; i++) {
        lb_known_leave(b->args.known, batch->slices[i].job, batch->slices[i].first, batch->slices[i].n);
    }
    pthread_mutex_lock(&b->lock);
    uint64_t now = lb_now_ns();
    b->running_tokens -= batch->n_tokens;
    for (size_t i = 0; i < batch->n_slices; i++) {
        struct lb_job *job = batch->slices[i].job;
        job->out_seqs -= batch->slices[i].n;
        job->done_seqs += batch->slices[i].n;
        job->compute_ns += compute_ns;
        if (status != LB_OK) {
            fail_job(job, status, detail && detail->text[0] ? detail->text : lb_status_name(status));
        }
        if (job->out_seqs == 0) {
            settle(b, job, now, &ended);
        }
    }
    pthread_mutex_unlock(&b->lock);
    call_done(b, ended);
}

/* ---- the reaper and the end ---- */

void lb_batcher_reap(struct lb_batcher *b) {
    pthread_mutex_lock(&b->lock);
    while (!b->closed || b->n_jobs > 0) {
        struct lb_job *ended = NULL;
        expire(b, lb_now_ns(), &ended);
        if (ended) {
            pthread_mutex_unlock(&b->lock);
            call_done(b, ended);
            pthread_mutex_lock(&b->lock);
            continue;
        }
        const struct lb_job *first = lb_heap_top(&b->deadlines);
        wait_until(&b->clock, &b->lock, first ? first->deadline_ns : 0);
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
    for (struct lb_job *job = b->jobs; job; job = next) {
        next = job->next;
        if (job->out_seqs == 0) {
            fail_job(job, LB_E_UNAVAILABLE, "this daemon is shutting down; ask another one");
            end_job(b, job, &ended);
        }
    }
    pthread_mutex_unlock(&b->lock);
    call_done(b, ended);
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
    struct lb_batcher_state state = {b->turns.waiting_tokens, b->running_tokens, b->n_jobs,
                                     b->running_tokens > 0 ? b->running_jobs : 0};
    pthread_mutex_unlock(&b->lock);
    return state;
}
