#include "server/engine/writer.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/nn/head.h"
#include "common/nn/reduce.h"
#include "server/metrics.h"
#include "server/models/repository.h"

#include <pthread.h>
#include <stddef.h>
#include <string.h>

#define WRITING_BYTES ((size_t)4 << 30)
#define MAX_TEXT_BYTES ((size_t)64 << 20)

struct lb_writer {
    struct lb_engine *engine;
    struct lb_metrics *metrics;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct lb_turns waiting;
    struct lb_writer_state state;
    size_t promised;
    bool closing;
    uint64_t until_ns; /* when closing */
    size_t n_cut;
};

/* ---- one request ---- */

struct lb_writing *lb_writing_create(int64_t n, int64_t max_tokens, int64_t k) {
    struct lb_writing *w = lb_calloc(1, sizeof *w);
    if (!w) {
        return NULL;
    }
    lb_arena_init(&w->arena, WRITING_BYTES);
    w->n = n;
    w->max_tokens = max_tokens;
    w->top_k = k;
    w->prompts = lb_arena_zarray(&w->arena, (size_t)n, sizeof *w->prompts);
    w->texts = lb_arena_zarray(&w->arena, (size_t)n, sizeof *w->texts);
    bool ok = w->prompts && w->texts;
    for (int64_t i = 0; ok && i < n; i++) {
        struct lb_written *text = &w->texts[i];
        text->stop_id = -1;
        lb_buf_init(&text->text, MAX_TEXT_BYTES);
        text->ids = lb_arena_array(&w->arena, (size_t)max_tokens, sizeof *text->ids);
        text->logprobs = lb_arena_array(&w->arena, (size_t)max_tokens, sizeof *text->logprobs);
        text->top_ids = lb_arena_array(&w->arena, (size_t)(max_tokens * k) + 1, sizeof *text->top_ids);
        text->top_logprobs =
            lb_arena_array(&w->arena, (size_t)(max_tokens * k) + 1, sizeof *text->top_logprobs);
        ok = text->ids && text->logprobs && text->top_ids && text->top_logprobs;
    }
    if (!ok) {
        lb_writing_destroy(w);
        return NULL;
    }
    return w;
}

bool lb_writing_choose(struct lb_writing *w, int64_t i, const int32_t *ids, int64_t n) {
    struct lb_written *text = &w->texts[i];
    size_t count;
    text->chosen = lb_mul_size((size_t)w->max_tokens, (size_t)n, &count)
                       ? lb_arena_array(&w->arena, count, sizeof *text->chosen)
                       : NULL;
    text->chosen_ids = ids;
    text->n_chosen = n;
    return text->chosen != NULL;
}

void lb_writing_destroy(struct lb_writing *w) {
    if (!w) {
        return;
    }
    lb_generator_destroy(w->generator);
    for (int64_t i = 0; w->texts && i < w->n; i++) {
        lb_buf_finish(&w->texts[i].text);
    }
    lb_arena_finish(&w->arena);
    lb_free(w);
}

size_t lb_writing_bytes(const struct lb_writing *w) {
    return w->arena.used + lb_generator_bytes(w->model->model, w->prompts, w->n);
}

int64_t lb_writing_asked(const struct lb_writing *w) {
    int64_t tokens = 0;
    for (int64_t i = 0; i < w->n; i++) {
        tokens += w->prompts[i].n + w->prompts[i].args.max_new_tokens;
    }
    return tokens;
}

int64_t lb_writing_tokens(const struct lb_writing *w) {
    int64_t tokens = 0;
    for (int64_t i = 0; i < w->first + w->n_now; i++) {
        tokens += w->prompts[i].n + w->texts[i].n;
    }
    return tokens;
}

/* ---- one token ---- */

/* A stop that ends in the text's last `fresh` bytes cuts it there; NULL: none does. */
static const char *cut_at_stop(const struct lb_writing *w, struct lb_buf *text, size_t fresh) {
    const char *found = NULL;
    size_t at = text->len;
    for (size_t i = 0; i < w->n_stops; i++) {
        size_t len = strlen(w->stops[i]), begin = text->len - fresh;
        begin = begin > len - 1 ? begin - (len - 1) : 0;
        const char *hit = text->data ? memmem(text->data + begin, text->len - begin, w->stops[i], len) : NULL;
        if (hit && (!found || (size_t)(hit - text->data) < at)) {
            found = w->stops[i];
            at = (size_t)(hit - text->data);
        }
    }
    if (found) {
        text->len = at + (w->include_stop ? strlen(found) : 0);
        text->data[text->len] = '\0';
    }
    return found;
}

