/* lb_sglang_generate_decode: one clear error, or a request within its limits, whose answer is JSON. The first
 * byte says what the model "knows". */
#include "proto/sglang.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool truth) {
    if (!truth) {
        abort();
    }
}

/* Any UTF-8. */
static enum lb_status text_of(void *context, int32_t id, struct lb_buf *out) {
    (void)context;
    const char c[] = {(char)(id & 0x7f), '\0'};
    return lb_buf_append(out, id % 5 == 0 ? "\xe2\x82\xac" : c, id % 5 == 0 ? 3 : 1);
}

static void check_ids(const struct lb_sglang_ids *list) {
    require(list->n >= 0 && list->n <= LB_MAX_SCORE_IDS);
    for (int64_t i = 0; i < list->n; i++) {
        require(list->ids[i] >= 0);
    }
}

static void check(const struct lb_sglang_generate *request) {
    require(request->prompts.n >= 1 && request->prompts.n <= LB_MAX_SEQUENCES);
    require(request->batch || request->prompts.n == 1);
    require(request->sampling.temperature == 0 || (request->sampling.temperature >= LB_MIN_TEMPERATURE &&
                                                   request->sampling.temperature <= LB_MAX_TEMPERATURE));
    for (size_t i = 0; i < request->prompts.n; i++) {
        const struct lb_sglang_scores *scores = &request->scores[i];
        require(request->prompts.all[i].text ? request->prompts.all[i].text[0] != '\0'
                                             : request->prompts.all[i].n > 0);
        require(scores->start >= LB_SGLANG_NO_START && scores->top_k >= 0 && scores->top_k <= LB_MAX_TOP_K);
        require(!scores->positions || scores->ids.n == 0);
        check_ids(&scores->ids);
        for (int64_t t = 0; t < scores->n_positions; t++) {
            check_ids(&scores->positions[t]);
        }
    }
}

/* An answer about the first prompt, of which two likely ids are known at each place. */
static void answer(const struct lb_sglang_generate *request, const uint8_t *noise, size_t n_noise) {
    enum { ROWS = 16, MOST = 64 };
    static int32_t ids[ROWS] = {0, 65, 34, 92, 10, 5, 5, 7}, top[2 * ROWS];
    static float values[2 * ROWS], scores[ROWS * MOST];
    const struct lb_sglang_scores *asked = &request->scores[0];
    int64_t most = asked->ids.n,
            n = asked->positions && asked->n_positions < ROWS ? asked->n_positions : ROWS;
    for (int64_t t = 0; t < asked->n_positions; t++) {
        most = asked->positions[t].n > most ? asked->positions[t].n : most;
    }
    if (most > MOST || asked->n_positions > ROWS) {
        return;
    }
    for (size_t i = 0; i < ROWS * MOST; i++) {
        scores[i] = -(float)noise[i % n_noise] / 8;
        values[i % (2 * ROWS)] = scores[i];
        top[i % (2 * ROWS)] = noise[i % n_noise];
    }
    struct lb_buf buf;
    struct lb_detail detail = {0};
    lb_buf_init(&buf, 1 << 20);
    struct lb_vllm_writer writer = {.buf = &buf, .text = noise[0] & 1 ? text_of : NULL, .detail = &detail};
    int64_t first = asked->start < 0 || asked->start > n ? n : asked->start;
    const struct lb_sglang_answer say = {.id = request->rid ? request->rid : "",
                                         .version = "f",
                                         .ids = ids,
                                         .n = n,
                                         .first = first,
                                         .prompt = {2, top, values, values, NULL},
                                         .scores = scores,
                                         .n_scores = most,
                                         .next = {2, top, values, NULL, NULL},
                                         .next_scores = scores,
                                         .n_next = 1 + (noise[0] >> 6 & 1),
                                         .next_ids = top,
                                         .next_logprobs = values,
                                         .stopped = noise[0] & 2,
                                         .goes_on = request->stream && (noise[0] & 4),
                                         .numbered = request->stream && request->batch,
                                         .n_generated = noise[0] & 128 ? 1 + (noise[0] >> 6 & 1) : 0,
                                         .text = "\n"};
    lb_sglang_put_answer(&writer, request, asked, &say);
    require(writer.status == LB_OK);
    json_t *json = NULL;
    require(lb_json_parse(buf.data, buf.len, 0, "answer", &json, NULL) == LB_OK);
    json_decref(json);
    lb_buf_finish(&buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) {
        return 0;
    }
    struct lb_arena arena;
    struct lb_sglang_generate request;
    struct lb_detail detail = {0};
    lb_arena_init(&arena, 256u << 20);
    enum lb_status status = lb_sglang_generate_decode(data + 1, size - 1, &arena, &request, &detail);
    require(status == detail.code && (status == LB_OK) == (detail.text[0] == '\0'));
    require(strpbrk(detail.text, "\n\r\x1b") == NULL);
    if (status == LB_OK) {
        check(&request);
        answer(&request, data, size);
    }
    lb_arena_finish(&arena);
    return 0;
}
