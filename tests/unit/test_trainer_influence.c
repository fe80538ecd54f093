#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/nn/tape.h"
#include "tests/support/drawn_texts.h"
#include "tests/support/tiny_model.h"
#include "trainer/run/influence.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#define ROWS 40
#define V 97
#define LAYERS 2

static struct lb_text_row rows[ROWS];
static int32_t ids[ROWS * 48];
static struct lb_dataset data;

static void make_texts(void) {
    lb_draw_texts(&data, ROWS, V, rows, ids);
}

/* Row by row from the hidden states as transformers would give them. Where the final norm's weights are all 1
 * it turns no state, so that the last one has the cosine of what went in. */
static void the_long_way(const struct lb_model *model, double *out) {
    struct lb_tape *tape = lb_tape_create((size_t)64 << 20);
    double sums[LAYERS] = {0};
    int64_t n = 0;
    for (int i = 0; i < ROWS; i++) {
        int32_t offsets[2] = {0, (int32_t)rows[i].n};
        struct lb_input in = {.ragged = {1, offsets}, .ids = ids + rows[i].start};
        struct lb_tap taps[LAYERS + 1];
        for (int l = 0; l <= LAYERS; l++) {
            taps[l] = (struct lb_tap){LB_TAP_HIDDEN, l, NULL};
        }
        lb_tape_begin(tape, LB_TAPE_PLAIN, &in.ragged, NULL);
        assert_non_null(lb_model_forward(model, tape, &in, taps, LAYERS + 1, NULL));
        for (int l = 0; l < LAYERS; l++) {
            for (int64_t r = 0; r < rows[i].n; r++) {
                long double ab = 0, aa = 0, bb = 0;
                for (int64_t j = 0; j < taps[l].value->cols; j++) {
                    long double a = taps[l].value->data[r * taps[l].value->cols + j],
                                b = taps[l + 1].value->data[r * taps[l].value->cols + j];
                    ab += a * b;
                    aa += a * a;
                    bb += b * b;
                }
                sums[l] += (double)(ab / sqrtl(aa * bb));
            }
        }
        n += rows[i].n;
    }
    for (int l = 0; l < LAYERS; l++) {
        out[l] = 1 - sums[l] / (double)n;
    }
    lb_tape_destroy(tape);
}

static void is_one_less_the_mean_cosine(void **state) {
    (void)state;
    void (*const configs[])(struct lb_config *) = {lb_tiny_llama, lb_tiny_bert};
    for (int m = 0; m < 2; m++) {
        struct lb_config config;
        struct lb_model *model = NULL;
        double have[LAYERS], again[LAYERS], want[LAYERS];
        int64_t n = 0;
        configs[m](&config);
        config.initializer_range = 0.5;
        assert_int_equal(lb_model_create(&config, 3, &model, NULL), LB_OK);
        make_texts();
        the_long_way(model, want);
        assert_int_equal(lb_block_influence(model, &data, NULL, have, &n, NULL), LB_OK);
        assert_int_equal(n, ROWS * (ROWS + 1) / 2);
        for (int l = 0; l < LAYERS; l++) {
            if (fabs(have[l] - want[l]) > 1e-6 || !(want[l] > 0.01)) {
                fail_msg("layer %d: %.9g, expected %.9g", l, have[l], want[l]);
            }
        }
        omp_set_num_threads(5);
        assert_int_equal(lb_block_influence(model, &data, NULL, again, &n, NULL), LB_OK);
        omp_set_num_threads(2);
        assert_memory_equal(have, again, sizeof have);
        /* Other weights of the final norm change what comes out of it, not what the last block did. */
        const struct lb_weight *norm = lb_model_find(model, "model.norm.weight");
        for (int64_t j = 0; norm != NULL && j < norm->cols; j++) {
            norm->value[j] = j % 2 == 0 ? 5.0f : 0.1f;
        }
        assert_int_equal(lb_block_influence(model, &data, NULL, again, &n, NULL), LB_OK);
        assert_memory_equal(have, again, sizeof have);
        lb_model_destroy(model);
    }
}

static void what_cannot_be(void **state) {
    (void)state;
    struct lb_config config;
    struct lb_model *model = NULL;
    double out[8];
    int64_t n = -1;
    struct lb_detail detail = {0};
    lb_tiny_mlp(&config);
    assert_int_equal(lb_model_create(&config, 3, &model, NULL), LB_OK);
    make_texts();
    assert_int_equal(lb_block_influence(model, &data, NULL, out, &n, &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "blocks of attention"));
    lb_model_destroy(model);
    lb_tiny_llama(&config);
    assert_int_equal(lb_model_create(&config, 3, &model, NULL), LB_OK);
    volatile sig_atomic_t stop = 1;
    assert_int_equal(lb_block_influence(model, &data, &stop, out, &n, NULL), LB_E_CANCELLED);
    const int32_t beyond[] = {1, V};
    const struct lb_text_row wrong = {lb_text_ids(&data), 1, -1};
    assert_int_equal(lb_text_add_ids(&data, beyond, 2, NULL), LB_OK);
    assert_int_equal(lb_text_add_row(&data, &wrong, NULL), LB_OK);
    detail = (struct lb_detail){0};
    assert_int_equal(lb_block_influence(model, &data, NULL, out, &n, &detail), LB_E_MISMATCH);
    assert_non_null(strstr(detail.text, "token 97"));
    assert_int_equal(n, -1);
    lb_model_destroy(model);
}

static void the_most_influential(void **state) {
    (void)state;
    const double influence[] = {0.3, 0.1, 0.5, 0.1, 0.4};
    int64_t kept[5];
    lb_influential(influence, 5, 3, kept);
    assert_true(kept[0] == 0 && kept[1] == 2 && kept[2] == 4);
    lb_influential(influence, 5, 4, kept);
    assert_true(kept[1] == 1 && kept[2] == 2 && kept[3] == 4);
    lb_influential(influence, 5, 5, kept);
    assert_true(kept[3] == 3 && kept[4] == 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(is_one_less_the_mean_cosine),
                                       cmocka_unit_test(what_cannot_be),
                                       cmocka_unit_test(the_most_influential)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
