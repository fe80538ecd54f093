#include "server/api/submit.h"

#include "common/base/clock.h"
#include "server/api/access.h"
#include "server/api/reply.h"
#include "server/api/streamed.h"
#include "server/engine/admit.h"
#include "server/engine/known.h"
#include "server/engine/stream.h"

/* A job's own arena: ids, offsets and output descriptions. */
#define JOB_ARENA_BYTES ((size_t)LB_MAX_BODY_BYTES * 2)
/* Of an answer's tensors, so that it has room for the JSON in front of them and for its digest. */
#define MAX_OUTPUT_BYTES (LB_MAX_RESPONSE_BYTES - LB_MAX_JSON_BYTES - LB_SHA256_BYTES)
/* Of its numbers as JSON, so that there is room for what readers count beside them: about 15 commas and
 * brackets for each output. */
#define MAX_JSON_NUMBERS (LB_MAX_JSON_VALUES - 32 * LB_MAX_TENSORS)
/* Where a priority of 0, the default, stands among those that are given (1 is the highest). */
#define DEFAULT_RANK 8
#define MAX_RANK 1000000

/* ---- memory ---- */

/* What takes memory while it is decoded, about: a JSON value, what an object takes beside it, a member's key.
 */
#define DECODED_VALUE 64
#define DECODED_OBJECT 192
#define DECODED_KEY 64

bool lb_submit_hold(struct lb_server *server, struct lb_exchange *x, size_t bytes) {
    size_t largest = lb_budget_largest(server->budget);
    if (x->memory.bytes + bytes > largest) {
        lb_reply_error(
            x, 413,
            "the request and its answer need %zu MiB of memory, of which one request may have %zu here "
            "(--memory-limit-mib); ask for fewer sequences at once, FP16, or top-k instead of logits",
            ((x->memory.bytes + bytes) >> 20) + 1, largest >> 20);
        return false;
    }
    if (!lb_hold(&x->memory, bytes)) {
        lb_reply_error(x, 503, "too many bytes in flight; try again");
        return false;
    }
    return true;
}

size_t lb_submit_decoding_bytes(const char *body, size_t body_len, int64_t json_len) {
    size_t len = json_len >= 0 && (size_t)json_len < body_len ? (size_t)json_len : body_len;
    size_t values = 0, objects = 0, keys = 0;
    for (size_t i = 0; i < len; i++) {
        char c = body[i];
        values += c == ',' || c == '[';
        objects += c == '{';
        keys += c == ':';
    }
    return body_len + values * DECODED_VALUE + objects * DECODED_OBJECT + keys * DECODED_KEY;
}

/* ---- the job ---- */

/* Called by the batcher: the job is computed, failed or late. */
static void job_done(struct lb_job *job) {
    lb_exchange_resume(job->context);
}

static uint64_t deadline(const struct lb_server *server, const struct lb_infer_request *request,
                         uint64_t begun) {
    uint64_t limit_us = (uint64_t)server->options->request_timeout_s * 1000000;
    uint64_t us = request->timeout_us > 0 && request->timeout_us < limit_us ? request->timeout_us : limit_us;
    return begun + us * 1000;
}

static int rank_of(int64_t priority) {
    if (priority <= 0) {
        return DEFAULT_RANK;
    }
    return priority > MAX_RANK ? MAX_RANK : (int)priority;
}

/* Room for what is drawn, in the job's arena. */
static enum lb_status plan_draw(struct lb_job *job, const struct lb_job_draw *draw,
                                struct lb_detail *detail) {
    struct lb_job_draw *own = lb_arena_array(&job->arena, 1, sizeof *own);
    int32_t *ids = lb_arena_zarray(&job->arena, (size_t)job->n_seqs, sizeof *ids);
    float *logprobs = lb_arena_zarray(&job->arena, (size_t)job->n_seqs, sizeof *logprobs);
    double *lifts = lb_arena_zarray(&job->arena, (size_t)job->n_seqs, sizeof *lifts);
    if (!own || !ids || !logprobs || !lifts) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for this request; try again");
    }
    *own = *draw;
    own->ids = ids;
    own->logprobs = logprobs;
    own->lifts = lifts;
    job->draw = own;
    return LB_OK;
}

