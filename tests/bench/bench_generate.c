/* Text by several sequences together against one after the other.
 *
 * usage: bench_generate MODEL [NEW_TOKENS]      default 128
 * One JSON line for each of B = 1, 4, 8, 16 and temperature 0 and 1: tokens per second both ways and how many
 * times faster together is, by the clock and by the processor's time (which tells on a busy machine, with
 * OMP_NUM_THREADS=1). Prompts have 8 to 68 tokens; each text has NEW_TOKENS more. Best of three.
 *
 * What bounds the times: prompts cost the same both ways (each is multiplied by itself), and with few new
 * tokens they are most of what is left together. Behind them a step reads each weight once for all B rows, so
 * it gains until multiplying takes longer than reading: to about B = 4 where FP32 weights come from a cache
 * at 120 GB/s and a core multiplies 134 numbers a nanosecond (an EPYC of 2025), B = 13 where they come from
 * memory at 40 GB/s. Keys and values are each text's own.
 */
#include "common/base/clock.h"
#include "common/base/rng.h"
#include "common/model/generate.h"
#include "common/nn/gemm.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define MOST 16
#define LONGEST 68

static int64_t n_ids; /* of a round */

static enum lb_status take(void *context, int64_t i, int32_t id) {
    (void)context;
    (void)i;
    (void)id;
    n_ids++;
    return LB_OK;
}

struct seconds {
    double wall, cpu;
};

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* For the first b prompts, so many at a time. */
static struct seconds run(const struct lb_model *model, const struct lb_generate_prompt *prompts, int64_t b,
                          int64_t together) {
    struct lb_detail detail = {0};
    struct seconds best = {1e9, 1e9};
    for (int round = 0; round < 3; round++) {
        uint64_t t = lb_now_ns();
        double cpu = cpu_seconds();
        n_ids = 0;
        for (int64_t i = 0; i < b; i += together) {
            if (lb_generate_batch(model, prompts + i, together, take, NULL, &detail) != LB_OK) {
                fprintf(stderr, "bench_generate: %s\n", detail.text);
                exit(1);
            }
        }
        double s = (double)(lb_now_ns() - t) / 1e9;
        cpu = cpu_seconds() - cpu;
        best.wall = s < best.wall ? s : best.wall;
        best.cpu = cpu < best.cpu ? cpu : best.cpu;
    }
    return best;
}

int main(int argc, char **argv) {
    struct lb_detail detail = {0};
    struct lb_model *model = NULL;
    static int32_t ids[MOST][LONGEST];
    struct lb_generate_prompt prompts[MOST];
    struct lb_rng rng;
    lb_gemm_setup(0, argv);
    lb_rng_seed(&rng, 3, 0);
    if (argc < 2 || lb_model_open(argv[1], false, &model, &detail) != LB_OK) {
        fprintf(stderr, "bench_generate: %s\n", argc < 2 ? "which model?" : detail.text);
        return argc < 2 ? 2 : 1;
    }
    int64_t new_tokens = argc > 2 ? strtoll(argv[2], NULL, 10) : 128;
    for (int t = 0; t < 2; t++) {
        for (int i = 0; i < MOST; i++) {
            for (int j = 0; j < LONGEST; j++) {
                ids[i][j] = (int32_t)lb_rng_below(&rng, (uint64_t)lb_model_config(model)->vocab_size);
            }
            prompts[i] = (struct lb_generate_prompt){
                ids[i],
                8 + 4 * i,
                {.max_new_tokens = new_tokens, .temperature = t, .top_p = 1, .seed = (uint64_t)i}};
        }
        for (int64_t b = 1; b <= MOST; b = b == 1 ? 4 : 2 * b) {
            struct seconds apart = run(model, prompts, b, 1), together = run(model, prompts, b, b);
            printf("{\"case\": \"generate\", \"b\": %lld, \"temperature\": %d, \"apart_tokens_per_second\": "
                   "%.0f, "
                   "\"together_tokens_per_second\": %.0f, \"times\": %.2f, \"cpu_times\": %.2f}\n",
                   (long long)b, t, (double)n_ids / apart.wall, (double)n_ids / together.wall,
                   apart.wall / together.wall, apart.cpu / together.cpu);
            fflush(stdout);
        }
    }
    lb_model_destroy(model);
    return 0;
}
