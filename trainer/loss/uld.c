/* Universal logit distillation (Boizard et al. 2024, arXiv 2402.12030), for teachers of another tokenizer:
 * where both have read the same text, the distance of the probabilities sorted by size, whatever tokens they
 * are of, L = sum_i |p_(i) - q_(i)| + |p_rest - q_rest|, over the K that the teacher lists (of a smaller
 * vocabulary padded with 0) and the sums of all others: at most the distance of the whole distributions, and
 * that where all are listed. With s_j = sign(q_j - its partner), dL/dz_j = q_j (s_j - sum_i q_i s_i).
 *
 * uld_hybrid (TRL's GOLD, 2025): of tokens that both vocabularies have, the generalised JSD between the
 * listed ones and one bucket for all others (jsd.c, its beta), and alpha times the sorted distance of the
 * others: tokens that only the teacher has, of those listed, against the likeliest that only the student has,
 *   L = JSD_beta + alpha sum_i |p_(i) - q_(i)|. */
#include "trainer/loss/divergence.h"

#include "common/nn/reduce.h"

#include <math.h>

extern const struct lb_loss lb_loss_jsd;

static double sign(double x) {
    return (x > 0) - (x < 0);
}

/* Sorted p [n] against the student's ids [m] in falling order of q, m at most n, and of the rest the sums;
 * adds scale dL/dz. */
static double sorted_distance(const float *p, int64_t n, const int32_t *ids, int64_t m, const float *q,
                              double p_rest, double q_rest, const struct lb_row *row, float scale,
                              float *dz) {
    double loss = fabs(p_rest - q_rest), of_rest = sign(q_rest - p_rest), mean = q_rest * of_rest;
    for (int64_t i = 0; i < n; i++) {
        double own = i < m ? q[ids[i]] : 0;
        loss += fabs(p[i] - own);
        mean += own * sign(own - p[i]);
    }
    for (int64_t j = 0; j < row->v; j++) {
        dz[j] += scale * q[j] * (float)((q_rest > 0 ? of_rest : 0) - mean);
    }
    for (int64_t i = 0; i < m; i++) {
        dz[ids[i]] += scale * q[ids[i]] * (float)(sign(q[ids[i]] - p[i]) - (q_rest > 0 ? of_rest : 0));
    }
    return loss;
}

static double uld(struct lb_row *row, const struct lb_target *t, const struct lb_loss_args *args, float scale,
                  float *dz) {
    (void)args;
    const float *q = lb_row_softmax(row, 1)->q;
    int64_t m = t->k < row->v ? t->k : row->v;
    double rest = 1;
    lb_topk(row->z, row->v, m, row->top_ids, row->top);
    for (int64_t i = 0; i < m; i++) {
        rest -= (double)q[row->top_ids[i]];
    }
    rest = m < row->v ? fmax(rest, 0) : 0;
    return sorted_distance(t->p_at, t->k, row->top_ids, m, q, t->tail, rest, row, scale, dz);
}

/* The listed tokens that both have, as a list in the student's ids. */
static struct lb_target in_common(const struct lb_row *row, const struct lb_target *t) {
    struct lb_target out = {.kind = LB_TARGET_TRUNCATED,
                            .temperature = 1,
                            .ids = row->top_ids,
                            .p_at = row->top,
                            .tail = 1,
                            .add_tail = true,
                            .mass = 1};
    for (int64_t i = 0; i < t->k; i++) {
        if (t->own_ids[i] >= 0) {
            row->top_ids[out.k] = t->own_ids[i];
            row->top[out.k++] = t->p_at[i];
            out.tail -= (double)t->p_at[i];
        }
    }
    out.tail = fmax(out.tail, 0);
    return out;
}

/* The listed tokens that the teacher alone has against the student's. */
static double of_others(struct lb_row *row, const struct lb_target *t, float scale, float *dz) {
    const float *q = lb_row_softmax(row, 1)->q;
    float *p = row->top;
    int64_t n = 0, m = 0;
    for (int64_t j = 0; j < row->v; j++) {
        row->work[j] = t->common[j] != 0 ? -INFINITY : row->z[j];
        m += t->common[j] != 0 ? 0 : 1;
    }
    for (int64_t i = 0; i < t->k; i++) {
        n += t->own_ids[i] < 0 ? 1 : 0;
    }
    m = m < n ? m : n;
    lb_topk(row->work, row->v, m, row->top_ids, p);
    for (int64_t i = 0, to = 0; i < t->k; i++) {
        if (t->own_ids[i] < 0) {
            p[to++] = t->p_at[i];
        }
    }
    return sorted_distance(p, n, row->top_ids, m, q, 0, 0, row, scale, dz);
}

static double hybrid(struct lb_row *row, const struct lb_target *t, const struct lb_loss_args *args,
                     float scale, float *dz) {
    struct lb_loss_args jsd = lb_loss_jsd.defaults;
    jsd.beta = args->beta;
    const struct lb_target common = in_common(row, t);
    double loss = lb_loss_jsd.row(row, &common, &jsd, scale, dz);
    return loss + args->alpha * of_others(row, t, (float)(args->alpha * (double)scale), dz);
}

static const char *wrong(const struct lb_loss_args *args, bool with_tail) {
    return lb_loss_jsd.wrong(args, with_tail);
}

const struct lb_loss lb_loss_uld = {.name = "uld", .on = LB_ON_ALIGNED, .parameters = "clamp", .row = uld};

const struct lb_loss lb_loss_uld_hybrid = {.name = "uld_hybrid",
                                           .on = LB_ON_ALIGNED,
                                           .parameters = "alpha, beta, clamp",
                                           .defaults = {.alpha = 1, .beta = 0.5},
                                           .wrong = wrong,
                                           .row = hybrid};
