/* Each loss on rows of logits against its formula in double: the value, and the gradient against central
 * differences of that formula, with sign. A loss without a formula here, or in test_grad_internals.c, fails.
 * Each mixture's weights against its paper.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/grad/loss_formulas.h"
#include "tests/support/loss_variants.h"
#include "tests/support/normals.h"
#include "tests/support/proofs.h"
#include "trainer/loss/loss.h"
#include "trainer/loss/mixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define V LB_FORMULA_V
#define K LB_FORMULA_K
#define LABEL LB_FORMULA_LABEL
#define ADDED 0x1p-13f
/* Float gradients of sums of V terms: rounding is near 1e-6 of the largest. */
#define TOLERANCE 1e-5

static struct lb_rng rng;

static const struct {
    const char *name;
    lb_formula_row *row;
} formulas[] = {
    {"cross_entropy", lb_formula_cross_entropy},
    {"kl", lb_formula_kl},
    {"reverse_kl", lb_formula_reverse_kl},
    {"jsd", lb_formula_jsd},
    {"skew_kl", lb_formula_skew_kl},
    {"skew_reverse_kl", lb_formula_skew_reverse_kl},
    {"tvd", lb_formula_tvd},
    {"akl", lb_formula_akl},
    {"abkd", lb_formula_abkd},
    {"dkd", lb_formula_dkd},
    {"logit_mse", lb_formula_logit_mse},
    {"logit_standardization", lb_formula_logit_standardization},
    {"dist", lb_formula_dist},
    {"uld", lb_formula_uld},
    {"uld_hybrid", lb_formula_uld_hybrid},
};

/* NULL: there is none. */
static lb_formula_row *formula_of(const struct lb_loss *loss) {
    for (size_t i = 0; i < sizeof formulas / sizeof formulas[0]; i++) {
        if (strcmp(formulas[i].name, loss->name) == 0) {
            return formulas[i].row;
        }
    }
    return NULL;
}

/* ---- rows of logits ---------------------------------------------------------------------------------------
 */

/* Above its clamp a row counts as much as that, and has no gradient; below it is what it is without. */
static void check_clamp(const struct lb_loss *loss, const struct lb_target *t, const float *z) {
    float free[V] = {0}, dz[V] = {0};
    double value = lb_formula_run(loss, z, t, 0.7f, free);
    assert_true(value > 0);
    lb_formula_args.clamp = 1.001 * value;
    assert_true(lb_formula_run(loss, z, t, 0.7f, dz) == value);
    assert_memory_equal(dz, free, sizeof dz);
    lb_formula_args.clamp = 0.999 * value;
    assert_true(lb_formula_run(loss, z, t, 0.7f, dz) == lb_formula_args.clamp);
    assert_memory_equal(dz, free, sizeof dz); /* nothing came to it */
    lb_formula_args.clamp = 0;
}

/* A loss at each of its settings. */
static void check_setting(const struct lb_loss *loss, const char *how, int setting, const struct lb_target *t,
                          const float *z) {
    float dz[V];
    double zd[V], wide[V], worst = 0, scale = 0, factor = 0.7;
    lb_formula_row *formula = formula_of(loss);
    if (formula == NULL) {
        return; /* table() says so */
    }
    for (int i = 0; i < V; i++) {
        zd[i] = wide[i] = z[i];
        dz[i] = ADDED; /* losses add to what is there */
    }
    lb_formula_at = wide;
    double have = lb_formula_run(loss, z, t, (float)factor, dz), expected = formula(zd, LABEL, t);
    assert_true(fabs(have - expected) < 1e-5 * fmax(1, fabs(expected)));
    for (int i = 0; i < V; i++) {
        double keep = zd[i], h = 1e-5;
        zd[i] = keep + h;
        double up = formula(zd, LABEL, t);
        zd[i] = keep - h;
        double down = formula(zd, LABEL, t);
        zd[i] = keep;
        double g = factor * (up - down) / (2 * h);
        worst = fmax(worst, fabs(dz[i] - ADDED - g));
        scale = fmax(scale, fabs(g));
    }
    printf("%-14s.%d %-20s T %-4g loss %.6f, gradient off by %.2e of its largest\n", loss->name, setting, how,
           t != NULL ? t->temperature : 1, have, worst / scale);
    assert_true(worst / scale < TOLERANCE);
    lb_proof("loss", loss->name, how, "differences", worst / scale, V);
    check_clamp(loss, t, z);
}

