/* POST /v1/completions: prompts scored, and gone on with. */
#include "server/api/vllm_stream.h"

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
    /* Of a stream. */
    struct lb_vllm_teller teller;
    struct lb_vllm_from from;
    size_t *text_offsets; /* [prompts.n] of what is listed next */
};

/* ---- a stream ---- */

static void put_piece(struct lb_exchange *x, struct lb_vllm_writer *writer,
                      const struct lb_vllm_piece *piece);
static void put_usage(struct lb_exchange *x, struct lb_vllm_writer *writer, const char *name);

/* False after an error. */
static bool plan_stream(struct lb_exchange *x, struct asked *asked) {
    struct lb_visit *visit = x->user;
    const struct lb_hosted *hosted = visit->job->model;
    const struct lb_vllm_completion *request = &asked->request;
    visit->events = true;
    asked->from = (struct lb_vllm_from){
        .model = hosted->name, .fingerprint = hosted->version, .created = (int64_t)time(NULL)};
    asked->text_offsets = lb_arena_zarray(&x->arena, request->prompts.n, sizeof *asked->text_offsets);
    asked->teller = (struct lb_vllm_teller){.prefix = "cmpl-",
                                            .request_id = request->request_id,
                                            .put = put_piece,
                                            .end = request->usage ? put_usage : NULL};
    if (!asked->text_offsets) {
        lb_reply_error(x, 503, "out of memory; try again");
        return false;
    }
    return !asked->writes || lb_vllm_stream_plan(x, &asked->teller);
}

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
    asked->answer_bytes += (size_t)written * TOKEN_BYTES + (request->stream ? LB_EVENTS_BYTES : 0);
    if (request->echo || request->return_token_ids) {
        asked->answer_bytes += (size_t)matrix.tokens * TOKEN_BYTES;
    }
    x->heavy |= named > LB_LIGHT_NUMBERS;
    int64_t k = sampling->logprobs > 0 ? sampling->logprobs : 0, v = lb_hosted_vocab(hosted_of(x));
    if (request->stream && !request->echo) {
        x->heavy = n * (k + 1) > LB_LIGHT_NUMBERS; /* of one step */
    }
    return planned &&
           (!asked->writes || lb_vllm_plan_writing(server, x, sampling, "max_tokens", k < v ? k : v)) &&
           (!request->stream || plan_stream(x, asked));
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

/* The text of the prompt, where the answer begins with it. */
static enum lb_status echo(const struct asked *asked, const struct lb_hosted *hosted, int64_t b,
                           struct lb_buf *text, struct lb_detail *detail) {
    const struct lb_vllm_prompt *prompt = &asked->request.prompts.all[b];
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
        return lb_tokenizer_decode(hosted->tokenizer, prompt->ids, (size_t)prompt->n, false, text, detail);
    }
    return LB_OK;
}

