/* The codec of SGLang's dialect: what is taken, what is refused by which name, and answers byte for byte. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/sglang.h"

#include <math.h>
#include <string.h>

static struct lb_arena arena;
static struct lb_detail detail;

static enum lb_status decode(const char *body, struct lb_sglang_generate *out) {
    detail = (struct lb_detail){0};
    return lb_sglang_generate_decode(body, strlen(body), &arena, out, &detail);
}

static void taken(const char *body, struct lb_sglang_generate *out) {
    if (decode(body, out) != LB_OK) {
        fail_msg("%s: %s", body, detail.text);
    }
}

/* ---- questions ---- */

static void test_prompts(void **state) {
    (void)state;
    struct lb_sglang_generate r;
    taken("{\"text\":\"a b\"}", &r);
    assert_false(r.batch || r.texts || r.flat || r.base64 || r.return_prompt_ids || r.scores[0].asked);
    assert_string_equal(r.prompts.all[0].text, "a b");
    assert_int_equal(r.sampling.max_tokens, 128);
    assert_true(r.sampling.temperature == 1 && r.sampling.top_p == 1 && r.sampling.plain);
    assert_true(r.sampling.skip_special && !r.sampling.has_seed && !r.sampling.include_stop);
    assert_null(r.model);
    assert_null(r.rid);
    taken("{\"text\":[\"a\"],\"input_ids\":null}", &r);
    assert_true(r.batch);
    assert_int_equal(r.prompts.n, 1);
    taken("{\"input_ids\":[3,1,2]}", &r);
    assert_false(r.batch);
    assert_int_equal(r.prompts.all[0].n, 3);
    taken("{\"input_ids\":[[3],[1,2]],\"rid\":\"r\",\"model\":\"m\"}", &r);
    assert_true(r.batch);
    assert_int_equal(r.prompts.n, 2);
    assert_string_equal(r.rid, "r");
    assert_string_equal(r.model, "m");
    taken(
        "{\"input_ids\":[[3],[1,2]],\"rid\":[\"r\",\"s\"],\"sampling_params\":[{\"top_k\":2},{\"top_k\":2}]}",
        &r);
    assert_string_equal(r.rids[1], "s");
    assert_null(r.rid);
    assert_int_equal(r.sampling.top_k, 2);
}

