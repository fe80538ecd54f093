/* Mixtures of experts: gradients against finite differences, and what a batch must not change. */
#include "common/nn/ops.h"
#include "tests/support/gradcheck.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 11, C = 9, F = 7, E = 5, MOST_K = 3, N_SEQS = 4 };
#define TOLERANCE 5e-6

static const int32_t offsets[N_SEQS + 1] = {0, 1, 6, 6, N};

struct fixture {
    struct lb_tape *tape;
    struct lb_rng rng;
    struct lb_ragged ragged;
    struct lb_weight gate[E], up[E], down[E];
    struct lb_experts_args args;
    int32_t chosen[N][MOST_K]; /* the same for the reference: its small steps choose no others */
};

static void begin(struct fixture *f, enum lb_tape_mode mode, int64_t k, bool normalise) {
    memset(f, 0, sizeof *f);
    lb_rng_seed(&f->rng, 42, (uint64_t)k);
    f->ragged = (struct lb_ragged){N_SEQS, offsets};
    f->tape = lb_tape_create((size_t)64 << 20);
    assert_non_null(f->tape);
    lb_tape_begin(f->tape, mode, &f->ragged, &f->rng);
    for (int e = 0; e < E; e++) {
        f->gate[e] = random_weight(&f->rng, F, C, 0);
        f->up[e] = random_weight(&f->rng, F, C, 0);
        f->down[e] = random_weight(&f->rng, C, F, 0);
    }
    f->args = (struct lb_experts_args){f->gate, f->up, f->down, k, normalise};
}

static void end(struct fixture *f) {
    for (int e = 0; e < E; e++) {
        free_weight(&f->gate[e]);
        free_weight(&f->up[e]);
        free_weight(&f->down[e]);
    }
    lb_tape_destroy(f->tape);
}

/* The K largest of a row, which differ. */
static void choose(const double *z, int64_t k, int32_t *chosen) {
    for (int64_t i = 0; i < k; i++) {
        chosen[i] = -1;
        for (int32_t e = 0; e < E; e++) {
            bool better = chosen[i] < 0 || z[e] > z[chosen[i]];
            for (int64_t t = 0; t < i; t++) {
                better = better && chosen[t] != e;
            }
            chosen[i] = better ? e : chosen[i];
        }
    }
}

static void one_expert(const double *x, const double *gate, const double *up, const double *down,
                       double weight, double *out) {
    for (int j = 0; j < F; j++) {
        double g = 0, u = 0;
        for (int c = 0; c < C; c++) {
            g += gate[j * C + c] * x[c];
            u += up[j * C + c] * x[c];
        }
        double h = weight * g / (1 + exp(-g)) * u;
        for (int c = 0; c < C; c++) {
            out[c] += down[c * F + j] * h;
        }
    }
}

/* in: x, logits, then gate, up and down of each expert. */
static void experts_forward(const void *context, double *const *in, double *out) {
    const struct fixture *f = context;
    int64_t k = f->args.asked;
    memset(out, 0, N * C * sizeof *out);
    for (int row = 0; row < N; row++) {
        const double *z = in[1] + row * E;
        double all = 0, chosen = 0;
        for (int e = 0; e < E; e++) {
            all += exp(z[e]);
        }
        for (int64_t i = 0; i < k; i++) {
            chosen += exp(z[f->chosen[row][i]]);
        }
        for (int64_t i = 0; i < k; i++) {
            int e = f->chosen[row][i];
            one_expert(in[0] + row * C, in[2 + 3 * e], in[3 + 3 * e], in[4 + 3 * e],
                       exp(z[e]) / (f->args.normalise ? chosen : all), out + row * C);
        }
    }
}

static struct gradcheck_input of_weight(const char *name, const struct lb_weight *w) {
    return (struct gradcheck_input){name, w->value, w->grad, w->rows * w->cols};
}

