#include "trainer/wire/stated.h"

#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_DIMENSION (1ll << 40)

static const char *const probe_keys[] = {[LB_PROBE_LOGPROBS] = "logprobs", [LB_PROBE_STATES] = "states"};

void lb_stated_plain_ids(struct lb_stated *stated) {
    stated->n_ids = LB_PROBE_POSITIONS;
    for (int t = 0; t < stated->n_ids; t++) {
        stated->ids[t] = 3 + t * 7 % 13; /* comes again after 13 */
    }
}

/* ---- writing ---- */

static json_t *numbers(const struct lb_told_probe *probe) {
    json_t *list = json_array();
    for (int t = 0; t < probe->n; t++) {
        json_array_append_new(list, json_real((double)probe->at[t]));
    }
    return list;
}

/* What is said, without what was answered. */
static json_t *said(const struct lb_stated *stated) {
    json_t *ids = json_array();
    char hash[LB_SHA256_HEX] = "";
    if (stated->chat_template) {
        uint8_t digest[LB_SHA256_BYTES];
        lb_sha256(stated->chat_template, strlen(stated->chat_template), digest);
        lb_hex(digest, sizeof digest, hash);
    }
    for (int t = 0; t < stated->n_ids; t++) {
        json_array_append_new(ids, json_integer(stated->ids[t]));
    }
    return json_pack("{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:o}", "protocol", stated->protocol, "model",
                     stated->model, "version", stated->version, "chat_template_sha256", hash, "max_length",
                     (json_int_t)stated->max_length, "hidden_size", (json_int_t)stated->hidden_size,
                     "vocab_size", (json_int_t)stated->vocab_size, "serves", (json_int_t)stated->serves,
                     "ids", ids);
}

enum lb_status lb_stated_write(const struct lb_stated *stated, struct lb_buf *out, struct lb_detail *detail) {
    json_t *all = said(stated);
    bool ok = all != NULL, other = stated->model_id && strcmp(stated->model_id, stated->model) != 0;
    ok = ok && (!other || json_object_set_new(all, "model_id", json_string(stated->model_id)) == 0);
    ok = ok && (!stated->system || json_object_set_new(all, "system", json_string(stated->system)) == 0);
    ok = ok && (stated->most_top_k == 0 ||
                json_object_set_new(all, "most_top_k", json_integer(stated->most_top_k)) == 0);
    ok = ok && (!stated->tensors || json_object_set(all, "tensors", stated->tensors) == 0);
    for (int p = 0; ok && p < LB_N_PROBES; p++) {
        ok = json_object_set_new(all, probe_keys[p], numbers(&stated->probe[p])) == 0;
    }
    ok = ok && lb_json_dump(all, JSON_SORT_KEYS, out) == LB_OK;
    json_decref(all);
    return ok ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory for what a server says");
}

/* ---- reading ---- */

static enum lb_status read_probe(const json_t *root, enum lb_probe which, const char *what,
                                 struct lb_told_probe *out, struct lb_detail *detail) {
    const json_t *list = json_object_get(root, probe_keys[which]);
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > LB_PROBE_POSITIONS) {
        return lb_fail(detail, LB_E_FORMAT, "%s: %s must be a list of at most %d numbers", what,
                       probe_keys[which], LB_PROBE_POSITIONS);
    }
    out->n = (int)n;
    for (size_t t = 0; t < n; t++) {
        const json_t *x = json_array_get(list, t);
        if (!json_is_number(x) || !isfinite(json_number_value(x))) {
            return lb_fail(detail, LB_E_FORMAT, "%s: %s[%zu] is no number", what, probe_keys[which], t);
        }
        out->at[t] = (float)json_number_value(x);
    }
    return LB_OK;
}

static enum lb_status read_ids(const json_t *root, const char *what, struct lb_teacher_info *out,
                               struct lb_detail *detail) {
    const json_t *list = json_object_get(root, "ids");
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > LB_PROBE_POSITIONS) {
        return lb_fail(detail, LB_E_FORMAT, "%s: ids must be a list of at most %d ids", what,
                       LB_PROBE_POSITIONS);
    }
    out->n_probe_ids = (int)n;
    for (size_t t = 0; t < n; t++) {
        json_int_t id = json_integer_value(json_array_get(list, t));
        if (!json_is_integer(json_array_get(list, t)) || id < 0 || id > INT32_MAX) {
            return lb_fail(detail, LB_E_FORMAT, "%s: ids[%zu] is no id", what, t);
        }
        out->probe_ids[t] = (int32_t)id;
    }
    return LB_OK;
}

