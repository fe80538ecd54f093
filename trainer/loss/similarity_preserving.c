/* Similarity-preserving distillation (Tung and Mori 2019): which rows are alike, whatever widths they have.
 * With G = A A^T of the m rows of a group that are there, each of its rows divided by its length (N), and M
 * the same of the teacher's,
 *   L_i = |N_i - M_i|^2 / m                  per row, so that the rows' mean is eq. 4's |N - M|^2 / m^2;
 *   dL/dN_i = 2 (N_i - M_i) w_i / m,   dL/dG_i = (dN_i - N_i (N_i . dN_i)) / |G_i|,   dL/dA = (dG + dG^T) A.
 * The paper's groups are batches of images; here a text's positions are one, and where a sample has one row
 * only, the micro-batch. */
#include "trainer/loss/loss.h"

#include "common/nn/gemm.h"

#include <math.h>
#include <string.h>

#define LEAST 1e-12 /* length of a row of G, as torch's normalize */

struct group {
    const double *weight; /* [m] */
    int64_t m;
    double present; /* rows that are there */
    double scale;
    float *own, *its; /* G of both [m, m]; its becomes dL/dG */
};

/* The length of what is there of row i. */
static double length(const struct group *g, const float *x) {
    double sum = 0;
    for (int64_t j = 0; j < g->m; j++) {
        sum += g->weight[j] > 0 ? (double)x[j] * (double)x[j] : 0;
    }
    return fmax(sqrt(sum), LEAST);
}

static double row_similarity(const void *context, int64_t i) {
    const struct group *g = context;
    const float *own = g->own + i * g->m;
    float *its = g->its + i * g->m;
    if (!(g->weight[i] > 0)) {
        memset(its, 0, (size_t)g->m * sizeof *its);
        return 0;
    }
    double r = length(g, own), q = length(g, its), sum = 0, along = 0;
    for (int64_t j = 0; j < g->m; j++) {
        double n = own[j] / r, d = n - its[j] / q;
        sum += g->weight[j] > 0 ? d * d : 0;
        along += g->weight[j] > 0 ? n * d : 0;
    }
    double factor = 2 * g->scale * g->weight[i] / (g->present * r);
    for (int64_t j = 0; j < g->m; j++) {
        double n = own[j] / r, d = n - its[j] / q;
        its[j] = g->weight[j] > 0 ? (float)(factor * (d - n * along)) : 0;
    }
    return g->weight[i] * sum / g->present;
}

struct texts {
    const struct lb_states *states;
    double scale;
    float *da;
};

static double group_similarity(const void *context, int64_t i, void *memory) {
    const struct texts *t = context;
    const struct lb_states *s = t->states;
    int64_t first = s->groups[i], m = s->groups[i + 1] - first, c = s->width;
    const float *a = s->a + first * c, *b = s->b + first * s->b_width;
    struct group g = {s->row_weight + first, m, 0, t->scale, memory, (float *)memory + m * m};
    struct lb_states rows = *s;
    for (int64_t j = 0; j < m; j++) {
        g.present += g.weight[j] > 0 ? 1 : 0;
    }
    if (!(g.present > 0)) {
        return 0;
    }
    rows.n = rows.width = m;
    lb_gemm_nt(m, m, c, a, c, a, c, 0, g.own, m, NULL);
    lb_gemm_nt(m, m, s->b_width, b, s->b_width, b, s->b_width, 0, g.its, m, NULL);
    double loss = lb_states_sum(&rows, row_similarity, &g);
    lb_gemm_nn(m, c, m, g.its, m, a, c, 1, t->da + first * c, c);
    lb_gemm_tn(m, c, m, g.its, m, a, c, 1, t->da + first * c, c);
    return loss;
}

static size_t group_bytes(const struct lb_states *s) {
    size_t n = (size_t)lb_states_longest(s);
    return 2 * n * n * sizeof(float);
}

size_t lb_similarity_work(const struct lb_states *s, const struct lb_loss_args *args) {
    (void)args;
    return lb_states_tasks_bytes(s->n_groups, group_bytes(s));
}

double lb_states_similarity(const struct lb_states *s, const struct lb_loss_args *args, double scale,
                            float *da) {
    (void)args;
    const struct texts texts = {s, scale, da};
    return lb_states_tasks(s->n_groups, group_bytes(s), s->work, group_similarity, &texts);
}

const struct lb_loss lb_loss_similarity_preserving = {.name = "similarity_preserving",
                                                      .on = LB_ON_HIDDEN,
                                                      .parameters = "layer_mapping",
                                                      .any_width = true,
                                                      .among = LB_AMONG_ROWS,
                                                      .work = lb_similarity_work,
                                                      .state = lb_states_similarity};