static void put_logprobs(const struct lb_writing *w, struct lb_written *text, int32_t id, const float *z) {
    int64_t v = lb_model_config(w->model->model)->vocab_size, k = w->top_k, at = text->n;
    double temperature = w->temperature > 0 ? w->temperature : 1, sum = lb_head_logsumexp(z, v, temperature);
    float *top = text->top_logprobs + at * k;
    text->ids[at] = id;
    text->logprobs[at] = (float)((double)z[id] / temperature - sum);
    if (k > 0) {
        lb_topk(z, v, k, text->top_ids + at * k, top);
    }
    for (int64_t i = 0; i < k; i++) {
        top[i] = (float)((double)top[i] / temperature - sum);
    }
    for (int64_t i = 0; i < text->n_chosen; i++) {
        text->chosen[at * text->n_chosen + i] = (float)((double)z[text->chosen_ids[i]] / temperature - sum);
    }
    text->n++;
}

/* On the engine's worker. */
static bool take(void *context, int64_t i, int32_t id, bool ends, const float *z) {
    struct lb_writing *w = context;
    const struct lb_tokenizer *tokenizer = w->model->tokenizer;
    struct lb_written *text = &w->texts[w->first + i];
    size_t len = 0;
    put_logprobs(w, text, id, z);
    text->stopped = ends;
    for (size_t s = 0; s < w->n_stop_ids && !text->stopped; s++) {
        text->stopped = w->stop_ids[s] == id;
        text->stop_id = text->stopped ? id : -1;
    }
    const char *bytes = tokenizer ? lb_tokenizer_bytes(tokenizer, id, &len) : NULL;
    bool hidden = (text->stopped && !w->include_stop) ||
                  (w->skip_special && tokenizer && lb_tokenizer_is_special(tokenizer, id));
    if (bytes && !hidden) {
        lb_buf_append(&text->text, bytes, len);
        text->stop = text->stopped ? NULL : cut_at_stop(w, &text->text, len);
        text->stopped = text->stopped || text->stop;
    }
    return !text->stopped;
}

/* The prompts that are read next, as many as fit into a batch. */
static enum lb_status begin_next(struct lb_writing *w) {
    int64_t tokens = 0;
    w->first += w->n_now;
    w->n_now = 0;
    while (w->first + w->n_now < w->n &&
           (w->n_now == 0 || tokens + w->prompts[w->first + w->n_now].n <= w->batch_tokens)) {
        tokens += w->prompts[w->first + w->n_now++].n;
    }
    lb_generator_destroy(w->generator);
    w->generator = NULL;
    return lb_generator_create(w->model->model, w->prompts + w->first, w->n_now, &w->generator, &w->detail);
}

/* On the engine's worker. */
static void turn(void *argument, struct lb_tape *tape) {
    struct lb_writing *w = argument;
    uint64_t begun = lb_now_ns();
    w->started_ns = w->started_ns ? w->started_ns : begun;
    w->status = w->generator ? LB_OK : begin_next(w);
    int64_t n = w->status == LB_OK ? lb_generator_left(w->generator) : 0;
    if (w->status == LB_OK) {
        w->status = lb_generator_step(w->generator, tape, take, w);
        if (w->status != LB_OK) {
            (void)lb_fail(&w->detail, w->status, "not enough memory to go on with %lld texts; ask for fewer",
                          (long long)w->n_now);
        }
    }
    for (int64_t i = w->first; w->status == LB_OK && i < w->first + w->n_now; i++) {
        w->status = lb_buf_status(&w->texts[i].text);
        if (w->status != LB_OK) {
            (void)lb_fail(&w->detail, w->status, "no room for text %lld; ask for fewer", (long long)i);
        }
    }
    if (w->status == LB_OK && lb_generator_left(w->generator) == 0) {
        lb_generator_destroy(w->generator);
        w->generator = NULL;
    }
    uint64_t ns = lb_now_ns() - begun;
    w->compute_ns += ns;
    if (w->status == LB_OK) {
        lb_stats_batch(&w->model->stats, n, ns);
    }
}

static bool complete(const struct lb_writing *w) {
    return !w->generator && w->first + w->n_now == w->n;
}

/* ---- the thread ---- */

/* Whether it is over: written, failed, late, or wanted by nobody. */
static bool serve(struct lb_writer *writer, struct lb_writing *w, bool cut) {
    uint64_t now = lb_now_ns(), before = w->compute_ns;
    if (w->gone && atomic_load(w->gone)) {
        w->status = lb_fail(&w->detail, LB_E_CANCELLED, "the client has left");
    } else if (w->deadline_ns && now > w->deadline_ns) {
        w->status = lb_fail(&w->detail, LB_E_TIMEOUT, "the request's time was over before its text was");
    } else if (cut || !lb_engine_lend(writer->engine, turn, w)) {
        w->status = lb_fail(&w->detail, LB_E_UNAVAILABLE, "the server is shutting down");
    }
    lb_metrics_add(writer->metrics, LB_METRIC_WRITING, (const char *[]){w->model->name},
                   (double)(w->compute_ns - before) / LB_SECOND_NS);
    return w->status != LB_OK || complete(w);
}

