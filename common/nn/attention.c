/* Attention by blocks with online softmax (Dao et al. 2022, "FlashAttention"; backward as there, from the
 * saved log-sum-exp). Blocks stand at multiples of their size from the sequence's start, and everything about
 * a row is computed lane by lane or in chains of its own: see panel.h for what this gives. */
#include "common/nn/attention_row.h"
#include "common/nn/ops.h"
#include "common/nn/panel.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

enum { ROWS = 32, KEYS = LB_ATTENTION_KEYS, MAX_DIM = LB_MAX_HEAD_DIM };
_Static_assert(ROWS % LB_LANES == 0 && KEYS % LB_LANES == 0, "blocks are whole vectors");
#define PARALLEL_FROM 65536 /* multiply-adds */

struct attention {
    int64_t heads, kv_heads, share; /* H, G, H / G */
    int64_t dim;                    /* D */
    int64_t q_stride, kv_stride;    /* H * D, G * D */
    int64_t window;                 /* 0: all */
    bool both_ways;                 /* rows see those behind them too */
    const struct lb_kv_place
        *past; /* generation: of each sequence, rows of k and v before its own; or NULL */
    float scale, softcap;
    int64_t n_seqs;
    const int32_t *offsets;
    int64_t *first_task; /* [n_seqs + 1] blocks of query rows, of all key/value heads, before each sequence */
    int64_t *probs_at;   /* [n_seqs + 1] where each sequence's [H, T, T] begins; NULL: not wanted */
    int64_t work;        /* multiply-adds of one product, about */
    const float *q, *k, *v;
    float *out;
    float *lse;   /* [N, H] */
    float *probs; /* NULL: not wanted */
    /* Dropout: whether a probability stays is a function of (key, its place among all [H, T, T]): nothing is
     * stored */
    int64_t *drop_at; /* [n_seqs + 1] where each sequence's places begin; NULL: none */
    uint64_t drop_key;
    uint32_t drop_below; /* of 2^32 */
    float kept;          /* what stays is multiplied with */
};

/* The query rows of one key/value head, 32 at a time: row r is position r / share of head r % share of the
 * group. */
struct block {
    float q[MAX_DIM * ROWS];   /* [D, ROWS] scaled */
    float out[ROWS * MAX_DIM]; /* [ROWS, D] */
    float score[KEYS * ROWS];  /* [KEYS, ROWS] */
    float max[ROWS], sum[ROWS], shrink[ROWS];
    int32_t position[ROWS];
    int64_t first, n; /* row of the group, rows */
    int64_t lanes;    /* n rounded up to whole vectors */
    int64_t length;   /* of the sequence */
    const float *k, *v;
};

static int64_t sequence_length(const struct attention *a, int64_t s) {
    return a->offsets[s + 1] - a->offsets[s];
}

static int64_t past_length(const struct attention *a, int64_t s) {
    return a->past != NULL ? a->past[s].length : 0;
}

/* Where the keys and values of a sequence begin. */
static int64_t first_key(const struct attention *a, int64_t s) {
    return a->past != NULL ? a->past[s].begin : a->offsets[s];
}

