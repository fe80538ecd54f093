/* Questions in vLLM's dialect, and what is made of the answers. */
#include "proto/vllm_ask.h"

#include "common/base/base64.h"
#include "common/base/mem.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WHAT "the answer"
#define MAX_WIDTH (1 << 20)

/* ---- questions ---- */

static void put_string(struct lb_buf *out, const char *text) {
    struct lb_vllm_writer writer = {.buf = out};
    lb_vllm_put_text(&writer, text, strlen(text));
}

static void put_ids(struct lb_buf *out, const int32_t *ids, int64_t n) {
    lb_buf_append_str(out, "[");
    for (int64_t i = 0; i < n; i++) {
        lb_buf_printf(out, i > 0 ? ",%d" : "%d", ids[i]);
    }
    lb_buf_append_str(out, "]");
}

static void put_prompts(struct lb_buf *out, const struct lb_vllm_prompts *prompts) {
    lb_buf_append_str(out, "[");
    for (size_t i = 0; i < prompts->n; i++) {
        lb_buf_append_str(out, i > 0 ? "," : "");
        put_ids(out, prompts->all[i].ids, prompts->all[i].n);
    }
    lb_buf_append_str(out, "]");
}

void lb_vllm_ask_tokens(struct lb_buf *out, const char *model, const char *text, bool add_special) {
    lb_buf_append_str(out, "{\"model\":");
    put_string(out, model);
    lb_buf_append_str(out, ",\"prompt\":");
    put_string(out, text);
    lb_buf_printf(out, ",\"add_special_tokens\":%s}", add_special ? "true" : "false");
}

void lb_vllm_ask_scores(struct lb_buf *out, const char *model, const struct lb_vllm_prompts *prompts,
                        int64_t k) {
    lb_buf_append_str(out, "{\"model\":");
    put_string(out, model);
    lb_buf_append_str(out, ",\"prompt\":");
    put_prompts(out, prompts);
    lb_buf_printf(out,
                  ",\"max_tokens\":1,\"temperature\":1,\"prompt_logprobs\":%lld,\"return_token_ids\":true}",
                  (long long)k);
}

void lb_vllm_ask_gather(struct lb_buf *out, const char *model, const struct lb_vllm_prompt *prompt,
                        const int32_t *ids, int64_t k) {
    lb_buf_append_str(out, "{\"model\":");
    put_string(out, model);
    lb_buf_append_str(out, ",\"token_ids\":");
    put_ids(out, prompt->ids, prompt->n);
    lb_buf_append_str(out,
                      ",\"sampling_params\":{\"max_tokens\":1,\"temperature\":1,\"prompt_logprob_start\":0,"
                      "\"prompt_logprob_token_ids\":[");
    for (int64_t t = 0; t + 1 < prompt->n; t++) {
        lb_buf_append_str(out, t > 0 ? "," : "");
        put_ids(out, ids + t * k, k);
    }
    lb_buf_append_str(out, "]}}");
}

void lb_vllm_ask_states(struct lb_buf *out, const char *model, const struct lb_vllm_prompts *prompts,
                        enum lb_datatype datatype) {
    const char *dtype = datatype == LB_DT_FP32 ? "float32" : datatype == LB_DT_FP16 ? "float16" : "bfloat16";
    lb_buf_append_str(out, "{\"model\":");
    put_string(out, model);
    lb_buf_append_str(out, ",\"input\":");
    put_prompts(out, prompts);
    lb_buf_printf(out,
                  ",\"task\":\"token_embed\",\"use_activation\":false,\"add_special_tokens\":false,"
                  "\"encoding_format\":\"bytes\",\"embed_dtype\":\"%s\",\"endianness\":\"little\"}",
                  dtype);
}

/* ---- answers: scores ---- */

/* The place's entries: {"ID": {"logprob": x, ...}, ...}. */
static enum lb_status read_place(const json_t *entry, size_t p, size_t i, struct lb_arena *arena,
                                 struct lb_vllm_place *out, struct lb_detail *detail) {
    if (!json_is_object(entry)) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": prompt_logprobs[%zu] of choice %zu is no object", i, p);
    }
    size_t n = json_object_size(entry);
    const char *key;
    json_t *told;
    out->n = 0;
    out->ids = lb_arena_array(arena, n, sizeof *out->ids);
    out->logprobs = lb_arena_array(arena, n, sizeof *out->logprobs);
    if (!out->ids || !out->logprobs) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer of this length");
    }
    json_object_foreach((json_t *)(uintptr_t)entry, key, told) {
        const json_t *logprob = json_object_get(told, "logprob");
        char *end = NULL;
        long id = *key >= '0' && *key <= '9' ? strtol(key, &end, 10) : -1;
        if (!end || *end || id < 0 || id > INT32_MAX) {
            return lb_fail(detail, LB_E_FORMAT,
                           WHAT
                           ": prompt_logprobs[%zu] of choice %zu has the key \"%.32s\", which is no token id",
                           i, p, key);
        }
        if (!json_is_number(logprob)) {
            return lb_fail(detail, LB_E_FORMAT,
                           WHAT
                           ": prompt_logprobs[%zu] of choice %zu: id %ld has no logprob that is a number",
                           i, p, id);
        }
        out->ids[out->n] = (int32_t)id;
        out->logprobs[out->n++] = (float)json_number_value(logprob);
    }
    return LB_OK;
}

