#include "trainer/wire/said.h"

#include "common/base/mem.h"

#include <string.h>

/* Codes by which a server says that it has no such thing, or not for this model. */
static bool has_none(const struct lb_call *call) {
    return call->status == LB_OK && (call->code == 400 || call->code == 404 || call->code == 405 ||
                                     call->code == 422 || call->code == 501);
}

enum lb_status lb_said_call(const struct lb_contact *contact, const char *path, const struct lb_buf *body,
                            struct lb_call *call, bool *served, struct lb_detail *why,
                            struct lb_detail *detail) {
    struct lb_detail said = {0};
    *call = (struct lb_call){0};
    *served = false;
    if (body && lb_buf_status(body) != LB_OK) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory for a question", contact->name);
    }
    enum lb_status status =
        lb_contact_call(contact, call, path, body ? body->data : NULL, LB_SAID_BYTES, &said);
    *served = status == LB_OK;
    if (status != LB_OK && has_none(call)) {
        if (why) {
            *why = said;
        }
        return LB_OK;
    }
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "%s", said.text);
}

enum lb_status lb_said_json(const struct lb_contact *contact, const char *path, const struct lb_buf *body,
                            json_t **out, struct lb_detail *detail) {
    char where[400];
    struct lb_call call;
    bool served = false;
    *out = NULL;
    enum lb_status status = lb_said_call(contact, path, body, &call, &served, NULL, detail);
    if (status == LB_OK && served) {
        lb_contact_where(contact, where, sizeof where);
        status = lb_json_parse_loose(call.answer.data ? call.answer.data : "", call.answer.len,
                                     LB_MAX_JSON_DEPTH, where, out, detail);
    }
    lb_call_finish(&call);
    return status;
}

enum lb_status lb_said_tokens(const struct lb_contact *contact, const struct lb_buf *body, struct lb_ids *out,
                              bool *served, struct lb_detail *detail) {
    json_t *answer = NULL;
    enum lb_status status = lb_said_json(contact, "/tokenize", body, &answer, detail);
    const json_t *tokens = json_object_get(answer, "tokens");
    *served = json_is_array(tokens);
    for (size_t i = 0; i < json_array_size(tokens) && status == LB_OK; i++) {
        const json_t *token = json_array_get(tokens, i);
        json_int_t id = json_is_integer(token) ? json_integer_value(token) : -1;
        bool is_id = id >= 0 && id <= INT32_MAX;
        if (!is_id || lb_ids_push(out, (int32_t)id) != LB_OK) {
            status = is_id ? lb_fail(detail, LB_E_NOMEM, "out of memory for the ids of a text")
                           : lb_fail(detail, LB_E_FORMAT, "/tokenize gives what is no id");
            lb_said_by(contact, detail);
        }
    }
    json_decref(answer);
    return status;
}

enum lb_status lb_said_ids(const struct lb_contact *contact, const struct lb_buf *body, int64_t most,
                           struct lb_stated *out, struct lb_detail *detail) {
    struct lb_ids ids = {0};
    bool served = false;
    enum lb_status status = lb_said_tokens(contact, body, &ids, &served, detail);
    most = most < 1 || most > LB_PROBE_POSITIONS ? LB_PROBE_POSITIONS : most;
    lb_stated_plain_ids(out);
    if (status == LB_OK && ids.len > 0) {
        out->n_ids = ids.len < LB_PROBE_POSITIONS ? (int)ids.len : LB_PROBE_POSITIONS;
        memcpy(out->ids, ids.data, (size_t)out->n_ids * sizeof *ids.data);
    }
    out->n_ids = out->n_ids < most ? out->n_ids : (int)most;
    lb_free(ids.data);
    return status;
}

void lb_said_by(const struct lb_contact *contact, struct lb_detail *detail) {
    char where[400];
    lb_contact_where(contact, where, sizeof where);
    if (detail && !strstr(detail->text, where)) {
        lb_detail_prefix(detail, "%s", where);
    }
}
