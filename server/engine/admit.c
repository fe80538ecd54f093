#include "server/engine/admit.h"

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/model/model.h"
#include "server/engine/stream.h"
#include "server/models/repository.h"

#include <stdio.h>
#include <string.h>

/* Classes of the job's distributions: ids that its map keeps, or all. */
static int64_t kept_vocab(const struct lb_job *job) {
    return job->map ? job->map->kept.n : lb_hosted_vocab(job->model);
}

/* ---- inputs ---- */

struct inputs {
    const struct lb_wire_tensor *ids, *lengths, *start, *scores, *features;
};

static enum lb_status find_inputs(const struct lb_infer_request *request, const struct lb_hosted *hosted,
                                  struct inputs *out, struct lb_detail *detail) {
    bool decoder = hosted->decoder, scores = decoder && lb_hosted_scores(hosted);
    const char *takes = scores    ? LB_IN_IDS ", " LB_IN_LENGTHS ", " LB_IN_START ", " LB_IN_SCORE_IDS
                        : decoder ? LB_IN_IDS ", " LB_IN_LENGTHS ", " LB_IN_START
                                  : LB_IN_FEATURES;
    for (size_t i = 0; i < request->n_inputs; i++) {
        const struct lb_wire_tensor *t = &request->inputs[i];
        const struct lb_wire_tensor **slot = NULL;
        if (decoder) {
            slot = strcmp(t->name, LB_IN_IDS) == 0                   ? &out->ids
                   : strcmp(t->name, LB_IN_LENGTHS) == 0             ? &out->lengths
                   : strcmp(t->name, LB_IN_START) == 0               ? &out->start
                   : scores && strcmp(t->name, LB_IN_SCORE_IDS) == 0 ? &out->scores
                                                                     : NULL;
        } else if (strcmp(t->name, LB_IN_FEATURES) == 0) {
            slot = &out->features;
        }
        if (!slot) {
            return lb_fail(detail, LB_E_ARG, "input %s: this model has no such input; it takes %s", t->name,
                           takes);
        }
        if (*slot) {
            return lb_fail(detail, LB_E_ARG, "input %s: given twice", t->name);
        }
        *slot = t;
    }
    if (decoder ? !out->ids : !out->features) {
        return lb_fail(detail, LB_E_ARG, "input %s is missing", decoder ? LB_IN_IDS : LB_IN_FEATURES);
    }
    return LB_OK;
}

static int64_t integer_at(const struct lb_wire_tensor *t, int64_t i) {
    if (t->datatype == LB_DT_INT32) {
        int32_t v;
        memcpy(&v, (const char *)t->data + i * 4, 4);
        return v;
    }
    int64_t v;
    memcpy(&v, (const char *)t->data + i * 8, 8);
    return v;
}

static enum lb_status check_matrix(const struct lb_wire_tensor *t, const char *shape,
                                   struct lb_detail *detail) {
    if (t->n_dims != 2 || t->dim[0] < 1 || t->dim[1] < 1) {
        return lb_fail(detail, LB_E_ARG, "input %s: expected shape %s with at least one row and column",
                       t->name, shape);
    }
    if (t->dim[0] > LB_MAX_SEQUENCES) {
        return lb_fail(detail, LB_E_LIMIT, "input %s: %lld sequences; one request takes at most %d", t->name,
                       (long long)t->dim[0], LB_MAX_SEQUENCES);
    }
    return LB_OK;
}

/* One integer per sequence within [min, max(b)], or fallback where the input isn't there. */
static enum lb_status check_vector(const struct lb_wire_tensor *t, int64_t n_seqs, struct lb_detail *detail) {
    if (t->datatype != LB_DT_INT32 && t->datatype != LB_DT_INT64) {
        return lb_fail(detail, LB_E_ARG, "input %s: datatype %s; expected INT32", t->name,
                       lb_datatype_name(t->datatype));
    }
    if (lb_wire_elements(t) != n_seqs || t->n_dims < 1 || t->n_dims > 2) {
        return lb_fail(detail, LB_E_ARG, "input %s: expected shape [%lld], one number for each sequence",
                       t->name, (long long)n_seqs);
    }
    return LB_OK;
}

