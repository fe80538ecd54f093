#include "common/base/sha256.h"

#include "common/base/mem.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <string.h>

struct lb_sha256 {
    EVP_MD_CTX *ctx;
    bool failed; /* sticky; the digest is then all zero, as for a hash that could not be made */
};

struct lb_sha256 *lb_sha256_create(void) {
    struct lb_sha256 *hash = lb_calloc(1, sizeof *hash);
    if (hash == NULL) {
        return NULL;
    }
    hash->ctx = EVP_MD_CTX_new();
    if (hash->ctx == NULL || EVP_DigestInit_ex(hash->ctx, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(hash->ctx);
        lb_free(hash);
        return NULL;
    }
    return hash;
}

void lb_sha256_update(struct lb_sha256 *hash, const void *bytes, size_t len) {
    if (hash != NULL && len > 0 && EVP_DigestUpdate(hash->ctx, bytes, len) != 1) {
        hash->failed = true;
    }
}

static void update_le(struct lb_sha256 *hash, uint64_t v, size_t len) {
    uint8_t bytes[8];
    for (size_t i = 0; i < len; i++) {
        bytes[i] = (uint8_t)(v >> (8 * i));
    }
    lb_sha256_update(hash, bytes, len);
}

void lb_sha256_u32(struct lb_sha256 *hash, uint32_t v) {
    update_le(hash, v, 4);
}

void lb_sha256_u64(struct lb_sha256 *hash, uint64_t v) {
    update_le(hash, v, 8);
}

void lb_sha256_final(struct lb_sha256 *hash, uint8_t out[LB_SHA256_BYTES]) {
    unsigned len = 0;
    if (hash == NULL || EVP_DigestFinal_ex(hash->ctx, out, &len) != 1 || hash->failed) {
        memset(out, 0, LB_SHA256_BYTES);
    }
    if (hash != NULL) {
        EVP_MD_CTX_free(hash->ctx);
        lb_free(hash);
    }
}

void lb_sha256(const void *bytes, size_t len, uint8_t out[LB_SHA256_BYTES]) {
    if (EVP_Digest(len > 0 ? bytes : "", len, out, NULL, EVP_sha256(), NULL) != 1) {
        memset(out, 0, LB_SHA256_BYTES);
    }
}

static const char digits[] = "0123456789abcdef";

void lb_hex(const uint8_t *bytes, size_t len, char *out) {
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * len] = '\0';
}

bool lb_begins_hex(const char *text, size_t n) {
    return strspn(text, digits) >= n;
}
