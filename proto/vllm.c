/* Questions in vLLM's dialect. */
#include "proto/vllm.h"
#include "proto/vllm_read.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WHAT LB_VLLM_WHAT

static enum lb_status out_of_memory(struct lb_detail *detail) {
    return lb_fail(detail, LB_E_NOMEM, "out of memory for this request; try again");
}

/* ---- what is refused ---- */

static const struct lb_vllm_refused refused[] = {{"n", 1},
                                                 {"best_of", 1},
                                                 {"frequency_penalty", 0},
                                                 {"presence_penalty", 0},
                                                 {"repetition_penalty", 1},
                                                 {"no_repeat_ngram_size", 0},
                                                 {"logit_bias", NAN},
                                                 {"suffix", NAN},
                                                 {"use_beam_search", NAN},
                                                 {"min_p", 0},
                                                 {"min_tokens", 0},
                                                 {"min_new_tokens", 0},
                                                 {"truncate_prompt_tokens", NAN},
                                                 {"allowed_token_ids", NAN},
                                                 {"bad_words", NAN},
                                                 {"prompt_embeds", NAN},
                                                 {"response_format", NAN},
                                                 {"structured_outputs", NAN},
                                                 {"guided_json", NAN},
                                                 {"guided_regex", NAN},
                                                 {"guided_choice", NAN},
                                                 {"guided_grammar", NAN},
                                                 {"logits_processors", NAN},
                                                 {"logprob_token_ids", NAN},
                                                 {"kv_transfer_params", NAN},
                                                 {"vllm_xargs", NAN},
                                                 {"max_repetition_pattern_size", 0}};
/* What says how the answer comes, where that can't be chosen. */
static const struct lb_vllm_refused streaming[] = {{"stream", NAN}, {"stream_options", NAN}};
/* Those that /inference/v1/generate understands. */
static const struct lb_vllm_refused gathering[] = {{"prompt_logprob_start", NAN},
                                                   {"prompt_logprob_token_ids", NAN}};

static bool says_nothing(const json_t *value, double neutral) {
    if (json_is_number(value)) {
        return json_number_value(value) == neutral;
    }
    if (json_is_object(value)) {
        const char *type = json_string_value(json_object_get(value, "type"));
        return json_object_size(value) == 0 ||
               (json_object_size(value) == 1 && type && strcmp(type, "text") == 0); /* response_format */
    }
    return json_is_null(value) || json_is_false(value) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_string(value) && json_string_length(value) == 0);
}

enum lb_status lb_vllm_refuse(const json_t *object, const struct lb_vllm_refused *keys, size_t n,
                              struct lb_detail *detail) {
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_object_get(object, keys[i].key);
        if (value && !says_nothing(value, keys[i].neutral)) {
            return lb_fail(detail, LB_E_ARG,
                           WHAT ": %s would change the answer and is not possible here; leave it out",
                           keys[i].key);
        }
    }
    return LB_OK;
}

/* ---- sampling parameters ---- */

/* A count, of which true is 1 and false none. */
static enum lb_status read_logprobs(const json_t *object, const char *key, int64_t min, int64_t max,
                                    int64_t *out, struct lb_detail *detail) {
    const json_t *value = json_object_get(object, key);
    if (json_is_boolean(value)) {
        *out = json_is_true(value) ? 1 : LB_VLLM_NO_LOGPROBS;
        return LB_OK;
    }
    if (json_is_integer(value) && json_integer_value(value) > max) {
        return lb_fail(detail, LB_E_ARG, WHAT ": %s is %lld, which is greater than " LB_VLLM_ALLOWED "%lld",
                       key, (long long)json_integer_value(value), (long long)max);
    }
    return lb_json_int(object, key, false, min, max, WHAT, out, detail);
}

static enum lb_status read_temperature(const json_t *object, double *out, struct lb_detail *detail) {
    enum lb_status status =
        lb_json_number(object, "temperature", false, 0, LB_MAX_TEMPERATURE, WHAT, out, detail);
    if (status == LB_OK && *out > 0 && *out < LB_MIN_TEMPERATURE) {
        return lb_fail(detail, LB_E_ARG, WHAT ": temperature is %g, but must be 0 or in [%g, %g]", *out,
                       LB_MIN_TEMPERATURE, LB_MAX_TEMPERATURE);
    }
    return status;
}

