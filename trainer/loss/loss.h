/* The losses. One table (loss.c), one file a loss, each with formula, paper and gradient in its header
 * comment.
 *
 * Losses are nats (or squared units) per counted position; the caller passes the factor that makes the mean.
 * Adding a loss: its file with a `const struct lb_loss lb_loss_<name>`, that file's line in meson.build, and
 * one line in loss.c's table. A parameter of its own is a member of struct lb_loss_args and a line in
 * trainer/recipe/fields.c, and where a loss has a default of its own, a line in lb_loss_fill.
 */
#ifndef LB_LOSS_LOSS_H
#define LB_LOSS_LOSS_H

#include "trainer/loss/row.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LB_MAX_LOSSES 16 /* of one recipe */

/* One entry of loss_functions, as the recipe gives it; NAN: it is silent about one from contrast_temp on. */
struct lb_loss_args {
    double weight;          /* of this loss in the sum */
    double temperature;     /* both distributions are softened by it */
    bool normalize;         /* states: by the mean square of the teacher's */
    int64_t relation_heads; /* queries, keys, values: parts of a row that are compared by themselves; 0: as
                               many as the student's attention has heads */
    bool first_token;       /* states: of each text's first position only */
    double contrast_temp;   /* states: cosines are divided by it */
    double bce_temp;        /* chunks: their log-likelihoods are divided by it */
    double label_smoothing; /* labels: share of the even distribution */
    double z_loss;          /* labels: weight of the squared log-sum-exp */
    double alpha, beta;     /* divergences: what their files say */
    double gamma;           /* dist: weight of the part between samples */
    double clamp;           /* rows: most that one counts, see lb_loss_row; 0: no limit */
};

/* How a teacher's distribution is known; a loss names those it can compare with. */
enum lb_target_kind {
    LB_TARGET_DENSE = 1,     /* p of every class */
    LB_TARGET_TRUNCATED = 2, /* p_at of k ids, the mass of all others in tail */
    LB_TARGET_SAMPLED = 4    /* p_at of k ids that were drawn, the others' are 0: p on average only */
};

/* A teacher's (or a mixture's) distribution for one row, at the loss's temperature. */
struct lb_columns;
struct lb_target {
    enum lb_target_kind kind;
    double temperature;
    const float *z; /* dense: logits of this distribution [V], one's or a mean of several's; NULL for a mean
                       of several distributions, and of logits unless a loss is on_logits */
    const float *p; /* dense: probabilities [V] */
    double neg_entropy;     /* dense: sum p log p */
    int64_t k;              /* truncated */
    const int32_t *ids;     /* [k], each once, in any order */
    const float *p_at;      /* [k] */
    double tail;            /* truncated */
    const int32_t *own_ids; /* [k] of a teacher of other tokens, in falling order of p_at: the student's ids
                               of the same text, -1: it has none; ids is NULL then */
    const uint8_t *common;  /* [V] such a teacher's: whether it has the token too */
    const struct lb_columns
        *columns;  /* dense: over the micro-batch, where a loss is between_samples; else NULL */
    bool add_tail; /* truncated: keep the tail as one bucket, else renormalise over the ids */
    double mass;   /* what of the teacher's whole distribution this is, made to sum to 1 again; less than 1
                      where the student's vocabulary is a part of the teacher's, and 1 on average where draws
                      are weighed. Whoever calls the loss multiplies by it, see learn/targets.c */
};

/* One row of logits: adds scale * dL/dz to dz [V] and returns L (neither scaled nor weighted). target is NULL
 * for losses on labels. row->work is the loss's to use. */
typedef double (*lb_row_loss)(struct lb_row *row, const struct lb_target *target,
                              const struct lb_loss_args *args, float scale, float *dz);

/* Also for other losses on states than those they are of (hs_mse.c, hs_cosine.c, similarity_preserving.c). */
struct lb_states;
double lb_states_mse(const struct lb_states *states, const struct lb_loss_args *args, double scale,
                     float *da);
double lb_states_cosine(const struct lb_states *states, const struct lb_loss_args *args, double scale,
                        float *da);
double lb_states_similarity(const struct lb_states *states, const struct lb_loss_args *args, double scale,
                            float *da);
size_t lb_similarity_work(const struct lb_states *states, const struct lb_loss_args *args);
/* Rows of the largest group. */
int64_t lb_states_longest(const struct lb_states *states);

/* Activations of one pair of layers, a the student's (projected where widths differ, unless the loss takes
 * any), b the teacher's. Hidden states: all rows of the micro-batch. Sentences: one row a sequence.
 * Attention: one sequence of T positions, n = heads * T rows (row h T + i is what position i attends to in
 * head h, nothing beyond its entry i), width T. */
