#include "trainer/loss/columns.h"

#include <math.h>
#include <string.h>

/* Squares about the mean below that part of the squares are rounding of floats; below the least, factors
 * leave what floats hold. */
#define EVEN 1e-12
#define LEAST 1e-36

size_t lb_column_sums_doubles(int64_t v) {
    return 5 * (size_t)v;
}

size_t lb_columns_floats(int64_t v) {
    return 4 * (size_t)v;
}

void lb_column_sums_init(struct lb_column_sums *sums, int64_t v, double *memory) {
    memset(memory, 0, lb_column_sums_doubles(v) * sizeof *memory);
    *sums = (struct lb_column_sums){.v = v,
                                    .p = memory,
                                    .q = memory + v,
                                    .pp = memory + 2 * v,
                                    .qq = memory + 3 * v,
                                    .pq = memory + 4 * v};
}

void lb_column_sums_add(struct lb_column_sums *sums, int64_t n, const float *p, const float *q,
                        const double *u) {
    int64_t v = sums->v;
    for (int64_t i = 0; i < n; i++) {
        sums->rows += u[i];
    }
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < v; j++) {
        double of_p = 0, of_q = 0, pp = 0, qq = 0, pq = 0;
        for (int64_t i = 0; i < n; i++) {
            if (u[i] > 0) {
                double a = (double)p[i * v + j], b = (double)q[i * v + j];
                of_p += u[i] * a;
                of_q += u[i] * b;
                pp += u[i] * a * a;
                qq += u[i] * b * b;
                pq += u[i] * a * b;
            }
        }
        sums->p[j] += of_p;
        sums->q[j] += of_q;
        sums->pp[j] += pp;
        sums->qq[j] += qq;
        sums->pq[j] += pq;
    }
}

void lb_columns_make(const struct lb_column_sums *sums, float *memory, struct lb_columns *out) {
    int64_t v = sums->v;
    float *mean_p = memory, *mean_q = memory + v, *by_p = memory + 2 * v, *by_q = memory + 3 * v;
    double of_r = 0;
    for (int64_t j = 0; j < v; j++) {
        double p = sums->rows > 0 ? sums->p[j] / sums->rows : 0,
               q = sums->rows > 0 ? sums->q[j] / sums->rows : 0;
        double a = sums->pp[j] - sums->p[j] * p, b = sums->qq[j] - sums->q[j] * q;
        mean_p[j] = (float)p;
        mean_q[j] = (float)q;
        by_p[j] = by_q[j] = 0;
        if (a > fmax(EVEN * sums->pp[j], LEAST) && b > fmax(EVEN * sums->qq[j], LEAST)) {
            double norm = sqrt(a) * sqrt(b), r = (sums->pq[j] - sums->p[j] * q) / norm;
            by_p[j] = (float)(1 / norm);
            by_q[j] = (float)(r / b);
            of_r += r;
        }
    }
    *out = (struct lb_columns){.rows = sums->rows,
                               .apart = 1 - of_r / (double)v,
                               .mean_p = mean_p,
                               .mean_q = mean_q,
                               .by_p = by_p,
                               .by_q = by_q};
}
