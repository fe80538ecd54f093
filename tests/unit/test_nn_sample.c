/* Draws from a row of logits: their distribution, in one piece and in many, and what decides them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/nn/pick.h"
#include "common/nn/reduce.h"
#include "common/nn/sample.h"

#include <math.h>
#include <string.h>

#define V 1000
#define S 40000

static float z[V];
static struct lb_drawn drawn[S], other[S];

static void fill(double spread) {
    struct lb_rng rng;
    lb_rng_seed(&rng, 5, 1);
    for (int j = 0; j < V; j++) {
        z[j] = (float)(spread * lb_rng_normal(&rng));
    }
}

/* The row in pieces of so many classes. */
static int64_t draw_by(const struct lb_draw *draw, int64_t piece, struct lb_drawn *out) {
    struct lb_sampler sampler;
    lb_sampler_begin(&sampler, draw, out);
    for (int64_t j = 0; j < V; j += piece) {
        lb_sampler_add(&sampler, draw, z + j, j + piece < V ? piece : V - j, j, NULL, NULL);
    }
    return lb_sampler_finish(&sampler, draw);
}

static double log_sum(double temperature) {
    double sum = 0;
    for (int j = 0; j < V; j++) {
        sum += exp((double)z[j] / temperature);
    }
    return log(sum);
}

/* Counts against the distribution: the sum of squared deviations over their variances, classes of few draws
 * together, and what is wrong with the form. */
static double chi_square(const struct lb_draw *draw, const struct lb_drawn *list, int64_t n,
                         int *out_freedom) {
    double lse = log_sum(draw->temperature), chi = 0, few = 0, few_want = 0;
    int64_t at = 0, all = 0;
    *out_freedom = 0;
    for (int j = 0; j < V; j++) {
        double want = (double)draw->n * exp((double)z[j] / draw->temperature - lse);
        int64_t got = at < n && list[at].id == j ? list[at].count : 0;
        if (at < n && list[at].id == j) {
            assert_true(got > 0 && list[at].logit == z[j]);
            at++;
        }
        all += got;
        if (want < 10) {
            few += (double)got;
            few_want += want;
        } else {
            chi += ((double)got - want) * ((double)got - want) / want;
            ++*out_freedom;
        }
    }
    assert_int_equal(at, n); /* rising ids, each once */
    assert_int_equal(all, draw->n);
    return chi + (few_want > 0 ? (few - few_want) * (few - few_want) / few_want : 0);
}

static void draws_are_of_the_distribution(void **state) {
    (void)state;
    static const int64_t pieces[] = {V, 256, 100, 7};
    static const double temperatures[] = {1, 0.5, 3};
    fill(2);
    for (int t = 0; t < 3; t++) {
        for (int p = 0; p < 4; p++) {
            struct lb_draw draw = {S, temperatures[t], 11, (uint64_t)(t * 4 + p)};
            int freedom;
            int64_t n = draw_by(&draw, pieces[p], drawn);
            double chi = chi_square(&draw, drawn, n, &freedom);
            /* Mean freedom, variance twice that: six deviations. */
            if (!(fabs(chi - freedom) < 6 * sqrt(2.0 * freedom))) {
                fail_msg("temperature %g, pieces of %d: chi square %g of %d", temperatures[t], (int)pieces[p],
                         chi, freedom);
            }
        }
    }
}

/* Few draws, many times: what each is expected to be, so that the mean of estimates is the probability
 * itself. */
static void estimates_are_unbiased(void **state) {
    (void)state;
    enum { N = 8, ROUNDS = 20000 };
    static double mean[V], square[V];
    fill(1.5);
    const double temperature = 1, proposal = 2;
    double lse = log_sum(temperature), lse_q = log_sum(proposal);
    for (int round = 0; round < ROUNDS; round++) {
        struct lb_draw draw = {N, proposal, 3, (uint64_t)round};
        int64_t n = draw_by(&draw, 300, drawn);
        for (int64_t i = 0; i < n; i++) {
            double logit = (double)drawn[i].logit;
            double weight =
                (double)drawn[i].count / N * exp(logit / temperature - lse - (logit / proposal - lse_q));
            mean[drawn[i].id] += weight / ROUNDS;
            square[drawn[i].id] += weight * weight / ROUNDS;
        }
    }
    double worst = 0, sum = 0;
    for (int j = 0; j < V; j++) {
        double p = exp((double)z[j] / temperature - lse);
        double deviation = sqrt(fmax(square[j] - mean[j] * mean[j], 1e-12) / ROUNDS);
        worst = fmax(worst, fabs(mean[j] - p) / deviation);
        sum += mean[j];
    }
    assert_true(worst < 8 && fabs(sum - 1) < 0.02);
}

static void what_decides_them(void **state) {
    (void)state;
    fill(2);
    const struct lb_draw draw = {50, 1, 7, 8};
    struct lb_draw changed[] = {draw, draw, draw};
    changed[0].seed++;
    changed[1].stream++;
    changed[2].temperature = 1.5;
    int64_t n = draw_by(&draw, V, drawn);
    assert_int_equal(draw_by(&draw, V, other), n);
    assert_memory_equal(drawn, other, (size_t)n * sizeof *drawn);
    for (int i = 0; i < 3; i++) {
        int64_t m = draw_by(&changed[i], V, other);
        assert_false(m == n && memcmp(drawn, other, (size_t)n * sizeof *drawn) == 0);
    }
    /* A log-sum-exp that was made of the same logits serves as well as its own. */
    struct lb_sampler sampler;
    struct lb_lse lse = LB_LSE_EMPTY;
    double marks[LB_MARK_ROOM];
    lb_sampler_begin(&sampler, &draw, other);
    lb_lse_add_marks(&lse, z, V, draw.temperature, marks);
    lb_sampler_add(&sampler, &draw, z, V, 0, &lse, marks);
    assert_int_equal(lb_sampler_finish(&sampler, &draw), n);
    assert_memory_equal(drawn, other, (size_t)n * sizeof *drawn);
    assert_true(lb_sampler_logsumexp(&sampler, &draw) == lb_logsumexp(z, V, draw.temperature));
}