static void check_row(const struct lb_loss *loss, const char *how, const struct lb_target *t,
                      const float *z) {
    for (int n = 0; lb_loss_variant(loss, n, &lb_formula_args); n++) {
        lb_formula_args.temperature = t != NULL ? t->temperature : 1;
        check_setting(loss, how, n, t, z);
    }
    (void)lb_loss_variant(loss, 0, &lb_formula_args);
}

static void rows(void **state) {
    (void)state;
    static const double temperatures[] = {1, 2.5};
    float z[V];
    struct lb_formula_teacher t;
    lb_normals(&rng, z, V, 2);
    lb_normals(&rng, t.z, V, 2);
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        const struct lb_loss *loss = lb_loss_at(i);
        if (loss->on == LB_ON_LABEL) {
            check_row(loss, "label", NULL, z);
        }
        if (loss->on == LB_ON_ALIGNED) {
            lb_formula_teach(&t, 1);
            check_row(loss, "aligned", &t.aligned, z);
        }
        for (int n = 0; loss->on == LB_ON_TARGET && n < 2; n++) {
            lb_formula_teach(&t, temperatures[n]);
            if ((loss->kinds & LB_TARGET_DENSE) != 0) {
                check_row(loss, "dense", &t.dense, z);
                t.dense.z = NULL; /* as of a mean of several */
                if (!loss->on_logits) {
                    check_row(loss, "mixture", &t.dense, z);
                }
            }
            if ((loss->kinds & LB_TARGET_TRUNCATED) != 0) {
                check_row(loss, "tail", &t.top, z);
                check_row(loss, "renormalised", &t.renormalised, z);
            }
            if ((loss->kinds & LB_TARGET_SAMPLED) != 0) {
                check_row(loss, "sampled", &t.drawn, z);
            }
        }
    }
}

/* A row without a label gives losses that read it nothing. */
static void no_label(void **state) {
    (void)state;
    float z[V], around[V + 2], memory[4 * (V + 16)];
    struct lb_row row;
    struct lb_formula_teacher t;
    lb_normals(&rng, z, V, 2);
    lb_normals(&rng, t.z, V, 2);
    lb_formula_teach(&t, 1);
    lb_row_init(&row, V, 2, memory);
    for (size_t i = 0; lb_loss_at(i) != NULL; i++) {
        if (lb_loss_at(i)->on == LB_ON_LABEL || strcmp(lb_loss_at(i)->name, "dkd") == 0) {
            memset(around, 0, sizeof around);
            lb_row_begin(&row, z, -1);
            assert_true(lb_loss_at(i)->row(&row, &t.dense, &lb_loss_at(i)->defaults, 1, around + 1) == 0);
            for (int j = 0; j < V + 2; j++) {
                assert_true(around[j] == 0);
            }
        }
    }
}

/* A clamp hides nothing that is not finite. */
static void not_finite_in_clamp(void **state) {
    (void)state;
    float z[V], dz[V] = {0};
    struct lb_formula_teacher t;
    lb_normals(&rng, z, V, 2);
    lb_normals(&rng, t.z, V, 2);
    lb_formula_teach(&t, 1);
    (void)lb_loss_variant(lb_loss_find("logit_mse"), 0, &lb_formula_args);
    lb_formula_args.clamp = 1;
    assert_true(lb_formula_run(lb_loss_find("logit_mse"), z, &t.dense, 1, dz) == 1);
    z[5] = INFINITY;
    assert_true(isinf(lb_formula_run(lb_loss_find("logit_mse"), z, &t.dense, 1, dz)));
    z[5] = NAN;
    assert_true(isnan(lb_formula_run(lb_loss_find("logit_mse"), z, &t.dense, 1, dz)));
}

