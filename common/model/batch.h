/* A batch for a model's forward: sequences laid one after the other, nothing padded.
 *
 * Memory is the arena's; a batch is filled, read, cleared and filled again.
 */
#ifndef LB_MODEL_BATCH_H
#define LB_MODEL_BATCH_H

#include "common/base/arena.h"
#include "common/model/model.h"

struct lb_model_batch {
    int64_t n_seqs, n_rows, input_size;
    int32_t *offsets; /* [n_seqs + 1]: sequence s is rows offsets[s] .. offsets[s + 1] - 1 */
    int32_t *ids;     /* [n_rows]; NULL for features */
    float *features;  /* [n_rows, input_size]; NULL for ids */
    int32_t *labels;  /* [n_rows]; NULL unless asked for */
};

/* Empty, with room for so many sequences and rows. input_size 0: ids. false: out of memory, or more than an
 * offset can tell. */
bool lb_model_batch_init(struct lb_model_batch *batch, struct lb_arena *arena, int64_t max_seqs,
                         int64_t max_rows, int64_t input_size, bool labelled);
void lb_model_batch_clear(struct lb_model_batch *batch);
/* A further sequence, copied, for which there is room: ids [n], labels [n] (read where asked for). */
void lb_model_batch_add_ids(struct lb_model_batch *batch, const int32_t *ids, const int32_t *labels,
                            int64_t n);
/* One row of features [input_size]. */
void lb_model_batch_add_features(struct lb_model_batch *batch, const float *features, int32_t label);
/* What lb_model_forward reads; good until the batch changes. */
struct lb_input lb_model_batch_input(const struct lb_model_batch *batch);

#endif
