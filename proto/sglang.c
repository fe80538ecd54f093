/* Questions in SGLang's dialect. */
#include "proto/sglang.h"

#include "proto/vllm_read.h"

#include <math.h>
#include <string.h>

#define WHAT LB_VLLM_WHAT
#define POSITIONS "token_ids_logprob_positions"

/* Of the request. */
static const struct lb_vllm_refused refused[] = {{"input_embeds", NAN},
                                                 {"image_data", NAN},
                                                 {"video_data", NAN},
                                                 {"audio_data", NAN},
                                                 {"return_hidden_states", NAN},
                                                 {"return_entropy", NAN},
                                                 {"return_sampling_mask", NAN},
                                                 {"return_routed_experts", NAN},
                                                 {"return_indexer_topk", NAN},
                                                 {"session_params", NAN},
                                                 {"lora_path", NAN},
                                                 {"custom_logit_processor", NAN},
                                                 {"positional_embed_overrides", NAN},
                                                 {"multi_item_delimiter_indices", NAN},
                                                 {"max_thinking_tokens", NAN}};
/* Of sampling_params. */
static const struct lb_vllm_refused refused_params[] = {{"n", 1},
                                                        {"min_p", 0},
                                                        {"min_new_tokens", 0},
                                                        {"frequency_penalty", 0},
                                                        {"presence_penalty", 0},
                                                        {"repetition_penalty", 1},
                                                        {"beam_width", 1},
                                                        {"logit_bias", NAN},
                                                        {"json_schema", NAN},
                                                        {"regex", NAN},
                                                        {"ebnf", NAN},
                                                        {"structural_tag", NAN},
                                                        {"stop_regex", NAN},
                                                        {"custom_params", NAN}};

static enum lb_status out_of_memory(struct lb_detail *detail) {
    return lb_fail(detail, LB_E_NOMEM, "out of memory for this request; try again");
}

static bool given(const json_t *root, const char *key) {
    const json_t *value = json_object_get(root, key);
    return value && !json_is_null(value);
}

/* ---- prompts ---- */

static enum lb_status read_prompts(const json_t *root, struct lb_arena *arena, struct lb_sglang_generate *out,
                                   struct lb_detail *detail) {
    bool text = given(root, "text");
    const char *key = text ? "text" : "input_ids";
    if (text == given(root, "input_ids")) {
        return lb_fail(detail, LB_E_ARG,
                       text ? WHAT ": text and input_ids are both there; give one of them"
                            : WHAT ": text or input_ids is missing");
    }
    const json_t *value = json_object_get(root, key);
    enum lb_status status = lb_vllm_read_prompts(root, key, arena, &out->prompts, detail);
    for (size_t i = 0; status == LB_OK && i < out->prompts.n; i++) {
        if (text != (out->prompts.all[i].text != NULL)) {
            return lb_fail(detail, LB_E_FORMAT, WHAT ": %s %zu must be %s", key, i,
                           text ? "a string; ids are input_ids" : "a list of token ids; strings are text");
        }
    }
    out->batch = !json_is_string(value) && !json_is_integer(json_array_get(value, 0));
    return status;
}

/* A name for each prompt, or one for all. */
static enum lb_status read_rids(const json_t *root, struct lb_arena *arena, struct lb_sglang_generate *out,
                                struct lb_detail *detail) {
    const json_t *value = json_object_get(root, "rid");
    size_t n = out->prompts.n;
    if (!value || json_is_null(value)) {
        return LB_OK;
    }
    if (!json_is_string(value) && (!out->batch || json_array_size(value) != n)) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": rid must be a string%s",
                       out->batch ? ", or a list of one for each prompt" : "");
    }
    const char **rids = lb_arena_zarray(arena, n, sizeof *rids);
    for (size_t i = 0; i < (json_is_string(value) ? 1 : n); i++) {
        const json_t *rid = json_is_string(value) ? value : json_array_get(value, i);
        if (!json_is_string(rid) || json_string_length(rid) > LB_MAX_ID) {
            return lb_fail(detail, LB_E_FORMAT, WHAT ": rid must be of strings of at most %d bytes",
                           LB_MAX_ID);
        }
        const char *copy = lb_arena_strdup(arena, json_string_value(rid));
        if (!copy || !rids) {
            return out_of_memory(detail);
        }
        rids[i] = copy;
    }
    out->rid = json_is_string(value) ? rids[0] : NULL;
    out->rids = json_is_string(value) ? NULL : rids;
    return LB_OK;
}

/* ---- sampling parameters ---- */

