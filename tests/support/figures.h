/* What benchmarks measure by. */
#ifndef LB_TESTS_SUPPORT_FIGURES_H
#define LB_TESTS_SUPPORT_FIGURES_H

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

/* The processor's time, of all threads together. */
static inline double lb_processor_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline int lb_by_value(const void *a, const void *b) {
    double d = *(const double *)a - *(const double *)b;
    return d < 0 ? -1 : d > 0;
}

/* Sorts x. */
static inline double lb_median(double *x, int64_t n) {
    qsort(x, (size_t)n, sizeof *x, lb_by_value);
    return x[n / 2];
}

#endif