/* Any whole number is a seed. */
static enum lb_status read_seed(const json_t *object, const char *key, struct lb_vllm_sampling *out,
                                struct lb_detail *detail) {
    const json_t *value = json_object_get(object, key);
    int64_t seed = 0;
    enum lb_status status = lb_json_int(object, key, false, INT64_MIN, INT64_MAX, WHAT, &seed, detail);
    if (status == LB_OK && value && !json_is_null(value)) {
        out->has_seed = true;
        out->seed = (uint64_t)seed;
    }
    return status;
}

/* The same count by several names, as different servers call it; two that differ are refused. */
static enum lb_status read_max_tokens(const json_t *object, int64_t *out, struct lb_detail *detail) {
    static const char *const names[] = {"max_tokens", "max_new_tokens", "max_completion_tokens"};
    const char *first = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int64_t n = -1;
        enum lb_status status = lb_json_int(object, names[i], false, 0, INT32_MAX, WHAT, &n, detail);
        if (status != LB_OK) {
            return status;
        }
        if (n >= 0 && first && n != *out) {
            return lb_fail(detail, LB_E_ARG, WHAT ": %s is %lld and %s is %lld; give one of them", names[i],
                           (long long)n, first, (long long)*out);
        }
        first = n >= 0 ? names[i] : first;
        *out = n >= 0 ? n : *out;
    }
    return LB_OK;
}

static enum lb_status read_stops(const json_t *object, struct lb_arena *arena, struct lb_vllm_sampling *out,
                                 struct lb_detail *detail) {
    const json_t *value = json_object_get(object, "stop");
    size_t n = json_is_string(value) ? 1 : json_array_size(value);
    if (!value || json_is_null(value)) {
        return LB_OK;
    }
    if (!json_is_string(value) && !json_is_array(value)) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": stop must be a string or a list of strings");
    }
    if (n > LB_VLLM_MAX_STOPS) {
        return lb_fail(detail, LB_E_ARG, WHAT ": stop has %zu strings; at most %d are possible", n,
                       LB_VLLM_MAX_STOPS);
    }
    out->stops = lb_arena_array(arena, n, sizeof *out->stops);
    out->n_stops = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *stop = json_is_string(value) ? value : json_array_get(value, i);
        if (!json_is_string(stop) || json_string_length(stop) == 0) {
            return lb_fail(detail, LB_E_FORMAT, WHAT ": stop %zu must be a string that is not empty", i);
        }
        const char *copy = lb_arena_strdup(arena, json_string_value(stop));
        if (!copy || !out->stops) {
            return out_of_memory(detail);
        }
        out->stops[out->n_stops++] = copy;
    }
    return LB_OK;
}

enum lb_status lb_vllm_read_ids(const json_t *list, const char *name, struct lb_arena *arena,
                                const int32_t **out, int64_t *out_n, struct lb_detail *detail) {
    size_t n = json_array_size(list);
    int32_t *ids = lb_arena_array(arena, n, sizeof *ids);
    if (n > 0 && !ids) {
        return out_of_memory(detail);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX) {
            return lb_fail(detail, LB_E_FORMAT, WHAT ": %s[%zu] is no token id (a whole number from 0 on)",
                           name, i);
        }
        ids[i] = (int32_t)json_integer_value(id);
    }
    *out = ids;
    *out_n = (int64_t)n;
    return LB_OK;
}

static enum lb_status read_stop_ids(const json_t *object, struct lb_arena *arena,
                                    struct lb_vllm_sampling *out, struct lb_detail *detail) {
    const json_t *value = json_object_get(object, "stop_token_ids");
    int64_t n = 0;
    if (!value || json_is_null(value)) {
        return LB_OK;
    }
    if (!json_is_array(value)) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": stop_token_ids must be a list of token ids");
    }
    if (json_array_size(value) > LB_VLLM_MAX_STOP_IDS) {
        return lb_fail(detail, LB_E_ARG, WHAT ": stop_token_ids has %zu ids; at most %d are possible",
                       json_array_size(value), LB_VLLM_MAX_STOP_IDS);
    }
    enum lb_status status = lb_vllm_read_ids(value, "stop_token_ids", arena, &out->stop_ids, &n, detail);
    out->n_stop_ids = status == LB_OK ? (size_t)n : 0;
    return status;
}