static int64_t round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* The sequence to which a task belongs. */
static int64_t find_sequence(const int64_t *first_task, int64_t n_seqs, int64_t task) {
    int64_t low = 0, high = n_seqs;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (first_task[middle] <= task) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Where row r of the group (s, g) begins in q and out. */
static int64_t query_at(const struct attention *a, int64_t s, int64_t g, int64_t r) {
    return (a->offsets[s] + r / a->share) * a->q_stride + (g * a->share + r % a->share) * a->dim;
}

/* Heads lie apart in memory, where the processor doesn't foresee the next row: ask for all rows at once. */
static void fetch(const float *rows, int64_t stride, int64_t n, int64_t dim) {
    for (int64_t i = 0; i < n; i++) {
        for (int64_t d = 0; d < dim; d += 16) {
            __builtin_prefetch(rows + i * stride + d);
        }
    }
}

static void block_begin(const struct attention *a, int64_t s, int64_t g, int64_t first, struct block *b) {
    int64_t rows = sequence_length(a, s) * a->share;
    b->first = first;
    b->n = smaller(rows - first, ROWS);
    b->lanes = round_up(b->n, LB_LANES);
    b->length = sequence_length(a, s);
    b->k = a->k + first_key(a, s) * a->kv_stride + g * a->dim * (a->past != NULL ? LB_KV_BLOCK : 1);
    b->v = a->v + first_key(a, s) * a->kv_stride + g * a->dim;
    fetch(a->q + (a->offsets[s] + first / a->share) * a->q_stride + g * a->share * a->dim, a->q_stride,
          (b->n + a->share - 1) / a->share, a->share * a->dim);
    for (int64_t r = 0; r < b->lanes; r++) {
        int64_t row = first + smaller(r, b->n - 1); /* idle lanes repeat the last row */
        const float *q = a->q + query_at(a, s, g, row);
        for (int64_t d = 0; d < a->dim; d++) {
            b->q[d * ROWS + r] = q[d] * a->scale;
        }
        b->position[r] = (int32_t)(past_length(a, s) + row / a->share);
        b->max[r] = -FLT_MAX;
        b->sum[r] = 0;
    }
    memset(b->out, 0, (size_t)(b->n * a->dim) * sizeof(float));
}

/* score := softcap tanh(score / softcap), n of them, whole vectors. */
static void cap_scores(float softcap, float *score, int64_t n) {
    for (int64_t j = 0; j < n; j += LB_LANES) {
        lb_vstore(score + j, lb_vtanh(lb_vload(score + j) / softcap) * softcap);
    }
}

/* Products of all rows with keys j0 .. j0 + n - 1, which a cache holds by blocks. */
static void block_products(const struct attention *a, struct block *b, int64_t j0, int64_t n) {
    if (a->past == NULL) {
        struct lb_panel_a keys = {b->k + j0 * a->kv_stride, a->kv_stride, 1};
        lb_panel(n, b->lanes, a->dim, keys, b->q, ROWS, b->score, ROWS, false);
        return;
    }
    for (int64_t j = 0, here; j < n; j += here) {
        int64_t within = (j0 + j) % LB_KV_BLOCK;
        struct lb_panel_a keys = {b->k + (j0 + j - within) * a->kv_stride + within, 1, LB_KV_BLOCK};
        here = smaller(LB_KV_BLOCK - within, n - j);
        lb_panel(here, b->lanes, a->dim, keys, b->q, ROWS, b->score + j * ROWS, ROWS, false);
    }
}

/* Scores of keys j0 .. j0 + n - 1; -inf where the row does not see the key. */
static void block_scores(const struct attention *a, struct block *b, int64_t j0, int64_t n) {
    block_products(a, b, j0, n);
    for (int64_t j = 0; a->softcap > 0 && j < n; j++) {
        cap_scores(a->softcap, b->score + j * ROWS, b->lanes);
    }
    int32_t window = a->window > 0 ? (int32_t)smaller(a->window, INT32_MAX) : INT32_MAX;
    /* A block has at least one row. NOLINTNEXTLINE(clang-analyzer-core.*) */
    bool all = a->both_ways || (j0 + n - 1 <= b->position[0] && b->position[b->n - 1] - j0 < window);
    for (int64_t r = 0; !all && r < b->lanes; r += LB_LANES) {
        lb_vi position;
        memcpy(&position, b->position + r, sizeof position);
        for (int64_t j = 0; j < n; j++) {
            lb_vi back = position - (int32_t)(j0 + j);
            lb_vi seen = (back >= 0) & (back < window);
            float *score = b->score + j * ROWS + r;
            lb_vstore(score, lb_vselect(seen, lb_vload(score), lb_vset(-INFINITY)));
        }
    }
}

/* Scores become exp(score - max); max, sum and shrink = exp(old max - max) follow. */
static void block_softmax(struct block *b, int64_t n) {
    for (int64_t r = 0; r < b->lanes; r += LB_LANES) {
        lb_vf old = lb_vload(b->max + r), max = old;
        for (int64_t j = 0; j < n; j++) {
            max = lb_vmax(lb_vload(b->score + j * ROWS + r), max);
        }
        lb_vf shrink = lb_vexp(old - max), sum = lb_vset(0);
        for (int64_t j = 0; j < n; j++) {
            lb_vf p = lb_vexp(lb_vload(b->score + j * ROWS + r) - max);
            lb_vstore(b->score + j * ROWS + r, p);
            sum += p;
        }
        lb_vstore(b->max + r, max);
        lb_vstore(b->shrink + r, shrink);
        lb_vstore(b->sum + r, lb_vfma(lb_vload(b->sum + r), shrink, sum));
    }
}

static void scale_row(const float *x, float factor, int64_t n, float *out) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        out[i] = x[i] * factor;
    }
}

