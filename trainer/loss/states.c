#include "trainer/loss/loss.h"

/* Rows whose losses are kept until they are added up. */
#define BLOCK 1024
#define PARALLEL_FROM 16384 /* numbers */

double lb_states_sum(const struct lb_states *s, double (*row)(const void *context, int64_t i),
                     const void *context) {
    double sum = 0;
    for (int64_t begin = 0; begin < s->n; begin += BLOCK) {
        int64_t n = s->n - begin < BLOCK ? s->n - begin : BLOCK;
        double loss[BLOCK];
#pragma omp parallel for schedule(static) if (n * s->width > PARALLEL_FROM)
        for (int64_t i = 0; i < n; i++) {
            loss[i] = row(context, begin + i);
        }
        for (int64_t i = 0; i < n; i++) {
            sum += loss[i];
        }
    }
    return sum;
}

int64_t lb_states_longest(const struct lb_states *s) {
    int64_t most = 0;
    for (int64_t g = 0; g < s->n_groups; g++) {
        int64_t n = s->groups[g + 1] - s->groups[g];
        most = n > most ? n : most;
    }
    return most;
}
