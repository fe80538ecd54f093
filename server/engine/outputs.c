/* The functions that fill one row of an output; proto/outputs.h says of which. */
#include "server/engine/extract.h"

#include "common/nn/reduce.h"

/* All numbers as they are: logits (as they come), states. */
void lb_extract_row(struct lb_row *row, const struct lb_job_output *o) {
    lb_put_floats(row, o, row->x);
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

/* Keys behind the sequence's end stay zero. */
void lb_extract_keys(struct lb_row *row, const struct lb_job_output *o) {
    for (int64_t h = 0; h < row->heads; h++) {
        lb_put_keys(row, o, h, row->x + h * row->stride, row->n);
    }
}
