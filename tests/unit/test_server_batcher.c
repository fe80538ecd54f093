/* The queue: budgets, slices, ranks, deadlines, refusals, calls, drain and abort, with a test that plays the
 * engine. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "server/engine/batcher.h"
#include "server/models/repository.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SEQS 64

/* A job without a model's numbers: only lengths matter here. */
struct fake {
    struct lb_job job;
    int32_t offsets[MAX_SEQS + 1];
    atomic_int done;
};

static struct lb_hosted model_a, model_b;

static void fake_done(struct lb_job *job) {
    atomic_fetch_add(&((struct fake *)(void *)job)->done, 1);
}

static void make(struct fake *fake, struct lb_hosted *model, int n_seqs, int length) {
    memset(fake, 0, sizeof *fake);
    for (int i = 0; i < n_seqs; i++) {
        fake->offsets[i + 1] = fake->offsets[i] + length;
    }
    fake->job.model = model;
    fake->job.n_seqs = n_seqs;
    fake->job.n_tokens = n_seqs * length;
    fake->job.offsets = fake->offsets;
    fake->job.done = fake_done;
}

static struct lb_batcher *create(int64_t batch, uint64_t wait_ns, int64_t queue) {
    struct lb_batcher *b = lb_batcher_create(&(struct lb_batcher_args){batch, wait_ns, queue});
    assert_non_null(b);
    return b;
}

static void submit(struct lb_batcher *b, struct fake *fake) {
    assert_int_equal(lb_batcher_submit(b, &fake->job, NULL), LB_OK);
}

static void next(struct lb_batcher *b, struct lb_batch *batch, int64_t seqs, int64_t tokens, size_t slices) {
    assert_int_equal(lb_batcher_next(b, batch), LB_OK);
    assert_int_equal(batch->n_seqs, seqs);
    assert_int_equal(batch->n_tokens, tokens);
    assert_int_equal(batch->n_slices, slices);
}

static void finish(struct lb_batcher *b, const struct lb_batch *batch) {
    lb_batcher_finish(b, batch, LB_OK, NULL, 1000);
}

static void end(struct lb_batcher *b) {
    struct lb_batch batch;
    lb_batcher_abort(b);
    assert_int_equal(lb_batcher_next(b, &batch), LB_E_CANCELLED);
    lb_batcher_destroy(b);
}

static void test_batches_share(void **state) {
    (void)state;
    struct lb_batcher *b = create(100, 0, 1000);
    struct lb_batch batch;
    struct fake x, y, other;
    make(&x, &model_a, 2, 10);
    make(&other, &model_b, 1, 10);
    make(&y, &model_a, 3, 10);
    submit(b, &x);
    submit(b, &other);
    submit(b, &y);
    assert_int_equal(lb_batcher_state(b).waiting_tokens, 60);
    next(b, &batch, 5, 50, 2); /* one model's only */
    assert_ptr_equal(batch.model, &model_a);
    assert_ptr_equal(batch.slices[0].job, &x.job);
    assert_ptr_equal(batch.slices[1].job, &y.job);
    assert_int_equal(lb_batcher_state(b).waiting_tokens, 10);
    assert_int_equal(lb_batcher_state(b).running_tokens, 50);
    assert_int_equal(x.done, 0);
    finish(b, &batch);
    assert_int_equal(x.done, 1);
    assert_int_equal(y.done, 1);
    assert_int_equal(x.job.status, LB_OK);
    assert_true(x.job.started_ns >= x.job.queued_ns && x.job.finished_ns >= x.job.started_ns);
    next(b, &batch, 1, 10, 1);
    assert_ptr_equal(batch.model, &model_b);
    finish(b, &batch);
    assert_int_equal(lb_batcher_state(b).jobs, 0);
    end(b);
}

