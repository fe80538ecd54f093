/* The dialect vllm: vLLM's and OpenAI's endpoints over the same jobs. */
#include "server/api/vllm_stream.h"

#include "common/base/mem.h"
#include "server/api/reply.h"
#include "server/api/submit.h"
#include "server/api/table.h"

#include <stdio.h>
#include <string.h>

/* ---- errors ---- */

static const char *type_of(int status) {
    switch (status) {
    case 400:
        return "BadRequestError";
    case 401:
        return "AuthenticationError";
    case 403:
        return "PermissionDeniedError";
    case 404:
        return "NotFoundError";
    case 405:
        return "MethodNotAllowedError";
    case 413:
        return "RequestTooLargeError";
    case 429:
        return "RateLimitError";
    case 501:
        return "NotImplementedError";
    case 503:
        return "ServiceUnavailableError";
    case 504:
        return "TimeoutError";
    default:
        return status < 500 ? "BadRequestError" : "InternalServerError";
    }
}

static json_t *error_body(int status, const char *text) {
    char key[LB_MAX_NAME];
    bool named = lb_vllm_error_key(text, key);
    if (!named && status == 404 && strncmp(text, "model ", 6) == 0) { /* the repository's words */
        memcpy(key, "model", sizeof "model");
        named = true;
    }
    return json_pack("{s:{s:s,s:s,s:s?,s:i}}", "error", "message", text, "type", type_of(status), "param",
                     named ? key : NULL, "code", status);
}

/* ---- what handlers share ---- */

static void release_all(struct lb_hosted **list, size_t n) {
    for (size_t i = 0; i < n; i++) {
        lb_hosted_release(list[i]);
    }
    lb_free(list);
}

bool lb_vllm_find_model(struct lb_exchange *x, const char *name) {
    struct lb_visit *visit = x->user;
    struct lb_repository *repository = visit->server->repository;
    struct lb_detail detail = {0};
    if (name) {
        enum lb_status status = lb_repository_get(repository, name, NULL, &visit->hosted, &detail);
        if (status != LB_OK) {
            lb_reply_fail(x, status, &detail);
        }
        return status == LB_OK;
    }
    struct lb_hosted **all = NULL;
    size_t n = 0;
    if (lb_repository_list(repository, &all, &n) != LB_OK) {
        lb_reply_error(x, 503, "out of memory; try again");
        return false;
    }
    visit->hosted = n == 1 ? lb_hosted_retain(all[0]) : NULL;
    release_all(all, n);
    if (n == 0) {
        lb_reply_error(x, 503, "no model is ready");
    } else if (n > 1) {
        lb_reply_error(x, 400, "request: model is missing, and %zu are served here (GET /v1/models)", n);
    }
    return n == 1;
}

bool lb_vllm_need_tokenizer(struct lb_exchange *x) {
    const struct lb_visit *visit = x->user;
    if (!visit->hosted->tokenizer) {
        lb_reply_error(x, 400, "model %s has no tokenizer that this daemon can run; send token ids",
                       visit->hosted->name);
    }
    return visit->hosted->tokenizer != NULL;
}

enum lb_status lb_vllm_id_text(void *tokenizer, int32_t id, struct lb_buf *out) {
    const struct lb_tokenizer *of = tokenizer;
    return lb_tokenizer_token(of, id) ? lb_tokenizer_decode(of, &id, 1, false, out, NULL) : LB_OK;
}

/* ---- what all that ask the engine have ---- */

void *lb_vllm_begin(struct lb_server *server, struct lb_exchange *x, size_t bytes) {
    const char *body = x->body.data ? x->body.data : "";
    void *asked = lb_arena_zarray(&x->arena, 1, bytes);
    if (!asked) {
        lb_reply_error(x, 503, "out of memory; try again");
        return NULL;
    }
    ((struct lb_visit *)x->user)->asked = asked;
    return lb_submit_hold(server, x, lb_submit_decoding_bytes(body, x->body.len, -1)) ? asked : NULL;
}

bool lb_vllm_planned(struct lb_server *server, struct lb_exchange *x, size_t answer_bytes) {
    const struct lb_visit *visit = x->user;
    lb_buf_finish(&x->body);
    lb_unhold(&x->memory, x->memory.bytes);
    size_t written = visit->writing ? lb_writing_bytes(visit->writing) : 0;
    return lb_submit_hold(server, x,
                          x->arena.used + lb_submit_job_bytes(visit->job) + written + answer_bytes);
}

/* A name for an answer: prefix, then the id that the body gave, else the request's. NULL when out of memory.
 */
static const char *name_of(struct lb_exchange *x, const char *prefix, const char *request_id) {
    const char *id = request_id ? request_id : ((struct lb_visit *)x->user)->request_id;
    return id ? lb_arena_printf(&x->arena, "%s%s", prefix, id) : NULL;
}

const char *lb_vllm_open_answer(struct lb_exchange *x, const char *prefix, const char *request_id,
                                struct lb_vllm_writer *out, struct lb_detail *detail) {
    struct lb_tokenizer *tokenizer = ((struct lb_visit *)x->user)->job->model->tokenizer;
    const char *name = name_of(x, prefix, request_id);
    if (!name) {
        lb_reply_error(x, 503, "out of memory; try again");
        return NULL;
    }
    /* The request's bytes are gone; their buffer takes the answer. */
    lb_buf_init(&x->body, LB_MAX_RESPONSE_BYTES);
    *out = (struct lb_vllm_writer){.buf = &x->body,
                                   .text = tokenizer ? lb_vllm_id_text : NULL,
                                   .context = tokenizer,
                                   .gone = &x->gone,
                                   .detail = detail};
    return name;
}