/* Softmaxes are made once per temperature, and made anew for another row. */
static void softmax_once(void **state) {
    (void)state;
    float z[V], other[V], memory[4 * (V + 16)];
    struct lb_row row;
    lb_normals(&rng, z, V, 2);
    lb_normals(&rng, other, V, 2);
    lb_row_init(&row, V, 2, memory);
    lb_row_begin(&row, z, -1);
    const struct lb_softmax *one = lb_row_softmax(&row, 1), *two = lb_row_softmax(&row, 2);
    double lse = one->lse;
    assert_ptr_equal(one, lb_row_softmax(&row, 1));
    assert_ptr_equal(two, lb_row_softmax(&row, 2));
    assert_true(fabs(two->q[5] - exp(z[5] / 2 - two->lse)) < 1e-6);
    const struct lb_softmax *three = lb_row_softmax(&row, 3); /* there is room for two */
    assert_true(three->temperature == 3 && lb_row_softmax(&row, 1)->lse == lse);
    lb_row_begin(&row, other, -1);
    assert_true(lb_row_softmax(&row, 1)->lse != lse);
}

/* ---- the table --------------------------------------------------------------------------------------------
 */

static void table(void **state) {
    (void)state;
    size_t n_rows = 0, without = 0;
    for (size_t n = 0; lb_loss_at(n) != NULL; n++) {
        const struct lb_loss *loss = lb_loss_at(n);
        assert_ptr_equal(lb_loss_find(loss->name), loss);
        bool row = loss->on == LB_ON_LABEL || loss->on == LB_ON_TARGET || loss->on == LB_ON_ALIGNED;
        n_rows += row;
        lb_proof("loss", loss->name, "", "table", 0, 0);
        if (row && formula_of(loss) == NULL) {
            print_error("%s is in the table of losses and has no formula in this test\n", loss->name);
            without++;
        }
        assert_true((loss->row != NULL) == row);
        assert_true((loss->chunk != NULL) == (loss->on == LB_ON_CHUNK));
        assert_int_equal((loss->row != NULL) + (loss->state != NULL) + (loss->chunk != NULL), 1);
        assert_true((loss->kinds != 0) == (loss->on == LB_ON_TARGET));
        assert_true(loss->on == LB_ON_TARGET || !lb_loss_reads(loss, "temperature"));
        assert_true(loss->on == LB_ON_TARGET || !loss->on_logits);
        assert_false(lb_loss_reads(loss, "temp"));
    }
    assert_null(lb_loss_find("kll"));
    assert_int_equal(without, 0);
    assert_true(n_rows == sizeof formulas / sizeof formulas[0]);
}

/* ---- mixtures ---------------------------------------------------------------------------------------------
 */

/* Weights as the papers have them, of three teachers of which all answered; the caller normalises. */
static void given_weights(const struct lb_weighing *in, double *w) {
    for (unsigned k = 0; k < in->n; k++) {
        w[k] = in->given[k];
    }
}

/* CA-MKD (Zhang et al. 2022), eq. 2: w_k = (1 - exp(L_k) / sum_j exp(L_j)) / (K - 1). */
static void ca_mkd_weights(const struct lb_weighing *in, double *w) {
    double sum = 0;
    for (unsigned k = 0; k < in->n; k++) {
        sum += exp(in->cross_entropy[k]);
    }
    for (unsigned k = 0; k < in->n; k++) {
        w[k] = in->given[k] * (1 - exp(in->cross_entropy[k]) / sum) / (in->n - 1);
    }
}

/* EBKD (Kwon et al. 2020): w_k = (1 - H_k / sum_j H_j) / (K - 1). */
static void entropy_weights(const struct lb_weighing *in, double *w) {
    double sum = 0;
    for (unsigned k = 0; k < in->n; k++) {
        sum += in->entropy[k];
    }
    for (unsigned k = 0; k < in->n; k++) {
        w[k] = in->given[k] * (1 - in->entropy[k] / sum) / (in->n - 1);
    }
}

