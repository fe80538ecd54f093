#include "proto/oip_wire.h"

#include <stdio.h>
#include <string.h>

bool lb_is_vocab_map(const char *text) {
    return strlen(text) == LB_SHA256_HEX - 1 && lb_begins_hex(text, LB_SHA256_HEX - 1);
}

/* ---- decoding ---- */

static enum lb_status read_vocab_map(const json_t *parameters, const char *what, struct lb_arena *arena,
                                     struct lb_infer_request *out, struct lb_detail *detail) {
    const char *text = NULL;
    enum lb_status status = lb_json_str(parameters, "vocab_map", false, what, &text, detail);
    if (status != LB_OK || text == NULL) {
        return status;
    }
    if (!lb_is_vocab_map(text)) {
        return lb_fail(
            detail, LB_E_FORMAT,
            "%s: vocab_map must be the digest that the map was sent under, 64 hex digits in lower case",
            what);
    }
    out->vocab_map = lb_arena_strdup(arena, text);
    return out->vocab_map ? LB_OK : lb_fail(detail, LB_E_NOMEM, "%s: out of memory", what);
}

static enum lb_status read_parameters(const json_t *root, struct lb_arena *arena,
                                      struct lb_infer_request *out, struct lb_detail *detail) {
    static const char what[] = "request parameters";
    const json_t *parameters;
    enum lb_status status = lb_wire_parameters(root, "request", &parameters, detail);
    if (status != LB_OK || !parameters) {
        return status;
    }
    int64_t timeout = 0, seed = 0;
    status = lb_json_int(parameters, "top_k", false, 1, LB_MAX_TOP_K, what, &out->top_k, detail);
    if (status == LB_OK) {
        status = lb_json_number(parameters, "temperature", false, LB_MIN_TEMPERATURE, LB_MAX_TEMPERATURE,
                                what, &out->temperature, detail);
    }
    if (status == LB_OK) {
        status = lb_json_int(parameters, "timeout", false, 0, INT64_MAX, what, &timeout, detail);
    }
    if (status == LB_OK) {
        status = lb_json_int(parameters, "priority", false, 0, INT64_MAX, what, &out->priority, detail);
    }
    if (status == LB_OK) {
        status = lb_json_int(parameters, "sample_count", false, 0, LB_MAX_SAMPLES, what, &out->sample_count,
                             detail);
    }
    if (status == LB_OK) {
        status = lb_json_int(parameters, "seed", false, 0, INT64_MAX, what, &seed, detail);
    }
    if (status == LB_OK) {
        status = lb_json_bool(parameters, "binary_data_output", false, what, &out->binary_default, detail);
    }
    if (status == LB_OK) {
        status = lb_json_bool(parameters, "answer_digest", false, what, &out->answer_digest, detail);
    }
    if (status == LB_OK) {
        status = lb_json_number(parameters, "sample_temperature", false, LB_MIN_TEMPERATURE,
                                LB_MAX_TEMPERATURE, what, &out->sample_temperature, detail);
    }
    if (status == LB_OK) {
        status = read_vocab_map(parameters, what, arena, out, detail);
    }
    out->timeout_us = (uint64_t)timeout;
    out->seed = (uint64_t)seed;
    return status;
}

