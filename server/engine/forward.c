#include "server/engine/forward.h"

#include "common/base/clock.h"
#include "common/model/batch.h"
#include "common/model/model.h"
#include "common/nn/head.h"
#include "server/engine/extract.h"
#include "server/models/repository.h"

#include <string.h>

/* As the head's first row of a sequence: behind any end, so that none of its rows are computed. */
#define NO_ROWS INT32_MAX
/* Of a place: its states are known; there is no other. */
#define NOWHERE (-1)

/* A batch has places, one for each sequence of each job; the forward has the sequences that must be computed,
 * each once. */
struct run {
    const struct lb_batch *batch;
    struct lb_tape *tape;
    struct lb_known *known;
    uint64_t number;
    struct lb_place *places;
    int64_t n_places;
    /* Of each place: the one that asks the same of an equal sequence, or NOWHERE; the last before it that has
     * such a sequence and asks something else. */
    int64_t *same, *previous;
    int64_t *bodies;            /* of each place its sequence in the forward, or NOWHERE */
    struct lb_model_batch body; /* what the forward reads */
    struct lb_seen **of_body;   /* NULL: that sequence is nobody else's */
    struct lb_input input;
    int32_t *first; /* of each place, for the head */
    struct lb_tap *taps;
    enum lb_output_source *sources; /* of each tap */
    size_t n_taps;
    struct lb_part *asked; /* inner states, each kind and layer once */
    size_t n_asked;
    bool needs_head, needs_sentences, keeps;
    /* Final states: of the forward's sequences, of all places. */
    struct lb_value *h;
    const struct lb_ragged *of_h;
    int64_t cols;
    lb_extract_rows *finals, *rows; /* of each place; rows: of whatever is taken next */
    lb_extract_rows *by_body;       /* the same of the forward's sequences */
    struct lb_ragged of_head;
    int32_t *offsets; /* of_head's */
    struct lb_forward_counts counts;
};

/* ---- what is asked ---- */

static void add_body(struct run *run, const struct lb_job *job, int64_t b, struct lb_seen *seen) {
    run->of_body[run->body.n_seqs] = seen;
    if (run->body.ids) {
        lb_model_batch_add_ids(&run->body, job->ids + job->offsets[b], NULL, lb_job_length(job, b));
    } else {
        lb_model_batch_add_features(&run->body, job->features + b * run->body.input_size, -1);
    }
}

/* Whose states the sequence has: its own, an equal one's of this batch, or those that are known. */
static int64_t find_body(struct run *run, const struct lb_job *job, int64_t b) {
    struct lb_seen *seen = job->seen ? job->seen[b] : NULL;
    bool before = false, kept = run->keeps && seen && !job->apart;
    uint64_t begun = lb_now_ns();
    if (lb_known_has(run->known, job, b, &before)) {
        *(before ? &run->counts.known_tokens : &run->counts.joined_tokens) += lb_job_length(job, b);
        run->counts.found_seqs++;
        run->counts.found_ns += lb_now_ns() - begun;
        return NOWHERE;
    }
    run->counts.missed_ns += kept ? lb_now_ns() - begun : 0;
    if (seen && seen->run == run->number) {
        run->counts.joined_tokens += lb_job_length(job, b);
        return seen->body;
    }
    run->counts.missed_seqs += kept;
    if (seen) {
        seen->run = run->number;
        seen->body = run->body.n_seqs;
    }
    add_body(run, job, b, seen);
    return run->body.n_seqs - 1;
}

/* Whether nothing but the sequence decides the answer, of all that a job may ask. */
static bool is_plain(const struct lb_job *job) {
    return job->seen && job->n_scored == 0 && !job->draw && !job->apart && !job->kept;
}

static bool asks_same(const struct lb_place *a, const struct lb_place *b) {
    const struct lb_job *x = a->job, *y = b->job;
    bool same = x->start[a->seq] == y->start[b->seq] && x->map == y->map && x->top_k == y->top_k &&
                x->temperature == y->temperature && x->samples == y->samples &&
                x->sample_temperature == y->sample_temperature && x->seed == y->seed &&
                x->n_outputs == y->n_outputs;
    for (size_t i = 0; same && x != y && i < x->n_outputs; i++) {
        const struct lb_job_output *o = &x->outputs[i], *p = &y->outputs[i];
        same = o->what.kind == p->what.kind && o->what.layer == p->what.layer && o->datatype == p->datatype &&
               o->width == p->width && o->once == p->once;
    }
    return same;
}

