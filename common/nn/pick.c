#include "common/nn/pick.h"

#include "common/nn/reduce.h"
#include "common/nn/simd.h"

#include <math.h>
#include <stdbool.h>

#define WINDOW 32  /* elements that are put in order */
#define DOUBLES 12 /* how often the part of the row that is looked at grows */
#define HALVES 40  /* and is cut in half */
#define ROUNDING                                                                                             \
    0x1p-50 /* more than adding an element to a sum of at most about 1 rounds, several times over */

/* What lies above a bound. */
struct above {
    float share; /* about */
    int64_t n;
};

static struct above above(const float *z, const float *share, int64_t v, float bound) {
    lb_vf sum[2] = {lb_vset(0), lb_vset(0)};
    lb_vi count[2] = {{0}};
    int64_t j = 0;
    for (; j + 2 * LB_LANES <= v; j += 2 * LB_LANES) {
        for (int i = 0; i < 2; i++) {
            lb_vi is = lb_vload(z + j + i * LB_LANES) > bound;
            sum[i] += (lb_vf)((lb_vi)lb_vload(share + j + i * LB_LANES) & is);
            count[i] -= is;
        }
    }
    struct above a = {0, 0};
    sum[0] += sum[1];
    count[0] += count[1];
    for (int l = 0; l < LB_LANES; l++) {
        a.share += sum[0][l];
        a.n += count[0][l];
    }
    for (; j < v; j++) {
        a.share += z[j] > bound ? share[j] : 0;
        a.n += z[j] > bound;
    }
    return a;
}

/* The same sum in double. */
static double sum_above(const float *z, const float *share, int64_t v, float bound) {
    lb_vd low = {0}, high = {0};
    int64_t j = 0;
    for (; j + LB_LANES <= v; j += LB_LANES) {
        float s[LB_LANES];
        lb_vstore(s, (lb_vf)((lb_vi)lb_vload(share + j) & (lb_vi)(lb_vload(z + j) > bound)));
        low += lb_vload_double(s);
        high += lb_vload_double(s + LB_LANES / 2);
    }
    double sum = lb_vsum_double(low + high);
    for (; j < v; j++) {
        sum += z[j] > bound ? (double)share[j] : 0;
    }
    return sum;
}

/* Two bounds: what lies above *high has at most the share u, what lies above *low more, and few elements lie
 * between them. False where there are none. */
static bool find(const float *z, const float *share, int64_t v, double u, float *low, float *high) {
    float width = 1;
    *high = z[lb_argmax(z, v)];
    struct above over = {0, 0}, under = {0, 0};
    for (int i = 0;; i++) {
        *low = *high - width;
        under = above(z, share, v, *low);
        if (under.share > u) {
            break;
        }
        if (i == DOUBLES || !(*low < *high)) {
            return false;
        }
        over = under;
        *high = *low;
        width *= 2;
    }
    for (int i = 0; i < HALVES && under.n - over.n > WINDOW; i++) {
        float middle = *low + (*high - *low) / 2;
        if (!(middle > *low && middle < *high)) {
            break;
        }
        struct above a = above(z, share, v, middle);
        if (a.share > u) {
            *low = middle;
            under = a;
        } else {
            *high = middle;
            over = a;
        }
    }
    return under.n - over.n <= WINDOW;
}

int64_t lb_pick(const float *z, const float *share, int64_t v, double u) {
    double whole = sum_above(z, share, v, -INFINITY), unsure = (double)(v + 8) * ROUNDING;
    double from = u * fmin(whole, 1) - unsure, to = u * fmax(whole, 1) + unsure;
    float low, high, values[WINDOW];
    int32_t ids[WINDOW];
    int n = 0;
    if (!isfinite(whole) || !find(z, share, v, from, &low, &high)) {
        return -1;
    }
    for (int64_t j = 0; j < v; j++) {
        /* find has counted them, in whole numbers; no more than fit are taken whatever it counted */
        if (z[j] > low && z[j] <= high && n < WINDOW) {
            ids[n] = (int32_t)j;
            values[n++] = z[j];
        }
    }
    lb_sort_down(ids, values, n);
    double before = sum_above(z, share, v, high);
    for (int i = 0; i < n && (before <= from || (i == 0 && before == 0)); i++) {
        double after = before + (double)share[ids[i]];
        if (to < after) {
            return ids[i];
        }
        before = after;
    }
    return -1;
}
