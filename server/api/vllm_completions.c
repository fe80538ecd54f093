/* POST /v1/completions: prompts scored, and gone on with. */
#include "server/api/vllm.h"

#include "common/base/utf8.h"
#include "server/api/reply.h"
#include "server/api/submit.h"

#include <string.h>
#include <time.h>

/* Bytes of an answer for one id with its log-probability in OpenAI's form, about. */
#define NAMED_BYTES 48
/* And of a prompt's token in the other lists and texts. */
#define TOKEN_BYTES 64
#define CHOICE_BYTES 256

/* A question on its way. */
struct asked {
    struct lb_vllm_completion request;
    bool scored; /* the prompt's rows are asked for, not only the last */
    bool writes; /* more than one token */
    size_t answer_bytes;
};

/* ---- the question ---- */

static const struct lb_hosted *hosted_of(const struct lb_exchange *x) {
    return ((const struct lb_visit *)x->user)->hosted;
}

/* The visit's job, and what is written behind it; false after an error. */
static bool plan(struct lb_server *server, struct lb_exchange *x, struct asked *asked) {
    const struct lb_vllm_completion *request = &asked->request;
    const struct lb_vllm_sampling *sampling = &request->sampling;
    struct lb_vllm_matrix matrix;
    if (!lb_vllm_matrix(x, &request->prompts, !asked->scored, &matrix)) {
        return false;
    }
    bool planned = lb_vllm_plan(server, x, sampling, request->priority, &matrix, asked->scored);
    int64_t n = (int64_t)request->prompts.n, named = 0, written = n * sampling->max_tokens;
    lb_vllm_matrix_finish(&matrix);
    if (sampling->logprobs != LB_VLLM_NO_LOGPROBS) {
        named = (written + (request->echo ? matrix.tokens : 0)) * (sampling->logprobs + 1);
    }
    asked->answer_bytes =
        lb_vllm_answer_bytes(x, sampling, matrix.tokens) + (size_t)(named * NAMED_BYTES + n * CHOICE_BYTES);
    asked->answer_bytes += (size_t)written * TOKEN_BYTES;
    if (request->echo || request->return_token_ids) {
        asked->answer_bytes += (size_t)matrix.tokens * TOKEN_BYTES;
    }
    x->heavy |= named > LB_LIGHT_NUMBERS;
    int64_t k = sampling->logprobs > 0 ? sampling->logprobs : 0, v = lb_hosted_vocab(hosted_of(x));
    return planned &&
           (!asked->writes || lb_vllm_plan_writing(server, x, sampling, "max_tokens", k < v ? k : v));
}

static bool decode(struct lb_exchange *x, struct asked *asked) {
    const char *body = x->body.data ? x->body.data : "";
    struct lb_detail detail = {0};
    enum lb_status status = lb_vllm_completion_decode(body, x->body.len, &x->arena, &asked->request, &detail);
    if (status != LB_OK) {
        lb_reply_fail(x, status, &detail);
        return false;
    }
    const struct lb_vllm_sampling *sampling = &asked->request.sampling;
    asked->scored = sampling->prompt_logprobs != LB_VLLM_NO_LOGPROBS ||
                    (asked->request.echo && sampling->logprobs != LB_VLLM_NO_LOGPROBS);
    asked->writes = sampling->max_tokens > 1;
    return true;
}

/* The question as a job that is ready to be queued; false after an error. */
static bool prepare(struct lb_server *server, struct lb_exchange *x) {
    struct asked *asked = lb_vllm_begin(server, x, sizeof *asked);
    return asked && decode(x, asked) && lb_vllm_find_model(x, asked->request.model) &&
           lb_vllm_check(x, &asked->request.sampling, "max_tokens", LB_VLLM_MAX_TOKENS) &&
           lb_vllm_encode(x, &asked->request.prompts, asked->request.add_special) && plan(server, x, asked) &&
           lb_vllm_planned(server, x, asked->answer_bytes);
}

/* ---- the answer ---- */

/* The generated token's part of the text, cut where a stop begins. */
static void put_generated(const struct lb_tokenizer *tokenizer, const struct lb_vllm_sampling *sampling,
                          struct lb_vllm_choice *choice, struct lb_buf *text) {
    size_t begin = text->len;
    if (choice->stopped && !sampling->include_stop) {
        return;
    }
    lb_vllm_put_generated(tokenizer, sampling, choice->generated[0], text);
    for (size_t i = 0; i < sampling->n_stops && text->len > begin && lb_buf_status(text) == LB_OK; i++) {
        const char *stop = sampling->stops[i];
        const char *at = memmem(text->data + begin, text->len - begin, stop, strlen(stop));
        if (at) {
            text->len = (size_t)(at - text->data) + (sampling->include_stop ? strlen(stop) : 0);
            text->data[text->len] = '\0';
            choice->stopped = true;
            choice->stop_text = stop;
        }
    }
}