/* An object, or a list of one for each prompt, which must be alike. */
static enum lb_status read_sampling(const json_t *root, struct lb_arena *arena,
                                    struct lb_sglang_generate *out, struct lb_detail *detail) {
    static const char key[] = "sampling_params";
    const json_t *value = json_object_get(root, key);
    struct lb_vllm_sampling *sampling = &out->sampling;
    *sampling = (struct lb_vllm_sampling){.max_tokens = 128,
                                          .logprobs = LB_VLLM_NO_LOGPROBS,
                                          .prompt_logprobs = LB_VLLM_NO_LOGPROBS,
                                          .temperature = 1,
                                          .plain = true,
                                          .top_p = 1,
                                          .skip_special = true};
    if (!value || json_is_null(value)) {
        return LB_OK;
    }
    if (json_is_array(value) && (!out->batch || json_array_size(value) != out->prompts.n)) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": sampling_params must be an object%s",
                       out->batch ? ", or a list of one for each prompt" : "");
    }
    const json_t *object = json_is_array(value) ? json_array_get(value, 0) : value;
    for (size_t i = 1; i < json_array_size(value); i++) {
        if (!json_equal(object, json_array_get(value, i))) {
            return lb_fail(detail, LB_E_ARG,
                           WHAT ": sampling_params differ between the prompts; send them apart");
        }
    }
    if (!json_is_object(object)) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": sampling_params must be an object");
    }
    enum lb_status status =
        lb_vllm_refuse(object, refused_params, sizeof refused_params / sizeof *refused_params, detail);
    if (status != LB_OK ||
        (status = lb_json_int(object, "max_new_tokens", false, 0, INT32_MAX, WHAT, &sampling->max_tokens,
                              detail)) != LB_OK ||
        (status = lb_json_bool(object, "no_stop_trim", false, WHAT, &sampling->include_stop, detail)) !=
            LB_OK) {
        return status;
    }
    return lb_vllm_read_draw(object, "sampling_seed", arena, sampling, detail);
}

/* ---- log-probabilities ---- */

/* What holds for prompt i: all alike, or a list of one for each. NULL: not given. */
static enum lb_status value_of(const json_t *root, const char *key, const struct lb_sglang_generate *request,
                               size_t i, const json_t **out, struct lb_detail *detail) {
    const json_t *value = json_object_get(root, key);
    if (json_is_array(value)) {
        if (!request->batch || json_array_size(value) != request->prompts.n) {
            return lb_fail(detail, LB_E_FORMAT, WHAT ": %s has %zu entries, and there are %zu prompts", key,
                           json_array_size(value), request->prompts.n);
        }
        value = json_array_get(value, i);
    }
    *out = json_is_null(value) ? NULL : value;
    return LB_OK;
}

static enum lb_status read_count(const json_t *root, const char *key,
                                 const struct lb_sglang_generate *request, size_t i, int64_t min, int64_t max,
                                 int64_t *out, struct lb_detail *detail) {
    const json_t *value = NULL;
    enum lb_status status = value_of(root, key, request, i, &value, detail);
    if (status == LB_OK && value &&
        (!json_is_integer(value) || json_integer_value(value) < min || json_integer_value(value) > max)) {
        return lb_fail(detail, LB_E_ARG, WHAT ": %s must be an integer in [%lld, %lld]", key, (long long)min,
                       (long long)max);
    }
    *out = status == LB_OK && value ? json_integer_value(value) : *out;
    return status;
}

/* A list of ids, which stands for all prompts, or a list of such. */
static enum lb_status read_chosen(const json_t *root, const struct lb_sglang_generate *request, size_t i,
                                  struct lb_arena *arena, struct lb_sglang_ids *out,
                                  struct lb_detail *detail) {
    static const char key[] = "token_ids_logprob";
    const json_t *value = json_object_get(root, key);
    if (json_is_array(json_array_get(value, 0))) {
        enum lb_status status = value_of(root, key, request, i, &value, detail);
        if (status != LB_OK) {
            return status;
        }
    }
    if (!value || json_is_null(value)) {
        return LB_OK;
    }
    if (!json_is_array(value) || json_array_size(value) > LB_MAX_SCORE_IDS) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": %s must be a list of at most %d token ids", key,
                       LB_MAX_SCORE_IDS);
    }
    return lb_vllm_read_ids(value, key, arena, &out->ids, &out->n, detail);
}