/* What their clients send today. */
static void test_clients(void **state) {
    (void)state;
    struct lb_sglang_generate r;
    /* slime and miles, with ids of the student's in one set, and for each position */
    taken("{\"input_ids\":[4,5,6],\"sampling_params\":{\"temperature\":0,\"max_new_tokens\":0,"
          "\"skip_special_tokens\":false},\"return_logprob\":true,\"logprob_start_len\":0,"
          "\"top_logprobs_num\":2,\"token_ids_logprob\":[7,1]}",
          &r);
    assert_true(r.scores[0].asked && r.scores[0].start == 0 && r.scores[0].top_k == 2);
    assert_int_equal(r.scores[0].ids.n, 2);
    assert_int_equal(r.scores[0].ids.ids[0], 7);
    assert_int_equal(r.sampling.max_tokens, 0);
    assert_true(r.sampling.temperature == 0 && !r.sampling.skip_special);
    taken("{\"input_ids\":[4,5,6],\"sampling_params\":{\"max_new_tokens\":0},\"return_logprob\":true,"
          "\"logprob_start_len\":0,\"token_ids_logprob_positions\":[[],[7,1],[2]]}",
          &r);
    assert_int_equal(r.scores[0].n_positions, 3);
    assert_int_equal(r.scores[0].positions[0].n, 0);
    assert_int_equal(r.scores[0].positions[1].ids[1], 1);
    assert_int_equal(r.scores[0].positions[2].ids[0], 2);
    /* Axolotl's online teacher */
    taken("{\"input_ids\":[[1,2],[3]],\"return_logprob\":true,\"top_logprobs_num\":8,\"logprob_start_len\":0,"
          "\"return_text_in_logprobs\":true,\"echo\":true,\"sampling_params\":{\"max_new_tokens\":0,"
          "\"temperature\":1.5,\"skip_special_tokens\":false}}",
          &r);
    assert_true(r.batch && r.texts && r.scores[1].asked && r.scores[1].top_k == 8);
    /* lm-evaluation-harness, and all that says nothing */
    taken("{\"input_ids\":[[1,2],[3]],\"sampling_params\":{\"temperature\":0,\"max_new_tokens\":1,\"stop\":"
          "null,"
          "\"n\":1,\"min_p\":0.0,\"repetition_penalty\":1.0,\"frequency_penalty\":0,\"sampling_seed\":3,"
          "\"no_stop_trim\":true,\"spaces_between_special_tokens\":true},\"return_logprob\":true,"
          "\"top_logprobs_num\":1,\"logprob_start_len\":0,\"stream\":false,\"lora_path\":null,"
          "\"return_hidden_states\":false,\"session_id\":\"s\",\"image_data\":null,\"priority\":3}",
          &r);
    assert_true(r.sampling.has_seed && r.sampling.seed == 3 && r.sampling.include_stop);
    assert_int_equal(r.priority, 3);
    /* each prompt its own */
    taken("{\"input_ids\":[[1,2],[3]],\"return_logprob\":[true,false],\"top_logprobs_num\":[3,4],"
          "\"logprob_start_len\":[1,null],\"token_ids_logprob\":[[5],null],"
          "\"token_ids_logprob_positions\":null,\"return_flat_raw_top_logprobs\":true,"
          "\"return_flat_raw_top_logprobs_b64\":true,\"return_prompt_token_ids\":true}",
          &r);
    assert_true(r.scores[0].start == 1 && r.scores[0].top_k == 3 && r.scores[0].ids.n == 1);
    assert_true(!r.scores[1].asked && r.scores[1].top_k == 0);
    assert_true(r.flat && r.base64 && r.return_prompt_ids);
    taken("{\"input_ids\":[[1,2],[3]],\"return_logprob\":true,\"token_ids_logprob\":[5,6],"
          "\"token_ids_logprob_positions\":[null,null]}",
          &r);
    assert_true(r.scores[1].ids.n == 2 && r.scores[1].start == LB_SGLANG_NO_START);
    /* an empty list of ids is none, and without return_logprob nothing is asked for */
    taken("{\"text\":\"a\",\"return_logprob\":true,\"token_ids_logprob\":[]}", &r);
    assert_int_equal(r.scores[0].ids.n, 0);
    taken("{\"text\":\"a\",\"top_logprobs_num\":5,\"token_ids_logprob\":[5]}", &r);
    assert_true(r.scores[0].top_k == 0 && r.scores[0].ids.n == 0);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *body, *part;
    } bad[] = {
        {"", "JSON"},
        {"[]", "expected a JSON object"},
        {"{}", "text or input_ids is missing"},
        {"{\"text\":\"a\",\"input_ids\":[1]}", "give one"},
        {"{\"text\":[1]}", "text 0 must be a string"},
        {"{\"input_ids\":\"a\"}", "input_ids 0 must be a list"},
        {"{\"input_ids\":[[1],\"a\"]}", "input_ids 1 must be a list"},
        {"{\"input_ids\":[]}", "input_ids must be"},
        {"{\"input_ids\":[1,-1]}", "input_ids[1]"},
        {"{\"text\":\"a\",\"stream\":1}", "stream"},
        {"{\"text\":\"a\",\"return_hidden_states\":\"last\"}", "return_hidden_states would"},
        {"{\"text\":\"a\",\"lora_path\":\"x\"}", "lora_path would"},
        {"{\"text\":\"a\",\"image_data\":[\"x\"]}", "image_data would"},
        {"{\"text\":\"a\",\"sampling_params\":{\"n\":2}}", "n would"},
        {"{\"text\":\"a\",\"sampling_params\":{\"regex\":\"x\"}}", "regex would"},
        {"{\"text\":\"a\",\"sampling_params\":{\"temperature\":0.001}}", "temperature is"},
        {"{\"text\":\"a\",\"sampling_params\":{\"max_new_tokens\":-1}}", "max_new_tokens"},
        {"{\"text\":\"a\",\"sampling_params\":[{}]}", "sampling_params must be an object"},
        {"{\"text\":\"a\",\"sampling_params\":7}", "sampling_params must be an object"},
        {"{\"text\":[\"a\",\"b\"],\"sampling_params\":[{}]}", "one for each prompt"},
        {"{\"text\":[\"a\",\"b\"],\"sampling_params\":[{\"top_k\":2},{\"top_k\":3}]}", "differ"},
        {"{\"text\":\"a\",\"rid\":[\"x\"]}", "rid must be a string"},
        {"{\"text\":[\"a\"],\"rid\":[3]}", "rid must be of strings"},
        {"{\"text\":\"a\",\"return_logprob\":1}", "return_logprob must be"},
        {"{\"text\":\"a\",\"return_logprob\":[true]}", "return_logprob has 1 entries"},
        {"{\"text\":\"a\",\"return_logprob\":true,\"top_logprobs_num\":-1}", "top_logprobs_num must be"},
        {"{\"text\":\"a\",\"return_logprob\":true,\"top_logprobs_num\":16385}", "16384"},
        {"{\"text\":\"a\",\"return_logprob\":true,\"logprob_start_len\":-2}", "logprob_start_len must"},
        {"{\"text\":\"a\",\"return_logprob\":true,\"token_ids_logprob\":7}", "token_ids_logprob must be"},
        {"{\"text\":\"a\",\"return_logprob\":true,\"token_ids_logprob\":[[7]]}", "has 1 entries"},
        {"{\"text\":\"a\",\"return_logprob\":true,\"token_ids_logprob\":[-7]}", "token_ids_logprob[0]"},
        {"{\"text\":\"a\",\"return_logprob\":true,\"token_ids_logprob_positions\":[]}", "for each token"},
        {"{\"text\":\"a\",\"return_logprob\":true,\"token_ids_logprob_positions\":[7]}", "positions[0]"},
        {"{\"text\":\"a\",\"return_logprob\":true,\"token_ids_logprob_positions\":[[\"a\"]]}",
         "positions[0] is no token id"},
        {"{\"text\":\"a\",\"return_logprob\":true,\"token_ids_logprob_positions\":[[1]],"
         "\"token_ids_logprob\":[1]}",
         "give one of them"},
        {"{\"text\":\"a\",\"return_flat_raw_top_logprobs_b64\":true}", "needs return_flat_raw_top_logprobs"},
        {"{\"text\":\"a\",\"model\":7}", "model"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct lb_sglang_generate r;
        enum lb_status status = decode(bad[i].body, &r);
        if (status == LB_OK || !strstr(detail.text, bad[i].part) || status != detail.code) {
            fail_msg("%s: %d: %s", bad[i].body, status, detail.text);
        }
    }
}

