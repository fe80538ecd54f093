#include "server/engine/stream.h"

#include "common/base/mem.h"
#include "common/model/model.h"
#include "common/nn/gemm.h"
#include "common/nn/half.h"
#include "common/nn/head.h"
#include "server/models/repository.h"

#include <omp.h>
#include <string.h>

/* Tape beside a chunk's logits and its states. */
#define MORE_BYTES ((size_t)1 << 20)

struct lb_logits_stream {
    const struct lb_job *job;
    const struct lb_job_output *output;
    const struct lb_head *head;
    struct lb_tape *tape;
    int64_t v, step; /* rows of a chunk */
    int64_t seq, r;  /* the next row */
    float *z;        /* [most_rows, V]; holds rows chunk .. chunk + chunk_n - 1 of the sequence */
    int64_t chunk, chunk_n;
    int32_t offsets[2]; /* of the tape's batch */
    void *row;          /* of another datatype than FP32, or of zeros */
    int64_t width;      /* its numbers: V, or as many as the job's map keeps */
    float *kept;        /* [width] of a row; NULL without a map */
};

/* Rows of the largest chunk. */
static int64_t most_rows(const struct lb_job *job) {
    int64_t step = lb_head_plain_chunk(lb_hosted_vocab(job->model)), most = 1;
    for (int64_t b = 0; b < job->n_seqs; b++) {
        int64_t n = lb_job_length(job, b) - lb_job_first_kept(job, b, step);
        n = n < step ? n : step;
        most = n > most ? n : most;
    }
    return most;
}

static size_t tape_bytes(const struct lb_job *job) {
    const struct lb_weight *w = lb_model_head(job->model->model)->weight;
    size_t states = (size_t)(most_rows(job) * w->cols) * sizeof(float);
    size_t wide = (size_t)lb_gemm_weight_floats(w) * sizeof(float);
    return states + wide + (size_t)w->rows * sizeof(float) + MORE_BYTES;
}

size_t lb_logits_stream_bytes(const struct lb_job *job) {
    int64_t v = lb_hosted_vocab(job->model);
    return tape_bytes(job) + (size_t)((most_rows(job) + 1 + (job->map != NULL)) * v) * sizeof(float);
}

struct lb_logits_stream *lb_logits_stream_create(const struct lb_job *job,
                                                 const struct lb_job_output *output) {
    struct lb_logits_stream *s = lb_calloc(1, sizeof *s);
    if (!s) {
        return NULL;
    }
    s->job = job;
    s->output = output;
    s->head = lb_model_head(job->model->model);
    s->v = s->head->weight->rows;
    s->step = lb_head_plain_chunk(s->v);
    s->tape = lb_tape_create(tape_bytes(job));
    s->row = lb_calloc((size_t)s->v, sizeof(float));
    s->z = lb_malloc_array((size_t)(most_rows(job) * s->v), sizeof *s->z);
    s->width = job->map ? job->map->kept.n : s->v;
    s->kept = job->map ? lb_malloc_array((size_t)s->width, sizeof *s->kept) : NULL;
    if (!s->tape || !s->row || !s->z || (job->map && !s->kept)) {
        lb_logits_stream_destroy(s);
        return NULL;
    }
    return s;
}

void lb_logits_stream_destroy(struct lb_logits_stream *s) {
    if (s) {
        lb_tape_destroy(s->tape);
        lb_free(s->row);
        lb_free(s->kept);
        lb_free(s->z);
        lb_free(s);
    }
}

/* The chunk that holds row t of the sequence, as a sequence of its own: so the head takes it in any batch. */
static bool make_chunk(struct lb_logits_stream *s, int64_t t) {
    const struct lb_job *job = s->job;
    int64_t c = s->head->weight->cols, length = lb_job_length(job, s->seq), first = t / s->step * s->step;
    int64_t n = length - first < s->step ? length - first : s->step;
    int64_t kept = lb_job_first_kept(job, s->seq, s->step);
    struct lb_ragged ragged = {1, s->offsets};
    int threads = omp_get_max_threads();
    s->offsets[1] = (int32_t)n;
    lb_tape_begin(s->tape, LB_TAPE_PLAIN, &ragged, NULL);
    struct lb_value *h = lb_tape_value(s->tape, n, c);
    if (!h) {
        return false;
    }
    memcpy(h->data, job->states + (job->kept[s->seq] + first - kept) * c, (size_t)(n * c) * sizeof *h->data);
    omp_set_num_threads(1); /* of this thread: the engine has the others */
    enum lb_status status = lb_head_chunk_logits(s->tape, h, s->head, s->z);
    omp_set_num_threads(threads);
    s->chunk = first;
    s->chunk_n = n;
    return status == LB_OK;
}

const void *lb_logits_stream_next(struct lb_logits_stream *s, size_t *out_len) {
    const struct lb_job *job = s->job;
    size_t element = lb_datatype_bytes(s->output->datatype);
    if (s->r == job->rows) {
        s->r = 0;
        s->seq++;
        s->chunk_n = 0;
    }
    if (s->seq == job->n_seqs) {
        *out_len = 0;
        return s->row;
    }
    int64_t t = job->start[s->seq] + s->r;
    *out_len = (size_t)s->width * element;
    if (t >= lb_job_length(job, s->seq)) { /* behind the sequence's end */
        memset(s->row, 0, *out_len);
        s->r++;
        return s->row;
    }
    if ((s->chunk_n == 0 || t >= s->chunk + s->chunk_n) && !make_chunk(s, t)) {
        return NULL;
    }
    const float *z = s->z + (t - s->chunk) * s->v;
    if (s->output->datatype == LB_DT_FP32 && !s->kept) { /* all that there is of them */
        int64_t n = s->chunk + s->chunk_n - t;
        s->r += n;
        *out_len *= (size_t)n;
        return z;
    }
    s->r++;
    if (s->kept) {
        int64_t n;
        lb_kept_gather(&job->map->kept, z, s->v, 0, s->kept, &n);
        z = s->kept;
    }
    if (s->output->datatype == LB_DT_FP32) {
        return z;
    }
    if (s->output->datatype == LB_DT_FP16) {
        lb_f16_row_from(z, s->row, s->width);
    } else {
        lb_bf16_row_from(z, s->row, s->width);
    }
    return s->row;
}
