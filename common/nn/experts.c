/* Mixtures of experts: which rows go to which experts, and with what weights their answers are added up. */
#include "common/nn/activation.h"
#include "common/nn/gemm.h"
#include "common/nn/ops.h"
#include "common/nn/reduce.h"
#include "common/nn/vecmath.h"

#include <assert.h>
#include <omp.h>
#include <string.h>

#define PARALLEL_FROM 16384 /* elements */
#define LEAST_ROWS 64       /* of experts that are asked together */
#define MOST_THREADS 16     /* each has a workspace */

/* Who is asked about which rows. A place is one of the [N, K] pairs of a row and an expert. */
struct route {
    int64_t n, n_experts, k, n_seqs;
    bool normalise;
    float *p;                 /* [N, E] softmax of the router's logits */
    int32_t *chosen;          /* [N, K] */
    int32_t *begin;           /* [E + 1] an expert's part of places */
    int32_t *places;          /* [N K] by expert, ascending */
    int32_t *offsets;         /* [E, sequences + 1] of its rows; NULL in training, where they may be mixed */
    struct lb_value *weights; /* [N, K] */
};

/* One expert's rows. */
struct part {
    const int32_t *places;
    int64_t n, k;
};

static int64_t row_of(const struct part *part, int64_t i) {
    return part->places[i] / part->k;
}

/* ---- choosing ---- */

static void softmax(const float *z, int64_t n, float *p) {
    float most = z[0];
    double sum = 0;
    for (int64_t j = 1; j < n; j++) {
        most = z[j] > most ? z[j] : most;
    }
    for (int64_t j = 0; j < n; j++) {
        p[j] = lb_expf(z[j] - most);
        sum += p[j];
    }
    for (int64_t j = 0; j < n; j++) {
        p[j] = (float)(p[j] / sum);
    }
}

/* The K likeliest experts of a row, and their weights. */
static void choose(const struct route *r, int64_t row) {
    float *w = r->weights->data + row * r->k;
    double sum = 0;
    lb_topk(r->p + row * r->n_experts, r->n_experts, r->k, r->chosen + row * r->k, w);
    for (int64_t i = 0; i < r->k; i++) {
        sum += w[i];
    }
    for (int64_t i = 0; i < r->k && r->normalise; i++) {
        w[i] = (float)(w[i] / sum);
    }
}

/* Places by expert. */
static void sort(struct route *r) {
    memset(r->begin, 0, (size_t)(r->n_experts + 1) * sizeof *r->begin);
    for (int64_t i = 0; i < r->n * r->k; i++) {
        r->begin[r->chosen[i] + 1]++;
    }
    for (int64_t e = 0; e < r->n_experts; e++) {
        r->begin[e + 1] += r->begin[e];
    }
    for (int64_t i = 0; i < r->n * r->k; i++) {
        r->places[r->begin[r->chosen[i]]++] = (int32_t)i;
    }
    for (int64_t e = r->n_experts; e > 0; e--) { /* each has moved to where the next one begins */
        r->begin[e] = r->begin[e - 1];
    }
    r->begin[0] = 0;
}

static struct part part_of(const struct route *r, int64_t e) {
    return (struct part){r->places + r->begin[e], r->begin[e + 1] - r->begin[e], r->k};
}

/* How many of each sequence's rows an expert has. */
static void cut(const struct route *r, const struct lb_ragged *ragged) {
    for (int64_t e = 0; e < r->n_experts; e++) {
        const struct part part = part_of(r, e);
        int32_t *offsets = r->offsets + e * (ragged->n_seqs + 1), at = 0;
        for (int64_t s = 0; s < ragged->n_seqs; s++) {
            offsets[s] = at;
            while (at < part.n && row_of(&part, at) < ragged->offsets[s + 1]) {
                at++;
            }
        }
        offsets[ragged->n_seqs] = at;
    }
}

