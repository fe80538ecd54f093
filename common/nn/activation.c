#include "common/nn/activation.h"
#include "common/nn/ops.h"
#include "common/nn/vecmath.h"

#include <assert.h>
#include <math.h>

#define CHUNK 2048 /* elements one thread takes at a time */

static inline float sigmoid(float x) {
    return 1.0f / (1.0f + lb_expf(-x));
}

/* The standard normal distribution function Phi(x) and density phi(x).
 * Phi(-a), a >= 0, is exp(-a^2/2) q(t) with t = 1 / (1 + 0.33 a); q is a polynomial fitted to the scaled
 * complementary error function over 0 <= a <= 13.5 with relative error 2e-8, so that the left tail keeps its
 * digits. */
static inline float normal_cdf(float x, float *density) {
    float a = x < 0 ? -x : x;
    float e = lb_expf(-0.5f * x * x);
    float t = 1.0f / lb_fmaf(0.33f, a, 1.0f);
    float q = lb_fmaf(-0.0100167783f, t, 0.0302775728f);
    q = lb_fmaf(q, t, 0.0110780318f);
    q = lb_fmaf(q, t, -0.129041213f);
    q = lb_fmaf(q, t, 0.119315029f);
    q = lb_fmaf(q, t, -0.00522022581f);
    q = lb_fmaf(q, t, 0.105891717f);
    q = lb_fmaf(q, t, 0.114096959f);
    q = lb_fmaf(q, t, 0.131982421f);
    q = lb_fmaf(q, t, 0.131636478f);
    float left = q * t * e;
    *density = 0.398942280f * e;
    return x < 0 ? left : 1.0f - left;
}

/* tanh form: 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3). */
#define GELU_2A 1.59576912f    /* 2 sqrt(2/pi) */
#define GELU_2AB 0.0713548162f /* 2 sqrt(2/pi) 0.044715 */

static inline float gelu_tanh_gate(float x) {
    return sigmoid(x * lb_fmaf(GELU_2AB, x * x, GELU_2A));
}

/* An elementwise function: y[n] = f(x[n]), and dx[n] = dy[n] f'(x[n]). */
struct unary {
    void (*forward)(const float *x, float *y, int64_t n);
    void (*backward)(const float *x, const float *dy, float *dx, int64_t n);
};

static void gelu_exact(const float *x, float *y, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float density;
        y[i] = x[i] * normal_cdf(x[i], &density);
    }
}

/* Phi(x) + x phi(x) */
static void gelu_exact_backward(const float *x, const float *dy, float *dx, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float density, cdf = normal_cdf(x[i], &density);
        dx[i] = dy[i] * lb_fmaf(x[i], density, cdf);
    }
}

static void gelu_tanh(const float *x, float *y, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        y[i] = x[i] * gelu_tanh_gate(x[i]);
    }
}

/* s + x s (1 - s) d(2u)/dx, s = sigmoid(2u) */
static void gelu_tanh_backward(const float *x, const float *dy, float *dx, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float s = gelu_tanh_gate(x[i]);
        float slope = lb_fmaf(3 * GELU_2AB, x[i] * x[i], GELU_2A);
        dx[i] = dy[i] * lb_fmaf(x[i] * s * (1 - s), slope, s);
    }
}

static void relu(const float *x, float *y, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        y[i] = x[i] < 0 ? 0 : x[i]; /* a NaN stays one */
    }
}

static void relu_backward(const float *x, const float *dy, float *dx, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        dx[i] = x[i] > 0 ? dy[i] : 0;
    }
}

static void tanh_forward(const float *x, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        y[i] = tanhf(x[i]);
    }
}

static void tanh_backward(const float *x, const float *dy, float *dx, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float y = tanhf(x[i]);
        dx[i] = dy[i] * (1 - y * y);
    }
}

static const struct unary gelu_exact_op = {gelu_exact, gelu_exact_backward};
static const struct unary gelu_tanh_op = {gelu_tanh, gelu_tanh_backward};
static const struct unary relu_op = {relu, relu_backward};
static const struct unary tanh_op = {tanh_forward, tanh_backward};

static int64_t chunk_end(int64_t begin, int64_t n) {
    return begin + CHUNK < n ? begin + CHUNK : n;
}

static void add_to(float *to, const float *from, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        to[i] += from[i];
    }
}

static void unary_backward(struct lb_tape *tape, struct lb_node *node) {
    struct lb_value *x = node->in[0];
    const struct unary *op = node->extra;
    int64_t n = x->rows * x->cols;
    bool fresh = lb_grad_fresh(tape, x);
    if (x->grad == NULL) {
        return;
    }
#pragma omp parallel for schedule(static) if (n > CHUNK)
    for (int64_t i = 0; i < n; i += CHUNK) {
        float dx[CHUNK];
        int64_t here = chunk_end(i, n) - i;
        op->backward(x->data + i, node->out->grad + i, fresh ? x->grad + i : dx, here);
        if (!fresh) {
            add_to(x->grad + i, dx, here);
        }
    }
}