static void test_large_jobs_are_sliced(void **state) {
    (void)state;
    struct lb_batcher *b = create(25, 0, 10);
    struct lb_batch batch;
    struct fake large, small, giant;
    make(&large, &model_a, 5, 10); /* larger than the whole queue: taken, as the queue is empty */
    submit(b, &large);
    next(b, &batch, 2, 20, 1);
    make(&small, &model_a, 1, 5);
    assert_int_equal(lb_batcher_submit(b, &small.job, NULL), LB_E_UNAVAILABLE); /* 30 of 10 tokens wait */
    finish(b, &batch);
    assert_int_equal(large.done, 0);
    next(b, &batch, 2, 20, 1);
    assert_int_equal(batch.slices[0].first, 2);
    finish(b, &batch);
    next(b, &batch, 1, 10, 1);
    finish(b, &batch);
    assert_int_equal(large.done, 1);
    assert_int_equal(large.job.n_batches, 3);
    assert_int_equal(large.job.compute_ns, 3000);
    make(&giant, &model_a, 2, 60); /* each sequence above the budget: batches of their own */
    submit(b, &giant);
    next(b, &batch, 1, 60, 1);
    finish(b, &batch);
    next(b, &batch, 1, 60, 1);
    finish(b, &batch);
    assert_int_equal(giant.done, 1);
    end(b);
}

static void test_the_rest_of_a_batch_is_filled(void **state) {
    (void)state;
    struct lb_batcher *b = create(30, 0, 1000);
    struct lb_batch batch;
    struct fake x, y;
    make(&x, &model_a, 2, 10);
    make(&y, &model_a, 4, 10);
    submit(b, &x);
    submit(b, &y);
    next(b, &batch, 3, 30, 2); /* both of x, the first of y */
    finish(b, &batch);
    assert_int_equal(x.done, 1);
    assert_int_equal(y.done, 0);
    next(b, &batch, 3, 30, 1);
    assert_int_equal(batch.slices[0].first, 1);
    finish(b, &batch);
    assert_int_equal(y.done, 1);
    end(b);
}

/* Within a client's jobs, whatever they ask. */
static void test_ranks(void **state) {
    (void)state;
    struct lb_batcher *b = create(10, 0, 1000);
    struct lb_batch batch;
    struct fake jobs[4];
    const int ranks[] = {5, 5, 1, 9}, order[] = {2, 1, 0, 3}; /* the other model's first */
    for (int i = 0; i < 4; i++) {
        make(&jobs[i], i % 2 ? &model_b : &model_a, 1, 10);
        jobs[i].job.rank = ranks[i];
        submit(b, &jobs[i]);
    }
    for (int i = 0; i < 4; i++) {
        next(b, &batch, 1, 10, 1);
        assert_ptr_equal(batch.slices[0].job, &jobs[order[i]].job);
        finish(b, &batch);
    }
    end(b);
}

static void test_waits_for_company(void **state) {
    (void)state;
    const uint64_t wait = 30 * LB_MS_NS;
    struct lb_batcher *b = create(20, wait, 1000);
    struct lb_batch batch;
    struct fake x, y, z;
    make(&x, &model_a, 1, 10);
    submit(b, &x);
    next(b, &batch, 1, 10, 1);
    assert_true(lb_now_ns() - x.job.queued_ns >= wait); /* nobody came */
    finish(b, &batch);
    make(&y, &model_a, 1, 10);
    make(&z, &model_a, 1, 10);
    submit(b, &y);
    submit(b, &z); /* now it is full: no wait */
    next(b, &batch, 2, 20, 2);
    assert_true(y.job.started_ns - y.job.queued_ns < wait);
    finish(b, &batch);
    end(b);
}

/* What waits for another model doesn't fill the batch: the head goes on waiting for its own model's jobs. */
static void test_other_models_are_no_company(void **state) {
    (void)state;
    const uint64_t wait = 30 * LB_MS_NS;
    struct lb_batcher *b = create(20, wait, 1000);
    struct lb_batch batch;
    struct fake x, other;
    make(&x, &model_a, 1, 10);
    make(&other, &model_b, 2, 10);
    submit(b, &x);
    submit(b, &other);
    next(b, &batch, 1, 10, 1);
    assert_ptr_equal(batch.model, &model_a);
    assert_true(x.job.started_ns - x.job.queued_ns >= wait);
    finish(b, &batch);
    next(b, &batch, 2, 20, 1);
    finish(b, &batch);
    end(b);
}

