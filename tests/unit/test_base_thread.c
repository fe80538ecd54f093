/* Clock and allocations: what threads share. Also run under the thread sanitizer. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <pthread.h>

static void *allocate(void *data) {
    (void)data;
    for (int i = 0; i < 1000; i++) {
        lb_free(lb_malloc_array(1, 8));
    }
    return NULL;
}

static void allocations_are_counted_across_threads(void **state) {
    (void)state;
    lb_mem_fail_from(0);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, allocate, NULL), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(lb_mem_count(), 4000);
}

static void clocks_go_forward(void **state) {
    (void)state;
    uint64_t last = lb_now_ns();
    assert_true(last != 0);
    for (int i = 0; i < 1000; i++) {
        uint64_t now = lb_now_ns();
        assert_true(now >= last);
        last = now;
    }
    lb_sleep_ns(3 * LB_MS_NS);
    assert_true(lb_now_ns() - last >= 3 * LB_MS_NS);
    assert_true(lb_unix_seconds() > 1.6e9); /* later than 2020 */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_are_counted_across_threads),
        cmocka_unit_test(clocks_go_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
