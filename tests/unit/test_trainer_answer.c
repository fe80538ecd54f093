/* An answer is believed only when each of its bytes is what the teacher sent, as the answer to this question.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/mem.h"
#include "trainer/wire/dialect.h"

#include <stdio.h>
#include <string.h>

#define N 3
#define T 3
#define K 2

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
                {LB_OUT_TOPK_VALUES, 0, LB_DT_FP16},
                {LB_OUT_LOGSUMEXP, 0, LB_DT_FP32}},
    .top_k = K,
    .temperature = 2,
};

/* A question about N sequences, and its right answer. */
struct scene {
    struct lb_sample samples[N];
    const struct lb_sample *pointers[N];
    struct lb_arena scratch;
    struct lb_asked asked;
    struct lb_buf body;
    size_t json_len;
};

static void answer(const struct scene *scene, const char *digest, struct lb_buf *body, size_t *json_len) {
    static uint16_t ids[N * T * K], values[N * T * K];
    static float lse[N * T];
    for (int i = 0; i < N * T * K; i++) {
        ids[i] = (uint16_t)(i + 3);
        values[i] = (uint16_t)(0x4000 - i);
        lse[i / K] = 1.5f + (float)i;
    }
    struct lb_wire_tensor outputs[] = {
        {"logits.topk_ids", LB_DT_UINT16, 3, {N, T, K}, ids, sizeof ids, true},
        {"logits.topk_values", LB_DT_FP16, 3, {N, T, K}, values, sizeof values, true},
        {"logsumexp", LB_DT_FP32, 2, {N, T}, lse, sizeof lse, true}};
    const struct lb_infer_response response = {.model_name = "fake",
                                               .model_version = info.fingerprint,
                                               .top_k = K,
                                               .temperature = 2,
                                               .digest_of = digest,
                                               .n_outputs = 3,
                                               .outputs = outputs};
    uint8_t own[LB_SHA256_BYTES];
    (void)scene;
    lb_buf_init(body, 1 << 16);
    assert_int_equal(lb_infer_response_head(&response, body, NULL), LB_OK);
    *json_len = body->len;
    assert_int_equal(lb_answer_digest(&response, body->data, body->len, own), LB_OK);
    for (int i = 0; i < 3; i++) {
        lb_buf_append(body, outputs[i].data, outputs[i].bytes);
    }
    lb_buf_append(body, own, sizeof own);
}

static void open_scene(struct scene *scene) {
    static const int32_t ids[] = {1, 2, 3, 4, 5};
    memset(scene, 0, sizeof *scene);
    lb_arena_init(&scene->scratch, 1 << 24);
    for (int i = 0; i < N; i++) {
        scene->samples[i] = (struct lb_sample){.ids = ids + i, .n = T};
        scene->pointers[i] = &scene->samples[i];
    }
    assert_int_equal(lb_dialect_get(LB_PROTOCOL_OIP)
                         ->build(&info, &spec, scene->pointers, N, 0, &scene->scratch, &scene->asked, NULL),
                     LB_OK);
    answer(scene, scene->asked.digest, &scene->body, &scene->json_len);
}

static void close_scene(struct scene *scene) {
    lb_asked_finish(&scene->asked);
    lb_buf_finish(&scene->body);
    lb_arena_finish(&scene->scratch);
}

static enum lb_status receive(struct scene *scene, int64_t json_len, const char *digest, bool *other,
                              struct lb_detail *detail) {
    struct lb_answer answers[N] = {0};
    struct lb_arena scratch, arenas[N];
    struct lb_arena *into[N];
    const struct lb_ask_reply reply = {
        .body = scene->body.data, .len = scene->body.len, .json_bytes = json_len, .digest = digest};
    lb_arena_init(&scratch, 1 << 20);
    for (int i = 0; i < N; i++) {
        lb_arena_init(&arenas[i], 1 << 20);
        into[i] = &arenas[i];
    }
    enum lb_status status = lb_dialect_get(LB_PROTOCOL_OIP)
                                ->split(&info, &spec, &scene->asked, scene->pointers, &reply, &scratch, into,
                                        answers, other, detail);
    lb_arena_finish(&scratch);
    for (int i = 0; i < N; i++) {
        lb_arena_finish(&arenas[i]);
    }
    return status;
}

