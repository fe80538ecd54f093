/* What was asked, as one canonical sequence of bytes, and its SHA-256: PROTOCOL.md "Digest". */
#include "proto/outputs.h"
#include "proto/oip.h"

#include <assert.h>
#include <string.h>

static void put_string(struct lb_sha256 *hash, const char *text) {
    lb_sha256_u32(hash, (uint32_t)strlen(text));
    lb_sha256_update(hash, text, strlen(text));
}

/* Indices of n names, sorted by their bytes. */
static void sort_names(size_t n, const char *const *name, size_t *order) {
    for (size_t i = 0; i < n; i++) {
        size_t at = i;
        for (; at > 0 && strcmp(name[i], name[order[at - 1]]) < 0; at--) {
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
}

static bool fits_int32(const struct lb_wire_tensor *tensor) {
    for (size_t at = 0; at < tensor->bytes; at += sizeof(int64_t)) {
        int64_t v;
        memcpy(&v, (const uint8_t *)tensor->data + at, sizeof v);
        if (v < INT32_MIN || v > INT32_MAX) {
            return false;
        }
    }
    return true;
}

/* The values of an INT64 tensor as INT32. */
static void put_narrowed(struct lb_sha256 *hash, const struct lb_wire_tensor *tensor) {
    int32_t chunk[1024];
    size_t n = tensor->bytes / sizeof(int64_t), used = 0;
    for (size_t i = 0; i < n; i++) {
        int64_t v;
        memcpy(&v, (const uint8_t *)tensor->data + i * sizeof v, sizeof v);
        chunk[used++] = (int32_t)v;
        if (used == sizeof chunk / sizeof chunk[0] || i + 1 == n) {
            lb_sha256_update(hash, chunk, used * sizeof chunk[0]);
            used = 0;
        }
    }
}

static void put_input(struct lb_sha256 *hash, const struct lb_wire_tensor *tensor) {
    bool narrow = tensor->datatype == LB_DT_INT64 && fits_int32(tensor);
    put_string(hash, tensor->name);
    put_string(hash, lb_datatype_name(narrow ? LB_DT_INT32 : tensor->datatype));
    lb_sha256_u32(hash, (uint32_t)tensor->n_dims);
    for (int i = 0; i < tensor->n_dims; i++) {
        lb_sha256_u64(hash, (uint64_t)tensor->dim[i]);
    }
    if (narrow) {
        put_narrowed(hash, tensor);
    } else if (tensor->bytes > 0) {
        lb_sha256_update(hash, tensor->data, tensor->bytes);
    }
}

/* The datatype that is answered when none is asked for. */
static enum lb_datatype own_datatype(const char *name) {
    struct lb_output_name output;
    bool known = lb_output_parse(name, &output, NULL) == LB_OK;
    return known ? lb_output_get(output.kind)->own : LB_DT_NONE;
}

static void put_output(struct lb_sha256 *hash, const struct lb_wire_output *output) {
    put_string(hash, output->name);
    put_string(hash, lb_datatype_name(output->datatype ? output->datatype : own_datatype(output->name)));
}

enum lb_status lb_request_digest(const char *fingerprint, const struct lb_infer_request *request,
                                 char out[LB_SHA256_HEX]) {
    assert(request->n_inputs <= LB_MAX_TENSORS && request->n_outputs <= LB_MAX_TENSORS);
    const char *name[LB_MAX_TENSORS];
    size_t order[LB_MAX_TENSORS];
    out[0] = '\0';
    struct lb_sha256 *hash = lb_sha256_create();
    if (!hash) {
        return LB_E_NOMEM;
    }
    put_string(hash, LB_DIGEST_FORMAT);
    put_string(hash, fingerprint);
    uint64_t temperature;
    memcpy(&temperature, &request->temperature, sizeof temperature);
    lb_sha256_u64(hash, (uint64_t)request->top_k);
    lb_sha256_u64(hash, temperature);
    lb_sha256_u64(hash, (uint64_t)request->sample_count);
    lb_sha256_u64(hash, request->seed);

    for (size_t i = 0; i < request->n_inputs; i++) {
        name[i] = request->inputs[i].name;
    }
    sort_names(request->n_inputs, name, order);
    lb_sha256_u32(hash, (uint32_t)request->n_inputs);
    for (size_t i = 0; i < request->n_inputs; i++) {
        put_input(hash, &request->inputs[order[i]]);
    }

    for (size_t i = 0; i < request->n_outputs; i++) {
        name[i] = request->outputs[i].name;
    }
    sort_names(request->n_outputs, name, order);
    lb_sha256_u32(hash, (uint32_t)request->n_outputs);
    for (size_t i = 0; i < request->n_outputs; i++) {
        put_output(hash, &request->outputs[order[i]]);
    }
    if (request->sample_temperature > 0) { /* others' digests stay what they were */
        put_string(hash, "sample_temperature");
        memcpy(&temperature, &request->sample_temperature, sizeof temperature);
        lb_sha256_u64(hash, temperature);
    }
    if (request->vocab_map) {
        put_string(hash, "vocab_map");
        put_string(hash, request->vocab_map);
    }
    uint8_t digest[LB_SHA256_BYTES];
    lb_sha256_final(hash, digest);
    lb_hex(digest, sizeof digest, out);
    return LB_OK;
}
