/* vLLM's endpoint for ids in, ids out: log-probabilities of ids that the client chooses. */
#include "common/base/base64.h"
#include "proto/vllm_read.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define WHAT LB_VLLM_WHAT
#define GATHER "prompt_logprob_token_ids"

/* ---- the question ---- */

static enum lb_status read_row(const json_t *row, int64_t i, int64_t k, int32_t *out,
                               struct lb_detail *detail) {
    for (int64_t j = 0; j < k; j++) {
        const json_t *id = json_array_get(row, (size_t)j);
        out[j] = -1;
        if (!id) {
            continue;
        }
        if (!json_is_integer(id) || json_integer_value(id) < -1 || json_integer_value(id) > INT32_MAX) {
            return lb_fail(detail, LB_E_FORMAT, WHAT ": " GATHER "[%lld][%lld] is no token id, nor -1",
                           (long long)i, (long long)j);
        }
        out[j] = (int32_t)json_integer_value(id);
    }
    return LB_OK;
}

/* The object that has the key: sampling_params or the whole. */
static const json_t *holder(const json_t *root, const char *key) {
    const json_t *inner = json_object_get(root, "sampling_params");
    return json_object_get(inner, key) ? inner : root;
}

/* A list of ids for each row, or one for all rows. */
static enum lb_status read_gather(const json_t *root, int64_t n_tokens, struct lb_arena *arena,
                                  struct lb_vllm_generate *out, struct lb_detail *detail) {
    static const char start[] = "prompt_logprob_start";
    const json_t *list = json_object_get(holder(root, GATHER), GATHER);
    enum lb_status status =
        lb_json_int(holder(root, start), start, false, 0, INT32_MAX, WHAT, &out->start, detail);
    if (status != LB_OK || !list || json_is_null(list)) {
        return status == LB_OK && out->start > 0
                   ? lb_fail(detail, LB_E_ARG, WHAT ": prompt_logprob_start is given without " GATHER)
                   : status;
    }
    if (!json_is_array(list) || json_array_size(list) == 0) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": " GATHER " must be a list of lists of token ids");
    }
    bool one = !json_is_array(json_array_get(list, 0));
    out->n_rows = n_tokens - 1 - out->start;
    if (out->n_rows < 1 || (!one && (int64_t)json_array_size(list) != out->n_rows)) {
        return lb_fail(detail, LB_E_ARG,
                       WHAT ": " GATHER " has %zu rows; %lld tokens and prompt_logprob_start %lld leave %lld",
                       json_array_size(list), (long long)n_tokens, (long long)out->start,
                       (long long)out->n_rows);
    }
    for (int64_t i = 0; i < (one ? 1 : out->n_rows); i++) {
        const json_t *row = one ? list : json_array_get(list, (size_t)i);
        if (!json_is_array(row)) {
            return lb_fail(detail, LB_E_FORMAT, WHAT ": " GATHER "[%lld] must be a list of token ids",
                           (long long)i);
        }
        int64_t n = (int64_t)json_array_size(row);
        out->k = n > out->k ? n : out->k;
    }
    if (out->k < 1 || out->k > LB_MAX_SCORE_IDS || out->k * out->n_rows > LB_MAX_JSON_VALUES) {
        return lb_fail(detail, LB_E_ARG,
                       WHAT ": " GATHER " has rows of up to %lld ids; from 1 to %d are possible, %d in all",
                       (long long)out->k, LB_MAX_SCORE_IDS, LB_MAX_JSON_VALUES);
    }
    int32_t *gather = lb_arena_array(arena, (size_t)(out->n_rows * out->k), sizeof *gather);
    if (!gather) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for this request; try again");
    }
    for (int64_t i = 0; i < out->n_rows && status == LB_OK; i++) {
        status =
            read_row(one ? list : json_array_get(list, (size_t)i), i, out->k, gather + i * out->k, detail);
    }
    out->gather = gather;
    return status;
}

