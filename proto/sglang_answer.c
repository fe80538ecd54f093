/* Answers in SGLang's dialect. */
#include "proto/sglang.h"

#include "common/base/base64.h"
#include "proto/oip_wire.h"

#include <math.h>
#include <string.h>

static void put(struct lb_vllm_writer *writer, const char *text) {
    lb_buf_append_str(writer->buf, text);
}

static size_t logprob_text(struct lb_vllm_writer *writer, float logprob, char out[LB_NUMBER_TEXT]) {
    if (isnan(logprob)) {
        return lb_vllm_logprob_text(writer, logprob, out); /* which says so */
    }
    if (isinf(logprob)) {
        memcpy(out, "null", 4);
        return 4;
    }
    return lb_wire_float_text(logprob, out);
}

/* [logprob,id,text]; known: there is a log-probability. */
static void put_triple(struct lb_vllm_writer *writer, bool texts, bool known, float logprob, int32_t id) {
    char triple[2 * LB_NUMBER_TEXT + 8]; /* put together here: there are many of them */
    size_t n = 0;
    triple[n++] = '[';
    n += logprob_text(writer, known ? logprob : -INFINITY, triple + n);
    triple[n++] = ',';
    n += lb_wire_integer_text(id, triple + n);
    triple[n++] = ',';
    if (texts && writer->text && writer->status == LB_OK) {
        lb_buf_append(writer->buf, triple, n);
        lb_vllm_put_id_text(writer, id);
        put(writer, "]");
    } else {
        memcpy(triple + n, "null]", 5);
        lb_buf_append(writer->buf, triple, n + 5);
    }
}

/* A list of triples; null where there is none. */
static void put_list(struct lb_vllm_writer *writer, bool texts, const int32_t *ids, const float *logprobs,
                     int64_t n) {
    if (n == 0) {
        put(writer, "null");
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        put(writer, i > 0 ? "," : "[");
        put_triple(writer, texts, true, logprobs[i], ids[i]);
    }
    put(writer, "]");
}

/* Rows that are known of the prompt. */
static int64_t rows_of(const struct lb_sglang_answer *answer) {
    return answer->first < answer->n ? answer->n - 1 - answer->first : 0;
}

/* ---- the prompt ---- */

static void put_own(struct lb_vllm_writer *writer, bool texts, const struct lb_sglang_answer *answer) {
    put(writer, ",\"input_token_logprobs\":[");
    for (int64_t t = answer->first; t < answer->n && !lb_vllm_failed(writer); t++) {
        bool known = t > answer->first;
        put(writer, known ? "," : "");
        put_triple(writer, texts, known, known ? answer->prompt.actual[t - answer->first - 1] : 0,
                   answer->ids[t]);
    }
    put(writer, "]");
}

static void put_top(struct lb_vllm_writer *writer, bool texts, const struct lb_sglang_answer *answer,
                    int64_t k) {
    const struct lb_vllm_rows *rows = &answer->prompt;
    put(writer, answer->first < answer->n ? ",\"input_top_logprobs\":[null" : ",\"input_top_logprobs\":[");
    for (int64_t i = 0; i < rows_of(answer) && !lb_vllm_failed(writer); i++) {
        put(writer, ",");
        put_list(writer, texts, rows->top_ids + i * rows->k, rows->top_logprobs + i * rows->k, k);
    }
    put(writer, "]");
}

/* The k of each row as 4-byte numbers, little-endian, in base64. */
static void put_base64(struct lb_vllm_writer *writer, const void *numbers, int64_t rows, int64_t stride,
                       int64_t k) {
    struct lb_buf bytes;
    lb_buf_init(&bytes, LB_MAX_RESPONSE_BYTES);
    for (int64_t i = 0; i < rows; i++) {
        lb_buf_append(&bytes, (const char *)numbers + i * stride * 4, (size_t)k * 4);
    }
    if (writer->status == LB_OK) {
        writer->status = lb_wire_written(&bytes, "the answer", writer->detail);
    }
    if (writer->status == LB_OK && bytes.len > 0) {
        lb_base64_put(writer->buf, bytes.data, bytes.len);
    }
    lb_buf_finish(&bytes);
}

static void put_flat(struct lb_vllm_writer *writer, bool base64, const struct lb_sglang_answer *answer,
                     int64_t k) {
    const struct lb_vllm_rows *rows = &answer->prompt;
    int64_t n = rows_of(answer);
    if (base64) {
        put(writer, ",\"input_top_logprobs_val_flat_b64\":\"");
        put_base64(writer, rows->top_logprobs, n, rows->k, k);
        put(writer, "\",\"input_top_logprobs_idx_flat_b64\":\"");
        put_base64(writer, rows->top_ids, n, rows->k, k);
        put(writer, "\",\"input_top_logprobs_val_flat_b64_dtype\":\"float32\","
                    "\"input_top_logprobs_idx_flat_b64_dtype\":\"int32\"");
    } else {
        put(writer, ",\"input_top_logprobs_val_flat\":[");
        for (int64_t i = 0; i < n * k; i++) {
            char text[LB_NUMBER_TEXT];
            put(writer, i > 0 ? "," : "");
            lb_buf_append(writer->buf, text,
                          logprob_text(writer, rows->top_logprobs[i / k * rows->k + i % k], text));
        }
        put(writer, "],\"input_top_logprobs_idx_flat\":[");
        for (int64_t i = 0; i < n * k; i++) {
            char text[LB_NUMBER_TEXT];
            put(writer, i > 0 ? "," : "");
            lb_buf_append(writer->buf, text,
                          lb_wire_integer_text(rows->top_ids[i / k * rows->k + i % k], text));
        }
        put(writer, "]");
    }
    lb_buf_printf(writer->buf,
                  ",\"input_top_logprobs_shape\":[%lld,%lld],\"input_top_logprobs_null_prefix\":%d",
                  (long long)n, (long long)k, answer->first < answer->n);
}

