#include "common/nn/attention_row.h"

#include "common/nn/panel.h"

#include <assert.h>
#include <float.h>
#include <math.h>

enum { KEYS = LB_ATTENTION_KEYS, HEADS = LB_ATTENTION_HEADS };
_Static_assert(LB_KV_BLOCK % LB_LANES == 0 && KEYS % LB_KV_BLOCK == 0, "blocks are whole vectors");
#define TILE 4 /* vectors whose chains of multiply-adds run beside each other */

struct state {
    float q[HEADS * LB_MAX_HEAD_DIM]; /* scaled */
    float score[HEADS * KEYS];
    float max[HEADS], sum[HEADS], shrink[HEADS];
};

void lb_attention_hold(const struct lb_kv_layer *kv, const struct lb_kv_place *place, const float *k,
                       const float *v, int64_t n, int64_t kv_stride) {
    int64_t begin = place->begin * kv_stride;
    assert(place->length + n <= place->capacity && place->begin % LB_KV_BLOCK == 0);
    memcpy(kv->v + begin + place->length * kv_stride, v, (size_t)(n * kv_stride) * sizeof *v);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = place->length + i, within = at % LB_KV_BLOCK;
        float *block = kv->k + begin + (at - within) * kv_stride + within;
        for (int64_t c = 0; c < kv_stride; c++) {
            block[c * LB_KV_BLOCK] = k[i * kv_stride + c];
        }
    }
}

bool lb_attention_row_fits(int64_t dim) {
    return dim % LB_LANES == 0;
}

/* Where the vector of keys from j on begins for a head's first column; columns lie LB_KV_BLOCK apart. */
static const float *keys_at(const struct lb_attention_row *row, int64_t head, int64_t j) {
    int64_t g = (row->first + head) / row->share, within = j % LB_KV_BLOCK;
    return row->k + (j - within) * row->kv_stride + g * row->dim * LB_KV_BLOCK + within;
}

/* n vectors of scores. */
LB_ALWAYS_INLINE void score_tile(const struct lb_attention_row *row, const int n, const float *q,
                                 const float *const k[TILE], float *score) {
    lb_vf sum[TILE];
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        sum[i] = lb_vset(0);
    }
    for (int64_t d = 0; d < row->dim; d++) {
        /* Heads and columns were set where they were scaled. NOLINTNEXTLINE(clang-analyzer-core.*) */
        lb_vf right = lb_vset(q[d]);
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) {
            sum[i] = lb_vfma(lb_vload(k[i] + d * LB_KV_BLOCK), right, sum[i]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        if (row->softcap > 0) {
            sum[i] = lb_vtanh(sum[i] / row->softcap) * row->softcap;
        }
        lb_vstore(score + i * LB_LANES, sum[i]);
    }
}

/* Scores of the vectors that hold keys from .. to - 1 of the block at j0. */
static void scores(const struct lb_attention_row *row, struct state *s, int64_t head, int64_t j0,
                   int64_t from, int64_t to) {
    const float *q = s->q + head * row->dim;
    for (int64_t j = from / LB_LANES * LB_LANES; j < to; j += TILE * LB_LANES) {
        int64_t n = (to - j + LB_LANES - 1) / LB_LANES;
        const float *k[TILE] = {0};
        for (int64_t i = 0; i < TILE && i < n; i++) {
            k[i] = keys_at(row, head, j0 + j + i * LB_LANES);
        }
        float *score = s->score + head * KEYS + j;
        switch (n) {
        case 1:
            score_tile(row, 1, q, k, score);
            break;
        case 2:
            score_tile(row, 2, q, k, score);
            break;
        case 3:
            score_tile(row, 3, q, k, score);
            break;
        default:
            score_tile(row, 4, q, k, score);
            break;
        }
    }
}

/* Scores of keys from .. to - 1 become exp(score - max), others in their vectors anything; max, sum and
 * shrink = exp(old max - max) follow. */
