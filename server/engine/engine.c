#include "server/engine/engine.h"

#include "common/base/arena.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/model/model.h"
#include "common/nn/head.h"
#include "common/nn/tape.h"
#include "server/engine/forward.h"
#include "server/engine/known.h"
#include "server/engine/selftest.h"
#include "server/metrics.h"
#include "server/models/repository.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* Offsets, ids and places of one batch: bounded by the largest single sequence and the number of slices. */
#define SCRATCH_BYTES ((size_t)1 << 30)

struct lb_engine {
    struct lb_batcher *batcher;
    struct lb_metrics *metrics;
    struct lb_known *known;
    struct lb_tape *tape;
    atomic_size_t tape_bytes; /* its maximum */
    struct lb_arena scratch;  /* of one batch */
    uint64_t n_runs;
    struct lb_forward_counts counts; /* of the last run */
    int n_small;                     /* batches since one used a good part of what the tape holds */
    pthread_t worker, reaper;
    bool started;
};

struct lb_engine *lb_engine_create(struct lb_batcher *batcher, struct lb_metrics *metrics,
                                   struct lb_known *known, size_t tape_bytes) {
    struct lb_engine *engine = lb_calloc(1, sizeof *engine);
    if (!engine) {
        return NULL;
    }
    engine->batcher = batcher;
    engine->metrics = metrics;
    engine->known = known;
    engine->tape = lb_tape_create(tape_bytes);
    atomic_init(&engine->tape_bytes, tape_bytes);
    lb_arena_init(&engine->scratch, SCRATCH_BYTES);
    if (!engine->tape) {
        lb_engine_destroy(engine);
        return NULL;
    }
    return engine;
}

void lb_engine_destroy(struct lb_engine *engine) {
    if (engine) {
        lb_arena_finish(&engine->scratch);
        lb_tape_destroy(engine->tape);
        lb_free(engine);
    }
}

/* ---- one batch ---- */

enum lb_status lb_engine_run(struct lb_engine *engine, const struct lb_batch *batch,
                             struct lb_detail *detail) {
    enum lb_status status = lb_forward_run(batch, engine->tape, &engine->scratch, engine->known,
                                           ++engine->n_runs, &engine->counts);
    if (status == LB_E_NOMEM) {
        return lb_fail(
            detail, status,
            "not enough memory for a batch of %lld tokens; lower --max-batch-tokens or ask for less at once",
            (long long)batch->n_tokens);
    }
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "the model failed: %s", lb_status_name(status));
}

/* ---- the threads ---- */

/* What went through the model, whatever became of it. */
static void observe_computed(struct lb_engine *engine, const struct lb_batch *batch) {
    const char *labels[] = {batch->model->name};
    const struct lb_forward_counts *counts = &engine->counts;
    lb_metrics_add(engine->metrics, LB_METRIC_TOKENS, labels, (double)counts->computed_tokens);
    lb_metrics_add(engine->metrics, LB_METRIC_SEQUENCES, labels, (double)counts->computed_seqs);
    lb_metrics_add(engine->metrics, LB_METRIC_KNOWN_DROPPED, labels, (double)counts->dropped);
}

static void observe(struct lb_engine *engine, const struct lb_batch *batch, uint64_t ns) {
    const char *labels[] = {batch->model->name};
    const struct lb_forward_counts *counts = &engine->counts;
    lb_metrics_add(engine->metrics, LB_METRIC_BATCH_TOKENS, labels, (double)batch->n_tokens);
    lb_metrics_add(engine->metrics, LB_METRIC_BATCH_SEQS, labels, (double)batch->n_seqs);
    lb_metrics_add(engine->metrics, LB_METRIC_ASKED_TOKENS, labels, (double)batch->n_tokens);
    lb_metrics_add(engine->metrics, LB_METRIC_JOINED_TOKENS, labels, (double)counts->joined_tokens);
    lb_metrics_add(engine->metrics, LB_METRIC_KNOWN_TOKENS, labels, (double)counts->known_tokens);
    lb_metrics_add(engine->metrics, LB_METRIC_BATCH_SECONDS, labels, (double)ns / LB_SECOND_NS);
    lb_stats_batch(&batch->model->stats, batch->n_seqs, ns);
    lb_stats_cache(&batch->model->stats, counts->found_seqs, counts->found_ns, counts->missed_seqs,
                   counts->missed_ns);
}

/* Runs the batch or a part of it, and hands it back. */
static enum lb_status run_and_finish(struct lb_engine *engine, const struct lb_batch *batch, bool last_try) {
    struct lb_detail detail = {0};
    uint64_t begun = lb_now_ns();
    enum lb_status status = lb_engine_run(engine, batch, &detail);
    uint64_t ns = lb_now_ns() - begun;
    observe_computed(engine, batch);
    if (status == LB_E_NOMEM && !last_try) {
        return status;
    }
    observe(engine, batch, ns);
    lb_batcher_finish(engine->batcher, batch, status, &detail, ns);
    return status;
}

