/* The Open Inference Protocol (KServe v2 REST) with the binary tensor extension: one codec for both sides.
 *
 * A body is a JSON object, followed, when some tensors are binary, by their raw little-endian bytes in the
 * order in which they appear in the JSON; the header Inference-Header-Content-Length then gives the JSON's
 * length. Decoding checks everything (names, datatypes, shapes multiplied with overflow checks, byte sums)
 * before anything is trusted. Decoded structs point into the body or the arena; both must outlive them. See
 * PROTOCOL.md.
 */
#ifndef LB_PROTO_OIP_H
#define LB_PROTO_OIP_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/sha256.h"
#include "common/base/status.h"
#include "proto/datatype.h"
#include "proto/limits.h"

#include <stdbool.h>
#include <stdint.h>

#define LB_HEADER_JSON_LENGTH "Inference-Header-Content-Length"
/* The number of what Limbeck adds to the protocol (names of outputs, parameters, digests and what they mean).
 */
#define LB_WIRE_VERSION 1
/* What a request's digest begins with: another number when what is hashed, or how, changes. */
#define LB_DIGEST_FORMAT "limbeck-request-1"
#define LB_HEADER_DIGEST "Limbeck-Request-Digest" /* value: sha-256=<64 hex> */

struct lb_wire_output {
    const char *name;
    bool binary;
    enum lb_datatype datatype; /* the output parameter "dtype"; LB_DT_NONE: the output's own */
};

struct lb_infer_request {
    const char *id;            /* NULL: none */
    int64_t top_k;             /* LB_DEFAULT_TOP_K when not given */
    double temperature;        /* 1 when not given */
    uint64_t timeout_us;       /* 0: none */
    int64_t priority;          /* 0: default; 1 is the highest */
    int64_t sample_count;      /* 0 */
    uint64_t seed;             /* 0; below 2^63 on the wire */
    double sample_temperature; /* of the draws; 0: not given, the same as temperature */
    const char *vocab_map; /* the ids that distributions are over, by the digest that they were sent under;
                              NULL: all */
    bool answer_digest;    /* the answer ends with its digest */
    size_t n_inputs, n_outputs;
    struct lb_wire_tensor *inputs;
    struct lb_wire_output
        *outputs; /* none given: n_outputs 0, and binary_default tells how to send the default ones */
    bool binary_default;
};

struct lb_infer_response {
    const char *model_name, *model_version; /* version: the fingerprint; "": none */
    const char *id;                         /* NULL: none */
    int64_t top_k;                          /* echoed when > 0 */
    double temperature; /* echoed: what was applied; 0: not stated (another server's answer) */
    const char
        *compute; /* what computed it (64 hex digits, PROTOCOL.md "Identity"); "" or NULL: not stated */
    const char *vocab_map; /* echoed: what its distributions are over; "" or NULL: all ids */
    /* The request's digest (64 hex digits): the answer ends with its own; NULL: it has none. Encoding only.
     */
    const char *digest_of;
    size_t n_outputs;
    struct lb_wire_tensor *outputs;
};

/* json_len: the value of Inference-Header-Content-Length, or -1 when the header is absent (the whole body is
 * JSON). JSON tensors are converted into arena memory. Unknown parameters are ignored unless they are of a
 * wrong type. */
LB_NODISCARD enum lb_status lb_infer_request_decode(const void *body, size_t len, int64_t json_len,
                                                    struct lb_arena *arena, struct lb_infer_request *out,
                                                    struct lb_detail *detail);
/* Appends JSON and binary tensors; *out_json_len is the JSON's length, to be sent as the header when any
 * tensor is binary. */
LB_NODISCARD enum lb_status lb_infer_request_encode(const struct lb_infer_request *request,
                                                    struct lb_buf *body, size_t *out_json_len,
                                                    struct lb_detail *detail);

/* Whether the text is the name of a vocabulary map: 64 hex digits, lower case. */
bool lb_is_vocab_map(const char *text);

LB_NODISCARD enum lb_status lb_infer_response_decode(const void *body, size_t len, int64_t json_len,
                                                     struct lb_arena *arena, struct lb_infer_response *out,
                                                     struct lb_detail *detail);
/* Appends the JSON part only: FP32 numbers so that they read back to the same bits; non-finite ones are
 * LB_E_UNSUPPORTED ("ask for binary_data"). When some tensor is binary, there are at most LB_MAX_JSON_BYTES
 * (LB_E_LIMIT), and spaces make the length a multiple of 8, so that the first of them is aligned. The caller
 * sends the binary tensors' bytes after it, in order, and where digest_of is set, lb_answer_digest's behind
 * them; an answer that is all JSON ends with its digest already. */
LB_NODISCARD enum lb_status lb_infer_response_head(const struct lb_infer_response *response,
                                                   struct lb_buf *head, struct lb_detail *detail);

/* SHA-256 over what was asked, independent of how it was written: fingerprint, inputs (INT64 ids as INT32)
 * and outputs sorted by name, top_k, temperature, sample_count, seed, sample_temperature, vocab_map. Both
 * sides compute it; see PROTOCOL.md "Digest". LB_E_NOMEM is the only failure; out is "" then, and nothing may
 * be looked up or compared by it.
 */
enum lb_status lb_request_digest(const char *fingerprint, const struct lb_infer_request *request,
                                 char out[LB_SHA256_HEX]);

/* What ends a binary answer, as the last tensor: SHA-256 over digest_of and all bytes before it, head [len]
 * being what lb_infer_response_head wrote. See PROTOCOL.md "Digest". LB_E_NOMEM is the only failure. */
LB_NODISCARD enum lb_status lb_answer_digest(const struct lb_infer_response *response, const void *head,
                                             size_t len, uint8_t out[LB_SHA256_BYTES]);
/* The same piece by piece, for tensors that are made while they are sent: everything of the body is still to
 * be added; the caller's (lb_sha256_final). NULL: out of memory. */
struct lb_sha256 *lb_answer_digest_begin(const struct lb_infer_response *response);
/* Ends head, a JSON object from byte start on but for its last brace, with its digest as the last member: an
 * answer that is all JSON, or metadata (which answer no request that has a digest: ""). */
LB_NODISCARD enum lb_status lb_answer_digest_put(struct lb_buf *head, size_t start,
                                                 const char *request_digest, struct lb_detail *detail);
/* Whether a body, as it was received (json_len as for decoding), ends with its digest as the answer to the
 * request of that digest. LB_E_FORMAT when it doesn't: nothing in it may be used. */
LB_NODISCARD enum lb_status lb_answer_digest_check(const void *body, size_t len, int64_t json_len,
                                                   const char *request_digest, struct lb_detail *detail);

#endif
