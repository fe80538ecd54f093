/* limbeckd asked in vLLM's and OpenAI's dialect: the numbers are those of /v2, to the last bit, alignment,
 * ranks and texts are theirs, and so are errors. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "tests/e2e/ask.h"
#include "proto/outputs.h"
#include "tests/support/tiny_model.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define V 97
#define B 3
#define T 14
#define K 5
#define LONG_TOKEN 30000
#define TEMPLATE                                                                                             \
    "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }};{% endfor %}{% if add_generation_prompt %}>"  \
    "{% endif %}"
#define CONFIG "{\"eos_token\":{\"content\":\"!\",\"special\":true},\"chat_template\":\"" TEMPLATE "\"}"

static char folder[] = "/tmp/limbeck-e2e-vllm-XXXXXX";
static char teacher[160], bare[160], mlp[160];
static struct lb_daemon daemon_, guarded; /* guarded: one model, and tokens */
static int32_t ids[B * T];
static const int32_t lengths[B] = {T, 1, 6};

/* ---- asking ---- */

/* A completion of the prompts with more keys: ",\"max_tokens\":1,...". */
static json_t *complete(const char *model, const char *keys) {
    char body[4096], prompts[2048];
    lb_ask_put_lists(prompts, sizeof prompts, ids, B, T, lengths);
    snprintf(body, sizeof body, "{\"model\":\"%s\",\"prompt\":%s%s}", model, prompts, keys);
    return lb_ask_json(&daemon_, "/v1/completions", "", body, 200);
}

/* What /v2 says of the same sequences. */
static void reference(struct lb_ask *of, const char *model, double temperature) {
    lb_ask_ids(of, B, T, ids);
    lb_ask_input(of, LB_IN_LENGTHS, LB_DT_INT32, B, 0, lengths);
    of->request.top_k = K;
    of->request.temperature = temperature;
    static const char *const names[] = {"logits.topk_ids", "logprobs.topk_values", "logprobs.actual",
                                        "ranks.actual"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        lb_ask_output(of, names[i], LB_DT_NONE, true);
    }
    lb_ask_send_ok(&daemon_, model, of, "");
}

/* ---- numbers ---- */

/* Entry t + 1 of a prompt: k of the reference's row in their order, and the token itself, last where it is
 * not among them. */
static void check_entry(const json_t *entry, const struct lb_ask *of, int b, int t, int k) {
    int64_t row = (int64_t)b * T + t;
    int32_t own = ids[b * T + t + 1];
    const char *key;
    json_t *value;
    int i = 0;
    bool seen = false;
    json_object_foreach((json_t *)entry, key, value) {
        int32_t id = atoi(key);
        float logprob = lb_ask_number(json_object_get(value, "logprob"));
        int64_t rank = json_integer_value(json_object_get(value, "rank"));
        if (i < k) {
            assert_int_equal(id, lb_ask_integer(of, 0, row * K + i));
            assert_true(logprob == lb_ask_real(of, 1, row * K + i));
            assert_int_equal(rank, i + 1);
        } else {
            assert_int_equal(id, own);
            assert_int_equal(rank, lb_ask_integer(of, 3, row) + 1);
        }
        if (id == own) {
            assert_true(logprob == lb_ask_real(of, 2, row));
            seen = true;
        }
        i++;
    }
    assert_true(seen);
    assert_true(i == k || i == k + 1);
}

