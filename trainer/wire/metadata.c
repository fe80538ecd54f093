#include "trainer/wire/metadata.h"

#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/formats/safetensors.h"

#include <ctype.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DIMENSION (1ll << 40)

/* ---- models ---- */

enum lb_status lb_metadata_models(const struct lb_contact *contact,
                                  void (*each)(void *user, const char *name, const char *version,
                                               const char *state),
                                  void *user, struct lb_detail *detail) {
    struct lb_call call;
    json_t *list = NULL;
    char where[400];
    lb_contact_where(contact, where, sizeof where);
    enum lb_status status =
        lb_contact_call(contact, &call, "/v2/repository/index", "{}", LB_MAX_INFO_BYTES, detail);
    if (status == LB_OK) {
        status = lb_json_parse(call.answer.data, call.answer.len, LB_MAX_JSON_DEPTH, where, &list, detail);
    }
    if (status == LB_OK && !json_is_array(list)) {
        status = lb_fail(detail, LB_E_FORMAT, "%s: its list of models is no list; is it a limbeckd?", where);
    }
    for (size_t i = 0; status == LB_OK && i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const char *name = NULL, *version = "", *state = "";
        status = lb_json_str(entry, "name", true, where, &name, detail);
        status = status != LB_OK ? status : lb_json_str(entry, "version", false, where, &version, detail);
        status = status != LB_OK ? status : lb_json_str(entry, "state", false, where, &state, detail);
        if (status == LB_OK) {
            each(user, name, version, state);
        }
    }
    json_decref(list);
    lb_call_finish(&call);
    return status;
}

struct names {
    size_t n;
    char first[LB_MAX_NAME], all[300];
};

static void note_name(void *user, const char *name, const char *version, const char *state) {
    struct names *names = user;
    (void)version;
    (void)state;
    if (names->n++ == 0) {
        snprintf(names->first, sizeof names->first, "%s", name);
    }
    size_t at = strlen(names->all);
    snprintf(names->all + at, sizeof names->all - at, "%s%s", at ? ", " : "", name);
}

enum lb_status lb_metadata_only_model(const struct lb_contact *contact, char out[LB_MAX_NAME],
                                      struct lb_detail *detail) {
    struct names names = {0};
    char where[400];
    enum lb_status status = lb_metadata_models(contact, note_name, &names, detail);
    if (status != LB_OK) {
        return status;
    }
    lb_contact_where(contact, where, sizeof where);
    if (names.n == 0) {
        return lb_fail(detail, LB_E_NOTFOUND, "%s serves no model", where);
    }
    if (names.n > 1) {
        return lb_fail(detail, LB_E_ARG, "%s serves %zu models (%s); say which with model", where, names.n,
                       names.all);
    }
    memcpy(out, names.first, LB_MAX_NAME);
    return LB_OK;
}

/* ---- metadata ---- */

static bool is_fingerprint(const char *text) {
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        if (!isxdigit((unsigned char)text[i])) {
            return false;
        }
    }
    return n == LB_SHA256_HEX - 1;
}

/* A list of outputs: name and shape. Those that this program doesn't know are of no use to it. */
static enum lb_status parse_given(const json_t *outputs, const char *what, struct lb_teacher_info *info,
                                  struct lb_detail *detail) {
    if (!json_is_array(outputs)) {
        return lb_fail(detail, LB_E_FORMAT, "%s: no list of outputs in its metadata", what);
    }
    for (size_t i = 0; i < json_array_size(outputs); i++) {
        const json_t *output = json_array_get(outputs, i), *shape = json_object_get(output, "shape");
        struct lb_output_name parsed;
        const char *name = NULL;
        enum lb_status status = lb_json_str(output, "name", true, what, &name, detail);
        if (status != LB_OK) {
            return status;
        }
        if (lb_output_parse(name, &parsed, NULL) != LB_OK) {
            continue;
        }
        if (info->n_given == LB_MAX_GIVEN) {
            return lb_fail(detail, LB_E_LIMIT, "%s: its metadata list more than %d outputs", what,
                           LB_MAX_GIVEN);
        }
        json_int_t last = json_array_size(shape) > 0
                              ? json_integer_value(json_array_get(shape, json_array_size(shape) - 1))
                              : -1;
        info->given[info->n_given++] =
            (struct lb_given){.kind = (uint16_t)parsed.kind,
                              .layer = (uint16_t)parsed.layer,
                              .width = last > 0 && last <= INT32_MAX ? (int32_t)last : 0};
    }
    return LB_OK;
}