static void block_add_values(const struct attention *a, struct block *b, int64_t j0, int64_t n) {
    for (int64_t r = 0; r < b->n; r++) {
        scale_row(b->out + r * a->dim, b->shrink[r], a->dim, b->out + r * a->dim);
    }
    struct lb_panel_a p = {b->score, 1, ROWS};
    lb_panel(b->n, a->dim, n, p, b->v + j0 * a->kv_stride, a->kv_stride, b->out, a->dim, true);
}

static float drop_factor(const struct attention *a, uint32_t bits) {
    return bits < a->drop_below ? 0 : a->kept;
}

/* What dropout makes of the probabilities of keys j0 .. j0 + n - 1 for row i of a head: 0, or the factor of
 * those that stay. One draw serves two places. */
static void drop_row(const struct attention *a, int64_t s, int64_t head, int64_t i, int64_t j0, int64_t n,
                     float *out) {
    int64_t t = sequence_length(a, s), place = a->drop_at[s] + (head * t + i) * t + j0;
    for (int64_t j = 0; j < n;) {
        uint64_t draw = lb_mix64(a->drop_key + (uint64_t)((place + j) / 2) * 0x9E3779B97F4A7C15u);
        if ((place + j) % 2 == 0) {
            out[j++] = drop_factor(a, (uint32_t)draw);
        }
        if (j < n) {
            out[j++] = drop_factor(a, (uint32_t)(draw >> 32));
        }
    }
}

static void block_drop(const struct attention *a, int64_t s, int64_t g, struct block *b, int64_t j0,
                       int64_t n) {
    float factor[KEYS];
    for (int64_t r = 0; r < b->n; r++) {
        int64_t row = b->first + r, head = g * a->share + row % a->share, i = row / a->share;
        int64_t seen = a->both_ways ? n : smaller(n, i + 1 - j0); /* the rest is 0 */
        drop_row(a, s, head, i, j0, seen, factor);
        for (int64_t j = 0; j < seen; j++) {
            b->score[j * ROWS + r] *= factor[j];
        }
    }
}

/* The keys that the block's rows see together: from the first row's window to the last row itself. */
static void block_range(const struct attention *a, const struct block *b, int64_t *out_low,
                        int64_t *out_high) {
    /* NOLINTNEXTLINE(clang-analyzer-core.*): as above */
    *out_low = a->window > 0 ? larger(0, b->position[0] - a->window + 1) : 0;
    *out_high = a->both_ways ? b->length : b->position[b->n - 1] + 1;
}

