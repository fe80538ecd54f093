/* The bytes of a cached value: header, checksum, compression, and an answer's tensors packed into one run of
 * bytes.
 *
 * Header (40 bytes, little-endian): u32 magic "LBCA", u16 version, u16 flags (1: the payload is a zstd
 * frame), u64 raw_bytes, u64 tokens, u64 payload_bytes, u64 checksum; then the payload. The checksum (XXH64)
 * covers the name under which the value is stored, the header's numbers and the payload: neither a flipped
 * bit nor a value under a wrong key passes. Pure functions: any thread.
 */
#ifndef LB_CACHE_VALUE_H
#define LB_CACHE_VALUE_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "trainer/wire/answer.h"

struct lb_cache_header {
    uint32_t magic;
    uint16_t version, flags;
    uint64_t raw_bytes, tokens, payload_bytes, checksum;
};

/* Appends header and payload (raw, compressed at zstd level 1 when that is smaller) to out. LB_E_NOMEM or
 * LB_E_LIMIT. */
enum lb_status lb_cache_value_make(const void *name, size_t name_len, const void *raw, size_t len,
                                   uint64_t tokens, struct lb_buf *out);
/* Reads and checks a value; *payload points into it. NULL when all is well, else what is wrong with it
 * ("fails its checksum"); the header then holds what could be read. */
const char *lb_cache_value_check(const void *name, size_t name_len, const void *value, size_t len,
                                 struct lb_cache_header *h, const void **payload);
/* Writes the h->raw_bytes bytes of a checked value to raw; false when the payload does not unpack to them. */
bool lb_cache_value_inflate(const struct lb_cache_header *h, const void *payload, void *raw);

/* Whether a stored answer is whole and says what a teacher can say; true where memory is too short to tell.
 */
bool lb_cache_value_good(const void *key, size_t key_len, const void *value, size_t len);

/* An answer as bytes: u32 count; for each tensor u16 name length, name, u8 datatype, u8 n_dims, u64 dims, u64
 * bytes; then the data of all. */
enum lb_status lb_cache_answer_pack(const struct lb_answer *answer, struct lb_buf *out);
/* pack + make under the key. */
enum lb_status lb_cache_answer_value(const uint8_t key[LB_SHA256_BYTES], const struct lb_answer *answer,
                                     struct lb_buf *out, uint64_t *out_raw_bytes);
/* And back, from a checked value: the tensors lie in arena. LB_E_FORMAT when it is no packed answer,
 * LB_E_NOMEM. */
enum lb_status lb_cache_answer_inflate(const struct lb_cache_header *h, const void *payload,
                                       struct lb_arena *arena, struct lb_answer *out);
/* Positions that an answer is about, as far as it says: a sentence's embedding alone counts as one. */
uint64_t lb_cache_answer_tokens(const struct lb_answer *answer);

/* LB_E_NOMEM: all zero, the key of nothing. */
enum lb_status lb_cache_key(const char *identity, const struct lb_sample *sample, int64_t n_features,
                            const struct lb_ask_spec *spec, uint8_t out[LB_SHA256_BYTES]);

#endif