static enum lb_status read_generate(const json_t *root, struct lb_arena *arena, struct lb_vllm_generate *out,
                                    struct lb_detail *detail) {
    const json_t *features = json_object_get(root, "features");
    enum lb_status status = lb_vllm_read_sampling(root, true, arena, &out->sampling, detail);
    if (status != LB_OK ||
        (status = lb_vllm_read_string(root, "model", arena, &out->model, detail)) != LB_OK ||
        (status = lb_vllm_read_id(root, arena, &out->request_id, detail)) != LB_OK ||
        (status = lb_json_int(root, "priority", false, INT32_MIN, INT32_MAX, WHAT, &out->priority, detail)) !=
            LB_OK ||
        (status = lb_vllm_read_prompts(root, "token_ids", arena, &out->prompts, detail)) != LB_OK) {
        return status;
    }
    if (features && !json_is_null(features)) {
        return lb_fail(detail, LB_E_ARG, WHAT ": features would change the answer and are not possible here");
    }
    if (out->prompts.n != 1 || !out->prompts.all[0].ids ||
        !json_is_integer(json_array_get(json_object_get(root, "token_ids"), 0))) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": token_ids must be one list of token ids");
    }
    return read_gather(root, out->prompts.all[0].n, arena, out, detail);
}

enum lb_status lb_vllm_generate_decode(const void *body, size_t len, struct lb_arena *arena,
                                       struct lb_vllm_generate *out, struct lb_detail *detail) {
    struct lb_vllm_generate request = {.k = 0};
    json_t *root = NULL;
    enum lb_status status = lb_vllm_parse(body, len, &root, detail);
    if (status == LB_OK) {
        status = read_generate(root, arena, &request, detail);
        json_decref(root);
    }
    if (status == LB_OK) {
        *out = request;
    }
    return status;
}

/* ---- the answer ---- */

/* A .npy of format 1.0 (NumPy's numpy.lib.format), float32 [n_rows, k], in base64: what stands for no id is
 * minus infinity. */
static void put_npy(struct lb_vllm_writer *writer, const struct lb_vllm_generate *request,
                    const float *gathered) {
    struct lb_buf npy;
    char header[118];
    int n =
        snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (%lld, %lld), }",
                 (long long)request->n_rows, (long long)request->k);
    memset(header + n, ' ', sizeof header - (size_t)n);
    header[sizeof header - 1] = '\n'; /* 10 bytes come before: 128 together */
    lb_buf_init(&npy, LB_MAX_RESPONSE_BYTES);
    lb_buf_append(&npy, "\x93NUMPY\x01\x00\x76\x00", 10);
    lb_buf_append(&npy, header, sizeof header);
    for (int64_t i = 0; i < request->n_rows * request->k; i++) {
        float v = request->gather[i] < 0 ? -INFINITY : gathered[i];
        lb_buf_append(&npy, &v, sizeof v);
    }
    if (lb_buf_status(&npy) == LB_OK) {
        lb_base64_put(writer->buf, npy.data, npy.len);
    } else if (writer->status == LB_OK) {
        writer->status = lb_fail(writer->detail, lb_buf_status(&npy), "out of memory; try again");
    }
    lb_buf_finish(&npy);
}

/* As vLLM names it since 0.32, and as before. rank 0: not known. */
static void put_token(struct lb_vllm_writer *writer, int32_t id, float logprob, int64_t rank) {
    lb_buf_printf(writer->buf, "{\"token_id\":%d,\"logprob\":", id);
    lb_vllm_put_logprob(writer, logprob);
    if (rank > 0) {
        lb_buf_printf(writer->buf, ",\"rank\":%lld", (long long)rank);
    } else {
        lb_buf_append_str(writer->buf, ",\"rank\":null");
    }
    lb_buf_printf(writer->buf, ",\"token\":\"token_id:%d\",\"bytes\":null", id);
}

/* Its place among the likeliest of row i; 0 where it is none of them. */
static int64_t rank_of(const struct lb_vllm_choice *choice, int64_t i) {
    for (int64_t j = 0; j < choice->next.k; j++) {
        if (choice->next.top_ids[i * choice->next.k + j] == choice->generated[i]) {
            return j + 1;
        }
    }
    return 0;
}

