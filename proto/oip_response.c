#include "proto/oip_wire.h"

#include <math.h>
#include <string.h>

/* ---- decoding ---- */

static enum lb_status read_model(const json_t *root, struct lb_arena *arena, struct lb_infer_response *out,
                                 struct lb_detail *detail) {
    const char *name = NULL, *version = "";
    enum lb_status status = lb_json_str(root, "model_name", true, "answer", &name, detail);
    if (status == LB_OK) {
        status = lb_json_str(root, "model_version", false, "answer", &version, detail);
    }
    if (status != LB_OK) {
        return status;
    }
    if (strlen(name) >= LB_MAX_NAME || strlen(version) >= LB_MAX_NAME) {
        return lb_fail(detail, LB_E_LIMIT, "answer: model_name or model_version has more than %d bytes",
                       LB_MAX_NAME - 1);
    }
    out->model_name = lb_arena_strdup(arena, name);
    out->model_version = lb_arena_strdup(arena, version);
    if (!out->model_name || !out->model_version) {
        return lb_fail(detail, LB_E_NOMEM, "answer: no memory left");
    }
    return lb_wire_id(root, "answer", arena, &out->id, detail);
}

/* A text of the parameters, "" where there is none. */
static enum lb_status read_text(const json_t *parameters, const char *key, struct lb_arena *arena,
                                const char **out, struct lb_detail *detail) {
    static const char what[] = "answer parameters";
    const char *text = "";
    enum lb_status status = parameters ? lb_json_str(parameters, key, false, what, &text, detail) : LB_OK;
    if (status != LB_OK) {
        return status;
    }
    if (strlen(text) >= LB_MAX_NAME) {
        return lb_fail(detail, LB_E_LIMIT, "%s: %s has more than %d bytes", what, key, LB_MAX_NAME - 1);
    }
    *out = lb_arena_strdup(arena, text);
    return *out ? LB_OK : lb_fail(detail, LB_E_NOMEM, "answer: no memory left");
}

static enum lb_status read_parameters(const json_t *root, struct lb_arena *arena,
                                      struct lb_infer_response *out, struct lb_detail *detail) {
    static const char what[] = "answer parameters";
    const json_t *parameters;
    enum lb_status status = lb_wire_parameters(root, "answer", &parameters, detail);
    if (status == LB_OK && parameters) {
        status = lb_json_int(parameters, "top_k", false, 0, INT64_MAX, what, &out->top_k, detail);
        if (status == LB_OK) {
            status = lb_json_number(parameters, "temperature", false, 0, LB_MAX_TEMPERATURE, what,
                                    &out->temperature, detail);
        }
    }
    status = status == LB_OK ? read_text(parameters, "compute", arena, &out->compute, detail) : status;
    return status == LB_OK ? read_text(parameters, "vocab_map", arena, &out->vocab_map, detail) : status;
}

static enum lb_status read_outputs(struct lb_wire_source *source, struct lb_infer_response *out,
                                   struct lb_detail *detail) {
    const json_t *list;
    enum lb_status status = lb_wire_list(source->root, "outputs", true, "answer", &list, detail);
    if (status != LB_OK) {
        return status;
    }
    size_t n = json_array_size(list);
    out->outputs = lb_arena_zarray(source->arena, n ? n : 1, sizeof *out->outputs);
    if (!out->outputs) {
        return lb_fail(detail, LB_E_NOMEM, "answer: no memory left for %zu outputs", n);
    }
    for (size_t i = 0; i < n; i++) {
        status = lb_wire_read_tensor(source, json_array_get(list, i), "output", i, &out->outputs[i], detail);
        if (status != LB_OK) {
            return status;
        }
        for (size_t j = 0; j < i; j++) {
            if (strcmp(out->outputs[i].name, out->outputs[j].name) == 0) {
                return lb_fail(detail, LB_E_FORMAT, "answer: output \"%s\" comes twice",
                               out->outputs[i].name);
            }
        }
    }
    out->n_outputs = n;
    return LB_OK;
}

enum lb_status lb_infer_response_decode(const void *body, size_t len, int64_t json_len,
                                        struct lb_arena *arena, struct lb_infer_response *out,
                                        struct lb_detail *detail) {
    if (len > LB_MAX_RESPONSE_BYTES) {
        return lb_fail(detail, LB_E_LIMIT, "answer: the body has %zu bytes; the maximum is %u", len,
                       LB_MAX_RESPONSE_BYTES);
    }
    size_t max_json = json_len < 0 ? LB_MAX_JSON_ANSWER_BYTES : LB_MAX_JSON_BYTES;
    struct lb_wire_source source;
    enum lb_status status = lb_wire_open(&source, body, len, json_len, max_json, arena, "answer", detail);
    if (status != LB_OK) {
        return status;
    }
    struct lb_infer_response response = {0};
    status = read_model(source.root, arena, &response, detail);
    if (status == LB_OK) {
        status = read_parameters(source.root, arena, &response, detail);
    }
    if (status == LB_OK) {
        status = read_outputs(&source, &response, detail);
    }
    if (status == LB_OK) {
        status = lb_wire_end(&source, "answer", detail);
    }
    json_decref(source.root);
    if (status != LB_OK) {
        return status;
    }
    *out = response;
    return LB_OK;
}

