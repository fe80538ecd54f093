#include "common/nn/head.h"

#include "common/nn/gemm.h"
#include "common/nn/linear.h"

#include <string.h>

/* Floats of one chunk of logits, as long as that leaves enough rows for the product to be worth it. */
#define CHUNK_FLOATS ((int64_t)1 << 20)
#define CHUNK_MIN_ROWS 64
#define CHUNK_MAX_ROWS 512

int64_t lb_head_chunk(int64_t v) {
    int64_t rows = CHUNK_FLOATS / v;
    rows = rows < CHUNK_MIN_ROWS ? CHUNK_MIN_ROWS : rows;
    return rows > CHUNK_MAX_ROWS ? CHUNK_MAX_ROWS : rows;
}

struct chunk {
    struct lb_value *h;
    const struct lb_weight *w, *bias;
    float *z; /* [rows, V] */
    bool train;
};

static enum lb_status logits(struct lb_tape *tape, const struct chunk *c, int64_t row, int64_t n) {
    int32_t offsets[2] = {0, (int32_t)n};
    struct lb_ragged alone = {1, offsets};
    bool ok = lb_linear_product(tape, c->h->data + row * c->h->cols, n, c->w, c->bias, c->z,
                                c->train ? NULL : &alone);
    return ok ? LB_OK : LB_E_NOMEM;
}

/* z holds dL/dlogits: dh = z W, dW += z^T h, db += column sums. */
static void chunk_backward(const struct chunk *c, int64_t row, int64_t n, bool fresh) {
    int64_t v = c->w->rows, width = c->w->cols;
    const float *h = c->h->data + row * width;
    lb_gemm_nn(n, width, v, c->z, v, c->w->data, width, fresh ? 0 : 1, c->h->grad + row * width, width);
    if (c->w->grad != NULL) {
        lb_gemm_tn(v, width, n, c->z, v, h, width, 1, c->w->grad, width);
    }
    if (c->bias != NULL && c->bias->grad != NULL) {
        lb_bias_backward(c->z, n, v, c->bias->grad);
    }
}

static enum lb_status run_train(struct lb_tape *tape, const struct chunk *c, int64_t step, lb_head_fn fn,
                                void *context) {
    bool fresh = lb_grad_fresh(tape, c->h);
    if (c->h->grad == NULL) {
        return LB_E_NOMEM;
    }
    enum lb_status status = LB_OK;
    for (int64_t row = 0; row < c->h->rows && status == LB_OK; row += step) {
        int64_t n = c->h->rows - row < step ? c->h->rows - row : step;
        status = logits(tape, c, row, n);
        status = status == LB_OK ? fn(context, row, n, c->z) : status;
        if (status == LB_OK) {
            chunk_backward(c, row, n, fresh);
        }
    }
    return status;
}

/* Chunks begin at multiples of step within their sequence, whatever first says: a row's bits do not depend on
 * it. */
static enum lb_status run_sequence(struct lb_tape *tape, const struct chunk *c, int64_t begin, int64_t end,
                                   int64_t first, int64_t step, lb_head_fn fn, void *context) {
    enum lb_status status = LB_OK;
    for (int64_t row = begin + first / step * step; row < end && status == LB_OK; row += step) {
        int64_t n = end - row < step ? end - row : step;
        status = logits(tape, c, row, n);
        int64_t skip = begin + first > row ? begin + first - row : 0;
        if (status == LB_OK && skip < n) {
            status = fn(context, row + skip, n - skip, c->z + skip * c->w->rows);
        }
    }
    return status;
}

enum lb_status lb_head_run(struct lb_tape *tape, struct lb_value *h, const struct lb_weight *w,
                           const struct lb_weight *bias, const int32_t *first, lb_head_fn fn, void *context) {
    if (h == NULL) {
        return lb_tape_status(tape) != LB_OK ? lb_tape_status(tape) : LB_E_NOMEM;
    }
    int64_t v = w->rows, step = lb_head_chunk(v);
    struct lb_arena_mark mark = lb_tape_mark(tape);
    struct lb_weight wide = *w;
    struct chunk c = {h, w, bias, NULL, lb_tape_records(tape)};
    c.z = lb_tape_bytes(tape, (size_t)(step * v) * sizeof(float));
    if (c.z == NULL) {
        return LB_E_NOMEM;
    }
    /* A head that is stored narrow and fits the workspace is widened once, not once a chunk. */
    if (w->dtype != LB_F32 && v * w->cols <= 32 * CHUNK_FLOATS && h->rows > step) {
        float *data = lb_tape_bytes(tape, (size_t)(v * w->cols) * sizeof(float));
        if (data == NULL) {
            return LB_E_NOMEM;
        }
        lb_dequantize(w->dtype, w->data, data, v * w->cols);
        wide.data = data;
        wide.dtype = LB_F32;
        c.w = &wide;
    }
    enum lb_status status = LB_OK;
    if (c.train) {
        status = run_train(tape, &c, step, fn, context);
    } else {
        const struct lb_ragged *ragged = lb_tape_ragged(tape);
        for (int64_t s = 0; s < ragged->n_seqs && status == LB_OK; s++) {
            status = run_sequence(tape, &c, ragged->offsets[s], ragged->offsets[s + 1],
                                  first != NULL ? first[s] : 0, step, fn, context);
        }
    }
    lb_tape_release(tape, mark);
    return status;
}

void lb_head_logits(const float *h, int64_t n, int64_t c, const float *w, const float *bias, int64_t v,
                    float *z) {
    if (bias != NULL) {
        for (int64_t i = 0; i < n; i++) {
            memcpy(z + i * v, bias, (size_t)v * sizeof(float));
        }
    }
    lb_gemm_nt(n, v, c, h, c, w, c, bias != NULL ? 1 : 0, z, v, NULL);
}
