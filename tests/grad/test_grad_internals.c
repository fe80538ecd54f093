/* Each loss on activations or chunks against its formula in double: the value, and the gradient against
 * central differences of that formula, with sign. A loss without a formula here, or in test_grad_losses.c,
 * fails.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/grad/state_formulas.h"
#include "tests/support/normals.h"
#include "tests/support/proofs.h"
#include "trainer/loss/loss.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 6
#define HEAD_ROWS 3 /* attention: two heads of three positions */
#define WIDTH 12
/* Float gradients of sums of V terms: rounding is near 1e-6 of the largest. */
#define TOLERANCE 1e-5

static struct lb_rng rng;

/* Cross entropy of two coins whose heads have the likelihoods to the power of 1 / T. */
static double coins(double its, double own, double t) {
    double p = exp(its / t - 1e-6), q = exp(own / t - 1e-6);
    return -(p * log(q) + (1 - p) * log(1 - q));
}

static const struct {
    const char *name;
    lb_formula_state *state;
    double (*chunk)(double its, double own, double t);
} formulas[] = {
    {"hs_mse", lb_formula_mse, NULL},
    {"hs_cosine", lb_formula_cosine, NULL},
    {"pkd", lb_formula_pkd, NULL},
    {"hs_contrastive", lb_formula_contrast, NULL},
    {"similarity_preserving", lb_formula_similarity, NULL},
    {"attention_transfer", lb_formula_transfer, NULL},
    {"attention_mse", lb_formula_attention_mse, NULL},
    {"attention_kl", lb_formula_attention_kl, NULL},
    {"minilm_qq", lb_formula_relation, NULL},
    {"minilm_kk", lb_formula_relation, NULL},
    {"minilm_vv", lb_formula_relation, NULL},
    {"embedding_mse", lb_formula_mse, NULL},
    {"embedding_cosine", lb_formula_cosine, NULL},
    {"embedding_contrastive", lb_formula_contrast, NULL},
    {"embedding_similarity", lb_formula_similarity, NULL},
    {"alm", NULL, coins},
};

static size_t formula_of(const struct lb_loss *loss) {
    for (size_t i = 0; i < sizeof formulas / sizeof formulas[0]; i++) {
        if (strcmp(formulas[i].name, loss->name) == 0) {
            return i;
        }
    }
    return sizeof formulas / sizeof formulas[0]; /* table() says so */
}

/* ---- states -----------------------------------------------------------------------------------------------
 */

static void check_states(const struct lb_loss *loss, const struct lb_states *s, bool normalize) {
    const struct lb_loss_args args = {.weight = 1,
                                      .normalize = normalize,
                                      .relation_heads = LB_FORMULA_RELATION_HEADS,
                                      .contrast_temp = LB_FORMULA_CONTRAST_TEMP};
    double ad[ROWS * WIDTH], worst = 0, scale = 0;
    float da[ROWS * WIDTH] = {0};
    size_t f = formula_of(loss);
    if (f == sizeof formulas / sizeof formulas[0]) {
        return;
    }
    int64_t n = s->n * s->width;
    struct lb_states with = *s;
    with.work = loss->work != NULL ? malloc(loss->work(s, &args)) : NULL;
    for (int64_t i = 0; i < n; i++) {
        ad[i] = s->a[i];
    }
    double have = loss->state(&with, &args, 0.5, da), expected = formulas[f].state(ad, s, normalize);
    assert_true(fabs(have - expected) < 1e-5 * fabs(expected));
    for (int64_t i = 0; i < n; i++) {
        double keep = ad[i], h = 1e-5;
        ad[i] = keep + h;
        double up = formulas[f].state(ad, s, normalize);
        ad[i] = keep - h;
        double g = 0.5 * (up - formulas[f].state(ad, s, normalize)) / (2 * h);
        ad[i] = keep;
        worst = fmax(worst, fabs(da[i] - g));
        scale = fmax(scale, fabs(g));
    }
    printf("%-14s %-20s loss %.6f, gradient off by %.2e of its largest\n", loss->name,
           normalize ? "normalised" : "", have, worst / scale);
    assert_true(worst / scale < TOLERANCE);
    lb_proof("loss", loss->name, lb_proof_lane(loss), "differences", worst / scale, n);
    free(with.work);
}

