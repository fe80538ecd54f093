/* HTTP requests in the background, by libcurl's multi interface in one thread of its own. The only file that
 * knows curl.
 *
 * Connections are kept alive and reused. Every request has a deadline and a maximum for the answer's body;
 * redirects are not followed (a token must not travel to another host). Besides http:// and https://, a URL
 * may be unix:PATH (a daemon that listens on a socket file). Certificates are checked against the system's,
 * or against the file that SSL_CERT_FILE names. LIMBECK_CLIENT_CERTIFICATE and LIMBECK_CLIENT_KEY name a
 * client's own.
 *
 * Threads: lb_client_start, lb_client_cancel and lb_client_perform may be called from any thread; done is
 * called on the client's thread and must be short.
 */
#ifndef LB_WIRE_HTTP_CLIENT_H
#define LB_WIRE_HTTP_CLIENT_H

#include "common/base/buf.h"
#include "common/base/sha256.h"
#include "common/base/status.h"
#include "proto/limits.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct lb_client;

/* One request and its answer. The caller owns it and everything it points to, from start until done has been
 * called. */
struct lb_call {
    /* The request. */
    const char *base;  /* a URL that lb_url_check takes, none of local: */
    const char *path;  /* "/v2/models/m" */
    const char *token; /* bearer token, NULL: none */
    const void *body;  /* NULL: GET, else POST */
    size_t body_bytes;
    bool put;            /* PUT of bytes that are no JSON, in place of POST */
    int64_t json_bytes;  /* length of the JSON before binary tensors; -1: the body is all JSON */
    const char *id;      /* X-Request-Id, so that the server's log can be matched; NULL: none */
    bool fresh;          /* asks HTTP caches in between not to answer from their store */
    uint64_t timeout_ns; /* for the whole exchange; 0: 60 s */
    size_t max_bytes;    /* of the answer's body; 0: LB_MAX_RESPONSE_BYTES */
    void (*done)(struct lb_call *call);
    void *user;

    /* The answer. status is LB_OK when a complete HTTP answer came, whatever its code; else detail tells what
     * happened. */
    enum lb_status status;
    struct lb_detail detail;
    int code;
    struct lb_buf answer;
    int64_t answer_json_bytes;  /* Inference-Header-Content-Length, -1 when absent */
    char digest[LB_SHA256_HEX]; /* of the digest header, "" when absent */
    char *metadata;             /* of the header of that name; NULL when absent */
    uint64_t retry_after_ns;    /* 0: none */
    uint64_t elapsed_ns;

    /* The client's own. */
    struct lb_call *next;
    void *easy, *headers;
    char *url;
    char error[256]; /* libcurl's own words */
    bool cancelled;
    uint64_t started_ns;
};

/* Prepares a call: a request without body, nothing answered. */
void lb_call_init(struct lb_call *call, const char *base, const char *path, const char *token);
/* Frees the answer; accepts NULL. Not while the call is under way. */
void lb_call_finish(struct lb_call *call);

LB_NODISCARD enum lb_status lb_client_create(struct lb_client **out, struct lb_detail *detail);
/* Ends calls under way with LB_E_CANCELLED (their done is called), then the thread. Accepts NULL. */
void lb_client_destroy(struct lb_client *http);

/* Returns at once. done is called exactly once, unless the client has been destroyed before. */
void lb_client_start(struct lb_client *http, struct lb_call *call);
/* Ends the call soon with LB_E_CANCELLED, unless it is done before. */
void lb_client_cancel(struct lb_client *http, struct lb_call *call);
/* Starts the call and waits for it; done and user are used up. stop (may be NULL): when it becomes non-zero
 * the call is cancelled. Returns call->status; the detail is call->detail. */
enum lb_status lb_client_perform(struct lb_client *http, struct lb_call *call, volatile sig_atomic_t *stop);

#endif
