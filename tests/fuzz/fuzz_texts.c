/* lb_texts_read: the answer of a server that was asked for two texts of at most four ids below 100: just
 * that, or a reason. */
#include "trainer/wire/texts.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct lb_teacher_info info;
    const struct lb_text_args args = {.max_tokens = 4, .temperature = 1, .top_p = 1};
    struct lb_text out[2] = {{NULL, 0}, {NULL, 0}};
    struct lb_detail detail = {0};
    struct lb_arena arena;
    memcpy(info.fingerprint, "abc", 4);
    info.vocab_size = 100;
    lb_arena_init(&arena, 1 << 20);
    if (lb_texts_read(data, size, &info, &args, 2, &arena, out, &detail) == LB_OK) {
        for (int i = 0; i < 2; i++) {
            if (out[i].n < 1 || out[i].n > 4) {
                abort();
            }
            for (int64_t t = 0; t < out[i].n; t++) {
                if (out[i].ids[t] < 0 || out[i].ids[t] >= 100) {
                    abort();
                }
            }
        }
    } else if (detail.text[0] == '\0') {
        abort();
    }
    lb_arena_finish(&arena);
    return 0;
}