/* A list of ids for each token of the prompt. */
static enum lb_status read_positions(const json_t *root, const struct lb_sglang_generate *request, size_t i,
                                     struct lb_arena *arena, struct lb_sglang_scores *out,
                                     struct lb_detail *detail) {
    const json_t *value = json_object_get(root, POSITIONS);
    if (!value || json_is_null(value)) {
        return LB_OK;
    }
    if (request->batch) {
        enum lb_status status = value_of(root, POSITIONS, request, i, &value, detail);
        if (status != LB_OK || !value) {
            return status;
        }
    }
    size_t n = json_array_size(value);
    struct lb_sglang_ids *positions = lb_arena_zarray(arena, n, sizeof *positions);
    if (!json_is_array(value) || n == 0) {
        return lb_fail(detail, LB_E_FORMAT,
                       WHAT ": " POSITIONS " must hold a list of token ids for each token of a prompt");
    }
    if (!positions) {
        return out_of_memory(detail);
    }
    for (size_t t = 0; t < n; t++) {
        const json_t *list = json_array_get(value, t);
        if (!json_is_array(list) || json_array_size(list) > LB_MAX_SCORE_IDS) {
            return lb_fail(detail, LB_E_FORMAT,
                           WHAT ": " POSITIONS "[%zu] must be a list of at most %d token ids", t,
                           LB_MAX_SCORE_IDS);
        }
        enum lb_status status =
            lb_vllm_read_ids(list, POSITIONS, arena, &positions[t].ids, &positions[t].n, detail);
        if (status != LB_OK) {
            return status;
        }
    }
    out->positions = positions;
    out->n_positions = (int64_t)n;
    return LB_OK;
}

static enum lb_status read_scores(const json_t *root, size_t i, struct lb_arena *arena,
                                  const struct lb_sglang_generate *request, struct lb_sglang_scores *out,
                                  struct lb_detail *detail) {
    const json_t *asked = NULL;
    *out = (struct lb_sglang_scores){.start = LB_SGLANG_NO_START};
    enum lb_status status = value_of(root, "return_logprob", request, i, &asked, detail);
    if (status == LB_OK && asked && !json_is_boolean(asked)) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": return_logprob must be true or false");
    }
    if (status != LB_OK || !json_is_true(asked)) {
        return status; /* what else is said of them says nothing */
    }
    out->asked = true;
    if ((status = read_count(root, "logprob_start_len", request, i, LB_SGLANG_NO_START, INT32_MAX,
                             &out->start, detail)) != LB_OK ||
        (status = read_count(root, "top_logprobs_num", request, i, 0, LB_MAX_TOP_K, &out->top_k, detail)) !=
            LB_OK ||
        (status = read_chosen(root, request, i, arena, &out->ids, detail)) != LB_OK) {
        return status;
    }
    status = read_positions(root, request, i, arena, out, detail);
    if (status == LB_OK && out->positions && out->ids.n > 0) {
        return lb_fail(detail, LB_E_ARG,
                       WHAT ": " POSITIONS " and token_ids_logprob are both there; give one of them");
    }
    return status;
}

/* ---- the whole ---- */

static enum lb_status read_request(const json_t *root, struct lb_arena *arena, struct lb_sglang_generate *out,
                                   struct lb_detail *detail) {
    enum lb_status status = lb_vllm_refuse(root, refused, sizeof refused / sizeof *refused, detail);
    if (status != LB_OK || (status = read_prompts(root, arena, out, detail)) != LB_OK ||
        (status = lb_vllm_read_string(root, "model", arena, &out->model, detail)) != LB_OK ||
        (status = read_rids(root, arena, out, detail)) != LB_OK ||
        (status = read_sampling(root, arena, out, detail)) != LB_OK ||
        (status = lb_json_bool(root, "return_text_in_logprobs", false, WHAT, &out->texts, detail)) != LB_OK ||
        (status = lb_json_bool(root, "return_flat_raw_top_logprobs", false, WHAT, &out->flat, detail)) !=
            LB_OK ||
        (status = lb_json_bool(root, "return_flat_raw_top_logprobs_b64", false, WHAT, &out->base64,
                               detail)) != LB_OK ||
        (status = lb_json_bool(root, "return_prompt_token_ids", false, WHAT, &out->return_prompt_ids,
                               detail)) != LB_OK ||
        (status = lb_json_bool(root, "stream", false, WHAT, &out->stream, detail)) != LB_OK ||
        (status = lb_json_int(root, "priority", false, INT32_MIN, INT32_MAX, WHAT, &out->priority, detail)) !=
            LB_OK) {
        return status;
    }
    if (out->base64 && !out->flat) {
        return lb_fail(detail, LB_E_ARG,
                       WHAT ": return_flat_raw_top_logprobs_b64 needs return_flat_raw_top_logprobs");
    }
    out->scores = lb_arena_zarray(arena, out->prompts.n, sizeof *out->scores);
    status = out->scores ? LB_OK : out_of_memory(detail);
    for (size_t i = 0; status == LB_OK && i < out->prompts.n; i++) {
        status = read_scores(root, i, arena, out, &out->scores[i], detail);
    }
    return status;
}

enum lb_status lb_sglang_generate_decode(const void *body, size_t len, struct lb_arena *arena,
                                         struct lb_sglang_generate *out, struct lb_detail *detail) {
    struct lb_sglang_generate request = {0};
    json_t *root = NULL;
    enum lb_status status = lb_vllm_parse(body, len, &root, detail);
    if (status == LB_OK) {
        status = read_request(root, arena, &request, detail);
        json_decref(root);
    }
    if (status == LB_OK) {
        *out = request;
    }
    return status;
}
