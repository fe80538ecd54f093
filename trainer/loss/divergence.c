#include "trainer/loss/divergence.h"

#include <math.h>

#define BLOCK 512

double lb_student_tail(const struct lb_row *row, const struct lb_softmax *s, const struct lb_target *t,
                       float *rest) {
    double sum = 0;
    for (int64_t j = 0; j < row->v; j++) {
        rest[j] = s->q[j];
    }
    for (int64_t i = 0; i < t->k; i++) {
        rest[t->ids[i]] = 0;
    }
    for (int64_t j = 0; j < row->v; j++) {
        sum += (double)rest[j];
    }
    return sum > LB_LEAST_TAIL ? sum : LB_LEAST_TAIL;
}

static double sum_of(const float *x, int64_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        sum += x[i];
    }
    return (double)sum;
}

/* A pass over a target's points: the sums of d, and of s, which goes to slope. */
struct pass {
    lb_divergence divergence;
    const void *context;
    double sum, slopes;
};

static void take(struct pass *pass, const struct lb_points *points, float *slope) {
    pass->sum += pass->divergence(points, pass->context, slope);
    pass->slopes += sum_of(slope, points->n);
}

/* slope [V] */
static void pass_dense(struct pass *pass, const struct lb_row *row, const struct lb_softmax *s,
                       const struct lb_target *t, float *slope) {
    for (int64_t begin = 0; begin < row->v; begin += BLOCK) {
        int64_t n = row->v - begin < BLOCK ? row->v - begin : BLOCK;
        const struct lb_points points = {n, begin, t->p + begin, s->q + begin};
        take(pass, &points, slope + begin);
    }
}

/* log sum exp(z / T) over the listed ids */
static double listed_lse(const struct lb_row *row, const struct lb_target *t) {
    double top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < t->k; i++) {
        top = fmax(top, (double)row->z[t->ids[i]]);
    }
    for (int64_t i = 0; i < t->k; i++) {
        sum += exp(((double)row->z[t->ids[i]] - top) / t->temperature);
    }
    return sum > 0 ? top / t->temperature + log(sum) : 0;
}

/* The listed ids, of which p sums to mass and exp(z / T - lse) is q. slope [V]: that of id in slope[id]. */
static void pass_listed(struct pass *pass, const struct lb_row *row, const struct lb_target *t, double mass,
                        double lse, float *slope) {
    float p[BLOCK], q[BLOCK], s[BLOCK];
    for (int64_t begin = 0; begin < t->k; begin += BLOCK) {
        int64_t n = t->k - begin < BLOCK ? t->k - begin : BLOCK;
        for (int64_t i = 0; i < n; i++) {
            p[i] = (float)((double)t->p_at[begin + i] / mass);
            q[i] = (float)exp((double)row->z[t->ids[begin + i]] / t->temperature - lse);
        }
        const struct lb_points points = {n, begin, p, q};
        take(pass, &points, s);
        for (int64_t i = 0; i < n; i++) {
            slope[t->ids[begin + i]] = s[i];
        }
    }
}

/* The bucket of all others; returns its slope. */
static float pass_tail(struct pass *pass, const struct lb_target *t, double q_tail) {
    float p = (float)t->tail, q = (float)q_tail, slope;
    const struct lb_points points = {1, t->k, &p, &q};
    take(pass, &points, &slope);
    return slope;
}

static double mass_of(const struct lb_target *t) {
    double mass = 0;
    for (int64_t i = 0; i < t->k; i++) {
        mass += (double)t->p_at[i];
    }
    return mass;
}

static void dense(struct pass *pass, struct lb_row *row, const struct lb_target *t, float factor, float *dz) {
    const struct lb_softmax *s = lb_row_softmax(row, t->temperature);
    pass_dense(pass, row, s, t, row->work);
    const float *q = s->q, *slope = row->work;
    float all = (float)pass->slopes;
    for (int64_t j = 0; dz != NULL && j < row->v; j++) {
        dz[j] += factor * (slope[j] - q[j] * all);
    }
}

static void with_tail(struct pass *pass, struct lb_row *row, const struct lb_target *t, float factor,
                      float *dz) {
    const struct lb_softmax *s = lb_row_softmax(row, t->temperature);
    float *work = row->work;
    double q_tail = lb_student_tail(row, s, t, work), of_tail = 0;
    pass_listed(pass, row, t, 1, s->lse, work); /* over the zeros in the rest */
    if (t->k < row->v) {
        of_tail = (double)pass_tail(pass, t, q_tail) / q_tail;
    }
    if (dz == NULL) {
        return;
    }
    float all = (float)pass->slopes, outside = (float)(of_tail - pass->slopes);
    for (int64_t i = 0; i < t->k; i++) {
        int32_t id = t->ids[i];
        dz[id] += factor * (work[id] - s->q[id] * all);
        work[id] = 0;
    }
    for (int64_t j = 0; j < row->v; j++) {
        dz[j] += factor * (outside * work[j]);
    }
}

static void renormalised(struct pass *pass, struct lb_row *row, const struct lb_target *t, float factor,
                         float *dz) {
    double lse = listed_lse(row, t), mass = mass_of(t);
    if (!(mass > 0)) {
        return; /* nothing that is listed is likely at all */
    }
    pass_listed(pass, row, t, mass, lse, row->work);
    for (int64_t i = 0; dz != NULL && i < t->k; i++) {
        int32_t id = t->ids[i];
        double q = exp((double)row->z[id] / t->temperature - lse);
        dz[id] += factor * (float)((double)row->work[id] - q * pass->slopes);
    }
}

static double run(struct lb_row *row, const struct lb_target *t, lb_divergence divergence,
                  const void *context, float factor, float *dz) {
    struct pass pass = {divergence, context, 0, 0};
    (t->kind == LB_TARGET_DENSE ? dense : t->add_tail ? with_tail : renormalised)(&pass, row, t, factor, dz);
    return pass.sum;
}

double lb_divergence_row(struct lb_row *row, const struct lb_target *target, lb_divergence divergence,
                         const void *context, double factor, float scale, float *dz) {
    float by_z = (float)((double)scale * factor / target->temperature);
    return factor * run(row, target, divergence, context, by_z, dz);
}

double lb_divergence_sum(struct lb_row *row, const struct lb_target *target, lb_divergence divergence,
                         const void *context) {
    return run(row, target, divergence, context, 0, NULL);
}