/* Second pass: the probabilities themselves, now that max and sum are known. */
static void block_probs(const struct attention *a, int64_t s, int64_t g, struct block *b) {
    int64_t t = sequence_length(a, s), low, high;
    block_range(a, b, &low, &high);
    for (int64_t j0 = low / KEYS * KEYS; j0 < high; j0 += KEYS) {
        int64_t begin = larger(j0, low), n = smaller(j0 + KEYS, high) - begin;
        block_scores(a, b, begin, n);
        for (int64_t r = 0; r < b->n; r++) {
            int64_t row = b->first + r, head = g * a->share + row % a->share;
            float *p = a->probs + a->probs_at[s] + (head * t + row / a->share) * t;
            if (begin == low) {
                memset(p, 0, (size_t)t * sizeof *p);
            }
            for (int64_t j = 0; j < n; j++) {
                p[begin + j] = lb_expf(b->score[j * ROWS + r] - b->max[r]) / b->sum[r];
            }
        }
    }
}

/* Whether a sequence has but one row, which is taken by itself. */
static bool is_single(const struct attention *a, int64_t s) {
    return a->past != NULL && sequence_length(a, s) == 1 && lb_attention_row_fits(a->dim);
}

/* Tasks of a sequence, which are all about alike. */
static int64_t tasks_of(const struct attention *a, int64_t s) {
    return is_single(a, s) ? (a->heads + LB_ATTENTION_HEADS - 1) / LB_ATTENTION_HEADS
                           : a->kv_heads * ((sequence_length(a, s) * a->share + ROWS - 1) / ROWS);
}

/* Some heads of a sequence's only row. */
static void attend_single(const struct attention *a, int64_t s, int64_t first) {
    int64_t length = past_length(a, s) + 1, row = a->offsets[s] * a->q_stride + first * a->dim;
    lb_attention_row(&(struct lb_attention_row){
        .heads = smaller(a->heads - first, LB_ATTENTION_HEADS),
        .share = a->share,
        .dim = a->dim,
        .first = first,
        .kv_stride = a->kv_stride,
        .low = a->window > 0 ? larger(0, length - a->window) : 0,
        .high = length,
        .scale = a->scale,
        .softcap = a->softcap,
        .q = a->q + row,
        .k = a->k + first_key(a, s) * a->kv_stride,
        .v = a->v + first_key(a, s) * a->kv_stride,
        .out = a->out + row,
    });
}

static void attend(const struct attention *a, int64_t task) {
    struct block b;
    int64_t s = find_sequence(a->first_task, a->n_seqs, task);
    if (is_single(a, s)) {
        attend_single(a, s, (task - a->first_task[s]) * LB_ATTENTION_HEADS);
        return;
    }
    int64_t blocks = (a->first_task[s + 1] - a->first_task[s]) / a->kv_heads;
    int64_t g = (task - a->first_task[s]) / blocks, low, high;
    block_begin(a, s, g, (task - a->first_task[s]) % blocks * ROWS, &b);
    block_range(a, &b, &low, &high);
    for (int64_t j0 = low / KEYS * KEYS; j0 < high; j0 += KEYS) {
        int64_t begin = larger(j0, low), n = smaller(j0 + KEYS, high) - begin;
        if (a->past == NULL) {
            fetch(b.k + begin * a->kv_stride, a->kv_stride, n, a->dim);
        }
        fetch(b.v + begin * a->kv_stride, a->kv_stride, n, a->dim);
        block_scores(a, &b, begin, n);
        block_softmax(&b, n);
        if (a->drop_at != NULL) {
            block_drop(a, s, g, &b, begin, n);
        }
        block_add_values(a, &b, begin, n);
    }
    for (int64_t r = 0; r < b.n; r++) {
        int64_t at = query_at(a, s, g, b.first + r);
        /* NOLINTNEXTLINE(clang-analyzer-core.*): the loop that sets sums has the same bounds */
        scale_row(b.out + r * a->dim, 1 / b.sum[r], a->dim, a->out + at);
        a->lse[at / a->dim] = (float)((double)b.max[r] + log((double)b.sum[r]));
    }
    if (a->probs != NULL) {
        block_probs(a, s, g, &b);
    }
}

/* Workspace of backward: 64 keys transposed, and a block of rows against them. */
struct backward_block {
    float k[MAX_DIM * KEYS]; /* [D, KEYS] scaled */
    float v[MAX_DIM * KEYS]; /* [D, KEYS] */
    float p[ROWS * KEYS];    /* scores, then probabilities */
    float ds[ROWS * KEYS];   /* dL/dp, then dL/d(q k) */
};

