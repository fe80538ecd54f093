/* Values and gradients of the losses on activations against PyTorch's (make_internals.py), which has the
 * papers' formulas: each such loss of the table. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/golden.h"
#include "tests/support/proofs.h"
#include "trainer/loss/loss.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define ROWS 7
#define WIDTH 12
#define NARROW 8
#define HEADS 2
#define T 4

static int open_golden(void **state) {
    (void)state;
    return lb_golden_open("internals.safetensors");
}

static const float *floats(const char *name) {
    return lb_golden_find(name)->data;
}

/* The activations that a loss compares, as make_internals.py has them. */
static struct lb_states make_states(const struct lb_loss *loss) {
    static const double weight[ROWS + 1] = {1, 1, 1, 1, 1, 1, 1, 1};
    static const int32_t groups[] = {0, 2, ROWS};
    bool maps = loss->on == LB_ON_ATTENTION;
    double squares = 0;
    for (int i = 0; i < ROWS * WIDTH; i++) {
        squares += pow((double)floats("its")[i], 2);
    }
    return (struct lb_states){.a = floats(maps ? "own_maps" : "own"),
                              .b = floats(maps              ? "its_maps"
                                          : loss->any_width ? "narrow"
                                                            : "its"),
                              .n = maps ? HEADS * T : ROWS,
                              .width = maps ? T : WIDTH,
                              .b_width = maps              ? T
                                         : loss->any_width ? NARROW
                                                           : WIDTH,
                              .row_weight = weight,
                              .inverse_square = ROWS * WIDTH / squares,
                              .n_groups = 2,
                              .groups = groups,
                              .heads = maps ? HEADS : 0};
}

/* False: there are no golden values. */
static bool compare(const struct lb_loss *loss, const char *key, bool normalize, bool causal) {
    if (!lb_golden_has(key)) {
        return false;
    }
    struct lb_states s = make_states(loss);
    s.both_ways = !causal;
    const struct lb_loss_args args = {
        .weight = 1, .normalize = normalize, .relation_heads = HEADS, .contrast_temp = 0.07};
    char grad_key[64];
    float da[ROWS * WIDTH] = {0};
    double apart = 0, largest = 0;
    snprintf(grad_key, sizeof grad_key, "%s.grad", key);
    const float *grad = floats(grad_key);
    s.work = loss->work != NULL ? malloc(loss->work(&s, &args)) : NULL;
    double value = loss->state(&s, &args, 1, da), want = *(const double *)lb_golden_find(key)->data;
    free(s.work);
    for (int64_t i = 0; i < s.n * s.width; i++) {
        apart = fmax(apart, fabs((double)da[i] - (double)grad[i]));
        largest = fmax(largest, fabs((double)grad[i]));
    }
    printf("%-24s value off by %.1e, gradient by %.1e of its largest\n", key, fabs(value - want) / want,
           apart / largest);
    assert_true(fabs(value - want) < 2e-6 * want && apart < 2e-6 * largest);
    lb_proof("loss", loss->name, lb_proof_lane(loss), "value", fabs(value - want) / want, 1);
    lb_proof("loss", loss->name, lb_proof_lane(loss), "gradient", apart / largest, s.n * s.width);
    return true;
}

static void losses(void **state) {
    (void)state;
    bool all = true;
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        const struct lb_loss *loss = lb_loss_at(i);
        char key[64];
        snprintf(key, sizeof key, "%s.normalized", loss->name);
        if (loss->state != NULL) {
            all = compare(loss, loss->name, false, false) && all;
        }
        if (lb_loss_reads(loss, "normalize")) {
            all = compare(loss, key, true, false) && all;
        }
        if (lb_loss_reads(loss, "relation_heads")) {
            snprintf(key, sizeof key, "%s.causal", loss->name);
            all = compare(loss, key, false, true) && all;
        }
    }
    assert_true(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(losses)};
    return cmocka_run_group_tests(tests, open_golden, lb_golden_close);
}
