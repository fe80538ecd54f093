/* A job: one infer request on its way through the queue and the engine.
 *
 * Made by lb_plan from a checked request (HTTP thread), handed to the batcher (which owns its schedule until
 * done is called), its outputs filled by the engine worker, read by the HTTP thread that answers. Never two
 * of them at once. Answers do not depend on batch-mates, so the engine works through a job's sequences in
 * slices of any size.
 */
#ifndef LB_ENGINE_JOB_H
#define LB_ENGINE_JOB_H

#include "common/base/arena.h"
#include "common/base/status.h"
#include "common/nn/sample.h"
#include "proto/outputs.h"
#include "proto/oip.h"

#include <stdbool.h>
#include <stdint.h>

struct lb_hosted;
struct lb_kept_ids;

/* In what order a heap holds jobs. */
enum lb_heap_kind { LB_BY_TURN, LB_BY_DEADLINE, LB_HEAP_KINDS };

struct lb_job_output {
    struct lb_output_name what;
    char name[LB_MAX_NAME];
    enum lb_datatype datatype;
    bool binary;
    bool streamed; /* made while the client reads, from the job's states: no data (server/engine/stream.h) */
    int n_dims;
    int64_t dim[LB_MAX_WIRE_DIMS];
    int64_t width; /* elements per returned row; where there are heads: of one row of one head */
    bool once;     /* one row a sequence, whatever start says */
    size_t bytes;
    void *data; /* zeroed, then filled; the job's */
};

/* What is drawn of the distribution behind each sequence's end, beside the outputs. */
struct lb_job_draw {
    double temperature; /* above 0 */
    int64_t top_k;      /* 0: all */
    double top_p;       /* 1: all */
    uint64_t seed;      /* of each sequence alike: what is drawn depends on the sequence only */
    int32_t *ids;       /* [B] */
    float *logprobs;    /* [B] at that temperature, of the whole distribution */
    double *lifts; /* [B] what log p at the job's temperature, times that and over this, lacks of log p */
};

/* States that an output is made of, of those that can be kept: inner ones of one kind and layer. */
struct lb_part {
    enum lb_output_source source;
    int layer;
    int64_t width; /* columns */
};

struct lb_job {
    struct lb_hosted *model; /* a reference */
    struct lb_arena arena;   /* all below but the outputs' data */

    /* What is asked. */
    int64_t n_seqs;        /* B */
    int64_t n_tokens;      /* rows of all sequences */
    int32_t *offsets;      /* [B + 1] into ids */
    int32_t *start;        /* [B] first row to return */
    int64_t padded_t;      /* T of the request */
    int64_t rows;          /* returned rows per sequence: T of the outputs */
    int32_t *ids;          /* [n_tokens]; NULL for classifiers */
    const float *features; /* [B, input_size]; NULL for decoders */
    int64_t top_k;         /* at most V */
    double temperature;
    struct lb_kept_ids *map; /* the ids that distributions are over; a reference; NULL: all */
    int64_t n_scored;        /* K' of score_ids; 0: none */
    /* [n_tokens, 1 + K'] of returned rows: the sequence's next token, then score_ids; -1: none. All ids are
     * the model's own, whatever map there is. */
    int32_t *scored;
    int64_t samples; /* draws of each row; 0: none */
    double sample_temperature;
    uint64_t seed, *streams; /* [n_tokens] of random numbers; what decides the row decides them */
    /* Some output is made of logits, depends on top_k, on draws. */
    bool needs_head, needs_topk, needs_samples;
    struct lb_job_draw *draw; /* set before lb_engine_admit; NULL: nothing is drawn */
    size_t n_outputs;
    struct lb_job_output *outputs;
    size_t output_bytes;   /* of all outputs together */
    size_t streamed_bytes; /* of them those that are streamed: they take no memory */
    /* Final states [rows, C] for those: from each sequence's first chunk that is wanted to its end. */
    int32_t *kept; /* [B] row of states at which a sequence begins; NULL: none are kept */
    size_t state_bytes;
    float *states; /* on the heap */

    /* For the schedule, set before it is submitted. */
    uint64_t deadline_ns; /* 0: none */
    int rank;             /* lower goes first, among its client's */
    const void *client;   /* clients take turns; NULL: one like any other */
    uint64_t taps;        /* of what parts lack; jobs of unlike taps don't share a batch; 0: none */
    size_t base_bytes, row_bytes, square_bytes; /* tape: of a batch; of a sequence of n rows, n row_bytes and
                                                   n^2 square_bytes (lb_engine_admit) */

    size_t parts_row_bytes; /* beside that, of rows with the states of parts */
    double known_cost;      /* what a row costs whose final state is there; a row: 1 */
    size_t known_row_bytes; /* and what tape it needs */
    /* What equal sequences share (server/engine/known.h), between submit and the end: [B] and inner states.
     */
    struct lb_seen **seen;
    struct lb_part *parts;
    size_t n_parts;
    bool apart; /* some output is made of what is never kept */

    /* The schedule: the batcher's, under its lock. */
    uint64_t queued_ns, started_ns, finished_ns, compute_ns;
    uint64_t turn_ns, number; /* its place among its client's */
    int64_t next_seq, done_seqs;
    int n_batches;
    bool queued;      /* with the batcher */
    int64_t out_seqs; /* in the engine's hands */
    bool cancelled;   /* nobody wants the answer */
    size_t place[LB_HEAP_KINDS];
    size_t slice; /* while a batch is formed: which one, + 1 */
    struct lb_queue *queue;
    struct lb_job *previous, *next;

    /* The result. */
    enum lb_status status;
    struct lb_detail detail;
    void (*done)(struct lb_job *job); /* called once, from the worker or the reaper, without locks held */
    void *context;                    /* for done */
};

static inline int64_t lb_job_length(const struct lb_job *job, int64_t seq) {
    return job->offsets[seq + 1] - job->offsets[seq];
}

/* Tape that a sequence needs, as estimated, but for the states of parts. */
static inline size_t lb_job_tape(const struct lb_job *job, int64_t seq) {
    size_t n = (size_t)lb_job_length(job, seq);
    return n * job->row_bytes + n * n * job->square_bytes;
}

/* The first row of a sequence whose state is kept, where chunks of the head have step rows. */
static inline int64_t lb_job_first_kept(const struct lb_job *job, int64_t seq, int64_t step) {
    return job->start[seq] / step * step;
}

/* What is drawn from row t of a sequence. */
static inline struct lb_draw lb_job_row_draw(const struct lb_job *job, int64_t seq, int64_t t) {
    return (struct lb_draw){.n = job->samples,
                            .temperature = job->sample_temperature,
                            .seed = job->seed,
                            .stream = job->samples > 0 ? job->streams[job->offsets[seq] + t] : 0};
}

/* An empty job on the heap; NULL when out of memory. */
struct lb_job *lb_job_create(size_t max_arena_bytes);
/* Gives the reference to the model back and frees everything. Accepts NULL. Not while it is queued. */
void lb_job_destroy(struct lb_job *job);
/* Numbers of its outputs that go out as JSON. */
size_t lb_job_json_numbers(const struct lb_job *job);
/* Makes the outputs' memory (zeroed) if it isn't there. LB_E_NOMEM: it may be tried again, with what was made
 * so far. */
enum lb_status lb_job_allocate(struct lb_job *job);

#endif
