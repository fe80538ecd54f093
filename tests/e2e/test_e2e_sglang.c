/* limbeckd asked in SGLang's dialect: the numbers are those of /v2, to the last bit, alignment and shapes are
 * theirs, and so are errors. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "proto/outputs.h"
#include "tests/e2e/ask.h"
#include "tests/support/tiny_model.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define V 97
#define B 3
#define T 14
#define K 5
#define S 3 /* scored ids of a position */

static char folder[] = "/tmp/limbeck-e2e-sglang-XXXXXX";
static char teacher[160], bare[160];
static struct lb_daemon daemon_, two; /* one model with a tokenizer; that and one without */
static int32_t ids[B * T], scored[B * T * S];
static const int32_t lengths[B] = {T, 1, 6};

/* ---- asking ---- */

/* The prompts [B], or the first alone, with more keys. */
static json_t *generate(const struct lb_daemon *of, bool batch, const char *keys) {
    char body[8192];
    size_t n = (size_t)snprintf(body, sizeof body, "{\"input_ids\":");
    n += batch ? lb_ask_put_lists(body + n, sizeof body - n, ids, B, T, lengths)
               : lb_ask_put_ids(body + n, sizeof body - n, ids, lengths[0]);
    snprintf(body + n, sizeof body - n, "%s}", keys);
    return lb_ask_json(of, "/generate", "", body, 200);
}

static const json_t *meta(const json_t *answer, const char *key) {
    const json_t *value = json_object_get(json_object_get(answer, "meta_info"), key);
    assert_non_null(value);
    return value;
}

/* What /v2 says of the same sequences. */
static void reference(struct lb_ask *of, double temperature) {
    lb_ask_ids(of, B, T, ids);
    lb_ask_input(of, LB_IN_LENGTHS, LB_DT_INT32, B, 0, lengths);
    struct lb_wire_tensor *at = &of->inputs[of->request.n_inputs++];
    *at = (struct lb_wire_tensor){.name = LB_IN_SCORE_IDS,
                                  .datatype = LB_DT_INT32,
                                  .n_dims = 3,
                                  .dim = {B, T, S},
                                  .data = scored,
                                  .bytes = sizeof scored,
                                  .binary = true};
    of->request.top_k = K;
    of->request.temperature = temperature;
    static const char *const names[] = {"logits.topk_ids", "logprobs.topk_values", "logprobs.actual",
                                        "logprobs.at_ids"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        lb_ask_output(of, names[i], LB_DT_NONE, true);
    }
    lb_ask_send_ok(&daemon_, "teacher", of, "");
}

/* [logprob, id, null] */
static void check_triple(const json_t *triple, float logprob, int32_t id) {
    assert_int_equal(json_array_size(triple), 3);
    assert_true((float)json_real_value(json_array_get(triple, 0)) == logprob);
    assert_int_equal(json_integer_value(json_array_get(triple, 1)), id);
    assert_true(json_is_null(json_array_get(triple, 2)));
}

static void check_top(const json_t *list, const struct lb_ask *of, int64_t row, int k) {
    assert_int_equal(json_array_size(list), k);
    for (int i = 0; i < k; i++) {
        check_triple(json_array_get(list, (size_t)i), lb_ask_real(of, 1, row * K + i),
                     lb_ask_integer(of, 0, row * K + i));
    }
}

static void check_scored(const json_t *list, const struct lb_ask *of, int64_t row) {
    assert_int_equal(json_array_size(list), S);
    for (int i = 0; i < S; i++) {
        check_triple(json_array_get(list, (size_t)i), lb_ask_real(of, 3, row * S + i), scored[row * S + i]);
    }
}

/* ---- numbers ---- */

