#include "server/api/visit.h"

void lb_visit_leave(struct lb_visit *visit) {
    if (visit->entered) {
        lb_quota_leave(visit->quota);
        visit->entered = false;
    }
}

void lb_visit_excuse(struct lb_visit *visit) {
    if (visit->promised) {
        lb_writer_excuse(visit->server->writer);
        visit->promised = false;
    }
}

void lb_visit_free(void *user) {
    struct lb_visit *visit = user;
    lb_visit_excuse(visit);
    if (visit->stream) {
        visit->stream_end(visit->stream);
    }
    lb_writing_destroy(visit->writing);
    lb_job_destroy(visit->job);
    lb_hosted_release(visit->hosted);
    lb_visit_leave(visit);
    lb_quota_release(visit->quota);
}

struct lb_visit_work lb_visit_work(const struct lb_visit *visit) {
    struct lb_visit_work work = {0};
    const struct lb_job *job = visit->job;
    const struct lb_writing *w = visit->writing;
    if (job && job->queued_ns) {
        uint64_t begun = job->started_ns ? job->started_ns : job->finished_ns;
        work = (struct lb_visit_work){
            .n_seqs = job->n_seqs,
            .tokens = job->n_tokens,
            .n_batches = job->n_batches,
            .queued_ns = job->queued_ns,
            .waited_ns = begun > job->queued_ns ? begun - job->queued_ns : 0,
            .compute_ns = job->compute_ns,
        };
    }
    if (w && w->submitted_ns) {
        work.n_seqs = w->n;
        work.tokens += lb_writing_tokens(w);
        work.queued_ns = work.queued_ns ? work.queued_ns : w->submitted_ns;
        work.waited_ns += w->started_ns > w->submitted_ns ? w->started_ns - w->submitted_ns : 0;
        work.compute_ns += w->compute_ns;
    }
    return work;
}

enum lb_status lb_visit_object(const struct lb_exchange *exchange, json_t **out, struct lb_detail *detail) {
    json_t *object = NULL;
    if (exchange->body.len > 0) {
        enum lb_status status = lb_json_parse(exchange->body.data, exchange->body.len, LB_MAX_JSON_DEPTH,
                                              "request", &object, detail);
        if (status != LB_OK) {
            return status;
        }
        if (!json_is_object(object)) {
            json_decref(object);
            return lb_fail(detail, LB_E_FORMAT, "request: expected a JSON object, as in {}");
        }
    }
    *out = object;
    return LB_OK;
}

const char *lb_visit_cache_control(const struct lb_visit *visit) {
    if (!visit->match.version[0]) {
        return "no-cache";
    }
    const struct lb_options *options = visit->server->options;
    return options->token_file || options->tls_client_ca ? "private, max-age=31536000, immutable"
                                                         : "public, max-age=31536000, immutable";
}
