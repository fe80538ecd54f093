#include "server/api/reply.h"

#include "common/base/json.h"
#include "proto/limits.h"
#include "proto/oip.h"
#include "server/api/visit.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char no_memory[] = "{\"error\":\"out of memory; try again\"}";

void lb_reply_bytes(struct lb_exchange *exchange, int status, const char *content_type, const void *bytes,
                    size_t len) {
    struct lb_span *part = lb_arena_array(&exchange->arena, 1, sizeof *part);
    exchange->reply.status = part ? status : 503;
    exchange->reply.parts = part;
    exchange->reply.n_parts = part && len > 0 ? 1 : 0;
    exchange->reply.next = NULL;
    exchange->reply.text = strcmp(content_type, "application/octet-stream") != 0;
    if (part) {
        part->data = bytes;
        part->len = len;
        lb_reply_header(exchange, "Content-Type", content_type);
    }
}

/* The text (taken over), or 503 when it could not be made. */
static void reply_text(struct lb_exchange *exchange, int status, struct lb_buf *text, bool made) {
    const char *copy = made ? lb_arena_strdup(&exchange->arena, text->data) : NULL;
    if (copy) {
        lb_reply_bytes(exchange, status, "application/json", copy, text->len);
    } else {
        lb_reply_bytes(exchange, 503, "application/json", no_memory, strlen(no_memory));
    }
    lb_buf_finish(text);
}

void lb_reply_json(struct lb_exchange *exchange, int status, json_t *value) {
    struct lb_buf text;
    lb_buf_init(&text, LB_MAX_JSON_BYTES);
    bool made = value && lb_json_dump(value, 0, &text) == LB_OK && lb_buf_append(&text, "\n", 1) == LB_OK;
    json_decref(value);
    reply_text(exchange, status, &text, made);
}

void lb_reply_json_digest(struct lb_exchange *exchange, int status, json_t *object) {
    struct lb_buf text;
    lb_buf_init(&text, LB_MAX_JSON_BYTES);
    bool made = object && lb_json_dump(object, 0, &text) == LB_OK && text.len > 1;
    if (made) {
        text.data[--text.len] = '\0'; /* its last brace comes with the digest */
        made = lb_answer_digest_put(&text, 0, "", NULL) == LB_OK && lb_buf_status(&text) == LB_OK;
    }
    json_decref(object);
    reply_text(exchange, status, &text, made);
}

json_t *lb_error_body(int status, const char *text) {
    (void)status;
    return json_pack("{s:s}", "error", text);
}

/* What is no UTF-8 becomes '?', so that JSON can say it. */
static void make_safe(char *text) {
    json_t *string = json_string(text);
    for (char *p = text; !string && *p; p++) {
        *p = *p & 0x80 ? '?' : *p;
    }
    json_decref(string);
}

json_t *lb_reply_error_body(const struct lb_exchange *exchange, int status, const char *text) {
    const struct lb_visit *visit = exchange->user;
    char safe[LB_DETAIL_TEXT];
    snprintf(safe, sizeof safe, "%s", text);
    make_safe(safe);
    return visit && visit->dialect ? visit->dialect->error(status, safe) : lb_error_body(status, safe);
}

void lb_reply_error(struct lb_exchange *exchange, int status, const char *format, ...) {
    char text[LB_DETAIL_TEXT];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    exchange->reply.n_headers = 0;
    lb_reply_json(exchange, status, lb_reply_error_body(exchange, status, text));
    if (status == 503) {
        lb_reply_header(exchange, "Retry-After", "1");
    } else if (status == 401) {
        lb_reply_header(exchange, "WWW-Authenticate", "Bearer realm=\"limbeckd\"");
    }
}

int lb_http_status(enum lb_status status) {
    switch (status) {
    case LB_OK:
        return 200;
    case LB_E_ARG:
    case LB_E_FORMAT:
        return 400;
    case LB_E_DENIED:
        return 401;
    case LB_E_NOTFOUND:
        return 404;
    case LB_E_MISMATCH:
    case LB_E_BUSY:
        return 409;
    case LB_E_LIMIT:
        return 413;
    case LB_E_UNSUPPORTED:
        return 501;
    case LB_E_UNAVAILABLE:
    case LB_E_CANCELLED:
    case LB_E_NOMEM:
        return 503;
    case LB_E_TIMEOUT:
        return 504;
    case LB_E_IO:
    case LB_E_INTERNAL:
        break;
    }
    return 500;
}

void lb_reply_fail(struct lb_exchange *exchange, enum lb_status status, const struct lb_detail *detail) {
    lb_reply_error(exchange, lb_http_status(status), "%s",
                   detail->text[0] ? detail->text : lb_status_name(status));
}

bool lb_reply_find_model(struct lb_exchange *x) {
    struct lb_visit *visit = x->user;
    struct lb_detail detail = {0};
    enum lb_status status = lb_repository_get(visit->server->repository, visit->match.model,
                                              visit->match.version, &visit->hosted, &detail);
    if (status != LB_OK) {
        lb_reply_fail(x, status, &detail);
    }
    return status == LB_OK;
}
