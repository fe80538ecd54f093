/* Draws with replacement from the softmax of a row of logits that comes in pieces (random-sampling
 * distillation: Anshumann et al. 2025, "Sparse Logit Sampling"). V classes, S draws.
 *
 * Each draw is a reservoir of one: with a new piece it goes over to that piece with the probability that the
 * piece has of all that has come, and stands then for one of its classes by their probabilities. So each draw
 * ends as class j with exp(z[j] / temperature) of the whole row's sum, however the row was cut; which draws
 * these are depends on the cuts, on seed and stream, and on the logits, and on nothing else.
 */
#ifndef LB_NN_SAMPLE_H
#define LB_NN_SAMPLE_H

#include "common/base/rng.h"
#include "common/nn/reduce.h"

/* What is drawn. */
struct lb_draw {
    int64_t n; /* S; 0: nothing */
    double temperature;
    uint64_t seed, stream; /* other streams of one seed are independent */
};

/* A class that was drawn. */
struct lb_drawn {
    int32_t id, count;
    float logit;
};

struct lb_sampler {
    struct lb_lse lse; /* of what has come, at the draw's temperature */
    struct lb_rng rng;
    struct lb_drawn *drawn; /* [S] */
};

void lb_sampler_begin(struct lb_sampler *sampler, const struct lb_draw *draw, struct lb_drawn *drawn);
/* The next n logits, at most LB_MARK_ROOM * LB_MARK_STEP of them; the first has id first. lse and marks
 * (lb_lse_add_marks; NULL: they are made here) are those of the same logits at the draw's temperature, lse
 * with them. */
void lb_sampler_add(struct lb_sampler *sampler, const struct lb_draw *draw, const float *z, int64_t n,
                    int64_t first, const struct lb_lse *lse, const double *marks);
/* At the row's end: the first of drawn are different ids, rising, with how often each was drawn; returns how
 * many there are. 0 where a logit is NaN or +inf, or all are -inf. */
int64_t lb_sampler_finish(struct lb_sampler *sampler, const struct lb_draw *draw);
/* log-sum-exp of the row at the draw's temperature. */
double lb_sampler_logsumexp(const struct lb_sampler *sampler, const struct lb_draw *draw);

#endif