static double score(const struct lb_weighing *in, unsigned k) {
    return in->by == LB_BY_CE        ? -in->cross_entropy[k]
           : in->by == LB_BY_ENTROPY ? -in->entropy[k]
                                     : in->max_prob[k];
}

/* A softmax over teachers of how sure they are. */
static void dynamic_weights(const struct lb_weighing *in, double *w) {
    for (unsigned k = 0; k < in->n; k++) {
        w[k] = in->given[k] * exp(score(in, k) / in->temperature);
    }
}

static void select_weights(const struct lb_weighing *in, double *w) {
    for (unsigned k = 0; k < in->n; k++) {
        w[k] = 1;
        for (unsigned j = 0; j < in->n; j++) {
            w[k] *= j == k || score(in, j) < score(in, k) ? 1 : 0;
        }
    }
}

/* The teacher in whose part of the line from 0 to the sum of weights the draw falls. */
static void random_weights(const struct lb_weighing *in, double *w) {
    double sum = 0, at = 0;
    for (unsigned k = 0; k < in->n; k++) {
        sum += in->given[k];
    }
    for (unsigned k = 0; k < in->n; at += in->given[k++]) {
        w[k] = in->draw * sum >= at && in->draw * sum < at + in->given[k];
    }
}

/* AEKD: the least norm of all that a fine grid of weights has, made finer around it twice. */
static void aekd_weights(const struct lb_weighing *in, double *w) {
    double best[3] = {0}, at[3] = {0}, width = 1;
    double least = INFINITY;
    for (int zoom = 0; zoom < 30; zoom++, width /= 2) {
        for (int i = -10; i <= 10; i++) {
            for (int j = -10; j <= 10; j++) {
                double a[3] = {at[0] + width * i / 10, at[1] + width * j / 10, 0}, norm = 0;
                a[2] = 1 - a[0] - a[1];
                for (int k = 0; k < 9; k++) {
                    norm += a[k / 3] * in->gram[k] * a[k % 3];
                }
                if (a[0] >= 0 && a[1] >= 0 && a[2] >= 0 && norm < least) {
                    least = norm;
                    memcpy(best, a, sizeof best);
                }
            }
        }
        memcpy(at, best, sizeof at);
    }
    for (int k = 0; k < 3; k++) {
        w[k] = in->given[k] * best[k];
    }
}

static const struct {
    const char *name;
    void (*weights)(const struct lb_weighing *in, double *w);
} mixture_formulas[] = {
    {"mean_probs", given_weights}, {"mean_logits", given_weights}, {"mean_losses", given_weights},
    {"ca_mkd", ca_mkd_weights},    {"entropy", entropy_weights},   {"dynamic", dynamic_weights},
    {"select", select_weights},    {"random", random_weights},     {"aekd", aekd_weights},
    {"route", given_weights},
};

static void expect_weights(const struct lb_mixture *m, const struct lb_weighing *in, const double *want) {
    double w[4], sum = 0;
    for (unsigned k = 0; k < in->n; k++) {
        sum += want[k];
    }
    lb_mixture_weights(m, in, w);
    for (unsigned k = 0; k < in->n; k++) {
        assert_true(fabs(w[k] - want[k] / sum) < (m->needs == LB_NEEDS_GRADIENTS ? 1e-7 : 1e-12));
    }
}

