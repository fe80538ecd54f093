/* What divergences of lists come to beside those of whole distributions, and at the ends of their parameters.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/grad/loss_formulas.h"
#include "tests/support/normals.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define V LB_FORMULA_V
#define K LB_FORMULA_K

static struct lb_rng rng;

/* The coarse-grained KL lies between nothing and the full one. Where the student leaves its tail almost
 * nothing, value and gradient keep their digits. */
static void least_tails(void **state) {
    (void)state;
    const struct lb_loss *loss = lb_loss_find("kl");
    float z[V], dz[V] = {0};
    struct lb_formula_teacher t;
    lb_normals(&rng, z, V, 2);
    lb_normals(&rng, t.z, V, 2);
    lb_formula_teach(&t, 1);
    double full = lb_formula_run(loss, z, &t.dense, 1, dz), coarse = lb_formula_run(loss, z, &t.top, 1, dz);
    assert_true(coarse >= 0 && coarse <= full);
    for (double drop = 5; drop <= 60; drop += 5) {
        double zd[V], in = 0, out = 0, value = 0, top = -INFINITY;
        bool listed[V] = {false};
        for (int i = 0; i < K; i++) {
            listed[t.ids[i]] = true;
        }
        for (int i = 0; i < V; i++) {
            z[i] = listed[i] ? (float)i / V : (float)(-drop - i % 3);
            zd[i] = z[i];
            top = fmax(top, zd[i]);
            dz[i] = 0;
        }
        for (int i = 0; i < V; i++) {
            *(listed[i] ? &in : &out) += exp(zd[i] - top);
        }
        for (int i = 0; i < K; i++) {
            value += t.p_at[i] * (log(t.p_at[i]) - (zd[t.ids[i]] - top - log(in + out)));
        }
        value += t.top.tail * (log(t.top.tail) - (log(out) - log(in + out)));
        double have = lb_formula_run(loss, z, &t.top, 1, dz);
        assert_true(fabs(have - value) < 1e-6 * value);
        for (int i = 0; i < V; i++) {
            double q = exp(zd[i] - top) / (in + out),
                   p = listed[i] ? t.p[i] : t.top.tail * q / (out / (in + out));
            assert_true(fabs(dz[i] - (q - p)) < 2e-6);
        }
    }
}

static const char *const f_divergences[] = {"kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl", "tvd"};
#define N_F (sizeof f_divergences / sizeof f_divergences[0])

/* The loss at its defaults but for these. */
static double at(const char *name, double alpha, double beta, const float *z, const struct lb_target *t,
                 float *dz) {
    const struct lb_loss *loss = lb_loss_find(name);
    assert_non_null(loss);
    lb_formula_args = (struct lb_loss_args){
        .bce_temp = NAN, .label_smoothing = NAN, .z_loss = NAN, .alpha = alpha, .beta = beta, .clamp = NAN};
    lb_loss_fill(loss, &lb_formula_args);
    lb_formula_args.temperature = t->temperature;
    memset(dz, 0, V * sizeof *dz);
    return lb_formula_run(loss, z, t, 1, dz);
}

/* The f-divergence of coarse-grained distributions is at least 0 and at most the whole's; of lists of all ids
 * it is the whole's; of the teacher's own logits it is nothing. */
static void coarse(void **state) {
    (void)state;
    float z[V], dz[V], other[V];
    struct lb_formula_teacher t;
    int32_t every[V];
    for (int i = 0; i < V; i++) {
        every[i] = (7 * i + 3) % V;
    }
    for (int n = 0; n < 40; n++) {
        lb_normals(&rng, z, V, 2);
        lb_normals(&rng, t.z, V, n < 20 ? 2 : 0.5);
        lb_formula_teach(&t, n % 2 == 0 ? 1 : 2.5);
        float p_at[V];
        for (int i = 0; i < V; i++) {
            p_at[i] = t.p[every[i]];
        }
        struct lb_target all = t.top;
        all.k = V;
        all.ids = every;
        all.p_at = p_at;
        all.tail = 0;
        for (size_t f = 0; f < N_F; f++) {
            double whole = at(f_divergences[f], NAN, NAN, z, &t.dense, dz);
            double cut = at(f_divergences[f], NAN, NAN, z, &t.top, other);
            assert_true(cut >= 0 && cut <= whole && whole > 0);
            double listed = at(f_divergences[f], NAN, NAN, z, &all, other), most = 0;
            assert_true(fabs(listed - whole) < 2e-6 * whole);
            for (int i = 0; i < V; i++) {
                most = fmax(most, fabs((double)dz[i] - (double)other[i]));
            }
            assert_true(most < 2e-6 * fmax(1, whole));
            assert_true(fabs(at(f_divergences[f], NAN, NAN, t.z, &t.dense, dz)) < 5e-6);
        }
    }
}

