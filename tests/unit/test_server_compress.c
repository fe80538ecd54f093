/* gzip and deflate: round trips, damage, bombs, and which coding a header asks for. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/rng.h"
#include "server/http/compress.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define SIZE 200001

static uint8_t plain[SIZE];

static void fill(void) {
    struct lb_rng rng;
    lb_rng_seed(&rng, 1, 0);
    for (size_t i = 0; i < SIZE; i++) {
        plain[i] = (uint8_t)lb_rng_below(&rng, 17);
    }
}

static void pack(enum lb_coding coding, struct lb_buf *packed) {
    /* Spans of uneven sizes, one of them empty. */
    const struct lb_span spans[] = {
        {plain, 1}, {plain + 1, 0}, {plain + 1, 70000}, {plain + 70001, SIZE - 70001}};
    lb_buf_init(packed, SIZE * 2);
    assert_int_equal(lb_pack(coding, spans, 4, NULL, NULL, packed, NULL), LB_OK);
    assert_true(packed->len > 100 && packed->len < SIZE * 3 / 4);
}

static void test_round_trip(void **state) {
    (void)state;
    const enum lb_coding codings[] = {LB_CODING_GZIP, LB_CODING_DEFLATE};
    for (int i = 0; i < 2; i++) {
        struct lb_buf packed, out;
        pack(codings[i], &packed);
        lb_buf_init(&out, SIZE); /* exactly enough */
        assert_int_equal(lb_unpack(codings[i], packed.data, packed.len, NULL, NULL, &out, NULL), LB_OK);
        assert_int_equal(out.len, SIZE);
        assert_memory_equal(out.data, plain, SIZE);
        lb_buf_finish(&out);
        lb_buf_finish(&packed);
    }
}

static void test_raw_deflate(void **state) {
    (void)state;
    uint8_t raw[1024];
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = plain;
    z.avail_in = 500;
    z.next_out = raw;
    z.avail_out = sizeof raw;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    struct lb_buf out;
    lb_buf_init(&out, 500);
    assert_int_equal(lb_unpack(LB_CODING_DEFLATE, raw, z.total_out, NULL, NULL, &out, NULL), LB_OK);
    assert_int_equal(out.len, 500);
    assert_memory_equal(out.data, plain, 500);
    lb_buf_finish(&out);
    deflateEnd(&z);
}

static void test_damage(void **state) {
    (void)state;
    struct lb_buf packed, out;
    struct lb_detail detail = {0};
    pack(LB_CODING_GZIP, &packed);
    for (size_t len = 0; len < packed.len; len += len < 64 ? 1 : 7919) {
        lb_buf_init(&out, SIZE);
        assert_int_equal(lb_unpack(LB_CODING_GZIP, packed.data, len, NULL, NULL, &out, NULL), LB_E_FORMAT);
        lb_buf_finish(&out);
    }
    packed.data[packed.len - 6] ^= 1; /* the checksum */
    lb_buf_init(&out, SIZE + 1);
    assert_int_equal(lb_unpack(LB_CODING_GZIP, packed.data, packed.len, NULL, NULL, &out, &detail),
                     LB_E_FORMAT);
    assert_non_null(strstr(detail.text, "gzip"));
    packed.data[packed.len - 6] ^= 1;
    lb_buf_finish(&out);
    lb_buf_append(&packed, "x", 1);
    lb_buf_init(&out, SIZE);
    assert_int_equal(lb_unpack(LB_CODING_GZIP, packed.data, packed.len, NULL, NULL, &out, NULL), LB_E_FORMAT);
    lb_buf_finish(&out);
    lb_buf_finish(&packed);
}

static void test_bomb(void **state) {
    (void)state;
    static uint8_t zeros[1 << 20];
    const struct lb_span span = {zeros, sizeof zeros};
    struct lb_buf packed, out;
    lb_buf_init(&packed, 1 << 20);
    assert_int_equal(lb_pack(LB_CODING_GZIP, &span, 1, NULL, NULL, &packed, NULL), LB_OK);
    lb_buf_init(&out, sizeof zeros - 1); /* one byte short */
    assert_int_equal(lb_unpack(LB_CODING_GZIP, packed.data, packed.len, NULL, NULL, &out, NULL), LB_E_LIMIT);
    assert_true(out.len <= sizeof zeros - 1);
    lb_buf_finish(&out);
    lb_buf_finish(&packed);
    lb_buf_init(&packed, 10); /* packing has a limit too */
    assert_int_equal(lb_pack(LB_CODING_GZIP, &(struct lb_span){plain, SIZE}, 1, NULL, NULL, &packed, NULL),
                     LB_E_LIMIT);
    lb_buf_finish(&packed);
}

static void test_headers(void **state) {
    (void)state;
    assert_int_equal(lb_coding_parse(NULL), LB_CODING_IDENTITY);
    assert_int_equal(lb_coding_parse(" gzip "), LB_CODING_GZIP);
    assert_int_equal(lb_coding_parse("Deflate"), LB_CODING_DEFLATE);
    assert_int_equal(lb_coding_parse("br"), LB_CODING_UNKNOWN);
    assert_int_equal(lb_coding_parse("gzip, gzip"), LB_CODING_UNKNOWN);
    assert_int_equal(lb_coding_accepted(NULL), LB_CODING_IDENTITY);
    assert_int_equal(lb_coding_accepted(""), LB_CODING_IDENTITY);
    assert_int_equal(lb_coding_accepted("gzip"), LB_CODING_GZIP);
    assert_int_equal(lb_coding_accepted("deflate, gzip, br, zstd"), LB_CODING_DEFLATE);
    assert_int_equal(lb_coding_accepted("br, gzip;q=0.5 , deflate; q=0.8"), LB_CODING_DEFLATE);
    assert_int_equal(lb_coding_accepted("gzip;q=0"), LB_CODING_IDENTITY);
    assert_int_equal(lb_coding_accepted("identity, gzip;q=0.5"), LB_CODING_IDENTITY);
    assert_int_equal(lb_coding_accepted("gzip;q=nonsense, deflate;q=0.001"), LB_CODING_DEFLATE);
    assert_int_equal(lb_coding_accepted("*"), LB_CODING_IDENTITY);
    assert_int_equal(lb_coding_accepted("gzipped"), LB_CODING_IDENTITY);
}

int main(void) {
    fill();
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_raw_deflate),
                                       cmocka_unit_test(test_damage), cmocka_unit_test(test_bomb),
                                       cmocka_unit_test(test_headers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