static void check_refused(struct scene *scene, int64_t json_len, const char *digest, const char *what,
                          size_t at) {
    bool other = false;
    struct lb_detail detail = {0};
    if (receive(scene, json_len, digest, &other, &detail) == LB_OK || other || !detail.text[0]) {
        fail_msg("%s %zu: taken, or held for another model's answer: %s", what, at, detail.text);
    }
}

static void each_bit_counts(void **state) {
    (void)state;
    struct scene scene;
    struct lb_detail detail = {0};
    bool other = false;
    open_scene(&scene);
    int64_t json_len = (int64_t)scene.json_len;
    if (receive(&scene, json_len, scene.asked.digest, &other, &detail) != LB_OK) {
        fail_msg("the right answer is refused: %s", detail.text);
    }
    for (size_t i = 0; i < scene.body.len * 8; i++) {
        scene.body.data[i / 8] ^= (char)(1 << i % 8);
        check_refused(&scene, json_len, scene.asked.digest, "bit", i);
        scene.body.data[i / 8] ^= (char)(1 << i % 8);
    }
    for (int64_t n = -1; n <= (int64_t)scene.body.len; n++) { /* the header that tells the JSON's length */
        if (n != json_len) {
            check_refused(&scene, n, scene.asked.digest, "length", (size_t)n);
        }
    }
    for (size_t i = 0; i < LB_SHA256_HEX - 1; i++) { /* the header that names the question */
        char digest[LB_SHA256_HEX];
        memcpy(digest, scene.asked.digest, sizeof digest);
        digest[i] = digest[i] == '0' ? '1' : '0';
        check_refused(&scene, json_len, digest, "digit", i);
    }
    for (size_t len = scene.body.len; len > 0; len--) {
        scene.body.len = len - 1;
        check_refused(&scene, json_len, scene.asked.digest, "cut at", len - 1);
    }
    close_scene(&scene);
}

static void tensors_stay_where_they_are(void **state) {
    (void)state;
    struct scene scene;
    open_scene(&scene);
    size_t ids = N * T * K * 2, per = ids / N, lse = N * T * 4;
    char *at = scene.body.data + scene.json_len, kept[64];
    memcpy(kept, at, per); /* two sequences of one output change places */
    memcpy(at, at + per, per);
    memcpy(at + per, kept, per);
    check_refused(&scene, (int64_t)scene.json_len, scene.asked.digest, "swapped", 0);
    memcpy(at + per, at, per);
    memcpy(at, kept, per);
    memset(at + 2 * ids, 0, lse);
    check_refused(&scene, (int64_t)scene.json_len, scene.asked.digest, "zeroed", 2);
    close_scene(&scene);
}

/* A right answer to another question, under this one's header. */
static void answers_are_bound_to_their_question(void **state) {
    (void)state;
    static const char another[] = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";
    struct scene scene;
    struct lb_detail detail = {0};
    bool other = false;
    open_scene(&scene);
    lb_buf_finish(&scene.body);
    answer(&scene, another, &scene.body, &scene.json_len);
    check_refused(&scene, (int64_t)scene.json_len, scene.asked.digest, "body", 0);
    assert_int_equal(receive(&scene, (int64_t)scene.json_len, another, &other, &detail), LB_E_MISMATCH);
    assert_non_null(strstr(detail.text, "another question"));
    close_scene(&scene);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_bit_counts),
        cmocka_unit_test(tensors_stay_where_they_are),
        cmocka_unit_test(answers_are_bound_to_their_question),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
