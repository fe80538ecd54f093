#include "proto/openai_ask.h"

#include <stdlib.h>
#include <string.h>

#define WHAT "the answer"
#define NAMED "token_id:"

void lb_openai_ask_scores(struct lb_buf *out, const char *model, const struct lb_vllm_prompts *prompts,
                          int64_t k) {
    struct lb_vllm_writer writer = {.buf = out};
    lb_buf_append_str(out, "{\"model\":");
    lb_vllm_put_text(&writer, model, strlen(model));
    lb_buf_append_str(out, ",\"prompt\":[");
    for (size_t p = 0; p < prompts->n; p++) {
        lb_buf_append_str(out, p > 0 ? ",[" : "[");
        for (int64_t i = 0; i < prompts->all[p].n; i++) {
            lb_buf_printf(out, i > 0 ? ",%d" : "%d", prompts->all[p].ids[i]);
        }
        lb_buf_append_str(out, "]");
    }
    lb_buf_printf(out,
                  "],\"max_tokens\":1,\"temperature\":1,\"echo\":true,\"logprobs\":%lld,"
                  "\"return_tokens_as_token_ids\":true}",
                  (long long)k);
}

/* The id in "token_id:N"; -1: it is none. */
static int32_t id_of(const char *text) {
    size_t skip = sizeof NAMED - 1;
    char *end = NULL;
    if (!text || strncmp(text, NAMED, skip) != 0 || text[skip] < '0' || text[skip] > '9') {
        return -1;
    }
    long id = strtol(text + skip, &end, 10);
    return *end || id > INT32_MAX ? -1 : (int32_t)id;
}

/* One choice's lists, each of the same length. */
struct lists {
    const json_t *tokens, *own, *top;
    size_t p;
    bool named;
};

static enum lb_status find_lists(const json_t *choice, size_t p, const struct lb_vllm_prompt *prompt,
                                 struct lists *out, struct lb_detail *detail) {
    const json_t *all = json_object_get(choice, "logprobs");
    struct lists l = {.tokens = json_object_get(all, "tokens"),
                      .own = json_object_get(all, "token_logprobs"),
                      .top = json_object_get(all, "top_logprobs"),
                      .p = p};
    size_t n = (size_t)prompt->n;
    if (!json_is_array(l.tokens) || !json_is_array(l.own)) {
        return lb_fail(detail, LB_E_FORMAT,
                       WHAT ": choice %zu has no logprobs of the prompt; does the server know echo?", p);
    }
    if (json_array_size(l.own) != n + 1 || json_array_size(l.tokens) != n + 1) {
        return lb_fail(detail, LB_E_FORMAT,
                       WHAT ": choice %zu has logprobs of %zu tokens, the prompt %zu and one is generated", p,
                       json_array_size(l.own), n);
    }
    if (!json_is_null(json_array_get(l.own, 0))) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": token_logprobs[0] of choice %zu is not null", p);
    }
    l.named = id_of(json_string_value(json_array_get(l.tokens, 0))) >= 0;
    for (size_t i = 0; i < n && l.named; i++) {
        const char *text = json_string_value(json_array_get(l.tokens, i));
        if (id_of(text) != prompt->ids[i]) {
            return lb_fail(detail, LB_E_FORMAT,
                           WHAT
                           " is to other prompts: token %zu of choice %zu is %.32s, asked was id %ld; does "
                           "an HTTP cache in between ignore request bodies?",
                           i, p, text ? text : "none", (long)prompt->ids[i]);
        }
    }
    *out = l;
    return LB_OK;
}

/* Room for n entries; false when out of memory. */
static bool place_room(struct lb_vllm_place *place, size_t n, struct lb_arena *arena) {
    place->ids = lb_arena_array(arena, n ? n : 1, sizeof *place->ids);
    place->logprobs = lb_arena_array(arena, n ? n : 1, sizeof *place->logprobs);
    return place->ids && place->logprobs;
}

