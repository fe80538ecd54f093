/* lb_sglang_read: one clear error, or what was asked for, of which every number may be used. The first byte
 * says what was asked. */
#include "proto/sglang_ask.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool truth) {
    if (!truth) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const int32_t first[] = {3, 1, 2}, second[] = {7, 8};
    static const int32_t chosen_first[] = {5, -1, 6, 4}, chosen_second[] = {-1, 2};
    if (size < 1) {
        return 0;
    }
    const struct lb_sglang_text texts[] = {{first, 3, data[0] >> 4 & 1, chosen_first},
                                           {second, 2, 0, chosen_second}};
    const struct lb_sglang_question question = {
        .texts = texts, .n_texts = data[0] & 4 ? 1 : 2, .k = data[0] & 3, .n_chosen = data[0] & 8 ? 2 : 0};
    struct lb_sglang_told told[2];
    struct lb_arena arena;
    struct lb_detail detail = {0};
    lb_arena_init(&arena, 1u << 20);
    enum lb_status status = lb_sglang_read(data + 1, size - 1, &question, &arena, told, &detail);
    require(status == detail.code && (status == LB_OK) == (detail.text[0] == '\0'));
    require(strpbrk(detail.text, "\n\r\x1b") == NULL);
    for (size_t i = 0; status == LB_OK && i < question.n_texts; i++) {
        require(told[i].rows == texts[i].n - 1 - texts[i].first && told[i].version);
        for (int64_t j = 0; j < told[i].rows * question.k; j++) {
            require(told[i].ids[j] >= 0 && !isnan(told[i].logprobs[j]));
        }
        for (int64_t j = 0; j < told[i].rows; j++) {
            require(!isnan(told[i].own[j]));
        }
    }
    lb_arena_finish(&arena);
    return 0;
}
