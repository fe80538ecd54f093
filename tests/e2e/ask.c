#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/e2e/ask.h"

#include "common/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void lb_ask_init(struct lb_ask *ask) {
    memset(ask, 0, sizeof *ask);
    ask->request = (struct lb_infer_request){.top_k = LB_DEFAULT_TOP_K,
                                             .temperature = 1,
                                             .binary_default = true,
                                             .inputs = ask->inputs,
                                             .outputs = ask->outputs};
    lb_arena_init(&ask->arena, (size_t)256 << 20);
}

void lb_ask_input(struct lb_ask *ask, const char *name, enum lb_datatype datatype, int64_t rows, int64_t cols,
                  const void *data) {
    struct lb_wire_tensor *t = &ask->inputs[ask->request.n_inputs++];
    *t = (struct lb_wire_tensor){.name = name,
                                 .datatype = datatype,
                                 .n_dims = cols ? 2 : 1,
                                 .dim = {rows, cols},
                                 .data = data,
                                 .binary = true};
    t->bytes = (size_t)lb_wire_elements(t) * lb_datatype_bytes(datatype);
}

void lb_ask_ids(struct lb_ask *ask, int64_t rows, int64_t cols, const int32_t *ids) {
    lb_ask_init(ask);
    lb_ask_input(ask, "input_ids", LB_DT_INT32, rows, cols, ids);
}

void lb_ask_output(struct lb_ask *ask, const char *name, enum lb_datatype datatype, bool binary) {
    ask->outputs[ask->request.n_outputs++] = (struct lb_wire_output){name, binary, datatype};
}

static bool send_request(int fd, const char *model, struct lb_ask *ask, const char *headers) {
    struct lb_buf body;
    size_t json_len = 0;
    char path[256], all[512];
    bool binary = false;
    lb_buf_init(&body, (size_t)256 << 20);
    for (size_t i = 0; i < ask->request.n_inputs; i++) {
        binary |= ask->inputs[i].binary;
    }
    bool ok = lb_infer_request_encode(&ask->request, &body, &json_len, NULL) == LB_OK;
    snprintf(path, sizeof path, "/v2/models/%s/infer", model);
    if (binary) {
        snprintf(all, sizeof all, LB_HEADER_JSON_LENGTH ": %zu\r\n%s", json_len, headers);
    } else {
        snprintf(all, sizeof all, "%s", headers);
    }
    ok = ok && lb_http_send(fd, "POST", path, all, body.data, body.len);
    lb_buf_finish(&body);
    return ok;
}

bool lb_ask_on(int fd, const char *model, struct lb_ask *ask, const char *headers) {
    char length[32];
    if (!send_request(fd, model, ask, headers) || !lb_http_receive(fd, &ask->answer)) {
        return false;
    }
    if (ask->answer.status != 200) {
        return true;
    }
    int64_t json_len =
        lb_answer_header(&ask->answer, LB_HEADER_JSON_LENGTH, length, sizeof length) ? atoll(length) : -1;
    struct lb_detail detail = {0};
    if (lb_infer_response_decode(ask->answer.body.data, ask->answer.body.len, json_len, &ask->arena,
                                 &ask->response, &detail) != LB_OK) {
        fprintf(stderr, "%s\n", detail.text);
        return false;
    }
    return true;
}

void lb_ask_send_ok(const struct lb_daemon *daemon, const char *model, struct lb_ask *ask,
                    const char *headers) {
    int fd = lb_daemon_connect(daemon);
    assert_true(fd >= 0);
    bool ok = lb_ask_on(fd, model, ask, headers);
    close(fd);
    if (!ok || ask->answer.status != 200) {
        fail_msg("status %d: %s", ask->answer.status, ask->answer.body.data ? ask->answer.body.data : "");
    }
}

