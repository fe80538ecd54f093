/* POST /generate of SGLang: prompts scored, with ids that the client chooses, and gone on with. */
#include "common/base/clock.h"
#include "common/base/utf8.h"
#include "proto/outputs.h"
#include "proto/sglang.h"
#include "server/api/reply.h"
#include "server/api/sglang.h"
#include "server/api/submit.h"
#include "server/api/vllm_stream.h"

#include <string.h>

/* Bytes of [logprob,id,null], at least and about; of a text in place of null; of an id in a list; of an
 * answer's other parts, about. */
#define LEAST_TRIPLE_BYTES 12
#define TRIPLE_BYTES 26
#define TEXT_BYTES 16
#define ID_BYTES 7
#define ANSWER_BYTES 512

/* A question on its way. */
struct asked {
    struct lb_sglang_generate request;
    bool listed; /* log-probabilities of the prompts are asked for */
    bool writes; /* more than one token */
    size_t answer_bytes;
    struct lb_vllm_teller teller;
};

/* ---- the question ---- */

/* The first token of prompt i that is listed; its length: none is. */
static int64_t first_listed(const struct lb_sglang_generate *request, size_t i) {
    const struct lb_sglang_scores *scores = &request->scores[i];
    int64_t n = request->prompts.all[i].n, last = request->sampling.max_tokens > 0 ? n - 1 : n;
    return !scores->asked || scores->start == LB_SGLANG_NO_START || scores->start > last ? last
                                                                                         : scores->start;
}

static int64_t most_positions(const struct lb_sglang_scores *scores) {
    int64_t most = 0;
    for (int64_t t = 0; t < scores->n_positions; t++) {
        most = scores->positions[t].n > most ? scores->positions[t].n : most;
    }
    return most;
}

/* What fits together only once the prompts are ids; false after an error. */
static bool check(struct lb_exchange *x, const struct lb_sglang_generate *request) {
    for (size_t i = 0; i < request->prompts.n; i++) {
        const struct lb_sglang_scores *scores = &request->scores[i];
        int64_t n = request->prompts.all[i].n;
        if (request->sampling.max_tokens > 0 && scores->start >= n) {
            lb_reply_error(x, 400, "request: logprob_start_len is %lld, and prompt %zu has %lld tokens",
                           (long long)scores->start, i, (long long)n);
            return false;
        }
        if (scores->positions && scores->n_positions != n) {
            lb_reply_error(x, 400,
                           "request: token_ids_logprob_positions has %lld lists for the %lld tokens of "
                           "prompt %zu",
                           (long long)scores->n_positions, (long long)n, i);
            return false;
        }
    }
    return true;
}

static bool check_ids(struct lb_exchange *x, const char *key, const struct lb_sglang_ids *list) {
    int64_t v = lb_hosted_vocab(((struct lb_visit *)x->user)->hosted);
    for (int64_t i = 0; i < list->n; i++) {
        if (list->ids[i] >= v) {
            lb_reply_error(x, 400, "request: %s: %d: outside the vocabulary, 0..%lld", key, list->ids[i],
                           (long long)v - 1);
            return false;
        }
    }
    return true;
}

/* The chosen ids, each in the row that is about its token; false after an error. */
static bool score(struct lb_server *server, struct lb_exchange *x, const struct lb_sglang_generate *request,
                  int64_t k, struct lb_vllm_matrix *matrix) {
    int32_t *all = lb_vllm_scores(server, x, "token_ids_logprob", k, matrix);
    for (size_t i = 0; all && i < request->prompts.n; i++) {
        const struct lb_sglang_scores *scores = &request->scores[i];
        int32_t *rows = all + (int64_t)i * matrix->longest * k;
        if (!check_ids(x, "token_ids_logprob", &scores->ids)) {
            return false;
        }
        for (int64_t t = 0; t < request->prompts.all[i].n; t++) {
            const struct lb_sglang_ids *of = &scores->ids;
            if (scores->positions) {
                static const struct lb_sglang_ids none;
                of = t + 1 < scores->n_positions ? &scores->positions[t + 1] : &none;
                if (!check_ids(x, "token_ids_logprob_positions", of)) {
                    return false;
                }
            }
            if (of->n > 0) {
                memcpy(rows + t * k, of->ids, (size_t)of->n * sizeof *rows);
            }
        }
    }
    return all != NULL;
}

