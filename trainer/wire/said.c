#include "trainer/wire/said.h"

/* Codes by which a server says that it has no such thing, or not for this model. */
static bool has_none(const struct lb_call *call) {
    return call->status == LB_OK && (call->code == 400 || call->code == 404 || call->code == 405 ||
                                     call->code == 422 || call->code == 501);
}

enum lb_status lb_said_json(const struct lb_contact *contact, const char *path, const char *body,
                            json_t **out, struct lb_detail *why, struct lb_detail *detail) {
    char where[400];
    struct lb_call call;
    struct lb_detail said = {0};
    *out = NULL;
    enum lb_status status = lb_contact_call(contact, &call, path, body, LB_SAID_BYTES, &said);
    if (status == LB_OK) {
        lb_contact_where(contact, where, sizeof where);
        status = lb_json_parse_loose(call.answer.data ? call.answer.data : "", call.answer.len,
                                     LB_MAX_JSON_DEPTH, where, out, detail);
    } else if (has_none(&call)) {
        status = LB_OK;
        if (why) {
            *why = said;
        }
    } else {
        status = lb_fail(detail, status, "%s", said.text);
    }
    lb_call_finish(&call);
    return status;
}

enum lb_status lb_said_ids(const struct lb_contact *contact, const char *body, int64_t most,
                           struct lb_stated *out, struct lb_detail *detail) {
    json_t *answer = NULL;
    enum lb_status status = lb_said_json(contact, "/tokenize", body, &answer, NULL, detail);
    const json_t *tokens = json_object_get(answer, "tokens");
    most = most < 1 || most > LB_PROBE_POSITIONS ? LB_PROBE_POSITIONS : most;
    lb_stated_plain_ids(out);
    for (size_t i = 0; status == LB_OK && i < json_array_size(tokens) && (int64_t)i < most; i++) {
        const json_t *id = json_array_get(tokens, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX) {
            status = lb_fail(detail, LB_E_FORMAT, "teacher %s: /tokenize gives what is no id", contact->name);
            break;
        }
        out->ids[i] = (int32_t)json_integer_value(id);
        out->n_ids = (int)i + 1;
    }
    out->n_ids = out->n_ids < most ? out->n_ids : (int)most;
    json_decref(answer);
    return status;
}
