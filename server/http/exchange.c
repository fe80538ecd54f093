#include "server/http/exchange.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "proto/limits.h"
#include "server/http/mailbox.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* Smaller answers are sent as they are. */
#define PACK_FROM 1024
/* Larger bodies, and packed ones, wait among the heavy tasks. */
#define LIGHT_BODY ((size_t)64 << 10)
/* The head of an answer: as large as clients take. */
#define ANSWER_HEAD_BYTES ((size_t)64 << 10)
/* An exchange's arena holds decoded tensors and JSON texts. */
#define ARENA_BYTES ((size_t)LB_MAX_JSON_BYTES * 16)

static struct lb_held *held_of(struct lb_exchange *exchange) {
    return (struct lb_held *)(void *)((char *)exchange - offsetof(struct lb_held, x));
}

/* ---- for handlers ---- */

const char *lb_exchange_header(struct lb_exchange *exchange, const char *name) {
    return lb_head_find(&held_of(exchange)->head, name);
}

void lb_reply_header(struct lb_exchange *exchange, const char *name, const char *value) {
    struct lb_reply *reply = &exchange->reply;
    if (value && reply->n_headers < LB_REPLY_MAX_HEADERS) {
        reply->headers[reply->n_headers].name = name;
        reply->headers[reply->n_headers++].value = value;
    }
}

void lb_exchange_client(struct lb_exchange *exchange, const char *name) {
    struct lb_client *client = lb_client_get(held_of(exchange)->http->args.budget, name);
    if (client) {
        lb_hold_as(&exchange->memory, client);
    }
}

void lb_exchange_defer(struct lb_exchange *exchange) {
    *held_of(exchange)->deferred = true;
}

void lb_exchange_resume(struct lb_exchange *exchange) {
    struct lb_held *held = held_of(exchange);
    held->resumed = true;
    lb_held_send_away(held);
}

void lb_exchange_share(struct lb_exchange *exchange) {
    struct lb_held *held = held_of(exchange);
    *held->deferred = true;
    atomic_store(&held->sharing, LB_SHARED | LB_ASLEEP);
}

bool lb_exchange_is_shared(struct lb_exchange *exchange) {
    return (atomic_load(&held_of(exchange)->sharing) & LB_SHARED) != 0;
}

/* Who leaves does so in the same step: from it on the exchange may end. */
static void wake(struct lb_held *held, bool leaves) {
    unsigned was = atomic_load(&held->sharing), becomes;
    do {
        becomes = was & LB_ASLEEP ? was & ~LB_ASLEEP : was | LB_WOKEN;
        becomes &= leaves ? ~LB_SHARED : ~0u;
    } while (!atomic_compare_exchange_weak(&held->sharing, &was, becomes));
    if (was & LB_ASLEEP) {
        lb_exchange_resume(&held->x);
    } else if (leaves && (was & LB_ENDING)) {
        lb_mailbox_put(&held->conn->loop->mailbox, held);
    }
}

void lb_exchange_wake(struct lb_exchange *exchange) {
    wake(held_of(exchange), false);
}

void lb_exchange_leave(struct lb_exchange *exchange) {
    wake(held_of(exchange), true);
}

/* ---- life ---- */

struct lb_held *lb_held_create(struct lb_conn *conn, const char *head, size_t head_len) {
    struct lb_held *held = lb_calloc(1, sizeof *held);
    if (!held) {
        return NULL;
    }
    held->http = conn->loop->http;
    held->conn = conn;
    held->x.started_ns = lb_now_ns();
    held->x.method = held->x.path = "";
    atomic_init(&held->x.gone, false);
    atomic_init(&held->sharing, 0);
    lb_buf_init(&held->x.body, held->http->args.max_body_bytes);
    lb_buf_init(&held->packed, LB_MAX_RESPONSE_BYTES);
    lb_buf_init(&held->answer_head, ANSWER_HEAD_BYTES);
    lb_arena_init(&held->x.arena, ARENA_BYTES);
    memcpy(held->x.peer, conn->peer, sizeof held->x.peer);
    held->x.certificate = conn->certificate[0] ? conn->certificate : NULL;
    char *text = lb_arena_alloc(&held->x.arena, head_len);
    if (!text) {
        lb_free(held);
        return NULL;
    }
    memcpy(text, head, head_len);
    held->x.memory.client = lb_client_retain(conn->client);
    atomic_fetch_add(&held->http->exchanges, 1);
    const char *why = NULL;
    int status = lb_head_parse(text, head_len, &held->head, &why);
    held->x.method = held->head.method;
    held->x.path = held->head.path;
    held->close = status != 0 || !held->head.keep_alive;
    if (status != 0) {
        lb_held_refuse(held, status, why);
    }
    return held;
}