static void test_prompt_logprobs(void **state) {
    (void)state;
    static const struct {
        const char *keys;
        double temperature;
        int k;
    } asked[] = {{",\"max_tokens\":1,\"temperature\":1.5,\"prompt_logprobs\":5", 1.5, 5},
                 {",\"max_tokens\":0,\"prompt_logprobs\":2,\"echo\":true,\"logprobs\":true", 1, 2},
                 {",\"max_tokens\":1,\"temperature\":0,\"prompt_logprobs\":0", 1, 0}};
    const char *const models[] = {"teacher", "bare"};
    for (int i = 0; i < 6; i++) {
        const char *model = models[i % 2];
        struct lb_ask of;
        reference(&of, model, asked[i / 2].temperature);
        json_t *answer = complete(model, asked[i / 2].keys);
        assert_string_equal(json_string_value(json_object_get(answer, "model")), model);
        assert_string_equal(json_string_value(json_object_get(answer, "system_fingerprint")),
                            of.response.model_version);
        for (int b = 0; b < B; b++) {
            const json_t *list = json_object_get(lb_ask_choice(answer, (size_t)b), "prompt_logprobs");
            assert_int_equal(json_array_size(list), lengths[b]);
            assert_true(json_is_null(json_array_get(list, 0)));
            for (int t = 0; t + 1 < lengths[b]; t++) {
                check_entry(json_array_get(list, (size_t)t + 1), &of, b, t, asked[i / 2].k);
            }
        }
        assert_int_equal(json_integer_value(lb_ask_in(answer, "usage", "prompt_tokens")), T + 1 + 6);
        assert_int_equal(json_integer_value(lb_ask_in(answer, "usage", "completion_tokens")),
                         i / 2 == 1 ? 0 : B);
        json_decref(answer);
        lb_ask_finish(&of);
    }
    /* all of the vocabulary, an id too that the tokenizer has no text for */
    json_t *answer = complete("teacher", ",\"max_tokens\":0,\"prompt_logprobs\":-1");
    const json_t *list = json_object_get(lb_ask_choice(answer, 0), "prompt_logprobs");
    assert_int_equal(json_object_size(json_array_get(list, 1)), V);
    assert_string_equal(json_string_value(lb_ask_in(json_array_get(list, 1), "95", "decoded_token")), "");
    assert_string_equal(json_string_value(lb_ask_in(json_array_get(list, 1), "64", "decoded_token")), "a");
    json_decref(answer);
}

/* OpenAI's lists, as lm-evaluation-harness adds them up: one entry a token and one that is generated. */
static void test_logprobs(void **state) {
    (void)state;
    struct lb_ask of;
    reference(&of, "teacher", 1);
    json_t *answer = complete("teacher", ",\"max_tokens\":1,\"temperature\":0,\"logprobs\":1,\"seed\":1,"
                                         "\"echo\":true,\"return_token_ids\":true");
    for (int b = 0; b < B; b++) {
        const json_t *choice = lb_ask_choice(answer, (size_t)b);
        const json_t *own = lb_ask_in(choice, "logprobs", "token_logprobs");
        const json_t *top = lb_ask_in(choice, "logprobs", "top_logprobs");
        const json_t *offsets = lb_ask_in(choice, "logprobs", "text_offset");
        assert_int_equal(json_array_size(own), lengths[b] + 1);
        assert_int_equal(json_array_size(top), lengths[b] + 1);
        assert_true(json_is_null(json_array_get(own, 0)) && json_is_null(json_array_get(top, 0)));
        for (int t = 0; t < lengths[b]; t++) {
            int64_t row = (int64_t)b * T + t;
            bool last = t + 1 == lengths[b];
            float logprob = lb_ask_number(json_array_get(own, (size_t)t + 1)), most = -1e9f;
            assert_true(logprob == lb_ask_real(&of, last ? 1 : 2, last ? row * K : row));
            const char *key;
            json_t *value;
            json_object_foreach(json_array_get(top, (size_t)t + 1), key, value) {
                most = lb_ask_number(value) > most ? lb_ask_number(value) : most;
            }
            assert_true(most == lb_ask_real(&of, 1, row * K));
        }
        const json_t *generated = json_array_get(json_object_get(choice, "token_ids"), 0);
        assert_int_equal(json_integer_value(generated), lb_ask_integer(&of, 0, (b * T + lengths[b] - 1) * K));
        /* the tokens are the text, and say where they begin in it */
        struct lb_buf text;
        lb_buf_init(&text, 1 << 16);
        const json_t *tokens = lb_ask_in(choice, "logprobs", "tokens");
        for (size_t t = 0; t < json_array_size(tokens); t++) {
            assert_int_equal(json_integer_value(json_array_get(offsets, t)), text.len);
            lb_buf_append_str(&text, json_string_value(json_array_get(tokens, t)));
        }
        assert_int_equal(json_array_size(json_object_get(choice, "prompt_token_ids")), lengths[b]);
        bool ends = strcmp(json_string_value(json_object_get(choice, "finish_reason")), "stop") == 0;
        if (!ends) {
            assert_string_equal(json_string_value(json_object_get(choice, "text")), text.data);
        }
        lb_buf_finish(&text);
    }
    json_decref(answer);
    lb_ask_finish(&of);
}