/* A list of answers for a list of prompts, at temperature 1 whatever is said. */
static void test_prompts(void **state) {
    (void)state;
    static const int starts[] = {0, 1};
    static const char *const rids[] = {"\"r\"", "[\"r_0\",\"r_1\",\"r_2\"]"}; /* one is numbered */
    struct lb_ask of;
    reference(&of, 1);
    char keys[400], chosen[64];
    lb_ask_put_ids(chosen, sizeof chosen, scored, S);
    for (size_t s = 0; s < 2; s++) {
        snprintf(keys, sizeof keys,
                 ",\"sampling_params\":{\"max_new_tokens\":0,\"temperature\":1.5},\"return_logprob\":true,"
                 "\"logprob_start_len\":[%d,0,%d],\"top_logprobs_num\":3,\"token_ids_logprob\":%s,\"rid\":%s",
                 starts[s], starts[s], chosen, rids[s]);
        json_t *answers = generate(&daemon_, true, keys);
        assert_int_equal(json_array_size(answers), B);
        for (int b = 0; b < B; b++) {
            const json_t *answer = json_array_get(answers, (size_t)b);
            const json_t *own = meta(answer, "input_token_logprobs"),
                         *top = meta(answer, "input_top_logprobs");
            const json_t *at = meta(answer, "input_token_ids_logprobs");
            int first = b == 1 ? 0 : starts[s];
            int n = lengths[b] - first;
            assert_int_equal(json_array_size(own), n);
            assert_int_equal(json_array_size(top), n);
            assert_int_equal(json_array_size(at), n);
            assert_true(json_is_null(json_array_get(json_array_get(own, 0), 0)));
            assert_int_equal(json_integer_value(json_array_get(json_array_get(own, 0), 1)),
                             ids[b * T + first]);
            assert_true(json_is_null(json_array_get(top, 0)) && json_is_null(json_array_get(at, 0)));
            for (int i = 1; i < n; i++) {
                int64_t row = b * T + first + i - 1;
                check_triple(json_array_get(own, (size_t)i), lb_ask_real(&of, 2, row), ids[row + 1]);
                check_top(json_array_get(top, (size_t)i), &of, row, 3);
                if (b == 0 && row == 0) {
                    check_scored(json_array_get(at, (size_t)i), &of, row);
                }
                assert_int_equal(json_array_size(json_array_get(at, (size_t)i)), S);
            }
            int64_t last = b * T + lengths[b] - 1;
            const json_t *next = json_array_get(meta(answer, "output_token_logprobs"), 0);
            check_triple(next, lb_ask_real(&of, 1, last * K), lb_ask_integer(&of, 0, last * K));
            check_top(json_array_get(meta(answer, "output_top_logprobs"), 0), &of, last, 3);
            assert_int_equal(json_integer_value(meta(answer, "prompt_tokens")), lengths[b]);
            assert_int_equal(json_integer_value(meta(answer, "completion_tokens")), 0);
            assert_int_equal(json_array_size(json_object_get(answer, "output_ids")), 0);
            assert_string_equal(json_string_value(meta(answer, "weight_version")), of.response.model_version);
            char name[16];
            snprintf(name, sizeof name, "r_%d", b);
            assert_string_equal(json_string_value(meta(answer, "id")), name);
        }
        json_decref(answers);
    }
    lb_ask_finish(&of);
}

/* Other ids at each position: list t is about token t. */
static void test_positions(void **state) {
    (void)state;
    struct lb_ask of;
    reference(&of, 1);
    char keys[2048];
    size_t n = (size_t)snprintf(keys, sizeof keys,
                                ",\"sampling_params\":{\"max_new_tokens\":0},\"return_logprob\":true,"
                                "\"logprob_start_len\":0,\"token_ids_logprob_positions\":[[],[]");
    for (int t = 2; t < T; t++) {
        n += (size_t)snprintf(keys + n, sizeof keys - n, ",");
        n += lb_ask_put_ids(keys + n, sizeof keys - n, scored + (t - 1) * S, S);
    }
    snprintf(keys + n, sizeof keys - n, "]");
    json_t *answer = generate(&daemon_, false, keys);
    const json_t *at = meta(answer, "input_token_ids_logprobs");
    assert_int_equal(json_array_size(at), T);
    assert_true(json_is_null(json_array_get(at, 0)) && json_is_null(json_array_get(at, 1)));
    for (int t = 2; t < T; t++) {
        check_scored(json_array_get(at, (size_t)t), &of, t - 1);
    }
    assert_int_equal(json_array_size(meta(answer, "output_token_ids_logprobs")), 0);
    json_decref(answer);
    lb_ask_finish(&of);
}

