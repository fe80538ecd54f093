/* Each loss against its formula in double: the value, and the gradient against central differences of that
 * formula, with sign. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/rng.h"
#include "trainer/loss/loss.h"
#include "trainer/loss/mixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define V 50
#define K 6
#define ROWS 5
#define WIDTH 12
/* Float gradients of sums of V terms: rounding is near 1e-6 of the largest. */
#define TOLERANCE 1e-5

static struct lb_rng rng;

static void normals(float *out, int64_t n, double scale) {
    for (int64_t i = 0; i < n; i++) {
        out[i] = (float)(scale * lb_rng_normal(&rng));
    }
}

static void softmax(const double *z, double t, double *q) {
    double top = -INFINITY, sum = 0;
    for (int i = 0; i < V; i++) {
        top = fmax(top, z[i]);
    }
    for (int i = 0; i < V; i++) {
        q[i] = exp((z[i] - top) / t);
        sum += q[i];
    }
    for (int i = 0; i < V; i++) {
        q[i] /= sum;
    }
}

/* ---- the formulas in double
 * -------------------------------------------------------------------------------- */

static double ce(const double *z, const struct lb_target *t) {
    double q[V];
    softmax(z, 1, q);
    return -log(q[t->label]);
}

static double kl(const double *z, const struct lb_target *t) {
    double q[V], sum = 0, tail = 1;
    softmax(z, t->temperature, q);
    if (t->p != NULL) {
        for (int i = 0; i < V; i++) {
            sum += t->p[i] * (log(t->p[i]) - log(q[i]));
        }
        return t->temperature * t->temperature * sum;
    }
    double in_p = 0, in_q = 0;
    for (int i = 0; i < t->k; i++) {
        in_p += t->p_at[i];
        in_q += q[t->ids[i]];
    }
    for (int i = 0; i < t->k; i++) {
        double p = t->p_at[i], qi = q[t->ids[i]];
        sum += t->add_tail ? p * log(p / qi) : p / in_p * log(p / in_p / (qi / in_q));
        tail -= qi;
    }
    sum += t->add_tail ? t->tail * log(t->tail / tail) : 0;
    return t->temperature * t->temperature * sum;
}

typedef double (*formula)(const double *z, const struct lb_target *t);

static void check_row(const char *name, lb_row_loss loss, formula f, const struct lb_target *t,
                      const float *z) {
    float dz[V];
    double zd[V], worst = 0, scale = 0, factor = 0.7;
    for (int i = 0; i < V; i++) {
        zd[i] = z[i];
        dz[i] = 0.25f; /* losses add to what is there */
    }
    double have = loss(z, V, t, (float)factor, dz), expected = f(zd, t);
    assert_true(fabs(have - expected) < 1e-5 * fmax(1, fabs(expected)));
    for (int i = 0; i < V; i++) {
        double keep = zd[i], h = 1e-5;
        zd[i] = keep + h;
        double up = f(zd, t);
        zd[i] = keep - h;
        double down = f(zd, t);
        zd[i] = keep;
        double g = factor * (up - down) / (2 * h);
        worst = fmax(worst, fabs(dz[i] - 0.25 - g));
        scale = fmax(scale, fabs(g));
    }
    printf("%-24s loss %.6f, gradient off by %.2e of its largest\n", name, have, worst / scale);
    assert_true(worst / scale < TOLERANCE);
}

