/* Settings of losses on rows of logits that tests run them with, beside their defaults.
 * tests/golden/make_losses.py has the same ones in the same order. */
#ifndef LB_TESTS_SUPPORT_LOSS_VARIANTS_H
#define LB_TESTS_SUPPORT_LOSS_VARIANTS_H

#include "trainer/loss/loss.h"

#include <string.h>

static const struct lb_loss_variant {
    const char *loss;
    struct lb_loss_args args;
} lb_loss_variants[] = {
    {"cross_entropy", {.label_smoothing = 0.1}},
    {"cross_entropy", {.label_smoothing = 1, .z_loss = 1e-2}},
    {"jsd", {.beta = 0}},
    {"jsd", {.beta = 0.1}},
    {"jsd", {.beta = 1}},
    {"skew_kl", {.alpha = 0}},
    {"skew_kl", {.alpha = 0.9}},
    {"skew_reverse_kl", {.alpha = 0}},
    {"skew_reverse_kl", {.alpha = 0.9}},
    {"abkd", {.alpha = 1, .beta = 0}},
    {"abkd", {.alpha = 0, .beta = 1}},
    {"abkd", {.alpha = 0.5, .beta = 0.5}},
    {"abkd", {.alpha = 0, .beta = 0}},
    {"abkd", {.alpha = 0, .beta = 0.6}},
    {"abkd", {.alpha = 0.6, .beta = 0}},
    {"abkd", {.alpha = 1, .beta = 1}},
    {"dkd", {.alpha = 2, .beta = 0.5}},
    {"uld_hybrid", {.alpha = 0.5, .beta = 0}},
    {"uld_hybrid", {.alpha = 2, .beta = 0.9}},
};

/* The n-th setting of a loss: the first is its defaults. False: there is none. */
static inline bool lb_loss_variant(const struct lb_loss *loss, int n, struct lb_loss_args *out) {
    *out = loss->defaults;
    out->weight = 1;
    for (size_t i = 0; n > 0 && i < sizeof lb_loss_variants / sizeof *lb_loss_variants; i++) {
        if (strcmp(lb_loss_variants[i].loss, loss->name) == 0 && --n == 0) {
            *out = lb_loss_variants[i].args;
        }
    }
    return n == 0;
}

#endif
