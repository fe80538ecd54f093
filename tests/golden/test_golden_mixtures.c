/* Weights of teachers, and what they make of loss and gradient, against PyTorch's (make_mixtures.py), which
 * has the papers' formulas. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/golden.h"
#include "tests/support/proofs.h"
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
    char key[96];
    snprintf(key, sizeof key, "%s%s", name, part);
    return lb_golden_find(key)->data;
}

static const float *teacher(int k, int row) {
    return (const float *)data("teachers", "") + ((size_t)k * ROWS + (size_t)row) * VOCAB;
}

/* The KL of a row against what the teachers' are combined to, and its gradient in dz. */
static double row_loss(enum lb_combine combine, int row, const double *w, float *dz) {
    const struct lb_loss *kl = lb_loss_find("kl");
    const struct lb_loss_args args = {.weight = 1, .temperature = TEMPERATURE};
    float memory[4 * (VOCAB + 16)], p[VOCAB];
    struct lb_row r;
    double sum = 0;
    lb_row_init(&r, VOCAB, 1, memory);
    lb_row_begin(&r, (const float *)data("student", "") + (size_t)row * VOCAB, -1);
    if (combine != LB_COMBINE_LOSSES) {
        const float *all[K] = {teacher(0, row), teacher(1, row), teacher(2, row)};
        struct lb_target t = {.kind = LB_TARGET_DENSE, .temperature = TEMPERATURE, .p = p};
        t.neg_entropy = lb_mixture_dense(combine, K, all, w, TEMPERATURE, VOCAB, p);
        return lb_loss_row(kl, &r, &t, &args, 1, dz);
    }
    for (int k = 0; k < K; k++) {
        const float *z = teacher(k, row);
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
        (void)row_loss(LB_COMBINE_LOSSES, row, only, dz[k]);
        for (int i = 0; i < (k + 1) * VOCAB; i++) {
            double product = (double)dz[k][i % VOCAB] * (double)dz[i / VOCAB][i % VOCAB];
            gram[k * K + i / VOCAB] += product;
            gram[i / VOCAB * K + k] += i / VOCAB < k ? product : 0;
        }
    }
}

static const void *data_or_none(const char *key, const char *part) {
    char name[96];
    snprintf(name, sizeof name, "%s%s", key, part);
    const struct lb_tensor *t = lb_safetensors_find(lb_golden, name);
    return t != NULL ? t->data : NULL;
}

/* sequence: the rows are one sequence. */
static void weights_of(const struct lb_mixture *m, const char *key, enum lb_mixture_by by, bool sequence,
                       int row, double *w) {
    static const double even[K] = {1, 1, 1};
    const double *given = data_or_none(key, ".given");
    const int32_t *asked = data_or_none(key, ".present");
    double ce[K], entropy[K], max_prob[K];
    bool present[K];
    for (int k = 0; k < K; k++) {
        present[k] = asked == NULL || asked[k * ROWS + row] != 0;
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
                                   .given = given != NULL ? given : even,
                                   .cross_entropy = ce,
                                   .entropy = entropy,
                                   .max_prob = max_prob,
                                   .by = by,
                                   .temperature = 0.5,
                                   .draw = ((const double *)data("draw", ""))[row]};
    lb_mixture_weights(m, &in, w);
}

/* False: there are no golden values. */
static bool check(const struct lb_mixture *m, const char *how, enum lb_mixture_by by, bool sequence) {
    char key[64], at[80];
    snprintf(key, sizeof key, "%s%s", m->name, how);
    snprintf(at, sizeof at, "%s.weights", key);
    if (!lb_golden_has(at)) {
        return false;
    }
    const double *want = data(key, ".weights"), *loss = data(key, ".loss");
    const float *grad = data(key, ".grad");
    double apart = 0, loss_apart = 0, grad_apart = 0, largest = 0;
    for (int row = 0; row < ROWS; row++) {
        double w[K];
        float dz[VOCAB] = {0};
        weights_of(m, key, by, sequence, row, w);
        for (int k = 0; k < K; k++) {
            apart = fmax(apart, fabs(w[k] - want[k * ROWS + row]));
        }
        loss_apart =
            fmax(loss_apart, fabs(row_loss(m->combine, row, w, dz) - loss[row]) / fmax(1, loss[row]));
        for (int j = 0; j < VOCAB; j++) {
            grad_apart = fmax(grad_apart, fabs((double)dz[j] - (double)grad[row * VOCAB + j]));
            largest = fmax(largest, fabs((double)grad[row * VOCAB + j]));
        }
    }
    printf("%-18s weights off by %.1e, loss by %.1e, gradient by %.1e of its largest\n", key, apart,
           loss_apart, grad_apart / largest);
    assert_true(apart < ((m->needs & LB_NEEDS_GRADIENTS) != 0 ? 5e-6 : 1e-12)); /* of gradients in float */
    assert_true(loss_apart < 5e-6 && grad_apart / largest < 5e-6);
    lb_proof("mixture", m->name, "weights", "value", apart, ROWS * K);
    lb_proof("mixture", m->name, "kl", "value", loss_apart, ROWS);
    lb_proof("mixture", m->name, "kl", "gradient", grad_apart / largest, ROWS * VOCAB);
    return true;
}

static void mixtures(void **state) {
    (void)state;
    static const char *const by[] = {
        [LB_BY_CE] = ".ce", [LB_BY_ENTROPY] = ".entropy", [LB_BY_MAX_PROB] = ".max_prob"};
    bool all = true;
    for (size_t i = 0; lb_mixture_at(i) != NULL; i++) {
        const struct lb_mixture *m = lb_mixture_at(i);
        for (int b = LB_BY_CE; b <= (m->by_choice ? LB_BY_MAX_PROB : LB_BY_CE); b++) {
            all = check(m, m->by_choice ? by[b] : "", (enum lb_mixture_by)b, false) && all;
        }
        if ((m->needs & LB_NEEDS_GRADIENTS) != 0) {
            all = check(m, ".sequence", LB_BY_CE, true) && all;
        }
    }
    assert_true(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(mixtures)};
    return cmocka_run_group_tests(tests, open_golden, lb_golden_close);
}