static void distributions(void **state) {
    (void)state;
    float z[V], other[V], p[V], p_at[K];
    double wide[V], soft[V];
    int32_t ids[K] = {3, 41, 7, 0, 49, 22};
    normals(z, V, 2);
    normals(other, V, 2);
    for (int i = 0; i < V; i++) {
        wide[i] = other[i];
    }
    static const double temperatures[] = {1, 2.5};
    for (int n = 0; n < 2; n++) {
        struct lb_target t = {.label = 17, .temperature = temperatures[n], .p = p};
        softmax(wide, t.temperature, soft);
        for (int i = 0; i < V; i++) {
            p[i] = (float)soft[i];
            t.neg_entropy += soft[i] * log(soft[i]);
        }
        check_row("cross_entropy", lb_loss_cross_entropy, ce, &t, z);
        check_row("kl, dense", lb_loss_kl, kl, &t, z);
        double in = 0;
        for (int i = 0; i < K; i++) {
            p_at[i] = p[ids[i]];
            in += p_at[i];
        }
        struct lb_target top = {.temperature = temperatures[n],
                                .k = K,
                                .ids = ids,
                                .p_at = p_at,
                                .tail = 1 - in,
                                .add_tail = true};
        check_row("kl, top-k with tail", lb_loss_kl, kl, &top, z);
        /* The coarse-grained KL lies between nothing and the full one. */
        float dz[V] = {0};
        double full = lb_loss_kl(z, V, &t, 1, dz), coarse = lb_loss_kl(z, V, &top, 1, dz);
        assert_true(coarse >= 0 && coarse <= full);
        top.add_tail = false;
        check_row("kl, top-k renormalised", lb_loss_kl, kl, &top, z);
    }
}

/* ---- states -----------------------------------------------------------------------------------------------
 */

static double mse(const double *a, const float *b, const double *w, bool normalize) {
    double sum = 0, square = 0, rows = 0;
    for (int i = 0; i < ROWS; i++) {
        double row = 0;
        for (int j = 0; j < WIDTH; j++) {
            double d = a[i * WIDTH + j] - b[i * WIDTH + j];
            row += d * d;
            square += w[i] > 0 ? (double)b[i * WIDTH + j] * b[i * WIDTH + j] : 0;
        }
        rows += w[i] > 0;
        sum += w[i] * row / WIDTH;
    }
    return normalize ? sum / (square / (rows * WIDTH)) : sum;
}

static double cosine(const double *a, const float *b, const double *w, bool normalize) {
    (void)normalize;
    double sum = 0;
    for (int i = 0; i < ROWS; i++) {
        double aa = 0, bb = 0, ab = 0;
        for (int j = 0; j < WIDTH; j++) {
            double x = a[i * WIDTH + j], y = b[i * WIDTH + j];
            aa += x * x;
            bb += y * y;
            ab += x * y;
        }
        sum += w[i] * (1 - ab / sqrt(aa * bb));
    }
    return sum;
}

static void check_states(const char *name, lb_state_loss loss,
                         double (*f)(const double *, const float *, const double *, bool), bool normalize) {
    float a[ROWS * WIDTH], b[ROWS * WIDTH], da[ROWS * WIDTH] = {0};
    double ad[ROWS * WIDTH], w[ROWS] = {1, 0.3, 0, 1, 0.5}, worst = 0, scale = 0;
    normals(a, ROWS * WIDTH, 1);
    normals(b, ROWS * WIDTH, 3);
    for (int i = 0; i < ROWS * WIDTH; i++) {
        ad[i] = a[i];
    }
    double have = loss(a, b, ROWS, WIDTH, w, normalize, 0.5, da), expected = f(ad, b, w, normalize);
    assert_true(fabs(have - expected) < 1e-5 * fabs(expected));
    for (int i = 0; i < ROWS * WIDTH; i++) {
        double keep = ad[i], h = 1e-5;
        ad[i] = keep + h;
        double up = f(ad, b, w, normalize);
        ad[i] = keep - h;
        double g = 0.5 * (up - f(ad, b, w, normalize)) / (2 * h);
        ad[i] = keep;
        worst = fmax(worst, fabs(da[i] - g));
        scale = fmax(scale, fabs(g));
    }
    printf("%-24s loss %.6f, gradient off by %.2e of its largest\n", name, have, worst / scale);
    assert_true(worst / scale < TOLERANCE);
}

static void states(void **state) {
    (void)state;
    check_states("mse", lb_loss_mse, mse, false);
    check_states("mse, normalised", lb_loss_mse, mse, true);
    check_states("cosine", lb_loss_cosine, cosine, false);
}

