/* From a batch's hidden states, taps and rows of logits to the jobs' outputs, each number written once, to
 * its final place.
 *
 * Output row r of sequence b is the model's row start[b] + r; rows behind a sequence's end stay zero. Logits
 * are reduced while they are in cache; nothing of size [N, V] exists unless a job asks for logits. Used by
 * the engine worker only.
 */
#ifndef LB_ENGINE_EXTRACT_H
#define LB_ENGINE_EXTRACT_H

#include "common/base/arena.h"
#include "common/nn/tensor.h"
#include "server/engine/job.h"

/* Which sequence of which job stands at a place of the batch. */
struct lb_place {
    struct lb_job *job;
    int64_t seq;
};

struct lb_extract {
    const struct lb_place *places; /* [ragged->n_seqs] */
    const struct lb_ragged *ragged;
    int64_t v;
    /* per OpenMP thread, [max_k] each */
    int64_t max_k;
    int n_threads;
    int32_t *ids;
    float *values;
    int64_t at; /* the sequence of the last rows: they come in order */
};

/* Scratch memory comes from arena and lives as long as it. LB_E_NOMEM. */
enum lb_status lb_extract_init(struct lb_extract *extract, const struct lb_place *places,
                               const struct lb_ragged *ragged, int64_t v, struct lb_arena *arena);
/* An lb_head_fn whose context is the struct lb_extract. */
enum lb_status lb_extract_logits(void *context, int64_t row, int64_t n, float *z);
/* Copies the rows of value [N, C] to the outputs of this kind and layer. */
void lb_extract_hidden(const struct lb_extract *extract, enum lb_output_kind kind, int layer,
                       const struct lb_value *value);
/* Copies attention probabilities: value holds [H, T, T] for each sequence of the batch. */
void lb_extract_attention(const struct lb_extract *extract, int layer, int64_t heads,
                          const struct lb_value *value);

#endif
