/* The dialect oip at servers whose tensors the recipe names: one sequence as a request, and what a run asks
 * for made of the logits that come back. */
#include "trainer/wire/named.h"

#include "common/base/mem.h"
#include "common/nn/half.h"
#include "common/nn/head.h"
#include "common/nn/reduce.h"
#include "proto/logprob8.h"
#include "trainer/wire/metadata.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of a number in JSON, at most. */
#define JSON_NUMBER 24

/* ---- the question ---- */

/* A number as text in the datatype; false when it does not fit. */
static bool store_text(const char *text, enum lb_datatype datatype, uint8_t *out) {
    size_t bytes = lb_datatype_bytes(datatype);
    char *end = NULL;
    if (datatype == LB_DT_BOOL) {
        *out = strcmp(text, "true") == 0;
        return *out || strcmp(text, "false") == 0;
    }
    if (datatype == LB_DT_FP32 || datatype == LB_DT_FP64 || datatype == LB_DT_FP16 ||
        datatype == LB_DT_BF16) {
        double v = strtod(text, &end);
        float f = (float)v;
        uint16_t half = datatype == LB_DT_FP16 ? lb_f32_to_f16(f) : lb_f32_to_bf16(f);
        memcpy(out,
               bytes == 8   ? (const void *)&v
               : bytes == 4 ? (const void *)&f
                            : (const void *)&half,
               bytes);
        float stored = bytes > 2 ? f : datatype == LB_DT_FP16 ? lb_f16_to_f32(half) : lb_bf16_to_f32(half);
        return end != text && *end == '\0' && (bytes == 8 ? isfinite(v) : isfinite(stored));
    }
    bool is_signed = datatype == LB_DT_INT8 || datatype == LB_DT_INT16 || datatype == LB_DT_INT32 ||
                     datatype == LB_DT_INT64;
    errno = 0;
    uint64_t v = is_signed ? (uint64_t)strtoll(text, &end, 10) : strtoull(text, &end, 10);
    int64_t most = INT64_MAX >> (64 - 8 * bytes);
    bool fits = is_signed ? (int64_t)v <= most && (int64_t)v >= -most - 1
                          : v <= UINT64_MAX >> (64 - 8 * bytes) && !strchr(text, '-');
    memcpy(out, &v, bytes); /* little-endian: the low bytes come first */
    return end != text && *end == '\0' && errno == 0 && fits;
}

bool lb_named_value_fits(const char *text, enum lb_datatype datatype) {
    uint8_t bytes[8];
    return lb_datatype_bytes(datatype) > 0 && store_text(text, datatype, bytes);
}

/* Elements of an input about n ids, in the arena; NULL when out of memory. */
static void *elements_of(const struct lb_named_input *input, const int32_t *ids, int64_t n,
                         struct lb_arena *arena) {
    enum lb_datatype datatype = (enum lb_datatype)input->datatype;
    bool row = input->role == LB_NAMED_IDS || input->role == LB_NAMED_MASK;
    size_t bytes = lb_datatype_bytes(datatype);
    uint8_t *data = lb_arena_zarray(arena, row ? (size_t)n : 1, bytes);
    if (data && input->role == LB_NAMED_VALUE) {
        (void)store_text(input->value, datatype, data); /* it was tried when the names were read */
        return data;
    }
    for (int64_t t = 0; data && t < (row ? n : 1); t++) {
        int64_t v = input->role == LB_NAMED_IDS ? ids[t] : input->role == LB_NAMED_MASK ? 1 : n;
        memcpy(data + (size_t)t * bytes, &v, bytes);
    }
    return data;
}

