#include "tests/grad/loss_formulas.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define V LB_FORMULA_V

struct lb_loss_args lb_formula_args;
const double *lb_formula_at;

void lb_formula_softmax(const double *z, double t, double *q) {
    double top = -INFINITY, sum = 0;
    for (int i = 0; i < V; i++) {
        top = fmax(top, z[i]);
    }
    for (int i = 0; i < V; i++) {
        q[i] = exp((z[i] - top) / t);
        sum += q[i];
    }
    for (int i = 0; i < V; i++) {
        q[i] /= sum;
    }
}

void lb_formula_teach(struct lb_formula_teacher *t, double temperature) {
    static const int32_t ids[LB_FORMULA_K] = {3, 41, 7, 0, 49, 22};
    double wide[V], soft[V], in = 0;
    memcpy(t->ids, ids, sizeof ids);
    t->dense = (struct lb_target){.kind = LB_TARGET_DENSE, .temperature = temperature, .z = t->z, .p = t->p};
    for (int i = 0; i < V; i++) {
        wide[i] = t->z[i];
    }
    lb_formula_softmax(wide, temperature, soft);
    for (int i = 0; i < V; i++) {
        t->p[i] = (float)soft[i];
        t->dense.neg_entropy += soft[i] * log(soft[i]);
    }
    for (int i = 0; i < LB_FORMULA_K; i++) {
        t->p_at[i] = t->p[ids[i]];
        in += t->p_at[i];
    }
    t->top = (struct lb_target){.kind = LB_TARGET_TRUNCATED,
                                .temperature = temperature,
                                .k = LB_FORMULA_K,
                                .ids = t->ids,
                                .p_at = t->p_at,
                                .tail = 1 - in,
                                .add_tail = true};
    t->renormalised = t->top;
    t->renormalised.add_tail = false;
    static const float shares[LB_FORMULA_K] = {0.5f, 0.25f, 0.125f, 0.0625f, 0.03125f, 0.03125f};
    t->drawn = (struct lb_target){.kind = LB_TARGET_SAMPLED,
                                  .temperature = temperature,
                                  .k = LB_FORMULA_K,
                                  .ids = t->ids,
                                  .p_at = shares};
    static const int32_t own_ids[LB_FORMULA_K] = {3, -1, 7, 0, -1, 22};
    static const float falling[LB_FORMULA_K] = {0.4f, 0.2f, 0.1f, 0.06f, 0.03f, 0.02f};
    memcpy(t->own_ids, own_ids, sizeof own_ids);
    for (int i = 0; i < V; i++) {
        t->common[i] = i % 3 == 0 || i == 7 || i == 22;
    }
    t->aligned = (struct lb_target){.kind = LB_TARGET_TRUNCATED,
                                    .temperature = 1,
                                    .k = LB_FORMULA_K,
                                    .own_ids = t->own_ids,
                                    .common = t->common,
                                    .p_at = falling,
                                    .tail = 0.19,
                                    .add_tail = true};
}

double lb_formula_run(const struct lb_loss *loss, const float *z, const struct lb_target *t, float scale,
                      float *dz) {
    float memory[4 * (V + 16)], apart[V], top[LB_FORMULA_K];
    int32_t top_ids[LB_FORMULA_K];
    struct lb_row row;
    lb_row_init(&row, V, 2, memory);
    row.apart = apart;
    row.top_ids = top_ids;
    row.top = top;
    lb_row_begin(&row, z, LB_FORMULA_LABEL);
    return lb_loss_row(loss, &row, t, &lb_formula_args, scale, dz);
}

double lb_formula_cross_entropy(const double *z, int32_t label, const struct lb_target *t) {
    (void)t;
    double q[V], e = lb_formula_args.label_smoothing, sum = 0, lse = 0;
    lb_formula_softmax(z, 1, q);
    for (int i = 0; i < V; i++) {
        sum -= ((i == label ? 1 - e : 0) + e / V) * log(q[i]);
        lse += exp(z[i]);
    }
    return sum + lb_formula_args.z_loss * log(lse) * log(lse);
}

/* The distributions that are compared: the classes', the listed ids' and the rest's, or the listed ids' made
 * to sum to 1. Returns how many. */
static int distributions(const double *z, const struct lb_target *t, double *p, double *q) {
    double all[V], in_p = 0, in_q = 0;
    lb_formula_softmax(z, t->temperature, all);
    if (t->kind == LB_TARGET_DENSE) {
        for (int i = 0; i < V; i++) {
            p[i] = t->p[i];
            q[i] = all[i];
        }
        return V;
    }
    int n = (int)t->k;
    for (int i = 0; i < n; i++) {
        p[i] = t->p_at[i];
        q[i] = all[t->ids[i]];
        in_p += p[i];
        in_q += q[i];
    }
    for (int i = 0; i < n && !t->add_tail && t->kind != LB_TARGET_SAMPLED; i++) {
        p[i] /= in_p;
        q[i] /= in_q;
    }
    if (t->kind == LB_TARGET_SAMPLED) {
        return n;
    }
    p[n] = t->tail;
    q[n] = 1 - in_q;
    return t->add_tail ? n + 1 : n;
}

