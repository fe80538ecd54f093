#include "common/model/batch.h"

#include "common/base/mem.h"

#include <string.h>

bool lb_model_batch_init(struct lb_model_batch *batch, struct lb_arena *arena, int64_t max_seqs,
                         int64_t max_rows, int64_t input_size, bool labelled) {
    size_t rows = (size_t)max_rows, floats;
    if (max_rows > INT32_MAX || !lb_mul_size(rows, (size_t)input_size, &floats)) {
        return false;
    }
    *batch = (struct lb_model_batch){.input_size = input_size};
    batch->offsets = lb_arena_zarray(arena, (size_t)max_seqs + 1, sizeof *batch->offsets);
    if (input_size > 0) {
        batch->features = lb_arena_array(arena, floats, sizeof *batch->features);
    } else {
        batch->ids = lb_arena_array(arena, rows, sizeof *batch->ids);
    }
    batch->labels = labelled ? lb_arena_array(arena, rows, sizeof *batch->labels) : NULL;
    return batch->offsets != NULL && (batch->features != NULL || batch->ids != NULL) &&
           (batch->labels != NULL || !labelled);
}

void lb_model_batch_clear(struct lb_model_batch *batch) {
    batch->n_seqs = batch->n_rows = 0;
}

static void end_sequence(struct lb_model_batch *batch, int64_t n) {
    batch->n_rows += n;
    batch->offsets[++batch->n_seqs] = (int32_t)batch->n_rows;
}

void lb_model_batch_add_ids(struct lb_model_batch *batch, const int32_t *ids, const int32_t *labels,
                            int64_t n) {
    memcpy(batch->ids + batch->n_rows, ids, (size_t)n * sizeof *ids);
    if (batch->labels != NULL) {
        memcpy(batch->labels + batch->n_rows, labels, (size_t)n * sizeof *labels);
    }
    end_sequence(batch, n);
}

void lb_model_batch_add_features(struct lb_model_batch *batch, const float *features, int32_t label) {
    memcpy(batch->features + batch->n_rows * batch->input_size, features,
           (size_t)batch->input_size * sizeof *features);
    if (batch->labels != NULL) {
        batch->labels[batch->n_rows] = label;
    }
    end_sequence(batch, 1);
}

struct lb_input lb_model_batch_input(const struct lb_model_batch *batch) {
    return (struct lb_input){
        .ragged = {batch->n_seqs, batch->offsets}, .ids = batch->ids, .features = batch->features};
}
