/* Losses between samples against their formula in double: the value, and the gradient of each row against
 * central differences of all rows' loss, with sign. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/grad/loss_formulas.h"
#include "tests/support/loss_variants.h"
#include "tests/support/normals.h"
#include "tests/support/proofs.h"
#include "trainer/loss/columns.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define V LB_FORMULA_V
#define ADDED 0x1p-13f
#define TOLERANCE 1e-5 /* as in test_grad_losses.c */
#define SAMPLES 5

static struct lb_rng rng;

/* DIST: T^2 times beta (1 - each row's correlation over the classes), as often as it counts, and gamma (1 -
 * the mean of each class's over the rows, which count so often) for all of them. */
static double dist_of(double z[SAMPLES][V], double p[SAMPLES][V], const double *u, double t, double beta,
                      double gamma) {
    double q[SAMPLES][V], sum = 0, rows = 0, of_r = 0;
    for (int i = 0; i < SAMPLES; i++) {
        double aa = 0, bb = 0, ab = 0;
        lb_formula_softmax(z[i], t, q[i]);
        for (int j = 0; j < V; j++) {
            double a = p[i][j] - 1.0 / V, b = q[i][j] - 1.0 / V;
            aa += a * a, bb += b * b, ab += a * b;
        }
        sum += u[i] * beta * (1 - ab / sqrt(aa * bb));
        rows += u[i];
    }
    for (int j = 0; j < V; j++) {
        double mean_p = 0, mean_q = 0, aa = 0, bb = 0, ab = 0;
        for (int i = 0; i < SAMPLES; i++) {
            mean_p += u[i] * p[i][j] / rows;
            mean_q += u[i] * q[i][j] / rows;
        }
        for (int i = 0; i < SAMPLES; i++) {
            double a = p[i][j] - mean_p, b = q[i][j] - mean_q;
            aa += u[i] * a * a, bb += u[i] * b * b, ab += u[i] * a * b;
        }
        of_r += ab / sqrt(aa * bb) / V;
    }
    return t * t * (sum + gamma * rows * (1 - of_r));
}

/* The columns of these rows. factors [4, V] */
static struct lb_columns columns_of(float p[SAMPLES][V], float z[SAMPLES][V], double t, const double *u,
                                    float *factors) {
    static double sums_of[5 * V];
    float q[SAMPLES][V];
    struct lb_column_sums sums;
    struct lb_columns out;
    for (int i = 0; i < SAMPLES; i++) {
        double wide[V], soft[V];
        for (int j = 0; j < V; j++) {
            wide[j] = (double)z[i][j];
        }
        lb_formula_softmax(wide, t, soft);
        for (int j = 0; j < V; j++) {
            q[i][j] = (float)soft[j];
        }
    }
    lb_column_sums_init(&sums, V, sums_of);
    lb_column_sums_add(&sums, SAMPLES, p[0], q[0], u);
    lb_columns_make(&sums, factors, &out);
    return out;
}

static void check_between(const struct lb_loss *loss, double t, double beta, double gamma) {
    static const double u[SAMPLES] = {1, 0.25, 0, 2, 1}; /* one does not count */
    float z[SAMPLES][V], p[SAMPLES][V], dz[SAMPLES][V], factors[4 * V];
    double zd[SAMPLES][V], pd[SAMPLES][V], value = 0, worst = 0, scale = 0;
    for (int i = 0; i < SAMPLES; i++) {
        struct lb_formula_teacher of;
        lb_normals(&rng, z[i], V, 2);
        lb_normals(&rng, of.z, V, 2);
        lb_formula_teach(&of, t);
        memcpy(p[i], of.p, sizeof p[i]);
        for (int j = 0; j < V; j++) {
            zd[i][j] = (double)z[i][j];
            pd[i][j] = (double)p[i][j];
            dz[i][j] = ADDED;
        }
    }
    const struct lb_columns columns = columns_of(p, z, t, u, factors);
    lb_formula_args = (struct lb_loss_args){.weight = 1, .temperature = t, .beta = beta, .gamma = gamma};
    for (int i = 0; i < SAMPLES; i++) {
        const struct lb_target target = {
            .kind = LB_TARGET_DENSE, .temperature = t, .p = p[i], .columns = &columns};
        value += u[i] * lb_formula_run(loss, z[i], &target, (float)(0.7 * u[i]), dz[i]);
    }
    double want = dist_of(zd, pd, u, t, beta, gamma);
    assert_true(fabs(value - want) < 1e-5 * want);
    for (int n = 0; n < SAMPLES * V; n++) {
        double *at = &zd[n / V][n % V], keep = *at, h = 1e-5;
        *at = keep + h;
        double up = dist_of(zd, pd, u, t, beta, gamma);
        *at = keep - h;
        double g = 0.7 * (up - dist_of(zd, pd, u, t, beta, gamma)) / (2 * h);
        *at = keep;
        worst = fmax(worst, fabs((double)(dz[n / V][n % V] - ADDED) - g));
        scale = fmax(scale, fabs(g));
    }
    printf("%-14s between samples T %-4g beta %g gamma %g loss %.6f, gradient off by %.2e of its largest\n",
           loss->name, t, beta, gamma, value, worst / scale);
    assert_true(worst / scale < TOLERANCE);
    lb_proof("loss", loss->name, "between samples", "differences", worst / scale, SAMPLES * V);
}