static struct lb_value *unary(struct lb_tape *tape, struct lb_value *x, const struct unary *op) {
    struct lb_value *out = x != NULL ? lb_tape_value(tape, x->rows, x->cols) : NULL;
    if (out == NULL) {
        return NULL;
    }
    int64_t n = x->rows * x->cols;
#pragma omp parallel for schedule(static) if (n > CHUNK)
    for (int64_t i = 0; i < n; i += CHUNK) {
        op->forward(x->data + i, out->data + i, chunk_end(i, n) - i);
    }
    if (!lb_tape_records(tape)) {
        return out;
    }
    struct lb_node *node = lb_tape_push(tape, unary_backward, out);
    if (node == NULL) {
        return NULL;
    }
    node->in[0] = x;
    node->extra = op;
    return out;
}

struct lb_value *lb_gelu(struct lb_tape *tape, struct lb_value *x, bool tanh_form) {
    return unary(tape, x, tanh_form ? &gelu_tanh_op : &gelu_exact_op);
}

struct lb_value *lb_relu(struct lb_tape *tape, struct lb_value *x) {
    return unary(tape, x, &relu_op);
}

struct lb_value *lb_tanh(struct lb_tape *tape, struct lb_value *x) {
    return unary(tape, x, &tanh_op);
}

/* A gate: y[n] = f(g[n]) u[n], and dg[n], du[n] from dy[n]. */
struct gate {
    void (*forward)(const float *g, const float *u, float *y, int64_t n);
    void (*backward)(const float *g, const float *u, const float *dy, float *dg, float *du, int64_t n);
};

void lb_swiglu_row(const float *g, const float *u, float *y, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        y[i] = g[i] * sigmoid(g[i]) * u[i];
    }
}

/* silu'(g) = s (1 + g (1 - s)), s = sigmoid(g) */
static void swiglu_backward(const float *g, const float *u, const float *dy, float *dg, float *du,
                            int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float s = sigmoid(g[i]);
        dg[i] = dy[i] * u[i] * s * lb_fmaf(g[i], 1 - s, 1.0f);
        du[i] = dy[i] * g[i] * s;
    }
}

static void geglu(const float *g, const float *u, float *y, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        y[i] = g[i] * gelu_tanh_gate(g[i]) * u[i];
    }
}

static void geglu_backward(const float *g, const float *u, const float *dy, float *dg, float *du, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float s = gelu_tanh_gate(g[i]);
        float slope = lb_fmaf(3 * GELU_2AB, g[i] * g[i], GELU_2A);
        dg[i] = dy[i] * u[i] * lb_fmaf(g[i] * s * (1 - s), slope, s);
        du[i] = dy[i] * g[i] * s;
    }
}

static const struct gate swiglu_op = {lb_swiglu_row, swiglu_backward};
static const struct gate geglu_op = {geglu, geglu_backward};

static void gate_backward(struct lb_tape *tape, struct lb_node *node) {
    struct lb_value *gate = node->in[0], *up = node->in[1];
    const struct gate *op = node->extra;
    bool gate_fresh = lb_grad_fresh(tape, gate), up_fresh = lb_grad_fresh(tape, up);
    int64_t n = gate->rows * gate->cols;
    if (gate->grad == NULL || up->grad == NULL) {
        return;
    }
#pragma omp parallel for schedule(static) if (n > CHUNK)
    for (int64_t i = 0; i < n; i += CHUNK) {
        float dg[CHUNK], du[CHUNK];
        int64_t here = chunk_end(i, n) - i;
        op->backward(gate->data + i, up->data + i, node->out->grad + i, gate_fresh ? gate->grad + i : dg,
                     up_fresh ? up->grad + i : du, here);
        if (!gate_fresh) {
            add_to(gate->grad + i, dg, here);
        }
        if (!up_fresh) {
            add_to(up->grad + i, du, here);
        }
    }
}

static struct lb_value *gated(struct lb_tape *tape, struct lb_value *gate, struct lb_value *up,
                              const struct gate *op) {
    if (gate == NULL || up == NULL) {
        return NULL;
    }
    assert(gate->rows == up->rows && gate->cols == up->cols);
    struct lb_value *out = lb_tape_value(tape, gate->rows, gate->cols);
    if (out == NULL) {
        return NULL;
    }
    int64_t n = gate->rows * gate->cols;
#pragma omp parallel for schedule(static) if (n > CHUNK)
    for (int64_t i = 0; i < n; i += CHUNK) {
        op->forward(gate->data + i, up->data + i, out->data + i, chunk_end(i, n) - i);
    }
    if (!lb_tape_records(tape)) {
        return out;
    }
    struct lb_node *node = lb_tape_push(tape, gate_backward, out);
    if (node == NULL) {
        return NULL;
    }
    node->in[0] = gate;
    node->in[1] = up;
    node->extra = op;
    return out;
}

struct lb_value *lb_swiglu(struct lb_tape *tape, struct lb_value *gate, struct lb_value *up) {
    return gated(tape, gate, up, &swiglu_op);
}

struct lb_value *lb_geglu(struct lb_tape *tape, struct lb_value *gate, struct lb_value *up) {
    return gated(tape, gate, up, &geglu_op);
}