/* One token of each prompt: the same for the same seed and the same as alone, others for others; its
 * log-probability is of the whole distribution. */
static void test_drawn(void **state) {
    (void)state;
    int64_t drawn[2][B];
    int unlike = 0;
    struct lb_ask of;
    lb_ask_ids(&of, B, T, ids);
    lb_ask_input(&of, LB_IN_LENGTHS, LB_DT_INT32, B, 0, lengths);
    of.request.temperature = 2;
    of.request.top_k = V;
    lb_ask_output(&of, "logits.topk_ids", LB_DT_NONE, true);
    lb_ask_output(&of, "logprobs.topk_values", LB_DT_NONE, true);
    lb_ask_send_ok(&daemon_, "teacher", &of, "");
    for (int seed = 0; seed < 6; seed++) {
        char keys[160];
        snprintf(keys, sizeof keys,
                 ",\"max_tokens\":1,\"temperature\":2,\"seed\":%d,\"logprobs\":0,\"return_token_ids\":true,"
                 "\"ignore_eos\":true",
                 seed / 2);
        json_t *answer = complete("teacher", keys);
        for (int b = 0; b < B; b++) {
            const json_t *choice = lb_ask_choice(answer, (size_t)b);
            int64_t id = json_integer_value(json_array_get(json_object_get(choice, "token_ids"), 0));
            const json_t *logprobs = lb_ask_in(choice, "logprobs", "token_logprobs");
            assert_int_equal(json_array_size(logprobs), 1);
            int64_t row = (int64_t)b * T + lengths[b] - 1;
            for (int i = 0; i < V; i++) {
                if (lb_ask_integer(&of, 0, row * V + i) == id) {
                    assert_true(lb_ask_number(json_array_get(logprobs, 0)) ==
                                lb_ask_real(&of, 1, row * V + i));
                }
            }
            if (seed % 2 == 1) {
                assert_int_equal(id, drawn[0][b]);
            }
            unlike += seed > 1 && seed % 2 == 0 && id != drawn[1][b];
            drawn[seed % 2][b] = id;
        }
        json_decref(answer);
    }
    assert_true(unlike > 0);
    lb_ask_finish(&of);
    json_t *answer = complete("teacher",
                              ",\"max_tokens\":1,\"temperature\":2,\"top_k\":1,\"return_token_ids\":true"),
           *greedy = complete("teacher", ",\"max_tokens\":1,\"temperature\":0,\"return_token_ids\":true");
    for (int b = 0; b < B; b++) {
        assert_true(json_equal(json_object_get(lb_ask_choice(answer, (size_t)b), "token_ids"),
                               json_object_get(lb_ask_choice(greedy, (size_t)b), "token_ids")));
    }
    json_decref(answer);
    json_decref(greedy);
}

