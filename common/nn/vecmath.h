/* Inline functions that compilers vectorise: exp for softmax and SiLU, to 2 ulp, without -ffast-math. */
#ifndef LB_NN_VECMATH_H
#define LB_NN_VECMATH_H

#include <stdint.h>
#include <string.h>

/* exp(x) by 2^n * p(r): |r| <= ln2/2, degree-6 minimax polynomial. Below -87.3 returns 0, above 88.3
 * saturates. */
static inline float lb_expf(float x) {
    const float log2e = 1.44269504088896341f, ln2_hi = 0.693359375f, ln2_lo = -2.12194440e-4f;
    float lo = x < -87.3f ? -87.3f : x;
    float c = lo > 88.3f ? 88.3f : lo;
    float shifted = c * log2e + 12582912.0f; /* 1.5 * 2^23: rounds to nearest */
    int32_t bits;
    memcpy(&bits, &shifted, 4);
    float n = shifted - 12582912.0f;
    float r = c - n * ln2_hi - n * ln2_lo;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    float y = p * r * r + r + 1.0f;
    int32_t e = (bits - 0x4B400000 + 127) << 23; /* 0x4B400000: the bits of 12582912.0f */
    float scale;
    memcpy(&scale, &e, 4);
    return x < -87.3f ? 0.0f : y * scale;
}

#endif