static void check_mixture(const struct lb_mixture *m, void (*formula)(const struct lb_weighing *, double *),
                          enum lb_mixture_by by, double draw) {
    static const double given[3] = {1, 1, 2}, ce_of[3] = {1.0, 2.0, 4.0}, entropy_of[3] = {2.0, 0.25, 1.0},
                        max_of[3] = {0.5, 0.25, 0.875},
                        gram_of[9] = {2, 0.5, -0.25, 0.5, 3, 0.125, -0.25, 0.125, 1},
                        gram_of_two[4] = {2, -0.25, -0.25, 1};
    static const bool all[4] = {true, true, true, true}, two[3] = {true, false, true},
                      one[3] = {false, true, false};
    double w[3], want[4];
    struct lb_weighing in = {.n = 3,
                             .present = all,
                             .given = given,
                             .cross_entropy = ce_of,
                             .entropy = entropy_of,
                             .max_prob = max_of,
                             .by = by,
                             .temperature = 0.75,
                             .draw = draw,
                             .gram = gram_of};
    formula(&in, want);
    expect_weights(m, &in, want);
    /* A lost teacher: as if there were only the others. */
    struct lb_weighing rest = in;
    rest.n = 2;
    rest.given = (double[]){1, 2};
    rest.cross_entropy = (double[]){1.0, 4.0};
    rest.entropy = (double[]){2.0, 1.0};
    rest.max_prob = (double[]){0.5, 0.875};
    rest.gram = gram_of_two;
    lb_mixture_weights(m, &rest, want);
    in.present = two;
    lb_mixture_weights(m, &in, w);
    assert_true(w[1] == 0 && fabs(w[0] - want[0]) < 1e-12 && fabs(w[2] - want[1]) < 1e-12);
    assert_true(fabs(w[0] + w[2] - 1) < 1e-12);
    in.present = all; /* nor does one count whose weight is 0, whatever it says */
    in.given = (double[]){1, 0, 2};
    lb_mixture_weights(m, &in, w);
    assert_true(w[1] == 0 && fabs(w[0] - want[0]) < 1e-12 && fabs(w[2] - want[1]) < 1e-12);
    in.given = given;
    in.present = one;
    lb_mixture_weights(m, &in, w);
    assert_true(w[0] == 0 && w[1] == 1 && w[2] == 0);
}

static void weights(void **state) {
    (void)state;
    size_t without = 0;
    for (size_t i = 0; lb_mixture_at(i) != NULL; i++) {
        const struct lb_mixture *m = lb_mixture_at(i);
        bool found = false;
        lb_proof("mixture", m->name, "", "table", 0, 0);
        assert_ptr_equal(lb_mixture_find(m->name), m);
        for (size_t f = 0; f < sizeof mixture_formulas / sizeof mixture_formulas[0]; f++) {
            if (strcmp(mixture_formulas[f].name, m->name) == 0) {
                for (int by = LB_BY_CE; by <= LB_BY_MAX_PROB; by++) {
                    check_mixture(m, mixture_formulas[f].weights, (enum lb_mixture_by)by, 0.3 * by);
                }
                found = true;
            }
        }
        if (!found) {
            print_error("%s is in the table of mixtures and has no formula in this test\n", m->name);
            without++;
        }
    }
    assert_int_equal(without, 0);
}

static void mixture_of_probabilities(void **state) {
    (void)state;
    const struct lb_loss *loss = lb_loss_find("kl");
    float z[2][V], p[V], one[V], student[V], mixed[V] = {0}, separate[V] = {0};
    double w[2] = {0.3, 0.7}, qd[2][V], zd[V], entropy = 0;
    const float *both[2] = {z[0], z[1]};
    lb_normals(&rng, z[0], V, 2);
    lb_normals(&rng, z[1], V, 2);
    lb_normals(&rng, student, V, 1);
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < V; i++) {
            zd[i] = z[k][i];
        }
        lb_formula_softmax(zd, 2, qd[k]);
    }
    struct lb_target t = {.kind = LB_TARGET_DENSE, .temperature = 2, .p = p};
    t.neg_entropy = lb_mixture_dense(LB_COMBINE_PROBS, 2, both, w, 2, V, p);
    for (int i = 0; i < V; i++) {
        double q = w[0] * qd[0][i] + w[1] * qd[1][i];
        assert_true(fabs(p[i] - q) < 1e-6);
        entropy += q * log(q);
    }
    assert_true(fabs(entropy - t.neg_entropy) < 1e-5);
    /* For the forward KL the gradient of the mixture is the mixture of the gradients. */
    (void)lb_formula_run(loss, student, &t, 1, mixed);
    for (int k = 0; k < 2; k++) {
        const float *row = z[k];
        double whole = 1;
        struct lb_target single = {.kind = LB_TARGET_DENSE, .temperature = 2, .p = one};
        single.neg_entropy = lb_mixture_dense(LB_COMBINE_PROBS, 1, &row, &whole, 2, V, one);
        (void)lb_formula_run(loss, student, &single, (float)w[k], separate);
    }
    for (int i = 0; i < V; i++) {
        assert_true(fabs(mixed[i] - separate[i]) < 2e-6);
    }
    /* The mean of logits is another distribution: softmax of the mean. */
    double mean[V], product[V], difference = 0;
    for (int i = 0; i < V; i++) {
        mean[i] = w[0] * z[0][i] + w[1] * z[1][i];
    }
    lb_formula_softmax(mean, 2, product);
    (void)lb_mixture_dense(LB_COMBINE_LOGITS, 2, both, w, 2, V, one);
    for (int i = 0; i < V; i++) {
        assert_true(fabs(one[i] - product[i]) < 1e-6);
        difference = fmax(difference, fabs(one[i] - p[i]));
    }
    assert_true(difference > 1e-3);
}

