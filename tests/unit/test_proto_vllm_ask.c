/* vLLM's dialect from both sides: what the trainer writes the daemon reads, and the other way round; and
 * answers that are cut, of other prompts, or of what no server would send. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/vllm_ask.h"
#include "tests/support/scene.h"

#include <math.h>
#include <string.h>

static const int32_t first[] = {3, 1, 2}, second[] = {7, 7};
static struct lb_vllm_prompt all[] = {{.ids = first, .n = 3}, {.ids = second, .n = 2}};
static const struct lb_vllm_prompts prompts = {.key = "prompt", .n = 2, .all = all};

/* ---- both sides ---- */

static const int32_t top[] = {1, 5, 4, 2, 9, 8};
static const float values[] = {-0.5f, -1.25f, -1.0f / 3, -2, -0.125f, -3}, actual[] = {-0.5f, -2, -7.0625f};

/* What limbeckd answers: the first prompt's rows, then the second's. */
static void answer(struct scene *scene) {
    struct lb_vllm_completion request;
    lb_vllm_ask_scores(&scene->buf, "m\"1", &prompts, 2);
    must(scene,
         lb_vllm_completion_decode(scene->buf.data, scene->buf.len, &scene->arena, &request, &scene->detail));
    assert_string_equal(request.model, "m\"1");
    assert_int_equal(request.prompts.n, 2);
    assert_int_equal(request.prompts.all[0].n, 3);
    assert_memory_equal(request.prompts.all[0].ids, first, sizeof first);
    assert_memory_equal(request.prompts.all[1].ids, second, sizeof second);
    assert_int_equal(request.sampling.prompt_logprobs, 2);
    assert_int_equal(request.sampling.max_tokens, 1);
    assert_true(request.sampling.temperature == 1 && request.return_token_ids);
    lb_buf_reset(&scene->buf);
    struct lb_vllm_writer writer = {.buf = &scene->buf, .detail = &scene->detail};
    static const int32_t ranks[] = {1, 2, 9};
    lb_vllm_put_completion(&writer, "x", 1, "m", "f");
    for (int64_t p = 0; p < 2; p++) {
        int64_t at = p * 2;
        struct lb_vllm_choice choice = {.index = p,
                                        .ids = all[p].ids,
                                        .n = all[p].n,
                                        .text = "",
                                        .stop_id = -1,
                                        .n_generated = 1,
                                        .generated = (const int32_t[]){4},
                                        .generated_logprobs = (const float[]){0}};
        choice.prompt = (struct lb_vllm_rows){2, top + at * 2, values + at * 2, actual + at, ranks + at};
        choice.next = choice.prompt;
        lb_vllm_put_choice(&writer, &request, &choice);
    }
    lb_vllm_put_end(&writer, &(struct lb_vllm_usage){1, 2});
    must(scene, writer.status);
}

static enum lb_status read(struct scene *scene, struct lb_vllm_scores out[2]) {
    scene->detail = (struct lb_detail){0};
    return lb_vllm_scores_read(scene->buf.data, scene->buf.len, &prompts, &scene->arena, out, NULL,
                               &scene->detail);
}

static void test_scores(void **state) {
    struct scene *scene = *state;
    struct lb_vllm_scores out[2];
    answer(scene);
    must(scene, read(scene, out));
    assert_int_equal(out[0].n, 2);
    assert_int_equal(out[1].n, 1);
    assert_int_equal(out[0].places[0].n, 2); /* token 1 is among the likeliest */
    assert_int_equal(out[0].places[1].n, 2);
    assert_int_equal(out[1].places[0].n, 3); /* token 7 is not */
    assert_memory_equal(out[0].places[0].ids, top, 8);
    assert_memory_equal(out[0].places[0].logprobs, values, 8); /* each bit */
    assert_memory_equal(out[0].places[1].logprobs, values + 2, 8);
    assert_memory_equal(out[1].places[0].ids, ((int32_t[]){9, 8, 7}), 12);
    assert_memory_equal(out[1].places[0].logprobs, ((float[]){-0.125f, -3, -7.0625f}), 12);
}

