/* The codec of vLLM's dialect: what is taken, what is refused by which name, and answers byte for byte. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/vllm.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct lb_arena arena;
static struct lb_detail detail;

static enum lb_status decode(const char *body, struct lb_vllm_completion *out) {
    detail = (struct lb_detail){0};
    return lb_vllm_completion_decode(body, strlen(body), &arena, out, &detail);
}

static void taken(const char *body, struct lb_vllm_completion *out) {
    if (decode(body, out) != LB_OK) {
        fail_msg("%s: %s", body, detail.text);
    }
}

/* ---- questions ---- */

static void test_prompts(void **state) {
    (void)state;
    struct lb_vllm_completion r;
    taken("{\"prompt\":\"a b\"}", &r);
    assert_int_equal(r.prompts.n, 1);
    assert_string_equal(r.prompts.all[0].text, "a b");
    taken("{\"prompt\":[\"a\",\"b\"]}", &r);
    assert_int_equal(r.prompts.n, 2);
    assert_string_equal(r.prompts.all[1].text, "b");
    taken("{\"prompt\":[3,1,2]}", &r);
    assert_int_equal(r.prompts.n, 1);
    assert_int_equal(r.prompts.all[0].n, 3);
    assert_null(r.prompts.all[0].text);
    assert_memory_equal(r.prompts.all[0].ids, ((int32_t[]){3, 1, 2}), 12);
    taken("{\"prompt\":[[3],[1,2]]}", &r);
    assert_int_equal(r.prompts.n, 2);
    assert_int_equal(r.prompts.all[1].n, 2);
    assert_int_equal(r.prompts.all[1].ids[1], 2);
    assert_true(r.add_special && r.sampling.skip_special);
    assert_false(r.echo || r.return_token_ids || r.tokens_as_ids || r.sampling.has_seed);
    assert_null(r.model);
    assert_int_equal(r.sampling.max_tokens, 16);
    assert_int_equal(r.sampling.logprobs, LB_VLLM_NO_LOGPROBS);
    assert_int_equal(r.sampling.prompt_logprobs, LB_VLLM_NO_LOGPROBS);
    assert_true(r.sampling.temperature == 1 && r.sampling.top_p == 1 && r.sampling.top_k == 0);
}

/* What their clients send today. */
static void test_clients(void **state) {
    (void)state;
    struct lb_vllm_completion r;
    /* TRL's server distillation */
    taken("{\"model\":\"m\",\"prompt\":[[1,2],[3]],\"max_tokens\":1,\"temperature\":1.5,\"prompt_logprobs\":"
          "100}",
          &r);
    assert_string_equal(r.model, "m");
    assert_int_equal(r.sampling.prompt_logprobs, 100);
    assert_true(r.sampling.temperature == 1.5);
    assert_int_equal(r.sampling.max_tokens, 1);
    /* Axolotl's online teacher */
    taken("{\"prompt\":[[1,2]],\"echo\":true,\"logprobs\":true,\"prompt_logprobs\":8,\"top_logprobs\":8,"
          "\"max_new_tokens\":0,\"skip_special_tokens\":false,\"temperature\":1.0,"
          "\"sampling_params\":{\"max_tokens\":0}}",
          &r);
    assert_true(r.echo);
    assert_int_equal(r.sampling.logprobs, 1);
    assert_int_equal(r.sampling.prompt_logprobs, 8);
    assert_int_equal(r.sampling.max_tokens, 0);
    assert_false(r.sampling.skip_special);
    /* lm-evaluation-harness */
    taken(
        "{\"model\":\"m\",\"prompt\":[[1,2]],\"temperature\":0,\"max_tokens\":1,\"logprobs\":1,\"seed\":1234,"
        "\"echo\":true}",
        &r);
    assert_true(r.sampling.temperature == 0 && r.sampling.has_seed && r.sampling.seed == 1234);
    /* openai, with all it knows said as it is by default, and keys that change nothing */
    taken("{\"model\":\"m\",\"prompt\":\"a\",\"best_of\":1,\"echo\":false,\"frequency_penalty\":0,"
          "\"logit_bias\":{},\"logprobs\":null,\"max_tokens\":1,\"n\":1,\"presence_penalty\":0.0,\"seed\":-3,"
          "\"stop\":[\"x\",\"\\n\"],\"stream\":false,\"stream_options\":{},\"suffix\":null,"
          "\"temperature\":0.5,\"top_p\":0.25,\"user\":\"u\",\"top_k\":-1,\"min_p\":0.0,"
          "\"repetition_penalty\":1.0,\"response_format\":{\"type\":\"text\"},\"cache_salt\":\"s\","
          "\"metadata\":{\"a\":[1]},\"stop_token_ids\":[7],\"priority\":-2,\"request_id\":\"r\"}",
          &r);
    assert_int_equal(r.sampling.n_stops, 2);
    assert_string_equal(r.sampling.stops[1], "\n");
    assert_int_equal(r.sampling.n_stop_ids, 1);
    assert_int_equal(r.sampling.stop_ids[0], 7);
    assert_int_equal((int64_t)r.sampling.seed, -3);
    assert_int_equal(r.priority, -2);
    assert_string_equal(r.request_id, "r");
    assert_true(r.sampling.top_p == 0.25 && r.sampling.top_k == 0);
    taken("{\"prompt\":\"a\",\"prompt_logprobs\":-1,\"stop\":\"x\",\"logprobs\":false}", &r);
    assert_int_equal(r.sampling.prompt_logprobs, LB_VLLM_ALL_LOGPROBS);
    assert_int_equal(r.sampling.logprobs, LB_VLLM_NO_LOGPROBS);
    assert_string_equal(r.sampling.stops[0], "x");
    taken("{\"prompt\":\"a\",\"sampling_params\":{\"stop\":[\"x\",\"y\"]}}", &r);
    assert_int_equal(r.sampling.n_stops, 2);
    taken("{\"prompt\":\"a\",\"stop\":\"x\",\"sampling_params\":{\"stop\":\"x\"}}", &r);
    assert_int_equal(r.sampling.n_stops, 1);
}

