/* What outputs add to a forward, through the server's engine: a model's final states alone, the default
 * outputs, and everything that losses ask together (top-64, log-sum-exp, 32 chosen ids, 50 draws, two hidden
 * states).
 *
 * usage: OMP_WAIT_POLICY=passive bench_outputs MODEL [SEQS LENGTH ROUNDS]      default 2 256 5
 * The ways take turns in each round; one JSON line with the median of the processor's seconds, all threads
 * together, and of each round's ratio of everything to the default outputs.
 */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/nn/gemm.h"
#include "server/engine/engine.h"
#include "server/models/repository.h"
#include "tests/bench/once.h"
#include "tests/support/figures.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCORED 32
#define DRAWS 50
#define MAX_ROUNDS 64

enum { STATES, DEFAULTS, ALL, N_WAYS };
static struct lb_detail detail;

/* Seconds of one forward that answers so. */
static enum lb_status run(struct lb_engine *engine, struct lb_hosted *hosted, int way,
                          const struct lb_wire_tensor inputs[2], double *out) {
    static const struct lb_wire_output outputs[] = {
        {"hidden_states.final", true, LB_DT_FP16}, {"hidden_states.1", true, LB_DT_FP16},
        {"logits.at_ids", true, LB_DT_FP16},       {"samples.ids", true, LB_DT_NONE},
        {"samples.counts", true, LB_DT_UINT16},    {"logsumexp", true, LB_DT_NONE},
        {"logits.topk_ids", true, LB_DT_NONE},     {"logits.topk_values", true, LB_DT_FP16}};
    static const size_t first[] = {0, 5, 0}, n[] = {1, 3, 8};
    struct lb_wire_output asked[8];
    memcpy(asked, outputs, sizeof asked);
    const struct lb_infer_request request = {.top_k = 64,
                                             .temperature = 1,
                                             .sample_count = DRAWS,
                                             .seed = 1,
                                             .n_inputs = way == ALL ? 2 : 1,
                                             .inputs = (struct lb_wire_tensor *)(uintptr_t)inputs,
                                             .n_outputs = n[way],
                                             .outputs = asked + first[way]};
    struct lb_once once = {0};
    enum lb_status status = lb_once_run(engine, hosted, &request, &once, &detail);
    *out = once.processor_seconds;
    return status;
}

int main(int argc, char **argv) {
    int64_t seqs = 2, length = 256, rounds = 5, *const numbers[] = {&seqs, &length, &rounds};
    static double seconds[N_WAYS][MAX_ROUNDS], ratio[MAX_ROUNDS];
    struct lb_hosted *hosted = NULL;
    struct lb_rng rng;
    lb_gemm_setup(0, argv);
    for (int i = 0; i + 2 < argc && i < 3; i++) {
        *numbers[i] = strtoll(argv[i + 2], NULL, 10);
    }
    if (argc < 2 || seqs < 1 || length < 1 || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: bench_outputs MODEL [SEQS LENGTH ROUNDS]\n");
        return 2;
    }
    if (lb_hosted_open("model", argv[1], &hosted, &detail) != LB_OK) {
        fprintf(stderr, "%s\n", detail.text);
        return 1;
    }
    int64_t v = lb_hosted_vocab(hosted), n = seqs * length;
    int32_t *ids = lb_malloc_array((size_t)n, sizeof *ids);
    int32_t *scores = lb_malloc_array((size_t)(n * SCORED), sizeof *scores);
    struct lb_engine *engine = lb_engine_create(NULL, NULL, NULL, (size_t)4 << 30);
    if (!ids || !scores || !engine) {
        return 1;
    }
    lb_rng_seed(&rng, 7, 0);
    for (int64_t i = 0; i < n * SCORED; i++) {
        scores[i] = (int32_t)lb_rng_below(&rng, (uint64_t)v);
        ids[i / SCORED] = scores[i];
    }
    const struct lb_wire_tensor inputs[2] = {
        {"input_ids", LB_DT_INT32, 2, {seqs, length}, ids, (size_t)n * sizeof *ids, true},
        {"score_ids",
         LB_DT_INT32,
         3,
         {seqs, length, SCORED},
         scores,
         (size_t)(n * SCORED) * sizeof *scores,
         true}};
    for (int64_t r = -1; r < rounds; r++) { /* the first is not counted */
        for (int way = 0; way < N_WAYS; way++) {
            double took = 0;
            if (run(engine, hosted, way, inputs, &took) != LB_OK) {
                fprintf(stderr, "%s\n", detail.text);
                return 1;
            }
            seconds[way][r < 0 ? 0 : r] = took;
        }
        ratio[r < 0 ? 0 : r] = seconds[ALL][r < 0 ? 0 : r] / seconds[DEFAULTS][r < 0 ? 0 : r];
    }
    printf("{\"case\": \"outputs\", \"v\": %lld, \"rows\": %lld, \"final_states_seconds\": %.3f, "
           "\"defaults_seconds\": %.3f, \"all_seconds\": %.3f, \"all_over_defaults\": %.3f}\n",
           (long long)v, (long long)n, lb_median(seconds[STATES], rounds),
           lb_median(seconds[DEFAULTS], rounds), lb_median(seconds[ALL], rounds), lb_median(ratio, rounds));
    lb_engine_destroy(engine);
    lb_hosted_release(hosted);
    lb_free(ids);
    lb_free(scores);
    return 0;
}
