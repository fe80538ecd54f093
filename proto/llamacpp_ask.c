#include "proto/llamacpp_ask.h"

#include "common/base/json.h"
#include "proto/limits.h"

#include <math.h>
#include <string.h>

#define WHAT "the answer"

/* ---- the question ---- */

void lb_llamacpp_ask(struct lb_buf *out, const struct lb_llamacpp_texts *texts, size_t n_texts, int64_t k,
                     int32_t written) {
    const char *between = "";
    lb_buf_append_str(out, "{\"prompt\":[");
    for (size_t i = 0; i < n_texts; i++) {
        for (int64_t end = texts[i].first; end < texts[i].n && lb_buf_status(out) == LB_OK; end++) {
            lb_buf_append_str(out, between);
            for (int64_t t = 0; t <= end; t++) {
                lb_buf_printf(out, t > 0 ? ",%d" : "[%d", texts[i].ids[t]);
            }
            lb_buf_append_str(out, "]");
            between = ",";
        }
    }
    /* A bias moves what is drawn, not what is told of it (post_sampling_probs). */
    lb_buf_printf(out,
                  "],\"n_predict\":1,\"temperature\":0,\"n_probs\":%lld,\"post_sampling_probs\":false,"
                  "\"logit_bias\":[[%d,1000]],\"cache_prompt\":true,\"id_slot\":0,\"response_fields\":"
                  "[\"index\",\"tokens_evaluated\",\"completion_probabilities\"]}",
                  (long long)k, written);
}

/* ---- the answer ---- */

/* Which text and row the answer's entry index is about. */
static bool place_of(const struct lb_llamacpp_texts *texts, size_t n_texts, int64_t index, size_t *text,
                     int64_t *row) {
    for (size_t i = 0; i < n_texts; i++) {
        int64_t rows = texts[i].n - texts[i].first;
        if (index >= 0 && index < rows) {
            *text = i;
            *row = index;
            return true;
        }
        index -= rows;
    }
    return false;
}

static enum lb_status read_list(const json_t *list, int64_t index, int64_t k, int32_t *ids, float *logprobs,
                                struct lb_detail *detail) {
    if (json_array_size(list) != (size_t)k) {
        return lb_fail(detail, LB_E_FORMAT,
                       WHAT ": entry %lld lists %zu of the likeliest, asked was %lld; is the server a "
                            "llama.cpp's?",
                       (long long)index, json_array_size(list), (long long)k);
    }
    for (int64_t i = 0; i < k; i++) {
        const json_t *one = json_array_get(list, (size_t)i), *id = json_object_get(one, "id");
        const json_t *logprob = json_object_get(one, "logprob");
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX ||
            !json_is_number(logprob)) {
            return lb_fail(detail, LB_E_FORMAT,
                           WHAT ": entry %lld: the likeliest [%lld] has no id or no logprob",
                           (long long)index, (long long)i);
        }
        ids[i] = (int32_t)json_integer_value(id);
        logprobs[i] = fmaxf((float)json_number_value(logprob), LB_LLAMACPP_LEAST);
        if (i > 0 && logprobs[i] > logprobs[i - 1]) { /* fewer may be wanted: the front must be likeliest */
            return lb_fail(detail, LB_E_FORMAT,
                           WHAT ": entry %lld: the likeliest [%lld] is likelier than the one before",
                           (long long)index, (long long)i);
        }
    }
    return LB_OK;
}

/* One entry, into its row; each row once. */
static enum lb_status read_entry(const json_t *entry, const struct lb_llamacpp_texts *texts, size_t n_texts,
                                 int64_t k, bool *seen, struct lb_llamacpp_told *out,
                                 struct lb_detail *detail) {
    int64_t index = 0, evaluated = 0, row = 0;
    size_t text = 0;
    enum lb_status status = lb_json_int(entry, "index", true, 0, INT32_MAX, WHAT, &index, detail);
    if (status != LB_OK || (status = lb_json_int(entry, "tokens_evaluated", true, 0, INT32_MAX, WHAT,
                                                 &evaluated, detail)) != LB_OK) {
        return status;
    }
    if (!place_of(texts, n_texts, index, &text, &row) || seen[index]) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": index %lld is none of the question's, or there twice",
                       (long long)index);
    }
    seen[index] = true;
    if (evaluated != texts[text].first + row + 1) {
        return lb_fail(detail, LB_E_FORMAT,
                       WHAT ": entry %lld is about a text of %lld tokens, asked was one of %lld",
                       (long long)index, (long long)evaluated, (long long)(texts[text].first + row + 1));
    }
    const json_t *told = json_array_get(json_object_get(entry, "completion_probabilities"), 0);
    return read_list(json_object_get(told, "top_logprobs"), index, k, out[text].ids + row * k,
                     out[text].logprobs + row * k, detail);
}

static enum lb_status read_all(const json_t *root, const struct lb_llamacpp_texts *texts, size_t n_texts,
                               int64_t k, struct lb_arena *arena, struct lb_llamacpp_told *out,
                               struct lb_detail *detail) {
    size_t n = json_is_object(root) ? 1 : json_array_size(root), rows = 0; /* one text is answered alone */
    for (size_t i = 0; i < n_texts; i++) {
        int64_t of = texts[i].n - texts[i].first;
        out[i] = (struct lb_llamacpp_told){
            .rows = of,
            .ids = lb_arena_zarray(arena, (size_t)(of * k) + 1, sizeof *out->ids),
            .logprobs = lb_arena_zarray(arena, (size_t)(of * k) + 1, sizeof *out->logprobs)};
        if (!out[i].ids || !out[i].logprobs) {
            return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer of this length");
        }
        rows += (size_t)of;
    }
    bool *seen = lb_arena_zarray(arena, rows + 1, sizeof *seen);
    if (!seen) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer of this length");
    }
    if (n != rows) {
        return lb_fail(detail, LB_E_FORMAT, WHAT " has %zu entries, %zu texts were asked about", n, rows);
    }
    enum lb_status status = LB_OK;
    for (size_t i = 0; i < n && status == LB_OK; i++) {
        const json_t *entry = json_is_object(root) ? root : json_array_get(root, i);
        status = read_entry(entry, texts, n_texts, k, seen, out, detail);
    }
    return status;
}

enum lb_status lb_llamacpp_read(const void *body, size_t len, const struct lb_llamacpp_texts *texts,
                                size_t n_texts, int64_t k, struct lb_arena *arena,
                                struct lb_llamacpp_told *out, struct lb_detail *detail) {
    json_t *root = NULL;
    enum lb_status status = lb_json_parse_loose(body, len, LB_MAX_JSON_DEPTH, WHAT, &root, detail);
    if (status == LB_OK) {
        status = read_all(root, texts, n_texts, k, arena, out, detail);
    }
    json_decref(root);
    return status;
}