static const struct {
    const char *body, *key, *part; /* which key the error is about (NULL: none), a part of its text */
} bad[] = {
    {"", NULL, "JSON"},
    {"{\"prompt\":\"a\"", NULL, "not valid JSON"},
    {"[]", NULL, "expected a JSON object"},
    {"{\"prompt\":\"a\",\"prompt\":\"b\"}", NULL, "duplicate"},
    {"{}", "prompt", "missing"},
    {"{\"prompt\":null}", "prompt", "missing"},
    {"{\"prompt\":\"\"}", "prompt", "empty"},
    {"{\"prompt\":[]}", "prompt", "list"},
    {"{\"prompt\":7}", "prompt", "list"},
    {"{\"prompt\":[[]]}", "prompt", "prompt 0 is empty"},
    {"{\"prompt\":[[1],\"\"]}", "prompt", "prompt 1 is empty"},
    {"{\"prompt\":[[1],true]}", "prompt", "entry 1"},
    {"{\"prompt\":[1,\"a\"]}", "prompt", "prompt[1]"},
    {"{\"prompt\":[1,-1]}", "prompt", "prompt[1]"},
    {"{\"prompt\":[1,1.5]}", "prompt", "prompt[1]"},
    {"{\"prompt\":[4294967296]}", "prompt", "prompt[0]"},
    {"{\"prompt\":[[[1]]]}", "prompt", "prompt[0]"},
    {"{\"prompt\":\"a\",\"model\":3}", "model", "string"},
    {"{\"prompt\":\"a\",\"max_tokens\":\"1\"}", "max_tokens", "integer"},
    {"{\"prompt\":\"a\",\"max_tokens\":-1}", "max_tokens", "[0,"},
    {"{\"prompt\":\"a\",\"max_tokens\":1,\"max_new_tokens\":2}", "max_new_tokens", "give one"},
    {"{\"prompt\":\"a\",\"temperature\":-0.5}", "temperature", "[0,"},
    {"{\"prompt\":\"a\",\"temperature\":0.001}", "temperature", "0.01"},
    {"{\"prompt\":\"a\",\"temperature\":101}", "temperature", "100"},
    {"{\"prompt\":\"a\",\"temperature\":NaN}", NULL, "not valid JSON"},
    {"{\"prompt\":\"a\",\"top_p\":0}", "top_p", "(0, 1]"},
    {"{\"prompt\":\"a\",\"top_p\":1.5}", "top_p", "1"},
    {"{\"prompt\":\"a\",\"logprobs\":-1}", "logprobs", "[0,"},
    {"{\"prompt\":\"a\",\"logprobs\":1025}", "logprobs", "1024"},
    {"{\"prompt\":\"a\",\"prompt_logprobs\":-2}", "prompt_logprobs", "[-1,"},
    {"{\"prompt\":\"a\",\"prompt_logprobs\":16385}", "prompt_logprobs", "16384"},
    {"{\"prompt\":\"a\",\"prompt_logprobs\":\"5\"}", "prompt_logprobs", "integer"},
    {"{\"prompt\":\"a\",\"echo\":1}", "echo", "true or false"},
    {"{\"prompt\":\"a\",\"stop\":5}", "stop", "string"},
    {"{\"prompt\":\"a\",\"stop\":[\"\"]}", "stop", "not empty"},
    {"{\"prompt\":\"a\",\"stop_token_ids\":[\"x\"]}", "stop_token_ids", "token id"},
    {"{\"prompt\":\"a\",\"seed\":0.5}", "seed", "integer"},
    {"{\"prompt\":\"a\",\"sampling_params\":[]}", "sampling_params", "object"},
    {"{\"prompt\":\"a\",\"temperature\":1,\"sampling_params\":{\"temperature\":2}}", "temperature", "once"},
    {"{\"prompt\":\"a\",\"sampling_params\":{\"min_p\":0.5}}", "min_p", "leave it out"},
    {"{\"prompt\":\"a\",\"n\":2}", "n", "leave it out"},
    {"{\"prompt\":\"a\",\"best_of\":2}", "best_of", "leave it out"},
    {"{\"prompt\":\"a\",\"sampling_params\":{\"stream\":true}}", "stream", "leave it out"},
    {"{\"prompt\":\"a\",\"stream\":1}", "stream", "true or false"},
    {"{\"prompt\":\"a\",\"stream_options\":{\"include_usage\":true}}", "stream_options", "needs stream"},
    {"{\"prompt\":\"a\",\"stream\":true,\"stream_options\":[]}", "stream_options", "object"},
    {"{\"prompt\":\"a\",\"stream\":true,\"prompt_logprobs\":0}", "prompt_logprobs", "with stream"},
    {"{\"prompt\":\"a\",\"repetition_penalty\":1.1}", "repetition_penalty", "leave it out"},
    {"{\"prompt\":\"a\",\"presence_penalty\":0.5}", "presence_penalty", "leave it out"},
    {"{\"prompt\":\"a\",\"logit_bias\":{\"5\":1}}", "logit_bias", "leave it out"},
    {"{\"prompt\":\"a\",\"suffix\":\"x\"}", "suffix", "leave it out"},
    {"{\"prompt\":\"a\",\"use_beam_search\":true}", "use_beam_search", "leave it out"},
    {"{\"prompt\":\"a\",\"truncate_prompt_tokens\":4}", "truncate_prompt_tokens", "leave it out"},
    {"{\"prompt\":\"a\",\"response_format\":{\"type\":\"json_object\"}}", "response_format", "leave it out"},
    {"{\"prompt\":\"a\",\"prompt_logprob_token_ids\":[[1]]}", "prompt_logprob_token_ids", "leave it out"},
};

