#include "server/http/http.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "proto/limits.h"

#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* A connection's own memory: the read buffer for bodies and the headers both ways. */
#define CONNECTION_BYTES (256u << 10)
_Static_assert(CONNECTION_BYTES >= 2 * LB_MAX_HEADER_BYTES, "headers must fit a connection's memory");
/* Smaller answers are sent as they are. */
#define PACK_FROM 1024
/* An exchange's arena holds decoded tensors and JSON texts. */
#define ARENA_BYTES ((size_t)LB_MAX_JSON_BYTES * 16)
/* Bodies of refused requests are read and dropped up to here, so that the client gets to read its answer. */
#define DROP_BYTES (16u << 20)

struct lb_http {
    struct MHD_Daemon *daemon;
    struct lb_http_app app;
    size_t max_body_bytes;
    struct lb_budget *budget;
    atomic_bool draining;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    unsigned exchanges; /* open ones; guarded by lock */
};

enum stage { RECEIVING, REFUSED, DEFERRED, ANSWERED };

struct held {
    struct lb_exchange x;
    struct lb_http *http;
    struct MHD_Connection *connection;
    enum stage stage; /* HTTP thread only */
    size_t taken;     /* bytes from the budget */
    size_t dropped;
    struct lb_buf packed; /* the body as sent, when compressed */
};

static struct held *held_of(struct lb_exchange *exchange) {
    return (struct held *)(void *)((char *)exchange - offsetof(struct held, x));
}

const char *lb_exchange_header(struct lb_exchange *exchange, const char *name) {
    return MHD_lookup_connection_value(held_of(exchange)->connection, MHD_HEADER_KIND, name);
}

void lb_reply_header(struct lb_exchange *exchange, const char *name, const char *value) {
    struct lb_reply *reply = &exchange->reply;
    if (reply->n_headers < LB_REPLY_MAX_HEADERS) {
        reply->headers[reply->n_headers].name = name;
        reply->headers[reply->n_headers++].value = value;
    }
}

void lb_exchange_defer(struct lb_exchange *exchange) {
    struct held *held = held_of(exchange);
    held->stage = DEFERRED;
    MHD_suspend_connection(held->connection);
}

void lb_exchange_resume(struct lb_exchange *exchange) {
    MHD_resume_connection(held_of(exchange)->connection);
}

/* ---- one exchange's life ---- */

static void read_peer(struct held *held) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(held->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    if (!info || !info->client_addr) {
        return;
    }
    socklen_t size = info->client_addr->sa_family == AF_INET    ? sizeof(struct sockaddr_in)
                     : info->client_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                                : 0;
    if (size > 0) {
        getnameinfo(info->client_addr, size, held->x.peer, sizeof held->x.peer, NULL, 0, NI_NUMERICHOST);
    }
}

