/* Weights of teachers, and what they make of loss and gradient, against PyTorch's (make_mixtures.py), which
 * has the papers' formulas. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/golden.h"
#include "trainer/loss/loss.h"
#include "trainer/loss/mixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define ROWS 5
#define VOCAB 24
#define K 3
#define TEMPERATURE 2.5

static int open_golden(void **state) {
    (void)state;
    return lb_golden_open("mixtures.safetensors");
}

static const void *data(const char *name, const char *part) {
    char key[64];
    snprintf(key, sizeof key, "%s%s", name, part);
    return lb_golden_find(key)->data;
}

/* The weighted KL of a row, and its gradient in dz. */
static double row_loss(int row, const double *w, float *dz) {
    const struct lb_loss *kl = lb_loss_find("kl");
    const struct lb_loss_args args = {.weight = 1, .temperature = TEMPERATURE};
    float memory[4 * (VOCAB + 16)], p[VOCAB];
    struct lb_row r;
    double sum = 0;
    lb_row_init(&r, VOCAB, 1, memory);
    lb_row_begin(&r, (const float *)data("student", "") + (size_t)row * VOCAB, -1);
    for (int k = 0; k < K; k++) {
        const float *z = (const float *)data("teachers", "") + ((size_t)k * ROWS + (size_t)row) * VOCAB;
        const double one = 1;
        struct lb_target t = {.kind = LB_TARGET_DENSE, .temperature = TEMPERATURE, .p = p, .z = z};
        t.neg_entropy = lb_mixture_dense(LB_COMBINE_LOSSES, 1, &z, &one, TEMPERATURE, VOCAB, p);
        sum += w[k] * lb_loss_row(kl, &r, &t, &args, (float)w[k], dz);
    }
    return sum;
}

/* Adds the row's products of the teachers' gradients to gram. */
static void add_products(int row, double *gram) {
    float dz[K][VOCAB] = {{0}};
    for (int k = 0; k < K; k++) {
        double only[K] = {0};
        only[k] = 1;
        (void)row_loss(row, only, dz[k]);
        for (int i = 0; i < (k + 1) * VOCAB; i++) {
            double product = (double)dz[k][i % VOCAB] * (double)dz[i / VOCAB][i % VOCAB];
            gram[k * K + i / VOCAB] += product;
            gram[i / VOCAB * K + k] += i / VOCAB < k ? product : 0;
        }
    }
}

/* sequence: the rows are one sequence. */
static void weights_of(const struct lb_mixture *m, enum lb_mixture_by by, bool sequence, int row, double *w) {
    static const bool present[K] = {true, true, true};
    static const double given[K] = {1, 1, 1};
    double ce[K], entropy[K], max_prob[K];
    for (int k = 0; k < K; k++) {
        ce[k] = ((const double *)data("ce", ""))[k * ROWS + row];
        entropy[k] = ((const double *)data("entropy", ""))[k * ROWS + row];
        max_prob[k] = ((const double *)data("max_prob", ""))[k * ROWS + row];
    }
    double gram[K * K] = {0};
    for (int r = 0; r < ROWS; r++) {
        if (sequence || r == row) {
            add_products(r, gram);
        }
    }
    const struct lb_weighing in = {.gram = gram,
                                   .n = K,
                                   .present = present,
                                   .given = given,
                                   .cross_entropy = ce,
                                   .entropy = entropy,
                                   .max_prob = max_prob,
                                   .by = by,
                                   .temperature = 0.5};
    lb_mixture_weights(m, &in, w);
}

static void check(const char *key, const char *name, enum lb_mixture_by by) {
    const struct lb_mixture *m = lb_mixture_find(name);
    const double *want = data(key, ".weights"), *loss = data(key, ".loss");
    const float *grad = data(key, ".grad");
    double apart = 0, loss_apart = 0, grad_apart = 0, largest = 0;
    assert_non_null(m);
    for (int row = 0; row < ROWS; row++) {
        double w[K];
        float dz[VOCAB] = {0};
        weights_of(m, by, strstr(key, "sequence") != NULL, row, w);
        for (int k = 0; k < K; k++) {
            apart = fmax(apart, fabs(w[k] - want[k * ROWS + row]));
        }
        loss_apart = fmax(loss_apart, fabs(row_loss(row, w, dz) - loss[row]) / fmax(1, loss[row]));
        for (int j = 0; j < VOCAB; j++) {
            grad_apart = fmax(grad_apart, fabs((double)dz[j] - (double)grad[row * VOCAB + j]));
            largest = fmax(largest, fabs((double)grad[row * VOCAB + j]));
        }
    }
    printf("%-18s weights off by %.1e, loss by %.1e, gradient by %.1e of its largest\n", key, apart,
           loss_apart, grad_apart / largest);
    assert_true(apart < ((m->needs & LB_NEEDS_GRADIENTS) != 0 ? 5e-6 : 1e-12)); /* of gradients in float */
    assert_true(loss_apart < 5e-6 && grad_apart / largest < 5e-6);
}

static void mixtures(void **state) {
    (void)state;
    check("mean_losses", "mean_losses", LB_BY_CE);
    check("ca_mkd", "ca_mkd", LB_BY_CE);
    check("entropy", "entropy", LB_BY_CE);
    check("dynamic.ce", "dynamic", LB_BY_CE);
    check("dynamic.entropy", "dynamic", LB_BY_ENTROPY);
    check("dynamic.max_prob", "dynamic", LB_BY_MAX_PROB);
    check("select.ce", "select", LB_BY_CE);
    check("select.entropy", "select", LB_BY_ENTROPY);
    check("select.max_prob", "select", LB_BY_MAX_PROB);
    check("aekd", "aekd", LB_BY_CE);
    check("aekd.sequence", "aekd", LB_BY_CE);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(mixtures)};
    return cmocka_run_group_tests(tests, open_golden, lb_golden_close);
}