static void test_refused(void **state) {
    (void)state;
    struct lb_vllm_completion r;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char key[LB_MAX_NAME] = "";
        enum lb_status status = decode(bad[i].body, &r);
        bool named = lb_vllm_error_key(detail.text, key);
        if ((status != LB_E_FORMAT && status != LB_E_ARG) || !strstr(detail.text, bad[i].part) ||
            strncmp(detail.text, "request: ", 9) != 0 || named != (bad[i].key != NULL) ||
            (named && strcmp(key, bad[i].key) != 0)) {
            fail_msg("%s: %d, %s (about \"%s\")", bad[i].body, status, detail.text, key);
        }
    }
    static char deep[200];
    snprintf(deep, sizeof deep, "{\"prompt\":%.*s", 100,
             "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[");
    assert_int_equal(decode(deep, &r), LB_E_LIMIT);
}

static void test_too_many(void **state) {
    (void)state;
    struct lb_vllm_completion r;
    struct lb_buf body;
    lb_buf_init(&body, LB_MAX_BODY_BYTES);
    lb_buf_append_str(&body, "{\"prompt\":[[1]");
    for (int i = 0; i < LB_MAX_SEQUENCES; i++) {
        lb_buf_append_str(&body, ",[1]");
    }
    lb_buf_append_str(&body, "]}");
    assert_int_equal(decode(body.data, &r), LB_E_LIMIT);
    assert_non_null(strstr(detail.text, "4097 entries"));
    lb_buf_reset(&body);
    lb_buf_append_str(&body, "{\"prompt\":\"a\",\"stop_token_ids\":[1");
    for (int i = 0; i < LB_VLLM_MAX_STOP_IDS; i++) {
        lb_buf_append_str(&body, ",1");
    }
    lb_buf_append_str(&body, "]}");
    assert_int_equal(decode(body.data, &r), LB_E_ARG);
    assert_non_null(strstr(detail.text, "stop_token_ids has 4097"));
    memset(lb_buf_extend(&body, LB_MAX_JSON_BYTES), ' ', LB_MAX_JSON_BYTES);
    assert_int_equal(decode(body.data, &r), LB_E_LIMIT);
    assert_non_null(strstr(detail.text, "bytes of JSON"));
    lb_buf_finish(&body);
}

