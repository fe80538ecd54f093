/* Questions in SGLang's dialect, and what is made of the answers. */
#include "proto/sglang_ask.h"

#include "common/base/base64.h"
#include "common/base/mem.h"

#include <math.h>
#include <string.h>

#define WHAT "the answer"

/* ---- questions ---- */

/* Ids from 0 on. */
static void put_ids(struct lb_buf *out, const int32_t *ids, int64_t n) {
    const char *between = "";
    lb_buf_append_str(out, "[");
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] >= 0) {
            lb_buf_printf(out, "%s%d", between, ids[i]);
            between = ",";
        }
    }
    lb_buf_append_str(out, "]");
}

/* Where the entries of a text begin: those who take ids of their own for each position want all of it. */
static int64_t start_of(const struct lb_sglang_question *question, const struct lb_sglang_text *text) {
    return question->n_chosen > 0 ? 0 : text->first;
}

static void put_chosen(struct lb_buf *out, const struct lb_sglang_question *question) {
    lb_buf_append_str(out, ",\"token_ids_logprob_positions\":[");
    for (size_t i = 0; i < question->n_texts; i++) {
        const struct lb_sglang_text *text = &question->texts[i];
        lb_buf_append_str(out, i > 0 ? ",[[]" : "[[]");
        for (int64_t t = 0; t + 1 < text->n; t++) {
            lb_buf_append_str(out, ",");
            put_ids(out, text->chosen + t * question->n_chosen, t < text->first ? 0 : question->n_chosen);
        }
        lb_buf_append_str(out, "]");
    }
    lb_buf_append_str(out, "]");
}

void lb_sglang_ask(struct lb_buf *out, const struct lb_sglang_question *question) {
    lb_buf_append_str(out, "{");
    if (question->model) {
        struct lb_vllm_writer writer = {.buf = out};
        lb_buf_append_str(out, "\"model\":");
        lb_vllm_put_text(&writer, question->model, strlen(question->model));
        lb_buf_append_str(out, ",");
    }
    lb_buf_append_str(out, "\"input_ids\":[");
    for (size_t i = 0; i < question->n_texts; i++) {
        lb_buf_append_str(out, i > 0 ? "," : "");
        put_ids(out, question->texts[i].ids, question->texts[i].n);
    }
    lb_buf_append_str(out, "],\"logprob_start_len\":[");
    for (size_t i = 0; i < question->n_texts; i++) {
        lb_buf_printf(out, "%s%lld", i > 0 ? "," : "", (long long)start_of(question, &question->texts[i]));
    }
    /* Nothing is written behind a text where ids are chosen: only then miles' servers take them. Else one
     * token is: it costs nothing beside the text, and no version of SGLang then leaves lists out. */
    lb_buf_printf(out,
                  "],\"sampling_params\":{\"max_new_tokens\":%d,\"temperature\":0},\"return_logprob\":true",
                  question->n_chosen > 0 ? 0 : 1);
    if (question->k > 0) {
        lb_buf_printf(out,
                      ",\"top_logprobs_num\":%lld,\"return_flat_raw_top_logprobs\":true,"
                      "\"return_flat_raw_top_logprobs_b64\":true",
                      (long long)question->k);
    }
    if (question->n_chosen > 0) {
        put_chosen(out, question);
    }
    lb_buf_append_str(out, "}");
}

/* ---- answers ---- */

/* Where an answer is being read. */
struct at {
    const struct lb_sglang_question *question;
    size_t text;
    const struct lb_sglang_text *of;
    int64_t skipped, entries; /* of each list: those before the rows that are asked for; all */
    struct lb_detail *detail;
};

/* [logprob, id, text]. */
static bool read_triple(const json_t *triple, int32_t *id, float *logprob) {
    const json_t *value = json_array_get(triple, 0), *of = json_array_get(triple, 1);
    json_int_t number = json_is_integer(of) ? json_integer_value(of) : -1;
    if ((!json_is_number(value) && !json_is_null(value)) || number < 0 || number > INT32_MAX) {
        return false;
    }
    *id = (int32_t)number;
    *logprob = json_is_null(value) ? LB_VLLM_LEAST_LOGPROB : (float)json_number_value(value);
    return true;
}

/* A list of one entry for each token from the start on, the first null. */
static enum lb_status read_list(const struct at *at, const json_t *meta, const char *key,
                                const json_t **out) {
    const json_t *list = json_object_get(meta, key);
    if (!json_is_array(list) || json_array_size(list) != (size_t)at->entries) {
        return lb_fail(at->detail, LB_E_FORMAT,
                       WHAT ": %s of text %zu is no list of its %lld tokens; is the server an SGLang?", key,
                       at->text, (long long)at->entries);
    }
    *out = list;
    return LB_OK;
}

