/* Vectors and gathered ids in vLLM's dialect: base64, metadata, .npy and answers byte for byte. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/base64.h"
#include "proto/vllm.h"

#include <math.h>
#include <string.h>

static struct lb_arena arena;
static struct lb_detail detail;
static struct lb_buf buf;
static struct lb_vllm_writer writer;

static void begin(void) {
    lb_buf_reset(&buf);
    detail = (struct lb_detail){0};
    writer = (struct lb_vllm_writer){.buf = &buf, .detail = &detail};
}

static void pooling(const char *body, bool tokens, struct lb_vllm_pooling *out) {
    begin();
    if (lb_vllm_pooling_decode(body, strlen(body), tokens, &arena, out, &detail) != LB_OK) {
        fail_msg("%s: %s", body, detail.text);
    }
}

static void test_vectors(void **state) {
    (void)state;
    struct lb_vllm_pooling r;
    static const float rows[] = {1, -0.5f, 0.1f, 2};
    pooling("{\"input\":\"a\"}", false, &r);
    lb_vllm_put_vectors(&writer, &r, false, 0, rows, 1, 4);
    lb_vllm_put_vectors(&writer, &r, true, 1, rows, 2, 2);
    assert_string_equal(buf.data, "{\"object\":\"embedding\",\"index\":0,\"embedding\":[1.0,-0.5,0.1,2.0]},"
                                  "{\"object\":\"pooling\",\"index\":1,\"data\":[[1.0,-0.5],[0.1,2.0]]}");
    pooling("{\"input\":[1],\"encoding_format\":\"base64\",\"endianness\":\"native\"}", false, &r);
    lb_vllm_put_vectors(&writer, &r, false, 0, rows, 1, 2);
    assert_string_equal(buf.data, "{\"object\":\"embedding\",\"index\":0,\"embedding\":\"AACAPwAAAL8=\"}");
    pooling("{\"input\":[[1],[2]],\"use_activation\":false,\"encoding_format\":\"bytes\",\"embed_dtype\":"
            "\"float16\"}",
            true, &r);
    lb_vllm_put_metadata(&writer, &r, (int64_t[]){2, 1}, 2, 4);
    assert_string_equal(
        buf.data, "{\"data\":[{\"index\":0,\"embed_dtype\":\"float16\",\"endianness\":\"little\",\"start\":0,"
                  "\"end\":16,\"shape\":[2,4]},{\"index\":1,\"embed_dtype\":\"float16\",\"endianness\":"
                  "\"little\",\"start\":16,\"end\":24,\"shape\":[1,4]}],\"usage\":{\"prompt_tokens\":3,"
                  "\"total_tokens\":3}}");
    pooling("{\"input\":\"a\"}", false, &r);
    lb_vllm_put_vectors(&writer, &r, false, 0, (float[]){NAN}, 1, 1);
    assert_int_equal(writer.status, LB_E_UNSUPPORTED);
    assert_non_null(strstr(detail.text, "base64"));
}

static enum lb_status generate(const char *body, struct lb_vllm_generate *out) {
    begin();
    return lb_vllm_generate_decode(body, strlen(body), &arena, out, &detail);
}

static void test_gathers(void **state) {
    (void)state;
    struct lb_vllm_generate r;
    /* prime-rl's request: short rows are filled up */
    assert_int_equal(
        generate("{\"model\":\"m\",\"token_ids\":[1,2,3,4],\"sampling_params\":{\"max_tokens\":1,"
                 "\"temperature\":1,\"prompt_logprob_start\":1,\"prompt_logprob_token_ids\":[[5,6],[7]]},"
                 "\"stream\":false,\"cache_salt\":\"s\",\"features\":null}",
                 &r),
        LB_OK);
    assert_int_equal(r.prompts.all[0].n, 4);
    assert_int_equal(r.start, 1);
    assert_int_equal(r.n_rows, 2);
    assert_int_equal(r.k, 2);
    assert_memory_equal(r.gather, ((int32_t[]){5, 6, 7, -1}), 16);
    assert_int_equal(r.sampling.max_tokens, 1);
    /* one list for all rows */
    assert_int_equal(
        generate("{\"token_ids\":[1,2,3],\"sampling_params\":{\"prompt_logprob_token_ids\":[9,-1]}}", &r),
        LB_OK);
    assert_memory_equal(r.gather, ((int32_t[]){9, -1, 9, -1}), 16);
    /* beside sampling_params that say something else */
    assert_int_equal(generate("{\"token_ids\":[1,2,3],\"sampling_params\":{\"max_tokens\":0},"
                              "\"prompt_logprob_start\":1,\"prompt_logprob_token_ids\":[[9]]}",
                              &r),
                     LB_OK);
    assert_int_equal(r.start, 1);
    assert_memory_equal(r.gather, ((int32_t[]){9}), 4);
    assert_int_equal(generate("{\"token_ids\":[1],\"sampling_params\":{\"prompt_logprobs\":1}}", &r), LB_OK);
    assert_int_equal(r.k, 0);
    assert_int_equal(r.sampling.prompt_logprobs, 1);
    static const char *const bad[][3] = {
        {"{\"sampling_params\":{}}", "token_ids", "missing"},
        {"{\"token_ids\":\"a\"}", "token_ids", "one list"},
        {"{\"token_ids\":[[1],[2]]}", "token_ids", "one list"},
        {"{\"token_ids\":[1,2],\"features\":{}}", "features", "not possible"},
        {"{\"token_ids\":[1,2],\"stream\":true}", "stream", "leave it out"},
        {"{\"token_ids\":[1,2,3],\"sampling_params\":{\"prompt_logprob_start\":1}}", "prompt_logprob_start",
         "without"},
        {"{\"token_ids\":[1,2,3],\"sampling_params\":{\"prompt_logprob_token_ids\":[[1]]}}",
         "prompt_logprob_token_ids", "1 rows; 3 tokens"},
        {"{\"token_ids\":[1,2,3],\"sampling_params\":{\"prompt_logprob_start\":2,\"prompt_logprob_token_"
         "ids\":[[1]]}}",
         "prompt_logprob_token_ids", "leave 0"},
        {"{\"token_ids\":[1,2],\"sampling_params\":{\"prompt_logprob_token_ids\":[[-2]]}}",
         "prompt_logprob_token_ids", "[0][0]"},
        {"{\"token_ids\":[1,2],\"sampling_params\":{\"prompt_logprob_token_ids\":[[]]}}",
         "prompt_logprob_token_ids", "from 1"},
        {"{\"token_ids\":[1,2],\"sampling_params\":{\"prompt_logprob_token_ids\":{}}}",
         "prompt_logprob_token_ids", "list"},
        {"{\"token_ids\":[1,2],\"sampling_params\":{\"min_p\":0.5}}", "min_p", "leave it out"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char key[LB_MAX_NAME] = "";
        enum lb_status status = generate(bad[i][0], &r);
        if (status == LB_OK || !lb_vllm_error_key(detail.text, key) || strcmp(key, bad[i][1]) != 0 ||
            !strstr(detail.text, bad[i][2])) {
            fail_msg("%s: %s", bad[i][0], detail.text);
        }
    }
}