static void gradients(void **state) {
    (void)state;
    for (int k = 1; k <= MOST_K; k++) {
        for (int normalise = 0; normalise < 2; normalise++) {
            struct fixture f;
            double coefficient[N * C] = {0}, z[E];
            begin(&f, LB_TAPE_TRAIN, k, normalise);
            struct lb_value *x = random_value(f.tape, &f.rng, N, C, 1);
            struct lb_value *logits = random_value(f.tape, &f.rng, N, E, 2);
            for (int row = 0; row < N; row++) {
                for (int e = 0; e < E; e++) {
                    logits->data[row * E + e] += e == 3 ? -9.0f : 0.1f * (float)e; /* one that nobody asks */
                    z[e] = logits->data[row * E + e];
                }
                choose(z, k, f.chosen[row]);
            }
            struct lb_value *first = lb_experts(f.tape, x, logits, &f.args);
            struct lb_value *second = lb_experts(f.tape, x, logits, &f.args);
            assert_non_null(second);
            random_gradient(f.tape, &f.rng, first, coefficient);
            random_gradient(f.tape, &f.rng, second, coefficient);
            assert_int_equal(lb_tape_backward(f.tape), LB_OK);
            struct gradcheck_input in[2 + 3 * E] = {{"x", x->data, x->grad, N * C},
                                                    {"logits", logits->data, logits->grad, N * E}};
            for (int e = 0; e < E; e++) {
                in[2 + 3 * e] = of_weight("gate", &f.gate[e]);
                in[3 + 3 * e] = of_weight("up", &f.up[e]);
                in[4 + 3 * e] = of_weight("down", &f.down[e]);
            }
            for (int i = 0; i < C * F; i++) {
                assert_true(f.up[3].grad[i] == 0);
            }
            assert_true(gradcheck("experts", experts_forward, &f, in, 2 + 3 * E, coefficient, N * C) <
                        TOLERANCE);
            end(&f);
        }
    }
}

/* Each sequence alone has the bits that it has among others, and the memory goes by the rows alone. */
static void rows_do_not_know_of_others(void **state) {
    (void)state;
    struct fixture f;
    float x[N * C], z[N * E], whole[N * C];
    begin(&f, LB_TAPE_PLAIN, 2, true);
    for (int i = 0; i < N * C; i++) {
        x[i] = lb_rng_float(&f.rng) - 0.5f;
    }
    for (int i = 0; i < N * E; i++) {
        z[i] = lb_rng_float(&f.rng);
    }
    size_t high = 0;
    for (int s = -1; s < N_SEQS + 2; s++) { /* all; each; all with one and the same expert first, or NaN */
        bool all = s < 0 || s >= N_SEQS;
        int32_t from = all ? 0 : offsets[s], n = all ? N : offsets[s + 1] - offsets[s], alone[2] = {0, n};
        struct lb_ragged one = {1, alone};
        lb_tape_shrink(f.tape);
        lb_tape_limit(f.tape, (size_t)64 << 20);
        lb_tape_begin(f.tape, LB_TAPE_PLAIN, all ? &f.ragged : &one, NULL);
        struct lb_value *v = lb_tape_value(f.tape, n, C), *logits = lb_tape_value(f.tape, n, E);
        memcpy(v->data, x + from * C, (size_t)(n * C) * sizeof *x);
        memcpy(logits->data, z + from * E, (size_t)(n * E) * sizeof *z);
        for (int i = 0; i < n * E && s >= N_SEQS; i++) {
            logits->data[i] = s > N_SEQS ? NAN : i % E == 2 ? 9.0f : 0;
        }
        struct lb_value *out = lb_experts(f.tape, v, logits, &f.args);
        assert_non_null(out);
        assert_ptr_equal(lb_tape_ragged(f.tape), all ? &f.ragged : &one);
        if (s < 0) {
            memcpy(whole, out->data, sizeof whole);
            high = lb_tape_high(f.tape);
        } else if (!all) {
            assert_memory_equal(out->data, whole + from * C, (size_t)(n * C) * sizeof *whole);
        } else {
            assert_int_equal(lb_tape_high(f.tape), high);
        }
    }
    end(&f);
}

/* Of equal ones the first are asked. */
static void ties(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, LB_TAPE_TRAIN, 2, true);
    struct lb_value *x = random_value(f.tape, &f.rng, N, C, 1), *logits = lb_tape_value(f.tape, N, E);
    double coefficient[N * C] = {0};
    for (int i = 0; i < N * E; i++) {
        logits->data[i] = i % E == 0 ? -1 : 0.5f;
    }
    struct lb_value *out = lb_experts(f.tape, x, logits, &f.args);
    random_gradient(f.tape, &f.rng, out, coefficient);
    assert_int_equal(lb_tape_backward(f.tape), LB_OK);
    for (int e = 0; e < E; e++) {
        assert_true((f.down[e].grad[0] != 0) == (e == 1 || e == 2));
    }
    end(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients),
        cmocka_unit_test(rows_do_not_know_of_others),
        cmocka_unit_test(ties),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
