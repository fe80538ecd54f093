/* Inside of a step: what its files share. Only trainer/learn includes this.
 */
#ifndef LB_LEARN_PARTS_H
#define LB_LEARN_PARTS_H

#include "common/base/arena.h"
#include "common/model/batch.h"
#include "trainer/learn/step.h"
#include "trainer/learn/totals.h"
#include "trainer/loss/columns.h"

/* A distribution made for one row, kept for the losses that compare with it. */
struct lb_made_target {
    bool made, there; /* there: somebody answered about this row */
    unsigned who;     /* a teacher, or n_teachers: their mixture */
    unsigned set;     /* of teachers, which that is of */
    double temperature;
    struct lb_target target;
    float *p;     /* [V] dense, or one per id */
    float *z;     /* [V] the mean of several's logits, where a loss reads it; else NULL */
    int32_t *ids; /* truncated */
};

/* What one thread works with. */
struct lb_worker {
    struct lb_row row;
    float *dz; /* [V] */
    unsigned n_targets;
    struct lb_made_target *targets; /* [n_targets] */
    struct lb_made_target alone;    /* where one teacher's is asked for whatever its weight */
    float *gradients; /* [teachers, V] at the student's logits, where weights are made of them */
    /* steps that are watched */
    float *unused; /* [V] a gradient that nobody reads */
    /* mixing and cutting of truncated distributions */
    int32_t *slot;             /* [V], all -1 */
    int32_t *list_ids;         /* [teachers, K] */
    float *list_p;             /* [teachers, K] */
    int32_t *list_ids_aligned; /* [K] of one that reads other tokens */
    float *list_p_aligned;     /* [K] */
};

/* How sure a teacher is of one row, at temperature 1. */
struct lb_confidence {
    double entropy, max_prob;
};

/* Of the LB_OVERLAP_K likeliest ids of student and teacher (of all that a shorter list has): the share that
 * is the same, what the student gives to the teacher's, and the teacher to the student's (of a list at
 * least). */
#define LB_OVERLAP_K 16
struct lb_overlap {
    double ratio, student_mass, teacher_mass;
};

/* What one teacher says by itself about one row. */
struct lb_seen {
    bool there, overlaps; /* overlaps: that is known */
    struct lb_overlap overlap;
    int32_t top; /* the likeliest class, in the student's ids; -1: not known */
    double loss;
};

enum lb_culprit {
    LB_CULPRIT_NONE, /* nobody's, as far as is known */
    LB_CULPRIT_STUDENT,
    LB_CULPRIT_TEACHER /* and its index */
};

struct lb_step {
    const struct lb_plan *plan;
    struct lb_model *student;
    struct lb_tape *tape;
    struct lb_arena memory; /* what one micro-batch needs beside the tape */
    int64_t v, top_k;       /* top_k: the most of any teacher */
    /* one micro-batch: its rows and the student's forward */
    struct lb_answered batch;   /* the rows that the head multiplies: of classifiers one a sample */
    struct lb_answered tokens;  /* the rows of hidden states and attention: of classifiers of texts others */
    int64_t n_rows;             /* N, of batch */
    const int32_t *labels;      /* [N]; -1: does not count, or by_sample: nobody knows */
    struct lb_model_batch rows; /* what the student reads */
    struct lb_input in;
    struct lb_tap taps[LB_MAX_PAIRS];
    struct lb_value *states; /* final [N, C]; NULL: no forward waits for its losses */
    /* its losses */
    int64_t now, total;                      /* the optimizer step's number, and how many there are */
    struct lb_loss_args args[LB_MAX_LOSSES]; /* now */
    bool weighed;                            /* lb_step_set_weight was called: with these */
    double weight_positions, weight_samples;
    double inverse;           /* 1 / rows of the optimizer step, as often as they weigh */
    double inverse_sequences; /* 1 / its sequences, likewise */
    const struct lb_step_totals *totals;
    struct lb_confidence *confidence; /* [teachers, N]; NULL: the mixture needs none */
    double *gram; /* [N, teachers, teachers] inner products of gradients; not made: weights need none */
    double *mix;  /* weights [sets, rows or samples, teachers], see lb_step_mix */
    double *state_mix[LB_MAX_LOSSES]; /* weights [rows or samples, teachers] of pairs that are by_head */
    double *row_loss;                 /* [losses, N] */
    double *own;      /* [N] log q of the labels, for losses on chunks; NULL: there are none */
    double *slope;    /* [N] their gradient by it, weighted */
    double *mass;     /* [teachers, N] what the student's vocabulary has of a teacher's distribution; -1: not
                         read. NULL: no teacher is asked through a map */
    int32_t *aligned; /* [teachers, N] the teacher's position where a chunk begins, -1: none; NULL: no loss
                         is on those */
    double *aligned_loss;       /* [teachers, N] the first loss of each, weighted */
    struct lb_columns *columns; /* [losses, teachers or 1]; NULL: no loss is between samples */
    bool watch;
    struct lb_seen *seen;               /* [teachers, N]; NULL: not watched */
    double apart_loss[LB_MAX_TEACHERS]; /* the first loss of each teacher's that is not on distributions,
                                           weighted */
    const struct lb_pair *bad_pair;     /* the first whose loss is not finite */
    int8_t *culprit;                    /* [N] whose numbers made a row's loss not finite: enum lb_culprit */
    float *z[LB_MAX_TEACHERS];          /* teachers' logits of one chunk */
    float *teacher_states;              /* workspace of lb_target_logits */
    struct lb_worker *workers;          /* one per thread */
};

