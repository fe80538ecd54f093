/* Widening of stored weights: what a product with a block format costs before it begins.
 *
 * usage: bench_quant [COLS ROWS ROUNDS]
 *     default 4096 256 5
 * One JSON line a format: weights and stored bytes per second of the best round, on one thread, a row at a
 * time into a buffer that stays in cache, as panels are widened.
 */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/nn/dtype.h"

#include <stdio.h>
#include <stdlib.h>

static double best_seconds(enum lb_dtype dtype, const unsigned char *stored, size_t row_bytes, int64_t cols,
                           int64_t rows, int64_t rounds, float *wide) {
    double best = 1e30;
    for (int64_t k = 0; k < rounds; k++) {
        uint64_t t = lb_now_ns();
        for (int64_t r = 0; r < rows; r++) {
            lb_dequantize(dtype, stored + (size_t)r * row_bytes, wide + r % 16 * cols, cols);
        }
        double seconds = (double)(lb_now_ns() - t) / 1e9;
        best = seconds < best ? seconds : best;
    }
    return best;
}

int main(int argc, char **argv) {
    int64_t numbers[] = {4096, 256, 5};
    for (int i = 0; i + 1 < argc && i < 3; i++) {
        numbers[i] = strtoll(argv[i + 1], NULL, 10);
    }
    int64_t cols = numbers[0], rows = numbers[1], rounds = numbers[2];
    if (cols < 256 || cols % 256 != 0 || rows < 16 || rounds < 1) {
        fprintf(stderr, "bench_quant: COLS a multiple of 256, ROWS from 16, ROUNDS from 1\n");
        return 2;
    }
    float *wide = lb_malloc_array((size_t)(16 * cols), sizeof *wide);
    for (int d = 0; d < LB_DTYPES; d++) {
        enum lb_dtype dtype = (enum lb_dtype)d;
        size_t row_bytes = 0;
        if (lb_dtype_ggml(dtype) < 0 || !lb_dtype_bytes(dtype, cols, &row_bytes)) {
            continue;
        }
        unsigned char *stored = lb_malloc_array((size_t)rows, row_bytes);
        struct lb_rng rng;
        lb_rng_seed(&rng, 7, 0);
        for (size_t i = 0; stored != NULL && i < (size_t)rows * row_bytes; i++) {
            stored[i] = (unsigned char)lb_rng_below(&rng, 60); /* scales of usual size */
        }
        if (stored == NULL || wide == NULL) {
            return 1;
        }
        double seconds = best_seconds(dtype, stored, row_bytes, cols, rows, rounds, wide);
        printf("{\"case\": \"widen-%s\", \"million_weights_per_second\": %.0f, \"stored_gb_per_second\": "
               "%.2f}\n",
               lb_dtype_name(dtype), (double)(rows * cols) / seconds / 1e6,
               (double)rows * (double)row_bytes / seconds / 1e9);
        lb_free(stored);
    }
    lb_free(wide);
    return 0;
}
