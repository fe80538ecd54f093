/* Questions to llama.cpp's server byte for byte, and answers as that writes them; and others. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/llamacpp_ask.h"

#include <string.h>

static const int32_t first[] = {3, 1, 2}, second[] = {7, 8};
static const struct lb_llamacpp_texts texts[] = {{first, 1, 3}, {second, 0, 2}};
static struct lb_arena arena;
static struct lb_buf buf;
static struct lb_detail detail;

static int setup(void **state) {
    (void)state;
    detail = (struct lb_detail){0};
    lb_arena_init(&arena, 1 << 20);
    lb_buf_init(&buf, 1 << 20);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    lb_arena_finish(&arena);
    lb_buf_finish(&buf);
    return 0;
}

#define TOP(id, logprob)                                                                                     \
    "{\"id\":" #id ",\"token\":\"\\u0000\",\"bytes\":[0],\"logprob\":" #logprob                              \
    ",\"top_logprobs\":[{\"id\":" #id ",\"token\":\" \",\"bytes\":[32],\"logprob\":" #logprob "},"
#define ENTRY(index, n, id, logprob, second_id, second_logprob)                                              \
    "{\"index\":" #index ",\"tokens_evaluated\":" #n ",\"completion_probabilities\":[" TOP(                  \
        id, logprob) "{\"id\":" #second_id ",\"token\":\"x\",\"bytes\":[120],\"logprob\":" #second_logprob   \
                     "}]}]}"

/* The question, and the answer to it in another order. */
static void test_exchange(void **state) {
    (void)state;
    lb_llamacpp_ask(&buf, texts, 2, 2, 5);
    assert_string_equal(
        buf.data, "{\"prompt\":[[3,1],[3,1,2],[7],[7,8]],\"n_predict\":1,\"temperature\":0,\"n_probs\":2,"
                  "\"post_sampling_probs\":false,\"logit_bias\":[[5,1000]],\"cache_prompt\":true,"
                  "\"id_slot\":0,\"response_fields\":[\"index\",\"tokens_evaluated\","
                  "\"completion_probabilities\"]}");
    static const char body[] =
        "[" ENTRY(3, 2, 30, -0.5, 31, -1.5) "," ENTRY(0, 2, 0, -0.125, 1, -2) "," ENTRY(
            2, 1, 20, -0.25, 21, -3.4028234663852886e+38) "," ENTRY(1, 3, 10, -1, 11, -1.25) "]";
    struct lb_llamacpp_told told[2];
    if (lb_llamacpp_read(body, sizeof body - 1, texts, 2, 2, &arena, told, &detail) != LB_OK) {
        fail_msg("%s", detail.text);
    }
    assert_int_equal(told[0].rows, 2);
    assert_int_equal(told[1].rows, 2);
    assert_memory_equal(told[0].ids, ((int32_t[]){0, 1, 10, 11}), 16);
    assert_memory_equal(told[0].logprobs, ((float[]){-0.125f, -2, -1, -1.25f}), 16);
    assert_memory_equal(told[1].ids, ((int32_t[]){20, 21, 30, 31}), 16);
    assert_memory_equal(told[1].logprobs, ((float[]){-0.25f, LB_LLAMACPP_LEAST, -0.5f, -1.5f}), 16);
    for (size_t len = 0; len + 1 < sizeof body - 1; len++) {
        assert_int_equal(lb_llamacpp_read(body, len, texts, 2, 2, &arena, told, &detail), LB_E_FORMAT);
    }
    /* one text is answered without a list */
    static const char one[] = ENTRY(0, 1, 20, -0.25, 21, -3);
    const struct lb_llamacpp_texts single = {second, 0, 1};
    assert_int_equal(lb_llamacpp_read(one, sizeof one - 1, &single, 1, 2, &arena, told, NULL), LB_OK);
    assert_int_equal(told[0].ids[1], 21);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *body, *part;
    } bad[] = {
        {"", "JSON"},
        {"[]", "has 0 entries, 2 texts"},
        {"7", "has 0 entries, 2 texts"},
        {"[{},{}]", "index"},
        {"[{\"index\":0},{}]", "tokens_evaluated"},
        {"[" ENTRY(0, 2, 0, -1, 1, -2) "," ENTRY(0, 2, 0, -1, 1, -2) "]", "there twice"},
        {"[" ENTRY(0, 2, 0, -1, 1, -2) "," ENTRY(2, 2, 0, -1, 1, -2) "]", "index 2 is none"},
        {"[" ENTRY(0, 3, 0, -1, 1, -2) "," ENTRY(1, 3, 0, -1, 1, -2) "]",
         "a text of 3 tokens, asked was one of 2"},
        {"[" ENTRY(0, 2, 0, -1, -1, -2) "," ENTRY(1, 3, 0, -1, 1, -2) "]", "[1] has no id"},
        {"[" ENTRY(0, 2, 0, -1, 1, null) "," ENTRY(1, 3, 0, -1, 1, -2) "]", "[1] has no id or no logprob"},
        {"[" ENTRY(0, 2, 0, -2, 1, -1) "," ENTRY(1, 3, 0, -1, 1, -2) "]",
         "[1] is likelier than the one before"},
        {"[{\"index\":0,\"tokens_evaluated\":2},{}]", "lists 0 of the likeliest, asked was 2"},
    };
    const struct lb_llamacpp_texts text = {first, 1, 3};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct lb_llamacpp_told told[1];
        detail = (struct lb_detail){0};
        enum lb_status status =
            lb_llamacpp_read(bad[i].body, strlen(bad[i].body), &text, 1, 2, &arena, told, &detail);
        if (status == LB_OK || !strstr(detail.text, bad[i].part) || status != detail.code) {
            fail_msg("%s: %d: %s", bad[i].body, status, detail.text);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_exchange, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