/* Whether a sample has one row in the pair: features, a classifier's final state, a sentence's embedding. */
static inline bool lb_pair_once(const struct lb_model *student, const struct lb_pair *pair) {
    return pair->once || pair->kind == LB_OUT_SENTENCE || lb_model_config(student)->input_size > 0;
}

/* Whether the head has other rows than the hidden states: of classifiers of texts. */
static inline bool lb_step_head_apart(const struct lb_step *step) {
    return step->batch.offsets != step->tokens.offsets;
}

/* Whether the teachers' weights are made for each token; else for each sample. */
static inline bool lb_step_mix_per_token(const struct lb_step *step) {
    return step->plan->recipe->mixture_per == LB_PER_TOKEN && !step->batch.by_sample;
}

/* Whether loss l is on the text of this micro-batch. */
static inline bool lb_step_on(const struct lb_step *step, size_t l) {
    return lb_plan_on(step->plan, l, step->batch.samples[0].source);
}

/* How often the losses of sample s count. */
static inline double lb_step_weight(const struct lb_step *step, int64_t s) {
    return lb_sample_weight(&step->batch.samples[s]);
}

/* How many times they are made for each of the plan's sets of teachers. */
static inline size_t lb_step_mixes(const struct lb_step *step) {
    return (size_t)(lb_step_mix_per_token(step) ? step->n_rows : step->batch.n_samples);
}

/* The teachers' weights [teachers] for one row of a sample in loss l. */
static inline const double *lb_step_mix(const struct lb_step *step, size_t l, int64_t sample, int64_t row) {
    size_t set = step->plan->losses[l].set, one = (size_t)(lb_step_mix_per_token(step) ? row : sample);
    return step->mix + (set * lb_step_mixes(step) + one) * step->plan->n_teachers;
}

/* The weight of the pair's teacher for one row of a sample. */
static inline double lb_step_pair_mix(const struct lb_step *step, const struct lb_pair *p, int64_t sample,
                                      int64_t row) {
    int64_t one = lb_step_mix_per_token(step) ? row : sample;
    return p->by_head ? step->state_mix[p->loss][one * (int64_t)step->plan->n_teachers + p->teacher]
                      : lb_step_mix(step, p->loss, sample, row)[p->teacher];
}

/* weights.c: the teachers' weights [teachers] in a set of the plan's, for sample i of the batch, its token t
 * or with t < 0 all of it. */
void lb_step_weigh_one(const struct lb_step *step, const struct lb_answered *batch, unsigned set, int64_t i,
                       int64_t t, double *out);
/* The same of any batch, also of one that no forward has read: where weights need more than answers tell by
 * themselves, those of the recipe. */
void lb_step_weigh_ahead(const struct lb_step *step, const struct lb_answered *batch, unsigned set, int64_t i,
                         int64_t t, double *out);
/* Weighs the teachers and adds the mean weight of each, in the set of the first loss that learns from it, to
 * total [teachers]. false: out of memory. */
bool lb_step_weigh(struct lb_step *step, double *total);

/* plan.c: adds an output to what a teacher is asked, once; LB_E_LIMIT: there are too many. */
LB_NODISCARD enum lb_status lb_plan_ask(struct lb_ask_spec *spec, enum lb_output_kind kind, int layer,
                                        enum lb_datatype datatype, struct lb_detail *detail);
/* The first loss that learns from teacher k and not from labels; n_losses: there is none. */
size_t lb_plan_first_loss(const struct lb_plan *plan, unsigned k);
/* pairs.c: the pairs of activations of loss l with each teacher that it learns from. */
LB_NODISCARD enum lb_status lb_plan_pairs(struct lb_plan *plan, struct lb_model *student, unsigned l,
                                          struct lb_detail *detail);

/* totals.c: what makes a mean of loss l's sum over the optimizer step: of its positions, or of its sequences.
 */
double lb_step_inverse(const struct lb_step *step, size_t l);
/* The denominator of a pair of activations, as a factor; 1: its loss has none. */
double lb_step_inverse_square(const struct lb_step *step, const struct lb_pair *p);

/* targets.c: what loss l compares row's logits with: teacher `who`'s distribution, or for who = n_teachers
 * the mixture's. in_chunk: the row's place in step->z. NULL: nobody who counts answered. */
const struct lb_target *lb_step_target(const struct lb_step *step, struct lb_worker *worker, size_t l,
                                       unsigned who, int64_t row, int64_t in_chunk);
