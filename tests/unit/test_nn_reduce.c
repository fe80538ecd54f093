/* exp, log-sum-exp, softmax, top-k, arg max, the search for non-finite numbers. */
#include "common/nn/reduce.h"

#include "common/base/rng.h"
#include "common/nn/simd.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static double ulps(float y, double exact) {
    float near = (float)exact;
    double step = (double)nextafterf(near, INFINITY) - (double)near;
    return fabs((double)y - exact) / step;
}

static void test_exp(void **state) {
    (void)state;
    double worst = 0;
    for (uint32_t u = 0; u < 0x42B0999Au; u += 61) { /* up to 88.3 */
        float x;
        memcpy(&x, &u, 4);
        worst = fmax(worst, ulps(lb_expf(x), exp((double)x)));
        if (x <= 87.3f) {
            worst = fmax(worst, ulps(lb_expf(-x), exp(-(double)x)));
        }
    }
    printf("largest error of exp: %.2f ulp\n", worst);
    assert_true(worst < 2);
    assert_true(lb_expf(0) == 1 && lb_expf(-0.0f) == 1);
    assert_true(lb_expf(-INFINITY) == 0 && lb_expf(-87.4f) == 0);
    assert_true(lb_expf(1e30f) == lb_expf(88.3f) && isfinite(lb_expf(INFINITY)));
    assert_true(isnan(lb_expf(NAN)));
}

/* Vectors of the kernels and scalars of the loops: the same bits. */
static void test_exp_vector(void **state) {
    (void)state;
    float x[LB_LANES], y[LB_LANES];
    static const float special[] = {NAN, INFINITY, -INFINITY, -87.3f, 88.3f, 89, -1e-30f, 1e30f};
    for (int t = 0; t < 5000; t++) {
        for (int i = 0; i < LB_LANES; i++) {
            x[i] = t == 0 ? special[i % 8] : (float)(t - 2500) * 0.04f + (float)i * 1e-3f;
        }
        lb_vstore(y, lb_vexp(lb_vload(x)));
        for (int i = 0; i < LB_LANES; i++) {
            float scalar = lb_expf(x[i]);
            assert_true(isnan(scalar) ? isnan(y[i]) : memcmp(&scalar, &y[i], sizeof scalar) == 0);
        }
    }
}

static double reference_lse(const float *z, int64_t v, double temperature) {
    double max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < v; j++) {
        max = fmax(max, (double)z[j]);
    }
    for (int64_t j = 0; j < v; j++) {
        sum += exp(((double)z[j] - max) / temperature);
    }
    return max / temperature + log(sum);
}

static void test_logsumexp(void **state) {
    (void)state;
    static float z[1003], q[1003];
    struct lb_rng rng;
    lb_rng_seed(&rng, 5, 0);
    static const float offsets[] = {0, 1000, -1000, 1e30f, -1e30f, 3e38f};
    static const double temperatures[] = {1, 0.25, 7};
    for (int t = 0; t < 18; t++) {
        for (int64_t v = 1; v <= 1003; v += 167) {
            for (int64_t j = 0; j < v; j++) {
                z[j] = offsets[t % 6] + 20 * lb_rng_float(&rng);
            }
            double temperature = temperatures[t / 6];
            double lse = lb_logsumexp(z, v, temperature), exact = reference_lse(z, v, temperature), sum = 0;
            assert_true(fabs(lse - exact) <= 1e-6 + 1e-15 * fabs(exact));
            if (fabs(exact) > 1e9) {
                continue; /* a double near 1e30 has no room for log v */
            }
            lb_softmax(z, v, temperature, lse, q);
            for (int64_t j = 0; j < v; j++) {
                sum += (double)q[j];
                double p = exp((double)z[j] / temperature - exact);
                assert_true(fabs((double)q[j] - p) <= 1e-37 + (1e-6 + 1e-7 * fabs(log(p + 1e-300))) * p);
            }
            assert_true(fabs(sum - 1) < 1e-5);
        }
    }
    static const float nothing[3] = {-INFINITY, -INFINITY, -INFINITY}, some[3] = {-INFINITY, 2, -INFINITY},
                       most[3] = {1, INFINITY, 0}, unknown[3] = {1, NAN, INFINITY};
    assert_true(lb_logsumexp(nothing, 3, 1) == -INFINITY);
    assert_true(lb_logsumexp(some, 3, 1) == 2);
    assert_true(lb_logsumexp(most, 3, 1) == INFINITY);
    assert_true(isnan(lb_logsumexp(unknown, 3, 1)) && isnan(lb_logsumexp(unknown, 2, 1)));
}

struct entry {
    float value;
    int32_t id;
};

static int by_rank(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    if (isnan(x->value) != isnan(y->value)) {
        return isnan(x->value) ? 1 : -1;
    }
    if (!isnan(x->value) && x->value != y->value) {
        return x->value > y->value ? -1 : 1;
    }
    return x->id < y->id ? -1 : 1;
}

