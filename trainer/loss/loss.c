#include "trainer/loss/loss.h"

#include <math.h>
#include <string.h>

/* The table: one line a loss. */
/* clang-format off */
#define LOSSES(X)    \
    X(cross_entropy) \
    X(kl)            \
    X(reverse_kl)    \
    X(jsd)           \
    X(skew_kl)       \
    X(skew_reverse_kl) \
    X(tvd)           \
    X(akl)           \
    X(abkd)          \
    X(dkd)           \
    X(logit_mse)     \
    X(logit_standardization) \
    X(dist)          \
    X(hs_mse)        \
    X(hs_cosine)     \
    X(pkd)           \
    X(hs_contrastive) \
    X(similarity_preserving) \
    X(attention_transfer) \
    X(attention_mse) \
    X(attention_kl)  \
    X(minilm_qq)     \
    X(minilm_kk)     \
    X(minilm_vv)     \
    X(embedding_mse) \
    X(embedding_cosine) \
    X(embedding_contrastive) \
    X(embedding_similarity) \
    X(alm)           \
    X(uld)           \
    X(uld_hybrid)
/* clang-format on */

#define DECLARED(name) extern const struct lb_loss lb_loss_##name;
#define PLACE(name) &lb_loss_##name,

LOSSES(DECLARED)

static const struct lb_loss *const table[] = {LOSSES(PLACE) NULL};

const struct lb_loss *lb_loss_at(size_t i) {
    return i < sizeof table / sizeof table[0] ? table[i] : NULL;
}

const struct lb_loss *lb_loss_find(const char *name) {
    for (size_t i = 0; table[i] != NULL; i++) {
        if (strcmp(table[i]->name, name) == 0) {
            return table[i];
        }
    }
    return NULL;
}

static void fill(double *at, double value) {
    *at = isnan(*at) ? value : *at;
}

void lb_loss_fill(const struct lb_loss *loss, struct lb_loss_args *args) {
    const struct lb_loss_args *d = &loss->defaults;
    fill(&args->bce_temp, d->bce_temp);
    fill(&args->contrast_temp, d->contrast_temp);
    fill(&args->label_smoothing, d->label_smoothing);
    fill(&args->z_loss, d->z_loss);
    fill(&args->alpha, d->alpha);
    fill(&args->beta, d->beta);
    fill(&args->gamma, d->gamma);
    fill(&args->clamp, d->clamp);
}

double lb_loss_row(const struct lb_loss *loss, struct lb_row *row, const struct lb_target *target,
                   const struct lb_loss_args *args, float scale, float *dz) {
    if (args->clamp == 0) {
        return loss->row(row, target, args, scale, dz);
    }
    memset(row->apart, 0, (size_t)row->v * sizeof *row->apart);
    double value = loss->row(row, target, args, scale, row->apart);
    if (value > args->clamp && isfinite(value)) {
        return args->clamp;
    }
    for (int64_t j = 0; j < row->v; j++) {
        dz[j] += row->apart[j];
    }
    return value;
}

bool lb_loss_reads(const struct lb_loss *loss, const char *key) {
    size_t n = strlen(key);
    for (const char *at = loss->parameters; *at != '\0'; at += strspn(at, ", ")) {
        size_t word = strcspn(at, ", ");
        if (word == n && memcmp(at, key, n) == 0) {
            return true;
        }
        at += word;
    }
    return false;
}
