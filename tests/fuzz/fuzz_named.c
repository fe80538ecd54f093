/* What a trainer reads of servers whose tensors a recipe names. The first byte chooses: what is kept of one,
 * or its answer to a question about three ids (two more bytes give the length of its JSON, 65535: none).
 */
#include "common/base/mem.h"
#include "trainer/wire/named.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_kept(const uint8_t *data, size_t size) {
    struct lb_teacher_info info;
    if (lb_named_info_read(data, size, "fuzz", &info, NULL) == LB_OK) {
        const int32_t ids[] = {1, 2, 3};
        struct lb_arena arena;
        struct lb_asked asked;
        const struct lb_sample sample = {.ids = ids, .n = 3};
        const struct lb_sample *const samples[] = {&sample};
        lb_arena_init(&arena, 1 << 20);
        lb_asked_begin(&asked, samples, 1);
        if (lb_named_ask(&info.named, ids, 3, &arena, &asked, NULL) == LB_OK) {
            lb_asked_finish(&asked);
        }
        lb_arena_finish(&arena);
    }
}

static void read_answer(const uint8_t *data, size_t size) {
    static const struct lb_teacher_info info = {
        .model = "m",
        .vocab_size = 4,
        .named = {.version = "1", .logits = "z", .n_inputs = 1, .inputs = {{.name = "i", .n_dims = 1}}}};
    static const struct lb_ask_spec spec = {.n_outputs = 3,
                                            .outputs = {{LB_OUT_TOPK_IDS, 0, LB_DT_UINT16},
                                                        {LB_OUT_REST, 0, LB_DT_FP16},
                                                        {LB_OUT_ACTUAL, 0, LB_DT_UINT8}},
                                            .top_k = 2,
                                            .temperature = 2};
    static const int32_t ids[] = {1, 2, 3};
    const struct lb_sample sample = {.ids = ids, .n = 3};
    const struct lb_sample *const samples[] = {&sample};
    const struct lb_asked asked = {.n = 1, .longest = 3, .rows = 3};
    struct lb_arena scratch, arena, *into = &arena;
    struct lb_answer answer = {0};
    if (size < 2) {
        return;
    }
    int64_t json = data[0] | data[1] << 8;
    const struct lb_ask_reply reply = {
        .body = data + 2, .len = size - 2, .json_bytes = json == 65535 ? -1 : json, .digest = ""};
    lb_arena_init(&scratch, 1 << 22);
    lb_arena_init(&arena, 1 << 20);
    if (lb_dialect_named.split(&info, &spec, &asked, samples, &reply, &scratch, &into, &answer, NULL, NULL) ==
            LB_OK &&
        lb_answer_check(&answer, &spec, &info, 3, NULL) != LB_OK) {
        abort();
    }
    lb_arena_finish(&scratch);
    lb_arena_finish(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    /* Of exactly this size, so that reading past it is seen. */
    uint8_t *copy = lb_malloc_array(size > 1 ? size - 1 : 1, 1);
    if (copy) {
        memcpy(copy, data + 1, size - 1);
        (data[0] & 1 ? read_answer : read_kept)(copy, size - 1);
    }
    lb_free(copy);
    return 0;
}