/* Rows that sum to 1, as attention's do. */
static void shares(float *out, int64_t rows, int64_t width) {
    for (int64_t i = 0; i < rows; i++) {
        float sum = 0;
        for (int64_t j = 0; j < width; j++) {
            out[i * width + j] = (float)exp(lb_rng_normal(&rng));
            sum += out[i * width + j];
        }
        for (int64_t j = 0; j < width; j++) {
            out[i * width + j] /= sum;
        }
    }
}

static void states(void **state) {
    (void)state;
    static const int32_t sequences[] = {0, 2, ROWS}, one[] = {0, ROWS};
    static const double weight[ROWS] = {1, 0.3, 0, 1, 0.5, 0.7};
    float a[ROWS * WIDTH], b[ROWS * WIDTH], a_maps[ROWS * HEAD_ROWS], b_maps[ROWS * HEAD_ROWS];
    lb_normals(&rng, a, ROWS * WIDTH, 1);
    lb_normals(&rng, b, ROWS * WIDTH, 3);
    shares(a_maps, ROWS, HEAD_ROWS);
    shares(b_maps, ROWS, HEAD_ROWS);
    const struct lb_states hidden = {.a = a,
                                     .b = b,
                                     .n = ROWS,
                                     .width = WIDTH,
                                     .b_width = WIDTH,
                                     .row_weight = weight,
                                     .inverse_square = 0.37,
                                     .n_groups = 2,
                                     .groups = sequences};
    const struct lb_states planes = {.a = a_maps,
                                     .b = b_maps,
                                     .n = ROWS,
                                     .width = HEAD_ROWS,
                                     .b_width = HEAD_ROWS,
                                     .row_weight = weight,
                                     .n_groups = 1,
                                     .groups = one,
                                     .heads = ROWS / HEAD_ROWS};
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        const struct lb_loss *loss = lb_loss_at(i);
        if (loss->on == LB_ON_CHUNK) {
            continue;
        }
        if (loss->state != NULL) {
            const struct lb_states *s = loss->on == LB_ON_ATTENTION ? &planes : &hidden;
            check_states(loss, s, false);
            if (lb_loss_by_block(loss)) {
                struct lb_states encoder = *s;
                encoder.both_ways = true;
                check_states(loss, &encoder, false);
            }
            if (lb_loss_reads(loss, "normalize")) {
                check_states(loss, s, true);
            }
            if (loss->any_width) {
                struct lb_states narrow = *s;
                narrow.b_width = WIDTH - 4;
                check_states(loss, &narrow, false);
            }
        }
    }
}

/* Whole batches, whose rows threads share: losses and gradients have the bits of one thread, and rows that
 * are compared with no others, those that they have one by one. */
static void check_threads(const struct lb_loss *loss, struct lb_states *s, float *one, float *many) {
    const struct lb_loss_args args = {
        .weight = 1, .temperature = 1, .relation_heads = 3, .contrast_temp = 0.3};
    int64_t n = s->n * s->width;
    memset(one, 0, (size_t)n * sizeof *one);
    memset(many, 0, (size_t)n * sizeof *many);
    omp_set_num_threads(5);
    s->work = loss->work != NULL ? malloc(loss->work(s, &args)) : NULL;
    omp_set_num_threads(1);
    double want = loss->state(s, &args, 0.3, one);
    omp_set_num_threads(5);
    double have = loss->state(s, &args, 0.3, many), rows = 0;
    assert_true(want > 0 && want == have);
    assert_memory_equal(one, many, (size_t)n * sizeof *one);
    for (int64_t i = 0; i < s->n && loss->among == LB_AMONG_NONE; i++) {
        struct lb_states row = *s;
        row.a += i * s->width, row.b += i * s->b_width, row.row_weight += i, row.n = 1;
        rows += loss->state(&row, &args, 0.3, many);
    }
    assert_true(loss->among != LB_AMONG_NONE || rows == want);
    free(s->work);
}

