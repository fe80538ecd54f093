#include "server/api/access.h"

#include "common/base/clock.h"
#include "server/api/reply.h"

#include <inttypes.h>
#include <stdio.h>

static unsigned scope_of(enum lb_route_access need) {
    return need == LB_ACCESS_ADMIN     ? (unsigned)LB_SCOPE_ADMIN
           : need == LB_ACCESS_METRICS ? (unsigned)LB_SCOPE_METRICS
                                       : (unsigned)LB_SCOPE_ASK;
}

static const char *scope_name(unsigned scopes) {
    return scopes & LB_SCOPE_ADMIN                       ? "admin"
           : scopes == (LB_SCOPE_ASK | LB_SCOPE_METRICS) ? "ask and metrics"
           : scopes & LB_SCOPE_METRICS                   ? "metrics"
                                                         : "ask";
}

/* 429, and when to come again. */
static void reply_later(struct lb_exchange *x, int64_t seconds, const char *text) {
    lb_reply_error(x, 429, "%s", text ? text : "too many requests");
    lb_reply_header(x, "Retry-After", lb_arena_printf(&x->arena, "%" PRId64, seconds));
}

/* Who has no token. */
static bool let_stranger(struct lb_server *server, struct lb_exchange *x, enum lb_route_access need) {
    struct lb_visit *visit = x->user;
    if (server->options->token_file) {
        lb_reply_error(x, 401, "%s",
                       lb_exchange_header(x, "Authorization")
                           ? "this token is not known here"
                           : "a token is needed: send the header Authorization: Bearer TOKEN");
        return false;
    }
    if (need == LB_ACCESS_ADMIN) {
        lb_reply_error(x, 403, "this needs a token of scope admin (--admin-token-file)");
        return false;
    }
    if (x->certificate) {
        const char *client = lb_arena_printf(&x->arena, "certificate %s", x->certificate);
        visit->bearer = x->certificate;
        lb_exchange_client(x, client ? client : x->certificate);
    }
    return true;
}

bool lb_access_begin(struct lb_server *server, struct lb_exchange *x, enum lb_route_access need) {
    struct lb_visit *visit = x->user;
    struct lb_bearer bearer;
    if (need == LB_ACCESS_OPEN) {
        return true;
    }
    if (server->options->tls_client_ca && !x->certificate) {
        lb_reply_error(x, 403, "a client certificate is needed here (--tls-client-ca)");
        return false;
    }
    if (!lb_auth_find(server->auth, lb_exchange_header(x, "Authorization"), &bearer)) {
        return let_stranger(server, x, need);
    }
    visit->quota = bearer.quota;
    visit->bearer = lb_arena_strdup(&x->arena, bearer.name);
    char client[sizeof bearer.name + 8];
    snprintf(client, sizeof client, "token %s", bearer.name);
    lb_exchange_client(x, client);
    if (!(bearer.scopes & scope_of(need))) {
        lb_reply_error(x, 403, "this needs a token of scope %s; %s has %s", scope_name(scope_of(need)),
                       bearer.name, scope_name(bearer.scopes));
        return false;
    }
    if (!lb_quota_enter(visit->quota)) {
        reply_later(
            x, 1,
            lb_arena_printf(&x->arena,
                            "%s has as many requests here as its token allows (concurrent=); wait for "
                            "an answer",
                            bearer.name));
        return false;
    }
    visit->entered = true;
    return true;
}

bool lb_access_take(struct lb_exchange *x, int64_t tokens) {
    const struct lb_visit *visit = x->user;
    int64_t wait = visit->quota ? lb_quota_take(visit->quota, tokens, lb_now_ns()) : 0;
    if (wait > 0) {
        reply_later(
            x, wait,
            lb_arena_printf(&x->arena,
                            "%s has used up its tokens of this minute (tokens_per_minute=); try again "
                            "in %" PRId64 " seconds",
                            visit->bearer ? visit->bearer : "this token", wait));
    }
    return wait == 0;
}

void lb_access_charge(struct lb_exchange *x, int64_t tokens) {
    const struct lb_visit *visit = x->user;
    if (visit->quota) {
        lb_quota_charge(visit->quota, tokens, lb_now_ns());
    }
}

void lb_access_give_back(struct lb_exchange *x, int64_t tokens) {
    const struct lb_visit *visit = x->user;
    if (visit->quota) {
        lb_quota_give_back(visit->quota, tokens);
    }
}