/* ---- answers ---- */

static enum lb_status text_of(void *context, int32_t id, struct lb_buf *out) {
    (void)context;
    return id == 99 ? LB_E_NOTFOUND : lb_buf_append_str(out, id == 4 ? "\"d" : id == 5 ? "e" : "f");
}

static const int32_t ids[] = {4, 5, 6};
static const int32_t top_ids[] = {5, 1, 6, 5, 3, 2};
static const float top[] = {-0.25f, -1.5f, -0.125f, -2, -0.5f, -1.25f};
static const float actual[] = {-0.25f, -0.125f, 0};
static const float scores[] = {-3, -0.25f, -4, -5, -6, -7};

static const int32_t next_ids[] = {3, 5};
static const float next_logprobs[] = {-0.5f, -0.75f};

static struct lb_sglang_answer answer_at(int64_t first) {
    int64_t row = first < 3 ? first : 2;
    return (struct lb_sglang_answer){.id = "r",
                                     .version = "v",
                                     .seconds = 0.5,
                                     .ids = ids,
                                     .n = 3,
                                     .first = first,
                                     .prompt = {2, top_ids + 2 * row, top + 2 * row, actual + row, NULL},
                                     .scores = scores + 2 * row,
                                     .n_scores = 2,
                                     .next = {2, top_ids + 4, top + 4, NULL, NULL},
                                     .next_scores = scores + 4,
                                     .n_next = 1,
                                     .next_ids = next_ids,
                                     .next_logprobs = next_logprobs,
                                     .n_generated = 1,
                                     .text = "d",
                                     .text_len = 1};
}

static void written(const char *body, const struct lb_sglang_answer *answer, const char *expected) {
    struct lb_buf buf;
    struct lb_sglang_generate r;
    lb_buf_init(&buf, 1 << 16);
    struct lb_vllm_writer writer = {.buf = &buf, .text = text_of, .detail = &detail};
    taken(body, &r);
    lb_sglang_put_answer(&writer, &r, &r.scores[0], answer);
    assert_int_equal(writer.status, LB_OK);
    assert_string_equal(buf.data, expected);
    lb_buf_finish(&buf);
}

