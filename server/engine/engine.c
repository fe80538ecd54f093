#include "server/engine/engine.h"

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

#include <pthread.h>
#include <string.h>

/* Offsets, ids and places of one batch: bounded by the largest single sequence and the number of slices. */
#define SCRATCH_BYTES ((size_t)1 << 30)
/* As lb_head_run's first row of a sequence: behind any end, so that none of its rows are computed. */
#define NO_ROWS INT32_MAX

struct lb_engine {
    struct lb_batcher *batcher;
    struct lb_metrics *metrics;
    struct lb_tape *tape;
    struct lb_arena scratch; /* of one batch */
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
    int32_t *offsets, *first, *ids;
    float *features;
    struct lb_input input;
    struct lb_tap *taps; /* room for every output of every job */
    size_t n_taps;
    bool needs_head;
};

static void place_slice(struct run *run, const struct lb_slice *slice, int64_t *s, int64_t input_size) {
    const struct lb_job *job = slice->job;
    for (int64_t b = slice->first; b < slice->first + slice->n; b++, (*s)++) {
        int32_t length = (int32_t)lb_job_length(job, b), at = run->offsets[*s];
        run->places[*s] = (struct lb_place){slice->job, b};
        run->offsets[*s + 1] = at + length;
        run->first[*s] = job->needs_head ? job->start[b] : NO_ROWS;
        if (run->ids) {
            memcpy(run->ids + at, job->ids + job->offsets[b], (size_t)length * sizeof *run->ids);
        } else {
            memcpy(run->features + at * input_size, job->features + b * input_size,
                   (size_t)input_size * sizeof *run->features);
        }
    }
    run->needs_head |= job->needs_head;
}

static void add_tap(struct run *run, enum lb_tap_kind kind, int layer) {
    for (size_t i = 0; i < run->n_taps; i++) {
        if (run->taps[i].kind == kind && run->taps[i].layer == layer) {
            return;
        }
    }
    run->taps[run->n_taps++] = (struct lb_tap){.kind = kind, .layer = layer};
}

static void add_taps(struct run *run, const struct lb_job *job) {
    for (size_t i = 0; i < job->n_outputs; i++) {
        const struct lb_output_name *what = &job->outputs[i].what;
        switch (lb_output_get(what->kind)->source) {
        case LB_FROM_LOGITS:
        case LB_FROM_FINAL:
            break;
        case LB_FROM_HIDDEN:
            add_tap(run, LB_TAP_HIDDEN, what->layer);
            break;
        case LB_FROM_ATTENTION:
            add_tap(run, LB_TAP_ATTENTION, what->layer);
            break;
        }
    }
}

static enum lb_status prepare(struct lb_engine *engine, const struct lb_batch *batch, struct run *run) {
    struct lb_arena *arena = &engine->scratch;
    size_t n = (size_t)batch->n_seqs, rows = (size_t)batch->n_tokens;
    int64_t input_size = lb_model_config(batch->model->model)->input_size;
    *run = (struct run){.batch = batch};
    lb_arena_reset(arena);
    run->places = lb_arena_array(arena, n, sizeof *run->places);
    run->offsets = lb_arena_zarray(arena, n + 1, sizeof *run->offsets);
    run->first = lb_arena_array(arena, n, sizeof *run->first);
    if (batch->model->decoder) {
        run->ids = lb_arena_array(arena, rows, sizeof *run->ids);
    } else {
        run->features = lb_arena_array(arena, rows * (size_t)input_size, sizeof *run->features);
    }
    size_t most_taps = 0;
    for (size_t i = 0; i < batch->n_slices; i++) {
        most_taps += batch->slices[i].job->n_outputs;
    }
    run->taps = lb_arena_array(arena, most_taps, sizeof *run->taps);
    if (!run->places || !run->offsets || !run->first || (!run->ids && !run->features) || !run->taps) {
        return LB_E_NOMEM;
    }
    int64_t s = 0;
    for (size_t i = 0; i < batch->n_slices; i++) {
        if (lb_job_allocate(batch->slices[i].job) != LB_OK) {
            return LB_E_NOMEM;
        }
        add_taps(run, batch->slices[i].job);
        place_slice(run, &batch->slices[i], &s, input_size);
    }
    run->input = (struct lb_input){{batch->n_seqs, run->offsets}, run->ids, run->features};
    return LB_OK;
}

