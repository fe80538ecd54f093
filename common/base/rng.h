/* Random numbers with explicit state: xoshiro256** seeded by splitmix64. The struct is plain data, so a
 * checkpoint stores it as four 64-bit words and a resumed run goes on with the same stream.
 */
#ifndef LB_BASE_RNG_H
#define LB_BASE_RNG_H

#include <stdint.h>

struct lb_rng {
    uint64_t s[4];
};

/* The splitmix64 finaliser: a bijective mix of 64 bits. */
uint64_t lb_mix64(uint64_t x);
/* Streams with different (seed, stream) are independent for all practical purposes. */
void lb_rng_seed(struct lb_rng *rng, uint64_t seed, uint64_t stream);
uint64_t lb_rng_u64(struct lb_rng *rng);
/* Uniform in [0, 1) with 24 random bits. */
float lb_rng_float(struct lb_rng *rng);
/* Uniform in [0, 1) with 53 random bits. */
double lb_rng_double(struct lb_rng *rng);
/* Uniform in [0, n), n > 0, without modulo bias. */
uint64_t lb_rng_below(struct lb_rng *rng, uint64_t n);
/* Standard normal (Box-Muller; keeps no second value, so the state is the whole state). */
double lb_rng_normal(struct lb_rng *rng);
/* Fisher-Yates over n 32-bit items. */
void lb_rng_shuffle(struct lb_rng *rng, uint32_t *items, uint64_t n);

#endif
