/* The output head by pieces: [N, V] never exists, and a head that is stored narrow is never wide as a whole.
 *
 * Reading (plain mode): logits are reduced as they come, to what is wanted of each row: the k largest,
 * log-sum-exp, single logits, or a copy. Up to LB_HEAD_WIDE_V classes, chunks of rows have all their logits
 * at once, while they are in cache. Above, panels of columns are the outer loop and all rows of the batch
 * the inner: each panel of the stored head is read (and widened) once a batch, not once a chunk of rows. The
 * logits are the same, bit for bit, by either way; log-sum-exp is made panel by panel above and may end in
 * other last bits than in one piece. Where panels begin depends on V alone, so that a row's answer depends on
 * its sequence only.
 *
 * Training stays with chunks of rows at every V. A loss on distributions is a function of a whole row of the
 * student's logits and of whole rows of its teachers' (some sort or standardise it, reverse divergences need
 * their own expectation): panels would have to run twice, once for the sums and once for the gradients, with
 * the student's and every exact teacher's product made twice: a third more in the head, 4 products instead of
 * 3, to save 64 x V floats a teacher. There is nothing to widen either: students' heads are FP32.
 */
#ifndef LB_NN_HEAD_H
#define LB_NN_HEAD_H

#include "common/nn/reduce.h"
#include "common/nn/sample.h"
#include "common/nn/tape.h"

/* What is done to each product z = h W^T + b: logit = softcap * tanh(scale * z / softcap). */
struct lb_head_shape {
    float scale;   /* 1: none */
    float softcap; /* 0: none (Gemma 2, Gemma Team 2024, section 2) */
};
#define LB_HEAD_PLAIN ((struct lb_head_shape){1, 0})

struct lb_head {
    const struct lb_weight *weight; /* [V, C] */
    const struct lb_weight *bias;   /* [V], or NULL */
    struct lb_head_shape shape;
};

/* Most classes whose logits are reduced in one piece. */
#define LB_HEAD_WIDE_V 65536

/* ---- reading ---- */

/* What is wanted of a row's logits. */
struct lb_head_want {
    int64_t k;          /* the k largest, k <= V; 0: none */
    double temperature; /* > 0: log sum_j exp(z[j] / temperature); 0: none */
    bool rest;          /* and what all but the k largest have of probability; k > 0 and a temperature */
    bool plain;         /* log sum_j exp(z[j]) as well, whatever the temperature */
    const int32_t *at;  /* [n_at] ids whose logits are wanted, below V; lives until the end */
    int64_t n_at;
    struct lb_draw draw; /* draws from the row's distribution at the draw's own temperature; n 0: none */
    /* ids NULL: all. Else the k largest are among these, by their places, and the rest is theirs; ids live
     * until the end. Not with draws. */
    struct lb_kept kept;
    bool outside; /* and what all that are not kept have of probability; a temperature */
};

/* What is left of a row; lives during the call. */
struct lb_head_row {
    int32_t *ids;  /* [k] of the k largest, in lb_topk's order */
    float *values; /* [k] */
    float *at;     /* [n_at]; of a negative id 0 */
    int64_t n_at;
    double lse;
    double log_rest; /* log of it: lb_rest_value, lb_parts_rest */
    double log_outside;
    double plain_lse;
    struct lb_drawn *drawn; /* [n_drawn] as lb_sampler_finish leaves them */
    int64_t n_drawn;
    double draw_lse; /* at the draw's temperature */
};

/* Who reads. A row is that of h, counted over the whole batch. */
struct lb_head_reader {
    void *context;
    const float *add; /* [n_add] added to the first n_add logits of each row before all else */
    int64_t n_add;
    /* Asked once for each row, in order, by the calling thread. NULL: rows are not reduced. */
    struct lb_head_want (*want)(void *context, int64_t row);
    /* Called once for each row, by any thread, in any order. */
    void (*row)(void *context, int64_t row, const struct lb_head_row *left);
    /* Logits as they come (may be NULL): rows row .. row + n - 1, ids id .. id + n_ids - 1, z's rows ldz
     * floats apart. By the calling thread; may use OpenMP. Each row's pieces come in the order of ids, and
     * within a piece rows are in order. */
    void (*logits)(void *context, int64_t row, int64_t n, int64_t id, int64_t n_ids, const float *z,
                   int64_t ldz);
};

/* Plain mode. h [N, C]. first (may be NULL): per sequence of the tape's batch the
 * first row, counted within the sequence, that is wanted; rows before it are skipped. LB_E_NOMEM. */
enum lb_status lb_head_read(struct lb_tape *tape, const struct lb_value *h, const struct lb_head *head,
                            const int32_t *first, const struct lb_head_reader *reader);

/* log-sum-exp of a whole row of V logits with the bits that lb_head_read gives it. */
double lb_head_logsumexp(const float *z, int64_t v, double temperature);
/* The same for log_rest; ids and values [k] become those of the k largest, as lb_topk has them. */
double lb_head_log_rest(const float *z, int64_t v, double temperature, int64_t k, int32_t *ids,
                        float *values);

/* The same of a row of which some ids are kept (want->kept, k, temperature > 0): both shares. */
void lb_head_parts(const float *z, int64_t v, const struct lb_head_want *want, int32_t *ids, float *values,
                   double *out_log_rest, double *out_log_outside);
/* The same for draws; drawn [draw->n]. Returns how many classes were drawn. */
int64_t lb_head_draw(const float *z, int64_t v, const struct lb_draw *draw, struct lb_drawn *drawn,
                     double *out_lse);

/* Tape that the answers of rows wait in, where at most so much is wanted of each, and what more logits exist
 * at once the more threads there are: *of_all, and *of_row for each row. */
void lb_head_read_bytes(int64_t v, const struct lb_head_want *most, size_t *of_all, size_t *of_row);

/* ---- whole rows: training, and whatever needs a row of logits at once ---- */

/* Rows row .. row + n - 1 of h (never across two sequences in plain mode; at most lb_head_run_rows in
 * training) have the logits z [n, V]. In training: replace z by the gradient. May use OpenMP. A status other
 * than LB_OK ends the run and is returned. */
typedef enum lb_status (*lb_head_fn)(void *context, int64_t row, int64_t n, float *z);

/* By chunks of whole rows at every V; h, head, first as above. In training the weight's gradient and
 * h->grad accumulate at once (no node is recorded). */
enum lb_status lb_head_run(struct lb_tape *tape, struct lb_value *h, const struct lb_head *head,
                           const int32_t *first, lb_head_fn fn, void *context);

/* Rows of a chunk in plain mode. Chunks begin at multiples of it within their sequence. */
int64_t lb_head_plain_chunk(int64_t v);
/* The logits z [h->rows, V] of one such chunk alone, with the bits that they have by all other ways.
 * LB_E_NOMEM.
 */
enum lb_status lb_head_chunk_logits(struct lb_tape *tape, const struct lb_value *h,
                                    const struct lb_head *head, float *z);
/* Tape for the logits of a chunk in plain mode, about. */
size_t lb_head_run_bytes(int64_t v);

/* Most rows of one chunk in training for a vocabulary of v: what products and sums are cut into. */
int64_t lb_head_chunk(int64_t v);
/* Rows that lb_head_run hands out at once in training: whole chunks, more with more threads. */
int64_t lb_head_run_rows(int64_t v);

/* Logits of any rows under any head: z [n, V] of h [n, C], w [V, C], bias [V] or NULL (a downloaded teacher
 * head). */
void lb_head_logits(const float *h, int64_t n, int64_t c, const float *w, const float *bias, int64_t v,
                    struct lb_head_shape shape, float *z);

#endif
