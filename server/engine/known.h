/* What is known of sequences: the final states that a model made of one, and the inner states that were
 * asked, so that equal sequences are computed once, whoever asks and whatever is asked of them.
 *
 * A sequence is an opened model and its ids, compared one by one: another model's states, or those of other
 * ids, are never found. While a job waits for a sequence it holds a reference; what nobody waits for is
 * dropped, least recently used first, when bytes are needed. What is waited for stays, and when all the room
 * is taken by that, what comes new is not kept: whoever waits for it has it computed again.
 *
 * Any thread may join, leave and forget: one lock, held for a few steps. States are read and kept by the
 * worker alone, and stay while a job refers to their sequence.
 */
#ifndef LB_ENGINE_KNOWN_H
#define LB_ENGINE_KNOWN_H

#include "common/base/status.h"
#include "server/engine/job.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* States of one kind that a sequence has, or jobs wait for. */
struct lb_piece {
    struct lb_part what;
    int waiting; /* jobs that ask for inner states; final ones are always kept */
    float *data; /* [rows, what.width]; NULL: not there */
    int64_t rows;
};

/* One sequence. */
struct lb_seen {
    /* The worker's: in which batch it was put last; in which run its forward is, and as which sequence; in
     * which run it has a place, and the last one. */
    uint64_t formed, run, placed;
    int64_t body, place;
    /* All else is this module's, under its lock. */
    struct lb_seen *next;          /* of its bucket; of what is to be freed */
    struct lb_seen *older, *newer; /* among those that nobody waits for, by their last use */
    uint64_t hash, instance;
    int references;
    size_t bytes;     /* as counted: 0 without states */
    uint64_t made_ns; /* when the last states came */
    struct lb_piece final, *inner;
    size_t n_inner;
    int64_t n;
    int32_t ids[];
};

struct lb_known;

/* max_bytes: of states and what belongs to them, but for what jobs that wait hold of ids
 * (lb_known_job_bytes); 0: none are kept, and sequences are only told to be equal. hash_mask: UINT64_MAX;
 * tests have fewer bits, so that unlike sequences fall together. NULL when out of memory. */
struct lb_known *lb_known_create(size_t max_bytes, uint64_t hash_mask);
/* All jobs have left. Accepts NULL. */
void lb_known_destroy(struct lb_known *known);

/* Fills in job->parts, what can be kept of what its outputs are made of. False without memory, and of models
 * that read features. */
bool lb_known_parts(struct lb_job *job);
/* Fills in job->seen, and job->parts where it isn't yet; without memory, and of models that read features,
 * these are left NULL or hold NULL, and such sequences are computed by themselves. */
void lb_known_join(struct lb_known *known, struct lb_job *job);
/* The job waits no more for n of its sequences, from first on. Nothing happens for those it has left. */
void lb_known_leave(struct lb_known *known, struct lb_job *job, int64_t first, int64_t n);
/* What a job that waits holds here, at most. */
size_t lb_known_job_bytes(const struct lb_job *job);
/* An opened model is gone (lb_hosted.instance), and what was known of it goes. No job has references. */
void lb_known_forget(struct lb_known *known, uint64_t instance);
/* Memory is short: drops all that nobody waits for. */
void lb_known_empty(struct lb_known *known);

/* ---- the worker's; the job has not left the sequence ---- */

/* Whether all is there that the job's outputs are made of; *out_before (may be NULL): since before it was
 * queued. */
bool lb_known_has(struct lb_known *known, const struct lb_job *job, int64_t seq, bool *out_before);
/* States that a sequence's forward should keep besides what the job asks, as others wait for them or asked
 * them of this model lately: up to most parts to out. Returns how many. */
size_t lb_known_wanted(struct lb_known *known, const struct lb_job *job, int64_t seq, struct lb_part *out,
                       size_t most);
/* The states of a sequence, [*out_rows, *out_cols]; NULL when they aren't there. */
const float *lb_known_find(struct lb_known *known, struct lb_seen *seen, enum lb_output_source source,
                           int layer, int64_t *out_rows, int64_t *out_cols);
/* Copies states [rows, what->width] where there is room: final ones, and inner ones that somebody waits for
 * or that were asked of this model lately. Returns how many sequences were dropped for it. */
size_t lb_known_keep(struct lb_known *known, struct lb_seen *seen, const struct lb_part *what, int64_t rows,
                     const float *data);

struct lb_known_state {
    size_t bytes, max_bytes; /* held */
    size_t sequences;        /* of which there are states */
    size_t waited;           /* for which jobs wait, with or without */
};
struct lb_known_state lb_known_state(struct lb_known *known);

#endif
