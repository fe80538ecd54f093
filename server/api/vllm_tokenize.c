/* POST /tokenize and /detokenize, GET /tokenizer_info: the model's tokenizer as vLLM serves it. */
#include "server/api/vllm.h"

#include "common/base/mem.h"
#include "common/chat/template.h"
#include "common/text/beside.h"
#include "server/api/reply.h"
#include "server/api/submit.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define WHAT "request"

static enum lb_status out_of_memory(struct lb_detail *detail) {
    return lb_fail(detail, LB_E_NOMEM, "out of memory for this request; try again");
}

/* The body, an object, and the model that it names; false after an error, and *out is NULL then. */
static bool open_request(struct lb_server *server, struct lb_exchange *x, json_t **out) {
    struct lb_detail detail = {0};
    const char *model = NULL;
    const char *body = x->body.data ? x->body.data : "";
    *out = NULL;
    if (!lb_submit_hold(server, x,
                        lb_submit_decoding_bytes(body, x->body.len, -1) + x->body.len * LB_VLLM_WORK_BYTES)) {
        return false;
    }
    enum lb_status status = lb_visit_object(x, out, &detail);
    if (status == LB_OK && !*out) {
        status = lb_fail(&detail, LB_E_FORMAT, WHAT ": empty, where a JSON object is expected");
    }
    if (status == LB_OK) {
        status = lb_json_str(*out, "model", false, WHAT, &model, &detail);
    }
    if (status != LB_OK) {
        lb_reply_fail(x, status, &detail);
    } else if (lb_vllm_find_model(x, model) && lb_vllm_need_tokenizer(x)) {
        return true;
    }
    json_decref(*out);
    *out = NULL;
    return false;
}

/* ---- texts ---- */

/* A conversation as the model's chat template writes it. What people wrote in it becomes no special token. */
static enum lb_status render(const struct lb_tokenizer *tokenizer, const json_t *request,
                             struct lb_chat_text *out, struct lb_detail *detail) {
    const char *own = lb_tokenizer_chat_template(tokenizer), *key;
    struct lb_chat_template *template = NULL;
    json_t *data = json_object(), *words = json_object(), *value;
    bool generate = true, ok = data && words && lb_beside_put_own(tokenizer, words);
    time_t now = time(NULL);
    struct tm local;
    enum lb_status status = lb_json_bool(request, "add_generation_prompt", false, WHAT, &generate, detail);
    if (status == LB_OK && !own) {
        status = lb_fail(detail, LB_E_ARG, WHAT ": messages: the model's tokenizer has no chat template");
    }
    if (status == LB_OK) {
        status = lb_chat_template_parse(own, strlen(own), "the model's chat template", &template, detail);
    }
    json_object_foreach(json_object_get(request, "chat_template_kwargs"), key, value) {
        ok = ok && json_object_set(data, key, value) == 0;
    }
    value = json_object_get(request, "tools");
    ok = ok && (!value || json_object_set(data, "tools", value) == 0) &&
         json_object_set(data, "messages", json_object_get(request, "messages")) == 0 &&
         json_object_set_new(data, "add_generation_prompt", json_boolean(generate)) == 0;
    if (status == LB_OK && !ok) {
        status = out_of_memory(detail);
    }
    const struct lb_chat_input input = {data, words, localtime_r(&now, &local)};
    if (status == LB_OK) {
        status = lb_chat_template_render(template, &input, out, detail);
    }
    lb_chat_template_destroy(template);
    json_decref(data);
    json_decref(words);
    return status;
}

/* What a conversation can't be given here. */
static enum lb_status check_chat(const json_t *request, struct lb_detail *detail) {
    static const char *const refused[] = {"chat_template", "continue_final_message", "mm_processor_kwargs",
                                          "add_special_tokens"};
    const json_t *messages = json_object_get(request, "messages");
    const json_t *words = json_object_get(request, "chat_template_kwargs");
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const json_t *value = json_object_get(request, refused[i]);
        if (value && !json_is_null(value) && !json_is_false(value)) {
            return lb_fail(detail, LB_E_ARG,
                           WHAT ": %s is not possible for messages here: they are written as the model's own "
                                "chat template says; leave it out",
                           refused[i]);
        }
    }
    if (words && !json_is_null(words) && !json_is_object(words)) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": chat_template_kwargs must be an object");
    }
    if (!json_is_array(messages) || json_array_size(messages) == 0) {
        return lb_fail(detail, LB_E_FORMAT, WHAT ": messages must be a list of objects that is not empty");
    }
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        const json_t *content = json_object_get(message, "content");
        if (!json_is_string(json_object_get(message, "role")) ||
            (content && !json_is_null(content) && !json_is_string(content))) {
            return lb_fail(
                detail, LB_E_FORMAT,
                WHAT ": messages[%zu] must be an object with a role, and a content that is a string", i);
        }
    }
    return LB_OK;
}

