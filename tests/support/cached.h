/* What tests of the cache share: a folder for each test, and answers that a seed decides. Failures end the
 * test. */
#ifndef LB_TESTS_CACHED_H
#define LB_TESTS_CACHED_H

#include "trainer/cache/cache.h"

#define CACHED_SPACIOUS (64ull << 20)

/* cmocka's: a folder, in memory where there is such a place. */
int cached_setup(void **state);
int cached_teardown(void **state);
const char *cached_dir(void **state);

void cached_must(enum lb_status status, const struct lb_detail *detail);
struct lb_cache *cached_open(const char *dir, uint64_t max_bytes);

/* An answer of two tensors that seed decides; compressible or not. Its data is of n positions and 100
 * columns. */
struct cached {
    uint16_t hidden[64 * 100];
    float lse[64];
    struct lb_answer answer;
    uint8_t key[LB_SHA256_BYTES];
};
void cached_make(struct cached *made, uint64_t seed, int64_t n, bool compressible);
enum lb_status cached_put(struct lb_cache *cache, const struct cached *made, struct lb_detail *detail);
/* LB_OK when the cache has exactly this; whatever else it has under the key fails. */
enum lb_status cached_get(struct lb_cache *cache, const struct cached *made, struct lb_detail *detail);

#endif