/* KL(a || b) */
static double kl(const double *a, const double *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += a[i] > 0 ? a[i] * log(a[i] / b[i]) : 0;
    }
    return sum;
}

/* m = w a + (1 - w) b */
static void mix(double w, const double *a, const double *b, int n, double *m) {
    for (int i = 0; i < n; i++) {
        m[i] = w * a[i] + (1 - w) * b[i];
    }
}

double lb_formula_kl(const double *z, int32_t label, const struct lb_target *t) {
    (void)label;
    double p[V + 1], q[V + 1];
    int n = distributions(z, t, p, q);
    return t->temperature * t->temperature * kl(p, q, n);
}

double lb_formula_reverse_kl(const double *z, int32_t label, const struct lb_target *t) {
    (void)label;
    double p[V + 1], q[V + 1];
    int n = distributions(z, t, p, q);
    return t->temperature * t->temperature * kl(q, p, n);
}

double lb_formula_jsd(const double *z, int32_t label, const struct lb_target *t) {
    (void)label;
    double p[V + 1], q[V + 1], m[V + 1], beta = lb_formula_args.beta;
    int n = distributions(z, t, p, q);
    mix(beta, p, q, n, m);
    double d = beta == 0   ? kl(p, q, n)
               : beta == 1 ? kl(q, p, n)
                           : beta * kl(p, m, n) + (1 - beta) * kl(q, m, n);
    return t->temperature * t->temperature * d;
}

double lb_formula_skew_kl(const double *z, int32_t label, const struct lb_target *t) {
    (void)label;
    double p[V + 1], q[V + 1], m[V + 1];
    int n = distributions(z, t, p, q);
    mix(lb_formula_args.alpha, p, q, n, m);
    return t->temperature * t->temperature * kl(p, m, n);
}

double lb_formula_skew_reverse_kl(const double *z, int32_t label, const struct lb_target *t) {
    (void)label;
    double p[V + 1], q[V + 1], m[V + 1];
    int n = distributions(z, t, p, q);
    mix(lb_formula_args.alpha, q, p, n, m);
    return t->temperature * t->temperature * kl(q, m, n);
}

double lb_formula_tvd(const double *z, int32_t label, const struct lb_target *t) {
    (void)label;
    double p[V + 1], q[V + 1], sum = 0;
    int n = distributions(z, t, p, q);
    for (int i = 0; i < n; i++) {
        sum += fabs(p[i] - q[i]);
    }
    return t->temperature * sum / 2;
}

/* The share of |p - q| in the teacher's head: sorted by falling p, while what has come is at most half, and
 * the first. The tail of a list, behind its n ids, is never in. */
static double head_share(const double *p, const double *q, int n, int all) {
    bool taken[V + 1] = {false};
    double come = 0, whole = 0, in = 0, out = 0;
    for (int i = 0; i < n; i++) {
        whole += p[i];
    }
    for (int rank = 0; rank < n; rank++) {
        int best = -1;
        for (int i = 0; i < n; i++) {
            best = !taken[i] && (best < 0 || p[i] > p[best]) ? i : best;
        }
        taken[best] = true;
        come += p[best];
        *(rank == 0 || come <= 0.5 * whole ? &in : &out) += fabs(p[best] - q[best]);
    }
    for (int i = n; i < all; i++) {
        out += fabs(p[i] - q[i]);
    }
    return in / (in + out);
}

double lb_formula_akl(const double *z, int32_t label, const struct lb_target *t) {
    (void)label;
    double p[V + 1], q[V + 1];
    int n = distributions(lb_formula_at, t, p, q);
    double share = head_share(p, q, t->kind == LB_TARGET_DENSE ? n : (int)t->k, n);
    (void)distributions(z, t, p, q);
    return t->temperature * t->temperature * (share * kl(p, q, n) + (1 - share) * kl(q, p, n));
}

double lb_formula_abkd(const double *z, int32_t label, const struct lb_target *t) {
    (void)label;
    double p[V + 1], q[V + 1], sum = 0, a = lb_formula_args.alpha, b = lb_formula_args.beta, s = a + b;
    int n = distributions(z, t, p, q);
    for (int i = 0; i < n; i++) {
        double x = log(p[i]), y = log(q[i]);
        if (a > 0 && b > 0) {
            sum -= (exp(a * x + b * y) - a / s * exp(s * x) - b / s * exp(s * y)) / (a * b);
        } else if (a > 0) {
            sum += (exp(a * x) * a * (x - y) - exp(a * x) + exp(a * y)) / (a * a);
        } else if (b > 0) {
            sum += (exp(b * y) * b * (y - x) - exp(b * y) + exp(b * x)) / (b * b);
        } else {
            sum += (x - y) * (x - y) / 2;
        }
    }
    return t->temperature * t->temperature * sum;
}

