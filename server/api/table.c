#include "server/api/table.h"

#include "common/base/clock.h"
#include "server/api/access.h"
#include "server/api/clients.h"
#include "server/api/reply.h"
#include "server/api/status.h"
#include "server/api/trail.h"

#include <stdio.h>

/* One line per dialect; the last gets what is nobody's. */
#define DIALECTS(X) X(vllm) X(sglang) X(oip)

#define DECLARED(name) extern const struct lb_api_dialect lb_api_##name;
DIALECTS(DECLARED)

#define LISTED(name) &lb_api_##name,
static const struct lb_api_dialect *const dialects[] = {DIALECTS(LISTED)};

/* The headers are there: who is it, what is asked, may they. */
static void on_begin(void *context, struct lb_exchange *x) {
    struct lb_server *server = context;
    struct lb_visit *visit = lb_arena_zarray(&x->arena, 1, sizeof *visit);
    if (!visit) {
        lb_reply_error(x, 503, "out of memory; try again");
        return;
    }
    visit->server = server;
    x->user = visit;
    x->user_free = lb_visit_free;
    lb_trail_begin(x);
    char allow[LB_ALLOW_SIZE];
    enum lb_status status = lb_dialect_find(dialects, sizeof dialects / sizeof *dialects, x->method, x->path,
                                            &visit->dialect, &visit->match, allow);
    /* Without a token nobody learns which paths there are. */
    x->quick = status == LB_OK && visit->match.route->access == LB_ACCESS_OPEN;
    if (!lb_access_begin(server, x, status == LB_OK ? visit->match.route->access : LB_ACCESS_TOKEN)) {
        lb_status_refused(x);
        return;
    }
    if (status == LB_E_UNSUPPORTED) {
        lb_reply_error(x, 405, "%.16s is not possible here; allowed: %s", x->method, allow);
        lb_reply_header(x, "Allow", lb_arena_strdup(&x->arena, allow));
    } else if (status != LB_OK) {
        lb_reply_error(x, 404, "no such path; PROTOCOL.md tells which there are");
    }
}

/* Last before an answer goes out, whoever made it. */
static void on_sending(void *context, struct lb_exchange *x) {
    (void)context;
    struct lb_visit *visit = x->user;
    /* Before its client can know: who then asks again is not one too many. */
    if (visit && !x->reply.next) {
        lb_visit_leave(visit);
    }
    if (visit && visit->request_id) {
        lb_reply_header(x, "X-Request-Id", visit->request_id);
    }
    lb_reply_header(x, "Vary", "Accept-Encoding"); /* any text may come packed */
}

static void on_handle(void *context, struct lb_exchange *x) {
    struct lb_visit *visit = x->user;
    visit->match.route->handle(context, x, &visit->match);
}

static void on_resumed(void *context, struct lb_exchange *x) {
    const struct lb_visit *visit = x->user;
    visit->finish(context, x);
}

/* On an HTTP thread, while another may be about to submit the job: it looks at x->gone after it has set
 * submitted, and this at submitted after gone was set, so that one of the two sees the other. */
static void on_lost(void *context, struct lb_exchange *x) {
    struct lb_server *server = context;
    struct lb_visit *visit = x->user;
    struct lb_job *job = visit ? atomic_load(&visit->submitted) : NULL;
    if (job) {
        lb_batcher_cancel(server->batcher, job);
    }
}

static void on_refuse(void *context, struct lb_exchange *x, int status, const char *text) {
    (void)context;
    lb_reply_error(x, status, "%s", text);
}

/* Those who ask about models, and were let in. */
static void count_client(struct lb_server *server, const struct lb_exchange *x) {
    const struct lb_visit *visit = x->user;
    const struct lb_route *route = visit ? visit->match.route : NULL;
    int status = x->reply.status;
    if (!route || route->access == LB_ACCESS_OPEN || route->access == LB_ACCESS_METRICS || status == 401) {
        return;
    }
    const char *address = x->peer[0] ? x->peer : "UNIX socket";
    lb_clients_add(server->clients,
                   &(struct lb_client_request){.name = visit->bearer ? visit->bearer : address,
                                               .token = visit->bearer != NULL,
                                               .failed = status >= 400,
                                               .tokens = status == 200 ? lb_visit_work(visit).tokens : 0,
                                               .in_bytes = x->received_bytes,
                                               .out_bytes = x->sent_bytes,
                                               .at_unix = lb_unix_seconds()});
}

static void on_end(void *context, struct lb_exchange *x, bool complete) {
    struct lb_server *server = context;
    const struct lb_visit *visit = x->user;
    const char *endpoint = visit && visit->match.route ? visit->match.route->endpoint : "none";
    /* Only names that exist become labels: a client can't make series. */
    const char *model = visit && visit->hosted ? visit->hosted->name : "";
    char code[16];
    uint64_t now = lb_now_ns();
    snprintf(code, sizeof code, "%d", x->reply.status);
    lb_metrics_add(server->metrics, LB_METRIC_REQUESTS, (const char *[]){model, endpoint, code}, 1);
    lb_metrics_add(server->metrics, LB_METRIC_DURATION, (const char *[]){model, endpoint},
                   (double)(now - x->started_ns) / LB_SECOND_NS);
    lb_metrics_add(server->metrics, LB_METRIC_REQUEST_BYTES, (const char *[]){endpoint},
                   (double)x->received_bytes);
    lb_metrics_add(server->metrics, LB_METRIC_RESPONSE_BYTES,
                   (const char *[]){lb_coding_name(x->sent_coding)}, (double)x->sent_bytes);
    count_client(server, x);
    lb_trail_log(x, model, endpoint, complete, now);
}

struct lb_http_app lb_api(struct lb_server *server) {
    return (struct lb_http_app){server,  on_begin,  on_handle,  on_resumed,
                                on_lost, on_refuse, on_sending, on_end};
}
