/* The engine: one worker thread that owns the tape and runs the models. It takes batches from the batcher,
 * runs one forward with the taps that the batch's jobs ask for, and has the outputs extracted. Nothing else
 * touches a model's forward.
 */
#ifndef LB_ENGINE_ENGINE_H
#define LB_ENGINE_ENGINE_H

#include "common/base/status.h"
#include "server/engine/batcher.h"

struct lb_metrics;
struct lb_known;
struct lb_engine;

/* tape_bytes bounds the memory of one batch (lb_engine_limit). NULL when out of memory. batcher, metrics and
 * known (the batcher's, if there is one) may be NULL; all are borrowed. */
struct lb_engine *lb_engine_create(struct lb_batcher *batcher, struct lb_metrics *metrics,
                                   struct lb_known *known, size_t tape_bytes);
/* The worker must have been stopped. Accepts NULL. */
void lb_engine_destroy(struct lb_engine *engine);

/* Starts the worker and the reaper. */
LB_NODISCARD enum lb_status lb_engine_start(struct lb_engine *engine, struct lb_detail *detail);
/* Waits for both; the batcher must have been closed, so that they end once the queue is empty. */
void lb_engine_join(struct lb_engine *engine);

/* Computes one batch and fills the outputs of its jobs. Worker only (or a test that has no worker). */
LB_NODISCARD enum lb_status lb_engine_run(struct lb_engine *engine, const struct lb_batch *batch,
                                          struct lb_detail *detail);

/* Estimates what tape the job's sequences need, by what the model's self-test measured and the taps that it
 * asks for, and sets how it shares batches. LB_E_LIMIT when one of them can't be computed within the engine's
 * limit. Any thread. */
LB_NODISCARD enum lb_status lb_engine_admit(struct lb_engine *engine, struct lb_job *job,
                                            struct lb_detail *detail);

/* The self-test (selftest.h) of a model, each of its forwards run on the worker between batches (without a
 * batcher: here); fills in what it finds. Any thread but the worker. LB_E_CANCELLED when the worker has left.
 */
LB_NODISCARD enum lb_status lb_engine_self_test(struct lb_engine *engine, struct lb_hosted *hosted,
                                                struct lb_detail *detail);
/* Runs call on the worker between two batches, with its tape, and waits for it; any thread but the worker.
 * False once the worker has left: nothing was run. */
struct lb_tape;
bool lb_engine_lend(struct lb_engine *engine, void (*call)(void *argument, struct lb_tape *tape),
                    void *argument);
/* Most bytes of tape, now and from now on; raising only. Any thread but the worker. */
size_t lb_engine_tape_bytes(struct lb_engine *engine);
void lb_engine_limit(struct lb_engine *engine, size_t tape_bytes);

#endif
