/* From a batch's hidden states, taps and rows of logits to the jobs' outputs, each number written once, to
 * its final place.
 *
 * The table of proto/outputs.h names the function that fills one row of each output; those are in outputs.c,
 * or in a file of their own. Output row r of sequence b is the model's row start[b] + r; rows behind a
 * sequence's end stay zero. Logits are reduced while they are in cache; nothing of size [N, V] exists unless
 * a job asks for logits. Used by the engine worker only.
 */
#ifndef LB_ENGINE_EXTRACT_H
#define LB_ENGINE_EXTRACT_H

#include "common/base/arena.h"
#include "common/nn/head.h"
#include "server/engine/job.h"

/* Which sequence of which job stands at a place of the batch. */
struct lb_place {
    struct lb_job *job;
    int64_t seq;
};

struct lb_extract {
    const struct lb_place *places;   /* [of_head->n_seqs] */
    const struct lb_ragged *of_head; /* the rows that the head multiplies: of classifiers one a sequence */
    int64_t v;
    /* per OpenMP thread, [max_k] and [max_draws] each */
    int64_t max_k, max_draws;
    int32_t *ids;
    float *values;
    struct lb_drawn *drawn;
    int32_t *all_ids; /* [v] each, where a job draws behind its sequences */
    float *all_values;
    int64_t at; /* the sequence of the last rows: they come in order */
};

/* Scratch memory comes from arena and lives as long as it. LB_E_NOMEM. */
enum lb_status lb_extract_init(struct lb_extract *extract, const struct lb_place *places,
                               const struct lb_ragged *of_head, int64_t v, struct lb_arena *arena);
/* Outputs that are made of logits, as these come: for lb_head_read. Not where lb_extract_needs_rows. */
struct lb_head_reader lb_extract_reader(struct lb_extract *extract);
/* Whether a job needs whole rows of logits: an output without LB_IN_PIECES, a draw. */
bool lb_extract_needs_rows(const struct lb_extract *extract);
/* The same from whole rows, with the same bits: an lb_head_fn whose context is the struct lb_extract. */
enum lb_status lb_extract_logits(void *context, int64_t row, int64_t n, float *z);
/* The numbers that each place's outputs are made of; places that ask for none of it are not looked at. */
typedef const float *lb_extract_rows;
/* Outputs that are made of states: rows[place] [length, cols]. layer: 0 for the final state. */
void lb_extract_states(const struct lb_extract *extract, enum lb_output_source source, int layer,
                       int64_t cols, const lb_extract_rows *rows);
/* Final states, rows[place] [length, cols], of jobs whose logits are streamed, to where they are kept. */
void lb_extract_kept(const struct lb_extract *extract, int64_t cols, const lb_extract_rows *rows);
/* Outputs that are made of one row a sequence: rows[place] [cols]. */
void lb_extract_once(const struct lb_extract *extract, enum lb_output_source source, int64_t cols,
                     const lb_extract_rows *rows);
/* Outputs that are made of attention probabilities: rows[place] [heads, length, length]. */
void lb_extract_attention(const struct lb_extract *extract, int layer, int64_t heads,
                          const lb_extract_rows *rows);

/* ---- for the functions that fill a row (row.c) ---- */

/* One row of the model, and where it goes. */
struct lb_row {
    const struct lb_job *job;
    int64_t seq, t; /* its sequence in the job, its position there */
    /* What the output is made of: logits [V], a state [C], one head's probabilities [length]. NULL for
     * outputs of the table with LB_IN_PIECES, which have the functions below. */
    const float *x;
    int64_t n;             /* numbers of x */
    int64_t heads, stride; /* of attention: head h begins at x + h * stride; else 1, 0 */
    /* What several outputs share, made at the first call of the functions below. */
    bool has_lse, has_top_k, has_rest, has_outside, has_plain, has_draws;
    double lse, log_rest, log_outside, plain_lse, draw_lse;
    int32_t *ids;
    float *values;
    float next_logit;
    const float *at; /* [n_scored] */
    struct lb_drawn *drawn;
    int64_t n_drawn;
};

typedef void (*lb_extract_fn)(struct lb_row *row, const struct lb_job_output *o);

/* Of logits: log of the sum of exp(z / temperature). */
double lb_row_logsumexp(struct lb_row *row);
/* The same at temperature 1. */
double lb_row_plain_logsumexp(struct lb_row *row);
/* Of logits: log p at the job's temperature of an id with this logit. */
float lb_row_logprob(struct lb_row *row, float logit);
/* Of logits: log of the probability of all ids but the job's top_k largest; where it has a map, of those that
 * this keeps, and of those that it doesn't. */
double lb_row_log_rest(struct lb_row *row);
double lb_row_log_outside(struct lb_row *row);
/* Of logits: that of the sequence's next token; there is one. */
double lb_row_next_logit(const struct lb_row *row);
/* Of logits: the i-th of the job's score_ids (-1: none), and its logit (0 where there is none). */
int32_t lb_row_scored(const struct lb_row *row, int64_t i);
float lb_row_logit_at(const struct lb_row *row, int64_t i);
/* Of logits: what was drawn, *out_n different ids; the logits' log-sum-exp at the draws' temperature is then
 * draw_lse. */
const struct lb_drawn *lb_row_draws(struct lb_row *row, int64_t *out_n);
/* Of logits: ids and values of the job's top_k largest. */
const int32_t *lb_row_top_ids(struct lb_row *row);
const float *lb_row_top_values(struct lb_row *row);
/* Draws what the job wants of a whole row of logits, the sequence's last, of whose ids and values there are
 * [V]; they hold no top k afterwards. */
void lb_extract_draw(struct lb_row *row);
/* Writes a row of the output: all its o->width numbers, in its datatype. */
void lb_put_floats(const struct lb_row *row, const struct lb_job_output *o, const float *src);
void lb_put_ids(const struct lb_row *row, const struct lb_job_output *o, const int32_t *src);
/* Writes n of its whole numbers, from the number first on. */
void lb_put_ids_part(const struct lb_row *row, const struct lb_job_output *o, int64_t first,
                     const int32_t *src, int64_t n);
/* The same of the log-probabilities, at the job's temperature, of ids whose logits are z. */
void lb_put_logprobs(struct lb_row *row, const struct lb_job_output *o, const float *z);
/* Writes n of its numbers, from the number first on. */
void lb_put_part(const struct lb_row *row, const struct lb_job_output *o, int64_t first, const float *src,
                 int64_t n);
/* Writes those of n logits, whose ids begin with id, that the job's map keeps; without a map all. */
void lb_put_logits(const struct lb_row *row, const struct lb_job_output *o, int64_t id, const float *z,
                   int64_t n);
/* Writes the first n numbers of a head's row of an output that has heads. */
void lb_put_keys(const struct lb_row *row, const struct lb_job_output *o, int64_t head, const float *src,
                 int64_t n);

#define LB_EXTRACT_FN(kind, name, own, others, source, width, numbers, uses, fill)                           \
    void lb_extract_##fill(struct lb_row *row, const struct lb_job_output *o);
LB_OUTPUTS(LB_EXTRACT_FN)
#undef LB_EXTRACT_FN

#endif