static enum lb_status chat_ids(const struct lb_tokenizer *tokenizer, const json_t *request,
                               struct lb_ids *out, struct lb_detail *detail) {
    struct lb_chat_text text = {0};
    enum lb_status status = check_chat(request, detail);
    status = status == LB_OK ? render(tokenizer, request, &text, detail) : status;
    if (status == LB_OK) {
        for (size_t i = 0; i < text.len; i++) {
            text.mark[i] &= LB_CHAT_DATA;
        }
        status = lb_tokenizer_encode_marked(tokenizer, text.text, text.len, text.mark, out, detail);
    }
    lb_chat_text_finish(&text);
    return status;
}

static enum lb_status text_ids(const struct lb_tokenizer *tokenizer, const json_t *request,
                               struct lb_ids *out, struct lb_detail *detail) {
    const char *text = NULL;
    bool special = true;
    enum lb_status status = lb_json_str(request, "prompt", true, WHAT, &text, detail);
    if (status == LB_OK) {
        status = lb_json_bool(request, "add_special_tokens", false, WHAT, &special, detail);
    }
    return status == LB_OK ? lb_tokenizer_encode(tokenizer, text, strlen(text), special, out, detail)
                           : status;
}

/* ---- answers ---- */

/* Sends what buf, the exchange's body, holds; few ids may be much text, for which memory is held as well. */
static void send(struct lb_exchange *x, struct lb_vllm_writer *writer) {
    struct lb_server *server = ((struct lb_visit *)x->user)->server;
    if (lb_vllm_failed(writer)) {
        lb_reply_fail(x, writer->status, writer->detail);
    } else if (x->body.len <= x->memory.bytes || lb_submit_hold(server, x, x->body.len - x->memory.bytes)) {
        lb_reply_bytes(x, 200, "application/json", x->body.data, x->body.len);
    }
}

static void put_ids(struct lb_vllm_writer *writer, const struct lb_hosted *hosted, const struct lb_ids *ids,
                    bool strings) {
    lb_buf_printf(writer->buf, "{\"count\":%zu,\"max_model_len\":%lld,\"tokens\":[", ids->len,
                  (long long)lb_model_config(hosted->model)->max_position_embeddings);
    for (size_t i = 0; i < ids->len; i++) {
        lb_buf_printf(writer->buf, i > 0 ? ",%d" : "%d", ids->data[i]);
    }
    lb_buf_append_str(writer->buf, strings ? "],\"token_strs\":[" : "],\"token_strs\":null}\n");
    for (size_t i = 0; strings && i < ids->len; i++) {
        const char *token = lb_tokenizer_token(hosted->tokenizer, ids->data[i]);
        lb_buf_append_str(writer->buf, i > 0 ? "," : "");
        lb_vllm_put_text(writer, token ? token : "", token ? strlen(token) : 0);
    }
    lb_buf_append_str(writer->buf, strings ? "]}\n" : "");
}

void lb_handle_tokenize(struct lb_server *server, struct lb_exchange *x, const struct lb_route_match *match) {
    (void)match;
    struct lb_detail detail = {0};
    json_t *request;
    struct lb_ids ids = {0};
    bool strings = false;
    if (!open_request(server, x, &request)) {
        return;
    }
    const struct lb_hosted *hosted = ((struct lb_visit *)x->user)->hosted;
    enum lb_status status = lb_json_bool(request, "return_token_strs", false, WHAT, &strings, &detail);
    if (status == LB_OK && json_object_get(request, "messages")) {
        status = json_object_get(request, "prompt")
                     ? lb_fail(&detail, LB_E_ARG, WHAT ": prompt and messages are given; give one of them")
                     : chat_ids(hosted->tokenizer, request, &ids, &detail);
    } else if (status == LB_OK) {
        status = text_ids(hosted->tokenizer, request, &ids, &detail);
    }
    json_decref(request);
    lb_buf_finish(&x->body);
    lb_buf_init(&x->body, LB_MAX_JSON_ANSWER_BYTES);
    struct lb_vllm_writer writer = {.buf = &x->body, .detail = &detail, .status = status};
    if (status == LB_OK) {
        put_ids(&writer, hosted, &ids, strings);
    }
    lb_free(ids.data);
    send(x, &writer);
}

