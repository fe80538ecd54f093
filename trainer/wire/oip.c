#include "trainer/wire/oip.h"

#include "common/base/mem.h"

#include <string.h>

/* ---- what an output looks like ---- */

/* Dimensions behind the positions. width 0: one number per position; -1: a width that the teacher does not
 * tell. */
static int64_t output_width(const struct lb_teacher_info *info, const struct lb_ask_spec *spec, size_t j) {
    switch (spec->outputs[j].kind) {
    case LB_OUT_LOGITS:
        return info->vocab_size;
    case LB_OUT_TOPK_IDS:
    case LB_OUT_TOPK_VALUES:
        return spec->top_k < info->vocab_size ? spec->top_k : info->vocab_size;
    case LB_OUT_LOGSUMEXP:
    case LB_OUT_ACTUAL:
        return 0;
    case LB_OUT_HIDDEN:
        return info->input_size || !info->hidden_size ? -1
                                                      : info->hidden_size; /* classifiers' layers differ */
    case LB_OUT_HIDDEN_FINAL:
        return info->hidden_size ? info->hidden_size : -1;
    case LB_OUT_ATTENTION:
        return -1;
    }
    return -1;
}

static enum lb_datatype output_datatype(const struct lb_ask_spec *spec, size_t j) {
    if (spec->outputs[j].datatype != LB_DT_NONE) {
        return spec->outputs[j].datatype;
    }
    return spec->outputs[j].kind == LB_OUT_TOPK_IDS ? LB_DT_INT32 : LB_DT_FP32;
}

/* Dimensions of one sequence's part, n positions; false when the teacher's numbers do not tell them all (then
 * -1 stands there). */
static int answer_dims(const struct lb_teacher_info *info, const struct lb_ask_spec *spec, size_t j,
                       int64_t n, int64_t dim[LB_MAX_WIRE_DIMS]) {
    if (spec->outputs[j].kind == LB_OUT_ATTENTION) {
        dim[0] = info->n_heads > 0 ? info->n_heads : -1;
        dim[1] = dim[2] = n;
        return 3;
    }
    dim[0] = n;
    dim[1] = output_width(info, spec, j);
    return dim[1] == 0 ? 1 : 2;
}

static bool uses_top_k(enum lb_output_kind kind) {
    return kind == LB_OUT_TOPK_IDS || kind == LB_OUT_TOPK_VALUES;
}

static bool uses_temperature(enum lb_output_kind kind) {
    return kind == LB_OUT_LOGSUMEXP || kind == LB_OUT_ACTUAL;
}

void lb_ask_normalise(const struct lb_ask_spec *spec, struct lb_ask_spec *out) {
    bool top_k = false, temperature = false;
    for (size_t j = 0; j < spec->n_outputs; j++) {
        top_k = top_k || uses_top_k(spec->outputs[j].kind);
        temperature = temperature || uses_temperature(spec->outputs[j].kind);
    }
    *out = *spec;
    if (!top_k) {
        out->top_k = LB_DEFAULT_TOP_K;
    }
    if (!temperature) {
        out->temperature = 1;
    }
}

enum lb_status lb_ask_check(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const struct lb_sample *sample, const char *teacher, struct lb_detail *detail) {
    if (sample->features) {
        if (info->input_size <= 0) {
            return lb_fail(detail, LB_E_ARG, "teacher %s reads token ids, but the data are images", teacher);
        }
        return LB_OK;
    }
    if (info->input_size > 0) {
        return lb_fail(detail, LB_E_ARG, "teacher %s reads %lld features, but the data are texts", teacher,
                       (long long)info->input_size);
    }
    if (sample->n < 1 || (info->max_length > 0 && sample->n > info->max_length)) {
        return lb_fail(detail, LB_E_LIMIT,
                       "a row of %lld tokens, but teacher %s takes 1 to %lld; lower max_length",
                       (long long)sample->n, teacher, (long long)info->max_length);
    }
    for (int64_t t = 0; t < sample->n; t++) {
        if (sample->ids[t] < 0 || (info->vocab_size > 0 && sample->ids[t] >= info->vocab_size)) {
            return lb_fail(
                detail, LB_E_ARG,
                "token id %ld at position %lld, but teacher %s knows ids below %lld; use its tokenizer",
                (long)sample->ids[t], (long long)t, teacher, (long long)info->vocab_size);
        }
    }
    for (size_t j = 0; j < spec->n_outputs; j++) {
        int layer = spec->outputs[j].layer;
        enum lb_output_kind kind = spec->outputs[j].kind;
        bool layered = kind == LB_OUT_HIDDEN || kind == LB_OUT_ATTENTION;
        int64_t last = info->n_layers - (kind == LB_OUT_ATTENTION ? 1 : 0); /* attentions count from 0 */
        if (layered && info->n_layers > 0 && (layer < 0 || layer > last)) {
            return lb_fail(detail, LB_E_ARG,
                           "layer_mapping: teacher %s has %lld layers, there is no layer %d", teacher,
                           (long long)info->n_layers, layer);
        }
    }
    return LB_OK;
}

