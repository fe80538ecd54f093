/* What a server is whose tensors the recipe names: its metadata, with whose datatypes and shapes the names
 * are held, and what it answers to the fixed question. */
#include "common/base/mem.h"
#include "common/nn/head.h"
#include "trainer/wire/metadata.h"
#include "trainer/wire/named.h"
#include "trainer/wire/said.h"
#include "trainer/wire/stated.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define ARENA_BYTES ((size_t)256 << 20)
#define LIST_TEXT 600

/* A server while it is asked. */
struct asking {
    const struct lb_contact *contact;
    char where[400], model[LB_MAX_NAME];
    const json_t *metadata;
    struct lb_named named;
    struct lb_arena arena;
};

/* ---- names ---- */

/* "a INT32 [-1,1], b ...": a list of the metadata, for people. */
static const char *tell(const json_t *list, char out[LIST_TEXT]) {
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(list) && at < LIST_TEXT; i++) {
        const json_t *tensor = json_array_get(list, i), *shape = json_object_get(tensor, "shape");
        const char *name = json_string_value(json_object_get(tensor, "name"));
        const char *datatype = json_string_value(json_object_get(tensor, "datatype"));
        at += (size_t)snprintf(out + at, LIST_TEXT - at, "%s%.60s %.8s [", i ? ", " : "", name ? name : "?",
                               datatype ? datatype : "?");
        for (size_t d = 0; d < json_array_size(shape) && at < LIST_TEXT; d++) {
            at += (size_t)snprintf(out + at, LIST_TEXT - at, "%s%lld", d ? "," : "",
                                   (long long)json_integer_value(json_array_get(shape, d)));
        }
        at += at < LIST_TEXT ? (size_t)snprintf(out + at, LIST_TEXT - at, "]") : 0;
    }
    return *out ? out : "none";
}

static const json_t *find(const json_t *list, const char *name) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *is = json_string_value(json_object_get(json_array_get(list, i), "name"));
        if (is && strcmp(is, name) == 0) {
            return json_array_get(list, i);
        }
    }
    return NULL;
}

static enum lb_status lacks(const struct asking *a, const char *key, const char *name, const char *list,
                            struct lb_detail *detail) {
    char there[LIST_TEXT];
    return lb_fail(detail, LB_E_ARG, "%s: %s is \"%s\", and model %s has no such tensor among its %s: %s",
                   a->where, key, name, a->model, list, tell(json_object_get(a->metadata, list), there));
}

/* Whether ids fit into the datatype. */
static bool takes_ids(enum lb_datatype datatype) {
    return datatype == LB_DT_INT32 || datatype == LB_DT_INT64 || datatype == LB_DT_UINT32 ||
           datatype == LB_DT_UINT64;
}

/* What the shape means: the ids of one sequence behind a batch dimension or none, or one number. */
static bool takes_shape(const json_t *shape, enum lb_named_role role) {
    size_t n = json_array_size(shape);
    bool row = role == LB_NAMED_IDS || role == LB_NAMED_MASK;
    for (size_t d = 0; d < n; d++) {
        json_int_t size = json_integer_value(json_array_get(shape, d));
        bool last = d + 1 == n;
        if (!(size == -1 || (size == 1 && !(row && last)))) {
            return false;
        }
    }
    return n >= 1 && n <= (row ? 2 : LB_MAX_WIRE_DIMS);
}