/* Ids that the server says it read, where it does: a cache or a proxy may have answered about others. */
static enum lb_status check_ids(const json_t *said, size_t p, const struct lb_vllm_prompt *prompt,
                                struct lb_detail *detail) {
    bool same = json_array_size(said) == (size_t)prompt->n;
    for (int64_t i = 0; same && i < prompt->n; i++) {
        const json_t *id = json_array_get(said, (size_t)i);
        same = json_is_integer(id) && json_integer_value(id) == prompt->ids[i];
    }
    return !json_is_array(said) || same
               ? LB_OK
               : lb_fail(detail, LB_E_FORMAT,
                         WHAT " is to other prompts: prompt_token_ids of choice %zu are not what was asked; "
                              "does an HTTP cache in between ignore request bodies?",
                         p);
}

static enum lb_status read_choice(const json_t *choice, size_t p, const struct lb_vllm_prompt *prompt,
                                  struct lb_arena *arena, struct lb_vllm_scores *out,
                                  struct lb_detail *detail) {
    const json_t *list = json_object_get(choice, "prompt_logprobs");
    if (!json_is_array(list)) {
        return lb_fail(
            detail, LB_E_FORMAT,
            WHAT ": choice %zu has no prompt_logprobs; is the server a vLLM, or does it leave them out?", p);
    }
    if (json_array_size(list) != (size_t)prompt->n) {
        return lb_fail(detail, LB_E_FORMAT,
                       WHAT ": prompt_logprobs of choice %zu has %zu entries, the prompt %lld tokens", p,
                       json_array_size(list), (long long)prompt->n);
    }
    if (!json_is_null(json_array_get(list, 0))) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": prompt_logprobs[0] of choice %zu is not null", p);
    }
    enum lb_status status = check_ids(json_object_get(choice, "prompt_token_ids"), p, prompt, detail);
    out->n = prompt->n - 1;
    out->places = lb_arena_zarray(arena, (size_t)prompt->n, sizeof *out->places);
    if (status == LB_OK && !out->places) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer of this length");
    }
    for (int64_t t = 0; t < out->n && status == LB_OK; t++) {
        status =
            read_place(json_array_get(list, (size_t)t + 1), p, (size_t)t + 1, arena, &out->places[t], detail);
    }
    return status;
}

/* Which prompt the choice is about. */
static enum lb_status place_choice(const json_t *choice, size_t i, size_t n, const struct lb_vllm_scores *out,
                                   size_t *at, struct lb_detail *detail) {
    int64_t index = (int64_t)i;
    enum lb_status status =
        lb_json_int(choice, "index", false, 0, (int64_t)n - 1, WHAT ": choices", &index, detail);
    if (status == LB_OK && out[index].places) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": two choices have index %lld", (long long)index);
    }
    *at = (size_t)index;
    return status;
}

enum lb_status lb_vllm_scores_read(const void *body, size_t len, const struct lb_vllm_prompts *prompts,
                                   struct lb_arena *arena, struct lb_vllm_scores *out,
                                   const char **out_system, struct lb_detail *detail) {
    json_t *root = NULL;
    const char *system = "";
    enum lb_status status = lb_json_parse_loose(body, len, LB_MAX_JSON_DEPTH, WHAT, &root, detail);
    const json_t *choices = json_object_get(root, "choices");
    size_t n = json_array_size(choices);
    if (status == LB_OK && (!json_is_array(choices) || n != prompts->n)) {
        status = lb_fail(detail, LB_E_FORMAT, WHAT " has %zu choices, %zu prompts were asked about", n,
                         prompts->n);
    }
    struct lb_vllm_scores *scores = lb_arena_zarray(arena, prompts->n, sizeof *scores);
    if (status == LB_OK && !scores) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for an answer of this length");
    }
    for (size_t i = 0; i < prompts->n && status == LB_OK; i++) {
        const json_t *choice = json_array_get(choices, i);
        size_t at = 0;
        if (!json_is_object(choice)) {
            status = lb_fail(detail, LB_E_FORMAT, WHAT ": choices[%zu] is no object", i);
        }
        status = status != LB_OK ? status : place_choice(choice, i, n, scores, &at, detail);
        status =
            status != LB_OK ? status : read_choice(choice, at, &prompts->all[at], arena, &scores[at], detail);
    }
    if (status == LB_OK) {
        status = lb_json_str(root, "system_fingerprint", false, WHAT, &system, detail);
    }
    if (status == LB_OK && out_system) {
        const char *copy = lb_arena_strdup(arena, system ? system : "");
        *out_system = copy;
        status = copy ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory for an answer of this length");
    }
    if (status == LB_OK) {
        memcpy(out, scores, prompts->n * sizeof *out);
    }
    json_decref(root);
    return status;
}

