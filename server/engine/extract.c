#include "server/engine/extract.h"

#include "common/nn/dtype.h"
#include "common/nn/reduce.h"

#include <omp.h>
#include <string.h>

enum lb_status lb_extract_init(struct lb_extract *extract, const struct lb_place *places,
                               const struct lb_ragged *ragged, int64_t v, struct lb_arena *arena) {
    *extract =
        (struct lb_extract){.places = places, .ragged = ragged, .v = v, .n_threads = omp_get_max_threads()};
    for (int64_t s = 0; s < ragged->n_seqs; s++) {
        int64_t k = places[s].job->needs_topk ? places[s].job->top_k : 0;
        extract->max_k = k > extract->max_k ? k : extract->max_k;
    }
    size_t n = (size_t)extract->n_threads * (size_t)extract->max_k;
    extract->ids = lb_arena_array(arena, n, sizeof *extract->ids);
    extract->values = lb_arena_array(arena, n, sizeof *extract->values);
    return n == 0 || (extract->ids && extract->values) ? LB_OK : LB_E_NOMEM;
}

/* Element index of an output's row r of sequence b. */
static size_t element(const struct lb_job *job, const struct lb_job_output *o, int64_t seq, int64_t r) {
    return (size_t)((seq * job->rows + r) * o->width);
}

static void put_floats(const struct lb_job_output *o, size_t at, const float *src, int64_t n) {
    if (o->datatype == LB_DT_FP16) {
        lb_f16_row_from(src, (uint16_t *)o->data + at, n);
    } else {
        memcpy((float *)o->data + at, src, (size_t)n * sizeof(float));
    }
}

static void put_ids(const struct lb_job_output *o, size_t at, const int32_t *src, int64_t n) {
    if (o->datatype == LB_DT_INT32) {
        memcpy((int32_t *)o->data + at, src, (size_t)n * sizeof(int32_t));
        return;
    }
    uint16_t *to = (uint16_t *)o->data + at;
    for (int64_t i = 0; i < n; i++) {
        to[i] = (uint16_t)src[i];
    }
}

/* log p(ids[t + 1]) at the job's temperature; the last row has no next token and stays zero. */
static void put_actual(const struct lb_job *job, const struct lb_job_output *o, int64_t seq, int64_t t,
                       const float *z, double lse) {
    if (t + 1 < lb_job_length(job, seq)) {
        int32_t id = job->ids[job->offsets[seq] + t + 1];
        float value = (float)((double)z[id] / job->temperature - lse);
        put_floats(o, element(job, o, seq, t - job->start[seq]), &value, 1);
    }
}

/* All that the job wants of row t of its sequence, whose logits are z [V]. */
static void reduce_row(const struct lb_extract *extract, const struct lb_job *job, int64_t seq, int64_t t,
                       const float *z) {
    size_t scratch = (size_t)omp_get_thread_num() * (size_t)extract->max_k;
    int32_t *ids = extract->ids + scratch;
    float *values = extract->values + scratch;
    int64_t r = t - job->start[seq];
    double lse = job->needs_lse ? lb_logsumexp(z, extract->v, job->temperature) : 0;
    float lse32 = (float)lse;
    if (job->needs_topk) {
        lb_topk(z, extract->v, job->top_k, ids, values);
    }
    for (size_t i = 0; i < job->n_outputs; i++) {
        const struct lb_job_output *o = &job->outputs[i];
        switch (o->what.kind) {
        case LB_OUT_LOGITS:
            put_floats(o, element(job, o, seq, r), z, extract->v);
            break;
        case LB_OUT_TOPK_IDS:
            put_ids(o, element(job, o, seq, r), ids, job->top_k);
            break;
        case LB_OUT_TOPK_VALUES:
            put_floats(o, element(job, o, seq, r), values, job->top_k);
            break;
        case LB_OUT_LOGSUMEXP:
            put_floats(o, element(job, o, seq, r), &lse32, 1);
            break;
        case LB_OUT_ACTUAL:
            put_actual(job, o, seq, t, z, lse);
            break;
        default:
            break; /* not made of logits */
        }
    }
}

enum lb_status lb_extract_logits(void *context, int64_t row, int64_t n, float *z) {
    struct lb_extract *extract = context;
    while (row >= extract->ragged->offsets[extract->at + 1]) {
        extract->at++;
    }
    const struct lb_place *place = &extract->places[extract->at];
    int64_t t = row - extract->ragged->offsets[extract->at];
#pragma omp parallel for schedule(dynamic, 4) if (n > 1)
    for (int64_t i = 0; i < n; i++) {
        reduce_row(extract, place->job, place->seq, t + i, z + i * extract->v);
    }
    return LB_OK;
}

static const struct lb_job_output *wanted(const struct lb_job *job, enum lb_output_kind kind, int layer) {
    for (size_t i = 0; i < job->n_outputs; i++) {
        if (job->outputs[i].what.kind == kind &&
            (kind == LB_OUT_HIDDEN_FINAL || job->outputs[i].what.layer == layer)) {
            return &job->outputs[i];
        }
    }
    return NULL;
}

void lb_extract_hidden(const struct lb_extract *extract, enum lb_output_kind kind, int layer,
                       const struct lb_value *value) {
    for (int64_t s = 0; s < extract->ragged->n_seqs; s++) {
        const struct lb_place *place = &extract->places[s];
        const struct lb_job_output *o = wanted(place->job, kind, layer);
        if (o) {
            int64_t first = place->job->start[place->seq];
            const float *src = value->data + (extract->ragged->offsets[s] + first) * value->cols;
            put_floats(o, element(place->job, o, place->seq, 0), src,
                       (lb_job_length(place->job, place->seq) - first) * value->cols);
        }
    }
}

/* [heads, rows, padded_t] of the output from [heads, T, T] of the model. */
static void put_attention(const struct lb_job *job, const struct lb_job_output *o, int64_t seq, int64_t heads,
                          const float *src) {
    int64_t length = lb_job_length(job, seq), first = job->start[seq];
    for (int64_t h = 0; h < heads; h++) {
        for (int64_t t = first; t < length; t++) {
            size_t at = (size_t)(((seq * heads + h) * job->rows + t - first) * job->padded_t);
            put_floats(o, at, src + (h * length + t) * length, length);
        }
    }
}

void lb_extract_attention(const struct lb_extract *extract, int layer, int64_t heads,
                          const struct lb_value *value) {
    const float *src = value->data;
    for (int64_t s = 0; s < extract->ragged->n_seqs; s++) {
        const struct lb_place *place = &extract->places[s];
        const struct lb_job_output *o = wanted(place->job, LB_OUT_ATTENTION, layer);
        int64_t length = extract->ragged->offsets[s + 1] - extract->ragged->offsets[s];
        if (o) {
            put_attention(place->job, o, place->seq, heads, src);
        }
        src += heads * length * length;
    }
}
