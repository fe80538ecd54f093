#include "common/nn/tape.h"

#include "common/base/mem.h"
#include "common/nn/gemm.h"

#include <string.h>

/* Floats of a copy that one thread takes at a time; one piece is not worth waking others for. */
#define COPY_FLOATS 16384

struct lb_tape {
    enum lb_tape_mode mode;
    enum lb_status status; /* sticky */
    const struct lb_ragged *ragged;
    struct lb_rng *rng;
    struct lb_arena memory; /* between marks in plain mode; everything in training */
    struct lb_arena kept;   /* taps of plain mode */
    struct lb_node *last;
    bool settled; /* of the last node is known whether its value is constant */
    const volatile sig_atomic_t *stop;
    struct lb_gemm_list products;
};

struct lb_tape *lb_tape_create(size_t max_bytes) {
    struct lb_tape *tape = lb_calloc(1, sizeof *tape);
    if (tape != NULL) {
        lb_arena_init(&tape->memory, max_bytes);
        lb_arena_init(&tape->kept, max_bytes);
    }
    return tape;
}

void lb_tape_destroy(struct lb_tape *tape) {
    if (tape == NULL) {
        return;
    }
    lb_arena_finish(&tape->memory);
    lb_arena_finish(&tape->kept);
    lb_free(tape);
}

void lb_tape_begin(struct lb_tape *tape, enum lb_tape_mode mode, const struct lb_ragged *ragged,
                   struct lb_rng *rng) {
    lb_arena_reset(&tape->memory);
    lb_arena_reset(&tape->kept);
    tape->mode = mode;
    tape->status = LB_OK;
    tape->ragged = ragged;
    tape->rng = rng;
    tape->last = NULL;
    tape->settled = true;
    tape->products.n = 0;
}

enum lb_status lb_tape_status(const struct lb_tape *tape) {
    return tape->status;
}

bool lb_tape_records(const struct lb_tape *tape) {
    return tape->mode == LB_TAPE_TRAIN;
}

const struct lb_ragged *lb_tape_ragged(const struct lb_tape *tape) {
    return tape->ragged;
}

void lb_tape_rows(struct lb_tape *tape, const struct lb_ragged *ragged) {
    tape->ragged = ragged;
}

struct lb_rng *lb_tape_rng(struct lb_tape *tape) {
    return tape->rng;
}

size_t lb_tape_high(const struct lb_tape *tape) {
    return tape->memory.high + tape->kept.high;
}

void lb_tape_limit(struct lb_tape *tape, size_t max_bytes) {
    lb_tape_shrink(tape);
    lb_arena_init(&tape->memory, max_bytes);
    lb_arena_init(&tape->kept, max_bytes);
}

void lb_tape_shrink(struct lb_tape *tape) {
    lb_arena_finish(&tape->memory);
    lb_arena_finish(&tape->kept);
}

void lb_tape_stop_on(struct lb_tape *tape, const volatile sig_atomic_t *stop) {
    tape->stop = stop;
}

bool lb_tape_stopped(struct lb_tape *tape) {
    bool stopped = tape->stop != NULL && *tape->stop != 0;
    if (stopped && tape->status == LB_OK) {
        tape->status = LB_E_CANCELLED;
    }
    return stopped;
}

static void *from(struct lb_tape *tape, struct lb_arena *arena, size_t count, size_t size) {
    if (lb_tape_stopped(tape)) {
        return NULL;
    }
    void *p = lb_arena_array(arena, count, size);
    if (p == NULL && tape->status == LB_OK) {
        tape->status = LB_E_NOMEM;
    }
    return p;
}

static struct lb_value *value_in(struct lb_tape *tape, struct lb_arena *arena, int64_t rows, int64_t cols) {
    size_t n;
    if (rows < 0 || cols < 0 || !lb_mul_size((size_t)rows, (size_t)cols, &n)) {
        tape->status = LB_E_NOMEM;
        return NULL;
    }
    struct lb_value *v = from(tape, arena, 1, sizeof *v);
    float *data = v != NULL ? from(tape, arena, n, sizeof *data) : NULL;
    if (data == NULL) {
        return NULL;
    }
    *v = (struct lb_value){data, NULL, rows, cols};
    return v;
}