/* What the answer takes as text, about; false after an error where that is certainly too much. */
static bool plan_bytes(struct lb_exchange *x, struct asked *asked) {
    const struct lb_sglang_generate *request = &asked->request;
    size_t each = TRIPLE_BYTES + (request->texts ? TEXT_BYTES : 0), triples = 0;
    asked->answer_bytes = request->prompts.n * ANSWER_BYTES + (request->stream ? LB_EVENTS_BYTES : 0);
    for (size_t i = 0; i < request->prompts.n; i++) {
        const struct lb_sglang_scores *scores = &request->scores[i];
        int64_t n = request->prompts.all[i].n;
        int64_t rows = n + 1 - first_listed(request, i);
        int64_t k = scores->ids.n + (request->flat ? 1 : scores->top_k);
        int64_t written = asked->writes ? request->sampling.max_tokens : 0;
        asked->answer_bytes += (size_t)written * 2 * ID_BYTES; /* the text too */
        asked->answer_bytes += request->return_prompt_ids ? (size_t)n * ID_BYTES : 0;
        if (!scores->asked) {
            continue;
        }
        triples += (size_t)(rows * (1 + k)) + (size_t)(written * (1 + scores->ids.n + scores->top_k));
        for (int64_t t = 0; t < scores->n_positions; t++) {
            triples += (size_t)scores->positions[t].n;
        }
        if (request->flat) {
            asked->answer_bytes += (size_t)(rows * scores->top_k) * TRIPLE_BYTES;
        }
    }
    asked->answer_bytes += triples * each;
    x->heavy |= asked->answer_bytes > (size_t)LB_LIGHT_NUMBERS * TRIPLE_BYTES;
    if (triples > LB_MAX_RESPONSE_BYTES / LEAST_TRIPLE_BYTES) {
        lb_reply_error(x, 413,
                       "request: %zu log-probabilities take more text than an answer may have, %u MiB: ask "
                       "for fewer, or for the outputs of /v2",
                       triples, LB_MAX_RESPONSE_BYTES >> 20);
        return false;
    }
    return true;
}

/* What is written behind the prompts: the k likeliest beside each token, and ids that were chosen for all,
 * which score() has checked. */
static bool plan_writing(struct lb_server *server, struct lb_exchange *x, const struct asked *asked,
                         int64_t k) {
    const struct lb_sglang_generate *request = &asked->request;
    const struct lb_visit *visit = x->user;
    int64_t v = lb_hosted_vocab(visit->hosted);
    bool ok = lb_vllm_plan_writing(server, x, &request->sampling, "max_new_tokens", k < v ? k : v);
    for (size_t i = 0; ok && i < request->prompts.n; i++) {
        const struct lb_sglang_ids *ids = &request->scores[i].ids;
        ok = ids->n == 0 || lb_submit_hold(server, x, (size_t)(ids->n * request->sampling.max_tokens) * 4);
        if (ok && ids->n > 0 && !lb_writing_choose(visit->writing, (int64_t)i, ids->ids, ids->n)) {
            lb_reply_error(x, 503, "out of memory; try again");
            return false;
        }
    }
    return ok;
}

static void put_piece(struct lb_exchange *x, struct lb_vllm_writer *writer,
                      const struct lb_vllm_piece *piece);

/* False after an error. */
static bool plan_stream(struct lb_exchange *x, struct asked *asked) {
    ((struct lb_visit *)x->user)->events = true;
    asked->teller = (struct lb_vllm_teller){
        .prefix = "", .request_id = asked->request.rid, .whole = true, .put = put_piece};
    return !asked->writes || lb_vllm_stream_plan(x, &asked->teller);
}

/* The visit's job; false after an error. */
static bool plan(struct lb_server *server, struct lb_exchange *x, struct asked *asked) {
    const struct lb_sglang_generate *request = &asked->request;
    struct lb_vllm_sampling sampling = request->sampling;
    struct lb_vllm_matrix matrix;
    int64_t scored = 0, k = 0;
    sampling.logprobs = 1;
    if (!check(x, request) || !plan_bytes(x, asked) || !lb_vllm_matrix(x, &request->prompts, true, &matrix)) {
        return false;
    }
    for (size_t i = 0; i < request->prompts.n; i++) {
        const struct lb_sglang_scores *scores = &request->scores[i];
        int64_t first = first_listed(request, i), most = most_positions(scores);
        most = most > scores->ids.n ? most : scores->ids.n;
        scored = most > scored ? most : scored;
        k = scores->top_k > k ? scores->top_k : k;
        if (first < matrix.starts[i]) {
            matrix.starts[i] = (int32_t)first;
            asked->listed = true;
        }
    }
    sampling.logprobs = k > 1 ? k : 1;
    bool planned = (scored == 0 || score(server, x, request, scored, &matrix)) &&
                   lb_vllm_plan(server, x, &sampling, -request->priority, &matrix,
                                asked->listed); /* there higher goes first */
    lb_vllm_matrix_finish(&matrix);
    return planned && (!asked->writes || plan_writing(server, x, asked, k)) &&
           (!request->stream || plan_stream(x, asked));
}