static enum lb_status compute(struct lb_engine *engine, struct run *run) {
    const struct lb_model *model = run->batch->model->model;
    const struct lb_weight *head = lb_model_head(model);
    struct lb_extract extract;
    enum lb_status status =
        lb_extract_init(&extract, run->places, &run->input.ragged, head->rows, &engine->scratch);
    if (status != LB_OK) {
        return status;
    }
    lb_tape_begin(engine->tape, LB_TAPE_PLAIN, &run->input.ragged, NULL);
    struct lb_value *h = lb_model_forward(model, engine->tape, &run->input, run->taps, run->n_taps, NULL);
    if (!h) {
        status = lb_tape_status(engine->tape);
        return status != LB_OK ? status : LB_E_INTERNAL;
    }
    lb_extract_states(&extract, LB_FROM_FINAL, 0, h);
    for (size_t i = 0; i < run->n_taps; i++) {
        const struct lb_tap *tap = &run->taps[i];
        if (!tap->value) {
            return lb_tape_status(engine->tape) != LB_OK ? lb_tape_status(engine->tape) : LB_E_INTERNAL;
        }
        if (tap->kind == LB_TAP_HIDDEN) {
            lb_extract_states(&extract, LB_FROM_HIDDEN, tap->layer, tap->value);
        } else {
            lb_extract_attention(&extract, tap->layer, lb_model_config(model)->num_attention_heads,
                                 tap->value);
        }
    }
    return run->needs_head ? lb_head_run(engine->tape, h, head, lb_model_head_bias(model), run->first,
                                         lb_extract_logits, &extract)
                           : LB_OK;
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
    lb_metrics_add(engine->metrics, LB_METRIC_TOKENS, labels, (double)batch->n_tokens);
    lb_metrics_add(engine->metrics, LB_METRIC_SEQUENCES, labels, (double)batch->n_seqs);
    lb_metrics_add(engine->metrics, LB_METRIC_BATCH_SECONDS, labels, (double)ns / LB_SECOND_NS);
    lb_stats_batch(&batch->model->stats, batch->n_seqs, ns);
}

static void *work(void *argument) {
    struct lb_engine *engine = argument;
    struct lb_batch batch;
    while (lb_batcher_next(engine->batcher, &batch) == LB_OK) {
        struct lb_detail detail = {0};
        uint64_t begun = lb_now_ns();
        enum lb_status status = lb_engine_run(engine, &batch, &detail);
        uint64_t ns = lb_now_ns() - begun;
        observe(engine, &batch, ns);
        lb_batcher_finish(engine->batcher, &batch, status, &detail, ns);
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

/* ---- the self-test ---- */

enum lb_status lb_engine_run_self_test(struct lb_engine *engine, struct lb_hosted *hosted,
                                       bool *out_invariant, struct lb_detail *detail) {
    return lb_self_test(hosted->model, hosted->decoder, engine->tape, out_invariant, detail);
}

struct test_call {
    struct lb_engine *engine;
    struct lb_hosted *hosted;
    bool *out_invariant;
    struct lb_detail *detail;
    enum lb_status status;
};

static void run_test_call(void *argument) {
    struct test_call *call = argument;
    call->status = lb_engine_run_self_test(call->engine, call->hosted, call->out_invariant, call->detail);
}

enum lb_status lb_engine_self_test(struct lb_engine *engine, struct lb_hosted *hosted, bool *out_invariant,
                                   struct lb_detail *detail) {
    struct test_call call = {engine, hosted, out_invariant, detail, LB_OK};
    if (!lb_batcher_call(engine->batcher, run_test_call, &call)) {
        return lb_fail(detail, LB_E_CANCELLED, "the daemon is shutting down");
    }
    return call.status;
}