static void between_samples(void **state) {
    (void)state;
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        if (lb_loss_at(i)->between_samples) {
            check_between(lb_loss_at(i), 1, 1, 1);
            check_between(lb_loss_at(i), 2.5, 0, 2);
            check_between(lb_loss_at(i), 2.5, 2, 0.5);
        }
    }
}

/* One row has no relation to others: the loss is all there can be, and there is no gradient; nor where a
 * class is as likely in all rows, or hardly there. */
static void even_columns(void **state) {
    (void)state;
    const struct lb_loss *loss = lb_loss_find("dist");
    float p[2][3] = {{0.5f, 0.5f, 1e-30f}, {0.25f, 0.5f, 2e-30f}},
          q[2][3] = {{0.25f, 0.5f, 0.25f}, {0.5f, 0.25f, 0.25f}}, factors[12], z[V], dz[V] = {0},
          none[V] = {0};
    double sums_of[15], u[2] = {1, 1};
    struct lb_column_sums sums;
    struct lb_columns c;
    for (int rows = 1; rows <= 2; rows++) {
        lb_column_sums_init(&sums, 3, sums_of);
        lb_column_sums_add(&sums, rows, p[0], q[0], u);
        lb_columns_make(&sums, factors, &c);
        assert_true(fabs(c.apart - (rows == 1 ? 1 : 1 + 1.0 / 3)) < 1e-6);
        for (int j = rows == 1 ? 0 : 1; j < 3; j++) {
            assert_true(c.by_p[j] == 0 && c.by_q[j] == 0);
        }
    }
    struct lb_formula_teacher t;
    lb_normals(&rng, z, V, 2);
    lb_normals(&rng, t.z, V, 2);
    lb_formula_teach(&t, 1);
    (void)lb_loss_variant(loss, 0, &lb_formula_args);
    lb_formula_args.temperature = 1;
    lb_formula_args.gamma = 3; /* nobody has made columns: the rows' part alone */
    double with = lb_formula_run(loss, z, &t.dense, 1, dz);
    lb_formula_args.gamma = 0;
    assert_true(with == lb_formula_run(loss, z, &t.dense, 1, none));
    assert_memory_equal(dz, none, sizeof dz);
}

/* Nor is there a gradient where a row is even but for rounding: there it would be rounding, blown up. */
static void even_rows(void **state) {
    (void)state;
    const struct lb_loss *loss = lb_loss_find("dist");
    float z[V], dz[V] = {0}, none[V] = {0};
    struct lb_formula_teacher t;
    lb_normals(&rng, t.z, V, 2);
    lb_formula_teach(&t, 2);
    (void)lb_loss_variant(loss, 0, &lb_formula_args);
    lb_formula_args.temperature = 2;
    for (int j = 0; j < V; j++) {
        z[j] = j % 3 == 0 ? 1 : 1 + 0x1p-22f;
    }
    assert_true(lb_formula_run(loss, z, &t.dense, 1, dz) == 4);
    assert_memory_equal(dz, none, sizeof dz);
    z[0] = 1.5f;
    assert_true(lb_formula_run(loss, z, &t.dense, 1, dz) != 4);
}

int main(void) {
    lb_rng_seed(&rng, 11, 0);
    const struct CMUnitTest tests[] = {cmocka_unit_test(between_samples), cmocka_unit_test(even_columns),
                                       cmocka_unit_test(even_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
