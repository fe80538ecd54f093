/* POST /v1/embeddings: a vector for each text; POST /pooling: the final state of each token. */
#include "server/api/vllm.h"

#include "proto/oip.h"
#include "server/api/reply.h"
#include "server/api/submit.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* Bytes of a number in JSON, and of an entry of the answer beside its numbers, about. */
#define NUMBER_BYTES 14
#define ENTRY_BYTES 128
/* Clients take headers of 64 KiB. */
#define MAX_METADATA 60000

struct asked {
    struct lb_vllm_pooling request;
    bool tokens; /* of each token its state, not one vector of each text */
    size_t answer_bytes;
};

static bool in_bytes(const struct lb_vllm_pooling *request) {
    return request->format == LB_VLLM_BYTES || request->format == LB_VLLM_BYTES_ONLY;
}

static bool decode(struct lb_exchange *x, struct asked *asked) {
    const char *body = x->body.data ? x->body.data : "";
    struct lb_detail detail = {0};
    enum lb_status status =
        lb_vllm_pooling_decode(body, x->body.len, asked->tokens, &x->arena, &asked->request, &detail);
    if (status != LB_OK) {
        lb_reply_fail(x, status, &detail);
    }
    return status == LB_OK;
}

/* Whether the answer can be what was asked for: vectors of that size, numbers that fit JSON. */
static bool check(struct lb_exchange *x, struct asked *asked) {
    const struct lb_job *job = ((struct lb_visit *)x->user)->job;
    const struct lb_vllm_pooling *request = &asked->request;
    const struct lb_job_output *o = &job->outputs[0];
    size_t numbers = o->bytes / lb_datatype_bytes(o->datatype);
    if (request->dimensions > 0 && request->dimensions != o->width) {
        lb_reply_error(x, 400, "request: dimensions is %lld; this model's vectors have %lld",
                       (long long)request->dimensions, (long long)o->width);
        return false;
    }
    if (request->format == LB_VLLM_FLOAT && numbers > LB_MAX_JSON_VALUES) {
        lb_reply_error(
            x, 400,
            "request: encoding_format float, and %zu numbers; at most %d go into JSON: ask for base64%s",
            numbers, LB_MAX_JSON_VALUES, asked->tokens ? " or bytes" : "");
        return false;
    }
    asked->answer_bytes =
        (size_t)job->n_seqs * ENTRY_BYTES + (in_bytes(request)                   ? 0
                                             : request->format == LB_VLLM_BASE64 ? (o->bytes + 2) / 3 * 4
                                                                                 : numbers * NUMBER_BYTES);
    x->heavy = asked->answer_bytes > LB_LIGHT_BYTES;
    return true;
}

static bool plan(struct lb_server *server, struct lb_exchange *x, struct asked *asked) {
    struct lb_vllm_matrix matrix;
    if (!lb_vllm_matrix(x, &asked->request.prompts, false, &matrix)) {
        return false;
    }
    struct lb_wire_output output = {.name = asked->tokens ? "hidden_states.final" : "sentence_embedding",
                                    .binary = true,
                                    .datatype = asked->request.dtype};
    const struct lb_infer_request infer = {.top_k = 1,
                                           .temperature = 1,
                                           .n_inputs = matrix.n_inputs,
                                           .inputs = matrix.inputs,
                                           .n_outputs = 1,
                                           .outputs = &output};
    bool planned = lb_submit_plan(server, x, &infer, NULL);
    lb_vllm_matrix_finish(&matrix);
    return planned && check(x, asked);
}

static bool prepare(struct lb_server *server, struct lb_exchange *x, bool tokens) {
    const struct lb_visit *visit = x->user;
    struct asked *asked = lb_vllm_begin(server, x, sizeof *asked);
    if (!asked) {
        return false;
    }
    asked->tokens = tokens;
    if (!decode(x, asked) || !lb_vllm_find_model(x, asked->request.model)) {
        return false;
    }
    if (!visit->hosted->decoder) {
        lb_reply_error(x, 400, "model %s reads no text", visit->hosted->name);
        return false;
    }
    if (tokens && lb_model_is_classifier(visit->hosted->model)) {
        lb_reply_error(x, 400,
                       "model %s is a classifier, whose final state is one row a text; ask /v2 for "
                       "hidden_states.final, or for hidden_states.N of each token",
                       visit->hosted->name);
        return false;
    }
    return lb_vllm_encode(x, &asked->request.prompts, asked->request.add_special) && plan(server, x, asked) &&
           lb_vllm_planned(server, x, asked->answer_bytes);
}

/* ---- answers ---- */