static enum lb_status read_output(struct lb_arena *arena, const json_t *object, size_t index,
                                  bool binary_default, struct lb_wire_output *out, struct lb_detail *detail) {
    struct lb_wire_output output = {.binary = binary_default};
    enum lb_status status = lb_wire_name(object, "output", index, arena, &output.name, detail);
    if (status != LB_OK) {
        return status;
    }
    char what[LB_MAX_NAME + 32];
    snprintf(what, sizeof what, "output \"%s\"", output.name);
    const json_t *parameters;
    status = lb_wire_parameters(object, what, &parameters, detail);
    if (status == LB_OK && parameters) {
        const char *dtype = NULL;
        if (json_object_get(parameters, "shared_memory_region") ||
            json_object_get(parameters, "classification")) {
            return lb_fail(detail, LB_E_UNSUPPORTED,
                           "%s: shared memory and classification are not supported; ask for logits.topk_ids",
                           what);
        }
        status = lb_json_bool(parameters, "binary_data", false, what, &output.binary, detail);
        if (status == LB_OK) {
            status = lb_json_str(parameters, "dtype", false, what, &dtype, detail);
        }
        if (status == LB_OK && dtype) {
            output.datatype = lb_datatype_parse(dtype);
            if (lb_datatype_bytes(output.datatype) == 0) {
                return lb_fail(
                    detail, LB_E_ARG,
                    "%s: unknown dtype \"%.32s\"; FP32, FP16 and BF16, for ids INT32 and UINT16, for "
                    "log-probabilities UINT8 too, can be asked for",
                    what, dtype);
            }
        }
    }
    if (status != LB_OK) {
        return status;
    }
    if ((output.datatype == LB_DT_FP16 || output.datatype == LB_DT_BF16) && !output.binary) {
        return lb_fail(detail, LB_E_ARG, "%s: %s has no JSON form; set binary_data to true, or ask for FP32",
                       what, lb_datatype_name(output.datatype));
    }
    *out = output;
    return LB_OK;
}

static enum lb_status read_outputs(const struct lb_wire_source *source, struct lb_infer_request *out,
                                   struct lb_detail *detail) {
    const json_t *list;
    enum lb_status status = lb_wire_list(source->root, "outputs", false, "request", &list, detail);
    if (status != LB_OK || !list) {
        return status;
    }
    size_t n = json_array_size(list);
    out->outputs = lb_arena_zarray(source->arena, n ? n : 1, sizeof *out->outputs);
    if (!out->outputs) {
        return lb_fail(detail, LB_E_NOMEM, "request: no memory left for %zu outputs", n);
    }
    for (size_t i = 0; i < n; i++) {
        status = read_output(source->arena, json_array_get(list, i), i, out->binary_default, &out->outputs[i],
                             detail);
        if (status != LB_OK) {
            return status;
        }
        for (size_t j = 0; j < i; j++) {
            if (strcmp(out->outputs[i].name, out->outputs[j].name) == 0) {
                return lb_fail(detail, LB_E_FORMAT, "request: output \"%s\" is asked for twice",
                               out->outputs[i].name);
            }
        }
    }
    out->n_outputs = n;
    return LB_OK;
}

static enum lb_status read_inputs(struct lb_wire_source *source, struct lb_infer_request *out,
                                  struct lb_detail *detail) {
    const json_t *list;
    enum lb_status status = lb_wire_list(source->root, "inputs", true, "request", &list, detail);
    if (status != LB_OK) {
        return status;
    }
    size_t n = json_array_size(list);
    if (n == 0) {
        return lb_fail(detail, LB_E_FORMAT, "request: inputs is empty; send \"input_ids\" or \"features\"");
    }
    out->inputs = lb_arena_zarray(source->arena, n, sizeof *out->inputs);
    if (!out->inputs) {
        return lb_fail(detail, LB_E_NOMEM, "request: no memory left for %zu inputs", n);
    }
    for (size_t i = 0; i < n; i++) {
        status = lb_wire_read_tensor(source, json_array_get(list, i), "input", i, &out->inputs[i], detail);
        if (status != LB_OK) {
            return status;
        }
        for (size_t j = 0; j < i; j++) {
            if (strcmp(out->inputs[i].name, out->inputs[j].name) == 0) {
                return lb_fail(detail, LB_E_FORMAT, "request: input \"%s\" is given twice",
                               out->inputs[i].name);
            }
        }
    }
    out->n_inputs = n;
    return LB_OK;
}

enum lb_status lb_infer_request_decode(const void *body, size_t len, int64_t json_len, struct lb_arena *arena,
                                       struct lb_infer_request *out, struct lb_detail *detail) {
    if (len > LB_MAX_BODY_BYTES) {
        return lb_fail(detail, LB_E_LIMIT, "request: the body has %zu bytes; the maximum is %u", len,
                       LB_MAX_BODY_BYTES);
    }
    struct lb_wire_source source;
    enum lb_status status =
        lb_wire_open(&source, body, len, json_len, LB_MAX_JSON_BYTES, arena, "request", detail);
    if (status != LB_OK) {
        return status;
    }
    struct lb_infer_request request = {.top_k = LB_DEFAULT_TOP_K, .temperature = 1};
    status = lb_wire_id(source.root, "request", arena, &request.id, detail);
    if (status == LB_OK) {
        status = read_parameters(source.root, arena, &request, detail);
    }
    if (status == LB_OK) {
        status = read_outputs(&source, &request, detail);
    }
    if (status == LB_OK) {
        status = read_inputs(&source, &request, detail);
    }
    if (status == LB_OK) {
        status = lb_wire_end(&source, "request", detail);
    }
    json_decref(source.root);
    if (status != LB_OK) {
        return status;
    }
    *out = request;
    return LB_OK;
}

