/* The dialect oip: one question about several sequences as an infer request, and its answer taken apart
 * again.
 *
 * Sequences of unlike lengths are right-padded and travel with their lengths; all tensors are binary.
 */
#include "common/base/mem.h"
#include "trainer/wire/dialect.h"
#include "trainer/wire/metadata.h"

#include <stdio.h>
#include <string.h>

/* ---- building ---- */

/* dims that are 0 are not there. */
static struct lb_wire_tensor binary_tensor(const char *name, enum lb_datatype datatype, int64_t rows,
                                           int64_t cols, int64_t width, const void *data) {
    struct lb_wire_tensor tensor = {.name = name,
                                    .datatype = datatype,
                                    .n_dims = width  ? 3
                                              : cols ? 2
                                                     : 1,
                                    .dim = {rows, cols, width},
                                    .data = data,
                                    .binary = true};
    tensor.bytes = (size_t)lb_wire_elements(&tensor) * lb_datatype_bytes(datatype);
    return tensor;
}

/* input_ids [n, longest] right-padded with 0, lengths [n] when some are shorter, and start [n] when some are
 * asked about later positions only. */
static bool fill_ids(const struct lb_sample *const *samples, int64_t n, int64_t longest,
                     struct lb_arena *scratch, struct lb_infer_request *request) {
    int32_t *ids = lb_arena_zarray(scratch, (size_t)(n * longest), sizeof *ids);
    int32_t *lengths = lb_arena_array(scratch, (size_t)n, sizeof *lengths);
    int32_t *start = lb_arena_array(scratch, (size_t)n, sizeof *start);
    if (!ids || !lengths || !start) {
        return false;
    }
    bool ragged = false, later = false;
    for (int64_t i = 0; i < n; i++) {
        memcpy(ids + i * longest, samples[i]->ids, (size_t)samples[i]->n * sizeof *ids);
        lengths[i] = (int32_t)samples[i]->n;
        start[i] = (int32_t)samples[i]->first;
        ragged = ragged || samples[i]->n < longest;
        later = later || samples[i]->first > 0;
    }
    request->inputs[request->n_inputs++] = binary_tensor(LB_IN_IDS, LB_DT_INT32, n, longest, 0, ids);
    if (ragged) {
        request->inputs[request->n_inputs++] = binary_tensor(LB_IN_LENGTHS, LB_DT_INT32, n, 0, 0, lengths);
    }
    if (later) {
        request->inputs[request->n_inputs++] = binary_tensor(LB_IN_START, LB_DT_INT32, n, 0, 0, start);
    }
    return true;
}

/* The samples' further input [n, longest, width], padded as ids are. */
static bool fill_extra(const struct lb_sample *const *samples, int64_t n, int64_t longest,
                       struct lb_arena *scratch, struct lb_infer_request *request) {
    const struct lb_extra *first = samples[0]->extra;
    if (!first) {
        return true;
    }
    size_t row = (size_t)(longest * first->width);
    int32_t *values = lb_arena_zarray(scratch, (size_t)n * row, sizeof *values);
    for (int64_t i = 0; values && i < n; i++) {
        memcpy(values + (size_t)i * row, samples[i]->extra->values,
               (size_t)(samples[i]->n * first->width) * sizeof *values);
    }
    request->inputs[request->n_inputs++] =
        binary_tensor(first->name, LB_DT_INT32, n, longest, first->width, values);
    return values != NULL;
}

static bool fill_features(const struct lb_teacher_info *info, const struct lb_sample *const *samples,
                          int64_t n, struct lb_arena *scratch, struct lb_infer_request *request) {
    int64_t width = info->input_size;
    size_t count;
    if (!lb_mul_size((size_t)n, (size_t)width, &count)) {
        return false;
    }
    float *features = lb_arena_array(scratch, count, sizeof *features);
    if (!features) {
        return false;
    }
    for (int64_t i = 0; i < n; i++) {
        memcpy(features + i * width, samples[i]->features, (size_t)width * sizeof *features);
    }
    request->inputs[request->n_inputs++] = binary_tensor(LB_IN_FEATURES, LB_DT_FP32, n, width, 0, features);
    return true;
}

static bool fill_outputs(const struct lb_ask_spec *spec, struct lb_arena *scratch,
                         struct lb_infer_request *request) {
    for (size_t j = 0; j < spec->n_outputs; j++) {
        char name[LB_MAX_NAME];
        lb_output_format(spec->outputs[j].kind, spec->outputs[j].layer, name);
        request->outputs[j].name = lb_arena_strdup(scratch, name);
        request->outputs[j].binary = true;
        request->outputs[j].datatype = lb_spec_datatype(spec, j);
        if (!request->outputs[j].name) {
            return false;
        }
    }
    request->n_outputs = spec->n_outputs;
    return true;
}