static enum lb_status read_lengths(const struct inputs *in, struct lb_job *job, int64_t max_length,
                                   const struct lb_plan_limits *limits, struct lb_detail *detail) {
    if (max_length > 0 && job->padded_t > max_length) {
        return lb_fail(
            detail, LB_E_ARG,
            "input input_ids: %lld columns; this model takes at most %lld tokens, padding included",
            (long long)job->padded_t, (long long)max_length);
    }
    int64_t total = 0;
    for (int64_t b = 0; b < job->n_seqs; b++) {
        int64_t length = in->lengths ? integer_at(in->lengths, b) : job->padded_t;
        if (length < 1 || length > job->padded_t) {
            return lb_fail(detail, LB_E_ARG, "lengths[%lld] = %lld: must be within 1..%lld", (long long)b,
                           (long long)length, (long long)job->padded_t);
        }
        total += length;
        if (total > limits->max_tokens) {
            return lb_fail(detail, LB_E_LIMIT,
                           "more than %lld tokens in one request; send fewer sequences at once",
                           (long long)limits->max_tokens);
        }
        job->offsets[b + 1] = (int32_t)total;
    }
    job->n_tokens = total;
    return LB_OK;
}

static enum lb_status read_starts(const struct inputs *in, struct lb_job *job, struct lb_detail *detail) {
    job->rows = in->start ? 0 : job->padded_t;
    for (int64_t b = 0; in->start && b < job->n_seqs; b++) {
        int64_t start = integer_at(in->start, b), length = lb_job_length(job, b);
        if (start < 0 || start >= length) {
            return lb_fail(detail, LB_E_ARG,
                           "start[%lld] = %lld: must be within 0..%lld, the sequence's last row",
                           (long long)b, (long long)start, (long long)length - 1);
        }
        job->start[b] = (int32_t)start;
        job->rows = length - start > job->rows ? length - start : job->rows;
    }
    return LB_OK;
}

static enum lb_status read_ids(const struct lb_wire_tensor *t, struct lb_job *job, int64_t v,
                               struct lb_detail *detail) {
    for (int64_t b = 0; b < job->n_seqs; b++) {
        int64_t length = lb_job_length(job, b);
        for (int64_t i = 0; i < length; i++) {
            int64_t id = integer_at(t, b * job->padded_t + i);
            if (id < 0 || id >= v) {
                return lb_fail(detail, LB_E_ARG,
                               "input_ids[%lld,%lld] = %lld: outside the vocabulary, 0..%lld", (long long)b,
                               (long long)i, (long long)id, (long long)v - 1);
            }
            job->ids[job->offsets[b] + i] = (int32_t)id;
        }
    }
    return LB_OK;
}

static enum lb_status out_of_memory(struct lb_detail *detail) {
    return lb_fail(detail, LB_E_NOMEM, "out of memory for this request; try again");
}

static enum lb_status check_scores(const struct lb_wire_tensor *t, const struct lb_job *job,
                                   struct lb_detail *detail) {
    if (t->datatype != LB_DT_INT32 && t->datatype != LB_DT_INT64) {
        return lb_fail(detail, LB_E_ARG, "input %s: datatype %s; expected INT32", t->name,
                       lb_datatype_name(t->datatype));
    }
    if (t->n_dims != 3 || t->dim[0] != job->n_seqs || t->dim[1] != job->padded_t || t->dim[2] < 1) {
        return lb_fail(detail, LB_E_ARG,
                       "input %s: expected shape [%lld, %lld, K'], as many ids for each position", t->name,
                       (long long)job->n_seqs, (long long)job->padded_t);
    }
    if (t->dim[2] > LB_MAX_SCORE_IDS) {
        return lb_fail(detail, LB_E_LIMIT, "input %s: %lld ids for each position; at most %d are taken",
                       t->name, (long long)t->dim[2], LB_MAX_SCORE_IDS);
    }
    return LB_OK;
}

