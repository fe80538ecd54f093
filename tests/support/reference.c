#include "tests/support/reference.h"

#include <assert.h>
#include <math.h>

void reference_norm(const double *x, const double *w, const double *bias, int64_t n, int64_t c, double eps,
                    bool centred, double *out) {
    for (int64_t i = 0; i < n; i++, x += c, out += c) {
        double mean = 0, square = 0;
        for (int64_t j = 0; centred && j < c; j++) {
            mean += x[j] / (double)c;
        }
        for (int64_t j = 0; j < c; j++) {
            square += (x[j] - mean) * (x[j] - mean) / (double)c;
        }
        for (int64_t j = 0; j < c; j++) {
            out[j] = (x[j] - mean) / sqrt(square + eps) * w[j] + (bias != NULL ? bias[j] : 0);
        }
    }
}

void reference_rope(const double *x, int64_t n, int heads, int64_t d, int64_t half, const int32_t *positions,
                    const double *frequency, double factor, double *out) {
    for (int64_t i = 0; i < n; i++) {
        for (int h = 0; h < heads; h++, x += d, out += d) {
            for (int64_t j = 0; j < half; j++) {
                double c = factor * cos(positions[i] * frequency[j]),
                       s = factor * sin(positions[i] * frequency[j]);
                out[j] = x[j] * c - x[j + half] * s;
                out[j + half] = x[j + half] * c + x[j] * s;
            }
            for (int64_t j = 2 * half; j < d; j++) {
                out[j] = x[j];
            }
        }
    }
}

double reference_silu(double x) {
    return x / (1 + exp(-x));
}

double reference_gelu(double x, bool tanh_form) {
    if (tanh_form) {
        return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    }
    return 0.5 * x * erfc(-x / sqrt(2));
}

/* One row of one head; p [t] is left with the probabilities. */
static void attend_row(const struct reference_attention *a, const double *q, const double *k, const double *v,
                       int64_t stride, int64_t i, int64_t t, const double *factor, double *p, double *out) {
    double max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < t; j++) {
        bool seen = a->both_ways || (j <= i && (a->window == 0 || j > i - a->window));
        double score = 0;
        for (int d = 0; d < a->dim; d++) {
            score += q[d] * k[j * stride + d];
        }
        score *= a->scale;
        score = a->softcap > 0 ? a->softcap * tanh(score / a->softcap) : score;
        p[j] = seen ? score : -INFINITY;
        max = fmax(max, p[j]);
    }
    for (int64_t j = 0; j < t; j++) {
        p[j] = exp(p[j] - max);
        sum += p[j];
    }
    for (int d = 0; d < a->dim; d++) {
        out[d] = 0;
    }
    for (int64_t j = 0; j < t; j++) {
        p[j] /= sum;
        for (int d = 0; d < a->dim; d++) {
            out[d] += (factor != NULL ? factor[j] : 1) * p[j] * v[j * stride + d];
        }
    }
}

void reference_attention(const struct reference_attention *a, const double *q, const double *k,
                         const double *v, double *out, double *probs) {
    enum { MOST = 2048 };
    const double *factor = a->factor;
    int64_t q_stride = (int64_t)a->heads * a->dim, kv_stride = (int64_t)a->kv_heads * a->dim;
    for (int64_t s = 0; s < a->ragged->n_seqs; s++) {
        int64_t begin = a->ragged->offsets[s], t = a->ragged->offsets[s + 1] - begin;
        assert(t <= MOST);
        for (int h = 0; h < a->heads; h++) {
            int64_t kv_at = begin * kv_stride + h / (a->heads / a->kv_heads) * a->dim;
            for (int64_t i = 0; i < t; i++) {
                int64_t at = (begin + i) * q_stride + (int64_t)h * a->dim;
                double own[MOST], *p = probs != NULL ? probs : own;
                attend_row(a, q + at, k + kv_at, v + kv_at, kv_stride, i, t, factor, p, out + at);
                factor = factor != NULL ? factor + t : NULL;
                probs = probs != NULL ? probs + t : NULL;
            }
        }
    }
}