/* dL/dlogits: of softmax over all experts, or over the chosen ones. */
static void route_backward(struct lb_tape *tape, struct lb_node *node) {
    const struct route *r = node->extra;
    struct lb_value *logits = node->in[0];
    if (lb_grad_fresh(tape, logits)) {
        memset(logits->grad, 0, (size_t)(r->n * r->n_experts) * sizeof *logits->grad);
    }
    if (logits->grad == NULL) {
        return;
    }
#pragma omp parallel for schedule(static) if (r->n * r->n_experts > PARALLEL_FROM)
    for (int64_t row = 0; row < r->n; row++) {
        const float *w = r->weights->data + row * r->k, *dw = r->weights->grad + row * r->k;
        const int32_t *chosen = r->chosen + row * r->k;
        float *dz = logits->grad + row * r->n_experts;
        double mean = 0;
        for (int64_t i = 0; i < r->k; i++) {
            mean += (double)w[i] * dw[i];
        }
        for (int64_t j = 0; j < r->n_experts && !r->normalise; j++) {
            dz[j] -= (float)(r->p[row * r->n_experts + j] * mean);
        }
        for (int64_t i = 0; i < r->k; i++) {
            dz[chosen[i]] += (float)(w[i] * (dw[i] - (r->normalise ? mean : 0)));
        }
    }
}

/* NULL when tape memory runs out. */
static struct route *route(struct lb_tape *tape, struct lb_value *logits,
                           const struct lb_experts_args *args) {
    const struct lb_ragged *ragged = lb_tape_records(tape) ? NULL : lb_tape_ragged(tape);
    struct route *r = lb_tape_bytes(tape, sizeof *r);
    int64_t n = logits->rows, e = logits->cols;
    if (r == NULL) {
        return NULL;
    }
    *r = (struct route){.n = n,
                        .n_experts = e,
                        .k = args->asked,
                        .n_seqs = ragged != NULL ? ragged->n_seqs : 0,
                        .normalise = args->normalise,
                        .p = lb_tape_bytes(tape, (size_t)(n * e) * sizeof *r->p),
                        .chosen = lb_tape_bytes(tape, (size_t)(n * args->asked) * sizeof *r->chosen),
                        .begin = lb_tape_bytes(tape, (size_t)(e + 1) * sizeof *r->begin),
                        .places = lb_tape_bytes(tape, (size_t)(n * args->asked) * sizeof *r->places),
                        .weights = lb_tape_value(tape, n, args->asked)};
    if (ragged != NULL) {
        r->offsets = lb_tape_bytes(tape, (size_t)(e * (ragged->n_seqs + 1)) * sizeof *r->offsets);
    }
    if (lb_tape_status(tape) != LB_OK) {
        return NULL;
    }
#pragma omp parallel for schedule(static) if (n * e > PARALLEL_FROM)
    for (int64_t row = 0; row < n; row++) {
        softmax(logits->data + row * e, e, r->p + row * e);
        choose(r, row);
    }
    sort(r);
    if (ragged != NULL) {
        cut(r, ragged);
    }
    struct lb_node *node = lb_tape_push(tape, route_backward, r->weights);
    if (node != NULL) {
        node->in[0] = logits;
        node->extra = r;
    }
    return lb_tape_status(tape) == LB_OK ? r : NULL;
}

/* ---- an expert's rows, there and back ---- */

static void take_backward(struct lb_tape *tape, struct lb_node *node) {
    const struct part *part = node->extra;
    struct lb_value *x = node->in[0], *out = node->out;
    if (lb_grad_fresh(tape, x)) {
        lb_copy_floats(x->grad, NULL, x->rows * x->cols);
    }
    if (x->grad == NULL) {
        return;
    }
#pragma omp parallel for schedule(static) if (part->n * x->cols > PARALLEL_FROM)
    for (int64_t i = 0; i < part->n; i++) {
        float *dx = x->grad + row_of(part, i) * x->cols;
        for (int64_t j = 0; j < x->cols; j++) {
            dx[j] += out->grad[i * x->cols + j];
        }
    }
}

/* out[i,:] = x[row of place i,:] */
static struct lb_value *take(struct lb_tape *tape, struct lb_value *x, const struct part *part) {
    struct lb_value *out = lb_tape_value(tape, part->n, x->cols);
    if (out == NULL) {
        return NULL;
    }
#pragma omp parallel for schedule(static) if (part->n * x->cols > PARALLEL_FROM)
    for (int64_t i = 0; i < part->n; i++) {
        memcpy(out->data + i * x->cols, x->data + row_of(part, i) * x->cols,
               (size_t)x->cols * sizeof *out->data);
    }
    struct lb_node *node = lb_tape_push(tape, take_backward, out);
    if (node != NULL) {
        node->in[0] = x;
        node->extra = part;
    }
    return out;
}

