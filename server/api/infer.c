/* POST .../infer: decode, plan, queue; later: the answer, without copying a tensor. */
#include "server/api/table.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "proto/oip.h"
#include "server/api/reply.h"
#include "server/engine/admit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A job's own arena: ids, offsets and output descriptions. */
#define JOB_ARENA_BYTES ((size_t)LB_MAX_BODY_BYTES * 2)
/* Where a priority of 0, the default, stands among those that are given (1 is the highest). */
#define DEFAULT_RANK 8
#define MAX_RANK 1000000

/* Inference-Header-Content-Length, -1 without one; false (and answered) when it is no number. */
static bool json_length(struct lb_exchange *x, int64_t *out) {
    const char *text = lb_exchange_header(x, LB_HEADER_JSON_LENGTH);
    *out = -1;
    if (!text) {
        return true;
    }
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end || value < 0) {
        lb_reply_error(x, 400, LB_HEADER_JSON_LENGTH ": \"%.32s\" is not a number of bytes", text);
        return false;
    }
    *out = value;
    return true;
}

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

/* Makes visit->job of the request, or answers. */
static bool make_job(struct lb_server *server, struct lb_exchange *x,
                     const struct lb_infer_request *request) {
    const struct lb_plan_limits limits = {LB_MAX_RESPONSE_BYTES, LB_MAX_REQUEST_TOKENS, LB_MAX_JSON_VALUES};
    struct lb_visit *visit = x->user;
    struct lb_detail detail = {0};
    struct lb_job *job = lb_job_create(JOB_ARENA_BYTES);
    if (!job) {
        lb_reply_error(x, 503, "out of memory; try again");
        return false;
    }
    visit->job = job;
    job->model = lb_hosted_retain(visit->hosted);
    enum lb_status status = lb_plan(request, &limits, job, &detail);
    if (status != LB_OK) {
        lb_reply_fail(x, status, &detail);
        return false;
    }
    if (!lb_budget_take(&server->budget, job->output_bytes)) {
        lb_reply_error(x, 503, "too many bytes in flight; try again");
        return false;
    }
    visit->taken = job->output_bytes;
    job->deadline_ns = deadline(server, request, x->started_ns);
    job->rank = rank_of(request->priority);
    job->done = job_done;
    job->context = x;
    return true;
}

static bool digest(struct lb_exchange *x, const struct lb_infer_request *request) {
    struct lb_visit *visit = x->user;
    char hex[LB_SHA256_HEX];
    if (lb_request_digest(visit->hosted->version, request, hex) != LB_OK) {
        lb_reply_error(x, 503, "out of memory; try again");
        return false;
    }
    snprintf(visit->digest, sizeof visit->digest, "sha-256=%s", hex);
    return true;
}

/* ---- the answer ---- */

static void observe(struct lb_server *server, const struct lb_job *job) {
    const char *labels[] = {job->model->name};
    uint64_t now = lb_now_ns();
    if (job->started_ns != 0) {
        lb_metrics_add(server->metrics, LB_METRIC_QUEUE_WAIT, labels,
                       (double)(job->started_ns - job->queued_ns) / LB_SECOND_NS);
    }
    if (job->status == LB_E_TIMEOUT) {
        lb_metrics_add(server->metrics, LB_METRIC_EXPIRED, labels, 1);
    }
    uint64_t begun = job->queued_ns ? job->queued_ns : now;
    lb_stats_request(&job->model->stats, job->status == LB_OK, job->n_seqs, now - begun,
                     job->started_ns ? job->started_ns - begun : 0, job->compute_ns);
}

static struct lb_wire_tensor *wire_outputs(struct lb_exchange *x, const struct lb_job *job) {
    struct lb_wire_tensor *tensors = lb_arena_zarray(&x->arena, job->n_outputs, sizeof *tensors);
    for (size_t i = 0; tensors && i < job->n_outputs; i++) {
        const struct lb_job_output *o = &job->outputs[i];
        struct lb_wire_tensor *t = &tensors[i];
        t->name = o->name;
        t->datatype = o->datatype;
        t->n_dims = o->n_dims;
        memcpy(t->dim, o->dim, sizeof t->dim);
        t->data = o->data;
        t->bytes = o->bytes;
        t->binary = o->binary;
    }
    return tensors;
}