int64_t lb_vllm_most_read(const void *body, size_t len) {
    static const char says[] = "greater than " LB_VLLM_ALLOWED;
    json_t *root = NULL;
    int64_t most = 0;
    if (lb_json_parse(body, len, LB_MAX_JSON_DEPTH, WHAT, &root, NULL) == LB_OK) {
        const json_t *error = json_object_get(root, "error");
        const char *text = json_string_value(json_object_get(error, "message"));
        const char *at = text ? strstr(text, says) : NULL;
        most = at ? strtoll(at + strlen(says), NULL, 10) : 0;
    }
    json_decref(root);
    return most > 0 && most <= INT32_MAX ? most : 0;
}

/* ---- answers: chosen ids ---- */

#define NPY_MAGIC "\x93NUMPY"
#define NPY_FIXED 10

/* The numbers of a .npy of format 1.0 (NumPy's numpy.lib.format), float32 [n_rows, k] in C's order. */
static enum lb_status read_npy(const unsigned char *npy, size_t len, int64_t n_rows, int64_t k, float *out,
                               struct lb_detail *detail) {
    char header[256], shape[64];
    size_t n = len >= NPY_FIXED ? (size_t)npy[8] | (size_t)npy[9] << 8 : 0;
    size_t bytes = (size_t)(n_rows * k) * sizeof *out;
    if (len < NPY_FIXED || memcmp(npy, NPY_MAGIC, 6) != 0 || npy[6] != 1 || n >= sizeof header ||
        NPY_FIXED + n > len) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": prompt_token_id_logprobs is no .npy of format 1.0");
    }
    memcpy(header, npy + NPY_FIXED, n);
    header[n] = '\0';
    snprintf(shape, sizeof shape, "(%lld, %lld)", (long long)n_rows, (long long)k);
    if (!strstr(header, "'<f4'") || !strstr(header, "'fortran_order': False") || !strstr(header, shape) ||
        len - NPY_FIXED - n != bytes) {
        return lb_fail(detail, LB_E_FORMAT,
                       WHAT ": prompt_token_id_logprobs is not float32 of shape %s, which was asked for",
                       shape);
    }
    memcpy(out, npy + NPY_FIXED + n, bytes);
    return LB_OK;
}

enum lb_status lb_vllm_gather_read(const void *body, size_t len, int64_t n_rows, int64_t k, float *out,
                                   struct lb_detail *detail) {
    json_t *root = NULL;
    const char *text = NULL;
    unsigned char *npy = NULL;
    size_t n = 0;
    enum lb_status status = lb_json_parse_loose(body, len, LB_MAX_JSON_DEPTH, WHAT, &root, detail);
    if (status == LB_OK) {
        status = lb_json_str(root, "prompt_token_id_logprobs", false, WHAT, &text, detail);
    }
    if (status == LB_OK && !text) {
        status = lb_fail(detail, LB_E_FORMAT,
                         WHAT " has no prompt_token_id_logprobs: the server is older than vLLM 0.30, or does "
                              "not score chosen ids");
    }
    if (status == LB_OK && !(npy = lb_malloc_array(strlen(text) / 4 * 3 + 4, 1))) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for an answer of this length");
    }
    if (status == LB_OK && !lb_base64_bytes(text, strlen(text), npy, &n)) {
        status = lb_fail(detail, LB_E_FORMAT, WHAT ": prompt_token_id_logprobs is no base64");
    }
    status = status != LB_OK ? status : read_npy(npy, n, n_rows, k, out, detail);
    lb_free(npy);
    json_decref(root);
    return status;
}

/* ---- answers: states ---- */