/* The likeliest at entry i. */
static enum lb_status read_top(const struct lists *l, size_t i, struct lb_arena *arena,
                               struct lb_vllm_place *out, struct lb_detail *detail) {
    const json_t *entry = json_array_get(l->top, i);
    const char *key;
    json_t *value;
    if (!json_is_object(entry)) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": top_logprobs[%zu] of choice %zu is no object", i, l->p);
    }
    if (!place_room(out, json_object_size(entry), arena)) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer of this length");
    }
    json_object_foreach((json_t *)(uintptr_t)entry, key, value) {
        int32_t id = id_of(key);
        if (id < 0 || !json_is_number(value)) {
            return lb_fail(detail, LB_E_FORMAT,
                           WHAT ": top_logprobs[%zu] of choice %zu: \"%.32s\" is no token_id:N with a number",
                           i, l->p, key);
        }
        out->ids[out->n] = id;
        out->logprobs[out->n++] = (float)json_number_value(value);
    }
    return LB_OK;
}

/* Entry i's own token alone. */
static enum lb_status read_own(const struct lists *l, size_t i, int32_t id, struct lb_arena *arena,
                               struct lb_vllm_place *out, struct lb_detail *detail) {
    const json_t *value = json_array_get(l->own, i);
    if (!json_is_number(value)) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": token_logprobs[%zu] of choice %zu is no number", i, l->p);
    }
    if (!place_room(out, 1, arena)) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer of this length");
    }
    out->ids[0] = id;
    out->logprobs[0] = (float)json_number_value(value);
    out->n = 1;
    return LB_OK;
}

static enum lb_status read_choice(const json_t *choice, size_t p, const struct lb_vllm_prompt *prompt,
                                  bool lists, struct lb_arena *arena, struct lb_vllm_scores *out,
                                  bool *out_named, struct lb_detail *detail) {
    struct lists l = {.p = p};
    enum lb_status status = find_lists(choice, p, prompt, &l, detail);
    if (status == LB_OK && lists && !l.named) {
        return lb_fail(detail, LB_E_UNSUPPORTED,
                       WHAT " names tokens by texts, which several tokens share: such lists are not used; a "
                            "server that knows return_tokens_as_token_ids names ids");
    }
    out->n = prompt->n;
    out->places = lb_arena_zarray(arena, (size_t)prompt->n, sizeof *out->places);
    if (status == LB_OK && !out->places) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for an answer of this length");
    }
    for (int64_t t = 0; t < prompt->n && status == LB_OK; t++) {
        if (lists) {
            status = read_top(&l, (size_t)t + 1, arena, &out->places[t], detail);
        } else if (t + 1 < prompt->n) {
            status = read_own(&l, (size_t)t + 1, prompt->ids[t + 1], arena, &out->places[t], detail);
        }
    }
    *out_named = l.named;
    return status;
}

enum lb_status lb_openai_scores_read(const void *body, size_t len, const struct lb_vllm_prompts *prompts,
                                     bool lists, struct lb_arena *arena, struct lb_vllm_scores *out,
                                     bool *out_named, struct lb_detail *detail) {
    json_t *root = NULL;
    enum lb_status status = lb_json_parse_loose(body, len, LB_MAX_JSON_DEPTH, WHAT, &root, detail);
    const json_t *choices = json_object_get(root, "choices");
    size_t n = json_array_size(choices);
    bool named = true;
    struct lb_vllm_scores *scores = lb_arena_zarray(arena, prompts->n, sizeof *scores);
    if (status == LB_OK && n != prompts->n) {
        status = lb_fail(detail, LB_E_FORMAT, WHAT " has %zu choices, %zu prompts were asked about", n,
                         prompts->n);
    }
    if (status == LB_OK && !scores) {
        status = lb_fail(detail, LB_E_NOMEM, "out of memory for an answer of this length");
    }
    for (size_t i = 0; i < prompts->n && status == LB_OK; i++) {
        const json_t *choice = json_array_get(choices, i);
        int64_t at = (int64_t)i;
        bool its = false;
        status = lb_json_int(choice, "index", false, 0, (int64_t)n - 1, WHAT ": choices", &at, detail);
        if (status == LB_OK && scores[at].places) {
            status = lb_fail(detail, LB_E_FORMAT, WHAT ": two choices have index %lld", (long long)at);
        }
        status = status != LB_OK ? status
                                 : read_choice(choice, (size_t)at, &prompts->all[at], lists, arena,
                                               &scores[at], &its, detail);
        named = named && its;
    }
    if (status == LB_OK) {
        memcpy(out, scores, prompts->n * sizeof *out);
        if (out_named) {
            *out_named = named;
        }
    }
    json_decref(root);
    return status;
}