struct gradients {
    const float *out, *probs; /* dL/d(out), dL/d(probs) or NULL */
    float *q, *k, *v;
    bool q_fresh, k_fresh, v_fresh;
    float *inner; /* [N, H] sum over keys of p dL/dp, what softmax's gradient subtracts */
};

/* sum_d dout out of every row and head: what came through out. Whole rows, as they lie in memory. */
static void inner_of_out(const struct attention *a, const struct gradients *d, int64_t n) {
#pragma omp parallel for schedule(static) if (a->work > PARALLEL_FROM)
    for (int64_t at = 0; at < n * a->heads; at++) {
        d->inner[at] = (float)lb_vdot(d->out + at * a->dim, a->out + at * a->dim, a->dim);
    }
}

/* Adds sum_j dprobs probs of the rows of one head: what came through the probabilities. */
static void inner_of_probs(const struct attention *a, const struct gradients *d, int64_t s, int64_t h) {
    int64_t t = sequence_length(a, s);
    for (int64_t i = 0; i < t; i++) {
        int64_t p = a->probs_at[s] + (h * t + i) * t;
        d->inner[(a->offsets[s] + i) * a->heads + h] +=
            (float)lb_vdot(d->probs + p, a->probs + p, a->both_ways ? t : i + 1);
    }
}

static void transpose_keys(const float *rows, int64_t stride, int64_t n, int64_t dim, float scale,
                           float *out) {
    int64_t lanes = round_up(n, LB_LANES);
    for (int64_t d = 0; d < dim; d++) {
        for (int64_t j = 0; j < n; j++) {
            out[d * KEYS + j] = rows[j * stride + d] * scale;
        }
        for (int64_t j = n; j < lanes; j++) {
            out[d * KEYS + j] = 0;
        }
    }
}

/* p and ds of n_rows rows from i0 of head h against n keys from j0. */
static void backward_scores(const struct attention *a, const struct gradients *d, struct backward_block *b,
                            int64_t s, int64_t h, int64_t i0, int64_t n_rows, int64_t j0, int64_t n) {
    int64_t t = sequence_length(a, s), first = a->offsets[s] + i0, lanes = round_up(n, LB_LANES);
    int64_t at = first * a->q_stride + h * a->dim;
    lb_panel(n_rows, lanes, a->dim, (struct lb_panel_a){a->q + at, a->q_stride, 1}, b->k, KEYS, b->p, KEYS,
             false);
    lb_panel(n_rows, lanes, a->dim, (struct lb_panel_a){d->out + at, a->q_stride, 1}, b->v, KEYS, b->ds, KEYS,
             false);
    for (int64_t r = 0; r < n_rows; r++) {
        float *p = b->p + r * KEYS, *ds = b->ds + r * KEYS, factor[KEYS];
        if (a->drop_at != NULL) {
            drop_row(a, s, h, i0 + r, j0, n, factor);
        }
        for (int64_t j = 0; a->drop_at != NULL && j < n; j++) {
            ds[j] *= factor[j]; /* the panel made all n. NOLINT(clang-analyzer-core.*) */
        }
        if (d->probs != NULL) {
            const float *dp = d->probs + a->probs_at[s] + (h * t + i0 + r) * t + j0;
            for (int64_t j = 0; j < n; j++) {
                ds[j] += dp[j];
            }
        }
        float lse = a->lse[(first + r) * a->heads + h], inner = d->inner[(first + r) * a->heads + h];
        for (int64_t j = 0; j < lanes && a->softcap > 0;
             j += LB_LANES) { /* (1 - tanh^2) is the cap's slope */
            lb_vf capped = lb_vtanh(lb_vload(p + j) / a->softcap);
            lb_vf probability = lb_vexp(capped * a->softcap - lse);
            lb_vf slope = a->scale * (1.0f - capped * capped);
            lb_vstore(p + j, probability);
            lb_vstore(ds + j, probability * (lb_vload(ds + j) - inner) * slope);
        }
        for (int64_t j = 0; j < lanes && a->softcap == 0; j += LB_LANES) {
            lb_vf probability = lb_vexp(lb_vload(p + j) - lse);
            lb_vstore(p + j, probability);
            lb_vstore(ds + j, probability * (lb_vload(ds + j) - inner) * a->scale);
        }
        for (int64_t j = 0; a->drop_at != NULL && j < n; j++) { /* as they weighed v */
            p[j] *= factor[j];
        }
        int64_t seen = a->both_ways ? n : smaller(n, i0 + r + 1 - j0);
        int64_t unseen = a->window > 0 ? larger(0, smaller(n, i0 + r + 1 - a->window - j0)) : 0;
        for (int64_t j = 0; j < unseen; j++) {
            p[j] = ds[j] = 0;
        }
        for (int64_t j = seen; j < n; j++) {
            p[j] = ds[j] = 0;
        }
    }
}

