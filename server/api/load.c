/* POST /v2/repository/models/{model}/load and /unload: for those with the admin token. Names only; files are
 * the operator's. */
#include "common/base/json.h"
#include "server/api/reply.h"
#include "server/api/table.h"

#include <stdio.h>
#include <string.h>

/* Triton's parameters: uploads and configurations are refused rather than ignored; no model here depends on
 * another, so that unloading those that do is done already. */
static enum lb_status check_parameter(bool load, const char *key, const json_t *value,
                                      struct lb_detail *detail) {
    if (strcmp(key, "config") == 0 || strncmp(key, "file:", 5) == 0) {
        return lb_fail(detail, LB_E_ARG,
                       "parameter %.64s: models are files of this daemon's operator, they can't be sent",
                       key);
    }
    if (load || strcmp(key, "unload_dependents") != 0) {
        return lb_fail(detail, LB_E_ARG, "parameter %.64s is not known here", key);
    }
    return json_is_boolean(value)
               ? LB_OK
               : lb_fail(detail, LB_E_ARG, "parameter unload_dependents: expected true or false");
}

static enum lb_status check_body(const struct lb_exchange *x, bool load, struct lb_detail *detail) {
    json_t *request = NULL;
    enum lb_status status = lb_visit_object(x, &request, detail);
    json_t *parameters = json_object_get(request, "parameters");
    const char *key;
    json_t *value;
    if (status == LB_OK && parameters && !json_is_object(parameters)) {
        status = lb_fail(detail, LB_E_ARG, "parameters: expected an object");
    }
    json_object_foreach(parameters, key, value) {
        status = status == LB_OK ? check_parameter(load, key, value, detail) : status;
    }
    json_decref(request);
    return status;
}

/* Called by the loader. */
static void order_done(struct lb_load_order *order) {
    lb_exchange_resume(order->context);
}

static void finish(struct lb_server *server, struct lb_exchange *x) {
    struct lb_visit *visit = x->user;
    const struct lb_load_order *order = visit->order;
    (void)server;
    if (order->status != LB_OK) {
        /* A model of the list that can't be opened is the server's trouble, whatever the reason was. */
        int code = lb_http_status(order->status);
        lb_reply_error(x, order->done && code != 503 ? 500 : code, "%s", order->detail.text);
        return;
    }
    json_t *answer =
        json_pack("{s:s,s:s}", "name", order->name, "state", order->load ? "READY" : "UNAVAILABLE");
    if (answer && order->load) {
        json_object_set_new(answer, "version", json_string(order->version));
    }
    lb_reply_json(x, 200, answer);
}

static void give_order(struct lb_server *server, struct lb_exchange *x, const char *name, bool load) {
    struct lb_visit *visit = x->user;
    struct lb_detail detail = {0};
    enum lb_status status = check_body(x, load, &detail);
    if (status != LB_OK) {
        lb_reply_fail(x, status, &detail);
        return;
    }
    struct lb_load_order *order = lb_arena_zarray(&x->arena, 1, sizeof *order);
    if (!order) {
        lb_reply_error(x, 503, "out of memory; try again");
        return;
    }
    snprintf(order->name, sizeof order->name, "%s", name);
    order->load = load;
    order->done = order_done;
    order->context = x;
    visit->order = order;
    visit->finish = finish;
    /* Deferred first: the loader may be done before the order is given back. */
    lb_exchange_defer(x);
    status = lb_repository_order(server->repository, order, &detail);
    if (status != LB_OK) {
        order->status = status;
        order->detail = detail;
        order->done = NULL;
        lb_exchange_resume(x);
    }
}

void lb_handle_load(struct lb_server *server, struct lb_exchange *x, const struct lb_route_match *match) {
    give_order(server, x, match->model, true);
}

void lb_handle_unload(struct lb_server *server, struct lb_exchange *x, const struct lb_route_match *match) {
    give_order(server, x, match->model, false);
}