uint64_t lb_ask_answer_bytes(const struct lb_teacher_info *info, const struct lb_ask_spec *spec, int64_t n) {
    uint64_t total = 0;
    for (size_t j = 0; j < spec->n_outputs; j++) {
        int64_t dim[LB_MAX_WIRE_DIMS];
        int n_dims = answer_dims(info, spec, j, n, dim);
        uint64_t bytes = lb_datatype_bytes(output_datatype(spec, j));
        for (int d = 0; d < n_dims; d++) {
            bytes *= dim[d] > 0 ? (uint64_t)dim[d] : 1024;
        }
        total += bytes;
    }
    return total;
}

/* ---- building ---- */

static struct lb_wire_tensor binary_tensor(const char *name, enum lb_datatype datatype, int64_t rows,
                                           int64_t cols, const void *data) {
    struct lb_wire_tensor tensor = {.name = name, .datatype = datatype, .data = data, .binary = true};
    tensor.n_dims = cols ? 2 : 1;
    tensor.dim[0] = rows;
    tensor.dim[1] = cols;
    tensor.bytes = (size_t)lb_wire_elements(&tensor) * lb_datatype_bytes(datatype);
    return tensor;
}

/* input_ids [n, longest] right-padded with 0, and lengths [n] when some are shorter. */
static bool fill_ids(const struct lb_sample *const *samples, int64_t n, int64_t longest,
                     struct lb_arena *scratch, struct lb_infer_request *request) {
    int32_t *ids = lb_arena_zarray(scratch, (size_t)(n * longest), sizeof *ids);
    int32_t *lengths = lb_arena_array(scratch, (size_t)n, sizeof *lengths);
    if (!ids || !lengths) {
        return false;
    }
    bool ragged = false;
    for (int64_t i = 0; i < n; i++) {
        memcpy(ids + i * longest, samples[i]->ids, (size_t)samples[i]->n * sizeof *ids);
        lengths[i] = (int32_t)samples[i]->n;
        ragged = ragged || samples[i]->n < longest;
    }
    request->inputs[request->n_inputs++] = binary_tensor(LB_IN_IDS, LB_DT_INT32, n, longest, ids);
    if (ragged) {
        request->inputs[request->n_inputs++] = binary_tensor(LB_IN_LENGTHS, LB_DT_INT32, n, 0, lengths);
    }
    return true;
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
    request->inputs[request->n_inputs++] = binary_tensor(LB_IN_FEATURES, LB_DT_FP32, n, width, features);
    return true;
}

static bool fill_outputs(const struct lb_ask_spec *spec, struct lb_arena *scratch,
                         struct lb_infer_request *request) {
    for (size_t j = 0; j < spec->n_outputs; j++) {
        char name[LB_MAX_NAME];
        lb_output_format(spec->outputs[j].kind, spec->outputs[j].layer, name);
        request->outputs[j].name = lb_arena_strdup(scratch, name);
        request->outputs[j].binary = true;
        request->outputs[j].datatype = output_datatype(spec, j);
        if (!request->outputs[j].name) {
            return false;
        }
    }
    request->n_outputs = spec->n_outputs;
    return true;
}

