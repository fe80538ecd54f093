/* Texts that are told while they are written: joined they are the answer that is told at once, in both
 * dialects; clients who leave, and the daemon's end. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "tests/e2e/ask.h"
#include "tests/support/peer.h"
#include "tests/support/tiny_model.h"
#include "tests/support/tiny_tokenizer.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LONGEST 65536

static char folder[] = "/tmp/limbeck-stream-XXXXXX";
static char teacher[160]; /* its texts are any bytes, and may be long */
static struct lb_daemon daemon_;

/* ---- joined ---- */

/* The events of a request, to which stream is added. */
static json_t *streamed(const char *path, const char *keys) {
    struct lb_answer answer;
    char body[4096];
    int n = snprintf(body, sizeof body, "{\"stream\":true,%s}", keys);
    assert_true(lb_daemon_ask(&daemon_, "POST", path, "", body, (size_t)n, &answer));
    if (answer.status != 200) {
        fail_msg("%s: %d: %s", body, answer.status, answer.body.data);
    }
    json_t *events = lb_ask_events(&answer);
    lb_answer_finish(&answer);
    return events;
}

static json_t *at_once(const char *path, const char *keys) {
    char body[4096];
    snprintf(body, sizeof body, "{%s}", keys);
    return lb_ask_json(&daemon_, path, "", body, 200);
}

/* Appends b to a where both are strings or lists; objects member by member, others as in b. */
static json_t *joined(json_t *a, json_t *b) {
    const char *key;
    json_t *value;
    if (json_is_string(a) && json_is_string(b)) {
        size_t n = json_string_length(a), m = json_string_length(b);
        char *text = malloc(n + m + 1);
        assert_non_null(text);
        memcpy(text, json_string_value(a), n);
        memcpy(text + n, json_string_value(b), m);
        json_string_setn(a, text, n + m);
        free(text);
    } else if (json_is_array(a) && json_is_array(b)) {
        json_array_extend(a, b);
    } else if (json_is_object(a) && json_is_object(b)) {
        json_object_foreach(b, key, value) {
            json_t *had = json_object_get(a, key);
            json_t *now = had ? joined(had, value) : json_deep_copy(value);
            if (now != had) {
                json_object_set_new(a, key, now);
            }
        }
    } else if (!json_is_null(b)) {
        return json_deep_copy(b);
    }
    return a;
}

/* The choices of all events, each joined; none has an end before its last. */
static json_t *choices_of(const json_t *events, size_t n) {
    json_t *choices = json_array(), *event;
    size_t i;
    for (size_t b = 0; b < n; b++) {
        json_array_append_new(choices, json_object());
    }
    json_array_foreach(events, i, event) {
        const json_t *list = json_object_get(event, "choices");
        json_t *one = json_array_get(list, 0), *all = NULL;
        if (!one) {
            assert_int_equal(i + 1, json_array_size(events)); /* the one with usage */
            continue;
        }
        assert_int_equal(json_array_size(list), 1);
        all = json_array_get(choices, (size_t)json_integer_value(json_object_get(one, "index")));
        assert_non_null(all);
        assert_false(json_is_string(json_object_get(all, "finish_reason")));
        joined(all, one);
    }
    return choices;
}

/* What a completion says at once and what it says in events, but for the names. Gives the number of events.
 */
static size_t check_completion(const char *keys, size_t n) {
    json_t *whole = at_once("/v1/completions", keys), *choice, *value;
    json_t *events = streamed("/v1/completions", keys), *choices = choices_of(events, n);
    const json_t *list = json_object_get(whole, "choices");
    const char *key;
    size_t b, n_events = json_array_size(events);
    assert_int_equal(json_array_size(list), n);
    json_array_foreach(list, b, choice) {
        json_object_foreach(choice, key, value) {
            const json_t *told = json_object_get(json_array_get(choices, b), key);
            if (strcmp(key, "prompt_logprobs") != 0 && !json_equal(value, told)) {
                char *is = json_dumps(told, JSON_ENCODE_ANY), *should = json_dumps(value, JSON_ENCODE_ANY);
                fail_msg("%s: choice %zu: %s is %s, not %s", keys, b, key, is, should);
            }
        }
    }
    json_decref(choices);
    json_decref(events);
    json_decref(whole);
    return n_events;
}

