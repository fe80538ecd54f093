/* Numbers as JSON text. */
#include "proto/oip_wire.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Digits that identify any float. */
#define FLOAT_DIGITS 9

/* The two digits of each number below 100. */
static const char pairs[] = "0001020304050607080910111213141516171819"
                            "2021222324252627282930313233343536373839"
                            "4041424344454647484950515253545556575859"
                            "6061626364656667686970717273747576777879"
                            "8081828384858687888990919293949596979899";

static size_t digits_text(uint64_t v, char *out) {
    char reversed[20];
    size_t at = sizeof reversed;
    while (v >= 100) {
        at -= 2;
        memcpy(reversed + at, pairs + 2 * (v % 100), 2);
        v /= 100;
    }
    if (v >= 10) {
        at -= 2;
        memcpy(reversed + at, pairs + 2 * v, 2);
    } else {
        reversed[--at] = (char)('0' + v);
    }
    memcpy(out, reversed + at, sizeof reversed - at);
    return sizeof reversed - at;
}

static size_t integer_text(int64_t v, char *out) {
    if (v < 0) {
        out[0] = '-';
        return 1 + digits_text(0 - (uint64_t)v, out + 1);
    }
    return digits_text((uint64_t)v, out);
}

size_t lb_wire_integer_text(int64_t v, char out[LB_NUMBER_TEXT]) {
    return integer_text(v, out);
}

/* ---- floats ---- */

/* v * 10^n for -30 <= n <= 53, to about one unit in the last place of a double. */
static double scale10(double v, int n) {
    static const double power[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10,
                                   1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21,
                                   1e22, 1e23, 1e24, 1e25, 1e26, 1e27, 1e28, 1e29, 1e30, 1e31, 1e32,
                                   1e33, 1e34, 1e35, 1e36, 1e37, 1e38, 1e39, 1e40, 1e41, 1e42, 1e43,
                                   1e44, 1e45, 1e46, 1e47, 1e48, 1e49, 1e50, 1e51, 1e52, 1e53};
    return n >= 0 ? v * power[n] : v / power[-n];
}

/* 2^n of a normal double. */
static double power2(int n) {
    uint64_t bits = (uint64_t)(n + 1023) << 52;
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* floor(n * log10(2)) for |n| < 1000. */
static int log10_of_power2(int n) {
    int scaled = n * 78913; /* log10(2) * 2^18 */
    return scaled >= 0 ? scaled >> 18 : -((-scaled + (1 << 18) - 1) >> 18);
}

/* The nine digits of v, 1e8 <= v < 1e9. */
static void put_digits(uint32_t v, char *out) {
    uint32_t eight = v % 100000000u, high = eight / 10000, low = eight % 10000;
    out[0] = (char)('0' + v / 100000000u);
    memcpy(out + 1, pairs + 2 * (high / 100), 2);
    memcpy(out + 3, pairs + 2 * (high % 100), 2);
    memcpy(out + 5, pairs + 2 * (low / 100), 2);
    memcpy(out + 7, pairs + 2 * (low % 100), 2);
}

/* digits d.ddd * 10^e10, n_digits of them and zeros behind them [32], as a JSON real. */
static size_t place_point(const char *digits, int n_digits, int e10, char *out) {
    char *at = out;
    if (e10 < -5 || e10 >= FLOAT_DIGITS) { /* d.ddde-12 */
        *at++ = digits[0];
        if (n_digits > 1) {
            *at++ = '.';
            memcpy(at, digits + 1, (size_t)n_digits - 1);
            at += n_digits - 1;
        }
        *at++ = 'e';
        at += integer_text(e10, at);
        return (size_t)(at - out);
    }
    if (e10 < 0) { /* 0.000ddd */
        memcpy(at, "0.0000", 6);
        at += 1 - e10;
        memcpy(at, digits, FLOAT_DIGITS);
        return (size_t)(at + n_digits - out);
    }
    /* ddd.ddd: more than its digits are copied, which is quicker than to count them */
    memcpy(at, digits, 16);
    at[e10 + 1] = '.';
    memcpy(at + e10 + 2, digits + e10 + 1, 16);
    return (size_t)(n_digits > e10 + 2 ? n_digits : e10 + 2) + 1;
}

/* Nine digits always identify a float, and a decimal within half the gap to its neighbours reads back to it.
 * So the digits are computed in double, and the fewest that stay clear of that border (by a thousandth: far
 * more than rounding errors here or double rounding in a reader) are taken. Where fewer will do, so do all
 * between them and nine: most floats need eight or nine. */
size_t lb_wire_float_text(float x, char out[LB_NUMBER_TEXT]) {
    size_t sign = signbit(x) ? 1 : 0;
    out[0] = '-';
    if (x == 0) {
        memcpy(out + sign, "0.0", 3);
        return sign + 3;
    }
    double v = fabs((double)x);
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    int e2 = (int)(bits >> 52) - 1022; /* v = fraction * 2^e2, 0.5 <= fraction < 1 */
    int gap = e2 - FLT_MANT_DIG < -149 ? -149 : e2 - FLT_MANT_DIG;
    /* Below a power of two the gap is half as wide, but never less than that of the smallest numbers. */
    double half_gap = power2((bits & 0xfffffffffffffu) == 0 && gap > -149 ? gap - 2 : gap - 1);
    int e10 = log10_of_power2(e2 - 1); /* right or one too small */
    double scaled = scale10(v, FLOAT_DIGITS - 1 - e10);
    if (scaled >= 1e9) {
        e10++;
        scaled = scale10(v, FLOAT_DIGITS - 1 - e10);
    }
    double border = scale10(half_gap, FLOAT_DIGITS - 1 - e10) * 0.999;
    double rounded = (double)(int64_t)(scaled + 0.5), step = 1;
    for (int left = FLOAT_DIGITS - 1; left > 0; left--) {
        step *= 10;
        double fewer = (double)(int64_t)(scaled / step + 0.5) * step;
        if (fabs(fewer - scaled) > border) {
            break;
        }
        rounded = fewer;
    }
    uint32_t value = (uint32_t)rounded;
    if (value >= 1000000000u) { /* 9.99.. rounded up */
        value /= 10;
        e10++;
    }
    char digits[32];
    int n_digits = FLOAT_DIGITS;
    memset(digits, '0', sizeof digits);
    put_digits(value, digits);
    while (n_digits > 1 && digits[n_digits - 1] == '0') {
        n_digits--;
    }
    return sign + place_point(digits, n_digits, e10, out + sign);
}

/* ---- doubles ---- */

size_t lb_wire_double_text(double x, char out[LB_NUMBER_TEXT]) {
    char text[LB_NUMBER_TEXT];
    int n = snprintf(text, sizeof text, "%.15g", x);
    if (strtod(text, NULL) != x) {
        n = snprintf(text, sizeof text, "%.16g", x);
    }
    if (strtod(text, NULL) != x) {
        n = snprintf(text, sizeof text, "%.17g", x);
    }
    bool real = false;
    for (int i = 0; i < n; i++) {
        if (text[i] == ',') { /* the decimal point of some locales */
            text[i] = '.';
        }
        real = real || text[i] == '.' || text[i] == 'e';
    }
    if (!real) {
        text[n++] = '.';
        text[n++] = '0';
        text[n] = '\0';
    }
    memcpy(out, text, (size_t)n + 1);
    return (size_t)n;
}
