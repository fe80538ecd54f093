#include "trainer/wire/texts.h"

#include "common/base/json.h"
#include "proto/limits.h"

#include <inttypes.h>
#include <string.h>

void lb_texts_ask(const struct lb_teacher_info *info, const struct lb_text_args *args,
                  const struct lb_text_prompt *prompts, int64_t n, struct lb_buf *body) {
    json_t *model = json_string(info->model);
    lb_buf_append_str(body, "{\"model\":");
    if (model == NULL || lb_json_dump(model, JSON_ENCODE_ANY, body) != LB_OK) {
        body->status = LB_E_NOMEM;
    }
    json_decref(model);
    lb_buf_append_str(body, ",\"prompt\":[");
    for (int64_t i = 0; i < n; i++) {
        lb_buf_append_str(body, i > 0 ? ",[" : "[");
        for (int64_t t = 0; t < prompts[i].n; t++) {
            lb_buf_printf(body, "%s%" PRId32, t > 0 ? "," : "", prompts[i].ids[t]);
        }
        lb_buf_append_str(body, "]");
    }
    lb_buf_printf(body,
                  "],\"max_tokens\":%" PRId64 ",\"temperature\":%.17g,\"top_p\":%.17g,\"seed\":%" PRIu64
                  ",\"return_token_ids\":true}",
                  args->max_tokens, args->temperature, args->top_p, args->seed);
}

static enum lb_status read_text(const json_t *choice, const struct lb_teacher_info *info,
                                const struct lb_text_args *args, struct lb_arena *arena, struct lb_text *out,
                                struct lb_detail *detail) {
    const json_t *ids = json_object_get(choice, "token_ids");
    size_t n = json_array_size(ids);
    if (n < 1 || n > (size_t)args->max_tokens) {
        return lb_fail(detail, LB_E_FORMAT, "a text has %zu token_ids, of 1 to %" PRId64, n,
                       args->max_tokens);
    }
    int32_t *to = lb_arena_array(arena, n, sizeof *to);
    if (to == NULL) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a text of %zu tokens", n);
    }
    for (size_t t = 0; t < n; t++) {
        const json_t *id = json_array_get(ids, t);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= (json_int_t)info->vocab_size) {
            return lb_fail(detail, LB_E_FORMAT,
                           "token_ids.%zu of a text is no id of its vocabulary of %" PRId64, t,
                           info->vocab_size);
        }
        to[t] = (int32_t)json_integer_value(id);
    }
    *out = (struct lb_text){to, (int64_t)n};
    return LB_OK;
}

static enum lb_status read_all(const json_t *root, const struct lb_teacher_info *info,
                               const struct lb_text_args *args, int64_t n, struct lb_arena *arena,
                               struct lb_text *out, struct lb_detail *detail) {
    const char *from = json_string_value(json_object_get(root, "system_fingerprint"));
    const json_t *choices = json_object_get(root, "choices");
    if (from == NULL || strcmp(from, info->fingerprint) != 0) {
        return lb_fail(detail, LB_E_MISMATCH, "texts came from model %.12s, asked was %.12s",
                       from != NULL ? from : "?", info->fingerprint);
    }
    if (json_array_size(choices) != (size_t)n) {
        return lb_fail(detail, LB_E_FORMAT, "%zu texts came, asked were %" PRId64, json_array_size(choices),
                       n);
    }
    enum lb_status status = LB_OK;
    for (int64_t i = 0; i < n && status == LB_OK; i++) {
        const json_t *choice = json_array_get(choices, (size_t)i), *index = json_object_get(choice, "index");
        if (!json_is_integer(index) || json_integer_value(index) != i) {
            return lb_fail(detail, LB_E_FORMAT, "the texts are not in their order");
        }
        status = read_text(choice, info, args, arena, &out[i], detail);
    }
    return status;
}

enum lb_status lb_texts_read(const void *body, size_t len, const struct lb_teacher_info *info,
                             const struct lb_text_args *args, int64_t n, struct lb_arena *arena,
                             struct lb_text *out, struct lb_detail *detail) {
    json_t *root = NULL;
    /* A text may hold a NUL: tokens of bytes are written as they come. */
    enum lb_status status = lb_json_parse_loose(body, len, LB_MAX_JSON_DEPTH, "texts", &root, detail);
    status = status == LB_OK ? read_all(root, info, args, n, arena, out, detail) : status;
    json_decref(root);
    return status;
}