static bool decode(struct lb_exchange *x, struct asked *asked) {
    const char *body = x->body.data ? x->body.data : "";
    struct lb_detail detail = {0};
    enum lb_status status = lb_sglang_generate_decode(body, x->body.len, &x->arena, &asked->request, &detail);
    if (status != LB_OK) {
        lb_reply_fail(x, status, &detail);
    }
    asked->writes = asked->request.sampling.max_tokens > 1;
    return status == LB_OK;
}

/* The question as a job that is ready to be queued; false after an error. */
static bool prepare(struct lb_server *server, struct lb_exchange *x) {
    struct asked *asked = lb_vllm_begin(server, x, sizeof *asked);
    return asked && decode(x, asked) && lb_vllm_find_model(x, asked->request.model) &&
           lb_vllm_check(x, &asked->request.sampling, "max_new_tokens", LB_VLLM_MAX_TOKENS) &&
           lb_vllm_encode(x, &asked->request.prompts, true) && plan(server, x, asked) &&
           lb_vllm_planned(server, x, asked->answer_bytes);
}

/* ---- the answer ---- */

/* Log-probabilities at the temperature that was drawn at, in the arena; NULL when out of memory. */
static const float *lifted(const struct lb_job *job, int64_t b, const float *plain, int64_t n,
                           struct lb_arena *arena) {
    float *out = lb_arena_array(arena, (size_t)n, sizeof *out);
    for (int64_t i = 0; out && i < n; i++) {
        double v = plain[i] / job->draw->temperature + job->draw->lifts[b];
        out[i] = (float)(v < 0 ? v : 0);
    }
    return out;
}

/* What follows sequence b, as it was drawn of the job's last row; false when out of memory. */
static bool choose(const struct lb_sglang_generate *request, const struct lb_job *job, int64_t b,
                   struct lb_arena *arena, struct lb_sglang_answer *out) {
    int64_t n = lb_job_length(job, b), row = b * job->rows - job->start[b], k = job->n_scored;
    struct lb_vllm_choice choice = {.next = lb_vllm_rows_of(job, b, n - 1)};
    lb_vllm_choose(job, &request->sampling, b, &choice);
    out->n_next = 1;
    out->next = choice.next;
    out->next_ids = choice.generated;
    out->next_logprobs = choice.generated_logprobs;
    out->n_generated = request->sampling.max_tokens;
    out->next_scores = lb_vllm_output(job, LB_OUT_AT_LOGPROBS, (row + n - 1) * k);
    if (job->draw && job->draw->temperature != job->temperature) {
        out->next.top_logprobs = lifted(job, b, out->next.top_logprobs, out->next.k, arena);
        out->next_scores = out->next_scores ? lifted(job, b, out->next_scores, k, arena) : NULL;
        return out->next.top_logprobs && (out->next_scores || k == 0);
    }
    return true;
}

/* The same, as far as it was written; chosen ids stand there as the job has them, n_scores apart. */
static bool take_written(const struct lb_writing *writing, int64_t b, int64_t n, bool over,
                         struct lb_arena *arena, struct lb_sglang_answer *out) {
    const struct lb_written *text = &writing->texts[b];
    float *scores = lb_arena_zarray(arena, (size_t)(n * out->n_scores) + 1, sizeof *scores);
    for (int64_t t = 0; scores && text->n_chosen > 0 && t < n; t++) {
        memcpy(scores + t * out->n_scores, text->chosen + t * text->n_chosen,
               (size_t)text->n_chosen * sizeof *scores);
    }
    out->n_next = out->n_generated = n;
    out->next_ids = text->ids;
    out->next_logprobs = text->logprobs;
    out->next = (struct lb_vllm_rows){
        .k = writing->top_k, .top_ids = text->top_ids, .top_logprobs = text->top_logprobs};
    out->next_scores = scores;
    out->goes_on = !over;
    out->stopped = over && text->stopped;
    out->stop = over ? text->stop : NULL;
    return scores != NULL;
}

/* What is said of sequence b; piece: while it is written, else NULL. False when out of memory. */
static bool answer_of(const struct asked *asked, const struct lb_visit *visit, int64_t b,
                      const struct lb_vllm_piece *piece, struct lb_arena *arena,
                      struct lb_sglang_answer *out) {
    const struct lb_sglang_generate *request = &asked->request;
    const struct lb_job *job = visit->job;
    int64_t n = lb_job_length(job, b), first = first_listed(request, (size_t)b);
    int64_t row = b * job->rows - job->start[b], k = job->n_scored;
    out->ids = job->ids + job->offsets[b];
    out->n = n;
    out->first = first;
    out->n_scores = k;
    if (first + 1 < n) {
        out->prompt = lb_vllm_rows_of(job, b, first);
        out->scores = lb_vllm_output(job, LB_OUT_AT_LOGPROBS, (row + first) * k);
    }
    if (!asked->writes) {
        return choose(request, job, b, arena, out);
    }
    return take_written(visit->writing, b, piece ? piece->n : visit->writing->texts[b].n,
                        !piece || !piece->goes_on, arena, out);
}