/* An earlier place that has all that this one asks. */
static int64_t find_same(struct run *run, int64_t place) {
    const struct lb_place *own = &run->places[place];
    struct lb_seen *seen = is_plain(own->job) ? own->job->seen[own->seq] : NULL;
    if (!seen) {
        return NOWHERE;
    }
    int64_t last = seen->placed == run->number ? seen->place : NOWHERE;
    for (int64_t at = last; at != NOWHERE; at = run->previous[at]) {
        if (asks_same(own, &run->places[at])) {
            run->counts.copied_seqs++;
            return at;
        }
    }
    run->previous[place] = last;
    seen->placed = run->number;
    seen->place = place;
    return NOWHERE;
}

static void add_tap(struct run *run, enum lb_output_source source, int layer) {
    enum lb_tap_kind kind;
    if (!lb_hosted_tap(source, &kind)) {
        return;
    }
    for (size_t i = 0; i < run->n_taps; i++) {
        if (run->taps[i].kind == kind && run->taps[i].layer == layer) {
            return;
        }
    }
    run->sources[run->n_taps] = source;
    run->taps[run->n_taps++] = (struct lb_tap){.kind = kind, .layer = layer};
}

static void add_asked(struct run *run, const struct lb_job_output *o) {
    enum lb_output_source source = lb_output_get(o->what.kind)->source;
    enum lb_tap_kind kind;
    bool there = !lb_hosted_tap(source, &kind) || kind == LB_TAP_ATTENTION;
    for (size_t i = 0; i < run->n_asked; i++) {
        there |= run->asked[i].source == source && run->asked[i].layer == o->what.layer;
    }
    if (!there) {
        run->asked[run->n_asked++] = (struct lb_part){source, o->what.layer, o->width};
    }
}

static void place_slice(struct run *run, const struct lb_slice *slice) {
    const struct lb_job *job = slice->job;
    bool computed = false;
    for (int64_t b = slice->first; b < slice->first + slice->n; b++) {
        int64_t place = run->n_places++;
        int32_t first = lb_model_is_classifier(job->model->model) ? 0 : job->start[b];
        run->places[place] = (struct lb_place){slice->job, b};
        run->same[place] = find_same(run, place);
        run->first[place] = job->needs_head && run->same[place] == NOWHERE ? first : NO_ROWS;
        run->bodies[place] = find_body(run, job, b);
        computed |= run->bodies[place] != NOWHERE;
    }
    run->needs_head |= job->needs_head;
    for (size_t i = 0; i < job->n_outputs; i++) {
        const struct lb_output_name *what = &job->outputs[i].what;
        enum lb_output_source source = lb_output_get(what->kind)->source;
        run->needs_sentences |= source == LB_FROM_SENTENCE;
        add_asked(run, &job->outputs[i]);
        if (computed) {
            add_tap(run, source, what->layer);
        }
    }
}

static enum lb_status prepare(struct run *run, struct lb_arena *arena) {
    const struct lb_batch *batch = run->batch;
    size_t n = (size_t)batch->n_seqs, most_taps = batch->n_parts;
    int64_t input_size = lb_model_config(batch->model->model)->input_size;
    for (size_t i = 0; i < batch->n_slices; i++) {
        most_taps += batch->slices[i].job->n_outputs;
    }
    run->places = lb_arena_array(arena, n, sizeof *run->places);
    run->bodies = lb_arena_array(arena, n, sizeof *run->bodies);
    run->same = lb_arena_array(arena, n, sizeof *run->same);
    run->previous = lb_arena_array(arena, n, sizeof *run->previous);
    run->of_body = lb_arena_array(arena, n, sizeof(struct lb_seen *));
    run->first = lb_arena_array(arena, n, sizeof *run->first);
    run->finals = lb_arena_zarray(arena, n, sizeof *run->finals);
    run->rows = lb_arena_zarray(arena, n, sizeof *run->rows);
    run->offsets = lb_arena_zarray(arena, n + 1, sizeof *run->offsets);
    run->taps = lb_arena_array(arena, most_taps, sizeof *run->taps);
    run->sources = lb_arena_array(arena, most_taps, sizeof *run->sources);
    run->asked = lb_arena_array(arena, most_taps, sizeof *run->asked);
    run->by_body = lb_arena_zarray(arena, n, sizeof *run->by_body);
    if (!run->places || !run->bodies || !run->same || !run->previous || !run->of_body || !run->first ||
        !run->finals || !run->rows || !run->offsets || !run->taps || !run->sources || !run->asked ||
        !run->by_body ||
        !lb_model_batch_init(&run->body, arena, batch->n_seqs, batch->n_tokens, input_size, false)) {
        return LB_E_NOMEM;
    }
    for (size_t i = 0; i < batch->n_slices; i++) {
        if (lb_job_allocate(batch->slices[i].job) != LB_OK) {
            return LB_E_NOMEM;
        }
        place_slice(run, &batch->slices[i]);
    }
    for (size_t i = 0; i < batch->n_parts; i++) {
        add_tap(run, batch->parts[i].source, batch->parts[i].layer);
    }
    run->input = lb_model_batch_input(&run->body);
    return LB_OK;
}