static void test_deadlines(void **state) {
    (void)state;
    struct lb_batcher *b = create(10, 0, 1000);
    struct lb_batch batch;
    struct fake late, good, sliced;
    make(&late, &model_a, 1, 10);
    make(&good, &model_a, 1, 10);
    make(&sliced, &model_a, 2, 10);
    late.job.deadline_ns = lb_now_ns();
    submit(b, &late);
    submit(b, &good);
    next(b, &batch, 1, 10, 1);
    assert_ptr_equal(batch.slices[0].job, &good.job);
    assert_int_equal(late.done, 1);
    assert_int_equal(late.job.status, LB_E_TIMEOUT);
    finish(b, &batch);
    /* Passed between two slices. */
    sliced.job.deadline_ns = lb_now_ns() + 20 * LB_MS_NS;
    submit(b, &sliced);
    next(b, &batch, 1, 10, 1);
    while (lb_now_ns() <= sliced.job.deadline_ns) {
    }
    assert_int_equal(sliced.done, 0); /* not while it is in the engine's hands */
    finish(b, &batch);
    assert_int_equal(sliced.done, 1);
    assert_int_equal(sliced.job.status, LB_E_TIMEOUT);
    assert_int_equal(lb_batcher_state(b).waiting_tokens, 0);
    end(b);
}

static void *reap(void *argument) {
    lb_batcher_reap(argument);
    return NULL;
}

static void test_reaper_needs_no_worker(void **state) {
    (void)state;
    struct lb_batcher *b = create(10, 0, 1000);
    pthread_t thread;
    struct fake late, patient;
    assert_int_equal(pthread_create(&thread, NULL, reap, b), 0);
    make(&patient, &model_a, 1, 10);
    make(&late, &model_a, 1, 10);
    late.job.deadline_ns = lb_now_ns() + 5 * LB_MS_NS;
    submit(b, &patient);
    submit(b, &late);
    uint64_t until = lb_now_ns() + 10 * LB_SECOND_NS;
    while (late.done == 0 && lb_now_ns() < until) {
    }
    assert_int_equal(late.done, 1);
    assert_int_equal(late.job.status, LB_E_TIMEOUT);
    assert_int_equal(patient.done, 0);
    lb_batcher_abort(b);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(patient.done, 1);
    assert_int_equal(patient.job.status, LB_E_UNAVAILABLE);
    end(b);
}

/* A job whose batch is being computed is the engine's, late or not: what is ended beside it leaves it alone.
 */
static void test_reaper_leaves_running_jobs(void **state) {
    (void)state;
    struct lb_batcher *b = create(10, 0, 1000);
    struct lb_batch batch;
    pthread_t thread;
    struct fake running, late;
    make(&running, &model_a, 1, 10);
    make(&late, &model_a, 1, 10);
    running.job.deadline_ns = lb_now_ns() + 5 * LB_MS_NS;
    submit(b, &running);
    next(b, &batch, 1, 10, 1);
    while (lb_now_ns() <= running.job.deadline_ns) {
    }
    late.job.deadline_ns = lb_now_ns();
    submit(b, &late);
    assert_int_equal(pthread_create(&thread, NULL, reap, b), 0);
    uint64_t until = lb_now_ns() + 10 * LB_SECOND_NS;
    while (late.done == 0 && lb_now_ns() < until) {
    }
    assert_int_equal(late.done, 1);
    assert_int_equal(late.job.status, LB_E_TIMEOUT);
    assert_int_equal(lb_batcher_state(b).jobs, 1); /* both were looked at under one lock */
    assert_int_equal(running.done, 0);
    finish(b, &batch);
    assert_int_equal(running.done, 1);
    assert_int_equal(running.job.status, LB_OK); /* its answer is there all the same */
    lb_batcher_close(b);
    assert_int_equal(pthread_join(thread, NULL), 0);
    end(b);
}

static void test_failure_ends_all_of_a_batch(void **state) {
    (void)state;
    struct lb_batcher *b = create(25, 0, 1000);
    struct lb_batch batch;
    struct lb_detail detail = {LB_E_NOMEM, "too large"};
    struct fake x, y;
    make(&x, &model_a, 1, 10);
    make(&y, &model_a, 3, 10);
    submit(b, &x);
    submit(b, &y);
    next(b, &batch, 2, 20, 2);
    lb_batcher_finish(b, &batch, LB_E_NOMEM, &detail, 1);
    assert_int_equal(x.done, 1);
    assert_int_equal(y.done, 1); /* its other sequences aren't tried */
    assert_int_equal(y.job.status, LB_E_NOMEM);
    assert_string_equal(y.job.detail.text, "too large");
    assert_int_equal(lb_batcher_state(b).waiting_tokens, 0);
    end(b);
}

