/* What is asked of the head's logits, over the head's product alone: top-64, log-sum-exp, 32 gathered ids and
 * 50 draws at every position.
 *
 * usage: OMP_WAIT_POLICY=passive bench_asked [V C SEQS LENGTH ROUNDS]      default 49152 576 8 256 9
 * The ways take turns in each round; one JSON line with the median of each way's time over the product's in
 * the same round. Times are those of the processor, of all threads together, so that what else runs on the
 * machine counts little; threads that spin while they wait would count, hence the policy.
 */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/nn/gemm.h"
#include "common/nn/head.h"
#include "tests/support/figures.h"

#include <stdio.h>
#include <stdlib.h>

#define TOP_K 64
#define GATHERED 32
#define DRAWS 50
#define MAX_ROUNDS 64

static int64_t v = 49152, c = 576, seqs = 8, length = 256, rounds = 9;
static int32_t gathered[GATHERED];

enum { PRODUCT, TOP, SUM, TOP_SUM, GATHER, DRAW, DRAW_WARM, ALL, N_WAYS };
static const char *const names[N_WAYS] = {"product",  "top64",  "logsumexp",       "top64_logsumexp",
                                          "gather32", "draw50", "draw50_tempered", "all"};
static int way;

static struct lb_head_want want(void *context, int64_t row) {
    (void)context;
    struct lb_head_want all = {.k = TOP_K,
                               .temperature = 1,
                               .at = gathered,
                               .n_at = GATHERED,
                               .draw = {DRAWS, 1, 1, (uint64_t)row}},
                        some = {0};
    bool tops = way == TOP || way == TOP_SUM, sums = way != TOP && way != GATHER;
    if (way == ALL) {
        return all;
    }
    some.k = tops ? TOP_K : 0;
    some.temperature = sums ? 1 : 0;
    if (way == GATHER) {
        some.at = gathered;
        some.n_at = GATHERED;
    } else if (way == DRAW || way == DRAW_WARM) {
        some.draw = all.draw;
        some.draw.temperature = way == DRAW_WARM ? 2 : 1;
    }
    return some;
}

static void take(void *context, int64_t row, const struct lb_head_row *left) {
    ((double *)context)[row] = left->lse + (double)left->n_drawn;
}

int main(int argc, char **argv) {
    int64_t *const numbers[] = {&v, &c, &seqs, &length, &rounds};
    static double seconds[N_WAYS][MAX_ROUNDS], ratios[N_WAYS][MAX_ROUNDS];
    struct lb_rng rng;
    lb_gemm_setup(0, argv);
    lb_rng_seed(&rng, 7, 0);
    for (int i = 0; i + 1 < argc && i < 5; i++) {
        *numbers[i] = strtoll(argv[i + 1], NULL, 10);
    }
    int64_t n = seqs * length;
    if (v < TOP_K || c < 1 || n < 1 || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "bench_asked: V from %d, 1 to %d rounds\n", TOP_K, MAX_ROUNDS);
        return 2;
    }
    float *weight = lb_malloc_array((size_t)(v * c), sizeof *weight);
    int32_t *offsets = lb_malloc_array((size_t)seqs + 1, sizeof *offsets);
    double *read = lb_malloc_array((size_t)n, sizeof *read);
    struct lb_tape *tape = lb_tape_create((size_t)8 << 30);
    if (weight == NULL || offsets == NULL || read == NULL || tape == NULL) {
        return 1;
    }
    for (int64_t i = 0; i < v * c; i++) { /* logits of a spread of about 3 */
        weight[i] = (lb_rng_float(&rng) - 0.5f) * 0.4f;
    }
    for (int64_t s = 0; s <= seqs; s++) {
        offsets[s] = (int32_t)(s * length);
    }
    for (int i = 0; i < GATHERED; i++) {
        gathered[i] = (int32_t)lb_rng_below(&rng, (uint64_t)v);
    }
    struct lb_ragged ragged = {seqs, offsets};
    lb_tape_begin(tape, LB_TAPE_PLAIN, &ragged, NULL);
    struct lb_value *h = lb_tape_value(tape, n, c);
    for (int64_t i = 0; h != NULL && i < n * c; i++) {
        h->data[i] = (float)lb_rng_normal(&rng);
    }
    const struct lb_weight w = {.rows = v, .cols = c, .dtype = LB_F32, .data = weight, .n_dims = 2};
    const struct lb_head head = {&w, NULL, LB_HEAD_PLAIN};
    const struct lb_head_reader alone = {.context = NULL},
                                reader = {.context = read, .want = want, .row = take};
    double sum = 0;
    for (int64_t r = -1; r < rounds; r++) { /* the first is not counted */
        for (way = 0; way < N_WAYS; way++) {
            double begun = lb_processor_seconds();
            if (lb_head_read(tape, h, &head, NULL, way == PRODUCT ? &alone : &reader) != LB_OK) {
                return 1;
            }
            if (r >= 0) {
                seconds[way][r] = lb_processor_seconds() - begun;
                ratios[way][r] = seconds[way][r] / seconds[PRODUCT][r];
                sum += read[way % n];
            }
        }
    }
    double product = lb_median(seconds[PRODUCT], rounds);
    printf("{\"case\": \"asked\", \"v\": %lld, \"c\": %lld, \"rows\": %lld, \"product_seconds\": %.4f, "
           "\"gflops\": %.1f",
           (long long)v, (long long)c, (long long)n, product,
           2 * (double)n * (double)v * (double)c / product / 1e9);
    for (way = 1; way < N_WAYS; way++) {
        printf(", \"%s\": %.3f", names[way], lb_median(ratios[way], rounds));
    }
    printf(", \"sum\": %.9g}\n", sum);
    lb_tape_destroy(tape);
    lb_free(offsets);
    lb_free(read);
    lb_free(weight);
    return 0;
}
