#include "tests/support/fake_spoil.h"

#include <string.h>

void fake_spoil(struct lb_infer_response *response, enum fake_fault fault) {
    struct lb_wire_tensor *first = &response->outputs[0];
    if (fault == FAKE_WRONG_SHAPE) {
        first->dim[1]--;
        first->bytes = (size_t)lb_wire_elements(first) * lb_datatype_bytes(first->datatype);
    } else if (fault == FAKE_WRONG_DATATYPE) {
        first->datatype = LB_DT_FP32;
        first->bytes = (size_t)lb_wire_elements(first) * 4;
    } else if (fault == FAKE_MISSING_OUTPUT) {
        response->n_outputs--;
    } else if (fault == FAKE_WILD_ID) {
        for (size_t j = 0; j < response->n_outputs; j++) {
            if (!strcmp(response->outputs[j].name, "logits.topk_ids")) {
                const int32_t wild = 1 << 20;
                memcpy((void *)(uintptr_t)response->outputs[j].data, &wild, sizeof wild);
            }
        }
    } else if (fault == FAKE_NAN) { /* hidden_states.final, FP16 */
        ((uint16_t *)(uintptr_t)first->data)[3] = 0x7e00;
    } else if (fault == FAKE_TWICE || fault == FAKE_LOW_SUM) {
        for (size_t j = 0; j < response->n_outputs; j++) {
            void *data = (void *)(uintptr_t)response->outputs[j].data;
            if (fault == FAKE_TWICE && !strcmp(response->outputs[j].name, "logits.topk_ids")) {
                ((int32_t *)data)[1] = ((int32_t *)data)[0];
            } else if (fault == FAKE_LOW_SUM && !strcmp(response->outputs[j].name, "logsumexp")) {
                ((float *)data)[0] = -50;
            }
        }
    } else if (fault == FAKE_WRONG_FINGERPRINT) {
        response->model_version = fake_other_fingerprint;
    } else if (fault == FAKE_WRONG_COMPUTE) {
        response->compute = fake_other_fingerprint;
    }
}

void fake_spoil_bytes(struct lb_buf *body, size_t at, const struct lb_infer_response *response,
                      enum fake_fault fault) {
    const struct lb_wire_tensor *first = &response->outputs[0],
                                *last = &response->outputs[response->n_outputs - 1];
    size_t half = first->bytes / (size_t)first->dim[0];
    if (fault == FAKE_FLIPPED) {
        body->data[at + first->bytes / 2] ^= 4;
    } else if (fault == FAKE_SWAPPED && first->dim[0] > 1) {
        for (size_t i = 0; i < half; i++) {
            char c = body->data[at + i];
            body->data[at + i] = body->data[at + half + i];
            body->data[at + half + i] = c;
        }
    } else if (fault == FAKE_ZEROED) {
        memset(body->data + body->len - LB_SHA256_BYTES - last->bytes, 0, last->bytes);
    } else if (fault == FAKE_WRONG_LENGTH) {
        body->len -= 2;
    }
}
