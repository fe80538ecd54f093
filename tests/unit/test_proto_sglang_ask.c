/* SGLang's dialect from both sides: what the trainer writes the daemon reads, and the other way round; and
 * answers that are cut, of other prompts, or of what no server would send. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/sglang_ask.h"

#include <math.h>
#include <string.h>

static const int32_t first[] = {3, 1, 2}, second[] = {7, 8};
static const int32_t chosen_first[] = {5, -1, 6, 4}, chosen_second[] = {-1, -1};
static struct lb_sglang_text texts[] = {{first, 3, 0, chosen_first}, {second, 2, 0, chosen_second}};

static struct lb_sglang_question asking(int64_t k, bool chosen) {
    return (struct lb_sglang_question){.texts = texts, .n_texts = 2, .k = k, .n_chosen = chosen ? 2 : 0};
}

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

/* ---- both sides ---- */

static const int32_t top[] = {1, 5, 4, 2, 8, 9};
static const float values[] = {-0.5f, -1.25f, -1.0f / 3, -2, -0.125f, -INFINITY}, actual[] = {-0.5f, -2, -7};
static const float scores[] = {-3, 0, -4, -5, 0, 0};

/* What limbeckd answers to the question. nested: without the keys for arrays. */
static void answer(const struct lb_sglang_question *question, bool nested) {
    struct lb_sglang_generate r;
    bool of = question->n_chosen > 0;
    lb_buf_reset(&buf);
    lb_sglang_ask(&buf, question);
    assert_int_equal(lb_sglang_generate_decode(buf.data, buf.len, &arena, &r, &detail), LB_OK);
    assert_true(r.batch && r.prompts.n == 2 && r.sampling.max_tokens == !of && r.sampling.temperature == 0);
    assert_memory_equal(r.prompts.all[0].ids, first, sizeof first);
    assert_true(r.scores[1].asked && r.scores[1].start == 0 && r.scores[1].top_k == question->k);
    assert_int_equal(r.scores[0].start, of ? 0 : texts[0].first);
    assert_int_equal(r.scores[0].n_positions, of ? 3 : 0);
    r.flat = r.flat && !nested;
    lb_buf_reset(&buf);
    struct lb_vllm_writer writer = {.buf = &buf, .detail = &detail};
    lb_buf_append_str(&buf, "[");
    for (int64_t i = 0; i < 2; i++) {
        /* rows of the first text are 0 and 1, and of the second 2 */
        int64_t start = r.scores[i].start, row = i ? 2 : start;
        const struct lb_sglang_answer say = {
            .id = "x",
            .version = "w1",
            .ids = i ? second : first,
            .n = i ? 2 : 3,
            .first = start,
            .prompt = {2, top + 2 * row, values + 2 * row, actual + row, NULL},
            .scores = scores + 2 * row,
            .n_scores = 2,
            .next = {2, top, values, NULL, NULL},
            .next_scores = scores,
            .n_next = 1,
            .next_ids = first,
            .next_logprobs = actual,
            .n_generated = 1,
            .text = ""};
        lb_buf_append_str(&buf, i ? "," : "");
        lb_sglang_put_answer(&writer, &r, &r.scores[i], &say);
    }
    lb_buf_append_str(&buf, "]");
    assert_int_equal(writer.status, LB_OK);
}