double lb_formula_dkd(const double *z, int32_t label, const struct lb_target *t) {
    double p[V + 1], q[V + 1], of_p[2], of_q[2], among = 0;
    int n = distributions(z, t, p, q);
    of_p[0] = p[label];
    of_q[0] = q[label];
    of_p[1] = of_q[1] = 0;
    for (int i = 0; i < n; i++) {
        of_p[1] += i != label ? p[i] : 0;
        of_q[1] += i != label ? q[i] : 0;
    }
    for (int i = 0; i < n; i++) {
        among += i != label ? p[i] / of_p[1] * log(p[i] / of_p[1] / (q[i] / of_q[1])) : 0;
    }
    double d = lb_formula_args.alpha * kl(of_p, of_q, 2) + lb_formula_args.beta * among;
    return t->temperature * t->temperature * d;
}

double lb_formula_logit_mse(const double *z, int32_t label, const struct lb_target *t) {
    (void)label;
    double sum = 0;
    for (int i = 0; i < V; i++) {
        sum += (z[i] - t->z[i]) * (z[i] - t->z[i]) / V;
    }
    return sum;
}

static void standardise(const double *z, double *u) {
    double mean = 0, squares = 0;
    for (int i = 0; i < V; i++) {
        mean += z[i] / V;
    }
    for (int i = 0; i < V; i++) {
        squares += (z[i] - mean) * (z[i] - mean);
    }
    for (int i = 0; i < V; i++) {
        u[i] = (z[i] - mean) / sqrt(squares / (V - 1));
    }
}

double lb_formula_logit_standardization(const double *z, int32_t label, const struct lb_target *t) {
    (void)label;
    double its[V], u[V], p[V], q[V];
    for (int i = 0; i < V; i++) {
        its[i] = t->z[i];
    }
    standardise(its, u);
    lb_formula_softmax(u, t->temperature, p);
    standardise(z, u);
    lb_formula_softmax(u, t->temperature, q);
    return t->temperature * t->temperature * kl(p, q, V);
}

double lb_formula_dist(const double *z, int32_t label, const struct lb_target *t) {
    (void)label;
    double p[V + 1], q[V + 1], aa = 0, bb = 0, ab = 0;
    int n = distributions(z, t, p, q);
    for (int i = 0; i < n; i++) {
        double a = p[i] - 1.0 / n, b = q[i] - 1.0 / n;
        aa += a * a;
        bb += b * b;
        ab += a * b;
    }
    return t->temperature * t->temperature * (1 - ab / sqrt(aa * bb));
}

static int falling(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

double lb_formula_uld(const double *z, int32_t label, const struct lb_target *t) {
    (void)label;
    double q[V], loss = 0, rest = 1;
    lb_formula_softmax(z, 1, q);
    qsort(q, V, sizeof *q, falling);
    for (int64_t i = 0; i < t->k; i++) {
        loss += fabs((double)t->p_at[i] - q[i]);
        rest -= q[i];
    }
    return loss + fabs(t->tail - rest);
}

double lb_formula_uld_hybrid(const double *z, int32_t label, const struct lb_target *t) {
    (void)label;
    double q[V], p[LB_FORMULA_K + 1], own[LB_FORMULA_K + 1], m[LB_FORMULA_K + 1], others[V];
    double beta = lb_formula_args.beta, p_rest = 1, q_rest = 1, distance = 0;
    int n = 0, n_others = 0, at = 0;
    lb_formula_softmax(z, 1, q);
    for (int64_t i = 0; i < t->k; i++) {
        if (t->own_ids[i] >= 0) {
            p[n] = t->p_at[i];
            own[n] = q[t->own_ids[i]];
            p_rest -= p[n];
            q_rest -= own[n++];
        }
    }
    p[n] = p_rest;
    own[n++] = q_rest;
    for (int i = 0; i < V; i++) {
        if (t->common[i] == 0) {
            others[n_others++] = q[i];
        }
    }
    qsort(others, (size_t)n_others, sizeof *others, falling);
    for (int64_t i = 0; i < t->k; i++) {
        distance += t->own_ids[i] < 0 ? fabs((double)t->p_at[i] - others[at++]) : 0;
    }
    mix(beta, p, own, n, m);
    double jsd = beta == 0   ? kl(p, own, n)
                 : beta == 1 ? kl(own, p, n)
                             : beta * kl(p, m, n) + (1 - beta) * kl(own, m, n);
    return jsd + lb_formula_args.alpha * distance;
}