/* The ids of one returned row. */
static enum lb_status read_row_scores(const struct lb_wire_tensor *t, const struct lb_job *job, int64_t b,
                                      int64_t row, int64_t v, struct lb_detail *detail) {
    int32_t *to = job->scored + (job->offsets[b] + row) * (1 + job->n_scored);
    *to++ = row + 1 < lb_job_length(job, b) ? job->ids[job->offsets[b] + row + 1] : -1;
    for (int64_t i = 0; i < job->n_scored; i++) {
        int64_t id = integer_at(t, (b * job->padded_t + row) * job->n_scored + i);
        if (id < -1 || id >= v) {
            return lb_fail(detail, LB_E_ARG,
                           "score_ids[%lld,%lld,%lld] = %lld: must be an id, 0..%lld, or -1 for none",
                           (long long)b, (long long)row, (long long)i, (long long)id, (long long)v - 1);
        }
        to[i] = job->map && id >= 0 ? job->map->ids[id] : (int32_t)id;
    }
    return LB_OK;
}

static enum lb_status read_scores(const struct lb_wire_tensor *t, struct lb_job *job, int64_t v,
                                  struct lb_detail *detail) {
    enum lb_status status = check_scores(t, job, detail);
    if (status != LB_OK) {
        return status;
    }
    job->n_scored = t->dim[2];
    job->scored =
        lb_arena_array(&job->arena, (size_t)(job->n_tokens * (1 + job->n_scored)), sizeof *job->scored);
    if (!job->scored) {
        return out_of_memory(detail);
    }
    for (int64_t b = 0; b < job->n_seqs; b++) {
        for (int64_t row = job->start[b]; row < lb_job_length(job, b) && status == LB_OK; row++) {
            status = read_row_scores(t, job, b, row, v, detail);
        }
    }
    return status;
}

/* Where each row's random numbers come from: what the row's answer depends on, the sequence up to it (of
 * classifiers the whole one), and nothing else, so that equal prefixes draw alike whatever they are asked
 * with. */
static enum lb_status make_streams(struct lb_job *job, int64_t input_size, struct lb_detail *detail) {
    static const uint64_t begin = 0x6c696d6265636b64u, step = 0x9e3779b97f4a7c15u;
    job->streams = lb_arena_array(&job->arena, (size_t)job->n_tokens, sizeof *job->streams);
    if (!job->streams) {
        return out_of_memory(detail);
    }
    for (int64_t b = 0; b < job->n_seqs; b++) {
        uint64_t stream = begin;
        for (int64_t c = 0; c < input_size; c++) { /* a classifier's row */
            uint32_t bits;
            memcpy(&bits, &job->features[b * input_size + c], sizeof bits);
            stream = lb_mix64(stream + step * (1 + (uint64_t)bits));
        }
        for (int32_t i = job->offsets[b]; i < job->offsets[b + 1]; i++) {
            stream = job->ids ? lb_mix64(stream + step * (1 + (uint64_t)job->ids[i])) : stream;
            job->streams[i] = stream;
        }
        if (lb_model_is_classifier(job->model->model)) { /* its one row goes by all of the text */
            job->streams[job->offsets[b]] = stream;
        }
    }
    return LB_OK;
}