enum lb_status lb_named_ask(const struct lb_named *named, const int32_t *ids, int64_t n,
                            struct lb_arena *scratch, struct lb_asked *out, struct lb_detail *detail) {
    struct lb_wire_tensor inputs[LB_NAMED_INPUTS];
    struct lb_wire_output logits = {.name = named->logits, .binary = named->binary};
    struct lb_infer_request request = {.top_k = LB_DEFAULT_TOP_K,
                                       .temperature = 1,
                                       .n_inputs = (size_t)named->n_inputs,
                                       .inputs = inputs,
                                       .n_outputs = 1,
                                       .outputs = &logits};
    size_t json_bytes = 0;
    for (int i = 0; i < named->n_inputs; i++) {
        const struct lb_named_input *input = &named->inputs[i];
        bool row = input->role == LB_NAMED_IDS || input->role == LB_NAMED_MASK;
        struct lb_wire_tensor tensor = {.name = input->name,
                                        .datatype = (enum lb_datatype)input->datatype,
                                        .n_dims = input->n_dims,
                                        .data = elements_of(input, ids, n, scratch),
                                        .binary = named->binary};
        for (int d = 0; d < tensor.n_dims; d++) {
            tensor.dim[d] = row && d + 1 == tensor.n_dims ? n : 1;
        }
        tensor.bytes = (size_t)(row ? n : 1) * lb_datatype_bytes(tensor.datatype);
        inputs[i] = tensor;
        if (!tensor.data) {
            lb_asked_finish(out);
            return lb_fail(detail, LB_E_NOMEM, "out of memory for a request of %lld ids", (long long)n);
        }
    }
    enum lb_status status = lb_infer_request_encode(&request, &out->body, &json_bytes, detail);
    out->json_bytes = named->binary ? (int64_t)json_bytes : -1;
    if (status != LB_OK) {
        lb_asked_finish(out);
    }
    return status;
}

static enum lb_status build(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const struct lb_sample *const *samples, int64_t n, uint64_t timeout_us,
                            struct lb_arena *scratch, struct lb_asked *out, struct lb_detail *detail) {
    (void)timeout_us; /* what such servers make of it is their own */
    const struct lb_extra *extra = samples[0]->extra;
    bool scores = extra && strcmp(extra->name, LB_IN_SCORE_IDS) == 0 && extra->width == spec->n_scored;
    lb_asked_begin(out, samples, n);
    if (n != 1 || !samples[0]->ids || (lb_spec_uses(spec, LB_USES_SCORE_IDS) && !scores)) {
        return lb_fail(detail, LB_E_INTERNAL, "a request of %lld samples, or without their ids",
                       (long long)n);
    }
    return lb_named_ask(&info->named, samples[0]->ids, samples[0]->n, scratch, out, detail);
}

/* ---- the answer ---- */

/* Whether the tensor is [n, v] behind dimensions of 1. */
static bool has_shape(const struct lb_wire_tensor *tensor, int64_t n, int64_t v) {
    bool ones = tensor->n_dims >= 2;
    for (int d = 0; d + 2 < tensor->n_dims; d++) {
        ones = ones && tensor->dim[d] == 1;
    }
    return ones && tensor->dim[tensor->n_dims - 2] == n && tensor->dim[tensor->n_dims - 1] >= 2 &&
           (v == 0 || tensor->dim[tensor->n_dims - 1] == v);
}

static enum lb_status check_logits(const struct lb_wire_tensor *tensor, int64_t n, int64_t v,
                                   struct lb_detail *detail) {
    char shape[200] = "", vocab[24] = "V";
    for (int d = 0; d < tensor->n_dims; d++) {
        size_t at = strlen(shape);
        snprintf(shape + at, sizeof shape - at, "%s%lld", d ? "," : "", (long long)tensor->dim[d]);
    }
    if (v > 0) {
        snprintf(vocab, sizeof vocab, "%lld", (long long)v);
    }
    if (tensor->datatype != LB_DT_FP32 && tensor->datatype != LB_DT_FP16 && tensor->datatype != LB_DT_BF16) {
        return lb_fail(detail, LB_E_FORMAT, "%s comes as %s; FP32, FP16 or BF16 is needed", tensor->name,
                       lb_datatype_name(tensor->datatype));
    }
    if (!has_shape(tensor, n, v)) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s has shape [%s], and logits of all %lld tokens are [1,%lld,%s] or [%lld,%s]; does "
                       "the server need an extra input that asks for them, or does it keep a cache of "
                       "prompts?",
                       tensor->name, shape, (long long)n, (long long)n, vocab, (long long)n, vocab);
    }
    return LB_OK;
}