bool lb_submit_plan(struct lb_server *server, struct lb_exchange *x, const struct lb_infer_request *request,
                    const struct lb_job_draw *draw) {
    struct lb_visit *visit = x->user;
    const struct lb_plan_limits limits = {MAX_OUTPUT_BYTES, LB_MAX_REQUEST_TOKENS, MAX_JSON_NUMBERS,
                                          visit->streams ? LB_STREAM_BYTES : 0};
    struct lb_detail detail = {0};
    struct lb_job *job = lb_job_create(JOB_ARENA_BYTES);
    if (!job) {
        lb_reply_error(x, 503, "out of memory; try again");
        return false;
    }
    visit->job = job;
    job->model = lb_hosted_retain(visit->hosted);
    enum lb_status status = lb_plan(request, &limits, job, &detail);
    if (status == LB_OK && draw) {
        status = plan_draw(job, draw, &detail);
    }
    if (status == LB_OK) {
        status = lb_engine_admit(server->engine, job, &detail);
    }
    if (status != LB_OK) {
        lb_reply_fail(x, status, &detail);
        return false;
    }
    job->deadline_ns = deadline(server, request, x->started_ns);
    job->rank = rank_of(request->priority);
    job->client = x->memory.client;
    job->done = job_done;
    job->context = x;
    return true;
}

size_t lb_submit_job_bytes(const struct lb_job *job) {
    size_t streams = job->kept ? job->state_bytes + lb_logits_stream_bytes(job) : 0;
    size_t map = job->map ? job->map->bytes : 0; /* which it may be the last to hold */
    return job->arena.used + job->output_bytes - job->streamed_bytes + streams + map +
           lb_known_job_bytes(job);
}

/* ---- its way ---- */

/* Somebody may still be reading: one who closed only his own side. */
static void reply_gone(struct lb_exchange *x) {
    lb_reply_error(x, 400, "the connection was closed for sending before the answer was there; keep it open");
}

bool lb_submit_gone(struct lb_exchange *x) {
    bool gone = atomic_load(&x->gone);
    if (gone) {
        reply_gone(x);
    }
    return gone;
}

void lb_submit(struct lb_server *server, struct lb_exchange *x,
               void (*finish)(struct lb_server *server, struct lb_exchange *exchange)) {
    struct lb_visit *visit = x->user;
    struct lb_job *job = visit->job;
    struct lb_detail detail = {0};
    if (!lb_access_take(x, job->n_tokens)) {
        lb_visit_excuse(visit);
        return;
    }
    /* Deferred first: the worker may be done before submit returns. */
    visit->finish = finish;
    lb_exchange_defer(x);
    atomic_store(&visit->submitted, job);
    enum lb_status status = atomic_load(&x->gone) ? lb_fail(&detail, LB_E_CANCELLED, "the client has left")
                                                  : lb_batcher_submit(server->batcher, job, &detail);
    if (status != LB_OK) {
        lb_access_give_back(x, job->n_tokens);
        job->status = status;
        job->detail = detail;
        lb_exchange_resume(x);
    }
}

static void observe(struct lb_server *server, const struct lb_visit *visit) {
    const struct lb_job *job = visit->job;
    const char *labels[] = {job->model->name};
    uint64_t now = lb_now_ns();
    if (job->started_ns != 0) {
        lb_metrics_add(server->metrics, LB_METRIC_QUEUE_WAIT, labels,
                       (double)(job->started_ns - job->queued_ns) / LB_SECOND_NS);
    }
    if (job->status == LB_E_TIMEOUT) {
        lb_metrics_add(server->metrics, LB_METRIC_EXPIRED, labels, 1);
    }
    if (job->status == LB_OK && visit->writing) {
        return; /* the request isn't over: it counts when its text is written */
    }
    const struct lb_visit_work work = lb_visit_work(visit);
    lb_stats_request(&job->model->stats, job->status == LB_OK, job->n_seqs,
                     work.queued_ns ? now - work.queued_ns : 0, work.waited_ns, work.compute_ns);
}

bool lb_submit_computed(struct lb_server *server, struct lb_exchange *x) {
    const struct lb_visit *visit = x->user;
    const struct lb_job *job = visit->job;
    observe(server, visit);
    if (job->status == LB_E_CANCELLED) {
        reply_gone(x);
    } else if (job->status != LB_OK) {
        lb_reply_fail(x, job->status, &job->detail);
    }
    return job->status == LB_OK;
}
