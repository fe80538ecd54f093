#include "server/api/visit.h"

#include "server/api/reply.h"

void lb_visit_free(void *user) {
    struct lb_visit *visit = user;
    lb_job_destroy(visit->job);
    lb_hosted_release(visit->hosted);
}

bool lb_visit_model(struct lb_exchange *x) {
    struct lb_visit *visit = x->user;
    struct lb_detail detail = {0};
    enum lb_status status = lb_repository_get(visit->server->repository, visit->match.model,
                                              visit->match.version, &visit->hosted, &detail);
    if (status != LB_OK) {
        lb_reply_fail(x, status, &detail);
    }
    return status == LB_OK;
}

const char *lb_visit_cache_control(const struct lb_visit *visit) {
    if (!visit->match.version[0]) {
        return "no-cache";
    }
    return visit->server->auth ? "private, max-age=31536000, immutable"
                               : "public, max-age=31536000, immutable";
}
