/* The digest that ends an answer: PROTOCOL.md "Digest". */
#include "proto/oip_wire.h"

#include <string.h>

/* An answer that is all JSON ends with this, the digest and that. */
#define TAIL ",\"" LB_WIRE_DIGEST "\":\""
#define END "\"}"
#define TAIL_BYTES (sizeof TAIL - 1 + LB_SHA256_HEX - 1 + sizeof END - 1)

static struct lb_sha256 *begin(const char *request_digest) {
    struct lb_sha256 *hash = lb_sha256_create();
    if (hash) {
        lb_sha256_update(hash, request_digest, strlen(request_digest));
    }
    return hash;
}

struct lb_sha256 *lb_answer_digest_begin(const struct lb_infer_response *response) {
    return begin(response->digest_of);
}

enum lb_status lb_answer_digest(const struct lb_infer_response *response, const void *head, size_t len,
                                uint8_t out[LB_SHA256_BYTES]) {
    struct lb_sha256 *hash = begin(response->digest_of);
    if (!hash) {
        return LB_E_NOMEM;
    }
    lb_sha256_update(hash, head, len);
    for (size_t i = 0; i < response->n_outputs; i++) {
        if (response->outputs[i].binary && response->outputs[i].bytes > 0) {
            lb_sha256_update(hash, response->outputs[i].data, response->outputs[i].bytes);
        }
    }
    lb_sha256_final(hash, out);
    return LB_OK;
}

/* Of bytes that lie together. */
static bool digest_of(const char *request_digest, const void *bytes, size_t len,
                      uint8_t out[LB_SHA256_BYTES]) {
    struct lb_sha256 *hash = begin(request_digest);
    if (hash) {
        lb_sha256_update(hash, bytes, len);
        lb_sha256_final(hash, out);
    }
    return hash != NULL;
}

static void write_tail(const uint8_t digest[LB_SHA256_BYTES], char out[TAIL_BYTES + 1]) {
    char hex[LB_SHA256_HEX];
    lb_hex(digest, LB_SHA256_BYTES, hex);
    memcpy(out, TAIL, sizeof TAIL - 1);
    memcpy(out + sizeof TAIL - 1, hex, LB_SHA256_HEX - 1);
    memcpy(out + TAIL_BYTES - (sizeof END - 1), END, sizeof END);
}

enum lb_status lb_answer_digest_put(struct lb_buf *head, size_t start, const char *request_digest,
                                    struct lb_detail *detail) {
    uint8_t digest[LB_SHA256_BYTES];
    char tail[TAIL_BYTES + 1];
    enum lb_status status = lb_wire_written(head, "the answer", detail);
    if (status == LB_OK && !digest_of(request_digest, head->data + start, head->len - start, digest)) {
        status = lb_fail(detail, LB_E_NOMEM, "answer: no memory left for its digest");
    }
    if (status == LB_OK) {
        write_tail(digest, tail);
        lb_buf_append_str(head, tail);
    }
    return status;
}

enum lb_status lb_answer_digest_check(const void *body, size_t len, int64_t json_len,
                                      const char *request_digest, struct lb_detail *detail) {
    bool binary = json_len >= 0;
    size_t at_end = binary ? LB_SHA256_BYTES : TAIL_BYTES;
    uint8_t digest[LB_SHA256_BYTES];
    char tail[TAIL_BYTES + 1];
    bool right = len > at_end;
    if (right && !digest_of(request_digest, body, len - at_end, digest)) {
        return lb_fail(detail, LB_E_NOMEM, "answer: no memory left for its digest");
    }
    if (right && !binary) {
        write_tail(digest, tail);
    }
    right = right &&
            memcmp((const char *)body + (len - at_end), binary ? (const void *)digest : tail, at_end) == 0;
    return right
               ? LB_OK
               : lb_fail(detail, LB_E_FORMAT,
                         "the answer's %zu bytes do not end with their digest: something in between changed "
                         "or mixed them up, or the server is too old to make one",
                         len);
}