/* Texts are written in the model's tokens, and a stop cuts what is generated. */
static void test_texts(void **state) {
    (void)state;
    json_t *answer = lb_ask_json(
        &daemon_, "/v1/completions", "X-Request-Id: mine\r\n",
        "{\"model\":\"teacher\",\"prompt\":[\"ab\",\"b\"],\"max_tokens\":1,\"temperature\":0,"
        "\"return_token_ids\":true,\"echo\":true,\"ignore_eos\":true,\"skip_special_tokens\":false}",
        200);
    assert_string_equal(json_string_value(json_object_get(answer, "id")), "cmpl-mine");
    const json_t *list = json_object_get(lb_ask_choice(answer, 0), "prompt_token_ids");
    assert_int_equal(json_array_size(list), 2);
    const char *text = json_string_value(json_object_get(lb_ask_choice(answer, 0), "text"));
    assert_memory_equal(text, "ab", 2);
    assert_true(text[2] != '\0');
    char body[400];
    int64_t id =
        json_integer_value(json_array_get(json_object_get(lb_ask_choice(answer, 0), "token_ids"), 0));
    snprintf(
        body, sizeof body,
        "{\"model\":\"teacher\",\"prompt\":\"ab\",\"max_tokens\":1,\"temperature\":0,\"ignore_eos\":true,"
        "\"stop_token_ids\":[%d]}",
        (int)id);
    json_t *stopped = lb_ask_json(&daemon_, "/v1/completions", "", body, 200);
    const json_t *choice = lb_ask_choice(stopped, 0);
    assert_string_equal(json_string_value(json_object_get(choice, "finish_reason")), "stop");
    assert_int_equal(json_integer_value(json_object_get(choice, "stop_reason")), id);
    assert_string_equal(json_string_value(json_object_get(choice, "text")), "");
    json_decref(stopped);
    json_decref(answer);
    struct lb_answer bytes;
    static const char nul[] = "{\"model\":\"teacher\",\"prompt\":[64,96,65],\"max_tokens\":0,\"echo\":true}";
    assert_true(lb_daemon_ask(&daemon_, "POST", "/v1/completions", "X-Request-Id: a\xff\r\n", nul,
                              strlen(nul), &bytes));
    assert_int_equal(bytes.status, 200);
    assert_non_null(strstr(bytes.body.data, "\"text\":\"a\\u0000b\""));
    assert_int_equal(lb_utf8_check(bytes.body.data, bytes.body.len), bytes.body.len);
    lb_answer_finish(&bytes);
}

/* ---- the tokenizer ---- */

static void check_tokens(const char *path, const char *body, const char *tokens, const char *strings) {
    json_t *answer = lb_ask_json(&daemon_, path, "", body, 200);
    char *got = json_dumps(json_object_get(answer, "tokens"), JSON_COMPACT);
    char *texts = json_dumps(json_object_get(answer, "token_strs"), JSON_COMPACT | JSON_ENCODE_ANY);
    assert_string_equal(got, tokens);
    assert_string_equal(texts, strings);
    assert_int_equal(json_integer_value(json_object_get(answer, "count")),
                     json_array_size(json_object_get(answer, "tokens")));
    assert_int_equal(json_integer_value(json_object_get(answer, "max_model_len")), 128);
    free(got);
    free(texts);
    json_decref(answer);
}