#define MOST 70000 /* past the size from which groups grow */

static void check_topk(const float *z, int64_t v) {
    static struct entry all[MOST];
    static int32_t ids[MOST];
    static float values[MOST];
    for (int64_t j = 0; j < v; j++) {
        all[j] = (struct entry){z[j], (int32_t)j};
    }
    qsort(all, (size_t)v, sizeof *all, by_rank);
    const int64_t ks[] = {0, 1, 2, 7, 64, v / 2, v - 1, v};
    for (size_t t = 0; t < sizeof ks / sizeof *ks; t++) {
        if (ks[t] > v || ks[t] < 0) {
            continue;
        }
        lb_topk(z, v, ks[t], ids, values);
        for (int64_t i = 0; i < ks[t]; i++) {
            assert_int_equal(ids[i], all[i].id);
            assert_memory_equal(&values[i], &all[i].value, sizeof values[i]);
        }
    }
    if (v > 0 && !isnan(all[0].value)) {
        assert_int_equal(lb_argmax(z, v), all[0].id);
    }
    for (int64_t j = 0; j < v; j++) { /* from another order than that of the ids */
        ids[j] = (int32_t)((j + v / 3) % v);
        values[j] = z[ids[j]];
    }
    lb_sort_down(ids, values, v);
    for (int64_t j = 0; j < v; j++) {
        assert_int_equal(ids[j], all[j].id);
        assert_memory_equal(&values[j], &all[j].value, sizeof values[j]);
    }
}

/* Whose middle one is the largest or the least of all, so that no parts are even. */
static void test_hills(void **state) {
    (void)state;
    static float z[MOST];
    for (int down = 0; down < 2; down++) {
        for (int j = 0; j < MOST; j++) {
            z[j] = (float)(down ? -abs(j - MOST / 2) : abs(j - MOST / 2));
        }
        check_topk(z, MOST);
    }
}

static void test_count_above(void **state) {
    (void)state;
    float z[] = {1, 3, NAN, 3, -INFINITY, 2};
    assert_int_equal(lb_count_above(z, 6, 3), 2);
    assert_int_equal(lb_count_above(z, 6, 2), 3);
    assert_int_equal(lb_count_above(z, 6, -INFINITY), 5);
    assert_int_equal(lb_count_above(z, 6, NAN), 0);
    assert_int_equal(lb_count_above(z, 0, 0), 0);
}

static void test_topk(void **state) {
    (void)state;
    static float z[MOST];
    struct lb_rng rng;
    lb_rng_seed(&rng, 6, 0);
    for (int t = 0; t < 40; t++) {
        int64_t v = t < 10 ? t : 1 + (int64_t)lb_rng_below(&rng, t < 30 ? 2000 : MOST);
        for (int64_t j = 0; j < v; j++) {
            float x = lb_rng_float(&rng);
            switch (t % 5) {
            case 0: /* few different values: ties everywhere */
                z[j] = floorf(x * 4);
                break;
            case 1: /* rising: every element enters */
                z[j] = (float)j;
                break;
            case 2: /* zeros of both signs are equal */
                z[j] = x < 0.5f ? 0.0f : -0.0f;
                break;
            case 3: /* holes */
                z[j] = x < 0.3f ? NAN : x < 0.5f ? -INFINITY : x < 0.6f ? INFINITY : x;
                break;
            default:
                z[j] = x - 0.5f;
            }
        }
        check_topk(z, v);
    }
    for (int64_t j = 0; j < 200; j++) { /* NaN at first, numbers behind */
        z[j] = j < 150 ? NAN : (float)j;
    }
    check_topk(z, 200);
    check_topk(z, 150);
    assert_int_equal(lb_argmax(z, 150), 0);
    assert_int_equal(lb_argmax(z, 200), 199);
}

/* A row in pieces: the same top-k, and log-sum-exp to the last digits; in one piece its bits. */
static void test_pieces(void **state) {
    (void)state;
    static float z[5000], values[200], want_values[200];
    static int32_t ids[200], want_ids[200];
    struct lb_rng rng;
    lb_rng_seed(&rng, 12, 0);
    for (int t = 0; t < 200; t++) {
        int64_t v = 1 + (int64_t)lb_rng_below(&rng, 5000), k = v < 200 ? v : 200;
        for (int64_t j = 0; j < v; j++) {
            float x = 30 * lb_rng_float(&rng) * (t % 3 == 0 ? (float)j / 1000 : 1);
            z[j] = t % 4 == 0 ? floorf(x) : x;
            if (t % 7 == 0 && x < 15) {
                z[j] = t % 2 == 0 ? -INFINITY : t % 21 == 0 ? NAN : INFINITY;
            }
        }
        double temperature = t % 5 == 0 ? 0.5 : 2;
        lb_topk(z, v, k, want_ids, want_values);
        double want = lb_logsumexp(z, v, temperature);
        int64_t piece = t % 6 == 0 ? v : 1 + (int64_t)lb_rng_below(&rng, t % 2 ? 50 : 2000);
        struct lb_lse lse = LB_LSE_EMPTY;
        struct lb_top top = {ids, values, k, 0};
        for (int64_t j = 0; j < v; j += piece) {
            int64_t n = v - j < piece ? v - j : piece;
            lb_lse_add(&lse, z + j, n, temperature);
            lb_top_add(&top, z + j, n, j);
        }
        lb_top_finish(&top);
        assert_memory_equal(ids, want_ids, (size_t)k * sizeof *ids);
        assert_memory_equal(values, want_values, (size_t)k * sizeof *values);
        double have = lb_lse_value(&lse, temperature);
        bool same = have == want || (isnan(have) && isnan(want));
        assert_true(same || (piece < v && fabs(have - want) < 1e-6));
    }
}