static void softmax(struct state *s, int64_t head, int64_t from, int64_t to) {
    float *score = s->score + head * KEYS, old = s->max[head], max = old;
    int64_t begin = from / LB_LANES * LB_LANES, end = (to + LB_LANES - 1) / LB_LANES * LB_LANES;
    for (int64_t j = begin; j < from; j++) {
        score[j] = -INFINITY;
    }
    for (int64_t j = to; j < end; j++) {
        score[j] = -INFINITY;
    }
    lb_vf most = lb_vset(old);
    for (int64_t j = begin; j < end; j += LB_LANES) {
        most = lb_vmax(lb_vload(score + j), most); /* a NaN is passed over */
    }
    for (int l = 0; l < LB_LANES; l++) {
        max = most[l] > max ? most[l] : max;
    }
    for (int64_t j = begin; j < end; j += LB_LANES) {
        lb_vstore(score + j, lb_vexp(lb_vload(score + j) - max));
    }
    float sum = 0;
    for (int64_t j = from; j < to; j++) {
        sum += score[j];
    }
    s->max[head] = max;
    s->shrink[head] = lb_expf(old - max);
    s->sum[head] = lb_fmaf(s->sum[head], s->shrink[head], sum);
}

/* n vectors of out from column at on, counted over all heads: scaled by what their heads shrink, and values
 * from .. to - 1 of the block at j0 added. */
LB_ALWAYS_INLINE void value_tile(const struct lb_attention_row *row, const struct state *s, const int n,
                                 int64_t at, int64_t j0, int64_t from, int64_t to) {
    lb_vf sum[TILE];
    const float *p[TILE], *v[TILE];
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        int64_t column = at + i * LB_LANES, head = column / row->dim;
        int64_t g = (row->first + head) / row->share;
        sum[i] = lb_vload(row->out + column) * s->shrink[head];
        p[i] = s->score + head * KEYS;
        v[i] = row->v + j0 * row->kv_stride + g * row->dim + column % row->dim;
    }
    for (int64_t j = from; j < to; j++) {
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) {
            sum[i] = lb_vfma(lb_vset(p[i][j]), lb_vload(v[i] + j * row->kv_stride), sum[i]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        lb_vstore(row->out + at + i * LB_LANES, sum[i]);
    }
}

static void add_values(const struct lb_attention_row *row, const struct state *s, int64_t j0, int64_t from,
                       int64_t to) {
    int64_t at = 0, end = row->heads * row->dim;
    for (; at + TILE * LB_LANES <= end; at += TILE * LB_LANES) {
        value_tile(row, s, TILE, at, j0, from, to);
    }
    for (; at < end; at += LB_LANES) {
        value_tile(row, s, 1, at, j0, from, to);
    }
}

void lb_attention_row(const struct lb_attention_row *row) {
    struct state s;
    for (int64_t i = 0; i < row->heads * row->dim; i++) {
        s.q[i] = row->q[i] * row->scale;
        row->out[i] = 0;
    }
    for (int64_t h = 0; h < row->heads; h++) {
        s.max[h] = -FLT_MAX;
        s.sum[h] = 0;
    }
    for (int64_t j0 = row->low / KEYS * KEYS; j0 < row->high; j0 += KEYS) {
        int64_t from = row->low > j0 ? row->low - j0 : 0, to = row->high - j0 < KEYS ? row->high - j0 : KEYS;
        for (int64_t h = 0; h < row->heads; h++) {
            scores(row, &s, h, j0, from, to);
        }
        for (int64_t h = 0; h < row->heads; h++) {
            softmax(&s, h, from, to);
        }
        add_values(row, &s, j0, from, to);
    }
    for (int64_t h = 0; h < row->heads; h++) {
        float *out = row->out + h * row->dim, inverse = 1 / s.sum[h];
        for (int64_t d = 0; d < row->dim; d++) {
            out[d] *= inverse;
        }
    }
}