void lb_handle_detokenize(struct lb_server *server, struct lb_exchange *x,
                          const struct lb_route_match *match) {
    (void)match;
    struct lb_detail detail = {0};
    json_t *request;
    struct lb_ids ids = {0};
    if (!open_request(server, x, &request)) {
        return;
    }
    const struct lb_hosted *hosted = ((struct lb_visit *)x->user)->hosted;
    const json_t *list = json_object_get(request, "tokens");
    enum lb_status status = json_is_array(list)
                                ? lb_ids_reserve(&ids, json_array_size(list))
                                : lb_fail(&detail, LB_E_FORMAT, WHAT ": tokens must be a list of token ids");
    for (size_t i = 0; status == LB_OK && i < json_array_size(list); i++) {
        const json_t *id = json_array_get(list, i);
        bool known = json_is_integer(id) && json_integer_value(id) >= 0 &&
                     json_integer_value(id) < lb_tokenizer_vocab_size(hosted->tokenizer);
        status = known ? lb_ids_push(&ids, (int32_t)json_integer_value(id))
                       : lb_fail(&detail, LB_E_ARG, WHAT ": tokens[%zu] is no id of the tokenizer, 0..%d", i,
                                 lb_tokenizer_vocab_size(hosted->tokenizer) - 1);
    }
    struct lb_buf text;
    lb_buf_init(&text, LB_MAX_JSON_ANSWER_BYTES);
    if (status == LB_OK) {
        status = lb_tokenizer_decode(hosted->tokenizer, ids.data, ids.len, false, &text, &detail);
    }
    json_decref(request);
    lb_buf_finish(&x->body);
    lb_buf_init(&x->body, LB_MAX_JSON_ANSWER_BYTES);
    struct lb_vllm_writer writer = {.buf = &x->body, .detail = &detail, .status = status};
    lb_buf_append_str(&x->body, "{\"prompt\":");
    lb_vllm_put_text(&writer, text.data ? text.data : "", text.len);
    lb_buf_append_str(&x->body, "}\n");
    lb_buf_finish(&text);
    lb_free(ids.data);
    send(x, &writer);
}

/* A token that tokenizer_config.json writes as an object becomes its text, as clients of vLLM read it. */
static bool flatten(json_t *config) {
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(config, next, key, value) {
        json_t *content = json_is_object(value) ? json_object_get(value, "content") : NULL;
        if (content && json_object_set(config, key, content) != 0) {
            return false;
        }
    }
    return true;
}

void lb_handle_tokenizer_info(struct lb_server *server, struct lb_exchange *x,
                              const struct lb_route_match *match) {
    (void)server;
    (void)match;
    struct lb_detail detail = {0};
    if (!lb_vllm_find_model(x, NULL) || !lb_vllm_need_tokenizer(x)) {
        return;
    }
    const struct lb_hosted *hosted = ((struct lb_visit *)x->user)->hosted;
    json_t *config = NULL;
    enum lb_status status = LB_OK;
    if (hosted->tokenizer_config) {
        status = lb_json_parse_loose(hosted->tokenizer_config, hosted->tokenizer_config_bytes, 0,
                                     "tokenizer_config.json", &config, &detail);
    }
    config = config ? config : json_object();
    bool ok = json_is_object(config) && flatten(config) && lb_beside_put_own(hosted->tokenizer, config);
    if (ok && !json_object_get(config, "tokenizer_class")) {
        ok = json_object_set_new(config, "tokenizer_class", json_string("PreTrainedTokenizerFast")) == 0;
    }
    if (status != LB_OK || !ok) {
        json_decref(config);
        lb_reply_fail(x, status != LB_OK ? status : out_of_memory(&detail), &detail);
        return;
    }
    lb_reply_json(x, 200, config);
}
