#include "trainer/wire/contact.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

void lb_contact_where(const struct lb_contact *contact, char *out, size_t size) {
    snprintf(out, size, "%s at %s", contact->name, contact->base);
}

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
        char *token = n ? lb_malloc_array(n + 1, 1) : NULL;
        if (token) {
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
