#include "server/engine/engine.h"

#include "common/model/batch.h"
#include "common/base/arena.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/model/model.h"
#include "common/nn/head.h"
#include "common/nn/tape.h"
#include "server/engine/extract.h"
#include "server/engine/selftest.h"
#include "server/metrics.h"
#include "server/models/repository.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* Offsets, ids and places of one batch: bounded by the largest single sequence and the number of slices. */
#define SCRATCH_BYTES ((size_t)1 << 30)
/* As the head's first row of a sequence: behind any end, so that none of its rows are computed. */
#define NO_ROWS INT32_MAX

struct lb_engine {
    struct lb_batcher *batcher;
    struct lb_metrics *metrics;
    struct lb_tape *tape;
    atomic_size_t tape_bytes; /* its maximum */
    struct lb_arena scratch;  /* of one batch */
    int n_small;              /* batches since one used a good part of what the tape holds */
    pthread_t worker, reaper;
    bool started;
};

struct lb_engine *lb_engine_create(struct lb_batcher *batcher, struct lb_metrics *metrics,
                                   size_t tape_bytes) {
    struct lb_engine *engine = lb_calloc(1, sizeof *engine);
    if (!engine) {
        return NULL;
    }
    engine->batcher = batcher;
    engine->metrics = metrics;
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

struct run {
    const struct lb_batch *batch;
    struct lb_place *places;
    int32_t *first;
    struct lb_model_batch rows;
    struct lb_input input;
    struct lb_tap *taps;            /* room for every output of every job */
    enum lb_output_source *sources; /* of each tap */
    size_t n_taps;
    bool needs_head, needs_sentences;
};

static void place_slice(struct run *run, const struct lb_slice *slice) {
    const struct lb_job *job = slice->job;
    for (int64_t b = slice->first; b < slice->first + slice->n; b++) {
        run->places[run->rows.n_seqs] = (struct lb_place){slice->job, b};
        int32_t first = lb_model_is_classifier(job->model->model) ? 0 : job->start[b];
        run->first[run->rows.n_seqs] = job->needs_head ? first : NO_ROWS;
        if (run->rows.ids) {
            lb_model_batch_add_ids(&run->rows, job->ids + job->offsets[b], NULL, lb_job_length(job, b));
        } else {
            lb_model_batch_add_features(&run->rows, job->features + b * run->rows.input_size, -1);
        }
    }
    run->needs_head |= job->needs_head;
}

static void add_tap(struct run *run, enum lb_tap_kind kind, int layer, enum lb_output_source source) {
    for (size_t i = 0; i < run->n_taps; i++) {
        if (run->taps[i].kind == kind && run->taps[i].layer == layer) {
            return;
        }
    }
    run->sources[run->n_taps] = source;
    run->taps[run->n_taps++] = (struct lb_tap){.kind = kind, .layer = layer};
}

static void add_taps(struct run *run, const struct lb_job *job) {
    for (size_t i = 0; i < job->n_outputs; i++) {
        const struct lb_output_name *what = &job->outputs[i].what;
        enum lb_output_source source = lb_output_get(what->kind)->source;
        enum lb_tap_kind tap;
        run->needs_sentences |= source == LB_FROM_SENTENCE;
        if (lb_hosted_tap(source, &tap)) {
            add_tap(run, tap, what->layer, source);
        }
    }
}

static enum lb_status prepare(struct lb_engine *engine, const struct lb_batch *batch, struct run *run) {
    struct lb_arena *arena = &engine->scratch;
    size_t n = (size_t)batch->n_seqs;
    int64_t input_size = lb_model_config(batch->model->model)->input_size;
    *run = (struct run){.batch = batch};
    lb_arena_reset(arena);
    run->places = lb_arena_array(arena, n, sizeof *run->places);
    run->first = lb_arena_array(arena, n, sizeof *run->first);
    if (!lb_model_batch_init(&run->rows, arena, batch->n_seqs, batch->n_tokens, input_size, false)) {
        return LB_E_NOMEM;
    }
    size_t most_taps = 0;
    for (size_t i = 0; i < batch->n_slices; i++) {
        most_taps += batch->slices[i].job->n_outputs;
    }
    run->taps = lb_arena_array(arena, most_taps, sizeof *run->taps);
    run->sources = lb_arena_array(arena, most_taps, sizeof *run->sources);
    if (!run->places || !run->first || !run->taps || !run->sources) {
        return LB_E_NOMEM;
    }
    for (size_t i = 0; i < batch->n_slices; i++) {
        if (lb_job_allocate(batch->slices[i].job) != LB_OK) {
            return LB_E_NOMEM;
        }
        add_taps(run, batch->slices[i].job);
        place_slice(run, &batch->slices[i]);
    }
    run->input = lb_model_batch_input(&run->rows);
    return LB_OK;
}

static enum lb_status compute(struct lb_engine *engine, struct run *run) {
    const struct lb_model *model = run->batch->model->model;
    const struct lb_head *head = lb_model_head(model);
    struct lb_extract extract;
    enum lb_status status = lb_extract_init(&extract, run->places, &run->input.ragged,
                                            lb_hosted_vocab(run->batch->model), &engine->scratch);
    if (status != LB_OK) {
        return status;
    }
    lb_tape_begin(engine->tape, LB_TAPE_PLAIN, &run->input.ragged, NULL);
    struct lb_value *h = lb_model_forward(model, engine->tape, &run->input, run->taps, run->n_taps, NULL);
    if (!h) {
        status = lb_tape_status(engine->tape);
        return status != LB_OK ? status : LB_E_INTERNAL;
    }
    extract.of_head = lb_tape_ragged(engine->tape);
    if (lb_model_is_classifier(model)) {
        lb_extract_once(&extract, LB_FROM_FINAL, h);
    } else {
        lb_extract_states(&extract, LB_FROM_FINAL, 0, h);
        lb_extract_kept(&extract, h);
    }
    for (size_t i = 0; i < run->n_taps; i++) {
        const struct lb_tap *tap = &run->taps[i];
        if (!tap->value) {
            return lb_tape_status(engine->tape) != LB_OK ? lb_tape_status(engine->tape) : LB_E_INTERNAL;
        }
        if (tap->kind == LB_TAP_ATTENTION) {
            lb_extract_attention(&extract, tap->layer, lb_model_config(model)->num_attention_heads,
                                 tap->value);
        } else {
            lb_extract_states(&extract, run->sources[i], tap->layer, tap->value);
        }
    }
    if (run->needs_sentences) {
        const struct lb_value *pooled = lb_model_pool(model, engine->tape, h);
        if (!pooled) {
            return lb_tape_status(engine->tape);
        }
        lb_extract_once(&extract, LB_FROM_SENTENCE, pooled);
    }
    if (!run->needs_head) {
        return LB_OK;
    }
    if (lb_extract_needs_rows(&extract)) {
        return lb_head_run(engine->tape, h, head, run->first, lb_extract_logits, &extract);
    }
    const struct lb_head_reader reader = lb_extract_reader(&extract);
    return lb_head_read(engine->tape, h, head, run->first, &reader);
}

enum lb_status lb_engine_run(struct lb_engine *engine, const struct lb_batch *batch,
                             struct lb_detail *detail) {
    struct run run;
    enum lb_status status = prepare(engine, batch, &run);
    if (status == LB_OK) {
        status = compute(engine, &run);
    }
    if (status == LB_E_NOMEM) {
        return lb_fail(
            detail, status,
            "not enough memory for a batch of %lld tokens; lower --max-batch-tokens or ask for less at once",
            (long long)batch->n_tokens);
    }
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "the model failed: %s", lb_status_name(status));
}