/* One head's rows against the 64 keys (n of them) that b holds. */
static void backward_head(const struct attention *a, const struct gradients *d, struct backward_block *b,
                          int64_t s, int64_t h, int64_t j0, int64_t n) {
    int64_t rows = sequence_length(a, s), begin = a->offsets[s];
    int64_t kv_at = (begin + j0) * a->kv_stride + h / a->share * a->dim;
    int64_t end = a->window > 0 ? smaller(rows, j0 + n - 1 + a->window) : rows;
    for (int64_t i0 = a->both_ways ? 0 : j0; i0 < end; i0 += ROWS) {
        int64_t n_rows = smaller(ROWS, rows - i0), n_keys = a->both_ways ? n : smaller(n, i0 + n_rows - j0);
        int64_t at = (begin + i0) * a->q_stride + h * a->dim;
        fetch(a->q + at, a->q_stride, n_rows, a->dim);
        fetch(d->out + at, a->q_stride, n_rows, a->dim);
        backward_scores(a, d, b, s, h, i0, n_rows, j0, n_keys);
        lb_panel(n_keys, a->dim, n_rows, (struct lb_panel_a){b->p, 1, KEYS}, d->out + at, a->q_stride,
                 d->v + kv_at, a->kv_stride, true);
        lb_panel(n_keys, a->dim, n_rows, (struct lb_panel_a){b->ds, 1, KEYS}, a->q + at, a->q_stride,
                 d->k + kv_at, a->kv_stride, true);
        lb_panel(n_rows, a->dim, n_keys, (struct lb_panel_a){b->ds, KEYS, 1}, a->k + kv_at, a->kv_stride,
                 d->q + at, a->q_stride, true);
    }
}

static void clear(float *rows, int64_t n, int64_t stride, int64_t cols) {
    for (int64_t i = 0; i < n; i++) {
        memset(rows + i * stride, 0, (size_t)cols * sizeof *rows);
    }
}

/* All gradients of one key/value head of one sequence and of the query heads it serves: nobody else writes
 * there. */
static void backward_group(const struct attention *a, const struct gradients *d, int64_t s, int64_t g) {
    struct backward_block b;
    int64_t rows = sequence_length(a, s), begin = a->offsets[s];
    int64_t kv_at = begin * a->kv_stride + g * a->dim, q_at = begin * a->q_stride + g * a->share * a->dim;
    if (d->q_fresh) {
        clear(d->q + q_at, rows, a->q_stride, a->share * a->dim);
    }
    if (d->k_fresh) {
        clear(d->k + kv_at, rows, a->kv_stride, a->dim);
    }
    if (d->v_fresh) {
        clear(d->v + kv_at, rows, a->kv_stride, a->dim);
    }
    for (int64_t h = g * a->share; d->probs != NULL && h < (g + 1) * a->share; h++) {
        inner_of_probs(a, d, s, h);
    }
    for (int64_t j0 = 0; j0 < rows; j0 += KEYS) {
        int64_t n = smaller(KEYS, rows - j0), at = kv_at + j0 * a->kv_stride;
        fetch(a->k + at, a->kv_stride, n, a->dim);
        fetch(a->v + at, a->kv_stride, n, a->dim);
        transpose_keys(a->k + at, a->kv_stride, n, a->dim, a->scale, b.k);
        transpose_keys(a->v + at, a->kv_stride, n, a->dim, 1, b.v);
        for (int64_t h = g * a->share; h < (g + 1) * a->share; h++) {
            backward_head(a, d, &b, s, h, j0, n);
        }
    }
}