void lb_held_end(struct lb_held *held, bool complete) {
    struct lb_http *http = held->http;
    held->x.sent_bytes = held->body_sent;
    http->args.app.end(http->args.app.context, &held->x, complete);
    if (held->x.user_free) {
        held->x.user_free(held->x.user);
    }
    lb_buf_finish(&held->packed);
    lb_buf_finish(&held->answer_head);
    lb_buf_finish(&held->x.body);
    lb_arena_finish(&held->x.arena);
    lb_holding_finish(&held->x.memory);
    lb_free(held);
    if (atomic_fetch_sub(&http->exchanges, 1) == 1) {
        pthread_mutex_lock(&http->lock);
        pthread_cond_broadcast(&http->idle);
        pthread_mutex_unlock(&http->lock);
    }
}

bool lb_held_let_go(struct lb_held *held) {
    return !(atomic_fetch_or(&held->sharing, LB_ENDING) & LB_SHARED);
}

void lb_held_refuse(struct lb_held *held, int status, const char *text) {
    held->refused = true;
    held->http->args.app.refuse(held->http->args.app.context, &held->x, status, text);
}

/* ---- the answer ---- */

static size_t parts_bytes(const struct lb_reply *reply) {
    size_t sum = 0;
    for (size_t i = 0; i < reply->n_parts; i++) {
        sum += reply->parts[i].len;
    }
    return sum;
}

static bool hold_more(void *context, size_t bytes) {
    struct lb_held *held = context;
    return !atomic_load(&held->x.gone) && lb_hold(&held->x.memory, bytes);
}

/* Packs the answer when the client asked for it and it is worth it; a failure leaves it as it is. */
static void pack_reply(struct lb_held *held) {
    struct lb_reply *reply = &held->x.reply;
    enum lb_coding coding = lb_coding_accepted(lb_exchange_header(&held->x, "Accept-Encoding"));
    if (coding == LB_CODING_IDENTITY || reply->status != 200 || !reply->text || reply->next ||
        strcmp(held->x.method, "HEAD") == 0 || parts_bytes(reply) < PACK_FROM) {
        return;
    }
    struct lb_span *packed = lb_arena_array(&held->x.arena, 1, sizeof *packed);
    if (!packed ||
        lb_pack(coding, reply->parts, reply->n_parts, hold_more, held, &held->packed, NULL) != LB_OK) {
        lb_buf_finish(&held->packed);
        return;
    }
    packed->data = held->packed.data;
    packed->len = held->packed.len;
    reply->parts = packed;
    reply->n_parts = 1;
    held->x.sent_coding = coding;
    lb_reply_header(&held->x, "Content-Encoding", lb_coding_name(coding));
}

static const char *reason(int status) {
    static const struct {
        int status;
        const char *text;
    } reasons[] = {{200, "OK"},
                   {304, "Not Modified"},
                   {400, "Bad Request"},
                   {401, "Unauthorized"},
                   {403, "Forbidden"},
                   {404, "Not Found"},
                   {405, "Method Not Allowed"},
                   {408, "Request Timeout"},
                   {409, "Conflict"},
                   {413, "Content Too Large"},
                   {415, "Unsupported Media Type"},
                   {417, "Expectation Failed"},
                   {429, "Too Many Requests"},
                   {431, "Request Header Fields Too Large"},
                   {500, "Internal Server Error"},
                   {501, "Not Implemented"},
                   {503, "Service Unavailable"},
                   {504, "Gateway Timeout"},
                   {505, "HTTP Version Not Supported"}};
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        if (reasons[i].status == status) {
            return reasons[i].text;
        }
    }
    return "Error";
}

static void write_head(struct lb_held *held) {
    struct lb_reply *reply = &held->x.reply;
    struct lb_buf *head = &held->answer_head;
    char date[40];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &utc);
    lb_buf_reset(head);
    lb_buf_printf(head, "HTTP/1.1 %d %s\r\nDate: %s\r\n", reply->status, reason(reply->status), date);
    for (int i = 0; i < reply->n_headers; i++) {
        lb_buf_printf(head, "%s: %s\r\n", reply->headers[i].name, reply->headers[i].value);
    }
    bool open = reply->next && reply->total_bytes == LB_REPLY_OPEN;
    held->chunked = open && held->head.minor > 0;
    held->close |= open && !held->chunked; /* its end is the connection's */
    if (held->chunked) {
        lb_buf_append_str(head, "Transfer-Encoding: chunked\r\n");
    } else if (reply->status != 304 && !open) {
        lb_buf_printf(head, "Content-Length: %zu\r\n", reply->next ? reply->total_bytes : parts_bytes(reply));
    }
    /* HTTP/1.0 clients believe in a close unless they are told otherwise. */
    lb_buf_printf(head, "%s%s\r\n", held->close ? "Connection: close\r\n" : "",
                  !held->close && held->head.minor == 0 ? "Connection: keep-alive\r\n" : "");
    held->failed |= lb_buf_status(head) != LB_OK;
    if (strcmp(held->x.method, "HEAD") == 0 || reply->status == 304) {
        reply->n_parts = 0;
        reply->next = NULL;
    }
}

