#include "server/api/vllm_stream.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "server/api/reply.h"
#include "server/api/submit.h"

#include <pthread.h>
#include <string.h>

/* Of one text. */
#define MAX_TEXT_BYTES ((size_t)64 << 20)

struct text {
    /* Under the lock. */
    int64_t n;           /* tokens */
    bool over;           /* no more come */
    size_t taken;        /* bytes of the text that were put into fresh */
    struct lb_buf fresh; /* and are not told yet */
    /* Of those who tell. */
    int64_t n_told;
    bool begun, ended;
    struct lb_buf told;
};

struct stream {
    const struct lb_vllm_teller *teller;
    pthread_mutex_t lock;
    struct text *texts; /* [n] */
    int64_t n, at;      /* whose turn it is to be told */
    size_t held;        /* bytes at a text's end that a stop may still take away */
    const char *name;
    bool done; /* all is told */
    struct lb_vllm_writer writer;
    struct lb_detail detail;
    struct lb_span part;
};

/* ---- the writer's thread ---- */

static void publish_one(const struct stream *s, const struct lb_written *written, int64_t max_tokens,
                        struct text *text) {
    size_t len = written->text.len, end = len > s->held ? len - s->held : 0;
    text->n = written->n;
    text->over = written->stopped || written->n == max_tokens;
    end = text->over ? len : end;
    if (end > text->taken) {
        const char *data = written->text.data + text->taken;
        size_t more = text->over ? end - text->taken : lb_utf8_settled(data, end - text->taken);
        lb_buf_append(&text->fresh, data, more);
        text->taken += more;
    }
}

static void publish(const struct lb_writing *w) {
    struct lb_exchange *x = w->context;
    struct stream *s = ((struct lb_visit *)x->user)->stream;
    pthread_mutex_lock(&s->lock);
    for (int64_t i = 0; i < s->n; i++) {
        publish_one(s, &w->texts[i], w->prompts[i].args.max_new_tokens, &s->texts[i]);
    }
    pthread_mutex_unlock(&s->lock);
}

static void progress(struct lb_writing *w) {
    publish(w);
    lb_exchange_wake(w->context);
}

static void done(struct lb_writing *w) {
    struct lb_exchange *x = w->context;
    publish(w);
    lb_vllm_count_written(x->user);
    lb_exchange_leave(x);
}

/* ---- the codec's threads ---- */

/* What is new of text b; false: nothing is. */
static bool hear(struct stream *s, int64_t b, struct lb_vllm_piece *out) {
    struct text *text = &s->texts[b];
    if (!s->teller->whole) {
        lb_buf_reset(&text->told);
    }
    size_t before = text->told.len;
    pthread_mutex_lock(&s->lock);
    *out = (struct lb_vllm_piece){.name = s->name,
                                  .index = b,
                                  .later = text->begun,
                                  .goes_on = !text->over,
                                  .from = text->n_told,
                                  .n = text->n};
    lb_utf8_append_lossy(&text->told, text->fresh.data, text->fresh.len);
    if (lb_buf_status(&text->fresh) != LB_OK || lb_buf_status(&text->told) != LB_OK) {
        s->writer.status = lb_fail(&s->detail, LB_E_NOMEM, "out of memory; try again");
    }
    lb_buf_reset(&text->fresh);
    pthread_mutex_unlock(&s->lock);
    out->text = text->told.data ? text->told.data : "";
    out->len = text->told.len;
    bool is_new = out->n > out->from || out->len > before || (!out->goes_on && !text->ended);
    text->n_told = out->n;
    text->begun |= is_new;
    text->ended = !out->goes_on;
    return is_new;
}

/* Events about what is new, in turn. */
static void put_events(struct lb_exchange *x, struct stream *s) {
    for (int64_t i = 0; i < s->n && s->writer.status == LB_OK && x->body.len < LB_EVENTS_BYTES; i++) {
        struct lb_vllm_piece piece;
        if (hear(s, s->at, &piece)) {
            s->teller->put(x, &s->writer, &piece);
        }
        s->at = (s->at + 1) % s->n;
    }
}

/* What went wrong since the first byte; no more comes of it. */
static void put_error(struct lb_exchange *x, enum lb_status status, const struct lb_detail *detail) {
    struct lb_visit *visit = x->user;
    visit->stream_error = status == LB_E_CANCELLED ? 400 : lb_http_status(status);
    json_t *body =
        lb_reply_error_body(x, visit->stream_error, detail->text[0] ? detail->text : lb_status_name(status));
    lb_buf_append_str(&x->body, "data: ");
    if (!body || lb_json_dump(body, 0, &x->body) != LB_OK) {
        lb_buf_append_str(&x->body, "{\"error\":{}}");
    }
    json_decref(body);
    lb_buf_append_str(&x->body, "\n\n");
}

