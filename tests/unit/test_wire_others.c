/* The dialects sglang and llamacpp: what is asked about samples, from their first position that counts on,
 * and what is made of the answers; what a server of each says of itself, and answers of another model. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/llamacpp_ask.h"
#include "common/base/json.h"
#include "proto/sglang.h"
#include "trainer/wire/dialect.h"
#include "trainer/wire/stated.h"
#include "trainer/wire/v1_models.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define V 20
#define K 2
#define S 2
#define N_FIXED 9

static struct lb_arena scratch, arena;
static struct lb_detail detail;

/* ---- a server's numbers: row t of a text ends with its token t ---- */

static int32_t likely(const int32_t *ids, int64_t t, int64_t i) {
    return (int32_t)((ids[t] * 3 + t + i * 7) % V);
}

static float logprob_of(int64_t t, int64_t i) {
    return -(1 + (float)i + 0.0625f * (float)(t % 8));
}

/* ---- samples ---- */

static const int32_t ids[] = {4, 9, 2, 7, 7, 1, 3};
static const int32_t wanted[] = {1, -1, 2, 3, -1, -1, 4, 5, 6, -1, 7, 8};
static const struct lb_extra extra = {LB_IN_SCORE_IDS, wanted, S};
static const struct lb_sample whole = {.ids = ids, .n = 6, .label = -1, .tag = -1};
static const struct lb_sample later = {.ids = ids, .n = 6, .first = 4, .label = -1, .tag = -1};
static const struct lb_sample scored = {
    .ids = ids, .n = 6, .first = 2, .label = -1, .tag = -1, .extra = &extra};

static struct lb_teacher_info info_of(const struct lb_dialect *dialect, unsigned serves) {
    struct lb_stated stated = {.protocol = dialect->name,
                               .model = "m",
                               .version = "",
                               .max_length = 30,
                               .vocab_size = V,
                               .serves = serves};
    struct lb_teacher_info info;
    struct lb_buf text;
    bool lists = strcmp(dialect->name, "sglang") == 0;
    lb_stated_plain_ids(&stated);
    stated.n_ids = N_FIXED;
    stated.probe[LB_PROBE_LOGPROBS].n = 8;
    for (int t = 0; t < 8; t++) {
        stated.probe[LB_PROBE_LOGPROBS].at[t] = lists ? -3 : logprob_of(N_FIXED - 1, t);
    }
    lb_buf_init(&text, 1 << 16);
    assert_int_equal(lb_stated_write(&stated, &text, NULL), LB_OK);
    assert_int_equal(dialect->info_read(text.data, text.len, "a server", &info, &detail), LB_OK);
    lb_buf_finish(&text);
    return info;
}

static const struct lb_ask_spec spec = {.n_outputs = 3,
                                        .outputs = {{LB_OUT_TOPK_IDS, 0, LB_DT_INT32},
                                                    {LB_OUT_TOPK_LOGPROBS, 0, LB_DT_FP32},
                                                    {LB_OUT_REST, 0, LB_DT_FP32}},
                                        .top_k = K,
                                        .temperature = 1};
static const struct lb_ask_spec spec_scored = {.n_outputs = 3,
                                               .outputs = {{LB_OUT_TOPK_IDS, 0, LB_DT_INT32},
                                                           {LB_OUT_AT_LOGPROBS, 0, LB_DT_FP32},
                                                           {LB_OUT_ACTUAL, 0, LB_DT_FP32}},
                                               .top_k = K,
                                               .temperature = 1,
                                               .n_scored = S};

static float f32(const struct lb_answer *answer, size_t j, int64_t at) {
    float x;
    lb_wire_floats(&answer->tensors[j], at, 1, &x);
    return x;
}

static void check_lists(const struct lb_answer *answer, const struct lb_sample *sample) {
    assert_int_equal(answer->first, sample->first);
    assert_int_equal(answer->tensors[0].dim[0], sample->n - sample->first);
    for (int64_t t = sample->first; t < sample->n; t++) {
        for (int64_t i = 0; i < K; i++) {
            int64_t at = (t - sample->first) * K + i;
            assert_int_equal(lb_answer_id(&answer->tensors[0], at), likely(ids, t, i));
            if (answer->what[1].kind == LB_OUT_TOPK_LOGPROBS) {
                assert_true(f32(answer, 1, at) == logprob_of(t, i));
            }
        }
    }
}

static int setup(void **state) {
    (void)state;
    detail = (struct lb_detail){0};
    lb_arena_init(&scratch, 1 << 20);
    lb_arena_init(&arena, 1 << 20);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    lb_arena_finish(&scratch);
    lb_arena_finish(&arena);
    return 0;
}

