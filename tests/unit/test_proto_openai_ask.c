/* OpenAI's completions from both sides: what the trainer writes the daemon reads, what the daemon echoes the
 * trainer reads, with ids for names and with texts; and answers that are cut, of other prompts, or that
 * cannot be. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/openai_ask.h"
#include "tests/support/scene.h"

#include <string.h>

static const int32_t first[] = {3, 1, 2}, second[] = {7};
static struct lb_vllm_prompt all[] = {{.ids = first, .n = 3}, {.ids = second, .n = 1}};
static const struct lb_vllm_prompts prompts = {.key = "prompt", .n = 2, .all = all};

static enum lb_status text_of(void *context, int32_t id, struct lb_buf *out) {
    (void)context;
    return lb_buf_printf(out, "<%d>", id % 2);
}

/* What limbeckd echoes; named: as it was asked, else as a server that names texts. */
static void answer(struct scene *scene, bool named) {
    static const int32_t top[] = {1, 5, 4, 2, 9, 8, 0, 6};
    static const float values[] = {-0.5f, -1.25f, -1.0f / 3, -2, -0.125f, -3, -1, -1.5f},
                       actual[] = {-0.5f, -2, 0};
    struct lb_vllm_completion request;
    lb_openai_ask_scores(&scene->buf, "m", &prompts, 2);
    must(scene,
         lb_vllm_completion_decode(scene->buf.data, scene->buf.len, &scene->arena, &request, &scene->detail));
    assert_true(request.echo && request.tokens_as_ids && request.sampling.temperature == 1);
    assert_int_equal(request.sampling.logprobs, 2);
    assert_int_equal(request.sampling.max_tokens, 1);
    assert_int_equal(request.prompts.n, 2);
    assert_memory_equal(request.prompts.all[0].ids, first, sizeof first);
    request.tokens_as_ids = named;
    lb_buf_reset(&scene->buf);
    struct lb_vllm_writer writer = {.buf = &scene->buf, .detail = &scene->detail, .text = text_of};
    lb_vllm_put_completion(&writer, "x", 1, "m", "f");
    for (int64_t p = 0; p < 2; p++) {
        const int32_t generated = p ? 0 : 9;
        const float generated_logprob = p ? -1 : -0.125f;
        struct lb_vllm_choice choice = {.index = p,
                                        .ids = all[p].ids,
                                        .n = all[p].n,
                                        .text = "",
                                        .stop_id = -1,
                                        .n_generated = 1,
                                        .generated = &generated,
                                        .generated_logprobs = &generated_logprob};
        choice.prompt = (struct lb_vllm_rows){2, top, values, actual, NULL};
        choice.next = (struct lb_vllm_rows){2, top + 4 + 2 * p, values + 4 + 2 * p, NULL, NULL};
        lb_vllm_put_choice(&writer, &request, &choice);
    }
    lb_vllm_put_end(&writer, &(struct lb_vllm_usage){1, 2});
    must(scene, writer.status);
}

static enum lb_status read(struct scene *scene, bool lists, struct lb_vllm_scores out[2], bool *named) {
    scene->detail = (struct lb_detail){0};
    return lb_openai_scores_read(scene->buf.data, scene->buf.len, &prompts, lists, &scene->arena, out, named,
                                 &scene->detail);
}

static void test_lists(void **state) {
    struct scene *scene = *state;
    struct lb_vllm_scores out[2];
    bool named = false;
    answer(scene, true);
    must(scene, read(scene, true, out, &named));
    assert_true(named);
    assert_int_equal(out[0].n, 3);
    assert_int_equal(out[1].n, 1);
    assert_int_equal(out[0].places[0].n, 2);
    assert_memory_equal(out[0].places[0].ids, ((int32_t[]){1, 5}), 8);
    assert_memory_equal(out[0].places[1].logprobs, ((float[]){-1.0f / 3, -2}), 8); /* each bit */
    assert_memory_equal(out[0].places[2].ids, ((int32_t[]){9, 8}), 8);             /* of what is generated */
    assert_memory_equal(out[1].places[0].ids, ((int32_t[]){0, 6}), 8);
    must(scene, read(scene, false, out, &named));
    assert_int_equal(out[0].places[1].n, 1);
    assert_int_equal(out[0].places[1].ids[0], 2);
    assert_float_equal(out[0].places[1].logprobs[0], -2, 0);
    assert_int_equal(out[0].places[2].n, 0);
}

/* Names that tokens share are no ids: own log-probabilities, and no lists. */
static void test_texts(void **state) {
    struct scene *scene = *state;
    struct lb_vllm_scores out[2];
    bool named = true;
    answer(scene, false);
    must(scene, read(scene, false, out, &named));
    assert_false(named);
    assert_float_equal(out[0].places[0].logprobs[0], -0.5f, 0);
    assert_int_equal(read(scene, true, out, &named), LB_E_UNSUPPORTED);
    assert_non_null(strstr(scene->detail.text, "names tokens by texts"));
}

static void test_cut(void **state) {
    struct scene *scene = *state;
    struct lb_vllm_scores out[2];
    answer(scene, true);
    size_t whole = scene->buf.len;
    while (whole > 0 && scene->buf.data[whole - 1] != '}') {
        whole--;
    }
    for (size_t len = 0; len < whole; len++) {
        scene->buf.len = len;
        assert_int_not_equal(read(scene, true, out, NULL), LB_OK);
        assert_null(strchr(scene->detail.text, '\n'));
    }
}

static void test_refused(void **state) {
    struct scene *scene = *state;
    static const struct {
        const char *from, *to, *word;
    } cases[] = {
        {"\"choices\":[", "\"choices\":[{},", "3 choices"},
        {"\"index\":1", "\"index\":0", "index 0"},
        {"\"tokens\":[", "\"tokens\":[\"token_id:3\",", "the prompt 3 and one is generated"},
        {"\"token_logprobs\":[null,", "\"token_logprobs\":[-1,", "not null"},
        {"\"token_logprobs\":", "\"token_logprops\":", "no logprobs of the prompt"},
        {"\"tokens\":[\"token_id:3\",\"token_id:1\"", "\"tokens\":[\"token_id:3\",\"token_id:4\"",
         "to other prompts"},
        {"\"top_logprobs\":[null,{", "\"top_logprobs\":[null,null,{",
         "top_logprobs[1] of choice 0 is no object"},
        {"{\"token_id:1\":", "{\"token_id:x\":", "\"token_id:x\" is no token_id:N"},
        {"{\"token_id:1\":-0.5", "{\"token_id:1\":\"a\"", "no token_id:N with a number"},
    };
    answer(scene, true);
    struct lb_buf good = scene->buf;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct lb_vllm_scores out[2];
        scene_replaced(&good, cases[c].from, cases[c].to, &scene->buf);
        enum lb_status status = read(scene, true, out, NULL);
        if (status != LB_E_FORMAT || !strstr(scene->detail.text, cases[c].word)) {
            fail_msg("case %zu: %s: %s", c, lb_status_name(status), scene->detail.text);
        }
        lb_buf_finish(&scene->buf);
    }
    scene->buf = good;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lists, scene_setup, scene_teardown),
        cmocka_unit_test_setup_teardown(test_texts, scene_setup, scene_teardown),
        cmocka_unit_test_setup_teardown(test_cut, scene_setup, scene_teardown),
        cmocka_unit_test_setup_teardown(test_refused, scene_setup, scene_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