enum lb_status lb_vllm_read_draw(const json_t *object, const char *seed, struct lb_arena *arena,
                                 struct lb_vllm_sampling *out, struct lb_detail *detail) {
    int64_t top_k = out->top_k;
    enum lb_status status = read_temperature(object, &out->temperature, detail);
    if (status != LB_OK ||
        (status = lb_json_number(object, "top_p", false, 0, 1, WHAT, &out->top_p, detail)) != LB_OK ||
        (status = lb_json_int(object, "top_k", false, -1, INT32_MAX, WHAT, &top_k, detail)) != LB_OK ||
        (status = read_seed(object, seed, out, detail)) != LB_OK ||
        (status = lb_json_bool(object, "skip_special_tokens", false, WHAT, &out->skip_special, detail)) !=
            LB_OK ||
        (status = lb_json_bool(object, "ignore_eos", false, WHAT, &out->ignore_eos, detail)) != LB_OK ||
        (status = read_stops(object, arena, out, detail)) != LB_OK ||
        (status = read_stop_ids(object, arena, out, detail)) != LB_OK) {
        return status;
    }
    out->top_k = top_k > 0 ? top_k : 0;
    if (out->top_p <= 0) {
        return lb_fail(detail, LB_E_ARG, WHAT ": top_p is 0, but must be in (0, 1]");
    }
    return LB_OK;
}

/* What object says; what it doesn't stays as it is. */
static enum lb_status read_sampling(const json_t *object, bool gathers, bool streams, struct lb_arena *arena,
                                    struct lb_vllm_sampling *out, struct lb_detail *detail) {
    enum lb_status status = lb_vllm_refuse(object, refused, sizeof refused / sizeof *refused, detail);
    if (status == LB_OK && !streams) {
        status = lb_vllm_refuse(object, streaming, sizeof streaming / sizeof *streaming, detail);
    }
    if (status == LB_OK && !gathers) {
        status = lb_vllm_refuse(object, gathering, sizeof gathering / sizeof *gathering, detail);
    }
    if (status != LB_OK || (status = read_max_tokens(object, &out->max_tokens, detail)) != LB_OK ||
        (status = read_logprobs(object, "logprobs", 0, LB_VLLM_MAX_LOGPROBS, &out->logprobs, detail)) !=
            LB_OK ||
        (status = read_logprobs(object, "prompt_logprobs", LB_VLLM_ALL_LOGPROBS, LB_MAX_TOP_K,
                                &out->prompt_logprobs, detail)) != LB_OK ||
        (status = lb_json_bool(object, "include_stop_str_in_output", false, WHAT, &out->include_stop,
                               detail)) != LB_OK) {
        return status;
    }
    return lb_vllm_read_draw(object, "seed", arena, out, detail);
}

enum lb_status lb_vllm_read_sampling(const json_t *root, bool gathers, struct lb_arena *arena,
                                     struct lb_vllm_sampling *out, struct lb_detail *detail) {
    json_t *inner = json_object_get(root, "sampling_params"), *value;
    const char *key;
    *out = (struct lb_vllm_sampling){.max_tokens = 16,
                                     .logprobs = LB_VLLM_NO_LOGPROBS,
                                     .prompt_logprobs = LB_VLLM_NO_LOGPROBS,
                                     .temperature = 1,
                                     .top_p = 1,
                                     .skip_special = true};
    if (inner && !json_is_null(inner)) {
        if (!json_is_object(inner)) {
            return lb_fail(detail, LB_E_FORMAT, WHAT ": sampling_params must be an object");
        }
        json_object_foreach(inner, key, value) {
            const json_t *outer = json_object_get(root, key);
            if (outer && !json_equal(outer, value)) {
                return lb_fail(detail, LB_E_ARG,
                               WHAT ": %.64s says something else in sampling_params; give it once", key);
            }
        }
        enum lb_status status = read_sampling(inner, gathers, false, arena, out, detail);
        if (status != LB_OK) {
            return status;
        }
    }
    return read_sampling(root, gathers, !gathers, arena, out, detail);
}

/* ---- prompts ---- */

static enum lb_status read_text(const json_t *value, const char *key, size_t i, struct lb_arena *arena,
                                struct lb_vllm_prompt *out, struct lb_detail *detail) {
    if (json_string_length(value) == 0) {
        return lb_fail(detail, LB_E_ARG, WHAT ": %s %zu is empty", key, i);
    }
    out->text = lb_arena_strdup(arena, json_string_value(value));
    return out->text ? LB_OK : out_of_memory(detail);
}