static const char *name_of(const struct lb_sglang_generate *request, const char *name, int64_t b,
                           struct lb_arena *arena) {
    if (request->rids) {
        return request->rids[b];
    }
    return request->batch ? lb_arena_printf(arena, "%s_%lld", name, (long long)b) : name;
}

/* One object of the answer, or one event. text: as it is told. */
static void put_answer(struct lb_exchange *x, struct lb_vllm_writer *writer, struct lb_sglang_answer *answer,
                       const char *text, size_t len) {
    const struct asked *asked = ((const struct lb_visit *)x->user)->asked;
    const struct lb_sglang_generate *request = &asked->request;
    answer->text = text;
    answer->text_len = len;
    answer->seconds = (double)(lb_now_ns() - x->started_ns) / LB_SECOND_NS;
    answer->numbered = request->stream && request->batch;
    lb_buf_append_str(writer->buf, request->stream ? "data: " : answer->index > 0 ? "," : "");
    lb_sglang_put_answer(writer, request, &request->scores[answer->index], answer);
    lb_buf_append_str(writer->buf, request->stream ? "\n\n" : "");
}

static void put_answers(struct lb_exchange *x, const char *name, struct lb_vllm_writer *writer) {
    const struct lb_visit *visit = x->user;
    const struct asked *asked = visit->asked;
    const struct lb_sglang_generate *request = &asked->request;
    const struct lb_job *job = visit->job;
    bool list = request->batch && !request->stream;
    struct lb_buf text;
    lb_buf_init(&text, LB_MAX_RESPONSE_BYTES);
    lb_buf_append_str(writer->buf, list ? "[" : "");
    for (int64_t b = 0; b < job->n_seqs && writer->status == LB_OK; b++) {
        struct lb_sglang_answer answer = {.version = job->model->version, .index = b};
        answer.id = name_of(request, name, b, &x->arena);
        bool made = answer.id && answer_of(asked, visit, b, NULL, &x->arena, &answer);
        lb_buf_reset(&text);
        if (made && asked->writes) {
            const struct lb_buf *written = &visit->writing->texts[b].text;
            lb_utf8_append_lossy(&text, written->data ? written->data : "", written->len);
        } else if (made && answer.n_generated > 0 && job->model->tokenizer) {
            lb_vllm_put_generated(job->model->tokenizer, &request->sampling, answer.next_ids[0], &text);
        }
        if (!made || lb_buf_status(&text) != LB_OK) {
            writer->status = lb_fail(writer->detail, LB_E_NOMEM, "out of memory; try again");
            break;
        }
        put_answer(x, writer, &answer, text.data ? text.data : "", text.len);
    }
    lb_buf_append_str(writer->buf, list ? "]" : "");
    lb_buf_finish(&text);
}

static void put_piece(struct lb_exchange *x, struct lb_vllm_writer *writer,
                      const struct lb_vllm_piece *piece) {
    const struct lb_visit *visit = x->user;
    const struct asked *asked = visit->asked;
    struct lb_arena_mark mark = lb_arena_mark(&x->arena);
    struct lb_sglang_answer answer = {.version = visit->job->model->version, .index = piece->index};
    answer.id = name_of(&asked->request, piece->name, piece->index, &x->arena);
    if (answer.id && answer_of(asked, visit, piece->index, piece, &x->arena, &answer)) {
        put_answer(x, writer, &answer, piece->text, piece->len);
    } else {
        writer->status = lb_fail(writer->detail, LB_E_NOMEM, "out of memory; try again");
    }
    lb_arena_release(&x->arena, mark);
}

static void answer(struct lb_server *server, struct lb_exchange *x) {
    const struct asked *asked = ((const struct lb_visit *)x->user)->asked;
    struct lb_detail detail = {0};
    struct lb_vllm_writer writer;
    const char *name = lb_vllm_open_answer(x, "", asked->request.rid, &writer, &detail);
    if (name) {
        put_answers(x, name, &writer);
        if (asked->request.stream) { /* all is there at once */
            lb_vllm_put_done(&writer);
        }
        lb_vllm_send(server, x, &writer, asked->answer_bytes);
    }
}

void lb_handle_sglang_generate(struct lb_server *server, struct lb_exchange *x,
                               const struct lb_route_match *match) {
    (void)match;
    if (!lb_submit_gone(x) && prepare(server, x)) {
        const struct asked *asked = ((const struct lb_visit *)x->user)->asked;
        lb_vllm_start(server, x, asked->listed, answer);
    }
}
