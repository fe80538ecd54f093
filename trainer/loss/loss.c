#include "trainer/loss/loss.h"

#include <string.h>

static const struct lb_loss table[] = {
    {"cross_entropy", LB_ON_LABEL, lb_loss_cross_entropy, NULL},
    {"kl", LB_ON_TARGET, lb_loss_kl, NULL},
    {"hs_mse", LB_ON_HIDDEN, NULL, lb_loss_mse},
    {"hs_cosine", LB_ON_HIDDEN, NULL, lb_loss_cosine},
    {"attention_mse", LB_ON_ATTENTION, NULL, lb_loss_mse},
};

const struct lb_loss *lb_loss_find(const char *name) {
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].name, name) == 0) {
            return &table[i];
        }
    }
    return NULL;
}

const char *lb_loss_names(void) {
    return "cross_entropy, kl, hs_mse, hs_cosine, attention_mse";
}

const struct lb_loss *lb_loss_at(size_t i) {
    return i < sizeof table / sizeof table[0] ? &table[i] : NULL;
}