static enum lb_status make_text(const struct asked *asked, const struct lb_hosted *hosted, int64_t b,
                                struct lb_vllm_choice *choice, struct lb_buf *text,
                                struct lb_detail *detail) {
    lb_buf_reset(text);
    enum lb_status status = choice->later ? LB_OK : echo(asked, hosted, b, text, detail);
    if (status != LB_OK) {
        return status;
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

/* Of sequence b, before anything is written behind it. */
static struct lb_vllm_choice choice_of(const struct lb_job *job, int64_t b) {
    int64_t n = lb_job_length(job, b);
    return (struct lb_vllm_choice){.index = b,
                                   .ids = job->ids + job->offsets[b],
                                   .n = n,
                                   .prompt = lb_vllm_rows_of(job, b, job->start[b]),
                                   .next = lb_vllm_rows_of(job, b, n - 1),
                                   .stop_id = -1};
}

/* With the choice's text, as the answer or the next event of a stream has it. */
static void put_choice(struct asked *asked, const struct lb_hosted *hosted, struct lb_vllm_choice *choice,
                       const struct lb_vllm_usage *usage, struct lb_vllm_writer *writer) {
    struct lb_buf text;
    lb_buf_init(&text, LB_MAX_RESPONSE_BYTES);
    enum lb_status status = make_text(asked, hosted, choice->index, choice, &text, writer->detail);
    writer->status = writer->status == LB_OK ? status : writer->status;
    if (writer->status == LB_OK && asked->request.stream) {
        lb_vllm_put_event(writer, &asked->from, &asked->request, choice, &asked->text_offsets[choice->index],
                          asked->request.each_usage ? usage : NULL);
    } else if (writer->status == LB_OK) {
        lb_vllm_put_choice(writer, &asked->request, choice);
    }
    lb_buf_finish(&text);
}

static enum lb_status put_choices(struct asked *asked, const struct lb_visit *visit,
                                  struct lb_vllm_writer *writer, struct lb_vllm_usage *usage) {
    const struct lb_job *job = visit->job;
    for (int64_t b = 0; b < job->n_seqs && writer->status == LB_OK; b++) {
        struct lb_vllm_choice choice = choice_of(job, b);
        if (asked->writes) {
            lb_vllm_take_written(visit->writing, b, &choice);
        } else if (asked->request.sampling.max_tokens > 0) {
            lb_vllm_choose(job, &asked->request.sampling, b, &choice);
        }
        const struct lb_vllm_usage own = {choice.n, choice.n_generated};
        put_choice(asked, job->model, &choice, &own, writer);
        usage->prompt_tokens += choice.n;
        usage->completion_tokens += choice.n_generated;
    }
    return writer->status;
}

static void answer(struct lb_server *server, struct lb_exchange *x) {
    const struct lb_visit *visit = x->user;
    struct asked *asked = visit->asked;
    const struct lb_hosted *hosted = visit->job->model;
    struct lb_detail detail = {0};
    struct lb_vllm_writer writer;
    struct lb_vllm_usage usage = {0};
    const char *name = lb_vllm_open_answer(x, "cmpl-", asked->request.request_id, &writer, &detail);
    if (name && asked->request.stream) { /* all is there at once */
        asked->from.id = name;
        if (put_choices(asked, visit, &writer, &usage) == LB_OK && asked->request.usage) {
            lb_vllm_put_event_usage(&writer, &asked->from, &usage);
        }
        lb_vllm_put_done(&writer);
    } else if (name) {
        lb_vllm_put_completion(&writer, name, (int64_t)time(NULL), hosted->name, hosted->version);
        if (put_choices(asked, visit, &writer, &usage) == LB_OK) {
            lb_vllm_put_end(&writer, &usage);
        }
    }
    if (name) {
        lb_vllm_send(server, x, &writer, asked->answer_bytes);
    }
}

static void put_piece(struct lb_exchange *x, struct lb_vllm_writer *writer,
                      const struct lb_vllm_piece *piece) {
    const struct lb_visit *visit = x->user;
    struct asked *asked = visit->asked;
    struct lb_vllm_choice choice = choice_of(visit->job, piece->index);
    const struct lb_vllm_usage usage = {choice.n, piece->n};
    lb_vllm_take_part(visit->writing, piece->index, piece->from, piece->n, !piece->goes_on, &choice);
    choice.later = piece->later;
    choice.goes_on = piece->goes_on;
    choice.text = piece->text;
    choice.text_len = piece->len;
    asked->from.id = piece->name;
    put_choice(asked, visit->job->model, &choice, &usage, writer);
}

static void put_usage(struct lb_exchange *x, struct lb_vllm_writer *writer, const char *name) {
    const struct lb_visit *visit = x->user;
    struct asked *asked = visit->asked;
    struct lb_vllm_usage usage = {visit->job->n_tokens, 0};
    for (int64_t b = 0; b < visit->writing->n; b++) {
        usage.completion_tokens += visit->writing->texts[b].n;
    }
    asked->from.id = name;
    lb_vllm_put_event_usage(writer, &asked->from, &usage);
}

void lb_handle_completions(struct lb_server *server, struct lb_exchange *x,
                           const struct lb_route_match *match) {
    (void)match;
    if (!lb_submit_gone(x) && prepare(server, x)) {
        const struct asked *asked = ((const struct lb_visit *)x->user)->asked;
        lb_vllm_start(server, x, asked->scored, answer);
    }
}
