/* Events of texts that are told while they are written, byte for byte, in vLLM's and SGLang's dialects. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/sglang.h"

#include <string.h>

static struct lb_arena arena;
static struct lb_buf buf;
static struct lb_detail detail;

static const int32_t generated[] = {3, 5}, top_ids[] = {3, 4, 5, 6};
static const float own[] = {-0.125f, -0.5f}, top[] = {-0.125f, -2.5f, -0.5f, -1.5f};

/* Three bytes, of two characters. */
static enum lb_status text_of(void *context, int32_t id, struct lb_buf *out) {
    (void)context;
    return lb_buf_append_str(out, id == 3 ? "a\xc3\xa9" : "b\n");
}

static struct lb_vllm_writer writer(void) {
    lb_buf_reset(&buf);
    return (struct lb_vllm_writer){.buf = &buf, .text = text_of, .detail = &detail};
}

#define HEAD                                                                                                 \
    "data: {\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1700000000,\"model\":\"m\","        \
    "\"system_fingerprint\":\"f00d\",\"choices\":["

/* The first event, the last of a choice, the one about usage, and the end. */
static void test_completion(void **state) {
    (void)state;
    static const char body[] = "{\"prompt\":[7,8],\"stream\":true,\"stream_options\":{\"include_usage\":true,"
                               "\"continuous_usage_stats\":true},\"logprobs\":2,\"return_token_ids\":true}";
    struct lb_vllm_completion r;
    assert_int_equal(lb_vllm_completion_decode(body, sizeof body - 1, &arena, &r, &detail), LB_OK);
    assert_true(r.stream && r.usage && r.each_usage);
    const struct lb_vllm_from from = {"cmpl-1", "m", "f00d", 1700000000};
    const struct lb_vllm_usage usage = {2, 1}, all = {2, 2};
    size_t offset = 0;
    struct lb_vllm_writer w = writer();
    struct lb_vllm_choice c = {.index = 1,
                               .ids = (const int32_t[]){7, 8},
                               .n = 2,
                               .n_generated = 1,
                               .generated = generated,
                               .generated_logprobs = own,
                               .next = {2, top_ids, top, NULL, NULL},
                               .text = "a",
                               .text_len = 1,
                               .goes_on = true,
                               .stop_id = -1};
    lb_vllm_put_event(&w, &from, &r, &c, &offset, &usage);
    assert_int_equal(w.status, LB_OK);
    assert_string_equal(
        buf.data,
        HEAD "{\"index\":1,\"text\":\"a\",\"logprobs\":{\"tokens\":[\"a\xc3\xa9\"],\"text_offset\":[0],"
             "\"token_logprobs\":[-0.125],\"top_logprobs\":[{\"a\xc3\xa9\":-0.125,\"b\\u000a\":-2.5}]},"
             "\"finish_reason\":null,\"stop_reason\":null,\"prompt_token_ids\":[7,8],\"token_ids\":[3]}],"
             "\"usage\":{\"prompt_tokens\":2,\"total_tokens\":3,\"completion_tokens\":1}}\n\n");
    w = writer();
    c.generated++;
    c.generated_logprobs++;
    c.next.top_ids += 2;
    c.next.top_logprobs += 2;
    c.text = "";
    c.text_len = 0;
    c.later = true;
    c.goes_on = false;
    c.stopped = true;
    c.stop_text = "b";
    lb_vllm_put_event(&w, &from, &r, &c, &offset, NULL);
    assert_string_equal(
        buf.data,
        HEAD "{\"index\":1,\"text\":\"\",\"logprobs\":{\"tokens\":[\"b\\u000a\"],\"text_offset\":[2],"
             "\"token_logprobs\":[-0.5],\"top_logprobs\":[{\"b\\u000a\":-0.5}]},"
             "\"finish_reason\":\"stop\",\"stop_reason\":\"b\",\"token_ids\":[5]}]}\n\n");
    assert_int_equal(offset, 4);
    w = writer();
    lb_vllm_put_event_usage(&w, &from, &all);
    lb_vllm_put_done(&w);
    assert_string_equal(buf.data, HEAD
                        "],\"usage\":{\"prompt_tokens\":2,\"total_tokens\":4,\"completion_tokens\":2}}\n\n"
                        "data: [DONE]\n\n");
}