/* Adds the input that the recipe calls so (NULL: none) under the key. */
static enum lb_status add_input(struct asking *a, const char *key, const char *name, enum lb_named_role role,
                                const char *value, struct lb_detail *detail) {
    char there[LIST_TEXT];
    if (!name) {
        return LB_OK;
    }
    const json_t *tensor = find(json_object_get(a->metadata, "inputs"), name);
    if (!tensor) {
        return lacks(a, key, name, "inputs", detail);
    }
    const char *type = json_string_value(json_object_get(tensor, "datatype"));
    enum lb_datatype datatype = lb_datatype_parse(type ? type : "");
    for (int i = 0; i < a->named.n_inputs; i++) {
        if (strcmp(a->named.inputs[i].name, name) == 0) {
            return lb_fail(detail, LB_E_ARG, "%s: %s: \"%s\" is named twice", a->where, key, name);
        }
    }
    bool half = datatype == LB_DT_FP16 || datatype == LB_DT_BF16;
    if (lb_datatype_bytes(datatype) == 0 || (half && !a->named.binary)) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s: %s: \"%s\" is %.20s, which limbeck can't send",
                       a->where, key, name, type ? type : "of no datatype");
    }
    bool takes = role == LB_NAMED_VALUE  ? lb_named_value_fits(value, datatype)
                 : role == LB_NAMED_MASK ? datatype != LB_DT_FP16 && datatype != LB_DT_BF16 &&
                                               datatype != LB_DT_FP32 && datatype != LB_DT_FP64
                                         : takes_ids(datatype);
    if (!takes) {
        return role == LB_NAMED_VALUE
                   ? lb_fail(detail, LB_E_ARG, "%s: %s: \"%s\" is no %s", a->where, key, value, type)
                   : lb_fail(detail, LB_E_ARG, "%s: %s: \"%s\" is %s, which is no datatype for it", a->where,
                             key, name, type);
    }
    if (!takes_shape(json_object_get(tensor, "shape"), role)) {
        json_t *one = json_pack("[O]", tensor);
        enum lb_status status = lb_fail(
            detail, LB_E_ARG, "%s: %s: the server says %s; %s is needed", a->where, key, tell(one, there),
            role == LB_NAMED_VALUE || role == LB_NAMED_LENGTHS ? "one number, [1] or [1,1]"
                                                               : "[T] or [1,T] for any T");
        json_decref(one);
        return status;
    }
    if (a->named.n_inputs == LB_NAMED_INPUTS || strlen(name) >= LB_NAMED_BYTES ||
        strlen(value) >= LB_NAMED_BYTES) {
        return lb_fail(detail, LB_E_LIMIT, "%s: %s: at most %d inputs, of names below %d bytes, are possible",
                       a->where, key, LB_NAMED_INPUTS, LB_NAMED_BYTES);
    }
    struct lb_named_input *input = &a->named.inputs[a->named.n_inputs++];
    snprintf(input->name, sizeof input->name, "%s", name);
    snprintf(input->value, sizeof input->value, "%s", value);
    input->role = (uint8_t)role;
    input->datatype = (uint8_t)datatype;
    input->n_dims = (uint8_t)json_array_size(json_object_get(tensor, "shape"));
    return LB_OK;
}

static enum lb_status resolve(struct asking *a, struct lb_detail *detail) {
    const struct lb_naming *naming = a->contact->naming;
    enum lb_status status = add_input(a, "names.input_ids", naming->input_ids, LB_NAMED_IDS, "", detail);
    status = status != LB_OK ? status
                             : add_input(a, "names.lengths", naming->lengths, LB_NAMED_LENGTHS, "", detail);
    status = status != LB_OK
                 ? status
                 : add_input(a, "names.attention_mask", naming->attention_mask, LB_NAMED_MASK, "", detail);
    for (size_t i = 0; i < naming->n_extra && status == LB_OK; i++) {
        char key[160];
        snprintf(key, sizeof key, "extra_inputs.%.100s", naming->extra[i].name);
        status = add_input(a, key, naming->extra[i].name, LB_NAMED_VALUE, naming->extra[i].value, detail);
    }
    if (status == LB_OK && !find(json_object_get(a->metadata, "outputs"), naming->logits)) {
        return lacks(a, "names.logits", naming->logits, "outputs", detail);
    }
    if (status == LB_OK && strlen(naming->logits) >= LB_NAMED_BYTES) {
        return lb_fail(detail, LB_E_LIMIT, "%s: names.logits: a name of more than %d bytes", a->where,
                       LB_NAMED_BYTES - 1);
    }
    if (status == LB_OK) {
        snprintf(a->named.logits, sizeof a->named.logits, "%s", naming->logits);
    }
    return status;
}

/* ---- what it says ---- */