static void end(struct lb_writer *writer, struct lb_writing *w) {
    const char *labels[] = {w->model->name};
    lb_metrics_add(writer->metrics, LB_METRIC_TOKENS, labels, (double)lb_writing_tokens(w));
    if (w->started_ns) {
        lb_metrics_add(writer->metrics, LB_METRIC_QUEUE_WAIT, labels,
                       (double)(w->started_ns - w->submitted_ns) / LB_SECOND_NS);
    }
    if (w->status == LB_E_TIMEOUT) {
        lb_metrics_add(writer->metrics, LB_METRIC_EXPIRED, labels, 1);
    }
    lb_generator_destroy(w->generator);
    w->generator = NULL;
    w->done(w); /* it may be gone after this */
}

static void *write_all(void *argument) {
    struct lb_writer *writer = argument;
    pthread_mutex_lock(&writer->lock);
    while (writer->waiting.first || writer->promised > 0 || !writer->closing) {
        struct lb_turn *first = lb_turns_take(&writer->waiting);
        if (!first) {
            pthread_cond_wait(&writer->changed, &writer->lock);
            continue;
        }
        struct lb_writing *w =
            (struct lb_writing *)(void *)((char *)first - offsetof(struct lb_writing, turn));
        bool late = writer->closing && lb_now_ns() > writer->until_ns;
        pthread_mutex_unlock(&writer->lock);
        bool over = serve(writer, w, late), cut = w->status == LB_E_UNAVAILABLE;
        int64_t asked = lb_writing_asked(w);
        if (over) {
            end(writer, w);
        } else if (w->progress) {
            w->progress(w);
        }
        pthread_mutex_lock(&writer->lock);
        if (over) {
            writer->state.requests--;
            writer->state.tokens -= asked;
            writer->n_cut += cut;
        } else {
            lb_turns_put(&writer->waiting, &w->turn);
        }
    }
    pthread_mutex_unlock(&writer->lock);
    return NULL;
}

struct lb_writer *lb_writer_create(struct lb_engine *engine, struct lb_metrics *metrics) {
    struct lb_writer *writer = lb_calloc(1, sizeof *writer);
    if (writer) {
        writer->engine = engine;
        writer->metrics = metrics;
        pthread_mutex_init(&writer->lock, NULL);
        pthread_cond_init(&writer->changed, NULL);
    }
    return writer;
}

enum lb_status lb_writer_start(struct lb_writer *writer, struct lb_detail *detail) {
    int error = pthread_create(&writer->thread, NULL, write_all, writer);
    writer->started = error == 0;
    return writer->started
               ? LB_OK
               : lb_fail_errno(detail, LB_E_NOMEM, error, "starting the thread that writes texts");
}

bool lb_writer_promise(struct lb_writer *writer) {
    pthread_mutex_lock(&writer->lock);
    bool open = !writer->closing && writer->started;
    writer->promised += open;
    pthread_mutex_unlock(&writer->lock);
    return open;
}

void lb_writer_excuse(struct lb_writer *writer) {
    pthread_mutex_lock(&writer->lock);
    writer->promised--;
    pthread_cond_signal(&writer->changed);
    pthread_mutex_unlock(&writer->lock);
}

enum lb_status lb_writer_submit(struct lb_writer *writer, struct lb_writing *w, struct lb_detail *detail) {
    pthread_mutex_lock(&writer->lock);
    bool closed = (writer->closing && !w->promised) || !writer->started;
    if (!closed) {
        w->submitted_ns = lb_now_ns();
        lb_turns_put(&writer->waiting, &w->turn);
        writer->promised -= w->promised;
        writer->state.requests++;
        writer->state.tokens += lb_writing_asked(w);
        pthread_cond_signal(&writer->changed);
    }
    pthread_mutex_unlock(&writer->lock);
    return closed ? lb_fail(detail, LB_E_UNAVAILABLE, "the server is shutting down") : LB_OK;
}

void lb_writer_close(struct lb_writer *writer, uint64_t until_ns) {
    if (!writer) {
        return;
    }
    pthread_mutex_lock(&writer->lock);
    writer->closing = true;
    writer->until_ns = until_ns;
    pthread_cond_signal(&writer->changed);
    pthread_mutex_unlock(&writer->lock);
}

size_t lb_writer_join(struct lb_writer *writer) {
    if (!writer) {
        return 0;
    }
    if (writer->started) {
        pthread_join(writer->thread, NULL);
        writer->started = false;
    }
    return writer->n_cut;
}

struct lb_writer_state lb_writer_state(struct lb_writer *writer) {
    pthread_mutex_lock(&writer->lock);
    struct lb_writer_state state = writer->state;
    pthread_mutex_unlock(&writer->lock);
    return state;
}

void lb_writer_destroy(struct lb_writer *writer) {
    if (writer) {
        pthread_cond_destroy(&writer->changed);
        pthread_mutex_destroy(&writer->lock);
        lb_free(writer);
    }
}
