/* lb_infer_response_decode: whatever is accepted comes back the same when it is written and read again. An
 * input is 4 bytes little-endian, Inference-Header-Content-Length plus 1 (modulo what is possible), and the
 * body. */
#include "proto/oip.h"
#include "tests/support/oip_equal.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool truth) {
    if (!truth) {
        abort();
    }
}

/* Writes response, and reads that into *again. */
static void rewrite(const struct lb_infer_response *response, struct lb_buf *body, struct lb_arena *arena,
                    struct lb_infer_response *again) {
    require(lb_infer_response_head(response, body, NULL) == LB_OK);
    int64_t json_len = -1;
    size_t head = body->len;
    for (size_t i = 0; i < response->n_outputs; i++) {
        if (response->outputs[i].binary) {
            json_len = (int64_t)head;
            require(lb_buf_append(body, response->outputs[i].data, response->outputs[i].bytes) == LB_OK);
        }
    }
    require(lb_infer_response_decode(body->data, body->len, json_len, arena, again, NULL) == LB_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 4) {
        return 0;
    }
    uint32_t header = data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
    int64_t json_len = (int64_t)(header % (size - 4 + 2)) - 1;
    struct lb_arena arena;
    struct lb_buf body;
    lb_arena_init(&arena, 256u << 20);
    lb_buf_init(&body, LB_MAX_RESPONSE_BYTES);
    struct lb_infer_response response, again;
    struct lb_detail detail = {0};
    enum lb_status status =
        lb_infer_response_decode(data + 4, size - 4, json_len, &arena, &response, &detail);
    require(status == detail.code && (status == LB_OK) == (detail.text[0] == '\0'));
    require(strpbrk(detail.text, "\n\r\x1b") == NULL);
    if (status == LB_OK) {
        rewrite(&response, &body, &arena, &again);
        require(oip_response_difference(&response, &again) == NULL);
    }
    lb_buf_finish(&body);
    lb_arena_finish(&arena);
    return 0;
}
