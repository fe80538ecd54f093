/* Blocks of 256 weights (ggml's k-quants, IQ4_XS): the products of scales are rounded once, as ggml rounds
 * them, before a weight is made. */
#include "common/nn/quant_block.h"

/* Weights 128 h + 32 s + j of Q2_K and Q3_K have the two bits 2 s of q[32 h + j]. */

void lb_q2_k_widen(const unsigned char *restrict src, float *restrict dst, int64_t n) {
    const struct lb_q2_k_block *block = (const void *)src;
    for (int64_t b = 0; b < n / 256; b++, block++) {
        float scale = lb_quant_half(block->scale), least = lb_quant_half(block->least);
        for (int i = 0; i < 16; i++, dst += 16) {
            const uint8_t *q = block->q + i / 8 * 32 + i % 2 * 16;
            float by = scale * (float)(block->scales[i] & 15), below = least * (float)(block->scales[i] >> 4);
            int shift = i / 2 % 4 * 2;
            for (int j = 0; j < 16; j++) {
                dst[j] = by * (float)(q[j] >> shift & 3) - below;
            }
        }
    }
}

void lb_q3_k_widen(const unsigned char *restrict src, float *restrict dst, int64_t n) {
    const struct lb_q3_k_block *block = (const void *)src;
    for (int64_t b = 0; b < n / 256; b++, block++) {
        float scale = lb_quant_half(block->scale);
        for (int i = 0; i < 16; i++, dst += 16) {
            const uint8_t *q = block->q + i / 8 * 32 + i % 2 * 16, *third = block->third + i % 2 * 16;
            int low = block->scales[i % 8] >> i / 8 * 4 & 15,
                high = block->scales[8 + i % 4] >> i / 4 * 2 & 3;
            float by = scale * (float)((low | high << 4) - 32);
            int shift = i / 2 % 4 * 2, bit = i / 2;
            for (int j = 0; j < 16; j++) {
                dst[j] = by * (float)((q[j] >> shift & 3) + (third[j] >> bit & 1) * 4 - 4);
            }
        }
    }
}

/* Q4_K and Q5_K: eight scales and eight leasts of six bits each. The first four of either have bytes 0-3 and
 * 4-7, whose upper two bits belong to the last four; their lower four bits stand in bytes 8-11. */
static void unpack_scales(const uint8_t packed[12], float scale, float least, float by[8], float below[8]) {
    for (int i = 0; i < 4; i++) {
        int low = packed[8 + i];
        by[i] = scale * (float)(packed[i] & 63);
        below[i] = least * (float)(packed[4 + i] & 63);
        by[4 + i] = scale * (float)((low & 15) | (packed[i] >> 6 << 4));
        below[4 + i] = least * (float)(low >> 4 | (packed[4 + i] >> 6 << 4));
    }
}

void lb_q4_k_widen(const unsigned char *restrict src, float *restrict dst, int64_t n) {
    const struct lb_q4_k_block *block = (const void *)src;
    float by[8], below[8];
    for (int64_t b = 0; b < n / 256; b++, block++) {
        unpack_scales(block->scales, lb_quant_half(block->scale), lb_quant_half(block->least), by, below);
        for (int i = 0; i < 8; i += 2, dst += 64) {
            const uint8_t *q = block->q + i * 16;
            for (int j = 0; j < 32; j++) {
                dst[j] = by[i] * (float)(q[j] & 15) - below[i];
                dst[32 + j] = by[i + 1] * (float)(q[j] >> 4) - below[i + 1];
            }
        }
    }
}

void lb_q5_k_widen(const unsigned char *restrict src, float *restrict dst, int64_t n) {
    const struct lb_q5_k_block *block = (const void *)src;
    float by[8], below[8];
    for (int64_t b = 0; b < n / 256; b++, block++) {
        unpack_scales(block->scales, lb_quant_half(block->scale), lb_quant_half(block->least), by, below);
        for (int i = 0; i < 8; i += 2, dst += 64) {
            const uint8_t *q = block->q + i * 16;
            for (int j = 0; j < 32; j++) {
                int low = (block->fifth[j] >> i & 1) << 4, high = (block->fifth[j] >> (i + 1) & 1) << 4;
                dst[j] = by[i] * (float)((q[j] & 15) + low) - below[i];
                dst[32 + j] = by[i + 1] * (float)((q[j] >> 4) + high) - below[i + 1];
            }
        }
    }
}

/* Weights 128 h + 32 s + j: four low bits from half s / 2 of low[64 h + 32 (s % 2) + j], the two bits 2 s of
 * high[32 h + j]. */
void lb_q6_k_widen(const unsigned char *restrict src, float *restrict dst, int64_t n) {
    const struct lb_q6_k_block *block = (const void *)src;
    for (int64_t b = 0; b < n / 256; b++, block++) {
        float scale = lb_quant_half(block->scale);
        for (int i = 0; i < 16; i++, dst += 16) {
            int s = i / 2 % 4, low_shift = s / 2 * 4, high_shift = s * 2;
            const uint8_t *low = block->low + i / 8 * 64 + s % 2 * 32 + i % 2 * 16;
            const uint8_t *high = block->high + i / 8 * 32 + i % 2 * 16;
            float by = scale * (float)block->scales[i];
            for (int j = 0; j < 16; j++) {
                int q = (low[j] >> low_shift & 15) | (high[j] >> high_shift & 3) << 4;
                dst[j] = by * (float)(q - 32);
            }
        }
    }
}

void lb_iq4_xs_widen(const unsigned char *restrict src, float *restrict dst, int64_t n) {
    const struct lb_iq4_xs_block *block = (const void *)src;
    for (int64_t b = 0; b < n / 256; b++, block++) {
        float scale = lb_quant_half(block->scale);
        int high = block->scales_high[0] | block->scales_high[1] << 8;
        for (int i = 0; i < 8; i++, dst += 32) {
            int of = (block->scales_low[i / 2] >> i % 2 * 4 & 15) | (high >> 2 * i & 3) << 4;
            float by = scale * (float)(of - 32);
            lb_quant_look_up(lb_iq4_values, by, block->q + 16 * i, dst);
        }
    }
}