void lb_held_prepare(struct lb_held *held, bool may_pack) {
    struct lb_http_app *app = &held->http->args.app;
    if (held->x.reply.status == 0) {
        app->refuse(app->context, &held->x, 500, "no answer was made: a bug in limbeckd");
    }
    app->sending(app->context, &held->x);
    if (may_pack) {
        pack_reply(held);
    }
    held->close |= atomic_load(&held->http->draining);
    write_head(held);
}

/* ---- on the codec's threads ---- */

static int unpack_status(enum lb_status status) {
    switch (status) {
    case LB_E_LIMIT:
        return 413;
    case LB_E_UNSUPPORTED:
        return 415;
    case LB_E_NOMEM:
        return 503;
    default:
        return 400;
    }
}

/* Undoes Content-Encoding: body becomes what the client meant. */
static void unpack_body(struct lb_held *held) {
    enum lb_coding coding = lb_coding_parse(lb_exchange_header(&held->x, "Content-Encoding"));
    size_t received = held->x.body.len;
    if (coding == LB_CODING_IDENTITY || received == 0) {
        return;
    }
    struct lb_buf plain;
    struct lb_detail detail = {0};
    lb_buf_init(&plain, held->http->args.max_body_bytes);
    enum lb_status status = lb_unpack(coding, held->x.body.data, received, hold_more, held, &plain, &detail);
    if (status == LB_E_FORMAT && held->x.body.data[0] == '{') {
        /* The header is left over from an earlier request (tritonclient writes it into its caller's
         * dictionary of headers): no coding begins with a JSON object's first byte. */
        lb_buf_finish(&plain);
        return;
    }
    if (status != LB_OK) {
        lb_buf_finish(&plain);
        lb_held_refuse(held, unpack_status(status), detail.text);
        return;
    }
    lb_buf_finish(&held->x.body);
    held->x.body = plain;
    lb_unhold(&held->x.memory, received);
}

static void handle(struct lb_held *held) {
    struct lb_http_app *app = &held->http->args.app;
    if (held->resumed) {
        app->resumed(app->context, &held->x);
        return;
    }
    unpack_body(held);
    if (!held->refused) {
        app->handle(app->context, &held->x);
    }
}

enum nap { NAP_ASLEEP, NAP_WOKEN, NAP_NONE };

/* Nothing is there to be sent: sleeps, unless it was woken since it last looked, or nothing more will come.
 */
static enum nap nap(struct lb_held *held) {
    unsigned was = atomic_load(&held->sharing), becomes;
    do {
        if (!(was & (LB_SHARED | LB_WOKEN))) {
            return NAP_NONE;
        }
        becomes = was & LB_WOKEN ? was & ~LB_WOKEN : was | LB_ASLEEP;
    } while (!atomic_compare_exchange_weak(&held->sharing, &was, becomes));
    return was & LB_WOKEN ? NAP_WOKEN : NAP_ASLEEP;
}

/* What stands around the parts of an answer of open length, the last of which has none. */
static void frame(struct lb_held *held) {
    size_t bytes = parts_bytes(&held->x.reply);
    lb_buf_reset(&held->answer_head);
    held->head_sent = held->tail_sent = 0;
    held->ended = bytes == 0;
    held->tail = held->chunked ? "\r\n" : NULL;
    if (held->chunked) {
        lb_buf_printf(&held->answer_head, "%zx\r\n", bytes);
        held->failed |= lb_buf_status(&held->answer_head) != LB_OK;
    }
}

/* The next parts of an answer; false: it sleeps, and is nobody's. */
static bool make_next(struct lb_held *held) {
    struct lb_reply *reply = &held->x.reply;
    bool open = reply->total_bytes == LB_REPLY_OPEN;
    enum nap slept = NAP_WOKEN;
    while (slept == NAP_WOKEN) {
        held->failed |= !reply->next(&held->x);
        slept = open && !held->failed && parts_bytes(reply) == 0 ? nap(held) : NAP_NONE;
    }
    if (slept == NAP_ASLEEP) {
        return false;
    }
    if (open) {
        frame(held);
    }
    return true;
}

static void run(struct lb_codec_task *task) {
    struct lb_held *held = (struct lb_held *)(void *)((char *)task - offsetof(struct lb_held, task));
    bool deferred = false;
    if (held->streaming) {
        if (!make_next(held)) {
            return;
        }
    } else {
        held->deferred = &deferred;
        handle(held);
        if (deferred) {
            return; /* it is somebody else's, and may be gone */
        }
        lb_held_prepare(held, true);
    }
    lb_mailbox_put(&held->conn->loop->mailbox, held);
}

void lb_held_send_away(struct lb_held *held) {
    bool packed = lb_coding_parse(lb_exchange_header(&held->x, "Content-Encoding")) != LB_CODING_IDENTITY;
    held->task = (struct lb_codec_task){
        .run = run,
        .turn = {.client = held->x.memory.client},
        .heavy = held->x.heavy || (!held->resumed && (packed || held->x.body.len > LIGHT_BODY))};
    lb_codec_push(held->http->codec, &held->task);
}