bool lb_ask_send_only(const struct lb_daemon *daemon, const char *model, struct lb_ask *ask) {
    int fd = lb_daemon_connect(daemon);
    bool ok = fd >= 0 && send_request(fd, model, ask, "");
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

void lb_ask_finish(struct lb_ask *ask) {
    lb_answer_finish(&ask->answer);
    lb_arena_finish(&ask->arena);
}

int32_t lb_ask_integer(const struct lb_ask *ask, int output, int64_t at) {
    int32_t v;
    memcpy(&v, (const char *)ask->response.outputs[output].data + at * 4, sizeof v);
    return v;
}

float lb_ask_real(const struct lb_ask *ask, int output, int64_t at) {
    float v;
    memcpy(&v, (const char *)ask->response.outputs[output].data + at * 4, sizeof v);
    return v;
}

/* ---- waiting ---- */

void lb_ask_await(bool (*holds)(const struct lb_daemon *daemon, const void *argument),
                  const struct lb_daemon *daemon, const void *argument) {
    uint64_t until = lb_now_ns() + 20 * LB_SECOND_NS;
    while (!holds(daemon, argument)) {
        assert_true(lb_now_ns() < until);
        lb_sleep_ns(LB_MS_NS);
    }
}

bool lb_ask_metrics_hold(const struct lb_daemon *daemon, const void *text) {
    struct lb_answer answer;
    bool holds =
        lb_daemon_ask(daemon, "GET", "/metrics", "", NULL, 0, &answer) && strstr(answer.body.data, text);
    lb_answer_finish(&answer);
    return holds;
}

/* ---- other dialects ---- */

json_t *lb_ask_json(const struct lb_daemon *daemon, const char *path, const char *headers, const char *body,
                    int status) {
    struct lb_answer answer;
    char type[64] = "";
    assert_true(
        lb_daemon_ask(daemon, body ? "POST" : "GET", path, headers, body, body ? strlen(body) : 0, &answer));
    if (answer.status != status) {
        fail_msg("%s: status %d, not %d: %s", body ? body : path, answer.status, status, answer.body.data);
    }
    assert_true(lb_answer_header(&answer, "Content-Type", type, sizeof type));
    assert_string_equal(type, "application/json");
    json_t *json =
        json_loadb(answer.body.data, answer.body.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    assert_non_null(json);
    lb_answer_finish(&answer);
    return json;
}

json_t *lb_ask_events(const struct lb_answer *answer) {
    static const char last[] = "[DONE]";
    const char *at = answer->body.data, *end;
    char type[64] = "";
    json_t *list = json_array();
    assert_true(lb_answer_header(answer, "Content-Type", type, sizeof type));
    assert_string_equal(type, "text/event-stream; charset=utf-8");
    for (; at && (end = strstr(at, "\n\n")) != NULL; at = end + 2) {
        assert_memory_equal(at, "data: ", 6);
        if (strncmp(at + 6, last, sizeof last - 1) == 0) {
            assert_int_equal(end + 2 - answer->body.data, answer->body.len);
            return list;
        }
        assert_null(memchr(at, '\n', (size_t)(end - at)));
        json_t *event =
            json_loadb(at + 6, (size_t)(end - at - 6), JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
        assert_non_null(event);
        json_array_append_new(list, event);
    }
    fail_msg("no [DONE]: %s", answer->body.data ? answer->body.data : "");
    return list;
}

size_t lb_ask_put_ids(char *text, size_t size, const int32_t *ids, int64_t n) {
    size_t used = (size_t)snprintf(text, size, "[");
    for (int64_t i = 0; i < n; i++) {
        used += (size_t)snprintf(text + used, size - used, i ? ",%d" : "%d", ids[i]);
    }
    return used + (size_t)snprintf(text + used, size - used, "]");
}

size_t lb_ask_put_lists(char *text, size_t size, const int32_t *ids, int64_t n, int64_t cols,
                        const int32_t *lengths) {
    size_t used = (size_t)snprintf(text, size, "[");
    for (int64_t b = 0; b < n; b++) {
        used += (size_t)snprintf(text + used, size - used, b ? "," : "");
        used += lb_ask_put_ids(text + used, size - used, ids + b * cols, lengths[b]);
    }
    return used + (size_t)snprintf(text + used, size - used, "]");
}

const json_t *lb_ask_in(const json_t *object, const char *a, const char *b) {
    const json_t *value = json_object_get(json_object_get(object, a), b);
    assert_non_null(value);
    return value;
}

const json_t *lb_ask_choice(const json_t *answer, size_t b) {
    const json_t *choice = json_array_get(json_object_get(answer, "choices"), b);
    assert_int_equal(json_integer_value(json_object_get(choice, "index")), b);
    return choice;
}

float lb_ask_number(const json_t *value) {
    assert_true(json_is_real(value));
    return (float)json_real_value(value);
}