/* ---- the threads ---- */

static void observe(struct lb_engine *engine, const struct lb_batch *batch, uint64_t ns) {
    const char *labels[] = {batch->model->name};
    lb_metrics_add(engine->metrics, LB_METRIC_BATCH_TOKENS, labels, (double)batch->n_tokens);
    lb_metrics_add(engine->metrics, LB_METRIC_BATCH_SEQS, labels, (double)batch->n_seqs);
    lb_metrics_add(engine->metrics, LB_METRIC_TOKENS, labels, (double)batch->n_tokens);
    lb_metrics_add(engine->metrics, LB_METRIC_SEQUENCES, labels, (double)batch->n_seqs);
    lb_metrics_add(engine->metrics, LB_METRIC_BATCH_SECONDS, labels, (double)ns / LB_SECOND_NS);
    lb_stats_batch(&batch->model->stats, batch->n_seqs, ns);
}

/* Runs the batch or a part of it, and hands it back. */
static enum lb_status run_and_finish(struct lb_engine *engine, const struct lb_batch *batch, bool last_try) {
    struct lb_detail detail = {0};
    uint64_t begun = lb_now_ns();
    enum lb_status status = lb_engine_run(engine, batch, &detail);
    uint64_t ns = lb_now_ns() - begun;
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
        lb_batcher_close(engine->batcher);
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

/* Numbers that differ for different sets of taps, as good as certainly; should two sets fall together, their
 * jobs share batches. */
static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15u;
    return (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9u + 1;
}

enum lb_status lb_engine_admit(struct lb_engine *engine, struct lb_job *job, struct lb_detail *detail) {
    const struct lb_hosted *hosted = job->model;
    size_t heads = (size_t)lb_model_config(hosted->model)->num_attention_heads;
    job->base_bytes = hosted->base_bytes;
    job->row_bytes = hosted->row_bytes;
    job->square_bytes = 0;
    job->taps = 0;
    bool whole_rows = job->draw != NULL;
    for (size_t i = 0; i < job->n_outputs; i++) {
        const struct lb_output_name *what = &job->outputs[i].what;
        enum lb_output_source source = lb_output_get(what->kind)->source;
        enum lb_tap_kind tap;
        bool tapped = lb_hosted_tap(source, &tap);
        job->taps += tapped ? mix((uint64_t)what->layer * 8 + tap + 1) : 0;
        if (tapped && tap != LB_TAP_ATTENTION) {
            job->row_bytes += (size_t)job->outputs[i].width * sizeof(float);
        } else if (source == LB_FROM_SENTENCE) {
            job->row_bytes +=
                (size_t)job->outputs[i].width * sizeof(float) + 64; /* a sequence has a row or more */
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
    }
    size_t limit = atomic_load(&engine->tape_bytes);
    for (int64_t b = 0; b < job->n_seqs; b++) {
        size_t need = job->base_bytes + lb_job_tape(job, b);
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
