#include "common/nn/reduce.h"

#include "common/nn/simd.h"

#include <math.h>
#include <stdbool.h>

#define CHUNK 64        /* elements looked at together where most of them are of no interest */
#define MAX_GROUPS 2048 /* maxima that give top-k its first threshold */

/* The largest, NaN aside; -inf when there is none. */
static float max_of(const float *z, int64_t v) {
    lb_vf best = lb_vset(-INFINITY);
    int64_t j = 0;
    for (; j + LB_LANES <= v; j += LB_LANES) {
        best = lb_vmax(lb_vload(z + j), best);
    }
    float m = -INFINITY;
    for (int l = 0; l < LB_LANES; l++) {
        m = best[l] > m ? best[l] : m;
    }
    for (; j < v; j++) {
        m = z[j] > m ? z[j] : m;
    }
    return m;
}

double lb_logsumexp(const float *z, int64_t v, double temperature) {
    float m = max_of(z, v);
    if (isinf(m)) { /* all -inf, or +inf among them; a NaN among them wins, as it does in the sum below */
        for (int64_t j = 0; j < v; j++) {
            if (isnan(z[j])) {
                return NAN;
            }
        }
        return m;
    }
    float inverse = (float)(1 / temperature);
    lb_vd sum_low = {0}, sum_high = {0};
    int64_t j = 0;
    for (; j + LB_LANES <= v; j += LB_LANES) {
        float e[LB_LANES];
        lb_vstore(e, lb_vexp((lb_vload(z + j) - m) * inverse));
        sum_low += lb_vload_double(e);
        sum_high += lb_vload_double(e + LB_LANES / 2);
    }
    double sum = lb_vsum_double(sum_low + sum_high);
    for (; j < v; j++) {
        sum += (double)lb_expf((z[j] - m) * inverse);
    }
    return m / temperature + log(sum);
}

void lb_softmax(const float *z, int64_t v, double temperature, double lse, float *q) {
    double inverse = 1 / temperature;
#pragma omp simd
    for (int64_t j = 0; j < v; j++) {
        q[j] = lb_expf((float)((double)z[j] * inverse - lse));
    }
}

void lb_softmax_single(const float *z, int64_t v, double temperature, double lse, float *q) {
    float inverse = (float)(1 / temperature), shift = (float)lse;
#pragma omp simd
    for (int64_t j = 0; j < v; j++) {
        q[j] = lb_expf(z[j] * inverse - shift);
    }
}

/* Whether element (a, i) comes before (b, j): larger value, then lower id; NaN after everything. */
static bool before(float a, int32_t i, float b, int32_t j) {
    bool a_nan = a != a, b_nan = b != b;
    if (a_nan || b_nan) {
        return a_nan == b_nan ? i < j : b_nan;
    }
    return a != b ? a > b : i < j;
}

/* A heap of n whose root is the element that comes last; (value, id) sinks from place i. */
static void sink(int32_t *ids, float *values, int64_t n, int64_t i, int32_t id, float value) {
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child >= n) {
            break;
        }
        if (child + 1 < n && before(values[child], ids[child], values[child + 1], ids[child + 1])) {
            child++;
        }
        if (!before(value, id, values[child], ids[child])) {
            break;
        }
        ids[i] = ids[child];
        values[i] = values[child];
        i = child;
    }
    ids[i] = id;
    values[i] = value;
}

/* Whether anything among n may enter: not below least and above the root. */
static bool any_enters(const float *z, int64_t n, float least, float root) {
    int any = 0;
#pragma omp simd reduction(| : any)
    for (int64_t j = 0; j < n; j++) {
        any |= (z[j] >= least) & (z[j] > root);
    }
    return any != 0;
}

/* A number that at least k of the elements reach: the k-th largest of the maxima of groups. -inf where there
 * are too few groups for that to be worth it. ids and values [k] are scratch. */
static float least_of_top(const float *z, int64_t v, int64_t k, int32_t *ids, float *values) {
    float maxima[MAX_GROUPS];
    int64_t size = 2 * LB_LANES > 16 ? 2 * LB_LANES : 16;
    while (v / size > MAX_GROUPS) {
        size *= 2;
    }
    int64_t groups = v / size;
    if (groups < 4 * k) {
        return -INFINITY;
    }
    for (int64_t g = 0; g < groups; g++) {
        maxima[g] = max_of(z + g * size, size);
    }
    lb_topk(maxima, groups, k, ids, values);
    return values[k - 1];
}

void lb_topk(const float *z, int64_t v, int64_t k, int32_t *ids, float *values) {
    if (k <= 0) {
        return;
    }
    float least = least_of_top(z, v, k, ids, values);
    for (int64_t i = 0; i < k; i++) {
        ids[i] = (int32_t)i;
        /* NOLINTNEXTLINE(clang-analyzer-core.*): maxima of all groups are there */
        values[i] = z[i];
    }
    for (int64_t i = k / 2; i-- > 0;) {
        sink(ids, values, k, i, ids[i], values[i]);
    }
    for (int64_t j0 = k; j0 < v; j0 += CHUNK) {
        int64_t j1 = j0 + CHUNK < v ? j0 + CHUNK : v;
        /* Later ids lose ties, so only what is above the root enters - or any number while the root is a NaN.
         */
        if (values[0] == values[0] && !any_enters(z + j0, j1 - j0, least, values[0])) {
            continue;
        }
        for (int64_t j = j0; j < j1; j++) {
            if (!(z[j] < least) && before(z[j], (int32_t)j, values[0], ids[0])) {
                sink(ids, values, k, 0, (int32_t)j, z[j]);
            }
        }
    }
    for (int64_t n = k - 1; n > 0; n--) { /* the last of those left goes to the end */
        int32_t id = ids[0];
        float value = values[0];
        sink(ids, values, n, 0, ids[n], values[n]);
        ids[n] = id;
        values[n] = value;
    }
}

int64_t lb_argmax(const float *z, int64_t v) {
    float m = max_of(z, v);
    for (int64_t j = 0; j < v; j++) {
        if (z[j] == m) {
            return j;
        }
    }
    return 0; /* nothing but NaN */
}

int64_t lb_first_nonfinite(const float *x, int64_t n) {
    for (int64_t i0 = 0; i0 < n; i0 += CHUNK) {
        int64_t i1 = i0 + CHUNK < n ? i0 + CHUNK : n;
        int bad = 0;
#pragma omp simd reduction(| : bad)
        for (int64_t i = i0; i < i1; i++) {
            bad |= !(fabsf(x[i]) <= 3.402823466e38f);
        }
        if (bad) {
            while (isfinite(x[i0])) {
                i0++;
            }
            return i0;
        }
    }
    return -1;
}
