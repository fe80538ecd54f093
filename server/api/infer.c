/* POST .../infer: decode, plan, queue; later: the answer, without copying a tensor. */
#include "server/api/table.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "proto/oip.h"
#include "server/api/reply.h"
#include "server/engine/admit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* Inference-Header-Content-Length, -1 without one; false (and answered) when it is no number. */
static bool json_length(struct lb_exchange *x, int64_t *out) {
    const char *text = lb_exchange_header(x, LB_HEADER_JSON_LENGTH);
    *out = -1;
    if (!text) {
        return true;
    }
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 18 || text[digits]) {
        lb_reply_error(x, 400, LB_HEADER_JSON_LENGTH ": \"%.32s\" is not a number of bytes", text);
        return false;
    }
    *out = strtoll(text, NULL, 10);
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

/* ---- memory ---- */

/* What takes memory while it is decoded, about: a JSON value, what an object takes beside it, a member's key;
 * and one number of an answer as JSON. */
#define DECODED_VALUE 64
#define DECODED_OBJECT 192
#define DECODED_KEY 64
#define JSON_NUMBER 16
/* An answer with more numbers as JSON than this is heavy. */
#define LIGHT_NUMBERS 4096
/* And one of more bytes, when they are digested. */
#define LIGHT_BYTES ((size_t)1 << 20)

