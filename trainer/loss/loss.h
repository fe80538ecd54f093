/* The losses. One table, one file per family, each with formula, paper and gradient in its header comment.
 *
 * Losses are nats (or squared units) per counted position; the caller passes the factor that makes the mean.
 * Adding a loss: one file (or function beside its family) and one line in loss.c's table.
 */
#ifndef LB_LOSS_LOSS_H
#define LB_LOSS_LOSS_H

#include "common/nn/tape.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a row of logits is compared with. */
struct lb_target {
    int32_t label;      /* the right class, -1: none */
    double temperature; /* of the distribution below */
    const float *p;     /* dense: probabilities [V]; NULL: truncated or none */
    double neg_entropy; /* dense: sum p log p */
    int64_t k;          /* truncated: so many ids, their probabilities, and the mass of all others; 0: none */
    const int32_t *ids; /* [k] */
    const float *p_at;  /* [k] */
    double tail;
    bool add_tail; /* truncated: keep the tail as one bucket, else renormalise over the ids */
};

/* One row: z [V] logits. Adds scale * dL/dz to dz [V] and returns L (not scaled). */
typedef double (*lb_row_loss)(const float *z, int64_t v, const struct lb_target *target, float scale,
                              float *dz);

/* Two activations of the same shape: adds scale * dL/da to da (written, not added, when fresh) and returns
 * the sum of L over rows. a [n, width] the student's (projected) states, b [n, width] the teacher's; row i
 * counts row_weight[i] times. normalize: see the loss. */
typedef double (*lb_state_loss)(const float *a, const float *b, int64_t n, int64_t width,
                                const double *row_weight, bool normalize, double scale, float *da);

enum lb_loss_on {
    LB_ON_LABEL,    /* rows of logits and labels */
    LB_ON_TARGET,   /* rows of logits and a teacher's distribution */
    LB_ON_HIDDEN,   /* hidden states, projected where widths differ */
    LB_ON_ATTENTION /* attention probabilities */
};

struct lb_loss {
    const char *name;
    enum lb_loss_on on;
    lb_row_loss row;
    lb_state_loss state;
};

/* NULL when there is none of that name. */
const struct lb_loss *lb_loss_find(const char *name);
/* The i-th loss of the table; NULL behind the last. */
const struct lb_loss *lb_loss_at(size_t i);
/* "cross_entropy, kl, ..." */
const char *lb_loss_names(void);

double lb_loss_cross_entropy(const float *z, int64_t v, const struct lb_target *target, float scale,
                             float *dz);
double lb_loss_kl(const float *z, int64_t v, const struct lb_target *target, float scale, float *dz);
double lb_loss_mse(const float *a, const float *b, int64_t n, int64_t width, const double *row_weight,
                   bool normalize, double scale, float *da);
double lb_loss_cosine(const float *a, const float *b, int64_t n, int64_t width, const double *row_weight,
                      bool normalize, double scale, float *da);

#endif