static enum lb_status build(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const struct lb_sample *const *samples, int64_t n, uint64_t timeout_us,
                            struct lb_arena *scratch, struct lb_asked *out, struct lb_detail *detail) {
    lb_asked_begin(out, samples, n);
    for (int64_t i = 0; i < n; i++) {
        if (!lb_extra_alike(samples[i]->extra, samples[0]->extra)) {
            return lb_fail(detail, LB_E_INTERNAL, "samples with unlike further inputs in one request");
        }
    }
    const struct lb_extra *extra = samples[0]->extra;
    bool scores = extra && strcmp(extra->name, LB_IN_SCORE_IDS) == 0 && extra->width == spec->n_scored;
    if (lb_spec_uses(spec, LB_USES_SCORE_IDS) && !scores) {
        return lb_fail(detail, LB_E_INTERNAL, "samples without %lld " LB_IN_SCORE_IDS " for each position",
                       (long long)spec->n_scored);
    }
    struct lb_wire_tensor inputs[4];
    size_t json_bytes = 0;
    struct lb_wire_output outputs[LB_MAX_ASKED];
    int64_t v = lb_spec_vocab(spec, info);
    struct lb_infer_request request = {.top_k = spec->top_k < v || v <= 0 ? spec->top_k : v,
                                       .vocab_map = spec->vocab_map[0] ? spec->vocab_map : NULL,
                                       .temperature = spec->temperature,
                                       .sample_count = spec->sample_count,
                                       .seed = spec->seed,
                                       .sample_temperature = spec->sample_temperature,
                                       .timeout_us = timeout_us,
                                       .inputs = inputs,
                                       .outputs = outputs,
                                       .binary_default = true,
                                       .answer_digest = true};
    bool filled = samples[0]->features ? fill_features(info, samples, n, scratch, &request)
                                       : fill_ids(samples, n, out->longest, scratch, &request);
    filled = filled && fill_extra(samples, n, out->longest, scratch, &request);
    if (!filled || !fill_outputs(spec, scratch, &request)) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a request of %lld sequences", (long long)n);
    }
    enum lb_status status = lb_infer_request_encode(&request, &out->body, &json_bytes, detail);
    out->json_bytes = (int64_t)json_bytes;
    if (status != LB_OK) {
        lb_asked_finish(out);
        return status;
    }
    status = lb_request_digest(info->fingerprint, &request, out->digest);
    if (status != LB_OK) {
        lb_asked_finish(out);
        return lb_fail(detail, status, "no digest of a request of %lld sequences", (long long)n);
    }
    return LB_OK;
}

/* ---- taking apart ---- */

static const struct lb_wire_tensor *find_output(const struct lb_infer_response *response, const char *name) {
    for (size_t i = 0; i < response->n_outputs; i++) {
        if (!strcmp(response->outputs[i].name, name)) {
            return &response->outputs[i];
        }
    }
    return NULL;
}

/* "[2,5,64]" */
static void format_dims(const int64_t *dim, int n_dims, struct lb_buf *out) {
    lb_buf_append_str(out, "[");
    for (int d = 0; d < n_dims; d++) {
        lb_buf_printf(out, "%s%lld", d ? "," : "", (long long)dim[d]);
    }
    lb_buf_append_str(out, "]");
}

static enum lb_status shape_error(const char *name, const int64_t *want, int n_want,
                                  const struct lb_wire_tensor *got, struct lb_detail *detail) {
    struct lb_buf a, b;
    lb_buf_init(&a, 256);
    lb_buf_init(&b, 256);
    format_dims(want, n_want, &a);
    format_dims(got->dim, got->n_dims, &b);
    lb_fail(detail, LB_E_FORMAT, "%s has shape %s, asked for was %s", name, b.data ? b.data : "?",
            a.data ? a.data : "?");
    lb_buf_finish(&a);
    lb_buf_finish(&b);
    return LB_E_FORMAT;
}

/* The whole tensor's shape: of all sequences, padded to the most rows and the longest. */
static enum lb_status check_output(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                                   size_t j, const struct lb_asked *asked, const char *name,
                                   const struct lb_wire_tensor *got, struct lb_detail *detail) {
    bool once = lb_info_once(info, spec->outputs[j].kind);
    if (got->datatype != lb_spec_datatype(spec, j)) {
        return lb_fail(detail, LB_E_FORMAT, "%s comes as %s, asked for was %s", name,
                       lb_datatype_name(got->datatype), lb_datatype_name(lb_spec_datatype(spec, j)));
    }
    int64_t part[LB_MAX_WIRE_DIMS], want[LB_MAX_WIRE_DIMS];
    int n_part = lb_answer_shape(info, spec, j, asked->rows, asked->longest, part), n_want = 0;
    want[n_want++] = asked->n;
    for (int d = once ? 1 : 0; d < n_part; d++) {
        want[n_want++] = part[d];
    }
    bool same = got->n_dims == n_want;
    for (int d = 0; same && d < n_want; d++) {
        same = got->dim[d] == want[d];
    }
    return same ? LB_OK : shape_error(name, want, n_want, got, detail);
}

