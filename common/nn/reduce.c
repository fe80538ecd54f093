#include "common/nn/reduce.h"

#include "common/nn/simd.h"

#include <math.h>
#include <stdbool.h>

#define CHUNK 64        /* elements looked at together where most of them are of no interest */
#define MAX_GROUPS 2048 /* whose maxima tell which can hold any of the top k */
#define SHORT 16        /* elements that are sorted by insertion */
#define WORK 64         /* so many times a row is gone through by sorting, at most */
#define GATHERED 4096   /* ids of a row that are looked at together where some are kept */

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

static bool has_nan(const float *z, int64_t n) {
    for (int64_t j = 0; j < n; j++) {
        if (isnan(z[j])) {
            return true;
        }
    }
    return false;
}

/* sum_j exp((z[j] - max) / temperature); where it stands at the end of each block goes to marks (NULL:
 * nowhere).
 */
static double sum_exp(const float *z, int64_t v, float max, double temperature, double *marks) {
    float inverse = (float)(1 / temperature);
    lb_vd sum_low = {0}, sum_high = {0};
    int64_t j = 0, whole = v / LB_LANES * LB_LANES;
    while (j < whole) {
        int64_t end = j + LB_MARK_STEP < whole ? j + LB_MARK_STEP : whole;
        for (; j < end; j += LB_LANES) {
            float e[LB_LANES];
            lb_vstore(e, lb_vexp((lb_vload(z + j) - max) * inverse));
            sum_low += lb_vload_double(e);
            sum_high += lb_vload_double(e + LB_LANES / 2);
        }
        if (marks != NULL) {
            marks[(j - 1) / LB_MARK_STEP] = lb_vsum_double(sum_low + sum_high);
        }
    }
    double sum = lb_vsum_double(sum_low + sum_high);
    for (; j < v; j++) {
        sum += (double)lb_expf((z[j] - max) * inverse);
    }
    if (marks != NULL) {
        marks[(v - 1) / LB_MARK_STEP] = sum;
    }
    return sum;
}

/* A NaN anywhere makes the sum one, whatever else is there. */
void lb_lse_add(struct lb_lse *lse, const float *z, int64_t n, double temperature) {
    lb_lse_add_marks(lse, z, n, temperature, NULL);
}

void lb_lse_add_marks(struct lb_lse *lse, const float *z, int64_t n, double temperature, double *marks) {
    float here = max_of(z, n);
    if (here > lse->max) {
        lse->sum *= exp((lse->max - here) / temperature);
        lse->max = here;
    }
    if (isinf(lse->max)) { /* nothing but -inf so far, or +inf among them: no sum to be made */
        for (int64_t block = 0; marks != NULL && block * LB_MARK_STEP < n; block++) {
            marks[block] = 0;
        }
        lse->sum = has_nan(z, n) ? NAN : lse->sum;
    } else {
        lse->sum += sum_exp(z, n, (float)lse->max, temperature, marks);
    }
}

double lb_lse_value(const struct lb_lse *lse, double temperature) {
    if (isnan(lse->sum)) {
        return NAN;
    }
    return isinf(lse->max) ? lse->max : lse->max / temperature + log(lse->sum);
}