/* Where one input's states lie, by its entry of the metadata. */
static enum lb_status read_span(const json_t *entry, size_t i, size_t len, int64_t n,
                                enum lb_datatype datatype, int64_t width, size_t *out_begin,
                                int64_t *out_width, struct lb_detail *detail) {
    const char *dtype = datatype == LB_DT_FP32 ? "float32" : datatype == LB_DT_FP16 ? "float16" : "bfloat16";
    const char *told = dtype, *order = "little";
    int64_t index = -1, begin = 0, end = 0;
    const json_t *shape = json_object_get(entry, "shape");
    enum lb_status status =
        lb_json_int(entry, "index", true, 0, INT32_MAX, WHAT ": its metadata", &index, detail);
    if (status != LB_OK ||
        (status = lb_json_int(entry, "start", true, 0, INT64_MAX, WHAT ": its metadata", &begin, detail)) !=
            LB_OK ||
        (status = lb_json_int(entry, "end", true, 0, INT64_MAX, WHAT ": its metadata", &end, detail)) !=
            LB_OK ||
        (status = lb_json_str(entry, "embed_dtype", false, WHAT ": its metadata", &told, detail)) != LB_OK ||
        (status = lb_json_str(entry, "endianness", false, WHAT ": its metadata", &order, detail)) != LB_OK) {
        return status;
    }
    if (strcmp(told, dtype) != 0 || (strcmp(order, "little") != 0 && strcmp(order, "native") != 0)) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": states come as %.16s %.16s, asked was %s, little", told,
                       order, dtype);
    }
    int64_t rows = json_array_size(shape) == 2 ? json_integer_value(json_array_get(shape, 0)) : -1;
    int64_t columns = rows >= 0 ? json_integer_value(json_array_get(shape, 1)) : -1;
    if (json_array_size(shape) == 1) {
        return lb_fail(detail, LB_E_FORMAT,
                       WHAT
                       " is one vector a text: start the server so that it gives the state of each token "
                       "(vLLM: --pooler-config '{\"task\":\"token_embed\",\"use_activation\":false}')");
    }
    if (index != (int64_t)i || rows != n || columns < 1 || columns > MAX_WIDTH ||
        (width > 0 && columns != width)) {
        return lb_fail(
            detail, LB_E_FORMAT,
            WHAT ": entry %zu of its metadata is input %lld of shape [%lld, %lld]; asked was input "
                 "%zu of %lld tokens, and states of width %lld (0: any)",
            i, (long long)index, (long long)rows, (long long)columns, i, (long long)n, (long long)width);
    }
    if (end - begin != n * columns * (int64_t)lb_datatype_bytes(datatype) || (uint64_t)end > len) {
        return lb_fail(detail, LB_E_FORMAT,
                       WHAT
                       ": entry %zu of its metadata lies at bytes %lld to %lld of %zu, which is not %lld "
                       "times %lld numbers",
                       i, (long long)begin, (long long)end, len, (long long)n, (long long)columns);
    }
    *out_begin = (size_t)begin;
    *out_width = columns;
    return LB_OK;
}

enum lb_status lb_vllm_states_read(const void *body, size_t len, const char *metadata,
                                   const struct lb_vllm_prompts *prompts, enum lb_datatype datatype,
                                   int64_t width, const void **rows, int64_t *out_width,
                                   struct lb_detail *detail) {
    json_t *root = NULL;
    if (!metadata) {
        return lb_fail(detail, LB_E_FORMAT,
                       WHAT " has no header metadata: the server is older than vLLM 0.20, or something in "
                            "between removes headers");
    }
    enum lb_status status = lb_json_parse(metadata, strlen(metadata), LB_MAX_JSON_DEPTH,
                                          WHAT ": its header metadata", &root, detail);
    const json_t *data = json_object_get(root, "data");
    size_t total = 0;
    if (status == LB_OK && (!json_is_array(data) || json_array_size(data) != prompts->n)) {
        status = lb_fail(detail, LB_E_FORMAT, WHAT " has states of %zu inputs, %zu were asked about",
                         json_array_size(data), prompts->n);
    }
    for (size_t i = 0; i < prompts->n && status == LB_OK; i++) {
        size_t begin = 0;
        status = read_span(json_array_get(data, i), i, len, prompts->all[i].n, datatype, width, &begin,
                           &width, detail);
        if (status == LB_OK && begin != total) {
            status = lb_fail(detail, LB_E_FORMAT,
                             WHAT ": entry %zu of its metadata begins at byte %zu, not %zu", i, begin, total);
        }
        rows[i] = (const char *)body + total;
        total += (size_t)(prompts->all[i].n * width) * lb_datatype_bytes(datatype);
    }
    if (status == LB_OK && total != len) {
        status = lb_fail(detail, LB_E_FORMAT, WHAT " has %zu bytes, its metadata tell of %zu", len, total);
    }
    if (status == LB_OK) {
        *out_width = width;
    }
    json_decref(root);
    return status;
}
