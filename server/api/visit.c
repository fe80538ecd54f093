#include "server/api/visit.h"

void lb_visit_free(void *user) {
    struct lb_visit *visit = user;
    if (visit->stream) {
        visit->stream_end(visit->stream);
    }
    lb_job_destroy(visit->job);
    lb_hosted_release(visit->hosted);
}

const char *lb_visit_cache_control(const struct lb_visit *visit) {
    if (!visit->match.version[0]) {
        return "no-cache";
    }
    return visit->server->auth ? "private, max-age=31536000, immutable"
                               : "public, max-age=31536000, immutable";
}