double lb_logsumexp(const float *z, int64_t v, double temperature) {
    struct lb_lse lse = LB_LSE_EMPTY;
    lb_lse_add(&lse, z, v, temperature);
    return lb_lse_value(&lse, temperature);
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

/* Whether anything among n may enter: above the root. */
static bool any_enters(const float *z, int64_t n, float root) {
    int any = 0;
#pragma omp simd reduction(| : any)
    for (int64_t j = 0; j < n; j++) {
        any |= z[j] > root;
    }
    return any != 0;
}

/* Maxima of groups of a row's elements: the k-th largest of them is reached by k elements at least, so groups
 * that stay below it hold none of the k largest. Groups are the lanes of `size` vectors that lie one behind
 * the other. */
struct groups {
    float maxima[MAX_GROUPS];
    int64_t n, size;
    float least; /* above -inf */
};

/* False where there are too few groups for that to be worth it. ids and values [k] are scratch. */
static bool make_groups(const float *z, int64_t v, int64_t k, int32_t *ids, float *values,
                        struct groups *out) {
    out->size = 16;
    while (v / out->size > MAX_GROUPS) {
        out->size *= 2;
    }
    int64_t stride = out->size * LB_LANES;
    out->n = v / stride * LB_LANES;
    if (out->n < 1 || out->n < 4 * k) {
        return false;
    }
    for (int64_t g = 0; g < out->n; g += LB_LANES, z += stride) {
        lb_vf best = lb_vset(-INFINITY);
        for (int64_t j = 0; j < stride; j += LB_LANES) {
            best = lb_vmax(lb_vload(z + j), best);
        }
        lb_vstore(out->maxima + g, best);
    }
    lb_topk(out->maxima, out->n, k, ids, values);
    out->least = values[k - 1];
    return !(isinf(out->least) && out->least < 0);
}

static void make_heap(struct lb_top *top) {
    for (int64_t i = top->k / 2; i-- > 0;) {
        sink(top->ids, top->values, top->k, i, top->ids[i], top->values[i]);
    }
}

/* The elements j0, j0 + step ... below j1 of a row's first piece that reach least; the first k of them fill
 * the heap. */
static void add_reaching(struct lb_top *top, const float *z, int64_t j0, int64_t j1, int64_t step,
                         int64_t first, float least) {
    for (int64_t j = j0; j < j1; j += step) {
        int32_t id = (int32_t)(first + j);
        /* All of z is there, also where it was gathered. NOLINTNEXTLINE(clang-analyzer-core.*) */
        if (!(z[j] >= least)) {
            continue;
        }
        if (top->n < top->k) {
            top->ids[top->n] = id;
            top->values[top->n++] = z[j];
            if (top->n == top->k) {
                make_heap(top);
            }
        } else if (before(z[j], id, top->values[0], top->ids[0])) {
            sink(top->ids, top->values, top->k, 0, id, z[j]);
        }
    }
}

/* A row's first piece, where groups tell what need not be looked at; false, and nothing is done, where not.
 */
static bool add_by_groups(struct lb_top *top, const float *z, int64_t n, int64_t first) {
    struct groups groups;
    if (!make_groups(z, n, top->k, top->ids, top->values, &groups)) {
        return false;
    }
    int64_t stride = groups.size * LB_LANES;
    for (int64_t g = 0; g < groups.n; g++) {
        if (groups.maxima[g] >= groups.least) {
            int64_t block = g / LB_LANES * stride;
            add_reaching(top, z, block + g % LB_LANES, block + stride, LB_LANES, first, groups.least);
        }
    }
    add_reaching(top, z, groups.n / LB_LANES * stride, n, 1, first, groups.least);
    return true;
}

/* The first elements fill the heap; returns how many of z they were. */
static int64_t fill(struct lb_top *top, const float *z, int64_t n, int64_t first) {
    int64_t take = top->k - top->n < n ? top->k - top->n : n;
    for (int64_t i = 0; i < take; i++) {
        top->ids[top->n + i] = (int32_t)(first + i);
        top->values[top->n + i] = z[i];
    }
    top->n += take;
    if (top->n == top->k) {
        make_heap(top);
    }
    return take;
}

void lb_top_add(struct lb_top *top, const float *z, int64_t n, int64_t first) {
    int32_t *ids = top->ids;
    float *values = top->values;
    if (top->n == 0 && top->k > 0 && add_by_groups(top, z, n, first)) {
        return;
    }
    int64_t begin = top->n < top->k ? fill(top, z, n, first) : 0;
    for (int64_t j0 = begin; top->k > 0 && j0 < n; j0 += CHUNK) {
        int64_t j1 = j0 + CHUNK < n ? j0 + CHUNK : n;
        /* Later ids lose ties, so only what is above the root enters - or any number while the root is a NaN.
         */
        if (values[0] == values[0] && !any_enters(z + j0, j1 - j0, values[0])) {
            continue;
        }
        for (int64_t j = j0; j < j1; j++) {
            int32_t id = (int32_t)(first + j);
            if (before(z[j], id, values[0], ids[0])) {
                sink(ids, values, top->k, 0, id, z[j]);
            }
        }
    }
}

void lb_top_finish(struct lb_top *top) {
    for (int64_t n = top->n - 1; n > 0; n--) { /* the last of those left goes to the end */
        int32_t id = top->ids[0];
        float value = top->values[0];
        sink(top->ids, top->values, n, 0, top->ids[n], top->values[n]);
        top->ids[n] = id;
        top->values[n] = value;
    }
}

void lb_topk(const float *z, int64_t v, int64_t k, int32_t *ids, float *values) {
    struct lb_top top = {ids, values, k, 0};
    lb_top_add(&top, z, v, 0);
    lb_top_finish(&top);
}

static void swap(int32_t *ids, float *values, int64_t i, int64_t j) {
    int32_t id = ids[i];
    float value = values[i];
    ids[i] = ids[j];
    values[i] = values[j];
    ids[j] = id;
    values[j] = value;
}

static void insert(int32_t *ids, float *values, int64_t n) {
    for (int64_t i = 1; i < n; i++) {
        int32_t id = ids[i];
        float value = values[i];
        int64_t j = i;
        for (; j > 0 && before(value, id, values[j - 1], ids[j - 1]); j--) {
            ids[j] = ids[j - 1];
            values[j] = values[j - 1];
        }
        ids[j] = id;
        values[j] = value;
    }
}

/* Puts what comes before one of the elements, which comes from the middle, before it and the others behind
 * it; returns its place. */
static int64_t part(int32_t *ids, float *values, int64_t n) {
    swap(ids, values, 0, n / 2); /* what comes in order is no worse */
    int64_t i = 0, j = n;
    for (;;) {
        do {
            i++;
        } while (i < n && before(values[i], ids[i], values[0], ids[0]));
        do {
            j--;
        } while (before(values[0], ids[0], values[j], ids[j]));
        if (i >= j) {
            break;
        }
        swap(ids, values, i, j);
    }
    swap(ids, values, 0, j);
    return j;
}

/* By parts that are smaller and smaller. The larger one is left for later: what goes on is at most half, so
 * that no more than 64 wait, whatever the values are; and where they stay uneven, a heap does the rest. */
void lb_sort_down(int32_t *ids, float *values, int64_t n) {
    struct {
        int64_t at, n;
    } left[64] = {{0, n}};
    int64_t tries = WORK * n;
    for (int n_left = 1; n_left > 0;) {
        int64_t at = left[n_left - 1].at, len = left[n_left - 1].n;
        n_left--;
        while (len > SHORT && tries > 0) {
            tries -= len;
            int64_t middle = part(ids + at, values + at, len), behind = len - middle - 1;
            bool first_larger = middle > behind;
            left[n_left].at = first_larger ? at : at + middle + 1;
            left[n_left++].n = first_larger ? middle : behind;
            at = first_larger ? at + middle + 1 : at;
            len = first_larger ? behind : middle;
        }
        if (len > SHORT) {
            struct lb_top heap = {ids + at, values + at, len, len};
            make_heap(&heap);
            lb_top_finish(&heap);
        } else {
            insert(ids + at, values + at, len);
        }
    }
}

void lb_rest_add(double *rest, struct lb_lse *lse, struct lb_top *top, const float *z, int64_t n,
                 int64_t first, double temperature, double *marks) {
    struct lb_lse before = *lse;
    lb_lse_add_marks(lse, z, n, temperature, marks);
    if (isinf(lse->max)) {
        lb_top_add(top, z, n, first);
        return;
    }
    /* As lb_lse_add has scaled what came before. */
    double factor = lse->max > before.max ? exp((before.max - lse->max) / temperature) : 1;
    double came = lse->sum - before.sum * factor;
    double held = sum_exp(top->values, top->n, (float)lse->max, temperature, NULL);
    lb_top_add(top, z, n, first);
    *rest = *rest * factor + (came + held - sum_exp(top->values, top->n, (float)lse->max, temperature, NULL));
}

/* log(part / (part + others)), and never below LB_LOG_LEAST_REST. */
static double log_share(double part, double others) {
    return part > LB_LEAST_REST * others ? -log1p(others / part) : LB_LOG_LEAST_REST;
}

double lb_rest_value(double rest, const struct lb_lse *lse, const struct lb_top *top, double temperature) {
    if (isinf(lse->max) || isnan(lse->sum)) {
        return NAN;
    }
    return log_share(rest, sum_exp(top->values, top->n, (float)lse->max, temperature, NULL));
}

/* ---- where some ids are kept ---- */

/* How many kept ids are below id. */
static int64_t below(const struct lb_kept *kept, int64_t id) {
    int64_t low = 0, high = kept->n;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (kept->ids[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

int64_t lb_kept_gather(const struct lb_kept *kept, const float *z, int64_t n, int64_t first, float *out,
                       int64_t *out_n) {
    int64_t begin = below(kept, first), m = 0;
    while (begin + m < kept->n && kept->ids[begin + m] < first + n) {
        out[m] = z[kept->ids[begin + m] - first];
        m++;
    }
    *out_n = m;
    return begin;
}

void lb_parts_add(struct lb_parts *parts, const struct lb_kept *kept, struct lb_lse *lse, struct lb_top *top,
                  const float *z, int64_t n, int64_t first, double temperature) {
    struct lb_lse before = *lse;
    if (temperature > 0) {
        lb_lse_add(lse, z, n, temperature);
    }
    float max = (float)lse->max;
    bool sums = parts != NULL && !isinf(lse->max);
    double held = 0;
    if (sums) { /* as lb_lse_add has scaled what came before */
        double factor = lse->max > before.max ? exp((before.max - lse->max) / temperature) : 1;
        parts->rest *= factor;
        parts->inside *= factor;
        parts->outside = parts->outside * factor + (lse->sum - before.sum * factor);
        held = sum_exp(top->values, top->n, max, temperature, NULL);
    }
    float some[GATHERED];
    for (int64_t at = 0; at < n; at += GATHERED) {
        int64_t m,
            place = lb_kept_gather(kept, z + at, n - at < GATHERED ? n - at : GATHERED, first + at, some, &m);
        if (m == 0) {
            continue;
        }
        lb_top_add(top, some, m, place);
        if (sums) {
            double here = sum_exp(some, m, max, temperature, NULL);
            double now = sum_exp(top->values, top->n, max, temperature, NULL);
            parts->inside += here;
            parts->outside -= here;
            parts->rest += here + held - now;
            held = now;
        }
    }
}

double lb_parts_rest(const struct lb_parts *parts, const struct lb_lse *lse, const struct lb_top *top,
                     double temperature) {
    if (isinf(lse->max) || isnan(lse->sum)) {
        return NAN;
    }
    double listed = sum_exp(top->values, top->n, (float)lse->max, temperature, NULL);
    return log_share(parts->rest, listed + fmax(parts->outside, 0));
}

double lb_parts_outside(const struct lb_parts *parts, const struct lb_lse *lse) {
    return isinf(lse->max) || isnan(lse->sum) ? NAN : log_share(parts->outside, parts->inside);
}

int64_t lb_count_above(const float *z, int64_t v, float least) {
    int64_t n = 0;
    for (int64_t i0 = 0; i0 < v; i0 += CHUNK) {
        int64_t i1 = i0 + CHUNK < v ? i0 + CHUNK : v;
        int some = 0;
#pragma omp simd reduction(+ : some)
        for (int64_t i = i0; i < i1; i++) {
            some += z[i] >= least;
        }
        n += some;
    }
    return n;
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