#define WRITTEN "\"max_tokens\":40,\"ignore_eos\":true,\"return_token_ids\":true,"
/* Texts that are any bytes can't all be keys: jansson takes none with a NUL. */
#define AS_IDS ",\"logprobs\":2,\"return_tokens_as_token_ids\":true"
#define THREE "\"prompt\":[[65,66,67],[100],[3,200,4,4,4]],"

static void test_completions(void **state) {
    (void)state;
    assert_in_range(check_completion(WRITTEN THREE "\"temperature\":0", 3), 3, 120);
    /* any bytes, of which few are characters; parts of such are not told before it is known */
    for (int seed = 0; seed < 6; seed++) {
        char keys[300];
        snprintf(keys, sizeof keys,
                 WRITTEN THREE "\"temperature\":3,\"seed\":%d,\"skip_special_tokens\":%s%s", seed,
                 seed % 2 ? "true" : "false", seed < 3 ? "" : AS_IDS);
        (void)check_completion(keys, 3);
    }
    (void)check_completion(
        WRITTEN "\"prompt\":[\"abc\",\"d\u00e9\"],\"temperature\":2,\"seed\":4,\"echo\":true" AS_IDS, 2);
    (void)check_completion(WRITTEN "\"prompt\":\"abc\",\"temperature\":2,\"seed\":4,\"echo\":true", 1);
    /* one token, and none: all comes at once */
    assert_int_equal(check_completion(THREE "\"max_tokens\":1,\"temperature\":0" AS_IDS, 3), 3);
    assert_int_equal(check_completion("\"prompt\":\"abc\",\"max_tokens\":0,\"echo\":true,\"logprobs\":1", 1),
                     1);
}

/* What a stop may take away is held back; what it doesn't comes after all. */
static void test_stops(void **state) {
    (void)state;
    static const char keys[] = WRITTEN "\"prompt\":[64,65],\"temperature\":1.5,\"seed\":3,";
    char more[600], stop[64];
    snprintf(more, sizeof more, "%s\"skip_special_tokens\":false", keys);
    json_t *whole = at_once("/v1/completions", more);
    const char *text = json_string_value(json_object_get(lb_ask_choice(whole, 0), "text"));
    size_t at = 0, len = strlen(text);
    /* three visible characters of the text's second half, which no JSON string hides */
    for (size_t i = len / 2; at == 0 && i + 3 < len; i++) {
        bool plain = true;
        for (size_t k = i; k < i + 3; k++) {
            plain = plain && text[k] > ' ' && text[k] < 0x7f && text[k] != '"' && text[k] != '\\';
        }
        at = plain ? i : 0;
    }
    assert_true(at > 0); /* without such a place nothing would be held back */
    snprintf(stop, sizeof stop, "%.3s", text + at);
    for (int include = 0; include < 2; include++) {
        snprintf(more, sizeof more,
                 "%s\"skip_special_tokens\":false,\"stop\":[\"nowhere to be found\",\"%s\"],"
                 "\"include_stop_str_in_output\":%s",
                 keys, stop, include ? "true" : "false");
        (void)check_completion(more, 1);
    }
    int first =
        (int)json_integer_value(json_array_get(json_object_get(lb_ask_choice(whole, 0), "token_ids"), 20));
    snprintf(more, sizeof more, "%s\"stop_token_ids\":[%d]", keys, first);
    (void)check_completion(more, 1);
    json_decref(whole);
}

/* Usage comes where it is asked for, and is what it is at once. */
static void test_usage(void **state) {
    (void)state;
    static const char keys[] = WRITTEN THREE "\"temperature\":0";
    char more[400];
    json_t *whole = at_once("/v1/completions", keys), *event;
    for (int each = 0; each < 2; each++) {
        size_t i;
        snprintf(more, sizeof more,
                 "%s,\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":%s}", keys,
                 each ? "true" : "false");
        json_t *events = streamed("/v1/completions", more);
        size_t n = json_array_size(events);
        assert_true(json_equal(json_object_get(json_array_get(events, n - 1), "usage"),
                               json_object_get(whole, "usage")));
        json_array_foreach(events, i, event) {
            if (i + 1 < n) {
                assert_int_equal(json_object_get(event, "usage") != NULL, each);
            }
        }
        json_decref(events);
    }
    json_t *events = streamed("/v1/completions", keys);
    assert_null(json_object_get(json_array_get(events, json_array_size(events) - 1), "usage"));
    json_decref(events);
    json_decref(whole);
}