/* Whether start is among the inputs that it lists. */
static bool knows_start(const json_t *inputs) {
    bool any = false;
    for (size_t i = 0; i < json_array_size(inputs); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(inputs, i), "name"));
        any = any || (name != NULL && strcmp(name, LB_IN_START) == 0);
    }
    return any;
}

/* A server's words, cut to fit, without what could break a line or a JSON text. */
static void copy_words(const char *from, char *to, size_t size) {
    size_t n = 0;
    for (; from[n] && n + 1 < size; n++) {
        bool plain = from[n] >= ' ' && from[n] < 0x7f && from[n] != '"' && from[n] != '\\';
        to[n] = plain ? from[n] : '?';
    }
    to[n] = '\0';
}

static enum lb_status parse_numbers(const json_t *parameters, const char *what, struct lb_teacher_info *info,
                                    struct lb_detail *detail) {
    const struct {
        const char *key;
        bool required;
        int64_t most, *out;
    } numbers[] = {
        {"vocab_size", true, MAX_DIMENSION, &info->vocab_size},
        {"hidden_size", false, MAX_DIMENSION, &info->hidden_size},
        {"num_layers", false, MAX_DIMENSION, &info->n_layers},
        {"num_heads", false, MAX_DIMENSION, &info->n_heads},
        {"max_length", false, MAX_DIMENSION, &info->max_length},
        {"input_size", false, MAX_DIMENSION, &info->input_size},
        {"num_labels", false, MAX_DIMENSION, &info->num_labels},
        {"max_vocab_maps", false, MAX_DIMENSION, &info->max_vocab_maps},
        {"num_parameters", false, INT64_MAX, &info->parameters},
        {"weight_bytes", false, INT64_MAX, &info->bytes},
    };
    enum lb_status status = LB_OK;
    for (size_t i = 0; status == LB_OK && i < sizeof numbers / sizeof *numbers; i++) {
        status = lb_json_int(parameters, numbers[i].key, numbers[i].required, 0, numbers[i].most, what,
                             numbers[i].out, detail);
    }
    return status;
}

/* Of a classifier of texts vocab_size tells the ids that it reads. */
static enum lb_status parse_labels(const json_t *parameters, const char *what, struct lb_teacher_info *info,
                                   struct lb_detail *detail) {
    struct lb_labels labels = {0};
    size_t at = 0;
    if (info->num_labels == 0 || info->input_size > 0) {
        return LB_OK;
    }
    if (info->num_labels > LB_MAX_LABELS) {
        return lb_fail(detail, LB_E_LIMIT, "%s: %lld classes; at most %d are supported", what,
                       (long long)info->num_labels, LB_MAX_LABELS);
    }
    info->n_ids = info->vocab_size;
    info->vocab_size = info->num_labels;
    enum lb_status status = lb_labels_read(parameters, info->num_labels, what, &labels, detail);
    info->problem = labels.problem;
    bool plain = status == LB_OK && lb_labels_plain(&labels);
    for (int64_t i = 0; status == LB_OK && !plain && i < labels.n; i++) {
        size_t len = strlen(labels.names[i]) + 1;
        if (len == 1 || at + len >= sizeof info->labels) {
            status = lb_fail(detail, LB_E_LIMIT,
                             "%s: the names of its classes (id2label) are empty or have more than %d bytes",
                             what, LB_LABELS_TEXT);
            break;
        }
        memcpy(info->labels + at, labels.names[i], len);
        at += len;
    }
    lb_labels_finish(&labels);
    return status;
}