/* Sequence i of a checked tensor as a tensor of its own: its rows of asked->rows, in each of its heads. */
static enum lb_status copy_part(const struct lb_teacher_info *info, const struct lb_ask_spec *spec, size_t j,
                                const struct lb_wire_tensor *whole, const struct lb_asked *asked, int64_t i,
                                const struct lb_sample *sample, struct lb_arena *arena,
                                struct lb_answer *answer, struct lb_detail *detail) {
    int64_t n = sample->n, rows = n - sample->first;
    size_t element = lb_datatype_bytes(whole->datatype);
    size_t per_sequence = whole->bytes / (size_t)whole->dim[0];
    const uint8_t *from = (const uint8_t *)whole->data + (size_t)i * per_sequence;
    struct lb_wire_tensor part = {.datatype = whole->datatype, .binary = true};
    part.n_dims = lb_answer_shape(info, spec, j, rows, n, part.dim);
    part.bytes = (size_t)lb_wire_elements(&part) * element;
    uint8_t *data = lb_arena_alloc(arena, part.bytes ? part.bytes : 1);
    part.name = lb_arena_strdup(arena, whole->name);
    part.data = data;
    if (!data || !part.name) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer's %s", whole->name);
    }
    if (lb_output_get(spec->outputs[j].kind)->width == LB_WIDE_KEYS) {
        size_t row = (size_t)n * element;
        for (int64_t h = 0; h < part.dim[0]; h++) {
            for (int64_t t = 0; t < rows; t++) {
                memcpy(data, from + (size_t)(h * asked->rows + t) * (size_t)asked->longest * element, row);
                data += row;
            }
        }
    } else {
        memcpy(data, from, part.bytes); /* rows of a sequence lie together, padding behind them */
    }
    answer->tensors[j] = part;
    answer->what[j] = (struct lb_output_name){spec->outputs[j].kind, spec->outputs[j].layer};
    return LB_OK;
}

/* Before anything in the answer is believed, its own fingerprint too: that its bytes are those that were sent
 * as the answer to the request that its header names. */
static enum lb_status check_bytes(const struct lb_ask_reply *reply, struct lb_detail *detail) {
    if (!*reply->digest) {
        return lb_fail(detail, LB_E_FORMAT,
                       "the answer carries no %s header; is something between that removes headers?",
                       LB_HEADER_DIGEST);
    }
    return lb_answer_digest_check(reply->body, reply->len, reply->json_bytes, reply->digest, detail);
}

static enum lb_status check_head(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                                 const struct lb_asked *asked, const struct lb_ask_reply *reply,
                                 const struct lb_infer_response *response, bool *other,
                                 struct lb_detail *detail) {
    if (!response->model_version || strcmp(response->model_version, info->fingerprint)) {
        *other = response->model_version && *response->model_version;
        return lb_fail(
            detail, LB_E_MISMATCH,
            "another model answers now: fingerprint %s, this run began with %s; serve the same model again, "
            "or start a new run",
            response->model_version ? response->model_version : "(none)", info->fingerprint);
    }
    if (!info->any_compute && strcmp(response->compute, info->compute)) {
        *other = true;
        return lb_fail(
            detail, LB_E_MISMATCH,
            "other kernels compute the answers now: compute %.16s..., this run began with %.16s...; "
            "serve it as then, or allow_other_kernels: true",
            *response->compute ? response->compute : "(none)", *info->compute ? info->compute : "(none)");
    }
    if (strcmp(reply->digest, asked->digest)) {
        return lb_fail(
            detail, LB_E_MISMATCH,
            "the answer is to another question (digest %.16s..., asked was %.16s...); does an HTTP cache in "
            "between ignore request bodies?",
            reply->digest, asked->digest);
    }
    if (lb_spec_uses(spec, LB_USES_TEMPERATURE) && response->temperature != spec->temperature) {
        return lb_fail(detail, LB_E_MISMATCH, "the answer is at temperature %g, asked was %g",
                       response->temperature, spec->temperature);
    }
    if (strcmp(response->vocab_map, spec->vocab_map) != 0) {
        return lb_fail(detail, LB_E_MISMATCH, "the answer is over vocabulary map %.16s, asked for was %.16s",
                       *response->vocab_map ? response->vocab_map : "(none)",
                       *spec->vocab_map ? spec->vocab_map : "(none)");
    }
    return LB_OK;
}

