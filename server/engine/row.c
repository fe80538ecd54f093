/* What the functions that fill a row ask for and write with. */
#include "server/engine/extract.h"

#include "common/nn/dtype.h"
#include "common/nn/reduce.h"
#include "proto/logprob8.h"
#include "server/models/vocab_maps.h"

#include <string.h>

double lb_row_logsumexp(struct lb_row *row) {
    if (!row->has_lse) {
        row->lse = lb_head_logsumexp(row->x, row->n, row->job->temperature);
        row->has_lse = true;
    }
    return row->lse;
}

double lb_row_next_logit(const struct lb_row *row) {
    const struct lb_job *job = row->job;
    return row->x ? row->x[job->ids[job->offsets[row->seq] + row->t + 1]] : row->next_logit;
}

int32_t lb_row_scored(const struct lb_row *row, int64_t i) {
    const struct lb_job *job = row->job;
    return job->scored[(job->offsets[row->seq] + row->t) * (1 + job->n_scored) + 1 + i];
}

float lb_row_logit_at(const struct lb_row *row, int64_t i) {
    int32_t id = lb_row_scored(row, i);
    return row->x == NULL ? row->at[i] : id >= 0 ? row->x[id] : 0;
}

const struct lb_drawn *lb_row_draws(struct lb_row *row, int64_t *out_n) {
    if (!row->has_draws) {
        struct lb_draw draw = lb_job_row_draw(row->job, row->seq, row->t);
        row->n_drawn = lb_head_draw(row->x, row->n, &draw, row->drawn, &row->draw_lse);
        row->has_draws = true;
    }
    *out_n = row->n_drawn;
    return row->drawn;
}

/* All that is made of a whole row under a map. */
static void make_kept(struct lb_row *row) {
    const struct lb_job *job = row->job;
    const struct lb_head_want want = {
        .k = job->top_k, .temperature = job->temperature, .kept = job->map->kept};
    lb_head_parts(row->x, row->n, &want, row->ids, row->values, &row->log_rest, &row->log_outside);
    row->has_top_k = row->has_rest = row->has_outside = true;
}

static void make_top_k(struct lb_row *row) {
    if (!row->has_top_k && row->job->map) {
        make_kept(row);
    } else if (!row->has_top_k) {
        lb_topk(row->x, row->n, row->job->top_k, row->ids, row->values);
        row->has_top_k = true;
    }
}

double lb_row_plain_logsumexp(struct lb_row *row) {
    if (!row->has_plain) {
        row->plain_lse = lb_head_logsumexp(row->x, row->n, 1);
        row->has_plain = true;
    }
    return row->plain_lse;
}

double lb_row_log_rest(struct lb_row *row) {
    if (!row->has_rest && row->job->map) {
        make_kept(row);
    } else if (!row->has_rest) {
        row->log_rest =
            lb_head_log_rest(row->x, row->n, row->job->temperature, row->job->top_k, row->ids, row->values);
        row->has_rest = row->has_top_k = true;
    }
    return row->log_rest;
}

double lb_row_log_outside(struct lb_row *row) {
    if (!row->has_outside) {
        make_kept(row);
    }
    return row->log_outside;
}

const int32_t *lb_row_top_ids(struct lb_row *row) {
    make_top_k(row);
    return row->ids;
}

const float *lb_row_top_values(struct lb_row *row) {
    make_top_k(row);
    return row->values;
}

/* Element of the output at which the row begins. */
static size_t element(const struct lb_row *row, const struct lb_job_output *o) {
    int64_t r = row->t - row->job->start[row->seq];
    if (o->once) {
        return (size_t)(row->seq * o->width);
    }
    return (size_t)((row->seq * row->job->rows + r) * o->width);
}

static void put(const struct lb_job_output *o, size_t at, const float *src, int64_t n) {
    switch (o->datatype) {
    case LB_DT_FP16:
        lb_f16_row_from(src, (uint16_t *)o->data + at, n);
        break;
    case LB_DT_BF16:
        lb_bf16_row_from(src, (uint16_t *)o->data + at, n);
        break;
    case LB_DT_UINT8:
        for (int64_t i = 0; i < n; i++) {
            ((uint8_t *)o->data)[at + (size_t)i] = lb_logprob8_from(src[i]);
        }
        break;
    default:
        memcpy((float *)o->data + at, src, (size_t)n * sizeof(float));
    }
}

void lb_put_part(const struct lb_row *row, const struct lb_job_output *o, int64_t first, const float *src,
                 int64_t n) {
    put(o, element(row, o) + (size_t)first, src, n);
}

void lb_put_floats(const struct lb_row *row, const struct lb_job_output *o, const float *src) {
    lb_put_part(row, o, 0, src, o->width);
}

#define PICKED 1024 /* logits that are picked from at once */

void lb_put_logits(const struct lb_row *row, const struct lb_job_output *o, int64_t id, const float *z,
                   int64_t n) {
    if (!row->job->map) {
        lb_put_part(row, o, id, z, n);
        return;
    }
    for (int64_t at = 0; at < n; at += PICKED) {
        float some[PICKED];
        int64_t m, place = lb_kept_gather(&row->job->map->kept, z + at, n - at < PICKED ? n - at : PICKED,
                                          id + at, some, &m);
        lb_put_part(row, o, place, some, m);
    }
}

float lb_row_logprob(struct lb_row *row, float logit) {
    double logprob = (double)logit / row->job->temperature - lb_row_logsumexp(row);
    return logprob > 0 ? 0 : (float)logprob; /* rounding makes no probability above 1 */
}

void lb_put_logprobs(struct lb_row *row, const struct lb_job_output *o, const float *z) {
    float part[64];
    for (int64_t at = 0, n; at < o->width; at += n) {
        n = o->width - at < 64 ? o->width - at : 64;
        for (int64_t i = 0; i < n; i++) {
            part[i] = lb_row_logprob(row, z[at + i]);
        }
        lb_put_part(row, o, at, part, n);
    }
}

void lb_put_ids_part(const struct lb_row *row, const struct lb_job_output *o, int64_t first,
                     const int32_t *src, int64_t n) {
    size_t at = element(row, o) + (size_t)first;
    if (o->datatype == LB_DT_INT32) {
        memcpy((int32_t *)o->data + at, src, (size_t)n * sizeof(int32_t));
        return;
    }
    uint16_t *to = (uint16_t *)o->data + at;
    for (int64_t i = 0; i < n; i++) {
        to[i] = (uint16_t)src[i];
    }
}

void lb_put_ids(const struct lb_row *row, const struct lb_job_output *o, const int32_t *src) {
    lb_put_ids_part(row, o, 0, src, o->width);
}

void lb_put_keys(const struct lb_row *row, const struct lb_job_output *o, int64_t head, const float *src,
                 int64_t n) {
    const struct lb_job *job = row->job;
    int64_t r = row->t - job->start[row->seq];
    put(o, (size_t)(((row->seq * row->heads + head) * job->rows + r) * o->width), src, n);
}