/* ---- mixtures ---------------------------------------------------------------------------------------------
 */

static void mixture_of_probabilities(void **state) {
    (void)state;
    float z[2][V], p[V], one[V], student[V], mixed[V] = {0}, separate[V] = {0};
    double w[2] = {0.3, 0.7}, qd[2][V], zd[V], entropy = 0;
    const float *rows[2] = {z[0], z[1]};
    normals(z[0], V, 2);
    normals(z[1], V, 2);
    normals(student, V, 1);
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < V; i++) {
            zd[i] = z[k][i];
        }
        softmax(zd, 2, qd[k]);
    }
    struct lb_target t = {.temperature = 2, .p = p};
    t.neg_entropy = lb_mixture_dense(LB_MIX_PROBS, 2, rows, w, 2, V, p);
    for (int i = 0; i < V; i++) {
        double q = w[0] * qd[0][i] + w[1] * qd[1][i];
        assert_true(fabs(p[i] - q) < 1e-6);
        entropy += q * log(q);
    }
    assert_true(fabs(entropy - t.neg_entropy) < 1e-5);
    /* For the forward KL the gradient of the mixture is the mixture of the gradients. */
    (void)lb_loss_kl(student, V, &t, 1, mixed);
    for (int k = 0; k < 2; k++) {
        const float *row = z[k];
        double whole = 1;
        struct lb_target single = {.temperature = 2, .p = one};
        single.neg_entropy = lb_mixture_dense(LB_MIX_PROBS, 1, &row, &whole, 2, V, one);
        (void)lb_loss_kl(student, V, &single, (float)w[k], separate);
    }
    for (int i = 0; i < V; i++) {
        assert_true(fabs(mixed[i] - separate[i]) < 2e-6);
    }
    /* The mean of logits is another distribution: softmax of the mean. */
    double mean[V], product[V], difference = 0;
    for (int i = 0; i < V; i++) {
        mean[i] = w[0] * z[0][i] + w[1] * z[1][i];
    }
    softmax(mean, 2, product);
    (void)lb_mixture_dense(LB_MIX_LOGITS, 2, rows, w, 2, V, one);
    for (int i = 0; i < V; i++) {
        assert_true(fabs(one[i] - product[i]) < 1e-6);
        difference = fmax(difference, fabs(one[i] - p[i]));
    }
    assert_true(difference > 1e-3);
}

static void weights(void **state) {
    (void)state;
    bool present[3] = {true, true, true};
    double given[3] = {1, 1, 2}, ce_of[3] = {1.0, 2.0, 4.0}, w[3];
    lb_mixture_weights(LB_MIX_PROBS, 3, present, given, ce_of, w);
    assert_true(fabs(w[0] - 0.25) < 1e-12 && fabs(w[2] - 0.5) < 1e-12);
    present[1] = false; /* a lost teacher: the others share */
    lb_mixture_weights(LB_MIX_PROBS, 3, present, given, ce_of, w);
    assert_true(w[1] == 0 && fabs(w[0] - 1.0 / 3) < 1e-12);
    /* CA-MKD, two teachers: w = 1 - softmax(CE). */
    bool both[2] = {true, true};
    double equal[2] = {1, 1}, soft = exp(1.0) / (exp(1.0) + exp(2.0));
    lb_mixture_weights(LB_MIX_CA_MKD, 2, both, equal, ce_of, w);
    assert_true(fabs(w[0] - (1 - soft)) < 1e-12 && fabs(w[0] + w[1] - 1) < 1e-12 && w[0] > w[1]);
    both[0] = false;
    lb_mixture_weights(LB_MIX_CA_MKD, 2, both, equal, ce_of, w);
    assert_true(w[0] == 0 && w[1] == 1);
}

int main(void) {
    lb_rng_seed(&rng, 11, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distributions),
        cmocka_unit_test(states),
        cmocka_unit_test(mixture_of_probabilities),
        cmocka_unit_test(weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