/* The mass that the k largest leave, down to where there is none: in one piece and in many, from one in ten
 * to one in 10^11. Told by one minus the listed probabilities it would be noise below 10^-6. */
static void test_rest(void **state) {
    (void)state;
    static float z[20000], values[64];
    static int32_t ids[64];
    struct lb_rng rng;
    lb_rng_seed(&rng, 14, 0);
    for (int t = 0; t < 400; t++) {
        int64_t v = 65 + (int64_t)lb_rng_below(&rng, 19000), k = t % 10 == 0 ? 1 : 64;
        double temperature = t % 5 == 0 ? 0.5 : t % 5 == 1 ? 4 : 1;
        float above =
            (float)(temperature * (t % 40)); /* the listed stand out by so much, and rise piece by piece */
        for (int64_t j = 0; j < v; j++) {
            z[j] = 3 * lb_rng_float(&rng) - 40;
        }
        for (int64_t i = 0; i < k; i++) {
            z[i * (v / k)] += above + (float)i / 7;
        }
        lb_topk(z, v, k, ids, values);
        double listed = 0, others = 0;
        for (int64_t j = 0; j < v; j++) {
            bool is_listed = false;
            for (int64_t i = 0; i < k; i++) {
                is_listed |= ids[i] == j;
            }
            *(is_listed ? &listed : &others) += exp(((double)z[j] - values[0]) / temperature);
        }
        double share = others / (listed + others);
        double want = share > LB_LEAST_REST ? log(share) : LB_LOG_LEAST_REST;
        int64_t pieces[] = {v, 4096, 100, 7};
        for (int p = 0; p < 4; p++) {
            struct lb_lse lse = LB_LSE_EMPTY;
            struct lb_top top = {ids, values, k, 0};
            double rest = 0;
            for (int64_t j = 0; j < v; j += pieces[p]) {
                int64_t n = v - j < pieces[p] ? v - j : pieces[p];
                lb_rest_add(&rest, &lse, &top, z + j, n, j, temperature, NULL);
            }
            double have = lb_rest_value(rest, &lse, &top, temperature);
            if (!(fabs(have - want) < 3e-6 + 1e-14 / share)) {
                fail_msg("%g of the mass is left, told as %g (pieces of %lld)", share, exp(have),
                         (long long)pieces[p]);
            }
            assert_true(have < 0);
        }
    }
    float few[] = {1, 2, -INFINITY}, bad[] = {1, NAN, 0}, most[] = {1, INFINITY, 0};
    float *rows[] = {few, bad, most};
    for (int r = 0; r < 3; r++) { /* all listed: the least that is told */
        struct lb_lse lse = LB_LSE_EMPTY;
        struct lb_top top = {ids, values, 3, 0};
        double rest = 0;
        lb_rest_add(&rest, &lse, &top, rows[r], 3, 0, 1, NULL);
        double have = lb_rest_value(rest, &lse, &top, 1);
        assert_true(r == 0 ? have == LB_LOG_LEAST_REST : isnan(have));
    }
}

static void test_nonfinite(void **state) {
    (void)state;
    float x[300];
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 300; i++) {
        x[i] = i % 2 ? 3.4e38f : -1e-44f;
    }
    assert_int_equal(lb_first_nonfinite(x, 300), -1);
    assert_int_equal(lb_first_nonfinite(x, 0), -1);
    for (int i = 0; i < 300; i++) {
        float old = x[i];
        x[i] = bad[i % 3];
        assert_int_equal(lb_first_nonfinite(x, 300), i);
        assert_int_equal(lb_first_nonfinite(x, i), -1);
        assert_int_equal(lb_first_nonfinite(x, i + 1), i);
        x[i] = old;
    }
    x[7] = x[250] = NAN;
    assert_int_equal(lb_first_nonfinite(x, 300), 7);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),       cmocka_unit_test(test_exp_vector),
        cmocka_unit_test(test_logsumexp), cmocka_unit_test(test_hills),
        cmocka_unit_test(test_topk),      cmocka_unit_test(test_count_above),
        cmocka_unit_test(test_nonfinite), cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