/* One token that is drawn: its log-probability, and those beside it, are at the temperature it was drawn at,
 * and the prompt's are not. */
static void test_drawn(void **state) {
    (void)state;
    struct lb_ask of, hot;
    char keys[400], chosen[64];
    int32_t same[S];
    for (int i = 0; i < S; i++) {
        same[i] = scored[(T - 1) * S + i];
    }
    reference(&of, 1);
    reference(&hot, 2);
    lb_ask_put_ids(chosen, sizeof chosen, same, S);
    snprintf(
        keys, sizeof keys,
        ",\"sampling_params\":{\"max_new_tokens\":1,\"temperature\":2,\"top_k\":3,\"sampling_seed\":5},"
        "\"return_logprob\":true,\"logprob_start_len\":0,\"top_logprobs_num\":3,\"token_ids_logprob\":%s",
        chosen);
    json_t *answer = generate(&daemon_, false, keys), *again = generate(&daemon_, false, keys);
    assert_true(json_equal(json_object_get(answer, "output_ids"), json_object_get(again, "output_ids")));
    int64_t id = json_integer_value(json_array_get(json_object_get(answer, "output_ids"), 0));
    const json_t *top = json_array_get(meta(answer, "output_top_logprobs"), 0);
    const json_t *next = json_array_get(meta(answer, "output_token_logprobs"), 0);
    const json_t *at = json_array_get(meta(answer, "output_token_ids_logprobs"), 0);
    bool found = false;
    for (int i = 0; i < 3; i++) {
        const json_t *triple = json_array_get(top, (size_t)i);
        double logprob = json_real_value(json_array_get(triple, 0));
        assert_int_equal(json_integer_value(json_array_get(triple, 1)),
                         lb_ask_integer(&hot, 0, (T - 1) * K + i));
        assert_true(fabs(logprob - (double)lb_ask_real(&hot, 1, (T - 1) * K + i)) < 1e-5);
        if (json_integer_value(json_array_get(triple, 1)) == id) {
            assert_int_equal(json_integer_value(json_array_get(next, 1)), id);
            assert_true((float)json_real_value(json_array_get(next, 0)) ==
                        lb_ask_real(&hot, 1, (T - 1) * K + i));
            found = true;
        }
        triple = json_array_get(at, (size_t)i);
        assert_true(fabs(json_real_value(json_array_get(triple, 0)) -
                         (double)lb_ask_real(&hot, 3, (T - 1) * S + i)) < 1e-5);
    }
    assert_true(found);
    check_triple(json_array_get(meta(answer, "input_token_logprobs"), 1), lb_ask_real(&of, 2, 0), ids[1]);
    assert_int_equal(json_integer_value(meta(answer, "completion_tokens")), 1);
    json_decref(answer);
    json_decref(again);
    lb_ask_finish(&of);
    lb_ask_finish(&hot);
}

/* The chosen ids beside each of n tokens that were written behind prompt b are what they are where the whole
 * text is scored. */
static void check_written_scores(const json_t *answer, int b, size_t n, const char *chosen) {
    int32_t text[T + 8];
    char body[1000];
    memcpy(text, ids + (ptrdiff_t)b * T, (size_t)lengths[b] * sizeof *text);
    for (size_t t = 0; t < n; t++) {
        const json_t *id = json_array_get(json_object_get(answer, "output_ids"), t);
        text[(size_t)lengths[b] + t] = (int32_t)json_integer_value(id);
    }
    size_t used = (size_t)snprintf(body, sizeof body, "{\"input_ids\":");
    used += lb_ask_put_ids(body + used, sizeof body - used, text, lengths[b] + (int64_t)n);
    snprintf(body + used, sizeof body - used,
             ",\"sampling_params\":{\"max_new_tokens\":0},\"return_logprob\":true,"
             "\"logprob_start_len\":0,\"token_ids_logprob\":%s}",
             chosen);
    json_t *whole = lb_ask_json(&daemon_, "/generate", "", body, 200);
    for (size_t t = 0; t < n; t++) {
        const json_t *one = json_array_get(meta(answer, "output_token_ids_logprobs"), t);
        const json_t *other = json_array_get(meta(whole, "input_token_ids_logprobs"), (size_t)lengths[b] + t);
        assert_int_equal(json_array_size(one), S);
        for (size_t s = 0; s < S; s++) {
            const json_t *x = json_array_get(one, s), *y = json_array_get(other, s);
            assert_int_equal(json_integer_value(json_array_get(x, 1)), scored[s]);
            assert_true(fabs(json_real_value(json_array_get(x, 0)) - json_real_value(json_array_get(y, 0))) <
                        1e-4);
        }
    }
    json_decref(whole);
}