enum lb_status lb_named_read(const struct lb_named *named, const char *model,
                             const struct lb_ask_reply *reply, int64_t n, int64_t v, struct lb_arena *arena,
                             struct lb_wire_tensor *out, const char **out_version, struct lb_detail *detail) {
    struct lb_infer_response response;
    enum lb_status status =
        lb_infer_response_decode(reply->body, reply->len, reply->json_bytes, arena, &response, detail);
    if (status != LB_OK) {
        return status;
    }
    if (strcmp(response.model_name, model)) {
        return lb_fail(detail, LB_E_MISMATCH, "asked was model %s, the answer is of %s", model,
                       response.model_name);
    }
    const struct lb_wire_tensor *logits = NULL;
    for (size_t i = 0; i < response.n_outputs; i++) {
        logits = strcmp(response.outputs[i].name, named->logits) ? logits : &response.outputs[i];
    }
    if (!logits) {
        return lb_fail(detail, LB_E_FORMAT, "the answer lacks the output %s that was asked for",
                       named->logits);
    }
    status = check_logits(logits, n, v, detail);
    if (status == LB_OK) {
        *out = *logits;
        *out_version = response.model_version;
    }
    return status;
}

/* One position's logits, and what is made of them once. */
struct row {
    const struct lb_ask_spec *spec;
    float *z;              /* [v] */
    int64_t v, k;          /* k: of the largest */
    int32_t next;          /* -1: none */
    const int32_t *scored; /* [n_scored] */
    double lse, plain, rest;
    int32_t *ids; /* [k] */
    float *values;
};

static void reduce(struct row *row) {
    bool next = lb_spec_uses(row->spec, LB_USES_NEXT_TOKEN);
    if (lb_spec_uses(row->spec, LB_USES_TEMPERATURE)) {
        row->lse = lb_head_logsumexp(row->z, row->v, row->spec->temperature);
    }
    if (next && lb_spec_uses(row->spec, LB_USES_PLAIN_SUM)) {
        row->plain = lb_head_logsumexp(row->z, row->v, 1);
    }
    if (lb_spec_uses(row->spec, LB_USES_REST)) {
        row->rest = lb_head_log_rest(row->z, row->v, row->spec->temperature, row->k, row->ids, row->values);
    } else if (lb_spec_uses(row->spec, LB_USES_TOP_K)) {
        lb_topk(row->z, row->v, row->k, row->ids, row->values);
    }
}

static float logprob(const struct row *row, float z) {
    double l = (double)z / row->spec->temperature - row->lse;
    return l > 0 ? 0 : (float)l;
}

/* Number i of the row's output: an id, or a number. */
static int32_t whole(const struct row *row, enum lb_output_kind kind, int64_t i) {
    if (kind == LB_OUT_TOPK_IDS) {
        return row->ids[i];
    }
    int32_t n = row->next < 0 ? 0 : (int32_t)lb_count_above(row->z, row->v, row->z[row->next]) - 1;
    return n < 0 ? 0 : n;
}

static float number(const struct row *row, enum lb_output_kind kind, int64_t i) {
    int32_t id = kind == LB_OUT_AT_IDS || kind == LB_OUT_AT_LOGPROBS ? row->scored[i] : row->next;
    switch (kind) {
    case LB_OUT_LOGITS:
        return row->z[i];
    case LB_OUT_TOPK_VALUES:
        return row->values[i];
    case LB_OUT_TOPK_LOGPROBS:
        return logprob(row, row->values[i]);
    case LB_OUT_LOGSUMEXP:
        return (float)row->lse;
    case LB_OUT_REST:
        return (float)row->rest;
    case LB_OUT_AT_IDS:
        return id < 0 ? 0 : row->z[id];
    case LB_OUT_AT_LOGPROBS:
        return id < 0 ? 0 : logprob(row, row->z[id]);
    case LB_OUT_ACTUAL:
        return id < 0 ? 0 : (float)((double)row->z[id] / row->spec->temperature - row->lse);
    default: /* LB_OUT_NEXT */
        return id < 0 ? 0 : (float)((double)row->z[id] - row->plain);
    }
}

