/* From a question to its answer: its job, and the texts that are gone on with. */
#include "common/base/clock.h"
#include "server/api/access.h"
#include "server/api/reply.h"
#include "server/api/submit.h"
#include "server/api/vllm_stream.h"

/* Each prompt and what is written behind it fit into the model; false after an error. */
static bool check(struct lb_exchange *x, const struct lb_job *job, const char *key, int64_t max_tokens) {
    int64_t longest = lb_model_config(job->model->model)->max_position_embeddings;
    for (int64_t b = 0; b < job->n_seqs; b++) {
        int64_t n = lb_job_length(job, b);
        if (n + max_tokens > longest) {
            lb_reply_error(
                x, 400,
                "request: %s is %lld, and prompt %lld has %lld tokens; this model takes at most %lld "
                "tokens together",
                key, (long long)max_tokens, (long long)b, (long long)n, (long long)longest);
            return false;
        }
    }
    return true;
}

static void written(struct lb_writing *writing) {
    lb_exchange_resume(writing->context);
}

bool lb_vllm_plan_writing(struct lb_server *server, struct lb_exchange *x,
                          const struct lb_vllm_sampling *sampling, const char *key, int64_t k) {
    struct lb_visit *visit = x->user;
    const struct lb_job *job = visit->job;
    if (!check(x, job, key, sampling->max_tokens)) {
        return false;
    }
    size_t each = (size_t)sampling->max_tokens * (8 + 8 * (size_t)k);
    if (!lb_submit_hold(server, x, (size_t)job->n_seqs * each)) {
        return false;
    }
    struct lb_writing *writing = lb_writing_create(job->n_seqs, sampling->max_tokens, k);
    if (!writing) {
        lb_reply_error(x, 503, "out of memory; try again");
        return false;
    }
    visit->writing = writing;
    const struct lb_generate_args args = {.max_new_tokens = sampling->max_tokens,
                                          .temperature = sampling->temperature,
                                          .top_k = sampling->top_k,
                                          .top_p = sampling->top_p,
                                          .seed = lb_vllm_seed(x, sampling),
                                          .ends =
                                              sampling->ignore_eos ? NULL : lb_model_ends(job->model->model)};
    for (int64_t b = 0; b < job->n_seqs; b++) {
        writing->prompts[b] =
            (struct lb_generate_prompt){job->ids + job->offsets[b], lb_job_length(job, b), args};
    }
    writing->model = job->model;
    writing->temperature = sampling->temperature;
    writing->stops = sampling->stops;
    writing->n_stops = sampling->n_stops;
    writing->stop_ids = sampling->stop_ids;
    writing->n_stop_ids = sampling->n_stop_ids;
    writing->skip_special = sampling->skip_special;
    writing->include_stop = sampling->include_stop;
    writing->turn.client = x->memory.client;
    writing->batch_tokens = server->options->max_batch_tokens;
    writing->deadline_ns = job->deadline_ns;
    writing->gone = &x->gone;
    writing->done = written;
    writing->context = x;
    return lb_submit_hold(server, x, lb_writing_bytes(writing));
}

/* With the job that came first where there was one. */
void lb_vllm_count_written(const struct lb_visit *visit) {
    const struct lb_writing *writing = visit->writing;
    const struct lb_visit_work work = lb_visit_work(visit);
    uint64_t now = lb_now_ns();
    lb_stats_request(&writing->model->stats, writing->status == LB_OK, writing->n,
                     work.queued_ns ? now - work.queued_ns : 0, work.waited_ns, work.compute_ns);
}

void lb_vllm_reply_unwritten(struct lb_exchange *x) {
    const struct lb_writing *writing = ((struct lb_visit *)x->user)->writing;
    if (writing->status == LB_E_CANCELLED) {
        (void)lb_submit_gone(x);
    } else {
        lb_reply_fail(x, writing->status, &writing->detail);
    }
}

static void finish_text(struct lb_server *server, struct lb_exchange *x) {
    struct lb_visit *visit = x->user;
    lb_vllm_count_written(visit);
    if (visit->writing->status == LB_OK) {
        visit->answer(server, x);
    } else {
        lb_vllm_reply_unwritten(x);
    }
}

/* Its tokens are taken. */
static void write_texts(struct lb_server *server, struct lb_exchange *x) {
    struct lb_visit *visit = x->user;
    struct lb_writing *writing = visit->writing;
    /* Deferred first: it may be done before submit returns. */
    if (visit->stream) {
        visit->finish = lb_vllm_stream_begin;
        lb_exchange_share(x);
    } else {
        visit->finish = finish_text;
        lb_exchange_defer(x);
    }
    visit->promised = false; /* it is kept now */
    enum lb_status status = lb_writer_submit(server->writer, writing, &writing->detail);
    if (status != LB_OK) {
        lb_access_give_back(x, lb_writing_asked(writing));
        writing->status = status;
        writing->done(writing);
    }
}

static void finish_job(struct lb_server *server, struct lb_exchange *x) {
    struct lb_visit *visit = x->user;
    if (!lb_submit_computed(server, x)) {
        lb_visit_excuse(visit);
        return;
    }
    if (visit->writing) {
        lb_access_charge(x, lb_writing_asked(visit->writing)); /* it was let in with the job */
        write_texts(server, x);
    } else {
        visit->answer(server, x);
    }
}

void lb_vllm_start(struct lb_server *server, struct lb_exchange *x, bool rows,
                   void (*answer)(struct lb_server *server, struct lb_exchange *exchange)) {
    struct lb_visit *visit = x->user;
    visit->answer = answer;
    if (visit->writing && rows) {
        /* So that what is computed is written too when the daemon is told to stop in between. */
        visit->promised = visit->writing->promised = lb_writer_promise(server->writer);
    }
    if (visit->writing && !rows) {
        if (lb_access_take(x, lb_writing_asked(visit->writing))) {
            write_texts(server, x);
        }
    } else {
        lb_submit(server, x, finish_job);
    }
}

void lb_vllm_take_part(const struct lb_writing *writing, int64_t b, int64_t from, int64_t n, bool over,
                       struct lb_vllm_choice *choice) {
    const struct lb_written *text = &writing->texts[b];
    int64_t k = writing->top_k;
    choice->n_generated = n - from;
    choice->generated = text->ids + from;
    choice->generated_logprobs = text->logprobs + from;
    choice->next = (struct lb_vllm_rows){
        .k = k, .top_ids = text->top_ids + from * k, .top_logprobs = text->top_logprobs + from * k};
    if (over) {
        choice->stopped = text->stopped;
        choice->stop_text = text->stop;
        choice->stop_id = text->stop_id;
    }
}

void lb_vllm_take_written(const struct lb_writing *writing, int64_t b, struct lb_vllm_choice *choice) {
    const struct lb_written *text = &writing->texts[b];
    lb_vllm_take_part(writing, b, 0, text->n, true, choice);
    choice->text = text->text.data ? text->text.data : "";
    choice->text_len = text->text.len;
}