#define FRONT(n)                                                                                             \
    ",\"meta_info\":{\"id\":\"r\",\"finish_reason\":{\"type\":\"length\",\"length\":" n                      \
    "},\"prompt_tokens\":3,\"weight_version\":\"v\",\"num_retractions\":0"
#define BACK(n)                                                                                              \
    ",\"reasoning_tokens\":0,\"completion_tokens\":" n                                                       \
    ",\"cached_tokens\":0,\"dp_rank\":null,\"e2e_latency\":0.5}"

/* Questions and the answers to them, as they go over the wire. */
static void test_exchanges(void **state) {
    (void)state;
    struct lb_sglang_answer a = answer_at(2);
    written("{\"input_ids\":[4,5,6],\"sampling_params\":{\"max_new_tokens\":1}}", &a,
            "{\"text\":\"d\",\"output_ids\":[3]" FRONT("1") BACK("1") "}");
    written("{\"input_ids\":[4,5,6],\"sampling_params\":{\"max_new_tokens\":1},\"return_logprob\":true,"
            "\"return_prompt_token_ids\":true,\"return_text_in_logprobs\":true}",
            &a,
            "{\"text\":\"d\",\"output_ids\":[3]" FRONT(
                "1") ",\"input_token_logprobs\":[[null,6,\"f\"]],"
                     "\"output_token_logprobs\":[[-0.5,3,\"f\"]],\"output_token_logprobs_length\":1" BACK(
                         "1") ",\"prompt_token_ids\":[4,5,6]}");
    a = answer_at(0);
    a.n_generated = 0;
    a.text_len = 0;
    /* with texts, and the likeliest */
    written("{\"input_ids\":[4,5,6],\"sampling_params\":{\"max_new_tokens\":0,\"temperature\":0},"
            "\"return_logprob\":true,\"logprob_start_len\":0,\"top_logprobs_num\":2,"
            "\"return_text_in_logprobs\":true}",
            &a,
            "{\"text\":\"\",\"output_ids\":[]" FRONT(
                "0") ",\"input_token_logprobs\":[[null,4,\"\\\"d\"],[-0.25,5,\"e\"],[-0.125,6,\"f\"]],"
                     "\"output_token_logprobs\":[[-0.5,3,\"f\"]],\"output_token_logprobs_length\":1,"
                     "\"input_top_logprobs\":[null,[[-0.25,5,\"e\"],[-1.5,1,\"f\"]],[[-0.125,6,\"f\"],[-2.0,"
                     "5,\"e\"]]],"
                     "\"output_top_logprobs\":[[[-0.5,3,\"f\"],[-1.25,2,\"f\"]]]" BACK("0") "}");
    /* chosen ids for all positions, and for each */
    written("{\"input_ids\":[4,5,6],\"sampling_params\":{\"max_new_tokens\":0},\"return_logprob\":true,"
            "\"logprob_start_len\":0,\"token_ids_logprob\":[7,5]}",
            &a,
            "{\"text\":\"\",\"output_ids\":[]" FRONT(
                "0") ",\"input_token_logprobs\":[[null,4,null],[-0.25,5,null],[-0.125,6,null]],"
                     "\"output_token_logprobs\":[[-0.5,3,null]],\"output_token_logprobs_length\":1,"
                     "\"input_token_ids_logprobs\":[null,[[-3.0,7,null],[-0.25,5,null]],[[-4.0,7,null],[-5.0,"
                     "5,null]]],"
                     "\"output_token_ids_logprobs\":[[[-6.0,7,null],[-7.0,5,null]]]" BACK("0") "}");
    a.first = 1;
    a.prompt.actual = actual + 1;
    a.scores = scores + 2;
    written(
        "{\"input_ids\":[4,5,6],\"sampling_params\":{\"max_new_tokens\":0},\"return_logprob\":true,"
        "\"logprob_start_len\":1,\"token_ids_logprob_positions\":[[],[9],[8]]}",
        &a,
        "{\"text\":\"\",\"output_ids\":[]" FRONT(
            "0") ",\"input_token_logprobs\":[[null,5,null],[-0.125,6,null]],"
                 "\"output_token_logprobs\":[[-0.5,3,null]],\"output_token_logprobs_length\":1,"
                 "\"input_token_ids_logprobs\":[null,[[-4.0,8,null]]],\"output_token_ids_logprobs\":[]" BACK(
                     "0") "}");
    written(
        "{\"input_ids\":[4,5,6],\"sampling_params\":{\"max_new_tokens\":0},\"return_logprob\":true,"
        "\"logprob_start_len\":1,\"token_ids_logprob_positions\":[[],[9],[]]}",
        &a,
        "{\"text\":\"\",\"output_ids\":[]" FRONT(
            "0") ",\"input_token_logprobs\":[[null,5,null],[-0.125,6,null]],"
                 "\"output_token_logprobs\":[[-0.5,3,null]],\"output_token_logprobs_length\":1,"
                 "\"input_token_ids_logprobs\":[null,null],\"output_token_ids_logprobs\":[]" BACK("0") "}");
    /* nothing of the prompt */
    a = answer_at(3);
    a.n_generated = 0;
    written("{\"input_ids\":[4,5,6],\"sampling_params\":{\"max_new_tokens\":0},\"return_logprob\":true,"
            "\"top_logprobs_num\":1,\"token_ids_logprob\":[7]}",
            &a,
            "{\"text\":\"d\",\"output_ids\":[]" FRONT(
                "0") ",\"input_token_logprobs\":[],\"output_token_logprobs\":[[-0.5,3,null]],"
                     "\"output_token_logprobs_length\":1,\"input_top_logprobs\":[],"
                     "\"output_top_logprobs\":[[[-0.5,3,null]]],\"input_token_ids_logprobs\":[],"
                     "\"output_token_ids_logprobs\":[[[-6.0,7,null]]]" BACK("0") "}");
}

