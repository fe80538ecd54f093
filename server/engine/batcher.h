/* The queue of jobs, bounded in tokens, and how batches are made of it.
 *
 * Codec threads submit; one worker asks for the next batch, computes it and hands it back; a reaper thread
 * ends jobs whose deadline passed. A batch holds sequences of one model, of jobs that ask for the same
 * attention (or, where nothing is shared, the same inner states), up to a budget of tokens and of memory; a
 * job larger than that is served in several batches, a single sequence larger than that is a batch of its
 * own.
 *
 * Each client has a queue of its own, and whoever was served least goes first, sequence by sequence. Within a
 * client's queue the lower rank goes first, then whichever of its models was served least, then the earlier;
 * a job counts as if it had come later the larger it is, so that a short one need not wait for all of a long
 * one, and no job waits for ever.
 *
 * A sequence of which the states are known, or that an equal one in the same batch brings, costs what the
 * head makes of it: so it is counted in batches, and to its client (server/engine/known.h). What an equal one
 * of another batch will bring is there when its turn comes, as batches are computed one after the other; and
 * whatever becomes of that other job, nothing was promised to this one.
 *
 * One lock guards everything; submitting costs a logarithm of the jobs that wait in its queue, and a look at
 * each queue: one for each client, model and set of taps. done is called without it.
 */
#ifndef LB_ENGINE_BATCHER_H
#define LB_ENGINE_BATCHER_H

#include "common/base/status.h"
#include "server/engine/job.h"

#include <stdbool.h>
#include <stdint.h>

#define LB_BATCH_MAX_SLICES 256
#define LB_BATCH_MAX_PARTS 96 /* of one job there are fewer */

/* Sequences first .. first + n - 1 of a job. */
struct lb_slice {
    struct lb_job *job;
    int64_t first, n;
};

struct lb_batch {
    struct lb_hosted *model;
    struct lb_slice slices[LB_BATCH_MAX_SLICES];
    size_t n_slices;
    int64_t n_seqs, n_tokens;
    int64_t cost;      /* in tokens that go through the model */
    size_t tape_bytes; /* as estimated */
    /* Inner states that the forward should keep: those of jobs that have parts, and what others wait for. */
    struct lb_part parts[LB_BATCH_MAX_PARTS];
    size_t n_parts, parts_row_bytes;
    int64_t computed_tokens; /* as far as is known: of sequences that need the forward */
};

struct lb_batcher_args {
    int64_t max_batch_tokens;
    uint64_t max_wait_ns;     /* how long the oldest job waits for others to fill its batch */
    int64_t max_queue_tokens; /* that wait; clients share them (lb_turns_room) */
    size_t max_batch_bytes;   /* of tape; 0: no maximum */
    size_t max_queue_jobs;    /* that wait or are computed; clients share them too; 0: any number */
    struct lb_known *known;   /* what equal sequences share; borrowed; NULL: each is computed by itself */
};

struct lb_known;
struct lb_batcher;

/* NULL when out of memory. */
struct lb_batcher *lb_batcher_create(const struct lb_batcher_args *args);
/* The queue must be empty and nobody inside. Accepts NULL. */
void lb_batcher_destroy(struct lb_batcher *batcher);

/* Hands the job over: from here on it is the batcher's until done is called, exactly once. LB_E_UNAVAILABLE
 * (the job stays the caller's, done isn't called): draining, or the queue or the client's part of it is full.
 * A job is always taken when the queue is empty. LB_E_CANCELLED: lb_batcher_cancel came first. LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_batcher_submit(struct lb_batcher *batcher, struct lb_job *job,
                                              struct lb_detail *detail);

/* The client has left: what isn't computed yet of the job won't be, and it ends with LB_E_CANCELLED, now or
 * after its batch. The job must not be freed meanwhile. Nothing happens when it has ended. */
void lb_batcher_cancel(struct lb_batcher *batcher, struct lb_job *job);
/* Called by the worker when nothing has come for a second, once: the time to give memory back. */
void lb_batcher_on_idle(struct lb_batcher *batcher, void (*idle)(void *context), void *context);
/* Most bytes of tape in a batch, from now on. */
void lb_batcher_limit(struct lb_batcher *batcher, size_t max_batch_bytes);

/* Worker: waits for a batch. LB_E_CANCELLED once aborted and empty. */
LB_NODISCARD enum lb_status lb_batcher_next(struct lb_batcher *batcher, struct lb_batch *out);
/* Worker: the batch, or a part of it (fewer slices, or shorter ones), is computed (or failed); ends the jobs
 * that are complete, failed or late. Each sequence is handed back once. */
void lb_batcher_finish(struct lb_batcher *batcher, const struct lb_batch *batch, enum lb_status status,
                       const struct lb_detail *detail, uint64_t compute_ns);

/* Any thread but the worker: runs call on the worker between two batches and waits for it. False once the
 * worker has left: nothing was run. */
bool lb_batcher_call(struct lb_batcher *batcher, void (*call)(void *argument), void *argument);

/* Body of the reaper thread; returns once the batcher is closed and empty. */
void lb_batcher_reap(struct lb_batcher *batcher);

/* No more submits; what is queued is still served, and so are calls. */
void lb_batcher_close(struct lb_batcher *batcher);
/* Ends whatever waits with LB_E_UNAVAILABLE (what is being computed: at its batch's end). Closes too, and
 * lets the worker leave. */
void lb_batcher_abort(struct lb_batcher *batcher);

/* Waits until no job is left, at most until deadline_ns; false when some are. */
bool lb_batcher_wait_empty(struct lb_batcher *batcher, uint64_t deadline_ns);

struct lb_batcher_state {
    int64_t waiting_tokens, running_tokens;
    size_t jobs, running_jobs; /* all, and those of the batch that is being computed */
};
struct lb_batcher_state lb_batcher_state(struct lb_batcher *batcher);

#endif