/* One text, or one list of ids. */
static enum lb_status read_prompt(const json_t *value, const char *key, size_t i, struct lb_arena *arena,
                                  struct lb_vllm_prompt *out, struct lb_detail *detail) {
    *out = (struct lb_vllm_prompt){0};
    if (json_is_string(value)) {
        return read_text(value, key, i, arena, out, detail);
    }
    if (!json_is_array(value)) {
        return lb_fail(detail, LB_E_FORMAT,
                       WHAT ": %s must be a string, a list of token ids, or a list of such; entry %zu is "
                            "none of them",
                       key, i);
    }
    if (json_array_size(value) == 0) {
        return lb_fail(detail, LB_E_ARG, WHAT ": %s %zu is empty", key, i);
    }
    return lb_vllm_read_ids(value, key, arena, &out->ids, &out->n, detail);
}

enum lb_status lb_vllm_read_prompts(const json_t *root, const char *key, struct lb_arena *arena,
                                    struct lb_vllm_prompts *out, struct lb_detail *detail) {
    const json_t *value = json_object_get(root, key);
    const json_t *first = json_array_get(value, 0);
    bool one = json_is_string(value) || json_is_integer(first);
    size_t n = one ? 1 : json_array_size(value);
    if (!value || json_is_null(value)) {
        return lb_fail(detail, LB_E_ARG, WHAT ": %s is missing", key);
    }
    if (n > LB_MAX_SEQUENCES) {
        return lb_fail(detail, LB_E_LIMIT, WHAT ": %s has %zu entries; one request takes at most %d", key, n,
                       LB_MAX_SEQUENCES);
    }
    if (n == 0) {
        return lb_fail(detail, LB_E_FORMAT,
                       WHAT ": %s must be a string, a list of token ids, or a list of such that is not empty",
                       key);
    }
    struct lb_vllm_prompt *all = lb_arena_array(arena, n, sizeof *all);
    enum lb_status status = all ? LB_OK : out_of_memory(detail);
    for (size_t i = 0; i < n && status == LB_OK; i++) {
        status = read_prompt(one ? value : json_array_get(value, i), key, i, arena, &all[i], detail);
    }
    *out = (struct lb_vllm_prompts){key, n, all};
    return status;
}

/* ---- the whole ---- */

enum lb_status lb_vllm_read_string(const json_t *root, const char *key, struct lb_arena *arena,
                                   const char **out, struct lb_detail *detail) {
    const char *text = NULL;
    enum lb_status status = lb_json_str(root, key, false, WHAT, &text, detail);
    *out = text ? lb_arena_strdup(arena, text) : NULL;
    return status == LB_OK && text && !*out ? out_of_memory(detail) : status;
}

enum lb_status lb_vllm_read_id(const json_t *root, struct lb_arena *arena, const char **out,
                               struct lb_detail *detail) {
    size_t len = json_string_length(json_object_get(root, "request_id"));
    if (len > LB_MAX_ID) {
        return lb_fail(detail, LB_E_ARG, WHAT ": request_id has %zu bytes; at most %d are possible", len,
                       LB_MAX_ID);
    }
    return lb_vllm_read_string(root, "request_id", arena, out, detail);
}

static enum lb_status read_streaming(const json_t *root, struct lb_vllm_completion *out,
                                     struct lb_detail *detail) {
    const json_t *options = json_object_get(root, "stream_options");
    enum lb_status status = lb_json_bool(root, "stream", false, WHAT, &out->stream, detail);
    if (status != LB_OK || !options || json_is_null(options)) {
        return status;
    }
    if (!json_is_object(options)) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": stream_options must be an object");
    }
    if (!out->stream && json_object_size(options) > 0) {
        return lb_fail(detail, LB_E_ARG, WHAT ": stream_options needs stream: true");
    }
    status = lb_json_bool(options, "include_usage", false, WHAT, &out->usage, detail);
    if (status == LB_OK) {
        status = lb_json_bool(options, "continuous_usage_stats", false, WHAT, &out->each_usage, detail);
    }
    out->each_usage &= out->usage;
    return status;
}