static enum lb_status check_wire(const json_t *parameters, const char *what, struct lb_detail *detail) {
    int64_t wire = LB_WIRE_VERSION; /* those that say nothing are of the first */
    enum lb_status status = lb_json_int(parameters, "wire", false, 0, INT64_MAX, what, &wire, detail);
    if (status == LB_OK && wire != LB_WIRE_VERSION) {
        status = lb_fail(detail, LB_E_UNSUPPORTED,
                         "%s: its limbeckd speaks number %lld of the wire, this limbeck speaks %d; use "
                         "versions that agree",
                         what, (long long)wire, LB_WIRE_VERSION);
    }
    return status;
}

/* Who answers, and with which bits. */
static enum lb_status parse_identity(const json_t *parameters, const char *what, struct lb_teacher_info *info,
                                     struct lb_detail *detail) {
    const char *fingerprint = "", *tokenizer = "", *compute = "", *kernels = "", *chat = "";
    bool invariant = true;
    const struct {
        const char *key;
        bool required;
        const char **out;
    } words[] = {{"fingerprint", true, &fingerprint},
                 {"tokenizer_fingerprint", false, &tokenizer},
                 {"chat_template_sha256", false, &chat},
                 {"compute", false, &compute},
                 {"kernels", false, &kernels}};
    enum lb_status status = LB_OK;
    for (size_t i = 0; status == LB_OK && i < sizeof words / sizeof *words; i++) {
        status = lb_json_str(parameters, words[i].key, words[i].required, what, words[i].out, detail);
    }
    status = status != LB_OK ? status
                             : lb_json_bool(parameters, "batch_invariant", false, what, &invariant, detail);
    if (status == LB_OK && (!is_fingerprint(fingerprint) || (*tokenizer && !is_fingerprint(tokenizer)) ||
                            (*chat && !is_fingerprint(chat)) || (*compute && !is_fingerprint(compute)))) {
        status = lb_fail(detail, LB_E_FORMAT,
                         "%s: a fingerprint, or compute, is no SHA-256 of 64 hex digits, or "
                         "chat_template_sha256",
                         what);
    }
    if (status == LB_OK) {
        snprintf(info->fingerprint, sizeof info->fingerprint, "%s", fingerprint);
        snprintf(info->tokenizer_fingerprint, sizeof info->tokenizer_fingerprint, "%s", tokenizer);
        snprintf(info->chat_template_hash, sizeof info->chat_template_hash, "%s", chat);
        snprintf(info->compute, sizeof info->compute, "%s", compute);
        copy_words(kernels, info->kernels, sizeof info->kernels);
        info->batch_dependent = !invariant;
    }
    return status;
}

enum lb_status lb_info_parse(const void *text, size_t len, const char *what, struct lb_teacher_info *out,
                             struct lb_detail *detail) {
    json_t *root = NULL;
    struct lb_teacher_info info = {0};
    const char *name = NULL;
    enum lb_status status = lb_json_parse(text, len, LB_MAX_JSON_DEPTH, what, &root, detail);
    if (status != LB_OK) {
        return status;
    }
    status = lb_json_str(root, "name", true, what, &name, detail);
    const json_t *parameters = json_object_get(root, "parameters");
    if (status == LB_OK && !json_is_object(parameters)) {
        status = lb_fail(detail, LB_E_FORMAT, "%s: no parameters in its metadata; is it a limbeckd?", what);
    }
    status = status != LB_OK ? status : parse_numbers(parameters, what, &info, detail);
    status = status != LB_OK ? status : parse_labels(parameters, what, &info, detail);
    status = status != LB_OK ? status : check_wire(parameters, what, detail);
    status = status != LB_OK ? status : parse_identity(parameters, what, &info, detail);
    const json_t *further = json_object_get(root, "further_outputs");
    status = status != LB_OK ? status : parse_given(json_object_get(root, "outputs"), what, &info, detail);
    status = status != LB_OK || !further ? status : parse_given(further, what, &info, detail);
    info.knows_start = knows_start(json_object_get(root, "inputs"));
    if (status == LB_OK && strlen(name) >= LB_MAX_NAME) {
        status = lb_fail(detail, LB_E_FORMAT, "%s: the model's name is longer than %d bytes", what,
                         LB_MAX_NAME - 1);
    }
    if (status == LB_OK) {
        snprintf(info.model, sizeof info.model, "%s", name);
        *out = info;
    }
    json_decref(root);
    return status;
}

