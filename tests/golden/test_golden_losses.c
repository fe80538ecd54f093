/* Values and gradients of the losses on rows of logits against PyTorch's (make_losses.py), which has the
 * papers' formulas: each loss of the table, at each setting, for each kind of target that it compares with.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/golden.h"
#include "tests/support/loss_variants.h"
#include "tests/support/proofs.h"
#include "trainer/loss/columns.h"
#include "trainer/loss/mixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define ROWS 2
#define VOCAB 40
#define K 6

enum lane { LABEL, DENSE, MIXTURE, TAIL, RENORMALISED, SAMPLED, N_LANES };
static const char *const lane_names[] = {"label", "dense", "mixture", "tail", "renormalised", "sampled"};

static int open_golden(void **state) {
    (void)state;
    return lb_golden_open("losses.safetensors");
}

static const float *row_of(const char *name, int row) {
    return (const float *)lb_golden_find(name)->data + (size_t)row * VOCAB;
}

/* A row's target in a lane; p [VOCAB], p_at and ids [K] hold it. */
static struct lb_target make_target(enum lane lane, int row, double temperature, float *p, float *p_at,
                                    int32_t *ids) {
    const float *z[2] = {row_of("first", row), row_of("second", row)};
    const double weights[2] = {0.3, 0.7};
    unsigned n = lane == MIXTURE ? 2 : 1;
    struct lb_target t = {.kind = LB_TARGET_DENSE, .temperature = temperature, .p = p};
    t.neg_entropy = lb_mixture_dense(LB_COMBINE_PROBS, n, z, weights, temperature, VOCAB, p);
    t.z = n == 1 ? z[0] : NULL;
    static const int drawn[K] = {20, 14, 8, 4, 3, 1};
    if (lane < TAIL) {
        return t;
    }
    bool taken[VOCAB] = {false};
    t = (struct lb_target){.kind = lane == SAMPLED ? LB_TARGET_SAMPLED : LB_TARGET_TRUNCATED,
                           .temperature = temperature,
                           .k = K,
                           .ids = ids,
                           .p_at = p_at,
                           .add_tail = lane == TAIL};
    for (int i = 0; i < K; i++) {
        ids[i] = -1;
        for (int j = 0; j < VOCAB; j++) {
            ids[i] = !taken[j] && (ids[i] < 0 || p[j] > p[ids[i]]) ? j : ids[i];
        }
        taken[ids[i]] = true;
        p_at[i] = lane == SAMPLED ? (float)drawn[i] / 50 : p[ids[i]];
    }
    for (int j = 0; lane != SAMPLED && j < VOCAB; j++) {
        t.tail += taken[j] ? 0 : (double)p[j];
    }
    return t;
}

/* The largest difference of the rows' values, and of their gradients as a share of the largest. */
static void compare(const struct lb_loss *loss, const struct lb_loss_args *args, enum lane lane,
                    const char *key, double *out_value, double *out_grad) {
    char grad_key[96];
    snprintf(grad_key, sizeof grad_key, "%s.grad", key);
    const int32_t *labels = lb_golden_find("labels")->data;
    const double *want = lb_golden_find(key)->data;
    double apart = 0, largest = 0;
    *out_value = 0;
    for (int r = 0; r < ROWS; r++) {
        float memory[4 * (VOCAB + 16)], p[VOCAB], p_at[K], dz[VOCAB] = {0};
        const float *grad = row_of(grad_key, r);
        int32_t ids[K];
        struct lb_row row;
        struct lb_target t = make_target(lane, r, args->temperature, p, p_at, ids);
        lb_row_init(&row, VOCAB, 2, memory);
        lb_row_begin(&row, row_of("student", r), labels[r]);
        double value = lb_loss_row(loss, &row, lane == LABEL ? NULL : &t, args, 1, dz);
        *out_value = fmax(*out_value, fabs(value - want[r]) / fmax(1, fabs(want[r])));
        for (int j = 0; j < VOCAB; j++) {
            apart = fmax(apart, fabs((double)dz[j] - (double)grad[j]));
            largest = fmax(largest, fabs((double)grad[j]));
        }
    }
    *out_grad = apart / largest;
}

static bool serves(const struct lb_loss *loss, enum lane lane) {
    return loss->on == LB_ON_ALIGNED            ? false /* test_golden_uld.c */
           : loss->on == LB_ON_LABEL            ? lane == LABEL
           : lane == LABEL                      ? false
           : lane == MIXTURE && loss->on_logits ? false
           : lane <= MIXTURE                    ? (loss->kinds & LB_TARGET_DENSE) != 0
           : lane == SAMPLED                    ? (loss->kinds & LB_TARGET_SAMPLED) != 0
                                                : (loss->kinds & LB_TARGET_TRUNCATED) != 0;
}