/* ---- the forward ---- */

static enum lb_status failed(const struct run *run) {
    enum lb_status status = lb_tape_status(run->tape);
    return status != LB_OK ? status : LB_E_INTERNAL;
}

/* What others wait for, or may ask again. */
static void keep(struct run *run, enum lb_output_source source, int layer, const struct lb_ragged *ragged,
                 const struct lb_value *value) {
    const struct lb_part what = {source, layer, value->cols};
    uint64_t begun = lb_now_ns();
    for (int64_t i = 0; i < run->body.n_seqs; i++) {
        if (run->of_body[i]) {
            int64_t row = ragged->offsets[i], n = ragged->offsets[i + 1] - row;
            run->counts.dropped +=
                lb_known_keep(run->known, run->of_body[i], &what, n, value->data + row * value->cols);
        }
    }
    run->counts.missed_ns += run->keeps ? lb_now_ns() - begun : 0;
}

static enum lb_status forward(struct run *run) {
    const struct lb_model *model = run->batch->model->model;
    lb_tape_begin(run->tape, LB_TAPE_PLAIN, &run->input.ragged, NULL);
    if (run->body.n_seqs == 0) {
        return LB_OK;
    }
    run->h = lb_model_forward(model, run->tape, &run->input, run->taps, run->n_taps, NULL);
    if (!run->h) {
        return failed(run);
    }
    run->counts.computed_seqs = run->body.n_seqs;
    run->counts.computed_tokens = run->body.n_rows;
    run->of_h = lb_tape_ragged(run->tape);
    run->cols = run->h->cols;
    keep(run, LB_FROM_FINAL, 0, run->of_h, run->h);
    for (size_t i = 0; i < run->n_taps; i++) {
        if (!run->taps[i].value) {
            return failed(run);
        }
        if (run->taps[i].kind != LB_TAP_ATTENTION) {
            keep(run, run->sources[i], run->taps[i].layer, &run->input.ragged, run->taps[i].value);
        }
    }
    return LB_OK;
}

/* ---- the outputs ---- */

/* Where each place's final states are, and how many rows of them the head has. */
static void find_finals(struct run *run) {
    for (int64_t s = 0; s < run->n_places; s++) {
        const struct lb_place *p = &run->places[s];
        int64_t body = run->bodies[s], n = 0;
        if (body == NOWHERE) {
            run->finals[s] =
                lb_known_find(run->known, p->job->seen[p->seq], LB_FROM_FINAL, 0, &n, &run->cols);
        } else {
            n = run->of_h->offsets[body + 1] - run->of_h->offsets[body];
            run->finals[s] = run->h->data + run->of_h->offsets[body] * run->h->cols;
        }
        run->offsets[s + 1] = run->offsets[s] + (int32_t)n;
    }
    run->of_head = (struct lb_ragged){run->n_places, run->offsets};
}

static void take_attention(struct run *run, const struct lb_extract *extract, const struct lb_tap *tap) {
    int64_t heads = lb_model_config(run->batch->model->model)->num_attention_heads;
    const float *x = tap->value->data;
    for (int64_t i = 0; i < run->body.n_seqs; i++) {
        int64_t length = run->body.offsets[i + 1] - run->body.offsets[i];
        run->by_body[i] = x;
        x += heads * length * length;
    }
    for (int64_t s = 0; s < run->n_places; s++) { /* such a sequence is never known */
        run->rows[s] = run->bodies[s] == NOWHERE ? NULL : run->by_body[run->bodies[s]];
    }
    lb_extract_attention(extract, tap->layer, heads, run->rows);
}

static void take_inner(struct run *run, const struct lb_extract *extract, const struct lb_part *part) {
    const struct lb_value *value = NULL;
    int64_t n, cols = part->width;
    for (size_t i = 0; i < run->n_taps; i++) {
        bool same = run->sources[i] == part->source && run->taps[i].layer == part->layer;
        value = same ? run->taps[i].value : value;
    }
    for (int64_t s = 0; s < run->n_places; s++) {
        const struct lb_place *p = &run->places[s];
        if (run->bodies[s] == NOWHERE) {
            run->rows[s] =
                lb_known_find(run->known, p->job->seen[p->seq], part->source, part->layer, &n, &cols);
        } else {
            run->rows[s] = value ? value->data + run->body.offsets[run->bodies[s]] * cols : NULL;
        }
    }
    lb_extract_states(extract, part->source, part->layer, cols, run->rows);
}

/* Inner states of each kind and layer that some job asks for; attention where it was computed. */
static void take_all_inner(struct run *run, const struct lb_extract *extract) {
    for (size_t i = 0; i < run->n_asked; i++) {
        take_inner(run, extract, &run->asked[i]);
    }
    for (size_t i = 0; i < run->n_taps; i++) {
        if (run->taps[i].kind == LB_TAP_ATTENTION) {
            take_attention(run, extract, &run->taps[i]);
        }
    }
}

