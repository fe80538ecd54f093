/* The dialect plain: /plain/NAME says which model that is; errors are {"plain": "text"}. */
#include "proto/plain.h"
#include "server/api/reply.h"
#include "server/api/visit.h"

#include <string.h>

static void handle_model(struct lb_server *server, struct lb_exchange *x,
                         const struct lb_route_match *match) {
    (void)server;
    (void)match;
    if (!lb_reply_find_model(x)) {
        return;
    }
    const struct lb_visit *visit = x->user;
    struct lb_buf line;
    lb_buf_init(&line, 4 * LB_MAX_NAME);
    char *text = NULL;
    if (lb_plain_write(visit->hosted->name, visit->hosted->version, &line) == LB_OK) {
        text = lb_arena_zarray(&x->arena, line.len + 1, 1);
    }
    if (text != NULL) {
        memcpy(text, line.data, line.len);
        lb_reply_bytes(x, 200, "text/plain", text, line.len);
    } else {
        lb_reply_error(x, 503, "out of memory; try again");
    }
    lb_buf_finish(&line);
}

static json_t *error_body(int status, const char *text) {
    (void)status;
    return json_pack("{s:s}", "plain", text);
}

static const struct lb_route routes[] = {{"GET", "/plain/{model}", "plain", LB_ACCESS_TOKEN, handle_model}};

extern const struct lb_api_dialect lb_api_plain;
const struct lb_api_dialect lb_api_plain = {.name = "plain",
                                            .prefix = "/plain",
                                            .routes = routes,
                                            .n_routes = sizeof routes / sizeof *routes,
                                            .error = error_body};
