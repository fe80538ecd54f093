/* What a token's limits let through, by a clock of the test's own. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "server/http/quota.h"

#define SECOND(n) (1000 * LB_SECOND_NS + (n)*LB_SECOND_NS)

static void test_minute(void **state) {
    (void)state;
    struct lb_quota *q = lb_quota_create();
    assert_int_equal(lb_quota_take(q, 1000000, SECOND(0)), 0); /* no limit yet */
    lb_quota_limit(q, 600, 0, SECOND(0));                      /* ten a second */
    assert_int_equal(lb_quota_take(q, 500, SECOND(0)), 0);
    assert_int_equal(lb_quota_take(q, 400, SECOND(0)), 0); /* 300 in advance */
    assert_int_equal(lb_quota_take(q, 1, SECOND(0)), 31);
    assert_int_equal(lb_quota_take(q, 1, SECOND(10)), 21);
    assert_int_equal(lb_quota_take(q, 1, SECOND(30)), 1);
    assert_int_equal(lb_quota_take(q, 5, SECOND(31)), 0);
    assert_int_equal(lb_quota_take(q, 5, SECOND(31)), 0);
    assert_int_equal(lb_quota_take(q, 1, SECOND(31)), 1);
    assert_int_equal(lb_quota_take(q, 1, SECOND(5)), 1); /* a thread that looked at the clock before */
    /* Time does not add up to more than a minute's. */
    assert_int_equal(lb_quota_take(q, 600, SECOND(1000)), 0);
    assert_int_equal(lb_quota_take(q, 1, SECOND(1000)), 1);
    lb_quota_give_back(q, 600);
    assert_int_equal(lb_quota_take(q, 600, SECOND(1000)), 0);
    lb_quota_give_back(q, 6000);
    assert_int_equal(lb_quota_take(q, 600, SECOND(1000)), 0);
    assert_int_equal(lb_quota_take(q, 1, SECOND(1000)), 1);
    lb_quota_release(q);
}

/* More of what was let in is taken out whatever there is, and waited for by what comes next. */
static void test_charge(void **state) {
    (void)state;
    struct lb_quota *q = lb_quota_create();
    lb_quota_charge(q, 1000000, SECOND(0)); /* no limit yet */
    lb_quota_limit(q, 600, 0, SECOND(0));   /* ten a second */
    assert_int_equal(lb_quota_take(q, 600, SECOND(0)), 0);
    lb_quota_charge(q, 100, SECOND(0));
    assert_int_equal(lb_quota_take(q, 1, SECOND(0)), 11);
    lb_quota_charge(q, 100, SECOND(10)); /* when the first hundred are there again */
    assert_int_equal(lb_quota_take(q, 1, SECOND(10)), 11);
    assert_int_equal(lb_quota_take(q, 1, SECOND(21)), 0);
    lb_quota_release(q);
}

/* Limits read anew: what was used stays used. */
static void test_other_limits(void **state) {
    (void)state;
    struct lb_quota *q = lb_quota_create();
    lb_quota_limit(q, 600, 0, SECOND(0));
    assert_int_equal(lb_quota_take(q, 900, SECOND(0)), 0);
    lb_quota_limit(q, 6000, 0, SECOND(0));
    assert_int_equal(lb_quota_take(q, 1, SECOND(0)), 4); /* 300 at 100 a second */
    lb_quota_limit(q, 60, 0, SECOND(20));                /* 1700 are there: 60 may stay */
    assert_int_equal(lb_quota_take(q, 60, SECOND(20)), 0);
    assert_int_equal(lb_quota_take(q, 1, SECOND(20)), 1);
    lb_quota_limit(q, 0, 0, SECOND(20));
    assert_int_equal(lb_quota_take(q, 1000000, SECOND(20)), 0);
    lb_quota_limit(q, 60, 0, SECOND(20));
    assert_int_equal(lb_quota_take(q, 1, SECOND(20)), 0);
    lb_quota_release(q);
}

static void test_at_once(void **state) {
    (void)state;
    struct lb_quota *q = lb_quota_create();
    for (int i = 0; i < 5; i++) {
        assert_true(lb_quota_enter(q));
    }
    lb_quota_limit(q, 0, 3, SECOND(0));
    assert_false(lb_quota_enter(q));
    lb_quota_leave(q);
    lb_quota_leave(q);
    assert_false(lb_quota_enter(q));
    lb_quota_leave(q);
    assert_true(lb_quota_enter(q));
    assert_false(lb_quota_enter(q));
    struct lb_quota *same = lb_quota_retain(q);
    lb_quota_release(q);
    lb_quota_leave(same);
    assert_true(lb_quota_enter(same));
    lb_quota_release(same);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_minute), cmocka_unit_test(test_charge),
                                       cmocka_unit_test(test_other_limits), cmocka_unit_test(test_at_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