/* Two tokens that were written: by length, at a token, at a stop. */
static void test_written(void **state) {
    (void)state;
    struct lb_sglang_answer a = answer_at(2);
    a.n_next = a.n_generated = 2;
    a.next.top_ids = top_ids;
    a.next.top_logprobs = top;
    a.next_scores = scores;
    a.stopped = true;
#define WRITTEN(reason)                                                                                      \
    "{\"text\":\"d\",\"output_ids\":[3,5],\"meta_info\":{\"id\":\"r\",\"finish_reason\":" reason             \
    ",\"prompt_tokens\":3,\"weight_version\":\"v\",\"num_retractions\":0,"                                   \
    "\"input_token_logprobs\":[[null,6,null]],\"output_token_logprobs\":[[-0.5,3,null],[-0.75,5,null]],"     \
    "\"output_token_logprobs_length\":2,\"input_top_logprobs\":[null],\"output_top_logprobs\":"              \
    "[[[-0.25,5,null],[-1.5,1,null]],[[-0.125,6,null],[-2.0,5,null]]],\"input_token_ids_logprobs\":[null],"  \
    "\"output_token_ids_logprobs\":[[[-3.0,9,null]],[[-4.0,9,null]]]" BACK("2") "}"
#define ASKED(n)                                                                                             \
    "{\"input_ids\":[4,5,6],\"sampling_params\":{\"max_new_tokens\":" n "},\"return_logprob\":true,"         \
    "\"top_logprobs_num\":2,\"token_ids_logprob\":[9]}"
    written(ASKED("2"), &a, WRITTEN("{\"type\":\"length\",\"length\":2}"));
    written(ASKED("8"), &a, WRITTEN("{\"type\":\"stop\",\"matched\":5}"));
    a.stop = "a\"b";
    written(ASKED("8"), &a, WRITTEN("{\"type\":\"stop\",\"matched\":\"a\\\"b\"}"));
}

