/* POST .../infer: decode, plan, queue; later: the answer, without copying a tensor. */
#include "server/api/table.h"

#include "common/base/mem.h"
#include "proto/oip.h"
#include "server/api/reply.h"
#include "server/api/streamed.h"
#include "server/api/submit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* One number of an answer as JSON, about. */
#define JSON_NUMBER 16

/* ---- the job ---- */

/* Makes visit->job of the request, or answers. */
static bool make_job(struct lb_server *server, struct lb_exchange *x,
                     const struct lb_infer_request *request) {
    struct lb_visit *visit = x->user;
    visit->streams = true;
    if (!lb_submit_plan(server, x, request, NULL)) {
        return false;
    }
    struct lb_job *job = visit->job;
    visit->id = request->id ? lb_arena_strdup(&job->arena, request->id) : NULL;
    size_t numbers = lb_job_json_numbers(job);
    visit->json_bytes = numbers * JSON_NUMBER;
    size_t digested = request->answer_digest ? job->output_bytes - job->streamed_bytes : 0;
    x->heavy = numbers > LB_LIGHT_NUMBERS || digested > LB_LIGHT_BYTES;
    visit->answer_digest = request->answer_digest;
    if (request->answer_digest && job->n_outputs >= LB_MAX_TENSORS) {
        lb_reply_error(x, 400, "%zu outputs and answer_digest; at most %d outputs have one", job->n_outputs,
                       LB_MAX_TENSORS - 1);
        return false;
    }
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
    if (job->streamed_bytes == 0 && binary && response->digest_of) {
        if (lb_answer_digest(response, head->data, head->len, digest) != LB_OK) {
            return false;
        }
        parts[n++] = (struct lb_span){digest, LB_SHA256_BYTES};
    }
    x->reply.status = 200;
    x->reply.text = !binary;
    x->reply.parts = parts;
    x->reply.n_parts = n;
    if (job->streamed_bytes > 0 && !lb_reply_streamed(x, response, head->data, head->len)) {
        return false;
    }
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
                                         .vocab_map = job->map ? job->map->digest : NULL,
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

static void finish(struct lb_server *server, struct lb_exchange *x) {
    if (lb_submit_computed(server, x)) {
        reply_outputs(x);
    }
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
    if (!lb_submit_hold(server, x, lb_submit_decoding_bytes(body, x->body.len, json_len))) {
        return false;
    }
    enum lb_status status = lb_infer_request_decode(body, x->body.len, json_len, &x->arena, out, &detail);
    if (status == LB_E_FORMAT && json_len >= 0 && ends_as_object(&x->body)) {
        if (!lb_submit_hold(server, x, lb_submit_decoding_bytes(body, x->body.len, -1))) {
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
    return lb_submit_hold(server, x, lb_submit_job_bytes(job) + visit->json_bytes);
}

void lb_handle_infer(struct lb_server *server, struct lb_exchange *x, const struct lb_route_match *match) {
    (void)match;
    if (!lb_submit_gone(x) && prepare(server, x)) {
        lb_submit(server, x, finish);
    }
}
