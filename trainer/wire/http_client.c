#include "trainer/wire/http_client.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "proto/oip.h"
#include "trainer/wire/url.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define DEFAULT_TIMEOUT_NS (60 * LB_SECOND_NS)
#define CONNECT_TIMEOUT_MS 10000L
#define BUFFER_BYTES (512L << 10)
/* Memory taken in one go because an answer announced its length; a longer one grows as it comes. */
#define RESERVE_BYTES (64u << 20)
#define IDLE_EASY 16
_Static_assert(sizeof((struct lb_call *)NULL)->error >= CURL_ERROR_SIZE, "libcurl writes as much");

struct lb_client {
    pthread_t thread;
    pthread_mutex_t lock;
    CURLM *multi;
    bool running; /* the thread was started */

    /* Under the lock. */
    bool closing;
    struct lb_call *starting; /* newest last */
    bool cancelling;          /* some call was marked cancelled */

    /* The thread's own. */
    struct lb_call *active;
    CURL *idle[IDLE_EASY];
    size_t n_idle;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static CURLcode global_code;

static void start_curl(void) {
    global_code = curl_global_init(CURL_GLOBAL_ALL);
}

void lb_call_init(struct lb_call *call, const char *base, const char *path, const char *token) {
    memset(call, 0, sizeof *call);
    call->base = base;
    call->path = path;
    call->token = token;
    call->json_bytes = -1;
    call->answer_json_bytes = -1;
}

void lb_call_finish(struct lb_call *call) {
    if (call) {
        lb_buf_finish(&call->answer);
        lb_free(call->metadata);
        call->metadata = NULL;
    }
}

/* ---- one call ---- */

static size_t on_body(char *bytes, size_t size, size_t n, void *user) {
    struct lb_call *call = user;
    size_t len = size * n;
    if (call->answer.len == 0) {
        curl_off_t announced = -1;
        curl_easy_getinfo(call->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &announced);
        if (announced > 0 && (uint64_t)announced <= call->answer.max) {
            size_t reserve = (uint64_t)announced < RESERVE_BYTES ? (size_t)announced : RESERVE_BYTES;
            if (reserve > len && lb_buf_extend(&call->answer, reserve)) {
                call->answer.len = 0;
            }
        }
    }
    return lb_buf_append(&call->answer, bytes, len) ? 0 : len;
}

/* Whether the line is the header name; *value is what stands behind it, without blanks, of *len bytes. */
static bool is_header(const char *line, size_t line_len, const char *name, const char **value, size_t *len) {
    size_t n = strlen(name);
    if (line_len <= n || strncasecmp(line, name, n) || line[n] != ':') {
        return false;
    }
    const char *p = line + n + 1, *end = line + line_len;
    while (p < end && (*p == ' ' || *p == '\t')) {
        p++;
    }
    while (end > p && strchr(" \t\r\n", end[-1])) {
        end--;
    }
    *value = p;
    *len = (size_t)(end - p);
    return true;
}

static int64_t parse_length(const char *text, size_t len) {
    int64_t v = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9' || v > INT64_MAX / 10 - 9) {
            return -2; /* there, but no number: never a valid length */
        }
        v = v * 10 + (text[i] - '0');
    }
    return len ? v : -2;
}

static size_t on_header(char *line, size_t size, size_t n, void *user) {
    struct lb_call *call = user;
    size_t len = size * n, value_len;
    const char *value;
    if (len > 5 &&
        !memcmp(line, "HTTP/", 5)) { /* a status line: forget the headers of a 1xx answer before it */
        call->answer_json_bytes = -1;
        call->digest[0] = 0;
    } else if (is_header(line, len, LB_HEADER_JSON_LENGTH, &value, &value_len)) {
        call->answer_json_bytes = parse_length(value, value_len);
    } else if (is_header(line, len, LB_HEADER_DIGEST, &value, &value_len)) {
        static const char prefix[] = "sha-256=";
        size_t skip = sizeof prefix - 1;
        if (value_len == skip + LB_SHA256_HEX - 1 && !memcmp(value, prefix, skip)) {
            memcpy(call->digest, value + skip, LB_SHA256_HEX - 1);
            call->digest[LB_SHA256_HEX - 1] = 0;
        }
    } else if (is_header(line, len, "metadata", &value, &value_len) && !call->metadata) {
        call->metadata = lb_malloc_array(value_len + 1, 1);
        if (!call->metadata) {
            return 0; /* ends the exchange */
        }
        memcpy(call->metadata, value, value_len);
        call->metadata[value_len] = 0;
    }
    return len;
}