static void attention_backward(struct lb_tape *tape, struct lb_node *node) {
    const struct attention *a = node->extra;
    struct lb_value *q = node->in[0], *k = node->in[1], *v = node->in[2], *probs = node->in[3];
    struct gradients d = {.out = node->out->grad, .probs = probs != NULL ? probs->grad : NULL};
    d.q_fresh = lb_grad_fresh(tape, q);
    d.k_fresh = lb_grad_fresh(tape, k);
    d.v_fresh = lb_grad_fresh(tape, v);
    d.q = q->grad;
    d.k = k->grad;
    d.v = v->grad;
    d.inner = lb_tape_bytes(tape, (size_t)(q->rows * a->heads) * sizeof *d.inner);
    if (d.q == NULL || d.k == NULL || d.v == NULL || d.inner == NULL) {
        return;
    }
    inner_of_out(a, &d, q->rows);
#pragma omp parallel for schedule(dynamic) if (a->work > PARALLEL_FROM)
    for (int64_t task = 0; task < a->n_seqs * a->kv_heads; task++) {
        backward_group(a, &d, task / a->kv_heads, task % a->kv_heads);
    }
}

/* Comes before attention's own node on the way back: where only the probabilities have a gradient, out gets
 * zeros, so that the tape does not skip attention. */
static void probs_backward(struct lb_tape *tape, struct lb_node *node) {
    struct lb_value *out = node->in[0];
    if (lb_grad_fresh(tape, out)) {
        lb_copy_floats(out->grad, NULL, out->rows * out->cols);
    }
}

/* Lays out the work and the results; false when tape memory runs out. */
static bool plan(struct lb_tape *tape, struct attention *a, bool want_probs, struct lb_value **out_probs) {
    size_t bytes = (size_t)(a->n_seqs + 1) * sizeof(int64_t);
    a->first_task = lb_tape_bytes(tape, bytes);
    a->probs_at = want_probs ? lb_tape_bytes(tape, bytes) : NULL;
    if (a->first_task == NULL || (want_probs && a->probs_at == NULL)) {
        return false;
    }
    int64_t tasks = 0, probs = 0;
    for (int64_t s = 0; s <= a->n_seqs; s++) {
        a->first_task[s] = tasks;
        if (want_probs) {
            a->probs_at[s] = probs;
        }
        if (s < a->n_seqs) {
            int64_t t = sequence_length(a, s);
            tasks += tasks_of(a, s);
            probs += a->heads * t * t;
            a->work += t * (t + past_length(a, s)) * a->q_stride;
        }
    }
    if (want_probs) {
        *out_probs = lb_tape_value(tape, probs, 1);
        a->probs = *out_probs != NULL ? (*out_probs)->data : NULL;
    }
    return !want_probs || *out_probs != NULL;
}

static bool plan_dropout(struct lb_tape *tape, struct attention *a, float p) {
    assert(lb_tape_rng(tape) != NULL);
    a->drop_at = lb_tape_bytes(tape, (size_t)(a->n_seqs + 1) * sizeof *a->drop_at);
    int64_t at = 0;
    for (int64_t s = 0; a->drop_at != NULL && s < a->n_seqs; s++) {
        a->drop_at[s] = at;
        at += a->heads * sequence_length(a, s) * sequence_length(a, s);
    }
    a->drop_key = lb_rng_u64(lb_tape_rng(tape));
    a->drop_below = p < 1 ? (uint32_t)((double)p * 4294967296.0) : UINT32_MAX;
    a->kept = p < 1 ? 1 / (1 - p) : 0;
    return a->drop_at != NULL;
}