static void states_at_any_threads(void **state) {
    (void)state;
    enum { N = 1500, WIDE = 48 };
    static const int32_t groups[] = {0, 700, 701, N};
    static float a[N * WIDE], b[N * WIDE], one[N * WIDE], many[N * WIDE];
    int threads = omp_get_max_threads();
    double weight[N];
    lb_normals(&rng, a, N * WIDE, 1);
    lb_normals(&rng, b, N * WIDE, 3);
    for (int i = 0; i < N; i++) {
        weight[i] = i % 7 / 4.0;
    }
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        const struct lb_loss *loss = lb_loss_at(i);
        struct lb_states s = {.a = a,
                              .b = b,
                              .n = N,
                              .width = WIDE,
                              .b_width = WIDE,
                              .row_weight = weight,
                              .inverse_square = 0.4,
                              .n_groups = 3,
                              .groups = groups};
        if (loss->state == NULL || loss->on == LB_ON_ATTENTION) {
            continue;
        }
        check_threads(loss, &s, one, many);
    }
    shares(a, N, WIDE);
    shares(b, N, WIDE);
    struct lb_states maps = {.a = a,
                             .b = b,
                             .n = N,
                             .width = WIDE,
                             .b_width = WIDE,
                             .row_weight = weight,
                             .n_groups = 1,
                             .groups = groups,
                             .heads = 4};
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        if (lb_loss_at(i)->on == LB_ON_ATTENTION) {
            check_threads(lb_loss_at(i), &maps, one, many);
        }
    }
    omp_set_num_threads(threads);
}

/* ---- chunks -----------------------------------------------------------------------------------------------
 */

static void chunks(void **state) {
    (void)state;
    static const double likelihoods[] = {-1e-3, -0.4, -3, -11, -90, -700}, temps[] = {1, 30, 100};
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        const struct lb_loss *loss = lb_loss_at(i);
        size_t f = formula_of(loss);
        double worst = 0;
        if (loss->chunk == NULL || f == sizeof formulas / sizeof formulas[0]) {
            continue;
        }
        for (int n = 0; n < 6 * 6 * 3; n++) {
            double its = likelihoods[n % 6], own = likelihoods[n / 6 % 6], h = 1e-4 * fmin(1, -own),
                   slope = 0;
            const struct lb_loss_args args = {.weight = 1, .bce_temp = temps[n / 36]};
            double (*formula)(double, double, double) = formulas[f].chunk;
            double have = loss->chunk(its, own, &args, &slope), want = formula(its, own, args.bce_temp);
            double up = formula(its, own + h, args.bce_temp), down = formula(its, own - h, args.bce_temp);
            assert_true(fabs(have - want) < 1e-9 * fmax(1, want));
            double off = fabs(slope - (up - down) / (2 * h)) / fmax(1e-2, fabs(slope));
            assert_true(off < 1e-6);
            worst = fmax(worst, off);
            /* Least where the student is the teacher. */
            assert_true(its == own ? fabs(slope) < 1e-9 : (slope > 0) == (own > its));
        }
        lb_proof("loss", loss->name, lb_proof_lane(loss), "differences", worst, 6 * 6 * 3);
        /* Sure of all: finite. */
        const struct lb_loss_args args = {.weight = 1, .bce_temp = 100};
        double slope = 0, value = loss->chunk(0, 1e-7, &args, &slope);
        assert_true(isfinite(value) && isfinite(slope));
    }
}

/* What has no formula here has one in test_grad_losses.c. */
static void table(void **state) {
    (void)state;
    size_t n = 0, without = 0;
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        const struct lb_loss *loss = lb_loss_at(i);
        n += loss->row == NULL;
        if (loss->row == NULL && formula_of(loss) == sizeof formulas / sizeof formulas[0]) {
            print_error("%s is in the table of losses and has no formula in this test\n", loss->name);
            without++;
        }
    }
    assert_int_equal(without, 0);
    assert_true(n == sizeof formulas / sizeof formulas[0]);
}

int main(void) {
    lb_rng_seed(&rng, 11, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),
        cmocka_unit_test(states),
        cmocka_unit_test(states_at_any_threads),
        cmocka_unit_test(chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