/* No prefix of an answer is one. */
static void test_cut(void **state) {
    struct scene *scene = *state;
    struct lb_vllm_scores out[2];
    answer(scene);
    size_t whole = scene->buf.len;
    while (scene->buf.len > 0 && scene->buf.data[scene->buf.len - 1] != '}') {
        whole = --scene->buf.len;
    }
    for (size_t len = 0; len < whole; len++) {
        scene->buf.len = len;
        if (read(scene, out) == LB_OK || strchr(scene->detail.text, '\n')) {
            fail_msg("%zu bytes: %s", len, scene->detail.text);
        }
    }
}

static void test_refused(void **state) {
    struct scene *scene = *state;
    static const struct {
        const char *from, *to, *word;
    } cases[] = {
        {"\"choices\":[", "\"choices\":[null,", "3 choices, 2 prompts"},
        {"\"index\":1", "\"index\":0", "two choices have index 0"},
        {"\"index\":1", "\"index\":2", "index"},
        {"\"prompt_logprobs\":[null,", "\"prompt_logprobs\":[null,null,", "has 4 entries, the prompt 3"},
        {"\"prompt_logprobs\":[null,", "\"prompt_logprobs\":[{},",
         "prompt_logprobs[0] of choice 0 is not null"},
        {"\"prompt_logprobs\":", "\"prompt_logprops\":", "no prompt_logprobs"},
        {"\"logprob\":-0.5,", "\"logprob\":\"-0.5\",", "prompt_logprobs[1] of choice 0: id 1 has no logprob"},
        {"\"logprob\":-0.5,", "\"logprob\":null,", "no logprob that is a number"},
        {"\"logprob\":-0.5,", "\"logprob\":NaN,", ""},
        {"{\"1\":", "{\"one\":", "\"one\", which is no token id"},
        {"{\"1\":", "{\"-1\":", "no token id"},
        {"{\"1\":", "{\"99999999999\":", "no token id"},
        {"\"prompt_token_ids\":[3,", "\"prompt_token_ids\":[4,", "to other prompts"},
    };
    answer(scene);
    struct lb_buf good = scene->buf;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct lb_vllm_scores out[2];
        scene_replaced(&good, cases[c].from, cases[c].to, &scene->buf);
        enum lb_status status = read(scene, out);
        if (status != LB_E_FORMAT || !strstr(scene->detail.text, cases[c].word)) {
            fail_msg("case %zu: %s: %s", c, lb_status_name(status), scene->detail.text);
        }
        lb_buf_finish(&scene->buf);
    }
    scene->buf = good;
}

/* Choices in any order: what they are about is their index. */
static void test_order(void **state) {
    struct scene *scene = *state;
    struct lb_vllm_scores out[2];
    static const char body[] =
        "{\"choices\":[{\"index\":1,\"prompt_logprobs\":[null,{\"7\":{\"logprob\":-4}}]},"
        "{\"index\":0,\"prompt_logprobs\":[null,{\"1\":{\"logprob\":-1}},{\"2\":{\"logprob\":-9999,\"decoded_"
        "token\":\"\\u0000\"}}]}]}";
    lb_buf_append_str(&scene->buf, body);
    must(scene, read(scene, out));
    assert_float_equal(out[0].places[1].logprobs[0], -9999, 0);
    assert_float_equal(out[1].places[0].logprobs[0], -4, 0);
}