/* More than one token: what /v1/completions writes, with the likeliest and the chosen ids beside each; the
 * prompt's own are told too where that is asked. */
static void test_written(void **state) {
    (void)state;
    char keys[500], body[1000], chosen[64];
    lb_ask_put_ids(chosen, sizeof chosen, scored, S);
    for (int listed = 0; listed < 2; listed++) {
        snprintf(keys, sizeof keys,
                 ",\"sampling_params\":{\"max_new_tokens\":6,\"temperature\":0,\"ignore_eos\":true},"
                 "\"return_logprob\":true,\"top_logprobs_num\":2,\"token_ids_logprob\":%s%s",
                 chosen, listed ? ",\"logprob_start_len\":0" : "");
        json_t *answers = generate(&daemon_, true, keys);
        for (int b = 0; b < B; b++) {
            const json_t *answer = json_array_get(answers, (size_t)b);
            size_t n = (size_t)snprintf(body, sizeof body,
                                        "{\"max_tokens\":6,\"temperature\":0,\"ignore_eos\":true,"
                                        "\"return_token_ids\":true,\"logprobs\":1,\"prompt\":");
            n += lb_ask_put_ids(body + n, sizeof body - n, ids + (ptrdiff_t)b * T, lengths[b]);
            snprintf(body + n, sizeof body - n, "}");
            json_t *other = lb_ask_json(&daemon_, "/v1/completions", "", body, 200);
            const json_t *choice = json_array_get(json_object_get(other, "choices"), 0);
            assert_true(
                json_equal(json_object_get(answer, "output_ids"), json_object_get(choice, "token_ids")));
            assert_string_equal(json_string_value(json_object_get(answer, "text")),
                                json_string_value(json_object_get(choice, "text")));
            const json_t *own = meta(answer, "output_token_logprobs"),
                         *top = meta(answer, "output_top_logprobs");
            const json_t *at = meta(answer, "output_token_ids_logprobs");
            assert_int_equal(json_array_size(own), 6);
            assert_int_equal(json_array_size(top), 6);
            assert_int_equal(json_array_size(at), 6);
            const json_t *theirs = json_object_get(json_object_get(choice, "logprobs"), "token_logprobs");
            for (size_t t = 0; t < 6; t++) {
                const json_t *triple = json_array_get(own, t);
                assert_true(json_equal(json_array_get(triple, 0), json_array_get(theirs, t)));
                assert_true(json_equal(triple, json_array_get(json_array_get(top, t), 0)));
            }
            check_written_scores(answer, b, 6, chosen);
            assert_int_equal(json_array_size(meta(answer, "input_token_logprobs")), listed ? lengths[b] : 1);
            assert_string_equal(json_string_value(json_object_get(meta(answer, "finish_reason"), "type")),
                                "length");
            json_decref(other);
        }
        json_decref(answers);
    }
    json_t *whole = generate(&daemon_, false,
                             ",\"sampling_params\":{\"max_new_tokens\":6,\"temperature\":0,"
                             "\"ignore_eos\":true}");
    json_int_t stop = json_integer_value(json_array_get(json_object_get(whole, "output_ids"), 2));
    snprintf(keys, sizeof keys,
             ",\"sampling_params\":{\"max_new_tokens\":6,\"temperature\":0,\"ignore_eos\":true,"
             "\"stop_token_ids\":[%d]}",
             (int)stop);
    json_t *cut = generate(&daemon_, false, keys);
    const json_t *reason = meta(cut, "finish_reason");
    assert_string_equal(json_string_value(json_object_get(reason, "type")), "stop");
    assert_int_equal(json_integer_value(json_object_get(reason, "matched")), stop);
    assert_true(json_integer_value(meta(cut, "completion_tokens")) <= 3);
    json_decref(whole);
    json_decref(cut);
}

