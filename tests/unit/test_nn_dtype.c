/* Number formats: half floats in full, bfloat16, Q8_0 blocks, sizes. */
#include "common/nn/dtype.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

static uint32_t bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

/* The value of a finite half by the definition of the format. */
static double half_value(unsigned h) {
    int exponent = (int)(h >> 10 & 31);
    double mantissa = h & 1023;
    double magnitude = exponent == 0 ? ldexp(mantissa, -24) : ldexp(mantissa + 1024, exponent - 25);
    return h & 0x8000 ? -magnitude : magnitude;
}

static void test_f16_all(void **state) {
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        float f = lb_f16_to_f32((uint16_t)h);
        assert_int_equal(signbit(f) != 0, h >> 15);
        if ((h & 0x7C00) == 0x7C00) {
            assert_true((h & 0x3FF) != 0 ? isnan(f) : isinf(f));
            assert_true((h & 0x3FF) == 0 || isnan(lb_f16_to_f32(lb_f32_to_f16(f))));
        } else {
            assert_true((double)f == half_value(h));
        }
        if (!isnan(f)) {
            assert_int_equal(lb_f32_to_f16(f), h);
        }
    }
}

/* Between any two neighbours: the middle goes to the even one, a float on either side to the nearer. */
static void test_f16_rounding(void **state) {
    (void)state;
    for (unsigned h = 0; h < 0x7C00; h++) {
        double above = h + 1 == 0x7C00 ? 65536 : half_value(h + 1);
        float middle = (float)((half_value(h) + above) / 2);
        assert_true((double)middle == (half_value(h) + above) / 2);
        unsigned even = h & 1 ? h + 1 : h;
        for (int negative = 0; negative < 2; negative++) {
            float sign = negative ? -1 : 1;
            unsigned sign_bit = negative ? 0x8000 : 0;
            assert_int_equal(lb_f32_to_f16(sign * middle), even | sign_bit);
            assert_int_equal(lb_f32_to_f16(sign * nextafterf(middle, 0)), h | sign_bit);
            assert_int_equal(lb_f32_to_f16(sign * nextafterf(middle, 1e9f)), (h + 1) | sign_bit);
        }
    }
    assert_int_equal(lb_f32_to_f16(1e30f), 0x7C00);
    assert_int_equal(lb_f32_to_f16(-INFINITY), 0xFC00);
    assert_int_equal(lb_f32_to_f16(1e-30f), 0);
}

/* Rows take the hardware's instructions where it has them: the same bits, NaN included, at any alignment. */
static void test_f16_rows(void **state) {
    (void)state;
    static uint16_t in[65536], back[65536];
    static float out[65536];
    static unsigned char shifted[2 * 65536 + 1];
    for (unsigned h = 0; h < 65536; h++) {
        in[h] = (uint16_t)h;
    }
    memcpy(shifted + 1, in, sizeof in);
    for (int64_t n = 65536 - 9; n <= 65536; n++) {
        memset(out, 0x55, sizeof out);
        lb_dequantize(LB_F16, shifted + 1, out, n);
        lb_f16_row_from(out, back, n);
        for (int64_t i = 0; i < n; i += n == 65536 ? 1 : 97) {
            assert_int_equal(bits(out[i]), bits(lb_f16_to_f32(in[i])));
            assert_int_equal(back[i], lb_f32_to_f16(out[i]));
        }
        if (n < 65536) {
            assert_int_equal(bits(out[n]), 0x55555555);
        }
    }
}

static void test_bf16(void **state) {
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        float f = lb_bf16_to_f32((uint16_t)h);
        assert_int_equal(bits(f), h << 16);
        if (isnan(f)) {
            assert_true(isnan(lb_bf16_to_f32(lb_f32_to_bf16(f))));
            continue;
        }
        assert_int_equal(lb_f32_to_bf16(f), h);
        if ((h & 0x7F80) != 0x7F80) {
            uint32_t middle = h << 16 | 0x8000, below = middle - 1, above = middle + 1;
            float m, b, a;
            memcpy(&m, &middle, 4);
            memcpy(&b, &below, 4);
            memcpy(&a, &above, 4);
            assert_int_equal(lb_f32_to_bf16(m), h & 1 ? h + 1 : h);
            assert_int_equal(lb_f32_to_bf16(b), h);
            assert_int_equal(lb_f32_to_bf16(a), h + 1);
        }
    }
    uint32_t payload = 0x7F800001; /* a NaN whose upper half alone would be infinity */
    float nan;
    memcpy(&nan, &payload, 4);
    assert_true(isnan(lb_bf16_to_f32(lb_f32_to_bf16(nan))));
}