/* At the ends of their parameters some are others, to the bit; jsd jumps there. */
static void ends(void **state) {
    (void)state;
    static const struct {
        const char *name;
        double alpha, beta;
        const char *other;
    } same[] = {{"jsd", NAN, 0, "kl"},
                {"jsd", NAN, 1, "reverse_kl"},
                {"skew_kl", 0, NAN, "kl"},
                {"skew_reverse_kl", 0, NAN, "reverse_kl"}};
    float z[V], dz[V], other[V];
    struct lb_formula_teacher t;
    lb_normals(&rng, z, V, 2);
    lb_normals(&rng, t.z, V, 2);
    lb_formula_teach(&t, 2.5);
    const struct lb_target *const targets[] = {&t.dense, &t.top, &t.renormalised};
    for (size_t i = 0; i < 3 * sizeof same / sizeof same[0]; i++) {
        const struct lb_target *target = targets[i % 3];
        double a = at(same[i / 3].name, same[i / 3].alpha, same[i / 3].beta, z, target, dz);
        assert_true(a == at(same[i / 3].other, NAN, NAN, z, target, other));
        assert_memory_equal(dz, other, sizeof dz);
    }
    double end = at("jsd", NAN, 0, z, &t.dense, dz), near = at("jsd", NAN, 1e-4, z, &t.dense, dz);
    assert_true(fabs(near / (1e-4 * end) - 1) < 0.02);
}

/* What others come to at some of their parameters, to rounding. */
static void special_cases(void **state) {
    (void)state;
    float z[V], dz[V], other[V];
    struct lb_formula_teacher t;
    lb_normals(&rng, z, V, 2);
    lb_normals(&rng, t.z, V, 2);
    lb_formula_teach(&t, 2.5);
    const struct lb_target *const targets[] = {&t.dense, &t.top, &t.renormalised};
    for (int i = 0; i < 3 * 2; i++) {
        double a = at("abkd", i % 2, 1 - i % 2, z, targets[i / 2], dz);
        double b = at(i % 2 > 0 ? "kl" : "reverse_kl", NAN, NAN, z, targets[i / 2], other);
        assert_true(fabs(a - b) < 1e-5 * b);
        for (int j = 0; j < V; j++) {
            assert_true(fabs((double)dz[j] - (double)other[j]) < 2e-6);
        }
    }
    double q[V], wide[V], hellinger = 0, squares = 0, rest = 1;
    for (int i = 0; i < V; i++) {
        wide[i] = (double)z[i];
    }
    lb_formula_softmax(wide, 2.5, q);
    for (int i = 0; i < V; i++) {
        hellinger += pow(sqrt((double)t.p[i]) - sqrt(q[i]), 2) / 2;
        squares += pow((double)t.p[i] - q[i], 2);
    }
    assert_true(fabs(at("abkd", 0.5, 0.5, z, &t.dense, dz) - 6.25 * 4 * hellinger) < 1e-5);
    assert_true(fabs(at("abkd", 1, 1, z, &t.dense, dz) - 6.25 * squares / 2) < 1e-5);
    /* KL is DKD with the weight of the others that they have. */
    rest -= (double)t.p[LB_FORMULA_LABEL];
    double kl = at("kl", NAN, NAN, z, &t.dense, other), dkd = at("dkd", 1, rest, z, &t.dense, dz);
    assert_true(fabs(kl - dkd) < 1e-5 * kl);
    for (int j = 0; j < V; j++) {
        assert_true(fabs((double)dz[j] - (double)other[j]) < 1e-6);
    }
    /* Standardised logits know neither scale nor shift; the correlation no shift of p. */
    double before = at("logit_standardization", NAN, NAN, z, &t.dense, dz);
    for (int i = 0; i < V; i++) {
        z[i] = 3 * z[i] - 5;
        t.z[i] = 0.25f * t.z[i] + 2;
    }
    assert_true(fabs(at("logit_standardization", NAN, NAN, z, &t.dense, dz) - before) < 1e-5 * before);
}

/* akl's head where ids are equally likely, where one has more than half, and where few are listed: shares of
 * the gaps told by the loss itself, since with s of them in the head it is s KL(p || q) + (1 - s) KL(q || p).
 */
static void heads(void **state) {
    (void)state;
    float z[V], dz[V];
    struct lb_formula_teacher t;
    lb_normals(&rng, z, V, 1);
    for (int n = 0; n < 4; n++) {
        static const int in_head[] = {V / 2, 1, 10, 1}; /* of the first ids */
        for (int i = 0; i < V; i++) {
            t.z[i] = n == 0   ? 0
                     : n == 1 ? (i == 0 ? 6 : 0)
                     : n == 2 ? (i < 21 ? 9 : 0)
                              : (i < 2 ? 9.0f - (float)i : 0);
        }
        lb_formula_teach(&t, 1);
        double q[V], wide[V], in = 0, all = 0;
        for (int i = 0; i < V; i++) {
            wide[i] = (double)z[i];
        }
        lb_formula_softmax(wide, 1, q);
        for (int i = 0; i < V; i++) {
            all += fabs((double)t.p[i] - q[i]);
            in += i < in_head[n] ? fabs((double)t.p[i] - q[i]) : 0;
        }
        double share = in / all, forward = at("kl", NAN, NAN, z, &t.dense, dz),
               reverse = at("reverse_kl", NAN, NAN, z, &t.dense, dz);
        double akl = at("akl", NAN, NAN, z, &t.dense, dz);
        if (fabs(akl - share * forward - (1 - share) * reverse) > 1e-5 * akl) {
            fail_msg("head %d: %.9g, with %d in it %.9g", n, akl, in_head[n],
                     share * forward + (1 - share) * reverse);
        }
    }
}

int main(void) {
    lb_rng_seed(&rng, 3, 0);
    const struct CMUnitTest tests[] = {cmocka_unit_test(least_tails), cmocka_unit_test(coarse),
                                       cmocka_unit_test(ends), cmocka_unit_test(special_cases),
                                       cmocka_unit_test(heads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
