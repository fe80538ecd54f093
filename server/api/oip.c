/* The dialect oip: the Open Inference Protocol with Triton's extensions, and the daemon's own health and
 * metrics. */
#include "server/api/reply.h"
#include "server/api/status.h"
#include "server/api/table.h"

static const struct lb_route routes[] = {
    {"GET", "/v2", "server_metadata", LB_ACCESS_TOKEN, lb_handle_server_metadata},
    {"GET", "/v2/health/live", "live", LB_ACCESS_OPEN, lb_handle_live},
    {"GET", "/v2/health/ready", "ready", LB_ACCESS_OPEN, lb_handle_ready},
    {"GET", "/health", "ready", LB_ACCESS_OPEN, lb_handle_ready},
    {"GET", "/v2/models/stats", "stats", LB_ACCESS_TOKEN, lb_handle_stats},
    {"GET", "/v2/models/{model}[/versions/{version}]", "metadata", LB_ACCESS_TOKEN, lb_handle_model_metadata},
    {"GET", "/v2/models/{model}[/versions/{version}]/ready", "model_ready", LB_ACCESS_TOKEN,
     lb_handle_model_ready},
    {"GET", "/v2/models/{model}[/versions/{version}]/config", "config", LB_ACCESS_TOKEN,
     lb_handle_model_config},
    {"GET", "/v2/models/{model}[/versions/{version}]/stats", "stats", LB_ACCESS_TOKEN, lb_handle_stats},
    {"GET", "/v2/models/{model}[/versions/{version}]/head", "head", LB_ACCESS_TOKEN, lb_handle_head},
    {"GET", "/v2/models/{model}[/versions/{version}]/tokenizer", "tokenizer", LB_ACCESS_TOKEN,
     lb_handle_tokenizer},
    {"GET", "/v2/models/{model}[/versions/{version}]/tokenizer_config", "tokenizer_config", LB_ACCESS_TOKEN,
     lb_handle_tokenizer_config},
    {"GET", "/v2/models/{model}[/versions/{version}]/vocab_maps/{digest}", "vocab_map", LB_ACCESS_TOKEN,
     lb_handle_vocab_map},
    {"PUT", "/v2/models/{model}[/versions/{version}]/vocab_maps/{digest}", "vocab_map", LB_ACCESS_TOKEN,
     lb_handle_vocab_map_put},
    {"POST", "/v2/models/{model}[/versions/{version}]/infer", "infer", LB_ACCESS_TOKEN, lb_handle_infer},
    {"POST", "/v2/repository/index", "index", LB_ACCESS_TOKEN, lb_handle_index},
    {"POST", "/v2/repository/models/{model}/load", "load", LB_ACCESS_ADMIN, lb_handle_load},
    {"POST", "/v2/repository/models/{model}/unload", "unload", LB_ACCESS_ADMIN, lb_handle_unload},
    {"GET", "/metrics", "metrics", LB_ACCESS_METRICS, lb_handle_metrics},
    {"GET", "/", "status", LB_ACCESS_METRICS, lb_handle_status},
    {"GET", "/status.json", "status", LB_ACCESS_METRICS, lb_handle_status_json},
};

extern const struct lb_api_dialect lb_api_oip;
const struct lb_api_dialect lb_api_oip = {.name = "oip",
                                          .prefix = "",
                                          .routes = routes,
                                          .n_routes = sizeof routes / sizeof *routes,
                                          .error = lb_error_body};