static void test_sizes(void **state) {
    (void)state;
    size_t bytes = 77;
    assert_false(lb_dtype_bytes(LB_F64, INT64_MAX, &bytes));
    assert_false(lb_dtype_bytes(LB_F32, -1, &bytes));
    assert_false(lb_dtype_bytes(LB_Q8_0, 33, &bytes));
    assert_false(lb_dtype_bytes((enum lb_dtype)99, 1, &bytes));
    assert_int_equal(bytes, 77);
    assert_true(lb_dtype_bytes(LB_Q8_0, 64, &bytes));
    assert_int_equal(bytes, 68);
    assert_true(lb_dtype_bytes(LB_BF16, 3, &bytes));
    assert_int_equal(bytes, 6);
    assert_true(lb_dtype_bytes(LB_BOOL, 0, &bytes));
    assert_int_equal(bytes, 0);
    /* the numbers are part of fingerprints */
    static const char *const names[LB_DTYPES] = {"F32",  "F16",  "BF16",   "F64",    "I8",   "I16",  "I32",
                                                 "I64",  "U8",   "U16",    "U32",    "U64",  "BOOL", "Q8_0",
                                                 "Q4_0", "Q4_1", "Q5_0",   "Q5_1",   "Q2_K", "Q3_K", "Q4_K",
                                                 "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"};
    for (int d = 0; d < LB_DTYPES; d++) {
        assert_string_equal(lb_dtype_name((enum lb_dtype)d), names[d]);
    }
    assert_true(lb_dtype_is_weight(LB_F64));
    assert_false(lb_dtype_is_weight(LB_I8));
    assert_true(lb_dtype_narrows(LB_Q5_1) && !lb_dtype_narrows(LB_Q5_K) && !lb_dtype_narrows(LB_F64));
    assert_false(lb_dtype_bytes(LB_Q6_K, 128, &bytes));
    assert_true(lb_dtype_bytes(LB_Q6_K, 512, &bytes));
    assert_int_equal(bytes, 420);
    enum lb_dtype dtype = LB_F64;
    assert_true(lb_dtype_from_ggml(23, &dtype) && dtype == LB_IQ4_XS && lb_dtype_ggml(LB_IQ4_XS) == 23);
    assert_false(lb_dtype_from_ggml(4, &dtype) || lb_dtype_from_ggml(UINT32_MAX, &dtype));
    assert_true(lb_dtype_file_type(LB_Q5_0) == 8 && lb_dtype_file_type(LB_BF16) == 32);
    char list[LB_DTYPE_NAMES];
    assert_string_equal(lb_dtype_gguf_names(true, list),
                        "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q6_K");
    assert_true(strlen(lb_dtype_gguf_names(false, list)) < LB_DTYPE_NAMES - 1);
}

/* Scale 1 (the largest is 127): halves go away from zero, and the bytes stand where GGUF has them. */
static void test_q8_block(void **state) {
    (void)state;
    float x[32] = {127, 0.5f, -0.5f, 2.5f, -2.5f, 1.49f, -126.6f, 0};
    unsigned char block[34];
    lb_quantize(LB_Q8_0, x, block, 32);
    assert_int_equal(block[0], 0x00);
    assert_int_equal(block[1], 0x3C); /* 1.0 as little-endian f16 */
    static const int expected[8] = {127, 1, -1, 3, -3, 1, -127, 0};
    for (int i = 0; i < 8; i++) {
        assert_int_equal((int8_t)block[2 + i], expected[i]);
    }
    float y[32];
    lb_dequantize(LB_Q8_0, block, y, 32);
    for (int i = 0; i < 8; i++) {
        assert_true(y[i] == (float)expected[i]);
    }
}

