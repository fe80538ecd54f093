/* What a trainer reads from a teacher and from its cache. The first byte chooses: model metadata, the tensors
 * of a cached answer, a whole cached value, or the reply to a question (two more bytes give the length of its
 * JSON, 65535: none; a binary one's last 32 bytes are set to the right digest). */
#include "common/base/mem.h"
#include "trainer/cache/value.h"
#include "trainer/wire/dialect.h"
#include "trainer/wire/metadata.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct lb_teacher_info info = {
    .fingerprint = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    .model = "fake",
    .vocab_size = 50,
    .hidden_size = 6,
    .n_layers = 3,
    .n_heads = 2,
    .max_length = 64,
};
static const struct lb_ask_spec spec = {
    .n_outputs = 3,
    .outputs = {{LB_OUT_TOPK_IDS, 0, LB_DT_UINT16},
                {LB_OUT_LOGSUMEXP, 0, LB_DT_FP32},
                {LB_OUT_ATTENTION, 1, LB_DT_FP16}},
    .top_k = 2,
    .temperature = 2,
};

/* What came through must have the shapes that were asked for, and bytes that can be read. */
static void use(const struct lb_answer *answer, const struct lb_sample *sample) {
    if (sample && lb_answer_check(answer, &spec, &info, sample->n, NULL) != LB_OK) {
        abort();
    }
    unsigned sum = 0;
    for (size_t j = 0; j < answer->n_tensors; j++) {
        for (size_t i = 0; i < answer->tensors[j].bytes; i++) {
            sum += ((const uint8_t *)answer->tensors[j].data)[i];
        }
    }
    if (sum == 0xffffffffu) {
        abort();
    }
}

static void read_reply(uint8_t *data, size_t size) {
    static const int32_t ids[] = {1, 2, 3};
    const struct lb_sample a = {.ids = ids, .n = 3}, b = {.ids = ids, .n = 2};
    const struct lb_sample *samples[] = {&a, &b};
    struct lb_arena scratch, arenas[2];
    struct lb_arena *into[] = {&arenas[0], &arenas[1]};
    struct lb_answer answers[2] = {0};
    const struct lb_dialect *oip = lb_dialect_get(LB_PROTOCOL_OIP);
    struct lb_asked asked;
    lb_arena_init(&scratch, 1 << 22);
    lb_arena_init(&arenas[0], 1 << 20);
    lb_arena_init(&arenas[1], 1 << 20);
    if (size >= 2 && !oip->build(&info, &spec, samples, 2, 0, &scratch, &asked, NULL)) {
        int64_t json = data[0] | data[1] << 8;
        const struct lb_infer_response of = {.digest_of = asked.digest};
        size_t last = size - LB_SHA256_BYTES;
        if (size > 2 + LB_SHA256_BYTES && lb_answer_digest(&of, data + 2, last - 2, data + last) != LB_OK) {
            abort();
        }
        const struct lb_ask_reply reply = {.body = data + 2,
                                           .len = size - 2,
                                           .json_bytes = json == 65535 ? -1 : json,
                                           .digest = asked.digest};
        if (!oip->split(&info, &spec, &asked, samples, &reply, &scratch, into, answers, NULL, NULL)) {
            use(&answers[0], &a);
            use(&answers[1], &b);
        }
        lb_asked_finish(&asked);
    }
    lb_arena_finish(&scratch);
    lb_arena_finish(&arenas[0]);
    lb_arena_finish(&arenas[1]);
}

static void read_cached(const uint8_t *data, size_t size, bool whole) {
    struct lb_cache_header h = {.raw_bytes = size, .payload_bytes = size};
    const void *payload = data;
    struct lb_answer answer;
    struct lb_arena arena;
    lb_arena_init(&arena, 1 << 22);
    if ((!whole || !lb_cache_value_check("key", 3, data, size, &h, &payload)) && h.raw_bytes < 1 << 22 &&
        !lb_cache_answer_inflate(&h, payload, &arena, &answer)) {
        use(&answer, NULL);
    }
    lb_arena_finish(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lb_teacher_info read;
    if (size == 0) {
        return 0;
    }
    uint8_t *copy = lb_malloc_array(size > 1 ? size - 1 : 1,
                                    1); /* of exactly this size, so that reading past it is seen */
    if (copy) {
        memcpy(copy, data + 1, size - 1);
        switch (data[0] & 3) {
        case 0:
            if (!lb_info_parse(copy, size - 1, "fuzz", &read, NULL) &&
                strlen(read.fingerprint) != LB_SHA256_HEX - 1) {
                abort();
            }
            break;
        case 1:
            read_cached(copy, size - 1, false);
            break;
        case 2:
            read_cached(copy, size - 1, true);
            break;
        default:
            read_reply(copy, size - 1);
        }
    }
    lb_free(copy);
    return 0;
}
