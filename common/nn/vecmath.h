/* Inline functions that compilers vectorise: exp for softmax and SiLU, to 2 ulp, without -ffast-math.
 *
 * common/nn is compiled with -ffp-contract=off and fuses where lb_fmaf says so: then an element has the same
 * bits in a loop's vector body and in its scalar remainder, and so does not depend on its place in a batch.
 */
#ifndef LB_NN_VECMATH_H
#define LB_NN_VECMATH_H

#include <stdint.h>
#include <string.h>

/* a * b + c: rounded once where the processor has the instruction, else twice. */
static inline float lb_fmaf(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

#define LB_EXP_LOW (-87.3f)
#define LB_EXP_HIGH 88.3f
#define LB_EXP_LOG2E 1.44269504088896341f
#define LB_EXP_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds, the integer is in the low bits */
#define LB_EXP_MAGIC_BITS 0x4B400000u
#define LB_EXP_LN2_HI 0.693359375f
#define LB_EXP_LN2_LO (-2.12194440e-4f)
#define LB_EXP_C5 1.9875691500e-4f
#define LB_EXP_C4 1.3981999507e-3f
#define LB_EXP_C3 8.3334519073e-3f
#define LB_EXP_C2 4.1665795894e-2f
#define LB_EXP_C1 1.6666665459e-1f
#define LB_EXP_C0 5.0000001201e-1f

/* exp(x) by 2^n * p(r): |r| <= ln2/2, degree-7 polynomial. Below -87.3 returns 0, above 88.3 saturates, NaN
 * stays. */
static inline float lb_expf(float x) {
    float lo = x < LB_EXP_LOW ? LB_EXP_LOW : x;
    float c = lo > LB_EXP_HIGH ? LB_EXP_HIGH : lo;
    float shifted = lb_fmaf(c, LB_EXP_LOG2E, LB_EXP_MAGIC);
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    float n = shifted - LB_EXP_MAGIC;
    float r = lb_fmaf(n, -LB_EXP_LN2_LO, lb_fmaf(n, -LB_EXP_LN2_HI, c));
    float p = lb_fmaf(LB_EXP_C5, r, LB_EXP_C4);
    p = lb_fmaf(p, r, LB_EXP_C3);
    p = lb_fmaf(p, r, LB_EXP_C2);
    p = lb_fmaf(p, r, LB_EXP_C1);
    p = lb_fmaf(p, r, LB_EXP_C0);
    float y = lb_fmaf(p, r * r, r) + 1.0f;
    uint32_t e = (bits - LB_EXP_MAGIC_BITS + 127u) << 23;
    float scale;
    memcpy(&scale, &e, 4);
    return x < LB_EXP_LOW ? 0.0f : y * scale;
}

/* log(x) for normal x > 0, to about 2 ulp: x = m 2^e with m in [sqrt(1/2), sqrt(2)), log1p(m - 1) by a
 * degree-9 polynomial (coefficients as in Cephes' logf). */
static inline float lb_logf(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t shifted = bits - 0x3F3504F3u; /* the bits of sqrt(1/2) */
    float e = (float)((int32_t)shifted >> 23);
    uint32_t mantissa = (shifted & 0x007FFFFFu) + 0x3F3504F3u;
    float m;
    memcpy(&m, &mantissa, 4);
    float r = m - 1.0f, r2 = r * r;
    float p = lb_fmaf(7.0376836292e-2f, r, -1.1514610310e-1f);
    p = lb_fmaf(p, r, 1.1676998740e-1f);
    p = lb_fmaf(p, r, -1.2420140846e-1f);
    p = lb_fmaf(p, r, 1.4249322787e-1f);
    p = lb_fmaf(p, r, -1.6668057665e-1f);
    p = lb_fmaf(p, r, 2.0000714765e-1f);
    p = lb_fmaf(p, r, -2.4999993993e-1f);
    p = lb_fmaf(p, r, 3.3333331174e-1f);
    float y = lb_fmaf(p * r, r2, e * LB_EXP_LN2_LO);
    y = lb_fmaf(-0.5f, r2, y);
    return lb_fmaf(e, LB_EXP_LN2_HI, r + y);
}

#endif
