/* lb_vllm_completion_decode, ..._pooling_decode, ..._generate_decode: one clear error, or a request within
 * its limits, whose answer is JSON. The first byte says what the model "knows". */
#include "proto/vllm.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool truth) {
    if (!truth) {
        abort();
    }
}

static const uint8_t *noise;
static size_t n_noise;

/* Any UTF-8. */
static enum lb_status text_of(void *context, int32_t id, struct lb_buf *out) {
    (void)context;
    const char c[] = {(char)(id & 0x7f), '\0'};
    return lb_buf_append(out, id % 5 == 0 ? "\xe2\x82\xac" : c, id % 5 == 0 ? 3 : 1);
}

static float logprob(size_t i) {
    return -(float)noise[i % n_noise] / 8;
}

/* An answer about the ids of a prompt: two likely ids a row. */
static void answer(const struct lb_vllm_completion *request, const struct lb_vllm_prompt *prompt) {
    enum { ROWS = 16 };
    static const int32_t ids[ROWS] = {0, 65, 34, 92, 10, 5, 5, 7};
    int32_t top[2 * ROWS], ranks[ROWS] = {0};
    float values[2 * ROWS], actual[ROWS];
    struct lb_buf buf;
    struct lb_vllm_choice choice = {.ids = prompt->ids && prompt->n <= ROWS ? prompt->ids : ids,
                                    .n = prompt->ids && prompt->n <= ROWS ? prompt->n : ROWS,
                                    .text = prompt->text ? prompt->text : "",
                                    .text_len = prompt->text ? strlen(prompt->text) : 0,
                                    .n_generated = request->sampling.max_tokens > 0,
                                    .generated = (const int32_t[]){3},
                                    .generated_logprobs = (const float[]){0},
                                    .stop_text =
                                        request->sampling.n_stops ? request->sampling.stops[0] : NULL,
                                    .stop_id = -1};
    for (size_t i = 0; i < 2 * ROWS; i++) {
        top[i] = noise[i % n_noise] + (int32_t)(i % 2) * 256; /* two that differ */
        values[i] = logprob(i);
        actual[i / 2] = logprob(i + 1);
    }
    choice.prompt = choice.next = (struct lb_vllm_rows){2, top, values, actual, ranks};
    lb_buf_init(&buf, 1 << 20);
    struct lb_vllm_writer writer = {.buf = &buf, .text = noise[0] & 1 ? text_of : NULL};
    const struct lb_vllm_usage usage = {1, 2};
    lb_vllm_put_completion(&writer, request->request_id ? request->request_id : "", 1,
                           request->model ? request->model : "", "f");
    lb_vllm_put_choice(&writer, request, &choice);
    lb_vllm_put_end(&writer, &usage);
    if (writer.status == LB_OK) {
        json_t *json = NULL;
        require(lb_json_parse(buf.data, buf.len, 0, "answer", &json, NULL) == LB_OK);
        json_decref(json);
    }
    /* the same as an event */
    if (writer.status == LB_OK && request->stream) {
        const struct lb_vllm_from from = {"", "m", "f", 1};
        size_t offset = 0;
        lb_buf_reset(&buf);
        choice.goes_on = noise[0] & 2;
        choice.later = noise[0] & 4;
        lb_vllm_put_event(&writer, &from, request, &choice, &offset, request->each_usage ? &usage : NULL);
        require(writer.status == LB_OK && buf.len > 8);
        require(memcmp(buf.data, "data: ", 6) == 0 && memcmp(buf.data + buf.len - 2, "\n\n", 2) == 0);
        require(memchr(buf.data, '\n', buf.len - 2) == NULL);
        json_t *json = NULL;
        require(lb_json_parse(buf.data + 6, buf.len - 6, 0, "event", &json, NULL) == LB_OK);
        json_decref(json);
    }
    lb_buf_finish(&buf);
}

/* The same body as a question for vectors. */
static void vectors(const uint8_t *data, size_t size, struct lb_arena *arena) {
    for (int tokens = 0; tokens < 2; tokens++) {
        struct lb_vllm_pooling request;
        struct lb_detail detail = {0};
        enum lb_status status = lb_vllm_pooling_decode(data, size, tokens, arena, &request, &detail);
        require(status == detail.code && (status == LB_OK) == (detail.text[0] == '\0'));
        require(strpbrk(detail.text, "\n\r\x1b") == NULL);
        require(status != LB_OK || tokens || request.format <= LB_VLLM_BASE64);
        require(status != LB_OK || request.prompts.n >= 1);
    }
    struct lb_vllm_generate generate;
    struct lb_detail detail = {0};
    enum lb_status status = lb_vllm_generate_decode(data, size, arena, &generate, &detail);
    require(status == detail.code && (status == LB_OK) == (detail.text[0] == '\0'));
    require(status != LB_OK || (generate.prompts.n == 1 && generate.prompts.all[0].n >= 1));
    for (int64_t i = 0; status == LB_OK && i < generate.n_rows * generate.k; i++) {
        require(generate.gather[i] >= -1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) {
        return 0;
    }
    struct lb_arena arena;
    struct lb_vllm_completion request;
    struct lb_detail detail = {0};
    char key[LB_MAX_NAME];
    noise = data;
    n_noise = size;
    lb_arena_init(&arena, 256u << 20);
    enum lb_status status = lb_vllm_completion_decode(data + 1, size - 1, &arena, &request, &detail);
    require(status == detail.code && (status == LB_OK) == (detail.text[0] == '\0'));
    require(strpbrk(detail.text, "\n\r\x1b") == NULL);
    if (lb_vllm_error_key(detail.text, key)) {
        require(strstr(detail.text, key) != NULL);
    }
    if (status == LB_OK) {
        const struct lb_vllm_sampling *s = &request.sampling;
        require(request.prompts.n >= 1 && request.prompts.n <= LB_MAX_SEQUENCES);
        require(s->prompt_logprobs >= LB_VLLM_NO_LOGPROBS && s->prompt_logprobs <= LB_MAX_TOP_K);
        require(s->temperature == 0 ||
                (s->temperature >= LB_MIN_TEMPERATURE && s->temperature <= LB_MAX_TEMPERATURE));
        for (size_t i = 0; i < request.prompts.n; i++) {
            const struct lb_vllm_prompt *prompt = &request.prompts.all[i];
            require(prompt->text ? !prompt->ids && prompt->text[0] : prompt->n > 0);
            for (int64_t t = 0; t < prompt->n; t++) {
                require(prompt->ids[t] >= 0);
            }
        }
        answer(&request, &request.prompts.all[0]);
    }
    vectors(data + 1, size - 1, &arena);
    lb_arena_finish(&arena);
    return 0;
}