static enum lb_status read_own(const struct at *at, const json_t *meta, struct lb_sglang_told *out) {
    const json_t *list = NULL;
    enum lb_status status = read_list(at, meta, "input_token_logprobs", &list);
    for (int64_t i = 0; status == LB_OK && i < at->entries; i++) {
        int64_t t = at->of->n - at->entries + i, row = i - 1 - at->skipped;
        int32_t id = -1;
        float logprob = 0;
        if (!read_triple(json_array_get(list, (size_t)i), &id, &logprob)) {
            return lb_fail(at->detail, LB_E_FORMAT,
                           WHAT ": input_token_logprobs[%lld] of text %zu is no log-probability and id",
                           (long long)i, at->text);
        }
        if (id != at->of->ids[t]) {
            return lb_fail(at->detail, LB_E_FORMAT,
                           WHAT
                           " is to another text: token %lld of text %zu is %d, asked was %d; does an HTTP "
                           "cache in between ignore request bodies?",
                           (long long)t, at->text, id, at->of->ids[t]);
        }
        if (row >= 0) {
            out->own[row] = logprob;
        }
    }
    return status;
}

static enum lb_status read_nested(const struct at *at, const json_t *meta, struct lb_sglang_told *out) {
    const json_t *list = NULL;
    int64_t k = at->question->k;
    enum lb_status status = read_list(at, meta, "input_top_logprobs", &list);
    for (int64_t t = 0; status == LB_OK && t < out->rows; t++) {
        const json_t *row = json_array_get(list, (size_t)(at->skipped + t) + 1);
        bool good = json_array_size(row) == (size_t)k;
        for (int64_t i = 0; good && i < k; i++) {
            good =
                read_triple(json_array_get(row, (size_t)i), &out->ids[t * k + i], &out->logprobs[t * k + i]);
        }
        if (!good) {
            return lb_fail(at->detail, LB_E_FORMAT,
                           WHAT
                           ": input_top_logprobs[%lld] of prompt %zu is no list of %lld log-probabilities "
                           "and ids",
                           (long long)t + 1, at->text, (long long)k);
        }
    }
    return status;
}

/* 4-byte numbers of a member in base64; room of 3 bytes more. */
static enum lb_status read_numbers(const struct at *at, const json_t *meta, const char *key,
                                   const char *dtype_key, const char *dtype, size_t bytes, void *out) {
    const json_t *text = json_object_get(meta, key);
    const char *is = json_string_value(json_object_get(meta, dtype_key));
    size_t len = 0;
    if (!json_is_string(text) || !is || strcmp(is, dtype) != 0 ||
        json_string_length(text) != (bytes + 2) / 3 * 4 ||
        !lb_base64_bytes(json_string_value(text), json_string_length(text), out, &len) || len != bytes) {
        return lb_fail(at->detail, LB_E_FORMAT, WHAT ": %s of text %zu is not base64 of %zu bytes of %s", key,
                       at->text, bytes, dtype);
    }
    return LB_OK;
}

/* Rows of all entries, in room for that; those that are asked for are moved to its front. */
static enum lb_status read_flat(const struct at *at, const json_t *meta, struct lb_sglang_told *out) {
    const json_t *shape = json_object_get(meta, "input_top_logprobs_shape");
    int64_t k = at->question->k, rows = at->entries - 1;
    size_t bytes = (size_t)(rows * k) * sizeof(float), front = (size_t)(at->skipped * k);
    if (json_integer_value(json_array_get(shape, 0)) != rows ||
        json_integer_value(json_array_get(shape, 1)) != k ||
        json_integer_value(json_object_get(meta, "input_top_logprobs_null_prefix")) != 1) {
        return lb_fail(at->detail, LB_E_FORMAT,
                       WHAT ": input_top_logprobs_shape of text %zu is not [%lld, %lld] behind one null",
                       at->text, (long long)rows, (long long)k);
    }
    enum lb_status status =
        read_numbers(at, meta, "input_top_logprobs_val_flat_b64", "input_top_logprobs_val_flat_b64_dtype",
                     "float32", bytes, out->logprobs);
    if (status == LB_OK) {
        status = read_numbers(at, meta, "input_top_logprobs_idx_flat_b64",
                              "input_top_logprobs_idx_flat_b64_dtype", "int32", bytes, out->ids);
    }
    if (status != LB_OK) {
        return status;
    }
    memmove(out->logprobs, out->logprobs + front, bytes - front * sizeof(float));
    memmove(out->ids, out->ids + front, bytes - front * sizeof(float));
    for (int64_t i = 0; i < out->rows * k; i++) {
        if (out->ids[i] < 0 || isnan(out->logprobs[i])) {
            return lb_fail(at->detail, LB_E_FORMAT,
                           WHAT ": the likeliest of text %zu hold what is no id, or no number", at->text);
        }
        out->logprobs[i] = fmaxf(out->logprobs[i], LB_VLLM_LEAST_LOGPROB);
    }
    return LB_OK;
}

