/* Rotary frequencies of heads as wide as real ones, against transformers 5: where ramps begin and end, and at
 * which length a sequence is a long one. Small models' heads (tests/golden) have all of a ramp cut off. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/formats/rope_scaling.h"

#include <math.h>

#define DIMS 64
#define HALF (DIMS / 2)

/* Each frequency as a part of the plain one. */
static void shares(const struct lb_rope_scaling *rope, int64_t length, double out[HALF]) {
    const struct lb_config plain = {.head_dim = DIMS, .rope_theta = 10000, .max_position_embeddings = 16384};
    struct lb_config scaled = plain;
    double of_plain[HALF];
    scaled.rope = *rope;
    assert_int_equal(lb_rope_dims(&scaled), DIMS);
    lb_rope_scaled(&plain, length, of_plain);
    lb_rope_scaled(&scaled, length, out);
    for (int j = 0; j < HALF; j++) {
        out[j] /= of_plain[j];
    }
}

static void expect(double is, double want) {
    if (!(fabs(is - want) < 2e-6)) {
        fail_msg("%.7f instead of %.7f", is, want);
    }
}

/* All is 1 before the first of the ramp, least behind its last. */
static void expect_ramp(const struct lb_rope_scaling *rope, int first, int last, double at_first,
                        double at_last, double least) {
    double share[HALF];
    shares(rope, 1, share);
    for (int j = 0; j < first; j++) {
        expect(share[j], 1);
    }
    expect(share[first], at_first);
    expect(share[last], at_last);
    for (int j = last + 1; j < HALF; j++) {
        expect(share[j], least);
    }
}

static void test_yarn(void **state) {
    (void)state;
    struct lb_rope_scaling rope = {.type = LB_ROPE_YARN, .factor = 4, .original = 4096};
    expect_ramp(&rope, 11, 22, 0.942308, 0.307692, 0.25);
    rope.untruncated = true;
    expect_ramp(&rope, 11, 22, 0.967128, 0.281980, 0.25);
    rope = (struct lb_rope_scaling){
        .type = LB_ROPE_YARN, .factor = 40, .original = 4096, .beta_fast = 16, .beta_slow = 0.001};
    expect_ramp(&rope, 13, 31, 0.972143, 0.470714, 0); /* it would end behind the last dimension */
}

static void test_dynamic(void **state) {
    (void)state;
    const struct lb_rope_scaling rope = {.type = LB_ROPE_DYNAMIC, .factor = 4, .original = 4096};
    double share[HALF];
    shares(&rope, 4096, share);
    expect(share[1], 1);
    expect(share[31], 1);
    shares(&rope, 4097, share);
    expect(share[1], 0.999968514);
    expect(share[31], 0.999024377);
    shares(&rope, 8192, share);
    expect(share[1], 0.949407345);
    expect(share[31], 0.2);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_yarn), cmocka_unit_test(test_dynamic)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
