#include "trainer/loss/mixture.h"

#include <string.h>

/* The table: one line a mixture. */
/* clang-format off */
#define MIXTURES(X) \
    X(mean_probs)   \
    X(mean_logits)  \
    X(mean_losses)  \
    X(ca_mkd)       \
    X(entropy)      \
    X(dynamic)      \
    X(select)       \
    X(aekd)         \
    X(random)       \
    X(route)
/* clang-format on */

#define DECLARED(name) extern const struct lb_mixture lb_mixture_##name;
#define PLACE(name) &lb_mixture_##name,

MIXTURES(DECLARED)

static const struct lb_mixture *const table[] = {MIXTURES(PLACE) NULL};

const struct lb_mixture *lb_mixture_at(size_t i) {
    return i < sizeof table / sizeof table[0] ? table[i] : NULL;
}

const struct lb_mixture *lb_mixture_find(const char *name) {
    for (size_t i = 0; table[i] != NULL; i++) {
        if (strcmp(table[i]->name, name) == 0) {
            return table[i];
        }
    }
    return NULL;
}

unsigned lb_mixture_needs(const struct lb_mixture *mixture, enum lb_mixture_by by) {
    unsigned chosen = by == LB_BY_ENTROPY    ? LB_NEEDS_ENTROPY
                      : by == LB_BY_MAX_PROB ? LB_NEEDS_MAX_PROB
                                             : LB_NEEDS_CROSS_ENTROPY;
    return mixture->needs | (mixture->by_choice ? chosen : 0);
}

double lb_weighing_score(const struct lb_weighing *in, unsigned k) {
    return in->by == LB_BY_ENTROPY    ? -in->entropy[k]
           : in->by == LB_BY_MAX_PROB ? in->max_prob[k]
                                      : -in->cross_entropy[k];
}

void lb_weighing_by_share(const struct lb_weighing *in, const double *unsure, double *w) {
    unsigned there = 0;
    double sum = 0;
    for (unsigned k = 0; k < in->n; k++) {
        there += w[k] > 0 ? 1 : 0;
        sum += w[k] > 0 ? unsure[k] : 0;
    }
    for (unsigned k = 0; there > 1 && sum != 0 && k < in->n; k++) {
        w[k] *= w[k] > 0 ? (1 - unsure[k] / sum) / (there - 1) : 0;
    }
}

void lb_mixture_weights(const struct lb_mixture *mixture, const struct lb_weighing *in, double *out) {
    double sum = 0;
    for (unsigned k = 0; k < in->n; k++) {
        out[k] = in->present[k] ? in->given[k] : 0;
    }
    if (mixture->weigh != NULL) {
        mixture->weigh(in, out);
    }
    for (unsigned k = 0; k < in->n; k++) {
        sum += out[k];
    }
    for (unsigned k = 0; k < in->n && sum > 0; k++) {
        out[k] /= sum;
    }
}