static enum lb_status plan_sequences(const struct lb_infer_request *request, const struct lb_config *config,
                                     const struct lb_plan_limits *limits, struct lb_job *job,
                                     struct lb_detail *detail) {
    struct inputs in = {0};
    enum lb_status status = find_inputs(request, job->model, &in, detail);
    if (status != LB_OK) {
        return status;
    }
    if (in.ids->datatype != LB_DT_INT32 && in.ids->datatype != LB_DT_INT64) {
        return lb_fail(detail, LB_E_ARG, "input input_ids: datatype %s; expected INT32 or INT64",
                       lb_datatype_name(in.ids->datatype));
    }
    status = check_matrix(in.ids, "[B, T]", detail);
    if (status != LB_OK) {
        return status;
    }
    job->n_seqs = in.ids->dim[0];
    job->padded_t = in.ids->dim[1];
    if ((in.lengths && (status = check_vector(in.lengths, job->n_seqs, detail)) != LB_OK) ||
        (in.start && (status = check_vector(in.start, job->n_seqs, detail)) != LB_OK)) {
        return status;
    }
    job->offsets = lb_arena_zarray(&job->arena, (size_t)job->n_seqs + 1, sizeof *job->offsets);
    job->start = lb_arena_zarray(&job->arena, (size_t)job->n_seqs, sizeof *job->start);
    if (!job->offsets || !job->start) {
        return out_of_memory(detail);
    }
    if ((status = read_lengths(&in, job, config->max_position_embeddings, limits, detail)) != LB_OK ||
        (status = read_starts(&in, job, detail)) != LB_OK) {
        return status;
    }
    job->ids = lb_arena_array(&job->arena, (size_t)job->n_tokens, sizeof *job->ids);
    status = job->ids ? read_ids(in.ids, job, config->vocab_size, detail) : out_of_memory(detail);
    return status == LB_OK && in.scores ? read_scores(in.scores, job, kept_vocab(job), detail) : status;
}

/* A classifier's rows are sequences of one row each. */
static enum lb_status plan_features(const struct lb_infer_request *request, const struct lb_config *config,
                                    const struct lb_plan_limits *limits, struct lb_job *job,
                                    struct lb_detail *detail) {
    struct inputs in = {0};
    enum lb_status status = find_inputs(request, job->model, &in, detail);
    if (status != LB_OK || !in.features) {
        return status;
    }
    if (in.features->datatype != LB_DT_FP32) {
        return lb_fail(detail, LB_E_ARG, "input features: datatype %s; expected FP32",
                       lb_datatype_name(in.features->datatype));
    }
    status = check_matrix(in.features, "[B, C]", detail);
    if (status != LB_OK) {
        return status;
    }
    if (in.features->dim[1] != config->input_size) {
        return lb_fail(detail, LB_E_ARG, "input features: %lld columns; this model takes %lld",
                       (long long)in.features->dim[1], (long long)config->input_size);
    }
    job->n_seqs = job->n_tokens = in.features->dim[0];
    job->padded_t = job->rows = 1;
    if (job->n_tokens > limits->max_tokens) {
        return lb_fail(detail, LB_E_LIMIT, "more than %lld rows in one request",
                       (long long)limits->max_tokens);
    }
    job->offsets = lb_arena_array(&job->arena, (size_t)job->n_seqs + 1, sizeof *job->offsets);
    job->start = lb_arena_zarray(&job->arena, (size_t)job->n_seqs, sizeof *job->start);
    float *features =
        lb_arena_array(&job->arena, (size_t)job->n_seqs * (size_t)config->input_size, sizeof *features);
    if (!job->offsets || !job->start || !features) {
        return out_of_memory(detail);
    }
    for (int64_t b = 0; b <= job->n_seqs; b++) {
        job->offsets[b] = (int32_t)b;
    }
    memcpy(features, in.features->data, in.features->bytes);
    job->features = features;
    return LB_OK;
}

/* ---- outputs ---- */