/* ---- encoding ---- */

static enum lb_status check_request(const struct lb_infer_request *request, struct lb_detail *detail) {
    if (request->n_inputs == 0 || request->n_inputs > LB_MAX_TENSORS || request->n_outputs > LB_MAX_TENSORS) {
        return lb_fail(detail, LB_E_ARG,
                       "request: %zu inputs and %zu outputs; 1 to %d inputs and up to %d outputs go",
                       request->n_inputs, request->n_outputs, LB_MAX_TENSORS, LB_MAX_TENSORS);
    }
    if (request->id && strlen(request->id) > LB_MAX_ID) {
        return lb_fail(detail, LB_E_ARG, "request: the id has more than %d bytes", LB_MAX_ID);
    }
    if (request->top_k < 1 || request->top_k > LB_MAX_TOP_K) {
        return lb_fail(detail, LB_E_ARG, "request: top_k is %lld; 1 to %d are allowed",
                       (long long)request->top_k, LB_MAX_TOP_K);
    }
    if (!(request->temperature >= LB_MIN_TEMPERATURE && request->temperature <= LB_MAX_TEMPERATURE)) {
        return lb_fail(detail, LB_E_ARG, "request: temperature is %g; %g to %g are allowed",
                       request->temperature, LB_MIN_TEMPERATURE, LB_MAX_TEMPERATURE);
    }
    double sample_temperature = request->sample_temperature;
    if (sample_temperature != 0 &&
        !(sample_temperature >= LB_MIN_TEMPERATURE && sample_temperature <= LB_MAX_TEMPERATURE)) {
        return lb_fail(detail, LB_E_ARG, "request: sample_temperature is %g; %g to %g are allowed",
                       sample_temperature, LB_MIN_TEMPERATURE, LB_MAX_TEMPERATURE);
    }
    if (request->sample_count < 0 || request->sample_count > LB_MAX_SAMPLES || request->seed > INT64_MAX ||
        request->timeout_us > INT64_MAX || request->priority < 0) {
        return lb_fail(
            detail, LB_E_ARG,
            "request: sample_count is 0 to %d; seed, timeout and priority are whole numbers below 2^63",
            LB_MAX_SAMPLES);
    }
    if (request->vocab_map && !lb_is_vocab_map(request->vocab_map)) {
        return lb_fail(detail, LB_E_ARG, "request: vocab_map is no digest of 64 hex digits in lower case");
    }
    return LB_OK;
}

/* Only what differs from the defaults. */
static void put_parameters(struct lb_buf *buf, const struct lb_infer_request *request) {
    size_t start = buf->len;
    char number[LB_NUMBER_TEXT];
    if (request->top_k != LB_DEFAULT_TOP_K) {
        lb_buf_printf(buf, ",\"top_k\":%lld", (long long)request->top_k);
    }
    if (request->temperature != 1) {
        int len = (int)lb_wire_double_text(request->temperature, number);
        lb_buf_printf(buf, ",\"temperature\":%.*s", len, number);
    }
    if (request->timeout_us) {
        lb_buf_printf(buf, ",\"timeout\":%llu", (unsigned long long)request->timeout_us);
    }
    if (request->priority) {
        lb_buf_printf(buf, ",\"priority\":%lld", (long long)request->priority);
    }
    if (request->sample_count) {
        lb_buf_printf(buf, ",\"sample_count\":%lld", (long long)request->sample_count);
    }
    if (request->seed) {
        lb_buf_printf(buf, ",\"seed\":%llu", (unsigned long long)request->seed);
    }
    if (request->sample_temperature > 0) {
        int len = (int)lb_wire_double_text(request->sample_temperature, number);
        lb_buf_printf(buf, ",\"sample_temperature\":%.*s", len, number);
    }
    if (request->vocab_map) {
        lb_buf_printf(buf, ",\"vocab_map\":\"%s\"", request->vocab_map);
    }
    if (request->binary_default) {
        lb_buf_append_str(buf, ",\"binary_data_output\":true");
    }
    if (request->answer_digest) {
        lb_buf_append_str(buf, ",\"answer_digest\":true");
    }
    if (buf->len > start && lb_buf_status(buf) == LB_OK) {
        buf->data[start] = '{'; /* instead of the first comma */
        lb_buf_append_str(buf, "}");
    } else {
        lb_buf_append_str(buf, "{}");
    }
}

