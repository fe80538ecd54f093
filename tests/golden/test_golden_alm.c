/* The loss alm and, by the chain rule, its gradient by logits against PyTorch's (make_alm.py). How steps put
 * it together is held against formula and finite differences in tests/grad/test_grad_step.c
 * and test_grad_step_teachers.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/nn/reduce.h"
#include "tests/support/golden.h"
#include "tests/support/proofs.h"
#include "trainer/loss/loss.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 24
#define VOCAB 40

static int open_golden(void **state) {
    (void)state;
    return lb_golden_open("alm.safetensors");
}

static void alm(void **state) {
    (void)state;
    static const struct {
        double temp;
        const char *loss, *grad;
    } cases[] = {{1, "loss.1", "grad.1"}, {10, "loss.10", "grad.10"}, {100, "loss.100", "grad.100"}};
    const struct lb_loss *loss = lb_loss_find("alm");
    const float *z = lb_golden_find("logits")->data, *its = lb_golden_find("its")->data;
    const int32_t *labels = lb_golden_find("labels")->data, *chunk = lb_golden_find("chunks")->data;
    assert_non_null(loss);
    assert_int_equal(lb_golden_find("logits")->dim[1], VOCAB);
    for (size_t i = 0; i < 3; i++) {
        const struct lb_loss_args args = {.weight = 1, .bce_temp = cases[i].temp};
        const float *want = lb_golden_find(cases[i].grad)->data;
        double sum = 0, grad[ROWS * VOCAB] = {0}, total, worst = 0, largest = 0;
        for (int64_t c = 0; c < lb_golden_find("chunks")->dim[0]; c++) {
            const int32_t *at = chunk + 4 * c;
            double own = 0, teacher = 0, slope;
            for (int32_t t = at[0]; t < at[0] + at[1]; t++) {
                own += z[t * VOCAB + labels[t]] - lb_logsumexp(z + t * VOCAB, VOCAB, 1);
            }
            for (int32_t t = at[2]; t < at[2] + at[3]; t++) {
                teacher += (double)its[t];
            }
            sum += loss->chunk(teacher, own, &args, &slope) / ROWS;
            for (int32_t t = at[0]; t < at[0] + at[1]; t++) {
                double lse = lb_logsumexp(z + t * VOCAB, VOCAB, 1);
                for (int32_t j = 0; j < VOCAB; j++) {
                    grad[t * VOCAB + j] = slope / ROWS * ((j == labels[t]) - exp(z[t * VOCAB + j] - lse));
                }
            }
        }
        memcpy(&total, lb_golden_find(cases[i].loss)->data, sizeof total);
        for (int j = 0; j < ROWS * VOCAB; j++) {
            worst = fmax(worst, fabs(grad[j] - (double)want[j]));
            largest = fmax(largest, fabs((double)want[j]));
        }
        printf("bce_temp %-4g loss %.9f, PyTorch's %.9f; gradient off by %.1e of its largest\n",
               cases[i].temp, sum, total, worst / largest);
        assert_true(fabs(sum - total) < 1e-6 * total && worst < 1e-5 * largest);
        lb_proof("loss", loss->name, lb_proof_lane(loss), "value", fabs(sum - total) / total, 1);
        lb_proof("loss", loss->name, lb_proof_lane(loss), "gradient", worst / largest, ROWS * VOCAB);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(alm)};
    return cmocka_run_group_tests(tests, open_golden, lb_golden_close);
}
