#include "trainer/wire/contact.h"

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

void lb_contact_where(const struct lb_contact *contact, char *out, size_t size) {
    snprintf(out, size, "%s at %s", contact->name, contact->base);
}

/* ---- answers that are no 200 ---- */

/* The server's own words: {"error": "text"}, or the beginning of a text, in one line. */
static void server_words(const struct lb_call *call, char *out, size_t size) {
    json_t *body = NULL;
    const char *text = NULL;
    size_t len = 0;
    if (call->answer.len &&
        !lb_json_parse(call->answer.data, call->answer.len, LB_MAX_JSON_DEPTH, "error", &body, NULL)) {
        json_t *error = json_object_get(body, "error");
        text = json_string_value(json_is_object(error) ? json_object_get(error, "message") : error);
        len = text ? strlen(text) : 0;
    }
    if (!text) {
        text = call->answer.data;
        len = call->answer.len;
    }
    size_t n = 0;
    for (size_t i = 0; i < len && n + 1 < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < ' ' || c == 127) {
            c = ' ';
        }
        if (c != ' ' || (n && out[n - 1] != ' ')) {
            out[n++] = (char)c;
        }
    }
    out[n] = 0;
    json_decref(body);
}

enum lb_status lb_call_check(const struct lb_call *call, const char *where, struct lb_detail *detail) {
    if (call->status) {
        return lb_fail(detail, call->status, "%s: %s", where, call->detail.text);
    }
    if (call->code == 200) {
        return LB_OK;
    }
    static const struct {
        int code;
        enum lb_status status;
        const char *remedy;
    } known[] = {
        {400, LB_E_ARG, ""},
        {401, LB_E_DENIED, "; give its token with token_file"},
        {403, LB_E_DENIED, "; another token is needed, or a certificate (LIMBECK_CLIENT_CERTIFICATE)"},
        {404, LB_E_NOTFOUND, ""},
        {413, LB_E_LIMIT, ""},
        {429, LB_E_UNAVAILABLE, ""},
        {500, LB_E_INTERNAL, "; its log tells more"},
        {501, LB_E_UNSUPPORTED, ""},
        {502, LB_E_UNAVAILABLE, ""},
        {503, LB_E_UNAVAILABLE, ""},
        {504, LB_E_TIMEOUT, ""},
    };
    enum lb_status status = call->code >= 500 ? LB_E_UNAVAILABLE : LB_E_FORMAT;
    const char *remedy =
        call->code >= 300 && call->code < 400 ? "; redirects are not followed, give the final address" : "";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].code == call->code) {
            status = known[i].status;
            remedy = known[i].remedy;
        }
    }
    char words[400];
    server_words(call, words, sizeof words);
    return lb_fail(detail, status, "%s answered %d%s%s%s", where, call->code, *words ? ": " : "", words,
                   remedy);
}

/* ---- one exchange ---- */

enum lb_status lb_contact_call(const struct lb_contact *contact, struct lb_call *call, const char *path,
                               const char *body, size_t max_bytes, struct lb_detail *detail) {
    char where[400];
    lb_contact_where(contact, where, sizeof where);
    lb_call_init(call, contact->base, path, contact->token);
    call->body = body;
    call->body_bytes = body ? strlen(body) : 0;
    call->timeout_ns = contact->timeout_ns;
    call->max_bytes = max_bytes;
    lb_client_perform(contact->http, call, contact->stop);
    return lb_call_check(call, where, detail);
}

enum lb_status lb_contact_get(const struct lb_contact *contact, const char *path, struct lb_buf *out,
                              uint64_t *out_elapsed_ns, struct lb_detail *detail) {
    struct lb_call call;
    enum lb_status status = lb_contact_call(contact, &call, path, NULL, out->max, detail);
    if (status == LB_OK && lb_buf_append(out, call.answer.data, call.answer.len)) {
        status = lb_fail(detail, lb_buf_status(out), "%s: no memory for an answer of %zu bytes",
                         contact->name, call.answer.len);
    }
    if (status == LB_OK && out_elapsed_ns) {
        *out_elapsed_ns = call.elapsed_ns;
    }
    lb_call_finish(&call);
    return status;
}

/* ---- token ---- */

enum lb_status lb_token_read(const char *path, char **out, struct lb_detail *detail) {
    struct lb_buf buf;
    lb_buf_init(&buf, LB_MAX_TOKEN_FILE_BYTES);
    enum lb_status status = lb_file_read(path, &buf, detail);
    if (status == LB_OK) {
        const char *text = buf.data ? buf.data : "";
        text += strspn(text, " \t\r\n");
        size_t n = strcspn(text, " \t\r\n");
        const char *rest = text + n + strspn(text + n, " \t\r");
        char *token = n ? lb_malloc_array(n + 1, 1) : NULL;
        if (n && *rest && *rest != '\n') {
            lb_free(token);
            status =
                lb_fail(detail, LB_E_FORMAT,
                        "token file %s: its first line holds more than a token; put the token alone into a "
                        "file (names and limits are for limbeckd's own)",
                        path);
        } else if (token) {
            memcpy(token, text, n);
            token[n] = 0;
            *out = token;
        } else {
            status = lb_fail(detail, n ? LB_E_NOMEM : LB_E_ARG, "token file %s %s", path,
                             n ? "is too much" : "is empty");
        }
    }
    lb_buf_finish(&buf);
    return status;
}