/* "!" is id 0; the template writes role:content; and >. */
static void test_tokenizer(void **state) {
    (void)state;
    check_tokens("/tokenize", "{\"model\":\"teacher\",\"prompt\":\"a!b\",\"return_token_strs\":true}",
                 "[64,0,65]", "[\"a\",\"!\",\"b\"]");
    check_tokens("/v1/tokenize", "{\"model\":\"teacher\",\"prompt\":\"\",\"add_special_tokens\":false}", "[]",
                 "null");
    check_tokens("/tokenize",
                 "{\"model\":\"teacher\",\"messages\":[{\"role\":\"u\",\"content\":\"a\"}],"
                 "\"return_token_strs\":true}",
                 "[84,25,64,26,29]", "[\"u\",\":\",\"a\",\";\",\">\"]");
    check_tokens("/tokenize",
                 "{\"model\":\"teacher\",\"messages\":[{\"role\":\"u\",\"content\":\"a\"}],"
                 "\"add_generation_prompt\":false}",
                 "[84,25,64,26]", "null");
    json_t *answer =
        lb_ask_json(&daemon_, "/detokenize", "", "{\"model\":\"teacher\",\"tokens\":[64,0,65]}", 200);
    assert_string_equal(json_string_value(json_object_get(answer, "prompt")), "a!b");
    json_decref(answer);
    json_t *info = NULL;
    struct lb_answer bytes;
    assert_true(lb_daemon_ask(&guarded, "GET", "/tokenizer_info", "Authorization: Bearer reader-token-1\r\n",
                              NULL, 0, &bytes));
    assert_int_equal(bytes.status, 200);
    assert_int_equal(lb_json_parse(bytes.body.data, bytes.body.len, 0, "info", &info, NULL), LB_OK);
    assert_string_equal(json_string_value(json_object_get(info, "eos_token")), "!");
    assert_string_equal(json_string_value(json_object_get(info, "chat_template")), TEMPLATE);
    assert_true(json_string_length(json_object_get(info, "tokenizer_class")) > 0);
    json_decref(info);
    lb_answer_finish(&bytes);
}

/* ---- what is there ---- */

static void test_models(void **state) {
    (void)state;
    json_t *list = lb_ask_json(&daemon_, "/v1/models", "", NULL, 200);
    const json_t *data = json_object_get(list, "data");
    assert_int_equal(json_array_size(data), 3);
    assert_string_equal(json_string_value(json_object_get(json_array_get(data, 0), "id")), "teacher");
    assert_string_equal(json_string_value(json_object_get(json_array_get(data, 0), "object")), "model");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(data, 0), "max_model_len")), 128);
    json_decref(list);
    list = lb_ask_json(&daemon_, "/v1/models/bare", "", NULL, 200);
    assert_string_equal(json_string_value(json_object_get(list, "id")), "bare");
    json_decref(list);
    json_decref(lb_ask_json(&daemon_, "/health", "", NULL, 200));
    list = lb_ask_json(&daemon_, "/version", "", NULL, 200);
    assert_true(json_string_length(json_object_get(list, "version")) > 0);
    json_decref(list);
}

/* ---- errors ---- */

static void check_error(const json_t *answer, int code, const char *param, const char *part) {
    const json_t *error = json_object_get(answer, "error");
    const char *message = json_string_value(json_object_get(error, "message"));
    const json_t *about = json_object_get(error, "param");
    assert_int_equal(json_integer_value(json_object_get(error, "code")), code);
    assert_true(json_string_length(json_object_get(error, "type")) > 0);
    if (!message || !strstr(message, part) || json_is_null(about) != !param ||
        (param && strcmp(json_string_value(about), param) != 0)) {
        char *all = json_dumps(answer, 0);
        fail_msg("%s: expected %s about %s", all, part, param ? param : "nothing");
    }
}