static enum lb_status read_chosen(const struct at *at, const json_t *meta, struct lb_sglang_told *out) {
    static const char key[] = "input_token_ids_logprobs";
    const json_t *list = NULL;
    int64_t n = at->question->n_chosen;
    if (!json_object_get(meta, key)) {
        return lb_fail(at->detail, LB_E_UNSUPPORTED,
                       WHAT " has no %s: this server takes no ids for each position "
                            "(token_ids_logprob_positions)",
                       key);
    }
    enum lb_status status = read_list(at, meta, key, &list);
    for (int64_t r = 0; status == LB_OK && r < out->rows; r++) {
        const json_t *row = json_array_get(list, (size_t)(at->skipped + r) + 1);
        const int32_t *asked = at->of->chosen + (at->of->first + r) * n;
        size_t next = 0;
        bool good = true;
        for (int64_t i = 0; good && i < n; i++) {
            int32_t id = -1;
            out->chosen[r * n + i] = -INFINITY;
            if (asked[i] >= 0) {
                good =
                    read_triple(json_array_get(row, next++), &id, &out->chosen[r * n + i]) && id == asked[i];
            }
        }
        if (!good || next != json_array_size(row)) {
            return lb_fail(at->detail, LB_E_FORMAT,
                           WHAT ": %s[%lld] of text %zu is not about the ids that were asked for", key,
                           (long long)(at->skipped + r) + 1, at->text);
        }
    }
    return status;
}

static enum lb_status read_answer(const struct at *at, const json_t *answer, struct lb_arena *arena,
                                  struct lb_sglang_told *out) {
    const json_t *meta = json_object_get(answer, "meta_info");
    const char *version = json_string_value(json_object_get(meta, "weight_version"));
    const struct lb_sglang_question *question = at->question;
    size_t all = (size_t)at->entries; /* one more than rows */
    *out = (struct lb_sglang_told){.rows = at->of->n - 1 - at->of->first};
    out->ids = lb_arena_zarray(arena, all * (size_t)question->k + 1, sizeof *out->ids);
    out->logprobs = lb_arena_zarray(arena, all * (size_t)question->k + 1, sizeof *out->logprobs);
    out->own = lb_arena_zarray(arena, all, sizeof *out->own);
    out->chosen = lb_arena_zarray(arena, all * (size_t)question->n_chosen + 1, sizeof *out->chosen);
    out->version = lb_arena_strdup(arena, version ? version : "");
    if (!out->ids || !out->logprobs || !out->own || !out->chosen || !out->version) {
        return lb_fail(at->detail, LB_E_NOMEM, "out of memory for an answer of this length");
    }
    enum lb_status status = read_own(at, meta, out);
    if (status == LB_OK && question->k > 0) {
        status = json_object_get(meta, "input_top_logprobs_val_flat_b64") ? read_flat(at, meta, out)
                                                                          : read_nested(at, meta, out);
    }
    return status == LB_OK && question->n_chosen > 0 ? read_chosen(at, meta, out) : status;
}

enum lb_status lb_sglang_read(const void *body, size_t len, const struct lb_sglang_question *question,
                              struct lb_arena *arena, struct lb_sglang_told *out, struct lb_detail *detail) {
    json_t *root = NULL;
    enum lb_status status = lb_json_parse_loose(body, len, LB_MAX_JSON_DEPTH, WHAT, &root, detail);
    if (status == LB_OK && (!json_is_array(root) || json_array_size(root) != question->n_texts)) {
        status = lb_fail(detail, LB_E_FORMAT, WHAT " is no list of %zu, as many as texts were asked about",
                         question->n_texts);
    }
    for (size_t i = 0; status == LB_OK && i < question->n_texts; i++) {
        const struct lb_sglang_text *text = &question->texts[i];
        int64_t start = start_of(question, text);
        const struct at at = {question, i, text, text->first - start, text->n - start, detail};
        status = read_answer(&at, json_array_get(root, i), arena, &out[i]);
    }
    json_decref(root);
    return status;
}