/* The likeliest as arrays: 1 of the 2 in a row, and both as bytes. */
static void test_flat(void **state) {
    (void)state;
    struct lb_sglang_answer a = answer_at(0);
    written("{\"input_ids\":[4,5,6],\"sampling_params\":{\"max_new_tokens\":1},\"return_logprob\":true,"
            "\"logprob_start_len\":0,\"top_logprobs_num\":1,\"return_flat_raw_top_logprobs\":true}",
            &a,
            "{\"text\":\"d\",\"output_ids\":[3]" FRONT(
                "1") ",\"input_token_logprobs\":[[null,4,null],[-0.25,5,null],[-0.125,6,null]],"
                     "\"output_token_logprobs\":[[-0.5,3,null]],\"output_token_logprobs_length\":1,"
                     "\"input_top_logprobs_val_flat\":[-0.25,-0.125],\"input_top_logprobs_idx_flat\":[5,6],"
                     "\"input_top_logprobs_shape\":[2,1],\"input_top_logprobs_null_prefix\":1,"
                     "\"output_top_logprobs\":[[[-0.5,3,null]]]" BACK("1") "}");
    written("{\"input_ids\":[4,5,6],\"sampling_params\":{\"max_new_tokens\":1},\"return_logprob\":true,"
            "\"logprob_start_len\":0,\"top_logprobs_num\":2,\"return_flat_raw_top_logprobs\":true,"
            "\"return_flat_raw_top_logprobs_b64\":true}",
            &a,
            "{\"text\":\"d\",\"output_ids\":[3]" FRONT(
                "1") ",\"input_token_logprobs\":[[null,4,null],[-0.25,5,null],[-0.125,6,null]],"
                     "\"output_token_logprobs\":[[-0.5,3,null]],\"output_token_logprobs_length\":1,"
                     "\"input_top_logprobs_val_flat_b64\":\"AACAvgAAwL8AAAC+AAAAwA==\","
                     "\"input_top_logprobs_idx_flat_b64\":\"BQAAAAEAAAAGAAAABQAAAA==\","
                     "\"input_top_logprobs_val_flat_b64_dtype\":\"float32\","
                     "\"input_top_logprobs_idx_flat_b64_dtype\":\"int32\","
                     "\"input_top_logprobs_shape\":[2,2],\"input_top_logprobs_null_prefix\":1,"
                     "\"output_top_logprobs\":[[[-0.5,3,null],[-1.25,2,null]]]" BACK("1") "}");
    a = answer_at(3);
    written("{\"input_ids\":[4,5,6],\"sampling_params\":{\"max_new_tokens\":1},\"return_logprob\":true,"
            "\"top_logprobs_num\":2,\"return_flat_raw_top_logprobs\":true}",
            &a,
            "{\"text\":\"d\",\"output_ids\":[3]" FRONT(
                "1") ",\"input_token_logprobs\":[],"
                     "\"output_token_logprobs\":[[-0.5,3,null]],\"output_token_logprobs_length\":1,"
                     "\"input_top_logprobs_val_flat\":[],\"input_top_logprobs_idx_flat\":[],"
                     "\"input_top_logprobs_shape\":[0,2],\"input_top_logprobs_null_prefix\":0,"
                     "\"output_top_logprobs\":[[[-0.5,3,null],[-1.25,2,null]]]" BACK("1") "}");
}

/* Minus infinity is null; no number is an error, and so is an id that has no text, and a reader who left. */
static void test_failures(void **state) {
    (void)state;
    static const char body[] = "{\"input_ids\":[4,5,6],\"sampling_params\":{\"max_new_tokens\":1},"
                               "\"return_logprob\":true,\"return_text_in_logprobs\":true}";
    struct lb_sglang_answer a = answer_at(2);
    a.next_logprobs = (const float[]){-INFINITY};
    written(body, &a,
            "{\"text\":\"d\",\"output_ids\":[3]" FRONT(
                "1") ",\"input_token_logprobs\":[[null,6,\"f\"]],"
                     "\"output_token_logprobs\":[[null,3,\"f\"]],\"output_token_logprobs_length\":1" BACK(
                         "1") "}");
    for (int i = 0; i < 3; i++) {
        struct lb_buf buf;
        struct lb_sglang_generate r;
        atomic_bool gone = i == 2;
        lb_buf_init(&buf, 1 << 16);
        struct lb_vllm_writer writer = {.buf = &buf, .text = text_of, .gone = &gone, .detail = &detail};
        taken(body, &r);
        a = answer_at(2);
        static const float none[] = {NAN};
        static const int32_t unknown[] = {99};
        a.next_logprobs = i == 0 ? none : a.next_logprobs;
        a.next_ids = i == 1 ? unknown : a.next_ids;
        lb_sglang_put_answer(&writer, &r, &r.scores[0], &a);
        assert_int_equal(writer.status, i == 0 ? LB_E_INTERNAL : i == 1 ? LB_E_NOTFOUND : LB_E_CANCELLED);
        assert_non_null(strstr(detail.text, i == 0 ? "NaN" : i == 1 ? "99" : "left"));
        lb_buf_finish(&buf);
    }
}

int main(void) {
    lb_arena_init(&arena, 64u << 20);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_prompts), cmocka_unit_test(test_clients),
                                       cmocka_unit_test(test_refused), cmocka_unit_test(test_exchanges),
                                       cmocka_unit_test(test_written), cmocka_unit_test(test_flat),
                                       cmocka_unit_test(test_failures)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lb_arena_finish(&arena);
    return failed;
}