static void test_errors(void **state) {
    (void)state;
    static const struct {
        int status;
        const char *param, *part, *body;
    } bad[] = {
        {400, NULL, "not valid JSON", "{\"prompt\":"},
        {400, "model", "3 are served", "{\"prompt\":\"a\",\"max_tokens\":1}"},
        {404, "model", "nobody", "{\"model\":\"nobody\",\"prompt\":\"a\",\"max_tokens\":1}"},
        {400, "prompt", "missing", "{\"model\":\"teacher\"}"},
        {400, "max_tokens", "at most 128 tokens together",
         "{\"model\":\"teacher\",\"prompt\":\"a\",\"max_tokens\":128}"},
        {400, "max_tokens", "at most 65536", "{\"model\":\"teacher\",\"prompt\":\"a\",\"max_tokens\":65537}"},
        {400, "prompt_logprobs", "not told with stream",
         "{\"model\":\"teacher\",\"prompt\":\"a\",\"stream\":true,\"prompt_logprobs\":1}"},
        {400, NULL, "no tokenizer", "{\"model\":\"bare\",\"prompt\":\"a\",\"max_tokens\":1}"},
        {400, NULL, "does not write text", "{\"model\":\"mlp\",\"prompt\":[1],\"max_tokens\":1}"},
        {400, "prompt", "outside the vocabulary", "{\"model\":\"teacher\",\"prompt\":[97],\"max_tokens\":1}"},
        {400, NULL, "at most 128 tokens",
         "{\"model\":\"teacher\",\"max_tokens\":1,\"prompt\":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,"
         "0,0,"
         "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,"
         "0,0,"
         "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,"
         "0,0,0,"
         "0]}"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *answer = lb_ask_json(&daemon_, "/v1/completions", "", bad[i].body, bad[i].status);
        check_error(answer, bad[i].status, bad[i].param, bad[i].part);
        json_decref(answer);
    }
    static const struct {
        const char *path, *param, *part, *body;
    } others[] = {
        {"/tokenize", NULL, "empty", ""},
        {"/tokenize", NULL, "no tokenizer", "{\"model\":\"bare\",\"prompt\":\"a\"}"},
        {"/tokenize", "prompt", "missing", "{\"model\":\"teacher\"}"},
        {"/tokenize", "prompt", "give one", "{\"model\":\"teacher\",\"prompt\":\"a\",\"messages\":[]}"},
        {"/tokenize", "messages", "list", "{\"model\":\"teacher\",\"messages\":[]}"},
        {"/tokenize", "messages", "messages[0]",
         "{\"model\":\"teacher\",\"messages\":[{\"content\":\"a\"}]}"},
        {"/tokenize", "chat_template", "leave it out",
         "{\"model\":\"teacher\",\"messages\":[{\"role\":\"u\",\"content\":\"a\"}],\"chat_template\":\"x\"}"},
        {"/detokenize", "tokens", "tokens[1]", "{\"model\":\"teacher\",\"tokens\":[1,97]}"},
        {"/detokenize", "tokens", "list", "{\"model\":\"teacher\",\"tokens\":\"a\"}"},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        json_t *other = lb_ask_json(&daemon_, others[i].path, "", others[i].body, 400);
        check_error(other, 400, others[i].param, others[i].part);
        json_decref(other);
    }
    json_t *answer = lb_ask_json(&daemon_, "/tokenizer_info", "", NULL, 400);
    check_error(answer, 400, "model", "3 are served");
    json_decref(answer);
    answer = lb_ask_json(&daemon_, "/v1/nothing", "", NULL, 404);
    check_error(answer, 404, NULL, "no such path");
    json_decref(answer);
    answer = lb_ask_json(&daemon_, "/v1/completions", "", NULL, 405);
    check_error(answer, 405, NULL, "POST");
    json_decref(answer);
    answer = lb_ask_json(&daemon_, "/v1/models/nobody", "", NULL, 404);
    check_error(answer, 404, "model", "nobody");
    json_decref(answer);
}

/* One model needs no name; without a good token there is nothing. */
static void test_guarded(void **state) {
    (void)state;
    static const char body[] = "{\"prompt\":[1,2],\"max_tokens\":1}";
    json_t *answer = lb_ask_json(&guarded, "/v1/completions", "", body, 401);
    check_error(answer, 401, NULL, "token");
    json_decref(answer);
    answer = lb_ask_json(&guarded, "/v1/completions", "Authorization: Bearer \r\n", body, 401);
    json_decref(answer);
    answer = lb_ask_json(&guarded, "/v1/completions", "Authorization: Bearer reader-token-1\r\n", body, 200);
    assert_string_equal(json_string_value(json_object_get(answer, "model")), "teacher");
    json_decref(answer);
    /* a text of 30 MB, more than one request may have here */
    static char many[4000] = "{\"tokens\":[94";
    for (int i = 1; i < 1000; i++) {
        strcat(many, ",94");
    }
    strcat(many, "]}");
    answer = lb_ask_json(&guarded, "/detokenize", "Authorization: Bearer reader-token-1\r\n", many, 413);
    check_error(answer, 413, NULL, "--memory-limit-mib");
    json_decref(answer);
}

/* ---- start and stop ---- */

static void start(struct lb_daemon *out, const char *name, const char *const *arguments) {
    assert_true(lb_daemon_start(out, folder, name, arguments, true));
}

/* Id 94 is a long text, 95 is no token any more, and 96 is the byte 0. */
static void replace_tokens(const char *model) {
    static const char old[] = "\"<94>\":94,\"<95>\":95,\"<96>\":96";
    char *path = lb_path_join(model, "tokenizer.json");
    struct lb_buf json, with;
    lb_buf_init(&json, 1 << 20);
    lb_buf_init(&with, 1 << 20);
    assert_int_equal(lb_file_read(path, &json, NULL), LB_OK);
    const char *at = strstr(json.data, old);
    assert_non_null(at);
    lb_buf_append(&with, json.data, (size_t)(at - json.data));
    lb_buf_append_str(&with, "\"");
    memset(lb_buf_extend(&with, LONG_TOKEN), 'a', LONG_TOKEN);
    lb_buf_printf(&with, "\":94,\"\u0100\":96%s", at + strlen(old));
    assert_int_equal(lb_file_replace(path, with.data, with.len, NULL), LB_OK);
    lb_buf_finish(&with);
    lb_buf_finish(&json);
    lb_free(path);
}

static int start_all(void **state) {
    (void)state;
    struct lb_config config;
    char path[128], tokens[128];
    assert_non_null(mkdtemp(folder));
    lb_tiny_llama(&config);
    config.initializer_range = 0.5; /* so that answers differ */
    snprintf(path, sizeof path, "%s/teacher", folder);
    lb_tiny_save(&config, 1, path, LB_F32, true);
    snprintf(teacher, sizeof teacher, "teacher=%s", path);
    replace_tokens(path);
    char *config_path = lb_path_join(path, "tokenizer_config.json");
    assert_int_equal(lb_file_replace(config_path, CONFIG, strlen(CONFIG), NULL), LB_OK);
    lb_free(config_path);
    snprintf(path, sizeof path, "%s/bare", folder);
    lb_tiny_save(&config, 2, path, LB_F32, false);
    snprintf(bare, sizeof bare, "bare=%s", path);
    lb_tiny_mlp(&config);
    snprintf(path, sizeof path, "%s/mlp", folder);
    lb_tiny_save(&config, 3, path, LB_F32, false);
    snprintf(mlp, sizeof mlp, "mlp=%s", path);
    snprintf(tokens, sizeof tokens, "%s/tokens", folder);
    assert_int_equal(lb_file_replace(tokens, "reader-token-1\n", 15, NULL), LB_OK);
    assert_int_equal(chmod(tokens, 0600), 0);
    for (int i = 0; i < B * T; i++) {
        ids[i] = (i * 37 + 11) % V;
    }
    start(&daemon_, "daemon", (const char *[]){teacher, bare, mlp, NULL});
    start(&guarded, "guarded",
          (const char *[]){"--memory-limit-mib", "64", "--token-file", tokens, teacher, NULL});
    return 0;
}

static int stop_all(void **state) {
    (void)state;
    assert_int_equal(lb_daemon_stop(&daemon_, SIGTERM), 0);
    assert_int_equal(lb_daemon_stop(&guarded, SIGTERM), 0);
    assert_int_equal(lb_remove_tree(folder, NULL), LB_OK);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompt_logprobs), cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_drawn),           cmocka_unit_test(test_texts),
        cmocka_unit_test(test_tokenizer),       cmocka_unit_test(test_models),
        cmocka_unit_test(test_errors),          cmocka_unit_test(test_guarded),
    };
    return cmocka_run_group_tests(tests, start_all, stop_all);
}