static bool add_header(struct curl_slist **list, const char *text) {
    struct curl_slist *longer = curl_slist_append(*list, text);
    if (longer) {
        *list = longer;
    }
    return longer != NULL;
}

static bool make_headers(struct lb_call *call, struct curl_slist **list) {
    bool ok = add_header(list, "Expect:"); /* no 100-continue round trip before large bodies */
    if (call->body) {
        ok = ok &&
             add_header(list, call->json_bytes >= 0 || call->put ? "Content-Type: application/octet-stream"
                                                                 : "Content-Type: application/json");
    }
    if (call->json_bytes >= 0) {
        char line[96];
        snprintf(line, sizeof line, "%s: %lld", LB_HEADER_JSON_LENGTH, (long long)call->json_bytes);
        ok = ok && add_header(list, line);
    }
    if (call->token) {
        size_t size = strlen(call->token) + sizeof "Authorization: Bearer ";
        char *line = lb_malloc_array(size, 1);
        ok = ok && line;
        if (line) {
            snprintf(line, size, "Authorization: Bearer %s", call->token);
            ok = ok && add_header(list, line);
        }
        lb_free(line);
    }
    if (call->id) {
        char line[128];
        snprintf(line, sizeof line, "X-Request-Id: %s", call->id);
        ok = ok && add_header(list, line);
    }
    if (call->fresh) {
        ok = ok && add_header(list, "Cache-Control: no-cache");
    }
    return ok;
}

/* base without slashes at its end, then path. */
static char *make_url(const char *base, const char *path) {
    if (lb_url_scheme(base, NULL) == LB_SCHEME_UNIX) {
        base = "http://localhost";
    }
    size_t n = strlen(base);
    while (n && base[n - 1] == '/') {
        n--;
    }
    size_t size = n + strlen(path) + 1;
    char *url = lb_malloc_array(size, 1);
    if (url) {
        snprintf(url, size, "%.*s%s", (int)n, base, path);
    }
    return url;
}

static bool is_loopback(const char *url) {
    const char *host = strstr(url, "://");
    host = host ? host + 3 : url;
    return !strncmp(host, "127.", 4) || !strncmp(host, "[::1]", 5) || !strncasecmp(host, "localhost", 9);
}

/* Every option of one exchange. The handle was reset before. */
static bool set_options(struct lb_call *call, CURL *easy, struct curl_slist *headers) {
    uint64_t timeout_ms = (call->timeout_ns ? call->timeout_ns : DEFAULT_TIMEOUT_NS) / LB_MS_NS;
    timeout_ms = timeout_ms < 1 ? 1 : timeout_ms > 1u << 30 ? 1u << 30 : timeout_ms;
    CURLcode bad = CURLE_OK;
#define SET(option, value) bad = bad ? bad : curl_easy_setopt(easy, option, value)
    SET(CURLOPT_URL, call->url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_USERAGENT, "limbeck/" LB_VERSION);
    SET(CURLOPT_BUFFERSIZE, BUFFER_BYTES);
    SET(CURLOPT_UPLOAD_BUFFERSIZE, BUFFER_BYTES);
    SET(CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    SET(CURLOPT_CONNECTTIMEOUT_MS,
        (long)timeout_ms < CONNECT_TIMEOUT_MS ? (long)timeout_ms : CONNECT_TIMEOUT_MS);
    SET(CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)call->answer.max);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, call);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, call);
    SET(CURLOPT_PRIVATE, call);
    SET(CURLOPT_ERRORBUFFER, call->error);
    if (call->body) {
        SET(CURLOPT_POST, 1L);
        SET(CURLOPT_POSTFIELDS, call->body);
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_bytes);
        if (call->put) {
            SET(CURLOPT_CUSTOMREQUEST, "PUT");
        }
    }
    size_t scheme;
    if (lb_url_scheme(call->base, &scheme) == LB_SCHEME_UNIX) {
        SET(CURLOPT_UNIX_SOCKET_PATH, call->base + scheme);
    }
    if (is_loopback(call->url)) {
        SET(CURLOPT_PROXY, ""); /* a proxy of the environment is for other machines */
    }
    const char *certificates = getenv("SSL_CERT_FILE");
    if (certificates && *certificates) {
        SET(CURLOPT_CAINFO, certificates);
    }
    const char *own = getenv("LIMBECK_CLIENT_CERTIFICATE"), *key = getenv("LIMBECK_CLIENT_KEY");
    if (own && *own) {
        SET(CURLOPT_SSLCERT, own);
        SET(CURLOPT_SSLKEY, key && *key ? key : own);
    }