/* ---- SGLang's ---- */

/* Each event says all that there is so far, the last what is said at once. */
static void check_generate(const char *keys, size_t n) {
    json_t *whole = at_once("/generate", keys), *events = streamed("/generate", keys), *event;
    size_t i, n_over = 0;
    char *before[3] = {NULL};
    json_array_foreach(events, i, event) {
        size_t b = n > 1 ? (size_t)json_integer_value(json_object_get(event, "index")) : 0;
        const json_t *one = n > 1 ? json_array_get(whole, b) : whole;
        json_t *meta = json_object_get(event, "meta_info"), *should = json_object_get(one, "meta_info");
        assert_true(b < n);
        assert_int_equal(json_object_get(event, "index") != NULL, n > 1);
        const char *text = json_string_value(json_object_get(event, "text"));
        assert_true(!before[b] || strncmp(text, before[b], strlen(before[b])) == 0);
        free(before[b]);
        before[b] = strdup(text);
        assert_int_equal(json_array_size(json_object_get(event, "output_ids")),
                         json_integer_value(json_object_get(meta, "completion_tokens")));
        if (json_is_null(json_object_get(meta, "finish_reason"))) {
            assert_null(json_object_get(meta, "e2e_latency"));
            continue;
        }
        n_over++;
        assert_non_null(json_object_get(meta, "e2e_latency"));
        json_object_del(meta, "e2e_latency");
        json_object_del(should, "e2e_latency");
        json_object_del(meta, "id");
        json_object_del(should, "id");
        json_object_del(event, "index");
        if (!json_equal(event, one)) {
            fail_msg("%s: %zu: %s\nnot %s", keys, b, json_dumps(event, 0), json_dumps(one, 0));
        }
    }
    for (size_t b = 0; b < 3; b++) {
        free(before[b]);
    }
    assert_int_equal(n_over, n);
    json_decref(events);
    json_decref(whole);
}

static void test_generate(void **state) {
    (void)state;
    static const char three[] = "\"input_ids\":[[65,66,67],[100],[3,200,4,4,4]],";
    char keys[600];
    for (int seed = 0; seed < 4; seed++) {
        snprintf(keys, sizeof keys,
                 "%s\"sampling_params\":{\"max_new_tokens\":30,\"temperature\":%d,\"sampling_seed\":%d,"
                 "\"ignore_eos\":true}%s",
                 three, seed, seed,
                 seed % 2 ? ",\"return_logprob\":true,\"logprob_start_len\":0,\"top_logprobs_num\":2,"
                            "\"token_ids_logprob\":[5,6],\"return_prompt_token_ids\":true"
                          : "");
        check_generate(keys, 3);
    }
    check_generate("\"text\":\"abc\",\"sampling_params\":{\"max_new_tokens\":20,\"temperature\":2,"
                   "\"sampling_seed\":1,\"stop\":[\"e\",\"longer than that\"]}",
                   1);
    check_generate("\"text\":\"abc\",\"sampling_params\":{\"max_new_tokens\":1,\"temperature\":0},"
                   "\"return_logprob\":true",
                   1);
}

/* ---- as a client sees it ---- */

static int begin_stream(const struct lb_daemon *daemon, const char *headers, int tokens, char *heard,
                        size_t size) {
    char body[300];
    int n = snprintf(body, sizeof body,
                     "{\"prompt\":[1,2],\"max_tokens\":%d,\"ignore_eos\":true,\"stream\":true,"
                     "\"temperature\":0}",
                     tokens);
    int fd = lb_daemon_connect(daemon);
    assert_true(lb_http_send(fd, "POST", "/v1/completions", headers, body, (size_t)n));
    lb_peer_hear_one(fd, heard, size, "data: {");
    return fd;
}

/* All that comes until [DONE] or the close. */
static void hear_end(int fd, struct lb_buf *rest) {
    static char piece[1 << 16];
    ssize_t n = 1;
    lb_buf_init(rest, (size_t)64 << 20);
    while (n > 0 && !(rest->data && memmem(rest->data, rest->len, "[DONE]\n\n\r\n0\r\n\r\n", 15))) {
        n = recv(fd, piece, sizeof piece, 0);
        lb_buf_append(rest, piece, n > 0 ? (size_t)n : 0);
    }
}