static bool record(struct lb_tape *tape, const struct attention *a, struct lb_value *q, struct lb_value *k,
                   struct lb_value *v, struct lb_value *out, struct lb_value *probs) {
    struct lb_node *node = lb_tape_push(tape, attention_backward, out);
    if (node == NULL) {
        return false;
    }
    node->in[0] = q;
    node->in[1] = k;
    node->in[2] = v;
    node->in[3] = probs;
    node->extra = a;
    if (probs != NULL) {
        struct lb_node *second = lb_tape_push(tape, probs_backward, probs);
        if (second == NULL) {
            return false;
        }
        second->in[0] = out;
    }
    return true;
}

struct lb_value *lb_attention(struct lb_tape *tape, struct lb_value *q, struct lb_value *k,
                              struct lb_value *v, const struct lb_attention_args *args,
                              struct lb_value **out_probs) {
    if (q == NULL || k == NULL || v == NULL) {
        return NULL;
    }
    const struct lb_ragged *ragged = lb_tape_ragged(tape);
    assert(args->head_dim > 0 && args->head_dim <= MAX_DIM);
    assert(args->kv_heads > 0 && args->heads % args->kv_heads == 0);
    assert(q->cols == (int64_t)args->heads * args->head_dim && q->rows == ragged->offsets[ragged->n_seqs]);
    assert(k->cols == (int64_t)args->kv_heads * args->head_dim && k->rows == q->rows);
    assert(v->cols == k->cols && v->rows == k->rows);
    assert(args->kv == NULL || (!lb_tape_records(tape) && !args->want_probs));
    assert(!args->both_ways || (args->kv == NULL && args->window == 0));
    struct lb_value *out = lb_tape_value(tape, q->rows, q->cols), *probs = NULL;
    float *lse = lb_tape_bytes(tape, (size_t)(q->rows * args->heads) * sizeof *lse);
    struct attention *a = lb_tape_bytes(tape, sizeof *a);
    if (out == NULL || lse == NULL || a == NULL) {
        return NULL;
    }
    *a = (struct attention){
        .heads = args->heads,
        .kv_heads = args->kv_heads,
        .share = args->heads / args->kv_heads,
        .dim = args->head_dim,
        .q_stride = q->cols,
        .kv_stride = k->cols,
        .window = args->window,
        .both_ways = args->both_ways,
        .past = args->kv != NULL ? args->kv_places : NULL,
        .scale = args->scale,
        .softcap = args->softcap,
        .n_seqs = ragged->n_seqs,
        .offsets = ragged->offsets,
        .q = q->data,
        .k = args->kv != NULL ? args->kv->k : k->data,
        .v = args->kv != NULL ? args->kv->v : v->data,
        .out = out->data,
        .lse = lse,
    };
    if (lb_tape_records(tape) && args->dropout > 0 && !plan_dropout(tape, a, args->dropout)) {
        return NULL;
    }
    if (!plan(tape, a, args->want_probs, &probs)) {
        return NULL;
    }
    for (int64_t i = 0; args->kv != NULL && i < a->n_seqs; i++) {
        int64_t first = a->offsets[i] * a->kv_stride;
        lb_attention_hold(args->kv, &a->past[i], k->data + first, v->data + first, sequence_length(a, i),
                          a->kv_stride);
    }
#pragma omp parallel for schedule(dynamic) if (a->work > PARALLEL_FROM)
    for (int64_t task = 0; task < a->first_task[a->n_seqs]; task++) {
        attend(a, task);
    }
    if (lb_tape_records(tape) && !record(tape, a, q, k, v, out, probs)) {
        return NULL;
    }
    if (args->want_probs) {
        *out_probs = probs;
    }
    return out;
}