#undef SET
    return bad == CURLE_OK;
}

/* Spoken to without TLS, or the other way round: that doesn't pass by waiting. */
static bool is_other_protocol(const struct lb_call *call, CURLcode code) {
    return code == CURLE_SSL_CONNECT_ERROR && (strstr(call->error, "wrong version number") != NULL ||
                                               strstr(call->error, "unexpected TLS packet") != NULL);
}

/* A certificate of our own that can't be read: some libraries of TLS have no code for it. */
static bool is_bad_certificate(const struct lb_call *call, CURLcode code) {
    return code == CURLE_SSL_CERTPROBLEM || (code == CURLE_SSL_CONNECT_ERROR &&
                                             strstr(call->error, "reading X.509 key or certificate") != NULL);
}

static enum lb_status status_of(CURLcode code) {
    switch (code) {
    case CURLE_OK:
        return LB_OK;
    case CURLE_OPERATION_TIMEDOUT:
        return LB_E_TIMEOUT;
    case CURLE_OUT_OF_MEMORY:
        return LB_E_NOMEM;
    case CURLE_FILESIZE_EXCEEDED:
        return LB_E_LIMIT;
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_BAD_CONTENT_ENCODING:
        return LB_E_FORMAT;
    case CURLE_URL_MALFORMAT:
    case CURLE_SSL_CACERT_BADFILE:
        return LB_E_ARG;
    case CURLE_PEER_FAILED_VERIFICATION:
        return LB_E_DENIED;
    default:
        return LB_E_UNAVAILABLE;
    }
}

/* Some versions of libcurl call a header that is longer than they take a lack of memory. That is the server's
 * doing: whatever fails once an answer has begun, may be asked for again. */
static bool is_long_header(const struct lb_call *call, CURLcode code) {
    curl_off_t began = 0;
    return code == CURLE_OUT_OF_MEMORY && call->answer.len == 0 &&
           !curl_easy_getinfo(call->easy, CURLINFO_STARTTRANSFER_TIME_T, &began) && began > 0;
}

/* What to do about a transfer that failed, beside what libcurl says of it; "" for nothing. */
static const char *remedy_for(const struct lb_call *call, CURLcode code) {
    static const char no_tls[] = "; if it speaks no TLS, write http:// instead of https://";
    enum lb_scheme scheme = lb_url_scheme(call->base, NULL);
    if (is_bad_certificate(call, code)) {
        return "; LIMBECK_CLIENT_CERTIFICATE must name a PEM file with a certificate, and with its key "
               "unless "
               "LIMBECK_CLIENT_KEY names another";
    }
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return "; look at the name's spelling, or give the host's number";
    case CURLE_PEER_FAILED_VERIFICATION:
        return "; if it is to be trusted, name its certificate's file (or its authority's) with "
               "SSL_CERT_FILE=FILE, and ask it by a name that stands in it";
    case CURLE_SSL_CACERT_BADFILE:
        return "; SSL_CERT_FILE must name a file of certificates (PEM)";
    case CURLE_OPERATION_TIMEDOUT:
        return strstr(call->error, "SSL connection timeout") != NULL ? no_tls : "";
    case CURLE_SSL_CONNECT_ERROR:
        return no_tls;
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
        return scheme == LB_SCHEME_HTTP ? "; if it speaks TLS, write https:// instead of http://" : "";
    default:
        return "";
    }
}

/* One line for people: what failed and what to do. */
static void tell(struct lb_call *call, CURLcode code) {
    long error = 0;
    char reason[128];
    const char *said = call->error[0] ? call->error : curl_easy_strerror(code);
    curl_easy_getinfo(call->easy, CURLINFO_OS_ERRNO, &error);
    if (code == CURLE_COULDNT_CONNECT && (error == ECONNREFUSED || error == ENOENT)) {
        lb_fail(&call->detail, call->status, "%s: nothing listens there; is the daemon running, and is %s?",
                strerror_r((int)error, reason, sizeof reason),
                lb_url_scheme(call->base, NULL) == LB_SCHEME_UNIX ? "this its socket" : "the port right");
    } else {
        lb_fail(&call->detail, call->status, "%s%s", said, remedy_for(call, code));
    }
}