static void test_drain_and_abort(void **state) {
    (void)state;
    struct lb_batcher *b = create(10, LB_SECOND_NS * 60, 1000);
    struct lb_batch batch;
    struct lb_detail detail = {0};
    struct fake x, y, refused;
    make(&x, &model_a, 2, 4);
    make(&y, &model_b, 2, 10);
    make(&refused, &model_a, 1, 4);
    submit(b, &x);
    submit(b, &y);
    lb_batcher_close(b);
    assert_int_equal(lb_batcher_submit(b, &refused.job, &detail), LB_E_UNAVAILABLE);
    assert_non_null(strstr(detail.text, "shutting down"));
    next(b, &batch, 2, 8, 1); /* what is queued is still served, without waiting for company */
    finish(b, &batch);
    assert_int_equal(x.done, 1);
    assert_int_equal(x.job.status, LB_OK);
    assert_false(lb_batcher_wait_empty(b, lb_now_ns()));
    next(b, &batch, 1, 10, 1);
    lb_batcher_abort(b);
    assert_int_equal(y.done, 0); /* its batch is being computed */
    finish(b, &batch);
    assert_int_equal(y.done, 1);
    assert_int_equal(y.job.status, LB_E_UNAVAILABLE);
    assert_true(lb_batcher_wait_empty(b, lb_now_ns() + LB_SECOND_NS));
    assert_int_equal(refused.done, 0);
    end(b);
}

/* A job whose client has left: what waits is not computed; what is being computed ends after its batch. */
static void test_cancel(void **state) {
    (void)state;
    struct lb_batcher *b = create(10, 0, 1000);
    struct lb_batch batch;
    struct fake waiting, running, early;
    make(&running, &model_a, 3, 10);
    make(&waiting, &model_a, 1, 10);
    submit(b, &running);
    submit(b, &waiting);
    next(b, &batch, 1, 10, 1);
    assert_ptr_equal(batch.slices[0].job, &running.job);
    lb_batcher_cancel(b, &waiting.job);
    assert_int_equal(waiting.done, 1);
    assert_int_equal(waiting.job.status, LB_E_CANCELLED);
    lb_batcher_cancel(b, &running.job);
    assert_int_equal(running.done, 0);
    finish(b, &batch);
    assert_int_equal(running.done, 1);
    assert_int_equal(running.job.status, LB_E_CANCELLED); /* two sequences were never computed */
    lb_batcher_cancel(b, &running.job);                   /* it has ended: nothing happens */
    assert_int_equal(running.done, 1);
    make(&early, &model_a, 1, 10);
    lb_batcher_cancel(b, &early.job); /* before it was submitted */
    assert_int_equal(lb_batcher_submit(b, &early.job, NULL), LB_E_CANCELLED);
    assert_int_equal(lb_batcher_state(b).jobs, 0);
    assert_int_equal(lb_batcher_state(b).waiting_tokens, 0);
    end(b);
}

/* Whoever was served least goes first; ranks order one client's jobs only; short ones pass long ones. */
static void test_clients_take_turns(void **state) {
    (void)state;
    struct lb_batcher *b = create(20, 0, 100000);
    struct lb_batch batch;
    struct fake greedy, modest, first, last, huge, small;
    make(&greedy, &model_a, 8, 10);
    make(&modest, &model_a, 2, 10);
    greedy.job.client = "greedy";
    greedy.job.rank = 1;
    modest.job.client = "modest";
    modest.job.rank = 9;
    submit(b, &greedy);
    next(b, &batch, 2, 20, 1);
    submit(b, &modest);
    finish(b, &batch);
    next(b, &batch, 2, 20, 2); /* one of each */
    finish(b, &batch);
    next(b, &batch, 2, 20, 2);
    finish(b, &batch);
    assert_int_equal(modest.done, 1);
    lb_batcher_cancel(b, &greedy.job);
    make(&last, &model_a, 2, 10);
    make(&first, &model_a, 2, 10);
    last.job.rank = 9;
    submit(b, &last);
    submit(b, &first);
    next(b, &batch, 2, 20, 1);
    assert_ptr_equal(batch.slices[0].job, &first.job);
    finish(b, &batch);
    next(b, &batch, 2, 20, 1);
    finish(b, &batch);
    make(&huge, &model_a, 60, 1000);
    make(&small, &model_a, 1, 10);
    submit(b, &huge);
    submit(b, &small);
    next(b, &batch, 1, 10, 1);
    assert_ptr_equal(batch.slices[0].job, &small.job);
    finish(b, &batch);
    lb_batcher_cancel(b, &huge.job);
    end(b);
}

