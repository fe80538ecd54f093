/* By gradients (AEKD: Du et al. 2020, "Agree to Disagree: Adaptive Ensemble Knowledge Distillation in
 * Gradient Space", with C = 1): L = sum_k w_k L(p_k, q), w = argmin |sum_k w_k g_k|^2 over weights that are
 * at least 0 and sum to 1, times the given weight. g_k is the gradient of teacher k's part of the losses on
 * distributions at the student's logits, of all rows of a sequence (or one token's row) as one vector, so
 * that a step is the same however it is cut; the authors' code takes a batch's mean row, and may scale each
 * to length 1 before. The weights count as constants. Where the student pleases one teacher already, that one
 * has all of it. */
#include "trainer/loss/mixture.h"

#include <math.h>

#define SYSTEM (LB_MAX_TEACHERS + 1)
#define LEAST_GAIN 1e-12 /* of the largest |g_k|^2 */
#define LEAST_PIVOT 1e-13

/* Solves a x = b of n unknowns, in place; false: singular. */
static bool solve(int n, double a[SYSTEM][SYSTEM], double *b) {
    for (int i = 0; i < n; i++) {
        int pivot = i;
        for (int r = i + 1; r < n; r++) {
            pivot = fabs(a[r][i]) > fabs(a[pivot][i]) ? r : pivot;
        }
        if (!(fabs(a[pivot][i]) > LEAST_PIVOT)) {
            return false;
        }
        for (int c = 0; c < n; c++) {
            double keep = a[i][c];
            a[i][c] = a[pivot][c];
            a[pivot][c] = keep;
        }
        double keep = b[i];
        b[i] = b[pivot];
        b[pivot] = keep;
        for (int r = i + 1; r < n; r++) {
            double factor = a[r][i] / a[i][i];
            for (int c = i; c < n; c++) {
                a[r][c] -= factor * a[i][c];
            }
            b[r] -= factor * b[i];
        }
    }
    for (int i = n - 1; i >= 0; i--) {
        for (int c = i + 1; c < n; c++) {
            b[i] -= a[i][c] * b[c];
        }
        b[i] /= a[i][i];
    }
    return true;
}

/* The least |sum v g|^2 of all v, also negative ones, that sum to 1 and are 0 outside of active. */
static bool least_of_plane(unsigned n, const double *gram, double scale, const bool *active, double *v) {
    double a[SYSTEM][SYSTEM] = {{0}}, b[SYSTEM] = {0};
    unsigned at[LB_MAX_TEACHERS];
    int m = 0;
    for (unsigned k = 0; k < n; k++) {
        v[k] = 0;
        if (active[k]) {
            at[m++] = k;
        }
    }
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < m; j++) {
            a[i][j] = gram[at[i] * n + at[j]] / scale;
        }
        a[i][m] = a[m][i] = 1;
    }
    b[m] = 1;
    if (!solve(m + 1, a, b)) {
        return false;
    }
    for (int i = 0; i < m; i++) {
        v[at[i]] = b[i];
    }
    return true;
}

/* From w towards v as far as no weight is negative; what is 0 there is active no longer. True: it is v. */
static bool move(unsigned n, bool *active, const double *v, double *w) {
    double way = 1;
    unsigned first = n;
    for (unsigned k = 0; k < n; k++) {
        if (active[k] && v[k] < 0 && w[k] / (w[k] - v[k]) < way) {
            way = w[k] / (w[k] - v[k]);
            first = k;
        }
    }
    for (unsigned k = 0; k < n; k++) {
        w[k] = k == first ? 0 : fmax(w[k] + way * (v[k] - w[k]), 0);
        active[k] = active[k] && w[k] > 0;
    }
    return first == n;
}

/* The member along whose vector the sum reaches least far, and by how much less than along itself. */
static double steepest(unsigned n, const double *gram, const bool *member, const double *w, unsigned *out) {
    double norm = 0, least = INFINITY;
    for (unsigned k = 0; k < n; k++) {
        double along = 0;
        for (unsigned j = 0; j < n; j++) {
            along += gram[k * n + j] * w[j];
        }
        norm += w[k] * along;
        if (member[k] && along < least) {
            least = along;
            *out = k;
        }
    }
    return norm - least;
}

void lb_min_norm(unsigned n, const double *gram, const bool *member, double *w) {
    bool active[LB_MAX_TEACHERS] = {false};
    double v[LB_MAX_TEACHERS], largest = 0, least = INFINITY;
    unsigned there = 0, next = 0;
    bool finite = true;
    for (unsigned k = 0; k < n; k++) {
        there += member[k] ? 1 : 0;
        finite = finite && (!member[k] || isfinite(gram[k * n + k]));
        largest = member[k] ? fmax(largest, gram[k * n + k]) : largest;
        if (member[k] && gram[k * n + k] < least) {
            least = gram[k * n + k];
            next = k;
        }
    }
    bool any = largest > 0 && finite; /* else the losses will say whose numbers are bad */
    for (unsigned k = 0; k < n; k++) {
        w[k] = any ? k == next : member[k] ? 1.0 / there : 0;
        active[k] = w[k] > 0;
    }
    /* Each round ends in the least point of a plane, below that of the last: there are only so many. */
    for (unsigned round = 0; any && round < 64 * n; round++) {
        double gain = steepest(n, gram, member, w, &next);
        if (!(gain > LEAST_GAIN * largest) || active[next]) {
            break;
        }
        active[next] = true;
        while (least_of_plane(n, gram, largest, active, v) && !move(n, active, v, w)) {
        }
        active[next] = w[next] > 0; /* singular: it is left out */
    }
}

static void aekd(const struct lb_weighing *in, double *w) {
    double alpha[LB_MAX_TEACHERS];
    bool member[LB_MAX_TEACHERS];
    for (unsigned k = 0; k < in->n; k++) {
        member[k] = w[k] > 0;
    }
    lb_min_norm(in->n, in->gram, member, alpha);
    for (unsigned k = 0; k < in->n; k++) {
        w[k] *= alpha[k];
    }
}

const struct lb_mixture lb_mixture_aekd = {.name = "aekd",
                                           .needs = LB_NEEDS_GRADIENTS,
                                           .per = LB_PER(LB_PER_SEQUENCE) | LB_PER(LB_PER_TOKEN),
                                           .combine = LB_COMBINE_LOSSES,
                                           .weigh = aekd};