/* Fills in how the transfer ended. */
static void record_result(struct lb_call *call, CURLcode code) {
    long http_code = 0;
    curl_off_t retry_after = 0;
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &http_code);
    call->code = (int)http_code;
    if (code == CURLE_WRITE_ERROR && lb_buf_status(&call->answer)) {
        call->status = lb_buf_status(&call->answer);
    } else {
        call->status = is_other_protocol(call, code)    ? LB_E_FORMAT
                       : is_bad_certificate(call, code) ? LB_E_ARG
                                                        : status_of(code);
    }
    if (is_long_header(call, code)) {
        call->status = lb_fail(&call->detail, LB_E_FORMAT, "the answer has a header that is too long");
    } else if (call->status == LB_E_LIMIT) {
        lb_fail(&call->detail, LB_E_LIMIT, "the answer is larger than the %zu bytes that are allowed",
                call->answer.max);
    } else if (call->status) {
        tell(call, code);
    } else if (!curl_easy_getinfo(call->easy, CURLINFO_RETRY_AFTER, &retry_after) && retry_after > 0) {
        uint64_t seconds = retry_after > 3600 ? 3600 : (uint64_t)retry_after;
        call->retry_after_ns = seconds * LB_SECOND_NS;
    }
}

/* Puts the call's own things away and tells its owner. */
static void end_call(struct lb_client *http, struct lb_call *call) {
    if (call->easy) {
        /* A handle that failed is not used again: libcurl may keep its buffer (after a name that did not
         * resolve), and then refuses to set its size. */
        if (!call->status && http->n_idle < IDLE_EASY) {
            http->idle[http->n_idle++] = call->easy;
        } else {
            curl_easy_cleanup(call->easy);
        }
    }
    curl_slist_free_all(call->headers);
    lb_free(call->url);
    call->easy = call->headers = NULL;
    call->url = NULL;
    call->elapsed_ns = lb_now_ns() - call->started_ns;
    call->done(call); /* the call may be gone after this */
}

/* ---- the thread ---- */

static void unlink_active(struct lb_client *http, struct lb_call *call) {
    struct lb_call **at = &http->active;
    while (*at != call) {
        at = &(*at)->next;
    }
    *at = call->next;
}

static void begin_call(struct lb_client *http, struct lb_call *call) {
    struct curl_slist *headers = NULL;
    bool ok = make_headers(call, &headers);
    call->headers = headers;
    call->url = make_url(call->base, call->path);
    call->easy = http->n_idle ? http->idle[--http->n_idle] : curl_easy_init();
    lb_buf_init(&call->answer, call->max_bytes ? call->max_bytes : LB_MAX_RESPONSE_BYTES);
    if (call->easy) {
        curl_easy_reset(call->easy);
    }
    if (!ok || !call->url || !call->easy) {
        call->status = lb_fail(&call->detail, LB_E_NOMEM, "out of memory for a request");
    } else if (!set_options(call, call->easy, headers) || curl_multi_add_handle(http->multi, call->easy)) {
        call->status = lb_fail(&call->detail, LB_E_INTERNAL, "libcurl refused the request's options");
    }
    if (call->status) {
        end_call(http, call);
        return;
    }
    call->next = http->active;
    http->active = call;
}

/* Takes over what other threads asked for; true when the client is closing. */
static bool take_orders(struct lb_client *http) {
    pthread_mutex_lock(&http->lock);
    struct lb_call *starting = http->starting;
    http->starting = NULL;
    bool closing = http->closing;
    struct lb_call *dropped = NULL;
    if (http->cancelling || closing) {
        for (struct lb_call *call = http->active, *next; call; call = next) {
            next = call->next;
            if (call->cancelled || closing) {
                unlink_active(http, call);
                call->next = dropped;
                dropped = call;
            }
        }
    }
    struct lb_call *fresh = NULL, **tail = &fresh;
    for (struct lb_call *call = starting, *next; call; call = next) {
        next = call->next;
        call->next = NULL;
        if (call->cancelled || closing) {
            call->next = dropped;
            dropped = call;
        } else {
            *tail = call;
            tail = &call->next;
        }
    }
    http->cancelling = false;
    pthread_mutex_unlock(&http->lock);

    for (struct lb_call *call = dropped, *next; call; call = next) {
        next = call->next;
        if (call->easy) {
            curl_multi_remove_handle(http->multi, call->easy);
        }
        call->status = lb_fail(&call->detail, LB_E_CANCELLED, "the request was called off");
        end_call(http, call);
    }
    for (struct lb_call *call = fresh, *next; call; call = next) {
        next = call->next;
        begin_call(http, call);
    }
    return closing;
}