static void give_backward(struct lb_tape *tape, struct lb_node *node) {
    const struct part *part = node->extra;
    struct lb_value *y = node->in[0], *weights = node->in[1], *sum = node->out;
    bool fresh = lb_grad_fresh(tape, y);
    if (lb_grad_fresh(tape, weights)) {
        memset(weights->grad, 0, (size_t)(weights->rows * weights->cols) * sizeof *weights->grad);
    }
    if (y->grad == NULL || weights->grad == NULL) {
        return;
    }
#pragma omp parallel for schedule(static) if (part->n * y->cols > PARALLEL_FROM)
    for (int64_t i = 0; i < part->n; i++) {
        const float *dsum = sum->grad + row_of(part, i) * y->cols, *yi = y->data + i * y->cols;
        float *dy = y->grad + i * y->cols, w = weights->data[part->places[i]];
        double dw = 0;
        for (int64_t j = 0; j < y->cols; j++) {
            dw += (double)dsum[j] * yi[j];
            dy[j] = (fresh ? 0 : dy[j]) + w * dsum[j];
        }
        weights->grad[part->places[i]] += (float)dw;
    }
}

/* sum[row of place i,:] += weight of place i * y[i,:] */
static void add_rows(struct lb_value *sum, const struct lb_value *y, const struct lb_value *weights,
                     const struct part *part) {
#pragma omp parallel for schedule(static) if (part->n * y->cols > PARALLEL_FROM)
    for (int64_t i = 0; i < part->n; i++) {
        float *to = sum->data + row_of(part, i) * y->cols, w = weights->data[part->places[i]];
        for (int64_t j = 0; j < y->cols; j++) {
            to[j] += w * y->data[i * y->cols + j];
        }
    }
}

static void give(struct lb_tape *tape, struct lb_value *sum, struct lb_value *y, struct lb_value *weights,
                 const struct part *part) {
    if (y == NULL) {
        return;
    }
    add_rows(sum, y, weights, part);
    struct lb_node *node = lb_tape_push(tape, give_backward, sum);
    if (node != NULL) {
        node->in[0] = y;
        node->in[1] = weights;
        node->extra = part;
    }
}

/* ---- all of them, recorded ---- */

/* What expert e says of its rows, into sum. */
static void ask(struct lb_tape *tape, const struct route *r, int64_t e, struct lb_value *x,
                struct lb_value *sum, const struct lb_experts_args *args) {
    struct part *part = lb_tape_bytes(tape, sizeof *part);
    if (part == NULL) {
        return;
    }
    *part = part_of(r, e);
    if (part->n == 0) {
        return;
    }
    struct lb_value *h = take(tape, x, part);
    struct lb_value *gate = lb_linear(tape, h, &args->gate[e], NULL);
    h = lb_swiglu(tape, gate, lb_linear(tape, h, &args->up[e], NULL));
    give(tape, sum, lb_linear(tape, h, &args->down[e], NULL), r->weights, part);
}

/* ---- all of them, in plain mode ---- */

/* Room for so many rows of experts that are asked together: as many as the batch has, which any one of them
 * may be asked about, so that memory goes by the rows, not by what they say. */
struct room {
    int64_t rows;
    float *x, *gate, *up, *y; /* [rows, C], [rows, F], [rows, F], [rows, C] */
    float *workspace;         /* of each thread */
    int64_t floats;           /* of one */
    int threads;              /* that ask an expert each; 1: all work on the same one */
};

static int64_t most_floats(const struct lb_experts_args *args) {
    int64_t gate = lb_gemm_weight_floats(args->gate), up = lb_gemm_weight_floats(args->up),
            down = lb_gemm_weight_floats(args->down);
    up = gate > up ? gate : up;
    return up > down ? up : down;
}