static void what_cannot_be_drawn(void **state) {
    (void)state;
    const struct lb_draw draw = {5000, 1, 7, 8};
    for (int64_t piece = 100; piece <= V; piece += 300) {
        for (int j = 0; j < V; j++) { /* whole pieces, and ends of pieces, of probability 0 */
            z[j] = j % 300 < 150 || j > 700 ? -INFINITY : -500 - (float)(j % 7);
        }
        int64_t n = draw_by(&draw, piece, drawn);
        assert_true(n > 100);
        for (int64_t i = 0; i < n; i++) {
            assert_true(isfinite(drawn[i].logit));
        }
    }
    for (int j = 0; j < V; j++) {
        z[j] = -INFINITY;
    }
    assert_int_equal(draw_by(&draw, 300, drawn), 0);
    fill(1);
    z[500] = NAN;
    assert_int_equal(draw_by(&draw, 300, drawn), 0);
    z[500] = INFINITY;
    assert_int_equal(draw_by(&draw, 300, drawn), 0);
    z[500] = 200; /* all of it */
    assert_int_equal(draw_by(&draw, 300, drawn), 1);
    assert_true(drawn[0].id == 500 && drawn[0].count == 5000);
}

/* The marks are the sum's own way: the last of them is the sum. */
static void marks_rise_to_the_sum(void **state) {
    (void)state;
    fill(2);
    for (int64_t n = 1; n <= V; n += 37) {
        struct lb_lse lse = LB_LSE_EMPTY, plain = LB_LSE_EMPTY;
        double marks[LB_MARK_ROOM] = {0}, before = 0;
        lb_lse_add(&plain, z, n, 1.5);
        lb_lse_add_marks(&lse, z, n, 1.5, marks);
        assert_true(lse.sum == plain.sum && lse.max == plain.max);
        for (int64_t b = 0; b * LB_MARK_STEP < n; b++) {
            double sum = 0;
            for (int64_t j = 0; j < n && j < (b + 1) * LB_MARK_STEP; j++) {
                sum += exp(((double)z[j] - lse.max) / 1.5);
            }
            assert_true(marks[b] > before && fabs(marks[b] - sum) < 1e-5 * sum);
            before = marks[b];
        }
        assert_true(before == lse.sum);
    }
}

/* Picks are what the row in order says; where they are not known, which is rare, that is said. */
static void picks(void **state) {
    (void)state;
    enum { MOST = 3 * V };
    static float row[MOST], share[MOST], ordered[MOST];
    static int32_t ids[MOST];
    static const int64_t sizes[] = {1, 2, 31, 100, V, MOST};
    static const double spreads[] = {0.001, 0.3, 3, 30}, heights[] = {0, -90, 1e4};
    int unknown = 0, all = 0;
    struct lb_rng rng;
    lb_rng_seed(&rng, 7, 1);
    for (int round = 0; round < 3000; round++) {
        int64_t v = sizes[round % 6];
        for (int64_t j = 0; j < v; j++) {
            row[j] = (float)(spreads[round % 4] * lb_rng_normal(&rng) + heights[round % 3]);
            row[j] = j > 0 && round % 5 == 0 && lb_rng_below(&rng, 3) == 0 ? row[j - 1] : row[j];
            row[j] = round % 7 == 0 && j % 3 == 1 ? -INFINITY : row[j];
            ids[j] = (int32_t)j;
            ordered[j] = row[j];
        }
        double u = round < 6 ? 0 : lb_rng_double(&rng);
        lb_softmax(row, v, 1, lb_logsumexp(row, v, 1), share);
        int64_t have = lb_pick(row, share, v, u), want = 0;
        lb_sort_down(ids, ordered, v);
        for (double left = u - (double)share[ids[0]]; want + 1 < v && left >= 0;) {
            left -= (double)share[ids[++want]];
        }
        assert_true(have < 0 || have == ids[want]);
        unknown += have < 0;
        all++;
    }
    assert_true(unknown * 50 < all);
    for (int64_t j = 0; j < V; j++) { /* all alike: who comes first is not for a bound to say */
        row[j] = 2;
        share[j] = 1.0F / V;
    }
    assert_int_equal(lb_pick(row, share, V, 0.5), -1);
    for (int64_t j = 0; j < 20; j++) { /* fewer are put in order */
        share[j] = 0.05F;
    }
    assert_int_equal(lb_pick(row, share, 20, 0.51), 10);
    assert_int_equal(lb_pick(row, share, 19, 0.51), -1); /* they add up to less than 1: to 9 or 10 */
    share[7] = NAN;
    assert_int_equal(lb_pick(row, share, 20, 0.51), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(draws_are_of_the_distribution),
                                       cmocka_unit_test(estimates_are_unbiased),
                                       cmocka_unit_test(what_decides_them),
                                       cmocka_unit_test(what_cannot_be_drawn),
                                       cmocka_unit_test(marks_rise_to_the_sum),
                                       cmocka_unit_test(picks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
