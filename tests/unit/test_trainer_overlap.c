/* What student and teacher find likely, against a count of it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/rng.h"
#include "trainer/learn/parts.h"

#include <math.h>

enum { V = 50, LISTED = 24 };

static void make(struct lb_rng *rng, float *p) {
    double sum = 0;
    for (int j = 0; j < V; j++) {
        p[j] = (float)exp(2 * lb_rng_normal(rng));
        sum += (double)p[j];
    }
    for (int j = 0; j < V; j++) {
        p[j] = (float)((double)p[j] / sum);
    }
}

/* How many of p are likelier than p[j]. */
static int rank_of(const float *p, int j) {
    int rank = 0;
    for (int i = 0; i < V; i++) {
        rank += p[i] > p[j] || (p[i] == p[j] && i < j);
    }
    return rank;
}

static void counts(void **state) {
    (void)state;
    struct lb_rng rng;
    lb_rng_seed(&rng, 3, 0);
    for (int round = 0; round < 20; round++) {
        float p[V], q[V], listed[LISTED];
        int32_t ids[LISTED];
        struct lb_overlap whole, list, want = {0}, of_list = {0};
        make(&rng, p);
        make(&rng, q);
        int k = round < 10 ? LISTED : 5, n = 0; /* a list in no order, of all that has these ranks */
        for (int j = V - 1; j >= 0; j--) {
            if (rank_of(p, j) < k) {
                ids[n] = j;
                listed[n++] = p[j];
            }
        }
        assert_int_equal(n, k);
        int of = k < LB_OVERLAP_K ? k : LB_OVERLAP_K;
        for (int j = 0; j < V; j++) {
            bool its = rank_of(p, j) < LB_OVERLAP_K, own = rank_of(q, j) < LB_OVERLAP_K;
            want.ratio += its && own ? 1.0 / LB_OVERLAP_K : 0;
            want.student_mass += its ? (double)q[j] : 0;
            want.teacher_mass += own ? (double)p[j] : 0;
            its = rank_of(p, j) < of;
            own = rank_of(q, j) < of;
            of_list.ratio += its && own ? 1.0 / of : 0;
            of_list.student_mass += its ? (double)q[j] : 0;
            of_list.teacher_mass += own && rank_of(p, j) < k ? (double)p[j] : 0;
        }
        struct lb_target dense = {.kind = LB_TARGET_DENSE, .p = p},
                         truncated = {.kind = LB_TARGET_TRUNCATED, .k = k, .ids = ids, .p_at = listed};
        assert_true(lb_overlap(q, V, &dense, &whole) && lb_overlap(q, V, &truncated, &list));
        assert_float_equal(whole.ratio, want.ratio, 1e-9);
        assert_float_equal(whole.student_mass, want.student_mass, 1e-6);
        assert_float_equal(whole.teacher_mass, want.teacher_mass, 1e-6);
        assert_float_equal(list.ratio, of_list.ratio, 1e-9);
        assert_float_equal(list.student_mass, of_list.student_mass, 1e-6);
        assert_float_equal(list.teacher_mass, of_list.teacher_mass, 1e-6);
        truncated.kind = LB_TARGET_SAMPLED;
        assert_false(lb_overlap(q, V, &truncated, &list));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(counts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
