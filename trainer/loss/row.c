#include "trainer/loss/row.h"

#include "common/nn/reduce.h"

#define BLOCK 1024

/* Rows of the memory begin at multiples of 64 bytes. */
static size_t stride(int64_t v) {
    return ((size_t)v + 15) / 16 * 16;
}

static unsigned room(unsigned n_temperatures) {
    unsigned n = n_temperatures < LB_ROW_TEMPERATURES ? n_temperatures : LB_ROW_TEMPERATURES;
    return n > 0 ? n : 1;
}

size_t lb_row_floats(int64_t v, unsigned n_temperatures) {
    return stride(v) * (1 + (size_t)room(n_temperatures));
}

void lb_row_init(struct lb_row *row, int64_t v, unsigned n_temperatures, float *memory) {
    *row = (struct lb_row){.v = v, .label = -1, .work = memory, .n_room = room(n_temperatures)};
    for (unsigned i = 0; i < row->n_room; i++) {
        row->made[i].q = memory + (1 + i) * stride(v);
    }
}

void lb_row_begin(struct lb_row *row, const float *z, int32_t label) {
    row->z = z;
    row->label = label;
    row->n_made = row->next = 0;
}

const struct lb_softmax *lb_row_softmax(struct lb_row *row, double temperature) {
    for (unsigned i = 0; i < row->n_made; i++) {
        if (row->made[i].temperature == temperature) {
            return &row->made[i];
        }
    }
    struct lb_softmax *s = &row->made[row->next];
    row->next = (row->next + 1) % row->n_room;
    row->n_made += row->n_made < row->n_room ? 1 : 0;
    s->temperature = temperature;
    s->lse = lb_logsumexp(row->z, row->v, temperature);
    lb_softmax_single(row->z, row->v, temperature, s->lse, s->q);
    return s;
}

double lb_row_sum(const float *x, int64_t n) {
    double sum = 0;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        int64_t end = n - begin < BLOCK ? n : begin + BLOCK;
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t j = begin; j < end; j++) {
            part += x[j];
        }
        sum += (double)part;
    }
    return sum;
}

double lb_row_inner(const float *a, const float *b, int64_t n) {
    double sum = 0;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        int64_t end = n - begin < BLOCK ? n : begin + BLOCK;
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t j = begin; j < end; j++) {
            part += a[j] * b[j];
        }
        sum += (double)part;
    }
    return sum;
}
