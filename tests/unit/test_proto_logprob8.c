/* Log-probabilities in 8 bits: each code is its own nearest, and the stated bound holds for what lies
 * between. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/logprob8.h"

#include <math.h>

static void codes_are_kept(void **state) {
    (void)state;
    float before = INFINITY;
    for (int c = 0; c < 256; c++) {
        float l = lb_logprob8_to((uint8_t)c);
        assert_true(l < before && l <= 0);
        assert_int_equal(lb_logprob8_from(l), c);
        before = l;
    }
    assert_true(lb_logprob8_to(0) == 0 && before == LB_LOGPROB8_LEAST);
}

static void the_bound_holds(void **state) {
    (void)state;
    double worst = 0;
    for (int i = 0; i <= 3200000; i++) {
        float l = (float)(-1e-5 * i);
        double error = fabs((double)lb_logprob8_to(lb_logprob8_from(l)) - (double)l);
        if (!(error <= 0.0222 * sqrt(-(double)l) + 0.0002)) {
            fail_msg("%g moves by %g", (double)l, error);
        }
        double moved = fabs(exp((double)lb_logprob8_to(lb_logprob8_from(l))) - exp((double)l));
        worst = moved > worst ? moved : worst;
    }
    assert_true(worst < 0.01 && worst > 0.005);
}

static void what_has_no_code(void **state) {
    (void)state;
    assert_int_equal(lb_logprob8_from(-40), 255);
    assert_int_equal(lb_logprob8_from(-INFINITY), 255);
    assert_int_equal(lb_logprob8_from(NAN), 255);
    assert_int_equal(lb_logprob8_from(1e-6f), 0);
    assert_int_equal(lb_logprob8_from(INFINITY), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(codes_are_kept), cmocka_unit_test(the_bound_holds),
                                       cmocka_unit_test(what_has_no_code)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