static void test_q8_rows(void **state) {
    (void)state;
    float x[96], y[96];
    unsigned char shifted[3 * 34 + 1];
    for (int i = 0; i < 96; i++) {
        x[i] = sinf((float)(i * i)) * (i < 32 ? 1e-3f : i < 64 ? 1 : 1e3f);
    }
    lb_quantize(LB_Q8_0, x, shifted + 1, 96);
    lb_dequantize(LB_Q8_0, shifted + 1, y, 96);
    for (int b = 0; b < 3; b++) {
        float largest = 0;
        for (int i = 0; i < 32; i++) {
            largest = fmaxf(largest, fabsf(x[32 * b + i]));
        }
        for (int i = 0; i < 32; i++) { /* half a step, and what the f16 scale lost of 127 steps */
            assert_true(fabsf(y[32 * b + i] - x[32 * b + i]) <= largest / 127 * 0.5f + largest / 2000);
        }
    }
}

/* Blocks that no scale can represent, or of no numbers, are undefined conversions nowhere. */
static void test_block_extremes(void **state) {
    (void)state;
    float x[256] = {0}, y[256];
    unsigned char block[256];
    static const float extremes[] = {0, 1e-44f, 1e-39f, 3e38f, INFINITY, NAN};
    for (int d = LB_Q8_0; d < LB_DTYPES; d++) {
        for (size_t k = 0; k < sizeof extremes / sizeof *extremes && lb_dtype_narrows((enum lb_dtype)d);
             k++) {
            x[3] = extremes[k];
            x[4] = -extremes[k];
            lb_quantize((enum lb_dtype)d, x, block, lb_dtype_block((enum lb_dtype)d));
            lb_dequantize((enum lb_dtype)d, block, y, lb_dtype_block((enum lb_dtype)d));
            assert_true(!(fabsf(x[3]) < 1e-30f) || (fabsf(y[3]) < 1e-30f && y[7] == 0));
        }
    }
}

/* Blocks that no scale can represent give zeros, not undefined conversions. */
static void test_q8_extremes(void **state) {
    (void)state;
    float x[32] = {0}, y[32];
    unsigned char block[34];
    static const float extremes[] = {0, 1e-44f, 1e-39f, INFINITY, NAN};
    for (size_t k = 0; k < sizeof extremes / sizeof *extremes; k++) {
        x[3] = extremes[k];
        x[4] = -extremes[k];
        lb_quantize(LB_Q8_0, x, block, 32);
        assert_int_equal((int8_t)block[2 + 7], 0);
        lb_dequantize(LB_Q8_0, block, y, 32);
        if (isfinite(x[3])) {
            assert_true(fabsf(y[3]) < 1e-38f && y[7] == 0);
        }
    }
}

static void test_other_rows(void **state) {
    (void)state;
    const double d[3] = {1.5, -1e300, 0.1};
    unsigned char shifted[sizeof d + 1];
    float y[3], z[3] = {1, -2.5f, 3e-5f}, back[3];
    memcpy(shifted + 1, d, sizeof d);
    lb_dequantize(LB_F64, shifted + 1, y, 3);
    assert_true(y[0] == 1.5f && isinf(y[1]) && y[2] == 0.1f);
    lb_quantize(LB_F32, z, shifted + 1, 3);
    lb_dequantize(LB_F32, shifted + 1, back, 3);
    assert_memory_equal(z, back, sizeof z);
    lb_quantize(LB_BF16, z, shifted + 1, 3);
    lb_dequantize(LB_BF16, shifted + 1, back, 3);
    assert_true(back[0] == 1 && back[1] == -2.5f && fabsf(back[2] - 3e-5f) < 3e-5f / 256);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16_all),        cmocka_unit_test(test_f16_rounding),
        cmocka_unit_test(test_f16_rows),       cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_sizes),          cmocka_unit_test(test_q8_block),
        cmocka_unit_test(test_q8_rows),        cmocka_unit_test(test_q8_extremes),
        cmocka_unit_test(test_block_extremes), cmocka_unit_test(test_other_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