/* The first event comes long before the last; who leaves ends the work, and holds nothing. */
static void test_lost(void **state) {
    (void)state;
    static char heard[1 << 16];
    struct lb_daemon daemon;
    assert_true(lb_daemon_start(&daemon, folder, "lost", (const char *[]){teacher, NULL}, true));
    for (int i = 0; i < 3; i++) {
        int fd = begin_stream(&daemon, "", LONGEST - 2, heard, sizeof heard);
        assert_memory_equal(heard, "HTTP/1.1 200 OK\r\n", 17);
        assert_non_null(strstr(heard, "\r\nTransfer-Encoding: chunked\r\n"));
        close(fd);
    }
    lb_ask_await(lb_ask_metrics_hold, &daemon, "\nlimbeckd_open_requests 1\n"); /* the one who asks */
    lb_ask_await(lb_ask_metrics_hold, &daemon, "\nlimbeckd_queue_requests 0\n");
    lb_ask_await(lb_ask_metrics_hold, &daemon, "\nlimbeckd_pending_bytes 0\n");
    assert_true(lb_daemon_await_log(&daemon, "lost=true"));
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

/* One who closes only his own side is told why there is no more. */
static void test_half_closed(void **state) {
    (void)state;
    static char heard[1 << 16];
    struct lb_buf rest;
    int fd = begin_stream(&daemon_, "", LONGEST - 2, heard, sizeof heard);
    shutdown(fd, SHUT_WR);
    hear_end(fd, &rest);
    assert_non_null(strstr(rest.data,
                           "\ndata: {\"error\":{\"message\":\"the connection was closed for sending "
                           "before all was told; keep it open\",\"type\":\"BadRequestError\","
                           "\"param\":null,\"code\":400}}\n\n"));
    assert_non_null(strstr(rest.data, "data: [DONE]\n\n\r\n0\r\n\r\n"));
    lb_buf_finish(&rest);
    close(fd);
}

/* One old client reads until the close. */
static void test_old_client(void **state) {
    (void)state;
    static const char body[] = "{\"prompt\":[1,2],\"max_tokens\":5,\"stream\":true,\"temperature\":0}";
    static char heard[1 << 16];
    char head[200];
    snprintf(head, sizeof head, "POST /v1/completions HTTP/1.0\r\nContent-Length: %zu\r\n\r\n",
             sizeof body - 1);
    int fd = lb_daemon_connect(&daemon_);
    lb_peer_say(fd, head);
    lb_peer_say(fd, body);
    assert_true(lb_peer_hear(fd, heard, sizeof heard));
    assert_null(strstr(heard, "chunked"));
    assert_non_null(strstr(heard, "\r\n\r\ndata: {"));
    assert_memory_equal(heard + strlen(heard) - 16, "\n\ndata: [DONE]\n\n", 16);
    close(fd);
}

/* Who has read the last event may ask again at once, also where one request at a time is all he may have. */
static void test_one_at_a_time(void **state) {
    (void)state;
    static char heard[1 << 16];
    struct lb_daemon daemon;
    const char *tokens = lb_daemon_file(folder, "tokens", "one one-token-1 concurrent=1\n", 0600),
               *header = "Authorization: Bearer one-token-1\r\n";
    assert_true(lb_daemon_start(&daemon, folder, "one",
                                (const char *[]){"--token-file", tokens, teacher, NULL}, true));
    int fd = begin_stream(&daemon, header, 6000, heard, sizeof heard);
    assert_int_equal(lb_daemon_status(&daemon, "GET", "/v1/models", header), 429);
    struct lb_buf rest;
    hear_end(fd, &rest);
    close(fd);
    lb_buf_finish(&rest);
    for (int i = 0; i < 20; i++) {
        fd = begin_stream(&daemon, header, 3, heard, sizeof heard);
        assert_memory_equal(heard, "HTTP/1.1 200 OK\r\n", 17);
        if (!strstr(heard, "[DONE]")) {
            lb_peer_hear_one(fd, heard, sizeof heard, "[DONE]");
        }
        close(fd);
    }
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

/* What goes wrong before the first byte is answered as ever, and afterwards as an event, with an end in
 * order. */
static void test_late(void **state) {
    (void)state;
    static char heard[1 << 16];
    struct lb_daemon daemon;
    struct lb_buf rest;
    assert_true(lb_daemon_start(&daemon, folder, "late",
                                (const char *[]){"--request-timeout", "1", teacher, NULL}, true));
    int fd = begin_stream(&daemon, "", LONGEST - 2, heard, sizeof heard);
    hear_end(fd, &rest);
    assert_non_null(strstr(rest.data,
                           "\ndata: {\"error\":{\"message\":\"the request's time was over before its "
                           "text was\",\"type\":\"TimeoutError\",\"param\":null,\"code\":504}}\n\n"));
    assert_non_null(strstr(rest.data, "data: [DONE]\n\n\r\n0\r\n\r\n"));
    assert_null(strstr(rest.data, "\"finish_reason\":\"length\""));
    assert_true(lb_daemon_await_log(&daemon, " stream_error=504"));
    lb_buf_finish(&rest);
    close(fd);
    struct lb_answer answer;
    static const char bad[] = "{\"prompt\":[1,2],\"max_tokens\":9,\"stream\":true,\"n\":2}";
    lb_daemon_ask(&daemon, "POST", "/v1/completions", "", bad, sizeof bad - 1, &answer);
    assert_int_equal(answer.status, 400);
    assert_non_null(strstr(answer.body.data, "\"param\":\"n\""));
    lb_answer_finish(&answer);
    assert_int_equal(lb_daemon_stop(&daemon, SIGTERM), 0);
}

/* A stream is among what the drain waits for; with no time to drain it ends with an event that says so. */
static void test_drain(void **state) {
    (void)state;
    static char heard[1 << 16];
    for (int hurried = 0; hurried < 2; hurried++) {
        struct lb_daemon daemon;
        struct lb_buf rest;
        assert_true(lb_daemon_start(&daemon, folder, "drain",
                                    (const char *[]){"--drain-seconds", hurried ? "0" : "200", teacher, NULL},
                                    true));
        int fd = begin_stream(&daemon, "", hurried ? LONGEST - 2 : 3000, heard, sizeof heard);
        kill(daemon.pid, SIGTERM);
        hear_end(fd, &rest);
        assert_non_null(strstr(rest.data, "data: [DONE]\n\n\r\n0\r\n\r\n"));
        assert_int_equal(strstr(rest.data, "\"finish_reason\":\"length\"") != NULL, !hurried);
        assert_int_equal(
            strstr(rest.data, "\ndata: {\"error\":{\"message\":\"the server is shutting down\"") != NULL,
            hurried);
        assert_int_equal(lb_daemon_stop(&daemon, 0), 0);
        assert_int_equal(lb_daemon_logged(&daemon, " stream_error=503"), hurried);
        lb_buf_finish(&rest);
        close(fd);
    }
}

/* ---- start and stop ---- */

/* Each byte is a token: 1 + it. */
static void write_tokenizer(const char *path) {
    struct lb_buf json;
    lb_buf_init(&json, 1 << 20);
    tiny_tokenizer_adding(&json, NULL, 0, "", "", "");
    assert_int_equal(lb_buf_status(&json), LB_OK);
    (void)lb_daemon_file(path, "tokenizer.json", json.data, 0644);
    lb_buf_finish(&json);
}

static int start_all(void **state) {
    (void)state;
    struct lb_config config;
    char path[128];
    assert_non_null(mkdtemp(folder));
    lb_tiny_llama(&config);
    config.vocab_size = 257;
    config.initializer_range = 0.5; /* so that answers differ */
    config.max_position_embeddings = LONGEST;
    snprintf(path, sizeof path, "%s/teacher", folder);
    lb_tiny_save(&config, 1, path, LB_F32, false);
    write_tokenizer(path);
    snprintf(teacher, sizeof teacher, "teacher=%s", path);
    assert_true(lb_daemon_start(&daemon_, folder, "daemon", (const char *[]){teacher, NULL}, true));
    return 0;
}

static int stop_all(void **state) {
    (void)state;
    assert_int_equal(lb_daemon_stop(&daemon_, SIGTERM), 0);
    assert_int_equal(lb_remove_tree(folder, NULL), LB_OK);
    return 0;
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_completions), cmocka_unit_test(test_stops),
        cmocka_unit_test(test_usage),       cmocka_unit_test(test_generate),
        cmocka_unit_test(test_lost),        cmocka_unit_test(test_half_closed),
        cmocka_unit_test(test_old_client),  cmocka_unit_test(test_one_at_a_time),
        cmocka_unit_test(test_late),        cmocka_unit_test(test_drain),
    };
    return cmocka_run_group_tests(tests, start_all, stop_all);
}