static void test_texts(void **state) {
    (void)state;
    json_t *answer =
        lb_ask_json(&daemon_, "/generate", "",
                    "{\"text\":\"ab\",\"sampling_params\":{\"max_new_tokens\":1,\"temperature\":0,"
                    "\"skip_special_tokens\":false},\"return_logprob\":true,\"logprob_start_len\":0,"
                    "\"return_text_in_logprobs\":true,\"return_prompt_token_ids\":true}",
                    200);
    const json_t *own = meta(answer, "input_token_logprobs");
    assert_int_equal(json_array_size(own), 2);
    assert_string_equal(json_string_value(json_array_get(json_array_get(own, 0), 2)), "a");
    assert_string_equal(json_string_value(json_array_get(json_array_get(own, 1), 2)), "b");
    const json_t *next = json_array_get(meta(answer, "output_token_logprobs"), 0);
    assert_true(json_string_length(json_object_get(answer, "text")) > 0);
    assert_string_equal(json_string_value(json_object_get(answer, "text")),
                        json_string_value(json_array_get(next, 2)));
    assert_int_equal(json_array_size(json_object_get(answer, "prompt_token_ids")), 2);
    json_decref(answer);
    /* by default nothing is listed of the prompt; without return_logprob nothing at all */
    answer = generate(&daemon_, false, ",\"sampling_params\":{\"max_new_tokens\":1},\"return_logprob\":true");
    assert_int_equal(json_array_size(meta(answer, "input_token_logprobs")), 1);
    json_decref(answer);
    answer = generate(&daemon_, false, ",\"sampling_params\":{\"max_new_tokens\":0},\"return_logprob\":true");
    assert_int_equal(json_array_size(meta(answer, "input_token_logprobs")), 0);
    assert_int_equal(json_array_size(meta(answer, "output_token_logprobs")), 1);
    json_decref(answer);
    answer = generate(&daemon_, false, ",\"sampling_params\":{\"max_new_tokens\":1}");
    assert_null(json_object_get(json_object_get(answer, "meta_info"), "output_token_logprobs"));
    json_decref(answer);
}

/* ---- what there is, and what not ---- */

static void test_others(void **state) {
    (void)state;
    static const char *const infos[] = {"/model_info", "/get_model_info", "/server_info", "/get_server_info"};
    for (size_t i = 0; i < sizeof infos / sizeof *infos; i++) {
        json_t *info = lb_ask_json(&daemon_, infos[i], "", NULL, 200);
        assert_string_equal(json_string_value(json_object_get(info, "model_path")), "teacher");
        assert_int_equal(json_string_length(json_object_get(info, "weight_version")), 64);
        if (i < 2) {
            assert_true(json_is_true(json_object_get(info, "is_generation")));
        } else {
            assert_int_equal(json_integer_value(json_object_get(info, "context_length")), 128);
        }
        json_decref(info);
    }
    json_decref(lb_ask_json(&daemon_, "/health_generate", "", NULL, 200));
    struct lb_answer answer;
    assert_true(lb_daemon_ask(&daemon_, "POST", "/flush_cache", "", NULL, 0, &answer));
    assert_int_equal(answer.status, 200);
    lb_answer_finish(&answer);
    /* of two models one is named */
    json_t *named = generate(&two, false, ",\"model\":\"bare\",\"sampling_params\":{\"max_new_tokens\":1}");
    assert_string_equal(json_string_value(json_object_get(named, "text")), "");
    json_decref(named);
}