static struct held *held_create(struct lb_http *http, struct MHD_Connection *connection, const char *url,
                                const char *method) {
    struct held *held = lb_calloc(1, sizeof *held);
    if (!held) {
        return NULL;
    }
    held->http = http;
    held->connection = connection;
    held->x.started_ns = lb_now_ns();
    lb_buf_init(&held->x.body, http->max_body_bytes);
    lb_buf_init(&held->packed, LB_MAX_RESPONSE_BYTES);
    lb_arena_init(&held->x.arena, ARENA_BYTES);
    held->x.method = lb_arena_strdup(&held->x.arena, method);
    held->x.path = lb_arena_strdup(&held->x.arena, url);
    if (!held->x.method || !held->x.path) {
        lb_arena_finish(&held->x.arena);
        lb_free(held);
        return NULL;
    }
    read_peer(held);
    pthread_mutex_lock(&http->lock);
    http->exchanges++;
    pthread_mutex_unlock(&http->lock);
    return held;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                         enum MHD_RequestTerminationCode code) {
    (void)connection;
    struct lb_http *http = cls;
    struct held *held = *con_cls;
    if (!held) {
        return;
    }
    *con_cls = NULL;
    http->app.end(http->app.context, &held->x, code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    if (held->x.user_free) {
        held->x.user_free(held->x.user);
    }
    lb_budget_give(http->budget, held->taken);
    lb_buf_finish(&held->packed);
    lb_buf_finish(&held->x.body);
    lb_arena_finish(&held->x.arena);
    lb_free(held);
    pthread_mutex_lock(&http->lock);
    if (--http->exchanges == 0) {
        pthread_cond_broadcast(&http->idle);
    }
    pthread_mutex_unlock(&http->lock);
}

/* ---- answers ---- */

static size_t reply_bytes(const struct lb_reply *reply) {
    size_t sum = 0;
    for (size_t i = 0; i < reply->n_parts; i++) {
        sum += reply->parts[i].len;
    }
    return sum;
}

/* Packs the answer when the client asked for it and it is worth it; a failure leaves it as it is. */
static void pack_reply(struct held *held) {
    struct lb_reply *reply = &held->x.reply;
    enum lb_coding coding = lb_coding_accepted(lb_exchange_header(&held->x, "Accept-Encoding"));
    if (coding == LB_CODING_IDENTITY || reply->status != 200 || held->x.sent_bytes < PACK_FROM) {
        return;
    }
    struct lb_span *packed = lb_arena_array(&held->x.arena, 1, sizeof *packed);
    if (!packed || lb_pack(coding, reply->parts, reply->n_parts, &held->packed, NULL) != LB_OK) {
        return;
    }
    packed->data = held->packed.data;
    packed->len = held->packed.len;
    reply->parts = packed;
    reply->n_parts = 1;
    held->x.sent_bytes = held->packed.len;
    held->x.sent_coding = coding;
    lb_reply_header(&held->x, "Content-Encoding", lb_coding_name(coding));
}

static struct MHD_Response *make_response(struct held *held) {
    const struct lb_reply *reply = &held->x.reply;
    if (reply->n_parts <= 1) {
        const struct lb_span *part = reply->parts;
        /* The cast drops a const: the library doesn't write to a persistent buffer. */
        return MHD_create_response_from_buffer(reply->n_parts ? part->len : 0,
                                               reply->n_parts ? (void *)(uintptr_t)part->data : NULL,
                                               MHD_RESPMEM_PERSISTENT);
    }
    struct MHD_IoVec *iov = lb_arena_array(&held->x.arena, reply->n_parts, sizeof *iov);
    if (!iov) {
        return NULL;
    }
    for (size_t i = 0; i < reply->n_parts; i++) {
        iov[i].iov_base = reply->parts[i].data;
        iov[i].iov_len = reply->parts[i].len;
    }
    return MHD_create_response_from_iovec(iov, (unsigned)reply->n_parts, NULL, NULL);
}

static enum MHD_Result send_reply(struct held *held) {
    struct lb_http *http = held->http;
    struct lb_reply *reply = &held->x.reply;
    if (reply->status == 0) {
        http->app.refuse(http->app.context, &held->x, 500, "no answer was made: a bug in limbeckd");
    }
    held->stage = ANSWERED;
    http->app.sending(http->app.context, &held->x);
    held->x.sent_bytes = reply_bytes(reply);
    pack_reply(held);
    struct MHD_Response *response = make_response(held);
    if (!response) {
        return MHD_NO;
    }
    for (int i = 0; i < reply->n_headers; i++) {
        MHD_add_response_header(response, reply->headers[i].name, reply->headers[i].value);
    }
    if (atomic_load(&http->draining)) {
        MHD_add_response_header(response, "Connection", "close");
    }
    enum MHD_Result result = MHD_queue_response(held->connection, (unsigned)reply->status, response);
    MHD_destroy_response(response);
    return result;
}

static void refuse(struct held *held, int status, const char *text) {
    held->stage = REFUSED;
    held->http->app.refuse(held->http->app.context, &held->x, status, text);
}

/* ---- requests ---- */

/* Declared length of the body; false when none was declared. */
static bool declared_length(struct held *held, unsigned long long *out) {
    const char *text = lb_exchange_header(&held->x, "Content-Length");
    if (!text || *text < '0' || *text > '9') {
        return false;
    }
    *out = strtoull(text, NULL, 10);
    return true;
}

/* Whether the answer to a refused request should go out before its body is read. */
static bool refuse_at_once(struct held *held) {
    const char *expect = lb_exchange_header(&held->x, "Expect");
    unsigned long long length = 0;
    return (expect && strcasecmp(expect, "100-continue") == 0) ||
           (declared_length(held, &length) && length > DROP_BYTES);
}

static enum MHD_Result begin_request(struct held *held) {
    struct lb_http *http = held->http;
    unsigned long long length = 0;
    http->app.begin(http->app.context, &held->x);
    if (held->x.reply.status != 0) {
        held->stage = REFUSED;
    } else if (declared_length(held, &length) && length > http->max_body_bytes) {
        refuse(held, 413, "the request's body is larger than this daemon's maximum; ask in smaller pieces");
    }
    return held->stage == REFUSED && refuse_at_once(held) ? send_reply(held) : MHD_YES;
}

static enum MHD_Result take_body(struct held *held, const char *data, size_t len) {
    struct lb_http *http = held->http;
    held->x.received_bytes += len;
    if (held->stage != RECEIVING) {
        held->dropped += len;
        return held->dropped > DROP_BYTES ? MHD_NO : MHD_YES;
    }
    if (!lb_budget_take(http->budget, len)) {
        refuse(held, 503, "too many bytes in flight; try again");
        lb_reply_header(&held->x, "Retry-After", "1");
        return MHD_YES;
    }
    held->taken += len;
    enum lb_status status = lb_buf_append(&held->x.body, data, len);
    if (status == LB_E_LIMIT) {
        refuse(held, 413, "the request's body is larger than this daemon's maximum; ask in smaller pieces");
    } else if (status != LB_OK) {
        refuse(held, 503, "out of memory; try again");
        lb_reply_header(&held->x, "Retry-After", "1");
    }
    return MHD_YES;
}

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
static void unpack_body(struct held *held) {
    struct lb_http *http = held->http;
    enum lb_coding coding = lb_coding_parse(lb_exchange_header(&held->x, "Content-Encoding"));
    if (coding == LB_CODING_IDENTITY || held->x.body.len == 0) {
        return;
    }
    struct lb_buf plain;
    struct lb_detail detail = {0};
    lb_buf_init(&plain, http->max_body_bytes);
    enum lb_status status = lb_unpack(coding, held->x.body.data, held->x.body.len, &plain, &detail);
    if (status == LB_E_FORMAT && held->x.body.data[0] == '{') {
        /* The header is left over from an earlier request (tritonclient writes it into its caller's
         * dictionary of headers): no coding begins with a JSON object's first byte. */
        lb_buf_finish(&plain);
        return;
    }
    if (status != LB_OK) {
        lb_buf_finish(&plain);
        refuse(held, unpack_status(status), detail.text);
        return;
    }
    lb_buf_finish(&held->x.body);
    held->x.body = plain;
    if (!lb_budget_take(http->budget, plain.len)) {
        refuse(held, 503, "too many bytes in flight; try again");
        lb_reply_header(&held->x, "Retry-After", "1");
        return;
    }
    held->taken += plain.len;
}

static enum MHD_Result finish_request(struct held *held) {
    struct lb_http *http = held->http;
    switch (held->stage) {
    case RECEIVING:
        unpack_body(held);
        if (held->stage == RECEIVING) {
            http->app.handle(http->app.context, &held->x);
        }
        /* Once deferred the exchange is somebody else's; its stage is still ours to read. */
        return held->stage == DEFERRED ? MHD_YES : send_reply(held);
    case DEFERRED:
        http->app.resumed(http->app.context, &held->x);
        return send_reply(held);
    case REFUSED:
        return send_reply(held);
    default:
        return MHD_NO;
    }
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data, size_t *size,
                                  void **con_cls) {
    (void)version;
    struct held *held = *con_cls;
    if (!held) {
        held = held_create(cls, connection, url, method);
        *con_cls = held;
        return held ? begin_request(held) : MHD_NO;
    }
    if (*size > 0) {
        size_t len = *size;
        *size = 0;
        return take_body(held, data, len);
    }
    return finish_request(held);
}

/* ---- the daemon ---- */

static void on_log(void *cls, const char *format, va_list arguments) LB_PRINTF(2, 0);
static void on_log(void *cls, const char *format, va_list arguments) {
    (void)cls;
    char text[256];
    vsnprintf(text, sizeof text, format, arguments);
    for (char *p = text; *p; p++) {
        if (*p < ' ' || *p == '"' || *p == '\\' || *p == 0x7f) {
            *p = ' ';
        }
    }
    lb_log(LB_LOG_DEBUG, "http", "text=\"%s\"", text);
}

static struct MHD_Daemon *start_daemon(struct lb_http *http, const struct lb_http_args *args) {
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)args->certificate},
                                   {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)args->key},
                                   {MHD_OPTION_END, 0, NULL}};
    if (args->certificate) {
        flags |= MHD_USE_TLS;
    } else {
        tls[0].option = MHD_OPTION_END;
    }
    return MHD_start_daemon(flags, 0, NULL, NULL, on_request, http, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
                            MHD_OPTION_LISTEN_SOCKET, args->listen_fd, MHD_OPTION_THREAD_POOL_SIZE,
                            (unsigned)args->threads, MHD_OPTION_CONNECTION_LIMIT, args->max_connections,
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
                            MHD_OPTION_CONNECTION_TIMEOUT, args->idle_seconds, MHD_OPTION_STRICT_FOR_CLIENT,
                            1, MHD_OPTION_NOTIFY_COMPLETED, on_completed, http, MHD_OPTION_ARRAY, tls,
                            MHD_OPTION_END);
}

