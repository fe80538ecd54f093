#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "trainer/learn/schedule.h"

#include <math.h>

static void expect_rate(const struct lb_recipe *r, int64_t total, int64_t step, double want) {
    double have = lb_learning_rate(r, total, step);
    if (fabs(have - want) > 1e-12) {
        fail_msg("step %lld of %lld: %.15g, expected %.15g", (long long)step, (long long)total, have, want);
    }
}

static void linear(void **state) {
    (void)state;
    struct lb_recipe r = {.learning_rate = 1.0,
                          .min_lr_ratio = 0.1,
                          .warmup_steps = 4,
                          .lr_scheduler_type = LB_SCHEDULE_LINEAR};
    expect_rate(&r, 14, 0, 0.25);
    expect_rate(&r, 14, 3, 1.0);
    expect_rate(&r, 14, 4, 1.0);
    expect_rate(&r, 14, 9, 0.1 + 0.9 * 0.5);
    expect_rate(&r, 14, 13, 0.1 + 0.9 * 0.1);
    expect_rate(&r, 14, 14, 0.1);
    expect_rate(&r, 14, 99, 0.1);
}

static void cosine(void **state) {
    (void)state;
    struct lb_recipe r = {.learning_rate = 2.0, .lr_scheduler_type = LB_SCHEDULE_COSINE};
    expect_rate(&r, 100, 0, 2.0);
    expect_rate(&r, 100, 25, 1.0 + cos(0.25 * acos(-1.0)));
    expect_rate(&r, 100, 50, 1.0);
    expect_rate(&r, 100, 100, 0.0);
}

static void constant(void **state) {
    (void)state;
    struct lb_recipe r = {.learning_rate = 0.5,
                          .min_lr_ratio = 0.1,
                          .warmup_ratio = 0.05,
                          .lr_scheduler_type = LB_SCHEDULE_CONSTANT};
    assert_int_equal(lb_warmup_steps(&r, 50), 3); /* 2.5, rounded up */
    r.warmup_max_steps = 100;
    assert_int_equal(lb_warmup_steps(&r, 50), 3);
    assert_int_equal(lb_warmup_steps(&r, 100000), 100);
    r.warmup_max_steps = 0;
    expect_rate(&r, 50, 0, 0.5 / 3);
    expect_rate(&r, 50, 3, 0.5);
    expect_rate(&r, 50, 49, 0.5);
}

static void warm_up_longer_than_the_run(void **state) {
    (void)state;
    struct lb_recipe r = {.learning_rate = 1.0, .warmup_steps = 20};
    expect_rate(&r, 10, 9, 0.5);
    expect_rate(&r, 10, 30, 0.0); /* past the end: the least, no division by a negative rest */
    r.warmup_steps = 10;
    expect_rate(&r, 10, 9, 1.0);
    expect_rate(&r, 10, 10, 0.0);
}

static void steps_of_epochs(void **state) {
    (void)state;
    struct lb_recipe r = {
        .num_train_epochs = 3, .per_device_train_batch_size = 8, .gradient_accumulation_steps = 2};
    assert_int_equal(lb_total_steps(&r, 160), 30);
    assert_int_equal(lb_total_steps(&r, 161), 31);
    assert_int_equal(lb_total_steps(&r, 1), 1);
    r.num_train_epochs = 0.5;
    assert_int_equal(lb_total_steps(&r, 160), 5);
    r.max_steps = 77;
    assert_int_equal(lb_total_steps(&r, 160), 77);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear), cmocka_unit_test(cosine), cmocka_unit_test(constant),
        cmocka_unit_test(warm_up_longer_than_the_run), cmocka_unit_test(steps_of_epochs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