/* The metadata as they arrived, and their SHA-256 however they are laid out. */
static enum lb_status read_metadata(const void *text, size_t len, const char *where, json_t **out,
                                    char hash[LB_SHA256_HEX], struct lb_detail *detail) {
    struct lb_buf canonical;
    uint8_t digest[LB_SHA256_BYTES];
    lb_buf_init(&canonical, LB_MAX_INFO_BYTES);
    enum lb_status status = lb_json_parse_loose(text, len, LB_MAX_JSON_DEPTH, where, out, detail);
    if (status == LB_OK && lb_json_dump(*out, JSON_SORT_KEYS, &canonical) != LB_OK) {
        json_decref(*out);
        status = lb_fail(detail, LB_E_NOMEM, "%s: out of memory for its metadata", where);
    }
    if (status == LB_OK) {
        lb_sha256(canonical.data, canonical.len, digest);
        lb_hex(digest, sizeof digest, hash);
    }
    lb_buf_finish(&canonical);
    return status;
}

static enum lb_status ask_metadata(struct asking *a, json_t **out, struct lb_detail *detail) {
    struct lb_buf text;
    char *path = lb_metadata_path(a->model, NULL, "");
    if (!path) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a request");
    }
    lb_buf_init(&text, LB_MAX_INFO_BYTES);
    enum lb_status status = lb_contact_get(a->contact, path, &text, NULL, detail);
    status = status != LB_OK ? status
                             : read_metadata(text.data ? text.data : "", text.len, a->where, out,
                                             a->named.metadata, detail);
    lb_buf_finish(&text);
    lb_free(path);
    return status;
}

/* Whether its tensors travel as bytes (Triton's extension); the protocol itself has JSON. */
static enum lb_status ask_extensions(struct asking *a, struct lb_detail *detail) {
    json_t *server = NULL;
    enum lb_status status = lb_said_json(a->contact, "/v2", NULL, &server, detail);
    const json_t *list = json_object_get(server, "extensions");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        a->named.binary = a->named.binary || (name && strcmp(name, "binary_tensor_data") == 0);
    }
    json_decref(server);
    return status;
}

/* ---- what it answers ---- */

/* The fixed question's log-probabilities, and how many logits there are. */
static enum lb_status note_logits(struct asking *a, const struct lb_wire_tensor *logits,
                                  struct lb_stated *stated, struct lb_detail *detail) {
    int64_t v = logits->dim[logits->n_dims - 1];
    float *z = lb_arena_array(&a->arena, (size_t)v, sizeof *z);
    if (!z) {
        return lb_fail(detail, LB_E_NOMEM, "%s: out of memory for %lld logits", a->where, (long long)v);
    }
    struct lb_told_probe *told = &stated->probe[LB_PROBE_LOGPROBS];
    for (int t = 0; t + 1 < stated->n_ids; t++) {
        if (stated->ids[t + 1] >= v) {
            return lb_fail(detail, LB_E_UNSUPPORTED, "%s: %s has %lld logits a row, which is no vocabulary",
                           a->where, a->named.logits, (long long)v);
        }
        lb_wire_floats(logits, t * v, v, z);
        told->at[t] = (float)((double)z[stated->ids[t + 1]] - lb_head_logsumexp(z, v, 1));
        if (!isfinite(told->at[t])) {
            return lb_fail(detail, LB_E_FORMAT, "%s: %s has numbers that are not finite", a->where,
                           a->named.logits);
        }
    }
    told->n = stated->n_ids - 1;
    stated->vocab_size = v;
    return LB_OK;
}