/* ---- sglang ---- */

static float chosen_at = -5;

/* What an SGLang answers: the tokens themselves are at -3, chosen ids at chosen_at - i; fixed: what is added
 * to the fixed question's. */
static void answer_sglang(const void *body, size_t len, float fixed, struct lb_buf *out) {
    struct lb_sglang_generate r;
    assert_int_equal(lb_sglang_generate_decode(body, len, &scratch, &r, &detail), LB_OK);
    struct lb_vllm_writer writer = {.buf = out, .detail = &detail};
    lb_buf_append_str(out, "[");
    for (size_t p = 0; p < r.prompts.n; p++) {
        const struct lb_vllm_prompt *prompt = &r.prompts.all[p];
        int64_t n = prompt->n;
        int32_t top[40 * K];
        float values[40 * K], own[40], chosen[40 * S];
        for (int64_t t = 0; t < n; t++) {
            own[t] = -3 + (p + 1 == r.prompts.n ? fixed : 0);
            for (int64_t i = 0; i < K; i++) {
                top[t * K + i] = likely(prompt->ids, t, i);
                values[t * K + i] = logprob_of(t, i);
                own[t] = t + 1 < n && top[t * K + i] == prompt->ids[t + 1] ? values[t * K + i] : own[t];
                chosen[t * S + i] = chosen_at - (float)i;
            }
        }
        int64_t start = r.scores[p].start;
        const struct lb_sglang_answer say = {
            .id = "",
            .version = "",
            .ids = prompt->ids,
            .n = n,
            .first = start,
            .prompt = {K, top + start * K, values + start * K, own + start, NULL},
            .scores = chosen + start * S,
            .n_scores = S,
            .next = {K, top, values, NULL, NULL},
            .next_scores = chosen,
            .n_next = 1,
            .next_ids = top,
            .next_logprobs = values,
            .n_generated = r.sampling.max_tokens,
            .text = ""};
        lb_buf_append_str(out, p ? "," : "");
        lb_sglang_put_answer(&writer, &r, &r.scores[p], &say);
    }
    lb_buf_append_str(out, "]");
    assert_int_equal(writer.status, LB_OK);
}

/* Asks about the samples and reads the answer; fixed as above. */
static enum lb_status by_sglang(const struct lb_ask_spec *of, const struct lb_sample *const *samples,
                                int64_t n, float fixed, struct lb_answer *answers, bool *other) {
    const struct lb_dialect *dialect = lb_dialect_get(LB_PROTOCOL_SGLANG);
    struct lb_teacher_info info = info_of(dialect, 3);
    struct lb_asked asked;
    struct lb_buf reply;
    struct lb_arena *const arenas[] = {&arena, &arena};
    assert_int_equal(dialect->gives(&info, of, "t", &detail), LB_OK);
    assert_int_equal(dialect->build(&info, of, samples, n, 0, &scratch, &asked, &detail), LB_OK);
    lb_buf_init(&reply, 1 << 20);
    answer_sglang(asked.body.data, asked.body.len, fixed, &reply);
    const struct lb_ask_reply back = {.body = reply.data, .len = reply.len, .json_bytes = -1, .digest = ""};
    enum lb_status status =
        dialect->split(&info, of, &asked, samples, &back, &scratch, arenas, answers, other, &detail);
    lb_buf_finish(&reply);
    lb_asked_finish(&asked);
    return status;
}