/* Held before it is needed; false, and answered, when it can't be had. */
static bool hold(struct lb_server *server, struct lb_exchange *x, size_t bytes) {
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

/* For decoding the body: JSON up to json_len (-1: all of it), and tensors, of which the job has copies. */
static size_t decoding_bytes(const char *body, size_t body_len, int64_t json_len) {
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

/* Makes visit->job of the request, or answers. */
static bool make_job(struct lb_server *server, struct lb_exchange *x,
                     const struct lb_infer_request *request) {
    const struct lb_plan_limits limits = {MAX_OUTPUT_BYTES, LB_MAX_REQUEST_TOKENS, MAX_JSON_NUMBERS};
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
    if (status == LB_OK) {
        status = lb_engine_admit(server->engine, job, &detail);
    }
    if (status != LB_OK) {
        lb_reply_fail(x, status, &detail);
        return false;
    }
    visit->id = request->id ? lb_arena_strdup(&job->arena, request->id) : NULL;
    size_t numbers = lb_job_json_numbers(job);
    visit->json_bytes = numbers * JSON_NUMBER;
    x->heavy = numbers > LIGHT_NUMBERS || (request->answer_digest && job->output_bytes > LIGHT_BYTES);
    visit->answer_digest = request->answer_digest;
    if (request->answer_digest && job->n_outputs >= LB_MAX_TENSORS) {
        lb_reply_error(x, 400, "%zu outputs and answer_digest; at most %d outputs have one", job->n_outputs,
                       LB_MAX_TENSORS - 1);
        return false;
    }
    job->deadline_ns = deadline(server, request, x->started_ns);
    job->rank = rank_of(request->priority);
    job->client = x->memory.client;
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

/* Puts the JSON, the binary tensors and their digest together as parts, and sets the headers. */
static bool assemble(struct lb_exchange *x, const struct lb_job *job,
                     const struct lb_infer_response *response, const struct lb_buf *head) {
    struct lb_span *parts = lb_arena_array(&x->arena, job->n_outputs + 2, sizeof *parts);
    uint8_t *digest = lb_arena_array(&x->arena, LB_SHA256_BYTES, 1);
    char *length = lb_arena_printf(&x->arena, "%zu", head->len);
    if (!parts || !length || !digest) {
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
    if (binary && response->digest_of) {
        if (lb_answer_digest(response, head->data, head->len, digest) != LB_OK) {
            return false;
        }
        parts[n++] = (struct lb_span){digest, LB_SHA256_BYTES};
    }
    x->reply.status = 200;
    x->reply.text = !binary;
    x->reply.parts = parts;
    x->reply.n_parts = n;
    lb_reply_header(x, "Content-Type", binary ? "application/octet-stream" : "application/json");
    if (binary) {
        lb_reply_header(x, LB_HEADER_JSON_LENGTH, length);
    }
    return true;
}

/* Once they are written as JSON, the numbers themselves go, and what was held too much for the text. */
static void release_json_outputs(struct lb_exchange *x, struct lb_job *job) {
    struct lb_visit *visit = x->user;
    for (size_t i = 0; i < job->n_outputs; i++) {
        if (!job->outputs[i].binary) {
            lb_free(job->outputs[i].data);
            job->outputs[i].data = NULL;
            lb_unhold(&x->memory, job->outputs[i].bytes);
        }
    }
    if (x->body.len < visit->json_bytes) {
        lb_unhold(&x->memory, visit->json_bytes - x->body.len);
    }
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
                                         .compute = job->model->compute,
                                         .digest_of =
                                             visit->answer_digest ? visit->digest + strlen("sha-256=") : NULL,
                                         .n_outputs = job->n_outputs,
                                         .outputs = wire_outputs(x, job)};
    /* The request's bytes are gone; their buffer takes the answer's JSON and lives as long as the exchange.
     */
    lb_buf_init(&x->body, LB_MAX_JSON_ANSWER_BYTES);
    enum lb_status status = response.outputs ? lb_infer_response_head(&response, &x->body, &detail)
                                             : lb_fail(&detail, LB_E_NOMEM, "out of memory; try again");
    if (status != LB_OK) {
        /* Numbers that JSON can't say are mended by asking for binary data. */
        lb_reply_fail(x, status == LB_E_UNSUPPORTED ? LB_E_ARG : status, &detail);
        return;
    }
    release_json_outputs(x, job);
    if (!assemble(x, job, &response, &x->body)) {
        lb_reply_error(x, 503, "out of memory; try again");
        return;
    }
    lb_reply_header(x, LB_HEADER_DIGEST, visit->digest);
    lb_reply_header(x, "Cache-Control", lb_visit_cache_control(visit));
}

/* Somebody may still be reading: one who closed only his own side. */
static void reply_gone(struct lb_exchange *x) {
    lb_reply_error(x, 400, "the connection was closed for sending before the answer was there; keep it open");
}

static void finish(struct lb_server *server, struct lb_exchange *x) {
    struct lb_visit *visit = x->user;
    observe(server, visit->job);
    if (visit->job->status == LB_E_CANCELLED) {
        reply_gone(x);
        return;
    }
    if (visit->job->status != LB_OK) {
        lb_reply_fail(x, visit->job->status, &visit->job->detail);
        return;
    }
    reply_outputs(x);
}

/* ---- the question ---- */

/* Whether the body can be one JSON object: its last byte but for spaces. */
static bool ends_as_object(const struct lb_buf *body) {
    size_t len = body->len;
    while (len > 0 && strchr(" \t\r\n", body->data[len - 1]) && body->data[len - 1] != '\0') {
        len--;
    }
    return len > 0 && body->data[len - 1] == '}';
}

/* The request, in the exchange's arena, for which memory is held first; or an answer.
 *
 * tritonclient writes the header into the dictionary of headers that its caller passed, so a program that
 * keeps one dictionary (for its token) sends the length of an earlier request with one that is all JSON. Such
 * a body is one JSON object from end to end and can mean nothing else: it is taken. Otherwise the first error
 * stands. */
static bool decode(struct lb_server *server, struct lb_exchange *x, int64_t json_len,
                   struct lb_infer_request *out) {
    const char *body = x->body.data ? x->body.data : "";
    struct lb_detail detail = {0};
    if (!hold(server, x, decoding_bytes(body, x->body.len, json_len))) {
        return false;
    }
    enum lb_status status = lb_infer_request_decode(body, x->body.len, json_len, &x->arena, out, &detail);
    if (status == LB_E_FORMAT && json_len >= 0 && ends_as_object(&x->body)) {
        if (!hold(server, x, decoding_bytes(body, x->body.len, -1))) {
            return false;
        }
        if (lb_infer_request_decode(body, x->body.len, -1, &x->arena, out, NULL) == LB_OK) {
            return true;
        }
    }
    if (status != LB_OK) {
        lb_reply_fail(x, status, &detail);
    }
    return status == LB_OK;
}

/* The request as a job that is ready to be queued, and nothing else of it left; or an answer. */
static bool prepare(struct lb_server *server, struct lb_exchange *x) {
    struct lb_infer_request request;
    int64_t json_len = -1;
    struct lb_arena_mark mark = lb_arena_mark(&x->arena);
    if (!lb_reply_find_model(x) || !json_length(x, &json_len) || !decode(server, x, json_len, &request) ||
        !digest(x, &request) || !make_job(server, x, &request)) {
        return false;
    }
    struct lb_visit *visit = x->user;
    struct lb_job *job = visit->job;
    lb_arena_release(&x->arena, mark);
    lb_buf_finish(&x->body);
    lb_unhold(&x->memory, x->memory.bytes);
    return hold(server, x, job->arena.used + job->output_bytes + visit->json_bytes);
}

void lb_handle_infer(struct lb_server *server, struct lb_exchange *x, const struct lb_route_match *match) {
    (void)match;
    struct lb_visit *visit = x->user;
    struct lb_detail detail = {0};
    if (atomic_load(&x->gone)) {
        reply_gone(x);
        return;
    }
    if (!prepare(server, x)) {
        return;
    }
    /* Deferred first: the worker may be done before submit returns. */
    struct lb_job *job = visit->job;
    visit->finish = finish;
    lb_exchange_defer(x);
    atomic_store(&visit->submitted, job);
    enum lb_status status = atomic_load(&x->gone) ? lb_fail(&detail, LB_E_CANCELLED, "the client has left")
                                                  : lb_batcher_submit(server->batcher, job, &detail);
    if (status != LB_OK) {
        job->status = status;
        job->detail = detail;
        lb_exchange_resume(x);
    }
}