enum lb_status lb_ask_build(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const struct lb_sample *const *samples, int64_t n, uint64_t timeout_us,
                            struct lb_arena *scratch, struct lb_asked *out, struct lb_detail *detail) {
    memset(out, 0, sizeof *out);
    lb_buf_init(&out->body, LB_MAX_BODY_BYTES);
    out->n = n;
    for (int64_t i = 0; i < n; i++) {
        out->longest = samples[i]->n > out->longest ? samples[i]->n : out->longest;
    }
    struct lb_wire_tensor inputs[2];
    struct lb_wire_output outputs[LB_MAX_ASKED];
    struct lb_infer_request request = {
        .top_k = spec->top_k < info->vocab_size || info->vocab_size <= 0 ? spec->top_k : info->vocab_size,
        .temperature = spec->temperature,
        .timeout_us = timeout_us,
        .inputs = inputs,
        .outputs = outputs,
        .binary_default = true};
    bool filled = samples[0]->features ? fill_features(info, samples, n, scratch, &request)
                                       : fill_ids(samples, n, out->longest, scratch, &request);
    if (!filled || !fill_outputs(spec, scratch, &request)) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a request of %lld sequences", (long long)n);
    }
    enum lb_status status = lb_infer_request_encode(&request, &out->body, &out->json_bytes, detail);
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

void lb_asked_finish(struct lb_asked *asked) {
    if (asked) {
        lb_buf_finish(&asked->body);
    }
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
        lb_buf_printf(out, dim[d] < 0 ? "%s*" : "%s%lld", d ? "," : "", (long long)dim[d]);
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

/* The whole tensor's shape: [B, T, ...] for texts, [B, ...] for features, [B, H, T, T] for attentions. */
static enum lb_status check_output(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                                   size_t j, const struct lb_asked *asked, bool features, const char *name,
                                   const struct lb_wire_tensor *got, struct lb_detail *detail) {
    if (got->datatype != output_datatype(spec, j)) {
        return lb_fail(detail, LB_E_FORMAT, "%s comes as %s, asked for was %s", name,
                       lb_datatype_name(got->datatype), lb_datatype_name(output_datatype(spec, j)));
    }
    int64_t part[LB_MAX_WIRE_DIMS], want[LB_MAX_WIRE_DIMS];
    int n_part = answer_dims(info, spec, j, features ? 1 : asked->longest, part), n_want = 0;
    want[n_want++] = asked->n;
    for (int d = features ? 1 : 0; d < n_part; d++) {
        want[n_want++] = part[d];
    }
    bool same = got->n_dims == n_want;
    for (int d = 0; same && d < n_want; d++) {
        same = want[d] < 0 ? got->dim[d] > 0 : got->dim[d] == want[d];
    }
    return same ? LB_OK : shape_error(name, want, n_want, got, detail);
}

/* Ids index rows of logits further on. */
static enum lb_status check_ids(const struct lb_teacher_info *info, const struct lb_wire_tensor *ids,
                                struct lb_detail *detail) {
    for (int64_t i = 0, n = lb_wire_elements(ids); i < n; i++) {
        int32_t id = 0; /* in the body, a tensor may begin at any byte */
        uint16_t half = 0;
        if (ids->datatype == LB_DT_UINT16) {
            memcpy(&half, (const uint8_t *)ids->data + 2 * i, sizeof half);
            id = half;
        } else {
            memcpy(&id, (const uint8_t *)ids->data + 4 * i, sizeof id);
        }
        if (id < 0 || id >= info->vocab_size) {
            return lb_fail(detail, LB_E_FORMAT, "%s names id %ld, the vocabulary ends at %lld", ids->name,
                           (long)id, (long long)info->vocab_size - 1);
        }
    }
    return LB_OK;
}

/* Sequence i of a checked tensor as a tensor of its own. */
static enum lb_status copy_part(const struct lb_wire_tensor *whole, int64_t i, int64_t n, bool features,
                                bool attention, struct lb_arena *arena, struct lb_wire_tensor *out,
                                struct lb_detail *detail) {
    size_t element = lb_datatype_bytes(whole->datatype);
    size_t per_sequence = whole->bytes / (size_t)whole->dim[0];
    const uint8_t *from = (const uint8_t *)whole->data + (size_t)i * per_sequence;
    struct lb_wire_tensor part = {.datatype = whole->datatype, .binary = true};
    if (attention) {
        part.n_dims = 3;
        part.dim[0] = whole->dim[1];
        part.dim[1] = part.dim[2] = n;
    } else if (features) {
        part.n_dims = whole->n_dims;
        part.dim[0] = 1;
        part.dim[1] = whole->dim[1];
    } else {
        part.n_dims = whole->n_dims - 1;
        part.dim[0] = n;
        part.dim[1] = whole->dim[2];
    }
    part.bytes = (size_t)lb_wire_elements(&part) * element;
    uint8_t *data = lb_arena_alloc(arena, part.bytes ? part.bytes : 1);
    part.name = lb_arena_strdup(arena, whole->name);
    part.data = data;
    if (!data || !part.name) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer's %s", whole->name);
    }
    if (attention) {
        size_t longest = (size_t)whole->dim[2], row = (size_t)n * element;
        for (int64_t h = 0; h < part.dim[0]; h++) {
            for (int64_t t = 0; t < n; t++) {
                memcpy(data, from + ((size_t)h * longest + (size_t)t) * longest * element, row);
                data += row;
            }
        }
    } else {
        memcpy(data, from, part.bytes); /* rows of a sequence lie together, padding behind them */
    }
    *out = part;
    return LB_OK;
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
    if (!*reply->digest) {
        return lb_fail(detail, LB_E_FORMAT,
                       "the answer carries no %s header; is something between that removes headers?",
                       LB_HEADER_DIGEST);
    }
    if (strcmp(reply->digest, asked->digest)) {
        return lb_fail(
            detail, LB_E_MISMATCH,
            "the answer is to another question (digest %.16s..., asked was %.16s...); does an HTTP cache in "
            "between ignore request bodies?",
            reply->digest, asked->digest);
    }
    for (size_t j = 0; j < spec->n_outputs; j++) {
        if (uses_temperature(spec->outputs[j].kind) && response->temperature != spec->temperature) {
            return lb_fail(detail, LB_E_MISMATCH, "the answer is at temperature %g, asked was %g",
                           response->temperature, spec->temperature);
        }
    }
    return LB_OK;
}