/* The row's n numbers of a kind, into data from element `at` on. */
static void store(const struct row *row, enum lb_output_kind kind, enum lb_datatype datatype, int64_t n,
                  void *data, int64_t at) {
    bool ids = lb_output_get(kind)->numbers == LB_ARE_IDS;
    for (int64_t i = 0; i < n; i++) {
        int32_t id = ids ? whole(row, kind, i) : 0;
        float x = ids ? 0 : number(row, kind, i);
        switch (datatype) {
        case LB_DT_INT32:
            ((int32_t *)data)[at + i] = id;
            break;
        case LB_DT_UINT16:
            ((uint16_t *)data)[at + i] = (uint16_t)id;
            break;
        case LB_DT_FP16:
            ((uint16_t *)data)[at + i] = lb_f32_to_f16(x);
            break;
        case LB_DT_BF16:
            ((uint16_t *)data)[at + i] = lb_f32_to_bf16(x);
            break;
        case LB_DT_UINT8:
            ((uint8_t *)data)[at + i] = lb_logprob8_from(x);
            break;
        default:
            ((float *)data)[at + i] = x;
        }
    }
}

/* Room for the answer's tensors, all zero, in the arena. */
static enum lb_status prepare(const struct lb_teacher_info *info, const struct lb_ask_spec *spec, int64_t n,
                              struct lb_arena *arena, struct lb_answer *out, struct lb_detail *detail) {
    out->n_tensors = spec->n_outputs;
    for (size_t j = 0; j < spec->n_outputs; j++) {
        enum lb_output_kind kind = spec->outputs[j].kind;
        struct lb_wire_tensor part = {.datatype = lb_spec_datatype(spec, j), .binary = true};
        char name[LB_MAX_NAME];
        lb_output_format(kind, 0, name);
        part.n_dims = lb_answer_shape(info, spec, j, n, n, part.dim);
        part.bytes = (size_t)lb_wire_elements(&part) * lb_datatype_bytes(part.datatype);
        part.data = lb_arena_zarray(arena, part.bytes ? part.bytes : 1, 1);
        part.name = lb_arena_strdup(arena, name);
        if (!part.data || !part.name) {
            return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer's %s", name);
        }
        out->tensors[j] = part;
        out->what[j] = (struct lb_output_name){kind, 0};
    }
    return LB_OK;
}

static enum lb_status make_rows(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                                const struct lb_sample *sample, const struct lb_wire_tensor *logits,
                                struct lb_arena *scratch, struct lb_answer *answer,
                                struct lb_detail *detail) {
    int64_t v = info->vocab_size;
    struct row row = {.spec = spec, .v = v, .k = spec->top_k < v ? spec->top_k : v};
    row.z = lb_arena_array(scratch, (size_t)v, sizeof *row.z);
    row.ids = lb_arena_array(scratch, (size_t)row.k, sizeof *row.ids);
    row.values = lb_arena_array(scratch, (size_t)row.k, sizeof *row.values);
    if (!row.z || !row.ids || !row.values) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer's rows of %lld logits", (long long)v);
    }
    for (int64_t t = 0; t < sample->n; t++) {
        lb_wire_floats(logits, t * v, v, row.z);
        for (int64_t i = 0; i < v; i++) {
            if (!isfinite(row.z[i])) {
                return lb_fail(detail, LB_E_FORMAT, "%s: number %lld of position %lld is not finite",
                               logits->name, (long long)i, (long long)t);
            }
        }
        row.next = t + 1 < sample->n ? sample->ids[t + 1] : -1;
        row.scored = sample->extra ? sample->extra->values + t * spec->n_scored : NULL;
        reduce(&row);
        for (size_t j = 0; j < spec->n_outputs; j++) {
            struct lb_wire_tensor *part = &answer->tensors[j];
            int64_t columns = part->n_dims > 1 ? part->dim[1] : 1;
            store(&row, spec->outputs[j].kind, part->datatype, columns, (void *)part->data, t * columns);
        }
    }
    return LB_OK;
}

