/* Which replica is asked next, and how long one that failed is left alone. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "trainer/teachers/pool.h"

#define BASE 1000
#define CAP 16000

static void test_least_outstanding(void **state) {
    (void)state;
    struct lb_pool pool;
    unsigned sent[3] = {0};
    lb_pool_init(&pool, 3, 2, BASE, CAP, 1);
    assert_int_equal(lb_pool_free_slots(&pool), 6);
    for (int n = 0; n < 6; n++) {
        int i = lb_pool_pick(&pool, -1, 0);
        assert_true(i >= 0);
        assert_int_equal(sent[i], (unsigned)n / 3); /* all have one before any has two */
        sent[i]++;
        lb_pool_sent(&pool, i);
    }
    assert_int_equal(lb_pool_pick(&pool, -1, 0), -1);
    assert_int_equal(lb_pool_free_slots(&pool), 0);
    lb_pool_answered(&pool, 1);
    assert_int_equal(lb_pool_pick(&pool, -1, 0), 1);
    assert_int_equal(lb_pool_pick(&pool, 1, 0), 1); /* the one to avoid, for want of another */
    lb_pool_dropped(&pool, 2);
    assert_int_equal(lb_pool_pick(&pool, 1, 0), 2);
    assert_int_equal(lb_pool_pick(&pool, 2, 0), 1);
    assert_int_equal(pool.lost_ns, 0);
}

/* Fails, is probed and fails again: the pause doubles up to the cap, within half of itself, and ends with a
 * good answer. */
static void test_back_off(void **state) {
    (void)state;
    struct lb_pool pool;
    uint64_t now = 5000, pause = BASE;
    lb_pool_init(&pool, 1, 2, BASE, CAP, 7);
    lb_pool_sent(&pool, 0);
    lb_pool_sent(&pool, 0);
    lb_pool_failed(&pool, 0, now, 0);
    lb_pool_failed(&pool, 0, now, 0); /* they fell together: one failure */
    assert_int_equal(pool.lost_ns, now);
    assert_int_equal(lb_pool_pick(&pool, -1, 0), -1);
    for (int failures = 1; failures < 9; failures++) {
        uint64_t next = lb_pool_next_ns(&pool);
        assert_true(next >= now + pause / 2 && next <= now + pause);
        assert_int_equal(lb_pool_probe_due(&pool, next - 1), -1);
        assert_int_equal(lb_pool_probe_due(&pool, next), 0);
        now = next;
        lb_pool_probing(&pool, 0);
        assert_int_equal(lb_pool_probe_due(&pool, now), -1);
        assert_int_equal(lb_pool_next_ns(&pool), UINT64_MAX);
        lb_pool_probed(&pool, 0, false, now, 0);
        pause = pause * 2 < CAP ? pause * 2 : CAP;
    }
    assert_int_equal(pool.lost_ns, 5000); /* lost since the beginning */

    lb_pool_probing(&pool, 0);
    lb_pool_probed(&pool, 0, true, now, 0);
    assert_true(lb_pool_trying(&pool));
    assert_int_equal(lb_pool_free_slots(&pool), 1); /* on trial: one */
    lb_pool_sent(&pool, 0);
    assert_int_equal(lb_pool_pick(&pool, -1, 0), -1);
    assert_int_equal(pool.lost_ns, 5000);
    lb_pool_answered(&pool, 0);
    assert_false(lb_pool_trying(&pool));
    assert_int_equal(pool.lost_ns, 0);
    assert_int_equal(lb_pool_free_slots(&pool), 2);
    lb_pool_sent(&pool, 0);
    lb_pool_failed(&pool, 0, now, 0); /* and the pauses begin anew */
    assert_true(lb_pool_next_ns(&pool) <= now + BASE);
}

static void test_retry_after_and_mark_down(void **state) {
    (void)state;
    struct lb_pool pool;
    lb_pool_init(&pool, 2, 1, BASE, CAP, 7);
    lb_pool_sent(&pool, 0);
    lb_pool_failed(&pool, 0, 100, 1000000); /* longer than the cap: the server knows */
    assert_int_equal(lb_pool_next_ns(&pool), 1000100);
    assert_int_equal(pool.lost_ns, 0); /* the other is healthy */
    assert_int_equal(lb_pool_pick(&pool, -1, 0), 1);
    lb_pool_mark_down(&pool, 1, 200);
    assert_int_equal(pool.lost_ns, 200);
    assert_true(lb_pool_next_ns(&pool) <= 200 + BASE);
    assert_int_equal(lb_pool_probe_due(&pool, 200 + BASE), 1);
}

/* A server that says "in a billion seconds" does not end a run whose patience is shorter: it is asked again,
 * and again, before that; and so is one that had said so while another was well, when that falls too. */
static void test_patience_outlasts_retry_after(void **state) {
    (void)state;
    struct lb_pool pool;
    const uint64_t second = 1000000000, patience = 120 * second, long_time = 1000000000 * second;
    uint64_t now = 7 * second;
    int asked = 0;
    lb_pool_init(&pool, 1, 1, second / 10, 5 * second, 7);
    pool.patience_ns = patience;
    lb_pool_sent(&pool, 0);
    lb_pool_failed(&pool, 0, now, long_time);
    while ((now = lb_pool_next_ns(&pool)) < pool.lost_ns + patience) {
        assert_int_equal(lb_pool_probe_due(&pool, now), 0);
        lb_pool_probing(&pool, 0);
        lb_pool_probed(&pool, 0, false, now, long_time);
        asked++;
    }
    assert_true(asked >= 4);

    lb_pool_init(&pool, 2, 1, second / 10, 5 * second, 7);
    pool.patience_ns = patience;
    lb_pool_sent(&pool, 0);
    lb_pool_failed(&pool, 0, second, long_time);
    assert_int_equal(lb_pool_next_ns(&pool), second + LB_POOL_MAX_RETRY_AFTER_NS); /* the other is well */
    lb_pool_mark_down(&pool, 1, 2 * second);
    assert_int_equal(pool.replicas[0].retry_ns, 2 * second + patience / 2);
}

/* Pools of different trainers do not come back in step. */
static void test_jitter(void **state) {
    (void)state;
    struct lb_pool a, b;
    lb_pool_init(&a, 1, 1, 1000000, 1000000, 1);
    lb_pool_init(&b, 1, 1, 1000000, 1000000, 2);
    lb_pool_mark_down(&a, 0, 0);
    lb_pool_mark_down(&b, 0, 0);
    assert_int_not_equal(lb_pool_next_ns(&a), lb_pool_next_ns(&b));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_least_outstanding),
        cmocka_unit_test(test_back_off),
        cmocka_unit_test(test_retry_after_and_mark_down),
        cmocka_unit_test(test_patience_outlasts_retry_after),
        cmocka_unit_test(test_jitter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
