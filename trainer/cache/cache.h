/* Answers on disk: one SQLite file (cache.db) in a folder, an entry per (teacher, sequence, what was asked),
 * shared by processes, compressed and checksummed.
 *
 * key = SHA-256(identity, ids or features, outputs with datatypes, top_k, temperature, ...: lb_cache_key). A
 * value that fails its checksum is reported and treated as missing. A damaged, cut off or vanished file is an
 * error, never a crash: nothing is mapped, and SQLite checks each page that it reads. Commits reach the disk
 * (synchronous = NORMAL): a killed process or a power cut leaves the last good state.
 *
 * When the cache is full, what this run has used stays: a run whose data does not fit finds the same part of
 * it in every epoch, instead of chasing the part that was thrown out last. Older answers make room only while
 * they are of little use to this run.
 *
 * Threads: any; one at a time inside.
 */
#ifndef LB_CACHE_CACHE_H
#define LB_CACHE_CACHE_H

#include "trainer/cache/value.h"
#include "trainer/wire/answer.h"

#define LB_CACHE_FILE "cache.db"
/* The number of the file's format (its user_version): a file with another one is refused. 1 was another
 * library's. */
#define LB_CACHE_FORMAT 2
#define LB_CACHE_MIN_BYTES (1u << 20)

struct lb_cache;

/* Opens or creates the folder and the file in it; max_bytes bounds the file (0: what it was opened with
 * last). */
LB_NODISCARD enum lb_status lb_cache_open(const char *dir, uint64_t max_bytes, struct lb_cache **out,
                                          struct lb_detail *detail);
void lb_cache_close(struct lb_cache *cache);

/* Lookups up to release share one read transaction: the file is locked and looked at once, not once an entry.
 * Others' writing waits meanwhile, so only for a batch of lookups. Writing ends it too. Accept NULL. */
void lb_cache_hold(struct lb_cache *cache);
void lb_cache_release(struct lb_cache *cache);

/* LB_E_NOTFOUND on a miss. The answer's data lies in arena. */
LB_NODISCARD enum lb_status lb_cache_get(struct lb_cache *cache, const uint8_t key[LB_SHA256_BYTES],
                                         struct lb_arena *arena, struct lb_answer *out,
                                         struct lb_detail *detail);
/* Puts n answers in one transaction. LB_E_LIMIT when the cache is full of what this run uses, or can never
 * hold them: nothing was stored, nothing is lost. */
LB_NODISCARD enum lb_status lb_cache_put(struct lb_cache *cache, const uint8_t (*keys)[LB_SHA256_BYTES],
                                         const struct lb_answer *const *answers, size_t n,
                                         struct lb_detail *detail);
/* An answer that turned out to be of no use goes, so that a good one can come. */
void lb_cache_drop(struct lb_cache *cache, const uint8_t key[LB_SHA256_BYTES]);
/* Whole values under names of their own (teacher infos, heads, texts that they wrote), so that a filled cache
 * trains without teachers. */
LB_NODISCARD enum lb_status lb_cache_get_blob(struct lb_cache *cache, const char *name, struct lb_buf *out,
                                              struct lb_detail *detail);
LB_NODISCARD enum lb_status lb_cache_put_blob(struct lb_cache *cache, const char *name, const void *bytes,
                                              size_t len, struct lb_detail *detail);

struct lb_cache_stats {
    uint64_t entries, blobs, stored_bytes, raw_bytes, file_bytes, max_bytes, tokens;
};
LB_NODISCARD enum lb_status lb_cache_stats(struct lb_cache *cache, struct lb_cache_stats *out,
                                           struct lb_detail *detail);

/* What verification found: answers read, those that are damaged or cannot be true (removed when repair is
 * set), and whether the file itself is damaged (when repair is set, what could be read is in a new file now;
 * the old one is beside it as cache.db.damaged). */
struct lb_cache_report {
    uint64_t entries, bad;
    bool file_damaged;
};
/* The cache need not be open, and may be in use by others. LB_E_NOTFOUND without a cache in the folder;
 * LB_E_CANCELLED soon after *stop (may be NULL) became other than 0, and the cache is as it was. */
LB_NODISCARD enum lb_status lb_cache_verify(const char *dir, bool repair, const volatile sig_atomic_t *stop,
                                            struct lb_cache_report *out, struct lb_detail *detail);

#endif
