/* Handlers that tell about the daemon and its models. */
#include "common/base/json.h"
#include "common/base/mem.h"
#include "server/api/describe.h"
#include "server/api/reply.h"
#include "server/api/table.h"

void lb_handle_server_metadata(struct lb_server *server, struct lb_exchange *x,
                               const struct lb_route_match *match) {
    (void)server;
    (void)match;
    lb_reply_json(x, 200, lb_describe_server());
}

void lb_handle_live(struct lb_server *server, struct lb_exchange *x, const struct lb_route_match *match) {
    (void)server;
    (void)match;
    lb_reply_json(x, 200, json_pack("{s:b}", "live", 1));
}

void lb_handle_ready(struct lb_server *server, struct lb_exchange *x, const struct lb_route_match *match) {
    (void)match;
    if (atomic_load(&server->draining)) {
        lb_reply_error(x, 503, "this daemon is shutting down");
    } else if (!lb_repository_ready(server->repository)) {
        lb_reply_error(x, 503, "no model is ready, or some are still loading");
    } else {
        lb_reply_json(x, 200, json_pack("{s:b}", "ready", 1));
    }
}

void lb_handle_model_ready(struct lb_server *server, struct lb_exchange *x,
                           const struct lb_route_match *match) {
    if (!lb_reply_find_model(x)) {
        return;
    }
    if (atomic_load(&server->draining)) {
        lb_reply_error(x, 503, "this daemon is shutting down");
        return;
    }
    lb_reply_json(x, 200, json_pack("{s:s,s:b}", "name", match->model, "ready", 1));
}

void lb_handle_model_metadata(struct lb_server *server, struct lb_exchange *x,
                              const struct lb_route_match *match) {
    (void)server;
    (void)match;
    if (lb_reply_find_model(x)) {
        const struct lb_visit *visit = x->user;
        lb_reply_json_digest(x, 200, lb_describe_model(visit->hosted));
        lb_reply_header(x, "Cache-Control", "no-cache");
    }
}

void lb_handle_model_config(struct lb_server *server, struct lb_exchange *x,
                            const struct lb_route_match *match) {
    (void)server;
    (void)match;
    if (lb_reply_find_model(x)) {
        const struct lb_visit *visit = x->user;
        lb_reply_json(x, 200, lb_describe_config(visit->hosted));
        lb_reply_header(x, "Cache-Control", lb_visit_cache_control(visit));
    }
}

static void release_all(struct lb_hosted **list, size_t n) {
    for (size_t i = 0; i < n; i++) {
        lb_hosted_release(list[i]);
    }
    lb_free(list);
}

static json_t *stats_of(struct lb_hosted *hosted) {
    return lb_stats_json(&hosted->stats, hosted->name, hosted->instance, hosted->version);
}

void lb_handle_stats(struct lb_server *server, struct lb_exchange *x, const struct lb_route_match *match) {
    struct lb_hosted **all = NULL;
    size_t n = 0;
    if (match->model[0] && !lb_reply_find_model(x)) {
        return;
    }
    if (!match->model[0] && lb_repository_list(server->repository, &all, &n) != LB_OK) {
        lb_reply_error(x, 503, "out of memory; try again");
        return;
    }
    json_t *list = json_array();
    if (match->model[0]) {
        json_array_append_new(list, stats_of(((struct lb_visit *)x->user)->hosted));
    }
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(list, stats_of(all[i]));
    }
    release_all(all, n);
    lb_reply_json(x, 200, json_pack("{s:o}", "model_stats", list));
}

void lb_handle_index(struct lb_server *server, struct lb_exchange *x, const struct lb_route_match *match) {
    (void)match;
    bool only_ready = false;
    json_t *request = NULL;
    struct lb_detail detail = {0};
    enum lb_status status = lb_visit_object(x, &request, &detail);
    if (status == LB_OK && request) {
        status = lb_json_bool(request, "ready", false, "request", &only_ready, &detail);
    }
    json_decref(request);
    if (status != LB_OK) {
        lb_reply_fail(x, status, &detail);
        return;
    }
    lb_reply_json(x, 200, lb_repository_index(server->repository, only_ready));
}