static void test_sglang(void **state) {
    (void)state;
    const struct lb_sample *const samples[] = {&whole, &later};
    struct lb_answer answers[2];
    bool other = true;
    if (by_sglang(&spec, samples, 2, 0, answers, &other) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    assert_false(other);
    check_lists(&answers[0], &whole);
    check_lists(&answers[1], &later);
    assert_true(fabs(f32(&answers[0], 2, 0) - log(1 - exp(-1.0) - exp(-2.0))) < 1e-6);
    /* chosen ids beside a list: 0 where there is none, and the last row has no token of its own */
    const struct lb_sample *const one[] = {&scored};
    if (by_sglang(&spec_scored, one, 1, 0, answers, &other) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    check_lists(&answers[0], &scored);
    for (int64_t t = scored.first; t < scored.n; t++) {
        float next = -5;
        for (int64_t i = 0; i < S; i++) {
            bool none = wanted[t * S + i] < 0;
            assert_true(f32(&answers[0], 1, (t - scored.first) * S + i) == (none ? 0 : next));
            next -= none ? 0 : 1;
        }
    }
    assert_true(f32(&answers[0], 2, scored.n - scored.first - 1) == 0);
    assert_true(f32(&answers[0], 2, 0) < 0);
    /* one that no probability has is none, also of a chosen id */
    chosen_at = 3;
    assert_int_equal(by_sglang(&spec_scored, one, 1, 0, answers, &other), LB_E_FORMAT);
    assert_non_null(strstr(detail.text, "3 is no log-probability"));
    chosen_at = -5;
    detail = (struct lb_detail){0};
    /* another model answers */
    assert_int_equal(by_sglang(&spec, samples, 2, 0.5f, answers, &other), LB_E_MISMATCH);
    assert_true(other && strstr(detail.text, "another model answers now"));
}

/* ---- llamacpp ---- */

static enum lb_status by_llamacpp(const struct lb_sample *sample, float fixed, struct lb_answer *out,
                                  bool *other) {
    const struct lb_dialect *dialect = lb_dialect_get(LB_PROTOCOL_LLAMACPP);
    struct lb_teacher_info info = info_of(dialect, 1);
    struct lb_asked asked;
    struct lb_buf reply;
    struct lb_arena *const arenas[] = {&arena};
    const struct lb_sample *const samples[] = {sample};
    assert_int_equal(dialect->gives(&info, &spec, "t", &detail), LB_OK);
    assert_int_equal(dialect->most(&info, &spec), 1);
    assert_int_equal(dialect->build(&info, &spec, samples, 1, 0, &scratch, &asked, &detail), LB_OK);
    json_t *root = NULL;
    assert_int_equal(lb_json_parse(asked.body.data, asked.body.len, 0, "question", &root, NULL), LB_OK);
    const json_t *texts = json_object_get(root, "prompt");
    int64_t k = json_integer_value(json_object_get(root, "n_probs"));
    assert_int_equal(json_array_size(texts), sample->n - sample->first + 1);
    assert_int_equal(k, 8); /* as many as the fixed question needs */
    lb_buf_init(&reply, 1 << 20);
    for (size_t i = 0; i < json_array_size(texts); i++) {
        const json_t *text = json_array_get(texts, i);
        size_t n = json_array_size(text);
        bool last = i + 1 == json_array_size(texts);
        assert_int_equal(n, last ? N_FIXED : sample->first + (int64_t)i + 1);
        lb_buf_printf(
            &reply,
            "%s{\"index\":%zu,\"tokens_evaluated\":%zu,\"completion_probabilities\":[{\"top_logprobs\":",
            i ? "," : "[", i, n);
        for (int64_t j = 0; j < k; j++) {
            int32_t end[] = {(int32_t)json_integer_value(json_array_get(text, n - 1))};
            int32_t id = (int32_t)((end[0] * 3 + (int64_t)n - 1 + j * 7) % V);
            lb_buf_printf(&reply, "%s{\"id\":%d,\"logprob\":%.9g}", j ? "," : "[", id,
                          (double)(logprob_of((int64_t)n - 1, j) + (last ? fixed : 0)));
        }
        lb_buf_append_str(&reply, "]}]}");
    }
    lb_buf_append_str(&reply, "]");
    json_decref(root);
    const struct lb_ask_reply back = {.body = reply.data, .len = reply.len, .json_bytes = -1, .digest = ""};
    enum lb_status status =
        dialect->split(&info, &spec, &asked, samples, &back, &scratch, arenas, out, other, &detail);
    lb_buf_finish(&reply);
    lb_asked_finish(&asked);
    return status;
}

static void test_llamacpp(void **state) {
    (void)state;
    struct lb_answer answer;
    bool other = true;
    if (by_llamacpp(&whole, 0, &answer, &other) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    assert_false(other);
    check_lists(&answer, &whole);
    assert_int_equal(by_llamacpp(&later, 0, &answer, &other), LB_OK);
    check_lists(&answer, &later);
    assert_int_equal(by_llamacpp(&whole, -0.5f, &answer, &other), LB_E_MISMATCH);
    assert_true(other);
    detail = (struct lb_detail){0};
    /* the tokens themselves it does not tell, nor ids that are chosen */
    const struct lb_dialect *dialect = lb_dialect_get(LB_PROTOCOL_LLAMACPP);
    struct lb_teacher_info info = info_of(dialect, 1);
    assert_int_equal(dialect->gives(&info, &spec_scored, "t", &detail), LB_E_ARG);
    assert_non_null(strstr(detail.text, "logprobs.at_ids"));
}

/* ---- who it is ---- */

static void test_same(void **state) {
    (void)state;
    static const struct {
        enum lb_protocol protocol;
        const char *list;
        enum lb_status status;
    } said[] = {
        {LB_PROTOCOL_SGLANG, "{\"data\":[{\"id\":\"m\",\"max_model_len\":32}]}", LB_OK},
        {LB_PROTOCOL_SGLANG, "{\"data\":[{\"id\":\"m\",\"max_model_len\":64}]}", LB_E_MISMATCH},
        {LB_PROTOCOL_SGLANG, "{\"data\":[{\"id\":\"o\",\"max_model_len\":32}]}", LB_E_MISMATCH},
        {LB_PROTOCOL_SGLANG, "{}", LB_E_FORMAT},
        {LB_PROTOCOL_LLAMACPP, "{\"data\":[{\"id\":\"/a/m\",\"meta\":{\"n_ctx\":31,\"n_vocab\":20}}]}",
         LB_OK},
        {LB_PROTOCOL_LLAMACPP, "{\"data\":[{\"id\":\"m\",\"meta\":{\"n_ctx\":31,\"n_vocab\":21}}]}",
         LB_E_MISMATCH},
        {LB_PROTOCOL_LLAMACPP, "{\"data\":[{\"id\":\"m\",\"meta\":{\"n_ctx\":32,\"n_vocab\":20}}]}",
         LB_E_MISMATCH},
        {LB_PROTOCOL_LLAMACPP, "{\"data\":[]}", LB_E_UNAVAILABLE},
    };
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        const struct lb_dialect *dialect = lb_dialect_get(said[i].protocol);
        struct lb_teacher_info info = info_of(dialect, 1);
        detail = (struct lb_detail){0};
        char id[LB_MAX_MODEL_ID] = "before";
        enum lb_status status =
            dialect->same(&info, said[i].list, strlen(said[i].list), "teacher t", id, &detail);
        if (status != said[i].status) {
            fail_msg("%s: %d: %s", said[i].list, status, detail.text);
        }
        if (status == LB_OK) { /* by which it is asked from now on */
            assert_string_equal(id, strstr(said[i].list, "/a/m") ? "/a/m" : "m");
        }
    }
    struct lb_teacher_info info;
    static const char other[] = "{\"protocol\":\"vllm\"}";
    assert_int_not_equal(
        lb_dialect_get(LB_PROTOCOL_SGLANG)->info_read(other, sizeof other - 1, "t", &info, NULL), LB_OK);
}

/* A model that its server calls by a path (vllm serve PATH) goes by the last part, and is asked by the whole.
 */
static void test_path_for_a_name(void **state) {
    (void)state;
    static const char list[] = "{\"data\":[{\"id\":\"/models/m\",\"max_model_len\":32}]}";
    static const char said[] = "{\"protocol\":\"%s\",\"model\":\"m\",\"model_id\":\"/models/m\",\"serves\":1,"
                               "\"max_length\":30,\"hidden_size\":0,\"vocab_size\":0,\"ids\":[1,2],"
                               "\"logprobs\":[-1.5],\"states\":[]}";
    static const struct lb_ask_spec own = {
        .n_outputs = 1, .outputs = {{LB_OUT_ACTUAL, 0, LB_DT_FP32}}, .temperature = 1};
    const struct lb_sample *samples = &whole;
    static const enum lb_protocol protocols[] = {LB_PROTOCOL_VLLM, LB_PROTOCOL_OPENAI};
    struct lb_v1_model card;
    assert_int_equal(lb_v1_model_find(list, strlen(list), "m", "t", &card, &detail), LB_OK);
    assert_string_equal(card.name, "m");
    assert_string_equal(card.id, "/models/m");
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++) {
        const struct lb_dialect *dialect = lb_dialect_get(protocols[i]);
        struct lb_teacher_info info;
        struct lb_asked asked;
        char text[512];
        snprintf(text, sizeof text, said, dialect->name);
        assert_int_equal(dialect->info_read(text, strlen(text), "t", &info, &detail), LB_OK);
        assert_string_equal(info.model, "m");
        assert_int_equal(dialect->build(&info, &own, &samples, 1, 0, &scratch, &asked, &detail), LB_OK);
        assert_non_null(strstr(asked.body.data, "\"model\":\"/models/m\""));
        lb_asked_finish(&asked);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sglang, setup, teardown),
        cmocka_unit_test_setup_teardown(test_llamacpp, setup, teardown),
        cmocka_unit_test_setup_teardown(test_same, setup, teardown),
        cmocka_unit_test_setup_teardown(test_path_for_a_name, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