/* A client's models take turns: a busy one doesn't keep another waiting, whichever came first; nor does one
 * that comes back go before for what it didn't ask. */
static void test_models_take_turns(void **state) {
    (void)state;
    struct lb_batcher *b = create(20, 0, 100000);
    struct lb_batch batch;
    struct fake busy[6], other[2];
    for (int i = 0; i < 6; i++) {
        make(&busy[i], &model_a, 2, 10);
        submit(b, &busy[i]);
    }
    next(b, &batch, 2, 20, 1);
    make(&other[0], &model_b, 2, 10);
    make(&other[1], &model_b, 2, 10);
    submit(b, &other[0]);
    submit(b, &other[1]);
    finish(b, &batch);
    struct lb_hosted *const models[] = {&model_a, &model_b, &model_a, &model_b, &model_a, &model_a, &model_a};
    for (int i = 0; i < 7; i++) {
        next(b, &batch, 2, 20, 1);
        assert_ptr_equal(batch.model, models[i]);
        finish(b, &batch);
    }
    end(b);
}

/* Jobs that ask for unlike taps don't share a batch; nor does a batch need more tape than there is. */
static void test_taps_and_tape(void **state) {
    (void)state;
    struct lb_batcher *b = lb_batcher_create(&(struct lb_batcher_args){
        .max_batch_tokens = 1000, .max_queue_tokens = 10000, .max_batch_bytes = 1000});
    struct lb_batch batch;
    struct fake plain, taps, again, wide;
    assert_non_null(b);
    make(&plain, &model_a, 1, 10);
    make(&taps, &model_a, 1, 10);
    make(&again, &model_a, 1, 10);
    taps.job.taps = 7;
    submit(b, &plain);
    submit(b, &taps);
    submit(b, &again);
    next(b, &batch, 2, 20, 2);
    assert_ptr_equal(batch.slices[1].job, &again.job);
    finish(b, &batch);
    next(b, &batch, 1, 10, 1);
    finish(b, &batch);
    make(&wide, &model_a, 5, 10); /* each 10 * 10 + 100 * 2, beside 300 */
    wide.job.base_bytes = 300;
    wide.job.row_bytes = 10;
    wide.job.square_bytes = 2;
    submit(b, &wide);
    next(b, &batch, 2, 20, 1);
    assert_int_equal(batch.tape_bytes, 900);
    finish(b, &batch);
    lb_batcher_limit(b, 100); /* less than one needs: it is tried all the same */
    next(b, &batch, 1, 10, 1);
    finish(b, &batch);
    lb_batcher_cancel(b, &wide.job);
    end(b);
}

/* A batch that comes back in parts: a job ends when all of its parts are back, whatever became of them. */
static void test_parts(void **state) {
    (void)state;
    struct lb_batcher *b = create(100, 0, 1000);
    struct lb_batch batch, part;
    struct lb_detail detail = {LB_E_NOMEM, "too large"};
    struct fake x, y;
    make(&x, &model_a, 2, 10);
    make(&y, &model_a, 1, 10);
    submit(b, &x);
    submit(b, &y);
    next(b, &batch, 3, 30, 2);
    part = (struct lb_batch){
        .model = &model_a, .slices = {{&x.job, 0, 1}}, .n_slices = 1, .n_seqs = 1, .n_tokens = 10};
    lb_batcher_finish(b, &part, LB_E_NOMEM, &detail, 1);
    assert_int_equal(x.done, 0);
    part.slices[0] = (struct lb_slice){&x.job, 1, 1};
    finish(b, &part);
    assert_int_equal(x.done, 1);
    assert_int_equal(x.job.status, LB_E_NOMEM);
    part.slices[0] = (struct lb_slice){&y.job, 0, 1};
    finish(b, &part);
    assert_int_equal(y.done, 1);
    assert_int_equal(y.job.status, LB_OK);
    assert_int_equal(lb_batcher_state(b).running_tokens, 0);
    end(b);
}

/* A batch has room for so many jobs, however small they are. */
static void test_many_small_jobs(void **state) {
    (void)state;
    enum { N = LB_BATCH_MAX_SLICES + 4 };
    struct lb_batcher *b = create(100000, 0, 100000);
    struct lb_batch *batch = calloc(1, sizeof *batch);
    struct fake *jobs = calloc(N, sizeof *jobs);
    assert_true(batch && jobs);
    for (int i = 0; i < N; i++) {
        make(&jobs[i], &model_a, 1, 1);
        submit(b, &jobs[i]);
    }
    next(b, batch, LB_BATCH_MAX_SLICES, LB_BATCH_MAX_SLICES, LB_BATCH_MAX_SLICES);
    finish(b, batch);
    next(b, batch, 4, 4, 4);
    finish(b, batch);
    end(b);
    free(jobs);
    free(batch);
}

