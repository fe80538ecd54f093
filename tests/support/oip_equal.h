/* Whether two decoded requests or answers say the same, bit for bit; names what differs. For unit and fuzz
 * tests. */
#ifndef LB_TESTS_OIP_EQUAL_H
#define LB_TESTS_OIP_EQUAL_H

#include "proto/oip.h"

#include <stddef.h>
#include <string.h>

static inline bool oip_same_text(const char *a, const char *b) {
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* NULL when equal. */
static inline const char *oip_tensor_difference(const struct lb_wire_tensor *a,
                                                const struct lb_wire_tensor *b) {
    if (!oip_same_text(a->name, b->name)) {
        return "a tensor's name";
    }
    if (a->datatype != b->datatype || a->binary != b->binary) {
        return "a tensor's datatype or form";
    }
    if (a->n_dims != b->n_dims || memcmp(a->dim, b->dim, (size_t)a->n_dims * sizeof a->dim[0]) != 0) {
        return "a tensor's shape";
    }
    if (a->bytes != b->bytes || (a->bytes > 0 && memcmp(a->data, b->data, a->bytes) != 0)) {
        return "a tensor's bytes";
    }
    return NULL;
}

static inline const char *oip_request_difference(const struct lb_infer_request *a,
                                                 const struct lb_infer_request *b) {
    if (!oip_same_text(a->id, b->id)) {
        return "id";
    }
    if (a->top_k != b->top_k || a->temperature != b->temperature || a->timeout_us != b->timeout_us ||
        a->priority != b->priority || a->sample_count != b->sample_count || a->seed != b->seed ||
        a->sample_temperature != b->sample_temperature || !oip_same_text(a->vocab_map, b->vocab_map) ||
        a->binary_default != b->binary_default) {
        return "a parameter";
    }
    if (a->n_inputs != b->n_inputs || a->n_outputs != b->n_outputs) {
        return "the number of inputs or outputs";
    }
    for (size_t i = 0; i < a->n_outputs; i++) {
        if (!oip_same_text(a->outputs[i].name, b->outputs[i].name) ||
            a->outputs[i].binary != b->outputs[i].binary ||
            a->outputs[i].datatype != b->outputs[i].datatype) {
            return "an output";
        }
    }
    for (size_t i = 0; i < a->n_inputs; i++) {
        const char *difference = oip_tensor_difference(&a->inputs[i], &b->inputs[i]);
        if (difference) {
            return difference;
        }
    }
    return NULL;
}

static inline const char *oip_response_difference(const struct lb_infer_response *a,
                                                  const struct lb_infer_response *b) {
    if (!oip_same_text(a->id, b->id) || !oip_same_text(a->model_name, b->model_name) ||
        !oip_same_text(a->model_version, b->model_version)) {
        return "id, model_name or model_version";
    }
    if (a->top_k != b->top_k || a->temperature != b->temperature) {
        return "top_k or temperature";
    }
    if (strcmp(a->compute ? a->compute : "", b->compute ? b->compute : "") != 0) {
        return "compute";
    }
    if (strcmp(a->vocab_map ? a->vocab_map : "", b->vocab_map ? b->vocab_map : "") != 0) {
        return "vocab_map";
    }
    if (a->n_outputs != b->n_outputs) {
        return "the number of outputs";
    }
    for (size_t i = 0; i < a->n_outputs; i++) {
        const char *difference = oip_tensor_difference(&a->outputs[i], &b->outputs[i]);
        if (difference) {
            return difference;
        }
    }
    return NULL;
}

#endif
