#include "trainer/wire/v1_models.h"

#include "common/base/json.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

#define MAX_LENGTH (1ll << 40)

/* What stands behind the last slash of a path; else the name. */
static const char *tail_of(const char *id) {
    const char *slash = strrchr(id, '/');
    return id[0] == '/' && slash[1] ? slash + 1 : id;
}

/* The model's card; wanted NULL: the only one. */
static enum lb_status find_card(const json_t *list, const char *wanted, const char *where, const json_t **out,
                                struct lb_detail *detail) {
    const json_t *data = json_object_get(list, "data");
    char names[300] = "";
    size_t n = json_array_size(data);
    for (size_t i = 0; i < n; i++) {
        const char *id = json_string_value(json_object_get(json_array_get(data, i), "id"));
        if (id && (wanted ? strcmp(id, wanted) == 0 || strcmp(tail_of(id), wanted) == 0 : n == 1)) {
            *out = json_array_get(data, i);
            return LB_OK;
        }
        size_t at = strlen(names);
        snprintf(names + at, sizeof names - at, "%s%s", at ? ", " : "", id ? id : "?");
    }
    if (!json_is_array(data)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: GET " LB_V1_MODELS " has no list of models", where);
    }
    if (n == 0) { /* it is loading */
        return lb_fail(detail, LB_E_UNAVAILABLE, "%s serves no model yet", where);
    }
    return wanted ? lb_fail(detail, LB_E_NOTFOUND, "%s serves no model named %s; it serves %s", where, wanted,
                            names)
                  : lb_fail(detail, LB_E_ARG, "%s serves %zu models (%s); say which with model", where, n,
                            names);
}

static enum lb_status read_card(const json_t *card, const char *where, struct lb_v1_model *out,
                                struct lb_detail *detail) {
    const json_t *meta = json_object_get(card, "meta");
    const char *id = NULL;
    enum lb_status status = lb_json_str(card, "id", true, where, &id, detail);
    if (status != LB_OK || (status = lb_json_int(card, "max_model_len", false, 1, MAX_LENGTH, where,
                                                 &out->max_length, detail)) != LB_OK) {
        return status;
    }
    if (json_is_object(meta) &&
        ((status = lb_json_int(meta, "n_ctx", false, 1, MAX_LENGTH, where, &out->max_length, detail)) !=
             LB_OK ||
         (status = lb_json_int(meta, "n_vocab", false, 1, INT32_MAX, where, &out->vocab_size, detail)) !=
             LB_OK)) {
        return status;
    }
    const char *name = tail_of(id);
    size_t name_len = strlen(name), id_len = strlen(id);
    if (name_len >= sizeof out->name || id_len >= sizeof out->id) {
        return lb_fail(detail, LB_E_LIMIT,
                       "%s: the model's name is longer than %d bytes, or its path than %d", where,
                       LB_MAX_NAME - 1, LB_MAX_MODEL_ID - 1);
    }
    memcpy(out->name, name, name_len + 1);
    memcpy(out->id, id, id_len + 1);
    return LB_OK;
}

enum lb_status lb_v1_model_find(const void *text, size_t len, const char *wanted, const char *where,
                                struct lb_v1_model *out, struct lb_detail *detail) {
    json_t *list = NULL;
    const json_t *card = NULL;
    struct lb_v1_model model = {.max_length = 0};
    enum lb_status status = lb_json_parse(text, len, LB_MAX_JSON_DEPTH, where, &list, detail);
    status = status != LB_OK ? status : find_card(list, wanted, where, &card, detail);
    status = status != LB_OK ? status : read_card(card, where, &model, detail);
    if (status == LB_OK) {
        model.n_models = json_array_size(json_object_get(list, "data"));
        *out = model;
    }
    json_decref(list);
    return status;
}

enum lb_status lb_v1_model_ask(const struct lb_contact *contact, const char *wanted, struct lb_v1_model *out,
                               struct lb_detail *detail) {
    struct lb_call call;
    char where[400];
    lb_contact_where(contact, where, sizeof where);
    enum lb_status status = lb_contact_call(contact, &call, LB_V1_MODELS, NULL, LB_MAX_INFO_BYTES, detail);
    if (status == LB_OK) {
        status = lb_v1_model_find(call.answer.data ? call.answer.data : "", call.answer.len, wanted, where,
                                  out, detail);
    }
    lb_call_finish(&call);
    return status;
}

enum lb_status lb_v1_model_other(const struct lb_teacher_info *known, const char *where,
                                 struct lb_detail *detail) {
    char length[48] = "";
    if (known->max_length > 0) {
        snprintf(length, sizeof length, " of %lld tokens", (long long)known->max_length);
    }
    return lb_fail(detail, LB_E_MISMATCH,
                   "%s serves another model now than %s%s, with which this run began; serve the same model "
                   "again, or start a new run",
                   where, known->model, length);
}

enum lb_status lb_v1_model_again(const struct lb_teacher_info *known, const void *text, size_t len,
                                 const char *where, struct lb_v1_model *out, char out_id[LB_MAX_MODEL_ID],
                                 struct lb_detail *detail) {
    enum lb_status status = lb_v1_model_find(text, len, known->model, where, out, detail);
    if (status == LB_OK) {
        memcpy(out_id, out->id, sizeof out->id);
    }
    return status == LB_E_NOTFOUND ? lb_v1_model_other(known, where, detail) : status;
}

enum lb_status lb_v1_path(const struct lb_teacher_info *info, enum lb_path which, const char *ask,
                          const char *no_head, const char *no_tokenizer, char **out,
                          struct lb_detail *detail) {
    if (which != LB_PATH_INFO && which != LB_PATH_ASK) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "model %s: %s", info->model,
                       which == LB_PATH_HEAD ? no_head : no_tokenizer);
    }
    char *made = lb_strdup(which == LB_PATH_INFO ? LB_V1_MODELS : ask);
    if (!made) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a path of model %s", info->model);
    }
    *out = made;
    return LB_OK;
}

enum lb_status lb_v1_models(const struct lb_contact *contact,
                            void (*each)(void *user, const char *name, const char *version,
                                         const char *state),
                            void *user, struct lb_detail *detail) {
    struct lb_call call;
    json_t *list = NULL;
    char where[400];
    lb_contact_where(contact, where, sizeof where);
    enum lb_status status = lb_contact_call(contact, &call, LB_V1_MODELS, NULL, LB_MAX_INFO_BYTES, detail);
    if (status == LB_OK) {
        status = lb_json_parse(call.answer.data ? call.answer.data : "", call.answer.len, LB_MAX_JSON_DEPTH,
                               where, &list, detail);
    }
    const json_t *data = json_object_get(list, "data");
    if (status == LB_OK && !json_is_array(data)) {
        status = lb_fail(detail, LB_E_FORMAT, "%s: GET " LB_V1_MODELS " has no list of models", where);
    }
    for (size_t i = 0; status == LB_OK && i < json_array_size(data); i++) {
        const char *id = NULL;
        status = lb_json_str(json_array_get(data, i), "id", true, where, &id, detail);
        if (status == LB_OK) {
            each(user, tail_of(id), "", "");
        }
    }
    json_decref(list);
    lb_call_finish(&call);
    return status;
}
