/* rng and sha256. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/base/sha256.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The first numbers that the authors' splitmix64 gives from the state 1234567. */
static const uint64_t splitmix_1234567[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                            4593380528125082431u, 16408922859458223821u};
/* The first numbers of xoshiro256** from the state {1, 2, 3, 4}. */
static const uint64_t xoshiro_1234[] = {11520,
                                        0,
                                        1509978240,
                                        1215971899390074240,
                                        1216172134540287360,
                                        607988272756665600,
                                        16172922978634559625u};

static void known_vectors(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 5; i++) {
        assert_int_equal(lb_mix64(1234567 + (i + 1) * 0x9e3779b97f4a7c15u), splitmix_1234567[i]);
    }
    struct lb_rng rng;
    lb_rng_seed(&rng, 1234567, 0);
    assert_memory_equal(rng.s, splitmix_1234567, sizeof rng.s);
    rng = (struct lb_rng){{1, 2, 3, 4}};
    for (size_t i = 0; i < sizeof xoshiro_1234 / sizeof *xoshiro_1234; i++) {
        assert_int_equal(lb_rng_u64(&rng), xoshiro_1234[i]);
    }
}

/* xoshiro256** once more, from its definition as a linear map on 256 bits: every bit of the next state is the
 * sum modulo 2 of named bits of the old one. Slow, and shares no line with the implementation. */
static bool bit(const uint64_t s[4], unsigned word, int at) {
    return at >= 0 && (s[word] >> at & 1) != 0;
}

static void slow_step(uint64_t s[4]) {
    uint64_t next[4] = {0};
    for (int b = 0; b < 64; b++) {
        bool a = bit(s, 0, b) ^ bit(s, 1, b) ^ bit(s, 3, b);
        bool c = bit(s, 0, b) ^ bit(s, 1, b) ^ bit(s, 2, b);
        bool d = bit(s, 0, b) ^ bit(s, 2, b) ^ bit(s, 1, b - 17);
        int from = (b + 64 - 45) % 64;
        bool e = bit(s, 1, from) ^ bit(s, 3, from);
        next[0] |= (uint64_t)a << b;
        next[1] |= (uint64_t)c << b;
        next[2] |= (uint64_t)d << b;
        next[3] |= (uint64_t)e << b;
    }
    memcpy(s, next, sizeof next);
}

static uint64_t slow_output(const uint64_t s[4]) {
    uint64_t five = s[1] + s[1] + s[1] + s[1] + s[1];
    unsigned __int128 shifted = (unsigned __int128)five << 7;
    uint64_t turned = (uint64_t)shifted + (uint64_t)(shifted >> 64);
    return (turned << 3) + turned;
}

static void agrees_with_the_definition(void **state) {
    (void)state;
    struct lb_rng rng;
    lb_rng_seed(&rng, 0xfeedface, 77);
    for (int i = 0; i < 1000; i++) {
        uint64_t expected = slow_output(rng.s);
        uint64_t s[4];
        memcpy(s, rng.s, sizeof s);
        slow_step(s);
        assert_int_equal(lb_rng_u64(&rng), expected);
        assert_memory_equal(rng.s, s, sizeof s);
    }
}

static void streams_differ_and_repeat(void **state) {
    (void)state;
    enum { N = 64 };
    uint64_t first[N];
    for (uint64_t i = 0; i < N; i++) {
        struct lb_rng rng;
        lb_rng_seed(&rng, i % 8, i / 8);
        first[i] = lb_rng_u64(&rng);
        struct lb_rng same;
        lb_rng_seed(&same, i % 8, i / 8);
        assert_int_equal(lb_rng_u64(&same), first[i]);
        for (uint64_t j = 0; j < i; j++) {
            assert_int_not_equal(first[i], first[j]);
        }
    }
}

static void state_is_the_whole_state(void **state) {
    (void)state;
    struct lb_rng a;
    lb_rng_seed(&a, 5, 6);
    lb_rng_normal(&a);
    struct lb_rng b = a;
    for (int i = 0; i < 10; i++) {
        assert_true(lb_rng_normal(&a) == lb_rng_normal(&b));
        assert_int_equal(lb_rng_below(&a, 3), lb_rng_below(&b, 3));
    }
}

static void uniform_stays_inside(void **state) {
    (void)state;
    struct lb_rng rng;
    lb_rng_seed(&rng, 1, 0);
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        float f = lb_rng_float(&rng);
        double d = lb_rng_double(&rng);
        assert_true(f >= 0.0f && f < 1.0f);
        assert_true(d >= 0.0 && d < 1.0);
        sum += d;
    }
    assert_true(fabs(sum / 100000 - 0.5) < 0.005); /* 5 standard errors */
    /* The largest words: below 1 in both widths. */
    struct lb_rng top = {{0, 0, 0, 0}};
    assert_true(lb_rng_float(&top) == 0.0f);
    assert_true((float)(UINT64_MAX >> 40) * 0x1p-24f < 1.0f);
}