enum lb_status lb_info_read(const void *text, size_t len, const char *what, struct lb_teacher_info *out,
                            struct lb_detail *detail) {
    struct lb_teacher_info info;
    enum lb_status status = lb_info_parse(text, len, what, &info, detail);
    if (status == LB_OK && (status = lb_answer_digest_check(text, len, -1, "", detail)) != LB_OK) {
        lb_detail_prefix(detail, "%s: its metadata", what);
    }
    if (status == LB_OK) {
        *out = info;
    }
    return status;
}

enum lb_status lb_metadata_info(const struct lb_contact *contact, const char *model, struct lb_buf *text,
                                struct lb_teacher_info *out, struct lb_detail *detail) {
    char where[400];
    char *path = lb_metadata_path(model, NULL, "");
    size_t before = text->len;
    if (!path) {
        return lb_fail(detail, LB_E_NOMEM, "out of memory for a request");
    }
    lb_contact_where(contact, where, sizeof where);
    enum lb_status status = lb_contact_get(contact, path, text, NULL, detail);
    lb_free(path);
    struct lb_teacher_info info;
    if (status == LB_OK) {
        status = lb_info_read(text->data + before, text->len - before, where, &info, detail);
    }
    if (status == LB_OK && strcmp(info.model, model)) {
        status = lb_fail(detail, LB_E_FORMAT, "%s: asked about model %s, it answered about %s", where, model,
                         info.model);
    }
    if (status == LB_OK) {
        *out = info;
    }
    return status;
}

/* Appends text with all but unreserved characters as %XX (RFC 3986). */
static void put_escaped(struct lb_buf *buf, const char *text) {
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (isalnum(*p) || strchr("-._~", *p)) {
            lb_buf_append(buf, p, 1);
        } else {
            lb_buf_printf(buf, "%%%02X", *p);
        }
    }
}

char *lb_metadata_path(const char *model, const char *fingerprint, const char *suffix) {
    struct lb_buf buf;
    lb_buf_init(&buf, 8192);
    lb_buf_append_str(&buf, "/v2/models/");
    put_escaped(&buf, model);
    if (fingerprint) {
        lb_buf_append_str(&buf, "/versions/");
        put_escaped(&buf, fingerprint);
    }
    lb_buf_append_str(&buf, suffix);
    char *path = lb_buf_status(&buf) ? NULL : lb_buf_take(&buf, NULL);
    lb_buf_finish(&buf);
    return path;
}

/* ---- head ---- */

/* A tensor as FP32 on the heap. */
static enum lb_status to_floats(const struct lb_tensor *tensor, const char *what, float **out,
                                struct lb_detail *detail) {
    int64_t n = 1;
    for (int d = 0; d < tensor->n_dims; d++) {
        n *= tensor->dim[d]; /* the reader has multiplied them with checks before */
    }
    if (!lb_dtype_is_weight(tensor->dtype)) {
        return lb_fail(detail, LB_E_UNSUPPORTED, "%s: %s has data type %s", what, tensor->name,
                       lb_dtype_name(tensor->dtype));
    }
    size_t count;
    float *values = lb_mul_size((size_t)n, sizeof *values, &count) ? lb_malloc_aligned(count) : NULL;
    if (!values) {
        return lb_fail(detail, LB_E_NOMEM, "%s: no memory for %s, %lld numbers", what, tensor->name,
                       (long long)n);
    }
    lb_dequantize(tensor->dtype, tensor->data, values, n);
    *out = values;
    return LB_OK;
}