static void test_errors(void **state) {
    (void)state;
    static const struct {
        const char *body, *part;
    } bad[] = {
        {"{", "not valid JSON"},
        {"{\"input_ids\":[1]}", "max_new_tokens is 128, and prompt 0 has 1 tokens"},
        {"{\"input_ids\":[1],\"sampling_params\":{\"max_new_tokens\":65537}}", "at most 65536"},
        {"{\"input_ids\":[97],\"sampling_params\":{\"max_new_tokens\":1}}", "outside the vocabulary"},
        {"{\"input_ids\":[1],\"sampling_params\":{\"max_new_tokens\":1},\"stream\":\"yes\"}", "stream"},
        {"{\"input_ids\":[1],\"sampling_params\":{\"max_new_tokens\":1},\"return_logprob\":true,"
         "\"logprob_start_len\":1}",
         "logprob_start_len is 1, and prompt 0 has 1"},
        {"{\"input_ids\":[1],\"sampling_params\":{\"max_new_tokens\":0},\"return_logprob\":true,"
         "\"token_ids_logprob\":[97]}",
         "token_ids_logprob: 97: outside"},
        {"{\"input_ids\":[1],\"sampling_params\":{\"max_new_tokens\":2},\"return_logprob\":true,"
         "\"token_ids_logprob\":[97]}",
         "token_ids_logprob: 97: outside"},
        {"{\"input_ids\":[1,2],\"sampling_params\":{\"max_new_tokens\":0},\"return_logprob\":true,"
         "\"token_ids_logprob_positions\":[[],[97]]}",
         "positions: 97: outside"},
        {"{\"input_ids\":[1,2],\"sampling_params\":{\"max_new_tokens\":0},\"return_logprob\":true,"
         "\"token_ids_logprob_positions\":[[]]}",
         "has 1 lists for the 2 tokens"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *answer = lb_ask_json(&daemon_, "/generate", "", bad[i].body, 400);
        const json_t *error = json_object_get(answer, "error");
        const char *message = json_string_value(json_object_get(error, "message"));
        if (!message || !strstr(message, bad[i].part)) {
            fail_msg("%s: %s", bad[i].body, message ? message : "no message");
        }
        json_decref(answer);
    }
    json_decref(lb_ask_json(&two, "/generate", "",
                            "{\"input_ids\":[1],\"sampling_params\":{\"max_new_tokens\":1}}", 400));
    json_decref(lb_ask_json(
        &two, "/generate", "",
        "{\"model\":\"nobody\",\"input_ids\":[1],\"sampling_params\":{\"max_new_tokens\":1}}", 404));
    json_decref(lb_ask_json(&two, "/generate", "",
                            "{\"model\":\"bare\",\"text\":\"a\",\"sampling_params\":{\"max_new_tokens\":1}}",
                            400));
    json_decref(lb_ask_json(&two, "/get_model_info", "", NULL, 400));
}

/* ---- start and stop ---- */

static int start_all(void **state) {
    (void)state;
    struct lb_config config;
    char path[128];
    assert_non_null(mkdtemp(folder));
    lb_tiny_llama(&config);
    config.initializer_range = 0.5; /* so that answers differ */
    snprintf(path, sizeof path, "%s/teacher", folder);
    lb_tiny_save(&config, 1, path, LB_F32, true);
    snprintf(teacher, sizeof teacher, "teacher=%s", path);
    snprintf(path, sizeof path, "%s/bare", folder);
    lb_tiny_save(&config, 2, path, LB_F32, false);
    snprintf(bare, sizeof bare, "bare=%s", path);
    for (int i = 0; i < B * T; i++) {
        ids[i] = (i * 37 + 11) % V;
        for (int s = 0; s < S; s++) {
            scored[i * S + s] = (i * 13 + s * 29 + 7) % V;
        }
    }
    assert_true(lb_daemon_start(&daemon_, folder, "daemon", (const char *[]){teacher, NULL}, true));
    assert_true(lb_daemon_start(&two, folder, "two", (const char *[]){teacher, bare, NULL}, true));
    return 0;
}

static int stop_all(void **state) {
    (void)state;
    assert_int_equal(lb_daemon_stop(&daemon_, SIGTERM), 0);
    assert_int_equal(lb_daemon_stop(&two, SIGTERM), 0);
    assert_int_equal(lb_remove_tree(folder, NULL), LB_OK);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts), cmocka_unit_test(test_positions), cmocka_unit_test(test_drawn),
        cmocka_unit_test(test_written), cmocka_unit_test(test_texts),     cmocka_unit_test(test_others),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, start_all, stop_all);
}