static void *http_thread(void *user) {
    struct lb_client *http = user;
    while (!take_orders(http)) {
        int running, left;
        curl_multi_perform(http->multi, &running);
        for (CURLMsg *message; (message = curl_multi_info_read(http->multi, &left));) {
            if (message->msg != CURLMSG_DONE) {
                continue;
            }
            CURLcode code = message->data.result;
            struct lb_call *call = NULL;
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &call);
            curl_multi_remove_handle(http->multi, call->easy); /* message is gone now */
            unlink_active(http, call);
            record_result(call, code);
            end_call(http, call);
        }
        curl_multi_poll(http->multi, NULL, 0, 1000, NULL);
    }
    return NULL;
}

enum lb_status lb_client_create(struct lb_client **out, struct lb_detail *detail) {
    pthread_once(&once, start_curl);
    if (global_code) {
        return lb_fail(detail, LB_E_INTERNAL, "libcurl does not start: %s", curl_easy_strerror(global_code));
    }
    struct lb_client *http = lb_calloc(1, sizeof *http);
    if (!http) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for the HTTP client");
    }
    pthread_mutex_init(&http->lock, NULL);
    http->multi = curl_multi_init();
    http->running = http->multi && !pthread_create(&http->thread, NULL, http_thread, http);
    if (!http->running) {
        lb_client_destroy(http);
        return lb_fail(detail, LB_E_NOMEM, "cannot start the HTTP client's thread");
    }
    *out = http;
    return LB_OK;
}

void lb_client_destroy(struct lb_client *http) {
    if (!http) {
        return;
    }
    if (http->running) {
        pthread_mutex_lock(&http->lock);
        http->closing = true;
        pthread_mutex_unlock(&http->lock);
        curl_multi_wakeup(http->multi);
        pthread_join(http->thread, NULL);
    }
    for (size_t i = 0; i < http->n_idle; i++) {
        curl_easy_cleanup(http->idle[i]);
    }
    if (http->multi) {
        curl_multi_cleanup(http->multi);
    }
    pthread_mutex_destroy(&http->lock);
    lb_free(http);
}

void lb_client_start(struct lb_client *http, struct lb_call *call) {
    call->started_ns = lb_now_ns();
    pthread_mutex_lock(&http->lock);
    struct lb_call **tail = &http->starting;
    while (*tail) {
        tail = &(*tail)->next;
    }
    call->next = NULL;
    *tail = call;
    pthread_mutex_unlock(&http->lock);
    curl_multi_wakeup(http->multi);
}

void lb_client_cancel(struct lb_client *http, struct lb_call *call) {
    pthread_mutex_lock(&http->lock);
    call->cancelled = true;
    http->cancelling = true;
    pthread_mutex_unlock(&http->lock);
    curl_multi_wakeup(http->multi);
}

/* ---- waiting for one call ---- */

struct waiting {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;
};

static void wake_waiting(struct lb_call *call) {
    struct waiting *waiting = call->user;
    pthread_mutex_lock(&waiting->lock);
    waiting->done = true;
    pthread_cond_signal(&waiting->changed);
    pthread_mutex_unlock(&waiting->lock);
}

enum lb_status lb_client_perform(struct lb_client *http, struct lb_call *call, volatile sig_atomic_t *stop) {
    struct waiting waiting = {.done = false};
    bool cancelled = false;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&waiting.lock, NULL);
    pthread_cond_init(&waiting.changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    call->done = wake_waiting;
    /* It outlives the call: this function waits for the end. */
    /* cppcheck-suppress autoVariables */
    call->user = &waiting;
    lb_client_start(http, call);

    pthread_mutex_lock(&waiting.lock);
    while (!waiting.done) {
        uint64_t until = lb_now_ns() + 50 * LB_MS_NS;
        struct timespec at = {.tv_sec = (time_t)(until / LB_SECOND_NS),
                              .tv_nsec = (long)(until % LB_SECOND_NS)};
        pthread_cond_timedwait(&waiting.changed, &waiting.lock, &at);
        if (stop && *stop && !cancelled && !waiting.done) {
            cancelled = true;
            pthread_mutex_unlock(&waiting.lock);
            lb_client_cancel(http, call);
            pthread_mutex_lock(&waiting.lock);
        }
    }
    pthread_mutex_unlock(&waiting.lock);
    pthread_cond_destroy(&waiting.changed);
    pthread_mutex_destroy(&waiting.lock);
    return call->status;
}
