/* Distributions made one: whole ones, and truncated ones. */
#include "common/nn/reduce.h"
#include "common/nn/vecmath.h"
#include "trainer/loss/mixture.h"
#include "trainer/loss/row.h"

#include <string.h>

/* p += w softmax(z / T) */
static void add_softmax(const float *z, int64_t v, double temperature, double lse, double w, float *p) {
    float inverse = (float)(1 / temperature), shift = (float)lse, factor = (float)w;
    for (int64_t j = 0; j < v; j++) {
        p[j] += factor * lb_expf(z[j] * inverse - shift);
    }
}

static double neg_entropy(const float *p, int64_t v) {
    double sum = 0;
    for (int64_t begin = 0; begin < v; begin += 1024) {
        int64_t end = v - begin < 1024 ? v : begin + 1024;
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t j = begin; j < end; j++) {
            part += p[j] * lb_logf(p[j] > 1e-30f ? p[j] : 1e-30f);
        }
        sum += part;
    }
    return sum;
}

void lb_mixture_logits(unsigned n, const float *const *z, const double *weight, int64_t v, float *out) {
    memset(out, 0, (size_t)v * sizeof *out);
    for (unsigned k = 0; k < n; k++) {
        for (int64_t j = 0; z[k] != NULL && weight[k] > 0 && j < v; j++) {
            out[j] += (float)weight[k] * z[k][j];
        }
    }
}

double lb_mixture_dense(enum lb_combine combine, unsigned n, const float *const *z, const double *weight,
                        double temperature, int64_t v, float *p) {
    unsigned there = 0, only = 0;
    for (unsigned k = 0; k < n; k++) {
        if (z[k] != NULL && weight[k] > 0) {
            there++;
            only = k;
        }
    }
    memset(p, 0, (size_t)v * sizeof *p);
    if (there == 1) {
        double lse = lb_logsumexp(z[only], v, temperature);
        add_softmax(z[only], v, temperature, lse, 1, p);
        return lb_row_inner(p, z[only], v) / temperature - lse;
    }
    if (combine == LB_COMBINE_LOGITS) {
        lb_mixture_logits(n, z, weight, v, p);
        double lse = lb_logsumexp(p, v, temperature);
        lb_softmax(p, v, temperature, lse, p);
        return neg_entropy(p, v);
    }
    for (unsigned k = 0; k < n; k++) {
        if (z[k] != NULL && weight[k] > 0) {
            add_softmax(z[k], v, temperature, lb_logsumexp(z[k], v, temperature), weight[k], p);
        }
    }
    return neg_entropy(p, v);
}

/* What teacher k gives each id that it did not list. */
static double even_share(const struct lb_truncated *from, int64_t v) {
    return from->k < v ? from->tail / (double)(v - from->k) : 0;
}

int64_t lb_mixture_truncated(unsigned n, const struct lb_truncated *from, const double *weight, int64_t v,
                             int32_t *slot, int32_t *ids, float *p, double *out_tail) {
    double shares = 0; /* what an id would have that nobody listed */
    int64_t size = 0;
    for (unsigned k = 0; k < n; k++) {
        shares += weight[k] > 0 ? weight[k] * even_share(&from[k], v) : 0;
    }
    for (unsigned k = 0; k < n; k++) {
        double share = even_share(&from[k], v);
        for (int64_t i = 0; weight[k] > 0 && i < from[k].k; i++) {
            int32_t id = from[k].ids[i];
            if (slot[id] < 0) {
                slot[id] = (int32_t)size;
                ids[size] = id;
                p[size++] = (float)shares;
            }
            p[slot[id]] += (float)(weight[k] * (from[k].p[i] - share));
        }
    }
    for (int64_t i = 0; i < size; i++) {
        slot[ids[i]] = -1;
        p[i] = p[i] > 0 ? p[i] : 0; /* rounding of shares taken back */
    }
    *out_tail = shares * (double)(v - size);
    return size;
}
