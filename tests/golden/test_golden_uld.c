/* The losses on distributions over unlike vocabularies and their gradients against PyTorch's (make_uld.py).
 * How steps find what they compare is in tests/grad/test_grad_step_teachers.c. */
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

#define ROWS 4
#define VOCAB 40
#define K 9

static int open_golden(void **state) {
    (void)state;
    return lb_golden_open("uld.safetensors");
}

static void compare(const struct lb_loss *loss) {
    const char *name = loss->name;
    char key[64];
    snprintf(key, sizeof key, "%s.grad", name);
    const float *z = lb_golden_find("logits")->data, *p = lb_golden_find("p")->data,
                *grad = lb_golden_find(key)->data;
    const double *want = lb_golden_find(name)->data;
    double apart = 0, largest = 0, worst = 0;
    for (int r = 0; r < ROWS; r++) {
        float memory[4 * (VOCAB + 16)], top[K], dz[VOCAB] = {0};
        int32_t top_ids[K];
        struct lb_row row;
        struct lb_target t = {.kind = LB_TARGET_TRUNCATED,
                              .temperature = 1,
                              .k = K,
                              .p_at = p + r * K,
                              .tail = 1,
                              .own_ids = (const int32_t *)lb_golden_find("own_ids")->data + r * K,
                              .common = lb_golden_find("common")->data};
        for (int i = 0; i < K; i++) {
            t.tail -= (double)t.p_at[i];
        }
        lb_row_init(&row, VOCAB, 2, memory);
        lb_row_begin(&row, z + r * VOCAB, 0);
        row.top_ids = top_ids;
        row.top = top;
        worst = fmax(worst, fabs(lb_loss_row(loss, &row, &t, &loss->defaults, 1, dz) - want[r]));
        for (int j = 0; j < VOCAB; j++) {
            apart = fmax(apart, fabs((double)dz[j] - (double)grad[r * VOCAB + j]));
            largest = fmax(largest, fabs((double)grad[r * VOCAB + j]));
        }
    }
    printf("%-12s value off by %.1e, gradient by %.1e of its largest\n", name, worst, apart / largest);
    assert_true(worst < 2e-6 && apart < 2e-6 * largest);
    lb_proof("loss", name, lb_proof_lane(loss), "value", worst, ROWS);
    lb_proof("loss", name, lb_proof_lane(loss), "gradient", apart / largest, ROWS * VOCAB);
}

static void unlike_vocabularies(void **state) {
    (void)state;
    bool all = true;
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        if (lb_loss_at(i)->on == LB_ON_ALIGNED) {
            if (lb_golden_has(lb_loss_at(i)->name)) {
                compare(lb_loss_at(i));
            } else {
                all = false;
            }
        }
    }
    assert_true(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(unlike_vocabularies)};
    return cmocka_run_group_tests(tests, open_golden, lb_golden_close);
}