/* Teacher k's distribution for loss l whatever its weight, in a step that is watched or weighs by gradients;
 * NULL: it means nothing that the student has. Good until the next call. */
const struct lb_target *lb_step_target_alone(const struct lb_step *step, struct lb_worker *worker, size_t l,
                                             unsigned k, int64_t row, int64_t in_chunk);
/* The likeliest class of one teacher's distribution, the first of equal ones; -1: it does not tell. */
int32_t lb_step_top(const struct lb_step *step, const struct lb_target *target);
/* overlap.c: q [v] the student's distribution at the target's temperature. False: the target is of draws. */
bool lb_overlap(const float *q, int64_t v, const struct lb_target *target, struct lb_overlap *out);
/* The length of teacher k's lists. */
int64_t lb_step_top_k(const struct lb_step *step, unsigned k);
/* step->mass of a micro-batch; false: out of memory. */
bool lb_step_masses_init(struct lb_step *step);
/* How sure teacher k is of the row, which it answered. Lists: the largest probability is exact; what is not
 * listed is taken as even, so that the entropy is at most tail log((V - K) p / tail) too large, p the least
 * that is listed. Of a trimmed vocabulary: of the part of the distribution that the student has. */
struct lb_confidence lb_step_confidence_at(const struct lb_step *step, struct lb_worker *worker, unsigned k,
                                           int64_t row, int64_t in_chunk);
/* Memory for them. */
bool lb_step_targets_init(struct lb_step *step, struct lb_worker *worker);

/* chunks.c: losses on chunks, before the rows; false: out of memory. */
bool lb_step_chunks(struct lb_step *step);
/* Of the labels in sample s's chunks under teacher k, nats per token of the student's; 0: there is none. */
double lb_step_chunks_cross_entropy(const struct lb_answered *batch, unsigned k, int64_t s);
/* What of the samples lies in chunks, for teachers that are unlike. */
void lb_step_chunks_count(const struct lb_step *step, struct lb_step_result *result);

/* state_weights.c: step->state_mix of a micro-batch; false: out of memory. */
bool lb_step_weigh_states(struct lb_step *step);

/* gradients.c: step->gram of a micro-batch; false: out of memory. */
bool lb_step_gradients(struct lb_step *step);
/* The sum [teachers, teachers] over sample i, or its token t where that is not negative. */
void lb_step_gram(const struct lb_step *step, int64_t i, int64_t t, double *out);

/* between.c: step->columns of a micro-batch whose weights are made; false: out of memory. */
bool lb_step_between(struct lb_step *step);
/* What loss l against `who` reads of them (see lb_step_target); NULL: nothing. */
const struct lb_columns *lb_step_columns(const struct lb_step *step, size_t l, unsigned who);

/* watch.c: memory; false: out of memory. */
bool lb_step_watch_init(struct lb_step *step);
/* What teachers say about a row whose losses are made. */
void lb_step_watch_row(const struct lb_step *step, struct lb_worker *worker, int64_t row, int64_t in_chunk);
/* Adds all of it to result; weight [teachers]: the micro-batch's part of the mean weights. */
void lb_step_watch_add(const struct lb_step *step, const double *weight, struct lb_step_result *result);

/* aligned.c: where chunks begin, for losses on distributions of teachers that are unlike; false: out of
 * memory. */
bool lb_step_aligned_init(struct lb_step *step);
bool lb_step_aligned_memory(struct lb_step *step, struct lb_worker *worker);
/* Loss l of a row against each such teacher, weighted; factor dL/dz is added to worker->dz. */
double lb_step_aligned_row(const struct lb_step *step, struct lb_worker *worker, size_t l, int64_t row,
                           double factor);
/* What they come to is added to step->apart_loss. */
void lb_step_aligned_add(struct lb_step *step);
/* common.c: the tokens of text that two vocabularies have in common, and what ends a text; n_own: the
 * student's ids. LB_E_NOMEM. */
LB_NODISCARD enum lb_status lb_common_make(const struct lb_tokenizer *own, const struct lb_tokenizer *its,
                                           int64_t n_own, struct lb_common *out, struct lb_detail *detail);
void lb_common_finish(struct lb_common *common);

/* rows.c: memory for rows of logits; false: out of memory. */
bool lb_step_rows_init(struct lb_step *step);
/* How many rows that has room for. */
int64_t lb_step_rows_at_once(const struct lb_step *step);
/* Whether teacher k's answers come as whole logits, or what makes them. */
bool lb_step_reads_logits(const struct lb_step *step, unsigned k);
/* The teachers' whole logits of n rows, at most rows_at_once, into step->z. */
void lb_step_read_logits(struct lb_step *step, int64_t row, int64_t n);
/* All losses on logits, chunk by chunk. */
enum lb_status lb_step_rows(struct lb_step *step);

/* activations.c: the loss of one pair of activations, added to *loss; its gradient into the tape. */
enum lb_status lb_step_pair(struct lb_step *step, const struct lb_pair *pair, struct lb_value *value,
                            double *loss);

#endif