static bool make_room(struct lb_tape *tape, const struct route *r, const struct lb_experts_args *args,
                      struct room *out) {
    int64_t c = args->gate->cols, f = args->gate->rows;
    int threads = omp_get_max_threads();
    threads = threads < MOST_THREADS ? threads : MOST_THREADS;
    *out = (struct room){.rows = r->n > LEAST_ROWS ? r->n : LEAST_ROWS,
                         .floats = most_floats(args),
                         .threads = r->n_experts >= 2 * threads ? threads : 1};
    out->x = lb_tape_bytes(tape, (size_t)(out->rows * c) * sizeof(float));
    out->gate = lb_tape_bytes(tape, (size_t)(out->rows * f) * sizeof(float));
    out->up = lb_tape_bytes(tape, (size_t)(out->rows * f) * sizeof(float));
    out->y = lb_tape_bytes(tape, (size_t)(out->rows * c) * sizeof(float));
    out->workspace = lb_tape_bytes(tape, (size_t)(out->floats * out->threads) * sizeof(float));
    return lb_tape_status(tape) == LB_OK;
}

/* What expert e says of its rows, which begin at `at` of the room. */
static void answer(const struct route *r, int64_t e, const struct lb_value *x, const struct room *room,
                   int64_t at, const struct lb_experts_args *args) {
    const struct part part = part_of(r, e);
    const struct lb_ragged ragged = {r->n_seqs, r->offsets + e * (r->n_seqs + 1)};
    int64_t c = x->cols, f = args->gate->rows;
    float *rows = room->x + at * c, *gate = room->gate + at * f, *up = room->up + at * f;
    float *workspace = room->workspace + omp_get_thread_num() * room->floats;
    for (int64_t i = 0; i < part.n; i++) {
        memcpy(rows + i * c, x->data + row_of(&part, i) * c, (size_t)c * sizeof *rows);
    }
    lb_gemm_weight(rows, part.n, &args->gate[e], 0, gate, &ragged, workspace);
    lb_gemm_weight(rows, part.n, &args->up[e], 0, up, &ragged, workspace);
    lb_swiglu_row(gate, up, gate, part.n * f);
    lb_gemm_weight(gate, part.n, &args->down[e], 0, room->y + at * c, &ragged, workspace);
}

static void add_up(const struct route *r, int64_t e, const float *y, struct lb_value *sum) {
    const struct part part = part_of(r, e);
    struct lb_value rows = {.data = (float *)(uintptr_t)y, .rows = part.n, .cols = sum->cols};
    add_rows(sum, &rows, r->weights, &part);
}

/* As many experts at a time as there is room for. */
static bool ask_all(struct lb_tape *tape, const struct route *r, const struct lb_value *x,
                    struct lb_value *sum, const struct lb_experts_args *args) {
    struct lb_arena_mark mark = lb_tape_mark(tape);
    struct room room;
    bool made = make_room(tape, r, args, &room);
    for (int64_t first = 0, end = 0; made && first < r->n_experts; first = end) {
        while (end < r->n_experts && r->begin[end + 1] - r->begin[first] <= room.rows) {
            end++;
        }
#pragma omp parallel for schedule(dynamic) num_threads(room.threads)
        for (int64_t e = first; e < end; e++) {
            if (r->begin[e + 1] > r->begin[e]) {
                answer(r, e, x, &room, r->begin[e] - r->begin[first], args);
            }
        }
        for (int64_t e = first; e < end; e++) {
            add_up(r, e, room.y + (r->begin[e] - r->begin[first]) * sum->cols, sum);
        }
    }
    lb_tape_release(tape, mark);
    return made;
}

struct lb_value *lb_experts(struct lb_tape *tape, struct lb_value *x, struct lb_value *logits,
                            const struct lb_experts_args *args) {
    if (x == NULL || logits == NULL) {
        return NULL;
    }
    assert(x->rows == logits->rows && args->asked > 0 && args->asked <= logits->cols);
    struct lb_value *sum = lb_tape_value(tape, x->rows, x->cols);
    const struct route *r = sum != NULL ? route(tape, logits, args) : NULL;
    if (r == NULL) {
        return NULL;
    }
    lb_copy_floats(sum->data, NULL, x->rows * x->cols);
    if (!lb_tape_records(tape)) {
        return ask_all(tape, r, x, sum, args) ? sum : NULL;
    }
    for (int64_t e = 0; e < r->n_experts; e++) {
        ask(tape, r, e, x, sum, args);
    }
    return lb_tape_status(tape) == LB_OK ? sum : NULL;
}