/* A number that the head's metadata may have. */
static enum lb_status shape_number(const struct lb_safetensors *file, const char *key, double missing,
                                   double min, const char *what, float *out, struct lb_detail *detail) {
    const char *text = lb_safetensors_metadata(file, key);
    char *end = NULL;
    double value = text ? strtod(text, &end) : missing;
    if ((text && (end == text || *end)) || !isfinite(value) || value < min || value > FLT_MAX) {
        return lb_fail(detail, LB_E_FORMAT, "%s: the head's %s is \"%.40s\"", what, key, text ? text : "");
    }
    *out = (float)value;
    return LB_OK;
}

static enum lb_status read_shape(const struct lb_safetensors *file, const char *what,
                                 struct lb_head_shape *out, struct lb_detail *detail) {
    enum lb_status status = shape_number(file, "logit_scale", 1, FLT_MIN, what, &out->scale, detail);
    return status != LB_OK ? status
                           : shape_number(file, "final_logit_softcapping", 0, 0, what, &out->softcap, detail);
}

enum lb_status lb_teacher_head_arrived(const void *bytes, size_t len, const char *what,
                                       struct lb_detail *detail) {
    uint8_t digest[LB_SHA256_BYTES];
    size_t at = len > sizeof digest ? len - sizeof digest : 0;
    lb_sha256(bytes, at, digest);
    if (at == 0 || memcmp((const char *)bytes + at, digest, sizeof digest) != 0) {
        return lb_fail(detail, LB_E_FORMAT,
                       "%s: the head's %zu bytes do not end with their digest: something in between changed "
                       "them, or the server is too old to make one",
                       what, len);
    }
    return LB_OK;
}

enum lb_status lb_teacher_head_parse(const void *bytes, size_t len, const struct lb_teacher_info *info,
                                     const char *what, struct lb_teacher_head *out,
                                     struct lb_detail *detail) {
    struct lb_safetensors *file = NULL;
    const struct lb_tensor *weight = NULL, *bias = NULL;
    struct lb_teacher_head head = {0};
    enum lb_status status = lb_safetensors_parse(bytes, len, what, &file, detail);
    if (status != LB_OK) {
        return status;
    }
    for (size_t i = 0; i < lb_safetensors_count(file); i++) {
        const struct lb_tensor *tensor = lb_safetensors_get(file, i);
        if (tensor->n_dims == 2 && lb_ends_with(tensor->name, "weight")) {
            weight = tensor;
        } else if (tensor->n_dims == 1 && lb_ends_with(tensor->name, "bias")) {
            bias = tensor;
        }
    }
    const char *fingerprint = lb_safetensors_metadata(file, "fingerprint");
    if (fingerprint && info->fingerprint[0] && strcmp(fingerprint, info->fingerprint)) {
        status = lb_fail(detail, LB_E_MISMATCH, "%s: the head belongs to fingerprint %s, the teacher is %s",
                         what, fingerprint, info->fingerprint);
    } else if (!weight) {
        status = lb_fail(detail, LB_E_FORMAT, "%s: no matrix named ...weight in the head", what);
    } else if ((info->vocab_size > 0 && weight->dim[0] != info->vocab_size) ||
               (info->hidden_size > 0 && weight->dim[1] != info->hidden_size) ||
               (bias && bias->dim[0] != weight->dim[0])) {
        status = lb_fail(detail, LB_E_MISMATCH, "%s: the head is [%lld, %lld], the teacher says [%lld, %lld]",
                         what, (long long)weight->dim[0], (long long)weight->dim[1],
                         (long long)info->vocab_size, (long long)info->hidden_size);
    } else {
        head.vocab_size = weight->dim[0];
        head.hidden_size = weight->dim[1];
        status = to_floats(weight, what, &head.weight, detail);
        if (status == LB_OK && bias) {
            status = to_floats(bias, what, &head.bias, detail);
        }
        status = status == LB_OK ? read_shape(file, what, &head.shape, detail) : status;
    }
    lb_safetensors_destroy(file);
    if (status != LB_OK) {
        lb_teacher_head_finish(&head);
        return status;
    }
    *out = head;
    return LB_OK;
}
