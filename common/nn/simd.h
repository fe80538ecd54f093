/* Vectors of the processor's width by the compilers' vector extension: for kernels whose order of additions
 * is to be exactly as written. Internal to common/nn; common/nn/vecmath.h has what plain loops use.
 *
 * The unit is LB_LANES floats. Every lane computes what the scalar functions of vecmath.h compute, bit for
 * bit.
 */
#ifndef LB_NN_SIMD_H
#define LB_NN_SIMD_H

#include "common/nn/vecmath.h"

#if defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define LB_LANES 16
#elif defined(__AVX__)
#define LB_LANES 8
#else
#define LB_LANES 4
#endif

typedef float lb_vf __attribute__((vector_size(LB_LANES * 4)));
typedef int32_t lb_vi __attribute__((vector_size(LB_LANES * 4)));
typedef uint32_t lb_vu __attribute__((vector_size(LB_LANES * 4)));
typedef double lb_vd __attribute__((vector_size(LB_LANES * 8 / 2)));
typedef float lb_vf_any __attribute__((vector_size(LB_LANES * 4), aligned(4), may_alias));
typedef float lb_vf_half_any __attribute__((vector_size(LB_LANES * 4 / 2), aligned(4), may_alias));

static inline lb_vf lb_vload(const float *p) {
    return *(const lb_vf_any *)p;
}

static inline void lb_vstore(float *p, lb_vf v) {
    *(lb_vf_any *)p = v;
}

/* The first n lanes, the others zero. */
static inline lb_vf lb_vload_part(const float *p, int64_t n) {
    float a[LB_LANES] = {0};
    memcpy(a, p, (size_t)n * sizeof *a);
    return lb_vload(a);
}

static inline void lb_vstore_part(float *p, lb_vf v, int64_t n) {
    float a[LB_LANES];
    lb_vstore(a, v);
    memcpy(p, a, (size_t)n * sizeof *a);
}

static inline lb_vf lb_vset(float x) {
    return x - (lb_vf){0};
}

/* LB_LANES / 2 floats as doubles. */
static inline lb_vd lb_vload_double(const float *p) {
    return __builtin_convertvector(*(const lb_vf_half_any *)p, lb_vd);
}

/* The lanes added up, always in the same order. */
static inline double lb_vsum_double(lb_vd v) {
    double sum = 0;
    for (int i = 0; i < LB_LANES / 2; i++) {
        sum += v[i];
    }
    return sum;
}

/* sum x y, products and sum in double. */
static inline double lb_vdot(const float *x, const float *y, int64_t n) {
    lb_vd even = {0}, odd = {0};
    int64_t i = 0;
    for (; i + LB_LANES <= n; i += LB_LANES) {
        even += lb_vload_double(x + i) * lb_vload_double(y + i);
        odd += lb_vload_double(x + i + LB_LANES / 2) * lb_vload_double(y + i + LB_LANES / 2);
    }
    double sum = lb_vsum_double(even + odd);
    for (; i < n; i++) {
        sum += (double)x[i] * (double)y[i];
    }
    return sum;
}

static inline lb_vf lb_vfma(lb_vf a, lb_vf b, lb_vf c) {
#if LB_LANES == 16
    return (lb_vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif LB_LANES == 8 && defined(__FMA__)
    return (lb_vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_FEATURE_FMA)
    lb_vf y;
    for (int i = 0; i < LB_LANES; i++) {
        y[i] = __builtin_fmaf(a[i], b[i], c[i]);
    }
    return y;
#else
    return a * b + c;
#endif
}

/* Per lane: mask ? a : b; a mask lane is all ones or zero, as comparisons give. */
static inline lb_vf lb_vselect(lb_vi mask, lb_vf a, lb_vf b) {
#if LB_LANES == 8
    return (lb_vf)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)mask);
#else
    return (lb_vf)(((lb_vi)a & mask) | ((lb_vi)b & ~mask));
#endif
}

/* a > b ? a : b, so b where one of them is a NaN. */
static inline lb_vf lb_vmax(lb_vf a, lb_vf b) {
#if LB_LANES == 16
    return (lb_vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif LB_LANES == 8
    return (lb_vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return lb_vselect(a > b, a, b);
#endif
}

/* a < b ? a : b, so b where one of them is a NaN. */
static inline lb_vf lb_vmin(lb_vf a, lb_vf b) {
#if LB_LANES == 16
    return (lb_vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif LB_LANES == 8
    return (lb_vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return lb_vselect(a < b, a, b);
#endif
}

/* lb_expf in every lane. */
static inline lb_vf lb_vexp(lb_vf x) {
    lb_vf c = lb_vmin(lb_vset(LB_EXP_HIGH), lb_vmax(lb_vset(LB_EXP_LOW), x));
    lb_vf shifted = lb_vfma(c, lb_vset(LB_EXP_LOG2E), lb_vset(LB_EXP_MAGIC));
    lb_vf n = shifted - LB_EXP_MAGIC;
    lb_vf r = lb_vfma(n, lb_vset(-LB_EXP_LN2_LO), lb_vfma(n, lb_vset(-LB_EXP_LN2_HI), c));
    lb_vf p = lb_vfma(lb_vset(LB_EXP_C5), r, lb_vset(LB_EXP_C4));
    p = lb_vfma(p, r, lb_vset(LB_EXP_C3));
    p = lb_vfma(p, r, lb_vset(LB_EXP_C2));
    p = lb_vfma(p, r, lb_vset(LB_EXP_C1));
    p = lb_vfma(p, r, lb_vset(LB_EXP_C0));
    lb_vf y = lb_vfma(p, r * r, r) + 1.0f;
    lb_vu e = ((lb_vu)shifted - LB_EXP_MAGIC_BITS + 127u) << 23;
    lb_vf scaled = y * (lb_vf)e;
    return (lb_vf)((lb_vi)scaled & ~(lb_vi)(x < LB_EXP_LOW));
}

/* tanh(x), to about 2 ulp: x + x^3 p(x^2) below 0.625 (coefficients as in Cephes' tanhf), else by exp(2 |x|).
 */
static inline lb_vf lb_vtanh(lb_vf x) {
    lb_vf a = lb_vmax(x, -x), z = x * x;
    lb_vf p = lb_vfma(lb_vset(-5.70498872745e-3f), z, lb_vset(2.06390887954e-2f));
    p = lb_vfma(p, z, lb_vset(-5.37397155531e-2f));
    p = lb_vfma(p, z, lb_vset(1.33314422036e-1f));
    p = lb_vfma(p, z, lb_vset(-3.33332819422e-1f));
    lb_vf near = lb_vfma(p * z, x, x);
    lb_vf far = 1.0f - 2.0f / (lb_vexp(a + a) + 1.0f);
    far = lb_vselect(x < 0, -far, far);
    return lb_vselect(a < 0.625f, near, far);
}

#endif