static enum lb_status choose_dtype(const struct lb_wire_output *asked, int64_t v, struct lb_job_output *o,
                                   struct lb_detail *detail) {
    const struct lb_output *is = lb_output_get(o->what.kind);
    o->datatype = asked->datatype == LB_DT_NONE ? is->own : asked->datatype;
    if (!lb_output_comes_as(o->what.kind, o->datatype)) {
        char types[LB_OUTPUT_TYPES_TEXT];
        return lb_fail(detail, LB_E_ARG, "output %s: dtype %s; this output comes as %s", o->name,
                       lb_datatype_name(o->datatype), lb_output_types(o->what.kind, types));
    }
    if (o->datatype == LB_DT_UINT16 && is->numbers != LB_ARE_COUNTS && v > 65536) {
        return lb_fail(detail, LB_E_ARG,
                       "output %s: dtype UINT16 can't hold ids of a vocabulary of %lld; ask for INT32",
                       o->name, (long long)v);
    }
    if ((o->datatype == LB_DT_FP16 || o->datatype == LB_DT_BF16) && !o->binary) {
        return lb_fail(detail, LB_E_ARG, "output %s: %s has no JSON form; ask for binary_data or for FP32",
                       o->name, lb_datatype_name(o->datatype));
    }
    return LB_OK;
}

static void shape_output(const struct lb_hosted *hosted, const struct lb_job *job, struct lb_job_output *o) {
    struct lb_output_sizes sizes = lb_hosted_sizes(hosted, o->what);
    sizes.sequences = job->n_seqs;
    sizes.rows = job->rows;
    sizes.positions = job->padded_t;
    sizes.top_k = job->top_k;
    sizes.scored = job->n_scored;
    sizes.vocab = kept_vocab(job);
    sizes.samples = job->samples < sizes.vocab ? job->samples : sizes.vocab;
    o->n_dims = lb_output_shape(o->what.kind, &sizes, o->dim);
    o->once = sizes.classifier || lb_output_get(o->what.kind)->width == LB_WIDE_SENTENCE;
    o->width = lb_output_get(o->what.kind)->width == LB_WIDE_ONE ? 1 : o->dim[o->n_dims - 1];
}

/* bytes = product of the dimensions times the element, with overflow checks. */
static enum lb_status size_output(struct lb_job *job, struct lb_job_output *o,
                                  const struct lb_plan_limits *limits, struct lb_detail *detail) {
    size_t bytes = lb_datatype_bytes(o->datatype);
    bool fits = true;
    for (int i = 0; i < o->n_dims && fits; i++) {
        fits = lb_mul_size(bytes, (size_t)o->dim[i], &bytes);
    }
    fits = fits && lb_add_size(job->output_bytes, bytes, &job->output_bytes);
    if (!fits || job->output_bytes > limits->max_response_bytes) {
        return lb_fail(detail, LB_E_LIMIT,
                       "the answer would be larger than %zu bytes at output %s; ask for fewer sequences, "
                       "FP16, or top-k instead of logits",
                       limits->max_response_bytes, o->name);
    }
    o->bytes = bytes;
    return LB_OK;
}

static enum lb_status plan_output(const struct lb_wire_output *asked, const struct lb_plan_limits *limits,
                                  struct lb_job *job, struct lb_detail *detail) {
    const struct lb_hosted *hosted = job->model;
    struct lb_job_output *o = &job->outputs[job->n_outputs];
    enum lb_status status = lb_output_parse(asked->name, &o->what, detail);
    if (status != LB_OK) {
        return status;
    }
    lb_output_format(o->what.kind, o->what.layer, o->name);
    o->binary = asked->binary;
    for (size_t i = 0; i < job->n_outputs; i++) {
        if (strcmp(job->outputs[i].name, o->name) == 0) {
            return lb_fail(detail, LB_E_ARG, "output %s: asked for twice", o->name);
        }
    }
    status = lb_hosted_gives(hosted, o->what, o->name, detail);
    if (status == LB_OK) {
        bool kept = lb_output_get(o->what.kind)->uses & LB_USES_KEPT;
        status = choose_dtype(asked, kept ? kept_vocab(job) : lb_hosted_vocab(hosted), o, detail);
    }
    if (status != LB_OK) {
        return status;
    }
    unsigned uses = lb_output_get(o->what.kind)->uses;
    if (uses & LB_USES_SCORE_IDS && !job->scored) {
        return lb_fail(detail, LB_E_ARG, "output %s: the input " LB_IN_SCORE_IDS " is missing", o->name);
    }
    if (uses & LB_USES_SAMPLES && job->samples == 0) {
        return lb_fail(
            detail, LB_E_ARG,
            "output %s: the parameter sample_count is missing; say how often each row is drawn from",
            o->name);
    }
    if (uses & LB_USES_SAMPLES && job->map) {
        return lb_fail(
            detail, LB_E_ARG,
            "output %s: not with the parameter vocab_map, which may lack what is drawn; ask for it "
            "without",
            o->name);
    }
    if (uses & LB_USES_OUTSIDE && !job->map) {
        return lb_fail(detail, LB_E_ARG,
                       "output %s: the parameter vocab_map is missing; say which ids are within", o->name);
    }
    shape_output(hosted, job, o);
    job->needs_topk |= (uses & LB_USES_TOP_K) != 0;
    job->needs_samples |= (uses & LB_USES_SAMPLES) != 0;
    job->n_outputs++;
    status = size_output(job, o, limits, detail);
    o->streamed = status == LB_OK && o->what.kind == LB_OUT_LOGITS && o->binary && !o->once &&
                  limits->stream_bytes > 0 && o->bytes > limits->stream_bytes;
    job->streamed_bytes += o->streamed ? o->bytes : 0;
    job->needs_head |= lb_output_get(o->what.kind)->source == LB_FROM_LOGITS && !o->streamed;
    return status;
}

