#include "tests/support/gradcheck.h"

#include "common/base/mem.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>

enum { ELEMENTS = 16, DIRECTIONS = 3, MAX_INPUTS = 32 };
#define STEP 1e-5

struct check {
    gradcheck_forward forward;
    const void *context;
    double *in[MAX_INPUTS];
    double *out;
    const double *coefficient;
    int64_t n_out;
};

static double *new_doubles(int64_t n) {
    double *p = lb_calloc((size_t)n + 1, sizeof *p);
    assert(p != NULL);
    return p;
}

static double loss(const struct check *check) {
    double sum = 0;
    check->forward(check->context, check->in, check->out);
    for (int64_t i = 0; i < check->n_out; i++) {
        sum += check->coefficient[i] * check->out[i];
    }
    return sum;
}

/* Derivative of the loss along u [n] in one input. */
static double slope(const struct check *check, double *x, const float *value, const double *u, int64_t n) {
    double side[2];
    for (int s = 0; s < 2; s++) {
        for (int64_t i = 0; i < n; i++) {
            x[i] = (double)value[i] + (s == 0 ? STEP : -STEP) * u[i];
        }
        side[s] = loss(check);
    }
    for (int64_t i = 0; i < n; i++) {
        x[i] = (double)value[i];
    }
    return (side[0] - side[1]) / (2 * STEP);
}

static double relative(double difference, double a, double b) {
    double scale = fmax(fabs(a), b);
    return difference == 0 ? 0 : isfinite(difference) && scale > 0 ? fabs(difference) / scale : INFINITY;
}

static double check_input(const struct check *check, int which, const struct gradcheck_input *in,
                          struct lb_rng *rng) {
    double *u = new_doubles(in->n), square = 0, worst = 0;
    for (int64_t i = 0; i < in->n; i++) {
        square += (double)in->grad[i] * (double)in->grad[i];
    }
    double rms = sqrt(square / (double)in->n);
    int64_t tries = in->n <= ELEMENTS ? in->n : ELEMENTS;
    for (int64_t t = 0; t < tries; t++) {
        int64_t i = in->n <= ELEMENTS ? t : (int64_t)lb_rng_below(rng, (uint64_t)in->n);
        u[i] = 1;
        double numeric = slope(check, check->in[which], in->value, u, in->n);
        worst = fmax(worst, relative(numeric - (double)in->grad[i], numeric, rms));
        u[i] = 0;
    }
    for (int t = 0; t < DIRECTIONS; t++) {
        double claimed = 0;
        for (int64_t i = 0; i < in->n; i++) {
            u[i] = lb_rng_below(rng, 2) != 0 ? 1 : -1;
            claimed += u[i] * (double)in->grad[i];
        }
        double numeric = slope(check, check->in[which], in->value, u, in->n);
        worst = fmax(worst, relative(numeric - claimed, numeric, sqrt(square)));
    }
    lb_free(u);
    return worst;
}

double gradcheck(const char *op, gradcheck_forward forward, const void *context,
                 const struct gradcheck_input *in, int n_in, const double *coefficient, int64_t n_out) {
    struct check check = {.forward = forward, .context = context, .coefficient = coefficient, .n_out = n_out};
    struct lb_rng rng;
    double worst = 0;
    lb_rng_seed(&rng, 7, 7);
    assert(n_in <= MAX_INPUTS);
    check.out = new_doubles(n_out);
    for (int k = 0; k < n_in; k++) {
        check.in[k] = new_doubles(in[k].n);
        for (int64_t i = 0; i < in[k].n; i++) {
            check.in[k][i] = (double)in[k].value[i];
        }
    }
    printf("%-28s", op);
    for (int k = 0; k < n_in; k++) {
        double error = check_input(&check, k, &in[k], &rng);
        printf(" d%s %.1e", in[k].name, error);
        worst = fmax(worst, error);
    }
    printf("\n");
    for (int k = 0; k < n_in; k++) {
        lb_free(check.in[k]);
    }
    lb_free(check.out);
    return worst;
}

struct lb_value *random_value(struct lb_tape *tape, struct lb_rng *rng, int64_t rows, int64_t cols,
                              float scale) {
    struct lb_value *v = lb_tape_value(tape, rows, cols);
    assert(v != NULL);
    for (int64_t i = 0; i < rows * cols; i++) {
        v->data[i] = scale * (2 * lb_rng_float(rng) - 1);
    }
    return v;
}

struct lb_weight random_weight(struct lb_rng *rng, int64_t rows, int64_t cols, float center) {
    struct lb_weight w = {
        .name = "w", .rows = rows, .cols = cols, .dtype = LB_F32, .n_dims = rows > 1 ? 2 : 1};
    w.value = lb_malloc_aligned((size_t)(rows * cols) * sizeof *w.value);
    w.grad = lb_calloc((size_t)(rows * cols), sizeof *w.grad);
    assert(w.value != NULL && w.grad != NULL);
    w.data = w.value;
    for (int64_t i = 0; i < rows * cols; i++) {
        w.value[i] = center + lb_rng_float(rng) - 0.5f;
    }
    return w;
}

void free_weight(struct lb_weight *weight) {
    lb_free(weight->value);
    lb_free(weight->grad);
}

void random_gradient(struct lb_tape *tape, struct lb_rng *rng, struct lb_value *v, double *coefficient) {
    assert(v != NULL);
    (void)lb_grad_fresh(tape, v);
    assert(v->grad != NULL);
    for (int64_t i = 0; i < v->rows * v->cols; i++) {
        v->grad[i] = 2 * lb_rng_float(rng) - 1;
        coefficient[i] += (double)v->grad[i];
    }
}