static enum lb_status ask_logits(struct asking *a, struct lb_stated *stated, struct lb_detail *detail) {
    const struct lb_sample sample = {.ids = stated->ids, .n = stated->n_ids};
    const struct lb_sample *samples = &sample;
    struct lb_asked asked;
    struct lb_call call = {0};
    struct lb_wire_tensor logits;
    const char *version = "";
    char *path = lb_metadata_path(a->model, NULL, "/infer");
    if (!path) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a request");
    }
    lb_asked_begin(&asked, &samples, 1);
    enum lb_status status = lb_named_ask(&a->named, stated->ids, stated->n_ids, &a->arena, &asked, detail);
    status = status != LB_OK ? status : lb_asked_post(a->contact, path, &asked, true, &call, detail);
    lb_free(path);
    if (status == LB_OK) {
        const struct lb_ask_reply reply = {.body = call.answer.data ? call.answer.data : "",
                                           .len = call.answer.len,
                                           .json_bytes = call.answer_json_bytes};
        status = lb_named_read(&a->named, a->model, &reply, stated->n_ids, 0, &a->arena, &logits, &version,
                               detail);
        status = status != LB_OK ? status : note_logits(a, &logits, stated, detail);
        if (status != LB_OK) {
            lb_said_by(a->contact, detail);
        }
    }
    if (status == LB_OK && strlen(version) >= sizeof a->named.version) {
        status = lb_fail(detail, LB_E_LIMIT, "%s: the model's version has more than %zu bytes", a->where,
                         sizeof a->named.version - 1);
    } else if (status == LB_OK) {
        snprintf(a->named.version, sizeof a->named.version, "%s", version);
    }
    lb_call_finish(&call);
    lb_asked_finish(&asked);
    return status;
}

/* ---- as text ---- */

static json_t *as_json(const struct lb_named *named) {
    json_t *inputs = json_array();
    for (int i = 0; i < named->n_inputs; i++) {
        const struct lb_named_input *input = &named->inputs[i];
        json_array_append_new(inputs, json_pack("{s:s,s:s,s:i,s:s,s:i}", "name", input->name, "value",
                                                input->value, "role", input->role, "datatype",
                                                lb_datatype_name((enum lb_datatype)input->datatype), "dims",
                                                input->n_dims));
    }
    return json_pack("{s:s,s:s,s:s,s:b,s:o}", "metadata", named->metadata, "version", named->version,
                     "logits", named->logits, "binary", named->binary, "inputs", inputs);
}

static bool copy_text(const json_t *object, const char *key, char *out, size_t size) {
    const char *text = json_string_value(json_object_get(object, key));
    bool fits = text && strlen(text) < size;
    if (fits) {
        snprintf(out, size, "%s", text);
    }
    return fits;
}

static bool from_json(const json_t *root, struct lb_named *out) {
    const json_t *tensors = json_object_get(root, "tensors"), *inputs = json_object_get(tensors, "inputs");
    size_t n = json_array_size(inputs);
    bool good = copy_text(tensors, "metadata", out->metadata, sizeof out->metadata) &&
                copy_text(tensors, "version", out->version, sizeof out->version) &&
                copy_text(tensors, "logits", out->logits, sizeof out->logits) && n > 0 &&
                n <= LB_NAMED_INPUTS;
    for (size_t i = 0; good && i < n; i++) {
        const json_t *from = json_array_get(inputs, i);
        const char *datatype = json_string_value(json_object_get(from, "datatype"));
        json_int_t role = json_integer_value(json_object_get(from, "role"));
        json_int_t dims = json_integer_value(json_object_get(from, "dims"));
        struct lb_named_input *input = &out->inputs[i];
        enum lb_datatype type = lb_datatype_parse(datatype ? datatype : "");
        good = copy_text(from, "name", input->name, sizeof input->name) &&
               copy_text(from, "value", input->value, sizeof input->value) && lb_datatype_bytes(type) > 0 &&
               role >= 0 && role < LB_N_NAMED_ROLES && dims > 0 && dims <= LB_MAX_WIRE_DIMS;
        input->datatype = (uint8_t)type;
        input->role = (uint8_t)role;
        input->n_dims = (uint8_t)dims;
    }
    out->binary = json_is_true(json_object_get(tensors, "binary"));
    out->n_inputs = (int)n;
    return good;
}

