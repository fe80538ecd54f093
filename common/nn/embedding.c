#include "common/nn/gemm.h"
#include "common/nn/ops.h"

#include <assert.h>
#include <string.h>

/* Columns of the gradient that one thread adds up, a line of the cache: threads never share an element. */
#define COLUMN_BLOCK 16
#define PARALLEL_FROM 16384 /* elements */

struct saved {
    int64_t n;
    const int32_t *ids;
};

/* dtable[ids[i],:] += dout[i,:], in the order of i whatever the number of threads. */
static void embedding_backward(struct lb_tape *tape, struct lb_node *node) {
    lb_gemm_run(lb_tape_products(tape), true); /* the table may be a product's weight as well */
    const struct saved *saved = node->extra;
    int64_t c = node->out->cols;
    const float *dout = node->out->grad;
    float *dtable = node->weight[0]->grad;
    int64_t blocks = (c + COLUMN_BLOCK - 1) / COLUMN_BLOCK;
#pragma omp parallel for schedule(static) if (saved->n * c > PARALLEL_FROM)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t begin = b * COLUMN_BLOCK, width = c - begin < COLUMN_BLOCK ? c - begin : COLUMN_BLOCK;
        for (int64_t i = 0; i < saved->n; i++) {
            const float *from = dout + i * c + begin;
            float *to = dtable + (int64_t)saved->ids[i] * c + begin;
#pragma omp simd
            for (int64_t j = 0; j < width; j++) {
                to[j] += from[j];
            }
        }
    }
}

struct lb_value *lb_embedding(struct lb_tape *tape, const struct lb_weight *table, const int32_t *ids,
                              int64_t n) {
    if (lb_tape_status(tape) != LB_OK) {
        return NULL;
    }
    int64_t c = table->cols;
    struct lb_value *out = lb_tape_value(tape, n, c);
    size_t row_bytes;
    if (out == NULL || !lb_dtype_bytes(table->dtype, c, &row_bytes)) {
        return NULL;
    }
#pragma omp parallel for schedule(static) if (n * c > PARALLEL_FROM)
    for (int64_t i = 0; i < n; i++) {
        assert(ids[i] >= 0 && ids[i] < table->rows);
        lb_dequantize(table->dtype, (const char *)table->data + (size_t)ids[i] * row_bytes, out->data + i * c,
                      c);
    }
    if (!lb_tape_records(tape) || table->grad == NULL) {
        out->constant = true;
        return out;
    }
    struct saved *saved = lb_tape_bytes(tape, sizeof *saved);
    int32_t *copy = lb_tape_bytes(tape, (size_t)n * sizeof *copy);
    struct lb_node *node = lb_tape_push(tape, embedding_backward, out);
    if (saved == NULL || copy == NULL || node == NULL) {
        return NULL;
    }
    memcpy(copy, ids, (size_t)n * sizeof *copy);
    *saved = (struct saved){n, copy};
    node->extra = saved;
    node->weight[0] = table;
    return out;
}