static void test_answer(void **state) {
    (void)state;
    struct lb_vllm_generate r;
    static const int32_t top_ids[] = {2, 3}, ranks[] = {0, 4};
    static const float top[] = {-0.5f, -0.25f}, actual[] = {-0.5f, -3}, gathered[] = {-1, -2, -4, 7};
    const struct lb_vllm_choice choice = {.ids = (int32_t[]){1, 2, 7},
                                          .n = 3,
                                          .prompt = {1, top_ids, top, actual, ranks},
                                          .n_generated = 1,
                                          .generated = (const int32_t[]){3},
                                          .generated_logprobs = (const float[]){-0.25f},
                                          .next = {1, top_ids + 1, top + 1, NULL, NULL},
                                          .stop_id = -1};
    assert_int_equal(generate("{\"token_ids\":[1,2,7],\"sampling_params\":{\"max_tokens\":1,\"logprobs\":1,"
                              "\"prompt_logprobs\":1,\"prompt_logprob_token_ids\":[[4,5],[6]]}}",
                              &r),
                     LB_OK);
    lb_vllm_put_generate(&writer, "r", 5, "m", &r, &choice, gathered);
    assert_int_equal(writer.status, LB_OK);
    static const char before[] =
        "{\"request_id\":\"r\",\"model\":\"m\",\"created\":5,\"usage\":{\"prompt_tokens\":3,\"total_tokens\":"
        "4,"
        "\"completion_tokens\":1},\"prompt_logprobs\":[null,{\"2\":{\"logprob\":-0.5,"
        "\"rank\":1,\"decoded_token\":null}},{\"3\":{\"logprob\":-0.25,\"rank\":1,\"decoded_token\":null},"
        "\"7\":{\"logprob\":-3.0,\"rank\":5,\"decoded_token\":null}}],\"prompt_token_id_logprobs\":\"";
    assert_memory_equal(buf.data, before, strlen(before));
    /* numpy.save of the array [[-1, -2], [-4, -inf]] as float32 */
    struct lb_buf npy;
    lb_buf_init(&npy, 1000);
    lb_buf_append(&npy, "\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }",
                  69);
    while (npy.len < 127) {
        lb_buf_append_str(&npy, " ");
    }
    lb_buf_append_str(&npy, "\n");
    lb_buf_append(&npy, (float[]){-1, -2, -4, -INFINITY}, 16);
    struct lb_buf text;
    lb_buf_init(&text, 1000);
    lb_base64_put(&text, npy.data, npy.len);
    lb_buf_append_str(
        &text, "\",\"choices\":[{\"index\":0,\"finish_reason\":\"length\",\"stop_reason\":null,"
               "\"token_ids\":[3],\"logprobs\":{\"content\":[{\"token_id\":3,\"logprob\":-0.25,\"rank\":1,"
               "\"token\":\"token_id:3\",\"bytes\":null,\"top_logprobs\":[{\"token_id\":3,\"logprob\":-0.25,"
               "\"rank\":1,\"token\":\"token_id:3\",\"bytes\":null}]}]}}]}\n");
    assert_string_equal(buf.data + strlen(before), text.data);
    /* no memory is told as that, not as too large an answer; and nobody needs to be there */
    lb_buf_reset(&buf);
    buf.status = LB_E_NOMEM;
    r.k = 0;
    r.sampling.prompt_logprobs = LB_VLLM_NO_LOGPROBS;
    detail = (struct lb_detail){0};
    lb_vllm_put_generate(&writer, "r", 5, "m", &r, &choice, gathered);
    assert_int_equal(writer.status, LB_E_NOMEM);
    assert_non_null(strstr(detail.text, "no memory left"));
    atomic_bool gone;
    atomic_init(&gone, true);
    lb_buf_reset(&buf);
    writer.status = LB_OK;
    writer.gone = &gone;
    lb_vllm_put_generate(&writer, "r", 5, "m", &r, &choice, gathered);
    assert_int_equal(writer.status, LB_E_CANCELLED);
    writer.gone = NULL;
    lb_buf_finish(&text);
    lb_buf_finish(&npy);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_vectors), cmocka_unit_test(test_gathers),
                                       cmocka_unit_test(test_answer)};
    lb_arena_init(&arena, (size_t)1 << 28);
    lb_buf_init(&buf, 1 << 20);
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    lb_buf_finish(&buf);
    lb_arena_finish(&arena);
    return failures;
}