static void put_scores(struct lb_vllm_writer *writer, bool texts, const struct lb_sglang_scores *scores,
                       const struct lb_sglang_answer *answer) {
    put(writer, answer->first < answer->n ? ",\"input_token_ids_logprobs\":[null"
                                          : ",\"input_token_ids_logprobs\":[");
    for (int64_t i = 0; i < rows_of(answer) && !lb_vllm_failed(writer); i++) {
        const struct lb_sglang_ids *of =
            scores->positions ? &scores->positions[answer->first + 1 + i] : &scores->ids;
        put(writer, ",");
        put_list(writer, texts, of->ids, answer->scores + i * answer->n_scores, of->n);
    }
    put(writer, "],\"output_token_ids_logprobs\":[");
    for (int64_t i = 0; !scores->positions && i < answer->n_next && !lb_vllm_failed(writer); i++) {
        put(writer, i > 0 ? "," : "");
        put_list(writer, texts, scores->ids.ids, answer->next_scores + i * answer->n_scores, scores->ids.n);
    }
    put(writer, "]");
}

/* ---- the whole ---- */

static void put_logprobs(struct lb_vllm_writer *writer, const struct lb_sglang_generate *request,
                         const struct lb_sglang_scores *scores, const struct lb_sglang_answer *answer) {
    int64_t k = scores->top_k < answer->next.k ? scores->top_k : answer->next.k;
    bool texts = request->texts;
    put_own(writer, texts, answer);
    put(writer, ",\"output_token_logprobs\":[");
    for (int64_t i = 0; i < answer->n_next; i++) {
        put(writer, i > 0 ? "," : "");
        put_triple(writer, texts, true, answer->next_logprobs[i], answer->next_ids[i]);
    }
    lb_buf_printf(writer->buf, "],\"output_token_logprobs_length\":%lld", (long long)answer->n_next);
    if (k > 0) {
        if (request->flat) {
            put_flat(writer, request->base64, answer, k);
        } else {
            put_top(writer, texts, answer, k);
        }
        put(writer, ",\"output_top_logprobs\":[");
        for (int64_t i = 0; i < answer->n_next && !lb_vllm_failed(writer); i++) {
            put(writer, i > 0 ? "," : "");
            put_list(writer, texts, answer->next.top_ids + i * answer->next.k,
                     answer->next.top_logprobs + i * answer->next.k, k);
        }
        put(writer, "]");
    }
    if (scores->positions || scores->ids.n > 0) {
        put_scores(writer, texts, scores, answer);
    }
}

static void put_ids(struct lb_vllm_writer *writer, const char *key, const int32_t *ids, int64_t n) {
    lb_buf_printf(writer->buf, ",\"%s\":[", key);
    for (int64_t i = 0; i < n; i++) {
        lb_buf_printf(writer->buf, "%s%d", i > 0 ? "," : "", ids[i]);
    }
    put(writer, "]");
}

/* Whoever has written as much as was asked for has not stopped. */
static void put_reason(struct lb_vllm_writer *writer, int64_t max_tokens,
                       const struct lb_sglang_answer *answer) {
    bool stopped = answer->stopped && answer->n_generated > 0 && answer->n_generated < max_tokens;
    if (answer->goes_on) {
        put(writer, ",\"finish_reason\":null");
        return;
    }
    put(writer, ",\"finish_reason\":{\"type\":");
    if (stopped && answer->stop) {
        put(writer, "\"stop\",\"matched\":");
        lb_vllm_put_text(writer, answer->stop, strlen(answer->stop));
    } else if (stopped) {
        lb_buf_printf(writer->buf, "\"stop\",\"matched\":%d", answer->next_ids[answer->n_generated - 1]);
    } else {
        lb_buf_printf(writer->buf, "\"length\",\"length\":%lld", (long long)max_tokens);
    }
    put(writer, "}");
}

void lb_sglang_put_answer(struct lb_vllm_writer *writer, const struct lb_sglang_generate *request,
                          const struct lb_sglang_scores *scores, const struct lb_sglang_answer *answer) {
    char seconds[LB_NUMBER_TEXT];
    put(writer, "{\"text\":");
    lb_vllm_put_text(writer, answer->text, answer->text_len);
    put_ids(writer, "output_ids", answer->next_ids, answer->n_generated);
    put(writer, ",\"meta_info\":{\"id\":");
    lb_vllm_put_text(writer, answer->id, strlen(answer->id));
    put_reason(writer, request->sampling.max_tokens, answer);
    lb_buf_printf(writer->buf, ",\"prompt_tokens\":%lld,\"weight_version\":", (long long)answer->n);
    lb_vllm_put_text(writer, answer->version, strlen(answer->version));
    put(writer, ",\"num_retractions\":0");
    if (scores->asked) {
        put_logprobs(writer, request, scores, answer);
    }
    lb_buf_printf(writer->buf, ",\"reasoning_tokens\":0,\"completion_tokens\":%lld,\"cached_tokens\":0",
                  (long long)answer->n_generated);
    put(writer, ",\"dp_rank\":null");
    if (!answer->goes_on) {
        put(writer, ",\"e2e_latency\":");
        lb_buf_append(writer->buf, seconds, lb_wire_double_text(answer->seconds, seconds));
    }
    put(writer, "}");
    if (request->return_prompt_ids) {
        put_ids(writer, "prompt_token_ids", answer->ids, answer->n);
    }
    if (answer->numbered) {
        lb_buf_printf(writer->buf, ",\"index\":%lld", (long long)answer->index);
    }
    put(writer, "}");
    (void)lb_vllm_failed(writer);
}