/* The numbers of sequence b. */
static const void *numbers_of(const struct lb_job *job, int64_t b, bool tokens) {
    const struct lb_job_output *o = &job->outputs[0];
    int64_t at = b * (tokens ? job->rows : 1) * o->width;
    return (const char *)o->data + at * (int64_t)lb_datatype_bytes(o->datatype);
}

static void reply_json(struct lb_server *server, struct lb_exchange *x, const struct asked *asked,
                       const struct lb_job *job) {
    struct lb_detail detail = {0};
    const struct lb_job_output *o = &job->outputs[0];
    struct lb_vllm_writer writer;
    const char *name = lb_vllm_open_answer(x, asked->tokens ? "pool-" : "embd-", asked->request.request_id,
                                           &writer, &detail);
    if (!name) {
        return;
    }
    lb_buf_append_str(&x->body, "{\"id\":");
    lb_vllm_put_text(&writer, name, strlen(name));
    lb_buf_printf(&x->body, ",\"object\":\"list\",\"created\":%lld,\"model\":\"%s\",\"data\":[",
                  (long long)time(NULL), job->model->name);
    for (int64_t b = 0; b < job->n_seqs && writer.status == LB_OK; b++) {
        lb_vllm_put_vectors(&writer, &asked->request, asked->tokens, b, numbers_of(job, b, asked->tokens),
                            asked->tokens ? lb_job_length(job, b) : 1, o->width);
    }
    lb_buf_printf(&x->body, "],\"usage\":{\"prompt_tokens\":%lld,\"total_tokens\":%lld}}\n",
                  (long long)job->n_tokens, (long long)job->n_tokens);
    (void)lb_vllm_failed(&writer);
    /* Numbers that JSON can't say are mended by asking for base64. */
    writer.status = writer.status == LB_E_UNSUPPORTED ? LB_E_ARG : writer.status;
    lb_vllm_send(server, x, &writer, asked->answer_bytes);
}

/* The bytes of one sequence after the other, as they were computed. */
static void reply_octets(struct lb_exchange *x, const struct asked *asked, const struct lb_job *job) {
    const struct lb_job_output *o = &job->outputs[0];
    size_t n = (size_t)job->n_seqs;
    struct lb_span *parts = lb_arena_array(&x->arena, n, sizeof *parts);
    int64_t *rows = lb_arena_array(&x->arena, n, sizeof *rows);
    struct lb_vllm_writer writer = {.buf = &x->body};
    if (!parts || !rows) {
        lb_reply_error(x, 503, "out of memory; try again");
        return;
    }
    for (size_t b = 0; b < n; b++) {
        rows[b] = lb_job_length(job, (int64_t)b);
        parts[b] = (struct lb_span){numbers_of(job, (int64_t)b, true),
                                    (size_t)(rows[b] * o->width) * lb_datatype_bytes(o->datatype)};
    }
    lb_buf_init(&x->body, LB_MAX_JSON_BYTES);
    if (asked->request.format == LB_VLLM_BYTES) {
        lb_vllm_put_metadata(&writer, &asked->request, rows, n, o->width);
        if (lb_buf_status(&x->body) != LB_OK || x->body.len > MAX_METADATA) {
            lb_reply_error(x, 400,
                           "request: input has %zu entries, too many for the header metadata; ask for "
                           "bytes_only, or send fewer at once",
                           n);
            return;
        }
    }
    x->reply.status = 200;
    x->reply.parts = parts;
    x->reply.n_parts = n;
    lb_reply_header(x, "Content-Type", "application/octet-stream");
    lb_reply_header(x, "Cache-Control", "no-cache");
    if (asked->request.format == LB_VLLM_BYTES) {
        lb_reply_header(x, "metadata", x->body.data);
    }
}

static void answer(struct lb_server *server, struct lb_exchange *x) {
    const struct lb_visit *visit = x->user;
    const struct asked *asked = visit->asked;
    if (in_bytes(&asked->request)) {
        reply_octets(x, asked, visit->job);
    } else {
        reply_json(server, x, asked, visit->job);
    }
}

static void handle(struct lb_server *server, struct lb_exchange *x, bool tokens) {
    if (!lb_submit_gone(x) && prepare(server, x, tokens)) {
        lb_vllm_start(server, x, true, answer);
    }
}

void lb_handle_embeddings(struct lb_server *server, struct lb_exchange *x,
                          const struct lb_route_match *match) {
    (void)match;
    handle(server, x, false);
}

void lb_handle_pooling(struct lb_server *server, struct lb_exchange *x, const struct lb_route_match *match) {
    (void)match;
    handle(server, x, true);
}
