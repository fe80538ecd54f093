/* Answers on disk: LMDB, one entry per (teacher, sequence, what was asked), shared by processes, compressed
 * and checksummed.
 *
 * key = SHA-256(fingerprint, ids or features, outputs with datatypes, top_k, temperature). A value that fails
 * its checksum is reported and treated as missing.
 */
#ifndef LB_CACHE_CACHE_H
#define LB_CACHE_CACHE_H

#include "trainer/cache/value.h"
#include "trainer/wire/answer.h"

struct lb_cache;

/* Opens or creates the folder; max_bytes bounds it: when full, the oldest entries make room. */
LB_NODISCARD enum lb_status lb_cache_open(const char *dir, uint64_t max_bytes, struct lb_cache **out,
                                          struct lb_detail *detail);
void lb_cache_close(struct lb_cache *cache);

/* LB_E_NOTFOUND on a miss. The answer's data lies in arena. */
LB_NODISCARD enum lb_status lb_cache_get(struct lb_cache *cache, const uint8_t key[LB_SHA256_BYTES],
                                         struct lb_arena *arena, struct lb_answer *out,
                                         struct lb_detail *detail);
/* Puts n answers in one transaction. */
LB_NODISCARD enum lb_status lb_cache_put(struct lb_cache *cache, const uint8_t (*keys)[LB_SHA256_BYTES],
                                         const struct lb_answer *const *answers, size_t n,
                                         struct lb_detail *detail);
/* Whole values under names of their own (teacher infos, heads), so that a filled cache trains without
 * teachers. */
LB_NODISCARD enum lb_status lb_cache_get_blob(struct lb_cache *cache, const char *name, struct lb_buf *out,
                                              struct lb_detail *detail);
LB_NODISCARD enum lb_status lb_cache_put_blob(struct lb_cache *cache, const char *name, const void *bytes,
                                              size_t len, struct lb_detail *detail);

struct lb_cache_stats {
    uint64_t entries, blobs, stored_bytes, raw_bytes, file_bytes, max_bytes, tokens;
};
LB_NODISCARD enum lb_status lb_cache_stats(struct lb_cache *cache, struct lb_cache_stats *out,
                                           struct lb_detail *detail);
/* Reads every entry; *out_bad of them failed their checksum (they are removed when repair is set). */
LB_NODISCARD enum lb_status lb_cache_verify(struct lb_cache *cache, bool repair, uint64_t *out_entries,
                                            uint64_t *out_bad, struct lb_detail *detail);

#endif
