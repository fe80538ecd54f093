/* What it costs to write, and to read, what the dialects of lists of log-probabilities say in JSON.
 *
 * One JSON line a form, of 8 sequences of 128 tokens: processor microseconds a token to write the answer and
 * to decode the question, nanoseconds an entry, bytes of the answer a token. Log-probabilities have all their
 * digits, as a model's have.
 */
#include "common/base/arena.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "proto/sglang.h"
#include "tests/support/figures.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEQS 8
#define LENGTH 128
#define VOCAB 49152
#define MOST_K 64
#define ROUNDS 40

static int32_t ids[SEQS][LENGTH], top_ids[SEQS][LENGTH * MOST_K], ranks[SEQS][LENGTH];
static float top[SEQS][LENGTH * MOST_K], actual[SEQS][LENGTH];
static char names[VOCAB][12];

static void fail(const char *what) {
    fprintf(stderr, "bench_listed: %s\n", what);
    exit(1);
}

static void make(void) {
    struct lb_rng rng;
    lb_rng_seed(&rng, 1, 0);
    for (int v = 0; v < VOCAB; v++) {
        snprintf(names[v], sizeof names[v], " %s%x", v % 50 == 0 ? "\"" : "", v * 7);
    }
    for (int b = 0; b < SEQS; b++) {
        for (int t = 0; t < LENGTH; t++) {
            ids[b][t] = (int32_t)lb_rng_below(&rng, VOCAB);
            ranks[b][t] = (int32_t)lb_rng_below(&rng, VOCAB);
            actual[b][t] = -20.0f * lb_rng_float(&rng);
            float at = -0.1f;
            for (int i = 0; i < MOST_K; i++) {
                at -= 0.4f * lb_rng_float(&rng);
                top_ids[b][t * MOST_K + i] = (int32_t)lb_rng_below(&rng, VOCAB);
                top[b][t * MOST_K + i] = at;
            }
        }
    }
}

static enum lb_status name_of(void *context, int32_t id, struct lb_buf *out) {
    (void)context;
    return lb_buf_append_str(out, names[id]);
}

static struct lb_vllm_rows rows_of(int b) {
    return (struct lb_vllm_rows){
        .k = MOST_K, .top_ids = top_ids[b], .top_logprobs = top[b], .actual = actual[b], .ranks = ranks[b]};
}

static void put_completion(struct lb_vllm_writer *writer, const struct lb_vllm_completion *request) {
    lb_vllm_put_completion(writer, "cmpl-1", 1, "m", "f");
    for (int b = 0; b < SEQS; b++) {
        struct lb_vllm_choice choice = {
            .index = b, .ids = ids[b], .n = LENGTH, .prompt = rows_of(b), .text = "", .stop_id = -1};
        lb_vllm_put_choice(writer, request, &choice);
    }
    lb_vllm_put_end(writer, &(struct lb_vllm_usage){0});
}

static void put_vllm(struct lb_vllm_writer *writer) {
    put_completion(writer, &(struct lb_vllm_completion){
                               .sampling = {.prompt_logprobs = 20, .logprobs = LB_VLLM_NO_LOGPROBS}});
}

static void put_openai(struct lb_vllm_writer *writer) {
    put_completion(writer,
                   &(struct lb_vllm_completion){
                       .echo = true, .sampling = {.prompt_logprobs = LB_VLLM_NO_LOGPROBS, .logprobs = 20}});
}

static void put_sglang(struct lb_vllm_writer *writer) {
    struct lb_sglang_generate request = {.texts = writer->text != NULL, .batch = true};
    struct lb_sglang_scores scores = {.asked = true, .top_k = MOST_K};
    for (int b = 0; b < SEQS; b++) {
        struct lb_sglang_answer answer = {.id = "1",
                                          .version = "f",
                                          .ids = ids[b],
                                          .n = LENGTH,
                                          .prompt = rows_of(b),
                                          .text = "",
                                          .n_next = 1,
                                          .next_ids = ids[b],
                                          .next_logprobs = actual[b],
                                          .next = rows_of(b)};
        lb_sglang_put_answer(writer, &request, &scores, &answer);
    }
}

static void measure(const char *name, void (*put)(struct lb_vllm_writer *writer), bool texts, int k) {
    struct lb_buf buf;
    lb_buf_init(&buf, LB_MAX_RESPONSE_BYTES);
    double least = 1e30;
    for (int r = 0; r < ROUNDS; r++) {
        lb_buf_finish(&buf); /* as the daemon has it: an answer's buffer is new */
        struct lb_vllm_writer writer = {.buf = &buf, .text = texts ? name_of : NULL};
        double begun = lb_processor_seconds();
        put(&writer);
        double us = 1e6 * (lb_processor_seconds() - begun);
        least = us < least ? us : least;
        if (writer.status != LB_OK || lb_buf_status(&buf) != LB_OK) {
            fail("an answer could not be written");
        }
    }
    double tokens = SEQS * LENGTH;
    printf("{\"case\": \"write %s\", \"us_per_token\": %.3f, \"ns_per_entry\": %.1f, \"bytes_per_token\": "
           "%.1f}\n",
           name, least / tokens, 1e3 * least / tokens / (k + 1), (double)buf.len / tokens);
    lb_buf_finish(&buf);
}

static void put_question(struct lb_buf *body, const char *key, const char *rest) {
    lb_buf_printf(body, "{\"%s\":[", key);
    for (int b = 0; b < SEQS; b++) {
        for (int t = 0; t < LENGTH; t++) {
            lb_buf_printf(body, "%s%d", t > 0 ? "," : b > 0 ? ",[" : "[", ids[b][t]);
        }
        lb_buf_append_str(body, "]");
    }
    lb_buf_append_str(body, rest);
}

static void measure_question(bool sglang) {
    struct lb_buf body;
    struct lb_arena arena;
    double least = 1e30;
    lb_buf_init(&body, LB_MAX_BODY_BYTES);
    put_question(&body, sglang ? "input_ids" : "prompt",
                 sglang ? "],\"sampling_params\":{\"max_new_tokens\":0},\"return_logprob\":true}"
                        : "],\"max_tokens\":0,\"prompt_logprobs\":20}");
    for (int r = 0; r < ROUNDS; r++) {
        struct lb_vllm_completion vllm;
        struct lb_sglang_generate generate;
        lb_arena_init(&arena, (size_t)LB_MAX_JSON_BYTES * 16);
        double begun = lb_processor_seconds();
        enum lb_status status = sglang
                                    ? lb_sglang_generate_decode(body.data, body.len, &arena, &generate, NULL)
                                    : lb_vllm_completion_decode(body.data, body.len, &arena, &vllm, NULL);
        double us = 1e6 * (lb_processor_seconds() - begun);
        least = us < least ? us : least;
        if (status != LB_OK) {
            fail("a question could not be read");
        }
        lb_arena_finish(&arena);
    }
    printf("{\"case\": \"read %s\", \"us_per_token\": %.3f}\n", sglang ? "/generate" : "/v1/completions",
           least / (SEQS * LENGTH));
    lb_buf_finish(&body);
}

int main(void) {
    make();
    measure("vLLM prompt_logprobs 20", put_vllm, false, 20);
    measure("vLLM prompt_logprobs 20, texts", put_vllm, true, 20);
    measure("OpenAI echo, logprobs 20, texts", put_openai, true, 20);
    measure("SGLang top_logprobs_num 64", put_sglang, false, MOST_K);
    measure("SGLang top_logprobs_num 64, texts", put_sglang, true, MOST_K);
    measure_question(false);
    measure_question(true);
    return 0;
}