enum lb_status lb_named_info_read(const void *text, size_t len, const char *what, struct lb_teacher_info *out,
                                  struct lb_detail *detail) {
    static const enum lb_output_kind kinds[] = {LB_OUT_LOGITS,        LB_OUT_TOPK_IDS,   LB_OUT_TOPK_VALUES,
                                                LB_OUT_TOPK_LOGPROBS, LB_OUT_REST,       LB_OUT_LOGSUMEXP,
                                                LB_OUT_ACTUAL,        LB_OUT_NEXT,       LB_OUT_RANK,
                                                LB_OUT_AT_IDS,        LB_OUT_AT_LOGPROBS};
    struct lb_teacher_info info;
    json_t *root = NULL;
    enum lb_status status = lb_stated_read(text, len, "oip", what, &info, detail);
    status = status != LB_OK ? status : lb_json_parse(text, len, LB_MAX_JSON_DEPTH, what, &root, detail);
    if (status == LB_OK && (!from_json(root, &info.named) || info.vocab_size < 2)) {
        status = lb_fail(detail, LB_E_FORMAT, "%s: it does not tell which tensors a server has", what);
    }
    json_decref(root);
    if (status != LB_OK) {
        return status;
    }
    info.plain_only = false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        int32_t width =
            kinds[i] == LB_OUT_LOGITS && info.vocab_size < INT32_MAX ? (int32_t)info.vocab_size : 0;
        info.given[info.n_given++] = (struct lb_given){.kind = (uint16_t)kinds[i], .width = width};
    }
    *out = info;
    return LB_OK;
}

/* ---- together ---- */

static enum lb_status find_out(struct asking *a, struct lb_buf *text, struct lb_teacher_info *out,
                               struct lb_detail *detail) {
    struct lb_stated stated = {.protocol = "oip", .model = a->model, .version = ""};
    json_t *metadata = NULL;
    size_t before = text->len;
    enum lb_status status = ask_metadata(a, &metadata, detail);
    a->metadata = metadata;
    lb_stated_plain_ids(&stated);
    status = status != LB_OK ? status : ask_extensions(a, detail);
    status = status != LB_OK ? status : resolve(a, detail);
    status = status != LB_OK ? status : ask_logits(a, &stated, detail);
    if (status == LB_OK) {
        stated.tensors = as_json(&a->named);
        status = stated.tensors ? lb_stated_write(&stated, text, detail)
                                : lb_fail(detail, LB_E_NOMEM, "out of memory for what a server says");
        json_decref(stated.tensors);
    }
    json_decref(metadata);
    return status != LB_OK
               ? status
               : lb_named_info_read(text->data + before, text->len - before, a->where, out, detail);
}

enum lb_status lb_named_info(const struct lb_contact *contact, const char *model, struct lb_buf *text,
                             struct lb_teacher_info *out, struct lb_detail *detail) {
    struct asking *a = lb_calloc(1, sizeof *a);
    if (!a) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a server's metadata");
    }
    a->contact = contact;
    lb_contact_where(contact, a->where, sizeof a->where);
    lb_arena_init(&a->arena, ARENA_BYTES);
    enum lb_status status = model && strlen(model) >= sizeof a->model
                                ? lb_fail(detail, LB_E_ARG, "%s: the model's name is too long", a->where)
                                : LB_OK;
    if (status == LB_OK && !model) {
        status = lb_metadata_only_model(contact, a->model, detail);
    } else if (status == LB_OK) {
        snprintf(a->model, sizeof a->model, "%s", model);
    }
    status = status != LB_OK ? status : find_out(a, text, out, detail);
    lb_arena_finish(&a->arena);
    lb_free(a);
    return status;
}

enum lb_status lb_named_same(const struct lb_teacher_info *known, const void *text, size_t len,
                             const char *where, char out_id[LB_MAX_MODEL_ID], struct lb_detail *detail) {
    out_id[0] = '\0';
    char hash[LB_SHA256_HEX];
    json_t *metadata = NULL;
    enum lb_status status = read_metadata(text, len, where, &metadata, hash, detail);
    if (status != LB_OK) {
        return status;
    }
    json_decref(metadata);
    return strcmp(hash, known->named.metadata) == 0
               ? LB_OK
               : lb_fail(detail, LB_E_MISMATCH,
                         "%s says otherwise of model %s now than when this run began; serve the same model "
                         "again, or start a new run",
                         where, known->model);
}
