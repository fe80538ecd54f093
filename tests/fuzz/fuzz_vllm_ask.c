/* lb_vllm_scores_read, ..._gather_read, ..._states_read, lb_openai_scores_read: one clear error, or an answer
 * of the size that was asked for. The first byte says which; of states, the header is what stands before the
 * first line's end. */
#include "proto/openai_ask.h"
#include "proto/vllm_ask.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool truth) {
    if (!truth) {
        abort();
    }
}

static void check(enum lb_status status, const struct lb_detail *detail) {
    require(status == detail->code && (status == LB_OK) == (detail->text[0] == '\0'));
    require(strpbrk(detail->text, "\n\r\x1b") == NULL);
}

static const int32_t ids[] = {3, 1, 2};
static struct lb_vllm_prompt all[] = {{.ids = ids, .n = 3}, {.ids = ids, .n = 1}};
static const struct lb_vllm_prompts prompts = {.key = "prompt", .n = 2, .all = all};

static void scores(const uint8_t *data, size_t size) {
    struct lb_vllm_scores out[2];
    struct lb_arena arena;
    struct lb_detail detail = {0};
    lb_arena_init(&arena, 64u << 20);
    enum lb_status status = lb_vllm_scores_read(data, size, &prompts, &arena, out, NULL, &detail);
    check(status, &detail);
    for (size_t p = 0; p < 2 && status == LB_OK; p++) {
        require(out[p].n == all[p].n - 1);
        for (int64_t t = 0; t < out[p].n; t++) {
            for (int64_t i = 0; i < out[p].places[t].n; i++) {
                require(out[p].places[t].ids[i] >= 0);
            }
        }
    }
    lb_arena_finish(&arena);
}

static void echoed(const uint8_t *data, size_t size) {
    for (int lists = 0; lists < 2; lists++) {
        struct lb_vllm_scores out[2];
        struct lb_arena arena;
        struct lb_detail detail = {0};
        bool named = false;
        lb_arena_init(&arena, 64u << 20);
        enum lb_status status =
            lb_openai_scores_read(data, size, &prompts, lists, &arena, out, &named, &detail);
        check(status, &detail);
        for (size_t p = 0; p < 2 && status == LB_OK; p++) {
            require(out[p].n == all[p].n && (named || !lists));
            for (int64_t t = 0; t < out[p].n; t++) {
                for (int64_t i = 0; i < out[p].places[t].n; i++) {
                    require(out[p].places[t].ids[i] >= 0);
                }
            }
        }
        lb_arena_finish(&arena);
    }
}

static void states(const uint8_t *data, size_t size) {
    const void *rows[2];
    int64_t width = 0;
    struct lb_detail detail = {0};
    const uint8_t *end = memchr(data, '\n', size);
    size_t n = end ? (size_t)(end - data) : size;
    char *header = malloc(n + 1);
    require(header != NULL);
    memcpy(header, data, n);
    header[n] = '\0';
    const uint8_t *body = end ? end + 1 : data + size;
    size_t len = (size_t)(data + size - body);
    enum lb_status status =
        lb_vllm_states_read(body, len, header, &prompts, LB_DT_FP16, 0, rows, &width, &detail);
    check(status, &detail);
    if (status == LB_OK) {
        require(width > 0 && (size_t)width * 2 * 4 == len);
        require(rows[0] == body && rows[1] == body + width * 6);
    }
    free(header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    float gathered[4];
    struct lb_detail detail = {0};
    if (size < 1) {
        return 0;
    }
    switch (data[0] % 4) {
    case 0:
        scores(data + 1, size - 1);
        break;
    case 1:
        check(lb_vllm_gather_read(data + 1, size - 1, 2, 2, gathered, &detail), &detail);
        break;
    case 2:
        states(data + 1, size - 1);
        break;
    default:
        echoed(data + 1, size - 1);
    }
    return 0;
}