/* ---- answers ---- */

/* Ids are written as letters; 5 and 6 alike, 7 needs escapes. */
static enum lb_status text_of(void *context, int32_t id, struct lb_buf *out) {
    static const char *const texts[] = {"a", "b", " c", "\xc3\xa9", "", "x", "x", "\"\\\n\x01"};
    (void)context;
    return lb_buf_append_str(out, texts[id]);
}

/* Three tokens, and what is likely after each. */
static const int32_t ids[] = {1, 2, 7}, top_ids[] = {2, 0, 5, 6, 3, 4}, ranks[] = {0, 5, 0};
static const float top[] = {-0.5f, -1.25f, -0.25f, -2, -0.125f, -INFINITY}, actual[] = {-0.5f, -3, 0};

static const int32_t generated[] = {3};
static const float generated_logprobs[] = {-0.125f};

static struct lb_vllm_choice choice(void) {
    return (struct lb_vllm_choice){.ids = ids,
                                   .n = 3,
                                   .prompt = {2, top_ids, top, actual, ranks},
                                   .n_generated = 1,
                                   .generated = generated,
                                   .generated_logprobs = generated_logprobs,
                                   .next = {2, top_ids + 4, top + 4, NULL, NULL},
                                   .text = "b c\"\\",
                                   .text_len = 5,
                                   .stop_id = -1};
}

static char *written(const struct lb_vllm_completion *request, const struct lb_vllm_choice *one, bool texts,
                     struct lb_buf *buf) {
    struct lb_vllm_writer writer = {.buf = buf, .text = texts ? text_of : NULL, .detail = &detail};
    const struct lb_vllm_usage usage = {3, 1};
    detail = (struct lb_detail){0};
    lb_buf_reset(buf);
    lb_vllm_put_completion(&writer, "cmpl-1", 1700000000, "m", "f00d");
    lb_vllm_put_choice(&writer, request, one);
    lb_vllm_put_end(&writer, &usage);
    assert_int_equal(writer.status, LB_OK);
    return buf->data;
}

#define HEAD                                                                                                 \
    "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1700000000,\"model\":\"m\","              \
    "\"system_fingerprint\":\"f00d\",\"choices\":[{\"index\":0,\"text\":\"b c\\\"\\\\\","
#define TAIL "}],\"usage\":{\"prompt_tokens\":3,\"total_tokens\":4,\"completion_tokens\":1}}\n"