/* Which states are kept for what is streamed, where that takes less memory. */
static enum lb_status plan_states(struct lb_job *job, struct lb_detail *detail) {
    const struct lb_weight *head = lb_model_head(job->model->model)->weight;
    int64_t step = lb_head_plain_chunk(head->rows), rows = 0;
    job->kept = lb_arena_array(&job->arena, (size_t)job->n_seqs, sizeof *job->kept);
    if (!job->kept) {
        return out_of_memory(detail);
    }
    for (int64_t b = 0; b < job->n_seqs; b++) {
        job->kept[b] = (int32_t)rows;
        rows += lb_job_length(job, b) - lb_job_first_kept(job, b, step);
    }
    job->state_bytes = (size_t)(rows * head->cols) * sizeof(float);
    if (job->state_bytes + lb_logits_stream_bytes(job) >= job->streamed_bytes) { /* nothing would be saved */
        for (size_t i = 0; i < job->n_outputs; i++) {
            job->outputs[i].streamed = false;
        }
        job->needs_head = true;
        job->streamed_bytes = 0;
        job->kept = NULL;
    }
    return LB_OK;
}

static enum lb_status check_json_values(const struct lb_job *job, const struct lb_plan_limits *limits,
                                        struct lb_detail *detail) {
    size_t values = lb_job_json_numbers(job);
    if (values > (size_t)limits->max_json_values) {
        return lb_fail(detail, LB_E_ARG,
                       "the answer would hold %zu numbers as JSON, the maximum is %lld; ask for binary_data",
                       values, (long long)limits->max_json_values);
    }
    return LB_OK;
}

static enum lb_status plan_outputs(const struct lb_infer_request *request,
                                   const struct lb_plan_limits *limits, struct lb_job *job,
                                   struct lb_detail *detail) {
    /* Nothing asked for means top-k and its tail, never everything; of an encoder the sentence. */
    const struct lb_wire_output defaults[] = {
        {.name = "logits.topk_ids", .binary = request->binary_default},
        {.name = "logits.topk_values", .binary = request->binary_default},
        {.name = "logsumexp", .binary = request->binary_default}};
    const struct lb_wire_output sentence = {.name = "sentence_embedding", .binary = request->binary_default};
    bool head = lb_model_head(job->model->model)->weight != NULL;
    const struct lb_wire_output *asked = request->n_outputs ? request->outputs : head ? defaults : &sentence;
    size_t n = request->n_outputs ? request->n_outputs : head ? sizeof defaults / sizeof *defaults : 1;
    job->outputs = lb_arena_zarray(&job->arena, n, sizeof *job->outputs);
    if (!job->outputs) {
        return out_of_memory(detail);
    }
    enum lb_status status = LB_OK;
    for (size_t i = 0; i < n && status == LB_OK; i++) {
        status = plan_output(&asked[i], limits, job, detail);
    }
    /* An unknown name is the client's mistake, not a missing resource. */
    if (status == LB_E_NOTFOUND) {
        status = LB_E_ARG;
    }
    return status == LB_OK ? check_json_values(job, limits, detail) : status;
}

