#include "tests/grad/loss_formulas.h"

#include <math.h>
#include <string.h>

#define V LB_FORMULA_V

struct lb_loss_args lb_formula_args;

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
    for (int i = 0; i < n && !t->add_tail; i++) {
        p[i] /= in_p;
        q[i] /= in_q;
    }
    p[n] = t->tail;
    q[n] = 1 - in_q;
    return t->add_tail ? n + 1 : n;
}

double lb_formula_kl(const double *z, int32_t label, const struct lb_target *t) {
    (void)label;
    double p[V + 1], q[V + 1], sum = 0;
    int n = distributions(z, t, p, q);
    for (int i = 0; i < n; i++) {
        sum += p[i] * log(p[i] / q[i]);
    }
    return t->temperature * t->temperature * sum;
}
