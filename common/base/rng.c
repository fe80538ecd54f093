/* Sources: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014) for splitmix64;
 * Blackman, Vigna, "Scrambled linear pseudorandom number generators" (TOMS 2021) for xoshiro256**. */
#include "common/base/rng.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

static const uint64_t golden_gamma = 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio, odd */

uint64_t lb_mix64(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void lb_rng_seed(struct lb_rng *rng, uint64_t seed, uint64_t stream) {
    /* Stream 0 is the plain seeding; four outputs of a bijection at four points are never all zero. */
    uint64_t x = seed ^ lb_mix64(stream);
    for (size_t i = 0; i < 4; i++) {
        x += golden_gamma;
        rng->s[i] = lb_mix64(x);
    }
}

static uint64_t rotate_left(uint64_t x, unsigned k) {
    return (x << k) | (x >> (64 - k));
}

uint64_t lb_rng_u64(struct lb_rng *rng) {
    uint64_t *s = rng->s;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

float lb_rng_float(struct lb_rng *rng) {
    return (float)(lb_rng_u64(rng) >> 40) * 0x1p-24f;
}

double lb_rng_double(struct lb_rng *rng) {
    return (double)(lb_rng_u64(rng) >> 11) * 0x1p-53;
}

uint64_t lb_rng_below(struct lb_rng *rng, uint64_t n) {
    assert(n > 0);
    /* 2^64 mod n values at the low end are drawn again, so that each remainder is equally likely. */
    uint64_t least = (0 - n) % n;
    uint64_t r;
    do {
        r = lb_rng_u64(rng);
    } while (r < least);
    return r % n;
}

double lb_rng_normal(struct lb_rng *rng) {
    double u = 1.0 - lb_rng_double(rng); /* (0, 1]: the logarithm is finite */
    double v = lb_rng_double(rng);
    return sqrt(-2.0 * log(u)) * cos(2.0 * M_PI * v);
}

void lb_rng_shuffle(struct lb_rng *rng, uint32_t *items, uint64_t n) {
    for (uint64_t i = n; i > 1; i--) {
        uint64_t j = lb_rng_below(rng, i);
        uint32_t t = items[i - 1];
        items[i - 1] = items[j];
        items[j] = t;
    }
}