struct lb_states {
    const float *a, *b; /* [n, width] and [n, b_width] */
    int64_t n, width, b_width;
    const double *row_weight; /* [n]: row i counts so many times; 0: absent */
    double inverse_square; /* for normalize: 1 / the mean square of b over all rows of the optimizer step that
                              count, of which these may be a part; 1 where that is 0. Else 1 */
    int64_t n_groups;
    const int32_t *groups; /* [n_groups + 1] rows that losses among rows compare: of a text; where a sequence
                              has one row, of all of them */
    void *work;            /* as many bytes as the loss asks for */
    int64_t heads;         /* attention; 0: hidden states */
    bool both_ways;        /* attention: of an encoder, no entry is nothing */
    int student_layer, teacher_layer; /* numbers; -1: the final hidden state */
};

/* Adds scale * dL/da to da [n, width] and returns the weighted sum of L over rows. */
typedef double (*lb_state_loss)(const struct lb_states *states, const struct lb_loss_args *args, double scale,
                                float *da);

/* The sum of task(context, i, memory) over i < n, added up in their order; threads take whole tasks, which do
 * not write what another reads. memory: `each` bytes of the thread's own, aligned to 64. work: of
 * lb_states_tasks_bytes. */
double lb_states_tasks(int64_t n, size_t each, void *work,
                       double (*task)(const void *context, int64_t i, void *memory), const void *context);
size_t lb_states_tasks_bytes(int64_t n, size_t each);
/* The sum of row(context, i) over the rows i of the states, added up in their order; all threads make them.
 */
double lb_states_sum(const struct lb_states *states, double (*row)(const void *context, int64_t i),
                     const void *context);

/* One chunk of text, of log-likelihoods its (the teacher's) and own (the student's), both at temperature 1:
 * returns L, and dL/d own in out_slope. */
typedef double (*lb_chunk_loss)(double its, double own, const struct lb_loss_args *args, double *out_slope);

enum lb_loss_on {
    LB_ON_LABEL,     /* rows of logits and labels */
    LB_ON_TARGET,    /* rows of logits and a teacher's distribution */
    LB_ON_HIDDEN,    /* hidden states, projected where widths differ */
    LB_ON_ATTENTION, /* attention probabilities, and what they are made of: */
    LB_ON_QUERIES,
    LB_ON_KEYS,
    LB_ON_VALUES,
    LB_ON_SENTENCE, /* sentence embeddings, one row a sequence, projected where widths differ */
    LB_ON_CHUNK,    /* log-likelihoods of pieces of text, whose tokens may differ */
    LB_ON_ALIGNED /* rows of logits and the list of a teacher of other tokens, which has read the same text */
};

/* Which rows a loss on states compares with each other. */
enum lb_among {
    LB_AMONG_NONE,      /* each is by itself */
    LB_AMONG_POSITIONS, /* a text's; there are none where a sample has one row */
    LB_AMONG_ROWS       /* a text's positions; where a sample has one row, the samples of a micro-batch */
};

struct lb_loss {
    const char *name;
    enum lb_loss_on on;
    bool on_logits;               /* on a target: it reads target->z */
    bool between_samples;         /* on a target: it reads target->columns where its gamma is not 0 */
    unsigned kinds;               /* on a target: those of enum lb_target_kind that it can compare with */
    bool any_width;               /* on states: nothing is projected */
    enum lb_among among;          /* on states: what a row's loss depends on besides it */
    const char *parameters;       /* keys of its entry in loss_functions beside function and weight: "a, b" */
    struct lb_loss_args defaults; /* of what the recipe is silent about */
    /* What is wrong with its parameters, defaults filled in, in words that begin with a key; NULL: nothing,
     * and where .wrong is NULL anything is right. with_tail: it learns from lists and the tail's mass. */
    const char *(*wrong)(const struct lb_loss_args *args, bool with_tail);
    lb_row_loss row;     /* on labels, targets and what is aligned */
    lb_state_loss state; /* on activations */
    size_t (*work)(const struct lb_states *,
                   const struct lb_loss_args *); /* on activations: bytes that it works with; NULL: none */
    lb_chunk_loss chunk;                         /* on chunks */
};

/* Whether teachers that read other tokens than the student can be learnt from by it. */
static inline bool lb_loss_unlike(const struct lb_loss *loss) {
    return loss->on == LB_ON_CHUNK || loss->on == LB_ON_ALIGNED;
}

/* Whether what it is on counts its layers from 0 by the block that makes it; else hidden states. */
static inline bool lb_loss_by_block(const struct lb_loss *loss) {
    return loss->on >= LB_ON_ATTENTION && loss->on <= LB_ON_VALUES;
}

/* The i-th of the table; NULL behind the last. */
const struct lb_loss *lb_loss_at(size_t i);
/* NULL when there is none of that name. */
const struct lb_loss *lb_loss_find(const char *name);
/* What the recipe is silent about becomes the loss's default. */
void lb_loss_fill(const struct lb_loss *loss, struct lb_loss_args *args);
/* A loss on labels or targets with what all of these have: where args->clamp is not 0, a row's L (before any
 * weight) counts as at most that, and above it has no gradient. row->apart must be there then. */
double lb_loss_row(const struct lb_loss *loss, struct lb_row *row, const struct lb_target *target,
                   const struct lb_loss_args *args, float scale, float *dz);
/* Whether the loss reads that key of its entry. */
bool lb_loss_reads(const struct lb_loss *loss, const char *key);

#endif