enum lb_status lb_ask_split(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                            const struct lb_asked *asked, const struct lb_sample *const *samples,
                            const struct lb_ask_reply *reply, struct lb_arena *scratch,
                            struct lb_arena *const *arenas, struct lb_answer *answers, bool *out_other,
                            struct lb_detail *detail) {
    struct lb_infer_response response;
    bool other = false, features = samples[0]->features != NULL;
    enum lb_status status =
        lb_infer_response_decode(reply->body, reply->len, reply->json_bytes, scratch, &response, detail);
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
        status = check_output(info, spec, j, asked, features, name, whole, detail);
        if (status == LB_OK && spec->outputs[j].kind == LB_OUT_TOPK_IDS) {
            status = check_ids(info, whole, detail);
        }
        for (int64_t i = 0; status == LB_OK && i < asked->n; i++) {
            status = copy_part(whole, i, samples[i]->n, features, spec->outputs[j].kind == LB_OUT_ATTENTION,
                               arenas[i], &answers[i].tensors[j], detail);
        }
    }
    for (int64_t i = 0; status == LB_OK && i < asked->n; i++) {
        answers[i].n_tensors = spec->n_outputs;
    }
    return status;
}

bool lb_ask_fits(const struct lb_teacher_info *info, const struct lb_ask_spec *spec,
                 const struct lb_sample *sample, const struct lb_answer *answer) {
    if (answer->n_tensors != spec->n_outputs) {
        return false;
    }
    for (size_t j = 0; j < spec->n_outputs; j++) {
        const struct lb_wire_tensor *got = &answer->tensors[j];
        char name[LB_MAX_NAME];
        int64_t dim[LB_MAX_WIRE_DIMS];
        int n_dims = answer_dims(info, spec, j, sample->features ? 1 : sample->n, dim);
        lb_output_format(spec->outputs[j].kind, spec->outputs[j].layer, name);
        if (got->datatype != output_datatype(spec, j) || got->n_dims != n_dims || strcmp(got->name, name)) {
            return false;
        }
        for (int d = 0; d < n_dims; d++) {
            if (dim[d] < 0 ? got->dim[d] < 1 : got->dim[d] != dim[d]) {
                return false;
            }
        }
    }
    return true;
}
