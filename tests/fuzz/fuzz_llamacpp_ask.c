/* lb_llamacpp_read: one clear error, or what was asked for, of which every number may be used. The first byte
 * says what was asked. */
#include "proto/llamacpp_ask.h"

#include <stdbool.h>
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
    static const struct lb_llamacpp_texts texts[] = {{first, 1, 3}, {second, 0, 2}};
    if (size < 1) {
        return 0;
    }
    size_t n = data[0] & 4 ? 1 : 2;
    int64_t k = 1 + (data[0] & 1);
    struct lb_llamacpp_told told[2];
    struct lb_arena arena;
    struct lb_detail detail = {0};
    lb_arena_init(&arena, 1u << 20);
    enum lb_status status = lb_llamacpp_read(data + 1, size - 1, texts, n, k, &arena, told, &detail);
    require(status == detail.code && (status == LB_OK) == (detail.text[0] == '\0'));
    require(strpbrk(detail.text, "\n\r\x1b") == NULL);
    for (size_t i = 0; status == LB_OK && i < n; i++) {
        require(told[i].rows == texts[i].n - texts[i].first);
        for (int64_t j = 0; j < told[i].rows * k; j++) {
            require(told[i].ids[j] >= 0 && told[i].logprobs[j] >= LB_LLAMACPP_LEAST);
        }
    }
    lb_arena_finish(&arena);
    return 0;
}