/* The token, and the likeliest at its place. */
static void put_content(struct lb_vllm_writer *writer, const struct lb_vllm_choice *choice, int64_t k) {
    lb_buf_append_str(writer->buf, "{\"content\":[");
    for (int64_t i = 0; i < choice->n_generated; i++) {
        lb_buf_append_str(writer->buf, i > 0 ? "," : "");
        put_token(writer, choice->generated[i], choice->generated_logprobs[i], rank_of(choice, i));
        lb_buf_append_str(writer->buf, ",\"top_logprobs\":[");
        for (int64_t j = 0; j < k && j < choice->next.k; j++) {
            lb_buf_append_str(writer->buf, j > 0 ? "," : "");
            put_token(writer, choice->next.top_ids[i * choice->next.k + j],
                      choice->next.top_logprobs[i * choice->next.k + j], j + 1);
            lb_buf_append_str(writer->buf, "}");
        }
        lb_buf_append_str(writer->buf, "]}");
    }
    lb_buf_append_str(writer->buf, "]}");
}

static void put_choice(struct lb_vllm_writer *writer, const struct lb_vllm_generate *request,
                       const struct lb_vllm_choice *choice) {
    struct lb_buf *buf = writer->buf;
    lb_buf_printf(
        buf, "{\"index\":0,\"finish_reason\":\"%s\",\"stop_reason\":", choice->stopped ? "stop" : "length");
    if (choice->stop_id >= 0) {
        lb_buf_printf(buf, "%d", choice->stop_id);
    } else {
        lb_buf_append_str(buf, "null");
    }
    lb_buf_append_str(buf, ",\"token_ids\":[");
    for (int64_t i = 0; i < choice->n_generated; i++) {
        lb_buf_printf(buf, i > 0 ? ",%d" : "%d", choice->generated[i]);
    }
    lb_buf_append_str(buf, "],\"logprobs\":");
    if (request->sampling.logprobs != LB_VLLM_NO_LOGPROBS) {
        put_content(writer, choice, request->sampling.logprobs);
    } else {
        lb_buf_append_str(buf, "null");
    }
    lb_buf_append_str(buf, "}");
}

void lb_vllm_put_generate(struct lb_vllm_writer *writer, const char *id, int64_t created, const char *model,
                          const struct lb_vllm_generate *request, const struct lb_vllm_choice *choice,
                          const float *gathered) {
    struct lb_buf *buf = writer->buf;
    long long n = choice->n, more = choice->n_generated;
    lb_buf_append_str(buf, "{\"request_id\":");
    lb_vllm_put_text(writer, id, strlen(id));
    lb_buf_append_str(buf, ",\"model\":");
    lb_vllm_put_text(writer, model, strlen(model));
    lb_buf_printf(buf,
                  ",\"created\":%lld,\"usage\":{\"prompt_tokens\":%lld,\"total_tokens\":%lld,\"completion_"
                  "tokens\":%lld}",
                  (long long)created, n, n + more, more);
    lb_buf_append_str(buf, ",\"prompt_logprobs\":");
    if (request->sampling.prompt_logprobs != LB_VLLM_NO_LOGPROBS) {
        lb_vllm_put_prompt_logprobs(writer, choice, request->sampling.prompt_logprobs);
    } else {
        lb_buf_append_str(buf, "null");
    }
    lb_buf_append_str(buf, ",\"prompt_token_id_logprobs\":");
    if (request->k > 0) {
        lb_buf_append_str(buf, "\"");
        put_npy(writer, request, gathered);
        lb_buf_append_str(buf, "\"");
    } else {
        lb_buf_append_str(buf, "null");
    }
    lb_buf_append_str(buf, ",\"choices\":[");
    put_choice(writer, request, choice);
    lb_buf_append_str(buf, "]}\n");
    (void)lb_vllm_failed(writer);
}