static enum lb_status split(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const struct lb_asked *asked, const struct lb_sample *const *samples,
                            const struct lb_ask_reply *reply, struct lb_arena *scratch,
                            struct lb_arena *const *arenas, struct lb_answer *answers, bool *out_other,
                            struct lb_detail *detail) {
    const struct lb_sample *sample = samples[0];
    struct lb_wire_tensor logits;
    struct lb_answer answer = {.first = 0};
    const char *version = "";
    (void)asked;
    enum lb_status status = lb_named_read(&info->named, info->model, reply, sample->n, info->vocab_size,
                                          scratch, &logits, &version, detail);
    bool other = status == LB_OK && strcmp(version, info->named.version) != 0;
    if (out_other) {
        *out_other = other;
    }
    if (other) {
        return lb_fail(detail, LB_E_MISMATCH,
                       "another model answers now: version %.64s of %s, this run began with %.64s; serve the "
                       "same model again, or start a new run",
                       version, info->model, info->named.version);
    }
    status = status != LB_OK ? status : prepare(info, spec, sample->n, arenas[0], &answer, detail);
    status = status != LB_OK ? status : make_rows(info, spec, sample, &logits, scratch, &answer, detail);
    status = status != LB_OK ? status : lb_answer_check(&answer, spec, info, sample->n, detail);
    if (status == LB_OK) {
        answers[0] = answer;
    }
    return status;
}

/* ---- the rest ---- */

static int64_t most(const struct lb_teacher_info *info, const struct lb_ask_spec *spec) {
    (void)info;
    (void)spec;
    return 1;
}

/* Such servers make their batches of requests; how many sequences of 512 tokens have logits in 512 MiB. */
static unsigned at_once(const struct lb_teacher_info *info) {
    int64_t n = ((int64_t)512 << 20) / (512 * (int64_t)sizeof(float) * info->vocab_size);
    return n < LB_ASK_AT_ONCE ? LB_ASK_AT_ONCE : n > 16 ? 16 : (unsigned)n;
}

/* All logits come, whatever is made of them. */
static uint64_t answer_bytes(const struct lb_teacher_info *info, const struct lb_ask_spec *spec, int64_t rows,
                             int64_t n) {
    (void)spec;
    (void)rows;
    return (uint64_t)n * (uint64_t)info->vocab_size * (info->named.binary ? sizeof(float) : JSON_NUMBER);
}

static enum lb_status path(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                           enum lb_path which, char **out, struct lb_detail *detail) {
    (void)spec;
    if (which != LB_PATH_INFO && which != LB_PATH_ASK) {
        return lb_fail(
            detail, LB_E_UNSUPPORTED, "model %s: %s", info->model,
            which == LB_PATH_HEAD
                ? "a server whose tensors are named serves no output head; use targets: topk or logits"
                : "a server whose tensors are named serves no tokenizer.json; name the model's "
                  "folder or file with tokenizer");
    }
    char *made = lb_metadata_path(info->model, NULL, which == LB_PATH_ASK ? "/infer" : "");
    if (!made) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a path of model %s", info->model);
    }
    *out = made;
    return LB_OK;
}

const struct lb_dialect lb_dialect_named = {.name = "oip",
                                            .mark = "/v2",
                                            .models = lb_metadata_models,
                                            .info = lb_named_info,
                                            .info_read = lb_named_info_read,
                                            .same = lb_named_same,
                                            .path = path,
                                            .gives = lb_info_gives,
                                            .most = most,
                                            .at_once = at_once,
                                            .answer_bytes = answer_bytes,
                                            .build = build,
                                            .split = split};
