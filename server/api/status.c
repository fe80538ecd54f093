/* GET /, a page for people, and GET /status.json, what it shows beside /metrics. The page is one file without
 * anything from elsewhere. Its headers let it run its own script and no other, and ask this daemon only. */
#include "server/api/status.h"

#include "common/base/base64.h"
#include "common/base/clock.h"
#include "common/base/sha256.h"
#include "server/api/clients.h"
#include "server/api/reply.h"

#include <string.h>

static const unsigned char page[] = {
#include "server/api/status_page.inc"
};

/* The bytes between two marks of the page, which has both. */
static struct lb_span between(const char *open, const char *close) {
    const unsigned char *begin = memmem(page, sizeof page, open, strlen(open));
    begin += strlen(open);
    const unsigned char *end = memmem(begin, (size_t)(page + sizeof page - begin), close, strlen(close));
    return (struct lb_span){.data = (const char *)begin, .len = (size_t)(end - begin)};
}

/* A source as Content-Security-Policy has it: the digest of what stands in the page. LB_E_NOMEM. */
static enum lb_status put_source(struct lb_buf *out, const char *directive, struct lb_span of) {
    uint8_t digest[LB_SHA256_BYTES];
    struct lb_sha256 *hash = lb_sha256_create();
    if (!hash) {
        return LB_E_NOMEM;
    }
    lb_sha256_update(hash, of.data, of.len);
    lb_sha256_final(hash, digest);
    lb_buf_printf(out, "; %s 'sha256-", directive);
    lb_base64_put(out, digest, sizeof digest);
    return lb_buf_append_str(out, "'");
}

static void reply_page(struct lb_exchange *x, int status) {
    struct lb_buf policy;
    lb_buf_init(&policy, 1024);
    lb_buf_append_str(&policy, "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; "
                               "form-action 'none'; frame-ancestors 'none'");
    bool made = put_source(&policy, "script-src", between("<script>", "</script>")) == LB_OK &&
                put_source(&policy, "style-src", between("<style>", "</style>")) == LB_OK;
    const char *kept = made ? lb_arena_strdup(&x->arena, policy.data) : NULL;
    lb_buf_finish(&policy);
    if (!kept) {
        lb_reply_error(x, 503, "out of memory; try again");
        return;
    }
    lb_reply_bytes(x, status, "text/html; charset=utf-8", page, sizeof page);
    lb_reply_header(x, "Content-Security-Policy", kept);
    lb_reply_header(x, "X-Content-Type-Options", "nosniff");
    lb_reply_header(x, "Referrer-Policy", "no-referrer");
    lb_reply_header(x, "Cache-Control", "no-cache");
}

void lb_handle_status(struct lb_server *server, struct lb_exchange *x, const struct lb_route_match *match) {
    (void)server;
    (void)match;
    reply_page(x, 200);
}

void lb_status_refused(struct lb_exchange *x) {
    const struct lb_visit *visit = x->user;
    const char *accept = lb_exchange_header(x, "Accept");
    if (x->reply.status == 401 && visit->match.route && visit->match.route->handle == lb_handle_status &&
        accept && strstr(accept, "text/html")) {
        x->reply.n_headers = 0;
        reply_page(x, 401);
        lb_reply_header(x, "WWW-Authenticate", "Bearer realm=\"limbeckd\"");
    }
}

static const char *state_of(struct lb_server *server) {
    if (atomic_load(&server->draining)) {
        return "draining";
    }
    return lb_repository_ready(server->repository)   ? "ready"
           : lb_repository_tried(server->repository) ? "no model"
                                                     : "loading";
}

void lb_handle_status_json(struct lb_server *server, struct lb_exchange *x,
                           const struct lb_route_match *match) {
    (void)match;
    lb_reply_json(x, 200,
                  json_pack("{s:s,s:s,s:s,s:f,s:f,s:o,s:o}", "name", "limbeckd", "version", LB_VERSION,
                            "state", state_of(server), "started", server->started_unix, "now",
                            lb_unix_seconds(), "models", lb_repository_index(server->repository, false),
                            "clients", lb_clients_json(server->clients)));
    lb_reply_header(x, "Cache-Control", "no-store");
}
