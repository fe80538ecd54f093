/* Contrast over a batch (InfoNCE, van den Oord et al. 2018, between student and teacher as in CRD, Tian et
 * al. 2020, with the batch's own samples in place of its memory of negatives): which of the teacher's rows is
 * mine? With u = a/|a|, v = b/|b| and S_ij = u_i . v_j / contrast_temp over the rows of a group that are
 * there, L_i = -log softmax_j(S_i)_i                   per row; dL/dS_ij = w_i (softmax(S_i)_j - [i = j]),
 * du_i = sum_j dS_ij v_j / contrast_temp, dL/da_i = (du_i - u_i (u_i . du_i)) / |a_i|. Groups are the
 * sentences of a micro-batch; of hidden states a text's positions, or where a sample has one row the
 * micro-batch's. */
#include "trainer/loss/loss.h"

#include "common/nn/gemm.h"

#include <math.h>

#define LEAST 1e-12 /* length of a row */

struct contrast {
    const double *weight; /* [m] */
    int64_t m, width;
    double scale, inverse_temp;
    const float *a;
    float *u, *v, *du, *s; /* [m, width], S [m, m], which becomes dL/dS */
    float *da;
};

/* u [m, width] = x's rows made to have length 1. */
static void normalise(const float *x, int64_t m, int64_t width, float *u) {
#pragma omp parallel for schedule(static) if (m * width > 16384)
    for (int64_t i = 0; i < m; i++) {
        double square = 0;
        for (int64_t j = 0; j < width; j++) {
            square += (double)x[i * width + j] * (double)x[i * width + j];
        }
        double inverse = 1 / fmax(sqrt(square), LEAST);
        for (int64_t j = 0; j < width; j++) {
            u[i * width + j] = (float)(x[i * width + j] * inverse);
        }
    }
}

static double row_contrast(const void *context, int64_t i) {
    const struct contrast *c = context;
    float *s = c->s + i * c->m;
    double most = -INFINITY, sum = 0, own = s[i] * c->inverse_temp;
    for (int64_t j = 0; j < c->m; j++) {
        most = c->weight[j] > 0 ? fmax(most, s[j] * c->inverse_temp) : most;
    }
    for (int64_t j = 0; j < c->m; j++) {
        sum += c->weight[j] > 0 ? exp(s[j] * c->inverse_temp - most) : 0;
    }
    bool there = c->weight[i] > 0;
    double lse = there ? most + log(fmax(sum, 1)) : 0; /* the largest is one of them */
    for (int64_t j = 0; j < c->m; j++) {
        double p = there && c->weight[j] > 0 ? exp(s[j] * c->inverse_temp - lse) : 0;
        s[j] = there ? (float)(c->scale * c->weight[i] * c->inverse_temp * (p - (j == i ? 1 : 0))) : 0;
    }
    return there ? c->weight[i] * (lse - own) : 0;
}

/* du of a row through its length. */
static double row_back(const void *context, int64_t i) {
    const struct contrast *c = context;
    const float *u = c->u + i * c->width, *du = c->du + i * c->width;
    double along = 0, square = 0;
    for (int64_t j = 0; j < c->width; j++) {
        along += (double)u[j] * (double)du[j];
        square += (double)c->a[i * c->width + j] * (double)c->a[i * c->width + j];
    }
    double inverse = 1 / fmax(sqrt(square), LEAST);
    for (int64_t j = 0; j < c->width; j++) {
        c->da[i * c->width + j] += (float)(((double)du[j] - (double)u[j] * along) * inverse);
    }
    return 0;
}

struct groups {
    const struct lb_states *states;
    double scale, inverse_temp;
    float *da;
};

static double group_contrast(const void *context, int64_t i, void *memory) {
    const struct groups *groups = context;
    const struct lb_states *s = groups->states;
    int64_t first = s->groups[i], m = s->groups[i + 1] - first, n = m * s->width;
    float *work = memory;
    struct contrast c = {.weight = s->row_weight + first,
                         .m = m,
                         .width = s->width,
                         .scale = groups->scale,
                         .inverse_temp = groups->inverse_temp,
                         .a = s->a + first * s->width,
                         .u = work,
                         .v = work + n,
                         .du = work + 2 * n,
                         .s = work + 3 * n,
                         .da = groups->da + first * s->width};
    struct lb_states rows = *s;
    rows.n = m;
    normalise(c.a, m, s->width, c.u);
    normalise(s->b + first * s->width, m, s->width, c.v);
    lb_gemm_nt(m, m, s->width, c.u, s->width, c.v, s->width, 0, c.s, m, NULL);
    double loss = lb_states_sum(&rows, row_contrast, &c);
    lb_gemm_nn(m, s->width, m, c.s, m, c.v, s->width, 0, c.du, s->width);
    return loss + lb_states_sum(&rows, row_back, &c);
}

static size_t group_bytes(const struct lb_states *s) {
    size_t n = (size_t)lb_states_longest(s);
    return n * (3 * (size_t)s->width + n) * sizeof(float);
}

static size_t contrast_work(const struct lb_states *s, const struct lb_loss_args *args) {
    (void)args;
    return lb_states_tasks_bytes(s->n_groups, group_bytes(s));
}

static double contrastive(const struct lb_states *s, const struct lb_loss_args *args, double scale,
                          float *da) {
    const struct groups groups = {s, scale, 1 / args->contrast_temp, da};
    return lb_states_tasks(s->n_groups, group_bytes(s), s->work, group_contrast, &groups);
}

#define CONTRAST(NAME, ON, KEYS)                                                                             \
    const struct lb_loss lb_loss_##NAME = {.name = #NAME,                                                    \
                                           .on = ON,                                                         \
                                           .among = LB_AMONG_ROWS,                                           \
                                           .parameters = KEYS,                                               \
                                           .defaults = {.contrast_temp = 0.07},                              \
                                           .work = contrast_work,                                            \
                                           .state = contrastive}

CONTRAST(hs_contrastive, LB_ON_HIDDEN, "layer_mapping, contrast_temp");
CONTRAST(embedding_contrastive, LB_ON_SENTENCE, "contrast_temp");