static enum lb_status put_output(struct lb_buf *buf, const struct lb_wire_output *output,
                                 struct lb_detail *detail) {
    if (!output->name || output->name[0] == '\0' || strlen(output->name) >= LB_MAX_NAME) {
        return lb_fail(detail, LB_E_ARG, "output: a name has 1 to %d bytes", LB_MAX_NAME - 1);
    }
    if ((output->datatype == LB_DT_FP16 || output->datatype == LB_DT_BF16) && !output->binary) {
        return lb_fail(detail, LB_E_ARG, "output \"%s\": %s has no JSON form; ask for binary data",
                       output->name, lb_datatype_name(output->datatype));
    }
    lb_buf_append_str(buf, "{\"name\":");
    enum lb_status status = lb_wire_put_string(buf, output->name, "an output's name", detail);
    lb_buf_printf(buf, ",\"parameters\":{\"binary_data\":%s", output->binary ? "true" : "false");
    if (output->datatype != LB_DT_NONE) {
        lb_buf_printf(buf, ",\"dtype\":\"%s\"", lb_datatype_name(output->datatype));
    }
    lb_buf_append_str(buf, "}}");
    return status;
}

static enum lb_status put_json(struct lb_buf *buf, const struct lb_infer_request *request, bool *out_binary,
                               struct lb_detail *detail) {
    enum lb_status status = LB_OK;
    *out_binary = false;
    lb_buf_append_str(buf, "{");
    if (request->id) {
        lb_buf_append_str(buf, "\"id\":");
        status = lb_wire_put_string(buf, request->id, "the request's id", detail);
        lb_buf_append_str(buf, ",");
    }
    lb_buf_append_str(buf, "\"parameters\":");
    put_parameters(buf, request);
    lb_buf_append_str(buf, ",\"inputs\":[");
    for (size_t i = 0; i < request->n_inputs && status == LB_OK; i++) {
        lb_buf_append_str(buf, i ? "," : "");
        status = lb_wire_put_tensor(buf, &request->inputs[i], "input", detail);
        *out_binary = *out_binary || request->inputs[i].binary;
    }
    lb_buf_append_str(buf, "]");
    for (size_t i = 0; i < request->n_outputs && status == LB_OK; i++) {
        lb_buf_append_str(buf, i ? "," : ",\"outputs\":[");
        status = put_output(buf, &request->outputs[i], detail);
    }
    lb_buf_append_str(buf, request->n_outputs ? "]}" : "}");
    return status;
}

enum lb_status lb_infer_request_encode(const struct lb_infer_request *request, struct lb_buf *body,
                                       size_t *out_json_len, struct lb_detail *detail) {
    enum lb_status status = check_request(request, detail);
    size_t start = body->len;
    bool binary = false;
    if (status == LB_OK) {
        status = put_json(body, request, &binary, detail);
    }
    if (status != LB_OK) {
        return status;
    }
    if (binary) {
        lb_wire_pad(body, start);
    }
    size_t json_len = body->len - start;
    for (size_t i = 0; i < request->n_inputs; i++) {
        if (request->inputs[i].binary) {
            lb_buf_append(body, request->inputs[i].data, request->inputs[i].bytes);
        }
    }
    status = lb_wire_written(body, "the request", detail);
    if (status == LB_OK) {
        *out_json_len = json_len;
    }
    return status;
}
