/* The dialect sglang: SGLang's /generate over the same jobs, and what its clients ask beside it. Models and
 * tokenizers are those of vLLM's dialect, whose helpers it uses. */
#include "server/api/sglang.h"

#include "server/api/reply.h"
#include "server/api/table.h"
#include "server/api/vllm.h"

static json_t *error_body(int status, const char *text) {
    (void)status;
    return json_pack("{s:{s:s}}", "error", "message", text);
}

/* ---- what there is ---- */

static void handle_model_info(struct lb_server *server, struct lb_exchange *x,
                              const struct lb_route_match *match) {
    (void)server;
    (void)match;
    if (lb_vllm_find_model(x, NULL)) {
        const struct lb_hosted *hosted = ((struct lb_visit *)x->user)->hosted;
        bool writes = lb_model_is_causal(hosted->model) && !lb_model_is_classifier(hosted->model);
        lb_reply_json(x, 200,
                      json_pack("{s:s,s:s,s:b,s:n,s:s,s:b,s:b}", "model_path", hosted->name, "tokenizer_path",
                                hosted->name, "is_generation", writes, "preferred_sampling_params",
                                "weight_version", hosted->version, "has_image_understanding", 0,
                                "has_audio_understanding", 0));
    }
}

static void handle_server_info(struct lb_server *server, struct lb_exchange *x,
                               const struct lb_route_match *match) {
    (void)server;
    (void)match;
    if (lb_vllm_find_model(x, NULL)) {
        const struct lb_hosted *hosted = ((struct lb_visit *)x->user)->hosted;
        int64_t longest = lb_model_config(hosted->model)->max_position_embeddings;
        json_t *length = longest > 0 ? json_integer(longest) : json_null();
        lb_reply_json(x, 200,
                      json_pack("{s:s,s:s,s:s,s:s,s:o,s:s,s:[]}", "model_path", hosted->name,
                                "tokenizer_path", hosted->name, "served_model_name", hosted->name,
                                "weight_version", hosted->version, "context_length", length, "version",
                                LB_VERSION, "internal_states"));
    }
}

/* Answers depend on no cache: there is nothing that it could change. */
static void handle_flush_cache(struct lb_server *server, struct lb_exchange *x,
                               const struct lb_route_match *match) {
    static const char text[] = "Nothing to flush: an answer doesn't depend on what is kept.\n";
    (void)server;
    (void)match;
    lb_reply_bytes(x, 200, "text/plain; charset=utf-8", text, sizeof text - 1);
}

static const struct lb_route routes[] = {
    {"POST", "/generate", "sglang_generate", LB_ACCESS_TOKEN, lb_handle_sglang_generate},
    {"GET", "/health_generate", "ready", LB_ACCESS_OPEN, lb_handle_ready},
    {"GET", "/model_info", "model_info", LB_ACCESS_TOKEN, handle_model_info},
    {"GET", "/get_model_info", "model_info", LB_ACCESS_TOKEN, handle_model_info},
    {"GET", "/server_info", "server_info", LB_ACCESS_TOKEN, handle_server_info},
    {"GET", "/get_server_info", "server_info", LB_ACCESS_TOKEN, handle_server_info},
    {"GET", "/flush_cache", "flush_cache", LB_ACCESS_TOKEN, handle_flush_cache},
    {"POST", "/flush_cache", "flush_cache", LB_ACCESS_TOKEN, handle_flush_cache},
};

extern const struct lb_api_dialect lb_api_sglang;
const struct lb_api_dialect lb_api_sglang = {.name = "sglang",
                                             .prefix = "/generate",
                                             .routes = routes,
                                             .n_routes = sizeof routes / sizeof *routes,
                                             .error = error_body};