/* An echo stands in the first event only. */
static void test_echo(void **state) {
    (void)state;
    static const char body[] = "{\"prompt\":[7,8],\"stream\":true,\"echo\":true,\"logprobs\":0}";
    struct lb_vllm_completion r;
    assert_int_equal(lb_vllm_completion_decode(body, sizeof body - 1, &arena, &r, &detail), LB_OK);
    assert_true(r.stream && !r.usage && !r.each_usage);
    const struct lb_vllm_from from = {"cmpl-1", "m", "f00d", 1700000000};
    struct lb_vllm_choice c = {.ids = (const int32_t[]){3, 5},
                               .n = 2,
                               .prompt = {2, top_ids, top, own, NULL},
                               .n_generated = 1,
                               .generated = generated,
                               .generated_logprobs = own,
                               .next = {2, top_ids, top, NULL, NULL},
                               .text = "x",
                               .text_len = 1,
                               .goes_on = true,
                               .stop_id = -1};
    for (int later = 0; later < 2; later++) {
        size_t offset = 0;
        struct lb_vllm_writer w = writer();
        c.later = later;
        lb_vllm_put_event(&w, &from, &r, &c, &offset, NULL);
        assert_int_equal(offset, later ? 2 : 6);
        assert_int_equal(strstr(buf.data,
                                "\"tokens\":[\"a\xc3\xa9\",\"b\\u000a\",\"a\xc3\xa9\"],"
                                "\"text_offset\":[0,2,4],\"token_logprobs\":[null,-0.125,-0.125]") != NULL,
                         !later);
    }
}

/* SGLang's: all that there is so far, an end only at the end, which of several where there are. */
static void test_generate(void **state) {
    (void)state;
    static const char body[] = "{\"input_ids\":[[7,8],[9]],\"stream\":true}";
    struct lb_sglang_generate r;
    assert_int_equal(lb_sglang_generate_decode(body, sizeof body - 1, &arena, &r, &detail), LB_OK);
    assert_true(r.stream && r.batch);
    struct lb_sglang_answer a = {.id = "r_1",
                                 .version = "f00d",
                                 .seconds = 0.5,
                                 .ids = (const int32_t[]){7, 8},
                                 .n = 2,
                                 .first = 2,
                                 .n_next = 2,
                                 .next_ids = generated,
                                 .next_logprobs = own,
                                 .n_generated = 2,
                                 .goes_on = true,
                                 .numbered = true,
                                 .index = 1,
                                 .text = "ab",
                                 .text_len = 2};
    struct lb_vllm_writer w = writer();
    lb_sglang_put_answer(&w, &r, &r.scores[0], &a);
    assert_string_equal(
        buf.data, "{\"text\":\"ab\",\"output_ids\":[3,5],\"meta_info\":{\"id\":\"r_1\",\"finish_reason\":"
                  "null,\"prompt_tokens\":2,\"weight_version\":\"f00d\",\"num_retractions\":0,"
                  "\"reasoning_tokens\":0,\"completion_tokens\":2,\"cached_tokens\":0,\"dp_rank\":null},"
                  "\"index\":1}");
    w = writer();
    a.goes_on = a.numbered = false;
    lb_sglang_put_answer(&w, &r, &r.scores[0], &a);
    assert_non_null(strstr(buf.data, "\"finish_reason\":{\"type\":\"length\",\"length\":128}"));
    assert_non_null(strstr(buf.data, "\"e2e_latency\":0.5}}"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_completion),
        cmocka_unit_test(test_echo),
        cmocka_unit_test(test_generate),
    };
    lb_arena_init(&arena, 1 << 20);
    lb_buf_init(&buf, 1 << 20);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lb_buf_finish(&buf);
    lb_arena_finish(&arena);
    return failed;
}
