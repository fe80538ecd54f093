/* SHA-256 (FIPS 180-4) by OpenSSL: fingerprints, request digests, cache keys. */
#ifndef LB_BASE_SHA256_H
#define LB_BASE_SHA256_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LB_SHA256_BYTES 32
#define LB_SHA256_HEX 65 /* with the NUL */

struct lb_sha256; /* opaque */

/* NULL when out of memory; the functions below accept that, and the digest is zeroed. */
struct lb_sha256 *lb_sha256_create(void);
void lb_sha256_update(struct lb_sha256 *hash, const void *bytes, size_t len);
void lb_sha256_u32(struct lb_sha256 *hash, uint32_t v); /* little-endian */
void lb_sha256_u64(struct lb_sha256 *hash, uint64_t v); /* little-endian */
/* Writes the digest of everything so far and frees the state. Accepts NULL (digest zeroed). */
void lb_sha256_final(struct lb_sha256 *hash, uint8_t out[LB_SHA256_BYTES]);
/* One-shot; all zero when OpenSSL fails (out of memory), as lb_sha256_final. */
void lb_sha256(const void *bytes, size_t len, uint8_t out[LB_SHA256_BYTES]);
void lb_hex(const uint8_t *bytes, size_t len, char *out /* 2 * len + 1 */);
/* Whether the text begins with n digits as lb_hex writes them. */
bool lb_begins_hex(const char *text, size_t n);

#endif
