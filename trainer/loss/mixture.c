#include "trainer/loss/mixture.h"

#include "common/nn/reduce.h"
#include "common/nn/vecmath.h"

#include <math.h>
#include <string.h>

static void normalise(unsigned n, double *w) {
    double sum = 0;
    for (unsigned k = 0; k < n; k++) {
        sum += w[k];
    }
    for (unsigned k = 0; k < n && sum > 0; k++) {
        w[k] /= sum;
    }
}

void lb_mixture_weights(enum lb_mixture_method method, unsigned n, const bool *present,
                        const double *static_weight, const double *cross_entropy, double *out) {
    unsigned there = 0;
    double least = INFINITY, sum = 0;
    for (unsigned k = 0; k < n; k++) {
        there += present[k] ? 1 : 0;
        out[k] = present[k] ? static_weight[k] : 0;
        least = present[k] && method == LB_MIX_CA_MKD ? fmin(least, cross_entropy[k]) : least;
    }
    if (method == LB_MIX_CA_MKD && there > 1) {
        for (unsigned k = 0; k < n; k++) {
            sum += present[k] ? exp(cross_entropy[k] - least) : 0;
        }
        for (unsigned k = 0; k < n; k++) {
            out[k] *= present[k] ? (1 - exp(cross_entropy[k] - least) / sum) / (there - 1) : 0;
        }
    }
    normalise(n, out);
}

/* p += w softmax(z / T) */
static void add_softmax(const float *z, int64_t v, double temperature, double lse, double w, float *p) {
    float inverse = (float)(1 / temperature), shift = (float)lse, factor = (float)w;
    for (int64_t j = 0; j < v; j++) {
        p[j] += factor * lb_expf(z[j] * inverse - shift);
    }
}

/* sum p z / T */
static double expectation(const float *p, const float *z, int64_t v, double temperature) {
    double sum = 0;
    for (int64_t begin = 0; begin < v; begin += 1024) {
        int64_t end = v - begin < 1024 ? v : begin + 1024;
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t j = begin; j < end; j++) {
            part += p[j] * z[j];
        }
        sum += part;
    }
    return sum / temperature;
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

double lb_mixture_dense(enum lb_mixture_method method, unsigned n, const float *const *z,
                        const double *weight, double temperature, int64_t v, float *p) {
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
        return expectation(p, z[only], v, temperature) - lse;
    }
    if (method == LB_MIX_LOGITS) {
        for (unsigned k = 0; k < n; k++) {
            for (int64_t j = 0; z[k] != NULL && weight[k] > 0 && j < v; j++) {
                p[j] += (float)weight[k] * z[k][j];
            }
        }
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