static void test_answers(void **state) {
    (void)state;
    struct lb_vllm_completion r;
    struct lb_vllm_choice one = choice();
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 20);
    taken("{\"prompt\":[1,2,7],\"max_tokens\":1}", &r);
    assert_string_equal(written(&r, &one, true, &buf),
                        HEAD "\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null,"
                             "\"prompt_logprobs\":null" TAIL);
    /* the own token is in the top k of the first row, and behind it in the second */
    taken("{\"prompt\":[1,2,7],\"max_tokens\":1,\"prompt_logprobs\":2,\"return_token_ids\":true}", &r);
    one.stopped = true;
    one.stop_text = "x";
    assert_string_equal(
        written(&r, &one, true, &buf),
        HEAD "\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":\"x\",\"prompt_logprobs\":[null,"
             "{\"2\":{\"logprob\":-0.5,\"rank\":1,\"decoded_token\":\" c\"},"
             "\"0\":{\"logprob\":-1.25,\"rank\":2,\"decoded_token\":\"a\"}},"
             "{\"5\":{\"logprob\":-0.25,\"rank\":1,\"decoded_token\":\"x\"},"
             "\"6\":{\"logprob\":-2.0,\"rank\":2,\"decoded_token\":\"x\"},"
             "\"7\":{\"logprob\":-3.0,\"rank\":6,\"decoded_token\":\"\\\"\\\\\\u000a\\u0001\"}}],"
             "\"prompt_token_ids\":[1,2,7],\"token_ids\":[3]" TAIL);
    /* 0: the own token only; without a tokenizer */
    taken("{\"prompt\":[1,2,7],\"max_tokens\":1,\"prompt_logprobs\":0}", &r);
    one.stop_text = NULL;
    one.stop_id = 3;
    assert_string_equal(
        written(&r, &one, false, &buf),
        HEAD "\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":3,\"prompt_logprobs\":[null,"
             "{\"2\":{\"logprob\":-0.5,\"rank\":1,\"decoded_token\":null}},"
             "{\"7\":{\"logprob\":-3.0,\"rank\":6,\"decoded_token\":null}}]" TAIL);
    lb_buf_finish(&buf);
}

/* OpenAI's lists: of two ids with one text the likelier; minus infinity as vLLM writes it. */
static void test_logprobs(void **state) {
    (void)state;
    struct lb_vllm_completion r;
    struct lb_vllm_choice one = choice();
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 20);
    taken("{\"prompt\":[1,2,7],\"max_tokens\":1,\"echo\":true,\"logprobs\":2}", &r);
    assert_string_equal(
        written(&r, &one, true, &buf),
        HEAD "\"logprobs\":{\"tokens\":[\"b\",\" c\",\"\\\"\\\\\\u000a\\u0001\",\"\xc3\xa9\"],"
             "\"text_offset\":[0,1,3,7],\"token_logprobs\":[null,-0.5,-3.0,-0.125],"
             "\"top_logprobs\":[null,{\" c\":-0.5,\"a\":-1.25},{\"x\":-0.25,\"\\\"\\\\\\u000a\\u0001\":-3.0},"
             "{\"\xc3\xa9\":-0.125,\"\":-9999.0}]},"
             "\"finish_reason\":\"length\",\"stop_reason\":null,\"prompt_logprobs\":null" TAIL);
    /* what is generated alone, by ids; K of them, not all that are there */
    taken("{\"prompt\":[1,2,7],\"max_tokens\":1,\"logprobs\":1,\"return_tokens_as_token_ids\":true}", &r);
    assert_string_equal(
        written(&r, &one, true, &buf),
        HEAD "\"logprobs\":{\"tokens\":[\"token_id:3\"],\"text_offset\":[0],\"token_logprobs\":[-0.125],"
             "\"top_logprobs\":[{\"token_id:3\":-0.125}]},"
             "\"finish_reason\":\"length\",\"stop_reason\":null,\"prompt_logprobs\":null" TAIL);
    lb_buf_finish(&buf);
}

static void test_not_a_number(void **state) {
    (void)state;
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 10);
    struct lb_vllm_writer writer = {.buf = &buf, .detail = &detail};
    detail = (struct lb_detail){0};
    lb_vllm_put_logprob(&writer, NAN);
    assert_int_equal(writer.status, LB_E_INTERNAL);
    assert_non_null(strstr(detail.text, "NaN"));
    lb_buf_finish(&buf);
    /* too large for its buffer: one error, whatever comes next */
    struct lb_vllm_completion r;
    const struct lb_vllm_choice one = choice();
    struct lb_vllm_usage usage = {3, 1};
    lb_buf_init(&buf, 100);
    writer = (struct lb_vllm_writer){.buf = &buf, .text = text_of, .detail = &detail};
    detail = (struct lb_detail){0};
    taken("{\"prompt\":[1,2,7],\"max_tokens\":1,\"echo\":true,\"logprobs\":2,\"prompt_logprobs\":2}", &r);
    lb_vllm_put_completion(&writer, "cmpl-1", 1, "m", "f");
    lb_vllm_put_choice(&writer, &r, &one);
    lb_vllm_put_end(&writer, &usage);
    assert_int_equal(writer.status, LB_E_LIMIT);
    lb_buf_finish(&buf);
}