/* ---- encoding ---- */

static enum lb_status put_parameters(struct lb_buf *buf, const struct lb_infer_response *response,
                                     struct lb_detail *detail) {
    char number[LB_NUMBER_TEXT];
    const char *before = ",\"parameters\":{", *next = ",";
    enum lb_status status = LB_OK;
    if (response->temperature > 0) {
        int len = (int)lb_wire_double_text(response->temperature, number);
        lb_buf_printf(buf, "%s\"temperature\":%.*s", before, len, number);
        before = next;
    }
    if (response->top_k > 0) {
        lb_buf_printf(buf, "%s\"top_k\":%lld", before, (long long)response->top_k);
        before = next;
    }
    if (response->vocab_map && response->vocab_map[0]) {
        lb_buf_printf(buf, "%s\"vocab_map\":", before);
        status = lb_wire_put_string(buf, response->vocab_map, "its vocabulary map", detail);
        before = next;
    }
    if (status == LB_OK && response->compute && response->compute[0]) {
        lb_buf_printf(buf, "%s\"compute\":", before);
        status = lb_wire_put_string(buf, response->compute, "what computed it", detail);
        before = next;
    }
    lb_buf_append_str(buf, before == next ? "}" : "");
    return status;
}

static enum lb_status put_outputs(struct lb_buf *head, const struct lb_infer_response *response,
                                  bool *out_binary, struct lb_detail *detail) {
    static const struct lb_wire_tensor digest = {.name = LB_WIRE_DIGEST,
                                                 .datatype = LB_DT_UINT8,
                                                 .n_dims = 1,
                                                 .dim = {LB_SHA256_BYTES},
                                                 .bytes = LB_SHA256_BYTES,
                                                 .binary = true};
    enum lb_status status = LB_OK;
    *out_binary = false;
    lb_buf_append_str(head, ",\"outputs\":[");
    for (size_t i = 0; i < response->n_outputs && status == LB_OK; i++) {
        lb_buf_append_str(head, i ? "," : "");
        status = lb_wire_put_tensor(head, &response->outputs[i], "output", detail);
        *out_binary = *out_binary || response->outputs[i].binary;
    }
    if (status == LB_OK && response->digest_of && *out_binary) {
        lb_buf_append_str(head, ",");
        status = lb_wire_put_tensor(head, &digest, "output", detail);
    }
    lb_buf_append_str(head, "]");
    return status;
}

static enum lb_status check_response(const struct lb_infer_response *response, struct lb_detail *detail) {
    size_t listed = response->n_outputs + (response->digest_of != NULL);
    if (!response->model_name || listed > LB_MAX_TENSORS || !isfinite(response->temperature)) {
        return lb_fail(detail, LB_E_ARG,
                       "answer: it needs a model name, at most %d outputs (its digest is one) and a finite "
                       "temperature",
                       LB_MAX_TENSORS);
    }
    int64_t n_values = 0;
    for (size_t i = 0; i < response->n_outputs; i++) {
        int64_t n;
        size_t bytes;
        if (!response->outputs[i].binary && lb_wire_size(&response->outputs[i], &n, &bytes) &&
            __builtin_add_overflow(n_values, n, &n_values)) {
            n_values = INT64_MAX;
        }
    }
    if (n_values > LB_MAX_JSON_VALUES) {
        return lb_fail(detail, LB_E_LIMIT,
                       "answer: %lld values are more than the %d that go into JSON; ask for "
                       "binary_data",
                       (long long)n_values, LB_MAX_JSON_VALUES);
    }
    return LB_OK;
}

enum lb_status lb_infer_response_head(const struct lb_infer_response *response, struct lb_buf *head,
                                      struct lb_detail *detail) {
    size_t start = head->len;
    enum lb_status status = check_response(response, detail);
    if (status != LB_OK) {
        return status;
    }
    lb_buf_append_str(head, "{\"model_name\":");
    status = lb_wire_put_string(head, response->model_name, "the model's name", detail);
    if (status == LB_OK && response->model_version && response->model_version[0]) {
        lb_buf_append_str(head, ",\"model_version\":");
        status = lb_wire_put_string(head, response->model_version, "the model's version", detail);
    }
    if (status == LB_OK && response->id) {
        lb_buf_append_str(head, ",\"id\":");
        status = lb_wire_put_string(head, response->id, "the request's id", detail);
    }
    bool binary = false;
    if (status == LB_OK) {
        status = put_parameters(head, response, detail);
    }
    if (status == LB_OK) {
        status = put_outputs(head, response, &binary, detail);
    }
    if (status == LB_OK && response->digest_of && !binary) {
        status = lb_answer_digest_put(head, start, response->digest_of, detail);
    } else {
        lb_buf_append_str(head, "}");
    }
    if (status != LB_OK) {
        return status;
    }
    if (binary) {
        lb_wire_pad(head, start);
        if (head->len - start > LB_MAX_JSON_BYTES) {
            return lb_fail(
                detail, LB_E_LIMIT,
                "answer: the JSON in front of its binary tensors has %zu bytes, the maximum is %u; "
                "ask for binary_data",
                head->len - start, LB_MAX_JSON_BYTES);
        }
    }
    return lb_wire_written(head, "the answer", detail);
}