/* The final states of all places one behind the other, as if all had been computed; of rows that nothing
 * reads only the room. */
static struct lb_value *gather(struct run *run) {
    if (run->body.n_seqs == run->n_places) {
        return run->h;
    }
    int64_t step = lb_head_plain_chunk(lb_hosted_vocab(run->batch->model));
    struct lb_value *all = lb_tape_value(run->tape, run->offsets[run->n_places], run->cols);
    for (int64_t s = 0; all && s < run->n_places; s++) {
        int64_t n = run->offsets[s + 1] - run->offsets[s];
        int64_t from = run->needs_sentences ? 0 : run->first[s] / step * step;
        if (from < n) {
            memcpy(all->data + (run->offsets[s] + from) * run->cols, run->finals[s] + from * run->cols,
                   (size_t)((n - from) * run->cols) * sizeof *all->data);
        }
    }
    lb_tape_rows(run->tape, &run->of_head);
    return all;
}

static enum lb_status take_sentences(struct run *run, const struct lb_extract *extract, struct lb_value *h) {
    const struct lb_value *pooled = lb_model_pool(run->batch->model->model, run->tape, h);
    if (!pooled) {
        return failed(run);
    }
    for (int64_t s = 0; s < run->n_places; s++) {
        run->rows[s] = pooled->data + s * pooled->cols;
    }
    lb_extract_once(extract, LB_FROM_SENTENCE, pooled->cols, run->rows);
    return LB_OK;
}

static enum lb_status take_logits(struct run *run, struct lb_extract *extract, struct lb_value *h) {
    const struct lb_head *head = lb_model_head(run->batch->model->model);
    if (lb_extract_needs_rows(extract)) {
        return lb_head_run(run->tape, h, head, run->first, lb_extract_logits, extract);
    }
    const struct lb_head_reader reader = lb_extract_reader(extract);
    return lb_head_read(run->tape, h, head, run->first, &reader);
}

static enum lb_status fill_outputs(struct run *run, struct lb_arena *arena) {
    struct lb_extract extract;
    find_finals(run);
    enum lb_status status =
        lb_extract_init(&extract, run->places, &run->of_head, lb_hosted_vocab(run->batch->model), arena);
    if (status != LB_OK) {
        return status;
    }
    if (lb_model_is_classifier(run->batch->model->model)) {
        lb_extract_once(&extract, LB_FROM_FINAL, run->cols, run->finals);
    } else {
        lb_extract_states(&extract, LB_FROM_FINAL, 0, run->cols, run->finals);
        lb_extract_kept(&extract, run->cols, run->finals);
    }
    take_all_inner(run, &extract);
    if (!run->needs_head && !run->needs_sentences) {
        return LB_OK;
    }
    struct lb_value *h = gather(run);
    if (!h) {
        return failed(run);
    }
    status = run->needs_sentences ? take_sentences(run, &extract, h) : LB_OK;
    return status == LB_OK && run->needs_head ? take_logits(run, &extract, h) : status;
}

/* The outputs of places that ask what another does. */
static void copy_same(const struct run *run) {
    for (int64_t s = 0; s < run->n_places; s++) {
        if (run->same[s] == NOWHERE) {
            continue;
        }
        const struct lb_place *to = &run->places[s], *from = &run->places[run->same[s]];
        for (size_t i = 0; i < to->job->n_outputs; i++) {
            const struct lb_job_output *o = &to->job->outputs[i], *of = &from->job->outputs[i];
            size_t row_bytes = (size_t)o->width * lb_datatype_bytes(o->datatype);
            int64_t rows = o->once ? 1 : to->job->rows, rows_of = o->once ? 1 : from->job->rows;
            int64_t n = o->once ? 1 : lb_job_length(to->job, to->seq) - to->job->start[to->seq];
            memcpy((char *)o->data + (size_t)(to->seq * rows) * row_bytes,
                   (const char *)of->data + (size_t)(from->seq * rows_of) * row_bytes, (size_t)n * row_bytes);
        }
    }
}

enum lb_status lb_forward_run(const struct lb_batch *batch, struct lb_tape *tape, struct lb_arena *scratch,
                              struct lb_known *known, uint64_t number, struct lb_forward_counts *out) {
    struct run run = {.batch = batch,
                      .tape = tape,
                      .known = known,
                      .number = number,
                      .keeps = known && lb_known_state(known).max_bytes > 0};
    lb_arena_reset(scratch);
    enum lb_status status = prepare(&run, scratch);
    status = status == LB_OK ? forward(&run) : status;
    status = status == LB_OK ? fill_outputs(&run, scratch) : status;
    if (status == LB_OK) {
        copy_same(&run);
    }
    *out = run.counts;
    return status;
}
