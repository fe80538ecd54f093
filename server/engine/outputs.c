/* The functions that fill one row of an output; proto/outputs.h says of which. */
#include "server/engine/extract.h"

#include "common/nn/reduce.h"

#include <math.h>

/* All numbers as they are: states. */
void lb_extract_row(struct lb_row *row, const struct lb_job_output *o) {
    lb_put_floats(row, o, row->x);
}

/* The logits, or those of the ids that are kept. */
void lb_extract_vocab(struct lb_row *row, const struct lb_job_output *o) {
    lb_put_logits(row, o, 0, row->x, row->n);
}

void lb_extract_topk_ids(struct lb_row *row, const struct lb_job_output *o) {
    lb_put_ids(row, o, lb_row_top_ids(row));
}

void lb_extract_topk_values(struct lb_row *row, const struct lb_job_output *o) {
    lb_put_floats(row, o, lb_row_top_values(row));
}

/* log p of the k largest, at the job's temperature. */
void lb_extract_topk_logprobs(struct lb_row *row, const struct lb_job_output *o) {
    lb_put_logprobs(row, o, lb_row_top_values(row));
}

void lb_extract_logsumexp(struct lb_row *row, const struct lb_job_output *o) {
    float lse = (float)lb_row_logsumexp(row);
    lb_put_floats(row, o, &lse);
}

/* log p(ids[t + 1]) at the job's temperature; the last row has no next token and stays zero. */
void lb_extract_actual(struct lb_row *row, const struct lb_job_output *o) {
    const struct lb_job *job = row->job;
    if (row->t + 1 < lb_job_length(job, row->seq)) {
        float value = (float)(lb_row_next_logit(row) / job->temperature - lb_row_logsumexp(row));
        lb_put_floats(row, o, &value);
    }
}

/* The same at temperature 1. */
void lb_extract_next(struct lb_row *row, const struct lb_job_output *o) {
    if (row->t + 1 < lb_job_length(row->job, row->seq)) {
        float value = (float)(lb_row_next_logit(row) - lb_row_plain_logsumexp(row));
        lb_put_floats(row, o, &value);
    }
}

/* How many other ids have logits at least as large as the next token's. */
void lb_extract_rank(struct lb_row *row, const struct lb_job_output *o) {
    if (row->t + 1 < lb_job_length(row->job, row->seq)) {
        int32_t n = (int32_t)lb_count_above(row->x, row->n, lb_row_next_logit(row)) - 1;
        n = n < 0 ? 0 : n; /* where it is NaN */
        lb_put_ids(row, o, &n);
    }
}

/* log of the probability of all ids that are not among the k largest. */
void lb_extract_rest(struct lb_row *row, const struct lb_job_output *o) {
    float value = (float)lb_row_log_rest(row);
    lb_put_floats(row, o, &value);
}

/* The same of all ids that the job's map doesn't keep. */
void lb_extract_outside(struct lb_row *row, const struct lb_job_output *o) {
    float value = (float)lb_row_log_outside(row);
    lb_put_floats(row, o, &value);
}

#define PART 64 /* numbers made at once */

/* Logits of the ids that the client chose; of none 0. */
void lb_extract_at_ids(struct lb_row *row, const struct lb_job_output *o) {
    float part[PART];
    for (int64_t at = 0, n; at < o->width; at += n) {
        n = o->width - at < PART ? o->width - at : PART;
        for (int64_t i = 0; i < n; i++) {
            part[i] = lb_row_logit_at(row, at + i);
        }
        lb_put_part(row, o, at, part, n);
    }
}

void lb_extract_at_logprobs(struct lb_row *row, const struct lb_job_output *o) {
    float part[PART];
    for (int64_t at = 0, n; at < o->width; at += n) {
        n = o->width - at < PART ? o->width - at : PART;
        for (int64_t i = 0; i < n; i++) {
            part[i] = lb_row_scored(row, at + i) < 0 ? 0 : lb_row_logprob(row, lb_row_logit_at(row, at + i));
        }
        lb_put_part(row, o, at, part, n);
    }
}

/* What was drawn, in the order of ids; places that are left stay zero. */
static void put_drawn(struct lb_row *row, const struct lb_job_output *o, bool counts) {
    int32_t part[PART];
    int64_t n_drawn;
    const struct lb_drawn *drawn = lb_row_draws(row, &n_drawn);
    for (int64_t at = 0, n; at < n_drawn; at += n) {
        n = n_drawn - at < PART ? n_drawn - at : PART;
        for (int64_t i = 0; i < n; i++) {
            part[i] = counts ? drawn[at + i].count : drawn[at + i].id;
        }
        lb_put_ids_part(row, o, at, part, n);
    }
}

void lb_extract_sample_ids(struct lb_row *row, const struct lb_job_output *o) {
    put_drawn(row, o, false);
}

void lb_extract_sample_counts(struct lb_row *row, const struct lb_job_output *o) {
    put_drawn(row, o, true);
}

/* What the draws estimate of p_j at the job's temperature: its share of them, times p_j over the probability
 * with which it is drawn. */
void lb_extract_sample_weights(struct lb_row *row, const struct lb_job_output *o) {
    const struct lb_job *job = row->job;
    bool tempered = job->sample_temperature != job->temperature;
    int64_t n_drawn;
    const struct lb_drawn *drawn = lb_row_draws(row, &n_drawn);
    double lse = tempered && n_drawn > 0 ? lb_row_logsumexp(row) : 0;
    for (int64_t i = 0; i < n_drawn; i++) {
        double z = (double)drawn[i].logit, weight = (double)drawn[i].count / (double)job->samples;
        if (tempered) {
            weight *= exp(z / job->temperature - lse - (z / job->sample_temperature - row->draw_lse));
        }
        lb_put_part(row, o, i, &(float){(float)weight}, 1);
    }
}

/* Keys behind the sequence's end stay zero. */
void lb_extract_keys(struct lb_row *row, const struct lb_job_output *o) {
    for (int64_t h = 0; h < row->heads; h++) {
        lb_put_keys(row, o, h, row->x + h * row->stride, row->n);
    }
}