static enum lb_status check_samples(const struct lb_infer_request *request, struct lb_detail *detail) {
    double temperature = request->sample_temperature;
    if (temperature != 0 && !(temperature >= LB_MIN_TEMPERATURE && temperature <= LB_MAX_TEMPERATURE)) {
        return lb_fail(detail, LB_E_ARG, "sample_temperature %g: must be within %g..%g", temperature,
                       LB_MIN_TEMPERATURE, LB_MAX_TEMPERATURE);
    }
    if (request->sample_count < 0 || request->sample_count > LB_MAX_SAMPLES) {
        return lb_fail(detail, LB_E_ARG, "sample_count %lld: must be within 0..%d",
                       (long long)request->sample_count, LB_MAX_SAMPLES);
    }
    return LB_OK;
}

/* The map that the request names, or LB_E_MISMATCH: its client has it, and can send it again. */
static enum lb_status find_map(const struct lb_infer_request *request, struct lb_job *job,
                               struct lb_detail *detail) {
    const char *name = job->model->name;
    if (!request->vocab_map) {
        return LB_OK;
    }
    if (!lb_hosted_scores(job->model)) {
        return lb_fail(detail, LB_E_ARG, "vocab_map: model %s makes no distributions over tokens", name);
    }
    job->map = lb_vocab_maps_get(&job->model->maps, request->vocab_map);
    return job->map ? LB_OK
                    : lb_fail(detail, LB_E_MISMATCH,
                              "vocab_map %s is not here, or not any more: PUT its ids to "
                              "/v2/models/%s/vocab_maps/%s, then ask again",
                              request->vocab_map, name, request->vocab_map);
}

enum lb_status lb_plan(const struct lb_infer_request *request, const struct lb_plan_limits *limits,
                       struct lb_job *job, struct lb_detail *detail) {
    const struct lb_config *config = lb_model_config(job->model->model);
    if (!(request->temperature >= LB_MIN_TEMPERATURE && request->temperature <= LB_MAX_TEMPERATURE)) {
        return lb_fail(detail, LB_E_ARG, "temperature %g: must be within %g..%g", request->temperature,
                       LB_MIN_TEMPERATURE, LB_MAX_TEMPERATURE);
    }
    if (request->top_k < 1 || request->top_k > LB_MAX_TOP_K) {
        return lb_fail(detail, LB_E_ARG, "top_k %lld: must be within 1..%d", (long long)request->top_k,
                       LB_MAX_TOP_K);
    }
    enum lb_status status = check_samples(request, detail);
    status = status == LB_OK ? find_map(request, job, detail) : status;
    if (status != LB_OK) {
        return status;
    }
    job->temperature = request->temperature;
    job->samples = request->sample_count;
    job->sample_temperature =
        request->sample_temperature > 0 ? request->sample_temperature : request->temperature;
    job->seed = request->seed;
    job->top_k = request->top_k < kept_vocab(job) ? request->top_k : kept_vocab(job);
    status = job->model->decoder ? plan_sequences(request, config, limits, job, detail)
                                 : plan_features(request, config, limits, job, detail);
    status = status == LB_OK ? plan_outputs(request, limits, job, detail) : status;
    job->samples = job->needs_samples ? job->samples : 0;
    status = status == LB_OK && job->streamed_bytes > 0 ? plan_states(job, detail) : status;
    return status == LB_OK && job->samples > 0 ? make_streams(job, config->input_size, detail) : status;
}
