/* Blocks of 32 weights. */
#include "common/nn/quant_block.h"

#include <math.h>

/* ---- widening ---- */

void lb_q4_0_widen(const unsigned char *restrict src, float *restrict dst, int64_t n) {
    const struct lb_q4_0_block *block = (const void *)src;
    for (int64_t b = 0; b < n / 32; b++, block++, dst += 32) {
        float scale = lb_quant_half(block->scale);
        for (int j = 0; j < 16; j++) {
            dst[j] = scale * (float)((block->q[j] & 15) - 8);
            dst[16 + j] = scale * (float)((block->q[j] >> 4) - 8);
        }
    }
}

void lb_q4_1_widen(const unsigned char *restrict src, float *restrict dst, int64_t n) {
    const struct lb_q4_1_block *block = (const void *)src;
    for (int64_t b = 0; b < n / 32; b++, block++, dst += 32) {
        float scale = lb_quant_half(block->scale), least = lb_quant_half(block->least);
        for (int j = 0; j < 16; j++) {
            dst[j] = scale * (float)(block->q[j] & 15) + least;
            dst[16 + j] = scale * (float)(block->q[j] >> 4) + least;
        }
    }
}

static uint32_t fifth_bits(const uint8_t fifth[4]) {
    return (uint32_t)fifth[0] | (uint32_t)fifth[1] << 8 | (uint32_t)fifth[2] << 16 | (uint32_t)fifth[3] << 24;
}

void lb_q5_0_widen(const unsigned char *restrict src, float *restrict dst, int64_t n) {
    const struct lb_q5_0_block *block = (const void *)src;
    for (int64_t b = 0; b < n / 32; b++, block++, dst += 32) {
        float scale = lb_quant_half(block->scale);
        uint32_t fifth = fifth_bits(block->fifth);
        for (int j = 0; j < 16; j++) {
            int low = (int)(fifth >> j & 1) << 4, high = (int)(fifth >> (j + 16) & 1) << 4;
            dst[j] = scale * (float)((block->q[j] & 15) + low - 16);
            dst[16 + j] = scale * (float)((block->q[j] >> 4) + high - 16);
        }
    }
}

void lb_q5_1_widen(const unsigned char *restrict src, float *restrict dst, int64_t n) {
    const struct lb_q5_1_block *block = (const void *)src;
    for (int64_t b = 0; b < n / 32; b++, block++, dst += 32) {
        float scale = lb_quant_half(block->scale), least = lb_quant_half(block->least);
        uint32_t fifth = fifth_bits(block->fifth);
        for (int j = 0; j < 16; j++) {
            int low = (int)(fifth >> j & 1) << 4, high = (int)(fifth >> (j + 16) & 1) << 4;
            dst[j] = scale * (float)((block->q[j] & 15) + low) + least;
            dst[16 + j] = scale * (float)((block->q[j] >> 4) + high) + least;
        }
    }
}

void lb_q8_0_widen(const unsigned char *restrict src, float *restrict dst, int64_t n) {
    const struct lb_q8_0_block *block = (const void *)src;
    for (int64_t b = 0; b < n / 32; b++, block++, dst += 32) {
        float scale = lb_quant_half(block->scale);
        for (int j = 0; j < 32; j++) {
            dst[j] = (float)block->q[j] * scale;
        }
    }
}

void lb_iq4_nl_widen(const unsigned char *restrict src, float *restrict dst, int64_t n) {
    const struct lb_iq4_nl_block *block = (const void *)src;
    for (int64_t b = 0; b < n / 32; b++, block++, dst += 32) {
        lb_quant_look_up(lb_iq4_values, lb_quant_half(block->scale), block->q, dst);
    }
}