static enum lb_status read_completion(const json_t *root, struct lb_arena *arena,
                                      struct lb_vllm_completion *out, struct lb_detail *detail) {
    enum lb_status status = lb_vllm_read_sampling(root, false, arena, &out->sampling, detail);
    if (status != LB_OK ||
        (status = lb_vllm_read_string(root, "model", arena, &out->model, detail)) != LB_OK ||
        (status = lb_vllm_read_id(root, arena, &out->request_id, detail)) != LB_OK ||
        (status = read_streaming(root, out, detail)) != LB_OK ||
        (status = lb_json_bool(root, "echo", false, WHAT, &out->echo, detail)) != LB_OK ||
        (status = lb_json_bool(root, "add_special_tokens", false, WHAT, &out->add_special, detail)) !=
            LB_OK ||
        (status = lb_json_bool(root, "return_token_ids", false, WHAT, &out->return_token_ids, detail)) !=
            LB_OK ||
        (status = lb_json_bool(root, "return_tokens_as_token_ids", false, WHAT, &out->tokens_as_ids,
                               detail)) != LB_OK ||
        (status = lb_json_int(root, "priority", false, INT32_MIN, INT32_MAX, WHAT, &out->priority, detail)) !=
            LB_OK) {
        return status;
    }
    if (out->stream && out->sampling.prompt_logprobs != LB_VLLM_NO_LOGPROBS) {
        return lb_fail(detail, LB_E_ARG,
                       WHAT ": prompt_logprobs are not told with stream; leave one of them out");
    }
    return lb_vllm_read_prompts(root, "prompt", arena, &out->prompts, detail);
}

enum lb_status lb_vllm_parse(const void *body, size_t len, json_t **out, struct lb_detail *detail) {
    json_t *root = NULL;
    if (len > LB_MAX_JSON_BYTES) {
        return lb_fail(detail, LB_E_LIMIT, "request: %zu bytes of JSON; at most %u are possible", len,
                       LB_MAX_JSON_BYTES);
    }
    enum lb_status status = lb_json_parse(body, len, LB_MAX_JSON_DEPTH, WHAT, &root, detail);
    if (status == LB_OK && !json_is_object(root)) {
        json_decref(root);
        return lb_fail(detail, LB_E_FORMAT, "request: expected a JSON object");
    }
    *out = root;
    return status;
}

enum lb_status lb_vllm_completion_decode(const void *body, size_t len, struct lb_arena *arena,
                                         struct lb_vllm_completion *out, struct lb_detail *detail) {
    struct lb_vllm_completion request = {.add_special = true};
    json_t *root = NULL;
    enum lb_status status = lb_vllm_parse(body, len, &root, detail);
    if (status == LB_OK) {
        status = read_completion(root, arena, &request, detail);
        json_decref(root);
    }
    if (status == LB_OK) {
        *out = request;
    }
    return status;
}

/* Keys that errors may name, beside those that are refused. */
static const char *const known[] = {"model",
                                    "prompt",
                                    "echo",
                                    "logprobs",
                                    "prompt_logprobs",
                                    "max_tokens",
                                    "max_new_tokens",
                                    "max_completion_tokens",
                                    "temperature",
                                    "top_p",
                                    "top_k",
                                    "seed",
                                    "stop",
                                    "stop_token_ids",
                                    "skip_special_tokens",
                                    "ignore_eos",
                                    "include_stop_str_in_output",
                                    "add_special_tokens",
                                    "return_token_ids",
                                    "return_tokens_as_token_ids",
                                    "request_id",
                                    "priority",
                                    "sampling_params",
                                    "messages",
                                    "tokens",
                                    "return_token_strs",
                                    "add_generation_prompt",
                                    "chat_template",
                                    "chat_template_kwargs",
                                    "continue_final_message",
                                    "mm_processor_kwargs",
                                    "input",
                                    "encoding_format",
                                    "embed_dtype",
                                    "endianness",
                                    "task",
                                    "use_activation",
                                    "normalize",
                                    "token_ids",
                                    "features",
                                    "dimensions"};

static bool is_among(const char *word, const struct lb_vllm_refused *keys, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(word, keys[i].key) == 0) {
            return true;
        }
    }
    return false;
}

bool lb_vllm_error_key(const char *text, char out[LB_MAX_NAME]) {
    static const char begin[] = WHAT ": ";
    if (strncmp(text, begin, strlen(begin)) != 0) {
        return false;
    }
    text += strlen(begin);
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz_");
    if (n == 0 || n >= LB_MAX_NAME) {
        return false;
    }
    char word[LB_MAX_NAME] = "";
    memcpy(word, text, n);
    bool found = is_among(word, refused, sizeof refused / sizeof *refused) ||
                 is_among(word, streaming, sizeof streaming / sizeof *streaming) ||
                 is_among(word, gathering, sizeof gathering / sizeof *gathering);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        found = found || strcmp(word, known[i]) == 0;
    }
    if (found) {
        memcpy(out, word, n + 1);
    }
    return found;
}
