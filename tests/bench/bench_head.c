/* The output head of a large vocabulary: time and memory of top-64 and log-sum-exp at every position.
 *
 * usage: bench_head [rows|panels] [F32|F16|BF16|Q8_0|Q4_0...] [V C SEQS LENGTH ROUNDS]
 *     default panels F32 131072 576 8 256 3
 * rows: chunks of whole rows (lb_head_run), as for small vocabularies; panels: lb_head_read. One JSON line:
 * the best and the median of rounds, GFLOP/s of the product alone, what the head took of the tape, and peak
 * memory beside the stored head. One way per process, so that peak memory is that way's.
 */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/nn/gemm.h"
#include "common/nn/head.h"
#include "common/nn/reduce.h"
#include "tests/support/figures.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define TOP_K 64
#define MAX_ROUNDS 64

static int64_t v = 131072, c = 576, seqs = 8, length = 256, rounds = 3;
static double sum; /* of what was read, so that nothing is left out */

static enum lb_status reduce_rows(void *context, int64_t row, int64_t n, float *z) {
    (void)context;
    (void)row;
    double all = 0;
#pragma omp parallel for schedule(dynamic, 4) reduction(+ : all)
    for (int64_t i = 0; i < n; i++) {
        int32_t ids[TOP_K];
        float values[TOP_K];
        all += lb_logsumexp(z + i * v, v, 1.0);
        lb_topk(z + i * v, v, TOP_K, ids, values);
        all += (double)values[0];
    }
    sum += all;
    return LB_OK;
}

static struct lb_head_want want(void *context, int64_t row) {
    (void)context;
    (void)row;
    return (struct lb_head_want){.k = TOP_K, .temperature = 1};
}

static void take(void *context, int64_t row, const struct lb_head_row *left) {
    ((double *)context)[row] = left->lse + (double)left->values[0];
}

static long peak_mib(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss / 1024;
}

/* A head of random numbers, stored row by row, so that it is never wide as a whole here either. */
static void *make_head(enum lb_dtype dtype, struct lb_rng *rng) {
    size_t row_bytes;
    if (!lb_dtype_bytes(dtype, c, &row_bytes)) {
        return NULL;
    }
    char *data = lb_malloc_array((size_t)v, row_bytes);
    float *row = lb_malloc_array((size_t)c, sizeof *row);
    for (int64_t i = 0; data != NULL && row != NULL && i < v; i++) {
        for (int64_t j = 0; j < c; j++) {
            row[j] = lb_rng_float(rng) - 0.5f;
        }
        lb_quantize(dtype, row, data + (size_t)i * row_bytes, c);
    }
    lb_free(row);
    return data;
}

int main(int argc, char **argv) {
    enum lb_dtype dtype = LB_F32;
    int64_t *const numbers[] = {&v, &c, &seqs, &length, &rounds};
    double seconds[MAX_ROUNDS];
    struct lb_rng rng;
    lb_gemm_setup(0, argv);
    lb_rng_seed(&rng, 7, 0);
    bool rows_first = argc > 1 && strcmp(argv[1], "rows") == 0, known = argc < 3;
    for (int d = 0; argc > 2 && d < LB_DTYPES; d++) {
        if (lb_dtype_narrows((enum lb_dtype)d) && strcmp(argv[2], lb_dtype_name((enum lb_dtype)d)) == 0) {
            dtype = (enum lb_dtype)d;
            known = true;
        }
    }
    if (!known || (argc > 1 && !rows_first && strcmp(argv[1], "panels") != 0)) {
        fprintf(stderr, "usage: bench_head [rows|panels] [DTYPE] [V C SEQS LENGTH ROUNDS]\n");
        return 2;
    }
    for (int i = 0; i + 3 < argc && i < 5; i++) {
        *numbers[i] = strtoll(argv[i + 3], NULL, 10);
    }
    int64_t n = seqs * length;
    if (v < TOP_K || c < 32 || c % 32 != 0 || n < 1 || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "bench_head: V from %d, C a multiple of 32, 1 to %d rounds\n", TOP_K, MAX_ROUNDS);
        return 2;
    }
    struct lb_weight w = {.rows = v, .cols = c, .dtype = dtype, .data = make_head(dtype, &rng), .n_dims = 2};
    int32_t *offsets = lb_malloc_array((size_t)seqs + 1, sizeof *offsets);
    double *read = lb_malloc_array((size_t)n, sizeof *read);
    struct lb_tape *tape = lb_tape_create((size_t)8 << 30);
    struct lb_ragged ragged = {seqs, offsets};
    if (w.data == NULL || offsets == NULL || read == NULL || tape == NULL) {
        return 1;
    }
    for (int64_t s = 0; s <= seqs; s++) {
        offsets[s] = (int32_t)(s * length);
    }
    lb_tape_begin(tape, LB_TAPE_PLAIN, &ragged, NULL);
    struct lb_value *h = lb_tape_value(tape, n, c);
    for (int64_t i = 0; h != NULL && i < n * c; i++) {
        h->data[i] = lb_rng_float(&rng) - 0.5f;
    }
    size_t before = lb_tape_high(tape);
    long stored = peak_mib();
    const struct lb_head head = {&w, NULL, LB_HEAD_PLAIN};
    const struct lb_head_reader reader = {.context = read, .want = want, .row = take};
    for (int64_t r = 0; r < rounds; r++) {
        uint64_t t = lb_now_ns();
        enum lb_status status = rows_first ? lb_head_run(tape, h, &head, NULL, reduce_rows, NULL)
                                           : lb_head_read(tape, h, &head, NULL, &reader);
        seconds[r] = (double)(lb_now_ns() - t) / 1e9;
        for (int64_t i = 0; !rows_first && i < n; i++) {
            sum += read[i];
        }
        if (status != LB_OK) {
            return 1;
        }
    }
    double median = lb_median(seconds, rounds);
    printf("{\"case\": \"head-%s-%s\", \"v\": %lld, \"c\": %lld, \"sequences\": %lld, \"rows\": %lld, "
           "\"best_seconds\": %.3f, \"median_seconds\": %.3f, \"gflops\": %.1f, \"tape_mib\": %zu, "
           "\"peak_over_stored_mib\": %ld, \"mean\": %.9g}\n",
           rows_first ? "rows" : "panels", lb_dtype_name(dtype), (long long)v, (long long)c, (long long)seqs,
           (long long)n, seconds[0], median, 2 * (double)n * (double)v * (double)c / seconds[0] / 1e9,
           (lb_tape_high(tape) - before) >> 20, peak_mib() - stored, sum / (double)(n * rounds));
    lb_tape_destroy(tape);
    lb_free(offsets);
    lb_free(read);
    lb_free((void *)w.data);
    return 0;
}
