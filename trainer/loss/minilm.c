/* Self-attention relations (MiniLM, Wang et al. 2020, eq. 6; MiniLMv2, Wang et al. 2021, eqs. 3 to 5): how
 * the queries (Q-Q), keys (K-K) or values (V-V) of a text's positions lie to each other. The columns of a
 * block's queries are cut into A relation heads of d = width / A columns, whatever heads attention has, so
 * that widths and numbers of heads may differ. With S = A_h A_h^T / sqrt(d) of a head's rows that are there
 * and r_i the softmax of row i of S (of a decoder over the positions up to i), p_i the same of the teacher's,
 *   L_i = mean over heads of KL(p_i || r_i)      per row;
 *   dL/dS_i = w_i (r_i - p_i) / A,   dL/dA_h = (dS + dS^T) A_h / sqrt(d).
 * Q-K, the attention itself, is attention_kl. */
#include "trainer/loss/loss.h"

#include "common/nn/gemm.h"

#include <math.h>
#include <string.h>

struct relation {
    const double *weight; /* [m] */
    int64_t m;
    bool both_ways;
    double scale, inverse_own, inverse_its; /* 1 / sqrt(d) */
    float *own, *its;                       /* S of both [m, m], not yet scaled; its becomes dL/dS */
};

/* Of row i of S the log of the sum of the exponentials of what it sees. */
static double log_sum(const struct relation *r, const float *s, double inverse, int64_t n) {
    double most = -INFINITY, sum = 0;
    for (int64_t j = 0; j < n; j++) {
        most = r->weight[j] > 0 ? fmax(most, s[j] * inverse) : most;
    }
    for (int64_t j = 0; j < n; j++) {
        sum += r->weight[j] > 0 ? exp(s[j] * inverse - most) : 0;
    }
    return most + log(fmax(sum, 1)); /* the largest is one of them */
}

static double row_relation(const void *context, int64_t i) {
    const struct relation *r = context;
    const float *own = r->own + i * r->m;
    float *its = r->its + i * r->m;
    int64_t n = r->both_ways ? r->m : i + 1;
    double weight = r->weight[i], loss = 0;
    if (!(weight > 0)) {
        memset(its, 0, (size_t)r->m * sizeof *its);
        return 0;
    }
    double own_sum = log_sum(r, own, r->inverse_own, n), its_sum = log_sum(r, its, r->inverse_its, n);
    for (int64_t j = 0; j < n; j++) {
        double log_q = own[j] * r->inverse_own - own_sum, log_p = its[j] * r->inverse_its - its_sum;
        double p = r->weight[j] > 0 ? exp(log_p) : 0, q = r->weight[j] > 0 ? exp(log_q) : 0;
        loss += p * (log_p - log_q);
        its[j] = (float)(r->scale * weight * (q - p));
    }
    memset(its + n, 0, (size_t)(r->m - n) * sizeof *its);
    return weight * loss;
}

struct heads {
    const struct lb_states *states;
    int64_t n; /* relation heads */
    double scale;
    float *da;
};

/* One relation head of one text. */
static double head_relation(const void *context, int64_t i, void *memory) {
    const struct heads *heads = context;
    const struct lb_states *s = heads->states;
    int64_t first = s->groups[i / heads->n], m = s->groups[i / heads->n + 1] - first, h = i % heads->n;
    int64_t d = s->width / heads->n, its_d = s->b_width / heads->n;
    const float *a = s->a + first * s->width + h * d, *b = s->b + first * s->b_width + h * its_d;
    float *da = heads->da + first * s->width + h * d;
    double inverse = 1 / sqrt((double)d);
    struct relation r = {.weight = s->row_weight + first,
                         .m = m,
                         .both_ways = s->both_ways,
                         .scale = heads->scale * inverse / (double)heads->n,
                         .inverse_own = inverse,
                         .inverse_its = 1 / sqrt((double)its_d),
                         .own = memory,
                         .its = (float *)memory + m * m};
    struct lb_states rows = *s;
    rows.n = rows.width = m;
    lb_gemm_nt(m, m, d, a, s->width, a, s->width, 0, r.own, m, NULL);
    lb_gemm_nt(m, m, its_d, b, s->b_width, b, s->b_width, 0, r.its, m, NULL);
    double loss = lb_states_sum(&rows, row_relation, &r);
    lb_gemm_nn(m, d, m, r.its, m, a, s->width, 1, da, s->width);
    lb_gemm_tn(m, d, m, r.its, m, a, s->width, 1, da, s->width);
    return loss;
}

static size_t head_bytes(const struct lb_states *s) {
    size_t n = (size_t)lb_states_longest(s);
    return 2 * n * n * sizeof(float);
}

static size_t relations_work(const struct lb_states *s, const struct lb_loss_args *args) {
    return lb_states_tasks_bytes(s->n_groups * args->relation_heads, head_bytes(s));
}

static double relations(const struct lb_states *s, const struct lb_loss_args *args, double scale, float *da) {
    const struct heads heads = {s, args->relation_heads, scale, da};
    return lb_states_tasks(s->n_groups * heads.n, head_bytes(s), s->work, head_relation, &heads) /
           (double)heads.n;
}

#define RELATION(NAME, ON)                                                                                   \
    const struct lb_loss lb_loss_##NAME = {.name = #NAME,                                                    \
                                           .on = ON,                                                         \
                                           .any_width = true,                                                \
                                           .among = LB_AMONG_POSITIONS,                                      \
                                           .parameters = "layer_mapping, relation_heads",                    \
                                           .work = relations_work,                                           \
                                           .state = relations}

RELATION(minilm_qq, LB_ON_QUERIES);
RELATION(minilm_kk, LB_ON_KEYS);
RELATION(minilm_vv, LB_ON_VALUES);