static void test_gather(void **state) {
    struct scene *scene = *state;
    static const int32_t ids[] = {4, 9, -1, 0};
    static const float told[] = {-1.5f, -2, -3, -0.25f};
    struct lb_vllm_generate request;
    float out[4];
    lb_vllm_ask_gather(&scene->buf, "m", &all[0], ids, 2);
    must(scene,
         lb_vllm_generate_decode(scene->buf.data, scene->buf.len, &scene->arena, &request, &scene->detail));
    assert_int_equal(request.start, 0);
    assert_int_equal(request.n_rows, 2);
    assert_int_equal(request.k, 2);
    assert_memory_equal(request.gather, ids, sizeof ids);
    assert_memory_equal(request.prompts.all[0].ids, first, sizeof first);
    lb_buf_reset(&scene->buf);
    struct lb_vllm_writer writer = {.buf = &scene->buf, .detail = &scene->detail};
    lb_vllm_put_generate(&writer, "x", 1, "m", &request, &(struct lb_vllm_choice){.ids = first, .n = 3},
                         told);
    must(scene, lb_vllm_gather_read(scene->buf.data, scene->buf.len, 2, 2, out, &scene->detail));
    assert_float_equal(out[0], -1.5f, 0);
    assert_float_equal(out[1], -2, 0);
    assert_true(isinf(out[2]));
    assert_float_equal(out[3], -0.25f, 0);
    assert_int_equal(lb_vllm_gather_read(scene->buf.data, scene->buf.len, 4, 1, out, &scene->detail),
                     LB_E_FORMAT);
    assert_non_null(strstr(scene->detail.text, "shape (4, 1)"));
    static const struct {
        const char *body, *word;
    } cases[] = {{"{}", "no prompt_token_id_logprobs"},
                 {"{\"prompt_token_id_logprobs\":\"a\"}", "base64"},
                 {"{\"prompt_token_id_logprobs\":\"\"}", ".npy"},
                 {"{\"prompt_token_id_logprobs\":\"k05VTVBZAQD//w==\"}", ".npy"},
                 {"[]", ""}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        scene->detail = (struct lb_detail){0};
        assert_int_equal(lb_vllm_gather_read(cases[c].body, strlen(cases[c].body), 2, 2, out, &scene->detail),
                         LB_E_FORMAT);
        if (!strstr(scene->detail.text, cases[c].word)) {
            fail_msg("case %zu: %s", c, scene->detail.text);
        }
    }
}

static void test_states(void **state) {
    struct scene *scene = *state;
    static const char body[5 * 3 * 2] = {1};
    static const int64_t n_rows[] = {3, 2};
    struct lb_vllm_pooling request;
    const void *rows[2];
    int64_t width = 0;
    lb_vllm_ask_states(&scene->buf, "m", &prompts, LB_DT_FP16);
    must(scene, lb_vllm_pooling_decode(scene->buf.data, scene->buf.len, true, &scene->arena, &request,
                                       &scene->detail));
    assert_int_equal(request.format, LB_VLLM_BYTES);
    assert_int_equal(request.dtype, LB_DT_FP16);
    assert_int_equal(request.prompts.n, 2);
    lb_buf_reset(&scene->buf);
    struct lb_vllm_writer writer = {.buf = &scene->buf, .detail = &scene->detail};
    lb_vllm_put_metadata(&writer, &request, n_rows, 2, 3);
    must(scene, lb_vllm_states_read(body, sizeof body, scene->buf.data, &prompts, LB_DT_FP16, 0, rows, &width,
                                    &scene->detail));
    assert_int_equal(width, 3);
    assert_ptr_equal(rows[0], body);
    assert_ptr_equal(rows[1], body + 3 * 3 * 2);
    static const struct {
        const char *from, *to, *word;
    } cases[] = {
        {"\"index\":0", "\"index\":1", "is input 1"},
        {"[3,3]", "[2,3]", "shape [2, 3]; asked was input 0 of 3 tokens"},
        {"[3,3]", "[3,4]", "not 3 times 4"},
        {"[3,3]", "[3]", "one vector a text"},
        {"[3,3]", "[3,0]", "shape [3, 0]"},
        {"\"start\":18", "\"start\":12", "bytes 12 to 30"},
        {"\"start\":0,\"end\":18", "\"start\":2,\"end\":20", "begins at byte 2"},
        {"float16", "float32", "float32"},
        {"little", "big", "big"},
        {"},{", "},{},{", "states of 3 inputs"},
        {"\"data\"", "\"date\"", "states of 0 inputs"},
        {"{", "", ""},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct lb_buf bad;
        scene_replaced(&scene->buf, cases[c].from, cases[c].to, &bad);
        scene->detail = (struct lb_detail){0};
        enum lb_status status = lb_vllm_states_read(body, sizeof body, bad.data, &prompts, LB_DT_FP16, 0,
                                                    rows, &width, &scene->detail);
        if (status != LB_E_FORMAT || !strstr(scene->detail.text, cases[c].word)) {
            fail_msg("case %zu: %s: %s", c, lb_status_name(status), scene->detail.text);
        }
        lb_buf_finish(&bad);
    }
    assert_int_equal(lb_vllm_states_read(body, sizeof body - 1, scene->buf.data, &prompts, LB_DT_FP16, 0,
                                         rows, &width, NULL),
                     LB_E_FORMAT);
    assert_int_equal(
        lb_vllm_states_read(body, sizeof body, scene->buf.data, &prompts, LB_DT_FP16, 4, rows, &width, NULL),
        LB_E_FORMAT);
    assert_int_equal(
        lb_vllm_states_read(body, sizeof body, NULL, &prompts, LB_DT_FP16, 0, rows, &width, NULL),
        LB_E_FORMAT);
}

