/* POST /inference/v1/generate: one sequence scored, with ids that the client chooses for each position. */
#include "server/api/vllm.h"

#include "proto/outputs.h"
#include "server/api/reply.h"
#include "server/api/submit.h"

#include <string.h>
#include <time.h>

/* Bytes of a gathered number in base64, and of what is always there, about. */
#define GATHERED_BYTES 6
#define ANSWER_BYTES 1024

struct asked {
    struct lb_vllm_generate request;
    size_t answer_bytes;
};

static bool decode(struct lb_exchange *x, struct asked *asked) {
    const char *body = x->body.data ? x->body.data : "";
    struct lb_detail detail = {0};
    enum lb_status status = lb_vllm_generate_decode(body, x->body.len, &x->arena, &asked->request, &detail);
    if (status != LB_OK) {
        lb_reply_fail(x, status, &detail);
    }
    return status == LB_OK;
}

/* Ids that the model's head has, or -1; false after an error. */
static bool check_gather(struct lb_exchange *x, const struct lb_vllm_generate *request) {
    int64_t v = lb_hosted_vocab(((struct lb_visit *)x->user)->hosted);
    for (int64_t i = 0; i < request->n_rows * request->k; i++) {
        if (request->gather[i] >= v) {
            lb_reply_error(
                x, 400,
                "request: prompt_logprob_token_ids[%lld][%lld] = %d: must be an id, 0..%lld, or -1 for none",
                (long long)(i / request->k), (long long)(i % request->k), request->gather[i],
                (long long)v - 1);
            return false;
        }
    }
    return true;
}

/* The request's ids as the input score_ids [1, T, K]; false after an error. */
static bool scores(struct lb_server *server, struct lb_exchange *x, const struct lb_vllm_generate *request,
                   struct lb_vllm_matrix *matrix) {
    int32_t *ids = check_gather(x, request)
                       ? lb_vllm_scores(server, x, "prompt_logprob_token_ids", request->k, matrix)
                       : NULL;
    if (ids) {
        memcpy(ids + request->start * request->k, request->gather,
               (size_t)(request->n_rows * request->k) * sizeof *ids);
    }
    return ids != NULL;
}

static bool plan(struct lb_server *server, struct lb_exchange *x, struct asked *asked) {
    const struct lb_vllm_generate *request = &asked->request;
    const struct lb_vllm_sampling *sampling = &request->sampling;
    bool scored = sampling->prompt_logprobs != LB_VLLM_NO_LOGPROBS;
    struct lb_vllm_matrix matrix;
    if (!lb_vllm_matrix(x, &request->prompts, !scored, &matrix)) {
        return false;
    }
    if (request->k > 0) {
        matrix.starts[0] = scored ? 0 : (int32_t)request->start;
        if (!scores(server, x, request, &matrix)) {
            lb_vllm_matrix_finish(&matrix);
            return false;
        }
    }
    bool planned = lb_vllm_plan(server, x, sampling, request->priority, &matrix, scored);
    asked->answer_bytes = ANSWER_BYTES + lb_vllm_answer_bytes(x, sampling, matrix.tokens) +
                          (size_t)(request->n_rows * request->k) * GATHERED_BYTES;
    lb_vllm_matrix_finish(&matrix);
    return planned;
}

static bool prepare(struct lb_server *server, struct lb_exchange *x) {
    struct asked *asked = lb_vllm_begin(server, x, sizeof *asked);
    return asked && decode(x, asked) && lb_vllm_find_model(x, asked->request.model) &&
           lb_vllm_check(x, &asked->request.sampling, "max_tokens", 1) && plan(server, x, asked) &&
           lb_vllm_planned(server, x, asked->answer_bytes);
}

static void answer(struct lb_server *server, struct lb_exchange *x) {
    const struct lb_visit *visit = x->user;
    const struct asked *asked = visit->asked;
    const struct lb_vllm_generate *request = &asked->request;
    const struct lb_job *job = visit->job;
    struct lb_detail detail = {0};
    struct lb_vllm_writer writer;
    const char *name = lb_vllm_open_answer(x, "", request->request_id, &writer, &detail);
    if (!name) {
        return;
    }
    int64_t n = lb_job_length(job, 0);
    struct lb_vllm_choice choice = {.ids = job->ids,
                                    .n = n,
                                    .prompt = lb_vllm_rows_of(job, 0, job->start[0]),
                                    .next = lb_vllm_rows_of(job, 0, n - 1),
                                    .stop_id = -1};
    if (request->sampling.max_tokens > 0) {
        lb_vllm_choose(job, &request->sampling, 0, &choice);
    }
    lb_vllm_put_generate(
        &writer, name, (int64_t)time(NULL), job->model->name, request, &choice,
        lb_vllm_output(job, LB_OUT_AT_LOGPROBS, (request->start - job->start[0]) * request->k));
    lb_vllm_send(server, x, &writer, asked->answer_bytes);
}

void lb_handle_generate(struct lb_server *server, struct lb_exchange *x, const struct lb_route_match *match) {
    (void)match;
    if (!lb_submit_gone(x) && prepare(server, x)) {
        lb_vllm_start(server, x, true, answer);
    }
}
