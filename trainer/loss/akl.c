/* Adaptive KL (Wu et al. 2024, "Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large
 * Language Models", section 4, and its code): the teacher's classes by falling p, its head H those whose
 * cumulative p is at most 1/2 and in any case the first; with the gaps g_H = sum_H |p - q| and g_rest of the
 * others, L = T^2 [ g_H KL(p || q) + g_rest KL(q || p) ] / (g_H + g_rest). The gaps count as constants: the
 * gradient is that of both KLs, so differences of L are not it. Of a list the tail's bucket is no head; the
 * weights are the list's, so L is not a bound of the whole's. Of equal p the first in order come first. A q
 * or p that a float can't hold counts as 1.2e-38. */
#include "trainer/loss/divergence.h"

#include <math.h>

/* H: p above least, and those equal to it before place ties. */
struct head {
    const float *p;
    float least;
    int64_t ties;
};

/* Puts what is above pivot in front, then what equals it; returns how many, and the mass above. */
static int64_t partition(float *x, int64_t n, float pivot, int64_t *out_equal, double *out_mass) {
    int64_t above = 0, at = 0, below = n;
    double mass = 0;
    while (at < below) {
        float v = x[at];
        if (v > pivot) {
            x[at++] = x[above];
            x[above++] = v;
            mass += (double)v;
        } else if (v < pivot) {
            x[at] = x[--below];
            x[below] = v;
        } else {
            at++;
        }
    }
    *out_equal = below - above;
    *out_mass = mass;
    return above;
}

static float middle(float a, float b, float c) {
    return fmaxf(fminf(a, b), fminf(fmaxf(a, b), c));
}

/* The least p of the head, and how many of those equal to it are in; INT64_MAX: all. x [n]: those that may
 * be, put into other order. */
static float find_least(float *x, int64_t n, double most, int64_t *out_ties) {
    double mass = 0;
    float least = 0;
    *out_ties = INT64_MAX;
    while (n > 0) {
        int64_t equal;
        double above_mass;
        least = middle(x[0], x[n / 2], x[n - 1]);
        int64_t above = partition(x, n, least, &equal, &above_mass);
        if (mass + above_mass > most) {
            n = above;
            continue;
        }
        mass += above_mass + (double)least * (double)equal;
        if (mass > most) {
            double beyond = ceil((mass - most) / (double)least);
            *out_ties = beyond < (double)equal ? equal - (int64_t)beyond : 0;
            return least;
        }
        x += above + equal;
        n -= above + equal;
    }
    return least;
}

/* Those of p that are at least share, into out; returns how many. */
static int64_t pick(const float *p, int64_t n, float share, float *out) {
    int64_t some = 0;
    for (int64_t begin = 0; begin < n; begin += 64) {
        int64_t end = n - begin < 64 ? n : begin + 64;
        float most = 0;
#pragma omp simd reduction(max : most)
        for (int64_t i = begin; i < end; i++) {
            most = p[i] > most ? p[i] : most;
        }
        for (int64_t i = begin; i < end && most >= share; i++) {
            out[some] = p[i];
            some += p[i] >= share ? 1 : 0;
        }
    }
    return some;
}

/* The sum of those of p that are at least share. */
static double mass_from(const float *p, int64_t n, float share) {
    double mass = 0;
    for (int64_t begin = 0; begin < n; begin += 1024) {
        int64_t end = n - begin < 1024 ? n : begin + 1024;
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t i = begin; i < end; i++) {
            part += p[i] >= share ? p[i] : 0;
        }
        mass += (double)part;
    }
    return mass;
}

/* work [n] */
static struct head find_head(const float *p, int64_t n, float *work) {
    double whole = lb_row_sum(p, n);
    float top = 0;
#pragma omp simd reduction(max : top)
    for (int64_t i = 0; i < n; i++) {
        top = p[i] > top ? p[i] : top;
    }
    /* The others have half of the mass in at most n places, so their largest, and all of the head, has more
     * than this, and than any share from which on there is more than half. */
    float share = (float)(0.25 * whole / (double)n), higher = top / 8;
    while (higher > share && mass_from(p, n, higher) <= 0.501 * whole) {
        higher /= 8;
    }
    share = higher > share ? higher : share;
    struct head h = {p, 0, n};
    int64_t ties;
    h.least = find_least(work, pick(p, n, share, work), 0.5 * whole, &ties);
    if (h.least == top && ties == 0) { /* more than half by itself, and in all the same */
        ties = 1;
    }
    for (int64_t i = 0; i < n && ties < INT64_MAX; i++) { /* the place behind the last tie that is in */
        if (p[i] == h.least && ties-- == 0) {
            h.ties = i;
            break;
        }
    }
    return h;
}

struct gaps {
    struct head head;
    int64_t n;         /* places of the head's p; the tail is behind them */
    double *in, *rest; /* sums */
};

static double gaps(const struct lb_points *x, const void *context, float *slope) {
    const struct gaps *g = context;
    const float *p = x->p, *q = x->q, *place = g->head.p + x->first;
    float least = g->head.least, in = 0, all = 0;
    int64_t n = x->first < g->n ? x->n : 0, ties = g->head.ties - x->first;
#pragma omp simd reduction(+ : in)
    for (int64_t i = 0; i < n; i++) {
        bool head = place[i] > least || (i < ties && place[i] == least);
        in += head ? fabsf(p[i] - q[i]) : 0;
    }
#pragma omp simd reduction(+ : all)
    for (int64_t i = 0; i < x->n; i++) {
        all += fabsf(p[i] - q[i]);
        slope[i] = 0;
    }
    *g->in += (double)in;
    *g->rest += (double)(all - in);
    return 0;
}

/* Weights of both KLs. */
struct weights {
    float forward, reverse;
};

static double both(const struct lb_points *x, const void *context, float *slope) {
    const float *p = x->p, *q = x->q;
    const struct weights w = *(const struct weights *)context;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < x->n; i++) {
        float d = lb_logf(lb_least_p(q[i]) / lb_least_p(p[i]));
        sum += (w.reverse * q[i] - w.forward * p[i]) * d;
        slope[i] = w.reverse * q[i] * d + w.forward * (q[i] - p[i]);
    }
    return (double)sum;
}

static double akl(struct lb_row *row, const struct lb_target *t, const struct lb_loss_args *args, float scale,
                  float *dz) {
    (void)args;
    bool dense = t->kind == LB_TARGET_DENSE;
    int64_t n = dense ? row->v : t->k;
    double in = 0, rest = 0;
    const struct gaps g = {find_head(dense ? t->p : t->p_at, n, row->work), n, &in, &rest};
    (void)lb_divergence_sum(row, t, gaps, &g);
    double forward = in + rest > 0 ? in / (in + rest) : 0.5;
    const struct weights w = {(float)forward, (float)(1 - forward)};
    return lb_divergence_row(row, t, both, &w, t->temperature * t->temperature, scale, dz);
}

const struct lb_loss lb_loss_akl = {.name = "akl",
                                    .on = LB_ON_TARGET,
                                    .kinds = LB_TARGET_DENSE | LB_TARGET_TRUNCATED,
                                    .parameters = "temperature, clamp",
                                    .row = akl};