static void hash_of(const void *bytes, size_t len, char out[LB_SHA256_HEX]) {
    uint8_t digest[LB_SHA256_BYTES];
    lb_sha256(bytes, len, digest);
    lb_hex(digest, sizeof digest, out);
}

void lb_stated_system(const char *text, char kernels[LB_KERNELS_TEXT], char compute[LB_SHA256_HEX]) {
    size_t n = 0;
    kernels[0] = compute[0] = '\0';
    if (*text) {
        hash_of(text, strlen(text), compute);
    }
    for (; *text && n + 1 < LB_KERNELS_TEXT;
         text++) { /* plain words only: it is written into logs and JSON */
        kernels[n++] = *text > ' ' && *text < 127 && *text != '"' && *text != '\\' ? *text : '_';
    }
    kernels[n] = '\0';
}

static enum lb_status read_words(const json_t *root, const char *protocol, const char *what,
                                 struct lb_teacher_info *out, struct lb_detail *detail) {
    const char *is = NULL, *model = NULL, *id = NULL, *chat = "", *system = "";
    int64_t serves = 0;
    enum lb_status status = lb_json_str(root, "protocol", true, what, &is, detail);
    if (status != LB_OK || (status = lb_json_str(root, "model", true, what, &model, detail)) != LB_OK ||
        (status = lb_json_int(root, "most_top_k", false, 0, MAX_DIMENSION, what, &out->most_top_k, detail)) !=
            LB_OK ||
        (status = lb_json_str(root, "model_id", false, what, &id, detail)) != LB_OK ||
        (status = lb_json_str(root, "system", false, what, &system, detail)) != LB_OK ||
        (status = lb_json_str(root, "chat_template_sha256", false, what, &chat, detail)) != LB_OK ||
        (status = lb_json_int(root, "serves", true, 0, UINT32_MAX, what, &serves, detail)) != LB_OK ||
        (status = lb_json_int(root, "max_length", true, 0, MAX_DIMENSION, what, &out->max_length, detail)) !=
            LB_OK ||
        (status = lb_json_int(root, "hidden_size", true, 0, MAX_DIMENSION, what, &out->hidden_size,
                              detail)) != LB_OK ||
        (status = lb_json_int(root, "vocab_size", true, 0, MAX_DIMENSION, what, &out->vocab_size, detail)) !=
            LB_OK) {
        return status;
    }
    if (strcmp(is, protocol) != 0) {
        return lb_fail(detail, LB_E_FORMAT, "%s: kept of protocol %.16s, not %s", what, is, protocol);
    }
    if (strlen(model) >= LB_MAX_NAME || strlen(chat) >= LB_SHA256_HEX) {
        return lb_fail(detail, LB_E_FORMAT, "%s: the model's name is longer than %d bytes", what,
                       LB_MAX_NAME - 1);
    }
    id = id ? id : model;
    if (strlen(id) >= sizeof out->model_id) {
        return lb_fail(detail, LB_E_FORMAT, "%s: model_id is longer than %d bytes", what,
                       LB_MAX_MODEL_ID - 1);
    }
    snprintf(out->model, sizeof out->model, "%s", model);
    snprintf(out->model_id, sizeof out->model_id, "%s", id);
    snprintf(out->chat_template_hash, sizeof out->chat_template_hash, "%s", chat);
    lb_stated_system(system ? system : "", out->kernels, out->compute);
    out->serves = (unsigned)serves;
    out->tells_most = out->most_top_k > 0;
    return LB_OK;
}

static enum lb_status hash_json(const json_t *root, char out[LB_SHA256_HEX], struct lb_detail *detail) {
    struct lb_buf buf;
    lb_buf_init(&buf, LB_MAX_INFO_BYTES);
    enum lb_status status = lb_json_dump(root, JSON_SORT_KEYS, &buf);
    hash_of(buf.data ? buf.data : "", buf.len, out);
    lb_buf_finish(&buf);
    return status == LB_OK ? LB_OK : lb_fail(detail, status, "out of memory for what a server says");
}

/* Both names of it: of all, and of what is said without what was answered. The path under which one server
 * has its model, and how much that lists, are in neither; how it computes is `compute`. */