/* Ids two by two alike; some of the texts begin as others do. */
static enum lb_status text_of_two(void *context, int32_t id, struct lb_buf *out) {
    (void)context;
    return lb_buf_printf(out, "%d", id / 2);
}

/* As many as there may be: of each two ids the likelier, in the order of the ids. */
static void test_many_texts(void **state) {
    (void)state;
    enum { K = LB_VLLM_MAX_LOGPROBS };
    static int32_t many_ids[K];
    static float many[K];
    struct lb_vllm_completion r;
    struct lb_vllm_choice one = choice();
    struct lb_buf buf, expected;
    lb_buf_init(&buf, 1 << 20);
    lb_buf_init(&expected, 1 << 20);
    lb_buf_append_str(&expected, "\"top_logprobs\":[{");
    for (int i = 0; i < K; i++) {
        many_ids[i] = K - 1 - i;
        many[i] = -1 - (float)i;
        if (i % 2 == 0) {
            lb_buf_printf(&expected, "%s\"%d\":-%d.0", i > 0 ? "," : "", (K - 1 - i) / 2, 1 + i);
        }
    }
    lb_buf_append_str(&expected, ",\"1500\":-0.125}]");
    static const int32_t last[] = {3000};
    one.generated = last;
    one.next = (struct lb_vllm_rows){.k = K, .top_ids = many_ids, .top_logprobs = many};
    taken("{\"prompt\":[1,2,7],\"max_tokens\":1,\"logprobs\":1024}", &r);
    struct lb_vllm_writer writer = {.buf = &buf, .text = text_of_two, .detail = &detail};
    lb_vllm_put_choice(&writer, &r, &one);
    assert_int_equal(writer.status, LB_OK);
    assert_non_null(strstr(buf.data, expected.data));
    lb_buf_finish(&expected);
    lb_buf_finish(&buf);
}

/* A text that did not find its place. */
static enum lb_status text_without_place(void *context, int32_t id, struct lb_buf *out) {
    (void)context, (void)id;
    out->status = LB_E_NOMEM;
    return LB_OK;
}

/* What is not all there is no answer, and nothing is written on for one who has left. */
static void test_unfinished(void **state) {
    (void)state;
    static const char *const questions[] = {
        "{\"prompt\":[1,2,7],\"max_tokens\":1,\"echo\":true,\"logprobs\":2}",
        "{\"prompt\":[1,2,7],\"max_tokens\":1,\"prompt_logprobs\":2}"};
    const struct lb_vllm_choice one = choice();
    struct lb_buf buf;
    lb_buf_init(&buf, 1 << 20);
    for (int i = 0; i < 2; i++) {
        struct lb_vllm_completion r;
        taken(questions[i], &r);
        size_t whole = strlen(written(&r, &one, true, &buf));
        struct lb_vllm_writer writer = {.buf = &buf, .text = text_without_place, .detail = &detail};
        detail = (struct lb_detail){0};
        lb_buf_reset(&buf);
        lb_vllm_put_choice(&writer, &r, &one);
        assert_int_equal(writer.status, LB_E_NOMEM);
        assert_non_null(strstr(detail.text, "no memory left"));
        atomic_bool gone;
        atomic_init(&gone, true);
        writer = (struct lb_vllm_writer){.buf = &buf, .text = text_of, .gone = &gone, .detail = &detail};
        detail = (struct lb_detail){0};
        lb_buf_reset(&buf);
        lb_vllm_put_choice(&writer, &r, &one);
        assert_int_equal(writer.status, LB_E_CANCELLED);
        assert_null(strstr(buf.data, " c\":"));
        assert_true(buf.len < whole);
    }
    lb_buf_finish(&buf);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_prompts),      cmocka_unit_test(test_clients),
                                       cmocka_unit_test(test_refused),      cmocka_unit_test(test_too_many),
                                       cmocka_unit_test(test_answers),      cmocka_unit_test(test_logprobs),
                                       cmocka_unit_test(test_not_a_number), cmocka_unit_test(test_many_texts),
                                       cmocka_unit_test(test_unfinished)};
    lb_arena_init(&arena, (size_t)1 << 28);
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    lb_arena_finish(&arena);
    return failures;
}