enum lb_status lb_http_start(const struct lb_http_args *args, struct lb_http **out,
                             struct lb_detail *detail) {
    struct lb_http *http = lb_calloc(1, sizeof *http);
    if (!http) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory while starting HTTP");
    }
    http->app = args->app;
    http->max_body_bytes = args->max_body_bytes;
    http->budget = args->budget;
    atomic_init(&http->draining, false);
    pthread_mutex_init(&http->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&http->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    http->daemon = start_daemon(http, args);
    if (!http->daemon) {
        lb_http_stop(http);
        return lb_fail(detail, LB_E_IO,
                       args->certificate ? "HTTP could not be started: check that --tls-certificate and "
                                           "--tls-key are PEM and belong together"
                                         : "HTTP could not be started");
    }
    *out = http;
    return LB_OK;
}

void lb_http_drain(struct lb_http *http) {
    atomic_store(&http->draining, true);
}

bool lb_http_wait_idle(struct lb_http *http, uint64_t deadline_ns) {
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / LB_SECOND_NS),
                             .tv_nsec = (long)(deadline_ns % LB_SECOND_NS)};
    pthread_mutex_lock(&http->lock);
    int r = 0;
    while (http->exchanges > 0 && r == 0) {
        r = pthread_cond_timedwait(&http->idle, &http->lock, &until);
    }
    bool idle = http->exchanges == 0;
    pthread_mutex_unlock(&http->lock);
    return idle;
}

unsigned lb_http_exchanges(struct lb_http *http) {
    pthread_mutex_lock(&http->lock);
    unsigned n = http->exchanges;
    pthread_mutex_unlock(&http->lock);
    return n;
}

void lb_http_stop(struct lb_http *http) {
    if (!http) {
        return;
    }
    if (http->daemon) {
        MHD_stop_daemon(http->daemon);
    }
    pthread_cond_destroy(&http->idle);
    pthread_mutex_destroy(&http->lock);
    lb_free(http);
}
