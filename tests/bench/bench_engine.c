/* The engine alone, for serve.py, which measures the same questions over HTTP by turns with it.
 *
 * usage: bench_engine MODEL SEQS LENGTH
 * Each line of standard input is a round: SECONDS TOP_K SCORED OUTPUT[:DTYPE]... For so long batches of SEQS
 * unlike sequences of LENGTH ids are computed, one after the other, as one request each; SCORED ids are
 * chosen at every position (0: none). A round's answer is one JSON line: tokens, the seconds in the engine,
 * the processor's seconds of all threads.
 */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/nn/gemm.h"
#include "server/engine/engine.h"
#include "server/models/repository.h"
#include "tests/bench/once.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LINE 1024
#define MAX_OUTPUTS 8

struct bench {
    struct lb_engine *engine;
    struct lb_hosted *hosted;
    struct lb_rng rng;
    int64_t seqs, length;
    int32_t *ids;
};

struct round {
    double seconds;
    int64_t top_k, scored;
    struct lb_wire_output outputs[MAX_OUTPUTS];
    size_t n_outputs;
};

/* Takes line apart, which the outputs' names stay in. */
static bool read_round(char *line, struct round *out) {
    char *rest = NULL;
    const char *seconds = strtok_r(line, " \n", &rest), *k = strtok_r(NULL, " \n", &rest);
    const char *scored = strtok_r(NULL, " \n", &rest);
    *out = (struct round){0};
    if (!scored) {
        return false;
    }
    out->seconds = strtod(seconds, NULL);
    out->top_k = strtoll(k, NULL, 10);
    out->scored = strtoll(scored, NULL, 10);
    for (char *name = strtok_r(NULL, " \n", &rest); name; name = strtok_r(NULL, " \n", &rest)) {
        char *dtype = strchr(name, ':');
        if (out->n_outputs == MAX_OUTPUTS) {
            return false;
        }
        if (dtype) {
            *dtype++ = '\0';
        }
        out->outputs[out->n_outputs++] =
            (struct lb_wire_output){name, true, dtype ? lb_datatype_parse(dtype) : LB_DT_NONE};
    }
    return out->seconds > 0 && out->top_k > 0 && out->scored >= 0 && out->n_outputs > 0;
}

static void draw(struct bench *b, int32_t *ids, int64_t n) {
    int64_t v = lb_hosted_vocab(b->hosted);
    for (int64_t i = 0; i < n; i++) {
        ids[i] = (int32_t)lb_rng_below(&b->rng, (uint64_t)v);
    }
}

static enum lb_status run(struct bench *b, const struct round *round, struct lb_detail *detail) {
    int64_t n = b->seqs * b->length, tokens = 0;
    int32_t *scores = lb_malloc_array((size_t)(n * round->scored + 1), sizeof *scores);
    struct lb_once sum = {0}, once = {0};
    enum lb_status status = scores ? LB_OK : lb_fail(detail, LB_E_NOMEM, "out of memory");
    if (scores) {
        draw(b, scores, n * round->scored);
    }
    while (status == LB_OK && sum.seconds < round->seconds) {
        draw(b, b->ids, n);
        struct lb_wire_tensor inputs[] = {{.name = "input_ids",
                                           .datatype = LB_DT_INT32,
                                           .n_dims = 2,
                                           .dim = {b->seqs, b->length},
                                           .data = b->ids,
                                           .bytes = (size_t)n * sizeof *b->ids,
                                           .binary = true},
                                          {.name = "score_ids",
                                           .datatype = LB_DT_INT32,
                                           .n_dims = 3,
                                           .dim = {b->seqs, b->length, round->scored},
                                           .data = scores,
                                           .bytes = (size_t)(n * round->scored) * sizeof *scores,
                                           .binary = true}};
        struct lb_wire_output outputs[MAX_OUTPUTS];
        memcpy(outputs, round->outputs, sizeof outputs);
        const struct lb_infer_request request = {.top_k = round->top_k,
                                                 .temperature = 1,
                                                 .n_inputs = round->scored > 0 ? 2 : 1,
                                                 .inputs = inputs,
                                                 .n_outputs = round->n_outputs,
                                                 .outputs = outputs};
        status = lb_once_run(b->engine, b->hosted, &request, &once, detail);
        sum.seconds += once.seconds;
        sum.processor_seconds += once.processor_seconds;
        tokens += n;
    }
    lb_free(scores);
    if (status == LB_OK) {
        printf("{\"tokens\": %lld, \"seconds\": %.6f, \"processor_seconds\": %.6f}\n", (long long)tokens,
               sum.seconds, sum.processor_seconds);
        fflush(stdout);
    }
    return status;
}

int main(int argc, char **argv) {
    struct bench b = {.seqs = argc == 4 ? strtoll(argv[2], NULL, 10) : 0,
                      .length = argc == 4 ? strtoll(argv[3], NULL, 10) : 0};
    struct lb_detail detail = {0};
    lb_gemm_setup(0, argv);
    if (b.seqs < 1 || b.length < 1 || b.seqs > LB_MAX_REQUEST_TOKENS / b.length) {
        fprintf(stderr, "usage: bench_engine MODEL SEQS LENGTH\n");
        return 2;
    }
    lb_rng_seed(&b.rng, 11, 0);
    enum lb_status status = lb_hosted_open("model", argv[1], &b.hosted, &detail);
    b.engine = lb_engine_create(NULL, NULL, NULL, (size_t)4 << 30);
    b.ids = lb_malloc_array((size_t)(b.seqs * b.length), sizeof *b.ids);
    if (status == LB_OK && (!b.engine || !b.ids)) {
        status = lb_fail(&detail, LB_E_NOMEM, "out of memory");
    }
    char line[MAX_LINE];
    while (status == LB_OK && fgets(line, sizeof line, stdin)) {
        struct round round;
        status = read_round(line, &round)
                     ? run(&b, &round, &detail)
                     : lb_fail(&detail, LB_E_ARG, "a round is SECONDS TOP_K SCORED OUTPUT[:DTYPE]...");
    }
    if (status != LB_OK) {
        fprintf(stderr, "bench_engine: %s\n", detail.text);
    }
    lb_engine_destroy(b.engine);
    lb_hosted_release(b.hosted);
    lb_free(b.ids);
    return status == LB_OK ? 0 : 1;
}