static void losses(void **state) {
    (void)state;
    static const double temperatures[] = {1, 2.5};
    size_t without = 0;
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        const struct lb_loss *loss = lb_loss_at(i);
        struct lb_loss_args args;
        for (int n = 0; loss->row != NULL && lb_loss_variant(loss, n, &args); n++) {
            for (int at = 0; at < 2 * N_LANES; at++) {
                enum lane lane = (enum lane)(at / 2);
                char key[80];
                double value, grad;
                args.temperature = temperatures[at % 2];
                if (!serves(loss, lane) || (lane == LABEL ? at % 2 > 0 : n > 0 && at % 2 == 0)) {
                    continue;
                }
                snprintf(key, sizeof key, "%s.%d.%s.%g", loss->name, n, lane_names[lane], args.temperature);
                if (!lb_golden_has(key)) {
                    without++;
                    continue;
                }
                compare(loss, &args, lane, key, &value, &grad);
                printf("%-36s value off by %.1e, gradient by %.1e of its largest\n", key, value, grad);
                assert_true(value < 5e-6 && grad < 5e-6);
                lb_proof("loss", loss->name, lane_names[lane], "value", value, ROWS);
                lb_proof("loss", loss->name, lane_names[lane], "gradient", grad, ROWS * VOCAB);
            }
        }
    }
    assert_int_equal(without, 0);
}

#define SAMPLES 7
#define CLASSES 10

/* All rows of a micro-batch, whose classes are compared from row to row. */
static void compare_between(const struct lb_loss *loss, const char *key, const struct lb_loss_args *args) {
    const float *z = lb_golden_find("between.student")->data, *its = lb_golden_find("between.teacher")->data;
    char grad_key[80];
    snprintf(grad_key, sizeof grad_key, "%s.grad", key);
    const float *grad = lb_golden_find(grad_key)->data;
    float p[SAMPLES][CLASSES], q[SAMPLES][CLASSES], dz[SAMPLES][CLASSES] = {{0}}, factors[4 * CLASSES],
                                                    memory[4 * (CLASSES + 16)];
    double sums_of[5 * CLASSES], u[SAMPLES], value = 0, apart = 0, largest = 0;
    struct lb_row row;
    struct lb_columns columns;
    struct lb_column_sums sums;
    const double one = 1;
    lb_row_init(&row, CLASSES, 2, memory);
    for (int r = 0; r < SAMPLES; r++) {
        const float *at = its + (size_t)r * CLASSES;
        (void)lb_mixture_dense(LB_COMBINE_PROBS, 1, &at, &one, args->temperature, CLASSES, p[r]);
        lb_row_begin(&row, z + (size_t)r * CLASSES, -1);
        memcpy(q[r], lb_row_softmax(&row, args->temperature)->q, sizeof q[r]);
        u[r] = 1;
    }
    lb_column_sums_init(&sums, CLASSES, sums_of);
    lb_column_sums_add(&sums, 3, p[0], q[0], u); /* in two chunks */
    lb_column_sums_add(&sums, SAMPLES - 3, p[3], q[3], u + 3);
    lb_columns_make(&sums, factors, &columns);
    for (int r = 0; r < SAMPLES; r++) {
        const struct lb_target t = {
            .kind = LB_TARGET_DENSE, .temperature = args->temperature, .p = p[r], .columns = &columns};
        lb_row_begin(&row, z + (size_t)r * CLASSES, -1);
        value += lb_loss_row(loss, &row, &t, args, 1, dz[r]);
    }
    for (int i = 0; i < SAMPLES * CLASSES; i++) {
        apart = fmax(apart, fabs((double)dz[i / CLASSES][i % CLASSES] - (double)grad[i]));
        largest = fmax(largest, fabs((double)grad[i]));
    }
    double off = fabs(value - *(const double *)lb_golden_find(key)->data) / value;
    printf("%-36s value off by %.1e, gradient by %.1e of its largest\n", key, off, apart / largest);
    assert_true(off < 2e-6 && apart < 5e-6 * largest);
    lb_proof("loss", loss->name, "between samples", "value", off, 1);
    lb_proof("loss", loss->name, "between samples", "gradient", apart / largest, SAMPLES * CLASSES);
}

static void between_samples(void **state) {
    (void)state;
    static const double weights[][2] = {{1, 1}, {0, 2}, {2, 0.5}}, temperatures[] = {1, 4};
    bool all = true;
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        const struct lb_loss *loss = lb_loss_at(i);
        for (int n = 0; loss->between_samples && n < 6; n++) {
            const double *w = weights[n / 2], t = temperatures[n % 2];
            const struct lb_loss_args args = {.weight = 1, .temperature = t, .beta = w[0], .gamma = w[1]};
            char key[64];
            snprintf(key, sizeof key, "%s.between.%g.%g.%g", loss->name, w[0], w[1], t);
            if (lb_golden_has(key)) {
                compare_between(loss, key, &args);
            } else {
                all = false;
            }
        }
    }
    assert_true(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(losses), cmocka_unit_test(between_samples)};
    return cmocka_run_group_tests(tests, open_golden, lb_golden_close);
}