static enum lb_status name(json_t *root, struct lb_teacher_info *out, struct lb_detail *detail) {
    json_object_del(root, "model_id");
    json_object_del(root, "most_top_k");
    json_object_del(root, "system");
    enum lb_status status = hash_json(root, out->fingerprint, detail);
    for (int p = 0; p < LB_N_PROBES; p++) {
        json_object_del(root, probe_keys[p]);
    }
    return status != LB_OK ? status : hash_json(root, out->stated, detail);
}

enum lb_status lb_stated_read(const void *text, size_t len, const char *protocol, const char *what,
                              struct lb_teacher_info *out, struct lb_detail *detail) {
    struct lb_teacher_info info = {.plain_only = true};
    json_t *root = NULL;
    enum lb_status status = lb_json_parse(text, len, LB_MAX_JSON_DEPTH, what, &root, detail);
    status = status != LB_OK ? status : read_words(root, protocol, what, &info, detail);
    status = status != LB_OK ? status : read_ids(root, what, &info, detail);
    for (int p = 0; p < LB_N_PROBES && status == LB_OK; p++) {
        status = read_probe(root, (enum lb_probe)p, what, &info.probe[p], detail);
    }
    status = status != LB_OK ? status : name(root, &info, detail);
    if (status == LB_OK) {
        *out = info;
    }
    json_decref(root);
    return status;
}

/* ---- comparing ---- */

enum lb_status lb_stated_check(const struct lb_teacher_info *info, enum lb_probe which,
                               const struct lb_told_probe *now, struct lb_detail *detail) {
    return lb_probe_same(info, which, now)
               ? LB_OK
               : lb_fail(detail, LB_E_MISMATCH,
                         "another model answers now: its answers to the fixed question (model %s) are %.3g "
                         "from those that this run began with, on the mean; serve the same model again, or "
                         "start a new run",
                         info->model, lb_probe_distance(&info->probe[which], now));
}

bool lb_stated_alike(const struct lb_teacher_info *a, const struct lb_teacher_info *b) {
    bool alike = strcmp(a->stated, b->stated) == 0;
    for (int p = 0; p < LB_N_PROBES && alike; p++) {
        alike =
            (a->probe[p].n == 0 && b->probe[p].n == 0) || lb_probe_same(a, (enum lb_probe)p, &b->probe[p]);
    }
    return alike;
}

enum lb_status lb_stated_renew(const void *then, size_t len, struct lb_buf *text, struct lb_detail *detail) {
    static const char what[] = "what a server said", *const keys[] = {"model_id", "most_top_k"};
    json_t *old = NULL, *now = NULL;
    enum lb_status status = lb_json_parse(then, len, LB_MAX_JSON_DEPTH, what, &old, detail);
    status = status != LB_OK ? status
                             : lb_json_parse(text->data, text->len, LB_MAX_JSON_DEPTH, what, &now, detail);
    for (size_t i = 0; i < sizeof keys / sizeof *keys && status == LB_OK; i++) {
        json_t *value = json_object_get(now, keys[i]);
        json_object_del(old, keys[i]);
        if (value && json_object_set(old, keys[i], value) != 0) {
            status = lb_fail(detail, LB_E_NOMEM, "out of memory for %s", what);
        }
    }
    if (status == LB_OK) {
        lb_buf_reset(text);
        status = lb_json_dump(old, JSON_SORT_KEYS, text);
        status = status == LB_OK ? LB_OK : lb_fail(detail, status, "out of memory for %s", what);
    }
    json_decref(old);
    json_decref(now);
    return status;
}

void lb_stated_states(const void *rows, enum lb_datatype datatype, int64_t n, int64_t width,
                      struct lb_told_probe *out) {
    const struct lb_wire_tensor tensor = {.datatype = datatype, .data = rows};
    out->n = (int)(n < LB_PROBE_POSITIONS ? n : LB_PROBE_POSITIONS);
    for (int t = 0; t < out->n; t++) {
        double sum = 0;
        for (int64_t c = 0; c < width; c++) {
            float x;
            lb_wire_floats(&tensor, t * width + c, 1, &x);
            sum += lb_mix64((uint64_t)c + 1) & 1 ? (double)x : -(double)x;
        }
        out->at[t] = (float)(sum / sqrt((double)width));
    }
}