static enum lb_status split(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const struct lb_asked *asked, const struct lb_sample *const *samples,
                            const struct lb_ask_reply *reply, struct lb_arena *scratch,
                            struct lb_arena *const *arenas, struct lb_answer *answers, bool *out_other,
                            struct lb_detail *detail) {
    struct lb_infer_response response;
    bool other = false;
    enum lb_status status = check_bytes(reply, detail);
    if (status == LB_OK) {
        status =
            lb_infer_response_decode(reply->body, reply->len, reply->json_bytes, scratch, &response, detail);
    }
    if (status == LB_OK) {
        status = check_head(info, spec, asked, reply, &response, &other, detail);
    }
    if (out_other) {
        *out_other = other;
    }
    for (size_t j = 0; status == LB_OK && j < spec->n_outputs; j++) {
        char name[LB_MAX_NAME];
        lb_output_format(spec->outputs[j].kind, spec->outputs[j].layer, name);
        const struct lb_wire_tensor *whole = find_output(&response, name);
        if (!whole) {
            return lb_fail(detail, LB_E_FORMAT, "the answer lacks the output %s that was asked for", name);
        }
        status = check_output(info, spec, j, asked, name, whole, detail);
        for (int64_t i = 0; status == LB_OK && i < asked->n; i++) {
            status = copy_part(info, spec, j, whole, asked, i, samples[i], arenas[i], &answers[i], detail);
        }
    }
    for (int64_t i = 0; status == LB_OK && i < asked->n; i++) {
        answers[i].n_tensors = spec->n_outputs;
        answers[i].first = samples[i]->first;
        status = lb_answer_check(&answers[i], spec, info, samples[i]->n, detail);
    }
    return status;
}

/* ---- the rest is metadata.c's ---- */

static enum lb_status info(const struct lb_contact *contact, const char *model, struct lb_buf *text,
                           struct lb_teacher_info *out, struct lb_detail *detail) {
    char only[LB_MAX_NAME];
    enum lb_status status = LB_OK;
    if (!model) {
        status = lb_metadata_only_model(contact, only, detail);
        model = only;
    }
    return status != LB_OK ? status : lb_metadata_info(contact, model, text, out, detail);
}

static enum lb_status same(const struct lb_teacher_info *known, const void *text, size_t len,
                           const char *where, char out_id[LB_MAX_MODEL_ID], struct lb_detail *detail) {
    struct lb_teacher_info now;
    out_id[0] = '\0';
    enum lb_status status = lb_info_read(text, len, where, &now, detail);
    if (status == LB_OK && strcmp(now.fingerprint, known->fingerprint)) {
        return lb_fail(
            detail, LB_E_MISMATCH,
            "%s serves another model now: fingerprint %s, this run began with %s; serve the same model "
            "again, or start a new run",
            where, now.fingerprint, known->fingerprint);
    }
    if (status == LB_OK && !known->any_compute && strcmp(now.compute, known->compute)) {
        return lb_fail(detail, LB_E_MISMATCH,
                       "%s computes with other kernels now: compute %.16s (%s), this run began with %.16s "
                       "(%s); serve it as then, or allow_other_kernels: true",
                       where, now.compute, now.kernels, known->compute, known->kernels);
    }
    return status;
}

/* Under the version, but for what tells which version there is. */
static enum lb_status path(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                           enum lb_path which, char **out, struct lb_detail *detail) {
    static const char *const suffix[] = {[LB_PATH_INFO] = "",
                                         [LB_PATH_ASK] = "/infer",
                                         [LB_PATH_HEAD] = "/head",
                                         [LB_PATH_TOKENIZER] = "/tokenizer",
                                         [LB_PATH_TOKENIZER_CONFIG] = "/tokenizer_config",
                                         [LB_PATH_VOCAB_MAP] = "/vocab_maps/"};
    char ending[32 + LB_SHA256_HEX];
    snprintf(ending, sizeof ending, "%s%s", suffix[which], which == LB_PATH_VOCAB_MAP ? spec->vocab_map : "");
    char *made = lb_metadata_path(info->model, which == LB_PATH_INFO ? NULL : info->fingerprint, ending);
    if (!made) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a path of model %s", info->model);
    }
    *out = made;
    return LB_OK;
}

extern const struct lb_dialect lb_dialect_oip;
const struct lb_dialect lb_dialect_oip = {.name = "oip",
                                          .mark = "/v2",
                                          .models = lb_metadata_models,
                                          .info = info,
                                          .info_read = lb_info_read,
                                          .same = same,
                                          .path = path,
                                          .gives = lb_info_gives,
                                          .build = build,
                                          .split = split,
                                          .head_arrived = lb_teacher_head_arrived,
                                          .head_read = lb_teacher_head_parse};