/* With lists in either form, with chosen ids, and from a later row of the first text on. */
static void test_both_sides(void **state) {
    (void)state;
    for (int i = 0; i < 12; i++) {
        struct lb_sglang_question q = asking(i % 3 < 2 ? 2 : 0, i / 3 % 2);
        int64_t skip = i / 6;
        struct lb_sglang_told told[2];
        texts[0].first = skip;
        answer(&q, i % 3 == 1);
        if (lb_sglang_read(buf.data, buf.len, &q, &arena, told, &detail) != LB_OK) {
            fail_msg("%s", detail.text);
        }
        assert_int_equal(told[0].rows, 2 - skip);
        assert_int_equal(told[1].rows, 1);
        assert_memory_equal(told[0].own, actual + skip, (size_t)(2 - skip) * sizeof *actual);
        assert_memory_equal(told[1].own, actual + 2, sizeof *actual);
        assert_string_equal(told[1].version, "w1");
        if (q.k > 0) {
            assert_memory_equal(told[0].ids, top + 2 * skip, (size_t)(2 - skip) * 2 * sizeof *top);
            assert_memory_equal(told[0].logprobs, values + 2 * skip, (size_t)(2 - skip) * 2 * sizeof *values);
            assert_memory_equal(told[1].ids, top + 4, 2 * sizeof *top);
            assert_true(told[1].logprobs[0] == values[4]);
            assert_true(told[1].logprobs[1] == LB_VLLM_LEAST_LOGPROB);
        }
        if (q.n_chosen > 0) {
            const float *last = told[0].chosen + 2 * (1 - skip);
            assert_true(skip > 0 || (told[0].chosen[0] == -3 && isinf(told[0].chosen[1])));
            assert_true(last[0] == -4 && last[1] == -5);
            assert_true(isinf(told[1].chosen[0]) && isinf(told[1].chosen[1]));
        }
        texts[0].first = 0;
    }
    struct lb_sglang_question named = asking(0, false);
    named.model = "a\"b";
    lb_buf_reset(&buf);
    lb_sglang_ask(&buf, &named);
    assert_non_null(strstr(buf.data, "{\"model\":\"a\\\"b\",\"input_ids\":[[3,1,2],[7,8]]"));
}

/* ---- answers that are not to be read ---- */

#define OWN0 "\"input_token_logprobs\":[[null,3,null],[-1.0,1,null],[-2.0,2,null]]"
#define OWN1 ",{\"meta_info\":{\"input_token_logprobs\":[[null,7,null],[-1.0,8,null]]"
#define TOP0 ",\"input_top_logprobs\":[null,[[-1,1,null]],[[-1,2,null]]]"
#define TOP1 ",\"input_top_logprobs\":[null,[[-1,1,null]]]}}]"