static void below_has_no_bias(void **state) {
    (void)state;
    struct lb_rng rng;
    lb_rng_seed(&rng, 2, 0);
    long counts[7] = {0};
    for (int i = 0; i < 70000; i++) {
        counts[lb_rng_below(&rng, 7)]++;
    }
    for (int i = 0; i < 7; i++) {
        assert_true(labs(counts[i] - 10000) < 500);
    }
    /* At 3 * 2^62 plain modulo would give a value of the lower third twice as often. */
    uint64_t n = 3ull << 62;
    int low = 0;
    for (int i = 0; i < 30000; i++) {
        uint64_t v = lb_rng_below(&rng, n);
        assert_true(v < n);
        low += v < n / 3 ? 1 : 0;
    }
    assert_true(abs(low - 10000) < 500);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(lb_rng_below(&rng, 1), 0);
    }
}

static void normal_has_its_moments(void **state) {
    (void)state;
    struct lb_rng rng;
    lb_rng_seed(&rng, 3, 0);
    double sum = 0;
    double squares = 0;
    double fourth = 0;
    const int n = 200000;
    for (int i = 0; i < n; i++) {
        double x = lb_rng_normal(&rng);
        assert_true(isfinite(x));
        sum += x;
        squares += x * x;
        fourth += x * x * x * x;
    }
    assert_true(fabs(sum / n) < 0.012);
    assert_true(fabs(squares / n - 1) < 0.02);
    assert_true(fabs(fourth / n - 3) < 0.15);
}

static void shuffle_is_a_fair_permutation(void **state) {
    (void)state;
    struct lb_rng rng;
    lb_rng_seed(&rng, 4, 0);
    long at_first[5] = {0};
    for (int i = 0; i < 50000; i++) {
        uint32_t items[] = {0, 1, 2, 3, 4};
        lb_rng_shuffle(&rng, items, 5);
        unsigned seen = 0;
        for (int j = 0; j < 5; j++) {
            seen |= 1u << items[j];
        }
        assert_int_equal(seen, 31);
        at_first[items[0]]++;
    }
    for (int i = 0; i < 5; i++) {
        assert_true(labs(at_first[i] - 10000) < 500);
    }
    struct lb_rng before = rng;
    lb_rng_shuffle(&rng, NULL, 0);
    uint32_t one = 9;
    lb_rng_shuffle(&rng, &one, 1);
    assert_int_equal(one, 9);
    assert_memory_equal(&before, &rng, sizeof rng); /* nothing to choose, nothing drawn */
}

/* ---- sha256 ---- */

static void assert_digest(const uint8_t digest[LB_SHA256_BYTES], const char *hex) {
    char text[LB_SHA256_HEX];
    lb_hex(digest, LB_SHA256_BYTES, text);
    assert_string_equal(text, hex);
}

static void digests_of_the_standard(void **state) {
    (void)state;
    uint8_t digest[LB_SHA256_BYTES];
    lb_sha256("abc", 3, digest);
    assert_digest(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    lb_sha256(NULL, 0, digest);
    assert_digest(digest, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    struct lb_sha256 *hash = lb_sha256_create();
    for (int i = 0; i < 1000; i++) {
        char block[1000];
        memset(block, 'a', sizeof block);
        lb_sha256_update(hash, block, sizeof block);
    }
    lb_sha256_update(hash, NULL, 0);
    lb_sha256_final(hash, digest);
    assert_digest(digest, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void numbers_are_little_endian(void **state) {
    (void)state;
    struct lb_sha256 *hash = lb_sha256_create();
    lb_sha256_u32(hash, 0x04030201);
    lb_sha256_u64(hash, 0x0c0b0a0908070605);
    uint8_t a[LB_SHA256_BYTES];
    uint8_t b[LB_SHA256_BYTES];
    lb_sha256_final(hash, a);
    lb_sha256("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c", 12, b);
    assert_memory_equal(a, b, sizeof a);
}

static void hash_without_memory_is_zero(void **state) {
    (void)state;
    uint8_t digest[LB_SHA256_BYTES];
    memset(digest, 7, sizeof digest);
    lb_mem_fail_from(1);
    struct lb_sha256 *hash = lb_sha256_create();
    lb_mem_fail_from(0);
    assert_null(hash);
    lb_sha256_final(hash, digest);
    for (size_t i = 0; i < sizeof digest; i++) {
        assert_int_equal(digest[i], 0);
    }
    char hex[5];
    lb_hex((const uint8_t *)"\x00\xfa", 2, hex);
    assert_string_equal(hex, "00fa");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_vectors),
        cmocka_unit_test(agrees_with_the_definition),
        cmocka_unit_test(streams_differ_and_repeat),
        cmocka_unit_test(state_is_the_whole_state),
        cmocka_unit_test(uniform_stays_inside),
        cmocka_unit_test(below_has_no_bias),
        cmocka_unit_test(normal_has_its_moments),
        cmocka_unit_test(shuffle_is_a_fair_permutation),
        cmocka_unit_test(digests_of_the_standard),
        cmocka_unit_test(numbers_are_little_endian),
        cmocka_unit_test(hash_without_memory_is_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
