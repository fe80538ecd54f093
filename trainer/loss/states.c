#include "trainer/loss/loss.h"

#include <omp.h>

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

static size_t padded(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

size_t lb_states_tasks_bytes(int64_t n, size_t each) {
    return padded((size_t)n * sizeof(double)) + (size_t)omp_get_max_threads() * padded(each);
}

double lb_states_tasks(int64_t n, size_t each, void *work,
                       double (*task)(const void *context, int64_t i, void *memory), const void *context) {
    double *loss = work, sum = 0;
    char *memory = (char *)work + padded((size_t)n * sizeof *loss);
#pragma omp parallel for schedule(dynamic) if (n > 1)
    for (int64_t i = 0; i < n; i++) {
        loss[i] = task(context, i, memory + (size_t)omp_get_thread_num() * padded(each));
    }
    for (int64_t i = 0; i < n; i++) {
        sum += loss[i];
    }
    return sum;
}