static void test_refused(void **state) {
    (void)state;
    static const struct {
        int k;
        bool chosen;
        const char *body, *part;
    } bad[] = {
        {1, false, "", "JSON"},
        {1, false, "{\"meta_info\":{}}", "is no list of 2"},
        {1, false, "[{}]", "is no list of 2"},
        {1, false, "[{},{}]", "input_token_logprobs of text 0"},
        {0, false, "[{\"meta_info\":{" OWN0 "}}" OWN1 ",\"x\":0}},{}]", "is no list of 2"},
        {0, false,
         "[{\"meta_info\":{\"input_token_logprobs\":[[null,3,null],[-1.0,1,null],[-2.0,9,null]]}}" OWN1 "}}]",
         "token 2 of text 0 is 9, asked was 2"},
        {0, false,
         "[{\"meta_info\":{\"input_token_logprobs\":[[null,3,null],[-1.0,1,null],[\"x\",2,null]]}}" OWN1
         "}}]",
         "input_token_logprobs[2]"},
        {0, false, "[{\"meta_info\":{\"input_token_logprobs\":[[null,3,null],[-1.0,1,null]]}}" OWN1 "}}]",
         "its 3 tokens"},
        {1, false, "[{\"meta_info\":{" OWN0 "}}" OWN1 TOP1, "input_top_logprobs of text 0"},
        {1, false, "[{\"meta_info\":{" OWN0 ",\"input_top_logprobs\":[null,[[-1,1,null]]]}}" OWN1 TOP1,
         "its 3 tokens"},
        {2, false, "[{\"meta_info\":{" OWN0 TOP0 "}}" OWN1 TOP1, "no list of 2 log-probabilities"},
        {1, false,
         "[{\"meta_info\":{" OWN0 ",\"input_top_logprobs\":[null,[[-1,1.5,null]],[[-1,2,null]]]}}" OWN1 TOP1,
         "no list of 1 log-probabilities"},
        {1, true, "[{\"meta_info\":{" OWN0 TOP0 "}}" OWN1 TOP1, "takes no ids for each position"},
        {1, true,
         "[{\"meta_info\":{" OWN0 TOP0 ",\"input_token_ids_logprobs\":[null,[[-1,5,null]],[[-1,6,null],"
         "[-1,5,null]]]}}" OWN1 TOP1,
         "input_token_ids_logprobs[2]"},
        {1, true,
         "[{\"meta_info\":{" OWN0 TOP0 ",\"input_token_ids_logprobs\":[null,[[-1,5,null]],[[-1,6,null],"
         "[-1,4,null],[-1,4,null]]]}}" OWN1 TOP1,
         "input_token_ids_logprobs[2]"},
        {1, false,
         "[{\"meta_info\":{" OWN0 ",\"input_top_logprobs_val_flat_b64\":\"AAAAAAAAAAA=\","
         "\"input_top_logprobs_shape\":[2,2],\"input_top_logprobs_null_prefix\":1}}" OWN1 TOP1,
         "is not [2, 1] behind one null"},
        {1, false,
         "[{\"meta_info\":{" OWN0 ",\"input_top_logprobs_val_flat_b64\":\"AAAAAAAAAAA=\","
         "\"input_top_logprobs_val_flat_b64_dtype\":\"float16\",\"input_top_logprobs_shape\":[2,1],"
         "\"input_top_logprobs_null_prefix\":1}}" OWN1 TOP1,
         "val_flat_b64 of text 0 is not base64 of 8 bytes"},
        {1, false,
         "[{\"meta_info\":{" OWN0 ",\"input_top_logprobs_val_flat_b64\":\"AAAAAAAAAAA=\","
         "\"input_top_logprobs_val_flat_b64_dtype\":\"float32\",\"input_top_logprobs_idx_flat_b64\":"
         "\"AAAAAP////8=\",\"input_top_logprobs_idx_flat_b64_dtype\":\"int32\","
         "\"input_top_logprobs_shape\":[2,1],\"input_top_logprobs_null_prefix\":1}}" OWN1 TOP1,
         "what is no id"},
        {1, false,
         "[{\"meta_info\":{" OWN0 ",\"input_top_logprobs_val_flat_b64\":\"AAAA\","
         "\"input_top_logprobs_val_flat_b64_dtype\":\"float32\",\"input_top_logprobs_shape\":[2,1],"
         "\"input_top_logprobs_null_prefix\":1}}" OWN1 TOP1,
         "base64 of 8 bytes"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct lb_sglang_told told[2];
        detail = (struct lb_detail){0};
        const struct lb_sglang_question q = asking(bad[i].k, bad[i].chosen);
        enum lb_status status = lb_sglang_read(bad[i].body, strlen(bad[i].body), &q, &arena, told, &detail);
        if (status == LB_OK || !strstr(detail.text, bad[i].part) || status != detail.code) {
            fail_msg("%s: %d: %s", bad[i].body, status, detail.text);
        }
    }
    static const char good[] = "[{\"text\":\"\\u0000\",\"meta_info\":{" OWN0 TOP0 "}}" OWN1 TOP1;
    struct lb_sglang_told told[2];
    const struct lb_sglang_question q = asking(1, false);
    assert_int_equal(lb_sglang_read(good, sizeof good - 1, &q, &arena, told, &detail), LB_OK);
    assert_string_equal(told[0].version, "");
    for (size_t len = 0; len + 1 < sizeof good - 1; len++) {
        assert_int_equal(lb_sglang_read(good, len, &q, &arena, told, &detail), LB_E_FORMAT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_both_sides, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