/* ---- with threads: many clients, one worker, a reaper ---- */

#define N_CLIENTS 4
#define PER_CLIENT 200

struct crowd {
    struct lb_batcher *batcher;
    struct fake jobs[N_CLIENTS][PER_CLIENT];
    atomic_int computed;
    int64_t largest;
};

static void *work(void *argument) {
    struct crowd *crowd = argument;
    struct lb_batch batch;
    while (lb_batcher_next(crowd->batcher, &batch) == LB_OK) {
        atomic_fetch_add(&crowd->computed, (int)batch.n_seqs);
        crowd->largest = batch.n_tokens > crowd->largest ? batch.n_tokens : crowd->largest;
        finish(crowd->batcher, &batch);
    }
    return NULL;
}

struct client {
    struct crowd *crowd;
    int index;
};

static void *ask(void *argument) {
    struct client *client = argument;
    struct crowd *crowd = client->crowd;
    for (int i = 0; i < PER_CLIENT; i++) {
        struct fake *fake = &crowd->jobs[client->index][i];
        make(fake, i % 3 ? &model_a : &model_b, 1 + i % 7, 1 + i % 5);
        while (lb_batcher_submit(crowd->batcher, &fake->job, NULL) != LB_OK) {
        }
    }
    return NULL;
}

static void count_call(void *argument) {
    atomic_fetch_add((atomic_int *)argument, 1);
}

static void test_crowd(void **state) {
    (void)state;
    struct crowd *crowd = calloc(1, sizeof *crowd);
    assert_non_null(crowd);
    crowd->batcher = create(16, 1000, 200);
    pthread_t worker, reaper, clients[N_CLIENTS];
    struct client arguments[N_CLIENTS];
    atomic_int calls = 0;
    assert_int_equal(pthread_create(&worker, NULL, work, crowd), 0);
    assert_int_equal(pthread_create(&reaper, NULL, reap, crowd->batcher), 0);
    for (int i = 0; i < N_CLIENTS; i++) {
        arguments[i] = (struct client){crowd, i};
        assert_int_equal(pthread_create(&clients[i], NULL, ask, &arguments[i]), 0);
    }
    for (int i = 0; i < 20; i++) {
        assert_true(lb_batcher_call(crowd->batcher, count_call, &calls));
    }
    for (int i = 0; i < N_CLIENTS; i++) {
        pthread_join(clients[i], NULL);
    }
    assert_true(lb_batcher_wait_empty(crowd->batcher, lb_now_ns() + 20 * LB_SECOND_NS));
    lb_batcher_abort(crowd->batcher);
    pthread_join(worker, NULL);
    pthread_join(reaper, NULL);
    assert_false(lb_batcher_call(crowd->batcher, count_call, &calls)); /* the worker has left */
    assert_int_equal(calls, 20);
    int64_t seqs = 0;
    for (int c = 0; c < N_CLIENTS; c++) {
        for (int i = 0; i < PER_CLIENT; i++) {
            assert_int_equal(crowd->jobs[c][i].done, 1);
            assert_int_equal(crowd->jobs[c][i].job.status, LB_OK);
            seqs += crowd->jobs[c][i].job.n_seqs;
        }
    }
    assert_int_equal(crowd->computed, seqs); /* each sequence once */
    assert_true(crowd->largest <= 16);
    lb_batcher_destroy(crowd->batcher);
    free(crowd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batches_share),
        cmocka_unit_test(test_large_jobs_are_sliced),
        cmocka_unit_test(test_the_rest_of_a_batch_is_filled),
        cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_waits_for_company),
        cmocka_unit_test(test_other_models_are_no_company),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_reaper_needs_no_worker),
        cmocka_unit_test(test_reaper_leaves_running_jobs),
        cmocka_unit_test(test_failure_ends_all_of_a_batch),
        cmocka_unit_test(test_drain_and_abort),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_clients_take_turns),
        cmocka_unit_test(test_models_take_turns),
        cmocka_unit_test(test_taps_and_tape),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_many_small_jobs),
        cmocka_unit_test(test_crowd),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
