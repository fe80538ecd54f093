#include "common/nn/ops.h"

#include <assert.h>
#include <string.h>

#define CHUNK 2048 /* elements of dropout that one thread takes at a time */
#define PARALLEL_FROM 16384

/* Adds (or, when fresh, copies) the n floats at from. */
static void pass_gradient(struct lb_tape *tape, struct lb_value *to, const float *from) {
    int64_t n = to->rows * to->cols;
    bool fresh = lb_grad_fresh(tape, to);
    float *grad = to->grad;
    if (grad == NULL) {
        return;
    }
    if (fresh) {
#pragma omp parallel for simd schedule(static) if (n > PARALLEL_FROM)
        for (int64_t i = 0; i < n; i++) {
            grad[i] = from[i];
        }
    } else {
#pragma omp parallel for simd schedule(static) if (n > PARALLEL_FROM)
        for (int64_t i = 0; i < n; i++) {
            grad[i] += from[i];
        }
    }
}

static void add_backward(struct lb_tape *tape, struct lb_node *node) {
    for (int i = 0; i < 2; i++) {
        if (!node->in[i]->constant) {
            pass_gradient(tape, node->in[i], node->out->grad);
        }
    }
}

struct lb_value *lb_add(struct lb_tape *tape, struct lb_value *a, struct lb_value *b) {
    if (a == NULL || b == NULL) {
        return NULL;
    }
    assert(a->rows == b->rows && a->cols == b->cols);
    bool records = lb_tape_records(tape);
    struct lb_value *out = records ? lb_tape_value(tape, a->rows, a->cols) : a;
    if (out == NULL) {
        return NULL;
    }
    int64_t n = a->rows * a->cols;
    const float *x = a->data, *y = b->data;
    float *sum = out->data;
#pragma omp parallel for simd schedule(static) if (n > PARALLEL_FROM)
    for (int64_t i = 0; i < n; i++) {
        sum[i] = x[i] + y[i];
    }
    if (!records) {
        return out;
    }
    struct lb_node *node = lb_tape_push(tape, add_backward, out);
    if (node == NULL) {
        return NULL;
    }
    node->in[0] = a;
    node->in[1] = b;
    return out;
}

/* to[i] (+)= factor from[i] */
static void scale_all(const float *from, float factor, float *to, int64_t n, bool accumulate) {
    if (accumulate) {
#pragma omp parallel for simd schedule(static) if (n > PARALLEL_FROM)
        for (int64_t i = 0; i < n; i++) {
            to[i] += from[i] * factor;
        }
    } else {
#pragma omp parallel for simd schedule(static) if (n > PARALLEL_FROM)
        for (int64_t i = 0; i < n; i++) {
            to[i] = from[i] * factor;
        }
    }
}

static void scale_backward(struct lb_tape *tape, struct lb_node *node) {
    struct lb_value *x = node->in[0];
    bool fresh = lb_grad_fresh(tape, x);
    if (x->grad != NULL) {
        scale_all(node->out->grad, *(const float *)node->extra, x->grad, x->rows * x->cols, !fresh);
    }
}

struct lb_value *lb_scale(struct lb_tape *tape, struct lb_value *x, float factor) {
    if (x == NULL || factor == 1) {
        return x;
    }
    bool records = lb_tape_records(tape);
    struct lb_value *out = records ? lb_tape_value(tape, x->rows, x->cols) : x;
    if (out == NULL) {
        return NULL;
    }
    scale_all(x->data, factor, out->data, x->rows * x->cols, false);
    if (!records) {
        return out;
    }
    float *kept = lb_tape_bytes(tape, sizeof *kept);
    struct lb_node *node = lb_tape_push(tape, scale_backward, out);
    if (kept == NULL || node == NULL) {
        return NULL;
    }
    *kept = factor;
    node->in[0] = x;
    node->extra = kept;
    return out;
}

/* Dropout's mask is a function of (key, place): nothing is stored, and threads draw nothing from the stream.
 */
struct dropout {
    uint64_t key;
    uint32_t drop_below; /* of 2^32 */
    float scale;
};

/* to[i] (+)= from[i] * scale where kept, for the elements [begin, end), at most CHUNK; begin is even. */
static void mask_range(const struct dropout *d, const float *from, float *to, int64_t begin, int64_t end,
                       bool accumulate) {
    uint32_t bits[CHUNK];
    float masked[CHUNK];
    int64_t n = end - begin;
    for (int64_t i = 0; i < n; i += 2) { /* one draw serves two elements */
        uint64_t draw = lb_mix64(d->key + (uint64_t)((begin + i) / 2) * 0x9E3779B97F4A7C15u);
        bits[i] = (uint32_t)draw;
        bits[i + 1] = (uint32_t)(draw >> 32);
    }
    float *y = accumulate ? masked : to + begin;
    float scale = d->scale;
    uint32_t drop_below = d->drop_below;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float kept = from[begin + i] * scale;
        y[i] = bits[i] < drop_below ? 0 : kept;
    }
#pragma omp simd
    for (int64_t i = 0; i < (accumulate ? n : 0); i++) {
        to[begin + i] += masked[i];
    }
}

static void mask_all(const struct dropout *d, const float *from, float *to, int64_t n, bool accumulate) {
#pragma omp parallel for schedule(static) if (n > PARALLEL_FROM)
    for (int64_t begin = 0; begin < n; begin += CHUNK) {
        mask_range(d, from, to, begin, begin + CHUNK < n ? begin + CHUNK : n, accumulate);
    }
}

static void dropout_backward(struct lb_tape *tape, struct lb_node *node) {
    struct lb_value *x = node->in[0];
    bool fresh = lb_grad_fresh(tape, x);
    if (x->grad != NULL) {
        mask_all(node->extra, node->out->grad, x->grad, x->rows * x->cols, !fresh);
    }
}

struct lb_value *lb_dropout(struct lb_tape *tape, struct lb_value *x, float p) {
    if (x == NULL || !lb_tape_records(tape) || !(p > 0)) {
        return x;
    }
    assert(lb_tape_rng(tape) != NULL);
    struct lb_value *out = lb_tape_value(tape, x->rows, x->cols);
    struct dropout *d = lb_tape_bytes(tape, sizeof *d);
    struct lb_node *node = lb_tape_push(tape, dropout_backward, out);
    if (out == NULL || d == NULL || node == NULL) {
        return NULL;
    }
    d->key = lb_rng_u64(lb_tape_rng(tape));
    d->drop_below = p < 1 ? (uint32_t)((double)p * 4294967296.0) : UINT32_MAX;
    d->scale = p < 1 ? 1 / (1 - p) : 0; /* p = 1: what the mask keeps is zero, too */
    mask_all(d, x->data, out->data, x->rows * x->cols, false);
    node->in[0] = x;
    node->extra = d;
    return out;
}