/* The numbers are text now: they go, and what was held too much for it. */
static bool settle(struct lb_server *server, struct lb_exchange *x, size_t answer_bytes) {
    struct lb_job *job = ((struct lb_visit *)x->user)->job;
    for (size_t i = 0; i < job->n_outputs; i++) {
        lb_free(job->outputs[i].data);
        job->outputs[i].data = NULL;
        lb_unhold(&x->memory, job->outputs[i].bytes);
    }
    if (x->body.len > answer_bytes) {
        return lb_submit_hold(server, x, x->body.len - answer_bytes);
    }
    lb_unhold(&x->memory, answer_bytes - x->body.len);
    return true;
}

void lb_vllm_send(struct lb_server *server, struct lb_exchange *x, const struct lb_vllm_writer *writer,
                  size_t answer_bytes) {
    if (writer->status == LB_E_CANCELLED && lb_submit_gone(x)) {
        return;
    }
    if (writer->status != LB_OK) {
        lb_reply_fail(x, writer->status, writer->detail);
    } else if (settle(server, x, answer_bytes)) {
        bool events = ((const struct lb_visit *)x->user)->events;
        lb_reply_bytes(x, 200, events ? LB_EVENT_STREAM : "application/json", x->body.data, x->body.len);
        lb_reply_header(x, "Cache-Control", "no-cache");
    }
}

/* ---- what there is ---- */

static json_t *model_card(const struct lb_server *server, const struct lb_hosted *hosted) {
    int64_t longest = lb_model_config(hosted->model)->max_position_embeddings;
    json_t *card =
        json_pack("{s:s,s:s,s:I,s:s,s:s,s:n}", "id", hosted->name, "object", "model", "created",
                  (json_int_t)server->started_unix, "owned_by", "limbeck", "root", hosted->name, "parent");
    if (card && longest > 0 && json_object_set_new(card, "max_model_len", json_integer(longest)) != 0) {
        json_decref(card);
        return NULL;
    }
    return card;
}

static void handle_models(struct lb_server *server, struct lb_exchange *x,
                          const struct lb_route_match *match) {
    (void)match;
    struct lb_hosted **all = NULL;
    size_t n = 0;
    json_t *cards = json_array();
    bool ok = cards && lb_repository_list(server->repository, &all, &n) == LB_OK;
    for (size_t i = 0; ok && i < n; i++) {
        ok = json_array_append_new(cards, model_card(server, all[i])) == 0;
    }
    release_all(all, n);
    if (ok) {
        lb_reply_json(x, 200, json_pack("{s:s,s:o}", "object", "list", "data", cards));
    } else {
        json_decref(cards);
        lb_reply_error(x, 503, "out of memory; try again");
    }
}

static void handle_model(struct lb_server *server, struct lb_exchange *x,
                         const struct lb_route_match *match) {
    if (lb_vllm_find_model(x, match->model)) {
        lb_reply_json(x, 200, model_card(server, ((struct lb_visit *)x->user)->hosted));
    }
}

static void handle_version(struct lb_server *server, struct lb_exchange *x,
                           const struct lb_route_match *match) {
    (void)server;
    (void)match;
    lb_reply_json(x, 200, json_pack("{s:s}", "version", LB_VERSION));
}

static const struct lb_route routes[] = {
    {"GET", "/v1/models", "models", LB_ACCESS_TOKEN, handle_models},
    {"GET", "/v1/models/{model}", "models", LB_ACCESS_TOKEN, handle_model},
    {"GET", "/version", "version", LB_ACCESS_TOKEN, handle_version},
    {"POST", "/tokenize", "tokenize", LB_ACCESS_TOKEN, lb_handle_tokenize},
    {"POST", "/v1/tokenize", "tokenize", LB_ACCESS_TOKEN, lb_handle_tokenize},
    {"POST", "/detokenize", "detokenize", LB_ACCESS_TOKEN, lb_handle_detokenize},
    {"POST", "/v1/detokenize", "detokenize", LB_ACCESS_TOKEN, lb_handle_detokenize},
    {"GET", "/tokenizer_info", "tokenizer_info", LB_ACCESS_TOKEN, lb_handle_tokenizer_info},
    {"GET", "/v1/tokenizer_info", "tokenizer_info", LB_ACCESS_TOKEN, lb_handle_tokenizer_info},
    {"POST", "/inference/v1/generate", "generate", LB_ACCESS_TOKEN, lb_handle_generate},
    {"POST", "/v1/embeddings", "embeddings", LB_ACCESS_TOKEN, lb_handle_embeddings},
    {"POST", "/pooling", "pooling", LB_ACCESS_TOKEN, lb_handle_pooling},
    {"POST", "/v1/completions", "completions", LB_ACCESS_TOKEN, lb_handle_completions},
};

extern const struct lb_api_dialect lb_api_vllm;
const struct lb_api_dialect lb_api_vllm = {.name = "vllm",
                                           .prefix = "/v1",
                                           .routes = routes,
                                           .n_routes = sizeof routes / sizeof *routes,
                                           .error = error_body};