/* Memory ran out: one job after the other, and one sequence after the other where that isn't enough, so that
 * only those fail that are too large by themselves. */
static void run_in_parts(struct lb_engine *engine, const struct lb_batch *whole) {
    struct lb_batch part = {.model = whole->model, .n_slices = 1};
    lb_known_empty(engine->known);
    for (size_t i = 0; i < whole->n_slices; i++) {
        struct lb_slice slice = whole->slices[i];
        int64_t step = slice.n;
        for (int64_t done = 0; done < slice.n; done += step) {
            part.slices[0] = (struct lb_slice){slice.job, slice.first + done, step};
            part.n_seqs = step;
            part.n_tokens =
                slice.job->offsets[slice.first + done + step] - slice.job->offsets[slice.first + done];
            lb_tape_shrink(engine->tape);
            if (run_and_finish(engine, &part, step == 1) == LB_E_NOMEM && step > 1) {
                step = 1;
                done = -1;
            }
        }
    }
}

/* Peaks are not kept: after a while of batches that need much less, and when there is nothing to do. */
#define LARGE_TAPE ((size_t)32 << 20)
#define SMALL_BATCHES 64

static void give_back(void *context) {
    struct lb_engine *engine = context;
    lb_tape_shrink(engine->tape);
    lb_arena_finish(&engine->scratch);
    engine->n_small = 0;
    malloc_trim(0);
}

static void consider_shrinking(struct lb_engine *engine, const struct lb_batch *batch) {
    size_t held = lb_tape_high(engine->tape);
    engine->n_small = held > LARGE_TAPE && batch->tape_bytes < held / 4 ? engine->n_small + 1 : 0;
    if (engine->n_small > SMALL_BATCHES) {
        give_back(engine);
    }
}

static void *work(void *argument) {
    struct lb_engine *engine = argument;
    struct lb_batch batch;
    lb_batcher_on_idle(engine->batcher, give_back, engine);
    while (lb_batcher_next(engine->batcher, &batch) == LB_OK) {
        bool alone = batch.n_seqs == 1;
        if (run_and_finish(engine, &batch, alone) == LB_E_NOMEM && !alone) {
            run_in_parts(engine, &batch);
        }
        consider_shrinking(engine, &batch);
    }
    return NULL;
}

static void *reap(void *argument) {
    struct lb_engine *engine = argument;
    lb_batcher_reap(engine->batcher);
    return NULL;
}

enum lb_status lb_engine_start(struct lb_engine *engine, struct lb_detail *detail) {
    int error = pthread_create(&engine->worker, NULL, work, engine);
    if (error != 0) {
        return lb_fail_errno(detail, LB_E_NOMEM, error, "starting the engine's thread");
    }
    error = pthread_create(&engine->reaper, NULL, reap, engine);
    if (error != 0) {
        lb_batcher_abort(engine->batcher);
        pthread_join(engine->worker, NULL);
        return lb_fail_errno(detail, LB_E_NOMEM, error, "starting the reaper's thread");
    }
    engine->started = true;
    return LB_OK;
}

void lb_engine_join(struct lb_engine *engine) {
    if (engine && engine->started) {
        pthread_join(engine->worker, NULL);
        pthread_join(engine->reaper, NULL);
        engine->started = false;
    }
}

/* ---- what a job needs ---- */

/* Of a row of which nothing is computed. */
#define LEAST_COST (1.0 / 64)

/* Numbers that differ for different sets of taps, as good as certainly; should two sets fall together, their
 * jobs share batches. */
static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15u;
    return (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9u + 1;
}

/* What the head's product has of a row's work, about. */
static double head_share(const struct lb_model *model) {
    const struct lb_weight *w = lb_model_head(model)->weight;
    if (!w) {
        return 0;
    }
    double head = (double)w->rows * (double)w->cols;
    /* Embeddings are looked up: of tied ones the head is made. */
    double tables = lb_model_config(model)->tie_word_embeddings || lb_model_is_classifier(model) ? 1 : 2;
    double body = (double)lb_model_parameters(model) - tables * head;
    return head / (head + (body > 0 ? body : 0));
}