/* 2^(e - 128): half of what E8M0 means, since the table has twice the values of E2M1. */
static float half_power(uint8_t e) {
    uint32_t bits = e < 2 ? (uint32_t)0x200000 << e : (uint32_t)(e - 1) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

void lb_mxfp4_widen(const unsigned char *restrict src, float *restrict dst, int64_t n) {
    static const int8_t values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    const struct lb_mxfp4_block *block = (const void *)src;
    for (int64_t b = 0; b < n / 32; b++, block++, dst += 32) {
        lb_quant_look_up(values, half_power(block->exponent), block->q, dst);
    }
}

/* ---- narrowing ---- */

static void put_half(uint8_t half[2], float x) {
    uint16_t h = lb_f32_to_f16(x);
    half[0] = (uint8_t)h;
    half[1] = (uint8_t)(h >> 8);
}

/* 1 / scale; 0 where nothing can be stored: all are so near to zero that an f16 scale is zero. */
static float inverse_of(float scale) {
    float inverse = scale != 0 ? 1.0f / scale : 0;
    return isfinite(inverse) ? inverse : 0;
}

/* x without its fraction, from 0 to most; 0 for a NaN. */
static uint8_t code(float x, int most) {
    return (uint8_t)(x > 0 ? x < (float)most ? (int)x : most : 0);
}

static int8_t q8_round(float x) {
    if (!(fabsf(x) <= 127.0f)) { /* rounding error above 127; NaN, which no integer holds, becomes 0 */
        return x > 0 ? 127 : x < 0 ? -127 : 0;
    }
    return (int8_t)roundf(x);
}

void lb_q8_0_narrow(const float *src, unsigned char *dst, int64_t n) {
    struct lb_q8_0_block *block = (void *)dst;
    for (int64_t b = 0; b < n / 32; b++, block++, src += 32) {
        float largest = 0;
        for (int j = 0; j < 32; j++) {
            largest = fabsf(src[j]) > largest ? fabsf(src[j]) : largest;
        }
        float scale = largest / 127.0f, inverse = inverse_of(scale);
        put_half(block->scale, scale);
        for (int j = 0; j < 32; j++) {
            block->q[j] = q8_round(src[j] * inverse);
        }
    }
}

/* Codes around the middle one: the weight farthest from zero (the first of them) gets code 0. */
static float center(const float x[32], int middle, uint8_t codes[32]) {
    float farthest = 0;
    for (int j = 0; j < 32; j++) {
        farthest = fabsf(x[j]) > fabsf(farthest) ? x[j] : farthest;
    }
    float scale = farthest / (float)-middle, inverse = inverse_of(scale);
    for (int j = 0; j < 32; j++) {
        codes[j] = code(x[j] * inverse + ((float)middle + 0.5f), 2 * middle - 1);
    }
    return scale;
}

/* Codes from the least weight to the largest. */
static float span(const float x[32], int most, uint8_t codes[32], float *out_least) {
    float least = x[0], largest = x[0];
    for (int j = 1; j < 32; j++) {
        least = x[j] < least ? x[j] : least;
        largest = x[j] > largest ? x[j] : largest;
    }
    float scale = (largest - least) / (float)most, inverse = inverse_of(scale);
    for (int j = 0; j < 32; j++) {
        codes[j] = code((x[j] - least) * inverse + 0.5f, most);
    }
    *out_least = least;
    return scale;
}

static void pack(const uint8_t codes[32], uint8_t q[16]) {
    for (int j = 0; j < 16; j++) {
        q[j] = (uint8_t)((codes[j] & 15) | codes[16 + j] << 4);
    }
}

static void pack_fifth(const uint8_t codes[32], uint8_t fifth[4]) {
    for (int i = 0; i < 4; i++) {
        fifth[i] = 0;
        for (int j = 0; j < 8; j++) {
            fifth[i] = (uint8_t)(fifth[i] | codes[8 * i + j] >> 4 << j);
        }
    }
}

void lb_q4_0_narrow(const float *src, unsigned char *dst, int64_t n) {
    struct lb_q4_0_block *block = (void *)dst;
    uint8_t codes[32];
    for (int64_t b = 0; b < n / 32; b++, block++, src += 32) {
        put_half(block->scale, center(src, 8, codes));
        pack(codes, block->q);
    }
}

void lb_q5_0_narrow(const float *src, unsigned char *dst, int64_t n) {
    struct lb_q5_0_block *block = (void *)dst;
    uint8_t codes[32];
    for (int64_t b = 0; b < n / 32; b++, block++, src += 32) {
        put_half(block->scale, center(src, 16, codes));
        pack(codes, block->q);
        pack_fifth(codes, block->fifth);
    }
}

void lb_q4_1_narrow(const float *src, unsigned char *dst, int64_t n) {
    struct lb_q4_1_block *block = (void *)dst;
    uint8_t codes[32];
    float least;
    for (int64_t b = 0; b < n / 32; b++, block++, src += 32) {
        put_half(block->scale, span(src, 15, codes, &least));
        put_half(block->least, least);
        pack(codes, block->q);
    }
}

void lb_q5_1_narrow(const float *src, unsigned char *dst, int64_t n) {
    struct lb_q5_1_block *block = (void *)dst;
    uint8_t codes[32];
    float least;
    for (int64_t b = 0; b < n / 32; b++, block++, src += 32) {
        put_half(block->scale, span(src, 31, codes, &least));
        put_half(block->least, least);
        pack(codes, block->q);
        pack_fifth(codes, block->fifth);
    }
}