/* How many ids are listed at most, in the words of vLLM 0.32 and in ours. */
static void test_most(void **state) {
    struct scene *scene = *state;
    static const char theirs[] =
        "{\"error\":{\"message\":\"Requested prompt logprobs of 1000000000, which is greater than max "
        "allowed: 200 "
        "(parameter=prompt_logprobs, value=1000000000)\",\"type\":\"BadRequestError\",\"param\":"
        "\"prompt_logprobs\",\"code\":400}}";
    static const char other[] = "{\"error\":{\"message\":\"no\"}}";
    struct lb_vllm_completion request;
    assert_int_equal(lb_vllm_most_read(theirs, strlen(theirs)), 200);
    assert_int_equal(lb_vllm_most_read(other, strlen(other)), 0);
    assert_int_equal(lb_vllm_most_read("no", 2), 0);
    lb_vllm_ask_scores(&scene->buf, "m", &prompts, 1000000000);
    assert_int_equal(
        lb_vllm_completion_decode(scene->buf.data, scene->buf.len, &scene->arena, &request, &scene->detail),
        LB_E_ARG);
    char ours[1024];
    snprintf(ours, sizeof ours, "{\"error\":{\"message\":\"%s\"}}", scene->detail.text);
    assert_int_equal(lb_vllm_most_read(ours, strlen(ours)), LB_MAX_TOP_K);
}

/* An answer tells how its server computes. */
static void test_system(void **state) {
    struct scene *scene = *state;
    struct lb_vllm_scores out[2];
    const char *system = NULL;
    answer(scene);
    must(scene, lb_vllm_scores_read(scene->buf.data, scene->buf.len, &prompts, &scene->arena, out, &system,
                                    &scene->detail));
    assert_string_equal(system, "f");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_scores, scene_setup, scene_teardown),
        cmocka_unit_test_setup_teardown(test_cut, scene_setup, scene_teardown),
        cmocka_unit_test_setup_teardown(test_refused, scene_setup, scene_teardown),
        cmocka_unit_test_setup_teardown(test_most, scene_setup, scene_teardown),
        cmocka_unit_test_setup_teardown(test_system, scene_setup, scene_teardown),
        cmocka_unit_test_setup_teardown(test_order, scene_setup, scene_teardown),
        cmocka_unit_test_setup_teardown(test_gather, scene_setup, scene_teardown),
        cmocka_unit_test_setup_teardown(test_states, scene_setup, scene_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
