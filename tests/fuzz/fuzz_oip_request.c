/* lb_infer_request_decode: whatever is accepted comes back the same, digest included, when it is written and
 * read again. An input is 4 bytes little-endian, Inference-Header-Content-Length plus 1 (modulo what is
 * possible), and the body. */
#include "proto/oip.h"
#include "tests/support/oip_equal.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool truth) {
    if (!truth) {
        abort();
    }
}

/* Writes request, and reads that into *again. */
static void rewrite(const struct lb_infer_request *request, struct lb_buf *body, struct lb_arena *arena,
                    struct lb_infer_request *again) {
    bool binary = false;
    for (size_t i = 0; i < request->n_inputs; i++) {
        binary = binary || request->inputs[i].binary;
    }
    size_t json_len;
    require(lb_infer_request_encode(request, body, &json_len, NULL) == LB_OK);
    require(binary || json_len == body->len);
    int64_t header = binary ? (int64_t)json_len : -1;
    require(lb_infer_request_decode(body->data, body->len, header, arena, again, NULL) == LB_OK);
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
    lb_buf_init(&body, LB_MAX_BODY_BYTES);
    struct lb_infer_request request, again;
    struct lb_detail detail = {0};
    enum lb_status status = lb_infer_request_decode(data + 4, size - 4, json_len, &arena, &request, &detail);
    require(status == detail.code && (status == LB_OK) == (detail.text[0] == '\0'));
    require(strpbrk(detail.text, "\n\r\x1b") == NULL);
    if (status == LB_OK) {
        char before[LB_SHA256_HEX], after[LB_SHA256_HEX];
        rewrite(&request, &body, &arena, &again);
        require(oip_request_difference(&request, &again) == NULL);
        require(lb_request_digest("fuzz", &request, before) == LB_OK);
        require(lb_request_digest("fuzz", &again, after) == LB_OK);
        require(strcmp(before, after) == 0);
    }
    lb_buf_finish(&body);
    lb_arena_finish(&arena);
    return 0;
}