static enum lb_status make_text(const struct asked *asked, const struct lb_hosted *hosted, int64_t b,
                                struct lb_vllm_choice *choice, struct lb_buf *text,
                                struct lb_detail *detail) {
    const struct lb_vllm_prompt *prompt = &asked->request.prompts.all[b];
    lb_buf_reset(text);
    if (asked->request.echo && prompt->text) {
        lb_buf_append_str(text, prompt->text);
    } else if (asked->request.echo && hosted->tokenizer) {
        for (int64_t i = 0; i < prompt->n; i++) {
            if (prompt->ids[i] >= lb_tokenizer_vocab_size(hosted->tokenizer)) {
                return lb_fail(detail, LB_E_ARG,
                               "request: echo: id %d of prompt %lld is no token of the tokenizer",
                               prompt->ids[i], (long long)b);
            }
        }
        enum lb_status status =
            lb_tokenizer_decode(hosted->tokenizer, prompt->ids, (size_t)prompt->n, false, text, detail);
        if (status != LB_OK) {
            return status;
        }
    }
    if (choice->text) { /* as it was written */
        lb_utf8_append_lossy(text, choice->text, choice->text_len);
    } else if (choice->n_generated > 0 && hosted->tokenizer) {
        put_generated(hosted->tokenizer, &asked->request.sampling, choice, text);
    }
    choice->text = text->data ? text->data : "";
    choice->text_len = text->len;
    return lb_buf_status(text) == LB_OK ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory; try again");
}

static enum lb_status put_choices(const struct asked *asked, const struct lb_visit *visit,
                                  struct lb_vllm_writer *writer, struct lb_vllm_usage *usage) {
    const struct lb_job *job = visit->job;
    struct lb_buf text;
    lb_buf_init(&text, LB_MAX_RESPONSE_BYTES);
    for (int64_t b = 0; b < job->n_seqs && writer->status == LB_OK; b++) {
        int64_t n = lb_job_length(job, b);
        struct lb_vllm_choice choice = {.index = b,
                                        .ids = job->ids + job->offsets[b],
                                        .n = n,
                                        .prompt = lb_vllm_rows_of(job, b, job->start[b]),
                                        .next = lb_vllm_rows_of(job, b, n - 1),
                                        .stop_id = -1};
        if (asked->writes) {
            lb_vllm_take_written(visit->writing, b, &choice);
        } else if (asked->request.sampling.max_tokens > 0) {
            lb_vllm_choose(job, &asked->request.sampling, b, &choice);
        }
        enum lb_status status = make_text(asked, job->model, b, &choice, &text, writer->detail);
        writer->status = writer->status == LB_OK ? status : writer->status;
        if (writer->status == LB_OK) {
            lb_vllm_put_choice(writer, &asked->request, &choice);
        }
        usage->prompt_tokens += n;
        usage->completion_tokens += choice.n_generated;
    }
    lb_buf_finish(&text);
    return writer->status;
}

static void answer(struct lb_server *server, struct lb_exchange *x) {
    const struct lb_visit *visit = x->user;
    const struct asked *asked = visit->asked;
    const struct lb_hosted *hosted = visit->job->model;
    struct lb_detail detail = {0};
    struct lb_vllm_writer writer;
    struct lb_vllm_usage usage = {0};
    const char *name = lb_vllm_open_answer(x, "cmpl-", asked->request.request_id, &writer, &detail);
    if (name) {
        lb_vllm_put_completion(&writer, name, (int64_t)time(NULL), hosted->name, hosted->version);
        if (put_choices(asked, visit, &writer, &usage) == LB_OK) {
            lb_vllm_put_end(&writer, &usage);
        }
        lb_vllm_send(server, x, &writer, asked->answer_bytes);
    }
}

void lb_handle_completions(struct lb_server *server, struct lb_exchange *x,
                           const struct lb_route_match *match) {
    (void)match;
    if (!lb_submit_gone(x) && prepare(server, x)) {
        const struct asked *asked = ((const struct lb_visit *)x->user)->asked;
        lb_vllm_start(server, x, asked->scored, answer);
    }
}