/* The union of lists: what nobody lists is in the tail, what one leaves out gets an even share of its tail.
 */
static void mixture_of_truncated(void **state) {
    (void)state;
    static const int32_t left[3] = {4, 1, 7}, right[2] = {7, 9};
    static const float p_left[3] = {0.5f, 0.2f, 0.1f}, p_right[2] = {0.4f, 0.3f};
    const struct lb_truncated from[3] = {{3, left, p_left, 0.2}, {0}, {2, right, p_right, 0.3}};
    double w[3] = {0.25, 0, 0.75}, tail, sum = 0, u = 0.2 / (V - 3), v = 0.3 / (V - 2);
    int32_t slot[V], ids[5];
    float p[5];
    memset(slot, -1, sizeof slot);
    assert_int_equal(lb_mixture_truncated(3, from, w, V, slot, ids, p, &tail), 4);
    const double want[4] = {0.25 * 0.5 + 0.75 * v, 0.25 * 0.2 + 0.75 * v, 0.25 * 0.1 + 0.75 * 0.4,
                            0.25 * u + 0.75 * 0.3};
    static const int32_t want_ids[4] = {4, 1, 7, 9};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(ids[i], want_ids[i]);
        assert_true(fabs(p[i] - want[i]) < 1e-7);
        sum += p[i];
    }
    assert_true(fabs(tail - (0.25 * u + 0.75 * v) * (V - 4)) < 1e-12 && fabs(sum + tail - 1) < 1e-6);
    for (int i = 0; i < V; i++) {
        assert_int_equal(slot[i], -1);
    }
    /* A teacher given twice is that teacher; the order of teachers does not matter but for rounding. */
    const struct lb_truncated twice[2] = {from[0], from[0]};
    const double halves[2] = {0.5, 0.5};
    assert_int_equal(lb_mixture_truncated(2, twice, halves, V, slot, ids, p, &tail), 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ids[i], left[i]);
        assert_true(fabs(p[i] - p_left[i]) < 1e-7);
    }
    assert_true(fabs(tail - 0.2) < 1e-12);
    /* One that lists nothing (of a vocabulary that was trimmed) shares all that it has. */
    const struct lb_truncated silent[2] = {from[0], {.tail = 1}};
    assert_int_equal(lb_mixture_truncated(2, silent, halves, V, slot, ids, p, &tail), 3);
    assert_true(fabs(p[0] - (0.25 + 0.5 / V)) < 1e-7);
    assert_true(fabs((double)p[0] + (double)p[1] + (double)p[2] + tail - 1) < 1e-6);
}

int main(void) {
    lb_rng_seed(&rng, 11, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),
        cmocka_unit_test(rows),
        cmocka_unit_test(no_label),
        cmocka_unit_test(not_finite_in_clamp),
        cmocka_unit_test(softmax_once),
        cmocka_unit_test(weights),
        cmocka_unit_test(mixture_of_probabilities),
        cmocka_unit_test(mixture_of_truncated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