/* The last events: what comes behind all texts, or why there are no more. */
static void put_last(struct lb_exchange *x, struct stream *s) {
    struct lb_visit *visit = x->user;
    const struct lb_writing *w = visit->writing;
    if (s->writer.status != LB_OK && s->writer.status != LB_E_CANCELLED) {
        put_error(x, s->writer.status, &s->detail);
    } else if (s->writer.status == LB_E_CANCELLED || w->status == LB_E_CANCELLED) {
        const struct lb_detail left = {
            .text = "the connection was closed for sending before all was told; keep it "
                    "open"};
        put_error(x, LB_E_CANCELLED, &left);
    } else if (w->status != LB_OK) {
        put_error(x, w->status, &w->detail);
    } else if (s->teller->end) {
        s->teller->end(x, &s->writer, s->name);
    }
    lb_buf_append_str(&x->body, "data: [DONE]\n\n");
    s->done = true;
    lb_visit_leave(visit); /* before its client can know */
}

static bool next(struct lb_exchange *x) {
    struct stream *s = ((struct lb_visit *)x->user)->stream;
    x->reply.n_parts = 0;
    if (s->done) {
        return true;
    }
    bool over = !lb_exchange_is_shared(x); /* before it is looked at what there is: that is all then */
    if (atomic_load(&x->gone) && s->writer.status == LB_OK) {
        s->writer.status = LB_E_CANCELLED; /* one who closed only his own side may still be reading */
    }
    lb_buf_reset(&x->body);
    put_events(x, s);
    if (s->writer.status != LB_OK) {
        atomic_store(&x->gone, true); /* nobody wants the rest */
        lb_buf_reset(&x->body);       /* what is half written */
    }
    if (over && x->body.len == 0) {
        put_last(x, s);
    }
    s->part = (struct lb_span){x->body.data, x->body.len};
    x->reply.parts = &s->part;
    x->reply.n_parts = 1;
    return lb_buf_status(&x->body) == LB_OK;
}

void lb_vllm_stream_begin(struct lb_server *server, struct lb_exchange *x) {
    struct lb_visit *visit = x->user;
    struct stream *s = visit->stream;
    (void)server;
    if (!lb_exchange_is_shared(x) && visit->writing->status != LB_OK) {
        lb_vllm_reply_unwritten(x); /* no byte is out: as any other */
        return;
    }
    s->name = lb_vllm_open_answer(x, s->teller->prefix, s->teller->request_id, &s->writer, &s->detail);
    if (!s->name) {
        return;
    }
    lb_reply_bytes(x, 200, LB_EVENT_STREAM, NULL, 0);
    if (x->reply.status == 200) {
        lb_reply_header(x, "Cache-Control", "no-cache");
        x->reply.next = next;
        x->reply.total_bytes = LB_REPLY_OPEN;
    }
}

/* ---- life ---- */

static void end(void *stream) {
    struct stream *s = stream;
    for (int64_t i = 0; i < s->n; i++) {
        lb_buf_finish(&s->texts[i].fresh);
        lb_buf_finish(&s->texts[i].told);
    }
    pthread_mutex_destroy(&s->lock);
}

bool lb_vllm_stream_plan(struct lb_exchange *x, const struct lb_vllm_teller *teller) {
    struct lb_visit *visit = x->user;
    struct lb_writing *w = visit->writing;
    struct stream *s = lb_arena_zarray(&x->arena, 1, sizeof *s);
    struct text *texts = lb_arena_zarray(&x->arena, (size_t)w->n, sizeof *texts);
    if (!s || !texts) {
        lb_reply_error(x, 503, "out of memory; try again");
        return false;
    }
    s->teller = teller;
    s->texts = texts;
    s->n = w->n;
    for (int64_t i = 0; i < w->n; i++) {
        lb_buf_init(&texts[i].fresh, MAX_TEXT_BYTES);
        lb_buf_init(&texts[i].told, MAX_TEXT_BYTES * 3); /* a byte that is none becomes three */
    }
    for (size_t i = 0; !w->include_stop && i < w->n_stops; i++) {
        size_t len = strlen(w->stops[i]) - 1;
        s->held = len > s->held ? len : s->held;
    }
    pthread_mutex_init(&s->lock, NULL);
    visit->stream = s;
    visit->stream_end = end;
    w->progress = progress;
    w->done = done;
    return true;
}