enum lb_status lb_engine_admit(struct lb_engine *engine, struct lb_job *job, struct lb_detail *detail) {
    const struct lb_hosted *hosted = job->model;
    size_t state_bytes = (size_t)lb_model_width(hosted->model) * sizeof(float);
    size_t heads = (size_t)lb_model_config(hosted->model)->num_attention_heads;
    job->base_bytes = hosted->base_bytes;
    job->row_bytes = hosted->row_bytes + (engine->known ? state_bytes : 0); /* in company of known ones */
    job->square_bytes = 0;
    job->known_row_bytes = state_bytes;
    job->known_cost = LEAST_COST;
    job->taps = 0;
    job->parts_row_bytes = 0;
    bool whole_rows = job->draw != NULL, parts = engine->known && lb_known_parts(job);
    for (size_t i = 0; i < job->n_outputs; i++) {
        const struct lb_output_name *what = &job->outputs[i].what;
        enum lb_output_source source = lb_output_get(what->kind)->source;
        enum lb_tap_kind tap;
        bool tapped = lb_hosted_tap(source, &tap);
        bool inner = tapped && tap != LB_TAP_ATTENTION;
        size_t width_bytes = tapped && !inner ? 0 : (size_t)job->outputs[i].width * sizeof(float);
        job->taps += tapped && !(inner && parts) ? mix((uint64_t)what->layer * 8 + tap + 1) : 0;
        if (inner) {
            *(parts ? &job->parts_row_bytes : &job->row_bytes) += width_bytes;
        } else if (source == LB_FROM_SENTENCE) { /* a sequence has a row or more */
            job->row_bytes += width_bytes + 64;
            job->known_row_bytes += width_bytes + 64;
        } else if (source == LB_FROM_LOGITS && !(lb_output_get(what->kind)->uses & LB_IN_PIECES)) {
            whole_rows = true;
        } else if (source == LB_FROM_ATTENTION) {
            /* One as computed, and each as kept. */
            job->square_bytes += (job->square_bytes ? 1 : 2) * heads * sizeof(float);
        }
    }
    if (whole_rows) {
        job->base_bytes += lb_head_run_bytes(lb_model_head(hosted->model)->weight->rows);
    }
    if (job->needs_head) {
        size_t of_all, of_row;
        const struct lb_head_want most = {
            .k = job->top_k, .n_at = 1 + job->n_scored, .draw = {.n = job->samples}};
        lb_head_read_bytes(lb_model_head(hosted->model)->weight->rows, &most, &of_all, &of_row);
        job->base_bytes += of_all;
        job->row_bytes += of_row;
        job->known_row_bytes += of_row;
        job->known_cost += head_share(hosted->model);
    }
    size_t limit = atomic_load(&engine->tape_bytes);
    for (int64_t b = 0; b < job->n_seqs; b++) {
        size_t need =
            job->base_bytes + lb_job_tape(job, b) + (size_t)lb_job_length(job, b) * job->parts_row_bytes;
        if (need > limit) {
            return lb_fail(detail, LB_E_LIMIT,
                           "sequence %lld (%lld tokens) needs %zu MiB of memory to be computed with these "
                           "outputs, and this daemon has %zu (--memory-limit-mib); ask for fewer outputs, or "
                           "shorter sequences",
                           (long long)b, (long long)lb_job_length(job, b), (need >> 20) + 1, limit >> 20);
        }
    }
    return LB_OK;
}

/* ---- the self-test ---- */

static bool on_worker(void *context, void (*call)(void *argument), void *argument) {
    struct lb_engine *engine = context;
    if (!engine->batcher) {
        call(argument);
        return true;
    }
    return lb_batcher_call(engine->batcher, call, argument);
}

struct lending {
    struct lb_engine *engine;
    void (*call)(void *argument, struct lb_tape *tape);
    void *argument;
};

static void lend(void *argument) {
    const struct lending *lending = argument;
    lending->call(lending->argument, lending->engine->tape);
}

bool lb_engine_lend(struct lb_engine *engine, void (*call)(void *argument, struct lb_tape *tape),
                    void *argument) {
    struct lending lending = {engine, call, argument};
    return on_worker(engine, lend, &lending);
}

enum lb_status lb_engine_self_test(struct lb_engine *engine, struct lb_hosted *hosted,
                                   struct lb_detail *detail) {
    struct lb_self_test_result result = {0};
    enum lb_status status = lb_self_test(hosted->model, hosted->decoder, on_worker, engine, &result, detail);
    if (status == LB_OK) {
        hosted->batch_invariant = result.invariant;
        hosted->test_kept = result.kept;
        memcpy(hosted->compute, result.compute, sizeof hosted->compute);
        hosted->base_bytes = result.base_bytes;
        hosted->row_bytes = result.row_bytes;
    }
    return status;
}

size_t lb_engine_tape_bytes(struct lb_engine *engine) {
    return atomic_load(&engine->tape_bytes);
}

static void limit_tape(void *argument) {
    struct lb_engine *engine = argument;
    lb_tape_limit(engine->tape, atomic_load(&engine->tape_bytes));
}

void lb_engine_limit(struct lb_engine *engine, size_t tape_bytes) {
    atomic_store(&engine->tape_bytes, tape_bytes);
    (void)on_worker(engine, limit_tape, engine);
    if (engine->batcher) {
        lb_batcher_limit(engine->batcher, tape_bytes);
    }
}