/* Puts the JSON and the binary tensors together as parts, and sets the headers. */
static bool assemble(struct lb_exchange *x, const struct lb_job *job, const struct lb_buf *head) {
    struct lb_span *parts = lb_arena_array(&x->arena, job->n_outputs + 1, sizeof *parts);
    char *length = lb_arena_printf(&x->arena, "%zu", head->len);
    if (!parts || !length) {
        return false;
    }
    size_t n = 0;
    parts[n++] = (struct lb_span){head->data, head->len};
    for (size_t i = 0; i < job->n_outputs; i++) {
        if (job->outputs[i].binary && job->outputs[i].bytes > 0) {
            parts[n++] = (struct lb_span){job->outputs[i].data, job->outputs[i].bytes};
        }
    }
    bool binary = false;
    for (size_t i = 0; i < job->n_outputs; i++) {
        binary |= job->outputs[i].binary;
    }
    x->reply.status = 200;
    x->reply.parts = parts;
    x->reply.n_parts = n;
    lb_reply_header(x, "Content-Type", binary ? "application/octet-stream" : "application/json");
    if (binary) {
        lb_reply_header(x, LB_HEADER_JSON_LENGTH, length);
    }
    return true;
}

static void reply_outputs(struct lb_exchange *x) {
    struct lb_visit *visit = x->user;
    struct lb_job *job = visit->job;
    struct lb_detail detail = {0};
    struct lb_infer_response response = {.model_name = job->model->name,
                                         .model_version = job->model->version,
                                         .id = visit->id,
                                         .top_k = job->needs_topk ? job->top_k : 0,
                                         .temperature = job->temperature,
                                         .n_outputs = job->n_outputs,
                                         .outputs = wire_outputs(x, job)};
    /* The request's bytes aren't needed any more; their buffer takes the answer's JSON and lives as long as
     * the exchange. */
    lb_buf_finish(&x->body);
    lb_buf_init(&x->body, LB_MAX_JSON_ANSWER_BYTES);
    enum lb_status status = response.outputs ? lb_infer_response_head(&response, &x->body, &detail)
                                             : lb_fail(&detail, LB_E_NOMEM, "out of memory; try again");
    if (status != LB_OK) {
        /* Numbers that JSON can't say are mended by asking for binary data. */
        lb_reply_fail(x, status == LB_E_UNSUPPORTED ? LB_E_ARG : status, &detail);
        return;
    }
    if (!assemble(x, job, &x->body)) {
        lb_reply_error(x, 503, "out of memory; try again");
        return;
    }
    lb_reply_header(x, LB_HEADER_DIGEST, visit->digest);
    lb_reply_header(x, "Vary", "Accept-Encoding");
    lb_reply_header(x, "Cache-Control", lb_visit_cache_control(visit));
}

static void finish(struct lb_server *server, struct lb_exchange *x) {
    struct lb_visit *visit = x->user;
    observe(server, visit->job);
    if (visit->job->status != LB_OK) {
        lb_reply_fail(x, visit->job->status, &visit->job->detail);
        return;
    }
    reply_outputs(x);
}

/* ---- the question ---- */

/* tritonclient writes the header into the dictionary of headers that its caller passed, so a program that
 * keeps one dictionary (for its token) sends the length of an earlier request with one that is all JSON. Such
 * a body is one JSON object from end to end and can mean nothing else: it is taken. Otherwise the first error
 * stands. */
static enum lb_status decode(struct lb_exchange *x, int64_t json_len, struct lb_infer_request *out,
                             struct lb_detail *detail) {
    const char *body = x->body.data ? x->body.data : "";
    enum lb_status status = lb_infer_request_decode(body, x->body.len, json_len, &x->arena, out, detail);
    if (status == LB_E_FORMAT && json_len >= 0 &&
        lb_infer_request_decode(body, x->body.len, -1, &x->arena, out, NULL) == LB_OK) {
        return LB_OK;
    }
    return status;
}

void lb_handle_infer(struct lb_server *server, struct lb_exchange *x, const struct lb_route_match *match) {
    (void)match;
    struct lb_visit *visit = x->user;
    struct lb_infer_request request;
    struct lb_detail detail = {0};
    int64_t json_len = -1;
    if (!lb_visit_model(x) || !json_length(x, &json_len)) {
        return;
    }
    enum lb_status status = decode(x, json_len, &request, &detail);
    if (status != LB_OK) {
        lb_reply_fail(x, status, &detail);
        return;
    }
    visit->id = request.id;
    if (!digest(x, &request) || !make_job(server, x, &request)) {
        return;
    }
    /* Suspended first: the worker may be done before submit returns. */
    struct lb_job *job = visit->job;
    visit->finish = finish;
    lb_exchange_defer(x);
    status = lb_batcher_submit(server->batcher, job, &detail);
    if (status != LB_OK) {
        job->status = status;
        job->detail = detail;
        lb_exchange_resume(x);
    }
}