struct lb_value *lb_tape_value(struct lb_tape *tape, int64_t rows, int64_t cols) {
    return value_in(tape, &tape->memory, rows, cols);
}

void lb_copy_floats(float *to, const float *from, int64_t n) {
#pragma omp parallel for schedule(static) if (n > COPY_FLOATS)
    for (int64_t i = 0; i < n; i += COPY_FLOATS) {
        size_t bytes = (size_t)(n - i < COPY_FLOATS ? n - i : COPY_FLOATS) * sizeof *to;
        if (from != NULL) {
            memcpy(to + i, from + i, bytes);
        } else {
            memset(to + i, 0, bytes);
        }
    }
}

struct lb_value *lb_tape_keep(struct lb_tape *tape, struct lb_value *v) {
    if (v == NULL || lb_tape_records(tape)) {
        return v;
    }
    struct lb_value *copy = value_in(tape, &tape->kept, v->rows, v->cols);
    if (copy != NULL) {
        lb_copy_floats(copy->data, v->data, v->rows * v->cols);
    }
    return copy;
}

void *lb_tape_bytes(struct lb_tape *tape, size_t bytes) {
    return from(tape, &tape->memory, bytes, 1);
}

/* Whether the last node's value depends on anything that is trained: asked when its inputs and weights are
 * noted, that is, from the next node on. A value may be made by several nodes. */
static void settle(struct lb_tape *tape) {
    const struct lb_node *node = tape->last;
    if (tape->settled) {
        return;
    }
    tape->settled = true;
    bool varies = node->in[0] == NULL && node->weight[0] == NULL; /* of what it doesn't say */
    for (size_t i = 0; i < sizeof node->in / sizeof node->in[0]; i++) {
        varies = varies || (node->in[i] != NULL && !node->in[i]->constant);
    }
    for (size_t i = 0; i < sizeof node->weight / sizeof node->weight[0]; i++) {
        varies = varies || (node->weight[i] != NULL && node->weight[i]->grad != NULL);
    }
    node->out->varies = node->out->varies || varies;
    node->out->constant = !node->out->varies;
}

bool lb_tape_is_constant(struct lb_tape *tape, const struct lb_value *v) {
    settle(tape);
    return v->constant;
}

struct lb_node *lb_tape_push(struct lb_tape *tape, void (*backward)(struct lb_tape *, struct lb_node *),
                             struct lb_value *out) {
    if (!lb_tape_records(tape) || out == NULL) {
        return NULL;
    }
    settle(tape);
    struct lb_node *node = from(tape, &tape->memory, 1, sizeof *node);
    if (node == NULL) {
        return NULL;
    }
    tape->settled = false;
    *node = (struct lb_node){.backward = backward, .out = out, .previous = tape->last};
    tape->last = node;
    return node;
}

struct lb_gemm_list *lb_tape_products(struct lb_tape *tape) {
    return &tape->products;
}

bool lb_grad_fresh(struct lb_tape *tape, struct lb_value *v) {
    if (v->grad != NULL) {
        return false;
    }
    v->grad = from(tape, &tape->memory, (size_t)(v->rows * v->cols), sizeof *v->grad);
    return v->grad != NULL;
}

struct lb_arena_mark lb_tape_mark(struct lb_tape *tape) {
    return lb_arena_mark(&tape->memory);
}

void lb_tape_release(struct lb_tape *tape, struct lb_arena_mark mark) {
    if (!lb_tape_records(tape)) {
        lb_arena_release(&tape->memory, mark);
    }
}

enum lb_status lb_tape_backward(struct lb_tape *tape) {
    settle(tape);
    for (struct lb_node *node = tape->last; node != NULL && tape->status == LB_OK; node = node->previous) {
        if (node->out->grad != NULL && !node->out->constant) {
            node->backward(tape, node);
        }
    }
    if (tape->status == LB_OK) {
        lb_gemm_run(&tape->products, true);
    }
    return tape->status;
}
